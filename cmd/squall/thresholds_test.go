package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestThresholds: a verdict turns with its thresholds, a kept case remembers them,
// and verify knows that they were set.
func TestThresholds(t *testing.T) {
	file := sampled(t, "outage")
	dir := filepath.Join(t.TempDir(), "case")
	_, usual, _ := squall(nil, "analyze", "-q", file)
	code, out, errs := squall(nil, "analyze", "-q", "--threshold", "volume_floor=100000", file, "-o", dir)
	if code != 0 || !strings.HasPrefix(usual, "RETRY STORM") || !strings.HasPrefix(out, "PARTIAL OUTAGE") {
		t.Fatalf("exit %d %s\n%.100s\n%.100s", code, errs, usual, out)
	}
	for _, args := range [][]string{{"explain", "-q", dir}, {"explain", "-q", "--threshold", "volume_floor=100000", file}} {
		if _, out, errs := squall(nil, args...); !strings.HasPrefix(out, "PARTIAL OUTAGE") || !strings.Contains(out, "100,000") {
			t.Errorf("%q: %s\n%.600s", args, errs, out)
		}
	}
	if _, out, errs := squall(nil, "explain", "-q", "--threshold", "volume_floor=20", dir); !strings.HasPrefix(out, "RETRY STORM") {
		t.Errorf("given anew: %s\n%.100s", errs, out)
	}
	if code, out, _ := squall(nil, "verify", dir); code != 0 || !strings.Contains(out, "but for those that the arguments set") {
		t.Errorf("verify: exit %d\n%s", code, out)
	}
	for _, c := range []struct{ threshold, says string }{
		{"failures=0.6", "there are volume, volume_floor, "}, {"failure", "NAME=NUMBER"}, {"failure=0", "above 0"}, {"failure=NaN", "above 0"},
	} {
		for _, verb := range []string{"analyze", "explain", "watch"} {
			if code, _, errs := squall(nil, verb, "--threshold", c.threshold, file); code != exitUsage || !strings.Contains(errs, c.says) || strings.Count(errs, "\n") != 1 {
				t.Errorf("%s --threshold %s: exit %d: %s", verb, c.threshold, code, errs)
			}
		}
	}
	if code, _, errs := squall(nil, "report", "attempts", "--threshold", "failure=0.6", file); code != exitUsage || !strings.Contains(errs, "not for attempts") {
		t.Errorf("report attempts: exit %d: %s", code, errs)
	}
}
