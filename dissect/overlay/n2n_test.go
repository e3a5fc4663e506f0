package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

// As n2n 3.1.1 and 1.3.1 sent them, but for the tokens.
var (
	n2nCommunity20 = unhex("6f7665726c6179 00000000000000000000000000")
	n2nAsk3        = "\x03\x02\x00\x05" + n2nCommunity20 + unhex("0d472ac0 b242f3789408 ac1e0002 18 766d0000000000000000000000000000 0001 0010 f169a8cb54f021ff5d2cca0af91f9dd2 00000000")
	n2nYes3        = "\x03\x02\x00\x67" + n2nCommunity20 + unhex("0d472ac0 269f2038361e 00000000 00 000f 0000 8ae9 0a5b0002 0000 0000 00 00000000")
	n2nNo3         = "\x03\x02\x00\x68" + n2nCommunity20 + unhex("0d472ac0 b242f3789408 0000 0000")
	n2nBye3        = "\x03\x02\x00\x06" + n2nCommunity20 + unhex("0001 0010 f169a8cb54f021ff5d2cca0af91f9dd2 b242f3789408")
	n2nPing3       = "\x03\x02\x00\x0b" + n2nCommunity20 + unhex("b242f3789408 000000000000 0000")
	n2nPong3       = "\x03\x02\x00\x2a" + n2nCommunity20 + unhex("0000 000000000000 269f2038361e 0000 8ae9 0a5b0002 00000000 00000010 332e312e312d3234322d67666666353061370000")
	n2nData3       = "\x03\x02\x00\x03" + n2nCommunity20 + unhex("b242f3789408 ffffffffffff 01 03") + strings.Repeat("\x9d", 60)

	n2nAsk2 = "\x02\x02\x00\x05" + unhex("6f7665726c6179 000000000000000000") + unhex("01020304 b242f3789408 0000 0000")
	n2nYes2 = "\x02\x02\x00\x26" + unhex("6f7665726c6179 000000000000000000") + unhex("01020304 b242f3789408 0078 0000 8ae9 0a5b0002 00")
	n2nNo2  = "\x02\x02\x00\x27" + unhex("6f7665726c6179 000000000000000000") + unhex("01020304")

	n2nAsk1 = unhex("01010000 6f7665726c617900c0ac4a96d97f0000 1e2d1fe9b125 000000000000 02000000000000000000000000000000 00000000 0200a869000000000000000000000000 00000000 00 00000000 00000000 52c01b 110000")
	n2nYes1 = unhex("01040001 6f7665726c617900c0ac4a96d97f0000 000000000000 1e2d1fe9b125 02000000000000000000000000000000 00000000 02001de6000000000000000000000000 00000000 00 00000000 00000000 000000 110000")
)

// n2nCookie is a registration with a cookie of its own.
func n2nCookie(c string) string {
	return strings.Replace(n2nAsk3, "\x0d\x47\x2a\xc0", strings.Repeat(c, 4), 1)
}

const n2nEdge = "\xb2\x42\xf3\x78\x94\x08"

func TestN2N(t *testing.T) {
	ask := line{data: n2nAsk3, kind: dissect.KindRequest, op: "REGISTER_SUPER", id: n2nEdge, role: dissect.RoleSupernode}
	yes := line{node: true, data: n2nYes3, kind: dissect.KindAccept, same: 1, life: 90 * second}
	converse(t, n2n{}, dissect.ProtoUDP, 7654, []line{ask, yes, {data: n2nPing3, kind: dissect.KindData}, {node: true, data: n2nPong3, kind: dissect.KindData},
		{data: n2nData3, kind: dissect.KindData}, {data: n2nBye3, kind: dissect.KindClose, op: "UNREGISTER_SUPER"}})
	converse(t, n2n{}, dissect.ProtoUDP, 7654, []line{ask, {node: true, data: n2nNo3, kind: dissect.KindRefuse, same: 1}})
	// The same number is yes in version 2 and good-bye in version 3.
	converse(t, n2n{}, dissect.ProtoUDP, 7777, []line{{data: n2nAsk2, kind: dissect.KindRequest, id: n2nEdge}, {node: true, data: n2nYes2, kind: dissect.KindAccept, same: 1}})
	converse(t, n2n{}, dissect.ProtoUDP, 7777, []line{{data: n2nAsk2, kind: dissect.KindRequest, role: dissect.RoleSupernode}, {node: true, data: n2nNo2, kind: dissect.KindRefuse, same: 1}})
	// What edges and supernodes of 2.4 and 2.8 said to each other; in 2.8 the lifetime is one that no edge heeds.
	for _, v := range []struct{ ask, yes string }{
		{"02020005 6f7665726c6179000000000000000000 6f46651e 021122334466 0000 0000", "02020066 6f7665726c6179000000000000000000 6f46651e 021122334466 0078 0000 8596 0a630002 00"},
		{"02020005 6f7665726c6179000000000000000000 4fe6d5de 021122334466 0000 0000", "02020066 6f7665726c6179000000000000000000 4fe6d5de 021122334466 000f 0000 8364 0a630002 00"},
	} {
		converse(t, n2n{}, dissect.ProtoUDP, 7654, []line{{data: unhex(v.ask), kind: dissect.KindRequest, op: "REGISTER_SUPER", role: dissect.RoleSupernode},
			{node: true, data: unhex(v.yes), kind: dissect.KindAccept, same: 1}})
	}
	first := line{data: n2nAsk1, kind: dissect.KindRequest, op: "REGISTER", id: "\x1e\x2d\x1f\xe9\xb1\x25", role: dissect.RoleSupernode}
	converse(t, n2n{}, dissect.ProtoUDP, 7654, []line{first, {node: true, data: n2nYes1, kind: dissect.KindAccept, role: dissect.RoleSupernode, same: 1},
		{data: n2nAsk1, kind: dissect.KindRequest}, {node: true, data: n2nYes1, kind: dissect.KindAccept, same: 3}})
	converse(t, n2n{}, dissect.ProtoUDP, 40001, []line{{data: n2nAsk1, kind: dissect.KindRequest},
		{node: true, data: strings.Replace(n2nYes1, "\x00\x01o", "\x00\x00o", 1), kind: dissect.KindAccept, role: dissect.RolePeer}})
	// Supernodes among themselves.
	federation := strings.NewReplacer("overlay\x00", "*Federa\x00")
	converse(t, n2n{}, dissect.ProtoUDP, 7654, []line{{data: federation.Replace(n2nAsk3), kind: dissect.KindRequest, role: dissect.RolePeer}})
	// Over TCP a length stands before each message.
	framed := func(s string) string { return string([]byte{0, byte(len(s))}) + s }
	ask.data, yes.data = framed(n2nAsk3), framed(n2nYes3)
	converse(t, n2n{}, dissect.ProtoTCP, 7654, []line{ask, yes, {data: framed(n2nData3), kind: dissect.KindData}})
	strangers(t, n2n{}, dissect.ProtoUDP, 7654, "\x03\x02\x00\x05short", strings.Replace(n2nAsk3, "overlay", "over\x00ay", 1), strings.Replace(n2nAsk3, "\x00\x05", "\x01\x05", 1),
		"\x03\x02\x00\x0d"+n2nAsk3[4:], "\x03\x02\x00\x05"+strings.Repeat("\x00", 60), "\x03\x40"+n2nAsk3[2:], strings.Replace(n2nAsk1, "\x02\x00\xa8", "\x07\x00\xa8", 1),
		"\x02\x00\x00\x00"+noise(88), "\x02\x05\x00\x26"+noise(33), strings.Repeat("no entropy ", 8)[:79])
}

// TestN2NEncrypted: with -H sizes at the port are all there is.
func TestN2NEncrypted(t *testing.T) {
	var f dissect.Flow
	opaque := func(node bool, n int) (m dissect.Message, v dissect.Verdict) {
		d := packet(dissect.ProtoUDP, 40000, 7654, noise(n))
		if node {
			d.SrcPort, d.DstPort = 7654, 40000
		}
		m.FromClient = !node
		if used, err := (n2n{}).Dissect(d, &f, &m); err != nil || used != n {
			t.Errorf("%d bytes: %d, %v", n, used, err)
		}
		return m, n2n{}.Probe(d)
	}
	ask, v := opaque(false, 79)
	if v != dissect.Maybe || ask.Kind != dissect.KindRequest || !ask.Encrypted || !ask.ByPort || len(ask.ClientID) > 0 {
		t.Errorf("a registration: %d %+v", v, ask)
	}
	again, _ := opaque(false, 127)
	if again.Kind != dissect.KindRequest || again.Txn == ask.Txn {
		t.Error("a second registration is not an attempt of its own")
	}
	if yes, v := opaque(true, 58+26); v != dissect.Maybe || yes.Kind != dissect.KindAccept || yes.Txn != again.Txn || !yes.Encrypted {
		t.Errorf("a yes: %d %+v", v, yes)
	}
	if data, _ := opaque(true, 58); data.Kind != dissect.KindData {
		t.Error("an answer that nobody asked for")
	}
	opaque(false, 79)
	if no, _ := opaque(true, 38); no.Kind != dissect.KindRefuse {
		t.Error("no refusal")
	}
	if ping, _ := opaque(false, 38); ping.Kind != dissect.KindData {
		t.Error("a ping asks")
	}
	if v := (n2n{}).Probe(packet(dissect.ProtoUDP, 40000, 7655, noise(79))); v != dissect.No {
		t.Error("claimed at another port")
	}
}

func FuzzN2N(f *testing.F) {
	fuzzProtocol(f, n2n{}, 7654, n2nAsk3, n2nYes3, n2nNo3, n2nBye3, n2nAsk2, n2nYes2, n2nAsk1, n2nYes1, noise(79),
		"\x00\x4f"+n2nAsk3+"\x00\x32"+n2nBye3, "\x00\x3a"+n2nYes3)
}
