package overlay

import (
	"fmt"
	"strings"
	"testing"

	"squall/dissect"
)

const sipTail = "From: <sip:ann@example.org>;tag=1\r\nTo: \"Ann\" <sip:ann@example.org;transport=udp>\r\nCall-ID: 77@10.0.0.1\r\n"

func sipRegister(cseq int, extra string) string {
	return fmt.Sprintf("REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;rport;branch=z9hG4bK%d\r\nVia: SIP/2.0/UDP 10.9.9.9;branch=z9hG4bKinner\r\n"+
		sipTail+"CSeq: %d REGISTER\r\nUser-Agent: Linphone/5.0\r\n%sContent-Length: 0\r\n\r\n", cseq, cseq, extra)
}

func sipAnswer(cseq int, status, extra string) string {
	return fmt.Sprintf("SIP/2.0 %s\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;rport=5060;branch=z9hG4bK%d\r\n"+sipTail+"CSeq: %d REGISTER\r\n%sContent-Length: 0\r\n\r\n", status, cseq, cseq, extra)
}

func TestSIP(t *testing.T) {
	const contact = "Contact: <sip:ann@10.0.0.1:5060;ob>;expires=600\r\n"
	ask := line{data: sipRegister(1, contact), kind: dissect.KindRequest, op: "REGISTER", id: "ann@example.org/10.0.0.1", version: "Linphone/5.0", role: dissect.RoleLogin}
	again := line{data: sipRegister(2, "Authorization: Digest username=\"ann\"\r\n"+contact), kind: dissect.KindRequest, op: "REGISTER"}
	for _, transport := range []uint8{dissect.ProtoUDP, dissect.ProtoTCP} {
		converse(t, sip{}, transport, 5060, []line{ask,
			{node: true, data: sipAnswer(1, "100 Trying", ""), kind: dissect.KindProgress, same: 1},
			{node: true, data: sipAnswer(1, "401 Unauthorized", "WWW-Authenticate: Digest nonce=\"x\"\r\n"), kind: dissect.KindChallenge, same: 1},
			again,
			{node: true, data: sipAnswer(2, "200 OK", "Contact: <sip:ann@10.0.0.1:5060>;expires=300\r\nExpires: 60\r\n"), kind: dissect.KindAccept, same: 4, life: 300 * second},
		})
		converse(t, sip{}, transport, 5060, []line{again,
			{node: true, data: sipAnswer(2, "401 Unauthorized", "WWW-Authenticate: Digest nonce=\"x\", stale=TRUE\r\n"), kind: dissect.KindChallenge, same: 1},
			{node: true, data: sipAnswer(2, "401 Unauthorized", "WWW-Authenticate: Digest nonce=\"x\"\r\n"), kind: dissect.KindRefuse, same: 1},
		})
		for status, want := range map[string]line{
			"503 Service Unavailable\r\nRetry-After: 30 (back soon);duration=9": {kind: dissect.KindThrottle, retry: 30 * second},
			"503 Service Unavailable":                       {kind: dissect.KindRefuse},
			"480 Temporarily Unavailable\r\nRetry-After: 5": {kind: dissect.KindThrottle, retry: 5 * second},
			"403 Forbidden":                                 {kind: dissect.KindRefuse},
			"404 Not Found\r\nRetry-After: 5":               {kind: dissect.KindRefuse, retry: 5 * second},
			"423 Interval Too Brief\r\nMin-Expires: 3600":   {kind: dissect.KindChallenge},
			"305 Use Proxy\r\nContact: <sip:b.example.org>": {kind: dissect.KindRedirect},
			"408 Request Timeout":                           {kind: dissect.KindRefuse},
			"439 First Hop Lacks Outbound Support":          {kind: dissect.KindRefuse},
			"600 Busy Everywhere\r\nRetry-After: 60":        {kind: dissect.KindThrottle, retry: 60 * second},
			// Three devices; the binding that was asked for is the newest.
			"200 OK\r\nContact: <sip:ann@10.0.0.7;expires=9999>;expires=12, \"Ann, \\\"me\\\"\" <sip:ann@10.0.0.1>;expires=300\r\nContact: <sip:ann@10.0.0.9>;expires=44": {kind: dissect.KindAccept, life: 300 * second},
			"302 Moved\r\nContact: <sip:b.example.org>": {kind: dissect.KindRedirect},
			"200 OK":                {kind: dissect.KindAccept},
			"200 OK\r\nExpires: 90": {kind: dissect.KindAccept, life: 90 * second},
		} {
			want.node, want.data, want.same = true, sipAnswer(1, status, ""), 1
			converse(t, sip{}, transport, 5060, []line{ask, want})
		}
		converse(t, sip{}, transport, 5060, []line{
			{data: sipRegister(9, "Contact: *\r\nExpires: 0\r\n"), kind: dissect.KindClose},
			{data: strings.Replace(sipRegister(9, ""), "REGISTER", "OPTIONS", 2), kind: dissect.KindData},
			{node: true, data: strings.Replace(sipAnswer(9, "200 OK", ""), "REGISTER", "INVITE", 1), kind: dissect.KindData},
		})
	}
	// Compact names, folded fields, a bare line feed, an old client without branch.
	converse(t, sip{}, dissect.ProtoUDP, 5060, []line{
		{data: "REGISTER sip:x SIP/2.0\nv: SIP/2.0/UDP h\nt: Bo\n  <sip:bo@x>\ni: 1\nCSeq : 1 REGISTER\n\n", kind: dissect.KindRequest, id: "bo@x"},
		{node: true, data: "SIP/2.0 200 OK\nv: SIP/2.0/UDP h;received=1.2.3.4\nt: <sip:bo@x>;tag=2\ni: 1\nCSeq:1 REGISTER\n\n", kind: dissect.KindAccept},
	})
	// Devices: an instance, a host in brackets, a client that moved and takes its old binding back.
	for contact, id := range map[string]string{
		"<sip:ann@10.0.0.1:4711;transport=tcp>;reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"": "urn:uuid:00000000-0000-1000-8000-000A95A0E128",
		"<sip:ann@[2001:db8::7]:5060>;expires=60":                     "[2001:db8::7]",
		"sip:phone.example.org;expires=60":                            "phone.example.org",
		"<sip:ann@10.0.0.1>;expires=60, <sip:ann@10.7.7.7>;expires=0": "10.0.0.1",
		"<sip:ann@10.0.0.1>;expires=0, <sip:ann@10.7.7.7>":            "10.0.0.1",
	} {
		converse(t, sip{}, dissect.ProtoUDP, 5060, []line{{data: sipRegister(1, "Contact: "+contact+"\r\n"), kind: dissect.KindRequest, id: "ann@example.org/" + id}})
	}
	// What keeps a flow open (RFC 5626): pings that are known to be answered, Bindings.
	yes := line{node: true, data: sipAnswer(1, "200 OK", "Expires: 600\r\n"), kind: dissect.KindAccept, life: 600 * second}
	converse(t, sip{}, dissect.ProtoTCP, 5060, []line{ask, yes, {data: "\r\n\r\n", kind: dissect.KindData}, {node: true, data: "\r\n", kind: dissect.KindAccept, op: "pong"},
		{data: "\r\n\r\n", kind: dissect.KindRefresh, op: "ping"}, {node: true, data: "\r\n", kind: dissect.KindAccept, same: 5}})
	converse(t, sip{}, dissect.ProtoUDP, 5060, []line{ask, yes, {data: "\r\n\r\n", kind: dissect.KindData},
		{data: stunPacket(0x0001, 'k'), kind: dissect.KindRefresh, op: "Binding"}, {node: true, data: stunPacket(0x0101, 'k'), kind: dissect.KindAccept, same: 4}})
	converse(t, stun{}, dissect.ProtoUDP, 5060, []line{{data: stunPacket(0x0001, 'k'), kind: dissect.KindRequest}, ask, yes})
	// A keepalive of empty lines before the message.
	converse(t, sip{}, dissect.ProtoTCP, 5060, []line{ask, {data: "\r\n\r\n", kind: dissect.KindData}, {node: true, data: "\r\n", kind: dissect.KindData}})
	strangers(t, sip{}, dissect.ProtoUDP, 5060, "REGISTER sip:x SIP/2.0\r\n\r\n", "SIP/2.0 abc", "REGISTER http://x HTTP/1.1\r\nVia: a\r\nCSeq: 1\r\n\r\n", "SUBSCRIBE /a")
}

// TestSIPCut: where the snapshot length left no branch, the flow pairs.
func TestSIPCut(t *testing.T) {
	d := packet(dissect.ProtoUDP, 5060, 5060, sipRegister(1, "")[:40])
	d.Cut, d.PayloadLen = true, 400
	if v := (sip{}).Probe(d); v != dissect.Maybe {
		t.Errorf("probe %d", v)
	}
	var f dissect.Flow
	m := dissect.Message{FromClient: true}
	if _, err := (sip{}).Dissect(d, &f, &m); err != nil || m.Kind != dissect.KindRequest || m.Txn != 0 {
		t.Errorf("%v %v txn %x", err, m.Kind, m.Txn)
	}
}

func FuzzSIP(f *testing.F) {
	fuzzProtocol(f, sip{}, 5060, sipRegister(1, ""), sipAnswer(1, "401 Unauthorized", ""), sipAnswer(1, "503 Busy\r\nRetry-After: 4", ""),
		sipRegister(1, "")+sipRegister(2, ""), "\r\n\r\n"+sipAnswer(1, "200 OK", ""))
}
