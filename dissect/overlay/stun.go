package overlay

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"squall/dissect"
)

// stun is STUN and TURN over UDP and TCP, port 3478 by convention: RFC 8489
// sections 5 and 14, RFC 8656 section 18, and the classic STUN of RFC 3489
// section 11; protocols.md E.
//
//	0 2 type: 00 and 14 bits, class in 0110 | 2 2 length | 4 4 2112a442 | 8 12 transaction | 20 attributes
//	attribute: type2 length2 value, padded to 4
//	channel data: 0 2 number 4000-7fff | 2 2 length | 4 ...
//
// Classic STUN has a transaction of 16 bytes instead of the cookie; it is told
// by attributes of known lengths that fill the message.
//
// A Binding asks a server for an address (bootstrap); one that proves itself or
// carries what ICE adds (RFC 8445 section 7.1) is a check of a peer, whose consent
// lasts 30 s (RFC 7675). Allocate attaches to
// a relay, Refresh keeps the allocation, and with a lifetime of 0 gives it back.
// 401 and 438 are legs of their attempt, unless the request had proven itself
// and 401 comes again; 300 sends elsewhere; 486 and 508 are throttled; 437 about
// a session says that the relay does not know it. All else is a no. Permissions,
// channels and indications are session traffic.
//
// A client is its address: USERNAME is not in the first leg, and is shared by
// all users of an application or drawn for each call. The version is SOFTWARE of
// the request. ICE over TCP puts a length2 before each message (RFC 4571, RFC 6544
// section 10.1); between them there may be media. STUN in TLS is not read.
type stun struct{}

const (
	stunHeader = 20
	stunCookie = 0x2112a442
	stunPort   = 3478
	// stunConsent is how long a peer's answer holds, ns.
	stunConsent = 30e9

	stunMethods = 0x3eef // the bits of a type that are not its class

	stunBinding  = 0x001
	stunAllocate = 0x003
	stunRefresh  = 0x004

	// stunSecret asks for a shared secret, in TLS alone (RFC 3489 section 9.1): over
	// UDP it is how servers of Zoom answer a Binding.
	stunSecret = 0x0002

	stunIndication = 0x0010
	stunSuccess    = 0x0100
	stunError      = 0x0110

	stunUsername    = 0x0006
	stunIntegrity   = 0x0008
	stunErrorCode   = 0x0009
	stunLifetime    = 0x000d
	stunIntegrity2  = 0x001c // MESSAGE-INTEGRITY-SHA256
	stunPriority    = 0x0024 // RFC 8445 section 16.1, and the next
	stunCandidate   = 0x0025 // USE-CANDIDATE
	stunControlled  = 0x8029
	stunControlling = 0x802a
	stunSoftware    = 0x8022
	stunFingerprint = 0x8028
)

// Bits of Flow.Flags: the newest Allocate or Refresh of the opener, of the other
// side, carried credentials; the stream has the frames of RFC 4571.
const (
	stunProven = 1 << iota
	stunProvenOther
	stunFramed
)

// stunFrame is the length before a message over a framed stream.
const stunFrame = 2

var errSTUN = errors.New("not a stun message")

func (stun) Name() string                  { return "stun" }
func (stun) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }

func stunMethod(kind uint16) uint16 { return kind & stunMethods }

// stunLengths are the lengths of the attributes of RFC 3489, by type; 0 = any.
var stunLengths = [...]uint16{1: 8, 2: 8, 3: 4, 4: 8, 5: 8, 6: 0, 7: 0, 8: 20, 9: 0, 10: 0, 11: 8}

// stunClassic reports a message without cookie; sure if an attribute says so.
func stunClassic(b []byte, n int) (ok, sure bool) {
	switch binary.BigEndian.Uint16(b) {
	case 0x0001, 0x0101, 0x0111, 0x0002, 0x0102, 0x0112:
	default:
		return false, false
	}
	size := int(binary.BigEndian.Uint16(b[2:]))
	if n != stunHeader+size || len(b) < n || binary.BigEndian.Uint64(b[4:]) == 0 && binary.BigEndian.Uint64(b[12:]) == 0 {
		return false, false
	}
	for at := b[stunHeader:n]; len(at) > 0; {
		if len(at) < 4 {
			return false, false
		}
		kind, length := binary.BigEndian.Uint16(at), binary.BigEndian.Uint16(at[2:])
		if int(length) > len(at)-4 {
			return false, false
		}
		if kind > 0 && int(kind) < len(stunLengths) {
			if want := stunLengths[kind]; want != 0 && want != length {
				return false, false
			}
			sure = true
		}
		at = at[4+length:]
	}
	return true, sure
}

func (stun) Gates(transport dissect.Transport) []dissect.Gate {
	cookie := dissect.Gate{Starts: fitting(0, 0xc0), Least: stunHeader, At: 4, Mask: 0xff, Want: stunCookie >> 24}
	if transport == dissect.TCP {
		framed := cookie
		framed.Starts, framed.Least, framed.At = "", stunFrame+stunHeader, stunFrame+4
		return []dissect.Gate{cookie, framed}
	}
	return []dissect.Gate{cookie, {Starts: "\x00\x01", Least: stunHeader, At: 1, Mask: 0xec}} // classic: types 1 and 2
}

func (stun) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < stunHeader || b[0]&0xc0 != 0 {
		return dissect.No
	}
	n := stunHeader + int(binary.BigEndian.Uint16(b[2:]))
	if binary.BigEndian.Uint32(b[4:]) == stunCookie {
		if d.Proto == dissect.ProtoUDP && n != d.PayloadLen {
			return dissect.No
		}
		return dissect.Yes
	}
	if d.Proto == dissect.ProtoTCP && stunIsFramed(b) {
		return dissect.Yes
	}
	if d.Proto != dissect.ProtoUDP || b[0] > 1 || n != d.PayloadLen {
		return dissect.No
	}
	switch ok, sure := stunClassic(b, n); {
	case sure:
		return dissect.Yes
	case ok && (stunAtHome(d.DstPort) || stunAtHome(d.SrcPort)):
		return dissect.Maybe
	}
	return dissect.No
}

// stunAtHome reports the port of STUN and those beside it, where servers test what
// kind of NAT a client is behind, or have more of themselves.
func stunAtHome(port uint16) bool { return port >= stunPort && port <= stunPort+3 }

// stunIsFramed reports a message after its length.
func stunIsFramed(b []byte) bool {
	return len(b) >= stunFrame+stunHeader && b[stunFrame]&0xc0 == 0 && binary.BigEndian.Uint32(b[stunFrame+4:]) == stunCookie &&
		binary.BigEndian.Uint16(b) == stunHeader+binary.BigEndian.Uint16(b[stunFrame+2:])
}

// stunFields are the attributes that are read.
type stunFields struct {
	username, software []byte
	lifetime           uint32
	hasLifetime        bool
	code               int
	proven             bool // carries credentials
	ice                bool
}

// readSTUN walks the attributes of a message; it is an error if the fingerprint
// of the whole message does not fit it.
func readSTUN(b []byte) (h stunFields, err error) {
	for at := stunHeader; at+4 <= len(b); {
		kind, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		if n > len(b)-at-4 {
			break // the snapshot length, or a message without padding: what was read counts
		}
		v := b[at+4 : at+4+n]
		switch kind {
		case stunUsername:
			h.username = v
		case stunSoftware:
			h.software = v
		case stunIntegrity, stunIntegrity2:
			h.proven = true
		case stunPriority, stunCandidate, stunControlled, stunControlling:
			h.ice = true
		case stunLifetime:
			if n == 4 {
				h.lifetime, h.hasLifetime = binary.BigEndian.Uint32(v), true
			}
		case stunErrorCode:
			if n >= 4 {
				h.code = int(v[2]&7)*100 + int(v[3])
			}
		case stunFingerprint:
			if n == 4 && crc32.ChecksumIEEE(b[:at])^0x5354554e != binary.BigEndian.Uint32(v) {
				return h, errSTUN
			}
		}
		at += 4 + (n+3)&^3
	}
	return h, nil
}

func (stun) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	n := len(b)
	if d.Proto == dissect.ProtoTCP {
		if n := takeBody(f, len(b)); n > 0 {
			return n, nil
		}
		if len(b) < 4 {
			return 0, dissect.ErrShort
		}
		if f.Flags&stunFramed != 0 || stunIsFramed(b) {
			f.Flags |= stunFramed
			return stunOverFrames(d, f, m)
		}
		size := uint64(binary.BigEndian.Uint16(b[2:]))
		switch {
		case b[0]&0xc0 == 0x40: // channel data, padded over streams
			return leaveBody(f, 4+(size+3)&^3, len(b)), nil
		case b[0]&0xc0 != 0:
			return 0, errSTUN
		}
		if size += stunHeader; size > uint64(len(b)) && wait(d) {
			return 0, dissect.ErrShort
		}
		n = leaveBody(f, size, len(b))
		b = b[:n]
	}
	if len(b) >= 12 && d.Proto == dissect.ProtoUDP && (string(b[:8]) == "SIP/2.0 " || sipMethod(b) != "") {
		m.Protocol = sip{}.Name() // a Binding that keeps its flow open came first
		return sip{}.Dissect(d, f, m)
	}
	if len(b) < stunHeader || b[0]&0xc0 != 0 {
		return 0, errSTUN
	}
	if binary.BigEndian.Uint32(b[4:]) != stunCookie {
		if ok, _ := stunClassic(b, len(b)); !ok && !d.Cut {
			return 0, errSTUN
		}
	}
	h, err := readSTUN(b)
	if err != nil {
		return n, err
	}
	kind := binary.BigEndian.Uint16(b)
	stunMessage(f, m, kind, hashKey(6, b[4:stunHeader]), &h)
	return n, nil
}

// stunOverFrames reads one frame; what is no STUN is media or DTLS.
func stunOverFrames(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	size := stunFrame + uint64(binary.BigEndian.Uint16(b))
	if size > uint64(len(b)) && wait(d) && len(b) < stunFrame+stunHeader {
		return 0, dissect.ErrShort
	}
	if !stunIsFramed(b) {
		return leaveBody(f, size, len(b)), nil
	}
	if size > uint64(len(b)) && wait(d) {
		return 0, dissect.ErrShort
	}
	n := leaveBody(f, size, len(b))
	b = b[stunFrame:n]
	h, err := readSTUN(b)
	if err != nil {
		return n, err
	}
	stunMessage(f, m, binary.BigEndian.Uint16(b), hashKey(6, b[4:stunHeader]), &h)
	return n, nil
}

func stunMessage(f *dissect.Flow, m *dissect.Message, kind uint16, txn uint64, h *stunFields) {
	method, class := stunMethod(kind), kind&^stunMethods
	if class == stunIndication {
		return
	}
	session := method == stunAllocate || method == stunRefresh
	if kind == stunSecret && !f.FromClient {
		m.Kind, m.Op, m.FromClient, m.Txn, m.Lifetime = dissect.KindAccept, "answer", false, txn, noSession
		return
	}
	if !session && method != stunBinding {
		if class == stunError && h.code == 437 {
			m.Kind, m.Op, m.FromClient = dissect.KindLost, "437", false
		}
		return
	}
	m.Txn, m.FromClient = txn, class == 0
	asker, bit := uint64(1), uint8(stunProven) // the opener of the flow, or the other side
	if f.FromClient != m.FromClient {
		asker, bit = 2, stunProvenOther
	}
	if session { // one allocation a flow: what comes next on the way to it is a leg
		m.Chain = hash1(uint64(method)<<2 | asker)
	}
	switch class {
	case 0:
		stunRequest(m, method, h)
		if session {
			f.Flags &^= bit
			if h.proven {
				f.Flags |= bit
			}
		}
	case stunSuccess:
		m.Kind, m.Op = dissect.KindAccept, "success"
		if h.hasLifetime {
			m.Lifetime = int64(h.lifetime) * int64(time.Second)
		}
		if method == stunBinding {
			m.Lifetime = noSession
			if h.proven {
				m.Lifetime = stunConsent
			}
		}
	case stunError:
		m.Kind, m.Op = stunVerdict(method, h.code, f.Flags&bit != 0)
	}
}

func stunRequest(m *dissect.Message, method uint16, h *stunFields) {
	m.Kind, m.Version, m.Repeats = dissect.KindRequest, h.software, true
	switch method {
	case stunAllocate:
		m.Op, m.Role = "Allocate", dissect.RoleRelay
	case stunRefresh:
		m.Op, m.Role, m.Kind = "Refresh", dissect.RoleRelay, dissect.KindRefresh
		if h.hasLifetime && h.lifetime == 0 {
			m.Kind = dissect.KindClose
		}
	default:
		m.Op, m.Role = "Binding", dissect.RoleBootstrap
		if len(h.username) > 0 || h.proven || h.ice {
			m.Role = dissect.RolePeer
		}
	}
}

// stunVerdict is what an error code says; proven: the request carried credentials.
func stunVerdict(method uint16, code int, proven bool) (dissect.Kind, string) {
	switch code {
	case 300:
		return dissect.KindRedirect, "300"
	case 401:
		if !proven {
			return dissect.KindChallenge, "401"
		}
		return dissect.KindRefuse, "401"
	case 438:
		return dissect.KindChallenge, "438"
	case 486:
		return dissect.KindThrottle, "486"
	case 508:
		return dissect.KindThrottle, "508"
	case 437:
		if method == stunRefresh {
			return dissect.KindLost, "437"
		}
		return dissect.KindRefuse, "437"
	}
	return dissect.KindRefuse, "error"
}
