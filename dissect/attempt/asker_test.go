package attempt

import (
	"math/rand/v2"
	"testing"

	"squall/dissect"
	"squall/dissect/overlay"
)

// unknownPayloads are datagrams of no known protocol: random ones, as encrypted
// overlays send, and ones with the zeros and small numbers of binary headers.
func unknownPayloads(proto uint8) (list []*dissect.Datagram) {
	r := rand.New(rand.NewPCG(7, uint64(proto)))
	for i := range 64 {
		b := make([]byte, 24+r.IntN(1200))
		for j := range b {
			if b[j] = byte(r.Uint32()); i%4 == 3 && j < 24 && r.IntN(2) == 0 {
				b[j] &= 3
			}
		}
		list = append(list, &dissect.Datagram{Time: 1, Proto: proto, SrcPort: uint16(49152 + r.IntN(10000)), DstPort: uint16(1024 + r.IntN(40000)), Payload: b, PayloadLen: len(b)})
	}
	return list
}

// plain asks without gates.
func plain(protocols []dissect.Protocol, transport dissect.Transport, d *dissect.Datagram) int16 {
	best := unknown
	for i, p := range protocols {
		if p.Transports()&transport == 0 {
			continue
		}
		switch p.Probe(d) {
		case dissect.Yes:
			return int16(i)
		case dissect.Maybe:
			if best == unknown {
				best = int16(i)
			}
		}
	}
	return best
}

// TestAskerIsPlain: the gates change the cost of the answer, never the answer.
func TestAskerIsPlain(t *testing.T) {
	all := overlay.All()
	for proto, transport := range map[uint8]dissect.Transport{dissect.ProtoTCP: dissect.TCP, dissect.ProtoUDP: dissect.UDP} {
		a := newAsker(all, transport)
		r := rand.New(rand.NewPCG(3, 3))
		ports := []uint16{53, 80, 443, 1194, 4242, 4672, 7654, 9000, 12350, 30303, 33033, 40007}
		for i, d := range unknownPayloads(proto) {
			for range 20 {
				d.SrcPort, d.DstPort = uint16(r.Uint32()), ports[r.IntN(len(ports))]
				if r.IntN(2) == 0 {
					d.SrcPort, d.DstPort = d.DstPort, d.SrcPort
				}
				b := d.Payload
				d.Payload = b[:r.IntN(len(b)+1)]
				d.PayloadLen = len(d.Payload)
				if i%3 == 0 && len(d.Payload) > 3 { // begin as something does
					copy(d.Payload, [...]string{"GET ", "\x16\x03\x01", "\xe4\x01", "d1:a", "\x00\x00\x04\x17", "\x80\x46\x01", "\x02\x03\x02", "\x10\x00\x00"}[r.IntN(8)])
				}
				if got, _ := a.probe(d); got != plain(all, transport, d) {
					t.Fatalf("%d, without gates %d: %x", got, plain(all, transport, d), d.Payload)
				}
				d.Payload, d.PayloadLen = b, len(b)
			}
		}
	}
}

func TestAskingDoesNotAllocate(t *testing.T) {
	for proto, transport := range map[uint8]dissect.Transport{dissect.ProtoTCP: dissect.TCP, dissect.ProtoUDP: dissect.UDP} {
		a, list := newAsker(overlay.All(), transport), unknownPayloads(proto)
		if n := testing.AllocsPerRun(10, func() {
			for _, d := range list {
				a.probe(d)
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// BenchmarkAsk is what an unknown first packet costs; the budget is 60 ns.
func BenchmarkAsk(b *testing.B) {
	for _, c := range []struct {
		name      string
		proto     uint8
		transport dissect.Transport
	}{{"udp", dissect.ProtoUDP, dissect.UDP}, {"tcp", dissect.ProtoTCP, dissect.TCP}} {
		all, list := overlay.All(), unknownPayloads(c.proto)
		a := newAsker(all, c.transport)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				a.probe(list[i%len(list)])
			}
		})
		b.Run(c.name+"-without-gates", func(b *testing.B) {
			for i := range b.N {
				plain(all, c.transport, list[i%len(list)])
			}
		})
	}
}
