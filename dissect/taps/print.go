package taps

import (
	"encoding/binary"

	"squall/dissect"
)

const (
	// printBytes is how much of either end of a payload goes into a print.
	printBytes = 64
	// printLeast is the payload that tells one datagram from another.
	printLeast = 12
)

func fold(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func foldBytes(h uint64, b []byte) uint64 {
	for len(b) >= 8 {
		h = fold(h, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	for _, c := range b {
		h = fold(h, uint64(c))
	}
	return h
}

// print is a hash of what a packet keeps on its way: sequence numbers,
// timestamps, IP identification, payload; not its TTL, tunnels, VLAN, addresses
// and ports, which routers, mirrors and NAT change. 0 = nothing tells this packet
// from others. A truncated payload gives another print than a whole one.
func print(d *dissect.Datagram) uint64 {
	switch d.Class {
	case dissect.ClassTCP:
		if d.PayloadLen == 0 && d.Flags&(dissect.SYN|dissect.FIN|dissect.RST) == 0 {
			return 0 // equal acknowledgements are legal
		}
		if d.Flags&dissect.RST != 0 && d.Seq == 0 && d.Ack == 0 {
			return 0
		}
	case dissect.ClassUDP:
		if len(d.Payload) < printLeast || d.First {
			return 0
		}
	default:
		return 0
	}
	h := fold(uint64(d.Proto)<<32|uint64(d.IPID)<<16|uint64(d.Flags), uint64(d.Seq)<<32|uint64(d.Ack))
	h = fold(h, uint64(d.Window)<<32|uint64(uint32(d.PayloadLen)))
	if d.HasTS {
		h = fold(h, uint64(d.TSVal)<<32|uint64(d.TSEcr))
	}
	if d.Class == dissect.ClassUDP && d.IPID == 0 {
		// Nothing but the payload is left, and one may go to many nodes.
		h = foldBytes(foldBytes(h, d.Src[:]), d.Dst[:])
		h = fold(h, uint64(d.SrcPort)<<16|uint64(d.DstPort))
	}
	p := d.Payload
	if len(p) > 2*printBytes {
		h = foldBytes(h, p[len(p)-printBytes:])
		p = p[:printBytes]
	}
	return dissect.Mix64(foldBytes(h, p)) | 1
}
