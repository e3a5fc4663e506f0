package replay

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"squall/dissect"
)

// model is a fit together with the policies that go with it.
type model struct {
	fit      *fitted
	policies []Policy
	// given: what happens after this moment is taken from the whole capture.
	split int64
}

// world builds one run: the same case and seed give the same world.
func (c *Case) world(m *model, w *WhatIf, seed uint64) *World {
	rng := rand.New(rand.NewPCG(c.opt.Seed*1_000_003+seed, 0x3a7f))
	o := &World{Duration: time.Duration(c.end) + c.horizon(), Seed: mix(c.opt.Seed, seed), RTT: m.fit.rtt, Reattach: m.fit.reattach, Keepalive: m.fit.keepalive,
		Policies: slices.Clone(m.policies), Throttle: w.Throttle}
	if m.split > 0 {
		o.Duration = time.Duration(c.end)
	}
	if c.opt.Now {
		o.Turn = time.Duration(c.end)
	}
	// The uncertainty of the fit is part of a run's chance.
	same := rng.NormFloat64()
	limit := rng.Float64()
	place := make([]int32, len(c.order)) // of a node of the plan in the world
	ordinary := 0
	for _, i := range c.order {
		if c.whole.nodes[i].joined == 0 {
			ordinary++
		}
	}
	early := 0 // nodes that are added to everybody's list from the beginning
	if !c.opt.Now {
		early = w.Nodes
	}
	for k, i := range c.order {
		x := &m.fit.nodes[i]
		if joined := c.whole.nodes[i].joined; joined > m.split && m.split > 0 {
			x = &c.whole.nodes[i] // the first half knows nothing of it
		}
		at := int32(k)
		if k >= ordinary {
			at += int32(early)
		}
		place[i] = at
		if k == ordinary {
			for range early {
				o.Nodes = append(o.Nodes, c.extra(m, w))
			}
		}
		cfg := NodeConfig{Queue: x.queue, Overload: x.overload, RetryAfter: x.after, Recovery: x.recovery}
		if m.split == 0 { // the hindcast is given that nobody came back
			cfg.Recovery = x.returns(o.Seed)
		}
		if x.capacity > 0 {
			cfg.Capacity = x.capacity * max(1+x.relative*(same+rng.NormFloat64())/math.Sqrt2, 0.2)
		}
		if x.protect > 0 {
			p := x.protectLo + limit*(x.protect-x.protectLo)
			if x.silent {
				cfg.CrashAt = p
			} else {
				cfg.ProtectAt = p
			}
		}
		o.Nodes = append(o.Nodes, cfg)
		if joined := c.whole.nodes[i].joined; joined > 0 {
			o.Joined = append(o.Joined, time.Duration(joined))
		}
		c.events(o, m, i, int(at), cfg.Recovery)
	}
	for len(o.Nodes) < len(c.order)+early {
		o.Nodes = append(o.Nodes, c.extra(m, w))
	}
	if c.opt.Now {
		for range w.Nodes {
			o.Nodes = append(o.Nodes, c.extra(m, w))
			o.Joined = append(o.Joined, time.Duration(c.end))
		}
	}
	if w.Restart {
		o.Script = append(o.Script, Event{At: o.Turn, Node: -1, Do: Raise})
	}
	slices.SortStableFunc(o.Script, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	c.demand(o, w, place, ordinary, rng)
	c.clientsOf(o, w)
	return o
}

// events are what happened to a node whatever its load was. Where changes begin
// at the end of the capture, falls under load up to then are among them, so that
// they meet the nodes as they were; recovery is how long one lasts that had not
// ended.
func (c *Case) events(o *World, m *model, i int32, at int, recovery time.Duration) {
	add := func(ns int64, do Action, value float64) {
		if ns > 0 && ns < int64(o.Duration) {
			o.Script = append(o.Script, Event{At: time.Duration(ns), Node: at, Do: do, Value: value})
		}
	}
	early, late := &m.fit.nodes[i], &c.whole.nodes[i]
	from := func(x *nodeFit, after, before int64) {
		for _, s := range x.spells {
			if s.byLoad && o.Turn == 0 || s.from < after || s.from >= before {
				continue
			}
			if s.closed {
				add(s.from, Close, 0)
			} else {
				add(s.from, Down, 0)
			}
			to := s.to
			if to == 0 && s.byLoad {
				to = s.from + int64(min(recovery, waitMost))
			}
			if to == 0 && x == early && m.split > 0 { // its end lies in the second half
				for _, l := range late.spells {
					if l.from <= s.from+int64(2*time.Second) && l.to > s.from {
						to = l.to
					}
				}
			}
			add(to, Raise, 0)
		}
		for _, s := range x.slow {
			if s.from < after || s.from >= before {
				continue
			}
			add(s.from, Scale, s.factor)
			add(s.to, Scale, 1)
		}
	}
	if m.split == 0 {
		from(early, 0, math.MaxInt64)
		return
	}
	from(early, 0, m.split)
	from(late, m.split, math.MaxInt64)
}

// extra is a node more: the median of the ordinary ones, so many times as large.
func (c *Case) extra(m *model, w *WhatIf) NodeConfig {
	capacity, protect, x := c.typical(m)
	size := cmp.Or(w.Size, 1)
	n := NodeConfig{Capacity: capacity * size, Overload: x.overload, RetryAfter: x.after, Recovery: x.recovery, Queue: int(float64(x.queue) * size)}
	if protect > 0 {
		if x.silent {
			n.CrashAt = protect * size
		} else {
			n.ProtectAt = protect * size
		}
	}
	return n
}

func (c *Case) typical(m *model) (capacity, protect float64, like *nodeFit) {
	var caps, limits []float64
	like = &m.fit.nodes[c.order[0]]
	for _, i := range c.order {
		if x := &m.fit.nodes[i]; x.joined == 0 {
			if x.capacity > 0 {
				caps = append(caps, x.capacity)
			}
			if x.protect > 0 {
				limits = append(limits, (x.protect+x.protectLo)/2)
				like = x
			}
		}
	}
	middle := func(v []float64) float64 {
		if len(v) == 0 {
			return 0
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return middle(caps), middle(limits), like
}

// demand gives the world its wishes.
func (c *Case) demand(o *World, w *WhatIf, place []int32, ordinary int, rng *rand.Rand) {
	share := float64(w.Nodes) / float64(ordinary+w.Nodes)
	added := int32(ordinary) // index of the first added node
	if c.opt.Now {
		added = int32(len(o.Nodes) - w.Nodes)
	}
	home := func(client int32, node int32, at time.Duration) int32 {
		if w.Nodes == 0 || at < o.Turn || int(node) >= ordinary {
			return node
		}
		if h := float64(mix(c.opt.Seed, uint64(client), 77)>>11) / (1 << 53); h < share {
			return added + int32(h/share*float64(w.Nodes))
		}
		return node
	}
	hold := func(was time.Duration, accepted bool) time.Duration {
		if was > 0 || accepted || c.open == 0 || rng.Float64() >= c.open {
			return was
		}
		return c.holds[rng.IntN(len(c.holds))]
	}
	for i := range c.plan.Items {
		it := &c.plan.Items[i]
		node := place[it.Node]
		if it.Restart && int(node) < ordinary && o.Policies[it.Group].Order == Random { // it asks whom it likes, as after a loss
			node = int32(rng.IntN(ordinary))
		}
		o.Demand = append(o.Demand, Wish{At: it.At, Client: it.Client, Node: home(it.Client, node, it.At), Group: it.Group, Restart: it.Restart, Gone: it.Gone,
			Hold: hold(it.Hold, it.Outcome == dissect.OutcomeAccepted.String())})
	}
	if c.rate == 0 {
		return
	}
	next := int32(c.plan.Clients)
	for at := float64(c.end); ; {
		at += rng.ExpFloat64() * 1e9 / c.rate
		if at >= float64(o.Duration) {
			return
		}
		like := &c.plan.Items[rng.IntN(len(c.plan.Items))]
		o.Demand = append(o.Demand, Wish{At: time.Duration(at), Client: next, Node: home(next, place[like.Node], time.Duration(at)), Group: like.Group, Hold: hold(0, false)})
		next++
	}
}

// clientsOf gives the clients the policies that the change wants.
func (c *Case) clientsOf(o *World, w *WhatIf) {
	if len(w.Overrides) == 0 {
		return
	}
	n := len(o.Policies)
	changed := slices.Clone(o.Policies)
	for i := range changed {
		for _, v := range w.Overrides {
			if v.Group == "" || v.Group == c.plan.Groups[i].Name {
				v.Apply(&changed[i])
			}
		}
	}
	if w.Upgrade > 0 && w.Upgrade < 1 {
		for i := range o.Demand {
			d := &o.Demand[i]
			if float64(mix(c.opt.Seed, uint64(d.Client), 55)>>11)/(1<<53) < w.Upgrade {
				d.Group += int32(n)
			}
		}
		if o.Turn > 0 {
			o.Then = append(slices.Clone(o.Policies), changed...)
			o.Policies = append(o.Policies, o.Policies...)
			return
		}
		o.Policies = append(o.Policies, changed...)
		return
	}
	if o.Turn > 0 {
		o.Then = changed
		return
	}
	o.Policies = changed
}

// play runs a world and says what became of it.
func (c *Case) play(o *World) (Fate, error) {
	most := int32(-1)
	for i := range o.Demand {
		most = max(most, o.Demand[i].Client)
	}
	g := &course{curve: make([]tally, o.Duration/time.Second+1), first: make([]int64, most+1), in: make([]int64, most+1), from: int64(o.Turn)}
	o.Decide = func(t Trial) { g.decide(int64(t.Start), int64(t.End), t.Client, t.Number, t.Outcome) }
	r, err := o.Run()
	if err != nil {
		return Fate{}, err
	}
	g.finish(int64(o.Duration))
	fallen := map[int32]bool{}
	for _, f := range r.Falls {
		if int64(f.At) >= c.onset-int64(10*time.Second) {
			fallen[f.Node] = true
		}
	}
	return c.fate(g, int64(o.Duration), len(fallen)), nil
}
