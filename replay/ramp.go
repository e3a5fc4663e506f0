package replay

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"squall/dissect"
)

// RampOptions are the course of a ramp: wishes per second from From up to To in
// geometric steps, and down again.
type RampOptions struct {
	From, To float64       // per second of the run
	Step     time.Duration // how long each rate lasts, 0 = 10 s
	Steps    int           // on the way up, 0 = 10
}

const (
	rampStep  = 10 * time.Second
	rampSteps = 10
	// rampHold: sessions are short, so that the sockets of a machine last.
	rampHold = time.Second
	// rampClients bounds the clients, who wish in turn.
	rampClients = 16000
	// collapsed: fewer wishes than this share were served while most attempts
	// were retries, or were from the next rates on, retries being later than
	// what they repeat; healed: at least this share was.
	rampCollapsed = 0.5
	rampHealed    = 0.9
)

// RampOf reads FROM:TO, wishes per second.
func RampOf(text string) (o RampOptions, err error) {
	from, to, ok := strings.Cut(text, ":")
	if ok {
		_, err = fmt.Sscan(from, &o.From)
		if err == nil {
			_, err = fmt.Sscan(to, &o.To)
		}
	}
	if !ok || err != nil || !(o.From > 0 && o.To > o.From && o.To <= 1e6) {
		return o, fmt.Errorf("ramp %q: want FROM:TO in intents per second, such as 5:200", text)
	}
	return o, nil
}

// rates of the steps, up and down.
func (o RampOptions) rates() (list []float64) {
	n := o.Steps
	if n <= 0 {
		n = rampSteps
	}
	grow := math.Pow(o.To/o.From, 1/float64(max(n-1, 1)))
	for i := range n {
		list = append(list, o.From*math.Pow(grow, float64(i)))
	}
	for i := n - 2; i >= 0; i-- {
		list = append(list, list[i])
	}
	return list
}

func (o RampOptions) step() time.Duration {
	if o.Step <= 0 {
		return rampStep
	}
	return o.Step
}

// Ramp is the plan's demand at the rates of a ramp: the same nodes, groups and
// policies in the recorded shares, evenly drawn arrivals, clients in turn. The
// runner's speed must be 1.
func (p *Plan) Ramp(o RampOptions) (*Plan, error) {
	if p.Mode != IntentMode.String() {
		return nil, fmt.Errorf("ramp: the plan is of mode %s; what retries do is seen with intents only", p.Mode)
	}
	r := &Plan{Header: p.Header}
	r.Coverage, r.Begin = Coverage{}, p.Begin
	rates := o.rates()
	total := 0.0
	for _, rate := range rates {
		total += rate * o.step().Seconds()
	}
	if total > itemsMost {
		return nil, fmt.Errorf("ramp: %.0f intents are more than %d", total, itemsMost)
	}
	r.Clients = min(int(total)+1, rampClients)
	draw := uint64(0)
	uniform := func() float64 { draw++; return float64(mix(p.Seed, 8, draw)>>11) / (1 << 53) }
	for i, rate := range rates {
		begin := time.Duration(i) * o.step()
		for at := 0.0; ; {
			if at += -math.Log(1-uniform()) / rate; at >= o.step().Seconds() {
				break
			}
			like := &p.Items[int(uniform()*float64(len(p.Items)))]
			r.Items = append(r.Items, Item{At: begin + time.Duration(at*1e9), Client: int32(len(r.Items) % r.Clients), Node: like.Node, Group: like.Group, Hold: rampHold})
		}
	}
	r.Duration = time.Duration(len(rates)) * o.step()
	return r, r.Check()
}

// RampStep is what happened at one rate.
type RampStep struct {
	Down     bool    `json:"down"`            // on the way down
	Offered  float64 `json:"wishes_per_s"`    // that began in the step
	Attempts float64 `json:"attempts_per_s"`  //
	Accepted float64 `json:"accepted_per_s"`  //
	Retries  float64 `json:"retry_share"`     // of the attempts
	Failed   float64 `json:"failure_ratio"`   // of those decided
	Late     float64 `json:"late_ratio"`      // of the answers
	P50, P99 int64   `json:"-"`               // ns from due to accepted
	P50ms    float64 `json:"accepted_p50_ms"` //
	P99ms    float64 `json:"accepted_p99_ms"` //
	Collapse bool    `json:"collapsed"`       //
}

// Knee is what a ramp found out about its targets. Rates are per second.
type Knee struct {
	Steps    []RampStep `json:"steps"`
	Capacity float64    `json:"capacity_per_s"`      // best rate of acceptances
	Tipping  float64    `json:"tipping_point_per_s"` // lowest rate of wishes at which retries made it collapse, 0 = it did not
	Recovery float64    `json:"recovery_per_s"`      // rate of wishes at which it served again on the way down, 0 = it did not
	Recorded float64    `json:"recorded_peak_per_s"` // wishes of the recording, in its busiest 10 s
	Margin   float64    `json:"margin"`              // tipping point over that; 0 = none found
	// Unclaimed says why the numbers are none of the targets' capacity, "" =
	// they are.
	Unclaimed string `json:"unclaimed,omitempty"`
}

// NewKnee reads the rows of a run of recorded.Ramp(o).
func NewKnee(recorded *Plan, o RampOptions, rows []Result) *Knee {
	k := &Knee{Recorded: recorded.busiest()}
	rates := o.rates()
	type sums struct {
		attempts, retries, accepted, failed, late, answers, wishes float64
		latency                                                    []int64
		served                                                     float64 // acceptances at that time, whoever wished for them
	}
	steps := make([]sums, len(rates))
	for i := range rows {
		r := &rows[i]
		n := int(time.Duration(r.Due) / o.step())
		if n < 0 || n >= len(steps) || r.Relation == dissect.RelationRefresh || r.Outcome == dissect.OutcomeUnknown {
			continue
		}
		s := &steps[n]
		s.attempts++
		if r.Relation.Retries() {
			s.retries++
		} else {
			s.wishes++
		}
		switch {
		case r.Outcome == dissect.OutcomeAccepted:
			s.accepted++
			s.answers++
			s.latency = append(s.latency, r.Answered-r.Due)
			if at := int(time.Duration(r.Answered) / o.step()); at >= 0 && at < len(steps) {
				steps[at].served++
			}
		case r.Outcome.Failed():
			s.failed++
		}
		if r.Late {
			s.late++
			s.answers++
		}
	}
	over := func(a, b float64) float64 {
		if b == 0 {
			return 0
		}
		return a / b
	}
	seconds := o.step().Seconds()
	for i := range steps {
		s := &steps[i]
		slices.Sort(s.latency)
		t := RampStep{Down: i > (len(steps)-1)/2, Offered: s.wishes / seconds, Attempts: s.attempts / seconds, Accepted: s.served / seconds,
			Retries: over(s.retries, s.attempts), Failed: over(s.failed, s.failed+s.accepted), Late: over(s.late, s.answers)}
		if n := len(s.latency); n > 0 {
			t.P50, t.P99 = s.latency[n/2], s.latency[n*99/100]
			t.P50ms, t.P99ms = float64(t.P50)/1e6, float64(t.P99)/1e6
		}
		k.Capacity = max(k.Capacity, t.Accepted)
		k.Steps = append(k.Steps, t)
	}
	ahead := false // the next rate collapses
	for i := len(steps) - 1; i >= 0; i-- {
		s, t := &steps[i], &k.Steps[i]
		t.Collapse = s.accepted < rampCollapsed*s.wishes && (ahead || t.Retries >= 0.5)
		ahead = t.Collapse
	}
	for i := range steps {
		s, t := &steps[i], &k.Steps[i]
		switch {
		case t.Collapse && k.Tipping == 0 && !t.Down:
			k.Tipping = t.Offered
		case t.Down && k.Tipping > 0 && k.Recovery == 0 && s.accepted >= rampHealed*s.wishes && t.Failed < 0.5:
			k.Recovery = t.Offered
		}
	}
	if k.Recorded > 0 && k.Tipping > 0 {
		k.Margin = k.Tipping / k.Recorded
	}
	seen := map[string]bool{}
	for i := range recorded.Nodes {
		if d, ok := recorded.Nodes[i].Speaks(); ok && !seen[d.Name()] {
			seen[d.Name()] = true
			if why := unclaimed(d); why != "" {
				k.Unclaimed = why
			}
		}
	}
	return k
}

// unclaimed says why nothing about the capacity of a real node of the dialect
// can be learnt from its attach as squall makes it; "" = something can.
func unclaimed(d Dialect) string {
	switch x := d.(type) {
	case nebula, plain:
		return d.Name() + ": " + d.Work()
	case recorded:
		if x.reads == nil {
			return d.Name() + ": " + d.Work()
		}
	}
	return ""
}

// busiest is the highest rate of wishes in any 10 s of a plan, per second.
func (p *Plan) busiest() float64 {
	n := map[time.Duration]int{}
	most := 0
	for i := range p.Items {
		w := p.Items[i].At / (10 * time.Second)
		n[w]++
		most = max(most, n[w])
	}
	return float64(most) / 10
}

// Text is the knee in words, its steps as a table.
func (k *Knee) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "         intents/s  attempts/s  accepted/s  retry share  failed  late  p50 ms  p99 ms\n")
	for _, s := range k.Steps {
		way := "up"
		if s.Down {
			way = "down"
		}
		mark := ""
		if s.Collapse {
			mark = "  collapsed"
		}
		fmt.Fprintf(&b, "  %-6s %9.1f %11.1f %11.1f %12.2f %7.2f %5.2f %7.1f %7.1f%s\n", way, s.Offered, s.Attempts, s.Accepted, s.Retries, s.Failed, s.Late, s.P50ms, s.P99ms, mark)
	}
	if k.Unclaimed != "" {
		fmt.Fprintf(&b, "knee        no capacity and no knee are claimed of a real node: %s\n", k.Unclaimed)
	}
	fmt.Fprintf(&b, "capacity    %.1f accepted/s at best\n", k.Capacity)
	switch {
	case k.Tipping == 0:
		fmt.Fprintf(&b, "tipping     not reached: retries did not make it collapse at any of these rates\n")
	default:
		fmt.Fprintf(&b, "tipping     %.1f intents/s: from there on retries keep it collapsed\n", k.Tipping)
		if k.Recovery == 0 {
			fmt.Fprintf(&b, "recovery    none, down to %.1f intents/s\n", k.Steps[len(k.Steps)-1].Offered)
		} else {
			fmt.Fprintf(&b, "recovery    at %.1f intents/s on the way down\n", k.Recovery)
		}
	}
	if k.Recorded > 0 {
		fmt.Fprintf(&b, "recorded    %.1f intents/s in the busiest 10 s", k.Recorded)
		if k.Margin > 0 {
			fmt.Fprintf(&b, ", the tipping point is %.1f times that", k.Margin)
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}
