package storm

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"squall/dissect"
)

const (
	maxSteps = 16 // gaps k = 1..maxSteps are kept apart
	// subBuckets by octave of a histogram: 1.1 % apart at worst.
	subBuckets = 64
	maxSends   = 16 // transmissions of an attempt that are told apart
	maxTries   = 64 // attempts of an intent that the limit is looked for in
)

// hist is a log-linear histogram of durations; integers, so that merging is
// exact.
type hist struct{ tally }

func bucketOf(ns int64) uint16 {
	v := uint64(max(ns, 1))
	e := bits.Len64(v) - 1
	if e < 6 {
		return uint16(v)
	}
	return uint16((e-5)*subBuckets + int(v>>(e-6)&(subBuckets-1)))
}

// bucketMid is the middle of a bucket, ns.
func bucketMid(b uint16) float64 {
	if b < subBuckets {
		return float64(b)
	}
	e := int(b)/subBuckets + 5
	low := uint64(subBuckets|int(b)%subBuckets) << (e - 6)
	return float64(low) + float64(uint64(1)<<(e-6))/2
}

func (h *hist) add(ns int64) { h.tally.add(int64(bucketOf(ns)), 1) }

// each visits the buckets that hold something, the shortest first.
func (h hist) each(visit func(bucket uint16, n int64)) {
	h.tally.each(func(number, n int64) { visit(uint16(number), n) })
}

// bins lists the buckets that hold something.
func (h hist) bins() (out []Bin) {
	h.each(func(b uint16, n int64) { out = append(out, Bin{bucketLow(b), bucketLow(b + 1), n}) })
	return out
}

func bucketLow(b uint16) int64 {
	if b < subBuckets {
		return int64(b)
	}
	e := int(b)/subBuckets + 5
	return int64(subBuckets|int(b)%subBuckets) << (e - 6)
}

// merge adds o and leaves it as it is.
func (h *hist) merge(o hist) { h.tally.merge(&o.tally) }

func (h hist) total() (n int64) {
	h.each(func(_ uint16, v int64) { n += v })
	return n
}

// quantile is the q-th quantile, ns; 0 of an empty one.
func (h hist) quantile(q float64) (mid float64) {
	want := int64(math.Ceil(q * float64(h.total())))
	found := false
	h.each(func(b uint16, n int64) {
		if want -= n; want <= 0 && !found {
			mid, found = bucketMid(b), true
		}
	})
	return mid
}

// group is the clients of one version at one service: how they retry, who of
// them fell when.
type group struct {
	version    string
	clients    int64
	counts     Counts
	failers    int64
	overlaps   int64
	pure       [maxSteps]hist // from the known failure to the next attempt, by number of the failed one
	whole      [maxSteps]hist // start to start, where the failure's time is not known
	since      [maxSteps]hist // from the failure, by number of failures since the last drop
	dropped    hist           // from a drop
	early      hist           // start to start, of the first earlyTries of an intent,
	later      hist           // and of those after
	ladder     hist           // from one rung of a ladder to the next at a node
	patience   hist           // from the start to the client's giving up
	announced  int64          // gaps after an announced wait,
	obeyed     int64          // and those that kept to it
	announce   hist
	told       [maxSteps]hist // and what these were, from the answer
	nexts      nexts
	goes       [maxTries + 1]int64 // intents that went on after the k-th failure,
	stops      [maxTries + 1]int64 // and that stopped there
	attached   [strata]int32       // clients by the node that first took them,
	vanished   map[vanishing]int32 // and those of them that vanished
	arrived    map[int64]int32     // wishes, by 10 s
	sends      [maxSends + 1]int64 // unanswered attempts by transmissions
	sendSpan   hist                // from the first to the last of them
	troubled   map[int64]int32     // clients that first failed, by 10 s
	sumSquares int64               // of attempts by intent, over intents
	intents    int64
}

// moveWithin is how soon after the end of its session at one node a client must
// come to another to have moved there.
const moveWithin = 30 * second

const otherVersions = "other"

func (s *scene) group(version string) *group {
	g := s.groups[version]
	if g == nil {
		if version != "" && version != otherVersions && dissect.Hash64(3, []byte(version)) > s.keepGroups {
			return s.group(otherVersions)
		}
		g = newGroup(version)
		s.groups[version] = g
		s.foldGroups()
	}
	if s.groups[g.version] == nil {
		return s.groups[otherVersions]
	}
	return s.groups[g.version]
}

func newGroup(version string) *group {
	return &group{version: version, vanished: map[vanishing]int32{}, arrived: map[int64]int32{}, troubled: map[int64]int32{}}
}

// foldGroups joins the versions over the threshold into one, and lowers it
// while there are too many.
func (s *scene) foldGroups() {
	for {
		for v, g := range s.groups {
			if v == "" || v == otherVersions || dissect.Hash64(3, []byte(v)) <= s.keepGroups {
				continue
			}
			if s.groups[otherVersions] == nil {
				s.groups[otherVersions] = newGroup(otherVersions)
			}
			s.groups[otherVersions].merge(g)
			delete(s.groups, v)
		}
		if len(s.groups) <= maxGroups {
			return
		}
		s.keepGroups >>= 1
	}
}

func (g *group) arrive(at int64)  { g.arrived[at/attachStep]++ }
func (g *group) trouble(at int64) { g.troubled[at/attachStep]++ }

func (g *group) merge(o *group) {
	g.clients += o.clients
	g.counts.add(&o.counts)
	g.failers += o.failers
	g.overlaps += o.overlaps
	for k := range g.pure {
		g.pure[k].merge(o.pure[k])
		g.whole[k].merge(o.whole[k])
		g.since[k].merge(o.since[k])
		g.told[k].merge(o.told[k])
	}
	g.dropped.merge(o.dropped)
	g.early.merge(o.early)
	g.later.merge(o.later)
	g.ladder.merge(o.ladder)
	g.patience.merge(o.patience)
	g.announced += o.announced
	g.obeyed += o.obeyed
	g.announce.merge(o.announce)
	g.nexts.merge(&o.nexts)
	for k := range g.goes {
		g.goes[k] += o.goes[k]
		g.stops[k] += o.stops[k]
	}
	for b, n := range o.vanished {
		g.vanished[b] += n
	}
	for i, n := range o.attached {
		g.attached[i] += n
	}
	for b, n := range o.arrived {
		g.arrived[b] += n
	}
	for k, n := range o.sends {
		g.sends[k] += n
	}
	g.sendSpan.merge(o.sendSpan)
	for b, n := range o.troubled {
		g.troubled[b] += n
	}
	g.sumSquares += o.sumSquares
	g.intents += o.intents
}

// copyOf is a group of its own that others can be merged into.
func copyOf(g *group) *group {
	c := newGroup(g.version)
	c.merge(g)
	return c
}

// retry takes the gap before a row into the histograms of its group.
func (d *scenes) retry(t *thread, a *dissect.Attempt, at *place) {
	g := t.g
	g.counts.count(a)
	if a.Answer == dissect.AnswerNone && a.Outcome == dissect.OutcomeTimeout && !a.Late {
		g.sends[min(int(a.Transmissions), maxSends)]++
		if a.Transmissions > 1 {
			g.sendSpan.add(a.LastSeen - a.Start)
		}
	}
	if !a.Relation.Retries() {
		t.streak, t.before, t.asked = 0, dissect.Endpoint{}, 0
		t.inside = t.open && a.Proto == dissect.ProtoTCP && a.Source == t.source && a.Destination == t.node
		p := &t.prev
		// It said goodbye: over UDP who does so means it, over TCP a program that gives
		// up on a silent node closes, too, and nobody answers that.
		left := p.SessionEnded == dissect.SessionByClient && (p.Proto == dissect.ProtoUDP || p.LastHeard >= p.SessionEnd)
		if t.has && p.Destination != a.Destination && (p.Outcome != dissect.OutcomeAccepted ||
			a.Relation == dissect.RelationReattach || p.SessionEnd != 0 && a.Start-p.SessionEnd <= moveWithin && !left) {
			d.move(t, a, at)
		}
		return
	}
	p := &t.prev
	if !t.has || p.IntentID != a.IntentID {
		return
	}
	d.move(t, a, at)
	g.nexts.add(t, a, at)
	if p.Number == 1 && t.inside && a.Source != p.Source {
		// A request in a session that stood has shown that it was lost: the first try to
		// attach comes after it.
		t.asked = 1
		return
	}
	number := max(p.Number-t.asked, 1) // a table may not say which try a row is
	k := min(int(number), maxSteps) - 1
	g.goes[min(int(number), maxTries)]++
	gap := a.Start - p.Start
	if number <= earlyTries {
		g.early.add(gap)
	} else {
		g.later.add(gap)
	}
	failed, known := p.End, false
	switch {
	case p.RetryAfter > 0 && p.Outcome == dissect.OutcomeThrottled:
		g.announced++
		if obeys(p, a) && a.Start-p.End < p.RetryAfter*11/10+2*second {
			g.obeyed++
			g.announce.add(p.RetryAfter)
			if number <= maxSteps {
				g.told[k].add(a.Start - p.End)
			}
			return
		}
		known = p.End < a.Start // its own wait
	case (p.Outcome == dissect.OutcomeTimeout || p.Outcome == dissect.OutcomeStalled) && p.GaveUp > p.Start && p.GaveUp < a.Start:
		g.patience.add(p.GaveUp - p.Start)
		failed, known = p.GaveUp, true
	case p.Outcome == dissect.OutcomeRefused || p.Outcome == dissect.OutcomeDropped || p.Outcome == dissect.OutcomeThrottled || p.Outcome == dissect.OutcomeUnreachable:
		// Who repeats its request after a refusal has not heard it.
		known = p.End < a.Start && (p.Proto != dissect.ProtoUDP || p.LastSeen <= p.End)
	}
	if number <= maxSteps {
		if known {
			g.pure[k].add(a.Start - failed)
		} else {
			g.whole[k].add(gap)
		}
	}
	if p.Outcome == dissect.OutcomeDropped {
		t.streak = 0
		if known {
			g.dropped.add(a.Start - failed)
		}
		return
	}
	if t.streak++; known && t.streak <= maxSteps {
		g.since[t.streak-1].add(a.Start - failed)
	}
}

// obeys reports that the node had told the client when to come again, and that
// it did not come sooner. Such a retry is load that the node has chosen itself:
// it counts in A, but is no sign of a storm.
func obeys(p, a *dissect.Attempt) bool {
	return p.Outcome == dissect.OutcomeThrottled && p.RetryAfter > 0 && a.Start-p.End > p.RetryAfter*9/10
}

// closed takes an intent that is over.
func (d *scenes) closed(i *dissect.Intent) {
	t := d.thread(i.Service)
	if t == nil || i.Relation == dissect.RelationRefresh {
		return
	}
	t.g.intents++
	t.g.sumSquares += int64(i.Attempts) * int64(i.Attempts)
	if i.ClosedBy == dissect.ClosedQuiet && !i.Censored && i.Outcome.Failed() && !t.unreal {
		t.g.stops[min(int(i.Attempts-t.asked), maxTries)]++
	}
}

// fit is a family with its parameters, in ns.
type fit struct {
	family    string
	a, b      float64 // a + b k, a + b k², wait + a b^(k-1)
	wait      float64 // for an answer, before the exponential back-off
	miss      float64 // of the medians, in squares of what they may be off by chance
	cap       float64
	score     float64 // Bayesian information criterion, lower is better
	predicted []float64
}

// families tries every family on the middles m of gaps k = 1.., each known from n
// gaps, with blur the square of what it may be off by chance, relatively. Gaps that
// hold a wait for an answer may be a constant and a back-off. cut is after how many of
// them the cap begins, 0 = not known.
func families(m []float64, n []int64, blur []float64, waiting bool, cut int) fit {
	var total int64
	for _, c := range n {
		total += c
	}
	w := make([]float64, len(m))
	for i := range w {
		w[i] = math.Min(float64(n[i]), float64(total)/4)
	}
	best := fit{score: math.Inf(1)}
	try := func(family string, params int, from func(k int) float64, a, b float64, knee int) {
		var sum, weights float64
		f := fit{family: family, a: a, b: b}
		if knee < len(m) { // the tail is flat
			var s, sw float64
			for k := knee; k < len(m); k++ {
				s += math.Log(m[k]) * w[k]
				sw += w[k]
			}
			f.cap = math.Exp(s / sw)
			if cut == 0 && knee > 0 && f.cap < from(knee)*0.8 || f.cap > from(knee+1)*1.2 {
				return
			}
			params++
		}
		for k := range m {
			v := from(k + 1)
			if k >= knee {
				v = f.cap
			}
			if v <= 0 {
				return
			}
			e := math.Log(m[k] / v)
			sum += e * e / blur[k] * w[k]
			weights += w[k]
			f.predicted = append(f.predicted, v)
		}
		f.miss = sum / weights
		points := float64(len(m))
		f.score = points*math.Log(sum/weights+1) + 3*float64(params)
		if f.score < best.score-1e-9 {
			best = f
		}
	}
	// Fixed first: it wins ties.
	var s, sw float64
	for k := range m {
		s += math.Log(m[k]) * w[k]
		sw += w[k]
	}
	level := math.Exp(s / sw)
	try("fixed", 1, func(int) float64 { return level }, level, 0, len(m))
	constant := best
	for knee := 2; knee <= len(m); knee++ {
		if cut > 0 && knee != cut {
			continue
		}
		if cut == 0 && knee == len(m)-1 && knee > 2 && len(m) > 3 {
			// One point is a poor cap, yet often all there is.
			// Few that got so far waited less than the others, whose wait outlasted the outage.
			if n[knee] < 20 || 10*n[knee] < 7*n[knee-1] {
				continue
			}
		}
		for _, shape := range []struct {
			name string
			x    func(k float64) float64
		}{{"linear", func(k float64) float64 { return k }}, {"quadratic", func(k float64) float64 { return k * k }},
			{"quadratic", func(k float64) float64 { return (k - 1) * (k - 1) }}} { // libp2p counts from its second wait on
			if knee < 3 || knee < 4 && shape.name == "quadratic" { // three points lie on many a curve
				continue
			}
			a, b := leastSquares(m[:knee], w[:knee], shape.x)
			if b > 0 {
				try(shape.name, 2, func(k int) float64 { return a + b*shape.x(float64(k)) }, a, b, knee)
			}
		}
		if knee < 2 {
			continue
		}
		a, b := logSlope(m[:knee], w[:knee])
		if f := math.Exp(b); f >= 1.2 && f <= 4.5 {
			try("exponential", 2, func(k int) float64 { return math.Exp(a + b*float64(k-1)) }, math.Exp(a), f, knee)
		}
		if !waiting || knee < 3 || knee == 3 && knee == len(m) {
			continue
		}
		least := slices.Min(m[:knee])
		attempt := func(part float64) {
			wait, rest := part*least, make([]float64, knee)
			for k := range rest {
				rest[k] = m[k] - wait
			}
			a, b := logSlope(rest, w[:knee])
			before := best.score
			if f := math.Exp(b); f >= 1.2 && f <= 4.5 {
				try("exponential", 3, func(k int) float64 { return wait + math.Exp(a+b*float64(k-1)) }, math.Exp(a), f, knee)
			}
			if best.score < before {
				best.wait = wait
			}
		}
		for part := 0.05; part < 0.99; part += 0.02 {
			attempt(part)
		}
		if near := best.wait / least; near > 0 {
			for part := near - 0.018; part < near+0.02; part += 0.002 {
				attempt(part)
			}
		}
	}
	// What hardly grows, or no more than chance allows, does not back off.
	low, high := math.Inf(1), 0.0
	for k, v := range best.predicted {
		if n[k]*20 >= total {
			low, high = min(low, v), max(high, v)
		}
	}
	grows := 1.06
	if waiting { // of a long wait and a back-off the sum grows little
		grows = 1.03
	}
	if constant.family == "fixed" && high < 1.25*low && (constant.miss <= 4 || high < grows*low) {
		return constant
	}
	return best
}

// leastSquares fits a + b x(k) with relative errors.
func leastSquares(m, w []float64, x func(float64) float64) (a, b float64) {
	var sw, sx, sy, sxx, sxy float64
	for k := range m {
		c := w[k] / (m[k] * m[k])
		v := x(float64(k + 1))
		sw += c
		sx += c * v
		sy += c * m[k]
		sxx += c * v * v
		sxy += c * v * m[k]
	}
	det := sw*sxx - sx*sx
	if det == 0 {
		return 0, 0
	}
	b = (sw*sxy - sx*sy) / det
	return (sy - b*sx) / sw, b
}

func logSlope(m, w []float64) (a, b float64) {
	var sw, sx, sy, sxx, sxy float64
	for k := range m {
		x, y := float64(k), math.Log(m[k])
		sw += w[k]
		sx += w[k] * x
		sy += w[k] * y
		sxx += w[k] * x * x
		sxy += w[k] * x * y
	}
	det := sw*sxx - sx*sx
	if det == 0 {
		return sy / sw, 0
	}
	b = (sw*sxy - sx*sy) / det
	return (sy - b*sx) / sw, b
}

// policy infers how the group retries.
func (g *group) policy(th *Thresholds) Policy {
	p := Policy{Clients: g.clients, Family: "undetermined", Jitter: "undetermined", Order: "undetermined"}
	var pure, whole int64
	for k := range g.pure {
		pure += g.pure[k].total()
		whole += g.whole[k].total()
	}
	p.Gaps = pure + whole + g.obeyed
	p.Sends, p.SendSpan = g.transmissions()
	if g.ladder.total() >= 3 {
		p.Ladder = int64(g.ladder.quantile(0.5))
	}
	p.Limit = g.limit()
	if n := g.patience.total(); n >= 10 {
		p.Timeout = int64(g.patience.quantile(0.5))
		// Nobody who waits so long tries again sooner: it is the end of sessions whose
		// acceptance the tap has missed.
		if whole := g.gapsUnknown(); whole.total() >= 4*n && whole.quantile(0.1) < 0.9*float64(p.Timeout) {
			p.Timeout = 0
		}
	}
	if float64(p.Gaps) < th.GapsFamily {
		g.constant(&p, th)
		p.Waits = waits(g.pure[:], true, nil, 0)
		if pure < whole {
			p.Waits = waits(g.whole[:], false, nil, 0)
		}
		return p
	}
	if g.announced*2 >= p.Gaps && g.obeyed*10 >= g.announced*8 {
		p.Family, p.Base = "server_directed", int64(g.announce.quantile(0.5))
		p.Waits = []Waits{{Fitted: p.Base, Gaps: g.announce.bins()}}
		return p
	}
	steps, known := g.fromFailures(), true
	waiting := false // the gaps hold a wait for an answer of unknown length
	offset := 0.0
	if pure*4 < whole || float64(pure) < th.GapsFamily {
		steps, known = g.whole[:], false
		offset, waiting = float64(p.Timeout), p.Timeout == 0
	} else if p.Timeout == 0 {
		p.Timeout = g.timeout()
	}
	reset := false
	if r, ok := g.backoffReset(); ok {
		steps, known, reset = r, true, true
	}
	if p.Limit > 1 && int(p.Limit) <= len(steps) {
		steps = steps[:p.Limit-1] // what comes after is another wish that came too soon
	}
	used := enough(steps)
	if len(used) == 0 {
		p.Waits = waits(steps, known, nil, 0)
		return p
	}
	f, sp := back(used, offset, waiting)
	var gaps int64
	for _, h := range used {
		gaps += h.total()
	}
	if float64(gaps) >= th.GapsJitter {
		p.Jitter = sp.kind
	}
	if rest := sp.rest + f.wait; waiting && (sp.told || f.wait > 0) && rest > 0 {
		p.Timeout = int64(rest)
	} else if waiting {
		p.Holds = f.family != "exponential" || len(used) < 4
	}
	p.Waits = waits(steps, known, f.predicted, sp.rest)
	beforeCap := sp.beforeCap
	describe(&p, &f, sp)
	if beforeCap {
		p.Smells = append(p.Smells, "jitter_before_cap")
	}
	if reset {
		p.Smells = append(p.Smells, "backoff_reset")
	}
	if (p.Family == "fixed" || p.Family == "immediate") && p.Limit == 0 {
		p.Smells = append(p.Smells, "no_backoff")
	}
	slices.Sort(p.Smells)
	return p
}

// fromFailures are the gaps that begin at a failure whose time is known. Waits that
// a node asked for are among them where most clients did not keep to such a wait:
// those that seem to have done so did it by chance.
func (g *group) fromFailures() []hist {
	if g.announced == 0 || g.obeyed*10 >= g.announced*8 {
		return g.pure[:]
	}
	all := make([]hist, maxSteps)
	for k := range all {
		all[k].merge(g.pure[k])
		all[k].merge(g.told[k])
	}
	return all
}

// timeout is by how much the gaps after failures that nobody saw are longer than
// those after failures that were seen, at the same step; 0 = not known.
func (g *group) timeout() int64 {
	var sum, weights float64
	for k := range g.pure {
		if p, w := g.pure[k].total(), g.whole[k].total(); p >= 10 && w >= 10 {
			n := float64(min(p, w))
			sum += n * (g.whole[k].quantile(0.5) - g.pure[k].quantile(0.5))
			weights += n
		}
	}
	if weights < 30 || sum <= 0 {
		return 0
	}
	return int64(sum / weights)
}

// back is the back-off that the gaps show, and how it is jittered. offset is what is
// known to lie in each gap before it; waiting says that there is a wait of unknown
// length besides.
func back(used []hist, offset float64, waiting bool) (f fit, sp spread) {
	if decorrelated(used) {
		f, rest := decorrelation(used)
		if !waiting {
			rest = min(max(rest, offset), offset+wayMost)
		}
		return f, spread{kind: "decorrelated", middle: 1, rest: rest, told: waiting}
	}
	looks := make([]look, len(used))
	for k, h := range used {
		looks[k] = lookAt(h)
	}
	free, cut := len(used), 0 // steps that show their jitter; where the cap begins, if that is known
	top, beforeCap := heaped(used)
	if beforeCap {
		for free = 1; free < len(used) && top.below(used[free]) > 0.2 && top.look(used[free]).n > 5; free++ {
			looks[free] = top.look(used[free])
		}
		looks[0] = top.look(used[0])
		if cut = free; cut < 2 {
			cut = 0
		}
	}
	low, high := offset, offset+min(wayMost, 0.3*(looks[0].median-offset))
	if waiting {
		low, high = 0, looks[0].low
	}
	switch {
	case waiting && exact(used[:free]), !waiting && unjittered(used[:free], offset):
		sp = spread{kind: "none", middle: 1, rest: offset}
	default:
		sp = spreadOf(looks[:free], low, high)
		if !waiting && !sp.fits {
			// The client waits though it could have known: it did not hear the refusal.
			if other := spreadOf(looks[:free], 0, looks[0].low); other.told {
				sp = other
			}
		}
		if waiting && !sp.told {
			sp = spread{kind: "undetermined", middle: 1}
		}
	}
	sp.beforeCap = beforeCap
	fitted := func(rest float64, waiting bool) fit {
		m, blur, n := make([]float64, len(used)), make([]float64, len(used)), make([]int64, len(used))
		for k, l := range looks {
			x, off := l.middle, 0.22*l.width
			if sp.kind == "none" || sp.kind == "undetermined" {
				x, off = l.median, 0.46*l.width
			}
			m[k], n[k] = max(x-rest, 1e6), used[k].total()
			blur[k] = off*off/(m[k]*m[k]*l.n) + 4e-5
		}
		f := families(m, n, blur, waiting, cut)
		if beforeCap && f.cap == 0 {
			f.cap = max(top.at-rest, 1e6)
		}
		return f
	}
	f = fitted(sp.rest, waiting && !sp.told)
	if first := f.predicted[0]; waiting && sp.told && sp.off > 0.3*first {
		// The rest is not known well enough to say what is left of the first gap. The growth
		// of the gaps may tell it better.
		f = fitted(0, true)
		sp.rest, sp.told = 0, false
	}
	return f, sp
}

// waits are the gaps of each step and what the fit says of them; offset is
// what was taken off the gaps before.
func waits(steps []hist, fromFailure bool, predicted []float64, offset float64) (out []Waits) {
	for k, h := range steps {
		if h.total() == 0 {
			continue
		}
		w := Waits{Step: int32(k + 1), FromFailure: fromFailure, Gaps: h.bins()}
		if k < len(predicted) {
			w.Fitted = int64(predicted[k] + offset)
		}
		out = append(out, w)
	}
	return out
}

// describe turns a fit into the columns of a policy.
func describe(p *Policy, f *fit, sp spread) {
	scale := 1 / sp.middle
	top := 0.0
	for _, v := range f.predicted {
		top = max(top, v)
	}
	if top < 50e6 && sp.kind != "decorrelated" {
		p.Family, p.Base = "immediate", int64(f.predicted[0])
		return
	}
	p.Family = f.family
	capScale, whole := scale, scale
	if sp.beforeCap || p.Holds {
		capScale = 1
	}
	if p.Holds { // what does not jitter is part of it
		whole = 1
	}
	p.Cap = int64(max(f.cap-f.wait, 0) * capScale)
	switch f.family {
	case "fixed":
		p.Base = int64(f.a * whole)
		p.Cap = 0
	case "exponential":
		p.Base, p.Factor = int64(f.a*whole), f.b
	case "linear":
		p.Base, p.Step = int64((f.a+f.b)*whole), int64(f.b*scale)
	case "quadratic":
		p.Base, p.Step = int64(f.a*whole), int64(f.b*scale)
	}
}

// backoffReset: after a drop the gaps fall back to the first one although
// failures of another kind make them grow. It returns the gaps counted from
// the last drop.
func (g *group) backoffReset() ([]hist, bool) {
	if g.dropped.total() < 30 {
		return nil, false
	}
	back := g.dropped.quantile(0.5)
	for k := 2; k < maxSteps; k++ {
		if h := g.since[k]; h.total() >= 10 && h.quantile(0.5) > 1.8*back {
			return g.since[:], true
		}
	}
	return nil, false
}

// enough are the steps that are known well enough.
func enough(steps []hist) (used []hist) {
	var most int64
	for _, h := range steps {
		most = max(most, h.total())
	}
	for _, h := range steps {
		c := h.total()
		if c < 8 || c*200 < most {
			break
		}
		used = append(used, h)
	}
	return used
}

// transmissions of the unanswered attempts: their median, and the median time
// from the first to the last where there were several.
func (g *group) transmissions() (n float64, span int64) {
	var all, sum int64
	for _, c := range g.sends {
		all += c
	}
	for k, c := range g.sends {
		if sum += c; all >= 10 && sum*2 >= all {
			n = float64(k)
			break
		}
	}
	if n > 1 {
		span = int64(g.sendSpan.quantile(0.5))
	}
	return n, span
}

// gaps from the start of an attempt to that of the next one of its intent.
func (g *group) gaps() (all hist) {
	all.merge(g.early)
	all.merge(g.later)
	return all
}

// gapsUnknown are those, start to start, after failures whose time is not known.
func (g *group) gapsUnknown() (all hist) {
	for _, h := range g.whole {
		all.merge(h)
	}
	return all
}

// earlyTries of an intent are those in which a back-off would show.
const earlyTries = 8

// constant recognises few clients that try for long without backing off: the
// waits of their later tries are those of the first ones.
func (g *group) constant(p *Policy, th *Thresholds) {
	all := g.gaps()
	if float64(all.total()) < th.GapsFamily || g.later.total() < 10 {
		return
	}
	mid, first, then := all.quantile(0.5), g.early.quantile(0.5), g.later.quantile(0.5)
	if then > 1.25*first || first > 1.5*then {
		return
	}
	p.Family, p.Base, p.Gaps = "fixed", int64(mid), all.total()
	if p.Limit == 0 {
		p.Smells = append(p.Smells, "no_backoff")
	}
}

// limit is the attempt after which more than half of those that got that far
// stop (Kaplan-Meier hazard); 0 = none.
func (g *group) limit() int32 {
	for k := 1; k < maxTries; k++ {
		if n := g.goes[k] + g.stops[k]; n >= 20 && g.stops[k]*2 > n {
			return int32(k)
		}
	}
	return 0
}

// policies are the rows of a service: of all its clients, and of each version
// where there are several.
func (s *scene) policies(d *scenes, name string, th *Thresholds) (out []Policy) {
	var whole *group
	for _, v := range sortedKeys(s.groups) {
		if whole == nil {
			whole = copyOf(s.groups[v])
			continue
		}
		whole.merge(s.groups[v])
	}
	row := func(g *group, label string) {
		p := g.policy(th)
		if p.Gaps == 0 && p.Limit == 0 {
			return
		}
		p.Group, p.Service = label, name
		p.Order = g.nexts.order()
		if label == "all" {
			p.Synchrony, p.Herd = s.synchrony(d, g, th)
		}
		out = append(out, p)
	}
	if whole == nil {
		return nil
	}
	row(whole, "all")
	if len(s.groups) > 1 {
		for _, v := range sortedKeys(s.groups) {
			if v != "" {
				row(s.groups[v], v)
			}
		}
	}
	return out
}

// synchrony is Rayleigh's R of the retries over the modal gap, the best within
// 5 % of the median gap. It is computed on bins, so gaps under two bins say
// nothing.
func (s *scene) synchrony(d *scenes, g *group, th *Thresholds) (r float64, herd bool) {
	length := float64(int64(1) << d.shift)
	all := g.gaps()
	mid := all.quantile(0.5) / 1e9
	if mid < 2*length || all.total() < 50 {
		return 0, false
	}
	if all.quantile(0.75) > 1.3*all.quantile(0.25) {
		return 0, false // no common gap
	}
	bins := s.line.list()
	var n float64
	for i := range bins {
		n += float64(bins[i].n[fRetries])
	}
	for step := -50; step <= 50; step++ {
		period := mid * (1 + float64(step)/1000)
		var x, y float64
		for i := range bins {
			if c := float64(bins[i].n[fRetries]); c > 0 {
				phase := 2 * math.Pi * (float64(bins[i].at) * length / period)
				x += c * math.Cos(phase)
				y += c * math.Sin(phase)
			}
		}
		r = max(r, math.Hypot(x, y)/n)
	}
	// A bin smears what lies in it.
	u := math.Pi * length / mid
	r = min(r*u/math.Sin(u), 1)
	return r, n >= 50 && r > th.HerdR && n*r*r > th.HerdNR2
}

func byPolicy(a, b Policy) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(b.Clients, a.Clients), cmp.Compare(a.Group, b.Group))
}
