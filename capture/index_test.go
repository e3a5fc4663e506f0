package capture_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squall/capture"
)

// TestParts: with an index, packets of a time are read without the rest, with the
// frames and offsets that they have in the whole, in every format.
func TestParts(t *testing.T) {
	packets := random(20000, 11)
	for i := range packets {
		packets[i].Time = 1293033600e9 + int64(i)*25e6
		packets[i].Link = []capture.LinkType{capture.LinkEthernet, capture.LinkRaw}[i/5000%2]
	}
	for _, ending := range []string{"pcap", "pcapng", "pcapng.gz", "pcapng.zst", "pcapng.lz4"} {
		t.Run(ending, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a."+ending)
			if ending == "pcap" {
				for i := range packets {
					packets[i].Link = capture.LinkEthernet
				}
				defer func() {
					for i := range packets {
						packets[i].Link = []capture.LinkType{capture.LinkEthernet, capture.LinkRaw}[i/5000%2]
					}
				}()
			}
			write(t, path, packets)
			type key struct {
				time, frame, offset int64
				link                capture.LinkType
				size                int
			}
			read := func(opt capture.Options, after, before int64) (list []key, f capture.FileStats) {
				src, err := capture.Open([]string{path}, opt)
				if err != nil {
					t.Fatal(err)
				}
				defer src.Close()
				for {
					b, err := src.Next()
					if errors.Is(err, io.EOF) {
						return list, src.Files()[0]
					}
					for i := range b.Packets {
						if p := &b.Packets[i]; p.Time >= after && p.Time < before {
							list = append(list, key{p.Time, p.Frame, p.Offset, p.Link, len(p.Data)})
						}
					}
					b.Release()
				}
			}
			after, before := packets[12500].Time, packets[12600].Time
			want, whole := read(capture.Options{Index: true}, after, before)
			if ending == "pcapng.lz4" {
				if whole.Index != nil {
					t.Error("an index of lz4, in which nothing can be sought")
				}
				return
			}
			text, err := json.Marshal(whole.Index)
			if err != nil {
				t.Fatal(err)
			}
			var index capture.Index
			if err := json.Unmarshal(text, &index); err != nil {
				t.Fatal(err)
			}
			part := capture.Options{Parts: map[string]capture.Part{path: {Index: &index, Want: func(b *capture.Block) bool { return b.Min < before && b.Max >= after }}}}
			got, stats := read(part, after, before)
			if len(want) != 100 || !slices.Equal(got, want) || stats.Damage != nil {
				t.Fatalf("%d packets, want %d; %+v", len(got), len(want), stats.Damage)
			}
			if limit := whole.SizeOnDisk / 20; stats.ReadOnDisk > limit && ending != "pcapng.gz" && ending != "pcapng.zst" || stats.ReadOnDisk > whole.SizeOnDisk/3 {
				t.Errorf("%d of %d bytes read", stats.ReadOnDisk, whole.SizeOnDisk)
			}
			// Another file in its place is told.
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(b[1000:], b[:1000]...), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, stats = read(part, 0, 1<<62); stats.Damage == nil || stats.Damage.Tail {
				t.Error("another file was read as if it were the same")
			}
			os.WriteFile(path, b[:len(b)-1], 0o600)
			if _, err := capture.Open([]string{path}, part); err == nil || !strings.Contains(err.Error(), "squall verify") {
				t.Errorf("a shorter file: %v", err)
			}
		})
	}
}

// TestPartsOfOneMember: a member of gzip is entered in its midst. What is read before
// the part that is wanted is a MiB of packets at most, and a block.
func TestPartsOfOneMember(t *testing.T) {
	packets := random(20000, 12)
	for i := range packets {
		packets[i].Time = 1293033600e9 + int64(i)*25e6
		packets[i].Link = capture.LinkEthernet
		packets[i].Data = append([]byte(fmt.Sprintf("%040d", i)), bytes.Repeat(packets[i].Data, 900/max(len(packets[i].Data), 1))...)
		packets[i].OrigLen = len(packets[i].Data)
	}
	dir := t.TempDir()
	plain := filepath.Join(dir, "a.pcap")
	write(t, plain, packets)
	text, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(text)
	z.Close()
	one := b.Len()
	z.Reset(&b) // a second member, and in it packets from the first one's record on
	z.Write(text[24:])
	z.Close()
	path := filepath.Join(dir, "b.pcap.gz")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(opt capture.Options, wanted func(*capture.Packet) bool) (list []string, f capture.FileStats) {
		src, err := capture.Open([]string{path}, opt)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if err := capture.Each(t.Context(), src, func(b *capture.Batch) error {
			for i := range b.Packets {
				if p := &b.Packets[i]; wanted(p) {
					list = append(list, fmt.Sprint(p.Time, p.Frame, p.Offset, string(p.Data)))
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return list, src.Files()[0]
	}
	_, whole := read(capture.Options{Index: true}, func(*capture.Packet) bool { return false })
	keep := func(name string, x *capture.Index) *capture.Index {
		var b bytes.Buffer
		if err := capture.WriteIndices(&b, []capture.NamedIndex{{File: path, Index: x}}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := capture.ReadIndices(name)
		if err != nil {
			t.Fatal(err)
		}
		return list[path]
	}
	once, twice := filepath.Join(dir, "once"), filepath.Join(dir, "twice")
	index := keep(twice, keep(once, whole.Index))
	kept, err := os.ReadFile(once)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(twice); err != nil || !bytes.Equal(again, kept) {
		t.Errorf("an index that is written again has %d bytes, had %d", len(again), len(kept))
	}
	if len(index.Joints) < 2*len(text)>>20-2 {
		t.Errorf("%d joints in %d bytes", len(index.Joints), 2*len(text))
	}
	if len(kept) > b.Len()/5 {
		t.Errorf("the index takes %d bytes, its file %d", len(kept), b.Len())
	}
	mib := int64(one) << 20 / int64(len(text))
	for _, c := range []struct {
		frames [][2]int64 // that are wanted
		most   int64      // bytes to read
	}{
		{[][2]int64{{19900, 19950}}, 2*mib + 100<<10},
		{[][2]int64{{100, 120}}, mib + 100<<10},
		{[][2]int64{{30000, 30001}}, 2*mib + 100<<10},
		{[][2]int64{{9000, 9010}, {9200, 9210}, {9400, 9410}}, 2*mib + 100<<10}, // read once
		{[][2]int64{{5000, 5010}, {39990, 40000}}, 4*mib + 200<<10},
		{[][2]int64{{19990, 20010}}, 3*mib + 100<<10}, // over the joint
	} {
		want := func(p *capture.Packet) bool {
			for _, f := range c.frames {
				if p.Frame >= f[0] && p.Frame <= f[1] {
					return true
				}
			}
			return false
		}
		all, _ := read(capture.Options{}, want)
		part := capture.Part{Index: index, Want: func(b *capture.Block) bool {
			next := int64(1 << 62)
			if i := slices.IndexFunc(index.Blocks, func(o capture.Block) bool { return o.Frame > b.Frame }); i >= 0 {
				next = index.Blocks[i].Frame
			}
			for _, f := range c.frames {
				if b.Frame <= f[1] && next > f[0] {
					return true
				}
			}
			return false
		}}
		got, stats := read(capture.Options{Parts: map[string]capture.Part{path: part}}, want)
		if len(all) == 0 || !slices.Equal(got, all) || stats.Damage != nil {
			t.Errorf("%v: %d packets, want %d; %+v", c.frames, len(got), len(all), stats.Damage)
		}
		if stats.ReadOnDisk > c.most {
			t.Errorf("%v: %d of %d bytes read, want %d at most", c.frames, stats.ReadOnDisk, stats.SizeOnDisk, c.most)
		}
	}
	// An index that was tampered with does no worse than an error.
	tail := capture.Options{Parts: map[string]capture.Part{path: {Index: index, Want: func(b *capture.Block) bool { return b.Frame > 10000 }}}}
	if err := os.WriteFile(twice, append(append(bytes.Clone(kept[:100]), make([]byte, len(kept)/2)...), kept[100+len(kept)/2:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stats := read(tail, func(*capture.Packet) bool { return true }); stats.Damage == nil {
		t.Error("a damaged window goes unseen")
	}
	if err := os.WriteFile(twice, kept[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stats := read(tail, func(*capture.Packet) bool { return true }); stats.Damage == nil || !strings.Contains(stats.Damage.Reason, "twice: it is damaged") {
		t.Errorf("a cut index: %+v", stats.Damage)
	}
}
