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

// hypotheses ranks what people argue about after an outage. They are given
// only where there is an outage to explain.
func hypotheses(r *Report) []Hypothesis {
	f := &r.Verdict
	if f.Class < FlashCrowd {
		return nil
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
		for _, p := range n.Periods {
			if p.Kind == Overloaded {
				overloaded++
				break
			}
		}
		if n.Generation >= 0 {
			fallen++
			if n.Generation == 0 {
				first++
				downFirst = true
			}
		}
	}
	var culprit, carrier, spreading *Version
	for i := range r.Versions {
		v := &r.Versions[i]
		if v.Service == f.Service && v.RolloutLow > 1 && (spreading == nil || v.RolloutLow > spreading.RolloutLow) {
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
	add("bug_in_version", "A fault in one client version took its members down first.", func(w *weighing) {
		w.ask(3, culprit != nil, describeVersion(culprit), "no version's members fell earlier than the others'")
		w.ask(1, carrier != nil || culprit != nil, "one version stands out", "retries are spread over the versions as the clients are")
	})
	add("rollout", "A change was rolled out over the clients.", func(w *weighing) {
		w.ask(2, spreading != nil, describeRollout(spreading), "no version was spreading before the onset")
		w.ask(1, f.Shape == "gradual", "the onset was gradual", "the onset was a step")
		w.ask(1, carrier != nil, "one version carries the retries", "no version carries the retries")
		if f.Class == RefreshSurge {
			w.ask(4, true, "clients that nobody has lost refresh more often than before", "")
		}
	})
	add("node_loss", "Central nodes were lost; the rest had to carry their clients. From one tap a dead node, a filter, a full connection table or a scrubber in between look the same.", func(w *weighing) {
		w.ask(3, downFirst, fmt.Sprintf("%d of %d nodes went down, %d before any load from others", fallen, nodes, first), "no node went down before it was overloaded")
		if nodes > 0 && fallen == nodes {
			return // nobody was left to carry anything
		}
		w.ask(1, f.Excess > 1.5, fmt.Sprintf("load on the others rose %.1f times beyond redistribution", f.Excess), "load on the others did not rise beyond redistribution")
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
		w.ask(2, late >= 0.3, fmt.Sprintf("%.0f %% of the answers came after the client had given up", 100*late), fmt.Sprintf("only %.0f %% of the answers were late", 100*late))
		w.ask(1, overloaded > 0, fmt.Sprintf("nodes that were overloaded: %d", overloaded), "no node answered too late to most")
		w.ask(1, f.Metastable || f.RetryShare() >= 0.5, "retries are most of the load", "retries are not most of the load")
	})
	add("attack", "Somebody floods the service.", func(w *weighing) {
		share, yes := ratio(f.unreal, f.Attempts), "%.0f %% of the attempts come from sources without a real stack"
		if f.Class == ApplicationFlood {
			share, yes = ratio(f.insisted, f.Attempts), "%.0f %% of the attempts come from sources that had just been served and closed"
		}
		w.ask(3, share > 0.5 || f.Class == SynFlood || f.Class == Scan, fmt.Sprintf(yes, 100*share),
			"the sources repeat, answer and keep to timers, as real clients do")
		w.ask(1, f.RetryShare() < 0.2, "the sources do not retry", "the attempts are retries of clients known from before")
	})
	add("network", "The network between loses packets, or something between this tap and the node drops them (filter, full connection table, scrubber). From one tap these look like a dead node; a second tap on the other side tells them apart.", func(w *weighing) {
		repeats := ratio(f.Transmissions, f.Attempts)
		w.ask(2, f.Class == PathLoss, fmt.Sprintf("%.2f transmissions an attempt at nodes that answer", repeats), "answered attempts needed no repeats")
		unheard := f.Outcomes[dissect.OutcomeTimeout] + f.Outcomes[dissect.OutcomeUnreachable]
		w.ask(1, f.Outcomes.Failed() > 0 && unheard*10 >= f.Outcomes.Failed()*9, "failures are silence", "failures are answers, not silence")
		w.ask(1, late < 0.05, "no answer is late", "answers come, but late")
		if f.shut > 0 {
			w.ask(4, true, many(int64(f.shut), "node", "nodes")+" went on with the sessions they had and answered nobody new", "")
		}
		w.ask(1, silent > 1 && silent == down && lastSilence-firstSilence <= 5*second, fmt.Sprintf("%d nodes fell silent within %s", silent, span(lastSilence-firstSilence)),
			"the nodes did not all fall silent together")
	})
	add("mass_restart", "Many clients restarted or lost their sessions at the same moment.", func(w *weighing) {
		back := f.Intents > 0 && ratio(f.reattached, f.Intents) >= 0.5 && f.Class != RefreshSurge
		no := "most wishes are not of clients that had lost a session"
		if back && downFirst {
			no = "clients lost their sessions with the nodes that fell"
		}
		w.ask(2, back && !downFirst, "most wishes are of clients that had a session", no)
		w.ask(1, f.Surge >= 3, fmt.Sprintf("%.1f times the usual intents at once", f.Surge), "no surge of intents")
		w.ask(1, !downFirst, "no node fell first", "nodes fell first")
	})
	add("demand", "More clients want in than usual, of their own accord.", func(w *weighing) {
		forced := (f.reattached+f.insisted)*2 >= f.Intents || f.unreal*2 > f.Attempts
		w.ask(2, f.Surge >= 3 && !forced && !downFirst, "the wishes that multiplied are of clients that had lost nothing", "no surge of wishes of clients that had lost nothing")
		w.ask(1, f.newcomers*2 > f.Intents, "most wishes are of clients not seen before", "hardly any wish is of a new client")
		w.ask(1, f.failure() < 0.25, "they were served", "they were not served")
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

func describeVersion(v *Version) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("members of %s vanished early %.1f times as often (95 %% %.1f to %.1f, p %.2g), later all fell alike (%.1f)",
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
