package storm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"squall/dissect"
)

// central reports a role that others depend on.
func central(r dissect.Role) bool {
	switch r {
	case dissect.RoleSupernode, dissect.RoleLogin, dissect.RoleRelay, dissect.RoleBootstrap, dissect.RoleTracker:
		return true
	}
	return false
}

// roles sums up each central role that was seen: who was in trouble, and who
// was first.
func roles(r *Report, q *Quality) (out []RoleHealth) {
	at := map[dissect.Role]*RoleHealth{}
	var list []*RoleHealth
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if !central(n.Role) {
			continue
		}
		h := at[n.Role]
		if h == nil {
			h = &RoleHealth{Role: n.Role}
			at[n.Role] = h
			list = append(list, h)
		}
		h.Nodes++
		h.add(&n.Counts)
		h.Down += count(slices.ContainsFunc(n.Periods, func(p Period) bool { return p.Kind != Overloaded }))
		h.Overloaded += count(slices.ContainsFunc(n.Periods, func(p Period) bool { return p.Kind == Overloaded }))
		if !slices.Contains(h.Services, n.Service) {
			h.Services = append(h.Services, n.Service)
		}
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		for _, h := range list {
			if !slices.Contains(h.Services, f.Service) {
				continue
			}
			h.Class = max(h.Class, f.Class)
			h.Clients = max(h.Clients, f.harmed())
			if f.Class >= PathLoss && (h.Onset == 0 || f.Onset < h.Onset) {
				h.Onset = f.Onset
			}
		}
	}
	slices.SortFunc(list, func(a, b *RoleHealth) int {
		return cmp.Or(cmp.Compare(count(a.Onset == 0), count(b.Onset == 0)), cmp.Compare(a.Onset, b.Onset), cmp.Compare(a.Role, b.Role))
	})
	for i, h := range list {
		slices.Sort(h.Services)
		h.Sentence = h.sentence(list[0], i > 0, q)
		out = append(out, *h)
	}
	return out
}

func (h *RoleHealth) sentence(first *RoleHealth, others bool, q *Quality) string {
	name := plural[h.Role]
	numbers := fmt.Sprintf("%s, %s and %s, %.1f %% of the decided ones failed, %.1f %% of the answers late", many(h.Nodes, strings.TrimSuffix(name, "s"), name),
		many(h.Attempts, "attempt", "attempts"), many(h.Refreshes, "refresh", "refreshes"), 100*h.FailureRatio(), 100*h.LateRatio())
	if h.Onset == 0 {
		return "The " + name + " were well: " + numbers + "."
	}
	s := fmt.Sprintf("The %s were in trouble (%v) from %s on", name, h.Class, q.clock(h.Onset))
	if others && first.Onset < h.Onset {
		s += fmt.Sprintf(", %s after the %s", span(h.Onset-first.Onset), plural[first.Role])
	}
	return fmt.Sprintf("%s: %s; %d went down, %s overloaded, %s hit.", s, numbers, h.Down, many(h.Overloaded, "was", "were"), many(h.Clients, "client", "clients"))
}

var plural = [dissect.NumRoles]string{
	dissect.RoleUnknown: "nodes", dissect.RoleSupernode: "supernodes", dissect.RoleLogin: "login servers", dissect.RoleRelay: "relays",
	dissect.RoleBootstrap: "bootstrap nodes", dissect.RoleTracker: "trackers", dissect.RolePeer: "peers",
}
