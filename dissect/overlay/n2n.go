package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// n2n is n2n between edges and supernodes, versions 1, 2 and 3, over UDP 7654
// and, in version 3, TCP with a length before each message: ntop/n2n
// n2n_wire.h and wire.c, protocols.md B.
//
//	v1: 0 01 | 1 type | 2 ttl | 3 from supernode | 4 16 community | 20 6 source MAC | 26 6 target MAC
//	    | 32 20 public address | 52 20 private address | 72 packet type | 73 4 sequence | 77 7 | 84 payload
//	v2: 0 02 | 1 ttl | 2 2 flags and type | 4 16 community | 20 ...
//	v3: 0 03 | 1 ttl | 2 2 flags and type | 4 20 community | 24 ...
//	REGISTER_SUPER cookie4 MAC6 ..., its ACK cookie4 MAC6 ..., its NAK cookie4 ...
//
// The types were numbered anew: 6 is yes in version 2 and good-bye in 3.
// An edge asks with REGISTER_SUPER, each time with a cookie of its own, so each
// is an attempt; the edge takes no answer to an older one. In a session it does
// so every 20 s. Version 1 has REGISTER and its ACK without a cookie, paired by
// order, and no refusal. UNREGISTER_SUPER ends the session. What edges say to
// each other (REGISTER, PACKET) and pings of supernodes (QUERY_PEER,
// PEER_INFO) attach nobody. Communities that begin with * are supernodes
// among themselves: peers. The identity is the edge's MAC address; a version of
// the client is not on the wire.
//
// With header encryption (-H) nothing is left but port and sizes: those of
// versions 2.8 and 3 are read as such, and said to be that (Encrypted, ByPort).
type n2n struct{}

const (
	n2nPort   = 7654
	n2nMaxTTL = 16
	n2nFrame  = 2 // the length before a message over TCP

	n2nHeader1 = 84
	n2nHeader2 = 20
	n2nHeader3 = 24

	// Sizes of version 3 with encrypted headers.
	n2nRegister     = 79 // with the token of 16 bytes
	n2nRegisterUser = 127
	n2nAck          = 58
	n2nBackup       = 26 // of each further supernode in the ACK
	n2nNak          = 38
	n2nPong         = 74
	// Sizes of version 2.8 with encrypted headers; the ACK has an address of the
	// edge and perhaps one of a backup, over IPv4.
	n2nRegister2  = 34
	n2nAck2       = 41
	n2nAck2Backup = 49

	// n2nRetry is when an edge of version 3 asks anew, ns: as measured.
	n2nRetry = 4e9
	// n2nPurge is when a supernode forgets an edge, ns: REGISTRATION_TIMEOUT
	// and the wait between two looks. The lifetime in the ACK says when to come
	// again, and edges of version 3 do not heed it.
	n2nPurge = 90e9
)

// The types of version 3.
const (
	n2nTypeRegister = 1 + iota
	n2nTypeDeregister
	n2nTypePacket
	n2nTypeRegisterAck
	n2nTypeSuper
	n2nTypeUnregister
	n2nTypeSuperAck
	n2nTypeSuperNak
	n2nTypeFederation
	n2nTypePeerInfo
	n2nTypeQueryPeer
	n2nTypeAgain // RE_REGISTER_SUPER
)

// n2nOlder are the types of version 2 in the numbers of 3.
var n2nOlder = [...]uint8{0, n2nTypeRegister, n2nTypeDeregister, n2nTypePacket, n2nTypeRegisterAck, n2nTypeSuper, n2nTypeSuperAck, n2nTypeSuperNak, n2nTypeFederation, n2nTypePeerInfo, n2nTypeQueryPeer}

// n2nLeast is the least length of each type after the common header; n2nMAC is
// where it has a MAC address, 0xff = nowhere that is fixed.
var (
	n2nLeast = [...]uint8{0, 16, 6, 14, 16, 14, 10, 19, 4, 0, 0, 14, 0}
	n2nMAC   = [...]uint8{0xff, 4, 0xff, 0, 4, 4, 0xff, 4, 0xff, 0xff, 0xff, 0, 0xff}
)

var errN2N = errors.New("not an n2n message")

func (n2n) Name() string                  { return "n2n" }
func (n2n) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }

// n2nKind is the type of a message of version 2 or 3 and where its body begins;
// ok is false if it is none. It asks for nothing that a cut would take away.
func n2nKind(b []byte) (kind uint8, body int, ok bool) {
	if len(b) < n2nHeader2 || b[1] > n2nMaxTTL || b[2] != 0 {
		return 0, 0, false
	}
	kind, body = b[3]&0x1f, n2nHeader3
	if b[0] == 2 {
		body = n2nHeader2
		if int(kind) >= len(n2nOlder) {
			return 0, 0, false
		}
		kind = n2nOlder[kind]
	}
	if kind == 0 || kind > n2nTypeAgain || len(b) < body+int(n2nLeast[kind]) || !n2nCommunity(b[4:body], true) {
		return 0, 0, false
	}
	if at := int(n2nMAC[kind]); at != 0xff && b[body+at]&1 != 0 {
		return 0, 0, false
	}
	return kind, body, true
}

// n2nCommunity reports a name that is printable up to its NUL, and zeros after
// it if it is padded; then it may also fill its field.
func n2nCommunity(b []byte, padded bool) bool {
	for i, c := range b {
		if c == 0 {
			for _, c := range b[i:] {
				if c != 0 && padded {
					return false
				}
			}
			return i > 0
		}
		if c < ' ' || c > '~' {
			return false
		}
	}
	return padded
}

// n2nFirst reports a message of version 1: a C structure as it lay in memory,
// with what was there before after the NUL of the community.
func n2nFirst(d *dissect.Datagram) bool {
	b := d.Payload
	if d.PayloadLen < n2nHeader1 || len(b) < 54 || b[1] == 0 || b[1] > 5 || b[2] > n2nMaxTTL || b[3] > 1 || b[20]&1 != 0 || len(b) > 72 && b[72] > 3 {
		return false
	}
	if b[32] != 2 && b[32] != 10 || b[52] != 2 && b[52] != 10 || b[33]|b[53] != 0 { // AF_INET, AF_INET6
		return false
	}
	return n2nCommunity(b[4:20], false)
}

func n2nIsAck(n int) bool {
	return n == n2nAck2 || n == n2nAck2Backup || n >= n2nAck && (n-n2nAck)%n2nBackup == 0 && n <= n2nAck+16*n2nBackup
}

// n2nOpaque reports the port and a size of encrypted headers, and bytes that
// look random.
func n2nOpaque(d *dissect.Datagram) bool {
	b := d.Payload
	switch {
	case d.Proto != dissect.ProtoUDP || d.Cut:
		return false
	case d.DstPort == n2nPort:
		if len(b) != n2nRegister && len(b) != n2nRegisterUser && len(b) != n2nRegister2 && len(b) != n2nNak {
			return false
		}
	case d.SrcPort == n2nPort:
		if !n2nIsAck(len(b)) && len(b) != n2nNak && len(b) != n2nPong {
			return false
		}
	default:
		return false
	}
	// Of n random bytes under an eighth come twice; of text or fields most do.
	var seen [4]uint64
	distinct := 0
	for _, c := range b {
		if bit := uint64(1) << (c & 63); seen[c>>6]&bit == 0 {
			seen[c>>6] |= bit
			distinct++
		}
	}
	return distinct*4 >= len(b)*3
}

func (n2n) Gates(transport dissect.Transport) []dissect.Gate {
	if transport == dissect.TCP {
		return []dissect.Gate{{Least: n2nFrame + n2nHeader3 + 1, At: 2, Mask: 0xff, Want: 3}}
	}
	return []dissect.Gate{{Starts: "\x01\x02\x03", Least: n2nHeader2}, {Least: n2nHeader2, LoPort: n2nPort, HiPort: n2nPort}}
}

func (n2n) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if d.Proto == dissect.ProtoTCP {
		if len(b) > n2nFrame+n2nHeader3 && b[2] == 3 && int(b[0])<<8|int(b[1]) >= n2nHeader3 {
			if _, _, ok := n2nKind(b[n2nFrame:]); ok {
				return dissect.Yes
			}
		}
		return dissect.No
	}
	if len(b) < n2nHeader2 {
		return dissect.No
	}
	switch b[0] {
	case 1:
		if n2nFirst(d) {
			return dissect.Yes
		}
	case 2, 3:
		if _, _, ok := n2nKind(b); ok {
			return dissect.Yes
		}
	}
	if (d.DstPort == n2nPort || d.SrcPort == n2nPort) && n2nOpaque(d) {
		return dissect.Maybe
	}
	return dissect.No
}

// Flow.A counts the requests that carry no cookie to be read.
func (n2n) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	n := len(b)
	if d.Proto == dissect.ProtoTCP {
		if len(b) < n2nFrame {
			return 0, dissect.ErrShort
		}
		size := int(binary.BigEndian.Uint16(b))
		if size < n2nHeader3 {
			return 0, errN2N
		}
		if n = n2nFrame + size; n > len(b) {
			if wait(d) {
				return 0, dissect.ErrShort
			}
			n = len(b)
		}
		b = b[n2nFrame:n]
	}
	switch {
	case len(b) == 0:
		return 0, errN2N
	case b[0] == 1 && n2nFirst(d):
		n2nVersion1(d, f, m)
		return n, nil
	case b[0] == 2, b[0] == 3:
		if kind, body, ok := n2nKind(b); ok {
			n2nMessage(b, kind, body, m)
			return n, nil
		}
	}
	if !n2nOpaque(d) {
		return n, errN2N
	}
	n2nEncrypted(d, f, m)
	return n, nil
}

// n2nMessage reads versions 2 and 3.
func n2nMessage(b []byte, kind uint8, body int, m *dissect.Message) {
	switch kind {
	case n2nTypeSuper, n2nTypeSuperAck, n2nTypeSuperNak:
		m.Role = dissect.RoleSupernode
		if b[4] == '*' {
			m.Role = dissect.RolePeer
		}
		m.Txn = hashKey(2, b[body:body+4])
		m.FromClient = kind == n2nTypeSuper
	}
	switch kind {
	case n2nTypeSuper:
		m.Kind, m.Op, m.ClientID = dissect.KindRequest, "REGISTER_SUPER", b[body+4:body+10]
		if b[0] == 3 {
			m.Timeout = n2nRetry
		}
	case n2nTypeSuperAck:
		m.Kind, m.Op = dissect.KindAccept, "REGISTER_SUPER_ACK"
		if b[0] == 3 {
			m.Lifetime = n2nPurge
		}
	case n2nTypeSuperNak:
		m.Kind, m.Op = dissect.KindRefuse, "REGISTER_SUPER_NAK"
	case n2nTypeUnregister:
		m.Kind, m.Op, m.FromClient = dissect.KindClose, "UNREGISTER_SUPER", true
	case n2nTypeDeregister:
		m.Kind, m.Op, m.FromClient = dissect.KindClose, "DEREGISTER", true
	}
}

// n2nVersion1: an edge says REGISTER to supernodes and to other edges alike; who
// answers tells which it is, the port until then.
func n2nVersion1(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) {
	b := d.Payload
	switch b[1] {
	case 1:
		f.A++
		m.Kind, m.Op, m.FromClient, m.ClientID = dissect.KindRequest, "REGISTER", true, b[20:26]
		if d.DstPort == n2nPort {
			m.Role, m.ByPort = dissect.RoleSupernode, true
		}
	case 2:
		m.Kind, m.Op, m.FromClient = dissect.KindClose, "DEREGISTER", true
	case 4:
		m.Kind, m.Op, m.FromClient = dissect.KindAccept, "REGISTER_ACK", false
		m.Role = dissect.RolePeer
		if b[3] == 1 {
			m.Role = dissect.RoleSupernode
		}
	}
	m.Txn = hash1(f.A)
}

// n2nEncrypted reads sizes. Flow.Flags is 1 while a request waits: data may have
// the size of an answer.
func n2nEncrypted(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) {
	m.Encrypted, m.ByPort, m.Role = true, true, dissect.RoleSupernode
	m.FromClient = d.DstPort == n2nPort
	switch {
	case m.FromClient && d.PayloadLen != n2nNak:
		f.A++
		f.Flags = 1
		m.Kind, m.Op, m.Timeout = dissect.KindRequest, "encrypted registration", n2nRetry
	case m.FromClient || f.Flags == 0:
	case d.PayloadLen == n2nNak:
		f.Flags = 0
		m.Kind, m.Op = dissect.KindRefuse, "encrypted refusal"
	case n2nIsAck(d.PayloadLen):
		f.Flags = 0
		m.Kind, m.Op, m.Lifetime = dissect.KindAccept, "encrypted yes", n2nPurge
	}
	m.Txn = hash1(f.A)
}
