package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"squall/reports"
)

func explainCommand() *cobra.Command {
	var in source
	var format, out, colour, at, node string
	cmd := &cobra.Command{
		Use:   "explain SOURCE...",
		Short: "why this verdict, what would change it, and the frames to open first",
		Long: `explain reads captures, or directories that analyze -o kept, and defends the
verdict: each criterion with its number and what was needed; from which value of
which threshold on it would be called otherwise, found by judging anew; the rival
explanations with the evidence for and against each; and the frames to open
first, with display filters for tshark and Wireshark.

--at asks about the finding of another moment, --node about one node: what became
of it, who came from where, what its role cost it.`,
		Example: `  squall explain outage.pcapng.gz
  squall explain outage.pcap --at 16:01:00 --node 198.51.100.2
  squall analyze outage.pcap -o outage && squall explain outage -T markdown -w why.md`,
		RunE: func(cmd *cobra.Command, args []string) error {
			look, err := lookOf(cmd, colour)
			if err != nil {
				return err
			}
			switch format {
			case "text", "json":
			case "markdown":
				look.Color, look.Markdown = false, true
			default:
				return exitError{exitUsage, fmt.Errorf("format %q: explain writes text, markdown or json", format)}
			}
			if format == "json" {
				in.tz = "" // machines get UTC
			}
			if err := in.readZone(); err != nil {
				return err
			}
			look.Zone = in.zone
			moment, err := in.parseMoment(at)
			if err != nil {
				return err
			}
			results, err := in.demand(cmd, args)
			if err != nil {
				return err
			}
			defer results.Analysis.Close()
			first, _ := results.Analysis.Span()
			e, err := reports.Explain(results, reports.Question{At: moment(first), Node: node})
			if err != nil {
				return exitError{exitUsage, err}
			}
			write := func(w io.Writer) error { return e.Write(w, look) }
			if format == "json" {
				write = func(w io.Writer) error { return e.JSON(w, results) }
			}
			if err := emit(cmd, out, write); err != nil {
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
	f := cmd.Flags()
	f.StringVarP(&format, "format", "T", "text", "text, markdown or json")
	f.StringVarP(&out, "write", "w", "-", "file to write, - for standard output")
	f.StringVar(&colour, "color", "auto", "auto, always or never")
	f.StringVar(&at, "at", "", "a moment: RFC 3339, a time of day of the capture (16:04:30), seconds of the epoch, or 4m30s from the first packet")
	f.StringVar(&node, "node", "", "a node: address, or address:port")
	return cmd
}

// parseMoment reads a time that may need the first packet's to be complete.
func (s *source) parseMoment(text string) (func(first int64) int64, error) {
	if text == "" {
		return func(int64) int64 { return 0 }, nil
	}
	if ns, ok := timeOfDay(text); ok {
		return func(first int64) int64 {
			begin := time.Unix(0, first).In(s.at())
			y, m, d := begin.Date()
			for n := range 2 { // the next day: past midnight
				of := time.Date(y, m, d+n, int(ns/3600e9), int(ns/60e9%60), int(ns/1e9%60), int(ns%1e9), s.at()).UnixNano()
				if of >= first-first%1e9 || n == 1 {
					return of
				}
			}
			return first
		}, nil
	}
	at, fromFirst, err := s.parseTime("--at", text)
	if err != nil {
		return nil, err
	}
	return func(first int64) int64 {
		if at != 0 {
			return at
		}
		return first + fromFirst
	}, nil
}

// timeOfDay reads 16:04:30 or 16:04, perhaps with a fraction, as ns of the day.
func timeOfDay(text string) (ns int64, ok bool) {
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return int64(t.Hour())*3600e9 + int64(t.Minute())*60e9 + int64(t.Second())*1e9 + int64(t.Nanosecond()), true
		}
	}
	return 0, false
}
