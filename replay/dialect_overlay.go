package replay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"squall/dissect"
)

// dht is find_node of BitTorrent's DHT (BEP 5, protocols.md section G.3). The
// node asks nobody in return, since no peer is announced.
type dht struct{}

func (dht) Name() string                 { return "bt-dht" }
func (dht) Transport() dissect.Transport { return dissect.UDP }
func (dht) Work() string {
	return "a look into the routing table; nothing is stored, no token is made"
}
func (dht) Repeat(int) time.Duration { return 0 } // a query has one answer or none

func (dht) id(dst []byte, who *Identity, k uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, who.lasting(k))
	dst = binary.BigEndian.AppendUint64(dst, who.lasting(k+1))
	return binary.BigEndian.AppendUint32(dst, uint32(who.lasting(k+2)))
}

func (d dht) Request(dst []byte, who *Identity) []byte {
	dst = d.id(append(dst, "d1:ad2:id20:"...), who, 1)
	dst = d.id(append(dst, "6:target20:"...), who, 4)
	dst = append(dst, "e1:q9:find_node1:t4:"...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(who.fresh(0)))
	return append(dst, "1:v4:SQ001:y1:qe"...)
}

// krpcTxn is the t of a message whose keys come in order, as they must: it is
// looked for from the end, where no string of the other side stands before it.
func krpcTxn(b []byte) []byte {
	i := bytes.LastIndex(b, []byte("1:t4:"))
	if i < 0 || len(b) < i+9 {
		return nil
	}
	return b[i+5 : i+9]
}

func (dht) Read(who *Identity, got []byte) Reply {
	txn := krpcTxn(got)
	if txn == nil || binary.BigEndian.Uint32(txn) != uint32(who.fresh(0)) {
		return Reply{}
	}
	switch {
	case bytes.HasSuffix(got, []byte("1:y1:re")):
		return Reply{N: len(got), Kind: dissect.KindAccept}
	case bytes.HasSuffix(got, []byte("1:y1:ee")):
		return Reply{N: len(got), Kind: dissect.KindRefuse}
	}
	return Reply{}
}

func (dht) Serve(b []byte) Asked {
	if len(b) < 32 || !bytes.HasPrefix(b, []byte("d1:ad2:id20:")) || !bytes.HasSuffix(b, []byte("1:y1:qe")) || krpcTxn(b) == nil {
		return Asked{}
	}
	return Asked{N: len(b), Kind: dissect.KindRequest, Client: hash(b[12:32]), head: b}
}

func (dht) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	txn := krpcTxn(to.head)
	if say != dissect.KindAccept { // no word for "later"
		return append(append(append(dst, "d1:eli202e12:Server Errore1:t4:"...), txn...), "1:y1:ee"...)
	}
	dst = append(append(dst, "d1:rd2:id20:squall-testnode-0001"...), "5:nodes0:e1:t4:"...)
	return append(append(dst, txn...), "1:y1:re"...)
}

// bitcoin is the handshake of Bitcoin and its test networks (protocols.md
// section H.1), the network chosen by the target's port. No address of either
// side is told.
type bitcoin struct{}

const bitcoinHead = 24

func (bitcoin) Name() string                 { return "bitcoin" }
func (bitcoin) Transport() dissect.Transport { return dissect.TCP }
func (bitcoin) Work() string {
	return "the handshake and a peer's slot; no blocks or transactions are asked for"
}
func (bitcoin) Repeat(int) time.Duration { return 0 }

// Life is a ping with a nonce of its own (BIP 31).
func (bitcoin) Life(dst []byte, who *Identity, k uint64) []byte {
	return appendBitcoin(dst, bitcoinMagic(who.Remote.Port()), "ping", binary.BigEndian.AppendUint64(nil, who.fresh(16+k)))
}

// bitcoinMagic is the mark of a network by its usual port; the main network's
// for any other.
func bitcoinMagic(port uint16) []byte {
	switch port {
	case 18333:
		return []byte{0x0b, 0x11, 0x09, 0x07}
	case 48333:
		return []byte{0x1c, 0x16, 0x3f, 0x28}
	case 38333:
		return []byte{0x0a, 0x03, 0xcf, 0x40}
	case 18444:
		return []byte{0xfa, 0xbf, 0xb5, 0xda}
	}
	return []byte{0xf9, 0xbe, 0xb4, 0xd9}
}

func appendBitcoin(dst, magic []byte, command string, payload []byte) []byte {
	dst = append(dst, magic...)
	dst = append(append(dst, command...), make([]byte, 12-len(command))...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	sum := sha256.Sum256(payload)
	sum = sha256.Sum256(sum[:])
	return append(append(dst, sum[:4]...), payload...)
}

func appendVersion(dst, magic []byte, nonce uint64, agent string) []byte {
	var p []byte
	p = binary.LittleEndian.AppendUint32(p, 70016)
	p = append(p, make([]byte, 8)...)                                     // no services
	p = binary.LittleEndian.AppendUint64(p, 1_300_000_000)                // a clock that nobody is judged by
	p = append(p, make([]byte, 26+26)...)                                 // no addresses
	p = binary.LittleEndian.AppendUint64(p, nonce)                        // one's own would be a connection to oneself
	p = append(append(p, byte(len(agent))), agent...)                     //
	return appendBitcoin(dst, magic, "version", append(p, 0, 0, 0, 0, 0)) // height 0, no relay
}

func (bitcoin) Request(dst []byte, who *Identity) []byte {
	agent := "/squall:1/"
	if who.Version != "" && len(who.Version) < 0xfd {
		agent = who.Version
	}
	return appendVersion(dst, bitcoinMagic(who.Remote.Port()), who.fresh(0), agent)
}

// message cuts the first message; n is 0 while it is not all there.
func (bitcoin) message(b []byte) (command string, payload []byte, n int) {
	if len(b) < bitcoinHead {
		return "", nil, 0
	}
	length := int(binary.LittleEndian.Uint32(b[16:]))
	if length > headMost {
		return "oversized", nil, len(b)
	}
	if len(b) < bitcoinHead+length {
		return "", nil, 0
	}
	return string(bytes.TrimRight(b[4:16], "\x00")), b[bitcoinHead : bitcoinHead+length], bitcoinHead + length
}

func (p bitcoin) Read(who *Identity, got []byte) Reply {
	command, payload, n := p.message(got)
	if n == 0 {
		return Reply{}
	}
	r := Reply{N: n, Kind: dissect.KindProgress}
	switch command {
	case "version":
		r.Next = appendBitcoin(nil, got[:4], "verack", nil)
	case "verack":
		r.Kind = dissect.KindAccept
	case "reject":
		if len(payload) > 8 && string(payload[1:8]) == "version" {
			r.Kind = dissect.KindRefuse
		}
	case "oversized":
		r.Kind = dissect.KindRefuse
	}
	return r
}

func (p bitcoin) Serve(b []byte) Asked {
	command, payload, n := p.message(b)
	switch {
	case n == 0 && len(b) <= headMost:
		return Asked{}
	case n == 0 || command == "oversized":
		return Asked{N: len(b), Kind: dissect.KindClose}
	case command != "version" || len(payload) < 81:
		return Asked{N: n, Kind: dissect.KindData, Life: command == "ping", head: b[:n]}
	}
	return Asked{N: n, Kind: dissect.KindRequest, head: b[:n]}
}

func (bitcoin) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	magic := to.head[:4]
	if to.Life {
		return appendBitcoin(dst, magic, "pong", to.head[bitcoinHead:])
	}
	if say != dissect.KindAccept { // BIP 61; there is no word for "later"
		return appendBitcoin(dst, magic, "reject", append([]byte("\x07version\x10\x08too many"), 0)[:18])
	}
	dst = appendVersion(dst, magic, mix(5, hash(to.head[bitcoinHead+72:bitcoinHead+80])), "/squall-testnode:1/")
	return appendBitcoin(dst, magic, "verack", nil)
}

// nebula is the first flight of a handshake with a lighthouse (protocols.md
// section C.2): an ephemeral key of its own, the static key and the certificate
// of the client in clear. A lighthouse answers only to certificates of its own
// authority: the credentials of a run are those of the test network. Without
// them the certificate is made up, which a test node takes and a lighthouse
// does not. The secret keys are not needed: what would prove them, the second
// flight, is not sent.
type nebula struct{}

const nebulaHead = 16

func (nebula) Name() string                 { return "nebula" }
func (nebula) Transport() dissect.Transport { return dissect.UDP }
func (nebula) Work() string {
	return "the first flight and its answer; no tunnel comes up, so no capacity for tunnels is shown"
}

// Repeat: 100 ms longer from try to try, ten sends of one burst.
func (nebula) Repeat(k int) time.Duration {
	if k > 9 {
		return 0
	}
	return 100 * time.Millisecond * time.Duration(k*(k+1)/2)
}

func appendField(dst []byte, number int, body []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(number)<<3|2)
	return append(binary.AppendUvarint(dst, uint64(len(body))), body...)
}

func appendNumber(dst []byte, number int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(number)<<3), v)
}

func (nebula) Request(dst []byte, who *Identity) []byte {
	key, cert := who.Login.publicKey, who.Login.certificate
	if cert == nil {
		for k := range uint64(4) {
			key = binary.BigEndian.AppendUint64(key, who.lasting(10+k))
		}
		details := appendField(nil, 1, fmt.Appendf(nil, "c%016x", who.lasting(0)))
		details = appendNumber(details, 5, 1_300_000_000)
		details = appendNumber(details, 6, 4_000_000_000)
		details = appendField(details, 9, make([]byte, 32))
		cert = appendField(appendField(nil, 1, details), 2, make([]byte, 64))
	}
	dst = append(dst, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
	for k := range uint64(4) {
		dst = binary.BigEndian.AppendUint64(dst, who.fresh(10+k))
	}
	dst = append(dst, key...)
	details := appendField(nil, 1, cert)
	details = appendNumber(details, 2, uint64(uint32(who.fresh(0))|1))
	details = appendNumber(details, 5, uint64(who.fresh(1)>>1)) // the cookie of a real one is a time
	return appendField(dst, 1, details)
}

func (nebula) Read(who *Identity, got []byte) Reply {
	if len(got) < nebulaHead || got[0] != 0x10 || binary.BigEndian.Uint32(got[4:]) != uint32(who.fresh(0))|1 || got[15] != 2 {
		return Reply{}
	}
	return Reply{N: len(got), Kind: dissect.KindAccept}
}

func (nebula) Serve(b []byte) Asked {
	if len(b) < nebulaHead+64+2 || b[0] != 0x10 || b[15] != 1 || binary.BigEndian.Uint32(b[4:]) != 0 || b[nebulaHead+64] != 0x0a || nebulaIndex(b) == 0 {
		return Asked{}
	}
	return Asked{N: len(b), Kind: dissect.KindRequest, Client: hash(b[nebulaHead+32 : nebulaHead+64]), head: b}
}

// nebulaIndex is the initiator's index in a first flight, 0 = none.
func nebulaIndex(b []byte) uint32 {
	rest := b[nebulaHead+64:]
	_, n := binary.Uvarint(rest)
	size, k := binary.Uvarint(rest[max(n, 0):])
	if n <= 0 || k <= 0 {
		return 0
	}
	rest = rest[n+k:]
	rest = rest[:min(size, uint64(len(rest)))]
	for len(rest) > 0 {
		field, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0
		}
		v, k := binary.Uvarint(rest[n:])
		if k <= 0 {
			return 0
		}
		rest = rest[n+k:]
		switch {
		case field == 2<<3:
			return uint32(v)
		case field&7 == 2:
			rest = rest[min(v, uint64(len(rest))):]
		}
	}
	return 0
}

// Answer: a lighthouse that does not want to says nothing.
func (nebula) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	if say != dissect.KindAccept {
		return dst
	}
	dst = append(dst, 0x10, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, nebulaIndex(to.head))
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 2)
	return append(dst, make([]byte, 254)...)
}
