package replay

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

// PlanVersion is the version of the plan file: JSON lines, the header first,
// then an Item a line. docs/decisions/0006-plan-file.md has the reasons.
const PlanVersion = 2

// Plan is what to replay.
type Plan struct {
	Header
	Items []Item // by offset, then client
	hash  string
	// wanted are the attempts whose first bytes Learn looks for.
	wanted map[flowKey]*wanted
	// secrets stay in what Learn finds.
	secrets bool
	account *ledger // nil: it was read from a file
}

// Header describes a plan.
type Header struct {
	Version  int           `json:"squall_plan"`
	Mode     string        `json:"mode"`
	Seed     uint64        `json:"seed"`
	Begin    int64         `json:"recorded_begin_ns"` // of the recording, ns since the epoch: offset 0
	Duration time.Duration `json:"duration_ns"`
	Clients  int           `json:"clients"`
	Nodes    []PlanNode    `json:"nodes"`
	// RoundTrips are those of the recorded clients' TCP handshakes, as quantiles
	// in even steps from the shortest to the longest; empty = nobody asked.
	RoundTrips []time.Duration `json:"round_trips_ns,omitempty"`
	Groups     []Group         `json:"groups"`
	// Recorded are the addresses of the capture; none of them is sent to.
	Recorded []netip.Addr `json:"recorded_addresses"`
	Sources  []string     `json:"captures,omitempty"`
	Coverage Coverage     `json:"coverage"`
}

// PlanNode is a node of the recording.
type PlanNode struct {
	Address  string `json:"address"` // as it was recorded
	Protocol string `json:"protocol"`
	Role     string `json:"role,omitempty"`
	Dialect  string `json:"dialect"`
	// Joined is when clients first asked it, where they had moved between the
	// other nodes often enough to have asked it before, had they known it. No
	// client of a replay asks it earlier. 0 = known from the beginning.
	Joined time.Duration `json:"joined_ns,omitempty"`
	// Recorded: it is asked with Templates, what its clients sent first.
	Recorded  bool       `json:"recorded,omitempty"`
	Templates []Template `json:"templates,omitempty"`
}

// Group is a set of clients that retry alike.
type Group struct {
	Name    string `json:"name"` // client version, or "all"
	Service string `json:"service"`
	Policy  Policy `json:"policy"`
	// Basis is where the policy comes from: "inferred" by the analysis,
	// "recorded" waits, "assumed" where nobody retried.
	Basis   string        `json:"basis"`
	Refresh time.Duration `json:"refresh_ns,omitempty"` // period within a session, 0 = none seen
	// Keepalive is how often a session over TCP shows life, 0 = too few were seen.
	Keepalive time.Duration `json:"keepalive_ns,omitempty"`
	// Limit says how far the capture shows after how many attempts clients give
	// up, "" = it was seen, or given.
	Limit string `json:"limit_seen,omitempty"`
}

// Item is a wish of a client (intent mode) or an attempt (attempt mode).
type Item struct {
	At      time.Duration `json:"at"` // from the beginning
	Client  int32         `json:"c"`
	Node    int32         `json:"n"` // asked first
	Group   int32         `json:"g"`
	Hold    time.Duration `json:"hold,omitempty"` // of its session, 0 = until it is lost
	Restart bool          `json:"restart,omitempty"`
	// Gone is since when the client had been away, 0 = it had not: from then on
	// to At it neither retries nor reattaches.
	Gone    time.Duration `json:"gone,omitempty"`
	Outcome string        `json:"was"` // recorded
}

// PlanOptions choose what becomes part of a plan.
type PlanOptions struct {
	Mode     Mode
	Seed     uint64
	Service  string        // only this one, "" = all
	From, To time.Duration // of the recording, To 0 = its end
	// ScaleClients multiplies whole clients: below 1 some are left out, above
	// 1 they get fresh twins. 0 = 1.
	ScaleClients float64
	Overrides    []Override
	Sources      []string
	// Payloads asks nodes whose protocol squall does not speak with recorded
	// bytes, where those may be said again; Learn must follow. Credentials in
	// them are blanked, unless KeepSecrets.
	Payloads, KeepSecrets bool
	// Virtual plans nodes of any protocol, for a World; nothing can be sent to
	// those that no dialect speaks.
	Virtual bool
}

const (
	// planClients bounds a plan.
	planClients = 1 << 22
	// waitsKept is how many recorded waits of a group are kept, evenly over the
	// time; quantilesKept how many numbers remain of them.
	waitsKept     = 4096
	quantilesKept = 21
	waitsToLearn  = 10
	quitLeast     = 10 * time.Second
	patienceLeast = 100 * time.Millisecond
	twinShift     = time.Second // a twin client comes this much later at most
)

// Reasons for which recorded demand is not in a plan.
const (
	leftRefresh  = "refreshes: the sessions of the replay make their own"
	leftLoop     = "reattachments of clients whose node ended the session"
	leftAlone    = "of clients whose sessions no intent of the plan begins"
	leftParallel = "parallel twins: one dial an intent is made"
	leftMonitor  = "health checks of monitors: no demand"
	leftWindow   = "outside the window"
	leftService  = "another service"
	leftScaled   = "clients left out by --scale-clients"
)

type nodeKey struct {
	at    dissect.Endpoint
	proto uint8
}

// planned is what is gathered of an intent while the attempts go by.
type planned struct {
	start     int64
	client    string
	version   string
	node      nodeKey
	lastEnd   int64
	lastStart int64
	count     int32
	relation  dissect.Relation
	outcome   dissect.Outcome
	censored  bool
	// of the session that it led to
	sessionFrom, sessionEnd int64
	ended                   dissect.SessionEnd
	aborted                 bool  // the client gave the session up with RST: it had lost it
	seen                    int64 // last packet of the session
}

// learnt is what the attempts of a group show of its policy (storms.md section
// 3.3): after a failure whose time is known the pause is the wait, after
// silence only the sum of patience and wait can be seen.
type learnt struct {
	waits    kept
	timeouts kept // patience where the client was seen to give up
	sums     kept
	gaps     kept // between refreshes
	retries  int64
	moved    int64
	lives    kept            // between signs of life in a session
	quit     map[int32]int64 // intents given up after so many attempts
	past     map[int32]int64 // intents by attempts that were not given up, as far as one saw
	longest  int32           // attempts of an intent
}

// builder gathers a plan.
type builder struct {
	opt      PlanOptions
	plan     *Plan
	begin    int64
	end      int64
	nodes    map[nodeKey]int32
	tries    map[int32]int      // attempts whose first bytes are looked for, by node
	refused  map[nodeKey]string // why a node's protocol cannot be asked
	service  map[nodeKey]string
	moves    map[string]int // failovers, by service
	first    map[nodeKey]sighting
	groups   map[[2]string]int32
	learnt   []*learnt
	intents  map[uint64]*planned
	order    []uint64 // of the intents
	ledger   *ledger
	lastOf   map[string]int64 // client and node: last refresh
	recorded map[dissect.Addr]bool
	seconds  map[int64]int64
}

// sighting is the first attempt at a node, and how often clients of the service
// had moved by then.
type sighting struct {
	at    int64
	moves int
}

// joinedMoves for each node of the plan: among clients that choose at random a
// node that all of them know is missed so often once in 150 times.
const joinedMoves = 5

// NewPlan takes the demand from an analysis. report may be nil; then the
// policies are the recorded waits.
func NewPlan(a *pipeline.Analysis, report *storm.Report, opt PlanOptions) (*Plan, error) {
	if opt.Mode == PacketMode {
		return nil, errors.New("plan: packet mode replays the capture itself; give it to replay")
	}
	if opt.ScaleClients == 0 {
		opt.ScaleClients = 1
	}
	if !(opt.ScaleClients > 0 && opt.ScaleClients <= 1000) {
		return nil, fmt.Errorf("plan: scale %v: want above 0 and at most 1000", opt.ScaleClients)
	}
	first, last := a.Span()
	b := &builder{opt: opt, begin: first + int64(opt.From), end: last, nodes: map[nodeKey]int32{}, tries: map[int32]int{}, refused: map[nodeKey]string{},
		service: map[nodeKey]string{}, groups: map[[2]string]int32{}, intents: map[uint64]*planned{}, lastOf: map[string]int64{},
		ledger: newLedger(), recorded: map[dissect.Addr]bool{}, seconds: map[int64]int64{}, moves: map[string]int{}, first: map[nodeKey]sighting{}}
	b.end++ // what began with the last packet is wanted, too
	if opt.To > 0 {
		b.end = min(b.end, first+int64(opt.To))
	}
	if b.end <= b.begin {
		return nil, fmt.Errorf("plan: the window holds nothing of the capture's %v", time.Duration(last-first))
	}
	b.plan = &Plan{Header: Header{Version: PlanVersion, Mode: opt.Mode.String(), Seed: opt.Seed, Begin: b.begin, Duration: time.Duration(b.end - b.begin),
		Sources: opt.Sources, Coverage: Coverage{Outcomes: map[string]int64{}}}}
	for t, err := range a.Attempts() {
		if err != nil {
			return nil, err
		}
		b.attempt(t)
	}
	if b.ledger.attempts == 0 {
		return nil, errors.New("plan: no attempt was recorded: the captures hold no beginning of a connection and no request of a client")
	}
	b.policies(report)
	if opt.Mode == IntentMode {
		b.wishes()
	}
	if err := b.finish(); err != nil {
		return nil, err
	}
	return b.plan, b.plan.Check()
}

// attempt takes one row, in the order of starts.
func (b *builder) attempt(t *dissect.Attempt) {
	b.recorded[t.Source.Addr] = true
	b.recorded[t.Destination.Addr] = true
	c := &b.plan.Coverage
	c.Outcomes[t.Outcome.String()]++
	b.seconds[t.Start/1e9]++
	node := nodeKey{t.Destination, t.Proto}
	if _, ok := b.first[node]; !ok {
		b.first[node] = sighting{t.Start, b.moves[t.Service]}
	}
	if t.Relation == dissect.RelationFailover {
		b.moves[t.Service]++
	}
	why := b.leaves(node, t)
	b.ledger.read(t, why)
	if why != "" && why != leftParallel && why != leftRefresh {
		return
	}
	if n := b.nodes[node]; b.plan.Nodes[n].Recorded && t.Answer != dissect.AnswerNone && b.tries[n] < templateTries {
		if b.plan.wanted == nil {
			b.plan.wanted, b.plan.secrets = map[flowKey]*wanted{}, b.opt.KeepSecrets
		}
		if k := (flowKey{t.Source, t.Destination, t.Proto}); b.plan.wanted[k] == nil {
			b.plan.wanted[k] = &wanted{node: n, start: t.Start}
			b.tries[n]++
		}
	}
	g := b.group(t)
	l := b.learnt[g]
	key := t.ClientID + "\x00" + t.Destination.String()
	if t.Relation == dissect.RelationRefresh {
		if was, ok := b.lastOf[key]; ok {
			l.gaps.add(time.Duration(t.Start - was))
		}
		b.lastOf[key] = t.Start
	}
	if d := beatOf(t); d > 0 {
		l.lives.add(d)
	}
	if t.Outcome == dissect.OutcomeStalled {
		l.timeouts.add(time.Duration(t.End - t.Start))
	}
	if b.opt.Mode == AttemptMode {
		b.plan.Items = append(b.plan.Items, Item{At: time.Duration(t.Start - b.begin), Client: -1, Node: b.nodes[node], Group: g,
			Hold: time.Duration(max(t.SessionEnd-t.End, 0)), Outcome: t.Outcome.String()})
		b.ledger.plan(hash(t.ClientID), t.IntentID, 1)
		return
	}
	if why != "" {
		return
	}
	in := b.intents[t.IntentID]
	if in == nil {
		in = &planned{start: t.Start, client: t.ClientID, version: t.ClientVersion, node: node, relation: t.Relation, censored: t.Censored}
		b.intents[t.IntentID] = in
		b.order = append(b.order, t.IntentID)
	} else {
		if in.outcome == dissect.OutcomeTimeout || in.outcome == dissect.OutcomeUnknown {
			l.sums.add(time.Duration(t.Start - in.lastStart))
		} else {
			l.waits.add(time.Duration(max(t.Start-in.lastEnd, 0)))
		}
		l.retries++
		if t.Relation == dissect.RelationFailover {
			l.moved++
		}
	}
	in.count++
	in.lastStart, in.lastEnd, in.outcome = t.Start, t.End, t.Outcome
	if t.Outcome == dissect.OutcomeAccepted {
		b.lastOf[key] = t.Start
		in.sessionFrom, in.sessionEnd, in.ended = t.End, t.SessionEnd, t.SessionEnded
		in.aborted = t.SessionEnded == dissect.SessionByClient && strings.Contains(t.History, "R")
		in.seen = t.LastSeen
	}
}

// leaves says why a row is no part of the plan, "" = it is. Refreshes and
// parallel twins still tell of their clients.
func (b *builder) leaves(node nodeKey, t *dissect.Attempt) string {
	switch {
	case b.opt.Service != "" && t.Service != b.opt.Service:
		return leftService
	case t.Start < b.begin || t.Start >= b.end:
		return leftWindow
	case t.Relation == dissect.RelationMonitor:
		return leftMonitor
	}
	why := b.node(node, t)
	switch {
	case why != "" || b.opt.Mode == AttemptMode:
		return why
	case t.Relation == dissect.RelationParallel:
		return leftParallel
	case t.Relation == dissect.RelationRefresh:
		return leftRefresh
	}
	return ""
}

// beatOf is how often a session over TCP showed life, 0 = it was too short to
// tell. A sign is a packet there and one back; each side may acknowledge in a
// packet of its own, so the side that sent fewer counts.
func beatOf(t *dissect.Attempt) time.Duration {
	const (
		handshake = 3 // packets of either side up to the yes, about
		least     = 5 // signs
	)
	n := min(t.SourcePackets, t.DestinationPackets) - handshake
	if t.Proto != dissect.ProtoTCP || t.Outcome != dissect.OutcomeAccepted || n < least {
		return 0
	}
	return time.Duration((t.LastSeen - t.End) / n)
}

// kept is a sample of durations, evenly from all that came: where back-off
// grows, the first ones are the short ones.
type kept struct {
	list []time.Duration
	skip int // of those that come, before the next one is taken
	each int // of so many one is taken, 0 = 1
}

func (k *kept) add(d time.Duration) {
	if k.skip > 0 {
		k.skip--
		return
	}
	if len(k.list) == waitsKept { // every second one goes
		for i := range waitsKept / 2 {
			k.list[i] = k.list[2*i]
		}
		k.list = k.list[:waitsKept/2]
		k.each = 2 * max(k.each, 1)
	}
	k.list = append(k.list, d)
	k.skip = max(k.each, 1) - 1
}

// sorted is the sample, ascending; nothing may be added any more.
func (k *kept) sorted() []time.Duration {
	slices.Sort(k.list)
	return k.list
}

// node notes a node; why says that squall cannot ask it.
func (b *builder) node(k nodeKey, t *dissect.Attempt) (why string) {
	if _, ok := b.nodes[k]; ok {
		return ""
	}
	if why, ok := b.refused[k]; ok {
		return why
	}
	d, err := DialectOf(t)
	if b.opt.Virtual {
		d, err = plain{dissect.TCP}, nil
	}
	record := false
	if _, own := d.(plain); b.opt.Payloads && (own || err != nil) && slices.Contains(recordable, t.Protocol) {
		record, err = true, nil
		d, _ = FindDialect(transportName(t.Proto))
	}
	if err != nil {
		if !b.opt.Payloads && slices.Contains(recordable, t.Protocol) {
			err = fmt.Errorf("%s: squall makes no requests of it; --payloads sends the recorded ones again", t.Protocol)
		}
		b.refused[k] = err.Error()
		return err.Error()
	}
	b.nodes[k] = int32(len(b.plan.Nodes))
	b.service[k] = t.Service
	b.plan.Nodes = append(b.plan.Nodes, PlanNode{Address: k.at.String(), Protocol: cmp.Or(t.Protocol, transportName(k.proto)), Role: t.Role.String(), Dialect: d.Name(), Recorded: record})
	return ""
}

func (b *builder) group(t *dissect.Attempt) int32 {
	k := [2]string{t.ClientVersion, t.Service}
	g, ok := b.groups[k]
	if !ok {
		g = int32(len(b.plan.Groups))
		b.groups[k] = g
		b.plan.Groups = append(b.plan.Groups, Group{Name: cmp.Or(t.ClientVersion, "all"), Service: t.Service})
		b.learnt = append(b.learnt, &learnt{quit: map[int32]int64{}, past: map[int32]int64{}})
	}
	return g
}

// policies gives every group the policy that was inferred for it, else for
// everybody on its service, else what was recorded.
func (b *builder) policies(report *storm.Report) {
	// Whoever is silent for three of the longer waits has given up.
	quiet := make([]int64, len(b.learnt))
	for i, l := range b.learnt {
		all := slices.Concat(l.waits.list, l.sums.list)
		slices.Sort(all)
		quiet[i] = int64(max(quitLeast, 3*quantile(all, 0.95)))
	}
	for _, in := range b.intents {
		g := b.groups[[2]string{in.version, b.service[in.node]}]
		l := b.learnt[g]
		l.longest = max(l.longest, in.count)
		if in.outcome.Failed() && in.lastEnd+quiet[g] < b.end {
			l.quit[in.count]++
		} else {
			l.past[in.count]++
		}
	}
	for i := range b.plan.Groups {
		g := &b.plan.Groups[i]
		l := b.learnt[i]
		g.Policy, g.Basis = l.policy()
		if gaps := l.gaps.sorted(); len(gaps) >= waitsToLearn {
			g.Refresh = gaps[len(gaps)/2]
		}
		if lives := l.lives.sorted(); len(lives) >= waitsToLearn {
			g.Keepalive = lives[len(lives)/2].Round(time.Millisecond)
		}
		if report == nil {
			continue
		}
		var best *storm.Policy
		for k := range report.Policies {
			p := &report.Policies[k]
			if p.Service == g.Service && (p.Group == g.Name || p.Group == "all" && best == nil) {
				best = p
			}
		}
		if best == nil {
			continue
		}
		if p, ok := PolicyOf(best); ok {
			if p.Timeout == 0 {
				p.Timeout = g.Policy.Timeout
			}
			if p.Limit == 0 && p.Family != None {
				p.Limit = g.Policy.Limit
			}
			g.Policy, g.Basis = p, "inferred"
		}
	}
	if b.opt.Mode == IntentMode {
		for i := range b.plan.Groups {
			b.plan.Groups[i].Limit = b.learnt[i].limit(&b.plan.Groups[i].Policy)
		}
	}
	for i := range b.plan.Groups {
		for _, o := range b.opt.Overrides {
			if g := &b.plan.Groups[i]; o.Group == "" || o.Group == g.Name {
				o.Apply(&g.Policy)
				if g.Policy.Limit > 0 {
					g.Limit = ""
				}
			}
		}
	}
}

// limit says how far the capture shows the attempt limit.
func (l *learnt) limit(p *Policy) string {
	n := int64(0)
	for _, k := range l.quit {
		n += k
	}
	switch {
	case p.Family == None || p.Limit > 0:
		return ""
	case n < 2*waitsToLearn:
		return fmt.Sprintf("attempt limit not seen: %d intents were seen given up (want %d), the longest made %d attempts; without --override 'policy: limit N' clients go on to the end", n, 2*waitsToLearn, l.longest)
	}
	return fmt.Sprintf("no attempt limit: the %d intents that were given up stopped after different numbers of attempts, up to %d", n, l.longest)
}

// policy is what the recorded waits themselves say.
func (l *learnt) policy() (p Policy, basis string) {
	waits, timeouts, sums := l.waits.sorted(), l.timeouts.sorted(), l.sums.sorted()
	switch n := len(timeouts); {
	case n >= waitsToLearn:
		p.Timeout = timeouts[n/2]
	case len(sums) >= waitsToLearn && len(waits) >= waitsToLearn:
		p.Timeout = max(quantile(sums, 0.5)-quantile(waits, 0.5), patienceLeast)
	case len(sums) >= waitsToLearn: // which part is patience cannot be told
		p.Timeout = min(quantile(sums, 0.5), timeoutDefault)
	}
	if len(waits) < waitsToLearn {
		for _, d := range sums {
			waits = append(waits, max(d-p.Patience(), 0))
		}
		slices.Sort(waits)
	}
	if l.moved*5 > l.retries {
		p.Order = Random
	}
	// The attempt limit: the first k after which more than half of those that
	// got so far stopped (storms.md section 3.3). Those that were let in or
	// were still trying at their k-th attempt tell nothing of it.
	tried, stopped := int64(0), int64(0)
	for k, n := range l.past {
		if k > 1 {
			tried += n
		}
	}
	for _, n := range l.quit {
		tried, stopped = tried+n, stopped+n
	}
	for k := int32(1); k <= l.longest && stopped >= 2*waitsToLearn; k++ {
		if l.quit[k]*2 > tried {
			p.Limit = int(k)
			break
		}
		stopped -= l.quit[k]
		tried -= l.quit[k] + l.past[k+1]
	}
	if len(waits) < waitsToLearn {
		// Nobody was seen to retry: whoever fails is believed to stop.
		return p, "assumed"
	}
	p.Family = Empirical
	for i := range quantilesKept { // never the extremes: they are chains run together
		p.Waits = append(p.Waits, min(quantile(waits, (float64(i)+0.5)/quantilesKept).Round(time.Millisecond), waitMost))
	}
	return p, "recorded"
}

// wishes makes the items of an intent plan. What a reattachment is decides
// whether it is planned: one that followed a session that the node ended (or
// that the client found dead) arises again in the replay if the target does
// the same; one of a client that came back by itself is the client's own doing.
// So is what a client wants that had fallen silent among its retries though its
// kind never gives up: it was gone, and would have been had it been served.
func (b *builder) wishes() {
	type last struct{ in *planned }
	before := map[string]last{}
	for _, id := range b.order {
		in := b.intents[id]
		prev := before[in.client].in
		before[in.client] = last{in}
		restart := false
		if prev != nil && prev.outcome == dissect.OutcomeAccepted {
			lost := prev.ended == dissect.SessionByNode || prev.ended == dissect.SessionLost || prev.ended == dissect.SessionUnreachable || prev.aborted
			if lost {
				b.ledger.loop(hash(in.client), id, in.count)
				continue
			}
			restart = in.relation == dissect.RelationReattach
		}
		g := b.groups[[2]string{in.version, b.service[in.node]}]
		if prev != nil && prev.outcome.Failed() && b.groups[[2]string{prev.version, b.service[prev.node]}] == g {
			restart = b.plan.Groups[g].Policy.persists()
		}
		it := Item{At: time.Duration(in.start - b.begin), Client: -1, Node: b.nodes[in.node], Group: g, Restart: restart, Outcome: in.outcome.String()}
		if restart {
			it.Gone = max(min(b.gone(prev, g), it.At), 0)
		}
		b.ledger.plan(hash(in.client), id, in.count)
		if (in.ended == dissect.SessionByClient && !in.aborted || in.ended == dissect.SessionExpired) && in.sessionEnd > in.sessionFrom {
			it.Hold = time.Duration(in.sessionEnd - in.sessionFrom)
		}
		if in.censored {
			b.plan.Coverage.Censored++
		}
		b.plan.Items = append(b.plan.Items, it)
	}
}

// gone is when a client that came back by itself was last known to be there: it
// ended a try of which it had not got enough, or its session, which shows life
// at a known pace, fell silent. 0 = nobody knows.
func (b *builder) gone(prev *planned, group int32) time.Duration {
	if prev.outcome.Failed() {
		return time.Duration(prev.lastEnd - b.begin)
	}
	beat := b.plan.Groups[group].Keepalive
	if prev.outcome != dissect.OutcomeAccepted || prev.ended != dissect.SessionAlive || beat == 0 {
		return 0
	}
	return time.Duration(prev.seen-b.begin) + beat
}

// finish numbers the clients, scales them, and sorts.
func (b *builder) finish() error {
	numbers := map[uint64]int32{}
	whole := int(b.opt.ScaleClients)
	part := uint64((b.opt.ScaleClients - float64(whole)) * math.MaxUint32)
	type copied struct {
		Item
		origin int32
	}
	var items []copied
	next := int32(0)
	for i, it := range b.plan.Items {
		who := b.ledger.origins[i].client
		copies := whole
		if mix(b.opt.Seed, who)>>32 < part {
			copies++
		}
		if copies == 0 {
			b.ledger.drop(int32(i), leftScaled)
			continue
		}
		n, ok := numbers[who]
		if !ok {
			n = next
			numbers[who] = n
			if next += int32(copies); next > planClients {
				return fmt.Errorf("plan: more than %d clients", planClients)
			}
		}
		for k := range int32(copies) {
			twin := copied{it, int32(i)}
			twin.Client = n + k
			if k > 0 {
				twin.At = min(twin.At+time.Duration(mix(b.opt.Seed, who, uint64(k))%uint64(twinShift)), b.plan.Duration-1)
			}
			items = append(items, twin)
		}
	}
	slices.SortStableFunc(items, func(x, y copied) int { return cmp.Or(cmp.Compare(x.At, y.At), cmp.Compare(x.Client, y.Client)) })
	b.plan.Items = make([]Item, len(items))
	b.ledger.of = make([]int32, len(items))
	for i := range items {
		b.plan.Items[i], b.ledger.of[i] = items[i].Item, items[i].origin
	}
	p := b.plan
	for k, n := range b.nodes {
		if s := b.first[k]; s.at > b.begin && s.moves >= joinedMoves*len(b.nodes) {
			p.Nodes[n].Joined = time.Duration(s.at - b.begin)
		}
	}
	p.Clients, p.account = int(next), b.ledger
	p.Coverage.Planned = int64(len(items))
	b.ledger.fill(&p.Coverage)
	for _, n := range b.seconds {
		p.Coverage.Peak = max(p.Coverage.Peak, n)
	}
	for a := range b.recorded {
		p.Recorded = append(p.Recorded, a.IP())
	}
	slices.SortFunc(p.Recorded, netip.Addr.Compare)
	if len(items) == 0 {
		return errors.New("plan: the capture holds no demand that can be asked again" + p.leftOut())
	}
	return nil
}

// Addresses are those of the capture, none of which is sent to: the list that
// the plan has, and its nodes, should somebody have taken them out of the list.
func (p *Plan) Addresses() []netip.Addr {
	list := slices.Clone(p.Recorded)
	for i := range p.Nodes {
		if at, err := netip.ParseAddrPort(p.Nodes[i].Address); err == nil {
			list = append(list, at.Addr())
		}
	}
	return list
}

// leftOut is for an error: why there is nothing left.
func (p *Plan) leftOut() string {
	var s []string
	for _, why := range reasons(p.Coverage.LeftOut) {
		s = append(s, fmt.Sprintf("%d attempts: %s", p.Coverage.LeftOut[why].Attempts, why))
	}
	if len(s) == 0 {
		return ""
	}
	return ": " + strings.Join(s, "; ")
}

// Check reports what cannot be replayed.
func (p *Plan) Check() error {
	if p.Version != PlanVersion {
		return fmt.Errorf("plan: version %d, this squall reads %d", p.Version, PlanVersion)
	}
	if _, err := ParseMode(p.Mode); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	if p.Duration <= 0 || p.Clients < 0 || p.Clients > planClients {
		return fmt.Errorf("plan: duration %v, %d clients", p.Duration, p.Clients)
	}
	for i := range p.Groups {
		if err := p.Groups[i].Policy.Check(); err != nil {
			return fmt.Errorf("plan: group %s: %w", p.Groups[i].Name, err)
		}
	}
	for i := range p.Nodes {
		if _, ok := p.Nodes[i].Speaks(); !ok {
			return fmt.Errorf("plan: node %s: dialect %q is not known", p.Nodes[i].Address, p.Nodes[i].Dialect)
		}
	}
	for i := range p.Items {
		it := &p.Items[i]
		if it.Client < 0 || int(it.Client) >= p.Clients || it.Node < 0 || int(it.Node) >= len(p.Nodes) || it.Group < 0 || int(it.Group) >= len(p.Groups) ||
			it.At < 0 || it.Hold < 0 || i > 0 && it.At < p.Items[i-1].At {
			return fmt.Errorf("plan: item %d: client, node, group or time is out of range", i+1)
		}
	}
	return nil
}

// Write writes the plan file.
func (p *Plan) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	if err := enc.Encode(&p.Header); err != nil {
		return err
	}
	for i := range p.Items {
		if err := enc.Encode(&p.Items[i]); err != nil {
			return err
		}
	}
	return b.Flush()
}

// Hash names the plan: SHA-256 of its file. The dry run and the run show it.
func (p *Plan) Hash() string {
	if p.hash == "" {
		h := sha256.New()
		if p.Write(h) == nil {
			p.hash = hex.EncodeToString(h.Sum(nil))
		}
	}
	return p.hash
}

// Override changes the policies of the plan, and with them its hash.
func (p *Plan) Override(list []Override) error {
	for i := range p.Groups {
		for _, o := range list {
			if g := &p.Groups[i]; o.Group == "" || o.Group == g.Name {
				o.Apply(&g.Policy)
				if g.Policy.Limit > 0 {
					g.Limit = ""
				}
			}
		}
	}
	p.hash = ""
	return p.Check()
}

// Clone is a plan whose policies may be overridden apart; the items are shared.
func (p *Plan) Clone() *Plan {
	c := *p
	c.Groups = slices.Clone(p.Groups)
	return &c
}

// itemsMost bounds what a plan file may make us hold: 64 M items are 4 GiB.
const itemsMost = 1 << 24

// ReadPlan reads a plan file. Errors name the line, from 1.
func ReadPlan(r io.Reader) (*Plan, error) {
	dec := json.NewDecoder(bufio.NewReader(r))
	p := &Plan{}
	var first json.RawMessage
	err := dec.Decode(&first)
	if err == nil {
		var v struct {
			Version int `json:"squall_plan"`
		}
		if json.Unmarshal(first, &v) == nil && v.Version != PlanVersion && v.Version != 0 {
			return nil, (&Plan{Header: Header{Version: v.Version}}).Check()
		}
		err = json.Unmarshal(first, &p.Header)
	}
	if err != nil {
		return nil, fmt.Errorf("plan: line 1: %w", err)
	}
	for line := 2; ; line++ {
		var it Item
		err := dec.Decode(&it)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("plan: line %d: %w", line, err)
		}
		if len(p.Items) >= itemsMost {
			return nil, fmt.Errorf("plan: line %d: more than %d items", line, itemsMost)
		}
		p.Items = append(p.Items, it)
	}
	return p, p.Check()
}

// Wishes is the demand for a World.
func (p *Plan) Wishes() []Wish {
	w := make([]Wish, len(p.Items))
	for i := range p.Items {
		it := &p.Items[i]
		w[i] = Wish{At: it.At, Hold: it.Hold, Client: it.Client, Node: it.Node, Group: it.Group, Restart: it.Restart, Gone: it.Gone}
	}
	return w
}

// Policies are those of the groups, in their order.
func (p *Plan) Policies() (list []Policy) {
	for i := range p.Groups {
		list = append(list, p.Groups[i].Policy)
	}
	return list
}

// Peak is the highest number of planned items in a second.
func (p *Plan) Peak() (most int64) {
	n, second := int64(0), time.Duration(-1)
	for i := range p.Items {
		if s := p.Items[i].At / time.Second; s != second {
			second, n = s, 0
		}
		n++
		most = max(most, n)
	}
	return most
}

// Bytes is about how much the first attempts send, without headers.
func (p *Plan) Bytes() (n int64) {
	size := map[int32]int64{}
	for i := range p.Items {
		k := p.Items[i].Node
		if size[k] == 0 {
			d, _ := p.Nodes[k].Speaks()
			size[k] = int64(len(d.Request(nil, &Identity{Version: p.Groups[p.Items[i].Group].Name})))
		}
		n += size[k]
	}
	return n
}

// Exercises says, for each dialect, what its targets are made to do.
func (p *Plan) Exercises() (list []string) {
	seen := map[string]bool{}
	for i := range p.Nodes {
		if d, ok := p.Nodes[i].Speaks(); ok && !seen[d.Name()] {
			seen[d.Name()] = true
			list = append(list, d.Name()+": "+d.Work())
		}
	}
	return list
}

// Digest is a plan without its items and recorded addresses, as JSON has it.
type Digest struct {
	Header
	Hash      string   `json:"plan_sha256"`
	Items     int      `json:"items"`
	Peak      int64    `json:"peak_items_per_second"`
	Bytes     int64    `json:"first_sends_bytes"`
	Exercised []string `json:"exercised"`
	Trust     string   `json:"policies"`
	// Recorded is left out.
	Recorded []netip.Addr `json:"recorded_addresses,omitempty"`
}

// Digest sums the plan up.
func (p *Plan) Digest() Digest {
	return Digest{Header: p.Header, Hash: p.Hash(), Items: len(p.Items), Peak: p.Peak(), Bytes: p.Bytes(), Exercised: p.Exercises(), Trust: p.Trust()}
}

// Summary is the plan in words.
func (p *Plan) Summary() string {
	var b strings.Builder
	c := &p.Coverage
	what := "intents"
	if p.Mode == AttemptMode.String() {
		what = "attempts"
	}
	fmt.Fprintf(&b, "mode        %s\nduration    %v\nclients     %d\n%-11s %d, at most %d in a second\n", p.Mode, p.Duration.Round(time.Millisecond), p.Clients, what, len(p.Items), p.Peak())
	fmt.Fprintf(&b, "recorded    %d attempts, at most %d in a second\n%s", c.Recorded.Attempts, c.Peak, c.Text())
	fmt.Fprintf(&b, "first sends about %d bytes\n", p.Bytes())
	fmt.Fprintf(&b, "nodes       %d\n", len(p.Nodes))
	for i, n := range p.Nodes {
		if i == 20 {
			fmt.Fprintf(&b, "            and %d more\n", len(p.Nodes)-i)
			break
		}
		fmt.Fprintf(&b, "  %3d       %s %s %s", i+1, n.Address, n.Protocol, n.Role)
		if n.Joined > 0 {
			fmt.Fprintf(&b, ", nobody knows it before %v", n.Joined.Round(time.Second))
		}
		if n.Recorded {
			fmt.Fprintf(&b, ", %d recorded requests", len(n.Templates))
			if blanked := n.blanked(); blanked > 0 {
				fmt.Fprintf(&b, ", credentials blanked in %d", blanked)
			}
		}
		fmt.Fprintln(&b)
	}
	if n := len(p.RoundTrips); n > 0 {
		fmt.Fprintf(&b, "round trips %v to %v, median %v\n", p.RoundTrips[0].Round(time.Microsecond), p.RoundTrips[n-1].Round(time.Microsecond), p.RoundTrips[n/2].Round(time.Microsecond))
	}
	fmt.Fprintf(&b, "policies\n")
	for i := range p.Groups {
		g := &p.Groups[i]
		fmt.Fprintf(&b, "  %s on %s: %v (%s)\n", g.Name, g.Service, tidy(g.Policy), g.Basis)
		if g.Limit != "" {
			fmt.Fprintf(&b, "    %s\n", g.Limit)
		}
		if g.Keepalive > 0 {
			fmt.Fprintf(&b, "    sessions show life every %v\n", g.Keepalive)
		}
		if g.Refresh > 0 {
			fmt.Fprintf(&b, "    refreshed every %v\n", g.Refresh.Round(time.Millisecond))
		}
	}
	for _, w := range p.Exercises() {
		fmt.Fprintf(&b, "exercises   %s\n", w)
	}
	if p.Mode == AttemptMode.String() {
		fmt.Fprintf(&b, "note        open loop: attempts come as recorded whatever the target does; a healthy target may be condemned\n")
	}
	fmt.Fprintf(&b, "plan        sha256 %s\n", p.Hash())
	return b.String()
}
