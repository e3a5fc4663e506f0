package pipeline

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
)

// Anonymizer takes out of packets who talked to whom, by a key: the same key
// makes the same names of the same addresses, everywhere. Addresses keep what
// they have in common from the first octet (IPv4) or the first 16 bits (IPv6)
// on: two that share a prefix share one afterwards, after Xu, Fan, Ammar and
// Moon, "Prefix-Preserving IP Address Anonymization", ICNP 2002. Multicast,
// loopback and link-local ranges stay what they are.
//
// Packets are seen twice: Look at all of them first, then Rewrite. It is for
// one goroutine.
type Anonymizer struct {
	block   cipher.Block
	pad     [16]byte
	key     []byte
	octet   [256]byte // permutation of the first octets of unicast
	made    map[dissect.Addr]dissect.Addr
	present map[dissect.Addr]bool
	images  map[dissect.Addr]bool // that stand for others
	short   [1 << 16]bool         // of present: the last two bytes, to ask quickly
	look    headers.Rewriter
	write   headers.Rewriter
	named   map[string]bool     // that packets told before they were changed
	flows   map[anonFlow]uint32 // first sequence number of a direction
	proto   string
	before  []byte
	// Scrub cleans the payload of a protocol with Addr, Name and Known; it must
	// be set.
	Scrub func(protocol string, d *dissect.Datagram)
	// Names gives the names that a payload tells whoever reads it; those of before
	// must not be there afterwards. It may be nil.
	Names func(d *dissect.Datagram) []string
	// Residual counts original addresses that still stand where they stood in
	// a payload: a proof, counted without the code that replaces them.
	Residual int64
}

type anonFlow struct{ src, dst dissect.Endpoint }

// keepStream is how much of each direction of a TCP flow is kept: what the
// attempt engine reads of it. The rest is zeroed.
const keepStream = 4096

// NewAnonymizer makes one from a secret of any length.
func NewAnonymizer(secret []byte) *Anonymizer {
	sum := sha256.Sum256(append([]byte("squall anonymize 1:"), secret...))
	a := &Anonymizer{key: sum[:], made: map[dissect.Addr]dissect.Addr{}, present: map[dissect.Addr]bool{}, named: map[string]bool{}, flows: map[anonFlow]uint32{}}
	a.block, _ = aes.NewCipher(sum[:16]) // 16 bytes are a valid key
	a.block.Encrypt(a.pad[:], sum[16:])
	rng := rand.New(rand.NewChaCha8(sum))
	var unicast []byte
	for i := range 256 {
		a.octet[i] = byte(i)
		if i > 0 && i != 127 && i < 224 {
			unicast = append(unicast, byte(i))
		}
	}
	shuffled := bytes.Clone(unicast)
	rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for i, o := range unicast {
		a.octet[o] = shuffled[i]
	}
	a.look = headers.Rewriter{Map: func(e dissect.Endpoint) dissect.Endpoint {
		if a.Addr(e.Addr) != e.Addr {
			a.present[e.Addr] = true
			a.short[binary.BigEndian.Uint16(e.Addr[14:])] = true
		}
		return e
	}}
	a.write = headers.Rewriter{MAC: a.mac, Payload: a.payload, Map: func(e dissect.Endpoint) dissect.Endpoint {
		e.Addr = a.Addr(e.Addr)
		return e
	}}
	return a
}

// Known says whether an address was seen in the headers of a packet.
func (a *Anonymizer) Known(x dissect.Addr) bool {
	return a.short[binary.BigEndian.Uint16(x[14:])] && a.present[x]
}

// Addr is the address that stands for another one.
func (a *Anonymizer) Addr(x dissect.Addr) dissect.Addr {
	if is, ok := a.made[x]; ok {
		return is
	}
	is := x
	ip := x.IP()
	switch {
	case x == dissect.Addr{} || ip.IsLoopback() || ip.IsMulticast() || ip.IsUnspecified():
	case x.Is4():
		if first := x[12]; first > 0 && first < 224 {
			is[12] = a.octet[first]
			a.flip(&is, &x, 13)
		}
	case ip.IsLinkLocalUnicast():
		a.flip(&is, &x, 8)
	default:
		a.flip(&is, &x, 2)
	}
	if len(a.made) >= 1<<20 { // it can be made again
		clear(a.made)
	}
	a.made[x] = is
	return is
}

// Left counts the original addresses in a text that stand for nothing else: an
// address that another one was mapped to may be there. It is called when all
// packets were rewritten.
func (a *Anonymizer) Left(text []byte) (n int) {
	if a.images == nil {
		a.images = map[dissect.Addr]bool{}
		for from, to := range a.made {
			if from != to {
				a.images[to] = true
			}
		}
	}
	part := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '.' || c == ':'
	}
	for i := 0; i < len(text); {
		if !part(text[i]) {
			i++
			continue
		}
		end := i
		for end < len(text) && part(text[end]) {
			end++
		}
		word := string(text[i:end])
		i = end
		if len(word) > 64 || !strings.ContainsAny(word, ".:") {
			continue
		}
		for _, w := range []string{word, strings.Trim(word, ".:"), word[:max(strings.LastIndexByte(word, ':'), 0)]} {
			if ip, err := netip.ParseAddr(w); err == nil {
				if x := dissect.AddrFrom(ip); a.Known(x) && !a.images[x] {
					n++
					break
				}
			}
		}
	}
	return n
}

// flip turns each bit of is from byte from on by a bit that depends on the bits
// of x before it.
func (a *Anonymizer) flip(is, x *dissect.Addr, from int) {
	var in, out [16]byte
	for bit := from * 8; bit < 128; bit++ {
		in = a.pad
		n := bit / 8
		copy(in[:n], x[:n])
		mask := byte(0xff) << (8 - bit%8)
		in[n] = x[n]&mask | in[n]&^mask
		in[15] ^= byte(bit) // where the prefix ends
		a.block.Encrypt(out[:], in[:])
		is[n] ^= out[0] >> 7 << (7 - bit%8)
	}
}

// Name overwrites a text in place: letters become letters, digits digits.
// Everything else stays, so that what is parsed still parses.
func (a *Anonymizer) Name(b []byte) {
	h := hmac.New(sha256.New, a.key)
	h.Write(b)
	stream := h.Sum(nil)
	for i, c := range b {
		if i > 0 && i%len(stream) == 0 {
			h.Reset()
			h.Write(stream)
			stream = h.Sum(nil)
		}
		r := stream[i%len(stream)]
		switch {
		case c >= 'a' && c <= 'z':
			b[i] = 'a' + r%26
		case c >= 'A' && c <= 'Z':
			b[i] = 'A' + r%26
		case c >= '0' && c <= '9':
			b[i] = '0' + r%10
		}
	}
}

func (a *Anonymizer) mac(b []byte) {
	h := hmac.New(sha256.New, a.key)
	h.Write(b[:6])
	copy(b, h.Sum(nil)[:6])
	b[0] = b[0]&0xfc | 2 // locally administered, unicast
}

// Look takes note of the addresses of a packet. False: the packet cannot be
// followed to its end and has to be left out.
func (a *Anonymizer) Look(p *capture.Packet) bool {
	a.before = append(a.before[:0], p.Data...)
	return a.look.Rewrite(p.Link, a.before) == nil
}

// Rewrite changes the packet's bytes in place; protocol names what its flow
// speaks, empty = unknown: then nothing of its payload is kept. False: leave it
// out.
func (a *Anonymizer) Rewrite(p *capture.Packet, protocol string) bool {
	a.proto = protocol
	return a.write.Rewrite(p.Link, p.Data) == nil
}

// payload scrubs the payload of a transport.
func (a *Anonymizer) payload(d *dissect.Datagram) {
	if a.proto == "" {
		clear(d.Payload)
		return
	}
	keep := d.Payload
	if d.Proto == dissect.ProtoTCP {
		keep = a.begin(d)
		clear(d.Payload[len(keep):])
	}
	if len(keep) == 0 {
		return
	}
	a.before = append(a.before[:0], keep...)
	d.Payload = keep
	var names []string
	if a.Names != nil {
		names = a.Names(d)
	}
	a.Scrub(a.proto, d)
	a.prove(keep)
	if len(names) > 0 {
		a.proveNames(names, a.Names(d))
	}
}

// begin is the part of a segment that belongs to the first bytes of its direction.
func (a *Anonymizer) begin(d *dissect.Datagram) []byte {
	k := anonFlow{d.Source(), d.Destination()}
	if d.Flags&dissect.SYN != 0 {
		if len(a.flows) >= 1<<20 {
			clear(a.flows)
		}
		a.flows[k] = d.Seq + 1
		return d.Payload
	}
	first, ok := a.flows[k]
	if !ok { // the stream's begin was not seen; take this for it
		first = d.Seq
		a.flows[k] = first
	}
	at := int64(int32(d.Seq - first))
	return d.Payload[:max(0, min(int64(len(d.Payload)), keepStream-at))]
}

// prove looks for original addresses, as bytes and as text, that a payload had
// before and still has at the same place.
func (a *Anonymizer) prove(after []byte) {
	for i := 0; i+4 <= len(after); i++ {
		if x := dissect.Addr4(a.before[i : i+4]); a.Known(x) && bytes.Equal(a.before[i:i+4], after[i:i+4]) {
			a.Residual++
		}
		if i+16 <= len(after) {
			if x := dissect.Addr(a.before[i : i+16]); !x.Is4() && a.Known(x) && bytes.Equal(a.before[i:i+16], after[i:i+16]) {
				a.Residual++
			}
		}
		if c := after[i]; c < '0' || c > '9' || i > 0 && (after[i-1] == '.' || after[i-1] >= '0' && after[i-1] <= '9') {
			continue
		}
		if x, n := dotted(a.before[i:]); n > 0 && a.Known(dissect.AddrFrom(x)) && bytes.Equal(a.before[i:i+n], after[i:i+n]) {
			a.Residual++
		}
	}
}

// proveNames compares the names that a payload told before and tells now. Those
// without letters or digits name nobody.
func (a *Anonymizer) proveNames(before, after []string) {
	for _, name := range before {
		if !strings.ContainsFunc(name, func(c rune) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }) {
			continue
		}
		if len(a.named) < 1<<16 && strings.Contains(name, ".") {
			a.named[name] = true
		}
		if slices.Contains(after, name) {
			a.Residual++
		}
	}
}

// NamesLeft counts the words of a text that are names which packets told before.
func (a *Anonymizer) NamesLeft(text []byte) (n int) {
	if len(a.named) == 0 {
		return 0
	}
	for _, w := range bytes.FieldsFunc(text, func(c rune) bool {
		return !(c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z')
	}) {
		if a.named[string(bytes.Trim(w, "."))] {
			n++
		}
	}
	return n
}

// dotted reads an address in text.
func dotted(b []byte) (netip.Addr, int) {
	n := 0
	for n < len(b) && n < 15 && (b[n] == '.' || b[n] >= '0' && b[n] <= '9') {
		n++
	}
	x, err := netip.ParseAddr(string(b[:n]))
	if err != nil || n < 7 {
		return x, 0
	}
	return x, n
}
