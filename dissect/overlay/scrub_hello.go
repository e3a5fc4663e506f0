package overlay

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"

	"squall/dissect"
)

// scrubFlow is one direction of a flow whose ClientHello goes on.
type scrubFlow struct {
	from, to dissect.Endpoint
	proto    uint8
}

func scrubFlowOf(d *dissect.Datagram) scrubFlow {
	return scrubFlow{d.Source(), d.Destination(), d.Proto}
}

// maxScrubFlows bounds what is remembered of flows; beyond it all is forgotten.
const maxScrubFlows = 1 << 16

// unfinished is a ClientHello of which more is to come.
type unfinished struct {
	next  uint32 // sequence number
	hello []byte // its record as far as it was seen
}

// serverName finds the host name of SNI in a ClientHello that begins with its
// message type and may be cut: RFC 6066 section 3. The name may end beyond b; to is
// 0 where there is none, and whole says that b holds all extensions.
func serverName(b []byte) (from, to int, whole bool) {
	c := dissect.NewCursor(b)
	c.Skip(4 + 2 + 32)
	c.Skip(int(c.U8()))
	c.Skip(int(c.U16()))
	c.Skip(int(c.U8()))
	left := int(c.U16())
	if c.Err() != nil {
		return 0, 0, false
	}
	for at := len(b) - c.Len(); left >= 4; {
		if at+4 > len(b) {
			return 0, 0, false
		}
		kind, n := int(b[at])<<8|int(b[at+1]), int(b[at+2])<<8|int(b[at+3])
		if kind == 0 && n > 5 {
			return at + 4 + 5, at + 4 + n, true
		}
		at, left = at+4+n, left-4-n
	}
	return 0, 0, true
}

const tlsRecord = 5 // bytes of the header

// sni overwrites the server's name in a ClientHello over TCP, also where the hello
// or the name goes on in the next segment.
func (s *Scrubber) sni(protocol string, d *dissect.Datagram) {
	b, k := d.Payload, scrubFlowOf(d)
	u, known := s.hellos[k]
	switch {
	case known && u.next == d.Seq && len(b) > 0:
	case len(b) > tlsRecord && b[0] == 22 && b[tlsRecord] == 1:
		u = unfinished{next: d.Seq}
	default:
		return
	}
	before := len(u.hello)
	u.hello = append(u.hello, b...)
	u.next += uint32(len(b))
	delete(s.hellos, k)
	from, to, whole := serverName(u.hello[min(tlsRecord, len(u.hello)):])
	if to > 0 {
		if lo, hi := max(from+tlsRecord-before, 0), min(to+tlsRecord-before, len(b)); lo < hi {
			if name := b[lo:hi]; protocol == "tor" && torName(name, true) {
				s.torName(name)
			} else {
				s.Name(name)
			}
		}
	}
	if whole && to+tlsRecord <= len(u.hello) || len(u.hello) > quicMaxCrypto {
		return
	}
	if s.hellos == nil || len(s.hellos) >= maxScrubFlows {
		s.hellos = map[scrubFlow]unfinished{}
	}
	s.hellos[k] = u
}

// torName overwrites the made-up name that a Tor client asks for with another one
// that is known for the same.
func (s *Scrubber) torName(name []byte) {
	made := name[len("www.") : len(name)-len(".com")]
	s.Name(made)
	for i, c := range made {
		if c >= '0' && c <= '9' {
			made[i] = '2' + (c-'0')%6
		}
	}
}

// quic opens the Initials of a datagram, overwrites the server's name in what a
// client sends, and seals them again, tag and all. A hello that goes on in another
// datagram keeps nothing; an Initial that cannot be opened, neither by its own id
// nor by the first one of its flow, loses what is sealed. What a server says in an
// Initial names nobody and stays.
func (s *Scrubber) quic(d *dissect.Datagram) {
	k := scrubFlowOf(d)
	for p, ok := readQUIC(d.Payload); ok; p, ok = readQUIC(p.rest) {
		if p.version != 0 && p.kind == quicInitial && p.number > 0 {
			s.initial(&p, k)
		}
		if len(p.rest) == 0 {
			return
		}
	}
}

func (s *Scrubber) initial(p *quicPacket, k scrubFlow) {
	for _, id := range [][]byte{p.dst, s.ids[k]} {
		if id == nil {
			continue
		}
		frames, opened := openQUIC(p, id, "client in")
		if !opened {
			continue
		}
		if s.ids == nil || len(s.ids) >= maxScrubFlows {
			s.ids = map[scrubFlow][]byte{}
		}
		s.ids[k] = bytes.Clone(id)
		if s.crypto(frames) {
			resealQUIC(p, id, "client in", frames)
		}
		return
	}
	back := scrubFlow{k.to, k.from, k.proto}
	if id := s.ids[back]; id != nil {
		if _, opened := openQUIC(p, id, "server in"); opened {
			return
		}
	}
	if p.number < len(p.data) {
		clear(p.data[p.number:])
	}
}

// crypto cleans the ClientHello in the frames of an Initial; false = nothing to do.
func (s *Scrubber) crypto(frames []byte) bool {
	type piece struct {
		offset int
		data   []byte
	}
	var pieces []piece
	end := 0
	quicFrames(frames, func(offset uint64, data []byte) {
		if offset+uint64(len(data)) <= quicMaxCrypto {
			pieces = append(pieces, piece{int(offset), data})
			end = max(end, int(offset)+len(data))
		} else {
			clear(data)
		}
	})
	if len(pieces) == 0 {
		return false
	}
	hello, sum := make([]byte, end), 0
	for _, p := range pieces {
		sum += copy(hello[p.offset:], p.data)
	}
	from, to, whole := serverName(hello)
	if sum < end || hello[0] != 1 || !whole || to > end {
		for _, p := range pieces {
			clear(p.data)
		}
		return true
	}
	if to == 0 {
		return false
	}
	s.Name(hello[from:to])
	for _, p := range pieces {
		copy(p.data, hello[p.offset:])
	}
	return true
}

// resealQUIC protects frames, as long as before, in place of what a packet holds:
// RFC 9001 sections 5.3 and 5.4.
func resealQUIC(p *quicPacket, id []byte, side string, frames []byte) {
	key, iv, hp := quicKeys(p.version, id, side)
	header, err := aes.NewCipher(hp)
	if err != nil {
		return
	}
	var mask [16]byte
	header.Encrypt(mask[:], p.data[p.number+4:p.number+20])
	p.data[0] ^= mask[0] & 0x0f
	size := int(p.data[0]&3) + 1
	for i := range size {
		p.data[p.number+i] ^= mask[1+i]
		iv[12-size+i] ^= p.data[p.number+i]
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return
	}
	sealed := aead.Seal(nil, iv, frames, p.data[:p.number+size])
	copy(p.data[p.number+size:], sealed)
	header.Encrypt(mask[:], p.data[p.number+4:p.number+20])
	p.data[0] ^= mask[0] & 0x0f
	for i := range size {
		p.data[p.number+i] ^= mask[1+i]
	}
}

// NamesIn are the names of servers that a payload gives to whoever reads it: SNI in
// a ClientHello of TLS or QUIC. It is what anonymised packets are searched with, and
// reads what the overlay's protocols read, without the code that replaces.
func NamesIn(d *dissect.Datagram) (names []string) {
	add := func(h ClientHello, ok bool) {
		if ok && len(h.ServerName) > 0 {
			names = append(names, string(h.ServerName))
		}
	}
	b := d.Payload
	if d.Proto == dissect.ProtoTCP {
		if len(b) > tlsRecord+4 && b[0] == 22 && b[tlsRecord] == 1 {
			h, _ := ReadClientHello(b[tlsRecord+4:])
			add(h, true)
		}
		return names
	}
	if (quic{}).Probe(d) != dissect.Yes {
		return nil
	}
	for p, ok := readQUIC(b); ok; p, ok = readQUIC(p.rest) {
		if p.version != 0 && p.kind == quicInitial {
			if frames, opened := openQUIC(&p, p.dst, "client in"); opened {
				add(quicHello(quicPieces(nil, frames)))
			}
		}
		if len(p.rest) == 0 {
			break
		}
	}
	return names
}
