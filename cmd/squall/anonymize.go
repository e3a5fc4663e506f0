package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/taps"
	"squall/reports"
)

// anonymousName is the capture that an anonymised case is made of.
const anonymousName = "packets.pcapng"

// anonymise writes the packets of all attempts with other addresses and names into
// the directory of a case, and makes them the source: every table, page and line
// of the case comes from them, so that one key covers all.
func (s *source) anonymise(cmd *cobra.Command, args []string, dir string, anon *pipeline.Anonymizer) ([]string, error) {
	switch {
	case s.shard.Count > 1:
		return nil, exitError{exitUsage, errors.New("a shard has no tables yet that could be searched for addresses that are left. Write the whole capture with other addresses first, and take shards of that: squall extract FILE... --where true --anonymize KEYFILE -w OTHER.pcapng; squall analyze OTHER.pcapng --shard I/N -o DIR")}
	case len(s.baselines) > 0 && s.hints != "":
		return nil, exitError{exitUsage, errors.New("--anonymize takes --baseline or --hints, not both: the calm day's services would keep the names that the hints give them. Make both days anonymous first: squall analyze CALM --hints H --anonymize KEYFILE -o CALMCASE; squall analyze FILE... --hints H --anonymize KEYFILE -o CASE; then judge the one by the other: squall analyze CASE/packets.pcapng --hints CASE/hints.yaml --baseline CALMCASE/packets.pcapng -o JUDGED")}
	}
	for _, in := range append(append([]string{}, s.files...), args...) {
		if in == "-" {
			return nil, exitError{exitUsage, errors.New("--anonymize reads its captures three times, and standard input can be read once: keep it in a file first")}
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, exitError{exitFailed, err}
	}
	out := filepath.Join(dir, anonymousName)
	made, err := extract(cmd, s, args, &selection{where: "true"}, out, anon)
	if err != nil {
		return nil, err
	}
	if s.hints != "" {
		if err := s.hideHints(filepath.Join(dir, "hints.yaml"), anon); err != nil {
			return nil, err
		}
	}
	if len(s.groups) > 0 {
		if err := s.hideGroups(filepath.Join(dir, "groups.csv"), anon); err != nil {
			return nil, exitError{exitFailed, err}
		}
	}
	s.calmFilter = s.filter
	s.files, s.filter, s.after, s.before, s.hide = nil, "", "", "", anon
	s.hideClocks(made)
	return inputsOf(made), nil
}

// hideClocks says of the taps that were written what is known of their clocks: they
// are right now, as far as they could be set right.
func (s *source) hideClocks(made []tapFile) {
	set, names := map[string]capture.Clock{}, map[string]string{}
	for _, f := range made {
		names[f.tap] = f.name
		if c, ok := s.set[f.tap]; ok {
			c.Offset, c.Drift = 0, 0
			set[f.name] = c
		}
	}
	s.set, s.clocks = set, nil
	if s.found == nil {
		return
	}
	found := &taps.Clocks{Of: set, Apart: s.found.Apart, Pairs: slices.Clone(s.found.Pairs)}
	for i := range found.Pairs {
		p := &found.Pairs[i]
		p.A, p.B = names[p.A], names[p.B]
	}
	s.found = found
}

// hideHints writes the hints again: nodes under their other addresses, services that
// squall does not know under numbers, protocols as they are.
func (s *source) hideHints(path string, anon *pipeline.Anonymizer) error {
	b, err := os.ReadFile(s.hints)
	if err != nil {
		return exitError{exitUsage, err}
	}
	out, err := overlay.HideHints(b, s.hints, anon.Addr)
	if err == nil {
		err = os.WriteFile(path, out, 0o600)
	}
	if err != nil {
		return exitError{exitFailed, err}
	}
	s.hints = path
	return nil
}

// hideGroups writes where clients are under other names: each address by itself, for a
// prefix of a public database would tell who it is.
func (s *source) hideGroups(path string, anon *pipeline.Anonymizer) error {
	lines := []string{}
	for was, is := range anon.Addresses() {
		g := s.placed.Of(was)
		if g == (reports.Group{}) {
			continue
		}
		asn := ""
		if g.ASN != "" { // from the numbers for private use, RFC 6996
			asn = fmt.Sprint(4_200_000_000 + anon.Number("asn", g.ASN, 94_967_295))
		}
		word := func(kind, name string) string {
			if name == "" {
				return ""
			}
			return fmt.Sprintf("%s-%06x", kind, anon.Number(kind, name, 1<<24))
		}
		lines = append(lines, fmt.Sprintf("%v,%s,%s,%s\n", is, word("site", g.Site), asn, word("country", g.Country)))
	}
	if err := s.placed.Err(); err != nil {
		return err
	}
	slices.Sort(lines)
	s.groups = []string{path}
	return os.WriteFile(path, []byte("prefix,site,asn,country\n"+strings.Join(lines, "")), 0o600)
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
		if e.Name() == "hints.yaml" || e.Name() == "groups.csv" || strings.HasPrefix(e.Name(), "packets") || strings.HasSuffix(e.Name(), ".parquet") {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return fmt.Errorf("%d original addresses and names are left in tables and pages: %s is not written", left, dir)
}
