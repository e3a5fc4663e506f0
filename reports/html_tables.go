package reports

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// htmlTable is a table of the page; cells stand in Body, escaped.
type htmlTable struct {
	Name, Row, Command, Cut string
	Heads                   []htmlHead
	Body                    template.HTML
	Count                   int
	More                    bool // has columns that are hidden at first
}

type htmlHead struct {
	Name, Doc    string
	Number, More bool
}

// leading are the columns that are shown at first; where a table is not named,
// all of them are.
var leading = map[string]string{
	"captures":   "capture_file format packets bytes first_time last_time duration_ns drops truncated damage",
	"attempts":   "event_start source_ip source_port destination_ip destination_port network_protocol relation attempt_number attempt_outcome outcome_evidence event_duration retry_gap_ns late first_frame attempt_id",
	"intents":    "event_start event_end client_id service relation attempts nodes attempt_outcome closed_by intent_id",
	"clients":    "client_id client_version service attempts intents amplification failure_ratio outcome_accepted outcome_timeout outcome_refused outcome_dropped first_time last_time",
	"nodes":      "destination_ip destination_port service destination_role clients attempts peak_rate retry_share failure_ratio late_ratio generation excess afterlife_attempts",
	"timeline":   "window_start service attempts intents retries outcome_accepted outcome_timeout outcome_refused outcome_dropped outcome_stalled outcome_throttled clients surge attached",
	"findings":   "class service onset end confidence attempts amplification retry_share surge clients never_in peak_rate knee sentence",
	"criteria":   "class service onset criterion value threshold unit met note",
	"versions":   "client_version service clients client_share retry_share amplification early_odds_ratio early_odds_low early_odds_high early_p late_odds_ratio associated_with",
	"migrations": "from_ip from_port to_ip to_port intents first_time last_time share causal",
}

// tables shows every table of the analysis as far as there is room.
func (p *page) tables(r *Results, report *storm.Report, rows *firstRows, source string) error {
	env := r.Env()
	for _, t := range Schemas() {
		var shown Rows
		total, note := int64(-1), ""
		v := &report.Verdict
		switch t.Name {
		case "attempts":
			shown, total = Attempts().Rows(env, each(rows.attempts)), rows.allAttempts
			note = rows.note
		case "intents":
			shown, total = Intents().Rows(env, each(rows.intents)), rows.allIntents
			note = rows.note
		case "clients":
			shown, total = Clients().Rows(env, each(report.Clients)), report.Totals.Clients
			note = "the busiest"
		case "timeline":
			var windows []storm.Window
			for _, w := range report.Timeline {
				if w.Node == (dissect.Endpoint{}) && (len(report.Timeline) < p.budget.rows || w.Service == v.Service || v.Service == "") {
					windows = append(windows, w)
				}
			}
			// A long one begins shortly before the onset.
			if v.Class != storm.Calm {
				for len(windows) > p.budget.rows && windows[0].Start < v.Onset-6*storm.WindowLength {
					windows = windows[1:]
				}
			}
			shown, total = Timeline().Rows(env, each(windows)), int64(len(report.Timeline))
			note = "of the service of the verdict, around the onset"
		default:
			var err error
			if _, shown, err = r.Table(t.Name); err != nil {
				return err
			}
		}
		h, err := p.table(t, shown, total, note)
		if err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
		h.Command = "squall report " + t.Name + " " + source + " -T csv"
		p.Tables = append(p.Tables, h)
	}
	return nil
}

// firstRows are the attempts and intents that begin first from the onset on,
// found without sorting all of them.
type firstRows struct {
	note                    string
	attempts                []dissect.Attempt
	intents                 []dissect.Intent
	allAttempts, allIntents int64
}

func newFirstRows(r *Results, report *storm.Report, limit int) (*firstRows, error) {
	all := &firstRows{}
	from := int64(math.MinInt64)
	if v := &report.Verdict; v.Class != storm.Calm && v.Onset > report.Begin {
		from, all.note = v.Onset, "from the onset on"
	}
	var parts []*firstVisitor
	err := r.Analysis.Visit(func(int) dissect.Visitor {
		v := &firstVisitor{from: from, limit: limit, lastAttempt: math.MaxInt64, lastIntent: math.MaxInt64}
		parts = append(parts, v)
		return v
	})
	for _, v := range parts {
		all.attempts = append(all.attempts, v.attempts...)
		all.intents = append(all.intents, v.intents...)
		all.allAttempts += v.allAttempts
		all.allIntents += v.allIntents
	}
	slices.SortFunc(all.attempts, firstAttempt)
	slices.SortFunc(all.intents, firstIntent)
	all.attempts = all.attempts[:min(len(all.attempts), limit)]
	all.intents = all.intents[:min(len(all.intents), limit)]
	return all, err
}

func firstAttempt(a, b dissect.Attempt) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.ID, b.ID))
}
func firstIntent(a, b dissect.Intent) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.ID, b.ID))
}

// firstVisitor keeps some more rows than the limit, and from time to time cuts
// them; what begins after the last of them then is not looked at again.
type firstVisitor struct {
	firstRows
	from, lastAttempt, lastIntent int64
	limit                         int
}

func (v *firstVisitor) Client(*dissect.Client) {}

func (v *firstVisitor) Attempt(a *dissect.Attempt) {
	v.allAttempts++
	if a.Start < v.from || a.Start > v.lastAttempt {
		return
	}
	if v.attempts = append(v.attempts, *a); len(v.attempts) >= 4*v.limit+4 {
		slices.SortFunc(v.attempts, firstAttempt)
		v.attempts = v.attempts[:v.limit]
		v.lastAttempt = v.attempts[len(v.attempts)-1].Start
	}
}

func (v *firstVisitor) Intent(i *dissect.Intent) {
	v.allIntents++
	if i.Start < v.from || i.Start > v.lastIntent {
		return
	}
	if v.intents = append(v.intents, *i); len(v.intents) >= 4*v.limit+4 {
		slices.SortFunc(v.intents, firstIntent)
		v.intents = v.intents[:v.limit]
		v.lastIntent = v.intents[len(v.intents)-1].Start
	}
}

// table reads rows until the room is full; columns that say nothing are left
// out.
func (p *page) table(t *Table, rows Rows, total int64, note string) (h htmlTable, err error) {
	h.Name, h.Row = t.Name, t.Row
	limit := p.budget.rows
	if t.Bulk {
		limit /= 2
	}
	first := strings.Fields(leading[t.Name])
	more := make([]bool, len(t.Columns))
	for i, c := range t.Columns {
		more[i] = len(first) > 0
		for _, f := range first {
			if f == c.Name {
				more[i] = false
			}
		}
	}
	var kept [][]string
	says := make([]bool, len(t.Columns))
	size, full := 0, false
	for row, err := range rows {
		if err != nil {
			return h, err
		}
		if len(kept) == limit || size > p.budget.tableBytes {
			full = true
			break
		}
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = cell(kindOf(t.Columns[i]), v, p.zone)
			says[i] = says[i] || cells[i] != "" && cells[i] != "0" && cells[i] != "no"
			size += len(cells[i]) + 10
		}
		kept = append(kept, cells)
	}
	h.Count = len(kept)
	switch {
	case full && total > int64(len(kept)):
		h.Cut = fmt.Sprintf("%s of %s rows", thousands(int64(len(kept))), thousands(total))
	case full:
		h.Cut = fmt.Sprintf("the first %s rows", thousands(int64(len(kept))))
	case total > int64(len(kept)):
		h.Cut = fmt.Sprintf("%s of %s rows", thousands(int64(len(kept))), thousands(total))
	default:
		note = ""
	}
	if note != "" {
		h.Cut += ", " + note
	}
	// The leading columns stand in their own order.
	var order []int
	for _, f := range first {
		if i := t.Index(f); i >= 0 && says[i] {
			order = append(order, i)
		}
	}
	for i := range t.Columns {
		if says[i] && (more[i] || len(first) == 0) {
			order = append(order, i)
		}
	}
	var b strings.Builder
	for _, cells := range kept {
		b.WriteString("<tr>")
		for _, i := range order {
			switch {
			case more[i] && numericKind(t.Columns[i].Kind):
				b.WriteString("<td class=\"n m\">")
			case more[i]:
				b.WriteString("<td class=m>")
			case numericKind(t.Columns[i].Kind):
				b.WriteString("<td class=n>")
			default:
				b.WriteString("<td>")
			}
			template.HTMLEscape(&b, []byte(cells[i]))
		}
		b.WriteString("\n")
	}
	h.Body = template.HTML(b.String())
	for _, i := range order {
		c := t.Columns[i]
		head := htmlHead{Name: c.Name, Doc: c.Doc, Number: numericKind(c.Kind), More: more[i]}
		if kindOf(c) == Duration {
			head.Name = strings.TrimSuffix(c.Name, "_ns") + ", s"
			head.Doc += ", shown in seconds"
		} else if c.Unit != "" && !strings.HasSuffix(c.Name, c.Unit) {
			head.Name += ", " + c.Unit
		}
		h.More = h.More || more[i]
		h.Heads = append(h.Heads, head)
	}
	return h, nil
}

// kindOf takes every number of nanoseconds for a duration.
func kindOf(c Column) Kind {
	if c.Kind == Int && c.Unit == "ns" {
		return Duration
	}
	return c.Kind
}

func numericKind(k Kind) bool { return k == Int || k == Float || k == Duration }

// cell prints a value for reading: durations in seconds, real numbers as far as
// they matter.
func cell(k Kind, v Value, z zone) string {
	if v.Null {
		return ""
	}
	switch k {
	case Int:
		return strconv.FormatInt(v.Int, 10)
	case Float:
		switch a := math.Abs(v.Float); {
		case v.Float == 0:
			return "0"
		case a >= 1000:
			return strconv.FormatFloat(v.Float, 'f', 0, 64)
		case a >= 100:
			return strconv.FormatFloat(v.Float, 'f', 1, 64)
		case a < 0.001:
			return strconv.FormatFloat(v.Float, 'g', 2, 64)
		}
		return strconv.FormatFloat(v.Float, 'f', 3, 64)
	case Bool:
		if v.Int != 0 {
			return "yes"
		}
		return "no"
	case Time:
		return z.moment(v.Int)
	case Duration:
		return strconv.FormatFloat(float64(v.Int)/1e9, 'f', 6, 64)
	}
	return clip(v.Str, maxCell)
}
