package attempt_test

import (
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/headers"
	"squall/samples"
)

// BenchmarkDense is the storm of the budgets (design.md section 7) without
// reading and decoding; ns/op is per packet.
func BenchmarkDense(b *testing.B) {
	var ds []dissect.Datagram
	var dec headers.Decoder
	samples.Dense(1<<20, 1, func(p *capture.Packet) {
		var d dissect.Datagram
		dec.Decode(p, &d)
		d.Payload = append([]byte(nil), d.Payload...)
		ds = append(ds, d)
	})
	rows := 0
	e := attempt.NewEngine(attempt.Config{}, attempt.NewNames(0), func(*attempt.Record) { rows++ })
	b.ReportAllocs()
	b.ResetTimer()
	span := ds[len(ds)-1].Time - ds[0].Time + 1e9
	for i := range b.N {
		d := &ds[i%len(ds)]
		e.Datagram(d)
		d.Time += span // of the next round
	}
	e.Finish(ds[0].Time)
	b.ReportMetric(float64(rows), "rows")
}
