package reports

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// Question is what an explanation is asked for; the zero value asks for the
// verdict.
type Question struct {
	At   int64  // ns; the finding of that moment, 0 = the verdict
	Node string // address, or address and port; "" = all of them
}

// Explanation is why a finding is called what it is, and what could make it
// another.
type Explanation struct {
	Finding    storm.Finding
	Summary    string
	Against    string // how it compares with a calm day; empty: none was given
	Flips      []Flip
	Steady     []string // thresholds that turn nothing within their range
	Judged     int      // how often the capture was judged anew to find the flips
	Hypotheses []storm.Hypothesis
	Moment     []storm.Window // what each service did at Question.At
	Nodes      []NodeStory    // those of Question.Node
	Frames     []Frame
	Filters    []Filter

	thresholds storm.Thresholds
	first      *dissect.Endpoint // whose attempt the first of the finding is
}

// Flip is a threshold, and from which value on the finding is called otherwise.
type Flip struct {
	Name    string  `json:"threshold"`
	Unit    string  `json:"unit"`
	Now     float64 `json:"now"`
	From    float64 `json:"from"` // the value from which on it is called otherwise
	Then    string  `json:"then"`
	Meaning string  `json:"meaning"`
}

// NodeStory is a node, with who came from where.
type NodeStory struct {
	storm.Node
	In, Out []storm.Migration // most intents first
}

// Frame is a packet worth opening.
type Frame struct {
	File   string `json:"capture_file"`
	Number int64  `json:"frame"`
	Time   int64  `json:"time_ns"`
	What   string `json:"what"`
	Flow   string `json:"conversation,omitempty"`

	source, node dissect.Endpoint
	proto        uint8
}

// Filter is a display filter of Wireshark, ready to use.
type Filter struct {
	What   string `json:"what"`
	File   string `json:"capture_file,omitempty"`
	Filter string `json:"display_filter"`
}

const (
	// mostJudgements bounds the search for flips; one takes milliseconds, for
	// what was counted is not read again.
	mostJudgements = 400
	bisections     = 12
	mostFrames     = 9
)

// Explain judges the analysis and explains one finding of it. An error is one
// of reading the rows, or of a question that nothing answers.
func Explain(r *Results, q Question) (*Explanation, error) {
	state, err := r.Analysis.State(r.cfg)
	if err != nil {
		return nil, err
	}
	quality := r.Analysis.Quality()
	quality.Zone = r.cfg.Zone
	z := zone{r.cfg.Zone}
	report := state.Under(r.cfg.Thresholds, quality)
	e := &Explanation{thresholds: r.cfg.Thresholds, Finding: report.Verdict, Summary: report.Summary, Against: againstWords(report), Hypotheses: report.Hypotheses}
	var nodes []dissect.Endpoint
	if q.Node != "" {
		if e.Nodes, err = stories(report, q.Node); err != nil {
			return nil, err
		}
		for i := range e.Nodes {
			nodes = append(nodes, e.Nodes[i].At)
		}
	}
	verdict := true
	if q.At != 0 || q.Node != "" {
		if q.At != 0 && (q.At < quality.Begin || q.At > quality.End) {
			return nil, fmt.Errorf("%s lies outside the capture, which goes from %s to %s", z.stamp(q.At), z.stamp(quality.Begin), z.stamp(quality.End))
		}
		f := asked(report, q.At, nodes)
		if f == nil {
			e.Finding = storm.Finding{Class: storm.Calm, Confidence: storm.High, Onset: q.At}
			e.Summary = quiet(report, q, z)
			e.Hypotheses = nil
		} else {
			verdict = f.Onset == report.Verdict.Onset && f.Service == report.Verdict.Service
			if e.Finding, e.Summary = *f, f.Sentence; !verdict {
				e.Hypotheses = nil // they were weighed for the verdict
			}
		}
		for _, w := range report.Timeline {
			if q.At != 0 && w.Start == q.At/storm.WindowLength*storm.WindowLength && w.Node == (dissect.Endpoint{}) {
				e.Moment = append(e.Moment, w)
			}
		}
	}
	e.flips(state, quality, verdict)
	if err := e.frames(r, report, nodes); err != nil {
		return nil, err
	}
	e.filters(nodes)
	return e, nil
}

// asked is the gravest finding at a time and at nodes.
func asked(r *storm.Report, at int64, nodes []dissect.Endpoint) *storm.Finding {
	for i := range r.Findings {
		f := &r.Findings[i]
		if at != 0 && (at < f.Onset || f.End != 0 && at > f.End) {
			continue
		}
		if len(nodes) > 0 && !slices.ContainsFunc(nodes, func(n dissect.Endpoint) bool { return slices.Contains(f.Nodes, n) }) {
			continue
		}
		return f
	}
	return nil
}

// quiet says that there is no finding where one was asked for.
func quiet(r *storm.Report, q Question, z zone) string {
	s := "No finding"
	if q.At != 0 {
		s += " at " + z.clock(q.At)
	}
	if q.Node != "" {
		s += " that concerns " + q.Node
	}
	if len(r.Findings) == 0 {
		return s + ", nor at any other time or node of this capture."
	}
	f := &r.Findings[0]
	return fmt.Sprintf("%s. The verdict on the capture is %s, on %s from %s on.", s, f.Class, f.Service, z.clock(f.Onset))
}

// stories finds the nodes that an address means.
func stories(r *storm.Report, text string) (out []NodeStory, err error) {
	addr, port := text, 0
	if ap, err := netip.ParseAddrPort(text); err == nil {
		addr, port = ap.Addr().String(), int(ap.Port())
	}
	a, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	if err != nil {
		return nil, fmt.Errorf("node %q: want an address, or address:port, as 198.51.100.4:6346 or [2001:db8::4]:6346", text)
	}
	want := dissect.AddrFrom(a)
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if n.At.Addr != want || port != 0 && int(n.At.Port) != port {
			continue
		}
		s := NodeStory{Node: *n}
		for _, m := range r.Migrations {
			if m.To == n.At {
				s.In = append(s.In, m)
			}
			if m.From == n.At {
				s.Out = append(s.Out, m)
			}
		}
		for _, list := range [][]storm.Migration{s.In, s.Out} {
			slices.SortStableFunc(list, func(a, b storm.Migration) int { return cmp.Compare(b.Intents, a.Intents) })
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		var known []string
		for i := range r.Nodes[:min(len(r.Nodes), 4)] {
			known = append(known, r.Nodes[i].At.String())
		}
		return nil, fmt.Errorf("node %s: nobody tried to attach there; there are %d nodes, the busiest %s", text, len(r.Nodes), strings.Join(known, ", "))
	}
	return out, nil
}

// concerns are the thresholds that a class turns on.
func concerns(c storm.Class) []string {
	storms := []string{"volume", "volume_floor", "retry_share", "failure", "failure_over_calm", "breadth", "breadth_floor", "unanswerable", "in_a_row"}
	partial := []string{"partial_failure", "partial_over_calm", "path_repeats", "path_late"}
	surge := []string{"surge", "surge_failure", "reconnect_share"}
	single := []string{"offender_failure", "offender_share", "offender_retries"}
	scan := []string{"scan_nodes", "scan_failure"}
	flood := []string{"flood_factor", "flood_floor", "unanswerable"}
	switch c {
	case storm.RetryStorm:
		return append(storms, "partial_failure", "partial_over_calm")
	case storm.PartialOutage, storm.PathLoss:
		return append(storms, partial...)
	case storm.FlashCrowd, storm.MassReconnect, storm.RefreshSurge:
		return append(surge, partial[:2]...)
	case storm.SynFlood:
		return flood
	case storm.Scan:
		return scan
	case storm.SingleOffender:
		return append(single, "breadth", "breadth_floor")
	}
	return slices.Concat(storms, partial, surge, single, scan, flood[:2])
}

// flips judges anew under other thresholds, one at a time, and halves the way
// to the value at which the finding is called otherwise.
func (e *Explanation) flips(state *storm.State, q storm.Quality, verdict bool) {
	f := &e.Finding
	called := func(name string, value float64) string {
		t := e.thresholds
		t.Set(name, value)
		e.Judged++
		r := state.Under(t, q)
		if verdict && (f.Service == "" || f.Service == "many") {
			return className(r.Verdict.Class, r.Verdict.Cascade)
		}
		class, cascade := storm.Calm, false
		for i := range r.Findings {
			o := &r.Findings[i]
			meets := (f.End == 0 || o.Onset <= f.End) && (o.End == 0 || f.Onset <= o.End)
			if o.Service == f.Service && meets && (o.Class > class || o.Class == class && o.Cascade) {
				class, cascade = o.Class, o.Cascade
			}
		}
		return className(class, cascade)
	}
	now := className(f.Class, f.Cascade)
	names := concerns(f.Class)
	if f.Cascade {
		names = append(names, "causal_share", "causal_load")
	}
	for _, t := range e.thresholds.All() {
		if !slices.Contains(names, t.Name) {
			continue
		}
		found := false
		for _, far := range extremes(t) {
			if e.Judged+1+bisections > mostJudgements {
				return
			}
			then := called(t.Name, far)
			if then == now {
				continue
			}
			keeps, turns := t.Value, far
			for range bisections {
				mid := middle(t, keeps, turns)
				if c := called(t.Name, mid); c == now {
					keeps = mid
				} else {
					turns, then = mid, c
				}
			}
			e.Flips = append(e.Flips, Flip{t.Name, t.Unit, t.Value, fourDigits(turns, turns > t.Value), then, t.Meaning})
			found = true
		}
		if !found {
			e.Steady = append(e.Steady, t.Name)
		}
	}
	slices.SortStableFunc(e.Flips, func(a, b Flip) int { return cmp.Compare(a.away(), b.away()) })
}

func className(c storm.Class, cascade bool) string {
	if cascade {
		return c.String() + " with cascade"
	}
	return c.String()
}

// away is how far a flip is from where the threshold stands, as a factor.
func (f *Flip) away() float64 {
	if f.From <= 0 || f.Now <= 0 {
		return math.Inf(1)
	}
	return math.Max(f.From/f.Now, f.Now/f.From)
}

// extremes are how far a threshold is moved: ratios over all their range,
// others a thousandfold.
func extremes(t storm.Threshold) []float64 {
	if t.Unit == "ratio" {
		return []float64{1e-6, 1}
	}
	return []float64{t.Value / 1000, t.Value * 1000}
}

func middle(t storm.Threshold, a, b float64) float64 {
	if t.Unit == "ratio" {
		return (a + b) / 2
	}
	return math.Sqrt(a * b)
}

// fourDigits rounds, away from where the threshold stands, so that
// what is said of the value is true.
func fourDigits(v float64, up bool) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	if up {
		return math.Ceil(v*scale-1e-9) / scale
	}
	return math.Floor(v*scale+1e-9) / scale
}

// frames picks the packets that show the finding best, in one pass over the
// attempts.
func (e *Explanation) frames(r *Results, report *storm.Report, nodes []dissect.Endpoint) error {
	f := &e.Finding
	files := r.Analysis.Captures()
	add := func(what string, file uint32, number, at int64, a *dissect.Attempt) {
		if number == 0 || int(file) >= len(files) {
			return
		}
		x := Frame{File: files[file].Path, Number: number, Time: at, What: what}
		if a != nil {
			x.Flow, x.source, x.node, x.proto = a.Source.String()+" > "+a.Destination.String(), a.Source, a.Destination, a.Proto
		}
		e.Frames = append(e.Frames, x)
	}
	mine := func(a *dissect.Attempt) bool {
		return (f.Offender == "" || a.ClientID == f.Offender) && (f.Service == "" || f.Service == "many" || a.Service == f.Service) && (len(nodes) == 0 || slices.Contains(nodes, a.Destination))
	}
	// Of one side alone no outcome is known, and in a flood of those who are served
	// none is bad.
	begins := func(a *dissect.Attempt) bool {
		return a.Outcome.Failed() || a.ID == f.FirstAttempt || f.Class < storm.PathLoss || f.Class == storm.ApplicationFlood
	}
	over := func(at int64) bool { return f.End != 0 && at > f.End }
	var causal *storm.Migration
	for i := range report.Migrations {
		if m := &report.Migrations[i]; m.Causal && m.Service == f.Service && (causal == nil || m.Share > causal.Share) {
			causal = m
		}
	}
	var before, onset *dissect.Attempt
	var again, late, moved, back bool
	for a, err := range r.Analysis.Attempts() {
		if err != nil {
			return err
		}
		if !mine(a) {
			continue
		}
		accepted := a.Outcome == dissect.OutcomeAccepted
		switch {
		case f.Class == storm.Calm:
			if a.Relation.Counted() && onset == nil {
				c := *a
				onset = &c
				add("the first attempt: "+fate(a), a.File, a.FirstFrame, a.Start, a)
			}
		case a.Start < f.Onset:
			if accepted {
				c := *a
				before = &c
			}
		case onset == nil && a.Relation.Counted() && begins(a):
			if before != nil {
				add("the last that was accepted before", before.File, before.FirstFrame, before.Start, before)
			}
			c := *a
			onset, e.first = &c, &c.Source
			what := "the first of the finding: "
			if a.Outcome.Failed() {
				what = "the first that failed: "
			}
			add(what+fate(a), a.File, a.FirstFrame, a.Start, a)
		case onset == nil || over(a.Start):
			if onset != nil && accepted && !back {
				back = true
				add("the first that was accepted afterwards", a.File, a.FirstFrame, a.Start, a)
			}
		case !again && a.ClientID == onset.ClientID && a.Relation.Retries():
			again = true
			add(fmt.Sprintf("the same client again after %s, a %s: %s", lasted(a.Start-onset.Start), a.Relation, fate(a)), a.File, a.FirstFrame, a.Start, a)
		case !late && a.Late:
			late = true
			add("the first that was answered too late", a.File, a.FirstFrame, a.Start, a)
		case !moved && causal != nil && a.Relation == dissect.RelationFailover && a.Destination == causal.To && a.Start >= causal.First:
			moved = true
			add(fmt.Sprintf("one of %s that came from %v, before it fell", thousands(causal.Intents), causal.From), a.File, a.FirstFrame, a.Start, a)
		}
	}
	for i := range report.Nodes {
		n := &report.Nodes[i]
		if f.Class == storm.Calm || f.Service != "many" && n.Service != f.Service || len(nodes) > 0 && !slices.Contains(nodes, n.At) {
			continue
		}
		for _, p := range n.Periods {
			if p.Start >= f.Onset-storm.WindowLength && !over(p.Start) && n.Generation <= 1 {
				add(fmt.Sprintf("%v %s", n.At, befalls(p.Kind)), p.File, p.Frame, p.Start, nil)
				break
			}
		}
	}
	slices.SortStableFunc(e.Frames, func(a, b Frame) int { return cmp.Compare(a.Time, b.Time) })
	e.Frames = e.Frames[:min(len(e.Frames), mostFrames)]
	return nil
}

func befalls(k storm.PeriodKind) string {
	switch k {
	case storm.SelfProtecting:
		return "begins to protect itself"
	case storm.Overloaded:
		return "begins to answer too late"
	}
	return "goes down"
}

// fate is how an attempt ended, with what proves it.
func fate(a *dissect.Attempt) string {
	return fmt.Sprintf("%s, by %s", a.Outcome, a.Evidence)
}

// filters makes the display filters: the frames, the first conversation, and
// all of the finding.
func (e *Explanation) filters(nodes []dissect.Endpoint) {
	byFile := map[string][]string{}
	var order []string
	for i := range e.Frames {
		f := &e.Frames[i]
		if byFile[f.File] == nil {
			order = append(order, f.File)
		}
		term := "frame.number == " + strconv.FormatInt(f.Number, 10)
		if !slices.Contains(byFile[f.File], term) {
			byFile[f.File] = append(byFile[f.File], term)
		}
	}
	for _, file := range order {
		e.Filters = append(e.Filters, Filter{"these frames", file, strings.Join(byFile[file], " or ")})
	}
	for i := range e.Frames {
		if f := &e.Frames[i]; f.proto != 0 && strings.HasPrefix(f.What, "the first") {
			e.Filters = append(e.Filters, Filter{"the conversation of that attempt", f.File, conversation(f)})
			break
		}
	}
	f := &e.Finding
	if f.Class == storm.Calm {
		return
	}
	at := nodes
	if len(at) == 0 {
		at = f.Nodes
	}
	var hosts []string
	for _, n := range at {
		if h := addressTerm(n); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	where := strings.Join(hosts[:min(len(hosts), 12)], " or ")
	what := "all that the nodes said and heard meanwhile"
	switch {
	case where != "":
	case f.Offender != "" && e.first != nil:
		where, what = addressTerm(*e.first), "all that the client said and heard meanwhile"
	default:
		what = "all packets meanwhile"
	}
	span := fmt.Sprintf("frame.time_epoch >= %s", epoch(f.Onset))
	if f.End != 0 {
		span += fmt.Sprintf(" and frame.time_epoch <= %s", epoch(f.End))
	}
	if where != "" {
		span = "(" + where + ") and " + span
	}
	file := ""
	if len(order) == 1 {
		file = order[0]
	}
	e.Filters = append(e.Filters, Filter{what, file, span})
}

func epoch(ns int64) string { return fmt.Sprintf("%d.%09d", ns/1e9, ns%1e9) }

func addressTerm(n dissect.Endpoint) string {
	field := "ipv6.addr"
	if n.Addr.Is4() {
		field = "ip.addr"
	}
	return field + " == " + n.Addr.String()
}

// conversation selects both directions of an attempt, and ICMP errors that
// quote it.
func conversation(f *Frame) string {
	ports := "udp.port"
	if f.proto == dissect.ProtoTCP {
		ports = "tcp.port"
	}
	return fmt.Sprintf("%s and %s and %s == %d and %s == %d", addressTerm(f.source), addressTerm(f.node), ports, f.source.Port, ports, f.node.Port)
}
