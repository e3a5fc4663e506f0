package pipeline_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/samples"
)

// TestWorkers: rows do not depend on -j, and the ledger holds every packet.
func TestWorkers(t *testing.T) {
	dir := "../../../shared/captures/attempts"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	rows := func(j int) (out []string) {
		src, err := capture.Open([]string{dir}, capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: j}, src)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range a.Captures() {
			if c.Ledger.Total() != c.Packets {
				t.Errorf("%s: %d of %d packets in the ledger", c.Path, c.Ledger.Total(), c.Packets)
			}
		}
		return lines(t, out, a.Attempts())
	}
	one, eight := rows(1), rows(8)
	if len(one) == 0 || len(one) != len(eight) {
		t.Fatalf("%d rows with one worker, %d with eight", len(one), len(eight))
	}
	for i := range one {
		if one[i] != eight[i] {
			t.Fatalf("row %d differs:\n%s\n%s", i, one[i], eight[i])
		}
	}
}

// TestSavedIsTheSame: what a run saves is the same bytes, however many workers
// there were, and although they come to the strings of clients in any order.
func TestSavedIsTheSame(t *testing.T) {
	sc, _ := samples.Find("outage")
	var packets []capture.Packet
	if _, err := samples.Simulate(sc, 1, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
		t.Fatal(err)
	}
	var first []byte
	for _, j := range []int{1, 8, 8, 3} {
		a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: j, Protocols: overlay.All()}, capture.Memory(packets))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := a.Save(&b); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if first == nil {
			first = b.Bytes()
		}
		if !bytes.Equal(first, b.Bytes()) {
			t.Errorf("%d workers: other bytes", j)
		}
	}
}

// TestStrayTime: one packet stamped decades ahead changes nothing, whatever is open.
func TestStrayTime(t *testing.T) {
	sc, _ := samples.Find("outage")
	var packets []capture.Packet
	if _, err := samples.Simulate(sc, 1, func(p *capture.Packet) {
		packets = append(packets, *p)
		packets[len(packets)-1].Data = bytes.Clone(p.Data)
	}); err != nil {
		t.Fatal(err)
	}
	rows := func(at int, ahead int64) (out []string) {
		list := slices.Clone(packets)
		list[at].Time = list[at+1].Time + ahead
		path := filepath.Join(t.TempDir(), "a.pcapng")
		w, err := capture.Create(path, capture.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			if err := w.WritePacket(&list[i], ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		src, err := capture.Open([]string{path}, capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		a, err := pipeline.Run(context.Background(), pipeline.Config{Protocols: overlay.All()}, src)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if n := a.Quality().StrayTimes; (n == 1) != (ahead != 0) {
			t.Errorf("%d stray times", n)
		}
		return lines(t, out, a.Attempts())
	}
	for _, at := range []int{0, len(packets) / 3, len(packets) / 2} {
		if want, got := rows(at, 0), rows(at, 40*365*24*3600e9); len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("packet %d: %d rows, want %d, or others", at, len(got), len(want))
		}
	}
}
