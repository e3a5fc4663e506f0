package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/reports"
)

// summaryName marks a directory as one that analyze -o made.
const summaryName = "summary.json"

// analysis is squall analyze: its flags, then what they ask for.
type analysis struct {
	in                                            source
	out                                           output
	format, dir, colour, failOn, shard, anonymise string // of flags

	limit storm.Class          // of --fail-on
	anon  *pipeline.Anonymizer // nil = nothing is hidden
	page  reports.HTMLOptions  // with the words that make the results again
	write func(io.Writer, *reports.Results) error
}

func analyzeCommand() *cobra.Command {
	var x analysis
	cmd := &cobra.Command{
		Use:     "analyze FILE...",
		Aliases: []string{"dissect"},
		Short:   "the main job: what happened, and the numbers behind it",
		Long: `analyze reads captures and says what happened: the verdict with its criteria,
what was read and how good it is, how often clients tried and how it ended, the
nodes under most load, the clients that try most, and the attempts over time.

-T html writes one file that opens anywhere without a network: the verdict, the
charts over time, the tables and the commands that give them again.

-o DIR keeps every table as Parquet, the whole result as summary.json, that page
as report.html, squall.sql, which makes DuckDB know the tables by name,
index.squall, by which squall extract reads only the part of a capture that it
needs, and manifest.json with the SHA-256 of inputs and outputs, for squall verify;
squall report reads that directory as it reads captures, squall merge joins
several of them. When it is broken off, by Ctrl-C or by a lost machine, the same command
goes on from DIR/resume.squall, and says in the end what it would have said at once: files
that were read whole are not read again, and are known by their content.

Where packets are gone, logs are read instead, by content: Zeek's conn.log, flow
events of Suricata's eve.json, and attempts tables of squall report attempts. What
they tell is of the transport alone, and said to be.

--baseline PATH judges by a calm day in place of the calm stretch of the captures:
volume, failures and intents against the same time of day, or against the median
where it does not cover that. With it a capture that begins inside a storm is
judged in full.

--shard I/N takes one of N shares of the flows and keeps it with -o, for squall
merge; I counts from 0 and may be left out where JOB_COMPLETION_INDEX or
SLURM_ARRAY_TASK_ID say it, so that a Kubernetes Indexed Job, a Slurm array or
xargs can run the analysis on many machines.

--anonymize KEYFILE writes the packets of all attempts into DIR/packets.pcapng, as
squall extract --anonymize does, and makes everything in DIR of them: tables, pages,
events, filters and frames show what the packets show, under the same key
everywhere, and no other file has to be handed on. Of several taps it writes a file
each, packets-tap1.pcapng and so on; of --hints a hints.yaml for the other addresses, of
--groups a groups.csv in which sites, autonomous systems and countries have other names. A
--baseline judges as it did, and is not kept. What is kept is searched for original
addresses; if there is one, it is refused.

Exit status: 0 done, 2 unreadable input, 3 done but an input was damaged,
99 --fail-on was met, 130 interrupted.`,
		Example: `  squall sample skype-2010 -w - | squall analyze -
  squall analyze outage.pcapng.gz -o outage
  tcpdump -r all.pcap -w - 'udp port 7654' | squall analyze - -T json
  squall analyze /captures --after 2010-12-22T16:00:00Z --before 2010-12-22T17:00:00Z
  squall analyze outage.pcap --fail-on partial_outage`,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := x.prepare(cmd, args)
			if err != nil {
				return err
			}
			results, err := x.in.analyse(cmd, args)
			if err != nil {
				return err
			}
			defer results.Analysis.Close()
			if x.in.keepIn != "" && cmd.Context().Err() == nil {
				os.Remove(filepath.Join(x.dir, resumeName))
			}
			if err := x.keep(results); err != nil {
				return exitError{exitFailed, err}
			}
			if !results.Analysis.Whole() {
				if err := interrupted(cmd); err != nil {
					return err
				}
				return x.in.damaged(results)
			}
			return x.say(cmd, results)
		},
	}
	x.in.flags(cmd)
	x.in.zoneFlag(cmd)
	x.in.judgingFlags(cmd)
	x.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&x.shard, "shard", "", "I/N: only this share of the flows, kept for squall merge")
	f.StringVar(&x.anonymise, "anonymize", "", "file with a secret key: the case of -o is made of packets whose addresses, names and credentials are replaced, as squall extract does")
	return cmd
}

// flags of what is made of the results.
func (x *analysis) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&x.format, "format", "T", "text", "text, markdown, html, json or prometheus")
	f.StringVarP(&x.out.file, "write", "w", "-", "file to write, - for standard output")
	f.StringVarP(&x.dir, "output", "o", "", "directory that keeps every table as Parquet, summary.json and report.html")
	f.StringVar(&x.colour, "color", "auto", "auto, always or never")
	f.StringVar(&x.failOn, "fail-on", "", "exit 99 when the verdict is this class or a graver one")
	f.StringVar(&x.out.parquetTime, "parquet-time", "ns", "ns, or us for readers of Parquet that refuse nanoseconds")
}

// prepare checks what is asked for before anything is read, and returns the inputs;
// those of --anonymize are made here.
func (x *analysis) prepare(cmd *cobra.Command, args []string) (_ []string, err error) {
	if err = x.parseLimit(); err != nil {
		return nil, err
	}
	if x.in.shard, err = parseShard(x.shard); err != nil {
		return nil, err
	}
	if x.anonymise != "" {
		if x.dir == "" {
			return nil, exitError{exitUsage, errors.New("--anonymize keeps the packets that the results are of: -o DIR")}
		}
		if x.anon, err = anonymizer(x.anonymise); err == nil {
			args, err = x.in.anonymise(cmd, args, x.dir, x.anon)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := x.in.readZone(); err != nil {
		return nil, err
	}
	x.page = reports.HTMLOptions{Source: x.in.words(cmd, args), Version: cmd.Root().Version, Zone: x.in.zone}
	if x.anon != nil { // what else was given tells where things were
		x.page.Source = nil
		for _, t := range x.in.thresholds {
			x.page.Source = append(x.page.Source, "--threshold="+t)
		}
		for _, g := range x.in.groups {
			x.page.Source = append(x.page.Source, "--groups="+g)
		}
		x.page.Source = append(x.page.Source, args...)
	}
	x.in.made = x.page.Source
	if err := x.prepareViews(cmd); err != nil {
		return nil, err
	}
	if x.in.shard.Count > 1 && x.dir == "" {
		return nil, exitError{exitUsage, errors.New("a shard is kept for squall merge: -o DIR")}
	}
	if x.in.shard.Count > 1 && len(x.in.baselines) > 0 {
		return nil, exitError{exitUsage, errors.New("a shard is not judged: --baseline is for the whole, squall explain MERGED --baseline PATH")}
	}
	x.in.indexed = x.dir != ""
	if x.anon == nil {
		x.in.keepIn = x.dir
	}
	return args, nil
}

// parseLimit understands --fail-on.
func (x *analysis) parseLimit() error {
	if x.failOn == "" {
		return nil
	}
	var ok bool
	if x.limit, ok = storm.ParseClass(x.failOn); !ok {
		return exitError{exitUsage, fmt.Errorf("--fail-on %q: no such class; there are %s", x.failOn, classes())}
	}
	return nil
}

// prepareViews checks how the results are to be written.
func (x *analysis) prepareViews(cmd *cobra.Command) (err error) {
	if x.write, err = view(cmd, x.format, x.colour, x.page); err != nil {
		return err
	}
	_, err = x.out.check(reports.Schemas()[0])
	return err
}

// keep fills the directory of -o: with the whole case, or with the piece of it that
// a shard is.
func (x *analysis) keep(results *reports.Results) error {
	if a := results.Analysis; !a.Whole() {
		return keepPiece(x.dir, a.Captures(), a.Save, x.in.judging, custody{Arguments: append([]string{"--shard=" + shardWords(x.in.shard)}, x.page.Source...)})
	}
	if x.anon != nil {
		if err := proveAnonymous(results, x.dir, x.page, x.anon); err != nil {
			return err
		}
	}
	if x.dir == "" {
		return nil
	}
	return keep(results, x.dir, x.out.options, x.page, custody{Arguments: x.page.Source})
}

// say writes the results, and makes the exit status of the verdict.
func (x *analysis) say(cmd *cobra.Command, results *reports.Results) error {
	if err := emit(cmd, x.out.file, func(w io.Writer) error { return x.write(w, results) }); err != nil {
		return err
	}
	if err := interrupted(cmd); err != nil {
		return err
	}
	report, err := results.Report()
	if err != nil {
		return exitError{exitFailed, err}
	}
	if x.failOn != "" && report.Verdict.Class >= x.limit {
		return exitError{exitThreshold, fmt.Errorf("%s, and --fail-on says %s", report.Verdict.Class, x.limit)}
	}
	return x.in.damaged(results)
}

func classes() string {
	s := ""
	for c := range storm.NumClasses {
		if s += c.String(); c < storm.NumClasses-1 {
			s += ", "
		}
	}
	return s
}

// view finds the writer of a format.
func view(cmd *cobra.Command, format, colour string, page reports.HTMLOptions) (func(io.Writer, *reports.Results) error, error) {
	look, err := lookOf(cmd, colour)
	if err != nil {
		return nil, err
	}
	look.Zone = page.Zone
	switch format {
	case "text":
		return func(w io.Writer, r *reports.Results) error { return reports.Screen(w, r, look) }, nil
	case "html":
		return func(w io.Writer, r *reports.Results) error { return reports.WriteHTML(w, r, page) }, nil
	case "markdown":
		look.Color, look.Markdown = false, true
		return func(w io.Writer, r *reports.Results) error { return reports.Screen(w, r, look) }, nil
	case "json":
		return reports.WriteSummary, nil
	case "prometheus":
		return reports.WritePrometheus, nil
	}
	return nil, exitError{exitUsage, fmt.Errorf("format %q: analyze writes text, markdown, html, json or prometheus; tables in other formats come from squall report", format)}
}

// lookOf is how the screen is drawn: as wide as the terminal, else as COLUMNS
// says, else 100; in colours on a terminal that does not ask for none.
func lookOf(cmd *cobra.Command, colour string) (look reports.Look, err error) {
	columns, _ := terminal(cmd.OutOrStdout())
	look.Width = columns
	if look.Width == 0 {
		look.Width, _ = strconv.Atoi(os.Getenv("COLUMNS"))
	}
	if look.Width <= 0 {
		look.Width = 100
	}
	switch colour {
	case "auto":
		look.Color = columns > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	case "always":
		look.Color = true
	case "never":
	default:
		return look, exitError{exitUsage, fmt.Errorf("--color %q: want auto, always or never", colour)}
	}
	return look, nil
}

// keep writes every table and the summary. The summary comes last: a directory
// that has one is whole.
func keep(r *reports.Results, dir string, opt reports.Options, page reports.HTMLOptions, from custody) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	parquet, err := reports.FindFormat("parquet")
	if err != nil {
		return err
	}
	write := func(name string, to func(io.Writer) error) error {
		h, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		return finish(h, h.Close, to)
	}
	for _, name := range reports.Names() {
		table, rows, err := r.Table(name)
		if err != nil {
			return err
		}
		if err := write(name+parquet.Ext, func(w io.Writer) error {
			_, err := reports.Write(w, parquet, table, rows, opt)
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, name+parquet.Ext), err)
		}
	}
	if r.Analysis.FromPackets() {
		if err := write(pipeline.SaveName, r.Analysis.Save); err != nil {
			return err
		}
	}
	if err := keepIndex(r.Analysis.Captures(), filepath.Join(dir, indexName)); err != nil {
		return err
	}
	if err := write("squall.sql", func(w io.Writer) error { return reports.WriteViews(w) }); err != nil {
		return err
	}
	if err := write("report.html", func(w io.Writer) error { return reports.WriteHTML(w, r, page) }); err != nil {
		return err
	}
	if err := write(summaryName, func(w io.Writer) error { return reports.WriteSummary(w, r) }); err != nil {
		return err
	}
	from.calm = r.Beside
	return keepCustody(dir, r.Analysis.Captures(), r.Thresholds(), from)
}

// keepPiece writes what squall merge needs of a shard or of several, and nothing that
// could be taken for a whole analysis.
func keepPiece(dir string, captures []pipeline.Capture, save func(io.Writer) error, under storm.Thresholds, from custody) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	h, err := os.OpenFile(filepath.Join(dir, pipeline.SaveName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := finish(h, h.Close, save); err != nil {
		return err
	}
	if err := keepIndex(captures, filepath.Join(dir, indexName)); err != nil {
		return err
	}
	return keepCustody(dir, captures, under, from)
}

func shardWords(s pipeline.Shard) string { return fmt.Sprintf("%d/%d", s.Index, s.Count) }

// parseShard reads I/N; the index may come from what runs the job.
func parseShard(text string) (s pipeline.Shard, err error) {
	if text == "" {
		return s, nil
	}
	index, count, ok := strings.Cut(text, "/")
	for _, name := range []string{"JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"} {
		if index == "" {
			index = os.Getenv(name)
		}
	}
	i, err1 := strconv.Atoi(index)
	n, err2 := strconv.Atoi(count)
	if !ok || err1 != nil || err2 != nil || i < 0 || i >= n {
		return s, exitError{exitUsage, fmt.Errorf("--shard %q: want I/N with I from 0 to N-1, or /N where JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID give I", text)}
	}
	return pipeline.Shard{Index: i, Count: n}, nil
}
