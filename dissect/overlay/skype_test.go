package overlay

import (
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect"
)

const (
	skypeAsk  = "15f202e2b459e6644a654d81763ac9dbf536"
	skypeNack = "15f2775680f57324499eb8"
	skypeU3   = "15f2030124499eb8a57cfdf1644a654d9c316e2ce98fc0"
)

func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*37+11) | 0x80
	}
	return string(b)
}

// say plays messages of a flow and compares kind, operation, role and rung.
func say(t *testing.T, d *dissect.Datagram, f *dissect.Flow, node bool, b, want string) dissect.Message {
	t.Helper()
	e := *d
	e.Payload, e.PayloadLen = []byte(b), len(b)
	if node {
		e.Src, e.Dst, e.SrcPort, e.DstPort = d.Dst, d.Src, d.DstPort, d.SrcPort
	}
	f.FromClient, f.SegLen = !node, len(b)
	m := dissect.Message{FromClient: !node}
	n, err := skype{}.Dissect(&e, f, &m)
	if err != nil || n != len(b) {
		t.Errorf("%d bytes: used %d, %v", len(b), n, err)
	}
	if got := strings.TrimSpace(fmt.Sprintf("%v %s %v %s", m.Kind, m.Op, m.Role, m.Rung)); want != "" && got != want {
		t.Errorf("%d bytes, node %v: %q, want %q", len(b), node, got, want)
	}
	return m
}

func TestSkypeLadder(t *testing.T) {
	type turn struct {
		node bool
		b    string
		want string
	}
	data := "data  unknown"
	for name, c := range map[string]struct {
		port  uint16
		turns []turn
	}{
		"2006 accepted": {40001, []turn{{false, noise(14), "request attach supernode tcp"}, {true, noise(73), "progress answer unknown"},
			{false, noise(25), data}, {true, noise(587), "accept attached unknown"}}},
		"2006 refused":  {33033, []turn{{false, noise(14), ""}, {true, noise(73), ""}, {false, noise(27), ""}, {true, noise(339), "refuse refused unknown"}}},
		"2015 accepted": {40008, []turn{{false, noise(50), ""}, {true, noise(103), ""}, {false, noise(8), data}, {true, noise(8), "accept attached unknown"}}},
		"2015 starved":  {40008, []turn{{false, noise(50), ""}, {true, noise(103), ""}, {false, noise(8), data}, {false, noise(46), data}}},
		"443": {443, []turn{{false, skypeHello + noise(16), "request attach supernode tcp-443"}, {false, noise(56), data},
			{true, skypeServerHello + noise(20), "progress answer supernode"}, {false, noise(8), data}, {true, noise(8), "accept attached unknown"}}},
		"third answer": {40008, []turn{{false, noise(50), ""}, {true, noise(103), ""}, {false, noise(17), data}, {true, noise(14), data},
			{false, noise(4), data}, {true, noise(4), "accept attached unknown"}}},
		"login 2006": {33033, []turn{{false, skypeLogin, "request login login tcp"}, {true, skypeLogged, "progress greeting unknown"},
			{false, unhex("16030100cd4103000980400408c001") + noise(400), data}, {true, "\x17\x03\x01\x00" + noise(228), "accept login unknown"}}},
		"login 2015": {443, []turn{{false, skypeLogin, "request login login tcp-443"}, {true, skypeLogged, "progress greeting unknown"}, {false, skypeLogin, data},
			{false, noise(1440), data}, {true, skypeLogged, data}, {true, "\x17\x03\x01\x00\x34" + noise(52), "accept login unknown"}}},
		"event server": {12350, []turn{{false, noise(51), "request attach login tcp"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var f dissect.Flow
			d := packet(dissect.ProtoTCP, 51234, c.port, "")
			for i, s := range c.turns {
				d.Payload = []byte(s.b)
				if i == 0 && (skype{}).Probe(d) == dissect.No {
					t.Error("not recognised")
				}
				say(t, d, &f, s.node, s.b, s.want)
			}
		})
	}
}

func TestSkypeVersionCheck(t *testing.T) {
	hello := line{data: "GET http://ui.skype.com/ui/2/1.2.0.18/en/getlatestversion?ver=1.2.0.18&uhash=1d3a HTTP/1.1\r\nHost: ui.skype.com\r\n\r\n",
		kind: dissect.KindRequest, op: "version check", version: "1.2.0.18"}
	converse(t, skype{}, dissect.ProtoTCP, 80, []line{hello, {node: true, data: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", kind: dissect.KindAccept}})
	converse(t, skype{}, dissect.ProtoTCP, 80, []line{hello, {node: true, data: "HTTP/1.1 503 Busy\r\n\r\n", kind: dissect.KindThrottle}})
	converse(t, skype{}, dissect.ProtoTCP, 80, []line{
		{data: "GET /ui/0/5.0.0.152/en/installed HTTP/1.1\r\nHost: ui.skype.com\r\n\r\n", kind: dissect.KindRequest, version: "5.0.0.152"},
		{node: true, data: "HTTP/1.0 404 Not Found\r\n\r\n", kind: dissect.KindRefuse}})
	strangers(t, skype{}, dissect.ProtoTCP, 80, "GET / HTTP/1.1\r\nHost: ui.skype.com\r\n\r\n", "GET /ui/2/1.2/en/getlatestversion?ver=1.2 HTTP/1.1\r\nHost: example.org\r\n\r\n",
		strings.Repeat("\x00", 40), strings.Repeat("0123456789", 4))
}

func TestSkypeServerSpeaksFirst(t *testing.T) {
	if v := (skype{}).Probe(packet(dissect.ProtoTCP, 3306, 40041, noise(60))); v != dissect.No {
		t.Errorf("a greeting to a client's port is called %d", v)
	}
	if v := (skype{}).Probe(packet(dissect.ProtoTCP, 51234, 40041, noise(60))); v != dissect.Maybe {
		t.Errorf("an opaque first message to 40041 is called %d", v)
	}
}

// TestSkypeProbe is the worked attach of protocols.md A.9, datagram by datagram.
func TestSkypeProbe(t *testing.T) {
	d := packet(dissect.ProtoUDP, 35990, 15294, unhex(skypeAsk))
	if (skype{}).Probe(d) != dissect.Maybe {
		t.Error("a probe is not recognised")
	}
	var f dissect.Flow
	ask := say(t, d, &f, false, unhex(skypeAsk), "request probe supernode udp")
	nack := say(t, d, &f, true, unhex(skypeNack), "challenge nack unknown")
	again := say(t, d, &f, false, unhex(skypeU3), "request resend supernode udp")
	if ask.Txn != nack.Txn || again.Chain != ask.Chain || again.Txn == ask.Txn {
		t.Error("the legs are not tied")
	}
	if m := say(t, d, &f, true, "\x94\x91\x02"+noise(48), "refuse refused supernode"); m.Txn != 0 {
		t.Error("an answer pairs by addresses alone")
	}
	f = dissect.Flow{}
	say(t, d, &f, false, unhex(skypeAsk), "")
	say(t, d, &f, true, "\x7a\x50\x02"+noise(15), "accept yes unknown")
	say(t, d, &f, false, "\x15\xf4\x02"+noise(19), "data  unknown")
	say(t, d, &f, true, "\x7a\x52\x02"+noise(650), "data  unknown")
	d.Time += 61 * second
	say(t, d, &f, false, "\x16\xf4\x02"+noise(15), "request probe supernode udp")
	guess(t, skype{}, dissect.ProtoUDP, 33033, []line{{data: unhex(skypeAsk), kind: dissect.KindRequest, op: "probe"}, {node: true, data: unhex(skypeNack), kind: dissect.KindChallenge, same: 1},
		{data: unhex(skypeU3), kind: dissect.KindRequest, op: "resend"}, {node: true, data: "\x7a\x50\x02" + noise(15), kind: dissect.KindAccept, op: "yes"}})
	strangers(t, skype{}, dissect.ProtoUDP, 53, unhex(skypeAsk))
	strangers(t, skype{}, dissect.ProtoUDP, 5060, unhex(skypeAsk)+"x", unhex(skypeAsk)[:17], "\x80\x00\x02"+noise(15), "ab\x02"+"plain text, 15.")
}

func FuzzSkype(f *testing.F) {
	fuzzProtocol(f, skype{}, 40001, noise(14)+noise(73), skypeHello+noise(16), skypeLogin+skypeLogin,
		"GET /ui/0/5.0.0.152/en/installed HTTP/1.1\r\nHost: ui.skype.com\r\n\r\n",
		unhex(skypeAsk), unhex(skypeNack), unhex(skypeU3), "\x15\xf2\x0f\x15\xf2")
}

// real opens one of the real captures, or skips.
func real(t *testing.T, name string) (capture.Source, string) {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "captures")
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return src, dir
}

// truth is one row of an .attempts.tsv.
type truth struct {
	at                    float64
	src, dst, role, state string
	closed                string
}

func truths(t *testing.T, path string) (list []truth) {
	t.Helper()
	h, err := os.Open(path)
	if err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	defer h.Close()
	r := csv.NewReader(h)
	r.Comma, r.FieldsPerRecord = '\t', -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rows[1:] {
		at, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, truth{at: at, src: f[1], dst: f[2] + ":" + f[3], role: f[4], state: f[5], closed: f[13]})
	}
	return list
}

// expected is the outcome that a state of the truth table is by the rules.
func (c *truth) expected() dissect.Outcome {
	switch c.state {
	case "session":
		return dissect.OutcomeAccepted
	case "connected-no-reply-data":
		if strings.HasPrefix(c.closed, "fin: rst:s") { // the node ended it
			return dissect.OutcomeDropped
		}
		return dissect.OutcomeStalled
	case "refused":
		return dissect.OutcomeRefused
	case "no-answer":
		return dissect.OutcomeTimeout
	}
	return dissect.OutcomeStalled
}

// against compares the TCP rows with a truth table, attempt by attempt. known
// says which service a role of the table is; differs gives the rows (by client
// port) that are known to differ, with the reason.
func against(t *testing.T, rows []dissect.Attempt, first int64, list []truth, known map[string]string, differs map[string]string) {
	t.Helper()
	type count struct{ rows, role, outcome int }
	counts := map[string]*count{}
	used := map[int]bool{}
	for _, c := range list {
		service, ok := known[c.role]
		if !ok {
			continue
		}
		n := counts[c.role]
		if n == nil {
			n = new(count)
			counts[c.role] = n
		}
		n.rows++
		found := -1
		for i := range rows {
			r := &rows[i]
			off := float64(r.Start-first)/1e9 - c.at
			if r.Proto == dissect.ProtoTCP && r.Source.String() == c.src && r.Destination.String() == c.dst && off < 0.002 && off > -0.002 {
				if found >= 0 {
					t.Errorf("%s %.3f: two rows", c.src, c.at)
				}
				found = i
			}
		}
		if found < 0 || used[found] {
			t.Errorf("%s %.3f: no row of its own", c.src, c.at)
			continue
		}
		used[found] = true
		r := &rows[found]
		want := c.expected()
		_, port, _ := strings.Cut(c.src, ":")
		why := differs[port]
		same := true
		if r.Service == service {
			n.role++
		} else {
			same = false
		}
		if r.Outcome == want {
			n.outcome++
		} else {
			same = false
		}
		if same != (why == "") {
			t.Errorf("%.3f %s > %s: %s %s (%v), the table says %s %s %s; exception %q", c.at, c.src, c.dst, r.Service, r.Outcome, r.Evidence, c.role, c.state, c.closed, why)
		}
	}
	for role, n := range counts {
		t.Logf("%s: %d attempts, role equal in %d, outcome in %d", role, n.rows, n.role, n.outcome)
	}
}

// In this capture 37 of 38 connections to supernodes connect and are starved.
func TestSkype2015AgainstTruth(t *testing.T) {
	src, dir := real(t, "overlay/skype-2015-b.pcap")
	rows := analyse(t, src, All())
	list := truths(t, filepath.Join(dir, "skype-2015-b.attempts.tsv"))
	against(t, rows, firstTime(t, "overlay/skype-2015-b.pcap"), list, map[string]string{
		"SN": "skype/supernode", "SN443": "skype/supernode", "SRV12350": "skype/login", "OTHER13392": "skype/login",
	}, map[string]string{
		"51283": "no byte was sent: role and protocol are not to be seen; the outcome agrees",
		"51297": "the table counts any byte of the node as a session; the third message of 8 bytes was never answered, and 14.9 s do not decide it",
		"51299": "the client closed before the greeting of the node came",
		"51302": "the client closed before the greeting of the node came",
		"51305": "the table counts any byte of the node as a session; the third message was never answered",
		"51309": "the table counts any byte of the node as a session; the third message was never answered",
		"51313": "the table counts any byte of the node as a session; the third message was never answered",
		"51316": "the table counts any byte of the node as a session; the third message was never answered",
		"51318": "as 51316, and the capture ends 1.6 s later",
		"51319": "a SYN 10 ms before the end of the capture: rule 19",
	})
	total, yes := 0, 0
	for _, c := range list {
		if c.role != "SN" && c.role != "SN443" {
			continue
		}
		total++
		for i := range rows {
			if r := &rows[i]; r.Proto == dissect.ProtoTCP && r.Source.String() == c.src && r.Destination.String() == c.dst && r.Outcome == dissect.OutcomeAccepted {
				yes++
			}
		}
	}
	if total != 38 || yes != 1 {
		t.Errorf("%d of %d connections to supernodes accepted, want 1 of 38", yes, total)
	}
	connections, accepted, rungs := 0, 0, map[string]int{}
	probes := map[dissect.Outcome]int{}
	for i := range rows {
		r := &rows[i]
		switch {
		case r.Protocol == "skype" && r.Proto == dissect.ProtoUDP:
			probes[r.Outcome]++
		case r.Service == "skype/supernode":
			connections++
			rungs[r.Rung]++
			if r.Outcome == dissect.OutcomeAccepted {
				accepted++
			}
		}
	}
	// The 38th sent nothing and is not named.
	if connections != 37 || accepted != 1 || rungs["tcp"] != 19 || rungs["tcp-443"] != 18 {
		t.Errorf("%d connections to supernodes (%v), %d accepted", connections, rungs, accepted)
	}
	if probes[dissect.OutcomeAccepted]+probes[dissect.OutcomeRefused] != 0 || probes[dissect.OutcomeTimeout] < 140 {
		t.Errorf("outcomes of 154 unanswered probes: %v", probes)
	}
	t.Logf("UDP probes: %v", probes)
}

func TestSkype2006AgainstTruth(t *testing.T) {
	src, dir := real(t, "overlay/skype-2006-irc.cap")
	rows := analyse(t, src, All())
	list := truths(t, filepath.Join(dir, "skype-2006-irc.attempts.tsv"))
	against(t, rows, firstTime(t, "overlay/skype-2006-irc.cap"), list, map[string]string{
		"SKYPE-SN": "skype/supernode", "SKYPE-LOGIN": "skype/login", "SKYPE-HTTP": "skype/unknown", "SKYPE-12350": "skype/login",
	}, nil)
	probes := map[dissect.Outcome]int{}
	nodes := map[string]bool{}
	for i := range rows {
		if r := &rows[i]; r.Protocol == "skype" && r.Proto == dissect.ProtoUDP {
			probes[r.Outcome]++
			nodes[r.Destination.String()] = true
		}
		if r := &rows[i]; r.Op == "version check" && r.ClientVersion != "1.2.0.18" {
			t.Errorf("version %q", r.ClientVersion)
		}
	}
	t.Logf("UDP probes at %d nodes: %v", len(nodes), probes)
	// protocols.md A.9: the attempts up to the yes.
	first := firstTime(t, "overlay/skype-2006-irc.cap")
	ladder := map[string]int{}
	for i := range rows {
		if r := &rows[i]; r.Protocol == "skype" && r.Proto == dissect.ProtoUDP && r.Start-first < 72.3e9 {
			ladder[r.Outcome.String()+" "+r.Evidence.String()]++
		}
	}
	if got := fmt.Sprint(ladder); got != "map[accepted app:1 refused app:3 refused icmp:2 timeout silence:8]" {
		t.Errorf("the worked attach: %s", got)
	}
	if probes[dissect.OutcomeRefused] < 5 || probes[dissect.OutcomeAccepted] < 20 || probes[dissect.OutcomeTimeout] < 10 {
		t.Errorf("outcomes of the probes: %v", probes)
	}
}

func firstTime(t *testing.T, name string) int64 {
	src, _ := real(t, name)
	defer src.Close()
	b, err := src.Next()
	if err != nil {
		t.Fatal(err)
	}
	return b.Packets[0].Time
}

// rawPacket is an IPv4 packet of a client at 10.0.0.1, or to it.
func rawPacket(at int64, node bool, proto byte, own, port uint16, l4 []byte) capture.Packet {
	src, dst := []byte{10, 0, 0, 1}, []byte{10, 0, 0, 9}
	if node {
		src, dst, own, port = dst, src, port, own
	}
	binary.BigEndian.PutUint16(l4, own)
	binary.BigEndian.PutUint16(l4[2:], port)
	b := []byte{0x45, 0, 0, 0, byte(at >> 8), byte(at), 0, 0, 64, proto, 0, 0}
	b = append(append(append(b, src...), dst...), l4...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return capture.Packet{Time: at * 1e6, Data: b, OrigLen: len(b), Link: capture.LinkRaw, Frame: at + 1}
}

// TestSkypeLadder31 is rule 31: UDP is silent, host:port and 443 of the same node
// connect and stall, which is one intent. A yes over UDP attaches nobody yet: the
// connection after it is of the same intent, its failure no loss of a session, its
// success no try more (relation refresh, outside the ratios).
func TestSkypeLadder31(t *testing.T) {
	var packets []capture.Packet
	datagram := func(at int64, node bool, data string) {
		b := append(make([]byte, 8), data...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		packets = append(packets, rawPacket(at, node, dissect.ProtoUDP, 13021, 40008, b))
	}
	// A connection: who sends what, and when; the client ends it after 15 s.
	connection := func(from int64, own, port uint16, turns ...string) {
		seq := [2]uint32{1000, 2000}
		send := func(at int64, side int, flags byte, data string) {
			b := append(make([]byte, 20), data...)
			binary.BigEndian.PutUint32(b[4:], seq[side])
			binary.BigEndian.PutUint32(b[8:], seq[1-side])
			b[12], b[13] = 5<<4, flags
			seq[side] += uint32(len(data))
			if flags&(dissect.SYN|dissect.FIN) != 0 {
				seq[side]++
			}
			packets = append(packets, rawPacket(from+at, side == 1, dissect.ProtoTCP, own, port, b))
		}
		send(0, 0, dissect.SYN, "")
		send(1, 1, dissect.SYN|dissect.ACK, "")
		send(2, 0, dissect.ACK, "")
		for i, s := range turns {
			send(int64(10+10*i), i%2, dissect.ACK, s)
		}
		send(15000, 0, dissect.FIN|dissect.ACK, "")
	}
	starved := func(from int64) {
		connection(from, 51000, 40008, noise(50), noise(103), noise(8))
		connection(from+16000, 51001, 443, skypeHello+noise(16))
	}
	for _, c := range []struct {
		what  string
		after func()
		want  []string
	}{
		{"silent", func() { starved(5000) }, []string{"udp timeout first 1", "tcp stalled retry 2", "tcp-443 stalled failover 3"}},
		{"yes, then starved", func() { datagram(150, true, "\x7a\x50\x02"+noise(15)); starved(200) },
			[]string{"udp accepted first 1", "tcp stalled retry 2", "tcp-443 stalled failover 3"}},
		{"yes, and attached", func() {
			datagram(150, true, "\x7a\x50\x02"+noise(15))
			connection(200, 51000, 40008, noise(14), noise(73), noise(25), noise(587), noise(16))
		}, []string{"udp accepted first 1", "tcp accepted refresh 2"}},
	} {
		packets = packets[:0]
		datagram(1, false, unhex(skypeAsk))
		c.after()
		var got []string
		rows := analyse(t, capture.Memory(packets), All())
		for _, r := range rows {
			if r.Service != "skype/supernode" || r.IntentID != rows[0].IntentID {
				t.Errorf("%s: %s is of service %s, intent %x, want one intent %x", c.what, r.Rung, r.Service, r.IntentID, rows[0].IntentID)
			}
			got = append(got, fmt.Sprintf("%s %s %s %d", r.Rung, r.Outcome, r.Relation, r.Number))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
