package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squall/samples"
)

// TestSampleParameters: every flag changes the capture, and the truth says with
// what it was made.
func TestSampleParameters(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	truth := filepath.Join(dir, "truth.json")
	_, plain, _ := squall(nil, "sample", "outage", "-w", "-")
	for _, args := range [][]string{
		{"--seed", "2"}, {"--clients", "30"}, {"--nodes", "5"}, {"--duration", "1m"}, {"--trigger", "30s"}, {"--rate", "2"}, {"--hold", "20s", "--rate", "2"},
		{"--protocol", "n2n"}, {"--protocol", "skype"}, {"--protocol", "gnutella"}, {"--protocol", "tcp"}, {"--protocol", "udp"},
		{"--capacity", "1", "--queue", "2", "--overload", "throttle"}, {"--policy", "exponential(1s, x2, cap 20s, decorrelated)"}, {"--policy", "limit 3"},
		{"--rtt", "200ms"}, {"--path-loss", "20%"}, {"--nat"}, {"--background", "50"}, {"--tap-loss", "0.1"},
		{"--tap-loss", "40%", "--tap-loss-at", "40s", "--tap-loss-rise", "30s"}, {"--tap-duplicate"}, {"--tap-snaplen", "96"}, {"--tap-side", "client"},
		{"--tap-gap", "30s+20s"}, {"--tap-step", "50s+1h"}, {"--tap-step", "50s-30s"},
	} {
		code, out, errs := squall(nil, append([]string{"sample", "outage", "-w", "-", "--truth", truth}, args...)...)
		if code != 0 || out == plain || len(out) < 1000 {
			t.Errorf("%v: exit %d, %d bytes: %s", args, code, len(out), errs)
			continue
		}
		var facts samples.Truth
		b, err := os.ReadFile(truth)
		if err != nil || json.Unmarshal(b, &facts) != nil || facts.Given == nil || len(facts.Attempts) == 0 {
			t.Fatalf("%v: truth: %v", args, err)
		}
		// What the tap does leaves the right verdict as it is.
		if kept := strings.HasPrefix(args[0], "--tap") || args[0] == "--background" || args[0] == "--seed"; kept != (len(facts.Verdict) > 0) {
			t.Errorf("%v: the verdict that is right: %v", args, facts.Verdict)
		}
		if args[0] == "--policy" && !strings.Contains(facts.Policy, strings.Fields(args[1])[0][:5]) && !strings.Contains(facts.Policy, "3 attempts") {
			t.Errorf("%v: policy %s", args, facts.Policy)
		}
	}
	for _, args := range [][]string{
		{"--clients", "0"}, {"--nodes", "251"}, {"--protocol", "smtp"}, {"--policy", "fixed(fast)"}, {"--policy", "empirical"}, {"--tap-loss", "2"},
		{"--tap-loss-at", "3s"}, {"--tap-side", "left"}, {"--tap-gap", "30s"}, {"--tap-step", "soon"}, {"--overload", "cry"}, {"--duration", "10s"},
		{"--tap-snaplen", "20"}, {"--split", "3"}, {"--path-loss", "a lot"}, {"--background", "-1"},
	} {
		code, _, errs := squall(nil, append([]string{"sample", "outage", "-w", "-"}, args...)...)
		if code != exitUsage || !strings.HasPrefix(errs, "squall: ") || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit %d: %q", args, code, errs)
		}
	}
}

// TestSplitSample: the pieces hold the packets of the one file.
func TestSplitSample(t *testing.T) {
	dir := t.TempDir()
	one, pieces := filepath.Join(dir, "one.pcap"), filepath.Join(dir, "pieces")
	squall(nil, "sample", "outage", "-w", one)
	if code, _, errs := squall(nil, "sample", "outage", "--split", "24", "-T", "pcap", "-w", pieces); code != 0 {
		t.Fatal(errs)
	}
	names, _ := filepath.Glob(filepath.Join(pieces, "outage-*.pcap"))
	if len(names) != 24 {
		t.Fatalf("%d files", len(names))
	}
	count := func(path string) float64 {
		_, out, _ := squall(nil, "info", "-T", "json", path)
		var rows []map[string]any
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, r := range rows {
			sum += r["packets"].(float64)
		}
		return sum
	}
	if a, b := count(one), count(pieces); a != b || a == 0 {
		t.Errorf("%v packets in one file, %v in pieces", a, b)
	}
	if code, _, errs := squall(nil, "sample", "n19", "-w", "-"); code != exitUsage || !strings.Contains(errs, "-w DIR") {
		t.Errorf("n19 to standard output: exit %d: %s", code, errs)
	}
}

// TestEvictionsAreSaid: flows that had to give way are in the notes.
func TestEvictionsAreSaid(t *testing.T) {
	_, crowd, _ := squall(nil, "sample", "bench-crowd", "--packets", "5000", "-T", "pcap", "-w", "-")
	for flows, said := range map[string]bool{"320": true, "100000": false} {
		code, out, errs := squall([]byte(crowd), "analyze", "-", "--max-flows", flows)
		if code != 0 || strings.Contains(out, "flows were given up early") != said || !strings.Contains(strings.ReplaceAll(out, ",", ""), "5000") {
			t.Errorf("--max-flows %s: exit %d %s\n%s", flows, code, errs, out)
		}
	}
	_, year, _ := squall(nil, "sample", "bench-year", "--packets", "4000", "-T", "pcap", "-w", "-")
	code, out, errs := squall([]byte(year), "report", "timeline", "-", "-T", "csv")
	if code != 0 || strings.Count(out, "\n") > 100 || !strings.Contains(out, "2011-12-22") {
		t.Errorf("a year of silence: exit %d %s, %d lines", code, errs, strings.Count(out, "\n"))
	}
}

// TestProtocolSamples: what squall names has a sample, which it names.
func TestProtocolSamples(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sample.pcapng")
	if code, _, errs := squall(nil, "sample", "proto:nebula", "-w", file, "--truth", file+".json"); code != 0 {
		t.Fatal(errs)
	}
	code, rows, errs := squall(nil, "report", "attempts", file, "-T", "csv", "-e", "network_protocol,attempt_outcome")
	if code != 0 || !strings.Contains(rows, "nebula,accepted") || !strings.Contains(rows, "nebula,refused") || strings.Count(rows, "\n") != 1+strings.Count(rows, "nebula,") {
		t.Errorf("exit %d: %s%s", code, errs, rows)
	}
	if truth, err := os.ReadFile(file + ".json"); err != nil || !strings.Contains(string(truth), "nebula Handshake accepted app until lost") {
		t.Errorf("%v: %s", err, truth)
	}
	for _, args := range [][]string{{"proto:"}, {"proto:smtp"}, {"proto:sip", "--seed", "2"}, {"proto:sip", "--clients", "2"}} {
		code, _, errs := squall(nil, append([]string{"sample", "-w", "-"}, args...)...)
		if code != exitUsage || !strings.HasPrefix(errs, "squall: sample proto:") || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit %d: %q", args, code, errs)
		}
	}
}
