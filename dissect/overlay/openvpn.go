package overlay

import (
	"encoding/binary"
	"errors"
	"time"

	"squall/dissect"
)

// openvpn is OpenVPN over UDP and TCP (a length2 before each packet): the
// project's "Wire protocol" document (draft-openvpn-wire-protocol) and src/openvpn/ssl_pkt.h.
//
//	0 opcode<<3 | key id | 1 8 own session id | [hmac | packet id4 | time4 (tls-auth, tls-crypt)]
//	  | n1 | n*4 acknowledged ids | 8 peer's session id if n > 0 | 4 packet id | payload
//	opcodes: 1 7 10 HARD_RESET_CLIENT v1 v2 v3, 2 8 HARD_RESET_SERVER v1 v2, 3 SOFT_RESET,
//	4 CONTROL, 5 ACK, 6 9 DATA v1 v2, 11 CONTROL_WKC
//
// A client resets with a session id of its own, repeated at 2, 4, 8 ... s. The
// server's reset shows that it lives; yes is the first data packet of either
// side, for what is said between (also AUTH_FAILED) is in TLS. So a refused
// login is a stalled attempt, and a full server is silent. SOFT_RESET renews the
// keys of a session. The server is the supernode; the client is known by its
// address.
type openvpn struct{}

const (
	// openvpnMinReset is a reset without any authentication: opcode, session id, no acknowledgements, packet id.
	openvpnMinReset = 14
	// openvpnCrypt is a reset under tls-crypt: opcode, session id, packet id, time, HMAC 32, 5 encrypted.
	openvpnCrypt = 54
	// openvpnEpoch is a time before OpenVPN was, 2001-09-09: its packets are younger.
	openvpnEpoch = 1_000_000_000
	// openvpnWindow is --hand-window, after which a client gives up.
	openvpnWindow = int64(60 * time.Second)
)

var errOpenVPN = errors.New("not an openvpn packet")

func (openvpn) Name() string                  { return "openvpn" }
func (openvpn) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }

func (openvpn) Gates(transport dissect.Transport) []dissect.Gate {
	if transport == dissect.TCP {
		return []dissect.Gate{{Least: 2 + openvpnMinReset, At: 2, Mask: 0x87}}
	}
	return []dissect.Gate{{Starts: "\x08\x10\x38\x40\x50", Least: openvpnMinReset}}
}

func (openvpn) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	size := d.PayloadLen
	if d.Proto == dissect.ProtoTCP {
		if len(b) < 2+openvpnMinReset {
			return dissect.No
		}
		size = int(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) < openvpnMinReset || len(b) < size || size < openvpnMinReset || binary.BigEndian.Uint64(b[1:]) == 0 {
		return dissect.No
	}
	b = b[:size]
	switch b[0] {
	case 1 << 3, 7 << 3:
		// The last number is the packet id, and no acknowledgement is before it.
		last := binary.BigEndian.Uint32(b[size-4:])
		switch {
		case size == openvpnMinReset && last == 0 && b[9] == 0:
			return dissect.Yes
		case openvpnAuth(size-openvpnMinReset) && last == 0 && b[size-5] == 0 &&
			binary.BigEndian.Uint32(b[size-13:]) == 1 && binary.BigEndian.Uint32(b[size-9:]) > openvpnEpoch:
			return dissect.Yes // tls-auth: HMAC, packet id 1, time
		case b[0] == 7<<3 && size == openvpnCrypt && binary.BigEndian.Uint32(b[9:]) == 1:
			return dissect.Yes // tls-crypt: packet id, time, HMAC, the rest encrypted
		}
	case 10 << 3:
		// tls-crypt-v2: the wrapped client key is the rest, its length stands at the end.
		id := binary.BigEndian.Uint32(b[9:])
		if size > openvpnCrypt && int(binary.BigEndian.Uint16(b[size-2:])) == size-openvpnCrypt && uint16(id) == 1 {
			// The upper half says that the client can be told to come again (early negotiation).
			return dissect.Yes
		}
	case 2 << 3, 8 << 3:
		// The answer alone: it acknowledges packet 0 of a session.
		if size == openvpnMinReset+12 && b[9] == 1 && binary.BigEndian.Uint32(b[10:]) == 0 && binary.BigEndian.Uint32(b[22:]) == 0 {
			return dissect.Yes
		}
	}
	return dissect.No
}

// openvpnAuth reports whether a reset may be longer by that much: the HMAC of
// tls-auth (MD5 to SHA-512) with packet id and time.
func openvpnAuth(more int) bool {
	switch more - 8 {
	case 16, 20, 28, 32, 48, 64:
		return true
	}
	return false
}

// Flow.B is the key of the session being set up, Flow.Step the opcode of the
// newest reset; Flow.A counts bodies over TCP.
func (openvpn) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	n := len(b)
	if d.Proto == dissect.ProtoTCP {
		if n := takeBody(f, len(b)); n > 0 {
			return n, nil
		}
		if len(b) < 2+9 {
			return 0, dissect.ErrShort
		}
		size := int(binary.BigEndian.Uint16(b))
		if size < 9 {
			return 0, errOpenVPN
		}
		n = leaveBody(f, uint64(2+size), len(b))
		b = b[2:n]
	}
	if len(b) < 9 {
		return n, errOpenVPN
	}
	m.Role = dissect.RoleSupernode
	m.Timeout = openvpnWindow
	switch op := b[0] >> 3; op {
	case 1, 7, 10:
		f.B = hashKey(0, b[1:9])
		m.Kind, m.Op, m.FromClient, m.Txn = dissect.KindRequest, "HARD_RESET", true, f.B
		f.Flags = 0
	case 2, 8:
		m.Kind, m.Op, m.FromClient, m.Txn = dissect.KindProgress, "HARD_RESET", false, f.B
	case 3:
		f.B = hash1(f.B)
		if f.FromClient {
			m.Kind, m.Op, m.Txn = dissect.KindRefresh, "SOFT_RESET", f.B
			f.Flags = 0
		}
	case 4, 5, 11:
		if f.Flags == 0 {
			m.Kind, m.Op, m.Txn = dissect.KindProgress, "CONTROL", f.B
		}
	case 6, 9:
		m.Encrypted = true
		if f.Flags == 0 {
			f.Flags = 1
			m.Kind, m.Op, m.Txn = dissect.KindAccept, "DATA", f.B
		}
	default:
		return n, errOpenVPN
	}
	return n, nil
}
