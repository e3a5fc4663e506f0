package pipeline_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/samples"
)

// TestRowsAsTheRulesDemand compares the engine with the oracle of package
// samples, which reads the same packets by the same rules and shares no code:
// attempt by attempt, outcome, transmissions, lateness, relation, number and
// the grouping into intents. One seed of each scenario, another one for each;
// SQUALL_SEEDS=10, as make oracle sets it, asks for more.
func TestRowsAsTheRulesDemand(t *testing.T) {
	seeds := 1
	if n, err := strconv.Atoi(os.Getenv("SQUALL_SEEDS")); err == nil {
		seeds = n
	}
	quick := []string{"s2", "outage", "n5", "n2n", "skype-ladder"}
	for i, name := range []string{"s1", "s2", "s4", "s8", "s9", "s11", "s13", "n8", "n14", "n17", "skype-2010", "outage", "s7", "s12", "n5", "n16", "n2n", "skype-ladder"} {
		sc, ok := samples.Find(name)
		if !ok {
			t.Fatal(name)
		}
		if seeds == 1 { // a few ten thousand packets of each
			sc.Clients = min(sc.Clients, 600)
			sc.Duration = min(sc.Duration, sc.Trigger+30*time.Second)
		} else if sc.Intents > 0 || sc.Clients > 1000 {
			sc.Clients = min(sc.Clients, 1500)
			sc.Duration = min(sc.Duration, sc.Trigger+45*time.Second)
		}
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !slices.Contains(quick, name) {
				t.Skip("needs minutes: run it without -short")
			}
			for seed := range seeds {
				compareRows(t, sc, uint64(i+seed*100+1))
			}
		})
	}
}

// TestBackground: what else is on the wire adds no row and changes none.
func TestBackground(t *testing.T) {
	sc, _ := samples.Find("outage")
	sc.Background = 400
	compareRows(t, sc, 1)
}

// TestAttemptLimit: wishes that follow each other within W are kept apart where
// the clients show that they give up after three failures (rule 38).
func TestAttemptLimit(t *testing.T) {
	sc, _ := samples.Find("s9")
	sc.Clients, sc.Nodes, sc.Intents, sc.Hold, sc.Trigger, sc.Duration = 120, 1, 6, 0, 10*time.Second, 4*time.Minute
	sc.Policy = samples.Policy{Family: "fixed", Base: time.Second, Limit: 3, Timeout: time.Second, Order: "sticky"}
	sc.Script = []samples.Step{{At: sc.Trigger, Do: "close", Nodes: []int{0}}}
	compareRows(t, sc, 1)
	a, truth := analysed(t, sc, 1)
	defer a.Close()
	intents, three := 0, 0
	for in, err := range a.Intents() {
		if err != nil {
			t.Fatal(err)
		}
		if intents++; in.Attempts == 3 {
			three++
		}
	}
	if share := float64(intents) / float64(truth.Intents); share < 0.98 || share > 1.02 {
		t.Errorf("%d intents, %d of them of three attempts; there were %d", intents, three, truth.Intents)
	}
}

func analysed(t *testing.T, sc samples.Scenario, seed uint64) (*pipeline.Analysis, *samples.Truth) {
	t.Helper()
	var packets []capture.Packet
	truth, err := samples.Simulate(sc, seed, func(p *capture.Packet) { packets = append(packets, *p) })
	if err != nil {
		t.Fatal(err)
	}
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 2, Protocols: overlay.All()}, capture.Memory(packets))
	if err != nil {
		t.Fatal(err)
	}
	return a, truth
}

func compareRows(t *testing.T, sc samples.Scenario, seed uint64) {
	t.Helper()
	var packets []capture.Packet
	if _, err := samples.Simulate(sc, seed, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
		t.Fatal(err)
	}
	want := samples.Oracle(packets)
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 2, Protocols: overlay.All()}, capture.Memory(packets))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var got []dissect.Attempt
	for r, err := range a.Attempts() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, *r)
	}
	slices.SortStableFunc(got, func(a, b dissect.Attempt) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), a.Source.Compare(b.Source))
	})
	if len(got) != len(want) {
		t.Errorf("seed %d: %d attempts, the rules demand %d", seed, len(got), len(want))
		return
	}
	intents := map[uint64]int{}
	bad := 0
	for i := range got {
		g, w := &got[i], &want[i]
		gs := fmt.Sprintf("%v>%v %d %v late=%v n=%d %v #%d", g.Source, g.Destination, g.Start, g.Outcome, g.Late, g.Transmissions, g.Relation, g.Number)
		ws := fmt.Sprintf("%v>%v %d %v late=%v n=%d %v #%d", w.Source, w.Target, w.Start, w.Outcome, w.Late, w.Transmissions, w.Relation, w.Number)
		if gs != ws {
			if bad++; bad <= 4 {
				t.Errorf("seed %d row %d:\n got %s (%v)\nwant %s (%s)", seed, i, gs, g.Evidence, ws, w.Evidence)
			}
			continue
		}
		if g.Relation == dissect.RelationParallel {
			continue
		}
		if n, ok := intents[g.IntentID]; ok && n != w.Intent {
			t.Errorf("seed %d row %d: intent %x holds what the rules keep apart", seed, i, g.IntentID)
		}
		intents[g.IntentID] = w.Intent
	}
	if bad > 0 {
		t.Errorf("seed %d: %d of %d rows differ", seed, bad, len(got))
	}
}
