package storm

import (
	"cmp"
	"slices"

	"squall/dissect"
)

const (
	// before is how far back of a node's fall its load is looked at.
	before = 60 * second
	// together is how close in time falls may lie to be one cascade.
	together = 900 * second
)

// fall is the first time that a node of a cascade went down.
type fall struct {
	key    nodeKey
	p      *pulse
	at     int64 // first sign
	since  int64 // when it probably was
	gen    int32
	order  int32
	excess float64
}

// cascade works out the periods of the service's nodes and, from the falls in
// the time of a finding, who fell first and whose clients felled whom.
type cascade struct {
	periods map[nodeKey][]Period
	falls   []fall
	edges   []Migration
	excess  float64 // of the worst survivor or victim
	nodes   []dissect.Endpoint
	shut    int // nodes that took nobody new though they served those they had
}

func (d *scenes) cascade(name string, th *Thresholds, f *Finding, q *Quality) *cascade {
	s := d.by[name]
	c := &cascade{periods: map[nodeKey][]Period{}}
	for k, p := range s.pulses {
		list, shut := p.periods(d, th, q)
		if len(list) > 0 {
			c.periods[k] = list
		}
		if shut {
			c.shut++
		}
	}
	if f == nil {
		return c
	}
	end := f.End
	if end == 0 {
		end = q.End
	}
	for k, list := range c.periods {
		for _, p := range list {
			if p.Kind != Overloaded && p.Start >= f.Onset-2*before && p.Start <= end && p.Start-f.Onset < together {
				c.falls = append(c.falls, p.fall(k, s.pulses[k]))
				break
			}
		}
	}
	slices.SortFunc(c.falls, byFall)
	byEdge := map[edge]int{}
	for i := range c.falls {
		b := &c.falls[i]
		since := max(b.at-before, c.falls[0].since)
		calm := b.p.tried(d, c.first()-before, c.first()) / (float64(min(before, max(c.first()-q.Begin, second))) / 1e9)
		seconds := max(float64(b.at-since)/1e9, 1)
		tried := b.p.tried(d, since, b.at)
		extra := max(tried-calm*seconds, 1)
		came := make([]int64, len(c.falls)+1) // by generation of what they left, plus one
		total := int64(0)
		for k := range c.falls[:i] {
			a := &c.falls[k]
			if a.since >= b.since {
				continue
			}
			e := edge{a.key, b.key}
			fl := s.edges[e]
			if fl == nil {
				continue
			}
			var n int64
			step := moveStep << d.moveShift
			fl.by.each(func(at, v int64) {
				if at >= since/step && at <= b.at/step {
					n += v
				}
			})
			total += n
			came[a.gen+1] += n
			share := min(float64(n)/extra, 1)
			byEdge[e] = len(c.edges)
			c.edges = append(c.edges, Migration{From: a.key.at, To: b.key.at, Service: name, Share: share,
				Causal: share >= th.CausalShare && tried/seconds >= th.CausalLoad*calm})
		}
		// A node that gave no sign of life since the first one fell may have
		// died with it.
		if b.p.aliveBetween(d, c.first(), b.at) && float64(total) >= th.CausalShare*extra && tried/seconds >= th.CausalLoad*calm && c.heavy(d, s, b) {
			for g, n := range came {
				if n > came[b.gen] {
					b.gen = int32(g)
				}
			}
		}
	}
	for i := range c.falls {
		c.nodes = append(c.nodes, c.falls[i].key.at)
	}
	slices.SortFunc(c.nodes, dissect.Endpoint.Compare)
	c.nodes = slices.Compact(c.nodes)
	if len(c.falls) > 0 {
		c.redistribution(d, s, q, end, float64(max((c.first()-q.Begin)/second, 1)))
	}
	c.migrations(s, name, byEdge)
	return c
}

func (p *Period) fall(k nodeKey, of *pulse) fall {
	return fall{key: k, p: of, at: p.Start, since: p.died}
}

func byFall(a, b fall) int {
	return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.at, b.at), a.key.at.Compare(b.key.at), cmp.Compare(a.key.proto, b.key.proto))
}

// others adds the nodes that fell in another outage of the service than the worst:
// they have their place in the order, and belong to no cascade.
func (c *cascade) others(list []Finding, q *Quality) {
	known := map[nodeKey]bool{}
	for i := range c.falls {
		known[c.falls[i].key] = true
	}
	for k, periods := range c.periods {
		for i := range periods {
			p := &periods[i]
			in := slices.ContainsFunc(list, func(f Finding) bool {
				return f.Class >= PartialOutage && p.Start >= f.Onset-2*before && p.Start <= cmp.Or(f.End, q.End)
			})
			if p.Kind == Overloaded || known[k] || !in {
				continue
			}
			f := p.fall(k, nil)
			f.gen = -1
			c.falls = append(c.falls, f)
			break
		}
	}
	slices.SortFunc(c.falls, byFall)
}

// tried is how many attempts there were at the node between two times.
func (p *pulse) tried(d *scenes, from, to int64) (n float64) {
	length := second << d.shift
	bins := p.line.list()
	for i := range bins {
		b := &bins[i]
		if inside := min(to, (b.at+1)*length) - max(from, b.at*length); inside > 0 {
			n += float64(b.n[nTried]) * float64(inside) / float64(length)
		}
	}
	return n
}

// bearable is the share of what other nodes bore under which a load has felled
// nobody: nodes that serve the same are about as strong.
const bearable = 1. / 3

// heavy reports that the load on a node from the first fall to its own was not one
// that half of the other nodes bore several times over, before they fell or until the
// cascade was through. Who was felled by less has died of something else.
func (c *cascade) heavy(d *scenes, s *scene, b *fall) bool {
	first, last := c.falls[0].since, int64(0)
	up := map[nodeKey]int64{}
	for i := range c.falls {
		f := &c.falls[i]
		up[f.key], last = f.at, max(last, f.at)
	}
	var others []float64
	for k, p := range s.pulses {
		until := last + before
		if at, fell := up[k]; fell {
			until = at
		}
		if until > b.at {
			others = append(others, p.tried(d, first, until))
		}
	}
	slices.Sort(others)
	return len(others) == 0 || b.p.tried(d, first, b.at) >= bearable*others[len(others)/2]
}

// first is when the first sign of a fall was seen.
func (c *cascade) first() int64 {
	return slices.MinFunc(c.falls, func(a, b fall) int { return cmp.Compare(a.at, b.at) }).at
}

// aliveBetween reports a sign of life of the node between two times.
func (p *pulse) aliveBetween(d *scenes, from, to int64) bool {
	for _, b := range p.good.numbers() {
		if k := p.good.get(b); b >= d.bin(from) && b <= d.bin(to) && (k.first > from && k.first < to || k.last > from && k.last < to) {
			return true
		}
	}
	return false
}

// redistribution is the excess of every node that was not among the first to
// fall: its busiest 10 s in the finding over its calm load, less what the loss
// of the first ones explains.
func (c *cascade) redistribution(d *scenes, s *scene, q *Quality, end int64, quiet float64) {
	first := 0
	for i := range c.falls {
		first += int(count(c.falls[i].gen == 0))
	}
	left := 1 - float64(first)/float64(len(s.pulses))
	onset := c.first()
	for k, p := range s.pulses {
		i := slices.IndexFunc(c.falls, func(b fall) bool { return b.key == k })
		if i >= 0 && c.falls[i].gen == 0 {
			continue
		}
		bins := p.line.list()
		var n int64
		for _, b := range bins {
			if b.at < d.bin(onset) {
				n += int64(b.n[nTried])
			}
		}
		if n == 0 {
			continue // it was added later: there is no load to compare with
		}
		peak := peakOf(bins, d.bin(onset), d.bin(end), d.length(10)) / float64(d.length(10)<<d.shift)
		x := min(peak/(float64(n)/quiet)*left, 1e6)
		if i >= 0 {
			c.falls[i].excess = x
		}
		c.excess = max(c.excess, x)
	}
}

// peakOf is the most attempts in that many bins.
func peakOf(bins []bin, from, to, width int64) float64 {
	var sum, best int64
	j := 0
	for i := range bins {
		if bins[i].at < from || bins[i].at > to {
			continue
		}
		sum += int64(bins[i].n[nTried])
		for ; bins[j].at <= bins[i].at-width; j++ {
			if bins[j].at >= from {
				sum -= int64(bins[j].n[nTried])
			}
		}
		best = max(best, sum)
	}
	return float64(best)
}

// migrations lists all edges, those of the cascade with their share.
func (c *cascade) migrations(s *scene, name string, known map[edge]int) {
	for e, f := range s.edges {
		if e.from == e.to {
			continue
		}
		if i, ok := known[e]; ok {
			c.edges[i].Intents, c.edges[i].First, c.edges[i].Last = f.n, f.first, f.last
			continue
		}
		c.edges = append(c.edges, Migration{From: e.from.at, To: e.to.at, Service: name, Intents: f.n, First: f.first, Last: f.last})
	}
}

func byMigration(a, b Migration) int {
	return cmp.Or(-cmp.Compare(count(a.Causal), count(b.Causal)), cmp.Compare(b.Intents, a.Intents), cmp.Compare(a.Service, b.Service),
		a.From.Compare(b.From), a.To.Compare(b.To), cmp.Compare(a.First, b.First))
}

// isCascade: at least one node fell under the clients of one that fell before.
func (c *cascade) isCascade() bool {
	return len(c.falls) >= 3 && slices.ContainsFunc(c.falls, func(f fall) bool { return f.gen > 0 })
}
