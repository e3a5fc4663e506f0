package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"squall/replay"
	"squall/replay/testnode"
)

// nodes starts test nodes on loopback and gives the flags that name them.
func nodes(t *testing.T, protocol string, count int, cfg replay.NodeConfig) (c *testnode.Cluster, flags []string) {
	t.Helper()
	d, ok := replay.FindDialect(protocol)
	if !ok {
		t.Fatalf("no dialect %q", protocol)
	}
	var list []testnode.Config
	for i := range count {
		list = append(list, testnode.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Dialect: d, Node: cfg, Seed: uint64(i)})
	}
	c, err := testnode.StartCluster(list)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	for _, a := range c.Addrs() {
		flags = append(flags, "--target", a.String())
	}
	return c, flags
}

// outagePlan makes the plan of the small outage.
func outagePlan(t *testing.T, flags ...string) (capture, plan string) {
	t.Helper()
	dir := t.TempDir()
	capture, plan = filepath.Join(dir, "outage.pcapng"), filepath.Join(dir, "outage.plan")
	if code, _, errs := squall(nil, "sample", "outage", "-w", capture); code != 0 {
		t.Fatal(errs)
	}
	code, out, errs := squall(nil, append([]string{"plan", capture, "-w", plan}, flags...)...)
	if code != 0 || errs != "" || len(flags) == 0 && !strings.Contains(out, "clients     60\n") || !strings.Contains(out, "Phone/2.1 on sip/") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	return capture, plan
}

// TestPlanSaysWhatItCovers: in every form, the change ticket among them.
func TestPlanSaysWhatItCovers(t *testing.T) {
	capture, plan := outagePlan(t)
	var d struct {
		Coverage replay.Coverage `json:"coverage"`
		Hash     string          `json:"plan_sha256"`
	}
	code, out, errs := squall(nil, "plan", capture, "-T", "json")
	if err := json.Unmarshal([]byte(out), &d); err != nil || code != 0 || d.Coverage.Recorded.Attempts == 0 || d.Coverage.Covered.Clients != 60 || len(d.Hash) != 64 {
		t.Errorf("exit %d, %v %s\n%s", code, err, errs, out)
	}
	for _, args := range [][]string{{"plan", capture}, {"plan", capture, "-T", "markdown"},
		{"replay", plan, "--target", "127.0.0.1:9"}, {"replay", plan, "--target", "127.0.0.1:9", "-T", "markdown"}} {
		code, out, errs := squall(nil, args...)
		for _, want := range []string{fmt.Sprintf("%d of %d recorded attempts, ", d.Coverage.Covered.Attempts, d.Coverage.Recorded.Attempts), "60 of 60 recorded clients, 100 %", "refreshes: "} {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("%v: exit %d, no %q\n%s%s", args, code, want, out, errs)
			}
		}
	}
	var m manifest
	code, out, errs = squall(nil, "replay", plan, "--target", "127.0.0.1:9", "-T", "json")
	if err := json.Unmarshal([]byte(out), &m); err != nil || code != 0 || !m.DryRun || m.Plan.Coverage.Covered != d.Coverage.Covered {
		t.Errorf("exit %d, %v %s\n%s", code, err, errs, out)
	}
}

// TestCapsAreSaidBefore: a cap that would cut a storm as large as the recorded
// one is said by the dry run; nodes of squall's own need none so low.
func TestCapsAreSaidBefore(t *testing.T) {
	_, plan := outagePlan(t)
	for _, tc := range []struct {
		args []string
		cut  bool
		rate string
	}{
		{[]string{"--target", "127.0.0.1:9"}, false, "up to 1000/s"},
		{[]string{"--target", "127.0.0.1:9", "--speed", "500"}, true, "up to 1000/s"},
		{[]string{"--target", "127.0.0.1:9", "--speed", "500", "--max-rate", "100000"}, false, "up to 100000/s"},
		{[]string{"--testnodes", "3", "--speed", "500"}, false, "up to 100000/s"},
		{[]string{"--testnodes", "3", "--speed", "500", "--max-rate", "1000"}, true, "up to 1000/s"},
	} {
		code, out, errs := squall(nil, append([]string{"replay", plan}, tc.args...)...)
		if code != 0 || errs != "" || strings.Contains(out, "calls itself invalid; --max-rate ") != tc.cut || !strings.Contains(strings.ReplaceAll(out, "\n            ", " "), tc.rate) {
			t.Errorf("%v: exit %d\n%s%s", tc.args, code, out, errs)
		}
	}
}

// TestReplayKeepsAnAnalysis: what replay -o keeps is read by report, analyze,
// plan and compare like a capture's analysis.
func TestReplayKeepsAnAnalysis(t *testing.T) {
	capture, plan := outagePlan(t)
	c, flags := nodes(t, "sip", 3, replay.NodeConfig{})
	run := filepath.Join(t.TempDir(), "run")
	code, out, errs := squall(nil, append([]string{"replay", plan, "-o", run, "--speed", "60", "--max-rate", "20000", "--send", "-Z", "root"}, flags...)...)
	if code != 0 || errs != "" {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	// On a busy machine an answer may come after the end: its attempt is unknown.
	for _, want := range []string{"sha256 ", `outcomes   ( unknown \d+)? accepted `, "exercised   sip: ", "lost        by this machine", "taken from the recording itself"} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	served := int64(0)
	for _, n := range c.Nodes() {
		served += n.Counters().Accepted
	}
	code, out, errs = squall(nil, "report", "attempts", run, "-T", "jsonl")
	accepted := strings.Count(out, `"attempt_outcome":"accepted"`) // an answer may come too late for the run's end
	if code != 0 || int64(accepted) > served || accepted < 60 || !strings.Contains(out, `"client_id":"replay:`) {
		t.Errorf("exit %d, %d rows of %d accepted requests: %s", code, accepted, served, errs)
	}
	if code, out, errs = squall(nil, "analyze", run); code != 0 || !strings.Contains(out, "CALM") {
		t.Errorf("analyze: exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs = squall(nil, "plan", run); code != 0 || !strings.Contains(out, "clients     60\n") {
		t.Errorf("plan: exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs = squall(nil, "compare", run, run); code != 0 || errs != "" || !strings.HasPrefix(out, "ALIKE: ") {
		t.Errorf("compare with itself: exit %d\n%s%s", code, out, errs)
	}
	code, out, errs = squall(nil, "compare", capture, run, "-T", "json")
	var c2 struct {
		Pass     bool
		Measures []struct {
			Measure      string
			Judged, Pass bool
		}
		Notes []string
	}
	if err := json.Unmarshal([]byte(out), &c2); err != nil || code != exitThreshold || c2.Pass || len(c2.Notes) == 0 || !strings.Contains(errs, "verdict") {
		t.Errorf("without the trigger it is no outage: exit %d, %v\n%s%s", code, err, out, errs)
	}
	args := []string{"compare", capture, run, "-T", "markdown"}
	for _, m := range c2.Measures {
		if m.Judged && !m.Pass {
			args = append(args, "--limit", m.Measure+"=off")
		}
	}
	if code, out, errs = squall(nil, args...); code != 0 || !strings.Contains(out, "| measure ") {
		t.Errorf("with those limits off: exit %d\n%s%s", code, out, errs)
	}
	var m manifest
	b, err := os.ReadFile(filepath.Join(run, runName))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil || len(m.Targets) != 3 || m.Summary == nil || m.Summary.PlanHash == "" || m.Caps.MaxRate != 20000 {
		t.Errorf("manifest: %v, %s", err, b)
	}
}

func TestCompareUsage(t *testing.T) {
	capture, _ := outagePlan(t)
	for _, args := range [][]string{{"compare", capture}, {"compare", capture, capture, "-T", "csv"}, {"compare", capture, capture, "--limit", "warp=1"},
		{"compare", capture, capture, "--limit", "curve=-1"}, {"compare", capture, filepath.Join(t.TempDir(), "none")}} {
		if code, _, errs := squall(nil, args...); code != exitUsage || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit %d: %s", args[2:], code, errs)
		}
	}
	if code, out, _ := squall(nil, "compare", capture, capture); code != 0 || !strings.HasPrefix(out, "ALIKE") {
		t.Error(fmt.Sprint(code, out))
	}
}

// TestAddedNodesAreKnownFromTheStart: where the recording had nodes that joined
// late, those that --fixes adds do not take their place.
func TestAddedNodesAreKnownFromTheStart(t *testing.T) {
	_, file := outagePlan(t)
	h, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := replay.ReadPlan(h)
	h.Close()
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Nodes[1:] {
		p.Nodes[1+i].Joined = time.Hour
	}
	for i := range p.Items {
		p.Items[i].Node = 0
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := squall(nil, "replay", file, "--testnodes", "1", "--more-nodes", "2", "--capacity", "1000", "--speed", "100", "--trigger", "at 0s: node 1 down",
		"--override", "policy: fixed(1s, timeout 1s, limit 5, round_robin)", "--fixes", "--send", "-T", "csv", "-Z", "root")
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || code != 0 || len(rows) != 6 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	served := func(row int) int { // on a busy machine some come before the trigger
		n, _ := strconv.Atoi(rows[row][slices.Index(rows[0], "accepted")])
		return n
	}
	if served(5) <= served(1)+p.Clients/4 {
		t.Errorf("with the only node down %d attempts were accepted, with two more %d:\n%s", served(1), served(5), out)
	}
}

// TestFixesAndRamp: the table has a row for each remedy, the ramp says what it
// found; both keep to test nodes of their own and send only when told to.
func TestFixesAndRamp(t *testing.T) {
	_, plan := outagePlan(t)
	args := []string{"replay", plan, "--testnodes", "3", "--capacity", "1000", "--speed", "300", "--fixes", "-Z", "root"}
	code, out, errs := squall(nil, args...)
	if code != 0 || !strings.Contains(out, "DRY RUN     5 runs of 0s each against 3 test nodes") || errs != "" {
		t.Errorf("dry run: exit %d\n%s%s", code, out, errs)
	}
	code, out, errs = squall(nil, append(args, "--send", "-T", "csv")...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 6 || !strings.HasPrefix(lines[1], "as recorded,calm,true,") || !strings.HasPrefix(lines[5], "2 mega-supernodes more,") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	dir := filepath.Join(t.TempDir(), "ramp")
	code, out, errs = squall(nil, "replay", plan, "--testnodes", "3", "--ramp", "20:200", "--ramp-step", "60ms", "--send", "-o", dir, "-Z", "root")
	if code != 0 || strings.Count(out, "\n  up ")+strings.Count(out, "\n  down ") != 19 || !strings.Contains(out, "capacity    ") || !strings.Contains(out, "tipping     not reached") ||
		!strings.Contains(out, "recorded    6.0 intents/s") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	var m manifest
	b, err := os.ReadFile(filepath.Join(dir, runName))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil || m.Knee == nil || len(m.Knee.Steps) != 19 || m.Knee.Capacity == 0 {
		t.Errorf("%v: %+v", err, m.Knee)
	}
	for _, args := range [][]string{{"--fixes"}, {"--ramp", "5"}, {"--ramp", "5:50", "--speed", "2"}, {"--testnodes", "3", "--target", "127.0.0.1:1"}, {"--testnodes", "-1"},
		{"--testnodes", "3", "--overload", "x"}, {"--testnodes", "3", "--fixes", "--send", "-T", "html"}} {
		if code, out, errs := squall(nil, append([]string{"replay", plan, "-Z", "root"}, args...)...); code != exitUsage || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
}

// TestReplayMap: --map says which target plays which node; the rest are played
// in turn, and what a map points to is checked like any target.
func TestReplayMap(t *testing.T) {
	_, plan := outagePlan(t)
	c, flags := nodes(t, "sip", 3, replay.NodeConfig{})
	at := c.Addrs()
	dir := filepath.Join(t.TempDir(), "run")
	args := []string{"replay", plan, "-Z", "root", "--map", "198.51.100.1:5060=" + at[2].String(), "--map", "198.51.100.3=" + at[2].String()}
	code, out, errs := squall(nil, append(args, flags[0], flags[1], "--speed", "60", "--max-rate", "20000", "--send", "-o", dir)...)
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	var m manifest
	b, err := os.ReadFile(filepath.Join(dir, runName))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	want := []string{"198.51.100.1:5060 " + at[2].String(), "198.51.100.2:5060 " + at[0].String(), "198.51.100.3:5060 " + at[2].String()}
	if err != nil || !slices.Equal(m.Nodes, want) {
		t.Errorf("%v: %q, want %q", err, m.Nodes, want)
	}
	asked := func(i int) int64 { return c.Nodes()[i].Counters().Requests }
	if asked(0) == 0 || asked(2) <= asked(0) || asked(1) != 0 {
		t.Errorf("requests at the three nodes: %d, %d, %d", asked(0), asked(1), asked(2))
	}
	for _, tc := range []struct {
		code int
		want string
		args []string
	}{
		{exitRefused, "8.8.8.8 is public", []string{"--map", "198.51.100.1=8.8.8.8:5060", "--target", "127.0.0.1:5060"}},
		{exitRefused, "occurs in the capture", []string{"--map", "198.51.100.1=198.51.100.1:5060", "--target", "127.0.0.1:5060"}},
		{exitUsage, "covered by no --map", []string{"--map", "198.51.100.1=127.0.0.1:5060"}},
		{exitUsage, "want NODE=HOST:PORT", []string{"--map", "192.0.2.1=127.0.0.1:5060"}},
		{exitUsage, "want NODE=HOST:PORT", []string{"--map", "198.51.100.1", "--target", "127.0.0.1:5060"}},
		{exitUsage, "without --map", []string{"--map", "198.51.100.1=127.0.0.1:5060", "--testnodes", "3"}},
	} {
		if code, out, errs := squall(nil, append([]string{"replay", plan, "--send", "-Z", "root"}, tc.args...)...); code != tc.code || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit %d, want %q\n%s%s", tc.args, code, tc.want, out, errs)
		}
	}
}

// TestNodesOfEveryDialect: the test nodes of a replay each speak what the node
// that they play spoke.
func TestNodesOfEveryDialect(t *testing.T) {
	dir := t.TempDir()
	plan := filepath.Join(dir, "stun.plan")
	capture := filepath.Join(dir, "both.pcapng")
	for _, name := range []string{"proto:bitcoin", "proto:stun"} {
		if code, _, errs := squall(nil, "sample", name, "-w", filepath.Join(dir, strings.TrimPrefix(name, "proto:")+".pcapng")); code != 0 {
			t.Fatal(errs)
		}
	}
	if err := os.Mkdir(capture, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"stun", "bitcoin"} {
		if err := os.Rename(filepath.Join(dir, name+".pcapng"), filepath.Join(capture, fmt.Sprint(i, name, ".pcapng"))); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := squall(nil, "plan", capture, "-w", plan)
	if code != 0 || !strings.Contains(out, "\nexercises   stun: ") || !strings.Contains(out, "\nexercises   bitcoin: ") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	code, out, errs = squall(nil, "replay", plan, "--testnodes", "7", "--speed", "200", "--override", "policy: timeout 10m", "--send", "-Z", "root")
	if code != 0 || !strings.Contains(out, "; late answers") || strings.Contains(out, "refused") || strings.Contains(out, "stalled") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// TestTestnodeUsage: what cannot be is refused in one line that names it.
func TestTestnodeUsage(t *testing.T) {
	for _, args := range [][]string{{"--capacity", "-1"}, {"--capacity", "nan"}, {"--capacity", "x"}, {"--concurrency", "-1"}, {"--queue", "-1"}, {"--discipline", "x"},
		{"--service-time", "x"}, {"--overload", "x"}, {"--retry-after", "-1s"}, {"--protect-at", "-1"}, {"--crash-at", "inf"}, {"--recovery", "-1s"},
		{"--warm-up", "-1s"}, {"--admit", "-1"}, {"--admit-burst", "0.5"}, {"--admit-client", "nan"}, {"--nodes", "0"}, {"--control", "0.0.0.0:0"}, {"--control", "x"},
		{"--trigger", "at 1s: node 2 down"}, {"--trigger", "soon"}, {"--speed", "0"}, {"--duration", "-1s"}, {"--protocol", "x"}, {"--listen", "x"}} {
		name := strings.TrimPrefix(args[0], "--")
		switch name {
		case "service-time":
			name = "service"
		case "trigger":
			name = args[1]
		}
		if code, _, errs := squall(nil, append([]string{"testnode", "--listen", "127.0.0.1:0"}, args...)...); code != exitUsage || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, name) {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
}
