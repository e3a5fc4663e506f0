package overlay

import (
	"testing"

	"squall/dissect"
)

// The version of 2011 has no checksum; the bytes are those of a real one.
var (
	bitcoinVersion2011 = unhex("f9beb4d9 76657273696f6e0000000000 55000000 017d0000 0100000000000000 58b2904d00000000" +
		"0100000000000000 00000000000000000000ffff42445316 208d 0100000000000000 00000000000000000000ffff00000000 0000 6f6b6579796f7572 00 a8a90100")
	bitcoinVerack2011 = unhex("f9beb4d9 76657261636b000000000000 00000000")
	bitcoinVersion    = unhex("f9beb4d9 76657273696f6e0000000000 66000000 8e3a1f77 7f110100 0904000000000000 58b2904d00000000"+
		"0100000000000000 00000000000000000000ffff42445316 208d 0904000000000000 00000000000000000000ffff00000000 0000 6f6b6579796f7572 10") +
		"/Satoshi:0.20.1/" + unhex("a8a90100 01")
	bitcoinVerack = unhex("f9beb4d9 76657261636b000000000000 00000000 5df6e0e2")
)

func TestBitcoin(t *testing.T) {
	converse(t, bitcoin{}, dissect.ProtoTCP, 8333, []line{
		{data: bitcoinVersion2011, kind: dissect.KindRequest, op: "version", role: dissect.RolePeer},
		{node: true, data: bitcoinVersion2011, kind: dissect.KindProgress, op: "version"},
		{node: true, data: bitcoinVerack2011, kind: dissect.KindAccept, op: "verack", same: 1},
		{data: bitcoinVerack2011, kind: dissect.KindData},
	})
	nonce := "\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	converse(t, bitcoin{}, dissect.ProtoTCP, 8333, []line{
		{data: bitcoinVersion, kind: dissect.KindRequest, version: "/Satoshi:0.20.1/"},
		{node: true, data: bitcoinVersion, kind: dissect.KindProgress},
		{node: true, data: bitcoinVerack, kind: dissect.KindAccept, same: 1},
		{data: "\xf9\xbe\xb4\xd9ping\x00\x00\x00\x00\x00\x00\x00\x00" + nonce[:8] + "abcdefgh", kind: dissect.KindRefresh, op: "ping"},
		{node: true, data: "\xf9\xbe\xb4\xd9pong\x00\x00\x00\x00\x00\x00\x00\x00" + nonce[:8] + "abcdefgh", kind: dissect.KindAccept, op: "pong", same: 4},
	})
	converse(t, bitcoin{}, dissect.ProtoTCP, 8333, []line{
		{data: bitcoinVersion, kind: dissect.KindRequest},
		{node: true, data: "\xf9\xbe\xb4\xd9reject\x00\x00\x00\x00\x00\x00\x12\x00\x00\x00abcd\x07version\x11\x08obsolete", kind: dissect.KindRefuse, op: "reject"},
	})
	strangers(t, bitcoin{}, dissect.ProtoTCP, 8333, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", bitcoinVersion[1:], "\xf9\xbe\xb4\xd9vers\x01on\x00\x00\x00\x00\x00\x00\x00\x00\x00")
}

func FuzzBitcoin(f *testing.F) {
	fuzzProtocol(f, bitcoin{}, 8333, bitcoinVersion, bitcoinVersion2011, bitcoinVerack)
}
