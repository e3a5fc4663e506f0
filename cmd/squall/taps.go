package main

import (
	"cmp"
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
	"squall/dissect/flowlog"
	"squall/dissect/pipeline"
	"squall/dissect/taps"
)

// tapsOf groups inputs by the name that they were given, in the order in which
// the names first stand; whole says that all of them can be read twice.
func tapsOf(inputs []string) (list []taps.Tap, whole bool) {
	whole = true
	for _, in := range inputs {
		name, path := capture.SplitInput(in)
		n := slices.IndexFunc(list, func(t taps.Tap) bool { return t.Name == name })
		if n < 0 {
			n = len(list)
			list = append(list, taps.Tap{Name: name})
		}
		list[n].Inputs = append(list[n].Inputs, path)
		if info, err := os.Stat(path); path == "-" || err == nil && !info.IsDir() && !info.Mode().IsRegular() {
			whole = false
		}
	}
	return list, whole
}

// clocksOf finds how far the clocks of the taps are apart: what --clock says,
// else what a first pass over the captures tells. One tap needs neither.
func (s *source) clocksOf(cmd *cobra.Command, inputs []string, window capture.Window) (map[string]capture.Clock, error) {
	s.found = nil
	list, whole := tapsOf(inputs)
	given := 0
	for _, text := range s.clocks {
		name, c, err := capture.ParseClock(text)
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("--clock %w", err)}
		}
		n := slices.IndexFunc(list, func(t taps.Tap) bool { return t.Name == name })
		if n < 0 && slices.Contains(s.loggers, name) {
			continue
		}
		if n < 0 {
			return nil, noTap(text, name)
		}
		if list[n].Clock.Source != "" {
			return nil, exitError{exitUsage, fmt.Errorf("--clock %s: the clock of %s was given before", text, name)}
		}
		list[n].Clock = c
		given++
	}
	if len(list) < 2 && given == 0 {
		return nil, nil
	}
	if given == len(list) || !whole || len(list) < 2 {
		if !whole && given < len(list) && len(list) > 1 && !s.quiet {
			fmt.Fprintln(cmd.ErrOrStderr(), "squall: standard input and pipes cannot be read twice: the clocks of the taps are not compared. Say them with --clock NAME=OFFSET, or keep the captures in files")
		}
		return s.asGiven(list)
	}
	found, err := taps.Survey(cmd.Context(), list, window)
	if err != nil {
		if cmd.Context().Err() != nil {
			return nil, exitError{exitSignal, errors.New("interrupted while the clocks of the taps were compared")}
		}
		return nil, exitError{exitUsage, err}
	}
	s.found = found
	return found.Of, nil
}

func noTap(text, name string) error {
	return exitError{exitUsage, fmt.Errorf("--clock %s: no input is called %s; name it: %s=FILE", text, name, name)}
}

// clockLogs sets the clocks of logs that --clock names; those of captures are
// left to clocksOf.
func (s *source) clockLogs(logs []written, captures []string) error {
	list, _ := tapsOf(captures)
	s.loggers = nil
	for i := range logs {
		w := &logs[i]
		s.loggers = append(s.loggers, w.tap)
		for _, text := range s.clocks {
			name, c, err := capture.ParseClock(text)
			switch {
			case err != nil:
				return exitError{exitUsage, fmt.Errorf("--clock %w", err)}
			case name != w.tap:
			case w.format == flowlog.None:
				return exitError{exitUsage, fmt.Errorf("--clock %s: %s is a table of attempts, whose times were set right when it was made", text, w.path)}
			default:
				c.At = w.begins()
				w.clock = c
			}
		}
	}
	for _, text := range s.clocks {
		name, _, _ := capture.ParseClock(text)
		if !slices.Contains(s.loggers, name) && !slices.ContainsFunc(list, func(t taps.Tap) bool { return t.Name == name }) {
			return noTap(text, name)
		}
	}
	return nil
}

// asGiven takes the clocks that were given; others stay as they are.
func (s *source) asGiven(list []taps.Tap) (map[string]capture.Clock, error) {
	of := map[string]capture.Clock{}
	for _, t := range list {
		c := t.Clock
		if c.Source == "" {
			c = capture.Clock{Source: "assumed", Bound: -1}
		}
		if c.Drift != 0 {
			src, err := capture.Open(t.Inputs, capture.Options{})
			if err != nil {
				return nil, exitError{exitUsage, err}
			}
			if b, err := src.Next(); err == nil {
				c.At = b.Packets[0].Time
				b.Release()
			}
			src.Close()
		}
		of[t.Name] = c
	}
	return of, nil
}

// clockWords is a clock as --clock takes it, for the manifest.
func clockWords(c *capture.Clock) string {
	switch c.Source {
	case "given":
		return c.String() + " as given"
	case "estimated":
		s := fmt.Sprintf("%s at %s", c, stamp(c.At))
		if c.Bound < 0 {
			return s + ", estimated from one side"
		}
		return fmt.Sprintf("%s, estimated, at most %d ns off", s, c.Bound)
	}
	return c.Source
}

// worstSeconds is how many seconds of loss are named.
const worstSeconds = 5

// describeLoss prints how much of what receivers acknowledged a tap has not, and
// when it missed most.
func (s *source) describeLoss(line func(name, format string, args ...any), t *pipeline.TapLoss) {
	sum := t.Sum()
	if sum.Segments == 0 {
		line("loss", "not known: no TCP connection began while it listened")
		return
	}
	var heavy int
	var worst []attempt.Loss
	for i := range t.Loss {
		l := t.Loss[i]
		if l.Heavy() {
			heavy++
		}
		if l.Share() > 0 && l.Segments >= 10 { // of fewer a share says little
			worst = append(worst, l)
		}
	}
	line("loss", "%.1f %% of %d bytes that TCP acknowledged were not seen", 100*sum.Share(), sum.Seen+max(sum.Unseen, 0))
	slices.SortStableFunc(worst, func(a, b attempt.Loss) int { return cmp.Compare(b.Share(), a.Share()) })
	if len(worst) == 0 {
		return
	}
	span := time.Duration(1e9 << t.Coarse)
	line("", "%d x %v under heavy loss; worst (all: squall report loss):", heavy, span)
	for _, l := range worst[:min(len(worst), worstSeconds)] {
		line("", "%s  %4.1f %%, %d of %d bytes", s.stamp(l.At*1e9), 100*l.Share(), l.Unseen, l.Seen+l.Unseen)
	}
}

func several(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// describeTaps prints what is known of each tap that has a name.
func (s *source) describeTaps(w io.Writer, a *pipeline.Analysis) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	all := a.Captures()
	var names []string
	for i := range all {
		if n := all[i].Observer; n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, name := range names {
		sum := pipeline.Capture{FileStats: capture.FileStats{Drops: -1}}
		files, logged := 0, true
		for i := range all {
			c := &all[i]
			if c.Observer != name {
				continue
			}
			if files++; c.Packets > 0 {
				if sum.Packets == 0 || c.First < sum.First {
					sum.First = c.First
				}
				sum.Last = max(sum.Last, c.Last)
			}
			logged = logged && c.TransportOnly()
			sum.Packets += c.Packets
			sum.Bytes += c.Bytes
			if c.Drops >= 0 {
				sum.Drops = max(sum.Drops, 0) + c.Drops
			}
			sum.Truncated += c.Truncated
			sum.Clock = c.Clock
			sum.Ledger.Add(&c.Ledger)
		}
		fmt.Fprintf(w, "tap %s\n", name)
		if logged {
			line("connections", "%d, in %s", sum.Packets, several(files, "log"))
		} else {
			line("packets", "%d, %d bytes on the wire, in %s", sum.Packets, sum.Bytes, several(files, "file"))
		}
		if sum.Packets > 0 {
			line("span", "%s to %s", s.stamp(sum.First), s.stamp(sum.Last))
			n := sum.Ledger[dissect.BucketCopy]
			line("copies", "%d seen at another point before (%.1f %%)", n, 100*float64(n)/float64(sum.Packets))
		}
		if !logged {
			line("lost", "%s by the capturing side; %d cut by the snaplen", drops(&sum), sum.Truncated)
		}
		for _, t := range a.TapLosses() {
			if t.Observer == name {
				s.describeLoss(line, &t)
			}
		}
		if sum.Clock.Source != "" {
			_, words, _ := strings.Cut(taps.Words(name, &sum.Clock), ": ")
			line("clock", "%s", words)
		}
		var nets []string
		for _, n := range a.Seen().Tunnels {
			if n.Observer == name {
				nets = append(nets, fmt.Sprintf("%s %d (%d packets)", n.Tunnel, n.ID, n.Packets))
			}
		}
		if len(nets) > 0 {
			line("tunnels", "%s", strings.Join(nets, ", "))
		}
		for i := range all {
			if c := &all[i]; c.Observer == name && c.Path != "-" {
				if s, err := seal(c.Path, c.Path); err == nil {
					line("sha256", "%s %s", s.SHA256, c.Path)
				}
			}
		}
	}
	for i := range a.Seen().Pairs {
		fmt.Fprintln(w, a.Seen().Pairs[i].Words())
	}
}
