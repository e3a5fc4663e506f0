package overlay

import (
	"errors"
	"time"

	"squall/dissect"
)

// mqtt is MQTT 3.1, 3.1.1 and 5 over TCP: OASIS MQTT 3.1.1 and 5.0, sections
// 2.1, 3.1, 3.2, 3.12 to 3.15.
//
//	0 1 type<<4 | flags | 1 1..4 remaining length, 7 bits a byte, low first | body
//	CONNECT  10: name (2+n) | level1 | flags1 | keepalive2 | [properties of 5] | client id (2+n) ...
//	CONNACK  20: session present1 | code1 | [properties]
//	PINGREQ  c0 00, PINGRESP d0 00, DISCONNECT e0, AUTH f0
//
// The broker is the supernode. A CONNACK code says yes, no, or busy: 3 (server
// unavailable) of the older versions; 88, 89, 97 and 9f of version 5 are busy,
// 9c and 9d name another server. AUTH 18 is a challenge. PINGREQ is the refresh
// of the session, which holds one and a half keepalive times without it. MQTT
// names no software; the version is that of the protocol.
type mqtt struct{}

// mqttBridge is added to the level by brokers that connect to each other
// (Mosquitto, lib/send_connect.c).
const mqttBridge = 0x80

var errMQTT = errors.New("not an mqtt packet")

func (mqtt) Name() string                  { return "mqtt" }
func (mqtt) Transports() dissect.Transport { return dissect.TCP }

// mqttLength reads the remaining length after the first byte: its value and
// how many bytes it takes, 0 if it is not all there, -1 if it is no length.
func mqttLength(b []byte) (v uint64, n int) {
	for n < 4 {
		if n+1 >= len(b) {
			return 0, 0
		}
		c := b[n+1]
		v |= uint64(c&0x7f) << (7 * n)
		n++
		if c < 0x80 {
			return v, n
		}
	}
	return 0, -1
}

func (mqtt) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "\x10", Least: 2}}
}

func (mqtt) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < 2 || b[0] != 0x10 {
		return dissect.No
	}
	v, n := mqttLength(b)
	if n <= 0 || v < 10 || len(b) < n+8 {
		return dissect.No
	}
	b = b[n+1:]
	switch {
	case string(b[:6]) == "\x00\x04MQTT" && b[6]&^mqttBridge >= 4 && b[6]&^mqttBridge <= 5:
		return dissect.Yes
	case len(b) >= 9 && string(b[:8]) == "\x00\x06MQIsdp" && b[8]&^mqttBridge == 3:
		return dissect.Yes
	}
	return dissect.No
}

var mqttVersions = [...][]byte{3: []byte("MQTT 3.1"), 4: []byte("MQTT 3.1.1"), 5: []byte("MQTT 5")}

// Flow.Step is the level of the protocol, Flow.Port the keepalive in seconds,
// Flow.B counts the pings: sent in the low half, answered in the high one.
func (mqtt) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	length, n := mqttLength(b)
	if n < 0 || b[0]>>4 == 0 {
		return 0, errMQTT
	}
	if n == 0 {
		return 0, dissect.ErrShort
	}
	head := 1 + n
	total := uint64(head) + length
	kind := b[0] >> 4
	whole := kind == 1 || kind == 2 || kind >= 12 // those of which the body is read
	if whole && uint64(len(b)) < total && wait(d) {
		return 0, dissect.ErrShort
	}
	m.Role = dissect.RoleSupernode
	c := dissect.NewCursor(b[head:min(uint64(len(b)), total)])
	switch {
	case kind == 1 && f.FromClient:
		mqttConnect(&c, f, m)
	case kind == 2 && !f.FromClient:
		c.Skip(1)
		code := c.U8()
		if c.Err() != nil {
			return 0, c.Err()
		}
		mqttAnswer(f, m, code)
	case kind == 12 && f.FromClient:
		f.B++
		m.Kind, m.Op, m.Txn = dissect.KindRefresh, "PINGREQ", hash1(uint64(uint32(f.B)))
	case kind == 13 && !f.FromClient:
		f.B += 1 << 32
		m.Kind, m.Op, m.Txn = dissect.KindAccept, "PINGRESP", hash1(f.B>>32)
	case kind == 14:
		m.Kind, m.Op = dissect.KindClose, "DISCONNECT"
	case kind == 15 && !f.FromClient && c.U8() == 0x18:
		m.Kind, m.Op = dissect.KindChallenge, "AUTH"
	}
	return leaveBody(f, total, len(b)), nil
}

func mqttConnect(c *dissect.Cursor, f *dissect.Flow, m *dissect.Message) {
	c.Skip(int(c.U16()))
	f.Step = c.U8() &^ mqttBridge
	c.Skip(1)
	f.Port = c.U16()
	if f.Step == 5 {
		rest := c.Rest()
		if v, n := mqttLength(append([]byte{0}, rest[:min(4, len(rest))]...)); n > 0 {
			c.Skip(n + int(v))
		}
	}
	m.Kind, m.Op = dissect.KindRequest, "CONNECT"
	m.ClientID = c.Bytes(int(c.U16()))
	if int(f.Step) < len(mqttVersions) {
		m.Version = mqttVersions[f.Step]
	}
}

func mqttAnswer(f *dissect.Flow, m *dissect.Message, code uint8) {
	m.Op = "CONNACK"
	switch code {
	case 0:
		m.Kind = dissect.KindAccept
		m.Lifetime = int64(f.Port) * int64(time.Second) * 3 / 2
	case 3, 0x88, 0x89, 0x97, 0x9f:
		m.Kind = dissect.KindThrottle
	case 0x9c, 0x9d:
		m.Kind = dissect.KindRedirect
	default:
		m.Kind = dissect.KindRefuse
	}
}
