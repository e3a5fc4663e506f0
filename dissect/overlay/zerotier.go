package overlay

import (
	"encoding/binary"
	"errors"
	"strconv"

	"squall/dissect"
)

// zerotier is ZeroTier over UDP 9993: ZeroTierOne node/Packet.hpp;
// protocols.md H.7.
//
//	0 8 packet id | 8 5 destination | 13 5 source | 18 flags, cipher, hops FFCCCHHH | 19 8 MAC | 27 verb (low 5 bits) | 28 payload
//	HELLO (01), in clear: 28 protocol version | 29 major | 30 minor | 31 2 revision | 33 8 time | 41 identity: address 5, type 1, key 64 ...
//
// A HELLO is known by its identity, whose address is the packet's source, and its time.
// What comes back is encrypted, OK and ERROR alike: the first packet from the
// node to the address that said HELLO counts as the yes (Encrypted). HELLOs
// after it are refreshes. Roots (planet, moons) and leaves look the same, so
// the role is not told. The identity is the 40-bit address.
type zerotier struct{}

const (
	zerotierHeader = 28
	zerotierHello  = 41 + 5 + 1 + 64 // up to the end of the public key
)

var errZeroTier = errors.New("not a zerotier packet")

func (zerotier) Name() string                  { return "zerotier" }
func (zerotier) Transports() dissect.Transport { return dissect.UDP }

func (zerotier) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Least: zerotierHello, At: 27, Mask: 0x1f, Want: 1}}
}

func (zerotier) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < zerotierHello || b[27]&0x1f != 1 || b[18]>>3&7 != 0 || b[28] == 0 || b[28] > 32 {
		return dissect.No
	}
	if b[13] == 0xff || b[13] == 0 || string(b[13:18]) != string(b[41:46]) || b[46] > 1 {
		return dissect.No
	}
	// Filler of one byte passes all that: nobody writes to himself, and the time
	// is in milliseconds since 1970.
	if string(b[8:13]) == string(b[13:18]) || b[33] != 0 || b[34] != 0 {
		return dissect.No
	}
	return dissect.Yes
}

// Flow.A and Flow.B are the keys of the newest HELLO of the opener and of the
// other side, 0 = none; Flow.Flags has a bit for each that is open, and for each
// that was answered once.
func (p zerotier) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) < zerotierHeader || b[13] == 0xff { // a fragment
		return len(b), errZeroTier
	}
	m.Encrypted = true
	own, other, side := &f.A, &f.B, uint8(1)
	if !f.FromClient {
		own, other, side = other, own, 2
	}
	if p.Probe(d) == dissect.Yes {
		*own = hashKey(0, b[:8])
		m.Kind, m.Op, m.FromClient, m.Txn = dissect.KindRequest, "HELLO", true, *own
		if f.Flags&(side<<2) != 0 {
			m.Kind = dissect.KindRefresh
		}
		f.Flags |= side
		m.Encrypted = false
		m.ClientID = b[13:18]
		v := make([]byte, 0, 24)
		v = strconv.AppendUint(append(v, "ZeroTier "...), uint64(b[29]), 10)
		v = strconv.AppendUint(append(v, '.'), uint64(b[30]), 10)
		v = strconv.AppendUint(append(v, '.'), uint64(binary.BigEndian.Uint16(b[31:])), 10)
		m.Version = v
		return len(b), nil
	}
	if side ^= 3; f.Flags&side != 0 {
		f.Flags = f.Flags&^side | side<<2
		m.Kind, m.Op, m.FromClient, m.Txn = dissect.KindAccept, "OK", false, *other
	}
	return len(b), nil
}
