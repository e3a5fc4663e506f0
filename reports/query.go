package reports

import (
	"fmt"
	"slices"
	"strings"
)

// Query narrows a table: which rows, which columns, in which order, how many.
type Query struct {
	Columns []string // empty = all; each may be a comma-separated list
	Where   string   // row expression, empty = all
	Sort    []string // column names, a leading "-" sorts downwards
	Limit   int      // 0 = all
}

// Apply checks the query against the table and returns the narrowed table and
// its rows. An error names what the user most likely meant. Rows stream unless
// Sort is set; Sort with Limit keeps a bounded number of rows.
func (q Query) Apply(t *Table, rows Rows) (*Table, Rows, error) {
	if q.Limit < 0 {
		return nil, nil, fmt.Errorf("limit %d: want a positive number", q.Limit)
	}
	if strings.TrimSpace(q.Where) != "" {
		keep, err := compileWhere(t, q.Where)
		if err != nil {
			return nil, nil, err
		}
		rows = filterRows(rows, keep)
	}
	if len(q.Sort) > 0 {
		keys, err := sortKeys(t, splitNames(q.Sort))
		if err != nil {
			return nil, nil, err
		}
		rows = sortRows(t, rows, keys, q.Limit)
	}
	if q.Limit > 0 {
		rows = limitRows(rows, q.Limit)
	}
	names := splitNames(q.Columns)
	if len(names) == 0 {
		return t, rows, nil
	}
	out := &Table{Name: t.Name, Row: t.Row, Bulk: t.Bulk, leading: t.leading, unread: t.unread}
	var pick []int
	for _, n := range names {
		i := t.Index(n)
		if i < 0 {
			return nil, nil, t.unknownColumn(n)
		}
		pick = append(pick, i)
		out.Columns = append(out.Columns, t.Columns[i])
	}
	return out, pickRows(rows, pick), nil
}

func splitNames(names []string) []string {
	var out []string
	for _, n := range names {
		for s := range strings.SplitSeq(n, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

func (t *Table) names() []string {
	out := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		out[i] = c.Name
	}
	return out
}

// unknownColumn says which column may have been meant.
func (t *Table) unknownColumn(name string) error {
	if hint := wiresharkHint(t, name); hint != "" {
		return fmt.Errorf("table %s has no column %q: %s", t.Name, name, hint)
	}
	if n := nearest(name, t.names()); n != "" {
		return fmt.Errorf("table %s has no column %q; did you mean %q?", t.Name, name, n)
	}
	return fmt.Errorf("table %s has no column %q; it has %s", t.Name, name, strings.Join(t.names(), ", "))
}

func filterRows(rows Rows, keep func([]Value) (bool, error)) Rows {
	return func(yield func([]Value, error) bool) {
		for row, err := range rows {
			if err == nil {
				var ok bool
				if ok, err = keep(row); err == nil && !ok {
					continue
				}
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

func limitRows(rows Rows, n int) Rows {
	return func(yield func([]Value, error) bool) {
		left := n
		for row, err := range rows {
			if !yield(row, err) || err != nil {
				return
			}
			if left--; left == 0 {
				return
			}
		}
	}
}

func pickRows(rows Rows, pick []int) Rows {
	return func(yield func([]Value, error) bool) {
		out := make([]Value, len(pick))
		for row, err := range rows {
			if err != nil {
				yield(nil, err)
				return
			}
			for i, j := range pick {
				out[i] = row[j]
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

type sortKey struct {
	col  int
	kind Kind
	down bool
}

func sortKeys(t *Table, names []string) ([]sortKey, error) {
	var keys []sortKey
	for _, n := range names {
		name, down := strings.CutPrefix(n, "-")
		i := t.Index(name)
		if i < 0 {
			return nil, t.unknownColumn(name)
		}
		keys = append(keys, sortKey{i, t.Columns[i].Kind, down})
	}
	return keys, nil
}

// sortSlack is how many rows beyond the limit are gathered between two sorts.
const sortSlack = 4096

func sortRows(t *Table, rows Rows, keys []sortKey, limit int) Rows {
	return func(yield func([]Value, error) bool) {
		order := func(a, b []Value) int {
			for _, k := range keys {
				c := compare(k.kind, a[k.col], b[k.col])
				if k.down && !a[k.col].Null && !b[k.col].Null {
					c = -c
				}
				if c != 0 {
					return c
				}
			}
			return 0
		}
		var kept [][]Value
		for row, err := range rows {
			if err != nil {
				yield(nil, err)
				return
			}
			kept = append(kept, slices.Clone(row))
			if limit > 0 && len(kept) >= 2*limit+sortSlack {
				slices.SortStableFunc(kept, order)
				clear(kept[limit:])
				kept = kept[:limit]
			}
		}
		slices.SortStableFunc(kept, order)
		for _, row := range kept {
			if !yield(row, nil) {
				return
			}
		}
	}
}
