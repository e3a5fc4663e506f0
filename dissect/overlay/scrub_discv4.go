package overlay

import (
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"squall/dissect"
)

// maxDiscHashes bounds the packets whose new hashes are known to their answers.
const maxDiscHashes = 1 << 16

// discv4 gives every node another key, changes what a packet says, and signs and
// hashes it again. An answer names the hash that its request has now. What cannot be
// signed anew is blanked. False: it is no packet of discv4.
func (s *Scrubber) discv4(d *dissect.Datagram) bool {
	b := d.Payload
	if (discv4{}).Probe(d) != dissect.Yes || s.Secret == nil {
		return false
	}
	var was [discHash]byte
	copy(was[:], b)
	key := discKey(b)
	if key == nil {
		return false
	}
	body, _ := rlpList(b[discHeader:])
	clear(b[len(b)-len(rlpBehind(b[discHeader:])):]) // no part of the list, and ignored
	switch b[discType] {
	case 1: // [version, from, to, ...]
		from := rlpBehind(body)
		s.discEndpoint(from)
		s.discEndpoint(rlpBehind(from))
	case 2: // [to, ping hash, ...]
		s.discEndpoint(body)
		s.discAnswers(rlpBehind(body))
	case 3: // [target, ...]
		s.discName(body)
	case 4: // [[[ip, udp, tcp, id], ...], ...]
		nodes, _ := rlpList(body)
		for len(nodes) > 0 {
			node, ok := rlpList(nodes)
			if !ok {
				break
			}
			s.discEndpoint(nodes)
			for range 3 {
				node = rlpBehind(node)
			}
			s.discName(node)
			nodes = rlpBehind(nodes)
		}
	case 6: // [request hash, [signature, seq, key, value, ...]]
		s.discAnswers(body)
		record, _ := rlpList(rlpBehind(body))
		clear(rlpString(record)) // of another record
		for rest := rlpBehind(rlpBehind(record)); len(rest) > 0; rest = rlpBehind(rest) {
			name := string(rlpString(rest))
			rest = rlpBehind(rest)
			switch value := rlpString(rest); name {
			case "ip":
				if len(value) == 4 {
					s.four(value)
				}
			case "ip6":
				if len(value) == 16 {
					s.sixteen(value)
				}
			case "secp256k1":
				if was, err := secp256k1.ParsePubKey(value); err == nil && len(value) == 33 {
					copy(value, s.discOther(was.SerializeUncompressed()[1:]).PubKey().SerializeCompressed())
				}
			}
		}
	}
	other := s.discOther(key)
	signature := ecdsa.SignCompact(other, keccak256(b[discType:]), false)
	copy(b[discHash:], signature[1:])
	b[discType-1] = signature[0] - 27
	copy(b, keccak256(b[discHash:]))
	if s.discHashes == nil || len(s.discHashes) >= maxDiscHashes {
		s.discHashes = map[[discHash]byte][discHash]byte{}
	}
	s.discHashes[was] = [discHash]byte(b[:discHash])
	return true
}

// discOther is the key pair that stands for a public key.
func (s *Scrubber) discOther(public []byte) *secp256k1.PrivateKey {
	secret := s.Secret(public)
	return secp256k1.PrivKeyFromBytes(secret[:])
}

// discName replaces the public key of 64 bytes that b begins with.
func (s *Scrubber) discName(b []byte) {
	if id := rlpString(b); len(id) == 64 {
		copy(id, s.discOther(id).PubKey().SerializeUncompressed()[1:])
	}
}

// discAnswers replaces the hash of a request. One of a packet that was not seen is
// nobody's.
func (s *Scrubber) discAnswers(b []byte) {
	hash := rlpString(b)
	if len(hash) != discHash {
		return
	}
	is, ok := s.discHashes[[discHash]byte(hash)]
	if !ok {
		is = s.Secret(hash)
	}
	copy(hash, is[:])
}

// discEndpoint replaces the address that the list at b begins with.
func (s *Scrubber) discEndpoint(b []byte) {
	list, ok := rlpList(b)
	if !ok {
		return
	}
	switch ip := rlpString(list); len(ip) {
	case 4:
		s.four(ip)
	case 16:
		s.sixteen(ip)
	}
}

// rlpString is the string that b begins with; nil = none.
func rlpString(b []byte) []byte {
	if len(b) == 0 || b[0] >= 0xc0 {
		return nil
	}
	item, _ := rlpItem(b)
	return item
}

// rlpBehind is what follows the string or list that b begins with.
func rlpBehind(b []byte) []byte {
	_, rest := rlpItem(b)
	return rest
}
