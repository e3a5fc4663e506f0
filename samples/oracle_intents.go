package samples

import (
	"cmp"
	"slices"
)

// The waits that hold an intent together: storms.md 3.1.
const (
	waitUnlearned = 120e9
	waitLeast     = 30e9
	waitMost      = 900e9
	gapsToLearn   = 10
)

// wait is W, learned from the gaps between the starts of a client's tries.
func wait(gaps []int64) int64 {
	if len(gaps) < gapsToLearn {
		return waitUnlearned
	}
	sorted := slices.Sorted(slices.Values(gaps))
	if n := len(sorted); n < 20 && sorted[n-1] >= 4*sorted[n-2] {
		sorted = sorted[:n-1] // one long gap that stands out is a pause
	}
	p95 := sorted[(len(sorted)*95+99)/100-1]
	return min(max(waitLeast, 3*p95), waitMost)
}

// rests is after how many failures in a row a client pauses (rule 38); 0 = not
// to be learned. A pause lasts five seconds and four times the longest gap
// between retries, or else four times the middle gap. Three rounds must end in
// one (four of two tries, two of five and more), all but the first having begun
// after one; all but a quarter have the length of the shortest, and those are
// multiples of it: two wishes in one.
func rests(list []*Row, twin []bool) int {
	var tries []*Row
	for i, r := range list {
		if !twin[i] {
			tries = append(tries, r)
		}
	}
	if len(tries) == 0 || tries[0].service == "skype" {
		return 0
	}
	failed := func(i int) bool { return tries[i].Outcome != "accepted" }
	var gaps []int64
	for i := 1; i < len(tries); i++ {
		if failed(i - 1) {
			gaps = append(gaps, tries[i].Start-tries[i-1].Start)
		}
	}
	slices.Sort(gaps)
	pause, stands := int64(0), 4.0
	for i := 1; i < len(gaps); i++ {
		if x := float64(gaps[i]) / float64(max(gaps[i-1], 1)); gaps[i] >= 5e9 && (x > stands || x == stands && pause == 0) {
			pause, stands = gaps[i], x
		}
	}
	if n := roundLength(tries, pause); pause != 0 && n != 0 {
		return n
	}
	if len(gaps) == 0 {
		return 0
	}
	return roundLength(tries, max(5e9, 4*gaps[len(gaps)/2]))
}

// roundLength is how many tries lie between pauses of a length, as a rule.
func roundLength(tries []*Row, pause int64) int {
	failed := func(i int) bool { return tries[i].Outcome != "accepted" }
	var ended, whole, others []int // lengths of the rounds that a pause ended; of those that began after one too; of the rest
	from, afterPause := 0, false
	for i := range tries {
		length := i - from + 1
		switch {
		case i+1 == len(tries):
			others = append(others, length)
		case !failed(i):
			others = append(others, length)
			from, afterPause = i+1, false
		case tries[i+1].Start-tries[i].Start >= pause:
			ended = append(ended, length)
			if afterPause {
				whole = append(whole, length)
			}
			from, afterPause = i+1, true
		}
	}
	if len(ended) == 0 {
		return 0
	}
	least, joined := slices.Min(ended), 0
	for _, n := range ended {
		if n%least != 0 {
			return 0
		}
		if n > least {
			joined++
		}
	}
	for _, n := range others {
		if n > least {
			joined++
		}
	}
	rounds := 3
	if least == 2 {
		rounds = 4
	} else if least >= 5 {
		rounds = 2
	}
	if least < 2 || len(ended) < rounds || len(whole) < rounds-1 || joined*4 > len(ended) {
		return 0
	}
	return least
}

// relate fills relation, number and intent of all rows.
func relate(rows []Row, begin, end int64) {
	check := checks(rows, end-begin)
	intents := 0
	groups := map[string][]*Row{}
	for i := range rows {
		r := &rows[i]
		if check[i] {
			intents++
			r.Relation, r.Number, r.Intent = "monitor", 1, intents
			continue
		}
		if r.Client == "" {
			r.Client = r.Source.Addr().String()
		}
		groups[r.Client+" "+r.service] = append(groups[r.Client+" "+r.service], r)
	}
	keys := make([]string, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		intents = chain(groups[k], intents)
	}
}

// chain relates the tries of one client at one service.
func chain(list []*Row, intents int) int {
	slices.SortStableFunc(list, func(a, b *Row) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), a.Source.Compare(b.Source), a.Target.Compare(b.Target))
	})
	twin := make([]bool, len(list))
	for i, r := range list {
		for j := i - 1; j >= 0 && r.Start-list[j].Start < parallel; j-- {
			e := list[j]
			// One that won and is still attached leaves the others of its set nothing to win.
			spare := e.Outcome == "accepted" && r.Outcome != "accepted" && (e.sessionEnd == 0 || e.sessionEnd > r.Start) &&
				(r.service != "skype" || e.Target.Addr() != r.Target.Addr())
			twin[i] = twin[i] || !twin[j] && (e.end > r.Start || spare)
		}
	}
	// An answer after the next try had begun is late.
	for i, r := range list {
		if r.Outcome != "accepted" || twin[i] {
			continue
		}
		for j := i + 1; j < len(list); j++ {
			if !twin[j] {
				if r.answered > 0 && list[j].Start < r.answered {
					r.Outcome, r.Evidence, r.Late = "timeout", "silence", true
				}
				break
			}
		}
	}
	var gaps []int64
	var prev *Row
	for i, r := range list {
		if twin[i] {
			continue
		}
		if prev != nil && prev.Outcome != "accepted" && r.Start-prev.Start <= waitMost {
			gaps = append(gaps, r.Start-prev.Start)
		}
		prev = r
	}
	learned := wait(gaps)
	w := learned // of the open intent
	most := rests(list, twin)

	var open *Row // last counted try of the open intent
	var session *Row
	for i, r := range list {
		if twin[i] {
			r.Relation, r.Number, r.Intent = "parallel", 1, intents
			continue
		}
		alive := session != nil && (session.sessionEnd == 0 || session.sessionEnd > r.Start)
		// The yes to a probe is no session yet: the connection right after it belongs to
		// the same wish, which goes on where it fails.
		attach := alive && r.service == "skype" && session.last == 0 && r.last > 0 &&
			r.Target.Addr() == session.Target.Addr() && r.Start-session.answered <= 1e9
		if attach && r.Outcome != "accepted" {
			open, session, alive, w = session, nil, false, learned
		}
		// A connection that falls silent when the next one stands was lost unseen.
		if alive && r.Outcome == "accepted" && r.last > 0 && session.last > 0 && session.last < r.Start && r.Source != session.Source {
			alive = false
		}
		switch {
		case attach && r.Outcome == "accepted":
			r.Relation, r.Number, r.Intent = "refresh", session.Number+1, session.Intent
		case alive && r.Outcome == "accepted":
			intents++
			r.Relation, r.Number, r.Intent = "refresh", 1, intents
		case alive:
			intents++
			r.Relation, r.Number, r.Intent = "reattach", 1, intents
			session = nil
			open, w = r, learned
		case open != nil && r.Start-open.end <= w && (most == 0 || open.Number < most):
			r.Relation, r.Number, r.Intent = "retry", open.Number+1, open.Intent
			if r.Target != open.Target {
				r.Relation = "failover"
			}
			if len(gaps) < gapsToLearn { // three times the longest gap so far
				w = min(max(w, 3*(r.Start-open.Start)), waitMost)
			}
			open = r
		default:
			intents++
			r.Relation, r.Number, r.Intent = "first", 1, intents
			if session != nil && !session.clientEnded {
				r.Relation = "reattach"
			}
			open, w = r, learned
		}
		if r.Outcome == "accepted" {
			session, open = r, nil
		}
	}
	return intents
}
