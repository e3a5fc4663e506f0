package headers

import (
	"encoding/binary"
	"errors"
	"fmt"

	"squall/capture"
	"squall/dissect"
)

// ErrOpaque says that a packet has a part which cannot be followed, and so may
// hold addresses that were not changed.
var ErrOpaque = errors.New("cannot be followed to its end")

// Rewriter changes what packets say about who sends to whom: addresses and
// ports at every layer, inside tunnels and in what ICMP errors quote, ARP and
// neighbour discovery, hardware addresses and VLAN ids, with all checksums.
// Lengths never change. A field left nil keeps what it is about.
type Rewriter struct {
	// Map gives the endpoint that stands for another one. The port is 0 where
	// the header has none (later fragments, ICMP, ARP), so the address must not
	// depend on it. Multicast, unspecified and broadcast addresses are not asked for.
	Map func(dissect.Endpoint) dissect.Endpoint
	// MAC changes a unicast hardware address of 6 bytes in place.
	MAC func(b []byte)
	// VLAN gives the id that stands for another one.
	VLAN func(id uint16) uint16
	// Payload changes the payload of a TCP segment or UDP datagram in place; d
	// describes it as it was before, d.Payload aliases the bytes to change. It
	// is called for the innermost transport only, and for what an ICMP error
	// quotes of one; without payload, for SYNs alone.
	Payload func(d *dissect.Datagram)
	// Rest changes in place what a fragment carries whose transport header is in
	// another one.
	Rest func(b []byte)

	depth int
	d     dissect.Datagram
}

// Rewrite changes b, the captured bytes of a packet, in place. The checksums of
// whole packets are computed anew, those of cut packets and fragments are
// carried on by what has changed (RFC 1624). ErrOpaque is returned for link
// types, protocols and broken or cut headers that cannot be followed; b is then
// changed in part and must not be used.
func (r *Rewriter) Rewrite(link capture.LinkType, b []byte) error {
	r.depth = 0
	switch link {
	case capture.LinkEthernet:
		return r.ethernet(b)
	case capture.LinkRaw, 12, 14:
		return r.ip(b)
	case capture.LinkIPv4:
		return r.ipv4(b, false)
	case capture.LinkIPv6:
		return r.ipv6(b, false)
	case capture.LinkLinuxSLL:
		if len(b) < 16 {
			return opaque("a cooked header")
		}
		if be16(b[4:]) == 6 {
			r.mac(b[6:12])
		}
		return r.payload(be16(b[14:]), b[16:])
	case capture.LinkLinuxSLL2:
		if len(b) < 20 {
			return opaque("a cooked header")
		}
		if b[11] == 6 {
			r.mac(b[12:18])
		}
		return r.payload(be16(b), b[20:])
	case capture.LinkNull, capture.LinkLoop:
		if len(b) < 4 {
			return opaque("an address family")
		}
		return r.ip(b[4:])
	case capture.LinkPPP, capture.LinkPPPHDLC:
		if hdlc(b) {
			return r.payload(be16(b[2:]), b[4:])
		}
		if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
			b = b[2:]
		}
		return r.ppp(b)
	case capture.LinkCHDLC:
		if len(b) < 4 {
			return opaque("a C-HDLC header")
		}
		return r.payload(be16(b[2:]), b[4:])
	case capture.LinkPPPoE:
		return r.pppoe(b)
	}
	return fmt.Errorf("link type %d %w", link, ErrOpaque)
}

func opaque(what string) error { return fmt.Errorf("%s %w", what, ErrOpaque) }

func (r *Rewriter) mac(b []byte) {
	if r.MAC != nil && b[0]&1 == 0 && (be32(b) != 0 || be16(b[4:]) != 0) {
		r.MAC(b)
	}
}

// swap maps the address at b, of 4 or 16 bytes, and gives both forms.
func (r *Rewriter) swap(b []byte, port uint16) (was, is dissect.Endpoint) {
	was.Port = port
	if len(b) == 4 {
		was.Addr = dissect.Addr4(b)
	} else {
		was.Addr = dissect.Addr(b)
	}
	is = was
	if r.Map == nil || was.Addr.Multicast() || was.Addr == (dissect.Addr{}) || len(b) == 4 && be32(b) == 0 {
		return was, is
	}
	if is = r.Map(was); len(b) == 4 {
		copy(b, is.Addr[12:])
	} else {
		copy(b, is.Addr[:])
	}
	return was, is
}

func (r *Rewriter) ethernet(b []byte) error {
	if len(b) < 14 {
		return opaque("an Ethernet header")
	}
	r.mac(b[:6])
	r.mac(b[6:12])
	return r.payload(be16(b[12:]), b[14:])
}

func (r *Rewriter) payload(kind uint16, b []byte) error {
	for {
		if r.depth++; r.depth > maxDepth {
			return opaque("a stack of headers")
		}
		switch kind {
		case typeIPv4:
			return r.ipv4(b, false)
		case typeIPv6:
			return r.ipv6(b, false)
		case 0x0806, 0x8035: // ARP and RARP, RFC 826
			return r.arp(b)
		case typeVLAN, typeQinQ, typeQinQOld:
			if len(b) < 4 {
				return opaque("a VLAN tag")
			}
			if tci := be16(b); r.VLAN != nil {
				binary.BigEndian.PutUint16(b, tci&0xf000|r.VLAN(tci&0xfff)&0xfff)
			}
			kind, b = be16(b[2:]), b[4:]
		case typeMPLS, typeMPLSMC:
			return r.mpls(b)
		case typePPPoE:
			return r.pppoe(b)
		case typeTEB:
			return r.ethernet(b)
		case typeDCE:
			if len(b) < 2 {
				return opaque("a FabricPath tag")
			}
			return r.ethernet(b[2:])
		case typePBB:
			if len(b) < 4 {
				return opaque("an I-tag")
			}
			return r.ethernet(b[4:])
		case typeCMD, typeVNTag, typeETag, typeHSR:
			n := tagged(kind, b)
			if len(b) < n+2 {
				return opaque("a tag")
			}
			kind, b = be16(b[n:]), b[n+2:]
		default:
			if kind < 1536 && len(b) >= 8 && b[0] == 0xaa && b[1] == 0xaa && b[2] == 3 {
				kind, b = be16(b[6:]), b[8:]
				continue
			}
			return fmt.Errorf("type %#04x over Ethernet %w", kind, ErrOpaque)
		}
	}
}

func (r *Rewriter) arp(b []byte) error {
	if len(b) < 28 || be16(b) != 1 || be16(b[2:]) != typeIPv4 || b[4] != 6 || b[5] != 4 {
		return opaque("ARP of other than Ethernet and IPv4")
	}
	r.mac(b[8:14])
	r.swap(b[14:18], 0)
	r.mac(b[18:24])
	r.swap(b[24:28], 0)
	return nil
}

func (r *Rewriter) mpls(b []byte) error {
	for bottom := false; !bottom; b = b[4:] {
		if len(b) < 4 {
			return opaque("an MPLS label")
		}
		bottom = b[2]&1 != 0
	}
	if len(b) >= 4 && b[0]>>4 == 0 {
		return r.ethernet(b[4:])
	}
	return r.ip(b)
}

func (r *Rewriter) pppoe(b []byte) error {
	if len(b) < 6 || b[0] != 0x11 || b[1] != 0 {
		return opaque("PPPoE discovery")
	}
	if n := int(be16(b[4:])); n < len(b)-6 {
		b = b[:6+n]
	}
	return r.ppp(b[6:])
}

func (r *Rewriter) ppp(b []byte) error {
	if len(b) < 2 {
		return opaque("a PPP header")
	}
	proto := uint16(b[0])
	if proto&1 != 0 {
		b = b[1:]
	} else {
		proto, b = be16(b), b[2:]
	}
	switch proto {
	case 0x21:
		return r.ipv4(b, false)
	case 0x57:
		return r.ipv6(b, false)
	case 0x281, 0x283:
		return r.mpls(b)
	}
	return fmt.Errorf("PPP protocol %#04x %w", proto, ErrOpaque)
}

func (r *Rewriter) ip(b []byte) error {
	switch {
	case len(b) > 0 && b[0]>>4 == 4:
		return r.ipv4(b, false)
	case len(b) > 0 && b[0]>>4 == 6:
		return r.ipv6(b, false)
	}
	return opaque("a header that is neither IPv4 nor IPv6")
}

// carried is what a transport needs to know of the IP header around it.
type carried struct {
	src, dst []byte // of the header, to be changed
	proto    uint8
	whole    bool // all bytes are here, and it is no fragment
	first    bool // the transport header begins here
	quoted   bool // inside an ICMP error
	length   int  // on the wire
}

func (r *Rewriter) ipv4(b []byte, quoted bool) error {
	if r.depth++; r.depth > maxDepth {
		return opaque("a stack of headers")
	}
	if len(b) < 20 || b[0]>>4 != 4 {
		return opaque("an IPv4 header")
	}
	head, total := int(b[0]&15)*4, int(be16(b[2:]))
	if total == 0 {
		total = len(b)
	}
	if head < 20 || total < head || head > len(b) {
		return opaque("an IPv4 header")
	}
	trailer := b[min(total, len(b)):]
	b = b[:min(total, len(b))]
	if !quoted {
		clear(trailer) // padding leaks what lay in memory before
	}
	frag := be16(b[6:])
	c := carried{src: b[12:16], dst: b[16:20], proto: b[9], first: frag&0x1fff == 0, quoted: quoted,
		whole: len(b) == total && frag&0x3fff == 0, length: total - head}
	before := sum(b[:head])
	for o := b[20:head]; len(o) >= 2 && o[0] != 0; { // recorded routes and such hold addresses: RFC 791 section 3.1
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			return opaque("an IPv4 option")
		}
		for i := range o[:n] {
			o[i] = 1 // no operation
		}
		o = o[n:]
	}
	err := r.transport(c, b[head:])
	if quoted { // it may be as a router left it, with a sum that does not hold
		carry(b[10:12], before, sum(b[:head]))
	} else {
		put16(b[10:], 0)
		put16(b[10:], ^fold16(sum(b[:head])))
	}
	return err
}

func (r *Rewriter) ipv6(b []byte, quoted bool) error {
	if r.depth++; r.depth > maxDepth {
		return opaque("a stack of headers")
	}
	if len(b) < 40 || b[0]>>4 != 6 {
		return opaque("an IPv6 header")
	}
	n := int(be16(b[4:]))
	if n == 0 {
		n = len(b) - 40
	}
	c := carried{src: b[8:24], dst: b[24:40], proto: b[6], first: true, quoted: quoted, whole: len(b)-40 >= n}
	if len(b)-40 > n {
		if !quoted {
			clear(b[40+n:])
		}
		b = b[:40+n]
	}
	b = b[40:]
	for range maxDepth {
		size := 8
		switch c.proto {
		case protoHopByHop, protoDestOpts, protoMobility:
			if len(b) < 8 || 8+int(b[1])*8 > min(len(b), n) {
				return opaque("an IPv6 extension header")
			}
			if size += int(b[1]) * 8; c.proto == protoDestOpts {
				if err := r.homeAddress(b[2:size]); err != nil {
					return err
				}
			}
		case protoRouting: // lists addresses, one of which the checksum counts
			return opaque("an IPv6 routing header")
		case protoFragment:
			if len(b) < 8 {
				return opaque("an IPv6 fragment header")
			}
			if frag := be16(b[2:]); frag&0xfff9 != 0 {
				c.whole, c.first = false, frag&0xfff8 == 0
			}
		default:
			c.length = n
			return r.transport(c, b)
		}
		c.proto, b, n = b[0], b[size:], n-size
		if !c.first {
			c.length = n
			return r.transport(c, b)
		}
	}
	return opaque("an IPv6 header chain")
}

// homeAddress maps the option of RFC 6275 section 6.3.
func (r *Rewriter) homeAddress(o []byte) error {
	for len(o) >= 2 {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		k := 2 + int(o[1])
		if k > len(o) {
			return opaque("an IPv6 option")
		}
		if o[0] == 0xc9 && k == 18 {
			r.swap(o[2:18], 0)
		}
		o = o[k:]
	}
	return nil
}

// transport maps the addresses of the IP header and rewrites what it carries;
// b is what was captured of c.length bytes.
func (r *Rewriter) transport(c carried, b []byte) error {
	at := -1 // of the checksum
	pseudo := false
	var ports [2]uint16
	switch c.proto {
	case dissect.ProtoTCP:
		at, pseudo = 16, true
	case dissect.ProtoUDP:
		at, pseudo = 6, true
	case dissect.ProtoICMP:
		at = 2
	case dissect.ProtoICMPv6:
		at, pseudo = 2, true
	}
	has := c.first && (c.proto == dissect.ProtoTCP || c.proto == dissect.ProtoUDP) && len(b) >= 4
	if has {
		ports = [2]uint16{be16(b), be16(b[2:])}
	}
	before := sum(b)
	if pseudo {
		before += sum(c.src) + sum(c.dst)
	}
	src, newSrc := r.swap(c.src, ports[0])
	dst, newDst := r.swap(c.dst, ports[1])
	if has {
		put16(b, newSrc.Port)
		put16(b[2:], newDst.Port)
	}
	var err error
	if c.first {
		err = r.content(c, b, src, dst)
	} else if r.Rest != nil {
		r.Rest(b)
	}
	if err != nil || at < 0 || !c.first || len(b) < at+2 {
		return err
	}
	sumAt := b[at : at+2]
	if c.proto == dissect.ProtoUDP && be16(sumAt) == 0 {
		return nil // none was sent (RFC 768)
	}
	after := sum(b)
	if pseudo {
		after += sum(c.src) + sum(c.dst)
	}
	if c.whole && !c.quoted {
		put16(sumAt, 0)
		total := sum(b)
		if pseudo {
			total += sum(c.src) + sum(c.dst) + uint64(c.proto) + uint64(len(b))
		}
		put16(sumAt, ^fold16(total))
	} else {
		carry(sumAt, before, after)
	}
	if c.proto == dissect.ProtoUDP && be16(sumAt) == 0 {
		put16(sumAt, 0xffff)
	}
	return nil
}

// content follows what a transport carries; src and dst are as they were.
func (r *Rewriter) content(c carried, b []byte, src, dst dissect.Endpoint) error {
	switch c.proto {
	case dissect.ProtoTCP:
		if len(b) >= 20 {
			if head := int(b[12]>>4) * 4; head >= 20 && head <= len(b) {
				withoutAddresses(b[20:head])
				r.inner(c, b[4:8], b[13], b[head:], src, dst)
			}
		}
		return nil
	case dissect.ProtoUDP:
		if len(b) < 8 {
			return nil
		}
		size := int(be16(b[4:]))
		if size < 8 || size > len(b) {
			size = len(b)
		}
		if tunnelled, err := r.udpTunnel(b[8:size], src.Port, dst.Port); tunnelled {
			return err
		}
		r.inner(c, nil, 0, b[8:size], src, dst)
		return nil
	case dissect.ProtoICMP:
		if len(b) < 8 {
			return nil
		}
		switch b[0] {
		case 3, 4, 11, 12:
			return r.quote(b[8:])
		case 5: // the gateway
			r.swap(b[4:8], 0)
			return r.quote(b[8:])
		case 0, 8, 13, 14, 17, 18:
			return nil
		}
		return fmt.Errorf("ICMP type %d %w", b[0], ErrOpaque)
	case dissect.ProtoICMPv6:
		return r.icmp6(b)
	case protoIPIP:
		return r.ipv4(b, c.quoted)
	case proto6in4:
		return r.ipv6(b, c.quoted)
	case protoGRE:
		return r.gre(b)
	case protoAH:
		return opaque("an authentication header, whose proof would not hold,")
	}
	return fmt.Errorf("IP protocol %d %w", c.proto, ErrOpaque)
}

// withoutAddresses turns the TCP option that announces further addresses
// (multipath TCP, RFC 8684 section 3.4.1) into no operations.
func withoutAddresses(o []byte) {
	for len(o) >= 2 && o[0] != 0 {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			return
		}
		if o[0] == 30 && n > 2 && o[2]>>4 == 3 {
			for i := range o[:n] {
				o[i] = 1
			}
		}
		o = o[n:]
	}
}

// inner hands the payload of the innermost transport to Payload.
func (r *Rewriter) inner(c carried, seq []byte, flags uint8, payload []byte, src, dst dissect.Endpoint) {
	if r.Payload == nil || len(payload) == 0 && flags&dissect.SYN == 0 {
		return
	}
	r.d = dissect.Datagram{Class: dissect.ClassTCP, Proto: c.proto, Flags: flags, Src: src.Addr, Dst: dst.Addr, SrcPort: src.Port, DstPort: dst.Port,
		First: !c.whole, Cut: !c.whole, Payload: payload, PayloadLen: len(payload)}
	if c.proto == dissect.ProtoUDP {
		r.d.Class = dissect.ClassUDP
	} else {
		r.d.Seq = be32(seq)
	}
	r.Payload(&r.d)
}

func (r *Rewriter) icmp6(b []byte) error {
	if len(b) < 8 {
		return nil
	}
	var options []byte
	switch t := b[0]; {
	case t < 128:
		return r.quote(b[8:])
	case t == 128 || t == 129: // echo
		return nil
	case t == 133: // neighbour discovery, RFC 4861 section 4
		options = b[8:]
	case t == 134 && len(b) >= 16:
		options = b[16:]
	case (t == 135 || t == 136) && len(b) >= 24:
		r.swap(b[8:24], 0)
		options = b[24:]
	case t == 137 && len(b) >= 40:
		r.swap(b[8:24], 0)
		r.swap(b[24:40], 0)
		options = b[40:]
	default:
		return fmt.Errorf("ICMPv6 type %d %w", t, ErrOpaque)
	}
	for len(options) >= 8 {
		n := int(options[1]) * 8
		if n == 0 || n > len(options) {
			return opaque("an option of neighbour discovery")
		}
		switch kind := options[0]; {
		case (kind == 1 || kind == 2) && n == 8:
			r.mac(options[2:8])
		case kind == 3 && n == 32: // prefix
			r.swap(options[16:32], 0)
		case kind == 4: // what a redirect quotes
			if err := r.quote(options[8:n]); err != nil {
				return err
			}
		case kind == 24 && n == 24: // route, RFC 4191
			r.swap(options[8:24], 0)
		case kind == 25 && n >= 24 && n%16 == 8: // name servers, RFC 8106
			for at := 8; at < n; at += 16 {
				r.swap(options[at:at+16], 0)
			}
		case kind == 5, kind == 14, kind == 24 && n == 8, kind == 31: // MTU, nonce, default route, search list
		default:
			return fmt.Errorf("option %d of neighbour discovery %w", kind, ErrOpaque)
		}
		options = options[n:]
	}
	return nil
}

// quote rewrites what an ICMP error quotes, as far as it goes. Its checksums are
// carried on: the quotation is rarely whole, and need not be.
func (r *Rewriter) quote(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if b[0]>>4 == 6 {
		return r.ipv6(b, true)
	}
	return r.ipv4(b, true)
}

// udpTunnel follows a tunnel over UDP; false where the content is none.
func (r *Rewriter) udpTunnel(b []byte, src, dst uint16) (bool, error) {
	port := dst
	if !tunnelPort(port) {
		if port = src; port != portTeredo && port != portGTPU {
			return false, nil
		}
	}
	switch port {
	case portVXLAN, portVXLANOld, portVXLANGPE:
		if len(b) < 8 || b[0]&0x08 == 0 {
			return false, nil
		}
		if port == portVXLANGPE && b[0]&0x04 != 0 && b[3] != 3 {
			return true, r.ip(b[8:])
		}
		return true, r.ethernet(b[8:])
	case portGRE:
		if len(b) < 4 || be16(b)&0x4fff != 0 {
			return false, nil
		}
		return true, r.gre(b)
	case portGENEVE:
		head := 8
		if len(b) > 0 {
			head += int(b[0]&0x3f) * 4
		}
		if len(b) < head || b[0]>>6 != 0 {
			return false, nil
		}
		return true, r.payload(be16(b[2:]), b[head:])
	case portGTPU:
		head, ok := gtpHeader(b)
		if !ok {
			return false, nil
		}
		return true, r.ip(b[head:])
	}
	inside, ok := teredo(b)
	if !ok {
		return false, nil
	}
	if head := b[:len(b)-len(inside)]; len(head) >= 8 {
		clear(head[len(head)-8:]) // the origin indication holds an address and port, obfuscated
	}
	return true, r.ipv6(inside, false)
}

func (r *Rewriter) gre(b []byte) error {
	if len(b) < 4 {
		return opaque("a GRE header")
	}
	flags, kind := be16(b), be16(b[2:])
	if flags&0xc000 != 0 {
		return opaque("GRE with a checksum or routing")
	}
	n := 4
	if flags&0x2000 != 0 {
		n += 4
	}
	sequence := flags&0x1000 != 0
	if sequence {
		n += 4
	}
	if flags&7 == 1 && flags&0x0080 != 0 {
		n += 4
	}
	switch {
	case kind == typeERSPAN && sequence:
		n += 8
	case kind == typeERSPAN3:
		if n += 12; len(b) >= n && b[n-1]&1 != 0 {
			n += 8
		}
	}
	if len(b) < n {
		return opaque("a GRE header")
	}
	b = b[n:]
	switch {
	case flags&7 == 1 && kind == typeEoIP:
		return r.ethernet(b)
	case flags&7 == 1:
		if kind != 0x880b {
			return opaque("GRE version 1")
		}
		if len(b) == 0 { // an acknowledgement
			return nil
		}
		if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
			b = b[2:]
		}
		return r.ppp(b)
	case kind == typeERSPAN || kind == typeERSPAN3:
		return r.ethernet(b)
	}
	return r.payload(kind, b)
}

func put16(b []byte, v uint16) { binary.BigEndian.PutUint16(b, v) }

// sum adds up the 16-bit words of b, an odd last byte padded by zero: RFC 1071.
func sum(b []byte) (s uint64) {
	for len(b) >= 4 {
		s += uint64(be32(b)>>16) + uint64(be32(b)&0xffff)
		b = b[4:]
	}
	if len(b) >= 2 {
		s += uint64(be16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold16(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// carry brings a checksum from a content whose sum was before to one whose sum
// is after: RFC 1624, equation 3. Both sums include the checksum as it stands.
func carry(at []byte, before, after uint64) {
	change := uint64(fold16(after)) + uint64(^fold16(before))
	put16(at, ^fold16(uint64(^be16(at))+change))
}
