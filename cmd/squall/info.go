package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/reports"
)

func infoCommand() *cobra.Command {
	var in source
	var out output
	cmd := &cobra.Command{
		Use:   "info FILE...",
		Short: "capture quality and the packet ledger",
		Long: `info reads captures to their end and tells their quality: format, link types,
span, drops, cut packets, gaps, clock steps, damage; and the ledger, in which
every packet read stands in exactly one bucket.

Of flow records (nfdump -o csv, flow logs of AWS, GCP and Azure) it tells the span,
the flows, the ports with most of them, and the holes. What they leave open, how
connections went, makes them no attempts.

Where captures are given a name, as east=FILE, the taps follow: the span of each,
its clock against the others, its networks inside VXLAN, GENEVE, GRE and the like,
how much of it was seen elsewhere too, what it missed of the bytes that TCP
acknowledged with the worst seconds (squall report loss has all of them), and the
SHA-256 of its files.

FILE is a capture (pcap, pcapng, also in gzip, zstd, lz4, bzip2), a directory,
a glob pattern, or - for standard input. Where files are missing in a rotation, of
tcpdump -C or -G, of dumpcap, tshark or squall capture, they are named, and so is a
silence between files that else touch. Exit status 3 says that a file was
damaged; one that ends inside its last record is only noted.`,
		Example: `  squall info outage.pcapng.gz
  tcpdump -w - -c 1000 | squall info -
  squall info -T csv /captures -e capture_file,packets,damage
  squall info -f 'tcp port 5060' outage.pcap
  squall info east=/cap/east west=/cap/west`,
		RunE: func(cmd *cobra.Command, args []string) error {
			table := reports.Captures()
			f, err := out.check(&table.Table)
			if err != nil {
				return err
			}
			in.countOnly, in.takeFlows = true, true
			results, err := in.analyse(cmd, args)
			if err != nil {
				return err
			}
			defer results.Analysis.Close()
			flows := make([]flowLog, len(in.flows))
			for i := range in.flows {
				if flows[i], err = readFlowLog(&in.flows[i]); err != nil {
					return exitError{exitFailed, err}
				}
			}
			out.options.Zone = in.zone
			all := results.Analysis.Captures()
			for i := range flows {
				all = append(all, flows[i].Capture)
			}
			if f.Name == "text" && len(out.query.Columns) == 0 {
				err := emitWords(cmd, out.file, func(w io.Writer) error {
					for i := range all[:len(all)-len(flows)] {
						in.describe(w, &all[i])
					}
					for i := range flows {
						flows[i].describe(w, &in)
					}
					in.describeAll(w, results.Analysis)
					for _, hole := range results.Analysis.Quality().Holes {
						fmt.Fprintf(w, "HOLE  %s\n", hole)
					}
					in.describeTaps(w, results.Analysis)
					return nil
				})
				if err != nil {
					return err
				}
			} else {
				if err := out.write(cmd, f, &table.Table, table.List(all)); err != nil {
					return err
				}
			}
			if err := interrupted(cmd); err != nil {
				return err
			}
			return damaged(all)
		},
	}
	in.flags(cmd)
	in.zoneFlag(cmd)
	out.flags(cmd)
	return cmd
}

// describe prints one capture for reading, narrower than 80 columns.
func (s *source) describe(w io.Writer, c *pipeline.Capture) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintln(w, c.Path)
	if c.Unread != "" {
		line("not read", "%s; %d of its %d bytes were", c.Unread, c.ReadOnDisk, c.SizeOnDisk)
		if c.Packets == 0 {
			return
		}
	}
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
	if c.TransportOnly() {
		line("format", "%s", kind)
		line("connections", "%d, %d bytes of text, in %.3f s", c.Packets, c.Bytes, float64(c.Last-c.First)/1e9)
	} else {
		if links != nil {
			kind += ", link type " + strings.Join(links, " ")
		}
		line("format", "%s, snaplen %d", kind, c.Snaplen)
		line("packets", "%d, %d bytes on the wire, in %.3f s", c.Packets, c.Bytes, float64(c.Last-c.First)/1e9)
	}
	if c.Packets == 0 && c.Damage == nil {
		return
	}
	if c.Packets > 0 {
		line("span", "%s to %s", s.stamp(c.First), s.stamp(c.Last))
	}
	if !c.TransportOnly() {
		line("lost", "%s by the capturing side; %d cut by the snaplen", drops(c), c.Truncated)
	}
	if c.Observer != "" {
		line("tap", "%s", c.Observer)
	}
	if !c.TransportOnly() {
		line("clock", "%d out of order, %d steps back, %d gaps of more than 30 s%s", c.OutOfOrder, c.ClockSteps, c.Gaps, strays(c))
	}
	if d := c.Damage; d != nil {
		note := "DAMAGED"
		if d.Tail {
			note = "last record"
		}
		line(note, "offset %d, frame %d: %s", d.Offset, d.Frame, d.Reason)
	}
	line("ledger", "%s", buckets(&c.Ledger))
}

// buckets are those of a ledger that hold packets, the fullest first.
func buckets(l *dissect.Ledger) string {
	order := make([]dissect.Bucket, dissect.NumBuckets)
	for i := range order {
		order[i] = dissect.Bucket(i)
	}
	slices.SortStableFunc(order, func(a, b dissect.Bucket) int { return cmp.Compare(l[b], l[a]) })
	var parts []string
	for _, b := range order {
		if n := l[b]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", b, n))
		}
	}
	return strings.Join(parts, ", ")
}

// describeAll prints what several captures are together.
func (s *source) describeAll(w io.Writer, a *pipeline.Analysis) {
	files, packets := 0, int64(0)
	for i := range a.Captures() {
		if c := &a.Captures()[i]; !c.TransportOnly() && !c.Quoted {
			files, packets = files+1, packets+c.Packets
		}
	}
	if files < 2 || packets == 0 {
		return
	}
	first, last := a.Span()
	l := a.Ledger()
	fmt.Fprintf(w, "%d captures\n  %-13s %d\n  %-13s %s to %s\n  %-13s %s\n", files, "packets", packets, "span", s.stamp(first), s.stamp(last), "ledger", buckets(&l))
}

// drops are what the capturing side says it lost.
func drops(c *pipeline.Capture) string {
	if c.Drops < 0 {
		return "not stated"
	}
	return fmt.Sprint(c.Drops)
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

// strays says how many times were set right.
func strays(c *pipeline.Capture) string {
	if c.StrayTimes == 0 {
		return ""
	}
	return fmt.Sprintf(", %d times far from all others set to the next", c.StrayTimes)
}
