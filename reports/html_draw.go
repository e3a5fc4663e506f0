package reports

import (
	"cmp"
	"fmt"
	"html"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// flow are the moves of intents from node to node: senders to the left,
// receivers to the right, a band as thick as the intents that moved.
type flow struct {
	Height      int
	From, To    []flowEnd
	Bands       template.HTML
	About, Most string
}

type flowEnd struct {
	Name, Whole, Count string
	Height             int
}

const (
	flowHeight = 320 // of all bands together at most, px
	flowBand   = 40  // of a band on the average, at most
	flowLeast  = 18  // of a node, for its name
	flowGap    = 6
)

// longName is from how many letters on a node goes by the end of its address.
const longName = 24

// shortNames calls nodes with long addresses by as many of their last groups as tell
// them apart, with the port; others go by their whole name. The names share room with
// what is drawn, and beginnings are what such addresses have in common.
func shortNames(nodes []dissect.Endpoint) map[dissect.Endpoint]string {
	names, long := map[dissect.Endpoint]string{}, []dissect.Endpoint(nil)
	for _, n := range nodes {
		if names[n] = n.String(); len(names[n]) > longName && !n.Addr.Is4() {
			long = append(long, n)
		}
	}
	for groups := 2; groups < 8 && len(long) > 0; groups++ {
		short, taken := map[dissect.Endpoint]string{}, map[string]dissect.Endpoint{}
		for _, n := range long {
			name := "…"
			for g := 16 - 2*groups; g < 16; g += 2 {
				name += fmt.Sprintf("%x:", uint16(n.Addr[g])<<8|uint16(n.Addr[g+1]))
			}
			name += fmt.Sprint(n.Port)
			if other, ok := taken[name]; ok && other != n {
				short = nil
				break
			}
			short[n], taken[name] = name, n
		}
		if short != nil {
			maps.Copy(names, short)
			break
		}
	}
	return names
}

func newFlow(report *storm.Report, limit int, z zone) *flow {
	var moves []*storm.Migration
	var all, stayed int64
	for i := range report.Migrations {
		m := &report.Migrations[i]
		if m.From == m.To {
			stayed += m.Intents
			continue
		}
		all += m.Intents
		moves = append(moves, m)
	}
	if all == 0 || limit == 0 {
		return nil
	}
	slices.SortStableFunc(moves, func(a, b *storm.Migration) int {
		return cmp.Or(cmp.Compare(rank(b.Causal), rank(a.Causal)), cmp.Compare(b.Intents, a.Intents))
	})
	f := &flow{About: fmt.Sprintf("%s intents went on at another node after a failure", thousands(all))}
	if stayed > 0 {
		f.About += fmt.Sprintf(", %s at the same", thousands(stayed))
	}
	f.About += "."
	if len(moves) > limit {
		f.About += fmt.Sprintf(" Shown are %d of %s ways, the causal and the busiest; the table migrations has all.", limit, thousands(int64(len(moves))))
		moves = moves[:limit]
	}
	var sum int64
	type end struct {
		at       dissect.Endpoint
		n        int64
		weight   float64 // for the order of the receivers
		y, h     int
		used     float64
		earliest int64
	}
	var from, to []*end
	find := func(list *[]*end, at dissect.Endpoint) *end {
		for _, e := range *list {
			if e.at == at {
				return e
			}
		}
		*list = append(*list, &end{at: at, earliest: math.MaxInt64})
		return (*list)[len(*list)-1]
	}
	for _, m := range moves {
		sum += m.Intents
		e := find(&from, m.From)
		e.n += m.Intents
		e.earliest = min(e.earliest, m.First)
	}
	slices.SortStableFunc(from, func(a, b *end) int { return cmp.Compare(a.earliest, b.earliest) })
	for _, m := range moves {
		e := find(&to, m.To)
		e.n += m.Intents
		for i, s := range from {
			if s.at == m.From {
				e.weight += float64(i) * float64(m.Intents)
			}
		}
	}
	slices.SortStableFunc(to, func(a, b *end) int { return cmp.Compare(a.weight/float64(a.n), b.weight/float64(b.n)) })
	scale := float64(min(flowHeight, flowBand*len(moves))) / float64(sum)
	var nodes []dissect.Endpoint
	for _, e := range append(slices.Clone(from), to...) {
		nodes = append(nodes, e.at)
	}
	names := shortNames(nodes)
	lay := func(list []*end) (rows []flowEnd, height int) {
		for _, e := range list {
			e.y, e.h = height, max(flowLeast, int(float64(e.n)*scale+0.5))
			e.used = float64(e.y) + (float64(e.h)-float64(e.n)*scale)/2
			rows = append(rows, flowEnd{names[e.at], e.at.String(), thousands(e.n), e.h})
			height += e.h + flowGap
		}
		return rows, height - flowGap
	}
	var left, right int
	f.From, left = lay(from)
	f.To, right = lay(to)
	f.Height = max(left, right)
	// Bands leave a node in the order in which they arrive, so that they do not
	// cross more than they must.
	order := func(m *storm.Migration) int { return slices.IndexFunc(to, func(e *end) bool { return e.at == m.To }) }
	slices.SortStableFunc(moves, func(a, b *storm.Migration) int { return cmp.Compare(order(a), order(b)) })
	var b strings.Builder
	for _, m := range moves {
		s, e := find(&from, m.From), find(&to, m.To)
		t := math.Max(float64(m.Intents)*scale, 0.75)
		y0, y1 := s.used, e.used
		s.used += float64(m.Intents) * scale
		e.used += float64(m.Intents) * scale
		class, why := "move", ""
		if m.Causal {
			class, why = "move causal", fmt.Sprintf(", %.0f %% of the excess before it fell", 100*m.Share)
		}
		fmt.Fprintf(&b, `<path class="%s" d="M0 %sC50 %s 50 %s 100 %sV%sC50 %s 50 %s 0 %sz"><title>%s</title></path>`, class,
			trim(y0), trim(y0), trim(y1), trim(y1), trim(y1+t), trim(y1+t), trim(y0+t), trim(y0+t),
			html.EscapeString(fmt.Sprintf("%s intents from %s to %s, %s to %s%s", thousands(m.Intents), m.From, m.To, z.clock(m.First), z.clock(m.Last), why)))
	}
	f.Bands = template.HTML(b.String())
	return f
}

// policyCard is how a group of clients retries.
type policyCard struct {
	Group, Service, Words string
	Facts                 []fact
	Smells                []string
	Plot                  template.HTML
	About                 string
}

// perOctave is how fine the histograms of gaps are: a column is 19 % wide.
const perOctave = 4

func octave(ns float64) float64 { return math.Log2(math.Max(ns, 1e5)/1e5) * perOctave }

// fewGaps are not worth a drawing of their own, but on the verdict's service.
const fewGaps = 10

func (p *page) policies(report *storm.Report) {
	var drawn []*storm.Policy
	here := func(q *storm.Policy) int { return rank(q.Service == report.Verdict.Service) }
	named := func(q *storm.Policy) int { return rank(q.Family != "undetermined") }
	for i := range report.Policies {
		if q := &report.Policies[i]; here(q)+named(q) > 0 || q.Gaps >= fewGaps {
			drawn = append(drawn, q)
		}
	}
	slices.SortStableFunc(drawn, func(a, b *storm.Policy) int { return cmp.Or(here(b)-here(a), named(b)-named(a)) })
	drawn = drawn[:min(len(drawn), p.budget.cards)]
	switch {
	case len(drawn) == 0 && len(report.Policies) > 0:
		p.PolicyText = "No group of clients waited often enough before a retry for a picture; the table policies has what there is."
	case len(drawn) < len(report.Policies):
		p.PolicyText = fmt.Sprintf("Drawn are %d of %s groups of clients: those of the verdict's service, then those whose family is known; the table policies has all.", len(drawn), thousands(int64(len(report.Policies))))
	}
	for _, q := range drawn {
		c := policyCard{Group: clip(q.Group, 60), Service: clip(q.Service, 60), Words: policyWords(q), Smells: q.Smells}
		if q.Group == "all" {
			c.Group = "all clients"
		}
		add := func(known bool, name, value string) {
			if known {
				c.Facts = append(c.Facts, fact{name, value})
			}
		}
		add(true, "clients", thousands(q.Clients))
		add(true, "gaps seen", thousands(q.Gaps))
		add(q.Timeout > 0, "patience", brief(q.Timeout))
		add(q.Limit > 0, "attempts at most", thousands(int64(q.Limit)))
		add(q.Order != "undetermined", "order of nodes", words(q.Order))
		add(q.Synchrony > 0, "synchrony R", fixed(q.Synchrony))
		add(q.Herd, "in step", "yes")
		c.Plot, c.About = gapPlot(q)
		p.Policies = append(p.Policies, c)
	}
}

// policyWords says a policy in one line.
func policyWords(q *storm.Policy) string {
	s, base := words(q.Family), brief(q.Base)
	if q.Holds {
		base += " with the wait for an answer"
	}
	switch q.Family {
	case "undetermined":
		return "too few gaps to name a family"
	case "exponential":
		s += fmt.Sprintf(", %s × %s", base, short(q.Factor))
	case "linear":
		s += fmt.Sprintf(", %s + %s each", base, brief(q.Step))
	case "quadratic":
		s += fmt.Sprintf(", %s + %s k²", base, brief(q.Step))
	case "immediate":
	default:
		s += ", " + base
	}
	if q.Cap > 0 {
		s += ", at most " + brief(q.Cap)
	}
	if q.Jitter != "undetermined" {
		if q.Jitter == "none" {
			s += ", no jitter"
		} else {
			s += ", " + words(q.Jitter) + " jitter"
		}
	}
	return s
}

// jitterSpread is where the gaps lie around their median under a jitter, as
// factors; the draws are even between.
var jitterSpread = map[string][2]float64{"none": {0.98, 1.02}, "ten_percent": {0.9, 1.1}, "equal": {2.0 / 3, 4.0 / 3}, "fifty_percent": {0.5, 1.5},
	"full": {0, 2}, "decorrelated": {0.5, 1.5}, "undetermined": {0.95, 1.05}}

// gapPlot draws the gaps of a policy as a histogram, and over it what the
// inferred family and jitter would give for as many.
func gapPlot(q *storm.Policy) (template.HTML, string) {
	const columns = 130
	var seen, model [columns]float64
	var fitted []*storm.Waits
	total := 0.0
	place := func(into *[columns]float64, from, to, n float64) { // even between from and to
		if to <= from {
			to = from + 1
		}
		for c := int(octave(from)); c < columns && c <= int(octave(to)); c++ {
			low, high := 1e5*math.Pow(2, float64(c)/perOctave), 1e5*math.Pow(2, float64(c+1)/perOctave)
			if c == 0 {
				low = 0
			}
			if part := math.Min(high, to) - math.Max(low, from); part > 0 {
				into[c] += n * part / (to - from)
			}
		}
	}
	announced, fromStart := false, false
	for i := range q.Waits {
		w := &q.Waits[i]
		n := 0.0
		for _, g := range w.Gaps {
			place(&seen, float64(g.From), float64(g.To), float64(g.N))
			n += float64(g.N)
		}
		total += n
		announced = announced || w.Step == 0
		fromStart = fromStart || !w.FromFailure && w.Step > 0
		if w.Fitted > 0 && q.Family != "undetermined" {
			fitted = append(fitted, w)
			s := jitterSpread[q.Jitter]
			place(&model, float64(w.Fitted)*s[0], float64(w.Fitted)*s[1], n)
		}
	}
	if total == 0 {
		return "", ""
	}
	first, last, top := columns, 0, 0.0
	for c := range columns {
		if seen[c] >= total/1000 || model[c] >= total/1000 {
			first, last = min(first, c), max(last, c)
		}
		top = math.Max(top, math.Max(seen[c], model[c]))
	}
	first, last = max(0, first-perOctave), min(columns, last+1+perOctave)
	if last-first < 6*perOctave { // not a barn door for one gap
		more := (6*perOctave - (last - first)) / 2
		first, last = max(0, first-more), min(columns, last+more)
	}
	const height, head = 110, 18
	y := func(v float64) string { return trim(height * (1 - v/top)) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="gaps" width="100%%" height="%d" role="img" aria-label="histogram of the gaps between attempts, and what the family gives">`, height+head+20)
	fmt.Fprintf(&b, `<svg y="%d" width="100%%" height="%d" viewBox="%d 0 %d %d" preserveAspectRatio="none">`, head, height, first, last-first, height)
	for c := first; c < last; c++ {
		if seen[c] > 0 {
			fmt.Fprintf(&b, `<rect class="seen" x="%s" y="%s" width=".8" height="%s"/>`, trim(float64(c)+0.1), y(seen[c]), trim(height*seen[c]/top))
		}
	}
	if len(fitted) > 0 {
		b.WriteString(`<path class="model" d="`)
		open := false
		for c := first; c < last; c++ {
			if some := model[c] > 0; some && !open {
				fmt.Fprintf(&b, "M%d %d", c, height)
				open = true
			} else if !some && open {
				fmt.Fprintf(&b, "V%d", height)
				open = false
			}
			if open {
				fmt.Fprintf(&b, "V%sh1", y(model[c]))
			}
		}
		if open {
			fmt.Fprintf(&b, "V%d", height)
		}
		b.WriteString(`"/>`)
	}
	b.WriteString(`</svg>`)
	percent := func(ns float64) float64 { return 100 * (octave(ns) - float64(first)) / float64(last-first) }
	fmt.Fprintf(&b, `<line class="base" x1="0" x2="100%%" y1="%d" y2="%d"/>`, height+head, height+head)
	for ns := 1e5; ns < 1e15; ns *= 10 {
		if x := percent(ns); x >= 4 && x <= 96 {
			fmt.Fprintf(&b, `<text x="%s%%" y="%d" text-anchor="middle">%s</text>`, trim(x), height+head+15, brief(int64(ns)))
		}
	}
	// Numbers of the steps above their medians, where there is room.
	room := -10.0
	for _, w := range fitted {
		x := percent(float64(w.Fitted))
		if w.Step > 0 && x-room > 4 && x < 99 {
			room = x
			fmt.Fprintf(&b, `<text class="step" x="%s%%" y="12" text-anchor="middle">%d</text>`, trim(x), w.Step)
		}
	}
	b.WriteString(`</svg>`)
	about := "Wait from the failure to the next attempt"
	switch {
	case announced:
		about = "Wait that the servers announced"
	case fromStart:
		about = "Time from attempt to attempt"
	}
	about += ", log scale. Bars: seen."
	if len(fitted) > 0 {
		about += " Line: what the family gives for as many."
		if len(fitted) > 1 {
			about += " Numbers: after the first, second, … failure."
		}
	}
	return template.HTML(b.String()), about
}

// oddsChart compares the versions of a service.
type oddsChart struct {
	service string
	Service string // as it is shown
	Rows    []oddsRow
	Scale   template.HTML
	Cut     string
}

type oddsRow struct {
	Version, Clients, With string
	Early, Late            string
	Plot                   template.HTML
}

// oddsScale is a log scale from 1/top to top; top is a power of 8.
type oddsScale float64

func newOddsScale(versions []storm.Version, service string) oddsScale {
	most := 8.0
	for i := range versions {
		if v := &versions[i]; v.Service == service {
			for _, x := range [...]float64{v.EarlyLow, v.EarlyHigh, v.LateLow, v.LateHigh} {
				if x > 0 {
					most = math.Max(most, math.Max(x, 1/x))
				}
			}
		}
	}
	top := 8.0
	for top < most && top < 512 {
		top *= 8
	}
	return oddsScale(top)
}

// x in per cent; off says that the value lies beyond the scale.
func (s oddsScale) x(v float64) (x float64, off bool) {
	top := float64(s)
	c := math.Min(math.Max(v, 1/top), top)
	return 50 + 48*math.Log(c)/math.Log(top), c != v
}

func (s oddsScale) svg() template.HTML {
	var b strings.Builder
	b.WriteString(`<svg class="odds" width="100%" height="18" aria-hidden="true">`)
	for v := 1.0; v <= float64(s); v *= 8 {
		x, _ := s.x(v)
		fmt.Fprintf(&b, `<text x="%s%%" y="13" text-anchor="middle">%g</text>`, trim(x), v)
		if v > 1 {
			fmt.Fprintf(&b, `<text x="%s%%" y="13" text-anchor="middle">1/%g</text>`, trim(100-x), v)
		}
	}
	return template.HTML(b.String() + `</svg>`)
}

func (p *page) odds(report *storm.Report) {
	var scale oddsScale
	if !slices.ContainsFunc(report.Versions, func(v storm.Version) bool { return v.EarlyOdds != 0 || v.LateOdds != 0 }) && len(report.Versions) > 0 {
		p.OddsText = fmt.Sprintf("Versions seen: %d. No odds can be told: that takes a finding, and a version that enough clients run (--threshold version_members). The table versions has what each did.", len(report.Versions))
	}
	for i := range report.Versions {
		v := &report.Versions[i]
		if v.EarlyOdds == 0 && v.LateOdds == 0 {
			continue
		}
		if n := len(p.Odds); n == 0 || p.Odds[n-1].service != v.Service {
			if n == p.budget.services {
				break
			}
			scale = newOddsScale(report.Versions, v.Service)
			p.Odds = append(p.Odds, oddsChart{service: v.Service, Service: clip(v.Service, 60), Scale: scale.svg()})
		}
		c := &p.Odds[len(p.Odds)-1]
		if len(c.Rows) >= p.budget.cards {
			c.Cut = fmt.Sprintf("Only the %d versions with most clients are shown; the table versions has all.", p.budget.cards)
			continue
		}
		row := oddsRow{Version: clip(v.Version, 60), Clients: thousands(v.Clients), With: v.AssociatedWith}
		var b strings.Builder
		b.WriteString(`<svg class="odds" width="100%" height="34" role="img" aria-label="odds ratios with 95 % intervals"><line class="one" x1="50%" x2="50%" y1="0" y2="34"/>`)
		draw := func(class string, y int, odds, low, high float64) string {
			if odds == 0 {
				return "too few"
			}
			x, _ := scale.x(odds)
			left, offLeft := scale.x(low)
			right, offRight := scale.x(high)
			fmt.Fprintf(&b, `<line class="ci %s" x1="%s%%" x2="%s%%" y1="%d" y2="%d"/>`, class, trim(left), trim(right), y, y)
			if offLeft {
				fmt.Fprintf(&b, `<svg x="%s%%" y="%d"><path class="off %s" d="M5 -4L0 0L5 4"/></svg>`, trim(left), y, class)
			}
			if offRight {
				fmt.Fprintf(&b, `<svg x="%s%%" y="%d"><path class="off %s" d="M-5 -4L0 0L-5 4"/></svg>`, trim(right), y, class)
			}
			if class == "early" {
				fmt.Fprintf(&b, `<circle class="early" cx="%s%%" cy="%d" r="5"/>`, trim(x), y)
			} else {
				fmt.Fprintf(&b, `<svg x="%s%%" y="%d"><rect class="late" x="-4.5" y="-4.5" width="9" height="9"/></svg>`, trim(x), y)
			}
			return fmt.Sprintf("%s (%s to %s)", number(odds), number(low), number(high))
		}
		row.Early = draw("early", 10, v.EarlyOdds, v.EarlyLow, v.EarlyHigh)
		row.Late = draw("late", 25, v.LateOdds, v.LateLow, v.LateHigh)
		b.WriteString(`</svg>`)
		row.Plot = template.HTML(b.String())
		c.Rows = append(c.Rows, row)
	}
}

// scoreBar draws how much of the evidence that was asked for is there.
func scoreBar(score float64) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg class="score" width="100%%" height="6" aria-hidden="true"><rect class="whole" width="100%%" height="6" rx="3"/><rect class="part" width="%s%%" height="6" rx="3"/></svg>`, trim(100*score)))
}
