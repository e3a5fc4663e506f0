package attempt_test

import (
	"testing"

	"squall/dissect"
	"squall/dissect/attempt"
)

// TestHorizonBounded: half an hour of attempts by clients that are never the
// same leaves no more than the horizon holds.
func TestHorizonBounded(t *testing.T) {
	const most = 20_000
	h := attempt.NewHorizon(attempt.HorizonConfig{Length: 300e9, Records: most})
	var d dissect.Datagram
	n, peak := 0, 0
	for at := int64(0); at < 1800e9; at += 10e6 { // 100 attempts a second, refused
		n++
		client := dissect.Addr4([]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		node := dissect.Addr4([]byte{192, 0, 2, 1})
		d = dissect.Datagram{Time: 1e18 + at, Class: dissect.ClassTCP, Proto: dissect.ProtoTCP, Flags: dissect.SYN, Src: client, Dst: node,
			SrcPort: uint16(1024 + n%60000), DstPort: 443, Seq: uint32(n), IPLen: 40}
		h.Datagram(&d)
		d = dissect.Datagram{Time: 1e18 + at + 1e6, Class: dissect.ClassTCP, Proto: dissect.ProtoTCP, Flags: dissect.RST | dissect.ACK, Src: node, Dst: client,
			SrcPort: 443, DstPort: uint16(1024 + n%60000), Ack: uint32(n) + 1, IPLen: 40}
		h.Datagram(&d)
		if n%5000 == 0 {
			s := h.Snapshot(d.Time, 3e9, []attempt.Interval{{Start: 1e18, End: 1e18 + 30e9}})
			r, err := s.Finalise(dissect.Hints{})
			if err != nil {
				t.Fatal(err)
			}
			if got := int(r.Len()); got > peak {
				peak = got
			}
			if first := s.Begin(); n > 50_000 && (first != 1e18 || len(s.Gaps()) != 1) {
				t.Fatalf("after %d: begins at %d with gaps %v: what is to be kept is not", n, first-1e18, s.Gaps())
			}
			r.Close()
		}
	}
	if peak < most*9/10 || peak > most+5000 || !h.Shrunk() {
		t.Errorf("up to %d attempts of %d, shrunk %v", peak, most, h.Shrunk())
	}
}
