package reports

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
	"squall/dissect/storm"
)

// Look is how a screen is drawn.
type Look struct {
	Width    int            // columns, at least 60
	Color    bool           // terminal colours
	Markdown bool           // a page instead: headings, lists, tables
	Zone     *time.Location // of times; nil = UTC
}

const (
	leastWidth = 60
	listed     = 8 // rows of each list
	// A screen is looked at as a whole: its lists and its chart are shorter, the
	// lists still more when it has not room enough. A page is scrolled.
	screenLines           = 50
	mostRows, leastRows   = 5, 3
	pageChart, smallChart = 8, 6 // lines
	proseWidth            = 15   // of a column of prose, at least
	nameWidth             = 24   // of a column of names, at least, where they are that long
)

// Screen writes the analysis for reading: verdict, what was read, totals, the
// busiest nodes and clients, and the attempts over time, on one screen of a
// terminal; or the same as a page, with every column.
func Screen(w io.Writer, r *Results, look Look) error {
	r = r.ForReading()
	report, err := r.Report()
	if err != nil {
		return err
	}
	if err := r.findHits(); err != nil {
		return err
	}
	look.Width = max(look.Width, leastWidth)
	s := &screen{look: look, report: report, listed: listed, hits: hitWords(r.hits[foundOf(&report.Verdict)])}
	if look.Markdown {
		s.all(r)
	} else {
		for s.listed = mostRows; ; s.listed-- {
			s.out.Reset()
			s.brief(r)
			if s.listed == leastRows || bytes.Count(s.out.Bytes(), []byte("\n")) <= screenLines {
				break
			}
		}
	}
	_, err = w.Write(s.out.Bytes())
	return err
}

func (s *screen) all(r *Results) {
	s.verdict()
	s.read(r)
	s.totals()
	s.nodes()
	s.clients()
	s.chart()
	s.policies()
	s.versions()
	s.notes()
}

func (s *screen) brief(r *Results) {
	s.title(&s.report.Verdict)
	s.say(2, s.report.Summary)
	s.criteria(&s.report.Verdict)
	s.against()
	s.harm()
	if len(s.hits) > 0 {
		s.say(2, "failed, "+strings.Join(s.hits, "; "))
	}
	s.noted(r)
	s.others()
	s.read(r)
	s.totals()
	s.nodes()
	s.clients()
	s.chart()
	s.behaviour()
	s.notes()
	s.out.WriteByte('\n')
	s.say(2, "more: squall explain; squall report nodes, clients, policies, versions; analyze -T markdown")
}

func (s *screen) zone() zone { return zone{s.look.Zone} }

func (s *screen) clock(ns int64) string { return s.zone().clock(ns) }

type screen struct {
	out    bytes.Buffer
	look   Look
	report *storm.Report
	listed int      // rows of each list
	hits   []string // groups that the verdict hit
}

// Colours of outcomes, from the palette of Okabe and Ito as far as 256 colours
// go: told apart by colour-blind readers, and by shape without any colour.
const (
	plain  = ""
	bold   = "1"
	dim    = "2"
	green  = "38;5;36"
	orange = "38;5;208"
	gray   = "38;5;245"
)

func (s *screen) paint(style, text string) string {
	if !s.look.Color || style == plain {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (s *screen) head(text string) {
	if s.look.Markdown {
		fmt.Fprintf(&s.out, "\n## %s\n", escapeMarkdown(printable(text)))
		return
	}
	fmt.Fprintf(&s.out, "\n%s\n", s.paint(bold, printable(text)))
}

// say writes a text, broken at words to the width.
func (s *screen) say(indent int, text string) {
	if s.look.Markdown {
		fmt.Fprintf(&s.out, "\n%s\n", escapeMarkdown(printable(text)))
		return
	}
	lead := strings.Repeat(" ", indent)
	line := ""
	for _, word := range strings.Fields(printable(text)) {
		if line != "" && indent+len([]rune(line))+1+len([]rune(word)) > s.look.Width {
			s.out.WriteString(lead + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		s.out.WriteString(lead + line + "\n")
	}
}

// hang writes a text behind a mark, its further lines under its first.
func (s *screen) hang(indent int, mark, text string) {
	if s.look.Markdown {
		words := map[string]string{"+": "for: ", "-": "against: "}
		fmt.Fprintf(&s.out, "%s- %s%s\n", strings.Repeat(" ", indent-2), words[mark], escapeMarkdown(printable(text)))
		return
	}
	wide := indent + len([]rune(plainText(mark))) + 1
	for i, line := range wrapped(printable(text), s.look.Width-wide) {
		if i == 0 {
			s.out.WriteString(strings.Repeat(" ", indent) + mark + " " + line + "\n")
			continue
		}
		s.out.WriteString(strings.Repeat(" ", wide) + line + "\n")
	}
}

// plainText is a text without colours.
func plainText(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == 0x1b {
			for i < len(s) && s[i] != 'm' {
				i++
			}
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// title is what a finding is, where, and how sure that is.
func (s *screen) title(v *storm.Finding) {
	name := title(v)
	if s.look.Markdown {
		fmt.Fprintf(&s.out, "# %s", name)
		if v.Service != "" {
			s.out.WriteString(" on " + escapeMarkdown(printable(v.Service)))
		}
		fmt.Fprintf(&s.out, "\n\nConfidence: %s.\n", v.Confidence)
		return
	}
	style := green
	if v.Class >= storm.PathLoss {
		style = orange
	}
	line := s.paint(bold+";"+style, name)
	if !s.look.Color {
		line = name
	}
	if v.Service != "" {
		line += "  " + printable(v.Service)
	}
	fmt.Fprintf(&s.out, "%s  (confidence %s)\n", line, v.Confidence)
}

func (s *screen) verdict() {
	v := &s.report.Verdict
	s.title(v)
	s.say(2, s.report.Summary)
	var rows [][]string
	for i := range v.Criteria {
		c := &v.Criteria[i]
		rows = append(rows, []string{c.Name, number(c.Value), needed(c), c.Unit, metWord(c), noteOf(c)})
	}
	if len(rows) > 0 {
		s.out.WriteByte('\n')
		s.grid([]string{"criterion", "value", "needed", "unit", "met", "note"}, rows, 1)
	}
	s.against()
	if len(s.hits) > 0 {
		s.say(2, "failed, "+strings.Join(s.hits, "; "))
	}
	if len(s.report.Findings) > 1 {
		s.head("All findings")
	}
	for i := range s.report.Findings {
		f := &s.report.Findings[i]
		if i >= s.listed {
			s.say(2, fmt.Sprintf("and %d more findings: squall report findings", len(s.report.Findings)-i))
			break
		}
		if len(s.report.Findings) == 1 {
			break // it is the verdict
		}
		s.say(2, s.spanOf(f)+" "+f.Class.String()+" "+f.Service)
	}
}

func (s *screen) spanOf(f *storm.Finding) string {
	end := "capture end"
	if f.End != 0 {
		end = s.clock(f.End)
	}
	return s.clock(f.Onset) + " to " + end
}

// criteria are the numbers behind the verdict in a line or two; explain has the
// table.
func (s *screen) criteria(v *storm.Finding) {
	var parts []string
	for i := range v.Criteria {
		c := &v.Criteria[i]
		value, limit := strings.TrimSuffix(number(c.Value), ".0"), strings.TrimSuffix(needed(c), ".0")
		text := fmt.Sprintf("%s %s %s", c.Name, value, limit)
		switch {
		case c.Waived:
			if text = c.Name + " waived"; noteOf(c) != "" {
				text += " (" + noteOf(c) + ")"
			}
		case !c.Met:
			text = fmt.Sprintf("%s %s, not %s", c.Name, value, limit)
		}
		parts = append(parts, text)
	}
	if len(parts) > 0 {
		s.say(2, "criteria: "+strings.Join(parts, "; "))
	}
}

// against is how the service of the verdict, or the busiest, compares with the
// calm day.
func (s *screen) against() {
	if words := againstWords(s.report); words != "" {
		s.say(2, words)
	}
}

func againstWords(r *storm.Report) string {
	b := r.Baseline
	if b == nil {
		return ""
	}
	a := b.Of(r.Verdict.Service)
	where := ""
	if a == nil && len(b.Services) > 0 && (r.Verdict.Service == "" || len(r.Findings) == 0) {
		a = &b.Services[0]
		where = " on " + a.Service
	}
	if a == nil {
		return fmt.Sprintf("baseline %s: %s is not in it", b.Name, r.Verdict.Service)
	}
	if a.CalmService != a.Service {
		where += fmt.Sprintf(" (%s there)", a.CalmService)
	}
	when := "at the same time of day"
	if !a.Aligned {
		when = "in its median, for it does not cover this time of day"
	}
	what := "attempts/s"
	if b.Flows {
		what = "new flows/s"
	}
	percents := func(f float64) string {
		if f == 0 {
			return "0"
		}
		return share(f)
	}
	text := fmt.Sprintf("baseline %s%s: %s attempts/s, there %s %s %s", b.Name, where, number(a.Rate), number(a.CalmRate), what, when)
	if a.Volume() > 0 {
		text += fmt.Sprintf(" (%sx)", short(a.Volume()))
	}
	if a.CalmFailure >= 0 {
		text += fmt.Sprintf("; %s %% failed, there %s %%", percents(a.Failure), percents(a.CalmFailure))
	} else {
		text += fmt.Sprintf("; %s %% failed, there not known: flow records do not say", percents(a.Failure))
	}
	if a.Surge > 0 {
		text += fmt.Sprintf("; surge %sx", short(a.Surge))
	}
	return text
}

// harm is what the clients of the verdict went through.
func (s *screen) harm() {
	v := &s.report.Verdict
	if v.Clients == 0 || v.LockedOut == 0 {
		return
	}
	line := fmt.Sprintf("impact: %s locked out for %s client-minutes", many(v.Clients, "client"), short(float64(v.LockedOut)/60e9))
	if v.AttachP50 > 0 {
		line += fmt.Sprintf("; from intent to acceptance p50 %s, p95 %s, p99 %s", brief(v.AttachP50), brief(v.AttachP95), brief(v.AttachP99))
	}
	s.say(2, line)
}

// nearOnset is how far from the onset what people noted is worth a line.
const nearOnset = 15 * 60 * int64(1e9)

// noted are the notes of --events next to the onset, in their order, two at most.
func (s *screen) noted(r *Results) {
	v := &s.report.Verdict
	if v.Onset == 0 {
		return
	}
	away := func(e Event) int64 { return max(e.Time-v.Onset, v.Onset-e.Time) }
	near := slices.DeleteFunc(slices.Clone(r.Told), func(e Event) bool { return away(e) > nearOnset })
	slices.SortStableFunc(near, func(a, b Event) int { return cmp.Compare(away(a), away(b)) })
	near = near[:min(len(near), 2)]
	slices.SortStableFunc(near, func(a, b Event) int { return cmp.Compare(a.Time, b.Time) })
	for _, e := range near {
		when := "at the onset"
		if d := e.Time - v.Onset; d < 0 {
			when = brief(-d) + " before the onset"
		} else if d > 0 {
			when = brief(d) + " after the onset"
		}
		s.say(2, "noted "+s.clock(e.Time)+", "+when+": "+clip(e.What, 200))
	}
}

// others are the findings beside the verdict.
func (s *screen) others() {
	v := &s.report.Verdict
	const most = 3
	n := 0
	for i := range s.report.Findings {
		f := &s.report.Findings[i]
		if f.Class == v.Class && f.Service == v.Service && f.Onset == v.Onset {
			continue
		}
		if n++; n <= most {
			s.say(2, "also: "+s.spanOf(f)+" "+f.Class.String()+" on "+f.Service)
		}
	}
	if n > most {
		s.say(2, fmt.Sprintf("and %d more findings: squall report findings", n-most))
	}
}

func (s *screen) read(r *Results) {
	s.head("Captures")
	all := r.Analysis.Captures()
	q := r.Analysis.Quality()
	var octets int64
	for _, c := range all {
		octets += c.Bytes
	}
	name := fmt.Sprintf("%d files", len(all))
	if len(all) == 1 {
		name = printable(all[0].Path)
	}
	what := "records"
	if len(all) == 0 {
		what = "packets"
	}
	for i := range all {
		if all[i].Dataset() == "packets" && !all[i].Quoted {
			what = "packets"
		}
	}
	begin, end := s.zone().stamp(q.Begin), s.zone().stamp(q.End)
	if !s.look.Markdown && q.Begin != 0 {
		b, e := s.zone().in(q.Begin), s.zone().in(q.End)
		begin, end = b.Format(time.RFC3339), e.Format(time.RFC3339)
		if b.Format(time.DateOnly) == e.Format(time.DateOnly) {
			end = s.clock(q.End)
		}
	}
	s.say(2, fmt.Sprintf("%s: %s "+what+", %s, %s to %s (%s)", name, thousands(q.Packets), bytesOf(octets),
		begin, end, lasted(q.End-q.Begin)))
	quality := []string{fmt.Sprintf("%s lost by the tap as far as it says", thousands(q.Dropped))}
	for _, c := range []struct {
		n    int64
		what string
	}{{q.Duplicates, "duplicates"}, {q.OutOfOrder, "out of order"}, {q.ClockSteps, "clock steps"}, {q.StrayTimes, "stray times"}, {q.Cut, "cut too short"}, {int64(len(q.Gaps)), "silences of more than 5 s"}} {
		if c.n == 1 {
			c.what = strings.Replace(strings.TrimSuffix(c.what, "s"), "silences of more than 5 ", "silence of more than 5 s", 1)
		}
		if c.n > 0 {
			quality = append(quality, thousands(c.n)+" "+c.what)
		}
	}
	ends, which := 0, ""
	var at int64
	for i := range all {
		if d := all[i].Damage; d != nil && d.Tail {
			ends, at = ends+1, d.Frame
			if len(all) > 1 {
				which = filepath.Base(all[i].Path) + " "
			}
		}
	}
	switch {
	case ends > 1:
		quality = append(quality, fmt.Sprintf("%s files end inside their last record, as %s(frame %d)", thousands(int64(ends)), which, at))
	case ends == 1:
		quality = append(quality, fmt.Sprintf("%sends inside its last record (frame %d)", which, at))
	}
	if q.Damaged {
		quality = append(quality, "an input was damaged: what follows is partial")
	}
	s.say(2, "quality: "+strings.Join(quality, ", "))
	l := r.Analysis.Ledger()
	var parts []string
	for b := range dissect.NumBuckets {
		if l[b] > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", b, thousands(l[b])))
		}
	}
	if len(parts) > 0 {
		s.say(2, "ledger: "+strings.Join(parts, ", "))
	}
}

func (s *screen) totals() {
	t := &s.report.Totals
	s.head("Totals")
	surge := "-"
	if t.IntentSurge > 0 {
		surge = short(t.IntentSurge) + "x"
	}
	s.grid([]string{"attempts", "intents", "retries", "A", "retry %", "fail %", "late %", "surge", "clients", "nodes"},
		[][]string{{thousands(t.Attempts), thousands(t.Intents), thousands(t.Retries), fixed(t.Amplification()), share(t.RetryShare()),
			share(t.FailureRatio()), share(t.LateRatio()), surge, thousands(t.Clients), thousands(t.Nodes)}}, 0)
	var parts []string
	for o := range dissect.NumOutcomes {
		if n := t.Outcomes[o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", o, thousands(n)))
		}
	}
	if len(parts) > 0 {
		s.say(2, "outcomes: "+strings.Join(parts, ", "))
	}
	if t.NATSuspects > 0 {
		s.say(2, fmt.Sprintf("%s addresses seem to stand for several hosts (nat_suspect): their relations and A are not to be trusted", thousands(t.NATSuspects)))
	}
	if m := monitorsInWords(s.report); m != "" {
		s.say(2, m)
	}
	if n := t.AppAccepts + t.ByteAccepts + t.AgeAccepts; n > 0 {
		s.say(2, fmt.Sprintf("accepts proven by the application %d %%, by bytes %d %%, by age %d %%; refreshes %s, parallel dials %s",
			percent(t.AppAccepts, n), percent(t.ByteAccepts, n), percent(t.AgeAccepts, n), thousands(t.Refreshes), thousands(t.Parallels)))
	}
}

// many is a number of things, in the singular where it is one.
func many(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return thousands(n) + " " + thing + "s"
}

// monitorsInWords names who checks nodes; "" without any.
func monitorsInWords(r *storm.Report) string {
	if len(r.Monitors) == 0 {
		return ""
	}
	var who []string
	failed := int64(0)
	for i, m := range r.Monitors {
		failed += m.Failed
		if i < 3 {
			who = append(who, fmt.Sprintf("%s (%s every %s)", m.ID, many(m.Nodes, "node"), lasted(m.Every)))
		}
	}
	if n := len(r.Monitors) - len(who); n > 0 {
		who = append(who, strconv.Itoa(n)+" more")
	}
	return fmt.Sprintf("monitors, left out of all this: %s; %s checks, %s unanswered", strings.Join(who, ", "), thousands(r.Totals.Checks), thousands(failed))
}

func (s *screen) nodes() {
	all := s.report.Nodes
	if len(all) == 0 {
		return
	}
	title := fmt.Sprintf("Nodes under most load, %d of %s", min(s.listed, len(all)), thousands(s.report.Totals.Nodes))
	var rows [][]string
	for i := range all[:min(s.listed, len(all))] {
		n := &all[i]
		state := ""
		if len(n.Periods) > 0 {
			p := n.Periods[0]
			state = strings.ReplaceAll(p.Kind.String(), "_", "-") + " " + s.clock(p.Start)
			if n.Generation >= 0 {
				state += ", gen " + strconv.Itoa(int(n.Generation))
			}
		}
		rows = append(rows, []string{n.At.String(), n.Service, thousands(n.Attempts), short(n.PeakRate), share(n.RetryShare()),
			share(n.FailureRatio()), state, share(n.LateRatio()), thousands(n.Clients)})
	}
	s.about(title, rows, 1)
	s.grid([]string{"node", "service", "attempts", "peak/s", "retry %", "fail %", "period", "late %", "clients"}, rows, 2)
}

func (s *screen) policies() {
	all := s.report.Policies
	if len(all) == 0 {
		return
	}
	var rows [][]string
	for i := range all[:min(s.listed, len(all))] {
		p := &all[i]
		limit := "-"
		if p.Limit > 0 {
			limit = strconv.Itoa(int(p.Limit))
		}
		base := lasted(p.Base)
		if p.Holds {
			base = "≤ " + base
		}
		rows = append(rows, []string{p.Group, p.Service, p.Family, base, short(p.Factor), lasted(p.Cap), p.Jitter, limit, p.Order, strings.Join(p.Smells, " ")})
	}
	s.about("Retry policies, as the gaps show them", rows, 1)
	s.grid([]string{"clients", "service", "family", "base", "factor", "cap", "jitter", "limit", "order", "smells"}, rows, 3)
}

// behaviour is what stands out of policies and versions, a line each.
func (s *screen) behaviour() {
	var lines []string
	told := map[string]bool{}
	where := func(service string) string {
		if service == s.report.Verdict.Service {
			return ""
		}
		return " on " + service
	}
	for i := range s.report.Policies {
		p := &s.report.Policies[i]
		if p.Family == "undetermined" {
			continue
		}
		text := p.Family
		if p.Base > 0 {
			text += " " + lasted(p.Base)
		}
		if p.Holds {
			text += " with the wait for an answer in it"
		}
		if p.Factor > 0 {
			text += ", factor " + short(p.Factor)
		}
		if p.Cap > 0 {
			text += ", cap " + lasted(p.Cap)
		}
		text += ", jitter " + p.Jitter
		if p.Order != "" {
			text += ", nodes " + p.Order
		}
		if p.Limit > 0 {
			text += fmt.Sprintf(", at most %d tries", p.Limit)
		}
		if len(p.Smells) > 0 {
			text += "; " + strings.Join(p.Smells, ", ")
		}
		if !told[p.Service+text] { // a version that does as all do is no news
			told[p.Service+text] = true
			lines = append(lines, fmt.Sprintf("%s%s: %s", p.Group, where(p.Service), text))
		}
	}
	for i := range s.report.Versions {
		if v := &s.report.Versions[i]; v.Associated {
			lines = append(lines, fmt.Sprintf("%s%s: %s %% of clients, %s %% of retries, A %s; associated with the %s (odds early %s, late %s)", v.Version,
				where(v.Service), share(v.ClientShare), share(v.RetryShare), fixed(v.Amplification), strings.ReplaceAll(v.AssociatedWith, ",", " and "), short(v.EarlyOdds), short(v.LateOdds)))
		}
	}
	if len(lines) == 0 {
		return
	}
	const most = 4
	s.head("Retry policies and versions")
	for _, l := range lines[:min(most, len(lines))] {
		s.say(2, l)
	}
	if n := len(lines) - most; n > 0 {
		s.say(2, fmt.Sprintf("and %d more: squall report policies, squall report versions", n))
	}
}

func (s *screen) versions() {
	all := s.report.Versions
	if len(all) == 0 {
		return
	}
	var rows [][]string
	for i := range all[:min(s.listed, len(all))] {
		v := &all[i]
		rows = append(rows, []string{v.Version, v.Service, thousands(v.Clients), share(v.ClientShare), share(v.RetryShare), fixed(v.Amplification),
			v.AssociatedWith, short(v.EarlyOdds), short(v.LateOdds)})
	}
	s.about("Versions", rows, 1)
	s.grid([]string{"version", "service", "clients", "clients %", "retries %", "A", "with", "early odds", "late odds"}, rows, 2)
	if slices.ContainsFunc(all, func(v storm.Version) bool { return v.Associated }) {
		s.say(2, "with: a version is associated with a crash where its members fell first, with retries where its policy carries the storm; odds are those of its members against all others.")
	}
}

func (s *screen) clients() {
	all := s.report.Clients
	if len(all) == 0 {
		return
	}
	title := fmt.Sprintf("Clients that try most, %d of %s", min(s.listed, len(all)), thousands(s.report.Totals.Clients))
	var rows [][]string
	for i := range all[:min(s.listed, len(all))] {
		c := &all[i]
		rows = append(rows, []string{c.ID, c.Version, c.Service, thousands(c.Counts.Attempts), thousands(c.Intents), fixed(c.Amplification()), share(c.FailureRatio()),
			s.clock(c.First), s.clock(c.Last)})
	}
	s.about(title, rows, 2)
	s.grid([]string{"client", "version", "service", "attempts", "intents", "A", "fail %", "first", "last"}, rows, 3)
}

func (s *screen) notes() {
	if len(s.report.Notes) == 0 {
		return
	}
	s.head("Notes")
	most := len(s.report.Notes)
	if !s.look.Markdown {
		most = min(most, 3)
	}
	for _, n := range s.report.Notes[:most] {
		s.say(2, n)
	}
	if n := len(s.report.Notes) - most; n > 0 {
		s.say(2, fmt.Sprintf("and %d more: squall analyze -T markdown", n))
	}
}

// about heads a grid. A service that all rows share moves from its column into
// the heading.
func (s *screen) about(title string, rows [][]string, column int) {
	if first := rows[0][column]; first != "" && !slices.ContainsFunc(rows, func(r []string) bool { return r[column] != first }) {
		title += ", on " + printable(first)
		for _, r := range rows {
			r[column] = ""
		}
	}
	s.head(title)
}

// grid draws a small table: the first left columns to the left, the numbers to
// the right. Numbers are never cut; texts go on in further lines, those with
// blanks before others. Columns without a value are left out, and from the right
// those that still do not fit.
func (s *screen) grid(heading []string, rows [][]string, left int) {
	keep := []int{}
	for c := range heading {
		if slices.ContainsFunc(rows, func(r []string) bool { return r[c] != "" && r[c] != "-" && r[c] != "0s" }) {
			keep = append(keep, c)
		}
	}
	if s.look.Markdown {
		s.page(heading, rows, keep, left)
		return
	}
	rigid := make([]bool, len(heading))
	for c := range heading {
		rigid[c] = c >= left && numeric(rows, c)
	}
	keep, widths := fit(append([][]string{heading}, rows...), keep, left+1, rigid, proseWidth, s.look.Width)
	for i, r := range append([][]string{heading}, rows...) {
		cells := make([][]string, len(heading))
		lines := 1
		for _, c := range keep {
			cells[c] = wrapped(printable(r[c]), widths[c])
			lines = max(lines, len(cells[c]))
		}
		for k := range lines {
			var b strings.Builder
			for _, c := range keep {
				text := ""
				if k < len(cells[c]) {
					text = cells[c][k]
				}
				pad := strings.Repeat(" ", widths[c]-len([]rune(text)))
				if rigid[c] {
					text, pad = pad+text, ""
				}
				b.WriteString(columnGap + text + pad)
			}
			line := strings.TrimRight(b.String(), " ")
			if i == 0 {
				line = s.paint(dim, line)
			}
			s.out.WriteString(line + "\n")
		}
	}
}

// fit is how wide columns are where a line has width columns, a gap before each:
// those that are not rigid become narrower, prose (with blanks, but for the heading,
// the first row) down to prose, then names; what does not fit even so is left out, the
// last of keep first, but the first pinned ones.
func fit(rows [][]string, keep []int, pinned int, rigid []bool, prose, width int) (kept, widths []int) {
	n := len(rigid)
	widths = make([]int, n)
	least, full, blanks := make([]int, n), make([]int, n), make([]bool, n)
	total := 0
	for _, c := range keep {
		for i, r := range rows {
			widths[c] = max(widths[c], len([]rune(printable(r[c]))))
			blanks[c] = blanks[c] || i > 0 && !rigid[c] && strings.Contains(r[c], " ")
		}
		switch {
		case rigid[c]:
			least[c] = widths[c]
		case blanks[c]:
			least[c] = min(widths[c], prose)
		default: // names are broken last
			least[c] = min(widths[c], nameWidth)
		}
		full[c] = widths[c]
		total += widths[c] + len(columnGap)
	}
	for _, prose := range []bool{true, false} {
		for total > width {
			widest := -1
			for _, c := range keep {
				if widths[c] > least[c] && blanks[c] == prose && (widest < 0 || widths[c] > widths[widest]) {
					widest = c
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
			total--
		}
	}
	for total > width && len(keep) > pinned {
		last := keep[len(keep)-1]
		keep, total = keep[:len(keep)-1], total-widths[last]-len(columnGap)
	}
	for _, c := range slices.Backward(keep) { // what that freed
		if more := min(width-total, full[c]-widths[c]); more > 0 {
			widths[c], total = widths[c]+more, total+more
		}
	}
	return keep, widths
}

// page draws a grid as a table of Markdown.
func (s *screen) page(heading []string, rows [][]string, keep []int, left int) {
	s.out.WriteByte('\n')
	for i, r := range append([][]string{heading}, rows...) {
		for _, c := range keep {
			s.out.WriteString("| " + escapeMarkdown(printable(r[c])) + " ")
		}
		s.out.WriteString("|\n")
		if i > 0 {
			continue
		}
		for _, c := range keep {
			if c >= left && numeric(rows, c) {
				s.out.WriteString("|--:")
			} else {
				s.out.WriteString("|---")
			}
		}
		s.out.WriteString("|\n")
	}
}

// wrapped breaks a text at blanks, and a longer word where it must.
func wrapped(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		for len([]rune(word)) > width {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:width])), string(r[width:])
		}
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}

// command writes a shell command that can be copied: broken between words with
// a backslash, and inside the quoted last one, where a newline does no harm.
func (s *screen) command(words []string) {
	if s.look.Markdown {
		last := len(words) - 1
		fmt.Fprintf(&s.out, "\n```sh\n%s '%s'\n```\n", strings.Join(words[:last], " "), words[last])
		return
	}
	const indent = "    "
	line := indent
	room := s.look.Width - 2
	put := func(word, broken string) {
		if line != indent && len([]rune(line))+len([]rune(word))+1 > room {
			s.out.WriteString(line + broken + "\n")
			line = indent + "  "
		} else if line != indent {
			line += " "
		}
		line += word
	}
	for _, w := range words[:len(words)-1] {
		put(w, " \\")
	}
	terms := strings.Fields(words[len(words)-1])
	for i, t := range terms {
		broken := ""
		if i == 0 {
			t, broken = "'"+t, " \\"
		}
		if i == len(terms)-1 {
			t += "'"
		}
		put(t, broken)
	}
	s.out.WriteString(line + "\n")
}

func numeric(rows [][]string, c int) bool {
	for _, r := range rows {
		if t := strings.TrimLeft(r[c], "≤≥< "); t != "" && t != "-" && (t[0] < '0' || t[0] > '9') {
			return false
		}
	}
	return true
}

// chart draws the attempts over time, accepted below failed.
func (s *screen) chart() {
	var all []storm.Window
	for _, w := range s.report.Timeline {
		if w.Node == (dissect.Endpoint{}) {
			all = append(all, w)
		}
	}
	begin, end := s.report.Begin, s.report.End
	if len(all) == 0 || end <= begin {
		return
	}
	columns := s.look.Width - 12
	if s.look.Markdown {
		columns = min(columns, 80)
	}
	step := int64(storm.WindowLength)
	for (end-begin)/step >= int64(columns) {
		step += storm.WindowLength
	}
	first := begin / storm.WindowLength * storm.WindowLength
	type bar struct{ ok, failed, open int64 }
	bars := make([]bar, (end-first)/step+1)
	top := int64(1)
	for _, w := range all {
		i := (w.Start - first) / step
		if i < 0 || i >= int64(len(bars)) {
			continue
		}
		b := &bars[i]
		b.ok += w.Outcomes[dissect.OutcomeAccepted]
		b.failed += w.Outcomes.Failed()
		b.open += w.Outcomes[dissect.OutcomeUnknown]
		top = max(top, b.ok+b.failed+b.open)
	}
	legend := s.paint(green, "█") + " accepted  " + s.paint(orange, "▒") + " failed  " + s.paint(gray, "·") + " unknown"
	height := smallChart
	head := "Attempts a second over time, a column is " + lasted(step)
	beside := !s.look.Markdown && len(head)+3+len([]rune(plainText(legend))) <= s.look.Width
	if beside {
		fmt.Fprintf(&s.out, "\n%s   %s\n", s.paint(bold, head), legend)
	} else {
		s.head(head)
	}
	if s.look.Markdown {
		height = pageChart
		s.out.WriteString("\n```text\n")
		defer s.out.WriteString("```\n")
	}
	rate := float64(top) / (float64(step) / 1e9)
	for row := height; row > 0; row-- {
		label := ""
		if row == height || row == height/2 {
			label = short(rate * float64(row) / float64(height))
		}
		fmt.Fprintf(&s.out, "  %7s ", label)
		line := ""
		for _, b := range bars {
			// A cell belongs to the kind that its middle lies in; whatever
			// happened at all shows in the lowest row.
			at := (float64(row) - 0.5) / float64(height) * float64(top)
			n := b.ok + b.failed + b.open
			if row == 1 && n > 0 {
				at = math.Min(at, float64(n)/2)
			}
			switch {
			case at < float64(b.ok):
				line += s.paint(green, "█")
			case at < float64(b.ok+b.failed):
				line += s.paint(orange, "▒")
			case at < float64(n):
				line += s.paint(gray, "·")
			default:
				line += " "
			}
		}
		s.out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	left, right := s.clock(begin), s.clock(end)
	fmt.Fprintf(&s.out, "  %7s %s%s%s\n", "", left, strings.Repeat(" ", max(1, len(bars)-len(left)-len(right))), right)
	if !beside {
		fmt.Fprintf(&s.out, "  %7s %s\n", "", legend)
	}
}

// share prints a ratio as a percentage; - for none at all.
func share(f float64) string {
	switch {
	case f == 0:
		return "-"
	case f < 0.00095:
		return "<0.1"
	case f < 0.0995 || f > 0.995 && f < 1:
		return strconv.FormatFloat(100*f, 'f', 1, 64)
	}
	return strconv.FormatFloat(100*f, 'f', 0, 64)
}

func percent(a, b int64) int64 { return (100*a + b/2) / b }

func fixed(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

// short prints a number with three digits that matter; - for none.
func short(f float64) string {
	switch {
	case f == 0:
		return "-"
	case math.Abs(f) >= 100:
		return thousands(int64(math.Round(f)))
	case math.Abs(f) >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

// number is short, with 0 as a number.
func number(f float64) string {
	if f == 0 {
		return "0"
	}
	return short(f)
}

func thousands(n int64) string { return storm.Thousands(n) }

func bytesOf(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	f := float64(n)
	i := 0
	for f >= 1000 && i < len(units)-1 {
		f /= 1000
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

func lasted(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d >= 10*time.Second:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	default:
		d = d.Round(10 * time.Microsecond)
	}
	return d.String()
}

// thousandless is a number that names something: a frame.
func thousandless(n int64) string { return strconv.FormatInt(n, 10) }
