package pipeline

import (
	"cmp"
	"context"
	"slices"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/headers"
	"squall/dissect/storm"
	"squall/dissect/taps"
)

const (
	second = int64(1e9)
	// confirmAfter is how long a finding must have gone on: a storm is ten bad
	// seconds in a row. Before, it is provisional.
	confirmAfter = 10 * second
	// patience is how long an attempt may be without answer before a look counts
	// it as failed.
	patience = 3 * second
	// settled is how long an end must lie back to be believed.
	settled = 10 * second
	// doubted is how long a finding may be missing before it is given up.
	doubted = 10 * second
	// before and after the onset of a finding that goes on, what happened is
	// kept, however long it lasts: it is what the finding is judged by.
	keepBefore, keepAfter = 300 * second, 60 * second
	// idleLooks is how long it is looked on while no packet comes; then the next
	// packet is waited for.
	idleLooks = 120 * second
	maxKept   = 4
	// clockStep is how much earlier than the packet before it a packet of the same input
	// must be for its clock to have been set back. Less is waited out.
	clockStep = 10 * second
	// compareEvery is how often the clocks of several taps are compared, and
	// compareAnew how much of the past that is about, at most.
	compareEvery, compareAnew = 30 * second, 600 * second
	// newcomer is how long surges are not believed.
	newcomer = 60 * second
)

// WatchConfig of a Watch; Workers, Shard, CountOnly and RecordMemory of Config
// mean nothing here.
type WatchConfig struct {
	Config
	Horizon int64 // ns of the past that is judged; 0 = 15 min
	Every   int64 // ns from one look to the next, in the time of the packets; 0 = 2 s
	Records int   // most attempts kept; 0 = 400,000, some 60 MB
	Storm   storm.Thresholds
	// Behind lets a look work while packets are read on; its results are told a
	// look later. With files it is off, and results do not depend on speed.
	Behind bool
	// Elapsed is a clock of the machine, ns from anywhere, by which time goes on
	// while no packets come; nil = only packets move it.
	Elapsed func() int64
	// Taps are the names of inputs that have clocks of their own, by their numbers;
	// under two names nothing is compared.
	Taps []string
	// Packet is shown every packet that is analysed, in order; may be nil.
	Packet func(*capture.Packet)
	// Look is called after each look, from one goroutine.
	Look func(*Look) error
}

// Sight is how sure it is that a finding is there.
type Sight uint8

const (
	Provisional Sight = iota // it has gone on for a few seconds only; may be withdrawn
	Confirmed
	Ended
	Withdrawn // it was nothing
	NumSights
)

var sightNames = [...]string{"provisional", "confirmed", "ended", "withdrawn"}

func (s Sight) String() string { return sightNames[s] }

// Sighting is a finding as it is seen while it happens.
type Sighting struct {
	ID      int // from 1, in order of recognition
	Sight   Sight
	Changed bool  // at this look: it is new, surer, graver or over
	At      int64 // when that was, in the time of the packets
	Finding storm.Finding

	missing int64 // since when it is no longer found, 0 = it is
}

// Look is what is known at a moment.
type Look struct {
	Time    int64 // of the packets, ns
	Packets int64
	Report  *storm.Report
	// Findings are all that go on, and those that ended at this look, in the
	// order of their recognition.
	Findings []Sighting
	// Last is the last whole window of storm.WindowLength over all services.
	Last      storm.Counts
	LastStart int64
	Surge     float64 // highest of any service in that window; 0 = no baseline
	Attached  int64   // clients believed to hold a session
	Shrunk    bool    // attempts were forgotten before their time, for lack of room
	Files     []capture.FileStats
	Ledger    dissect.Ledger
	// SetTo is the time to which the clock of the packets was set back after this
	// look, 0 = it was not. What went on is over, as far as the old clock can tell,
	// and everything is judged anew from there on.
	SetTo int64
	// Ahead are the taps whose clock disagrees with that of the first; what is found
	// at several of them has to be taken with that in mind.
	Ahead []taps.Ahead
}

// watch is a Watch under way.
type watch struct {
	cfg     WatchConfig
	src     capture.Source
	horizon *attempt.Horizon
	gaps    []storm.Span
	packets int64
	first   int64 // time of the first packet
	last    int64 // time of the newest packet
	next    int64 // look
	lastRun int64 // Elapsed at the newest packet
	seen    []*Sighting
	ids     int
	ready   chan *judged // of a look that works behind
	busy    bool
	newest  []int64          // time of the newest packet of each input
	past    []dissect.Ledger // of each input, before a clock was set back
	setTo   int64            // by the look in hand
	clocks  *taps.Live       // nil = there is one
	compare int64            // when they are compared
	anew    int64            // when that begins anew
	ahead   []taps.Ahead
}

type judged struct {
	now    int64
	report *storm.Report
	err    error
}

// Watch analyses packets as they come, until src ends, ctx is cancelled or Look
// fails. At each look the attempts of the horizon are judged anew, as if the
// capture ended there.
func Watch(ctx context.Context, cfg WatchConfig, src capture.Source) error {
	cfg.Horizon = cmp.Or(cfg.Horizon, 900*second)
	cfg.Every = cmp.Or(cfg.Every, 2*second)
	cfg.Records = cmp.Or(cfg.Records, 400_000)
	w := &watch{cfg: cfg, src: src, ready: make(chan *judged, 1)}
	if len(cfg.Taps) > 1 {
		w.clocks = taps.NewLive(cfg.Taps)
	}
	w.begin()
	err := w.run(ctx)
	if w.busy {
		if j := <-w.ready; err == nil {
			err = w.tell(j)
		}
	}
	if err == nil && w.packets > 0 { // what it was like at the end
		j := w.judge(w.snapshot(w.last), w.quality(w.last))
		err = w.tell(j)
	}
	return err
}

func (w *watch) begin() {
	w.horizon = attempt.NewHorizon(attempt.HorizonConfig{Config: attempt.Config{Protocols: w.cfg.Protocols, KeepDuplicates: w.cfg.KeepDuplicates},
		Length: w.cfg.Horizon, Records: w.cfg.Records})
}

// wasSetBack says whether the clock of a packet's input was, and takes note of its time.
func (w *watch) wasSetBack(p *capture.Packet) bool {
	for int(p.File) >= len(w.newest) {
		w.newest = append(w.newest, 0)
	}
	before := w.newest[p.File]
	back := before != 0 && p.Time < before-clockStep
	if back || p.Time > before {
		w.newest[p.File] = p.Time
	}
	return back && p.Time < w.last-clockStep
}

// restart judges what there is a last time and begins anew at a time that was before.
func (w *watch) restart(at int64) error {
	if w.busy {
		w.busy = false
		if err := w.tell(<-w.ready); err != nil {
			return err
		}
	}
	w.setTo = at
	if err := w.tell(w.judge(w.snapshot(w.last), w.quality(w.last))); err != nil {
		return err
	}
	for i := range w.src.Files() {
		for i >= len(w.past) {
			w.past = append(w.past, dissect.Ledger{})
		}
		ledger := w.horizon.Ledger(uint32(i))
		w.past[i].Add(&ledger)
	}
	w.begin()
	w.setTo, w.seen, w.gaps = 0, nil, nil
	w.first, w.last, w.next = at, at, 0
	return nil
}

func (w *watch) run(ctx context.Context) error {
	var dec headers.Decoder
	var d dissect.Datagram
	return capture.Each(ctx, w.src, func(b *capture.Batch) error {
		for i := range b.Packets {
			p := &b.Packets[i]
			if w.wasSetBack(p) {
				if err := w.restart(p.Time); err != nil {
					return err
				}
			}
			if err := w.until(p.Time); err != nil {
				return err
			}
			if w.packets == 0 {
				w.first = p.Time
				w.cfg.Window = w.cfg.Window.From(p.Time)
			}
			w.packets++
			if p.Time > w.last {
				if w.last > 0 && p.Time-w.last > silence {
					w.gaps = append(w.gaps, storm.Span{Start: w.last, End: p.Time})
				}
				w.last = p.Time
			}
			dec.Decode(p, &d)
			if w.cfg.Window.Outside(p.Time) || w.cfg.Filter != nil && !w.cfg.Filter(&d, p) {
				continue
			}
			if w.clocks != nil {
				w.clocks.Datagram(int(p.File), &d)
				w.compareClocks(p.Time)
			}
			w.horizon.Datagram(&d)
			if w.cfg.Packet != nil {
				w.cfg.Packet(p)
			}
		}
		if w.cfg.Elapsed == nil || w.packets == 0 {
			return nil
		}
		now := w.cfg.Elapsed()
		if len(b.Packets) > 0 || w.lastRun == 0 {
			w.lastRun = now
		} else if quiet := now - w.lastRun; quiet > second { // a moment behind: packets may be on their way
			return w.until(w.last + quiet - second)
		}
		return nil
	})
}

// compareClocks does so from time to time.
func (w *watch) compareClocks(now int64) {
	if w.anew == 0 || now < w.compare-2*compareEvery { // the first packet, or a clock that was set back
		w.compare, w.anew = now+compareEvery, now+compareAnew
	}
	if now < w.compare {
		return
	}
	w.compare = now + compareEvery
	w.ahead = w.clocks.Clocks().Ahead(w.cfg.Taps, now)
	if now >= w.anew {
		w.clocks.Reset()
		w.anew = now + compareAnew
	}
}

// until looks whenever it is time, up to t.
func (w *watch) until(t int64) error {
	if w.next == 0 || t < w.next-2*w.cfg.Every-60*second { // the first packet, or a clock that was set back
		w.next = (t/w.cfg.Every + 1) * w.cfg.Every
		return nil
	}
	for t >= w.next {
		now := w.next
		w.next += w.cfg.Every * w.pace()
		if now > w.last+idleLooks { // hours of silence are passed over
			w.next = (t/w.cfg.Every + 1) * w.cfg.Every
			continue
		}
		if err := w.look(now); err != nil {
			return err
		}
	}
	return nil
}

// pace makes looks rarer where each has much to judge.
func (w *watch) pace() int64 {
	switch n := w.horizon.Len(); {
	case n <= 25_000:
		return 1
	case n <= 100_000:
		return 2
	}
	return 3
}

func (w *watch) look(now int64) error {
	if w.busy {
		select {
		case j := <-w.ready:
			w.busy = false
			if err := w.tell(j); err != nil {
				return err
			}
		default:
			return nil // the look before is not done: this one is left out
		}
	}
	s, q := w.snapshot(now), w.quality(now)
	if !w.cfg.Behind {
		return w.tell(w.judge(s, q))
	}
	w.busy = true
	go func() { w.ready <- w.judge(s, q) }()
	return nil
}

func (w *watch) snapshot(now int64) *attempt.Snapshot {
	var keep []attempt.Interval
	for _, s := range w.seen {
		if s.Sight <= Confirmed && len(keep) < maxKept {
			keep = append(keep, attempt.Interval{Start: s.Finding.Onset - keepBefore, End: s.Finding.Onset + keepAfter})
		}
	}
	return w.horizon.Snapshot(now, patience, keep)
}

func (w *watch) quality(now int64) storm.Quality {
	w.gaps = slices.DeleteFunc(w.gaps, func(g storm.Span) bool { return g.End < now-2*w.cfg.Horizon })
	q := storm.Quality{End: now, Gaps: slices.Clone(w.gaps), Packets: w.packets}
	for _, f := range w.src.Files() {
		q.Dropped += max(f.Drops, 0)
		q.OutOfOrder += f.OutOfOrder
		q.ClockSteps += f.ClockSteps
		q.StrayTimes += f.StrayTimes
	}
	return q
}

// judge may run beside everything else.
func (w *watch) judge(s *attempt.Snapshot, q storm.Quality) *judged {
	j := &judged{now: s.End()}
	q.Begin = s.Begin()
	for _, g := range s.Gaps() {
		q.Gaps = append(q.Gaps, storm.Span(g))
	}
	slices.SortFunc(q.Gaps, func(a, b storm.Span) int { return cmp.Compare(a.Start, b.Start) })
	result, err := s.Finalise(w.cfg.Hints)
	if err != nil {
		j.err = err
		return j
	}
	defer result.Close()
	state := storm.NewState(storm.Config{Thresholds: w.cfg.Storm})
	// One worker: the partitions come one after the other, to one state.
	if j.err = result.Visit(1, func(int) dissect.Visitor { return state }); j.err == nil {
		j.report = state.Report(q)
	}
	return j
}

// tell follows the findings and calls Look.
func (w *watch) tell(j *judged) error {
	if j.err != nil {
		return j.err
	}
	w.follow(j)
	if w.setTo != 0 {
		w.close(j.now)
	}
	l := &Look{SetTo: w.setTo, Time: j.now, Packets: w.packets, Report: j.report, Shrunk: w.horizon.Shrunk(), Files: w.src.Files(), Ahead: w.ahead}
	for i := range l.Files {
		ledger := w.horizon.Ledger(uint32(i))
		l.Ledger.Add(&ledger)
		if i < len(w.past) {
			l.Ledger.Add(&w.past[i])
		}
	}
	l.LastStart = (j.now/storm.WindowLength - 1) * storm.WindowLength
	attached := map[string]int64{}
	for i := range j.report.Timeline {
		t := &j.report.Timeline[i]
		if t.Node != (dissect.Endpoint{}) {
			continue
		}
		attached[t.Service] = t.Attached // windows come in order
		if t.Start == l.LastStart {
			l.Last.Add(&t.Counts)
			l.Surge = max(l.Surge, t.Surge)
		}
	}
	for _, n := range attached {
		l.Attached += n
	}
	for _, s := range w.seen {
		if s.Sight <= Confirmed || s.Changed {
			l.Findings = append(l.Findings, *s)
		}
	}
	if w.cfg.Look == nil {
		return nil
	}
	return w.cfg.Look(l)
}

// follow finds the findings of a look among those that were seen before.
func (w *watch) follow(j *judged) {
	for _, s := range w.seen {
		s.Changed = false
	}
	w.seen = slices.DeleteFunc(w.seen, func(s *Sighting) bool { return s.Sight > Confirmed && s.At < j.now-w.cfg.Horizon })
	found := map[*Sighting]bool{}
	change := func(s *Sighting, sight Sight) {
		if s.Sight != sight || s.ID == 0 {
			s.Sight, s.Changed, s.At = sight, true, j.now
		}
	}
	see := func(f *storm.Finding) {
		sight := Provisional
		if j.now-f.Onset >= confirmAfter {
			sight = Confirmed
		}
		if f.Class <= storm.InsufficientEvidence {
			return
		}
		// Everybody is new to who has just begun to watch.
		switch f.Class {
		case storm.FlashCrowd, storm.MassReconnect, storm.RefreshSurge:
			if f.Onset < w.first+newcomer {
				return
			}
		}
		over := f.End != 0 && j.now-f.End >= settled
		s := w.match(f, j.now)
		if s == nil {
			s = &Sighting{Finding: *f}
			change(s, sight)
			w.ids++
			s.ID = w.ids
			w.seen = append(w.seen, s)
		}
		if found[s] && f.Class <= s.Finding.Class {
			return // the graver of two has spoken
		}
		found[s] = true
		s.missing = 0
		if f.Class > s.Finding.Class && s.Sight <= Confirmed {
			s.Changed, s.At = true, j.now
		}
		onset := s.Finding.Onset
		s.Finding = *f
		if s.Sight == Confirmed || s.Sight == Ended { // the onset of a thing that goes on for long may leave the horizon
			s.Finding.Onset = min(onset, f.Onset)
		}
		switch {
		case over:
			change(s, Ended)
		case sight == Confirmed:
			change(s, Confirmed)
		case s.Sight >= Ended:
			change(s, Provisional)
		}
	}
	for i := range j.report.Findings {
		see(&j.report.Findings[i])
	}
	for _, s := range w.seen {
		if found[s] || s.Sight > Confirmed {
			continue
		}
		if s.missing == 0 {
			s.missing = j.now
		}
		if j.now-s.missing < doubted {
			continue
		}
		if s.Sight == Confirmed {
			s.Finding.End = cmp.Or(s.Finding.End, s.missing)
			change(s, Ended)
		} else {
			change(s, Withdrawn)
		}
	}
}

// close ends what goes on.
func (w *watch) close(now int64) {
	for _, s := range w.seen {
		if s.Sight > Confirmed {
			continue
		}
		sight := Withdrawn
		if s.Sight == Confirmed {
			sight, s.Finding.End = Ended, cmp.Or(s.Finding.End, now)
		}
		s.Sight, s.Changed, s.At = sight, true, now
	}
}

func together(a, b *storm.Finding, now int64) bool {
	return a.Service == b.Service && a.Onset <= cmp.Or(b.End, now)+30*second && b.Onset <= cmp.Or(a.End, now)+30*second
}

// match is the newest sighting that a finding can be.
func (w *watch) match(f *storm.Finding, now int64) *Sighting {
	for i := len(w.seen) - 1; i >= 0; i-- {
		if together(&w.seen[i].Finding, f, now) {
			return w.seen[i]
		}
	}
	return nil
}
