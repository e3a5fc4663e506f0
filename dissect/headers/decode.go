package headers

import (
	"encoding/binary"

	"squall/capture"
	"squall/dissect"
)

// maxDepth bounds the headers that are followed into each other. Real stacks
// of tunnels have under ten; a hostile packet can hold hundreds.
const maxDepth = 24

// Ethernet types: IEEE registry.
const (
	typeIPv4    = 0x0800
	typeIPv6    = 0x86dd
	typeVLAN    = 0x8100
	typeQinQ    = 0x88a8
	typeQinQOld = 0x9100
	typeMPLS    = 0x8847
	typeMPLSMC  = 0x8848
	typePPPoE   = 0x8864
	typeTEB     = 0x6558 // Ethernet in GRE
	typeDCE     = 0x8903 // Cisco FabricPath: a tag of two bytes, then Ethernet
	typePBB     = 0x88e7 // IEEE 802.1ah: the I-tag of a provider backbone bridge, then Ethernet
	typeCMD     = 0x8909 // Cisco MetaData: the security group of the sender
	typeVNTag   = 0x8926 // Cisco VN-Tag
	typeETag    = 0x893f // IEEE 802.1BR
	typeHSR     = 0x892f // IEC 62439-3
	typeEoIP    = 0x6400 // of MikroTik: Ethernet in GRE that calls itself version 1
	typeERSPAN  = 0x88be // type II, and type I without sequence number
	typeERSPAN3 = 0x22eb
)

// sllBroadcast is the packet type that LINKTYPE_LINUX_SLL has for broadcasts.
const sllBroadcast = 1

// IP protocol numbers beyond those of package dissect.
const (
	protoHopByHop = 0
	protoIPIP     = 4
	proto6in4     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoESP      = 50
	protoAH       = 51
	protoNoNext   = 59
	protoDestOpts = 60
	protoMobility = 135
)

// Tunnel ports: RFC 7348, RFC 8926, 3GPP TS 29.281, RFC 4380.
const (
	portVXLAN    = 4789
	portVXLANOld = 8472 // Linux before the assignment
	portGRE      = 4754 // RFC 8086
	portVXLANGPE = 4790 // draft-ietf-nvo3-vxlan-gpe
	portGENEVE   = 6081
	portGTPU     = 2152
	portTeredo   = 3544
)

// Decoder turns packets into datagrams. The zero value works; it is not safe
// for concurrent use.
type Decoder struct {
	depth int
	cut   bool // the snapshot length removed bytes of the packet
	frags fragments
}

// be16 and be32 are shorthands of the hot path.
func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// Decode fills d from p. d.Payload aliases p.Data, or, for a datagram put
// together from fragments, memory of the Decoder that is valid until the next
// call.
func (dec *Decoder) Decode(p *capture.Packet, d *dissect.Datagram) {
	*d = dissect.Datagram{Time: p.Time, File: p.File, Frame: p.Frame, Offset: p.Offset}
	dec.depth = 0
	dec.cut = len(p.Data) < p.OrigLen
	d.Cut = dec.cut
	dec.link(p.Link, p.Data, d)
}

// short ends the decoding of a packet whose header is not all there: by the
// snapshot length, or because the packet is broken.
func (dec *Decoder) short(d *dissect.Datagram) {
	if dec.cut {
		d.Class = dissect.ClassCut
	} else {
		d.Class = dissect.ClassMalformed
	}
}

func (dec *Decoder) link(link capture.LinkType, b []byte, d *dissect.Datagram) {
	switch link {
	case capture.LinkEthernet:
		dec.ethernet(b, d)
	case capture.LinkRaw, 12, 14: // 12 and 14 are what BSDs wrote
		dec.ip(b, d)
	case capture.LinkIPv4:
		dec.ipv4(b, d)
	case capture.LinkIPv6:
		dec.ipv6(b, d)
	case capture.LinkLinuxSLL:
		if len(b) < 16 {
			dec.short(d)
			return
		}
		d.Broadcast = be16(b) == sllBroadcast
		dec.payload(be16(b[14:]), b[16:], d)
	case capture.LinkLinuxSLL2:
		if len(b) < 20 {
			dec.short(d)
			return
		}
		d.Broadcast = b[10] == sllBroadcast
		d.Point = b[7] // of the interface's index
		dec.payload(be16(b), b[20:], d)
	case capture.LinkNull, capture.LinkLoop:
		// The address family, in the byte order of the capturing host or, for
		// LOOP, of the network. AF_INET6 is 10, 24, 28 or 30.
		if len(b) < 4 {
			dec.short(d)
			return
		}
		family := be32(b)
		if family > 0xffff {
			family = binary.LittleEndian.Uint32(b)
		}
		switch family {
		case 2:
			dec.ipv4(b[4:], d)
		case 10, 24, 28, 30:
			dec.ipv6(b[4:], d)
		}
	case capture.LinkPPP, capture.LinkPPPHDLC:
		if hdlc(b) {
			dec.link(capture.LinkCHDLC, b, d)
			return
		}
		if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
			b = b[2:]
		}
		dec.ppp(b, d)
	case capture.LinkCHDLC:
		if len(b) < 4 {
			dec.short(d)
			return
		}
		dec.payload(be16(b[2:]), b[4:], d)
	case capture.LinkPPPoE:
		dec.pppoe(b, d)
	case linkFDDI, linkARCnet, linkARCnetLinux, linkNFLOG:
		kind, rest, short := uncommon(link, b)
		if short {
			dec.short(d)
		} else if kind != 0 {
			dec.payload(kind, rest, d)
		}
	case linkPPI:
		inner, rest, ok := perPacket(b)
		switch {
		case !ok:
			dec.short(d)
		case inner == linkPPI:
			d.Class = dissect.ClassMalformed
		default:
			dec.link(inner, rest, d)
		}
	default:
		d.Class = dissect.ClassUndecodable
	}
}

// hdlc reports a frame of Cisco HDLC where PPP was announced: its first byte says
// unicast or multicast, and no frame of PPP begins so.
func hdlc(b []byte) bool { return len(b) >= 4 && (b[0] == 0x0f || b[0] == 0x8f) && b[1] == 0 }

func (dec *Decoder) ethernet(b []byte, d *dissect.Datagram) {
	if len(b) < 14 {
		dec.short(d)
		return
	}
	d.Broadcast = be32(b) == 0xffffffff && be16(b[4:]) == 0xffff
	dec.payload(be16(b[12:]), b[14:], d)
}

// tagged is the length of what a tag that is stepped over puts before the next
// Ethernet type.
func tagged(kind uint16, b []byte) int {
	switch kind {
	case typeCMD: // version, length in words, options
		if len(b) < 2 {
			return 6
		}
		return 2 + 4*int(b[1])
	case typeVNTag, typeHSR:
		return 4
	case typeETag:
		return 6
	}
	return 0
}

// payload follows an Ethernet type; below 1536 it is a length and an LLC
// header follows (IEEE 802.3, RFC 1042).
func (dec *Decoder) payload(kind uint16, b []byte, d *dissect.Datagram) {
	for {
		if dec.depth++; dec.depth > maxDepth {
			d.Class = dissect.ClassMalformed
			return
		}
		switch kind {
		case typeIPv4:
			dec.ipv4(b, d)
			return
		case typeIPv6:
			dec.ipv6(b, d)
			return
		case typeVLAN, typeQinQ, typeQinQOld:
			if len(b) < 4 {
				dec.short(d)
				return
			}
			d.VLAN = be16(b) & 0x0fff
			kind, b = be16(b[2:]), b[4:]
		case typeMPLS, typeMPLSMC:
			dec.mpls(b, d)
			return
		case typePPPoE:
			dec.pppoe(b, d)
			return
		case typeTEB:
			dec.ethernet(b, d)
			return
		case typeDCE:
			if len(b) < 2 {
				dec.short(d)
				return
			}
			dec.ethernet(b[2:], d)
			return
		case typePBB:
			if len(b) < 4 {
				dec.short(d)
				return
			}
			d.Tunnel, d.TunnelID = dissect.TunnelPBB, be32(b)&0xffffff
			dec.ethernet(b[4:], d)
			return
		case typeCMD, typeVNTag, typeETag, typeHSR:
			n := tagged(kind, b)
			if len(b) < n+2 {
				dec.short(d)
				return
			}
			kind, b = be16(b[n:]), b[n+2:]
		default:
			if kind < 1536 && len(b) >= 8 && b[0] == 0xaa && b[1] == 0xaa && b[2] == 3 {
				kind, b = be16(b[6:]), b[8:]
				continue
			}
			return // ARP, LLDP, …: ClassOther
		}
	}
}

// mpls walks a label stack. What lies under it is not said; the first nibble
// tells (RFC 4928), and a zero nibble is the control word of an Ethernet
// pseudowire (RFC 4448).
func (dec *Decoder) mpls(b []byte, d *dissect.Datagram) {
	for {
		if len(b) < 4 {
			dec.short(d)
			return
		}
		entry := be32(b)
		b = b[4:]
		if entry&0x100 != 0 {
			d.Tunnel, d.TunnelID = dissect.TunnelMPLS, entry>>12
			break
		}
	}
	if len(b) == 0 {
		dec.short(d)
		return
	}
	switch b[0] >> 4 {
	case 4:
		dec.ipv4(b, d)
	case 6:
		dec.ipv6(b, d)
	case 0:
		if len(b) >= 4 {
			dec.ethernet(b[4:], d)
		}
	}
}

// pppoe reads a session frame: RFC 2516 section 4.
func (dec *Decoder) pppoe(b []byte, d *dissect.Datagram) {
	if len(b) < 6 {
		dec.short(d)
		return
	}
	if b[0] != 0x11 || b[1] != 0 { // discovery
		return
	}
	d.Tunnel, d.TunnelID = dissect.TunnelPPPoE, uint32(be16(b[2:]))
	if n := int(be16(b[4:])); n < len(b)-6 {
		b = b[:6+n]
	}
	dec.ppp(b[6:], d)
}

// ppp follows a protocol field, compressed to one byte or not (RFC 1661).
func (dec *Decoder) ppp(b []byte, d *dissect.Datagram) {
	if len(b) < 2 {
		dec.short(d)
		return
	}
	proto := uint16(b[0])
	if proto&1 != 0 {
		b = b[1:]
	} else {
		proto, b = be16(b), b[2:]
	}
	switch proto {
	case 0x21:
		dec.ipv4(b, d)
	case 0x57:
		dec.ipv6(b, d)
	case 0x281, 0x283:
		dec.mpls(b, d)
	}
}

func (dec *Decoder) ip(b []byte, d *dissect.Datagram) {
	if len(b) == 0 {
		dec.short(d)
		return
	}
	switch b[0] >> 4 {
	case 4:
		dec.ipv4(b, d)
	case 6:
		dec.ipv6(b, d)
	default:
		d.Class = dissect.ClassMalformed
	}
}

// ipv4 reads RFC 791. A total length of zero is what segmentation offload
// leaves in a capture at the sender: then the packet is as long as it is.
func (dec *Decoder) ipv4(b []byte, d *dissect.Datagram) {
	if dec.depth++; dec.depth > maxDepth {
		d.Class = dissect.ClassMalformed
		return
	}
	if len(b) < 20 {
		dec.short(d)
		return
	}
	head := int(b[0]&15) * 4
	total := int(be16(b[2:]))
	if total == 0 {
		total = len(b)
	}
	if b[0]>>4 != 4 || head < 20 || total < head {
		d.Class = dissect.ClassMalformed
		return
	}
	d.Src, d.Dst = dissect.Addr4(b[12:16]), dissect.Addr4(b[16:20])
	d.IPLen, d.IPID, d.TTL, d.Proto = total, be16(b[4:]), b[8], b[9]
	if total < len(b) {
		b = b[:total] // Ethernet padding, trailers
	} else if total > len(b) {
		d.Cut = true
	}
	if head > len(b) {
		dec.short(d)
		return
	}
	frag := be16(b[6:])
	if frag&0x3fff != 0 {
		dec.fragment(b[head:], uint32(d.IPID), int(frag&0x1fff)*8, frag&0x2000 != 0, total-head, d)
		return
	}
	dec.transport(d.Proto, b[head:], total-head, d)
}

// ipv6 reads RFC 8200 and walks the extension headers.
func (dec *Decoder) ipv6(b []byte, d *dissect.Datagram) {
	if dec.depth++; dec.depth > maxDepth {
		d.Class = dissect.ClassMalformed
		return
	}
	if len(b) < 40 {
		dec.short(d)
		return
	}
	if b[0]>>4 != 6 {
		d.Class = dissect.ClassMalformed
		return
	}
	d.Src, d.Dst = dissect.Addr(b[8:24]), dissect.Addr(b[24:40])
	n := int(be16(b[4:]))
	if n == 0 { // jumbogram, or segmentation offload
		n = len(b) - 40
	}
	d.IPLen, d.TTL, d.IPID = 40+n, b[7], 0
	next := b[6]
	b = b[40:]
	if n < len(b) {
		b = b[:n]
	} else if n > len(b) {
		d.Cut = true
	}
	for range maxDepth {
		var size int
		switch next {
		case protoHopByHop, protoRouting, protoDestOpts, protoMobility:
			if len(b) < 8 {
				dec.short(d)
				return
			}
			size = 8 + int(b[1])*8
		case protoFragment:
			if len(b) < 8 {
				dec.short(d)
				return
			}
			d.Proto = b[0]
			frag := be16(b[2:])
			id := be32(b[4:])
			if frag&0xfff9 == 0 { // an atomic fragment: RFC 6946
				next, b, n = b[0], b[8:], n-8
				continue
			}
			dec.fragment(b[8:], id, int(frag&0xfff8), frag&1 != 0, n-8, d)
			return
		default:
			d.Proto = next
			dec.transport(next, b, n, d)
			return
		}
		if size > n {
			d.Class = dissect.ClassMalformed
			return
		}
		if size > len(b) {
			dec.short(d)
			return
		}
		next, b, n = b[0], b[size:], n-size
	}
	d.Class = dissect.ClassMalformed
}

// transport reads what an IP header carries; n is its length on the wire,
// len(b) what was captured of it.
func (dec *Decoder) transport(proto uint8, b []byte, n int, d *dissect.Datagram) {
	switch proto {
	case dissect.ProtoTCP:
		dec.tcp(b, n, d)
	case dissect.ProtoUDP:
		dec.udp(b, n, d)
	case dissect.ProtoICMP:
		dec.icmp(b, d)
	case dissect.ProtoICMPv6:
		dec.icmp6(b, d)
	case protoIPIP:
		d.Tunnel, d.TunnelID = dissect.TunnelIPIP, 0
		dec.ipv4(b, d)
	case proto6in4:
		d.Tunnel, d.TunnelID = dissect.Tunnel6in4, 0
		dec.ipv6(b, d)
	case protoGRE:
		dec.gre(b, d)
	case protoAH: // RFC 4302: length in 4-byte words, less two
		if len(b) < 12 {
			dec.short(d)
			return
		}
		size := (int(b[1]) + 2) * 4
		if size < 12 || size > n {
			d.Class = dissect.ClassMalformed
			return
		}
		if size > len(b) {
			dec.short(d)
			return
		}
		if dec.depth++; dec.depth > maxDepth {
			d.Class = dissect.ClassMalformed
			return
		}
		d.Tunnel, d.TunnelID, d.Proto = dissect.TunnelAH, be32(b[4:]), b[0]
		dec.transport(b[0], b[size:], n-size, d)
	default: // ESP is opaque; OSPF, IGMP, … are others' business
		d.Class = dissect.ClassOther
	}
}

// tcp reads RFC 9293 section 3.1. The flags are the last thing that is
// needed; a cut behind them costs the window, options and payload only.
func (dec *Decoder) tcp(b []byte, n int, d *dissect.Datagram) {
	if n < 20 {
		d.Class = dissect.ClassMalformed
		return
	}
	if len(b) < 14 {
		dec.short(d)
		return
	}
	head := int(b[12]>>4) * 4
	if head < 20 || head > n {
		d.Class = dissect.ClassMalformed
		return
	}
	d.Class, d.Proto = dissect.ClassTCP, dissect.ProtoTCP
	d.SrcPort, d.DstPort = be16(b), be16(b[2:])
	d.Seq, d.Ack, d.Flags = be32(b[4:]), be32(b[8:]), b[13]
	d.PayloadLen = n - head
	if len(b) < head {
		d.Cut = true
		d.Payload = nil
		if len(b) >= 20 {
			d.Window = be16(b[14:])
			timestamps(b[20:], d)
		}
		return
	}
	d.Window = be16(b[14:])
	if head > 20 {
		timestamps(b[20:head], d)
	}
	d.Payload = b[head:]
}

// timestamps finds option 8 (RFC 7323 section 3.2).
func timestamps(o []byte, d *dissect.Datagram) {
	if len(o) >= 12 && be32(o) == 0x0101080a { // as nearly everybody writes it
		d.HasTS, d.TSVal, d.TSEcr = true, be32(o[4:]), be32(o[8:])
		return
	}
	for len(o) >= 2 {
		switch o[0] {
		case 0:
			return
		case 1:
			o = o[1:]
			continue
		}
		size := int(o[1])
		if size < 2 || size > len(o) {
			return
		}
		if o[0] == 8 && size == 10 {
			d.HasTS, d.TSVal, d.TSEcr = true, be32(o[2:]), be32(o[6:])
			return
		}
		o = o[size:]
	}
}

// udp reads RFC 768 and looks into the tunnels that run over it. A tunnel
// port whose content is no sound tunnel is plain UDP.
func (dec *Decoder) udp(b []byte, n int, d *dissect.Datagram) {
	if n < 8 {
		d.Class = dissect.ClassMalformed
		return
	}
	if len(b) < 4 {
		dec.short(d)
		return
	}
	d.Class, d.Proto = dissect.ClassUDP, dissect.ProtoUDP
	d.SrcPort, d.DstPort = be16(b), be16(b[2:])
	if len(b) < 8 {
		d.Cut, d.PayloadLen, d.Payload = true, n-8, nil
		return
	}
	size := int(be16(b[4:]))
	switch {
	case size == 0: // jumbogram, or offload
		size = n
	case size < 8:
		d.Class = dissect.ClassMalformed
		return
	}
	if d.First && size > n { // the rest is in other fragments, and nobody waits for them
		d.Cut, d.PayloadLen, d.Payload = true, size-8, b[8:min(n, len(b))]
	} else {
		size = min(size, n)
		d.PayloadLen = size - 8
		d.Payload = b[8:min(size, len(b))]
	}
	if tunnelPort(d.DstPort) || d.SrcPort == portTeredo || d.SrcPort == portGTPU {
		dec.udpTunnel(d)
	}
}

func tunnelPort(p uint16) bool {
	return p == portVXLAN || p == portVXLANOld || p == portVXLANGPE || p == portGENEVE || p == portGRE || p == portGTPU || p == portTeredo
}

// udpTunnel replaces d by what the tunnel carries, when that is sound.
func (dec *Decoder) udpTunnel(d *dissect.Datagram) {
	inner := *d
	inner.Class, inner.IPLen = dissect.ClassOther, 0
	b := d.Payload
	port := d.DstPort
	if !tunnelPort(port) {
		port = d.SrcPort
	}
	switch port {
	case portVXLAN, portVXLANOld:
		if len(b) < 8 || b[0]&0x08 == 0 { // reserved bits are not all zero in the field (RFC 7348 section 5: ignored)
			return
		}
		inner.Tunnel, inner.TunnelID = dissect.TunnelVXLAN, be32(b[4:])>>8
		dec.ethernet(b[8:], &inner)
	case portVXLANGPE:
		if len(b) < 8 || b[0]&0x08 == 0 {
			return
		}
		inner.Tunnel, inner.TunnelID = dissect.TunnelVXLAN, be32(b[4:])>>8
		switch {
		case b[0]&0x04 == 0 || b[3] == 3:
			dec.ethernet(b[8:], &inner)
		case b[3] == 1:
			dec.ipv4(b[8:], &inner)
		case b[3] == 2:
			dec.ipv6(b[8:], &inner)
		}
	case portGRE:
		if len(b) < 4 || be16(b)&0x4fff != 0 {
			return
		}
		dec.gre(b, &inner)
	case portGENEVE:
		if len(b) < 8 || b[0]>>6 != 0 {
			return
		}
		head := 8 + int(b[0]&0x3f)*4
		if head > len(b) {
			return
		}
		inner.Tunnel, inner.TunnelID = dissect.TunnelGENEVE, be32(b[4:])>>8
		dec.payload(be16(b[2:]), b[head:], &inner)
	case portGTPU:
		head, ok := gtpHeader(b)
		if !ok {
			return
		}
		inner.Tunnel, inner.TunnelID = dissect.TunnelGTPU, be32(b[4:])
		dec.ip(b[head:], &inner)
	case portTeredo:
		b, ok := teredo(b)
		if !ok {
			return
		}
		inner.Tunnel, inner.TunnelID = dissect.TunnelTeredo, 0
		dec.ipv6(b, &inner)
	}
	if inner.IPLen == 0 { // no IP header in it: ARP, or no tunnel at all
		return
	}
	switch inner.Class {
	case dissect.ClassTCP, dissect.ClassUDP, dissect.ClassICMPError, dissect.ClassFragment, dissect.ClassOther:
		*d = inner
	}
}

// gtpHeader is the length of a GTPv1-U header with its extensions, for a
// packet that carries user data (message type 255): 3GPP TS 29.281 section 5.
func gtpHeader(b []byte) (n int, ok bool) {
	if len(b) < 8 || b[0]&0xf0 != 0x30 || b[1] != 255 {
		return 0, false
	}
	if b[0]&7 == 0 {
		return 8, true
	}
	if len(b) < 12 {
		return 0, false
	}
	n = 12
	if b[0]&4 == 0 {
		return n, true
	}
	next := b[11]
	for range maxDepth {
		if next == 0 {
			return n, true
		}
		if n >= len(b) || b[n] == 0 || n+int(b[n])*4 > len(b) {
			return 0, false
		}
		n += int(b[n]) * 4
		next = b[n-1]
	}
	return 0, false
}

// teredo strips the authentication and origin headers: RFC 4380 section 5.1.1.
func teredo(b []byte) ([]byte, bool) {
	if len(b) >= 13 && b[0] == 0 && b[1] == 1 {
		n := 13 + int(b[2]) + int(b[3])
		if n > len(b) {
			return nil, false
		}
		b = b[n:]
	}
	if len(b) >= 8 && b[0] == 0 && b[1] == 0 {
		b = b[8:]
	}
	return b, len(b) >= 40 && b[0]>>4 == 6
}

// gre reads RFC 2784 and 2890, the PPTP form of RFC 2637, EoIP, and ERSPAN.
func (dec *Decoder) gre(b []byte, d *dissect.Datagram) {
	if len(b) < 4 {
		dec.short(d)
		return
	}
	flags, kind := be16(b), be16(b[2:])
	n, key := 4, uint32(0)
	if flags&0x8000 != 0 || flags&0x4000 != 0 { // checksum, routing
		n += 4
	}
	if flags&0x2000 != 0 {
		if len(b) < n+4 {
			dec.short(d)
			return
		}
		key = be32(b[n:])
		n += 4
	}
	sequence := flags&0x1000 != 0
	if sequence {
		n += 4
	}
	if flags&7 == 1 && flags&0x0080 != 0 { // version 1: acknowledgement
		n += 4
	}
	if len(b) < n {
		dec.short(d)
		return
	}
	b = b[n:]
	d.Tunnel, d.TunnelID = dissect.TunnelGRE, key
	switch {
	case flags&7 == 1 && kind == typeEoIP: // its key is a length, and an id with the low byte first
		d.TunnelID = key&0xff<<8 | key>>8&0xff
		dec.ethernet(b, d)
	case flags&7 == 1:
		if kind == 0x880b && len(b) > 0 {
			if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
				b = b[2:]
			}
			dec.ppp(b, d)
		}
	case kind == typeERSPAN:
		d.Tunnel = dissect.TunnelERSPAN
		if sequence { // type II has a header of 8 bytes, type I none
			if len(b) < 8 {
				dec.short(d)
				return
			}
			d.TunnelID = uint32(be16(b[2:]) & 0x3ff)
			b = b[8:]
		}
		dec.ethernet(b, d)
	case kind == typeERSPAN3:
		if len(b) < 12 {
			dec.short(d)
			return
		}
		d.Tunnel, d.TunnelID = dissect.TunnelERSPAN, uint32(be16(b[2:])&0x3ff)
		n := 12
		if b[11]&1 != 0 { // platform-specific subheader
			n += 8
		}
		if len(b) < n {
			dec.short(d)
			return
		}
		dec.ethernet(b[n:], d)
	default:
		dec.payload(kind, b, d)
	}
}
