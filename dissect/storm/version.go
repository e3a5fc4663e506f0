package storm

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// earlyBefore and earlyAfter are the time around an onset in which a client
// counts as having fallen first.
const (
	earlyBefore = 60 * second
	earlyAfter  = 30 * second
)

// versions compares the client versions of a service in the time of its worst
// finding. Whose members fell first and whose retries carry the storm are two
// questions.
func (s *scene) versions(name string, f *Finding, periods map[nodeKey][]Period, q *Quality, th *Thresholds) (out []Version) {
	if len(s.groups) < 2 {
		if g := s.groups[""]; g != nil || len(s.groups) == 0 {
			return nil
		}
	}
	var onset, end, from, to int64 // 0 without a finding
	var fallen falls
	if f != nil {
		onset, end = f.Onset, cmp.Or(f.End, math.MaxInt64)
		from, to = onset-earlyBefore, onset+earlyAfter
		fallen = fallsOf(periods, from)
	}
	var clients, retries, early, late int64
	type tally struct{ early, late int64 }
	tallies := map[string]tally{}
	closed := f != nil && s.closing(&fallen, q.Begin, from, to)
	for v, g := range s.groups {
		t := tally{}
		if f != nil {
			t.early = g.fell(&fallen, q.Begin, from, to, closed)
			t.late = within(g.troubled, onset, end)
		}
		tallies[v] = t
		clients += g.clients
		retries += g.counts.Retries
		early += t.early
		late += t.late
	}
	var tested []int
	for _, v := range sortedKeys(s.groups) {
		if v == "" {
			continue
		}
		g, t := s.groups[v], tallies[v]
		row := Version{Version: v, Service: name, Clients: g.clients, Attempts: g.counts.Attempts, Failures: g.counts.Outcomes.Failed(),
			Retries: g.counts.Retries, ClientShare: ratio(g.clients, clients), RetryShare: ratio(g.counts.Retries, retries),
			Amplification: g.counts.Amplification(), EarlyP: 1, CrashedEarly: t.early, EventsEarly: early}
		row.AmplificationLow, row.Amplification95 = g.amplificationCI()
		others := clients - g.clients
		if f != nil && float64(g.clients) >= th.VersionMembers && float64(early) >= th.VersionEvents && others > 0 {
			row.EarlyOdds, row.EarlyLow, row.EarlyHigh = oddsRatio(t.early, g.clients-t.early, early-t.early, others-(early-t.early))
			row.EarlyP = min(2*fisher(t.early, g.clients-t.early, early-t.early, others-(early-t.early)), 1) // of two ways to fall
			row.EarlyStratified = s.stratified(v, &fallen, from, to, closed)
			tested = append(tested, len(out))
		}
		if f != nil && float64(g.clients) >= th.VersionMembers && others > 0 && late > 0 {
			row.LateOdds, row.LateLow, row.LateHigh = oddsRatio(t.late, max(g.clients-t.late, 0), late-t.late, max(others-(late-t.late), 0))
		}
		if f != nil && float64(g.clients) >= th.VersionMembers && others > 0 {
			row.RolloutOdds, row.RolloutLow, row.RolloutHigh = s.rollout(v, q.Begin, onset)
		}
		out = append(out, row)
	}
	correct(out, tested)
	for i := range out {
		v := &out[i]
		var with []string
		if v.EarlyOdds > 0 && v.EarlyLow > 1 && v.EarlyStratified > 1 && v.EarlyP <= th.VersionP && float64(v.CrashedEarly) >= th.VersionEvents {
			with = append(with, withCrash)
		}
		if f != nil && f.Class == RetryStorm && s.carries(v, len(with) > 0, th) {
			with = append(with, withRetries)
		}
		v.Associated, v.AssociatedWith = len(with) > 0, strings.Join(with, ",")
	}
	return out
}

// closing reports which of the two ways to fall sets the versions further apart: that
// clients closed their sessions, as the kernel of a crashed program does, or that they
// vanished without a word.
func (s *scene) closing(fallen *falls, begin, from, to int64) bool {
	least := [2]float64{1, 1}
	for way, closed := range [2]bool{false, true} {
		var all, early int64
		fell := map[string]int64{}
		for v, g := range s.groups {
			fell[v] = g.fell(fallen, begin, from, to, closed)
			all, early = all+g.clients, early+fell[v]
		}
		for v, n := range fell {
			c := s.groups[v].clients
			least[way] = min(least[way], fisher(n, c-n, early-n, all-c-(early-n)))
		}
	}
	return least[1] < least[0]
}

// fallsOf are the first times after from at which nodes did not do their work.
func fallsOf(periods map[nodeKey][]Period, from int64) (f falls) {
	for i := range f {
		f[i] = math.MaxInt64
	}
	for k, list := range periods {
		at := &f[stratumOf(k)]
		for _, p := range list {
			if p.End == 0 || p.End > from {
				*at = min(*at, cmp.Or(p.Suspected, p.Start))
			}
		}
	}
	return f
}

// What a version may be associated with; a version may be with both.
const (
	withCrash   = "crash"
	withRetries = "retries"
)

// with reports that the version is associated with what is asked for.
func (v *Version) with(what string) bool {
	return slices.Contains(strings.Split(v.AssociatedWith, ","), what)
}

// insistence is how many times the retries of another client make a version carry
// a storm, whatever its share of the clients.
const insistence = 3

// carries reports that most retries are of the version and that each of its clients
// which met a failure retries so many times as often as one of another version that
// met one, or was at the same nodes: whose nodes were well shows nothing of its policy.
// A version whose members fell first has more to retry than those who were there; it is
// held to those who met a failure, too.
func (s *scene) carries(v *Version, fellFirst bool, th *Thresholds) bool {
	g := s.groups[v.Version]
	var failers, there, retries int64
	for name, o := range s.groups {
		if name == v.Version {
			continue
		}
		failers, retries = failers+o.failers, retries+o.counts.Retries
		for i, n := range o.attached {
			if int64(g.nexts.to[i])*20 > g.nexts.all {
				there += int64(n)
			}
		}
	}
	others := failers
	if !fellFirst {
		others = max(failers, there)
	}
	return v.RetryShare >= 0.5 && float64(min(g.failers, others)) >= th.VersionMembers && v.AmplificationLow > s.amplificationOfOthers(v.Version) &&
		float64(v.Retries)*float64(others) >= insistence*float64(retries)*float64(g.failers)
}

// stratified is the odds ratio of falling first among the clients of the same
// nodes (Mantel and Haenszel), so that a version that happened to sit at the
// nodes that died is not blamed for it.
func (s *scene) stratified(version string, fallen *falls, from, to int64, closed bool) float64 {
	var table [strata]struct{ a, m, fell, all float64 } // of the version, and of all
	for v, g := range s.groups {
		for k, n := range g.attached {
			table[k].all += float64(n)
			if v == version {
				table[k].m += float64(n)
			}
		}
		for k, n := range g.vanished {
			if k.closed == closed && fallen.early(k, from, to) {
				table[k.stratum].fell += float64(n)
				if v == version {
					table[k.stratum].a += float64(n)
				}
			}
		}
	}
	var up, down float64
	for _, t := range table {
		if t.all == 0 {
			continue
		}
		a, b := t.a, max(t.m-t.a, 0)
		c, d := t.fell-t.a, max(t.all-t.m-(t.fell-t.a), 0)
		up += a * d / t.all
		down += b * c / t.all
	}
	// Half an event in all, so that none among the others is no infinity.
	return (up + 0.25) / (down + 0.25)
}

// rollout is the odds ratio of a version among the wishes of the last third of
// the time before an onset, against the first third: over 1 it was spreading.
func (s *scene) rollout(version string, begin, onset int64) (or, low, high float64) {
	third := (onset - begin) / 3
	if third < 2*attachStep {
		return 0, 0, 0
	}
	var early, earlyAll, late, lateAll int64
	for v, g := range s.groups {
		e, l := within(g.arrived, begin, begin+third), within(g.arrived, onset-third, onset-attachStep)
		earlyAll += e
		lateAll += l
		if v == version {
			early, late = e, l
		}
	}
	if earlyAll < 20 || lateAll < 20 {
		return 0, 0, 0
	}
	return oddsRatio(late, lateAll-late, early, earlyAll-early)
}

func within(m map[int64]int32, from, to int64) (n int64) {
	for b, c := range m {
		if at := b * attachStep; at+attachStep > from && at <= to {
			n += int64(c)
		}
	}
	return n
}

func (s *scene) amplificationOfOthers(version string) float64 {
	var c Counts
	for v, g := range s.groups {
		if v != version {
			c.add(&g.counts)
		}
	}
	return c.Amplification()
}

// amplificationCI is the 95 % interval of the mean of attempts by intent.
func (g *group) amplificationCI() (low, high float64) {
	n := float64(g.counts.Intents)
	if n < 2 {
		return 0, 0
	}
	mean := float64(g.counts.Attempts) / n
	v := max(float64(g.sumSquares)/n-mean*mean, 0)
	e := 1.96 * math.Sqrt(v/n)
	return max(mean-e, 1), mean + e
}

// oddsRatio of a 2x2 table with 0.5 added to each cell, and its 95 % interval.
func oddsRatio(a, b, c, d int64) (or, low, high float64) {
	p, q, r, s := float64(a)+0.5, float64(b)+0.5, float64(c)+0.5, float64(d)+0.5
	l := math.Log(p * s / (q * r))
	e := 1.96 * math.Sqrt(1/p+1/q+1/r+1/s)
	return math.Exp(l), math.Exp(l - e), math.Exp(l + e)
}

// fisher is the one-sided exact probability of a or more in the first cell.
func fisher(a, b, c, d int64) float64 {
	n, k, m := a+b+c+d, a+c, a+b
	logs := func(x int64) float64 {
		v, _ := math.Lgamma(float64(x) + 1)
		return v
	}
	choose := func(n, k int64) float64 { return logs(n) - logs(k) - logs(n-k) }
	sum := 0.0
	for x := a; x <= min(k, m); x++ {
		if n-m < k-x {
			continue
		}
		sum += math.Exp(choose(m, x) + choose(n-m, k-x) - choose(n, k))
	}
	return min(sum, 1)
}

// correct applies Benjamini and Hochberg's correction to the tested rows.
func correct(rows []Version, tested []int) {
	slices.SortFunc(tested, func(a, b int) int {
		return cmp.Or(cmp.Compare(rows[a].EarlyP, rows[b].EarlyP), cmp.Compare(rows[a].Version, rows[b].Version))
	})
	least := 1.0
	for i := len(tested) - 1; i >= 0; i-- {
		p := &rows[tested[i]].EarlyP
		least = min(least, *p*float64(len(tested))/float64(i+1))
		*p = least
	}
}

func byVersion(a, b Version) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(b.Clients, a.Clients), cmp.Compare(a.Version, b.Version))
}
