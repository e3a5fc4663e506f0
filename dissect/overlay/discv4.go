package overlay

import (
	"errors"

	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"squall/dissect"
)

// discv4 is the node discovery of Ethereum over UDP: ethereum/devp2p discv4.md,
// protocols.md H.2.
//
//	0 32 keccak256 of the rest | 32 65 signature | 97 type | 98 RLP list
//	types: 1 ping 2 pong 3 findnode 4 neighbors 5 enrrequest 6 enrresponse
//	ping [version, from, to, expiration ...], pong [to, ping hash, expiration ...]
//	findnode [target 64, expiration], neighbors [nodes, expiration]
//	enrrequest [expiration], enrresponse [request hash, record]
//
// Every node is a peer; whoever pings is the client. A pong names the hash of
// its ping, an ENR response that of its request; neighbors is paired with the
// newest findnode. There is no refusal, only silence. After a pong the two are
// bonded, and what the client asks then is a refresh. The identity is the node
// id, the hash of the key that signed the ping: recovering it costs some 100 µs
// and is done once a flow, for the first ping. A version is not on the wire.
type discv4 struct{}

const (
	discHash   = 32
	discType   = 97
	discHeader = 98
	discMax    = 1280
)

// Bits of Flow.Flags, those of the other side twice as high.
const (
	discBonded = 1
	discKnown  = 1 << 2
)

var errDiscv4 = errors.New("not a discv4 packet")

func (discv4) Name() string                  { return "discv4" }
func (discv4) Transports() dissect.Transport { return dissect.UDP }

// rlpList is the contents of the list that b begins with; ok is false if it is
// none or is not all there. RLP: Ethereum yellow paper, appendix B.
func rlpList(b []byte) (body []byte, ok bool) {
	if len(b) == 0 || b[0] < 0xc0 {
		return nil, false
	}
	body, _ = rlpItem(b)
	return body, body != nil
}

// rlpItem is the string or list that b begins with, of less than 64 KiB, and what
// follows it; nil, nil if it is not whole.
func rlpItem(b []byte) (item, rest []byte) {
	if len(b) == 0 {
		return nil, nil
	}
	n, head := 1, 0
	if c := b[0]; c >= 0x80 {
		n, head = int(c&0x3f), 1
		if n > 55 { // that many bytes more tell the length
			more := n - 55
			if more > 2 || len(b) < 1+more {
				return nil, nil
			}
			n, head = 0, 1+more
			for _, c := range b[1:head] {
				n = n<<8 | int(c)
			}
		}
	}
	if n > len(b)-head {
		return nil, nil
	}
	return b[head : head+n], b[head+n:]
}

// rlpHash is the 32-byte string that b begins with.
func rlpHash(b []byte) ([]byte, bool) {
	if len(b) < 33 || b[0] != 0xa0 {
		return nil, false
	}
	return b[1:33], true
}

// discHashOf is the hash that a pong or an ENR response names.
func discHashOf(kind byte, body []byte) ([]byte, bool) {
	if kind == 2 {
		to, ok := rlpList(body)
		if !ok || len(to) > 55 {
			return nil, false
		}
		body = body[1+len(to):]
	}
	return rlpHash(body)
}

func (discv4) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Least: discHeader + 1, Most: discMax, At: 96, Mask: 0xfc}}
}

func (discv4) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) <= discHeader || len(b) > discMax || b[discType]-1 > 5 || b[96] > 3 {
		return dissect.No
	}
	body, ok := rlpList(b[discHeader:])
	if !ok || len(body) < 5 {
		return dissect.No
	}
	switch b[discType] {
	case 1: // a small version, then an endpoint
		_, ok = rlpList(body[1:])
		ok = ok && body[0] > 0 && body[0] < 16
	case 2, 6:
		_, ok = discHashOf(b[discType], body)
	case 3: // a target of 64 bytes
		ok = len(body) > 66 && body[0] == 0xb8 && body[1] == 64
	case 4:
		_, ok = rlpList(body)
	case 5: // a time of 4 bytes and nothing else
		ok = len(body) == 5 && body[0] == 0x84
	}
	if !ok {
		return dissect.No
	}
	return dissect.Yes
}

// Flow.A and Flow.B are the keys of the newest findnode of the opener and of
// the other side.
func (p discv4) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	n := len(b)
	if p.Probe(d) != dissect.Yes {
		return n, errDiscv4
	}
	h := sha3.NewLegacyKeccak256()
	h.Write(b[discHash:])
	var sum [discHash]byte
	if string(h.Sum(sum[:0])) != string(b[:discHash]) {
		return n, errDiscv4
	}
	kind := b[discType]
	body, _ := rlpList(b[discHeader:])
	m.Role = dissect.RolePeer
	m.FromClient = kind%2 == 1
	// asker is the side that asks, by its bit: the opener is 1, the other 2.
	asker, asked := uint8(2), &f.B
	if f.FromClient == m.FromClient {
		asker, asked = 1, &f.A
	}
	if m.FromClient {
		m.Kind = dissect.KindRequest
		if f.Flags&(discBonded*asker) != 0 {
			m.Kind = dissect.KindRefresh
		}
		m.Txn = hashKey(0, b[:discHash])
	} else {
		m.Kind = dissect.KindAccept
		if hash, ok := discHashOf(kind, body); ok {
			m.Txn = hashKey(0, hash)
		}
	}
	switch kind {
	case 1:
		m.Op = "ping"
		if f.Flags&(discKnown*asker) == 0 {
			f.Flags |= discKnown * asker
			m.ClientID = discNode(b)
		}
	case 2:
		m.Op = "pong"
		f.Flags |= discBonded * asker
	case 3:
		m.Op = "findnode"
		*asked = m.Txn
	case 4:
		m.Op = "neighbors"
		m.Txn = *asked
		if m.Txn == 0 {
			m.Kind = dissect.KindData
		}
	case 5:
		m.Op = "enrrequest"
	case 6:
		m.Op = "enrresponse"
	}
	return n, nil
}

// discNode is the node id of the sender: the keccak256 of the key that signed;
// nil if the signature is not one.
func discNode(b []byte) []byte {
	key := discKey(b)
	if key == nil {
		return nil
	}
	return keccak256(key)
}

// discKey is the public key, x and y, that signed a packet; nil if none did.
func discKey(b []byte) []byte {
	// The module wants the recovery code first, 27 and up.
	var signature [65]byte
	signature[0] = b[discType-1] + 27
	copy(signature[1:], b[discHash:discType-1])
	key, _, err := ecdsa.RecoverCompact(signature[:], keccak256(b[discType:]))
	if err != nil {
		return nil
	}
	return key.SerializeUncompressed()[1:]
}

func keccak256(b []byte) []byte {
	h := sha3.NewLegacyKeccak256()
	h.Write(b)
	return h.Sum(nil)
}
