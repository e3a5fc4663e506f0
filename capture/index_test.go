package capture_test

import (
	"encoding/json"
	"errors"
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
