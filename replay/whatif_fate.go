package replay

import (
	"cmp"
	"slices"
	"time"

	"squall/dissect"
)

// tally is a second of a fate, by the starts of the attempts.
type tally struct{ attempts, intents, accepted, failed int32 }

// course gathers a fate while attempts are decided, in the order of time.
type course struct {
	curve []tally
	first []int64 // of each client: its first failure since it was last let in, from 1
	in    []int64 // when that was
	lost  int64
	from  int64 // what lies before does not count as locked out
}

func (g *course) decide(start, end int64, client, number int32, out dissect.Outcome) {
	if s := int(start / 1e9); s < len(g.curve) {
		t := &g.curve[s]
		t.attempts++
		if number == 1 {
			t.intents++
		}
		switch {
		case out == dissect.OutcomeAccepted:
			t.accepted++
		case out.Failed():
			t.failed++
		}
	}
	switch {
	case out == dissect.OutcomeAccepted:
		g.in[client] = end
		if at := g.first[client]; at > 0 {
			g.lost += max(end-max(at, g.from), 0)
			g.first[client] = 0
		}
	case out.Failed() && g.first[client] == 0 && start >= g.in[client]: // else it was given up long ago
		g.first[client] = start + 1
	}
}

func (g *course) finish(end int64) {
	for _, at := range g.first {
		if at > 0 {
			g.lost += max(end-max(at, g.from), 0)
		}
	}
}

// fate judges a curve. Nothing before onset counts.
func (c *Case) fate(g *course, end int64, fallen int) (f Fate) {
	f.curve, f.LockedOut, f.Fallen = g.curve, time.Duration(g.lost), fallen
	floor := int32(min(fateFloor, max(c.clients/10, 5)))
	from := int(c.onset / 1e9)
	last, peak := -1, int32(0)
	var w tally
	for s := range g.curve {
		add(&w, &g.curve[s], 1)
		if s >= fateWindow {
			add(&w, &g.curve[s-fateWindow], -1)
		}
		if s < from {
			continue
		}
		peak = max(peak, w.attempts)
		if decided := w.accepted + w.failed; decided >= floor && 2*w.failed >= decided {
			last = s
			if int64(s) < c.end/1e9 && int64(s)+fateWindow >= c.end/1e9 {
				f.late = true
			}
		}
	}
	f.Peak = float64(peak) / fateWindow
	f.Storm = last >= 0
	stop := len(g.curve)
	settle := fateSettle
	if out := c.outside(g); 20*out <= c.clients {
		settle = fateSettled
	}
	if f.Storm && int64(last+settle) < end/1e9 {
		for last > from && g.curve[last].failed <= g.curve[last].accepted {
			last--
		}
		f.Recovered, f.At = true, time.Duration(last+1)*time.Second
		stop = last + 1
	}
	var all tally
	for s := from; s < stop; s++ {
		add(&all, &g.curve[s], 1)
	}
	f.A = float64(all.attempts) / float64(max(all.intents, 1))
	return f
}

// outside is how many clients are locked out at the end.
func (c *Case) outside(g *course) (n int) {
	for _, at := range g.first {
		if at > 0 {
			n++
		}
	}
	return n
}

func add(t, x *tally, sign int32) {
	t.attempts += sign * x.attempts
	t.intents += sign * x.intents
	t.accepted += sign * x.accepted
	t.failed += sign * x.failed
}

// replayed is the fate of the recording itself.
func (c *Case) replayed() Fate {
	g := &course{curve: make([]tally, c.end/1e9+1)}
	number := map[uint64]int32{}
	byEnd := make([]*tried, 0, len(c.ev.list))
	for i := range c.ev.list {
		if t := &c.ev.list[i]; t.relation != dissect.RelationRefresh {
			byEnd = append(byEnd, t)
		}
	}
	slices.SortStableFunc(byEnd, func(a, b *tried) int { return cmp.Compare(a.end, b.end) })
	for _, t := range byEnd {
		n, ok := number[t.client]
		if !ok {
			n = int32(len(number))
			number[t.client] = n
			g.first, g.in = append(g.first, 0), append(g.in, 0)
		}
		g.decide(t.start, t.end, n, t.number, t.outcome)
	}
	g.finish(c.end)
	f := c.fate(g, c.end, 0)
	return f
}
