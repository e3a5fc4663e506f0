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

// learnedWait leaves out the longest gap where it stands out from all others: of less
// than twenty it would be the percentile, and it is the pause between two wishes.
func learnedWait(gaps []int64) int64 {
	if len(gaps) < gapsToLearn {
		return waitUnlearned
	}
	slices.Sort(gaps)
	if n := len(gaps); n < 20 && gaps[n-1] >= pauseTimes*gaps[n-2] {
		gaps = gaps[:n-1]
	}
	return min(max(waitLeast, 3*gaps[(len(gaps)*95+99)/100-1]), waitMost)
}

// What shows that a client gives up after so many attempts (rule 38).
const (
	pauseLeast  = 5 * second
	pauseTimes  = 4 // as long as any gap between retries
	roundsLearn = 3 // 4 of two attempts, 2 of five and more
)

// attemptLimit is after how many failures in a row the client rests, as its own
// rounds show: retries, and then a pause that stands out from all gaps between
// them, time and again after as many attempts. 0 = it shows none. Which rung comes
// next on a ladder, and when, is no such thing.
func attemptLimit(list []*related) int32 {
	var prev *related
	long := 0
	for _, r := range list {
		if r.rec.Rung != 0 {
			return 0
		}
		if prev != nil && r.rec.Start-prev.rec.Start >= pauseLeast {
			long++
		}
		prev = r
	}
	if long < roundsLearn-1 {
		return 0
	}
	gaps := make([]int64, 0, len(list))
	prev = nil
	for _, r := range list {
		if r.twin {
			continue
		}
		if prev != nil && prev.rec.Outcome != dissect.OutcomeAccepted {
			gaps = append(gaps, r.rec.Start-prev.rec.Start)
		}
		prev = r
	}
	if len(gaps) == 0 {
		return 0
	}
	slices.Sort(gaps)
	pause, best := int64(0), 0.0
	for i := 1; i < len(gaps); i++ {
		times := float64(gaps[i]) / float64(max(gaps[i-1], 1))
		if gaps[i] >= pauseLeast && times >= pauseTimes && times > best {
			pause, best = gaps[i], times
		}
	}
	if pause != 0 {
		if n := roundsOf(list, pause); n != 0 {
			return n
		}
	}
	// Wishes that follow each other soon blur the step between gaps and pauses.
	return roundsOf(list, max(pauseLeast, pauseTimes*gaps[len(gaps)/2]))
}

// roundsOf is of how many attempts the rounds between pauses are, 0 = they differ.
func roundsOf(list []*related, pause int64) int32 {
	// Rounds end in a pause, full ones begin after one too. Two wishes may have
	// run together into one.
	var rounds []int32
	full, n, rested := 0, int32(0), false
	var others []int32 // rounds that an acceptance or the capture ended
	var prev *related
	for _, r := range list {
		if r.twin {
			continue
		}
		if prev != nil {
			switch {
			case prev.rec.Outcome == dissect.OutcomeAccepted:
				others = append(others, n)
				n, rested = 0, false
			case r.rec.Start-prev.rec.Start >= pause:
				if rounds = append(rounds, n); rested {
					full++
				}
				n, rested = 0, true
			}
		}
		n++
		prev = r
	}
	others = append(others, n)
	if len(rounds) == 0 {
		return 0
	}
	limit, odd := slices.Min(rounds), 0
	for _, n := range rounds {
		if n%limit != 0 {
			return 0
		}
		if n != limit {
			odd++
		}
	}
	for _, n := range others {
		if n > limit {
			odd++
		}
	}
	need := roundsLearn
	switch {
	case limit < 2:
		return 0
	case limit == 2:
		need++
	case limit >= 5:
		need--
	}
	if len(rounds) < need || full < need-1 || odd*4 > len(rounds) {
		return 0
	}
	return limit
}

// relate fills the relations and intents of one client, service by service.
func (p *part) relate(x *Result, c *client) {
	p.infer(x, c)
	var groups []group
	var many map[string]int // those after the first few
	c.First, c.Attempts = p.row(c.from).rec.Start, int32(c.to-c.from)
	c.Monitor = true
	for i := c.from; i < c.to; i++ {
		r := p.row(i)
		c.Last, c.Addr = r.rec.Start, *r.rec.client()
		if r.check {
			p.check(c, r)
			continue
		}
		c.Monitor = false
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
	}
	if len(groups) > 1 {
		for _, g := range groups {
			sameVersion(func(i int) *related { return g.rows[i] }, len(g.rows))
		}
	}
	c.Version = x.names.String(sameVersion(func(i int) *related { return p.row(c.from + i) }, c.to-c.from))
	var gaps []int64
	for _, g := range groups {
		gaps = twinsAndLate(g.rows, gaps)
	}
	c.Wait = learnedWait(gaps)
	c.learned = len(gaps) >= gapsToLearn
	for _, g := range groups {
		p.chain(c, g.rows, p.before(x, g.rows[0]), attemptLimit(g.rows), x.begin, x.end)
	}
	c.NATSuspect = c.NATSuspect && !x.store.setBack // sessions seem to overlap that did not
}

// sameVersion gives rows that say no version the one said last before them, or first
// after; it returns that of the last. A client may be several programs: first the rows of
// each service are asked, then all.
func sameVersion(row func(int) *related, n int) (version Name) {
	for i := range n {
		r := row(i)
		if version == 0 && r.rec.Version != 0 { // it had none to say before
			for k := range i {
				row(k).rec.Version = r.rec.Version
			}
		}
		if r.rec.Version == 0 {
			r.rec.Version = version
		}
		version = r.rec.Version
	}
	return version
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
		r.twin = slices.ContainsFunc(elders, func(e *related) bool { return e.rec.End > r.rec.Start || spare(&e.rec, &r.rec) })
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

// spare: a dial of a set that began when an elder one had just won, and came to
// nothing; of who is attached that short, nothing is lost.
func spare(won, r *Record) bool {
	return won.Outcome == dissect.OutcomeAccepted && r.Outcome != dissect.OutcomeAccepted &&
		(won.SessionEnd == 0 || won.SessionEnd > r.Start) && !probed(won, r)
}

// chain ties the attempts of one client at one service into intents, of limit
// attempts at most; 0 = without limit. It had a session before, or none: nil.
func (p *part) chain(c *client, list []*related, session *related, limit int32, begin, end int64) {
	var open, before *related
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
		attach := alive && probed(&session.rec, &r.rec)
		if attach && !ok {
			open, session, alive = session, nil, false // no session is lost: the wish goes on
		}
		refresh := alive || r.rec.Flags&FlagRefresh != 0 && open == nil
		if alive && ok && c.Level == dissect.IDAddress && twoSessions(&session.rec, &r.rec) {
			c.NATSuspect = true
		}
		switch {
		case attach && ok: // the same wish, and no try more than it took
			r.relation, r.number, r.intent = dissect.RelationRefresh, session.number+1, session.intent
		case refresh && (ok || r.rec.Outcome == dissect.OutcomeUnknown && r.rec.Proto == dissect.ProtoTCP && r.rec.Flags&FlagRefresh != 0):
			// Over TCP, a refresh of which nothing is known says nothing of a loss.
			p.begin(c, r, dissect.RelationRefresh)
		case refresh:
			p.begin(c, r, dissect.RelationReattach)
			session, open = nil, r
		case open != nil && r.rec.Start-open.rec.End <= p.intents[open.intent].Wait && (limit == 0 || open.number < limit):
			in := &p.intents[open.intent]
			r.intent, r.number, r.relation = open.intent, open.number+1, dissect.RelationRetry
			if r.rec.Destination != open.rec.Destination {
				r.relation = dissect.RelationFailover
			}
			r.gap = r.rec.Start - open.rec.Start
			if !c.learned { // a back-off that grows shows its wait as it goes
				in.Wait = min(max(in.Wait, 3*r.gap), waitMost)
			}
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
	p.close(c, list, lastOf, from, limit, begin, end)
}

// close settles what the end of each intent says about it.
func (p *part) close(c *client, list, lastOf []*related, from int, limit int32, begin, end int64) {
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
		case in.End+in.Wait < end, limit != 0 && in.Attempts >= limit:
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

// attachWithin: who was told yes connects at once; Skype does after some 0.4 ms.
const attachWithin = second

// probed: what looked like a session was the question, on the first rung of a ladder,
// whether the node is there. The connection that follows its yes is the attach.
func probed(r, next *Record) bool {
	return r.Rung != 0 && next.Rung != 0 && r.Proto == dissect.ProtoUDP && next.Proto == dissect.ProtoTCP &&
		r.Destination.Addr == next.Destination.Addr && next.Start-r.AnsweredAt <= attachWithin
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

// check is an attempt of a monitor: an intent of its own, beside all chains.
func (p *part) check(c *client, r *related) {
	r.gap, r.last = -1, true
	p.begin(c, r, dissect.RelationMonitor)
	in := &p.intents[r.intent]
	in.Nodes, in.Outcome, in.ClosedBy = 1, r.rec.Outcome, dissect.ClosedQuiet
	if in.Outcome == dissect.OutcomeAccepted {
		in.ClosedBy = dissect.ClosedAccepted
	}
}

func (p *part) begin(c *client, r *related, rel dissect.Relation) {
	r.relation, r.number, r.intent = rel, 1, int32(len(p.intents))
	b := binary.BigEndian.AppendUint64([]byte(c.ID+"\x00"+r.service+"\x00"), r.id)
	p.intents = append(p.intents, dissect.Intent{ID: dissect.Hash64(1, b), Start: r.rec.Start, End: r.rec.End,
		ClientID: c.ID, Service: r.service, Protocol: p.names.String(r.rec.Protocol), Attempts: 1,
		Relation: rel, Wait: c.Wait, FirstNode: r.rec.Destination, LastNode: r.rec.Destination, Source: r.rec.Source.Addr})
}
