package replay_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"squall/dissect"
	"squall/replay"
)

// TestRedirectsAreNotFollowed: whatever addresses a node's answers name (try
// lists, contacts, alternate servers, peers), nobody goes there, and the client
// counts as turned away.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	// The canary is on loopback, where nothing would keep a client from it.
	canary, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(anyPort))
	if err != nil {
		t.Fatal(err)
	}
	defer canary.Close()
	at := canary.LocalAddr().(*net.UDPAddr)
	tcp, err := net.Listen("tcp4", at.String())
	if err != nil {
		t.Skip("needs a port that is free for UDP and for TCP, and this one is taken for TCP: run it again")
	}
	var heard atomic.Int64
	go func() {
		b := make([]byte, 2048)
		for {
			if _, _, err := canary.ReadFrom(b); err != nil {
				return
			}
			heard.Add(1)
		}
	}()
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			heard.Add(1)
			c.Close()
		}
	}()
	defer func() { tcp.Close(); <-accepted }()

	via := func(b []byte) string {
		_, rest, _ := strings.Cut(string(b), "Via: ")
		line, _, _ := strings.Cut(rest, "\r\n")
		return line
	}
	for _, tc := range []struct {
		dialect string
		answer  func(request []byte) []byte
		want    dissect.Outcome
	}{
		{"gnutella", func([]byte) []byte {
			return fmt.Appendf(nil, "GNUTELLA/0.6 503 Full\r\nX-Try-Ultrapeers: %v\r\nX-Try: %v\r\n\r\n", at, at)
		}, dissect.OutcomeThrottled},
		{"sip", func(b []byte) []byte {
			return fmt.Appendf(nil, "SIP/2.0 302 Moved Temporarily\r\nVia: %s\r\nCSeq: 1 REGISTER\r\nContact: <sip:registrar@%v>\r\n\r\n", via(b), at)
		}, dissect.OutcomeThrottled},
		{"stun", func(b []byte) []byte {
			out := append([]byte{1, 0x11, 0, 20}, b[4:20]...)
			out = append(out, 0, 9, 0, 4, 0, 0, 3, 0) // 300, try alternate
			return append(out, 0x80, 0x23, 0, 8, 0, 1, byte(at.Port>>8), byte(at.Port), 127, 0, 0, 1)
		}, dissect.OutcomeThrottled},
		{"bt-dht", func(b []byte) []byte {
			i := bytes.LastIndex(b, []byte("1:t4:"))
			node := append([]byte("nodenodenodenodenode"), 127, 0, 0, 1, byte(at.Port>>8), byte(at.Port))
			return append(append(append([]byte("d1:rd2:id20:squall-testnode-00015:nodes26:"), node...), "e1:t4:"...), append(b[i+5:i+9:i+9], "1:y1:re"...)...)
		}, dissect.OutcomeAccepted},
		{"bt-tracker", func(b []byte) []byte {
			if len(b) == 16 { // connect
				return append(append([]byte{0, 0, 0, 0}, b[12:16]...), 1, 2, 3, 4, 5, 6, 7, 8)
			}
			out := append(append([]byte{0, 0, 0, 1}, b[12:16]...), 0, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1)
			return append(out, 127, 0, 0, 1, byte(at.Port>>8), byte(at.Port)) // a peer
		}, dissect.OutcomeAccepted},
		{"http", func([]byte) []byte {
			return fmt.Appendf(nil, "HTTP/1.1 302 Found\r\nLocation: http://%v/\r\nContent-Length: 0\r\n\r\n", at)
		}, dissect.OutcomeAccepted}, // the server answers; where it points to is another's affair
	} {
		d, spoken := replay.FindDialect(tc.dialect)
		if !spoken { // asked with what was recorded
			d, _ = replay.FindDialect("tcp")
		}
		var target netip.AddrPort
		if d.Transport() == dissect.UDP {
			c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(anyPort))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			target = c.LocalAddr().(*net.UDPAddr).AddrPort()
			go func() {
				b := make([]byte, 2048)
				for {
					n, from, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					c.WriteTo(tc.answer(b[:n]), from)
				}
			}()
		} else {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			target = l.Addr().(*net.TCPAddr).AddrPort()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					b := make([]byte, 2048)
					n, _ := c.Read(b)
					c.Write(tc.answer(b[:n]))
					c.Close()
				}
			}()
		}
		p := planOf(t, d.Name(), "fixed(50ms, timeout 500ms, limit 3, random)", 1, 400*time.Millisecond, replay.Item{})
		if !spoken {
			p.Nodes[0].Protocol, p.Nodes[0].Recorded = tc.dialect, true
			p.Nodes[0].Templates = []replay.Template{{First: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")}}
		}
		rows, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: []netip.AddrPort{target}, Guard: guard(t)})
		if err != nil || s.Outcomes[tc.want] == 0 {
			t.Errorf("%s: %v, %+v", tc.dialect, err, s)
		}
		for _, r := range rows {
			if r.Destination.Port != target.Port() {
				t.Errorf("%s: a row to %v", tc.dialect, r.Destination)
			}
		}
	}
	time.Sleep(50 * time.Millisecond)
	if n := heard.Load(); n != 0 {
		t.Errorf("%d packets or connections went where answers pointed", n)
	}
}
