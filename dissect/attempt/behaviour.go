package attempt

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"squall/dissect"
)

// What a node is shows in who depends on it, also where its bytes say nothing:
// unknown overlays, encrypted ones, and dials that nobody answered. All of this
// belongs to the second pass: it reads totals of nodes, and the rows of a client
// in their order, so that the result is the same for any number of workers and
// for a capture in pieces.

const (
	leastDependents = 3  // fewer clients prove nothing about a node
	manyDependents  = 20 // nobody has so many for other reasons than its role
	// heldFor is how long a client keeps a session that it depends on; who fetches
	// something is gone by then.
	heldFor = 60 * second
	// sketchSize is up to how many clients of a node are counted exactly.
	sketchSize = 32
	// maxCandidates bounds the pairs of nodes that are compared for clients that
	// moved; those with the most clients are.
	maxCandidates = 256
)

// sketch counts different things: the smallest hashes of them. It is the same
// for any order, and joins with others.
type sketch struct {
	one  uint64 // while there is one only
	more []uint64
}

func (s *sketch) add(h uint64) {
	h = max(h, 1)
	switch {
	case s.one == 0 && s.more == nil:
		s.one = h
		return
	case s.more == nil && s.one == h:
		return
	case s.more == nil:
		s.more = append(make([]uint64, 0, 4), s.one)
	}
	if len(s.more) == sketchSize && h >= s.more[sketchSize-1] {
		return
	}
	i, found := slices.BinarySearch(s.more, h)
	if found {
		return
	}
	if len(s.more) == sketchSize {
		s.more = s.more[:sketchSize-1]
	}
	s.more = slices.Insert(s.more, i, h)
}

func (s *sketch) join(o *sketch) {
	for _, h := range o.hashes() {
		s.add(h)
	}
}

func (s *sketch) hashes() []uint64 {
	if s.more == nil && s.one != 0 {
		return []uint64{s.one}
	}
	return s.more
}

// count is exact below sketchSize, and an estimate from there on.
func (s *sketch) count() int {
	list := s.hashes()
	if len(list) < sketchSize {
		return len(list)
	}
	return int(float64(sketchSize-1) * math.MaxUint64 / float64(list[sketchSize-1]))
}

// shared is how many of the hashes kept are in both, of those that both would
// have kept.
func (s *sketch) shared(o *sketch) (n int) {
	for _, h := range s.hashes() {
		if _, found := slices.BinarySearch(o.hashes(), h); found {
			n++
		}
	}
	return n
}

// depends notes what a record shows about its node.
func (n *nodeFacts) depends(r *Record) {
	if r.passes() {
		n.checks++
	}
	ok := r.Outcome == dissect.OutcomeAccepted
	if ok {
		n.lastYes = max(n.lastYes, r.AnsweredAt)
		if n.firstYes == 0 || r.AnsweredAt < n.firstYes {
			n.firstYes = r.AnsweredAt
		}
		if r.LastSeen-r.AnsweredAt >= heldFor {
			n.held++
		}
	} else if r.Outcome.Failed() {
		n.lastNo = max(n.lastNo, r.Start)
	}
	// A spoofed SYN is neither answered nor repeated.
	if ok || r.Transmissions > 1 {
		h := r.ClientKey
		if h == 0 {
			h = dissect.Hash64(2, r.Source.Addr[:])
		}
		n.clients.add(h)
	}
}

// candidate is a node whose role its protocol does not tell.
type candidate struct {
	key   nodeKey
	facts *nodeFacts
	n     int    // clients
	asks  sketch // nodes that it asks itself
}

// inClear are the protocols that everybody may read: a server of theirs with many
// clients is a server, and no node of an overlay.
func inClear(protocol string) bool { return protocol == "dns" || protocol == "http" }

// behave infers the roles of nodes. Signs of a supernode: it has clients, many of
// them, it asks nobody itself, sessions with it are held, and clients came to it
// from a node that had fallen. The proof is the share of these five that it shows;
// with one sign alone nothing is said. Who asks at least half as many as ask it
// is a peer. Who has clients that hold their sessions elsewhere afterwards, and
// none itself, is where they begin.
func (x *Result) behave() error {
	var list []*candidate
	for k, n := range x.nodes {
		d := &n.decided
		if d.source >= dissect.RoleSourceBehaviour && d.role != dissect.RoleUnknown || inClear(x.names.String(d.protocol)) || n.lastYes == 0 {
			continue
		}
		if c := n.clients.count(); c >= leastDependents {
			list = append(list, &candidate{key: k, facts: n, n: c})
		}
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(b.n, a.n), a.key.at.Compare(b.key.at), cmp.Compare(a.key.proto, b.key.proto))
	})
	if err := x.whoAsks(list); err != nil {
		return err
	}
	for i, c := range list {
		role, proof := c.role(i, list)
		if role == dissect.RoleUnknown {
			continue
		}
		c.facts.seems, c.facts.proof = role, proof
	}
	return nil
}

// whoAsks counts what the candidates ask themselves. Only the partitions that
// hold their own attempts are read.
func (x *Result) whoAsks(list []*candidate) error {
	at := map[dissect.Addr][]*candidate{}
	var read, living [Partitions]bool
	for _, c := range list {
		a := c.key.at.Addr
		at[a] = append(at[a], c)
		living[partitionOfAddr(&a)] = true
	}
	for p := range Partitions {
		if !living[p] {
			continue
		}
		read[p] = true
		homes, err := x.store.housed(p)
		if err != nil {
			return err
		}
		for a, l := range homes {
			if at[a] != nil {
				read[partitionOfKey(l.key)] = true
			}
		}
	}
	for p := range Partitions {
		if !read[p] {
			continue
		}
		err := x.store.records(p, func(r *Record) {
			for _, c := range at[r.Source.Addr] {
				if r.Proto == c.key.proto && r.Protocol == c.facts.protocol {
					c.asks.add(dissect.Hash64(3, r.Destination.Addr[:]))
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// role of the i-th candidate, with its proof in percent.
func (c *candidate) role(i int, list []*candidate) (dissect.Role, uint8) {
	asks := c.asks.count()
	held := int(c.facts.held) >= max(leastDependents, c.n/4)
	if 2*asks >= c.n {
		return dissect.RolePeer, signs(true, asks >= leastDependents, c.n >= manyDependents, asks >= manyDependents, held)
	}
	survived, entry := false, false
	if i < maxCandidates {
		for j, o := range list[:min(len(list), maxCandidates)] {
			if j == i || o.key.proto != c.key.proto || o.facts.clients.shared(&c.facts.clients) < leastDependents {
				continue
			}
			// Its clients had been at o, which then failed and was not heard of again.
			survived = survived || o.facts.lastYes != 0 && o.facts.lastNo > o.facts.lastYes && o.facts.lastYes < c.facts.lastYes && c.facts.lastYes > o.facts.lastNo
			// Its clients go on to o, and hold their sessions there; peers that they found through o come after it.
			entry = entry || o.facts.held >= leastDependents && c.facts.firstYes <= o.facts.firstYes && 2*c.facts.clients.shared(&o.facts.clients) >= min(c.n, sketchSize)
		}
	}
	proof := signs(true, c.n >= manyDependents, asks == 0, held, survived)
	if proof <= 100/5 {
		return dissect.RoleUnknown, 0
	}
	if c.facts.held == 0 && !survived && entry {
		return dissect.RoleBootstrap, proof
	}
	return dissect.RoleSupernode, proof
}

// signs is the percentage that holds.
func signs(list ...bool) (percent uint8) {
	n := 0
	for _, s := range list {
		if s {
			n++
		}
	}
	return uint8(100 * n / len(list))
}

// certain is how many of the records of a node say what most of them say, percent.
func (d *decided) certain(n *nodeFacts) uint8 {
	total, same := int64(0), int64(0)
	for _, v := range n.votes {
		if total += v.n; v.protocol == d.protocol {
			same += v.n
		}
	}
	return uint8(100 * same / max(total, 1))
}

const (
	// rungWithin is how soon after a failure the next rung of a ladder is tried.
	rungWithin = 30 * second
	// rungProof: of host and port one is the same.
	rungProof = 50
	// maxRungs: who tries more ports of one host is looking for open ones.
	maxRungs = 4
	// burstWithin is how far apart the dials of one wish are.
	burstWithin = 10 * second
	// burstLooks bounds the dials that are compared with one, before and after it.
	burstLooks = 128
)

// infer finds what a client's silent or encrypted attempts belong to: it reads
// them in their order, so that what was tried just before and after tells.
func (p *part) infer(x *Result, c *client) {
	p.strangers(x, c)
	first := p.row(c.from)
	several, named, silent := false, false, false
	for i := c.from; i < c.to; i++ {
		r := p.row(i)
		several = several || r.service != first.service
		named = named || r.rec.Protocol != 0
		silent = silent || r.rec.Protocol == 0
	}
	if !several {
		return // nothing to tell apart, as in most storms
	}
	if named && silent {
		p.bursts(x, c)
	}
	p.ladders(x, c)
}

// manyStrangers are more nodes than a client tries of which none speaks, unless it looks
// for what is there.
const manyStrangers = 8

// strangers takes back what the port alone said of nodes, where the client tries many of
// them and has spoken the protocol to nobody: a scanner wants no service.
func (p *part) strangers(x *Result, c *client) {
	if c.to-c.from < manyStrangers {
		return
	}
	var nodes []dissect.Endpoint
	for i := c.from; i < c.to; i++ {
		r := &p.row(i).rec
		if r.Proto == dissect.ProtoTCP && r.spoke() {
			return
		}
		if r.strange() && len(nodes) < manyStrangers && !slices.Contains(nodes, r.Destination) {
			nodes = append(nodes, r.Destination)
		}
	}
	if len(nodes) < manyStrangers {
		return
	}
	for i := c.from; i < c.to; i++ {
		r := p.row(i)
		if r.rec.strange() {
			r.rec.Protocol, r.rec.Role, r.rec.RoleSource, r.proof = 0, dissect.RoleUnknown, dissect.RoleSourceNone, 0
			r.service = intern(p.texts, x.serviceOf(&r.rec))
		}
	}
}

// strange reports a dial of which the port alone says what it was for.
func (r *Record) strange() bool {
	return r.Proto == dissect.ProtoTCP && r.RoleSource == dissect.RoleSourcePort
}

// silent reports a dial that brought no byte: all that is known of it is when and
// where.
func (r *Record) silent() bool {
	return r.Proto == dissect.ProtoTCP && r.Protocol == 0 && r.Destination.Port >= 1024 && !strings.ContainsAny(string(r.History[:]), "dD")
}

// bursts names the silent dials among others that are known: a client of an
// overlay without fixed ports dials many nodes at a time, and only those that
// answer say what they speak. The proof is the share of the dials around it that
// are known to be of the overlay.
func (p *part) bursts(x *Result, c *client) {
	type tally struct {
		service string
		like    *related
		nodes   []dissect.Endpoint
		ports   []uint16
	}
	type naming struct {
		at    int
		like  *related
		proof uint8
	}
	var done []naming
	for i := c.from; i < c.to; i++ {
		r := p.row(i)
		if !r.rec.silent() || x.placed(r) {
			continue
		}
		var found []tally
		dials := 1 // itself
		look := func(o *related) {
			if o.rec.Proto != dissect.ProtoTCP {
				return
			}
			if o.rec.silent() {
				dials++
				return
			}
			if o.rec.Protocol == 0 || o.rec.Role == dissect.RoleUnknown || o.rec.RoleSource < dissect.RoleSourceContent {
				return
			}
			dials++
			n := slices.IndexFunc(found, func(t tally) bool { return t.service == o.service })
			if n < 0 {
				n = len(found)
				found = append(found, tally{service: o.service, like: o})
			}
			t := &found[n]
			if !slices.Contains(t.nodes, o.rec.Destination) {
				t.nodes = append(t.nodes, o.rec.Destination)
			}
			if !slices.Contains(t.ports, o.rec.Destination.Port) {
				t.ports = append(t.ports, o.rec.Destination.Port)
			}
		}
		for j, n := i-1, 0; j >= c.from && n < burstLooks && r.rec.Start-p.row(j).rec.Start <= burstWithin; j, n = j-1, n+1 {
			look(p.row(j))
		}
		for j, n := i+1, 0; j < c.to && n < burstLooks && p.row(j).rec.Start-r.rec.Start <= burstWithin; j, n = j+1, n+1 {
			look(p.row(j))
		}
		best := -1
		tie := false
		for n, t := range found {
			if len(t.nodes) < leastDependents || len(t.ports) < leastDependents {
				continue
			}
			if best < 0 || len(t.nodes) > len(found[best].nodes) {
				best, tie = n, false
			} else if len(t.nodes) == len(found[best].nodes) {
				tie = true
			}
		}
		if best >= 0 && !tie {
			done = append(done, naming{i, found[best].like, uint8(100 * len(found[best].nodes) / max(dials, len(found[best].nodes)))})
		}
	}
	for _, n := range done {
		r := p.row(n.at)
		r.follow(n.like)
		r.proof = n.proof
	}
}

// placed reports a node whose service the user has said.
func (x *Result) placed(r *related) bool { return x.hints.Nodes[r.rec.Destination].Service != "" }

// follow makes a row one of the service of another.
func (r *related) follow(like *related) {
	r.service = like.service
	if r.rec.Protocol == 0 {
		r.rec.Protocol = like.rec.Protocol
	}
	if like.rec.Role != dissect.RoleUnknown && r.rec.RoleSource < dissect.RoleSourceBehaviour {
		r.rec.Role, r.rec.RoleSource = like.rec.Role, dissect.RoleSourceBehaviour
	}
}

// ladders ties the tries of a client at one host over several transports and
// ports into one chain and names the rungs (rule 31): the next one is tried soon
// after the one before has failed. Carriers count at the ports where overlays
// hide, 80 and 443.
func (p *part) ladders(x *Result, c *client) {
	type host struct {
		last  int // row
		ports []rung
	}
	hosts := map[dissect.Addr]*host{}
	for i := c.from; i < c.to; i++ {
		r := p.row(i)
		h := hosts[r.rec.Destination.Addr]
		if h == nil {
			h = &host{}
			hosts[r.rec.Destination.Addr] = h
		}
		if at := (rung{r.rec.Proto, r.rec.Destination.Port}); !slices.Contains(h.ports, at) && len(h.ports) <= maxRungs {
			h.ports = append(h.ports, at)
		}
	}
	for _, h := range hosts {
		h.last = -1
	}
	for i := c.from; i < c.to; i++ {
		r := p.row(i)
		h := hosts[r.rec.Destination.Addr]
		if len(h.ports) < 2 || len(h.ports) > maxRungs {
			continue
		}
		if h.last >= 0 {
			q := p.row(h.last)
			if r.climbs(q) && !x.placed(r) {
				if r.service != q.service {
					r.follow(q)
					r.proof = rungProof
				}
				for _, w := range []*related{q, r} {
					if w.rec.Rung == 0 {
						w.rec.Rung = x.names.Intern([]byte(rung{w.rec.Proto, w.rec.Destination.Port}.String()))
					}
				}
			}
		}
		h.last = i
	}
}

type rung struct {
	proto uint8
	port  uint16
}

func (r rung) String() string {
	s := "tcp"
	if r.proto == dissect.ProtoUDP {
		s = "udp"
	}
	switch r.port {
	case 443:
		s += "-443"
	case 80:
		s += "-80"
	}
	return s
}

// climbs reports that r is the rung after q.
func (r *related) climbs(q *related) bool {
	a, b := &q.rec, &r.rec
	if a.Destination.Port == b.Destination.Port && a.Proto == b.Proto || !a.Outcome.Failed() || b.Start-a.Start > rungWithin || b.Start-a.Start < twinWithin {
		return false
	}
	if b.Protocol == 0 {
		return b.Proto == dissect.ProtoTCP || a.Protocol == 0
	}
	return b.Role == dissect.RoleUnknown && (b.Destination.Port == 443 || b.Destination.Port == 80)
}
