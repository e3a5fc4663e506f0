package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

const (
	dhtPing  = "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:v4:UT011:y1:qe"
	dhtPong  = "d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re"
	dhtError = "d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee"
)

func TestDHT(t *testing.T) {
	converse(t, dht{}, dissect.ProtoUDP, 6881, []line{
		{data: dhtPing, kind: dissect.KindRequest, op: "ping", id: "abcdefghij0123456789", version: "UT01", role: dissect.RolePeer},
		{node: true, data: dhtPong, kind: dissect.KindAccept, op: "response", same: 1, role: dissect.RolePeer},
		{data: "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:ab1:y1:qe", kind: dissect.KindRequest, op: "find_node"},
		{node: true, data: "d2:ip6:abcdef1:rd2:id20:" + dhtRouterA + "5:nodes0:e1:t2:ab1:y1:re", kind: dissect.KindAccept, same: 3, role: dissect.RoleBootstrap},
		{data: "d1:ad2:id20:abcdefghij0123456789e1:q7:unheard1:t2:ac1:y1:qe", kind: dissect.KindRequest, op: "query"},
		{node: true, data: strings.ReplaceAll(dhtError, "2:aa", "2:ac"), kind: dissect.KindRefuse, op: "error", same: 5},
	})
	if v := (dht{}).Probe(packet(dissect.ProtoUDP, 1, 2, "d2:ip6:abcdef1:rd2:id20:"+dhtRouterB+"e1:t2:ab1:y1:re")); v != dissect.Yes {
		t.Errorf("an answer with our address is called %d", v)
	}
	strangers(t, dht{}, dissect.ProtoUDP, 6881, "d1:ad2:id20:", "d1:ad2:ix20:abcdefghij0123456789e", "d2:ip6:abcdefgh1:rd2:id20:ee........", strings.Repeat("d", 64))
}

func TestBencoded(t *testing.T) {
	for in, rest := range map[string]string{"4:spam!": "!", "i-3ex": "x", "le": "", "d1:ai1e1:bl1:ceez": "z", "0:": ""} {
		if _, r, ok := bencoded([]byte(in)); !ok || string(r) != rest {
			t.Errorf("%q: rest %q, %v", in, r, ok)
		}
	}
	for _, in := range []string{"", "5:spam", "i3", "l", "e", "x", "99999999999999999999:a", strings.Repeat("l", 17) + strings.Repeat("e", 17), "ie999"} {
		if _, r, ok := bencoded([]byte(in)); ok && in != "ie999" {
			t.Errorf("%q is taken, rest %q", in, r)
		}
	}
	if _, ok := bencodedInt([]byte("ie")); ok {
		t.Error("a number without digits")
	}
}

// TestDHTCapture compares with what is in the capture: 9 transactions of the
// examples of BEP 5.
func TestDHTCapture(t *testing.T) {
	src, _ := real(t, "overlay/bittorrent-dht__input.pcap")
	outcomes := map[string]int{}
	for _, r := range analyse(t, src, All()) {
		outcomes[r.Service+" "+r.Op+" "+r.Outcome.String()]++
	}
	t.Log(outcomes)
	for _, want := range []string{"ping accepted", "ping refused", "find_node accepted", "get_peers accepted", "announce_peer accepted"} {
		if outcomes["bt-dht/peer "+want] == 0 {
			t.Errorf("no %s in %v", want, outcomes)
		}
	}
}

func FuzzDHT(f *testing.F) {
	fuzzProtocol(f, dht{}, 6881, dhtPing, dhtPong, dhtError, "d2:ip6:abcdef1:rd2:id20:")
}
