package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHarmOnScreen: the first screen says what clients went through, and what people
// noted near the onset, nearest two, in 50 lines of 100 columns.
func TestHarmOnScreen(t *testing.T) {
	dir := t.TempDir()
	file, notes := filepath.Join(dir, "o.pcap"), filepath.Join(dir, "notes.csv")
	if code, _, errs := squall(nil, "sample", "outage", "-w", file); code != 0 {
		t.Fatal(errs)
	}
	list := "time,text,node\n2010-12-22T16:00:38Z,deploy 2.1,lb1\n2010-12-22T16:00:45Z,page,\n2010-12-22T16:05:00Z,reboot,\n2010-12-22T12:00:00Z,coffee,\n"
	if err := os.WriteFile(notes, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := squall(nil, "analyze", "-q", file, "--events", notes)
	if code != 0 {
		t.Fatal(errs)
	}
	for _, want := range []string{"impact: 60 clients locked out for ", "client-minutes; from intent to acceptance p50 ", " before the onset: deploy 2.1 (lb1)", " after the onset: page"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not on the screen:\n%s", want, out)
		}
	}
	for _, not := range []string{"coffee", "reboot"} {
		if strings.Contains(out, not) {
			t.Errorf("%q is on the screen", not)
		}
	}
	if n := strings.Count(out, "\n"); n > 50 {
		t.Errorf("%d lines", n)
	}
}
