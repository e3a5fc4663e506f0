package overlay

import (
	"encoding/binary"
	"strings"
	"testing"

	"squall/dissect"
)

// gquicHello is a message of tags and values, in pairs.
func gquicHello(name string, pairs ...string) string {
	tags, values := "", ""
	for i := 0; i < len(pairs); i += 2 {
		values += pairs[i+1]
		tags += pairs[i] + string(binary.LittleEndian.AppendUint32(nil, uint32(len(values))))
	}
	return name + string([]byte{byte(len(pairs) / 2), 0, 0, 0}) + tags + values
}

// gquicPacket is a packet up to Q043, with or without a version.
func gquicPacket(version, frames string) string {
	if version == "" {
		return "\x0cconnecti\x01" + strings.Repeat("h", 12) + frames
	}
	return "\x0dconnecti" + version + "\x01" + strings.Repeat("h", 12) + "\xa0\x01\x00\x04" + frames
}

var (
	gquicFirst  = gquicPacket("Q043", gquicHello("CHLO", "PAD\x00", strings.Repeat("-", 400), "SNI\x00", "mail.example.org", "UAID", "Chrome/64.0", "VER\x00", "Q043"))
	gquicReject = gquicPacket("", "\xa0\x01\x00\x04"+gquicHello("REJ\x00", "STK\x00", strings.Repeat("t", 56)))
	gquicSecond = gquicPacket("", "\xa0\x01\x00\x04"+gquicHello("CHLO", "SNI\x00", "mail.example.org", "STK\x00", strings.Repeat("t", 56)))
	gquicYes    = gquicPacket("", noise(300))
	gquic46     = "\xc3Q046\x50connecti\x00\x00\x00\x01" + strings.Repeat("h", 12) + "\xa0\x01\x00\x04" + gquicHello("CHLO", "SNI\x00", "a.example.org")
)

func TestGQUIC(t *testing.T) {
	ask := line{data: gquicFirst, kind: dissect.KindRequest, op: "CHLO", version: "Chrome/64.0"}
	converse(t, gquic{}, dissect.ProtoUDP, 443, []line{
		ask,
		{data: gquicFirst, kind: dissect.KindRequest, same: 1},
		{node: true, data: gquicPacket("", noise(30)), kind: dissect.KindProgress, op: "ack", same: 1},
		{node: true, data: gquicReject, kind: dissect.KindChallenge, op: "REJ"},
		{node: true, data: gquicPacket("", noise(900)), kind: dissect.KindData},
		{data: gquicSecond, kind: dissect.KindRequest, version: ""},
		{data: gquicPacket("Q043", noise(300)), kind: dissect.KindData},
		{node: true, data: gquicYes, kind: dissect.KindAccept, same: 6},
		{data: gquicPacket("", noise(300)), kind: dissect.KindData},
		{node: true, data: "\x0econnecti" + gquicHello("PRST", "RNON", "12345678"), kind: dissect.KindClose, op: "public reset"},
	})
	converse(t, gquic{}, dissect.ProtoUDP, 443, []line{ask, {node: true, data: "\x0econnecti" + gquicHello("PRST", "RNON", "12345678"), kind: dissect.KindRefuse, same: 1}})
	converse(t, gquic{}, dissect.ProtoUDP, 443, []line{ask, {node: true, data: "\x0dconnectiQ050Q046", kind: dissect.KindRefuse, op: "Version Negotiation", same: 1}})
	converse(t, gquic{}, dissect.ProtoUDP, 443, []line{
		{data: gquic46, kind: dissect.KindRequest, version: "Q046"},
		{node: true, data: "\xc3Q046\x05connecti\x00\x00\x00\x01" + noise(300), kind: dissect.KindAccept, same: 1},
	})
	converse(t, gquic{}, dissect.ProtoUDP, 443, []line{{data: "\xc3Q050\x08connecti\x00" + noise(300), kind: dissect.KindRequest, version: "Q050"}})
	sealed := func(side, message string) string { // what Q050 says is sealed like QUIC's Initials, in frames of type 8
		return sealInitial(quicQ050, "connecti", "connecti", "", "", side, "\x08"+cryptoFrame(1024, message)[1:])
	}
	converse(t, gquic{}, dissect.ProtoUDP, 443, []line{
		{data: sealed("client in", gquicHello("CHLO", "SNI\x00", "mail.example.org", "UAID", "Chrome/83.0")), kind: dissect.KindRequest, version: "Chrome/83.0"},
		{node: true, data: sealInitial(quicQ050, "connecti", "connecti", "", "", "server in", "\x40\x01\x00\x00\x00\x00\x00"+strings.Repeat("\x00", 100)), kind: dissect.KindProgress, same: 1},
		{node: true, data: sealed("server in", gquicHello("REJ\x00", "STK\x00", strings.Repeat("t", 56))), kind: dissect.KindChallenge, op: "REJ"},
		{data: sealed("client in", "\x00\x00\x00\x00"), kind: dissect.KindData},
		{data: sealed("client in", gquicHello("CHLO", "SNI\x00", "mail.example.org", "STK\x00", strings.Repeat("t", 56))), kind: dissect.KindRequest, version: "Q050"},
		{node: true, data: "\x40" + noise(30), kind: dissect.KindAccept, op: "answer", same: 5},
	})
	var f dissect.Flow
	f.FromClient = true
	var m dissect.Message
	if _, err := (gquic{}).Dissect(packet(dissect.ProtoUDP, 40000, 443, gquicFirst), &f, &m); err != nil || string(m.ServerName) != "mail.example.org" {
		t.Errorf("server name %q, %v", m.ServerName, err)
	}
	strangers(t, gquic{}, dissect.ProtoUDP, 443, gquicReject, gquicFirst[:25], strings.Replace(gquicFirst, "Q043", "Q143", 1), strings.Replace(gquicFirst, "Q043", "Q046", 1),
		strings.Replace(gquic46, "Q046", "Q043", 1), strings.Replace(gquic46, "\x50con", "\x55con", 1))
}

func FuzzGQUIC(f *testing.F) {
	fuzzProtocol(f, gquic{}, 443, gquicFirst, gquicReject, gquicYes, gquic46, "\x0dconnectiQ050Q046",
		sealInitial(quicQ050, "connecti", "connecti", "", "", "client in", "\x08"+cryptoFrame(0, gquicHello("CHLO", "SNI\x00", "a.example.org"))[1:]))
}
