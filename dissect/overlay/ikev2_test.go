package overlay

import (
	"encoding/binary"
	"strings"
	"testing"

	"squall/dissect"
)

// ike makes a message of the given exchange; payloads are its body.
func ike(exchange, flags, next byte, id uint32, payloads string) string {
	b := []byte("initiate\x00\x00\x00\x00\x00\x00\x00\x00")
	if flags&ikeResponse != 0 || exchange != ikeExchangeInit {
		copy(b[8:], "responds")
	}
	b = append(b, next, 0x20, exchange, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(ikeHeader+len(payloads)))
	return string(b) + payloads
}

func ikeNotifies(kind uint16, data string) string {
	b := []byte{0, 0, 0, byte(8 + len(data)), 0, 0, byte(kind >> 8), byte(kind)}
	return string(b) + data
}

func TestIKEv2(t *testing.T) {
	sa := ike(34, 0x08, 33, 0, "\x00\x00\x00\x0c12345678")
	cookie := "\x21\x00\x00\x0c\x00\x00\x40\x06abcd\x00\x00\x00\x0c12345678"
	converse(t, ikev2{}, dissect.ProtoUDP, 500, []line{
		{data: sa, kind: dissect.KindRequest, op: "IKE_SA_INIT", role: dissect.RoleSupernode},
		{data: sa, kind: dissect.KindRequest, same: 1},
		{node: true, data: ike(34, 0x20, 41, 0, ikeNotifies(ikeCookie, "abcd")), kind: dissect.KindThrottle, op: "COOKIE", same: 1},
		{data: ike(34, 0x08, 41, 0, cookie), kind: dissect.KindRequest, op: "IKE_SA_INIT cookie"},
		{node: true, data: ike(34, 0x20, 33, 0, "\x00\x00\x00\x0c12345678"), kind: dissect.KindAccept, same: 4},
		{data: ike(35, 0x08, 46, 1, strings.Repeat("x", 200)), kind: dissect.KindRequest, op: "IKE_AUTH"},
		{node: true, data: ike(35, 0x20, 46, 1, strings.Repeat("x", 200)), kind: dissect.KindAccept, same: 6},
		{data: ike(37, 0x08, 46, 2, strings.Repeat("x", 52)), kind: dissect.KindRefresh, op: "INFORMATIONAL"},
		{node: true, data: ike(37, 0x20, 46, 2, strings.Repeat("x", 52)), kind: dissect.KindAccept, same: 8},
		{node: true, data: ike(37, 0x20, 41, 3, ikeNotifies(ikeInvalidSPI, "")), kind: dissect.KindLost},
	})
	for _, a := range []struct {
		notify uint16
		kind   dissect.Kind
	}{{14, dissect.KindRefuse}, {24, dissect.KindRefuse}, {ikeInvalidKE, dissect.KindChallenge}, {ikeRedirect, dissect.KindRedirect}, {16388, dissect.KindProgress}} {
		converse(t, ikev2{}, dissect.ProtoUDP, 4500, []line{
			{data: "\x00\x00\x00\x00" + sa, kind: dissect.KindRequest},
			{node: true, data: "\x00\x00\x00\x00" + ike(34, 0x20, 41, 0, ikeNotifies(a.notify, "")), kind: a.kind, same: 1},
		})
	}
	converse(t, ikev2{}, dissect.ProtoUDP, 4500, []line{
		{data: ike(35, 0x08, 46, 1, strings.Repeat("x", 200)), kind: dissect.KindRequest},
		{node: true, data: ike(35, 0x20, 46, 1, strings.Repeat("x", 52)), kind: dissect.KindRefuse, same: 1},
	})
	// The payloads may stand in any order; IKE_AUTH comes after all IKE_INTERMEDIATE.
	converse(t, ikev2{}, dissect.ProtoUDP, 4500, []line{
		{data: sa, kind: dissect.KindRequest},
		{node: true, data: ike(34, 0x20, 43, 0, "\x21\x00\x00\x08abcd\x00\x00\x00\x0c12345678"), kind: dissect.KindAccept, same: 1},
		{data: ike(43, 0x08, 46, 1, strings.Repeat("x", 200)), kind: dissect.KindData},
		{node: true, data: ike(43, 0x20, 46, 1, strings.Repeat("x", 200)), kind: dissect.KindData},
		{data: ike(35, 0x08, 46, 2, strings.Repeat("x", 200)), kind: dissect.KindRequest, op: "IKE_AUTH"},
		{node: true, data: ike(35, 0x20, 46, 2, strings.Repeat("x", 200)), kind: dissect.KindAccept, same: 5},
		{data: ike(35, 0x08, 46, 3, strings.Repeat("x", 80)), kind: dissect.KindData},
	})
	// A gateway's own payload before the encrypted one.
	converse(t, ikev2{}, dissect.ProtoUDP, 4500, []line{{data: "\x00\x00\x00\x00" + ike(35, 0x08, 127, 1, strings.Repeat("x", 200)), kind: dissect.KindRequest, op: "IKE_AUTH"}})
	isakmp1 := []byte(sa)
	isakmp1[17] = 0x10
	strangers(t, ikev2{}, dissect.ProtoUDP, 500, string(isakmp1), sa+"x", sa[:len(sa)-1])
}

func FuzzIKEv2(f *testing.F) {
	fuzzProtocol(f, ikev2{}, 500, ike(34, 0x08, 33, 0, "\x00\x00\x00\x0c12345678"), ike(34, 0x20, 41, 0, ikeNotifies(ikeCookie, "abcd")))
}
