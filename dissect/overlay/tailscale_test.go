package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

func disco(key string, size int) string {
	b := discoMagic + strings.Repeat(key, 32)
	return b + strings.Repeat("x", size-len(b))
}

func TestTailscale(t *testing.T) {
	key := strings.Repeat("k", 32)
	converse(t, tailscale{}, dissect.ProtoUDP, 41641, []line{
		{data: disco("k", discoPingKey), kind: dissect.KindRequest, op: "ping", id: key, role: dissect.RolePeer},
		{data: disco("k", discoPing), kind: dissect.KindRequest, op: "ping"},
		{node: true, data: disco("n", discoPong), kind: dissect.KindAccept, op: "pong", same: 2},
		{data: disco("k", discoPing), kind: dissect.KindRefresh},
		{node: true, data: disco("n", 98), kind: dissect.KindData},
		{node: true, data: disco("n", discoPong), kind: dissect.KindAccept, same: 4},
	})
	// The other side asks too, and then it is the client.
	var f dissect.Flow
	for i, want := range []struct {
		opener bool
		size   int
		kind   dissect.Kind
		client bool
	}{{true, discoPing, dissect.KindRequest, true}, {false, discoPing, dissect.KindRequest, true}, {true, discoPong, dissect.KindAccept, false}, {false, discoPong, dissect.KindAccept, false}} {
		f.FromClient = want.opener
		m := dissect.Message{FromClient: want.opener}
		if _, err := (tailscale{}).Dissect(packet(dissect.ProtoUDP, 1, 2, disco("k", want.size)), &f, &m); err != nil || m.Kind != want.kind || m.FromClient != want.client {
			t.Errorf("line %d: %s, FromClient %v, %v", i+1, m.Kind, m.FromClient, err)
		}
	}
	strangers(t, tailscale{}, dissect.ProtoUDP, 41641, "TS"+strings.Repeat("x", 90), discoMagic, "\x04\x00\x00\x00"+strings.Repeat("x", 60))
}

func TestDERP(t *testing.T) {
	serverKey := "\x01\x00\x00\x00\x28" + derpMagic + strings.Repeat("s", 32)
	info := "\x02\x00\x00\x00\x40" + strings.Repeat("c", 64)
	head := "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nUser-Agent: tailscale/1.2\r\n\r\n"
	frames := []line{
		{node: true, data: serverKey, kind: dissect.KindProgress, op: "ServerKey"},
		{data: info, kind: dissect.KindRequest, op: "ClientInfo", id: strings.Repeat("c", 32)},
		{node: true, data: "\x03\x00\x00\x00\x04info", kind: dissect.KindAccept, op: "ServerInfo"},
		{node: true, data: "\x06\x00\x00\x00\x00", kind: dissect.KindData},
		{node: true, data: "\x15\x00\x00\x00\x08\x00\x00\x03\xe8\x00\x00\x27\x10", kind: dissect.KindClose, op: "Restarting"},
	}
	upgrade := []line{
		{data: head, kind: dissect.KindRequest, op: "GET /derp", version: "tailscale/1.2", role: dissect.RoleRelay},
		{node: true, data: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n", kind: dissect.KindProgress, same: 1},
	}
	converse(t, derp{}, dissect.ProtoTCP, 80, append(upgrade[:2:2], frames...))
	converse(t, derp{}, dissect.ProtoTCP, 80, append(upgrade[:1:1], frames...)) // fast start
	converse(t, derp{}, dissect.ProtoTCP, 80, []line{upgrade[0],
		{node: true, data: "HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n\r\n", kind: dissect.KindThrottle, same: 1, retry: 3 * second}})
	converse(t, derp{}, dissect.ProtoTCP, 80, []line{upgrade[0], {node: true, data: "HTTP/1.1 403 Forbidden\r\n\r\n", kind: dissect.KindRefuse, same: 1}})
	converse(t, derp{}, dissect.ProtoTCP, 443, []line{{data: torHello("derp9d.tailscale.com", "h2"), kind: dissect.KindRequest, op: "ClientHello", role: dissect.RoleRelay}})
	strangers(t, derp{}, dissect.ProtoTCP, 80, "GET /derp HTTP/1.1\r\nHost: a\r\n\r\n", "GET /derby HTTP/1.1\r\nUpgrade: x\r\n\r\n", torHello("login.tailscale.com", ""))
}

func FuzzTailscale(f *testing.F) {
	fuzzProtocol(f, tailscale{}, 41641, disco("k", discoPing), disco("k", discoPong))
}

func FuzzDERP(f *testing.F) {
	fuzzProtocol(f, derp{}, 80, "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n", "\x01\x00\x00\x00\x28"+derpMagic)
}
