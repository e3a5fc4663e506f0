package replay_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/dissect"
	"squall/replay"
)

func policy(t testing.TB, text string) replay.Policy {
	t.Helper()
	p, err := replay.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func script(t testing.TB, text string) []replay.Event {
	t.Helper()
	s, err := replay.ParseScript(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// poisson is a demand of one client per intent (storms.md, head).
func poisson(rate float64, d time.Duration, seed uint64) (demand []replay.Wish) {
	rng := rand.New(rand.NewPCG(seed, 7))
	for at := 0.0; ; {
		at += rng.ExpFloat64() / rate
		if at >= d.Seconds() {
			return demand
		}
		demand = append(demand, replay.Wish{At: time.Duration(at * 1e9), Client: int32(len(demand)), Hold: 30 * time.Second})
	}
}

// The trigger of storms.md section 2.3: capacity cut by 70 % for 10 s. The
// state that its table gives is that of 110 to 160 s after the trigger's end.
const (
	cut       = "at 30s: all capacity 0.3; at 40s: all capacity 1"
	fromState = 150 * time.Second
	toState   = 200 * time.Second
)

func server(mu float64) []replay.NodeConfig { return []replay.NodeConfig{{Capacity: mu}} }

// TestTableOfTheory is the table of storms.md section 2.3.
func TestTableOfTheory(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	healthy := [4]float64{0, 0, 1, 0} // attempts and goodput: the rate
	for _, tc := range []struct {
		rate   float64
		policy string
		want   [4]float64 // attempts/s, goodput/s, A, late
	}{
		{30, "none(timeout 1s)", healthy},
		{30, "fixed(1s, limit 3, timeout 1s)", healthy},
		{30, "exponential(1s, x2, full, limit 3, timeout 1s)", healthy},
		{30, "exponential(1s, x2, cap 32s, full, timeout 1s)", healthy},
		{30, "fixed(1s, timeout 1s)", healthy},
		{30, "fixed(1s, limit 3, timeout 1s, budget 10%)", healthy},
		{50, "none(timeout 1s)", healthy},
		{50, "fixed(1s, limit 3, timeout 1s)", [4]float64{149, 0, 2.99, 1}},
		{50, "exponential(1s, x2, full, limit 3, timeout 1s)", [4]float64{149, 0, 2.99, 1}},
		{50, "exponential(1s, x2, cap 32s, full, timeout 1s)", [4]float64{645, 0, 12.9, 1}},
		{50, "fixed(1s, timeout 1s)", [4]float64{3612, 0, 72.5, 1}},
		{50, "fixed(1s, limit 3, timeout 1s, budget 10%)", healthy},
		{70, "fixed(1s, limit 3, timeout 1s)", [4]float64{209, 0, 2.99, 1}},
		{70, "fixed(1s, limit 3, timeout 1s, budget 10%)", healthy},
		{90, "fixed(1s, limit 3, timeout 1s)", [4]float64{269, 0, 2.99, 1}},
	} {
		for seed := range seeds {
			w := replay.World{Demand: poisson(tc.rate, toState, seed), Policies: []replay.Policy{policy(t, tc.policy)},
				Nodes: server(100), Script: script(t, cut), Duration: toState, Seed: seed}
			c, err := w.Run()
			if err != nil {
				t.Fatal(err)
			}
			s, d := c.Over(fromState, toState), (toState - fromState).Seconds()
			want := tc.want
			if want == healthy {
				want[0], want[1] = tc.rate, tc.rate
			}
			got := [4]float64{float64(s.Attempts) / d, float64(s.Accepted) / d, s.Amplification(), s.LateRatio()}
			for i, v := range got {
				slack := []float64{0.10*want[0] + 1, 0.12*want[1] + 1, 0.06*want[2] + 0.02, 0.03}[i]
				if math.Abs(v-want[i]) > slack {
					t.Errorf("rate %v, %s, seed %d: %.2f, want %v (attempts/s, goodput/s, A, late)", tc.rate, tc.policy, seed, got, want)
					break
				}
			}
			if seed == 0 {
				t.Logf("rate %v, %-52s attempts/s %.0f goodput/s %.0f A %.2f late %.2f", tc.rate, tc.policy, got[0], got[1], got[2], got[3])
			}
		}
	}
}

// TestTableOfReplay is the table of storms.md section 4.3, M1 and M2: a storm
// recorded on a node of 100 a second, asked again of others.
func TestTableOfReplay(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		p := []replay.Policy{policy(t, "fixed(1s, limit 3, timeout 1s)")}
		demand := poisson(50, toState, seed)
		// The recording: every attempt of the storm, from its settled state.
		var attempts []replay.Wish
		recorded := replay.World{Demand: demand, Policies: p, Nodes: server(100), Script: script(t, cut), Duration: toState, Seed: seed,
			Observe: func(a replay.Trial) {
				attempts = append(attempts, replay.Wish{At: a.Start, Client: int32(len(attempts)), Hold: 30 * time.Second})
			}}
		if _, err := recorded.Run(); err != nil {
			t.Fatal(err)
		}
		sortWishes(attempts)
		for _, tc := range []struct {
			mu    float64
			mode  replay.Mode
			cut   bool
			good  float64 // served per second at the end
			rowOf string
		}{
			{45, replay.AttemptMode, false, 0, "attempts, open loop"},
			{80, replay.AttemptMode, false, 0, "attempts, open loop"},
			{120, replay.AttemptMode, false, 0, "attempts, open loop"},
			{200, replay.AttemptMode, false, 150, "attempts, open loop"},
			{45, replay.IntentMode, false, 0, "intents"},
			{80, replay.IntentMode, false, 50, "intents"},
			{120, replay.IntentMode, false, 50, "intents"},
			{200, replay.IntentMode, false, 50, "intents"},
			{45, replay.IntentMode, true, 0, "intents with the trigger"},
			{80, replay.IntentMode, true, 0, "intents with the trigger"},
			{120, replay.IntentMode, true, 0, "intents with the trigger"},
			{200, replay.IntentMode, true, 50, "intents with the trigger"},
		} {
			w := replay.World{Mode: tc.mode, Demand: demand, Policies: p, Nodes: server(tc.mu), Duration: toState, Seed: seed + 100}
			if tc.mode == replay.AttemptMode {
				w.Demand = attempts
			}
			if tc.cut {
				w.Script = script(t, cut)
			}
			c, err := w.Run()
			if err != nil {
				t.Fatal(err)
			}
			s := c.Over(fromState, toState)
			good := float64(s.Accepted) / (toState - fromState).Seconds()
			if math.Abs(good-tc.good) > 0.12*tc.good+1 || tc.good == 0 && s.LateRatio() < 0.97 {
				t.Errorf("mu %v, %s, seed %d: %.1f/s served, %.2f late; want %v/s", tc.mu, tc.rowOf, seed, good, s.LateRatio(), tc.good)
			}
			if seed == 0 {
				t.Logf("mu %v, %-26s %.1f/s served", tc.mu, tc.rowOf, good)
			}
		}
	}
}

// TestRunIsTheSame: the same seed gives the same course, another one another.
func TestRunIsTheSame(t *testing.T) {
	run := func(seed uint64) *replay.Course {
		w := replay.World{Demand: poisson(50, 60*time.Second, 1), Policies: []replay.Policy{policy(t, "exponential(1s, x2, full, timeout 1s)")},
			Nodes: server(100), Script: script(t, cut), Duration: time.Minute, Seed: seed}
		c, err := w.Run()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if !reflect.DeepEqual(run(1), run(1)) {
		t.Error("two runs of the same seed differ")
	}
	if reflect.DeepEqual(run(1), run(2)) {
		t.Error("two seeds give the same run")
	}
}

// TestRunAddsUp: every attempt is decided or open, every client in one state.
func TestRunAddsUp(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var demand []replay.Wish
		for i := range 400 {
			demand = append(demand, replay.Wish{At: time.Duration(i) * 50 * time.Millisecond, Client: int32(i % 150), Node: int32(i % 3),
				Hold: time.Duration(rng.IntN(20)) * time.Second})
		}
		trials, failed := map[dissect.Outcome]int64{}, int64(0)
		w := replay.World{Demand: demand, Nodes: []replay.NodeConfig{{Capacity: 20, Queue: 5, Overload: replay.Overload(seed % 4)},
			{Capacity: 10, ProtectAt: 6, Recovery: 10 * time.Second}, {Capacity: 5, Discipline: replay.Discipline(seed % 3), CrashAt: 20, WarmUp: 5 * time.Second}},
			Policies: []replay.Policy{policy(t, []string{"fixed(300ms, random, timeout 700ms, limit 9)", "exponential(200ms, x2, cap 3s, equal, round_robin, timeout 1s, budget 20%)"}[seed%2])},
			Script:   script(t, "at 5s: node 1 down; at 9s: node 1 up; at 12s: all close; at 13s: all up"), Duration: 60 * time.Second, Seed: seed,
			Observe: func(a replay.Trial) {
				trials[a.Outcome]++
				if a.Outcome.Failed() {
					failed++
				}
				if a.End < a.Start || a.Late && a.Outcome != dissect.OutcomeTimeout {
					t.Errorf("seed %d: %+v", seed, a)
				}
			}}
		c, err := w.Run()
		if err != nil {
			t.Fatal(err)
		}
		s := c.Over(0, time.Minute)
		all := int64(0)
		for _, n := range trials {
			all += n
		}
		if all != s.Attempts || trials[dissect.OutcomeAccepted] != s.Accepted || failed != s.Failed ||
			s.Attempts != s.Accepted+s.Failed+trials[dissect.OutcomeUnknown] || s.Attempts-s.Retries != s.Intents || s.Answers < s.Accepted+s.Late {
			t.Errorf("seed %d: %d observed %v, %d failed; %+v", seed, all, trials, failed, s)
		}
		// A budget of a fifth and the free one a minute leave less than one retry an intent.
		if s.Lost == 0 || s.Retries == 0 || seed%2 == 1 && s.Retries > s.Intents {
			t.Errorf("seed %d: sessions lost, attempts made again: %+v", seed, s)
		}
		if s.Attached < 0 || s.Attached > 150 || c.Open < 0 || c.Shut > 150 {
			t.Errorf("seed %d: %+v, open %d, shut %d", seed, s, c.Open, c.Shut)
		}
	}
}

// TestCascade: two of eight nodes die; clients that try once a second keep the
// other six down for ever. A retry budget brings everybody back, and so do two
// large nodes.
func TestCascade(t *testing.T) {
	const trigger, end = 180 * time.Second, 12 * time.Minute
	run := func(p string, large int, seed uint64) *replay.Course {
		const clients = 800
		var demand []replay.Wish
		for i := range clients {
			demand = append(demand, replay.Wish{At: time.Duration(i) * 150 * time.Second / clients, Client: int32(i), Node: int32(i % 8)})
		}
		nodes := make([]replay.NodeConfig, 8, 10)
		for i := range nodes {
			nodes[i] = replay.NodeConfig{Capacity: 3, Queue: 60, ProtectAt: 7, Recovery: 50 * time.Second}
		}
		for range large {
			nodes = append(nodes, replay.NodeConfig{Capacity: 90})
		}
		w := replay.World{Demand: demand, Nodes: nodes, Policies: []replay.Policy{policy(t, p)}, Keepalive: 6 * time.Second,
			Script: script(t, "at 180s: node 1 down; at 180s: node 2 down"), Duration: end, Seed: seed}
		c, err := w.Run()
		if err != nil {
			t.Fatal(err)
		}
		if before := c.Seconds[trigger/time.Second-1].Attached; before != clients {
			t.Errorf("seed %d: %d of %d attached before the trigger", seed, before, clients)
		}
		return c
	}
	const hasty = "fixed(1s, random, timeout 2500ms)"
	for seed := range uint64(3) {
		storm := run(hasty, 0, seed)
		budget := run("fixed(1s, random, timeout 2500ms, budget 10%)", 0, seed)
		large := run(hasty, 2, seed)
		last := int(end/time.Second) - 1
		if a := storm.Seconds[last].Attached; a > 40 {
			t.Errorf("seed %d: %d came back by themselves", seed, a)
		}
		if a := budget.Seconds[last].Attached; a < 720 {
			t.Errorf("seed %d: only %d attached at the end with a budget", seed, a)
		}
		if a := large.Seconds[last].Attached; a != 800 || large.Shut != 0 {
			t.Errorf("seed %d: only %d attached at the end with two large nodes, %d shut out", seed, a, large.Shut)
		}
		s, b := storm.Over(trigger, end), budget.Over(trigger, end)
		if s.Amplification() < 50 || b.Amplification() > s.Amplification()/10 {
			t.Errorf("seed %d: A %.1f, with a budget %.1f", seed, s.Amplification(), b.Amplification())
		}
		t.Logf("seed %d: attached at the end %d, with a budget %d, with two large nodes %d", seed,
			storm.Seconds[last].Attached, budget.Seconds[last].Attached, large.Seconds[last].Attached)
	}
}

func TestWorldErrors(t *testing.T) {
	ok := func() replay.World {
		return replay.World{Demand: []replay.Wish{{}}, Policies: []replay.Policy{{}}, Nodes: server(1), Duration: time.Second}
	}
	for want, change := range map[string]func(*replay.World){
		"duration":                  func(w *replay.World) { w.Duration = 0 },
		"at least one node":         func(w *replay.World) { w.Nodes = nil },
		"no virtual time":           func(w *replay.World) { w.Mode = replay.PacketMode },
		"intent 0":                  func(w *replay.World) { w.Demand[0].Node = 1 },
		"the last one is node 1":    func(w *replay.World) { w.Script = []replay.Event{{Node: 1}} },
		"node 1: node: capacity -1": func(w *replay.World) { w.Nodes[0].Capacity = -1 },
		"factor 0":                  func(w *replay.World) { w.Policies[0].Family = replay.Exponential },
	} {
		w := ok()
		change(&w)
		if _, err := w.Run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestScript(t *testing.T) {
	text := "at 30s: node 2 down\n# why\nat 10s: all capacity 0.3;at 40s: node 2 up\nat 1m: node 1 delay 8"
	s, err := replay.ParseScript(text)
	if err != nil || fmt.Sprint(s) != "[at 10s: all capacity 0.3 at 30s: node 2 down at 40s: node 2 up at 1m: node 1 delay 8]" {
		t.Errorf("%v, %v", s, err)
	}
	for text, want := range map[string]string{
		"node 2 down":              "event 1, \"node 2 down\": want at TIME",
		"at 3s: all up\nat x: all": "event 2",
		"at 3s: node 0 up":         "from 1",
		"at 3s: all explode":       "\"explode\": want down",
		"at 3s: all capacity":      "capacity wants one number",
		"at 3s: all capacity NaN":  "\"NaN\"",
		"at 3s: all down now":      "\"now\" is left over",
		"at 3s: all":               "want node N or all",
	} {
		if _, err := replay.ParseScript(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzScript(f *testing.F) {
	f.Add("at 30s: node 2 down; at 3s: all capacity 0.3")
	f.Fuzz(func(t *testing.T, text string) {
		events, err := replay.ParseScript(text)
		if err != nil {
			return
		}
		for _, e := range events {
			if again, err := replay.ParseScript(e.String()); err != nil || len(again) != 1 || again[0] != e {
				t.Errorf("%v: read back as %v, %v", e, again, err)
			}
		}
	})
}

// sortWishes: trials are observed when they are over, a demand is in the order
// of its starts.
func sortWishes(w []replay.Wish) {
	slices.SortFunc(w, func(a, b replay.Wish) int { return cmp.Compare(a.At, b.At) })
}

func BenchmarkVirtual(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		w := replay.World{Demand: poisson(50, toState, 1), Policies: []replay.Policy{policy(b, "fixed(1s, limit 3, timeout 1s)")},
			Nodes: server(100), Script: script(b, cut), Duration: toState}
		if _, err := w.Run(); err != nil {
			b.Fatal(err)
		}
	}
}
