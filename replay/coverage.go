package replay

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"squall/dissect"
)

// Share is a part of the recorded demand. Intents are those that squall analyze
// counts: refreshes, parallel twins and monitors make none.
type Share struct {
	Attempts int64 `json:"attempts"`
	Intents  int64 `json:"intents"`
	Clients  int64 `json:"clients"`
}

// Coverage says how much of the recording a plan holds. Covered, Arises and
// LeftOut add up to Recorded.
type Coverage struct {
	Recorded Share `json:"recorded"`
	// Covered is what the plan asks for. With intents its attempts are those of
	// the wishes planned: how many the replay makes is up to policies and targets.
	Covered Share `json:"covered"`
	// Arises is what the targets and the sessions of the replay bring about anew,
	// or do not, of clients that are covered, and LeftOut the rest, by reason. A
	// client is among its Clients if nothing of it is covered.
	Arises   map[string]Share `json:"arises_again,omitempty"`
	LeftOut  map[string]Share `json:"left_out,omitempty"`
	Peak     int64            `json:"recorded_peak_attempts_per_second"`
	Planned  int64            `json:"planned"`  // items: Covered, times what --scale-clients made of it
	Censored int64            `json:"censored"` // planned though they began before the capture or were open at its end
	Outcomes map[string]int64 `json:"recorded_outcomes,omitempty"`
}

// ledger remembers of each recorded attempt, intent and client what became of it.
type ledger struct {
	origins  []origin // of items, as they were recorded
	of       []int32  // the origin of each item of the plan
	attempts int64
	left     map[string]int64  // attempts, by reason
	intents  map[uint64]string // why some of it was left out, "" = it was not
	clients  map[uint64]string // likewise
	// What arises anew, if its client is there.
	refreshes map[uint64]int64 // attempts, by client
	loops     []origin
}

// origin is the recorded demand that an item stands for.
type origin struct {
	client, intent uint64
	attempts       int32
	left           bool
}

func newLedger() *ledger {
	return &ledger{left: map[string]int64{}, intents: map[uint64]string{}, clients: map[uint64]string{}, refreshes: map[uint64]int64{}}
}

// wants reports whether a row belongs to an intent that counts.
func wants(t *dissect.Attempt) bool {
	switch t.Relation {
	case dissect.RelationRefresh, dissect.RelationParallel, dissect.RelationMonitor:
		return false
	}
	return true
}

// read counts a row of the recording; why it is left out, "" = it is not, or not yet.
func (l *ledger) read(t *dissect.Attempt, why string) {
	l.attempts++
	client := hash(t.ClientID)
	if why == leftRefresh {
		l.refreshes[client]++
		why = ""
	}
	absent := why
	if why == leftParallel { // is no reason why its client should not be there
		absent = ""
	}
	l.clients[client] = cmp.Or(l.clients[client], absent)
	if wants(t) {
		l.intents[t.IntentID] = cmp.Or(l.intents[t.IntentID], why)
	}
	if why != "" {
		l.left[why]++
	}
}

// plan notes the origin of the next item.
func (l *ledger) plan(client, intent uint64, attempts int32) {
	l.origins = append(l.origins, origin{client, intent, attempts, false})
}

// drop leaves out what was to be an item.
func (l *ledger) drop(i int32, why string) {
	o := &l.origins[i]
	if o.left {
		return
	}
	o.left = true
	l.lose(o, why)
}

// loop notes what arises anew if its client is there: no item stands for it.
func (l *ledger) loop(client, intent uint64, attempts int32) {
	l.loops = append(l.loops, origin{client, intent, attempts, false})
}

// lose leaves out demand.
func (l *ledger) lose(o *origin, why string) {
	l.left[why] += int64(o.attempts)
	l.clients[o.client] = cmp.Or(l.clients[o.client], why)
	if _, ok := l.intents[o.intent]; ok {
		l.intents[o.intent] = cmp.Or(l.intents[o.intent], why)
	}
}

// fill makes up the account.
func (l *ledger) fill(c *Coverage) {
	c.Recorded = Share{l.attempts, int64(len(l.intents)), int64(len(l.clients))}
	c.Covered, c.Arises, c.LeftOut = Share{}, map[string]Share{}, map[string]Share{}
	list := func(why string) map[string]Share {
		if why == leftLoop || why == leftRefresh {
			return c.Arises
		}
		return c.LeftOut
	}
	left, why := maps.Clone(l.left), maps.Clone(l.intents)
	intents, clients := map[uint64]bool{}, map[uint64]bool{}
	for i := range l.origins {
		if o := &l.origins[i]; !o.left {
			c.Covered.Attempts += int64(o.attempts)
			intents[o.intent], clients[o.client] = true, true
		}
	}
	// Nothing arises of a client that is not there.
	of := func(client uint64, arises string) string {
		if clients[client] {
			return arises
		}
		return cmp.Or(l.clients[client], leftAlone)
	}
	for client, n := range l.refreshes {
		left[of(client, leftRefresh)] += n
	}
	for _, o := range l.loops {
		reason := of(o.client, leftLoop)
		left[reason] += int64(o.attempts)
		if _, ok := why[o.intent]; ok {
			why[o.intent] = reason
		}
	}
	for reason, n := range left {
		list(reason)[reason] = Share{Attempts: n}
	}
	account := func(all map[uint64]string, covered map[uint64]bool, add func(*Share)) {
		for id, why := range all {
			if covered[id] {
				add(&c.Covered)
				continue
			}
			s := list(why)[why]
			add(&s)
			list(why)[why] = s
		}
	}
	account(why, intents, func(s *Share) { s.Intents++ })
	who := maps.Clone(l.clients)
	for client := range who {
		who[client] = of(client, "")
	}
	account(who, clients, func(s *Share) { s.Clients++ })
	for _, m := range []*map[string]Share{&c.Arises, &c.LeftOut} {
		if len(*m) == 0 {
			*m = nil // as a file has it
		}
	}
}

// Text is the account in lines of at most 80 columns, as far as the reasons allow.
func (c *Coverage) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "covers      %s\n", strings.Join(c.Covers(), "\n            "))
	for _, p := range []struct {
		head string
		m    map[string]Share
	}{{"arises anew, or does not, as the targets behave", c.Arises}, {"left out", c.LeftOut}} {
		if len(p.m) > 0 {
			fmt.Fprintln(&b, p.head)
		}
		for _, why := range reasons(p.m) {
			fmt.Fprintf(&b, "  %s\n      %s\n", why, c.words(p.m[why]))
		}
	}
	return b.String()
}

// Rows are the same as rows of a Markdown table.
func (c *Coverage) Rows() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| covers | %s |\n", strings.Join(c.Covers(), "<br>"))
	for _, why := range reasons(c.Arises) {
		fmt.Fprintf(&b, "| arises anew | %s: %s |\n", c.words(c.Arises[why]), why)
	}
	for _, why := range reasons(c.LeftOut) {
		fmt.Fprintf(&b, "| left out | %s: %s |\n", c.words(c.LeftOut[why]), why)
	}
	return b.String()
}

// Covers says how much of the recorded attempts, intents and clients is covered.
func (c *Coverage) Covers() (list []string) {
	r, v := &c.Recorded, &c.Covered
	for _, p := range []struct {
		n, of int64
		what  string
	}{{v.Attempts, r.Attempts, "attempts"}, {v.Intents, r.Intents, "intents"}, {v.Clients, r.Clients, "clients"}} {
		list = append(list, fmt.Sprintf("%d of %d recorded %s, %s", p.n, p.of, p.what, percent(p.n, p.of)))
	}
	return list
}

// reasons are in the order of their attempts, the largest first.
func reasons(m map[string]Share) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b].Attempts, m[a].Attempts), cmp.Compare(a, b))
	})
}

func (c *Coverage) words(s Share) string {
	var parts []string
	for _, p := range []struct {
		n, of int64
		what  string
	}{{s.Attempts, c.Recorded.Attempts, "attempts"}, {s.Intents, c.Recorded.Intents, "intents"}, {s.Clients, c.Recorded.Clients, "clients"}} {
		if p.n > 0 {
			what := p.what
			if p.n == 1 {
				what = strings.TrimSuffix(what, "s")
			}
			parts = append(parts, fmt.Sprintf("%d %s (%s)", p.n, what, percent(p.n, p.of)))
		}
	}
	return strings.Join(parts, ", ")
}

// percent is rounded, but neither to nothing nor to all.
func percent(n, of int64) string {
	switch {
	case of == 0:
		return "none recorded"
	case n == of:
		return "100 %"
	case n == 0:
		return "0 %"
	}
	return fmt.Sprintf("%.1f %%", min(max(math.Round(1000*float64(n)/float64(of))/10, 0.1), 99.9))
}
