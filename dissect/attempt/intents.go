package attempt

import (
	"encoding/binary"
	"slices"

	"squall/dissect"
)

// The waits that hold an intent together (storms.md 3.1), ns.
const (
	waitUnlearned = 120 * second
	waitLeast     = 30 * second
	waitMost      = 900 * second
	gapsToLearn   = 10
	twinWithin    = 300 * second / 1000 // rule 37
)

func learnedWait(gaps []int64) int64 {
	if len(gaps) < gapsToLearn {
		return waitUnlearned
	}
	slices.Sort(gaps)
	return min(max(waitLeast, 3*gaps[(len(gaps)*95+99)/100-1]), waitMost)
}

// relate fills the relations and intents of one client, service by service.
func (x *Result) relate(c *client, begin, end int64) {
	rows := x.rows[c.from:c.to]
	groups := map[string][]*related{}
	var order []string
	c.First, c.Attempts = rows[0].rec.Start, int32(len(rows))
	for i := range rows {
		r := &rows[i]
		if groups[r.service] == nil {
			order = append(order, r.service)
		}
		groups[r.service] = append(groups[r.service], r)
		c.Last, c.Addr = r.rec.Start, r.rec.Source.Addr
		if r.rec.ClientKey != 0 {
			c.Level = dissect.IDProtocol
		}
		if r.rec.Version != 0 {
			c.Version = x.names.String(r.rec.Version)
		}
	}
	var gaps []int64
	for _, s := range order {
		gaps = twinsAndLate(groups[s], gaps)
	}
	c.Wait = learnedWait(gaps)
	for _, s := range order {
		x.chain(c, groups[s], begin, end)
	}
}

// twinsAndLate marks overlapping dials (rule 37) and late answers (rule 30),
// and collects the gaps that W is learned from.
func twinsAndLate(list []*related, gaps []int64) []int64 {
	var prev *related
	for i, r := range list {
		for j := i - 1; j >= 0 && r.rec.Start-list[j].rec.Start < twinWithin; j-- {
			r.twin = r.twin || list[j].rec.End > r.rec.Start && !list[j].twin
		}
		if r.twin {
			continue
		}
		if prev != nil {
			p := &prev.rec
			if p.Outcome == dissect.OutcomeAccepted && p.AnsweredAt > r.rec.Start {
				p.Outcome, p.Evidence = dissect.OutcomeTimeout, dissect.EvidenceSilence
				p.Flags |= FlagLate
			}
			if gap := r.rec.Start - p.Start; p.Outcome != dissect.OutcomeAccepted && gap <= waitMost {
				gaps = append(gaps, gap)
			}
		}
		prev = r
	}
	return gaps
}

func (x *Result) chain(c *client, list []*related, begin, end int64) {
	var open, session, before *related
	from := len(x.intents)
	lastOf := map[int32]*related{}
	for _, r := range list {
		r.gap = -1
		if r.twin {
			// Its elder twin stands before it in the list and has an intent.
			r.relation, r.number, r.intent = dissect.RelationParallel, before.number, before.intent
			lastOf[r.intent] = r
			continue
		}
		ok := r.rec.Outcome == dissect.OutcomeAccepted
		alive := session != nil && (session.rec.SessionEnd == 0 || session.rec.SessionEnd > r.rec.Start)
		refresh := alive || r.rec.Flags&FlagRefresh != 0 && open == nil
		switch {
		case refresh && ok:
			x.begin(c, r, dissect.RelationRefresh)
		case refresh:
			x.begin(c, r, dissect.RelationReattach)
			session, open = nil, r
		case open != nil && r.rec.Start-open.rec.End <= c.Wait:
			in := &x.intents[open.intent]
			r.intent, r.number, r.relation = open.intent, open.number+1, dissect.RelationRetry
			if r.rec.Destination != open.rec.Destination {
				r.relation = dissect.RelationFailover
			}
			r.gap = r.rec.Start - open.rec.Start
			in.Attempts++
			in.Retries++
			open = r
		default:
			rel := dissect.RelationFirst
			if session != nil && session.rec.SessionEnded != dissect.SessionByClient {
				rel = dissect.RelationReattach
			}
			x.begin(c, r, rel)
			open = r
		}
		in := &x.intents[r.intent]
		in.End, in.LastNode, in.Outcome = r.rec.End, r.rec.Destination, r.rec.Outcome
		lastOf[r.intent], before = r, r
		if ok {
			session, open = r, nil
		}
	}
	nodes := map[int32]map[dissect.Endpoint]bool{}
	for _, r := range list {
		if nodes[r.intent] == nil {
			nodes[r.intent] = map[dissect.Endpoint]bool{}
		}
		nodes[r.intent][r.rec.Destination] = true
	}
	for i := from; i < len(x.intents); i++ {
		in := &x.intents[i]
		in.Nodes = int32(len(nodes[int32(i)]))
		lastOf[int32(i)].last = true
		switch {
		case in.Outcome == dissect.OutcomeAccepted:
			in.ClosedBy = dissect.ClosedAccepted
		case in.End+c.Wait < end:
			in.ClosedBy = dissect.ClosedQuiet
		default:
			in.ClosedBy = dissect.ClosedEdge
		}
		// Rule 39: a retry rhythm that stands at the capture's start.
		in.Censored = in.ClosedBy == dissect.ClosedEdge || in.Retries > 0 && in.Start-begin < waitLeast
	}
}

func (x *Result) begin(c *client, r *related, rel dissect.Relation) {
	r.relation, r.number, r.intent = rel, 1, int32(len(x.intents))
	b := binary.BigEndian.AppendUint64([]byte(c.ID+"\x00"+r.service+"\x00"), r.id)
	x.intents = append(x.intents, dissect.Intent{ID: dissect.Hash64(1, b), Start: r.rec.Start, End: r.rec.End,
		ClientID: c.ID, Service: r.service, Protocol: x.names.String(r.rec.Protocol), Attempts: 1,
		Relation: rel, Wait: c.Wait, FirstNode: r.rec.Destination, LastNode: r.rec.Destination})
}
