package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/dissect/pipeline"
	"squall/replay"
	"squall/reports"
)

// readRun reads the directory of a run; fs.ErrNotExist when it is none.
func readRun(dir string) (*pipeline.Analysis, *manifest, error) {
	h, err := os.Open(filepath.Join(dir, resultsName))
	if errors.Is(err, fs.ErrNotExist) || err != nil && !isDir(dir) {
		return nil, nil, fs.ErrNotExist
	} else if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	b, err := os.ReadFile(filepath.Join(dir, runName))
	if err != nil {
		return nil, nil, err
	}
	m := &manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, runName), err)
	}
	list, err := replay.ReadResults(h)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", h.Name(), err)
	}
	replay.Settle(list)
	return replay.Analysis(filepath.Base(dir), list), m, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// compared is one side of a comparison before it is cut to the other's scope.
type compared struct {
	name     string
	analysis *pipeline.Analysis
	run      *manifest // nil: a capture
}

func (s *source) compared(cmd *cobra.Command, path string) (*compared, error) {
	a, m, err := readRun(path)
	if err == nil {
		return &compared{filepath.Base(path), a, m}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, exitError{exitUsage, err}
	}
	results, err := s.demand(cmd, []string{path})
	if err != nil {
		return nil, err
	}
	return &compared{filepath.Base(path), results.Analysis, nil}, nil
}

// scope is the part that a run of a plan is about: its window, its services,
// the nodes by the names of the targets that played them.
func (c *compared) scope(other *manifest) replay.Scope {
	s := replay.Scope{Name: c.name}
	m := c.run
	if m == nil {
		m = other
	}
	if m == nil {
		return s
	}
	s.From = m.Plan.Begin
	if c.run == nil { // a run goes on until its last attempt is decided
		s.To = m.Plan.Begin + int64(m.Plan.Duration)
	}
	s.Services, s.Nodes = map[string]bool{}, map[string]string{}
	for i := range m.Plan.Groups {
		s.Services[m.Plan.Groups[i].Service] = true
	}
	for _, pair := range m.Nodes {
		if recorded, target, ok := strings.Cut(pair, " "); ok {
			s.Nodes[recorded] = target
		}
	}
	return s
}

func compareCommand() *cobra.Command {
	var in source
	var format, file string
	var limits []string
	cmd := &cobra.Command{
		Use:   "compare ORIGINAL REPLAY...",
		Short: "is the replay (or the fix) like the original, measure by measure",
		Long: `compare sets an original and its replay side by side: verdict, amplification, peak
and the time to it, outcomes, gaps between attempts, the curve of attempts, late
answers, moves between nodes, recovery. There is no single score. Each side is a
capture, a directory that analyze -o kept, or one that replay -o kept; the
original is cut to the window and the services of the replay's plan. Two
captures, or two runs before and after a fix, are compared likewise.

Several replays are runs of the same plan with other --seed; then each distance
stands beside the distance of the runs from each other, and what is below twice
that is chance.

Exit status 99 when a measure is beyond its limit; --limit NAME=VALUE sets one,
--limit NAME=off leaves it out. Limits: ` + limitNames() + `.`,
		Example: `  squall compare skype.pcapng run
  squall compare before after -T markdown
  squall compare skype.pcapng run -T html -w compare.html
  squall compare skype.pcapng run-1 run-2 run-3 --limit curve=0.3`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			changed, err := parseLimits(limits)
			if err != nil {
				return exitError{exitUsage, err}
			}
			write, ok := compareFormats[format]
			if format == "html" {
				page := reports.HTMLOptions{Source: append(in.words(cmd, args), limitWords(limits)...), Version: cmd.Root().Version}
				write, ok = func(w io.Writer, c *replay.Comparison, _ reports.Options) error {
					return reports.WriteComparisonHTML(w, c, page)
				}, true
			}
			if !ok {
				return exitError{exitUsage, fmt.Errorf("format %q: a comparison is text, markdown, html or json", format)}
			}
			var sides []*compared
			var run *manifest
			for _, path := range args {
				c, err := in.compared(cmd, path)
				if err != nil {
					return err
				}
				defer c.analysis.Close()
				sides = append(sides, c)
				if c.run != nil && len(sides) > 1 {
					run = c.run
				}
			}
			var profiles []*replay.Profile
			for _, c := range sides {
				p, err := replay.NewProfile(c.analysis, c.scope(run))
				if err != nil {
					return exitError{exitFailed, err}
				}
				profiles = append(profiles, p)
			}
			c := replay.Compare(profiles[0], profiles[1:], changed)
			c.Notes = append(c.Notes, runNotes(sides[1:])...)
			send := emit
			if format == "text" {
				send = emitWords
			}
			opt := onTerminal(cmd, format, file)
			opt.Chosen = true // all columns matter
			if err := send(cmd, file, func(w io.Writer) error { return write(w, c, opt) }); err != nil {
				return err
			}
			if !c.Pass() {
				return exitError{exitThreshold, errors.New("the replay is not like the original: " + strings.Join(failed(c), ", "))}
			}
			return nil
		},
	}
	in.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&format, "format", "T", "text", "text, markdown, html or json")
	f.StringVarP(&file, "write", "w", "-", "file to write, - for standard output")
	f.StringArrayVar(&limits, "limit", nil, "NAME=VALUE, the most that passes, or NAME=off")
	return cmd
}

func limitWords(limits []string) (out []string) {
	for _, l := range limits {
		out = append(out, "--limit="+l)
	}
	return out
}

func limitNames() string {
	names, limits := replay.CompareLimits()
	for i, n := range names {
		names[i] = fmt.Sprintf("%s %g", n, limits[n])
	}
	return strings.Join(names, ", ")
}

// parseLimits reads NAME=VALUE.
func parseLimits(list []string) (map[string]float64, error) {
	limits := map[string]float64{}
	_, known := replay.CompareLimits()
	for _, text := range list {
		name, value, _ := strings.Cut(text, "=")
		if _, ok := known[name]; !ok {
			return nil, fmt.Errorf("--limit %q: no measure of that name decides; there are %s", text, limitNames())
		}
		v, err := strconv.ParseFloat(value, 64)
		if value == "off" {
			v, err = math.Inf(1), nil
		}
		if err != nil || math.IsNaN(v) || v < 0 {
			return nil, fmt.Errorf("--limit %q: want %s=NUMBER, from 0, or %s=off", text, name, name)
		}
		limits[name] = v
	}
	return limits, nil
}

func failed(c *replay.Comparison) (names []string) {
	for _, m := range c.Measures {
		if m.Judged && !m.Pass {
			names = append(names, m.Name)
		}
	}
	return names
}

// runNotes say what limits what the runs can tell.
func runNotes(sides []*compared) (notes []string) {
	for _, c := range sides {
		if c.run == nil || c.run.Summary == nil {
			continue
		}
		s := c.run.Summary
		if !s.Valid() {
			notes = append(notes, fmt.Sprintf("%s: the run calls itself invalid: %s", c.name, strings.Join(s.Invalid, "; ")))
		}
		if s.Stopped != "" {
			notes = append(notes, fmt.Sprintf("%s: the run ended early: %s", c.name, s.Stopped))
		}
		if s.Mode == replay.AttemptMode.String() {
			notes = append(notes, c.name+": open loop; attempts came as recorded whatever the target did, and a healthy target may be condemned")
		}
		notes = append(notes, fmt.Sprintf("%s exercised %s", c.name, s.Work))
	}
	return notes
}

var compareFormats = map[string]func(io.Writer, *replay.Comparison, reports.Options) error{
	"text": func(w io.Writer, c *replay.Comparison, opt reports.Options) error {
		return compareText(w, c, "text", opt)
	},
	"markdown": func(w io.Writer, c *replay.Comparison, opt reports.Options) error {
		return compareText(w, c, "markdown", opt)
	},
	"json": compareJSON,
}

func compareText(w io.Writer, c *replay.Comparison, format string, opt reports.Options) error {
	f, err := reports.FindFormat(format)
	if err != nil {
		return err
	}
	table := reports.Comparison()
	head, item := "", "  "
	if format == "markdown" {
		head, item = "# ", "- "
	}
	var names []string
	for _, p := range c.Replays {
		names = append(names, p.Name)
	}
	word := "ALIKE"
	if !c.Pass() {
		word = "NOT ALIKE"
	}
	fmt.Fprintf(w, "%s%s: %s and %s\n", head, word, c.Original.Name, strings.Join(names, ", "))
	for _, p := range append([]*replay.Profile{c.Original}, c.Replays...) {
		fmt.Fprintf(w, "%s%s: %s\n", item, p.Name, p.Report.Summary)
	}
	fmt.Fprintln(w)
	columns := []string{"measure", "original", "replay", "distance", "limit", "result", "note"}
	if len(c.Replays) > 1 {
		columns = []string{"measure", "original", "replay", "distance", "limit", "result", "seed_distance", "indistinguishable", "note"}
	}
	q := reports.Query{Columns: columns}
	narrow, rows, err := q.Apply(&table.Table, reports.ComparisonRows(c))
	if err != nil {
		return err
	}
	if _, err := reports.Write(w, f, narrow, rows, opt); err != nil {
		return err
	}
	if len(c.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range c.Notes {
		if item == "  " {
			n = "note: " + n
		}
		if _, err := fmt.Fprintf(w, "%s%s\n", strings.TrimLeft(item, " "), n); err != nil {
			return err
		}
	}
	return nil
}

// compareJSON writes the comparison as one object.
func compareJSON(w io.Writer, c *replay.Comparison, _ reports.Options) error {
	type side struct {
		Name      string  `json:"name"`
		Verdict   string  `json:"verdict"`
		Cascade   bool    `json:"cascade"`
		Summary   string  `json:"summary"`
		Attempts  int64   `json:"attempts"`
		Intents   int64   `json:"intents"`
		Clients   int     `json:"clients"`
		Failed    int     `json:"clients_hit"`
		LockedOut float64 `json:"locked_out_client_seconds"`
		Peak      float64 `json:"peak_attempts_per_second"`
		Curve     []int64 `json:"attempts_by_10s"`
		Accepts   []int64 `json:"accepted_by_10s"`
	}
	of := func(p *replay.Profile) side {
		v := &p.Report.Verdict
		return side{p.Name, v.Class.String(), v.Cascade, p.Report.Summary, p.Counts.Attempts, p.Counts.Intents, p.Clients, p.Failed,
			p.LockedOut.Round(time.Millisecond).Seconds(), p.Peak, p.Curve, p.Accepts}
	}
	type line struct {
		Name     string   `json:"measure"`
		Original string   `json:"original"`
		Replay   string   `json:"replay"`
		Unit     string   `json:"unit,omitempty"`
		Distance *float64 `json:"distance"`
		Limit    *float64 `json:"limit"`
		Judged   bool     `json:"judged"`
		Pass     bool     `json:"pass"`
		Seeds    *float64 `json:"seed_distance"`
		Alike    bool     `json:"indistinguishable"`
		Note     string   `json:"note,omitempty"`
	}
	finite := func(v float64, ok bool) *float64 {
		if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	out := struct {
		Pass     bool     `json:"pass"`
		Original side     `json:"original"`
		Replays  []side   `json:"replays"`
		Measures []line   `json:"measures"`
		Notes    []string `json:"notes"`
	}{Pass: c.Pass(), Original: of(c.Original), Notes: append([]string{}, c.Notes...)}
	for _, p := range c.Replays {
		out.Replays = append(out.Replays, of(p))
	}
	for _, m := range c.Measures {
		out.Measures = append(out.Measures, line{m.Name, m.Original, m.Replay, m.Unit, finite(m.Distance, true), finite(m.Limit, m.Judged), m.Judged,
			m.Judged && m.Pass, finite(m.Seeds, m.Seeds >= 0), m.Alike, m.Note})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(&out)
}
