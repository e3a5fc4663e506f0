package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"squall/dissect"
)

// Result is an attempt that was really made: the columns of every attempt, and
// the three times that a sender must keep apart. Times of the row are in the
// time of the recording (a run at twice the speed lasts as long in its rows as
// at once); Due, Sent and Answered are real, ns from the beginning of the run.
type Result struct {
	dissect.Attempt
	Due      int64
	Sent     int64
	Answered int64 // 0 = never, late answers included
	Error    string
}

// Runner runs a plan against targets with real sockets.
type Runner struct {
	Plan    *Plan
	Targets []netip.AddrPort
	Guard   *Guard
	// Plays is the target that plays each node of the plan; nil: they do in turn.
	Plays []int
	// Speed divides every time of the plan and of its policies, 0 = 1. The
	// targets' capacities must be that much larger to mean the same.
	Speed float64
	Caps  Caps
	Seed  uint64
	// Realtime are the threads that send, before all others of this machine,
	// the targets among them where they are on it; nil = ordinary ones.
	Realtime *Realtime
	// Logins are what the clients prove themselves with, in turn; none = with nothing.
	Logins []Login
	// Bind is where the clients' own addresses come from, one each. Invalid:
	// 127.0.0.0/8 for targets on loopback, else the system's choice.
	Bind netip.Prefix
	// Script happens to the targets by way of Do; nil Do with a script is an error.
	Script []Event
	Do     func(Event) error
	// RoundTrips lets each client hear its node a round trip later than it said
	// something, of those that the plan knows. What clients send leaves at once:
	// its moments are those at the place of the capture.
	RoundTrips bool
	// UntilCollapse goes on though the targets answer next to nothing.
	UntilCollapse bool
	// Keepalive and Reattach as in World; a Keepalive of 0 is that of the plan's
	// groups where they have one.
	Keepalive, Reattach time.Duration
	// Emit is called for each attempt when it and the session it led to are
	// over, from one goroutine and a little later; what it gets is valid during
	// the call. nil = nobody looks.
	Emit func(*Result)
	// Progress is called once a second; nil = never.
	Progress func(Progress)
}

// Progress of a run.
type Progress struct {
	Elapsed  time.Duration
	Due      int64 // items of the plan so far
	Sent     int64 // attempts
	InFlight int64
	Sessions int64
	Accepted int64 // in the last second
	Failed   int64 // likewise
	Lateness time.Duration
}

// The gates beyond which a run says nothing about its target (storms.md
// section 4.4).
const (
	latenessMost  = 5 * time.Millisecond // 99th percentile
	rateErrorMost = 0.001                // of the items due in any 10 s
	rateErrorLess = 2                    // items that may always be astray
	cpuMost       = 0.80
	cpuShortest   = time.Second // of a run whose processor time says anything
)

const (
	// lateFor is how long a client that gave up still listens, to tell a late
	// answer from none.
	lateFor = 10 * time.Second
	// collapse: fewer answers than this share of the attempts of the last ten
	// seconds, at least so many.
	collapseShare    = 0.05
	collapseAttempts = 50
	collapseSeconds  = 10
	// sharedIntents and sharedAttempts are how many sockets the clients of a
	// worker share: each attempt of a client takes the next one, so that its
	// datagrams are told from those of the attempt before by the port, as a
	// capture tells them. sharedAbreast of them are in use at a time, so that
	// a herd's answers find room; sharedBatch datagrams leave at once.
	sharedIntents  = 64
	sharedAttempts = 8
	sharedAbreast  = 4
	sharedBatch    = 64
	// drainGrain is how often the end of a run looks whether all is decided.
	drainGrain = 5 * time.Millisecond
	// spareFiles are descriptors that a run leaves alone.
	spareFiles = 64
)

// Summary of a run.
type Summary struct {
	PlanHash  string
	Mode      string
	Begin     time.Time
	Elapsed   time.Duration
	Planned   int64 // items
	Begun     int64
	Skipped   int64 // items of clients that were attached or trying already
	Attempts  int64
	Retries   int64
	Lost      int64 // sessions
	Outcomes  [dissect.NumOutcomes]int64
	Late      int64 // answers after the client had given up
	BytesSent int64
	Unsent    int64 // attempts that the caps or this machine did not allow
	Local     int64 // errors of this machine's sockets
	PeakRate  int64 // attempts in the busiest second
	CPU       float64
	// Lateness of sending against due, latency of acceptance from due.
	LatenessP50, LatenessP99, LatenessMax time.Duration
	AcceptP50, AcceptP95, AcceptP99       time.Duration
	Stopped                               string        // why it ended early, "" = it did not
	Invalid                               []string      // why it says nothing about the targets, empty = it is valid
	Work                                  string        // what the targets were made to do
	Trust                                 string        // what proves the policies
	Realtime                              bool          // the sender ran before all others
	Losses                                *Losses       // of this machine, where the targets are on it, too; nil = not known
	Counts                                []TargetCount // of targets on loopback
}

// Valid reports whether the run says something about its targets.
func (s *Summary) Valid() bool { return len(s.Invalid) == 0 }

// target is a node of the run.
type target struct {
	at      netip.AddrPort
	dialect Dialect
	node    *PlanNode
	joined  time.Duration // of the plan, as PlanNode has it
	// What every row says of it.
	endpoint dissect.Endpoint
	proto    uint8
	protocol string
	role     dissect.Role
}

type running struct {
	*Runner
	ctx     context.Context
	stop    context.CancelCauseFunc
	over    atomic.Bool // as ctx
	closing atomic.Bool // the plan's time is over: nothing new is sent
	epoch   time.Time
	begin   int64 // of the recording
	speed   float64
	open    bool // attempts open loop
	targets []target
	first   []int32   // target of each node of the plan
	peers   [][]int32 // targets that can stand in for each target, itself included, in the order that they join
	place   []int32   // of each target among its peers
	clients []actor
	gone    absences // of the clients, in the plan's time
	workers []*worker
	losses  Losses
	counts  []TargetCount // before the run
	// lossesKnown: before the run, of a machine that the targets are on.
	lossesKnown bool
	bind        netip.Prefix
	caps        Caps
	seconds     []atomic.Int64 // attempts by real second
	tenCount    int            // real ten seconds
	results     chan []Result  // to be emitted
	empties     chan []Result  // for reuse
}

// counters is what a worker counts, for everybody to read.
type counters struct {
	inFlight, sessions, begun, sent, bytes, unsent, local, skipped, retries, lost, late atomic.Int64
	late99                                                                              atomic.Int64 // 99th percentile of the lateness, µs
	outcomes                                                                            [dissect.NumOutcomes]atomic.Int64
	_                                                                                   [64]byte // a cache line of its own
}

// sum adds up a counter of all workers.
func (x *running) sum(of func(*counters) *atomic.Int64) (n int64) {
	for _, w := range x.workers {
		n += of(&w.tally).Load()
	}
	return n
}

// Player is the target that plays a node of the plan, by index.
func (r *Runner) Player(node int) int {
	if node < len(r.Plays) {
		return r.Plays[node]
	}
	return node % len(r.Targets)
}

// workersMost bounds the threads of a run.
const workersMost = 8

// Check reports what keeps the plan from running, before anything is sent.
func (r *Runner) Check() error {
	_, err := r.prepare()
	return err
}

func (r *Runner) prepare() (*running, error) {
	if r.Plan == nil || r.Guard == nil {
		return nil, errors.New("replay: want a plan and a guard")
	}
	if err := r.Plan.Check(); err != nil {
		return nil, err
	}
	if len(r.Targets) == 0 {
		return nil, refuse("no --target: nothing is sent, and never to the recorded nodes")
	}
	x := &running{Runner: r, speed: r.Speed, begin: r.Plan.Begin, caps: r.Caps.withDefaults(), bind: r.Bind, open: r.Plan.Mode == AttemptMode.String()}
	if x.speed == 0 {
		x.speed = 1
	}
	if !(x.speed > 0 && x.speed <= 1e6) {
		return nil, fmt.Errorf("replay: speed %v: want above 0", r.Speed)
	}
	loopback := true
	for _, t := range r.Targets {
		if err := r.Guard.Check(t.Addr()); err != nil {
			return nil, err
		}
		loopback = loopback && t.Addr().IsLoopback() && t.Addr().Is4()
		x.targets = append(x.targets, target{at: t})
	}
	for i := range r.Plan.Nodes {
		k := r.Player(i)
		if k < 0 || k >= len(r.Targets) {
			return nil, fmt.Errorf("replay: node %d of the plan is played by target %d of %d", i+1, k+1, len(r.Targets))
		}
		d, _ := r.Plan.Nodes[i].Speaks()
		if t := &x.targets[k]; t.dialect == nil {
			t.dialect, t.node = d, &r.Plan.Nodes[i]
		} else if t.dialect.Name() != d.Name() {
			return nil, fmt.Errorf("replay: target %v would have to speak %s and %s; plan one service (--service) or name a target for each", t.at, t.dialect.Name(), d.Name())
		}
		x.first = append(x.first, int32(k))
	}
	for k := range x.targets { // more targets than recorded nodes: they stand in for the first
		if t := &x.targets[k]; t.dialect == nil {
			t.dialect, t.node = x.targets[0].dialect, x.targets[0].node
		}
		x.targets[k].describe()
	}
	plays := make([]bool, len(x.targets))
	for i, k := range x.first { // one that plays several nodes is known as the first of them is
		if t := &x.targets[k]; !plays[k] || r.Plan.Nodes[i].Joined < t.joined {
			plays[k], t.joined = true, r.Plan.Nodes[i].Joined
		}
	}
	order := make([]int32, len(x.targets)) // those that join come last
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(x.targets[a].joined, x.targets[b].joined) })
	x.peers, x.place = make([][]int32, len(x.targets)), make([]int32, len(x.targets))
	for i := range x.targets {
		for _, k := range order {
			if x.targets[k].dialect.Name() == x.targets[i].dialect.Name() {
				if int(k) == i {
					x.place[i] = int32(len(x.peers[i]))
				}
				x.peers[i] = append(x.peers[i], k)
			}
		}
	}
	if loopback && !x.bind.IsValid() {
		x.bind = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
	}
	if x.bind.IsValid() {
		if room := addressRoom(x.bind); r.Plan.Clients > room {
			return nil, fmt.Errorf("replay: %d clients want an address each, %v has room for %d", r.Plan.Clients, x.bind, room)
		}
		for _, i := range []int{0, max(r.Plan.Clients-1, 0)} {
			a := addressOf(x.bind, i)
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
			if err != nil {
				return nil, fmt.Errorf("replay: %v, which a client of --bind %v would come from, is no address of this machine (ip route add local %v dev lo)", a, x.bind, x.bind.Masked())
			}
			c.Close()
		}
	}
	if most := maxSockets(); most > 0 && !(x.sharesSockets() && x.allUDP()) && r.Plan.Clients > most-spareFiles {
		return nil, refuse("%d clients want a socket each, this machine allows this process %d (ulimit -n)", r.Plan.Clients, most-spareFiles)
	}
	if low, high := localPorts(); high > 0 && !x.bind.IsValid() {
		if most := (high - low + 1) * len(r.Targets); r.Plan.Clients > most {
			return nil, refuse("%d clients of one address want a port each, this machine has %d for %d targets (net.ipv4.ip_local_port_range); --bind a network for them", r.Plan.Clients, most, len(r.Targets))
		}
	}
	if r.RoundTrips && len(r.Plan.RoundTrips) == 0 {
		return nil, errors.New("replay: the plan has no round-trip times: squall plan --round-trips takes them from the capture")
	}
	if len(r.Script) > 0 && r.Do == nil {
		return nil, errors.New("replay: a script needs targets that can be told what to do")
	}
	if d := x.real(r.Plan.Duration); d > x.caps.MaxDuration {
		return nil, refuse("the plan lasts %v, the cap is %v (--max-duration, or --speed)", d.Round(time.Second), x.caps.MaxDuration)
	}
	return x, nil
}

// real is how long a time of the recording lasts in this run.
func (x *running) real(d time.Duration) time.Duration { return time.Duration(float64(d) / x.speed) }

// then is the time of the recording that a moment of this run stands for.
func (x *running) then(at time.Duration) int64 { return x.begin + int64(float64(at)*x.speed) }

func (x *running) now() time.Duration { return time.Since(x.epoch) }

// errFinished ends a run that is simply over.
var errFinished = errors.New("finished")

// Run sends. It returns when the plan is over and every attempt decided, when
// ctx is cancelled, or when a cap, the guard or the target's collapse stops it;
// the summary says which. The error is what kept it from starting, or a *Refusal.
func (r *Runner) Run(ctx context.Context) (*Summary, error) {
	x, err := r.prepare()
	if err != nil {
		return nil, err
	}
	inner, stop := context.WithCancelCause(ctx)
	defer stop(errFinished)
	x.ctx, x.stop = inner, stop
	length := min(x.real(r.Plan.Duration), x.caps.MaxDuration)
	x.seconds = make([]atomic.Int64, length/time.Second+3600)
	x.tenCount = int(length/(10*time.Second)) + 2
	x.clients = make([]actor, r.Plan.Clients)
	for i := range r.Plan.Items {
		x.gone.add(r.Plan.Items[i].Client, r.Plan.Items[i].Gone, r.Plan.Items[i].At)
	}
	for i := range x.clients {
		a := &x.clients[i]
		a.id, a.timer.a = int32(i), a
		if x.bind.IsValid() {
			a.addr = addressOf(x.bind, i)
		}
		if r.RoundTrips {
			a.trip = x.tripOf(int32(i))
		}
	}
	shared := 0
	if x.sharesSockets() {
		shared = sharedIntents
		if x.open {
			shared = sharedAttempts
		}
	}
	threads := workerCount()
	if r.Realtime != nil {
		threads = r.Realtime.threads
	}
	for i := range threads {
		w, err := x.newWorker(int32(i), shared)
		if err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
		defer w.close()
		x.workers = append(x.workers, w)
	}
	cpu := cpuTime()
	x.losses, x.lossesKnown = readLosses()
	for i := range x.targets {
		if x.targets[i].at.Addr().IsLoopback() {
			x.counts = countTargets(x.targets)
			break
		}
	}
	x.epoch = time.Now()
	unblock := context.AfterFunc(inner, func() {
		x.over.Store(true)
		for _, w := range x.workers {
			w.poll.Wake()
		}
	})
	defer unblock()
	var aside sync.WaitGroup
	aside.Go(x.watch)
	aside.Go(x.play)
	x.results, x.empties = make(chan []Result, emitWaiting), make(chan []Result, emitWaiting)
	var writer sync.WaitGroup
	writer.Go(x.write)
	for _, w := range x.workers {
		if x.Realtime == nil {
			aside.Go(w.loop)
			continue
		}
		aside.Add(1)
		x.Realtime.work <- func() {
			defer aside.Done()
			w.loop()
		}
	}
	// Until the plan's time is over; clients that would try for ever are stopped
	// then, and what is under way is decided as its clients' patience has it.
	if x.wait(length) {
		x.closing.Store(true)
		x.drain(length)
	}
	stop(errFinished)
	aside.Wait()
	close(x.results)
	writer.Wait()
	return x.summary(cpu), x.refusal()
}

// drain waits for what is in flight when the plan's time is over, and for the
// items of its last moment.
func (x *running) drain(length time.Duration) {
	patience := time.Duration(0)
	for i := range x.Plan.Groups {
		patience = max(patience, x.real(x.Plan.Groups[i].Policy.Patience()))
	}
	for end := min(length+patience+drainGrain, x.caps.MaxDuration); x.now() < end; {
		begun, inFlight := x.sum(func(t *counters) *atomic.Int64 { return &t.begun }), x.sum(func(t *counters) *atomic.Int64 { return &t.inFlight })
		if begun == int64(len(x.Plan.Items)) && inFlight == 0 || !x.wait(x.now()+drainGrain) {
			return
		}
	}
}

// describe fills what every row says of the target.
func (t *target) describe() {
	t.endpoint = dissect.Endpoint{Addr: dissect.AddrFrom(t.at.Addr()), Port: t.at.Port()}
	if t.protocol = t.node.Protocol; t.protocol == "tcp" || t.protocol == "udp" {
		t.protocol = ""
	}
	t.role, _ = dissect.ParseRole(t.node.Role)
	t.proto = uint8(dissect.ProtoTCP)
	if t.dialect.Transport() == dissect.UDP {
		t.proto = dissect.ProtoUDP
	}
}

func (x *running) refusal() error {
	var no *Refusal
	if errors.As(context.Cause(x.ctx), &no) {
		return no
	}
	return nil
}

// sharesSockets: UDP to IPv4 targets, each client with an address.
func (x *running) sharesSockets() bool {
	if !x.bind.IsValid() || !x.bind.Addr().Is4() {
		return false
	}
	udp := false
	for i := range x.targets {
		t := &x.targets[i]
		if t.dialect.Transport() == dissect.UDP {
			udp = true
			if !t.at.Addr().Is4() {
				return false
			}
		}
	}
	return udp
}

// allUDP: no client needs a connection.
func (x *running) allUDP() bool {
	for i := range x.targets {
		if x.targets[i].dialect.Transport() != dissect.UDP {
			return false
		}
	}
	return true
}

// wait sleeps until a moment of the run; false when it is over before.
func (x *running) wait(until time.Duration) bool {
	left := until - x.now()
	if left <= 0 {
		return x.ctx.Err() == nil
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-x.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// play makes the script happen.
func (x *running) play() {
	for _, e := range x.Script {
		if !x.wait(x.real(e.At)) {
			return
		}
		if err := x.Do(e); err != nil {
			x.stop(fmt.Errorf("script: %v: %w", e, err))
			return
		}
	}
}

// watch looks once a second: progress, caps, collapse.
func (x *running) watch() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var sent, good, bad [collapseSeconds]int64
	var lastSent, lastGood, lastBad int64
	for n := 0; ; n++ {
		select {
		case <-x.ctx.Done():
			return
		case <-tick.C:
		}
		s, g, b := x.sum(func(t *counters) *atomic.Int64 { return &t.sent }), int64(0), int64(0)
		late := time.Duration(0)
		for _, w := range x.workers {
			late = max(late, time.Duration(w.tally.late99.Load())*time.Microsecond)
			g += w.tally.outcomes[dissect.OutcomeAccepted].Load()
			for o := range w.tally.outcomes {
				if dissect.Outcome(o).Failed() {
					b += w.tally.outcomes[o].Load()
				}
			}
		}
		k := n % collapseSeconds
		sent[k], good[k], bad[k] = s-lastSent, g-lastGood, b-lastBad
		lastSent, lastGood, lastBad = s, g, b
		var all, served, failed int64
		for i := range sent {
			all, served, failed = all+sent[i], served+good[i], failed+bad[i]
		}
		if x.Progress != nil {
			x.Progress(Progress{Elapsed: x.now(), Due: x.sum(func(t *counters) *atomic.Int64 { return &t.begun }), Sent: s,
				InFlight: x.sum(func(t *counters) *atomic.Int64 { return &t.inFlight }), Sessions: x.sum(func(t *counters) *atomic.Int64 { return &t.sessions }),
				Accepted: good[k], Failed: bad[k], Lateness: late})
		}
		switch {
		case x.now() > x.caps.MaxDuration:
			x.stop(fmt.Errorf("the cap of %v is reached (--max-duration)", x.caps.MaxDuration))
		case x.sum(func(t *counters) *atomic.Int64 { return &t.bytes }) > x.caps.MaxBytes:
			x.stop(fmt.Errorf("the cap of %d bytes is reached (--max-bytes)", x.caps.MaxBytes))
		case x.UntilCollapse:
		case n >= collapseSeconds && all >= collapseAttempts && failed >= collapseAttempts/2 && float64(served) < collapseShare*float64(all):
			x.stop(fmt.Errorf("the targets collapsed: %d of %d attempts of the last %d s were served (--until-collapse goes on)", served, all, collapseSeconds))
		case n >= collapseSeconds && late > 20*latenessMost:
			x.stop(fmt.Errorf("this machine sends %v late and loads its targets for nothing", late))
		}
	}
}

// may counts an attempt against the rate cap.
func (x *running) may() bool {
	s := int(x.now() / time.Second)
	if s >= len(x.seconds) {
		return false
	}
	if float64(x.seconds[s].Add(1)) > math.Ceil(x.caps.MaxRate) {
		x.seconds[s].Add(-1)
		return false
	}
	return true
}

func (x *running) summary(cpu time.Duration) *Summary {
	s := &Summary{PlanHash: x.Plan.Hash(), Mode: x.Plan.Mode, Begin: x.epoch, Elapsed: x.now(), Planned: int64(len(x.Plan.Items)), Realtime: x.Realtime != nil}
	lateness, accept := hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3), hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3)
	tens := make([]int64, x.tenCount)
	for _, w := range x.workers {
		t := &w.tally
		s.Begun += t.begun.Load()
		s.Skipped += t.skipped.Load()
		s.Attempts += t.sent.Load()
		s.Retries += t.retries.Load()
		s.Lost += t.lost.Load()
		s.Late += t.late.Load()
		s.BytesSent += t.bytes.Load()
		s.Unsent += t.unsent.Load()
		s.Local += t.local.Load()
		for i := range t.outcomes {
			s.Outcomes[i] += t.outcomes[i].Load()
		}
		for i := range w.tens {
			tens[i] += w.tens[i]
		}
		lateness.Merge(w.lateness)
		accept.Merge(w.accept)
	}
	for i := range x.seconds {
		s.PeakRate = max(s.PeakRate, x.seconds[i].Load())
	}
	us := func(h *hdrhistogram.Histogram, q float64) time.Duration {
		return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond
	}
	s.LatenessP50, s.LatenessP99, s.LatenessMax = us(lateness, 50), us(lateness, 99), time.Duration(lateness.Max())*time.Microsecond
	s.AcceptP50, s.AcceptP95, s.AcceptP99 = us(accept, 50), us(accept, 95), us(accept, 99)
	s.CPU = (cpuTime() - cpu).Seconds() / max(s.Elapsed.Seconds(), 1e-9) / float64(runtime.NumCPU())
	seen := map[string]bool{}
	for i := range x.targets {
		if d := x.targets[i].dialect; !seen[d.Name()] {
			seen[d.Name()] = true
			if s.Work != "" {
				s.Work += "; "
			}
			s.Work += d.Name() + ": " + d.Work()
		}
	}
	if cause := context.Cause(x.ctx); !errors.Is(cause, errFinished) {
		s.Stopped = cause.Error()
		if errors.Is(cause, context.Canceled) {
			s.Stopped = "interrupted"
		}
	}
	s.Trust = x.Plan.Trust()
	for i := range x.targets {
		x.lossesKnown = x.lossesKnown && x.targets[i].at.Addr().IsLoopback()
	}
	if after, ok := readLosses(); ok && x.lossesKnown {
		l := after.since(x.losses)
		s.Losses = &l
	}
	if x.counts != nil {
		for i, c := range since(countTargets(x.targets), x.counts) {
			if x.targets[i].at.Addr().IsLoopback() {
				s.Counts = append(s.Counts, c)
			}
		}
	}
	s.Invalid = x.gates(s, tens)
	return s
}

// gates are the reasons for which the run says nothing about its targets.
func (x *running) gates(s *Summary, tens []int64) (why []string) {
	if s.LatenessP99 > latenessMost {
		hint := ""
		if !s.Realtime && s.CPU <= cpuMost {
			hint = "; others kept this machine busy: a lower --speed asks less of it, --realtime (not with --fixes) lets the sender go first"
		}
		why = append(why, fmt.Sprintf("one attempt in a hundred was sent more than %v late (at most %v)%s", s.LatenessP99, latenessMost, hint))
	}
	if s.Unsent > 0 {
		why = append(why, fmt.Sprintf("%d attempts were due and not sent: the cap is --max-rate %.0f", s.Unsent, x.caps.MaxRate))
	}
	if s.Local > 0 {
		why = append(why, fmt.Sprintf("%d attempts failed on this machine's own sockets", s.Local))
	}
	if s.CPU > cpuMost && s.Elapsed >= cpuShortest {
		why = append(why, fmt.Sprintf("this process used %.0f %% of the machine (at most %.0f %%)", s.CPU*100, cpuMost*100))
	}
	if s.Stopped == "" && s.Begun < s.Planned {
		why = append(why, fmt.Sprintf("%d of %d items were not begun", s.Planned-s.Begun, s.Planned))
	}
	planned := make([]int64, len(tens))
	for i := range x.Plan.Items {
		if k := int(x.real(x.Plan.Items[i].At) / (10 * time.Second)); k < len(planned) {
			planned[k]++
		}
	}
	for k := range planned {
		if off := planned[k] - tens[k]; s.Stopped == "" && float64(max(off, -off)) > max(rateErrorMost*float64(planned[k]), rateErrorLess) {
			why = append(why, fmt.Sprintf("%d of %d items from second %d on", tens[k], planned[k], 10*k))
			break
		}
	}
	return why
}

// addressRoom is how many clients a prefix has addresses for.
func addressRoom(p netip.Prefix) int {
	bits := p.Addr().BitLen() - p.Bits()
	if bits > 24 {
		bits = 24
	}
	n := 1 << bits
	if p.Addr().Is4() {
		n -= 2
		if p.Addr().IsLoopback() && p.Bits() == 8 {
			n -= 1 << 16 // 127.0.0.0/16 is left to nodes
		}
	}
	return n
}

// addressOf is the address of the i-th client.
func addressOf(p netip.Prefix, i int) netip.Addr {
	n := uint32(i + 1)
	if p.Addr().IsLoopback() && p.Bits() == 8 {
		n += 1 << 16
	}
	b := p.Masked().Addr().As16()
	for k := 15; n > 0; k-- {
		b[k] |= byte(n)
		n >>= 8
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		a = a.Unmap()
	}
	return a
}
