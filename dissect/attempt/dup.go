package attempt

import "squall/dissect"

const (
	// duplicateWithin is how close two equal frames must be to count as one
	// seen twice by a tap (rule 18). Retransmissions are 200 ms apart and more.
	duplicateWithin = 5e6
	duplicateSlots  = 1 << 10 // by shard; small, so that it stays in the cache
)

// duplicates is a direct-mapped table of recent frames: a collision forgets
// the older frame, which at worst misses a duplicate.
//
// A frame comes again at the same point (rule 18), or it is seen at another: its
// TTL is lower, it is in a tunnel, another tap or interface has it. That one is
// told by all that a packet keeps on its way, and is no repeat by its sender,
// which gives another IP id or comes later.
type duplicates struct {
	slots []struct {
		hash uint64 // the last byte is the point
		time int64
	}
	mask   uint64
	within int64 // of copies
	points bool  // several
}

const copySlots = 1 << 14 // by shard, where there are several points

func newDuplicates(within int64) (t duplicates) {
	n := duplicateSlots
	if t.within = within; within > 0 {
		n, t.points = copySlots, true
	}
	t.within = max(t.within, duplicateWithin)
	t.slots = make([]struct {
		hash uint64
		time int64
	}, n)
	t.mask = uint64(n - 1)
	return t
}

type sighting uint8

const (
	fresh     sighting = iota
	again              // at the same point
	elsewhere          // at another
)

func (t *duplicates) seen(d *dissect.Datagram) sighting {
	// Equal acknowledgements are legal, and nothing tells them from copies at one point.
	bare := d.Class == dissect.ClassTCP && d.IPID == 0 && d.PayloadLen == 0 && d.Flags&(dissect.SYN|dissect.FIN|dissect.RST) == 0
	if bare && !t.points {
		return fresh
	}
	point := uint64(uint8(d.TTL ^ d.Point<<3 ^ d.Point>>5 ^ uint8(d.Tunnel)<<5 ^ uint8(d.TunnelID)*13))
	h := frameHash(d)
	s := &t.slots[h>>8&t.mask]
	if s.hash>>8 == h>>8 && d.Time >= s.time {
		if uint8(s.hash) != uint8(point) {
			if d.Time-s.time <= t.within {
				return elsewhere
			}
		} else if d.Time-s.time <= duplicateWithin && !bare {
			return again
		}
	}
	s.hash, s.time = h&^0xff|point, d.Time
	return fresh
}

// frameHash is of what tells a frame from all others of its time. The payload of a
// TCP segment is left alone: its sequence number and length say which bytes they
// are (RFC 9293 section 3.4), and looking at them costs more than all the rest.
func frameHash(d *dissect.Datagram) uint64 {
	h := dissect.FoldBytes(uint64(d.Proto)<<8|uint64(d.Class), d.Src[:])
	h = dissect.FoldBytes(h, d.Dst[:])
	h = dissect.Fold(h, uint64(d.SrcPort)<<48|uint64(d.DstPort)<<32|uint64(d.IPID)<<16|uint64(d.Flags))
	h = dissect.Fold(h, uint64(d.Seq)<<32|uint64(d.Ack))
	h = dissect.Fold(h, uint64(d.Window)<<32|uint64(uint32(d.PayloadLen)))
	h = dissect.Fold(h, uint64(d.TSVal)<<32|uint64(d.TSEcr))
	if d.Class == dissect.ClassICMPError {
		q := &d.Quoted
		h = dissect.FoldBytes(dissect.FoldBytes(h, q.Src[:]), q.Dst[:])
		h = dissect.Fold(h, uint64(q.SrcPort)<<48|uint64(q.DstPort)<<32|uint64(q.Seq))
		h = dissect.Fold(h, uint64(d.ICMPType)<<8|uint64(d.ICMPCode))
	}
	if d.Class == dissect.ClassTCP {
		return h
	}
	return d.FoldPayload(h)
}
