//go:build !race

// The race detector makes pools drop what they hold, so that allocations are
// counted without it.

package replay_test

import (
	"testing"

	"squall/dissect"
	"squall/replay"
)

// TestDialectsAreCheap: what an attempt allocates at either end, by dialect.
// Tens of thousands a second leave nothing to the collector.
func TestDialectsAreCheap(t *testing.T) {
	most := map[string]float64{"gnutella": 5, "sip": 1, "bt-tracker": 6, "nebula": 12, "bitcoin": 10} // where a protocol has more to make: hashes, keys, a second leg
	for _, d := range replay.Dialects() {
		who := replay.Identity{Client: 7, Attempt: 9, Seed: 1, Local: local, Remote: local}
		var request, answer []byte
		var id replay.Identity
		var a replay.Asked
		n := testing.AllocsPerRun(100, func() {
			id = who
			request = d.Request(request[:0], &id)
			for b := request; len(b) > 0; {
				if a = d.Serve(b); a.N == 0 {
					t.Fatalf("%s: not read: %q", d.Name(), b)
				}
				a.Peer = local
				answer = d.Answer(answer[:0], &a, dissect.KindAccept, 0)
				b = nil
				for got := answer; len(got) > 0; {
					r := d.Read(&id, got)
					if r.N == 0 {
						t.Fatalf("%s: not understood: %q", d.Name(), got)
					}
					if got = got[r.N:]; r.Kind == dissect.KindChallenge {
						b = r.Next
					}
				}
			}
		})
		if t.Logf("%s: %v", d.Name(), n); n > most[d.Name()] {
			t.Errorf("%s: %v allocations, want at most %v", d.Name(), n, most[d.Name()])
		}
	}
}
