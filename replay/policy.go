package replay

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"squall/dissect/storm"
)

// Family is the shape of the waits between the attempts of an intent.
type Family uint8

// Families; storms.md section 3.3 has the ones that were seen in the field.
const (
	None           Family = iota // one attempt, never again
	Immediate                    // no wait
	Fixed                        // base
	Linear                       // base + step x (k-1), k the attempt that failed
	Quadratic                    // base + step x k²
	Exponential                  // base x factor^(k-1)
	ServerDirected               // what the node announced, else base
	Empirical                    // drawn from recorded waits
	numFamilies
)

var familyNames = [numFamilies]string{"none", "immediate", "fixed", "linear", "quadratic", "exponential", "server_directed", "empirical"}

func (f Family) String() string { return familyNames[f] }

// Jitter is how a wait w is spread.
type Jitter uint8

// Jitter kinds, storms.md section 3.3.
const (
	NoJitter     Jitter = iota
	TenPercent          // 0.9 w to 1.1 w
	Equal               // w/2 to w
	FiftyPercent        // w/2 to 1.5 w
	Full                // 0 to w
	Decorrelated        // base to three times the previous wait
	numJitters
)

var jitterNames = [numJitters]string{"none", "ten_percent", "equal", "fifty_percent", "full", "decorrelated"}

func (j Jitter) String() string { return jitterNames[j] }

// Order is how a client chooses the node of its next attempt.
type Order uint8

// Node orders.
const (
	Sticky     Order = iota // the same node again
	RoundRobin              // the next in its list
	Random                  // any node, the same one included
	numOrders
)

var orderNames = [numOrders]string{"sticky", "round_robin", "random"}

func (o Order) String() string { return orderNames[o] }

// Next is the index of the next node of n after last; u is uniform in [0,1).
func (o Order) Next(last, n int, u float64) int {
	switch {
	case n <= 1:
		return 0
	case o == RoundRobin:
		return (last + 1) % n
	case o == Random:
		return min(int(u*float64(n)), n-1)
	}
	return last % n
}

const (
	// budgetMost is how many unused retries a budget saves up.
	budgetMost = 10
	// budgetFloor: a client without a session may retry once in this time
	// though its budget is empty. Without it a client that tries for the first
	// time would have saved nothing and stay out for ever; Finagle's budgets
	// have a floor for the same reason (storms.md section 2.1).
	budgetFloor = time.Minute
	// waitMost bounds every wait: a day.
	waitMost = 24 * time.Hour
	// timeoutDefault is the client's patience where nothing is known, that of
	// attempt-rules.md.
	timeoutDefault = 10 * time.Second
)

// Policy is how a client goes on after a failed attempt. The zero value never
// retries and waits 10 s for an answer.
type Policy struct {
	Family Family
	Base   time.Duration
	Step   time.Duration // linear, quadratic
	Factor float64       // exponential
	Cap    time.Duration // longest wait before jitter, 0 = none
	Jitter Jitter
	// JitterBeforeCap spreads first and cuts then, so that the fleet meets
	// again at the cap: a bug seen in the field (storms.md section 2.1).
	JitterBeforeCap bool
	// ResetOnConnect forgets the back-off at every connect, accepted or not: a
	// bug seen in the field (storms.md section 1.2).
	ResetOnConnect bool
	Limit          int           // attempts of an intent, 0 = without end
	Timeout        time.Duration // wait for an answer, 0 = 10 s
	Order          Order
	// Budget is how many retries each first attempt pays for; 0 = no budget,
	// any number of retries. An empty budget skips the retry: the client waits
	// once more as after a failure (a skipped try counts against Limit), but
	// one retry a minute is free, each client at a phase of its own.
	Budget float64
	// Waits, sorted, are what Empirical draws from.
	Waits []time.Duration
}

// Patience is the client's timeout with its default.
func (p *Policy) Patience() time.Duration {
	if p.Timeout <= 0 {
		return timeoutDefault
	}
	return p.Timeout
}

// persists reports whether clients go on until they are accepted.
func (p *Policy) persists() bool { return p.Family != None && p.Limit == 0 }

// Retries reports whether an attempt may follow the k-th of an intent, k from 1.
func (p *Policy) Retries(k int) bool { return p.Family != None && (p.Limit <= 0 || k < p.Limit) }

// Wait is the pause after the k-th failed attempt since the last reset of the
// back-off, k from 1. prev is the pause before it (0 = none), announced what
// the node asked for (0 = nothing), u uniform in [0,1). Pure: the same
// arguments give the same wait.
func (p *Policy) Wait(k int, prev, announced time.Duration, u float64) time.Duration {
	w := float64(p.Base)
	switch p.Family {
	case None, Immediate:
		return 0
	case Linear:
		w += float64(p.Step) * float64(k-1)
	case Quadratic:
		w += float64(p.Step) * float64(k) * float64(k)
	case Exponential:
		w *= math.Pow(max(p.Factor, 1), float64(min(k-1, 200)))
	case ServerDirected:
		if announced > 0 {
			return min(announced, waitMost)
		}
	case Empirical:
		return min(quantile(p.Waits, u), waitMost)
	}
	if p.JitterBeforeCap {
		w = p.cut(p.spread(w, prev, u))
	} else if w = p.cut(w); p.Jitter == Decorrelated {
		w = p.cut(p.spread(w, prev, u))
	} else {
		w = p.spread(w, prev, u)
	}
	return time.Duration(min(max(w, 0), float64(waitMost)))
}

func (p *Policy) cut(w float64) float64 {
	if p.Cap > 0 {
		return min(w, float64(p.Cap))
	}
	return w
}

func (p *Policy) spread(w float64, prev time.Duration, u float64) float64 {
	switch p.Jitter {
	case TenPercent:
		return w * (0.9 + 0.2*u)
	case Equal:
		return w * (0.5 + 0.5*u)
	case FiftyPercent:
		return w * (0.5 + u)
	case Full:
		return w * u
	case Decorrelated:
		base := float64(p.Base)
		return base + u*(3*max(float64(prev), base)-base)
	}
	return w
}

// quantile interpolates in a sorted list; 0 for an empty one.
func quantile(sorted []time.Duration, u float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	at := min(max(u, 0), 1) * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + time.Duration((at-float64(i))*float64(sorted[i+1]-sorted[i]))
}

// Check reports what cannot be: waits below zero, factors below one.
func (p *Policy) Check() error {
	switch {
	case p.Family >= numFamilies || p.Jitter >= numJitters || p.Order >= numOrders:
		return fmt.Errorf("policy: unknown family, jitter or order")
	case p.Base < 0 || p.Step < 0 || p.Cap < 0 || p.Timeout < 0 || p.Limit < 0:
		return fmt.Errorf("policy %v: base, step, cap, timeout and limit are not below zero", p)
	case p.Base > waitMost || p.Step > waitMost || p.Cap > waitMost || p.Timeout > waitMost:
		return fmt.Errorf("policy %v: no wait is longer than %v", p, waitMost)
	case p.Family == Exponential && !(p.Factor >= 1 && p.Factor <= 100):
		return fmt.Errorf("policy %v: factor %v: want 1 to 100", p, p.Factor)
	case !(p.Budget >= 0 && p.Budget <= budgetMost):
		return fmt.Errorf("policy %v: budget %v: want 0 to %d retries for each first attempt", p, p.Budget, budgetMost)
	case p.Family == Empirical && (len(p.Waits) == 0 || !slices.IsSorted(p.Waits) || p.Waits[0] < 0):
		return fmt.Errorf("policy: empirical needs waits, sorted, not below zero")
	case p.Jitter == Decorrelated && p.Base == 0 && p.Family != Empirical:
		return fmt.Errorf("policy %v: decorrelated jitter needs a base above zero", p)
	}
	return nil
}

// String writes the policy as ParsePolicy reads it.
func (p Policy) String() string {
	if p.Family >= numFamilies || p.Jitter >= numJitters || p.Order >= numOrders {
		return "unknown"
	}
	var b strings.Builder
	b.WriteString(p.Family.String())
	n := 0
	item := func(format string, args ...any) {
		b.WriteString([]string{"(", ", "}[min(n, 1)])
		fmt.Fprintf(&b, format, args...)
		n++
	}
	switch p.Family {
	case None, Immediate:
	case Empirical:
		var w []string
		for _, d := range p.Waits {
			w = append(w, short(d))
		}
		item("%s", strings.Join(w, " "))
	default:
		item("%s", short(p.Base))
	}
	if p.Family == Linear || p.Family == Quadratic {
		item("+%s", short(p.Step))
	}
	if p.Family == Exponential {
		item("x%s", strconv.FormatFloat(p.Factor, 'g', -1, 64))
	}
	if p.Cap > 0 {
		item("cap %s", short(p.Cap))
	}
	if p.Jitter != NoJitter {
		item("%v", p.Jitter)
	}
	if p.JitterBeforeCap {
		item("jitter_before_cap")
	}
	if p.ResetOnConnect {
		item("reset_on_connect")
	}
	if p.Limit > 0 {
		item("limit %d", p.Limit)
	}
	if p.Timeout > 0 {
		item("timeout %s", short(p.Timeout))
	}
	if p.Order != Sticky {
		item("%v", p.Order)
	}
	if p.Budget > 0 {
		item("budget %s%%", strconv.FormatFloat(p.Budget*100, 'g', -1, 64))
	}
	if n > 0 {
		b.WriteByte(')')
	}
	return b.String()
}

// short is a duration without the zero parts that the library prints.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes the policy as a line.
func (p Policy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePolicy.
func (p *Policy) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePolicy(string(b))
	return err
}

// Override is a change to the policies of a plan.
type Override struct {
	Group  string // "" = every group
	policy Policy
	set    fields
}

type fields uint16

const (
	setFamily fields = 1 << iota
	setBase
	setStep
	setFactor
	setCap
	setJitter
	setBeforeCap
	setReset
	setLimit
	setTimeout
	setOrder
	setBudget
)

// Apply changes p. An override with a family replaces the waits as a whole
// (what it does not name gets its zero value) and keeps the client's timeout,
// limit, node order and budget unless it names them; one without a family
// changes only what it names.
func (o *Override) Apply(p *Policy) {
	n := &o.policy
	if o.set&setFamily != 0 {
		timeout, limit, order, budget := p.Timeout, p.Limit, p.Order, p.Budget
		*p = *n
		p.Timeout, p.Limit, p.Order, p.Budget = timeout, limit, order, budget
	}
	for f := setFamily; f <= setBudget; f <<= 1 {
		switch o.set & f {
		case setBase:
			p.Base = n.Base
		case setStep:
			p.Step = n.Step
		case setFactor:
			p.Factor = n.Factor
		case setCap:
			p.Cap = n.Cap
		case setJitter:
			p.Jitter = n.Jitter
		case setBeforeCap:
			p.JitterBeforeCap = true
		case setReset:
			p.ResetOnConnect = true
		case setLimit:
			p.Limit = n.Limit
		case setTimeout:
			p.Timeout = n.Timeout
		case setOrder:
			p.Order = n.Order
		case setBudget:
			p.Budget = n.Budget
		}
	}
}

// ParsePolicy reads what String writes: a family and its terms, in any order,
//
//	exponential(1s, x2, cap 60s, full, limit 10, timeout 5s, random, budget 10%)
//
// Errors name the column, from 1.
func ParsePolicy(text string) (Policy, error) {
	s := policyScanner{text: text}
	var o Override
	err := s.policy(&o)
	if err == nil && o.set&setFamily == 0 {
		err = s.fail(0, "want a family: %s", strings.Join(familyNames[:], ", "))
	}
	if err == nil {
		err = o.policy.Check()
	}
	if err != nil {
		return Policy{}, err
	}
	return o.policy, nil
}

// ParseOverride reads "policy: POLICY" or "policy GROUP: POLICY". Without a
// family only the terms that are named change: "policy: cap 300s, budget 10%".
func ParseOverride(text string) (Override, error) {
	s := policyScanner{text: text}
	var o Override
	s.space()
	colon := strings.IndexByte(text, ':')
	if colon < 0 || !strings.HasPrefix(text[s.at:], "policy") {
		return o, s.fail(s.at, "want policy: or policy GROUP:, then the terms")
	}
	o.Group = strings.TrimSpace(text[s.at+len("policy") : colon])
	s.at = colon + 1
	if err := s.policy(&o); err != nil {
		return Override{}, err
	}
	if o.set == 0 {
		return Override{}, s.fail(len(text), "the override changes nothing")
	}
	if o.set&setFamily != 0 {
		if err := o.policy.Check(); err != nil {
			return Override{}, err
		}
	}
	return o, nil
}

type policyScanner struct {
	text string
	at   int
}

func (s *policyScanner) fail(at int, format string, args ...any) error {
	return fmt.Errorf("policy: column %d: %s", at+1, fmt.Sprintf(format, args...))
}

func (s *policyScanner) space() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\t') {
		s.at++
	}
}

func (s *policyScanner) eat(c byte) bool {
	s.space()
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// word takes everything up to a blank or punctuation.
func (s *policyScanner) word() (w string, at int) {
	s.space()
	at = s.at
	for s.at < len(s.text) && !strings.ContainsRune(" \t,()", rune(s.text[s.at])) {
		s.at++
	}
	return s.text[at:s.at], at
}

func (s *policyScanner) policy(o *Override) error {
	w, at := s.word()
	closing := false
	if i := slices.Index(familyNames[:], w); i >= 0 {
		o.policy.Family, o.set = Family(i), setFamily
		if closing = s.eat('('); !closing {
			s.space()
			if s.at < len(s.text) {
				return s.fail(s.at, "want ( or the end after %s", w)
			}
			return nil
		}
	} else {
		s.at = at
	}
	for {
		if err := s.term(o); err != nil {
			return err
		}
		if !s.eat(',') {
			break
		}
	}
	if closing && !s.eat(')') {
		return s.fail(s.at, "want , or )")
	}
	s.space()
	if s.at < len(s.text) {
		return s.fail(s.at, "%q is left over", s.text[s.at:])
	}
	return nil
}

func (s *policyScanner) duration() (time.Duration, error) {
	w, at := s.word()
	d, err := time.ParseDuration(w)
	if err != nil || d < 0 || d > waitMost {
		return 0, s.fail(at, "%q: want a duration such as 500ms, 30s or 5m, at most 24h", w)
	}
	return d, nil
}

func (s *policyScanner) term(o *Override) (err error) {
	p := &o.policy
	w, at := s.word()
	twice := func(f fields) error {
		if o.set&f != 0 {
			return s.fail(at, "%q: said twice", w)
		}
		o.set |= f
		return nil
	}
	if i := slices.Index(jitterNames[:], w); i >= 0 {
		p.Jitter = Jitter(i)
		return twice(setJitter)
	}
	if i := slices.Index(orderNames[:], w); i >= 0 {
		p.Order = Order(i)
		return twice(setOrder)
	}
	switch {
	case w == "":
		return s.fail(at, "want a term: 1s, +1s, x2, cap 60s, full, limit 3, timeout 5s, random, budget 10%%")
	case w == "cap":
		if p.Cap, err = s.duration(); err == nil {
			err = twice(setCap)
		}
	case w == "timeout":
		if p.Timeout, err = s.duration(); err == nil {
			err = twice(setTimeout)
		}
	case w == "jitter_before_cap":
		p.JitterBeforeCap = true
		err = twice(setBeforeCap)
	case w == "reset_on_connect":
		p.ResetOnConnect = true
		err = twice(setReset)
	case w == "limit":
		n, nat := s.word()
		if p.Limit, err = strconv.Atoi(n); err != nil || p.Limit < 0 || p.Limit > 1<<30 {
			return s.fail(nat, "%q: want a number of attempts, 0 = without end", n)
		}
		err = twice(setLimit)
	case w == "budget":
		n, nat := s.word()
		v, perr := parsePercent(n)
		if perr != nil || v > budgetMost {
			return s.fail(nat, "%q: want a share of the first attempts such as 10%% or 0.1, 0 = no budget", n)
		}
		p.Budget = v
		err = twice(setBudget)
	case w[0] == 'x':
		if p.Factor, err = strconv.ParseFloat(w[1:], 64); err != nil || !(p.Factor >= 1 && p.Factor <= 100) {
			return s.fail(at, "%q: want a factor such as x2, from x1 to x100", w)
		}
		err = twice(setFactor)
	case w[0] == '+':
		s.at = at + 1
		if p.Step, err = s.duration(); err == nil {
			err = twice(setStep)
		}
	default:
		s.at = at
		if p.Family == Empirical {
			for {
				d, err := s.duration()
				if err != nil {
					return err
				}
				p.Waits = append(p.Waits, d)
				s.space()
				if s.at >= len(s.text) || s.text[s.at] < '0' || s.text[s.at] > '9' {
					break
				}
			}
			slices.Sort(p.Waits)
			return twice(setBase)
		}
		if w[0] < '0' || w[0] > '9' {
			return s.fail(at, "%q: want a duration, xFACTOR, +STEP, cap, limit, timeout, budget, %s, %s",
				w, strings.Join(jitterNames[:], ", "), strings.Join(orderNames[:], ", "))
		}
		if p.Base, err = s.duration(); err == nil {
			err = twice(setBase)
		}
	}
	return err
}

// parsePercent reads "10%" or "0.1"; never below zero.
func parsePercent(s string) (float64, error) {
	digits, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(digits, 64)
	if percent {
		v /= 100
	}
	if err == nil && !(v >= 0 && v <= math.MaxFloat64) {
		err = fmt.Errorf("%q is below zero or not a number", s)
	}
	return v, err
}

// PolicyOf is the policy that the analysis inferred for a group. ok is false
// where it could not: the caller falls back to the recorded waits.
func PolicyOf(s *storm.Policy) (p Policy, ok bool) {
	i := slices.Index(familyNames[:], s.Family)
	if i < 0 {
		return Policy{Timeout: time.Duration(s.Timeout), Limit: int(s.Limit), Order: orderOf(s.Order)}, false
	}
	p = Policy{Family: Family(i), Base: time.Duration(s.Base), Factor: s.Factor, Cap: time.Duration(s.Cap), Limit: int(s.Limit),
		Timeout: time.Duration(s.Timeout), Order: orderOf(s.Order)}
	if j := slices.Index(jitterNames[:], s.Jitter); j >= 0 {
		p.Jitter = Jitter(j)
	}
	for _, smell := range s.Smells {
		p.JitterBeforeCap = p.JitterBeforeCap || smell == "jitter_before_cap"
		p.ResetOnConnect = p.ResetOnConnect || smell == "backoff_reset"
	}
	p.Step = time.Duration(s.Step)
	if s.Holds {
		p.Timeout, p.Base = split(s)
	}
	if p.Family == Exponential {
		p.Factor = min(max(p.Factor, 1), 100)
	} else {
		p.Factor = 0
	}
	if p.Family != Linear && p.Family != Quadratic {
		p.Step = 0
	}
	return p, p.Check() == nil
}

// split parts the wait for an answer from the back-off where the capture shows only
// both together: their sum stays what was seen. A back-off in steps is taken to begin
// with one; of a constant one, half is the wait, or what the client's repeats prove,
// so that clients neither hammer a node that refuses nor wait for long at a silent one.
func split(s *storm.Policy) (timeout, base time.Duration) {
	wait := s.Base / 2
	if s.Step > 0 && s.Step < s.Base {
		wait = s.Base - s.Step
	}
	wait = min(max(wait, s.SendSpan), s.Base*9/10)
	return time.Duration(wait), time.Duration(s.Base - wait)
}

func orderOf(name string) Order {
	if i := slices.Index(orderNames[:], name); i >= 0 {
		return Order(i)
	}
	return Random
}
