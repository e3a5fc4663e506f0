package reports

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// This file is the only one that knows tablewriter. It measures and draws what
// fits on some screens; rows in bulk go on line by line with the widths found
// there, since tablewriter keeps every row it is given.

// measuredRows is how many rows a text table looks at before its widths are
// fixed.
const measuredRows = 256

// textSink draws aligned text or Markdown.
type textSink struct {
	w        *bufio.Writer
	heading  []string
	right    []bool
	kinds    []Kind
	markdown bool
	head     [][]string // until the widths are known
	widths   []int
	line     []byte
	drawn    bool
	zone     *time.Location
	terminal *narrow // nil = lines are as wide as they are
}

func openText(w io.Writer, t *Table, opt Options) (Sink, error) {
	s := newTextSink(w, t, opt, false)
	if opt.Width > 0 {
		s.terminal = newNarrow(t, opt)
	}
	return s, nil
}

func openMarkdown(w io.Writer, t *Table, opt Options) (Sink, error) {
	return newTextSink(w, t, opt, true), nil
}

func newTextSink(w io.Writer, t *Table, opt Options, markdown bool) *textSink {
	s := &textSink{zone: opt.Zone, w: bufio.NewWriterSize(w, sinkBuffer), markdown: markdown}
	for _, c := range t.Columns {
		s.heading = append(s.heading, c.Name)
		s.kinds = append(s.kinds, c.Kind)
		s.right = append(s.right, c.Kind == Int || c.Kind == Float || c.Kind == Duration)
	}
	return s
}

func (s *textSink) Write(row []Value) error {
	if !s.drawn || s.terminal != nil {
		cells := make([]string, len(row)) // tablewriter keeps it
		for i, v := range row {
			cells[i] = s.cell(i, v)
		}
		if s.drawn && s.terminal.fits(cells) {
			_, err := s.w.Write(s.terminal.lines(s.line[:0], cells))
			return err
		}
		s.drawn = false
		s.head = append(s.head, cells)
		if len(s.head) == measuredRows {
			return s.draw()
		}
		return nil
	}
	s.line = s.line[:0]
	for i, v := range row {
		s.appendCell(i, s.cell(i, v))
	}
	return s.endLine()
}

func (s *textSink) Close() error {
	if !s.drawn {
		if err := s.draw(); err != nil {
			return err
		}
	}
	if s.terminal != nil {
		s.w.WriteString(s.terminal.leftOut())
	}
	return s.w.Flush()
}

// absentCell stands for a value that is not known: an empty cell in aligned
// text would be taken for the next column's.
const absentCell = "-"

func (s *textSink) cell(i int, v Value) string {
	if v.Null {
		if s.markdown {
			return ""
		}
		return absentCell
	}
	text := ""
	if s.zone != nil && s.kinds[i] == Time {
		text = zone{s.zone}.in(v.Int).Format(zonedLayout)
	} else {
		text = printable(string(appendText(nil, s.kinds[i], v)))
	}
	if s.terminal != nil && s.kinds[i] == List {
		text = strings.ReplaceAll(text, ",", ", ") // it can be broken there
	}
	if s.markdown {
		text = escapeMarkdown(text)
	}
	return text
}

// printable shows control characters as escapes: names come out of packets,
// and a terminal obeys what it is sent.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

// escapeMarkdown keeps a text from being read as table or inline markup.
func escapeMarkdown(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "`", "\\`").Replace(s)
}

func (s *textSink) draw() error {
	if n := s.terminal; n != nil {
		if n.widths != nil { // these rows take other widths than those before
			s.w.WriteByte('\n')
		}
		s.drawn = true
		n.measure(s.heading, s.head)
		for _, row := range append([][]string{s.heading}, s.head...) {
			if _, err := s.w.Write(n.lines(s.line[:0], row)); err != nil {
				return err
			}
		}
		s.head = nil
		return nil
	}
	s.drawn = true
	out, err := drawTable(s.heading, s.right, s.head, s.markdown)
	if err != nil {
		return err
	}
	if _, err := s.w.Write(out); err != nil {
		return err
	}
	s.widths = make([]int, len(s.heading))
	for i, h := range s.heading {
		s.widths[i] = utf8.RuneCountInString(h)
	}
	for _, row := range s.head {
		for i, c := range row {
			s.widths[i] = max(s.widths[i], utf8.RuneCountInString(c))
		}
	}
	s.head = nil
	return nil
}

func (s *textSink) appendCell(i int, c string) {
	pad := max(0, s.widths[i]-utf8.RuneCountInString(c))
	if s.markdown {
		s.line = append(s.line, "| "...)
	} else if i > 0 {
		s.line = append(s.line, columnGap...)
	}
	if s.right[i] {
		s.line = append(s.line, strings.Repeat(" ", pad)...)
		s.line = append(s.line, c...)
	} else {
		s.line = append(s.line, c...)
		s.line = append(s.line, strings.Repeat(" ", pad)...)
	}
	if s.markdown {
		s.line = append(s.line, ' ')
	}
}

func (s *textSink) endLine() error {
	if s.markdown {
		s.line = append(s.line, '|')
	} else {
		s.line = bytes.TrimRight(s.line, " ")
	}
	_, err := s.w.Write(append(s.line, '\n'))
	return err
}

const columnGap = "  "

// drawTable lays a small table out: aligned text without lines, or Markdown.
func drawTable(heading []string, right []bool, rows [][]string, markdown bool) ([]byte, error) {
	var buf bytes.Buffer
	align := make(tw.Alignment, len(heading))
	for i := range align {
		align[i] = tw.AlignLeft
		if right[i] {
			align[i] = tw.AlignRight
		}
	}
	cell := tw.CellAlignment{PerColumn: align}
	opts := []tablewriter.Option{
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithHeaderAlignmentConfig(cell),
		tablewriter.WithRowAlignmentConfig(cell),
		tablewriter.WithTrimSpace(tw.Off),
	}
	if markdown {
		opts = append(opts, tablewriter.WithRenderer(renderer.NewMarkdown()))
	} else {
		opts = append(opts,
			tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
				Borders:  tw.BorderNone,
				Settings: tw.Settings{Lines: tw.LinesNone, Separators: tw.SeparatorsNone},
			})),
			tablewriter.WithPadding(tw.Padding{Left: "", Right: columnGap, Overwrite: true}),
		)
	}
	table := tablewriter.NewTable(&buf, opts...)
	table.Header(heading)
	for _, r := range rows {
		if err := table.Append(r); err != nil {
			return nil, err
		}
	}
	if err := table.Render(); err != nil {
		return nil, err
	}
	if markdown {
		return buf.Bytes(), nil
	}
	var out bytes.Buffer
	for line := range bytes.Lines(buf.Bytes()) {
		out.Write(bytes.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}
