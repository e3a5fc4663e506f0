package attempt

import (
	"slices"

	"squall/dissect"
)

// asker asks the protocols of a transport about the first bytes of a flow. The
// gates that a first byte may pass lie side by side, so that a stranger costs a
// nanosecond for each of a few, and no call.
type asker struct {
	protocols []dissect.Protocol // nil at those of other transports
	first     [257][]gate        // by first byte; the last is that of an empty payload
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
	for i := range a.first {
		for j := range i {
			if slices.Equal(a.first[i], a.first[j]) {
				a.first[i] = a.first[j]
				break
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
		a.first[emptyPayload] = append(a.first[emptyPayload], c)
	}
	c.least = max(c.least, 1)
	if g.Starts == "" {
		for b := range emptyPayload {
			a.first[b] = append(a.first[b], c)
		}
		return
	}
	var done [emptyPayload]bool
	for _, b := range []byte(g.Starts) {
		if !done[b] {
			done[b] = true
			a.first[b] = append(a.first[b], c)
		}
	}
}

// probe gives the first protocol that is sure, else the first that may be right.
func (a *asker) probe(d *dissect.Datagram) int16 {
	b := d.Payload
	list := a.first[emptyPayload]
	if len(b) > 0 {
		list = a.first[b[0]]
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
			return asked
		case dissect.Maybe:
			if best == unknown {
				best = asked
			}
		}
	}
	return best
}
