package replay

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"squall/dissect"
)

// n2n is the registration of an edge at a supernode: REGISTER_SUPER of version
// 3 or 2, or REGISTER of version 1, none with header encryption (protocols.md
// section B). Every transmission of a real edge of version 2 and 3 has a new
// cookie, and so has every attempt here; version 1 has none, and its answer is
// known by the edge's MAC address alone. The node's end serves all three.
type n2n struct{ version byte }

const (
	n2nCommunity = "squall-replay"
	n2nRequest1  = 87 // header and the empty payload of version 1, compressed
)

func (n n2n) Name() string {
	if n.version == 3 {
		return "n2n"
	}
	return "n2n-v" + string('0'+n.version)
}

func (n2n) Transport() dissect.Transport { return dissect.UDP }
func (n n2n) Work() string {
	if n.version == 3 {
		return "registration with a token, as any edge; no packets are forwarded"
	}
	return "registration, as any edge; no packets are forwarded"
}

func (n2n) Repeat(int) time.Duration { return 0 }

// n2nHead is where the body begins.
func n2nHead(version byte) int {
	if version == 2 {
		return 20
	}
	return 24
}

func appendN2NHead(dst []byte, version byte, flags uint16) []byte {
	dst = append(dst, version, 2)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	return append(append(dst, n2nCommunity...), make([]byte, n2nHead(version)-4-len(n2nCommunity))...)
}

// mac is the edge's: locally administered, not multicast.
func (n2n) mac(who *Identity) (mac [6]byte) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], who.lasting(1))
	copy(mac[:], b[2:])
	mac[0] = 2
	return mac
}

func (n n2n) Request(dst []byte, who *Identity) []byte {
	mac := n.mac(who)
	if n.version == 1 {
		dst = append(dst, 1, 1, 2, 0)
		dst = append(append(dst, n2nCommunity...), make([]byte, 16-len(n2nCommunity))...)
		dst = append(append(dst, mac[:]...), 0, 0, 0, 0, 0, 0)
		for range 2 { // no address, neither public nor private
			dst = append(append(dst, 2), make([]byte, 19)...) // AF_INET
		}
		dst = append(dst, 0)
		dst = binary.BigEndian.AppendUint32(dst, uint32(who.fresh(0)))
		return append(append(dst, make([]byte, 7)...), 0x11, 0, 0)
	}
	dst = appendN2NHead(dst, n.version, 5)
	dst = binary.BigEndian.AppendUint32(dst, uint32(who.fresh(0)))
	dst = append(dst, mac[:]...)
	if n.version == 2 {
		return append(dst, 0, 0, 0, 0) // no authentication
	}
	dst = append(dst, 0, 0, 0, 0, 0) // no address wanted
	dst = append(appendHex(append(dst, 'c'), who.lasting(2))[:len(dst)+15], 0)
	dst = append(dst, 0, 1, 0, 16) // simple id
	dst = binary.BigEndian.AppendUint64(dst, who.lasting(3))
	dst = binary.BigEndian.AppendUint64(dst, who.lasting(4))
	return append(dst, 0, 0, 0, 0)
}

func (n n2n) Read(who *Identity, got []byte) Reply {
	if len(got) < 24 || got[0] != n.version {
		return Reply{}
	}
	if n.version == 1 {
		if len(got) >= 84 && got[1] == 4 && [6]byte(got[26:32]) == n.mac(who) {
			return Reply{N: len(got), Kind: dissect.KindAccept}
		}
		return Reply{}
	}
	at := n2nHead(n.version)
	if len(got) < at+4 || binary.BigEndian.Uint32(got[at:]) != uint32(who.fresh(0)) {
		return Reply{}
	}
	// The types were numbered anew: 6 is yes in version 2 and good-bye in 3.
	switch binary.BigEndian.Uint16(got[2:])&0x1f - uint16(n.version) {
	case 4:
		return Reply{N: len(got), Kind: dissect.KindAccept}
	case 5:
		return Reply{N: len(got), Kind: dissect.KindRefuse}
	}
	return Reply{}
}

func (n2n) Serve(b []byte) Asked {
	var mac [8]byte
	switch {
	case len(b) == n2nRequest1 && b[0] == 1 && b[1] == 1:
		copy(mac[2:], b[20:26])
	case len(b) >= 34 && b[0] == 2 && binary.BigEndian.Uint16(b[2:])&0x1f == 5:
		copy(mac[2:], b[24:30])
	case len(b) >= 63 && b[0] == 3 && binary.BigEndian.Uint16(b[2:])&0x1f == 5:
		copy(mac[2:], b[28:34])
	default:
		return Asked{}
	}
	return Asked{N: len(b), Kind: dissect.KindRequest, Client: binary.BigEndian.Uint64(mac[:]), head: b}
}

func (n2n) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	version := to.head[0]
	if version == 1 {
		if say != dissect.KindAccept { // no word for no
			return dst
		}
		at := len(dst)
		dst = append(dst, to.head...)
		answer := dst[at:]
		answer[1], answer[3] = 4, 1
		copy(answer[26:32], to.head[20:26])
		clear(answer[20:26])
		return dst
	}
	at := n2nHead(version)
	cookie := to.head[at : at+4]
	if say != dissect.KindAccept { // no word for "later"
		dst = append(appendN2NHead(dst, version, uint16(5+version)|0x20), cookie...)
		if version == 2 {
			return dst
		}
		return append(append(dst, to.head[28:34]...), 0, 0, 0, 0)
	}
	dst = append(appendN2NHead(dst, version, uint16(4+version)|0x20|0x40), cookie...)
	lifetime := uint16(120)
	if version == 2 {
		dst = append(dst, to.head[24:30]...)
	} else {
		lifetime = 20
		dst = append(dst, 2, 0, 0, 0, 0, 1) // MAC of the node
		dst = append(dst, 0, 0, 0, 0, 0)    // no address given
	}
	dst = binary.BigEndian.AppendUint16(dst, lifetime)
	dst = binary.BigEndian.AppendUint16(dst, 0) // IPv4, UDP
	dst = binary.BigEndian.AppendUint16(dst, to.Peer.Port())
	ip := to.Peer.Addr().Unmap().As16()
	dst = append(dst, ip[12:]...)
	if version == 2 {
		return append(dst, 0) // no others
	}
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0) // no token, no others, no key time
}

// tracker is a BitTorrent UDP tracker (BEP 15, protocols.md section G.1):
// connect, then announce with the connection id of the answer. What is
// announced is a made-up torrent at the discard port of the client's own test
// address, where nobody listens.
type tracker struct{}

const (
	trackerMagic = 0x41727101980
	// discardPort is announced wherever a protocol wants to be told where
	// others may come to.
	discardPort = 9
)

func (tracker) Name() string                 { return "bt-tracker" }
func (tracker) Transport() dissect.Transport { return dissect.UDP }
func (tracker) Work() string                 { return "connect and announce, the peer table included" }

// Repeat: 15 s times 2^n is the wait for the next attempt, not a repeat.
func (tracker) Repeat(int) time.Duration { return 0 }

func (tracker) Request(dst []byte, who *Identity) []byte {
	dst = binary.BigEndian.AppendUint64(dst, trackerMagic)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	return binary.BigEndian.AppendUint32(dst, uint32(who.fresh(0)))
}

func (tracker) Read(who *Identity, got []byte) Reply {
	if len(got) < 8 || binary.BigEndian.Uint32(got[4:]) != uint32(who.fresh(0)) {
		return Reply{}
	}
	switch action := binary.BigEndian.Uint32(got); {
	case action == 0 && len(got) >= 16 && who.leg == 0:
		who.conn = binary.BigEndian.Uint64(got[8:])
		who.leg++
		next := binary.BigEndian.AppendUint64(nil, who.conn)
		next = binary.BigEndian.AppendUint32(next, 1)
		next = binary.BigEndian.AppendUint32(next, uint32(who.fresh(0)))
		for k := range uint64(2) { // one torrent for each hundred clients
			next = binary.BigEndian.AppendUint64(next, mix(who.Seed, 3, uint64(who.Client)/100, k))
		}
		next = append(next, "sqll"...)
		next = fmt.Appendf(next, "-SQ0001-%012x", who.lasting(1)>>16)
		next = append(next, make([]byte, 24)...)
		next = append(next, 0, 0, 0, 2, 0, 0, 0, 0) // started, sender's address
		next = binary.BigEndian.AppendUint32(next, uint32(who.lasting(2)))
		next = append(next, 0, 0, 0, 0) // no peers wanted
		next = binary.BigEndian.AppendUint16(next, discardPort)
		return Reply{N: len(got), Kind: dissect.KindChallenge, Next: next}
	case action == 1 && len(got) >= 20:
		return Reply{N: len(got), Kind: dissect.KindAccept}
	case action == 3:
		return Reply{N: len(got), Kind: dissect.KindRefuse}
	}
	return Reply{}
}

// trackerConn is a connection id that a test node knows again without having
// kept it: what is in its upper half has its hash in the lower.
func trackerConn(high uint64) uint64 { return high<<32 | mix(4, high)>>32 }

func (tracker) Serve(b []byte) Asked {
	switch {
	case len(b) == 16 && binary.BigEndian.Uint64(b) == trackerMagic && binary.BigEndian.Uint32(b[8:]) == 0:
		return Asked{N: len(b), Kind: dissect.KindRequest, Step: true, head: b}
	case len(b) >= 98 && binary.BigEndian.Uint32(b[8:]) == 1:
		id := binary.BigEndian.Uint64(b)
		return Asked{N: len(b), Kind: dissect.KindRequest, Client: hash(b[36:56]), Bad: id != trackerConn(id>>32), head: b}
	}
	return Asked{}
}

func (tracker) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	txn := to.head[12:16]
	switch {
	case say != dissect.KindAccept:
		return append(append(append(dst, 0, 0, 0, 3), txn...), "overloaded"...)
	case to.Step:
		dst = append(append(dst, 0, 0, 0, 0), txn...)
		return binary.BigEndian.AppendUint64(dst, trackerConn(hash(txn)>>32))
	}
	return append(append(append(dst, 0, 0, 0, 1), txn...), 0, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1) // 1800 s, one seeder
}

// stun is a Binding request, or the Allocate of TURN (RFC 5389, RFC 5766;
// protocols.md section E). There is no integrity but where a server asks for it
// and a login was given for the run (long-term credentials, RFC 5389 section
// 10.2); without one a 401 is a no.
type stun struct{ allocate bool }

const stunCookie = 0x2112a442

func (s stun) Name() string {
	if s.allocate {
		return "turn"
	}
	return "stun"
}

func (stun) Transport() dissect.Transport { return dissect.UDP }
func (s stun) Work() string {
	if s.allocate {
		return "the allocation of a relay, proven as far as credentials were given; no permission is asked for and nothing is relayed"
	}
	return "a binding; no relay is allocated, so nothing is said about a TURN server's capacity"
}

// Repeat: 0.5 s, doubled, seven sends in all (RFC 5389 section 7.2.1).
func (stun) Repeat(k int) time.Duration {
	if k > 6 {
		return 0
	}
	return 500 * time.Millisecond * (1<<k - 1)
}

func (s stun) Request(dst []byte, who *Identity) []byte { return s.request(dst, who, nil, nil) }

// request appends a request; with a realm it is proven by the login.
func (s stun) request(dst []byte, who *Identity, realm, nonce []byte) []byte {
	at := len(dst)
	kind := uint16(1)
	switch {
	case s.allocate && who.Refresh:
		kind = 4
	case s.allocate:
		kind = 3
	}
	dst = binary.BigEndian.AppendUint16(dst, kind)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, stunCookie)
	dst = binary.BigEndian.AppendUint64(dst, who.fresh(0))
	dst = binary.BigEndian.AppendUint32(dst, uint32(who.fresh(1)))
	if kind == 3 {
		dst = append(dst, 0, 0x19, 0, 4, 17, 0, 0, 0) // REQUESTED-TRANSPORT: UDP
	}
	const name = "squall\x00\x00" // padded
	dst = append(append(dst, 0x80, 0x22, 0, 6), name...)
	if realm != nil {
		dst = appendAttribute(dst, stunUsername, []byte(who.Login.User))
		dst = appendAttribute(dst, stunRealm, realm)
		dst = appendAttribute(dst, stunNonce, nonce)
		return appendProof(dst, at, &who.Login, realm)
	}
	binary.BigEndian.PutUint16(dst[at+2:], uint16(len(dst)-at-20))
	return dst
}

// Attributes of STUN.
const (
	stunUsername  = 0x06
	stunIntegrity = 0x08
	stunError     = 0x09
	stunRealm     = 0x14
	stunNonce     = 0x15
)

func appendAttribute(dst []byte, kind uint16, value []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, kind)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(value)))
	return append(append(dst, value...), make([]byte, -len(value)&3)...)
}

// attribute is the value of the first attribute of a kind, and where the
// attribute begins; nil = there is none.
func attribute(message []byte, kind uint16) (value []byte, at int) {
	for at = 20; at+4 <= len(message); {
		n := int(binary.BigEndian.Uint16(message[at+2:]))
		if binary.BigEndian.Uint16(message[at:]) == kind && at+4+n <= len(message) {
			return message[at+4 : at+4+n], at
		}
		at += 4 + (n+3)&^3
	}
	return nil, 0
}

// appendProof ends the message that begins at at with a MESSAGE-INTEGRITY.
func appendProof(dst []byte, at int, l *Login, realm []byte) []byte {
	text := len(dst)
	dst = append(dst, 0, stunIntegrity, 0, sha1.Size)
	binary.BigEndian.PutUint16(dst[at+2:], uint16(len(dst)+sha1.Size-at-20)) // as if the rest were there
	return stunProof(dst, dst[at:text], l, realm)
}

// stunProof appends what proves text with a login (RFC 5389 section 15.4).
func stunProof(dst, text []byte, l *Login, realm []byte) []byte {
	key := md5.Sum(fmt.Appendf(nil, "%s:%s:%s", l.User, realm, l.Password))
	h := hmac.New(sha1.New, key[:])
	h.Write(text)
	return h.Sum(dst)
}

func (s stun) Read(who *Identity, got []byte) Reply {
	if len(got) < 20 || binary.BigEndian.Uint32(got[4:]) != stunCookie || binary.BigEndian.Uint64(got[8:]) != who.fresh(0) ||
		binary.BigEndian.Uint32(got[16:]) != uint32(who.fresh(1)) {
		return Reply{}
	}
	switch binary.BigEndian.Uint16(got) {
	case 0x0101, 0x0103, 0x0104:
		return Reply{N: len(got), Kind: dissect.KindAccept}
	case 0x0111, 0x0113, 0x0114:
		r := Reply{N: len(got), Kind: dissect.KindRefuse}
		code, _ := attribute(got, stunError)
		if len(code) < 4 {
			return r
		}
		switch int(code[2]&7)*100 + int(code[3]) {
		case 300:
			r.Kind = dissect.KindRedirect
		case 486, 508:
			r.Kind = dissect.KindThrottle
		case 401:
			realm, _ := attribute(got, stunRealm)
			nonce, _ := attribute(got, stunNonce)
			if who.leg == 0 && who.Login.User != "" && realm != nil && nonce != nil {
				who.leg++
				r.Kind, r.Next = dissect.KindChallenge, s.request(nil, who, realm, nonce)
			}
		}
		return r
	}
	return Reply{}
}

func (s stun) Serve(b []byte) Asked {
	if len(b) < 20 || binary.BigEndian.Uint32(b[4:]) != stunCookie || len(b) != 20+int(binary.BigEndian.Uint16(b[2:])) {
		return Asked{}
	}
	a := Asked{N: len(b), Kind: dissect.KindRequest, head: b}
	switch binary.BigEndian.Uint16(b) {
	case 1, 3:
	case 4:
		a.Kind = dissect.KindRefresh
	default:
		return Asked{}
	}
	return a
}

func (stun) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	head, method := to.head[4:20], to.head[1]
	switch say {
	case dissect.KindAccept:
		at := len(dst)
		dst = append(append(dst, 1, method, 0, 0), head...)
		if method == 3 { // XOR-RELAYED-ADDRESS: the discard port of 192.0.2.1
			dst = append(dst, 0, 0x16, 0, 8, 0, 1, 0x21, 0x12^discardPort, 192^0x21, 0x12, 2^0xa4, 1^0x42)
		}
		if method != 1 {
			dst = append(dst, 0, 0x0d, 0, 4, 0, 0, 2, 0x58) // LIFETIME: 600 s
		}
		if method != 4 {
			dst = appendMapped(dst, head, to.Peer)
		}
		binary.BigEndian.PutUint16(dst[at+2:], uint16(len(dst)-at-20))
		return dst
	case dissect.KindThrottle:
		return append(append(append(dst, 1, 0x10|method, 0, 8), head...), 0, 9, 0, 4, 0, 0, 5, 8)
	}
	return append(append(append(dst, 1, 0x10|method, 0, 8), head...), 0, 9, 0, 4, 0, 0, 4, 3)
}

// appendMapped appends XOR-MAPPED-ADDRESS.
func appendMapped(dst, head []byte, peer netip.AddrPort) []byte {
	ip := peer.Addr().Unmap()
	raw := ip.AsSlice()
	family := byte(1)
	if ip.Is6() {
		family = 2
	}
	dst = append(dst, 0, 0x20, 0, byte(4+len(raw)), 0, family)
	dst = binary.BigEndian.AppendUint16(dst, peer.Port()^0x2112)
	for i, c := range raw {
		dst = append(dst, c^head[i])
	}
	return dst
}
