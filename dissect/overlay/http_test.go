package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

func TestHTTP(t *testing.T) {
	converse(t, http{}, dissect.ProtoTCP, 80, []line{
		{data: "GET /announce?x=1 HTTP/1.1\r\nHost: tracker:6969\r\nUser-Agent: rtorrent/0.9\r\n\r\n", kind: dissect.KindRequest, op: "GET", version: "rtorrent/0.9", name: "tracker"},
		{node: true, data: "HTTP/1.1 100 Continue\r\n\r\n", kind: dissect.KindProgress, same: 1},
		{node: true, data: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", kind: dissect.KindAccept, same: 1, life: 1},
		{node: true, data: "hello", kind: dissect.KindData},
		{data: "POST /rpc HTTP/1.1\r\nHost: [2001:db8::1]\r\ncontent-length: 3\r\n\r\n", kind: dissect.KindRequest, op: "POST", name: "[2001:db8::1]"},
		{data: "abc", kind: dissect.KindData},
		{node: true, data: "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nTransfer-Encoding: chunked\r\n\r\n", kind: dissect.KindThrottle, same: 5, retry: 120 * second},
		{node: true, data: "4;x=y\r\n", kind: dissect.KindData},
		{node: true, data: "wiki\r\n", kind: dissect.KindData},
		{node: true, data: "0\r\n", kind: dissect.KindData},
		{node: true, data: "\r\n", kind: dissect.KindData},
		{data: "GET /a HTTP/1.1\r\n\r\n", kind: dissect.KindRequest},
		{node: true, data: "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", kind: dissect.KindChallenge, same: 12},
		{data: "GET /a HTTP/1.1\r\nAuthorization: Basic eDp5\r\n\r\n", kind: dissect.KindRequest},
		{node: true, data: "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", kind: dissect.KindRefuse, same: 14},
		{data: "HEAD /b HTTP/1.1\r\n\r\n", kind: dissect.KindRequest},
		{node: true, data: "HTTP/1.1 429 Too Many\r\nContent-Length: 99\r\nRetry-After: Tue, 14 Nov 2023 22:14:20 GMT\r\n\r\n", kind: dissect.KindThrottle, same: 16, retry: 60 * second},
		{data: "GET /c HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", kind: dissect.KindRequest},
		{node: true, data: "HTTP/1.1 101 Switching Protocols\r\n\r\n", kind: dissect.KindAccept, same: 18},
	})
	for code, kind := range map[string]dissect.Kind{"204": dissect.KindAccept, "302": dissect.KindAccept, "404": dissect.KindRefuse, "500": dissect.KindRefuse, "503": dissect.KindThrottle} {
		var f dissect.Flow
		f.B = 1
		m := dissect.Message{}
		if _, err := (http{}).Dissect(packet(dissect.ProtoTCP, 80, 1, "HTTP/1.0 "+code+" x\r\n\r\n"), &f, &m); err != nil || m.Kind != kind {
			t.Errorf("%s: %s, %v", code, m.Kind, err)
		}
	}
	for target, role := range map[string]dissect.Role{"/gwc.php?hostfile=1&client=x": dissect.RoleBootstrap, "/?get=1&net=gnutella2": dissect.RoleBootstrap,
		"/server.met": dissect.RoleBootstrap, "/nodes.date": dissect.RoleUnknown, "/": dissect.RoleUnknown} {
		f := dissect.Flow{FromClient: true}
		m := dissect.Message{}
		if _, err := (http{}).Dissect(packet(dissect.ProtoTCP, 1, 80, "GET "+target+" HTTP/1.0\r\n\r\n"), &f, &m); err != nil || m.Role != role {
			t.Errorf("%s: %s, %v", target, m.Role, err)
		}
	}
	converse(t, http{}, dissect.ProtoTCP, 80, []line{
		{data: httpPreface, kind: dissect.KindRequest, op: "h2"},
		{node: true, data: "\x00\x00\x00\x04\x00\x00\x00\x00\x00", kind: dissect.KindAccept, same: 1},
	})
	strangers(t, http{}, dissect.ProtoTCP, 80, "OPTIONS sip:a@b SIP/2.0\r\n", "GET / RTSP/1.0\r\n\r\n", "GNUTELLA CONNECT/0.6\r\n", "HTTP/1.1 900 x\r\n", "GETTING on\r\n", "GET ")
}

// TestHTTPLongHead: a head that the engine would not keep is reported from its
// beginning, and the rest of it passes.
func TestHTTPLongHead(t *testing.T) {
	head := "GET / HTTP/1.1\r\nUser-Agent: x\r\nCookie: " + strings.Repeat("c", 5000) + "\r\nA: b\r\n\r\n"
	var f dissect.Flow
	requests := 0
	rest := head + "GET /2 HTTP/1.1\r\n\r\n"
	for end := 0; end < len(rest); {
		end = min(end+1400, len(rest))
		for {
			d := packet(dissect.ProtoTCP, 1, 80, rest[:end])
			f.FromClient = true
			m := dissect.Message{FromClient: true}
			n, err := (http{}).Dissect(d, &f, &m)
			if err == dissect.ErrShort || n == 0 {
				break
			}
			if m.Kind == dissect.KindRequest {
				requests++
				if requests == 1 && string(m.Version) != "x" {
					t.Errorf("version %q", m.Version)
				}
			}
			rest, end = rest[n:], end-n
			if end == 0 {
				break
			}
		}
	}
	if requests != 2 {
		t.Errorf("%d requests, want 2", requests)
	}
}

func FuzzHTTP(f *testing.F) {
	fuzzProtocol(f, http{}, 80, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\n\r\n", httpPreface)
}
