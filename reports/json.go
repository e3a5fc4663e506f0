package reports

import (
	"bufio"
	"io"
)

// jsonSink writes objects, one a line; as an array or as JSON Lines.
type jsonSink struct {
	w     *bufio.Writer
	t     *Table
	keys  []string // `"name":`
	line  []byte
	array bool
	rows  int64
}

func openJSON(w io.Writer, t *Table, _ Options) (Sink, error) { return newJSON(w, t, true), nil }

func openJSONL(w io.Writer, t *Table, _ Options) (Sink, error) { return newJSON(w, t, false), nil }

func newJSON(w io.Writer, t *Table, array bool) *jsonSink {
	s := &jsonSink{w: bufio.NewWriterSize(w, sinkBuffer), t: t, array: array}
	for _, c := range t.Columns {
		s.keys = append(s.keys, string(appendJSONString(nil, c.Name))+":")
	}
	return s
}

func (s *jsonSink) Write(row []Value) error {
	s.line = s.line[:0]
	if s.array {
		if s.rows == 0 {
			s.line = append(s.line, "[\n"...)
		} else {
			s.line = append(s.line, ",\n"...)
		}
	}
	s.rows++
	s.line = appendObject(s.line, s.t, s.keys, row)
	if !s.array {
		s.line = append(s.line, '\n')
	}
	_, err := s.w.Write(s.line)
	return err
}

func appendObject(b []byte, t *Table, keys []string, row []Value) []byte {
	b = append(b, '{')
	for i, v := range row {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, keys[i]...)
		b = appendJSON(b, t.Columns[i].Kind, v)
	}
	return append(b, '}')
}

func (s *jsonSink) Close() error {
	if s.array {
		end := "\n]\n"
		if s.rows == 0 {
			end = "[]\n"
		}
		s.w.WriteString(end)
	}
	return s.w.Flush()
}
