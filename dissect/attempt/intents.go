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
func (p *part) relate(x *Result, c *client) {
	p.infer(x, c)
	var groups []group
	var many map[string]int // those after the first few
	c.First, c.Attempts = p.row(c.from).rec.Start, int32(c.to-c.from)
	for i := c.from; i < c.to; i++ {
		r := p.row(i)
		at := slices.IndexFunc(groups[:min(len(groups), fewServices)], func(g group) bool { return g.service == r.service })
		if at < 0 && len(groups) >= fewServices { // a scanner's ports
			if many == nil {
				many = map[string]int{}
			}
			if n, ok := many[r.service]; ok {
				at = n
			} else {
				many[r.service] = len(groups)
			}
		}
		if at < 0 {
			at = len(groups)
			groups = append(groups, group{service: r.service})
			if at == 0 {
				groups[0].rows = make([]*related, 0, c.to-c.from)
			}
		}
		groups[at].rows = append(groups[at].rows, r)
		c.Last, c.Addr = r.rec.Start, *r.rec.client()
		if r.rec.Version != 0 {
			c.Version = x.names.String(r.rec.Version)
		}
	}
	var gaps []int64
	for _, g := range groups {
		gaps = twinsAndLate(g.rows, gaps)
	}
	c.Wait = learnedWait(gaps)
	for _, g := range groups {
		p.chain(c, g.rows, x.begin, x.end)
	}
}

const fewServices = 8

// group is what a client did at one service, in order of start. The service of
// most rows is the same string, so that comparing is cheap.
type group struct {
	service string
	rows    []*related
}

// twinsAndLate marks overlapping dials (rule 37) and late answers (rule 30),
// and collects the gaps that W is learned from.
func twinsAndLate(list []*related, gaps []int64) []int64 {
	var prev *related
	var room [8]*related
	elders := room[:0] // no twins themselves, begun less than twinWithin ago
	for _, r := range list {
		for len(elders) > 0 && r.rec.Start-elders[0].rec.Start >= twinWithin {
			if elders = elders[1:]; len(elders) == 0 {
				elders = room[:0]
			}
		}
		r.twin = slices.ContainsFunc(elders, func(e *related) bool { return e.rec.End > r.rec.Start })
		if r.twin {
			continue
		}
		elders = append(elders, r)
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

// chain ties the attempts of one client at one service into intents.
func (p *part) chain(c *client, list []*related, begin, end int64) {
	var open, session, before *related
	from := len(p.intents)
	var lastOf []*related // of each intent from that one on
	for _, r := range list {
		r.gap = -1
		if r.twin {
			// Its elder twin stands before it in the list and has an intent.
			r.relation, r.number, r.intent = dissect.RelationParallel, before.number, before.intent
			lastOf[int(r.intent)-from] = r
			continue
		}
		if session != nil {
			session.rec.expire(r.rec.Start)
		}
		ok := r.rec.Outcome == dissect.OutcomeAccepted
		alive := session != nil && (session.rec.SessionEnd == 0 || session.rec.SessionEnd > r.rec.Start)
		if alive && ok && r.rec.Proto == dissect.ProtoTCP && session.rec.Proto == dissect.ProtoTCP &&
			r.rec.Source != session.rec.Source && session.rec.LastSeen < r.rec.Start {
			alive = false // nothing more came on the old connection: it had died unseen
		}
		refresh := alive || r.rec.Flags&FlagRefresh != 0 && open == nil
		if alive && ok && c.Level == dissect.IDAddress && twoSessions(&session.rec, &r.rec) {
			c.NATSuspect = true
		}
		switch {
		case refresh && (ok || r.rec.Outcome == dissect.OutcomeUnknown && r.rec.Proto == dissect.ProtoTCP && r.rec.Flags&FlagRefresh != 0):
			// Over TCP, a refresh of which nothing is known says nothing of a loss.
			p.begin(c, r, dissect.RelationRefresh)
		case refresh:
			p.begin(c, r, dissect.RelationReattach)
			session, open = nil, r
		case open != nil && r.rec.Start-open.rec.End <= c.Wait:
			in := &p.intents[open.intent]
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
			if session != nil && session.rec.SessionEnded != dissect.SessionByClient && session.rec.SessionEnded != dissect.SessionExpired {
				rel = dissect.RelationReattach
			}
			p.begin(c, r, rel)
			open = r
		}
		in := &p.intents[r.intent]
		in.End, in.LastNode, in.Outcome = r.rec.End, r.rec.Destination, r.rec.Outcome
		if int(r.intent)-from == len(lastOf) {
			lastOf = append(lastOf, r)
		}
		lastOf[int(r.intent)-from], before = r, r
		if ok {
			session, open = r, nil
		} else if r.rec.Flags&FlagServed != 0 {
			open = nil
		}
	}
	if session != nil {
		session.rec.expire(end)
	}
	p.close(c, list, lastOf, from, begin, end)
}

// close settles what the end of each intent says about it.
func (p *part) close(c *client, list, lastOf []*related, from int, begin, end int64) {
	nodes := map[dissect.Endpoint]bool{} // of the intent in hand
	in := int32(-1)
	for _, r := range list {
		if r.intent != in {
			in = r.intent
			clear(nodes)
		}
		if !nodes[r.rec.Destination] {
			nodes[r.rec.Destination] = true
			p.intents[in].Nodes++
		}
	}
	for i := from; i < len(p.intents); i++ {
		in := &p.intents[i]
		lastOf[i-from].last = true
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

// expire ends a session whose lifetime passed by now without a refresh. Its
// client let it go, for who loses a session is seen trying to refresh it.
func (r *Record) expire(now int64) {
	if over := r.AnsweredAt + r.Lifetime; r.Lifetime > 0 && r.SessionEnd == 0 && over < now {
		r.SessionEnd, r.SessionEnded = over, dissect.SessionExpired
	}
}

// overlap is how long two sessions must live side by side to be two hosts'.
const overlap = second

// twoSessions: both lived at the same node at the same time, on ports of their
// own, so that two hosts seem to stand behind the address.
func twoSessions(old, young *Record) bool {
	both := young.AnsweredAt + overlap
	return old.Destination == young.Destination && old.Source != young.Source &&
		old.LastSeen > both && (old.SessionEnd == 0 || old.SessionEnd > both) && young.LastSeen > both
}

func (p *part) begin(c *client, r *related, rel dissect.Relation) {
	r.relation, r.number, r.intent = rel, 1, int32(len(p.intents))
	b := binary.BigEndian.AppendUint64([]byte(c.ID+"\x00"+r.service+"\x00"), r.id)
	p.intents = append(p.intents, dissect.Intent{ID: dissect.Hash64(1, b), Start: r.rec.Start, End: r.rec.End,
		ClientID: c.ID, Service: r.service, Protocol: p.names.String(r.rec.Protocol), Attempts: 1,
		Relation: rel, Wait: c.Wait, FirstNode: r.rec.Destination, LastNode: r.rec.Destination})
}
