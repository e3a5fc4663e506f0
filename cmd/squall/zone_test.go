package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestZone: people read times of their zone, machines of UTC; what people write
// without an offset is of their zone.
func TestZone(t *testing.T) {
	slow(t)
	pcap := sampled(t, "outage") // 2010-12-22, 16:00 to 16:02 UTC
	said := func(want, never string, args ...string) {
		t.Helper()
		code, out, errs := squall(nil, append(args, "-q", "--tz", "Asia/Kathmandu")...) // +05:45
		if code != 0 || !strings.Contains(out, want) || never != "" && strings.Contains(out, never) {
			t.Errorf("%v: exit %d: no %q, or %q, in\n%.3000s%s", args, code, want, never, out, errs)
		}
	}
	said("from 21:45:40.123 until 21:46:29.987", "16:0", "analyze", pcap)
	said("2010-12-22T21:45:00+05:45", "16:0", "analyze", pcap)
	said("from 21:45:40.123", "T16:0", "analyze", pcap, "-T", "markdown")
	said("times are Asia/Kathmandu", "from 16:0", "analyze", pcap, "-T", "html")
	said(`"offsets":[[1293033600,20700]]`, "", "analyze", pcap, "-T", "html")
	said("from 16:00:40.123 until 16:01:29.987", "21:4", "analyze", pcap, "-T", "json")
	said("21:45:40", "16:00:40", "explain", pcap)
	said("21:45:40", "16:00:40", "explain", pcap, "--at", "21:45:45", "--node", "198.51.100.2")
	said("2010-12-22T16:00:40.123406091Z", "21:4", "explain", pcap, "-T", "json")
	said("2010-12-22T21:45:40.123406091+05:45", "16:0", "report", "findings", pcap)
	said("2010-12-22T16:00:40.123406091Z", "21:4", "report", "findings", pcap, "-T", "csv")
	said("2010-12-22T21:45:00.042213151+05:45", "16:0", "info", pcap)
	said("analyze --tz=Asia/Kathmandu", "", "analyze", pcap, "-T", "html")
	events := filepath.Join(t.TempDir(), "events.csv")
	if err := os.WriteFile(events, []byte("time,text\n2010-12-22 21:45:30,a deploy\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said("2010-12-22T21:45:30.000000000+05:45", "", "events", pcap, "--events", events)
	said("2010-12-22T16:00:30.000000000Z", "+05:45", "events", pcap, "--events", events, "-T", "jsonl")
	said("2010-12-22T21:45:50+05:45", "", "analyze", pcap, "--after", "2010-12-22 21:45:50")
	kept := filepath.Join(t.TempDir(), "kept")
	said("", "", "analyze", pcap, "-o", kept)
	if b, err := os.ReadFile(filepath.Join(kept, "summary.json")); err != nil || strings.Contains(string(b), "21:4") {
		t.Errorf("the summary has times of a zone: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(kept, "report.html")); err != nil || !strings.Contains(string(b), "from 21:45:40.123") {
		t.Errorf("the page has no times of the zone: %v", err)
	}
	said("from 21:45:40.123", "", "report", "findings", kept)
	// Without an offset, and without --tz, it is UTC.
	if code, out, errs := squall(nil, "analyze", pcap, "-q", "--after", "2010-12-22T16:00:50"); code != 0 || !strings.Contains(out, "2010-12-22T16:00:50Z") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	for _, bad := range []string{"Mars/Olympus", "+25:00", "+1:99", "-"} {
		if code, _, errs := squall(nil, "analyze", pcap, "--tz", bad); code != exitUsage || !strings.Contains(errs, "--tz") {
			t.Errorf("%s: exit %d: %s", bad, code, errs)
		}
	}
	for text, want := range map[string]int{"+02": 7200, "-0330": -12600, "+05:45": 20700} {
		z, err := parseZone(text)
		if err != nil || z == nil {
			t.Fatalf("%s: %v", text, err)
		}
		if _, got := time.Unix(0, 0).In(z).Zone(); got != want {
			t.Errorf("%s: %d s", text, got)
		}
	}
}
