package taps

import (
	"cmp"
	"slices"

	"squall/dissect"
)

const (
	// joinWithin is how long after the first sighting of a packet that it was
	// seen elsewhere is noticed. A SYN is repeated after a second at the earliest.
	joinWithin = 1e9
	// datagramWithin is the same for UDP, whose prints are weaker.
	datagramWithin = 200e6
	// forgetDatagrams is when a UDP flow is over, as the engine sees it (rule 23).
	forgetDatagrams = 60e9
	joinSlots       = 1 << 12 // recent SYNs; small, so that they stay in the cache
	// maxAliases is how many flows are followed under the name of another at a
	// time, twice; the oldest are forgotten.
	maxAliases = 1 << 17
	maxNAT     = 1 << 16
	// maxPoints is at how many points one packet may be seen: a number that more
	// flows share is the constant of some tool.
	maxPoints = 4
	// natHops is how many routers may lie between the two sides of a NAT.
	natHops = 16
)

// NAT is a pair of addresses that one packet bore.
type NAT struct {
	Kind         string // "source": a client behind the outer address; "destination": a node behind it
	Inner, Outer dissect.Addr
	Flows        int64 // of which both sides were seen
	Proofs       int64 // packets seen with either address: SYNs by ISN, timestamps, IP id; datagrams by IP id and payload
	First, Last  int64 // ns
	// The inputs that showed either side, and what their taps are called.
	InnerFile, OuterFile uint32 `json:"-"`
	InnerTap, OuterTap   string
}

type natKey struct {
	inner, outer dissect.Addr
	destination  bool
}

type flowID struct {
	a, b  dissect.Endpoint
	net   uint64
	proto uint8
}

// target is the flow under whose name another is followed.
type target struct {
	a, b     dissect.Endpoint
	tunnel   dissect.Tunnel
	tunnelID uint32
	isn      uint32
	last     int64
	told     int64
}

// tellEvery is how often Renamed is told of a flow, ns.
const tellEvery = 500e6

// first is where a packet was seen first.
type first struct {
	print    uint64
	time     int64
	src, dst dissect.Endpoint
	tunnel   dissect.Tunnel
	ttl      uint8
	point    uint8
	others   uint8
	tunnelID uint32
	file     uint32
}

// opened is a SYN by what its answer knows.
type opened struct {
	hash     uint64
	time     int64
	tunnel   dissect.Tunnel
	tunnelID uint32
}

// Joiner finds packets that were seen at several points under other addresses
// or in another network of a tunnel, and gives all packets of the flow the
// addresses and the tunnel of one: the point where its first packet was seen
// first, which is the one nearest to the client. It is for one goroutine and sees
// packets in the order of their times. Copies under the same addresses are not
// its business; the engine knows them.
//
// While nothing is found it costs a lookup for each SYN and nothing for any
// other packet.
type Joiner struct {
	several bool // points: UDP is looked at, too
	nets    bool // packets with network ids were seen
	syns    [joinSlots]first
	data    []first
	opens   [joinSlots]opened
	young   map[flowID]*target
	old     map[flowID]*target
	nat     map[natKey]*NAT
	more    int64
	// Renamed is told, twice a second for each flow at most, under which other
	// addresses its packets were seen, and when; nil = nobody is.
	Renamed func(proto uint8, a, b dissect.Endpoint, at int64) `frozen:"-"`
}

// NewJoiner makes a joiner; several says that there are several taps or
// interfaces, so that datagrams are worth a look.
func NewJoiner(several bool) *Joiner {
	j := &Joiner{several: several, nat: map[natKey]*NAT{}}
	if several {
		j.data = make([]first, joinSlots)
	}
	return j
}

// network is the part of a flow's key that keeps apart hosts with equal
// addresses (rule 20).
func network(t dissect.Tunnel, id uint32) uint64 {
	if t == dissect.TunnelVXLAN || t == dissect.TunnelGENEVE {
		return uint64(t)<<32 | uint64(id)
	}
	return 0
}

func idOf(src, dst dissect.Endpoint, net uint64, proto uint8) flowID {
	if dst.Compare(src) < 0 {
		src, dst = dst, src
	}
	return flowID{src, dst, net, proto}
}

// Datagram looks at the next packet and, if its flow is known by another name,
// gives it that one.
func (j *Joiner) Datagram(d *dissect.Datagram) {
	switch d.Class {
	case dissect.ClassTCP:
		if d.Tunnel == dissect.TunnelVXLAN || d.Tunnel == dissect.TunnelGENEVE {
			j.nets = true
		}
		switch d.Flags & (dissect.SYN | dissect.ACK | dissect.RST | dissect.FIN) {
		case dissect.SYN:
			j.syn(d)
			return
		case dissect.SYN | dissect.ACK:
			if j.nets {
				j.answer(d)
			}
		}
	case dissect.ClassUDP:
		if j.several {
			j.udp(d)
			return
		}
	case dissect.ClassICMPError:
		if j.young != nil {
			j.quoted(d)
		}
		return
	default:
		return
	}
	if j.young == nil {
		return
	}
	id := idOf(d.Source(), d.Destination(), network(d.Tunnel, d.TunnelID), d.Proto)
	if t := j.find(&id); t != nil {
		j.rename(t, &id, d)
	}
}

func (j *Joiner) find(id *flowID) *target {
	if t := j.young[*id]; t != nil {
		return t
	}
	t := j.old[*id]
	if t != nil {
		j.add(*id, t)
	}
	return t
}

func (j *Joiner) add(id flowID, t *target) {
	if j.young == nil {
		j.young = map[flowID]*target{}
	}
	if len(j.young) >= maxAliases {
		j.old, j.young = j.young, map[flowID]*target{}
	}
	j.young[id] = t
}

func (j *Joiner) forget(id *flowID) {
	delete(j.young, *id)
	delete(j.old, *id)
}

// rename gives a packet the addresses of the flow it belongs to. That it was
// seen elsewhere must not be lost, or its copy looks like a repeat.
func (j *Joiner) rename(t *target, id *flowID, d *dissect.Datagram) {
	if j.Renamed != nil && (t.a != id.a || t.b != id.b) && d.Time-t.told >= tellEvery {
		t.told = d.Time
		j.Renamed(d.Proto, id.a, id.b, d.Time)
	}
	d.Point = d.Point*31 + 1 + uint8(d.TunnelID) + uint8(d.Tunnel)
	to, from := t.b, t.a
	if d.Source() != id.a {
		to, from = from, to
	}
	d.Src, d.SrcPort, d.Dst, d.DstPort = from.Addr, from.Port, to.Addr, to.Port
	d.Tunnel, d.TunnelID = t.tunnel, t.tunnelID
	t.last = d.Time
}

// alias makes the flow of d known by the name of one that was seen before.
func (j *Joiner) alias(d *dissect.Datagram, src, dst dissect.Endpoint, tunnel dissect.Tunnel, tunnelID uint32) {
	id := idOf(d.Source(), d.Destination(), network(d.Tunnel, d.TunnelID), d.Proto)
	t := &target{a: src, b: dst, tunnel: tunnel, tunnelID: tunnelID, isn: d.Seq, last: d.Time}
	if d.Source() != id.a {
		t.a, t.b = dst, src
	}
	j.add(id, t)
	j.rename(t, &id, d)
}

func (j *Joiner) syn(d *dissect.Datagram) {
	if j.young != nil {
		id := idOf(d.Source(), d.Destination(), network(d.Tunnel, d.TunnelID), d.Proto)
		if t := j.find(&id); t != nil {
			if t.isn == d.Seq {
				j.rename(t, &id, d)
				return
			}
			j.forget(&id) // the ports are used again
		}
	}
	if j.seen(d, &j.syns, joinWithin) {
		return
	}
	if j.several || j.nets {
		h := openHash(d.Source(), d.Destination(), d.Seq)
		j.opens[h%joinSlots] = opened{h, d.Time, d.Tunnel, d.TunnelID}
	}
}

// seen looks for the first sighting of a packet. It reports that d bears other
// names now.
func (j *Joiner) seen(d *dissect.Datagram, slots *[joinSlots]first, within int64) bool {
	p := print(d)
	if p == 0 {
		return false
	}
	f := &slots[p>>1%joinSlots]
	if g := &slots[p>>1%joinSlots^1]; f.print != p && (g.print == p || g.time < f.time) {
		f = g // each has two places; the older one gives way
	}
	if f.print != p || d.Time-f.time > within || d.Time < f.time {
		*f = first{print: p, time: d.Time, src: d.Source(), dst: d.Destination(), tunnel: d.Tunnel, tunnelID: d.TunnelID,
			ttl: d.TTL, point: d.Point, file: d.File}
		return false
	}
	src, dst := d.Source(), d.Destination()
	if f.src == src && f.dst == dst {
		if network(f.tunnel, f.tunnelID) == network(d.Tunnel, d.TunnelID) {
			return false // a copy, or the same packet again
		}
		j.alias(d, src, dst, f.tunnel, f.tunnelID)
		return true
	}
	if f.others++; f.others >= maxPoints || !j.translated(f, d) {
		return false
	}
	j.alias(d, f.src, f.dst, f.tunnel, f.tunnelID)
	return true
}

// translated judges whether a packet that was seen with other addresses before
// has been through a NAT, and keeps the proof.
func (j *Joiner) translated(f *first, d *dissect.Datagram) bool {
	moved := f.src.Addr != d.Src
	moved2 := f.dst.Addr != d.Dst
	if !moved && !moved2 && f.dst.Port != d.DstPort && f.src.Port != d.SrcPort {
		return false // two connections of one host to one node
	}
	hops := int(f.ttl) - int(d.TTL)
	switch {
	case hops == 0 && (f.point == d.Point || !d.HasTS && d.IPID == 0):
		return false // a router counts down; some balancers do not, and then the print has to be good
	case hops > natHops || -hops > natHops:
		return false
	}
	weak := d.Class == dissect.ClassUDP
	inner, outer := f.src.Addr, d.Src
	if hops < 0 {
		inner, outer = outer, inner
	}
	ok := true
	if moved {
		ok = j.prove(natKey{inner, outer, false}, f, d, hops < 0, weak)
	}
	if moved2 { // what the client calls the node is its outer address
		inner, outer = d.Dst, f.dst.Addr
		if hops < 0 {
			inner, outer = outer, inner
		}
		ok = j.prove(natKey{inner, outer, true}, f, d, hops >= 0, weak) && ok
	}
	return ok
}

// prove counts a proof of a pair; with weak ones it takes two.
func (j *Joiner) prove(k natKey, f *first, d *dissect.Datagram, swap, weak bool) bool {
	n := j.nat[k]
	if n == nil {
		if len(j.nat) >= maxNAT {
			j.more++
			return !weak
		}
		n = &NAT{Kind: "source", Inner: k.inner, Outer: k.outer, First: f.time, InnerFile: f.file, OuterFile: d.File}
		if k.destination {
			n.Kind = "destination"
		}
		if swap {
			n.InnerFile, n.OuterFile = n.OuterFile, n.InnerFile
		}
		j.nat[k] = n
	}
	n.Proofs++
	n.Last = d.Time
	if weak && n.Proofs < 2 {
		return false
	}
	n.Flows++
	return true
}

func openHash(src, dst dissect.Endpoint, isn uint32) uint64 {
	h := dissect.FoldBytes(uint64(isn)<<32|uint64(src.Port)<<16|uint64(dst.Port), src.Addr[:])
	return dissect.Mix64(dissect.FoldBytes(h, dst.Addr[:]))
}

// answer joins the two directions of a flow that two networks carried: the
// answer acknowledges the SYN's number.
func (j *Joiner) answer(d *dissect.Datagram) {
	o := &j.opens[openHash(d.Destination(), d.Source(), d.Ack-1)%joinSlots]
	if o.hash != openHash(d.Destination(), d.Source(), d.Ack-1) || d.Time < o.time || d.Time-o.time > 3*joinWithin ||
		network(o.tunnel, o.tunnelID) == network(d.Tunnel, d.TunnelID) {
		return
	}
	id := idOf(d.Source(), d.Destination(), network(d.Tunnel, d.TunnelID), d.Proto)
	if j.find(&id) != nil {
		return
	}
	t := &target{a: id.a, b: id.b, tunnel: o.tunnel, tunnelID: o.tunnelID, isn: d.Ack - 1, last: d.Time}
	j.add(id, t)
}

func (j *Joiner) udp(d *dissect.Datagram) {
	if j.young != nil {
		id := idOf(d.Source(), d.Destination(), network(d.Tunnel, d.TunnelID), d.Proto)
		if t := j.find(&id); t != nil {
			if d.Time-t.last <= forgetDatagrams {
				j.rename(t, &id, d)
				return
			}
			j.forget(&id)
		}
	}
	j.seen(d, (*[joinSlots]first)(j.data), datagramWithin)
}

// quoted gives an ICMP error the name of the flow that it quotes.
func (j *Joiner) quoted(d *dissect.Datagram) {
	q := &d.Quoted
	src := dissect.Endpoint{Addr: q.Src, Port: q.SrcPort}
	dst := dissect.Endpoint{Addr: q.Dst, Port: q.DstPort}
	id := idOf(src, dst, network(d.Tunnel, d.TunnelID), q.Proto)
	t := j.find(&id)
	if t == nil {
		return
	}
	toSource := d.Dst == q.Src
	from, to := t.a, t.b
	if src != id.a {
		from, to = to, from
	}
	q.Src, q.SrcPort, q.Dst, q.DstPort = from.Addr, from.Port, to.Addr, to.Port
	if toSource {
		d.Dst = from.Addr
	}
	d.Point = d.Point*31 + 1
	d.Tunnel, d.TunnelID = t.tunnel, t.tunnelID
}

// NAT lists the pairs of addresses by kind, outer and inner address; more is
// the number of proofs of pairs beyond the ceiling.
func (j *Joiner) NAT() (list []NAT, more int64) {
	for _, n := range j.nat {
		if n.Flows > 0 {
			list = append(list, *n)
		}
	}
	slices.SortFunc(list, func(a, b NAT) int {
		return cmp.Or(cmp.Compare(b.Kind, a.Kind), slices.Compare(a.Outer[:], b.Outer[:]), slices.Compare(a.Inner[:], b.Inner[:]))
	})
	return list, j.more
}
