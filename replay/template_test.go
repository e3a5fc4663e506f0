package replay_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/replay"
)

// rawCapture begins a capture of IP packets; the file is closed when the test ends.
func rawCapture(t *testing.T, path string) *capture.Writer {
	t.Helper()
	h, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	w, err := capture.NewWriter(h, capture.WriterOptions{Format: "pcap", Link: capture.LinkRaw})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// writeExchanges writes a capture of so many TCP connections of different
// clients to one node, a second apart: handshake, request, answer, good-bye.
func writeExchanges(t *testing.T, path string, n int, talk func(i int) (request, answer []byte)) {
	t.Helper()
	w := rawCapture(t, path)
	var list []capture.Packet
	for i := range n {
		at := int64(1_500_000_000e9) + int64(i)*1e9
		client, node := [4]byte{10, 1, 0, byte(i + 1)}, [4]byte{192, 0, 2, 9}
		seq, ack := uint32(1000), uint32(9000)
		segment := func(fromClient bool, flags byte, payload []byte) {
			src, dst, sp, dp, s, k := client, node, uint16(40000), uint16(4444), seq, ack
			if !fromClient {
				src, dst, sp, dp, s, k = node, client, 4444, 40000, ack, seq
			}
			b := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0}
			binary.BigEndian.PutUint16(b[2:], uint16(40+len(payload)))
			b = append(append(b, src[:]...), dst[:]...)
			b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, sp), dp)
			b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, s), k)
			b = append(append(b, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0), payload...)
			list = append(list, capture.Packet{Time: at, Data: b, OrigLen: len(b), Link: capture.LinkRaw})
			at += 1e6
			step := uint32(len(payload))
			if flags&3 != 0 { // SYN and FIN count
				step++
			}
			if fromClient {
				seq += step
			} else {
				ack += step
			}
		}
		request, answer := talk(i)
		segment(true, 2, nil)
		segment(false, 0x12, nil)
		segment(true, 0x10, nil)
		segment(true, 0x18, request[:5]) // in two pieces
		segment(true, 0x18, request[5:])
		segment(false, 0x18, answer)
		at += 2e8
		segment(true, 0x11, nil)
		segment(false, 0x11, nil)
		segment(true, 0x10, nil)
	}
	for i := range list {
		if err := w.WritePacket(&list[i], ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTemplates: what clients of an unknown protocol sent first is asked again
// of a server that knows nothing else; without being told so a plan holds no
// recorded byte.
func TestTemplates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := dir + "/odd.pcap"
	hello := func(i int) []byte { return append([]byte{0xfe, 0x10, byte(i % 3), 0}, "ODDLY hello"...) }
	writeExchanges(t, path, 12, func(i int) ([]byte, []byte) { return hello(i), []byte{0xfe, 0x11, 0, 0} })
	analysed := func(payloads bool) (*replay.Plan, error) {
		a, _ := analyseWith(t, []string{path}, capture.Options{}, dissect.Hints{})
		defer a.Close()
		p, err := replay.NewPlan(a, nil, replay.PlanOptions{Payloads: payloads, Seed: 1})
		if err != nil || !payloads {
			return p, err
		}
		again, err := capture.Open([]string{path}, capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		return p, p.Learn(again, false)
	}
	p, err := analysed(false)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := p.Write(&text); err != nil || bytes.Contains(text.Bytes(), []byte("templates")) {
		t.Errorf("%v: a plan without --payloads: %s", err, text.Bytes())
	}
	if p, err = analysed(true); err != nil {
		t.Fatal(err)
	}
	if len(p.Nodes) != 1 || len(p.Nodes[0].Templates) != 3 || !strings.Contains(p.Summary(), "3 recorded requests") {
		t.Fatalf("%+v\n%s", p.Nodes, p.Summary())
	}
	text.Reset()
	if err := p.Write(&text); err != nil {
		t.Fatal(err)
	}
	if p, err = replay.ReadPlan(&text); err != nil {
		t.Fatal(err)
	}
	// A server that takes its own greeting only.
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string]int{}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(5 * time.Second))
				b := make([]byte, 99)
				n, _ := c.Read(b)
				mu.Lock()
				got[string(b[:n])]++
				mu.Unlock()
				if bytes.HasPrefix(b[:n], []byte{0xfe, 0x10}) {
					c.Write([]byte{0xfe, 0x11, 0, 0})
				}
				c.Read(b)
			})
		}
	})
	defer func() { l.Close(); done.Wait() }()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	r := &replay.Runner{Plan: p, Targets: []netip.AddrPort{at}, Guard: guard(t), Speed: 4}
	rows, s, err := collect(t, context.Background(), r)
	if err != nil || s.Outcomes[dissect.OutcomeAccepted] != 12 || len(rows) != 12 {
		t.Errorf("%v: %d rows, %+v", err, len(rows), s)
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range 3 {
		if got[string(hello(i))] != 4 {
			t.Errorf("template %d came %d times: %v", i, got[string(hello(i))], got)
		}
	}
	if s != nil && !strings.Contains(s.Work, "no capacity is claimed") {
		t.Error(s.Work)
	}
}

// TestTemplatesHoldNoSecrets: recorded credentials are blanked, in as many bytes,
// unless they are asked for; what was asked stays.
func TestTemplatesHoldNoSecrets(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/web.pcap"
	request := "GET /announce?passkey=0123456789abcdef&left=0 HTTP/1.1\r\nHost: tracker.example\r\nAuthorization: Basic c2VjcmV0\r\nCookie: id=7\r\n\r\n"
	writeExchanges(t, path, 3, func(int) ([]byte, []byte) {
		return []byte(request), []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	for _, keep := range []bool{false, true} {
		a, _ := analyseWith(t, []string{path}, capture.Options{}, dissect.Hints{})
		p, err := replay.NewPlan(a, nil, replay.PlanOptions{Payloads: true, KeepSecrets: keep, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		src, err := capture.Open([]string{path}, capture.Options{})
		if err == nil {
			err = p.Learn(src, false)
			src.Close()
		}
		a.Close()
		if err != nil || len(p.Nodes) != 1 || len(p.Nodes[0].Templates) != 1 {
			t.Fatalf("%v: %+v", err, p.Nodes)
		}
		got := p.Nodes[0].Templates[0]
		want := request
		if !keep {
			want = strings.NewReplacer("0123456789abcdef", strings.Repeat("x", 16), "Basic c2VjcmV0", strings.Repeat("x", 14), "id=7", "xxxx").Replace(request)
		}
		if string(got.First) != want || got.Blanked == keep || strings.Contains(p.Summary(), "blanked in 1") == keep {
			t.Errorf("keep %v: %q\n%s", keep, got.First, p.Summary())
		}
	}
}
