package overlay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"
	"strconv"

	"squall/dissect"
)

// Scrubber takes addresses, names and credentials out of payloads, in place and
// without changing a length, so that what is left analyses as before: the same
// name always becomes the same other name. What a protocol encrypts stays.
type Scrubber struct {
	// Addr gives the address that stands for another one.
	Addr func(dissect.Addr) dissect.Addr
	// Name overwrites a name with one of the same length and kind of letters.
	Name func([]byte)
	// Known says whether the four or sixteen bytes are an address that occurs
	// in the capture; such bytes are replaced wherever they stand.
	Known func(dissect.Addr) bool
	// Secret gives bytes that stand for others, as seed of a key. It may be nil: then
	// what is signed is blanked.
	Secret func([]byte) [32]byte

	readers map[string]dissect.Protocol
	msg     dissect.Message
	whole   []byte
	done    []bool // bytes of whole that hold another address already
	hellos  map[scrubFlow]unfinished
	ids     map[scrubFlow][]byte // of QUIC: what the Initials of a client are sealed with

	discHashes map[[discHash]byte][discHash]byte // of packets of discv4, after what they were
}

// Scrub cleans the payload of one datagram or segment of a flow of the protocol.
func (s *Scrubber) Scrub(protocol string, d *dissect.Datagram) {
	b := d.Payload
	s.whole, s.done = b, slices.Grow(s.done[:0], len(b))[:len(b)]
	clear(s.done)
	switch protocol {
	case "discv4": // signed: nothing else may touch it
		if !s.discv4(d) {
			clear(b)
		}
		return
	case "sip":
		s.lines(b, sipLine(s))
	case "http", "bittorrent", "bt-tracker", "tor", "gnutella", "skype", "nats", "tinc", "libp2p", "derp":
		s.lines(b, s.httpLine)
	case "stun":
		s.stun(b)
	case "mqtt":
		s.mqtt(b)
	case "radius":
		s.radius(b)
	case "diameter":
		s.diameter(b)
	case "dns":
		s.dns(b, d.Proto == dissect.ProtoTCP)
	case "bitcoin":
		s.bitcoin(b)
	}
	if d.Proto == dissect.ProtoTCP {
		s.sni(protocol, d) // whatever speaks inside TLS
	} else if (quic{}).Probe(d) == dissect.Yes {
		s.quic(d) // sealed: nothing else may touch it
		return
	}
	if d.Proto == dissect.ProtoUDP {
		s.identity(protocol, d)
	}
	s.compact(b)
	s.texts(b)
	s.known(b)
}

// identity overwrites the name that the protocol's own reader finds in a
// datagram, where it is text. Readers are asked only for what their probe takes.
func (s *Scrubber) identity(protocol string, d *dissect.Datagram) {
	if s.readers == nil {
		s.readers = map[string]dissect.Protocol{}
		for _, p := range All() {
			if p.Transports()&dissect.UDP != 0 && p.Name() != "sip" { // its lines are cleaned already
				s.readers[p.Name()] = p
			}
		}
	}
	p := s.readers[protocol]
	if p == nil || p.Probe(d) == dissect.No {
		return
	}
	s.msg = dissect.Message{}
	f := dissect.Flow{FromClient: true, SegLen: len(d.Payload), Established: true}
	if _, err := p.Dissect(d, &f, &s.msg); err != nil || len(s.msg.ClientID) < 3 || !printable(s.msg.ClientID) {
		return
	}
	id := bytes.Clone(s.msg.ClientID)
	for at := 0; ; {
		i := bytes.Index(d.Payload[at:], id)
		if i < 0 {
			return
		}
		s.Name(d.Payload[at+i : at+i+len(id)])
		at += i + len(id)
	}
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

// lines calls each for the lines of a text, with the header's name in lower
// case, empty for the first line and those without a colon.
func (s *Scrubber) lines(b []byte, each func(name string, line []byte)) {
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		name := ""
		if i := bytes.IndexByte(line, ':'); i > 0 && i < 40 {
			name = string(bytes.ToLower(bytes.TrimSpace(line[:i])))
		}
		each(name, line)
	}
}

func value(line []byte) []byte {
	_, v, _ := bytes.Cut(line, []byte(":"))
	return bytes.TrimSpace(v)
}

// blank overwrites a secret.
func blank(b []byte) {
	for i := range b {
		b[i] = 'x'
	}
}

// quoted gives the text between the quotes after key=, e.g. username="alice".
func quoted(line []byte, key string) []byte {
	i := bytes.Index(line, []byte(key+`="`))
	if i < 0 {
		return nil
	}
	v := line[i+len(key)+2:]
	if j := bytes.IndexByte(v, '"'); j >= 0 {
		return v[:j]
	}
	return v
}

func (s *Scrubber) httpLine(name string, line []byte) {
	switch name {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		blank(value(line))
	case "guid":
		s.Name(value(line))
	case "host", "location", "origin", "referer":
		s.host(value(line))
	case "x-try", "x-try-ultrapeers", "x-try-hubs", "remote-ip", "listen-ip", "x-my-address", "node", "x-node", "pong-caching-addresses":
		s.quads(value(line))
	}
	if name == "" && bytes.HasPrefix(line, []byte("0 ")) { // tinc
		id, _, _ := bytes.Cut(line[2:], []byte(" "))
		s.Name(id)
	}
	if i := bytes.Index(line, []byte("CONNECT {")); i == 0 { // NATS
		for _, key := range []string{`"pass":"`, `"auth_token":"`, `"jwt":"`, `"sig":"`, `"nkey":"`, `"user":"`} {
			if i := bytes.Index(line, []byte(key)); i >= 0 {
				v, _, _ := bytes.Cut(line[i+len(key):], []byte(`"`))
				blank(v)
			}
		}
	}
	secretsIn(line)
	if i := bytes.Index(line, []byte("ip=")); i > 0 && (line[i-1] == '?' || line[i-1] == '&') {
		s.quads(line[i:])
	}
}

// urlSecrets are parameters of URLs that let their holder in: the pass keys of
// private trackers, tokens of APIs.
var urlSecrets = [][]byte{[]byte("passkey="), []byte("torrent_pass="), []byte("authkey="), []byte("access_token="), []byte("token="), []byte("api_key="), []byte("apikey="),
	[]byte("password="), []byte("passwd="), []byte("secret=")}

// secretsIn blanks the parameters of a URL that are secret.
func secretsIn(line []byte) {
	for _, key := range urlSecrets {
		for rest := line; ; {
			i := bytes.Index(rest, key)
			if i < 0 {
				break
			}
			known := i > 0 && (rest[i-1] == '?' || rest[i-1] == '&')
			rest = rest[i+len(key):]
			if v := rest; known {
				if k := bytes.IndexAny(v, "& #\r\n"); k >= 0 {
					v = v[:k]
				}
				blank(v)
			}
		}
	}
}

// host overwrites a host name, or the name in a URL; addresses are left to texts.
func (s *Scrubber) host(b []byte) {
	if i := bytes.Index(b, []byte("://")); i >= 0 {
		b = b[i+3:]
	}
	if i := bytes.IndexAny(b, "/:?;> "); i >= 0 {
		b = b[:i]
	}
	if len(b) == 0 || b[0] == '[' {
		return
	}
	if _, n := quad(b); n == len(b) {
		s.quads(b)
		return
	}
	s.Name(b)
}

func sipLine(s *Scrubber) func(string, []byte) {
	return func(name string, line []byte) {
		switch name {
		case "authorization", "proxy-authorization":
			blank(quoted(line, "response"))
			if u := quoted(line, "username"); u != nil {
				s.Name(u)
			}
		case "call-id", "i":
			s.Name(value(line))
		case "from", "f", "to", "t", "contact", "m":
			v := value(line)
			if i := bytes.IndexByte(v, '<'); i > 0 {
				s.Name(v[:i])
			}
		case "via", "v":
			if _, at, ok := bytes.Cut(value(line), []byte(" ")); ok {
				s.host(bytes.TrimSpace(at))
			}
		case "":
			if bytes.HasPrefix(line, []byte("o=")) { // SDP
				user, _, _ := bytes.Cut(line[2:], []byte(" "))
				s.Name(user)
			}
		}
		rest := line
		for {
			i := bytes.Index(rest, []byte("sip:"))
			j := bytes.Index(rest, []byte("sips:"))
			switch {
			case i < 0 && j < 0:
				return
			case j >= 0 && (i < 0 || j < i):
				rest = rest[j+5:]
			default:
				rest = rest[i+4:]
			}
			uri := rest
			if k := bytes.IndexAny(uri, " >\"\r\n;?"); k >= 0 {
				uri = uri[:k]
			}
			if user, host, ok := bytes.Cut(uri, []byte("@")); ok {
				user, pass, _ := bytes.Cut(user, []byte(":"))
				s.Name(user)
				blank(pass)
				uri = host
			}
			s.host(uri)
		}
	}
}

// quad reads a dotted IPv4 address at the start of b; n = 0 if there is none.
func quad(b []byte) (a netip.Addr, n int) {
	dots := 0
	for n < len(b) && n < 15 && (b[n] >= '0' && b[n] <= '9' || b[n] == '.' && dots < 3) {
		if b[n] == '.' {
			dots++
		}
		n++
	}
	if dots != 3 || n < len(b) && (b[n] == '.' || b[n] >= '0' && b[n] <= '9') {
		return a, 0
	}
	a, err := netip.ParseAddr(string(b[:n]))
	if err != nil {
		return a, 0
	}
	return a, n
}

// mark says that the bytes hold another address; false if they did already.
func (s *Scrubber) mark(b []byte) bool {
	at := cap(s.whole) - cap(b)
	if at < 0 || at+len(b) > len(s.done) || slices.Contains(s.done[at:at+len(b)], true) {
		return false
	}
	for i := range b {
		s.done[at+i] = true
	}
	return true
}

// rename writes another address for a in as many letters. Each part keeps its number
// of digits and is shifted among those that have as many, by what the parts before
// it are mapped to: two addresses never become one, and common prefixes stay.
func (s *Scrubber) rename(b []byte, a netip.Addr) {
	if x := dissect.AddrFrom(a); s.Addr(x) == x || !s.mark(b) {
		return
	}
	prefix := [4]byte{1, 1, 1, 1}
	part, from := 0, 0
	for i := 0; i <= len(b); i++ {
		if i < len(b) && b[i] != '.' {
			continue
		}
		least, most := 0, 9
		switch i - from {
		case 2:
			least, most = 10, 99
		case 3:
			least, most = 100, 255
		}
		prefix[part] = 1
		shift := int(s.Addr(dissect.AddrFrom(netip.AddrFrom4(prefix)))[12+part])
		prefix[part] = a.As4()[part]
		v := least + (int(prefix[part])-least+shift)%(most-least+1)
		copy(b[from:i], strconv.Itoa(v))
		part, from = part+1, i+1
	}
}

// quads renames every dotted address of a text that holds nothing else like it.
func (s *Scrubber) quads(b []byte) {
	for i := 0; i < len(b); i++ {
		if i > 0 && (b[i-1] == '.' || b[i-1] >= '0' && b[i-1] <= '9') {
			continue
		}
		if a, n := quad(b[i:]); n > 0 {
			s.rename(b[i:i+n], a)
			i += n
		}
	}
}

// texts renames dotted addresses wherever they stand, if they occur in the
// capture or are written as addresses are: after @, //, IP4, before a port.
// Versions look the same and stay.
func (s *Scrubber) texts(b []byte) {
	for i := 0; i+7 <= len(b); i++ {
		if b[i] == '[' {
			s.bracket(b[i+1:])
		}
		if b[i] < '0' || b[i] > '9' || i > 0 && (b[i-1] == '.' || b[i-1] >= '0' && b[i-1] <= '9') {
			continue
		}
		a, n := quad(b[i:])
		if n == 0 {
			continue
		}
		before, after := b[:i], b[i+n:]
		like := len(after) > 1 && after[0] == ':' && after[1] >= '0' && after[1] <= '9' && !bytes.HasSuffix(before, []byte("/"))
		for _, mark := range []string{"@", "//", "IP4 ", "received=", "maddr=", "ip="} {
			like = like || bytes.HasSuffix(before, []byte(mark))
		}
		if like || s.Known(dissect.AddrFrom(a)) {
			s.rename(b[i:i+n], a)
		}
		i += n
	}
}

// bracket overwrites the digits of an IPv6 address in brackets.
func (s *Scrubber) bracket(b []byte) {
	i := bytes.IndexByte(b[:min(len(b), 46)], ']')
	if i < 0 {
		return
	}
	a, err := netip.ParseAddr(string(b[:i]))
	if err != nil || !a.Is6() {
		return
	}
	is := s.Addr(dissect.AddrFrom(a))
	at := 0
	for j := range b[:i] {
		if b[j] != ':' && b[j] != '.' {
			b[j] = "0123456789abcdef"[is[at%16]>>(4*(at/16%2))&15]
			if at++; at%4 == 1 && b[j] == '0' {
				b[j] = '1'
			}
		}
	}
}

// known replaces the bytes of addresses of the capture wherever they stand.
func (s *Scrubber) known(b []byte) {
	for i := 0; i+4 <= len(b); i++ {
		if i+16 <= len(b) {
			if a := dissect.Addr(b[i : i+16]); s.Known(a) {
				s.sixteen(b[i:])
				i += 15
				continue
			}
		}
		if a := dissect.Addr4(b[i : i+4]); s.Known(a) {
			s.four(b[i:])
			i += 3
		}
	}
}

// four and sixteen map an address that stands at a known place.
func (s *Scrubber) four(b []byte) {
	if !s.mark(b[:4]) {
		return
	}
	is := s.Addr(dissect.Addr4(b[:4]))
	copy(b, is[12:])
}

func (s *Scrubber) sixteen(b []byte) {
	if !s.mark(b[:16]) {
		return
	}
	is := s.Addr(dissect.Addr(b[:16]))
	copy(b, is[:])
}

// compact maps the lists of peers and nodes of BEP 5, 23 and 32.
func (s *Scrubber) compact(b []byte) {
	for key, size := range map[string]int{"5:nodes": 26, "5:peers": 6, "6:values": 6, "6:nodes6": 38, "6:peers6": 18, "2:ip": 6} {
		i := bytes.Index(b, []byte(key))
		if i < 0 {
			continue
		}
		rest := b[i+len(key):]
		if len(rest) > 0 && rest[0] == 'l' {
			rest = rest[1:]
		}
		for {
			j := bytes.IndexByte(rest[:min(len(rest), 6)], ':')
			if j <= 0 {
				break
			}
			n, err := strconv.Atoi(string(rest[:j]))
			if err != nil || n < 0 || n%size != 0 && size != 6 {
				break
			}
			list := rest[j+1:]
			list = list[:min(n, len(list))]
			for at := 0; at+size <= len(list); at += size {
				switch size {
				case 26:
					s.four(list[at+20:])
				case 38:
					s.sixteen(list[at+20:])
				case 18:
					s.sixteen(list[at:])
				default:
					s.four(list[at:])
				}
			}
			rest = rest[min(len(rest), j+1+n):]
		}
	}
	if len(b) >= 26 && len(b)%6 == 2 && binary.BigEndian.Uint32(b) == 1 { // a UDP tracker's answer to an announce, BEP 15
		for at := 20; at+6 <= len(b); at += 6 {
			s.four(b[at:])
		}
	}
}

// stun maps the address attributes of RFC 8489 and 8656 and their forebears.
func (s *Scrubber) stun(b []byte) {
	if len(b) < 20 {
		return
	}
	for at := 20; at+4 <= len(b); {
		kind, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		v := b[at+4 : min(len(b), at+4+n)]
		switch kind {
		case 0x0001, 0x0002, 0x0004, 0x0005, 0x000b, 0x0012, 0x0016, 0x0020, 0x8020, 0x8023, 0x802b, 0x802c:
			xor := kind == 0x0012 || kind == 0x0016 || kind == 0x0020 || kind == 0x8020
			if len(v) >= 8 && v[1] == 1 {
				s.masked(v[4:8], b[4:8], xor)
			} else if len(v) >= 20 && v[1] == 2 {
				s.masked(v[4:20], b[4:20], xor)
			}
		case 0x0006, 0x0014, 0x8003: // USERNAME, REALM, ALTERNATE-DOMAIN
			s.Name(v)
		case 0x0007, 0x0008: // PASSWORD, MESSAGE-INTEGRITY
			clear(v)
		case 0x8028: // FINGERPRINT, RFC 8489 section 14.7
			if len(v) == 4 {
				binary.BigEndian.PutUint32(v, crc32.ChecksumIEEE(b[:at])^0x5354554e)
			}
		}
		at += 4 + (n+3)&^3
	}
}

func (s *Scrubber) masked(b, mask []byte, xor bool) {
	flip := func() {
		if xor {
			for i := range b {
				b[i] ^= mask[i]
			}
		}
	}
	flip()
	if len(b) == 4 {
		s.four(b)
	} else {
		s.sixteen(b)
	}
	flip()
}

// mqtt overwrites the names of a CONNECT and blanks its password.
func (s *Scrubber) mqtt(b []byte) {
	if len(b) < 2 || b[0] != 0x10 {
		return
	}
	at := 1
	for at < len(b) && at < 5 && b[at]&0x80 != 0 {
		at++
	}
	c := dissect.NewCursor(b[min(len(b), at+1):])
	c.Bytes(int(c.U16()))
	level, flags := c.U8(), c.U8()
	c.U16()
	if level == 5 {
		c.Bytes(int(c.U8()))
	}
	field := func() []byte { return c.Bytes(int(c.U16())) }
	s.Name(field())
	if flags&4 != 0 {
		if level == 5 {
			c.Bytes(int(c.U8()))
		}
		field()
		blank(field())
	}
	if flags&0x80 != 0 {
		s.Name(field())
	}
	if flags&0x40 != 0 {
		blank(field())
	}
}

// radius: RFC 2865 section 5.
func (s *Scrubber) radius(b []byte) {
	for at := 20; at+2 <= len(b); {
		n := int(b[at+1])
		if n < 2 || at+n > len(b) {
			return
		}
		v := b[at+2 : at+n]
		switch b[at] {
		case 1, 30, 31, 32: // User-Name, Called- and Calling-Station-Id, NAS-Identifier
			s.Name(v)
		case 2, 3: // User-Password, CHAP-Password
			clear(v)
		case 4, 8:
			if len(v) == 4 {
				s.four(v)
			}
		}
		at += n
	}
}

// diameter: RFC 6733 sections 4.1 and 5.3.
func (s *Scrubber) diameter(b []byte) {
	for at := 20; at+8 <= len(b); {
		code, flags, n := binary.BigEndian.Uint32(b[at:]), b[at+4], int(binary.BigEndian.Uint32(b[at+4:])&0xffffff)
		head := 8
		if flags&0x80 != 0 {
			head = 12
		}
		if n < head || at+n > len(b) {
			return
		}
		v := b[at+head : at+n]
		switch code {
		case 1, 263, 264, 283, 293, 296: // User-Name, Session-Id, Origin-Host, Destination-Realm, Destination-Host, Origin-Realm
			s.Name(v)
		case 2, 405: // User-Password, CHAP-Response (RFC 7155)
			clear(v)
		case 257:
			if len(v) == 6 {
				s.four(v[2:])
			} else if len(v) == 18 {
				s.sixteen(v[2:])
			}
		}
		at += (n + 3) &^ 3
	}
}

// dns overwrites labels, but those of services (_sip), and maps A and AAAA.
func (s *Scrubber) dns(b []byte, tcp bool) {
	if tcp && len(b) >= 2 {
		b = b[2:]
	}
	if len(b) < 12 {
		return
	}
	at := 12
	name := func() bool {
		for at < len(b) {
			n := int(b[at])
			switch {
			case n == 0:
				at++
				return true
			case n >= 0xc0:
				at += 2
				return at <= len(b)
			case at+1+n > len(b):
				return false
			}
			if b[at+1] != '_' {
				s.Name(b[at+1 : at+1+n])
			}
			at += 1 + n
		}
		return false
	}
	for range binary.BigEndian.Uint16(b[4:]) {
		if !name() {
			return
		}
		at += 4
	}
	records := int(binary.BigEndian.Uint16(b[6:])) + int(binary.BigEndian.Uint16(b[8:])) + int(binary.BigEndian.Uint16(b[10:]))
	for range records {
		if !name() || at+10 > len(b) {
			return
		}
		kind, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+8:]))
		at += 10
		end := at + n
		if end > len(b) {
			return
		}
		switch {
		case kind == 1 && n == 4:
			s.four(b[at:])
		case kind == 28 && n == 16:
			s.sixteen(b[at:])
		case kind == 2 || kind == 5 || kind == 12:
			name()
		case kind == 33 && n > 6:
			at += 6
			name()
		case kind == 16:
			blank(b[at+1 : end])
		}
		at = end
	}
}

// bitcoin maps the addresses of version and addr messages and puts the checksum
// right, where the message is whole.
func (s *Scrubber) bitcoin(b []byte) {
	for len(b) >= 24 {
		n := int(binary.LittleEndian.Uint32(b[16:]))
		if n < 0 || n > len(b)-24 {
			return
		}
		body := b[24 : 24+n]
		sum := func() [32]byte { h := sha256.Sum256(body); return sha256.Sum256(h[:]) }
		had := sum()
		checked := bytes.Equal(had[:4], b[20:24])
		switch string(bytes.TrimRight(b[4:16], "\x00")) {
		case "version":
			for _, at := range []int{28, 54} {
				if at+16 <= n {
					s.sixteen(body[at:])
				}
			}
		case "addr":
			for at := 1 + 12; at+18 <= n; at += 30 {
				s.sixteen(body[at:])
			}
		}
		if h := sum(); checked {
			copy(b[20:], h[:4])
		}
		b = b[24+n:]
	}
}
