package pipeline

import (
	"bytes"

	"squall/dissect"
)

// edge is where two segments of a direction meet.
type edge struct {
	of anonFlow
	at uint32 // sequence number of the first byte behind it
}

// torn is an identity that begins in one segment and ends in the next.
type torn struct {
	at uint32 // sequence number of its first byte
	id []byte
}

// maxEdges bounds the edges whose other side was not seen yet.
const maxEdges = 1 << 20

// join looks at the edges of a segment for learnt identities that the neighbour, seen
// before or later, holds the other part of. A segment shorter than an identity passes
// on what it was handed from the one before.
func (a *Anonymizer) join(d *dissect.Datagram) {
	ids := a.ids[a.proto]
	if ids == nil || d.Proto != dissect.ProtoTCP {
		return
	}
	part := ids.lengths[0] - 1 // most that stands on one side
	begin := edge{anonFlow{d.Source(), d.Destination()}, d.Seq}
	if d.Flags&dissect.SYN != 0 {
		begin.at++
	}
	end := begin
	end.at += uint32(len(d.Payload))
	head, tail := d.Payload[:min(part, len(d.Payload))], d.Payload[max(0, len(d.Payload)-part):]
	if before, ok := a.tails[begin]; ok {
		a.tear(ids, begin, before, head)
		delete(a.tails, begin)
		if len(d.Payload) < part {
			tail = append(bytes.Clone(before), d.Payload...)
			tail = tail[max(0, len(tail)-part):]
		}
	} else {
		a.keepEdge(a.heads, begin, head)
	}
	if behind, ok := a.heads[end]; ok {
		a.tear(ids, end, tail, behind)
		delete(a.heads, end)
	} else {
		a.keepEdge(a.tails, end, tail)
	}
}

func (a *Anonymizer) keepEdge(of map[edge][]byte, at edge, b []byte) {
	if len(of) >= maxEdges {
		clear(of)
	}
	of[at] = bytes.Clone(b)
}

// tear notes the identities that lie across an edge.
func (a *Anonymizer) tear(ids *clientIDs, at edge, before, behind []byte) {
	both := append(bytes.Clone(before), behind...)
	for _, n := range ids.lengths {
		for i := max(0, len(before)-n+1); i < len(before) && i+n <= len(both); i++ {
			if ids.is[string(both[i:i+n])] {
				a.torn[at.of] = append(a.torn[at.of], torn{at.at - uint32(len(before)-i), bytes.Clone(both[i : i+n])})
			}
		}
	}
}

// mend replaces the parts of torn identities that a segment holds.
func (a *Anonymizer) mend(d *dissect.Datagram, after []byte) {
	seq := d.Seq
	if d.Flags&dissect.SYN != 0 {
		seq++
	}
	for _, t := range a.torn[anonFlow{d.Source(), d.Destination()}] {
		is := a.other(t.id)
		for i := range t.id {
			if k := int64(int32(t.at-seq)) + int64(i); k >= 0 && k < int64(len(after)) && a.before[k] == t.id[i] {
				after[k] = is[i]
			}
		}
	}
}
