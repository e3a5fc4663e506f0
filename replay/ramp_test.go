package replay_test

import (
	"strings"
	"testing"
	"time"

	"squall/dissect"
	"squall/replay"
)

// TestRamp: in virtual time a node of 100 a second whose clients try three
// times carries nearly 100 wishes a second on the way up, collapses beyond, and
// comes back only where three times the wishes are less than it serves
// (storms.md section 2.2: below 1/A of the capacity).
func TestRamp(t *testing.T) {
	o, err := replay.RampOf("10:300")
	if err != nil {
		t.Fatal(err)
	}
	o.Steps, o.Step = 12, 30*time.Second
	pol := "fixed(1s, limit 3, timeout 1s)"
	recorded := planOf(t, "gnutella", pol, 1, time.Minute, replay.Item{}, replay.Item{At: time.Second, Client: 1})
	for seed := range uint64(3) {
		recorded.Seed = seed
		p, err := recorded.Ramp(o)
		if err != nil {
			t.Fatal(err)
		}
		var rows []replay.Result
		w := replay.World{Demand: p.Wishes(), Policies: p.Policies(), Nodes: []replay.NodeConfig{{Capacity: 100, Queue: 300}}, Duration: p.Duration, Seed: seed,
			Observe: observed(&rows)}
		if _, err := w.Run(); err != nil {
			t.Fatal(err)
		}
		k := replay.NewKnee(recorded, o, rows)
		t.Logf("\n%s", k.Text())
		if len(k.Steps) != 23 || k.Capacity < 85 || k.Capacity > 115 || k.Tipping < 80 || k.Tipping > 160 || k.Recovery < 15 || k.Recovery > 36 || k.Unclaimed != "" {
			t.Errorf("seed %d: capacity %.1f, tipping %.1f, recovery %.1f", seed, k.Capacity, k.Tipping, k.Recovery)
		}
		if k.Recorded != 0.2 || k.Margin < 400 {
			t.Errorf("recorded %v, margin %v", k.Recorded, k.Margin)
		}
	}
	// Over capacities and steps, the short ones included, in which the retries
	// of an overload are not made before the next rate: it tips between what it
	// serves and the first rate beyond that the ramp tried twice.
	for _, capacity := range []float64{20, 40, 200} {
		for _, step := range []time.Duration{3 * time.Second, 10 * time.Second} {
			o := replay.RampOptions{From: capacity / 10, To: 2 * capacity, Step: step}
			p, err := recorded.Ramp(o)
			if err != nil {
				t.Fatal(err)
			}
			var rows []replay.Result
			w := replay.World{Demand: p.Wishes(), Policies: p.Policies(), Nodes: []replay.NodeConfig{{Capacity: capacity}}, Duration: p.Duration, Seed: 1, Observe: observed(&rows)}
			if _, err := w.Run(); err != nil {
				t.Fatal(err)
			}
			k := replay.NewKnee(recorded, o, rows)
			if k.Capacity < 0.85*capacity || k.Capacity > 1.25*capacity || k.Tipping < 0.85*capacity || k.Tipping > 2.3*capacity {
				t.Errorf("capacity %v, steps of %v:\n%s", capacity, step, k.Text())
			}
		}
	}
	// Nothing is claimed of what was not exercised.
	partial := planOf(t, "nebula", pol, 1, time.Minute, replay.Item{})
	if k := replay.NewKnee(partial, o, nil); k.Unclaimed == "" || !strings.Contains(k.Text(), "no capacity and no knee are claimed") {
		t.Errorf("%+v", k)
	}
	for _, text := range []string{"", "5", "5:", "0:5", "9:5", "a:b", "1:1e9"} {
		if _, err := replay.RampOf(text); err == nil {
			t.Errorf("%q is a ramp", text)
		}
	}
}

// observed makes rows of the trials of a world.
func observed(rows *[]replay.Result) func(replay.Trial) {
	return func(x replay.Trial) {
		relation := dissect.RelationFirst
		if x.Number > 1 {
			relation = dissect.RelationRetry
		}
		r := replay.Result{Attempt: dissect.Attempt{Relation: relation, Outcome: x.Outcome, Late: x.Late}, Due: int64(x.Start), Answered: int64(x.End)}
		*rows = append(*rows, r)
	}
}

// TestCapacityIsWhatIsServed: who waits in a queue is no capacity: a hundred
// wishes of one second that are answered within ten are ten a second.
func TestCapacityIsWhatIsServed(t *testing.T) {
	p := planOf(t, "sip", "none", 1, time.Minute, replay.Item{})
	var rows []replay.Result
	for i := range 100 {
		r := replay.Result{Due: int64(i) * 1e7, Answered: int64(i) * 1e8}
		r.Outcome, r.Relation = dissect.OutcomeAccepted, dissect.RelationFirst
		rows = append(rows, r)
	}
	k := replay.NewKnee(p, replay.RampOptions{From: 1, To: 100, Step: time.Second}, rows)
	if k.Capacity != 10 || k.Steps[0].Offered != 100 {
		t.Errorf("capacity %v of %v wishes/s", k.Capacity, k.Steps[0].Offered)
	}
}
