package overlay

import (
	"encoding/binary"
	"testing"

	"squall/dissect"
)

func avp(code uint32, data string) string {
	b := binary.BigEndian.AppendUint32(nil, code)
	b = binary.BigEndian.AppendUint32(b, 0x40<<24|uint32(8+len(data)))
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return string(b)
}

func diameterMessage(flags byte, command, hop uint32, avps ...string) string {
	body := ""
	for _, a := range avps {
		body += a
	}
	b := binary.BigEndian.AppendUint32(nil, 1<<24|uint32(diameterHeader+len(body)))
	b = binary.BigEndian.AppendUint32(b, uint32(flags)<<24|command)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, hop)
	b = binary.BigEndian.AppendUint32(b, hop)
	return string(b) + body
}

func diameterResult(code uint32) string {
	return avp(avpResult, string(binary.BigEndian.AppendUint32(nil, code)))
}

func TestDiameter(t *testing.T) {
	cer := diameterMessage(0x80, 257, 7, avp(avpOrigin, "mme1.example.org"), avp(296, "example.org"), avp(avpProduct, "freeDiameter"))
	converse(t, diameter{}, dissect.ProtoTCP, 3868, []line{
		{data: cer, kind: dissect.KindRequest, op: "Capabilities-Exchange", id: "mme1.example.org", version: "freeDiameter", role: dissect.RoleLogin},
		{node: true, data: diameterMessage(0, 257, 7, diameterResult(2001)), kind: dissect.KindAccept, same: 1},
		{data: diameterMessage(0x80, 280, 8, avp(avpOrigin, "mme1.example.org")), kind: dissect.KindRefresh, op: "Device-Watchdog"},
		{node: true, data: diameterMessage(0, 280, 8, diameterResult(2001)), kind: dissect.KindAccept, same: 3},
		{data: diameterMessage(0xc0, 272, 9, avp(avpSession, "s;1")), kind: dissect.KindRequest, op: "Credit-Control"},
		{data: diameterMessage(0xc0, 318, 10, avp(avpSession, "s;2")), kind: dissect.KindRequest},
		{node: true, data: diameterMessage(0x60, 318, 10, avp(avpSession, "s;2"), diameterResult(3004)), kind: dissect.KindThrottle, same: 6},
		{node: true, data: diameterMessage(0x40, 272, 9, avp(avpSession, "s;1"), diameterResult(5012)), kind: dissect.KindRefuse, same: 5},
		{node: true, data: diameterMessage(0x80, 282, 11, avp(avpOrigin, "hss")), kind: dissect.KindClose, op: "Disconnect-Peer"},
	})
	for code, kind := range map[uint32]dissect.Kind{1001: dissect.KindChallenge, 2002: dissect.KindAccept, 3002: dissect.KindRefuse,
		3006: dissect.KindRedirect, 4002: dissect.KindThrottle, 4001: dissect.KindRefuse, 5010: dissect.KindRefuse} {
		converse(t, diameter{}, dissect.ProtoTCP, 3868, []line{
			{data: cer, kind: dissect.KindRequest},
			{node: true, data: diameterMessage(0, 257, 7, diameterResult(code)), kind: kind, same: 1},
		})
	}
	// An experimental result of a vendor stands in a group.
	converse(t, diameter{}, dissect.ProtoTCP, 3868, []line{
		{data: cer, kind: dissect.KindRequest},
		{node: true, data: diameterMessage(0, 257, 7, avp(avpOrigin, "hss"), avp(avpExperimental, avp(266, "\x00\x00\x28\xaf")+avp(298, "\x00\x00\x13\x89"))), kind: dissect.KindRefuse},
	})
	// The order of AVPs is free.
	converse(t, diameter{}, dissect.ProtoTCP, 3868, []line{
		{data: diameterMessage(0x80, 257, 7, avp(296, "example.org"), avp(avpProduct, "jDiameter"), avp(avpOrigin, "hss")), kind: dissect.KindRequest, id: "hss", version: "jDiameter"},
		{node: true, data: diameterMessage(0x20, 257, 7, avp(avpOrigin, "mme"), diameterResult(5010)), kind: dissect.KindRefuse, same: 1},
	})
	strangers(t, diameter{}, dissect.ProtoTCP, 3868, "\x02"+cer[1:], cer[:4]+"\x8f"+cer[5:], cer[:5]+"\x00\x00\x07"+cer[8:],
		"\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00127.0.0.1")
}

func FuzzDiameter(f *testing.F) {
	fuzzProtocol(f, diameter{}, 3868, diameterMessage(0x80, 257, 7, avp(avpOrigin, "a"), avp(avpProduct, "b")), diameterMessage(0, 257, 7, diameterResult(3004)))
}
