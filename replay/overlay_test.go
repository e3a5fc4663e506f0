package replay_test

import (
	"strings"
	"testing"

	"squall/dissect"
	"squall/dissect/overlay"
	"squall/replay"
)

// TestDialectsAreReadAlike: what a dialect makes of a node's answer is what the
// code that reads captures makes of it, and both pair it with its request.
func TestDialectsAreReadAlike(t *testing.T) {
	protocols := map[string]dissect.Protocol{}
	for _, p := range overlay.All() {
		protocols[p.Name()] = p
	}
	names := map[string]string{"n2n-v1": "n2n", "n2n-v2": "n2n", "turn": "stun"}
	compared := 0
	for _, d := range replay.Dialects() {
		name := d.Name()
		if n, ok := names[name]; ok {
			name = n
		}
		p := protocols[name]
		if p == nil {
			if name != "tcp" && name != "udp" {
				t.Logf("%s is not among the protocols that are read", d.Name())
			}
			continue
		}
		for _, say := range []dissect.Kind{dissect.KindAccept, dissect.KindRefuse, dissect.KindThrottle} {
			compared++
			who := &replay.Identity{Client: 7, Attempt: 9, Seed: 1, Local: local}
			proto := uint8(dissect.ProtoTCP)
			if d.Transport() == dissect.UDP {
				proto = dissect.ProtoUDP
			}
			flow := &dissect.Flow{Established: true}
			// read gives all messages of one side.
			read := func(b []byte, fromClient bool) (kinds []dissect.Message) {
				t.Helper()
				dg := &dissect.Datagram{Proto: proto, PayloadLen: len(b), SrcPort: 40001, DstPort: 4242}
				if !fromClient {
					dg.SrcPort, dg.DstPort = dg.DstPort, dg.SrcPort
				}
				for len(b) > 0 {
					var m dissect.Message
					dg.Payload, flow.FromClient, flow.SegLen = b, fromClient, len(b)
					n, err := p.Dissect(dg, flow, &m)
					if err != nil {
						t.Fatalf("%s: %v in %q", d.Name(), err, b)
					}
					kinds = append(kinds, m)
					if proto == dissect.ProtoUDP || n == 0 {
						break
					}
					b = b[n:]
				}
				return kinds
			}
			request := d.Request(nil, who)
			var asked, answered dissect.Message
			var mine dissect.Kind
			for range 4 {
				asked = read(request, true)[0]
				if asked.Kind != dissect.KindRequest {
					t.Fatalf("%s: a request is read as %v", d.Name(), asked.Kind)
				}
				wants := d.Serve(request)
				wants.Peer = local
				word := say
				if wants.Step {
					word = dissect.KindAccept
				}
				answer := d.Answer(nil, &wants, word, 0)
				if len(answer) == 0 {
					break
				}
				var next []byte
				for rest := answer; len(rest) > 0; {
					r := d.Read(who, rest)
					if r.N == 0 {
						t.Fatalf("%s: stops before %q", d.Name(), rest)
					}
					mine, next, rest = r.Kind, r.Next, rest[r.N:]
				}
				list := read(answer, false)
				answered = list[len(list)-1]
				if mine != dissect.KindChallenge {
					break
				}
				if answered.Txn != asked.Txn {
					t.Errorf("%s: a challenge is not paired", d.Name())
				}
				request = next
			}
			if mine != answered.Kind && !(mine == dissect.KindThrottle && answered.Kind == dissect.KindRefuse) {
				t.Errorf("%s: an answer of %v is %v to the client and %v in a capture", d.Name(), say, mine, answered.Kind)
			}
			if d.Transport() == dissect.UDP && mine != 0 && answered.Txn != asked.Txn && !strings.HasPrefix(d.Name(), "nebula") {
				t.Errorf("%s: request and answer are not paired in a capture", d.Name())
			}
		}
	}
	for _, d := range replay.Dialects() {
		v, ok := d.(interface {
			Life([]byte, *replay.Identity, uint64) []byte
		})
		p := protocols[d.Name()]
		if d.Transport() == dissect.UDP || p == nil {
			continue
		}
		if !ok {
			t.Errorf("%s: a session cannot show life", d.Name())
			continue
		}
		who := &replay.Identity{Client: 7, Attempt: 9, Seed: 1, Local: local}
		first, second := v.Life(nil, who, 1), v.Life(nil, who, 2)
		asked := d.Serve(append(first, "next"...))
		if asked.N != len(first) || !asked.Life || string(first) == string(second) {
			t.Errorf("%s: %q is served as %+v, the next is %q", d.Name(), first, asked, second)
		}
		for n := range first {
			if a := d.Serve(first[:n:n]); a.N != 0 {
				t.Errorf("%s: serves %d of %d bytes of a sign of life", d.Name(), n, len(first))
			}
		}
		flow := &dissect.Flow{Established: true, FromClient: true}
		for _, b := range [][]byte{first, d.Answer(nil, &asked, dissect.KindAccept, 0)} {
			var m dissect.Message
			flow.SegLen = len(b)
			proto := uint8(dissect.ProtoTCP)
			if d.Name() == "gnutella" { // whose descriptors are read in datagrams only; they are the same
				proto = dissect.ProtoUDP
			}
			n, err := p.Dissect(&dissect.Datagram{Proto: proto, Payload: b, PayloadLen: len(b), SrcPort: 40001, DstPort: 4242}, flow, &m)
			if err != nil || n != len(b) && proto == dissect.ProtoTCP || m.Op == "" {
				t.Errorf("%s: of %q a capture shows %v, %d bytes, %v", d.Name(), b, m.Kind, n, err)
			}
			flow.FromClient = false
		}
	}
	if compared < 15 {
		t.Errorf("only %d answers were compared", compared)
	}
}
