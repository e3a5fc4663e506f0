package samples

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Policy is how a client retries: storms.md section 3.3 names the families.
type Policy struct {
	Family  string        // none, immediate, fixed, linear, quadratic, exponential, server
	Base    time.Duration // first wait
	Step    time.Duration // linear: per try; quadratic: per try squared
	Factor  float64       // exponential
	Cap     time.Duration // 0 = none
	Jitter  string        // none, full, equal, "10%", "50%", decorrelated
	Limit   int           // attempts of one intent, 0 = without end
	Timeout time.Duration // wait for an answer
	Order   string        // sticky, round_robin, random
	PerNode int           // attempts at a node before Order chooses another, 0 = 1
	Budget  float64       // retries allowed for each first attempt, 0 = no budget
	// Floor: a client whose budget is empty does not give up; it waits once
	// more as after a failure, and one retry in this time is free. 0 = gives up.
	Floor time.Duration
	// JitterBeforeCap and ResetOnConnect are two bugs seen in the field.
	JitterBeforeCap bool
	ResetOnConnect  bool
}

// wait is the pause after the k-th failed attempt of an intent, k from 1; last
// is the pause before it, 0 for none.
func (p *Policy) wait(k int, last, announced time.Duration, rng *rand.Rand) time.Duration {
	var w float64
	switch p.Family {
	case "immediate":
		return time.Millisecond
	case "fixed":
		w = float64(p.Base)
	case "linear":
		w = float64(p.Base) + float64(p.Step)*float64(k-1)
	case "quadratic":
		w = float64(p.Base) + float64(p.Step)*float64(k*k)
	case "exponential":
		w = float64(p.Base)
		for range min(k-1, 40) {
			w *= p.Factor
		}
	case "server":
		if announced > 0 {
			return announced
		}
		w = float64(p.Base)
	}
	if p.Jitter == "decorrelated" {
		w = float64(p.Base) + rng.Float64()*(3*float64(max(last, p.Base))-float64(p.Base))
	}
	if p.JitterBeforeCap {
		w = jittered(w, p.Jitter, rng)
	}
	if p.Cap > 0 {
		w = min(w, float64(p.Cap))
	}
	if !p.JitterBeforeCap {
		w = jittered(w, p.Jitter, rng)
	}
	return time.Duration(w)
}

func jittered(w float64, kind string, rng *rand.Rand) float64 {
	switch kind {
	case "full":
		return w * rng.Float64()
	case "equal":
		return w * (0.5 + 0.5*rng.Float64())
	case "50%":
		return w * (0.5 + rng.Float64())
	case "10%":
		return w * (0.9 + 0.2*rng.Float64())
	}
	return w
}

// String says the policy in one line.
func (p Policy) String() string {
	if p.Family == "none" {
		return "no retry"
	}
	s := p.Family
	switch p.Family {
	case "fixed":
		s += fmt.Sprintf("(%v", p.Base)
	case "linear", "quadratic":
		s += fmt.Sprintf("(%v +%v", p.Base, p.Step)
	case "exponential":
		s += fmt.Sprintf("(%v x%g", p.Base, p.Factor)
	default:
		s += "("
	}
	if p.Cap > 0 {
		s += fmt.Sprintf(", cap %v", p.Cap)
	}
	if p.Jitter != "" && p.Jitter != "none" {
		s += ", jitter " + p.Jitter
	}
	if p.Limit > 0 {
		s += fmt.Sprintf(", %d attempts", p.Limit)
	}
	return s + ")"
}
