package overlay

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
)

// line is one message of a conversation and what must be read from it.
type line struct {
	node bool   // sent by the node
	data string // raw bytes
	kind dissect.Kind
	op   string
	// Checked where they are not empty.
	id, version string
	name, ja3   string // the server that is asked for, the fingerprint
	role        dissect.Role
	same        int // 1-based line whose Txn this one must have
	retry, life int64
}

const second = int64(1e9)

// unhex makes bytes of hex digits; spaces are dropped.
func unhex(s string) string {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func packet(transport uint8, src, dst uint16, b string) *dissect.Datagram {
	return &dissect.Datagram{Time: 1_700_000_000 * second, Proto: transport, SrcPort: src, DstPort: dst, Payload: []byte(b), PayloadLen: len(b)}
}

// converse plays a conversation: the probe must be sure of the first line, and
// each line must be read as said. Then every line is cut at every byte.
func converse(t *testing.T, p dissect.Protocol, transport uint8, port uint16, lines []line) {
	t.Helper()
	ports := func(node bool) (uint16, uint16) {
		if node {
			return port, 40000
		}
		return 40000, port
	}
	var f dissect.Flow
	var seen [2]int64
	var txns []uint64
	var held []byte
	for i, l := range lines {
		src, dst := ports(l.node)
		d := packet(transport, src, dst, l.data)
		if v := probe(t, p, d); i == 0 && v != dissect.Yes {
			t.Fatalf("%s: the probe says %d to the first line", p.Name(), v)
		}
		side := 0
		if l.node {
			side = 1
		}
		f.FromClient, f.SegLen, f.Seen, f.Established = !l.node, len(l.data), seen[side], true
		m := dissect.Message{FromClient: !l.node, Held: held}
		n, err := p.Dissect(d, &f, &m)
		held = m.Held
		if err != nil || n != len(l.data) {
			t.Fatalf("%s line %d: %d of %d bytes, %v", p.Name(), i+1, n, len(l.data), err)
		}
		seen[side] += int64(n)
		txns = append(txns, m.Txn)
		if m.Kind != l.kind || l.op != "" && m.Op != l.op {
			t.Errorf("%s line %d: %s %q, want %s %q", p.Name(), i+1, m.Kind, m.Op, l.kind, l.op)
		}
		if l.kind != dissect.KindData && l.kind != dissect.KindClose && m.FromClient == l.node {
			t.Errorf("%s line %d: FromClient %v", p.Name(), i+1, m.FromClient)
		}
		if l.id != "" && string(m.ClientID) != l.id {
			t.Errorf("%s line %d: identity %q, want %q", p.Name(), i+1, m.ClientID, l.id)
		}
		if l.name != "" && string(m.ServerName) != l.name || l.ja3 != "" && string(m.JA3) != l.ja3 {
			t.Errorf("%s line %d: asks for %q with JA3 %q, want %q, %q", p.Name(), i+1, m.ServerName, m.JA3, l.name, l.ja3)
		}
		if l.version != "" && string(m.Version) != l.version {
			t.Errorf("%s line %d: version %q, want %q", p.Name(), i+1, m.Version, l.version)
		}
		if l.role != dissect.RoleUnknown && m.Role != l.role {
			t.Errorf("%s line %d: role %s, want %s", p.Name(), i+1, m.Role, l.role)
		}
		if l.same > 0 && m.Txn != txns[l.same-1] {
			t.Errorf("%s line %d: not paired with line %d", p.Name(), i+1, l.same)
		}
		if m.RetryAfter != l.retry || m.Lifetime != l.life {
			t.Errorf("%s line %d: retry after %d, lifetime %d, want %d, %d", p.Name(), i+1, m.RetryAfter, m.Lifetime, l.retry, l.life)
		}
	}
	cuts(t, p, transport, port, lines)
}

// probe asks p, whose gates must be open if it says anything but No.
func probe(t testing.TB, p dissect.Protocol, d *dissect.Datagram) dissect.Verdict {
	t.Helper()
	v := p.Probe(d)
	if g, ok := p.(dissect.Gated); ok && v != dissect.No {
		transport := dissect.UDP
		if d.Proto == dissect.ProtoTCP {
			transport = dissect.TCP
		}
		if !slices.ContainsFunc(g.Gates(transport), func(g dissect.Gate) bool { return g.Open(d) }) {
			t.Fatalf("%s says %d to what none of its gates lets through: %x", p.Name(), v, d.Payload)
		}
	}
	return v
}

// cuts reads the conversation with each line in turn cut at each byte, once
// as a stream that goes on and once as a packet that the capture cut.
func cuts(t *testing.T, p dissect.Protocol, transport uint8, port uint16, lines []line) {
	t.Helper()
	for cut := range lines {
		for n := 0; n < len(lines[cut].data); n++ {
			if n > 200 {
				n += 6 // long lines are long of one thing
			}
			for _, snap := range []bool{false, true} {
				var f dissect.Flow
				for i, l := range lines[:cut+1] {
					src, dst := port, uint16(40000)
					if !l.node {
						src, dst = dst, src
					}
					b := l.data
					if i == cut {
						b = b[:min(n, len(b))]
					}
					d := packet(transport, src, dst, b)
					if i == cut && snap {
						d.Cut = true
						d.PayloadLen = len(l.data)
					}
					probe(t, p, d)
					if len(b) == 0 {
						continue
					}
					f.FromClient, f.SegLen = !l.node, len(b)
					m := dissect.Message{FromClient: !l.node}
					used, err := p.Dissect(d, &f, &m)
					if used < 0 || used > len(b) {
						t.Fatalf("%s line %d cut at %d: used %d", p.Name(), i+1, n, used)
					}
					if used == 0 && err == nil && transport == dissect.ProtoTCP {
						t.Fatalf("%s line %d cut at %d: neither bytes nor an error", p.Name(), i+1, n)
					}
				}
			}
		}
	}
}

// strangers must not be claimed by p.
func strangers(t *testing.T, p dissect.Protocol, transport uint8, port uint16, data ...string) {
	t.Helper()
	for _, s := range data {
		if v := probe(t, p, packet(transport, 40000, port, s)); v != dissect.No {
			t.Errorf("%s claims a stranger (%d): %.40q", p.Name(), v, s)
		}
	}
}

// fuzzProtocol feeds arbitrary bytes, in two pieces and both directions, over each
// of the protocol's transports.
func fuzzProtocol(f *testing.F, p dissect.Protocol, port uint16, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s), 7, false)
		f.Add([]byte(s), len(s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, at int, node bool) {
		at = min(max(at, 0), len(b))
		if p.Transports()&dissect.UDP != 0 {
			feed(t, p, dissect.ProtoUDP, port, node, b[:at], b[at:], b)
		}
		if p.Transports()&dissect.TCP != 0 {
			feed(t, p, dissect.ProtoTCP, port, node, b[:at], b[at:], b)
		}
	})
}

// feed reads parts that the two sides send in turn.
func feed(t *testing.T, p dissect.Protocol, transport uint8, port uint16, node bool, parts ...[]byte) {
	var flow dissect.Flow
	for _, part := range parts {
		d := packet(transport, 40000, port, string(part))
		probe(t, p, d)
		flow.FromClient = !node
		node = !node
		for len(d.Payload) > 0 && !flow.Done {
			m := dissect.Message{FromClient: flow.FromClient}
			n, err := p.Dissect(d, &flow, &m)
			if n < 0 || n > len(d.Payload) {
				t.Fatalf("used %d of %d bytes", n, len(d.Payload))
			}
			if n == 0 && err == nil {
				t.Fatal("neither bytes nor an error")
			}
			if n == 0 || err != nil && !errors.Is(err, dissect.ErrShort) || transport == dissect.ProtoUDP {
				break
			}
			d.Payload, d.PayloadLen = d.Payload[n:], d.PayloadLen-n
		}
	}
}
