package storm_test

import (
	"fmt"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/storm"
	"squall/samples"
)

// TestOutagesCloseToEachOther: of two outages half a minute apart the second does
// not begin with the first, and the nodes of both stand in the order of falls.
func TestOutagesCloseToEachOther(t *testing.T) {
	f := newFeed(9)
	f.calm("calm", 1500, 0, 600, nil)
	f.calm("other", 1500, 0, 600, func(a *dissect.Attempt) { a.Destination = node(2) })
	for i := range 120 {
		f.storm(fmt.Sprint("a", i), 300, 330, 4, nil)
		f.storm(fmt.Sprint("b", i), 367, 392, 4, func(a *dissect.Attempt) { a.Destination = node(2) })
	}
	// While a node is down, nobody else is served there.
	for _, name := range f.names {
		for k := range f.rows[name] {
			a := &f.rows[name][k]
			down := a.Destination == node(1) && a.Start >= 300*second && a.Start < 330*second ||
				a.Destination == node(2) && a.Start >= 367*second && a.Start < 392*second
			if down && a.Outcome == dissect.OutcomeAccepted {
				silent(a)
			}
		}
	}
	r := f.judge(600, nil)
	if len(r.Findings) != 2 {
		t.Fatalf("%d findings: %s", len(r.Findings), r.Summary)
	}
	for _, v := range r.Findings {
		from, to := 300*second, 330*second
		if v.Onset > 340*second {
			from, to = 367*second, 392*second
		}
		if d := v.Onset - from; v.Class != storm.RetryStorm || d < 0 || d > 2*second || v.End < to-5*second || v.End > to+5*second {
			t.Errorf("%v from %.1f to %.1f s: %s", v.Class, float64(v.Onset)/1e9, float64(v.End)/1e9, v.Sentence)
		}
	}
	for _, n := range r.Nodes {
		if want := int32(n.At.Addr[15]); n.Order != want {
			t.Errorf("%v fell in place %d, not %d: %+v", n.At, n.Order, want, n.Periods)
		}
	}
}

// TestDeadFromTheStart: sessions from before the capture are no rows. That a node
// answers nobody who comes, and later does, shows that it was down.
func TestDeadFromTheStart(t *testing.T) {
	f := newFeed(10)
	f.calm("other", 1200, 0, 600, func(a *dissect.Attempt) { a.Destination = node(2) })
	for i := range 200 {
		name := fmt.Sprint("c", i)
		f.storm(name, 300, 400, 4, nil)
		f.add(name, 401+f.rng.Float64()*10, nil).Relation = dissect.RelationRetry
	}
	r := f.judge(600, nil)
	for _, n := range r.Nodes {
		if n.At != node(1) {
			continue
		}
		if len(n.Periods) != 1 || n.Periods[0].Kind != storm.Down || n.Periods[0].Start < 300*second || n.Periods[0].Start > 302*second ||
			n.Periods[0].End < 400*second || n.Periods[0].End > 403*second || n.Order != 1 {
			t.Errorf("place %d, %+v", n.Order, n.Periods)
		}
	}
}

// TestFewBeforeMany: the first node that dies has few clients; the storm begins with
// it and not where the others die.
func TestFewBeforeMany(t *testing.T) {
	f := newFeed(11)
	f.calm("calm", 900, 0, 300, nil)
	f.calm("small", 60, 0, 285, func(a *dissect.Attempt) { a.Destination = node(2) })
	for i := range 5 { // one every seven seconds
		f.storm(fmt.Sprint("few", i), 286+7*float64(i)/2, 400, 7, func(a *dissect.Attempt) { a.Destination = node(2) })
	}
	first := int64(1 << 62)
	for i := range 5 {
		first = min(first, f.rows[fmt.Sprint("few", i)][0].Start)
	}
	for i := range 200 {
		f.storm(fmt.Sprint("many", i), 308, 400, 3, nil)
	}
	r := f.judge(400, nil)
	if r.Verdict.Class != storm.RetryStorm || r.Verdict.Onset != first {
		t.Errorf("%v from %.2f s, the first failure is at %.2f: %s", r.Verdict.Class, float64(r.Verdict.Onset)/1e9, float64(first)/1e9, r.Summary)
	}
}

// TestCrashThatClosesSessions: the kernel closes the sessions of a program that
// crashes; its clients are back at once. An update is no crash, and who comes and
// goes all the time has not crashed either.
func TestCrashThatClosesSessions(t *testing.T) {
	f := newFeed(12)
	version := map[string]string{}
	for i := range 600 {
		name := fmt.Sprint("c", i)
		version[name] = []string{"1.0", "1.1"}[i%2]
		at := f.rng.Float64() * 200
		crash := i%2 == 1 && i%5 != 0
		f.add(name, at, func(a *dissect.Attempt) {
			if crash {
				a.SessionEnd, a.SessionEnded = 298*second+int64(i)*second/300, dissect.SessionByClient
			} else {
				a.SessionEnd, a.SessionEnded = 301*second, dissect.SessionByNode
			}
		})
		f.storm(name, 301.5, 420, 3, nil)
	}
	r := f.judge(420, func(c string) string { return version[c] })
	for _, v := range r.Versions {
		if crashed := v.AssociatedWith == "crash"; crashed != (v.Version == "1.1") {
			t.Errorf("%s: associated with %q, odds %.2f from %.2f on", v.Version, v.AssociatedWith, v.EarlyOdds, v.EarlyLow)
		}
	}
}

// TestCrowdThatStays: after a crowd the demand is higher than before it; that its
// clients come again, a few at a time, is no mass reconnect.
func TestCrowdThatStays(t *testing.T) {
	f := newFeed(13)
	f.calm("old", 300, 0, 600, nil)
	for i := range 900 {
		name := fmt.Sprint("new", i)
		for at := 300 + 40*f.rng.Float64(); at < 600; at += 60 + 400*f.rng.Float64() {
			f.add(name, at, func(a *dissect.Attempt) { a.SessionEnd, a.SessionEnded = a.End+20*second, dissect.SessionByClient })
		}
	}
	r := f.judge(600, nil)
	if r.Verdict.Class != storm.FlashCrowd {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
	for _, v := range r.Findings {
		if v.Class == storm.MassReconnect {
			t.Errorf("%s", v.Sentence)
		}
	}
}

// TestObedienceUnheard: clients that were told to come later, seen without what
// they were told. That they do not repeat their requests shows that they were
// answered, not how.
func TestObedienceUnheard(t *testing.T) {
	sc, _ := samples.Find("s12")
	sc.Clients, sc.Intents, sc.Trigger, sc.Duration = 1500, 20, 2*time.Minute, 6*time.Minute
	sc.Mu = 30
	for i := range sc.Script {
		sc.Script[i].At = sc.Trigger + time.Duration(i)*2*time.Minute
	}
	packets, _ := simulated(t, sc, 1)
	r := judge(t, kept(packets, func(p *capture.Packet) bool { return !fromNode(p) }))
	if c := r.Verdict.Class; c != storm.InsufficientEvidence && c != storm.PartialOutage {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
}

// TestOnePaceUnanswered: requests of which no answer was captured, at one pace from
// beginning to end, may all have been answered; where the pace doubles they were not.
func TestOnePaceUnanswered(t *testing.T) {
	for _, hasten := range []bool{false, true} {
		f := newFeed(14)
		ask := func(a *dissect.Attempt) {
			a.Proto, a.Transmissions, a.SourcePackets, a.History = dissect.ProtoUDP, 1, 1, ""
			a.Service, a.Protocol = "n2n/supernode", "n2n"
		}
		for i := range 200 {
			f.storm(fmt.Sprint("edge", i), 0, 400, 20, ask)
			if hasten {
				f.storm(fmt.Sprint("edge", i), 250, 350, 4, ask)
			}
		}
		r := f.judge(400, nil)
		if storms := r.Verdict.Class == storm.RetryStorm; storms != hasten || !storms && r.Verdict.Class != storm.InsufficientEvidence {
			t.Errorf("hasten %v: %s", hasten, r.Summary)
		}
	}
}

// TestSlowRounds: clients that rest five minutes between their tries make one storm
// and not one each round, from its first failure to its last, though between two
// rounds only a few stragglers fail.
func TestSlowRounds(t *testing.T) {
	f := newFeed(15)
	for i := range 200 {
		name := fmt.Sprint("c", i)
		f.add(name, 2+f.rng.Float64()*500, nil)
		first, id := 2000+f.rng.Float64()*0.2, uint64(0)
		for k, at := int32(1), first; at < 5000; k++ {
			a := f.add(name, at, silent)
			if a.Number = k; k == 1 {
				id, a.Relation = a.IntentID, dissect.RelationReattach
			} else {
				a.Relation, a.IntentID = dissect.RelationRetry, id
			}
			at += 300 * (0.9 + 0.2*f.rng.Float64())
		}
		f.add(name, 5001+f.rng.Float64()*300, nil)
	}
	r := f.judge(6000, nil)
	v := &r.Verdict
	if len(r.Findings) != 1 || v.Class != storm.RetryStorm || v.Onset < 2000*second || v.Onset > 2001*second ||
		v.End < 4900*second || v.End > 5000*second || v.Amplification() < 9 || v.Amplification() > 12 {
		t.Errorf("%d findings, A %.2f: %s", len(r.Findings), v.Amplification(), r.Summary)
	}
}

// TestHalfDeadOverlay: where half of what is asked never answers, at all times, the
// seconds in which it is a little more are no outage.
func TestHalfDeadOverlay(t *testing.T) {
	f := newFeed(16)
	for i := range 24000 {
		f.add(fmt.Sprint("c", i), 1200*f.rng.Float64(), func(a *dissect.Attempt) {
			a.SessionEnd, a.SessionEnded = a.End+second, dissect.SessionByClient
			if f.rng.Float64() < 0.56 {
				silent(a)
			}
		})
	}
	if r := f.judge(1200, nil); r.Verdict.Class != storm.Calm {
		t.Error(r.Summary)
	}
}

// TestHalfOfTheClients: a version that half of the clients run carries the storm, too,
// where its retries are nine of ten.
func TestHalfOfTheClients(t *testing.T) {
	for _, times := range []int{1, 9} {
		f := newFeed(17)
		version := map[string]string{}
		for i := range 400 {
			name := fmt.Sprint("c", i)
			version[name] = "1.0"
			f.add(name, float64(i)*0.7, nil)
			every := 18.0
			if i%2 == 0 {
				version[name], every = "1.1", every/float64(times)
			}
			f.storm(name, 300, 500, every, nil)
		}
		r := f.judge(800, func(c string) string { return version[c] })
		for _, v := range r.Versions {
			if carries := v.AssociatedWith == "retries"; carries != (v.Version == "1.1" && times > 1) {
				t.Errorf("%s tries %d times as often, %.0f %% of the retries: associated with %q", v.Version, times, 100*v.RetryShare, v.AssociatedWith)
			}
		}
	}
}

// TestGaveUpOnANo: a client that closes the connection on which it was told no has not
// waited for an answer in vain.
func TestGaveUpOnANo(t *testing.T) {
	f := newFeed(18)
	for i := range 100 {
		name := fmt.Sprint("c", i)
		f.add(name, float64(i), nil)
		f.storm(name, 200, 300, 5, func(a *dissect.Attempt) {
			a.Outcome, a.Evidence, a.Answer, a.Transmissions = dissect.OutcomeRefused, dissect.EvidenceApp, dissect.AnswerSynAck, 1
			a.End, a.GaveUp = a.Start+second/10, a.Start+second/8
		})
	}
	r := f.judge(400, nil)
	if len(r.Policies) == 0 || r.Policies[0].Family != "fixed" || r.Policies[0].Timeout != 0 {
		t.Errorf("%+v", r.Policies)
	}
}

// TestSomeUnansweredEverywhere: refreshes over UDP that now and then find no answer, at
// every node alike, show that packets are lost; where they are those of one node, it is
// that node, and where answers come late, those in time slowly, the nodes are slow.
func TestSomeUnansweredEverywhere(t *testing.T) {
	for _, how := range []string{"lost", "one node", "late"} {
		oneNode, late := how == "one node", how == "late"
		f := newFeed(19)
		for i := range 300 {
			name, lost := fmt.Sprint("edge", i), false
			for at := 20 * f.rng.Float64(); at < 600; at += 20 {
				share := 0.01
				switch {
				case !oneNode && at > 200:
					share = 0.15
				case oneNode && i%3 == 0 && at > 200 && at < 400:
					share = 1
				}
				silence := f.rng.Float64() < share
				a := f.add(name, at, func(a *dissect.Attempt) {
					if silence {
						silent(a)
					}
					if a.Late = silence && late; a.Late {
						a.AnsweredAt = a.Start + 6*second
					} else if late && at > 200 {
						a.AnsweredAt = a.Start + 2*second
					}
					a.Proto, a.Transmissions, a.SourcePackets, a.History = dissect.ProtoUDP, 1, 1, ""
					a.Service, a.Protocol, a.Destination = "n2n/supernode", "n2n", node(byte(i%3+1))
					a.Relation = dissect.RelationRefresh
					a.Source.Port = uint16(i)
				})
				switch {
				case lost:
					a.Relation = dissect.RelationRetry
				case silence:
					a.Relation = dissect.RelationReattach
				}
				lost = silence
			}
		}
		r := f.judge(600, nil)
		if harmless := r.Verdict.Class <= storm.InsufficientEvidence; harmless != (how == "lost") || !harmless && r.Verdict.Class < storm.PartialOutage {
			t.Errorf("%s: %v, %s", how, r.Verdict.Class, r.Summary)
		}
		if d := r.Verdict.End - 400*second; oneNode && (d < -5*second || d > 5*second) {
			t.Errorf("until %d s: %s", r.Verdict.End/second, r.Summary)
		}
	}
}

// TestManyScanners: sixty sources that try dozens of nodes each, and once each,
// are a scan, and no storm of clients that go from node to node.
func TestManyScanners(t *testing.T) {
	f := newFeed(20)
	for i := range 60 {
		f.storm(fmt.Sprint("s", i), 0, 150, 2, func(a *dissect.Attempt) {
			a.Service, a.Protocol, a.Role = "tcp/7000", "", dissect.RoleUnknown
			a.Transmissions, a.SourcePackets = 1, 1
			a.Destination.Addr[13], a.Destination.Addr[14], a.Destination.Addr[15] = byte(i), byte(f.id>>8), byte(f.id)
		})
	}
	if r := f.judge(170, nil); r.Verdict.Class != storm.Scan || len(r.Findings) != 1 {
		t.Errorf("%d findings: %s", len(r.Findings), r.Summary)
	}
}

// TestClientsThatAskEverybody: who was attached and lost its node may ask all peers
// that it knew, and is no scanner for it, though nobody knows the protocol.
func TestClientsThatAskEverybody(t *testing.T) {
	f := newFeed(21)
	for i := range 60 {
		nameless := func(a *dissect.Attempt) { a.Service, a.Protocol, a.Role = "tcp/7000", "", dissect.RoleUnknown }
		name := fmt.Sprint("c", i)
		f.add(name, float64(i)/3, func(a *dissect.Attempt) {
			nameless(a)
			a.SourceBytes, a.DestinationBytes = 300, 300
			a.SessionEnd, a.SessionEnded = 60*second, dissect.SessionByNode
		})
		f.storm(name, 60, 180, 3, func(a *dissect.Attempt) {
			nameless(a)
			a.Destination.Addr[13], a.Destination.Addr[14], a.Destination.Addr[15] = byte(i), byte(f.id>>8), byte(f.id)
		})
	}
	if r := f.judge(200, nil); r.Verdict.Class != storm.RetryStorm {
		t.Errorf("%s", r.Summary)
	}
}

// TestSessionsOlderThanTheCapture: who comes back from a session that the capture
// never saw begin is no newcomer.
func TestSessionsOlderThanTheCapture(t *testing.T) {
	sc, _ := samples.Find("s6")
	for seed := range uint64(2) {
		packets, _ := simulated(t, sc, seed+1)
		r := judge(t, kept(packets, func(p *capture.Packet) bool { return p.Time > samples.Epoch+int64(sc.Trigger-time.Minute) }))
		if r.Verdict.Class != storm.MassReconnect {
			t.Errorf("seed %d: %v: %s", seed+1, r.Verdict.Class, r.Summary)
		}
	}
}

// TestClockSetBack: a capturing clock that is set back gives no host a twin.
func TestClockSetBack(t *testing.T) {
	sc, _ := samples.Find("s6")
	packets, _ := simulated(t, sc, 1)
	back := samples.Epoch + int64(sc.Trigger) + 10*second
	for i := range packets {
		if packets[i].Time > back {
			packets[i].Time -= 30 * second
		}
	}
	if r := judge(t, capture.Memory(packets)); r.Totals.Clients != int64(sc.Clients) || r.Totals.NATSuspects != 0 {
		t.Errorf("%d clients, %d of them suspected to be several; want %d, 0", r.Totals.Clients, r.Totals.NATSuspects, sc.Clients)
	}
}

// TestShortBurst: a node that is back after three seconds makes ten windows in a row
// look stormy, and no storm.
func TestShortBurst(t *testing.T) {
	for _, length := range []float64{3, 30} {
		f := newFeed(21)
		f.calm("calm", 1500, 0, 600, nil)
		for i := range 200 {
			f.storm(fmt.Sprint("c", i), 300, 300+length, 0.5, nil)
		}
		r := f.judge(600, nil)
		want := storm.RetryStorm
		if length < 10 {
			want = storm.PartialOutage
		}
		if r.Verdict.Class != want {
			t.Errorf("%.0f s: %v: %s", length, r.Verdict.Class, r.Summary)
		}
	}
}

// TestLeftTogether: three of four clients go for good. That those who stay refresh less
// in all does not make a surge of what was before.
func TestLeftTogether(t *testing.T) {
	f := newFeed(22)
	for i := range 300 {
		name, until := fmt.Sprint("phone", i), 900.0
		if i%4 != 0 {
			until = 400
		}
		leave := func(a *dissect.Attempt) {
			if until < 900 {
				a.SessionEnd, a.SessionEnded = int64(until)*second, dissect.SessionByClient
			}
		}
		first := f.add(name, f.rng.Float64()*60, leave)
		src := first.Source
		for at := float64(first.Start)/1e9 + 30; at < until; at += 30 {
			f.add(name, at, func(a *dissect.Attempt) { leave(a); a.Relation, a.Source = dissect.RelationRefresh, src })
		}
	}
	if r := f.judge(900, nil); r.Verdict.Class != storm.Calm {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
}

// TestWaitIgnored: who does not keep to the wait that a busy node asks for has a policy
// of its own.
func TestWaitIgnored(t *testing.T) {
	f := newFeed(23)
	f.calm("calm", 1500, 0, 300, nil)
	for i := range 100 {
		f.storm(fmt.Sprint("c", i), 300, 400, 2, func(a *dissect.Attempt) {
			a.Outcome, a.Evidence, a.Answer, a.RetryAfter = dissect.OutcomeThrottled, dissect.EvidenceApp, dissect.AnswerReply, 30*second
			a.End = a.Start + second/20
		})
	}
	if p := f.judge(600, nil).Policies[0]; p.Family != "fixed" || p.Base < 18*second/10 || p.Base > 21*second/10 {
		t.Errorf("%s %d ms of %d gaps", p.Family, p.Base/1e6, p.Gaps)
	}
}

// TestLimitUnderFlood: sources that no stack stands behind give up after one packet;
// that says nothing of the clients' limit.
func TestLimitUnderFlood(t *testing.T) {
	f := newFeed(24)
	s := storm.NewState(storm.Config{})
	hand := func(name string) {
		rows := f.rows[name]
		s.Client(&dissect.Client{ID: name})
		for i := range rows {
			s.Attempt(&rows[i])
		}
		last := &rows[len(rows)-1]
		s.Intent(&dissect.Intent{ID: rows[0].IntentID, Start: rows[0].Start, End: last.End, ClientID: name, Service: last.Service, Attempts: int32(len(rows)),
			Outcome: last.Outcome, ClosedBy: dissect.ClosedQuiet})
	}
	for i := range 100 {
		name := fmt.Sprint("c", i)
		f.storm(name, 300, 306, 2, nil) // three tries
		hand(name)
	}
	for i := range 2000 {
		name := fmt.Sprint("spoofed", i)
		f.add(name, 320+60*f.rng.Float64(), func(a *dissect.Attempt) {
			silent(a)
			a.Transmissions, a.SourcePackets, a.LastSeen = 1, 1, a.Start
		})
		hand(name)
	}
	if p := s.Report(storm.Quality{End: 600 * second}).Policies[0]; p.Limit != 3 {
		t.Errorf("limit %d", p.Limit)
	}
}

// TestLockedOutBetweenRounds: rounds of a growing back-off drift apart; as long as nobody
// gets in between, they are one trouble. The waits are those of libp2p.
func TestLockedOutBetweenRounds(t *testing.T) {
	f := newFeed(25)
	f.calm("calm", 1500, 0, 600, nil)
	for i := range 200 {
		intent, name := uint64(0), fmt.Sprint("c", i)
		at := 600 + f.rng.Float64()
		for k := int32(1); at < 1800; k++ {
			a := f.add(name, at, func(a *dissect.Attempt) {
				a.Outcome, a.Evidence, a.Answer, a.End = dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, a.Start
			})
			if k == 1 {
				intent = a.IntentID
			} else {
				a.Relation = dissect.RelationRetry
			}
			a.IntentID, a.Number = intent, k
			at += 5 + float64((k-1)*(k-1))
		}
		f.add(name, 1810+20*f.rng.Float64(), nil)
	}
	r := f.judge(2400, nil)
	storms := 0
	for _, v := range r.Findings {
		if v.Class >= storm.PartialOutage {
			storms++
		}
	}
	if v := r.Verdict; storms != 1 || v.Class != storm.RetryStorm || v.End < 1600*second {
		t.Errorf("%d findings: %s", len(r.Findings), r.Summary)
	}
	if p := r.Policies[0]; p.Family != "quadratic" || p.Base < 49*second/10 || p.Base > 51*second/10 || p.Step < 98*second/100 || p.Step > 102*second/100 {
		t.Errorf("%s %d ms + %d ms", p.Family, p.Base/1e6, p.Step/1e6)
	}
}

// TestHiddenWait: waits for an answer that nobody sees end, and sessions whose acceptance
// the tap has missed; the first wait of some chains is another one.
func TestHiddenWait(t *testing.T) {
	f := newFeed(26)
	f.calm("calm", 1500, 0, 300, nil)
	for i := range 200 {
		name, intent, at := fmt.Sprint("c", i), uint64(0), 300+3*f.rng.Float64()
		for k := int32(1); at < 600; k++ {
			a := f.add(name, at, silent)
			if k == 1 {
				intent = a.IntentID
			} else {
				a.Relation = dissect.RelationRetry
			}
			a.IntentID, a.Number = intent, k
			at += 6 + min(30, float64(int(1)<<(k-1)))*f.rng.Float64()
			if k == 1 && i%7 == 0 {
				at += 20
			}
		}
		if i%2 == 0 {
			a := f.add(name, 10+f.rng.Float64(), func(a *dissect.Attempt) {
				a.Outcome, a.Evidence, a.GaveUp = dissect.OutcomeStalled, dissect.EvidenceFIN, a.Start+40*second
			})
			f.add(name, 60, func(b *dissect.Attempt) { b.Relation, b.IntentID, b.Number = dissect.RelationRetry, a.IntentID, 2 })
		}
	}
	p := f.judge(600, nil).Policies[0]
	if p.Family != "exponential" || p.Jitter != "full" || p.Timeout < 5*second || p.Timeout > 7*second || p.Factor < 1.7 || p.Factor > 2.3 || p.Cap < 27*second || p.Cap > 33*second {
		t.Errorf("%s, jitter %s, %d ms x %.2f to %d s after %d ms", p.Family, p.Jitter, p.Base/1e6, p.Factor, p.Cap/second, p.Timeout/1e6)
	}
}

// TestLeftForGood: what was usual before most clients left is no surge.
func TestLeftForGood(t *testing.T) {
	f := newFeed(27)
	f.calm("start", 130, 0, 60, nil)
	f.calm("before", 960, 60, 300, nil)
	f.calm("after", 300, 300, 600, nil)
	f.calm("new", 300, 450, 460, nil)
	r := f.judge(600, nil)
	if len(r.Findings) != 1 || r.Verdict.Class != storm.FlashCrowd || r.Verdict.Onset < 448*second || r.Verdict.Onset > 452*second {
		t.Errorf("%d findings: %s", len(r.Findings), r.Summary)
	}
}

// TestOverloaded: a handful who come together and have to wait are no overload, and an
// overload ends with the last who came and waited too long, or not in the capture.
func TestOverloaded(t *testing.T) {
	late := func(a *dissect.Attempt) {
		a.Outcome, a.Evidence, a.Late, a.AnsweredAt, a.End = dissect.OutcomeStalled, dissect.EvidenceFIN, true, a.Start+3*second, a.Start+2*second
	}
	for _, c := range []struct {
		name       string
		perSecond  int
		from, to   float64
		start, end int64
		none       bool
	}{
		{name: "handful", perSecond: 3, from: 300, to: 302, none: true},
		{name: "overload", perSecond: 3, from: 300, to: 330, start: 300, end: 330},
		{name: "to the end", perSecond: 3, from: 500, to: 600, start: 500},
	} {
		f := newFeed(28)
		f.calm("calm", 360, 0, 600, nil) // 6 in 10 s
		for at, i := c.from, 0; at < c.to; at, i = at+1/float64(c.perSecond), i+1 {
			f.add(fmt.Sprint("late", i), at, late)
		}
		for _, n := range f.judge(600, nil).Nodes {
			if c.none != (len(n.Periods) == 0) {
				t.Errorf("%s: %+v", c.name, n.Periods)
				continue
			}
			for _, p := range n.Periods {
				if p.Kind != storm.Overloaded || p.Start != c.start*second || p.End != c.end*second {
					t.Errorf("%s: %v from %d to %d s", c.name, p.Kind, p.Start/second, p.End/second)
				}
			}
		}
	}
}

// TestAfterlife: what keeps coming to a dead node is counted whole, what is still
// open where the capture ends included.
func TestAfterlife(t *testing.T) {
	for seed := range uint64(3) {
		f := newFeed(40 + seed)
		f.calm("calm", 600, 0, 300, func(a *dissect.Attempt) { a.SourceBytes = 500 })
		for i := range 80 {
			f.storm(fmt.Sprint("c", i), 300, 420, 3, func(a *dissect.Attempt) {
				if a.SourceBytes = 180; a.End > 420*second {
					a.Outcome = dissect.OutcomeUnknown
				}
			})
		}
		for i := range 50 { // in sessions some go on until their clients close them, or the node is back
			f.add(fmt.Sprint("s", i), 100, func(a *dissect.Attempt) {
				a.SourceBytes, a.LostBytes, a.LastHeard, a.LastSeen = 9000, 700, 299*second, 360*second
				if a.SessionEnd, a.SessionEnded = 360*second, dissect.SessionByClient; i%2 == 0 {
					a.SessionEnd, a.SessionEnded = 0, dissect.SessionAlive
				}
			})
		}
		r := f.judge(420, nil)
		n := r.Nodes[0]
		if n.AfterlifeAttempts < 3100 || n.AfterlifeIn != 180*n.AfterlifeAttempts+50*700 {
			t.Errorf("seed %d: %d attempts of 180 bytes kept coming and 700 bytes in each of 50 sessions, not %d bytes; %s", seed, n.AfterlifeAttempts, n.AfterlifeIn, r.Summary)
		}
	}
}
