package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/dissect/taps"
)

// TestLossByTap: one tap sees all, the other misses 40 % from the fourth minute on.
// What the first has must not hide what the second has not.
func TestLossByTap(t *testing.T) {
	dir := t.TempDir()
	east, west, kept := filepath.Join(dir, "east.pcap"), filepath.Join(dir, "west.pcap"), filepath.Join(dir, "kept")
	for _, args := range [][]string{
		{"sample", "skype-2010", "--clients", "60", "-w", east},
		{"sample", "skype-2010", "--clients", "60", "--tap-loss", "40%", "--tap-loss-at", "3m", "--tap-loss-rise", "1m", "-w", west},
		{"analyze", "-q", "east=" + east, "west=" + west, "-o", kept},
	} {
		if code, _, errs := squall(nil, args...); code != 0 {
			t.Fatal(errs)
		}
	}
	rows := table(t, "report", "loss", kept)
	sum := map[string][2]float64{}
	heavy := 0
	for _, r := range rows {
		seen, _ := strconv.ParseFloat(r["seen_bytes"], 64)
		unseen, _ := strconv.ParseFloat(r["unseen_bytes"], 64)
		if r["time"] >= "2010-12-22T16:04" {
			s := sum[r["observer_name"]]
			sum[r["observer_name"]] = [2]float64{s[0] + seen, s[1] + unseen}
		}
		if r["heavy"] == "true" {
			if heavy++; r["observer_name"] != "west" {
				t.Errorf("nothing is missing there: %v", r)
			}
		}
	}
	if s := sum["east"]; s[0] == 0 || s[1] != 0 {
		t.Errorf("east: %v bytes seen and unseen", s)
	}
	if s := sum["west"]; s[1]/(s[0]+s[1]) < 0.35 || s[1]/(s[0]+s[1]) > 0.45 {
		t.Errorf("west misses 40 %%: %v bytes seen and unseen", s)
	}
	if len(rows) < 400 || heavy < 20 {
		t.Errorf("%d seconds, %d under heavy loss", len(rows), heavy)
	}
	code, out, errs := squall(nil, "info", "-q", "east="+east, "west="+west)
	_, of, _ := strings.Cut(out, "tap west")
	if code != 0 || !strings.Contains(out, "0.0 % of") || !strings.Contains(of, "under heavy loss; worst") || !strings.Contains(of, "2010-12-22T16:0") {
		t.Errorf("exit %d: %s%s", code, errs, out)
	}
}

// TestSurveyOfWindow: of thousands of files the clocks of two taps are compared by
// those around the window; where a clock is so far off that they lie elsewhere, by all.
func TestSurveyOfWindow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s1.pcap")
	if code, _, errs := squall(nil, "sample", "s1", "--clients", "100", "-w", file); code != 0 {
		t.Fatal(errs)
	}
	packets, _ := packetsIn(t, file)
	first := packets[0].Time
	names := rotated(t, file, 100, ".pcap")
	var size int64
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	for _, offset := range []time.Duration{0, 2 * time.Second, -time.Hour} {
		west := filepath.Join(t.TempDir(), "west")
		if err := os.Mkdir(west, 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			w, err := capture.Create(filepath.Join(west, "w"+strconv.Itoa(1000+i)+".pcap"), capture.WriterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range packets[i*len(packets)/20 : (i+1)*len(packets)/20] {
				p.Time += int64(offset)
				if err := w.WritePacket(&p, ""); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		list := []taps.Tap{{Name: "east", Inputs: names}, {Name: "west", Inputs: []string{west}}}
		for _, window := range []capture.Window{{After: first + 300e9, Before: first + 310e9}, {AfterFirst: 300e9, BeforeFirst: 310e9}} {
			found, err := taps.Survey(t.Context(), list, window)
			if err != nil {
				t.Fatal(err)
			}
			k := found.Of["west"]
			if off := k.Offset - int64(offset); k.Source != "estimated" || max(off, -off) > max(k.Bound, 0)+1 {
				t.Errorf("%v: %+v", offset, k)
			}
			if far := offset < -time.Minute; far != (found.Read >= 2*size) || !far && found.Read > size {
				t.Errorf("%v: %d bytes read of %d", offset, found.Read, 2*size)
			}
		}
	}
}

// TestWatchSetsClocks: two taps see the same; the clock of one is ahead, which is told,
// and with --clock it is as if it were not.
func TestWatchSetsClocks(t *testing.T) {
	slow(t)
	file := filepath.Join(t.TempDir(), "outage.pcap")
	if code, _, errs := squall(nil, "sample", "outage", "--protocol", "gnutella", "-w", file); code != 0 {
		t.Fatal(errs)
	}
	src, err := capture.Open([]string{file}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ahead := filepath.Join(t.TempDir(), "ahead.pcap")
	h, err := os.Create(ahead)
	if err != nil {
		t.Fatal(err)
	}
	w, err := capture.NewWriter(h, capture.WriterOptions{Format: "pcap"})
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := src.Next()
		if err != nil {
			break
		}
		for i := range b.Packets {
			p := b.Packets[i]
			p.Time += 2e9
			if err := w.WritePacket(&p, ""); err != nil {
				t.Fatal(err)
			}
		}
		b.Release()
	}
	if err := errors.Join(w.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	windows := func(out string) (list []string) {
		for line := range strings.Lines(out) {
			if strings.Contains(line, `"type":"window"`) {
				list = append(list, regexp.MustCompile(`,"packets":.*`).ReplaceAllString(line, ""))
			}
		}
		return list
	}
	_, alone, _ := runLive(t, nil, "watch", "-T", "jsonl", "a="+file)
	code, out, errs := runLive(t, nil, "watch", "-T", "jsonl", "a="+file, "b="+ahead)
	if code != 0 || !strings.Contains(out, `"type":"clock"`) || !strings.Contains(errs, "--clock b=+2.000s") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	code, out, errs = runLive(t, nil, "watch", "-T", "jsonl", "a="+file, "b="+ahead, "--clock", "b=+2s")
	if code != 0 || strings.Contains(out, `"type":"clock"`) || !slices.Equal(windows(out), windows(alone)) {
		t.Errorf("exit %d: %s%s\nalone %s", code, out, errs, alone)
	}
	for _, clock := range []string{"b=+2s,+1ppm", "c=+2s", "b=2"} {
		if code, _, errs := runLive(t, nil, "watch", "a="+file, "b="+ahead, "--clock", clock); code != exitUsage || !strings.Contains(errs, "--clock") {
			t.Errorf("%s: exit %d: %s", clock, code, errs)
		}
	}
}

// TestWatchTellsClocks: a tap whose clock disagrees is told once, and again when it
// has moved.
func TestWatchTellsClocks(t *testing.T) {
	var out, words bytes.Buffer
	v := &viewer{out: &out, words: &words, lines: json.NewEncoder(&out)}
	for _, ns := range []int64{2e9, 2e9 + 1e6, 5e9} {
		if err := v.clocks(&pipeline.Look{Time: 1293033600e9, Ahead: []taps.Ahead{{Tap: "ams", Ns: ns, Bound: 3e6}}}); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"type":"clock","time":"2010-12-22T16:00:00Z","observer_name":"ams","clock_offset_ns":2000000000,"clock_error_ns":3000000}`
	if !strings.HasPrefix(out.String(), want) || strings.Count(out.String(), "\n") != 2 || strings.Count(words.String(), "clock of tap ams is +") != 2 {
		t.Errorf("%s%s", out.String(), words.String())
	}
}
