package reports

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"squall/replay"
)

// WriteForecast writes what squall whatif found, as text, markdown or json.
func WriteForecast(w io.Writer, f *replay.Forecast, format string, look Look) error {
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(f)
	case "markdown":
		return forecastMarkdown(w, f)
	}
	return forecastText(w, f, look)
}

// atSecond is a moment of a forecast: clock time, and the day where it is another.
func atSecond(f *replay.Forecast, seconds float64) string {
	at := f.Begin.Add(time.Duration(seconds * 1e9))
	if at.YearDay() != f.Begin.YearDay() {
		return at.Format("01-02 15:04:05")
	}
	return at.Format("15:04:05")
}

// spread is a span as "median (low to high)"; equal ends say it once.
func spread(s replay.Span, show func(float64) string) string {
	lo, mid, hi := show(s.Low), show(s.Median), show(s.High)
	if lo == hi {
		return mid
	}
	return fmt.Sprintf("%s (%s to %s)", mid, lo, hi)
}

// whole is a number of things: not rounded to three digits.
func whole(v float64) string { return thousands(int64(v + 0.5)) }

// back says when the service was back: 0 is never down, -1 not in the run.
func back(f *replay.Forecast, seconds float64) string {
	switch {
	case seconds == 0 && f.Now:
		return "at once"
	case seconds == 0:
		return "never down"
	case seconds < 0:
		return "no"
	}
	return atSecond(f, seconds)
}

var forecastHeads = []string{"what if", "service back", "5 %", "95 %", "runs", "peak/s", "A", "locked out", "fell"}

// forecastRows are the recording and the answers.
func forecastRows(f *replay.Forecast) (rows [][]string) {
	r := &f.Recorded
	was := "no"
	if r.Recovered {
		was = atSecond(f, r.Recovery)
	}
	lost := whole(r.LockedOut)
	if f.Now { // the rows count from the end of the capture on
		lost = "-"
	}
	rows = append(rows, []string{"recorded", was, "", "", "", number(r.Peak), number(r.A), lost, whole(float64(r.Fallen))})
	for i := range f.Rows {
		a := &f.Rows[i]
		row := []string{a.Name, "no run", "", "", "", "-", "-", "-", "-"}
		if a.Runs > 0 {
			row = append(row[:1], back(f, a.Recovery.Median), back(f, a.Recovery.Low), back(f, a.Recovery.High), fmt.Sprintf("%d/%d", a.Calm+a.Recovered, a.Runs), number(a.Peak.Median), number(a.A.Median), whole(a.LockedOut.Median), whole(a.Fallen.Median))
		}
		rows = append(rows, row)
	}
	return rows
}

// hindcastWords is the hindcast in one sentence.
func hindcastWords(f *replay.Forecast) string {
	h := &f.Hindcast
	if h.Runs == 0 {
		return strings.Join(h.Reasons, "; ")
	}
	fate, when := "did not recover, as recorded", ""
	if f.Recorded.Recovered {
		fate = "recovered, as recorded"
		if h.Recovery != (replay.Span{}) {
			when = fmt.Sprintf(", at %s, recorded %s", spread(h.Recovery, func(v float64) string { return atSecond(f, v) }), atSecond(f, f.Recorded.Recovery))
		}
	}
	s := fmt.Sprintf("fitted on what was seen until %s, judged by the rest: %d of %d runs %s%s; attempts %.2f times the recorded ones, their curve off by %.0f %% of its mean, the share of failures by %.2f.",
		atSecond(f, h.Split), h.Same, h.Runs, fate, when, h.Attempts, 100*h.Curve, h.Failures)
	if h.Passed {
		return "passed: " + s
	}
	return "FAILED: " + strings.Join(h.Reasons, "; ") + ". " + strings.ToUpper(s[:1]) + s[1:]
}

// scope says what the rows are about.
func scope(f *replay.Forecast) string {
	s := fmt.Sprintf("%d runs of each row, numbers are their medians, runs those that were spared or came back, locked out client-minutes, fell nodes; changes hold from the beginning of the capture on, and runs end with it.", f.Seeds)
	if f.Now {
		s = fmt.Sprintf("%d runs of each row, numbers are their medians, runs those that came back, locked out client-minutes, fell nodes; changes begin at the end of the capture, %s, and the runs go on until %s. A, peak and nodes count from the onset, client-minutes from the end of the capture on.",
			f.Seeds, atSecond(f, f.End.Sub(f.Begin).Seconds()), atSecond(f, f.End.Sub(f.Begin).Seconds()+f.Horizon))
	}
	return s + " Nothing was sent."
}

type section struct {
	name string
	list []string
}

// forecastLists are what the numbers rest on.
func forecastLists(f *replay.Forecast) []section {
	var policies, changes []string
	for _, p := range f.Policies {
		policies = append(policies, fmt.Sprintf("%s: %s (%s)", p.Group, p.Policy, p.Basis))
	}
	for i := range f.Rows {
		a := &f.Rows[i]
		if len(a.Changes) == 0 {
			continue
		}
		s := a.Name + " = " + strings.Join(a.Changes, "; ")
		if a.Tried > 0 {
			s += fmt.Sprintf(" (the best of %d rates tried)", a.Tried)
		}
		if a.Discarded > 0 {
			s += fmt.Sprintf(" (%d runs left out: no storm at the end of the capture)", a.Discarded)
		}
		changes = append(changes, s)
	}
	return []section{{"Changes", changes}, {"Clients, as inferred", policies}, {"Nodes, as fitted", f.Model},
		{"Given, not predicted", f.Hindcast.Given}, {"Assumed", f.Assumed}, {"Not fitted", f.Unfitted}}
}

func forecastText(w io.Writer, f *replay.Forecast, look Look) error {
	s := &screen{look: look}
	s.look.Width = max(s.look.Width, leastWidth)
	when := fmt.Sprintf("%s to %s, storm from %s",
		f.Begin.Format("2006-01-02 15:04:05"), atSecond(f, f.End.Sub(f.Begin).Seconds()), atSecond(f, f.Onset.Sub(f.Begin).Seconds()))
	gap := "  "
	if len("WHAT IF")+2+len([]rune(printable(f.Service)))+2+len(when) > s.look.Width {
		gap = "\n  "
	}
	fmt.Fprintf(&s.out, "%s  %s%s%s\n", s.paint(bold, "WHAT IF"), printable(f.Service), gap, when)
	style := green
	if !f.Hindcast.Passed {
		style = orange
	}
	word, rest, _ := strings.Cut(hindcastWords(f), ": ")
	if look.Markdown {
		s.head("Hindcast " + word)
	} else {
		fmt.Fprintf(&s.out, "\n%s %s\n", s.paint(bold, "Hindcast"), s.paint(style, word))
	}
	s.say(2, rest)
	s.out.WriteByte('\n')
	if !f.Hindcast.Passed {
		s.say(2, "The model cannot reproduce this storm, so it is not asked what would have happened otherwise.")
	}
	s.grid(forecastHeads, forecastRows(f), 5)
	if len(f.Rows) > 0 {
		s.say(2, scope(f))
	}
	for _, l := range forecastLists(f) {
		if len(l.list) == 0 {
			continue
		}
		s.head(l.name)
		for i, t := range l.list {
			if i == 2*listed {
				s.say(2, fmt.Sprintf("and %d more", len(l.list)-i))
				break
			}
			s.say(2, t)
		}
	}
	_, err := w.Write(s.out.Bytes())
	return err
}

func forecastMarkdown(w io.Writer, f *replay.Forecast) error {
	var b strings.Builder
	fmt.Fprintf(&b, "## What if: %s, storm of %s\n\n", printable(f.Service), f.Onset.Format("2006-01-02 15:04:05 UTC"))
	fmt.Fprintf(&b, "Hindcast %s\n\n", hindcastWords(f))
	if !f.Hindcast.Passed {
		b.WriteString("The model cannot reproduce this storm, so it is not asked what would have happened otherwise.\n\n")
	}
	table, err := drawTable(forecastHeads, []bool{false, false, false, false, true, true, true, true, true}, forecastRows(f), true)
	if err != nil {
		return err
	}
	b.Write(table)
	if len(f.Rows) > 0 {
		fmt.Fprintf(&b, "\n%s\n", scope(f))
	}
	for _, l := range forecastLists(f) {
		if len(l.list) > 0 {
			fmt.Fprintf(&b, "\n**%s**\n\n", l.name)
		}
		for _, t := range l.list {
			fmt.Fprintf(&b, "- %s\n", printable(t))
		}
	}
	_, err = io.WriteString(w, b.String())
	return err
}
