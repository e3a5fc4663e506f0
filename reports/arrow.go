package reports

import (
	"fmt"
	"io"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// arrowBatch is how many rows make one record batch: some 4 MB of attempts.
const arrowBatch = 8192

// ArrowSchema is the Arrow form of a table. Times are nanoseconds without a
// zone, holding UTC, as in Parquet; lists are texts joined by commas.
func ArrowSchema(t *Table) *arrow.Schema {
	fields := make([]arrow.Field, len(t.Columns))
	for i, c := range t.Columns {
		fields[i] = arrow.Field{Name: c.Name, Type: arrowType(c.Kind), Nullable: true,
			Metadata: arrow.NewMetadata([]string{"doc", "unit", "kind"}, []string{c.Doc, c.Unit, c.Kind.String()})}
	}
	meta := arrow.NewMetadata([]string{"squall.table"}, []string{t.Name})
	return arrow.NewSchema(fields, &meta)
}

func arrowType(k Kind) arrow.DataType {
	switch k {
	case String, List:
		return arrow.BinaryTypes.String
	case Float:
		return arrow.PrimitiveTypes.Float64
	case Bool:
		return arrow.FixedWidthTypes.Boolean
	case Time:
		return &arrow.TimestampType{Unit: arrow.Nanosecond}
	}
	return arrow.PrimitiveTypes.Int64
}

// arrowSink writes the IPC stream format, which any number of batches fits.
type arrowSink struct {
	w     *ipc.Writer
	build *array.RecordBuilder
	rows  int
}

func openArrow(w io.Writer, t *Table, _ Options) (Sink, error) {
	return newArrowSink(w, t, memory.DefaultAllocator), nil
}

func newArrowSink(w io.Writer, t *Table, mem memory.Allocator) *arrowSink {
	schema := ArrowSchema(t)
	return &arrowSink{
		w:     ipc.NewWriter(w, ipc.WithSchema(schema), ipc.WithAllocator(mem)),
		build: array.NewRecordBuilder(mem, schema),
	}
}

func (s *arrowSink) Write(row []Value) error {
	for i, v := range row {
		b := s.build.Field(i)
		if v.Null {
			b.AppendNull()
			continue
		}
		switch b := b.(type) {
		case *array.StringBuilder:
			b.Append(v.Str)
		case *array.Float64Builder:
			b.Append(v.Float)
		case *array.BooleanBuilder:
			b.Append(v.Int != 0)
		case *array.TimestampBuilder:
			b.Append(arrow.Timestamp(v.Int))
		case *array.Int64Builder:
			b.Append(v.Int)
		}
	}
	if s.rows++; s.rows == arrowBatch {
		return s.flush()
	}
	return nil
}

func (s *arrowSink) flush() error {
	s.rows = 0
	rec := s.build.NewRecord()
	defer rec.Release()
	return s.w.Write(rec)
}

func (s *arrowSink) Close() error {
	defer s.build.Release()
	if s.rows > 0 {
		if err := s.flush(); err != nil {
			s.w.Close()
			return err
		}
	}
	return s.w.Close() // writes the schema too, where there was no row
}

// ReadArrow reads an IPC stream that was written for table t; columns are
// found by name, those that the stream lacks are absent.
func ReadArrow(r io.Reader, t *Table) Rows {
	return readArrow(r, t, memory.DefaultAllocator)
}

func readArrow(r io.Reader, t *Table, mem memory.Allocator) Rows {
	return guarded("arrow stream", func(yield func([]Value, error) bool) error {
		rd, err := ipc.NewReader(r, ipc.WithAllocator(mem))
		if err != nil {
			return err
		}
		defer rd.Release()
		from := make([]int, len(t.Columns))
		for i, c := range t.Columns {
			from[i] = -1
			if at := rd.Schema().FieldIndices(c.Name); len(at) > 0 {
				from[i] = at[0]
				if got := rd.Schema().Field(at[0]).Type; !arrow.TypeEqual(got, arrowType(c.Kind)) {
					return fmt.Errorf("column %s is %s, want %s", c.Name, got, arrowType(c.Kind))
				}
			}
		}
		row := make([]Value, len(t.Columns))
		for rd.Next() {
			rec := rd.Record()
			for n := range int(rec.NumRows()) {
				for i, at := range from {
					row[i] = null
					if at >= 0 {
						row[i] = arrowValue(rec.Column(at), n)
					}
				}
				if !yield(row, nil) {
					return nil
				}
			}
		}
		if err := rd.Err(); err != io.EOF {
			return err
		}
		return nil
	})
}

// guarded are the rows that read yields, and after them its error. A library that
// panics over damaged bytes has failed; a consumer that does goes on panicking.
func guarded(what string, read func(yield func([]Value, error) bool) error) Rows {
	return func(yield func([]Value, error) bool) {
		ours := true
		err := func() (err error) {
			defer func() {
				if !ours {
					return
				}
				if p := recover(); p != nil {
					err = fmt.Errorf("it is damaged: %v", p)
				}
			}()
			return read(func(row []Value, err error) bool {
				ours = false
				more := yield(row, err)
				ours = true
				return more
			})
		}()
		if err != nil {
			yield(nil, fmt.Errorf("%s: %w", what, err))
		}
	}
}

func arrowValue(col arrow.Array, n int) Value {
	if col.IsNull(n) {
		return null
	}
	switch c := col.(type) {
	case *array.String:
		return Value{Str: c.Value(n)}
	case *array.Float64:
		return Value{Float: c.Value(n)}
	case *array.Boolean:
		if c.Value(n) {
			return Value{Int: 1}
		}
		return Value{}
	case *array.Timestamp:
		return Value{Int: int64(c.Value(n))}
	case *array.Int64:
		return Value{Int: c.Value(n)}
	}
	return null
}
