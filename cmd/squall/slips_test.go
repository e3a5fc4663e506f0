package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestSlips: what was mistyped is answered with what was meant.
func TestSlips(t *testing.T) {
	for line, want := range map[string]string{
		"analyze --hlep x":    "did you mean --help?",
		"analyze --basline x": "did you mean --baseline?",
		"analyze --xyzzy x":   "unknown flag: --xyzzy; all flags: squall analyze --help",
		"analyze -Q x":        "see squall analyze --help",
		"anlyze x":            "did you mean analyze?",
		"xyzzy":               "squall --help lists them",
	} {
		var out, said bytes.Buffer
		if code := run(strings.Fields(line), strings.NewReader(""), &out, &said); code != exitUsage || !strings.Contains(said.String(), want) {
			t.Errorf("squall %s: exit %d, %q; want %q", line, code, said.String(), want)
		}
	}
	var out, said bytes.Buffer
	path := t.TempDir() + "/outage.pcap"
	run([]string{"sample", "outage", "-w", path}, strings.NewReader(""), &out, &said)
	code := run([]string{"report", "attempts", path, "--where", `event_start > "2010-12-22T16:01:00Z"`}, strings.NewReader(""), &out, &said)
	if want := `event_start >= date("2010-12-22T16:00:00Z")`; code != exitUsage || !strings.Contains(said.String(), want) {
		t.Errorf("exit %d, %q", code, said.String())
	}
	said.Reset()
	if code := run([]string{"report", "attempts", path, "--where", `event_start > date("2010-12-22T16:01:00Z")`, "--limit", "1"}, strings.NewReader(""), &out, &said); code != exitDone {
		t.Errorf("as it was told: exit %d, %q", code, said.String())
	}
}
