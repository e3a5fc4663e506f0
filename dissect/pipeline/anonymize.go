package pipeline

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"maps"
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
	names   map[string]string     // that were made of others
	named   map[string]bool       // that packets told before they were changed
	ids     map[string]*clientIDs // by protocol
	madeIDs map[string]bool       // what stands for them
	streams map[anonFlow][]*stream
	joined  int64                // bytes of them
	numbers map[[2]string]uint64 // of kinds and names
	taken   map[string]map[uint64]bool
	proto   string
	keep    int // bytes of a direction
	before  []byte
	// Scrub cleans the payload of a protocol with Addr, Name and Known; it must
	// be set.
	Scrub func(protocol string, d *dissect.Datagram)
	// Names gives the names that a payload tells whoever reads it; those of before
	// must not be there afterwards. It may be nil.
	Names func(protocol string, d *dissect.Datagram) []string
	// Residual counts original addresses that still stand where they stood in
	// a payload: a proof, counted without the code that replaces them.
	Residual int64
	// Cut counts segments of known protocols whose bytes, and those behind them, are
	// gone because too many were to be held.
	Cut int64
}

type anonFlow struct{ src, dst dissect.Endpoint }

// NewAnonymizer makes one from a secret of any length.
func NewAnonymizer(secret []byte) *Anonymizer {
	sum := sha256.Sum256(append([]byte("squall anonymize 1:"), secret...))
	a := &Anonymizer{key: sum[:], made: map[dissect.Addr]dissect.Addr{}, present: map[dissect.Addr]bool{}, names: map[string]string{}, named: map[string]bool{}, ids: map[string]*clientIDs{}, madeIDs: map[string]bool{}, streams: map[anonFlow][]*stream{}}
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
	a.look = headers.Rewriter{Payload: a.collect, Map: func(e dissect.Endpoint) dissect.Endpoint {
		if a.Addr(e.Addr) != e.Addr {
			a.present[e.Addr] = true
			a.short[binary.BigEndian.Uint16(e.Addr[14:])] = true
		}
		return e
	}}
	a.write = headers.Rewriter{MAC: a.mac, Payload: a.payload, Rest: fill, Map: func(e dissect.Endpoint) dissect.Endpoint {
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
// Everything else stays, so that what is parsed still parses. No two texts become
// the same: short ones, such as extensions of four digits, would be taken for one
// another.
func (a *Anonymizer) Name(b []byte) {
	if is, ok := a.names[string(b)]; ok {
		copy(b, is)
		return
	}
	was := string(b)
	a.permute(b, 0)
	if len(a.names) >= 1<<16 { // it can be made again
		clear(a.names)
	}
	a.names[was] = string(b)
}

// permute is a Feistel network over the letters and digits of a text: each half is
// shifted, symbol by symbol, by what a keyed hash makes of the other one, which can
// be undone, and so two texts stay two. Texts of other shapes have other shifts.
func (a *Anonymizer) permute(b []byte, tweak byte) {
	const rounds = 8
	kind := func(c byte) (first, size byte) {
		switch {
		case c >= 'a' && c <= 'z':
			return 'a', 26
		case c >= 'A' && c <= 'Z':
			return 'A', 26
		case c >= '0' && c <= '9':
			return '0', 10
		}
		return 0, 0
	}
	shape := bytes.Clone(b)
	var at []int
	for i, c := range b {
		if first, size := kind(c); size > 0 {
			shape[i] = first
			at = append(at, i)
		}
	}
	half := len(at) / 2
	var other []byte
	for round := range byte(rounds) {
		to, from := at[:half], at[half:]
		if round%2 == 1 || half == 0 {
			to, from = from, to
		}
		other = append(other[:0], round, tweak)
		for _, i := range from {
			other = append(other, b[i])
		}
		h := hmac.New(sha256.New, a.key)
		h.Write(other)
		h.Write(shape)
		stream := h.Sum(nil)
		for k, i := range to {
			if k > 0 && k%len(stream) == 0 {
				h.Reset()
				h.Write(stream)
				stream = h.Sum(nil)
			}
			first, size := kind(b[i])
			b[i] = first + (b[i]-first+stream[k%len(stream)]%size)%size
		}
	}
}

// Secret is a keyed hash of some bytes.
func (a *Anonymizer) Secret(b []byte) [32]byte {
	h := hmac.New(sha256.New, a.key)
	h.Write(b)
	return [32]byte(h.Sum(nil))
}

// Number is one below n that stands for a name of a kind. No two names have the same;
// where one is taken, which of them gets another depends on the names before.
func (a *Anonymizer) Number(kind, name string, n uint64) uint64 {
	if a.numbers == nil {
		a.numbers = map[[2]string]uint64{}
		a.taken = map[string]map[uint64]bool{}
	}
	k := [2]string{kind, name}
	is, ok := a.numbers[k]
	if ok {
		return is
	}
	if a.taken[kind] == nil {
		a.taken[kind] = map[uint64]bool{}
	}
	sum := a.Secret([]byte(kind + "\x00" + name))
	for is = binary.BigEndian.Uint64(sum[:]) % n; a.taken[kind][is]; is = (is + 1) % n {
	}
	a.numbers[k], a.taken[kind][is] = is, true
	return is
}

// Addresses are those that were looked at, each with the one that stands for it.
func (a *Anonymizer) Addresses() iter.Seq2[dissect.Addr, dissect.Addr] {
	return func(yield func(was, is dissect.Addr) bool) {
		for _, was := range slices.SortedFunc(maps.Keys(a.present), func(x, y dissect.Addr) int { return bytes.Compare(x[:], y[:]) }) {
			if !yield(was, a.Addr(was)) {
				return
			}
		}
	}
}

func (a *Anonymizer) mac(b []byte) {
	other := a.Secret(b[:6])
	copy(b, other[:6])
	b[0] = b[0]&0xfc | 2 // locally administered, unicast
}

// Look takes note of the addresses of a packet, and of what the streams say that it
// belongs to; protocol is as in Rewrite, and attempts how many the flow carries. False:
// the packet cannot be followed to its end and has to be left out.
func (a *Anonymizer) Look(p *capture.Packet, protocol string, attempts int) bool {
	if a.proto, a.keep = protocol, keepStream; attempts > 1 {
		a.keep = keepRequests
	}
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

// filler stands for each byte of an unknown protocol, and of fragments behind the first:
// what begins in one and ends in the next is read by nobody. No protocol may take it for its
// own: zeros at some ports look encrypted, and were Skype.
const filler = '.'

func fill(b []byte) {
	for i := range b {
		b[i] = filler
	}
}

// payload scrubs the payload of a transport.
func (a *Anonymizer) payload(d *dissect.Datagram) {
	if a.proto == "" {
		fill(d.Payload)
		return
	}
	if d.Proto == dissect.ProtoTCP {
		a.segment(d)
		return
	}
	a.clean(d)
}

// clean scrubs a datagram, or a stream as if it were one, and counts what is left.
func (a *Anonymizer) clean(d *dissect.Datagram) {
	if len(d.Payload) == 0 {
		return
	}
	a.before = append(a.before[:0], d.Payload...)
	var names []string
	if a.Names != nil {
		names = a.Names(a.proto, d)
	}
	a.Scrub(a.proto, d)
	if ids := a.ids[a.proto]; ids != nil {
		a.rename(ids, d.Payload)
	}
	a.prove(d.Payload)
	if len(names) > 0 {
		a.proveNames(names, a.Names(a.proto, d))
	}
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

// leastName is how many letters and digits a name has that is looked for: of shorter
// ones some stand for themselves.
const leastName = 4

// proveNames compares the names that a payload told before and tells now.
func (a *Anonymizer) proveNames(before, after []string) {
	for _, name := range before {
		n := 0
		for _, c := range []byte(name) {
			if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
				n++
			}
		}
		if n < leastName {
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
		if w := bytes.Trim(w, "."); a.named[string(w)] && !a.madeIDs[string(w)] {
			n++
		}
	}
	return n
}

// clientIDs are what the clients of a protocol call themselves.
type clientIDs struct {
	lengths []int // longest first
	is      map[string]bool
	begins  [1 << 16]bool // two bytes, to ask quickly
	done    []bool        // bytes of a payload
}

// leastID is the shortest identity that is looked for: two bytes stand everywhere.
const leastID = 3

// Learn takes note of what a client of a protocol calls itself, as the column
// client_id has it; it is then replaced wherever it stands in payloads of the
// protocol. It is called before Look.
func (a *Anonymizer) Learn(protocol, id string) {
	id = strings.TrimPrefix(id, protocol+":")
	a.learn(protocol, []byte(id))
	// Where several hosts use one identity, each has its address behind it.
	if at := strings.LastIndexByte(id, '@'); at >= 0 {
		if _, err := netip.ParseAddr(id[at+1:]); err == nil {
			id = id[:at]
			a.learn(protocol, []byte(id))
		}
	}
	// Identities that are no text are shown in hex. Which of the two this is, is not
	// known; one byte over and over stands everywhere and tells nobody.
	if raw, err := hex.DecodeString(id); err == nil && len(raw) > 0 && strings.ToLower(id) == id &&
		bytes.ContainsFunc(raw, func(c rune) bool { return c < 0x20 || c > 0x7e }) && len(bytes.Trim(raw, string(raw[:1]))) > 0 {
		a.learn(protocol, raw)
	}
	// A number in a table is no name, nor is a word that pages use.
	if len(id) >= 5 && len(a.named) < 1<<16 && strings.ContainsFunc(id, func(c rune) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }) && strings.ContainsAny(id, "0123456789") {
		a.named[id] = true
	}
}

func (a *Anonymizer) learn(protocol string, b []byte) {
	if len(b) == 20 && b[0] == '-' && b[7] == '-' { // a peer of BitTorrent: BEP 20, first the version
		b = b[8:]
	}
	if len(b) < leastID {
		return
	}
	ids := a.ids[protocol]
	if ids == nil {
		ids = &clientIDs{is: map[string]bool{}}
		a.ids[protocol] = ids
	}
	ids.is[string(b)] = true
	ids.begins[binary.BigEndian.Uint16(b)] = true
	if !slices.Contains(ids.lengths, len(b)) {
		ids.lengths = append(ids.lengths, len(b))
		slices.SortFunc(ids.lengths, func(x, y int) int { return y - x })
	}
}

// rename replaces identities where the payload had them, and counts those that
// are left.
func (a *Anonymizer) rename(ids *clientIDs, after []byte) {
	ids.done = slices.Grow(ids.done[:0], len(after))[:len(after)]
	clear(ids.done)
	for _, n := range ids.lengths {
		for i := 0; i+n <= len(after); i++ {
			if !ids.begins[binary.BigEndian.Uint16(a.before[i:])] {
				continue
			}
			if was := a.before[i : i+n]; !ids.done[i] && !ids.done[i+n-1] && ids.is[string(was)] {
				copy(after[i:], a.other(was))
				for k := range n {
					ids.done[i+k] = true
				}
				i += n - 1
			}
		}
	}
	for _, n := range ids.lengths {
		for i := 0; i+n <= len(after); i++ {
			if ids.begins[binary.BigEndian.Uint16(a.before[i:])] && ids.is[string(a.before[i:i+n])] && bytes.Equal(a.before[i:i+n], after[i:i+n]) {
				a.Residual++
			}
		}
	}
}

// other is what stands for an identity: of the same length, text for text.
func (a *Anonymizer) other(id []byte) []byte {
	is := bytes.Clone(id)
	text := !bytes.ContainsFunc(id, func(c rune) bool { return c < 0x20 || c > 0x7e })
	for tweak := range byte(8) { // short ones may come out as they were
		if text {
			copy(is, id)
			a.permute(is, tweak)
		} else {
			h := hmac.New(sha256.New, a.key)
			h.Write(id)
			h.Write([]byte{tweak})
			for rest := is; len(rest) > 0; {
				rest = rest[copy(rest, h.Sum(nil)):]
				h.Write([]byte{0})
			}
			is[0] = is[0]&^1 | 0x80 | id[0]&1 // no text, as before, and of hardware addresses one of a single host
		}
		if !bytes.Equal(is, id) {
			break
		}
	}
	if text {
		a.madeIDs[string(is)] = true
	} else {
		a.madeIDs[hex.EncodeToString(is)] = true
	}
	return is
}

// Text replaces the addresses in a text.
func (a *Anonymizer) Text(text string) string {
	var out strings.Builder
	part := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '.' || c == ':'
	}
	for i := 0; i < len(text); {
		end := i
		for end < len(text) && part(text[end]) {
			end++
		}
		if end == i {
			out.WriteByte(text[i])
			i++
			continue
		}
		word := text[i:end]
		i = end
		stem := strings.TrimRight(word, ".:")
		tail := word[len(stem):]
		port := strings.LastIndexByte(stem, ':')
		if ip, err := netip.ParseAddr(stem); err == nil {
			stem = a.Addr(dissect.AddrFrom(ip)).String()
		} else if port > 0 {
			if ip, err := netip.ParseAddr(stem[:port]); err == nil {
				stem = a.Addr(dissect.AddrFrom(ip)).String() + stem[port:]
			}
		}
		out.WriteString(stem + tail)
	}
	return out.String()
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
