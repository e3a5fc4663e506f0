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

// Result gives the finished rows. A partition of clients is finished when it is
// asked for, so that only a few are in memory at a time; small results are
// kept. It may be read by several goroutines at once.
type Result struct {
	names      *Names
	hints      dissect.Hints
	begin, end int64
	store      *Store
	facts      *shard
	sided      bool // only the clients' side was captured, of TCP
	mute       bool // no packet of any node was captured
	begun      bool // of TCP connections their begins and ends were captured, and nothing else
	deaf       []Interval
	moved      [Partitions][]byte
	monitors   map[askedBy]bool
	homes      map[dissect.Addr]uint64 // identities of addresses that have records without one

	mu   sync.Mutex
	kept [Partitions]*part
}

// keptRecords is how many attempts a result may have for its partitions to be
// kept, some 100 MB.
const keptRecords = 1 << 18

// leastPacked is about the least that a packed record takes, bytes.
const leastPacked = 72

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
	if n := x.facts.nodes[k]; n != nil {
		return &n.decided
	}
	return &decided{}
}

// part is a finished partition, by client, then start.
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
}

type orderKey struct {
	start  int64
	client int32
	at     int32
}

func (p *part) row(i int) *related { return &p.rows[i] }

type related struct {
	rec      Record
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
	x := &Result{names: names, hints: hints, begin: begin, end: end, store: s, deaf: s.deaf, facts: s.gather()}
	answered, sided, went := false, false, false
	var shook int64
	services := map[string]string{}
	x.mute = x.facts.count >= muteRows
	for k, n := range x.facts.nodes {
		x.mute = x.mute && !n.answered
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
		if k.proto == dissect.ProtoTCP {
			answered = answered || n.answered
			sided = sided || n.oneSided
			went = went || n.went
			shook += int64(n.shook)
		}
	}
	x.neighbours()
	x.climb(names)
	x.sided = sided && !answered
	x.begun = !went && shook >= muteRows
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
	for k, n := range x.facts.nodes {
		if !n.spoke {
			continue
		}
		at := place{k.at.Port, k.proto}
		if old, ok := known[at]; ok && old.service != n.service {
			mixed[at] = true
		}
		known[at] = n.decided
	}
	for k, n := range x.facts.nodes {
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
	for k, n := range x.facts.nodes {
		twin := x.facts.nodes[k.twin()]
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
func (x *Result) Close() error { return cmp.Or(x.store.spool.close(), x.store.homes.close()) }

// Len is the number of rows.
func (x *Result) Len() int64 { return x.facts.count }

// Busiest says which nodes are among the most that were tried most often, of the last
// ones those with the least hash, and how many are not; nil = all are.
func (x *Result) Busiest(most int) (kept func(at dissect.Endpoint, proto uint8) bool, left int64) {
	if len(x.facts.nodes) <= most {
		return nil, 0
	}
	type rank struct {
		records int64
		hash    uint64
	}
	order := func(a, b rank) int { return cmp.Or(cmp.Compare(b.records, a.records), cmp.Compare(a.hash, b.hash)) }
	hash := func(k nodeKey) uint64 {
		return dissect.Hash64(uint64(k.proto)<<16|uint64(k.at.Port), k.at.Addr[:])
	}
	list := make([]rank, 0, len(x.facts.nodes))
	for k, n := range x.facts.nodes {
		list = append(list, rank{n.records, hash(k)})
	}
	slices.SortFunc(list, order)
	last := list[most-1]
	return func(at dissect.Endpoint, proto uint8) bool {
		k := nodeKey{at, proto}
		n := x.facts.nodes[k]
		return n != nil && order(rank{n.records, hash(k)}, last) <= 0
	}, int64(len(list) - most)
}

// reunite copies records that say no identity to the partition of the one that
// their address lends them. There are none unless a protocol names its clients.
func (x *Result) reunite() error {
	var r Record
	for p := range Partitions {
		homes, err := x.store.housed(p)
		if err != nil {
			return err
		}
		if len(homes) == 0 {
			continue
		}
		err = x.store.spool.each(p, func(data []byte) {
			for u := (unpacker{b: data}); len(u.b) > 0; {
				from := u.b
				u.record(&r)
				l, ok := homes[*r.client()]
				if !ok || l.many || r.ClientKey != 0 {
					continue
				}
				if x.homes == nil {
					x.homes = map[dissect.Addr]uint64{}
				}
				x.homes[*r.client()] = l.key
				if to := partitionOfKey(l.key); to != p {
					x.moved[to] = append(x.moved[to], from[:len(from)-len(u.b)]...)
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// borrowed is the key that a record without one is given by its address.
func (x *Result) borrowed(r *Record) uint64 {
	if r.ClientKey != 0 || x.homes == nil {
		return 0
	}
	return x.homes[*r.client()]
}

// part finishes a partition. It is written into scratch, whose content is lost,
// unless it is kept.
func (x *Result) part(n int, scratch *part) (*part, error) {
	small := x.facts.count <= keptRecords
	if small {
		x.mu.Lock()
		kept := x.kept[n]
		x.mu.Unlock()
		if kept != nil {
			return kept, nil
		}
		scratch = &part{}
	}
	p := scratch
	p.names = x.names
	if p.texts == nil {
		p.texts = map[string]string{}
	}
	if p.older == nil {
		p.older = map[dissect.Addr][]Record{}
	}
	clear(p.older)
	p.rows, p.clients, p.intents = p.rows[:0], p.clients[:0], p.intents[:0]
	p.rows = slices.Grow(p.rows, (x.store.spool.bytes(n)+len(x.moved[n]))/leastPacked)
	own := true
	load := func(data []byte) {
		for u := (unpacker{b: data}); len(u.b) > 0; {
			p.rows = slices.Grow(p.rows, 1)[:len(p.rows)+1]
			r := &p.rows[len(p.rows)-1]
			*r = related{}
			u.record(&r.rec)
			if key := x.borrowed(&r.rec); own && key != 0 && partitionOfKey(key) != n {
				p.rows = p.rows[:len(p.rows)-1]
			} else if r.rec.Flags&FlagOlder != 0 {
				p.older[r.rec.Source.Addr] = append(p.older[r.rec.Source.Addr], r.rec)
				p.rows = p.rows[:len(p.rows)-1]
			}
		}
	}
	if err := x.store.spool.each(n, load); err != nil {
		return nil, err
	}
	own = false
	load(x.moved[n])
	x.finish(p)
	if small {
		p.spare, p.keys, p.people, p.older = nil, nil, people{}, nil
		x.mu.Lock()
		x.kept[n] = p
		x.mu.Unlock()
	}
	return p, nil
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
	if r.Protocol == d.protocol && r.Role == d.role {
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
