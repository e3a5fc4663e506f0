package overlay

import (
	"testing"

	"squall/dissect"
)

// coapMessage makes a message; options are pairs of number and value, in order.
func coapMessage(kind, code byte, id uint16, token string, options ...any) string {
	b := []byte{0x40 | kind | byte(len(token)), code, byte(id >> 8), byte(id)}
	b = append(b, token...)
	last := 0
	for i := 0; i < len(options); i += 2 {
		number, value := options[i].(int), options[i+1].(string)
		nibble := func(n int) (byte, []byte) {
			switch {
			case n < 13:
				return byte(n), nil
			case n < 269:
				return 13, []byte{byte(n - 13)}
			}
			return 14, []byte{byte((n - 269) >> 8), byte(n - 269)}
		}
		delta, more := nibble(number - last)
		size, long := nibble(len(value))
		b = append(append(append(append(b, delta<<4|size), more...), long...), value...)
		last = number
	}
	return string(b)
}

const coapCON = 0

var (
	// LwM2M TS Transport, section 6.4.3: POST /rd?ep=...&lt=...&lwm2m=1.1.
	coapRegister = coapMessage(coapCON, coapPOST, 0x7d34, "reg1", optionPath, "rd", 12, "(", optionQuery, "ep=urn:imei:490154203237518", optionQuery, "lt=300", optionQuery, "lwm2m=1.1") + "\xff</1/0>,</3/0>"
	coapCreated  = coapMessage(coapACK, 0x41, 0x7d34, "reg1", 8, "rd", 8, "5a3f")
	coapUpdate   = coapMessage(coapCON, coapPOST, 0x7d35, "reg2", optionPath, "rd", optionPath, "5a3f")
	// RFC 7252 figures 16 and 18: GET /temperature, answered at once, and later.
	coapGet = unhex("41 01 7d34 20 bb 74656d7065726174757265")
)

func TestCoAP(t *testing.T) {
	ask := line{data: coapRegister, kind: dissect.KindRequest, op: "register", id: "urn:imei:490154203237518", version: "lwm2m=1.1", role: dissect.RoleSupernode}
	converse(t, coap{}, dissect.ProtoUDP, 5683, []line{
		ask,
		{data: coapRegister, kind: dissect.KindRequest, same: 1},
		{node: true, data: coapCreated, kind: dissect.KindAccept, same: 1, life: 300 * second},
		{node: true, data: coapMessage(coapCON, 1, 9, "srv", optionPath, "3", optionPath, "0"), kind: dissect.KindData},
		{data: coapMessage(coapACK, 0x45, 9, "srv") + "\xffx", kind: dissect.KindData},
		{data: coapUpdate, kind: dissect.KindRefresh, op: "update"},
		{node: true, data: coapMessage(coapACK, 0x44, 0x7d35, "reg2"), kind: dissect.KindAccept, same: 6, life: 300 * second},
		{data: coapMessage(coapNON, 0x45, 77, "obsv", 6, "\x01") + "\xff21", kind: dissect.KindData},
		{data: coapMessage(coapCON, coapDELETE, 0x7d36, "reg3", optionPath, "rd", optionPath, "5a3f"), kind: dissect.KindClose, op: "deregister"},
	})
	for answer, want := range map[string]line{
		coapMessage(coapACK, 0x80, 0x7d34, "reg1"):                                          {kind: dissect.KindRefuse, op: "4.xx"},
		coapMessage(coapACK, 0xa0, 0x7d34, "reg1"):                                          {kind: dissect.KindRefuse, op: "5.xx"},
		coapMessage(coapACK, coapOverloaded, 0x7d34, "reg1", optionMaxAge, "\x01\x2c"):      {kind: dissect.KindThrottle, retry: 300 * second},
		coapMessage(coapACK, coapTooMany, 0x7d34, "reg1", optionMaxAge, "\x05"):             {kind: dissect.KindThrottle, retry: 5 * second},
		coapMessage(coapACK, coapAuthorize, 0x7d34, "reg1", optionEcho, "\x00\x01\x02\x03"): {kind: dissect.KindChallenge},
		coapMessage(coapACK, coapAuthorize, 0x7d34, "reg1"):                                 {kind: dissect.KindRefuse},
		coapMessage(coapRST, 0, 0x7d34, ""):                                                 {kind: dissect.KindRefuse, op: "RST"},
	} {
		want.node, want.data, want.same = true, answer, 1
		converse(t, coap{}, dissect.ProtoUDP, 5683, []line{ask, want})
	}
	converse(t, coap{}, dissect.ProtoUDP, 40001, []line{
		{data: coapMessage(coapCON, coapPOST, 1, "b", optionPath, "bs", optionQuery, "ep=node-7"), kind: dissect.KindRequest, op: "bootstrap", id: "node-7", role: dissect.RoleBootstrap},
		{node: true, data: coapMessage(coapACK, 0, 1, ""), kind: dissect.KindProgress, op: "ACK", same: 1},
		{node: true, data: coapMessage(coapCON, 0x44, 700, "b"), kind: dissect.KindAccept, same: 1},
		{data: coapMessage(coapACK, 0, 700, ""), kind: dissect.KindData},
	})
	// Other requests are told by the port, and paired all the same.
	guess(t, coap{}, dissect.ProtoUDP, 5683, []line{
		{data: coapGet, kind: dissect.KindRequest, op: "GET"},
		{node: true, data: unhex("61 45 7d34 20 ff 32322e332043"), kind: dissect.KindAccept, same: 1},
		{data: unhex("41 01 7d35 20 bb 74656d7065726174757265"), kind: dissect.KindRequest, op: "GET"},
		{node: true, data: unhex("51 45 aa01 20 ff 32322e332043"), kind: dissect.KindAccept, same: 3},
		{data: coapMessage(coapCON, 3, 8, "p", optionPath, "up", optionBlock1, "\x16") + "\xffblock", kind: dissect.KindData},
	})
	strangers(t, coap{}, dissect.ProtoUDP, 5683, coapRegister[:3], "\x80"+coapRegister[1:], "\x49"+coapRegister[1:], coapGet+"\xff", coapGet+"\xf0", "\x60\x01\x00\x01", "\x40\x08\x00\x01",
		"\x40\x00\x00\x01x", coapMessage(coapCON, 1, 1, "", optionPath, "a\x00b"))
	strangers(t, coap{}, dissect.ProtoUDP, 40001, coapGet, coapMessage(coapCON, coapPOST, 1, "b", optionPath, "rd"), coapCreated)
}

func FuzzCoAP(f *testing.F) {
	fuzzProtocol(f, coap{}, 5683, coapRegister, coapCreated, coapUpdate, coapGet)
}
