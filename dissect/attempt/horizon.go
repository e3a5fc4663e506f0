package attempt

import (
	"maps"
	"slices"

	"squall/dissect"
)

const (
	// slotLength is the unit in which a horizon forgets.
	slotLength = 10 * second
	// horizonNames is how many strings a horizon holds before it forgets those
	// that no attempt of it uses.
	horizonNames = 1 << 18
	// horizonFlows bounds the engine of a horizon to some 100 MB.
	horizonFlows = 1 << 17
)

// HorizonConfig of a Horizon.
type HorizonConfig struct {
	Config
	Length  int64 // ns of time that is kept
	Records int   // most attempts that are kept; when there are more, it is less time
}

// Horizon is the first pass over packets that do not end: it keeps the attempts
// of the last stretch of time, and what is under way, in bounded memory. It is
// for one goroutine; a Snapshot may be finished by another.
type Horizon struct {
	cfg    HorizonConfig
	names  *Names
	engine *Engine
	slots  map[int64]*slot // by start
	kept   int
	begin  int64
	shrunk bool
}

type slot struct {
	data []byte // packed records; what is there never changes
	n    int
}

// Interval is a stretch of time, ns, its end not included.
type Interval struct{ Start, End int64 }

// NewHorizon makes an empty one.
func NewHorizon(cfg HorizonConfig) *Horizon {
	if cfg.MaxFlows <= 0 {
		cfg.MaxFlows = horizonFlows
	}
	h := &Horizon{cfg: cfg, names: NewNames(0), slots: map[int64]*slot{}}
	h.engine = NewEngine(cfg.Config, h.names, h.add)
	return h
}

func (h *Horizon) add(r *Record) {
	if r.Start < h.begin {
		return
	}
	h.kept += h.put(h.slots, r)
}

func (h *Horizon) put(to map[int64]*slot, r *Record) int {
	s := to[r.Start/slotLength]
	if s == nil {
		s = &slot{}
		to[r.Start/slotLength] = s
	}
	s.data = appendRecord(s.data, r)
	s.n++
	return 1
}

// Datagram takes the next packet.
func (h *Horizon) Datagram(d *dissect.Datagram) { h.engine.Datagram(d) }

// Ledger is that of a file, see Engine.Ledger.
func (h *Horizon) Ledger(file uint32) dissect.Ledger { return h.engine.Ledger(file) }

// Len is how many attempts are kept, those under way left out.
func (h *Horizon) Len() int { return h.kept }

// Shrunk says that attempts were forgotten before their time, for lack of room.
func (h *Horizon) Shrunk() bool { return h.shrunk }

// Snapshot is everything that a horizon knows at a moment.
type Snapshot struct {
	names      *Names
	packed     [][]byte
	begin, end int64
	gaps       []Interval
}

// Snapshot forgets what is older than the horizon, but for the stretches in
// keep, and gives the rest. What is under way is in it as if the capture ended
// at now, except that what has had no answer for patience counts as timed out.
// Sessions that are older than the horizon are in it as refreshed at its
// beginning, so that their clients are known.
func (h *Horizon) Snapshot(now, patience int64, keep []Interval) *Snapshot {
	h.engine.advance(now)
	h.begin = max(h.begin, (now-h.cfg.Length)/slotLength*slotLength)
	kept := func(at int64) bool {
		return slices.ContainsFunc(keep, func(i Interval) bool { return at+slotLength > i.Start && at < i.End })
	}
	starts := slices.Sorted(maps.Keys(h.slots))
	for pinned := range 2 { // those that are to be kept go last
		for _, k := range starts {
			s := h.slots[k]
			if s == nil || pinned == 0 && kept(k*slotLength) {
				continue
			}
			old := k*slotLength < h.begin && pinned == 0
			if !old && h.kept <= h.cfg.Records {
				continue
			}
			if !old {
				h.begin, h.shrunk = max(h.begin, (k+1)*slotLength), true
			}
			h.kept -= s.n
			delete(h.slots, k)
		}
	}
	if h.engine.names.Len() > horizonNames {
		h.rename()
	}
	s := &Snapshot{names: h.names, end: now, begin: h.begin}
	last := int64(-1)
	for _, k := range slices.Sorted(maps.Keys(h.slots)) {
		if at := k * slotLength; at < h.begin {
			s.begin = min(s.begin, at)
			if last >= 0 && at > last {
				s.gaps = append(s.gaps, Interval{last, at})
			}
			last = at + slotLength
		}
		s.packed = append(s.packed, h.slots[k].data)
	}
	if last >= 0 && last < h.begin {
		s.gaps = append(s.gaps, Interval{last, h.begin})
	}
	var open []byte
	h.engine.peek(now, patience, func(r *Record) {
		if r.Start < s.begin && r.Flags&FlagOlder == 0 {
			if r.Outcome != dissect.OutcomeAccepted || r.SessionEnded != dissect.SessionAlive {
				return
			}
			r.Start, r.End, r.Flags = s.begin, s.begin, r.Flags|FlagRefresh
			r.AnsweredAt, r.RetryAfter, r.GaveUp = 0, 0, 0
		}
		open = appendRecord(open, r)
	})
	s.packed = append(s.packed, open)
	return s
}

// Begin and End are the time that it spans.
func (s *Snapshot) Begin() int64 { return s.begin }
func (s *Snapshot) End() int64   { return s.end }

// Gaps are the stretches inside it that were forgotten.
func (s *Snapshot) Gaps() []Interval { return s.gaps }

// Finalise is the second pass, in memory alone.
func (s *Snapshot) Finalise(hints dissect.Hints) (*Result, error) {
	store := NewStore(StoreConfig{Memory: 1 << 62})
	var r Record
	for _, b := range s.packed {
		for u := (unpacker{b: b}); len(u.b) > 0; {
			u.record(&r)
			store.Add(0, &r)
		}
	}
	return store.Finalise(s.names, hints, s.begin, s.end)
}

// rename forgets the strings that nothing uses any more. Snapshots keep theirs.
func (h *Horizon) rename() {
	fresh := NewNames(0)
	to := map[Name]Name{}
	again := func(r *Record) {
		for _, n := range r.names() {
			if *n == 0 {
				continue
			}
			v, ok := to[*n]
			if !ok {
				v = fresh.again(h.names, *n)
				to[*n] = v
			}
			*n = v
		}
	}
	slots := map[int64]*slot{}
	var r Record
	for _, s := range h.slots {
		for u := (unpacker{b: s.data}); len(u.b) > 0; {
			u.record(&r)
			again(&r)
			h.put(slots, &r)
		}
	}
	h.slots = slots
	h.engine.each(func(_ *flow, t *txn) { again(&t.rec) })
	h.engine.renamed(fresh)
	h.names = fresh
}
