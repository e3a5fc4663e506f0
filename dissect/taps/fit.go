package taps

import (
	"cmp"
	"math"
	"slices"
)

const (
	// steepest is the drift that a fit may find. A clock that is slewed runs at
	// most 500 millionths fast or slow (RFC 5905, section 11.3).
	steepest = 500e-6
	// A fit looks at the tightest few constraints of each stretch of time.
	fitBins, fitKeep = 256, 16
	// maxDropped is how many constraints may be left out because they contradict
	// the others, beside one in a hundred.
	maxDropped = 64
)

// point bounds the offset between two clocks, in seconds, at a time, in seconds.
type point struct{ t, d float64 }

// bounds are what is known of the offset of one clock against another as a
// function of time: it lies under every upper point and above every lower one.
type bounds struct {
	upper, lower []point
}

// fitted is the line that lies deepest between the bounds.
type fitted struct {
	a, b    float64 // offset at time 0, s; drift
	bound   float64 // the truth is no farther anywhere from begin to end, s; NaN: bounded from one side alone
	slack   float64 // by how much the bounds contradict each other, s
	dropped int     // constraints left out for that
}

// fit solves the linear programme of Moon, Skelly and Towsley (INFOCOM 1999)
// for both sides at once (Paxson, SIGMETRICS 1998): of all lines of possible
// drift it takes the one with the greatest distance to the nearest bound. Only
// points of the convex hulls can be nearest, and only slopes of their edges best,
// so the answer is exact.
func (x *bounds) fit(begin, end float64) (f fitted, ok bool) {
	up, low := tightest(x.upper, -1), tightest(x.lower, 1)
	switch {
	case len(up) == 0 && len(low) == 0:
		return f, false
	case len(low) == 0:
		f.a, f.b = beside(hull(up, -1), -1)
		f.bound = math.NaN()
		return f, true
	case len(up) == 0:
		f.a, f.b = beside(hull(low, 1), 1)
		f.bound = math.NaN()
		return f, true
	}
	may := min(max((len(x.upper)+len(x.lower))/100, 1), maxDropped)
	best := separate(up, low, begin, end)
	for best.slack > 0 && best.dropped < may {
		// Which of the points that press hardest is wrong? The one without
		// which the rest agrees best.
		var next fitted
		var nextUp, nextLow []point
		for i, p := range up {
			if p.d-best.a-best.b*p.t <= -best.slack/2+1e-12 && len(up) > 1 {
				rest := slices.Delete(slices.Clone(up), i, i+1)
				if g := separate(rest, low, begin, end); nextUp == nil || g.slack < next.slack {
					next, nextUp, nextLow = g, rest, low
				}
			}
		}
		for i, p := range low {
			if best.a+best.b*p.t-p.d <= -best.slack/2+1e-12 && len(low) > 1 {
				rest := slices.Delete(slices.Clone(low), i, i+1)
				if g := separate(up, rest, begin, end); nextUp == nil || g.slack < next.slack {
					next, nextUp, nextLow = g, up, rest
				}
			}
		}
		if nextUp == nil {
			break
		}
		next.dropped = best.dropped + 1
		best, up, low = next, nextUp, nextLow
	}
	return best, true
}

// separate is fit without anything left out.
func separate(up, low []point, begin, end float64) (f fitted) {
	up, low = hull(up, -1), hull(low, 1)
	slopes := []float64{-steepest, steepest}
	for _, h := range [][]point{up, low} {
		for i := 1; i < len(h); i++ {
			if s := (h[i].d - h[i-1].d) / (h[i].t - h[i-1].t); s > -steepest && s < steepest {
				slopes = append(slopes, s)
			}
		}
	}
	slices.Sort(slopes)
	room := func(b float64) float64 { return least(up, b) - most(low, b) } // concave in b
	best, from, to := math.Inf(-1), 0.0, 0.0
	for _, s := range slopes {
		switch r := room(s); {
		case r > best+1e-12:
			best, from, to = r, s, s
		case r >= best-1e-12:
			to = s
		}
	}
	f.b = (from + to) / 2
	f.a = (least(up, f.b) + most(low, f.b)) / 2
	f.slack = max(-best, 0)
	// All lines that the bounds, widened by what they contradict, allow.
	edge := func(out float64) float64 {
		in := f.b
		if room(out)+f.slack >= 0 {
			return out
		}
		for range 60 {
			if mid := (in + out) / 2; room(mid)+f.slack >= 0 {
				in = mid
			} else {
				out = mid
			}
		}
		return out
	}
	first, last := edge(-steepest), edge(steepest)
	try := append(slices.Clone(slopes), first, last, f.b)
	for _, t := range [...]float64{begin, end} {
		for _, b := range try {
			if b < first || b > last {
				continue
			}
			at := f.a + f.b*t
			f.bound = max(f.bound, least(up, b)+f.slack+b*t-at, at-(most(low, b)-f.slack+b*t))
		}
	}
	return f
}

func least(h []point, b float64) float64 {
	v := math.Inf(1)
	for _, p := range h {
		v = min(v, p.d-b*p.t)
	}
	return v
}

func most(h []point, b float64) float64 {
	v := math.Inf(-1)
	for _, p := range h {
		v = max(v, p.d-b*p.t)
	}
	return v
}

// tightest keeps of each stretch of time the points that bound most: the lowest
// for side -1, the highest for 1.
func tightest(list []point, side float64) []point {
	if len(list) == 0 {
		return nil
	}
	begin, end := math.Inf(1), math.Inf(-1)
	for _, p := range list {
		begin, end = min(begin, p.t), max(end, p.t)
	}
	list = slices.Clone(list)
	bin := func(p point) int { return min(int((p.t-begin)/(end-begin+1e-9)*fitBins), fitBins-1) }
	slices.SortFunc(list, func(p, q point) int {
		return cmp.Or(cmp.Compare(bin(p), bin(q)), cmp.Compare(-side*p.d, -side*q.d), cmp.Compare(p.t, q.t))
	})
	out := list[:0]
	n, last := 0, -1
	for _, p := range list {
		if b := bin(p); b != last {
			n, last = 0, b
		}
		if n++; n <= fitKeep {
			out = append(out, p)
		}
	}
	return out
}

// hull is the convex hull from below for side -1, from above for 1, by time.
func hull(list []point, side float64) (h []point) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(p, q point) int { return cmp.Or(cmp.Compare(p.t, q.t), cmp.Compare(-side*p.d, -side*q.d)) })
	for _, p := range list {
		if n := len(h); n > 0 && h[n-1].t == p.t {
			continue
		}
		for len(h) >= 2 {
			o, m := h[len(h)-2], h[len(h)-1]
			if ((m.t-o.t)*(p.d-o.d)-(m.d-o.d)*(p.t-o.t))*side < 0 {
				break
			}
			h = h[:len(h)-1]
		}
		h = append(h, p)
	}
	return h
}

// beside is the line along the hull at the middle of the time, where bounds of
// one side are all there is.
func beside(h []point, side float64) (a, b float64) {
	mid := (h[0].t + h[len(h)-1].t) / 2
	for i := 1; i < len(h); i++ {
		if h[i].t >= mid {
			b = (h[i].d - h[i-1].d) / (h[i].t - h[i-1].t)
			break
		}
	}
	b = max(min(b, steepest), -steepest)
	if side < 0 {
		return least(h, b), b
	}
	return most(h, b), b
}
