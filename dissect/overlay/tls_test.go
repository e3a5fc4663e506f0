package overlay

import (
	"encoding/binary"
	"strings"
	"testing"

	"squall/dissect"
)

// hello describes a ClientHello to be made; extensions stand in sent order.
type hello struct {
	version    uint16
	ciphers    []uint16
	extensions []uint16
	name, alpn string
	groups     []uint16
	points     []byte
	signatures []uint16
	versions   []uint16
}

func be16(list ...uint16) (b []byte) {
	for _, v := range list {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

func with16(b []byte) []byte { return append(be16(uint16(len(b))), b...) }
func with8(b []byte) []byte  { return append([]byte{byte(len(b))}, b...) }

// body is the ClientHello behind the handshake header.
func (h hello) body() []byte {
	b := be16(h.version)
	b = append(b, strings.Repeat("r", 32)...)
	b = append(b, with8([]byte("session"))...)
	b = append(b, with16(be16(h.ciphers...))...)
	b = append(b, 1, 0)
	if len(h.extensions) == 0 {
		return b
	}
	var all []byte
	for _, x := range h.extensions {
		var v []byte
		switch x {
		case 0:
			v = with16(append([]byte{0}, with16([]byte(h.name))...))
		case 10:
			v = with16(be16(h.groups...))
		case 11:
			v = with8(h.points)
		case 13:
			v = with16(be16(h.signatures...))
		case 16:
			v = with16(with8([]byte(h.alpn)))
		case 43:
			v = with8(be16(h.versions...))
		}
		all = append(append(all, be16(x)...), with16(v)...)
	}
	return append(b, with16(all)...)
}

// handshake wraps a handshake message of the given type into its header.
func handshake(kind byte, body []byte) []byte {
	n := len(body)
	return append([]byte{kind, byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

func record(kind byte, body []byte) string {
	return string(append([]byte{kind, 3, 1}, with16(body)...))
}

// chrome is the worked example of JA4.md.
func chrome() hello {
	return hello{version: 0x0303,
		ciphers:    []uint16{0x8a8a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		extensions: []uint16{0x9a9a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015},
		name:       "relay.example.org", alpn: "h2", groups: []uint16{29}, points: []byte{0},
		signatures: []uint16{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
		versions:   []uint16{0x7a7a, 0x0304, 0x0303}}
}

func TestFingerprints(t *testing.T) {
	for _, v := range []struct {
		h        hello
		ja3, ja4 string
	}{
		{hello{version: 769, ciphers: []uint16{47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4}, extensions: []uint16{0, 10, 11},
			name: "a.example", groups: []uint16{23, 24, 25}, points: []byte{0}}, "ada70206e40642a3e4461f35503241d5", "t10d120300_"},
		{hello{version: 769, ciphers: []uint16{4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99}}, "de350869b8c85de67a350c8d186f11e6", "t10i110000_"},
		{chrome(), "", "t13d1516h2_8daaf6152771_e5627efa2ab1"},
	} {
		h, err := ReadClientHello(v.h.body())
		if err != nil {
			t.Fatal(err)
		}
		if v.ja3 != "" && h.JA3() != v.ja3 {
			t.Errorf("JA3 %s, want %s", h.JA3(), v.ja3)
		}
		if !strings.HasPrefix(h.JA4('t'), v.ja4) {
			t.Errorf("JA4 %s, want %s", h.JA4('t'), v.ja4)
		}
		if string(h.ServerName) != v.h.name || string(h.ALPN) != v.h.alpn {
			t.Errorf("SNI %q, ALPN %q", h.ServerName, h.ALPN)
		}
	}
	for alpn, want := range map[string]string{"h2": "h2", "http/1.1": "h1", "x": "xx", "": "00", "\xab\xcd": "ad"} {
		if got := ja4ALPN([]byte(alpn)); got != want {
			t.Errorf("ALPN %q gives %s, want %s", alpn, got, want)
		}
	}
}

func TestTLS(t *testing.T) {
	server := append(append(be16(0x0303), strings.Repeat("s", 32)...), 0, 0x13, 0x01, 0)
	retry := append(append(be16(0x0303), tlsRetry...), 0, 0x13, 0x01, 0)
	client := record(tlsHandshake, handshake(1, chrome().body()))
	converse(t, tls{}, dissect.ProtoTCP, 443, []line{
		{data: client, kind: dissect.KindRequest, op: "ClientHello", version: "t13d1516h2_8daaf6152771_e5627efa2ab1", name: "relay.example.org"},
		{node: true, data: record(tlsHandshake, handshake(2, retry)), kind: dissect.KindChallenge, op: "HelloRetryRequest"},
		{data: client, kind: dissect.KindData},
		{node: true, data: record(tlsHandshake, handshake(2, server)), kind: dissect.KindAccept, op: "ServerHello", same: 1},
		{node: true, data: record(tlsData, []byte("secret")), kind: dissect.KindData},
		{node: true, data: record(tlsAlert, []byte{1, 0}), kind: dissect.KindClose, op: "close_notify"},
		{data: record(tlsData, []byte("secret")), kind: dissect.KindData},
	})
	converse(t, tls{}, dissect.ProtoTCP, 443, []line{
		{data: client, kind: dissect.KindRequest},
		{node: true, data: record(tlsAlert, []byte{1, 112}), kind: dissect.KindData, op: "unrecognized_name"},
		{node: true, data: record(tlsAlert, []byte{2, 40}), kind: dissect.KindRefuse, op: "handshake_failure", same: 1},
	})
	// The certificate is not the one that the client wants, in clear and sealed.
	for _, no := range []string{record(tlsAlert, []byte{2, 48}), record(tlsCCS, []byte{1}) + record(tlsData, []byte(strings.Repeat("a", tlsSealedAlert)))} {
		list := []line{
			{data: client, kind: dissect.KindRequest},
			{node: true, data: record(tlsHandshake, handshake(2, server)), kind: dissect.KindAccept},
		}
		if no[0] == tlsCCS {
			list = append(list, line{data: no[:6], kind: dissect.KindData})
			no = no[6:]
		}
		converse(t, tls{}, dissect.ProtoTCP, 443, append(list, line{data: no, kind: dissect.KindRefuse}))
	}
	converse(t, tls{}, dissect.ProtoTCP, 443, []line{
		{data: client, kind: dissect.KindRequest},
		{node: true, data: record(tlsHandshake, handshake(2, server)), kind: dissect.KindAccept},
		{data: record(tlsData, []byte(strings.Repeat("f", 53))), kind: dissect.KindData},
		{data: record(tlsData, []byte(strings.Repeat("a", tlsSealedAlert))), kind: dissect.KindData},
		{data: record(tlsAlert, []byte{1, 0}), kind: dissect.KindClose, op: "close_notify"},
	})
	old := hello{version: 769, ciphers: []uint16{47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4}, extensions: []uint16{0, 10, 11},
		name: "a.example", groups: []uint16{23, 24, 25}, points: []byte{0}}
	converse(t, tls{}, dissect.ProtoTCP, 443, []line{{data: record(tlsHandshake, handshake(1, old.body())), kind: dissect.KindRequest, name: "a.example", ja3: "ada70206e40642a3e4461f35503241d5"}})
	v2 := "\x80\x1c\x01\x03\x01\x00\x03\x00\x00\x00\x10\x00\x00\x2f" + strings.Repeat("c", 16)
	converse(t, tls{}, dissect.ProtoTCP, 443, []line{{data: v2, kind: dissect.KindRequest, op: "ClientHello"}})
	strangers(t, tls{}, dissect.ProtoTCP, 443, "\x16\x03\x01\x00\x00", "\x17\x03\x01\x00\x20"+strings.Repeat("x", 32), "\x16\x02"+client[2:], "\x16\x03\x01\x00\x50\x0b\x00\x00\x4c\x03\x03xxxxx", v2[:5]+"\x04"+v2[6:])
}

func FuzzTLS(f *testing.F) {
	fuzzProtocol(f, tls{}, 443, record(tlsHandshake, handshake(1, chrome().body())), record(tlsAlert, []byte{2, 40}))
}

func FuzzClientHello(f *testing.F) {
	f.Add(chrome().body())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ReadClientHello(b)
		if err == nil && len(h.JA4('t')) != 36 {
			t.Errorf("JA4 %q", h.JA4('t'))
		}
		h.JA3()
	})
}
