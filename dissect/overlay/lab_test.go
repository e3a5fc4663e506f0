package overlay

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"time"

	"squall/dissect"
	"squall/dissect/headers"
)

// packetsOf hands out the decoded packets of a real capture.
func packetsOf(t *testing.T, name string, f func(*dissect.Datagram)) {
	t.Helper()
	src, _ := real(t, name)
	defer src.Close()
	var dec headers.Decoder
	for {
		b, err := src.Next()
		if err != nil {
			return
		}
		for i := range b.Packets {
			var d dissect.Datagram
			dec.Decode(&b.Packets[i], &d)
			f(&d)
		}
		b.Release()
	}
}

// labNode is an endpoint of the lab: 10.net.0.n.
func labNode(net, n byte, port uint16) dissect.Endpoint {
	return dissect.Endpoint{Addr: dissect.Addr4([]byte{10, net, 0, n}), Port: port}
}

// firstError is the first packet to a node from a time on that an ICMP error
// answers, and when that came.
func firstError(t *testing.T, name string, node dissect.Endpoint, from int64) (sent, answered int64) {
	t.Helper()
	last := map[dissect.Endpoint]int64{}
	packetsOf(t, name, func(d *dissect.Datagram) {
		switch {
		case d.Time < from || answered != 0:
		case d.Class == dissect.ClassUDP && d.Destination() == node:
			last[d.Source()] = d.Time
		case d.Class == dissect.ClassICMPError && d.Quoted.Dst == node.Addr && d.Quoted.DstPort == node.Port:
			sent, answered = last[dissect.Endpoint{Addr: d.Quoted.Src, Port: d.Quoted.SrcPort}], d.Time
		}
	})
	if answered == 0 {
		t.Fatalf("%s: no error of %v", name, node)
	}
	return sent, answered
}

// firstSign is when the rows first say that a node is gone, from a time on.
func firstSign(rows []dissect.Attempt, node dissect.Endpoint, from int64) (at int64) {
	sign := func(t int64) {
		if t >= from && (at == 0 || t < at) {
			at = t
		}
	}
	for i := range rows {
		r := &rows[i]
		if r.Destination != node {
			continue
		}
		if r.Outcome.Failed() {
			sign(r.End)
		}
		if r.SessionEnded == dissect.SessionUnreachable {
			sign(r.SessionEnd)
		}
	}
	return at
}

// seconds of the epoch in ns; the README of the lab has hundredths.
func at(seconds float64) int64 { return int64(seconds*100+.5) * 1e7 }

func median(list []int64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return time.Duration(list[len(list)/2])
}

// TestLabAsUnknown: were the overlays of the captures from the lab unknown, their
// supernodes would be found by who depends on them, and nobody else taken for one.
func TestLabAsUnknown(t *testing.T) {
	for name, want := range map[string][]string{
		"lab/n2n3-supernode-loss-a.pcap":       {"10.77.0.1:7654", "10.77.0.2:7654", "10.77.0.3:7654"},
		"lab/nebula-lighthouses-killed-a.pcap": {"10.81.0.1:4242", "10.81.0.2:4242"},
		"lab/sip-registrar-killed-a.pcap":      {"10.82.0.1:5060"},
		"overlay/skype-2006-irc.cap":           nil, // of one client each
		"overlay/skype-2015-b.pcap":            nil,
		"overlay/bittorrent-dht__input.pcap":   nil,
		"overlay/pps.pcap":                     nil,
	} {
		src, _ := real(t, name)
		found := map[string]float64{}
		for _, r := range analyse(t, src, []dissect.Protocol{}) {
			if r.RoleSource == dissect.RoleSourceBehaviour && r.Role != dissect.RolePeer {
				found[r.Destination.String()] = r.RoleProof
				if r.Role != dissect.RoleSupernode || r.RoleProof < 0.6 {
					t.Errorf("%s: %v is %v, confidence %v", name, r.Destination, r.Role, r.RoleProof)
				}
			}
		}
		if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, want) {
			t.Errorf("%s: supernodes %v, want %v", name, got, want)
		}
	}
}

// TestLabN2N: two of three supernodes are killed in turn. The edges of each
// notice with their next registration, repeat it every 4 s instead of 20 s, three
// times, and go on to another.
func TestLabN2N(t *testing.T) {
	const name = "lab/n2n3-supernode-loss-a.pcap"
	src, _ := real(t, name)
	rows := analyse(t, src, All())
	if len(rows) != 399 { // REGISTER_SUPER in the capture, each with a cookie of its own
		t.Errorf("%d attempts, want 399", len(rows))
	}
	kills := []struct {
		node    dissect.Endpoint
		from    int64
		orphans int
	}{{labNode(77, 1, 7654), at(1795392566.66), 5}, {labNode(77, 2, 7654), at(1795392646.65), 14}}
	failed := 0
	for _, k := range kills {
		if _, want := firstError(t, name, k.node, k.from); firstSign(rows, k.node, k.from) != want || firstSign(rows, k.node, 0) != want {
			t.Errorf("%v: first sign at %d, the first error came at %d", k.node, firstSign(rows, k.node, 0), want)
		}
		// Who had its last yes from the node before it was killed.
		last := map[string]*dissect.Attempt{}
		for i := range rows {
			if r := &rows[i]; r.Start < k.from && r.Outcome == dissect.OutcomeAccepted {
				last[r.ClientID] = r
			}
		}
		orphans := 0
		for client, r := range last {
			if r.Destination != k.node {
				continue
			}
			orphans++
			var chain []dissect.Attempt
			for _, r := range rows {
				if r.ClientID == client && r.Start > k.from && len(chain) < 4 {
					chain = append(chain, r)
				}
			}
			for n, want := range []struct {
				relation dissect.Relation
				outcome  dissect.Outcome
			}{{dissect.RelationReattach, dissect.OutcomeRefused}, {dissect.RelationRetry, dissect.OutcomeRefused}, {dissect.RelationRetry, dissect.OutcomeRefused}, {dissect.RelationFailover, dissect.OutcomeAccepted}} {
				r := &chain[n]
				if r.Relation != want.relation || r.Outcome != want.outcome || (r.Destination == k.node) != (n < 3) || r.IntentID != chain[0].IntentID {
					t.Errorf("%s, attempt %d after the death of %v: %s %s at %v", client, n+1, k.node, r.Relation, r.Outcome, r.Destination)
				}
			}
		}
		if orphans != k.orphans {
			t.Errorf("%v had %d edges, want %d", k.node, orphans, k.orphans)
		}
	}
	var quick, calm []int64
	before := map[string]int64{}
	for i := range rows {
		r := &rows[i]
		if r.Outcome.Failed() {
			failed++
		}
		switch {
		case r.Relation.Retries():
			quick = append(quick, r.RetryGap)
		case r.Relation == dissect.RelationRefresh && before[r.ClientID] != 0:
			calm = append(calm, r.Start-before[r.ClientID])
		}
		before[r.ClientID] = r.Start
	}
	if failed != 3*(5+14) {
		t.Errorf("%d failures, want 57", failed)
	}
	if q, c := median(quick), median(calm); q.Round(100*time.Millisecond) != 4*time.Second || c.Round(time.Second) != 20*time.Second {
		t.Errorf("between retries %v, want 4 s; between refreshes %v, want 20 s", q, c)
	}
}

// TestLabN2NRefused: the supernode knows another by the same MAC address; it
// says so 15 times, then it has forgotten.
func TestLabN2NRefused(t *testing.T) {
	src, _ := real(t, "lab/n2n3-nak.pcap")
	refused, after := 0, false
	for _, r := range analyse(t, src, All()) {
		switch {
		case r.Protocol != "n2n" || r.Role != dissect.RoleSupernode:
		case r.Outcome == dissect.OutcomeRefused && r.Evidence == dissect.EvidenceApp && r.ClientID == "n2n:021122334455":
			refused++
		case r.Outcome != dissect.OutcomeAccepted:
			t.Errorf("%s %s", r.Outcome, r.Evidence)
		default:
			after = refused > 0
		}
	}
	if refused != 15 || !after {
		t.Errorf("%d refusals by the application, want 15; accepted after them: %v", refused, after)
	}
}

// TestLabNebula: two lighthouses are killed in turn. The first packet that the
// node's host answers with an error is no handshake but the report of a node; it
// ends the session. Nodes that lost their tunnel shake hands in bursts of ten,
// every 10 s, until the lighthouse is back.
func TestLabNebula(t *testing.T) {
	const name = "lab/nebula-lighthouses-killed-a.pcap"
	src, _ := real(t, name)
	rows := analyse(t, src, All())
	first := labNode(81, 1, 4242)
	for node, from := range map[dissect.Endpoint]int64{first: at(1795397108.93), labNode(81, 2, 4242): at(1795397138.93)} {
		if _, want := firstError(t, name, node, from); firstSign(rows, node, from) != want || firstSign(rows, node, 0) != want {
			t.Errorf("%v: first sign at %d, the first error came at %d", node, firstSign(rows, node, 0), want)
		}
	}
	back := at(1795397203.92)
	lost, bursts, again := map[string]bool{}, []int64{}, map[string]bool{}
	before := map[string]int64{}
	transmissions := int32(0)
	for i := range rows {
		r := &rows[i]
		if r.Protocol != "nebula" || r.Role != dissect.RoleSupernode || r.RoleSource != dissect.RoleSourceContent || r.ClientIDLevel != dissect.IDProtocol {
			t.Errorf("%s %s %v by %s, client %s by %v", r.Op, r.Protocol, r.Role, r.RoleSource, r.ClientID, r.ClientIDLevel)
		}
		if r.SessionEnded == dissect.SessionUnreachable {
			lost[r.ClientID+r.Destination.String()] = true
		}
		if r.Op != "Handshake" || r.Destination != first {
			continue
		}
		switch {
		case r.Outcome == dissect.OutcomeAccepted && r.AnsweredAt > back:
			again[r.ClientID] = true
		case r.Outcome.Failed() && r.Start < back-10e9:
			if before[r.ClientID] != 0 {
				bursts = append(bursts, r.Start-before[r.ClientID])
			}
			before[r.ClientID] = r.Start
			transmissions = max(transmissions, r.Transmissions)
		}
	}
	if len(lost) != 20 || len(again) != 10 {
		t.Errorf("%d sessions ended by an error, want 10 at each lighthouse; %d nodes came back, want 10", len(lost), len(again))
	}
	if gap := median(bursts); gap.Round(time.Second) != 10*time.Second || transmissions != 10 {
		t.Errorf("bursts of %d every %v, want 10 every 10 s", transmissions, gap)
	}
}

// TestLabSIP: the registrar is killed for 40 s. User agents that all register
// for one address are told apart, repeat a REGISTER within its attempt, and
// begin anew a second after they gave up.
func TestLabSIP(t *testing.T) {
	const name = "lab/sip-registrar-killed-a.pcap"
	src, _ := real(t, name)
	rows := analyse(t, src, All())
	node, from, back := labNode(82, 1, 5060), at(1795396979.70), at(1795397019.69)
	if _, want := firstError(t, name, node, from); firstSign(rows, node, from) != want || firstSign(rows, node, 0) != want {
		t.Errorf("first sign at %d, the first error came at %d", firstSign(rows, node, 0), want)
	}
	// An attempt is a Call-ID and CSeq, however often it is sent.
	sent := map[uint64]bool{}
	packetsOf(t, name, func(d *dissect.Datagram) {
		if d.Class == dissect.ClassUDP && d.Destination() == node {
			h := readSIPFields(d.Payload)
			sent[dissect.Hash64(dissect.Hash64(1, h.call), h.cseq)] = true
		}
	})
	if len(rows) != len(sent) {
		t.Errorf("%d attempts, want %d", len(rows), len(sent))
	}
	slices.SortStableFunc(rows, func(a, b dissect.Attempt) int { return cmp.Compare(a.ClientID, b.ClientID) })
	type story struct{ calm, reattach, retries, restored int }
	clients := map[string]*story{}
	var gaps []int64
	for i := range rows {
		r := &rows[i]
		s := clients[r.ClientID]
		if s == nil {
			s = new(story)
			clients[r.ClientID] = s
		}
		failed := r.Outcome == dissect.OutcomeRefused && r.Evidence == dissect.EvidenceICMP
		switch {
		case r.Service != "sip/login" || r.ClientVersion != "sipp-lab/3.6" || r.ClientIDLevel != dissect.IDProtocol:
			t.Errorf("%s of %s %q", r.Service, r.ClientID, r.ClientVersion)
		case r.Start < from && r.Outcome == dissect.OutcomeAccepted && r.Transmissions == 1:
			s.calm++
		case r.Relation == dissect.RelationReattach && failed:
			s.reattach++
		case r.Relation == dissect.RelationRetry && failed:
			s.retries++
			gaps = append(gaps, r.RetryGap)
		case r.AnsweredAt > back && r.Outcome == dissect.OutcomeAccepted:
			s.restored++
		default:
			t.Errorf("%s %s %s %s at %d", r.ClientID, r.Relation, r.Outcome, r.Evidence, r.Start)
		}
	}
	for id, s := range clients {
		if s.calm < 2 || s.reattach != 1 || s.retries < 3 || s.restored < 2 {
			t.Errorf("%s: %+v", id, *s)
		}
	}
	if len(clients) != 14 {
		t.Errorf("%d clients, want 14", len(clients))
	}
	// Four transmissions in 3.5 s, a wait, and the next attempt: 5.1 s.
	if gap := median(gaps); gap < 4500*time.Millisecond || gap > 6*time.Second {
		t.Errorf("between retries %v", gap)
	}
}
