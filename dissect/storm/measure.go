package storm

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"squall/dissect"
)

// measure fills what is counted inside a finding.
func (j *judge) measure(f *Finding) {
	end := f.End
	if end == 0 {
		end = j.q.End
	}
	var m moment
	for i := range j.bins {
		b := &j.bins[i]
		if b.at < j.d.bin(f.Onset) || b.at > j.d.bin(end) {
			continue
		}
		for k := range m.n {
			m.n[k] += int64(b.n[k])
		}
	}
	f.Attempts, f.Retries, f.Intents = m.n[fAttempts], m.n[fRetries], m.n[fIntents]
	f.Refreshes, f.Transmissions = m.n[fRefresh]+m.n[fReturns], m.n[fSends]
	f.Late, f.Answers = m.n[fLate], m.n[fAnswers]
	for o := range f.Outcomes {
		f.Outcomes[o] = m.n[int(fOutcome0)+o]
	}
	f.implied, f.asked, f.insisted = m.n[fImplied], m.n[fAsked], m.n[fInsist]
	f.saidNo = m.n[fSaidNo]
	f.shook, f.missed = m.n[fShook], m.n[fMissed]
	f.unreal, f.oneSided = m.n[fUnreal], m.n[fOneSided]
	f.reattached = m.n[fReattach] + m.n[fReturns]
	f.newcomers, f.returned = m.n[fNew], m.n[fReturns]
	f.answered, f.answerSends = m.n[fAnswered], m.n[fAnswerSends]
	f.wait = ratio(m.n[fQuickWait], m.n[fQuick])
	if j.base != nil {
		f.Baseline = j.base.words()
	}
	var normal int64
	scale := float64(j.window*j.length) / 1e9
	for i := range j.at {
		w := &j.at[i]
		f.Knee = max(f.Knee, float64(w.accepted())/scale)
		if w.at < j.d.bin(f.Onset) || w.at > j.d.bin(end) {
			continue
		}
		f.PeakRate = max(f.PeakRate, float64(w.n[fAttempts])/scale)
		if c := j.calmOf(w.at); c.known && c.wishes > 0 {
			f.Surge = max(f.Surge, float64(w.wishes())/c.wishes)
			if j.failing(w) && float64(w.wishes()) <= 1.5*c.wishes {
				normal++
			}
		}
	}
	f.Metastable = f.Class == RetryStorm && f.alive()*2 >= f.Outcomes.Failed() && float64(normal*j.length)/1e9 >= j.th.Metastable
	j.harm(f, end)
	j.goodput(f)
}

// goodput is what was accepted under each load. The knee is the load from which
// on it grew no more; where it kept up with every load there is none.
func (j *judge) goodput(f *Finding) {
	scale := float64(j.window*j.length) / 1e9
	by := map[int][]float64{}
	loads := map[int]float64{}
	const step = 1.25
	for i := range j.at {
		w := &j.at[i]
		n := float64(w.n[fAttempts]) / scale
		if n <= 0 {
			continue
		}
		k := int(math.Floor(math.Log(n) / math.Log(step)))
		by[k] = append(by[k], float64(w.accepted())/scale)
		loads[k] += n
	}
	best := 0.0
	for _, k := range sortedKeys(by) {
		v := by[k]
		if len(v) < 5 {
			continue
		}
		slices.Sort(v)
		p := LoadPoint{Load: loads[k] / float64(len(v)), Goodput: v[len(v)/2], Seconds: int64(len(v)) * j.length / second}
		f.Goodput = append(f.Goodput, p)
		best = max(best, p.Goodput)
	}
	if len(f.Goodput) == 0 || best == 0 {
		return
	}
	top := f.Goodput[len(f.Goodput)-1]
	if top.Goodput >= 0.8*top.Load {
		return
	}
	for _, p := range f.Goodput {
		if p.Goodput >= 0.9*best {
			f.KneeLoad, f.Sag = p.Load, top.Goodput/best
			return
		}
	}
}

// alive is how many failures show that the node was there: it connected,
// answered late, or said that it was busy.
func (f *Finding) alive() int64 {
	o := &f.Outcomes
	return o[dissect.OutcomeStalled] + o[dissect.OutcomeDropped] + o[dissect.OutcomeThrottled] + min(f.Late, o[dissect.OutcomeTimeout])
}

// harm is what the clients suffered.
func (j *judge) harm(f *Finding, end int64) {
	var hit []lockout
	for _, l := range j.s.spells {
		if l.from <= end && (l.to == 0 || l.to >= f.Onset) {
			hit = append(hit, l)
		}
	}
	slices.SortFunc(hit, func(a, b lockout) int { return cmp.Or(cmp.Compare(a.client, b.client), cmp.Compare(a.from, b.from)) })
	for i, l := range hit {
		if i == 0 || hit[i-1].client != l.client {
			f.Clients++
		}
		to := l.to
		if to == 0 {
			f.NeverIn++
			to = j.q.End
		}
		f.LockedOut += max(to-l.from, 0)
	}
	// Where only a share of the clients was kept, the share speaks for all.
	for k := j.d.keep.spells; k < ^uint64(0); k = k<<1 | 1 {
		f.Clients, f.NeverIn, f.LockedOut = f.Clients*2, f.NeverIn*2, f.LockedOut*2
	}
	var h hist
	for k, n := range j.s.attach {
		if mid := k.at*attachStep + attachStep/2; mid >= f.Onset && mid <= end {
			h.tally.add(int64(k.bucket), int64(n))
		}
	}
	f.AttachP50, f.AttachP95, f.AttachP99 = int64(h.quantile(0.5)), int64(h.quantile(0.95)), int64(h.quantile(0.99))
}

// doubt is why failures that look like an outage may be the capture's own; ""
// where they are not.
func (j *judge) doubt(f *Finding) string {
	cut := j.cut()
	if f.Class == RetryStorm && cut && f.saidNo*2 > f.Outcomes.Failed() {
		return "the snapshot length cut the nodes' refusals: whether they told the clients when to come again cannot be read"
	}
	if !j.calm.known && f.Class >= PartialOutage && j.s.overUDP() && f.Transmissions*10 < f.Attempts*11 && !j.hastened() && !j.d.heard() {
		return "no packet of any node was captured, and the clients ask at one pace all the time: whether anybody answered cannot be told"
	}
	if unknown := f.Outcomes[dissect.OutcomeUnknown]; unknown*10 > f.Attempts*9 && f.oneSided*2 <= f.Attempts {
		return fmt.Sprintf("the outcome of %s of %s is unknown", Thousands(unknown), many(f.Attempts, "attempt", "attempts"))
	}
	if f.Class != PartialOutage {
		return ""
	}
	if lost := ratio(f.missed, f.shook); f.missed >= 5 && lost >= 0.05 && min(f.failure(), ratio(f.Outcomes.Failed(), f.Attempts+f.Refreshes)) <= 2*lost {
		// Whom a refresh seems to fail opens a wish: of those alone half seem to fail.
		return fmt.Sprintf("the tap missed about %.0f %% of the packets, which makes so many attempts look failed that were served", 100*lost)
	}
	if share := j.evenly(f); share > 0 {
		return fmt.Sprintf("every node left some of what it was asked unanswered all the time, %.0f %% in all, and answered who asked again: so looks a tap, or a path, that loses packets", 100*share)
	}
	if cut && f.Transmissions > 4*f.Attempts {
		return fmt.Sprintf("the snapshot length cut the transaction ids off: repeats and retries cannot be told apart (%.1f transmissions an attempt)",
			ratio(f.Transmissions, f.Attempts))
	}
	return ""
}

// evenly is the share of requests over UDP that nobody answered, refreshes among them,
// where it is much the same, and low, at every node for half a minute and more and the
// next request was answered; 0 where it is not so. Whom a refresh fails opens a wish,
// so that of those alone half seem to fail.
func (j *judge) evenly(f *Finding) float64 {
	const few, long = 0.35, 30 * second
	end := f.End
	if end == 0 {
		end = j.q.End
	}
	silent := f.Outcomes[dissect.OutcomeTimeout]
	if end-f.Onset < long || f.Refreshes < f.Attempts || f.Attempts > 3*f.Intents || silent*10 < f.Outcomes.Failed()*9 ||
		!j.prompt(j.d.bin(f.Onset), f.wait) { // whom it answers it keeps waiting: it is slow
		return 0
	}
	for k, p := range j.s.pulses {
		if k.proto != dissect.ProtoUDP {
			return 0
		}
		var lost, all int64
		for _, b := range p.line.list() {
			if b.at >= j.d.bin(f.Onset) && b.at <= j.d.bin(end) {
				lost += int64(b.n[nSilent])
				all += int64(b.n[nSilent] + b.n[nAccepted])
			}
		}
		if all >= 10 && float64(lost) > few*float64(all) {
			return 0
		}
	}
	return ratio(silent, f.Attempts+f.Refreshes)
}

// hastened reports that the attempts at their most were twice what they usually are.
func (j *judge) hastened() bool {
	var n []float64
	for i := range j.at {
		n = append(n, float64(j.at[i].n[fAttempts]))
	}
	return len(n) > 0 && slices.Max(n) >= 2*level(n, 0, 0.5)
}

// heard reports that anybody answered anything, whatever it was.
func (d *scenes) heard() bool {
	for _, s := range d.by {
		for _, b := range s.line.list() {
			said := b.n[fAnswered] + b.n[fAnswers]
			for o := dissect.OutcomeAccepted; o < dissect.NumOutcomes; o++ {
				if o != dissect.OutcomeTimeout {
					said += b.n[fOutcome0+field(o)]
				}
			}
			if said > 0 {
				return true
			}
		}
	}
	return false
}

func (s *scene) overUDP() bool {
	for k := range s.pulses {
		if k.proto == dissect.ProtoUDP {
			return true
		}
	}
	return false
}

// confidence weighs what the capture itself cannot show.
func (j *judge) confidence(f *Finding, m *moment) {
	lower := func(to Confidence, why string) {
		f.Confidence = min(f.Confidence, to)
		f.Reasons = append(f.Reasons, why)
	}
	if !j.calmOf(m.at).known {
		lower(Medium, "no calm stretch before: volume is judged by its floor alone")
	}
	if j.clientView() {
		lower(Medium, "fewer than three clients: this is a client's view, not the service's")
	}
	if j.s.shared*2 > j.s.tried {
		lower(Medium, "most attempts are of addresses that seem to hold several clients each (NAT): those run together, and A is too high")
	}
	if f.oneSided*2 > f.Attempts {
		lower(Low, "only one direction was captured: outcomes are inferred from what the clients did next")
	}
	end := f.End
	if end == 0 {
		end = j.q.End
	}
	for _, g := range j.q.Gaps {
		if g.Start < end && g.End > f.Onset && g.End-g.Start >= max(30*second, j.window*j.length) {
			lower(Medium, "the capture has a hole inside")
			break
		}
	}
	var lossy int64
	for _, s := range j.q.Lossy {
		lossy += max(min(s.End, end)-max(s.Start, f.Onset), 0)
	}
	if lossy*10 > end-f.Onset {
		lower(Medium, fmt.Sprintf("for %s of it the tap missed a fifth and more of what was acknowledged", span(lossy)))
	}
	if j.q.Dropped*100 > j.q.Packets {
		lower(Medium, "the tap dropped packets")
	} else if f.missed*50 > f.shook && f.missed >= 5 {
		lower(Medium, fmt.Sprintf("the tap missed about %.0f %% of the packets: connections went on without their SYN-ACK", 100*ratio(f.missed, f.shook)))
	}
	if unknown := f.Outcomes[dissect.OutcomeUnknown]; unknown*2 > f.Attempts && f.oneSided*2 <= f.Attempts {
		lower(Low, "most outcomes are unknown")
	}
	for _, c := range f.Criteria {
		if f.Class == RetryStorm && !c.Waived && c.Name != "answerable" && c.Value < c.Threshold*1.1 {
			lower(Medium, "the "+c.Name+" criterion is met by less than a tenth")
		}
	}
}
