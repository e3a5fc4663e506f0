package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

// TestMonitorRows: hosts that check every node at a fixed interval, before, during
// and after an outage, row by row; the rules are read by the oracle a second time.
func TestMonitorRows(t *testing.T) {
	for i, name := range []string{"s9", "s11", "skype-2010"} {
		if testing.Short() && i > 0 {
			break
		}
		sc, _ := samples.Find(name)
		sc.Clients, sc.Monitors = 300, 3
		compareRows(t, sc, uint64(i+1))
	}
}

// checked reports whether a frame is one of a monitor of the simulation: its
// address is 10.249.0.0/16.
func checked(p *capture.Packet) bool {
	monitor := []byte{10, 249}
	return bytes.Equal(p.Data[26:28], monitor) || bytes.Equal(p.Data[30:32], monitor)
}

func analysedAndJudged(t *testing.T, packets []capture.Packet) (*pipeline.Analysis, *storm.Report) {
	t.Helper()
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 2, Protocols: overlay.All()}, capture.Memory(packets))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	r, err := a.Judge(storm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return a, r
}

// TestMonitorsChangeNothing: with and without the packets of the monitors, the
// findings, policies, versions and totals are the same; without the rule the checks
// that fail would be retries, and A another.
func TestMonitorsChangeNothing(t *testing.T) {
	for i, name := range []string{"s9", "s11", "n1", "s1"} {
		if testing.Short() && i > 1 {
			break
		}
		sc, _ := samples.Find(name)
		sc.Monitors, sc.Background = 3, 5 // that the tap is alive is to be seen without monitors, too
		if sc.Intents == 0 {
			sc.Clients = min(sc.Clients, 400)
		} else {
			sc.Clients, sc.Duration = sc.Clients/2, sc.Duration*3/4
		}
		var all, bare []capture.Packet
		truth, err := samples.Simulate(sc, uint64(i+11), func(p *capture.Packet) {
			all = append(all, *p)
			if !checked(p) {
				bare = append(bare, *p)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		// Both begin and end with the same packets, so that the capture is as long.
		first := slices.IndexFunc(all, func(p capture.Packet) bool { return !checked(&p) })
		last := len(all)
		for checked(&all[last-1]) {
			last--
		}
		all = all[first:last]
		_, want := analysedAndJudged(t, bare)
		_, got := analysedAndJudged(t, all)
		say := func(r *storm.Report) string {
			totals := r.Totals
			totals.Monitors, totals.Checks = 0, 0
			var b strings.Builder
			fmt.Fprintf(&b, "%+v\n%+v\n", r.Summary, totals)
			for _, f := range r.Findings {
				fmt.Fprintf(&b, "%v %v %v %v %+v\n", f.Class, f.Onset, f.End, f.Sentence, f.Criteria)
			}
			fmt.Fprintf(&b, "%+v\n%+v\n", r.Policies, r.Versions)
			for _, n := range r.Nodes {
				fmt.Fprintf(&b, "%v %v %v\n", n.At, n.Attempts, n.Periods)
			}
			return b.String()
		}
		if g, w := say(got), say(want); g != w {
			at := 0
			for at < min(len(g), len(w)) && g[at] == w[at] {
				at++
			}
			t.Errorf("%s: monitors change the result at byte %d:\n got …%.300s\nwant …%.300s", name, at, g[max(at-100, 0):], w[max(at-100, 0):])
		}
		checks := int64(0)
		for _, x := range truth.Attempts {
			if x.Relation == "monitor" {
				checks++
			}
		}
		if len(got.Monitors) != 3 || got.Totals.Monitors != 3 || got.Totals.Checks < checks-60 || got.Totals.Checks > checks {
			t.Fatalf("%s: %d monitors, %d checks; %d were made", name, got.Totals.Monitors, got.Totals.Checks, checks)
		}
		for k, m := range got.Monitors {
			if every := int64(2+3*k) * 1e9; m.ID != fmt.Sprintf("10.249.0.%d", k+1) || m.Every < every*97/100 || m.Every > every*103/100 || m.Nodes != int64(sc.Nodes) {
				t.Errorf("%s: %+v", name, m)
			}
		}
		if len(want.Monitors) != 0 {
			t.Errorf("%s: %+v without any", name, want.Monitors)
		}
	}
}

// TestWhatEverybodyDoesIsNoMonitor: as many hosts as a fifth of the clients, at
// whatever fixed interval, are clients.
func TestWhatEverybodyDoesIsNoMonitor(t *testing.T) {
	sc, _ := samples.Find("s9")
	sc.Clients, sc.Monitors, sc.Duration = 60, 15, sc.Trigger
	var packets []capture.Packet
	if _, err := samples.Simulate(sc, 5, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
		t.Fatal(err)
	}
	a, r := analysedAndJudged(t, packets)
	if r.Totals.Checks != 0 || r.Totals.Clients != 75 {
		t.Errorf("%d checks, %d clients of 75", r.Totals.Checks, r.Totals.Clients)
	}
	for c, err := range a.Clients() {
		if err != nil {
			t.Fatal(err)
		}
		if c.Monitor {
			t.Errorf("%s is a monitor", c.ID)
		}
	}
}

// TestMonitorsInPieces: shards of the same packets name the same monitors when
// joined.
func TestMonitorsInPieces(t *testing.T) {
	sc, _ := samples.Find("s9")
	sc.Clients, sc.Monitors, sc.Duration = 50, 2, sc.Trigger+30*1e9
	var packets []capture.Packet
	if _, err := samples.Simulate(sc, 3, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
		t.Fatal(err)
	}
	whole, want := analysedAndJudged(t, packets)
	var pieces [][]byte
	for i := range 3 {
		a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 1, Protocols: overlay.All(), Shard: pipeline.Shard{Index: i, Count: 3}},
			capture.Memory(packets))
		if err != nil {
			t.Fatal(err)
		}
		b := new(bytes.Buffer)
		if err := a.Save(b); err != nil {
			t.Fatal(err)
		}
		a.Close()
		pieces = append(pieces, b.Bytes())
	}
	joined := join(t, pipeline.Config{Workers: 1}, pieces...)
	defer joined.Close()
	got, err := joined.Judge(storm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if g, w := fmt.Sprintf("%+v", got.Monitors), fmt.Sprintf("%+v", want.Monitors); g != w || len(want.Monitors) != 2 {
		t.Errorf("in pieces: %s\nwhole: %s", g, w)
	}
	rows := func(a *pipeline.Analysis) (out []string) {
		for r, err := range a.Attempts() {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%x %x %v", r.ID, r.IntentID, r.Relation))
		}
		return out
	}
	if g, w := rows(joined), rows(whole); !slices.Equal(g, w) {
		t.Errorf("%d rows in pieces, %d whole, or of other relations", len(g), len(w))
	}
}
