package storm

import "squall/dissect"

// nexts are the tries after a failure, by where they go: to the same node, back to
// the one before it, and how many to each class of nodes. Each client may have a list
// of its own, so what one node's clients do next says little; that a client never
// comes back to a node that it has just left says much.
type nexts struct {
	all, same, back int64
	to              [strata]int32
}

func (m *nexts) add(t *thread, a *dissect.Attempt, at *place) {
	m.all++
	m.to[at.stratum()]++
	switch a.Destination {
	case t.prev.Destination:
		m.same++
	case t.before:
		m.back++
	}
	t.before = t.prev.Destination
}

func (m *nexts) merge(o *nexts) {
	m.all += o.all
	m.same += o.same
	m.back += o.back
	for i, n := range o.to {
		m.to[i] += n
	}
}

// order in which clients try nodes.
func (m *nexts) order() string {
	if m.all < 30 {
		return "undetermined"
	}
	if m.same*10 >= m.all*9 {
		return "sticky"
	}
	squares := 0.0
	for _, n := range m.to {
		squares += float64(n) * float64(n)
	}
	all := float64(m.all)
	again := squares / all // returns to a certain node, were each drawn anew
	few := func(n int64) bool { return float64(n) < again/4 }
	switch same := float64(m.same); {
	case again < 5: // of so many nodes none comes twice soon
	case few(m.same) && (few(m.back) || all < 2.5*again): // of two nodes the other one is the next
		return "round_robin"
	case few(m.same), same > again/2 && same < 2*again:
		return "random"
	}
	return "undetermined"
}
