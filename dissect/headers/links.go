package headers

import (
	"encoding/binary"

	"squall/capture"
)

// Link types that are rarely met: tcpdump.org/linktypes.html. The rewriter does
// not know them, and says so.
const (
	linkARCnet      = 7
	linkFDDI        = 10
	linkARCnetLinux = 129
	linkPPI         = 192
	linkNFLOG       = 239
)

// typeLLC stands for a frame that begins with an LLC header instead of a type.
const typeLLC = 8

// uncommon steps over the header of a rare link. kind is the Ethernet type of what
// follows, 0 = not known, or nothing that could hold IP. short: the header is not
// all there.
func uncommon(link capture.LinkType, b []byte) (kind uint16, rest []byte, short bool) {
	switch link {
	case linkFDDI: // frame control, two addresses
		if len(b) < 13 {
			return 0, nil, true
		}
		if b[0]&0xf0 != 0x50 { // other than LLC
			return 0, nil, false
		}
		return typeLLC, b[13:], false
	case linkARCnet, linkARCnetLinux: // RFC 1201, and RFC 1051 without its fragments
		n := 2
		if link == linkARCnetLinux {
			n = 4
		}
		if len(b) <= n {
			return 0, nil, true
		}
		system, flags := b[n], n+1
		n += 4
		switch system {
		case 212:
			kind = typeIPv4
		case 196:
			kind = typeIPv6
		case 240:
			return typeIPv4, b[flags:], false
		default:
			return 0, nil, false
		}
		if len(b) > flags && b[flags] == 0xff { // an exception packet: padding, then the flags again
			flags, n = flags+3, n+3
		}
		if len(b) < n+1 {
			return 0, nil, true
		}
		if b[flags] != 0 { // split
			return 0, nil, false
		}
		return kind, b[n:], false
	case linkNFLOG: // family, version, resource; then what the kernel said, in the host's order
		if len(b) < 4 {
			return 0, nil, true
		}
		switch b[0] {
		case 2:
			kind = typeIPv4
		case 10:
			kind = typeIPv6
		}
		order := binary.ByteOrder(binary.LittleEndian)
		for b = b[4:]; len(b) >= 4; {
			n, what := int(order.Uint16(b)), order.Uint16(b[2:])
			if what > 0xff { // written on a big-endian host
				order = binary.BigEndian
				n, what = int(order.Uint16(b)), order.Uint16(b[2:])
			}
			if n < 4 {
				return 0, nil, false
			}
			if what == 9 { // the packet
				return kind, b[4:min(n, len(b))], false
			}
			if n = (n + 3) &^ 3; n > len(b) {
				break
			}
			b = b[n:]
		}
		return 0, nil, true
	}
	return 0, nil, false
}

// perPacket is the link type, and the bytes, that a PPI header stands before.
func perPacket(b []byte) (inner capture.LinkType, rest []byte, ok bool) {
	if len(b) < 8 {
		return 0, nil, false
	}
	n := int(binary.LittleEndian.Uint16(b[2:]))
	if n < 8 || n > len(b) {
		return 0, nil, false
	}
	return capture.LinkType(binary.LittleEndian.Uint32(b[4:])), b[n:], true
}
