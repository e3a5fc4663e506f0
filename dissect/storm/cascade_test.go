package storm_test

import (
	"fmt"
	"math"
	"testing"

	"squall/dissect"
	"squall/dissect/storm"
)

// udp makes a row a request over UDP.
func udp(a *dissect.Attempt) {
	a.Proto, a.Transmissions, a.SourcePackets, a.DestinationPackets, a.History = dissect.ProtoUDP, 1, 1, 1, ""
	a.Service, a.Protocol, a.Answer = "n2n/supernode", "n2n", dissect.AnswerReply
}

// TestPopulation: who asks anew has lost its session, and who lets it expire has none
// either, though over UDP nobody says so.
func TestPopulation(t *testing.T) {
	for seed := range uint64(3) {
		f := newFeed(50 + seed)
		for i := range 300 {
			name, id := fmt.Sprint("edge", i), uint64(0)
			left := i%3 == 0 // for good, without a word
			for at := 20 * f.rng.Float64(); at < 600; at += 20 {
				a := f.add(name, at, func(a *dissect.Attempt) {
					udp(a)
					a.Source.Port = uint16(i)
					a.Relation = dissect.RelationRefresh
				})
				switch down := at > 300 && at < 400; {
				case down && id == 0:
					a.Relation, id = dissect.RelationReattach, a.IntentID
				case id != 0:
					a.Relation, a.IntentID = dissect.RelationRetry, id
				}
				if at > 300 && at < 400 {
					silent(a)
					a.Transmissions, a.SourcePackets = 1, 1
				} else {
					id = 0
				}
				if left && at > 480 {
					a.SessionEnd, a.SessionEnded = a.End+30*second, dissect.SessionExpired
					break
				}
			}
		}
		r := f.judge(600, nil)
		if v := r.Verdict; v.Attached != 300 || v.AttachedLow != 0 || v.AttachedBack90 < 90*second || v.AttachedBack90 > 100*second {
			t.Errorf("seed %d: %d attached, then %d, back after %d s: %s", seed, v.Attached, v.AttachedLow, v.AttachedBack90/second, r.Summary)
		}
		last := r.Timeline[len(r.Timeline)-1]
		for _, w := range r.Timeline {
			if w.Node == (dissect.Endpoint{}) && w.Start >= 540*second {
				last = w
			}
		}
		if last.Attached != 200 {
			t.Errorf("seed %d: %d attached at %d s, 100 of 300 have left", seed, last.Attached, last.Start/second)
		}
	}
}

// dominoes are a small overlay over UDP: clients refresh every 20 s, and go to the next node
// where one refuses. Nodes fall when they are told to, or when they hold too many.
type dominoes struct {
	nodes, clients int
	bears          int       // clients a node holds before it falls
	falls          []float64 // of the first nodes
	spread         bool      // clients go anywhere, else to the next node
}

// run gives the rows, and when and in which generation each node fell.
func (o *dominoes) run(f *feed) (at []float64, gen []int) {
	at, gen = make([]float64, o.nodes), make([]int, o.nodes)
	held := make([]int, o.nodes)
	for n := range at {
		if at[n] = math.Inf(1); n < len(o.falls) {
			at[n] = o.falls[n]
		}
	}
	type client struct {
		next     float64
		node     int
		from     int // node that it lost, -1 = none
		attached bool
		intent   uint64
	}
	list := make([]client, o.clients)
	came := make([][]int, o.nodes) // by generation of what they left
	for i := range list {
		list[i] = client{next: 20 * f.rng.Float64(), node: i % o.nodes, from: -1}
	}
	for n := range came {
		came[n] = make([]int, o.nodes+1)
	}
	for {
		i := 0
		for k := range list {
			if list[k].next < list[i].next {
				i = k
			}
		}
		c := &list[i]
		now := c.next
		if now > 400 {
			return at, gen
		}
		down := now >= at[c.node]
		a := f.add(fmt.Sprint("edge", i), now, func(a *dissect.Attempt) {
			udp(a)
			a.Destination, a.Source.Port = node(byte(c.node+1)), uint16(i)
			if down {
				a.Outcome, a.Evidence, a.Answer, a.AnsweredAt = dissect.OutcomeRefused, dissect.EvidenceICMP, dissect.AnswerICMP, 0
			}
		})
		switch {
		case c.attached && !down:
			a.Relation = dissect.RelationRefresh
		case c.attached:
			a.Relation, c.intent = dissect.RelationReattach, a.IntentID
		case c.intent != 0:
			a.Relation, a.IntentID = dissect.RelationFailover, c.intent
		}
		if down {
			c.attached, c.from = false, c.node
			if c.node = (c.node + 1) % o.nodes; o.spread {
				c.node = (c.from + 1 + f.rng.IntN(o.nodes-1)) % o.nodes
			}
			c.next += 0.5 + f.rng.Float64()
			continue
		}
		if !c.attached {
			c.attached, c.intent = true, 0
			if held[c.node]++; c.from >= 0 {
				came[c.node][gen[c.from]+1]++
			}
			if held[c.node] > o.bears {
				at[c.node] = now + 0.1
				for g, n := range came[c.node] {
					if n > came[c.node][gen[c.node]] {
						gen[c.node] = g
					}
				}
			}
		}
		c.next += 19 + 2*f.rng.Float64()
	}
}

// TestGenerationsOverUDP: nodes that fall under the clients of others fall in the
// generation after them, though they never were slow and only their system says that
// they are gone; nodes that die one after another of something else are all of the first.
func TestGenerationsOverUDP(t *testing.T) {
	for name, o := range map[string]dominoes{
		"domino":    {nodes: 7, clients: 420, bears: 100, falls: []float64{200}},
		"at random": {nodes: 7, clients: 420, bears: 68, falls: []float64{200}, spread: true},
		"by itself": {nodes: 9, clients: 540, bears: 540, falls: []float64{200, 205, 211}, spread: true},
	} {
		for seed := range uint64(6) {
			f := newFeed(60 + seed)
			at, gen := o.run(f)
			r := f.judge(400, nil)
			if v := r.Verdict; v.Cascade != (name != "by itself") {
				t.Errorf("%s, seed %d: cascade %v: %s", name, seed, v.Cascade, r.Summary)
			}
			for _, n := range r.Nodes {
				i := int(n.At.Addr[15]) - 1
				if math.IsInf(at[i], 1) {
					continue
				}
				found, want := n.Generation, int32(gen[i])
				if o.spread { // then those after the first run together
					found, want = min(found, 1), min(want, 1)
				}
				if found != want {
					t.Errorf("%s, seed %d: node %d, %.1f s, fell in generation %d, found %d", name, seed, i+1, at[i], gen[i], n.Generation)
				}
			}
		}
	}
}

// TestSilentDeathUnderSessions: a node that nobody new comes to dies with the sessions
// that it served. Their clients notice it late, and later than those of a node that died
// after it; a goodbye that nothing acknowledges shows it, and their last words when.
func TestSilentDeathUnderSessions(t *testing.T) {
	for seed := range uint64(4) {
		f := newFeed(70 + seed)
		f.calm("calm", 900, 0, 400, nil)
		session := func(name string, n byte, last, end float64, heard bool) {
			f.add(name, 60*f.rng.Float64(), func(a *dissect.Attempt) {
				a.Destination, a.History = node(n), "ShADdF"
				a.LastHeard, a.SessionEnd, a.SessionEnded = int64(last*1e9), int64(end*1e9), dissect.SessionByClient
				if heard {
					a.LastHeard, a.History = a.SessionEnd+second/20, "ShADdFf"
				}
			})
		}
		for i := range 200 {
			for n, died := range map[byte]float64{2: 200, 3: 212} {
				notice := map[byte]float64{2: 30, 3: 3}[n]
				name, end := fmt.Sprint(n, "-", i), died+notice+10*f.rng.Float64()
				session(name, n, died-20*f.rng.Float64(), end, false)
				f.storm(name, end+1, 380, 4, func(a *dissect.Attempt) { a.Destination = node(n) })
			}
			session(fmt.Sprint("leaves", i), 4, 0, 200+40*f.rng.Float64(), true)
		}
		r := f.judge(400, nil)
		for _, n := range r.Nodes {
			i := n.At.Addr[15]
			if want := map[byte]int32{2: 1, 3: 2}[i]; n.Order != want || want == 0 && len(n.Periods) > 0 {
				t.Errorf("seed %d: node %d fell in place %d, not %d: %+v", seed, i, n.Order, want, n.Periods)
			}
			for _, p := range n.Periods {
				died := map[byte]int64{2: 200, 3: 212}[i] * second
				if p.LastAlive < died-2*second || p.LastAlive > died || p.Start < died {
					t.Errorf("seed %d: node %d was last alive at %.1f s, gone from %.1f", seed, i, float64(p.LastAlive)/1e9, float64(p.Start)/1e9)
				}
			}
		}
	}
}

// TestForgottenSessions: a node that was dead without a word and is back resets the
// sessions that it does not know any more. It has not failed to restart for that.
func TestForgottenSessions(t *testing.T) {
	f := newFeed(80)
	f.calm("other", 1500, 0, 400, func(a *dissect.Attempt) { a.Destination = node(2) })
	f.calm("calm", 50, 0, 200, nil)
	f.calm("after", 30, 230, 400, nil)
	for i := range 60 {
		f.storm(fmt.Sprint("c", i), 200, 230, 4, nil)
		f.add(fmt.Sprint("old", i), 100*f.rng.Float64(), func(a *dissect.Attempt) {
			a.SessionEnd, a.SessionEnded = int64((231+25*f.rng.Float64())*1e9), dissect.SessionByNode
		})
	}
	for _, n := range f.judge(400, nil).Nodes {
		if n.At == node(1) && (len(n.Periods) != 1 || n.Restarts != 1 || n.RestartsFailed != 0) {
			t.Errorf("%d restarts, %d failed: %+v", n.Restarts, n.RestartsFailed, n.Periods)
		}
	}
}

// TestGoodbyeIsNoMove: who leaves a node and attaches to another later has not been
// driven there, unless the node did not hear its goodbye.
func TestGoodbyeIsNoMove(t *testing.T) {
	for _, c := range []struct {
		name  string
		moved bool
		end   func(*dissect.Attempt)
	}{
		{"acknowledged", false, func(a *dissect.Attempt) { a.LastHeard = a.SessionEnd + second/20 }},
		{"unheard", true, func(a *dissect.Attempt) { a.LastHeard = a.SessionEnd - 9*second }},
		{"over UDP", false, udp},
	} {
		f := newFeed(81)
		for i := range 50 {
			for k := range 4 {
				f.add(fmt.Sprint("c", i), float64(i+40*k), func(a *dissect.Attempt) {
					a.Destination = node(byte(k%2 + 1))
					a.SessionEnd, a.SessionEnded = a.Start+20*second, dissect.SessionByClient
					c.end(a)
				})
			}
		}
		n := int64(0)
		for _, m := range f.judge(300, nil).Migrations {
			n += m.Intents
		}
		if moved := n == 150; moved != c.moved || !moved && n != 0 {
			t.Errorf("%s: %d moves", c.name, n)
		}
	}
}

// TestExplainedFromOneSide: where answers were not captured, that the clients' systems
// completed the handshake tells slow nodes from dead ones; that the answers are missing
// speaks for nothing.
func TestExplainedFromOneSide(t *testing.T) {
	for _, connected := range []bool{false, true} {
		f := newFeed(82)
		oneSided := func(a *dissect.Attempt) {
			a.OneSided, a.Outcome, a.Evidence, a.AnsweredAt, a.DestinationPackets = true, dissect.OutcomeUnknown, dissect.EvidenceEdge, 0, 0
			if a.Answer = dissect.AnswerNone; connected {
				a.Answer, a.Transmissions, a.SourcePackets, a.History = dissect.AnswerSynAck, 1, 4, "SADF"
			}
		}
		f.calm("calm", 900, 0, 300, oneSided)
		for i := range 200 {
			f.add(fmt.Sprint("c", i), 250*f.rng.Float64(), oneSided)
			f.storm(fmt.Sprint("c", i), 300, 600, 3, oneSided)
		}
		r := f.judge(600, nil)
		score := map[string]float64{}
		for _, h := range r.Hypotheses {
			score[h.Name] = h.Score
		}
		if r.Verdict.Class != storm.RetryStorm || connected != (score["overload"] > score["node_loss"]) || max(score["overload"], score["node_loss"]) < 0.5 ||
			connected && r.Hypotheses[0].Name != "overload" {
			t.Errorf("connected %v: %v: %s", connected, score, r.Summary)
		}
	}
}

// TestRelapses: a node that comes up for a moment, takes a client or two and is gone
// again has failed to restart each time, though all that it turns away have known it
// for long. That one broken client goes on failing does not bring down a node that is back.
func TestRelapses(t *testing.T) {
	for seed := range uint64(4) {
		f := newFeed(90 + seed)
		f.calm("calm", 600, 0, 200, nil)
		refused := func(a *dissect.Attempt) {
			a.Outcome, a.Evidence, a.Answer, a.End = dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, a.Start
		}
		for i := range 60 {
			f.storm(fmt.Sprint("c", i), 200, 330, 4, refused)
		}
		for i := range 5 {
			f.add(fmt.Sprint("lucky", i), 225+25*float64(i), nil)
		}
		f.calm("after", 8, 330, 380, nil)
		f.storm("broken", 331, 400, 5, refused)
		for _, n := range f.judge(400, nil).Nodes {
			if n.Restarts != 6 && n.Restarts != 5 || n.RestartsFailed != n.Restarts-1 {
				t.Errorf("seed %d: %d restarts, %d failed: %+v", seed, n.Restarts, n.RestartsFailed, n.Periods)
			}
		}
	}
}
