package storm

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"squall/dissect"
)

// assemble judges every service and fills the report with what was found.
func (d *scenes) assemble(r *Report, q *Quality, th Thresholds) {
	th = th.WithDefaults()
	periods := map[nodeKey][]Period{}
	fallen := map[nodeKey]fall{}
	for _, name := range sortedKeys(d.by) {
		s := d.by[name]
		var list []Finding
		if q.End >= q.Begin && !s.line.empty() {
			list = d.findings(name, q, &th)
		}
		list = slices.DeleteFunc(list, func(f Finding) bool { return f.Class == RefreshSurge && r.grown(&f, q, &th) })
		var worst, reconnect *Finding // whose clients fell, though no node did
		for i := range list {
			if f := &list[i]; f.Class >= PartialOutage && f.Class != SynFlood && (worst == nil || byGravity(*f, *worst) < 0) {
				worst = f
			} else if f.Class == MassReconnect && (reconnect == nil || byGravity(*f, *reconnect) < 0) {
				reconnect = f
			}
		}
		var c *cascade
		for i := range list {
			f := &list[i]
			if f != worst {
				f.Sentence = f.sentence(nil, q)
				continue
			}
			c = d.cascade(name, &th, f, q)
			f.Cascade = f.Class == RetryStorm && c.isCascade()
			f.Nodes, f.Excess, f.shut = c.nodes, c.excess, c.shut
			f.Sentence = f.sentence(c, q)
		}
		if c == nil {
			c = d.cascade(name, &th, nil, q)
			c.migrations(s, name, nil)
		}
		for k, p := range c.periods {
			periods[k] = p
		}
		c.others(list, q)
		for i, f := range c.falls {
			f.order = int32(i + 1)
			fallen[f.key] = f
		}
		for i := range list {
			r.population(&list[i], q)
			list[i].restarts(c, q)
			r.rates(&list[i])
		}
		r.Findings = append(r.Findings, list...)
		r.Migrations = append(r.Migrations, c.edges...)
		r.Versions = append(r.Versions, s.versions(name, cmp.Or(worst, reconnect), c.periods, q, &th)...)
		r.Policies = append(r.Policies, s.policies(d, name, &th)...)
	}
	if f, ok := d.scanFinding(&th); ok {
		f.Sentence = f.sentence(nil, q)
		r.Findings = append(r.Findings, f)
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		k := nodeKey{n.Service, n.At, n.Proto}
		n.Periods = periods[k]
		n.Restarts, n.RestartsFailed = restarts(n.Periods, 0, q.End)
		if f, ok := fallen[k]; ok {
			n.Generation, n.Excess, n.Order = f.gen, f.excess, f.order
		}
		if p := d.pulseOf(k); p != nil {
			n.AfterlifeAttempts, n.AfterlifeIn = d.afterlife(p, n.Periods)
		}
	}
	slices.SortFunc(r.Migrations, byMigration)
	slices.SortFunc(r.Versions, byVersion)
	slices.SortFunc(r.Policies, byPolicy)
	d.verdict(r, q)
	d.notes(r, q)
	r.Roles = roles(r, q)
	r.Hypotheses = hypotheses(r)
}

// RelapseWithin is how soon after its return a node that goes down again has
// failed to restart.
const RelapseWithin = 120 * second

// restarts counts the returns of a node between two times, and those after
// which it soon was down again.
func restarts(periods []Period, from, to int64) (all, failed int64) {
	for i, p := range periods {
		if p.Kind == Overloaded || p.End == 0 || p.End < from || p.End > to {
			continue
		}
		all++
		for _, next := range periods[i+1:] {
			if next.Kind != Overloaded {
				failed += count(next.Start-p.End <= RelapseWithin)
				break
			}
		}
	}
	return all, failed
}

func (f *Finding) restarts(c *cascade, q *Quality) {
	if f.Class < PartialOutage {
		return
	}
	end := f.End
	if end == 0 {
		end = q.End
	}
	for _, list := range c.periods {
		all, failed := restarts(list, f.Onset, end+WindowLength)
		f.Restarts, f.RestartsFailed = f.Restarts+all, f.RestartsFailed+failed
	}
}

// population is how many clients of the service held a session around a
// finding, and how fast they came back.
func (r *Report) population(f *Finding, q *Quality) {
	low, lowAt := int64(math.MaxInt64), int64(0)
	end := f.End
	if end == 0 {
		end = q.End
	}
	windows := r.windows(f.Service)
	for i := range windows {
		w := &windows[i]
		switch at := w.Start + WindowLength; {
		case at <= f.Onset:
			f.Attached = w.Attached
		case w.Start <= end && w.Attached < low:
			low, lowAt = w.Attached, at
		}
	}
	if lowAt == 0 {
		return
	}
	f.AttachedLow = low
	for i := range windows {
		w := &windows[i]
		at := w.Start + WindowLength
		if at <= lowAt || f.Attached <= low {
			continue
		}
		if f.AttachedBack50 == 0 && w.Attached*2 >= f.Attached {
			f.AttachedBack50 = at - lowAt
		}
		if f.AttachedBack90 == 0 && w.Attached*10 >= f.Attached*9 {
			f.AttachedBack90 = at - lowAt
		}
	}
}

// grown reports that a client refreshed about as often inside a finding as outside:
// there were more of them.
func (r *Report) grown(f *Finding, q *Quality, th *Thresholds) bool {
	end := cmp.Or(f.End, q.End)
	var inside, outside, insiders, outsiders float64
	for _, w := range r.windows(f.Service) {
		if w.Start+WindowLength > f.Onset && w.Start <= end {
			inside, insiders = inside+float64(w.Refreshes), insiders+float64(w.Attached)
		} else {
			outside, outsiders = outside+float64(w.Refreshes), outsiders+float64(w.Attached)
		}
	}
	return insiders > 0 && outside > 0 && inside/insiders < th.Surge/2*outside/outsiders
}

// rates are what a client sends with a session and without.
func (r *Report) rates(f *Finding) {
	if f.Class < PathLoss {
		return
	}
	var sent, held int64
	for _, w := range r.windows(f.Service) {
		if w.Start+WindowLength <= f.Onset {
			sent += w.Attempts + w.Refreshes
			held += w.Attached
		}
	}
	if held > 0 {
		f.RateAttached = float64(sent) / float64(held*(WindowLength/second))
	}
	if f.LockedOut > second {
		f.RateLocked = float64(f.Outcomes.Failed()+f.implied) / (float64(f.LockedOut) / 1e9)
	}
}

// windows are the timeline of a whole service.
func (r *Report) windows(service string) []Window {
	from, _ := slices.BinarySearchFunc(r.Timeline, service, func(w Window, s string) int { return strings.Compare(w.Service, s) })
	to := from
	for to < len(r.Timeline) && r.Timeline[to].Service == service && r.Timeline[to].Node == (dissect.Endpoint{}) {
		to++
	}
	return r.Timeline[from:to]
}

func (d *scenes) pulseOf(k nodeKey) *pulse {
	if s := d.by[k.service]; s != nil {
		return s.pulses[k]
	}
	return nil
}

// afterlife is what kept coming while the node was down.
func (d *scenes) afterlife(p *pulse, periods []Period) (attempts, bytes int64) {
	for _, b := range p.line.list() {
		for _, x := range periods {
			if x.Kind != Overloaded && b.at >= d.bin(x.Start) && (x.End == 0 || b.at < d.bin(x.End)) {
				attempts += int64(b.n[nTried])
				bytes += int64(b.n[nUnserved])
			}
		}
	}
	return attempts, bytes
}

// byGravity: class, cascade, harm, onset.
func byGravity(a, b Finding) int {
	return cmp.Or(cmp.Compare(b.Class, a.Class), cmp.Compare(count(b.Cascade), count(a.Cascade)), cmp.Compare(b.Clients, a.Clients),
		cmp.Compare(a.Onset, b.Onset), cmp.Compare(a.Service, b.Service))
}

// byHarm: clients hit, then gravity.
func byHarm(a, b Finding) int {
	return cmp.Or(cmp.Compare(b.harmed(), a.harmed()), byGravity(a, b))
}

// verdict is the finding that harmed most clients, gravity breaking ties.
func (d *scenes) verdict(r *Report, q *Quality) {
	slices.SortFunc(r.Findings, byHarm)
	if len(r.Findings) > 0 {
		r.Verdict = r.Findings[0]
		r.Summary = r.Verdict.Sentence
		return
	}
	v := Finding{Class: Calm, Onset: r.Begin, Confidence: High, Counts: r.Totals.Counts}
	for i := range r.Nodes {
		v.Nodes = append(v.Nodes, r.Nodes[i].At)
	}
	v.Nodes = v.Nodes[:min(len(v.Nodes), 10)]
	t := &r.Totals
	decided := t.Outcomes.Decided()
	seen := t.Attempts + t.Refreshes
	accepts := t.AppAccepts + t.ByteAccepts + t.AgeAccepts
	switch {
	case q.Packets > 0 && seen == 0 || seen == 0 && t.Clients == 0:
		v.Reasons = append(v.Reasons, "no attempt to attach was seen: the packets of the clients, or the beginnings of their sessions, are missing")
	case t.Attempts > 0 && decided*2 < t.Attempts:
		v.Reasons = append(v.Reasons, fmt.Sprintf("the outcome of %d of %d attempts is unknown", t.Attempts-decided, t.Attempts))
	case accepts > 0 && t.AgeAccepts == accepts && t.Outcomes.Failed() == 0:
		v.Reasons = append(v.Reasons, "no application ever answered: all acceptances rest on connections that stayed open")
	}
	if len(v.Reasons) > 0 {
		v.Class, v.Confidence = InsufficientEvidence, Low
		v.Sentence = v.sentence(nil, q)
		r.Findings = append(r.Findings, v)
	} else {
		begin := "Calm"
		if t.FailureRatio() >= 0.5 { // of too few to be an outage
			begin = "No storm, though most of what was tried failed"
		}
		v.Sentence = fmt.Sprintf("%s: %s of %s at %s, %.1f %% of the decided ones failed, %.2f attempts an intent.", begin,
			many(t.Attempts, "attempt", "attempts"), many(t.Clients, "client", "clients"), many(t.Nodes, "node", "nodes"), 100*t.FailureRatio(), t.Amplification())
	}
	r.Verdict, r.Summary = v, v.Sentence
}

// harmed is what the verdict is chosen by: clients that were really hurt.
func (f *Finding) harmed() int64 {
	switch f.Class {
	case Scan, SingleOffender:
		return 0
	}
	return f.Clients
}

// notes say what limits the analysis.
func (d *scenes) notes(r *Report, q *Quality) {
	note := func(yes bool, format string, args ...any) {
		if yes {
			r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
		}
	}
	for i, g := range q.Gaps {
		if i == 5 {
			note(true, "and %d further silences", len(q.Gaps)-i)
			break
		}
		note(true, "no packet from %s to %s (%s)", q.clock(g.Start), q.clock(g.End), span(g.End-g.Start))
	}
	for i, h := range q.Holes {
		if i == 5 {
			note(true, "and %d further holes between files: squall info", len(q.Holes)-i)
			break
		}
		note(true, "%s", h)
	}
	r.Notes = append(r.Notes, q.Remarks...)
	note(q.ClockSteps > 0, "the clock of the capture went back %d times", q.ClockSteps)
	note(q.StrayTimes > 0, "%d packets had a time far from those around them and were given that of the next", q.StrayTimes)
	note(q.Dropped > 0, "the tap dropped %d packets by its own counters", q.Dropped)
	note(q.Duplicates > 0, "%d duplicate packets were left out", q.Duplicates)
	note(q.Cut > 0, "%d packets were cut too short to be classified", q.Cut)
	note(q.Evicted > 0, "%d flows were given up early, too many lived at once: every attempt of %d of them had failed, and a late answer is not known; what was open of the other %d is unknown (--max-flows)",
		q.Evicted, q.Settled, q.Evicted-q.Settled)
	note(d.whole.unnamed > 0, "%d clients that name themselves are printed as hashes: of so many names one in %d is kept (--max-names)", d.whole.unnamed, q.ClientsOneIn)
	note(q.SaidOneIn > 1, "of versions, server names and fingerprints, which were too many, one in %d is kept and the others are left out (--max-names)", q.SaidOneIn)
	note(q.Damaged, "an input is damaged; the results cover what could be read")
	note(r.Totals.NATSuspects > 0, "%d addresses seem to hold several clients each (NAT): their attempts cannot be told apart", r.Totals.NATSuspects)
	note(d.shift > 0, "the capture is long: bins are %d s instead of 1 s", 1<<d.shift)
	note(d.whole.cfg.Left > 0, "%d nodes: those with most attempts have a row each, the %d others count in totals, services and findings, and are known by what each attempt says (--max-nodes)", r.Totals.Nodes, d.whole.cfg.Left)
	note(d.keep.pulses != ^uint64(0), "more than %d nodes: the lives of a sample were followed, of those with most attempts first", maxPulses)
	note(d.keep.spells != ^uint64(0), "more than %d lock-outs: clients hit are estimated from a sample", maxSpells)
	note(d.keep.edges != ^uint64(0), "more than %d pairs of nodes: migrations are a sample, of nodes with most attempts first", maxEdges)
	var oneSided, shook, missed int64
	for _, s := range d.by {
		for _, b := range s.line.list() {
			oneSided += int64(b.n[fOneSided])
			shook += int64(b.n[fShook])
			missed += int64(b.n[fMissed])
		}
	}
	note(missed >= 5 && missed*100 > shook, "the tap missed about %.0f %% of the packets: of %d connections that went on, the SYN-ACK of %d was not captured",
		100*ratio(missed, shook), shook, missed)
	note(oneSided*2 > r.Totals.Attempts, "only one direction was captured for %d of %d attempts", oneSided, r.Totals.Attempts)
}
