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

	readers streamReaders
	whole   []byte
	done    []bool               // bytes of whole that hold another address already
	ids     map[scrubFlow][]byte // of QUIC: what the Initials of a client are sealed with

	discHashes map[[discHash]byte][discHash]byte // of packets of discv4, after what they were
}

// Scrub cleans the payload of one datagram of a flow of the protocol, or what one side
// of a TCP connection says from its first byte on: names that segments part are names
// only there.
// Of a stream, d.Flags are those of the SYN that opened its side.
func (s *Scrubber) Scrub(protocol string, d *dissect.Datagram) {
	b := d.Payload
	s.whole, s.done = b, slices.Grow(s.done[:0], len(b))[:len(b)]
	clear(s.done)
	if s.readers == nil {
		s.readers = streamReaders{}
	}
	if d.Proto == dissect.ProtoTCP {
		b = s.proxy(b)
	}
	behind := *d
	behind.Payload = b
	if protocol != "discv4" {
		s.identity(protocol, &behind)
	}
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
		messages(b, stunSize, s.stun)
	case "mqtt":
		s.mqtt(b)
	case "radius":
		s.radius(b)
	case "diameter":
		messages(b, func(b []byte) int { return int(binary.BigEndian.Uint32(b) & 0xffffff) }, s.diameter)
	case "dns":
		if d.Proto == dissect.ProtoTCP {
			messages(b, func(b []byte) int { return 2 + int(binary.BigEndian.Uint16(b)) }, func(b []byte) { s.dns(b[2:]) })
		} else {
			s.dns(b)
		}
	case "bitcoin":
		s.bitcoin(b)
	case "n2n":
		if d.Proto == dissect.ProtoTCP {
			messages(b, func(b []byte) int { return n2nFrame + int(binary.BigEndian.Uint16(b)) }, func(b []byte) { s.n2n(b[n2nFrame:]) })
		} else {
			s.n2n(b)
		}
	case "edonkey":
		s.edonkey(b)
	case "gquic":
		if s.gquic(d) {
			return // sealed: nothing else may touch it
		}
	}
	if d.Proto == dissect.ProtoTCP {
		s.sni(protocol, b) // whatever speaks inside TLS
	} else if (quic{}).Probe(d) == dissect.Yes {
		s.quic(d) // sealed: nothing else may touch it
		return
	}
	s.compact(b)
	s.texts(b)
	s.sixes(b, false)
	s.known(b)
}

// messages calls each for the messages of a stream, the last of which may be cut; size
// tells how long one is that has four bytes at least.
func messages(b []byte, size func([]byte) int, each func([]byte)) {
	for len(b) >= 4 {
		n := size(b)
		if n <= 0 {
			return
		}
		n = min(n, len(b))
		each(b[:n])
		b = b[n:]
	}
}

// stunSize: over TCP, messages of STUN and data of channels follow one another, RFC 8656
// section 12.5, or have a length before them, RFC 4571.
func stunSize(b []byte) int {
	n := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case b[0]>>6 == 1:
		return 4 + (n+3)&^3
	case len(b) >= 6 && b[2]>>6 == 0 && int(binary.BigEndian.Uint16(b)) == 20+int(binary.BigEndian.Uint16(b[4:])):
		return 2
	case b[0]>>6 == 0:
		return 20 + n
	}
	return 0
}

// proxy maps the addresses that a balancer wrote before a connection, and gives what
// comes after them: haproxy.org/download/2.8/doc/proxy-protocol.txt.
func (s *Scrubber) proxy(b []byte) []byte {
	if rest, ok := bytes.CutPrefix(b, []byte("PROXY ")); ok {
		line, rest, _ := bytes.Cut(rest, []byte("\n"))
		s.quads(line)
		s.sixes(line, true)
		return rest
	}
	if len(b) < 16 || !bytes.HasPrefix(b, []byte("\r\n\r\n\x00\r\nQUIT\n")) || b[12]>>4 != 2 {
		return b
	}
	n := 16 + int(binary.BigEndian.Uint16(b[14:]))
	head := b[16:min(n, len(b))]
	switch b[13] >> 4 {
	case 1:
		if len(head) >= 12 {
			s.four(head)
			s.four(head[4:])
		}
	case 2:
		if len(head) >= 36 {
			s.sixteen(head)
			s.sixteen(head[16:])
		}
	}
	return b[min(n, len(b)):]
}

// n2n overwrites what the network is called, and what an edge says of itself: wire.c of
// n2n 2.8 and 3.
func (s *Scrubber) n2n(b []byte) {
	size := 0
	switch {
	case len(b) > n2nHeader1 && b[0] == 1, len(b) > n2nHeader2 && b[0] == 2:
		size = 16
	case len(b) > n2nHeader3 && b[0] == 3:
		size = 20
	default:
		return
	}
	name, _, _ := bytes.Cut(b[4:4+size], []byte{0})
	if !printable(name) {
		return // sealed
	}
	s.Name(bytes.TrimLeft(name, "*"))
	// REGISTER_SUPER of version 3: cookie 4, MAC 6, perhaps a socket (flags 2, port 2,
	// address), the edge's address 4 and prefix 1, what it describes itself as 16.
	if flags := binary.BigEndian.Uint16(b[2:]); b[0] == 3 && flags&0x1f == n2nTypeSuper {
		at := n2nHeader3 + 4 + 6
		if flags&n2nSocket != 0 && at < len(b) {
			size = 8
			if b[at]&0x80 != 0 { // IPv6
				size = 20
			}
			at += size
		}
		if at+21 <= len(b) {
			s.four(b[at:])
			if desc, _, _ := bytes.Cut(b[at+5:at+21], []byte{0}); printable(desc) {
				s.Name(desc)
			}
		}
	}
}

// n2nSocket is the flag of a message that tells an address.
const n2nSocket = 0x40

// edonkey overwrites nicknames: a tag of a hello or login, a string called 1.
func (s *Scrubber) edonkey(b []byte) {
	for _, tag := range []string{"\x02\x01\x00\x01", "\x82\x01"} {
		for at := 0; ; {
			i := bytes.Index(b[at:], []byte(tag))
			if i < 0 {
				break
			}
			if at += i + len(tag); at+2 > len(b) {
				break
			}
			if n := int(binary.LittleEndian.Uint16(b[at:])); at+2+n <= len(b) {
				s.Name(b[at+2 : at+2+n])
			}
		}
	}
}

// ownNames are the protocols whose names are overwritten where they stand.
var ownNames = []string{"sip", "mqtt", "diameter", "quic", "tls"}

// identity overwrites the names that the protocol's own reader finds, where they are
// text, wherever they stand.
func (s *Scrubber) identity(protocol string, d *dissect.Datagram) {
	if slices.Contains(ownNames, protocol) {
		return
	}
	var ids []string
	s.readers.each(protocol, d, func(m *dissect.Message) {
		id := string(m.ClientID)
		if len(id) == 20 && id[0] == '-' && id[7] == '-' { // BEP 20: the version stays
			id = id[8:]
		}
		if len(id) >= 3 && printable([]byte(id)) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	})
	var at [][]byte
	for _, id := range ids {
		for b := d.Payload; ; {
			i := bytes.Index(b, []byte(id))
			if i < 0 {
				break
			}
			at = append(at, b[i:i+len(id)])
			b = b[i+len(id):]
		}
	}
	for _, b := range at {
		s.Name(b)
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
	case "x-try", "x-try-ultrapeers", "x-try-hubs", "remote-ip", "listen-ip", "x-my-address", "node", "x-node", "pong-caching-addresses",
		"x-forwarded-for", "x-real-ip", "x-client-ip", "true-client-ip", "forwarded":
		s.quads(value(line))
		s.sixes(value(line), true)
	case "from":
		s.Name(value(line))
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
		case "www-authenticate", "proxy-authenticate":
		case "call-id", "i", "subject", "s", "organization":
			s.Name(value(line))
		case "from", "f", "to", "t", "contact", "m", "p-asserted-identity", "p-preferred-identity", "remote-party-id", "diversion", "reply-to", "refer-to", "r", "referred-by", "b":
			v := value(line)
			if i := bytes.IndexByte(v, '<'); i > 0 {
				s.Name(v[:i])
			}
		case "via", "v":
			if _, at, ok := bytes.Cut(value(line), []byte(" ")); ok {
				s.host(bytes.TrimSpace(at))
			}
		case "":
			switch { // SDP, RFC 8866
			case bytes.HasPrefix(line, []byte("o=")):
				user, _, _ := bytes.Cut(line[2:], []byte(" "))
				s.Name(user)
			case len(line) > 2 && line[1] == '=' && bytes.IndexByte([]byte("siuep"), line[0]) >= 0:
				s.Name(bytes.TrimRight(line[2:], "\r\n"))
			}
		case "a=candidate", "a=remote-candidates", "a=rtcp": // RFC 8839 section 5, RFC 3605
			s.quads(line)
			s.sixes(line, true)
		}
		if realm := quoted(line, "realm"); realm != nil {
			s.Name(realm)
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

// sixes overwrites the IPv6 addresses of a text: those that occur in the capture, in
// brackets or behind the IP6 of SDP, or all.
func (s *Scrubber) sixes(b []byte, all bool) {
	part := func(c byte) bool { return c == ':' || c == '.' || hexDigit(c) }
	for i := 0; i < len(b); {
		if !part(b[i]) {
			i++
			continue
		}
		end, colons := i, 0
		for end < len(b) && part(b[end]) {
			if b[end] == ':' {
				colons++
			}
			end++
		}
		if word := b[i:end]; colons >= 2 && len(word) <= 45 {
			a, err := netip.ParseAddr(string(word))
			if err == nil && a.Is6() && (all || s.Known(dissect.AddrFrom(a)) || i > 0 && b[i-1] == '[' || bytes.HasSuffix(b[:i], []byte("IP6 "))) {
				s.six(word, a)
			}
		}
		i = end
	}
}

func hexDigit(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

// six overwrites the digits of an IPv6 address.
func (s *Scrubber) six(b []byte, a netip.Addr) {
	is := s.Addr(dissect.AddrFrom(a))
	if is == dissect.AddrFrom(a) || !s.mark(b) {
		return
	}
	at := 0
	for j := range b {
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
		for after := b; ; {
			i := bytes.Index(after, []byte(key))
			if i < 0 {
				break
			}
			after = after[i+len(key):]
			s.peers(after, size)
		}
	}
	if len(b) >= 26 && len(b)%6 == 2 && binary.BigEndian.Uint32(b) == 1 { // a UDP tracker's answer to an announce, BEP 15
		for at := 20; at+6 <= len(b); at += 6 {
			s.four(b[at:])
		}
	}
}

// peers maps a string of peers or nodes of some bytes each, or a list of such strings.
func (s *Scrubber) peers(rest []byte, size int) {
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
func (s *Scrubber) dns(b []byte) {
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
