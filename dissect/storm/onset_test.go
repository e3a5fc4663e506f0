package storm_test

import (
	"fmt"
	"math"
	"testing"

	"squall/dissect"
	"squall/dissect/storm"
)

// TestFailuresLeadUp: where nothing ever failed before, the few failures of the first
// nodes that die belong to the storm that follows.
func TestFailuresLeadUp(t *testing.T) {
	f := newFeed(31)
	f.calm("calm", 600, 0, 600, nil)
	for i, at := range []float64{262, 271, 279} {
		f.add(fmt.Sprint("early", i), at, silent)
	}
	for i := range 100 {
		f.storm(fmt.Sprint("c", i), 286, 400, 3, nil)
	}
	r := f.judge(600, nil)
	if v := &r.Verdict; v.Class != storm.RetryStorm || math.Abs(float64(v.Onset)/1e9-262) > 2 {
		t.Errorf("onset at %.1f s, the first attempt failed at 262 s: %s", float64(v.Onset)/1e9, r.Summary)
	}
}

// TestFailuresAtAllTimes: where a few seem to fail at all times, as where the tap misses
// answers, some of them close together before a storm are not its beginning.
func TestFailuresAtAllTimes(t *testing.T) {
	f := newFeed(32)
	f.calm("calm", 420, 0, 600, nil)
	n := 0
	stray := func(at float64) { n++; f.add(fmt.Sprint("stray", n), at, silent) }
	for at := 4.0; at < 270; at += 8 {
		stray(at)
	}
	for at := 272.0; at < 292; at += 4 {
		stray(at)
		stray(at + 1)
	}
	for i := range 100 {
		f.storm(fmt.Sprint("c", i), 300, 400, 3, nil)
	}
	r := f.judge(600, nil)
	if v := &r.Verdict; v.Class != storm.RetryStorm || math.Abs(float64(v.Onset)/1e9-300) > 2 {
		t.Errorf("onset at %.1f s, it is at 300 s: %s", float64(v.Onset)/1e9, r.Summary)
	}
}

// TestRepeatsThatWereCut: where the snapshot length cut what tells repeats of a request
// from other requests, they are no sign of a path that loses packets.
func TestRepeatsThatWereCut(t *testing.T) {
	for _, cut := range []bool{false, true} {
		f := newFeed(33)
		f.calm("calm", 900, 0, 300, func(a *dissect.Attempt) {
			a.Proto, a.Answer = dissect.ProtoUDP, dissect.AnswerReply
			if f.rng.Float64() < 0.4 {
				a.Transmissions, a.LastSeen = 2, a.Start+second
			}
		})
		q := storm.Quality{End: 300 * second, Packets: int64(10 * f.id)}
		want := storm.PathLoss
		if cut {
			q.Truncated, want = q.Packets, storm.Calm
		}
		if r := f.state(nil).Report(q); r.Verdict.Class != want {
			t.Errorf("cut %v: %v: %s", cut, r.Verdict.Class, r.Summary)
		}
	}
}

// TestVersionOfAllButOne: a version that all but one client run carries nothing that
// others do not.
func TestVersionOfAllButOne(t *testing.T) {
	for _, others := range []int{1, 60} {
		f := newFeed(34)
		for i := range others {
			f.calm(fmt.Sprint("old", i, "-"), 8, 0, 400, nil)
		}
		for i := range 60 {
			f.calm(fmt.Sprint("new", i, "-"), 1, 0, 200, nil)
			f.storm(fmt.Sprint("new", i, "-0"), 300, 400, 2, nil)
		}
		r := f.judge(400, func(client string) string { return client[:3] })
		found := false
		for _, v := range r.Versions {
			found = found || v.Associated && v.Version == "new" && v.AssociatedWith == "retries"
		}
		if r.Verdict.Class != storm.RetryStorm || found != (others > 1) {
			t.Errorf("beside %d clients of another version: associated %v: %s", 8*others, found, r.Summary)
		}
	}
}

// TestCrowdThatComesAgain: clients of a crowd that come and go like all others do not
// reconnect en masse.
func TestCrowdThatComesAgain(t *testing.T) {
	f := newFeed(35)
	visit := func(client string, at float64) {
		f.add(client, at, func(a *dissect.Attempt) { a.SessionEnd, a.SessionEnded = a.End+30*second, dissect.SessionByClient })
	}
	for i := range 100 {
		for at := f.rng.Float64() * 100; at < 900; at += 80 + 40*f.rng.Float64() {
			visit(fmt.Sprint("c", i), at)
		}
	}
	for i := range 600 {
		at := 300 + 60*f.rng.Float64()
		visit(fmt.Sprint("n", i), at)
		for at += 150 + 100*f.rng.Float64(); at < 900; at += 80 + 40*f.rng.Float64() {
			visit(fmt.Sprint("n", i), at)
		}
	}
	r := f.judge(900, nil)
	for i := range r.Findings {
		if r.Findings[i].Class == storm.MassReconnect {
			t.Errorf("%s", r.Findings[i].Sentence)
		}
	}
	if r.Verdict.Class != storm.FlashCrowd {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
}

// TestMissedAnswersOfRefreshes: where a tap misses a fifth of what TCP proves was sent,
// refreshes and what follows them seem to fail that were served.
func TestMissedAnswersOfRefreshes(t *testing.T) {
	f := newFeed(36)
	begin := func(a *dissect.Attempt) {
		if f.rng.Float64() < 0.22 {
			a.History = "SADd" // its SYN-ACK is missing
		}
	}
	f.calm("visitor", 300, 0, 600, begin)
	for i := range 300 {
		name := fmt.Sprint("c", i)
		open := f.add(name, 30*f.rng.Float64(), begin)
		source, failed := open.Source, false
		for at := float64(open.Start)/1e9 + 40; at < 600; at += 40 {
			missed := f.rng.Float64() < 0.22
			a := f.add(name, at, func(a *dissect.Attempt) {
				a.Source, a.Relation, a.Answer, a.History = source, dissect.RelationRefresh, dissect.AnswerReply, "ADd"
				if missed {
					silent(a)
					a.Outcome, a.Transmissions, a.SourcePackets, a.History = dissect.OutcomeStalled, 1, 2, "AD"
				}
			})
			switch {
			case failed:
				a.Relation = dissect.RelationRetry
			case missed:
				a.Relation = dissect.RelationReattach
			}
			failed = missed
		}
	}
	if r := f.judge(600, nil); r.Verdict.Class != storm.InsufficientEvidence && r.Verdict.Class != storm.Calm {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
}

// TestRepeatsOfAnOutage: requests that repeat themselves until the nodes are back, and
// are answered then, show no path that loses packets.
func TestRepeatsOfAnOutage(t *testing.T) {
	f := newFeed(37)
	udp := func(a *dissect.Attempt) { a.Proto, a.Answer = dissect.ProtoUDP, dissect.AnswerReply }
	f.calm("calm", 400, 0, 300, udp)
	for i := range 100 {
		f.storm(fmt.Sprint("c", i), 300, 380, 8, func(a *dissect.Attempt) { a.Proto = dissect.ProtoUDP })
	}
	f.calm("last", 150, 380, 420, func(a *dissect.Attempt) {
		udp(a)
		a.Transmissions, a.LastSeen, a.AnsweredAt = 5, 420*second, 420*second
	})
	f.calm("then", 400, 420, 700, udp)
	r := f.judge(700, nil)
	for i := range r.Findings {
		if r.Findings[i].Class == storm.PathLoss {
			t.Errorf("%s", r.Findings[i].Sentence)
		}
	}
	if r.Verdict.Class != storm.RetryStorm {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
}

// TestOutageThatGrows: where ever more of the wishes fail, and then ever fewer, the onset
// lies where that begins, and the end where it stops, though few fail by then.
func TestOutageThatGrows(t *testing.T) {
	const from, full, back, to = 300.0, 500.0, 560.0, 640.0
	for seed := range uint64(5) {
		f := newFeed(40 + seed)
		first, last := 0.0, 0.0
		for i := range 1000 {
			at, name := float64(i)+f.rng.Float64(), fmt.Sprint("c", i)
			share := 0.0
			switch {
			case at >= from && at < back:
				share = math.Min((at-from)/(full-from), 0.98)
			case at >= back && at < to:
				share = (to - at) / (to - back)
			}
			intent, k := uint64(0), int32(1)
			for ; f.rng.Float64() < share && k < 40; k++ {
				a := f.add(name, at, silent)
				if intent == 0 {
					intent = a.IntentID
				}
				a.IntentID, a.Number = intent, k
				if k > 1 {
					a.Relation, a.RetryGap = dissect.RelationRetry, second
				}
				if first == 0 {
					first = at
				}
				last = math.Max(last, at)
				at++
			}
			a := f.add(name, at, nil)
			if k > 1 {
				a.IntentID, a.Number, a.Relation, a.RetryGap = intent, k, dissect.RelationRetry, second
			}
		}
		v := &f.judge(1050, nil).Verdict
		if d := float64(v.Onset)/1e9 - first; v.Class != storm.RetryStorm || math.Abs(d) > (full-from)/10 {
			t.Errorf("seed %d: onset at %.1f s, the first attempt failed at %.1f s: %s", seed, float64(v.Onset)/1e9, first, v.Sentence)
		}
		if d := float64(v.End)/1e9 - last; math.Abs(d) > 5 {
			t.Errorf("seed %d: end at %.1f s, the last attempt failed at %.1f s: %s", seed, float64(v.End)/1e9, last, v.Sentence)
		}
	}
}

// TestSlowIsNoPathLoss: where hardly anybody is answered before repeating, the node is
// slow.
func TestSlowIsNoPathLoss(t *testing.T) {
	f := newFeed(47)
	udp := func(a *dissect.Attempt) { a.Proto, a.Answer = dissect.ProtoUDP, dissect.AnswerReply }
	f.calm("calm", 1200, 0, 300, udp)
	f.calm("slow", 600, 300, 450, func(a *dissect.Attempt) {
		udp(a)
		a.Transmissions, a.LastSeen, a.AnsweredAt = 3, a.Start+2*second, a.Start+3*second
	})
	f.calm("then", 600, 450, 600, udp)
	r := f.judge(600, nil)
	for i := range r.Findings {
		if r.Findings[i].Class == storm.PathLoss {
			t.Errorf("%s", r.Findings[i].Sentence)
		}
	}
}

// TestFlappingIsNoPathLoss: requests that had to be repeated because their node was gone
// for seconds were not lost on the way.
func TestFlappingIsNoPathLoss(t *testing.T) {
	f := newFeed(48)
	gone := func(at float64) float64 { // until when
		if d := math.Mod(at-300, 20); at >= 300 && at < 440 && d < 8 {
			return at - d + 8
		}
		return 0
	}
	for i := range 3000 {
		at := 600 * (float64(i) + f.rng.Float64()) / 3000
		f.add(fmt.Sprint("c", i), at, func(a *dissect.Attempt) {
			a.Proto, a.Answer = dissect.ProtoUDP, dissect.AnswerReply
			switch back := gone(at); {
			case back == 0:
			case back-at < 3.5: // repeated until it is back
				a.Transmissions, a.LastSeen = 4, a.Start+int64((back-at)*1e9)
				a.AnsweredAt = a.LastSeen
			default:
				silent(a)
			}
		})
	}
	if r := f.judge(600, nil); r.Verdict.Class == storm.PathLoss || r.Verdict.Class < storm.PartialOutage {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
}

// TestBrokenClientOfFew: where few come, one that fails all the time is most of those who
// try, and no storm.
func TestBrokenClientOfFew(t *testing.T) {
	f := newFeed(49)
	for i := range 5 {
		for at := f.rng.Float64() * 20; at < 900; at += 50 + 20*f.rng.Float64() {
			f.add(fmt.Sprint("c", i), at, func(a *dissect.Attempt) { a.SessionEnd, a.SessionEnded = a.End+5*second, dissect.SessionByClient })
		}
	}
	f.storm("broken", 250, 900, 0.25, nil)
	if r := f.judge(900, nil); r.Verdict.Class != storm.SingleOffender {
		t.Errorf("%v: %s", r.Verdict.Class, r.Summary)
	}
}

// TestGrowthOutOfNoise: where some fail at all times, an outage whose share doubles begins
// where it leaves them behind, not where most fail.
func TestGrowthOutOfNoise(t *testing.T) {
	const from, full, to, usual = 300.0, 500.0, 600.0, 0.01
	for seed := range uint64(5) {
		f := newFeed(50 + seed)
		for i := range 9000 {
			at, name := float64(i)/10+f.rng.Float64()/10, fmt.Sprint("c", i)
			share := usual
			if at >= from && at < to {
				share = max(usual, 0.8*math.Exp2(-math.Max(full-at, 0)/50))
			}
			intent, k := uint64(0), int32(1)
			for ; ; k++ {
				fails := f.rng.Float64() < share
				var a *dissect.Attempt
				if fails {
					a = f.add(name, at, silent)
				} else {
					a = f.add(name, at, nil)
				}
				if intent == 0 {
					intent = a.IntentID
				}
				a.IntentID, a.Number = intent, k
				if k > 1 {
					a.Relation, a.RetryGap = dissect.RelationRetry, second
				}
				if at++; at >= to {
					share = usual
				}
				if !fails {
					break
				}
			}
		}
		v := &f.judge(950, nil).Verdict
		if d := float64(v.Onset)/1e9 - from; v.Class != storm.RetryStorm || math.Abs(d) > (full-from)/10 {
			t.Errorf("seed %d: onset at %.1f s, ever more fail from %.0f s on: %s", seed, float64(v.Onset)/1e9, from, v.Sentence)
		}
	}
}
