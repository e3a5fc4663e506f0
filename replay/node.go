package replay

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Discipline is which waiting request a node serves next.
type Discipline uint8

// Disciplines.
const (
	FIFO         Discipline = iota
	AdaptiveLIFO            // the newest first while the queue does not drain
	CoDel                   // oldest first, sheds what waited too long
	numDisciplines
)

var disciplineNames = [numDisciplines]string{"fifo", "lifo", "codel"}

func (d Discipline) String() string { return disciplineNames[d] }

// Overload is what a node does with a request that finds its queue full.
type Overload uint8

// Overload behaviours.
const (
	Drop     Overload = iota // silence
	Refuse                   // an explicit no: RST, or the protocol's refusal
	Throttle                 // "later", with RetryAfter
	Reset                    // accepts, then resets
	numOverloads
)

var overloadNames = [numOverloads]string{"drop", "refuse", "throttle", "reset"}

func (o Overload) String() string { return overloadNames[o] }

// Service is the distribution of service times.
type Service uint8

// Service-time distributions; the mean is Concurrency / Capacity.
const (
	ExponentialService Service = iota
	FixedService
	LognormalService // sigma 1
	numServices
)

var serviceNames = [numServices]string{"exponential", "fixed", "lognormal"}

func (s Service) String() string { return serviceNames[s] }

// NodeConfig is a node's capacity and how it fails. The zero value serves
// everything at once.
type NodeConfig struct {
	Capacity    float64 // requests/s, 0 = without limit
	Concurrency int     // served side by side, 0 = 1
	Queue       int     // requests that wait, 0 = 2000
	Discipline  Discipline
	Service     Service
	Overload    Overload
	RetryAfter  time.Duration // that a throttle announces
	// ProtectAt: above this many requests per second that admission let in the
	// node closes all its sessions and refuses everybody for Recovery; CrashAt:
	// the same, silently. 0 = never.
	ProtectAt, CrashAt float64
	Window             time.Duration // over which that rate is measured, 0 = 1 s
	Recovery           time.Duration // 0 = 40 s
	WarmUp             time.Duration // capacity grows from a tenth to all of it within this time after a recovery
	// Admission, before the queue. Rate is a token bucket of Burst requests;
	// PerClient the same for each client, burst 1; Loss turns away the share of
	// the requests that is too much for the node (RFC 7339). Who is turned away
	// is throttled.
	Rate      float64 // 0 = no bucket
	Burst     float64 // 0 = one second of Rate
	PerClient float64 // 0 = none
	Loss      bool
	pace      float64 // of its clock, 0 = 1: what is fixed below is that much shorter
}

const (
	queueDefault    = 2000
	recoveryDefault = 40 * time.Second
	// The controlled-delay variant of storms.md section 2.1 ("Fail at Scale"):
	// 5 ms of patience while the queue has not drained for 100 ms.
	codelPatience = 5 * time.Millisecond
	codelInterval = 100 * time.Millisecond
	// Loss-based control. RFC 7339 leaves to the server how it finds the share;
	// one that it has told holds for 500 ms (section 4.3, oc-validity), within
	// which it is found anew a few times here, each time by lossCount requests at
	// least: as much is let in as is served, more or less by what brings the
	// expected wait to the target within lossDrain. A share of lossLeast always
	// comes in.
	lossEvery  = 100 * time.Millisecond
	lossCount  = 16
	lossMost   = 2 * time.Second // that a share holds for want of requests
	lossTarget = 200 * time.Millisecond
	lossDrain  = time.Second
	lossLeast  = 0.02
	lossMemory = 32 // services by which a service time is known
	// clientBuckets bounds what a node remembers of its clients.
	clientBuckets = 1 << 16
)

// Check reports what cannot be.
func (c *NodeConfig) Check() error {
	for _, v := range []struct {
		name  string
		value float64
	}{{"capacity", c.Capacity}, {"protect-at", c.ProtectAt}, {"crash-at", c.CrashAt}, {"admit", c.Rate}, {"admit-burst", c.Burst}, {"admit-client", c.PerClient}} {
		if !(v.value >= 0 && v.value <= 1e9) {
			return fmt.Errorf("node: %s %v: want from 0 to 1e9", v.name, v.value)
		}
	}
	if c.Burst > 0 && c.Burst < 1 {
		return fmt.Errorf("node: admit-burst %v: a bucket that holds less than one request lets in nobody", c.Burst)
	}
	if c.Concurrency < 0 || c.Queue < 0 || c.Concurrency > 1<<20 || c.Queue > 1<<24 {
		return fmt.Errorf("node: concurrency %d, queue %d: want from 0 to %d and %d", c.Concurrency, c.Queue, 1<<20, 1<<24)
	}
	if c.RetryAfter < 0 || c.Recovery < 0 || c.WarmUp < 0 || c.Window < 0 {
		return fmt.Errorf("node: retry-after %v, recovery %v, warm-up %v, window %v: want from 0 on", c.RetryAfter, c.Recovery, c.WarmUp, c.Window)
	}
	if c.Discipline >= numDisciplines || c.Overload >= numOverloads || c.Service >= numServices {
		return fmt.Errorf("node: unknown discipline, overload or service distribution")
	}
	return nil
}

// Faster is the same node on a clock that runs x times as fast: for a replay
// at that speed.
func (c NodeConfig) Faster(x float64) NodeConfig {
	c.Capacity, c.ProtectAt, c.CrashAt = c.Capacity*x, c.ProtectAt*x, c.CrashAt*x
	if c.Rate > 0 {
		if c.Burst == 0 {
			c.Burst = max(c.Rate, 1) // of a second on the slow clock
		}
		c.Rate *= x
	}
	c.PerClient *= x
	less := func(d, zero time.Duration) time.Duration {
		if d == 0 {
			d = zero
		}
		return time.Duration(float64(d) / x)
	}
	c.RetryAfter, c.Recovery, c.WarmUp, c.Window = less(c.RetryAfter, 0), less(c.Recovery, recoveryDefault), less(c.WarmUp, 0), less(c.Window, time.Second)
	c.pace = x * max(c.pace, 1)
	return c
}

// paced is a fixed time on the node's clock, ns.
func (c *NodeConfig) paced(d time.Duration) int64 {
	if c.pace > 0 {
		d = time.Duration(float64(d) / c.pace)
	}
	return int64(d)
}

// ParseOverload reads a behaviour's name; ParseDiscipline and ParseService
// likewise. The error lists the names.
func ParseOverload(s string) (Overload, error) {
	i, err := named(s, overloadNames[:], "overload")
	return Overload(i), err
}

// ParseDiscipline reads a queue discipline's name.
func ParseDiscipline(s string) (Discipline, error) {
	i, err := named(s, disciplineNames[:], "discipline")
	return Discipline(i), err
}

// ParseService reads the name of a distribution.
func ParseService(s string) (Service, error) {
	i, err := named(s, serviceNames[:], "service")
	return Service(i), err
}

func named(s string, names []string, what string) (int, error) {
	if i := slices.Index(names, s); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("%s %q: want %s", what, s, strings.Join(names, ", "))
}

// State of a node.
type State uint8

// States.
const (
	Up     State = iota
	Closed       // refuses everybody
	Silent       // answers nothing
)

var stateNames = [...]string{"up", "closed", "silent"}

func (s State) String() string { return stateNames[s] }

// Offer is what a node does with a request.
type Offer uint8

// Offers.
const (
	Queued    Offer = iota // it waits, or is served at once
	Dropped                // nothing comes back
	Refused                // no
	Throttled              // later
	ResetBack              // accepted, then reset
	Fell                   // refused, and this request was the last straw: every session of the node is over
	Crashed                // likewise, silently
)

// Job is a request at a node. Ref is the caller's.
type Job struct {
	Ref     int64
	Client  int64
	Arrived int64 // ns
}

// Node is the state of one node, without a clock or sockets of its own: times
// are ns on the caller's clock, never backwards. Virtual time and real sockets
// drive the same code. Not safe for concurrent use.
type Node struct {
	cfg     NodeConfig
	rng     *rand.Rand
	state   State
	until   int64 // of a state that ends by itself, 0 = it does not
	warm    int64 // end of the warm-up
	factor  float64
	delay   int64
	queue   []Job // from head on
	head    int
	busy    int
	recent  []int64 // arrivals within the last window, from first on
	first   int
	drained int64 // when the queue was last empty
	bucket  bucket
	clients map[int64]bucket
	loss    float64
	lossAt  int64
	offered int     // requests since lossAt
	service float64 // ns that a request takes, of late
}

type bucket struct {
	tokens float64
	at     int64
}

// take refills and takes one.
func (b *bucket) take(now int64, rate, burst float64) bool {
	b.tokens = min(burst, b.tokens+rate*float64(now-b.at)/1e9)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// NewNode makes a node; seed fixes its service times.
func NewNode(cfg NodeConfig, seed uint64) *Node {
	if cfg.Queue == 0 {
		cfg.Queue = queueDefault
	}
	cfg.Concurrency = max(cfg.Concurrency, 1)
	if cfg.Recovery == 0 {
		cfg.Recovery = recoveryDefault
	}
	if cfg.Window == 0 {
		cfg.Window = time.Second
	}
	if cfg.Burst == 0 {
		cfg.Burst = max(cfg.Rate, 1)
	}
	n := &Node{cfg: cfg, rng: rand.New(rand.NewPCG(seed, 0x4e0de)), factor: 1}
	n.bucket.tokens = cfg.Burst
	return n
}

// Set changes the state; Closed and Silent end every session and forget the
// queue. A node that comes up warms up.
func (n *Node) Set(s State, now int64) {
	if s == Up && n.state != Up {
		n.warm = now + int64(n.cfg.WarmUp)
	}
	n.state, n.until = s, 0
	if s != Up {
		n.queue, n.head, n.recent, n.first = n.queue[:0], 0, n.recent[:0], 0
	}
}

// Scale multiplies the capacity; Delay is added to every service.
func (n *Node) Scale(factor float64) { n.factor = factor }

// Delay is added to every answer from now on.
func (n *Node) Delay(d time.Duration) { n.delay = int64(d) }

// Waiting is how many requests wait.
func (n *Node) Waiting() int { return len(n.queue) - n.head }

// State is the node's state now, with whatever ended by itself.
func (n *Node) State(now int64) State {
	if n.until != 0 && now >= n.until {
		n.Set(Up, n.until)
	}
	return n.state
}

// RetryAfter is what the node announces when it throttles.
func (n *Node) RetryAfter() time.Duration { return n.cfg.RetryAfter }

// Offer gives the node a request. When it is Queued the caller calls Next
// until that has no more to serve.
func (n *Node) Offer(now int64, j Job) Offer {
	switch n.State(now) {
	case Silent:
		return Dropped
	case Closed:
		return Refused
	}
	if n.cfg.Rate > 0 && !n.bucket.take(now, n.cfg.Rate, n.cfg.Burst) || n.cfg.PerClient > 0 && !n.mayClient(now, j.Client) ||
		n.cfg.Loss && n.sheds(now) {
		return Throttled
	}
	if n.cfg.ProtectAt > 0 || n.cfg.CrashAt > 0 {
		if fell := n.pressed(now); fell != Queued {
			return fell
		}
	}
	if n.cfg.Capacity > 0 && n.Waiting() >= n.cfg.Queue {
		return [...]Offer{Drop: Dropped, Refuse: Refused, Throttle: Throttled, Reset: ResetBack}[n.cfg.Overload]
	}
	if n.Waiting() == 0 {
		n.drained = now
	}
	j.Arrived = now
	n.queue = append(n.queue, j)
	return Queued
}

// pressed counts the requests of the last window against the limits.
func (n *Node) pressed(now int64) Offer {
	if n.first > 64 && n.first*2 > len(n.recent) {
		n.recent = n.recent[:copy(n.recent, n.recent[n.first:])]
		n.first = 0
	}
	n.recent = append(n.recent, now)
	for n.recent[n.first] < now-int64(n.cfg.Window) {
		n.first++
	}
	// A window of whole nanoseconds makes a limit a hair smaller: seven requests
	// where seven are allowed must not be too many.
	const hair = 1e-6
	asked, window := float64(len(n.recent)-n.first)-hair, n.cfg.Window.Seconds()
	fell, state := Queued, Up
	switch {
	case n.cfg.ProtectAt > 0 && asked > n.cfg.ProtectAt*window:
		fell, state = Fell, Closed
	case n.cfg.CrashAt > 0 && asked > n.cfg.CrashAt*window:
		fell, state = Crashed, Silent
	default:
		return Queued
	}
	n.Set(state, now)
	n.until = now + int64(n.cfg.Recovery)
	return fell
}

func (n *Node) mayClient(now, client int64) bool {
	if n.clients == nil || len(n.clients) >= clientBuckets {
		n.clients = map[int64]bucket{} // a full table is forgotten: everybody gets a fresh token
	}
	b, known := n.clients[client]
	if !known {
		b = bucket{tokens: 1, at: now}
	}
	ok := b.take(now, n.cfg.PerClient, 1)
	n.clients[client] = b
	return ok
}

// sheds is the loss-based control: how much is too much follows from how long
// requests take, how many there are and how many wait.
func (n *Node) sheds(now int64) bool {
	n.offered++
	since := now - n.lossAt
	if since >= n.cfg.paced(lossEvery) && (n.offered >= lossCount || since >= n.cfg.paced(lossMost)) {
		each := n.service / float64(n.cfg.Concurrency) // between two that are done
		target := max(float64(n.cfg.paced(lossTarget)), each)
		drain := float64(max(n.cfg.paced(lossDrain), 2*since))
		wait := each * float64(n.Waiting())
		fits := float64(since) / max(each, 1) * (1 + (target-wait)/drain)
		n.loss = 1 - min(max(fits/float64(n.offered), lossLeast), 1)
		n.lossAt, n.offered = now, 0
	}
	return n.rng.Float64() < n.loss
}

// Next takes a request that can be served now and how long that takes, ns;
// the caller calls Done when the time is over. shed is called for each request
// that the queue gave up. ok is false when all servers are busy or nobody waits.
func (n *Node) Next(now int64, shed func(Job)) (j Job, takes int64, ok bool) {
	if n.State(now) != Up {
		return Job{}, 0, false
	}
	unlimited := n.cfg.Capacity == 0
	for n.Waiting() > 0 && (unlimited || n.busy < n.cfg.Concurrency) {
		standing := now-n.drained > n.cfg.paced(codelInterval)
		if n.cfg.Discipline == AdaptiveLIFO && standing {
			j = n.queue[len(n.queue)-1]
			n.queue = n.queue[:len(n.queue)-1]
		} else {
			j = n.queue[n.head]
			n.head++
		}
		if n.Waiting() == 0 {
			n.drained = now
			n.queue, n.head = n.queue[:0], 0
		} else if n.head > 1024 && n.head*2 > len(n.queue) {
			n.queue = n.queue[:copy(n.queue, n.queue[n.head:])]
			n.head = 0
		}
		waited := now - j.Arrived
		if n.cfg.Discipline == CoDel && (standing && waited > n.cfg.paced(codelPatience) || waited > n.cfg.paced(codelInterval)) {
			shed(j)
			continue
		}
		n.busy++
		takes = n.takes(now)
		if n.service == 0 {
			n.service = float64(takes)
		}
		n.service += (float64(takes) - n.service) / lossMemory
		return j, takes, true
	}
	return Job{}, 0, false
}

func (n *Node) takes(now int64) int64 {
	if n.cfg.Capacity == 0 {
		return n.delay
	}
	mean := float64(n.cfg.Concurrency) * 1e9 / (n.cfg.Capacity * max(n.factor, 1e-6))
	if now < n.warm {
		left := float64(n.warm-now) / float64(max(n.cfg.WarmUp, 1))
		mean /= 1 - 0.9*left
	}
	switch n.cfg.Service {
	case ExponentialService:
		mean *= n.rng.ExpFloat64()
	case LognormalService:
		mean *= math.Exp(n.rng.NormFloat64() - 0.5)
	}
	return int64(mean) + n.delay
}

// Done frees the server of a request that Next gave out.
func (n *Node) Done() { n.busy-- }
