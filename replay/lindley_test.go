package replay_test

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"squall/replay"
)

// lindley is one FIFO server and clients that retry, told without a single
// event of the server: who arrives is served from when the one before him is
// done (Lindley's recursion). It shares nothing with the code under test but
// the numbers that go in; times are seconds.
type lindley struct {
	mu       float64
	slow     func(at float64) float64 // share of mu
	room     int
	patience float64
	limit    int // attempts, 0 = without end
	wait     func(k int, rng *rand.Rand) float64
}

type attempted struct {
	at float64
	k  int
}

type byTime []attempted

func (a byTime) Len() int           { return len(a) }
func (a byTime) Less(i, j int) bool { return a[i].at < a[j].at }
func (a byTime) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *byTime) Push(x any)        { *a = append(*a, x.(attempted)) }
func (a *byTime) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

// run says what happened from from to to: attempts and accepts a second, and
// the share of the answers that came too late.
func (m *lindley) run(wishes []float64, from, to float64, rng *rand.Rand) (attempts, accepts, late float64) {
	var due byTime
	for _, at := range wishes {
		due = append(due, attempted{at, 1})
	}
	heap.Init(&due)
	var done []float64 // when those before were, ascending
	first, answers := 0, 0.0
	for len(due) > 0 && due[0].at < to {
		a := heap.Pop(&due).(attempted)
		if a.at >= from {
			attempts++
		}
		for first < len(done) && done[first] <= a.at {
			first++
		}
		served := math.Inf(1)
		if len(done)-first <= m.room {
			begins := a.at
			if len(done) > 0 {
				begins = max(begins, done[len(done)-1])
			}
			served = begins + rng.ExpFloat64()/(m.mu*m.slow(begins))
			done = append(done, served)
		}
		if served >= from && served < to {
			answers++
			if served > a.at+m.patience {
				late++
			} else {
				accepts++
			}
		}
		if gaveUp := a.at + m.patience; served > gaveUp && (m.limit == 0 || a.k < m.limit) {
			heap.Push(&due, attempted{gaveUp + m.wait(a.k, rng), a.k + 1})
		}
	}
	return attempts / (to - from), accepts / (to - from), late / max(answers, 1)
}

// TestWorldMeetsLindley: the virtual time of whatif against a second model of
// one queue, over the cases of storms.md sections 2.3 and 4.3. Where utilisation
// is one over the attempts, chance decides, and two models may differ.
func TestWorldMeetsLindley(t *testing.T) {
	const from, to, seed = 150.0, 200.0, 1
	trigger := func(at float64) float64 {
		if at >= 30 && at < 40 {
			return 0.3
		}
		return 1
	}
	never := func(float64) float64 { return 1 }
	fixed := func(int, *rand.Rand) float64 { return 1 }
	full := func(most float64) func(int, *rand.Rand) float64 {
		return func(k int, rng *rand.Rand) float64 { return min(math.Exp2(float64(k-1)), most) * rng.Float64() }
	}
	for _, p := range []struct {
		text  string
		limit int
		wait  func(int, *rand.Rand) float64
	}{
		{"none(timeout 1s)", 1, fixed},
		{"fixed(1s, limit 3, timeout 1s)", 3, fixed},
		{"exponential(1s, x2, full, limit 3, timeout 1s)", 3, full(math.Inf(1))},
		{"exponential(1s, x2, cap 32s, full, timeout 1s)", 0, full(32)},
	} {
		for _, at := range []struct {
			rate, mu float64
			cut      bool
		}{{30, 100, true}, {50, 100, true}, {70, 100, true}, {50, 45, true}, {50, 80, true}, {50, 120, true}, {50, 200, true}, {50, 80, false}, {50, 45, false}} {
			if testing.Short() && (at.rate != 50 || at.mu > 100 || p.limit != 3) || p.limit == 0 && (at.rate > 50 || at.mu != 100) {
				continue // many attempts
			}
			demand := poisson(at.rate, toState, seed)
			w := replay.World{Demand: demand, Policies: []replay.Policy{policy(t, p.text)}, Nodes: server(at.mu), Duration: toState, Seed: seed, RTT: time.Microsecond}
			m := lindley{mu: at.mu, slow: never, room: 2000, patience: 1, limit: p.limit, wait: p.wait}
			if at.cut {
				w.Script, m.slow = script(t, cut), trigger
			}
			c, err := w.Run()
			if err != nil {
				t.Fatal(err)
			}
			var wishes []float64
			for _, d := range demand {
				wishes = append(wishes, d.At.Seconds())
			}
			attempts, accepts, late := m.run(wishes, from, to, rand.New(rand.NewPCG(seed, 5)))
			s := c.Over(fromState, toState)
			got := [3]float64{float64(s.Attempts) / (to - from), float64(s.Accepted) / (to - from), s.LateRatio()}
			name := fmt.Sprintf("%s at %v/s, mu %v, cut %v", p.text, at.rate, at.mu, at.cut)
			if math.Abs(got[0]-attempts) > 0.06*attempts+2 || math.Abs(got[1]-accepts) > 0.06*accepts+2 || math.Abs(got[2]-late) > 0.05 {
				t.Errorf("%s: attempts/s, accepts/s and late %.3g, by Lindley %.3g %.3g %.3g", name, got, attempts, accepts, late)
			} else {
				t.Logf("%s: %.3g, by Lindley %.3g %.3g %.3g", name, got, attempts, accepts, late)
			}
		}
	}
}
