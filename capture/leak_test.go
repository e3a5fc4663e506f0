package capture_test

import (
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"squall/capture"
)

// TestMain fails when a goroutine is left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCloseEarly closes sources that were not read, or only a little.
func TestCloseEarly(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.pcapng", "b.pcap.zst", "c.pcapng.gz", "d.pcap.lz4", "e.pcap", "f.pcap"} {
		write(t, filepath.Join(dir, name), random(4000, 3))
	}
	for batches := range 4 {
		src, err := capture.Open([]string{dir}, capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range batches {
			b, err := src.Next()
			if err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
		if err := src.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
	}
}

func TestStdinOnce(t *testing.T) {
	var b strings.Builder
	w, err := capture.NewWriter(&b, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readAll(t, []string{"-", "-"}, strings.NewReader(b.String())); err == nil || !strings.Contains(err.Error(), "once") {
		t.Errorf("standard input twice: %v", err)
	}
}
