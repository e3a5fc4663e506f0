package reports

import (
	"cmp"
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// axis is the common time axis: n bins from begin, each step ns long.
type axis struct {
	begin, step int64
	n           int
	zone        zone      // of its times
	told        []float64 // what was noted, in bins
}

// x is a moment in bins.
func (a *axis) x(t int64) float64 { return float64(t-a.begin) / float64(a.step) }

// bin is the index of a moment's bin, -1 outside.
func (a *axis) bin(t int64) int {
	if i := (t - a.begin) / a.step; t >= a.begin && i < int64(a.n) {
		return int(i)
	}
	return -1
}

// newAxis covers first to last with at most limit bins of whole windows.
func newAxis(first, last int64, limit int) axis {
	const w = storm.WindowLength
	begin := first / w * w
	if begin > first {
		begin -= w
	}
	windows := (last-begin)/w + 1
	step := w * ((windows + int64(limit) - 1) / int64(limit))
	return axis{begin: begin, step: step, n: int((last-begin)/step + 1)}
}

// chartData is what the script draws from; the names are those that it reads.
type chartData struct {
	Begin    float64      `json:"begin"` // s since the epoch
	Step     float64      `json:"step"`  // s
	Bins     int          `json:"bins"`
	Outcomes []string     `json:"outcomes"` // from the ground up
	Services []*series    `json:"services"`
	Gaps     [][2]float64 `json:"gaps"`    // s from begin
	Offsets  [][2]int64   `json:"offsets"` // from a time on, s, the zone is ahead of UTC by s
}

// series are the numbers of a service in each bin, counts; absent where all
// are zero.
type series struct {
	Outcomes [][]int64 `json:"outcomes"` // in the order of chartData.Outcomes
	Attempts []int64   `json:"attempts"`
	Intents  []int64   `json:"intents"`
	Late     []int64   `json:"late"`
	Answers  []int64   `json:"answers"`
	Attached []int64   `json:"attached"`
	Locked   []float64 `json:"locked"` // clients locked out, the mean of the bin
	Findings []stretch `json:"findings"`
	Knee     float64   `json:"knee"` // accepted a second, 0 = not known

	name string
	all  bool
}

// stretch of a finding, s from the begin of the axis.
type stretch struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	Class string  `json:"class"`
}

// stacked is the order of the outcomes from the ground up.
var stacked = [...]dissect.Outcome{dissect.OutcomeAccepted, dissect.OutcomeThrottled, dissect.OutcomeStalled, dissect.OutcomeDropped,
	dissect.OutcomeRefused, dissect.OutcomeUnreachable, dissect.OutcomeTimeout, dissect.OutcomeUnknown}

func newSeries(name string, n int) *series {
	s := &series{name: name, Attempts: make([]int64, n), Intents: make([]int64, n), Late: make([]int64, n), Answers: make([]int64, n), Attached: make([]int64, n)}
	for range stacked {
		s.Outcomes = append(s.Outcomes, make([]int64, n))
	}
	return s
}

func (s *series) add(i int, w *storm.Window) {
	for k, o := range stacked {
		s.Outcomes[k][i] += w.Outcomes[o]
	}
	s.Attempts[i] += w.Attempts
	s.Intents[i] += w.Intents
	s.Late[i] += w.Late
	s.Answers[i] += w.Answers
}

// serviceView is what the page shows of a service beside the lines over time.
type serviceView struct {
	Name string
	Load template.HTML
	Knee string
}

// charts gathers everything that is drawn over time.
func (p *page) charts(report *storm.Report, gaps []storm.Span, locked map[string]lockouts, told []Event) {
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	cover := func(from, to int64) { first, last = min(first, from), max(last, to) }
	if report.End > report.Begin {
		cover(report.Begin, report.End)
	}
	counts := map[string]int64{}
	for i := range report.Timeline {
		w := &report.Timeline[i]
		if w.Node == (dissect.Endpoint{}) {
			counts[w.Service] += w.Attempts + w.Refreshes
			cover(w.Start, w.Start+storm.WindowLength-1)
		}
	}
	if len(counts) == 0 || last < first {
		return
	}
	names := byService(counts, report.Verdict.Service)
	if n := p.budget.services; len(names) > n {
		p.Cut = append(p.Cut, fmt.Sprintf("Charts of their own have %d of %s services; the others are in the sum and in the tables.", n, thousands(int64(len(names)))))
		names = names[:n]
	}
	drawn := len(names)
	if len(counts) > 1 {
		drawn++
	}
	a := newAxis(first, last, p.budget.bins/drawn)
	a.zone = p.zone
	p.told(told, &a, report.Verdict.Onset)
	p.axis = a
	p.Column = plainSpan(a.step)
	if a.step > storm.WindowLength {
		p.Cut = append(p.Cut, "The charts are drawn in columns of "+p.Column+" to keep the page small; the table timeline has every 10 s.")
	}
	data := &chartData{Offsets: p.zone.offsets(a.begin, a.begin+int64(a.n)*a.step), Begin: float64(a.begin) / 1e9, Step: float64(a.step) / 1e9, Bins: a.n}
	for _, o := range stacked {
		data.Outcomes = append(data.Outcomes, o.String())
	}
	index := map[string]*series{}
	for _, s := range names {
		index[s] = newSeries(s, a.n)
		data.Services = append(data.Services, index[s])
	}
	var sum *series
	if len(counts) > 1 {
		sum = newSeries("", a.n)
		sum.all = true
		data.Services = append(data.Services, sum)
	}
	attach(report.Timeline, &a, index, sum)
	for i := range report.Timeline {
		w := &report.Timeline[i]
		b := a.bin(w.Start)
		if w.Node != (dissect.Endpoint{}) || b < 0 {
			continue
		}
		if s := index[w.Service]; s != nil {
			s.add(b, w)
		}
		if sum != nil {
			sum.add(b, w)
		}
	}
	for service, l := range locked {
		mean := l.mean(&a)
		for _, s := range []*series{index[service], sum} {
			if s == nil || highest(mean) == 0 {
				continue
			}
			if s.Locked == nil {
				s.Locked = make([]float64, a.n)
			}
			for i, v := range mean {
				s.Locked[i] += v
			}
		}
	}
	seconds := func(t int64) float64 { return math.Round(float64(t-a.begin)/1e6) / 1e3 }
	for i, g := range gaps {
		if i == 100 {
			break
		}
		data.Gaps = append(data.Gaps, [2]float64{seconds(g.Start), seconds(g.End)})
	}
	for _, s := range data.Services {
		for i := range report.Findings {
			f := &report.Findings[i]
			if f.Class == storm.Calm || !s.all && f.Service != s.name || len(s.Findings) == 20 {
				continue
			}
			if !s.all {
				s.Knee = math.Max(s.Knee, f.Knee)
			}
			s.Findings = append(s.Findings, stretch{seconds(f.Onset), seconds(cmp.Or(f.End, report.End)), words(f.Class.String())})
		}
		view := serviceView{Name: clip(s.name, 60)}
		switch {
		case s.all:
			view.Name = "all services together"
		case s.name == "":
			view.Name = "unnamed service"
		}
		view.Load = s.load(&a)
		if s.Knee > 0 {
			view.Knee = "The knee is the best rate of accepts that was sustained: " + short(s.Knee) + " a second. "
			if float64(highest(s.Attempts)) > 1.25*s.Knee*float64(a.step)/1e9 {
				view.Knee += "Load beyond it brought no more."
			} else {
				view.Knee += "Load never went far beyond it, so it may lie higher."
			}
		}
		p.Services = append(p.Services, view)
	}
	p.Still = newStill(data.Services[0], &a)
	for _, s := range data.Services { // what never happened is not sent
		for i, o := range s.Outcomes {
			s.Outcomes[i] = orNone(o)
		}
		for i, v := range s.Locked {
			s.Locked[i] = math.Round(v*100) / 100
		}
		s.Late, s.Answers, s.Attached = orNone(s.Late), orNone(s.Answers), orNone(s.Attached)
	}
	p.Data = data
}

func orNone(values []int64) []int64 {
	if highest(values) == 0 {
		return nil
	}
	return values
}

// byService gives the services by their attempts, first before all.
func byService(counts map[string]int64, first string) []string {
	var names []string
	for s := range counts {
		names = append(names, s)
	}
	slices.SortFunc(names, func(a, b string) int {
		if a == first || b == first {
			return cmp.Compare(rank(b == first), rank(a == first))
		}
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	return names
}

func rank(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// attach fills in how many clients hold a session: what the last window of a
// bin says, and what the one before said where nothing happened.
func attach(timeline []storm.Window, a *axis, index map[string]*series, sum *series) {
	// The windows are sorted by service and time, so one service is filled in
	// at a time.
	var held []int64
	service, started := "", false
	flush := func() {
		if !started {
			return
		}
		level := int64(0)
		for i, v := range held {
			if v >= 0 {
				level = v
			}
			if s := index[service]; s != nil {
				s.Attached[i] = level
			}
			if sum != nil {
				sum.Attached[i] += level
			}
		}
	}
	for i := range timeline {
		w := &timeline[i]
		b := a.bin(w.Start)
		if w.Node != (dissect.Endpoint{}) || b < 0 {
			continue
		}
		if !started || w.Service != service {
			flush()
			service, started = w.Service, true
			if held == nil {
				held = make([]int64, a.n)
			}
			for i := range held {
				held[i] = -1
			}
		}
		held[b] = w.Attached
	}
	flush()
}

// load draws the accepted against the attempted, a point a bin; the script
// marks the points of the time that is zoomed to. Widths are in per cent and
// heights in pixels, so that texts keep their size at any width.
func (s *series) load(a *axis) template.HTML {
	seconds := float64(a.step) / 1e9
	accepted := s.Outcomes[0]
	top := niceTop(float64(highest(s.Attempts)) / seconds)
	topY := niceTop(math.Max(float64(highest(accepted))/seconds, s.Knee))
	troubled := make([]bool, a.n)
	for _, f := range s.Findings {
		for x := max(0, int(f.From/seconds)); x < a.n && float64(x) < f.To/seconds; x++ {
			troubled[x] = true
		}
	}
	// Points that fall on one spot are drawn once.
	const across, up, height = 400, 200, 260
	var dots [2]strings.Builder
	seen := map[[3]int]bool{}
	for i, n := range s.Attempts {
		if n == 0 {
			continue
		}
		k := [3]int{int(float64(n)/seconds/top*across + 0.5), int(float64(accepted[i])/seconds/topY*up + 0.5), rank(troubled[i])}
		if !seen[k] {
			seen[k] = true
			fmt.Fprintf(&dots[k[2]], "M%d %dh0", k[0], -k[1])
		}
	}
	if len(seen) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="load" width="100%%" height="%d" role="img" aria-label="accepted against attempted, a second" data-top="%s" data-topy="%s">`, height+40, trim(top), trim(topY))
	b.WriteString(`<g class="grid">`)
	for i := range 3 {
		y := 14 + height*i/2
		fmt.Fprintf(&b, `<line x1="0" x2="100%%" y1="%d" y2="%d"/>`, y, y)
		if i < 2 {
			fmt.Fprintf(&b, `<text x="-8" y="%d" text-anchor="end">%s</text>`, y+4, amount(topY*float64(2-i)/2))
		}
	}
	fmt.Fprintf(&b, `<text x="0" y="9">accepted/s</text><text x="0" y="%d">0</text><text x="50%%" y="%d" text-anchor="middle">%s</text><text x="100%%" y="%d" text-anchor="end">%s attempts/s</text></g>`,
		height+30, height+30, amount(top/2), height+30, amount(top))
	// The diagonal is where every attempt is accepted.
	fmt.Fprintf(&b, `<svg class="cloud" x="0" y="14" width="100%%" height="%d" viewBox="0 -%d %d %d" preserveAspectRatio="none"><path class="ideal" d="M0 0L%s %s"/>`,
		height, up, across, up, trim(across*math.Min(1, topY/top)), trim(-up*math.Min(1, top/topY)))
	fmt.Fprintf(&b, `<path class="dots calm" d="%s"/><path class="dots bad" d="%s"/><path class="dots chosen"/><path class="dots spot"/></svg>`, dots[0].String(), dots[1].String())
	if s.Knee > 0 {
		y := 14 + height*(1-s.Knee/topY)
		fmt.Fprintf(&b, `<line class="knee" x1="0" x2="100%%" y1="%s" y2="%s"/><text class="knee" x="100%%" y="%s" text-anchor="end">knee: %s accepted/s</text>`, trim(y), trim(y), trim(y-5), short(s.Knee))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// laneGroup are nodes of one generation of the cascade.
type laneGroup struct {
	Title string
	Lanes []lane
}

type lane struct {
	Name, Whole, About string
	Plot               template.HTML
}

const laneHeight = 12

// kinds of a lane's bars with their edges: how bad it is shows in the height,
// too.
var laneBars = map[string][2]int{"up": {5, 7}, "back": {4, 8}, "overloaded": {2, 10}, "self_protecting": {2, 10}, "down": {0, laneHeight}}

// lanes draws what the nodes went through, the fallen first by generation.
func (p *page) lanes(report *storm.Report) {
	a := &p.axis
	if a.n == 0 || len(report.Nodes) == 0 {
		return
	}
	nodes := make([]*storm.Node, 0, len(report.Nodes))
	fallen := 0
	for i := range report.Nodes {
		n := &report.Nodes[i]
		nodes = append(nodes, n)
		if len(n.Periods) > 0 {
			fallen++
		}
	}
	place := func(n *storm.Node) (generation int32, start int64) {
		switch {
		case len(n.Periods) == 0:
			return math.MaxInt32, 0
		case n.Generation < 0:
			return math.MaxInt32 - 1, n.Periods[0].Start
		}
		return n.Generation, n.Periods[0].Start
	}
	slices.SortStableFunc(nodes, func(x, y *storm.Node) int { // ties keep the order of the report
		gx, sx := place(x)
		gy, sy := place(y)
		return cmp.Or(cmp.Compare(gx, gy), cmp.Compare(sx, sy))
	})
	p.LaneText = fmt.Sprintf("%s of %s nodes in trouble at some time.", thousands(int64(fallen)), thousands(int64(len(nodes))))
	if n := p.budget.lanes; len(nodes) > n {
		p.LaneText += fmt.Sprintf(" Shown are the %d that fell first or were tried most; the tables nodes and node_periods have all.", n)
		nodes = nodes[:n]
	}
	var at []dissect.Endpoint
	for _, n := range nodes {
		at = append(at, n.At)
	}
	names := shortNames(at)
	last := int32(-2)
	for _, n := range nodes {
		g, _ := place(n)
		if g != last {
			last = g
			title := fmt.Sprintf("Generation %d: felled with the load of those before", g)
			switch g {
			case 0:
				title = "Generation 0: fell first"
			case math.MaxInt32 - 1:
				title = "In trouble, outside of a cascade"
			case math.MaxInt32:
				title = "No trouble seen"
			}
			p.Lanes = append(p.Lanes, laneGroup{Title: title})
		}
		l := lane{Name: names[n.At], Whole: n.At.String()}
		for i := range n.Periods {
			if q := &n.Periods[i]; i == 0 || q.Kind == storm.Down && n.Periods[0].Kind != storm.Down {
				l.About = strings.TrimPrefix(words(q.Kind.String()), "self ") + " " + p.zone.clock(q.Start)
				if q.Kind == storm.Down {
					break
				}
			}
		}
		l.Plot = p.lane(n, report.End)
		g0 := &p.Lanes[len(p.Lanes)-1]
		g0.Lanes = append(g0.Lanes, l)
	}
}

// lane is the life of one node; its x unit is a bin, and to zoom is to change
// the view box.
func (p *page) lane(n *storm.Node, end int64) template.HTML {
	a := &p.axis
	var b strings.Builder
	bar := func(kind string, from, to int64) {
		x, right := math.Max(0, a.x(from)), math.Min(float64(a.n), a.x(to))
		if right < x {
			return
		}
		edges := laneBars[kind]
		fmt.Fprintf(&b, `<rect class="n-%s" x="%s" y="%d" width="%s" height="%d"><title>%s %s to %s</title></rect>`,
			kind, trim(x), edges[0], trim(math.Max(right-x, float64(a.n)/1000)), edges[1]-edges[0], html.EscapeString(words(kind)), p.zone.clock(from), p.zone.clock(to))
	}
	words := []string{n.At.String()}
	at, state := n.First, "up"
	for i := range n.Periods {
		if i == p.budget.spells { // a node that flaps
			break
		}
		q := &n.Periods[i]
		if q.Start > at {
			bar(state, at, q.Start)
		}
		stop := cmp.Or(q.End, end)
		bar(q.Kind.String(), q.Start, stop)
		words = append(words, q.Kind.String()+" "+p.zone.clock(q.Start)+" to "+p.zone.clock(stop))
		at, state = max(at, stop), "back"
		if q.End == 0 {
			at = math.MaxInt64
		}
	}
	if n.Last > at {
		bar(state, at, n.Last)
	}
	if len(a.told) > 0 {
		b.WriteString(`<path class="noted" d="`)
		for _, x := range a.told {
			fmt.Fprintf(&b, "M%s 0V%d", trim(x), laneHeight)
		}
		b.WriteString(`"/>`)
	}
	return template.HTML(fmt.Sprintf(`<svg class="lane" viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" aria-label="%s">%s</svg>`,
		a.n, laneHeight, html.EscapeString(strings.Join(words, ", ")), b.String()))
}

func highest[N int64 | float64](values []N) (top N) {
	for _, v := range values {
		top = max(top, v)
	}
	return top
}

// niceTop is the next round number; 1 for nothing.
func niceTop(v float64) float64 {
	if v <= 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range [...]float64{1, 1.5, 2, 3, 4, 5, 6, 8} {
		if v <= m*p*1.000001 {
			return m * p
		}
	}
	return 10 * p
}

// amount prints a number of an axis.
func amount(v float64) string {
	switch {
	case v >= 1e6:
		return trim(math.Round(v/1e4)/100) + " M"
	case v >= 1e4:
		return trim(math.Round(v/100)/10) + " k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// trim prints a coordinate, to a thousandth.
func trim(v float64) string {
	return strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64)
}

// plainSpan prints a whole number of seconds for reading.
func plainSpan(ns int64) string {
	for _, u := range []struct {
		ns   int64
		name string
	}{{86400e9, "d"}, {3600e9, "h"}, {60e9, "min"}} {
		if ns >= u.ns && ns%u.ns == 0 {
			return fmt.Sprintf("%s %s", thousands(ns/u.ns), u.name)
		}
	}
	if ns >= 600e9 {
		return "about " + brief(ns)
	}
	return thousands(ns/1e9) + " s"
}
