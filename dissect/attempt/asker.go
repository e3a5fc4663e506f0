package attempt

import (
	"slices"
	"strings"

	"squall/dissect"
)

// asker asks the protocols of a transport about the first bytes of a flow. The
// gates that a first byte may pass lie side by side, so that a stranger costs a
// nanosecond for each of a few, and no call.
type asker struct {
	protocols []dissect.Protocol // nil at those of other transports
	// By first byte; the last is that of an empty payload. Most strangers are at
	// ports that no gate names, and meet those of anywhere alone.
	anywhere, everywhere [257][]gate
	named                [portBits / 64]uint64 // ports that gates name, by their low bits
}

const portBits = 1024

func (a *asker) names(port uint16) bool {
	port %= portBits
	return a.named[port/64]>>(port%64)&1 != 0
}

// gate is a dissect.Gate without its first bytes, made for comparing.
type gate struct {
	least, most int32
	at          int32 // below least
	mask, want  byte
	lo, hi      uint16
	proto       int16
}

const emptyPayload = 256

func newAsker(protocols []dissect.Protocol, transport dissect.Transport) *asker {
	a := &asker{}
	for i, p := range protocols {
		if p.Transports()&transport == 0 {
			continue
		}
		if a.protocols == nil {
			a.protocols = make([]dissect.Protocol, len(protocols))
		}
		a.protocols[i] = p
		gates := []dissect.Gate{{}}
		if g, ok := p.(dissect.Gated); ok {
			gates = g.Gates(transport)
		}
		for _, g := range gates {
			a.add(g, int16(i))
		}
	}
	// Most first bytes have the same gates: one copy stays in the cache.
	for _, first := range []*[257][]gate{&a.anywhere, &a.everywhere} {
		for i := range first {
			for j := range i {
				if slices.Equal(first[i], first[j]) {
					first[i] = first[j]
					break
				}
			}
		}
	}
	return a
}

func (a *asker) add(g dissect.Gate, proto int16) {
	const any = 1<<31 - 1
	c := gate{least: int32(min(g.Least, any)), most: int32(min(g.Most, any)), mask: g.Mask, want: g.Want, lo: g.LoPort, hi: g.HiPort, proto: proto}
	if c.most == 0 {
		c.most = any
	}
	if g.Mask != 0 {
		c.at = int32(g.At)
		c.least = max(c.least, c.at+1)
	}
	if c.least == 0 && g.Starts == "" {
		a.put(emptyPayload, c)
	}
	c.least = max(c.least, 1)
	firsts := c.mask != 0 && c.at == 0 // known by the first byte alone
	for b := range emptyPayload {
		if g.Starts != "" && strings.IndexByte(g.Starts, byte(b)) < 0 || firsts && byte(b)&g.Mask != g.Want {
			continue
		}
		if firsts {
			c.mask = 0
		}
		a.put(b, c)
	}
	for port := int(g.LoPort); g.HiPort != 0 && port <= int(g.HiPort); port++ {
		a.named[port%portBits/64] |= 1 << (port % 64)
	}
}

func (a *asker) put(first int, c gate) {
	if c.hi == 0 {
		a.anywhere[first] = append(a.anywhere[first], c)
	}
	a.everywhere[first] = append(a.everywhere[first], c)
}

// probe gives the first protocol that is sure, else the first that may be right.
func (a *asker) probe(d *dissect.Datagram) (proto int16, sure bool) {
	b := d.Payload
	first := emptyPayload
	if len(b) > 0 {
		first = int(b[0])
	}
	list := a.anywhere[first]
	if a.names(d.SrcPort) || a.names(d.DstPort) {
		list = a.everywhere[first]
	}
	n := int32(len(b))
	best, asked := unknown, unknown
	for i := range list {
		g := &list[i]
		if n < g.least || n > g.most || g.mask != 0 && b[g.at]&g.mask != g.want || g.proto == asked {
			continue
		}
		if g.hi != 0 && (d.DstPort < g.lo || d.DstPort > g.hi) && (d.SrcPort < g.lo || d.SrcPort > g.hi) {
			continue
		}
		asked = g.proto
		switch a.protocols[asked].Probe(d) {
		case dissect.Yes:
			return asked, true
		case dissect.Maybe:
			if best == unknown {
				best = asked
			}
		}
	}
	return best, false
}
