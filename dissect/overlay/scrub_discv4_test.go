package overlay

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"squall/dissect"
)

// TestScrubDiscv4: what is signed is signed again, by one other key for each node;
// answers name what their requests became, and neighbours who they are now.
func TestScrubDiscv4(t *testing.T) {
	s := plainScrubber()
	s.Secret = func(b []byte) [32]byte { return sha256.Sum256(append([]byte("key"), b...)) }
	public := func(key byte) string {
		return string(secp256k1.PrivKeyFromBytes([]byte{key}).PubKey().SerializeUncompressed()[1:])
	}
	compressed := string(secp256k1.PrivKeyFromBytes([]byte{2}).PubKey().SerializeCompressed())
	const ip, ports, expires = "\x84\xc0\x00\x02\x0a", "\x82\x76\x5f\x80", "\x84\x5e\x16\x20\x5e"
	endpoint := "\xc9" + ip + ports
	list := func(s string) string {
		if len(s) > 55 {
			return "\xf8" + string([]byte{byte(len(s))}) + s
		}
		return string([]byte{0xc0 + byte(len(s))}) + s
	}
	ping := discPacket(1, 1, "\x04"+endpoint+endpoint+expires+"\x01")
	pong := discPacket(2, 2, endpoint+"\xa0"+ping[:32]+expires)
	find := discPacket(1, 3, "\xb8\x40"+public(2)+expires)
	near := discPacket(2, 4, list(list(ip+ports+"\xb8\x40"+public(1)))+expires)
	ask := discPacket(1, 5, expires)
	record := discPacket(2, 6, "\xa0"+ask[:32]+list("\xb8\x40"+strings.Repeat("s", 64)+"\x01\x82id\x82v4\x82ip"+ip+"\x89secp256k1\xa1"+compressed))
	out := map[string][]byte{}
	for _, p := range []string{ping, pong, find, near, ask, record} {
		b := []byte(p)
		d := packet(dissect.ProtoUDP, 1, 2, p)
		d.Payload = b
		s.Scrub("discv4", d)
		var f dissect.Flow
		var m dissect.Message
		if _, err := (discv4{}).Dissect(d, &f, &m); err != nil {
			t.Fatalf("%q: %v", p[97:], err)
		}
		if bytes.Contains(b, []byte(ip)) || bytes.Contains(b, []byte(public(1))) || bytes.Contains(b, []byte(public(2))) || bytes.Contains(b, []byte(compressed)) {
			t.Errorf("type %d keeps an address or a key", p[97])
		}
		out[p] = b
	}
	one, two := discKey(out[ping]), discKey(out[pong])
	if string(one) == public(1) || bytes.Equal(one, two) || !bytes.Equal(discKey(out[find]), one) || !bytes.Equal(discKey(out[near]), two) {
		t.Error("a node signs by its own key, or by several")
	}
	for _, c := range []struct {
		in   string
		want []byte
	}{
		{pong, out[ping][:32]}, {record, out[ask][:32]}, {find, two}, {near, one},
		{record, s.discOther([]byte(public(2))).PubKey().SerializeCompressed()},
	} {
		if !bytes.Contains(out[c.in], c.want) {
			t.Errorf("type %d does not tell %x", c.in[97], c.want)
		}
	}
	// Without a key of its own, or a signature that holds, nothing is kept.
	broken := []byte(ping)
	clear(broken[32:96])
	d := packet(dissect.ProtoUDP, 1, 2, ping)
	d.Payload = broken
	if s.Scrub("discv4", d); !bytes.Equal(broken, make([]byte, len(ping))) {
		t.Error("what nobody signed is kept")
	}
}
