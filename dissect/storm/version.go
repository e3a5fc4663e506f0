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
	var first outset // of a finding
	var end int64
	if f != nil {
		first = outset{q.Begin, f.Onset - earlyBefore, f.Onset, f.Onset + earlyAfter, falls{}}
		first.fallen = fallsOf(periods, first.from)
		end = cmp.Or(f.End, math.MaxInt64)
	}
	var clients, retries, early, late int64
	type tally struct{ early, late int64 }
	tallies := map[string]tally{}
	closed := f != nil && s.closing(&first)
	for v, g := range s.groups {
		t := tally{}
		if f != nil {
			t.early = g.fell(&first, closed)
			t.late = within(g.troubled, first.onset, end)
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
			row.EarlyStratified = s.stratified(v, &first, closed)
			tested = append(tested, len(out))
		}
		if f != nil && float64(g.clients) >= th.VersionMembers && others > 0 && late > 0 {
			row.LateOdds, row.LateLow, row.LateHigh = oddsRatio(t.late, max(g.clients-t.late, 0), late-t.late, max(others-(late-t.late), 0))
		}
		if f != nil && float64(g.clients) >= th.VersionMembers && others > 0 {
			row.RolloutOdds, row.RolloutLow, row.RolloutHigh = s.rollout(v, q.Begin, first.onset)
			row.spreads = row.RolloutOdds > 1 && float64(len(s.groups))*oddsByChance(row.RolloutOdds, row.RolloutLow) <= th.VersionP
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
		if f != nil && f.Class == RetryStorm && s.carries(v, first.onset, len(with) > 0, th) {
			with = append(with, withRetries)
		}
		v.Associated, v.AssociatedWith = len(with) > 0, strings.Join(with, ",")
	}
	return out
}

// closing reports which of the two ways to fall sets the versions further apart: that
// clients closed their sessions, as the kernel of a crashed program does, or that they
// vanished without a word.
func (s *scene) closing(m *outset) bool {
	least := [2]float64{1, 1}
	for way, closed := range [2]bool{false, true} {
		var all, early int64
		fell := map[string]int64{}
		for v, g := range s.groups {
			fell[v] = g.fell(m, closed)
			all, early = all+g.clients, early+fell[v]
		}
		for v, n := range fell {
			c := s.groups[v].clients
			least[way] = min(least[way], fisher(n, c-n, early-n, all-c-(early-n)))
		}
	}
	return least[1] < least[0]
}

// strata are the classes that nodes are sorted into by hash, so that versions
// can be compared among the clients of the same nodes.
const strata = 64

type vanishing struct {
	at      int64 // s since the epoch
	stratum uint8
	closed  bool // its kernel closed the session, as it does for who means to go
}

func stratumOf(k nodeKey) uint8 { return uint8(k.hash() % strata) }

func (g *group) vanish(at int64, stratum uint8, closed bool) {
	g.vanished[vanishing{at / second, stratum, closed}]++
}

// falls are the times from which the nodes of a stratum were down or overloaded;
// who vanishes later may have been lost by its node, and did not fall first.
type falls [strata]int64

// outset is when those fell who fell first: about the onset, and before their nodes.
type outset struct {
	begin           int64 // of what was seen
	from, onset, to int64
	fallen          falls
}

func (m *outset) has(v vanishing) bool {
	at := v.at * second
	return at+second > m.from && at <= m.to && at < m.fallen[v.stratum]
}

// fell counts who vanished at the outset: those whose sessions nobody closed, or those
// who closed them. The latter may have meant to go: of them count as many as there are
// beyond what is usual.
func (g *group) fell(m *outset, closed bool) (n int64) {
	if closed {
		return g.beyondUsual(m)
	}
	for v, c := range g.vanished {
		if !v.closed && m.has(v) {
			n += int64(c)
		}
	}
	return n
}

// beyondUsual counts who closed a session at the outset beyond what is usual and what
// chance makes of it, in the part of it that shows most. Usual is that a
// share of those who are there leaves in every moment, as before: of a version that
// spreads more leave because more are there. Who stays for a fixed time leaves though
// fewer are there by then: all count who were there lately.
func (g *group) beyondUsual(m *outset) int64 {
	const chance = 4 // standard deviations: many parts are looked at
	if m.from-m.begin < (m.to-m.from)/2 {
		return 0 // nobody knows what is usual
	}
	type step struct{ came, went, closed, early float64 }
	steps := map[int64]*step{}
	at := func(b int64) *step {
		if steps[b] == nil {
			steps[b] = &step{}
		}
		return steps[b]
	}
	for b, n := range g.arrived {
		if b*attachStep <= m.onset { // from then on they come again
			at(b).came += float64(n)
		}
	}
	for v, n := range g.vanished {
		s, c := at(v.at*second/attachStep), float64(n)
		s.went += c
		if v.closed {
			s.closed += c
			if m.has(v) {
				s.early += c
			}
		}
	}
	first, last := m.from/attachStep, m.to/attachStep
	lately := first - (last - first)
	at(lately)
	for b := first; b <= last; b++ {
		at(b)
	}
	type habit struct{ stayed, closed float64 }
	var ever, late habit
	var early, stayed []float64
	there, most, next := 0.0, 0.0, int64(math.MaxInt64)
	for _, b := range sortedKeys(steps) {
		s := steps[b]
		idle := there * float64(max(b-next, 0)) // in steps in which nobody came or went
		mean := max(there+(s.came-s.went)/2, 0)
		there, next = max(there+s.came-s.went, 0), b+1
		if b >= lately {
			most = max(most, mean)
		}
		switch {
		case b > last:
		case b >= first:
			early, stayed = append(early, s.early), append(stayed, most)
		case b > lately:
			late = habit{late.stayed + idle + mean, late.closed + s.closed}
			fallthrough
		default:
			ever = habit{ever.stayed + idle + mean, ever.closed + s.closed}
		}
	}
	if late.closed*ever.stayed > ever.closed*late.stayed {
		ever = late
	}
	beyond := 0.0
	for i := range early {
		n, usual := 0.0, 0.0
		for k := i; k < len(early); k++ {
			n, usual = n+early[k], usual+ever.closed*stayed[k]/max(ever.stayed, 1)
			beyond = max(beyond, n-usual-chance*math.Sqrt(usual+usual*usual/max(ever.closed, 1)))
		}
	}
	return int64(beyond)
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
// met one, or was at the same nodes and had not left: whose nodes were well shows nothing of its policy.
// A version whose members fell first has more to retry than those who were there; it is
// held to those who met a failure, too.
func (s *scene) carries(v *Version, onset int64, fellFirst bool, th *Thresholds) bool {
	g := s.groups[v.Version]
	asked := func(stratum uint8) bool { return int64(g.nexts.to[stratum])*20 > g.nexts.all }
	var failers, there, retries int64
	for name, o := range s.groups {
		if name == v.Version {
			continue
		}
		failers, retries = failers+o.failers, retries+o.counts.Retries
		for i, n := range o.attached {
			if asked(uint8(i)) {
				there += int64(n)
			}
		}
		for v, n := range o.vanished {
			if v.at*second < onset && asked(v.stratum) {
				there -= int64(n)
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
func (s *scene) stratified(version string, m *outset, closed bool) float64 {
	var table [strata]struct{ a, m, fell, all float64 } // of the version, and of all
	for v, g := range s.groups {
		for k, n := range g.attached {
			table[k].all += float64(n)
			if v == version {
				table[k].m += float64(n)
			}
		}
		for k, n := range g.vanished {
			if k.closed == closed && m.has(k) {
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

// oddsByChance is the probability of such an odds ratio or a higher one where there is none,
// from the lower bound of its 95 % interval.
func oddsByChance(or, low float64) float64 {
	return math.Erfc(1.96/math.Sqrt2*math.Log(or)/math.Log(or/low)) / 2
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
