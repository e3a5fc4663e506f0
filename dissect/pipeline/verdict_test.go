package pipeline_test

import (
	"context"
	"math/rand/v2"
	"reflect"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

// TestTotalsAreTheRows: what is counted while visiting is what a reader of the
// rows counts, and the order of merging does not matter.
func TestTotalsAreTheRows(t *testing.T) {
	for _, name := range []string{"s1", "s13", "n14"} {
		sc, _ := samples.Find(name)
		sc.Clients = min(sc.Clients, 300)
		var packets []capture.Packet
		if _, err := samples.Simulate(sc, 7, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
			t.Fatal(err)
		}
		a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 2}, capture.Memory(packets))
		if err != nil {
			t.Fatal(err)
		}
		report, err := a.Judge(storm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var want storm.Counts
		clients, nodes := map[string]bool{}, map[dissect.Endpoint]int64{}
		windows := map[int64]int64{}
		for r := range a.Attempts() {
			clients[r.ClientID] = true
			nodes[r.Destination] += 0
			if !r.Relation.Counted() {
				continue
			}
			want.Attempts++
			if r.Relation.Retries() {
				want.Retries++
			}
			want.Outcomes[r.Outcome]++
			nodes[r.Destination]++
			windows[r.Start/storm.WindowLength*storm.WindowLength]++
		}
		got := report.Totals
		if got.Attempts != want.Attempts || got.Retries != want.Retries || got.Outcomes != want.Outcomes ||
			got.Clients != int64(len(clients)) || got.Nodes != int64(len(nodes)) || got.Attempts == 0 {
			t.Errorf("%s: totals %+v, the rows say %+v, %d clients, %d nodes", name, got, want, len(clients), len(nodes))
		}
		for _, n := range report.Nodes {
			if n.Attempts != nodes[n.At] {
				t.Errorf("%s: node %v: %d attempts, the rows say %d", name, n.At, n.Attempts, nodes[n.At])
			}
		}
		for _, w := range report.Timeline {
			if w.Node == (dissect.Endpoint{}) && w.Attempts != windows[w.Start] {
				t.Errorf("%s: window %d: %d attempts, the rows say %d", name, w.Start, w.Attempts, windows[w.Start])
			}
		}
		for seed := range uint64(3) {
			if again := judgeShuffled(t, a, seed); !reflect.DeepEqual(again, report) {
				t.Errorf("%s: another order of merging, another report", name)
			}
		}
		a.Close()
	}
}

// dealt gives each client to one of many states.
type dealt struct {
	states []*storm.State
	*storm.State
}

func (d *dealt) Client(c *dissect.Client) {
	d.State = d.states[dissect.Hash64(0, []byte(c.ID))%uint64(len(d.states))]
	d.State.Client(c)
}

func judgeShuffled(t *testing.T, a *pipeline.Analysis, seed uint64) *storm.Report {
	t.Helper()
	var list []*storm.State
	if err := a.Visit(func(int) dissect.Visitor {
		d := &dealt{states: make([]*storm.State, 32)}
		for i := range d.states {
			d.states[i] = storm.NewState(storm.Config{})
		}
		list = append(list, d.states...)
		return d
	}); err != nil {
		t.Fatal(err)
	}
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for len(list) > 1 { // pairwise, from both ends
		last := len(list) - 1
		list[0].Merge(list[last])
		list = append(list[1:last], list[0])
	}
	return list[0].Report(a.Quality())
}
