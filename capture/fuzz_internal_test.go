package capture

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/iotest"
)

// drain reads a stream without the goroutine of Open, so that the coverage
// that guides the fuzzer depends on the input alone.
func drain(t *testing.T, r io.Reader) (packets []Packet, stats FileStats, err error) {
	t.Helper()
	f, err := openStream(r, "-")
	if err != nil {
		return nil, FileStats{}, err
	}
	defer f.close()
	_, f.stream = r.(*bytes.Reader) // the other readers of these tests fill whole chunks
	for {
		b, err := f.nextBatch()
		if err != nil {
			return packets, f.snapshot(), nil
		}
		for _, p := range b.Packets {
			p.Data = bytes.Clone(p.Data)
			packets = append(packets, p)
		}
		b.Release()
	}
}

// holds checks what is true of every input, however broken.
func holds(t *testing.T, b []byte) {
	packets, stats, err := drain(t, bytes.NewReader(b))
	if err != nil {
		return
	}
	if stats.Packets != int64(len(packets)) {
		t.Fatalf("%d packets given, %d counted", len(packets), stats.Packets)
	}
	var before, wire int64
	for i, p := range packets {
		if len(p.Data) > p.OrigLen || p.Frame != int64(i+1) || p.Offset <= before {
			t.Fatalf("packet %d: %d of %d bytes, frame %d, offset %d after %d", i, len(p.Data), p.OrigLen, p.Frame, p.Offset, before)
		}
		before = p.Offset
		wire += int64(p.OrigLen)
	}
	if wire != stats.Bytes {
		t.Fatalf("%d bytes given, %d counted", wire, stats.Bytes)
	}
	if stats.Compression == "" && before > int64(len(b)) {
		t.Fatalf("a packet at offset %d of %d bytes", before, len(b))
	}
	if d := stats.Damage; d != nil && (d.Reason == "" || d.Frame != stats.Packets+1) {
		t.Fatalf("damage %+v after %d packets", *d, stats.Packets)
	}
	again, twice, err := drain(t, iotest.HalfReader(bytes.NewReader(b)))
	if err != nil || len(again) != len(packets) {
		t.Fatalf("read in pieces: %d packets, %v; at once %d", len(again), err, len(packets))
	}
	if (twice.Damage == nil) != (stats.Damage == nil) {
		t.Fatalf("read in pieces: damage %v; at once %v", twice.Damage, stats.Damage)
	}
}

// written is a small file of three packets, two of them of one link type where
// the format allows it.
func written(t testing.TB, opt WriterOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, opt)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		p := Packet{Time: 1292947200e9 + int64(i)*1e6, Data: bytes.Repeat([]byte{byte(i)}, 5*i), OrigLen: 5*i + i%2, Link: LinkEthernet}
		if i == 2 && opt.Format != "pcap" {
			p.Link = LinkLinuxSLL2
		}
		if err := w.WritePacket(&p, "seed"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// swap turns a little-endian pcap file into a big-endian one.
func swap(b []byte) []byte {
	b = bytes.Clone(b)
	turn := func(at int) {
		binary.BigEndian.PutUint32(b[at:], binary.LittleEndian.Uint32(b[at:]))
	}
	for _, at := range []int{0, 8, 12, 16, 20} {
		turn(at)
	}
	for _, at := range []int{4, 6} {
		binary.BigEndian.PutUint16(b[at:], binary.LittleEndian.Uint16(b[at:]))
	}
	for at := 24; at+16 <= len(b); {
		n := int(binary.LittleEndian.Uint32(b[at+8:]))
		for i := range 4 {
			turn(at + 4*i)
		}
		at += 16 + n
	}
	return b
}

func FuzzPcap(f *testing.F) {
	b := written(f, WriterOptions{Format: "pcap"})
	f.Add(b)
	f.Add(swap(b))
	old := bytes.Clone(b)
	old[6] = 2 // version 2.2
	f.Add(old)
	modified := bytes.Clone(b)
	binary.LittleEndian.PutUint32(modified, magicModified)
	f.Add(modified)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 && binary.BigEndian.Uint32(b) != magicSection {
			holds(t, b)
		}
	})
}

func FuzzPcapng(f *testing.F) {
	b := written(f, WriterOptions{Comment: "seed"})
	f.Add(b)
	f.Add(append(bytes.Clone(b), b...)) // two sections
	f.Add(b[:len(b)-7])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 && binary.BigEndian.Uint32(b) == magicSection {
			holds(t, b)
		}
	})
}

func FuzzCompressed(f *testing.F) {
	for _, c := range []string{"gzip", "zstd", "lz4"} {
		f.Add(written(f, WriterOptions{Compression: c}))
		f.Add(written(f, WriterOptions{Compression: c, Format: "pcap"}))
	}
	f.Fuzz(func(t *testing.T, b []byte) { holds(t, b) })
}

// TestBigEndianPcap: the same packets whichever way round the file is.
func TestBigEndianPcap(t *testing.T) {
	little := written(t, WriterOptions{Format: "pcap"})
	want, _, err := drain(t, bytes.NewReader(little))
	if err != nil || len(want) != 3 {
		t.Fatal(len(want), err)
	}
	got, stats, err := drain(t, bytes.NewReader(swap(little)))
	if err != nil || stats.Damage != nil || len(got) != len(want) {
		t.Fatal(len(got), stats.Damage, err)
	}
	for i := range got {
		if got[i].Time != want[i].Time || got[i].OrigLen != want[i].OrigLen || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Errorf("packet %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// TestSimplePackets: a block without a time takes that of the packet before,
// so that it is no jump of the clock.
func TestSimplePackets(t *testing.T) {
	b := written(t, WriterOptions{})
	simple := le32(le32(le32(nil, blockSimple), 20), 9)
	simple = le32(append(simple, 1, 2, 3, 4), 20)
	packets, stats, err := drain(t, bytes.NewReader(append(b, simple...)))
	if err != nil || len(packets) != 4 || stats.Damage != nil {
		t.Fatalf("%d packets, damage %v, %v", len(packets), stats.Damage, err)
	}
	p := packets[3]
	if p.Time != packets[2].Time || len(p.Data) != 4 || p.OrigLen != 9 || p.Link != LinkEthernet {
		t.Errorf("%+v", p)
	}
	if stats.ClockSteps != 0 || stats.OutOfOrder != 0 || stats.Truncated != 2 {
		t.Errorf("%+v", stats)
	}
}
