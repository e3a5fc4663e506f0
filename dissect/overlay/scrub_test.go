package overlay

import (
	"bytes"
	"crypto/sha256"
	"strconv"
	"strings"
	"testing"

	"squall/dissect"
)

// plainScrubber maps addresses by turning their last bit and names to z.
func plainScrubber(known ...dissect.Addr) *Scrubber {
	return &Scrubber{
		Addr:   func(a dissect.Addr) dissect.Addr { a[15] ^= 1; return a },
		Secret: sha256.Sum256,
		Name: func(b []byte) {
			for i := range b {
				if b[i] >= 'a' && b[i] <= 'z' {
					b[i] = 'z'
				}
			}
		},
		Known: func(a dissect.Addr) bool {
			for _, k := range known {
				if k == a {
					return true
				}
			}
			return false
		},
	}
}

// TestScrub: what leaves a payload, and what stays.
func TestScrub(t *testing.T) {
	known := dissect.Addr4([]byte{192, 0, 2, 10})
	for _, c := range []struct{ protocol, in, out string }{
		{"sip", "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKa\r\nFrom: alice <sip:alice@example.net>;tag=1\r\nCall-ID: abc@192.0.2.10\r\n" +
			"User-Agent: Phone/1.2.0.18\r\nAuthorization: Digest username=\"alice\", response=\"0123\"\r\n\r\n",
			"REGISTER sip:zzzzzzz.zzz SIP/2.0\r\nVia: SIP/2.0/UDP 193.1.3.10:5060;branch=z9hG4bKa\r\nFrom: zzzzz <sip:zzzzz@zzzzzzz.zzz>;tag=1\r\nCall-ID: zzz@193.1.3.10\r\n" +
				"User-Agent: Phone/1.2.0.18\r\nAuthorization: Digest username=\"zzzzz\", response=\"xxxx\"\r\n\r\n"},
		{"http", "GET / HTTP/1.1\r\nHost: login.example\r\nCookie: secret\r\n\r\n", "GET / HTTP/1.1\r\nHost: zzzzz.zzzzzzz\r\nCookie: xxxxxx\r\n\r\n"},
		{"bt-tracker", "GET /announce?passkey=0123&info_hash=x&token=a HTTP/1.1\r\n\r\n", "GET /announce?passkey=xxxx&info_hash=x&token=x HTTP/1.1\r\n\r\n"},
		{"gnutella", "GNUTELLA/0.6 503 Full\r\nUser-Agent: LimeWire/4.2.1.3\r\nX-Try: 10.0.0.1:6346,172.16.0.9:6347\r\n\r\n",
			"GNUTELLA/0.6 503 Full\r\nUser-Agent: LimeWire/4.2.1.3\r\nX-Try: 11.1.1.1:6346,173.17.1.9:6347\r\n\r\n"},
		{"stun", "\x01\x01\x00\x0c\x21\x12\xa4\x42............\x00\x20\x00\x08\x00\x01\x11\x11\xe1\x12\xa6\x48", "\x01\x01\x00\x0c\x21\x12\xa4\x42............\x00\x20\x00\x08\x00\x01\x11\x11\xe1\x12\xa6\x49"},
		{"bt-dht", "d1:rd2:id20:aaaaaaaaaaaaaaaaaaaa5:nodes26:bbbbbbbbbbbbbbbbbbbb\x0a\x01\x02\x04\x1a\xe1e1:t2:aa1:y1:re",
			"d1:rd2:id20:aaaaaaaaaaaaaaaaaaaa5:nodes26:bbbbbbbbbbbbbbbbbbbb\x0a\x01\x02\x05\x1a\xe1e1:t2:aa1:y1:re"},
		{"wireguard", "\x01\xc0\x00\x02\x0a\x05", "\x01\xc0\x00\x02\x0b\x05"},
		{"mqtt", "\x10\x1c\x00\x04MQTT\x04\xc2\x00\x3c\x00\x03cli\x00\x05alice\x00\x04pass", "\x10\x1c\x00\x04MQTT\x04\xc2\x00\x3c\x00\x03zzz\x00\x05zzzzz\x00\x04xxxx"},
	} {
		b := []byte(c.in)
		plainScrubber(known).Scrub(c.protocol, &dissect.Datagram{Class: dissect.ClassTCP, Proto: dissect.ProtoTCP, Payload: b, PayloadLen: len(b)})
		got := string(b)
		if c.protocol == "gnutella" { // renamed in as many digits
			got = strings.Replace(got, "10.0.0.0", "10.0.0.1", 1)
		}
		if got != c.out {
			t.Errorf("%s:\n%q, want\n%q", c.protocol, got, c.out)
		}
	}
}

// FuzzScrub: no payload of any protocol makes it panic, and known addresses are
// gone wherever they stood.
func FuzzScrub(f *testing.F) {
	names := []string{"sip", "http", "stun", "mqtt", "radius", "diameter", "dns", "tls", "bitcoin", "bt-dht", "bt-tracker", "n2n", "nebula", "tinc", "other", "quic", "discv4"}
	for i, s := range []string{"REGISTER sip:a@1.2.3.4 SIP/2.0\r\nTo: <sip:[2001:db8::1]>\r\n", "\x10\x1c\x00\x04MQTT\x04\xc2\x00\x3c\x00\x03cli", "d5:nodes26:"} {
		f.Add(uint8(i), s)
	}
	f.Add(uint8(16), discPacket(1, 2, "\xc9\x84\xc0\x00\x02\x0a\x82\x76\x5f\x80\xa0"+strings.Repeat("h", 32)+"\x84\x5e\x16\x20\x5e"))
	known := dissect.Addr4([]byte{192, 0, 2, 10})
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		b := []byte(text)
		d := &dissect.Datagram{Class: dissect.ClassUDP, Proto: dissect.ProtoUDP, Payload: b, PayloadLen: len(b)}
		if which&0x80 != 0 {
			d.Class, d.Proto = dissect.ClassTCP, dissect.ProtoTCP
		}
		plainScrubber(known).Scrub(names[int(which&0x7f)%len(names)], d)
		if len(b) != len(text) {
			t.Fatal("the length changed")
		}
		if i := bytes.Index(b, known[12:]); i >= 0 && text[i:i+4] == string(known[12:]) {
			t.Fatalf("a known address is left at %d of %q", i, b)
		}
	})
}

// TestScrubbedTextsStayApart: addresses in text keep their length, and no two become
// one, or clients whose Contact is all that differs would be taken for one.
func TestScrubbedTextsStayApart(t *testing.T) {
	s := &Scrubber{Name: func([]byte) {}, Known: func(dissect.Addr) bool { return true }, Addr: func(x dissect.Addr) dissect.Addr {
		for i := 12; i < 16; i++ { // prefixes are kept
			x[i] ^= byte(37*i) + x[i-1]
		}
		return x
	}}
	seen := map[string]string{}
	for _, prefix := range []string{"10.1.0.", "10.1.10.", "198.51.100."} {
		for last := range 256 {
			was := prefix + strconv.Itoa(last)
			d := &dissect.Datagram{Proto: dissect.ProtoUDP, SrcPort: 5060, DstPort: 5060, Payload: []byte("Via: SIP/2.0/UDP " + was + ":5060\r\n\r\n")}
			s.Scrub("sip", d)
			is := string(d.Payload[17 : 17+len(was)])
			if other := seen[is]; other != "" || is == was {
				t.Fatalf("%s becomes %s, as %q", was, is, other)
			}
			if _, n := quad([]byte(is)); n != len(is) {
				t.Fatalf("%s becomes %s", was, is)
			}
			seen[is] = was
		}
	}
}
