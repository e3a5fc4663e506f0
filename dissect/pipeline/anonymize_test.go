package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/samples"
)

// common is how many leading bits two addresses share.
func common(a, b dissect.Addr) (n int) {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return n + bits.LeadingZeros8(x)
		}
		n += 8
	}
	return n
}

// TestPrefixesAreKept: addresses that share a prefix share exactly it
// afterwards, different ones stay different, another key gives others.
func TestPrefixesAreKept(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 7))
		a, other := pipeline.NewAnonymizer([]byte{byte(seed), 1}), pipeline.NewAnonymizer([]byte{byte(seed), 2})
		var list []dissect.Addr
		for range 300 {
			x := dissect.Addr4([]byte{10, byte(rng.IntN(2)), byte(rng.IntN(3)), byte(rng.IntN(256))})
			if rng.IntN(2) == 0 {
				x = dissect.AddrFrom(netip.MustParseAddr("2001:db8::"))
				x[7], x[15] = byte(rng.IntN(4)), byte(rng.IntN(256))
			}
			list = append(list, x)
		}
		differ := 0
		for i, x := range list {
			if a.Addr(x) != other.Addr(x) {
				differ++
			}
			for _, y := range list[:i] {
				if got, want := common(a.Addr(x), a.Addr(y)), common(x, y); x.Is4() == y.Is4() && got != want {
					t.Fatalf("%v and %v share %d bits, their images %v and %v %d", x, y, want, a.Addr(x), a.Addr(y), got)
				}
			}
		}
		if differ < 290 {
			t.Errorf("two keys differ in %d of %d", differ, len(list))
		}
	}
	a := pipeline.NewAnonymizer([]byte("key"))
	for _, s := range []string{"224.0.0.251", "255.255.255.255", "127.0.0.1", "::1", "ff02::1", "0.0.0.0", "::"} {
		if x := dissect.AddrFrom(netip.MustParseAddr(s)); a.Addr(x) != x {
			t.Errorf("%s became %v", s, a.Addr(x))
		}
	}
	for i := range 224 {
		if x := a.Addr(dissect.Addr4([]byte{byte(i), 2, 3, 4})); x.Multicast() {
			t.Errorf("%d.2.3.4 became the multicast address %v", i, x)
		}
	}
}

// TestNamesStayApart: all extensions of four digits, and users of any shape, keep their
// length and kind and become others, each its own.
func TestNamesStayApart(t *testing.T) {
	a := pipeline.NewAnonymizer([]byte("0123456789abcdef"))
	seen, same := map[string]bool{}, 0
	take := func(name string) {
		b := []byte(name)
		a.Name(b)
		if seen[string(b)] {
			t.Fatalf("%q becomes %q, as another did", name, b)
		}
		seen[string(b)] = true
		if string(b) == name {
			same++
		}
		for i, c := range b {
			digit := func(c byte) bool { return c >= '0' && c <= '9' }
			if digit(c) != digit(name[i]) || (name[i] == '-') != (c == '-') {
				t.Fatalf("%q becomes %q", name, b)
			}
		}
	}
	for i := range 10_000 {
		take(fmt.Sprintf("%04d", i))
		take(fmt.Sprintf("u%d-x", i))
		take(fmt.Sprintf("user-of-a-long-name-beyond-one-block-of-a-hash-%07d-and-so-on-and-on", i))
	}
	if same > 50 {
		t.Errorf("%d names stay what they are", same)
	}
}

// anonymous makes an anonymizer as extract does.
func anonymous() *pipeline.Anonymizer {
	a := pipeline.NewAnonymizer([]byte("0123456789abcdef"))
	scrub := overlay.Scrubber{Addr: a.Addr, Name: a.Name, Known: a.Known, Secret: a.Secret}
	a.Scrub, a.Names = scrub.Scrub, overlay.NewNamesIn()
	return a
}

// segment is one of TCP over raw IPv4; back: the node sends it.
func segment(back bool, flags byte, seq uint32, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	from, to := []byte{192, 0, 2, 10, 156, 64}, []byte{198, 51, 100, 7, 19, 196}
	if back {
		from, to = to, from
	}
	b[0], b[8], b[9], b[32], b[33] = 0x45, 64, 6, 0x50, flags
	binary.BigEndian.PutUint16(b[2:], uint16(40+len(payload)))
	copy(b[12:], from[:4])
	copy(b[16:], to[:4])
	copy(b[20:], from[4:])
	copy(b[22:], to[4:])
	binary.BigEndian.PutUint32(b[24:], seq)
	return append(b, payload...)
}

// TestStreamsAreCleanedWhole: wherever two segments of a stream meet, and in whatever
// order they come and how often, they become what the stream becomes in one piece.
func TestStreamsAreCleanedWhole(t *testing.T) {
	run := func(protocol string, list [][]byte) (out [][]byte) {
		a := anonymous()
		for _, rewrite := range []bool{false, true} {
			for _, b := range list {
				p := &capture.Packet{Data: bytes.Clone(b), OrigLen: len(b), Link: capture.LinkRaw}
				if !rewrite && !a.Look(p, protocol, 1) || rewrite && !a.Rewrite(p, protocol) {
					t.Fatal("a packet cannot be followed")
				}
				if rewrite {
					out = append(out, p.Data[40:])
				}
			}
		}
		if a.Residual > 0 {
			t.Fatalf("%s: %d are left", protocol, a.Residual)
		}
		return out
	}
	const isn = 0xffffff80 // numbers wrap
	streams, cuts := 0, 0
	for _, c := range samples.Conversations() {
		if c.UDP {
			continue
		}
		for _, back := range []bool{false, true} {
			var stream []byte
			for _, l := range c.Lines {
				if l.Node == back {
					stream = append(stream, l.Data...)
				}
			}
			if len(stream) < 2 {
				continue
			}
			streams++
			open := segment(back, 2, isn, nil)
			whole := run(c.Protocol, [][]byte{open, segment(back, 16, isn+1, stream)})[1]
			for cut := 1; cut < len(stream); cut += 1 + len(stream)/400 {
				cuts++
				one, two := segment(back, 16, isn+1, stream[:cut]), segment(back, 16, isn+1+uint32(cut), stream[cut:])
				again := segment(back, 16, isn+1+uint32(cut/2), stream[cut/2:])
				list := [][]byte{open, one, two, again}
				if cut%2 == 1 {
					list = [][]byte{open, two, one, again}
				}
				got := run(c.Protocol, list)
				a, b := got[1], got[2]
				if cut%2 == 1 {
					a, b = b, a
				}
				if got := append(bytes.Clone(a), b...); !bytes.Equal(got, whole) {
					t.Fatalf("%s cut at %d:\n%q, want\n%q", c.Protocol, cut, got, whole)
				}
				if !bytes.Equal(got[3], whole[cut/2:]) {
					t.Fatalf("%s, repeated from %d: %q", c.Protocol, cut/2, got[3])
				}
			}
		}
	}
	if streams < 50 || cuts < 2000 {
		t.Errorf("%d streams, %d cuts: the test proves little", streams, cuts)
	}
}

// TestStreamsApart: connections that follow one another on the same ports keep what each
// says, in whatever range their numbers are; behind a hole nothing is kept, nor behind
// the first bytes but where requests follow one another.
func TestStreamsApart(t *testing.T) {
	ask := []byte("REGISTER sip:alice@example.net SIP/2.0\r\n\r\n")
	var list [][]byte
	for _, isn := range []uint32{5000, 4_000_000_000, 900, 1 << 31} {
		list = append(list, segment(false, 2, isn, nil), segment(false, 16, isn+1, ask[:20]), segment(false, 16, isn+21, ask[20:]))
	}
	list = append(list, segment(false, 2, 1<<30, nil), segment(false, 16, 1<<30+1+30, ask[30:])) // a hole
	long := bytes.Repeat(ask, 200)
	list = append(list, segment(true, 18, 70_000, nil))
	for at := 0; at < len(long); at += 1000 {
		list = append(list, segment(true, 16, 70_001+uint32(at), long[at:min(at+1000, len(long))]))
	}
	for attempts, kept := range map[int]int{1: 4096, 2: len(long)} {
		a := anonymous()
		var got []byte
		for _, rewrite := range []bool{false, true} {
			for i, b := range list {
				p := &capture.Packet{Data: bytes.Clone(b), OrigLen: len(b), Link: capture.LinkRaw}
				if !rewrite {
					a.Look(p, "sip", attempts)
					continue
				}
				a.Rewrite(p, "sip")
				switch is := p.Data[40:]; {
				case i < 12 && i%3 > 0 && (!bytes.Contains(is, []byte(" ")) || bytes.Contains(is, []byte("alice")) || bytes.Contains(is, []byte("example"))):
					t.Errorf("segment %d: %q", i, is)
				case i == 13 && len(bytes.Trim(is, "\x00")) > 0:
					t.Errorf("behind a hole: %q", is)
				case i > 14:
					got = append(got, is...)
				}
			}
		}
		if n := len(bytes.TrimRight(got, "\x00")); n != kept || bytes.Contains(got, []byte("alice")) {
			t.Errorf("%d attempts: %d bytes are kept, want %d", attempts, n, kept)
		}
	}
}

// TestFragmentsAreFilled: what the later fragments of a datagram carry goes; who sent
// them to whom is what the first says.
func TestFragmentsAreFilled(t *testing.T) {
	a := anonymous()
	words := []byte("From: <sip:alice@example.net>;tag=1\r\n\r\n")
	b := segment(false, 0, 0, words)
	b[6], b[7], b[9] = 0, 160, 17 // 1,280 bytes behind the beginning
	copy(b[20:], words)
	p := &capture.Packet{Data: b, OrigLen: len(b), Link: capture.LinkRaw}
	if !a.Look(p, "sip", 1) || !a.Rewrite(p, "sip") || len(bytes.Trim(p.Data[20:], ".")) > 0 {
		t.Errorf("%q is kept", p.Data[20:])
	}
	first := segment(false, 0, 0, nil)
	p = &capture.Packet{Data: first, OrigLen: len(first), Link: capture.LinkRaw}
	if !a.Look(p, "sip", 1) || !a.Rewrite(p, "sip") || !bytes.Equal(b[12:20], first[12:20]) {
		t.Errorf("%x and %x of one datagram", b[12:20], first[12:20])
	}
}
