package headers

import "squall/dissect"

// Bounds of the fragments that wait for each other. A datagram that is not
// complete after fragmentLife (RFC 791 suggests 15 s, RFC 8200 60 s) or that
// is crowded out is dropped; its packets are in the ledger as fragments all
// the same.
const (
	fragmentSlots = 256
	fragmentLife  = 30e9
	maxDatagram   = 65535
	maxPieces     = 64
)

type fragmentKey struct {
	src, dst dissect.Addr
	id       uint32
	proto    uint8
}

// partial is a datagram of which pieces are missing. Slots are reused.
type partial struct {
	key    fragmentKey
	since  int64
	total  int // 0 = last fragment not seen
	have   int
	pieces [maxPieces][2]int // begin and end of what is there
	n      int
	data   []byte
}

type fragments struct {
	slots map[fragmentKey]*partial
	free  []*partial
}

// fragment takes one fragment with payload b, of which n bytes were on the
// wire, at offset off. The first fragment of a datagram is decoded at once if
// it holds the transport header: that is enough to classify, and the attempt
// engine needs no more. Only when it does not (tiny fragments, or the first
// one comes last) the completed datagram is decoded. Overlaps that repeat the
// same bytes are tolerated; one that differs, or stretches over others, drops
// the datagram (RFC 5722).
func (dec *Decoder) fragment(b []byte, id uint32, off int, more bool, n int, d *dissect.Datagram) {
	proto := d.Proto
	d.Class = dissect.ClassFragment
	if off+n > maxDatagram || more && n%8 != 0 && !dec.cut {
		d.Class = dissect.ClassMalformed
		return
	}
	shown := false
	if off == 0 {
		need := 8
		if proto == dissect.ProtoTCP {
			if need = 20; len(b) >= need {
				need = max(need, int(b[12]>>4)*4) // options may go on in the next
			}
		}
		if len(b) >= need && (proto == dissect.ProtoTCP || proto == dissect.ProtoUDP) {
			d.First = true
			dec.transport(proto, b, n, d)
			shown = true
		}
	}
	if len(b) < n {
		return // cut: nothing can be completed with it
	}
	k := fragmentKey{d.Src, d.Dst, id, proto}
	if shown { // the tunnel may have replaced the addresses
		return
	}
	f := &dec.frags
	p := f.slots[k]
	if p == nil {
		p = f.take(k, d.Time)
	} else if d.Time-p.since > fragmentLife || d.Time < p.since-fragmentLife {
		p.reset(k, d.Time)
	}
	if !p.add(off, b, more) {
		f.drop(p)
		return
	}
	if p.total == 0 || p.have < p.total {
		return
	}
	data := p.data[:p.total]
	f.drop(p) // its memory stays as it is until the next fragment
	d.Class = dissect.ClassOther
	dec.transport(proto, data, len(data), d)
	if d.Class == dissect.ClassOther {
		d.Class = dissect.ClassFragment
	}
}

func (f *fragments) take(k fragmentKey, now int64) *partial {
	if f.slots == nil {
		f.slots = make(map[fragmentKey]*partial, fragmentSlots)
	}
	var p *partial
	switch {
	case len(f.free) > 0:
		p = f.free[len(f.free)-1]
		f.free = f.free[:len(f.free)-1]
	case len(f.slots) < fragmentSlots:
		p = new(partial)
	default: // the oldest makes room
		for _, q := range f.slots {
			if p == nil || q.since < p.since || q.since == p.since && q.key.id < p.key.id {
				p = q
			}
		}
		delete(f.slots, p.key)
	}
	p.reset(k, now)
	f.slots[k] = p
	return p
}

func (f *fragments) drop(p *partial) {
	delete(f.slots, p.key)
	f.free = append(f.free, p)
}

func (p *partial) reset(k fragmentKey, now int64) {
	p.key, p.since, p.total, p.have, p.n, p.data = k, now, 0, 0, 0, p.data[:0]
}

// add puts a piece in its place; false when the datagram contradicts itself.
func (p *partial) add(off int, b []byte, more bool) bool {
	end := off + len(b)
	if !more {
		if p.total != 0 && p.total != end {
			return false
		}
		p.total = end
	}
	if p.total != 0 && end > p.total {
		return false
	}
	for _, piece := range p.pieces[:p.n] {
		if p.total != 0 && piece[1] > p.total {
			return false
		}
		if off < piece[1] && piece[0] < end {
			return off == piece[0] && end == piece[1] && string(p.data[off:end]) == string(b)
		}
	}
	if p.n == maxPieces {
		return false
	}
	if end > len(p.data) {
		if end > cap(p.data) {
			grown := make([]byte, len(p.data), max(end, 2*cap(p.data), 4096))
			copy(grown, p.data)
			p.data = grown
		}
		p.data = p.data[:end]
	}
	copy(p.data[off:], b)
	p.pieces[p.n] = [2]int{off, end}
	p.n++
	p.have += len(b)
	return true
}
