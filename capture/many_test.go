package capture_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"squall/capture"
)

// TestManyFiles reads a directory of more captures than a process may have
// open, some of them without a packet, and counts the descriptors on the way.
func TestManyFiles(t *testing.T) {
	const files, each = 1200, 3
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Skip("needs /proc/self/fd to count open files, as Linux with /proc mounted has it")
	}
	dir := t.TempDir()
	want := random(files*each, 5)
	for i := range files {
		part := want[i*each : (i+1)*each]
		write(t, filepath.Join(dir, fmt.Sprintf("%04d.pcapng", (i*7)%files)), part)
		if i%4 == 0 {
			write(t, filepath.Join(dir, fmt.Sprintf("%04d-empty.pcap", i)), nil)
		}
	}
	src, err := capture.Open([]string{dir}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	at, most := 0, 0
	for {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, len(open))
		b, err := src.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Packets {
			if at == len(want) || b.Packets[i].Time != want[at].Time {
				t.Fatalf("packet %d is not the next one in time", at)
			}
			at++
		}
		b.Release()
	}
	if at != len(want) {
		t.Errorf("%d packets, want %d", at, len(want))
	}
	if most > 100 {
		t.Errorf("%d descriptors open at once", most)
	}
	if got := len(src.Files()); got != files+files/4 {
		t.Errorf("%d files described, want %d", got, files+files/4)
	}
}
