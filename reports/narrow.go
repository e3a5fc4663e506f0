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
	for _, name := range t.leading {
		if i := t.Index(name); i >= 0 && !n.chosen {
			n.order = append(n.order, i)
		}
	}
	for i, c := range t.Columns {
		n.kinds = append(n.kinds, c.Kind)
		n.right = append(n.right, c.Kind == Int || c.Kind == Float || c.Kind == Duration)
		n.rigid = append(n.rigid, n.right[i] || c.Kind == Time || c.Kind == Bool)
		if !slices.Contains(n.order, i) && (n.chosen || !slices.Contains(t.unread, c.Name)) {
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
