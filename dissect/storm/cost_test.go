//go:build unix

package storm_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/storm"
	"squall/samples"
)

// nothing is a visitor that keeps nothing.
type nothing struct{}

func (nothing) Client(*dissect.Client)   {}
func (nothing) Attempt(*dissect.Attempt) {}
func (nothing) Intent(*dissect.Intent)   {}

// BenchmarkState measures what the judgement adds to the analysis of the dense
// capture: "share" is its processor time over that of reading, relating and visiting
// the same file without it. The budget is 0.25. Both are taken in turns, of the
// whole process: the collector's work counts.
func BenchmarkState(b *testing.B) {
	name := filepath.Join(b.TempDir(), "dense.pcap")
	w, err := capture.Create(name, capture.WriterOptions{})
	if err != nil {
		b.Fatal(err)
	}
	samples.Dense(2_000_000, 1, func(p *capture.Packet) {
		if err := w.WritePacket(p, ""); err != nil {
			b.Fatal(err)
		}
	})
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	var without, with float64
	for b.Loop() {
		start := processor(b)
		src, err := capture.Open([]string{name}, capture.Options{})
		if err != nil {
			b.Fatal(err)
		}
		a := read(b, src)
		visit := processor(b)
		if err := a.Visit(func(int) dissect.Visitor { return nothing{} }); err != nil {
			b.Fatal(err)
		}
		judge := processor(b)
		if _, err := a.Judge(storm.Config{}); err != nil {
			b.Fatal(err)
		}
		end := processor(b)
		without += judge - start
		with += end - judge - (judge - visit)
		a.Close()
		src.Close()
	}
	b.ReportMetric(with/without, "share")
	b.ReportMetric(with/float64(b.N), "s-judged/op")
	b.ReportMetric(without/float64(b.N), "s-other/op")
}

// processor is the time that the process has used so far, seconds.
func processor(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
