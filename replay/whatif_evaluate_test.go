//go:build evaluate

package replay_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"squall/replay"
	"squall/samples"
)

// TestWhatIfNowCoverage cuts captures in the middle of the storm and asks what
// becomes of them: of each capture the truth is its own simulation, which goes
// on with the same wishes, by five chances. It prints a Markdown table;
// docs/whatif.md holds the last one.
func TestWhatIfNowCoverage(t *testing.T) {
	fmt.Println("| outage, cut at | change now | forecast of the first capture | true, its own rest | same fate | in the interval |\n|---|---|---|---|---|---|")
	for _, name := range []string{"s2", "s4", "s10", "skype-2010"} {
		sc, _ := samples.Find(name)
		now, more := sc.Trigger+2*time.Minute, 10*time.Minute
		sc.Duration = now
		list := nowChanges(sc)
		if sc.Policy.Order == "sticky" { // nobody would ask them
			list = list[:3]
		}
		in, same, of := make([]int, len(list)), make([]int, len(list)), make([]int, len(list))
		shown := make([]string, len(list))
		for seed := range uint64(3) {
			a, r := simulated(t, sc, 1+seed)
			rows := nowRows(t, sc, a, r, 20, now, more, list, 1+seed, 101, 102, 103, 104, 105)
			a.Close()
			for i, row := range rows {
				if shown[i] == "" {
					shown[i] = fmt.Sprintf("%s (%s to %s) | %s", fateOf(row.got.Median), fateOf(row.got.Low), fateOf(row.got.High), fateOf(row.truth[0]))
				}
				for _, at := range row.truth {
					of[i]++
					if within(at, row.got) {
						in[i]++
					}
					if kind(at) == kind(row.got.Median) {
						same[i]++
					}
				}
			}
		}
		for i, x := range list {
			if of[i] == 0 {
				continue
			}
			fmt.Printf("| %s, %.0f s | %s | %s | %d of %d | %d of %d |\n", name, now.Seconds(), x.name, shown[i], same[i], of[i], in[i], of[i])
		}
	}
}

// TestWhatIfCoverage asks of every change how often the truth, the captured
// outage simulated again with the change and the same wishes, lies within the
// interval that whatif gave. It prints a Markdown table; docs/whatif.md holds
// the last one.
func TestWhatIfCoverage(t *testing.T) {
	const captures, truths = 3, 5
	fmt.Println("| outage | change | hindcast | forecast | true | same fate | in the interval |\n|---|---|---|---|---|---|---|")
	var all, hits, fates int
	for _, name := range []string{"s2", "s3", "s4", "s10", "skype-2010"} {
		sc, ok := samples.Find(name)
		if !ok {
			t.Fatal(name)
		}
		list := counterfactuals(sc)
		lo, hi := make([]float64, len(list)), make([]float64, len(list))
		for i := range list {
			lo[i], hi[i] = math.Inf(1), math.Inf(-1)
		}
		passed := 0
		in, same, of := make([]int, len(list)), make([]int, len(list)), make([]int, len(list))
		shown := make([]string, len(list))
		for seed := range captures {
			a, r := simulated(t, sc, uint64(1+seed))
			c, err := replay.NewCase(a, r, replay.CaseOptions{Seeds: 20, Seed: 1})
			if err != nil {
				t.Logf("%s, seed %d: %v", name, seed+1, err)
				a.Close()
				continue
			}
			var changes []replay.WhatIf
			for _, x := range list {
				w := x.what(t)
				w.Name = x.name
				changes = append(changes, w)
			}
			f, err := c.Forecast(t.Context(), changes)
			a.Close()
			if err != nil {
				t.Fatal(err)
			}
			if !f.Hindcast.Passed {
				t.Logf("%s, seed %d: %v", name, seed+1, f.Hindcast.Reasons)
				continue
			}
			passed++
			for i, x := range list {
				got := f.Rows[i].Recovery
				if shown[i] == "" {
					shown[i] = fmt.Sprintf("%s (%s to %s)", fateOf(got.Median), fateOf(got.Low), fateOf(got.High))
				}
				for _, at := range truly(t, sc, x, uint64(1+seed), truths) {
					lo[i], hi[i] = min(lo[i], at), max(hi[i], at)
					of[i]++
					if within(at, got) {
						in[i]++
					}
					if kind(at) == kind(got.Median) {
						same[i]++
					}
				}
			}
		}
		for i, x := range list {
			if of[i] == 0 {
				continue
			}
			fmt.Printf("| %s | %s | %d of %d | %s | %s to %s | %d of %d | %d of %d |\n", name, x.name, passed, captures, shown[i], fateOf(lo[i]), fateOf(hi[i]), same[i], of[i], in[i], of[i])
			all, hits, fates = all+of[i], hits+in[i], fates+same[i]
		}
	}
	fmt.Printf("\nsame fate %d of %d, in the interval %d of %d\n", fates, all, hits, all)
}

func kind(at float64) int {
	switch {
	case at == 0:
		return 0
	case at < 0 || math.IsInf(at, 1):
		return 2
	}
	return 1
}

func fateOf(at float64) string {
	return [...]string{"never down", fmt.Sprintf("%.0f s", at), "not back"}[kind(at)]
}

// TestWhatIfMega asks the same of two mega-supernodes that are there from the
// beginning, with and without a retry budget: what ended the outage.
func TestWhatIfMega(t *testing.T) {
	const captures, truths = 2, 5
	sc, _ := samples.Find("skype-2010")
	early := samples.Step{At: time.Second, Do: "add", Factor: 2}
	for _, x := range []counterfactual{
		{"+2x30 nodes", func(testing.TB) replay.WhatIf { return replay.WhatIf{Nodes: 2, Size: 30} }, func(s *samples.Scenario) {
			s.Script = append([]samples.Step{early}, s.Script...)
		}},
		{"+2x30 nodes, 10 % budget", func(t testing.TB) replay.WhatIf {
			return replay.WhatIf{Nodes: 2, Size: 30, Overrides: overrides(t, "policy: budget 10%")}
		}, func(s *samples.Scenario) {
			s.Script = append([]samples.Step{early}, s.Script...)
			s.Policy.Budget, s.Policy.Floor = 0.1, time.Minute
		}},
	} {
		in, fates, told, was := 0, 0, "", ""
		for seed := range captures {
			a, r := simulated(t, sc, uint64(1+seed))
			got := forecast(t, a, r, 20, []counterfactual{x}).Rows[0].Recovery
			a.Close()
			told += fmt.Sprintf("%s (%s to %s) ", fateOf(got.Median), fateOf(got.Low), fateOf(got.High))
			for _, at := range truly(t, sc, x, uint64(1+seed), truths) {
				was += fateOf(at) + " "
				if within(at, got) {
					in++
				}
				if kind(at) == kind(got.Median) {
					fates++
				}
			}
		}
		fmt.Printf("| skype-2010 | %s | %s| %s| %d of %d | %d of %d |\n", x.name, told, was, fates, captures*truths, in, captures*truths)
		if fates < captures*truths/2 {
			t.Errorf("%s: the same fate in %d of %d only", x.name, fates, captures*truths)
		}
	}
}

// truly is when the captured outage, with the change in it, was over, chance by chance.
func truly(t *testing.T, sc samples.Scenario, x counterfactual, seed uint64, chances int) (real []float64) {
	t.Helper()
	was := sc
	x.sim(&sc)
	var list []uint64
	for k := range chances {
		list = append(list, uint64(100+k))
	}
	truths, err := samples.Again(was, sc, 0, seed, list...)
	if err != nil {
		t.Fatal(err)
	}
	for _, truth := range truths {
		real = append(real, trueRecovery(truth, &sc))
	}
	return real
}
