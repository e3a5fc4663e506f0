package samples

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"squall/capture"
)

// Row is an attempt as the rules demand it.
type Row struct {
	Source, Target netip.AddrPort
	Start          int64 // ns
	Outcome        string
	Evidence       string
	Answer         string
	Transmissions  int
	Late           bool
	Relation       string
	Number         int
	Intent         int // equal numbers, equal intents; 0 = none
	Client         string
	service        string
	end, answered  int64 // when the outcome was known; when the node's answer came
	sessionEnd     int64 // 0 = lives on
	clientEnded    bool
	last           int64 // a connection's last packet; 0 = no connection
}

// The waits of the rules, in nanoseconds.
const (
	idleUDP     = 60e9
	n2nAgain    = 4e9  // an edge asks again, measured
	n2nForgets  = 90e9 // a supernode purges an edge after 60 s, looking every 30 s
	answerUDP   = 10e9
	synWait     = 10e9
	dropWithin  = 5e9
	quietAccept = 5e9
	stallAfter  = 30e9
	lateWithin  = 60e9
	tapTwin     = 5e6
	parallel    = 300e6
)

type seg struct {
	t          int64
	src, dst   netip.AddrPort
	proto      byte
	flags      byte
	seq, ack   uint32
	n          int // payload bytes on the wire
	payload    []byte
	icmp       byte // code of an unreachable
	quotedSeq  uint32
	quotedPeer netip.AddrPort // source of the quoted packet
}

// Oracle applies the attempt rules to the packets of a simulation, all of
// them at once and naively: it groups the packets of each flow in a list and
// reads the list from every angle. It knows Ethernet, IPv4, TCP, UDP, ICMP
// unreachable and the protocols that the simulator speaks, as far as it speaks
// them, and nothing else.
func Oracle(packets []capture.Packet) []Row {
	segs := make([]seg, 0, len(packets))
	seen := map[string]int64{}
	end := int64(0)
	for i := range packets {
		p := &packets[i]
		if t, twice := seen[string(p.Data)]; twice && p.Time-t <= tapTwin {
			continue
		}
		seen[string(p.Data)] = p.Time
		if s, ok := readSeg(p); ok {
			segs = append(segs, s)
		}
		end = max(end, p.Time)
	}
	flows := map[[2]netip.AddrPort][]seg{}
	var order [][2]netip.AddrPort
	for _, s := range segs {
		k := [2]netip.AddrPort{s.src, s.dst}
		if k[1].Compare(k[0]) < 0 {
			k[0], k[1] = k[1], k[0]
		}
		if flows[k] == nil {
			order = append(order, k)
		}
		flows[k] = append(flows[k], s)
	}
	var rows []Row
	var protos []byte
	services := map[nodeEnd]string{}
	for _, k := range order {
		list := flows[k]
		if s := &list[0]; s.dst.Addr().IsMulticast() {
			continue
		}
		speaks := language(list)
		var found []Row
		switch {
		case list[0].proto == 6:
			found = tcpRows(list, end, speaks)
		case speaks == "sip":
			found = exchangeRows(list, end, sipSaid)
		case speaks == "n2n":
			found = exchangeRows(list, end, n2nSaid)
		case speaks == "skype":
			found = skypeRows(list, end)
		default:
			found = udpRows(list, end)
		}
		for i := range found {
			if speaks != "" {
				services[nodeEnd{found[i].Target, list[0].proto}] = speaks
			}
			protos = append(protos, list[0].proto)
		}
		rows = append(rows, found...)
	}
	// What one client said at a node tells of all that were there.
	for i := range rows {
		r := &rows[i]
		if s := services[nodeEnd{r.Target, protos[i]}]; s != "" {
			r.service = s
		}
	}
	relate(rows, segs[0].t, end)
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), a.Source.Compare(b.Source), a.Target.Compare(b.Target))
	})
	return rows
}

func readSeg(p *capture.Packet) (s seg, ok bool) {
	if len(p.Data) < 34 || binary.BigEndian.Uint16(p.Data[12:]) != 0x800 {
		return s, false
	}
	ip := p.Data[14:]
	total := int(binary.BigEndian.Uint16(ip[2:]))
	l4 := ip[20:]
	src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	s.t, s.proto = p.Time, ip[9]
	switch ip[9] {
	case 6:
		head := int(l4[12]>>4) * 4
		s.src, s.dst = netip.AddrPortFrom(src, binary.BigEndian.Uint16(l4)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(l4[2:]))
		s.seq, s.ack, s.flags = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]), l4[13]
		s.n = total - 20 - head
		s.payload = l4[min(head, len(l4)):min(head+s.n, len(l4))]
	case 17:
		s.src, s.dst = netip.AddrPortFrom(src, binary.BigEndian.Uint16(l4)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(l4[2:]))
		s.n = total - 28
		s.payload = l4[8:]
	case 1:
		if l4[0] != 3 {
			return s, false
		}
		q := l4[8:]
		s.icmp, s.proto = l4[1]+100, q[9]
		s.quotedPeer = netip.AddrPortFrom(netip.AddrFrom4([4]byte(q[12:16])), binary.BigEndian.Uint16(q[20:]))
		s.dst = s.quotedPeer
		s.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(q[16:20])), binary.BigEndian.Uint16(q[22:]))
		s.quotedSeq = binary.BigEndian.Uint32(q[24:])
	}
	return s, true
}

// nodeEnd is an end of a node.
type nodeEnd struct {
	at    netip.AddrPort
	proto byte
}

// language tells what is spoken on a flow by its client's first words; empty
// for nothing that is known.
func language(list []seg) string {
	for i := range list {
		s := &list[i]
		if s.n == 0 || s.icmp != 0 || s.src != list[0].src {
			continue
		}
		b := s.payload
		switch {
		case s.proto == 17 && bytes.Contains(b, []byte("SIP/2.0")):
			return "sip"
		case s.proto == 17 && s.dst.Port() == 7654 && len(b) > 24 && b[0] == 3:
			return "n2n"
		case bytes.HasPrefix(b, []byte("GNUTELLA CONNECT/")):
			return "gnutella"
		case s.dst.Port() > 40000 && s.dst.Port() <= 40050, bytes.HasPrefix(b, []byte(skypeAsks443)), s.dst.Port() == 80 && len(b) == 40:
			return "skype"
		}
		return ""
	}
	return ""
}

// tcpRows reads one 4-tuple.
func tcpRows(list []seg, end int64, speaks string) (rows []Row) {
	var starts []int
	for i, s := range list {
		if s.icmp == 0 && s.flags&(syn|ack|rst) == syn {
			known := false
			for _, j := range starts {
				known = known || list[j].seq == s.seq && list[j].src == s.src
			}
			if !known {
				starts = append(starts, i)
			}
		}
	}
	for k, i := range starts {
		stop := len(list)
		if k+1 < len(starts) {
			stop = starts[k+1]
		}
		rows = append(rows, tcpRow(list[i:stop], end, k+1 < len(starts), speaks))
	}
	return rows
}

func tcpRow(list []seg, end int64, reused bool, speaks string) Row {
	first := list[0]
	r := Row{Source: first.src, Target: first.dst, Start: first.t, Answer: "none", service: "tcp/" + strconv.Itoa(int(first.dst.Port()))}
	r.last = list[len(list)-1].t
	isn := first.seq
	// Every angle that the rules look from.
	var lastSyn, gap int64
	var synack, synackAck *seg // the answer; the client's proof that it came
	var nodeByte, nodeRST, nodeFIN, cliFIN, cliRST, refusal, icmp *seg
	var cliData *seg
	quiet := int64(0) // last packet after the handshake
	for i := range list {
		s := &list[i]
		own := s.icmp == 0 && s.src == first.src
		switch {
		case s.icmp != 0:
			if s.quotedSeq == isn && icmp == nil {
				icmp = s
			}
		case own && s.flags&syn != 0:
			r.Transmissions++
			if lastSyn != 0 {
				gap = s.t - lastSyn
			}
			lastSyn = s.t
		case !own && s.flags&(syn|ack) == syn|ack:
			if s.ack == isn+1 && synack == nil {
				synack = s
			}
		case !own && s.flags&rst != 0 && synack == nil:
			if s.ack == isn+1 && refusal == nil {
				refusal = s
			}
		case !own && s.flags&rst != 0:
			if nodeRST == nil {
				nodeRST = s
			}
		case !own:
			if s.n > 0 && nodeByte == nil {
				nodeByte = s
			}
			if s.flags&fin != 0 && nodeFIN == nil {
				nodeFIN = s
			}
		case s.flags&rst != 0:
			if cliRST == nil {
				cliRST = s
			}
		default:
			if synack != nil && s.flags&ack != 0 && s.ack == synack.seq+1 && synackAck == nil {
				synackAck = s
			}
			if s.n > 0 && cliData == nil {
				cliData = s
			}
			if s.flags&fin != 0 && cliFIN == nil {
				cliFIN = s
			}
		}
		if synackAck != nil && nodeByte == nil && s.icmp == 0 {
			quiet = s.t
		}
	}
	set := func(outcome, evidence string, at int64) Row {
		r.Outcome, r.Evidence, r.end = outcome, evidence, at
		return r
	}
	before := func(a, b *seg) bool { return a != nil && (b == nil || a.t < b.t) }
	switch {
	case synack != nil:
		r.Answer = "synack"
	case refusal != nil:
		r.Answer = "rst"
		return set("refused", "rst", refusal.t)
	case icmp != nil:
		r.Answer = "icmp"
		if c := icmp.icmp - 100; c == 2 || c == 3 {
			return set("refused", "icmp", icmp.t)
		}
		return set("unreachable", "icmp", icmp.t)
	case cliRST != nil:
		r.Answer = "abort"
		return set("timeout", "rst", cliRST.t)
	default:
		wait := lastSyn + max(int64(synWait), 2*gap)
		if wait > end && !reused {
			return set("unknown", "edge", end)
		}
		return set("timeout", "silence", min(wait, end))
	}
	// Connected. The client's going is its FIN or RST, the node's likewise.
	leave, close := cliFIN, nodeRST
	if before(cliRST, leave) {
		leave = cliRST
	}
	if before(nodeFIN, close) {
		close = nodeFIN
	}
	if close != nil {
		r.sessionEnd = close.t
	}
	if before(leave, close) {
		r.sessionEnd, r.clientEnded = leave.t, true
	}
	why := func(s *seg) string {
		if s.flags&rst != 0 {
			return "rst"
		}
		return "fin"
	}
	if speaks != "" {
		answer, outcome := appAnswer(list, speaks)
		if outcome != "" && before(answer, leave) && (close == nil || answer.t <= close.t) {
			r.answered = answer.t
			if outcome == "accepted" && before(nodeRST, leave) && nodeRST == close && close.t-answer.t <= dropWithin && !between(list, answer.t, close.t) {
				return set("dropped", "rst", close.t)
			}
			return set(outcome, "app", answer.t)
		}
		cliData = &first // a known protocol waits for its yes
	}
	if speaks == "" && before(nodeByte, leave) && before(nodeByte, close) {
		r.answered = nodeByte.t
		return set("accepted", "synack", nodeByte.t)
	}
	// No byte came in time.
	for i := range list {
		if s := &list[i]; leave != nil && s.src != first.src && s.icmp == 0 && s.n > 0 && s.t > leave.t {
			if s.t-leave.t <= lateWithin {
				r.Late, r.answered = true, s.t
			}
			break
		}
	}
	switch {
	case close != nil && !before(leave, close) && close.t-synack.t <= dropWithin:
		return set("dropped", why(close), close.t)
	case leave != nil:
		return set("stalled", why(leave), leave.t)
	case cliData == nil && synackAck != nil && end-quiet >= quietAccept:
		return set("accepted", "handshake", quiet+quietAccept)
	case (cliData != nil || synackAck == nil) && end-synack.t >= stallAfter:
		return set("stalled", "silence", synack.t+stallAfter)
	case close != nil:
		return set("stalled", why(close), close.t)
	}
	return set("unknown", "edge", end)
}

// appAnswer finds the node's yes or no on a connection.
func appAnswer(list []seg, speaks string) (at *seg, outcome string) {
	turns, nodes := 0, false // how often the node had the word; whether it has
	for i := range list {
		s := &list[i]
		if s.n == 0 || s.icmp != 0 || s.flags&(syn|rst) != 0 {
			continue
		}
		if s.src == list[0].src {
			nodes = false
			continue
		}
		fresh := !nodes
		if nodes = true; fresh {
			turns++
		}
		switch {
		case speaks == "gnutella" && bytes.HasPrefix(s.payload, []byte("GNUTELLA/0.6 200")):
			return s, "accepted"
		case speaks == "gnutella" && bytes.HasPrefix(s.payload, []byte("GNUTELLA/0.6 503")):
			return s, "throttled"
		case speaks == "skype" && fresh && turns == 2 && s.n == skypeNo:
			return s, "refused"
		case speaks == "skype" && fresh && turns >= 2 && s.n > 57:
			return s, "accepted"
		}
	}
	return nil, ""
}

// between reports payload after one time and before another.
func between(list []seg, from, to int64) bool {
	for i := range list {
		if s := &list[i]; s.n > 0 && s.t > from && s.t < to {
			return true
		}
	}
	return false
}

// udpRows reads a 5-tuple of no known protocol.
func udpRows(list []seg, end int64) (rows []Row) {
	var last int64
	for i, s := range list {
		if s.icmp == 0 && (i == 0 || s.t-last > idleUDP) {
			rows = append(rows, Row{Source: s.src, Target: s.dst, Start: s.t, Answer: "none", Outcome: "unknown", Evidence: "edge", end: end,
				service: "udp/" + strconv.Itoa(int(s.dst.Port()))})
			if end-s.t >= answerUDP {
				rows[len(rows)-1].Outcome, rows[len(rows)-1].Evidence = "timeout", "silence"
			}
		}
		last = s.t
		if len(rows) == 0 {
			continue
		}
		r := &rows[len(rows)-1]
		open := r.Answer == "none"
		switch {
		case s.icmp != 0 && open:
			r.Answer, r.Outcome, r.Evidence, r.end = "icmp", "unreachable", "icmp", s.t
			if s.icmp == 103 {
				r.Outcome = "refused"
			}
		case s.src == r.Source && open:
			r.Transmissions++
		case s.src == r.Target && open:
			r.Answer, r.answered = "reply", s.t
			if s.t-r.Start <= answerUDP {
				r.Outcome, r.Evidence, r.end = "accepted", "handshake", s.t
			} else {
				r.Late = true
			}
		}
	}
	return rows
}

func field(msg []byte, name string) string {
	for line := range strings.SplitSeq(string(msg), "\r\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(k), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// said is what a datagram means to an exchange.
type said struct {
	asks, leaves bool
	patience     int64  // how long an answer is waited for, ns
	id           string // of the exchange
	leg          int    // of a request, from 1
	client       string
	outcome      string // of an answer; empty = go on
	lifetime     int64  // ns, 0 = without end
}

func sipSaid(s *seg) (m said) {
	m.id, m.patience = field(s.payload, "Call-ID"), answerUDP
	if strings.HasPrefix(field(s.payload, "CSeq"), "1 ") {
		m.leg = 1
	} else {
		m.leg = 2
	}
	if bytes.HasPrefix(s.payload, []byte("REGISTER ")) {
		m.asks, m.client = true, field(s.payload, "To")
		return m
	}
	if len(s.payload) < 11 {
		return said{}
	}
	switch code, _ := strconv.Atoi(string(s.payload[8:11])); {
	case code == 401 && m.leg == 1:
	case code < 300:
		m.outcome = "accepted"
		_, after, _ := strings.Cut(field(s.payload, "Contact"), ";expires=")
		if n, err := strconv.ParseInt(after, 10, 64); err == nil {
			m.lifetime = n * 1e9
		}
	case code == 503:
		m.outcome = "throttled"
	default:
		m.outcome = "refused"
	}
	return m
}

func n2nSaid(s *seg) (m said) {
	b := s.payload
	if len(b) < 34 {
		return said{}
	}
	m.id, m.leg, m.patience = string(b[24:28]), 1, n2nAgain
	switch b[3] & 0x1f {
	case n2nRegister:
		m.asks, m.client = true, string(b[28:34])
	case n2nAck:
		m.outcome, m.lifetime = "accepted", n2nForgets
	case n2nNak:
		m.outcome = "refused"
	case n2nUnregister:
		m.leaves = true
	}
	return m
}

// exchangeRows reads the exchanges of a 5-tuple.
func exchangeRows(list []seg, end int64, read func(*seg) said) (rows []Row) {
	index := map[string]int{}
	var leg []int        // the latest of each row
	var lastSent []int64 // and when
	var patience int64
	for i := range list {
		s := &list[i]
		if s.icmp != 0 {
			for i := len(rows) - 1; i >= 0; i-- {
				if rows[i].Answer == "none" {
					rows[i].Answer, rows[i].Outcome, rows[i].Evidence, rows[i].end = "icmp", "refused", "icmp", s.t
					break
				}
			}
			continue
		}
		m := read(s)
		at, ok := index[m.id]
		switch {
		case m.leaves:
			for i := range rows {
				if r := &rows[i]; r.Outcome == "accepted" && r.sessionEnd == 0 {
					r.sessionEnd, r.clientEnded = s.t, true
				}
			}
			continue
		case m.asks:
			if !ok {
				at = len(rows)
				index[m.id] = at
				rows = append(rows, Row{Source: s.src, Target: s.dst, Start: s.t, Answer: "none", Outcome: "timeout", Evidence: "silence", Client: m.client})
				leg, lastSent = append(leg, 0), append(lastSent, 0)
			}
			if m.leg == 1 && leg[at] <= 1 {
				rows[at].Transmissions++
			}
			leg[at], lastSent[at], patience = m.leg, s.t, m.patience
			continue
		case !ok:
			continue
		}
		r := &rows[at]
		if r.Answer == "none" {
			r.Answer = "reply"
		}
		if m.outcome == "" {
			continue
		}
		r.answered = s.t
		if s.t-lastSent[at] > m.patience {
			r.Late = true
			continue
		}
		r.end, r.Evidence, r.Outcome = s.t, "app", m.outcome
		if m.outcome == "accepted" && m.lifetime > 0 && s.t+m.lifetime < end {
			r.sessionEnd, r.clientEnded = s.t+m.lifetime, true
		}
	}
	for i := range rows {
		if r := &rows[i]; r.Outcome == "timeout" {
			r.end = lastSent[i] + patience
			if r.end > end {
				r.Outcome, r.Evidence, r.end = "unknown", "edge", end
			}
		}
	}
	return rows
}

// skypeRows reads the probes of a 5-tuple. Answers carry ids of their own: they
// belong to the latest question. Questions within a minute of a yes are use
// made of the node.
func skypeRows(list []seg, end int64) (rows []Row) {
	yes := int64(0) // when it was said, 0 = not lately
	for _, s := range list {
		var r *Row
		if len(rows) > 0 {
			r = &rows[len(rows)-1]
		}
		switch {
		case s.icmp != 0:
			if r != nil && r.Answer == "none" {
				r.Answer, r.Outcome, r.Evidence, r.end = "icmp", "refused", "icmp", s.t
			}
		case s.src == list[0].src:
			if yes != 0 && s.t-yes <= idleUDP {
				continue
			}
			yes = 0
			rows = append(rows, Row{Source: s.src, Target: s.dst, Start: s.t, Answer: "none", Outcome: "timeout", Evidence: "silence", Transmissions: 1})
		case r != nil && r.Answer == "none":
			r.Answer, r.answered = "reply", s.t
			if s.t-r.Start > answerUDP {
				r.Late = true
				continue
			}
			r.end, r.Evidence, r.Outcome = s.t, "app", "refused"
			if s.n != 51 && s.n != 53 {
				r.Outcome, yes = "accepted", s.t
			}
		}
	}
	for i := range rows {
		if r := &rows[i]; r.Outcome == "timeout" {
			if r.end = r.Start + answerUDP; r.end > end {
				r.Outcome, r.Evidence, r.end = "unknown", "edge", end
			}
		}
	}
	return rows
}
