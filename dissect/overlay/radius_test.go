package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

func radiusPacket(code, id byte, attributes string) string {
	n := radiusHeader + len(attributes)
	return string([]byte{code, id, byte(n >> 8), byte(n)}) + strings.Repeat("a", 16) + attributes
}

func TestRADIUS(t *testing.T) {
	user := "\x01\x05bob\x1f\x13aa-bb-cc-dd-ee-ff"
	converse(t, radius{}, dissect.ProtoUDP, 1812, []line{
		{data: radiusPacket(1, 255, user), kind: dissect.KindRequest, op: "Access-Request", id: "aa-bb-cc-dd-ee-ff", role: dissect.RoleLogin},
		{node: true, data: radiusPacket(11, 255, "\x18\x06abcd"), kind: dissect.KindChallenge, same: 1},
		{data: radiusPacket(1, 0, user+"\x18\x06abcd"), kind: dissect.KindRequest},
		{node: true, data: radiusPacket(2, 0, "\x1b\x06\x00\x00\x0e\x10"), kind: dissect.KindAccept, same: 3, life: 3600 * second},
		{data: radiusPacket(1, 1, "\x01\x05eve"), kind: dissect.KindRequest, id: "eve"},
		{node: true, data: radiusPacket(3, 1, "\x12\x04no"), kind: dissect.KindRefuse, op: "Access-Reject", same: 5},
		{data: radiusPacket(4, 2, "\x28\x06\x00\x00\x00\x01"), kind: dissect.KindRequest, op: "Accounting-Request"},
		{node: true, data: radiusPacket(5, 2, ""), kind: dissect.KindAccept, same: 7},
		{data: radiusPacket(4, 3, "\x28\x06\x00\x00\x00\x03"), kind: dissect.KindRefresh},
		{data: radiusPacket(12, 4, "\x50\x12"+strings.Repeat("m", 16)), kind: dissect.KindRefresh, op: "Status-Server"},
	})
	// The identifier comes round again: the 256th request after the first is another.
	var f dissect.Flow
	first := uint64(0)
	for i := range 600 {
		m := dissect.Message{}
		if _, err := (radius{}).Dissect(packet(dissect.ProtoUDP, 1, 1812, radiusPacket(1, byte(i), user)), &f, &m); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = m.Txn
		} else if m.Txn == first {
			t.Fatalf("request %d is taken for the first", i)
		}
	}
	// An attribute without a value is let pass, beside one that has a value.
	converse(t, radius{}, dissect.ProtoUDP, 1812, []line{{data: radiusPacket(1, 1, "\x1e\x02"+user), kind: dissect.KindRequest, id: "aa-bb-cc-dd-ee-ff"}})
	// A server that ends a session asks the access point, and attaches nobody.
	converse(t, radius{}, dissect.ProtoUDP, 3799, []line{
		{data: radiusPacket(40, 7, user), kind: dissect.KindData},
		{node: true, data: radiusPacket(42, 7, "\x65\x06\x00\x00\x01\xf7"), kind: dissect.KindData},
		{data: radiusPacket(43, 8, user), kind: dissect.KindData},
		{node: true, data: radiusPacket(44, 8, ""), kind: dissect.KindData},
	})
	strangers(t, radius{}, dissect.ProtoUDP, 1812, radiusPacket(1, 1, user)+"x", radiusPacket(1, 1, user+"\x01\x01"), radiusPacket(9, 1, user), radiusPacket(1, 1, ""), radiusPacket(1, 1, "\x1e\x02"), radiusPacket(40, 1, ""))
}

func FuzzRADIUS(f *testing.F) {
	fuzzProtocol(f, radius{}, 1812, radiusPacket(1, 1, "\x01\x05bob"), radiusPacket(2, 1, "\x1b\x06\x00\x00\x0e\x10"))
}
