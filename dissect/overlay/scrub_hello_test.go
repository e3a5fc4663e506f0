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
		if got := NamesIn(d); !slices.Equal(got, []string{name}) {
			t.Fatalf("names before: %q", got)
		}
		s.Scrub("quic", d)
		is := hello(d)
		if got := NamesIn(d); len(got) != 1 || got[0] == name || len(got[0]) != len(name) {
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

// TestScrubHelloInPieces: the name of a ClientHello goes wherever the segments end.
func TestScrubHelloInPieces(t *testing.T) {
	body := handshake(1, chrome().body())
	name := chrome().name
	record := append([]byte{22, 3, 1, byte(len(body) >> 8), byte(len(body))}, body...)
	at := bytes.Index(record, []byte(name))
	for cut := 45; cut < len(record); cut++ {
		s := plainScrubber()
		first, second := between(dissect.ProtoTCP, 1, 2, string(record[:cut])), between(dissect.ProtoTCP, 1, 2, string(record[cut:]))
		first.Seq, second.Seq = 100, 100+uint32(cut)
		s.Scrub("tls", first)
		s.Scrub("tls", second)
		got := append(append([]byte{}, first.Payload...), second.Payload...)
		if len(got) != len(record) || !bytes.Equal(got[:at], record[:at]) || !bytes.Equal(got[at+len(name):], record[at+len(name):]) {
			t.Fatalf("cut at %d: more than the name was changed", cut)
		}
		for i, c := range got[at : at+len(name)] {
			if c != 'z' && c != name[i] || c != 'z' && c >= 'a' && c <= 'z' {
				t.Fatalf("cut at %d: %q is left of %q", cut, got[at:at+len(name)], name)
			}
		}
		if len(s.hellos) != 0 {
			t.Fatalf("cut at %d: the flow is still remembered", cut)
		}
	}
}
