package attempt

import "squall/dissect"

// orphan is a SYN-ACK whose SYN has not been seen (rule 14).
type orphan struct {
	key      flowKey
	time     int64
	seq, ack uint32
}

func (k *flowKey) slot() uint64 {
	h := dissect.FoldBytes(uint64(k.a.Port)<<16|uint64(k.b.Port), k.a.Addr[:])
	return dissect.FoldBytes(h, k.b.Addr[:]) % orphanSlots
}

func (e *Engine) tcpSegment(d *dissect.Datagram) dissect.Bucket {
	k := makeKey(d.Source(), d.Destination(), dissect.ProtoTCP, d)
	fi := e.lookup(&k)
	fromA := k.a == d.Source()
	if d.Flags&(dissect.SYN|dissect.ACK|dissect.RST) == dissect.SYN {
		return e.syn(fi, &k, d, fromA)
	}
	if fi == none {
		if d.Flags&(dissect.SYN|dissect.ACK|dissect.RST) == dissect.SYN|dissect.ACK {
			e.stats.Backscatter++
			e.orphans[k.slot()] = orphan{k, d.Time, d.Seq, d.Ack}
		} else {
			e.stats.MidStream++
			e.midStream(&k, d, fromA)
		}
		return dissect.BucketSession // rule 15
	}
	f := e.flows.at(fi)
	before := e.txns.at(f.head).state
	e.note(f, d, fromA)
	e.loss.measure(&f.heard, d, fromA)
	changed := e.segment(f, d, fromA)
	if d.PayloadLen > 0 && e.readable(f, d) {
		changed = e.tcpPayload(fi, d, fromA) || changed
	}
	if d.PayloadLen > 0 && d.Flags&(dissect.SYN|dissect.RST) == 0 {
		changed = e.nodeByte(f, d, fromA) || changed
	}
	if d.Flags&(dissect.FIN|dissect.RST) != 0 {
		changed = e.closing(fi, d, fromA) || changed
	}
	if changed {
		e.schedule(fi)
	}
	if before != stateDone || changed {
		return dissect.BucketAttempt
	}
	return dissect.BucketSession
}

// readable reports a segment of an answered connection. The exchange that opened
// it may have left by now; what followed it began connected.
func (e *Engine) readable(f *flow, d *dissect.Datagram) bool {
	if len(e.tcp.protocols) == 0 || d.Flags&dissect.RST != 0 {
		return false
	}
	t := e.base(f)
	return t.rec.Answer == dissect.AnswerSynAck || t.connected != 0
}

// base is the oldest exchange of a flow.
func (e *Engine) base(f *flow) *txn {
	t := e.txns.at(f.head)
	for t.next != none {
		t = e.txns.at(t.next)
	}
	return t
}

// syn opens an attempt or repeats its transmission.
func (e *Engine) syn(fi int32, k *flowKey, d *dissect.Datagram, fromA bool) dissect.Bucket {
	if fi != none {
		f := e.flows.at(fi)
		t := e.txns.at(f.head)
		if fromA == t.clientA && d.Seq == t.isn && f.txns == 1 {
			return e.synAgain(fi, d, fromA)
		}
		if fromA != t.clientA && t.state == stateOpen {
			e.note(f, d, fromA) // rule 13: both sides open; the first seen is the initiator
			t.proven = true     // each SYN-ACK acknowledges the other's SYN
			return dissect.BucketAttempt
		}
		// Ports reused: the new attempt ends what was there (rule 10).
		for ti := f.head; ti != none; ti = e.txns.at(ti).next {
			o := e.txns.at(ti)
			e.expire(f, o, d.Time)
			switch o.state {
			case stateOpen:
				e.decide(o, dissect.OutcomeTimeout, dissect.EvidenceSilence, d.Time)
				o.rec.GaveUp = d.Time
			case stateConn:
				o.rec.GaveUp = d.Time
				if o.rec.Flags&FlagOneSided != 0 {
					e.decide(o, dissect.OutcomeUnknown, dissect.EvidenceEdge, d.Time)
				} else {
					e.decide(o, dissect.OutcomeStalled, dissect.EvidenceSilence, d.Time)
				}
			}
		}
		e.release(fi, e.now)
	}
	fi = e.newFlow(k, d)
	ti := e.newTxn(fi, d, fromA, uint64(d.Seq))
	t := e.txns.at(ti)
	t.isn, t.synLen = d.Seq, uint32(max(d.PayloadLen, 0))
	if d.First {
		t.synLen = 1<<16 - 1 // the other fragments are not here
	}
	t.history(d, true)
	e.note(e.flows.at(fi), d, fromA)
	e.loss.measure(&e.flows.at(fi).heard, d, fromA)
	o := &e.orphans[k.slot()]
	if o.key == *k && o.ack == d.Seq+1 && d.Time >= o.time && d.Time-o.time <= reorderHold {
		t.peerISN = o.seq
		e.connect(t, d.Time)
		e.stats.Backscatter--
		*o = orphan{}
	}
	e.schedule(fi)
	return dissect.BucketAttempt
}

func (e *Engine) synAgain(fi int32, d *dissect.Datagram, fromA bool) dissect.Bucket {
	f := e.flows.at(fi)
	t := e.txns.at(f.head)
	e.note(f, d, fromA)
	t.rec.Transmissions++
	t.gap, t.lastSend = max(d.Time-t.lastSend, 0), d.Time
	t.deadline = d.Time + max(synWait, 2*t.gap)
	if t.state == stateDone && t.silent && t.rec.Answer == dissect.AnswerNone {
		t.state, t.silent = stateOpen, false // it goes on trying: it was not over
	}
	if t.state == stateDone {
		return dissect.BucketSession
	}
	e.schedule(fi)
	return dissect.BucketAttempt
}

func (e *Engine) connect(t *txn, at int64) {
	e.stats.Answers++
	t.rec.Answer, t.rec.AnsweredAt, t.connected = dissect.AnswerSynAck, at, at
	t.state = stateConn
}

// fits reports an acknowledgement of the SYN, with or without its data (rule 12).
func (t *txn) fits(ack uint32) bool { return ack-t.isn-1 <= t.synLen }

// segment is the handshake.
func (e *Engine) segment(f *flow, d *dissect.Datagram, fromA bool) (changed bool) {
	t := e.txns.at(f.head)
	client := fromA == t.clientA
	t.history(d, client)
	if !client && t.state != stateDone {
		t.rec.Flags &^= FlagOneSided
	}
	switch {
	case t.isn == 0 && t.rec.Txn != 0 || t.next != none:
		// A later request on the connection: the handshake is long over.
	case d.Flags&dissect.RST != 0:
		return e.earlyReset(f, t, d, client)
	case d.Flags&(dissect.SYN|dissect.ACK) == dissect.SYN|dissect.ACK:
		return !client && e.synAck(f, t, d)
	case t.state != stateOpen || d.Flags&dissect.ACK == 0:
	case client && d.Seq-t.isn-1 <= t.synLen:
		// Rule 16: only a SYN-ACK makes a client go on like this.
		e.connect(t, d.Time)
		t.rec.Flags |= FlagOneSided
		t.peerISN = d.Ack - 1
		t.proven, changed = true, true
	case !client && d.PayloadLen > 0 && d.Ack-t.isn-1 < 1<<16:
		e.connect(t, d.Time) // the capture lost the SYN-ACK
		changed = true
	}
	if client && t.state == stateConn && !t.proven && d.Flags&(dissect.SYN|dissect.ACK|dissect.RST) == dissect.ACK && d.Ack-t.peerISN-1 < 1<<16 {
		t.proven, changed = true, true
	}
	if client && t.rec.Flags&FlagOneSided != 0 && d.Flags&dissect.ACK != 0 && d.Ack-t.peerISN-3 < 1<<20 { // a FIN takes one
		t.rec.Flags |= FlagServed
	}
	if client && d.PayloadLen > 0 && t.state == stateConn && !t.clientData {
		t.clientData = true
		changed = true
	}
	return changed
}

// earlyReset is a RST before any answer.
func (e *Engine) earlyReset(f *flow, t *txn, d *dissect.Datagram, client bool) bool {
	if t.rec.Answer != dissect.AnswerNone {
		return false // closing looks at it
	}
	if !client && d.Flags&dissect.ACK != 0 && !t.fits(d.Ack) {
		e.stats.InvalidRST++
		return false
	}
	f.over = true
	if client {
		t.rec.Answer, t.rec.GaveUp = dissect.AnswerAbort, d.Time
		if t.state == stateOpen {
			e.decide(t, dissect.OutcomeTimeout, dissect.EvidenceRST, d.Time)
		}
		return true
	}
	e.stats.Answers++
	t.rec.Answer, t.rec.AnsweredAt = dissect.AnswerRST, d.Time
	if t.state == stateOpen {
		e.decide(t, dissect.OutcomeRefused, dissect.EvidenceRST, d.Time)
	} else {
		e.late(t)
	}
	return true
}

func (e *Engine) synAck(f *flow, t *txn, d *dissect.Datagram) (changed bool) {
	if !t.fits(d.Ack) {
		return false
	}
	switch {
	case t.rec.Answer == dissect.AnswerSynAck || t.connected != 0:
		if t.peerISN != 0 && d.Seq != t.peerISN {
			e.stats.ServerISN++
		}
		return false
	case t.silent || t.rec.Answer == dissect.AnswerAbort:
		// The client is gone; that the node is not is still worth knowing.
		e.stats.Answers++
		t.rec.Answer, t.rec.AnsweredAt, t.peerISN = dissect.AnswerSynAck, d.Time, d.Seq
		e.late(t)
		return false
	}
	// After an ICMP error or a RST too: the client did not give up for it. Such a
	// RST is another's, or the node began to listen before the SYN was repeated.
	refused := t.rec.Answer == dissect.AnswerRST
	t.peerISN = d.Seq
	t.rec.HandshakeRTT = max(d.Time-t.lastSend, 0)
	e.connect(t, d.Time)
	if refused { // which remains what the transport answered first
		t.rec.Answer, f.over = dissect.AnswerRST, false
		e.stats.Answers--
	}
	return true
}

// nodeByte accepts a connection of no known protocol at the node's first byte,
// and notes a byte to a client that had given up.
func (e *Engine) nodeByte(f *flow, d *dissect.Datagram, fromA bool) bool {
	t := e.txns.at(f.head)
	if fromA == t.clientA {
		return false
	}
	if t.state == stateConn && f.proto == unknown {
		t.rec.AnsweredAt = d.Time
		e.decide(t, dissect.OutcomeAccepted, dissect.EvidenceSynAck, d.Time)
		return true
	}
	if t.state == stateDone && t.rec.Outcome == dissect.OutcomeStalled && t.rec.Flags&FlagLate == 0 && d.Time-t.doneAt <= lateWithin {
		t.rec.AnsweredAt = d.Time
		e.late(t)
	}
	return false
}

// closing is FIN and RST of a connection, for all that happens on it.
func (e *Engine) closing(fi int32, d *dissect.Datagram, fromA bool) (changed bool) {
	f := e.flows.at(fi)
	reset := d.Flags&dissect.RST != 0
	ev := dissect.EvidenceFIN
	if reset {
		ev = dissect.EvidenceRST
	}
	for ti := f.head; ti != none; ti = e.txns.at(ti).next {
		t := e.txns.at(ti)
		client := fromA == t.clientA
		if t.state == stateOpen && f.txns == 1 && t.connected == 0 && t.rec.Op == 0 {
			continue // not connected: the handshake has judged it
		}
		if t.state != stateDone {
			changed = true
			switch {
			case client && t.rec.Flags&FlagOneSided != 0:
				e.decide(t, dissect.OutcomeUnknown, dissect.EvidenceEdge, d.Time)
			case client:
				t.rec.GaveUp = d.Time
				e.decide(t, dissect.OutcomeStalled, ev, d.Time)
			case d.Time-max(t.connected, t.rec.Start) <= dropWithin:
				e.decide(t, dissect.OutcomeDropped, ev, d.Time)
			default:
				e.decide(t, dissect.OutcomeStalled, ev, d.Time)
			}
		}
		if t.rec.Outcome == dissect.OutcomeAccepted && t.rec.SessionEnd == 0 {
			e.sessionOver(t, d.Time, dissect.SessionByNode)
			if client {
				t.rec.SessionEnded = dissect.SessionByClient
			} else if reset { // a FIN after a reply may be the protocol's habit
				e.dropped(t, ev, d.Time)
			}
		}
	}
	if e.txns.at(f.head).state == stateDone && !f.over {
		f.over = true
		changed = true
	}
	if f.over && reset {
		e.dropStream(f)
	}
	return changed
}

// history appends Zeek's letters, each once a direction.
func (t *txn) history(d *dissect.Datagram, client bool) {
	switch {
	case d.Flags&(dissect.SYN|dissect.ACK) == dissect.SYN|dissect.ACK:
		t.letter('h', 0, client)
	case d.Flags&dissect.SYN != 0:
		t.letter('s', 1, client)
	case d.Flags&dissect.ACK != 0 && d.PayloadLen == 0 && d.Flags&(dissect.FIN|dissect.RST) == 0:
		t.letter('a', 2, client)
	}
	if d.PayloadLen > 0 {
		t.letter('d', 3, client)
	}
	if d.Flags&dissect.FIN != 0 {
		t.letter('f', 4, client)
	}
	if d.Flags&dissect.RST != 0 {
		t.letter('r', 5, client)
	}
}

func (t *txn) letter(c byte, bit uint, client bool) {
	if client {
		bit += 8
		c -= 'a' - 'A'
	}
	if t.seen&(1<<bit) != 0 {
		return
	}
	t.seen |= 1 << bit
	if int(t.letters) < len(t.rec.History) {
		t.rec.History[t.letters] = c
		t.letters++
	}
}
