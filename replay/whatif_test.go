package replay_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/replay"
	"squall/samples"
)

// simulated is the capture of a scenario, analysed.
func simulated(t testing.TB, sc samples.Scenario, seed uint64) (*pipeline.Analysis, *storm.Report) {
	t.Helper()
	var b bytes.Buffer
	w, err := capture.NewWriter(&b, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := samples.Simulate(sc, seed, func(p *capture.Packet) {
		if err := w.WritePacket(p, ""); err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return analyseBytes(t, &b)
}

// trueRecovery is when the simulated service was back, by what its clients
// really did, found without the code under test: the end of the last second
// with more failures than successes before the last ten in which half failed.
// 0: there was no storm; +Inf: it went on to within a quarter of a minute of
// the end.
func trueRecovery(truth *samples.Truth, sc *samples.Scenario) float64 {
	n := int(sc.Duration / time.Second)
	good, bad := make([]int, n+1), make([]int, n+1)
	for i := range truth.Attempts {
		a := &truth.Attempts[i]
		if a.Relation == "refresh" || a.Relation == "parallel" || a.Outcome == "unknown" {
			continue
		}
		if a.Outcome == "accepted" {
			good[int(a.Start/time.Second)]++
		} else {
			bad[int(a.Start/time.Second)]++
		}
	}
	last := -1
	for s := int(sc.Trigger / time.Second); s <= n; s++ {
		g, b := 0, 0
		for k := max(s-9, 0); k <= s; k++ {
			g, b = g+good[k], b+bad[k]
		}
		if g+b >= 20 && b >= g {
			last = s
		}
	}
	switch {
	case last < 0:
		return 0
	case last+15 >= n:
		return math.Inf(1)
	}
	for bad[last] <= good[last] {
		last--
	}
	return float64(last + 1)
}

// counterfactual is a change, said to whatif and to the simulator.
type counterfactual struct {
	name string
	what func(t testing.TB) replay.WhatIf
	sim  func(*samples.Scenario)
}

func overrides(t testing.TB, texts ...string) (list []replay.Override) {
	t.Helper()
	for _, text := range texts {
		o, err := replay.ParseOverride(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, o)
	}
	return list
}

func counterfactuals(sc samples.Scenario) []counterfactual {
	return []counterfactual{
		{"as recorded", func(testing.TB) replay.WhatIf { return replay.WhatIf{} }, func(*samples.Scenario) {}},
		{"10 % budget", func(t testing.TB) replay.WhatIf {
			return replay.WhatIf{Overrides: overrides(t, "policy: budget 10%")}
		}, func(s *samples.Scenario) { s.Policy.Budget, s.Policy.Floor = 0.1, time.Minute }},
		{"full jitter", func(t testing.TB) replay.WhatIf {
			return replay.WhatIf{Overrides: overrides(t, replay.Gentle)}
		}, func(s *samples.Scenario) {
			p := s.Policy
			s.Policy = samples.Policy{Family: "exponential", Base: time.Second, Factor: 2, Cap: time.Minute, Jitter: "full", Limit: p.Limit, Timeout: p.Timeout, Order: p.Order}
		}},
		{"+2 nodes", func(testing.TB) replay.WhatIf { return replay.WhatIf{Nodes: 2} }, func(s *samples.Scenario) { s.Nodes += 2 }},
		{"throttled at 60 %", func(testing.TB) replay.WhatIf { return replay.WhatIf{Throttle: 0.6 * sc.Mu} }, func(s *samples.Scenario) { s.Admit = 0.6 * sc.Mu }},
	}
}

// within says whether a true recovery lies in the interval of a forecast.
func within(at float64, s replay.Span) bool {
	worst := func(v float64) float64 {
		if v < 0 {
			return math.Inf(1)
		}
		return v
	}
	lo, hi := worst(s.Low), worst(s.High)
	return at >= lo-1 && at <= hi+1 // both are whole seconds
}

// forecast fits a capture and plays the counterfactuals.
func forecast(t testing.TB, a *pipeline.Analysis, r *storm.Report, seeds int, list []counterfactual) *replay.Forecast {
	t.Helper()
	c, err := replay.NewCase(a, r, replay.CaseOptions{Seeds: seeds, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var changes []replay.WhatIf
	for _, x := range list {
		w := x.what(t)
		w.Name = x.name
		changes = append(changes, w)
	}
	f, err := c.Forecast(t.Context(), changes)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// brief is the scenario s2 in two minutes.
func brief(t testing.TB) samples.Scenario {
	sc, ok := samples.Find("s2")
	if !ok {
		t.Fatal("no sample s2")
	}
	sc.Duration, sc.Trigger, sc.Clients = 2*time.Minute, 30*time.Second, 8000
	sc.Script = slices.Clone(sc.Script)
	for i := range sc.Script {
		sc.Script[i].At -= 150 * time.Second
	}
	return sc
}

// TestWhatIf: a collapse is recorded; the forecast says of each change what the
// simulator says when it is really made.
func TestWhatIf(t *testing.T) {
	sc := brief(t)
	a, r := simulated(t, sc, 1)
	defer a.Close()
	list := counterfactuals(sc)
	f := forecast(t, a, r, 5, list)
	if !f.Hindcast.Passed {
		t.Fatalf("hindcast: %v", f.Hindcast.Reasons)
	}
	if h := &f.Hindcast; math.Abs(h.Attempts-1) > 0.1 || h.Curve > 0.1 || h.Same != h.Runs {
		t.Errorf("hindcast %+v", h)
	}
	for i, x := range list {
		s := sc
		x.sim(&s)
		truth, err := samples.Simulate(s, 2, func(*capture.Packet) {})
		if err != nil {
			t.Fatal(err)
		}
		at, got := trueRecovery(truth, &s), f.Rows[i].Recovery
		// Another seed of the simulator is another outage: what must agree is
		// whether it came to a storm and whether it ended, and the time within
		// ten seconds.
		near := replay.Span{Low: got.Low - 10, High: got.High + 10}
		if got.Low <= 0 {
			near.Low = got.Low
		}
		if got.High < 0 {
			near.High = got.High
		}
		if !within(at, near) {
			t.Errorf("%s: back at %v s, forecast %+v", x.name, at, got)
		}
		t.Logf("%-18s true %v, forecast %+v of %d runs", x.name, at, got, f.Rows[i].Runs)
	}
	if again := forecast(t, a, r, 5, list[1:2]); fmt.Sprint(again.Rows[0], again.Hindcast) != fmt.Sprint(f.Rows[1], f.Hindcast) {
		t.Error("the same seeds give another forecast")
	}
}

// TestWhatIfNow: a capture that ends in the middle of the storm; the forecast of
// what is done now, and of doing nothing, is what becomes of this very outage
// when its simulation goes on.
func TestWhatIfNow(t *testing.T) {
	t.Parallel()
	sc := brief(t)
	now := 75 * time.Second
	sc.Duration = now
	a, r := simulated(t, sc, 1)
	defer a.Close()
	rows := nowRows(t, sc, a, r, 5, now, 3*time.Minute, nowChanges(sc)[:3], 1, 101)
	if rows == nil {
		t.Fatal("no forecast")
	}
	for _, row := range rows {
		near := replay.Span{Low: row.got.Low - 10, High: row.got.High + 10}
		if row.got.Low < 0 {
			near.Low = row.got.Low
		}
		if row.got.High < 0 {
			near.High = row.got.High
		}
		t.Logf("%-18s true %v, forecast %+v", row.name, row.truth, row.got)
		if !within(row.truth[0], near) {
			t.Errorf("%s: back at %v s, forecast %+v", row.name, row.truth[0], row.got)
		}
		// What this test is for: an end in sight, and one that is not.
		if ends := !math.IsInf(row.truth[0], 1); ends != (row.name != "as recorded") {
			t.Errorf("%s: back at %v s", row.name, row.truth[0])
		}
	}
}

// nowChange is something done at the end of a capture, said to whatif and to the
// simulator.
type nowChange struct {
	name  string
	what  replay.WhatIf
	steps []samples.Step
}

func nowChanges(sc samples.Scenario) []nowChange {
	o, err := replay.ParseOverride("policy: budget 10%")
	if err != nil {
		panic(err)
	}
	return []nowChange{
		{"as recorded", replay.WhatIf{}, nil},
		{"10 % budget", replay.WhatIf{Overrides: []replay.Override{o}}, []samples.Step{{Do: "budget", Factor: 0.1}}},
		{"throttled at 60 %", replay.WhatIf{Throttle: 0.6 * sc.Mu}, []samples.Step{{Do: "admit", Factor: 0.6 * sc.Mu}}},
		{"+2x30 nodes", replay.WhatIf{Nodes: 2, Size: 30}, []samples.Step{{Do: "add", Factor: 2}}},
	}
}

type nowRow struct {
	name  string
	got   replay.Span
	truth []float64 // one for each continuation
}

// nowRows asks of a capture of a seed that ends at now, and lets its simulation
// go on for a while with the change and the same wishes, by each of the chances.
// nil: the hindcast failed.
func nowRows(t testing.TB, sc samples.Scenario, a *pipeline.Analysis, r *storm.Report, seeds int, now, more time.Duration, list []nowChange, seed uint64, chances ...uint64) (rows []nowRow) {
	t.Helper()
	c, err := replay.NewCase(a, r, replay.CaseOptions{Seeds: seeds, Seed: 1, Now: true, Horizon: more})
	if err != nil {
		t.Fatal(err)
	}
	var changes []replay.WhatIf
	for _, x := range list {
		x.what.Name = x.name
		changes = append(changes, x.what)
	}
	f, err := c.Forecast(t.Context(), changes)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Hindcast.Passed {
		t.Logf("hindcast: %v", f.Hindcast.Reasons)
		return nil
	}
	for i, x := range list {
		s := sc
		s.Duration = now + more
		s.Script = nil
		for _, e := range sc.Script { // what would have happened later does not
			if e.At < now {
				s.Script = append(s.Script, e)
			}
		}
		was := s
		for _, e := range x.steps {
			e.At = now
			s.Script = append(slices.Clip(s.Script), e)
		}
		row := nowRow{name: x.name, got: f.Rows[i].Recovery}
		for _, chance := range chances {
			truth, err := samples.Again(was, s, now, seed, chance)
			if err != nil {
				t.Fatal(err)
			}
			row.truth = append(row.truth, trueRecovery(truth[0], &s))
		}
		rows = append(rows, row)
	}
	return rows
}

// TestWhatIfRefuses: where the model is wrong it says so and answers nothing.
func TestWhatIfRefuses(t *testing.T) {
	// Healthy hours have nothing to ask about.
	sc, _ := samples.Find("n1")
	sc.Duration, sc.Trigger, sc.Clients = 40*time.Second, 20*time.Second, 2000
	a, r := simulated(t, sc, 1)
	defer a.Close()
	if _, err := replay.NewCase(a, r, replay.CaseOptions{}); err == nil || !strings.Contains(err.Error(), "no storm") {
		t.Errorf("%v", err)
	}
	// Clients that change their ways in the middle of the storm: what the first
	// half shows of them is wrong in the second.
	sc = brief(t)
	sc.Nodes, sc.Clients, sc.Intents, sc.Hold, sc.Spread, sc.Mu, sc.Duration = 3, 300, 0, 0, 20*time.Second, 0, 90*time.Second
	sc.Script = []samples.Step{{At: 30 * time.Second, Do: "close", Nodes: []int{0, 1, 2}}}
	var b bytes.Buffer
	w, err := capture.NewWriter(&b, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, base := range []time.Duration{time.Second, 12 * time.Second} {
		sc.Policy = samples.Policy{Family: "fixed", Base: base, Timeout: time.Second, Order: "random"}
		if _, err := samples.Simulate(sc, 1, func(p *capture.Packet) {
			if late := p.Time-samples.Epoch >= int64(60*time.Second); late == (i == 1) {
				if err := w.WritePacket(p, ""); err != nil {
					t.Fatal(err)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	turned, r := analyseBytes(t, &b)
	defer turned.Close()
	c, err := replay.NewCase(turned, r, replay.CaseOptions{Seeds: 3})
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Forecast(t.Context(), []replay.WhatIf{{Name: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if f.Hindcast.Passed || len(f.Hindcast.Reasons) == 0 || len(f.Rows) != 0 {
		t.Errorf("hindcast %+v, %d rows", f.Hindcast, len(f.Rows))
	}
	t.Log(f.Hindcast.Reasons)
}
