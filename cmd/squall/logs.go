package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/flowlog"
	"squall/dissect/pipeline"
	"squall/reports"
	"squall/samples"
)

// written is an input that holds no packets: a log, or a table of attempts.
type written struct {
	path   string
	tap    string // what it was named, as a tap is
	clock  capture.Clock
	format flowlog.Format // None: a table of attempts
	table  string         // the format of that
	first  int64
	stdin  io.Reader
}

// logger tells apart who wrote things down.
func (w *written) logger() string {
	kind, _, _ := strings.Cut(w.format.String(), " ")
	return w.tap + "=" + kind
}

// sortInputs takes the logs and tables out of what was named. Directories that
// hold some are named again by their files.
func sortInputs(inputs []string, stdin io.Reader) (captures []string, logs []written, in io.Reader, err error) {
	in = stdin
	for _, named := range spread(inputs) {
		tap, path := capture.SplitInput(named)
		if path == "-" {
			r, head, _, _, err := capture.Plain(stdin, flowlog.HeadBytes)
			if err != nil {
				captures = append(captures, named)
				continue
			}
			if w, ok := recognise(path, head); ok && w.table != "parquet" {
				w.stdin, w.tap = r, tap
				logs = append(logs, w)
				continue
			}
			in = r
			captures = append(captures, named)
			continue
		}
		info, err := os.Stat(path)
		if _, sample := samples.Find(path); sample && errors.Is(err, fs.ErrNotExist) {
			return nil, nil, nil, fmt.Errorf("%s: no such file; a sample has that name: squall sample %s -w - | squall analyze -", path, path)
		}
		if err != nil || !info.IsDir() && !info.Mode().IsRegular() {
			captures = append(captures, named)
			continue
		}
		if !info.IsDir() {
			if w, ok := look(path); ok {
				w.tap = tap
				logs = append(logs, w)
			} else {
				captures = append(captures, named)
			}
			continue
		}
		if _, err := os.Stat(filepath.Join(path, summaryName)); err == nil {
			captures = append(captures, named)
			continue
		}
		before, cases := len(logs), 0
		var others []string
		err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && p != path {
				if _, err := os.Stat(filepath.Join(p, summaryName)); err == nil { // what came of captures, beside them
					cases++
					return fs.SkipDir
				}
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if w, ok := look(p); ok {
				w.tap = tap
				logs = append(logs, w)
			} else if isCapture(p) {
				if tap != "" {
					p = tap + "=" + p
				}
				others = append(others, p)
			}
			return nil
		})
		if err != nil {
			return nil, nil, nil, err
		}
		if len(logs) == before && (cases == 0 || len(others) == 0) {
			captures = append(captures, named)
		} else {
			captures = append(captures, others...)
		}
	}
	return captures, logs, in, nil
}

// spread takes patterns apart that match logs; capture.Open knows the others.
func spread(inputs []string) (out []string) {
	for _, named := range inputs {
		tap, path := capture.SplitInput(named)
		if _, err := os.Stat(path); err == nil || path == "-" {
			out = append(out, named)
			continue
		}
		all, _ := filepath.Glob(path)
		if !slices.ContainsFunc(all, func(p string) bool { _, ok := look(p); return ok }) {
			out = append(out, named)
			continue
		}
		for _, p := range all {
			if tap != "" {
				p = tap + "=" + p
			}
			out = append(out, p)
		}
	}
	return out
}

// isCapture opens a file of a directory that holds logs, too.
func isCapture(path string) bool {
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		return false
	}
	src.Close()
	return true
}

// look recognises a file by its content.
func look(path string) (w written, ok bool) {
	h, err := os.Open(path)
	if err != nil {
		return w, false
	}
	defer h.Close()
	var magic [4]byte
	if _, err := io.ReadFull(h, magic[:]); err != nil {
		return w, false
	}
	switch { // most files are captures: four bytes say so
	case bytes.Equal(magic[:], []byte{0x0a, 0x0d, 0x0d, 0x0a}), bytes.Equal(magic[1:3], []byte{0xc3, 0xd4}), bytes.Equal(magic[1:3], []byte{0xb2, 0xa1}),
		bytes.Equal(magic[1:3], []byte{0xc3, 0xb2}), bytes.Equal(magic[1:3], []byte{0xb2, 0x3c}):
		return w, false
	}
	if _, err := h.Seek(0, io.SeekStart); err != nil {
		return w, false
	}
	_, head, _, done, err := capture.Plain(h, flowlog.HeadBytes)
	if err != nil {
		return w, false
	}
	defer done()
	return recognise(path, head)
}

func recognise(path string, head []byte) (w written, ok bool) {
	w.path = path
	if w.format = flowlog.Recognise(head); w.format.Attempts() || w.format.Counted() {
		return w, true
	}
	t := reports.Attempts()
	w.table, ok = reports.TableFormat(head, &t.Table)
	return w, ok && w.format == flowlog.None
}

// open gives what is inside the file.
func (w *written) open() (in io.Reader, compression string, done func(), err error) {
	if w.stdin != nil {
		return w.stdin, "", func() {}, nil
	}
	h, err := os.Open(w.path)
	if err != nil {
		return nil, "", nil, err
	}
	in, _, compression, free, err := capture.Plain(h, flowlog.HeadBytes)
	if err != nil {
		h.Close()
		return nil, "", nil, fmt.Errorf("%s: %w", w.path, err)
	}
	return in, compression, func() { free(); h.Close() }, nil
}

// begins is the time of the first connection in a log, for the order of
// reading; 0 = it has none near its beginning.
func (w *written) begins() int64 {
	if w.stdin != nil || !w.format.Attempts() {
		return 0
	}
	in, _, done, err := w.open()
	if err != nil {
		return 0
	}
	defer done()
	r := flowlog.NewReader(0, 0, func(*attempt.Record) {})
	s, _ := r.Read(0, w.format, io.LimitReader(in, flowlog.HeadBytes))
	return s.First
}

// records reads the logs and tables.
func records(logs []written, cfg *pipeline.Config) func(*attempt.Names, uint32, func(*attempt.Record)) ([]pipeline.Capture, int64, int64, error) {
	now := ""
	if slices.ContainsFunc(logs, func(w written) bool { return w.logger() != logs[0].logger() }) {
		cfg.Logger = func() string { return now }
	}
	return func(names *attempt.Names, number uint32, add func(*attempt.Record)) (out []pipeline.Capture, from, to int64, err error) {
		for i := range logs {
			logs[i].first = logs[i].begins()
		}
		slices.SortStableFunc(logs, func(a, b written) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.path, b.path)) })
		window := cfg.Window
		for _, w := range logs {
			if w.first != 0 {
				window = window.From(w.first)
				break
			}
		}
		readers := map[string]*flowlog.Reader{} // by logger
		tables := taken{names: names, add: add, next: number, known: map[string]uint32{}, window: window}
		for i := range logs {
			w := &logs[i]
			now = w.logger()
			in, compression, done, err := w.open()
			if err != nil {
				return nil, 0, 0, err
			}
			at := uint32(len(out)) + number
			c := pipeline.Capture{FileStats: capture.FileStats{Path: w.path, Observer: w.tap, Clock: w.clock, Format: w.format.String(), Compression: compression, Drops: -1}}
			if w.format == flowlog.None {
				tables.out = append(out, c)
				err = tables.read(w, in)
				out = tables.out
			} else {
				var s flowlog.Stats
				reader := readers[now]
				if reader == nil {
					reader = flowlog.NewReader(window.After, window.Before, add)
					if readers[now] = reader; w.clock.Source != "" {
						reader.True = w.clock.True
					}
				}
				if s, err = reader.Read(at, w.format, in); err == nil {
					account(&c, &s)
				}
				out = append(out, c)
			}
			done()
			if err != nil {
				return nil, 0, 0, exitError{exitUsage, fmt.Errorf("%s: %w", w.path, err)}
			}
		}
		from, to = tables.from, tables.to
		for _, now = range slices.Sorted(maps.Keys(readers)) {
			if f, t := readers[now].Finish(); t != 0 {
				if to == 0 {
					from = f
				}
				from, to = min(from, f), max(to, t)
			}
		}
		return out, from, to, nil
	}
}

// account puts what became of a log's lines where that of packets stands.
func account(c *pipeline.Capture, s *flowlog.Stats) {
	c.Packets, c.Bytes, c.First, c.Last, c.Ledger = s.Records, s.Bytes, s.First, s.Last, s.Ledger
	if s.Bad != "" {
		reason := fmt.Sprintf("line %d: %s", s.BadLine, s.Bad)
		if n := s.Ledger[dissect.BucketMalformed]; n > 1 {
			reason += fmt.Sprintf("; %d lines were left out", n)
		}
		c.Damage = &capture.Damage{Offset: s.BadOffset, Frame: s.BadLine, Reason: reason, Tail: s.Cut}
	}
}

// maxQuoted bounds the inputs that the rows of tables may name.
const maxQuoted = 1 << 16

// taken are tables of attempts while they are read.
type taken struct {
	names    *attempt.Names
	add      func(*attempt.Record)
	window   capture.Window
	next     uint32 // number of out[0]
	out      []pipeline.Capture
	known    map[string]uint32 // inputs that the rows name
	from, to int64
}

func (t *taken) read(w *written, in io.Reader) error {
	own := len(t.out) - 1
	t.out[own].Format = "squall attempts " + w.table
	table := reports.Attempts()
	var rows reports.Rows
	switch w.table {
	case "parquet":
		h, err := os.Open(w.path)
		if err != nil {
			return err
		}
		defer h.Close()
		rows = reports.ReadParquet(h, &table.Table)
	case "arrow":
		rows = reports.ReadArrow(in, &table.Table)
	case "jsonl":
		rows = reports.ReadJSONL(in, &table.Table)
	default:
		rows = reports.ReadCSV(in, &table.Table, w.table == "tsv")
	}
	n, err := reports.EachAttempt(rows, func(a *reports.AttemptRow) error {
		c := &t.out[own]
		c.Packets++
		if t.window.After != 0 && a.Start < t.window.After || t.window.Before != 0 && a.Start >= t.window.Before {
			c.Ledger[dissect.BucketFiltered]++
			return nil
		}
		c.Ledger[dissect.BucketAttempt]++
		last := max(a.LastSeen, a.End)
		if c.First == 0 || a.Start < c.First {
			c.First = a.Start
		}
		c.Last = max(c.Last, last)
		if t.to == 0 || a.Start < t.from {
			t.from = a.Start
		}
		t.to = max(t.to, last)
		var err error
		if a.File, err = t.origin(a, uint32(own)+t.next); err != nil {
			return err
		}
		r := flowlog.FromRow(&a.Attempt, t.names)
		t.add(&r)
		return nil
	})
	if err != nil && n == 0 {
		return err
	}
	if err != nil {
		t.out[own].Damage = &capture.Damage{Frame: n + 1, Reason: err.Error()}
	}
	return nil
}

// origin is the number of the input that a row names.
func (t *taken) origin(a *reports.AttemptRow, table uint32) (uint32, error) {
	if a.CaptureFile == "" {
		return table, nil
	}
	dataset := cmp.Or(a.Dataset, "packets")
	key := dataset + "\x00" + a.Observer + "\x00" + a.CaptureFile
	n, ok := t.known[key]
	if !ok {
		if len(t.known) >= maxQuoted {
			return 0, errors.New("its rows name too many captures")
		}
		n = uint32(len(t.out)) + t.next
		t.known[key] = n
		t.out = append(t.out, pipeline.Capture{FileStats: capture.FileStats{Path: a.CaptureFile, Observer: a.Observer, Format: dataset, Drops: -1}, Quoted: true})
	}
	return n, nil
}
