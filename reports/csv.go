package reports

import (
	"bufio"
	"bytes"
	"io"
)

// sinkBuffer is how much text gathers before it is written.
const sinkBuffer = 64 << 10

// lineSink writes one line a row.
type lineSink struct {
	w          *bufio.Writer
	t          *Table
	line, cell []byte
	sep        byte
	quote      func(line, cell []byte) []byte
}

func openCSV(w io.Writer, t *Table, _ Options) (Sink, error) {
	return openLines(w, t, ',', quoteCSV)
}

func openTSV(w io.Writer, t *Table, _ Options) (Sink, error) {
	return openLines(w, t, '\t', escapeTSV)
}

func openLines(w io.Writer, t *Table, sep byte, quote func(line, cell []byte) []byte) (Sink, error) {
	s := &lineSink{w: bufio.NewWriterSize(w, sinkBuffer), t: t, sep: sep, quote: quote}
	for i, c := range t.Columns {
		if i > 0 {
			s.w.WriteByte(sep)
		}
		s.w.WriteString(c.Name)
	}
	return s, s.w.WriteByte('\n')
}

func (s *lineSink) Write(row []Value) error {
	s.line = s.line[:0]
	for i, v := range row {
		if i > 0 {
			s.line = append(s.line, s.sep)
		}
		k := s.t.Columns[i].Kind
		if k != String && k != List {
			s.line = appendText(s.line, k, v)
			continue
		}
		s.cell = appendText(s.cell[:0], k, v)
		s.line = s.quote(s.line, s.cell)
	}
	_, err := s.w.Write(append(s.line, '\n'))
	return err
}

func (s *lineSink) Close() error { return s.w.Flush() }

// quoteCSV follows RFC 4180 section 2.
func quoteCSV(line, cell []byte) []byte {
	if !bytes.ContainsAny(cell, ",\"\r\n") {
		return append(line, cell...)
	}
	line = append(line, '"')
	for _, c := range cell {
		if c == '"' {
			line = append(line, '"')
		}
		line = append(line, c)
	}
	return append(line, '"')
}

// escapeTSV keeps one row on one line.
func escapeTSV(line, cell []byte) []byte {
	for _, c := range cell {
		switch c {
		case '\t':
			line = append(line, `\t`...)
		case '\n':
			line = append(line, `\n`...)
		case '\r':
			line = append(line, `\r`...)
		case '\\':
			line = append(line, `\\`...)
		default:
			line = append(line, c)
		}
	}
	return line
}
