package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/reports"
)

// anonymousName is the capture that an anonymised case is made of.
const anonymousName = "packets.pcapng"

// anonymise writes the packets of all attempts with other addresses and names into
// the directory of a case, and makes them the source: every table, page and line
// of the case comes from them, so that one key covers all.
func (s *source) anonymise(cmd *cobra.Command, args []string, dir string, anon *pipeline.Anonymizer) ([]string, error) {
	if s.hints != "" || len(s.clocks)+len(s.groups)+len(s.baselines) > 0 || s.shard.Count > 1 {
		return nil, exitError{exitUsage, errors.New("--anonymize goes without --hints, --groups, --baseline, --clock and --shard, which name what is to be hidden: squall extract --anonymize writes a capture to go on with")}
	}
	for _, in := range append(append([]string{}, s.files...), args...) {
		if tap, _ := capture.SplitInput(in); tap != "" {
			return nil, exitError{exitUsage, fmt.Errorf("--anonymize takes one tap, and %s names one of several", in)}
		}
		if in == "-" {
			return nil, exitError{exitUsage, errors.New("--anonymize reads its captures three times, and standard input can be read once: keep it in a file first")}
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, exitError{exitFailed, err}
	}
	out := filepath.Join(dir, anonymousName)
	if err := extract(cmd, s, args, &selection{where: "true"}, out, anon); err != nil {
		return nil, err
	}
	s.files, s.filter, s.after, s.before = nil, "", "", ""
	return []string{out}, nil
}

// proveAnonymous looks for original addresses in what was made: every text of every
// table, and the pages. Where it finds one, the directory's files are removed.
func proveAnonymous(r *reports.Results, dir string, page reports.HTMLOptions, anon *pipeline.Anonymizer) error {
	left := 0
	var text bytes.Buffer
	count := func(least int) {
		if text.Len() > least {
			left += anon.Left(text.Bytes()) + anon.NamesLeft(text.Bytes())
			text.Reset()
		}
	}
	for _, name := range reports.Names() {
		_, rows, err := r.Table(name)
		if err != nil {
			return err
		}
		for row, err := range rows {
			if err != nil {
				return err
			}
			for i := range row {
				text.WriteString(row[i].Str)
				text.WriteByte('\n')
			}
			count(1 << 20)
		}
	}
	if err := reports.WriteSummary(&text, r); err != nil {
		return err
	}
	count(0)
	if err := reports.WriteHTML(&text, r, page); err != nil {
		return err
	}
	count(0)
	if left == 0 {
		return nil
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() == anonymousName || strings.HasSuffix(e.Name(), ".parquet") {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return fmt.Errorf("%d original addresses and names are left in tables and pages: %s is not written", left, dir)
}
