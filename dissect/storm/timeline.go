package storm

import "squall/dissect"

// WindowLength of the timeline, ns.
const WindowLength = 10 * int64(1e9)

// windowsByPage is how many windows are counted together, and windowsByLeaf how
// many of them lie together. Both exist only where something happened, so that
// a year of silence costs nothing.
const (
	windowsByPage = 16
	windowsByLeaf = 4
)

// line is the time line of one service or node.
type line struct {
	pages map[int64]*page
	at    int64 // number of the page in hand
	hand  *page
}

type (
	page [windowsByPage / windowsByLeaf]*leaf
	leaf [windowsByLeaf]slot
)

type slot struct {
	Counts
	clients int64
	last    int64 // number of the client that was counted last
	joined  int64 // sessions that began in the window,
	left    int64 // and that ended in it
}

func windowOf(t int64) int64 {
	w := t / WindowLength
	if t < 0 && t%WindowLength != 0 {
		w--
	}
	return w
}

// slot is the window that holds t; fresh says that its page had to be made.
func (l *line) slot(t int64) (s *slot, fresh bool) {
	w := windowOf(t)
	n := w >> 4
	if l.hand == nil || l.at != n {
		if l.pages == nil {
			l.pages = map[int64]*page{}
		}
		p := l.pages[n]
		if p == nil {
			p, fresh = new(page), true
			l.pages[n] = p
		}
		l.at, l.hand = n, p
	}
	f := &l.hand[w>>2&(windowsByPage/windowsByLeaf-1)]
	if *f == nil {
		*f = new(leaf)
	}
	return &(*f)[w&(windowsByLeaf-1)], fresh
}

// touch has the memory of the window that holds t fetched.
func (l *line) touch(t int64) uint64 {
	if l.hand == nil {
		return 0
	}
	w := windowOf(t)
	if f := l.hand[w>>2&(windowsByPage/windowsByLeaf-1)]; f != nil {
		return uint64(f[w&(windowsByLeaf-1)].Attempts)
	}
	return 0
}

// stay counts a session that was held from a time to another, 1<<63-1 = beyond
// the capture, and returns how many pages it had to make.
func (l *line) stay(from, to int64) (fresh int) {
	w, made := l.slot(from)
	w.joined++
	fresh += int(count(made))
	if to != 1<<63-1 {
		w, made = l.slot(to)
		w.left++
		fresh += int(count(made))
	}
	return fresh
}

// merge adds another line; the clients of the two are different ones.
func (l *line) merge(o *line) (fresh int) {
	for n, p := range o.pages {
		mine := l.pages[n]
		if mine == nil {
			if l.pages == nil {
				l.pages = map[int64]*page{}
			}
			l.pages[n] = p
			fresh++
			continue
		}
		for i, f := range p {
			switch {
			case f == nil:
			case mine[i] == nil:
				mine[i] = f
			default:
				for j := range f {
					m, o := &mine[i][j], &f[j]
					m.add(&o.Counts)
					m.clients += o.clients
					m.joined += o.joined
					m.left += o.left
				}
			}
		}
	}
	l.hand = nil
	return fresh
}

// each visits the windows in which something happened, in time order.
func (l *line) each(visit func(start int64, s *slot)) {
	for _, n := range sortedKeys(l.pages) {
		p := l.pages[n]
		for i, f := range p {
			for j := 0; f != nil && j < windowsByLeaf; j++ {
				if s := &f[j]; s.Attempts|s.Refreshes|s.Parallels|s.joined|s.left != 0 {
					visit((n<<4+int64(i*windowsByLeaf+j))*WindowLength, s)
				}
			}
		}
	}
}

// peak is the highest number of counted attempts in a window.
func (l *line) peak() (n int64) {
	for _, p := range l.pages {
		for _, f := range p {
			for j := 0; f != nil && j < windowsByLeaf; j++ {
				n = max(n, f[j].Attempts)
			}
		}
	}
	return n
}

// count adds one row.
func (c *Counts) count(a *dissect.Attempt) {
	switch a.Relation {
	case dissect.RelationParallel:
		c.Parallels++
		return
	case dissect.RelationMonitor:
		c.Checks++
		return
	case dissect.RelationRefresh:
		c.Refreshes++
	default:
		c.Attempts++
		if a.Relation.Retries() {
			c.Retries++
		} else {
			c.Intents++
		}
		c.Outcomes[a.Outcome]++
		c.Transmissions += int64(a.Transmissions)
	}
	if a.Late {
		c.Late++
	}
	if a.Replied() {
		c.Answers++
	}
}

// Count adds one row.
func (c *Counts) Count(a *dissect.Attempt) { c.count(a) }

// Add adds another sum.
func (c *Counts) Add(o *Counts) { c.add(o) }

func (c *Counts) add(o *Counts) {
	c.Attempts += o.Attempts
	c.Retries += o.Retries
	c.Intents += o.Intents
	c.Refreshes += o.Refreshes
	c.Parallels += o.Parallels
	c.Checks += o.Checks
	for i, n := range o.Outcomes {
		c.Outcomes[i] += n
	}
	c.Transmissions += o.Transmissions
	c.Late += o.Late
	c.Answers += o.Answers
}
