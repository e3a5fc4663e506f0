package attempt

import (
	"math/rand/v2"
	"testing"
)

// TestRhythm: what keeps time as a monitor does, and what only looks like it.
func TestRhythm(t *testing.T) {
	const hour = 3600 * second
	type tick struct {
		every  int64
		jitter float64
		passed bool
		n      int
		held   bool
	}
	down := func(every int64, n int) tick { return tick{every, 0.02, false, n, false} }
	up := func(every int64, n int) tick { return tick{every, 0.02, true, n, false} }
	for _, c := range []struct {
		name     string
		from     int64
		ticks    []tick
		listened int64
		samePort bool
		want     bool
	}{
		{"a monitor through an outage", 0, []tick{up(10*second, 120), down(10*second, 120), up(10*second, 120)}, hour, false, true},
		{"slower while the node is down", 0, []tick{up(10*second, 240), down(30*second, 30), up(10*second, 30)}, hour, false, true},
		{"a few quick checks at the turn", 0, []tick{up(10*second, 170), down(1*second, 3), down(10*second, 100), up(1*second, 3), up(10*second, 85)}, hour, false, true},
		{"down for most of the time", 0, []tick{up(10*second, 20), down(10*second, 330), up(10*second, 10)}, hour, false, true},
		{"a retrier that gets in and stays", 0, []tick{down(10*second, 359), up(10*second, 1)}, hour, false, false},
		{"a poller that hurries when it fails", 0, []tick{up(10*second, 240), down(second/2, 2400)}, hour, false, false},
		{"a retrier that is served now and then", 0, []tick{down(second, 50), up(600*second, 1), down(second, 50), up(500*second, 1), down(second, 50), up(700*second, 1),
			down(second, 50), up(300*second, 1), down(second, 50), up(400*second, 1), down(second, 50), up(200*second, 1), down(second, 50), up(100*second, 1), down(second, 50), up(50*second, 1), up(10*second, 2)}, hour, false, false},
		{"a flood that begins at half time", hour / 2, []tick{up(second, 1800)}, hour, false, false},
		{"a flood at a fixed rate all the time", 0, []tick{up(second/10, 36000)}, hour, false, false},
		{"a user", 0, []tick{{60 * second, 0.8, true, 60, false}}, hour, false, false},
		{"a user whose sessions happen to be short at times", 0, []tick{up(60*second, 5), {60 * second, 0.02, false, 20, true}, up(60*second, 5), {60 * second, 0.02, false, 30, true}}, hour, false, false},
		{"a daemon that keeps its socket", 0, []tick{up(64*second, 56)}, hour, true, false},
		{"too short to tell", 0, []tick{up(10*second, 8)}, 80 * second, false, false},
	} {
		for seed := range uint64(3) {
			rng := rand.New(rand.NewPCG(seed, 27))
			var list []beat
			at, port := c.from, uint16(30000)
			for _, k := range c.ticks {
				for range k.n {
					if !c.samePort {
						port++
					}
					list = append(list, beat{at, port, k.passed, k.held})
					at += int64(float64(k.every) * (1 + k.jitter*(2*rng.Float64()-1)))
				}
			}
			if got := steady(list, c.listened); (got > 0) != c.want {
				t.Errorf("%s, seed %d: interval %.1f s", c.name, seed, float64(got)/1e9)
			}
		}
	}
}
