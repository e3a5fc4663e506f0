package samples

import (
	"encoding/binary"
	"net/netip"
)

// TCP flags as the frame builder takes them.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// frames builds Ethernet frames. It keeps one IP identification counter for
// each sender, as ordinary stacks of the time did.
type frames struct {
	ids map[netip.Addr]uint16
}

func newFrames() *frames { return &frames{ids: make(map[netip.Addr]uint16)} }

func sum16(b []byte, s uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// ipv4 makes an Ethernet frame with an IPv4 header around an L4 segment of n
// bytes and returns the frame and the place of that segment.
func (f *frames) ipv4(src, dst netip.Addr, proto byte, n int) (frame, l4 []byte) {
	frame = make([]byte, 14+20+n)
	s, d := src.As4(), dst.As4()
	copy(frame, []byte{2, 0, d[0], d[1], d[2], d[3], 2, 0, s[0], s[1], s[2], s[3], 8, 0})
	ip := frame[14:34]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(20+n))
	f.ids[src]++
	binary.BigEndian.PutUint16(ip[4:], f.ids[src])
	ip[6] = 0x40
	ip[8], ip[9] = 64, proto
	copy(ip[12:], s[:])
	copy(ip[16:], d[:])
	binary.BigEndian.PutUint16(ip[10:], fold(sum16(ip, 0)))
	return frame, frame[34:]
}

func pseudo(src, dst netip.Addr, proto byte, n int) uint32 {
	s, d := src.As4(), dst.As4()
	return sum16(s[:], sum16(d[:], uint32(proto)+uint32(n)))
}

// tcp makes one segment; tsval 0 leaves the timestamps option out.
func (f *frames) tcp(src, dst netip.AddrPort, flags byte, seq, ackno, tsval uint32, payload []byte) []byte {
	opts := 0
	if tsval != 0 {
		opts = 12
	}
	frame, b := f.ipv4(src.Addr(), dst.Addr(), 6, 20+opts+len(payload))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	if flags&ack != 0 {
		binary.BigEndian.PutUint32(b[8:], ackno)
	}
	b[12] = byte(20+opts) / 4 << 4
	b[13] = flags
	binary.BigEndian.PutUint16(b[14:], 64240)
	if opts > 0 {
		b[20], b[21], b[22], b[23] = 1, 1, 8, 10
		binary.BigEndian.PutUint32(b[24:], tsval)
	}
	copy(b[20+opts:], payload)
	binary.BigEndian.PutUint16(b[16:], fold(sum16(b, pseudo(src.Addr(), dst.Addr(), 6, len(b)))))
	return frame
}

func (f *frames) udp(src, dst netip.AddrPort, payload []byte) []byte {
	frame, b := f.ipv4(src.Addr(), dst.Addr(), 17, 8+len(payload))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	copy(b[8:], payload)
	c := fold(sum16(b, pseudo(src.Addr(), dst.Addr(), 17, len(b))))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], c)
	return frame
}

// unreachable makes an ICMP destination unreachable from "from" that quotes
// the IP header and first eight bytes of the given frame.
func (f *frames) unreachable(from netip.Addr, code byte, quoted []byte) []byte {
	q := quoted[14:]
	q = q[:min(len(q), 28)]
	var dst [4]byte
	copy(dst[:], q[12:16])
	frame, b := f.ipv4(from, netip.AddrFrom4(dst), 1, 8+len(q))
	b[0], b[1] = 3, code
	copy(b[8:], q)
	binary.BigEndian.PutUint16(b[2:], fold(sum16(b, 0)))
	return frame
}
