package reports

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Sink takes the rows of one table. Write does not keep the row. Close
// finishes the output but does not close the writer under it; it is called
// once, also after a failed Write.
type Sink interface {
	Write(row []Value) error
	Close() error
}

// Options tune single formats.
type Options struct {
	// ParquetMicros stores times as microseconds for readers that refuse
	// nanoseconds; what is below a microsecond is lost.
	ParquetMicros bool
	// Zone is that of times in text and Markdown; nil = UTC, as everywhere else.
	Zone *time.Location
	// Width is that of the terminal that text is shown on: columns that it has no
	// room for are left out, which is said, and texts go on in the next line; 0 =
	// lines are as wide as they are.
	Width int
	// Chosen says that the columns are the user's choice, in his order.
	Chosen bool
}

// Format is one way to write a table.
type Format struct {
	Name   string
	Ext    string // usual ending of a file
	Binary bool   // not for a terminal
	Doc    string
	Open   func(w io.Writer, t *Table, opt Options) (Sink, error)
}

// Formats are all of them, in the order of the help text.
func Formats() []Format {
	return []Format{
		{"text", ".txt", false, "aligned columns for reading", openText},
		{"markdown", ".md", false, "a Markdown table", openMarkdown},
		{"csv", ".csv", false, "RFC 4180 with a heading", openCSV},
		{"tsv", ".tsv", false, `tab-separated with a heading; \t \n \r \\ inside a cell are escaped`, openTSV},
		{"json", ".json", false, "one array of objects", openJSON},
		{"jsonl", ".jsonl", false, "one object a line", openJSONL},
		{"zeek", ".log", false, "attempts as Zeek's conn.log", openZeek},
		{"ecs", ".ecs.jsonl", false, "attempts as documents of the Elastic Common Schema, one a line", openECS},
		{"arrow", ".arrows", true, "Arrow IPC stream", openArrow},
		{"parquet", ".parquet", true, "Parquet, zstd", openParquet},
	}
}

// FindFormat looks a format up by name.
func FindFormat(name string) (Format, error) {
	var names []string
	for _, f := range Formats() {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	if n := nearest(name, names); n != "" {
		return Format{}, fmt.Errorf("format %q is not known; did you mean %q?", name, n)
	}
	return Format{}, fmt.Errorf("format %q is not known; there are %s", name, strings.Join(names, ", "))
}

// FormatOf finds the format that a file's ending stands for.
func FormatOf(path string) (Format, bool) {
	best := Format{}
	for _, f := range Formats() { // .ecs.jsonl before .jsonl
		if strings.HasSuffix(path, f.Ext) && len(f.Ext) > len(best.Ext) {
			best = f
		}
	}
	return best, best.Name != ""
}

// Write sends all rows of a table to w and says how many there were.
func Write(w io.Writer, f Format, t *Table, rows Rows, opt Options) (n int64, err error) {
	sink, err := f.Open(w, t, opt)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.Name, err)
	}
	if t.Bulk {
		rows = ahead(rows, len(t.Columns))
	}
	for row, err := range rows {
		if err != nil {
			sink.Close()
			return n, err
		}
		if err := sink.Write(row); err != nil {
			sink.Close()
			return n, fmt.Errorf("%s: row %d: %w", f.Name, n+1, err)
		}
		n++
	}
	return n, sink.Close()
}

// aheadRows is how many rows make a batch.
const aheadRows = 256

// ahead makes rows on one core while another writes those before: one costs
// about as much as the other. Two batches are under way at most.
func ahead(rows Rows, columns int) Rows {
	type batch struct {
		cells []Value
		err   error // after the rows
	}
	return func(yield func([]Value, error) bool) {
		full, free := make(chan batch), make(chan []Value, 2)
		free <- make([]Value, 0, aheadRows*columns)
		free <- make([]Value, 0, aheadRows*columns)
		go func() {
			defer close(full)
			b := batch{cells: <-free}
			for row, err := range rows {
				if b.err = err; err == nil {
					if b.cells = append(b.cells, row...); len(b.cells) < cap(b.cells) {
						continue
					}
				}
				full <- b
				var more bool
				if b.cells, more = <-free; err != nil || !more {
					return
				}
			}
			full <- b
		}()
		defer func() { // rows may hold files: nobody reads them after this
			close(free)
			for range full {
			}
		}()
		for b := range full {
			for row := range slices.Chunk(b.cells, columns) {
				if !yield(row, nil) {
					return
				}
			}
			if b.err != nil {
				yield(nil, b.err)
				return
			}
			free <- b.cells[:0]
		}
	}
}
