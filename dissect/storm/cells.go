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
	nLostBytes // IP bytes of attempts at a node that was not there
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

type sheet [binsBySheet][numFields]int32

type op struct {
	bin int64
	f   field
	v   int32
}

// cells are the counters of one service or node by bin, kept only where
// something happened.
type cells struct {
	few    []op
	sheets map[int64]*sheet
	at     int64
	hand   *sheet
}

// add counts v and returns how many sheets it had to make.
func (c *cells) add(bin int64, f field, v int32) (made int) {
	if c.sheets == nil {
		c.few = append(c.few, op{bin, f, v})
		if len(c.few) <= fewOps {
			return 0
		}
		return c.spread()
	}
	n := bin >> 4
	if c.hand == nil || c.at != n {
		s := c.sheets[n]
		if s == nil {
			s, made = new(sheet), 1
			c.sheets[n] = s
		}
		c.at, c.hand = n, s
	}
	c.hand[bin&(binsBySheet-1)][f] += v
	return made
}

func (c *cells) spread() (made int) {
	few := c.few
	c.few, c.sheets = nil, map[int64]*sheet{}
	for _, o := range few {
		made += c.add(o.bin, o.f, o.v)
	}
	return made
}

// merge adds the counts of o, which has bins of the same length.
func (c *cells) merge(o *cells) (made int) {
	if o.sheets == nil {
		for _, p := range o.few {
			made += c.add(p.bin, p.f, p.v)
		}
		return made
	}
	if c.sheets == nil {
		made += c.spread()
	}
	for n, s := range o.sheets {
		mine := c.sheets[n]
		if mine == nil {
			c.sheets[n] = s
			made++
			continue
		}
		for i := range s {
			for f, v := range s[i] {
				mine[i][f] += v
			}
		}
	}
	c.hand = nil
	return made
}

// halve makes bins twice as long and returns how many sheets went.
func (c *cells) halve() (gone int) {
	for i := range c.few {
		c.few[i].bin >>= 1
	}
	if c.sheets == nil {
		return 0
	}
	old := c.sheets
	c.sheets, c.hand = make(map[int64]*sheet, len(old)/2+1), nil
	for n, s := range old {
		t := c.sheets[n>>1]
		if t == nil {
			t = new(sheet)
			c.sheets[n>>1] = t
		}
		for i := range s {
			bin := n<<4 + int64(i)
			for f, v := range s[i] {
				t[bin>>1&(binsBySheet-1)][f] += v
			}
		}
	}
	return len(old) - len(c.sheets)
}

// bin is a row of counters.
type bin struct {
	at int64
	n  [numFields]int32
}

// list gives the bins in which something was counted, in time order.
func (c *cells) list() (out []bin) {
	if c.sheets == nil && len(c.few) > 0 {
		all := *c
		all.spread()
		c = &all
	}
	for _, n := range sortedKeys(c.sheets) {
		s := c.sheets[n]
		for i := range s {
			if s[i] != ([numFields]int32{}) {
				out = append(out, bin{n<<4 + int64(i), s[i]})
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
}

// marks by bin.
type marks map[int64]mark

func (m *marks) set(bin int64, k mark) {
	if *m == nil {
		*m = marks{}
	}
	if old, ok := (*m)[bin]; ok {
		k = old.join(k)
	}
	(*m)[bin] = k
}

func (a mark) join(b mark) mark {
	last := max(a.last, b.last)
	if b.first < a.first || b.first == a.first && b.id < a.id {
		a = b
	}
	a.last = last
	return a
}

func (m *marks) merge(o marks) {
	for b, k := range o {
		m.set(b, k)
	}
}

func (m *marks) halve() {
	old := *m
	*m = nil
	for b, k := range old {
		m.set(b>>1, k)
	}
}
