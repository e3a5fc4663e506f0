package capture_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/pcapgo"

	"squall/capture"
)

// TestTimesAgainstCapinfos compares the first and last packet time, to the
// digits that capinfos printed. It takes them in file order, FileStats by time,
// so files out of order are left out.
func TestTimesAgainstCapinfos(t *testing.T) {
	dir := shared(t)
	checked := 0
	for name, row := range truth(t, "truth-capinfos.tsv") {
		if strings.HasPrefix(name, "hostile/") || row["capinfos_note"] != "" {
			continue
		}
		first, ok1 := seconds(row["start_time"])
		last, ok2 := seconds(row["end_time"])
		if !ok1 || !ok2 {
			continue
		}
		_, stats, err := readAll(t, []string{filepath.Join(dir, name)}, nil)
		if err != nil || stats[0].OutOfOrder > 0 || stats[0].Packets == 0 || stats[0].Damage != nil {
			continue
		}
		checked++
		s := stats[0]
		if !within(s.First, first) || !within(s.Last, last) {
			t.Errorf("%s: %d to %d, capinfos has %s to %s", name, s.First, s.Last, row["start_time"], row["end_time"])
		}
	}
	if checked < 300 {
		t.Errorf("only %d captures could be compared", checked)
	}
	t.Logf("%d captures compared", checked)
}

// printed is a time as capinfos prints it and the weight of its last digit.
type printed struct{ ns, digit int64 }

func seconds(s string) (printed, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" || len(whole) > 10 || len(frac) > 9 || // ten digits end in 2286, near the end of int64
		strings.Trim(whole+frac, "0123456789") != "" {
		return printed{}, false
	}
	p := printed{digit: 1e9}
	for _, c := range whole {
		p.ns = p.ns*10 + int64(c-'0')
	}
	for _, c := range frac {
		p.ns = p.ns*10 + int64(c-'0')
		p.digit /= 10
	}
	p.ns *= p.digit
	return p, true
}

// within allows one unit of the last digit printed, for rounding.
func within(ns int64, p printed) bool { return ns > p.ns-p.digit && ns < p.ns+p.digit }

// TestAgainstPcapgo reads real captures with gopacket's readers too. Where
// they stop early they are no oracle: a packet both have must be the same.
func TestAgainstPcapgo(t *testing.T) {
	dir := shared(t)
	files, packets := 0, 0
	for _, folder := range []string{"overlay", "attempts", "formats"} {
		names, _ := filepath.Glob(filepath.Join(dir, folder, "*"))
		for _, name := range names {
			raw, err := os.ReadFile(name)
			if err != nil || len(raw) < 24 {
				continue
			}
			var read func() ([]byte, gopacket.CaptureInfo, error)
			switch {
			case binary.BigEndian.Uint32(raw) == 0x0a0d0d0a:
				r, err := pcapgo.NewNgReader(bytes.NewReader(raw), pcapgo.NgReaderOptions{WantMixedLinkType: true})
				if err != nil {
					continue
				}
				read = r.ReadPacketData
			default:
				r, err := pcapgo.NewReader(bytes.NewReader(raw))
				if err != nil {
					continue
				}
				read = r.ReadPacketData
			}
			got, stats, err := readAll(t, []string{name}, nil)
			if err != nil {
				t.Errorf("%v, but gopacket opens it", err)
				continue
			}
			files++
			strays := int64(0)
			for i := 0; ; i++ {
				data, info, err := read()
				if err != nil {
					break
				}
				if i == len(got) {
					t.Errorf("%s: %d packets, gopacket has more", name, i)
					break
				}
				p := &got[i]
				// gopacket has no time for simple packets (the zero time) and wraps beyond
				// 2262; in bug8 it multiplies more than a second of microseconds in 32 bits.
				timed := info.Timestamp.UnixNano() >= 0 && filepath.Base(name) != "bug8.pcap"
				if timed && p.Time != info.Timestamp.UnixNano() && i+1 < len(got) && p.Time == got[i+1].Time && strays < stats[0].StrayTimes {
					strays++
					timed = false
				}
				if !bytes.Equal(p.Data, data) || timed && p.Time != info.Timestamp.UnixNano() || p.OrigLen < info.Length {
					t.Errorf("%s: frame %d: %d bytes of %d at %d, gopacket %d of %d at %d", name, i+1,
						len(p.Data), p.OrigLen, p.Time, len(data), info.Length, info.Timestamp.UnixNano())
					break
				}
				packets++
			}
		}
	}
	if files < 300 {
		t.Errorf("only %d files could be compared", files)
	}
	t.Logf("%d packets of %d files compared", packets, files)
}

// TestHostileMemory: what a broken file claims about itself does not decide
// how much memory reading it takes.
func TestHostileMemory(t *testing.T) {
	const most = 16 << 20 // a few chunks, and the window of a decompressor
	names, _ := filepath.Glob(filepath.Join(shared(t), "hostile", "*"))
	var worst uint64
	for _, name := range names {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		src, err := capture.Open([]string{name}, capture.Options{})
		if err == nil {
			for {
				b, err := src.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
					break
				}
				b.Release()
			}
			src.Close()
		}
		runtime.ReadMemStats(&after)
		n := after.TotalAlloc - before.TotalAlloc
		worst = max(worst, n)
		if n > most {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
	t.Logf("%d files, at most %d bytes allocated for one", len(names), worst)
}
