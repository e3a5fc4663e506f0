package replay

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

const (
	// compareWindow is the grain of the curves, compareBand how far the time
	// warp may reach, compareGaps how many gaps of an intent are told apart
	// (the last takes all later ones), compareGapsLeast how many it takes.
	compareWindow    = 10 * time.Second
	compareBand      = 3
	compareGaps      = 12
	compareGapsLeast = 30
	// Gaps that are no further apart than this are the same: a test bench has
	// other round-trip times than the network that was recorded, and clients
	// without jitter would differ by them alone.
	gapShare = 0.05
	gapShift = 20 * time.Millisecond
	// peakNear: the peak is reached in the first window with so much of it; on
	// a plateau the highest window is chance.
	peakNear = 0.8
	// seedsAlike: a distance below so many seed-to-seed distances cannot be
	// told from another draw of the same thing.
	seedsAlike = 2
)

// Profile is what is compared of a capture or a run.
type Profile struct {
	Name      string
	Report    *storm.Report
	Counts    storm.Counts // of the attempts that are compared
	Clients   int
	Failed    int           // clients with a failed attempt
	LockedOut time.Duration // summed over clients, from a first failure to the next acceptance or the end
	Curve     []int64       // counted attempts in each window of 10 s, from the begin on
	Accepts   []int64       // accepted ones
	Intents   []int64       // of them, those that open an intent
	Peak      float64       // counted attempts per second in the busiest window
	PeakAt    int           // first window with 80 % of that
	// Recovery is how long the gravest finding lasted; 0 = it did not end.
	Recovery time.Duration
	Span     time.Duration
	gaps     [compareGaps][]int64 // sorted, ns, by attempt number
	moves    map[[2]string]int64  // of intents, by the names of the nodes
}

// Scope says which part of an analysis is compared, and how.
type Scope struct {
	Name     string
	From, To int64           // ns of the capture's clock, 0 = all of it
	Services map[string]bool // nil = all
	// Nodes gives nodes other names: those of a recording the names of the
	// targets that played them.
	Nodes  map[string]string
	Config storm.Config
}

// NewProfile reads an analysis.
func NewProfile(a *pipeline.Analysis, s Scope) (*Profile, error) {
	first, last := a.Span()
	if s.From == 0 {
		s.From = first
	}
	if s.To == 0 {
		s.To = last + 1
	}
	narrow := s.Services != nil || s.From > first || s.To <= last
	p := &Profile{Name: s.Name, moves: map[[2]string]int64{}, Span: time.Duration(s.To - s.From)}
	out := map[string]int64{} // clients that are out, since when
	all, failed := map[string]bool{}, map[string]bool{}
	before := map[uint64]string{} // node of the attempt before, by intent
	var kept []dissect.Attempt
	for t, err := range a.Attempts() {
		if err != nil {
			return nil, err
		}
		if t.Start < s.From || t.Start >= s.To || s.Services != nil && !s.Services[t.Service] {
			continue
		}
		if narrow {
			kept = append(kept, *t)
		}
		p.count(t, s.From)
		all[t.ClientID] = true
		node := t.Destination.String()
		if other, ok := s.Nodes[node]; ok {
			node = other
		}
		if was, ok := before[t.IntentID]; ok && was != node && t.Relation.Retries() {
			p.moves[[2]string{was, node}]++
		}
		before[t.IntentID] = node
		since, isOut := out[t.ClientID]
		switch {
		case t.Outcome.Failed():
			failed[t.ClientID] = true
			if !isOut {
				out[t.ClientID] = t.Start
			}
		case t.Outcome == dissect.OutcomeAccepted && isOut:
			p.LockedOut += time.Duration(t.End - since)
			delete(out, t.ClientID)
		}
	}
	for _, since := range out {
		p.LockedOut += time.Duration(s.To - since)
	}
	p.Clients, p.Failed = len(all), len(failed)
	for i := range p.gaps {
		slices.Sort(p.gaps[i])
	}
	top := int64(0)
	for _, n := range p.Curve {
		top = max(top, n)
	}
	p.Peak = float64(top) / compareWindow.Seconds()
	p.PeakAt = max(slices.IndexFunc(p.Curve, func(n int64) bool { return float64(n) >= peakNear*float64(top) }), 0)
	var err error
	if narrow {
		part := pipeline.Given(a.Captures(), kept)
		p.Report, err = part.Judge(s.Config)
	} else {
		p.Report, err = a.Judge(s.Config)
	}
	if err != nil {
		return nil, err
	}
	if v := &p.Report.Verdict; v.Onset != 0 && v.End > v.Onset && v.Recovered {
		p.Recovery = time.Duration(v.End - v.Onset)
	}
	return p, nil
}

func (p *Profile) count(t *dissect.Attempt, from int64) {
	switch t.Relation {
	case dissect.RelationRefresh, dissect.RelationParallel, dissect.RelationMonitor:
		return
	}
	c := &p.Counts
	c.Attempts++
	if t.Relation.Retries() {
		c.Retries++
		if t.RetryGap > 0 && t.Number > 1 {
			k := min(int(t.Number)-2, compareGaps-1)
			p.gaps[k] = append(p.gaps[k], t.RetryGap)
		}
	} else {
		c.Intents++
	}
	c.Outcomes[t.Outcome]++
	c.Transmissions += int64(t.Transmissions)
	if t.Replied() {
		c.Answers++
	}
	if t.Late {
		c.Late++
	}
	k := int((t.Start - from) / int64(compareWindow))
	for len(p.Curve) <= k {
		p.Curve, p.Accepts, p.Intents = append(p.Curve, 0), append(p.Accepts, 0), append(p.Intents, 0)
	}
	p.Curve[k]++
	if !t.Relation.Retries() {
		p.Intents[k]++
	}
	if t.Outcome == dissect.OutcomeAccepted {
		p.Accepts[k]++
	}
}

// Measure is one line of a comparison.
type Measure struct {
	Name     string
	Unit     string
	Original string // as text
	Replay   string // of the first run; the median run where there are several
	// Distance is how far they are apart, Limit the most that passes. Judged
	// says that the measure decides; others are there to be read.
	Distance, Limit float64
	Judged, Pass    bool
	// Seeds is the mean distance of the runs from each other, -1 with one run.
	// Alike: Distance is below twice that.
	Seeds float64
	Alike bool
	Note  string
}

// Comparison is how like the original one or several runs of its replay are
// (storms.md section 4.5). There is no single number.
type Comparison struct {
	Original *Profile
	Replays  []*Profile
	Measures []Measure
	Notes    []string
}

// Pass reports whether every judged measure passes.
func (c *Comparison) Pass() bool {
	return !slices.ContainsFunc(c.Measures, func(m Measure) bool { return m.Judged && !m.Pass })
}

// measure is the definition of a line: two values and their distance. A
// distance of NaN means that there is nothing to compare.
type measure struct {
	name, unit string
	limit      float64 // negative: it does not judge
	say        func(*Profile) string
	distance   func(a, b *Profile) (d float64, note string)
}

func number(unit string, of func(*Profile) float64) func(*Profile) string {
	return func(p *Profile) string { return strconv.FormatFloat(of(p), 'f', 2, 64) + unit }
}

// off is the distance of a ratio from one, the same for twice and half.
func off(a, b float64) float64 {
	switch {
	case a == b:
		return 0
	case a <= 0 || b <= 0:
		return math.Inf(1)
	}
	return max(a/b, b/a) - 1
}

// CompareLimits are the measures that decide, with the distance that passes.
func CompareLimits() (names []string, limits map[string]float64) {
	limits = map[string]float64{}
	for _, m := range measures() {
		if m.limit >= 0 {
			names = append(names, m.name)
			limits[m.name] = m.limit
		}
	}
	return names, limits
}

func measures() []measure {
	same := func(of func(*Profile) string) func(a, b *Profile) (float64, string) {
		return func(a, b *Profile) (float64, string) {
			if of(a) == of(b) {
				return 0, ""
			}
			return 1, ""
		}
	}
	verdict := func(p *Profile) string {
		v := &p.Report.Verdict
		if v.Cascade {
			return v.Class.String() + " with cascade"
		}
		return v.Class.String()
	}
	recovered := func(p *Profile) string {
		if p.Report.Verdict.Class == storm.Calm || p.Report.Verdict.Recovered {
			return "yes"
		}
		return "no"
	}
	amplification := func(p *Profile) float64 { return p.Counts.Amplification() }
	late := func(p *Profile) float64 { return p.Counts.LateRatio() }
	return []measure{
		{"verdict", "", 0, verdict, same(verdict)},
		{"recovered", "", 0, recovered, same(recovered)},
		{"amplification", "", 0.15, number("", amplification), func(a, b *Profile) (float64, string) {
			if amplification(a) == 0 {
				return off(amplification(a), amplification(b)), ""
			}
			return math.Abs(amplification(b)/amplification(a) - 1), ""
		}},
		{"peak", "1/s", 0.25, number("", func(p *Profile) float64 { return p.Peak }), func(a, b *Profile) (float64, string) {
			return off(a.Peak, b.Peak), "over 10 s; 0.8 to 1.25 times passes"
		}},
		{"time_to_peak", "windows", 2, func(p *Profile) string { return (time.Duration(p.PeakAt) * compareWindow).String() },
			func(a, b *Profile) (float64, string) {
				return math.Abs(float64(a.PeakAt - b.PeakAt)), "of 10 s, to 80 % of the peak"
			}},
		{"outcome_mix", "", 0.10, mixText, func(a, b *Profile) (float64, string) { return outcomeDistance(a, b), "total variation" }},
		{"gaps", "", 0.10, gapText, gapDistance},
		{"curve", "", 0.20, func(p *Profile) string { return fmt.Sprintf("%d attempts", p.Counts.Attempts) },
			func(a, b *Profile) (float64, string) {
				return curveDistance(a, b), "root mean square by the original's peak"
			}},
		{"warp", "", -1, func(*Profile) string { return "" }, func(a, b *Profile) (float64, string) {
			return warp(a.Curve, b.Curve), "warped by at most 30 s over plain difference: far below 1 is the same shape, shifted"
		}},
		{"late_ratio", "", 0.10, number("", late), func(a, b *Profile) (float64, string) { return math.Abs(late(a) - late(b)), "" }},
		{"migrations", "", 0.30, func(p *Profile) string { return fmt.Sprintf("%d edges", len(p.moves)) }, func(a, b *Profile) (float64, string) {
			return 1 - jaccard(a.moves, b.moves), "1 less the weighted Jaccard index of the shares"
		}},
		{"recovery", "", 1, func(p *Profile) string {
			if p.Recovery == 0 {
				return "none"
			}
			return p.Recovery.Round(time.Second).String()
		}, func(a, b *Profile) (float64, string) {
			if a.Recovery == 0 && b.Recovery == 0 {
				return math.NaN(), "neither has a finding that ended"
			}
			return off(float64(a.Recovery), float64(b.Recovery)), "onset to end of the gravest finding; half to twice passes"
		}},
		// To be read: before and after a fix, these are what was wanted.
		{"clients_hit", "clients", -1, func(p *Profile) string { return fmt.Sprintf("%d of %d", p.Failed, p.Clients) },
			func(a, b *Profile) (float64, string) { return off(float64(a.Failed), float64(b.Failed)), "" }},
		{"locked_out", "client-seconds", -1, func(p *Profile) string { return strconv.FormatFloat(p.LockedOut.Seconds(), 'f', 0, 64) },
			func(a, b *Profile) (float64, string) { return off(a.LockedOut.Seconds(), b.LockedOut.Seconds()), "" }},
		{"failure_ratio", "", -1, number("", func(p *Profile) float64 { return p.Counts.FailureRatio() }),
			func(a, b *Profile) (float64, string) {
				return math.Abs(a.Counts.FailureRatio() - b.Counts.FailureRatio()), ""
			}},
	}
}

// Compare compares an original with the runs of its replay (several seeds of
// one plan). limits replace those of CompareLimits by name.
func Compare(original *Profile, replays []*Profile, limits map[string]float64) *Comparison {
	c := &Comparison{Original: original, Replays: replays}
	for _, d := range measures() {
		limit, ok := limits[d.name]
		if !ok || d.limit < 0 {
			limit = d.limit
		}
		m := Measure{Name: d.name, Unit: d.unit, Original: d.say(original), Limit: max(limit, 0), Judged: d.limit >= 0, Seeds: -1}
		type run struct {
			d    float64
			note string
			p    *Profile
		}
		var runs []run
		for _, p := range replays {
			dist, note := d.distance(original, p)
			runs = append(runs, run{dist, note, p})
		}
		slices.SortStableFunc(runs, func(a, b run) int { return cmp.Compare(a.d, b.d) })
		mid := runs[(len(runs)-1)/2]
		m.Distance, m.Note, m.Replay = mid.d, mid.note, d.say(mid.p)
		if math.IsNaN(m.Distance) {
			m.Judged = false
		}
		m.Pass = m.Distance <= limit
		sum, pairs := 0.0, 0
		for i := range replays {
			for k := range i {
				if dist, _ := d.distance(replays[k], replays[i]); !math.IsNaN(dist) && !math.IsInf(dist, 0) {
					sum += dist
					pairs++
				}
			}
		}
		if pairs > 0 {
			m.Seeds = sum / float64(pairs)
			m.Alike = m.Distance <= seedsAlike*m.Seeds
		}
		c.Measures = append(c.Measures, m)
	}
	if len(replays) == 1 {
		c.Notes = append(c.Notes, "one run: how much of a distance is chance cannot be told; compare three or more runs with other --seed")
	}
	return c
}

func mixText(p *Profile) string {
	var s []string
	total := p.Counts.Attempts
	for o, n := range p.Counts.Outcomes {
		if n*100 >= total && total > 0 {
			s = append(s, fmt.Sprintf("%v %.0f %%", dissect.Outcome(o), 100*float64(n)/float64(total)))
		}
	}
	return strings.Join(s, ", ")
}

func outcomeDistance(a, b *Profile) (d float64) {
	if a.Counts.Attempts == 0 || b.Counts.Attempts == 0 {
		return math.NaN()
	}
	for o := range a.Counts.Outcomes {
		d += math.Abs(float64(a.Counts.Outcomes[o])/float64(a.Counts.Attempts) - float64(b.Counts.Outcomes[o])/float64(b.Counts.Attempts))
	}
	return d / 2
}

func gapText(p *Profile) string {
	for _, g := range p.gaps {
		if len(g) > 0 {
			return "median " + time.Duration(g[len(g)/2]).Round(time.Millisecond).String()
		}
	}
	return "none"
}

// Gaps are the times, ns, from the begin of an attempt to that of the next of its
// intent, sorted: those before the attempt of that number, the last one kept apart
// standing for all after it. They belong to the profile.
func (p *Profile) Gaps(number int) []int64 {
	if k := number - 2; k >= 0 && k < len(p.gaps) {
		return p.gaps[k]
	}
	return nil
}

// gapDistance is the two-sample Kolmogorov-Smirnov distance of the gaps before
// the k-th attempt, the worst k by what its sample sizes make likely. Where
// there is nothing beyond chance the distance is 0.
func gapDistance(a, b *Profile) (d float64, note string) {
	worst, compared := -1, 0
	for k := range a.gaps {
		x, y := a.gaps[k], b.gaps[k]
		if len(x) < compareGapsLeast || len(y) < compareGapsLeast {
			continue
		}
		compared++
		dist := kolmogorov(x, y)
		if dist <= 1.36*math.Sqrt(float64(len(x)+len(y))/(float64(len(x))*float64(len(y)))) {
			continue
		}
		if dist > d {
			d, worst = dist, k
		}
	}
	switch {
	case compared == 0:
		return math.NaN(), fmt.Sprintf("fewer than %d gaps of either", compareGapsLeast)
	case worst < 0:
		return 0, "Kolmogorov-Smirnov; no more than chance, or other round-trip times"
	case worst == compareGaps-1:
		return d, fmt.Sprintf("Kolmogorov-Smirnov; worst from attempt %d on", worst+2)
	}
	return d, fmt.Sprintf("Kolmogorov-Smirnov; worst before attempt %d", worst+2)
}

// kolmogorov is the largest distance of two empirical distributions, both
// sorted, that remains when either may be shifted by what another round-trip
// time explains.
func kolmogorov(a, b []int64) float64 {
	above := func(a, b []int64) (d float64) { // share of a at or below v, less the share of b at or below v and the shift
		k := 0
		for i, v := range a {
			for k < len(b) && b[k] <= v+int64(gapShare*float64(v))+int64(gapShift) {
				k++
			}
			d = max(d, float64(i+1)/float64(len(a))-float64(k)/float64(len(b)))
		}
		return d
	}
	return max(above(a, b), above(b, a))
}

func at(v []int64, i int) float64 {
	if i < 0 || i >= len(v) {
		return 0
	}
	return float64(v[i])
}

func curveDistance(a, b *Profile) float64 {
	n := max(len(a.Curve), len(b.Curve))
	if n == 0 {
		return math.NaN()
	}
	sum, top := 0.0, 0.0
	for i := range n {
		d := at(a.Curve, i) - at(b.Curve, i)
		sum += d * d
		top = max(top, at(a.Curve, i))
	}
	if top == 0 {
		return math.Inf(1)
	}
	return math.Sqrt(sum/float64(n)) / top
}

// warp is the dynamic-time-warping distance of two curves within a band, over
// their pointwise distance.
func warp(a, b []int64) float64 {
	n := max(len(a), len(b))
	plain := 0.0
	for i := range n {
		plain += math.Abs(at(a, i) - at(b, i))
	}
	if plain == 0 {
		return 0
	}
	prev, row := make([]float64, n+1), make([]float64, n+1)
	for k := range prev {
		prev[k] = math.Inf(1)
	}
	prev[0] = 0
	for i := 1; i <= n; i++ {
		for k := range row {
			row[k] = math.Inf(1)
		}
		for k := max(1, i-compareBand); k <= min(n, i+compareBand); k++ {
			row[k] = math.Abs(at(a, i-1)-at(b, k-1)) + min(prev[k-1], prev[k], row[k-1])
		}
		prev, row = row, prev
	}
	return prev[n] / plain
}

// jaccard compares the shares that edges have of all moves.
func jaccard(a, b map[[2]string]int64) float64 {
	share := func(m map[[2]string]int64) (total float64) {
		for _, n := range m {
			total += float64(n)
		}
		return total
	}
	ta, tb := share(a), share(b)
	switch {
	case ta == 0 && tb == 0:
		return 1
	case ta == 0 || tb == 0:
		return 0
	}
	var common, either float64
	for e, n := range a {
		x, y := float64(n)/ta, float64(b[e])/tb
		common, either = common+min(x, y), either+max(x, y)
	}
	for e, n := range b {
		if a[e] == 0 {
			either += float64(n) / tb
		}
	}
	return common / either
}
