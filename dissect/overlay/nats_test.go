package overlay

import (
	"testing"

	"squall/dissect"
)

const (
	natsGreeting = `INFO {"server_id":"NDA","version":"2.10.4","max_payload":1048576}` + "\r\n"
	natsHello    = `CONNECT {"verbose":false,"name":"sensor-7","lang":"go","version":"1.31.0"}` + "\r\n"
)

func TestNATS(t *testing.T) {
	converse(t, nats{}, dissect.ProtoTCP, 4222, []line{
		{node: true, data: natsGreeting, kind: dissect.KindData, role: dissect.RoleSupernode},
		{data: natsHello, kind: dissect.KindRequest, op: "CONNECT", id: "sensor-7", version: "1.31.0"},
		{data: "PING\r\n", kind: dissect.KindData},
		{node: true, data: "PONG\r\n", kind: dissect.KindAccept, op: "PONG", same: 2},
		{data: "PUB a 5\r\n", kind: dissect.KindData},
		{data: "hello\r\n", kind: dissect.KindData},
		{data: "PING\r\n", kind: dissect.KindRefresh, op: "PING"},
		{node: true, data: "PONG\r\n", kind: dissect.KindAccept, same: 7},
		{node: true, data: "-ERR 'Stale Connection'\r\n", kind: dissect.KindClose, op: "-ERR"},
	})
	for text, kind := range map[string]dissect.Kind{"Authorization Violation": dissect.KindRefuse, "maximum connections exceeded": dissect.KindThrottle} {
		converse(t, nats{}, dissect.ProtoTCP, 4222, []line{
			{node: true, data: natsGreeting, kind: dissect.KindData},
			{data: natsHello, kind: dissect.KindRequest},
			{node: true, data: "-ERR '" + text + "'\r\n", kind: kind, same: 2},
		})
	}
	server := append(append(be16(0x0303), make([]byte, 32)...), 0, 0x13, 0x01, 0)
	converse(t, nats{}, dissect.ProtoTCP, 4222, []line{
		{node: true, data: natsGreeting, kind: dissect.KindData},
		{data: record(tlsHandshake, handshake(1, chrome().body())), kind: dissect.KindRequest, op: "ClientHello"},
		{node: true, data: record(tlsHandshake, handshake(2, server)), kind: dissect.KindAccept, same: 2},
	})
	strangers(t, nats{}, dissect.ProtoTCP, 4222, "INFO\r\n", `INFO {"server":1}`, natsHello, "PING\r\n")
}

func FuzzNATS(f *testing.F) {
	fuzzProtocol(f, nats{}, 4222, natsGreeting, natsHello, "PUB a 5\r\nhello\r\nPING\r\n")
}
