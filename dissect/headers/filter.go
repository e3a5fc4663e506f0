package headers

import (
	"encoding/binary"

	"squall/capture"
	"squall/dissect"
)

const (
	typeARP   = 0x0806
	typeRARP  = 0x8035
	protoSCTP = 132
)

// Match says whether a packet passes a filter, with the meaning that tcpdump
// gives it: of the outermost headers, those behind VLAN tags and MPLS labels
// only where the filter says vlan or mpls. A packet too short for a byte that
// the filter looks at does not pass, not even under "not". Packets of link
// types other than Ethernet, SLL, SLL2, RAW, IPv4, IPv6, NULL, LOOP, PPP and
// C-HDLC have a length but no headers here. Match does not allocate.
func Match(e capture.Expr, p *capture.Packet) bool {
	if e == nil {
		return true
	}
	m := matcher{p: p}
	return m.expr(e) && !m.short
}

type matcher struct {
	p     *capture.Packet
	short bool // a load went beyond the packet: the answer is no
}

func (m *matcher) load(at uint32, n int) uint32 {
	b := m.p.Data
	if uint64(at)+uint64(n) > uint64(len(b)) {
		m.short = true
		return 0
	}
	switch b = b[at:]; n {
	case 1:
		return uint32(b[0])
	case 2:
		return uint32(binary.BigEndian.Uint16(b))
	}
	return binary.BigEndian.Uint32(b)
}

func (m *matcher) expr(e capture.Expr) bool {
	if m.short {
		return false
	}
	switch e := e.(type) {
	case *capture.FilterAnd:
		return m.expr(e.L) && m.expr(e.R)
	case *capture.FilterOr:
		return m.expr(e.L) || m.expr(e.R)
	case *capture.FilterNot:
		return !m.expr(e.X)
	case *capture.FilterProgram:
		return e.Run(m.p)
	case *capture.FilterTest:
		return m.test(e)
	case *capture.FilterRelation:
		// The headers of both sides must be there before a byte is compared.
		if !m.present(e.L) || !m.present(e.R) {
			return false
		}
		l, r := m.number(e.L), m.number(e.R)
		switch e.Op {
		case "=":
			return l == r
		case "!=":
			return l != r
		case "<":
			return l < r
		case "<=":
			return l <= r
		case ">":
			return l > r
		}
		return l >= r
	}
	return false
}

// network is the offset of the network header.
func (m *matcher) network(d capture.FilterDepth) uint32 {
	n := uint32(4 * (d.VLANs + d.Labels))
	switch m.p.Link {
	case capture.LinkEthernet:
		return n + 14
	case capture.LinkLinuxSLL:
		return n + 16
	case capture.LinkLinuxSLL2:
		return n + 20
	case capture.LinkNull, capture.LinkLoop, capture.LinkCHDLC, capture.LinkPPP, capture.LinkPPPHDLC:
		return n + 4
	}
	return n
}

// etherType compares the type of what follows the link header and its tags.
func (m *matcher) etherType(d capture.FilterDepth, want uint32) bool {
	switch m.p.Link {
	case capture.LinkEthernet:
		return m.load(12+4*uint32(d.VLANs), 2) == want
	case capture.LinkLinuxSLL:
		return m.load(14+4*uint32(d.VLANs), 2) == want
	case capture.LinkLinuxSLL2:
		if d.VLANs > 0 {
			return m.load(18+4*uint32(d.VLANs), 2) == want
		}
		return m.load(0, 2) == want
	}
	if d.VLANs > 0 {
		return false
	}
	switch m.p.Link {
	case capture.LinkCHDLC:
		return m.load(2, 2) == want
	case capture.LinkPPP, capture.LinkPPPHDLC: // behind address and control
		switch want {
		case typeIPv4:
			want = 0x21
		case typeIPv6:
			want = 0x57
		case typeMPLS:
			want = 0x281
		}
		return m.load(2, 2) == want
	case capture.LinkRaw, 12, 14: // 12 and 14 are what BSDs wrote
		switch v := m.load(0, 1) >> 4; want {
		case typeIPv4:
			return v == 4
		case typeIPv6:
			return v == 6
		}
	case capture.LinkIPv4:
		return want == typeIPv4
	case capture.LinkIPv6:
		return want == typeIPv6
	case capture.LinkNull, capture.LinkLoop:
		family := m.load(0, 4)
		if family > 0xffff { // NULL is in the byte order of the machine that wrote it
			family = family>>24 | family>>8&0xff00
		}
		switch family {
		case 2:
			return want == typeIPv4
		case 10, 24, 28, 30: // AF_INET6 of Linux, the BSDs and macOS
			return want == typeIPv6
		}
	}
	return false
}

// isIP says whether an IP header of a version comes next.
func (m *matcher) isIP(d capture.FilterDepth, version uint32) bool {
	if d.Labels == 0 {
		if version == 4 {
			return m.etherType(d, typeIPv4)
		}
		return m.etherType(d, typeIPv6)
	}
	n := m.network(d)
	return m.load(n-2, 1)&1 == 1 && !m.short && m.load(n, 1)>>4 == version
}

func (m *matcher) carries4(d capture.FilterDepth, proto uint32) bool {
	return m.isIP(d, 4) && m.load(m.network(d)+9, 1) == proto
}

// carries6 looks behind one fragment header, as libpcap does.
func (m *matcher) carries6(d capture.FilterDepth, proto uint32) bool {
	if !m.isIP(d, 6) {
		return false
	}
	n := m.network(d)
	next := m.load(n+6, 1)
	return next == proto || next == protoFragment && m.load(n+40, 1) == proto
}

// proto says whether the packet is of a protocol that has a name in filters.
func (m *matcher) proto(d capture.FilterDepth, name string) bool {
	switch name {
	case "ether":
		return m.p.Link == capture.LinkEthernet
	case "ip":
		return m.isIP(d, 4)
	case "ip6":
		return m.isIP(d, 6)
	case "arp":
		return d.Labels == 0 && m.etherType(d, typeARP)
	case "rarp":
		return d.Labels == 0 && m.etherType(d, typeRARP)
	case "icmp":
		return m.carries4(d, dissect.ProtoICMP)
	case "igmp":
		return m.carries4(d, 2)
	case "icmp6":
		return m.carries6(d, dissect.ProtoICMPv6)
	}
	n := ipProto(name)
	return m.carries4(d, n) || !m.short && m.carries6(d, n)
}

func ipProto(name string) uint32 {
	switch name {
	case "tcp":
		return dissect.ProtoTCP
	case "udp":
		return dissect.ProtoUDP
	case "sctp":
		return protoSCTP
	case "ah":
		return protoAH
	case "esp":
		return protoESP
	}
	return 103 // PIM
}

func (m *matcher) test(t *capture.FilterTest) bool {
	d := t.Depth
	switch t.Kind {
	case capture.FilterProto:
		return m.proto(d, t.Proto)
	case capture.FilterIPProto:
		return t.Proto != "ip6" && m.carries4(d, t.Number) || !m.short && t.Proto != "ip" && m.carries6(d, t.Number)
	case capture.FilterHost:
		return m.host(t)
	case capture.FilterPort:
		return m.port(t)
	case capture.FilterVLAN:
		if m.p.Link != capture.LinkEthernet && m.p.Link != capture.LinkLinuxSLL && m.p.Link != capture.LinkLinuxSLL2 {
			return false
		}
		tagged := m.etherType(d, typeVLAN) || m.etherType(d, typeQinQ) || m.etherType(d, typeQinQOld)
		return tagged && (t.Any || m.load(m.network(d), 2)&0xfff == t.Number)
	case capture.FilterMPLS:
		switch m.p.Link {
		case capture.LinkEthernet, capture.LinkCHDLC, capture.LinkPPP, capture.LinkPPPHDLC:
		default:
			return false
		}
		n := m.network(d)
		if d.Labels == 0 {
			if !m.etherType(d, typeMPLS) {
				return false
			}
		} else if m.load(n-2, 1)&1 == 1 { // the label before is the last
			return false
		}
		return !m.short && (t.Any || m.load(n, 4)>>12 == t.Number)
	case capture.FilterEtherType:
		return m.etherType(d, t.Number)
	case capture.FilterInbound:
		return m.p.Flags&capture.FlagDirection == capture.FlagInbound
	case capture.FilterOutbound:
		return m.p.Flags&capture.FlagDirection == capture.FlagOutbound
	}
	return false
}

// both joins the answers for the source and the destination.
func (m *matcher) both(dir capture.FilterDir, at func(dst bool) bool) bool {
	switch dir {
	case capture.FilterSrc:
		return at(false)
	case capture.FilterDst:
		return at(true)
	case capture.FilterBoth:
		return at(false) && !m.short && at(true)
	}
	return at(false) || !m.short && at(true)
}

func (m *matcher) host(t *capture.FilterTest) bool {
	n := m.network(t.Depth)
	a := t.Net.Addr()
	if a.Is6() {
		if !m.isIP(t.Depth, 6) {
			return false
		}
		want := a.As16()
		return m.both(t.Dir, func(dst bool) bool {
			at := n + 8
			if dst {
				at += 16
			}
			return m.masked(at, want[:], t.Net.Bits())
		})
	}
	want := a.As4()
	pair := func(src, dst uint32) bool {
		return m.both(t.Dir, func(second bool) bool {
			if second {
				return m.masked(n+dst, want[:], t.Net.Bits())
			}
			return m.masked(n+src, want[:], t.Net.Bits())
		})
	}
	if t.Proto == "" || t.Proto == "ip" {
		if m.isIP(t.Depth, 4) {
			return pair(12, 16)
		}
	}
	for _, name := range [...]string{"arp", "rarp"} {
		if !m.short && (t.Proto == "" || t.Proto == name) && m.proto(t.Depth, name) {
			return pair(14, 24)
		}
	}
	return false
}

// masked compares the first bits of the address at an offset, a word at a time.
func (m *matcher) masked(at uint32, want []byte, bits int) bool {
	for i := 0; i < len(want) && bits > 0; i += 4 {
		mask := ^uint32(0)
		if bits < 32 {
			mask <<= 32 - bits
		}
		if got := m.load(at+uint32(i), 4); m.short || got&mask != binary.BigEndian.Uint32(want[i:]) {
			return false
		}
		bits -= 32
	}
	return true
}

func (m *matcher) port(t *capture.FilterTest) bool {
	n := m.network(t.Depth)
	named := func(proto uint32) bool {
		if t.Proto != "" {
			return proto == ipProto(t.Proto)
		}
		return proto == protoSCTP || proto == dissect.ProtoTCP || proto == dissect.ProtoUDP
	}
	at := n + 40
	if m.isIP(t.Depth, 6) {
		if !named(m.load(n+6, 1)) {
			return false
		}
	} else {
		if m.short || !m.isIP(t.Depth, 4) || !named(m.load(n+9, 1)) || m.load(n+6, 2)&0x1fff != 0 || m.short {
			return false
		}
		at = n + 4*(m.load(n, 1)&15)
	}
	return m.both(t.Dir, func(dst bool) bool {
		v := uint16(0)
		if dst {
			v = uint16(m.load(at+2, 2))
		} else {
			v = uint16(m.load(at, 2))
		}
		return v >= t.PortLow && v <= t.PortHigh
	})
}

// present says whether the headers that a number is taken from are there; a
// transport header is in the first fragment only, and found in IPv4 only. As
// in libpcap, the right operand of an operator does not ask: where its header
// is another one, its bytes are taken all the same.
func (m *matcher) present(x *capture.FilterNumber) bool {
	if x == nil {
		return true
	}
	if m.short || !m.present(x.L) {
		return false
	}
	if x.Op != "[]" || x.Proto == "ether" {
		return true
	}
	switch x.Proto {
	case "ip", "ip6", "arp", "rarp", "icmp6":
		return m.proto(x.Depth, x.Proto)
	}
	return m.isIP(x.Depth, 4) && m.proto(x.Depth, x.Proto) && m.load(m.network(x.Depth)+6, 2)&0x1fff == 0
}

func (m *matcher) number(x *capture.FilterNumber) uint32 {
	if m.short {
		return 0
	}
	switch x.Op {
	case "":
		return x.Value
	case "len":
		return uint32(m.p.OrigLen)
	case "[]":
		at := m.number(x.L)
		n := m.network(x.Depth)
		switch x.Proto {
		case "ether":
			n = 0
		case "ip", "ip6", "arp", "rarp":
		case "icmp6":
			n += 40
		default:
			n += 4 * (m.load(n, 1) & 15)
		}
		if m.short {
			return 0
		}
		return m.load(n+at, x.Size)
	}
	l, r := m.number(x.L), m.number(x.R)
	switch x.Op {
	case "+":
		return l + r
	case "-":
		return l - r
	case "*":
		return l * r
	case "/", "%":
		if r == 0 { // in BPF this ends the program without a match
			m.short = true
			return 0
		}
		if x.Op == "/" {
			return l / r
		}
		return l % r
	case "&":
		return l & r
	case "|":
		return l | r
	case "^":
		return l ^ r
	case "<<":
		return l << r
	case ">>":
		return l >> r
	}
	return 0
}
