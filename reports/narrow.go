package reports

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// terminalProse is how narrow a column of prose becomes on a terminal before
// others are left out; columns that were asked for go down to proseWidth.
const terminalProse = 28

// first are the columns that a terminal without room for all of a table shows, the
// first ones first, then others from the left, but for those with a minus, which nobody
// reads in a column; tables that are not here are shown from their left.
var first = map[string]string{
	"captures":       "capture_file observer_name packets bytes first_time last_time drops truncated damaged",
	"attempts":       "event_start source_ip destination_ip attempt_outcome relation attempt_number destination_port service network_protocol client_version outcome_evidence late transmissions",
	"intents":        "event_start client_id attempts nodes attempt_outcome closed_by service relation event_duration",
	"clients":        "client_id attempts intents amplification failure_ratio client_version never_in service late_ratio first_time last_time",
	"nodes":          "destination_ip destination_port clients attempts failure_ratio generation peak_rate service destination_role late_ratio",
	"timeline":       "window_start attempts intents amplification failure_ratio destination_ip service late_ratio clients surge",
	"findings":       "class onset sentence cascade service end confidence attempts clients",
	"criteria":       "class criterion value threshold unit met waived note onset service",
	"node_periods":   "destination_ip destination_port kind start end generation service",
	"migrations":     "from_ip from_port to_ip to_port intents share causal first_time last_time service",
	"versions":       "client_version clients attempts amplification early_odds_ratio associated_with client_share retry_share service late_odds_ratio",
	"roles":          "destination_role class nodes nodes_down clients_hit sentence onset",
	"events":         "time what number unit frame capture_file -filter",
	"sources":        "source_ip role attempts failed storm_attempts storm_share accepted nodes clients",
	"loss":           "time observer_name loss_ratio unseen_bytes seen_bytes heavy",
	"group_timeline": "window_start by group attempts intents amplification failure_ratio clients service",
	"group_versions": "client_version by group clients attempts amplification failure_ratio policy_family service",
	"impact":         "service clients_hit never_in locked_out_minutes by group clients attach_p50_ns attach_p95_ns",
	"policies":       "policy_group clients family base_ns factor cap_ns jitter attempt_limit gaps service timeout_ns smells",
	"protocols":      "network_protocol network_transport confidence recognised",
}

// narrow is how a table is shown on a terminal.
type narrow struct {
	width  int
	names  []string
	kinds  []Kind
	chosen bool  // by the user, in this order
	order  []int // columns, those that matter most first
	rigid  []bool
	right  []bool
	prose  int
	brief  bool       // numbers and times are shortened
	shown  []int      // from the left
	cells  [][]string // of a row, in lines
	widths []int
}

func newNarrow(t *Table, opt Options) *narrow {
	n := &narrow{width: opt.Width, names: t.names(), chosen: opt.Chosen, prose: terminalProse, cells: make([][]string, len(t.Columns))}
	if n.chosen {
		n.prose = proseWidth
	}
	for _, name := range strings.Fields(first[t.Name]) {
		if i := t.Index(name); i >= 0 && !n.chosen {
			n.order = append(n.order, i)
		}
	}
	for i, c := range t.Columns {
		n.kinds = append(n.kinds, c.Kind)
		n.right = append(n.right, c.Kind == Int || c.Kind == Float || c.Kind == Duration)
		n.rigid = append(n.rigid, n.right[i] || c.Kind == Time || c.Kind == Bool)
		if !slices.Contains(n.order, i) && (n.chosen || !strings.Contains(first[t.Name], "-"+c.Name)) {
			n.order = append(n.order, i)
		}
	}
	return n
}

// measure chooses the columns that these rows leave room for. Times and numbers become
// shorter before a column is left out; columns without any value are, unless they were
// asked for.
func (n *narrow) measure(heading []string, rows [][]string) {
	if n.brief = !n.choose(heading, rows); n.brief {
		for _, r := range rows {
			n.shorten(r)
		}
		n.choose(heading, rows)
	}
	if !n.chosen {
		slices.Sort(n.shown)
	}
	n.shown, n.widths = fit(append([][]string{heading}, rows...), n.shown, 1, n.rigid, n.prose, n.width+len(columnGap))
}

// choose takes columns as long as there is room, and says whether there was for all.
func (n *narrow) choose(heading []string, rows [][]string) bool {
	n.shown = n.shown[:0]
	room := n.width
	for _, c := range n.order {
		need, prose, empty := utf8.RuneCountInString(heading[c]), false, len(rows) > 0
		for _, r := range rows {
			need = max(need, utf8.RuneCountInString(r[c]))
			prose = prose || !n.rigid[c] && strings.Contains(r[c], " ")
			empty = empty && r[c] == absentCell
		}
		if empty && !n.chosen {
			continue
		}
		if prose {
			need = min(need, n.prose)
		}
		if len(n.shown) > 0 && need > room {
			return false
		}
		n.shown = append(n.shown, c)
		room -= need + len(columnGap)
	}
	return true
}

// shorten leaves times their milliseconds, and real numbers four digits.
func (n *narrow) shorten(cells []string) {
	for c, text := range cells {
		switch at := strings.IndexByte(text, '.'); {
		case at < 0:
		case n.kinds[c] == Time && len(text) > at+10:
			cells[c] = text[:at+4] + text[at+10:]
		case n.kinds[c] == Float:
			if f, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(f) < 1000 {
				cells[c] = strconv.FormatFloat(f, 'g', 4, 64)
			} else if err == nil {
				cells[c] = strconv.FormatFloat(f, 'f', 0, 64)
			}
		}
	}
}

// fits says whether no cell that must not be broken is wider than its column.
func (n *narrow) fits(cells []string) bool {
	if n.brief {
		n.shorten(cells)
	}
	return !slices.ContainsFunc(n.shown, func(c int) bool {
		return n.rigid[c] && utf8.RuneCountInString(cells[c]) > n.widths[c]
	})
}

// lines lays a row out, on as many lines as its longest cell takes.
func (n *narrow) lines(b []byte, row []string) []byte {
	most := 1
	for _, c := range n.shown {
		n.cells[c] = wrapped(row[c], n.widths[c])
		most = max(most, len(n.cells[c]))
	}
	for k := range most {
		for i, c := range n.shown {
			text := ""
			if k < len(n.cells[c]) {
				text = n.cells[c][k]
			}
			if i > 0 {
				b = append(b, columnGap...)
			}
			pad := strings.Repeat(" ", n.widths[c]-utf8.RuneCountInString(text))
			if n.right[c] {
				text, pad = pad+text, ""
			}
			b = append(append(b, text...), pad...)
		}
		b = append(bytes.TrimRight(b, " "), '\n')
	}
	return b
}

// leftOut says what there was no room for.
func (n *narrow) leftOut() string {
	if len(n.shown) == len(n.names) {
		return ""
	}
	text := fmt.Sprintf("%d of %d columns; -e NAME,... chooses, a pipe or -w FILE gets all", len(n.shown), len(n.names))
	if n.chosen {
		var out []string
		for _, c := range n.order {
			if !slices.Contains(n.shown, c) {
				out = append(out, n.names[c])
			}
		}
		text = fmt.Sprintf("no room for %s; a pipe or -w FILE gets all", strings.Join(out, ", "))
	}
	return "\n" + strings.Join(wrapped(text, n.width), "\n") + "\n"
}
