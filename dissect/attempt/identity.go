package attempt

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"squall/dissect"
)

// people are the clients of a partition.
type people struct {
	clients []dissect.Client // by id
	of      []int32          // client of each record
}

// person is what tells clients apart: a key of their protocol, else the
// address.
type person struct {
	key  uint64
	addr dissect.Addr
}

// identify names the client of each row (rule 40): the identity inside the
// protocol, which an address with exactly one lends to its other rows, else the
// address.
func (x *Result) identify(rows []related, out *people) {
	index := map[person]int32{}
	var all []person
	var named []identity // of those with a key
	if cap(out.of) < len(rows) {
		out.of = make([]int32, len(rows))
	}
	out.of = out.of[:len(rows)]
	for i := range rows {
		r := &rows[i].rec
		p := person{key: r.ClientKey}
		if p.key == 0 {
			p.key = rows[i].lent
		}
		if p.key == 0 {
			p.addr = *r.client()
		}
		n, ok := index[p]
		if !ok {
			n = int32(len(all))
			index[p] = n
			all, named = append(all, p), append(named, identity{})
		}
		out.of[i] = n
		if r.ClientKey != 0 {
			said := identity{r.Protocol, r.ClientName}
			if r.Flags&FlagGiven != 0 {
				said.protocol = 0
			}
			if said != named[n] && x.better(said, named[n]) {
				named[n] = said
			}
		}
	}
	ids := make([]dissect.Client, len(all))
	for i, p := range all {
		c := &ids[i]
		if p.key == 0 {
			c.ID = p.addr.String()
			continue
		}
		known := named[i]
		name := x.names.String(known.name)
		if c.Unnamed = name == ""; c.Unnamed {
			name = strconv.FormatUint(p.key, 16)
		}
		c.ID, c.Level = x.names.String(known.protocol)+":"+name, dissect.IDProtocol
		if known.protocol == 0 { // given, with all that was known of it
			c.ID = name
			if _, line, ok := strings.Cut(name, "#"); ok && strings.Trim(line, "0123456789") == "" {
				c.Level = dissect.IDFingerprint
			}
		}
	}
	out.rank(ids)
}

// better says which of two that have the same key names the client, whatever the
// order of its records: all say the same, unless there was no room for the name.
func (x *Result) better(a, b identity) bool {
	if a.name == 0 || b.name == 0 {
		return b.name == 0 && (a.name != 0 || b.protocol == 0)
	}
	return cmp.Or(strings.Compare(x.names.String(a.name), x.names.String(b.name)), strings.Compare(x.names.String(a.protocol), x.names.String(b.protocol))) < 0
}

// rank orders the clients by id. Two that print alike are one.
func (out *people) rank(ids []dissect.Client) {
	order := make([]int32, len(ids))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(strings.Compare(ids[a].ID, ids[b].ID), cmp.Compare(a, b)) })
	rank := make([]int32, len(ids))
	out.clients = out.clients[:0]
	for i, o := range order {
		if i == 0 || ids[o].ID != ids[order[i-1]].ID {
			out.clients = append(out.clients, ids[o])
		}
		rank[o] = int32(len(out.clients) - 1)
	}
	for i, n := range out.of {
		out.of[i] = rank[n]
	}
}

// splitByPlace tells apart the hosts that use one identity of the protocol at
// the same time, as several phones do that register for one person: the
// identity comes back to addresses of a family that it had left, again and
// again. One that moves, or that has an address of each family, does not.
func splitByPlace(p *part, who *people) bool {
	split := false
	for from, to := 0, 1; to <= len(p.rows); to++ {
		c := who.of[from]
		if to < len(p.rows) && who.of[to] == c {
			continue
		}
		first, rows := from, p.rows[from:to]
		from = to
		if who.clients[c].Level != dissect.IDProtocol || len(rows) < 4 || !manyPlaces(rows) {
			continue
		}
		hosts := map[dissect.Addr]int32{}
		for i := range rows {
			at := *rows[i].rec.client()
			n, ok := hosts[at]
			if !ok {
				n = int32(len(who.clients))
				hosts[at] = n
				host := who.clients[c]
				host.ID += "@" + at.String()
				who.clients = append(who.clients, host)
			}
			who.of[first+i] = n
		}
		split = true
	}
	if split {
		who.rank(slices.Clone(who.clients))
		p.sort(who)
	}
	return split
}

// manyPlaces: of three addresses or more, three returns and a quarter of the
// rows are to one that was left before; of two, ten returns.
func manyPlaces(rows []related) bool {
	var last [2]dissect.Addr
	var seen [2]map[dissect.Addr]bool
	places, returns := 0, 0
	for i := range rows {
		at := *rows[i].rec.client()
		family := 0
		if at.Is4() {
			family = 1
		}
		if at == last[family] {
			continue
		}
		if seen[family] == nil {
			seen[family] = map[dissect.Addr]bool{}
		}
		if seen[family][at] {
			returns++
		}
		last[family], seen[family][at] = at, true
		places = max(places, len(seen[family]))
	}
	return returns*4 >= len(rows) && (places >= 3 && returns >= 3 || places == 2 && returns >= 10)
}

// splitByClock tells the hosts behind one address apart by the clocks of their
// TCP timestamps; it says whether there was anything to split.
func (x *Result) splitByClock(p *part, who *people) bool {
	if x.store.setBack {
		return false
	}
	split := false
	from := 0
	var list []int32
	for to := 1; to <= len(p.rows); to++ {
		c := who.of[from]
		if to < len(p.rows) && who.of[to] == c {
			continue
		}
		list = list[:0]
		if who.clients[c].Level == dissect.IDAddress {
			for i := from; i < to; i++ {
				if p.rows[i].rec.TSBase != 0 {
					list = append(list, int32(i))
				}
			}
		}
		from = to
		if len(list) < 4 || oneClock(p.rows, list) {
			continue
		}
		found, lines := timestampLines(p.rows, list)
		if found < 2 {
			continue
		}
		who.clients[c].NATSuspect = true
		hosts := map[int32]int32{}
		for j, i := range list {
			if lines == nil {
				break
			}
			n, ok := hosts[lines[j]]
			if !ok {
				n = int32(len(who.clients))
				hosts[lines[j]] = n
				host := who.clients[c]
				host.ID, host.Level = host.ID+"#"+strconv.Itoa(len(hosts)), dissect.IDFingerprint
				who.clients = append(who.clients, host)
			}
			who.of[i] = n
			split = true
		}
	}
	if split {
		who.rank(slices.Clone(who.clients))
	}
	return split
}

// The rates of TCP timestamp clocks that are in use, in ticks a second.
var timestampRates = [...]int64{1000, 100, 250, 10, 2}

// timestampSlack is how far a tick may lie from its line, ns: the clock's grain
// and drift, and the time a packet waits.
const timestampSlack = 3 * second

type tsLine struct {
	at     int64 // of the last point, ns
	ticks  int64
	rate   int64 // 0 = one point only
	points int
	from   int64
	nodes  map[dissect.Endpoint]bool
}

// oneClock is the quick answer for the usual client: one host, a clock of 1 kHz.
func oneClock(rows []related, list []int32) bool {
	base := rows[list[0]].rec.TSBase
	for _, i := range list {
		if off := rows[i].rec.TSBase - base; off > timestampSlack || off < -timestampSlack {
			return false
		}
	}
	return true
}

// timestampLines tells the clocks of the hosts behind an address apart. Found
// is how many run at the same time; split, the line of each record, is given
// only where every node sees the same lines: newer stacks shift their clock
// for each peer, so that lines towards two nodes cannot be joined.
func timestampLines(rows []related, list []int32) (found int, split []int32) {
	var lines []*tsLine
	for j, i := range list {
		r := &rows[i].rec
		ticks := (r.Start - r.TSBase) / 1e6
		best := -1
		for n, l := range lines {
			if l.fits(r.Start, ticks) && (best < 0 || l.at > lines[best].at) {
				best = n
			}
		}
		if best < 0 {
			best = len(lines)
			lines = append(lines, &tsLine{from: r.Start, nodes: map[dissect.Endpoint]bool{}})
			if len(lines) > maxLines {
				return 0, nil
			}
		}
		lines[best].add(r.Start, ticks)
		lines[best].nodes[r.Destination] = true
		if best > 0 && split == nil {
			split = make([]int32, len(list))
		}
		if split != nil {
			split[j] = int32(best)
		}
	}
	// Lines that follow one another are reboots, or one host with many nodes.
	sameNodes := true
	for i, a := range lines {
		for _, b := range lines[:i] {
			if a.points > 1 && b.points > 1 && a.from < b.at && b.from < a.at && sharesNode(a, b) {
				found = max(found, 2)
			}
		}
		sameNodes = sameNodes && len(a.nodes) == len(lines[0].nodes)
	}
	if found < 2 || !sameNodes {
		return found, nil
	}
	return len(lines), split
}

// maxLines: with more clocks than this behind an address, they are not clocks.
const maxLines = 64

func sharesNode(a, b *tsLine) bool {
	for n := range a.nodes {
		if b.nodes[n] {
			return true
		}
	}
	return false
}

func (l *tsLine) fits(at, ticks int64) bool {
	if l.rate != 0 {
		return near(l.at, l.ticks, at, ticks, l.rate)
	}
	for _, rate := range timestampRates {
		if near(l.at, l.ticks, at, ticks, rate) {
			return true
		}
	}
	return false
}

func near(at0, ticks0, at, ticks, rate int64) bool {
	dt := at - at0
	off := (ticks-ticks0)*(second/rate) - dt
	slack := timestampSlack
	if grain := second / rate; grain > slack {
		slack = grain
	}
	return off <= slack && off >= -slack
}

func (l *tsLine) add(at, ticks int64) {
	if l.points > 0 && l.rate == 0 && at-l.at > 2*timestampSlack {
		for _, rate := range timestampRates {
			if near(l.at, l.ticks, at, ticks, rate) {
				l.rate = rate
				break
			}
		}
	}
	if l.points == 0 || l.rate != 0 || at-l.at > 2*timestampSlack {
		l.at, l.ticks = at, ticks
	}
	l.points++
}
