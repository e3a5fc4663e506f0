package reports

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// Impact is what the clients of one service, or of one group of its clients,
// went through.
type Impact struct {
	Service  string
	By       string // site, asn, country; empty: all clients of the service
	Group    string
	Clients  int64
	Hit      int64   // clients that failed at least once
	NeverIn  int64   // of them, those that were not accepted afterwards
	Locked   int64   // client-ns from a first failure to the next acceptance, or the end
	Share    float64 // of the service's
	Counts   storm.Counts
	attached durations
}

// Impacts is the table of harm, most of it first.
func Impacts() *Of[Impact] {
	type i = Impact
	fields := []field[i]{
		str("service", "that the clients wanted", func(v *i) string { return v.Service }),
		str("by", "site, asn or country; empty: all clients of the service", func(v *i) string { return v.By }),
		str("group", "of the clients, as --groups says; empty: not in the file", func(v *i) string { return v.Group }),
		num("clients", "", "that tried", func(v *i) int64 { return v.Clients }),
		num("clients_hit", "", "that failed at least once", func(v *i) int64 { return v.Hit }),
		num("never_in", "", "of them, never accepted until the end", func(v *i) int64 { return v.NeverIn }),
		num("locked_out_ns", "ns", "client time from first failure to acceptance", func(v *i) int64 { return v.Locked }),
		ratio("locked_out_minutes", "min", "the same: client-minutes", func(v *i) float64 { return float64(v.Locked) / 60e9 }),
		ratio("locked_out_share", "", "of that of the service", func(v *i) float64 { return v.Share }),
		span("attach_p50_ns", "time from the first attempt of an intent to its acceptance, median, at most 6 % too high; empty: none was accepted", func(v *i) int64 { return v.attached.quantile(0.5) }),
		span("attach_p95_ns", "95th percentile", func(v *i) int64 { return v.attached.quantile(0.95) }),
		span("attach_p99_ns", "99th percentile", func(v *i) int64 { return v.attached.quantile(0.99) }),
	}
	return define("impact", "what the clients of a service, or a group of them, went through", false,
		append(fields, counts(func(v *i) *storm.Counts { return &v.Counts })...)...).leads("service clients_hit never_in locked_out_minutes by group clients attach_p50_ns attach_p95_ns")
}

// durations is a histogram in steps of a sixteenth of an octave: what it gives
// is at most 6 % too high.
type durations map[int32]int64

func (d durations) add(ns int64) {
	ns = max(ns, 1)
	e := bits.Len64(uint64(ns)) - 1
	d[int32(e)<<4|int32(math.Ldexp(float64(ns), 4-e))&15]++
}

func (d durations) quantile(q float64) int64 {
	keys := make([]int32, 0, len(d))
	total := int64(0)
	for k, n := range d {
		keys = append(keys, k)
		total += n
	}
	if total == 0 {
		return -1
	}
	slices.Sort(keys)
	left := int64(math.Ceil(q * float64(total)))
	for _, k := range keys {
		if left -= d[k]; left <= 0 {
			return int64(math.Ldexp(float64(16+k&15)+1, int(k>>4)-4)) - 1
		}
	}
	return -1
}

type impactKey struct{ service, by, group string }

// impacts counts what one worker sees; all of it adds up.
type impacts struct {
	groups *Groups
	end    int64
	by     map[impactKey]*Impact

	locked map[string]lockouts // by service

	client *dissect.Client
	stands map[string]*stand // of the client in hand, by service
	whole  *impactSum
}

type impactSum struct {
	by     map[impactKey]*Impact
	locked map[string]lockouts
}

// lockouts are the changes of how many clients are locked out of a service, by
// window: none where nothing changes.
type lockouts map[int64]change

type change struct {
	clients int64 // more at the end of the window than before it
	within  int64 // client-ns of them in the window itself
}

// add counts one client from a time to another.
func (l lockouts) add(from, to int64) {
	const w = storm.WindowLength
	for _, edge := range [...]struct{ at, n int64 }{{from, 1}, {to, -1}} {
		k := edge.at / w
		c := l[k]
		c.clients += edge.n
		c.within += edge.n * ((k+1)*w - edge.at)
		l[k] = c
	}
}

// mean is how many clients are locked out in each bin of an axis: over the bin's
// time, so that the area under the line is the client time that was lost.
func (l lockouts) mean(a *axis) []float64 {
	const w = storm.WindowLength
	out := make([]float64, a.n)
	level, next := int64(0), 0
	fill := func(until int) {
		for ; next < until; next++ {
			out[next] += float64(level)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(l)) {
		c := l[k]
		if b := a.bin(k * w); b >= 0 {
			fill(b + 1)
			out[b] += (float64(c.within) + float64(c.clients)*float64(a.begin+int64(b+1)*a.step-(k+1)*w)) / float64(a.step)
		} else if k*w > a.begin {
			break
		}
		level += c.clients
	}
	fill(a.n)
	return out
}

// stand is how the client in hand stands at a service.
type stand struct {
	counts    storm.Counts
	addr      dissect.Addr
	began     int64
	lock      int64 // first failure since the last acceptance, 0 = none
	locked    int64
	hit       bool
	durations []int64
}

func (m *impacts) Client(c *dissect.Client) {
	m.leave()
	known := *c
	m.client = &known
}

func (m *impacts) Intent(*dissect.Intent) {}

func (m *impacts) Attempt(a *dissect.Attempt) {
	if a.Relation == dissect.RelationMonitor {
		return
	}
	s := m.stands[a.Service]
	if s == nil {
		s = &stand{}
		m.stands[a.Service] = s
	}
	s.counts.Count(a)
	s.addr = a.Source.Addr
	if a.Relation == dissect.RelationParallel {
		return
	}
	if a.Relation.Counted() && !a.Relation.Retries() {
		s.began = a.Start
	}
	switch {
	case a.Outcome == dissect.OutcomeAccepted:
		if a.Relation.Counted() {
			at := a.End
			if a.AnsweredAt != 0 {
				at = a.AnsweredAt
			}
			s.durations = append(s.durations, at-s.began)
		}
		if s.lock != 0 {
			m.unlock(a.Service, s, a.End)
			s.lock = 0
		}
	case a.Relation.Counted() && a.Event() == "failure" && (m.client.Attempts > 1 || a.Transmissions > 1 || a.SourcePackets > int64(a.Transmissions) || a.Protocol != ""):
		// A lone packet of an address that was never seen again is no client's.
		s.hit = true
		if s.lock == 0 {
			s.lock = a.Start
		}
	}
}

// leave adds the client in hand to its service and its groups.
func (m *impacts) leave() {
	for service, s := range m.stands {
		g := m.groups.Of(s.addr)
		keys := []impactKey{{service: service}}
		if m.groups != nil {
			keys = append(keys, impactKey{service, "site", g.Site}, impactKey{service, "asn", g.ASN}, impactKey{service, "country", g.Country})
		}
		never := s.lock != 0
		if never {
			m.unlock(service, s, m.end)
		}
		for _, k := range keys {
			i := m.by[k]
			if i == nil {
				i = &Impact{Service: k.service, By: k.by, Group: k.group, attached: durations{}}
				m.by[k] = i
			}
			i.Clients++
			i.Hit += tally(s.hit)
			i.NeverIn += tally(never)
			i.Locked += s.locked
			i.Counts.Add(&s.counts)
			for _, d := range s.durations {
				i.attached.add(d)
			}
		}
	}
	clear(m.stands)
}

// unlock ends the time that the client in hand was locked out of a service.
func (m *impacts) unlock(service string, s *stand, at int64) {
	if at <= s.lock {
		return
	}
	s.locked += at - s.lock
	l := m.locked[service]
	if l == nil {
		l = lockouts{}
		m.locked[service] = l
	}
	l.add(s.lock, at)
}

func tally(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

func (m *impacts) Done() {
	m.leave()
	for service, l := range m.locked {
		all := m.whole.locked[service]
		if all == nil {
			m.whole.locked[service] = l
			continue
		}
		for k, c := range l {
			sum := all[k]
			sum.clients += c.clients
			sum.within += c.within
			all[k] = sum
		}
	}
	for k, i := range m.by {
		w := m.whole.by[k]
		if w == nil {
			m.whole.by[k] = i
			continue
		}
		w.Clients += i.Clients
		w.Hit += i.Hit
		w.NeverIn += i.NeverIn
		w.Locked += i.Locked
		w.Counts.Add(&i.Counts)
		for b, n := range i.attached {
			w.attached[b] += n
		}
	}
}

// impactOf gives the rows: services by the harm done, each with its groups.
// A kind of group that the file says nothing of has no rows. It counts once.
func impactOf(r *Results) ([]Impact, map[string]lockouts, error) {
	whole := r.harmed
	if whole == nil {
		whole = &impactSum{by: map[impactKey]*Impact{}, locked: map[string]lockouts{}}
		_, end := r.Analysis.Span()
		err := r.Analysis.Visit(func(int) dissect.Visitor {
			return &impacts{groups: r.Groups, end: end, by: map[impactKey]*Impact{}, locked: map[string]lockouts{}, stands: map[string]*stand{}, whole: whole}
		})
		if err != nil {
			return nil, nil, err
		}
		r.harmed = whole
	}
	said := map[string]bool{"": true}
	for k := range whole.by {
		said[k.by] = said[k.by] || k.group != ""
	}
	var out []Impact
	for k, i := range whole.by {
		if !said[k.by] {
			continue
		}
		if all := whole.by[impactKey{service: k.service}].Locked; all > 0 {
			i.Share = float64(i.Locked) / float64(all)
		}
		out = append(out, *i)
	}
	total := func(i *Impact) int64 { return whole.by[impactKey{service: i.Service}].Locked }
	slices.SortFunc(out, func(a, b Impact) int {
		return cmp.Or(cmp.Compare(total(&b), total(&a)), strings.Compare(a.Service, b.Service), strings.Compare(a.By, b.By), cmp.Compare(b.Locked, a.Locked), strings.Compare(a.Group, b.Group))
	})
	return out, whole.locked, nil
}
