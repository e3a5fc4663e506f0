package replay_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"squall/dissect"
	"squall/replay"
	"squall/replay/testnode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// cluster starts test nodes of one dialect.
func cluster(t testing.TB, dialect string, cfgs ...replay.NodeConfig) *testnode.Cluster {
	t.Helper()
	d, ok := replay.FindDialect(dialect)
	if !ok {
		t.Fatalf("no dialect %q", dialect)
	}
	var list []testnode.Config
	for i, c := range cfgs {
		list = append(list, testnode.Config{Listen: anyPort, Dialect: d, Node: c, Seed: uint64(i)})
	}
	c, err := testnode.StartCluster(list)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// planOf makes a plan by hand.
func planOf(t testing.TB, dialect, pol string, nodes int, duration time.Duration, items ...replay.Item) *replay.Plan {
	t.Helper()
	p := &replay.Plan{Header: replay.Header{Version: replay.PlanVersion, Mode: "intent", Begin: 1e18, Duration: duration,
		Groups: []replay.Group{{Name: "all", Service: dialect, Policy: policy(t, pol)}}}, Items: items}
	for range nodes {
		p.Nodes = append(p.Nodes, replay.PlanNode{Address: "192.0.2.1:1", Protocol: dialect, Dialect: dialect})
	}
	for _, it := range items {
		p.Clients = max(p.Clients, int(it.Client)+1)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return p
}

func guard(t testing.TB) *replay.Guard {
	t.Helper()
	g, err := replay.NewGuard(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// collect runs a runner and keeps its rows.
func collect(t testing.TB, ctx context.Context, r *replay.Runner) (rows []replay.Result, s *replay.Summary, err error) {
	t.Helper()
	r.Emit = func(x *replay.Result) { rows = append(rows, *x) }
	s, err = r.Run(ctx)
	return rows, s, err
}

// TestRunDecidesTheLastAttempts: what began in the last moment of a plan, which
// may be its only one, is decided; nobody retries after it.
func TestRunDecidesTheLastAttempts(t *testing.T) {
	t.Parallel()
	for _, dialect := range []string{"udp", "tcp"} {
		c := cluster(t, dialect, replay.NodeConfig{}, replay.NodeConfig{})
		c.Do(replay.Event{Node: 0, Do: replay.Delay, Value: 0.05})
		c.Do(replay.Event{Node: 1, Do: replay.Down})
		p := planOf(t, dialect, "fixed(1ms, timeout 200ms)", 2, 1, replay.Item{}, replay.Item{Client: 1, Node: 1})
		rows, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t)})
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != 2 || s.Outcomes[dissect.OutcomeAccepted] != 1 || s.Outcomes[dissect.OutcomeUnknown] != 0 || s.Retries != 0 || s.Stopped != "" {
			t.Errorf("%s: %d rows, outcomes %v, %d retries, stopped %q", dialect, len(rows), s.Outcomes, s.Retries, s.Stopped)
		}
	}
}

// TestRunner: every dialect; every client gets in, from an address of its own,
// and every row says so.
func TestRunner(t *testing.T) {
	t.Parallel()
	for _, d := range replay.Dialects() {
		const clients = 60
		c := cluster(t, d.Name(), replay.NodeConfig{}, replay.NodeConfig{})
		var items []replay.Item
		for i := range clients {
			items = append(items, replay.Item{At: time.Duration(i) * 5 * time.Millisecond, Client: int32(i), Node: int32(i % 2), Hold: 50 * time.Millisecond})
		}
		p := planOf(t, d.Name(), "fixed(1s, timeout 500ms)", 2, 600*time.Millisecond, items...)
		rows, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t)})
		if err != nil {
			t.Fatal(err)
		}
		if s.Attempts != clients || s.Outcomes[dissect.OutcomeAccepted] != clients || s.Begun != clients || s.Local != 0 || s.Unsent != 0 || len(rows) != clients {
			t.Errorf("%s: %d rows, %+v", d.Name(), len(rows), s)
		}
		seen := map[dissect.Addr]bool{}
		for _, r := range rows {
			if !r.Source.Addr.IP().IsLoopback() || seen[r.Source.Addr] {
				t.Errorf("%s: source %v", d.Name(), r.Source)
			}
			seen[r.Source.Addr] = true
			if r.Outcome != dissect.OutcomeAccepted || r.Relation != dissect.RelationFirst || r.Number != 1 || r.Sent < r.Due || r.Answered < r.Sent ||
				r.Start < 1e18 || r.End < r.Start || r.SessionEnded != dissect.SessionByClient || r.SessionEnd < r.End || r.SourceBytes == 0 || r.DestinationBytes == 0 {
				t.Errorf("%s: %+v", d.Name(), r)
			}
		}
		for i, n := range c.Nodes() {
			if k := n.Counters(); k.Accepted != clients/2 {
				t.Errorf("%s: node %d accepted %d", d.Name(), i+1, k.Accepted)
			}
		}
		if s.Work == "" {
			t.Errorf("%s: nothing said of the work", d.Name())
		}
	}
}

// TestRunnerOutcomes: what a target does is what the rows say. It runs alone, for the
// sockets of others may get the port of a node that closed.
func TestRunnerOutcomes(t *testing.T) {
	for _, tc := range []struct {
		name    string
		dialect string
		do      replay.Action
		cfg     replay.NodeConfig
		want    dissect.Outcome
	}{
		{"closed", "tcp", replay.Close, replay.NodeConfig{}, dissect.OutcomeRefused},
		{"closed", "udp", replay.Close, replay.NodeConfig{}, dissect.OutcomeRefused},
		{"silent", "tcp", replay.Down, replay.NodeConfig{}, dissect.OutcomeTimeout},
		{"silent", "sip", replay.Down, replay.NodeConfig{}, dissect.OutcomeTimeout},
		{"throttling", "sip", replay.Raise, replay.NodeConfig{Rate: 1e-9, RetryAfter: 3 * time.Second}, dissect.OutcomeThrottled},
		{"throttling", "tcp", replay.Raise, replay.NodeConfig{Rate: 1e-9, RetryAfter: 3 * time.Second}, dissect.OutcomeThrottled},
		{"resetting", "tcp", replay.Raise, replay.NodeConfig{ProtectAt: 1e-9}, dissect.OutcomeDropped},
		{"slow", "gnutella", replay.Delay, replay.NodeConfig{}, dissect.OutcomeStalled},
	} {
		c := cluster(t, tc.dialect, tc.cfg)
		if tc.cfg.Rate > 0 { // its one token
			warm := planOf(t, tc.dialect, "none(timeout 300ms)", 1, 100*time.Millisecond, replay.Item{})
			if _, _, err := collect(t, t.Context(), &replay.Runner{Plan: warm, Targets: c.Addrs(), Guard: guard(t)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Do(replay.Event{Node: -1, Do: tc.do, Value: 30}); err != nil {
			t.Fatal(err)
		}
		p := planOf(t, tc.dialect, "none(timeout 300ms)", 1, 600*time.Millisecond, replay.Item{})
		rows, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t)})
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != 1 || rows[0].Outcome != tc.want || s.Outcomes[tc.want] != 1 {
			t.Errorf("%s %s: %+v; %+v", tc.dialect, tc.name, rows, s)
			continue
		}
		if tc.want == dissect.OutcomeThrottled && rows[0].RetryAfter != int64(3*time.Second) && tc.dialect != "gnutella" {
			t.Errorf("%s %s: retry after %d", tc.dialect, tc.name, rows[0].RetryAfter)
		}
	}
}

// TestRunnerRetries: the policy reacts: limit, relations, gaps, late answers.
func TestRunnerRetries(t *testing.T) {
	t.Parallel()
	c := cluster(t, "udp", replay.NodeConfig{})
	if err := c.Do(replay.Event{Node: -1, Do: replay.Delay, Value: 0.3}); err != nil {
		t.Fatal(err)
	}
	p := planOf(t, "udp", "fixed(100ms, limit 3, timeout 100ms)", 1, 3*time.Second, replay.Item{})
	rows, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t)})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || s.Attempts != 3 || s.Retries != 2 || s.Late != 3 || s.Outcomes[dissect.OutcomeTimeout] != 3 {
		t.Fatalf("%d rows, %+v", len(rows), s)
	}
	byNumber := map[int32]replay.Result{}
	for _, r := range rows {
		byNumber[r.Number] = r
		if r.IntentID != rows[0].IntentID || !r.Late || r.Answered == 0 || (r.Relation == dissect.RelationRetry) != (r.Number > 1) {
			t.Errorf("%+v", r)
		}
	}
	for k := int32(2); k <= 3; k++ {
		if gap := byNumber[k].Due - byNumber[k-1].Due; gap < int64(200*time.Millisecond) {
			t.Errorf("attempt %d came %v after the one before", k, time.Duration(gap))
		}
	}
}

// TestRunnerFailsOver: a dead node's clients go to the next; its sessions are
// wished for again.
func TestRunnerFailsOver(t *testing.T) {
	t.Parallel()
	c := cluster(t, "gnutella", replay.NodeConfig{}, replay.NodeConfig{})
	var items []replay.Item
	for i := range 20 {
		items = append(items, replay.Item{At: time.Duration(i) * time.Millisecond, Client: int32(i)})
	}
	p := planOf(t, "gnutella", "fixed(20ms, timeout 200ms, round_robin)", 2, 1500*time.Millisecond, items...)
	rows, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t), Do: c.Do, Reattach: 100 * time.Millisecond,
		Script: script(t, "at 500ms: node 1 close")})
	if err != nil {
		t.Fatal(err)
	}
	at := map[dissect.Relation]int{}
	for _, r := range rows {
		at[r.Relation]++
	}
	if s.Lost != 20 || at[dissect.RelationFirst] != 20 || at[dissect.RelationReattach] != 20 || s.Outcomes[dissect.OutcomeAccepted] != 40 {
		t.Errorf("%v, %+v", at, s)
	}
	if k := c.Nodes()[1].Counters(); k.Accepted != 20 {
		t.Errorf("the second node took %d", k.Accepted)
	}
}

// TestRunnerFindsDeadSessions: a silent node is noticed by the keepalive over
// TCP and by the refresh over UDP.
func TestRunnerFindsDeadSessions(t *testing.T) {
	t.Parallel()
	for _, dialect := range []string{"tcp", "gnutella", "bitcoin", "sip"} {
		c := cluster(t, dialect, replay.NodeConfig{})
		p := planOf(t, dialect, "none(timeout 200ms)", 1, 2*time.Second, replay.Item{})
		p.Groups[0].Refresh = 200 * time.Millisecond
		rows, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t), Do: c.Do, Keepalive: 200 * time.Millisecond,
			Reattach: 10 * time.Millisecond, Script: script(t, "at 700ms: node 1 down")})
		if err != nil {
			t.Fatal(err)
		}
		lost := 0
		for _, r := range rows {
			if r.SessionEnded == dissect.SessionLost {
				lost++
			}
		}
		if k := c.Nodes()[0].Counters(); s.Lost != 1 || lost != 1 || k.Strange != 0 {
			t.Errorf("%s: %+v\n%+v\n%+v", dialect, s, rows, k)
		}
	}
}

// TestRunnerRefuses: everything that must not run does not, in one line, and
// the target never hears of it.
func TestRunnerRefuses(t *testing.T) {
	c := cluster(t, "udp", replay.NodeConfig{})
	fine := func() *replay.Runner {
		return &replay.Runner{Plan: planOf(t, "udp", "none", 1, time.Second, replay.Item{}), Targets: c.Addrs(), Guard: guard(t)}
	}
	for _, tc := range []struct {
		want    string
		refusal bool
		change  func(*replay.Runner)
	}{
		{"no --target", true, func(r *replay.Runner) { r.Targets = nil }},
		{"public", true, func(r *replay.Runner) {
			r.Targets = append(r.Targets, netip.MustParseAddrPort("8.8.8.8:53"))
		}},
		{"private", true, func(r *replay.Runner) { r.Targets = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:53")} }},
		{"never", true, func(r *replay.Runner) { r.Targets = []netip.AddrPort{netip.MustParseAddrPort("[::ffff:224.0.0.1]:53")} }},
		{"the cap is", true, func(r *replay.Runner) { r.Caps.MaxDuration = time.Millisecond }},
		{"guard", false, func(r *replay.Runner) { r.Guard = nil }},
		{"clients want a socket each", true, func(r *replay.Runner) {
			r.Plan.Clients, r.Plan.Nodes[0].Dialect = 4_000_000, "tcp"
		}},
		{"an address each", false, func(r *replay.Runner) { r.Plan.Clients, r.Bind = 300, netip.MustParsePrefix("127.9.0.0/24") }},
		{"two dialects", false, nil},
		{"script", false, func(r *replay.Runner) { r.Script = []replay.Event{{}} }},
		{"speed", false, func(r *replay.Runner) { r.Speed = -1 }},
	} {
		r := fine()
		if tc.change == nil {
			tc.want = "would have to speak"
			r.Plan.Nodes = append(r.Plan.Nodes, replay.PlanNode{Dialect: "sip"})
		} else {
			tc.change(r)
		}
		_, err := r.Run(t.Context())
		var no *replay.Refusal
		if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, &no) != tc.refusal || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", tc.want, err)
		}
	}
	if k := c.Nodes()[0].Counters(); k.Requests+k.Strange != 0 {
		t.Errorf("the target heard of it: %+v", k)
	}
}

// TestRunnerStops: whatever clients are doing, a run ends at once.
func TestRunnerStops(t *testing.T) {
	t.Parallel()
	for _, dialect := range []string{"tcp", "sip"} {
		c := cluster(t, dialect, replay.NodeConfig{Capacity: 50})
		var items []replay.Item
		for i := range 2000 {
			items = append(items, replay.Item{At: time.Duration(i) * time.Millisecond, Client: int32(i)})
		}
		p := planOf(t, dialect, "fixed(50ms, timeout 300ms)", 1, time.Minute, items...)
		ctx, cancel := context.WithCancel(t.Context())
		var once sync.Once
		var at time.Time
		stopped := time.AfterFunc(700*time.Millisecond, func() { once.Do(func() { at = time.Now(); cancel() }) })
		rows, s, err := collect(t, ctx, &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t), Caps: replay.Caps{MaxRate: 1e6}})
		took := time.Since(at)
		stopped.Stop()
		cancel()
		if err != nil || s.Stopped != "interrupted" || s.Begun == 0 || len(rows) == 0 {
			t.Errorf("%s: %v, %+v", dialect, err, s)
		}
		if int64(len(rows)) != s.Attempts {
			t.Errorf("%s: %d rows of %d attempts", dialect, len(rows), s.Attempts)
		}
		t.Logf("%s: stopped within %v, %d attempts", dialect, took, s.Attempts)
		if took > 2*time.Second { // 100 ms on a machine that does nothing else
			t.Errorf("%s: stopping took %v", dialect, took)
		}
	}
}

// TestRunnerCaps: rate, bytes, collapse and lost consent end or taint a run.
func TestRunnerCaps(t *testing.T) {
	t.Parallel()
	c := cluster(t, "udp", replay.NodeConfig{})
	var items []replay.Item
	for i := range 300 {
		items = append(items, replay.Item{At: time.Duration(i) * 5 * time.Millisecond, Client: int32(i), Hold: time.Millisecond})
	}
	p := planOf(t, "udp", "none(timeout 200ms)", 1, 3*time.Second, items...)
	_, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t), Caps: replay.Caps{MaxRate: 50}})
	if err != nil || s.Unsent == 0 || s.PeakRate > 50 || s.Valid() || s.Attempts+s.Unsent != 300 {
		t.Errorf("rate: %v, %+v", err, s)
	}
	_, s, err = collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t), Caps: replay.Caps{MaxBytes: 1000}})
	if err != nil || !strings.Contains(s.Stopped, "bytes") || s.Attempts == 300 {
		t.Errorf("bytes: %v, %+v", err, s)
	}
}

// TestRunnerIsTheSame: with the same seed the clients make the same decisions;
// rows keep to the time of the recording at any speed.
func TestRunnerIsTheSame(t *testing.T) {
	t.Parallel()
	draw := func(speed float64) string {
		c := cluster(t, "udp", replay.NodeConfig{}, replay.NodeConfig{}, replay.NodeConfig{})
		if err := c.Do(replay.Event{Node: -1, Do: replay.Close}); err != nil {
			t.Fatal(err)
		}
		p := planOf(t, "udp", "fixed(1s, equal, limit 4, timeout 1s, random)", 3, 4*time.Second, replay.Item{}, replay.Item{At: 100 * time.Millisecond, Client: 1})
		rows, _, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t), Seed: 7, Speed: speed})
		if err != nil {
			t.Fatal(err)
		}
		nodes := map[uint16]int{}
		for i, a := range c.Addrs() {
			nodes[a.Port()] = i
		}
		way := map[string]string{}
		for _, r := range rows {
			if r.Start-1e18 > int64(4500*time.Millisecond) || r.Start < 1e18 {
				t.Errorf("speed %v: an attempt at %v of the recording", speed, time.Duration(r.Start-1e18))
			}
			way[r.ClientID] += fmt.Sprintf(" %d:%d", r.Number, nodes[r.Destination.Port])
		}
		return fmt.Sprint(way)
	}
	if a, b := draw(4), draw(8); a != b || !strings.Contains(a, "4:") {
		t.Errorf("two ways through the same run:\n%s\n%s", a, b)
	}
}

// TestNothingIsSentUnasked: checking a run opens no socket.
func TestNothingIsSentUnasked(t *testing.T) {
	t.Parallel()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(anyPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	r := replay.Runner{Plan: planOf(t, "udp", "none", 1, time.Second, replay.Item{}), Targets: []netip.AddrPort{at}, Guard: guard(t)}
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, from, err := c.ReadFromUDPAddrPort(make([]byte, 99)); err == nil {
		t.Errorf("%d bytes from %v", n, from)
	}
}

// TestRealtime: the threads that send run before others, and end with the run.
func TestRealtime(t *testing.T) {
	rt, err := replay.NewRealtime()
	if err != nil {
		t.Skipf("needs leave to run at real-time priority (root, or ulimit -r 1): %v", err)
	}
	c := cluster(t, "udp", replay.NodeConfig{})
	var items []replay.Item
	for i := range 50 {
		items = append(items, replay.Item{At: time.Duration(i) * 10 * time.Millisecond, Client: int32(i)})
	}
	prior := 0
	r := &replay.Runner{Plan: planOf(t, "udp", "none(timeout 500ms)", 1, 600*time.Millisecond, items...), Targets: c.Addrs(), Guard: guard(t), Realtime: rt,
		Script: script(t, "at 300ms: node 1 capacity 1"), Do: func(replay.Event) error { prior = realtimeThreads(t); return nil }}
	_, s, err := collect(t, t.Context(), r)
	rt.Close()
	if err != nil || !s.Realtime || s.Outcomes[dissect.OutcomeAccepted] != 50 || prior == 0 {
		t.Errorf("%v, %d threads before others, %+v", err, prior, s)
	}
	for range 200 {
		if realtimeThreads(t) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a thread stays before others when the run is over")
}

// realtimeThreads counts the threads of this process with policy SCHED_RR
// (proc(5), field 41 of stat).
func realtimeThreads(t *testing.T) (n int) {
	list, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil || len(list) == 0 {
		t.Skip("needs /proc to see the threads' priorities (Linux)")
	}
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // over
		}
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > 38 && f[38] == "2" {
			n++
		}
	}
	return n
}
