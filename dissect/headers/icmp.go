package headers

import "squall/dissect"

// icmp reads RFC 792; only errors matter here.
func (dec *Decoder) icmp(b []byte, d *dissect.Datagram) {
	if len(b) < 2 {
		dec.short(d)
		return
	}
	d.ICMPType, d.ICMPCode = b[0], b[1]
	switch b[0] {
	case 3, 4, 5, 11, 12: // unreachable, quench, redirect, time exceeded, parameter problem
	default:
		return
	}
	d.Class = dissect.ClassICMPError
	if len(b) > 8 {
		quote(b[8:], &d.Quoted)
	}
}

// icmp6 reads RFC 4443; types below 128 are errors.
func (dec *Decoder) icmp6(b []byte, d *dissect.Datagram) {
	if len(b) < 2 {
		dec.short(d)
		return
	}
	d.ICMPType, d.ICMPCode = b[0], b[1]
	if b[0] == 0 || b[0] >= 128 {
		return
	}
	d.Class = dissect.ClassICMPError
	if len(b) > 8 {
		quote(b[8:], &d.Quoted)
	}
}

// quote reads the packet that an error quotes, as far as it was quoted and
// captured. Proto 0 in the result says that the ports are not known.
func quote(b []byte, q *dissect.Quoted) {
	for range maxDepth {
		if len(b) < 20 {
			return
		}
		var proto uint8
		switch b[0] >> 4 {
		case 4:
			head := int(b[0]&15) * 4
			if head < 20 {
				return
			}
			q.Src, q.Dst = dissect.Addr4(b[12:]), dissect.Addr4(b[16:])
			if head > len(b) || be16(b[6:])&0x1fff != 0 { // not the first fragment
				return
			}
			proto, b = b[9], b[head:]
		case 6:
			if len(b) < 40 {
				return
			}
			q.Src, q.Dst = dissect.Addr(b[8:24]), dissect.Addr(b[24:40])
			proto, b = b[6], b[40:]
			for proto == protoHopByHop || proto == protoRouting || proto == protoDestOpts || proto == protoFragment {
				if len(b) < 8 || proto == protoFragment && be16(b[2:])&0xfff8 != 0 {
					return
				}
				size := 8
				if proto != protoFragment {
					size += int(b[1]) * 8
				}
				if size > len(b) {
					return
				}
				proto, b = b[0], b[size:]
			}
		default:
			return
		}
		switch proto {
		case protoIPIP, proto6in4:
			continue // the inner packet is the one that failed
		case dissect.ProtoTCP, dissect.ProtoUDP:
			if len(b) < 4 {
				return
			}
			q.Proto, q.SrcPort, q.DstPort = proto, be16(b), be16(b[2:])
			if proto == dissect.ProtoTCP && len(b) >= 8 {
				q.HasSeq, q.Seq = true, be32(b[4:])
			}
			if proto == dissect.ProtoUDP && len(b) > 8 {
				q.Payload = b[8:]
			}
		}
		return
	}
}
