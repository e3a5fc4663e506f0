package taps

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestFitHoldsItsBound draws clocks and delays, and asks for the truth to lie
// within the bound that the fit states, at both ends of the capture.
func TestFitHoldsItsBound(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		offset, drift := rng.NormFloat64()*100, (rng.Float64()*2-1)*100e-6
		span := 10 + rng.Float64()*3600
		there, back := rng.Float64()*0.05, rng.Float64()*0.05
		var x bounds
		for range 5 + rng.IntN(2000) {
			at := rng.Float64() * span
			theta := offset + drift*at
			if rng.IntN(2) == 0 {
				x.upper = append(x.upper, point{at, theta + there + rng.ExpFloat64()*0.01})
			} else {
				x.lower = append(x.lower, point{at, theta - back - rng.ExpFloat64()*0.01})
			}
		}
		f, ok := x.fit(0, span)
		if !ok || math.IsNaN(f.bound) || f.slack > 0 || f.dropped > 0 {
			t.Fatalf("seed %d: %+v, %v", seed, f, ok)
		}
		for _, at := range []float64{0, span / 2, span} {
			if off := math.Abs(f.a + f.b*at - offset - drift*at); off > f.bound+1e-7 {
				t.Errorf("seed %d: %.6f s off at %.0f s, and the bound is %.6f", seed, off, at, f.bound)
			}
		}
		if f.bound > 0.2+0.2*60/span {
			t.Errorf("seed %d: a bound of %.3f s says nothing", seed, f.bound)
		}
	}
}

// TestFitOfContradictions: a few packets that are no pair do not move the
// clocks, and what cannot be explained away widens the bound.
func TestFitOfContradictions(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	var x bounds
	for i := range 2000 {
		at := float64(i) / 10
		x.upper = append(x.upper, point{at, 0.137 + 0.001 + rng.ExpFloat64()*0.001})
		x.lower = append(x.lower, point{at, 0.137 - 0.001 - rng.ExpFloat64()*0.001})
	}
	for range 5 {
		x.upper = append(x.upper, point{rng.Float64() * 200, -rng.Float64() * 50})
	}
	f, _ := x.fit(0, 200)
	if f.dropped != 5 || f.slack > 0 || math.Abs(f.a-0.137) > f.bound || f.bound > 0.01 {
		t.Errorf("five of 4005 are wrong: %+v", f)
	}
	for i := range x.lower { // the clock was set in between: no line explains it
		if x.lower[i].t > 100 {
			x.lower[i].d += 5
		}
	}
	if f, _ = x.fit(0, 200); f.slack < 1 || f.bound < 1 {
		t.Errorf("a clock that was set: %+v", f)
	}
	if f, ok := (&bounds{upper: x.upper[:100]}).fit(0, 10); !ok || !math.IsNaN(f.bound) || math.Abs(f.a-0.138) > 0.005 {
		t.Errorf("one side: %+v", f)
	}
	if _, ok := (&bounds{}).fit(0, 10); ok {
		t.Error("a line through nothing")
	}
}
