package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/headers"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/dissect/taps"
	"squall/reports"
)

// source is what every verb that analyses captures asks for.
type source struct {
	files          []string // of -r
	filter         string
	after, before  string
	hints          string
	groups         []string
	events         string
	hide           *pipeline.Anonymizer // of what is noted and of the calm day; nil = nothing
	placed         *reports.Groups      // of groups
	noted          []reports.Event      // of events
	tz             string
	zone           *time.Location // of tz; nil = UTC
	baselines      []string       // inputs of a calm day
	calmFiles      []sealed       // what it was read from when what is judged was made; nil = nobody knows
	calmFilter     string         // how it is read where what is judged was made before
	calmHints      string
	calmDuplicates bool
	calm           bool     // this is the source of one
	thresholds     []string // of --threshold
	judging        storm.Thresholds
	takeFlows      bool      // info counts flow records, which are no attempts
	flows          []written // that it found
	keepDuplicates bool
	clocks         []string                 // of --clock
	loggers        []string                 // names of logs
	set            map[string]capture.Clock // once they are known
	found          *taps.Clocks             // what a first pass over several taps found
	maxFlows       int
	maxNames       int
	maxNodes       int
	maxTemp        int64 // MB
	workers        int
	quiet, verbose bool
	numeric        bool
	countOnly      bool   // info needs no rows
	indexed        bool   // an index of the captures is to be kept
	keepIn         string // directory where the analysis is kept on the way; empty = nowhere
	shard          pipeline.Shard
	made           []string // words that are kept with the attempts
}

func (s *source) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&s.files, "read-file", "r", nil, "capture to read, as a FILE argument")
	f.StringVarP(&s.filter, "filter", "f", "", "capture filter, as tcpdump's (pcap-filter), what tcpdump -ddd prints, or @FILE with either; the rest is counted as filtered")
	f.StringVar(&s.after, "after", "", "only packets from this time on: RFC 3339 (without an offset UTC, or the zone of --tz), seconds of the epoch, or 10m from the first packet; files that end before are not read")
	f.StringVar(&s.before, "before", "", "only packets before this time; files that begin later are not read")
	f.StringArrayVar(&s.clocks, "clock", nil, "NAME=OFFSET[,DRIFTppm]: how far the clock of the tap NAME is ahead, as east=+137ms or east=-2s,+12ppm; its times are set right by that")
	s.besideFlags(cmd)
	f.IntVar(&s.maxFlows, "max-flows", pipeline.DefaultFlows, "flows followed at the same time, some 600 bytes each; one more, and one whose attempts have failed gives way, else an idle one, and is counted")
	f.BoolVar(&s.keepDuplicates, "keep-duplicates", false, "count frames that a tap saw twice as packets of their own")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "more remarks on standard error")
	f.BoolVarP(&s.numeric, "numeric", "n", false, "accepted for the sake of habit: names are never resolved")
}

// besideFlags are of what is given beside the captures, and of how attempts that were
// found become rows.
func (s *source) besideFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.hints, "hints", "", "YAML file that names nodes, fixes roles, groups services, adds protocols")
	f.StringArrayVar(&s.groups, "groups", nil, "where clients are: CSV with prefix and any of site, asn, country, or a MaxMind database (.mmdb: City, Country, ASN, or one of your own with site); columns of attempts, intents, clients, sources, findings, rows of squall report impact, group_timeline, group_versions and group_policies. Of several files the first that says something counts")
	f.StringVar(&s.events, "events", "", "CSV of what was noted beside the packets (deploys, pages, reboots): time, text and perhaps node; lines of squall events and of the report, marked in its charts. Times without a zone are in that of --tz, else UTC")
	ceilingFlags(f, &s.maxNodes, &s.maxNames)
	f.Int64Var(&s.maxTemp, "max-temp", defaultTemp, "MB on disk for attempts that are too many for memory, some 100 bytes each, in TMPDIR; 0 = no ceiling")
	f.IntVarP(&s.workers, "jobs", "j", 0, "workers; the results are the same for any number")
	f.BoolVarP(&s.quiet, "quiet", "q", false, "no progress and no remarks on standard error")
}

// ceilingFlags are those of what is told apart.
func ceilingFlags(f *pflag.FlagSet, nodes, names *int) {
	f.IntVar(nodes, "max-nodes", attempt.MaxNodes, "nodes that have a row each, those with most attempts, some 2 kB each; the others count in totals, services and findings, and how many they are is said")
	f.IntVar(names, "max-names", attempt.MaxNames, "names of clients that are kept, and versions, server names and fingerprints, some 60 bytes each; where there are more, a share is, and the clients of the others are printed as hashes, and counted")
}

// defaultTemp holds some 170 million attempts, MB.
const defaultTemp = 16 << 10

// wordFlags are those that change what is found, in the order of words.
var wordFlags = []string{"filter", "after", "before", "hints", "groups", "events", "baseline", "threshold", "tz", "keep-duplicates", "clock", "max-flows", "max-nodes", "max-names"}

// words are the flags and inputs that give the same analysis again.
func (s *source) words(cmd *cobra.Command, args []string) (out []string) {
	for _, name := range wordFlags {
		for _, v := range given(cmd, name) {
			out = append(out, "--"+name+"="+v)
		}
	}
	return append(append(out, s.files...), args...)
}

// given is what a flag was given; nil = nothing.
func given(cmd *cobra.Command, name string) []string {
	f := cmd.Flags().Lookup(name)
	if f == nil || !f.Changed {
		return nil
	}
	if list, ok := f.Value.(interface{ GetSlice() []string }); ok {
		return list.GetSlice()
	}
	return []string{f.Value.String()}
}

// maxFilterFile bounds what -f @FILE reads: no kernel takes a longer program.
const maxFilterFile = 1 << 20

// parseFilter reads a capture filter, or @FILE that holds one; nil without one.
func parseFilter(text string) (capture.Expr, error) {
	if text == "" {
		return nil, nil
	}
	name := fmt.Sprintf("-f %q", text)
	if path, ok := strings.CutPrefix(text, "@"); ok {
		h, err := os.Open(path)
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("-f: %w", err)}
		}
		defer h.Close()
		b, err := io.ReadAll(io.LimitReader(h, maxFilterFile))
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("-f: %w", err)}
		}
		name, text = "-f: "+path, string(b)
	}
	expr, err := capture.ParseFilter(text)
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("%s: %w", name, err)}
	}
	return expr, nil
}

// config checks the flags before anything is read.
func (s *source) config() (cfg pipeline.Config, err error) {
	if s.maxTemp < 0 || s.maxTemp > 1<<40 {
		return cfg, exitError{exitUsage, fmt.Errorf("--max-temp %d: want megabytes, 0 for no ceiling", s.maxTemp)}
	}
	cfg = pipeline.Config{RecordTemp: s.maxTemp << 20, Workers: s.workers, KeepDuplicates: s.keepDuplicates, Protocols: overlay.All(), CountOnly: s.countOnly, Shard: s.shard, Made: s.made, MaxFlows: s.maxFlows, MaxNodes: s.maxNodes, MaxNames: s.maxNames}
	if err := s.readZone(); err != nil {
		return cfg, err
	}
	if s.judging, err = thresholdsOf(s.thresholds); err != nil {
		return cfg, err
	}
	expr, err := parseFilter(s.filter)
	if err != nil {
		return cfg, err
	}
	if p, ok := expr.(*capture.FilterProgram); ok && p.Extended() {
		return cfg, exitError{exitUsage, errors.New("-f: this program asks for what only a live capture knows; compile it for files: tcpdump -ddd -r FILE …")}
	}
	if expr != nil {
		cfg.Filter = func(_ *dissect.Datagram, p *capture.Packet) bool { return headers.Match(expr, p) }
	}
	hints, own, err := readHints(s.hints)
	if err != nil {
		return cfg, err
	}
	if err := s.beside(); err != nil {
		return cfg, err
	}
	cfg.Hints, cfg.Protocols = hints, append(own, cfg.Protocols...)
	if cfg.Window.After, cfg.Window.AfterFirst, err = s.parseTime("--after", s.after); err != nil {
		return cfg, err
	}
	if cfg.Window.Before, cfg.Window.BeforeFirst, err = s.parseTime("--before", s.before); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// readHints reads what the user knows better, and protocols of his own.
func readHints(path string) (h dissect.Hints, own []dissect.Protocol, err error) {
	if path == "" {
		return h, nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return h, nil, exitError{exitUsage, err}
	}
	defer f.Close()
	if h, own, err = overlay.LoadHints(f, path); err != nil {
		return h, nil, exitError{exitUsage, err}
	}
	return h, own, nil
}

// parseTime reads a moment, or a duration that counts from the first packet.
func (s *source) parseTime(flag, text string) (at, fromFirst int64, err error) {
	if text == "" {
		return 0, 0, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.UnixNano(), 0, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, s.at()); err == nil {
			return t.UnixNano(), 0, nil
		}
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && f > 1e6 && f < 9e9 {
		return int64(f * 1e9), 0, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return 0, int64(d), nil
	}
	return 0, 0, exitError{exitUsage, fmt.Errorf("%s %q: want RFC 3339 (2010-12-22T16:00:00Z; without an offset it is in the zone of --tz), seconds of the epoch, or a time from the first packet (90s, 10m)", flag, text)}
}

// analyse reads the captures to their end, or takes up the rows of a run that
// replay -o kept.
func (s *source) analyse(cmd *cobra.Command, args []string) (*reports.Results, error) {
	cfg, err := s.config()
	if err != nil {
		return nil, err
	}
	inputs := append(append([]string{}, s.files...), args...)
	if len(inputs) == 0 {
		return nil, exitError{exitUsage, errors.New("no capture was named: want FILE..., a directory, a glob pattern, or - for standard input")}
	}
	if len(inputs) == 1 {
		if a, _, err := readRun(inputs[0]); err == nil {
			return s.told(cmd, a)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, exitError{exitUsage, err}
		}
	}
	inputs, logs, stdin, err := sortInputs(inputs, cmd.InOrStdin())
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	if len(logs) > 0 {
		if s.filter != "" || s.shard.Count > 1 {
			return nil, exitError{exitUsage, fmt.Errorf("%s holds no packets: -f and --shard are for captures", logs[0].path)}
		}
		for _, w := range logs {
			if w.format.Counted() && !s.takeFlows {
				return nil, exitError{exitUsage, fmt.Errorf("%s is %v: flow records do not say how a connection went, so that they are no attempts and tell nothing of retries or failures. squall info says what they cover; --baseline %s beside a capture makes them the calm day that it is judged by", w.path, w.format, w.path)}
			}
		}
		logs = slices.DeleteFunc(logs, func(w written) bool {
			if w.format.Counted() {
				s.flows = append(s.flows, w)
			}
			return w.format.Counted()
		})
		if err := s.clockLogs(logs, inputs); err != nil {
			return nil, err
		}
		cfg.Records = records(logs, &cfg)
	}
	var src capture.Source = noPackets{}
	if len(inputs) > 0 || len(logs)+len(s.flows) == 0 {
		opt := capture.Options{Window: cfg.Window, Index: s.indexed, Stdin: stdin}
		if s.keepIn != "" && len(logs) == 0 {
			src, err = s.goOn(cmd, inputs, opt, &cfg)
		} else {
			src, err = s.open(cmd, inputs, opt)
		}
		if dir, ok := keptDir(inputs); ok && errors.Is(err, capture.ErrNone) {
			return nil, exitError{exitUsage, fmt.Errorf("%s is what analyze -o kept, and holds no captures: squall explain %s, squall report TABLE %s", dir, dir, dir)}
		}
		if err != nil {
			return nil, err
		}
	}
	defer src.Close()
	cfg.Clocks = s.found
	done := s.progress(cmd.ErrOrStderr(), src, &cfg)
	a, err := pipeline.Run(cmd.Context(), cfg, src)
	done()
	if err != nil && (a == nil || cmd.Context().Err() == nil) {
		if known := (exitError{}); errors.As(err, &known) { // of a log or a table
			return nil, known
		}
		return nil, exitError{exitFailed, err}
	}
	return s.told(cmd, a)
}

// goOn opens the captures where an analysis of them was broken off, or at their begin.
func (s *source) goOn(cmd *cobra.Command, inputs []string, opt capture.Options, cfg *pipeline.Config) (capture.Source, error) {
	k := s.resumption(cmd)
	opt.Resume, cfg.Keep = k.marks, k.keep
	if k.was != nil { // the clocks are known by then
		s.set, s.found = k.was.Set, k.was.Found
	}
	src, err := s.open(cmd, inputs, opt)
	switch {
	case err != nil || k.goesOn:
		cfg.From = k.from
	case k.was != nil && k.was.Set != nil:
		src.Close()
		k.was, s.set, s.found = nil, nil, nil
		return s.open(cmd, inputs, opt)
	}
	return src, err
}

// told adds what was given beside the captures.
func (s *source) told(cmd *cobra.Command, a *pipeline.Analysis) (*reports.Results, error) {
	judging := storm.Config{Zone: s.zone, Thresholds: s.judging}
	var beside []string
	if len(s.baselines) > 0 {
		judging.Baseline = func(state *storm.State) (*storm.Baseline, error) { return s.baseline(cmd, state, &beside) }
	}
	results := reports.NewResults(a, judging)
	results.Groups, results.Told = s.placed, s.noted
	if len(s.baselines) > 0 { // what is wrong with it is said before anything is written
		if _, err := results.Report(); err != nil {
			a.Close()
			return nil, exitError{exitUsage, err}
		}
		if s.calmFiles != nil && !slices.EqualFunc(s.calmFiles, beside, func(f sealed, path string) bool { return f.Name == path }) {
			a.Close()
			return nil, exitError{exitUsage, fmt.Errorf("--baseline %s: it holds other files than when this was made; name the calm day anew", strings.Join(s.baselines, ", "))}
		}
		if s.hide == nil { // their names tell
			results.Beside = beside
		}
	}
	return results, nil
}

// beside reads what is given beside the captures.
func (s *source) beside() (err error) {
	if s.placed, err = readGroups(s.groups); err != nil || s.events == "" {
		return err
	}
	h, err := os.Open(s.events)
	if err != nil {
		return exitError{exitUsage, fmt.Errorf("--events: %w", err)}
	}
	defer h.Close()
	if s.noted, err = reports.ReadEvents(h, s.events, s.at()); err != nil {
		return exitError{exitUsage, fmt.Errorf("--events %s: %w", s.events, err)}
	}
	for i := range s.noted {
		if e := &s.noted[i]; s.hide != nil {
			e.What, e.Told = s.hide.Text(e.What), "notes"
		}
	}
	return nil
}

// readGroups reads where clients are; nil without a file.
func readGroups(paths []string) (*reports.Groups, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	g := &reports.Groups{}
	for _, path := range paths {
		h, err := os.Open(path)
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("--groups: %w", err)}
		}
		err = g.ReadGroups(h, path)
		h.Close()
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("--groups %s: %w", path, err)}
		}
	}
	return g, nil
}

// open opens the captures with the clocks of their taps set right.
func (s *source) open(cmd *cobra.Command, inputs []string, opt capture.Options) (capture.Source, error) {
	if s.set == nil {
		var err error
		if s.set, err = s.clocksOf(cmd, inputs, opt.Window); err != nil {
			return nil, err
		}
	}
	if opt.Stdin == nil {
		opt.Stdin = cmd.InOrStdin()
	}
	var skipped []error
	opt.Clocks, opt.Skipped = s.set, func(_ string, why error) { skipped = append(skipped, why) }
	src, err := capture.Open(inputs, opt)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	for _, why := range skipped {
		if !s.quiet {
			fmt.Fprintf(cmd.ErrOrStderr(), "squall: skipped: %v\n", why)
		}
	}
	return src, nil
}

// noPackets is the source where only logs were named.
type noPackets struct{}

func (noPackets) Next() (*capture.Batch, error) { return nil, io.EOF }
func (noPackets) Files() []capture.FileStats    { return nil }
func (noPackets) Close() error                  { return nil }

// notRead refuses to write a file that is an input: it would be emptied before
// it is read.
func notRead(src capture.Source, out string) error {
	there, err := os.Stat(out)
	if err != nil {
		return nil
	}
	for _, f := range src.Files() {
		if in, err := os.Stat(f.Path); err == nil && os.SameFile(in, there) {
			return exitError{exitUsage, fmt.Errorf("%s is read and cannot be written: another name after -w", out)}
		}
	}
	return nil
}

// progress draws a line on a terminal, and nothing anywhere else.
func (s *source) progress(w io.Writer, src capture.Source, cfg *pipeline.Config) (done func()) {
	if s.quiet || !isTerminal(w) {
		return func() {}
	}
	begin := time.Now()
	var drawn time.Time
	cfg.Progress = func(p pipeline.Progress) {
		now := time.Now()
		if now.Sub(drawn) < 200*time.Millisecond {
			return
		}
		drawn = now
		var read, size int64
		for _, f := range src.Files() {
			if f.Unread == "" {
				read += min(f.ReadOnDisk, f.SizeOnDisk) // its begin is read twice
				size += f.SizeOnDisk
			}
		}
		spent := now.Sub(begin)
		line := fmt.Sprintf("%d packets, %.0f packets/s", p.Packets, float64(p.Packets)/spent.Seconds())
		if size > 0 && read > 0 {
			left := time.Duration(float64(spent) * float64(size-read) / float64(read)).Round(time.Second)
			line = fmt.Sprintf("%3d %% of %.1f MB, %s, %s left", 100*read/size, float64(size)/1e6, line, left)
		}
		fmt.Fprintf(w, "\r\x1b[K%s", line)
	}
	return func() {
		if !drawn.IsZero() {
			fmt.Fprint(w, "\r\x1b[K")
		}
	}
}

func isTerminal(w any) bool {
	columns, _ := terminal(w)
	return columns > 0
}

// brokenOff is exit 3 where an input ended before its end.
func brokenOff(files []capture.FileStats, kept string) error {
	for i := range files {
		if d := files[i].Damage; d != nil && !d.Tail {
			return exitError{exitDamaged, fmt.Errorf("%s: offset %d, frame %d: %s; %s", files[i].Path, d.Offset, d.Frame, d.Reason, kept)}
		}
	}
	return nil
}

// damaged is the same of an analysis.
func damaged(captures []pipeline.Capture) error {
	for i := range captures {
		if err := brokenOff([]capture.FileStats{captures[i].FileStats}, "what came before is in the results"); err != nil {
			return err
		}
	}
	return nil
}

// damaged is the same, and where a file of groups broke off.
func (s *source) damaged(r *reports.Results) error {
	if err := damaged(r.Analysis.Captures()); err != nil {
		return err
	}
	if err := s.placed.Err(); err != nil {
		return exitError{exitDamaged, fmt.Errorf("--groups %w; clients that it could not tell of are in no group", err)}
	}
	return nil
}

// interrupted is exit 130 where the run was stopped before its end.
func interrupted(cmd *cobra.Command) error {
	if cmd.Context().Err() != nil {
		return exitError{exitSignal, errors.New("interrupted; the results hold what was read until then")}
	}
	return nil
}
