package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/reports"
)

// tables gives the rows of a table, of a run or of a kept directory.
type tables func(name string) (*reports.Table, reports.Rows, error)

// tables are those of a kept analysis, else of one that is made now, with the
// captures that they are of and the time of their last packet.
func (in *source) tables(cmd *cobra.Command, args []string) (open tables, inputs []string, last int64, done func(), err error) {
	done = func() {}
	if dir, ok := keptDir(args); ok {
		open = func(name string) (*reports.Table, reports.Rows, error) {
			t := schema(name)
			h, err := os.Open(filepath.Join(dir, name+".parquet"))
			if err != nil {
				return nil, nil, err
			}
			return t, closing(h, reports.ReadParquet(h, t)), nil
		}
		if inputs, in.set, last, err = keptInputs(open); err != nil {
			err = exitError{exitFailed, err}
		}
		return open, inputs, last, done, err
	}
	inputs = append(append(inputs, in.files...), args...)
	if slices.Contains(inputs, "-") {
		return nil, nil, 0, done, exitError{exitUsage, errors.New("extract reads its captures twice, and standard input can be read once: keep it in a file first")}
	}
	results, err := in.analyse(cmd, args)
	if err != nil {
		return nil, nil, 0, done, err
	}
	done = func() { results.Analysis.Close() }
	if err := interrupted(cmd); err != nil {
		done()
		return nil, nil, 0, done, err
	}
	_, last = results.Analysis.Span()
	return results.Table, inputs, last, done, nil
}

// keepIndex writes the index of every capture that can be sought in; none, no file.
func keepIndex(captures []pipeline.Capture, path string) error {
	var list []capture.NamedIndex
	for _, c := range captures {
		if c.Index != nil {
			list = append(list, capture.NamedIndex{File: c.Path, Index: c.Index})
		}
	}
	if list == nil {
		os.Remove(path) // of an earlier analysis in the same directory
		return nil
	}
	h, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return finish(h, h.Close, func(w io.Writer) error { return capture.WriteIndices(w, list) })
}

// parts are the captures of a kept directory that have an index, and what is
// wanted of them. The others are read through.
func parts(args []string, want func(first, last int64) bool) (map[string]capture.Part, error) {
	dir, ok := keptDir(args)
	if !ok {
		return nil, nil
	}
	indices, err := readIndex(dir)
	list := map[string]capture.Part{}
	for file, index := range indices {
		list[file] = capture.Part{Index: index, Want: func(b *capture.Block) bool { return want(b.Min, b.Max) }}
	}
	return list, err
}

// readIndex gives what keepIndex wrote. Without it, or with an error, captures can
// still be read through.
func readIndex(dir string) (map[string]*capture.Index, error) {
	list, err := capture.ReadIndices(filepath.Join(dir, indexName))
	if err != nil {
		err = fmt.Errorf("%w: captures are read from their begin; analyze -o writes it anew", err)
	}
	return list, err
}

func schema(name string) *reports.Table {
	t, _, err := (*reports.Results)(nil).Table(name)
	if err != nil {
		panic(err) // a name of this program's own
	}
	return t
}

// keptDir is the one directory that analyze -o made, and nothing else.
func keptDir(args []string) (string, bool) {
	if len(args) != 1 {
		return "", false
	}
	_, err := os.Stat(filepath.Join(args[0], summaryName))
	return args[0], err == nil
}

// keptInputs are the captures of a kept analysis, with their taps and the clocks
// of these, and when they ended.
func keptInputs(open tables) (files []string, clocks map[string]capture.Clock, last int64, err error) {
	t, rows, err := open("captures")
	if err == nil {
		_, rows, err = reports.Query{Columns: []string{"capture_file", "last_time", "observer_name", "clock_source", "clock_offset_ns", "clock_at_ns", "clock_drift_ppm"}}.Apply(t, rows)
	}
	if err != nil {
		return nil, nil, 0, err
	}
	clocks = map[string]capture.Clock{}
	for row, err := range rows {
		if err != nil {
			return nil, nil, 0, err
		}
		if row[0].Str == "-" {
			return nil, nil, 0, errors.New("this analysis was made of standard input, which is gone")
		}
		if _, log := look(row[0].Str); log {
			continue // no packets
		}
		file, tap := row[0].Str, row[2].Str
		if tap != "" {
			file = tap + "=" + file
		}
		files = append(files, file)
		last = max(last, row[1].Int)
		if row[3].Str != "" {
			clocks[tap] = capture.Clock{Source: row[3].Str, Offset: row[4].Int, At: row[5].Int, Drift: row[6].Float}
		}
	}
	return files, clocks, last, nil
}

// closing closes a file after its rows.
func closing(c io.Closer, rows reports.Rows) reports.Rows {
	return func(yield func([]reports.Value, error) bool) {
		defer c.Close()
		rows(yield)
	}
}
