package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"squall/capture"
)

// rotated writes a capture anew as a ring of so many files, compressed or not, in
// no order, and gives their names as arguments.
func rotated(t *testing.T, file string, files int, ending string) (names []string) {
	t.Helper()
	src, err := capture.Open([]string{file}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var packets []capture.Packet
	for {
		b, err := src.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, b.Packets...) // the batches live on
	}
	dir := t.TempDir()
	for i := range files {
		part := packets[i*len(packets)/files : (i+1)*len(packets)/files]
		name := filepath.Join(dir, fmt.Sprintf("tap_%05d_%s%s", i+1, time.Unix(0, part[0].Time).UTC().Format("20060102150405"), ending))
		w, err := capture.Create(name, capture.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range part {
			if err := w.WritePacket(&part[i], ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}

// said is the summary of an analysis without what names files and frames.
func said(t *testing.T, args ...string) map[string]any {
	t.Helper()
	code, out, errs := squall(nil, append([]string{"analyze", "-q", "-T", "json"}, args...)...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	out = regexp.MustCompile(`"(first_frame|last_frame|frame|capture_file)":("[^"]*"|\d+|null),?`).ReplaceAllString(out, "")
	var m map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(out, ",}", "}")), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "captures")
	return m
}

// TestRotation: two thousand rotated files in no order give what the one capture
// gives; with five missing and one cut the verdict stands, and the holes are named.
func TestRotation(t *testing.T) {
	file := sampled(t, "outage")
	files := 2000
	if testing.Short() {
		files = 300
	}
	names := rotated(t, file, files, ".pcap")
	want, got := said(t, file), said(t, names...)
	for key := range want {
		a, _ := json.Marshal(want[key])
		b, _ := json.Marshal(got[key])
		if string(a) != string(b) {
			t.Errorf("%s:\n%.600s, in one file\n%.600s", key, b, a)
		}
	}
	var gone []string
	for i := range 6 {
		if i == 5 {
			info, err := os.Stat(names[i])
			if err != nil || os.Truncate(names[i], info.Size()-7) != nil {
				t.Fatal(err)
			}
			continue
		}
		gone = append(gone, names[i])
		if err := os.Remove(names[i]); err != nil {
			t.Fatal(err)
		}
	}
	got = said(t, names[5:]...)
	a, b := want["verdict"].(map[string]any), got["verdict"].(map[string]any)
	for _, key := range []string{"class", "cascade", "service", "onset_shape", "recovered", "confidence"} {
		if fmt.Sprint(a[key]) != fmt.Sprint(b[key]) {
			t.Errorf("%s is %v with holes, %v without", key, b[key], a[key])
		}
	}
	for _, key := range []string{"attempts", "amplification", "retry_share"} {
		x, y := a[key].(float64), b[key].(float64)
		if d := y/x - 1; d > 0.02 || d < -0.02 {
			t.Errorf("%s is %v with holes, %v without", key, y, x)
		}
	}
	notes := fmt.Sprint(got["notes"])
	code, text, errs := squall(nil, append([]string{"info", "-q"}, names[5:]...)...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, name := range gone {
		m := regexp.MustCompile(`tap_\d+_`).FindString(name) + "*.pcap"
		if !strings.Contains(text, m) {
			t.Errorf("info does not say that %s is missing", m)
		}
		if !strings.Contains(notes, m) {
			t.Errorf("the summary does not say that %s is missing", m)
		}
	}
}

// TestWindowOfFiles: with --after and --before the files outside are left alone,
// and the rows are those that one capture of the same packets gives.
func TestWindowOfFiles(t *testing.T) {
	file := sampled(t, "outage")
	for _, ending := range []string{".pcap", ".pcapng.zst"} {
		names := rotated(t, file, 40, ending)
		window := []string{"--after", "60s", "--before", "90s"}
		want := rowsOf(t, append(window, file)...)
		got := rowsOf(t, append(window, names...)...)
		if len(want) < 20 || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: %d rows, want %d", ending, len(got), len(want))
		}
		var disk, read int64
		unread := 0
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			disk += info.Size()
		}
		for _, row := range table(t, append(append([]string{"info"}, window...), names...)...) {
			var n int64
			fmt.Sscan(row["read_bytes"], &n)
			read += n
			if row["unread"] != "" && row["packets"] == "0" {
				unread++
			}
		}
		if unread < 15 || ending == ".pcap" && read > disk*3/4 { // of small files a look is the half
			t.Errorf("%s: %d of %d files were left alone, %d of %d bytes read", ending, unread, len(names), read, disk)
		}
	}
}
