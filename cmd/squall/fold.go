package main

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"
)

// fold gives a terminal whole words: lines that it has no room for are broken at blanks,
// and go on under the text of their last column. Anything else is written to as it is.
func fold(w io.Writer) io.Writer {
	if f, ok := w.(file); ok && isTerminal(w) {
		return &folded{file: f}
	}
	return w
}

// file is what terminal knows of an *os.File.
type file interface {
	io.Writer
	Fd() uintptr
}

// folded is a terminal; Fd is still its own.
type folded struct{ file }

func (f *folded) Write(b []byte) (int, error) {
	columns, _ := terminal(f.file)
	if columns == 0 || bytes.ContainsAny(b, "\r\x1b") { // progress, which fits
		return f.file.Write(b)
	}
	var out []byte
	for line := range bytes.Lines(b) {
		out = breakLine(out, strings.TrimSuffix(string(line), "\n"), columns)
		if bytes.HasSuffix(line, []byte("\n")) {
			out = append(out, '\n')
		}
	}
	if _, err := f.file.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// breakLine breaks a line. A word that is wider than the terminal stays whole, for it
// may be a path; a command, as in examples, can be copied though it is broken.
func breakLine(out []byte, line string, columns int) []byte {
	if utf8.RuneCountInString(line) <= columns {
		return append(out, line...)
	}
	hang, mark := hanging(line, columns/2), ""
	all := strings.SplitAfter(line, " ")
	if strings.HasPrefix(line, "  ") && strings.HasPrefix(strings.TrimLeft(line, " "), "squall ") {
		mark = " \\"
		var quoted []string // what stands in quotes is one word
		for _, word := range all {
			if n := len(quoted); n > 0 && strings.Count(quoted[n-1], "'")%2 == 1 {
				quoted[n-1] += word
				continue
			}
			quoted = append(quoted, word)
		}
		all = quoted
	}
	at := 0 // columns written
	for i, word := range all {
		n := utf8.RuneCountInString(strings.TrimRight(word, " "))
		if i > 0 && at > hang && at+n+len(mark) > columns && n > 0 {
			out = append(append(bytes.TrimRight(out, " "), mark...), '\n')
			out = append(out, strings.Repeat(" ", hang)...)
			at = hang
		}
		out = append(out, word...)
		at += utf8.RuneCountInString(word)
	}
	return bytes.TrimRight(out, " ")
}

// hanging is the column of the text after the last gap of a line that begins before
// most, or a little behind its begin.
func hanging(line string, most int) int {
	hang := len(line) - len(strings.TrimLeft(line, " ")) + 2
	column := 0
	for i, r := range line {
		if i > 3 && r != ' ' && line[i-1] == ' ' && line[i-2] == ' ' && strings.TrimLeft(line[:i], " ") != "" && column < most {
			hang = column
		}
		column++
	}
	return hang
}
