package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
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
