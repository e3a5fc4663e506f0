package overlay

import (
	"testing"

	"squall/dissect"
)

func TestLibp2p(t *testing.T) {
	converse(t, libp2p{}, dissect.ProtoTCP, 4001, []line{
		{data: multistream, kind: dissect.KindData},
		{node: true, data: multistream, kind: dissect.KindData},
		{data: "\x0b/tls/1.0.0\n", kind: dissect.KindRequest, op: "/tls", role: dissect.RolePeer},
		{node: true, data: "\x03na\n", kind: dissect.KindRefuse, op: "na", same: 3},
		{data: "\x07/noise\n", kind: dissect.KindRequest, op: "/noise"},
		{data: "\x00\x20noise begins before the echo 12345", kind: dissect.KindData},
		{node: true, data: "\x07/noise\n", kind: dissect.KindAccept, op: "/noise", same: 5},
	})
	strangers(t, libp2p{}, dissect.ProtoTCP, 4001, "\x13/multistream/2.0.0\n", "\x13BitTorrent protocol", multistream[1:], "")
}

func FuzzLibp2p(f *testing.F) {
	fuzzProtocol(f, libp2p{}, 4001, multistream+"\x07/noise\n", "\x03na\n")
}
