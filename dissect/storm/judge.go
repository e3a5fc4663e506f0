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

// asked is what was decided and the refreshes that were served.
func (m *moment) asked() int64 { return m.decided() + m.n[fRefresh] }

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
	failure                   float64 // share of what was asked, refreshes among it,
	ofDecided                 float64 // and of what was decided
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
	ill    []illness       // of all nodes, once they were asked for
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

// sureBlock of what was asked tell a failure ratio to some hundredths.
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
			return m.asked() >= 5 && ratio(m.failed(), m.asked()) >= 1.0/3 || n >= 20 && m.n[fUnreal]*2 > n
		}
		return m.decided() >= 5 && m.failure() >= 0.5 || n >= 10 && lowerBound(m.n[fRetries], n) >= 1.0/3 || n >= 20 && m.n[fUnreal]*2 > n
	}
	var attempts, wishes, refresh, intents []float64
	var failed, asked, quick, wait int64
	var blocks []float64 // failure ratios, each of enough that was asked to be sure of it
	calmMoments := int64(0)
	collect := func(limit float64) {
		attempts, wishes, refresh, intents, blocks = nil, nil, nil, nil, nil
		failed, asked, calmMoments, quick, wait = 0, 0, 0, 0, 0
		var blockFailed, blockAsked, next int64
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
			asked += m.asked()
			quick += m.n[fQuick]
			wait += m.n[fQuickWait]
			if m.at < next { // overlaps the one before
				continue
			}
			next = m.at + j.window
			blockFailed += m.failed()
			if blockAsked += m.asked(); blockAsked >= sureBlock {
				blocks = append(blocks, ratio(blockFailed, blockAsked))
				blockFailed, blockAsked = 0, 0
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
	if c.failure = ratio(failed, asked); len(blocks) >= 4 {
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

// usualFailure is the share of all that was asked that failed, calm or not.
func (j *judge) usualFailure() float64 {
	var failed, asked int64
	for i := range j.bins {
		failed += j.bins[i].failed()
		asked += j.bins[i].asked()
	}
	return ratio(failed, asked)
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
	fail := Criterion{Name: "failure", Unit: "ratio", Value: m.failure(), Threshold: max(th.Failure, j.calmFailure(m)+th.FailureOverCalm)}
	if j.base != nil && !j.base.b.Flows {
		fail.Note = against
	}
	fail.Met = fail.Value >= fail.Threshold
	broad := Criterion{Name: "breadth", Unit: "clients", Value: float64(m.retriers),
		Threshold: max(th.Breadth*float64(m.active), min(th.BreadthFloor, math.Ceil(float64(m.active)/2)), 2)} // one is a single offender
	broad.Met = broad.Value >= broad.Threshold
	if j.clientView() {
		broad.Waived, broad.Met, broad.Note = true, true, "fewer than three clients: one client's view"
	}
	answer := Criterion{Name: "answerable", Unit: "ratio", Value: ratio(m.n[fUnreal], n), Threshold: th.Unanswerable,
		Note: "attempts from sources without sign of a real stack, at most"}
	answer.Met = answer.Value <= answer.Threshold
	return [5]Criterion{volume, amp, fail, broad, answer}
}

// calmFailure is the failure ratio that a moment would have if what was asked in it
// failed as it does in the calm.
func (j *judge) calmFailure(m *moment) float64 {
	return j.calmFailures(m.at, m.asked(), m.decided()) / math.Max(float64(m.decided()), 1)
}

// calmFailures is how many of what was asked at a time fail in the calm. A refresh that
// fails becomes an attempt, and one that is served is none: of the attempts alone half
// seem to fail where a tap misses some answers, and of a storm, which has few refreshes,
// that says nothing.
func (j *judge) calmFailures(bin, asked, decided int64) float64 {
	c := j.calmOf(bin)
	if !c.known {
		return 0
	}
	return min(c.failure*float64(asked), 0.7*float64(decided))
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
	if m.decided() < 10 || m.failure() < max(j.th.PartialFailure, j.calmFailure(m)+j.th.PartialOverCalm) {
		return false
	}
	usual := j.calmOf(m.at).failure
	spread := math.Sqrt(float64(m.asked()) * usual * (1 - usual))
	return float64(m.failed()) >= j.calmFailures(m.at, m.asked(), m.decided())+3*spread // once in a thousand in the calm
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
		// own: what begins before a trouble ends is that trouble, and so is what begins
		// while those whom it locked out still are.
		for ; i+1 < len(runs) && (f.End == 0 || j.at[runs[i+1].from].at*j.length <= f.End || j.stillOut(r, runs[i+1])); i++ {
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

// longestRest of a client is between two tries of one wish.
const longestRest = 900 // s

// stillOut reports that hardly anybody was served between two runs and most of those
// who were locked out at the end of the first are when the next begins.
func (j *judge) stillOut(r, next run) bool {
	last, first := &j.at[r.to], &j.at[next.from]
	if first.at-last.at > j.d.length(longestRest) || last.locked == 0 || first.locked*2 < last.locked {
		return false
	}
	var served int64
	for i := j.binFrom(last.at + 1); i < len(j.bins) && j.bins[i].at < first.at; i++ {
		n := &j.bins[i].n
		served += int64(n[fOutcome0+field(dissect.OutcomeAccepted)] + n[fReturns])
	}
	return served*10 <= last.locked
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
	out = append(out, j.paths(found, free)...)
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
	if f.Class == RetryStorm && f.End != 0 && j.brief(&f) {
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

// brief reports a storm that could not set in. Windows that hold a burst of failures
// meet the criteria one after another, however short the burst was.
func (j *judge) brief(f *Finding) bool {
	length := float64(f.End-f.Onset) / 1e9
	return length < j.th.InARow || f.Recovered && f.alive()*2 >= f.Outcomes.Failed() && length < j.th.Brief
}

// noisy is the failure ratio of a calm in which stretches of failing are nothing new.
const noisy = 0.2

// served is how many attempts and refreshes that began in the bin were.
func (b *bin) served() int64 {
	return int64(b.n[fOutcome0+field(dissect.OutcomeAccepted)] + b.n[fReturns] + b.n[fRefresh])
}

// asked is how many attempts and refreshes of the bin were decided.
func (b *bin) asked() int64 { return b.failed() + b.served() }

// failed is how many attempts that began in the bin failed.
func (b *bin) failed() (n int64) {
	for o := dissect.OutcomeAccepted + 1; o < dissect.NumOutcomes; o++ {
		n += int64(b.n[fOutcome0+field(o)])
	}
	return n + int64(b.n[fImplied])
}
