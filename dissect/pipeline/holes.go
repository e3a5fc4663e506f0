package pipeline

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"squall/capture"
	"squall/dissect/attempt"
)

// maxNamed is how many missing files one sentence names.
const maxNamed = 5

// holes finds missing files, notes them at the files behind, and gives the time
// in which no other input had packets either.
func (a *Analysis) holes() (deaf []attempt.Interval) {
	capture.MarkHoles(len(a.captures), func(i int) *capture.FileStats { return &a.captures[i].FileStats })
	for i := range a.captures {
		c := &a.captures[i]
		if c.Hole == 0 || c.Packets == 0 {
			continue
		}
		gap := attempt.Interval{Start: c.First - c.Hole, End: c.First}
		heard := slices.ContainsFunc(a.captures, func(o Capture) bool { return o.Packets > 0 && o.First < gap.End && o.Last > gap.Start })
		if !heard {
			deaf = append(deaf, gap)
		}
	}
	slices.SortFunc(deaf, func(x, y attempt.Interval) int { return cmp.Compare(x.Start, y.Start) })
	return slices.CompactFunc(deaf, func(x, y attempt.Interval) bool { return y.Start < x.End })
}

// HoleOf says in words what is missing before a capture; empty = nothing.
func HoleOf(c *Capture) string {
	var names []string
	for _, m := range c.Missing[:min(len(c.Missing), maxNamed)] {
		names = append(names, filepath.Base(m))
	}
	if rest := c.MissingCount - int64(len(names)); rest > 0 {
		names = append(names, fmt.Sprintf("and %d more", rest))
	}
	lasts := ""
	if c.Hole > 0 {
		lasts = fmt.Sprintf(" (%.3f s)", float64(c.Hole)/1e9)
	}
	switch {
	case c.MissingCount == 1:
		return fmt.Sprintf("a file is missing before %s%s: %s", filepath.Base(c.Path), lasts, names[0])
	case c.MissingCount > 1:
		return fmt.Sprintf("%d files are missing before %s%s: %s", c.MissingCount, filepath.Base(c.Path), lasts, strings.Join(names, ", "))
	case c.Hole > 0:
		return fmt.Sprintf("nothing was captured for %.3f s before %s, though no file is missing by its name", float64(c.Hole)/1e9, filepath.Base(c.Path))
	}
	return ""
}

// setBack reports that the clock of an input was set back while it was captured.
func (a *Analysis) setBack() bool {
	return slices.ContainsFunc(a.captures, func(c Capture) bool { return c.ClockSteps > 0 })
}
