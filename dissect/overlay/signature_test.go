package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/samples"
)

func loadFile(t testing.TB, name string) (dissect.Hints, []dissect.Protocol) {
	t.Helper()
	h, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	hints, protocols, err := LoadHints(h, name)
	if err != nil {
		t.Fatal(err)
	}
	return hints, protocols
}

func ExampleLoadHints() {
	hints, protocols, err := LoadHints(strings.NewReader(`
nodes:
  192.0.2.7:7700: {role: bootstrap}
services:
  honeycomb/supernode: honeycomb
protocols:
  - name: honeycomb
    transport: udp
    ports: 7700
    role: supernode
    probe:
      - match: {at: 0, hex: "48 43 01"}
    pair: {at: 4, length: 4}
    messages:
      - {name: HELLO, kind: request, match: {at: 3, hex: "01"}, client: {at: 8, length: 6}}
      - {name: OK, kind: success, match: {at: 3, hex: "10"}}
      - {name: LATER, kind: busy, match: {at: 3, hex: "12"}, retry_after: {at: 8, bytes: 2, unit: s}}
`), "honeycomb.yaml")
	fmt.Println(len(hints.Nodes), hints.Services["honeycomb/supernode"], protocols[0].Name(), err)

	_, _, err = LoadHints(strings.NewReader("protocols:\n  - name: honeycomb\n    transport: sctp\n"), "honeycomb.yaml")
	fmt.Println(err)
	// Output:
	// 1 honeycomb honeycomb <nil>
	// honeycomb.yaml:3: protocols[0].transport: "sctp"; expected one of udp tcp
}

func TestHoneycomb(t *testing.T) {
	hints, protocols := loadFile(t, "honeycomb.yaml")
	at := dissect.Endpoint{Addr: dissect.Addr4([]byte{192, 0, 2, 7}), Port: 7700}
	if h := hints.Nodes[at]; h.Role != dissect.RoleBootstrap || h.Service != "honeycomb/entry" || hints.Services["honeycomb/supernode"] != "honeycomb" {
		t.Errorf("hints: %+v", hints)
	}
	p := protocols[0]
	hello := "HC\x01\x01aaaaCLIENThive/2.1\x00"
	converse(t, p, dissect.ProtoUDP, 7700, []line{
		{data: hello, kind: dissect.KindRequest, op: "HELLO", id: "CLIENT", version: "hive/2.1", role: dissect.RoleSupernode},
		{node: true, data: "HC\x01\x02aaaa12345678", kind: dissect.KindChallenge, op: "COOKIE", same: 1},
		{data: "HC\x01\x03bbbbCLIENThive/2.1\x0012345678", kind: dissect.KindRequest, op: "HELLO2", id: "CLIENT"},
		{node: true, data: "HC\x01\x10bbbb\x00\x3c", kind: dissect.KindAccept, op: "OK", same: 3, life: 60 * second},
		{data: "HC\x01\x20ccccCLIENT", kind: dissect.KindRefresh, op: "BEAT"},
		{node: true, data: "HC\x01\x10cccc\x00\x3c", kind: dissect.KindAccept, same: 5, life: 60 * second},
		{data: "HC\x01\x21dddd", kind: dissect.KindClose, op: "BYE"},
	})
	for answer, want := range map[string]line{
		"HC\x01\x11aaaa":         {kind: dissect.KindRefuse, op: "NO"},
		"HC\x01\x12aaaa\x01\x2c": {kind: dissect.KindThrottle, op: "LATER", retry: 300 * second},
		"HC\x01\x13aaaa123456":   {kind: dissect.KindRedirect, op: "TRY"},
		"HC\x01\x3faaaa":         {kind: dissect.KindData},
	} {
		want.node, want.data = true, answer
		if want.kind != dissect.KindData {
			want.same = 1
		}
		converse(t, p, dissect.ProtoUDP, 7700, []line{{data: hello, kind: dissect.KindRequest}, want})
	}
	strangers(t, p, dissect.ProtoUDP, 9, "HC\x01\x01", "HC\x02\x01aaaa", "HC\x01\x41aaaa", "")
	// 26 fixed bits are sure on any port.
	if v := p.Probe(packet(dissect.ProtoUDP, 40000, 9, hello)); v != dissect.Yes {
		t.Errorf("elsewhere the probe says %d", v)
	}
}

// TestGreeting: what comes before the frames of a stream has a length of its own,
// also where it comes in pieces, and a client may name itself later.
func TestGreeting(t *testing.T) {
	_, protocols, err := LoadHints(strings.NewReader(`
protocols:
  - name: amqp
    transport: tcp
    role: supernode
    frame: {at: 3, bytes: 4, plus: 8}
    probe: [{match: {at: 0, text: AMQP}}]
    messages:
      - {name: greeting, kind: request, first: true, length: 8, match: {at: 0, text: AMQP}}
      - {name: other version, kind: refusal, first: true, length: 8, match: {at: 0, text: AMQP}}
      - {name: StartOk, kind: progress, from: client, match: {at: 7, hex: 000a 000b}, version: {after: "productS", at: 4, until: ["\x03", "\x05"]}}
      - {name: OpenOk, kind: success, match: {at: 7, hex: 000a 0029}}
      - {name: Close, kind: refusal, match: {at: 7, hex: 000a 0032}}
`), "amqp.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := protocols[0]
	method := func(class, id byte, body string) string {
		return "\x01\x00\x00\x00\x00" + string([]byte{byte((4 + len(body)) >> 8), byte(4 + len(body)), 0, class, 0, id}) + body + "\xce"
	}
	greeting := "AMQP\x00\x00\x09\x01"
	hello := []line{
		{data: greeting, kind: dissect.KindRequest, op: "greeting", role: dissect.RoleSupernode},
		{node: true, data: method(10, 10, strings.Repeat("x", 300)), kind: dissect.KindData},
		{data: method(10, 11, "productS\x00\x00\x00\x04pika\x05PLAIN\x03"), kind: dissect.KindProgress, version: "pika"},
	}
	converse(t, p, dissect.ProtoTCP, 5672, append(slices.Clone(hello), line{node: true, data: method(10, 41, "\x00"), kind: dissect.KindAccept, op: "OpenOk"}))
	converse(t, p, dissect.ProtoTCP, 5672, append(slices.Clone(hello), line{node: true, data: method(10, 50, "no"), kind: dissect.KindRefuse, op: "Close"}))
	converse(t, p, dissect.ProtoTCP, 5672, []line{{data: greeting, kind: dissect.KindRequest}, {node: true, data: greeting, kind: dissect.KindRefuse, op: "other version"}})
	// One byte at a time nothing is lost.
	var f dissect.Flow
	f.FromClient = true
	for n := 1; n < len(greeting); n++ {
		if _, err := p.Dissect(packet(dissect.ProtoTCP, 40000, 5672, greeting[:n]), &f, &dissect.Message{}); !errors.Is(err, dissect.ErrShort) {
			t.Errorf("%d bytes of the greeting: %v", n, err)
		}
	}
	// The nearest of several ends is the end.
	for _, data := range []string{`{"op":"join","seq":7}`, `{"op":"join","seq":7,"id":1}`} {
		if got := (&sigField{given: true, after: []byte(`"seq":`), until: [][]byte{[]byte(","), []byte("}")}}).of([]byte(data)); string(got) != "7" {
			t.Errorf("%s: %q", data, got)
		}
	}
}

// TestAttach runs simulated outages of the overlay of attach.yaml through the
// whole of squall: the rows are those of the oracle.
func TestAttach(t *testing.T) {
	_, protocols := loadFile(t, "attach.yaml")
	converse(t, protocols[0], dissect.ProtoTCP, 6346, []line{
		{data: "ATTACH 0000002a\r\n", kind: dissect.KindRequest, op: "ATTACH", id: "0000002a", role: dissect.RoleSupernode},
		{node: true, data: "BUSY 30\r\n", kind: dissect.KindThrottle, retry: 30 * second},
		{node: true, data: "NO\r\n", kind: dissect.KindRefuse},
		{node: true, data: "WELCOME\r\n", kind: dissect.KindAccept},
		{data: "NO\r\n", kind: dissect.KindData},
		{data: "BYE\r\n", kind: dissect.KindClose},
	})
	for _, name := range []string{"s2", "s9", "n8"} {
		sc, ok := samples.Find(name)
		if !ok || sc.Protocol != "tcp" {
			t.Fatalf("%s is not what it was", name)
		}
		sc.Clients, sc.Duration = min(sc.Clients, 500), min(sc.Duration, sc.Trigger+45*time.Second)
		var packets []capture.Packet
		if _, err := samples.Simulate(sc, 1, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
			t.Fatal(err)
		}
		want := samples.Oracle(packets)
		got := analyse(t, capture.Memory(packets), protocols)
		if len(got) != len(want) {
			t.Errorf("%s: %d attempts, the oracle has %d", name, len(got), len(want))
			continue
		}
		named, bad, clients := 0, 0, map[string]bool{}
		for i := range got {
			g, w := &got[i], &want[i]
			const row = "%v %v %v %v %v"
			if fmt.Sprintf(row, g.Source, g.Start, g.Outcome, g.Late, g.Transmissions) != fmt.Sprintf(row, w.Source, w.Start, w.Outcome, w.Late, w.Transmissions) {
				if bad++; bad <= 3 {
					t.Errorf("%s row %d: %v %v late=%v n=%d, the oracle says %v late=%v n=%d", name, i, g.Source, g.Outcome, g.Late, g.Transmissions, w.Outcome, w.Late, w.Transmissions)
				}
			}
			if g.Service == "attach/supernode" {
				named++
			}
			if g.ClientIDLevel == dissect.IDProtocol {
				clients[g.ClientID] = true
			}
		}
		t.Logf("%s: %d attempts, %d differ, %d named, %d clients known by number", name, len(got), bad, named, len(clients))
		if named < len(got)/2 || len(clients) == 0 {
			t.Errorf("%s: %d of %d named, %d clients", name, named, len(got), len(clients))
		}
	}
}

func TestSignatureStreams(t *testing.T) {
	_, protocols, err := LoadHints(strings.NewReader(`
protocols:
  - name: framed
    transport: tcp
    probe:
      - {match: {at: 0, hex: "e3"}, size_at: {at: 1, bytes: 4, order: little, plus: 5}}
    frame: {at: 1, bytes: 4, order: little, plus: 5}
    messages:
      - {name: LOGIN, kind: request, first: true, match: {at: 5, hex: "01"}, client: {at: 6, length: 16}}
      - {name: ID, kind: success, match: {at: 5, hex: "40"}}
      - {name: FULL, kind: busy, match: [{at: 5, hex: "38"}, {at: 6, within: 60, text: "full"}]}
`), "framed")
	if err != nil {
		t.Fatal(err)
	}
	hello := "\xe3\x11\x00\x00\x00\x01" + strings.Repeat("u", 16)
	if v := protocols[0].Probe(packet(dissect.ProtoTCP, 40000, 9, hello)); v != dissect.Yes {
		t.Errorf("the probe says %d", v)
	}
	p := protocols[0]
	var f dissect.Flow
	read := func(node bool, b string) (int, dissect.Kind, error) {
		f.FromClient = !node
		m := dissect.Message{FromClient: !node}
		n, err := p.Dissect(packet(dissect.ProtoTCP, 40000, 9, b), &f, &m)
		f.Seen += int64(n)
		return n, m.Kind, err
	}
	if n, k, err := read(false, hello[:9]); n != 0 || err != dissect.ErrShort {
		t.Error(n, k, err)
	}
	if n, k, err := read(false, hello+"\xe3"); n != len(hello) || k != dissect.KindRequest || err != nil {
		t.Error(n, k, err)
	}
	if n, k, err := read(true, "\xe3\x0c\x00\x00\x00\x38server full"); n != 17 || k != dissect.KindThrottle || err != nil {
		t.Error(n, k, err)
	}
	if n, _, err := read(true, "\xe3\xfb\xff\xff\xff\x38"); n != 0 || err != dissect.ErrShort {
		t.Error(n, err)
	}
	big := "\xe3\xff\x0f\x00\x00\x40" + strings.Repeat("x", 3<<10)
	f = dissect.Flow{Step: 1, Seen: 1}
	if n, k, err := read(true, big); n != len(big) || k != dissect.KindAccept || err != nil {
		t.Error(n, k, err)
	}
	rest := 0xfff + 5 - len(big)
	if n, k, err := read(true, strings.Repeat("\x40", rest)+"\xe3"); n != rest || k != dissect.KindData || err != nil {
		t.Error(n, k, err)
	}
}

// Errors name file, line, key, and what was expected.
func TestHintsErrors(t *testing.T) {
	for _, c := range [][2]string{
		{"nodes:\n  192.0.2.1: {role: peer}\n", `h:2: nodes.192.0.2.1: expected an endpoint such as 192.0.2.1:6346`},
		{"nodes:\n  192.0.2.1:1: {role: king}\n", `h:2: nodes.192.0.2.1:1.role: "king"; expected one of supernode login relay`},
		{"nodes:\n  192.0.2.1:1: {rolle: peer}\n", `h:2: nodes.192.0.2.1:1.rolle: unknown key; expected role, service`},
		{"node: {}\n", `h:1: node: unknown key; expected nodes, services, protocols`},
		{"- a\n", `h:1: expected a mapping of nodes, services, protocols`},
		{"services: [a]\n", `h:1: services: expected a mapping of services`},
		{"services:\n  a: {b: c}\n", `h:2: services.a: expected the name of a service`},
		{"protocols:\n  - transport: udp\n    messages: []\n", `h:2: protocols[0].name: missing`},
		{"protocols:\n  - name: A\n", `protocols[0].name: "A"; expected 1 to 32 of a-z`},
		{"protocols:\n  - name: a\n    messages: []\n", `protocols[0].transport: missing; expected udp, tcp or both`},
		{"protocols:\n  - name: a\n    transport: udp\n", `protocols[0].messages: missing; expected at least a request`},
		{"protocols:\n  - name: a\n    transport: udp\n    messages: []\n", `protocols[0].probe: missing; expected patterns, or ports`},
		{"protocols:\n  - name: a\n    transport: udp\n    ports: [0]\n", `h:4: protocols[0].ports[0]: expected a port`},
		{"protocols:\n  - name: a\n    transport: udp\n    ports: [9..5]\n", `ends before it begins`},
		{"protocols:\n  - name: a\n    transport: udp\n    messages: []\n    probe:\n      - match: {at: 0, hex: \"4\"}\n", `h:6: protocols[0].probe[0].match.hex: "4"; expected pairs of hex digits`},
		{"protocols:\n  - name: a\n    transport: udp\n    messages: []\n    probe:\n      - match: {at: 0, hex: \"40\"}\n", `probe[0]: fixes 8 bits; expected 16 or more, or ports`},
		{"protocols:\n  - name: a\n    transport: udp\n    probe:\n      - match: {at: 0, hex: \"40\", mask: \"0f\"}\n", `byte 0 has bits that its mask 0f hides`},
		{"protocols:\n  - name: a\n    transport: udp\n    probe:\n      - match: {at: 0, hex: \"40\", mask: \"0f00\"}\n", `match.mask: 2 bytes for a pattern of 1; expected as many`},
		{"protocols:\n  - name: a\n    transport: udp\n    probe:\n      - match: {at: -1, hex: \"40\"}\n", `match.at: "-1"; expected a number from 0 to 4096`},
		{"protocols:\n  - name: a\n    transport: udp\n    probe:\n      - match: {at: 0}\n", `0 bytes; expected hex or text of 1 to 256`},
		{"protocols:\n  - name: a\n    transport: udp\n    ports: 5\n    messages:\n      - {name: X}\n", `messages[0].kind: missing`},
		{"protocols:\n  - name: a\n    transport: udp\n    ports: 5\n    messages:\n      - {kind: maybe}\n", `messages[0].kind: "maybe"; expected one of request refresh`},
		{"protocols:\n  - name: a\n    transport: udp\n    ports: 5\n    messages:\n      - {kind: busy, retry_after: soon}\n", `retry_after: expected a duration`},
		{"protocols:\n  - name: a\n    transport: udp\n    ports: 5\n    messages:\n      - {kind: busy, retry_after: {at: 3}}\n", `expected a duration, a binary number (at, bytes, unit) or digits`},
		{"protocols:\n  - name: a\n    transport: udp\n    ports: 5\n    frame: {until: x}\n    messages:\n      - {kind: busy}\n", `frame: only streams have frames`},
		{"protocols:\n  - name: a\n    transport: tcp\n    ports: 5\n    frame: {}\n", `expected either a length (at, bytes) or until`},
		{"protocols:\n  - name: a\n    transport: udp\n    encrypted: maybe\n", `encrypted: expected true or false`},
		{"a: [1\n", `h:`},
		{"nodes: {}\n---\nnodes: {}\n", `a second document; expected one`},
		{strings.Repeat("#", maxHintsLine+2), `line 1: over 4096 bytes`},
		{strings.Repeat(strings.Repeat("[", 1000)+"\n", 20), `more than 16384 brackets`},
		{strings.Repeat("#\n", maxHintsBytes), `over 1048576 bytes`},
	} {
		_, protocols, err := LoadHints(strings.NewReader(c[0]), "h")
		if err == nil || !strings.Contains(err.Error(), c[1]) || !strings.HasPrefix(err.Error(), "h:") || protocols != nil {
			t.Errorf("%.80q:\n got %v\nwant %s", c[0], err, c[1])
		}
	}
	for _, empty := range []string{"", "# nothing\n", "nodes:\n", "protocols:\n", "{}\n"} {
		if _, p, err := LoadHints(strings.NewReader(empty), "h"); err != nil || len(p) != 0 {
			t.Errorf("%q: %d protocols, %v", empty, len(p), err)
		}
	}
}

func TestSignatureProbeDoesNotAllocate(t *testing.T) {
	_, protocols := loadFile(t, "honeycomb.yaml")
	d := packet(dissect.ProtoUDP, 40000, 7700, "HC\x01\x01aaaaCLIENThive/2.1\x00")
	if n := testing.AllocsPerRun(100, func() { protocols[0].Probe(d) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzLoadHints(f *testing.F) {
	for _, name := range []string{"attach.yaml", "honeycomb.yaml"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte("HC\x01\x01aaaa"))
	}
	f.Add([]byte("protocols:\n  - {name: a, transport: tcp, ports: 1.., frame: {at: 0, bytes: 8}, messages: [{kind: busy, retry_after: {after: x, unit: h}}]}"), []byte("\xff\xff\xff\xff\xff\xff\xff\xffx99999999999999999999"))
	f.Fuzz(func(t *testing.T, text, payload []byte) {
		_, protocols, err := LoadHints(strings.NewReader(string(text)), "f")
		if err != nil && !strings.HasPrefix(err.Error(), "f") {
			t.Errorf("%v does not name the file", err)
		}
		for _, p := range protocols {
			for _, transport := range []uint8{dissect.ProtoTCP, dissect.ProtoUDP} {
				d := packet(transport, 1, 2, string(payload))
				probe(t, p, d)
				flow := dissect.Flow{FromClient: true}
				for len(d.Payload) > 0 {
					var m dissect.Message
					n, err := p.Dissect(d, &flow, &m)
					if n < 0 || n > len(d.Payload) || n == 0 && err == nil {
						t.Fatalf("used %d of %d, %v", n, len(d.Payload), err)
					}
					if err != nil {
						break
					}
					d.Payload = d.Payload[n:]
				}
			}
		}
	})
}
