package replay

import (
	"fmt"
	"math/rand/v2"
	"time"

	"squall/dissect"
)

// Mode is what a replay takes from the recording.
type Mode uint8

// Modes, design.md section 6.
const (
	IntentMode  Mode = iota // wishes open loop, attempts closed loop
	AttemptMode             // recorded attempts open loop
	PacketMode              // bytes
	numModes
)

var modeNames = [numModes]string{"intent", "attempt", "packet"}

func (m Mode) String() string { return modeNames[m] }

// ParseMode reads a mode's name.
func ParseMode(s string) (Mode, error) {
	i, err := named(s, modeNames[:], "mode")
	return Mode(i), err
}

// Wish is an intent of a demand (a single attempt in attempt mode).
type Wish struct {
	At     time.Duration // from the beginning
	Hold   time.Duration // of the session it leads to, 0 = until it is lost
	Client int32
	Node   int32 // asked first
	Group  int32 // index of the policy
	// Restart: the client came back by itself; a session it still has is given up.
	Restart bool
	// Gone is since when it had been away: it neither retries nor reattaches
	// from then on to At. 0 = it had not.
	Gone time.Duration
}

// World is a demand, its clients' policies and the nodes, in virtual time: no
// clock, no socket; the same world and seed give the same result.
type World struct {
	Mode     Mode
	Demand   []Wish // by At
	Policies []Policy
	Nodes    []NodeConfig
	Script   []Event
	Duration time.Duration
	Seed     uint64
	// RTT between clients and nodes, 0 = 1 ms.
	RTT time.Duration
	// Keepalive is how often a session shows life: a silent node is noticed
	// at the next one, plus the client's patience. 0 = 20 s.
	Keepalive time.Duration
	// Keepalives are those of the clients of each policy, 0 = Keepalive; nil = all 0.
	Keepalives []time.Duration
	// Reattach: a client whose session was lost tries again within this time,
	// spread evenly. 0 = 2 s.
	Reattach time.Duration
	// Joined is when clients learn of the last len(Joined) nodes, ascending;
	// the nodes before those are in every client's list from the beginning.
	Joined []time.Duration
	// Then replaces Policies, one for one, from Turn on; nil = nothing changes.
	Then []Policy
	Turn time.Duration
	// Throttle is how many attempts a second a limiter before each node lets
	// through from Turn on; the rest is told "later" at once, and the node
	// never sees it. 0 = no limiter.
	Throttle float64
	// Observe is called for each attempt once it is decided and its answer, if
	// any, has come or the run is over; nil = nobody looks.
	Observe func(Trial)
	// Decide is called at the moment a client knows how its attempt ended, in
	// the order of time: what comes later (Late) is not known yet. nil = nobody.
	Decide func(Trial)
}

// Trial is what became of an attempt of a World.
type Trial struct {
	Start, End time.Duration
	Client     int32
	Node       int32
	Group      int32
	Number     int32 // 1-based in its intent
	Outcome    dissect.Outcome
	Late       bool
	Reattach   bool // its intent began with a lost session
}

// Second is what happened in one second of a run.
type Second struct {
	Intents, Attempts, Retries int64 // begun
	Accepted, Failed           int64 // decided: the goodput, and the rest
	Answers, Late              int64 // yes of a node; late ones are not in Accepted
	Lost                       int64 // sessions
	Attached                   int64 // clients with a session at its end
}

func (s *Second) add(o *Second) {
	s.Intents += o.Intents
	s.Attempts += o.Attempts
	s.Retries += o.Retries
	s.Accepted += o.Accepted
	s.Failed += o.Failed
	s.Answers += o.Answers
	s.Late += o.Late
	s.Lost += o.Lost
	s.Attached = o.Attached
}

// Course is what happened in a run, second by second.
type Course struct {
	Seconds []Second
	Skipped int64 // wishes of clients that had a session or were trying already
	Open    int64 // intents still undecided at the end
	Shut    int64 // clients without a session at the end whose last intent failed or is open
	Falls   []Fall
}

// Fall is a node going down: under its load, or because the script says so.
type Fall struct {
	At     time.Duration
	Node   int32
	Script bool
}

// Over sums the seconds from (included) to (excluded).
func (c *Course) Over(from, to time.Duration) (sum Second) {
	for i := max(int(from/time.Second), 0); i < min(int(to/time.Second), len(c.Seconds)); i++ {
		sum.add(&c.Seconds[i])
	}
	return sum
}

// Amplification is attempts over intents of the sum; 0 without intents.
func (s *Second) Amplification() float64 { return over(s.Attempts, s.Intents) }

// LateRatio is late answers over answers; 0 without answers.
func (s *Second) LateRatio() float64 { return over(s.Late, s.Answers) }

func over(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// absences are the times in which clients were away.
type absences map[int32][][2]time.Duration

func (a *absences) add(client int32, from, to time.Duration) {
	if from == 0 || from >= to {
		return
	}
	if *a == nil {
		*a = absences{}
	}
	(*a)[client] = append((*a)[client], [2]time.Duration{from, to})
}

func (a absences) at(client int32, t time.Duration) bool {
	for _, x := range a[client] {
		if x[0] <= t && t < x[1] {
			return true
		}
	}
	return false
}

const (
	rttDefault       = time.Millisecond
	keepaliveDefault = 20 * time.Second
	reattachDefault  = 2 * time.Second
	// maxTrials ends a run that would never end: an immediate policy at a node
	// that refuses at once.
	maxTrials = 50_000_000
	// hurryLeast is the pause of a client that retries at once: no program is faster.
	hurryLeast = int64(time.Millisecond)
	// doorBurst: a limiter lets a tenth of a second pass at once.
	doorBurst = 10
)

type virtualClient struct {
	gen     int32 // of its session or intent: what was planned for an older one is void
	node    int32 // of its session or last attempt
	group   int32
	number  int32 // attempts of its intent, skipped ones included
	tries   int32 // since the back-off was reset
	state   uint8
	reattch bool
	failed  bool // its last intent did not succeed
	hold    time.Duration
	prev    time.Duration // last wait
	tokens  float64
	turned  bool  // its intent has the policies of Then
	since   int64 // when the present intent began, for the budget's floor
	spent   int64 // free retries taken in it
}

const (
	idle uint8 = iota
	trying
	attached
)

// trial is an attempt under way.
type trial struct {
	start  int64
	client int32
	node   int32
	group  int32
	number int32
	gen    int32
	refs   int8 // who still points to it: the client's clock, the node
	done   bool
	late   bool
	again  bool
	out    dissect.Outcome
	end    int64
}

type virtualKind uint8

const (
	evWish    virtualKind = iota // a: index of the demand
	evTry                        // a: client, b: gen
	evArrive                     // a: trial
	evServed                     // a: trial, b: node
	evAnswer                     // a: trial, b: outcome
	evGiveUp                     // a: trial
	evSession                    // a: client, b: gen; its time is over
	evLost                       // a: client, b: gen; the client knows that its session is lost
	evScript                     // a: index
	evJoin                       // clients learn of one more node
)

type virtualEvent struct {
	at   int64
	seq  int64
	a    int64
	b    int32
	kind virtualKind
}

func (e *virtualEvent) before(f *virtualEvent) bool {
	return e.at < f.at || e.at == f.at && e.seq < f.seq
}

type engine struct {
	w       *World
	rng     *rand.Rand
	now     int64
	end     int64
	seq     int64
	heap    []virtualEvent
	clients []virtualClient
	nodes   []*Node
	members []map[int32]bool // only for nodes that can fall: clients with a session there
	trials  []trial
	free    []int64
	made    int64
	course  *Course
	held    int64
	shed    func(Job)
	known   int      // nodes that clients know of
	doors   []bucket // the limiters before the nodes
	gone    absences
}

// Check reports what cannot be run.
func (w *World) Check() error {
	if w.Duration <= 0 || w.Duration > 30*24*time.Hour {
		return fmt.Errorf("world: duration %v: want above zero and at most 30 days", w.Duration)
	}
	if len(w.Nodes) == 0 || len(w.Policies) == 0 {
		return fmt.Errorf("world: want at least one node and one policy")
	}
	if w.Mode > AttemptMode {
		return fmt.Errorf("world: mode %v has no virtual time", w.Mode)
	}
	for i := range w.Nodes {
		if err := w.Nodes[i].Check(); err != nil {
			return fmt.Errorf("node %d: %w", i+1, err)
		}
	}
	for i := range w.Policies {
		if err := w.Policies[i].Check(); err != nil {
			return err
		}
	}
	for i := range w.Demand {
		d := &w.Demand[i]
		if d.Client < 0 || d.Node < 0 || int(d.Node) >= len(w.Nodes) || d.Group < 0 || int(d.Group) >= len(w.Policies) || d.At < 0 || d.Hold < 0 ||
			i > 0 && d.At < w.Demand[i-1].At {
			return fmt.Errorf("world: intent %d: client, node or group is out of range, or the time goes back", i)
		}
	}
	if len(w.Keepalives) > 0 && len(w.Keepalives) != len(w.Policies) {
		return fmt.Errorf("world: %d policies, %d keepalives", len(w.Policies), len(w.Keepalives))
	}
	if len(w.Then) > 0 && len(w.Then) != len(w.Policies) || len(w.Joined) >= len(w.Nodes) || w.Turn < 0 || !(w.Throttle >= 0 && w.Throttle <= 1e9) {
		return fmt.Errorf("world: %d policies become %d, %d of %d nodes join later, throttle %v", len(w.Policies), len(w.Then), len(w.Joined), len(w.Nodes), w.Throttle)
	}
	for i := range w.Then {
		if err := w.Then[i].Check(); err != nil {
			return err
		}
	}
	for i, at := range w.Joined {
		if at < 0 || i > 0 && at < w.Joined[i-1] {
			return fmt.Errorf("world: joins are not below zero, and ascend")
		}
	}
	for _, e := range w.Script {
		if e.Node >= len(w.Nodes) {
			return fmt.Errorf("script: %v: the last one is node %d", e, len(w.Nodes))
		}
	}
	return nil
}

// Run runs the world to its end.
func (w *World) Run() (*Course, error) {
	if err := w.Check(); err != nil {
		return nil, err
	}
	g := &engine{w: w, rng: rand.New(rand.NewPCG(w.Seed, 0x3013d)), end: int64(w.Duration),
		course: &Course{Seconds: make([]Second, (w.Duration+time.Second-1)/time.Second)}}
	g.shed = func(j Job) { g.drop(j.Ref) }
	most := int32(-1)
	for i := range w.Demand {
		most = max(most, w.Demand[i].Client)
	}
	g.clients = make([]virtualClient, most+1)
	for i := range w.Nodes {
		g.nodes = append(g.nodes, NewNode(w.Nodes[i], w.Seed*1000+uint64(i)))
		g.members = append(g.members, map[int32]bool{})
	}
	for i := range w.Demand {
		g.gone.add(w.Demand[i].Client, w.Demand[i].Gone, w.Demand[i].At)
	}
	g.known = len(w.Nodes) - len(w.Joined)
	g.doors = make([]bucket, len(w.Nodes))
	for _, at := range w.Joined {
		g.push(int64(at), evJoin, 0, 0)
	}
	for i := range w.Script {
		g.push(int64(w.Script[i].At), evScript, int64(i), 0)
	}
	if len(w.Demand) > 0 {
		g.push(int64(w.Demand[0].At), evWish, 0, 0)
	}
	second := 0
	for len(g.heap) > 0 && g.heap[0].at < g.end {
		e := g.pop()
		for ; int64(second+1)*1e9 <= e.at; second++ {
			g.course.Seconds[second].Attached = g.held
		}
		g.now = e.at
		g.step(&e)
		if g.made > maxTrials {
			return nil, fmt.Errorf("world: more than %d attempts by %v: the policies never wait", maxTrials, time.Duration(g.now))
		}
	}
	for ; second < len(g.course.Seconds); second++ {
		g.course.Seconds[second].Attached = g.held
	}
	for i := range g.trials {
		if t := &g.trials[i]; t.refs > 0 && w.Observe != nil {
			if !t.done {
				t.end = g.end
			}
			g.observe(t)
		}
	}
	for i := range g.clients {
		c := &g.clients[i]
		if c.state == trying {
			g.course.Open++
		}
		if c.state == trying || c.state == idle && c.failed {
			g.course.Shut++
		}
	}
	return g.course, nil
}

func (g *engine) push(at int64, kind virtualKind, a int64, b int32) {
	g.seq++
	h := append(g.heap, virtualEvent{max(at, g.now), g.seq, a, b, kind})
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !h[i].before(&h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	g.heap = h
}

func (g *engine) pop() virtualEvent {
	h := g.heap
	top := h[0]
	last := len(h) - 1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			break
		}
		if c+1 < last && h[c+1].before(&h[c]) {
			c++
		}
		if !h[c].before(&h[i]) {
			break
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
	g.heap = h
	return top
}

func (g *engine) second() *Second { return &g.course.Seconds[g.now/1e9] }

func (g *engine) rtt() int64 {
	if g.w.RTT > 0 {
		return int64(g.w.RTT)
	}
	return int64(rttDefault)
}

func (g *engine) step(e *virtualEvent) {
	switch e.kind {
	case evWish:
		if i := e.a + 1; i < int64(len(g.w.Demand)) {
			g.push(int64(g.w.Demand[i].At), evWish, i, 0)
		}
		g.wish(&g.w.Demand[e.a])
	case evTry:
		if c := &g.clients[e.a]; c.gen == e.b && c.state == trying {
			g.again(int32(e.a))
		}
	case evArrive:
		g.arrive(e.a)
	case evServed:
		n := g.nodes[e.b]
		n.Done()
		if n.State(g.now) == Up {
			g.second().Answers++
			g.push(g.now+g.rtt()/2, evAnswer, e.a, int32(dissect.OutcomeAccepted))
		} else {
			g.drop(e.a)
		}
		g.serve(e.b)
	case evAnswer:
		g.answer(e.a, dissect.Outcome(e.b))
	case evGiveUp:
		t := &g.trials[e.a]
		if !t.done {
			g.decide(t, dissect.OutcomeTimeout, 0)
		}
		g.drop(e.a)
	case evSession:
		if c := &g.clients[e.a]; c.gen == e.b && c.state == attached {
			g.leave(int32(e.a))
		}
	case evLost:
		g.lost(int32(e.a), e.b)
	case evScript:
		g.script(&g.w.Script[e.a])
	case evJoin:
		g.known++
	}
}

// policy is that of a group now.
func (g *engine) policy(group int32) *Policy {
	if len(g.w.Then) > 0 && g.now >= int64(g.w.Turn) {
		return &g.w.Then[group]
	}
	return &g.w.Policies[group]
}

func (g *engine) wish(d *Wish) {
	c := &g.clients[d.Client]
	if g.w.Mode == AttemptMode {
		g.second().Intents++
		c.group, c.node, c.number, c.hold = d.Group, d.Node, 1, d.Hold
		g.try(d.Client)
		return
	}
	if d.Restart && c.state == attached {
		g.leave(d.Client)
	}
	if c.state != idle {
		g.course.Skipped++
		return
	}
	c.group, c.node, c.hold, c.reattch = d.Group, d.Node, d.Hold, false
	g.begin(d.Client)
}

// begin opens an intent of the client and makes its first attempt.
func (g *engine) begin(id int32) {
	c := &g.clients[id]
	p := g.policy(c.group)
	c.gen++
	c.state, c.number, c.prev, c.failed = trying, 1, 0, false
	if !p.ResetOnConnect {
		c.tries = 0
	}
	c.since, c.spent, c.turned = g.now, 0, g.now >= int64(g.w.Turn)
	if p.Budget > 0 { // the free retry of each client has its own phase, lest budgets make a herd
		c.since -= g.rng.Int64N(int64(budgetFloor))
	}
	c.tokens = min(c.tokens+p.Budget, budgetMost)
	g.second().Intents++
	g.try(id)
}

func (g *engine) try(id int32) {
	c := &g.clients[id]
	s := g.second()
	s.Attempts++
	if c.number > 1 {
		s.Retries++
	}
	c.tries++
	g.made++
	t := trial{start: g.now, client: id, node: c.node, group: c.group, number: c.number, gen: c.gen, refs: 2, again: c.reattch}
	var at int64
	if n := len(g.free); n > 0 {
		at = g.free[n-1]
		g.free = g.free[:n-1]
		g.trials[at] = t
	} else {
		at = int64(len(g.trials))
		g.trials = append(g.trials, t)
	}
	g.push(g.now+g.rtt()/2, evArrive, at, 0)
	g.push(g.now+int64(g.policy(c.group).Patience()), evGiveUp, at, 0)
}

// drop forgets one reference to a trial; the last one hands it out.
func (g *engine) drop(at int64) {
	t := &g.trials[at]
	t.refs--
	if t.refs > 0 {
		return
	}
	g.observe(t)
	g.free = append(g.free, at)
}

func (g *engine) observe(t *trial) {
	if g.w.Observe != nil {
		g.w.Observe(t.shown())
	}
}

func (t *trial) shown() Trial {
	return Trial{Start: time.Duration(t.start), End: time.Duration(t.end), Client: t.client, Node: t.node, Group: t.group,
		Number: t.number, Outcome: t.out, Late: t.late, Reattach: t.again}
}

func (g *engine) arrive(at int64) {
	t := &g.trials[at]
	n := g.nodes[t.node]
	back := dissect.OutcomeUnknown
	if n.State(g.now) == Up && !g.enters(t.node) {
		g.push(g.now+g.rtt()/2, evAnswer, at, int32(dissect.OutcomeThrottled))
		return
	}
	switch n.Offer(g.now, Job{Ref: at, Client: int64(t.client)}) {
	case Queued:
		g.serve(t.node)
		return
	case Refused:
		back = dissect.OutcomeRefused
	case Throttled:
		back = dissect.OutcomeThrottled
	case ResetBack:
		back = dissect.OutcomeDropped
	case Fell:
		g.fall(t.node, false, false)
		back = dissect.OutcomeRefused
	case Crashed:
		g.fall(t.node, true, false)
	}
	if back == dissect.OutcomeUnknown {
		g.drop(at)
		return
	}
	g.push(g.now+g.rtt()/2, evAnswer, at, int32(back))
}

// enters asks the limiter before a node, a token bucket.
func (g *engine) enters(node int32) bool {
	if g.w.Throttle == 0 || g.now < int64(g.w.Turn) {
		return true
	}
	return g.doors[node].take(g.now, g.w.Throttle, max(g.w.Throttle/doorBurst, 1))
}

func (g *engine) serve(node int32) {
	n := g.nodes[node]
	for {
		j, takes, ok := n.Next(g.now, g.shed)
		if !ok {
			return
		}
		g.push(g.now+takes, evServed, j.Ref, node)
	}
}

func (g *engine) answer(at int64, out dissect.Outcome) {
	t := &g.trials[at]
	if t.done {
		if out == dissect.OutcomeAccepted {
			t.late = true
			g.second().Late++
		}
	} else {
		g.decide(t, out, g.nodes[t.node].RetryAfter())
	}
	g.drop(at)
}

// decide is the client learning what became of its attempt.
func (g *engine) decide(t *trial, out dissect.Outcome, announced time.Duration) {
	t.done, t.out, t.end = true, out, g.now
	s := g.second()
	if out == dissect.OutcomeAccepted {
		s.Accepted++
	} else {
		s.Failed++
	}
	if g.w.Decide != nil {
		g.w.Decide(t.shown())
	}
	c := &g.clients[t.client]
	if g.w.Mode == AttemptMode || c.gen != t.gen || c.state != trying {
		return
	}
	p := g.policy(c.group)
	if out == dissect.OutcomeAccepted || out == dissect.OutcomeDropped && p.ResetOnConnect {
		c.tries = 0
	}
	if out == dissect.OutcomeAccepted {
		c.state, c.node, c.failed = attached, t.node, false
		g.held++
		g.members[t.node][t.client] = true
		if c.hold > 0 {
			g.push(g.now+int64(c.hold), evSession, int64(t.client), c.gen)
		}
		return
	}
	if out != dissect.OutcomeThrottled {
		announced = 0
	}
	g.plan(t.client, announced)
}

// plan decides when the client goes on, if at all.
func (g *engine) plan(id int32, announced time.Duration) {
	c := &g.clients[id]
	p := g.policy(c.group)
	if !p.Retries(int(c.number)) {
		c.state, c.failed = idle, true
		return
	}
	c.prev = p.Wait(max(int(c.tries), 1), c.prev, announced, g.rng.Float64())
	g.push(g.now+max(int64(c.prev), hurryLeast), evTry, int64(id), c.gen)
}

// again is a retry that is due; a budget may skip it.
func (g *engine) again(id int32) {
	c := &g.clients[id]
	if g.gone.at(id, time.Duration(g.now)) {
		c.state = idle
		return
	}
	p := g.policy(c.group)
	c.number++
	if p.Budget > 0 {
		if !c.turned && len(g.w.Then) > 0 && g.now >= int64(g.w.Turn) { // the budget came in the middle of the intent
			c.since, c.spent, c.tokens, c.turned = g.now-g.rng.Int64N(int64(budgetFloor)), 0, 0, true
		}
		switch free := (g.now - c.since) / int64(budgetFloor); {
		case c.tokens >= 1:
			c.tokens--
		case c.spent < free:
			c.spent = free
		default:
			c.tries++
			g.plan(id, 0)
			return
		}
	}
	c.node = int32(p.Order.Next(int(c.node), g.known, g.rng.Float64()))
	g.try(id)
}

func (g *engine) leave(id int32) {
	c := &g.clients[id]
	delete(g.members[c.node], id)
	c.state = idle
	c.gen++
	g.held--
}

// fall ends the sessions of a node. The clients of a closing node know at
// once, those of a silent one when a keepalive stays unanswered.
func (g *engine) fall(node int32, silent, script bool) {
	g.course.Falls = append(g.course.Falls, Fall{time.Duration(g.now), node, script})
	list := make([]int32, 0, len(g.members[node]))
	for id := range g.clients { // in the clients' order: a map has none
		if len(list) == cap(list) {
			break
		}
		if g.members[node][int32(id)] {
			list = append(list, int32(id))
		}
	}
	for _, id := range list {
		c := &g.clients[id]
		var notice int64
		if silent {
			beat := int64(g.w.Keepalive)
			if len(g.w.Keepalives) > 0 && g.w.Keepalives[c.group] > 0 {
				beat = int64(g.w.Keepalives[c.group])
			}
			if beat == 0 {
				beat = int64(keepaliveDefault)
			}
			notice = g.rng.Int64N(beat) + int64(g.policy(c.group).Patience())
		}
		g.push(g.now+notice, evLost, int64(id), c.gen)
	}
}

// lost is the client learning that its session is no more.
func (g *engine) lost(id, gen int32) {
	c := &g.clients[id]
	switch {
	case c.gen != gen:
	case c.state == attached: // learn, then wait a moment
		g.leave(id)
		g.second().Lost++
		if g.w.Mode == AttemptMode {
			return
		}
		spread := int64(g.w.Reattach)
		if spread == 0 {
			spread = int64(reattachDefault)
		}
		g.push(g.now+g.rng.Int64N(spread), evLost, int64(id), c.gen)
	case c.state == idle && !g.gone.at(id, time.Duration(g.now)): // the moment is over
		p := g.policy(c.group)
		c.node = int32(p.Order.Next(int(c.node), g.known, g.rng.Float64()))
		c.reattch = true
		g.begin(id)
	}
}

func (g *engine) script(e *Event) {
	for i := range g.nodes {
		if e.Node >= 0 && e.Node != i {
			continue
		}
		switch n := g.nodes[i]; e.Do {
		case Down:
			n.Set(Silent, g.now)
			g.fall(int32(i), true, true)
		case Close:
			n.Set(Closed, g.now)
			g.fall(int32(i), false, true)
		case Raise:
			n.Set(Up, g.now)
		case Scale:
			n.Scale(e.Value)
		case Delay:
			n.Delay(time.Duration(e.Value * float64(time.Second)))
		}
	}
}
