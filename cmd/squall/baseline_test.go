package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// days makes a capture that begins inside the storm of the sample, and one of the
// calm before it, of another day.
func days(t *testing.T) (storm, calm, dir string) {
	t.Helper()
	dir = t.TempDir()
	outage := filepath.Join(dir, "outage.pcap")
	storm, calm = filepath.Join(dir, "storm.pcapng"), filepath.Join(dir, "calm.pcapng")
	for _, args := range [][]string{
		{"sample", "outage", "-w", outage},
		{"extract", outage, "--from", "2010-12-22T16:00:50Z", "--to", "2010-12-22T16:01:28Z", "-q", "-w", storm},
		{"extract", outage, "--to", "2010-12-22T16:00:40Z", "-q", "-w", calm}} {
		if code, _, errs := squall(nil, args...); code != 0 {
			t.Fatal(errs)
		}
	}
	return storm, calm, dir
}

// flowRecords makes flow records of attempts: both directions of each, a day before.
func flowRecords(t *testing.T, capture, format string) string {
	t.Helper()
	code, out, errs := squall(nil, "report", "attempts", capture, "-q", "-T", "csv", "-e", "event_start,source_ip,source_port,destination_ip,destination_port,network_transport")
	if code != 0 {
		t.Fatal(errs)
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if format == "nfdump" {
		b.WriteString("ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt\n")
	} else {
		b.WriteString("version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status\n")
	}
	for _, r := range rows[1:] {
		at, err := time.Parse(time.RFC3339Nano, r[0])
		if err != nil {
			t.Fatal(err)
		}
		at = at.AddDate(0, 0, -1)
		for _, e := range [][4]string{{r[1], r[2], r[3], r[4]}, {r[3], r[4], r[1], r[2]}} {
			if format == "nfdump" {
				ts := at.Format("2006-01-02 15:04:05.000")
				fmt.Fprintf(&b, "%s,%s,0.000,%s,%s,%s,%s,%s,........,0,0,3,180\n", ts, ts, e[0], e[2], e[1], e[3], strings.ToUpper(r[5]))
			} else {
				proto := map[string]int{"tcp": 6, "udp": 17}[r[5]]
				fmt.Fprintf(&b, "2 1 eni-1 %s %s %s %s %d 3 180 %d %d ACCEPT OK\n", e[0], e[2], e[1], e[3], proto, at.Unix(), at.Unix()+1)
			}
		}
	}
	path := filepath.Join(t.TempDir(), format+".log")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBaseline: the storm of a capture that begins inside it is judged by a calm
// day, whatever that was kept as; verify knows of it.
func TestBaseline(t *testing.T) {
	slow(t)
	storm, calm, dir := days(t)
	kept := filepath.Join(dir, "kept")
	attempts := filepath.Join(dir, "attempts.csv")
	for _, args := range [][]string{{"analyze", calm, "-q", "-o", kept}, {"report", "attempts", calm, "-q", "-w", attempts}} {
		if code, _, errs := squall(nil, args...); code != 0 {
			t.Fatal(errs)
		}
	}
	type summary struct {
		Verdict struct {
			Class, Confidence, Baseline string
			Surge                       float64
			Criteria                    []struct {
				Criterion, Note string
				Threshold       float64
			}
		}
		Baseline *struct {
			Name, Counted string
			Services      []struct {
				Service string
				Rate    float64  `json:"baseline_attempt_rate"`
				Failure *float64 `json:"baseline_failure_ratio"`
				Aligned bool     `json:"same_time_of_day"`
			}
		}
	}
	judged := func(args ...string) (s summary) {
		t.Helper()
		code, out, errs := squall(nil, append([]string{"analyze", storm, "-q", "-T", "json"}, args...)...)
		if code != 0 {
			t.Fatal(errs)
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := judged(); s.Baseline != nil || s.Verdict.Confidence == "high" {
		t.Errorf("without: %+v", s)
	}
	nfdump := flowRecords(t, calm, "nfdump")
	for _, c := range []struct {
		path  string
		flows bool
	}{{calm, false}, {kept, false}, {attempts, false}, {nfdump, true}, {flowRecords(t, calm, "aws"), true}} {
		s := judged("--baseline", c.path)
		b := s.Baseline
		if b == nil || len(b.Services) != 1 || b.Name != c.path || (b.Counted == "flows") != c.flows || (b.Services[0].Failure == nil) != c.flows {
			t.Errorf("%s: %+v", c.path, b)
			continue
		}
		if r := b.Services[0].Rate; r < 1.2 || r > 3.1 {
			t.Errorf("%s: %v attempts/s", c.path, r)
		}
		v := s.Verdict
		if v.Class != "retry_storm" || !strings.Contains(v.Baseline, c.path) || v.Criteria[0].Threshold <= 20 || v.Criteria[0].Note != v.Baseline || v.Surge == 0 {
			t.Errorf("%s: %+v", c.path, v)
		}
	}
	if _, out, _ := squall(nil, "analyze", storm, "-q", "--baseline", calm); !strings.Contains(out, "baseline "+calm) || !strings.Contains(out, "% failed, there 0 %") {
		t.Error(out)
	}
	case1 := filepath.Join(dir, "case")
	if code, _, errs := squall(nil, "analyze", storm, "-q", "--baseline", nfdump, "-o", case1); code != 0 {
		t.Fatal(errs)
	}
	rows := table(t, "report", "timeline", case1, "--baseline", nfdump)
	if len(rows) == 0 || rows[0]["baseline_attempts"] == "" {
		t.Errorf("%v", rows)
	}
	if code, out, _ := squall(nil, "verify", case1); code != 0 || !strings.Contains(out, "ok       baseline "+nfdump) {
		t.Error(out)
	}
	// What was kept is judged as it was when it was made, whoever asks.
	for _, c := range [][]string{{"explain"}, {"events", "-T", "json"}, {"report", "timeline", "-T", "csv"}} {
		_, was, _ := squall(nil, append(c, storm, "-q", "--baseline", nfdump)...)
		_, is, errs := squall(nil, append(c, case1)...)
		_, bare, _ := squall(nil, append(c, storm, "-q")...)
		if is != was || is == bare && c[0] != "events" || strings.Contains(errs, "left out") {
			t.Errorf("%v of the case:\n%.800s\n%s%.800s\nwithout\n%.800s", c, is, errs, was, bare)
		}
	}
	case2 := filepath.Join(dir, "case2") // of a directory, which another file comes into
	if err := os.Mkdir(filepath.Join(dir, "calm"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(calm, filepath.Join(dir, "calm", "calm.pcapng")); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := squall(nil, "analyze", storm, "-q", "--baseline", filepath.Join(dir, "calm"), "-f", "tcp or udp", "-o", case2); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := squall(nil, "explain", case2); code != 0 || errs != "" {
		t.Errorf("exit %d: %s", code, errs)
	}
	calm = filepath.Join(dir, "calm", "calm.pcapng")
	if code, _, errs := squall(nil, "extract", calm, "-q", "--to", "2010-12-22T16:00:30Z", "-w", filepath.Join(dir, "calm", "more.pcapng")); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := squall(nil, "explain", case2); code != exitUsage || !strings.Contains(errs, "holds other files") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, _, errs := squall(nil, "explain", case2, "--baseline", calm); code != 0 {
		t.Errorf("exit %d: %s", code, errs)
	}
	b, err := os.ReadFile(nfdump)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-2]++
	if err := os.WriteFile(nfdump, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := squall(nil, "verify", case1); code != 1 || !strings.Contains(out, "CHANGED  baseline "+nfdump) {
		t.Error(out)
	}
	if _, out, errs := squall(nil, "explain", case1); !strings.Contains(errs, nfdump+" is not what it was") || strings.Contains(out, nfdump) {
		t.Errorf("%s%s", out, errs)
	}
	other := filepath.Join(dir, "other.pcap")
	if code, _, errs := squall(nil, "sample", "proto:gnutella", "-w", other); code != 0 {
		t.Fatal(errs)
	}
	for _, c := range [][]string{
		{"of the time that is judged", "analyze", storm, "--baseline", storm},
		{"none of the services", "analyze", storm, "--baseline", other},
		{"no such file", "analyze", storm, "--baseline", filepath.Join(dir, "nothing")},
		{"count different things", "analyze", storm, "--baseline", nfdump, "--baseline", calm},
		{"changes how things are judged", "report", "attempts", storm, "--baseline", calm},
		{"not judged", "analyze", storm, "--shard", "0/2", "-o", filepath.Join(dir, "s"), "--baseline", calm}} {
		if code, _, errs := squall(nil, c[1:]...); code != exitUsage || !strings.Contains(errs, c[0]) {
			t.Errorf("%v: exit %d: %s", c, code, errs)
		}
	}
}

// TestFlowRecords: info says what flow records cover, analyze what they are not.
func TestFlowRecords(t *testing.T) {
	_, calm, _ := days(t)
	file := flowRecords(t, calm, "aws")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	late := "2 1 eni-1 10.9.9.9 198.51.100.1 4000 5060 17 1 60 1292947999 1292948000 REJECT OK\n2 1 eni-1 - - - - - - - 1292948000 1292948060 - SKIPDATA\n"
	if err := os.WriteFile(file, append(b, late...), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := squall(nil, "info", file)
	for _, want := range []string{"aws vpc flow: flow records", "span          2010-12-21T16:00:00.000000000Z to 2010-12-21T16:13:20.000000000Z", "udp port 5060:", "3 nodes",
		"holes         1 of more than a minute", "2010-12-21T16:13:19.000000000Z", "rejected      1 of them", "left out      the exporter says 1 times", "not to be counted"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s%s", code, want, out, errs)
		}
	}
	for _, line := range strings.Split(out, "\n") {
		if len(line) > 80 && !strings.Contains(line, file) {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	if rows := table(t, "info", file, calm); len(rows) != 2 || rows[1]["format"] != "aws vpc flow" || rows[1]["first_time"] != "2010-12-21T16:00:00.000000000Z" {
		t.Errorf("%v", rows)
	}
	if code, _, errs := squall(nil, "analyze", file); code != exitUsage || !strings.Contains(errs, "squall info") || !strings.Contains(errs, "--baseline") {
		t.Errorf("exit %d: %s", code, errs)
	}
}
