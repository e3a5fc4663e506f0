package capture_test

import (
	"io"
	"testing"

	"squall/capture"
)

func BenchmarkWritePacket(b *testing.B) {
	w, err := capture.NewWriter(io.Discard, capture.WriterOptions{Interfaces: []capture.WriterInterface{{Name: "eth0", Link: capture.LinkEthernet}}})
	if err != nil {
		b.Fatal(err)
	}
	p := capture.Packet{Time: 1e18, Data: make([]byte, 240), OrigLen: 240, Link: capture.LinkEthernet, Flags: capture.FlagInbound}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.WritePacket(&p, ""); err != nil {
			b.Fatal(err)
		}
	}
}
