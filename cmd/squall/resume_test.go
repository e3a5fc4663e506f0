package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/dissect/pipeline"
)

// TestResume: an analysis that was killed goes on from what it had kept, and all
// that it leaves is byte for byte what one run leaves. Files are known by their
// content; where that changed, or the flags did, it begins anew.
func TestResume(t *testing.T) {
	defer func(every, share time.Duration, now func(string)) { keepEvery, keepShare, keptNow = every, share, now }(keepEvery, keepShare, keptNow)
	keepEvery, keepShare = 0, 0
	outage := filepath.Join(t.TempDir(), "outage.pcap")
	if code, _, errs := squall(nil, "sample", "outage", "--clients", "100", "-w", outage); code != 0 {
		t.Fatal(errs)
	}
	names := rotated(t, outage, 12, ".pcapng.gz")
	read := func(dir string) map[string]string {
		out := map[string]string{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			out[e.Name()] = string(b)
		}
		return out
	}
	// The states that a run kept on its way, as a kill would have left each.
	var states [][]byte
	keptNow = func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		states = append(states, b)
	}
	once := filepath.Join(t.TempDir(), "case")
	if code, _, errs := squall(nil, append([]string{"analyze", "-o", once}, names...)...); code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	keptNow, keepEvery = func(string) {}, time.Hour
	want := read(once)
	if _, there := want[resumeName]; there || len(states) < 3 {
		t.Fatalf("%d states; a whole analysis leaves none: %v", len(states), there)
	}
	middle := states[len(states)/2]
	again := func(what string, state []byte, says string, args ...string) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "case")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, resumeName), state, 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, errs := squall(nil, append(append([]string{"analyze", "-o", dir}, args...), names...)...)
		if code != 0 || !strings.Contains(errs, says) {
			t.Errorf("%s: exit %d: %s", what, code, errs)
		}
		got := read(dir)
		for name := range want {
			// The manifest has its hash; the order of what merge reads is left to the workers.
			if args == nil && got[name] != want[name] && name != custodyName && name != pipeline.SaveName {
				t.Errorf("%s: %s is another", what, name)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d files, want %d", what, len(got), len(want))
		}
		if code, out, _ := squall(nil, "verify", dir); code != 0 {
			t.Errorf("%s: %s", what, out)
		}
	}
	again("one in the middle", middle, "goes on where it was broken off")
	if testing.Short() {
		return
	}
	again("the first state", states[0], "goes on where it was broken off")
	again("other flags", middle, "with other flags", "--keep-duplicates")
	again("a byte of it", append(bytes.Clone(middle[:len(middle)-40]), 'x'), "it is damaged")
	again("nothing of it", nil, "it is cut")
	first := slices.IndexFunc(names, func(n string) bool { return strings.Contains(n, "tap_00001_") })
	if err := os.Chtimes(names[first], time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	again("a file of another date", middle, "goes on where it was broken off")
	b, err := os.ReadFile(names[first])
	if err != nil {
		t.Fatal(err)
	}
	b[4] ^= 1 // in the time of gzip: the packets are what they were, so that the tables can be compared
	if err := os.WriteFile(names[first], b, 0o600); err != nil {
		t.Fatal(err)
	}
	again("a file of other content", middle, "is not what was read of it")
}
