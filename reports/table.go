package reports

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"

	"squall/dissect/pipeline"
)

// Column is what is known of a column beside its values.
type Column struct {
	Name string
	Kind Kind
	Unit string // "ns", "bytes", "1/s"; empty where the name says it or there is none
	Doc  string // one sentence
}

// Table is the schema of a table.
type Table struct {
	Name    string
	Row     string // what one row is
	Columns []Column
	// Bulk tables may have millions of rows.
	Bulk bool

	leading, unread []string // see leads
}

// Index finds a column, -1 if there is none of that name.
func (t *Table) Index(name string) int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
}

// Rows is a stream of rows, one value per column. The slice is valid until the
// next row. After an error nothing follows.
type Rows = iter.Seq2[[]Value, error]

// Env is what rows refer to without holding it.
type Env struct {
	Files     []string // the inputs, by index
	Observers []string // the taps they came from, by the same index; "" = it has no name
	Datasets  []string // and what they are
	Groups    *Groups  // of clients; nil = none
	hits      map[found][]hit
}

// newEnv is what rows of an analysis of these inputs refer to.
func newEnv(captures []pipeline.Capture) *Env {
	e := &Env{}
	for i := range captures {
		e.Files = append(e.Files, captures[i].Path)
		e.Observers = append(e.Observers, captures[i].Observer)
		e.Datasets = append(e.Datasets, captures[i].Dataset())
	}
	return e
}

// observer is the name of the tap behind an input.
func (e *Env) observer(i uint32) string {
	if int(i) < len(e.Observers) {
		return e.Observers[i]
	}
	return ""
}

// Of is a table together with the functions that read its columns from a T.
type Of[T any] struct {
	Table
	get []func(*Env, *T) Value
}

// field is one column definition while a table is put together.
type field[T any] struct {
	Column
	get func(*Env, *T) Value
}

func define[T any](name, row string, bulk bool, fields ...field[T]) *Of[T] {
	t := &Of[T]{Table: Table{Name: name, Row: row, Bulk: bulk}}
	for _, f := range fields {
		t.Columns = append(t.Columns, f.Column)
		t.get = append(t.get, f.get)
	}
	return t
}

// leads names the columns that a terminal without room for all of them shows, the
// first ones first; then come others from the left, but for those with a minus,
// which nobody reads in a column.
func (t *Of[T]) leads(columns string) *Of[T] {
	for _, name := range strings.Fields(columns) {
		name, unread := strings.CutPrefix(name, "-")
		if t.Index(name) < 0 {
			panic(t.Name + " has no column " + name)
		}
		if unread {
			t.unread = append(t.unread, name)
		} else {
			t.leading = append(t.leading, name)
		}
	}
	return t
}

// Rows reads the columns of every item.
func (t *Of[T]) Rows(env *Env, items iter.Seq2[*T, error]) Rows {
	return func(yield func([]Value, error) bool) {
		row := make([]Value, len(t.get))
		for v, err := range items {
			if err != nil {
				yield(nil, err)
				return
			}
			for i, get := range t.get {
				row[i] = get(env, v)
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}

// List reads the columns of items that refer to no input.
func (t *Of[T]) List(items []T) Rows { return t.Rows(&Env{}, each(items)) }

// ListIn reads the columns of items that refer to an environment.
func (t *Of[T]) ListIn(env *Env, items []T) Rows { return t.Rows(env, each(items)) }

// each makes a stream of a slice's elements.
func each[T any](items []T) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for i := range items {
			if !yield(&items[i], nil) {
				return
			}
		}
	}
}

// str is a text column; the empty text is absent.
func str[T any](name, doc string, get func(*T) string) field[T] {
	return strEnv(name, doc, func(_ *Env, v *T) string { return get(v) })
}

func strEnv[T any](name, doc string, get func(*Env, *T) string) field[T] {
	return field[T]{Column{name, String, "", doc}, func(e *Env, v *T) Value {
		if s := get(e, v); s != "" {
			return Value{Str: strings.ToValidUTF8(s, "\uFFFD")}
		}
		return null
	}}
}

// list is a column of several texts; an empty list is absent.
func list[T any](name, doc string, get func(*T) []string) field[T] {
	return listEnv(name, doc, func(_ *Env, v *T) []string { return get(v) })
}

func listEnv[T any](name, doc string, get func(*Env, *T) []string) field[T] {
	return field[T]{Column{name, List, "", doc}, func(e *Env, v *T) Value {
		if s := get(e, v); len(s) > 0 {
			return Value{Str: strings.ToValidUTF8(joinList(s), "\uFFFD")}
		}
		return null
	}}
}

// num is a number that is always known.
func num[T any](name, unit, doc string, get func(*T) int64) field[T] {
	return field[T]{Column{name, Int, unit, doc}, func(_ *Env, v *T) Value { return Value{Int: get(v)} }}
}

// optNum is a number that is absent where it equals none.
func optNum[T any](name, unit, doc string, none int64, get func(*T) int64) field[T] {
	return field[T]{Column{name, Int, unit, doc}, func(_ *Env, v *T) Value { return unless(none, get(v)) }}
}

func unless(none, n int64) Value {
	if n == none {
		return null
	}
	return Value{Int: n}
}

// ratio is a real number; NaN and the infinities are absent.
func ratio[T any](name, unit, doc string, get func(*T) float64) field[T] {
	return field[T]{Column{name, Float, unit, doc}, func(_ *Env, v *T) Value {
		f := get(v)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return null
		}
		return Value{Float: f}
	}}
}

// optRatio is a real number that is absent where it is zero.
func optRatio[T any](name, unit, doc string, get func(*T) float64) field[T] {
	return ratio(name, unit, doc, func(v *T) float64 { return cmp.Or(get(v), math.NaN()) })
}

func flag[T any](name, doc string, get func(*T) bool) field[T] {
	return field[T]{Column{name, Bool, "", doc}, func(_ *Env, v *T) Value {
		if get(v) {
			return Value{Int: 1}
		}
		return Value{}
	}}
}

// when is a time that is always known; captures may begin at the epoch.
func when[T any](name, doc string, get func(*T) int64) field[T] {
	return field[T]{Column{name, Time, "", doc}, func(_ *Env, v *T) Value { return Value{Int: get(v)} }}
}

// optWhen is a time that is absent where it is zero.
func optWhen[T any](name, doc string, get func(*T) int64) field[T] {
	return field[T]{Column{name, Time, "", doc}, func(_ *Env, v *T) Value { return unless(0, get(v)) }}
}

// span is a duration; -1 is absent.
func span[T any](name, doc string, get func(*T) int64) field[T] {
	return field[T]{Column{name, Duration, "ns", doc}, func(_ *Env, v *T) Value { return unless(-1, get(v)) }}
}

// id prints a content hash.
func id(h uint64) string {
	s := strconv.FormatUint(h, 16)
	return "0000000000000000"[len(s):] + s
}

// nearest is the candidate most like name, for "did you mean"; empty where
// nothing is alike: more than half of the letters would be others.
func nearest(name string, candidates []string) string {
	most := max(1, len(name)/2)
	best, bestCost := "", most+1
	for _, c := range candidates {
		cost := editDistance(name, c)
		// Half a name is the usual slip: port for destination_port.
		if min(len(name), len(c)) >= 3 && (strings.Contains(c, name) || strings.Contains(name, c)) {
			cost = min(cost, most)
		}
		if cost < bestCost {
			best, bestCost = c, cost
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
