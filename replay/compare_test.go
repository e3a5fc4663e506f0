package replay_test

import (
	"math"
	"testing"
	"time"

	"squall/dissect/storm"
	"squall/replay"
)

func profile(t testing.TB, name string, seed uint64) *replay.Profile {
	t.Helper()
	a, _, _ := analyse(t, name, seed)
	defer a.Close()
	p, err := replay.NewProfile(a, replay.Scope{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCompare: an outage is like itself and like another draw of itself; it is
// not like a healthy hour, and the measures say where.
func TestCompare(t *testing.T) {
	a, b, c := profile(t, "outage", 1), profile(t, "outage", 2), profile(t, "outage", 3)
	same := replay.Compare(a, []*replay.Profile{a}, nil)
	if !same.Pass() || len(same.Notes) == 0 {
		t.Errorf("not like itself: %+v", same.Measures)
	}
	for _, m := range same.Measures {
		if m.Distance != 0 && !math.IsNaN(m.Distance) || m.Seeds != -1 {
			t.Errorf("%+v", m)
		}
	}
	draws := replay.Compare(a, []*replay.Profile{b, c}, nil)
	alike := 0
	for _, m := range draws.Measures {
		if m.Judged && m.Alike {
			alike++
		}
		if m.Seeds < 0 && !math.IsNaN(m.Distance) {
			t.Errorf("no distance between seeds: %+v", m)
		}
	}
	if !draws.Pass() || alike < 5 {
		t.Errorf("two draws of one outage, %d measures indistinguishable: %+v", alike, draws.Measures)
	}
	other := profile(t, "n5", 1)
	verdicts := replay.Compare(a, []*replay.Profile{other}, map[string]float64{"late_ratio": 0})
	if verdicts.Pass() {
		t.Error("a healthy hour passes for an outage")
	}
	failed := map[string]bool{}
	for _, m := range verdicts.Measures {
		failed[m.Name] = m.Judged && !m.Pass
	}
	for _, name := range []string{"verdict", "amplification", "outcome_mix", "curve"} {
		if !failed[name] {
			t.Errorf("%s passes", name)
		}
	}
}

// TestCompareScope: a window of a capture is judged as that window.
func TestCompareScope(t *testing.T) {
	a, _, truth := analyse(t, "outage", 1)
	defer a.Close()
	first, _ := a.Span()
	p, err := replay.NewProfile(a, replay.Scope{From: first, To: first + int64(30e9)})
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for _, x := range truth.Attempts {
		if x.Start < 30*time.Second && x.Relation != "refresh" {
			n++
		}
	}
	if p.Counts.Attempts != n || p.Counts.Outcomes.Failed() != 0 || p.Report.Verdict.Class != storm.Calm {
		t.Errorf("%d attempts, want %d; %+v", p.Counts.Attempts, n, p.Report.Verdict)
	}
	if len(p.Curve) > 3 {
		t.Errorf("%d windows in 30 s", len(p.Curve))
	}
}
