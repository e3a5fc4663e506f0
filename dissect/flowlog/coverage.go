package flowlog

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"

	"squall/dissect"
)

// Coverage is what flow records say of a network without saying how connections
// went: when there were flows, and to what. The zero value holds nothing.
type Coverage struct {
	Flows, Packets, Bytes int64
	First, Last           int64 // ns; 0 = no flow
	Rejected              int64
	pages                 map[int64]*[64]uint64 // seconds in which a flow lived
	services              map[service]*Service
}

type service struct {
	port  uint16
	proto uint8
}

// Service is a port that flows had at one of their ends. Records do not say who
// began: what many flows share is a service, what few share a client's port.
type Service struct {
	Port                         uint16
	Proto                        uint8
	Flows, Packets, Bytes, Nodes int64 // Nodes: different addresses with the port, at most MaxNodes
	nodes                        map[dissect.Addr]struct{}
}

const (
	// MaxNodes is how many addresses of a service are told apart.
	MaxNodes = 1000
	maxPages = 1 << 16 // eight years
	// longest is how much of a flow is taken for life: records of days are mistakes.
	longest = 86400
	// quiet is how long no flow at all must live to be a hole, s.
	quiet = 60
)

// Add counts a record.
func (c *Coverage) Add(f *Flow) {
	if c.pages == nil {
		c.pages, c.services = map[int64]*[64]uint64{}, map[service]*Service{}
	}
	c.Flows++
	c.Packets += f.Packets
	c.Bytes += f.Bytes
	if f.Rejected {
		c.Rejected++
	}
	if c.First == 0 || f.Start < c.First {
		c.First = f.Start
	}
	c.Last = max(c.Last, f.End)
	from, to := f.Start/1e9, f.End/1e9
	for s := max(from, to-longest); s <= to; {
		p := c.pages[s>>12]
		if p == nil {
			if len(c.pages) >= maxPages {
				break
			}
			p = new([64]uint64)
			c.pages[s>>12] = p
		}
		if s&63 == 0 && to-s >= 63 {
			p[s>>6&63] = ^uint64(0)
			s += 64
			continue
		}
		p[s>>6&63] |= 1 << (s & 63)
		s++
	}
	c.count(f, f.To)
	if f.From.Port != f.To.Port {
		c.count(f, f.From)
	}
}

func (c *Coverage) count(f *Flow, at dissect.Endpoint) {
	k := service{at.Port, f.Proto}
	s := c.services[k]
	if s == nil {
		s = &Service{Port: at.Port, Proto: f.Proto, nodes: map[dissect.Addr]struct{}{}}
		c.services[k] = s
	}
	s.Flows++
	s.Packets += f.Packets
	s.Bytes += f.Bytes
	if len(s.nodes) < MaxNodes {
		s.nodes[at.Addr] = struct{}{}
	}
}

// Top are the ports with most flows, of those with a fiftieth of all and more.
func (c *Coverage) Top(n int) (out []Service) {
	for _, s := range c.services {
		if s.Flows*50 < c.Flows {
			continue
		}
		s.Nodes = int64(len(s.nodes))
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Service) int {
		return cmp.Or(cmp.Compare(b.Flows, a.Flows), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto))
	})
	return out[:min(n, len(out))]
}

// Holes are the times of more than a minute in which no flow lived, from the
// first flow to the last, ns.
func (c *Coverage) Holes() (out [][2]int64) {
	last := c.First / 1e9
	for _, n := range slices.Sorted(maps.Keys(c.pages)) {
		for w, set := range c.pages[n] {
			for ; set != 0; set &= set - 1 {
				s := n<<12 + int64(w)<<6 + int64(bits.TrailingZeros64(set))
				if s-last > quiet {
					out = append(out, [2]int64{(last + 1) * 1e9, s * 1e9})
				}
				last = s
			}
		}
	}
	return out
}
