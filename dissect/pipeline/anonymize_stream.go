package pipeline

import (
	"cmp"
	"slices"

	"squall/dissect"
)

// stream is how one direction of a TCP connection begins, put together from its
// segments: a name that begins in one and ends in the next is one name.
type stream struct {
	first    uint32 // sequence number of the first byte
	told     uint8  // flags of the SYN that told it, 0 = none
	segments []segment
	is       []byte // what stands for the bytes up to the first hole
	made     bool
}

type segment struct {
	seq uint32
	b   []byte
}

const (
	// keepStream is how much of a direction is kept where the connection carries one
	// attempt: what the attempt engine reads of a message. The rest is zeroed.
	keepStream = 4096
	// keepRequests is how much where requests follow one another in a connection.
	keepRequests = 1 << 20
	// maxStreams bounds the connections of one pair of endpoints that are told apart.
	maxStreams = 1 << 12
	// maxJoined bounds the bytes that are held until all packets were seen.
	maxJoined = 1 << 30
	// reordered is how far before the first segment that was seen another may begin.
	reordered = 1 << 16
)

// sequence is the number of a segment's first byte.
func sequence(d *dissect.Datagram) uint32 {
	if d.Flags&dissect.SYN != 0 {
		return d.Seq + 1
	}
	return d.Seq
}

// streamOf finds the stream that a segment belongs to: of the connections of its
// endpoints the one that began last before it.
func (a *Anonymizer) streamOf(d *dissect.Datagram) (best *stream) {
	seq := sequence(d)
	for _, s := range a.streams[anonFlow{d.Source(), d.Destination()}] {
		if off := int32(seq - s.first); off >= 0 && (best == nil || off < int32(seq-best.first)) {
			best = s
		}
	}
	return best
}

// collect takes note of a segment of a known protocol.
func (a *Anonymizer) collect(d *dissect.Datagram) {
	if a.proto == "" || d.Proto != dissect.ProtoTCP {
		return
	}
	k, seq := anonFlow{d.Source(), d.Destination()}, sequence(d)
	list, s := a.streams[k], a.streamOf(d)
	flags := uint8(0)
	if d.Flags&dissect.SYN != 0 {
		flags = d.Flags & (dissect.SYN | dissect.ACK)
	}
	switch {
	case s != nil && (flags == 0 || s.first == seq):
		s.told |= flags
	case len(list) >= maxStreams:
		return
	default:
		// One that no SYN told may begin before the first segment that came.
		i := slices.IndexFunc(list, func(s *stream) bool { return s.told == 0 && s.first-seq < reordered })
		if i < 0 {
			i = len(list)
			list = append(list, new(stream))
			a.streams[k] = list
		}
		s = list[i]
		s.first, s.told = seq, flags
	}
	at := int(int32(seq - s.first))
	b := d.Payload[:max(0, min(len(d.Payload), a.keep-at))]
	if len(b) == 0 {
		return
	}
	if a.joined += int64(len(b)); a.joined > maxJoined {
		a.Cut++
		return
	}
	s.segments = append(s.segments, segment{seq, slices.Clone(b)})
}

// join puts the bytes up to the first hole in order: behind it nothing is read.
func (s *stream) join() (b []byte) {
	slices.SortStableFunc(s.segments, func(x, y segment) int {
		return cmp.Compare(int32(x.seq-s.first), int32(y.seq-s.first))
	})
	for _, g := range s.segments {
		at := int(int32(g.seq - s.first))
		if at > len(b) {
			break
		}
		if at+len(g.b) > len(b) {
			b = append(b, g.b[len(b)-at:]...)
		}
	}
	s.segments = nil
	return b
}

// segment gives a segment its part of what stands for its stream.
func (a *Anonymizer) segment(d *dissect.Datagram) {
	s, n := a.streamOf(d), 0
	if s != nil {
		if !s.made {
			whole := *d
			whole.Flags = s.told
			whole.Seq, whole.First, whole.Cut = s.first, false, false
			whole.Payload = s.join()
			whole.PayloadLen = len(whole.Payload)
			a.clean(&whole)
			s.is, s.made = whole.Payload, true
		}
		if at := int(int32(sequence(d) - s.first)); at < len(s.is) {
			n = copy(d.Payload, s.is[at:])
		}
	}
	clear(d.Payload[n:])
}
