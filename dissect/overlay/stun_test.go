package overlay

import (
	"encoding/binary"
	"strings"
	"testing"

	"squall/dissect"
)

// The request and its answer over IPv4 of RFC 5769, sections 2.1 and 2.2.
var (
	stunSample = unhex("00010058 2112a442 b7e7a701bc34d686fa87dfae 80220010 5354554e207465737420636c69656e74 00240004 6e0001ff 80290008 932ff9b151263b36" +
		"00060009 6576746a3a68367659202020 00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004 e57a3bcf")
	stunSampleAnswer = unhex("0101003c 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f7220 00200008 0001a147e112a643" +
		"00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004 c07d4c96")
	stunClassicAsk = unhex("00010008 9429ef88294dd52632c72931cb8dbb4c 00030004 00000000")
	stunClassicYes = unhex("0101000c 9429ef88294dd52632c72931cb8dbb4c 00010008 0001d70aac103fe0")
)

func stunAttribute(kind uint16, v string) string {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, kind), uint16(len(v)))
	return string(b) + v + strings.Repeat("\x00", -len(v)&3)
}

// stunPacket has a transaction of twelve times the letter.
func stunPacket(kind uint16, id byte, attributes ...string) string {
	body := strings.Join(attributes, "")
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, kind), uint16(len(body)))
	return string(b) + "\x21\x12\xa4\x42" + strings.Repeat(string(id), 12) + body
}

func stunFailure(code int) string {
	return stunAttribute(0x0009, "\x00\x00"+string(byte(code/100))+string(byte(code%100))+"why")
}

var (
	stunCredentials = stunAttribute(0x0006, "1636988335:ann") + stunAttribute(0x0014, "example.org") + stunAttribute(0x0015, "nonce") + stunAttribute(0x0008, noise(20))
	turnAsk         = stunPacket(0x0003, 'a', stunAttribute(0x0019, "\x11\x00\x00\x00"), stunAttribute(0x8022, "Coturn client 1"))
	turnAgain       = stunPacket(0x0003, 'b', stunAttribute(0x0019, "\x11\x00\x00\x00"), stunCredentials)
	turnYes         = stunPacket(0x0103, 'b', stunAttribute(0x0016, "\x00\x01\xe6\xd4\x49\x0c\x37\xb1"), stunAttribute(0x000d, "\x00\x00\x02\x58"), stunAttribute(0x8022, "Coturn-4.6"))
	turnRefresh     = stunPacket(0x0004, 'c', stunAttribute(0x000d, "\x00\x00\x02\x58"), stunCredentials)
	turnRefreshed   = stunPacket(0x0104, 'c', stunAttribute(0x000d, "\x00\x00\x02\x58"))
	turnLeave       = stunPacket(0x0004, 'd', stunAttribute(0x000d, "\x00\x00\x00\x00"), stunCredentials)
)

func TestSTUN(t *testing.T) {
	ask := line{data: turnAsk, kind: dissect.KindRequest, op: "Allocate", version: "Coturn client 1", role: dissect.RoleRelay}
	again := line{data: turnAgain, kind: dissect.KindRequest, op: "Allocate", role: dissect.RoleRelay}
	for _, transport := range []uint8{dissect.ProtoUDP, dissect.ProtoTCP} {
		converse(t, stun{}, transport, 3478, []line{ask, {node: true, data: stunPacket(0x0113, 'a', stunFailure(401)), kind: dissect.KindChallenge, same: 1}, again,
			{node: true, data: turnYes, kind: dissect.KindAccept, same: 3, life: 600 * second}, {data: turnRefresh, kind: dissect.KindRefresh, op: "Refresh"},
			{node: true, data: stunPacket(0x0114, 'c', stunFailure(438)), kind: dissect.KindChallenge, same: 5},
			{data: turnRefresh, kind: dissect.KindRefresh}, {node: true, data: turnRefreshed, kind: dissect.KindAccept, same: 7, life: 600 * second},
			{data: stunPacket(0x0008, 'p', stunCredentials), kind: dissect.KindData}, {node: true, data: stunPacket(0x0108, 'p'), kind: dissect.KindData},
			{data: stunPacket(0x0016, 'i', stunAttribute(0x0013, "data")), kind: dissect.KindData},
			{node: true, data: stunPacket(0x0118, 'p', stunFailure(437)), kind: dissect.KindLost}, {data: turnLeave, kind: dissect.KindClose}})
		for code, want := range map[int]dissect.Kind{300: dissect.KindRedirect, 401: dissect.KindRefuse, 403: dissect.KindRefuse, 437: dissect.KindRefuse, 438: dissect.KindChallenge,
			441: dissect.KindRefuse, 442: dissect.KindRefuse, 486: dissect.KindThrottle, 500: dissect.KindRefuse, 508: dissect.KindThrottle} {
			converse(t, stun{}, transport, 3478, []line{again, {node: true, data: stunPacket(0x0113, 'b', stunFailure(code), stunAttribute(0x8023, "\x00\x01\x0d\x96\x0a\x00\x00\x02")), kind: want, same: 1}})
		}
		converse(t, stun{}, transport, 3478, []line{again, {node: true, data: turnYes, kind: dissect.KindAccept, life: 600 * second}, {data: turnRefresh, kind: dissect.KindRefresh},
			{node: true, data: stunPacket(0x0114, 'c', stunFailure(437)), kind: dissect.KindLost}})
		converse(t, stun{}, transport, 3478, []line{{data: stunPacket(0x0001, 'e'), kind: dissect.KindRequest, op: "Binding", role: dissect.RoleBootstrap},
			{node: true, data: stunPacket(0x0101, 'e', stunAttribute(0x0020, "\x00\x01\xa1\x47\xe1\x12\xa6\x43")), kind: dissect.KindAccept, same: 1, life: 1}})
		converse(t, stun{}, transport, 40001, []line{{data: stunSample, kind: dissect.KindRequest, role: dissect.RolePeer, version: "STUN test client"},
			{node: true, data: stunSampleAnswer, kind: dissect.KindAccept, same: 1, life: 30 * second}})
	}
	converse(t, stun{}, dissect.ProtoTCP, 3478, []line{again, {data: "\x40\x00\x00\x05hello\x00\x00\x00", kind: dissect.KindData}, {node: true, data: turnYes, kind: dissect.KindAccept, life: 600 * second}})
	// ICE over TCP: a length before each message, media between them.
	framed := func(m string) string { return string(binary.BigEndian.AppendUint16(nil, uint16(len(m)))) + m }
	converse(t, stun{}, dissect.ProtoTCP, 40001, []line{{data: framed(stunSample), kind: dissect.KindRequest, op: "Binding", role: dissect.RolePeer, version: "STUN test client"},
		{node: true, data: framed(stunSampleAnswer), kind: dissect.KindAccept, same: 1, life: 30 * second}, {data: framed("\x80\x60" + noise(40)), kind: dissect.KindData},
		{node: true, data: framed("\x80\x60" + noise(400)), kind: dissect.KindData}, {data: framed(stunPacket(0x0001, 'f', stunAttribute(0x0024, "\x6e\x00\x01\xff"))), kind: dissect.KindRequest, role: dissect.RolePeer}})
	// A check is one too where the user is known by other means.
	converse(t, stun{}, dissect.ProtoUDP, 40001, []line{{data: stunPacket(0x0001, 'g', stunAttribute(0x0008, noise(20))), kind: dissect.KindRequest, op: "Binding", role: dissect.RolePeer}})
	strangers(t, stun{}, dissect.ProtoTCP, 3478, "\x00\x6d"+stunSample, framed(stunSample[:4]+"\x21\x12\xa4\x43"+stunSample[8:]))
	converse(t, stun{}, dissect.ProtoUDP, 40001, []line{{data: stunClassicAsk, kind: dissect.KindRequest, op: "Binding", role: dissect.RoleBootstrap}, {node: true, data: stunClassicYes, kind: dissect.KindAccept, same: 1, life: 1}})
	strangers(t, stun{}, dissect.ProtoUDP, 3478, stunSample+"x", "\x80"+stunSample[1:], "\x00\x01\x00\x08"+noise(24), "\x00\x03\x00\x08"+stunClassicAsk[4:], strings.Repeat("\x00", 20),
		"\x00\x01\x00\x00"+strings.Repeat("\x00", 16), strings.Replace(stunClassicAsk, "\x03\x00\x04", "\x01\x00\x04", 1))
	strangers(t, stun{}, dissect.ProtoUDP, 40001, "\x00\x01\x00\x00"+noise(16))
	if v := (stun{}).Probe(packet(dissect.ProtoUDP, 40000, 3478, "\x00\x01\x00\x00"+noise(16))); v != dissect.Maybe {
		t.Errorf("a classic Binding without attributes at its port: %d", v)
	}
	// Zoom: an attribute of its own, and the answer is what asks for a secret elsewhere.
	zoom := unhex("c15dae63585d14392e582c260403bf30 01010014") + "12345678901234567890"
	guess(t, stun{}, dissect.ProtoUDP, 3479, []line{{data: "\x00\x01\x00\x18" + zoom, kind: dissect.KindRequest, op: "Binding", role: dissect.RoleBootstrap},
		{node: true, data: "\x00\x02\x00\x18" + zoom, kind: dissect.KindAccept, same: 1, life: 1}})
	// A fingerprint that does not fit is no STUN.
	var f dissect.Flow
	if _, err := (stun{}).Dissect(packet(dissect.ProtoUDP, 1, 2, strings.Replace(stunSample, "evtj", "evil", 1)), &f, &dissect.Message{}); err == nil {
		t.Error("a wrong fingerprint passes")
	}
}

func FuzzSTUN(f *testing.F) {
	fuzzProtocol(f, stun{}, 3478, stunSample, stunSampleAnswer, turnAsk, turnAgain, turnYes, stunPacket(0x0113, 'a', stunFailure(401)), stunClassicAsk, stunClassicYes,
		turnAsk+turnAgain+"\x40\x00\x00\x05hello\x00\x00\x00"+turnRefresh, turnYes,
		"\x00\x6c"+stunSample+"\x00\x02\x80\x60")
}
