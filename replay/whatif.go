package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

// CaseOptions choose what a case is about.
type CaseOptions struct {
	Service string // "" = that of the verdict
	Sources []string
	Seeds   int // runs of each row, 0 = 20
	Seed    uint64
	// Now lets changes begin at the end of the capture instead of having been
	// there all along, and runs on for Horizon (0 = twice the storm so far, at
	// least 10 minutes, at most 2 hours).
	Now     bool
	Horizon time.Duration
	// Progress is called after each run; nil = nobody looks.
	Progress func(done, all int)
}

// WhatIf is one change of the recorded world; the zero value is none.
type WhatIf struct {
	Name      string
	Overrides []Override // of the clients' policies
	// Upgrade is the share of the clients that the overrides reach, 0 = all.
	Upgrade float64
	Nodes   int     // more of them
	Size    float64 // of each, in ordinary ones; 0 = 1
	// Throttle is what a limiter before each node lets through, attempts/s.
	Throttle float64
	// Restart brings every node up that is down, when changes begin.
	Restart bool
}

// Span is the median of the runs, and the 5th and 95th percentile.
type Span struct {
	Low    float64 `json:"low"`
	Median float64 `json:"median"`
	High   float64 `json:"high"`
}

// Fate is what became of a service in a recording or a run. Times count from
// the beginning of the capture.
type Fate struct {
	Storm     bool          // ten seconds in which half of the attempts failed
	Recovered bool          // and a minute without such, to the end; a quarter of one where everybody is in
	At        time.Duration // when, if it recovered
	Peak      float64       // attempts/s, in the busiest ten seconds
	A         float64       // attempts / intents
	LockedOut time.Duration // sum over the clients, from the first failure to success or the end
	Fallen    int           // nodes that went down at least once
	late      bool          // storm at Turn
	curve     []tally
}

// Answer is a row of a forecast.
type Answer struct {
	Name      string   `json:"name"`
	Changes   []string `json:"changes,omitempty"`
	Runs      int      `json:"runs"`
	Discarded int      `json:"discarded"` // runs in which there was no storm at the end of the capture
	Calm      int      `json:"never_in_storm"`
	Recovered int      `json:"recovered"`
	// Recovery is seconds after the beginning of the capture, over all runs: 0
	// for one that never was in a storm, -1 (the worst) for one that did not
	// recover.
	Recovery  Span `json:"recovery_s"`
	Peak      Span `json:"peak_attempts_per_second"`
	A         Span `json:"amplification"`
	LockedOut Span `json:"locked_out_client_minutes"`
	Fallen    Span `json:"nodes_fallen"`
	Tried     int  `json:"rates_tried,omitempty"` // throttle rates of which this is the best
}

// Hindcast is the model, fitted on the first half of the storm, against the
// second half.
type Hindcast struct {
	Passed   bool     `json:"passed"`
	Reasons  []string `json:"reasons,omitempty"` // why not
	Split    float64  `json:"split_s"`           // where the halves meet, seconds after the beginning of the capture
	Runs     int      `json:"runs"`
	Same     int      `json:"runs_with_the_recorded_fate"`
	Recovery Span     `json:"predicted_recovery_s"`
	Attempts float64  `json:"attempts_ratio"` // predicted / recorded, after the split
	Curve    float64  `json:"curve_rmse"`     // of attempts in windows of ten seconds, over their mean
	Failures float64  `json:"failure_ratio_error"`
	Given    []string `json:"given,omitempty"`
}

// Forecast is what squall whatif says.
type Forecast struct {
	Version  int       `json:"squall_whatif"`
	Sources  []string  `json:"captures"`
	Service  string    `json:"service"`
	Begin    time.Time `json:"capture_begin"`
	End      time.Time `json:"capture_end"`
	Onset    time.Time `json:"onset"`
	Now      bool      `json:"changes_begin_at_capture_end"`
	Horizon  float64   `json:"horizon_s"`
	Seeds    int       `json:"seeds"`
	Down     int       `json:"nodes_down_at_capture_end"`
	Recorded Recorded  `json:"recorded"`
	Model    []string  `json:"model"`
	Assumed  []string  `json:"assumed"`
	Unfitted []string  `json:"not_fitted,omitempty"`
	Policies []Fitted  `json:"policies"`
	Hindcast Hindcast  `json:"hindcast"`
	Rows     []Answer  `json:"rows"`
}

// Recorded is the fate of the recording, measured as the runs are.
type Recorded struct {
	Recovered bool    `json:"recovered"`
	Recovery  float64 `json:"recovery_s,omitempty"`
	Peak      float64 `json:"peak_attempts_per_second"`
	A         float64 `json:"amplification"`
	LockedOut float64 `json:"locked_out_client_minutes"`
	Fallen    int     `json:"nodes_fallen"`
}

// Fitted is the policy of a group of clients as a case uses it.
type Fitted struct {
	Group  string `json:"group"`
	Policy string `json:"policy"`
	Basis  string `json:"basis"`
}

const (
	seedsDefault = 20
	horizonLeast = 10 * time.Minute
	horizonMost  = 2 * time.Hour
	// The storm of a fate, as design.md section 5 counts: ten seconds in which
	// half of what was decided failed, and enough was.
	fateWindow = 10
	fateFloor  = 20
	fateSettle = 65 // seconds without, to the end: recovered; longer than the minute of a budget's free retry
	// The gates of a hindcast, after storms.md section 4.5: same fate, attempts
	// within a half, curve, time of recovery within a factor of two.
	fateSettled    = 15 // the same where hardly anybody is locked out at the end
	hindcastRatio  = 1.5
	hindcastCurve  = 0.5
	hindcastFail   = 0.15
	hindcastTwice  = 2
	shortestStorm  = 20 * time.Second
	throttleTrials = 5
	openShare      = 0.2
)

// Gentle is what clients are upgraded to where nobody says otherwise.
const Gentle = "policy: exponential(1s, x2, cap 60s, full)"

// Case is a recorded storm as a world in virtual time.
type Case struct {
	opt      CaseOptions
	service  string
	plan     *Plan
	ev       *evidence
	onset    int64 // ns since the beginning
	over     int64 // of the recorded storm, = end where it did not recover
	end      int64
	split    int64
	whole    *fitted
	half     *fitted
	policies []Policy // of the groups
	early    []Policy // the same, from the first half alone
	recorded Fate
	clients  int
	holds    []time.Duration
	open     float64 // share of sessions that clients end themselves
	rate     float64 // new wishes/s before the storm, of an open population
	order    []int32 // of the nodes: those that joined come last
}

// Down is how many nodes were down when the capture ended.
func (c *Case) Down() (n int) {
	for i := range c.whole.nodes {
		if s := c.whole.nodes[i].spells; len(s) > 0 && s[len(s)-1].to == 0 {
			n++
		}
	}
	return n
}

// NewCase fits the case. The analysis stays the caller's and is read three times.
func NewCase(a *pipeline.Analysis, report *storm.Report, opt CaseOptions) (*Case, error) {
	c := &Case{opt: opt, service: cmp.Or(opt.Service, report.Verdict.Service)}
	c.opt.Seeds = cmp.Or(max(opt.Seeds, 0), seedsDefault)
	var f *storm.Finding
	for i := range report.Findings {
		x := &report.Findings[i]
		if x.Service == c.service && x.Class >= storm.PathLoss && x.Class != storm.SynFlood && (f == nil || x.Counts.Attempts > f.Counts.Attempts) {
			f = x
		}
	}
	if f == nil {
		return nil, fmt.Errorf("whatif: the analysis found no storm and no outage on %s, so there is nothing to change the course of; its verdict is %v",
			cmp.Or(c.service, "any service"), report.Verdict.Class)
	}
	var err error
	if c.plan, err = NewPlan(a, report, PlanOptions{Service: c.service, Seed: opt.Seed, Sources: opt.Sources, Virtual: true}); err != nil {
		return nil, err
	}
	if c.ev, err = gather(a, c.plan, c.service); err != nil {
		return nil, err
	}
	c.end = c.ev.end - c.ev.begin
	c.onset = f.Onset - c.ev.begin
	c.clients = c.plan.Clients
	c.recorded = c.replayed()
	c.over = c.end
	if c.recorded.Recovered {
		c.over = int64(c.recorded.At)
	}
	c.split = c.onset + (c.over-c.onset)/2
	c.policies = c.plan.Policies()
	var patience []time.Duration
	for i := range c.policies {
		patience = append(patience, c.policies[i].Patience())
	}
	slices.Sort(patience)
	usual := patience[len(patience)/2]
	c.whole, c.half = c.ev.fit(c.end, usual), c.ev.fit(c.split, usual)
	for i, k := range c.ev.limits(len(c.policies), c.end) {
		if p := &c.policies[i]; p.Limit == 0 && p.Family != None {
			p.Limit = k
		}
		c.plan.Groups[i].Policy = c.policies[i]
	}
	if c.early, err = c.earlier(a); err != nil {
		return nil, err
	}
	for i := range c.whole.nodes {
		c.order = append(c.order, int32(i))
	}
	slices.SortStableFunc(c.order, func(x, y int32) int { return cmp.Compare(c.whole.nodes[x].joined, c.whole.nodes[y].joined) })
	c.population()
	return c, nil
}

// until lets a state of dissect/storm see a capture that ends at a moment.
type until struct {
	*storm.State
	end int64
}

func (u until) Attempt(t *dissect.Attempt) {
	if t.Start >= u.end {
		return
	}
	if t.End > u.end {
		x := *t
		x.Outcome, x.End, x.SessionEnd, x.SessionEnded = dissect.OutcomeUnknown, u.end, 0, dissect.SessionAlive
		t = &x
	}
	u.State.Attempt(t)
}

func (u until) Intent(i *dissect.Intent) {
	if i.Start < u.end {
		u.State.Intent(i)
	}
}

// earlier is the policies of the groups as the first half alone shows them.
func (c *Case) earlier(a *pipeline.Analysis) ([]Policy, error) {
	split := c.ev.begin + c.split
	whole := storm.NewState(storm.Config{})
	var parts []*storm.State
	err := a.Visit(func(int) dissect.Visitor {
		s := storm.NewState(storm.Config{})
		parts = append(parts, s)
		return until{s, split}
	})
	if err != nil {
		return nil, err
	}
	for _, s := range parts {
		whole.Merge(s)
	}
	q := a.Quality()
	q.End = split
	p, err := NewPlan(a, whole.Report(q), PlanOptions{Service: c.service, To: time.Duration(c.split), Virtual: true})
	if err != nil {
		return nil, err
	}
	list := make([]Policy, len(c.policies))
	for i := range c.plan.Groups {
		list[i] = p.Groups[0].Policy
		for k := range p.Groups {
			if p.Groups[k].Name == c.plan.Groups[i].Name {
				list[i] = p.Groups[k].Policy
			}
		}
	}
	for i, k := range c.ev.limits(len(list), c.split) {
		if p := &list[i]; p.Limit == 0 && p.Family != None {
			p.Limit = k
		}
	}
	return list, nil
}

// population finds out whether sessions end by themselves, and how many new
// wishes come in a calm second.
func (c *Case) population() {
	accepted, calm := 0, 0
	for i := range c.plan.Items {
		it := &c.plan.Items[i]
		if it.Outcome == dissect.OutcomeAccepted.String() {
			accepted++
			if it.Hold > 0 {
				c.holds = append(c.holds, it.Hold)
			}
		}
		if at := int64(it.At); at >= c.onset/2 && at < c.onset && !it.Restart {
			calm++
		}
	}
	slices.Sort(c.holds)
	if len(c.holds) >= fateFloor && float64(len(c.holds)) >= openShare*float64(accepted) {
		c.open = float64(len(c.holds)) / float64(accepted)
		c.rate = float64(calm) / (float64(c.onset-c.onset/2) / 1e9)
	}
}

// horizon is how long a run goes on after the capture.
func (c *Case) horizon() time.Duration {
	if !c.opt.Now {
		return 0
	}
	if c.opt.Horizon > 0 {
		return c.opt.Horizon
	}
	return min(max(2*time.Duration(c.end-c.onset), horizonLeast), horizonMost)
}

// runs plays a change with every seed, on all processors; the order of the
// results is that of the seeds.
func (c *Case) runs(ctx context.Context, m *model, w *WhatIf, seeds int, step func()) ([]Fate, error) {
	fates := make([]Fate, seeds)
	errs := make([]error, seeds)
	var wg sync.WaitGroup
	turn := make(chan int)
	for range min(runtime.GOMAXPROCS(0), seeds) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for s := range turn {
				fates[s], errs[s] = c.play(c.world(m, w, uint64(s)))
				step()
			}
		}()
	}
	for s := range seeds {
		if ctx.Err() != nil {
			break
		}
		turn <- s
	}
	close(turn)
	wg.Wait()
	return fates, errors.Join(append(errs, ctx.Err())...)
}

// spanOf is the median and the 5th and 95th percentile.
func spanOf(v []float64) Span {
	if len(v) == 0 {
		return Span{}
	}
	slices.Sort(v)
	at := func(q float64) float64 { return v[int(math.Round(q*float64(len(v)-1)))] }
	return Span{at(0.05), at(0.5), at(0.95)}
}

// answer sums up the runs of a change.
func (c *Case) answer(w *WhatIf, fates []Fate) Answer {
	a := Answer{Name: w.Name, Changes: c.changes(w)}
	var at, peak, amp, lost, fallen []float64
	never := math.Inf(1)
	for i := range fates {
		f := &fates[i]
		if c.opt.Now && !f.late {
			a.Discarded++
			continue
		}
		a.Runs++
		switch {
		case !f.Storm:
			a.Calm++
			at = append(at, 0)
		case f.Recovered:
			a.Recovered++
			at = append(at, f.At.Seconds())
		default:
			at = append(at, never)
		}
		peak = append(peak, f.Peak)
		amp = append(amp, f.A)
		lost = append(lost, f.LockedOut.Minutes())
		fallen = append(fallen, float64(f.Fallen))
	}
	a.Recovery, a.Peak, a.A, a.LockedOut, a.Fallen = spanOf(at), spanOf(peak), spanOf(amp), spanOf(lost), spanOf(fallen)
	for _, v := range []*float64{&a.Recovery.Low, &a.Recovery.Median, &a.Recovery.High} {
		if *v == never {
			*v = -1
		}
	}
	return a
}

// tidy is a policy without digits that nobody measured.
func tidy(p Policy) Policy {
	round := func(d *time.Duration) {
		if *d >= time.Second {
			*d = d.Round(10 * time.Millisecond)
		} else {
			*d = d.Round(time.Millisecond)
		}
	}
	for _, d := range []*time.Duration{&p.Base, &p.Step, &p.Cap, &p.Timeout} {
		round(d)
	}
	p.Factor = math.Round(100*p.Factor) / 100
	return p
}

// changes is a change in words.
func (c *Case) changes(w *WhatIf) (list []string) {
	for i := range c.policies {
		p := c.policies[i]
		was := p.String()
		for _, v := range w.Overrides {
			if v.Group == "" || v.Group == c.plan.Groups[i].Name {
				v.Apply(&p)
			}
		}
		if p.String() == was {
			continue
		}
		s := fmt.Sprintf("%s: %v", c.plan.Groups[i].Name, tidy(p))
		if w.Upgrade > 0 && w.Upgrade < 1 {
			s = fmt.Sprintf("%.0f %% of %s", 100*w.Upgrade, s)
		}
		list = append(list, s)
	}
	if w.Nodes > 0 {
		x := c.extra(&model{fit: c.whole}, w)
		s := fmt.Sprintf("%d more nodes", w.Nodes)
		if x.Capacity > 0 {
			s += fmt.Sprintf(" of %.3g/s", x.Capacity)
		}
		list = append(list, s)
	}
	if w.Restart {
		list = append(list, "every node that is down comes up when the changes begin")
	}
	if w.Throttle > 0 {
		list = append(list, fmt.Sprintf("%.3g attempts/s let through to each node", w.Throttle))
	}
	return list
}

// Forecast hindcasts the storm and, where that succeeds, plays every change.
// Where it fails Rows stays empty, and Hindcast says why. A change with a
// Throttle below zero looks for the best rate itself.
func (c *Case) Forecast(ctx context.Context, list []WhatIf) (*Forecast, error) {
	f := c.describe()
	if time.Duration(c.over-c.onset) < shortestStorm {
		f.Hindcast.Reasons = append(f.Hindcast.Reasons, fmt.Sprintf("the storm lasted %v: too short to fit one half and judge by the other, which takes %v",
			time.Duration(c.over-c.onset).Round(time.Second), shortestStorm))
		return f, nil
	}
	all, done := c.opt.Seeds*(len(list)+1), 0
	for i := range list {
		if list[i].Throttle < 0 {
			all += len(throttleShares) * min(throttleTrials, c.opt.Seeds)
		}
	}
	var mu sync.Mutex
	step := func() {
		mu.Lock()
		defer mu.Unlock()
		if done++; c.opt.Progress != nil {
			c.opt.Progress(done, all)
		}
	}
	if err := c.hindcast(ctx, &f.Hindcast, step); err != nil {
		return nil, err
	}
	if !f.Hindcast.Passed {
		return f, nil
	}
	m := &model{fit: c.whole, policies: c.policies}
	for i := range list {
		w := list[i]
		tried := 0
		if w.Throttle < 0 {
			rate, err := c.bestThrottle(ctx, m, &w, step)
			if err != nil {
				return nil, err
			}
			if rate == 0 {
				f.Unfitted = append(f.Unfitted, "neither capacity nor limit of a node could be fitted, so no rate to throttle at suggests itself: name one")
				continue
			}
			w.Throttle, tried = rate, len(throttleShares)
			w.Name = strings.Replace(w.Name, "throttled", fmt.Sprintf("throttled at %.3g/s", rate), 1)
		}
		fates, err := c.runs(ctx, m, &w, c.opt.Seeds, step)
		if err != nil {
			return nil, err
		}
		a := c.answer(&w, fates)
		a.Tried = tried
		f.Rows = append(f.Rows, a)
	}
	return f, nil
}

// throttleShares are the rates that are tried, as shares of what a node bears.
var throttleShares = []float64{0.25, 0.4, 0.55, 0.7, 0.85, 1}

// bestThrottle is the rate with most recoveries and least time locked out.
func (c *Case) bestThrottle(ctx context.Context, m *model, w *WhatIf, step func()) (best float64, err error) {
	capacity, protect, _ := c.typical(m)
	bears := capacity
	if protect > 0 && (bears == 0 || protect < bears) {
		bears = protect
	}
	if bears == 0 {
		return 0, nil
	}
	most, least := -1, math.Inf(1)
	for _, share := range throttleShares {
		x := *w
		x.Throttle = share * bears
		fates, err := c.runs(ctx, m, &x, min(throttleTrials, c.opt.Seeds), step)
		if err != nil {
			return 0, err
		}
		a := c.answer(&x, fates)
		well := a.Calm + a.Recovered
		if well > most || well == most && a.LockedOut.Median < least {
			most, least, best = well, a.LockedOut.Median, x.Throttle
		}
	}
	return best, nil
}

// hindcast fits on the first half and predicts the second.
func (c *Case) hindcast(ctx context.Context, h *Hindcast, step func()) error {
	now := c.opt.Now
	c.opt.Now = false
	defer func() { c.opt.Now = now }()
	fates, err := c.runs(ctx, &model{c.half, c.early, c.split}, &WhatIf{}, c.opt.Seeds, step)
	if err != nil {
		return err
	}
	h.Runs = len(fates)
	h.Split = float64(c.split) / 1e9
	from, to := int(c.split/1e9), int(c.end/1e9)
	sum := make([]float64, to)
	var failed, decided float64
	var at []float64
	for i := range fates {
		f := &fates[i]
		if f.Storm && f.Recovered == c.recorded.Recovered {
			h.Same++
		}
		if f.Recovered {
			at = append(at, f.At.Seconds())
		}
		for s := from; s < to; s++ {
			sum[s] += float64(f.curve[s].attempts) / float64(len(fates))
			failed += float64(f.curve[s].failed)
			decided += float64(f.curve[s].failed + f.curve[s].accepted)
		}
	}
	h.Recovery = spanOf(at)
	var all, predicted, square, wasFailed, wasDecided float64
	windows := 0
	for s := from; s < to; s += fateWindow {
		var a, b float64
		n := 0
		for k := s; k < min(s+fateWindow, to); k++ {
			r := &c.recorded.curve[k]
			a += float64(r.attempts)
			b += sum[k]
			wasFailed += float64(r.failed)
			wasDecided += float64(r.failed + r.accepted)
			n++
		}
		if n == fateWindow {
			square += (a - b) * (a - b)
			windows++
		}
		all, predicted = all+a, predicted+b
	}
	if all > 0 && windows > 0 {
		h.Attempts = predicted / all
		h.Curve = math.Sqrt(square/float64(windows)) / (all / (float64(to-from) / fateWindow))
	}
	h.Failures = failed/max(decided, 1) - wasFailed/max(wasDecided, 1)
	bad := func(format string, args ...any) { h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...)) }
	if 2*h.Same < h.Runs {
		word := "recovered"
		if !c.recorded.Recovered {
			word = "did not recover"
		}
		bad("the recorded storm %s, only %d of %d runs of the model did", word, h.Same, h.Runs)
	}
	if h.Attempts > hindcastRatio || h.Attempts < 1/hindcastRatio {
		bad("%.2f times the recorded attempts after the split; %.2f to %.2f would do", h.Attempts, 1/hindcastRatio, hindcastRatio)
	}
	if h.Curve > hindcastCurve {
		bad("the attempts of ten seconds are off by %.0f %% of their mean; %.0f %% would do", 100*h.Curve, 100*hindcastCurve)
	}
	if math.Abs(h.Failures) > hindcastFail {
		bad("the share of failures is off by %.2f; %.2f would do", h.Failures, hindcastFail)
	}
	if c.recorded.Recovered && len(at) > 0 {
		was, is := c.recorded.At.Seconds()-h.Split, h.Recovery.Median-h.Split
		if is > hindcastTwice*was || is < was/hindcastTwice {
			bad("recovery %.0f s after the split, recorded %.0f s", is, was)
		}
	}
	h.Passed = len(h.Reasons) == 0
	return nil
}

// describe says what was fitted, assumed, and what could not be told.
func (c *Case) describe() *Forecast {
	at := func(ns int64) time.Time { return time.Unix(0, c.ev.begin+ns).UTC() }
	r := &c.recorded
	for i := range c.whole.nodes {
		for _, s := range c.whole.nodes[i].spells {
			if s.to == 0 || s.to > c.onset-int64(10*time.Second) {
				r.Fallen++
				break
			}
		}
	}
	f := &Forecast{Version: 1, Down: c.Down(), Sources: c.opt.Sources, Service: c.service, Begin: at(0), End: at(c.end), Onset: at(c.onset), Now: c.opt.Now,
		Horizon: c.horizon().Seconds(), Seeds: c.opt.Seeds,
		Recorded: Recorded{Recovered: r.Recovered, Recovery: r.At.Seconds(), Peak: r.Peak, A: r.A, LockedOut: r.LockedOut.Minutes(), Fallen: r.Fallen}}
	for i := range c.plan.Groups {
		g := &c.plan.Groups[i]
		f.Policies = append(f.Policies, Fitted{g.Name, tidy(g.Policy).String(), g.Basis})
	}
	c.words(f)
	return f
}

func (c *Case) words(f *Forecast) {
	say := func(list *[]string, format string, args ...any) { *list = append(*list, fmt.Sprintf(format, args...)) }
	clock := func(ns int64) string { return time.Unix(0, c.ev.begin+ns).UTC().Format("15:04:05") }
	m := &model{fit: c.whole}
	capacity, protect, like := c.typical(m)
	ordinary, joined := 0, 0
	var unlimited []string
	for _, i := range c.order {
		x := &c.whole.nodes[i]
		if x.joined > 0 {
			joined++
			s := fmt.Sprintf("node %s joined at %s", c.plan.Nodes[i].Address, clock(x.joined))
			if x.capacity > 0 {
				s += fmt.Sprintf(", %.3g/s", x.capacity)
			}
			say(&f.Model, "%s", s)
		} else {
			ordinary++
		}
		if x.capacity == 0 {
			unlimited = append(unlimited, fmt.Sprintf("%s (served up to %.0f/s)", c.plan.Nodes[i].Address, x.least))
		}
		for _, s := range x.spells {
			if s.byLoad {
				continue
			}
			how := "fell silent"
			if s.closed {
				how = "refused everybody"
			}
			back := "to the end"
			if s.to > 0 {
				back = "until " + clock(s.to)
			}
			say(&f.Hindcast.Given, "node %s %s at %s %s", c.plan.Nodes[i].Address, how, clock(s.from), back)
		}
		for _, s := range x.slow {
			back := "to the end"
			if s.to > 0 {
				back = "until " + clock(s.to)
			}
			say(&f.Hindcast.Given, "node %s had %.0f %% of its capacity from %s %s", c.plan.Nodes[i].Address, 100*s.factor, clock(s.from), back)
		}
	}
	if joined > 0 {
		say(&f.Hindcast.Given, "%s joined", plural(joined, "node"))
	}
	if capacity > 0 {
		n, relative := 0, 0.0
		for i := range c.whole.nodes {
			if x := &c.whole.nodes[i]; x.joined == 0 {
				n += x.samples
				relative = max(relative, x.relative)
			}
		}
		s := fmt.Sprintf("%s of %.3g/s each (knee; ±%.0f %%, from %d service times of requests that had to wait)", plural(ordinary, "node"), capacity, 100*relative, n)
		f.Model = slices.Insert(f.Model, 0, s)
	}
	if protect > 0 {
		how := "refuse everybody and end their sessions"
		if like.silent {
			how = "fall silent"
		}
		back := fmt.Sprintf("for %v", like.recovery.Round(time.Second))
		if like.fallen > 0 {
			down := like.fallen.Round(time.Second)
			back = fmt.Sprintf("for longer than %v", down)
			say(&f.Unfitted, "how long nodes stay down after a fall under load: none was seen to come back within %v, so each run draws a time, longer than %v in half of them", down, 2*down)
		}
		say(&f.Model, "above %.3g to %.3g requests/s nodes %s %s (%d falls under load seen)", like.protectLo, like.protect, how, back, c.whole.falls)
	}
	for _, i := range c.order {
		if x := &c.whole.nodes[i]; x.queue > 0 {
			s := fmt.Sprintf("%s keeps about %d requests waiting, then %s", c.plan.Nodes[i].Address, x.queue, overloadWords[x.overload])
			if x.after > 0 {
				s += fmt.Sprintf(" (retry after %v)", x.after)
			}
			say(&f.Model, "%s", s)
		}
	}
	say(&f.Assumed, "one queue per node, first come first served, exponential service times, round trip %v everywhere", c.whole.rtt.Round(time.Millisecond))
	say(&f.Assumed, "intents come as recorded; reattachments and retries arise in the model; %d of the intents are cut by an edge of the capture", c.plan.Coverage.Censored)
	if c.whole.reattach == 0 && c.whole.falls > 0 {
		say(&f.Unfitted, "how soon clients come back after a lost session: %v assumed", reattachDefault)
	}
	if c.open > 0 {
		say(&f.Assumed, "sessions of intents that failed in the capture last as long as the %d that clients were seen to end", len(c.holds))
	}
	if c.opt.Now {
		if c.rate > 0 {
			say(&f.Assumed, "after the end of the capture %.3g new intents/s, as before the storm", c.rate)
		} else {
			say(&f.Assumed, "after the end of the capture no new intents: clients stay once they are in")
		}
		say(&f.Assumed, "after the end of the capture nodes that were down for another reason than load stay down")
	}
	for i := range c.plan.Groups {
		switch g := &c.plan.Groups[i]; g.Basis {
		case "assumed":
			say(&f.Unfitted, "policy of %s: nobody was seen to retry, taken for one attempt", g.Name)
		case "recorded":
			say(&f.Unfitted, "policy of %s: no family fits, its waits are drawn from the recorded ones", g.Name)
		}
	}
	if len(unlimited) > 0 {
		say(&f.Unfitted, "capacity of %s: never seen at its limit, taken for unlimited", strings.Join(unlimited, ", "))
	}
	say(&f.Assumed, "policies and knee of the changes were fitted on the capture that they are judged by; the hindcast was not")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

var overloadWords = [numOverloads]string{"drops silently", "refuses", "says later", "accepts and resets"}
