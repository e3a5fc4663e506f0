package attempt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"

	"squall/dissect"
)

// Result gives the finished rows. A part of the clients is finished when it is
// asked for, so that only a few are in memory at a time; small results are
// kept. It may be read by several goroutines at once.
type Result struct {
	names      *Names
	hints      dissect.Hints
	begin, end int64
	store      *Store
	count      int64
	nodes      map[nodeKey]*nodeFacts
	sided      bool // only the clients' side was captured, of TCP
	mute       bool // no packet of any node was captured
	begun      bool // of TCP connections their begins and ends were captured, and nothing else
	deaf       []Interval
	moved      spool // records by the partition of the identity that is lent to them
	splits     int   // parts that each partition is finished in
	dropped    bool  // names were, that records may have
	monitors   map[askedBy]bool

	mu   sync.Mutex
	kept [Partitions]*part
}

// muteRows without a packet of any node are no chance.
const muteRows = 20

// repeatWithin is the longest that a client waits before it repeats a request of a
// protocol that does so for the second time (RFC 3261 timer E, RFC 5389 section 7.2.1).
const repeatWithin = 2 * second

// decided is what a node is, by its strongest votes.
type decided struct {
	protocol Name
	role     dissect.Role
	source   dissect.RoleSource
	oneSided bool
	rung     Name         // of records that have none, where the twin is a ladder's
	seems    dissect.Role // by behaviour
	proof    uint8        // of that, percent
	service  string       // of records that know no more than the node
}

// node is what one is; one that no record names is nothing.
func (x *Result) node(k nodeKey) *decided {
	if n := x.nodes[k]; n != nil {
		return &n.decided
	}
	return &nothing
}

var nothing decided

// part is what is finished at a time, by client, then start.
type part struct {
	names   *Names
	rows    []related
	spare   []related                 // to sort into
	older   map[dissect.Addr][]Record // sessions by client
	clients []client                  // by id
	intents []dissect.Intent
	keys    []orderKey
	people  people
	texts   map[string]string

	split   spool // a partition by the parts that it is finished in,
	divided int   // and its number, from 1; 0 = none
}

type orderKey struct {
	start  int64
	client int32
	at     int32
}

func (p *part) row(i int) *related { return &p.rows[i] }

type related struct {
	rec      Record
	lent     uint64 // identity, by its address; 0 = none
	id       uint64
	service  string
	gap      int64
	client   int32
	intent   int32
	number   int32
	relation dissect.Relation
	proof    uint8 // of a role by behaviour, percent
	twin     bool
	check    bool // of a monitor
	last     bool // of its intent
}

type client struct {
	dissect.Client
	from, to int  // of the rows
	learned  bool // Wait is from enough gaps
}

// Finalise closes the store; begin and end are the first and last packet times
// of the whole capture. An error is one of the temporary file.
func (s *Store) Finalise(names *Names, hints dissect.Hints, begin, end int64) (*Result, error) {
	x := &Result{names: names, hints: hints, begin: begin, end: end, store: s, deaf: s.deaf}
	seen := s.gather()
	x.count = seen.count
	x.splits = splitsOf(x.count, s.part)
	clients, versions := names.OneIn()
	x.dropped = max(clients, versions) > 1
	x.moved.limit, x.moved.ceiling = movedMemory, s.spool.ceiling
	var err error
	if x.nodes, err = s.whole(); err != nil {
		return nil, err
	}
	services := map[string]string{}
	for k, n := range x.nodes {
		d := decided{oneSided: n.oneSided && !n.answered}
		if n.known() {
			best := slices.MaxFunc(n.votes, func(a, b vote) int {
				return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.n, b.n),
					strings.Compare(names.String(a.protocol), names.String(b.protocol)), cmp.Compare(a.role, b.role))
			})
			d.protocol, d.role, d.source = best.protocol, best.role, best.source
		}
		d.service = intern(services, x.serviceOf(&Record{Destination: k.at, Proto: k.proto, Protocol: d.protocol, Role: d.role}))
		n.decided = d
	}
	x.neighbours()
	x.climb(names)
	of := &seen.sides
	x.mute = x.count >= muteRows && !of.answered
	x.sided = of.oneSided && !of.spoke
	x.begun = !of.went && of.shook >= muteRows
	if err := x.behave(); err != nil {
		return nil, err
	}
	if err := x.reunite(); err != nil {
		return nil, err
	}
	if err := x.watchdogs(); err != nil {
		return nil, err
	}
	return x, nil
}

// aFluke is how many of a node's clients are served in words that no protocol
// knows for one that seems to speak one: opaque bytes take any form now and then.
const aFluke = 50

// known reports that the protocol of some records is that of the node.
func (n *nodeFacts) known() bool {
	var all int64
	for _, v := range n.votes {
		if all += v.n; v.source == dissect.RoleSourceUser {
			return true
		}
	}
	return all > 0 && n.strange < aFluke*all
}

// unheard says that nobody listened for a part of the time that a record waited
// in since its last packet: the answer may have come then.
func (x *Result) unheard(r *Record) bool {
	i, _ := slices.BinarySearchFunc(x.deaf, r.LastSeen, func(d Interval, at int64) int { return cmp.Compare(d.End, at) })
	return i < len(x.deaf) && x.deaf[i].Start < max(r.End, r.LastSeen) && x.deaf[i].End > r.LastSeen
}

// neighbours names the nodes that never said a word, or had their kernel say no: they
// are taken for what all those are that speak at the same port, and a client's wish for
// such a one may be granted by any of them. Lists of peers are full of dead ones, and a
// reserve may be down before anybody needs it.
func (x *Result) neighbours() {
	type place struct {
		port  uint16
		proto uint8
	}
	known := map[place]decided{}
	mixed := map[place]bool{}
	for k, n := range x.nodes {
		if !n.spoke {
			continue
		}
		at := place{k.at.Port, k.proto}
		if old, ok := known[at]; ok && old.service != n.service {
			mixed[at] = true
		}
		known[at] = n.decided
	}
	for k, n := range x.nodes {
		d := &n.decided
		of, ok := known[place{k.at.Port, k.proto}]
		if !ok || mixed[place{k.at.Port, k.proto}] || n.spoke || n.known() || d.oneSided || of.protocol == 0 {
			continue
		}
		d.protocol, d.role, d.source, d.service = of.protocol, of.role, dissect.RoleSourcePort, of.service
	}
}

// climb names the nodes that nothing is known of but that they said yes to
// another step of a ladder of transports, at the same port (rule 31).
func (x *Result) climb(names *Names) {
	for k, n := range x.nodes {
		twin := x.nodes[k.twin()]
		if n.known() || twin == nil || !twin.ladder {
			continue
		}
		d, known := &n.decided, &twin.decided
		d.protocol, d.role, d.source = known.protocol, known.role, dissect.RoleSourceBehaviour
		d.proof = known.certain(twin)
		d.rung = names.Intern([]byte("tcp"))
		if k.proto == dissect.ProtoUDP {
			d.rung = names.Intern([]byte("udp"))
		}
		d.service = x.serviceOf(&Record{Destination: k.at, Proto: k.proto, Protocol: d.protocol, Role: d.role})
	}
}

// Close gives memory and temporary file back.
func (x *Result) Close() error {
	return cmp.Or(x.store.spool.close(), x.store.homes.close(), x.moved.close())
}

// Len is the number of rows.
func (x *Result) Len() int64 { return x.count }

// Known gives how many attempts at a node there were, where it is one of those that
// are told apart, and how many nodes are not.
func (x *Result) Known() (attempts func(at dissect.Endpoint, proto uint8) (n int64, known bool), others int64) {
	return func(at dissect.Endpoint, proto uint8) (int64, bool) {
		n := x.nodes[nodeKey{at, proto}]
		if n == nil {
			return 1, false
		}
		return n.records, true
	}, x.store.facts.all - int64(len(x.nodes))
}

func (x *Result) finish(p *part) {
	for i := range p.rows {
		r := &p.rows[i]
		x.describe(r, p.texts)
		r.check = x.isCheck(&r.rec)
		if r.id = r.rec.Digest; r.rec.Flags&FlagGiven == 0 {
			r.id = contentID(&r.rec)
		}
	}
	who := &p.people
	x.identify(p.rows, who)
	p.sort(who)
	if byPlace, byClock := splitByPlace(p, who), x.splitByClock(p, who); byPlace || byClock {
		p.sort(who)
	}
	for i, c := range who.of {
		if i == 0 || c != who.of[i-1] {
			p.clients = append(p.clients, client{Client: who.clients[c], from: i})
		}
		p.clients[len(p.clients)-1].to = i + 1
		p.rows[i].client = int32(len(p.clients) - 1)
	}
	for i := range p.clients {
		p.relate(x, &p.clients[i])
	}
}

// sort orders the rows by client and start. They are moved once, so that what
// follows reads them as they lie.
func (p *part) sort(who *people) {
	at := make([]int32, len(who.clients)+1) // where the rows of each client go
	for _, c := range who.of {
		at[c+1]++
	}
	for c := range who.clients {
		at[c+1] += at[c]
	}
	p.keys = slices.Grow(p.keys[:0], len(p.rows))[:len(p.rows)]
	for i, c := range who.of {
		p.keys[at[c]] = orderKey{p.rows[i].rec.Start, c, int32(i)}
		at[c]++
	}
	byStart := func(a, b orderKey) int {
		if a.start != b.start {
			return cmp.Compare(a.start, b.start)
		}
		return compare(&p.rows[a.at].rec, &p.rows[b.at].rec)
	}
	from := int32(0)
	for _, to := range at[:len(who.clients)] {
		slices.SortFunc(p.keys[from:to], byStart)
		from = to
	}
	p.spare = slices.Grow(p.spare[:0], len(p.rows))
	for i, k := range p.keys {
		p.spare = append(p.spare, p.rows[k.at])
		who.of[i] = k.client
	}
	p.rows, p.spare = p.spare, p.rows
}

// compare orders records by content alone.
func compare(a, b *Record) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Digest, b.Digest),
		a.Source.Compare(b.Source), a.Destination.Compare(b.Destination),
		cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Txn, b.Txn),
		cmp.Compare(a.End, b.End), cmp.Compare(a.TunnelID, b.TunnelID), cmp.Compare(a.VLAN, b.VLAN))
}

func contentID(r *Record) uint64 {
	var buf [80]byte
	b := append(buf[:0], r.Source.Addr[:]...)
	b = append(b, r.Destination.Addr[:]...)
	b = binary.BigEndian.AppendUint16(b, r.Source.Port)
	b = binary.BigEndian.AppendUint16(b, r.Destination.Port)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Start))
	b = binary.BigEndian.AppendUint64(b, r.Txn)
	b = binary.BigEndian.AppendUint64(b, r.Digest)
	b = binary.BigEndian.AppendUint32(b, r.TunnelID)
	return dissect.Hash64(uint64(r.Proto), b)
}

// shook says that a SYN-ACK of the connection was captured.
func (r *Record) shook() bool {
	return r.Proto == dissect.ProtoTCP && r.Answer == dissect.AnswerSynAck && r.Flags&FlagGiven == 0 && bytes.IndexByte(r.History[:], 'h') >= 0
}

// answeredAgain says whether a node repeated its SYN-ACK, where all else of it is a
// FIN or a RST at most.
func answeredAgain(r *Record) bool {
	rest := int64(r.DestinationPackets) - 1
	for _, c := range r.History {
		if c == 'f' || c == 'r' {
			rest--
		}
	}
	return rest > 0
}

// BegunOnly reports that of all TCP connections nothing but SYNs, FINs and RSTs was
// captured, as behind a filter of these flags: what answered SYNs led to is unknown.
func (x *Result) BegunOnly() bool { return x.begun }

// describe fills in what the node's other records know better, and names the
// service.
func (x *Result) describe(w *related, services map[string]string) {
	r := &w.rec
	d := x.node(nodeKey{r.Destination, r.Proto})
	if d.protocol != 0 {
		if r.Protocol == 0 {
			r.Protocol = d.protocol
			if r.Rung == 0 {
				r.Rung = d.rung
			}
		}
		if r.Protocol == d.protocol && d.source > r.RoleSource {
			r.Role, r.RoleSource = d.role, d.source
			if d.source == dissect.RoleSourceBehaviour {
				w.proof = d.proof
			}
		}
	}
	// Rule 17: silence of a node whose side was not captured proves nothing.
	if r.Proto == dissect.ProtoTCP && r.Outcome == dissect.OutcomeTimeout && r.DestinationPackets == 0 && (d.oneSided || x.sided) {
		r.Outcome, r.Evidence = dissect.OutcomeUnknown, dissect.EvidenceEdge
		r.Flags |= FlagOneSided
	}
	// Behind a filter that takes SYN, or SYN, FIN and RST, all that there is to see is
	// that a SYN was answered, and again where the node has not heard of it.
	if x.begun && r.shook() && r.Outcome.Failed() && !answeredAgain(r) {
		r.Outcome, r.Evidence = dissect.OutcomeUnknown, dissect.EvidenceEdge
	}
	// Over UDP silence proves as little, but that the client stopped repeating itself
	// so soon shows that it heard something.
	if x.mute && r.Proto == dissect.ProtoUDP && r.Outcome == dissect.OutcomeTimeout && r.Flags&FlagRepeats != 0 &&
		r.Transmissions <= 2 && min(r.End, x.end)-r.LastSeen >= repeatWithin {
		r.Outcome, r.Evidence = dissect.OutcomeUnknown, dissect.EvidenceEdge
		r.Flags |= FlagOneSided | FlagServed
	}
	if r.Evidence == dissect.EvidenceSilence && r.Outcome.Failed() && x.unheard(r) {
		r.Outcome, r.Evidence = dissect.OutcomeUnknown, dissect.EvidenceEdge
	}
	h := x.hints.Nodes[r.Destination]
	if h.Role != dissect.RoleUnknown {
		r.Role, r.RoleSource = h.Role, dissect.RoleSourceUser
	}
	if r.Protocol == d.protocol && r.Role == d.role && d != &nothing {
		w.service = d.service
	} else {
		w.service = intern(services, x.serviceOf(r))
	}
	// What a node seems to be groups nothing: nodes of one service may differ in it.
	if d.seems != dissect.RoleUnknown && r.RoleSource < dissect.RoleSourceBehaviour && (r.Role == dissect.RoleUnknown || r.Role == d.seems) && r.Protocol == d.protocol {
		r.Role, r.RoleSource, w.proof = d.seems, dissect.RoleSourceBehaviour, d.proof
	}
}

// intern gives the one string of a text.
func intern(texts map[string]string, s string) string {
	if known, ok := texts[s]; ok {
		return known
	}
	texts[s] = s
	return s
}

// serviceOf names what may serve the same intent.
func (x *Result) serviceOf(r *Record) string {
	if s := x.hints.Nodes[r.Destination].Service; s != "" {
		return s
	}
	s := ""
	switch {
	case r.Protocol != 0:
		s = x.names.String(r.Protocol) + "/" + r.Role.String()
	case r.Proto == dissect.ProtoUDP:
		s = "udp/" + strconv.Itoa(int(r.Destination.Port))
	default:
		s = "tcp/" + strconv.Itoa(int(r.Destination.Port))
	}
	if to, ok := x.hints.Services[s]; ok {
		s = to
	}
	return s
}
