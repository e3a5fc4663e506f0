package overlay

import (
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"squall/dissect"
)

func keccak(b []byte) []byte {
	h := sha3.NewLegacyKeccak256()
	h.Write(b)
	return h.Sum(nil)
}

// discPacket signs a packet with the key of the given number.
func discPacket(key byte, kind byte, list string) string {
	head := []byte{kind, 0xc0 + byte(len(list))}
	if len(list) > 55 {
		head = []byte{kind, 0xf8, byte(len(list))}
	}
	data := append(head, list...)
	s := ecdsa.SignCompact(secp256k1.PrivKeyFromBytes([]byte{key}), keccak(data), false)
	b := append(append([]byte(nil), s[1:]...), s[0]-27)
	b = append(b, data...)
	return string(append(keccak(b), b...))
}

func TestDiscv4(t *testing.T) {
	endpoint := "\xc9\x84\x7f\x00\x00\x01\x82\x76\x5f\x80"
	expires := "\x84\x5e\x16\x20\x5e"
	ping := discPacket(1, 1, "\x04"+endpoint+endpoint+expires)
	pong := discPacket(2, 2, endpoint+"\xa0"+ping[:32]+expires)
	find := discPacket(1, 3, "\xb8\x40"+strings.Repeat("t", 64)+expires)
	ask := discPacket(1, 5, expires)
	id := keccak(secp256k1.PrivKeyFromBytes([]byte{1}).PubKey().SerializeUncompressed()[1:])
	converse(t, discv4{}, dissect.ProtoUDP, 30303, []line{
		{data: find, kind: dissect.KindRequest, op: "findnode"},
		{data: ping, kind: dissect.KindRequest, op: "ping", id: string(id), role: dissect.RolePeer},
		{node: true, data: discPacket(2, 4, "\xc0"+expires), kind: dissect.KindAccept, op: "neighbors", same: 1},
		{node: true, data: pong, kind: dissect.KindAccept, op: "pong", same: 2},
		{data: find, kind: dissect.KindRefresh, same: 1},
		{data: ask, kind: dissect.KindRefresh, op: "enrrequest"},
		{node: true, data: discPacket(2, 6, "\xa0"+ask[:32]+"\xc1\x01"), kind: dissect.KindAccept, op: "enrresponse", same: 6},
	})
	broken := []byte(ping)
	broken[40] ^= 1
	var f dissect.Flow
	var m dissect.Message
	if _, err := (discv4{}).Dissect(packet(dissect.ProtoUDP, 1, 2, string(broken)), &f, &m); err == nil {
		t.Error("a packet whose hash does not fit is read")
	}
	strangers(t, discv4{}, dissect.ProtoUDP, 30303, ping[:len(ping)-1], strings.Repeat("\x01", 200), strings.Repeat("x", 63))
}

func FuzzDiscv4(f *testing.F) {
	fuzzProtocol(f, discv4{}, 30303, discPacket(1, 1, "\x04\xc9\x84\x7f\x00\x00\x01\x82\x76\x5f\x80\xc9\x84\x7f\x00\x00\x01\x82\x76\x5f\x80\x84\x5e\x16\x20\x5e"))
}
