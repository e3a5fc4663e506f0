package overlay

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"squall/dissect"
)

// quic is QUIC version 1 and 2, the drafts from 22 on, those of Facebook (mvfst) and Google's
// T050 and T051: RFC 9000 sections 17.2, 19,
// RFC 9001 section 5.2, RFC 9369; protocols.md I.4.
//
//	long header: 0 80|40|type<<4|.. | 1 4 version | 5 destination id (1+n) | source id (1+n)
//	Initial: token (varint+n) | length varint | packet number | AEAD
//	types: 0 Initial 1 0-RTT 2 Handshake 3 Retry; version 2: 1 2 3 0
//	Version Negotiation: version 0, then versions of 4 bytes; ?a?a?a?a asks for it (section 15)
//
// As TLS it is a carrier that does not tell the role. The client's Initial is
// the request; its keys follow from its destination id, so the ClientHello can
// be read (JA4 with 'q' is the version). Retry is a challenge (the server
// validates addresses, often because it is loaded), Version Negotiation and a
// CONNECTION_CLOSE in the server's Initial are refusals, a Handshake or 1-RTT
// packet of the server is the yes. A request is paired by the client's source
// id, which every answer is sent to; the same destination id is the same
// attempt. A ClientHello may come in several datagrams.
type quic struct{}

const (
	quicV1         = 0x00000001
	quicV2         = 0x6b3343cf
	quicDraft22    = 0xff000016
	quicDraft29    = 0xff00001d
	quicDraft34    = 0xff000022
	quicFacebook   = 0xfaceb000 // and the lowest 12 bits, nDPI quic.c
	quicT050       = 0x54303530 // of Google, with TLS
	quicT051       = 0x54303531
	quicQ050       = 0x51303530 // of Google, without: gquic reads it
	quicMaxID      = 20
	quicMinInitial = 1200 // bytes of a datagram with a client's Initial
	quicMaxCrypto  = 16 << 10
)

// quicType is a long header's type in the numbering of version 1.
type quicType uint8

const (
	quicInitial quicType = iota
	quicZeroRTT
	quicHandshake
	quicRetry
)

var errQUIC = errors.New("not a quic packet")

func (quic) Name() string                  { return "quic" }
func (quic) Transports() dissect.Transport { return dissect.UDP }

// quicPacket is one packet with a long header.
type quicPacket struct {
	kind       quicType
	version    uint32
	dst, src   []byte
	token      bool
	number     int    // offset of the packet number
	data, rest []byte // this packet, and what follows it in the datagram
}

func quicKnown(version uint32) bool {
	return version == quicV1 || version == quicV2 || version >= quicDraft22 && version <= quicDraft34 || version&^0xfff == quicFacebook ||
		version == quicT050 || version == quicT051
}

// quicReserved reports a version that no server has: who says it wants to hear which
// ones there are.
func quicReserved(version uint32) bool { return version&0x0f0f0f0f == 0x0a0a0a0a }

// varint is QUIC's variable-length number, RFC 9000 section 16.
func varint(c *dissect.Cursor) uint64 {
	first := c.U8()
	v := uint64(first & 0x3f)
	for range 1<<(first>>6) - 1 {
		v = v<<8 | uint64(c.U8())
	}
	return v
}

// readQUIC reads a long header; the length of a packet that was cut is taken as
// what is there.
func readQUIC(b []byte) (p quicPacket, ok bool) {
	if len(b) < 7 || b[0]&0x80 == 0 {
		return p, false
	}
	p.version = binary.BigEndian.Uint32(b[1:])
	c := dissect.NewCursor(b[5:])
	n := c.U8()
	p.dst = c.Bytes(int(n))
	k := c.U8()
	p.src = c.Bytes(int(k))
	if c.Err() != nil || n > quicMaxID || k > quicMaxID {
		return p, false
	}
	p.data = b
	if p.version == 0 {
		return p, true
	}
	if b[0]&0x40 != 0 && quicReserved(p.version) {
		return p, true // the rest may be anything
	}
	if !quicKnown(p.version) && p.version != quicQ050 || b[0]&0x40 == 0 {
		return p, false
	}
	p.kind = quicType(b[0] >> 4 & 3)
	if p.version == quicV2 {
		p.kind = (p.kind + 3) & 3
	}
	if p.kind == quicRetry {
		return p, true
	}
	if p.kind == quicInitial {
		size := varint(&c)
		p.token = size > 0
		if size > uint64(c.Len()) {
			return p, false
		}
		c.Skip(int(size))
	}
	size := varint(&c)
	if c.Err() != nil || size < 20 {
		return p, false
	}
	p.number = len(b) - c.Len()
	if size <= uint64(c.Len()) {
		end := p.number + int(size)
		p.data, p.rest = b[:end], b[end:]
	}
	return p, true
}

func (quic) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{
		{Starts: highBytes, Least: 7, At: 2, Mask: 0xff}, // versions begin with 00 00 or ff 00
		{Starts: highBytes, Least: 7, At: 2, Mask: 0xff, Want: quicV2 >> 16 & 0xff},
		{Starts: highBytes, Least: 7, At: 2, Mask: 0xff, Want: quicFacebook >> 16 & 0xff},
		{Starts: highBytes, Least: 7, At: 2, Mask: 0x0f, Want: 0x0a},
		{Starts: highBytes, Least: 7, At: 1, Mask: 0xff, Want: 'T'},
	}
}

func (quic) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < 7 || b[0]&0x80 == 0 {
		return dissect.No
	}
	version := binary.BigEndian.Uint32(b[1:])
	if version != 0 && !quicKnown(version) && (!quicReserved(version) || d.PayloadLen < quicMinInitial) {
		return dissect.No
	}
	p, ok := readQUIC(b)
	switch {
	case !ok:
		return dissect.No
	case quicReserved(p.version):
		return dissect.Maybe
	case p.version != 0:
		return dissect.Yes
	}
	// Version Negotiation: whole versions, one of them known.
	for list := b[7+len(p.dst)+len(p.src):]; len(list) >= 4; list = list[4:] {
		if quicKnown(binary.BigEndian.Uint32(list)) {
			return dissect.Yes
		}
	}
	return dissect.No
}

// The destination id of the client's first Initial, up to 18 bytes of it, is
// kept in Flow.A, Flow.B and Flow.Port, its length in Flow.Step: the server's
// Initial is opened with it.
const quicMaxKept = 18

func keepQUIC(f *dissect.Flow, id []byte) {
	var b [quicMaxKept]byte
	f.Step = uint8(len(id))
	copy(b[:], id)
	f.A, f.B, f.Port = binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint16(b[16:])
}

func keptQUIC(f *dissect.Flow, b *[quicMaxKept]byte) []byte {
	binary.BigEndian.PutUint64(b[:], f.A)
	binary.BigEndian.PutUint64(b[8:], f.B)
	binary.BigEndian.PutUint16(b[16:], f.Port)
	return b[:min(f.Step, quicMaxKept)]
}

// quicAnswered marks in Flow.Flags that the server's yes was read.
const quicAnswered = 1

func (quic) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) == 0 {
		return 0, errQUIC
	}
	if b[0]&0x80 == 0 { // 1-RTT
		if b[0]&0x40 == 0 {
			return len(b), errQUIC
		}
		if !f.FromClient && f.Flags&quicAnswered == 0 {
			f.Flags |= quicAnswered
			m.Kind, m.Op, m.Encrypted = dissect.KindAccept, "1-RTT", true
		}
		return len(b), nil
	}
	p, ok := readQUIC(b)
	if !ok {
		return len(b), errQUIC
	}
	if p.version != 0 && p.kind == quicInitial && (f.FromClient || p.token) {
		if quicRequest(d, &p, f, m) || f.FromClient {
			return len(b), nil
		}
	}
	if f.FromClient {
		return len(b), nil
	}
	m.FromClient = false
	m.Chain = hashKey(1, p.dst)
	m.Txn = hash1(m.Chain) // the chain is what pairs
	switch {
	case p.version == 0:
		m.Kind, m.Op = dissect.KindRefuse, "Version Negotiation"
	case p.kind == quicRetry:
		m.Kind, m.Op = dissect.KindChallenge, "Retry"
	default:
		quicAnswer(&p, f, m)
	}
	return len(b), nil
}

// quicRequest reads a client's Initial. Only the first flight is sealed with
// keys that its own destination id gives; later Initials of the client are not
// requests, and false. A datagram that goes on with the ClientHello of the one
// before is no repeat of it.
func quicRequest(d *dissect.Datagram, p *quicPacket, f *dissect.Flow, m *dissect.Message) bool {
	frames, opened := openQUIC(p, p.dst, "client in")
	if !opened && f.Step != 0 && !quicReserved(p.version) {
		return false
	}
	if !opened && !d.Cut && d.PayloadLen < quicMinInitial {
		return false
	}
	var kept [quicMaxKept]byte
	held := m.Held
	if f.Step == 0 || !bytes.Equal(keptQUIC(f, &kept), p.dst[:min(len(p.dst), quicMaxKept)]) {
		held = nil // another attempt
	}
	m.Kind, m.Op, m.FromClient = dissect.KindRequest, "Initial", true
	m.Txn = hashKey(uint64(p.version), p.dst)
	m.Chain = hashKey(1, p.src)
	before := quicCovered(held)
	pieces := quicPieces(held, frames)
	if len(held) > 0 && quicCovered(pieces) > before {
		m.Kind = dissect.KindProgress
	} else {
		keepQUIC(f, p.dst)
		f.Flags &^= quicAnswered
	}
	h, ok := quicHello(pieces)
	m.Held = nil
	switch {
	case ok:
		h.describe(m, 'q')
	case m.Kind == dissect.KindProgress || len(held) == 0:
		m.Held = pieces
	default:
		m.Held = held
	}
	return true
}

// quicAnswer reads the packets of a server's datagram.
func quicAnswer(p *quicPacket, f *dissect.Flow, m *dissect.Message) {
	for ok := true; ok; *p, ok = readQUIC(p.rest) {
		switch p.kind {
		case quicInitial:
			var kept [quicMaxKept]byte
			frames, _ := openQUIC(p, keptQUIC(f, &kept), "server in")
			if quicClosed(frames) {
				m.Kind, m.Op = dissect.KindRefuse, "CONNECTION_CLOSE"
				return
			}
			if m.Kind == dissect.KindData {
				m.Kind, m.Op = dissect.KindProgress, "Initial"
			}
		case quicHandshake:
			if f.Flags&quicAnswered == 0 {
				f.Flags |= quicAnswered
				m.Kind, m.Op = dissect.KindAccept, "Handshake"
				m.Held = nil
			}
		}
		if len(p.rest) == 0 {
			return
		}
	}
}

// quicSalt is what the Initial keys of a version are derived with.
func quicSalt(version uint32) string {
	switch version {
	case quicV1, quicDraft34, quicDraft34 - 1:
		return "\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a"
	case quicDraft22, quicFacebook + 1:
		return "\x7f\xbc\xdb\x0e\x7c\x66\xbb\xe9\x19\x3a\x96\xcd\x21\x51\x9e\xbd\x7a\x02\x64\x4a"
	case quicQ050:
		return "\x50\x45\x74\xef\xd0\x66\xfe\x2f\x9d\x94\x5c\xfc\xdb\xd3\xa7\xf0\xd3\xb5\x6b\x45"
	case quicT050:
		return "\x7f\xf5\x79\xe5\xac\xd0\x72\x91\x55\x80\x30\x4c\x43\xa2\x36\x7c\x60\x48\x83\x10"
	case quicT051:
		return "\x7a\x4e\xde\xf4\xe7\xcc\xee\x5f\xa4\x50\x6c\x19\x12\x4f\xc8\xcc\xda\x6e\x03\x3d"
	case quicV2:
		return "\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9"
	}
	if version < quicDraft29 {
		return "\xc3\xee\xf7\x12\xc7\x2e\xbb\x5a\x11\xa7\xd2\x43\x2b\xb4\x63\x65\xbe\xf9\xf5\x02"
	}
	return "\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99"
}

// expand is HKDF-Expand-Label of TLS 1.3 with an empty context, RFC 8446 section 7.1.
func expand(secret []byte, label string, n int) []byte {
	info := make([]byte, 0, 32)
	info = append(info, byte(n>>8), byte(n), byte(len("tls13 ")+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	key, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		return make([]byte, n) // cannot be: n is small
	}
	return key
}

// quicKeys are key, iv and header key of one side's Initials.
func quicKeys(version uint32, id []byte, side string) (key, iv, hp []byte) {
	initial, err := hkdf.Extract(sha256.New, id, []byte(quicSalt(version)))
	if err != nil {
		initial = nil
	}
	secret := expand(initial, side, 32)
	prefix := "quic "
	if version == quicV2 {
		prefix = "quicv2 "
	}
	return expand(secret, prefix+"key", 16), expand(secret, prefix+"iv", 12), expand(secret, prefix+"hp", 16)
}

// openQUIC removes the protection of an Initial: RFC 9001 sections 5.3 and 5.4.
func openQUIC(p *quicPacket, id []byte, side string) (frames []byte, ok bool) {
	if p.number == 0 || len(p.data) < p.number+20 {
		return nil, false
	}
	key, iv, hp := quicKeys(p.version, id, side)
	block, err := aes.NewCipher(hp)
	if err != nil {
		return nil, false
	}
	var mask [16]byte
	block.Encrypt(mask[:], p.data[p.number+4:p.number+20])
	first := p.data[0] ^ mask[0]&0x0f
	size := int(first&3) + 1
	head := append([]byte(nil), p.data[:p.number+size]...)
	head[0] = first
	for i := range size {
		head[p.number+i] ^= mask[1+i]
		iv[12-size+i] ^= head[p.number+i]
	}
	if block, err = aes.NewCipher(key); err != nil {
		return nil, false
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, false
	}
	frames, err = aead.Open(nil, iv, p.data[p.number+size:], head)
	return frames, err == nil
}

// quicFrames walks the frames that an Initial may hold, RFC 9000 section 12.4.
func quicFrames(b []byte, crypto func(offset uint64, data []byte)) (closed bool) {
	c := dissect.NewCursor(b)
	for c.Len() > 0 {
		switch kind := c.U8(); kind {
		case 0, 1: // PADDING, PING
		case 2, 3: // ACK, ACK with ECN counts
			varint(&c)
			varint(&c)
			ranges := varint(&c)
			varint(&c)
			for ; ranges > 0 && c.Len() > 0; ranges-- {
				varint(&c)
				varint(&c)
			}
			if kind == 3 {
				varint(&c)
				varint(&c)
				varint(&c)
			}
		case 6, 8: // CRYPTO; it is 8 in Google's Q050, T050 and T051
			offset := varint(&c)
			size := varint(&c)
			if size > uint64(c.Len()) {
				return false
			}
			crypto(offset, c.Bytes(int(size)))
		case 0x1c:
			return true
		default:
			return false
		}
	}
	return false
}

func quicClosed(frames []byte) bool {
	return quicFrames(frames, func(uint64, []byte) {})
}

// The pieces of a ClientHello: offset2 length2 data, in the order in which they
// came; clients shuffle them, also over datagrams.
const quicMaxHeld = 8 << 10 // a hello with keys against quantum computers has 2 KiB

// quicPieces adds those of some frames to what is held; held may be written to.
func quicPieces(held, frames []byte) []byte {
	quicFrames(frames, func(offset uint64, data []byte) {
		if offset+uint64(len(data)) <= quicMaxCrypto && len(held)+4+len(data) <= quicMaxHeld {
			held = append(held, byte(offset>>8), byte(offset), byte(len(data)>>8), byte(len(data)))
			held = append(held, data...)
		}
	})
	return held
}

// quicJoin puts pieces in order; have tells the bytes that are there.
func quicJoin(pieces []byte) (buf []byte, have []bool) {
	for c := dissect.NewCursor(pieces); c.Len() > 0; {
		offset := int(c.U16())
		data := c.Bytes(int(c.U16()))
		if end := offset + len(data); end > len(buf) {
			buf, have = append(buf, make([]byte, end-len(buf))...), append(have, make([]bool, end-len(have))...)
		}
		copy(buf[offset:], data)
		for i := range data {
			have[offset+i] = true
		}
	}
	return buf, have
}

// quicCovered is how many bytes of the hello the pieces have.
func quicCovered(pieces []byte) (n int) {
	_, have := quicJoin(pieces)
	for _, h := range have {
		if h {
			n++
		}
	}
	return n
}

// quicHello reads a ClientHello whose pieces are all there.
func quicHello(pieces []byte) (h ClientHello, ok bool) {
	buf, have := quicJoin(pieces)
	if len(buf) < 4 || buf[0] != 1 || slices.Contains(have[:4], false) {
		return h, false
	}
	n := 4 + int(binary.BigEndian.Uint32(buf)&0xffffff)
	if n > len(buf) || slices.Contains(have[:n], false) {
		return h, false
	}
	h, err := ReadClientHello(buf[4:n])
	return h, err == nil
}
