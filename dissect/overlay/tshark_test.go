package overlay

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"squall/dissect"
)

// The goldens in testdata/tshark hold what tshark says of real captures, as one
// fact a line: file, frame, word, id and request. They hold no bytes of a
// capture beyond identifiers. The test needs the captures, not tshark; with
// -tshark it asks tshark again and writes them anew.

var askTshark = flag.Bool("tshark", false, "ask tshark, and write the goldens anew")

// comparison is what a dissector of tshark has in common with a protocol.
type comparison struct {
	name   string
	files  []string
	filter string
	decode []string // -d
	fields []string
	// facts words what tshark says; id pairs messages of a flow, to is the frame
	// of the request, both empty where tshark does not say.
	facts func(f []string) []fact
	// ours words a message in the same way; "" = tshark has no word for it.
	ours func(m *heard) string
}

type fact struct{ word, id, to string }

// heard is a message of ours.
type heard struct {
	dissect.Message
	protocol string
	flow     string
	version  string
	client   string
	ja3      string
	used     bool
}

// recorder notes the messages of a protocol by frame.
type recorder struct {
	dissect.Protocol
	mu   *sync.Mutex
	list map[int64][]*heard
}

func (r recorder) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	n, err := r.Protocol.Dissect(d, f, m)
	if err != nil {
		return n, err
	}
	h := &heard{Message: *m, protocol: r.Name(), version: string(m.Version), client: string(m.ClientID)}
	if m.Protocol != "" {
		h.protocol = m.Protocol
	}
	a, b := d.Source().String(), d.Destination().String()
	h.flow = min(a, b) + " " + max(a, b)
	if m.Op == "ClientHello" && n > 9 {
		if hello, _ := ReadClientHello(d.Payload[9:n]); len(hello.Ciphers) > 0 {
			h.ja3 = hello.JA3()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[d.Frame] = append(r.list[d.Frame], h)
	return n, nil
}

func many(f string) []string {
	if f == "" {
		return nil
	}
	return strings.Split(f, ",")
}

// nth is the i-th of several values of a field, or the last.
func nth(f string, i int) string {
	list := many(f)
	if len(list) == 0 {
		return ""
	}
	return list[min(i, len(list)-1)]
}

func opOf(words ...string) func(m *heard) string {
	return func(m *heard) string {
		if slices.Contains(words, m.Op) {
			return m.Op
		}
		return ""
	}
}

var comparisons = []comparison{
	{
		name: "sip", filter: "sip.CSeq.method == REGISTER",
		files:  []string{"lab/sip-registrar-killed-a.pcap", "overlay/sip.pcap", "overlay/sip-cesnet.pcap", "overlay/sip-rtp.pcap", "overlay/sip-tcp.pcap", "overlay/digium.pcap", "overlay/wireshark.pcap"},
		fields: []string{"sip.Method", "sip.Status-Code", "sip.Via.branch", "sip.response-request"},
		facts: func(f []string) (out []fact) {
			word := nth(f[0]+f[1], 0)
			if kind := map[byte]string{'1': "1xx", '2': "yes"}[word[0]]; kind != "" {
				word = kind
			} else if word[0] < 'A' {
				word = "no"
			}
			return append(out, fact{word, nth(f[2], 0), nth(f[3], 0)})
		},
		ours: func(m *heard) string {
			switch m.Kind {
			case dissect.KindAccept:
				return "yes"
			case dissect.KindProgress:
				return "1xx"
			case dissect.KindChallenge, dissect.KindRefuse, dissect.KindThrottle, dissect.KindRedirect, dissect.KindLost:
				return "no"
			}
			return m.Op
		},
	},
	{
		name: "stun", filter: "stun || classicstun", decode: []string{"tcp.port==80,stun"},
		files:  []string{"overlay/stun.pcap", "overlay/stun_classic.pcap", "overlay/stun-ice-testcall.pcap", "overlay/turn.pcap", "overlay/webrtc-stun.pcap", "overlay/stun_signal.pcapng"},
		fields: []string{"stun.type", "classicstun.type", "stun.id", "classicstun.id", "stun.response-to"},
		facts: func(f []string) (out []fact) {
			for i, kind := range many(f[0] + f[1]) {
				word := map[string]string{"0x0001": "Binding", "0x0003": "Allocate", "0x0004": "Refresh", "0x0101": "yes", "0x0103": "yes", "0x0104": "yes", "0x0111": "no", "0x0113": "no", "0x0114": "no"}[kind]
				if word != "" {
					out = append(out, fact{word, nth(f[2]+f[3], i), nth(f[4], i)})
				}
			}
			return out
		},
		ours: func(m *heard) string {
			switch {
			case m.protocol != "stun" || m.Op == "":
				return ""
			case m.Kind == dissect.KindAccept:
				return "yes"
			case m.FromClient:
				return m.Op
			}
			return "no"
		},
	},
	{
		name: "bt-dht", filter: "bt-dht", files: []string{"overlay/bittorrent-dht__input.pcap", "overlay/bittorrent_utp.pcap"},
		fields: []string{"bt-dht.bencoded.string"},
		facts: func(f []string) (out []fact) {
			list := many(f[0])
			field := func(key string) string {
				// The keys of the outer dictionary come after those of the inner one.
				for i := len(list) - 2; i >= 0; i-- {
					if list[i] == key {
						return list[i+1]
					}
				}
				return ""
			}
			if field("y") == "" { // of an error it reads the list alone
				return append(out, fact{word: "e"})
			}
			return append(out, fact{word: field("y"), id: field("t")})
		},
		ours: func(m *heard) string {
			switch m.Kind {
			case dissect.KindRequest, dissect.KindRefresh:
				return "q"
			case dissect.KindAccept:
				return "r"
			case dissect.KindRefuse:
				return "e"
			}
			return ""
		},
	},
	{
		name: "bt-utp", filter: "bt-utp.type == 3 || bt-utp.type == 4", files: []string{"overlay/bittorrent_utp.pcap"}, decode: []string{"udp.port==40959,bt-utp"},
		fields: []string{"bt-utp.type", "bt-utp.connection_id"},
		facts: func(f []string) (out []fact) {
			return append(out, fact{word: map[string]string{"3": "RESET", "4": "SYN"}[f[0]]})
		},
		ours: opOf("SYN", "RESET"),
	},
	{
		name: "bittorrent", filter: "bittorrent.peer_id", files: []string{"overlay/bt-tcp.pcap"},
		fields: []string{"bittorrent.info_hash", "bittorrent.peer_id"},
		facts:  func(f []string) (out []fact) { return append(out, fact{word: "handshake"}) },
		ours: func(m *heard) string {
			if m.Kind == dissect.KindRequest || m.Kind == dissect.KindAccept {
				return "handshake"
			}
			return ""
		},
	},
	{
		name: "wireguard", filter: "wg.type < 4", files: []string{"overlay/WireGuard.pcap", "overlay/wireguard-ping-tcp.pcap", "overlay/wireguard-spicy.pcap", "overlay/tailscale_linux.pcap"},
		fields: []string{"wg.type", "wg.sender", "wg.receiver", "wg.response_to"},
		facts: func(f []string) (out []fact) {
			id := f[1]
			if f[2] != "" {
				id = f[2]
			}
			return append(out, fact{map[string]string{"1": "initiation", "2": "response", "3": "cookie reply"}[f[0]], id, f[3]})
		},
		ours: func(m *heard) string {
			return strings.TrimSuffix(opOf("initiation", "initiation with cookie", "response", "cookie reply")(m), " with cookie")
		},
	},
	{
		name: "bitcoin", filter: "bitcoin.command", files: []string{"overlay/bitcoin-peafowl.pcap"},
		fields: []string{"bitcoin.command"},
		facts: func(f []string) (out []fact) {
			for _, c := range many(f[0]) {
				if c != "version" && c != "verack" {
					c = "other"
				}
				out = append(out, fact{word: c})
			}
			return out
		},
		ours: func(m *heard) string {
			if m.Op == "version" || m.Op == "verack" {
				return m.Op
			}
			return "other"
		},
	},
	{
		// tshark 4.0 reads the DHT of Gnutella (Mojito). Its Gnutella over TCP takes the
		// handshake for a download and what is deflated for headers, so there it gives
		// the frames and their bytes, and the words are the lines in them: who spoke
		// first in a connection asked, the second answered, the third is a thank-you.
		name: "gnutella", filter: "mojito || tcp.payload[0:8] == 47:4e:55:54:45:4c:4c:41",
		files:  []string{"overlay/gnutella-ndpi.pcap"},
		fields: []string{"mojito.opcode", "mojito.messageid", "tcp.payload"},
		facts: func(f []string) (out []fact) {
			if f[0] != "" {
				word := "DHT question"
				if op, err := strconv.Atoi(f[0]); err != nil || op%2 == 0 {
					word = "DHT answer"
				}
				return append(out, fact{word: word, id: f[1]})
			}
			line, _, _ := strings.Cut(unhex(f[2]), "\n")
			if strings.Contains(line, "CONNECT") {
				return append(out, fact{word: "CONNECT"})
			}
			if strings.Fields(line)[1] == "200" {
				return append(out, fact{word: "200"})
			}
			return append(out, fact{word: "no"})
		},
		ours: func(m *heard) string {
			switch {
			case m.Op == "DHT" && m.Kind == dissect.KindAccept:
				return "DHT answer"
			case m.Op == "DHT":
				return "DHT question"
			case m.Op == "CONNECT", m.Op == "200":
				return m.Op
			case m.Op == "thanks":
				return "200"
			case m.Op == "503", m.Op == "elsewhere", m.Op == "no":
				return "no"
			}
			return ""
		},
	},
	{
		name: "tls", filter: "tls.handshake.type == 1 || tls.handshake.type == 2",
		files:  []string{"formats/dhe1.pcapng.gz", "formats/bets.pcapng", "formats/ja3_lots_of_cipher_suites_2_anon.pcap", "overlay/tor-bl.pcap", "formats/pppoe.pcap", "formats/ndpi__vxlan.pcap"},
		fields: []string{"tls.handshake.type", "tls.handshake.ja3"},
		facts: func(f []string) (out []fact) {
			for _, kind := range many(f[0]) {
				switch kind {
				case "1":
					out = append(out, fact{word: "ClientHello " + nth(f[1], 0)})
				case "2":
					out = append(out, fact{word: "ServerHello"})
				}
			}
			return out
		},
		ours: func(m *heard) string {
			switch m.Op {
			case "ClientHello":
				return "ClientHello " + m.ja3
			case "ServerHello":
				return m.Op
			}
			return ""
		},
	},
	{
		name: "quic", filter: "quic && (tls.handshake.type == 1 || quic.long.packet_type == 3 || quic.long.packet_type_v2 == 0)", files: []string{"formats/quic-v2.pcapng", "formats/quic-fragmented-handshakes.pcapng.gz"},
		fields: []string{"tls.handshake.type", "tls.handshake.ja3"},
		facts: func(f []string) (out []fact) {
			if f[0] != "" {
				return append(out, fact{word: "Initial"})
			}
			return append(out, fact{word: "Retry"})
		},
		ours: func(m *heard) string {
			if m.Op == "Initial" && m.Kind == dissect.KindProgress && !m.FromClient {
				return "" // the server's
			}
			return opOf("Initial", "Retry")(m)
		},
	},
	{
		name: "skype", filter: "skype.som.type == 3 || skype.som.type == 7", files: []string{"overlay/skype-2006-irc.cap", "overlay/skype-2006-udp5.pcap"}, decode: []string{"udp.port==35990,skype"},
		fields: []string{"skype.som.type", "skype.som.id"},
		facts: func(f []string) (out []fact) {
			return append(out, fact{word: map[string]string{"0x03": "resend", "0x07": "nack"}[f[0]]})
		},
		ours: opOf("resend", "nack"),
	},
}

// said reads the golden of a comparison: file to frame to facts.
func said(t *testing.T, c *comparison) map[string]map[int64][]fact {
	t.Helper()
	path := filepath.Join("testdata", "tshark", c.name+".tsv")
	if *askTshark {
		c.ask(t, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./dissect/overlay -run Tshark -tshark writes it", err)
	}
	out := map[string]map[int64][]fact{}
	for _, l := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		f := strings.Split(l, "\t")
		if strings.HasPrefix(l, "#") || len(f) != 5 {
			continue
		}
		frame, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			t.Fatalf("%s: %q", path, l)
		}
		if out[f[0]] == nil {
			out[f[0]] = map[int64][]fact{}
		}
		out[f[0]][frame] = append(out[f[0]][frame], fact{f[2], f[3], f[4]})
	}
	return out
}

// ask writes the golden.
func (c *comparison) ask(t *testing.T, path string) {
	t.Helper()
	program, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("needs tshark (Debian: apt-get install tshark)")
	}
	version, err := exec.Command(program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(version))
	var out strings.Builder
	fmt.Fprintf(&out, "# %s %s, filter %s", "tshark", words[2], c.filter)
	for _, d := range c.decode {
		fmt.Fprintf(&out, ", -d %s", d)
	}
	out.WriteString("\n# file\tframe\tword\tid\trequest\n")
	for _, file := range c.files {
		args := []string{"-n", "-r", filepath.Join("..", "..", "..", "shared", "captures", file), "-Y", "(" + c.filter + ") && !icmp && !icmpv6", "-T", "fields", "-E", "separator=/t", "-e", "frame.number"}
		for _, d := range c.decode {
			args = append(args, "-d", d)
		}
		for _, f := range c.fields {
			args = append(args, "-e", f)
		}
		b, err := exec.Command(program, args...).Output()
		if err != nil {
			t.Fatalf("tshark %v: %v", args, err)
		}
		for _, l := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
			f := strings.Split(l, "\t")
			if len(f) != len(c.fields)+1 {
				continue
			}
			for _, x := range c.facts(f[1:]) {
				fmt.Fprintf(&out, "%s\t%s\t%s\t%s\t%s\n", file, f[0], x.word, x.id, x.to)
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTshark: where tshark has the dissector, the same messages are found in the
// same frames, and answers pair with the same requests.
func TestTshark(t *testing.T) {
	for i := range comparisons {
		c := &comparisons[i]
		t.Run(c.name, func(t *testing.T) { c.compare(t) })
	}
}

func (c *comparison) compare(t *testing.T) {
	golden := said(t, c)
	equal, paired := 0, 0
	for _, file := range c.files {
		src, _ := real(t, file)
		r := recorder{mu: new(sync.Mutex), list: map[int64][]*heard{}}
		var protocols []dissect.Protocol
		for _, p := range All() {
			protocols = append(protocols, recorder{p, r.mu, r.list})
		}
		analyse(t, src, protocols)
		txns, ids := map[string]uint64{}, map[string]string{}
		one := func(frame int64, word string) *heard {
			for _, m := range r.list[frame] {
				if !m.used && c.of(m) == word {
					m.used = true
					return m
				}
			}
			return nil
		}
		frames := make([]int64, 0, len(golden[file]))
		for f := range golden[file] {
			frames = append(frames, f)
		}
		slices.Sort(frames)
		found := map[int64]*heard{}
		for _, frame := range frames {
			for _, x := range golden[file][frame] {
				if why := tsharkDiffers[fmt.Sprintf("%s %d %s", file, frame, x.word)]; why != "" {
					continue
				}
				m := one(frame, x.word)
				if m == nil {
					var has []string
					for _, m := range r.list[frame] {
						has = append(has, m.protocol+" "+m.Kind.String()+" "+m.Op)
					}
					t.Errorf("%s frame %d: tshark has %q, we %q", file, frame, x.word, has)
					continue
				}
				equal++
				found[frame] = m
				if to, err := strconv.ParseInt(x.to, 10, 64); err == nil && found[to] != nil {
					if q := found[to]; q.Txn != m.Txn && (q.Chain == 0 || q.Chain != m.Chain) {
						t.Errorf("%s frame %d: tshark pairs it with frame %d, we do not", file, frame, to)
					}
					paired++
				}
				if x.id == "" {
					continue
				}
				theirs, ours := m.flow+" "+x.id, fmt.Sprintf("%s %x", m.flow, m.Txn)
				if m.Kind == dissect.KindRequest || m.Kind == dissect.KindRefresh {
					if old, ok := txns[theirs]; ok && old != m.Txn { // an id that was used before
						delete(ids, fmt.Sprintf("%s %x", m.flow, old))
						delete(txns, theirs)
					}
				}
				if old, ok := txns[theirs]; ok && old != m.Txn {
					t.Errorf("%s frame %d: id %s was another transaction before", file, frame, x.id)
				}
				if old, ok := ids[ours]; ok && old != x.id {
					t.Errorf("%s frame %d: one transaction for the ids %s and %s", file, frame, old, x.id)
				}
				txns[theirs], ids[ours] = m.Txn, x.id
			}
		}
		for frame, list := range r.list {
			for _, m := range list {
				if w := c.of(m); !m.used && w != "" && w != "other" && tsharkDiffers[fmt.Sprintf("%s %d %s", file, frame, w)] == "" {
					t.Errorf("%s frame %d: we have %s %q, tshark %v", file, frame, m.Kind, w, golden[file][frame])
				}
			}
		}
	}
	if equal == 0 {
		t.Errorf("nothing was compared")
	}
	t.Logf("%d messages equal, %d pairs", equal, paired)
}

func (c *comparison) of(m *heard) string {
	if m.protocol != c.name && (c.name != "tls" || m.protocol != "tor") {
		return ""
	}
	return c.ours(m)
}

// tsharkDiffers are the facts in which we differ, with the reason; the key is
// file, frame and word.
var tsharkDiffers = map[string]string{
	"overlay/bittorrent-dht__input.pcap 14 r":                 "frame 12 again after 2 ms: a tap's duplicate, rule 18",
	"formats/quic-fragmented-handshakes.pcapng.gz 3 Initial":  first,
	"formats/quic-fragmented-handshakes.pcapng.gz 5 Initial":  first,
	"formats/quic-fragmented-handshakes.pcapng.gz 16 Initial": first,
	"overlay/bitcoin-peafowl.pcap 4 version":                  unsummed,
	"overlay/bitcoin-peafowl.pcap 5 version":                  unsummed,
	"overlay/bitcoin-peafowl.pcap 7 version":                  unsummed,
	"overlay/bitcoin-peafowl.pcap 7 verack":                   unsummed,
	"overlay/bitcoin-peafowl.pcap 19 version":                 unsummed,
	"overlay/bitcoin-peafowl.pcap 19 verack":                  unsummed,
	"overlay/bittorrent-dht__input.pcap 15 q":                 "malformed, as the node says in its answer",
	"overlay/gnutella-ndpi.pcap 817 DHT question":             vpnPort,
	"overlay/gnutella-ndpi.pcap 821 DHT answer":               vpnPort,
	"overlay/gnutella-ndpi.pcap 1959 DHT question":            vpnPort,
	"overlay/gnutella-ndpi.pcap 1962 DHT answer":              vpnPort,
	"overlay/gnutella-ndpi.pcap 2249 DHT question":            vpnPort,
	"overlay/gnutella-ndpi.pcap 2253 DHT answer":              vpnPort,
	"overlay/gnutella-ndpi.pcap 2353 DHT question":            vpnPort,
	"overlay/gnutella-ndpi.pcap 2355 DHT answer":              vpnPort,
	"overlay/gnutella-ndpi.pcap 2388 DHT question":            vpnPort,
	"overlay/gnutella-ndpi.pcap 2391 DHT answer":              vpnPort,
}

const (
	first    = "a ClientHello over several datagrams: we count the first, tshark the one that completes it"
	vpnPort  = "a peer at the port of OpenVPN, for which tshark takes it"
	unsummed = "of 2011, without checksum: tshark takes four bytes of the payload for one and loses the count"
)
