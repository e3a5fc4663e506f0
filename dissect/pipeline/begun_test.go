package pipeline_test

import (
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
	"squall/dissect/storm"
	"squall/samples"
)

// TestBegunOnly: filters that keep SYNs, or SYNs, FINs and RSTs, leave nothing to
// tell a connection that was served from one that was not. No calm becomes a storm by
// that, and what refusals show remains.
func TestBegunOnly(t *testing.T) {
	for _, tc := range []struct {
		name string
		want storm.Class
	}{{"n4", storm.InsufficientEvidence}, {"n1", storm.FlashCrowd}, {"skype-2010", storm.RetryStorm}} {
		if testing.Short() && tc.name != "n4" {
			continue
		}
		sc, _ := samples.Find(tc.name)
		for _, kept := range []uint8{dissect.SYN, dissect.SYN | dissect.FIN | dissect.RST} {
			var packets []capture.Packet
			var dec headers.Decoder
			if _, err := samples.Simulate(sc, 1, func(p *capture.Packet) {
				var d dissect.Datagram
				if dec.Decode(p, &d); d.Proto == dissect.ProtoTCP && d.Flags&kept == 0 {
					return
				}
				q := *p
				q.Data = slices.Clone(p.Data)
				packets = append(packets, q)
			}); err != nil {
				t.Fatal(err)
			}
			a, r := analysedAndJudged(t, packets)
			if r.Verdict.Class != tc.want {
				t.Errorf("%s, flags %#x alone: %v (%s), want %v", tc.name, kept, r.Verdict.Class, r.Verdict.Sentence, tc.want)
			}
			if q := a.Quality(); !strings.Contains(strings.Join(q.Remarks, " "), "nothing but SYNs") {
				t.Errorf("%s, flags %#x alone: no remark of it: %q", tc.name, kept, q.Remarks)
			}
		}
	}
}
