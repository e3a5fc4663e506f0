package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

const (
	mqttConnect311 = "\x10\x17\x00\x04MQTT\x04\x00\x02\x9a\x00\x0bxxx^666^xxx"
	mqttConnect5   = "\x10\x18\x00\x04MQTT\x05\x02\x00\x3c\x05\x11\x00\x00\x00\x0a\x00\x06sensor"
	mqttConnect31  = "\x10\x14\x00\x06MQIsdp\x03\x02\x00\x00\x00\x06sensor"
)

func TestMQTT(t *testing.T) {
	converse(t, mqtt{}, dissect.ProtoTCP, 1883, []line{
		{data: mqttConnect311, kind: dissect.KindRequest, op: "CONNECT", id: "xxx^666^xxx", version: "MQTT 3.1.1", role: dissect.RoleSupernode},
		{node: true, data: "\x20\x02\x00\x00", kind: dissect.KindAccept, op: "CONNACK", same: 1, life: 999 * second},
		{data: "\x30\x1f\x00\x06topic1messagetest MQTT v3.1.1", kind: dissect.KindData},
		{data: "\xc0\x00", kind: dissect.KindRefresh, op: "PINGREQ"},
		{node: true, data: "\xd0\x00", kind: dissect.KindAccept, op: "PINGRESP", same: 4},
		{data: "\xe0\x00", kind: dissect.KindClose, op: "DISCONNECT"},
	})
	answers := []struct {
		connect, answer string
		kind            dissect.Kind
	}{
		{mqttConnect31, "\x20\x02\x00\x00", dissect.KindAccept},
		{mqttConnect31, "\x20\x02\x00\x03", dissect.KindThrottle},
		{mqttConnect31, "\x20\x02\x00\x05", dissect.KindRefuse},
		{mqttConnect311, "\x20\x02\x00\x01", dissect.KindRefuse},
		{mqttConnect5, "\x20\x03\x00\x89\x00", dissect.KindThrottle},
		{mqttConnect5, "\x20\x03\x00\x9f\x00", dissect.KindThrottle},
		{mqttConnect5, "\x20\x03\x00\x97\x00", dissect.KindThrottle},
		{mqttConnect5, "\x20\x03\x00\x9c\x00", dissect.KindRedirect},
		{mqttConnect5, "\x20\x03\x00\x87\x00", dissect.KindRefuse},
		{mqttConnect5, "\xf0\x02\x18\x00", dissect.KindChallenge},
	}
	for _, a := range answers {
		l := line{node: true, data: a.answer, kind: a.kind, same: 1}
		if a.connect == mqttConnect5 && a.kind == dissect.KindAccept {
			l.life = 90 * second
		}
		converse(t, mqtt{}, dissect.ProtoTCP, 1883, []line{{data: a.connect, kind: dissect.KindRequest}, l})
	}
	converse(t, mqtt{}, dissect.ProtoTCP, 1883, []line{{data: mqttConnect5, kind: dissect.KindRequest, id: "sensor", version: "MQTT 5"}})
	bridge := strings.Replace(mqttConnect311, "MQTT\x04", "MQTT\x84", 1) // a broker to another one
	converse(t, mqtt{}, dissect.ProtoTCP, 1883, []line{{data: bridge, kind: dissect.KindRequest, id: "xxx^666^xxx", version: "MQTT 3.1.1"}})
	strangers(t, mqtt{}, dissect.ProtoTCP, 1883, "\x10\x17\x00\x04MQTX\x04\x00\x02\x9a\x00\x0bxxx^666^xxx", "\x10\x00\x00\x04MQTT\x04\x00\x02\x9a", "\x20\x02\x00\x00")
}

func FuzzMQTT(f *testing.F) {
	fuzzProtocol(f, mqtt{}, 1883, mqttConnect31, mqttConnect311, mqttConnect5, "\x20\x02\x00\x00")
}
