package pipeline_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect"
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
		a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: workers, MaxNodes: limit, Protocols: overlay.All()}, capture.Memory(packets))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
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

// crowded is an outage among many nodes that are asked once and many clients that name
// themselves, and how many those nodes are.
func crowded(t *testing.T) (outage, all []capture.Packet, nodes int) {
	t.Helper()
	sc, _ := samples.Find("s9")
	sc.Clients, sc.Duration = 60, sc.Trigger+60*1e9
	if _, err := samples.Simulate(sc, 3, func(p *capture.Packet) { outage = append(outage, *p) }); err != nil {
		t.Fatal(err)
	}
	nodes = 600
	spread := func(emit func(int64, uint64, func(*capture.Packet)), packets int) {
		first, span, i := outage[0].Time, outage[len(outage)-1].Time-outage[0].Time, int64(0)
		emit(int64(packets), 5, func(p *capture.Packet) {
			q := *p
			q.Data = bytes.Clone(p.Data)
			q.Time = first + span*i/int64(packets)
			i++
			all = append(all, q)
		})
	}
	spread(samples.Sprawl, 2*nodes)
	spread(samples.Names, 400)
	all = append(all, outage...)
	slices.SortStableFunc(all, func(a, b capture.Packet) int { return cmp.Compare(a.Time, b.Time) })
	for i := range all {
		all[i].Frame = int64(i + 1)
	}
	return outage, all, nodes
}

// TestCeilings: beyond all ceilings the outage is found as without what fills them,
// totals are exact, what was given up is said, and nothing depends on workers, shards
// or their order.
func TestCeilings(t *testing.T) {
	outage, all, nodes := crowded(t)
	small := pipeline.Config{MaxNodes: 32, MaxNames: 50, Part: 10, RecordMemory: 64 << 10, Protocols: overlay.All()}
	t.Setenv("TMPDIR", t.TempDir())
	run := func(cfg pipeline.Config, packets []capture.Packet) *pipeline.Analysis {
		a, err := pipeline.Run(context.Background(), cfg, capture.Memory(packets))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		return a
	}
	judge := func(a *pipeline.Analysis) *storm.Report {
		r, err := a.Judge(storm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	saved := func(a *pipeline.Analysis) []byte {
		var b bytes.Buffer
		if err := a.Save(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	text := func(a *pipeline.Analysis) string {
		b, err := json.Marshal(judge(a))
		if err != nil {
			t.Fatal(err)
		}
		list := []string{string(b)}
		list = lines(t, list, a.Attempts())
		list = lines(t, list, a.Intents())
		list = lines(t, list, a.Clients())
		return strings.Join(list, "\n")
	}
	with := func(workers int, shard pipeline.Shard) pipeline.Config {
		cfg := small
		cfg.Workers, cfg.Shard = workers, shard
		return cfg
	}
	whole := run(with(2, pipeline.Shard{}), all)
	got := judge(whole)

	alone := judge(run(pipeline.Config{Protocols: overlay.All()}, outage))
	i := slices.IndexFunc(got.Findings, func(f storm.Finding) bool { return f.Service == alone.Verdict.Service })
	if i < 0 || alone.Verdict.Class != storm.RetryStorm {
		t.Fatalf("%d findings, none of the outage", len(got.Findings))
	}
	if g, w := got.Findings[i], alone.Findings[0]; g.Sentence != w.Sentence || g.FirstAttempt != w.FirstAttempt || !slices.Equal(g.Nodes, w.Nodes) || !slices.Equal(g.Criteria, w.Criteria) {
		t.Errorf("among many: %+v\nalone: %+v", g, w)
	}
	free := run(pipeline.Config{Protocols: overlay.All()}, all)
	exact := judge(free)
	if g, w := fmt.Sprintf("%+v", got.Totals), fmt.Sprintf("%+v", exact.Totals); g != w || got.Totals.Nodes != alone.Totals.Nodes+int64(nodes)+1 {
		t.Errorf("totals %s\nwithout ceilings %s", g, w)
	}
	if whole.Ledger() != free.Ledger() {
		t.Errorf("ledger %v, without ceilings %v", whole.Ledger(), free.Ledger())
	}
	if len(got.Nodes) > small.MaxNodes || len(got.Nodes) < small.MaxNodes/2 {
		t.Errorf("%d nodes have a row, want up to %d", len(got.Nodes), small.MaxNodes)
	}
	for i, n := range alone.Nodes {
		if m := got.Nodes[i+1]; m.At != n.At || m.Attempts != n.Attempts { // the first has all that name themselves
			t.Errorf("node %d: %v with %d attempts, want %v with %d", i, m.At, m.Attempts, n.At, n.Attempts)
		}
	}
	count := func(a *pipeline.Analysis) (known, hashes int) {
		for c, err := range a.Clients() {
			if err != nil {
				t.Fatal(err)
			}
			if c.Unnamed {
				hashes++
			} else if c.Level == dissect.IDProtocol {
				known++
			}
		}
		return known, hashes
	}
	named, none := count(free)
	known, hashes := count(whole)
	if known > small.MaxNames || known < small.MaxNames/4 || known+hashes != named || none != 0 || named < 5*small.MaxNames {
		t.Errorf("%d names are kept and %d are not, of %d", known, hashes, named)
	}
	notes := strings.Join(got.Notes, "\n")
	for _, said := range []string{fmt.Sprintf("the %d others count in totals", got.Totals.Nodes-int64(len(got.Nodes))), fmt.Sprintf("%d clients that name themselves are printed as hashes", hashes)} {
		if !strings.Contains(notes, said) {
			t.Errorf("it is not said that %q: %s", said, notes)
		}
	}

	want, bytesOf := text(whole), saved(whole)
	for _, workers := range []int{1, 5} {
		a := run(with(workers, pipeline.Shard{}), all)
		if text(a) != want || !bytes.Equal(saved(a), bytesOf) {
			t.Errorf("%d workers: another result", workers)
		}
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 0, 1}} {
		var pieces [][]byte
		for _, i := range order {
			pieces = append(pieces, saved(run(with(1, pipeline.Shard{Index: i, Count: 3}), all)))
		}
		a := join(t, small, pieces...)
		if text(a) != want {
			t.Errorf("shards in the order %v: another result", order)
		}
		a.Close()
	}
}
