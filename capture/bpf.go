package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

// Ethernet types that filters name.
const (
	etherIPv4, etherARP, etherRARP, etherIPv6     = 0x0800, 0x0806, 0x8035, 0x86dd
	etherVLAN, etherQinQ, etherQinQOld, etherMPLS = 0x8100, 0x88a8, 0x9100, 0x8847
)

// passAll is what a program returns for a packet that passes.
const passAll = 262144

// CompileFilter compiles a filter to classic BPF for packets of a link type as
// they lie in files. The program passes the packets that headers.Match of the
// same expression passes; nil is a program that passes all. An error is a
// filter too large for a kernel.
func CompileFilter(e Expr, link LinkType) (*FilterProgram, error) {
	if p, ok := e.(*FilterProgram); ok {
		return p, nil
	}
	return compile(e, view{link: link})
}

// compileLive compiles for what a packet socket shows. The kernel takes the
// outermost VLAN tag out of a packet and keeps it beside, so the program is
// there twice: for packets with such a tag and for those without. Thus a filter
// means the same for a packet live and in the file that it is written to.
func compileLive(e Expr, link LinkType) (*FilterProgram, error) {
	if p, ok := e.(*FilterProgram); ok {
		return p, nil
	}
	if link == LinkRaw {
		return compile(e, view{link: link, live: true})
	}
	return compile(e, view{link: link, live: true}, view{link: link, live: true, tagged: true})
}

// view is how a program sees packets.
type view struct {
	link   LinkType // of the file
	live   bool     // at a packet socket: a cooked header is not there
	tagged bool     // the outermost tag is beside the packet
}

// step is an instruction whose jumps are labels.
type step struct {
	op         uint16
	k          uint32
	yes, no    int  // labels of a conditional jump; yes alone of an unconditional one
	jump, cond bool // which of the two it is
	far        bool // its targets are out of reach: it jumps by two others
}

type compiler struct {
	view
	steps  []step
	labels []int // place of each among steps, -1 = not yet
	mem    uint32
	err    error
}

func compile(e Expr, views ...view) (*FilterProgram, error) {
	c := &compiler{}
	pass, fail := c.label(), c.label()
	for i, v := range views {
		c.view = v
		next := -1
		if i+1 < len(views) { // the last one is for packets with a tag
			next = c.label()
			mine := c.label()
			c.extension(adTagPresent)
			c.test(jumpEq, 0, mine, next)
			c.place(mine)
		}
		if e == nil {
			c.goTo(pass)
		} else {
			c.expression(e, pass, fail)
		}
		if next >= 0 {
			c.place(next)
		}
	}
	c.place(pass)
	c.emit(opReturn, passAll)
	c.place(fail)
	c.emit(opReturn, 0)
	if c.err != nil {
		return nil, c.err
	}
	return c.assemble()
}

// What the kernel knows beside the bytes: linux/filter.h, SKF_AD_*.
const (
	adProtocol   = 0
	adType       = 4
	adTag        = 44
	adTagPresent = 48
	adTagType    = 60

	packetOutgoing = 4 // PACKET_OUTGOING of linux/if_packet.h
)

func (c *compiler) label() int {
	c.labels = append(c.labels, -1)
	return len(c.labels) - 1
}

func (c *compiler) place(l int) { c.labels[l] = len(c.steps) }

func (c *compiler) emit(op uint16, k uint32) { c.steps = append(c.steps, step{op: op, k: k}) }

func (c *compiler) goTo(l int) { c.steps = append(c.steps, step{op: opJump, yes: l, jump: true}) }

// test compares A with k.
func (c *compiler) test(op uint16, k uint32, yes, no int) {
	c.steps = append(c.steps, step{op: opJumpIf | op, k: k, yes: yes, no: no, cond: true})
}

func (c *compiler) extension(ad uint32) { c.emit(opLoadAbs, extensions+ad) }

// assemble resolves the labels. All jumps go forward; one beyond the reach of
// a byte is made by way of an unconditional one behind it.
func (c *compiler) assemble() (*FilterProgram, error) {
	at := make([]int, len(c.steps)+1)
	for again := true; again; {
		again = false
		n := 0
		for i := range c.steps {
			at[i] = n
			n++
			if c.steps[i].far {
				n += 2
			}
		}
		at[len(c.steps)] = n
		for i := range c.steps {
			s := &c.steps[i]
			if s.cond && !s.far && max(at[c.labels[s.yes]], at[c.labels[s.no]])-at[i]-1 > 255 {
				s.far, again = true, true
			}
		}
	}
	if n := at[len(c.steps)]; n > maxProgram {
		return nil, fmt.Errorf("filter: it takes %d instructions, the kernel runs up to %d", n, maxProgram)
	}
	p := &FilterProgram{}
	for i, s := range c.steps {
		r := bpf.RawInstruction{Op: s.op, K: s.k}
		switch {
		case s.jump:
			r.K = uint32(at[c.labels[s.yes]] - at[i] - 1)
		case s.far:
			r.Jf = 1
			p.Code = append(p.Code, r, bpf.RawInstruction{Op: opJump, K: uint32(at[c.labels[s.yes]] - at[i] - 2)})
			r = bpf.RawInstruction{Op: opJump, K: uint32(at[c.labels[s.no]] - at[i] - 3)}
		case s.cond:
			r.Jt, r.Jf = uint8(at[c.labels[s.yes]]-at[i]-1), uint8(at[c.labels[s.no]]-at[i]-1)
		}
		p.Code = append(p.Code, r)
	}
	return p, nil
}

func sizeOf(n int) uint16 {
	switch n {
	case 1:
		return sizeByte
	case 2:
		return sizeHalf
	}
	return sizeWord
}

// split says which bytes of the file's packet are not in the program's view:
// from begin to end they are elsewhere, those behind are nearer by end - begin.
func (c *compiler) split() (begin, end uint32) {
	switch {
	case !c.live:
	case c.link == LinkLinuxSLL2 && c.tagged:
		return 0, 24
	case c.link == LinkLinuxSLL2:
		return 0, 20
	case c.tagged:
		return 12, 16
	}
	return 0, 0
}

// load takes n bytes at an offset of the file's packet into A.
func (c *compiler) load(at uint32, n int) {
	begin, end := c.split()
	switch {
	case uint64(at)+uint64(n) > 1<<31: // never there, and no extension
		c.emit(opReturn, 0)
	case begin == end || at+uint32(n) <= begin:
		c.emit(opLoadAbs|sizeOf(n), at)
	case at >= end:
		c.emit(opLoadAbs|sizeOf(n), at-(end-begin))
	default:
		c.beside(at, n)
	}
}

// beside takes bytes that the kernel keeps beside the packet, whole or one by one.
func (c *compiler) beside(at uint32, n int) {
	ether := uint32(0) // where the type of the outermost header stands
	if c.link == LinkEthernet {
		ether = 12
	}
	field := func(at uint32) (ad uint32, ok bool) {
		switch {
		case at == ether && c.tagged:
			return adTagType, true
		case at == ether, c.tagged && c.link == LinkLinuxSLL2 && at == 22:
			return adProtocol, true
		case c.tagged && (at == 14 && c.link == LinkEthernet || at == 20 && c.link == LinkLinuxSLL2):
			return adTag, true
		}
		return 0, false
	}
	if ad, ok := field(at); ok && n == 2 {
		c.extension(ad)
		return
	}
	if c.link == LinkLinuxSLL2 && at < 20 {
		c.err = fmt.Errorf("filter: the bytes of the cooked header are not there for the kernel to filter by")
		return
	}
	sum, part := c.scratch(), c.scratch()
	c.emit(opLoadImm, 0)
	c.emit(opStore, sum)
	for i := range uint32(n) {
		if ad, ok := field((at + i) &^ 1); ok {
			c.extension(ad)
			if (at+i)&1 == 0 {
				c.emit(opALU|aluRsh, 8)
			}
			c.emit(opALU|aluAnd, 0xff)
		} else {
			c.load(at+i, 1)
		}
		c.emit(opStore, part)
		c.emit(opLoadXMem, part)
		c.emit(opLoadMem, sum)
		c.emit(opALU|aluLsh, 8)
		c.emit(opALU|aluOr|opX, 0)
		c.emit(opStore, sum)
	}
	c.mem -= 2
}

func (c *compiler) scratch() uint32 {
	if c.mem++; c.mem > scratch {
		c.err = fmt.Errorf("filter: its arithmetic is nested too deep for the kernel")
		return 0
	}
	return c.mem - 1
}

// equal goes to yes when the n bytes at an offset are v.
func (c *compiler) equal(at uint32, n int, v uint32, yes, no int) {
	c.load(at, n)
	c.test(jumpEq, v, yes, no)
}

func (c *compiler) expression(e Expr, yes, no int) {
	switch e := e.(type) {
	case *FilterAnd:
		mid := c.label()
		c.expression(e.L, mid, no)
		c.place(mid)
		c.expression(e.R, yes, no)
	case *FilterOr:
		mid := c.label()
		c.expression(e.L, yes, mid)
		c.place(mid)
		c.expression(e.R, yes, no)
	case *FilterNot:
		c.expression(e.X, no, yes)
	case *FilterTest:
		c.primitive(e, yes, no)
	case *FilterRelation:
		c.relation(e, yes, no)
	}
}

// network is the offset of the network header in the file's packet.
func (c *compiler) network(d FilterDepth) uint32 {
	n := uint32(4 * (d.VLANs + d.Labels))
	switch c.link {
	case LinkEthernet:
		return n + 14
	case LinkLinuxSLL:
		return n + 16
	case LinkLinuxSLL2:
		return n + 20
	case LinkNull, LinkLoop, LinkCHDLC, LinkPPP, LinkPPPHDLC:
		return n + 4
	}
	return n
}

// etherType tests the type of what follows the link header and its tags.
func (c *compiler) etherType(d FilterDepth, want uint32, yes, no int) {
	tags := uint32(4 * d.VLANs)
	switch {
	case c.link == LinkEthernet:
		c.equal(12+tags, 2, want, yes, no)
		return
	case c.link == LinkLinuxSLL:
		c.equal(14+tags, 2, want, yes, no)
		return
	case c.link == LinkLinuxSLL2 && d.VLANs > 0:
		c.equal(18+tags, 2, want, yes, no)
		return
	case c.link == LinkLinuxSLL2:
		c.equal(0, 2, want, yes, no)
		return
	case d.VLANs > 0:
		c.goTo(no)
		return
	}
	switch c.link {
	case LinkCHDLC:
		c.equal(2, 2, want, yes, no)
		return
	case LinkPPP, LinkPPPHDLC:
		switch want {
		case etherIPv4:
			want = 0x21
		case etherIPv6:
			want = 0x57
		case etherMPLS:
			want = 0x281
		}
		c.equal(2, 2, want, yes, no)
		return
	case LinkRaw, 12, 14:
		version := map[uint32]uint32{etherIPv4: 4, etherIPv6: 6}[want]
		c.load(0, 1)
		c.emit(opALU|aluRsh, 4)
		if version != 0 {
			c.test(jumpEq, version, yes, no)
			return
		}
	case LinkIPv4:
		if want == etherIPv4 {
			c.goTo(yes)
			return
		}
	case LinkIPv6:
		if want == etherIPv6 {
			c.goTo(yes)
			return
		}
	case LinkNull, LinkLoop:
		same, ready := c.label(), c.label()
		swap := c.label()
		c.load(0, 4)
		c.test(jumpGt, 0xffff, swap, same)
		c.place(swap) // the byte order of the machine that wrote it
		m := c.scratch()
		c.emit(opStore, m)
		c.emit(opALU|aluRsh, 24)
		c.emit(opToX, 0)
		c.emit(opLoadMem, m)
		c.emit(opALU|aluRsh, 8)
		c.emit(opALU|aluAnd, 0xff00)
		c.emit(opALU|aluOr|opX, 0)
		c.mem--
		c.goTo(ready)
		c.place(same)
		c.place(ready)
		var families []uint32
		switch want {
		case etherIPv4:
			families = []uint32{2}
		case etherIPv6:
			families = []uint32{10, 24, 28, 30}
		}
		for _, f := range families {
			next := c.label()
			c.test(jumpEq, f, yes, next)
			c.place(next)
		}
	}
	c.goTo(no)
}

func (c *compiler) isIP(d FilterDepth, version uint32, yes, no int) {
	if d.Labels == 0 {
		if version == 4 {
			c.etherType(d, etherIPv4, yes, no)
		} else {
			c.etherType(d, etherIPv6, yes, no)
		}
		return
	}
	n := c.network(d)
	last := c.label()
	c.load(n-2, 1)
	c.test(jumpSet, 1, last, no)
	c.place(last)
	c.load(n, 1)
	c.emit(opALU|aluRsh, 4)
	c.test(jumpEq, version, yes, no)
}

func (c *compiler) carries4(d FilterDepth, proto uint32, yes, no int) {
	ip := c.label()
	c.isIP(d, 4, ip, no)
	c.place(ip)
	c.equal(c.network(d)+9, 1, proto, yes, no)
}

func (c *compiler) carries6(d FilterDepth, proto uint32, yes, no int) {
	ip, other, fragment := c.label(), c.label(), c.label()
	n := c.network(d)
	c.isIP(d, 6, ip, no)
	c.place(ip)
	c.equal(n+6, 1, proto, yes, other)
	c.place(other)
	c.test(jumpEq, 44, fragment, no)
	c.place(fragment)
	c.equal(n+40, 1, proto, yes, no)
}

func (c *compiler) carries(d FilterDepth, proto uint32, yes, no int) {
	not4 := c.label()
	c.carries4(d, proto, yes, not4)
	c.place(not4)
	c.carries6(d, proto, yes, no)
}

func (c *compiler) proto(d FilterDepth, name string, yes, no int) {
	switch name {
	case "ether":
		if c.link == LinkEthernet {
			c.goTo(yes)
		} else {
			c.goTo(no)
		}
	case "ip":
		c.isIP(d, 4, yes, no)
	case "ip6":
		c.isIP(d, 6, yes, no)
	case "arp", "rarp":
		if d.Labels > 0 {
			c.goTo(no)
			return
		}
		c.etherType(d, map[string]uint32{"arp": etherARP, "rarp": etherRARP}[name], yes, no)
	case "icmp", "igmp":
		c.carries4(d, ipProtocols[name], yes, no)
	case "icmp6":
		c.carries6(d, ipProtocols[name], yes, no)
	default:
		c.carries(d, ipProtocols[name], yes, no)
	}
}

func (c *compiler) primitive(t *FilterTest, yes, no int) {
	d := t.Depth
	switch t.Kind {
	case FilterProto:
		c.proto(d, t.Proto, yes, no)
	case FilterIPProto:
		switch t.Proto {
		case "ip":
			c.carries4(d, t.Number, yes, no)
		case "ip6":
			c.carries6(d, t.Number, yes, no)
		default:
			c.carries(d, t.Number, yes, no)
		}
	case FilterHost:
		c.host(t, yes, no)
	case FilterPort:
		c.port(t, yes, no)
	case FilterVLAN:
		if c.link != LinkEthernet && c.link != LinkLinuxSLL && c.link != LinkLinuxSLL2 {
			c.goTo(no)
			return
		}
		tag, second, third := c.label(), c.label(), c.label()
		if t.Any {
			tag = yes
		}
		c.etherType(d, etherVLAN, tag, second)
		c.place(second)
		c.test(jumpEq, etherQinQ, tag, third)
		c.place(third)
		c.test(jumpEq, etherQinQOld, tag, no)
		if !t.Any {
			c.place(tag)
			c.load(c.network(d), 2)
			c.emit(opALU|aluAnd, 0xfff)
			c.test(jumpEq, t.Number, yes, no)
		}
	case FilterEtherType:
		c.etherType(d, t.Number, yes, no)
	case FilterInbound, FilterOutbound:
		if !c.live {
			c.err = fmt.Errorf("filter: the direction is beside a packet, not in its bytes")
			return
		}
		if t.Kind == FilterInbound {
			yes, no = no, yes
		}
		c.extension(adType)
		c.test(jumpEq, packetOutgoing, yes, no)
	case FilterMPLS:
		switch c.link {
		case LinkEthernet, LinkCHDLC, LinkPPP, LinkPPPHDLC:
		default:
			c.goTo(no)
			return
		}
		n, label := c.network(d), c.label()
		if d.Labels == 0 {
			c.etherType(d, etherMPLS, label, no)
		} else { // unless the label before is the last
			c.load(n-2, 1)
			c.test(jumpSet, 1, no, label)
		}
		c.place(label)
		if t.Any {
			c.goTo(yes)
			return
		}
		c.load(n, 4)
		c.emit(opALU|aluRsh, 12)
		c.test(jumpEq, t.Number, yes, no)
	}
}

// both joins the tests of the source and the destination.
func (c *compiler) both(dir FilterDir, yes, no int, at func(dst bool, yes, no int)) {
	mid := c.label()
	switch dir {
	case FilterSrc:
		at(false, yes, no)
	case FilterDst:
		at(true, yes, no)
	case FilterBoth:
		at(false, mid, no)
		c.place(mid)
		at(true, yes, no)
	default:
		at(false, yes, mid)
		c.place(mid)
		at(true, yes, no)
	}
}

func (c *compiler) host(t *FilterTest, yes, no int) {
	n := c.network(t.Depth)
	pair := func(src, dst uint32) {
		c.both(t.Dir, yes, no, func(second bool, yes, no int) {
			at := n + src
			if second {
				at = n + dst
			}
			c.masked(at, t.Net, yes, no)
		})
	}
	found := c.label()
	if t.Net.Addr().Is6() {
		c.isIP(t.Depth, 6, found, no)
		c.place(found)
		pair(8, 24)
		return
	}
	if t.Proto == "" || t.Proto == "ip" {
		next := c.label()
		c.isIP(t.Depth, 4, found, next)
		c.place(found)
		pair(12, 16)
		c.place(next)
	}
	for _, name := range [...]string{"arp", "rarp"} {
		if t.Proto == "" || t.Proto == name {
			found, next := c.label(), c.label()
			c.proto(t.Depth, name, found, next)
			c.place(found)
			pair(14, 24)
			c.place(next)
		}
	}
	c.goTo(no)
}

// masked compares the first bits of an address, a word at a time.
func (c *compiler) masked(at uint32, net netip.Prefix, yes, no int) {
	want, bits := net.Addr().AsSlice(), net.Bits()
	for i := 0; i < len(want) && bits > 0; i += 4 {
		mask := ^uint32(0)
		if bits < 32 {
			mask <<= 32 - bits
		}
		c.load(at+uint32(i), 4)
		if mask != ^uint32(0) {
			c.emit(opALU|aluAnd, mask)
		}
		next := c.label()
		c.test(jumpEq, binary.BigEndian.Uint32(want[i:])&mask, next, no)
		c.place(next)
		bits -= 32
	}
	c.goTo(yes)
}

func (c *compiler) port(t *FilterTest, yes, no int) {
	n := c.network(t.Depth)
	protos := []uint32{132, 6, 17}
	if t.Proto != "" {
		protos = []uint32{ipProtocols[t.Proto]}
	}
	named := func(at uint32, yes, no int) {
		c.load(at, 1)
		for _, p := range protos {
			next := c.label()
			c.test(jumpEq, p, yes, next)
			c.place(next)
		}
		c.goTo(no)
	}
	ports := func(load func(at uint32)) {
		c.both(t.Dir, yes, no, func(dst bool, yes, no int) {
			at := uint32(0)
			if dst {
				at = 2
			}
			load(at)
			if t.PortLow == t.PortHigh {
				c.test(jumpEq, uint32(t.PortLow), yes, no)
				return
			}
			low := c.label()
			c.test(jumpGe, uint32(t.PortLow), low, no)
			c.place(low)
			c.test(jumpGt, uint32(t.PortHigh), no, yes)
		})
	}
	six, not6, open6 := c.label(), c.label(), c.label()
	c.isIP(t.Depth, 6, six, not6)
	c.place(six)
	named(n+6, open6, no)
	c.place(open6)
	ports(func(at uint32) { c.load(n+40+at, 2) })
	c.place(not6)
	four, carried, whole := c.label(), c.label(), c.label()
	c.isIP(t.Depth, 4, four, no)
	c.place(four)
	named(n+9, carried, no)
	c.place(carried)
	c.load(n+6, 2)
	c.test(jumpSet, 0x1fff, no, whole)
	c.place(whole)
	ports(func(at uint32) {
		c.headerToX(n)
		c.loadBehindX(n+at, 2)
	})
}

// mapped is an offset of the file's packet, of a header behind what is split,
// in the program's view.
func (c *compiler) mapped(at uint32) uint32 {
	if begin, end := c.split(); at >= end {
		return at - (end - begin)
	}
	return at
}

// headerToX puts the length of the IPv4 header at an offset into X.
func (c *compiler) headerToX(at uint32) { c.emit(opLoadXHead, c.mapped(at)) }

// loadBehindX takes n bytes at an offset plus X.
func (c *compiler) loadBehindX(at uint32, n int) { c.emit(opLoadInd|sizeOf(n), c.mapped(at)) }

// present goes to no unless the headers that a number is taken from are there.
// See headers.Match for what it does not ask.
func (c *compiler) present(x *FilterNumber, no int) {
	if x == nil {
		return
	}
	c.present(x.L, no)
	if x.Op != "[]" || x.Proto == "ether" {
		return
	}
	found := c.label()
	switch x.Proto {
	case "ip", "ip6", "arp", "rarp", "icmp6":
		c.proto(x.Depth, x.Proto, found, no)
		c.place(found)
		return
	}
	ip, whole := c.label(), c.label()
	c.isIP(x.Depth, 4, ip, no)
	c.place(ip)
	c.proto(x.Depth, x.Proto, found, no)
	c.place(found)
	c.load(c.network(x.Depth)+6, 2)
	c.test(jumpSet, 0x1fff, no, whole)
	c.place(whole)
}

func (c *compiler) relation(r *FilterRelation, yes, no int) {
	c.present(r.L, no)
	c.present(r.R, no)
	var op, x uint16
	var k uint32
	if r.R.Op == "" {
		c.number(r.L)
		k = r.R.Value
	} else {
		c.operands(r.L, r.R)
		x = opX
	}
	switch r.Op {
	case "=":
		op = jumpEq
	case "!=":
		op, yes, no = jumpEq, no, yes
	case ">":
		op = jumpGt
	case ">=":
		op = jumpGe
	case "<":
		op, yes, no = jumpGe, no, yes
	case "<=":
		op, yes, no = jumpGt, no, yes
	}
	c.test(op|x, k, yes, no)
}

// operands leaves l in A and r in X.
func (c *compiler) operands(l, r *FilterNumber) {
	m := c.scratch()
	c.number(l)
	c.emit(opStore, m)
	c.number(r)
	c.emit(opToX, 0)
	c.emit(opLoadMem, m)
	c.mem--
}

// number leaves the value of x in A.
func (c *compiler) number(x *FilterNumber) {
	switch x.Op {
	case "":
		c.emit(opLoadImm, x.Value)
		return
	case "len":
		c.emit(opLoadLen, 0)
		if begin, end := c.split(); end > begin {
			c.emit(opALU|aluAdd, end-begin)
		}
		return
	case "[]":
		c.index(x)
		return
	}
	op := map[string]uint16{"+": aluAdd, "-": aluSub, "*": aluMul, "/": aluDiv, "%": aluMod, "&": aluAnd, "|": aluOr, "^": aluXor,
		"<<": aluLsh, ">>": aluRsh}[x.Op]
	shift := op == aluLsh || op == aluRsh
	if x.R.Op == "" && (!shift || x.R.Value < 32) {
		c.number(x.L)
		c.emit(opALU|op, x.R.Value)
		return
	}
	c.operands(x.L, x.R)
	if !shift {
		c.emit(opALU|op|opX, 0)
		return
	}
	// The kernel shifts by the count modulo 32; nothing is left of a number
	// that is shifted by more.
	m := c.scratch()
	far, near, done := c.label(), c.label(), c.label()
	c.emit(opStore, m)
	c.emit(opToA, 0)
	c.test(jumpGt, 31, far, near)
	c.place(near)
	c.emit(opLoadMem, m)
	c.emit(opALU|op|opX, 0)
	c.goTo(done)
	c.place(far)
	c.emit(opLoadImm, 0)
	c.place(done)
	c.mem--
}

func (c *compiler) index(x *FilterNumber) {
	n := c.network(x.Depth)
	transport := false
	switch x.Proto {
	case "ether":
		n = 0
		if c.live && c.link == LinkLinuxSLL2 {
			c.err = fmt.Errorf("filter: ether[…] has no meaning on this interface: its packets have no Ethernet header")
			return
		}
		if c.tagged && x.L.Op != "" {
			c.err = fmt.Errorf("filter: ether[…] with a computed offset is not supported live: the kernel keeps VLAN tags beside the packets")
			return
		}
	case "ip", "ip6", "arp", "rarp":
	case "icmp6":
		n += 40
	default:
		transport = true
	}
	if x.L.Op == "" {
		if transport {
			c.headerToX(n)
			c.loadBehindX(n+x.L.Value, x.Size)
			return
		}
		c.load(n+x.L.Value, x.Size)
		return
	}
	c.number(x.L)
	if transport {
		m := c.scratch()
		c.emit(opStore, m)
		c.headerToX(n)
		c.emit(opLoadMem, m)
		c.emit(opALU|aluAdd|opX, 0)
		c.mem--
	}
	c.emit(opToX, 0)
	c.loadBehindX(n, x.Size)
}
