package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"squall/reports"
)

// output is where a table goes and how it looks.
type output struct {
	format, file string
	query        reports.Query
	options      reports.Options
	parquetTime  string
	hive         int
}

func (o *output) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.format, "format", "T", "", "text, markdown, csv, tsv, json, jsonl, zeek, ecs, arrow or parquet; by default as the file's ending says, else text")
	f.StringVarP(&o.file, "write", "w", "-", "file to write, - for standard output")
	f.StringArrayVarP(&o.query.Columns, "columns", "e", nil, "only these columns")
	f.StringVar(&o.query.Where, "where", "", "only rows for which this expression holds")
	f.StringArrayVar(&o.query.Sort, "sort", nil, "sort by this column, downwards with a leading -")
	f.IntVar(&o.query.Limit, "limit", 0, "at most this many rows")
	f.StringVar(&o.parquetTime, "parquet-time", "ns", "ns, or us for readers of Parquet that refuse nanoseconds")
}

// hiveFlag offers the layout of a data lake.
func (o *output) hiveFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.hive, "hive", 0, "write Parquet in N shards a day into the directory -w: dt=YYYY-MM-DD/shard=NNNN/part-NNNN.parquet")
}

// check finds mistakes before any capture is read.
func (o *output) check(t *reports.Table) (reports.Format, error) {
	if o.hive != 0 {
		switch {
		case o.hive < 0 || o.hive > reports.MaxHiveShards:
			return reports.Format{}, exitError{exitUsage, fmt.Errorf("--hive %d: want 1 to %d shards", o.hive, reports.MaxHiveShards)}
		case o.format != "" && o.format != "parquet":
			return reports.Format{}, exitError{exitUsage, fmt.Errorf("--hive writes Parquet, not %s", o.format)}
		case o.file == "-":
			return reports.Format{}, exitError{exitUsage, errors.New("--hive writes a directory: -w DIR")}
		}
		o.format = "parquet"
	}
	if o.format == "" {
		o.format = "text"
		if f, ok := reports.FormatOf(o.file); ok {
			o.format = f.Name
		}
	}
	f, err := reports.FindFormat(o.format)
	if err != nil {
		return f, exitError{exitUsage, err}
	}
	switch o.parquetTime {
	case "ns":
	case "us":
		o.options.ParquetMicros = true
	default:
		return f, exitError{exitUsage, fmt.Errorf("--parquet-time %q: want ns or us", o.parquetTime)}
	}
	if _, _, err := o.query.Apply(t, nil); err != nil {
		return f, exitError{exitUsage, err}
	}
	return f, nil
}

// write sends the rows that the query leaves.
func (o *output) write(cmd *cobra.Command, f reports.Format, t *reports.Table, rows reports.Rows) error {
	narrowed, rows, err := o.query.Apply(t, rows)
	if err != nil {
		return exitError{exitUsage, err}
	}
	if f.Binary && o.file == "-" && isTerminal(cmd.OutOrStdout()) {
		return exitError{exitUsage, fmt.Errorf("%s is not for a terminal: -w FILE, or send it to a program", f.Name)}
	}
	if o.hive > 0 {
		if _, err := reports.WriteHive(o.file, narrowed, rows, o.hive, o.options); err != nil {
			return exitError{exitFailed, err}
		}
		return nil
	}
	return emit(cmd, o.file, func(w io.Writer) error {
		opt := onTerminal(cmd, f.Name, o.file)
		opt.Zone, opt.ParquetMicros, opt.Chosen = o.options.Zone, o.options.ParquetMicros, len(o.query.Columns) > 0
		_, err := reports.Write(w, f, narrowed, rows, opt)
		return err
	})
}

// reading sets text and Markdown to the zone that was asked for.
func (o *output) reading(in *source, f reports.Format, r *reports.Results) *reports.Results {
	if f.Name != "text" && f.Name != "markdown" {
		return r
	}
	o.options.Zone = in.zone
	return r.ForReading()
}

// emit writes an output that - sends to standard output.
func emit(cmd *cobra.Command, path string, write func(io.Writer) error) error {
	w, done, err := create(cmd, path)
	if err != nil {
		return err
	}
	return finish(w, done, write)
}

// emitWords is emit for what a terminal may break into further lines.
func emitWords(cmd *cobra.Command, path string, write func(io.Writer) error) error {
	if path != "-" {
		return emit(cmd, path, write)
	}
	var b bytes.Buffer // fold wants whole lines
	err := write(&b)
	if _, e := fold(cmd.OutOrStdout()).Write(b.Bytes()); err == nil {
		err = e
	}
	if err != nil {
		return exitError{exitFailed, err}
	}
	return nil
}

// onTerminal is how a table is written there.
func onTerminal(cmd *cobra.Command, format, path string) (opt reports.Options) {
	if format == "text" && path == "-" {
		opt.Width, _ = terminal(cmd.OutOrStdout())
	}
	return opt
}

// finish writes through a buffer and closes, reporting the first error.
func finish(w io.Writer, done func() error, write func(io.Writer) error) error {
	buffered := bufio.NewWriterSize(w, 1<<16)
	err := write(buffered)
	if e := buffered.Flush(); err == nil {
		err = e
	}
	if e := done(); err == nil {
		err = e
	}
	if err != nil {
		return exitError{exitFailed, err}
	}
	return nil
}

func reportCommand() *cobra.Command {
	var in source
	var out output
	cmd := &cobra.Command{
		Use:   "report TABLE SOURCE...",
		Short: "any table of an analysis, in any format",
		Long: `report reads captures, or a directory that analyze -o kept, and gives a table:

` + tableList() + `
Rows come in an order of their own, the same for any -j; docs/tables.md has the
columns. Attempts come by their start: one row for each try of a client at a
node: when, how it ended, what proves it, and what it is to the intent it belongs
to (first, retry, failover, parallel, refresh, reattach).`,
		Example: `  squall report attempts outage.pcapng.gz -T csv -w attempts.csv
  squall report attempts outage.pcap --where 'attempt_outcome == "refused"' --limit 20 -e event_start,source_ip,relation
  squall report nodes outage.pcap --sort -peak_rate --limit 5
  squall report timeline outage.pcap --where 'destination_ip == nil' -w timeline.parquet
  squall report attempts outage.pcap --hive 8 -w lake/attempts`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return reports.Names(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			table, _, err := (*reports.Results)(nil).Table(args[0])
			if err != nil {
				return exitError{exitUsage, err}
			}
			f, err := out.check(table)
			if err != nil {
				return err
			}
			for i, flag := range []string{"baseline", "threshold"} {
				judged := append([]string{"policies"}, judgedTables...)[1-i:] // a baseline leaves policies as they are
				if cmd.Flags().Changed(flag) && !slices.Contains(judged, table.Name) {
					return exitError{exitUsage, fmt.Errorf("--%s changes how things are judged: it is for %s, not for %s", flag, strings.Join(judged, ", "), table.Name)}
				}
			}
			if kept, ok := keptTable(args[1:], table); ok && !in.besides() {
				if err := in.forCaptures(args[1]); err != nil {
					return err
				}
				h, err := os.Open(kept)
				if err != nil {
					return exitError{exitUsage, err}
				}
				defer h.Close()
				return out.write(cmd, f, table, reports.ReadParquet(h, table))
			}
			results, err := in.demand(cmd, args[1:])
			if err != nil {
				return err
			}
			defer results.Analysis.Close()
			results = out.reading(&in, f, results)
			_, rows, err := results.Table(args[0])
			if err != nil {
				return exitError{exitFailed, err}
			}
			if err := out.write(cmd, f, table, rows); err != nil {
				return err
			}
			if err := interrupted(cmd); err != nil {
				return err
			}
			return in.damaged(results)
		},
	}
	in.flags(cmd)
	in.zoneFlag(cmd)
	in.judgingFlags(cmd)
	out.flags(cmd)
	out.hiveFlag(cmd)
	return cmd
}

// judgedTables are those that a baseline has a say in.
var judgedTables = []string{"timeline", "nodes", "findings", "criteria", "node_periods", "migrations", "versions", "roles", "events", "sources"}

// besides says that something is given that a kept table does not know of.
func (s *source) besides() bool {
	return len(s.baselines) > 0 || len(s.thresholds) > 0 || len(s.groups) > 0 || s.events != "" || s.hints != "" || s.tz != ""
}

func tableList() string {
	var b strings.Builder
	for _, t := range reports.Schemas() {
		fmt.Fprintf(&b, "  %-14s %s\n", t.Name, t.Row)
	}
	return b.String()
}

// keptTable is the file of a table in the one directory that analyze -o made.
func keptTable(sources []string, t *reports.Table) (path string, ok bool) {
	dir, ok := keptDir(sources)
	return filepath.Join(dir, t.Name+".parquet"), ok
}
