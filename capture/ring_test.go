package capture_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/capture"
)

// ringFiles lists a directory's files and how many packets each has.
func ringFiles(t *testing.T, dir string) (names []string, packets []int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		_, stats, err := readAll(t, []string{filepath.Join(dir, e.Name())}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if stats[0].Damage != nil {
			t.Errorf("%s: %+v", e.Name(), stats[0].Damage)
		}
		if info, _ := e.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", e.Name(), info.Mode())
		}
		names, packets = append(names, e.Name()), append(packets, stats[0].Packets)
	}
	return names, packets
}

// every writes n packets at equal distances.
func every(t *testing.T, r *capture.Ring, from, step int64, n int) {
	t.Helper()
	for i := range n {
		p := capture.Packet{Time: from + int64(i)*step, Data: make([]byte, 100), OrigLen: 100, Link: capture.LinkEthernet}
		if err := r.WritePacket(&p, ""); err != nil {
			t.Fatal(err)
		}
	}
}

const sec = int64(time.Second)

func TestRing(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano()
	for _, tc := range []struct {
		words []string
		from  int64
		want  []int64
		first string
	}{
		{nil, noon, []int64{100}, "x.pcapng"},
		{[]string{"packets:30"}, noon, []int64{30, 30, 30, 10}, "x_00001_20260301120000.pcapng"},
		{[]string{"packets:30", "files:2"}, noon, []int64{30, 10}, "x_00003_20260301120200.pcapng"},
		{[]string{"duration:50"}, noon + 10*sec, []int64{25, 25, 25, 25}, "x_00001_20260301120010.pcapng"},
		{[]string{"interval:1m"}, noon + 50*sec, []int64{5, 30, 30, 30, 5}, "x_00001_20260301120050.pcapng"}, // by the clock
		{[]string{"filesize:2"}, noon, []int64{15, 15, 15, 15, 15, 15, 10}, "x_00001_20260301120000.pcapng"},
		{[]string{"interval:60s", "packets:20"}, noon, []int64{20, 10, 20, 10, 20, 10, 10}, "x_00001_20260301120000.pcapng"},
	} {
		dir := t.TempDir()
		opt := capture.RingOptions{}
		for _, w := range tc.words {
			if err := opt.ParseRing(w); err != nil {
				t.Fatal(err)
			}
		}
		r, err := capture.NewRing(filepath.Join(dir, "x.pcapng"), opt)
		if err != nil {
			t.Fatal(err)
		}
		every(t, r, tc.from, 2*sec, 100)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		names, packets := ringFiles(t, dir)
		if !slices.Equal(packets, tc.want) || names[0] != tc.first {
			t.Errorf("%v: %v in %v, want %v from %s", tc.words, packets, names, tc.want, tc.first)
		}
	}
}

// TestRingAgain: a capture that is started again continues the ring, and
// touches nothing that is not of it. A clock that is set back begins a file.
func TestRingAgain(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "node_00001_2026.pcapng")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	said := ""
	for run := range 3 {
		opt := capture.RingOptions{Packets: 10, Files: 3, Duration: time.Hour, Say: func(f string, _ ...any) { said += f }}
		r, err := capture.NewRing(filepath.Join(dir, "node.pcapng.zst"), opt)
		if err != nil {
			t.Fatal(err)
		}
		every(t, r, int64(run)*1000*sec, sec, 15)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
	os.Remove(other)
	names, packets := ringFiles(t, dir)
	if len(names) != 3 || !strings.HasPrefix(names[0], "node_00004_") || !slices.Equal(packets, []int64{5, 10, 5}) || !strings.Contains(said, "earlier capture") {
		t.Errorf("%v, %v, said %q", names, packets, said)
	}

	r, err := capture.NewRing(filepath.Join(dir, "step.pcapng"), capture.RingOptions{Duration: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	every(t, r, 7200*sec, sec, 5)
	every(t, r, 0, sec, 5)
	r.Close()
	if names, _ := filepath.Glob(filepath.Join(dir, "step_*")); len(names) != 2 {
		t.Errorf("%v", names)
	}
}

func TestRingRefused(t *testing.T) {
	for word, want := range map[string]string{
		"files":          "WORD:VALUE",
		"filesize:0":     "kilobytes",
		"filesize:5XB":   "kilobytes",
		"duration:1ms":   "seconds",
		"duration:-5":    "seconds",
		"interval:":      "seconds",
		"files:0":        "1 to 1000000",
		"packets:x":      "number of packets",
		"switch:5":       "there are filesize",
		"filesize:9e9GB": "kilobytes",
	} {
		if err := new(capture.RingOptions).ParseRing(word); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", word, err, want)
		}
	}
	if _, err := capture.NewRing("x.pcapng", capture.RingOptions{Files: 3}); err == nil {
		t.Error("files: without a reason to begin another one")
	}
	if _, err := capture.NewRing(filepath.Join(t.TempDir(), "no", "x.pcapng"), capture.RingOptions{Packets: 3}); err == nil {
		t.Error("a directory that is not there was found out too late")
	}
}

// TestKilledWriter: after a Flush, what is in the file is whole, compressed or
// not, though nothing was closed.
func TestKilledWriter(t *testing.T) {
	for _, c := range []string{"", "gzip", "zstd", "lz4"} {
		for _, format := range []string{"pcap", "pcapng"} {
			var b bytes.Buffer
			w, err := capture.NewWriter(&b, capture.WriterOptions{Format: format, Compression: c})
			if err != nil {
				t.Fatal(err)
			}
			want := random(500, 9)
			for i := range want {
				if err := w.WritePacket(&want[i], ""); err != nil {
					t.Fatal(err)
				}
				if i%100 == 99 {
					if err := w.Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
			// One more that is never flushed.
			w.WritePacket(&want[0], "")
			name := filepath.Join(t.TempDir(), "killed")
			if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			got, stats, err := readAll(t, []string{name}, nil)
			if err != nil || stats[0].Damage != nil {
				t.Errorf("%s %s: %v, %+v", format, c, err, stats[0].Damage)
			}
			same(t, format+" "+c, got, want)
		}
	}
}

// brim is a disk that is full after some bytes.
type brim struct {
	bytes.Buffer
	room int
}

var errBrim = errors.New("full")

func (b *brim) Write(p []byte) (int, error) {
	if len(p) > b.room {
		return 0, errBrim
	}
	b.room -= len(p)
	return b.Buffer.Write(p)
}

// TestFullDisk: what could not be written is not lost, once there is room.
func TestFullDisk(t *testing.T) {
	out := &brim{room: 3000}
	w, err := capture.NewWriter(out, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := random(100, 5)
	full := 0
	for i := range want {
		if err := w.WritePacket(&want[i], ""); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); errors.Is(err, errBrim) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if full == 0 || w.Close() == nil {
		t.Errorf("the disk was never full")
	}
	out.room = 1 << 20
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	got, _, err := readAll(t, []string{"-"}, &out.Buffer)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "after the disk was full", got, want)
}

// TestInterfaces: names, filters, directions and counters of several inputs
// come through pcapng.
func TestInterfaces(t *testing.T) {
	var b bytes.Buffer
	w, err := capture.NewWriter(&b, capture.WriterOptions{Application: "squall test", Interfaces: []capture.WriterInterface{
		{Name: "eth0", Filter: "udp", Link: capture.LinkEthernet}, {Name: "tun0", Link: capture.LinkRaw}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range []uint32{capture.FlagInbound | capture.FlagUnicast, capture.FlagOutbound, 0} {
		p := capture.Packet{Time: int64(i) * sec, Data: []byte{byte(i)}, OrigLen: 1, Link: capture.LinkEthernet, Flags: f}
		if i == 1 {
			p.File, p.Link = 1, capture.LinkRaw
		}
		if err := w.WritePacket(&p, ""); err != nil {
			t.Fatal(err)
		}
	}
	for i, drops := range []int64{3, 4} {
		s := capture.InterfaceStatistics{File: uint32(i), Start: sec, End: 9 * sec, Received: -1, IfDropped: -1, Accepted: 10, OSDropped: drops, Delivered: 2}
		if err := w.WriteStatistics(&s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	src, err := capture.Open([]string{"-"}, capture.Options{Stdin: &b})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var flags []uint32
	var ifaces []uint16
	for {
		batch, err := src.Next()
		if err == io.EOF {
			break
		}
		for _, p := range batch.Packets {
			flags, ifaces = append(flags, p.Flags), append(ifaces, p.Iface)
		}
		batch.Release()
	}
	if !slices.Equal(flags, []uint32{5, 2, 0}) || !slices.Equal(ifaces, []uint16{0, 1, 0}) {
		t.Errorf("flags %v, interfaces %v", flags, ifaces)
	}
	if f := src.Files()[0]; f.Drops != 7 || f.Ended != 9*sec {
		t.Errorf("%+v", f)
	}
}
