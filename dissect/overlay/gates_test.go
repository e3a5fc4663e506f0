package overlay

import (
	"math/rand/v2"
	"testing"

	"squall/dissect"
)

// FuzzGates: what a gate keeps out, no probe likes.
func FuzzGates(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 64 {
		b := make([]byte, 1+r.IntN(200))
		for j := range b {
			if b[j] = byte(r.Uint32()); i%2 == 1 && r.IntN(3) > 0 {
				b[j] &= 1
			}
		}
		f.Add(b, uint16(53), uint16(i))
	}
	all := All()
	f.Fuzz(func(t *testing.T, b []byte, src, dst uint16) {
		for _, p := range all {
			for _, transport := range []uint8{dissect.ProtoTCP, dissect.ProtoUDP} {
				if set := map[uint8]dissect.Transport{dissect.ProtoTCP: dissect.TCP, dissect.ProtoUDP: dissect.UDP}[transport]; p.Transports()&set != 0 {
					probe(t, p, packet(transport, src, dst, string(b)))
				}
			}
		}
	})
}

// TestGated: a protocol that is always asked makes every unknown flow dearer.
func TestGated(t *testing.T) {
	for _, p := range All() {
		g, ok := p.(dissect.Gated)
		if !ok {
			t.Errorf("%s has no gates", p.Name())
			continue
		}
		for _, transport := range []dissect.Transport{dissect.TCP, dissect.UDP} {
			if p.Transports()&transport == 0 {
				continue
			}
			for _, g := range g.Gates(transport) {
				if g.Starts == "" && g.Mask == 0 && g.HiPort == 0 {
					t.Errorf("%s: a gate that lets nearly everything through: %+v", p.Name(), g)
				}
			}
		}
	}
}
