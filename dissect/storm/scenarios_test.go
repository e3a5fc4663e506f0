package storm_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

// simulated gives the packets of a scenario in the order of the tap's clock.
func simulated(t testing.TB, sc samples.Scenario, seed uint64) ([]capture.Packet, *samples.Truth) {
	t.Helper()
	var packets []capture.Packet
	truth, err := samples.Simulate(sc, seed, func(p *capture.Packet) { packets = append(packets, *p) })
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(packets, func(a, b capture.Packet) int { return cmp.Compare(a.Time, b.Time) })
	return packets, truth
}

// read analyses a source.
func read(t testing.TB, src capture.Source) *pipeline.Analysis {
	t.Helper()
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 2, Protocols: overlay.All()}, src)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// judge analyses a source and judges what is in it.
func judge(t testing.TB, src capture.Source) *storm.Report {
	t.Helper()
	a := read(t, src)
	defer a.Close()
	r, err := a.Judge(storm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// judged simulates a scenario and judges its packets.
func judged(t testing.TB, sc samples.Scenario, seed uint64) (*storm.Report, *samples.Truth) {
	t.Helper()
	packets, truth := simulated(t, sc, seed)
	return judge(t, capture.Memory(packets)), truth
}

// expected is the class that each scenario must be given (storms.md section 6).
var expected = []struct {
	name string
	any  []storm.Class
}{
	{"s1", []storm.Class{storm.RetryStorm}},
	{"s2", []storm.Class{storm.RetryStorm}},
	{"s3", []storm.Class{storm.Calm, storm.PartialOutage}},
	{"s4", []storm.Class{storm.RetryStorm}},
	{"s5", []storm.Class{storm.PartialOutage}},
	{"s6", []storm.Class{storm.MassReconnect}},
	{"s7", []storm.Class{storm.RetryStorm}},
	{"s8", []storm.Class{storm.RetryStorm}},
	{"s9", []storm.Class{storm.RetryStorm}},
	{"s10", []storm.Class{storm.RetryStorm}},
	{"s11", []storm.Class{storm.RetryStorm}},
	{"s12", []storm.Class{storm.PartialOutage}},
	{"s13", []storm.Class{storm.RetryStorm}},
	{"s14", []storm.Class{storm.RetryStorm}},
	{"n1", []storm.Class{storm.FlashCrowd}},
	{"n2", []storm.Class{storm.SynFlood}},
	{"n3", []storm.Class{storm.Scan}},
	{"n4", []storm.Class{storm.SingleOffender}},
	{"n5", []storm.Class{storm.Calm}},
	{"n6", []storm.Class{storm.Calm}},
	{"n7", []storm.Class{storm.Calm, storm.InsufficientEvidence}},
	{"n8", []storm.Class{storm.PathLoss}},
	{"n9", []storm.Class{storm.RetryStorm}},
	{"n10", []storm.Class{storm.RetryStorm}},
	{"n11", []storm.Class{storm.RetryStorm}},
	{"n12", []storm.Class{storm.InsufficientEvidence}},
	{"n13", []storm.Class{storm.RetryStorm}},
	{"n14", []storm.Class{storm.Calm}},
	{"n15", []storm.Class{storm.Calm}},
	{"n16", []storm.Class{storm.Calm}},
	{"n17", []storm.Class{storm.PartialOutage}},
	{"n18", []storm.Class{storm.Calm}},
	{"n19", []storm.Class{storm.RetryStorm}},
	{"n20", []storm.Class{storm.RetryStorm}},
	{"skype-2010", []storm.Class{storm.RetryStorm}},
	{"monitored", []storm.Class{storm.RetryStorm}},
	{"app-flood", []storm.Class{storm.ApplicationFlood}},
	{"refresh-surge", []storm.Class{storm.RefreshSurge}},
	{"rollout", []storm.Class{storm.RetryStorm}},
	{"filter", []storm.Class{storm.RetryStorm}},
}

// TestScenarios holds the verdict of a scenario, its numbers, policy, versions
// and cascade to the truth of the simulation. The costlier scenarios and further
// seeds are left to `make evaluate`.
func TestScenarios(t *testing.T) {
	names := []string{"s2", "s5", "s6", "s9", "s12", "s13", "s14", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n11", "n12", "n13", "n14", "n15",
		"n16", "n17", "skype-2010", "monitored", "app-flood", "refresh-surge", "filter"}
	if testing.Short() {
		names = []string{"s9", "s13", "n4", "n5", "n6", "n17", "refresh-surge", "filter"}
	}
	for _, e := range expected {
		if !slices.Contains(names, e.name) {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			sc, ok := samples.Find(e.name)
			if !ok {
				t.Fatal("no such scenario")
			}
			r, truth := judged(t, sc, 1)
			if !slices.Contains(e.any, r.Verdict.Class) {
				t.Errorf("verdict %v, want %v: %s", r.Verdict.Class, e.any, r.Summary)
			}
			for _, w := range check(&sc, r, truth) {
				t.Error(w)
			}
			if (r.Totals.Checks > 0) != (sc.Monitors > 0) || len(r.Monitors) != sc.Monitors {
				t.Errorf("%d checks of %d monitors, there are %d: %+v", r.Totals.Checks, r.Totals.Monitors, sc.Monitors, r.Monitors)
			}
			// Of a node that works on what nobody waits for any more, all answers are late.
			switch late := r.Verdict.LateRatio(); e.name {
			case "s2", "s4", "s7", "n9", "n13", "n20":
				if late < 0.95 {
					t.Errorf("late %.2f", late)
				}
			case "s9", "n8", "n17", "filter":
				if late > 0.05 {
					t.Errorf("late %.2f", late)
				}
			}
			if v := &r.Verdict; v.Class == storm.Scan || v.Class == storm.SingleOffender {
				var all int64
				for _, n := range v.Outcomes {
					all += n
				}
				if all != v.Attempts || v.Transmissions < v.Attempts || v.Class == storm.Scan && v.Outcomes[dissect.OutcomeTimeout] == 0 {
					t.Errorf("%d attempts, %d transmissions, %v", v.Attempts, v.Transmissions, v.Outcomes)
				}
			}
			// Where nothing happens to the nodes, none is in trouble, and who is served has
			// tried once.
			if len(sc.Script) == 0 && sc.PathLoss == 0 && !sc.Broken && sc.Scan == 0 && sc.Tap == (samples.Tap{}) {
				for _, n := range r.Nodes {
					if len(n.Periods) > 0 {
						t.Errorf("%v is well: %+v", n.At, n.Periods)
					}
				}
				if a := r.Totals.Amplification(); a > 1.001 {
					t.Errorf("A = %.3f", a)
				}
			}
			if testing.Verbose() {
				show(t, r)
			}
		})
	}
}

func show(t *testing.T, r *storm.Report) {
	for _, f := range r.Findings {
		t.Logf("%v cascade=%v onset %+.1f end %+.1f %s rise %.1f conf %v metastable %v retrigger %v: %s %v", f.Class, f.Cascade,
			float64(f.Onset-samples.Epoch)/1e9, float64(f.End-samples.Epoch)/1e9, f.Shape, float64(f.Rise)/1e9, f.Confidence, f.Metastable, f.Retrigger, f.Sentence, f.Reasons)
		for _, c := range f.Criteria {
			t.Logf("   %s %.3g (%.3g) %v", c.Name, c.Value, c.Threshold, c.Met)
		}
	}
	t.Logf("totals %+v", r.Totals)
	for _, p := range r.Policies {
		t.Logf("policy %+v", p)
	}
	for _, v := range r.Versions {
		t.Logf("version %+v", v)
	}
	for i, n := range r.Nodes {
		if i < 12 && n.Periods != nil {
			s := ""
			for k, p := range n.Periods {
				if k < 6 {
					s += fmt.Sprintf(" %v[%.2f %.2f]", p.Kind, float64(p.Start-samples.Epoch)/1e9, float64(p.End-samples.Epoch)/1e9)
				}
			}
			t.Logf("node %v gen %d excess %.1f%s", n.At, n.Generation, n.Excess, s)
		}
	}
	for i, h := range r.Hypotheses {
		if i < 3 {
			t.Logf("hypothesis %s %.2f for %v against %v", h.Name, h.Score, h.For, h.Against)
		}
	}
	for _, n := range r.Notes {
		t.Logf("note %s", n)
	}
}
