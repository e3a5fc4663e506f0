package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

var (
	openvpnReset  = unhex("389aa6b1e434889ad30000000000")
	openvpnAnswer = unhex("40e7a77eba7c1c51b501000000009aa6b1e434889ad300000000")
	openvpnHMAC   = "\x38sessions" + strings.Repeat("h", 20) + "\x00\x00\x00\x01\x5f\x00\x00\x00" + "\x00\x00\x00\x00\x00"
	openvpnTC     = "\x38sessions\x00\x00\x00\x01\x5f\x00\x00\x00" + strings.Repeat("h", 37)
	openvpnTC2    = "\x50sessions\x00\x00\x00\x01\x5f\x00\x00\x00" + strings.Repeat("h", 37) + strings.Repeat("k", 298) + "\x01\x2c"
)

func TestOpenVPN(t *testing.T) {
	udp := []line{
		{data: openvpnReset, kind: dissect.KindRequest, op: "HARD_RESET", role: dissect.RoleSupernode},
		{data: openvpnReset, kind: dissect.KindRequest, same: 1},
		{node: true, data: openvpnAnswer, kind: dissect.KindProgress, same: 1},
		{data: unhex("289aa6b1e434889ad30100000000e7a77eba7c1c51b5"), kind: dissect.KindProgress, same: 1},
		{node: true, data: unhex("4800000a0000000135363738"), kind: dissect.KindAccept, op: "DATA", same: 1},
		{data: unhex("4800000a0000000135363738"), kind: dissect.KindData},
		{data: unhex("199aa6b1e434889ad30000000000"), kind: dissect.KindRefresh, op: "SOFT_RESET"},
		{node: true, data: unhex("21e7a77eba7c1c51b501000000009aa6b1e434889ad300000000"), kind: dissect.KindProgress, same: 7},
		{node: true, data: unhex("4900000a0000000135363738"), kind: dissect.KindAccept, same: 7},
	}
	converse(t, openvpn{}, dissect.ProtoUDP, 1194, udp)
	var tcp []line
	for _, l := range udp {
		l.data = "\x00" + string(rune(len(l.data))) + l.data
		tcp = append(tcp, l)
	}
	converse(t, openvpn{}, dissect.ProtoTCP, 1194, tcp)
	for _, reset := range []string{openvpnHMAC, openvpnTC, openvpnTC2, openvpnTC2[:9] + "\x0a\x01" + openvpnTC2[11:]} {
		converse(t, openvpn{}, dissect.ProtoUDP, 1194, []line{{data: reset, kind: dissect.KindRequest}})
	}
	strangers(t, openvpn{}, dissect.ProtoUDP, 1194, openvpnReset+"x", "\x38"+strings.Repeat("\x00", 13), openvpnHMAC[:len(openvpnHMAC)-1],
		strings.Replace(openvpnHMAC, "\x5f\x00", "\x00\x5f", 1), openvpnTC2+"x")
}

func FuzzOpenVPN(f *testing.F) {
	fuzzProtocol(f, openvpn{}, 1194, "\x00\x0e"+openvpnReset, "\x00\x1a"+openvpnAnswer)
}
