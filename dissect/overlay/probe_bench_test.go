package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

func BenchmarkProbe(b *testing.B) {
	for _, c := range []struct {
		name  string
		proto uint8
		port  uint16
		data  string
	}{
		{"udp", dissect.ProtoUDP, 7, "\x9c\x6f\x8a\xe1" + strings.Repeat("\xa5\x3c", 60)},
		{"tcp", dissect.ProtoTCP, 7, "\x9c\x6f\x8a\xe1" + strings.Repeat("\xa5\x3c", 60)},
	} {
		d := packet(c.proto, 50000, c.port, c.data)
		var list []dissect.Protocol
		for _, p := range All() {
			t := dissect.Transport(dissect.TCP)
			if c.proto == dissect.ProtoUDP {
				t = dissect.UDP
			}
			if p.Transports()&t != 0 {
				list = append(list, p)
			}
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				for _, p := range list {
					if p.Probe(d) != dissect.No {
						b.Fatal(p.Name())
					}
				}
			}
		})
		for _, p := range list {
			b.Run(c.name+"/"+p.Name(), func(b *testing.B) {
				for i := 0; i < b.N; i++ {
					p.Probe(d)
				}
			})
		}
	}
}
