package storm

import (
	"cmp"
	"encoding/binary"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"squall/dissect"
)

const (
	// maxPages bounds the time lines of nodes to some 150 MB. Over it only the
	// nodes whose rank lies under a falling threshold keep a line, the same
	// ones wherever and in whatever order the parts were read.
	maxPages = 1 << 16
	// busiest is how many clients a report names.
	busiest = 20
)

// Config of a State; the zero value is the default.
type Config struct {
	Thresholds Thresholds
	// Zone is that of the times in Report.Shown; nil = UTC, and no such report.
	Zone *time.Location
	// Known gives how many attempts there were at a node, and whether it has a row of its
	// own; nil = all have. Left is how many have none: they count in the totals, in their
	// service and in the findings. Of what is kept of a share of the nodes, those with
	// most attempts are kept first.
	Known func(at dissect.Endpoint, proto uint8) (attempts int64, row bool)
	Left  int64
	// Baseline makes what the state is judged by, once everything is counted;
	// nil = what is calm in it.
	Baseline func(*State) (*Baseline, error)
}

// State is what was seen of all services so far. It is a dissect.Visitor, for
// one goroutine; Merge joins two that saw different clients.
type State struct {
	cfg      Config
	totals   Totals
	services map[string]*service
	nodes    map[nodeKey]*node
	rest     node   // stands for those without a row
	pages    int    // of all nodes
	keep     uint64 // nodes with a higher rank have no time line
	left     int64  // rows that found no line
	unnamed  int64  // clients
	top      []Client
	monitors []Monitor
	scenes   *scenes

	baseline  *Baseline         // that it is judged by; nil = what is calm in it
	calmNames map[string]string // services as the baseline calls them

	client  int64 // running number, to count each client once a window
	current Client
	watcher watcher
	shares  map[string]*share // of the client in hand, by service
	hand    *share            // the one of the last attempt
}

// share is what the client in hand does at one service.
type share struct {
	name     string
	service  *service // nil where only the client counts
	attempts int64
	standing bool // a session is open
	stand
}

type service struct {
	line
	Counts
	clients int64
}

type nodeKey struct {
	service string
	at      dissect.Endpoint
	proto   uint8
}

type node struct {
	Node
	line
	last int64 // client
	rank uint64
}

// spell is a stretch of time in which a client holds a session.
type spell struct{ from, to int64 }

// stand is a session of the client in hand.
type stand struct {
	spell
	at    *node // that it is with,
	since int64 // and since when
}

// NewState returns the neutral element.
func NewState(cfg Config) *State {
	return &State{cfg: cfg, services: map[string]*service{}, nodes: map[nodeKey]*node{}, keep: ^uint64(0),
		shares: map[string]*share{}, scenes: newScenes(&cfg)}
}

// Client begins the next client.
func (s *State) Client(c *dissect.Client) {
	s.finishClient()
	s.client++
	if c.Monitor {
		s.totals.Monitors++
	} else {
		s.totals.Clients++
	}
	if c.NATSuspect {
		s.totals.NATSuspects++
	}
	s.unnamed += count(c.Unnamed)
	s.current = Client{Client: *c, NeverIn: !c.Monitor}
	s.scenes.begin(c)
}

// Attempt takes the next row of the client.
func (s *State) Attempt(a *dissect.Attempt) {
	if a.Relation == dissect.RelationMonitor {
		s.check(a)
		return
	}
	h := s.summarise(a)
	if a.Relation.Counted() { // who asks anew, or still does, has lost what it had
		h.to = min(h.to, a.Start)
	}
	at := s.scenes.place(a)
	s.scenes.attempt(a, at)
	accepted := a.Outcome == dissect.OutcomeAccepted
	if accepted {
		switch {
		case a.Evidence == dissect.EvidenceApp:
			s.totals.AppAccepts++
		case a.Evidence == dissect.EvidenceSynAck, a.Proto == dissect.ProtoUDP && a.Answer == dissect.AnswerReply:
			s.totals.ByteAccepts++
		default:
			s.totals.AgeAccepts++
		}
	}
	sv := h.service
	if sv == nil {
		if sv = s.services[a.Service]; sv == nil {
			sv = &service{}
			s.services[a.Service] = sv
		}
		h.service = sv
		sv.clients++
	}
	sv.count(a)
	w, _ := sv.slot(a.Start)
	w.countFor(a, s.client)
	n := at.node
	if n == nil {
		n = s.node(at.key, a)
		at.node = n
	}
	if accepted {
		s.hold(h, n, a)
	}
	if n == &s.rest {
		return
	}
	n.First, n.Last = min(n.First, a.Start), max(n.Last, a.Start)
	n.count(a)
	n.BytesIn += a.SourceBytes
	n.BytesOut += a.DestinationBytes
	if stronger(a.Role, a.RoleSource, a.RoleProof, &n.Node) {
		n.Role, n.RoleSource, n.RoleProof = a.Role, a.RoleSource, a.RoleProof
	}
	if n.last != s.client {
		n.last = s.client
		n.Clients++
	}
	if n.rank > s.keep {
		s.left++
		return
	}
	w, fresh := n.slot(a.Start)
	w.countFor(a, s.client)
	if fresh {
		s.pages++
		s.shrink()
	}
}

func (s *State) summarise(a *dissect.Attempt) *share {
	s.current.count(a)
	h := s.hand
	if h == nil || h.name != a.Service {
		if h = s.shares[a.Service]; h == nil {
			h = &share{name: a.Service}
			s.shares[a.Service] = h
		}
		s.hand = h
	}
	h.attempts++
	if a.Outcome == dissect.OutcomeAccepted {
		s.current.NeverIn = false
	}
	return h
}

func (w *slot) countFor(a *dissect.Attempt, client int64) {
	w.count(a)
	if w.last != client && a.Relation.Counted() {
		w.last = client
		w.clients++
	}
}

// Intent takes an intent once it is closed.
func (s *State) Intent(i *dissect.Intent) {
	if i.Relation == dissect.RelationMonitor {
		return
	}
	if i.Censored {
		s.totals.Censored++
	}
	s.scenes.closed(i)
}

// hold lengthens the session of the client in hand, or begins another.
func (s *State) hold(h *share, n *node, a *dissect.Attempt) {
	to := a.SessionEnd
	if to == 0 {
		to = 1<<63 - 1
	}
	if h.standing && a.End <= h.to {
		h.to = to
		if h.at != n {
			s.stay(h.at, h.since, a.End)
			h.at, h.since = n, a.End
		}
		return
	}
	s.end(h)
	h.standing, h.stand = true, stand{spell{a.End, to}, n, a.End}
}

func (s *State) end(h *share) {
	if h.standing {
		h.service.stay(h.from, h.to)
		s.stay(h.at, h.since, h.to)
	}
}

// stay counts a session with a node.
func (s *State) stay(n *node, from, to int64) {
	if n.rank <= s.keep && n != &s.rest {
		s.pages += n.line.stay(from, to)
		s.shrink()
	}
}

func (s *State) finishClient() {
	s.scenes.end()
	if s.current.ID == "" {
		return
	}
	s.totals.add(&s.current.Counts)
	s.watched()
	best := int64(-1)
	for name, h := range s.shares {
		s.end(h)
		if n := h.attempts; n > best || n == best && name < s.current.Service {
			best, s.current.Service = n, name
		}
	}
	clear(s.shares)
	s.hand = nil
	s.rank(s.current)
	s.current = Client{}
}

// Summarise counts what one client did.
func Summarise(c *dissect.Client, attempts iter.Seq[*dissect.Attempt]) Client {
	s := NewState(Config{})
	s.Client(c)
	for a := range attempts {
		s.summarise(a)
	}
	s.finishClient()
	return s.top[0]
}

// rank keeps the busiest clients.
func (s *State) rank(c Client) {
	at, _ := slices.BinarySearchFunc(s.top, c, byAttempts)
	if at >= busiest {
		return
	}
	s.top = slices.Insert(s.top, at, c)
	s.top = s.top[:min(len(s.top), busiest)]
}

func byAttempts(a, b Client) int {
	return cmp.Or(cmp.Compare(b.Counts.Attempts, a.Counts.Attempts), strings.Compare(a.ID, b.ID))
}

func (s *State) node(k nodeKey, a *dissect.Attempt) *node {
	n := s.nodes[k]
	if n == nil {
		attempts, row := s.cfg.known(&k)
		if !row {
			return &s.rest
		}
		n = &node{Node: Node{At: a.Destination, Proto: a.Proto, Service: a.Service, Protocol: a.Protocol, Role: a.Role,
			RoleSource: a.RoleSource, RoleProof: a.RoleProof, First: a.Start, Last: a.Start, Generation: -1}, rank: k.rank(attempts)}
		s.nodes[k] = n
		s.totals.Nodes++
	}
	return n
}

func (cfg *Config) known(k *nodeKey) (attempts int64, row bool) {
	if cfg.Known == nil {
		return 1, true
	}
	return cfg.Known(k.at, k.proto)
}

// rank orders nodes by chance, those with more attempts rather at the front.
func (k *nodeKey) rank(attempts int64) uint64 { return k.hash() / uint64(max(attempts, 1)) }

func (k *nodeKey) hash() uint64 {
	b := binary.BigEndian.AppendUint16(k.at.Addr[:len(k.at.Addr):len(k.at.Addr)], k.at.Port)
	return dissect.Hash64(dissect.Hash64(uint64(k.proto), b), []byte(k.service))
}

// shrink halves the share of nodes that keep a time line until they fit.
func (s *State) shrink() {
	for s.pages > maxPages {
		s.keep >>= 1
		s.pages = 0
		for _, n := range s.nodes {
			if n.rank > s.keep {
				n.line = line{}
			}
			s.pages += len(n.pages)
		}
	}
}

// Merge adds o, which saw other clients and must not be used afterwards.
func (s *State) Merge(o *State) {
	s.finishClient()
	o.finishClient()
	t, u := &s.totals, &o.totals
	t.add(&u.Counts)
	t.Clients += u.Clients
	t.Censored += u.Censored
	t.AppAccepts += u.AppAccepts
	t.ByteAccepts += u.ByteAccepts
	t.AgeAccepts += u.AgeAccepts
	t.NATSuspects += u.NATSuspects
	t.Monitors += u.Monitors
	for name, v := range o.services {
		mine := s.services[name]
		if mine == nil {
			s.services[name] = v
			continue
		}
		mine.add(&v.Counts)
		mine.clients += v.clients
		mine.merge(&v.line)
	}
	for k, n := range o.nodes {
		mine := s.nodes[k]
		if mine == nil {
			s.nodes[k] = n
			s.totals.Nodes++
			s.pages += len(n.pages)
			continue
		}
		mine.First, mine.Last = min(mine.First, n.First), max(mine.Last, n.Last)
		mine.add(&n.Counts)
		mine.Clients += n.Clients
		mine.BytesIn += n.BytesIn
		mine.BytesOut += n.BytesOut
		if stronger(n.Role, n.RoleSource, n.RoleProof, &mine.Node) {
			mine.Role, mine.RoleSource, mine.RoleProof = n.Role, n.RoleSource, n.RoleProof
		}
		s.pages += mine.merge(&n.line)
	}
	s.left += o.left
	s.unnamed += o.unnamed
	s.scenes.merge(o.scenes)
	s.keep = min(s.keep, o.keep)
	for _, n := range s.nodes {
		if n.rank > s.keep && n.pages != nil {
			s.pages -= len(n.pages)
			n.line = line{}
		}
	}
	s.shrink()
	for _, c := range o.top {
		s.rank(c)
	}
	for _, m := range o.monitors {
		s.rankMonitor(m)
	}
	// The running numbers of the clients of both sides must not meet.
	s.client += o.client
}

// Report judges what was seen, after the last Merge.
func (s *State) Report(q Quality) *Report { return s.Under(s.cfg.Thresholds, q) }

// Under is the Report that other thresholds would give.
func (s *State) Under(th Thresholds, q Quality) *Report {
	s.finishClient()
	r := &Report{Begin: q.Begin, End: q.End, Totals: s.totals, Monitors: slices.Clone(s.monitors)}
	r.Totals.Nodes += s.cfg.Left
	for _, c := range s.top {
		if !c.Monitor {
			r.Clients = append(r.Clients, c)
		}
	}
	for _, name := range sortedKeys(s.services) {
		v := s.services[name]
		calm := calmIntents(&v.line)
		attached := int64(0)
		v.each(func(start int64, w *slot) {
			attached += w.joined - w.left
			row := Window{Start: start, Service: name, Counts: w.Counts, Clients: w.clients, Attached: attached}
			if calm > 0 {
				row.Surge = float64(w.Intents) / calm
				r.Totals.IntentSurge = max(r.Totals.IntentSurge, row.Surge)
			}
			r.Timeline = append(r.Timeline, row)
		})
	}
	nodes := slices.SortedFunc(maps.Values(s.nodes), func(a, b *node) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), a.At.Compare(b.At), cmp.Compare(a.Proto, b.Proto))
	})
	for _, n := range nodes {
		n.PeakRate = float64(n.peak()) / float64(WindowLength/1e9)
		attached := int64(0)
		n.each(func(start int64, w *slot) {
			attached += w.joined - w.left
			r.Timeline = append(r.Timeline, Window{Start: start, Service: n.Service, Node: n.At, Counts: w.Counts, Clients: w.clients, Attached: attached})
		})
		r.Nodes = append(r.Nodes, n.Node)
	}
	slices.SortStableFunc(r.Timeline, func(a, b Window) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), a.Node.Compare(b.Node), cmp.Compare(a.Start, b.Start))
	})
	slices.SortFunc(r.Nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(b.Attempts, a.Attempts), a.At.Compare(b.At), cmp.Compare(a.Proto, b.Proto), strings.Compare(a.Service, b.Service))
	})
	s.scenes.whole = s
	s.scenes.assemble(r, &q, th)
	s.against(r, &q)
	return r
}

// calmIntents is the median of the intents in the windows of a line that has
// enough of them to have a median; 0 = none.
func calmIntents(l *line) float64 {
	var all []int64
	l.each(func(_ int64, w *slot) {
		if w.Attempts > 0 {
			all = append(all, w.Intents)
		}
	})
	if len(all) < 6 {
		return 0
	}
	slices.Sort(all)
	return float64(all[len(all)/2]+all[(len(all)-1)/2]) / 2
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// stronger reports a role that is better founded than that of a node; of two
// that behaviour gives, the one with more proof.
func stronger(role dissect.Role, source dissect.RoleSource, proof float64, n *Node) bool {
	if source != n.RoleSource {
		return source > n.RoleSource
	}
	return source == dissect.RoleSourceBehaviour && (proof > n.RoleProof || proof == n.RoleProof && role > n.Role)
}
