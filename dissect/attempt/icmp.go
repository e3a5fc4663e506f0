package attempt

import "squall/dissect"

// icmpOutcome is what an ICMP error says about the attempt that it quotes
// (RFC 792, RFC 1122 section 4.2.3.9, RFC 4443 section 3).
func icmpOutcome(d *dissect.Datagram) (dissect.Outcome, bool) {
	if d.Proto == dissect.ProtoICMPv6 {
		switch d.ICMPType {
		case 1:
			if d.ICMPCode == 4 {
				return dissect.OutcomeRefused, true
			}
			return dissect.OutcomeUnreachable, true
		case 3:
			return dissect.OutcomeUnreachable, true
		}
		return 0, false
	}
	switch d.ICMPType {
	case 3:
		switch d.ICMPCode {
		case 2, 3:
			return dissect.OutcomeRefused, true
		case 4: // fragmentation needed: the sender will try smaller
			return 0, false
		}
		return dissect.OutcomeUnreachable, true
	case 11:
		return dissect.OutcomeUnreachable, true
	}
	return 0, false
}

func (e *Engine) icmp(d *dissect.Datagram) dissect.Bucket {
	q := &d.Quoted
	outcome, hard := icmpOutcome(d)
	if !hard || q.Proto != dissect.ProtoTCP && q.Proto != dissect.ProtoUDP {
		return dissect.BucketOther
	}
	src := dissect.Endpoint{Addr: q.Src, Port: q.SrcPort}
	dst := dissect.Endpoint{Addr: q.Dst, Port: q.DstPort}
	k := makeKey(src, dst, q.Proto, d)
	fi := e.lookup(&k)
	if fi != none {
		f := e.flows.at(fi)
		for ti := f.head; ti != none; ti = e.txns.at(ti).next {
			t := e.txns.at(ti)
			if t.rec.Source != src || t.rec.Answer != dissect.AnswerNone || t.state == stateDone && t.rec.Outcome != dissect.OutcomeTimeout {
				continue
			}
			if q.Proto == dissect.ProtoTCP && q.HasSeq && q.Seq != t.isn {
				continue
			}
			e.stats.Answers++
			t.rec.Answer, t.rec.AnsweredAt = dissect.AnswerICMP, d.Time
			t.rec.LastFrame, t.rec.LastSeen = d.Frame, d.Time
			t.unheard = q.Proto == dissect.ProtoUDP
			if t.state == stateDone {
				e.late(t)
				return dissect.BucketSession
			}
			e.decide(t, outcome, dissect.EvidenceICMP, d.Time)
			e.schedule(fi)
			return dissect.BucketAttempt
		}
		if q.Proto == dissect.ProtoUDP && e.sessionGone(f, src, d.Time) {
			return dissect.BucketSession
		}
	}
	e.stats.StrayICMP++
	return dissect.BucketOther
}

// sessionGone ends the session of a flow whose traffic met an error: the first
// packet to a dead node is seldom an attempt. If it was one, that failed by now
// and says so.
func (e *Engine) sessionGone(f *flow, client dissect.Endpoint, at int64) bool {
	for ti := f.head; ti != none; ti = e.txns.at(ti).next {
		t := e.txns.at(ti)
		if t.rec.Source != client {
			continue
		}
		t.unheard = true
		if t.rec.Outcome != dissect.OutcomeAccepted {
			return false
		}
		if t.rec.SessionEnd == 0 {
			e.sessionOver(t, at, dissect.SessionUnreachable)
		}
		return true
	}
	return false
}
