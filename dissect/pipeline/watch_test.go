package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

// sight is a change of a finding, as Watch told it.
type sight struct {
	at    int64
	sight pipeline.Sight
	f     storm.Finding
}

func watchAll(t *testing.T, src capture.Source) (changes []sight, looks int) {
	t.Helper()
	defer src.Close()
	err := pipeline.Watch(context.Background(), pipeline.WatchConfig{Config: pipeline.Config{Protocols: overlay.All()}, Look: func(l *pipeline.Look) error {
		looks++
		for _, s := range l.Findings {
			if s.Changed {
				changes = append(changes, sight{s.At, s.Sight, s.Finding})
			}
		}
		return nil
	}}, src)
	if err != nil {
		t.Fatal(err)
	}
	return changes, looks
}

// TestWatchStorm: the storm is told as provisional within 10 s of its true
// onset, as confirmed within 30 s, and its end within 30 s; the same however
// the packets come.
func TestWatchStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("needs minutes under the race detector: run it without -short")
	}
	var b bytes.Buffer
	truth, err := samples.Write(&b, "outage", 1, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	src, err := capture.Open([]string{"-"}, capture.Options{Stdin: bytes.NewReader(b.Bytes())})
	if err != nil {
		t.Fatal(err)
	}
	changes, looks := watchAll(t, src)
	if looks < 50 {
		t.Errorf("%d looks", looks)
	}
	outage := truth.Outages(30*time.Second, 0)[0]
	onset, end := samples.Epoch+int64(outage.First), samples.Epoch+int64(outage.Last)
	first := func(s pipeline.Sight) int64 {
		for _, c := range changes {
			if c.sight == s && c.f.Class >= storm.PartialOutage {
				return c.at
			}
		}
		return 0
	}
	for _, tc := range []struct {
		s     pipeline.Sight
		after int64
		limit time.Duration
	}{{pipeline.Provisional, onset, 10 * time.Second}, {pipeline.Confirmed, onset, 30 * time.Second}, {pipeline.Ended, end, 30 * time.Second}} {
		if d := time.Duration(first(tc.s) - tc.after); d < 0 || d > tc.limit {
			t.Errorf("%v: told %v after, want within %v: %v", tc.s, d, tc.limit, changes)
		}
	}
	if last := changes[len(changes)-1]; last.sight != pipeline.Ended || last.f.Class != storm.RetryStorm {
		t.Errorf("in the end: %v %v", last.sight, last.f.Class)
	}
	again, _ := watchAll(t, capture.OpenTaps([]capture.Tap{{Name: "pipe", R: iotest.OneByteReader(bytes.NewReader(b.Bytes()))}}))
	text := func(c sight) string { return fmt.Sprint(c.at, c.sight, c.f.Class, c.f.Onset, c.f.End, c.f.Sentence) }
	if !slices.EqualFunc(changes, again, func(a, b sight) bool { return text(a) == text(b) }) {
		t.Errorf("through a pipe, byte by byte: %v, want %v", again, changes)
	}
}

// stepped sets the clock of a source by some time after a moment.
type stepped struct {
	capture.Source
	after, by int64
	done      bool
}

func (s *stepped) Next() (*capture.Batch, error) {
	b, err := s.Source.Next()
	if err == nil {
		for i := range b.Packets {
			p := &b.Packets[i]
			if s.done = s.done || p.Time >= s.after; s.done {
				p.Time += s.by
			}
		}
	}
	return b, err
}

// TestWatchClockStep: a clock that is set while it is watched, before the storm or in
// it, by much or by little, hides nothing: the storm is told by the new clock as soon
// as without, what went on by the old one ends there, and there are no others.
func TestWatchClockStep(t *testing.T) {
	sc, ok := samples.Find("outage")
	if !ok {
		t.Fatal("no outage")
	}
	sc.Clients = min(sc.Clients, 60)
	var b bytes.Buffer
	truth, err := samples.WriteScenario(&b, sc, 1, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	outage := truth.Outages(30*time.Second, 0)[0]
	onset, end := samples.Epoch+int64(outage.First), samples.Epoch+int64(outage.Last)
	steps := []stepped{{after: onset - 10e9, by: -7200e9}, {after: onset + 25e9, by: -7200e9}}
	if !testing.Short() {
		steps = append(steps, stepped{after: onset - 10e9, by: 7200e9}, stepped{after: onset + 25e9, by: -70e9}, stepped{after: onset + 25e9, by: 3600e9})
	}
	for _, step := range steps {
		src, err := capture.Open([]string{"-"}, capture.Options{Stdin: bytes.NewReader(b.Bytes())})
		if err != nil {
			t.Fatal(err)
		}
		by := step.by
		step.Source = src
		changes, _ := watchAll(t, &step)
		begin := max(onset, step.after) + by // of the storm, by the new clock
		confirmed, open, told := false, 0, map[int64]bool{}
		for _, c := range changes {
			if c.f.Attempts == 0 {
				t.Errorf("%+d s: %v of nothing: %v", by/1e9, c.sight, c.f.Sentence)
			}
			switch c.sight {
			case pipeline.Confirmed:
				if told[c.f.Onset] {
					continue // it became graver
				}
				told[c.f.Onset] = true
				open++
				if c.f.Onset >= begin-1e9 && c.at <= begin+30e9 && c.f.Class == storm.RetryStorm {
					confirmed = true
				}
			case pipeline.Ended:
				open--
			}
		}
		last := changes[len(changes)-1]
		if !confirmed || open != 0 || last.sight != pipeline.Ended || last.f.End < end+by-5e9 || last.f.End > end+by+5e9 {
			t.Errorf("%+d s at %+d s of the onset: confirmed in time %v, %d never end; %v", by/1e9, (step.after-onset)/1e9, confirmed, open, changes)
		}
	}
}

// TestWatchCalm: of a healthy hour nothing is told, and nothing ever confirmed.
func TestWatchCalm(t *testing.T) {
	sc, ok := samples.Find("n1")
	if !ok {
		t.Fatal("no n1")
	}
	sc.Clients, sc.Duration = min(sc.Clients, 200), min(sc.Duration, 4*time.Minute)
	var b bytes.Buffer
	if _, err := samples.WriteScenario(&b, sc, 1, capture.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
	src, err := capture.Open([]string{"-"}, capture.Options{Stdin: &b})
	if err != nil {
		t.Fatal(err)
	}
	if changes, looks := watchAll(t, src); len(changes) > 0 || looks < 30 {
		t.Errorf("%d looks, told %v", looks, changes)
	}
}

// TestWatchMemory: half an hour of clients that come and go, with an outage in
// it, at full speed: once the horizon is full, what is held grows no more.
func TestWatchMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the time to read half an hour of packets: run it without -short")
	}
	sc, ok := samples.Find("s3")
	if !ok {
		t.Fatal("no s3")
	}
	sc.Clients, sc.Duration = 150, 30*time.Minute
	name := filepath.Join(t.TempDir(), "long.pcap")
	h, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := samples.WriteScenario(h, sc, 1, capture.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
	h.Close()
	src, err := capture.Open([]string{name}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var live []uint64 // by minute, after a collection
	var packets int64
	next := samples.Epoch
	err = pipeline.Watch(context.Background(), pipeline.WatchConfig{Config: pipeline.Config{Protocols: overlay.All()}, Horizon: int64(5 * time.Minute), Every: int64(10 * time.Second),
		Look: func(l *pipeline.Look) error {
			packets = l.Packets
			if l.Time < next {
				return nil
			}
			next += int64(time.Minute)
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			live = append(live, m.HeapAlloc)
			return nil
		}}, src)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d packets, live heap by minute %v", packets, live)
	if len(live) < 29 || packets < 20_000 {
		t.Fatalf("%d minutes, %d packets", len(live), packets)
	}
	before, after := slices.Max(live[10:20]), slices.Max(live[20:])
	if after > before+before/8+1<<20 {
		t.Errorf("minutes 10 to 20 held %d bytes at most, the last ten %d", before, after)
	}
}

// TestWatchClocks: two pipes that see the same packets; a clock that is 2 s ahead is
// told, to its bound, and equal ones are not.
func TestWatchClocks(t *testing.T) {
	sc, _ := samples.Find("s1")
	sc.Clients = 60
	var packets []capture.Packet
	if _, err := samples.Simulate(sc, 1, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{0, 2e9} {
		var b [2]bytes.Buffer
		for i := range b {
			w, err := capture.NewWriter(&b[i], capture.WriterOptions{Format: "pcapng", Link: capture.LinkEthernet})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range packets {
				p.Time += offset * int64(i)
				if err := w.WritePacket(&p, ""); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		src := capture.OpenTaps([]capture.Tap{{Name: "fra", R: &b[0]}, {Name: "ams", R: &b[1]}})
		told := 0
		err := pipeline.Watch(t.Context(), pipeline.WatchConfig{Config: pipeline.Config{Protocols: overlay.All()}, Taps: []string{"fra", "ams"}, Look: func(l *pipeline.Look) error {
			for _, a := range l.Ahead {
				told++
				if off := a.Ns - offset; a.Tap != "ams" || offset == 0 || max(off, -off) > a.Bound || a.Bound > 5e7 {
					t.Errorf("%v: %+v", offset, a)
				}
			}
			return nil
		}}, src)
		src.Close()
		if err != nil || (told > 0) != (offset != 0) {
			t.Errorf("%d: told %d times, %v", offset, told, err)
		}
	}
}
