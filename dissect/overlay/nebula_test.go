package overlay

import (
	"encoding/binary"
	"strings"
	"testing"

	"squall/dissect"
)

// nebulaPacket is a header and what follows it.
func nebulaPacket(kind, subtype byte, index uint32, counter uint64, body string) string {
	b := binary.BigEndian.AppendUint32([]byte{0x10 | kind, subtype, 0, 0}, index)
	return string(binary.BigEndian.AppendUint64(b, counter)) + body
}

// protoBytes is field 1 of a protobuf message, short.
func protoBytes(s string) string { return "\x0a" + string(byte(len(s))) + s }

// nebulaFirstOf is a first message of a node with a certificate of either
// version; its index is in the low seven bits.
func nebulaFirstOf(name string, index byte, version int) string {
	certificate := protoBytes(protoBytes(name)+"\x12\x04\x80\x80\xf0\x52") + "\x12\x40" + strings.Repeat("s", 64)
	if version == 2 {
		details := "\x80" + string(byte(len(name))) + name + "\xa1\x05\x04\x03abc"
		details = "\xa0" + string(byte(len(details))) + details
		certificate = "\x30\x81" + string(byte(len(details)+66)) + details + "\x83\x40" + strings.Repeat("s", 64)
	}
	details := "\x0a" + string(binary.AppendUvarint(nil, uint64(len(certificate)))) + certificate + "\x10" + string(index) + "\x28\x07"
	return nebulaPacket(0, 0, 0, 1, strings.Repeat("e", 32)+strings.Repeat("k", 32)+"\x0a"+string(binary.AppendUvarint(nil, uint64(len(details))))+details)
}

var (
	nebulaAsk    = nebulaFirstOf("node7", 9, 1)
	nebulaYes    = nebulaPacket(0, 0, 9, 2, noise(200))
	nebulaUpdate = nebulaPacket(3, 0, 77, 3, noise(36))
)

func TestNebula(t *testing.T) {
	ask := line{data: nebulaAsk, kind: dissect.KindRequest, op: "Handshake", id: "node7"}
	yes := line{node: true, data: nebulaYes, kind: dissect.KindAccept, same: 1}
	converse(t, nebula{}, dissect.ProtoUDP, 4242, []line{ask, {data: nebulaAsk, kind: dissect.KindRequest, role: dissect.RoleSupernode, same: 1}, yes,
		{data: nebulaUpdate, kind: dissect.KindAccept, op: "tunnel", role: dissect.RoleSupernode, same: 1},
		{data: nebulaUpdate, kind: dissect.KindData}, {data: "\x01", kind: dissect.KindData}, {node: true, data: "\x01", kind: dissect.KindData},
		{data: nebulaPacket(4, 0, 77, 5, noise(16)), kind: dissect.KindRefresh, op: "Test", role: dissect.RoleSupernode},
		{node: true, data: nebulaPacket(4, 1, 9, 3, noise(16)), kind: dissect.KindAccept, same: 8},
		{node: true, data: nebulaPacket(4, 0, 9, 4, noise(16)), kind: dissect.KindData}, // a lighthouse asks no one to be attached
		{data: nebulaPacket(4, 1, 77, 6, noise(16)), kind: dissect.KindData},
		{node: true, data: nebulaPacket(2, 0, 9, 0, ""), kind: dissect.KindLost, op: "RecvError"},
		{node: true, data: nebulaPacket(5, 0, 9, 7, noise(16)), kind: dissect.KindClose, op: "CloseTunnel"}})
	converse(t, nebula{}, dissect.ProtoUDP, 40001, []line{ask, yes, {data: nebulaPacket(1, 0, 77, 3, noise(100)), kind: dissect.KindAccept, role: dissect.RolePeer, same: 1}})
	converse(t, nebula{}, dissect.ProtoUDP, 4242, []line{{data: nebulaFirstOf("edge.example.org", 5, 2), kind: dissect.KindRequest, id: "edge.example.org"}})
	p256 := strings.Replace(nebulaAsk, strings.Repeat("e", 32)+strings.Repeat("k", 32), "\x04"+strings.Repeat("e", 64)+"\x04"+strings.Repeat("k", 64), 1)
	converse(t, nebula{}, dissect.ProtoUDP, 4242, []line{{data: p256, kind: dissect.KindRequest, id: "node7"}, yes})
	// By way of a relay.
	relayed := func(index uint32, inner string) string { return nebulaPacket(1, 1, index, 8, inner+noise(16)) }
	converse(t, nebula{}, dissect.ProtoUDP, 4242, []line{ask, yes, {data: nebulaUpdate, kind: dissect.KindAccept},
		{data: relayed(77, nebulaFirstOf("node7", 10, 1)), kind: dissect.KindRequest, id: "node7", role: dissect.RoleRelay},
		{node: true, data: relayed(9, nebulaPacket(0, 0, 10, 2, noise(100))), kind: dissect.KindAccept, role: dissect.RoleRelay, same: 4},
		{data: relayed(77, nebulaPacket(1, 0, 5, 3, noise(50))), kind: dissect.KindData}})
	strangers(t, nebula{}, dissect.ProtoUDP, 4242, "\x10\x00\x00\x00"+strings.Repeat("\x00", 20), "\x10\x00\x00\x01"+nebulaAsk[4:], nebulaAsk[:79], "\x20"+nebulaAsk[1:],
		nebulaPacket(2, 0, 9, 0, "more"), nebulaPacket(3, 1, 9, 3, noise(36)), nebulaPacket(3, 0, 9, 1<<50, noise(36)), nebulaPacket(7, 0, 9, 3, noise(36)), strings.Replace(nebulaAsk, "k\x0a", "k\x0b", 1))
}

// TestNebulaCut: a snapshot length of 96 leaves neither name nor index.
func TestNebulaCut(t *testing.T) {
	var f dissect.Flow
	d := packet(dissect.ProtoUDP, 4242, 4242, nebulaAsk[:54])
	d.Cut, d.PayloadLen = true, len(nebulaAsk)
	ask, yes := dissect.Message{FromClient: true}, dissect.Message{}
	if v := (nebula{}).Probe(d); v != dissect.Maybe {
		t.Errorf("probe %d", v)
	}
	f.FromClient = true
	if _, err := (nebula{}).Dissect(d, &f, &ask); err != nil || ask.Kind != dissect.KindRequest {
		t.Errorf("%v %v", err, ask.Kind)
	}
	d.Payload, d.PayloadLen, f.FromClient = []byte(nebulaYes[:54]), len(nebulaYes), false
	if _, err := (nebula{}).Dissect(d, &f, &yes); err != nil || yes.Kind != dissect.KindAccept || yes.Txn != ask.Txn {
		t.Errorf("%v %v, paired: %v", err, yes.Kind, yes.Txn == ask.Txn)
	}
}

func FuzzNebula(f *testing.F) {
	fuzzProtocol(f, nebula{}, 4242, nebulaAsk, nebulaYes, nebulaUpdate, nebulaFirstOf("n", 1, 2), nebulaPacket(1, 1, 7, 8, nebulaAsk+noise(16)), nebulaPacket(4, 0, 7, 8, noise(16)))
}
