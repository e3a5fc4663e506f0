package reports

import (
	"fmt"
	"html/template"
	"iter"
	"math"
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
func (p *page) tables(r *Results, report *storm.Report, source string) error {
	env := &Env{}
	for _, c := range r.Analysis.Captures() {
		env.Files = append(env.Files, c.Path)
	}
	for _, t := range Schemas() {
		var rows Rows
		total, note := int64(-1), ""
		v := &report.Verdict
		switch {
		case t.Name == "clients":
			rows, total = Clients().Rows(env, each(report.Clients)), report.Totals.Clients
			note = "the busiest"
		case t.Name == "timeline":
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
			rows, total = Timeline().Rows(env, each(windows)), int64(len(report.Timeline))
			note = "of the service of the verdict, around the onset"
		default:
			var err error
			if _, rows, err = r.Table(t.Name); err != nil {
				return err
			}
			// Long tables begin at the onset.
			switch onset := v.Onset; {
			case v.Class == storm.Calm || onset <= report.Begin:
			case t.Name == "attempts":
				rows, note = Attempts().Rows(env, skip(r.Analysis.Attempts(), func(a *dissect.Attempt) bool { return a.Start < onset })), "from the onset on"
				total = report.Totals.Attempts + report.Totals.Refreshes + report.Totals.Parallels
			case t.Name == "intents":
				rows, note = Intents().Rows(env, skip(r.Analysis.Intents(), func(i *dissect.Intent) bool { return i.Start < onset })), "from the onset on"
			}
		}
		h, err := p.table(t, rows, total, note)
		if err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
		h.Command = "squall report " + t.Name + " " + source + " -T csv"
		p.Tables = append(p.Tables, h)
	}
	return nil
}

// skip leaves items out before their columns are read.
func skip[T any](items iter.Seq2[*T, error], out func(*T) bool) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for v, err := range items {
			if err == nil && out(v) {
				continue
			}
			if !yield(v, err) {
				return
			}
		}
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
			cells[i] = cell(kindOf(t.Columns[i]), v)
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
func cell(k Kind, v Value) string {
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
		return moment(v.Int)
	case Duration:
		return strconv.FormatFloat(float64(v.Int)/1e9, 'f', 6, 64)
	}
	return clip(v.Str, maxCell)
}
