package taps

import "squall/dissect"

// printLeast is the payload, bytes, that tells one datagram from another.
const printLeast = 12

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
	h := dissect.Fold(uint64(d.Proto)<<32|uint64(d.IPID)<<16|uint64(d.Flags), uint64(d.Seq)<<32|uint64(d.Ack))
	h = dissect.Fold(h, uint64(d.Window)<<32|uint64(uint32(d.PayloadLen)))
	if d.HasTS {
		h = dissect.Fold(h, uint64(d.TSVal)<<32|uint64(d.TSEcr))
	}
	if d.Class == dissect.ClassUDP && d.IPID == 0 {
		// Nothing but the payload is left, and one may go to many nodes.
		h = dissect.FoldBytes(dissect.FoldBytes(h, d.Src[:]), d.Dst[:])
		h = dissect.Fold(h, uint64(d.SrcPort)<<16|uint64(d.DstPort))
	}
	return dissect.Mix64(d.FoldPayload(h)) | 1
}
