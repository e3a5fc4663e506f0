package attempt

import "squall/dissect"

// maxProbes is how many datagrams of a flow are shown to the protocols before
// it counts as unknown. Those under tinyDatagram are not counted: what keeps a
// binding of a NAT open says nothing of what else goes over it.
const (
	maxProbes    = 6
	tinyDatagram = 8
)

func (e *Engine) udpDatagram(d *dissect.Datagram) dissect.Bucket {
	if d.ToMany() || d.Src.Multicast() {
		return dissect.BucketOther // rule 25
	}
	k := makeKey(d.Source(), d.Destination(), dissect.ProtoUDP, d)
	fi := e.lookup(&k)
	fresh := fi == none
	if fresh {
		fi = e.newFlow(&k, d)
	}
	f := e.flows.at(fi)
	fromA := k.a == d.Source()
	if f.proto == unknown && len(e.udp.protocols) > 0 {
		e.askUDP(f, d)
	}
	var bucket dissect.Bucket
	if f.proto != unknown {
		bucket = e.udpMessage(fi, d, fromA)
	} else {
		bucket = e.udpUnknown(fi, d, fromA)
	}
	e.note(f, d, fromA)
	if fresh || bucket == dissect.BucketAttempt {
		e.schedule(fi)
	}
	return bucket
}

// askUDP shows a datagram of an unknown flow to the protocols: the first ones,
// and later each that begins as none before it, for a capture may begin in a
// session whose data hide its requests. Of such a one a protocol must be sure.
func (e *Engine) askUDP(f *flow, d *dissect.Datagram) {
	early := f.probes < maxProbes
	if len(d.Payload) >= tinyDatagram {
		kind := uint64(1) << (d.Payload[0] >> 2)
		if !early && f.shown&kind != 0 {
			return
		}
		f.shown |= kind
		if early {
			f.probes++
		}
	} else if !early {
		return
	}
	proto, sure := e.udp.probe(d)
	if proto == unknown || !early && !sure {
		return
	}
	f.proto = proto
	if f.head != none && e.txns.at(f.head).state != stateDone {
		e.txns.at(f.head).rec.Protocol = e.protos[proto]
	}
}

// udpUnknown is rule 23: one attempt for each 5-tuple, until it is quiet.
func (e *Engine) udpUnknown(fi int32, d *dissect.Datagram, fromA bool) dissect.Bucket {
	f := e.flows.at(fi)
	if f.head == none {
		e.newTxn(fi, d, fromA, 0)
		return dissect.BucketAttempt
	}
	t := e.txns.at(f.head)
	if t.rec.Answer != dissect.AnswerNone {
		return dissect.BucketSession
	}
	open := t.state != stateDone
	if fromA == t.clientA {
		t.rec.Transmissions++
	} else {
		e.stats.Answers++
		t.rec.Answer, t.rec.AnsweredAt = dissect.AnswerReply, d.Time
		if open {
			t.rec.HandshakeRTT = d.Time - t.rec.Start
			e.decide(t, dissect.OutcomeAccepted, dissect.EvidenceHandshake, d.Time)
		} else {
			e.late(t)
		}
	}
	if open {
		return dissect.BucketAttempt
	}
	return dissect.BucketSession
}

func (e *Engine) udpMessage(fi int32, d *dissect.Datagram, fromA bool) dissect.Bucket {
	f := e.flows.at(fi)
	mem := &f.mem
	mem.FromClient, mem.SegLen, mem.Established = fromA == f.openerA, d.PayloadLen, true
	if mem.Done {
		return dissect.BucketSession
	}
	m := &e.msg
	*m = dissect.Message{FromClient: mem.FromClient}
	if f.holds {
		m.Held = e.held[fi]
	}
	_, err := e.cfg.Protocols[f.proto].Dissect(d, mem, m)
	if f.holds || len(m.Held) > 0 {
		e.hold(fi, m.Held)
	}
	if err != nil {
		return dissect.BucketSession
	}
	return e.message(fi, d, fromA)
}

// heldRoom bounds the parts of messages of all flows, bytes.
const heldRoom = 16 << 20

// hold keeps a part of a message for the next datagram of a flow, if there is room.
func (e *Engine) hold(fi int32, part []byte) {
	f := e.flows.at(fi)
	e.heldBytes -= len(e.held[fi])
	if f.holds = len(part) > 0 && e.heldBytes+len(part) <= heldRoom; !f.holds {
		delete(e.held, fi)
		return
	}
	if e.held == nil {
		e.held = map[int32][]byte{}
	}
	e.heldBytes += len(part)
	e.held[fi] = part
}

// legWithin is how soon a client goes on after a challenge; RFC 3261, 8489 and
// BEP 15 have no timer that repeats anything sooner.
const legWithin = int64(5e8)

// legWait is how long a client may take to go on after a challenge: phones of
// real captures take 17 s. As long as a transaction of SIP lives, RFC 3261
// section 17.1.2.2.
const legWait = 32 * second

// find is the exchange that a message belongs to.
func (e *Engine) find(f *flow, m *dissect.Message) int32 {
	for ti := f.head; ti != none; ti = e.txns.at(ti).next {
		if t := e.txns.at(ti); t.rec.Txn == m.Txn {
			return ti
		}
	}
	if m.Chain != 0 {
		for ti := f.head; ti != none; ti = e.txns.at(ti).next {
			if e.txns.at(ti).chain == m.Chain {
				return ti
			}
		}
	}
	if m.Txn == 0 {
		return f.head
	}
	return none
}

// describe copies what a message says about client and node into its row.
func (e *Engine) describe(t *txn, m *dissect.Message) {
	r := &t.rec
	if m.Role != dissect.RoleUnknown && (r.Role == dissect.RoleUnknown || !m.ByPort) {
		r.Role, r.RoleSource = m.Role, dissect.RoleSourceContent
		if m.ByPort {
			r.RoleSource = dissect.RoleSourcePort
		}
	}
	if r.ClientKey == 0 && len(m.ClientID) > 0 {
		r.ClientKey, r.ClientName = dissect.Hash64(uint64(r.Protocol), m.ClientID), e.intern(who, printable(m.ClientID))
	}
	if m.FromClient && len(m.Version) > 0 {
		r.Version = e.intern(said, m.Version)
	}
	if m.FromClient && len(m.ServerName) > 0 {
		r.ServerName = e.intern(said, printable(m.ServerName))
	}
	if len(m.JA3) > 0 {
		r.JA3 = e.intern(said, m.JA3)
	}
	if m.Rung != "" {
		r.Rung = e.internString(m.Rung)
	}
	if m.RetryAfter > 0 {
		r.RetryAfter = m.RetryAfter
	}
}

// message applies e.msg, which d carried, to its exchange.
func (e *Engine) message(fi int32, d *dissect.Datagram, fromA bool) dissect.Bucket {
	f := e.flows.at(fi)
	m := &e.msg
	clientA := fromA == m.FromClient
	switch m.Kind {
	case dissect.KindData:
		return dissect.BucketSession
	case dissect.KindRequest, dissect.KindRefresh:
		return e.request(fi, d, clientA)
	case dissect.KindClose, dissect.KindLost:
		for ti := f.head; ti != none; ti = e.txns.at(ti).next {
			t := e.txns.at(ti)
			if m.Kind == dissect.KindLost && t.state != stateDone && t.rec.Flags&FlagRefresh != 0 {
				e.decide(t, dissect.OutcomeRefused, dissect.EvidenceApp, d.Time)
			}
			if t.rec.Outcome == dissect.OutcomeAccepted && t.rec.SessionEnd == 0 {
				e.sessionOver(t, d.Time, dissect.SessionByNode)
				if m.FromClient {
					t.rec.SessionEnded = dissect.SessionByClient
				}
				if m.Kind == dissect.KindLost {
					t.rec.SessionEnded = dissect.SessionLost
				} else if !m.FromClient {
					e.dropped(t, dissect.EvidenceApp, d.Time)
				}
			}
		}
		return dissect.BucketSession
	}
	ti := e.find(f, m)
	if ti == none {
		return dissect.BucketSession
	}
	t := e.txns.at(ti)
	e.describe(t, m)
	if m.Kind == dissect.KindProgress && m.FromClient { // its own word is no answer
		if t.state == stateDone {
			return dissect.BucketSession
		}
		return dissect.BucketAttempt
	}
	if t.rec.Answer == dissect.AnswerNone {
		t.rec.Answer = dissect.AnswerReply
		t.rec.HandshakeRTT = d.Time - t.lastSend
	}
	if t.state == stateDone && t.rec.Evidence == dissect.EvidenceICMP && t.lastSend > t.doneAt {
		t.state = stateOpen // the error was a soft one, the client went on
		t.rec.HandshakeRTT = d.Time - t.lastSend
	}
	if t.state == stateDone && m.Kind == dissect.KindRefuse && m.FromClient {
		e.renounced(t, d.Time)
		return dissect.BucketSession
	}
	if t.state == stateDone {
		if t.silent && t.rec.Flags&FlagLate == 0 && d.Time-t.doneAt <= lateWithin {
			t.rec.AnsweredAt = d.Time
			e.stats.Answers++
			e.late(t)
		}
		return dissect.BucketSession
	}
	t.rec.AnsweredAt = d.Time
	kind := m.Kind
	if kind == dissect.KindChallenge && m.Proven && t.vouched && t.rec.Txn == m.Txn {
		kind = dissect.KindRefuse
	}
	switch kind {
	case dissect.KindProgress, dissect.KindChallenge:
		t.deadline = d.Time + t.timeout
		if m.Kind == dissect.KindChallenge {
			t.asked, t.deadline = true, d.Time+max(t.timeout, legWait)
		}
		return dissect.BucketAttempt
	case dissect.KindAccept:
		t.rec.Lifetime = m.Lifetime
		e.decide(t, dissect.OutcomeAccepted, dissect.EvidenceApp, d.Time)
	case dissect.KindRefuse:
		e.decide(t, dissect.OutcomeRefused, dissect.EvidenceApp, d.Time)
	default:
		e.decide(t, dissect.OutcomeThrottled, dissect.EvidenceApp, d.Time)
	}
	e.stats.Answers++
	return dissect.BucketAttempt
}

// request opens an attempt, repeats a transmission or goes on with a leg.
func (e *Engine) request(fi int32, d *dissect.Datagram, clientA bool) dissect.Bucket {
	f := e.flows.at(fi)
	m := &e.msg
	ti := none
	for i := f.head; i != none; i = e.txns.at(i).next {
		t := e.txns.at(i)
		same := t.rec.Txn == m.Txn && (t.state != stateDone || m.Txn != 0 && d.Time-max(t.lastSend, t.doneAt) <= lateWithin)
		// Who asks anew though nobody asked for another leg tries again (rule 22),
		// unless it is so soon that the tap missed the challenge.
		leg := m.Chain != 0 && t.chain == m.Chain && t.state != stateDone && (t.asked || d.Time-t.lastSend < legWithin)
		if t.clientA == clientA && leg && !same && m.Begins {
			t.asked, leg = false, false // it has given that one up
		}
		if t.clientA == clientA && (same || leg) {
			ti = i
			break
		}
	}
	if ti == none && f.head != none {
		// The connection itself becomes the row of its first request (rule 28).
		t := e.txns.at(f.head)
		early := t.state == stateDone && t.rec.Outcome == dissect.OutcomeAccepted && f.key.proto == dissect.ProtoTCP && !f.over
		if t.rec.Op == 0 && t.clientA == clientA && (t.state != stateDone || early) {
			if early { // a greeting or a pause looked like the yes; it comes yet
				t.state, t.rec.Outcome, t.rec.Evidence = stateConn, dissect.OutcomeUnknown, dissect.EvidenceEdge
			}
			ti = f.head
			if f.key.proto == dissect.ProtoTCP {
				t.rec.Transmissions-- // counted again below
			}
		}
	}
	wait := m.Timeout
	if wait <= 0 {
		wait = answerWait
	}
	if ti == none {
		ti = e.newTxn(fi, d, clientA, m.Txn)
		if f.key.proto == dissect.ProtoTCP {
			t := e.txns.at(ti)
			t.state, t.connected = stateConn, d.Time
			t.rec.Flags |= e.sharedFlags(f, ti)
		}
	} else {
		t := e.txns.at(ti)
		if t.rec.Txn == m.Txn || t.rec.Op == 0 {
			t.rec.Transmissions++
		}
		if t.state == stateDone && t.rec.Answer != dissect.AnswerNone {
			if t.rec.Evidence == dissect.EvidenceICMP {
				t.lastSend = d.Time // a client that does not hear of errors
			}
			return dissect.BucketSession // a repeat that crossed its answer
		}
	}
	t := e.txns.at(ti)
	if f.key.proto == dissect.ProtoUDP && t.state == stateDone {
		t.state, t.silent = stateOpen, false // sent again: the client still waits
	}
	t.asked = t.asked && t.rec.Txn == m.Txn
	t.vouched = m.Proven
	t.rec.Txn, t.chain = m.Txn, m.Chain
	t.lastSend, t.timeout, t.deadline = d.Time, wait, d.Time+wait
	if t.rec.Op == 0 {
		t.rec.Op = e.internString(m.Op)
	}
	if m.Kind == dissect.KindRefresh {
		t.rec.Flags |= FlagRefresh
	}
	if m.Repeats {
		t.rec.Flags |= FlagRepeats
	}
	t.rec.Protocol = e.protos[f.proto]
	if m.Protocol != "" {
		t.rec.Protocol = e.internString(m.Protocol)
	}
	e.describe(t, m)
	return dissect.BucketAttempt
}

// dropped turns an acceptance into one that the node took back at once: within
// 5 s, and nothing was exchanged in between. A refresh that was answered was;
// what ended then is the session.
func (e *Engine) dropped(t *txn, ev dissect.Evidence, at int64) {
	if t.rec.Flags&FlagRefresh == 0 && t.rec.Outcome == dissect.OutcomeAccepted && t.rec.Evidence == dissect.EvidenceApp && !t.used && at-t.doneAt <= dropWithin {
		e.decide(t, dissect.OutcomeDropped, ev, at)
	}
}

// renounced turns an acceptance that the client itself would not have, at once, into
// an attempt that it gave up: it got nothing from it.
func (e *Engine) renounced(t *txn, at int64) {
	if t.rec.Outcome == dissect.OutcomeAccepted && t.rec.Evidence == dissect.EvidenceApp && at-t.doneAt <= dropWithin {
		e.decide(t, dissect.OutcomeStalled, dissect.EvidenceApp, at)
	}
}

// sharedFlags are the facts of a connection that its later rows inherit.
func (e *Engine) sharedFlags(f *flow, ti int32) RecordFlags {
	if older := e.txns.at(ti).next; older != none {
		return e.txns.at(older).rec.Flags & FlagOneSided
	}
	return 0
}

// printable gives identities that are text as they are, others in hex.
func printable(b []byte) []byte {
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			const digits = "0123456789abcdef"
			var out [2 * 64]byte
			n := min(len(b), 64)
			for i, c := range b[:n] {
				out[2*i], out[2*i+1] = digits[c>>4], digits[c&15]
			}
			return append([]byte(nil), out[:2*n]...)
		}
	}
	return b
}
