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

// person is what tells clients apart: a key of their protocol, else the address
// and, where several hosts stand behind it, the line of their timestamps.
type person struct {
	key  uint64
	addr dissect.Addr
	line int32
}

// identify names the client of each record (rule 40): the identity inside the
// protocol, which an address with exactly one lends to its other records, else
// the address, which TCP timestamps may split.
func (x *Result) identify(recs []Record) people {
	index := map[person]int32{}
	var all []person
	out := people{of: make([]int32, len(recs))}
	lines := map[dissect.Addr][]int32{}
	for i := range recs {
		r := &recs[i]
		p := person{key: r.ClientKey}
		if p.key == 0 {
			p.key = x.borrowed(r)
		}
		if p.key == 0 {
			p.addr = r.Source.Addr
			if r.TSBase != 0 {
				lines[p.addr] = append(lines[p.addr], int32(i))
			}
		} else {
			r.ClientKey = p.key
		}
		n, ok := index[p]
		if !ok {
			n = int32(len(all))
			index[p] = n
			all = append(all, p)
		}
		out.of[i] = n
	}
	suspects := map[dissect.Addr]bool{}
	for addr, list := range lines {
		if len(list) < 4 {
			continue
		}
		found, split := timestampLines(recs, list)
		if found < 2 {
			continue
		}
		suspects[addr] = true
		if split == nil {
			continue
		}
		for j, i := range list {
			p := person{addr: addr, line: split[j] + 1}
			n, ok := index[p]
			if !ok {
				n = int32(len(all))
				index[p] = n
				all = append(all, p)
			}
			out.of[i] = n
		}
	}
	ids := make([]dissect.Client, len(all))
	order := make([]int32, len(all))
	for i, p := range all {
		order[i] = int32(i)
		c := &ids[i]
		c.NATSuspect = suspects[p.addr]
		switch {
		case p.key != 0:
			known := x.facts.known[p.key]
			name := x.names.String(known.name)
			if name == "" {
				name = strconv.FormatUint(p.key, 16)
			}
			c.ID, c.Level = x.names.String(known.protocol)+":"+name, dissect.IDProtocol
		case p.line != 0:
			c.ID, c.Level = p.addr.String()+"#"+strconv.Itoa(int(p.line)), dissect.IDFingerprint
		default:
			c.ID = p.addr.String()
		}
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(strings.Compare(ids[a].ID, ids[b].ID), cmp.Compare(a, b)) })
	rank := make([]int32, len(all))
	for i, o := range order {
		// Two keys may print alike; they are one client then.
		if i > 0 && ids[o].ID == out.clients[len(out.clients)-1].ID {
			rank[o] = int32(len(out.clients) - 1)
			continue
		}
		rank[o] = int32(len(out.clients))
		out.clients = append(out.clients, ids[o])
	}
	for i, n := range out.of {
		out.of[i] = rank[n]
	}
	return out
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

// timestampLines tells the clocks of the hosts behind an address apart. Found
// is how many run at the same time; split, the line of each record, is given
// only where every node sees the same lines: newer stacks shift their clock
// for each peer, so that lines towards two nodes cannot be joined.
func timestampLines(recs []Record, list []int32) (found int, split []int32) {
	slices.SortFunc(list, func(a, b int32) int { return compare(&recs[a], &recs[b]) })
	var lines []*tsLine
	split = make([]int32, len(list))
	for j, i := range list {
		r := &recs[i]
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
		split[j] = int32(best)
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
