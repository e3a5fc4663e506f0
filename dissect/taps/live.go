package taps

import (
	"math"

	"squall/dissect"
)

// liveSamples is how many packets, and packets of handshakes, of each tap are
// compared at a time while they come.
const liveSamples = 1 << 13

// leastAhead is what clocks that are kept by NTP may differ, ns; less is not told.
const leastAhead = int64(10e6)

// Live compares the clocks of taps while their packets come. It is for one
// goroutine.
type Live struct {
	taps  []Tap
	views []*view
}

// NewLive makes a comparison of taps by their names, of which the first is the
// reference.
func NewLive(names []string) *Live {
	l := &Live{}
	for _, n := range names {
		l.taps = append(l.taps, Tap{Name: n})
	}
	l.Reset()
	return l
}

// Reset forgets what was seen: clocks change in the course of hours.
func (l *Live) Reset() {
	l.views = l.views[:0]
	for range l.taps {
		l.views = append(l.views, &view{limit: liveSamples, above: math.MaxUint64, handsAbove: math.MaxUint64})
	}
}

// Datagram takes a packet of a tap, by its number among the names.
func (l *Live) Datagram(tap int, d *dissect.Datagram) {
	if tap < len(l.views) {
		l.views[tap].packet(d)
	}
}

// Clocks says what is known by now.
func (l *Live) Clocks() *Clocks {
	for _, v := range l.views {
		v.settle()
	}
	return compare(l.taps, l.views)
}

// Ahead is a clock that disagrees with that of the first tap.
type Ahead struct {
	Tap   string
	Ns    int64 // how far it is ahead, now
	Bound int64 // that may be so much off, ns
}

// Ahead lists the clocks that are farther from the first than may be chance, and
// than matters, at a time that they show.
func (c *Clocks) Ahead(taps []string, now int64) (out []Ahead) {
	for _, name := range taps {
		k := c.Of[name]
		if k.Source != "estimated" || k.Bound < 0 {
			continue
		}
		if off := now - k.True(now); max(off, -off) > max(k.Bound, leastAhead) {
			out = append(out, Ahead{name, off, k.Bound})
		}
	}
	return out
}
