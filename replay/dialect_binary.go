package replay

import (
	"encoding/binary"
	"fmt"
	"time"

	"squall/dissect"
)

// n2n is REGISTER_SUPER of version 3 without header encryption (protocols.md
// section B). Every transmission of a real edge has a new cookie, and so has
// every attempt here.
type n2n struct{}

const (
	n2nCommunity = "squall-replay"
	n2nHeader    = 24
)

func (n2n) Name() string                 { return "n2n" }
func (n2n) Transport() dissect.Transport { return dissect.UDP }
func (n2n) Work() string                 { return "registration with a token, as any edge; no packets are forwarded" }

func (n2n) Repeat(int) time.Duration { return 0 }

func n2nHead(dst []byte, flags uint16) []byte {
	dst = append(dst, 3, 2)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	return append(append(dst, n2nCommunity...), make([]byte, 20-len(n2nCommunity))...)
}

func (n2n) Request(dst []byte, who *Identity) []byte {
	dst = n2nHead(dst, 5)
	dst = binary.BigEndian.AppendUint32(dst, uint32(who.fresh(0)))
	mac := binary.BigEndian.AppendUint64(nil, who.lasting(1))
	mac[2] = 2 // locally administered, not multicast
	dst = append(dst, mac[2:]...)
	dst = append(dst, 0, 0, 0, 0, 0) // no address wanted
	dst = append(fmt.Appendf(dst, "c%014x", who.lasting(2)>>8), 0)
	dst = append(dst, 0, 1, 0, 16) // simple id
	dst = binary.BigEndian.AppendUint64(dst, who.lasting(3))
	dst = binary.BigEndian.AppendUint64(dst, who.lasting(4))
	return append(dst, 0, 0, 0, 0)
}

func (n2n) Read(who *Identity, got []byte) Reply {
	if len(got) < n2nHeader+4 || got[0] != 3 || binary.BigEndian.Uint32(got[n2nHeader:]) != uint32(who.fresh(0)) {
		return Reply{}
	}
	switch binary.BigEndian.Uint16(got[2:]) & 0x1f {
	case 7:
		r := Reply{N: len(got), Kind: dissect.KindAccept}
		if len(got) >= 41 {
			r.Lifetime = time.Duration(binary.BigEndian.Uint16(got[39:])) * time.Second
		}
		return r
	case 8:
		return Reply{N: len(got), Kind: dissect.KindRefuse}
	}
	return Reply{}
}

func (n2n) Serve(b []byte) Asked {
	if len(b) < 63 || b[0] != 3 || binary.BigEndian.Uint16(b[2:])&0x1f != 5 {
		return Asked{}
	}
	var mac [8]byte
	copy(mac[2:], b[28:34])
	return Asked{N: len(b), Kind: dissect.KindRequest, Client: binary.BigEndian.Uint64(mac[:]), head: b}
}

func (n2n) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	cookie := to.head[n2nHeader : n2nHeader+4]
	if say != dissect.KindAccept { // no word for "later"
		dst = append(n2nHead(dst, 8|0x20), cookie...)
		return append(append(dst, to.head[28:34]...), 0, 0, 0, 0)
	}
	dst = append(n2nHead(dst, 7|0x20|0x40), cookie...)
	dst = append(dst, 2, 0, 0, 0, 0, 1)          // MAC of the node
	dst = append(dst, 0, 0, 0, 0, 0)             // no address given
	dst = binary.BigEndian.AppendUint16(dst, 20) // lifetime
	dst = binary.BigEndian.AppendUint16(dst, 0)  // IPv4, UDP
	dst = binary.BigEndian.AppendUint16(dst, to.Peer.Port())
	ip := to.Peer.Addr().Unmap().As16()
	dst = append(dst, ip[12:]...)
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0) // no token, no others, no key time
}

// tracker is a BitTorrent UDP tracker (BEP 15, protocols.md section G.1):
// connect, then announce with the connection id of the answer. What is
// announced is a made-up torrent and the client's own test address.
type tracker struct{}

const trackerMagic = 0x41727101980

func (tracker) Name() string                 { return "bt_tracker" }
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
		next = binary.BigEndian.AppendUint16(next, who.Local.Port())
		return Reply{N: len(got), Kind: dissect.KindChallenge, Next: next}
	case action == 1 && len(got) >= 20:
		return Reply{N: len(got), Kind: dissect.KindAccept, Lifetime: 2 * time.Duration(binary.BigEndian.Uint32(got[8:])&0xffffff) * time.Second}
	case action == 3:
		return Reply{N: len(got), Kind: dissect.KindRefuse}
	}
	return Reply{}
}

func (tracker) Serve(b []byte) Asked {
	switch {
	case len(b) == 16 && binary.BigEndian.Uint64(b) == trackerMagic && binary.BigEndian.Uint32(b[8:]) == 0:
		return Asked{N: len(b), Kind: dissect.KindRequest, Step: true, head: b}
	case len(b) >= 98 && binary.BigEndian.Uint32(b[8:]) == 1:
		return Asked{N: len(b), Kind: dissect.KindRequest, Client: hash(string(b[36:56])), head: b}
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
		return binary.BigEndian.AppendUint64(dst, mix(4, hash(string(txn))))
	}
	return append(append(append(dst, 0, 0, 0, 1), txn...), 0, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1) // 1800 s, one seeder
}

// stun is a Binding request (RFC 5389, protocols.md section E).
type stun struct{}

const stunCookie = 0x2112a442

func (stun) Name() string                 { return "stun" }
func (stun) Transport() dissect.Transport { return dissect.UDP }
func (stun) Work() string {
	return "a binding; no relay is allocated, so nothing is said about a TURN server's capacity"
}

// Repeat: 0.5 s, doubled, seven sends in all (RFC 5389 section 7.2.1).
func (stun) Repeat(k int) time.Duration {
	if k > 6 {
		return 0
	}
	return 500 * time.Millisecond * (1<<k - 1)
}

func (stun) Request(dst []byte, who *Identity) []byte {
	v := "squall"
	dst = append(dst, 0, 1)
	dst = binary.BigEndian.AppendUint16(dst, uint16(4+(len(v)+3)&^3))
	dst = binary.BigEndian.AppendUint32(dst, stunCookie)
	dst = binary.BigEndian.AppendUint64(dst, who.fresh(0))
	dst = binary.BigEndian.AppendUint32(dst, uint32(who.fresh(1)))
	dst = append(dst, 0x80, 0x22, 0, byte(len(v)))
	dst = append(dst, v...)
	return append(dst, make([]byte, (4-len(v)%4)%4)...)
}

func (stun) Read(who *Identity, got []byte) Reply {
	if len(got) < 20 || binary.BigEndian.Uint32(got[4:]) != stunCookie || binary.BigEndian.Uint64(got[8:]) != who.fresh(0) ||
		binary.BigEndian.Uint32(got[16:]) != uint32(who.fresh(1)) {
		return Reply{}
	}
	switch binary.BigEndian.Uint16(got) {
	case 0x0101:
		return Reply{N: len(got), Kind: dissect.KindAccept}
	case 0x0111:
		r := Reply{N: len(got), Kind: dissect.KindRefuse}
		for a := got[20:]; len(a) >= 8; {
			n := int(binary.BigEndian.Uint16(a[2:]))
			if binary.BigEndian.Uint16(a) == 9 && n >= 4 {
				switch int(a[6]&7)*100 + int(a[7]) {
				case 300:
					r.Kind = dissect.KindRedirect
				case 486, 508:
					r.Kind = dissect.KindThrottle
				}
				break
			}
			a = a[min(4+(n+3)&^3, len(a)):]
		}
		return r
	}
	return Reply{}
}

func (stun) Serve(b []byte) Asked {
	if len(b) < 20 || binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint32(b[4:]) != stunCookie || len(b) != 20+int(binary.BigEndian.Uint16(b[2:])) {
		return Asked{}
	}
	return Asked{N: len(b), Kind: dissect.KindRequest, head: b}
}

func (stun) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	head := to.head[4:20]
	switch say {
	case dissect.KindAccept:
		ip := to.Peer.Addr().Unmap()
		raw := ip.AsSlice()
		dst = append(append(dst, 1, 1, 0, byte(8+len(raw))), head...)
		family := byte(1)
		if ip.Is6() {
			family = 2
		}
		dst = append(dst, 0, 0x20, 0, byte(4+len(raw)), 0, family)
		dst = binary.BigEndian.AppendUint16(dst, to.Peer.Port()^0x2112)
		for i, c := range raw {
			dst = append(dst, c^head[i])
		}
		return dst
	case dissect.KindThrottle:
		return append(append(append(dst, 1, 0x11, 0, 8), head...), 0, 9, 0, 4, 0, 0, 5, 8)
	}
	return append(append(append(dst, 1, 0x11, 0, 8), head...), 0, 9, 0, 4, 0, 0, 4, 3)
}
