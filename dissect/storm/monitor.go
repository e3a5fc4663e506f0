package storm

import (
	"cmp"
	"slices"
	"strings"

	"squall/dissect"
)

// watcher is what the client in hand checks.
type watcher struct {
	checks, failed int64
	first, last    int64
	services       []string
	nodes          map[nodeKey]*round
}

// round is the checks of one node.
type round struct{ n, first, last int64 }

// check takes an attempt of a monitor: counted and named, and left out of all
// that is judged.
func (s *State) check(a *dissect.Attempt) {
	s.current.count(a)
	n := s.node(nodeKey{a.Service, a.Destination, a.Proto}, a)
	n.First, n.Last = min(n.First, a.Start), max(n.Last, a.Start)
	n.count(a)
	w := &s.watcher
	if w.nodes == nil {
		w.nodes, w.first = map[nodeKey]*round{}, a.Start
	}
	if !slices.Contains(w.services, a.Service) {
		w.services = append(w.services, a.Service)
	}
	k := nodeKey{a.Service, a.Destination, a.Proto}
	r := w.nodes[k]
	if r == nil {
		r = &round{first: a.Start}
		w.nodes[k] = r
	}
	r.n++
	r.last = a.Start
	w.checks++
	w.last = a.Start
	if a.Outcome.Failed() && !(a.Outcome == dissect.OutcomeStalled && a.Answer == dissect.AnswerSynAck) {
		w.failed++
	}
}

// watched ends the monitor in hand.
func (s *State) watched() {
	w := &s.watcher
	if w.checks == 0 {
		return
	}
	m := Monitor{ID: s.current.ID, Services: slices.Sorted(slices.Values(w.services)), Nodes: int64(len(w.nodes)), Checks: w.checks, Failed: w.failed,
		First: w.first, Last: w.last}
	var spans, gaps int64
	for _, r := range w.nodes {
		spans, gaps = spans+r.last-r.first, gaps+r.n-1
	}
	if gaps > 0 {
		m.Every = spans / gaps
	}
	s.rankMonitor(m)
	*w = watcher{}
}

// rankMonitor keeps those that check most.
func (s *State) rankMonitor(m Monitor) {
	at, _ := slices.BinarySearchFunc(s.monitors, m, func(a, b Monitor) int {
		return cmp.Or(cmp.Compare(b.Checks, a.Checks), strings.Compare(a.ID, b.ID))
	})
	if at < busiest {
		s.monitors = slices.Insert(s.monitors, at, m)
		s.monitors = s.monitors[:min(len(s.monitors), busiest)]
	}
}
