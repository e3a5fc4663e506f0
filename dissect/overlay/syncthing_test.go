package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

var (
	relayHello    = torHello("relay.example.org", "bep-relay")
	serverHello13 = record(tlsHandshake, handshake(2, append(append(be16(0x0303), make([]byte, 32)...), 0, 0x13, 0x01, 0)))
	joinSession   = unhex("9e79bc40 00000003 00000024 00000020") + strings.Repeat("k", 32)
)

// relayResponse is a Response of a relay.
func relayResponse(code byte, text string) string {
	n := byte(len(text))
	text += strings.Repeat("\x00", -len(text)&3)
	return unhex("9e79bc40 00000004") + string([]byte{0, 0, 0, byte(8 + len(text)), 0, 0, 0, code, 0, 0, 0, n}) + text
}

// sealed is a record with n bytes of data.
func sealed(n int) string { return record(tlsData, make([]byte, n)) }

// relayTLS is the handshake of TLS 1.3 with a relay, and the request inside, as
// strelaysrv 1.19 and Go have it: no token, a certificate of Ed25519.
func relayTLS(request int, then ...line) []line {
	lines := []line{
		{data: relayHello, kind: dissect.KindRequest, op: "ClientHello", role: dissect.RoleRelay},
		{node: true, data: serverHello13, kind: dissect.KindProgress, op: "ServerHello", same: 1},
	}
	for _, n := range []int{39, 62, 577, 129, 53} {
		lines = append(lines, line{node: true, data: sealed(n), kind: dissect.KindData})
	}
	for _, n := range []int{388, 89, 53, request} {
		lines = append(lines, line{data: sealed(n), kind: dissect.KindData})
	}
	return append(lines, then...)
}

func TestSyncthing(t *testing.T) {
	for n, want := range map[int]dissect.Kind{45: dissect.KindAccept, 52: dissect.KindAccept, 29: dissect.KindThrottle, 36: dissect.KindThrottle,
		49: dissect.KindRefuse, 57: dissect.KindRefuse, 64: dissect.KindRefuse, 117: dissect.KindAccept} {
		converse(t, syncthing{}, dissect.ProtoTCP, 22067, relayTLS(33, line{node: true, data: sealed(n), kind: want, same: 1, role: dissect.RoleRelay}))
	}
	join := line{data: joinSession, kind: dissect.KindRequest, op: "JoinSessionRequest", role: dissect.RoleRelay}
	converse(t, syncthing{}, dissect.ProtoTCP, 22067, []line{join, {node: true, data: relayResponse(0, "success"), kind: dissect.KindAccept, same: 1}})
	for code, word := range map[byte]string{1: "not found", 2: "already connected", 100: "no"} {
		converse(t, syncthing{}, dissect.ProtoTCP, 22067, []line{join, {node: true, data: relayResponse(code, word), kind: dissect.KindRefuse, op: word, same: 1}})
	}
	converse(t, syncthing{}, dissect.ProtoTCP, 22000, []line{
		{data: torHello("", "bep/1.0"), kind: dissect.KindRequest, role: dissect.RolePeer},
		{node: true, data: serverHello13, kind: dissect.KindAccept, same: 1},
		{node: true, data: record(tlsAlert, []byte{2, 42}), kind: dissect.KindClose, op: "bad_certificate"},
	})
	strangers(t, syncthing{}, dissect.ProtoTCP, 22067, torHello("relay.example.org", "h2"), relayResponse(0, "success"), joinSession[:15], joinSession[:10]+"\x01"+joinSession[11:], noise(60))
}

func FuzzSyncthing(f *testing.F) {
	fuzzProtocol(f, syncthing{}, 22067, joinSession, relayResponse(2, "already connected"), relayHello, serverHello13+sealed(45))
}

// relayed is a request of so many bytes inside TLS to a relay, and its answer
// where there is one.
func relayed(request, answer int) (list []wire) {
	for i, l := range relayTLS(request) {
		list = append(list, wire{at: 10 + int64(i), node: l.node, data: l.data})
	}
	if answer > 0 {
		list = append(list, wire{at: 30, node: true, data: sealed(answer)})
	}
	return list
}
