package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// kinds of groups, in the order of their columns.
var kinds = [...]string{"site", "asn", "country"}

func (g *Group) is(kind int) string {
	return [...]string{g.Site, g.ASN, g.Country}[kind]
}

// hit is how many clients of a group a finding hit.
type hit struct {
	kind         int
	group        string
	clients, hit int64
}

func (h *hit) words() string {
	name := h.group
	if name == "" {
		name = "(not in the file)"
	}
	return fmt.Sprintf("%s %s: %d of %d clients", kinds[h.kind], name, h.hit, h.clients)
}

// found is a finding by its service and time.
type found struct {
	service    string
	onset, end int64
}

func foundOf(f *storm.Finding) found { return found{f.Service, f.Onset, f.End} }

type hitKey struct {
	kind  int
	group string
}

// hits counts, of those that one worker sees, the clients of each group that tried while a
// finding lasted, and those that failed.
type hits struct {
	groups    *Groups
	by        map[string][]found // of each service
	stand     map[found]hitStand // of the client in hand
	of        map[found]map[hitKey]*hit
	wholeHits map[found]map[hitKey]*hit
}

type hitStand struct {
	addr   dissect.Addr
	failed bool
}

func (h *hits) Client(*dissect.Client) { h.leave() }
func (h *hits) Intent(*dissect.Intent) {}

func (h *hits) Attempt(a *dissect.Attempt) {
	if !a.Relation.Counted() {
		return
	}
	for _, s := range h.by[a.Service] {
		if a.Start >= s.onset && (s.end == 0 || a.Start <= s.end) {
			h.stand[s] = hitStand{a.Source.Addr, h.stand[s].failed || a.Event() == "failure"}
		}
	}
}

func (h *hits) leave() {
	for s, at := range h.stand {
		g := h.groups.Of(at.addr)
		if h.of[s] == nil {
			h.of[s] = map[hitKey]*hit{}
		}
		for kind := range kinds {
			k := hitKey{kind, g.is(kind)}
			if h.of[s][k] == nil {
				h.of[s][k] = &hit{kind: k.kind, group: k.group}
			}
			h.of[s][k].clients++
			h.of[s][k].hit += tally(at.failed)
		}
	}
	clear(h.stand)
}

func (h *hits) Done() {
	h.leave()
	for s, by := range h.of {
		if h.wholeHits[s] == nil {
			h.wholeHits[s] = map[hitKey]*hit{}
		}
		for k, one := range by {
			if all := h.wholeHits[s][k]; all != nil {
				all.clients, all.hit = all.clients+one.clients, all.hit+one.hit
				continue
			}
			h.wholeHits[s][k] = one
		}
	}
}

// hitsOf says of each finding which groups it hit, kind by kind, those with most
// clients hit first. A kind that the files say nothing of is left out.
func hitsOf(r *Results) (map[found][]hit, error) {
	report, err := r.Report()
	if err != nil || r.Groups == nil {
		return nil, err
	}
	by := map[string][]found{}
	for i := range report.Findings {
		s := foundOf(&report.Findings[i])
		if !slices.Contains(by[s.service], s) {
			by[s.service] = append(by[s.service], s)
		}
	}
	whole := map[found]map[hitKey]*hit{}
	if err := r.Analysis.Visit(func(int) dissect.Visitor {
		return &hits{groups: r.Groups, by: by, stand: map[found]hitStand{}, of: map[found]map[hitKey]*hit{}, wholeHits: whole}
	}); err != nil {
		return nil, err
	}
	out := map[found][]hit{}
	for s, all := range whole {
		said := [len(kinds)]bool{}
		for k := range all {
			said[k.kind] = said[k.kind] || k.group != ""
		}
		for k, h := range all {
			if said[k.kind] {
				out[s] = append(out[s], *h)
			}
		}
		slices.SortFunc(out[s], func(a, b hit) int {
			return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(b.hit, a.hit), cmp.Compare(b.clients, a.clients), strings.Compare(a.group, b.group))
		})
	}
	return out, nil
}

// mostHits are the groups of a kind that are named.
const mostHits = 5

// hitWords are the groups that a finding hit, as many of each kind as are named.
func hitWords(all []hit) (out []string) {
	n, rest := 0, int64(0)
	for i := range all {
		h := &all[i]
		if i > 0 && all[i-1].kind != h.kind {
			n, rest = 0, 0
		}
		if n++; n <= mostHits {
			out = append(out, h.words())
		} else {
			rest += h.hit
		}
		if last := i == len(all)-1 || all[i+1].kind != h.kind; last && n > mostHits {
			out = append(out, fmt.Sprintf("%s, %d others: %d clients", kinds[h.kind], n-mostHits, rest))
		}
	}
	return out
}

// GroupWindow is what the clients of a group did at a service in a window.
type GroupWindow struct {
	Start, Length      int64
	Service, By, Group string
	storm.Counts
	Clients int64
}

// GroupTimeline is the time line by group; without groups it has no rows.
func GroupTimeline() *Of[GroupWindow] {
	type w = GroupWindow
	fields := []field[w]{
		when("window_start", "the window's begin", func(v *w) int64 { return v.Start }),
		span("window_ns", "its length, 10 s; more where there are very many groups", func(v *w) int64 { return v.Length }),
		str("service", "the service", func(v *w) string { return v.Service }),
		str("by", "site, asn or country", func(v *w) string { return v.By }),
		str("group", "of the clients, as --groups says; empty: not in the file", func(v *w) string { return v.Group }),
	}
	fields = append(fields, counts(func(v *w) *storm.Counts { return &v.Counts })...)
	return define("group_timeline", "the clients of a group, at a service, in a window", false, append(fields,
		num("clients", "", "different clients that tried", func(v *w) int64 { return v.Clients }),
	)...).leads("window_start by group attempts intents amplification failure_ratio clients service")
}

type groupKey struct {
	at      int64
	service string
	kind    int
	group   string
}

// maxGroupWindows bounds the table; over it windows get twice as long.
const maxGroupWindows = 1 << 19

// groupTimes is a time line by group: sums that merge in any order.
type groupTimes struct {
	shift uint
	by    map[groupKey]*GroupWindow
}

func (t *groupTimes) add(k groupKey, c *storm.Counts, clients int64) {
	w := t.by[k]
	if w == nil {
		w = &GroupWindow{}
		t.by[k] = w
	}
	w.Counts.Add(c)
	w.Clients += clients
}

func (t *groupTimes) widen() {
	old := t.by
	t.shift, t.by = t.shift+1, make(map[groupKey]*GroupWindow, len(old)/2)
	for k, w := range old {
		k.at >>= 1
		t.add(k, &w.Counts, w.Clients)
	}
}

func (t *groupTimes) merge(o *groupTimes) {
	for o.shift < t.shift {
		o.widen()
	}
	for t.shift < o.shift {
		t.widen()
	}
	for k, w := range o.by {
		t.add(k, &w.Counts, w.Clients)
	}
	for len(t.by) > maxGroupWindows {
		t.widen()
	}
}

// grouping counts what one worker sees.
type grouping struct {
	groups *Groups
	groupTimes
	seen  map[groupKey]bool // in which the client in hand was counted
	whole *groupTimes
}

func (g *grouping) Client(*dissect.Client) { clear(g.seen) }
func (g *grouping) Intent(*dissect.Intent) {}

func (g *grouping) Attempt(a *dissect.Attempt) {
	var c storm.Counts
	c.Count(a)
	group := g.groups.Of(a.Source.Addr)
	for kind := range kinds {
		k := groupKey{a.Start / storm.WindowLength >> g.shift, a.Service, kind, group.is(kind)}
		first := int64(0)
		if a.Relation.Counted() && !g.seen[k] {
			g.seen[k], first = true, 1
		}
		g.add(k, &c, first)
	}
	for len(g.by) > maxGroupWindows {
		g.widen()
		clear(g.seen)
	}
}

func (g *grouping) Done() {
	g.whole.merge(&g.groupTimes)
}

func groupTimeline(r *Results) (out []GroupWindow, err error) {
	if r.Groups == nil {
		return nil, nil
	}
	whole := &groupTimes{by: map[groupKey]*GroupWindow{}}
	if err = r.Analysis.Visit(func(int) dissect.Visitor {
		return &grouping{groups: r.Groups, groupTimes: groupTimes{by: map[groupKey]*GroupWindow{}}, seen: map[groupKey]bool{}, whole: whole}
	}); err != nil {
		return nil, err
	}
	said := [len(kinds)]bool{}
	for k := range whole.by {
		said[k.kind] = said[k.kind] || k.group != ""
	}
	for k, w := range whole.by {
		if !said[k.kind] {
			continue
		}
		w.Length = storm.WindowLength << whole.shift
		w.Start, w.Service, w.By, w.Group = k.at*w.Length, k.service, kinds[k.kind], k.group
		out = append(out, *w)
	}
	slices.SortFunc(out, func(a, b GroupWindow) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.By, b.By), strings.Compare(a.Group, b.Group), cmp.Compare(a.Start, b.Start))
	})
	return out, nil
}
