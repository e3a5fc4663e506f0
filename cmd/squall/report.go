package main

import (
	"bufio"
	"fmt"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
	"squall/dissect/pipeline"
	"squall/reports"
)

func reportCommand() *cobra.Command {
	var format, filter, out string
	var query reports.Query
	var cfg pipeline.Config
	cmd := &cobra.Command{
		Use:   "report attempts FILE...",
		Short: "every attempt of a capture, as a table",
		Long: `report attempts reads captures and gives a row for each try of a client at a
node: when, how it ended, what proves it, and what it is to the wish it belongs
to (first, retry, failover, parallel, refresh, reattach). Rows come in the order
of their start, the same for any -j.`,
		Example: `  squall report attempts outage.pcapng.gz -T csv -w attempts.csv
  squall report attempts outage.pcap --where 'attempt_outcome == "refused"' --limit 20 -e event_start,source_ip,relation`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "attempts" {
				return exitError{exitUsage, fmt.Errorf("table %q is not known; there is attempts", args[0])}
			}
			f, err := reports.FindFormat(format)
			if err != nil {
				return exitError{exitUsage, err}
			}
			table := reports.Attempts()
			if _, _, err := query.Apply(&table.Table, nil); err != nil {
				return exitError{exitUsage, err}
			}
			if filter != "" {
				expr, err := capture.ParseFilter(filter)
				if err != nil {
					return exitError{exitUsage, fmt.Errorf("-f %q: %w", filter, err)}
				}
				cfg.Filter = func(_ *dissect.Datagram, p *capture.Packet) bool { return headers.Match(expr, p) }
			}
			src, err := capture.Open(args[1:], capture.Options{Stdin: cmd.InOrStdin()})
			if err != nil {
				return exitError{exitUsage, err}
			}
			defer src.Close()
			a, err := pipeline.Run(cmd.Context(), cfg, src)
			if err != nil {
				return exitError{exitFailed, err}
			}
			defer a.Close()
			env := &reports.Env{}
			for _, c := range a.Captures() {
				env.Files = append(env.Files, c.Path)
			}
			narrowed, rows, err := query.Apply(&table.Table, table.Rows(env, a.Attempts()))
			if err != nil {
				return exitError{exitUsage, err}
			}
			w, done, err := create(cmd, out)
			if err != nil {
				return err
			}
			buffered := bufio.NewWriter(w)
			_, err = reports.Write(buffered, f, narrowed, rows, reports.Options{})
			if ferr := buffered.Flush(); err == nil {
				err = ferr
			}
			if cerr := done(); err == nil {
				err = cerr
			}
			if err != nil {
				return exitError{exitFailed, err}
			}
			for _, c := range a.Captures() {
				if d := c.Damage; d != nil && !d.Tail {
					return exitError{exitDamaged, fmt.Errorf("%s: offset %d, frame %d: %s; the rows hold what came before", c.Path, d.Offset, d.Frame, d.Reason)}
				}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&format, "format", "T", "text", "text, markdown, csv, tsv, json, jsonl, arrow or parquet")
	flags.StringVarP(&out, "write", "w", "-", "file to write")
	flags.StringArrayVarP(&query.Columns, "columns", "e", nil, "only these columns")
	flags.StringVar(&query.Where, "where", "", "only rows for which this expression holds")
	flags.StringArrayVar(&query.Sort, "sort", nil, "sort by this column, downwards with a leading -")
	flags.IntVar(&query.Limit, "limit", 0, "at most this many rows")
	flags.StringVarP(&filter, "filter", "f", "", "capture filter, as tcpdump's (pcap-filter)")
	flags.BoolVar(&cfg.KeepDuplicates, "keep-duplicates", false, "count frames that a tap saw twice as packets of their own")
	flags.IntVarP(&cfg.Workers, "jobs", "j", 0, "workers; the rows are the same for any number")
	return cmd
}
