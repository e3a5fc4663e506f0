package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

// zerotierPacket has the source "clnt!" and the destination "root!"; a HELLO is in clear.
func zerotierPacket(id, dst, src string, verb byte) string {
	b := id + dst + src + "\x00" + strings.Repeat("m", 8) + string([]byte{verb})
	return b + "\x0c\x01\x0c\x00\x02" + "\x00\x00\x01\x8b\xcf\xe5\x68\x00" + src + "\x00" + strings.Repeat("k", 64) + "\x00"
}

func TestZeroTier(t *testing.T) {
	hello := zerotierPacket("packet_1", "root!", "clnt!", 1)
	ok := "packet_9" + "clnt!" + "root!" + "\x08" + strings.Repeat("e", 60)
	converse(t, zerotier{}, dissect.ProtoUDP, 9993, []line{
		{data: hello, kind: dissect.KindRequest, op: "HELLO", id: "clnt!", version: "ZeroTier 1.12.2"},
		{data: zerotierPacket("packet_2", "root!", "clnt!", 1), kind: dissect.KindRequest, op: "HELLO"},
		{node: true, data: ok, kind: dissect.KindAccept, same: 2},
		{node: true, data: ok, kind: dissect.KindData},
		{data: zerotierPacket("packet_3", "root!", "clnt!", 1), kind: dissect.KindRefresh},
		{node: true, data: ok, kind: dissect.KindAccept, same: 5},
	})
	strangers(t, zerotier{}, dissect.ProtoUDP, 9993, ok, zerotierPacket("packet_1", "root!", "clnt!", 3), hello[:41]+"other"+hello[46:], hello[:18]+"\x08"+hello[19:],
		strings.Repeat("\x01", 376), hello[:33]+"\x01"+hello[34:], zerotierPacket("packet_1", "clnt!", "clnt!", 1)) // the first is the worm of 2003
}

func FuzzZeroTier(f *testing.F) {
	fuzzProtocol(f, zerotier{}, 9993, zerotierPacket("packet_1", "root!", "clnt!", 1))
}
