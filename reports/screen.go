package reports

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
	"squall/dissect/storm"
)

// Look is how a screen is drawn.
type Look struct {
	Width int  // columns, at least 60
	Color bool // terminal colours
}

const (
	leastWidth  = 60
	chartHeight = 8
	listed      = 8 // rows of each list
)

// Screen writes the analysis for reading: verdict, what was read, totals, the
// busiest nodes and clients, and the attempts over time.
func Screen(w io.Writer, r *Results, look Look) error {
	report, err := r.Report()
	if err != nil {
		return err
	}
	s := &screen{look: look, report: report}
	s.look.Width = max(s.look.Width, leastWidth)
	s.verdict()
	s.read(r)
	s.totals()
	s.nodes()
	s.policies()
	s.versions()
	s.clients()
	s.chart()
	s.notes()
	_, err = w.Write(s.out.Bytes())
	return err
}

type screen struct {
	out    bytes.Buffer
	look   Look
	report *storm.Report
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

func (s *screen) head(text string) { fmt.Fprintf(&s.out, "\n%s\n", s.paint(bold, text)) }

// say writes a text, broken at words to the width.
func (s *screen) say(indent int, text string) {
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

func (s *screen) verdict() {
	v := &s.report.Verdict
	name := strings.ToUpper(strings.ReplaceAll(v.Class.String(), "_", " "))
	if v.Cascade {
		name += " with cascade"
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
	s.say(2, s.report.Summary)
	var rows [][]string
	for _, c := range v.Criteria {
		mark := "no"
		switch {
		case c.Waived:
			mark = "waived"
		case c.Met:
			mark = "yes"
		}
		rows = append(rows, []string{c.Name, number(c.Value), number(c.Threshold), c.Unit, mark, c.Note})
	}
	if len(rows) > 0 {
		s.out.WriteByte('\n')
		s.grid([]string{"criterion", "value", "threshold", "unit", "met", "note"}, rows, 1)
	}
	if len(s.report.Findings) > 1 {
		s.head("All findings")
	}
	for i := range s.report.Findings {
		f := &s.report.Findings[i]
		if i >= listed {
			s.say(2, fmt.Sprintf("and %d more findings: squall report findings", len(s.report.Findings)-i))
			break
		}
		if len(s.report.Findings) == 1 {
			break // it is the verdict
		}
		end := "capture end"
		if f.End != 0 {
			end = clock(f.End)
		}
		s.say(2, fmt.Sprintf("%s to %s  %s  %s", clock(f.Onset), end, f.Class, f.Service))
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
	s.say(2, fmt.Sprintf("%s: %s packets, %s on the wire, %s to %s (%s)", name, thousands(q.Packets), bytesOf(octets),
		stamp(q.Begin), stamp(q.End), lasted(q.End-q.Begin)))
	quality := []string{fmt.Sprintf("%s lost by the tap as far as it says", thousands(q.Dropped))}
	for _, c := range []struct {
		n    int64
		what string
	}{{q.Duplicates, "duplicates"}, {q.OutOfOrder, "out of order"}, {q.ClockSteps, "clock steps"}, {q.Cut, "cut too short"}, {int64(len(q.Gaps)), "silences of more than 5 s"}} {
		if c.n > 0 {
			quality = append(quality, thousands(c.n)+" "+c.what)
		}
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
	s.grid([]string{"attempts", "intents", "retries", "A", "retry share", "peak surge", "late ratio", "clients", "nodes"},
		[][]string{{thousands(t.Attempts), thousands(t.Intents), thousands(t.Retries), fixed(t.Amplification()), fixed(t.RetryShare()), surge,
			fixed(t.LateRatio()), thousands(t.Clients), thousands(t.Nodes)}}, 0)
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
	if n := t.AppAccepts + t.ByteAccepts + t.AgeAccepts; n > 0 {
		s.say(2, fmt.Sprintf("accepts proven by the application %d %%, by bytes of the node %d %%, by age alone %d %%; refreshes %s, parallel dials %s",
			percent(t.AppAccepts, n), percent(t.ByteAccepts, n), percent(t.AgeAccepts, n), thousands(t.Refreshes), thousands(t.Parallels)))
	}
}

func (s *screen) nodes() {
	all := s.report.Nodes
	if len(all) == 0 {
		return
	}
	title := fmt.Sprintf("Nodes under most load, %d of %s", min(listed, len(all)), thousands(int64(len(all))))
	var rows [][]string
	for i := range all[:min(listed, len(all))] {
		n := &all[i]
		state := ""
		if len(n.Periods) > 0 {
			p := n.Periods[0]
			state = p.Kind.String() + " " + clock(p.Start)
			if n.Generation >= 0 {
				state += " gen " + strconv.Itoa(int(n.Generation))
			}
		}
		rows = append(rows, []string{n.At.String(), n.Service, thousands(n.Attempts), short(n.PeakRate), fixed(n.RetryShare()),
			fixed(n.FailureRatio()), fixed(n.LateRatio()), thousands(n.Clients), state})
	}
	s.about(title, rows, 1)
	s.grid([]string{"node", "service", "attempts", "peak/s", "retry share", "failed", "late", "clients", "period"}, rows, 2)
}

func (s *screen) policies() {
	all := s.report.Policies
	if len(all) == 0 {
		return
	}
	var rows [][]string
	for i := range all[:min(listed, len(all))] {
		p := &all[i]
		limit := "-"
		if p.Limit > 0 {
			limit = strconv.Itoa(int(p.Limit))
		}
		rows = append(rows, []string{p.Group, p.Service, p.Family, lasted(p.Base), short(p.Factor), lasted(p.Cap), p.Jitter, limit, p.Order, strings.Join(p.Smells, " ")})
	}
	s.about("Retry policies, as the gaps show them", rows, 1)
	s.grid([]string{"clients", "service", "family", "base", "factor", "cap", "jitter", "limit", "order", "smells"}, rows, 3)
}

func (s *screen) versions() {
	all := s.report.Versions
	if len(all) == 0 {
		return
	}
	var rows [][]string
	for i := range all[:min(listed, len(all))] {
		v := &all[i]
		rows = append(rows, []string{v.Version, v.Service, thousands(v.Clients), fixed(v.ClientShare), fixed(v.RetryShare), fixed(v.Amplification),
			short(v.EarlyOdds), short(v.LateOdds), v.AssociatedWith})
	}
	s.about("Versions", rows, 1)
	s.grid([]string{"version", "service", "clients", "of clients", "of retries", "A", "early odds", "late odds", "associated with"}, rows, 2)
}

func (s *screen) clients() {
	all := s.report.Clients
	if len(all) == 0 {
		return
	}
	title := fmt.Sprintf("Clients that try most, %d of %s", min(listed, len(all)), thousands(s.report.Totals.Clients))
	var rows [][]string
	for i := range all[:min(listed, len(all))] {
		c := &all[i]
		rows = append(rows, []string{c.ID, c.Version, c.Service, thousands(c.Counts.Attempts), thousands(c.Intents), fixed(c.Amplification()), fixed(c.FailureRatio()),
			clock(c.First), clock(c.Last)})
	}
	s.about(title, rows, 2)
	s.grid([]string{"client", "version", "service", "attempts", "intents", "A", "failed", "first", "last"}, rows, 3)
}

func (s *screen) notes() {
	if len(s.report.Notes) == 0 {
		return
	}
	s.head("Notes")
	for _, n := range s.report.Notes {
		s.say(2, n)
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
// the right. Texts give way until it fits; columns without a value are left out.
func (s *screen) grid(heading []string, rows [][]string, left int) {
	keep := []int{}
	for c := range heading {
		if slices.ContainsFunc(rows, func(r []string) bool { return r[c] != "" && r[c] != "-" && r[c] != "0s" }) {
			keep = append(keep, c)
		}
	}
	widths := make([]int, len(heading))
	total := 0
	for _, c := range keep {
		widths[c] = len([]rune(heading[c]))
		for _, r := range rows {
			widths[c] = max(widths[c], len([]rune(printable(r[c]))))
		}
		total += widths[c] + len(columnGap)
	}
	for total > s.look.Width { // the widest text gives way
		widest := keep[0]
		for _, c := range keep {
			if widths[c] > widths[widest] {
				widest = c
			}
		}
		if widths[widest] <= 8 {
			break
		}
		widths[widest]--
		total--
	}
	line := func(cells []string) string {
		var b strings.Builder
		for _, c := range keep {
			text := []rune(printable(cells[c]))
			if len(text) > widths[c] {
				text = append(text[:widths[c]-1], '…')
			}
			pad := strings.Repeat(" ", widths[c]-len(text))
			b.WriteString(columnGap)
			if c < left || !numeric(rows, c) {
				b.WriteString(string(text) + pad)
			} else {
				b.WriteString(pad + string(text))
			}
		}
		return strings.TrimRight(b.String(), " ") + "\n"
	}
	s.out.WriteString(s.paint(dim, strings.TrimSuffix(line(heading), "\n")) + "\n")
	for _, r := range rows {
		s.out.WriteString(line(r))
	}
}

func numeric(rows [][]string, c int) bool {
	for _, r := range rows {
		if r[c] != "" && r[c] != "-" && (r[c][0] < '0' || r[c][0] > '9') {
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
	s.head("Attempts a second over time, a column is " + lasted(step))
	rate := float64(top) / (float64(step) / 1e9)
	for row := chartHeight; row > 0; row-- {
		label := ""
		if row == chartHeight || row == chartHeight/2 {
			label = short(rate * float64(row) / chartHeight)
		}
		fmt.Fprintf(&s.out, "  %7s ", label)
		line := ""
		for _, b := range bars {
			// A cell belongs to the kind that its middle lies in; whatever
			// happened at all shows in the lowest row.
			at := (float64(row) - 0.5) / chartHeight * float64(top)
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
	left, right := clock(begin), clock(end)
	fmt.Fprintf(&s.out, "  %7s %s%s%s\n", "", left, strings.Repeat(" ", max(1, len(bars)-len(left)-len(right))), right)
	fmt.Fprintf(&s.out, "  %7s %s accepted  %s failed  %s unknown\n", "", s.paint(green, "█"), s.paint(orange, "▒"), s.paint(gray, "·"))
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

func thousands(n int64) string {
	t := strconv.FormatInt(n, 10)
	for i := len(t) - 3; i > 0 && t[i-1] != '-'; i -= 3 {
		t = t[:i] + "," + t[i:]
	}
	return t
}

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

// clock is the time of day, UTC.
func clock(ns int64) string {
	if ns == 0 {
		return "-"
	}
	return time.Unix(0, ns).UTC().Format("15:04:05")
}
