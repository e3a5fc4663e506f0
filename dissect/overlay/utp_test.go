package overlay

import (
	"testing"

	"squall/dissect"
)

var (
	utpSyn   = unhex("4100530210eeb2f00000000000000000e7f50000")
	utpState = unhex("2102530206ff3f5f7fffffff0000f00049c7e7f500080000000000000000")
)

func TestUTP(t *testing.T) {
	converse(t, utp{}, dissect.ProtoUDP, 40959, []line{
		{data: utpSyn, kind: dissect.KindRequest, op: "SYN", role: dissect.RolePeer},
		{node: true, data: utpState, kind: dissect.KindAccept, op: "STATE", same: 1},
		{data: unhex("0100530310f0687609f1291700100000e7f649c6") + peerGreeting, kind: dissect.KindData},
		{node: true, data: utpState, kind: dissect.KindData},
		{data: dhtPing, kind: dissect.KindRequest, op: "ping"},
		{node: true, data: dhtPong, kind: dissect.KindAccept, same: 5},
		{node: true, data: unhex("1100530210eeb2f00000000000000000e7f50000"), kind: dissect.KindClose, op: "FIN"},
	})
	converse(t, utp{}, dissect.ProtoUDP, 40959, []line{
		{data: utpSyn, kind: dissect.KindRequest},
		{data: utpSyn, kind: dissect.KindRequest, same: 1},
		{node: true, data: unhex("3100530210eeb2f00000000000000000e7f50000"), kind: dissect.KindRefuse, op: "RESET", same: 1},
	})
	strangers(t, utp{}, dissect.ProtoUDP, 40959, utpSyn[:19], "\x42"+utpSyn[1:], utpState, utpSyn[:1]+"\x09"+utpSyn[2:],
		unhex("4102530210eeb2f00000000000100000e7f50000 0008 00000000000000"), unhex("4101530210eeb2f00000000000100000e7f50000"))
	// Every id of DNS that begins like a SYN.
	for id := range uint16(4) {
		for _, name := range []string{"a", "seed.example.org"} {
			strangers(t, utp{}, dissect.ProtoUDP, 53, dnsMessage(0x4100|id, 0x0100, 1, name, ""), dnsMessage(0x4100|id, 0x0120, 28, name, "")[:11]+"\x01"+dnsMessage(0x4100|id, 0, 28, name, "")[12:])
		}
	}
	for _, first := range []string{"4100530210eeb2f00000000000100000e7f50000", "4102530210eeb2f00000000000100000e7f50000 0008 0000000000000000"} {
		if v := probe(t, utp{}, packet(dissect.ProtoUDP, 40000, 40959, unhex(first))); v != dissect.Yes {
			t.Errorf("a SYN with a window: %d", v)
		}
	}
}

// TestUTPCapture: a peer that asks the DHT and then connects from the same
// ports makes rows of both protocols on one flow.
func TestUTPCapture(t *testing.T) {
	src, _ := real(t, "overlay/bittorrent_utp.pcap")
	rows := map[string]int{}
	for _, r := range analyse(t, src, All()) {
		rows[r.Service+" "+r.Op+" "+r.Outcome.String()]++
	}
	t.Log(rows)
	if rows["bt-utp/peer SYN accepted"] == 0 || rows["bt-dht/peer get_peers unknown"]+rows["bt-dht/peer get_peers timeout"] == 0 {
		t.Errorf("%v", rows)
	}
}

func FuzzUTP(f *testing.F) {
	fuzzProtocol(f, utp{}, 40959, utpSyn, utpState, dhtPing)
}
