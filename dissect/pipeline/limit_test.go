package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

// TestLimit keeps rows of a few nodes only: those with most attempts, as they are
// among all, while totals, findings and all else but the life lines stay; and the
// same for any number of workers.
func TestLimit(t *testing.T) {
	const most = 4
	var packets []capture.Packet
	samples.Dense(6000, 1, func(p *capture.Packet) {
		q := *p
		q.Data = bytes.Clone(p.Data)
		packets = append(packets, q)
	})
	judged := func(workers, limit int) *storm.Report {
		a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: workers, Protocols: overlay.All()}, capture.Memory(packets))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		a.Limit(limit)
		r, err := a.Judge(storm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	all, few := judged(2, 0), judged(2, most)
	if len(all.Nodes) <= most || len(few.Nodes) != most {
		t.Fatalf("%d rows of %d nodes, want %d", len(few.Nodes), len(all.Nodes), most)
	}
	for i := range few.Nodes {
		if got, want := text(few.Nodes[i]), text(all.Nodes[i]); got != want {
			t.Errorf("node %d: %s\nwithout a limit: %s", i, got, want)
		}
	}
	if got, want := text(few.Totals), text(all.Totals); got != want {
		t.Errorf("totals %s\nwithout a limit: %s", got, want)
	}
	if got, want := text(few.Findings), text(all.Findings); got != want {
		t.Errorf("findings %s\nwithout a limit: %s", got, want)
	}
	if len(few.Notes) != len(all.Notes)+1 {
		t.Errorf("the limit is not said: %q", few.Notes)
	}
	for _, same := range []struct{ workers, limit int }{{1, most}, {5, most}, {1, len(all.Nodes)}} {
		want := few
		if same.limit != most {
			want = all
		}
		if got := judged(same.workers, same.limit); text(got) != text(want) {
			t.Errorf("%d workers, %d nodes: another report", same.workers, same.limit)
		}
	}
}
