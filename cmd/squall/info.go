package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/headers"
	"squall/reports"
)

func infoCommand() *cobra.Command {
	var format, filter string
	var query reports.Query
	var keep bool
	cmd := &cobra.Command{
		Use:   "info FILE...",
		Short: "capture quality and the packet ledger",
		Long: `info reads captures to their end and tells their quality: format, link types,
span, drops, cut packets, gaps, clock steps, damage; and the ledger, in which
every packet read stands in exactly one bucket.

FILE is a capture (pcap, pcapng, also in gzip, zstd, lz4, bzip2), a directory,
a glob pattern, or - for standard input. Exit status 3 says that a file was
damaged; one that ends inside its last record is only noted.`,
		Example: `  squall info outage.pcapng.gz
  tcpdump -w - -c 1000 | squall info -
  squall info -T csv /captures -e capture_file,packets,damage
  squall info -f 'tcp port 5060' outage.pcap`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := reports.FindFormat(format)
			if err != nil {
				return exitError{exitUsage, err}
			}
			table := reports.Captures()
			if _, _, err := query.Apply(&table.Table, nil); err != nil {
				return exitError{exitUsage, err}
			}
			var expr capture.Expr
			if filter != "" {
				if expr, err = capture.ParseFilter(filter); err != nil {
					return exitError{exitUsage, fmt.Errorf("-f %q: %w", filter, err)}
				}
			}
			all, err := survey(cmd, args, expr, keep)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			if f.Name == "text" && len(query.Columns) == 0 {
				for i := range all {
					describe(out, &all[i])
				}
			} else {
				narrowed, rows, err := query.Apply(&table.Table, table.Rows(&reports.Env{}, reports.CaptureRows(all)))
				if err != nil {
					return exitError{exitUsage, err}
				}
				if _, err := reports.Write(out, f, narrowed, rows, reports.Options{}); err != nil {
					return exitError{exitFailed, err}
				}
			}
			if err := out.Flush(); err != nil {
				return exitError{exitFailed, err}
			}
			for i := range all {
				if d := all[i].Damage; d != nil && !d.Tail {
					return exitError{exitDamaged, fmt.Errorf("%s: offset %d, frame %d: %s; what came before is counted", all[i].Path, d.Offset, d.Frame, d.Reason)}
				}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&format, "format", "T", "text", "text, markdown, csv, tsv, json, jsonl, arrow or parquet")
	flags.StringArrayVarP(&query.Columns, "columns", "e", nil, "only these columns")
	flags.StringVar(&query.Where, "where", "", "only rows for which this expression holds")
	flags.StringArrayVar(&query.Sort, "sort", nil, "sort by this column, downwards with a leading -")
	flags.IntVar(&query.Limit, "limit", 0, "at most this many rows")
	flags.StringVarP(&filter, "filter", "f", "", "capture filter, as tcpdump's (pcap-filter); the rest is counted as filtered")
	flags.BoolVar(&keep, "keep-duplicates", false, "count frames that a tap saw twice as packets of their own")
	return cmd
}

// survey reads the captures to their end.
func survey(cmd *cobra.Command, inputs []string, filter capture.Expr, keep bool) ([]reports.Capture, error) {
	var skipped []error
	src, err := capture.Open(inputs, capture.Options{Stdin: cmd.InOrStdin(), Skipped: func(_ string, why error) { skipped = append(skipped, why) }})
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	for _, why := range skipped {
		fmt.Fprintf(cmd.ErrOrStderr(), "squall: skipped: %v\n", why)
	}
	defer src.Close()
	engine := attempt.NewEngine(attempt.Config{KeepDuplicates: keep}, attempt.NewNames(), func(*attempt.Record) {})
	filtered, err := read(cmd.Context(), src, engine, filter)
	if err != nil {
		return nil, err
	}
	var all []reports.Capture
	for i, s := range src.Files() {
		c := reports.Capture{FileStats: s, Ledger: engine.Ledger(uint32(i))}
		if i < len(filtered) {
			c.Ledger[dissect.BucketFiltered] = filtered[i]
		}
		all = append(all, c)
	}
	return all, nil
}

func read(ctx context.Context, src capture.Source, engine *attempt.Engine, filter capture.Expr) (filtered []int64, err error) {
	var dec headers.Decoder
	var d dissect.Datagram
	for {
		if err := ctx.Err(); err != nil {
			return filtered, err
		}
		b, err := src.Next()
		if errors.Is(err, io.EOF) {
			return filtered, nil
		}
		if err != nil {
			return filtered, exitError{exitFailed, err}
		}
		for i := range b.Packets {
			p := &b.Packets[i]
			if filter != nil && !headers.Match(filter, p) {
				for len(filtered) <= int(p.File) {
					filtered = append(filtered, 0)
				}
				filtered[p.File]++
				continue
			}
			dec.Decode(p, &d)
			engine.Datagram(&d)
		}
		b.Release()
	}
}

// describe prints one capture for reading, narrower than 80 columns.
func describe(w io.Writer, c *reports.Capture) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintln(w, c.Path)
	kind := c.Format
	if c.Compression != "" {
		kind += " in " + c.Compression
	}
	if c.Format == "" {
		kind = "empty"
	}
	var links []string
	for _, l := range c.LinkTypes {
		links = append(links, fmt.Sprint(l))
	}
	line("format", "%s, link type %s, snaplen %d", kind, strings.Join(links, " "), c.Snaplen)
	line("packets", "%d, %d bytes on the wire, in %.3f s", c.Packets, c.Bytes, float64(c.Last-c.First)/1e9)
	if c.Packets > 0 {
		line("span", "%s to %s", stamp(c.First), stamp(c.Last))
	}
	drops := "not stated"
	if c.Drops >= 0 {
		drops = fmt.Sprint(c.Drops)
	}
	line("lost", "%s by the capturing side; %d cut by the snaplen", drops, c.Truncated)
	line("clock", "%d out of order, %d steps back, %d gaps of more than 30 s", c.OutOfOrder, c.ClockSteps, c.Gaps)
	if d := c.Damage; d != nil {
		note := "DAMAGED"
		if d.Tail {
			note = "last record"
		}
		line(note, "offset %d, frame %d: %s", d.Offset, d.Frame, d.Reason)
	}
	buckets := make([]dissect.Bucket, dissect.NumBuckets)
	for i := range buckets {
		buckets[i] = dissect.Bucket(i)
	}
	slices.SortStableFunc(buckets, func(a, b dissect.Bucket) int { return cmp.Compare(c.Ledger[b], c.Ledger[a]) })
	var parts []string
	for _, b := range buckets {
		if n := c.Ledger[b]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", b, n))
		}
	}
	line("ledger", "%s", strings.Join(parts, ", "))
}

func stamp(ns int64) string {
	return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000000000Z")
}

// create opens an output that - sends to standard output.
func create(cmd *cobra.Command, path string) (io.Writer, func() error, error) {
	if path == "-" {
		return cmd.OutOrStdout(), func() error { return nil }, nil
	}
	h, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, exitError{exitFailed, err}
	}
	return h, h.Close, nil
}
