package overlay

import (
	"fmt"
	"strings"
	"testing"

	"squall/dissect"
)

const peerHello = peerGreeting + "\x00\x00\x00\x00\x00\x10\x00\x05hhhhhhhhhhhhhhhhhhhh-UM1860-A\x8e\x18\x1a\xc9\xba\x17\x98\x71\x52\x66\x3e"

func TestBitTorrentHandshake(t *testing.T) {
	if len(peerHello) != peerHandshake {
		t.Fatal(len(peerHello))
	}
	converse(t, bittorrent{}, dissect.ProtoTCP, 6881, []line{
		{data: peerHello, kind: dissect.KindRequest, op: "handshake", version: "-UM1860-", role: dissect.RolePeer, id: peerHello[48:]},
		{node: true, data: peerHello, kind: dissect.KindAccept, op: "handshake"},
	})
	strangers(t, bittorrent{}, dissect.ProtoTCP, 6881, "\x13BitTorrent", strings.ToLower(peerHello))
	var f dissect.Flow
	m := dissect.Message{}
	if _, err := (bittorrent{}).Dissect(packet(dissect.ProtoTCP, 1, 2, strings.Repeat("x", 68)), &f, &m); err == nil {
		t.Error("an answer that is no handshake is taken")
	}
}

// TestBitTorrentCaptures: of two connections one begins with the handshake in
// clear; a capture without handshakes names nothing.
func TestBitTorrentCaptures(t *testing.T) {
	for name, want := range map[string]string{
		"overlay/bt-tcp.pcap":                "map[bittorrent/peer handshake stalled:1 tcp/15365  unknown:1]",
		"overlay/bittorrent_tcp_miss.pcapng": "map[tcp/6881  accepted:1]",
	} {
		src, _ := real(t, name)
		rows := map[string]int{}
		for _, r := range analyse(t, src, All()) {
			rows[r.Service+" "+r.Op+" "+r.Outcome.String()]++
		}
		if got := fmt.Sprint(rows); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func FuzzBitTorrent(f *testing.F) {
	fuzzProtocol(f, bittorrent{}, 6881, peerHello, peerHello+peerHello, peerGreeting)
}
