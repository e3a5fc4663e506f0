package pipeline

import (
	"cmp"
	"errors"
	"io"
	"iter"
	"slices"

	"squall/dissect"
)

// rows are what an analysis is read from: the second pass over a capture, or
// attempts that were known from the start.
type rows interface {
	Attempts(workers int) iter.Seq2[*dissect.Attempt, error]
	Intents(workers int) iter.Seq2[*dissect.Intent, error]
	Walk(func(c *dissect.Client, attempts iter.Seq[*dissect.Attempt]) bool) error
	Visit(workers int, newVisitor func(worker int) dissect.Visitor) error
	Save(io.Writer) error
	Close() error
}

// ErrGiven says that an analysis of given rows has no records to save.
var ErrGiven = errors.New("the attempts were not read from packets")

// given are attempts with their relations, by start, then id.
type given struct {
	attempts []dissect.Attempt
	intents  []dissect.Intent
	clients  []dissect.Client // by id
	rows     [][]int32        // of each client, in start order
	intent   []int32          // of each attempt
	last     []bool           // an attempt is the last of its intent
}

// Given is the analysis of attempts that nobody had to find in packets: those
// of a replay. Relations, identities and intents are as the rows say. They are
// sorted here, by start and id, and belong to the analysis afterwards.
func Given(captures []Capture, attempts []dissect.Attempt) *Analysis {
	g := &given{attempts: attempts, intent: make([]int32, len(attempts)), last: make([]bool, len(attempts))}
	slices.SortFunc(attempts, func(a, b dissect.Attempt) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.ID, b.ID)) })
	a := &Analysis{workers: 1, captures: captures, result: g}
	known := map[string]int32{}
	wishes := map[uint64]int32{}
	nodes := map[uint64]map[dissect.Endpoint]bool{}
	final := map[uint64]int{}
	for i := range attempts {
		t := &attempts[i]
		if i == 0 || t.Start < a.first {
			a.first = t.Start
		}
		a.last = max(a.last, t.End)
		c, ok := known[t.ClientID]
		if !ok {
			c = int32(len(g.clients))
			known[t.ClientID] = c
			g.clients = append(g.clients, dissect.Client{ID: t.ClientID, Level: t.ClientIDLevel, Version: t.ClientVersion, First: t.Start})
			g.rows = append(g.rows, nil)
		}
		client := &g.clients[c]
		client.Last, client.Addr = t.Start, t.Source.Addr
		client.Attempts++
		client.Monitor = (client.Monitor || client.Attempts == 1) && t.Relation == dissect.RelationMonitor
		g.rows[c] = append(g.rows[c], int32(i))
		w, ok := wishes[t.IntentID]
		if !ok {
			w = int32(len(g.intents))
			wishes[t.IntentID] = w
			g.intents = append(g.intents, dissect.Intent{ID: t.IntentID, Start: t.Start, ClientID: t.ClientID, Service: t.Service, Protocol: t.Protocol,
				Relation: t.Relation, FirstNode: t.Destination, Censored: t.Censored, Source: t.Source.Addr})
			nodes[t.IntentID] = map[dissect.Endpoint]bool{}
		}
		in := &g.intents[w]
		g.intent[i] = w
		if t.Relation != dissect.RelationParallel {
			in.Attempts++
		}
		if t.Relation.Retries() {
			in.Retries++
		}
		nodes[t.IntentID][t.Destination] = true
		in.End, in.Outcome, in.LastNode, in.Nodes = t.End, t.Outcome, t.Destination, int32(len(nodes[t.IntentID]))
		final[t.IntentID] = i
	}
	for _, i := range final {
		g.last[i] = true
	}
	for i := range g.intents {
		switch in := &g.intents[i]; in.Outcome {
		case dissect.OutcomeAccepted:
			in.ClosedBy = dissect.ClosedAccepted
		case dissect.OutcomeUnknown:
			in.ClosedBy, in.Censored = dissect.ClosedEdge, true
		default:
			in.ClosedBy = dissect.ClosedQuiet
		}
	}
	return a
}

func (g *given) Attempts(int) iter.Seq2[*dissect.Attempt, error] { return pointers(g.attempts) }
func (g *given) Intents(int) iter.Seq2[*dissect.Intent, error]   { return pointers(g.intents) }

func pointers[T any](list []T) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for i := range list {
			item := list[i] // whoever gets it may write into it
			if !yield(&item, nil) {
				return
			}
		}
	}
}

// byID are the clients in the order of their ids.
func (g *given) byID() (order []int32) {
	for i := range g.clients {
		order = append(order, int32(i))
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(g.clients[a].ID, g.clients[b].ID) })
	return order
}

func (g *given) Walk(visit func(*dissect.Client, iter.Seq[*dissect.Attempt]) bool) error {
	for _, n := range g.byID() {
		c := g.clients[n]
		more := visit(&c, func(yield func(*dissect.Attempt) bool) {
			for _, i := range g.rows[n] {
				t := g.attempts[i]
				if !yield(&t) {
					return
				}
			}
		})
		if !more {
			return nil
		}
	}
	return nil
}

func (g *given) Visit(_ int, newVisitor func(worker int) dissect.Visitor) error {
	v := newVisitor(0)
	for _, n := range g.byID() {
		c := g.clients[n]
		v.Client(&c)
		for _, i := range g.rows[n] {
			t := g.attempts[i]
			v.Attempt(&t)
			if g.last[i] {
				in := g.intents[g.intent[i]]
				v.Intent(&in)
			}
		}
	}
	if d, ok := v.(interface{ Done() }); ok {
		d.Done()
	}
	return nil
}

// FromPackets says whether the attempts were found in packets, so that Save
// has something to write.
func (a *Analysis) FromPackets() bool {
	_, isGiven := a.result.(*given)
	return !isGiven
}

func (g *given) Save(io.Writer) error { return ErrGiven }
func (g *given) Close() error         { return nil }
