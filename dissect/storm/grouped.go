package storm

import (
	"strings"

	"squall/dissect"
)

// Grouped infers how clients retry by a group that is none of their version: a
// site, a country. It is a dissect.Visitor, for one goroutine; Merge joins two
// that saw different clients.
type Grouped struct {
	scenes *scenes
	of     func(*dissect.Attempt) string
}

// labelled keeps apart a group without a name, and one that is called as what
// many groups are folded into.
const labelled = "="

// NewGrouped returns the neutral element; of says to which group a row belongs.
func NewGrouped(of func(*dissect.Attempt) string) *Grouped { return &Grouped{newScenes(&Config{}), of} }

// Client begins the next client.
func (g *Grouped) Client(c *dissect.Client) { g.scenes.begin(c) }

// Attempt takes the next row of the client.
func (g *Grouped) Attempt(a *dissect.Attempt) {
	if a.Relation == dissect.RelationMonitor {
		return
	}
	row := *a
	row.ClientVersion = labelled + g.of(a)
	g.scenes.attempt(&row, g.scenes.place(&row))
}

// Intent takes an intent once it is closed.
func (g *Grouped) Intent(i *dissect.Intent) {
	if i.Relation != dissect.RelationMonitor {
		g.scenes.closed(i)
	}
}

// Merge adds o, which saw other clients and must not be used afterwards.
func (g *Grouped) Merge(o *Grouped) { g.scenes.merge(o.scenes) }

// Policies are those of each service and group that waited, in this order. Of more
// than 128 groups at a service the rest are one, whose rest is true; synchrony and
// the order of nodes are those of a service and are not told.
func (g *Grouped) Policies(th Thresholds, each func(p Policy, rest bool)) {
	g.scenes.end()
	th = th.WithDefaults()
	for _, name := range sortedKeys(g.scenes.by) {
		s := g.scenes.by[name]
		for _, label := range sortedKeys(s.groups) {
			p := s.groups[label].policy(&th)
			if p.Gaps == 0 && p.Limit == 0 {
				continue
			}
			group, told := strings.CutPrefix(label, labelled)
			p.Service, p.Group = name, group
			each(p, !told)
		}
	}
}
