package storm

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"squall/dissect"
)

// moment is a window of a service that ends in bin at: sums over it.
type moment struct {
	at                       int64
	n                        [fLocked]int64
	active, retriers, locked int64
}

func (m *moment) failed() (n int64) {
	for o := dissect.OutcomeAccepted + 1; o < dissect.NumOutcomes; o++ {
		n += m.n[fOutcome0+field(o)]
	}
	return n + m.n[fImplied]
}

// accepted counts the clients that came back before their session had ended, too:
// had they failed, that would count.
func (m *moment) accepted() int64 {
	return m.n[fOutcome0+field(dissect.OutcomeAccepted)] + m.n[fReturns]
}

func (m *moment) decided() int64 { return m.failed() + m.accepted() }

func (m *moment) failure() float64 { return ratio(m.failed(), m.decided()) }

// wishes are intents and clients that are back before their session ended.
func (m *moment) wishes() int64 { return m.n[fIntents] + m.n[fReturns] }

// lowerBound is Wilson's 95 % lower bound of a ratio.
func lowerBound(k, n int64) float64 {
	if n == 0 {
		return 0
	}
	const z = 1.96
	p, m := float64(k)/float64(n), float64(n)
	return (p + z*z/(2*m) - z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))) / (1 + z*z/m)
}

// calm is what the service does outside of findings, by window.
type calm struct {
	known                     bool
	attempts, wishes, refresh float64
	intents                   float64
	failure                   float64
	wait                      float64 // ms, for an answer to what was sent once
}

// judge is the judging of one service, on merged counts.
type judge struct {
	d      *scenes
	s      *scene
	name   string
	q      *Quality
	th     *Thresholds
	rung   int   // of the ladder
	window int64 // bins
	length int64 // ns of a bin
	bins   []bin
	at     []moment
	calm   calm
	base   *levels         // of a calm day; nil = there is none
	mixed  map[*calm]*calm // its levels with what only the capture knows
	gap    float64         // median, from the start of an attempt to that of its retry, ns
	ill    []Period        // of all nodes, once they were asked for
}

// judge prepares the judging of a service with windows of a rung.
func (d *scenes) judge(name string, rung int, q *Quality, th *Thresholds) *judge {
	s := d.by[name]
	j := &judge{d: d, s: s, name: name, q: q, th: th, rung: rung, length: second << d.shift, bins: s.line.list()}
	j.window = d.length(ladder[j.rung])
	j.gap, _ = s.gap()
	j.slide()
	j.settle()
	j.base = d.whole.levelsOf(name, j.window*j.length)
	return j
}

// gap is the median time between the starts of attempts of an intent, of n.
func (s *scene) gap() (mid float64, n int64) {
	var gaps hist
	for _, g := range s.groups {
		gaps.merge(g.early)
		gaps.merge(g.later)
	}
	return gaps.quantile(0.5), gaps.total()
}

// rungFor is the window that a service's retry gaps ask for: three times their
// median.
func (s *scene) rungFor() (rung int) {
	mid, n := s.gap()
	if n < 10 {
		return 0
	}
	for rung < len(ladder)-1 && 3*mid > float64(ladder[rung]*second)*1.02 {
		rung++
	}
	return rung
}

// slide makes the moments: one for each bin in whose window something was
// tried.
func (j *judge) slide() {
	var m moment
	var active, retriers, locked int64
	enter, leave := 0, 0
	for t := int64(0); enter < len(j.bins) || leave < enter; t++ {
		if leave == enter { // nothing in the window: skip the silence
			if enter == len(j.bins) {
				break
			}
			t = j.bins[enter].at
		}
		for ; enter < len(j.bins) && j.bins[enter].at <= t; enter++ {
			b := &j.bins[enter].n
			for f := range m.n {
				m.n[f] += int64(b[f])
			}
			active += int64(b[int(fActive0)+j.rung])
			retriers += int64(b[int(fRetrier0)+j.rung])
			locked += int64(b[fLocked])
		}
		for ; leave < enter && j.bins[leave].at <= t-j.window; leave++ {
			for f := range m.n {
				m.n[f] -= int64(j.bins[leave].n[f])
			}
		}
		if m.n[fAttempts]+m.n[fRefresh]+m.n[fReturns] > 0 {
			m.at, m.active, m.retriers, m.locked = t, active, retriers, locked
			j.at = append(j.at, m)
		}
	}
}

// blind reports a moment in whose window the tap missed so much that it tells
// nothing of the calm; where that is most of the capture, there is nothing better.
func (j *judge) blind(m *moment) bool {
	from, to := (m.at-j.window+1)*j.length, (m.at+1)*j.length
	var all int64
	hit := false
	for _, s := range j.q.Lossy {
		all += s.End - s.Start
		hit = hit || s.Start < to && s.End > from
	}
	return hit && all*2 < j.q.End-j.q.Begin
}

// sureBlock attempts tell a failure ratio to some hundredths.
const sureBlock = 200

// settle finds the calm level: the median over the seconds that look like
// nothing is wrong, silent ones included.
func (j *judge) settle() {
	total := (j.q.End-j.q.Begin)/j.length + 1
	for _, g := range j.q.Gaps {
		total -= (g.End - g.Start) / j.length
	}
	lenient := false
	suspicious := func(m *moment) bool {
		n := m.n[fAttempts]
		if lenient {
			all := m.decided() + m.n[fRefresh]
			return all >= 5 && ratio(m.failed(), all) >= 1.0/3 || n >= 20 && m.n[fUnreal]*2 > n
		}
		return m.decided() >= 5 && m.failure() >= 0.5 || n >= 10 && lowerBound(m.n[fRetries], n) >= 1.0/3 || n >= 20 && m.n[fUnreal]*2 > n
	}
	var attempts, wishes, refresh, intents []float64
	var failed, decided, quick, wait int64
	var blocks []float64 // failure ratios, each of enough attempts to be sure of it
	calmMoments := int64(0)
	collect := func(limit float64) {
		attempts, wishes, refresh, intents, blocks = nil, nil, nil, nil, nil
		failed, decided, calmMoments, quick, wait = 0, 0, 0, 0, 0
		var blockFailed, blockDecided, next int64
		for i := range j.at {
			m := &j.at[i]
			if suspicious(m) || float64(m.wishes()) > limit || j.blind(m) {
				continue
			}
			calmMoments++
			attempts = append(attempts, float64(m.n[fAttempts]))
			wishes = append(wishes, float64(m.wishes()))
			refresh = append(refresh, float64(m.n[fRefresh]))
			intents = append(intents, float64(m.n[fIntents]))
			failed += m.failed()
			decided += m.decided()
			quick += m.n[fQuick]
			wait += m.n[fQuickWait]
			if m.at < next { // overlaps the one before
				continue
			}
			next = m.at + j.window
			blockFailed += m.failed()
			if blockDecided += m.decided(); blockDecided >= sureBlock {
				blocks = append(blocks, ratio(blockFailed, blockDecided))
				blockFailed, blockDecided = 0, 0
			}
		}
	}
	collect(math.Inf(1))
	silent := max(total-int64(len(j.at)), 0)
	if (calmMoments+silent)*j.length < 30*second {
		// Where a tap misses packets, each refresh whose answer is missing looks like a
		// loss, and the next one like a retry: then those that were answered count, too.
		lenient = true
		collect(math.Inf(1))
	}
	usual := j.usualFailure()
	low := level(wishes, silent, 0.25)
	if low > 0 {
		collect(2 * low * j.th.Surge / 2)
	}
	c := &j.calm
	c.attempts, c.wishes = level(attempts, silent, 0.5), level(wishes, silent, 0.5)
	refresh = slices.DeleteFunc(refresh, func(n float64) bool { return n == 0 }) // clients must attach first
	if usual := level(refresh, 0, 0.25); usual > 0 {
		refresh = slices.DeleteFunc(refresh, func(n float64) bool { return n > j.th.Surge*usual })
	}
	c.refresh = level(refresh, 0, 0.5)
	c.intents = level(intents, silent, 0.5)
	// An outage that leaves most attempts alone may last longer than the calm.
	if c.failure = ratio(failed, decided); len(blocks) >= 4 {
		slices.Sort(blocks)
		c.failure = min(c.failure, blocks[len(blocks)/4])
	}
	// Where it fails at all times, the worse half of it is calm, too.
	if c.failure >= noisy && usual-c.failure < j.th.PartialOverCalm {
		c.failure = max(c.failure, usual)
	}
	c.wait = ratio(wait, quick)
	c.known = calmMoments > 0 && (calmMoments+silent)*j.length >= 30*second
}

// usualFailure is the failure ratio of all that was decided, calm or not.
func (j *judge) usualFailure() float64 {
	var failed, decided int64
	for i := range j.bins {
		b := &j.bins[i]
		n := b.failed()
		failed += n
		decided += n + int64(b.n[fOutcome0+field(dissect.OutcomeAccepted)]+b.n[fReturns])
	}
	return ratio(failed, decided)
}

// level is a quantile of the values and that many zeros; where it is zero, the
// mean.
func level(v []float64, zeros int64, q float64) float64 {
	n := int64(len(v)) + zeros
	if n == 0 {
		return 0
	}
	slices.Sort(v)
	if k := int64(q*float64(n)) - zeros; k >= 0 && k < int64(len(v)) && v[k] > 0 {
		return v[k]
	}
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(n)
}

// client's view: the capture holds too few clients to speak of breadth.
func (j *judge) clientView() bool { return j.s.clients < 3 }

// criteria of a moment, in their fixed order.
func (j *judge) criteria(m *moment) [5]Criterion {
	n := m.n[fAttempts]
	th := j.th
	volume := Criterion{Name: "volume", Unit: "attempts", Value: float64(n), Threshold: th.VolumeFloor}
	calm := j.calmOf(m.at)
	if calm.known && calm.attempts > 0 {
		volume.Threshold = max(th.VolumeFloor, th.Volume*calm.attempts)
	} else {
		volume.Note = "no calm stretch to compare with: the floor alone"
	}
	against := ""
	if j.base != nil {
		against = j.base.words()
		volume.Note = against
	}
	volume.Met = volume.Value >= volume.Threshold
	amp := Criterion{Name: "amplification", Unit: "retry share", Value: lowerBound(m.n[fRetries]-m.n[fAsked], n), Threshold: th.RetryShare,
		Note: "lower 95 % bound, less those that the node had asked for"}
	amp.Met = amp.Value >= amp.Threshold
	fail := Criterion{Name: "failure", Unit: "ratio", Value: m.failure(), Threshold: max(th.Failure, j.calmFailure(m.at)+th.FailureOverCalm)}
	if j.base != nil && !j.base.b.Flows {
		fail.Note = against
	}
	fail.Met = fail.Value >= fail.Threshold
	broad := Criterion{Name: "breadth", Unit: "clients", Value: float64(m.retriers),
		Threshold: max(th.Breadth*float64(m.active), min(th.BreadthFloor, math.Ceil(float64(m.active)/2)))}
	broad.Met = broad.Value >= broad.Threshold
	if j.clientView() {
		broad.Waived, broad.Met, broad.Note = true, true, "fewer than three clients: one client's view"
	}
	answer := Criterion{Name: "answerable", Unit: "ratio", Value: ratio(m.n[fUnreal], n), Threshold: th.Unanswerable,
		Note: "attempts from sources without sign of a real stack, at most"}
	answer.Met = answer.Value <= answer.Threshold
	return [5]Criterion{volume, amp, fail, broad, answer}
}

func (j *judge) calmFailure(bin int64) float64 {
	c := j.calmOf(bin)
	if !c.known {
		return 0
	}
	return min(c.failure, 0.7)
}

func (j *judge) stormy(m *moment) bool {
	for _, c := range j.criteria(m) {
		if !c.Met {
			return false
		}
	}
	return true
}

func (j *judge) failing(m *moment) bool {
	return m.decided() >= 10 && m.failure() >= max(j.th.PartialFailure, j.calmFailure(m.at)+j.th.PartialOverCalm)
}

// run is a stretch of moments, inclusive indices.
type run struct{ from, to int }

// runs are the stretches whose moments satisfy yes, joined over short breaks
// and over holes of the capture.
func (j *judge) runs(yes func(*moment) bool, join int64) (out []run) {
	for i := range j.at {
		if !yes(&j.at[i]) {
			continue
		}
		if n := len(out); n > 0 {
			last := j.at[out[n-1].to].at
			if j.at[i].at-last <= join || j.hole(last, j.at[i].at, join) {
				out[n-1].to = i
				continue
			}
		}
		out = append(out, run{i, i})
	}
	return out
}

// hole reports that the time between two bins is, but for the join, a hole in
// the capture.
func (j *judge) hole(a, b, join int64) bool {
	for _, g := range j.q.Gaps {
		if g.Start/j.length <= b && g.End/j.length >= a && (b-a)-(g.End-g.Start)/j.length <= join+2*j.window {
			return true
		}
	}
	return false
}

// inARow is the longest number of consecutive bins in a run that satisfy yes.
func (j *judge) inARow(r run, yes func(*moment) bool) (best int64) {
	var n int64
	for i := r.from; i <= r.to; i++ {
		if !yes(&j.at[i]) || i > r.from && j.at[i].at != j.at[i-1].at+1 {
			n = 0
		}
		if yes(&j.at[i]) {
			n++
			best = max(best, n)
		}
	}
	return best
}

// warnShare of retries (A = 1.5) is a warning inside a partial outage.
const warnShare = 1.0 / 3

const joinBreaks int64 = 20 // s

// oneView takes back what one or two clients cannot show: that many retry.
func (f *Finding) oneView() {
	if f.Class != RetryStorm {
		return
	}
	f.Class, f.WarnedClasses = PartialOutage, append(f.WarnedClasses, RetryStorm)
	f.Reasons = append(f.Reasons, "its retries would be a storm if others did the same")
	f.Sentence = ""
}

func (j *judge) need() int64 { return j.d.length(int64(j.th.InARow)) }

// findings of a service. It is looked at through windows of 10 s and, where the
// clients wait longer than that between their attempts, through longer ones.
func (d *scenes) findings(name string, q *Quality, th *Thresholds) (out []Finding) {
	j := d.judge(name, 0, q, th)
	if rung := d.by[name].rungFor(); rung > 0 {
		long := d.judge(name, rung, q, th)
		if long.calm.known { // seconds in which a few of a slow storm fail look calm
			j.calm.failure = min(j.calm.failure, long.calm.failure)
		}
		out = j.troubles()
		for _, f := range long.troubles() {
			out = graver(out, f, q)
		}
	} else {
		out = j.troubles()
	}
	// One client tries too seldom for windows of seconds: look whether it got
	// anywhere at all.
	if j.clientView() && len(out) == 0 {
		for _, f := range d.judge(name, clientRung, q, th).troubles() {
			if f.Outcomes[dissect.OutcomeAccepted]*5 > f.Outcomes.Failed() {
				continue
			}
			out = graver(out, f, q)
		}
	}
	if j.clientView() {
		for i := range out {
			out[i].oneView()
		}
		if j.s.role == dissect.RolePeer { // most peers that one client asks are not there
			out = slices.DeleteFunc(out, func(f Finding) bool { return f.Class == PartialOutage })
		}
	}
	out = j.others(out)
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.Onset, b.Onset) })
	for i := range out {
		f := &out[i]
		for k := range out[:i] {
			e := &out[k]
			if f.Class >= PartialOutage && e.Class >= PartialOutage && e.End != 0 && f.Onset > e.End && f.Onset-e.End <= 600*second {
				f.Retrigger = true
			}
		}
	}
	return out
}

// clientRung is the window for the view of one client.
const clientRung = 3

// graver adds a finding, unless a graver one lies in the same time; lesser ones
// in its time go.
func graver(list []Finding, f Finding, q *Quality) []Finding {
	for i := range list {
		if list[i].overlaps(&f, q) && list[i].Class >= f.Class {
			return list
		}
	}
	list = slices.DeleteFunc(list, func(o Finding) bool { return o.overlaps(&f, q) })
	return append(list, f)
}

func (f *Finding) overlaps(o *Finding, q *Quality) bool {
	end := func(f *Finding) int64 {
		if f.End == 0 {
			return q.End
		}
		return f.End
	}
	return f.Onset <= end(o) && o.Onset <= end(f)
}

// troubles are the stretches of failures.
func (j *judge) troubles() (out []Finding) {
	before := int64(math.MinInt64) // the last bin of the trouble before
	runs := j.runs(func(m *moment) bool { return j.failing(m) || j.stormy(m) }, j.d.length(joinBreaks))
	for i := 0; i < len(runs); i++ {
		r := runs[i]
		f, ok := j.trouble(r, before)
		if !ok {
			continue
		}
		// Where clients rest longer than a window, their next round is a run of its
		// own: what begins before a trouble ends is that trouble.
		for ; i+1 < len(runs) && (f.End == 0 || j.at[runs[i+1].from].at*j.length <= f.End); i++ {
			whole := run{r.from, runs[i+1].to}
			longer, ok := j.trouble(whole, before)
			if !ok {
				break
			}
			r, f = whole, longer
		}
		out = append(out, f)
		before = j.at[r.to].at
	}
	return out
}

// others adds what is no outage of the service: floods, surges, losses on the
// path, single clients.
func (j *judge) others(out []Finding) []Finding {
	found := slices.Clone(out)
	free := func(yes func(*moment) bool) func(*moment) bool {
		return func(m *moment) bool {
			if !yes(m) {
				return false
			}
			at := m.at * j.length
			for i := range found {
				f := &found[i]
				if at >= f.Onset-j.window*j.length && (f.End == 0 || at <= f.End+j.window*j.length) {
					return false
				}
			}
			return true
		}
	}
	out = append(out, j.floods(free)...)
	out = append(out, j.surges(free)...)
	out = append(out, j.paths(free)...)
	return append(out, j.offender(out)...)
}

// trouble makes the finding of a stretch of failures that begins after a bin.
func (j *judge) trouble(r run, after int64) (f Finding, ok bool) {
	f = Finding{Service: j.name, Role: j.s.role, Confidence: High}
	storm := j.inARow(r, j.stormy) >= j.need()
	long := j.inARow(r, j.failing) >= j.need()
	if !storm && !long || j.scanned() {
		return f, false
	}
	if storm && j.calmFailure(j.at[r.from].at) >= noisy {
		r.from = j.firstStormy(r) // what fails at times before it is the calm's own
	}
	worst := j.worst(r, storm)
	f.Class = PartialOutage
	c := j.criteria(worst)
	f.Criteria = c[:]
	switch {
	case storm:
		f.Class = RetryStorm
	case worst.n[fUnreal]*2 > worst.n[fAttempts]:
		return f, false // a flood is looked for on its own
	case worst.n[fInsist]*2 > worst.n[fAttempts]:
		f.Class = ApplicationFlood
	case j.pathLoss(r):
		f.Class = PathLoss
	case j.oneClient(r):
		return f, false // a single offender is looked for on its own
	}
	j.onset(&f, r, after)
	j.end(&f, r)
	j.measure(&f)
	if f.Class == RetryStorm && f.End != 0 && f.Recovered && f.alive()*2 >= f.Outcomes.Failed() && float64(f.End-f.Onset) < j.th.Brief*1e9 {
		f.Class, f.brief = PartialOutage, true
	}
	if f.Class == PartialOutage && f.Outcomes.Failed()+f.implied < 10 {
		return f, false
	}
	j.shape(&f)
	j.confidence(&f, worst)
	if why := j.doubt(&f); why != "" {
		f.Class, f.Confidence, f.Reasons = InsufficientEvidence, Low, append([]string{why}, f.Reasons...)
		return f, true
	}
	if f.Class == PartialOutage && c[1].Value >= warnShare {
		f.WarnedClasses = append(f.WarnedClasses, RetryStorm)
		f.Reasons = append(f.Reasons, fmt.Sprintf("retries are %.0f %% of the attempts at the peak: near a storm", 100*ratio(worst.n[fRetries], worst.n[fAttempts])))
	}
	return f, true
}

// noisy is the failure ratio of a calm in which stretches of failing are nothing new.
const noisy = 0.2

// firstStormy is the first stormy moment of a run, where it lies so far in that the
// run does not lead up to it.
func (j *judge) firstStormy(r run) int {
	for i := r.from; i <= r.to; i++ {
		if j.stormy(&j.at[i]) {
			if j.at[i].at-j.at[r.from].at > j.window+j.d.length(60) {
				return i
			}
			break
		}
	}
	return r.from
}

// worst is the moment that represents a run: of those that meet the criteria the one
// with most attempts, where it is no storm with most failures.
func (j *judge) worst(r run, storm bool) *moment {
	best := -1
	for i := r.from; i <= r.to; i++ {
		m := &j.at[i]
		if storm && !j.stormy(m) || !storm && !j.failing(m) {
			continue
		}
		if best < 0 || !storm && m.failed() > j.at[best].failed() || storm && m.n[fAttempts] > j.at[best].n[fAttempts] {
			best = i
		}
	}
	return &j.at[max(best, r.from)]
}

// failedIn is how many attempts that began in the bin failed.
func (b *bin) failed() (n int64) {
	for o := dissect.OutcomeAccepted + 1; o < dissect.NumOutcomes; o++ {
		n += int64(b.n[fOutcome0+field(o)])
	}
	return n + int64(b.n[fImplied])
}

// onset is the maximum-likelihood split of the failures by second, before and
// in the run's first windows, refined to the first failing attempt after it. What
// lies before the bin after is another trouble's.
func (j *judge) onset(f *Finding, r run, after int64) {
	first := j.at[r.from].at
	from, to := max(first-j.window-j.d.length(60), after+1), first+j.d.length(5)
	low, _ := slices.BinarySearchFunc(j.bins, from, func(b bin, t int64) int { return cmp.Compare(b.at, t) })
	from = max(from, j.q.Begin/j.length)
	var counts []int64
	for t := from; t <= to; t++ {
		for low < len(j.bins) && j.bins[low].at < t {
			low++
		}
		n := int64(0)
		if low < len(j.bins) && j.bins[low].at == t {
			n = j.bins[low].failed()
		}
		counts = append(counts, n)
	}
	at := changePoint(counts)
	// Where failures were rare before, the few right before the jump belong to it.
	if f.rareBefore = j.failuresBefore(counts[:at]) < 0.05; f.rareBefore {
		for k := at - 1; k >= 0 && at-k <= int(j.d.length(5)); k-- {
			if counts[k] > 0 {
				at = k
			}
		}
	} else {
		at = foot(counts, at, int(j.d.length(15)))
	}
	split := from + int64(at)
	if f.rareBefore {
		split = min(split, max(j.fell(split), after+1))
	}
	for _, b := range j.s.fails.numbers() {
		if b >= split {
			k := j.s.fails.get(b)
			f.Onset, f.FirstFile, f.FirstFrame, f.FirstAttempt = k.first, k.file, k.frame, k.id
			return
		}
	}
	f.Onset = split * j.length
}

// felt is how long the death of a node that few try may go before the failures
// that it causes are many.
const felt = 30 * second

// fell is the bin in which the first node fell that is down at the beginning of the
// bin split; split itself where none is.
func (j *judge) fell(split int64) int64 {
	if j.ill == nil {
		j.ill = []Period{}
		for _, p := range j.s.pulses {
			list, _ := p.periods(j.d, j.th)
			j.ill = append(j.ill, list...)
		}
	}
	at := split * j.length
	first := at
	for i := range j.ill {
		if p := &j.ill[i]; p.Kind != Overloaded && p.Start < first && p.Start >= at-felt && (p.End == 0 || p.End > at) {
			first = p.Start
		}
	}
	return j.d.bin(first)
}

// failuresBefore is how many attempts fail in a bin before the climb to a jump,
// or, where hardly anything lies before it, in a bin of calm time.
func (j *judge) failuresBefore(counts []int64) float64 {
	n := len(counts) - int(j.d.length(15))
	if n < int(j.d.length(20)) {
		c := j.calmOf(j.q.Begin / j.length)
		return c.failure * c.attempts / float64(j.window)
	}
	var sum int64
	for _, c := range counts[:n] {
		sum += c
	}
	return float64(sum) / float64(n)
}

// foot is where the climb to the jump at an index begins, at most so many counts
// before it: those that die first fail for the first time before all fail again.
func foot(counts []int64, at, most int) int {
	sum := func(from, to int) (n int64) {
		for _, c := range counts[from:to] {
			n += c
		}
		return n
	}
	for low := at - most; ; {
		k := changePoint(counts[:at])
		n := sum(k, at)
		if k < max(low, 1) || k >= at || n < 10 || float64(n)*float64(k) < 2*float64(sum(0, k))*float64(at-k) {
			return at
		}
		at = k
	}
}

// changePoint is the index at which two Poisson rates explain the counts best.
func changePoint(counts []int64) int {
	var total int64
	for _, c := range counts {
		total += c
	}
	best, at := math.Inf(-1), 0
	var before int64
	part := func(k, n int64) float64 {
		if k == 0 || n == 0 {
			return 0
		}
		return float64(k) * math.Log(float64(k)/float64(n))
	}
	for i := range counts {
		after, n := total-before, int64(len(counts))
		l := part(before, int64(i)) + part(after, n-int64(i))
		rises := before*(n-int64(i)) <= after*int64(i)
		if rises && l > best+1e-9 {
			best, at = l, i
		}
		before += counts[i]
	}
	return at
}

// end is the last failure of the run, or 0 where the run reaches the end of
// the capture.
func (j *judge) end(f *Finding, r run) {
	last := j.at[r.to].at
	end := int64(0)
	keys := j.s.fails.numbers()
	i, _ := slices.BinarySearch(keys, last+1)
	// The last failures of a run may be strays of the calm that follows, or of a
	// tap that misses packets: go back to where failures still were a fifth of
	// what was decided, and in a storm half of what they had been in it.
	half := 0.0
	if f.Class == RetryStorm {
		half = j.plateau(r) / 2
	}
	for i--; i >= 0; i-- {
		k := j.s.fails.get(keys[i])
		if k.last < f.Onset {
			break
		}
		if j.dense(keys[i], half) {
			end = k.last
			break
		}
	}
	if end == 0 {
		end = f.Onset
	}
	// Where failures were rare before, those that follow closely belong to it.
	if !f.rareBefore {
		i = len(keys)
	}
	for i++; i < len(keys); i++ {
		k := j.s.fails.get(keys[i])
		if k.first-end > max(joinBreaks*second, j.window*j.length, int64(1.5*j.gap)) {
			break
		}
		if half == 0 || j.dense(keys[i], half) {
			end = max(end, k.last)
		}
	}
	if j.q.End-end <= max(j.window*j.length, 10*second) && r.to >= len(j.at)-1-int(j.window) && !j.servedAfter(end) {
		return
	}
	if j.undecidedAfter(end) {
		return
	}
	f.End = end
	f.Recovered = j.servedAfter(end)
}

// plateau is the median failure ratio of the stormy moments of a run.
func (j *judge) plateau(r run) float64 {
	var all []float64
	for i := r.from; i <= r.to; i++ {
		if j.stormy(&j.at[i]) {
			all = append(all, j.at[i].failure())
		}
	}
	return level(all, 0, 0.5)
}

// dense reports that failures are common in the three bins around b. Where hardly
// any of them is tried again, as of answers that a tap missed, they have to be the
// share least of what was decided; a refresh that was served might have failed, too.
// Where a storm has thinned out, few attempts tell little: then in eleven bins.
func (j *judge) dense(b int64, least float64) bool {
	count := func(around int64) (failed, retried, decided int64) {
		i, _ := slices.BinarySearchFunc(j.bins, b-around, func(b bin, t int64) int { return cmp.Compare(b.at, t) })
		for ; i < len(j.bins) && j.bins[i].at <= b+around; i++ {
			k := &j.bins[i]
			n := k.failed()
			failed += n
			retried += int64(k.n[fRetries])
			decided += n + int64(k.n[fOutcome0+field(dissect.OutcomeAccepted)]+k.n[fRefresh]+k.n[fReturns])
		}
		return failed, retried, decided
	}
	failed, retried, decided := count(1)
	if least > 0 && decided < 20 {
		failed, retried, decided = count(5)
	}
	if 2*retried >= failed {
		least = 0
	}
	return float64(failed) >= max(least, j.th.PartialFailure, j.calmFailure(b)+j.th.PartialOverCalm)*float64(decided)
}

// undecidedAfter reports that the capture ended before it was known what became
// of the attempts after a time.
func (j *judge) undecidedAfter(t int64) bool {
	if j.q.End-t > 40*second {
		return false
	}
	var unknown, all int64
	for i := range j.bins {
		if j.bins[i].at*j.length > t {
			unknown += int64(j.bins[i].n[fOutcome0])
			all += int64(j.bins[i].n[fAttempts])
		}
	}
	return float64(unknown) >= max(j.th.PartialFailure*float64(all), 1)
}

// servedAfter reports that in the minute after a time, or in what is left of the
// capture, the service took clients, and mostly.
func (j *judge) servedAfter(t int64) bool {
	var failed, accepted int64
	for i := range j.bins {
		if at := j.bins[i].at * j.length; at > t && at <= t+60*second {
			failed += j.bins[i].failed()
			accepted += int64(j.bins[i].n[fOutcome0+field(dissect.OutcomeAccepted)] + j.bins[i].n[fReturns] + j.bins[i].n[fRefresh])
		}
	}
	return accepted > failed
}

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
	f.newcomers = m.n[fNew]
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
		if at := k.at * attachStep; at+attachStep > f.Onset && at <= end {
			h.addTo(k.bucket, int64(n))
		}
	}
	f.AttachP50, f.AttachP95, f.AttachP99 = int64(h.quantile(0.5)), int64(h.quantile(0.95)), int64(h.quantile(0.99))
}

// shape is how the attempts rose: in a step, or gradually.
func (j *judge) shape(f *Finding) {
	end := f.End
	if end == 0 {
		end = j.q.End
	}
	first, last := j.d.bin(f.Onset), j.d.bin(end)
	width := max(min(j.window, (last-first)/4), 1)
	var sums []float64 // of width bins each, from the onset on
	for i := range j.bins {
		b := &j.bins[i]
		if b.at < first || b.at > last {
			continue
		}
		k := int((b.at - first) / width)
		for len(sums) <= k {
			sums = append(sums, 0)
		}
		sums[k] += float64(b.n[fAttempts])
	}
	if len(sums) < 2 {
		f.Shape = "step"
		return
	}
	peak := slices.Max(sums)
	calm := j.calmOf(first).attempts * float64(width) / float64(j.window)
	cross := func(q float64) int {
		for i, v := range sums {
			if v >= calm+q*(peak-calm) {
				return i
			}
		}
		return len(sums) - 1
	}
	low, high := cross(0.1), cross(0.9)
	rise := int64(high-low) * width * j.length
	// A plateau reached at once, with a later summit, is a step too.
	if sums[min(1, len(sums)-1)] >= calm+0.6*(peak-calm) {
		rise = min(rise, width*j.length)
	}
	f.Rise, f.Shape = rise, "step"
	if rise > max(30*second, 2*width*j.length) {
		f.Shape = "gradual"
		if slope, fit := growth(sums[low : high+1]); slope > 0 {
			f.Doubling, f.GrowthFit = int64(math.Ln2/slope*float64(width*j.length)), fit
		}
	}
}

// growth is the slope of the logarithm of the sums, by sum, and R² of the line.
func growth(sums []float64) (slope, fit float64) {
	var n, sx, sy, sxx, sxy, syy float64
	for i, v := range sums {
		if v <= 0 {
			continue
		}
		x, y := float64(i), math.Log(v)
		n++
		sx, sy, sxx, sxy, syy = sx+x, sy+y, sxx+x*x, sxy+x*y, syy+y*y
	}
	dx, dy, dxy := n*sxx-sx*sx, n*syy-sy*sy, n*sxy-sx*sy
	if n < 3 || dx <= 0 || dy <= 0 {
		return 0, 0
	}
	return dxy / dx, dxy * dxy / (dx * dy)
}

// doubt is why failures that look like an outage may be the capture's own; ""
// where they are not.
func (j *judge) doubt(f *Finding) string {
	cut := j.q.Truncated*2 > j.q.Packets && j.s.overUDP()
	if f.Class == RetryStorm && cut && f.saidNo*2 > f.Outcomes.Failed() {
		return "the snapshot length cut the nodes' refusals: whether they told the clients when to come again cannot be read"
	}
	if !j.calm.known && f.Class >= PartialOutage && j.s.overUDP() && f.Transmissions*10 < f.Attempts*11 && !j.hastened() && !j.d.heard() {
		return "no packet of any node was captured, and the clients ask at one pace all the time: whether anybody answered cannot be told"
	}
	if f.Class != PartialOutage {
		return ""
	}
	if lost := ratio(f.missed, f.shook); f.missed >= 5 && lost >= 0.05 && f.failure() <= 2*lost {
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
// where it is much the same, and low, at every node for a minute and more and the
// next request was answered; 0 where it is not so. Whom a refresh fails opens a wish,
// so that of those alone half seem to fail.
func (j *judge) evenly(f *Finding) float64 {
	const few, long = 0.35, 60 * second
	end := f.End
	if end == 0 {
		end = j.q.End
	}
	silent := f.Outcomes[dissect.OutcomeTimeout]
	if end-f.Onset < long || f.Refreshes < f.Attempts || f.Attempts > 3*f.Intents || silent*10 < f.Outcomes.Failed()*9 {
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
