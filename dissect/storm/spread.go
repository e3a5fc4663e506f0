package storm

import (
	"math"
	"slices"
)

// look is what the gaps of a step look like: their number, their middle and how
// wide they lie, from the shortest to the longest of a uniform spread, ns.
type look struct {
	n, median, middle, width, low float64
}

// lookAt reads the 10th and 90th percentile, which see a uniform spread twice as
// sharp as the quartiles do. Where they contradict these, a few other waits are
// among the gaps, or many at a cap, and the quartiles are read.
func lookAt(h hist) look {
	q := func(p float64) float64 { return h.quantile(p) }
	l := look{n: float64(h.total()), median: q(0.5), low: q(0.1)}
	l.middle, l.width = (l.low+q(0.9))/2, (q(0.9)-l.low)/0.8
	if inner := (q(0.75) - q(0.25)) / 0.5; math.Abs(inner-l.width) > 0.15*l.width+4/math.Sqrt(l.n)*l.width/2 {
		l.width, l.middle = inner, l.median
	}
	if math.Abs(l.middle-l.median) > (0.05+1/math.Sqrt(l.n))*l.width {
		l.middle = l.median
	}
	return l
}

// jitterKinds by where a uniform spread has its middle and how wide it is, as parts
// of the wait.
var jitterKinds = [...]struct {
	name          string
	middle, width float64
}{
	{"none", 1, 0}, {"ten_percent", 1, 0.2}, {"equal", 0.75, 0.5}, {"fifty_percent", 1, 1}, {"full", 0.5, 1},
}

// spread is how the waits of a group are jittered.
type spread struct {
	kind   string
	middle float64 // of the gaps over the wait
	rest   float64 // the part of each gap that does not jitter, ns
	off    float64 // by which the rest may be wrong, ns
	told   bool    // kind and rest are known from each other
	fits   bool    // the kind explains the gaps
	// beforeCap: the waits are spread first and cut then.
	beforeCap bool
}

const (
	// wayMost is what a round trip between tap and client adds to a gap at most.
	wayMost = 300e6
	// unlike is how much worse, in squares of what chance allows, another kind must
	// explain the gaps for one to be named, where what does not jitter is unknown.
	unlike = 8
)

// spreadOf tells the kind of jitter and what of the gaps does not jitter. With the
// back-off grow both the middle of the gaps and their width: the line of one over
// the other has a slope that is the kind's, and begins at the rest. Where the gaps
// do not grow, the rest must be known: it is from low to high.
func spreadOf(looks []look, low, high float64) spread {
	type fits struct{ rest, miss, off float64 }
	try := func(slope float64) fits {
		y, v := make([]float64, len(looks)), make([]float64, len(looks))
		for k, l := range looks {
			n := math.Min(l.n, 400) // beyond, it is not chance that is off
			y[k] = l.middle - slope*l.width
			v[k] = l.width*l.width/n*(0.05+0.25*slope*slope) + l.middle*l.middle*(1e-5+6e-5*slope*slope) + 25e12
		}
		best := fits{miss: math.Inf(1), off: 2 * math.Sqrt(slices.Min(v))} // quantiles of one kind are off alike
		consider := func(rest float64) float64 {
			rest = min(max(rest, low), high)
			miss, sum, weights := 0.0, 0.0, 0.0
			for k := range y {
				e := (y[k] - rest) * (y[k] - rest) / v[k]
				miss += math.Min(e, 25) // a step of other waits
				if e < 25 {
					sum, weights = sum+y[k]/v[k], weights+1/v[k]
				}
			}
			if miss < best.miss {
				best.rest, best.miss = rest, miss
			}
			if weights == 0 {
				return rest
			}
			return sum / weights
		}
		for _, from := range y {
			for range 3 {
				from = consider(from)
			}
		}
		return best
	}
	out, second := spread{kind: "undetermined", middle: 1}, math.Inf(1)
	least := math.Inf(1)
	for _, kind := range jitterKinds[1:] {
		f := try(kind.middle / kind.width)
		if f.miss < least {
			least, second = f.miss, least
			out = spread{kind: kind.name, middle: kind.middle, rest: f.rest, off: f.off}
		} else {
			second = min(second, f.miss)
		}
	}
	out.fits = least < 12*float64(len(looks))
	narrow, wide := math.Inf(1), 0.0
	for _, l := range looks {
		narrow, wide = min(narrow, l.width), max(wide, l.width)
	}
	out.told = out.fits && second-least >= unlike && wide > 2*narrow
	return out
}

// unjittered: gaps that hardly spread. The ways of the clients differ in length, and a
// few are long: no timer is as lopsided.
func unjittered(steps []hist, offset float64) bool {
	var low, top, weight float64
	for _, h := range steps {
		n := float64(h.total())
		if n < 20 {
			continue
		}
		mid := max(h.quantile(0.5)-offset, 1)
		low += max(h.quantile(0.1)-offset, 0) / mid * n
		top += (h.quantile(0.9) - offset) / mid * n
		weight += n
	}
	if weight == 0 {
		return true
	}
	low /= weight
	top /= weight
	return low >= 0.97 && top <= 1.03 || low >= 0.95 && top <= 1.15 && top-1 > 1.6*(1-low)
}

// exact: the gaps are all the same, as far as buckets can tell. Of gaps that hold a
// wait of unknown length nothing less shows that the rest does not jitter.
func exact(steps []hist) bool {
	for _, h := range steps {
		if h.total() >= 20 && h.quantile(0.9) > 1.017*h.quantile(0.1) {
			return false
		}
	}
	return true
}

// decorrelated jitter draws each wait between the base and three times the wait
// before. The first gaps are uniform; the next ones begin where the first do, and
// most are short, some long: their median lies under their middle.
func decorrelated(steps []hist) bool {
	if len(steps) < 3 || steps[0].total() < 40 {
		return false
	}
	first := lookAt(steps[0])
	begin := steps[0].quantile(0.02)
	var skew, weight float64
	for _, h := range steps[1:min(4, len(steps))] {
		n := float64(h.total())
		l, from := lookAt(h), h.quantile(0.02)
		if n < 40 || math.Abs(from-begin) > 0.4*first.width || l.width < 1.4*first.width {
			break
		}
		skew += n * (l.median - begin) / ((h.quantile(0.9)+h.quantile(0.1))/2 - begin)
		weight += n
	}
	middle := (steps[0].quantile(0.9) + steps[0].quantile(0.1)) / 2
	return weight >= 80 && skew/weight < 0.88-0.5/math.Sqrt(weight) && math.Abs(first.median-middle) < 0.1*first.width
}

// decorrelation is the fit of decorrelated jitter: its medians follow no curve, the
// shortest and the longest waits show the parameters. The first gaps are as wide as
// twice the base; the rest is what lies before.
func decorrelation(steps []hist) (f fit, rest float64) {
	first := lookAt(steps[0])
	f = fit{family: "exponential", a: first.width / 2, b: 3}
	rest = max(first.middle-first.width, 0)
	if last := steps[len(steps)-1]; last.quantile(0.98) <= 1.02*last.quantile(0.9) { // they pile up
		f.cap = last.quantile(0.9) - rest
	}
	return f, rest
}

// heap is where the gaps pile up that a cap has cut after the jitter, and from where on
// they count as piled.
type heap struct{ at, from float64 }

// heaped finds the heap: the longest gaps of the last step are all the same, although
// the longest before the cap are spread wider than any noise. A jitter that comes after
// the cap would spread them as far.
func heaped(steps []hist) (c heap, ok bool) {
	for len(steps) > 0 && steps[len(steps)-1].total() < 30 {
		steps = steps[:len(steps)-1]
	}
	if len(steps) < 2 {
		return c, false
	}
	last := steps[len(steps)-1]
	c.at = last.quantile(0.8)
	width := (last.quantile(0.95) - last.quantile(0.6)) / 0.35
	c.from = c.at - max(width/2, 1.5*c.at/subBuckets)
	if c.below(steps[0]) < 0.5 {
		return c, false
	}
	widest, due := 0.0, 0.0 // of the longest gaps before the cap: a noise of the way does not grow; and how wide the last step would be
	for _, h := range steps[:len(steps)-1] {
		if h.total() >= 30 && c.below(h) > 0.5 {
			widest, due = 0, 0
			if l := c.look(h); l.width > 3*l.middle/subBuckets { // or buckets make it as wide
				widest, due = l.width, l.width*c.at/l.middle
			}
		}
	}
	return c, width < widest/2 && width < due/3
}

// below is the share of the gaps that are not piled.
func (c heap) below(h hist) float64 {
	var n, all int64
	h.each(func(b uint16, v int64) {
		all += v
		if bucketMid(b) < c.from {
			n += v
		}
	})
	return ratio(n, all)
}

// look is what the gaps would look like without the cap.
func (c heap) look(h hist) look {
	m := c.below(h)
	if m > 0.98 {
		return lookAt(h)
	}
	l := look{n: float64(h.total()) * m / 3, low: h.quantile(0.1 * m)}
	l.width = (h.quantile(0.9*m) - l.low) / (0.8 * m)
	l.middle = l.low + l.width*(0.5-0.1*m)
	l.median = l.middle
	return l
}
