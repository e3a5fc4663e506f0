package storm_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
)

// backoff is how a client of a test waits after its k-th failure, s.
type backoff struct {
	family     string
	base, step float64 // step is the factor of an exponential one
	cap        float64
	jitter     string
	beforeCap  bool    // the jitter
	patience   float64 // for an answer
}

// jitters by name, as parts of the wait.
var jitters = map[string][2]float64{"none": {1, 1}, "ten_percent": {0.9, 1.1}, "equal": {0.5, 1}, "fifty_percent": {0.5, 1.5}, "full": {0, 1}}

// chain lets a client try and fail from a time to another; change makes of a silent
// row what it is, and moves it.
func (f *feed) chain(client string, from, to float64, b *backoff, change func(k int32, a *dissect.Attempt)) {
	intent, before := uint64(0), b.base
	at := from
	for k := int32(1); at < to; k++ {
		a := f.add(client, at, silent)
		if change != nil {
			change(k, a)
		}
		if intent == 0 {
			intent = a.IntentID
		} else {
			a.Relation = dissect.RelationRetry
		}
		a.IntentID, a.Number = intent, k
		wait := b.base
		switch b.family {
		case "linear":
			wait += b.step * float64(k-1)
		case "quadratic":
			wait += b.step * float64(k*k)
		case "exponential":
			wait *= math.Pow(b.step, float64(k-1))
		}
		if b.cap > 0 && !b.beforeCap {
			wait = min(wait, b.cap)
		}
		if b.jitter == "decorrelated" {
			wait = min(b.base+(3*before-b.base)*f.rng.Float64(), b.cap)
			before = wait
		} else {
			j := jitters[b.jitter]
			wait *= j[0] + (j[1]-j[0])*f.rng.Float64()
			if b.beforeCap {
				wait = min(wait, b.cap)
			}
		}
		at += b.patience + wait + 0.003*f.rng.ExpFloat64()
	}
}

func nearly(got int64, want, share float64) bool {
	return math.Abs(float64(got)/1e9-want) <= share*want
}

// TestPolicies: every family with every jitter, of nodes that refuse and of nodes that
// are silent, where the gaps hold the wait for an answer. What cannot be told apart
// then is said to be one.
func TestPolicies(t *testing.T) {
	for seed := range uint64(3) {
		for _, family := range []backoff{{family: "fixed", base: 4}, {family: "linear", base: 1.5, step: 1.2}, {family: "quadratic", base: 2, step: 0.4},
			{family: "exponential", base: 1, step: 2, cap: 20}, {family: "exponential", base: 2, step: 1.5}} {
			for _, kind := range []string{"none", "ten_percent", "equal", "fifty_percent", "full", "decorrelated"} {
				for _, patience := range []float64{0, 2.3, 9} {
					b := family
					if b.jitter, b.patience = kind, patience; kind == "decorrelated" {
						if b.family != "exponential" || b.cap == 0 {
							continue
						}
						b.step = 3
					}
					f := newFeed(100 + seed)
					for i := range 150 {
						f.chain(fmt.Sprint("c", i), 300+5*f.rng.Float64(), 700, &b, func(_ int32, a *dissect.Attempt) {
							if patience == 0 {
								a.Outcome, a.Evidence, a.Answer = dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST
								a.End = a.Start + second/1000
							}
						})
					}
					p := f.judge(1200, nil).Policies[0]
					name := fmt.Sprintf("seed %d, %s, jitter %s, answers waited for %v s: %s %d ms + %d ms x %.2f to %d ms, jitter %s, after %d ms, holds %v", seed, b.family, kind, patience,
						p.Family, p.Base/1e6, p.Step/1e6, p.Factor, p.Cap/1e6, p.Jitter, p.Timeout/1e6, p.Holds)
					base := b.base
					if p.Holds {
						base += b.patience
						if b.family == "fixed" {
							base = b.patience + b.base*(jitters[kind][0]+jitters[kind][1])/2
						}
					}
					grows := b.family == "linear" || b.family == "quadratic"
					constant := patience > 0 && (b.family == "fixed" || kind == "none" && grows || kind == "ten_percent" && grows && patience == 9)
					switch {
					case p.Family != b.family:
						t.Error(name)
					case p.Holds != constant:
						t.Errorf("%s: want %v", name, constant)
					case !nearly(p.Base, base, 0.2), b.family == "exponential" && math.Abs(p.Factor/b.step-1) > 0.2,
						(b.family == "linear" || b.family == "quadratic") && !nearly(p.Step, b.step, 0.2), b.cap != 0 && !nearly(p.Cap, b.cap, 0.2):
						t.Error(name)
					case p.Jitter != kind && (p.Jitter != "undetermined" || b.family != "fixed" || !constant):
						t.Errorf("%s: wrong jitter", name)
					case patience > 0 && !constant && !nearly(p.Timeout, patience, 0.25):
						t.Errorf("%s: wrong timeout", name)
					}
				}
			}
		}
	}
}

// TestJitterBeforeCap: where the cap cuts what was spread, the gaps pile up at it; those
// below show how they were spread, whatever share of them is left.
func TestJitterBeforeCap(t *testing.T) {
	for seed := range uint64(4) {
		for _, kind := range []string{"none", "ten_percent", "equal", "fifty_percent", "full"} {
			for _, times := range []float64{9, 30} {
				for _, patience := range []float64{0, 3} {
					for _, tries := range []int32{8, 40} {
						for _, before := range []bool{false, true} {
							if kind == "none" && (before || patience > 0) {
								continue
							}
							f := newFeed(700 + seed)
							b := backoff{family: "exponential", base: 0.5 + f.rng.Float64(), step: 2, jitter: kind, patience: patience, beforeCap: before}
							b.cap = b.base * times
							for i := range 150 {
								f.chain(fmt.Sprint("c", i), 300+5*f.rng.Float64(), 700, &b, func(_ int32, a *dissect.Attempt) {
									if patience == 0 {
										a.Outcome, a.Evidence, a.Answer = dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST
										if a.End = a.Start + second/1000; kind == "none" { // ways spread, too
											a.End += int64(0.06 * b.base * f.rng.Float64() * 1e9)
										}
									}
								})
							}
							for name, rows := range f.rows {
								f.rows[name] = rows[:min(len(rows), int(tries))]
							}
							p := f.judge(1200, nil).Policies[0]
							smells := slices.Contains(p.Smells, "jitter_before_cap")
							right := smells == before && p.Jitter == kind
							if before { // three steps below the cap are few to tell a family by
								right = right && nearly(p.Cap, b.cap, 0.2) && (times < 30 || p.Family == b.family && nearly(p.Base, b.base, 0.2) && math.Abs(p.Factor/2-1) < 0.2)
							}
							if !right {
								t.Errorf("seed %d, %+v, %d tries: %s %d ms x %.2f to %d ms, jitter %s, smells %v", seed, b, tries, p.Family, p.Base/1e6, p.Factor, p.Cap/1e6, p.Jitter, p.Smells)
							}
						}
					}
				}
			}
		}
	}
}

// TestOrderOfEachClient: clients whose lists differ, two versions that go about it in
// two ways: each is told by whom a client comes back to.
func TestOrderOfEachClient(t *testing.T) {
	for seed := range uint64(5) {
		for nodes := 2; nodes <= 6; nodes++ {
			f := newFeed(200 + seed)
			b := backoff{family: "fixed", base: 6, jitter: "ten_percent"}
			for i := range 160 {
				list := f.rng.Perm(nodes)
				at := f.rng.IntN(nodes)
				f.chain(fmt.Sprint("c", i), 300+5*f.rng.Float64(), 500, &b, func(k int32, a *dissect.Attempt) {
					switch [...]string{"sticky", "round_robin", "random", "other"}[i%4] {
					case "round_robin":
						at = (at + 1) % nodes
					case "random":
						at = f.rng.IntN(nodes)
					case "other":
						at = (at + 1 + f.rng.IntN(nodes-1)) % nodes
					}
					a.Destination = node(byte(1 + list[at]))
				})
			}
			orders := [...]string{"sticky", "round_robin", "random", "random"}
			if nodes == 2 {
				orders[3] = "round_robin" // the other one of two is the next
			}
			r := f.judge(900, func(c string) string {
				var i int
				fmt.Sscanf(c, "c%d", &i)
				return fmt.Sprint("v", i%4)
			})
			for _, p := range r.Policies {
				var v int
				if _, err := fmt.Sscanf(p.Group, "v%d", &v); err == nil && p.Order != orders[v] {
					t.Errorf("seed %d, %d nodes: %s, it is %s (kind %d)", seed, nodes, p.Order, orders[v], v)
				}
			}
		}
	}
}

// TestWaitKeptByChance: a wide jitter lets some clients wait as long as a busy node had
// asked for; leaving these out would cut the middle out of their waits.
func TestWaitKeptByChance(t *testing.T) {
	for seed := range uint64(5) {
		f := newFeed(300 + seed)
		b := backoff{family: "exponential", base: 2, step: 3, cap: 32, jitter: "full"}
		for i := range 200 {
			f.chain(fmt.Sprint("c", i), 300+5*f.rng.Float64(), 600, &b, func(_ int32, a *dissect.Attempt) {
				a.Outcome, a.Evidence, a.Answer, a.RetryAfter = dissect.OutcomeThrottled, dissect.EvidenceApp, dissect.AnswerReply, 12*second
				a.End = a.Start + second/1000
			})
		}
		p := f.judge(1200, nil).Policies[0]
		if p.Family != "exponential" || p.Jitter != "full" || !nearly(p.Base, 2, 0.2) || math.Abs(p.Factor/3-1) > 0.2 || !nearly(p.Cap, 32, 0.2) {
			t.Errorf("seed %d: %s %d ms x %.2f to %d ms, jitter %s", seed, p.Family, p.Base/1e6, p.Factor, p.Cap/1e6, p.Jitter)
		}
	}
}

// TestRefusalUnheard: who repeats its request after the ICMP message has not heard it,
// and waits on; the back-off does not begin there.
func TestRefusalUnheard(t *testing.T) {
	f := newFeed(31)
	b := backoff{family: "fixed", base: 2, jitter: "full", patience: 6}
	for i := range 100 {
		f.chain(fmt.Sprint("c", i), 300+5*f.rng.Float64(), 500, &b, func(_ int32, a *dissect.Attempt) {
			a.Proto, a.Outcome, a.Evidence, a.Answer = dissect.ProtoUDP, dissect.OutcomeRefused, dissect.EvidenceICMP, dissect.AnswerICMP
			a.End, a.LastSeen = a.Start+second/1000, a.Start+35*second/10
		})
	}
	if p := f.judge(900, nil).Policies[0]; p.Family != "fixed" || !p.Holds || p.Jitter != "undetermined" || !nearly(p.Base, 7, 0.1) {
		t.Errorf("%s %d ms, jitter %s, holds %v", p.Family, p.Base/1e6, p.Jitter, p.Holds)
	}
}

// TestAskedInSession: a request in a session that stood shows that it was lost. It is
// no try to attach: neither its patience nor its gap is the policy's, and it does not
// count against the limit.
func TestAskedInSession(t *testing.T) {
	f := newFeed(32)
	b := backoff{family: "exponential", base: 1, step: 2, jitter: "none", patience: 0}
	for i := range 200 {
		name := fmt.Sprint("c", i)
		session := *f.add(name, 10+f.rng.Float64()*100, func(a *dissect.Attempt) { a.SessionEnd, a.SessionEnded = 300*second, dissect.SessionByClient })
		from, tries := 300+5*f.rng.Float64(), int32(6)
		if i%2 == 0 {
			tries = 7
		}
		n := len(f.rows[name])
		f.chain(name, from, 700, &b, func(k int32, a *dissect.Attempt) {
			a.Outcome, a.Evidence, a.Answer = dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST
			a.End = a.Start + second/1000
			if k == 1 && i%2 == 0 {
				a.Source, a.Relation = session.Source, dissect.RelationReattach
				a.Outcome, a.Evidence, a.Answer = dissect.OutcomeStalled, dissect.EvidenceFIN, dissect.AnswerSynAck
				a.GaveUp = a.Start + second/2
			}
		})
		rows := f.rows[name][:n+int(tries)]
		if i%2 == 0 { // its back-off begins with its second row
			for k := range rows[n+1:] {
				rows[n+1+k].Start = rows[n].Start + second + int64((math.Pow(2, float64(k))-1)*1e9)
				rows[n+1+k].End = rows[n+1+k].Start + second/1000
			}
		}
		f.rows[name] = rows
	}
	p := f.judge(1500, nil).Policies[0]
	if p.Family != "exponential" || !nearly(p.Base, 1, 0.1) || math.Abs(p.Factor/2-1) > 0.1 || p.Timeout != 0 {
		t.Errorf("%s %d ms x %.2f, after %d ms", p.Family, p.Base/1e6, p.Factor, p.Timeout/1e6)
	}
}

// TestFellAndCarries: the version whose members fell first may also be the one whose
// retries carry the storm. A crashed program may be started again minutes later, or
// never; clients that close what their dead nodes no longer answer have not crashed,
// nor has who leaves as often as before.
func TestFellAndCarries(t *testing.T) {
	for seed := range uint64(5) {
		for _, crash := range []bool{false, true} {
			for _, eager := range []bool{false, true} {
				f := newFeed(400 + seed)
				version := map[string]string{}
				for i := range 400 {
					name := fmt.Sprint("c", i)
					version[name] = fmt.Sprintf("1.%d", i%2)
					at, from := byte(1+i/2%4), 304+8*f.rng.Float64()
					b := backoff{family: "fixed", base: 20, jitter: "equal"}
					if i%2 == 1 && eager {
						b.base = 2
					}
					fell := crash && i%2 == 1 && i%5 != 0
					if fell {
						from = 320 + 60*f.rng.Float64()
					}
					never := fell && i%3 == 0
					f.add(name, f.rng.Float64()*200, func(a *dissect.Attempt) {
						a.Destination = node(at)
						a.SessionEnd, a.SessionEnded = int64((from-0.5)*1e9), dissect.SessionByClient // given up on
						if fell {
							a.SessionEnd = 290*second + int64(10*f.rng.Float64()*1e9)
						}
					})
					if !never {
						f.chain(name, from, 600, &b, func(_ int32, a *dissect.Attempt) { a.Destination = node(at) })
					}
				}
				// New clients find the nodes dead from 302 s on.
				for i := range 40 {
					name := fmt.Sprint("new", i)
					version[name] = fmt.Sprintf("1.%d", i%2)
					f.chain(name, 302+0.05*float64(i), 600, &backoff{family: "fixed", base: 20, jitter: "equal"}, func(_ int32, a *dissect.Attempt) { a.Destination = node(byte(1 + i%4)) })
				}
				for _, v := range f.judge(900, func(c string) string { return version[c] }).Versions {
					var want []string
					if v.Version == "1.1" && crash {
						want = append(want, "crash")
					}
					if v.Version == "1.1" && eager {
						want = append(want, "retries")
					}
					if w := strings.Join(want, ","); v.AssociatedWith != w {
						t.Errorf("seed %d, crash %v, eager %v, %s: associated with %q: odds %.1f from %.1f on, %.0f %% of retries of %.0f %% of clients", seed, crash, eager, v.Version,
							v.AssociatedWith, v.EarlyOdds, v.EarlyLow, 100*v.RetryShare, 100*v.ClientShare)
					}
				}
			}
		}
	}
}

// TestNodesOfOneVersionDown: a version whose nodes were down longer retries more than
// one whose nodes were hardly down, with the same policy.
func TestNodesOfOneVersionDown(t *testing.T) {
	f := newFeed(33)
	version := map[string]string{}
	b := backoff{family: "fixed", base: 4, jitter: "equal"}
	for i := range 400 {
		name := fmt.Sprint("c", i)
		at := byte(1 + i%2)
		version[name] = fmt.Sprintf("1.%d", i%2)
		f.add(name, f.rng.Float64()*200, func(a *dissect.Attempt) {
			a.Destination = node(at)
			if a.SessionEnd, a.SessionEnded = 300*second, dissect.SessionByNode; at == 1 {
				a.SessionEnd, a.SessionEnded = 0, dissect.SessionAlive
			}
		})
		if at == 2 {
			f.chain(name, 301+f.rng.Float64(), 600, &b, func(_ int32, a *dissect.Attempt) { a.Destination = node(at) })
		}
	}
	for _, v := range f.judge(900, func(c string) string { return version[c] }).Versions {
		if v.Associated {
			t.Errorf("%s: associated with %q", v.Version, v.AssociatedWith)
		}
	}
}

// TestSpreadingIsNoFall: of a version that spreads more leave in every minute, because
// more are there; and when the nodes die, most who were there are of it. It neither fell
// first nor carries the storm, unless its members do crash.
func TestSpreadingIsNoFall(t *testing.T) {
	for seed := range uint64(6) {
		for _, stay := range []float64{10, 30, 120} {
			for _, crash := range []bool{false, true} {
				if crash && stay < 120 {
					continue // among so many who leave, a crash may not be seen
				}
				f := newFeed(500 + seed)
				version := map[string]string{}
				rate, top, begin, power := 4+16*f.rng.Float64(), 0.3+0.6*f.rng.Float64(), 200*f.rng.Float64(), 1+float64(f.rng.IntN(2))
				const dead = 360
				b := backoff{family: "fixed", base: 20, jitter: "equal"}
				for at := 0.0; at < dead+120; at += f.rng.ExpFloat64() / rate {
					name := fmt.Sprint("c", len(version))
					spread := f.rng.Float64() < top*math.Pow(max(at-begin, 0)/(dead-begin), power)
					version[name] = map[bool]string{false: "1.0", true: "1.1"}[spread]
					if at > dead-0.5 {
						f.chain(name, at, dead+150, &b, nil)
						continue
					}
					end := at + 6 + stay*f.rng.ExpFloat64()
					if fell := dead - 15 + 13*f.rng.Float64(); crash && spread && f.rng.Float64() < 0.6 && at < fell-6 {
						end = min(end, fell)
					}
					a, back := f.add(name, at, nil), dead+2+20*f.rng.Float64()
					if a.SessionEnd, a.SessionEnded = int64(end*1e9), dissect.SessionByClient; end > dead {
						a.SessionEnd = int64(back*1e9) - second/2 // given up on
						f.chain(name, back, dead+150, &b, nil)
					}
				}
				for _, v := range f.judge(600, func(c string) string { return version[c] }).Versions {
					if want := map[bool]string{true: "crash"}[crash && v.Version == "1.1"]; v.AssociatedWith != want {
						t.Errorf("seed %d, stays %v s, crash %v, %s: associated with %q", seed, stay, crash, v.Version, v.AssociatedWith)
					}
				}
			}
		}
	}
}

// TestChanceIsNoRollout: versions that are drawn by lot before an outage do not spread,
// whatever a lot may look like.
func TestChanceIsNoRollout(t *testing.T) {
	spreading := 0
	for seed := range uint64(300) {
		f := newFeed(600 + seed)
		f.calm("calm", 300, 10, 300, nil)
		b := backoff{family: "fixed", base: 20, jitter: "equal"}
		for i := range 60 {
			f.chain(fmt.Sprint("c", i), 301+5*f.rng.Float64(), 500, &b, nil)
		}
		lots := map[string]string{}
		for _, h := range f.judge(600, func(c string) string {
			if lots[c] == "" {
				lots[c] = fmt.Sprintf("1.%d", f.rng.IntN(2))
			}
			return lots[c]
		}).Hypotheses {
			if h.Name == "rollout" && strings.Contains(strings.Join(h.For, "\n"), "was spreading") {
				spreading++
			}
		}
	}
	if spreading > 8 {
		t.Errorf("%d of 300 lots look like a rollout", spreading)
	}
}
