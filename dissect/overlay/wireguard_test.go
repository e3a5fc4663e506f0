package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

var (
	wgAsk    = "\x01\x00\x00\x00\xd8\x37\xd0\x30" + noise(108+16) + strings.Repeat("\x00", 16)
	wgAgain  = "\x01\x00\x00\x00\xc5\x41\xfd\xbf" + noise(108+32)
	wgYes    = "\x02\x00\x00\x00\x06\xf4\x7d\xab\xd8\x37\xd0\x30" + noise(80)
	wgCookie = "\x03\x00\x00\x00\xd8\x37\xd0\x30" + noise(56)
	wgData   = "\x04\x00\x00\x00\x06\xf4\x7d\xab" + strings.Repeat("\x00", 8) + noise(16)
)

func TestWireGuard(t *testing.T) {
	ask := line{data: wgAsk, kind: dissect.KindRequest, op: "initiation", role: dissect.RoleSupernode}
	converse(t, wireguard{}, dissect.ProtoUDP, 51820, []line{ask, {node: true, data: wgYes, kind: dissect.KindAccept, same: 1, life: 180 * second},
		{data: wgData, kind: dissect.KindData}, {node: true, data: wgData, kind: dissect.KindData}})
	converse(t, wireguard{}, dissect.ProtoUDP, 51820, []line{ask, {node: true, data: wgCookie, kind: dissect.KindThrottle, same: 1},
		{data: wgAgain, kind: dissect.KindRequest, op: "initiation with cookie"}})
	strangers(t, wireguard{}, dissect.ProtoUDP, 51820, wgAsk+"x", wgAsk[:147], "\x01\x00\x00\x01"+wgAsk[4:], "\x05"+wgAsk[1:], wgData+"x", "\x04\x00\x00\x00"+noise(44))
	if v := (wireguard{}).Probe(packet(dissect.ProtoUDP, 40000, 40001, wgData)); v != dissect.Maybe {
		t.Errorf("data alone: %d", v)
	}
	// Tailscale finds paths on the ports of its WireGuard.
	for _, p := range []dissect.Protocol{wireguard{}, tailscale{}} {
		for _, s := range []string{wgAsk, disco("k", discoPing)} {
			var f dissect.Flow
			m := dissect.Message{FromClient: true}
			f.FromClient = true
			want := wireguard{}.Name()
			if s[0] == 'T' {
				want = tailscale{}.Name()
			}
			if _, err := p.Dissect(packet(dissect.ProtoUDP, 41641, 41641, s), &f, &m); err != nil || m.Kind != dissect.KindRequest || m.Protocol != want {
				t.Errorf("%s: %v %v %q, want %s", p.Name(), err, m.Kind, m.Protocol, want)
			}
		}
	}
}

func FuzzWireGuard(f *testing.F) {
	fuzzProtocol(f, wireguard{}, 51820, wgAsk, wgAgain, wgYes, wgCookie, wgData)
}
