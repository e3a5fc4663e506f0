package overlay

import (
	"testing"

	"squall/dissect"
)

func torHello(name, alpn string) string {
	h := chrome()
	h.name, h.alpn = name, alpn
	if alpn == "" {
		h.extensions = []uint16{0, 13, 43, 10}
	}
	return record(tlsHandshake, handshake(1, h.body()))
}

func TestTor(t *testing.T) {
	server := append(append(be16(0x0303), make([]byte, 32)...), 0, 0x13, 0x01, 0)
	converse(t, tor{}, dissect.ProtoTCP, 443, []line{
		{data: torHello("www.4gk67zpn3brh7qxg.com", ""), kind: dissect.KindRequest, op: "ClientHello", role: dissect.RoleSupernode},
		{node: true, data: record(tlsHandshake, handshake(2, server)), kind: dissect.KindAccept, same: 1},
	})
	converse(t, tor{}, dissect.ProtoTCP, 9001, []line{{data: torHello("www.hnssyug.net", ""), kind: dissect.KindRequest}})
	converse(t, tor{}, dissect.ProtoTCP, 9030, []line{
		{data: "GET /tor/status-vote/current/consensus.z HTTP/1.0\r\nHost: 1.2.3.4\r\n\r\n", kind: dissect.KindRequest, op: "GET", role: dissect.RoleBootstrap},
		{node: true, data: "HTTP/1.0 503 Directory busy, try again later\r\n\r\n", kind: dissect.KindThrottle, same: 1, role: dissect.RoleBootstrap},
	})
	strangers(t, tor{}, dissect.ProtoTCP, 443, torHello("www.office365.com", ""), torHello("www.google.com", ""), torHello("www.4gk67zpn3brh7qxg.com", "h2"),
		torHello("ww2.4gk67zpn3brh7qxg.com", ""), torHello("www.4gk67zpn1brh7qxg.com", ""), "GET /torrents/ HTTP/1.1\r\n\r\n", "GET /tor/ HTTP/1.1\r\n\r\n")
}

func FuzzTor(f *testing.F) {
	fuzzProtocol(f, tor{}, 9001, torHello("www.4gk67zpn3brh7qxg.com", ""), "GET /tor/server/all HTTP/1.0\r\n\r\n")
}
