package storm

import "squall/dissect"

// field is a counter of a bin.
type field uint8

// Counters of a service. Those from fLocked on are differences: their running
// sum over the bins is a number of clients.
const (
	fAttempts field = iota
	fIntents
	fRetries
	fAsked // retries after the wait that the node had announced
	fLate
	fAnswers
	fSends       // transmissions of all attempts
	fAnswered    // attempts that the node's transport answered
	fAnswerSends // and their transmissions
	fQuick       // attempts answered though sent once,
	fQuickWait   // and how long that took, ms
	fUnreal      // attempts without sign of a real stack
	fNew         // first attempt of a client at the service
	fReattach
	fReturns // refreshes from another source: a client that is back
	fRefresh // other refreshes
	fImplied // undecided attempts that the client itself took for failures
	fOneSided
	fSaidNo   // a no or busy of the application, without a wait
	fInsist   // attempts that follow the client's own acceptance at once
	fShook    // connections that went on after their handshake,
	fMissed   // and of which the tap missed the SYN-ACK
	fHit      // failures that began a lock-out
	fOutcome0 // attempts by outcome
	fLocked   = fOutcome0 + field(dissect.NumOutcomes)
	fActive0  = fLocked + 1 // clients with an attempt in the window that ends here, by rung
	fRetrier0 = fActive0 + field(len(ladder))
	numFields = int(fRetrier0) + len(ladder)
)

// Counters of a node.
const (
	nTried    field = iota
	nAccepted       // by the time of the answer
	nAlive          // other answers of its program: late, busy, no
	nRefused        // by the time of the answer
	nSilent         // attempts that nothing answered, by their start
	nStalled        // connected in vain
	nClosed         // sessions that it ended
	nFirstBad       // clients whose first bad sign of a spell this was
	nDropped
	nUnserved     // IP bytes of attempts and refreshes that came to nothing, by their start, and of sessions, by their end
	nHeard        // sessions it served to the end, by its last word in them
	numNodeFields = int(nHeard) + 1
)

// ladder holds the window lengths that breadth is counted for, s. A window
// longer than the first is used where the learned retry gap is long.
var ladder = [...]int64{10, 30, 90, 300, 900}

const (
	binsBySheet = 16
	// fewOps is how many single counts stand in a list before sheets are made:
	// a port scan makes a service of every port.
	fewOps = 48
	// maxSheets bounds all sheets together to some 130 MB; over it the bins of
	// everything get twice as long, which gives the same result in any order.
	maxSheets = 1 << 16
)

// sheet has the counters of binsBySheet bins, bin by bin.
type sheet []int32

type op struct {
	bin int64
	f   field
	v   int32
}

// cells are the counters of one service or node by bin, kept only where
// something happened. fields is how many there are; it is set before the first
// is counted.
type cells struct {
	fields int
	few    []op
	sheets table[sheet] // nil until there is one
	at     int64
	hand   sheet
}

// add counts v and returns how many sheets it had to make.
func (c *cells) add(bin int64, f field, v int32) (made int) {
	if c.hand == nil || c.at != bin>>4 {
		if made = c.turn(bin, f, v); c.hand == nil {
			return made
		}
	}
	c.hand[int(bin&(binsBySheet-1))*c.fields+int(f)] += v
	return made
}

// row is where the counters of one bin are added to, and how many sheets that made.
type row struct {
	of   *cells
	bin  int64
	n    []int32 // nil while there are no sheets
	made int
}

// row gives the one of a bin, good until the bins get longer.
func (c *cells) row(bin int64) row {
	r := row{of: c, bin: bin}
	if c.sheets.len() > 0 {
		r.take()
	}
	return r
}

func (r *row) take() {
	c := r.of
	if c.hand == nil || c.at != r.bin>>4 {
		c.at = r.bin >> 4
		c.hand, r.made = c.sheet(c.at, r.made)
	}
	r.n = c.hand[int(r.bin&(binsBySheet-1))*c.fields:][:c.fields]
}

func (r *row) add(f field, v int32) {
	if r.n == nil {
		r.few(f, v)
		return
	}
	r.n[f] += v
}

func (r *row) few(f field, v int32) {
	if r.made += r.of.add(r.bin, f, v); r.of.sheets.len() > 0 {
		r.take()
	}
}

// turn takes the sheet of a bin in hand; where there are no sheets yet, it
// counts v by itself.
func (c *cells) turn(bin int64, f field, v int32) (made int) {
	if c.sheets.len() == 0 {
		if len(c.few) < fewOps {
			c.few = append(c.few, op{bin, f, v})
			return 0
		}
		made = c.spread()
	}
	c.at = bin >> 4
	c.hand, made = c.sheet(c.at, made)
	return made
}

// sheet gives a sheet and adds to made if it had to make it.
func (c *cells) sheet(n int64, made int) (sheet, int) {
	s, fresh := c.sheets.at(n)
	if fresh {
		*s = make(sheet, binsBySheet*c.fields)
		made++
	}
	return *s, made
}

// touch takes the sheet of a bin in hand, if there is one, and has its memory fetched.
func (c *cells) touch(bin int64) uint64 {
	if n := bin >> 4; c.hand == nil || c.at != n {
		if c.sheets.in == nil {
			return 0
		}
		e := c.sheets.in.entry(n)
		if e.tag == 0 {
			return 0
		}
		c.at, c.hand = n, e.value
	}
	return uint64(c.hand[int(bin&(binsBySheet-1))*c.fields])
}

// spread makes sheets of the single counts.
func (c *cells) spread() (made int) {
	few := c.few
	c.few = nil
	var s sheet
	for _, o := range few {
		s, made = c.sheet(o.bin>>4, made)
		s[int(o.bin&(binsBySheet-1))*c.fields+int(o.f)] += o.v
	}
	return made
}

// merge adds the counts of o, which has bins of the same length and may lose
// sheets to c.
func (c *cells) merge(o *cells) (made int) {
	for _, p := range o.few {
		made += c.add(p.bin, p.f, p.v)
	}
	if o.sheets.len() == 0 {
		return made
	}
	if c.sheets.len() == 0 {
		made += c.spread()
	}
	o.sheets.each(func(n int64, theirs *sheet) {
		mine, fresh := c.sheets.at(n)
		if fresh {
			*mine = *theirs
			made++
			return
		}
		for i, v := range *theirs {
			(*mine)[i] += v
		}
	})
	c.hand = nil
	return made
}

// halve makes bins twice as long and returns how many sheets went.
func (c *cells) halve() (gone int) {
	for i := range c.few {
		c.few[i].bin >>= 1
	}
	old := c.sheets
	c.sheets, c.hand = table[sheet]{}, nil
	old.each(func(n int64, s *sheet) {
		t, _ := c.sheet(n>>1, 0)
		half := int(n&1) * binsBySheet / 2
		for i, v := range *s {
			t[(half+i/c.fields/2)*c.fields+i%c.fields] += v
		}
	})
	return old.len() - c.sheets.len()
}

// bin is a row of counters.
type bin struct {
	at int64
	n  [numFields]int32
}

// empty says that nothing was counted.
func (c *cells) empty() bool { return len(c.few) == 0 && c.sheets.len() == 0 }

// list gives the bins in which something was counted, in time order.
func (c *cells) list() (out []bin) {
	if c.sheets.len() == 0 && len(c.few) > 0 {
		all := *c
		all.spread()
		c = &all
	}
	for _, n := range c.sheets.numbers() {
		s := c.sheets.get(n)
		for i := range int64(binsBySheet) {
			b := bin{at: n<<4 + i}
			copy(b.n[:], s[:c.fields])
			if s = s[c.fields:]; b.n != ([numFields]int32{}) {
				out = append(out, b)
			}
		}
	}
	return out
}

// mark is the first and last of something in a bin, with what shows the first.
type mark struct {
	first, last int64 // ns
	id          uint64
	frame       int64
	file        uint32
	is          bool // there is one
}

// marks by bin.
type marks struct{ table[mark] }

func (m *marks) set(bin int64, a *dissect.Attempt, at int64) {
	p, made := m.at(bin)
	if made {
		*p = mark{at, at, a.ID, frameAt(a, at), a.File, true}
		return
	}
	if p.last = max(p.last, at); at < p.first || at == p.first && a.ID < p.id {
		p.first, p.id, p.frame, p.file = at, a.ID, frameAt(a, at), a.File
	}
}

// frameAt is the frame of an attempt that shows what happened then: its last one
// where that was how it failed, or how its session ended, else its first.
func frameAt(a *dissect.Attempt, at int64) int64 {
	switch {
	case at == a.HeardAgain && a.AgainFrame > 0:
		return a.AgainFrame
	case at == a.SessionEnd && a.OverFrame > 0, at == a.End && a.Outcome != dissect.OutcomeAccepted && a.OverFrame > 0:
		return a.OverFrame
	}
	if at > a.Start && (a.Outcome != dissect.OutcomeAccepted || at == a.SessionEnd) && a.LastFrame > 0 {
		return a.LastFrame
	}
	return a.FirstFrame
}

func (a *mark) join(b *mark) {
	if !a.is {
		*a = *b
		return
	}
	last := max(a.last, b.last)
	if b.first < a.first || b.first == a.first && b.id < a.id {
		*a = *b
	}
	a.last = last
}

func (m *marks) merge(o marks) { o.each(m.join) }

func (m *marks) join(bin int64, k *mark) {
	p, _ := m.at(bin)
	p.join(k)
}

func (m *marks) halve() {
	old := *m
	*m = marks{}
	old.each(func(bin int64, k *mark) { m.join(bin>>1, k) })
}
