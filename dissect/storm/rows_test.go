package storm_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
	"squall/dissect/storm"
)

const second = int64(1e9)

// feed makes rows by hand and hands them to a state, client by client.
type feed struct {
	rows  map[string][]dissect.Attempt
	names []string
	id    uint64
	rng   *rand.Rand
}

func newFeed(seed uint64) *feed {
	return &feed{rows: map[string][]dissect.Attempt{}, rng: rand.New(rand.NewPCG(seed, 7))}
}

func node(n byte) dissect.Endpoint {
	e := dissect.Endpoint{Port: 7000}
	copy(e.Addr[:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, n})
	return e
}

// add gives a client a row; change may alter what an accepted first attempt at
// the first supernode looks like.
func (f *feed) add(client string, at float64, change func(*dissect.Attempt)) *dissect.Attempt {
	f.id++
	a := dissect.Attempt{ID: f.id, IntentID: f.id, Start: int64(at * 1e9), ClientID: client, Destination: node(1), Proto: dissect.ProtoTCP,
		Service: "gnutella/supernode", Protocol: "gnutella", Role: dissect.RoleSupernode, RoleSource: dissect.RoleSourceContent,
		Number: 1, Outcome: dissect.OutcomeAccepted, Evidence: dissect.EvidenceApp, Answer: dissect.AnswerSynAck, Transmissions: 1,
		SourcePackets: 5, DestinationPackets: 4, History: "ShADd", FirstFrame: int64(f.id)}
	a.Source = node(1)
	a.Source.Addr[12], a.Source.Port = 10, uint16(f.id)
	a.End = a.Start + second/20
	a.AnsweredAt = a.End
	if change != nil {
		change(&a)
	}
	if f.rows[client] == nil {
		f.names = append(f.names, client)
	}
	f.rows[client] = append(f.rows[client], a)
	return &f.rows[client][len(f.rows[client])-1]
}

// silent turns a row into one that nothing answered.
func silent(a *dissect.Attempt) {
	a.Outcome, a.Evidence, a.Answer, a.AnsweredAt = dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 0
	a.Transmissions, a.SourcePackets, a.DestinationPackets, a.History = 3, 3, 0, "S"
	a.End, a.LastSeen = a.Start+4*second, a.Start+3*second
}

// storm lets a client try and fail from a time to another, every so often.
func (f *feed) storm(client string, from, to, every float64, change func(*dissect.Attempt)) {
	intent := uint64(0)
	for at, k := from+f.rng.Float64()*every, int32(1); at < to; at, k = at+every, k+1 {
		a := f.add(client, at, func(a *dissect.Attempt) {
			silent(a)
			if change != nil {
				change(a)
			}
		})
		if intent == 0 {
			intent = a.IntentID
		}
		a.IntentID, a.Number = intent, k
		if k > 1 {
			a.Relation, a.RetryGap = dissect.RelationRetry, int64(every*1e9)
		}
	}
}

// calm lets that many clients attach once each in a time, and leave.
func (f *feed) calm(prefix string, n int, from, to float64, change func(*dissect.Attempt)) {
	for i := range n {
		f.add(fmt.Sprintf("%s%d", prefix, i), from+(to-from)*(float64(i)+f.rng.Float64())/float64(n), func(a *dissect.Attempt) {
			a.SessionEnd, a.SessionEnded = a.End+20*second, dissect.SessionByClient
			if change != nil {
				change(a)
			}
		})
	}
}

func (f *feed) judge(until float64, versions func(string) string) *storm.Report {
	return f.state(versions).Report(storm.Quality{End: int64(until * 1e9), Packets: int64(10 * f.id)})
}

func (f *feed) state(versions func(string) string) *storm.State {
	s := storm.NewState(storm.Config{})
	slices.Sort(f.names)
	for _, name := range f.names {
		rows := f.rows[name]
		slices.SortFunc(rows, func(a, b dissect.Attempt) int { return int(a.Start - b.Start) })
		c := dissect.Client{ID: name, Attempts: int32(len(rows)), First: rows[0].Start, Last: rows[len(rows)-1].Start}
		if versions != nil {
			c.Version = versions(name)
		}
		s.Client(&c)
		for i := range rows {
			rows[i].ClientVersion = c.Version
			s.Attempt(&rows[i])
		}
	}
	return s
}

// TestFloodOfRequests: sources that are served, close, and come again at once.
func TestFloodOfRequests(t *testing.T) {
	f := newFeed(1)
	f.calm("user", 2400, 0, 600, nil)
	for i := range 60 {
		for at := 300 + f.rng.Float64(); at < 600; at += 0.5 + f.rng.Float64() {
			f.add(fmt.Sprint("bot", i), at, func(a *dissect.Attempt) {
				a.SessionEnd, a.SessionEnded = a.End+second/10, dissect.SessionByClient
			})
		}
	}
	r := f.judge(600, nil)
	if r.Verdict.Class != storm.ApplicationFlood {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
	if d := r.Verdict.Onset - 300*second; d < -2*second || d > 2*second {
		t.Errorf("onset %d", r.Verdict.Onset/second)
	}
	if h := r.Hypotheses[0]; h.Name != "attack" {
		t.Errorf("explained by %s", h.Name)
	}
}

// TestEvidence: what is said for and against an explanation holds for the capture.
func TestEvidence(t *testing.T) {
	said := func(r *storm.Report, name string) string {
		for _, h := range r.Hypotheses {
			if h.Name == name {
				return strings.Join(slices.Concat(h.For, h.Against, h.Unseen), "\n")
			}
		}
		t.Fatalf("no %s: %s", name, r.Summary)
		return ""
	}
	// A crowd that is served: nothing failed, so nothing failed aloud either.
	f := newFeed(31)
	f.calm("old", 300, 0, 600, nil)
	f.calm("new", 900, 300, 340, nil)
	r := f.judge(600, nil)
	if s := said(r, "network"); !strings.Contains(s, "nothing failed") {
		t.Error(s)
	}
	if s := said(r, "demand"); !strings.Contains(s, "they were served: none of the decided attempts failed") {
		t.Error(s)
	}
	if s := said(r, "bug_in_version"); s != "no two versions were seen there" {
		t.Error(s)
	}
	// Answers that came too late are no silence.
	f = newFeed(32)
	f.calm("calm", 900, 0, 300, nil)
	for i := range 200 {
		f.storm(fmt.Sprint("c", i), 300, 400, 3, func(a *dissect.Attempt) {
			a.Proto, a.Late, a.Answer, a.AnsweredAt, a.End = dissect.ProtoUDP, true, dissect.AnswerReply, a.Start+5*second, a.Start+3*second
		})
	}
	r = f.judge(400, nil)
	if s := said(r, "network"); !strings.Contains(s, "none of the failures are silence") || !strings.Contains(s, "100 % of the answers are late") {
		t.Error(s)
	}
	// Of one side alone nobody knows what was answered.
	f = newFeed(33)
	f.calm("calm", 900, 0, 300, nil)
	for i := range 200 {
		f.storm(fmt.Sprint("c", i), 300, 400, 3, func(a *dissect.Attempt) { a.OneSided, a.Outcome = true, dissect.OutcomeUnknown })
	}
	r = f.judge(400, nil)
	for _, name := range []string{"network", "overload"} {
		if s := said(r, name); !strings.Contains(s, "answers were not captured") || strings.Contains(s, "late") {
			t.Error(s)
		}
	}
}

// TestRefreshSurge: clients that refresh ten times as often as before.
func TestRefreshSurge(t *testing.T) {
	f := newFeed(2)
	for i := range 300 {
		name := fmt.Sprint("phone", i)
		first := f.add(name, f.rng.Float64()*60, nil)
		first.SessionEnd = 0
		src := first.Source
		for at := float64(first.Start)/1e9 + 60; at < 900; {
			f.add(name, at, func(a *dissect.Attempt) { a.Relation, a.Source = dissect.RelationRefresh, src })
			if at += 60; at > 660 {
				at -= 54
			}
		}
	}
	if r := f.judge(900, nil); r.Verdict.Class != storm.RefreshSurge || r.Hypotheses[0].Name != "rollout" {
		t.Errorf("%v: %s; explained by %v", r.Verdict.Class, r.Summary, r.Hypotheses[0])
	}
}

// outage of supernodes, and of login servers from a time on, 0 = never.
func outage(seed uint64, supernodes, logins float64) *storm.Report {
	f := newFeed(seed)
	login := func(a *dissect.Attempt) {
		a.Service, a.Role, a.Destination = "sip/login", dissect.RoleLogin, node(9)
	}
	f.calm("user", 2000, 0, 300, nil)
	f.calm("sign", 2000, 0, 300, login)
	for i := range 200 {
		if supernodes > 0 {
			f.storm(fmt.Sprint("user", i), supernodes, 600, 5, nil)
		}
		if logins > 0 {
			f.storm(fmt.Sprint("sign", i), logins, 600, 5, login)
		}
	}
	if supernodes == 0 {
		f.calm("more", 2000, 300, 600, nil)
	}
	if logins == 0 {
		f.calm("mark", 2000, 300, 600, login)
	}
	return f.judge(600, nil)
}

// TestWasItTheLogin: each role has its own health, and who was first is said.
func TestWasItTheLogin(t *testing.T) {
	score := func(r *storm.Report) float64 {
		for _, h := range r.Hypotheses {
			if h.Name == "login_overload" {
				return h.Score
			}
		}
		return -1
	}
	first := outage(3, 330, 300)
	if r := first; len(r.Roles) != 2 || r.Roles[0].Role != dissect.RoleLogin || r.Roles[1].Onset-r.Roles[0].Onset < 25*second ||
		!strings.Contains(r.Roles[1].Sentence, "after the login servers") || r.Roles[0].Down != 1 {
		t.Errorf("login first: %+v", r.Roles)
	}
	well := outage(4, 300, 0)
	if r := well; len(r.Roles) != 2 || r.Roles[1].Role != dissect.RoleLogin || r.Roles[1].Class != storm.Calm || !strings.Contains(r.Roles[1].Sentence, "were well") {
		t.Errorf("login well: %+v", r.Roles)
	}
	if a, b := score(first), score(well); a <= b || b != 0 {
		t.Errorf("login_overload scores %.2f where they were first and %.2f where they were well", a, b)
	}
}

// TestRollout: a version that spreads, and whose policy carries the storm.
func TestRollout(t *testing.T) {
	f := newFeed(5)
	version := map[string]string{}
	for i := range 3000 {
		name, at := fmt.Sprint("c", i), 300*float64(i)/3000
		version[name] = "1.0"
		if f.rng.Float64() < at/600 {
			version[name] = "1.1"
		}
		f.add(name, at, func(a *dissect.Attempt) { a.SessionEnd, a.SessionEnded = a.End+20*second, dissect.SessionByClient })
		if version[name] == "1.1" {
			f.storm(name, 330+2*float64(i%40), 600, 2, nil)
		} else if i%10 == 0 {
			f.storm(name, 330+2*float64(i%40), 600, 40, nil)
		}
	}
	r := f.judge(600, func(c string) string { return version[c] })
	if r.Verdict.Class != storm.RetryStorm {
		t.Fatalf("%v: %s", r.Verdict.Class, r.Summary)
	}
	for _, v := range r.Versions {
		if spreads := v.RolloutLow > 1; spreads != (v.Version == "1.1") {
			t.Errorf("%s: odds of spreading %.1f (%.1f to %.1f)", v.Version, v.RolloutOdds, v.RolloutLow, v.RolloutHigh)
		}
		if carries := v.AssociatedWith == "retries"; carries != (v.Version == "1.1") {
			t.Errorf("%s: associated with %q", v.Version, v.AssociatedWith)
		}
	}
	i := slices.IndexFunc(r.Hypotheses, func(h storm.Hypothesis) bool { return h.Name == "rollout" })
	if h := r.Hypotheses[i]; len(h.For) < 2 || !strings.Contains(h.For[0], "1.1 was spreading") {
		t.Errorf("rollout: for %q, against %q", h.For, h.Against)
	}
}

// TestVersionAtTheDeadNode: a version that happened to sit at the node that died
// is not blamed for it; one whose members vanish wherever they sit is.
func TestVersionAtTheDeadNode(t *testing.T) {
	for _, guilty := range []bool{false, true} {
		f := newFeed(6)
		version := map[string]string{}
		for i := range 1000 {
			name := fmt.Sprint("c", i)
			at := byte(1) // the node that dies
			if i%2 == 0 != (i%10 == 1) {
				at = 2
			}
			version[name] = "1.0"
			if odd := at == 1; odd != (f.rng.Float64() < 0.1) {
				version[name] = "1.1"
			}
			first := f.add(name, f.rng.Float64()*200, func(a *dissect.Attempt) { a.Destination, a.LastSeen = node(at), 299*second })
			_ = first
			gone := at == 1 && i%4 != 0
			if guilty {
				gone = version[name] == "1.1" && i%4 != 0
			}
			if gone {
				f.storm(name, 300, 600, 4, func(a *dissect.Attempt) { a.Destination = node(at) })
			}
		}
		r := f.judge(600, func(c string) string { return version[c] })
		for _, v := range r.Versions {
			if v.Version != "1.1" {
				continue
			}
			if v.EarlyLow <= 1 {
				t.Errorf("guilty %v: odds %.2f from %.2f on, nothing to explain", guilty, v.EarlyOdds, v.EarlyLow)
			}
			if blamed := v.AssociatedWith == "crash"; blamed != guilty {
				t.Errorf("guilty %v: associated with %q, odds %.2f, among the clients of the same nodes %.2f", guilty, v.AssociatedWith, v.EarlyOdds, v.EarlyStratified)
			}
		}
	}
}

// TestRestartsThatFail: a node that comes back for some seconds and is down
// again has restarted in vain; the clients' SYN repeats are read; the
// population is followed down and up.
func TestRestartsThatFail(t *testing.T) {
	f := newFeed(8)
	f.calm("calm", 1300, 0, 260, nil)
	accepted := func(a *dissect.Attempt) {
		*a = dissect.Attempt{ID: a.ID, IntentID: a.IntentID, Start: a.Start, ClientID: a.ClientID, Source: a.Source, Destination: a.Destination, Proto: a.Proto,
			Service: a.Service, Protocol: a.Protocol, Role: a.Role, Number: 1, Outcome: dissect.OutcomeAccepted, Answer: dissect.AnswerSynAck,
			Transmissions: 1, SourcePackets: 4, DestinationPackets: 4, History: "ShAD", End: a.Start + second/20, AnsweredAt: a.Start + second/20}
	}
	for i := range 300 {
		name := fmt.Sprint("c", i)
		f.add(name, 10+f.rng.Float64()*200, func(a *dissect.Attempt) { a.SessionEnd, a.SessionEnded = 300*second, dissect.SessionLost })
		f.storm(name, 300, 360, 5, nil)
		if i%30 == 0 {
			f.add(name, 361+f.rng.Float64()*3, accepted).SessionEnd = 366 * second
		}
		f.storm(name, 366, 420, 5, nil)
		f.add(name, 425+f.rng.Float64()*20, accepted)
	}
	r := f.judge(600, nil)
	v := &r.Verdict
	if v.Class != storm.RetryStorm || v.Restarts != 2 || v.RestartsFailed != 1 || r.Nodes[0].Restarts != 2 || r.Nodes[0].RestartsFailed != 1 {
		t.Errorf("%d restarts, %d failed: %s %+v", v.Restarts, v.RestartsFailed, r.Summary, r.Nodes[0].Periods)
	}
	if v.Attached < 250 || v.AttachedLow > 20 || v.AttachedBack50 < 50*second || v.AttachedBack90 < v.AttachedBack50 || v.AttachedBack90 > 200*second {
		t.Errorf("attached %d, lowest %d, half back after %d s, nine tenths after %d s", v.Attached, v.AttachedLow, v.AttachedBack50/second, v.AttachedBack90/second)
	}
	if p := r.Policies[0]; p.Sends != 3 || p.SendSpan < 29*second/10 || p.SendSpan > 31*second/10 {
		t.Errorf("%g transmissions over %d ms", p.Sends, p.SendSpan/1e6)
	}
}
