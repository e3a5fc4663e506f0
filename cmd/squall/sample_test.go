package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

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
		{"--rate", "-1"}, {"--rate", "NaN"}, {"--hold", "-1s"}, {"--capacity", "-5"}, {"--queue", "-1"}, {"--rtt", "-1s"}, {"--trigger", "-5s"}, {"--background", "Inf"},
		{"--tap-gap", "-1s+5s"}, {"--tap-loss", "10%", "--tap-loss-rise", "-3s"}, {"--split", "0"}, {"-T", "pcapx"}, {"--packets", "5"}, {"--dials", "3"}, {"--refresh", "1us"},
		{"--burst", "-1"}, {"--versions", "a"}, {"--versions", "a 50%"}, {"--firewalled", "2"}, {"--challenge", "--protocol", "tcp"}, {"--script", "at 5s: rollout within 5s", "--versions", ""},
		{"--tap-snaplen", "20"}, {"--split", "3"}, {"--path-loss", "a lot"}, {"--background", "-1"},
	} {
		code, _, errs := squall(nil, append([]string{"sample", "outage", "-w", "-"}, args...)...)
		if code != exitUsage || !strings.HasPrefix(errs, "squall: ") || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit %d: %q", args, code, errs)
		}
	}
}

// TestSampleFlags: every flag that changes an outage changes its packets, where it
// says something, and its parameters in the truth.
func TestSampleFlags(t *testing.T) {
	truth := filepath.Join(t.TempDir(), "truth.json")
	short := []string{"--clients", "150", "--trigger", "20s", "--duration", "1m"}
	make := func(name string, args ...string) (packets, parameters string) {
		t.Helper()
		code, out, errs := squall(nil, append(append([]string{"sample", name, "-w", "-", "--truth", truth}, short...), args...)...)
		if code != 0 {
			t.Fatalf("%s %v: exit %d: %s", name, args, code, errs)
		}
		var facts samples.Truth
		b, err := os.ReadFile(truth)
		if err != nil || json.Unmarshal(b, &facts) != nil {
			t.Fatal(err)
		}
		if facts.Events == nil {
			t.Errorf("%s %v: what became of the nodes is null, and not empty", name, args)
		}
		b, _ = json.Marshal(facts.Given)
		return out, string(b)
	}
	done := map[string]bool{}
	for _, args := range [][]string{
		{"s9", "--nodes", "3"}, {"s9", "--protocol", "udp"}, {"n4", "--rate", "5"}, {"n4", "--hold", "5s"}, {"s3", "--capacity", "10"}, {"s12", "--queue", "5"},
		{"s12", "--overload", "drop"}, {"s9", "--policy", "cap 3s"}, {"s9", "--policy", "fixed(3s)"}, {"s9", "--rtt", "10ms"}, {"s9", "--path-loss", "0.1"}, {"s9", "--nat"},
		{"s9", "--spread", "10s"}, {"s12", "--retry-after", "5s", "--capacity", "3"}, {"skype-2010", "--protect", "0.5"}, {"s10", "--recovery", "5s", "--protect", "1"},
		{"n4", "--admit", "5"}, {"n15", "--dials", "3"}, {"n2", "--flood", "20"}, {"n3", "--scan", "20"}, {"n5", "--refresh", "10s"}, {"n16", "--challenge=false"}, {"n4", "--broken=false"},
		{"n18", "--growth", "5"}, {"n1", "--burst", "3"}, {"s9", "--keepalive", "3s"}, {"skype-ladder", "--firewalled", "90%"}, {"monitored", "--monitors", "5"},
		{"s1", "--versions", "A/1 100%"}, {"s1", "--versions", "A/1 60%, B/2 40% crash 0.9"}, {"s9", "--script", "at 10s: node 2 close; at 30s: all up; at 40s: restart within 5s"},
		{"s9", "--background", "20"}, {"s9", "--tap-loss", "10%"}, {"s9", "--tap-loss-at", "30s", "--tap-loss", "10%"}, {"s9", "--tap-loss-rise", "30s", "--tap-loss", "10%"},
		{"s9", "--tap-duplicate"}, {"s9", "--tap-snaplen", "60"}, {"s9", "--tap-side", "server"}, {"s9", "--tap-gap", "10s+10s"}, {"s9", "--tap-step", "10s-2s"},
		{"s9", "--tap-loss", "10%", "--tap-duplicate", "--tap-snaplen", "60", "--tap-side", "client", "--tap-gap", "10s+10s", "--tap-step", "10s-2s"},
	} {
		packets, parameters := make(args[0])
		p, q := make(args[0], args[1:]...)
		if p == packets || q == parameters {
			t.Errorf("%v: the packets are others: %v, the parameters are: %v", args, p != packets, q != parameters)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(args[1], "--"), "=")
		done[name] = true
	}
	sampleCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if !done[f.Name] && !slices.Contains([]string{"clients", "trigger", "duration", "seed", "write", "truth", "format", "quiet", "packets", "taps", "split"}, f.Name) {
			t.Errorf("--%s: nobody knows whether it does anything", f.Name)
		}
	})
	for _, script := range []string{
		"at 5s", "5s: all down", "at 5s: node 4 down", "at 5s: node 0 down", "at 5s: down", "at 5s: all restart within 5s", "at 5s: fly", "at 5s: add 300", "at 5s: restart",
		"at -5s: crash", "at 5s: node 1 slow", "at 5s: all up x", "at 5s: refresh within 0s", "at 5s: bots 1e9 within 5s", "at 5s: all slow nan",
	} {
		if code, _, errs := squall(nil, "sample", "s11", "-w", "-", "--script", script); code != exitUsage || !strings.Contains(errs, "script") {
			t.Errorf("%q: exit %d: %q", script, code, errs)
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
