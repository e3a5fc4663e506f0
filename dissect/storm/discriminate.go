package storm

import (
	"math"
	"slices"

	"squall/dissect"
)

// pathLoss: the nodes answer as fast as ever, but what is sent must be sent
// again; late answers would be overload.
func (j *judge) pathLoss(r run) bool {
	var m moment
	for i := range j.bins {
		if j.bins[i].at < j.at[r.from].at || j.bins[i].at > j.at[r.to].at {
			continue
		}
		for k := range m.n {
			m.n[k] += int64(j.bins[i].n[k])
		}
	}
	// A node that says no, or busy, has heard the client.
	spoken := m.n[fOutcome0+field(dissect.OutcomeThrottled)] + m.n[fOutcome0+field(dissect.OutcomeRefused)]
	return j.lossy(&m) && m.failure() < j.th.Failure && spoken*2 <= m.failed() && !j.fellSilent(j.at[r.from].at-j.window, j.at[r.to].at)
}

// fellSilent reports that most of what nobody answered between two bins was asked of
// nodes while they answered nobody: a path that loses leaves every node some answers
// all the time.
func (j *judge) fellSilent(from, to int64) bool {
	count := func(p *pulse, from, to int64) (n int64) {
		bins := p.line.list()
		for i := range bins {
			if bins[i].at >= from && bins[i].at <= to {
				n += int64(bins[i].n[nSilent])
			}
		}
		return n
	}
	var silent, all int64
	for _, p := range j.s.pulses {
		all += count(p, from, to)
	}
	ill := j.illness()
	for i := range ill {
		x := &ill[i]
		if x.Kind == Overloaded {
			continue
		}
		end := to
		if x.End != 0 {
			end = min(j.d.bin(x.End), to)
		}
		silent += count(x.of, max(j.d.bin(x.Start), from), end)
	}
	return silent*2 > all
}

// lossy: repeats were needed, and no more of them than a path that loses half of what
// it carries each way asks for: of a node that is slow hardly any answer comes first.
func (j *judge) lossy(m *moment) bool {
	return !j.cut() && m.n[fAnswered] >= 20 && m.n[fQuick]*4 >= m.n[fAnswered] && ratio(m.n[fAnswerSends], m.n[fAnswered]) >= j.th.PathRepeats &&
		ratio(m.n[fLate], m.n[fAnswers]) <= j.th.PathLate && j.prompt(m.at, ratio(m.n[fQuickWait], m.n[fQuick]))
}

// cut: the snapshot length cut what tells a repeat of a request over UDP from another
// request.
func (j *judge) cut() bool { return j.q.Truncated*2 > j.q.Packets && j.s.overUDP() }

// prompt: what was sent once is answered, after a wait in ms, as fast as in calm
// times. Where it is not, repeats are what the clients' timers do to a slow node.
func (j *judge) prompt(bin int64, wait float64) bool {
	const slack = 100 // ms
	return wait <= 2*j.calmOf(bin).wait+slack
}

type wrap func(func(*moment) bool) func(*moment) bool

// paths: stretches in which the network loses, though few attempts fail.
func (j *judge) paths(found []Finding, free wrap) (out []Finding) {
	yes := free(func(m *moment) bool { return j.lossy(m) && m.failure() < j.th.Failure })
	for _, r := range j.runs(yes, j.d.length(joinBreaks)) {
		if j.inARow(r, yes) < 3*j.need() || j.aftermath(found, r) {
			continue
		}
		f := j.plain(PathLoss, r)
		m := &j.at[(r.from+r.to)/2]
		f.Criteria = []Criterion{
			{Name: "repeats", Unit: "per attempt", Value: ratio(m.n[fAnswerSends], m.n[fAnswered]), Threshold: j.th.PathRepeats, Met: true,
				Note: "transmissions of an attempt that was answered"},
			{Name: "late", Unit: "ratio", Value: ratio(m.n[fLate], m.n[fAnswers]), Threshold: j.th.PathLate, Met: true, Note: "at most"},
		}
		out = append(out, f)
	}
	return out
}

// longestSend is how long an attempt over UDP repeats itself (SIP, RFC 3261, 64 T1).
const longestSend = 32 // s

// aftermath reports a run of repeats that an outage left: attempts that began before
// its nodes were back, and were answered then.
func (j *judge) aftermath(found []Finding, r run) bool {
	from, to := (j.at[r.from].at-j.window)*j.length, j.at[r.to].at*j.length
	return slices.ContainsFunc(found, func(f Finding) bool {
		return f.Class >= PartialOutage && f.End != 0 && from >= f.Onset && from <= f.End+longestSend*second && to <= f.End+3*longestSend*second
	})
}

// plain is a finding over a run whose onset is the run's own.
func (j *judge) plain(c Class, r run) Finding {
	f := Finding{Class: c, Service: j.name, Role: j.s.role, Confidence: High, Shape: "step"}
	first := j.at[r.from].at
	// The window that first met the criteria ends there; the change lies in it.
	var counts []int64
	from := max(first-2*j.window, j.q.Begin/j.length)
	i := 0
	for t := from; t <= first; t++ {
		for i < len(j.bins) && j.bins[i].at < t {
			i++
		}
		n := int64(0)
		if i < len(j.bins) && j.bins[i].at == t {
			n = int64(j.bins[i].n[fAttempts] + j.bins[i].n[fReturns] + j.bins[i].n[fRefresh])
		}
		counts = append(counts, n)
	}
	f.Onset = max((from+int64(changePoint(counts)))*j.length, j.q.Begin)
	if last := j.at[r.to].at; j.q.End-last*j.length > j.window*j.length {
		f.End = max((last-j.window+1)*j.length, f.Onset+j.length)
		f.Recovered = true
	}
	j.measure(&f)
	return f
}

// floods: most attempts come from sources that no real stack stands behind.
func (j *judge) floods(free wrap) (out []Finding) {
	yes := free(func(m *moment) bool {
		n := m.n[fAttempts]
		return float64(m.n[fUnreal]) >= j.th.FloodFloor && float64(m.n[fUnreal]) > j.th.Unanswerable*float64(n) &&
			(!j.calmOf(m.at).known || float64(n) >= j.th.FloodFactor*j.calmOf(m.at).attempts)
	})
	for _, r := range j.runs(yes, j.d.length(joinBreaks)) {
		if j.inARow(r, yes) < j.need() {
			continue
		}
		f := j.plain(SynFlood, r)
		c := j.criteria(&j.at[(r.from+r.to)/2])
		f.Criteria = c[:]
		out = append(out, f)
	}
	return out
}

// crowd is how many clients at least make a surge.
const crowd = 20

// surges: more clients want in than usual, and get in.
func (j *judge) surges(free wrap) (out []Finding) {
	given := j.base != nil && !j.base.b.Flows
	if !j.calm.known && !given {
		return nil
	}
	enough := func(n int64, calm float64) bool {
		return float64(n) >= max(j.th.Surge*calm, j.th.VolumeFloor)
	}
	early := j.q.Begin/j.length + j.d.length(30) + j.window // a surge needs a before,
	if given {
		early = math.MinInt64 // or a calm day
	}
	quiet := func(m *moment) bool {
		return m.failure() < j.calmFailure(m)+j.th.SurgeFailure && lowerBound(m.n[fRetries], m.n[fAttempts]) < 1.0/3 &&
			m.n[fUnreal]*2 <= m.n[fAttempts]
	}
	many := free(func(m *moment) bool {
		return quiet(m) && m.active >= crowd && enough(m.wishes(), j.calmOf(m.at).wishes)
	})
	for _, r := range j.runs(many, j.d.length(joinBreaks)) {
		if j.at[r.from].at <= early || j.inARow(r, many) < j.need() || !given && !j.rises(r) {
			continue
		}
		f := j.plain(FlashCrowd, r)
		// In the first windows the crowd shows who it is made of.
		head := &j.at[min(r.from+int(j.window), r.to)]
		back := ratio(head.n[fReattach]+head.n[fReturns], max(head.wishes(), 1))
		known := 1 - ratio(head.n[fNew], max(head.wishes(), 1))
		if back >= j.th.ReconnectShare || known >= 0.8 && head.n[fNew] < head.wishes()/4 {
			f.Class = MassReconnect
		}
		if f.Class == MassReconnect && float64(head.active) < j.th.Breadth*float64(j.clientsUntil(head.at)) {
			continue // a few of many: the demand has grown, nobody came all at once
		}
		if f.Class == MassReconnect && back < j.th.ReconnectShare && j.grown(out, head) {
			continue // the crowd that came before comes and goes as others do
		}
		if f.Class == MassReconnect && head.failure() >= j.th.Failure {
			continue // refreshes that were not answered: it is those that make the wishes
		}
		if share := ratio(head.n[fInsist], max(head.n[fAttempts], 1)); share >= j.th.InsistShare {
			f.Class = ApplicationFlood
			f.Criteria = []Criterion{
				{Name: "surge", Unit: "x", Value: f.Surge, Threshold: j.th.Surge, Met: true, Note: j.over("intents")},
				{Name: "insistence", Unit: "ratio", Value: share, Threshold: j.th.InsistShare, Met: true,
					Note: "attempts right after the same source was served and closed"},
			}
			out = append(out, f)
			continue
		}
		f.Criteria = []Criterion{
			{Name: "surge", Unit: "x", Value: f.Surge, Threshold: j.th.Surge, Met: true, Note: j.over("intents")},
			{Name: "failure", Unit: "ratio", Value: head.failure(), Threshold: j.calmFailure(head) + j.th.SurgeFailure, Met: true, Note: "at most"},
			{Name: "returning", Unit: "ratio", Value: back, Threshold: j.th.ReconnectShare, Met: f.Class == MassReconnect,
				Note: "intents of clients that had a session"},
		}
		out = append(out, f)
	}
	refresh := free(func(m *moment) bool {
		c := j.calmOf(m.at)
		return quiet(m) && c.refresh > 0 && enough(m.n[fRefresh], c.refresh)
	})
	for _, r := range j.runs(refresh, j.d.length(joinBreaks)) {
		if j.at[r.from].at <= early || j.inARow(r, refresh) < 3*j.need() {
			continue
		}
		f := j.plain(RefreshSurge, r)
		mid := &j.at[(r.from+r.to)/2]
		f.Criteria = []Criterion{{Name: "refreshes", Unit: "x", Value: float64(mid.n[fRefresh]) / j.calmOf(mid.at).refresh,
			Threshold: j.th.Surge, Met: true, Note: j.over("refreshes")}}
		out = append(out, f)
	}
	return out
}

// rises reports that a run has twice the wishes of the minute before it: where clients
// have left for good since, what was usual looks like a surge.
func (j *judge) rises(r run) bool {
	var before []float64
	var most int64
	first := j.at[r.from].at
	for i := r.from; i <= r.to; i++ {
		most = max(most, j.at[i].wishes())
	}
	for i := r.from - 1; i >= 0 && j.at[i].at > first-j.window-j.d.length(60); i-- {
		if m := &j.at[i]; m.at <= first-j.window {
			before = append(before, float64(m.wishes()))
		}
	}
	return float64(most) >= 2*level(before, max(j.d.length(60)-int64(len(before)), 0), 0.5)
}

// grown reports that a crowd came before a moment, and that its wishes are no surge for
// the clients that there have been since.
func (j *judge) grown(before []Finding, m *moment) bool {
	for i := range before {
		f := &before[i]
		if at := j.d.bin(f.Onset); f.Class == FlashCrowd && at < m.at {
			more := ratio(j.clientsUntil(m.at), max(j.clientsUntil(at-1), 1))
			return float64(m.wishes()) < j.th.Surge*more*j.calmOf(m.at).wishes
		}
	}
	return false
}

// clientsUntil is how many clients the service had seen by the end of a bin.
func (j *judge) clientsUntil(bin int64) (n int64) {
	for i := range j.bins {
		if j.bins[i].at <= bin {
			n += int64(j.bins[i].n[fNew])
		}
	}
	return n
}

// over says what a surge is a surge over.
func (j *judge) over(what string) string {
	if j.base == nil {
		return what + " over calm ones"
	}
	return what + " over calm ones, " + j.base.words()
}

// scanned: most failures of the service are of sources that scan.
func (j *judge) scanned() bool {
	var failed, all int64
	for _, o := range j.s.top {
		if j.d.scanning(o.id, j.th) {
			failed += o.failed
		}
	}
	for i := range j.bins {
		all += j.bins[i].failed()
	}
	if slices.ContainsFunc(j.d.scans, func(s scanner) bool { return s.scans(j.th) }) {
		failed = max(failed, j.s.scanned) // of many sources, each of them little
	}
	return failed*2 > all
}

func (d *scenes) scanning(client string, th *Thresholds) bool {
	return slices.ContainsFunc(d.scans, func(s scanner) bool { return s.id == client && s.scans(th) })
}

func (s *scanner) scans(th *Thresholds) bool {
	return float64(s.nodes) >= th.ScanNodes && float64(s.failed) >= th.ScanFailure*float64(s.attempts)
}

// oneClient: more than half of the failures of the service are of one client
// while others were served.
func (j *judge) oneClient(run) bool {
	_, ok := j.topOffender()
	return ok
}

func (j *judge) topOffender() (offender, bool) {
	top := slices.IndexFunc(j.s.top, func(o offender) bool { return !j.d.scanning(o.id, j.th) })
	if top < 0 {
		return offender{}, false
	}
	o := j.s.top[top]
	var failed, accepted int64
	for i := range j.bins {
		failed += j.bins[i].failed()
		if t := j.bins[i].at * j.length; t >= o.first-j.length && t <= o.last {
			accepted += int64(j.bins[i].n[fOutcome0+field(dissect.OutcomeAccepted)] + j.bins[i].n[fRefresh] + j.bins[i].n[fReturns])
		}
	}
	th := j.th
	ok := float64(o.counts.Retries) >= th.OffenderRetries && float64(o.failed) >= th.OffenderFailure*float64(o.counts.Attempts) &&
		float64(o.failed) >= th.OffenderShare*float64(failed) && accepted >= 5 && j.s.clients >= 6
	return o, ok
}

// offender: one client tries for ever where others are served.
func (j *judge) offender(found []Finding) []Finding {
	o, ok := j.topOffender()
	if !ok || slices.ContainsFunc(found, func(f Finding) bool { return f.Class >= PartialOutage && f.Class != SynFlood }) {
		return nil
	}
	f := Finding{Class: SingleOffender, Service: j.name, Role: j.s.role, Onset: o.first, Confidence: High,
		FirstFile: o.file, FirstFrame: o.frame, FirstAttempt: o.row, Shape: "step", Clients: 1, Offender: o.id}
	if j.q.End-o.last > 60*second {
		f.End = o.last
	}
	f.Counts = o.counts
	f.Criteria = []Criterion{
		{Name: "retries", Unit: "retries", Value: float64(o.counts.Retries), Threshold: j.th.OffenderRetries, Met: true},
		{Name: "failure", Unit: "ratio", Value: ratio(o.failed, o.counts.Attempts), Threshold: j.th.OffenderFailure, Met: true, Note: "of its attempts"},
	}
	return []Finding{f}
}

// scanned are the scans: sources with many destinations and no success.
func (d *scenes) scanFinding(th *Thresholds) (f Finding, ok bool) {
	var list []scanner
	for _, s := range d.scans {
		if s.scans(th) {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return f, false
	}
	f = Finding{Class: Scan, Service: "many", Confidence: High, Shape: "step", Onset: list[0].first}
	var nodes, inVain int64
	for _, s := range list {
		if s.first <= f.Onset {
			f.Onset, f.FirstFile, f.FirstFrame, f.FirstAttempt = s.first, s.file, s.frame, s.row
		}
		f.End = max(f.End, s.last)
		f.Attempts += s.attempts
		f.Intents += s.attempts
		f.Transmissions += s.sends
		for o, n := range s.outcomes {
			f.Outcomes[o] += n
		}
		inVain += s.failed
		nodes += s.nodes
	}
	f.Clients = int64(len(list))
	f.Criteria = []Criterion{
		{Name: "destinations", Unit: "nodes", Value: float64(nodes) / float64(len(list)), Threshold: th.ScanNodes, Met: true, Note: "of each source"},
		{Name: "failure", Unit: "ratio", Value: ratio(inVain, f.Attempts), Threshold: th.ScanFailure, Met: true, Note: "of their attempts that led to nothing"},
	}
	if len(list) == 1 {
		f.Offender = list[0].id
	}
	return f, true
}
