package storm_test

import (
	"fmt"
	"math"
	"strings"
	"time"

	"squall/dissect/storm"
	"squall/samples"
)

// saidOf is what the notes or reasons of a scenario must say.
var saidOf = map[string]string{
	"n6": "NAT", "n7": "the tap missed about 5 %", "n9": "no packet from", "n10": "no packet from", "n11": "only one direction",
	"n12": "no attempt to attach was seen", "n13": "no calm stretch before", "n14": "duplicate packets",
}

// explainedBy is the hypothesis that must rank first.
var explainedBy = map[string]string{
	"filter": "network", "rollout": "rollout", "skype-2010": "bug_in_version", "s2": "overload", "s6": "mass_restart", "s7": "login_overload",
	"n1": "demand", "n2": "attack", "n8": "network", "app-flood": "attack", "refresh-surge": "rollout",
}

// errors of a verdict against the truth, absolute.
type errors struct {
	outage     *samples.Failures // that the verdict is about; nil = none
	onset, end time.Duration
	rise       time.Duration // of the verdict, from onset to peak
	noEnd      bool          // an end that is not seen
	a          float64       // of A, relative
	runs       int
}

func (e *errors) take(o errors) {
	if o.outage == nil {
		return
	}
	e.runs++
	e.onset, e.end, e.a = max(e.onset, o.onset), max(e.end, o.end), max(e.a, o.a)
}

func (e errors) String() string {
	if e.runs == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f s, %.1f s, %.1f %%", e.onset.Seconds(), e.end.Seconds(), 100*e.a)
}

// measured compares the verdict with the true outage that begins next to it.
func measured(sc *samples.Scenario, r *storm.Report, truth *samples.Truth) (m errors) {
	f := &r.Verdict
	if f.Class != storm.RetryStorm && f.Class != storm.PartialOutage {
		return m
	}
	quiet, from := 20*time.Second, time.Duration(0)
	switch sc.Policy.Family {
	case "quadratic":
		quiet = 5 * time.Minute
	case "server":
		quiet = 3 * sc.RetryAfter / 2
	}
	if sc.Tap.GapAt == 0 {
		from = sc.Tap.GapFor
	}
	outages := truth.Outages(quiet, from)
	onset, end := time.Duration(f.Onset-samples.Epoch), time.Duration(f.End-samples.Epoch)
	if sc.Tap.StepBy != 0 && onset > sc.Tap.StepAt {
		onset -= sc.Tap.StepBy
	}
	if sc.Tap.StepBy != 0 && end > sc.Tap.StepAt {
		end -= sc.Tap.StepBy
	}
	for i := range outages {
		if c := &outages[i]; c.Failed >= 10 && (m.outage == nil || near(onset, c.First) < near(onset, m.outage.First)) {
			m.outage = c
		}
	}
	o := m.outage
	if o == nil {
		return m
	}
	m.onset, m.rise = near(onset, o.First), time.Duration(f.Rise)
	if f.End != 0 {
		m.end = near(end, o.Last)
	} else {
		m.noEnd = o.Last < sc.Duration-max(10*time.Second, quiet-20*time.Second)
	}
	m.a = math.Abs(f.Amplification()/o.Amplification() - 1)
	return m
}

// check holds a report to the truth of its simulation and returns what is
// wrong, one line each. Times are ns from the beginning.
func check(sc *samples.Scenario, r *storm.Report, truth *samples.Truth) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	f := &r.Verdict
	if f.Class == storm.RetryStorm || f.Class == storm.PartialOutage {
		m := measured(sc, r, truth)
		o := m.outage
		if o == nil {
			bad("%v though nothing failed", f.Class)
			return wrong
		}
		slack := 2 * time.Second
		if f.Shape == "gradual" {
			slack = max(slack, m.rise/10)
		}
		if m.onset > slack {
			bad("onset %.1f s, the first failure is at %.1f s", (time.Duration(f.Onset - samples.Epoch)).Seconds(), o.First.Seconds())
		}
		if m.noEnd {
			bad("no end, the last failure is at %.1f s", o.Last.Seconds())
		} else if m.end > 5*time.Second {
			bad("end %.1f s, the last failure is at %.1f s", time.Duration(f.End-samples.Epoch).Seconds(), o.Last.Seconds())
		}
		if m.a > 0.05 {
			bad("A %.2f, true %.2f", f.Amplification(), o.Amplification())
		}
	}
	for name, words := range saidOf {
		if said := strings.Join(append(r.Notes, f.Reasons...), "\n"); name == sc.Name && !strings.Contains(said, words) {
			bad("nowhere is said %q", words)
		}
	}
	if want := explainedBy[sc.Name]; want != "" && (len(r.Hypotheses) == 0 || r.Hypotheses[0].Name != want) {
		bad("explained by %v, it is %s", r.Hypotheses, want)
	}
	if len(sc.Versions) > 0 && f.Class == storm.RetryStorm {
		for _, v := range sc.Versions {
			for _, row := range r.Versions {
				want := ""
				if v.Crash > 0 {
					want = "crash"
				} else if v.Policy != nil {
					want = "retries"
				}
				if row.Version == v.Name && row.AssociatedWith != want {
					bad("version %s: associated with %q", v.Name, row.AssociatedWith)
				}
			}
		}
	} else {
		for _, v := range r.Versions {
			if v.Associated {
				bad("version %s associated with %q, there is none", v.Version, v.AssociatedWith)
			}
		}
	}
	if f.Class == storm.RetryStorm {
		group := "all"
		for _, v := range sc.Versions {
			if v.Policy != nil { // who carries the storm is held to its own
				c := *sc
				group, sc, c.Policy = v.Name, &c, *v.Policy
				break
			}
		}
		wrong = append(wrong, policyWrong(sc, r, group)...)
	}
	return append(wrong, fallsWrong(sc, r, truth)...)
}

func near(a, b time.Duration) time.Duration { return (a - b).Abs() }

func within(got int64, want time.Duration, share float64) bool {
	return math.Abs(float64(got)-float64(want)) <= share*float64(want)
}

// policyWrong compares the policy of a group of clients with the one they had.
func policyWrong(sc *samples.Scenario, r *storm.Report, group string) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	var p *storm.Policy
	for i := range r.Policies {
		if r.Policies[i].Group == group && r.Policies[i].Service == r.Verdict.Service {
			p = &r.Policies[i]
		}
	}
	if p == nil {
		return []string{"no policy"}
	}
	want := &sc.Policy
	family := map[string]string{"server": "server_directed"}[want.Family]
	if family == "" {
		family = want.Family
	}
	if p.Family != family {
		bad("policy %s, it is %s", p.Family, want)
		return wrong
	}
	if sc.Tap.Side != "" {
		return wrong // the time of a failure is not to be seen
	}
	base := want.Base
	if p.Holds { // and says so
		base += want.Timeout
	}
	if family != "server_directed" && !within(p.Base, base, 0.2) {
		bad("base %v, it is %v", time.Duration(p.Base), base)
	}
	if family == "exponential" && math.Abs(p.Factor/want.Factor-1) > 0.2 {
		bad("factor %.2f, it is %.2f", p.Factor, want.Factor)
	}
	if (family == "linear" || family == "quadratic") && !within(p.Step, want.Step, 0.2) {
		bad("step %v, it is %v", time.Duration(p.Step), want.Step)
	}
	if p.Cap != 0 && (want.Cap == 0 || !within(p.Cap, want.Cap, 0.2)) {
		bad("cap %v, it is %v", time.Duration(p.Cap), want.Cap)
	}
	if want.Limit != 0 && int(p.Limit) != want.Limit {
		bad("limit %d, it is %d", p.Limit, want.Limit)
	}
	jitter := map[string]string{"": "none", "10%": "ten_percent"}[want.Jitter]
	if jitter == "" {
		jitter = want.Jitter
	}
	if p.Gaps >= 200 && p.Jitter != jitter {
		bad("jitter %s, it is %s", p.Jitter, jitter)
	}
	smells := strings.Join(p.Smells, " ")
	if want.ResetOnConnect != strings.Contains(smells, "backoff_reset") {
		bad("smells %q, back-off reset is %v", smells, want.ResetOnConnect)
	}
	if want.JitterBeforeCap != strings.Contains(smells, "jitter_before_cap") {
		bad("smells %q, jitter before cap is %v", smells, want.JitterBeforeCap)
	}
	return wrong
}

// fallsWrong compares order and generations of the nodes that fell.
func fallsWrong(sc *samples.Scenario, r *storm.Report, truth *samples.Truth) (wrong []string) {
	falls := truth.Falls()
	if len(falls) == 0 || r.Verdict.Class != storm.RetryStorm {
		return nil
	}
	type seen struct {
		order, gen int32
	}
	got := map[string]seen{}
	for _, n := range r.Nodes {
		for _, p := range n.Periods {
			if p.Kind != storm.Overloaded && n.Generation >= 0 {
				got[n.At.String()] = seen{n.Order, n.Generation}
				break
			}
		}
	}
	last, before := int32(0), time.Duration(0)
	for _, f := range falls {
		g, ok := got[f.Node]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s fell at %.2f s: not seen", f.Node, f.At.Seconds()))
			continue
		}
		// Where clients go at random, nodes fall within moments of each other and
		// the generations after the first run together.
		if sc.Policy.Order == "random" {
			g.gen, f.Generation = min(g.gen, 1), min(f.Generation, 1)
		}
		if int(g.gen) != f.Generation {
			wrong = append(wrong, fmt.Sprintf("%s fell in generation %d, found %d", f.Node, f.Generation, g.gen))
		}
		if f.At > before && g.order < last {
			wrong = append(wrong, fmt.Sprintf("%s fell out of order", f.Node))
		}
		if f.At > before {
			last, before = g.order, f.At
		}
		last = max(last, g.order)
	}
	return wrong
}
