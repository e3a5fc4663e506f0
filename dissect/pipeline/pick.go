package pipeline

import (
	"cmp"
	"slices"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
)

// Picked is an attempt whose packets are wanted.
type Picked struct {
	Source, Destination dissect.Endpoint
	Proto               uint8
	Start, End          int64  // first transmission, last packet of it or of the session it opened, ns
	File                string // input of its first frame, empty = the only one
	Frame               int64  // number of that frame, 0 = none
	Comment             string // for that frame
	Protocol            string // of the flow
}

// Picker finds the packets of attempts when their captures are read again: all
// of their flows between the first transmission and the last packet, in both
// directions and inside tunnels, ICMP errors that quote them, and the later
// fragments of datagrams whose first one was picked. It is for one goroutine
// and sees the packets in the order of the files.
type Picker struct {
	flows   map[picking][]span
	remarks map[remark]string
	speaks  map[picking]speech
	pieces  map[piecing]int64
	dec     headers.Decoder
	times   []span                          // of all flows, disjoint and in order
	slack   int64                           // that packets may be off, ns
	also    map[dissect.Addr][]dissect.Addr // what the same packets bore elsewhere
	facing  map[facing][]picking            // flows of such addresses by the other side
	spoken  speech                          // by the flow of the last packet that was wanted
	sorted  bool
}

type picking struct {
	a, b  dissect.Endpoint
	proto uint8
}

// facing is an address and whom it talks to.
type facing struct {
	addr  dissect.Addr
	to    dissect.Endpoint
	proto uint8
}

type span struct{ start, end int64 }

// speech is what a flow speaks, and how many attempts it carries.
type speech struct {
	protocol string
	attempts int
}

type remark struct {
	file  string
	frame int64
}

type piecing struct {
	src, dst dissect.Addr
	id       uint16
}

// maxPieces bounds the fragmented datagrams that are followed at a time.
const maxPieces = 1 << 12

// NewPicker makes a picker of nothing.
func NewPicker() *Picker {
	return &Picker{flows: map[picking][]span{}, remarks: map[remark]string{}, speaks: map[picking]speech{}, pieces: map[piecing]int64{}, also: map[dissect.Addr][]dissect.Addr{}, facing: map[facing][]picking{}}
}

// pointsApart is how far the times of one packet at two points may be apart, ns: the
// way between them, and what is left of their clocks' difference.
const pointsApart = 200 * int64(1e6)

// Points says that packets were captured at several points, and which addresses they
// bore at either side of a translation. It is called before Add. The port at the
// other side is not known: of an address that many share, all flows to the same
// endpoint are wanted.
func (k *Picker) Points(pairs []NAT) {
	k.slack = pointsApart
	for _, n := range pairs {
		k.also[n.Inner] = append(k.also[n.Inner], n.Outer)
		k.also[n.Outer] = append(k.also[n.Outer], n.Inner)
	}
}

func pickingOf(a, b dissect.Endpoint, proto uint8) picking {
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	return picking{a, b, proto}
}

// Add asks for the packets of one more attempt.
func (k *Picker) Add(p Picked) {
	key := pickingOf(p.Source, p.Destination, p.Proto)
	if p.Protocol != "" {
		k.speaks[key] = speech{p.Protocol, k.speaks[key].attempts + 1}
	}
	k.flows[key] = append(k.flows[key], span{p.Start - k.slack, max(p.Start, p.End) + k.slack})
	for _, side := range [...][2]dissect.Endpoint{{p.Source, p.Destination}, {p.Destination, p.Source}} {
		if k.also[side[0].Addr] != nil {
			f := facing{side[0].Addr, side[1], p.Proto}
			k.facing[f] = append(k.facing[f], key)
		}
	}
	if p.Frame > 0 && p.Comment != "" {
		r := remark{p.File, p.Frame}
		if old := k.remarks[r]; old != "" { // one packet may open two attempts in one TCP stream
			p.Comment = old + "\n" + p.Comment
		}
		k.remarks[r] = p.Comment
	}
	k.sorted = false
}

// sort makes the spans of each flow disjoint and ordered.
func (k *Picker) sort() {
	for key, list := range k.flows {
		slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.start, b.start) })
		n := 0
		for _, s := range list[1:] {
			if s.start <= list[n].end {
				list[n].end = max(list[n].end, s.end)
				continue
			}
			n++
			list[n] = s
		}
		k.flows[key] = list[:n+1]
	}
	k.times = k.times[:0]
	for _, list := range k.flows {
		k.times = append(k.times, list...)
	}
	slices.SortFunc(k.times, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	n := 0
	for i, s := range k.times {
		if i > 0 && s.start <= k.times[n-1].end {
			k.times[n-1].end = max(k.times[n-1].end, s.end)
			continue
		}
		k.times[n] = s
		n++
	}
	k.times = k.times[:n]
	k.sorted = true
}

// pieceWait is how long further fragments of a datagram may come, ns: the least
// that RFC 8200 section 4.5 grants is 60 s, and what lies between is microseconds.
const pieceWait = int64(1e9)

// Overlaps says whether packets between two times may be wanted. Fragments that
// come more than a second after their first are given up.
func (k *Picker) Overlaps(first, last int64) bool {
	if !k.sorted {
		k.sort()
	}
	i, _ := slices.BinarySearchFunc(k.times, first-pieceWait, func(s span, at int64) int { return cmp.Compare(s.end, at) })
	return i < len(k.times) && k.times[i].start <= last
}

// Protocol is what the flow of the last wanted packet speaks, empty = unknown.
func (k *Picker) Protocol() string { return k.spoken.protocol }

// Attempts is how many attempts in that protocol were added of that flow.
func (k *Picker) Attempts() int { return k.spoken.attempts }

// Want says whether the packet, of the input with this name, is wanted, and the
// comment it carries.
func (k *Picker) Want(p *capture.Packet, file string) (comment string, ok bool) {
	if !k.sorted {
		k.sort()
	}
	var d dissect.Datagram
	k.dec.Decode(p, &d)
	key := pickingOf(d.Source(), d.Destination(), d.Proto)
	if q := &d.Quoted; d.Class == dissect.ClassICMPError {
		key = pickingOf(dissect.Endpoint{Addr: q.Src, Port: q.SrcPort}, dissect.Endpoint{Addr: q.Dst, Port: q.DstPort}, q.Proto)
	}
	k.spoken = k.speaks[key]
	if len(k.remarks) > 0 {
		if comment, ok = k.remarks[remark{file, p.Frame}]; ok {
			k.follow(&d)
			return comment, true
		}
	}
	switch d.Class {
	case dissect.ClassTCP, dissect.ClassUDP, dissect.ClassICMPError:
		if ok = k.within(key, d.Time); !ok && len(k.also) > 0 {
			ok = k.translated(key, d.Time)
		}
	case dissect.ClassFragment:
		_, ok = k.pieces[piecing{d.Src, d.Dst, d.IPID}]
	}
	if ok {
		k.follow(&d)
	}
	return "", ok
}

// follow remembers a picked datagram of which more fragments are to come.
func (k *Picker) follow(d *dissect.Datagram) {
	if !d.First {
		return
	}
	if len(k.pieces) >= maxPieces {
		clear(k.pieces)
	}
	k.pieces[piecing{d.Src, d.Dst, d.IPID}] = d.Time
}

// translated says whether a flow is a wanted one at the other side of a translation.
func (k *Picker) translated(key picking, at int64) bool {
	for _, side := range [...][2]dissect.Endpoint{{key.a, key.b}, {key.b, key.a}} {
		for _, addr := range k.also[side[0].Addr] {
			for _, other := range k.facing[facing{addr, side[1], key.proto}] {
				if k.within(other, at) {
					k.spoken = k.speaks[other]
					return true
				}
			}
		}
	}
	return false
}

func (k *Picker) within(key picking, at int64) bool {
	list := k.flows[key]
	i, found := slices.BinarySearchFunc(list, at, func(s span, at int64) int { return cmp.Compare(s.start, at) })
	if found {
		return true
	}
	return i > 0 && at <= list[i-1].end
}
