package storm

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"squall/dissect"
)

// recent remembers what was found for nodes and pairs of nodes: a client of a
// storm goes round the same few, and hashing their keys for a map costs more
// than all the counting. Who falls on the same place takes it over.
type recent struct {
	places [recentPlaces]place
	made   uint64 // places so far
	edges  [recentEdges]struct {
		from, to uint64 // numbers of places
		flow     *flow
	}
	// seen are the destinations of the client in hand, at most maxScanned.
	seen [2 * maxScanned]struct {
		at     dissect.Endpoint
		client int64
	}
}

const (
	recentPlaces = 1 << 8
	recentEdges  = 1 << 10
)

// place is a node, as State and as scenes know it.
type place struct {
	key    nodeKey
	number uint64 // of no other place, and of none that was taken over
	node   *node
	pulse  *pulse
	class  uint8 // its stratum + 1, 0 = not asked for yet
	client int64 // number of the last one of whose destinations this is known to be
}

func (p *place) stratum() uint8 {
	if p.class == 0 {
		p.class = stratumOf(p.key) + 1
	}
	return p.class - 1
}

// quick is a hash for recent, where nothing depends on how it spreads.
func (k *nodeKey) quick() uint64 {
	a := &k.at.Addr
	h := binary.LittleEndian.Uint64(a[:8]) ^ binary.LittleEndian.Uint64(a[8:])*0x9e3779b97f4a7c15 ^ uint64(k.at.Port)<<8 ^ uint64(k.proto)
	return dissect.Mix64(h)
}

// place gives the one of an attempt's node; what of it is nil is not known yet.
func (r *recent) place(a *dissect.Attempt) *place {
	k := nodeKey{a.Service, a.Destination, a.Proto}
	p := &r.places[k.quick()%recentPlaces]
	if p.key != k {
		r.made++
		*p = place{key: k, number: r.made}
	}
	return p
}

// saw notes a destination of a client, unless it is full, and says whether it
// was known.
func (r *recent) saw(at dissect.Endpoint, client int64, full bool) bool {
	for i := (&nodeKey{at: at}).quick(); ; i++ {
		s := &r.seen[i%uint64(len(r.seen))]
		if s.client == client && s.at == at {
			return true
		}
		if s.client != client {
			if !full {
				s.at, s.client = at, client
			}
			return false
		}
	}
}

// touch has all the memory fetched that an attempt is about to change: in a storm
// it lies far apart, and each piece would be waited for by itself.
func (d *scenes) touch(t *thread, a *dissect.Attempt, at *place) {
	if n := at.node; n != nil {
		d.touched ^= n.line.touch(a.Start)
	}
	if f := d.recent.edges[recentEdge(t.prevAt, at.number)].flow; f != nil {
		d.touched ^= f.by.touch(a.Start / moveStep >> d.moveShift)
	}
	if p := at.pulse; p != nil {
		b := d.bin(a.Start)
		d.touched ^= p.line.touch(b)
		if a.Outcome == dissect.OutcomeAccepted {
			d.touched ^= p.good.touch(b)
		} else {
			d.touched ^= p.bad.touch(b)
		}
	}
}

// recentEdge is where a pair of places is remembered.
func recentEdge(from, to uint64) uint64 {
	return (from*0x9e3779b97f4a7c15 + to*0xc2b2ae3d27d4eb4f) >> 54
}

// pulse gives the one of a node, nil where its rank lies over the threshold.
func (d *scenes) pulse(s *scene, at *place) *pulse {
	if p := at.pulse; p != nil && p.rank <= d.keep.pulses {
		return p
	}
	k := at.key
	p := s.pulses[k]
	if p == nil {
		attempts, _ := d.cfg.known(&k)
		r := k.rank(attempts)
		if r > d.keep.pulses {
			return nil
		}
		p = &pulse{rank: r, line: cells{fields: numNodeFields}}
		s.pulses[k] = p
		d.pulses++
	}
	at.pulse = p
	return p
}

// spellGap is how long a client must have been content with a node before
// another bad sign from it counts as news.
const spellGap = 60 * second

// life notes what an attempt shows of its node, each sign at the time at which
// the wire carried it.
func (d *scenes) life(t *thread, a *dissect.Attempt, at *place) {
	p := d.pulse(t.s, at)
	if p == nil {
		return
	}
	if p.hand != d.number {
		p.hand, p.lastBad = d.number, 0
		p.clients++
	}
	bad := func(f field, at int64) {
		d.sheets += p.line.add(d.bin(at), f, 1)
		p.bad.set(d.bin(at), a, at)
		if p.lastBad == 0 || at-p.lastBad > spellGap {
			d.sheets += p.line.add(d.bin(at), nFirstBad, 1)
		}
		p.lastBad = at
	}
	good := func(f field, at int64) {
		d.sheets += p.line.add(d.bin(at), f, 1)
		p.good.set(d.bin(at), a, at)
	}
	if a.Relation.Counted() {
		d.sheets += p.line.add(d.bin(a.Start), nTried, 1)
	}
	if a.Outcome != dissect.OutcomeAccepted {
		d.sheets += p.line.add(d.bin(a.Start), nUnserved, int32(min(a.SourceBytes, 1<<20)))
	} else if a.LostBytes > 0 {
		d.sheets += p.line.add(d.bin(a.LastSeen), nUnserved, int32(min(a.LostBytes, 1<<20)))
	}
	if a.HeardAgain != 0 {
		good(nAlive, a.HeardAgain)
	}
	switch a.Outcome {
	case dissect.OutcomeAccepted:
		at := a.End
		if a.AnsweredAt != 0 {
			at = a.AnsweredAt
		}
		good(nAccepted, at)
		p.lastBad = 0
		switch a.SessionEnded {
		case dissect.SessionByNode:
			bad(nClosed, a.SessionEnd)
		case dissect.SessionUnreachable:
			bad(nRefused, a.SessionEnd)
		default:
			if a.LastHeard != 0 && (a.SessionEnd == 0 || a.LastHeard-a.SessionEnd < leastStay) {
				d.sheets += p.line.add(d.bin(a.LastHeard), nHeard, 1)
			}
			if a.SessionEnded == dissect.SessionByClient && unheard(a) {
				bad(nSilent, a.SessionEnd)
			}
		}
	case dissect.OutcomeThrottled:
		good(nAlive, a.End)
		d.sheets += p.line.add(d.bin(a.Start), nStalled, 1)
	case dissect.OutcomeRefused, dissect.OutcomeUnreachable:
		if a.Evidence == dissect.EvidenceApp {
			good(nAlive, a.End)
			break
		}
		bad(nRefused, a.End)
	case dissect.OutcomeDropped:
		good(nAlive, a.Start)
		d.sheets += p.line.add(d.bin(a.Start), nDropped, 1)
	case dissect.OutcomeStalled, dissect.OutcomeTimeout:
		at := a.Start
		switch {
		case a.Late && a.AnsweredAt != 0:
			at = a.AnsweredAt
		case a.Answer == dissect.AnswerSynAck || a.Answer == dissect.AnswerReply: // its kernel at least
		default:
			bad(nSilent, at)
			return
		}
		good(nAlive, at)
		// The client dropped a twin that lost, and nobody waited for a forged one.
		if a.Relation != dissect.RelationParallel && d.real(a) {
			d.sheets += p.line.add(d.bin(a.Start), nStalled, 1)
		}
	}
}

// unheard reports a goodbye over TCP that the node's kernel did not even acknowledge:
// it was dead. A client that resets waits for no answer.
func unheard(a *dissect.Attempt) bool {
	return a.Proto == dissect.ProtoTCP && a.LastHeard < a.SessionEnd && a.SessionEnd-a.End > leastStay && strings.IndexByte(a.History, 'F') >= 0
}

// moveStep is how finely moves between nodes are timed: a cascade may take
// seconds.
const moveStep = second / 10

// move notes that the client went from the node of its last row to another.
func (d *scenes) move(t *thread, a *dissect.Attempt, at *place) {
	known := &d.recent.edges[recentEdge(t.prevAt, at.number)]
	if known.from != t.prevAt || known.to != at.number || known.flow.rank > d.keep.edges {
		e := edge{nodeKey{a.Service, t.prev.Destination, t.prev.Proto}, at.key}
		f := t.s.edges[e]
		if f == nil {
			from, _ := d.cfg.known(&e.from)
			to, _ := d.cfg.known(&e.to)
			r := (e.from.hash() ^ e.to.hash()*3) / uint64(max(min(from, to), 1))
			if r > d.keep.edges {
				return
			}
			f = &flow{first: a.Start, last: a.Start, rank: r}
			t.s.edges[e] = f
			d.edges++
		}
		known.from, known.to, known.flow = t.prevAt, at.number, f
	}
	f := known.flow
	f.n++
	f.first, f.last = min(f.first, a.Start), max(f.last, a.Start)
	if t.prev.Destination != a.Destination || t.prev.Proto != a.Proto {
		if f.by.add(a.Start/moveStep>>d.moveShift, 1) {
			d.moves++
		}
	}
}

// livedOn sessions that a node served after its seeming death show that it was
// alive, and only let nobody in.
const livedOn = 3

// heard counts the sessions that the node served to their end after a time and
// before another, 0 = the capture's end.
func (p *pulse) heard(d *scenes, bins []bin, from, to int64) (n int64) {
	for i := range bins {
		if at := bins[i].at; at > d.bin(from) && (to == 0 || at < d.bin(to)) {
			n += int64(bins[i].n[nHeard])
		}
	}
	return n
}

// periods are the times in which a node was down, closed itself or answered
// too late. shut says that it took nobody new for a while, silently, though it
// was alive.
func (p *pulse) periods(d *scenes, th *Thresholds, q *Quality) (out []Period, shut bool) {
	bins := p.line.list()
	length := second << d.shift
	type run struct {
		first                          mark
		hits, news, closes, firstClose int64
		closeBin                       int64
		confirmed, refused             bool
		unknown                        bool // the node had given no sign of life before
	}
	var open *run
	answered := false
	crowd := 0.0 // bad signs a second in the last period
	finish := func(by mark) {
		if open == nil {
			return
		}
		r, end := open, by.first
		open = nil
		enough := r.news >= 2 || r.hits >= 2 && p.clients < 3 || r.closes >= 3 && r.news >= 2
		// To those whom a node turned away until a moment ago, that it does again is no news.
		rate := float64(r.hits) / (float64(max(cmp.Or(end, q.End)-r.first.first, second)) / 1e9)
		if n := len(out); n > 0 && r.first.first-out[n-1].End <= spellGap {
			enough = enough || rate >= crowd/4
		}
		if r.unknown { // dead as long as anybody looked; that it lives at all, its return shows
			enough = r.news >= 3 && end != 0
		}
		if !enough || !r.confirmed || cmp.Or(end, q.End)-r.first.first < int64(th.DownAfter*1e9) {
			return
		}
		kind := Down
		// One that comes up for a moment and turns clients away again, aloud, has
		// hardly a session to close.
		again := len(out) > 0 && out[len(out)-1].Kind == SelfProtecting && r.first.first-out[len(out)-1].End <= 2*second
		if r.closes >= 3 || r.firstClose > 0 && r.refused || again && r.refused {
			kind = SelfProtecting
		}
		if p.heard(d, bins, r.first.first+2*second, end) >= livedOn {
			if !r.refused {
				shut = true
				return
			}
			kind = SelfProtecting
		}
		at, silent := r.first.first, !r.refused && r.firstClose == 0
		alive, every := p.lastGood(d, bins, at)
		died := at
		if silent && alive != 0 {
			died = max(min(alive+every, (alive+at)/2), at-before)
		}
		out = append(out, Period{Kind: kind, Start: at, End: end, Suspected: at, LastAlive: alive, File: r.first.file, Frame: r.first.frame, EndFile: by.file, EndFrame: by.frame,
			silent: silent, died: died})
		crowd = rate
	}
	badAt := func(b *bin, k mark) {
		closes, hard := int64(b.n[nClosed]), int64(b.n[nRefused]+b.n[nSilent])
		if open != nil && !open.confirmed && open.closes < 3 && b.at-open.closeBin > d.length(30) {
			open = nil // stray closes are no sign of death
		}
		if open == nil {
			open = &run{first: k, unknown: !answered}
		}
		if b.at*length-open.first.first < 2*second {
			open.firstClose += closes
		}
		open.refused = open.refused || b.n[nRefused] > 0
		open.hits += closes + hard
		open.news += int64(b.n[nFirstBad])
		if closes > 0 {
			if b.at-open.closeBin > d.length(2) && !open.confirmed {
				open.closes = 0
			}
			open.closes += closes
			open.closeBin = b.at
		}
		// Sessions from before a silent death end when their clients speak again: the node
		// has forgotten them, and is none the worse.
		forgot := len(out) > 0 && out[len(out)-1].silent && open.first.first-out[len(out)-1].End <= before
		open.confirmed = open.confirmed || hard > 0 || open.closes >= 3 && !forgot
		if hard > 0 {
			open.closeBin = b.at
		}
	}
	for i := range bins {
		b := &bins[i]
		g, k := p.good.get(b.at), p.bad.get(b.at)
		isGood, isBad := g.is, k.is
		switch {
		case isGood && isBad && g.last < k.first:
			finish(g)
			answered = true
			badAt(b, k)
		case isGood && isBad && k.last < g.first:
			badAt(b, k)
			finish(g)
			answered = true
		case isGood:
			if open == nil || !isBad || b.n[nClosed] < 3 {
				finish(g)
			}
			answered = true
			if isBad && b.n[nClosed] >= 3 {
				badAt(b, mark{max(k.first, g.last), k.last, k.id, k.frame, k.file, true})
			}
		case isBad:
			badAt(b, k)
		}
	}
	finish(mark{})
	least := int64(th.DownAfter * 1e9)
	for _, o := range p.overloads(bins, out, length, least, q.End) {
		for _, f := range out {
			if f.Kind != Overloaded && f.Start > o.Start && (o.End == 0 || f.Start < o.End) {
				o.End = f.Start
			}
		}
		if o.End == 0 || o.End-o.Start >= least { // less is part of the fall next to it
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b Period) int { return int(min(max(a.Start-b.Start, -1), 1)) })
	return out, shut
}

// lastGood is the last sign of life before a time, and how often there were signs in
// the minute up to it. Of the last words in sessions the second is known.
func (p *pulse) lastGood(d *scenes, bins []bin, t int64) (last, every int64) {
	for _, b := range p.good.numbers() {
		k := p.good.get(b)
		switch {
		case b > d.bin(t) || k.first > t:
		case k.last <= t:
			last = max(last, k.last)
		default:
			last = max(last, k.first)
		}
	}
	i, _ := slices.BinarySearchFunc(bins, d.bin(t)+1, func(b bin, at int64) int { return cmp.Compare(b.at, at) })
	for i--; i >= 0 && bins[i].at > d.bin(last); i-- {
		if bins[i].n[nHeard] > 0 {
			last = bins[i].at * (second << d.shift)
		}
	}
	signs := int64(0)
	for ; i >= 0 && bins[i].at >= d.bin(last-before); i-- {
		if b := &bins[i]; b.at <= d.bin(last) {
			signs += int64(b.n[nAccepted] + b.n[nAlive] + b.n[nHeard])
		}
	}
	return last, before / max(signs, 1)
}

// overloads are the stretches in which the node answers, but too late or with
// no, to at least half of those whom it answers at all. That it is so for less
// time than lasting is chance: a handful who come together make a small queue.
func (p *pulse) overloads(bins []bin, fallen []Period, length, lasting, end int64) (out []Period) {
	const window, least = 10, 10
	var bads, all int64
	from := 0
	var open *Period
	var last int64         // begin of the last second with one of them
	var since, until int64 // in the open stretch, half of them were
	settle := func() {
		if open != nil && until-since < lasting {
			out = out[:len(out)-1]
		}
		open = nil
	}
	for i := range bins {
		b := &bins[i]
		for ; bins[from].at <= b.at-window; from++ {
			x := &bins[from].n
			bad := int64(x[nStalled] + x[nDropped])
			bads, all = bads-bad, all-bad-int64(x[nAccepted])
		}
		bad := int64(b.n[nStalled] + b.n[nDropped])
		bads, all = bads+bad, all+bad+int64(b.n[nAccepted])
		at := b.at * length
		if bad > 0 {
			last = at
		}
		over := all >= least && bads*2 >= all
		for _, f := range fallen {
			over = over && (at < f.Start || f.End != 0 && at >= f.End)
		}
		switch {
		case over && open == nil:
			start := at
			for j := i; j >= from; j-- {
				if bins[j].n[nStalled]+bins[j].n[nDropped] > 0 {
					start = bins[j].at * length
				}
			}
			out = append(out, Period{Kind: Overloaded, Start: start, End: last + length, Suspected: start})
			open, since, until = &out[len(out)-1], at, at+length
		case over:
			open.End, until = last+length, at+length
		case open != nil && at-until > window*length:
			settle()
		}
	}
	if n := len(bins); open != nil && until == (bins[n-1].at+1)*length && end-until <= window*length {
		open.End = 0
	}
	settle()
	return out
}
