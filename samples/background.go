package samples

import (
	"encoding/binary"
	"net/netip"
)

// background is what else passes a tap. Nothing of it asks a node for anything:
// a reader must count it as session and other traffic, and find no attempt.
type background struct {
	w     *world
	flows []bulk
}

// bulk is a connection from before the capture.
type bulk struct {
	src, dst netip.AddrPort
	seq, ack uint32
}

func newBackground(w *world) *background {
	b := &background{w: w}
	for i := range 40 {
		b.flows = append(b.flows, bulk{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 240, 0, byte(1 + i)}), uint16(30000+i)),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i%9)}), 443), w.rng.Uint32(), w.rng.Uint32()})
	}
	return b
}

func (b *background) next() {
	w := b.w
	f := &b.flows[w.rng.IntN(len(b.flows))]
	switch x := w.rng.IntN(100); {
	case x < 60:
		data := make([]byte, 200+w.rng.IntN(1200))
		w.packet(w.f.tcp(f.dst, f.src, psh|ack, f.ack, f.seq, 1, data), true)
		f.ack += uint32(len(data))
	case x < 95:
		w.packet(w.f.tcp(f.src, f.dst, ack, f.seq, f.ack, 1, nil), false)
	case x < 97:
		w.packet(arp(f.src.Addr()), false)
	case x < 99: // mDNS: to a group, so that nobody is asked
		query := append(make([]byte, 12), "\x05_http\x04_tcp\x05local\x00\x00\x0c\x00\x01"...)
		query[5] = 1
		w.packet(w.f.udp(netip.AddrPortFrom(f.src.Addr(), 5353), netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 251}), 5353), query), false)
	default:
		w.packet(b.ping(f.src.Addr(), f.dst.Addr()), false)
	}
	w.after(w.exp(1e9/w.sc.Background), b.next)
}

// arp asks for the gateway (RFC 826).
func arp(from netip.Addr) []byte {
	s := from.As4()
	p := []byte{255, 255, 255, 255, 255, 255, 2, 0, s[0], s[1], s[2], s[3], 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, s[0], s[1], s[2], s[3]}
	p = append(p, s[:]...)
	return append(p, 0, 0, 0, 0, 0, 0, 10, 240, 0, 254)
}

func (b *background) ping(from, to netip.Addr) []byte {
	frame, p := b.w.f.ipv4(from, to, 1, 40)
	p[0] = 8
	binary.BigEndian.PutUint16(p[4:], uint16(b.w.rng.Uint32()))
	binary.BigEndian.PutUint16(p[2:], fold(sum16(p, 0)))
	return frame
}
