package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squall/replay"
)

// TestWhatIf: the sample outage, asked in every format, and what is refused.
func TestWhatIf(t *testing.T) {
	t.Setenv("COLUMNS", "")
	file := filepath.Join(t.TempDir(), "outage.pcapng")
	do := func(want int, args ...string) (string, string) {
		t.Helper()
		var out, talk bytes.Buffer
		if code := run(args, strings.NewReader(""), &out, &talk); code != want {
			t.Fatalf("%v: exit %d, want %d: %s", args, code, want, talk.String())
		}
		return out.String(), talk.String()
	}
	do(0, "sample", "outage", "-w", file)
	text, _ := do(0, "whatif", file, "--seeds", "3")
	for _, want := range []string{"Hindcast passed", "as recorded", "10 % retry budget", "+2 nodes", "Assumed", "Not fitted", "Nothing was sent."} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	md, _ := do(0, "whatif", file, "--seeds", "2", "--nodes", "+2x30", "--budget", "10%", "--upgrade", "50%", "-T", "markdown")
	if !strings.Contains(md, "| 50% upgraded: budget 10%, +2x30 nodes |") {
		t.Error(md)
	}
	js, _ := do(0, "whatif", file, "--seeds", "2", "--policy", "exponential(1s, x2, cap 60s, full)", "--throttle", "40/s", "--since", "now", "-T", "json")
	var f replay.Forecast
	if err := json.Unmarshal([]byte(js), &f); err != nil || !f.Now || f.Horizon < 600 || len(f.Rows) != 2 || f.Rows[1].Runs+f.Rows[1].Discarded != 2 || len(f.Rows[1].Changes) != 3 {
		t.Errorf("%v\n%s", err, js)
	}
	js, _ = do(0, "whatif", file, "--seeds", "1", "--each", "--budget", "10%", "--nodes", "+2", "--policy", "exponential(1s, x2, cap 60s, full)", "--throttle", "40/s", "--upgrade", "50%", "-T", "json")
	f = replay.Forecast{}
	var names []string
	err := json.Unmarshal([]byte(js), &f)
	for _, r := range f.Rows {
		names = append(names, r.Name)
	}
	if want := []string{"as recorded", "budget 10%", "exponential(1s, x2, cap 60s, full)", "50% upgraded: full jitter, cap 60s", "+2 nodes", "throttled at 40/s"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, rows %q", err, names)
	}
	for _, bad := range [][]string{{"--each"}, {"--nodes", "two"}, {"--nodes", "+2xbig"}, {"--upgrade", "150%"}, {"--throttle", "-3"}, {"--budget", "much"},
		{"--policy", "sometimes"}, {"--since", "then"}, {"-T", "csv"}, {"--seeds", "0"}} {
		do(exitUsage, append([]string{"whatif", file}, bad...)...)
	}
	if _, talk := do(exitFailed, "whatif", file, "--service", "tcp/1"); !strings.Contains(talk, "no storm") {
		t.Error(talk)
	}
}
