package storm

import (
	"cmp"
	"fmt"
	"slices"

	"squall/dissect"
)

// weighing gathers the evidence for and against one explanation.
type weighing struct {
	h           Hypothesis
	asked, have float64
}

// ask adds a piece of evidence of a weight; there or not, it is written down.
func (w *weighing) ask(weight float64, there bool, yes, no string) {
	w.asked += weight
	if there {
		w.have += weight
		w.h.For = append(w.h.For, yes)
	} else {
		w.h.Against = append(w.h.Against, no)
	}
}

// unseen is evidence of a weight that the capture cannot show: it speaks for the
// explanation no more than against it.
func (w *weighing) unseen(weight float64, why string) {
	w.asked += weight
	w.have += weight / 2
	w.h.Unseen = append(w.h.Unseen, why)
}

// hypotheses ranks what people argue about after an outage. They are given
// only where there is an outage to explain.
func hypotheses(r *Report) []Hypothesis {
	f := &r.Verdict
	if f.Class < FlashCrowd {
		return nil
	}
	during := func(p *Period) bool {
		return (f.End == 0 || p.Start <= f.End) && (p.End == 0 || p.End >= f.Onset)
	}
	var fallen, nodes, overloaded, first, silent, down int
	var downFirst bool
	var firstSilence, lastSilence int64 // of nodes that fell silent
	for i := range r.Nodes {
		n := &r.Nodes[i]
		for _, p := range n.Periods {
			if p.Kind == Overloaded {
				continue
			}
			if down++; p.silent {
				if silent++; silent == 1 || p.Start < firstSilence {
					firstSilence = p.Start
				}
				lastSilence = max(lastSilence, p.Start)
			}
			break
		}
		if n.Service != f.Service && f.Service != "many" {
			continue
		}
		nodes++
		overloaded += int(count(slices.ContainsFunc(n.Periods, func(p Period) bool { return p.Kind == Overloaded && during(&p) })))
		if n.Generation >= 0 {
			fallen++
			if n.Generation == 0 {
				first++
				downFirst = true
			}
		}
	}
	var culprit, carrier, spreading *Version
	versions := 0
	for i := range r.Versions {
		v := &r.Versions[i]
		versions += int(count(v.Service == f.Service))
		if v.Service == f.Service && v.spreads && (spreading == nil || v.RolloutLow > spreading.RolloutLow) {
			spreading = v
		}
		if v.Service != f.Service || !v.Associated {
			continue
		}
		if v.with(withCrash) && culprit == nil {
			culprit = v
		}
		if v.with(withRetries) && carrier == nil {
			carrier = v
		}
	}
	var list []weighing
	add := func(name, sentence string, weigh func(w *weighing)) {
		w := weighing{h: Hypothesis{Name: name, Sentence: sentence}}
		weigh(&w)
		if w.asked > 0 {
			w.h.Score = w.have / w.asked
		}
		list = append(list, w)
	}
	late := f.LateRatio()
	blind := f.oneSided*2 > f.Attempts
	const unseen = "answers were not captured"
	// Where they were not, the client's acknowledgement shows that one came to its SYN.
	connected := ratio(f.answered, f.Attempts)
	reached := percent(connected) + " of the attempts connected, and their clients gave up all the same"
	notReached := only(connected) + " of the attempts connected"
	retries := percent(f.RetryShare()) + " of the attempts are retries"
	surged := f.Surge >= 3 && max(f.Intents, f.reattached) >= crowd
	surge := fmt.Sprintf("%.1f times the usual intents at once", f.Surge)
	if f.Surge == 0 {
		surge = "no calm stretch to compare the intents with"
	} else if !surged {
		surge = "no surge of intents"
	}
	add("bug_in_version", "A fault in one client version took its members down first.", func(w *weighing) {
		if versions < 2 {
			w.ask(4, false, "", "no two versions were seen there")
			return
		}
		w.ask(3, culprit != nil, describeVersion(culprit), "no version's members fell earlier than the others'")
		w.ask(1, carrier != nil || culprit != nil, "one version stands out", "no version makes most of the retries and more a client than the others")
		if culprit != nil && spreading != nil && culprit.Version == spreading.Version {
			w.ask(1, false, "", "it was spreading before the onset: what it changed may be no fault")
		}
	})
	add("rollout", "A change was rolled out over the clients.", func(w *weighing) {
		w.ask(2, spreading != nil, describeRollout(spreading), "no version was spreading before the onset")
		w.ask(1, f.Shape == "gradual", "the onset was gradual", "the onset was not gradual")
		w.ask(1, carrier != nil, "one version carries the retries", "no version carries the retries")
		if f.Class == RefreshSurge {
			w.ask(4, true, "clients that nobody has lost refresh more often than before", "")
		}
	})
	add("node_loss", "Central nodes were lost; the rest had to carry their clients. From one tap a dead node, a filter, a full connection table or a scrubber in between look the same.", func(w *weighing) {
		if blind && !downFirst {
			w.unseen(2, unseen)
			w.ask(1, connected < 0.5, notReached, reached)
			return
		}
		w.ask(3, downFirst, fmt.Sprintf("%d of %d nodes went down, %d before any load from others", fallen, nodes, first), "no node went down"+iff(fallen > 0, " before it was overloaded"))
		if nodes > 0 && fallen == nodes {
			return // nobody was left to carry anything
		}
		w.ask(1, f.Excess > 1.5, fmt.Sprintf("load on the others rose %.1f times beyond redistribution", f.Excess), "load on the others is not seen to have risen beyond redistribution")
	})
	add("login_overload", "The login servers were overloaded, and everything else followed.", func(w *weighing) {
		login, earliest := loginHealth(r)
		if login == nil {
			w.ask(5, false, "", "no login server was seen")
			return
		}
		w.ask(2, login.Onset != 0 && login.Onset <= earliest && login.Class >= PartialOutage, "no other role was in trouble before them: "+login.Sentence, login.Sentence)
		w.ask(2, login.Overloaded > 0, fmt.Sprintf("%d of %d login servers answered too late or were busy", login.Overloaded, login.Nodes), "no login server was overloaded")
		w.ask(1, login.Onset != 0 && login.Clients*2 >= f.Clients, "at least half of the clients hit were hit there", "most of the clients hit were not hit there")
	})
	add("overload", "The nodes answer, but more slowly than the clients wait; the retries keep it so.", func(w *weighing) {
		few := only(late) + " of the answers came after the client had given up"
		if f.Answers == 0 {
			few = "no answer was seen"
		}
		if blind {
			w.unseen(2, unseen)
			w.ask(1, connected >= 0.5, reached, notReached)
		} else {
			w.ask(2, late >= 0.3, percent(late)+" of the answers came after the client had given up", few)
			w.ask(1, overloaded > 0, fmt.Sprintf("%d of %d nodes answered too late, or with no, to most", overloaded, nodes), "no node answered too late, or with no, to most")
		}
		w.ask(1, f.Metastable || f.RetryShare() >= 0.5, retries, retries)
		if carrier != nil && spreading != nil && carrier.Version == spreading.Version {
			w.ask(1, false, "", "most retries are of a version that was spreading before the onset")
		}
	})
	add("attack", "Somebody floods the service.", func(w *weighing) {
		share, what := ratio(f.unreal, f.Attempts), " of the attempts come from sources without a real stack"
		if f.Class == ApplicationFlood {
			share, what = ratio(f.insisted, f.Attempts), " of the attempts come from sources that had just been served and closed"
		}
		w.ask(3, share > 0.5 || f.Class == SynFlood || f.Class == Scan, percent(share)+what, only(share)+what)
		w.ask(1, f.RetryShare() < 0.2, retries, retries)
	})
	add("network", "The network between loses packets, or something between this tap and the node drops them (filter, full connection table, scrubber). From one tap these look like a dead node; a second tap on the other side tells them apart.", func(w *weighing) {
		repeats, inTime, heard := "no attempt was answered", "no answer is late", "nothing failed"
		if f.answered > 0 {
			repeats = fmt.Sprintf("an attempt that was answered took %.2f transmissions", ratio(f.answerSends, f.answered))
		}
		if f.Late > 0 {
			inTime = percent(late) + " of the answers are late"
		}
		silence := ratio(f.Outcomes[dissect.OutcomeTimeout]+f.Outcomes[dissect.OutcomeUnreachable]-min(f.Late, f.Outcomes[dissect.OutcomeTimeout]), f.Outcomes.Failed())
		if f.Outcomes.Failed() > 0 {
			heard = percent(silence) + " of the failures are silence"
		}
		if blind {
			w.unseen(3, unseen)
			w.ask(1, connected < 0.5, notReached, reached)
		} else {
			w.ask(2, f.Class == PathLoss, repeats, repeats)
			w.ask(1, silence >= 0.9, heard, heard)
			w.ask(1, late < 0.05, inTime, inTime)
		}
		if f.shut > 0 {
			w.ask(4, true, many(int64(f.shut), "node", "nodes")+" went on with the sessions they had and answered nobody new", "")
		}
		w.ask(1, silent > 1 && silent == down && lastSilence-firstSilence <= 5*second, fmt.Sprintf("%d nodes fell silent within %s", silent, span(lastSilence-firstSilence)),
			"the nodes did not all fall silent together")
	})
	add("mass_restart", "Many clients restarted or lost their sessions at the same moment.", func(w *weighing) {
		share := ratio(f.reattached, f.Intents+f.returned)
		back := share >= 0.5 && f.Class != RefreshSurge
		no := only(share) + " of the intents are of clients that had a session"
		switch {
		case f.Class == RefreshSurge:
			no = "nobody has lost a session"
		case back && downFirst:
			no = "clients lost their sessions with the nodes that fell"
		}
		w.ask(2, back && !downFirst, percent(share)+" of the intents are of clients that had a session", no)
		w.ask(1, surged, surge, surge)
		w.ask(1, !downFirst, "no node fell first", "nodes fell first")
	})
	add("demand", "More clients want in than usual, of their own accord.", func(w *weighing) {
		forced := (f.reattached+f.insisted)*2 >= f.Intents || f.unreal*2 > f.Attempts
		w.ask(2, surged && !forced && !downFirst, "the intents that multiplied are of clients that had lost nothing", "no surge of intents of clients that had lost nothing")
		share := min(ratio(f.newcomers, f.Intents), 1)
		fresh := " of the intents are of clients not seen before"
		w.ask(1, share > 0.5, percent(share)+fresh, only(share)+fresh)
		failed := percent(f.failure()) + " of the decided attempts failed"
		w.ask(1, f.failure() < 0.25, "they were served: "+failed, failed)
	})
	slices.SortStableFunc(list, func(a, b weighing) int {
		return cmp.Or(cmp.Compare(b.h.Score, a.h.Score), cmp.Compare(b.have, a.have), cmp.Compare(a.h.Name, b.h.Name))
	})
	var out []Hypothesis
	for i := range list {
		h := list[i].h
		h.Rank = int32(i + 1)
		out = append(out, h)
	}
	return out
}

// iff is a piece of text where a condition holds.
func iff(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

// only is a share that is too small.
func only(share float64) string { return iff(share > 0, "only ") + percent(share) }

// percent is a share in words: none and next to none are not the same.
func percent(share float64) string {
	switch p := 100 * share; {
	case p == 0:
		return "none"
	case p < 0.5:
		return "<1 %"
	case p > 99.5 && p < 100:
		return ">99 %"
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

func describeVersion(v *Version) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("members of %s vanished early %.1f times as often (95 %% %.1f to %.1f, p %.2g), later %.1f times",
		v.Version, v.EarlyOdds, v.EarlyLow, v.EarlyHigh, v.EarlyP, v.LateOdds)
}

func describeRollout(v *Version) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%s was spreading before the onset: odds %.1f times those at the beginning (95 %% %.1f to %.1f)", v.Version, v.RolloutOdds, v.RolloutLow,
		v.RolloutHigh)
}

// loginHealth finds the login servers, and when the first trouble of any role
// began.
func loginHealth(r *Report) (login *RoleHealth, earliest int64) {
	earliest = r.Verdict.Onset
	for i := range r.Roles {
		h := &r.Roles[i]
		if h.Onset != 0 {
			earliest = min(earliest, h.Onset)
		}
		if h.Role == dissect.RoleLogin {
			login = h
		}
	}
	return login, earliest
}
