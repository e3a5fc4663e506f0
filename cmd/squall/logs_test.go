package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// squall runs a command line and gives what it wrote.
func runLine(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := newRoot()
	var out, words bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&words)
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

// TestTablesReadBack: the attempts table, in any format that keeps all of it,
// gives the judgement of the capture it was made of.
func TestTablesReadBack(t *testing.T) {
	dir := t.TempDir()
	pcap := filepath.Join(dir, "outage.pcap")
	if _, err := runLine(t, "sample", "outage", "-w", pcap); err != nil {
		t.Fatal(err)
	}
	judgement := func(file string) map[string]string {
		text, err := runLine(t, "analyze", "-T", "json", file)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var o map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, part := range []string{"verdict", "findings", "totals", "nodes", "migrations", "versions", "policies", "roles", "hypotheses"} {
			out[part] = string(o[part])
		}
		return out
	}
	want := judgement(pcap)
	for _, f := range []string{"csv", "tsv", "jsonl", "arrow", "parquet"} {
		file := filepath.Join(dir, "attempts."+f)
		if _, err := runLine(t, "report", "attempts", pcap, "-T", f, "-w", file); err != nil {
			t.Fatal(err)
		}
		for part, text := range judgement(file) {
			if text != want[part] {
				t.Errorf("%s: %s differs:\n%.600s\n%.600s", f, part, text, want[part])
			}
		}
	}
	// Rows keep their ids and the frames that show them.
	a, err1 := runLine(t, "report", "attempts", pcap, "-T", "csv")
	b, err2 := runLine(t, "report", "attempts", filepath.Join(dir, "attempts.csv"), "-T", "csv")
	if err1 != nil || err2 != nil || a != b {
		t.Errorf("the rows of a table that was read back differ (%v, %v)", err1, err2)
	}
	// A table that lacks what makes an attempt says so.
	thin := filepath.Join(dir, "thin.csv")
	if _, err := runLine(t, "report", "attempts", pcap, "-T", "csv", "-e", "attempt_id,event_start,event_end,source_ip,source_port", "-w", thin); err != nil {
		t.Fatal(err)
	}
	if _, err := runLine(t, "analyze", thin); err == nil || !strings.Contains(err.Error(), "destination_ip") {
		t.Errorf("a table without destinations: %v", err)
	}
}

// TestLogsAreInputs: a directory of logs, and a log on standard input.
func TestLogsAreInputs(t *testing.T) {
	dir := t.TempDir()
	pcap := filepath.Join(dir, "outage.pcap")
	log := filepath.Join(dir, "logs", "conn.log")
	if err := os.Mkdir(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := runLine(t, "sample", "outage", "-w", pcap); err != nil {
		t.Fatal(err)
	}
	if _, err := runLine(t, "report", "attempts", pcap, "-T", "zeek", "-w", log); err != nil {
		t.Fatal(err)
	}
	text, err := runLine(t, "analyze", filepath.Dir(log))
	if err != nil || !strings.Contains(text, "RETRY STORM") || !strings.Contains(text, "of the transport alone") {
		t.Errorf("%v\n%s", err, text)
	}
	text, err = runLine(t, "report", "attempts", log, "-T", "csv", "-e", "event_dataset,tcp_history", "--limit", "1")
	if err != nil || !strings.Contains(text, "zeek.conn") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := runLine(t, "analyze", "-f", "tcp", log); err == nil || !strings.Contains(err.Error(), "no packets") {
		t.Errorf("-f on a log: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.log"), []byte("#separator \\x09\n#path\tconn\n#fields\tts\tuid\n1\t2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runLine(t, "analyze", filepath.Join(dir, "bad.log")); err == nil || !strings.Contains(err.Error(), "lacks id.orig_h") {
		t.Errorf("a log without addresses: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "nf.csv"), []byte("ts,te,td,sa,da,sp,dp,pr\n2010-12-22 16:00:00,2010-12-22 16:00:09,9,10.0.0.1,10.0.0.2,4000,80,TCP\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runLine(t, "analyze", filepath.Join(dir, "nf.csv")); err == nil || !strings.Contains(err.Error(), "no attempts") {
		t.Errorf("flow records: %v", err)
	}
}

// TestLogBesideCapture: a connection in a capture and in logs counts once, whoever
// began when; what only a log has counts, too.
func TestLogBesideCapture(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) string {
		t.Helper()
		text, err := runLine(t, args...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return text
	}
	run("sample", "s1", "--clients", "100", "-w", in("all.pcap"))
	run("report", "attempts", in("all.pcap"), "-T", "zeek", "-w", in("conn.log"))
	run("extract", "-q", in("all.pcap"), "--to", "2010-12-22T16:05:06Z", "-w", in("begin.pcap"))
	attempts := func(args ...string) (n int, text string) {
		text = run(append([]string{"analyze", "-q", "-T", "json"}, args...)...)
		var o struct{ Totals struct{ Attempts int } }
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		return o.Totals.Attempts, text
	}
	packets, _ := attempts(in("all.pcap"))
	part, _ := attempts(in("begin.pcap"))
	logged, _ := attempts(in("conn.log"))
	if part >= packets-20 || logged < packets*9/10 {
		t.Fatalf("%d attempts, %d in the begin, %d in the log", packets, part, logged)
	}
	both, text := attempts("east="+in("all.pcap"), "zeek="+in("conn.log"))
	if both != packets || !strings.Contains(text, "(100.0 %), and count there") {
		t.Errorf("%d attempts with the log, %d without", both, packets)
	}
	if n, text := attempts("east="+in("begin.pcap"), "zeek="+in("conn.log")); n < packets-3 || n > packets+3 || !strings.Contains(text, "connections were seen in packets") {
		t.Errorf("%d attempts of the begin with the log of all, %d in the packets of all", n, packets)
	}
	// Two loggers; the clock of one is an hour off, and then it is said.
	log, err := os.ReadFile(in("conn.log"))
	if err != nil {
		t.Fatal(err)
	}
	late := regexp.MustCompile(`(?m)^129303\d{4}`).ReplaceAllStringFunc(string(log), func(at string) string {
		n, _ := strconv.Atoi(at)
		return strconv.Itoa(n + 3600)
	})
	if err := os.WriteFile(in("late.log"), []byte(late), 0o600); err != nil {
		t.Fatal(err)
	}
	one, _ := attempts("a=" + in("conn.log"))
	if n, _ := attempts("a="+in("conn.log"), "b="+in("conn.log")); n != one {
		t.Errorf("%d attempts of two loggers that saw the same, %d of one", n, one)
	}
	if n, _ := attempts("a="+in("conn.log"), "b="+in("late.log")); n <= one {
		t.Errorf("%d attempts of loggers an hour apart, %d of one", n, one)
	}
	if n, _ := attempts("a="+in("conn.log"), "b="+in("late.log"), "--clock", "b=+1h"); n != one {
		t.Errorf("%d attempts once the clock is set right, %d of one", n, one)
	}
	// The case stands: it is read back, its names too, and verify knows the log.
	run("analyze", "-q", "east="+in("all.pcap"), "zeek="+in("conn.log"), "-o", in("kept"))
	if a, b := run("report", "attempts", in("kept"), "-T", "csv", "-e", "attempt_id"), run("report", "attempts", in("all.pcap"), "-T", "csv", "-e", "attempt_id"); a != b {
		t.Errorf("the kept case has other attempts than the capture")
	}
	run("verify", in("kept"))
	run("extract", "-q", in("kept"), "--where", "attempt_outcome != \"accepted\"", "-w", in("refused.pcapng"))
	info := run("info", "-q", "east="+in("all.pcap"), "zeek="+in("conn.log"))
	if _, of, _ := strings.Cut(info, "tap zeek"); !strings.Contains(of, "(100.0 %)") || !strings.Contains(of, "sha256") {
		t.Errorf("%s", info)
	}
}

// TestLogBehindNAT: a log of the far side of NAT is known by packets that were
// captured at both sides, and by no others.
func TestLogBehindNAT(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	if code, _, errs := squall(nil, "sample", "outage", "--taps", "-w", dir); code != 0 {
		t.Fatal(errs)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	far := in("far.log")
	if code, _, errs := squall(nil, "report", "attempts", in("east.pcapng"), "-q", "-T", "zeek", "-w", far); code != 0 {
		t.Fatal(errs)
	}
	count := func(args ...string) (n int) {
		args = append([]string{"report", "attempts", "--clock", "branch=+137ms"}, args...)
		for _, a := range table(t, args...) {
			if a["source_ip"] != "" {
				n++
			}
		}
		return n
	}
	taps := []string{"east=" + in("east.pcapng"), "branch=" + in("branch.pcapng")}
	both := count(taps...)
	if n := count(append(taps, "zeek="+far)...); n != both {
		t.Errorf("%d attempts with a log of one side, %d without", n, both)
	}
	if near, n := count(taps[1]), count(taps[1], "zeek="+far); n <= both || near >= both {
		t.Errorf("%d attempts of one side and a log of the other, %d of both sides", n, both)
	}
}

// TestCaseBesideCaptures: a directory of captures may hold the cases that were made
// of them; they are no inputs.
func TestCaseBesideCaptures(t *testing.T) {
	dir := t.TempDir()
	outage := filepath.Join(dir, "outage.pcap")
	if err := os.Rename(sampled(t, "outage"), outage); err != nil {
		t.Fatal(err)
	}
	code, want, errs := squall(nil, "analyze", dir, "-o", filepath.Join(dir, "case"))
	if code != 0 {
		t.Fatal(errs)
	}
	if code, got, errs := squall(nil, "analyze", dir); code != 0 || errs != "" || got != want {
		t.Errorf("exit %d: %s%s", code, errs, got)
	}
}
