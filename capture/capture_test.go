package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"squall/capture"
)

// readAll copies every packet out of the batches.
func readAll(t testing.TB, inputs []string, stdin io.Reader) ([]capture.Packet, []capture.FileStats, error) {
	t.Helper()
	src, err := capture.Open(inputs, capture.Options{Stdin: stdin})
	if err != nil {
		return nil, nil, err
	}
	defer src.Close()
	var all []capture.Packet
	for {
		b, err := src.Next()
		if err == io.EOF {
			return all, src.Files(), nil
		}
		if err != nil {
			return all, src.Files(), err
		}
		for _, p := range b.Packets {
			p.Data = bytes.Clone(p.Data)
			all = append(all, p)
		}
		b.Release()
	}
}

func random(n int, seed uint64) []capture.Packet {
	rng := rand.New(rand.NewPCG(seed, 1))
	all := make([]capture.Packet, n)
	now := int64(1292947200e9)
	for i := range all {
		now += int64(rng.ExpFloat64() * 1e6)
		data := make([]byte, rng.IntN(1500))
		for j := range data {
			data[j] = byte(rng.Uint32())
		}
		all[i] = capture.Packet{Time: now, Data: data, OrigLen: len(data) + rng.IntN(2)*rng.IntN(500), Link: capture.LinkEthernet}
	}
	return all
}

func same(t *testing.T, what string, got, want []capture.Packet) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d packets, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		g, w := &got[i], &want[i]
		if g.Time != w.Time || g.OrigLen != w.OrigLen || g.Link != w.Link || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%s: packet %d: time %d, %d of %d bytes, link %d; want %d, %d of %d, %d", what, i,
				g.Time, len(g.Data), g.OrigLen, g.Link, w.Time, len(w.Data), w.OrigLen, w.Link)
			return
		}
	}
}

func write(t testing.TB, path string, packets []capture.Packet) {
	t.Helper()
	w, err := capture.Create(path, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range packets {
		if err := w.WritePacket(&packets[i], "c"+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(3) {
		want := random(3000, seed) // more than one chunk
		for _, ending := range []string{"pcap", "pcapng", "pcap.gz", "pcapng.gz", "pcap.zst", "pcapng.zst", "pcap.lz4", "pcapng.lz4"} {
			path := filepath.Join(t.TempDir(), "x."+ending)
			write(t, path, want)
			got, stats, err := readAll(t, []string{path}, nil)
			if err != nil {
				t.Fatal(err)
			}
			same(t, ending, got, want)
			if s := stats[0]; s.Damage != nil || s.Packets != int64(len(want)) || s.First != want[0].Time || s.Last != want[len(want)-1].Time {
				t.Errorf("%s: %+v", ending, s)
			}
		}
	}
}

func TestLinkTypes(t *testing.T) {
	want := random(10, 1)
	for i := range want {
		want[i].Link = []capture.LinkType{capture.LinkEthernet, capture.LinkLinuxSLL2, 65000}[i%3]
	}
	path := filepath.Join(t.TempDir(), "x.pcapng")
	write(t, path, want)
	got, stats, err := readAll(t, []string{path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "three link types", got, want)
	if l := stats[0].LinkTypes; !slices.Equal(l, []capture.LinkType{1, 276, 65000}) {
		t.Errorf("link types %v", l)
	}
	w, _ := capture.NewWriter(io.Discard, capture.WriterOptions{Format: "pcap"})
	if err := w.WritePacket(&want[0], ""); err != nil {
		t.Error(err)
	}
	if err := w.WritePacket(&want[1], ""); err == nil {
		t.Error("pcap took a second link type")
	}
}

// TestMerge: packets dealt over many files, some overlapping, come back in
// order whatever the order of the files.
func TestMerge(t *testing.T) {
	want := random(5000, 9)
	rng := rand.New(rand.NewPCG(3, 3))
	for _, consecutive := range []bool{true, false} {
		dir := t.TempDir()
		parts := make([][]capture.Packet, 24)
		for i, p := range want {
			k := i * len(parts) / len(want)
			if !consecutive {
				k = rng.IntN(len(parts))
			}
			parts[k] = append(parts[k], p)
		}
		var names []string
		for i, p := range parts {
			names = append(names, filepath.Join(dir, "part"+strconv.Itoa(i)+".pcap.gz"))
			write(t, names[i], p)
		}
		for range 3 {
			rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			got, _, err := readAll(t, names, nil)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "24 files", got, want)
		}
		got, _, err := readAll(t, []string{dir}, nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "a directory", got, want)
		got, _, err = readAll(t, []string{filepath.Join(dir, "*.gz")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "a glob", got, want)
	}
}

// TestCut cuts files at every byte: what was whole is given, the rest is
// said, and nothing fails.
func TestCut(t *testing.T) {
	want := random(4, 2)
	for _, format := range []string{"pcap", "pcapng"} {
		var full bytes.Buffer
		w, _ := capture.NewWriter(&full, capture.WriterOptions{Format: format})
		for i := range want {
			if err := w.WritePacket(&want[i], ""); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		b := full.Bytes()
		last := 0
		for n := range len(b) {
			got, stats, err := readAll(t, []string{"-"}, bytes.NewReader(b[:n:n]))
			if err != nil {
				if n >= 24 {
					t.Errorf("%s cut at %d: %v", format, n, err)
				}
				continue
			}
			if len(got) < last || len(got) == len(want) {
				t.Errorf("%s cut at %d: %d packets after %d", format, n, len(got), last)
			}
			if len(got) > 0 {
				same(t, format, got, want[:len(got)])
			}
			last = len(got)
			if d := stats[0].Damage; d != nil && (!d.Tail || d.Frame != int64(len(got)+1) || d.Offset > int64(n)) {
				t.Errorf("%s cut at %d: %+v", format, n, *d)
			}
		}
	}
}

// TestJoined: files that cat has joined are one where their headers say the same.
func TestJoined(t *testing.T) {
	write := func(nano bool, want []capture.Packet) []byte {
		var b bytes.Buffer
		w, _ := capture.NewWriter(&b, capture.WriterOptions{Format: "pcap"})
		for i := range want {
			if err := w.WritePacket(&want[i], ""); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		if !nano {
			copy(b.Bytes(), []byte{0xd4, 0xc3, 0xb2, 0xa1}) // the times are wrong then, and nobody looks
		}
		return b.Bytes()
	}
	one, two := random(4, 2), random(3, 3)
	got, stats, err := readAll(t, []string{"-"}, bytes.NewReader(append(write(true, one), write(true, two)...)))
	if err != nil || stats[0].Damage != nil {
		t.Fatalf("%v, %+v", err, stats)
	}
	want := append(one[:4:4], two...)
	for i := range want {
		want[i].Frame = int64(i + 1)
	}
	same(t, "joined", got, want)
	first := write(true, one)
	got, stats, err = readAll(t, []string{"-"}, bytes.NewReader(append(first, write(false, two)...)))
	if d := stats[0].Damage; err != nil || len(got) != 4 || d == nil || d.Offset != int64(len(first)) || d.Frame != 5 || !strings.Contains(d.Reason, "appended") {
		t.Errorf("%d packets, %v, %+v", len(got), err, stats[0].Damage)
	}
}

func TestTimeResolution(t *testing.T) {
	// One pcapng by hand: section, interface with if_tsresol and if_tsoffset, one packet.
	make := func(resol byte, offset int64, units uint64) []byte {
		le := binary.LittleEndian
		var b []byte
		b = le.AppendUint32(b, 0x0a0d0d0a)
		b = le.AppendUint32(b, 28)
		b = le.AppendUint32(b, 0x1a2b3c4d)
		b = append(b, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255)
		b = le.AppendUint32(b, 28)
		b = append(le.AppendUint32(le.AppendUint32(b, 1), 44), 1, 0, 0, 0, 0, 0, 0, 0)
		b = append(b, 9, 0, 1, 0, resol, 0, 0, 0, 14, 0, 8, 0)
		b = le.AppendUint64(b, uint64(offset))
		b = append(b, 0, 0, 0, 0)
		b = le.AppendUint32(b, 44)
		b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, 6), 36), 0)
		b = le.AppendUint32(le.AppendUint32(b, uint32(units>>32)), uint32(units))
		b = le.AppendUint32(le.AppendUint32(b, 4), 4)
		b = append(b, 1, 2, 3, 4)
		return le.AppendUint32(b, 36)
	}
	for _, tc := range []struct {
		resol  byte
		offset int64
		units  uint64
		want   int64
	}{
		{0, 0, 1300000000, 1300000000e9},
		{6, 0, 1300000000123456, 1300000000123456000},
		{9, 0, 1300000000123456789, 1300000000123456789},
		{12, 0, 1234567890123456789, 1234567890123456},
		{3, 100, 5001, 105001000000},
		{6, -10, 1300000000000000, 1299999990e9},
		{0x80, 0, 7, 7e9},
		{0x80 | 10, 0, 1024*5 + 512, 5500000000},
		{0x80 | 30, 0, 1<<30 + 1, 1000000000},
		{0x80 | 32, 0, 1300000000<<32 | 1<<31, 1300000000500000000},
		{0x80 | 64, 0, 1 << 63, 500000000},
		{19, 0, 18446744073709551615, 1844674407},
		{30, 0, 18446744073709551615, 0},
	} {
		got, _, err := readAll(t, []string{"-"}, bytes.NewReader(make(tc.resol, tc.offset, tc.units)))
		if err != nil || len(got) != 1 || got[0].Time != tc.want {
			t.Errorf("resolution %#x offset %d units %d: %v %v, want %d", tc.resol, tc.offset, tc.units, got, err, tc.want)
		}
	}
}

func TestNotACapture(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	os.WriteFile(text, []byte("hello there\nthis is text\n"), 0o600)
	xz := filepath.Join(dir, "x.pcap.xz")
	os.WriteFile(xz, []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 4}, 0o600)
	for _, tc := range []struct{ input, want string }{
		{text, `begins with the text "hello there"`},
		{xz, "xz -dc"},
		{dir, "no capture in this directory"},
		{filepath.Join(dir, "none.pcap"), "no such file"},
	} {
		_, _, err := readAll(t, []string{tc.input}, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", tc.input, err, tc.want)
		}
	}
	if _, _, err := readAll(t, []string{text}, nil); !errors.Is(err, capture.ErrFormat) {
		t.Errorf("a text file: %v is no ErrFormat", err)
	}
}

// TestAgainstTruth reads the real captures; COUNTING.md says where the counts
// are sound.
func TestAgainstTruth(t *testing.T) {
	dir := shared(t)
	rows := truth(t, "truth-conv.tsv")
	exceptions := map[string]string{
		"formats/5_packets.erf.bz2":        "ERF is no format of squall",
		"formats/pcapng-le-test901.pcapng": "its second section has a version that readers must not touch",
		"formats/pcapng-be-test901.pcapng": "likewise",
	}
	checked := 0
	for name, row := range rows {
		folder, _, _ := strings.Cut(name, "/")
		if folder == "hostile" || strings.HasSuffix(name, ".xz") || row["packets"] == "" {
			continue
		}
		count := row["packets"]
		if row["agree"] == "no" && row["own_packets"] != "" && !strings.Contains(name, "2.2") && !strings.Contains(name, "bad_ack") {
			count = row["own_packets"]
		}
		want, err := strconv.Atoi(count)
		if err != nil || exceptions[name] != "" {
			continue
		}
		got, _, err := readAll(t, []string{filepath.Join(dir, name)}, nil)
		if err != nil {
			if want > 0 {
				t.Errorf("%s: %v, want %d packets (agree %s)", name, err, want, row["agree"])
			}
			continue
		}
		checked++
		if len(got) != want {
			t.Errorf("%s: %d packets, want %d (agree %s; %s)", name, len(got), want, row["agree"], row["tshark_note"])
		}
	}
	t.Logf("%d captures compared", checked)
}

// TestHostile: files made to break readers are read to some end.
func TestHostile(t *testing.T) {
	names, _ := filepath.Glob(filepath.Join(shared(t), "hostile", "*"))
	for _, name := range names {
		_, stats, err := readAll(t, []string{name}, nil)
		if err == nil && len(stats) != 1 {
			t.Errorf("%s: %d files", name, len(stats))
		}
	}
	t.Logf("%d files", len(names))
}

func FuzzOpen(f *testing.F) {
	packets := random(3, 1)
	for _, o := range []capture.WriterOptions{{}, {Format: "pcap"}, {Compression: "gzip"}, {Compression: "zstd"}, {Compression: "lz4"}} {
		var b bytes.Buffer
		w, _ := capture.NewWriter(&b, o)
		for i := range packets {
			w.WritePacket(&packets[i], "seed")
		}
		w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, stats, err := readAll(t, []string{"-"}, bytes.NewReader(b))
		if err != nil {
			return
		}
		if stats[0].Packets != int64(len(got)) {
			t.Errorf("%d packets given, %d counted", len(got), stats[0].Packets)
		}
		for i, p := range got {
			if len(p.Data) > p.OrigLen || p.Frame != int64(i+1) {
				t.Errorf("packet %d: %d of %d bytes, frame %d", i, len(p.Data), p.OrigLen, p.Frame)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.pcap")
	packets := random(100000, 1)
	for i := range packets {
		packets[i].Data = packets[i].Data[:min(len(packets[i].Data), 600)]
	}
	write(b, path, packets)
	info, _ := os.Stat(path)
	b.SetBytes(info.Size())
	b.ReportAllocs()
	for b.Loop() {
		src, err := capture.Open([]string{path}, capture.Options{})
		if err != nil {
			b.Fatal(err)
		}
		for {
			batch, err := src.Next()
			if err != nil {
				break
			}
			batch.Release()
		}
		src.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(packets)), "ns/packet")
}

// TestAIX: version 2.2 with link types of SNMP has nanoseconds.
func TestAIX(t *testing.T) {
	b := binary.BigEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 6)
	for _, v := range []uint32{1, 999_999_000, 4, 60} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	all, _, err := readAll(t, []string{"-"}, bytes.NewReader(append(b, 1, 2, 3, 4)))
	if err != nil || len(all) != 1 || all[0].Time != 1_999_999_000 || all[0].Link != capture.LinkEthernet || all[0].OrigLen != 60 {
		t.Errorf("%v: %+v", err, all)
	}
}
