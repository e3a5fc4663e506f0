package replay_test

import (
	"bytes"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/replay"
	"squall/samples"
)

// analyse simulates a sample and analyses its packets.
func analyse(t testing.TB, name string, seed uint64) (*pipeline.Analysis, *storm.Report, *samples.Truth) {
	t.Helper()
	var b bytes.Buffer
	truth, err := samples.Write(&b, name, seed, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a, report := analyseBytes(t, &b)
	return a, report, truth
}

// small is the scenario s2 with a third of its length.
func small(t testing.TB) (*pipeline.Analysis, *storm.Report) {
	t.Helper()
	sc, ok := samples.Find("s2")
	if !ok {
		t.Fatal("no sample s2")
	}
	sc.Duration, sc.Trigger = 2*time.Minute, 30*time.Second
	for i := range sc.Script {
		sc.Script[i].At -= 150 * time.Second
	}
	return simulated(t, sc, 1)
}

func analyseBytes(t testing.TB, b *bytes.Buffer) (*pipeline.Analysis, *storm.Report) {
	t.Helper()
	return analyseWith(t, []string{"-"}, capture.Options{Stdin: b}, dissect.Hints{})
}

func analyseWith(t testing.TB, names []string, opt capture.Options, hints dissect.Hints) (*pipeline.Analysis, *storm.Report) {
	t.Helper()
	src, err := capture.Open(names, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	a, err := pipeline.Run(t.Context(), pipeline.Config{Protocols: overlay.All(), Hints: hints}, src)
	if err != nil {
		t.Fatal(err)
	}
	report, err := a.Judge(storm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return a, report
}

// TestPlanKnowsWhoJoined: nodes that come in the middle are known from then on,
// to the clients of a replay, too; the one that was only asked once the first
// had failed was there all along.
func TestPlanKnowsWhoJoined(t *testing.T) {
	t.Parallel()
	sc, _ := samples.Find("outage")
	sc.Protocol, sc.Refresh, sc.Duration, sc.Trigger, sc.Policy.Order = "tcp", 0, time.Minute, 20*time.Second, "random"
	sc.Script = []samples.Step{{At: 20 * time.Second, Do: "close", Nodes: []int{0, 1, 2}}, {At: 40 * time.Second, Do: "add", Factor: 2}}
	a, report := simulated(t, sc, 1)
	defer a.Close()
	p, err := replay.NewPlan(a, report, replay.PlanOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	joined := 0
	for _, n := range p.Nodes {
		if n.Joined != 0 {
			joined++
			if n.Joined < 39*time.Second || n.Joined > 45*time.Second {
				t.Errorf("%s joined after %v", n.Address, n.Joined)
			}
		}
	}
	if joined != 2 || len(p.Nodes) != 5 || !strings.Contains(p.Summary(), "nobody knows it before 4") {
		t.Errorf("%d of %d nodes joined\n%s", joined, len(p.Nodes), p.Summary())
	}

	c := cluster(t, "udp", replay.NodeConfig{}, replay.NodeConfig{})
	c.Do(replay.Event{Node: 0, Do: replay.Close})
	p = planOf(t, "udp", "fixed(20ms, timeout 100ms, random)", 2, time.Second, replay.Item{}, replay.Item{Client: 1})
	p.Nodes[1].Joined = 600 * time.Millisecond
	rows, _, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t)})
	if err != nil {
		t.Fatal(err)
	}
	before, after := 0, 0
	for i := range rows {
		switch r := &rows[i]; {
		case r.Due < int64(600*time.Millisecond) && r.Outcome.Failed():
			before++
		case r.Due >= int64(600*time.Millisecond) && r.Outcome == dissect.OutcomeAccepted:
			after++
		case r.Outcome == dissect.OutcomeAccepted:
			t.Errorf("accepted by a node that nobody knew: %+v", r)
		}
	}
	if before == 0 || after != 2 {
		t.Errorf("%d attempts before, %d clients in after it joined", before, after)
	}
}

// TestPlanHasTheDemand: as many wishes as the clients of the simulation had,
// at their times, and the policy close to theirs though nobody inferred it.
func TestPlanHasTheDemand(t *testing.T) {
	a, _, truth := analyse(t, "s2", 1)
	p, err := replay.NewPlan(a, nil, replay.PlanOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	// Clients whose wishes come closer together than W have fewer and longer intents.
	if got, want := float64(len(p.Items)), float64(truth.Intents); math.Abs(got/want-1) > 0.15 {
		t.Errorf("%v wishes of %v", got, want)
	}
	var wait time.Duration
	for _, g := range p.Groups {
		pol := g.Policy
		if pol.Family != replay.Empirical || pol.Limit != 3 || pol.Order != replay.Sticky || g.Basis != "recorded" {
			t.Errorf("%s: %v, %s", g.Name, pol, g.Basis)
		}
		wait = pol.Wait(1, 0, 0, 0.5)
		if d := pol.Patience(); d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Errorf("patience %v, want about 1 s", d)
		}
	}
	if wait < 900*time.Millisecond || wait > 1100*time.Millisecond {
		t.Errorf("typical wait %v, want about 1 s", wait)
	}
	if len(p.Nodes) != 1 || p.Clients < 1000 || len(p.Recorded) < p.Clients {
		t.Errorf("%d nodes, %d clients, %d recorded addresses", len(p.Nodes), p.Clients, len(p.Recorded))
	}
	s := p.Summary()
	for _, want := range []string{"mode        intent", "tcp: a line of text", p.Hash()} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	// The guard made from the plan refuses the recorded nodes.
	g, err := replay.NewGuard([]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, p.Recorded)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Check(netip.MustParseAddrPort(p.Nodes[0].Address).Addr()); err == nil {
		t.Error("the recorded node may be sent to")
	}
}

// TestPlanFile: written and read back, the same; the same capture gives the
// same file; every cut of it is an error or a shorter plan, never a panic.
func TestPlanFile(t *testing.T) {
	a, report, _ := analyse(t, "outage", 1)
	p, err := replay.NewPlan(a, report, replay.PlanOptions{Seed: 3, Sources: []string{"x.pcap"}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	q, err := replay.ReadPlan(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Recorded, q.Recorded) || !slices.Equal(p.Items, q.Items) || p.Hash() != q.Hash() {
		t.Errorf("read back differently:\n%+v\n%+v", p.Header, q.Header)
	}
	again, err := replay.NewPlan(a, report, replay.PlanOptions{Seed: 3, Sources: []string{"x.pcap"}})
	if err != nil || again.Hash() != p.Hash() {
		t.Errorf("the same capture gives another plan: %v", err)
	}
	o, err := replay.ParseOverride("policy: budget 10%")
	if err != nil {
		t.Fatal(err)
	}
	before := q.Hash()
	if err := q.Override([]replay.Override{o}); err != nil || q.Hash() == before || q.Groups[0].Policy.Budget != 0.1 {
		t.Errorf("override: %v, %v", err, q.Groups[0].Policy)
	}
	lines := bytes.SplitAfter(b.Bytes(), []byte("\n"))
	for _, bad := range []string{"", "{}\n", "nonsense\n", string(lines[0]) + "{\"at\":-1}\n", string(lines[0]) + "{\"c\":1000000}\n",
		string(lines[0]) + "{\"n\":99}\n", string(lines[0]) + "{\n", strings.Replace(string(lines[0]), `"squall_plan":2`, `"squall_plan":9`, 1)} {
		if _, err := replay.ReadPlan(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), "plan: ") {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func TestPlanOptions(t *testing.T) {
	a, report := small(t)
	plan := func(opt replay.PlanOptions) *replay.Plan {
		t.Helper()
		p, err := replay.NewPlan(a, report, opt)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	all := plan(replay.PlanOptions{})
	half := plan(replay.PlanOptions{ScaleClients: 0.5})
	more := plan(replay.PlanOptions{ScaleClients: 2.5})
	if r := float64(half.Clients) / float64(all.Clients); r < 0.45 || r > 0.55 {
		t.Errorf("half the clients: %.2f", r)
	}
	if r := float64(len(more.Items)) / float64(len(all.Items)); r < 2.4 || r > 2.6 {
		t.Errorf("2.5 times the clients: %.2f times the wishes", r)
	}
	if last := more.Items[len(more.Items)-1].At; last >= more.Duration {
		t.Errorf("the last wish comes after %v of %v", last, more.Duration)
	}
	window := plan(replay.PlanOptions{From: 20 * time.Second, To: 40 * time.Second})
	if window.Duration != 20*time.Second || len(window.Items) == 0 || len(window.Items) > len(all.Items)/3 {
		t.Errorf("twenty seconds: %v, %d of %d wishes", window.Duration, len(window.Items), len(all.Items))
	}
	attempts := plan(replay.PlanOptions{Mode: replay.AttemptMode})
	if int64(len(attempts.Items)) != attempts.Coverage.Recorded.Attempts || len(attempts.Items) <= len(all.Items) {
		t.Errorf("%d of %d attempts, %d wishes", len(attempts.Items), attempts.Coverage.Recorded.Attempts, len(all.Items))
	}
	if !strings.Contains(attempts.Summary(), "open loop") {
		t.Error("the attempt mode is not warned of")
	}
	for want, opt := range map[string]replay.PlanOptions{
		"packet mode": {Mode: replay.PacketMode}, "scale": {ScaleClients: -1}, "no demand": {Service: "nobody"}, "window": {From: 24 * time.Hour},
	} {
		if _, err := replay.NewPlan(a, report, opt); err == nil || !strings.Contains(err.Error(), strings.Fields(want)[0]) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
}

// TestPlanOfACascade: sessions that a node ended are left to the loop, clients
// that came back by themselves are planned.
func TestPlanOfACascade(t *testing.T) {
	a, report, truth := analyse(t, "skype-2010", 1)
	p, err := replay.NewPlan(a, report, replay.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	restarts := 0
	for _, it := range p.Items {
		if it.Restart {
			restarts++
		}
	}
	t.Logf("\n%s%d restarts", p.Summary(), restarts)
	if len(p.Items) < 700 || len(p.Items) > truth.Intents || restarts == 0 || restarts > 400 {
		t.Errorf("%d wishes of %d, %d restarts", len(p.Items), truth.Intents, restarts)
	}
}

// TestPlanAccountsForEverything: each recorded attempt, intent and client is
// planned, arises by itself or is left out for a reason, once; counted here from
// the rows alone.
func TestPlanAccountsForEverything(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"outage", "s8", "n15"} { // refreshes, dropped sessions, twins
		sc, _ := samples.Find(name)
		sc.Script = slices.Clone(sc.Script)
		for i := range sc.Script {
			sc.Script[i].At -= sc.Trigger - 20*time.Second
		}
		sc.Duration, sc.Trigger = time.Minute, 20*time.Second
		a, report := simulated(t, sc, 1)
		defer a.Close()
		intents, clients, inWindow := map[uint64]bool{}, map[string]bool{}, int64(0)
		attempts := int64(0)
		first, _ := a.Span()
		for row, err := range a.Attempts() {
			if err != nil {
				t.Fatal(err)
			}
			attempts++
			clients[row.ClientID] = true
			if row.Relation != dissect.RelationRefresh && row.Relation != dissect.RelationParallel && row.Relation != dissect.RelationMonitor {
				intents[row.IntentID] = true
			}
			if at := time.Duration(row.Start - first); at >= 20*time.Second && at < 40*time.Second {
				inWindow++
			}
		}
		for _, opt := range []replay.PlanOptions{{}, {ScaleClients: 0.3}, {ScaleClients: 2}, {From: 20 * time.Second, To: 40 * time.Second},
			{Mode: replay.AttemptMode}, {Mode: replay.AttemptMode, From: 20 * time.Second, To: 40 * time.Second}} {
			p, err := replay.NewPlan(a, report, opt)
			if err != nil {
				t.Fatal(name, err)
			}
			c := &p.Coverage
			if want := (replay.Share{Attempts: attempts, Intents: int64(len(intents)), Clients: int64(len(clients))}); c.Recorded != want {
				t.Errorf("%s %+v: recorded %+v, want %+v", name, opt, c.Recorded, want)
			}
			sum := c.Covered
			for _, m := range []map[string]replay.Share{c.Arises, c.LeftOut} {
				for _, s := range m {
					sum.Attempts, sum.Intents, sum.Clients = sum.Attempts+s.Attempts, sum.Intents+s.Intents, sum.Clients+s.Clients
				}
			}
			if sum != c.Recorded {
				t.Errorf("%s %+v: %+v in all, recorded %+v\n%s", name, opt, sum, c.Recorded, c.Text())
			}
			for why, s := range c.Arises {
				if s.Clients != 0 {
					t.Errorf("%s %+v: of %d clients that are not there arises: %s", name, opt, s.Clients, why)
				}
			}
			if got := c.LeftOut["clients left out by --scale-clients"].Clients; opt.ScaleClients > 0 && opt.ScaleClients < 1 && got != c.Recorded.Clients-c.Covered.Clients {
				t.Errorf("%s %+v: %d clients of %d are covered, %d left out by scaling", name, opt, c.Covered.Clients, c.Recorded.Clients, got)
			}
			planned := map[int32]bool{}
			for _, it := range p.Items {
				planned[it.Client] = true
			}
			if opt.ScaleClients <= 1 && c.Covered.Clients != int64(len(planned)) {
				t.Errorf("%s %+v: %d clients covered, %d planned", name, opt, c.Covered.Clients, len(planned))
			}
			if opt.Mode == replay.AttemptMode && c.Covered.Attempts != int64(len(p.Items)) || opt.Mode == replay.AttemptMode && opt.To > 0 && c.Covered.Attempts != inWindow {
				t.Errorf("%s %+v: %d attempts covered, %d planned, %d in the window", name, opt, c.Covered.Attempts, len(p.Items), inWindow)
			}
			for _, line := range strings.Split(c.Text(), "\n") {
				if len(line) > 80 {
					t.Errorf("%d columns: %s", len(line), line)
				}
			}
		}
	}
}

// TestPlanOfAnotherVersion: said before anything else is wrong with it.
func TestPlanOfAnotherVersion(t *testing.T) {
	_, err := replay.ReadPlan(strings.NewReader(`{"squall_plan":1,"coverage":{"left_out":{"refreshes":5}}}`))
	if err == nil || !strings.Contains(err.Error(), "version 1") {
		t.Error(err)
	}
}

func FuzzReadPlan(f *testing.F) {
	f.Add([]byte(`{"squall_plan":2,"mode":"intent","duration_ns":5,"clients":1,"nodes":[{"dialect":"sip"}],"groups":[{"policy":"fixed(1s)"}]}` + "\n" + `{"at":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := replay.ReadPlan(bytes.NewReader(b))
		if err != nil {
			return
		}
		p.Summary()
		w := replay.World{Demand: p.Wishes(), Policies: p.Policies(), Nodes: make([]replay.NodeConfig, len(p.Nodes)), Duration: time.Second}
		w.Run()
	})
}
