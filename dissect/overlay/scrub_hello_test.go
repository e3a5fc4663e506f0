package overlay

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
)

func between(proto uint8, from, to byte, payload string) *dissect.Datagram {
	d := &dissect.Datagram{Class: dissect.ClassTCP, Proto: proto, Src: dissect.Addr4([]byte{192, 0, 2, from}), Dst: dissect.Addr4([]byte{192, 0, 2, to}),
		SrcPort: 4000, DstPort: 443, Payload: []byte(payload), PayloadLen: len(payload)}
	if from == 2 {
		d.SrcPort, d.DstPort = 443, 4000
	}
	if proto == dissect.ProtoUDP {
		d.Class = dissect.ClassUDP
	}
	return d
}

// TestScrubQUIC: the name leaves an Initial, the tag stays valid, and all that is
// read of the hello but the name is what it was.
func TestScrubQUIC(t *testing.T) {
	ch := string(handshake(1, chrome().body()))
	name := chrome().name
	half := len(ch) / 2
	pad := strings.Repeat("\x00", 1100-len(ch))
	frames := cryptoFrame(uint16(half), ch[half:]) + "\x01" + cryptoFrame(0, ch[:half]) + pad
	for _, version := range []uint32{quicV1, quicV2, quicDraft22, quicDraft29} {
		s := plainScrubber()
		namesIn := NewNamesIn()
		hello := func(d *dissect.Datagram) ClientHello {
			p, _ := readQUIC(d.Payload)
			frames, ok := openQUIC(&p, p.dst, "client in")
			if !ok {
				t.Fatalf("version %x: the tag does not hold", version)
			}
			h, ok := quicHello(quicPieces(nil, frames))
			if !ok {
				t.Fatalf("version %x: no hello is left", version)
			}
			return h
		}
		d := between(dissect.ProtoUDP, 1, 2, sealInitial(version, "original", "original", "client", "", "client in", frames))
		was := hello(d)
		if got := namesIn("tls", d); !slices.Equal(got, []string{name}) {
			t.Fatalf("names before: %q", got)
		}
		s.Scrub("quic", d)
		is := hello(d)
		if got := namesIn("tls", d); len(got) != 1 || got[0] == name || len(got[0]) != len(name) {
			t.Errorf("version %x: names after: %q", version, got)
		}
		if is.JA4('q') != was.JA4('q') || is.JA3() != was.JA3() {
			t.Errorf("version %x: the fingerprint is another", version)
		}
		// The node's Initial stays readable, and the client's later ones are cleaned
		// with the keys of its first.
		answer := sealInitial(version, "original", "client", "server01", "", "server in", "\x02\x00\x00\x00\x00"+cryptoFrame(0, "server hello"))
		d = between(dissect.ProtoUDP, 2, 1, answer)
		if s.Scrub("quic", d); string(d.Payload) != answer {
			t.Errorf("version %x: the answer was changed", version)
		}
		again := sealInitial(version, "original", "server01", "client", "", "client in", frames)
		d = between(dissect.ProtoUDP, 1, 2, again)
		s.Scrub("quic", d)
		p, _ := readQUIC(d.Payload)
		if f, ok := openQUIC(&p, []byte("original"), "client in"); !ok || bytes.Contains(f, []byte(name)) {
			t.Errorf("version %x: repeated to the server's id, opened %v: the name stays", version, ok)
		}
	}
	// A hello in two datagrams, and an Initial that nothing opens.
	s := plainScrubber()
	d := between(dissect.ProtoUDP, 1, 2, sealInitial(quicV1, "original", "original", "client", "", "client in", cryptoFrame(0, ch[:half])+pad+strings.Repeat("\x00", half)))
	s.Scrub("quic", d)
	p, _ := readQUIC(d.Payload)
	if f, ok := openQUIC(&p, p.dst, "client in"); !ok || bytes.Contains(f, []byte(ch[40:half])) {
		t.Errorf("half a hello: opened %v", ok)
	}
	d = between(dissect.ProtoUDP, 3, 2, sealInitial(quicV1, "otherkey", "original", "client", "", "client in", frames))
	s.Scrub("quic", d)
	if p, _ := readQUIC(d.Payload); !bytes.Equal(p.data[p.number:], make([]byte, len(p.data)-p.number)) {
		t.Error("what cannot be opened was kept")
	}
}

// TestScrubHello: the name of a ClientHello goes, and nothing else, wherever in its
// stream it begins and ends.
func TestScrubHello(t *testing.T) {
	body := handshake(1, chrome().body())
	name := chrome().name
	record := string([]byte{22, 3, 1, byte(len(body) >> 8), byte(len(body))}) + string(body)
	for _, front := range []string{"", "* OK\r\na STARTTLS\r\n", "\x16\x03\x01\x00\x05\x01"} {
		in := front + record
		at := strings.Index(in, name)
		for end := at + 1; end <= len(in); end++ {
			d := between(dissect.ProtoTCP, 1, 2, in[:end])
			plainScrubber().Scrub("tls", d)
			want := in[:at] + strings.Map(func(c rune) rune {
				if c >= 'a' && c <= 'z' {
					return 'z'
				}
				return c
			}, name) + in[at+len(name):]
			if string(d.Payload) != want[:end] {
				t.Fatalf("behind %q, cut at %d: %q", front, end, d.Payload)
			}
		}
	}
}

// TestNamesInStreams: what readers find is told, whichever side says it and however many
// messages come before.
func TestNamesInStreams(t *testing.T) {
	names := NewNamesIn()
	ask := "GET / HTTP/1.1\r\nHost: login.example.org\r\n\r\n"
	d := between(dissect.ProtoTCP, 1, 2, ask+strings.Replace(ask, "login", "other", 1))
	if got := names("http", d); !slices.Contains(got, "login.example.org") || !slices.Contains(got, "other.example.org") {
		t.Errorf("%q", got)
	}
}
