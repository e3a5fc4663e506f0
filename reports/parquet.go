package reports

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unsafe"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

const (
	// parquetGroup is how many rows make one row group; they are held in memory
	// until it is full, some 40 MB for attempts.
	parquetGroup = 64 << 10
	// parquetLevel is that of zstd. The writer makes a compressor for each page
	// of each column, which costs more than the compressing where the level asks
	// for large tables.
	parquetLevel = 1
)

// ParquetSchema is the Parquet form of a table: flat, every column optional.
// Times are TIMESTAMP(NANOS, isAdjustedToUTC=false) holding UTC, since the
// adjusted kind loses its nanoseconds in DuckDB.
func ParquetSchema(t *Table, opt Options) (*schema.GroupNode, error) {
	fields := make(schema.FieldList, len(t.Columns))
	for i, c := range t.Columns {
		var logical schema.LogicalType = schema.NoLogicalType{}
		physical := parquet.Types.Int64
		switch c.Kind {
		case String, List:
			logical, physical = schema.StringLogicalType{}, parquet.Types.ByteArray
		case Float:
			physical = parquet.Types.Double
		case Bool:
			physical = parquet.Types.Boolean
		case Time:
			unit := schema.TimeUnitNanos
			if opt.ParquetMicros {
				unit = schema.TimeUnitMicros
			}
			logical = schema.NewTimestampLogicalType(false, unit)
		}
		node, err := schema.NewPrimitiveNodeLogical(c.Name, parquet.Repetitions.Optional, logical, physical, 0, -1)
		if err != nil {
			return nil, fmt.Errorf("parquet: column %s: %w", c.Name, err)
		}
		fields[i] = node
	}
	return schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
}

// parquetColumn gathers a column of a row group: levels for every row, values
// for those that are not absent.
type parquetColumn struct {
	levels []int16
	texts  []parquet.ByteArray
	ints   []int64
	floats []float64
	bools  []bool
}

func (c *parquetColumn) reset() {
	c.levels, c.ints, c.floats, c.bools = c.levels[:0], c.ints[:0], c.floats[:0], c.bools[:0]
	clear(c.texts)
	c.texts = c.texts[:0]
}

type parquetSink struct {
	w      *file.Writer
	t      *Table
	cols   []parquetColumn
	rows   int
	micros bool
}

func openParquet(w io.Writer, t *Table, opt Options) (Sink, error) {
	root, err := ParquetSchema(t, opt)
	if err != nil {
		return nil, err
	}
	props := []parquet.WriterProperty{
		parquet.WithVersion(parquet.V2_LATEST), // NANOS needs the 2.6 format
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithCompressionLevel(parquetLevel),
		parquet.WithDictionaryDefault(true),
		// A dictionary that is given up half way leaves two encodings in the
		// column's statistics, whose order the library takes from a map.
		parquet.WithDictionaryPageSizeLimit(math.MaxInt32),
		parquet.WithEncoding(parquet.Encodings.Plain), // never DELTA_*: they panic on columns without values
		parquet.WithCreatedBy("squall"),
	}
	for _, c := range t.Columns {
		if hardlyTwice(t, c) {
			props = append(props, parquet.WithDictionaryFor(c.Name, false))
		}
	}
	return &parquetSink{
		w: file.NewParquetWriter(keepOpen{w}, root, file.WithWriterProps(parquet.NewWriterProperties(props...))),
		t: t, cols: make([]parquetColumn, len(t.Columns)), micros: opt.ParquetMicros,
	}, nil
}

// hardlyTwice says whether most values of a column come once.
func hardlyTwice(t *Table, c Column) bool {
	return c.Kind == Time || c.Name == "network_community_id" || c.Name == t.Columns[0].Name && strings.HasSuffix(c.Name, "_id")
}

// keepOpen hides a Close method: the Parquet writer closes what it is given.
type keepOpen struct{ io.Writer }

func (s *parquetSink) Write(row []Value) error {
	for i, v := range row {
		c := &s.cols[i]
		if v.Null {
			c.levels = append(c.levels, 0)
			continue
		}
		c.levels = append(c.levels, 1)
		switch s.t.Columns[i].Kind {
		case String, List:
			c.texts = append(c.texts, parquet.ByteArray(unsafe.Slice(unsafe.StringData(v.Str), len(v.Str)))) // only read
		case Float:
			c.floats = append(c.floats, v.Float)
		case Bool:
			c.bools = append(c.bools, v.Int != 0)
		case Time:
			if s.micros {
				v.Int = floorDiv(v.Int, 1000)
			}
			c.ints = append(c.ints, v.Int)
		default:
			c.ints = append(c.ints, v.Int)
		}
	}
	if s.rows++; s.rows == parquetGroup {
		return s.flush()
	}
	return nil
}

func floorDiv(n, d int64) int64 {
	q := n / d
	if n%d < 0 {
		q--
	}
	return q
}

func (s *parquetSink) flush() error {
	s.rows = 0
	group := s.w.AppendRowGroup()
	for i := range s.cols {
		w, err := group.NextColumn()
		if err != nil {
			return err
		}
		c := &s.cols[i]
		switch w := w.(type) {
		case *file.ByteArrayColumnChunkWriter:
			_, err = w.WriteBatch(c.texts, c.levels, nil)
		case *file.Float64ColumnChunkWriter:
			_, err = w.WriteBatch(c.floats, c.levels, nil)
		case *file.BooleanColumnChunkWriter:
			_, err = w.WriteBatch(c.bools, c.levels, nil)
		case *file.Int64ColumnChunkWriter:
			_, err = w.WriteBatch(c.ints, c.levels, nil)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return fmt.Errorf("column %s: %w", s.t.Columns[i].Name, err)
		}
		c.reset()
	}
	return group.Close()
}

func (s *parquetSink) Close() error {
	if s.rows > 0 {
		if err := s.flush(); err != nil {
			return err
		}
	}
	return s.w.Close()
}

// parquetReadBatch is how many values of a column are read at once.
const parquetReadBatch = 4096

// ReadParquet reads a file that was written for table t; columns are found by
// name, those that the file lacks are absent.
func ReadParquet(r parquet.ReaderAtSeeker, t *Table) Rows {
	return guarded("parquet", func(yield func([]Value, error) bool) error { return readParquet(r, t, yield) })
}

// readParquet returns nil after the consumer has had enough, too.
func readParquet(r parquet.ReaderAtSeeker, t *Table, yield func([]Value, error) bool) error {
	rd, err := file.NewParquetReader(r)
	if err != nil {
		return err
	}
	defer rd.Close()
	from := make([]int, len(t.Columns))
	micros := make([]bool, len(t.Columns))
	want, err := ParquetSchema(t, Options{})
	if err != nil {
		return err
	}
	sc := rd.MetaData().Schema
	for i, c := range t.Columns {
		from[i] = sc.ColumnIndexByName(c.Name)
		if from[i] < 0 {
			continue
		}
		col := sc.Column(from[i])
		wantType := want.Field(i).(*schema.PrimitiveNode).PhysicalType()
		if col.PhysicalType() != wantType || col.MaxRepetitionLevel() != 0 || col.MaxDefinitionLevel() > 1 {
			return fmt.Errorf("column %s is %s, want a flat %s", c.Name, col.PhysicalType(), wantType)
		}
		if ts, ok := col.LogicalType().(schema.TimestampLogicalType); ok {
			micros[i] = ts.TimeUnit() == schema.TimeUnitMicros
		}
	}
	row := make([]Value, len(t.Columns))
	for g := range rd.NumRowGroups() {
		group := rd.RowGroup(g)
		cols := make([]columnCursor, len(t.Columns))
		for i, at := range from {
			if at < 0 {
				continue
			}
			if cols[i].r, err = group.Column(at); err != nil {
				return fmt.Errorf("row group %d: column %s: %w", g, t.Columns[i].Name, err)
			}
		}
		for range group.NumRows() {
			for i := range cols {
				if cols[i].r == nil {
					row[i] = null
					continue
				}
				v, err := cols[i].next()
				if err != nil {
					return fmt.Errorf("row group %d: column %s: %w", g, t.Columns[i].Name, err)
				}
				if micros[i] {
					v.Int *= 1000
				}
				row[i] = v
			}
			if !yield(row, nil) {
				return nil
			}
		}
	}
	return nil
}

// columnCursor reads one column chunk value by value.
type columnCursor struct {
	r        file.ColumnChunkReader
	buf      parquetColumn
	row, val int
}

func (c *columnCursor) next() (Value, error) {
	if c.row == len(c.buf.levels) {
		if err := c.fill(); err != nil {
			return null, err
		}
	}
	level := c.buf.levels[c.row]
	c.row++
	if level < c.r.Descriptor().MaxDefinitionLevel() {
		return null, nil
	}
	i := c.val
	c.val++
	switch c.r.(type) {
	case *file.ByteArrayColumnChunkReader:
		return Value{Str: string(c.buf.texts[i])}, nil
	case *file.Float64ColumnChunkReader:
		return Value{Float: c.buf.floats[i]}, nil
	case *file.BooleanColumnChunkReader:
		if c.buf.bools[i] {
			return Value{Int: 1}, nil
		}
		return Value{}, nil
	}
	return Value{Int: c.buf.ints[i]}, nil
}

func (c *columnCursor) fill() error {
	if c.buf.levels == nil {
		c.buf.levels = make([]int16, parquetReadBatch)
	}
	c.buf.levels = c.buf.levels[:parquetReadBatch]
	c.row, c.val = 0, 0
	var total int64
	var err error
	switch r := c.r.(type) {
	case *file.ByteArrayColumnChunkReader:
		if c.buf.texts == nil {
			c.buf.texts = make([]parquet.ByteArray, parquetReadBatch)
		}
		total, _, err = r.ReadBatch(parquetReadBatch, c.buf.texts, c.buf.levels, nil)
	case *file.Float64ColumnChunkReader:
		if c.buf.floats == nil {
			c.buf.floats = make([]float64, parquetReadBatch)
		}
		total, _, err = r.ReadBatch(parquetReadBatch, c.buf.floats, c.buf.levels, nil)
	case *file.BooleanColumnChunkReader:
		if c.buf.bools == nil {
			c.buf.bools = make([]bool, parquetReadBatch)
		}
		total, _, err = r.ReadBatch(parquetReadBatch, c.buf.bools, c.buf.levels, nil)
	case *file.Int64ColumnChunkReader:
		if c.buf.ints == nil {
			c.buf.ints = make([]int64, parquetReadBatch)
		}
		total, _, err = r.ReadBatch(parquetReadBatch, c.buf.ints, c.buf.levels, nil)
	default:
		return fmt.Errorf("unexpected type %s", c.r.Type())
	}
	if err != nil {
		return err
	}
	if total == 0 {
		return io.ErrUnexpectedEOF
	}
	c.buf.levels = c.buf.levels[:total]
	return nil
}
