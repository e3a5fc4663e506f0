package taps

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
)

const (
	// maxSamples is how many packets, and how many packets of handshakes, a
	// survey keeps over all taps, 24 bytes each.
	maxSamples = 1 << 20
	// sameWithin is how far apart one tap may see a packet twice, at both sides
	// of a router or by a mirror of two ports. Farther apart it is two packets.
	sameWithin = 5e6
	// leastCommon is how few packets may connect two clocks.
	leastCommon = 3
	// windowMargin is how far a clock may be off so that a survey of the files
	// around a window finds what is common; of clocks farther apart it reads all.
	windowMargin = int64(30e9)
)

// Tap is a capture point and what it wrote.
type Tap struct {
	Name   string
	Inputs []string // without the name
	// Clock is what the user says of it; its Source is empty where nothing was said.
	Clock capture.Clock
}

// Pair is what two taps have in common.
type Pair struct {
	A, B string
	// Seen is the number of sampled packets of A and of B while both captured,
	// Both that of packets in both.
	SeenA, SeenB, Both int64
	// Handshakes are connections of which each tap saw a side.
	Handshakes int64
	// Dropped constraints contradicted the others; Slack is by how much the rest
	// still does, ns.
	Dropped int64
	Slack   int64
	// Apart is the longest that a packet took from one to the other, ns, clocks set right.
	Apart int64
}

// Rate is the share of the packets of the tap that saw fewer which the other
// saw too.
func (p *Pair) Rate() float64 { return float64(p.Both) / float64(max(min(p.SeenA, p.SeenB), 1)) }

// Clocks are the results of a survey.
type Clocks struct {
	Of    map[string]capture.Clock // by the name of the tap
	Pairs []Pair
	// Apart is the longest that a packet took between two taps, ns; 0 = not known.
	Apart int64
	// Read is how many bytes of the files the survey took.
	Read int64
}

// Words say what was found, a line for each tap and each pair.
func (c *Clocks) Words(taps []Tap) (out []string) {
	for _, t := range taps {
		if k, ok := c.Of[t.Name]; ok {
			out = append(out, Words(t.Name, &k))
		}
	}
	for i := range c.Pairs {
		out = append(out, c.Pairs[i].Words())
	}
	return out
}

// Words say what is known of the clock of a tap.
func Words(name string, k *capture.Clock) string {
	switch k.Source {
	case "reference":
		return fmt.Sprintf("tap %s: its clock is the one that all times are given in", name)
	case "given":
		return fmt.Sprintf("tap %s: clock %s ahead, as given", name, k)
	case "assumed":
		return fmt.Sprintf("tap %s: nothing connects its clock with the others; taken as it is (--clock %s=OFFSET sets it right)", name, name)
	}
	if k.Bound < 0 {
		return fmt.Sprintf("tap %s: clock %s ahead as far as packets of one direction tell; the time that they take is not taken off", name, k)
	}
	return fmt.Sprintf("tap %s: clock %s ahead, at most %s off", name, k, time.Duration(k.Bound))
}

// Words say what two taps have in common.
func (p *Pair) Words() string {
	s := fmt.Sprintf("taps %s and %s: %d of %d and %d sampled packets were seen at both (%.1f %%), %d handshakes from both sides",
		p.A, p.B, p.Both, p.SeenA, p.SeenB, 100*p.Rate(), p.Handshakes)
	if p.Dropped > 0 {
		s += fmt.Sprintf("; %d left out as contradictions", p.Dropped)
	}
	if p.Slack > 0 {
		s += fmt.Sprintf("; the others contradict each other by %s", time.Duration(p.Slack))
	}
	return s
}

// sighting is a sampled packet at a tap.
type sighting struct {
	print    uint64
	time     int64
	ttl      uint8
	toClient bool
	twice    bool
}

// hand is a packet of a handshake, by what all of them know: the client's ISN.
type hand struct {
	key  uint64
	time int64
	kind uint8 // 0 SYN, 1 its answer, 2 what acknowledges that
}

// view is what a survey keeps of one tap.
type view struct {
	limit       int
	first, last int64
	seen        []sighting
	hands       []hand
	above       uint64 // prints and keys under this are sampled
	handsAbove  uint64
	any         bool
}

// Survey reads all taps, one after the other, and compares their clocks. The
// first of which the user says nothing is the one that the others are compared
// with. Memory is bounded: over a ceiling a sample is kept, of packets chosen by
// their content, so that all taps sample the same.
//
// Of a window, in the time of the common clock, only files around it are read,
// unless that leaves a clock unknown or shows it far off: then what the window
// is in the time of that clock was not known, and all files are read.
func Survey(ctx context.Context, taps []Tap, window capture.Window) (*Clocks, error) {
	if window == (capture.Window{}) {
		return survey(ctx, taps, window)
	}
	if window.AfterFirst != 0 || window.BeforeFirst != 0 {
		first, err := firstOf(taps)
		if err != nil {
			return nil, err
		}
		window = window.From(first)
	}
	out, err := survey(ctx, taps, window)
	if err != nil {
		return nil, err
	}
	for _, t := range taps {
		k := out.Of[t.Name]
		if t.Clock.Source == "" && (k.Source == "assumed" || max(k.Offset, -k.Offset) > windowMargin) {
			read := out.Read
			if out, err = survey(ctx, taps, capture.Window{}); err == nil {
				out.Read += read
			}
			return out, err
		}
	}
	return out, nil
}

// firstOf is the time of the first packet of all, by the clocks as they are.
func firstOf(taps []Tap) (first int64, err error) {
	for _, t := range taps {
		src, err := capture.Open(t.Inputs, capture.Options{})
		if err != nil {
			return 0, err
		}
		if b, err := src.Next(); err == nil {
			if at := t.Clock.True(b.Packets[0].Time); first == 0 || at < first {
				first = at
			}
			b.Release()
		}
		src.Close()
	}
	return first, nil
}

func survey(ctx context.Context, taps []Tap, window capture.Window) (*Clocks, error) {
	views := make([]*view, len(taps))
	var read int64
	for i, t := range taps {
		v := &view{limit: max(maxSamples/len(taps), 1024), above: math.MaxUint64, handsAbove: math.MaxUint64}
		of := window
		if of.After != 0 {
			of.After += t.Clock.Offset - windowMargin
		}
		if of.Before != 0 {
			of.Before += t.Clock.Offset + windowMargin
		}
		n, err := v.read(ctx, t, of)
		if err != nil {
			return nil, err
		}
		read += n
		v.settle()
		views[i] = v
	}
	out := compare(taps, views)
	out.Read = read
	return out, nil
}

// read takes a tap's packets in the files around a window by its own clock, and
// says how many bytes of them it took.
func (v *view) read(ctx context.Context, t Tap, window capture.Window) (bytes int64, err error) {
	src, err := capture.Open(t.Inputs, capture.Options{Window: window})
	if err != nil {
		return 0, err
	}
	defer src.Close()
	var dec headers.Decoder
	var d dissect.Datagram
	if err := capture.Each(ctx, src, func(b *capture.Batch) error {
		for i := range b.Packets {
			dec.Decode(&b.Packets[i], &d)
			v.packet(&d)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	for _, f := range src.Files() {
		bytes += f.ReadOnDisk
	}
	return bytes, nil
}

func (v *view) packet(d *dissect.Datagram) {
	if !v.any || d.Time < v.first {
		v.first = d.Time
	}
	if !v.any || d.Time > v.last {
		v.last = d.Time
	}
	v.any = true
	if p := print(d); p != 0 && p <= v.above {
		back := d.SrcPort < d.DstPort
		if d.Proto == dissect.ProtoTCP && d.Flags&dissect.SYN != 0 {
			back = d.Flags&dissect.ACK != 0
		}
		v.seen = append(v.seen, sighting{print: p, time: d.Time, ttl: d.TTL, toClient: back})
		if len(v.seen) > v.limit {
			v.above = halve(v.above)
			v.seen = slices.DeleteFunc(v.seen, func(s sighting) bool { return s.print > v.above })
		}
	}
	if d.Class != dissect.ClassTCP {
		return
	}
	var h hand
	switch d.Flags & (dissect.SYN | dissect.ACK | dissect.RST | dissect.FIN) {
	case dissect.SYN:
		h = hand{key: handKey(d.Seq, d.DstPort)}
	case dissect.SYN | dissect.ACK, dissect.RST | dissect.ACK:
		h = hand{key: handKey(d.Ack-1, d.SrcPort), kind: 1}
		if d.Flags&dissect.RST != 0 && d.Seq != 0 {
			return // it ends a connection
		}
	case dissect.ACK:
		if d.PayloadLen > 0 {
			return
		}
		h = hand{key: handKey(d.Seq-1, d.DstPort), kind: 2}
	default:
		return
	}
	if h.key > v.handsAbove {
		return
	}
	h.time = d.Time
	v.hands = append(v.hands, h)
	if len(v.hands) > v.limit {
		// First what says nothing: acknowledgements of the middle of a connection.
		v.tidy()
		for len(v.hands) > v.limit/2 {
			v.handsAbove = halve(v.handsAbove)
			v.hands = slices.DeleteFunc(v.hands, func(h hand) bool { return h.key > v.handsAbove })
		}
	}
}

func halve(above uint64) uint64 { return above / 2 }

func handKey(isn uint32, port uint16) uint64 {
	return dissect.Mix64(uint64(isn)<<16|uint64(port)) | 1
}

// tidy keeps the earliest of each kind of packet of a handshake.
func (v *view) tidy() {
	slices.SortFunc(v.hands, func(a, b hand) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.kind, b.kind), cmp.Compare(a.time, b.time))
	})
	v.hands = slices.CompactFunc(v.hands, func(a, b hand) bool { return a.key == b.key && a.kind == b.kind })
}

// settle sorts what was sampled. A packet that came twice counts by its first
// time; two with one print far apart tell nothing.
func (v *view) settle() {
	v.tidy()
	slices.SortFunc(v.seen, func(a, b sighting) int {
		return cmp.Or(cmp.Compare(a.print, b.print), cmp.Compare(a.time, b.time), cmp.Compare(b.ttl, a.ttl))
	})
	out := v.seen[:0]
	for i := 0; i < len(v.seen); {
		s := v.seen[i]
		j := i + 1
		for ; j < len(v.seen) && v.seen[j].print == s.print; j++ {
			s.twice = s.twice || v.seen[j].time-s.time > sameWithin
		}
		out = append(out, s)
		i = j
	}
	v.seen = out
}

// edge is what two taps say of the clock of the second against the first's.
type edge struct {
	pair   Pair
	bounds bounds
	same   [2][]point // packets whose TTL does not tell the order, by direction
	moved  []point    // all common packets
	line   fitted
	ok     bool
	origin int64
	clock  capture.Clock // of B, in the time of A
}

func join(a, b *view, x *edge) {
	x.origin = a.first
	at := func(t int64) float64 { return float64(t-x.origin) / 1e9 }
	limit := min(a.above, b.above)
	for i, j := 0, 0; i < len(a.seen) && j < len(b.seen); {
		s, t := &a.seen[i], &b.seen[j]
		switch {
		case s.print < t.print:
			i++
			continue
		case s.print > t.print:
			j++
			continue
		}
		i, j = i+1, j+1
		if s.print > limit {
			break
		}
		if s.twice || t.twice {
			continue
		}
		x.pair.Both++
		p := point{at(s.time), float64(t.time-s.time) / 1e9}
		x.moved = append(x.moved, p)
		switch {
		case s.ttl > t.ttl: // it came by A first
			x.bounds.upper = append(x.bounds.upper, p)
		case s.ttl < t.ttl:
			x.bounds.lower = append(x.bounds.lower, p)
		case s.toClient:
			x.same[1] = append(x.same[1], p)
		default:
			x.same[0] = append(x.same[0], p)
		}
	}
	limit = min(a.handsAbove, b.handsAbove)
	for i, j := 0, 0; i < len(a.hands) && j < len(b.hands); {
		key := a.hands[i].key
		if key != b.hands[j].key {
			if key < b.hands[j].key {
				i++
			} else {
				j++
			}
			continue
		}
		var ta, tb [3]int64
		for ; i < len(a.hands) && a.hands[i].key == key; i++ {
			ta[a.hands[i].kind] = a.hands[i].time
		}
		for ; j < len(b.hands) && b.hands[j].key == key; j++ {
			tb[b.hands[j].kind] = b.hands[j].time
		}
		if key > limit {
			break
		}
		// Where both taps saw one kind, its print has said more than the order can.
		split := false
		order := func(first, then [3]int64, f, t int, fromA bool) {
			if first[f] == 0 || then[t] == 0 || first[t] != 0 || then[f] != 0 {
				return
			}
			split = true
			if fromA {
				x.bounds.upper = append(x.bounds.upper, point{at(first[f]), float64(then[t]-first[f]) / 1e9})
			} else {
				x.bounds.lower = append(x.bounds.lower, point{at(then[t]), float64(first[f]-then[t]) / 1e9})
			}
		}
		order(ta, tb, 0, 1, true)
		order(tb, ta, 0, 1, false)
		order(ta, tb, 1, 2, true)
		order(tb, ta, 1, 2, false)
		if split {
			x.pair.Handshakes++
		}
	}
}

// solve fits the edge. Where the TTL is the same at both taps the direction of
// a connection still gives the order, one way or the other: the one that
// contradicts less is taken.
func (x *edge) solve(end int64) {
	last := float64(end-x.origin) / 1e9
	try := func(up, low int) (fitted, bool) {
		b := bounds{upper: slices.Concat(x.bounds.upper, x.same[up]), lower: slices.Concat(x.bounds.lower, x.same[low])}
		return b.fit(0, last)
	}
	x.line, x.ok = try(0, 1)
	if len(x.same[0])+len(x.same[1]) > 0 {
		if other, ok := try(1, 0); ok && (other.slack < x.line.slack || other.slack == x.line.slack && other.dropped < x.line.dropped) {
			x.line = other
		}
	}
	if n := len(x.bounds.upper) + len(x.bounds.lower) + len(x.same[0]) + len(x.same[1]); n < leastCommon {
		x.ok = false
	}
	if !x.ok {
		return
	}
	l := &x.line
	offset := int64(math.Round(l.a * 1e9))
	x.clock = capture.Clock{Offset: offset, At: x.origin + offset, Drift: l.b / (1 + l.b) * 1e6, Bound: -1, Source: "estimated"}
	if !math.IsNaN(l.bound) {
		x.clock.Bound = int64(math.Ceil(l.bound*1e9)) + 1
	}
	x.pair.Dropped, x.pair.Slack = int64(l.dropped), int64(math.Round(l.slack*1e9))
	apart := make([]int64, len(x.moved))
	for i, p := range x.moved {
		apart[i] = int64(math.Abs(p.d-l.a-l.b*p.t) * 1e9)
	}
	if len(apart) > 0 { // but for one in a thousand, which may be no pair at all
		slices.Sort(apart)
		x.pair.Apart = apart[len(apart)-1-len(apart)/1000]
	}
}

// inverse is the clock of A in the time of B.
func inverse(c capture.Clock) capture.Clock {
	d := c.Drift * 1e-6
	return capture.Clock{Offset: -c.Offset, At: c.At - c.Offset, Drift: -d / (1 - d) * 1e6, Bound: c.Bound, Source: c.Source}
}

// after is the clock that is c in the time of one that is base itself.
func after(c, base capture.Clock) capture.Clock {
	there := c.At - c.Offset
	d1, d2 := c.Drift*1e-6, base.Drift*1e-6
	out := capture.Clock{At: c.At, Offset: c.At - base.True(there), Drift: (1 - (1-d1)*(1-d2)) * 1e6, Bound: -1, Source: "estimated"}
	if c.Bound >= 0 && base.Bound >= 0 {
		out.Bound = c.Bound + base.Bound
	}
	return out
}

// compare connects the clocks of all taps with that of the first, each over the
// pairs that are known best.
func compare(taps []Tap, views []*view) *Clocks {
	out := &Clocks{Of: map[string]capture.Clock{}}
	edges := map[[2]int]*edge{}
	for i := range taps {
		for j := i + 1; j < len(taps); j++ {
			x := &edge{pair: Pair{A: taps[i].Name, B: taps[j].Name}}
			join(views[i], views[j], x)
			x.solve(views[i].last)
			edges[[2]int{i, j}] = x
			// What either saw while the other captured, too.
			x.pair.SeenA, x.pair.SeenB = views[i].while(views[j], x.clock, min(views[i].above, views[j].above), true), views[j].while(views[i], x.clock, min(views[i].above, views[j].above), false)
			out.Pairs = append(out.Pairs, x.pair)
			out.Apart = max(out.Apart, x.pair.Apart)
		}
	}
	done := make([]bool, len(taps))
	reference := 0
	for i, t := range taps {
		if t.Clock.Source != "" {
			k := t.Clock
			if k.At == 0 {
				k.At = views[i].first
			}
			out.Of[t.Name], done[i] = k, true
		}
	}
	for reference < len(taps) && done[reference] {
		reference++
	}
	if reference < len(taps) {
		out.Of[taps[reference].Name], done[reference] = capture.Clock{Source: "reference"}, true
	}
	for {
		best, from, to := capture.Clock{}, -1, -1
		worth := func(c *capture.Clock) int64 {
			if c.Bound < 0 {
				return math.MaxInt64
			}
			return c.Bound
		}
		for i := range taps {
			for j := range taps {
				if !done[i] || done[j] {
					continue
				}
				x, c := edges[[2]int{min(i, j), max(i, j)}], capture.Clock{}
				if !x.ok {
					continue
				}
				if c = x.clock; i > j {
					c = inverse(x.clock)
				}
				c = after(c, out.Of[taps[i].Name])
				if to < 0 || worth(&c) < worth(&best) {
					best, from, to = c, i, j
				}
			}
		}
		if from < 0 {
			break
		}
		out.Of[taps[to].Name], done[to] = best, true
	}
	for i, t := range taps {
		if !done[i] {
			out.Of[t.Name] = capture.Clock{Source: "assumed", Bound: -1}
		}
	}
	return out
}

// while counts the sampled packets of v in the time in which other captured;
// forward says that v is the one that the clock is compared with.
func (v *view) while(other *view, c capture.Clock, limit uint64, forward bool) (n int64) {
	from, to := other.first, other.last
	if forward {
		from, to = c.True(from), c.True(to)
	} else {
		k := inverse(c)
		from, to = k.True(from), k.True(to)
	}
	for _, s := range v.seen {
		if s.print <= limit && s.time >= from && s.time <= to {
			n++
		}
	}
	return n
}
