package replay

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"squall/dissect"
	"squall/dissect/pipeline"
)

// tried is what the fit needs of a recorded attempt. Times are ns since the
// beginning of the capture.
type tried struct {
	start, end, answered int64 // answered: the yes, late or not; or the no; 0 = none
	session              int64 // its end, 0 = none seen
	client               uint64
	node, group          int32
	number               int32
	outcome              dissect.Outcome
	answer               dissect.Answer
	ended                dissect.SessionEnd
	relation             dissect.Relation
	late                 bool
	after                int64 // retry-after that was announced
}

// served reports that the node did the work, whether or not it was of use.
func (t *tried) served() bool {
	return t.answered > 0 && (t.outcome == dissect.OutcomeAccepted || t.late)
}

// caseAttempts bounds what a case holds in memory: some 350 MB.
const caseAttempts = 1 << 22

// evidence is one service of a capture, by start.
type evidence struct {
	begin, end int64 // ns since the epoch
	list       []tried
	nodes      int
}

// gather reads the attempts of the plan's nodes.
func gather(a *pipeline.Analysis, p *Plan, service string) (*evidence, error) {
	e := &evidence{nodes: len(p.Nodes)}
	e.begin, e.end = a.Span()
	index := map[string]int32{}
	for i := range p.Nodes {
		index[p.Nodes[i].Address] = int32(i)
	}
	groups := map[string]int32{}
	for i := range p.Groups {
		groups[p.Groups[i].Name] = int32(i)
	}
	for t, err := range a.Attempts() {
		if err != nil {
			return nil, err
		}
		if t.Service != service || t.Relation == dissect.RelationParallel || t.Relation == dissect.RelationMonitor {
			continue
		}
		node, ok := index[t.Destination.String()]
		if !ok {
			continue
		}
		if len(e.list) >= caseAttempts {
			return nil, fmt.Errorf("whatif: more than %d attempts on %s: take a part of the capture with --after and --before, or whole clients of it with squall extract", caseAttempts, service)
		}
		at := func(ns int64) int64 {
			if ns == 0 {
				return 0
			}
			return max(ns-e.begin, 1)
		}
		e.list = append(e.list, tried{start: t.Start - e.begin, end: at(t.End), answered: at(t.AnsweredAt), session: at(t.SessionEnd), client: hash(t.ClientID),
			node: node, group: groups[cmp.Or(t.ClientVersion, "all")], number: t.Number, outcome: t.Outcome, answer: t.Answer, ended: t.SessionEnded, relation: t.Relation, late: t.Late, after: t.RetryAfter})
	}
	return e, nil
}

// spell is a stretch of time in which a node did not serve.
type spell struct {
	from, to int64 // to 0: to the end of what was seen
	closed   bool  // refused everybody; else it was silent
	load     int   // requests in the second before
	short    bool  // it had been up for less than that second
	byLoad   bool
}

// nodeFit is what a node was found to be.
type nodeFit struct {
	capacity  float64 // requests/s, 0 = no limit was seen
	relative  float64 // standard error of capacity, as a share of it
	samples   int     // service times that were seen
	busy      int64   // their sum
	least     float64 // most that it was seen to serve in a second
	spells    []spell
	slow      []slowdown
	queue     int // 0 = never seen full
	overload  Overload
	after     time.Duration
	protect   float64       // requests/s above which it falls, 0 = never seen
	protectLo float64       // it was seen to bear so many
	silent    bool          // falls silently
	recovery  time.Duration // after a fall under load
	fallen    time.Duration // where none came back: the longest that one was seen to be down; recovery is more
	joined    int64         // first sign of it, where it came later than the others; 0 = there from the beginning
	unfit     bool          // neither capacity nor limits could be told
}

// slowdown is a stretch with a part of the capacity.
type slowdown struct {
	from, to int64
	factor   float64
}

// fitted is what the capture shows of its nodes, network and clients.
type fitted struct {
	nodes     []nodeFit
	rtt       time.Duration
	reattach  time.Duration
	keepalive time.Duration
	falls     int // under load
}

const (
	// loadWindow is over which a node's falling is explained.
	loadWindow = int64(time.Second)
	// lateComer: a node whose first sign comes this long after the first of
	// all, and after as much again of the capture as a twentieth, joined.
	lateComer = int64(20 * time.Second)
	// samplesLeast is how many service times make a capacity.
	samplesLeast = 12
	slowBelow    = 0.6
	// splitGain and splitRatio: log-likelihood that a change of capacity must
	// gain, and how far apart the two rates must lie.
	splitGain  = 12
	splitRatio = 0.75
)

// sign is something that tells the state of a node.
type sign struct {
	at   int64
	kind uint8
}

const (
	signUp uint8 = iota
	signClosed
	signSilent
)

// fit reads the model from everything that was known at until (ns since begin);
// patience is how long clients wait for an answer.
func (e *evidence) fit(until int64, patience time.Duration) *fitted {
	f := &fitted{nodes: make([]nodeFit, e.nodes)}
	signs := make([][]sign, e.nodes)
	ended := make([][]int64, e.nodes)
	jobs := make([][]*tried, e.nodes)
	all := make([][]*tried, e.nodes)
	arrivals := make([][]int64, e.nodes)
	first := make([]int64, e.nodes)
	var latencies []int64
	lastOf := map[uint64]*tried{}
	var reattach []int64
	for i := range e.list {
		t := &e.list[i]
		if t.start >= until {
			break
		}
		n := t.node
		if first[n] == 0 {
			first[n] = t.start + 1
		}
		all[n] = append(all[n], t)
		known := t.end <= until && t.outcome != dissect.OutcomeUnknown
		switch {
		case t.answer == dissect.AnswerSynAck:
			signs[n] = append(signs[n], sign{t.start, signUp})
		case t.answer == dissect.AnswerReply && t.answered <= until:
			signs[n] = append(signs[n], sign{max(t.answered, t.start), signUp})
		case known && (t.answer == dissect.AnswerRST || t.answer == dissect.AnswerICMP) && t.outcome == dissect.OutcomeRefused:
			signs[n] = append(signs[n], sign{max(t.answered, t.start), signClosed})
		case known && t.answer == dissect.AnswerNone && t.outcome == dissect.OutcomeTimeout:
			signs[n] = append(signs[n], sign{t.start, signSilent})
		}
		if t.answer == dissect.AnswerSynAck || t.answer == dissect.AnswerReply {
			arrivals[n] = append(arrivals[n], t.start)
		}
		if t.served() && t.answered <= until {
			jobs[n] = append(jobs[n], t)
			if t.outcome == dissect.OutcomeAccepted {
				latencies = append(latencies, t.answered-t.start)
			}
		}
		if t.ended == dissect.SessionByNode && t.session > 0 && t.session <= until {
			ended[n] = append(ended[n], t.session)
		}
		if was := lastOf[t.client]; t.relation == dissect.RelationReattach && was != nil && was.ended == dissect.SessionByNode && was.session > 0 && t.start > was.session {
			reattach = append(reattach, t.start-was.session)
		}
		lastOf[t.client] = t
	}
	slices.Sort(latencies)
	f.rtt = rttDefault
	lag, spread := int64(0), int64(0) // of requests on their way
	if k := len(latencies); k > 0 {
		lag = latencies[k/33]
		spread = min(2*latencies[k/2], 4*lag) // where half of them had to wait, the quick ones tell
		f.rtt = max(time.Duration(lag), rttDefault)
	}
	if len(reattach) >= 10 {
		slices.Sort(reattach)
		f.reattach = time.Duration(max(2*reattach[len(reattach)/2], int64(time.Millisecond)))
	}
	begin := int64(math.MaxInt64)
	for _, at := range first {
		if at > 0 {
			begin = min(begin, at)
		}
	}
	calm := 0 // most that any node bore in a second before the first fall
	for n := range f.nodes {
		x := &f.nodes[n]
		if first[n] > begin+lateComer && first[n]-begin > (until-begin)/20 {
			x.joined = first[n]
		}
		slices.SortStableFunc(signs[n], func(a, b sign) int { return cmp.Compare(a.at, b.at) })
		slices.Sort(ended[n])
		x.spells = spells(signs[n], ended[n])
		for i := range arrivals[n] {
			arrivals[n][i] += lag
		}
		for i := range x.spells {
			s := &x.spells[i]
			since := int64(0)
			if i > 0 {
				since = x.spells[i-1].to
			}
			s.short = since > s.from-loadWindow
			s.load = within(arrivals[n], max(s.from-loadWindow, since), s.from)
		}
	}
	firstFall := until
	for n := range f.nodes {
		if s := f.nodes[n].spells; len(s) > 0 {
			firstFall = min(firstFall, s[0].from)
		}
	}
	bore := make([]int, e.nodes)
	for n := range f.nodes {
		bore[n] = busiest(arrivals[n], f.nodes[n].spells)
		f.nodes[n].least = float64(busiestOf(jobs[n]))
		if f.nodes[n].joined == 0 {
			for i, lo := 0, 0; i < len(arrivals[n]) && arrivals[n][i] < firstFall-loadWindow; i++ {
				for arrivals[n][lo] < arrivals[n][i]-loadWindow {
					lo++
				}
				calm = max(calm, i-lo+1)
			}
		}
	}
	f.limits(bore, calm, until)
	for n := range f.nodes {
		f.nodes[n].serviceTimes(jobs[n], lag, spread)
		f.nodes[n].overflow(all[n], until)
	}
	f.pool()
	f.keepalive = e.notice(f, until, patience)
	return f
}

// steady are the loads of falls after a whole second in service, ascending.
func (f *fitted) steady() (loads []int) {
	for n := range f.nodes {
		for _, s := range f.nodes[n].spells {
			if s.byLoad && !s.short {
				loads = append(loads, s.load)
			}
		}
	}
	slices.Sort(loads)
	return loads
}

// returns is how long nodes are down after a fall in a run. Where none was seen
// to come back it is only known to be longer than fallen: of a time of unknown
// scale, twice that is as likely as not, P(T > t) = fallen / t.
func (x *nodeFit) returns(seed uint64) time.Duration {
	if x.fallen == 0 {
		return x.recovery
	}
	u := float64(mix(seed, 91)>>11)/(1<<53) + 1e-9
	return time.Duration(min(float64(x.fallen)/u, float64(waitMost)))
}

// spells reads the times of a node's not serving from its signs.
func spells(signs []sign, ended []int64) (out []spell) {
	var run spell
	count, closed, lastUp := 0, 0, int64(0)
	finish := func(to int64) {
		run.closed = closed*2 > count
		if count >= 3 && (run.closed || to-run.from >= int64(time.Second)) || count >= 1 && run.closed && to-run.from >= int64(time.Second) {
			if run.closed { // the sessions that it ended tell the moment
				for i, _ := slices.BinarySearch(ended, lastUp); i+2 < len(ended) && ended[i] < run.from; i++ {
					if ended[i+2]-ended[i] < int64(time.Second) {
						run.from = ended[i]
						break
					}
				}
			}
			if to == math.MaxInt64 {
				run.to = 0
			}
			out = append(out, run)
		}
		count, closed = 0, 0
	}
	for _, s := range signs {
		if s.kind == signUp {
			if count > 0 {
				run.to = s.at
				finish(s.at)
			}
			lastUp = s.at
			continue
		}
		if count == 0 {
			run = spell{from: s.at}
		}
		count++
		if s.kind == signClosed {
			closed++
		}
	}
	if count > 0 {
		finish(math.MaxInt64)
	}
	return out
}

// within counts the times in (from, to].
func within(sorted []int64, from, to int64) int {
	i, _ := slices.BinarySearch(sorted, from+1)
	j, _ := slices.BinarySearch(sorted, to+1)
	return max(j-i, 0)
}

// busiest is the most arrivals in a second that did not end in a fall.
func busiest(sorted []int64, falls []spell) (most int) {
	lo, s := 0, 0
	for i, at := range sorted {
		for sorted[lo] < at-loadWindow {
			lo++
		}
		for s < len(falls) && falls[s].from < at {
			s++
		}
		if s < len(falls) && falls[s].from-at < loadWindow || s > 0 && (falls[s-1].to == 0 || at < falls[s-1].to) {
			continue
		}
		most = max(most, i-lo+1)
	}
	return most
}

func busiestOf(jobs []*tried) (most int) {
	per := map[int64]int{}
	for _, t := range jobs {
		per[t.answered/1e9]++
		most = max(most, per[t.answered/1e9])
	}
	return most
}

// limits tells the falls under load from those that something else caused, and
// finds the load that a node bears.
func (f *fitted) limits(bore []int, calm int, until int64) {
	var loads []int
	var back []int64
	silent, longest := 0, int64(0)
	for n := range f.nodes {
		for i := range f.nodes[n].spells {
			s := &f.nodes[n].spells[i]
			if s.byLoad = s.load > calm && s.load > 2; !s.byLoad {
				continue
			}
			f.falls++
			loads = append(loads, s.load)
			if !s.closed {
				silent++
			}
			if s.to > 0 {
				back = append(back, s.to-s.from)
			} else {
				longest = max(longest, until-s.from)
			}
		}
	}
	if len(loads) == 0 {
		return
	}
	quietly := 2*silent > len(loads)
	slices.Sort(loads)
	slices.Sort(back)
	// A fall that healed after the same time as those under load is one of them,
	// though a moment's arrivals were miscounted; so is one that is younger.
	for n := range f.nodes {
		for i := range f.nodes[n].spells {
			s := &f.nodes[n].spells[i]
			if s.byLoad || len(back) == 0 || s.load == 0 || s.closed == quietly {
				continue
			}
			usual := back[len(back)/2]
			if s.to > 0 && s.to-s.from > usual*9/10 && s.to-s.from < usual*11/10 || s.to == 0 && until-s.from < usual*11/10 && 2*s.load > loads[len(loads)/2] {
				s.byLoad = true
				f.falls++
			}
		}
	}
	recovery := waitMost
	if len(back) > 0 {
		recovery, longest = time.Duration(back[len(back)/2]), 0
	}
	// Each fall tells the limit but for what the moment's count is off: the
	// median, and two standard errors of it. A node that falls as soon as it is
	// back does so in a crowd, of which nobody knows who was in time.
	if steady := f.steady(); len(steady) >= 3 {
		loads = steady
	}
	k := len(loads)
	off := max(2*1.253*float64(loads[k*3/4]-loads[k/4])/1.35/math.Sqrt(float64(k)), 0.5) + 0.25
	hi := float64(loads[k/2]) - 0.5 + off // nobody knows whether the last straw was counted
	lo := min(max(float64(calm), hi-2*off), hi)
	for n := range f.nodes {
		x := &f.nodes[n]
		fell := slices.ContainsFunc(x.spells, func(s spell) bool { return s.byLoad })
		if !fell && (x.joined != 0 && len(x.spells) == 0 || float64(bore[n]) > hi) {
			continue // it bore more: another kind of node
		}
		x.protect, x.protectLo, x.recovery, x.fallen, x.silent = hi, lo, recovery, time.Duration(longest), quietly
	}
}

// serviceTimes finds the capacity of a node. A request that had to wait was
// served from the end of the one before it to its own answer (Lindley): that
// difference is a service time, whatever the network adds on the way.
func (x *nodeFit) serviceTimes(jobs []*tried, lag, spread int64) {
	slices.SortStableFunc(jobs, func(a, b *tried) int { return cmp.Compare(a.answered, b.answered) })
	type sample struct{ at, takes int64 }
	var list []sample
	for i := 1; i < len(jobs); i++ {
		if takes := jobs[i].answered - jobs[i-1].answered; jobs[i].start+spread < jobs[i-1].answered && takes < int64(30*time.Second) {
			list = append(list, sample{jobs[i].answered, takes})
		}
	}
	x.samples = len(list)
	for _, s := range list {
		x.busy += s.takes
	}
	if len(list) < samplesLeast {
		return
	}
	sums := make([]int64, len(list)+1)
	for i, w := range list {
		sums[i+1] = sums[i] + max(w.takes, 1)
	}
	var parts []int // ends of stretches of one capacity
	x.split(sums, 0, len(list), func(end int) { parts = append(parts, end) })
	rate := func(i, j int) float64 { return float64(j-i) * 1e9 / float64(sums[j]-sums[i]) }
	top, from := 0.0, 0
	for _, end := range parts {
		top = max(top, rate(from, end))
		from = end
	}
	n, sum := 0, int64(0)
	from = 0
	for _, end := range parts {
		if r := rate(from, end); r < slowBelow*top {
			s := slowdown{from: list[from].at, to: list[end-1].at, factor: r}
			if end == len(list) {
				s.to = 0
			}
			x.slow = append(x.slow, s)
		} else {
			n, sum = n+end-from, sum+sums[end]-sums[from]
		}
		from = end
	}
	x.samples, x.busy = n, sum
	x.capacity = float64(n) * 1e9 / float64(sum)
	x.relative = 1 / math.Sqrt(float64(n))
	for i := range x.slow {
		x.slow[i].factor /= x.capacity
	}
}

// split finds where the capacity changed, by the likelihood of exponential
// service times: a stretch is halved where two rates explain it better by far.
func (x *nodeFit) split(sums []int64, i, j int, end func(int)) {
	likely := func(i, j int) float64 {
		return float64(j-i) * math.Log(float64(j-i)/float64(sums[j]-sums[i]))
	}
	best, at, whole := 0.0, 0, likely(i, j)
	for k := i + samplesLeast; k <= j-samplesLeast; k++ {
		if gain := likely(i, k) + likely(k, j) - whole; gain > best {
			best, at = gain, k
		}
	}
	if at > 0 && best > splitGain {
		a := float64(at-i) / float64(sums[at]-sums[i])
		b := float64(j-at) / float64(sums[j]-sums[at])
		if min(a, b) < splitRatio*max(a, b) {
			x.split(sums, i, at, end)
			x.split(sums, at, j, end)
			return
		}
	}
	end(j)
}

// overflow finds what a node does with requests that it cannot keep, and how
// many it keeps.
func (x *nodeFit) overflow(list []*tried, until int64) {
	var longest []int64
	var turned [numOverloads]int
	var after []int64
	all := 0
	for _, t := range list {
		if t.end > until || x.down(t.start) {
			continue
		}
		switch {
		case t.served():
			longest = append(longest, t.answered-t.start)
		case t.outcome == dissect.OutcomeThrottled:
			turned[Throttle]++
			if t.after > 0 {
				after = append(after, t.after)
			}
		case t.outcome == dissect.OutcomeDropped:
			turned[Reset]++
		case t.outcome == dissect.OutcomeRefused:
			turned[Refuse]++
		case t.outcome == dissect.OutcomeStalled || t.outcome == dissect.OutcomeTimeout:
			if t.start+int64(30*time.Second) < until { // a late answer would have come
				turned[Drop]++
			}
		default:
			continue
		}
		all++
	}
	most := Drop
	for o, k := range turned {
		if k > turned[most] {
			most = Overload(o)
		}
	}
	if turned[most]*20 < all || turned[most] < samplesLeast || x.capacity == 0 || len(longest) < samplesLeast {
		return
	}
	slices.Sort(longest)
	slices.Sort(after)
	x.overload = most
	if len(after) > 0 {
		x.after = time.Duration(after[len(after)/2])
	}
	factor := 1.0
	for _, s := range x.slow { // the long queue may have been that of a slow node
		factor = min(factor, s.factor)
	}
	if most == Drop {
		factor = 1
	}
	x.queue = max(int(float64(longest[len(longest)*98/100])/1e9*x.capacity*factor), 1)
}

func (x *nodeFit) down(at int64) bool {
	for _, s := range x.spells {
		if at >= s.from-int64(time.Second) && (s.to == 0 || at < s.to) {
			return true
		}
	}
	return false
}

// pool lets nodes of which little was seen share what was seen of the others.
// Nodes that joined later are a kind of their own.
func (f *fitted) pool() {
	for _, late := range []bool{false, true} {
		n, sum := 0, int64(0)
		for i := range f.nodes {
			if x := &f.nodes[i]; (x.joined != 0) == late {
				n, sum = n+x.samples, sum+x.busy
			}
		}
		for i := range f.nodes {
			x := &f.nodes[i]
			if (x.joined != 0) != late {
				continue
			}
			// What differs by chance alone is taken for the same.
			all := float64(n) * 1e9 / float64(max(sum, 1))
			if n >= samplesLeast && (x.capacity == 0 || len(x.slow) == 0 && math.Abs(x.capacity-all) < 3*x.relative*x.capacity) {
				x.capacity, x.relative = float64(n)*1e9/float64(sum), 1/math.Sqrt(float64(n))
			}
			x.unfit = x.capacity == 0 && x.protect == 0
		}
	}
}

// notice is how often sessions show life, from how long clients took to find a
// silent node dead; 0 = not seen. Where the first of them found out within
// their patience of the first attempt in vain, the node had been silent for
// longer: who waits for a sign of life waits that long.
func (e *evidence) notice(f *fitted, until int64, patience time.Duration) time.Duration {
	lost := make([][][]int64, len(f.nodes)) // ends of sessions that found a node dead, by its spells
	for n := range f.nodes {
		lost[n] = make([][]int64, len(f.nodes[n].spells))
	}
	for i := range e.list {
		t := &e.list[i]
		if t.start >= until {
			break
		}
		if t.outcome != dissect.OutcomeAccepted || t.session == 0 || t.session > until || t.ended == dissect.SessionByNode {
			continue
		}
		for k, s := range f.nodes[t.node].spells {
			if !s.closed && t.session > s.from && (s.to == 0 || t.session < s.to) && t.start < s.from {
				lost[t.node][k] = append(lost[t.node][k], t.session)
			}
		}
	}
	var waits []int64
	for n := range f.nodes {
		for k := range f.nodes[n].spells {
			ends := lost[n][k]
			if len(ends) == 0 {
				continue
			}
			s := &f.nodes[n].spells[k]
			if first := slices.Min(ends); len(ends) >= 3 {
				s.from = min(s.from, max(first-int64(patience), 1))
			}
			for _, at := range ends {
				waits = append(waits, max(at-s.from-int64(patience), 0))
			}
		}
	}
	if len(waits) < samplesLeast {
		return 0
	}
	slices.Sort(waits)
	return max(time.Duration(waits[len(waits)*9/10]), time.Millisecond)
}

// limits is after how many attempts each group gives up, as far as it was seen:
// the first k after which more than half of those that got so far stayed quiet
// for four times the longest usual gap (the hazard of storms.md section 3.3);
// 0 = they were not seen to give up.
func (e *evidence) limits(groups int, until int64) []int {
	type chance struct{ on, off int }
	counts := make([]map[int32]chance, groups)
	gaps := make([][]int64, groups)
	for g := range counts {
		counts[g] = map[int32]chance{}
	}
	last := map[uint64]*tried{}
	for i := range e.list {
		t := &e.list[i]
		if t.start >= until {
			break
		}
		if was := last[t.client]; was != nil && t.number == was.number+1 {
			gaps[t.group] = append(gaps[t.group], t.start-was.start)
		}
		last[t.client] = t
	}
	quiet := make([]int64, groups)
	for g := range gaps {
		if slices.Sort(gaps[g]); len(gaps[g]) > 0 {
			quiet[g] = max(4*gaps[g][len(gaps[g])*19/20], int64(timeoutDefault))
		}
	}
	clear(last)
	decide := func(t *tried, next int64) {
		if !t.outcome.Failed() || t.end > until {
			return
		}
		c := counts[t.group][t.number]
		switch {
		case next-t.start <= quiet[t.group]:
			c.on++
		case min(next, until)-t.start > quiet[t.group]:
			c.off++
		}
		counts[t.group][t.number] = c
	}
	for i := range e.list {
		t := &e.list[i]
		if t.start >= until {
			break
		}
		if was := last[t.client]; was != nil {
			decide(was, t.start)
		}
		last[t.client] = t
	}
	for _, t := range last {
		decide(t, math.MaxInt64)
	}
	limits := make([]int, groups)
	for g := range limits {
		for k := int32(1); k < 1000; k++ {
			c, ok := counts[g][k]
			if !ok {
				break
			}
			if c.off >= fateFloor && c.off > c.on {
				limits[g] = int(k)
				break
			}
		}
	}
	return limits
}
