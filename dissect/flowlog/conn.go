package flowlog

import (
	"bytes"
	"strings"

	"squall/dissect"
	"squall/dissect/attempt"
)

// The waits of attempt-rules.md that a log's reader applies as the engine
// does, ns.
const (
	second      = int64(1e9)
	answerWait  = 10 * second // rules 1 and 30: silence after the last SYN or datagram
	quietAccept = 5 * second  // rule 8
	dropWithin  = 5 * second  // rule 6
	stallAfter  = 30 * second // rule 8b
	// flushDelay is how much later than its last packet a logger may write a
	// connection down: Suricata and Zeek look at their timers every few seconds.
	flushDelay = 60 * second
	// maxHeld bounds the connections that wait for what follows them.
	maxHeld = 1 << 18
)

// conn is a connection or flow as a log tells it.
type conn struct {
	start, last   int64 // first and last packet
	from, to      dissect.Endpoint
	proto         uint8
	vlan          uint16
	packets       [2]int64 // of the client, of the node
	bytes         [2]int64 // IP bytes
	payload       [2]int64 // -1 = the log does not say
	history       string   // Zeek's letters, or the few of them that flags give
	ordered       bool     // the letters stand in the order of the packets
	state         string   // Zeek's conn_state
	line          int64    // in the log, 1-based
	offset        int64
	file          uint32
	transmissions int32
	gap           int64 // between its last two SYNs
	waits         bool  // silence has yet to decide it
	rec           attempt.Record
	gone          bool // joined to the one before
}

// tuple tells the connections of a log apart.
type tuple struct {
	from, to dissect.Endpoint
	proto    uint8
}

// has reports a letter of the history.
func (c *conn) has(letter byte) bool { return strings.IndexByte(c.history, letter) >= 0 }

// first is the one of two letters that came first; 0 = neither, or unknown.
func (c *conn) first(a, b byte) byte {
	i, j := strings.IndexByte(c.history, a), strings.IndexByte(c.history, b)
	switch {
	case i >= 0 && j < 0:
		return a
	case j >= 0 && i < 0:
		return b
	case i < 0 || !c.ordered:
		return 0
	case i < j:
		return a
	}
	return b
}

// letters makes up for a history that was not logged: what the state implies
// (zeek: base/protocols/conn/main.zeek, determine_state).
func (c *conn) letters() {
	if c.history != "" || c.proto != dissect.ProtoTCP {
		return
	}
	h := map[string]string{"S0": "S", "REJ": "Sr", "RSTOS0": "SR", "SH": "SF", "S1": "ShA", "SF": "ShAFf", "S2": "ShAF", "S3": "ShAf",
		"RSTO": "ShAR", "RSTR": "ShAr"}[c.state]
	c.ordered = c.state != "SF"
	if h == "" {
		return
	}
	if c.payload[0] > 0 {
		h += "D"
	}
	if c.payload[1] > 0 {
		h += "d"
	}
	c.history = h
}

// nodeSpoke reports bytes of the node.
func (c *conn) nodeSpoke() bool { return c.has('d') || c.payload[1] > 0 }

// clientSpoke reports bytes of the client.
func (c *conn) clientSpoke() bool { return c.has('D') || c.payload[0] > 0 }

// bucket is where the record goes that the log holds; only BucketAttempt makes
// a row.
func (c *conn) bucket() dissect.Bucket {
	switch {
	case c.proto != dissect.ProtoTCP && c.proto != dissect.ProtoUDP:
		return dissect.BucketOther
	case c.to.Addr.Multicast() || c.from.Addr.Multicast():
		return dissect.BucketOther // rule 25
	case c.proto == dissect.ProtoUDP && c.packets[0] == 0:
		return dissect.BucketSession // only the node was heard
	case c.proto == dissect.ProtoTCP && !c.has('S'):
		return dissect.BucketSession // rule 15
	}
	return dissect.BucketAttempt
}

// judge decides what the log decides, and leaves to time what silence decides.
func (c *conn) judge() {
	r := &c.rec
	*r = attempt.Record{Start: c.start, End: c.last, LastSeen: c.last, HandshakeRTT: -1, Source: c.from, Destination: c.to, Proto: c.proto,
		SourcePackets: c.packets[0], DestinationPackets: c.packets[1], SourceBytes: c.bytes[0], DestinationBytes: c.bytes[1],
		VLAN: c.vlan, File: c.file, FirstFrame: c.line, LastFrame: c.line, FirstOffset: c.offset, Transmissions: 1}
	r.Digest = dissect.Hash64(uint64(c.proto), []byte(c.history+c.state))
	copy(r.History[:], bytes.TrimLeft([]byte(c.history), "^"))
	c.transmissions = 1
	if c.proto == dissect.ProtoUDP {
		c.udp()
	} else {
		c.tcp()
	}
}

func (c *conn) decide(o dissect.Outcome, e dissect.Evidence, at int64) {
	r := &c.rec
	r.Outcome, r.Evidence, r.End = o, e, max(at, r.Start)
}

// udp is rule 23: a flow is one attempt, and any datagram back accepts it.
func (c *conn) udp() {
	r := &c.rec
	if c.packets[1] > 0 {
		// When the answer came is not logged; it came after the request.
		r.Answer, r.AnsweredAt = dissect.AnswerReply, c.start
		c.decide(dissect.OutcomeAccepted, dissect.EvidenceHandshake, c.start)
		return
	}
	r.Transmissions = int32(min(max(c.packets[0], 1), 1<<20))
	c.waits = true
}

// went: the client went on after its SYN.
func (c *conn) went() bool { return c.has('A') || c.has('D') || c.has('F') }

func (c *conn) tcp() {
	r := &c.rec
	went := c.went()
	shook := c.has('h') || c.has('d') || c.has('a') && went
	switch {
	case shook:
	case c.has('r'):
		r.Answer, r.AnsweredAt = dissect.AnswerRST, c.last
		c.repeats()
		c.decide(dissect.OutcomeRefused, dissect.EvidenceRST, c.last)
		return
	case went:
		// Rule 16: only a SYN-ACK makes a client go on like this.
		r.Answer, r.AnsweredAt = dissect.AnswerSynAck, c.start
		r.Flags |= attempt.FlagOneSided
		c.decide(dissect.OutcomeUnknown, dissect.EvidenceEdge, c.last)
		return
	case c.has('R'):
		r.Answer, r.GaveUp = dissect.AnswerAbort, c.last
		c.repeats()
		c.decide(dissect.OutcomeTimeout, dissect.EvidenceRST, c.last)
		return
	default:
		c.repeats()
		c.waits = true
		return
	}
	// When the answer came is not logged; it came after the SYN.
	r.Answer, r.AnsweredAt = dissect.AnswerSynAck, c.start
	if i := strings.IndexByte(c.history, 'h'); i > 0 && c.ordered && c.first('r', 'h') == 'r' {
		c.history = strings.Replace(c.history, "r", "", 1) // rule 4: its number did not fit
	}
	node, client := c.first('f', 'r'), c.first('F', 'R')
	closer := c.closer(node, client)
	if c.nodeSpoke() && (closer == 0 || c.first(closer, 'd') != closer) {
		c.decide(dissect.OutcomeAccepted, dissect.EvidenceSynAck, c.start)
		c.sessionEnd(closer)
		return
	}
	age := c.last - c.start
	reset := closer == 'R' || closer == 'r'
	ev := dissect.EvidenceFIN
	if reset {
		ev = dissect.EvidenceRST
	}
	quiet := went && !c.clientSpoke()
	switch {
	case quiet && age >= quietAccept:
		c.decide(dissect.OutcomeAccepted, dissect.EvidenceHandshake, c.start+quietAccept)
		c.sessionEnd(closer)
	case closer == 0 && (node != 0 || client != 0):
		// Both ended it and the log does not say who did so first.
		c.decide(dissect.OutcomeUnknown, dissect.EvidenceEdge, c.last)
	case closer == 0:
		c.waits = true
	case closer == 'F' || closer == 'R':
		r.GaveUp = c.last
		c.decide(dissect.OutcomeStalled, ev, c.last)
	case age <= dropWithin:
		c.decide(dissect.OutcomeDropped, ev, c.last)
	default:
		c.decide(dissect.OutcomeStalled, ev, c.last)
	}
}

// closer is who ended the connection first: 'F' or 'R' the client, 'f' or 'r'
// the node, 0 nobody, or nobody can tell.
func (c *conn) closer(node, client byte) byte {
	switch {
	case node == 0:
		return client
	case client == 0:
		return node
	case !c.ordered:
		return 0
	}
	return c.first(node, client)
}

// repeats: where nothing but SYNs was sent, the packets are the transmissions.
func (c *conn) repeats() {
	n := c.packets[0]
	if c.has('R') {
		n--
	}
	c.transmissions = int32(min(max(n, 1), 64))
	c.rec.Transmissions = c.transmissions
	// SYN timers double: of n gaps the last is the sum by 2 - 2^(1-n).
	if g := c.transmissions - 1; g > 0 {
		c.gap = (c.last - c.start) * (1 << (g - 1)) / (1<<g - 1)
	}
}

func (c *conn) sessionEnd(closer byte) {
	r := &c.rec
	switch closer {
	case 'F', 'R':
		r.SessionEnd, r.SessionEnded = max(c.last, r.End), dissect.SessionByClient
	case 'f', 'r':
		r.SessionEnd, r.SessionEnded = max(c.last, r.End), dissect.SessionByNode
	case 0:
		if c.has('F') || c.has('R') || c.has('f') || c.has('r') {
			r.SessionEnd, r.SessionEnded = max(c.last, r.End), dissect.SessionByClient
		}
	}
}

// deadline is until when silence must last to decide what waits.
func (c *conn) deadline() int64 {
	if c.rec.Answer == dissect.AnswerSynAck {
		if c.clientSpoke() || !c.went() {
			return c.start + stallAfter
		}
		return c.start + quietAccept
	}
	if c.proto == dissect.ProtoUDP {
		return c.start + answerWait
	}
	return c.last + max(answerWait, 2*c.gap)
}

// settle decides what silence decides; end is how far the log reaches.
func (c *conn) settle(end int64) {
	r := &c.rec
	switch at := c.deadline(); {
	case at > end:
		r.Flags |= attempt.FlagEdge
		c.decide(dissect.OutcomeUnknown, dissect.EvidenceEdge, max(end, c.last))
	case r.Answer != dissect.AnswerSynAck:
		c.decide(dissect.OutcomeTimeout, dissect.EvidenceSilence, at)
	case c.clientSpoke():
		c.decide(dissect.OutcomeStalled, dissect.EvidenceSilence, at)
	case !c.went(): // a SYN-ACK that the client did not take up
		c.decide(dissect.OutcomeStalled, dissect.EvidenceSilence, at)
	default:
		c.decide(dissect.OutcomeAccepted, dissect.EvidenceHandshake, at)
	}
}
