package capture_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"squall/capture"
)

// rotate writes packets into files of each, named by name.
func rotate(t *testing.T, packets []capture.Packet, each int, name func(i int, first int64) string) (paths []string) {
	t.Helper()
	for i := 0; i*each < len(packets); i++ {
		part := packets[i*each : min((i+1)*each, len(packets))]
		path := name(i, part[0].Time)
		write(t, path, part)
		paths = append(paths, path)
	}
	return paths
}

// steady makes packets of a size at every step ns.
func steady(n, size int, step int64) (list []capture.Packet) {
	for i := range n {
		data := make([]byte, size)
		data[0], data[12], data[13] = byte(i), 8, 0
		list = append(list, capture.Packet{Time: 1293033600e9 + int64(i)*step, Data: data, OrigLen: size, Link: capture.LinkEthernet})
	}
	return list
}

func readWindow(t *testing.T, inputs []string, w capture.Window) (times []int64, files []capture.FileStats) {
	t.Helper()
	src, err := capture.Open(inputs, capture.Options{Window: w})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for {
		b, err := src.Next()
		if err == io.EOF {
			return times, src.Files()
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Packets {
			if p := &b.Packets[i]; w.After == 0 || !w.Outside(p.Time) {
				times = append(times, p.Time)
			}
		}
		b.Release()
	}
}

// TestWindow: files outside are not read, whatever their format, their names and
// the order in which they are given; what lies inside comes whole.
func TestWindow(t *testing.T) {
	const files, each, size = 60, 400, 500
	packets := steady(files*each, size, 50e6) // 20 s a file
	w := capture.Window{After: packets[31*each].Time + 3e9, Before: packets[33*each].Time}
	var want []int64
	for i := range packets {
		if !w.Outside(packets[i].Time) {
			want = append(want, packets[i].Time)
		}
	}
	for _, c := range []struct {
		name, pattern string
		known         bool // that it ends before the window can be told
	}{
		{"ng", "a%[1]c.pcapng", true},
		{"pcap", "a%[1]c.pcap", true},
		{"ring zstd", "a_%05[2]d_20101222160000.pcapng.zst", true},
		{"size gzip", "a.pcap%[2]d.gz", true},
		{"unrelated gzip", "%[1]c.pcap.gz", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			paths := rotate(t, packets, each, func(i int, _ int64) string {
				return filepath.Join(dir, fmt.Sprintf(c.pattern, 'a'+rune(i*7%files), i))
			})
			slices.Reverse(paths)
			got, stats := readWindow(t, paths, w)
			if !slices.Equal(got, want) {
				t.Fatalf("%d packets inside, want %d", len(got), len(want))
			}
			whole, disk, read := 0, int64(0), int64(0)
			for _, f := range stats {
				disk, read = disk+f.SizeOnDisk, read+f.ReadOnDisk
				if f.Unread == "" {
					whole++
				}
			}
			if c.known && (whole > 3 || c.name != "ring zstd" && c.name != "size gzip" && read > disk/6) {
				t.Errorf("%d files read, %d of %d bytes", whole, read, disk)
			}
			if !c.known && whole < 30 {
				t.Errorf("%d files read: nothing tells when they end", whole)
			}
			for _, f := range stats {
				if f.Unread == "" && f.Packets == 0 {
					t.Errorf("%s: no packets and no word why", f.Path)
				}
			}
			// Counted from the first packet it is the same.
			rel := capture.Window{AfterFirst: w.After - packets[0].Time, BeforeFirst: w.Before - packets[0].Time}
			_, again := readWindow(t, paths, rel)
			for i := range again {
				if again[i].Unread != stats[i].Unread {
					t.Errorf("%s: %q, from the first packet %q", again[i].Path, stats[i].Unread, again[i].Unread)
				}
			}
		})
	}
}

// TestHoles: what is missing is named, for every way in which files are rotated,
// and nothing where nothing is.
func TestHoles(t *testing.T) {
	stamp := func(i int) string { return fmt.Sprintf("20101222%02d%02d00", 10+i/60, i%60) }
	for _, c := range []struct {
		name   string
		at     func(i int) string // name of the i-th file of a minute
		gone   []int
		want   []string
		silent bool
	}{
		{"ring", func(i int) string { return fmt.Sprintf("tap_%05d_%s.pcapng", i+98, stamp(i)) }, []int{3, 4, 9}, []string{"tap_00101_*.pcapng", "tap_00102_*.pcapng", "tap_00107_*.pcapng"}, false},
		{"size", func(i int) string {
			if i == 0 {
				return "tap.pcap"
			}
			return fmt.Sprintf("tap.pcap%d", i)
		}, []int{2, 11}, []string{"tap.pcap2", "tap.pcap11"}, false},
		{"size, first gone", func(i int) string { return fmt.Sprintf("tap.pcap%02d", i) }, []int{0, 7}, []string{"tap.pcap07"}, false},
		{"round", func(i int) string { return fmt.Sprintf("tap.pcap%02d", (i+6)%20) }, []int{2, 12, 15}, []string{"tap.pcap08", "tap.pcap18", "tap.pcap01"}, false},
		{"time", func(i int) string { return "tap-" + stamp(i) + ".pcap.gz" }, []int{5, 6}, []string{"tap-20101222100500.pcap.gz", "tap-20101222100600.pcap.gz"}, false},
		{"time in parts", func(i int) string { return fmt.Sprintf("tap_2010-12-22_10:%02d:00.pcap", i) }, []int{5}, []string{"tap_2010-12-22_10:05:00.pcap"}, false},
		{"epoch", func(i int) string { return fmt.Sprintf("tap.%d.pcap", 1293012000+60*i) }, []int{4}, []string{"tap.1293012240.pcap"}, false},
		{"numbers", func(i int) string { return fmt.Sprintf("part-%04d.pcap", i) }, []int{4}, []string{"part-0004.pcap"}, false},
		{"hosts", func(i int) string { return fmt.Sprintf("host-%04d.pcap", i*7%20) }, []int{4}, nil, true},
		{"words", func(i int) string { return "tap" + string(rune('a'+i)) + ".pcap" }, []int{4}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stats []capture.FileStats
			for turn, gone := range [][]int{nil, c.gone, nil} {
				stats = stats[:0]
				for i := range 20 {
					first := (1293012000 + 60*int64(i)) * 1e9
					switch {
					case turn == 2 && slices.Contains(c.gone, i): // a file without a packet is there
						stats = append(stats, capture.FileStats{Path: filepath.Join("cap", c.at(i))})
					case !slices.Contains(gone, i):
						stats = append(stats, capture.FileStats{Path: filepath.Join("cap", c.at(i)), Packets: 9, First: first, Last: first + 59.9e9})
					}
				}
				slices.Reverse(stats)
				capture.MarkHoles(len(stats), func(i int) *capture.FileStats { return &stats[i] })
				var got []string
				for i := len(stats) - 1; i >= 0; i-- {
					s := &stats[i]
					for _, m := range s.Missing {
						got = append(got, filepath.Base(m))
					}
					if int(s.MissingCount) != len(s.Missing) || s.MissingCount > 0 && s.Hole < 60e9 {
						t.Errorf("%s: %d missing, hole %d", s.Path, s.MissingCount, s.Hole)
					}
					if gone == nil && s.Hole > 0 {
						t.Errorf("%s: a hole where nothing is missing", s.Path)
					}
				}
				if gone == nil && got != nil || gone != nil && !slices.Equal(got, c.want) {
					t.Errorf("without %v: %q missing, want %q", gone, got, c.want)
				}
			}
		})
	}
	// A silence between files that else touch.
	var stats []capture.FileStats
	for i := range 20 {
		first := (1293012000 + 60*int64(i)) * 1e9
		if i > 9 {
			first += 40e9
		}
		stats = append(stats, capture.FileStats{Path: fmt.Sprintf("tap_%05d_20101222100000.pcap", i), Packets: 9, First: first, Last: first + 59.9e9})
	}
	capture.MarkHoles(len(stats), func(i int) *capture.FileStats { return &stats[i] })
	for i := range stats {
		if got := stats[i].Hole > 0; got != (i == 10) || stats[i].MissingCount > 0 {
			t.Errorf("file %d: hole %d", i, stats[i].Hole)
		}
	}
}

// TestTailCut: a file whose writer was killed tells when it ends, too.
func TestTailCut(t *testing.T) {
	dir := t.TempDir()
	packets := steady(300, 200, 1e9)
	path, later := filepath.Join(dir, "a.pcap"), filepath.Join(dir, "b.pcap")
	write(t, path, packets[:200])
	write(t, later, packets[200:])
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := int64(1); cut < 300; cut += 23 {
		if err := os.Truncate(path, info.Size()-cut); err != nil {
			t.Fatal(err)
		}
		got, stats := readWindow(t, []string{dir}, capture.Window{After: packets[250].Time})
		if len(got) != 50 || stats[0].Unread == "" || stats[0].Last < packets[196].Time {
			t.Fatalf("cut by %d: %d packets, %+v", cut, len(got), stats[0])
		}
	}
}
