package storm

import (
	"cmp"
	"math"
	"slices"

	"squall/dissect"
)

// firm is the first moment of a run that begins as many in a row as make a finding: what
// lies before may be the calm's own failures.
func (j *judge) firm(r run, storm bool) int64 {
	row := int64(0)
	for i := r.from; i <= r.to; i++ {
		switch m := &j.at[i]; {
		case !(storm && j.stormy(m) || !storm && j.failing(m)):
			row = 0
		case row > 0 && m.at != j.at[i-1].at+1:
			row = 1
		default:
			row++
		}
		if row == j.need() {
			return j.at[i].at - row + 1
		}
	}
	return j.at[r.from].at
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

// binFrom is the index of the first bin from a time on.
func (j *judge) binFrom(t int64) int {
	i, _ := slices.BinarySearchFunc(j.bins, t, func(b bin, t int64) int { return cmp.Compare(b.at, t) })
	return i
}

// onset is the maximum-likelihood split of the failures by second, before and
// up to the first windows that make it a finding, refined to the first failing attempt after it. What
// lies before the bin after is another trouble's.
func (j *judge) onset(f *Finding, r run, after int64) {
	first, firm := j.at[r.from].at, j.firm(r, f.Class == RetryStorm)
	from, to := max(first-j.window-j.d.length(60), after+1), firm+j.d.length(5)
	from = max(from, j.q.Begin/j.length)
	counts := j.failures(from, to)
	at := changePoint(counts)
	// Where failures were rare before, the few right before the jump belong to it.
	begin := max(after+1, j.q.Begin/j.length)
	f.rareBefore = j.failuresBefore(counts[:at]) < 0.05 ||
		from+int64(at)-begin > j.d.length(120) && j.calmRate(begin, from+int64(at)) < 0.02
	split := j.ascent(from+int64(at), begin)
	if f.rareBefore {
		split = j.trickle(split, begin)
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

// byChance is how many failures of the calm a stretch may be expected to hold at
// most, for one in it not to be thought one of them.
const byChance = 0.05

// trickle is the bin of the first of the failures that lead up to one at the bin
// split: each so close to the next that the calm since the bin begin would not have
// had it there.
func (j *judge) trickle(split, begin int64) int64 {
	calm := j.calmRate(begin, split)
	for i := j.binFrom(split) - 1; i >= 0; i-- {
		b := &j.bins[i]
		if b.at < begin {
			break
		}
		if b.failed() == 0 {
			continue
		}
		if gap := split - b.at; gap > j.d.length(5) && (gap*j.length > felt || float64(gap)*calm > byChance) {
			break
		}
		split = b.at
	}
	return split
}

// stray reports that a failure so many bins from another, and so many attempts and
// refreshes that were served, may as well be one of a calm in which that share fails.
func (j *judge) stray(gap, served int64, calm float64) bool {
	return (gap > j.d.length(5) || calm > byChance) && float64(served)*calm > byChance
}

// calmShare is the share of attempts and refreshes that failed between two bins, but
// for the last minute, which what begins at the second leads up to.
func (j *judge) calmShare(begin, end int64) float64 {
	if minute := j.d.length(60); end-begin > 2*minute {
		end -= minute
	}
	failed, served := int64(0), int64(0)
	for i := j.binFrom(begin); i < len(j.bins) && j.bins[i].at < end; i++ {
		failed += j.bins[i].failed()
		served += j.bins[i].served()
	}
	return ratio(failed, failed+served)
}

// longestDescent is how long an outage may thin out.
const longestDescent = 900 // s

// descent is the last bin of those in which ever fewer of the wishes failed after the
// bin end, before the bin next.
func (j *judge) descent(end, next int64) int64 {
	next = min(next, end+j.d.length(longestDescent))
	bins := j.bins[j.binFrom(end+1):max(j.binFrom(next), j.binFrom(end+1))]
	if k := j.bend(len(bins), func(i int) *bin { return &bins[len(bins)-1-i] }); k < len(bins) {
		return bins[len(bins)-1-k].at
	}
	return end
}

// ascent is the first bin of those in which ever more failed before the bin split, from
// the bin begin on.
func (j *judge) ascent(split, begin int64) int64 {
	begin = max(begin, split-j.d.length(longestDescent))
	from, to := j.binFrom(begin), j.binFrom(split)
	if k := j.rise(j.bins[from:to], j.share(split, split+j.window)); k < to-from {
		return j.bins[from+k].at
	}
	return split
}

// share of what was asked from one bin to another that failed.
func (j *judge) share(from, to int64) float64 {
	var failed, asked int64
	for i := j.binFrom(from); i < len(j.bins) && j.bins[i].at <= to; i++ {
		failed += j.bins[i].failed()
		asked += j.bins[i].asked()
	}
	return ratio(failed, asked)
}

// bend is the first of n bins from which on the share of the wishes, refreshes among
// them, that failed and locked their clients out rises. Of one share, and of one that
// grows with every wish from some bin on, the second has to be a thousand times as
// likely; else it is n.
func (j *judge) bend(n int, at func(int) *bin) int {
	const least = 3 // that failed
	hits, clock := make([]float64, n), make([]float64, n+1)
	all := 0.0
	for i := range n {
		b := at(i)
		hits[i] = float64(b.n[fHit])
		all += hits[i]
		clock[i+1] = clock[i] + math.Max(float64(b.n[fIntents]+b.n[fReturns]+b.n[fRefresh]), hits[i])
	}
	length := clock[n]
	if all < least {
		return n
	}
	best, foot := all*math.Log(all/length)+math.Log(1000), n
	low := 0.0
	for k := range n {
		left := length - clock[k]
		if k > 0 {
			low += hits[k-1]
		}
		if hits[k] == 0 || clock[k] < 10 || all-low < least {
			continue
		}
		level := (low + 0.5) / (clock[k] + 1)
		slope := 2 * (all - low - level*left) / (left * left)
		if slope <= 0 {
			continue
		}
		l := low*math.Log(level) + all - level*length - slope*left*left/2
		var third [3]float64
		for i := k; i < n && l > best-all; i++ {
			if hits[i] > 0 {
				middle := (clock[i]+clock[i+1])/2 - clock[k]
				l += hits[i] * math.Log(level+slope*middle)
				third[min(int(3*middle/left), 2)] += hits[i]
			}
		}
		// None of its thirds holds clearly less than the one before.
		if l > best && third[1]+math.Sqrt(third[0]) >= third[0] && third[2]+math.Sqrt(third[1]) >= third[1] {
			best, foot = l, k
		}
	}
	return foot
}

// calmRate is how many attempts failed in a bin between two, but for the last minute,
// which what begins at the second leads up to.
func (j *judge) calmRate(begin, end int64) float64 {
	if minute := j.d.length(60); end-begin > 2*minute {
		end -= minute
	}
	n := 0.5 // what none in that time leaves possible
	for i := j.binFrom(begin); i < len(j.bins) && j.bins[i].at < end; i++ {
		n += float64(j.bins[i].failed())
	}
	return n / float64(max(end-begin, 1))
}

// failures by bin, from one to another, both included.
func (j *judge) failures(from, to int64) (counts []int64) {
	i := j.binFrom(from)
	for t := from; t <= to; t++ {
		n := int64(0)
		if i < len(j.bins) && j.bins[i].at == t {
			n = j.bins[i].failed()
			i++
		}
		counts = append(counts, n)
	}
	return counts
}

// felt is how long the death of a node that few try may go before the failures
// that it causes are many, or before the next one dies.
const felt = 30 * second

// fell is the bin in which the first node fell that is down at the beginning of the
// bin split; split itself where none is. Nodes that fall one after another are one
// fall.
func (j *judge) fell(split int64) int64 {
	at := split * j.length
	first := at
	for again := true; again; {
		again = false
		ill := j.illness()
		for i := range ill {
			if p := &ill[i].Period; p.Kind != Overloaded && p.Start < first && p.Start >= first-felt && (p.End == 0 || p.End > at) {
				first, again = p.Start, true
			}
		}
	}
	return j.d.bin(first)
}

// illness is a period of a node.
type illness struct {
	Period
	of *pulse
}

func (j *judge) illness() []illness {
	if j.ill == nil {
		j.ill = []illness{}
		for _, p := range j.s.pulses {
			list, _ := p.periods(j.d, j.th, j.q)
			for _, x := range list {
				j.ill = append(j.ill, illness{x, p})
			}
		}
	}
	return j.ill
}

// failuresBefore is how many attempts fail in a bin before the climb to a jump,
// or, where hardly anything lies before it, in a bin of calm time.
func (j *judge) failuresBefore(counts []int64) float64 {
	n := len(counts) - int(j.d.length(15))
	if n < int(j.d.length(20)) {
		c := j.calmOf(j.q.Begin / j.length)
		return c.failure * (c.attempts + c.refresh) / float64(j.window)
	}
	var sum int64
	for _, c := range counts[:n] {
		sum += c
	}
	return float64(sum) / float64(n)
}

// rise is the first of the bins from which on ever more of what was asked fails, up to
// the share that fails after them: two shares have to explain them a thousand times as
// well as one does, and so again what lies before the bin in which the second begins.
func (j *judge) rise(bins []bin, share float64) int {
	failed, asked := make([]float64, len(bins)+1), make([]float64, len(bins)+1) // before each bin
	for i := range bins {
		failed[i+1], asked[i+1] = failed[i]+float64(bins[i].failed()), asked[i]+float64(bins[i].asked())
	}
	part := func(f, n float64) float64 {
		if f == 0 {
			return 0
		}
		return f * math.Log(f/n)
	}
	for foot := len(bins); ; {
		foot = reach(foot, failed, asked, share)
		best, k := math.Log(1000), foot
		whole := part(failed[foot], asked[foot])
		for i := range foot {
			f, m := failed[foot]-failed[i], asked[foot]-asked[i]
			if l := part(failed[i], asked[i]) + part(f, m) - whole; failed[i+1] > failed[i] && f*asked[i] >= 2*failed[i]*m && l > best {
				best, k = l, i
			}
		}
		if k = j.unbroken(bins, k, foot, failed, asked, share); k == foot {
			return foot
		}
		share = (failed[foot] - failed[k]) / (asked[foot] - asked[k])
		foot = k
	}
}

// reach is the first of the bins before one from which on as large a share fails as after
// it, and not that of those before.
func reach(foot int, failed, asked []float64, share float64) int {
	calm := (failed[foot] + 0.5) / (asked[foot] + 1)
	if share < 2*calm {
		return foot
	}
	sum, best := 0.0, 0.0
	for i := foot - 1; i >= 0 && sum > best-math.Log(1000); i-- {
		sum += (failed[i+1]-failed[i])*math.Log(share/calm) - (asked[i+1]-asked[i])*(share-calm)
		if sum > best {
			best, foot = sum, i
		}
	}
	return foot
}

// unbroken is the first bin from which on no rest breaks a trouble in two until the bin
// foot, after which a share fails: so long, and with so much served in it, that neither
// what fails before it nor what fails after it goes on through it; or, right before foot,
// longer than the trouble before it: that had died down.
func (j *judge) unbroken(bins []bin, from, foot int, failed, asked []float64, share float64) int {
	first := from
	for last, i := from, from+1; i <= foot; i++ {
		if i < foot && failed[i+1] == failed[i] {
			continue
		}
		if gap := bins[min(i, len(bins)-1)].at - bins[last].at; gap*j.length > felt {
			served := asked[i] - asked[last+1]
			stops := func(failed, asked float64) float64 { return failed * math.Log1p(served/asked) } // logarithm of how much likelier that is
			before, after := stops(failed[last+1]-failed[first], asked[last+1]-asked[first]), share*served
			if i < foot {
				after = stops(failed[foot]-failed[i], asked[foot]-asked[i])
			}
			died := i == foot && gap > bins[last].at-bins[first].at
			if died || min(before, after) > math.Log(1000) {
				first = i
			}
		}
		last = i
	}
	return first
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
	end = j.thinned(end, half, f, r)
	if j.q.End-end <= max(j.window*j.length, 10*second) && r.to >= len(j.at)-1-int(j.window) && !j.servedAfter(end) {
		return
	}
	if j.undecidedAfter(end) {
		return
	}
	f.End = end
	f.Recovered = j.servedAfter(end)
}

// thinned is the last of the failures that follow an end: of those that come ever
// more seldom, and where they were rare before, of those so close that the calm would
// not have had them there.
func (j *judge) thinned(end int64, half float64, f *Finding, r run) int64 {
	last, next := j.d.bin(end), j.q.End/j.length
	row := int64(0) // of stormy moments
	for i := range j.at {
		m := &j.at[i]
		if m.at <= max(last+j.window, j.at[r.to].at) || !j.stormy(m) {
			row = 0
		} else if row++; row == j.need() {
			next = m.at - row - j.window
			break
		}
	}
	foot := j.descent(last, next)
	for i := j.binFrom(last + 1); i < len(j.bins) && j.bins[i].at <= foot; i++ {
		if j.bins[i].failed() > 0 {
			last = j.bins[i].at
		}
	}
	if f.rareBefore {
		calm := j.calmShare(j.q.Begin/j.length, j.d.bin(f.Onset))
		if middle := last + (next-last)/2; next-middle >= j.d.length(30) {
			calm = max(calm, j.calmShare(middle, next))
		}
		rest := max(joinBreaks*second, j.window*j.length, int64(1.5*j.gap))
		served := int64(0)
		for i := j.binFrom(last + 1); i < len(j.bins) && (j.bins[i].at-last)*j.length <= rest; i++ {
			b := &j.bins[i]
			if served += b.served(); b.failed() > 0 && (!j.stray(b.at-last, served, calm) || half > 0 && j.dense(b.at, half)) {
				last, served = b.at, 0
			}
		}
	}
	if k := j.s.fails.get(last); k.is {
		return max(end, k.last)
	}
	return end
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
// share least of what was decided; a refresh that was served might have failed, too,
// but the calm's own failures are told without them. Where a storm has thinned out,
// few attempts tell little: then in eleven bins.
func (j *judge) dense(b int64, least float64) bool {
	count := func(around int64) (failed, retried, decided, refreshed int64) {
		for i := j.binFrom(b - around); i < len(j.bins) && j.bins[i].at <= b+around; i++ {
			k := &j.bins[i]
			n := k.failed()
			failed += n
			retried += int64(k.n[fRetries])
			decided += n + int64(k.n[fOutcome0+field(dissect.OutcomeAccepted)]+k.n[fReturns])
			refreshed += int64(k.n[fRefresh])
		}
		return failed, retried, decided, refreshed
	}
	failed, retried, decided, refreshed := count(1)
	if least > 0 && decided+refreshed < 20 {
		failed, retried, decided, refreshed = count(5)
	}
	if 2*retried >= failed {
		least = 0
	}
	return float64(failed) >= max(least, j.th.PartialFailure)*float64(decided+refreshed) &&
		float64(failed) >= j.calmFailures(b, decided+refreshed, decided)+j.th.PartialOverCalm*float64(decided)
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
