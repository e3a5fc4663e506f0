package storm_test

import (
	"testing"
	"time"

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
// capture: "share" is its time over that of reading, relating and visiting the
// same packets without it. The budget is 0.25.
func BenchmarkState(b *testing.B) {
	var packets []capture.Packet
	samples.Dense(700_000, 1, func(p *capture.Packet) {
		q := *p
		q.Data = append([]byte(nil), p.Data...)
		packets = append(packets, q)
	})
	var without, with time.Duration
	for b.Loop() {
		start := time.Now()
		a := read(b, capture.Memory(packets))
		if err := a.Visit(func(int) dissect.Visitor { return nothing{} }); err != nil {
			b.Fatal(err)
		}
		without += time.Since(start)
		a.Close()
		start = time.Now()
		a = read(b, capture.Memory(packets))
		if _, err := a.Judge(storm.Config{}); err != nil {
			b.Fatal(err)
		}
		with += time.Since(start)
		a.Close()
	}
	b.ReportMetric(float64(with-without)/float64(without), "share")
}
