package replay_test

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/replay"
)

// opinion is what tshark, which shares no code with us, makes of a dialect.
type opinion struct {
	decode string // as; "" = it has no dissector
	ids    string // field that a request and its answer share
	who    string // field of the client's identity; "" = the protocol has none
	// What the information column, or a field of the words, says of a request
	// and of the answers to it; "" = the protocol has no such word.
	field          string
	ask            string
	yes, no, later string
}

var opinions = map[string]opinion{
	"sip":      {decode: "sip", ids: "sip.Via.branch", who: "sip.to.user", ask: "REGISTER", yes: "Status: 200 OK (REGISTER) (1 binding)", no: "Status: 403", later: "Status: 503"},
	"stun":     {decode: "stun", ids: "stun.id", ask: "Binding Request", yes: "Binding Success", no: "error-code: 403", later: "error-code: 508"},
	"turn":     {decode: "stun", ids: "stun.id", who: "stun.att.username", ask: "Allocate Request", yes: "Allocate Success", no: "error-code: 403", later: "error-code: 508"},
	"bt-dht":   {decode: "bt-dht", ids: "", who: "", field: "bt-dht.bencoded.string", ask: "find_node", yes: ",r,", no: "Server Error", later: "Server Error"},
	"bitcoin":  {decode: "bitcoin", ids: "", field: "bitcoin.command", ask: "version", yes: "version,verack", no: "reject", later: "reject"},
	"gnutella": {decode: "gnutella", field: "_ws.col.Protocol", ask: "Gnutella", yes: "Gnutella", no: "Gnutella", later: "Gnutella"},
	// tshark 4.0 has no dissector of these; what can be asked of them is asked
	// of our own code that reads captures (TestDialectsAreReadAlike), and that
	// tshark takes them for no broken message of something else.
	"n2n": {}, "n2n-v2": {}, "n2n-v1": {}, "bt-tracker": {}, "nebula": {}, "tcp": {}, "udp": {},
}

// said is a message of the conversations, a packet of the capture.
type said struct {
	client, attempt int
	fromClient      bool
	leg             int
	word            string // that tshark should find
	bytes           []byte
}

// conversations are those of three clients with two attempts each, answered by
// yes, no and later, and a sign of life.
func conversations(t *testing.T, d replay.Dialect, o *opinion) (list []said) {
	t.Helper()
	logins, err := replay.ReadCredentials(strings.NewReader("ann@example.org:one\nbob@example.org:two\ncid@example.org:three\n"))
	if err != nil {
		t.Fatal(err)
	}
	node, err := replay.WithLogins(d, logins)
	proven := err == nil
	if !proven {
		node = d
	}
	attempt := 0
	for _, word := range []struct {
		say  dissect.Kind
		want string
	}{{dissect.KindAccept, o.yes}, {dissect.KindRefuse, o.no}, {dissect.KindThrottle, o.later}} {
		for client := range 3 {
			for range 2 {
				attempt++
				who := &replay.Identity{Client: int64(client), Attempt: uint64(attempt), Seed: 1, Local: local, Remote: local, Version: "Phone/1"}
				if proven {
					who.Login = logins[client]
				}
				next := d.Request(nil, who)
				for leg := 0; len(next) > 0; leg++ {
					list = append(list, said{client, attempt, true, leg, o.ask, next})
					asked := node.Serve(next)
					asked.Peer = local
					if asked.N != len(next) || asked.Bad {
						t.Fatalf("%s: leg %d is served as %+v", d.Name(), leg, asked)
					}
					say, want := word.say, word.want
					if asked.Step {
						say, want = dissect.KindAccept, ""
					}
					answer := node.Answer(nil, &asked, say, 30*time.Second)
					if len(answer) == 0 {
						break
					}
					list = append(list, said{client, attempt, false, leg, want, answer})
					next = nil
					for rest := answer; len(rest) > 0; {
						r := d.Read(who, rest)
						if r.N == 0 {
							t.Fatalf("%s stops before %q", d.Name(), rest)
						}
						next, rest = append(next, r.Next...), rest[r.N:]
					}
					if d.Transport() == dissect.TCP { // the handshake ends with a word that nobody answers
						if len(next) > 0 {
							list = append(list, said{client, attempt, true, leg + 1, "", next})
						}
						break
					}
				}
				if l, ok := d.(interface {
					Life([]byte, *replay.Identity, uint64) []byte
				}); ok && d.Transport() == dissect.TCP && word.say == dissect.KindAccept {
					ping := l.Life(nil, who, 1)
					asked := d.Serve(ping)
					list = append(list, said{client, attempt, true, 9, "", ping}, said{client, attempt, false, 9, "", d.Answer(nil, &asked, dissect.KindAccept, 0)})
				}
			}
		}
	}
	return list
}

// writeSaid writes them as packets: each attempt on a port of its own.
func writeSaid(t *testing.T, path string, proto byte, list []said) {
	t.Helper()
	w := rawCapture(t, path)
	type stream struct {
		attempt    int
		fromClient bool
	}
	seq := map[stream]uint32{}
	for i := range list {
		s := &list[i]
		src, dst := local.Addr().As4(), [4]byte{192, 0, 2, 9}
		sp, dp := uint16(40000+s.attempt), uint16(4444)
		if !s.fromClient {
			src, dst, sp, dp = dst, src, dp, sp
		}
		b := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0}
		b = append(append(b, src[:]...), dst[:]...)
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, sp), dp)
		if proto == dissect.ProtoUDP {
			b = binary.BigEndian.AppendUint16(b, uint16(8+len(s.bytes)))
			b = append(b, 0, 0)
		} else {
			mine := stream{s.attempt, s.fromClient}
			b = binary.BigEndian.AppendUint32(b, 1000+seq[mine])
			b = binary.BigEndian.AppendUint32(b, 1000+seq[stream{s.attempt, !s.fromClient}])
			b = append(b, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0)
			seq[mine] += uint32(len(s.bytes))
		}
		b = append(b, s.bytes...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		if err := w.WritePacket(&capture.Packet{Time: int64(1_500_000_000e9) + int64(i)*1e6, Data: b, OrigLen: len(b), Link: capture.LinkRaw}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDialectsByTshark: what clients and test nodes say is whole to tshark, and
// of the kind that was meant; a request and its answer share an id that no other
// attempt has, attempts of a client an identity that no other client has. What
// tshark cannot tell, the code that reads captures does.
func TestDialectsByTshark(t *testing.T) {
	protocols := map[string]dissect.Protocol{}
	for _, p := range overlay.All() {
		protocols[p.Name()] = p
	}
	tshark, missing := exec.LookPath("tshark")
	for _, d := range replay.Dialects() {
		t.Run(d.Name(), func(t *testing.T) {
			o, known := opinions[d.Name()]
			if !known {
				t.Fatal("nobody says what tshark should make of it")
			}
			list := conversations(t, d, &o)
			transport, proto := "udp", byte(dissect.ProtoUDP)
			if d.Transport() == dissect.TCP {
				transport, proto = "tcp", dissect.ProtoTCP
			}
			ids, whos := make([]string, len(list)), make([]string, len(list))
			name := map[string]string{"n2n-v1": "n2n", "n2n-v2": "n2n", "turn": "stun"}[d.Name()]
			if name == "" {
				name = d.Name()
			}
			if p := protocols[name]; p != nil {
				for i, s := range list {
					if proto == dissect.ProtoTCP && s.leg > 0 { // within a stream
						continue
					}
					dg := dissect.Datagram{Proto: proto, Payload: s.bytes, PayloadLen: len(s.bytes), SrcPort: 40001, DstPort: 4444}
					if !s.fromClient {
						dg.SrcPort, dg.DstPort = dg.DstPort, dg.SrcPort
					}
					var m dissect.Message
					if _, err := p.Dissect(&dg, &dissect.Flow{Established: true, FromClient: s.fromClient, SegLen: len(s.bytes)}, &m); err != nil {
						t.Fatalf("%v in %q", err, s.bytes)
					}
					if d.Transport() == dissect.UDP && d.Name() != "n2n-v1" { // which has no ids: a MAC address, and the flow, pair its messages
						ids[i] = fmt.Sprint(m.Txn)
					}
					if s.fromClient && len(m.ClientID) > 0 {
						whos[i] = string(m.ClientID)
					}
				}
			}
			distinct(t, "squall", list, ids, whos)
			if missing != nil {
				t.Skip("needs tshark for a second opinion (Debian: apt-get install tshark)")
			}
			path := filepath.Join(t.TempDir(), d.Name()+".pcap")
			writeSaid(t, path, proto, list)
			args := []string{"-r", path, "-n", "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-e", "_ws.malformed", "-e", "_ws.expert.severity", "-e", "_ws.expert.message", "-e", "frame.protocols"}
			for _, f := range []string{o.ids, o.who, o.field} {
				if f == "" {
					f = "frame.number"
				}
				args = append(args, "-e", f)
			}
			args = append(args, "-e", "_ws.col.Info")
			if o.decode != "" {
				args = append(args, "-d", transport+".port==4444,"+o.decode)
			}
			out, err := exec.Command(tshark, args...).Output()
			lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
			if err != nil || len(lines) != len(list) {
				t.Fatalf("tshark: %v, %d lines of %d packets", err, len(lines), len(list))
			}
			for i, line := range lines {
				f, s := strings.Split(line, "\t"), &list[i]
				const warning = "6291456" // 0x600000
				if f[0] != "" || strings.Contains(f[1], warning) || strings.Contains(f[1], "8388608") {
					t.Errorf("packet %d: %s %s\n%q", i+1, f[0], f[2], s.bytes)
				}
				if o.decode != "" && !strings.Contains(f[3]+":", ":"+o.decode+":") {
					t.Errorf("packet %d is %s\n%q", i+1, f[3], s.bytes)
				}
				where := strings.Join(strings.Fields(f[7]), " ")
				if o.field != "" {
					where = "," + f[6] + ","
				}
				if o.decode != "" && !strings.Contains(where, s.word) {
					t.Errorf("packet %d: %q, want %q\n%q", i+1, where, s.word, s.bytes)
				}
				ids[i], whos[i] = "", ""
				if o.ids != "" {
					ids[i] = f[4]
				}
				if o.who != "" && s.fromClient {
					whos[i] = f[5]
				}
			}
			distinct(t, "tshark", list, ids, whos)
		})
	}
}

// distinct holds ids to one leg of one attempt, and identities to one client.
func distinct(t *testing.T, by string, list []said, ids, whos []string) {
	t.Helper()
	legs, clients := map[string]string{}, map[string]int{}
	for i, s := range list {
		at := fmt.Sprint(s.attempt)
		if was, ok := legs[ids[i]]; ids[i] != "" && ok && was != at {
			t.Errorf("%s: attempts %s and %s share the id %q", by, was, at, ids[i])
		}
		if i > 0 && !s.fromClient && ids[i] != ids[i-1] {
			t.Errorf("%s: packet %d does not answer the one before: ids %q and %q", by, i+1, ids[i], ids[i-1])
		}
		legs[ids[i]] = at
		if whos[i] == "" {
			continue
		}
		if was, ok := clients[whos[i]]; ok && was != s.client {
			t.Errorf("%s: clients %d and %d are both %q", by, was, s.client, whos[i])
		}
		clients[whos[i]] = s.client
	}
	if n := len(clients); n != 0 && n != 3 {
		t.Errorf("%s: 3 clients have %d identities", by, n)
	}
}
