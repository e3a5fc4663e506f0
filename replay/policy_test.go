package replay_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/dissect/storm"
	"squall/replay"
)

func TestPolicyWaits(t *testing.T) {
	ms := func(v ...int) (d []time.Duration) {
		for _, n := range v {
			d = append(d, time.Duration(n)*time.Millisecond)
		}
		return d
	}
	for _, tc := range []struct {
		policy string
		want   []time.Duration // after the 1st, 2nd, … failure, u = 0.5
	}{
		{"none", ms(0)},
		{"immediate", ms(0, 0)},
		{"fixed(1s)", ms(1000, 1000, 1000)},
		{"linear(100ms, +100ms)", ms(100, 200, 300)},
		{"linear(5s, +5s, cap 12s)", ms(5000, 10000, 12000)},
		{"quadratic(5s, +1s, cap 20s)", ms(6000, 9000, 14000, 20000)},
		{"exponential(1s, x2, cap 5s)", ms(1000, 2000, 4000, 5000, 5000)},
		{"exponential(1s, x2, cap 4s, full)", ms(500, 1000, 2000, 2000)},
		{"exponential(1s, x2, cap 4s, equal)", ms(750, 1500, 3000, 3000)},
		{"exponential(8s, x2, cap 4s, full, jitter_before_cap)", ms(4000, 4000)},
		{"fixed(1s, ten_percent)", ms(1000)},
		{"fixed(1s, fifty_percent)", ms(1000)},
		{"server_directed(2s)", ms(2000)},
		{"exponential(1s, x2, cap 10s, decorrelated)", ms(2000, 3500, 5750, 9125, 10000)},
		{"empirical(1s 2s 9s)", ms(2000, 2000)},
	} {
		p, err := replay.ParsePolicy(tc.policy)
		if err != nil {
			t.Fatal(err)
		}
		var prev time.Duration
		for k, want := range tc.want {
			got := p.Wait(k+1, prev, 0, 0.5)
			if got != want {
				t.Errorf("%s: wait %d is %v, want %v", tc.policy, k+1, got, want)
			}
			prev = got
		}
		if p.Family == replay.ServerDirected && p.Wait(1, 0, 30*time.Second, 0.5) != 30*time.Second {
			t.Error("the announced wait is not obeyed")
		}
	}
}

// TestJitterShape: the quantile ratios of storms.md section 3.3.
func TestJitterShape(t *testing.T) {
	for _, tc := range []struct {
		kind     string
		p10, p90 float64
	}{{"none", 1, 1}, {"ten_percent", 0.92, 1.08}, {"equal", 0.73, 1.26}, {"fifty_percent", 0.60, 1.40}, {"full", 0.20, 1.8}, {"decorrelated", 0.64, 1.4}} {
		p, err := replay.ParsePolicy("fixed(1s, " + tc.kind + ")")
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(3) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var w []float64
			for range 20000 {
				w = append(w, p.Wait(1, 0, 0, rng.Float64()).Seconds())
			}
			slices.Sort(w)
			p50 := w[len(w)/2]
			if a, b := w[len(w)/10]/p50, w[len(w)*9/10]/p50; math.Abs(a-tc.p10) > 0.04 || math.Abs(b-tc.p90) > 0.04 {
				t.Errorf("%s: p10/p50 %.2f, p90/p50 %.2f; want %.2f, %.2f", tc.kind, a, b, tc.p10, tc.p90)
			}
		}
	}
}

// TestPolicyRoundTrip: what is printed is read back as the same policy.
func TestPolicyRoundTrip(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 2))
		d := func() time.Duration { return time.Duration(1+rng.IntN(100000)) * time.Millisecond }
		p := replay.Policy{Family: replay.Family(rng.IntN(8)), Jitter: replay.Jitter(rng.IntN(6)), Order: replay.Order(rng.IntN(3)),
			Limit: rng.IntN(4), Budget: float64(rng.IntN(3)) / 8, JitterBeforeCap: rng.IntN(2) == 0, ResetOnConnect: rng.IntN(2) == 0}
		switch p.Family {
		case replay.None, replay.Immediate:
			p.Jitter %= 5
		case replay.Empirical:
			p.Waits = []time.Duration{d(), d(), d()}
			slices.Sort(p.Waits)
		case replay.Linear, replay.Quadratic:
			p.Base, p.Step = d(), d()
		case replay.Exponential:
			p.Base, p.Factor = d(), 1+float64(rng.IntN(16))/8
		default:
			p.Base = d()
		}
		if rng.IntN(2) == 0 {
			p.Cap, p.Timeout = d(), d()
		}
		got, err := replay.ParsePolicy(p.String())
		if err != nil || got.String() != p.String() || got.Wait(3, 5, 0, 0.7) != p.Wait(3, 5, 0, 0.7) || got.Patience() != p.Patience() {
			t.Fatalf("%v: read back as %v, %v", p, got, err)
		}
	}
}

func TestPolicyErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "column 1: want a term",
		"bogus(1s)":                     "column 1: \"bogus\"",
		"cap 3s":                        "column 1: want a family",
		"fixed(1s":                      "column 9: want , or )",
		"fixed(1s,)":                    "column 10: want a term",
		"fixed(1s) x":                   "column 11: \"x\" is left over",
		"fixed(1s, 2s)":                 "column 11: \"2s\": said twice",
		"exponential(1s, x0.5)":         "column 17: \"x0.5\": want a factor",
		"exponential(1s, xNaN)":         "column 17: \"xNaN\": want a factor",
		"exponential(1s)":               "factor 0: want 1 to 100",
		"fixed(1s, cap soon)":           "column 15: \"soon\": want a duration",
		"fixed(1s, cap -1s)":            "column 15: \"-1s\": want a duration",
		"fixed(1s, limit many)":         "column 17: \"many\"",
		"fixed(1s, budget -10%)":        "column 18: \"-10%\"",
		"fixed(1s, budget NaN)":         "column 18: \"NaN\"",
		"fixed 1s":                      "column 7: want ( or the end",
		"fixed(1s, full, full)":         "column 17: \"full\": said twice",
		"fixed(99h)":                    "column 7: \"99h\": want a duration",
		"empirical":                     "needs waits",
		"linear(0s, +1s, decorrelated)": "needs a base",
	} {
		if _, err := replay.ParsePolicy(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"fixed(1s)":                      "column 1: want policy:",
		"policy:":                        "column 8: want a term",
		"policy: exponential(1s, x2, cp": "column 29: \"cp\"",
	} {
		if _, err := replay.ParseOverride(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestOverride(t *testing.T) {
	was, err := replay.ParsePolicy("fixed(1s, limit 3, timeout 2s, random)")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ text, group, want string }{
		{"policy: exponential(1s, x2, cap 60s, full)", "", "exponential(1s, x2, cap 1m, full, limit 3, timeout 2s, random)"},
		{"policy: budget 10%", "", "fixed(1s, limit 3, timeout 2s, random, budget 10%)"},
		{" policy Skype/5.0.0.152: cap 300s, limit 0, sticky", "Skype/5.0.0.152", "fixed(1s, cap 5m, timeout 2s)"},
		{"policy: none", "", "none(limit 3, timeout 2s, random)"},
	} {
		o, err := replay.ParseOverride(tc.text)
		if err != nil {
			t.Fatal(err)
		}
		p := was
		o.Apply(&p)
		if o.Group != tc.group || p.String() != tc.want {
			t.Errorf("%s: group %q, %v; want %s", tc.text, o.Group, p, tc.want)
		}
	}
}

func TestPolicyOf(t *testing.T) {
	p, ok := replay.PolicyOf(&storm.Policy{Family: "exponential", Base: 1e9, Factor: 2, Cap: 32e9, Jitter: "full", Timeout: 1e9, Order: "sticky", Smells: []string{"backoff_reset"}})
	if !ok || p.String() != "exponential(1s, x2, cap 32s, full, reset_on_connect, timeout 1s)" {
		t.Errorf("%v, %v", p, ok)
	}
	if p, ok := replay.PolicyOf(&storm.Policy{Family: "linear", Base: 2e8, Step: 1e8, Factor: 0, Jitter: "undetermined", Order: "round_robin"}); !ok ||
		p.String() != "linear(200ms, +100ms, round_robin)" {
		t.Errorf("%v, %v", p, ok)
	}
	if p, ok := replay.PolicyOf(&storm.Policy{Family: "undetermined", Timeout: 3e9, Limit: 4, Order: "random"}); ok || p.Patience() != 3*time.Second || p.Limit != 4 || p.Order != replay.Random {
		t.Errorf("undetermined: %v, %v", p, ok)
	}
}

func TestWaitAllocatesNothing(t *testing.T) {
	p, _ := replay.ParsePolicy("exponential(1s, x2, cap 60s, full)")
	if n := testing.AllocsPerRun(100, func() { p.Wait(7, time.Second, 0, 0.3) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"policy: exponential(1s, x2, cap 60s, full)", "policy a: empirical(1s 2s)", "policy:none", "policy: budget 10%, +1s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := replay.ParseOverride(s)
		if err == nil {
			var p replay.Policy
			o.Apply(&p)
			p.Wait(1000, 0, 0, 0.99)
		}
		if p, err := replay.ParsePolicy(s); err == nil {
			if q, err := replay.ParsePolicy(p.String()); err != nil || q.String() != p.String() {
				t.Errorf("%q: %v is read back as %v, %v", s, p, q, err)
			}
			if w := p.Wait(1000, 0, 0, 0.99); w < 0 {
				t.Errorf("%q: wait %v", s, w)
			}
		}
	})
}
