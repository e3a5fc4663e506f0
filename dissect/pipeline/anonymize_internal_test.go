package pipeline

import (
	"bytes"
	"testing"

	"squall/dissect"
	"squall/dissect/overlay"
)

// TestFillerIsNothing: what stands in place of an unknown payload is no protocol, at
// any port and of any length.
func TestFillerIsNothing(t *testing.T) {
	all := overlay.All()
	whole := bytes.Repeat([]byte{filler}, 1472)
	try := func(port uint16, n int) {
		for _, proto := range []uint8{dissect.ProtoTCP, dissect.ProtoUDP} {
			for _, toNode := range []bool{true, false} {
				d := dissect.Datagram{Proto: proto, SrcPort: 40999, DstPort: port, Payload: whole[:n:n], PayloadLen: n}
				if !toNode {
					d.SrcPort, d.DstPort = d.DstPort, d.SrcPort
				}
				for _, p := range all {
					if takes := p.Transports(); proto == dissect.ProtoTCP && takes&dissect.TCP == 0 || proto == dissect.ProtoUDP && takes&dissect.UDP == 0 {
						continue
					}
					if p.Name() == "sip" && n <= 4 {
						continue // keepalives of any content: the bytes before were sip, too
					}
					if v := p.Probe(&d); v != dissect.No {
						t.Fatalf("%s takes %d bytes of filler at port %d, protocol %d, for its own (%v)", p.Name(), n, port, proto, v)
					}
				}
			}
		}
	}
	for n := 1; n <= len(whole); n++ {
		try(33033, n)
		try(7654, n)
	}
	for port := 1; port < 1<<16; port += 7 {
		try(uint16(port), 18)
		try(uint16(port), 60)
	}
	for _, p := range all {
		for _, transport := range []dissect.Transport{dissect.TCP, dissect.UDP} {
			g, ok := p.(interface {
				Gates(dissect.Transport) []dissect.Gate
			})
			if !ok {
				continue
			}
			for _, gate := range g.Gates(transport) {
				for _, port := range []uint16{gate.LoPort, gate.HiPort} {
					for _, n := range []int{max(gate.Least, 1), 18, 60, 300, 1400} {
						try(port, n)
					}
				}
			}
		}
	}
}
