package attempt

import "squall/dissect"

// A session that is older than the capture makes no row (rule 15), but who comes
// back from it is no newcomer (rule 35). The engine notes such sessions and hands
// them on as records with FlagOlder, which become nothing but what their clients
// had before.

// maxOlder bounds the sessions of an engine that are noted. Those of a capture
// that begins in the middle of things are there within its first minute.
const maxOlder = 1 << 14

// older is a TCP connection whose SYN was not captured.
type older struct {
	first, last int64
	file        uint32
	frame       int64
	packets     [2]bool // of side A, of side B
	over        bool    // FIN or RST,
	overBy      uint8   // of this side
	at          int64   // and when
}

// midStream notes a segment of a connection that no flow is of.
func (e *Engine) midStream(k *flowKey, d *dissect.Datagram, fromA bool) {
	o := e.older[*k]
	if o == nil {
		if len(e.older) >= maxOlder {
			return
		}
		o = &older{first: d.Time, file: d.File, frame: d.Frame}
		e.older[*k] = o
	}
	o.last = max(o.last, d.Time)
	side := 1
	if fromA {
		side = 0
	}
	o.packets[side] = true
	// The RST to a SYN that was lost has the number zero: there was no session.
	if d.Flags&(dissect.FIN|dissect.RST) != 0 && !o.over && (d.Flags&dissect.RST == 0 || d.Seq != 0) {
		o.over, o.overBy, o.at = true, uint8(side), d.Time
	}
}

// olderRecords gives the sessions that are older than what was captured. Who
// opened one was not seen: it is given both ways, and that which leads to a node
// that others attach to is right.
func (e *Engine) olderRecords(visit func(*Record)) {
	for k, o := range e.older {
		if !o.over && o.packets != [2]bool{true, true} {
			continue // may be a stray
		}
		r := Record{Start: o.first, End: o.first, LastSeen: o.last, File: o.file, FirstFrame: o.frame, LastFrame: o.frame, HandshakeRTT: -1,
			Source: k.a, Destination: k.b, Proto: dissect.ProtoTCP, Flags: FlagOlder}
		for client := range uint8(2) {
			if o.over {
				r.SessionEnd, r.SessionEnded = o.at, dissect.SessionByNode
				if o.overBy == client {
					r.SessionEnded = dissect.SessionByClient
				}
			}
			visit(&r)
			r.Source, r.Destination = r.Destination, r.Source
		}
	}
}

// before is what a client had at a service when the capture began: the session
// that ended last before its first attempt there; nil = none. One that lives on
// tells nothing.
func (p *part) before(x *Result, first *related) (last *related) {
	for _, o := range p.older[*first.rec.client()] {
		if o.Start > first.rec.Start || x.node(nodeKey{o.Destination, o.Proto}).service != first.service {
			continue
		}
		if o.SessionEnd == 0 {
			o.SessionEnd, o.SessionEnded = o.LastSeen, dissect.SessionByNode // it died unseen
		}
		if o.SessionEnd <= first.rec.Start && (last == nil || o.SessionEnd > last.rec.SessionEnd) {
			last = &related{rec: o}
		}
	}
	return last
}
