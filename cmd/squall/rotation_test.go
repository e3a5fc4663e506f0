package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
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

// packetsIn is every packet of a capture, and what its reader says of it.
func packetsIn(t *testing.T, name string) (all []capture.Packet, stats capture.FileStats) {
	t.Helper()
	src, err := capture.Open([]string{name}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for {
		b, err := src.Next()
		if err == io.EOF {
			return all, src.Files()[0]
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range b.Packets {
			p.Data = bytes.Clone(p.Data) // the file goes with its reader
			all = append(all, p)
		}
		b.Release()
	}
}

// rotated writes a capture anew as a ring of so many files, compressed or not, in
// no order, and gives their names as arguments.
func rotated(t *testing.T, file string, files int, ending string) (names []string) {
	t.Helper()
	packets, _ := packetsIn(t, file)
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
	packets, _ := packetsIn(t, file)
	outside := 0
	for i := range 40 { // as rotated cuts them; packets may be out of order by a second
		first, last := packets[i*len(packets)/40].Time-packets[0].Time, packets[(i+1)*len(packets)/40-1].Time-packets[0].Time
		if last < 59e9 || first >= 91e9 {
			outside++
		}
	}
	for _, ending := range []string{".pcap", ".pcapng.zst"} {
		names := rotated(t, file, 40, ending)
		window := []string{"--after", "60s", "--before", "90s"}
		want := rowsOf(t, append(window, file)...)
		got := rowsOf(t, append(window, names...)...)
		if len(want) < 20 || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: %d rows, want %d", ending, len(got), len(want))
		}
		var within, read int64
		unread := 0
		size := map[string]int64{}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			size[name] = info.Size()
		}
		for _, row := range table(t, append(append([]string{"info"}, window...), names...)...) {
			var n int64
			fmt.Sscan(row["read_bytes"], &n)
			read += n
			if row["unread"] == "" || row["packets"] != "0" {
				within += size[row["capture_file"]] + 4096 // the look at its first packet, and all of it
				continue
			}
			// A look at the first packets, and one at the last.
			if unread++; n > 4096+8192 {
				t.Errorf("%s: %d bytes of %s were read, which was left alone: %s", ending, n, row["capture_file"], row["unread"])
			}
		}
		if unread != outside || read > within+int64(unread)*(4096+8192) {
			t.Errorf("%s: %d of %d files were left alone, %d lie outside; %d bytes read, %d are in the window", ending, unread, len(names), outside, read, within)
		}
	}
}

// TestExtractSeeks: one finding in a long capture is extracted from a kept case
// with less than a hundredth of the bytes read, and gives the same packets.
func TestExtractSeeks(t *testing.T) {
	dir := t.TempDir()
	outage := filepath.Join(dir, "outage.pcap")
	if code, _, errs := squall(nil, "sample", "outage", "--clients", "30", "-w", outage); code != 0 {
		t.Fatal(errs)
	}
	storm, _ := packetsIn(t, outage)
	// Video of one pair of hosts for ten hours, the outage in its middle.
	frame := make([]byte, 1442)
	copy(frame, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45\x00\x05\x94\x00\x01\x40\x00\x40\x11\x00\x00\x0a\x09\x09\x01\x0a\x09\x09\x02\x13\x88\x13\x89\x05\x80\x00\x00")
	for _, ending := range []string{".pcap", ".pcapng.zst", ".one.pcap.gz"} {
		file := filepath.Join(dir, "day"+strings.TrimSuffix(ending, ".gz"))
		w, err := capture.Create(file, capture.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rng, at := rand.New(rand.NewPCG(7, 7)), 0
		put := func(p *capture.Packet) {
			if err := w.WritePacket(p, ""); err != nil {
				t.Fatal(err)
			}
		}
		video := 70000
		if ending != ".pcap" {
			video = 12000
		}
		for i := range video {
			when := storm[0].Time + int64(i-video/2)*600e6
			for ; at < len(storm) && storm[at].Time < when; at++ {
				put(&storm[at])
			}
			for k := 42; k < len(frame); k += 8 { // nothing that compresses
				binary.LittleEndian.PutUint64(frame[k:], rng.Uint64())
			}
			put(&capture.Packet{Time: when, Data: frame, OrigLen: len(frame), Link: capture.LinkEthernet})
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(ending, ".gz") { // one member, as gzip and tcpdump -z gzip write it
			file = gzipped(t, file)
		}
		kept := filepath.Join(dir, "kept"+ending)
		if code, _, errs := squall(nil, "analyze", "-q", file, "-o", kept); code != 0 {
			t.Fatal(errs)
		}
		part, whole := filepath.Join(dir, "part.pcap"), filepath.Join(dir, "whole.pcap")
		code, _, errs := squall(nil, "extract", kept, "--finding", "1", "-w", part)
		if code != 0 {
			t.Fatal(errs)
		}
		var packets, attempts int
		var read, size int64
		if _, err := fmt.Sscanf(errs, "squall: %d packets of %d attempts; %d of %d bytes were read", &packets, &attempts, &read, &size); err != nil {
			t.Fatalf("%q: %v", errs, err)
		}
		t.Logf("%s: %d of %d bytes", ending, read, size)
		if info, err := os.Stat(file); err != nil || info.Size() != size || packets < 500 {
			t.Errorf("%s: %q", ending, errs)
		}
		if limit := size / 100; ending == ".pcap" && read >= limit || read > size/8 { // a frame is a megabyte, so is what lies before a block
			t.Errorf("%s: %d of %d bytes read", ending, read, size)
		}
		if code, _, errs := squall(nil, "extract", "-q", file, "--finding", "1", "-w", whole); code != 0 {
			t.Fatal(errs)
		}
		a, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(whole); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes from the case, %d from the capture, %v", ending, len(a), len(b), err)
		}
		// An index of another form is left alone, and that is said.
		if err := os.WriteFile(filepath.Join(kept, indexName), []byte(`{"capture_file":"a","index":{}}`+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, errs = squall(nil, "extract", kept, "--finding", "1", "-w", part)
		if b, _ := os.ReadFile(part); code != 0 || !strings.Contains(errs, "not of the form of this squall (2)") || strings.Contains(errs, "bytes were read") || !bytes.Equal(a, b) {
			t.Errorf("an old index: exit %d, %d bytes, %s", code, len(b), errs)
		}
		if testing.Short() {
			break
		}
	}
}

// gzipped packs a file into one member.
func gzipped(t *testing.T, file string) string {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(file + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	z, _ := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if _, err := io.Copy(z, in); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
