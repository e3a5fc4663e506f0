package attempt

import (
	"cmp"
	"math"
	"slices"

	"squall/dissect"
)

const (
	// maxLossSeconds is how many stretches of time an engine keeps the loss of;
	// over it two become one.
	maxLossSeconds = 1 << 12
	// maxMissing is how many bytes a capture may miss of a connection at a time;
	// more is no loss but a number that does not fit.
	maxMissing = 1 << 22
	// maxTapFlows is how many connections at a tap an engine remembers beside its
	// flows, twice; the oldest are forgotten.
	maxTapFlows = 1 << 13
	// Under heavy loss, of at least lossySegments segments so much was
	// acknowledged and not seen.
	lossyShare    = 0.2
	lossySegments = 20
)

// Loss is what a capture shows and does not show of the bytes that receivers
// acknowledged, SYN-ACK and FIN a byte each. What nobody acknowledges, lost SYNs
// and all of UDP, it cannot tell.
type Loss struct {
	At           int64 // begin, s
	Seen, Unseen int64 // bytes
	Segments     int64 // that brought something new
}

// Share is the share of what was delivered that the capture has not.
func (l *Loss) Share() float64 {
	if l.Unseen <= 0 {
		return 0
	}
	return float64(l.Unseen) / float64(l.Seen+l.Unseen)
}

// Heavy reports that a fifth and more is missing, with 95 % confidence, as if all
// segments were of one length.
func (l *Loss) Heavy() bool {
	p := l.Share()
	return l.Segments >= lossySegments && p-1.64*math.Sqrt(p*(1-p)/float64(l.Segments)) >= lossyShare
}

// heard is what was seen of one direction of a connection.
type heard struct {
	next uint32 // sequence number after the last byte seen or known of
	end  uint32 // of the youngest hole
	hole uint32 // bytes in holes that may be filled yet, by reordering or repeats
	gone uint32 // bytes before next that count as unseen; they may be late only
	own  bool   // a packet of its own was seen
	any  bool
}

// lossMeter adds up loss by time.
type lossMeter struct {
	now   Loss
	begun bool
	shift uint // stretches of 1<<shift s
	list  []Loss
}

func (m *lossMeter) at(t int64) *Loss {
	if s := t / second >> m.shift << m.shift; !m.begun || s != m.now.At {
		m.turn()
		m.now, m.begun = Loss{At: s}, true
	}
	return &m.now
}

func (m *lossMeter) turn() {
	if m.now.Segments == 0 {
		return
	}
	m.list = append(m.list, m.now)
	if len(m.list) >= maxLossSeconds {
		m.shift++
		m.list = coarser(m.list, m.shift)
	}
}

// coarser joins what lies in one stretch of 1<<shift s.
func coarser(list []Loss, shift uint) []Loss {
	for i := range list {
		list[i].At = list[i].At >> shift << shift
	}
	slices.SortFunc(list, func(a, b Loss) int { return cmp.Compare(a.At, b.At) })
	out := list[:0]
	for _, l := range list {
		if n := len(out); n > 0 && out[n-1].At == l.At {
			out[n-1].Seen += l.Seen
			out[n-1].Unseen += l.Unseen
			out[n-1].Segments += l.Segments
			continue
		}
		out = append(out, l)
	}
	return out
}

// measure takes a segment of a connection whose SYN was seen.
func (m *lossMeter) measure(h *[2]heard, d *dissect.Datagram, fromA bool) {
	if d.Flags&dissect.RST != 0 {
		return
	}
	s, o := &h[0], &h[1]
	if fromA {
		s, o = o, s
	}
	size := uint32(d.PayloadLen)
	if d.Flags&dissect.SYN != 0 {
		size++
	}
	if d.Flags&dissect.FIN != 0 {
		size++
	}
	seq := d.Seq
	if d.Flags&dissect.SYN == 0 && s.any && !s.own && seq == s.next {
		// The other side knew its SYN, and the capture does not.
		l := m.at(d.Time)
		l.Unseen++
		l.Segments++
	}
	s.own = true
	if size > 0 {
		if !s.any {
			s.any, s.next = true, seq
		}
		end := seq + size
		off, fresh := int32(seq-s.next), int32(end-s.next)
		switch {
		case off > maxMissing || off < -maxMissing:
			s.next, s.hole, s.gone = end, 0, 0
		case fresh > 0:
			if off > 0 {
				s.hole += uint32(off)
				s.end = seq
				fresh = int32(size)
			}
			s.next, s.gone = end, 0
			if d.Flags&(dissect.SYN|dissect.ACK) == dissect.SYN {
				return // without it there is no flow, so it is no sample of what is lost
			}
			l := m.at(d.Time)
			l.Seen += int64(fresh)
			l.Segments++
		case s.hole > 0 && int32(seq-s.end) < 0:
			l := m.at(d.Time)
			n := min(s.hole, size)
			s.hole -= n
			l.Seen += int64(n)
			l.Segments++
		case s.gone > 0 && int32(seq-s.next+s.gone) >= 0: // its acknowledgement was faster
			l := m.at(d.Time)
			n := min(s.gone, size)
			s.gone -= n
			l.Unseen -= int64(n)
			l.Seen += int64(n)
		}
	}
	if d.Flags&dissect.ACK == 0 {
		return
	}
	if !o.any {
		o.any, o.next = true, d.Ack
		return
	}
	missing := int32(d.Ack - o.next)
	if missing > maxMissing || missing < -maxMissing {
		return
	}
	if o.hole > 0 && int32(d.Ack-o.end) >= 0 {
		l := m.at(d.Time)
		l.Unseen += int64(o.hole)
		l.Segments++
		o.hole = 0
	}
	if missing > 0 {
		o.next = d.Ack
		if o.own {
			l := m.at(d.Time)
			l.Unseen += int64(missing)
			l.Segments++
			o.gone = uint32(missing)
		}
	}
}

// tapMeters measure what each of several taps missed, whatever the others saw.
type tapMeters struct {
	tap        []uint8 // of each input
	of         []lossMeter
	young, old map[uint64]*atTap
}

// atTap is a connection as one tap sees it.
type atTap struct {
	isn   uint32
	heard [2]heard
}

func newTapMeters(tap []uint8) *tapMeters {
	if len(tap) == 0 {
		return nil
	}
	return &tapMeters{tap: tap, of: make([]lossMeter, int(slices.Max(tap))+1), young: map[uint64]*atTap{}}
}

// segment takes a TCP packet that its tap had not seen before.
func (t *tapMeters) segment(d *dissect.Datagram) {
	if int(d.File) >= len(t.tap) {
		return
	}
	k := makeKey(d.Source(), d.Destination(), dissect.ProtoTCP, d)
	tap := t.tap[d.File]
	h := dissect.FoldBytes(dissect.Fold(uint64(tap)<<32|uint64(k.a.Port)<<16|uint64(k.b.Port), k.net), k.a.Addr[:])
	h = dissect.FoldBytes(h, k.b.Addr[:])
	f := t.young[h]
	if f == nil {
		if f = t.old[h]; f != nil {
			t.add(h, f)
		}
	}
	if d.Flags&(dissect.SYN|dissect.ACK|dissect.RST) == dissect.SYN && (f == nil || f.isn != d.Seq) {
		f = &atTap{isn: d.Seq}
		t.add(h, f)
	}
	if f != nil {
		t.of[tap].measure(&f.heard, d, k.a == d.Source())
	}
}

func (t *tapMeters) add(h uint64, f *atTap) {
	if len(t.young) >= maxTapFlows {
		t.old, t.young = t.young, map[uint64]*atTap{}
	}
	t.young[h] = f
}

// JoinLosses adds up lists of loss, of which none is in stretches over 1<<shift s, and
// gives the stretches of the sum: the shortest of which there are not too many, whatever
// was added up first.
func JoinLosses(list []Loss, shift uint) ([]Loss, uint) {
	for list = coarser(list, shift); len(list) >= maxLossSeconds; {
		shift++
		list = coarser(list, shift)
	}
	return list, shift
}

// Losses gives the loss by time that the engines saw together, in stretches of
// 1<<shift s: of a packet that any tap has nothing is lost.
func Losses(engines []*Engine) (list []Loss, shift uint) {
	meters := make([]*lossMeter, len(engines))
	for i, e := range engines {
		meters[i] = &e.loss
	}
	return losses(meters)
}

// TapLosses is the same of one tap alone, by its number in Config.Taps.
func TapLosses(engines []*Engine, tap int) (list []Loss, shift uint) {
	var meters []*lossMeter
	for _, e := range engines {
		if e.taps != nil && tap < len(e.taps.of) {
			meters = append(meters, &e.taps.of[tap])
		}
	}
	return losses(meters)
}

func losses(meters []*lossMeter) (list []Loss, shift uint) {
	for _, m := range meters {
		m.turn()
		m.now, m.begun = Loss{}, false
		shift = max(shift, m.shift)
		list = append(list, m.list...)
	}
	return JoinLosses(list, shift)
}
