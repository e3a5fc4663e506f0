package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"squall/capture"
)

const day = int64(24 * 3600e9)

// numbered are packets a tenth of a second apart that bear their numbers.
func numbered(n int) (list []capture.Packet) {
	for i := range n {
		b := binary.BigEndian.AppendUint32(make([]byte, 60, 64), uint32(i))
		list = append(list, capture.Packet{Time: 1293033600e9 + int64(i)*1e8, Data: b, OrigLen: len(b), Link: capture.LinkEthernet})
	}
	return list
}

// read gives the times of what comes, by number, in its order.
func times(t *testing.T, opt capture.Options, inputs ...string) (list [][2]int64, files []capture.FileStats) {
	t.Helper()
	src, err := capture.Open(inputs, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for {
		b, err := src.Next()
		if errors.Is(err, io.EOF) {
			return list, src.Files()
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range b.Packets {
			list = append(list, [2]int64{int64(binary.BigEndian.Uint32(p.Data[60:])), p.Time})
		}
		b.Release()
	}
}

// TestStrayTimes: a lone packet whose time is decades ahead, or a day back, gets that of
// the next, wherever it stands in however many files; jumps that last are left alone.
func TestStrayTimes(t *testing.T) {
	const n = 40_000 // several chunks
	r := rand.New(rand.NewPCG(7, 7))
	packets, want := numbered(n), [][2]int64{}
	count := int64(0)
	for i := range packets {
		if i%1009 == 500 || i == 0 || i == n/2 || i == n/2-2 {
			packets[i].Time += day + 1e9 + r.Int64N(40*365*day)
			count++
		}
	}
	for i := range packets {
		want = append(want, [2]int64{int64(i), 1293033600e9 + int64(i)*1e8})
		if packets[i].Time > 1293033600e9+n*1e8 {
			want[i][1] += 1e8 // the next one's
		}
	}
	for _, ending := range []string{"pcap", "pcapng", "pcapng.gz"} {
		dir := t.TempDir()
		whole := filepath.Join(dir, "whole."+ending)
		write(t, whole, packets)
		got, files := times(t, capture.Options{Index: true}, whole)
		if !slices.Equal(got, want) || files[0].StrayTimes != count || files[0].OutOfOrder != 0 || files[0].Gaps != 0 {
			t.Errorf("%s: %d of %d strays, %d out of order, %d gaps", ending, files[0].StrayTimes, count, files[0].OutOfOrder, files[0].Gaps)
		}
		// In pieces, of which one begins with a stray and one ends with it.
		var pieces []string
		for i := 0; i < n; {
			end := min(i+n/10+r.IntN(100), n)
			for _, at := range []int{n/2 - 1, n / 2, 501} {
				if i < at && at < end {
					end = at
				}
			}
			pieces = append(pieces, filepath.Join(dir, fmt.Sprintf("%05d.%s", i, ending)))
			write(t, pieces[len(pieces)-1], packets[i:end])
			i = end
		}
		r.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		if got, _ := times(t, capture.Options{}, pieces...); !slices.Equal(got, want) {
			t.Errorf("%s: %d pieces give other times than the whole", ending, len(pieces))
		}
		// A part of it, by its index.
		for _, block := range []int{0, 1, len(files[0].Index.Blocks) / 2, len(files[0].Index.Blocks) - 1} {
			b := files[0].Index.Blocks[block]
			part := capture.Part{Index: files[0].Index, Want: func(x *capture.Block) bool { return x.Offset == b.Offset }}
			got, parts := times(t, capture.Options{Parts: map[string]capture.Part{whole: part}}, whole)
			if parts[0].Damage != nil || len(got) == 0 || !slices.Equal(got, want[b.Frame-1:][:len(got)]) {
				t.Errorf("%s: block %d: %d packets, %+v", ending, block, len(got), parts[0].Damage)
			}
		}
	}
	// Where it is the last whole packet, the damage is the next.
	list := numbered(100)
	list[99].Time += 2 * day
	cut := filepath.Join(t.TempDir(), "a.pcap")
	write(t, cut, list)
	b, err := os.ReadFile(cut)
	if err != nil {
		t.Fatal(err)
	}
	if got, files := times(t, capture.Options{Stdin: bytes.NewReader(append(b, 1, 2, 3))}, "-"); len(got) != 100 || files[0].Damage == nil || files[0].Damage.Frame != 101 {
		t.Errorf("%d packets, %+v", len(got), files[0].Damage)
	}
	for _, c := range []struct {
		name string
		set  func([]capture.Packet)
		n    int64
	}{
		{"two days back, once", func(p []capture.Packet) { p[50].Time -= 2 * day }, 1},
		{"nothing for two days", func(p []capture.Packet) {
			for i := range p[50:] {
				p[50+i].Time += 2 * day
			}
		}, 0},
		{"set back by two days", func(p []capture.Packet) {
			for i := range p[50:] {
				p[50+i].Time -= 2 * day
			}
		}, 0},
		{"two of them ahead", func(p []capture.Packet) { p[50].Time += 2 * day; p[51].Time += 2 * day }, 0},
		{"the last two days later", func(p []capture.Packet) { p[99].Time += 2 * day }, 0},
		{"the first two days before", func(p []capture.Packet) { p[0].Time -= 2 * day }, 0},
	} {
		list := numbered(100)
		c.set(list)
		var b bytes.Buffer
		w, err := capture.NewWriter(&b, capture.WriterOptions{Format: "pcap"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			if err := w.WritePacket(&list[i], ""); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		got, files := times(t, capture.Options{Stdin: &b}, "-")
		if len(got) != len(list) || files[0].StrayTimes != c.n {
			t.Errorf("%s: %d packets, %d strays, want %d", c.name, len(got), files[0].StrayTimes, c.n)
		}
		for i := range got {
			if is := got[i][1]; is != list[i].Time && (c.n == 0 || is != list[i+1].Time) {
				t.Errorf("%s: packet %d has another time", c.name, i)
			}
		}
	}
}
