package samples

import (
	"cmp"
	"slices"
	"time"
)

// failed reports an outcome that the client took for a failure.
func failed(outcome string) bool { return outcome != "accepted" && outcome != "unknown" }

// Failures is a stretch of time in which attempts failed.
type Failures struct {
	First, Last time.Duration // starts of its first and last failing attempt
	Attempts    int           // begun in it, refreshes and parallel twins aside
	Intents     int           // of them, those that began a wish
	Failed      int
}

// Amplification is attempts / intents.
func (f *Failures) Amplification() float64 { return float64(f.Attempts) / float64(max(f.Intents, 1)) }

// Outages are the stretches of failing attempts, broken where none failed for
// longer than quiet; what lies before from is left out.
func (t *Truth) Outages(quiet, from time.Duration) (out []Failures) {
	var starts []time.Duration
	for i := range t.Attempts {
		if a := &t.Attempts[i]; failed(a.Outcome) && a.Relation != "parallel" && a.Relation != "monitor" && a.Start >= from {
			starts = append(starts, a.Start)
		}
	}
	slices.Sort(starts)
	for i, s := range starts {
		if i == 0 || s-starts[i-1] > quiet {
			out = append(out, Failures{First: s})
		}
		f := &out[len(out)-1]
		f.Last = s
		f.Failed++
	}
	for i := range t.Attempts {
		a := &t.Attempts[i]
		if a.Relation == "parallel" || a.Relation == "refresh" || a.Relation == "monitor" {
			continue
		}
		for k := range out {
			if f := &out[k]; a.Start >= f.First && a.Start <= f.Last {
				f.Attempts++
				if a.Number == 1 {
					f.Intents++
				}
			}
		}
	}
	return out
}

// Fall is a node's first going down.
type Fall struct {
	Node       string
	At         time.Duration
	Generation int // 0: the script did it; else one more than that of the nodes most of its newcomers had been at
}

// Falls lists the nodes that went down or protected themselves, in order.
func (t *Truth) Falls() (out []Fall) {
	index := map[string]int{}
	for _, e := range t.Events {
		if _, again := index[e.Node]; again || e.What != "down" && e.What != "close" && e.What != "protect" {
			continue
		}
		index[e.Node] = len(out)
		g := 0
		if e.What == "protect" {
			g = -1
		}
		out = append(out, Fall{e.Node, e.At, g})
	}
	byClient := map[int][]*TrueAttempt{}
	for i := range t.Attempts {
		a := &t.Attempts[i]
		if a.Relation != "monitor" {
			byClient[a.Client] = append(byClient[a.Client], a)
		}
	}
	// came[b][a] is how many attempts at node b in the minute before its fall
	// were of clients that had been at a, which lay in ruins already.
	came := make([]map[int]int, len(out))
	for _, list := range byClient {
		slices.SortStableFunc(list, func(a, b *TrueAttempt) int { return cmp.Compare(a.Start, b.Start) })
		for i := 1; i < len(list); i++ {
			b, ok := index[list[i].Target]
			a, ruin := index[list[i-1].Target]
			if !ok || !ruin || a == b || out[a].At >= out[b].At {
				continue
			}
			if at := list[i].Start; at > out[b].At || at < out[b].At-time.Minute || at < out[0].At {
				continue
			}
			if came[b] == nil {
				came[b] = map[int]int{}
			}
			came[b][a]++
		}
	}
	for b := range out {
		if out[b].Generation == 0 {
			continue
		}
		by := make([]int, len(out)+1)
		for a := range out[:b] {
			by[out[a].Generation+1] += came[b][a]
		}
		out[b].Generation = 0
		for g, n := range by {
			if n > by[out[b].Generation] {
				out[b].Generation = g
			}
		}
	}
	return out
}
