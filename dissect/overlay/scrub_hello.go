package overlay

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

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

// sni overwrites the server's name in the ClientHellos of a stream, wherever they
// begin: behind a CONNECT, or a STARTTLS.
func (s *Scrubber) sni(protocol string, b []byte) {
	for i := 0; i+tlsRecord+4 < len(b); i++ {
		if !clientHello(b[i:]) {
			continue
		}
		hello := b[i+tlsRecord:]
		from, to, _ := serverName(hello)
		if to = min(to, len(hello)); from >= to {
			continue
		}
		if name := hello[from:to]; protocol == "tor" && torName(name, true) {
			s.torName(name)
		} else if printable(name) {
			s.Name(name)
		}
	}
}

// clientHello reports a record of TLS that begins with a ClientHello.
func clientHello(b []byte) bool {
	return len(b) > tlsRecord+4 && b[0] == 22 && b[1] == 3 && b[2] <= 4 && b[tlsRecord] == 1 && b[tlsRecord+1] == 0
}

// gquic overwrites the server's name that a client of Google's QUIC says, and reports
// that it is sealed.
func (s *Scrubber) gquic(d *dissect.Datagram) (sealed bool) {
	b := d.Payload
	if len(b) < gquicLeast {
		return false
	}
	if b[0]&0x80 != 0 && binary.BigEndian.Uint32(b[1:]) == quicQ050 {
		s.quic(d)
		return true
	}
	if chlo := gquicMessage(b, "CHLO"); chlo != nil {
		s.Name(gquicTag(chlo, "SNI\x00"))
	}
	return false
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
	if chlo, ok := bytes.CutPrefix(hello, []byte("CHLO")); ok && sum >= end { // of Google's
		name := gquicTag(chlo, "SNI\x00")
		if len(name) == 0 {
			return false
		}
		s.Name(name)
		for _, p := range pieces {
			copy(p.data, hello[p.offset:])
		}
		return true
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

// NewNamesIn makes what tells the names that a payload, or a stream from its beginning,
// gives to whoever reads it: of servers and of clients, as the readers of the protocols
// and of ClientHellos find them. It is what anonymised packets are searched with, apart
// from the code that replaces. The function is for one goroutine.
func NewNamesIn() func(protocol string, d *dissect.Datagram) []string {
	r := streamReaders{}
	return func(protocol string, d *dissect.Datagram) (names []string) {
		add := func(name []byte) {
			if len(name) > 0 && printable(name) {
				names = append(names, string(name))
			}
		}
		helloNames(d, add)
		r.each(protocol, d, func(m *dissect.Message) {
			add(m.ClientID)
			add(m.ServerName)
		})
		return names
	}
}

// streamReaders are the protocols by name.
type streamReaders map[string][]dissect.Protocol

// each reads the messages of a datagram, or of a stream, as far as they can be read. Of
// a stream, Flags are those of the SYN that it began with.
func (r streamReaders) each(protocol string, d *dissect.Datagram, see func(*dissect.Message)) {
	if len(r) == 0 {
		for _, p := range All() {
			r[p.Name()] = append(r[p.Name()], p)
		}
	}
	want, at := dissect.TCP, *d
	if d.Proto == dissect.ProtoUDP {
		want = dissect.UDP
	}
	for _, p := range r[protocol] {
		if p.Transports()&want == 0 || want == dissect.UDP && p.Probe(d) == dissect.No {
			continue
		}
		f := dissect.Flow{FromClient: want == dissect.UDP || d.Flags&(dissect.SYN|dissect.ACK) != dissect.SYN|dissect.ACK, Established: true}
		for at.Payload = d.Payload; len(at.Payload) > 0; {
			at.PayloadLen, f.SegLen = len(at.Payload), len(at.Payload)
			m := dissect.Message{FromClient: f.FromClient}
			n, err := p.Dissect(&at, &f, &m)
			if err != nil || n <= 0 || n > len(at.Payload) {
				break
			}
			see(&m)
			f.Seen += int64(n)
			at.Payload = at.Payload[n:]
		}
	}
}

// helloNames tells the names of servers in hellos of TLS and QUIC.
func helloNames(d *dissect.Datagram, add func([]byte)) {
	b := d.Payload
	if d.Proto == dissect.ProtoTCP {
		if clientHello(b) {
			h, _ := ReadClientHello(b[tlsRecord+4:])
			add(h.ServerName)
		}
		return
	}
	if (quic{}).Probe(d) != dissect.Yes {
		return
	}
	for p, ok := readQUIC(b); ok; p, ok = readQUIC(p.rest) {
		if p.version != 0 && p.kind == quicInitial {
			if frames, opened := openQUIC(&p, p.dst, "client in"); opened {
				if h, ok := quicHello(quicPieces(nil, frames)); ok {
					add(h.ServerName)
				}
			}
		}
		if len(p.rest) == 0 {
			break
		}
	}
}
