package replay_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/replay"
	"squall/samples"
)

// TestRoundTripsAreLearnt: the handshakes of a capture tell the round trips of
// its simulation, though it was taken next to the nodes.
func TestRoundTripsAreLearnt(t *testing.T) {
	t.Parallel()
	in := recording(t, "outage", 0, func(sc *samples.Scenario) {
		sc.Protocol, sc.Refresh, sc.RTT = "tcp", 0, 80*time.Millisecond
	})
	a, report := analyseBytes(t, bytes.NewBuffer(in))
	defer a.Close()
	p, err := replay.NewPlan(a, report, replay.PlanOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	again, err := capture.Open([]string{"-"}, capture.Options{Stdin: bytes.NewReader(in)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := p.Learn(again, true); err != nil {
		t.Fatal(err)
	}
	n := len(p.RoundTrips)
	if n < 10 || p.RoundTrips[n/2] < 40*time.Millisecond || p.RoundTrips[n/2] > 160*time.Millisecond || p.RoundTrips[0] > p.RoundTrips[n-1] ||
		!strings.Contains(p.Summary(), "round trips ") {
		t.Errorf("%v\n%s", p.RoundTrips, p.Summary())
	}
	t.Log(p.RoundTrips[0], p.RoundTrips[n/2], p.RoundTrips[n-1])
}

// TestRoundTrips: every client hears its node a round trip later than without,
// twice over TCP, where the handshake takes one, too; refusals and errors come
// no earlier. A client has the same round trip all along.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	const short, long = 30 * time.Millisecond, 90 * time.Millisecond
	for _, name := range []string{"tcp", "udp", "gnutella", "sip"} {
		d, _ := replay.FindDialect(name)
		c := cluster(t, d.Name(), replay.NodeConfig{}, replay.NodeConfig{})
		if err := c.Do(replay.Event{Node: 1, Do: replay.Close}); err != nil {
			t.Fatal(err)
		}
		var items []replay.Item
		for i := range 40 {
			items = append(items, replay.Item{At: time.Duration(i) * 5 * time.Millisecond, Client: int32(i), Node: int32(i % 2), Hold: 50 * time.Millisecond})
		}
		p := planOf(t, d.Name(), "none(timeout 2s)", 2, 700*time.Millisecond, items...)
		run := &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t), RoundTrips: true, UntilCollapse: true, Seed: 1}
		if err := run.Check(); err == nil || !strings.Contains(err.Error(), "--round-trips") {
			t.Errorf("a plan that knows none: %v", err)
		}
		p.RoundTrips = []time.Duration{short, long}
		rows, s, err := collect(t, t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != 40 || s.Outcomes[dissect.OutcomeAccepted] != 20 || s.Outcomes[dissect.OutcomeRefused] != 20 {
			t.Errorf("%s: %d rows, %v", d.Name(), len(rows), s.Outcomes)
		}
		for i := range rows {
			r := &rows[i]
			legs := time.Duration(1)
			if r.Outcome == dissect.OutcomeAccepted && d.Transport() == dissect.TCP {
				if legs = 2; time.Duration(r.HandshakeRTT) < short {
					t.Errorf("%s: a handshake of %v", d.Name(), time.Duration(r.HandshakeRTT))
				}
			}
			if took := time.Duration(r.End - r.Start); took < legs*short-time.Millisecond {
				t.Errorf("%s: %v after %v", d.Name(), r.Outcome, took)
			}
		}
	}
}
