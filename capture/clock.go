package capture

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// Clock is what is known of the clock behind a capture: how far it was ahead of
// the one that all times are given in. The zero value leaves times alone.
type Clock struct {
	// Offset is how far it was ahead, ns, when it showed At (ns since the epoch).
	Offset, At int64
	// Drift is how much it ran fast, in millionths.
	Drift float64
	// Bound is how far Offset may be off anywhere in the capture, ns; -1 = nobody knows.
	Bound int64
	// Source is "given" by the user, "estimated" from packets, "reference" for the
	// clock that the others are compared with, "assumed" where nothing could be
	// compared; "" = there was one clock.
	Source string
}

// True gives the time of the common clock when this one showed t.
func (c *Clock) True(t int64) int64 {
	t -= c.Offset
	if c.Drift != 0 {
		t -= int64(math.Round(float64(t+c.Offset-c.At) * c.Drift * 1e-6))
	}
	return t
}

// Shown is what this clock showed at the time t of the common clock, or soon
// after: the first time that True does not put before t.
func (c *Clock) Shown(t int64) int64 {
	at := t + c.Offset
	if c.Drift != 0 {
		at = c.At + int64(math.Round(float64(at-c.At)/(1-c.Drift*1e-6)))
	}
	for c.True(at) >= t {
		at--
	}
	for c.True(at) < t {
		at++
	}
	return at
}

// String is Offset and Drift as ParseClock reads them.
func (c *Clock) String() string {
	s := time.Duration(c.Offset).String()
	if c.Offset >= 0 {
		s = "+" + s
	}
	if c.Drift != 0 {
		s += fmt.Sprintf(",%+.3fppm", c.Drift)
	}
	return s
}

const (
	maxOffset = 100 * 365 * 24 * time.Hour
	maxDrift  = 1e4 // millionths: no clock that anybody set runs so badly
)

// ParseClock reads NAME=OFFSET[,DRIFTppm], as east=+137ms or east=-2s,+12ppm:
// how far the clock of a tap is ahead of the others, and how much it runs fast
// from the tap's first packet on.
func ParseClock(text string) (observer string, c Clock, err error) {
	observer, rest, ok := strings.Cut(text, "=")
	offset, drift, drifts := strings.Cut(rest, ",")
	if !ok || !isObserver(observer) {
		return "", c, fmt.Errorf("%q: want NAME=OFFSET[,DRIFTppm], as east=+137ms or east=-2s,+12ppm", text)
	}
	d, err := time.ParseDuration(strings.TrimSpace(offset))
	if err != nil || d.Abs() > maxOffset {
		return "", c, fmt.Errorf("%q: want an offset with its unit, as +137ms, -2s or 1h", text)
	}
	if drifts {
		number, ok := strings.CutSuffix(strings.TrimSpace(drift), "ppm")
		if c.Drift, err = strconv.ParseFloat(number, 64); err != nil || !ok || math.Abs(c.Drift) > maxDrift || math.IsNaN(c.Drift) {
			return "", c, fmt.Errorf("%q: want a drift in millionths, as +12ppm", text)
		}
	}
	c.Offset, c.Source = int64(d), "given"
	return observer, c, nil
}

// SplitInput takes NAME=PATH apart, where NAME is what the tap is called. What
// exists by its whole name is a path, so is what has no name before its "=".
func SplitInput(in string) (observer, path string) {
	name, path, ok := strings.Cut(in, "=")
	if !ok || path == "" || !isObserver(name) {
		return "", in
	}
	if _, err := os.Lstat(in); err == nil {
		return "", in
	}
	return name, path
}

func isObserver(name string) bool {
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}
