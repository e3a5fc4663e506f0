package storm

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"squall/dissect"
)

// Baseline is what services do on a calm day, to judge another day by: volume,
// failures and wishes (storms.md section 3.1). It is compared by the time of day
// where it covers it, else by its median.
type Baseline struct {
	Name       string // where it is from, as the user calls it
	Begin, End int64  // of what was seen, ns
	// Flows says that flow records were counted: new flows stand for attempts,
	// and nothing is known of failures.
	Flows bool
	Zone  *time.Location // whose time of day; nil = UTC
	Notes []string       // what was left out of it

	step    int64 // length of a window, ns
	days    map[string]*day
	at      map[dissect.Endpoint]string // service of a node of the calm day
	covered []Span                      // what was listened to, by Start
	aligned bool                        // the time of day of all that is judged is covered
}

// day is a service on the calm day, by window.
type day struct {
	windows map[int64]sum
	out     []Span // findings: no calm time
	total   int64
	ports   bool // counted by port: the addresses of its nodes were not seen
}

// sum is what is compared of a window.
type sum struct{ attempts, intents, wishes, refresh, failed, decided, quick, wait int32 }

const (
	daySlot  = 300 * second // of the time of day: a level is that of three of them
	daySlots = 24 * 3600 * second / daySlot
	// leastCalm is how much calm time a level is made of at least.
	leastCalm = 30 * second
)

// Baseline takes what was counted as what another day is judged by. Windows in
// which a service was in trouble are no calm, and left out, unless it always is.
func (s *State) Baseline(name string, q Quality) *Baseline {
	report := s.Report(q)
	b := &Baseline{Name: name, Begin: q.Begin, End: q.End, step: max(WindowLength, second<<s.scenes.shift), days: map[string]*day{}, at: map[dissect.Endpoint]string{}}
	b.covered = []Span{{q.Begin, q.End}}
	for _, g := range q.Gaps {
		b.cut(g)
	}
	for service, scene := range s.scenes.by {
		d := &day{windows: map[int64]sum{}}
		for _, x := range scene.line.list() {
			d.add(x.at*(second<<s.scenes.shift)/b.step, sumOf(&x))
		}
		if d.total > 0 {
			b.days[service] = d
		}
	}
	for i := range report.Nodes {
		b.at[report.Nodes[i].At] = report.Nodes[i].Service
	}
	for i := range report.Findings {
		f := &report.Findings[i]
		d := b.days[f.Service]
		if d == nil || f.Class < PathLoss {
			continue
		}
		end := f.End
		if end == 0 {
			end = q.End
		}
		out := Span{f.Onset, end + WindowLength}
		if rest := without(b.covered, out); lengthOf(rest)*2 < lengthOf(b.covered) {
			b.Notes = append(b.Notes, fmt.Sprintf("%s is a %v on %s for most of its time: that is taken for what is usual there", name, f.Class, f.Service))
			continue
		}
		d.out = append(d.out, out)
		b.Notes = append(b.Notes, fmt.Sprintf("%s is not calm from %s UTC on for %s (%v on %s): this was left out of it", name, (&Quality{}).clock(f.Onset), span(end-f.Onset), f.Class, f.Service))
	}
	return b
}

// Under gives the nodes of the calm day other addresses: those that they have in what
// is judged.
func (b *Baseline) Under(addr func(dissect.Addr) dissect.Addr) {
	at := make(map[dissect.Endpoint]string, len(b.at))
	for e, service := range b.at {
		at[dissect.Endpoint{Addr: addr(e.Addr), Port: e.Port}] = service
	}
	b.at = at
}

func sumOf(b *bin) sum {
	s := sum{attempts: b.n[fAttempts], intents: b.n[fIntents], wishes: b.n[fIntents] + b.n[fReturns], refresh: b.n[fRefresh],
		quick: b.n[fQuick], wait: b.n[fQuickWait]}
	s.failed = int32(b.failed())
	s.decided = s.failed + b.n[fOutcome0+field(dissect.OutcomeAccepted)] + b.n[fReturns]
	return s
}

func (d *day) add(window int64, s sum) {
	w := d.windows[window]
	w.attempts += s.attempts
	w.intents += s.intents
	w.wishes += s.wishes
	w.refresh += s.refresh
	w.failed += s.failed
	w.decided += s.decided
	w.quick += s.quick
	w.wait += s.wait
	d.windows[window] = w
	d.total += int64(s.attempts)
}

// cut takes a span out of what is covered.
func (b *Baseline) cut(g Span) {
	b.covered = without(b.covered, g)
}

func without(list []Span, g Span) (out []Span) {
	for _, s := range list {
		if g.End <= s.Start || g.Start >= s.End {
			out = append(out, s)
			continue
		}
		if g.Start > s.Start {
			out = append(out, Span{s.Start, g.Start})
		}
		if g.End < s.End {
			out = append(out, Span{g.End, s.End})
		}
	}
	return out
}

// Against judges by a baseline from now on. An error says why it is none for
// what this state has seen.
func (s *State) Against(b *Baseline, q *Quality) error {
	s.finishClient()
	if len(b.days) == 0 && b.Flows {
		return fmt.Errorf("baseline %s has no flow to a node, or to the port of a node, that is judged", b.Name)
	}
	if len(b.days) == 0 {
		return fmt.Errorf("baseline %s: there are no attempts in it", b.Name)
	}
	names := map[string]string{}
	var wanted []string
	by := b.byNodes(s)
	for _, name := range sortedKeys(s.services) {
		if s.services[name].Attempts == 0 {
			continue
		}
		wanted = append(wanted, name)
		if b.days[name] != nil {
			names[name] = name
		} else if by[name] != "" {
			names[name] = by[name]
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("baseline %s has none of the services that are judged: it has %s, and judged are %s; --hints FILE names services alike", b.Name, some(sortedKeys(b.days)), some(wanted))
	}
	if b.Begin <= q.End && q.Begin <= b.End {
		whole := lengthOf(b.covered)
		b.cut(Span{q.Begin, q.End + 1})
		if lengthOf(b.covered) < leastCalm {
			return fmt.Errorf("baseline %s is of the time that is judged, %s to %s: it has to be of another, calm one", b.Name, moment3339(q.Begin), moment3339(q.End))
		}
		b.Notes = append(b.Notes, fmt.Sprintf("%s reaches into the time that is judged: %s of its %s was left out", b.Name, span(whole-lengthOf(b.covered)), span(whole)))
	}
	if left := lengthOf(b.covered); left < leastCalm {
		return fmt.Errorf("baseline %s: %s of calm is too little, want %s", b.Name, span(max(left, 0)), span(leastCalm))
	}
	// Captures begin and end some seconds apart: of the first and the last stretch
	// only a part is judged.
	heard := b.bySlot(b.covered)
	b.aligned = true
	for slot, judged := range b.bySlot([]Span{{q.Begin, min(q.End, q.Begin+24*3600*second)}}) {
		b.aligned = b.aligned && heard[slot] >= min(leastCalm, judged/2)
	}
	s.baseline, s.calmNames = b, names
	return nil
}

// byNodes is what the calm day calls most of the nodes of a service that it has
// not under the same name.
func (b *Baseline) byNodes(s *State) map[string]string {
	votes := map[string]map[string]int{}
	for k := range s.nodes {
		as := b.at[k.at]
		if b.days[k.service] != nil || b.days[as] == nil {
			continue
		}
		if votes[k.service] == nil {
			votes[k.service] = map[string]int{}
		}
		votes[k.service][as]++
	}
	best := map[string]string{}
	for name, n := range votes {
		for _, as := range sortedKeys(n) {
			if n[as] > n[best[name]] {
				best[name] = as
			}
		}
	}
	return best
}

func some(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	const most = 5
	s := strings.Join(names[:min(most, len(names))], ", ")
	if n := len(names) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

func lengthOf(list []Span) (n int64) {
	for _, s := range list {
		n += s.End - s.Start
	}
	return n
}

func moment3339(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339) }

// slot is the time of day of a moment.
func (b *Baseline) slot(t int64) int64 {
	if b.Zone != nil {
		_, offset := time.Unix(0, t).In(b.Zone).Zone()
		t += int64(offset) * second
	}
	return ((t/daySlot)%daySlots + daySlots) % daySlots
}

// bySlot is how much of each time of day lies in spans, ns.
func (b *Baseline) bySlot(list []Span) map[int64]int64 {
	n := map[int64]int64{}
	for _, c := range list {
		for t := c.Start; t < c.End; {
			next := min((t/daySlot+1)*daySlot, c.End)
			n[b.slot(t)] += next - t
			t = next
		}
	}
	return n
}

// levels of a service on the calm day, for windows of one length.
type levels struct {
	b      *Baseline
	d      *day
	scale  float64 // windows of the judge in one of the time line
	slots  [daySlots]*calm
	median *calm
	values map[int64][]int64 // windows with something in them, by slot
	calmed map[int64]int64   // ns that are covered, by slot
}

// levelsOf prepares the levels of a service for windows of a length; nil = it is
// not in the baseline.
func (s *State) levelsOf(service string, length int64) *levels {
	if s == nil || s.baseline == nil || s.calmNames[service] == "" {
		return nil
	}
	b := s.baseline
	l := &levels{b: b, d: b.days[s.calmNames[service]], scale: float64(length) / float64(b.step), values: map[int64][]int64{}}
	covered := b.covered
	for _, out := range l.d.out {
		covered = without(covered, out)
	}
	l.calmed = b.bySlot(covered)
	for w := range l.d.windows {
		at := w*b.step + b.step/2
		if slices.ContainsFunc(covered, func(c Span) bool { return at >= c.Start && at < c.End }) {
			l.values[b.slot(at)] = append(l.values[b.slot(at)], w)
		}
	}
	var all []int64
	var time int64
	for k := range daySlots {
		all, time = append(all, l.values[k]...), time+l.calmed[k]
	}
	l.median = l.level(all, time)
	return l
}

// at is the level at the time of day of a moment.
func (l *levels) at(t int64) *calm {
	k := l.b.slot(t)
	if !l.b.aligned {
		return l.median
	}
	if l.slots[k] == nil {
		var all []int64
		var time int64
		for near := k + daySlots - 1; near <= k+daySlots+1; near++ {
			all, time = append(all, l.values[near%daySlots]...), time+l.calmed[near%daySlots]
		}
		if l.slots[k] = l.level(all, time); time < leastCalm {
			l.slots[k] = l.median
		}
	}
	return l.slots[k]
}

// level is made of windows, and of the silence between them.
func (l *levels) level(windows []int64, covered int64) *calm {
	c := &calm{known: covered >= leastCalm}
	silent := max(covered/l.b.step-int64(len(windows)), 0)
	take := func(of func(*sum) int32) float64 {
		v := make([]float64, 0, len(windows))
		for _, w := range windows {
			x := l.d.windows[w]
			v = append(v, float64(of(&x)))
		}
		return level(v, silent, 0.5) * l.scale
	}
	c.attempts = take(func(s *sum) int32 { return s.attempts })
	c.intents = take(func(s *sum) int32 { return s.intents })
	c.wishes = take(func(s *sum) int32 { return s.wishes })
	c.refresh = take(func(s *sum) int32 { return s.refresh })
	var failed, decided, refreshed, quick, wait int64
	for _, w := range windows {
		x := l.d.windows[w]
		failed, decided, refreshed = failed+int64(x.failed), decided+int64(x.decided), refreshed+int64(x.refresh)
		quick, wait = quick+int64(x.quick), wait+int64(x.wait)
	}
	c.failure, c.ofDecided, c.wait = ratio(failed, decided+refreshed), ratio(failed, decided), ratio(wait, quick)
	return c
}

// words say where a level is from.
func (l *levels) words() string {
	s := "against " + l.b.Name
	if l.b.Flows {
		s += " (flow records: new flows stand for attempts)"
	}
	if l.b.aligned {
		return s + ", the same time of day"
	}
	return s + ", its median: it does not cover that time of day"
}

// calmOf is what is calm at the time of a moment: of the baseline, where there is
// one, else what the service itself does outside of findings.
func (j *judge) calmOf(bin int64) *calm {
	if j.base == nil {
		return &j.calm
	}
	t := bin * j.length
	c := j.base.at(t)
	if !j.base.b.Flows {
		return c
	}
	if j.mixed == nil {
		j.mixed = map[*calm]*calm{}
	}
	m := j.mixed[c]
	if m == nil { // flow records say how many, no more
		own := j.calm
		m = &own
		m.known, m.attempts = true, c.attempts
		if !j.calm.known {
			m.wishes, m.intents = c.attempts, c.attempts
		}
		j.mixed[c] = m
	}
	return m
}

// Tally makes a baseline of flow records.
type Tally struct {
	b     *Baseline
	of    map[portKey]string // of the nodes that are judged
	port  map[portKey]string // the same without addresses
	seen  map[flowKey]Span
	ports map[string]*day // by port alone
	lost  bool
}

type portKey struct {
	at    dissect.Endpoint
	proto uint8
}

type flowKey struct {
	from, to dissect.Endpoint
	proto    uint8
}

const (
	// flowBreak ends a flow: records of the same ports that follow sooner go on
	// with it, for exporters cut flows by timers.
	flowBreak = 600 * second
	maxTally  = 1 << 20
)

// Tally counts flow records for the services that this state has seen.
func (s *State) Tally(name string) *Tally {
	t := &Tally{b: &Baseline{Name: name, Flows: true, step: WindowLength, days: map[string]*day{}, at: map[dissect.Endpoint]string{}}, of: map[portKey]string{}, port: map[portKey]string{},
		seen: map[flowKey]Span{}, ports: map[string]*day{}}
	keys := slices.SortedFunc(maps.Keys(s.nodes), func(a, b nodeKey) int {
		return cmp.Or(cmp.Compare(s.nodes[b].Attempts, s.nodes[a].Attempts), strings.Compare(a.service, b.service), a.at.Compare(b.at), cmp.Compare(a.proto, b.proto))
	})
	for _, k := range keys {
		bare := portKey{dissect.Endpoint{Port: k.at.Port}, k.proto}
		if _, ok := t.of[portKey{k.at, k.proto}]; !ok {
			t.of[portKey{k.at, k.proto}] = k.service
		}
		if _, ok := t.port[bare]; !ok {
			t.port[bare] = k.service
		}
	}
	return t
}

// Flow counts a record of one direction. Times are ns.
func (t *Tally) Flow(start, end int64, from, to dissect.Endpoint, proto uint8) {
	if t.b.Begin == 0 || start < t.b.Begin {
		t.b.Begin = start
	}
	t.b.End = max(t.b.End, end)
	service, known := t.of[portKey{to, proto}]
	byPort, like := t.port[portKey{dissect.Endpoint{Port: to.Port}, proto}]
	if !known && !like {
		return
	}
	k := flowKey{from, to, proto}
	if old, ok := t.seen[k]; ok && start <= old.End+flowBreak && end >= old.Start-flowBreak {
		t.seen[k] = Span{min(old.Start, start), max(old.End, end)}
		return
	}
	if len(t.seen) >= maxTally {
		for k, s := range t.seen {
			if s.End < start-flowBreak {
				delete(t.seen, k)
			}
		}
		if len(t.seen) >= maxTally {
			clear(t.seen)
			t.lost = true
		}
	}
	t.seen[k] = Span{start, end}
	if known {
		t.count(t.b.days, service, start/t.b.step)
	}
	if like {
		t.count(t.ports, byPort, start/t.b.step)
	}
}

func (t *Tally) count(days map[string]*day, service string, window int64) {
	d := days[service]
	if d == nil {
		d = &day{windows: map[int64]sum{}}
		days[service] = d
	}
	d.add(window, sum{attempts: 1, intents: 1, wishes: 1})
}

// Baseline is what was counted. Services of whose nodes no address was seen are
// taken by their ports. Holes are times in which nothing was recorded.
func (t *Tally) Baseline(holes []Span) *Baseline {
	b := t.b
	for _, name := range sortedKeys(t.ports) {
		if b.days[name] == nil {
			t.ports[name].ports = true
			b.days[name] = t.ports[name]
			b.Notes = append(b.Notes, fmt.Sprintf("%s has none of the addresses of %s: its flows are those to the same port", b.Name, name))
		}
	}
	if t.lost {
		b.Notes = append(b.Notes, fmt.Sprintf("more than %d flows at once in %s: some that went on are counted as new ones", maxTally, b.Name))
	}
	b.covered = []Span{{b.Begin, b.End + 1}}
	for _, h := range holes {
		b.cut(h)
	}
	return b
}

// Against is how a report compares with its baseline.
type Against struct {
	Name       string
	Begin, End int64
	Flows      bool
	Services   []AgainstService // by attempts, then name
	Missing    []string         // services that are not in it, by name
}

// AgainstService is a service in the gravest of its findings, or where it has
// none in all of the capture, beside the same time of the calm day.
type AgainstService struct {
	Service, CalmService string // and what it was compared with
	From, To             int64
	Aligned              bool    // the calm day covers the time of day; else its median stands for it
	Rate, CalmRate       float64 // attempts a second
	Failure, CalmFailure float64 // failures over decided attempts; CalmFailure -1 = not known
	Surge                float64 // most wishes in 10 s over the calm ones; 0 = not known
}

// Volume is Rate over CalmRate; 0 = not known.
func (a *AgainstService) Volume() float64 {
	if a.CalmRate == 0 {
		return 0
	}
	return a.Rate / a.CalmRate
}

// Of finds a service; nil = it is not in the baseline.
func (a *Against) Of(service string) *AgainstService {
	if a == nil {
		return nil
	}
	for i := range a.Services {
		if a.Services[i].Service == service {
			return &a.Services[i]
		}
	}
	return nil
}

// against fills the comparison and the windows of services.
func (s *State) against(r *Report, q *Quality) {
	b := s.baseline
	if b == nil {
		return
	}
	r.Baseline = &Against{Name: b.Name, Begin: b.Begin, End: b.End, Flows: b.Flows}
	r.Notes = append(r.Notes, b.Notes...)
	r.Totals.IntentSurge = 0
	for _, name := range sortedKeys(s.services) {
		if s.services[name].Attempts == 0 {
			continue
		}
		l := s.levelsOf(name, WindowLength)
		if l == nil {
			r.Baseline.Missing = append(r.Baseline.Missing, name)
			continue
		}
		a := AgainstService{Service: name, CalmService: s.calmNames[name], From: q.Begin, To: q.End, CalmFailure: -1, Aligned: b.aligned}
		counts := s.services[name].Counts
		a.Failure = counts.FailureRatio()
		if i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Service == name && f.Class >= FlashCrowd }); i >= 0 {
			f := &r.Findings[i]
			a.From, counts, a.Failure = f.Onset, f.Counts, f.failure()
			if f.End != 0 {
				a.To = f.End
			}
		}
		windows := r.windows(name)
		for i := range windows {
			w := &windows[i]
			c := l.at(w.Start)
			w.Baseline = c.attempts
			if !b.Flows || w.Surge == 0 {
				if w.Surge = 0; c.intents > 0 {
					w.Surge = float64(w.Intents) / c.intents
				}
			}
			if w.Start+WindowLength > a.From && w.Start <= a.To {
				a.Surge = max(a.Surge, w.Surge)
			}
			r.Totals.IntentSurge = max(r.Totals.IntentSurge, w.Surge)
		}
		seconds := math.Max(float64(a.To-a.From)/1e9, 1)
		a.Rate = float64(counts.Attempts) / seconds
		var calmed, failure float64
		n := 0
		for t := windowOf(a.From) * WindowLength; t <= a.To; t += WindowLength {
			c := l.at(t)
			calmed, failure, n = calmed+c.attempts, failure+c.ofDecided, n+1
			if n == maxCompared {
				break
			}
		}
		a.CalmRate = calmed / float64(n) / float64(WindowLength/second)
		if !b.Flows {
			a.CalmFailure = failure / float64(n)
		}
		r.Baseline.Services = append(r.Baseline.Services, a)
	}
	slices.SortStableFunc(r.Baseline.Services, func(x, y AgainstService) int {
		return cmp.Compare(s.services[y.Service].Attempts, s.services[x.Service].Attempts)
	})
}

// maxCompared is a week of windows.
const maxCompared = 7 * 24 * 360
