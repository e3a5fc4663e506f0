package pipeline_test

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"

	"squall/dissect"
	"squall/dissect/pipeline"
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
