package samples

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"squall/capture"
)

// Scenario is an outage (or a healthy hour) to simulate. The zero value of a
// field means what its comment says; Scenarios has the named ones.
type Scenario struct {
	Name, About string
	// Expect names the classes of verdict of which one is right.
	Expect []string
	// Protocol is "tcp" and "udp" (plain request and answer), "gnutella", "sip",
	// "n2n" (version 3) or "skype" (its ladder of transports).
	Protocol string
	Nodes    int
	Clients  int
	Duration time.Duration
	// Intents is the rate at which idle clients wish to attach, per second,
	// over all clients; 0 = everybody attaches once, spread over Spread.
	Intents float64
	Spread  time.Duration
	// Hold is the mean time of a session; 0 = until the end.
	Hold time.Duration
	// Mu is what one node serves, per second; 0 = without limit.
	Mu    float64
	Queue int // requests that wait at a node, 0 = 2000
	// Overload is what a node does when its queue is full: drop, refuse,
	// throttle or reset (accept, then RST).
	Overload string
	// RetryAfter is what a throttling node announces.
	RetryAfter time.Duration
	// ProtectAt: a node under more requests per second than this closes all
	// sessions and refuses for Recovery; 0 = never.
	ProtectAt float64
	// Admit is how many requests a second a limiter before each node lets
	// through; the rest is told "busy" at once. 0 = no limiter.
	Admit    float64
	Recovery time.Duration
	Policy   Policy
	Versions []Version
	RTT      time.Duration // mean round trip between tap and client, 0 = 40 ms
	PathLoss float64       // packets lost between client and tap, each way
	Dials    int           // simultaneous dials of one wish, 0 = 1
	Script   []Step
	// Flood sends spoofed SYNs, Scan probes of few sources, at a rate per second from Trigger on.
	Flood, Scan float64
	Trigger     time.Duration
	Refresh     time.Duration // SIP: period of the re-registration, 0 = none
	Challenge   bool          // SIP: every REGISTER is challenged with 401 first
	NAT         bool          // all clients share one address
	Broken      bool          // one client asks a closed port once a second for ever
	Growth      float64       // intents rate grows linearly to this multiple by the end, 0 = constant
	Burst       float64       // intents rate is multiplied by this from Trigger on, 0 = constant
	Tap         Tap
	Keepalive   time.Duration // TCP sessions show life this often, 0 = 20 s; Skype 60 s
	// Firewalled is the share of Skype clients that only get out to port 443, or
	// every third of them to 80; other rungs of theirs never reach the tap.
	Firewalled float64
	// Background is what else there is on the wire, packets per second: bulk
	// data of connections from before the capture, ARP, mDNS, pings. None of
	// it is an attempt.
	Background float64
	// Monitors are hosts that check the health of every node at a fixed interval.
	Monitors int
	// Pieces is in how many files the capture is written, 0 = one.
	Pieces int
}

// Version is a client version and its share of the clients.
type Version struct {
	Name  string
	Share float64
	Crash float64 // share of its members that Step "crash" takes down
	// Policy is how its members retry, nil = as all.
	Policy *Policy `json:",omitempty"`
}

// Step is something that happens to the nodes or clients.
type Step struct {
	At time.Duration
	// Do is one of: down (silent), close (RST to everybody, ports closed), up,
	// slow (Factor times the capacity), full (capacity again), restart (all
	// clients drop their sessions within Within), crash (of the versions'
	// Crash shares), add (Factor new nodes, each worth mega ordinary ones), admit
	// (a limiter of Factor requests a second before each node), budget (of the
	// clients: Factor retries for each first attempt, one a minute free), shut
	// (something before them lets in nobody new, sessions live on), open (it does
	// again), refresh (from now on every Within), bots (Factor of them, for Within,
	// are served, close, and come again at once), rollout (within Within all
	// clients get the last of the versions).
	Do     string
	Nodes  []int
	Factor float64
	Within time.Duration
}

// Tap is what the capture point does to the packets.
type Tap struct {
	Loss      float64       // share of packets not captured
	LossAt    time.Duration // from when on, 0 = always
	LossRise  time.Duration // how long the loss takes from nothing to Loss, 0 = at once
	Duplicate bool          // every packet twice, 20 us apart
	Snaplen   int
	Side      string // "", "client" or "server": only packets sent by that side
	GapAt     time.Duration
	GapFor    time.Duration
	StepAt    time.Duration // clock step
	StepBy    time.Duration
}

// TrueAttempt is what a client of the simulation really did.
type TrueAttempt struct {
	Client   int           `json:"client"`
	Node     int           `json:"node"`
	Source   string        `json:"source"`
	Target   string        `json:"target"`
	Start    time.Duration `json:"start_ns"` // at the tap, from the beginning
	Outcome  string        `json:"outcome"`
	Relation string        `json:"relation"`
	Intent   int           `json:"intent"` // from 1; 0: a refresh or a health check
	Number   int           `json:"number"`
	Late     bool          `json:"late"`
	Sends    int           `json:"transmissions"`
	Version  string        `json:"version,omitempty"`
}

// NodeEvent is a change of a node's state.
type NodeEvent struct {
	At   time.Duration `json:"at_ns"`
	Node string        `json:"node"`
	What string        `json:"what"`
}

// Truth is the ground truth of one run.
type Truth struct {
	Scenario string        `json:"scenario"`
	Seed     uint64        `json:"seed"`
	Verdict  []string      `json:"verdict,omitempty"` // the classes of which one is right; none where parameters were changed
	Policy   string        `json:"policy"`
	Given    *Scenario     `json:"parameters"`
	Attempts []TrueAttempt `json:"attempts"`
	Intents  int           `json:"intents"`
	Events   []NodeEvent   `json:"node_events"`
	Packets  int64         `json:"packets"`
}

// Epoch is the time at which every simulation starts: 22 December 2010, the
// day of the Skype outage, 16:00 UTC.
var Epoch = time.Date(2010, 12, 22, 16, 0, 0, 0, time.UTC).UnixNano()

type event struct {
	at  int64
	seq int64
	fn  func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	old := *a
	e := old[len(old)-1]
	old[len(old)-1].fn = nil
	*a = old[:len(old)-1]
	return e
}

type simNode struct {
	addr     netip.AddrPort
	mu       float64
	factor   float64 // of mu
	state    string  // up, down, closed
	shut     bool    // for who is new
	queue    []func(at int64)
	serving  bool
	recent   []int64 // request times of the last second
	tokens   float64 // of the limiter
	filled   int64
	sessions map[*simClient]func()
}

type simClient struct {
	n        int
	addr     netip.Addr
	port     uint16
	ts0      uint32
	rtt      int64
	version  string
	attached *simNode
	busy     bool
	gone     int64 // crashed until then
	tokens   float64
	since    int64 // the free retries of a budget's floor count from here
	free     int64 // and so many were taken
	tries    int   // since the last reset of the back-off
	last     int   // node used last
	lost     bool
	session  int           // generation of the session
	bye      func()        // of the session
	rung     int           // of Skype's ladder, next
	paused   time.Duration // before its latest attempt
	lowest   int           // rung that gets out of its network
	probes   uint16        // id of its last probe
}

type world struct {
	sc     Scenario
	rng    *rand.Rand
	now    int64
	seq    int64
	agenda agenda
	f      *frames
	emit   func(*capture.Packet)
	frame  int64
	nodes  []*simNode
	live   []*simClient
	turn   int // whose wish is next
	truth  *Truth
	end    int64
	other  *background
	will   [numWills][]float64 // what people did of their own, in order
	told   bool                // will is what they do, not what they did
}

// Kinds of what people do whatever the nodes do.
const (
	willCome  = iota // the time to the next wish, in means
	willCrash        // who crashes, when, and for how long
	numWills
)

// Simulate runs the scenario and hands its packets, in the order of the tap's
// clock, to emit; the packet is valid during the call, its bytes for ever.
// The same scenario and seed give the same bytes.
func Simulate(sc Scenario, seed uint64, emit func(*capture.Packet)) (*Truth, error) {
	if err := sc.Check(); err != nil {
		return nil, err
	}
	given := sc
	w := newWorld(sc, seed, emit)
	w.truth.Given = &given
	w.setup()
	w.run()
	return w.truth, nil
}

// Again is what would have become of the outage that Simulate makes of was and
// seed, had it been sc: the same clients wish and crash at the same times, and
// up to from all is alike, if sc is. Each of the chances decides the rest anew.
func Again(was, sc Scenario, from time.Duration, seed uint64, chances ...uint64) (list []*Truth, err error) {
	for _, x := range []*Scenario{&was, &sc} {
		if err := x.Check(); err != nil {
			return nil, err
		}
	}
	quiet := func(*capture.Packet) {}
	first := newWorld(was, seed, quiet)
	first.setup()
	first.run()
	for _, chance := range chances {
		w := newWorld(sc, seed, quiet)
		w.will, w.told = first.will, true
		w.setup()
		w.after(int64(from), func() { w.rng = rand.New(rand.NewPCG(chance, 0xa6a1)) })
		w.run()
		list = append(list, w.truth)
	}
	return list, nil
}

func newWorld(sc Scenario, seed uint64, emit func(*capture.Packet)) *world {
	return &world{sc: sc, rng: rand.New(rand.NewPCG(seed, 0x5c0a11)), f: newFrames(), emit: emit,
		truth: &Truth{Scenario: sc.Name, Seed: seed, Verdict: sc.Expect, Policy: sc.Policy.String(), Events: []NodeEvent{}}, end: int64(sc.Duration)}
}

// wills draws from what people do of their own.
func (w *world) wills(kind int, draw func() float64) float64 {
	x := draw()
	switch list := w.will[kind]; {
	case !w.told:
		w.will[kind] = append(list, x)
	case len(list) > 0: // else it is later than was seen
		x, w.will[kind] = list[0], list[1:]
	}
	return x
}

// run goes on to the end.
func (w *world) run() {
	for len(w.agenda) > 0 {
		e := heap.Pop(&w.agenda).(event)
		if e.at > w.end {
			break
		}
		w.now = e.at
		e.fn()
	}
}

// Check refuses what cannot be simulated.
func (sc *Scenario) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("scenario %s: "+format, append([]any{sc.Name}, args...)...)
	}
	switch sc.Protocol {
	case "tcp", "udp", "gnutella", "sip", "n2n", "skype":
	default:
		return bad("protocol %q: want tcp, udp, gnutella, sip, n2n or skype", sc.Protocol)
	}
	switch {
	case sc.Clients < 1 || sc.Clients > 1<<22:
		return bad("%d clients: want 1 to %d", sc.Clients, 1<<22)
	case sc.Nodes < 1 || sc.Nodes > 250:
		return bad("%d nodes: want 1 to 250", sc.Nodes)
	case sc.Duration <= 0:
		return bad("duration %v: want more than none", sc.Duration)
	case sc.Tap.Snaplen != 0 && sc.Tap.Snaplen < 54:
		return bad("snaplen %d: want 54 or more, the headers", sc.Tap.Snaplen)
	case sc.Pieces < 0 || sc.Pieces > 10000:
		return bad("%d pieces: want 1 to 10000", sc.Pieces)
	case sc.Dials > 1 && sc.Protocol != "tcp":
		return bad("%d dials at once: only of tcp", sc.Dials)
	case sc.Monitors < 0 || sc.Monitors > 200:
		return bad("%d monitors: want 0 to 200", sc.Monitors)
	case sc.Monitors > 0 && sc.Protocol != "tcp" && sc.Protocol != "gnutella":
		return bad("monitors connect: only of tcp and gnutella")
	case sc.Dials < 0 || sc.Dials > 16:
		return bad("%d dials at once: want 0 to 16", sc.Dials)
	case sc.Queue < 0:
		return bad("a queue of %d: want 0 or more", sc.Queue)
	case sc.Challenge && sc.Protocol != "sip":
		return bad("only SIP challenges")
	case sc.Tap.Side != "" && sc.Tap.Side != "client" && sc.Tap.Side != "server":
		return bad("tap side %q: want client or server", sc.Tap.Side)
	}
	for _, r := range []struct {
		name  string
		value float64
		most  float64
	}{
		{"rate of intents", sc.Intents, 1e6}, {"capacity", sc.Mu, 1e9}, {"limiter", sc.Admit, 1e9}, {"rate of protection", sc.ProtectAt, 1e9},
		{"background", sc.Background, 1e6}, {"flood", sc.Flood, 1e6}, {"scan", sc.Scan, 1e6}, {"growth", sc.Growth, 1e4}, {"burst", sc.Burst, 1e4},
		{"path loss", sc.PathLoss, 1}, {"share of the firewalled", sc.Firewalled, 1}, {"tap loss", sc.Tap.Loss, 1},
	} {
		if !(r.value >= 0 && r.value <= r.most) { // NaN, too
			return bad("%s of %g: want 0 to %g", r.name, r.value, r.most)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"trigger", sc.Trigger}, {"spread", sc.Spread}, {"hold", sc.Hold}, {"round trip", sc.RTT}, {"recovery", sc.Recovery}, {"retry-after", sc.RetryAfter},
		{"refresh", sc.Refresh}, {"keepalive", sc.Keepalive}, {"begin of the tap's loss", sc.Tap.LossAt}, {"rise of the tap's loss", sc.Tap.LossRise},
		{"begin of the tap's gap", sc.Tap.GapAt}, {"gap of the tap", sc.Tap.GapFor}, {"step of the tap's clock", sc.Tap.StepAt},
	} {
		if d.value < 0 {
			return bad("%s of %v: want 0 or more", d.name, d.value)
		}
	}
	if r := min(cmp.Or(sc.Refresh, time.Second), cmp.Or(sc.Keepalive, time.Second)); r < time.Millisecond {
		return bad("refresh or keepalive every %v: want a millisecond or more", r)
	}
	for i := range sc.Script {
		s := &sc.Script[i]
		if err := s.check(); err != nil {
			return bad("script: %w", err)
		}
		if s.Do == "rollout" && len(sc.Versions) == 0 {
			return bad("script: a rollout of which version?")
		}
		if s.Do == "add" && sc.Nodes+int(s.Factor) > 250 {
			return bad("script: %d nodes and %g more: want 250 at most", sc.Nodes, s.Factor)
		}
	}
	return nil
}

func (w *world) after(d int64, fn func()) {
	w.seq++
	heap.Push(&w.agenda, event{w.now + max(d, 0), w.seq, fn})
}

func (w *world) exp(mean float64) int64 { return int64(w.rng.ExpFloat64() * mean) }

func (w *world) addNode(mu float64) *simNode {
	n := &simNode{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + len(w.nodes))}), w.port()),
		mu: mu, factor: 1, state: "up", sessions: map[*simClient]func(){}}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) port() uint16 {
	switch w.sc.Protocol {
	case "sip":
		return 5060
	case "gnutella":
		return 6346
	case "n2n":
		return 7654
	case "skype":
		return uint16(40001 + len(w.nodes)%50)
	}
	return 33033
}

func (w *world) setup() {
	sc := &w.sc
	if sc.Queue == 0 {
		sc.Queue = 2000
	}
	if sc.Keepalive == 0 {
		sc.Keepalive = 20 * time.Second
		if sc.Protocol == "skype" {
			sc.Keepalive = time.Minute
		}
	}
	if sc.Protocol == "n2n" && sc.Refresh == 0 {
		sc.Refresh = 20 * time.Second // REGISTER_SUPER_INTERVAL_DFL
	}
	if sc.RTT == 0 {
		sc.RTT = 40 * time.Millisecond
	}
	if sc.Policy.Timeout == 0 {
		sc.Policy.Timeout = time.Second
	}
	for i := range sc.Versions {
		if p := sc.Versions[i].Policy; p != nil && p.Timeout == 0 {
			p.Timeout = sc.Policy.Timeout
		}
	}
	for range sc.Nodes {
		w.addNode(sc.Mu)
	}
	for i := range sc.Clients {
		c := w.newClient(i)
		w.live = append(w.live, c)
		if sc.Intents == 0 {
			w.after(int64(w.rng.Float64()*float64(sc.Spread)), func() { w.wish(c, "first") })
		}
	}
	if sc.Intents > 0 {
		w.arrive()
	}
	for _, s := range sc.Script {
		w.after(int64(s.At), func() { w.step(s) })
	}
	if sc.Flood > 0 {
		w.after(int64(sc.Trigger), w.flood)
	}
	if sc.Scan > 0 {
		w.after(int64(sc.Trigger), func() { w.scan(0) })
	}
	if sc.Broken {
		w.after(1e9, func() { w.broken(0) })
	}
	for k := range sc.Monitors {
		m := &monitor{w: w, k: k, port: uint16(30000 + k*100)}
		w.after(int64(w.rng.Float64()*float64(m.every())), m.round)
	}
	if sc.Background > 0 {
		w.other = newBackground(w)
		w.after(0, w.other.next)
	}
}

// newClient is the i-th.
func (w *world) newClient(i int) *simClient {
	sc := &w.sc
	c := &simClient{n: i, port: uint16(20000 + w.rng.IntN(20000)), ts0: w.rng.Uint32()>>1 + 1, last: i % sc.Nodes,
		rtt: int64(float64(sc.RTT) * (0.5 + w.rng.Float64()))}
	c.addr = netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)})
	if sc.NAT {
		c.addr = netip.AddrFrom4([4]byte{10, 1, 0, 1})
		c.port = uint16(1024 + i*200%60000)
	}
	if sc.Protocol == "skype" {
		c.port = max(c.port+20000, 40100) // those below are a node's
		c.probes = uint16(w.rng.Uint32())
		if x := w.rng.Float64(); x < sc.Firewalled/3 {
			c.lowest = rung80
		} else if x < sc.Firewalled {
			c.lowest = rung443
		}
	}
	x := w.rng.Float64()
	for _, v := range sc.Versions {
		if x -= v.Share; x < 0 {
			c.version = v.Name
			break
		}
	}
	return c
}

// arrive is the Poisson stream of wishes.
func (w *world) arrive() {
	rate := w.sc.Intents
	if w.sc.Growth > 0 {
		rate *= 1 + (w.sc.Growth-1)*float64(w.now)/float64(w.end)
	}
	if w.sc.Burst > 0 && w.now >= int64(w.sc.Trigger) {
		rate *= w.sc.Burst
	}
	w.after(int64(w.wills(willCome, w.rng.ExpFloat64)*(1e9/rate)), func() {
		for range 50 { // a free client; a busy one already has its wish
			// In turn: a client that comes back soon would run its wishes together.
			c := w.live[w.turn%len(w.live)]
			w.turn++
			if !c.busy && c.attached == nil && c.gone <= w.now {
				w.wish(c, "first")
				break
			}
		}
		w.arrive()
	})
}

// policy is how a client retries.
func (w *world) policy(c *simClient) *Policy {
	for i := range w.sc.Versions {
		if v := &w.sc.Versions[i]; v.Policy != nil && v.Name == c.version {
			return v.Policy
		}
	}
	return &w.sc.Policy
}

// wish begins an intent.
func (w *world) wish(c *simClient, relation string) {
	if c.busy || c.attached != nil || c.gone > w.now {
		return
	}
	c.busy, c.lost, c.rung = true, false, 0
	w.truth.Intents++
	p := w.policy(c)
	c.tokens = math.Min(c.tokens+p.Budget, 10)
	if p.Floor > 0 { // each client at a phase of its own
		c.since, c.free = w.now-w.rng.Int64N(int64(p.Floor)), 0
	}
	if !p.ResetOnConnect {
		c.tries = 0
	}
	w.try(c, w.truth.Intents, 1, relation)
}

// try makes the number-th attempt of an intent.
func (w *world) try(c *simClient, intent, number int, relation string) {
	if c.gone > w.now {
		c.busy = false
		return
	}
	k := c.last
	rung := w.climb(c)
	p := w.policy(c)
	stays := rung > c.lowest || p.PerNode > 1 && (number-1)%p.PerNode != 0
	if (number > 1 || relation == "reattach") && !stays {
		switch p.Order {
		case "random":
			k = w.rng.IntN(len(w.nodes))
		case "round_robin":
			k = (c.last + 1) % len(w.nodes)
		}
	}
	a := &dial{w: w, c: c, n: w.nodes[k], i: len(w.truth.Attempts), rung: rung, dst: w.nodes[k].rungAt(rung)}
	if number > 1 {
		relation = "retry"
		if k != c.last || rung != rungUDP {
			relation = "failover"
		}
	}
	c.last = k
	c.tries++
	a.src = w.source(c, a.tcp())
	w.truth.Attempts = append(w.truth.Attempts, TrueAttempt{Client: c.n, Node: k, Source: a.src.String(), Target: a.dst.String(),
		Outcome: "unknown", Relation: relation, Intent: intent, Number: number, Version: c.version})
	a.done = func(outcome string, announced time.Duration) {
		t := &w.truth.Attempts[a.i]
		t.Outcome = outcome
		if outcome == "accepted" {
			if w.sc.Protocol == "skype" && a.rung == rungUDP {
				w.climbOn(c, a)
				return
			}
			c.busy, c.tries, c.rung = false, 0, 0
			w.attach(c, a)
			return
		}
		p := w.policy(c)
		if p.ResetOnConnect && outcome == "dropped" {
			c.tries = 0
		}
		stop := p.Family == "none" || p.Limit > 0 && number >= p.Limit
		if p.Budget > 0 && p.Floor == 0 && !stop {
			if c.tokens < 1 {
				stop = true
			} else {
				c.tokens--
			}
		}
		if stop {
			c.busy = false
			return
		}
		if c.rung > c.lowest { // the next rung at once
			w.after(rungPause, func() { w.try(c, intent, number+1, "") })
			return
		}
		if number == 1 {
			c.paused = 0
		}
		c.paused = p.wait(max(c.tries, 1), c.paused, announced, w.rng)
		w.after(int64(c.paused), func() { w.again(c, intent, number, announced) })
	}
	a.start()
	for range w.sc.Dials - 1 {
		w.twin(c, intent, k)
	}
}

// rungPause is how long a Skype client takes to the next rung.
const rungPause = 50e6

// climb is the rung of a client's next attempt; other protocols have but one.
func (w *world) climb(c *simClient) int {
	if w.sc.Protocol != "skype" {
		return rungUDP
	}
	rung := max(c.rung, c.lowest)
	c.rung = (rung + 1) % rungs
	return rung
}

// climbOn follows a yes over UDP with the connection to the same port. It is of
// the same wish: one that comes about is no try more, but a refresh; one that does
// not is a retry.
func (w *world) climbOn(c *simClient, probe *dial) {
	a := &dial{w: w, c: c, n: probe.n, dst: probe.dst, rung: rungTCP, i: len(w.truth.Attempts)}
	c.rung = rung443
	a.src = w.source(c, true)
	asked := &w.truth.Attempts[probe.i]
	intent, number := asked.Intent, asked.Number+1
	w.truth.Attempts = append(w.truth.Attempts, TrueAttempt{Client: c.n, Node: c.last, Source: a.src.String(), Target: a.dst.String(),
		Outcome: "unknown", Relation: "refresh", Intent: intent, Number: number, Version: c.version})
	a.done = func(outcome string, _ time.Duration) {
		t := &w.truth.Attempts[a.i]
		t.Outcome = outcome
		if outcome == "accepted" {
			c.busy, c.tries, c.rung = false, 0, 0
			w.attach(c, a)
			return
		}
		t.Relation = "retry"
		w.after(rungPause, func() { w.try(c, intent, number+1, "") })
	}
	w.after(1e6, a.start)
}

// source is where a client's next attempt comes from.
func (w *world) source(c *simClient, tcp bool) netip.AddrPort {
	switch {
	case w.sc.Protocol == "sip":
		if w.sc.NAT {
			return netip.AddrPortFrom(c.addr, uint16(20000+c.n))
		}
		return netip.AddrPortFrom(c.addr, 5060)
	case w.sc.Protocol == "n2n" || w.sc.Protocol == "skype" && !tcp: // one port for all nodes
		return netip.AddrPortFrom(c.addr, uint16(20000+c.n%10000))
	}
	if c.port++; c.port < 1024 {
		c.port = 20000
		if w.sc.Protocol == "skype" {
			c.port = 40100
		}
	}
	return netip.AddrPortFrom(c.addr, c.port)
}

// again is a retry that is due; a budget with a floor may skip it.
func (w *world) again(c *simClient, intent, number int, announced time.Duration) {
	if p := w.policy(c); p.Budget > 0 && p.Floor > 0 {
		switch free := (w.now - c.since) / int64(p.Floor); {
		case c.tokens >= 1:
			c.tokens--
		case free > c.free:
			c.free = free
		case p.Limit > 0 && number+1 >= p.Limit:
			c.busy = false
			return
		default:
			c.tries++
			c.paused = p.wait(c.tries, c.paused, announced, w.rng)
			w.after(int64(c.paused), func() { w.again(c, intent, number+1, announced) })
			return
		}
	}
	w.try(c, intent, number+1, "")
}

// twin is a further dial of the same wish to another node, 50 ms later, that
// the client drops as soon as its handshake is done.
func (w *world) twin(c *simClient, intent, k int) {
	c.port++
	k = (k + 1 + w.rng.IntN(max(len(w.nodes)-1, 1))) % len(w.nodes)
	a := &dial{w: w, c: c, n: w.nodes[k], dst: w.nodes[k].addr, i: len(w.truth.Attempts), src: netip.AddrPortFrom(c.addr, c.port), loser: true}
	w.truth.Attempts = append(w.truth.Attempts, TrueAttempt{Client: c.n, Node: k, Source: a.src.String(), Target: a.dst.String(),
		Outcome: "unknown", Relation: "parallel", Intent: intent, Number: 1, Version: c.version})
	a.done = func(o string, _ time.Duration) { w.truth.Attempts[a.i].Outcome = o }
	w.after(50e6, a.start)
}

// attach holds a session until it ends by itself or the node ends it.
func (w *world) attach(c *simClient, a *dial) {
	c.attached = a.n
	c.session++
	mine := c.session
	c.bye = a.bye
	over := func() bool { return c.session != mine || c.attached != a.n }
	a.n.sessions[c] = func() { // the node's RST
		a.fromNode(rst|ack, nil)
		w.leave(c)
		w.after(int64(w.rng.Float64()*2e9), func() { w.wish(c, "reattach") })
	}
	if w.sc.Hold > 0 {
		hold := w.exp(float64(w.sc.Hold))
		if w.sc.Protocol == "sip" { // a registration that is not refreshed just expires
			hold = int64(w.sc.Hold) + 1e9
		}
		w.after(hold, func() {
			if !over() {
				a.bye()
				w.leave(c)
			}
		})
	}
	// A node that is silent when life is shown is noticed.
	if a.tcp() {
		var beat func()
		beat = func() {
			if over() {
				return
			}
			a.fromClient(psh|ack, []byte("ping\r\n"))
			if a.n.state != "up" {
				a.seq -= 6
				w.after(3e9, func() {
					if !over() {
						a.fromClient(rst, nil)
						w.leave(c)
						w.after(int64(w.rng.Float64()*1e9), func() { w.wish(c, "reattach") })
					}
				})
				return
			}
			w.after(c.rtt/4, func() { a.fromNode(psh|ack, []byte("pong\r\n")) })
			w.after(int64(w.sc.Keepalive), beat)
		}
		w.after(int64(w.rng.Float64()*float64(w.sc.Keepalive)), beat)
	} else if w.sc.Refresh > 0 {
		w.refresh(c, a, over)
	}
}

// refresh re-registers in a living session; one that stays unanswered has
// lost it, and is itself the first attempt of the reattachment.
func (w *world) refresh(c *simClient, old *dial, over func() bool) {
	period := float64(w.sc.Refresh) * (0.95 + 0.1*w.rng.Float64())
	w.after(int64(period), func() {
		if over() {
			return
		}
		a := &dial{w: w, c: c, n: old.n, dst: old.dst, src: old.src, i: len(w.truth.Attempts)}
		w.truth.Attempts = append(w.truth.Attempts, TrueAttempt{Client: c.n, Node: c.last, Source: a.src.String(), Target: a.dst.String(),
			Outcome: "unknown", Relation: "refresh", Number: 1, Version: c.version})
		a.done = func(o string, announced time.Duration) {
			t := &w.truth.Attempts[a.i]
			t.Outcome = o
			if o == "accepted" {
				w.refresh(c, a, over)
				return
			}
			w.leave(c)
			c.busy = true
			w.truth.Intents++
			t.Relation, t.Intent = "reattach", w.truth.Intents
			intent := w.truth.Intents
			c.paused = w.policy(c).wait(1, 0, announced, w.rng)
			w.after(int64(c.paused), func() { w.try(c, intent, 2, "") })
		}
		a.start()
	})
}

func (w *world) leave(c *simClient) {
	if c.attached != nil {
		delete(c.attached.sessions, c)
	}
	c.attached = nil
	c.session++
}

func (w *world) note(n *simNode, what string) {
	w.truth.Events = append(w.truth.Events, NodeEvent{time.Duration(w.now), n.addr.String(), what})
}

func (w *world) step(s Step) {
	switch s.Do {
	case "down", "close", "up", "slow", "full":
		for _, i := range s.Nodes {
			n := w.nodes[i%len(w.nodes)]
			w.note(n, s.Do)
			switch s.Do {
			case "down":
				n.state, n.queue = "down", nil
				n.sessions = map[*simClient]func(){}
			case "close":
				w.closeAll(n)
			case "up":
				n.state = "up"
			case "slow":
				n.factor = s.Factor
			case "full":
				n.factor = 1
			}
		}
	case "shut", "open":
		for _, i := range s.Nodes {
			n := w.nodes[i%len(w.nodes)]
			w.note(n, s.Do)
			n.shut = s.Do == "shut"
		}
	case "refresh":
		w.sc.Refresh = s.Within
	case "bots":
		for i := range int(s.Factor) {
			c := w.newClient(w.sc.Clients + i)
			w.after(int64(w.rng.Float64()*4e9), func() { w.bot(c, w.now+int64(s.Within)) })
		}
	case "rollout":
		last := &w.sc.Versions[len(w.sc.Versions)-1]
		for _, c := range w.live {
			w.after(int64(w.rng.Float64()*float64(s.Within)), func() { c.version = last.Name })
		}
	case "restart":
		for _, c := range w.live {
			w.after(int64(w.rng.Float64()*float64(s.Within)), func() {
				w.leave(c)
				w.after(1e9, func() { w.wish(c, "first") })
			})
		}
	case "crash":
		for _, c := range w.live {
			for _, v := range w.sc.Versions {
				if v.Name == c.version && w.wills(willCrash, w.rng.Float64) < v.Crash {
					w.after(int64(w.wills(willCrash, w.rng.Float64)*20e9), func() {
						w.leave(c)
						c.busy = false
						c.gone = w.now + 30e9 + int64(w.wills(willCrash, w.rng.Float64)*60e9)
						w.after(c.gone-w.now, func() { w.wish(c, "reattach") })
					})
				}
			}
		}
	case "admit":
		w.sc.Admit = s.Factor
	case "budget":
		w.sc.Policy.Budget, w.sc.Policy.Floor = s.Factor, time.Minute
		for _, c := range w.live {
			c.since, c.free, c.tokens = w.now-w.rng.Int64N(int64(time.Minute)), 0, 0
		}
	case "add":
		for range int(s.Factor) {
			w.note(w.addNode(mega*w.sc.Mu), "add")
		}
	}
}

// bot has itself served, closes, and comes again, until a time.
func (w *world) bot(c *simClient, until int64) {
	if w.now >= until {
		return
	}
	w.wish(c, "first")
	w.after(2*c.rtt+100e6, func() {
		if c.attached != nil {
			c.bye()
			w.leave(c)
		}
		w.after(int64(w.rng.Float64()*500e6), func() { w.bot(c, until) })
	})
}

// closeAll ends every session and closes the port.
func (w *world) closeAll(n *simNode) {
	n.state, n.queue = "closed", nil
	ends := make([]*simClient, 0, len(n.sessions))
	for _, c := range w.live { // in the clients' order: a map has none
		if n.sessions[c] != nil {
			ends = append(ends, c)
		}
	}
	for i, c := range ends {
		end := n.sessions[c]
		w.after(int64(i)*50e3, end)
	}
	n.sessions = map[*simClient]func(){}
}

func (w *world) flood() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(11 + w.rng.IntN(180)), byte(w.rng.Uint32()), byte(w.rng.Uint32()), byte(1 + w.rng.IntN(254))}), uint16(1024+w.rng.IntN(64000)))
	isn := w.rng.Uint32()
	w.packet(w.f.tcp(src, n.addr, syn, isn, 0, 0, nil), false)
	if n.state == "up" {
		w.packet(w.f.tcp(n.addr, src, syn|ack, w.rng.Uint32(), isn+1, 0, nil), true)
	}
	w.after(w.exp(1e9/w.sc.Flood), w.flood)
}

func (w *world) scan(k int) {
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + k%3)}), uint16(40000+k%20000))
	dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + k/3%254)}), uint16(1+k/762))
	isn := w.rng.Uint32()
	w.packet(w.f.tcp(src, dst, syn, isn, 0, 0, nil), false)
	if k%3 != 0 {
		w.packet(w.f.tcp(dst, src, rst|ack, 0, isn+1, 0, nil), true)
	}
	w.after(w.exp(1e9/w.sc.Scan), func() { w.scan(k + 1) })
}

func (w *world) broken(k int) {
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 250, 0, 1}), uint16(10000+k%50000))
	dst := w.nodes[0].addr
	isn := w.rng.Uint32()
	w.packet(w.f.tcp(src, dst, syn, isn, 0, 0, nil), false)
	w.packet(w.f.tcp(dst, src, rst|ack, 0, isn+1, 0, nil), true)
	w.after(1e9, func() { w.broken(k + 1) })
}

// packet shows a frame to the tap.
func (w *world) packet(data []byte, fromNode bool) {
	t := &w.sc.Tap
	if t.Loss > 0 && w.now >= int64(t.LossAt) && w.rng.Float64() < t.loss(w.now) {
		return
	}
	if t.GapFor > 0 && w.now >= int64(t.GapAt) && w.now < int64(t.GapAt+t.GapFor) {
		return
	}
	if t.Side == "client" && fromNode || t.Side == "server" && !fromNode {
		return
	}
	at := Epoch + w.now
	if t.StepBy != 0 && w.now >= int64(t.StepAt) {
		at += int64(t.StepBy)
	}
	p := capture.Packet{Time: at, Data: data, OrigLen: len(data), Link: capture.LinkEthernet}
	if t.Snaplen > 0 && len(data) > t.Snaplen {
		p.Data = data[:t.Snaplen]
	}
	w.show(p)
	if t.Duplicate {
		p.Time += 20e3
		w.show(p)
	}
}

// loss is the share that is lost at a time after LossAt.
func (t *Tap) loss(now int64) float64 {
	if since := now - int64(t.LossAt); since < int64(t.LossRise) {
		return t.Loss * float64(since) / float64(t.LossRise)
	}
	return t.Loss
}

func (w *world) show(p capture.Packet) {
	w.frame++
	w.truth.Packets++
	p.Frame = w.frame
	w.emit(&p)
}

// admits asks the limiter before a node.
func (n *simNode) admits(w *world) bool {
	if w.sc.Admit == 0 {
		return true
	}
	n.tokens = math.Min(n.tokens+w.sc.Admit*float64(w.now-n.filled)/1e9, math.Max(w.sc.Admit/10, 1))
	n.filled = w.now
	if n.tokens < 1 {
		return false
	}
	n.tokens--
	return true
}

// request puts work into the node's queue; serve is called when it is done.
func (n *simNode) request(w *world, serve func(at int64)) (full bool) {
	n.recent = append(n.recent, w.now)
	for len(n.recent) > 0 && n.recent[0] < w.now-1e9 {
		n.recent = n.recent[1:]
	}
	if w.sc.ProtectAt > 0 && float64(len(n.recent)) > w.sc.ProtectAt && n.mu <= w.sc.Mu && n.state == "up" {
		w.note(n, "protect")
		w.closeAll(n)
		n.recent = nil
		w.after(int64(w.sc.Recovery), func() {
			if n.state == "closed" {
				n.state = "up"
				w.note(n, "up")
			}
		})
		return true
	}
	if n.mu == 0 {
		w.after(2e6, func() { serve(w.now) })
		return false
	}
	if len(n.queue) >= w.sc.Queue {
		return true
	}
	n.queue = append(n.queue, serve)
	n.next(w)
	return false
}

func (n *simNode) next(w *world) {
	if n.serving || len(n.queue) == 0 {
		return
	}
	n.serving = true
	w.after(w.exp(1e9/(n.mu*n.factor)), func() {
		n.serving = false
		if len(n.queue) == 0 {
			return
		}
		serve := n.queue[0]
		n.queue = n.queue[1:]
		if n.state == "up" {
			serve(w.now)
		}
		n.next(w)
	})
}

// mega is what a "mega-supernode" serves, in ordinary nodes.
const mega = 30
