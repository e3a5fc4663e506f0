package overlay_test

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
)

const captures = "../../../shared/captures"

// named are the captures that are named after a protocol: at least one attempt
// of each must bear the name.
var named = map[string]string{
	"overlay/WireGuard.pcap":                       "wireguard",
	"overlay/wireguard-ping-tcp.pcap":              "wireguard",
	"overlay/wireguard-spicy.pcap":                 "wireguard",
	"lab/n2n1-register.pcap":                       "n2n",
	"lab/n2n3-nak.pcap":                            "n2n",
	"lab/n2n3-register.pcap":                       "n2n",
	"lab/n2n3-supernode-loss-a.pcap":               "n2n",
	"lab/nebula-lighthouse.pcap":                   "nebula",
	"lab/nebula-lighthouses-killed-a.pcap":         "nebula",
	"lab/sip-registrar-killed-a.pcap":              "sip",
	"overlay/bittorrent-dht__input.pcap":           "bt-dht",
	"overlay/bittorrent_utp.pcap":                  "bt-utp",
	"overlay/bt-tcp.pcap":                          "bittorrent",
	"overlay/bt-http.pcapng":                       "bt-tracker",
	"overlay/tracker.pcap":                         "bt-tracker",
	"overlay/edonkey.pcap":                         "edonkey",
	"overlay/max-header.pcapng":                    "gnutella",
	"overlay/max-line.pcapng":                      "gnutella",
	"overlay/sip-cesnet.pcap":                      "sip",
	"overlay/sip-rtp.pcap":                         "sip",
	"overlay/sip-tcp.pcap":                         "sip",
	"overlay/sip.pcap":                             "sip",
	"overlay/digium.pcap":                          "sip",
	"overlay/ipip0.pcap":                           "sip",
	"overlay/wireshark.pcap":                       "sip",
	"overlay/stun-ice-testcall.pcap":               "stun",
	"overlay/stun.pcap":                            "stun",
	"overlay/stun_classic.pcap":                    "stun",
	"overlay/stun_signal.pcapng":                   "stun",
	"overlay/turn.pcap":                            "stun",
	"overlay/webrtc-stun.pcap":                     "stun",
	"overlay/bitcoin-peafowl.pcap":                 "bitcoin",
	"overlay/openvpn-spicy.pcap":                   "openvpn",
	"overlay/bt-dns.pcap":                          "dns",
	"overlay/skype-2006-irc.cap":                   "skype",
	"overlay/skype-2006-udp5.pcap":                 "skype",
	"overlay/skype-2015-b.pcap":                    "skype",
	"overlay/gnutella-ndpi.pcap":                   "gnutella",
	"overlay/ethereum-a.pcap":                      "discv4",
	"overlay/tailscale_linux.pcap":                 "tailscale",
	"overlay/tinc-55655.pcap":                      "tinc",
	"overlay/tor-bl.pcap":                          "tor",
	"formats/quic-v2.pcapng":                       "quic",
	"formats/quic-fragmented-handshakes.pcapng.gz": "quic",
	"overlay/ethereum-js-http.pcap":                "http",
	"formats/dns.pcap":                             "dns",
	"formats/dns-udp.pcap":                         "dns",
	"formats/http_head.pcapng.gz":                  "http",
	"formats/http_ip_fragmented.pcap":              "http",
	"formats/simple_http_sll2.pcap":                "http",
	"attempts/dns_ipv4_tcp.pcap":                   "dns",
	"attempts/dns_udp_mixed_rcode.pcap":            "dns",
}

// calls are the captures that bear the name of a protocol and hold sessions of
// it alone, nobody who attaches: they have no attempts, but each packet is known.
var calls = map[string]string{
	"overlay/sip_reqs.pcap": "sip", // INVITE, CANCEL, ACK, BYE
}

// tshark is what tshark calls the protocols that it knows; a name in any of
// the words of MANIFEST.tsv is right. Those without a word it does not know.
var tshark = map[string][]string{
	"bittorrent": {"bittorrent"},
	"bt-dht":     {"bt-dht"},
	"bt-tracker": {"http", "bt-tracker"},
	"bt-utp":     {"bt-utp"},
	"sip":        {"sip"},
	"stun":       {"stun", "classicstun"},
	"wireguard":  {"wg"},
	"bitcoin":    {"bitcoin"},
	"openvpn":    {"openvpn"},
	"ikev2":      {"isakmp"},
	"mqtt":       {"mqtt"},
	"radius":     {"radius"},
	"coap":       {"coap"},
	"dns":        {"dns"},
	"http":       {"http"},
	"tls":        {"tls"},
	"quic":       {"quic"},
	"gquic":      {"gquic"},
	"diameter":   {"diameter"},
	"gnutella":   {"gnutella"},
}

// disputes are the names that tshark does not give, with the reason why they
// stand. The key is file and protocol.
var disputes = map[string]string{
	"attempts/dns_ipv4_tcp.pcap dns":                                "DNS over TCP 53; the words were taken without putting streams together",
	"formats/grpc_person_search_protobuf_with_image.pcapng.gz http": "the preface of HTTP/2 at a port that tshark does not connect with it",
	"formats/http_ip_fragmented.pcap http":                          "the words were taken without putting fragments together",
	"formats/http_ip_fragmented_out_of_order.pcap http":             "the words were taken without putting fragments together",
	"overlay/ethereum-a.pcap rlpx":                                  "tshark and nDPI do not know RLPx apart from discv4; length and point of the first message fit, at port 30303",
	"overlay/edonkey.pcap edonkey":                                  "port 7551; tshark sees it when told so, -d tcp.port==7551,edonkey",
	"overlay/skype-2006-irc.cap ares":                               "tshark does not know Ares; skype-truth.md has the flows",
	"overlay/skype-2006-irc.cap fasttrack":                          "tshark does not know FastTrack; skype-truth.md has the flows",
	"overlay/ethereum-a.pcap discv4":                                "tshark does not know discv4; the hash of every packet fits",
	"overlay/tailscale_linux.pcap tailscale":                        "tshark 4.0 does not know DISCO; it names the WireGuard beside it",
	"overlay/tinc-55655.pcap tinc":                                  "tshark does not know tinc; ID and METAKEY are in clear",
	"overlay/tor-bl.pcap tor":                                       "tshark says tls, which it is: made-up server names at port 9001",
	"overlay/skype-2006-irc.cap skype":                              "tshark 4.0 asks its Skype dissector only by hand; skype-truth.md has the flows",
	"overlay/skype-2006-udp5.pcap skype":                            "a cut of skype-2006-irc.cap",
	"overlay/skype-2015-b.pcap skype":                               "tshark says tls for the hello that Skype feigns; skype-truth.md has the flows",
	"overlay/turn.pcap stun":                                        "TURN at TCP port 80; tshark sees it when told so, -d tcp.port==80,stun",
	"overlay/bittorrent_utp.pcap bt-utp":                            "a SYN and its STATE between queries of the DHT; tshark sees them when told so, -d udp.port==40959,bt-utp",
	"overlay/openvpn-spicy.pcap openvpn":                            "a sound reset and its answer at port 1198, which tshark does not connect with OpenVPN",
}

// ndpi is what nDPI calls the overlays that it knows; the carriers are not among
// them, for it names what they carry.
var ndpi = map[string][]string{
	"bittorrent": {"BitTorrent"}, "bt-dht": {"BitTorrent"}, "bt-tracker": {"BitTorrent"}, "bt-utp": {"BitTorrent"},
	"edonkey": {"eDonkey"}, "kad": {"eDonkey"}, "gnutella": {"Gnutella"},
	"discv4": {"ETHEREUM"}, "discv5": {"ETHEREUM"}, "rlpx": {"ETHEREUM"},
	"bitcoin": {"BITCOIN"}, "sip": {"SIP"}, "stun": {"STUN", "SignalVoip", "WhatsAppCall"}, "tinc": {"TINC"}, "wireguard": {"WireGuard"},
	"skype": {"Skype_Teams"}, "openvpn": {"OpenVPN"}, "tor": {"Tor"}, "tailscale": {"Tailscale"}, "mqtt": {"MQTT"},
	"ikev2": {"IPSec"}, "radius": {"Radius"}, "coap": {"COAP"}, "diameter": {"Diameter"}, "nats": {"NATS"}, "zerotier": {"ZeroTier"},
	"n2n": {}, "nebula": {}, "libp2p": {}, "derp": {}, "fasttrack": {}, "ares": {}, "yggdrasil": {}, "syncthing": {"Syncthing"},
}

// ndpiDisputes are the names that nDPI does not give, as disputes.
var ndpiDisputes = map[string]string{
	"overlay/stun_classic.pcap stun": "one flow of classic STUN and the RTP after it, by which nDPI names the flow",
}

// ndpiSays reads testdata/ndpi.tsv: the protocols that nDPI finds in captures of
// its own tests, which some of ours are.
func ndpiSays(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/ndpi.tsv")
	if err != nil {
		t.Fatal(err)
	}
	says := map[string][]string{}
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if file, list, ok := strings.Cut(l, "\t"); ok && l[0] != '#' {
			says[file] = strings.Split(list, ",")
		}
	}
	return says
}

// attemptsOf hands out the attempts of a capture; false for a file that holds
// no packets to read.
func attemptsOf(t *testing.T, path string, f func(*dissect.Attempt)) bool {
	t.Helper()
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		return false
	}
	defer src.Close()
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 1, Protocols: overlay.All()}, src)
	if a == nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer a.Close()
	for r, err := range a.Attempts() {
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		f(r)
	}
	return true
}

// told are what the attempts of some captures must be: those of a protocol, in
// the order of their starts, as "op outcome evidence role client version".
var told = map[string][]string{
	"overlay/bitcoin-peafowl.pcap bitcoin": {"version accepted app peer 192.168.1.142 "},
	"overlay/openvpn-spicy.pcap openvpn":   {"HARD_RESET accepted app supernode 192.168.88.3 "},
	"overlay/tinc-55655.pcap tinc":         {"ID accepted app peer tinc:think 17"},
	"overlay/tor-bl.pcap tor": {
		"ClientHello accepted app supernode 192.168.1.2 t13d181100_6c2ba73853a4_24695f2957a7",
		"ClientHello accepted app supernode 192.168.1.2 t13d181100_6c2ba73853a4_24695f2957a7"},
	"overlay/bt-dns.pcap dns":            {"A accepted app unknown 10.0.2.15 "},
	"overlay/ethereum-js-http.pcap http": {"POST accepted app unknown 127.0.0.1 curl/7.56.1"},
	"overlay/tailscale_linux.pcap tailscale": {
		"ping timeout silence peer tailscale:b6847dd212ae777bfae214b36d0d971152f0c7e0524e0c28b0a0105b5fa61617 ",
		"ping accepted app peer tailscale:6f6a2376dac50eeee3dd14ec0a9e8e299c2a2f054088d36915ba030791bad076 "},
	"lab/n2n1-register.pcap n2n": {"REGISTER accepted app supernode n2n:1e2d1fe9b125 ", "REGISTER accepted app supernode n2n:1e2d1fe9b125 ",
		"REGISTER refused icmp supernode n2n:1e2d1fe9b125 ", "REGISTER refused icmp supernode n2n:1e2d1fe9b125 "},
	"lab/nebula-lighthouse.pcap nebula": {"Handshake refused icmp supernode nebula:node7 ", "Handshake refused icmp supernode nebula:node7 ",
		"Handshake accepted app supernode nebula:node7 ", "Test accepted app supernode nebula:node7 ", "Test accepted app supernode nebula:node7 ",
		"Handshake refused icmp supernode nebula:node7 ", "Handshake refused icmp supernode nebula:node7 ", "Handshake accepted app supernode nebula:node7 "},
	"overlay/WireGuard.pcap wireguard":        {"initiation accepted app supernode 10.9.0.1 "},
	"overlay/stun_classic.pcap stun":          {"Binding accepted app bootstrap 172.16.63.224 "},
	"overlay/turn.pcap stun":                  {"Allocate accepted app relay 192.168.1.75 "},
	"formats/quic-v2.pcapng quic":             {"Initial accepted app unknown ::1 q13d0310h3_55b375c5d22e_0a3b52e28cea"},
	"formats/dhe1.pcapng.gz tls":              {"ClientHello accepted app unknown 127.0.0.1 t10i510300_54da1506f81e_990b54203475"},
	"formats/websocket-ping__input.pcap http": {"GET accepted app unknown 127.0.0.1 "},
}

// TestTold compares the first attempts of some captures field by field.
func TestTold(t *testing.T) {
	if _, err := os.Stat(captures); err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	for key, want := range told {
		file, protocol, _ := strings.Cut(key, " ")
		var got []string
		ok := attemptsOf(t, filepath.Join(captures, file), func(r *dissect.Attempt) {
			if r.Protocol == protocol && len(got) < len(want) {
				got = append(got, fmt.Sprintf("%s %s %s %s %s %s", r.Op, r.Outcome, r.Evidence, r.Role, r.ClientID, r.ClientVersion))
			}
		})
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

// TestCalls: a capture without an attach gives no rows, and not for want of
// knowing the protocol.
func TestCalls(t *testing.T) {
	for file, want := range calls {
		path := filepath.Join(captures, file)
		if _, err := os.Stat(path); err != nil {
			t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
		}
		attemptsOf(t, path, func(r *dissect.Attempt) { t.Errorf("%s: an attempt: %s %s", file, r.Protocol, r.Op) })
		src, err := capture.Open([]string{path}, capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		var dec headers.Decoder
		packets := 0
		for {
			b, err := src.Next()
			if err != nil {
				break
			}
			for i := range b.Packets {
				var d dissect.Datagram
				dec.Decode(&b.Packets[i], &d)
				packets++
				first := slices.IndexFunc(overlay.All(), func(p dissect.Protocol) bool {
					return p.Transports()&dissect.UDP != 0 && p.Probe(&d) == dissect.Yes
				})
				if first < 0 || overlay.All()[first].Name() != want {
					t.Errorf("%s frame %d: not known as %s", file, d.Frame, want)
				}
			}
			b.Release()
		}
		if packets == 0 {
			t.Errorf("%s: no packets", file)
		}
	}
}

// TestNames runs all protocols over the real captures: files that bear the name
// of a protocol are named so, and nothing is named that tshark or nDPI disputes,
// but for the tables of disputes.
func TestNames(t *testing.T) {
	if testing.Short() {
		t.Skip("needs minutes under the race detector, on one core, to read 700 captures: run it without -short")
	}
	h, err := os.Open(filepath.Join(captures, "MANIFEST.tsv"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	r := csv.NewReader(h)
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range overlay.All() {
		names = append(names, p.Name())
	}
	column := slices.Index(lines[0], "protocols")
	settled, says := map[string]bool{}, ndpiSays(t)
	for _, l := range lines[1:] {
		file := l[0]
		dir, _, _ := strings.Cut(file, "/")
		if dir != "overlay" && dir != "attempts" && dir != "formats" && dir != "hostile" {
			continue
		}
		found := map[string]int{}
		if !attemptsOf(t, filepath.Join(captures, file), func(r *dissect.Attempt) { found[r.Protocol]++ }) || dir == "hostile" {
			continue // of the hostile ones it is enough that they are survived
		}
		words := strings.FieldsFunc(l[column], func(r rune) bool { return r == ',' || r == ':' })
		for _, name := range slices.Sorted(maps.Keys(found)) {
			if list, ok := says[file]; ok {
				if words, overlay := ndpi[name]; overlay && !slices.ContainsFunc(words, func(w string) bool { return slices.Contains(list, w) }) {
					settled["ndpi "+file+" "+name] = true
					if ndpiDisputes[file+" "+name] == "" {
						t.Errorf("%s: %d attempts named %s; nDPI has %v", file, found[name], name, list)
					}
				}
			}
			known := tshark[name]
			if name == "" || slices.ContainsFunc(known, func(w string) bool { return slices.Contains(words, w) }) {
				continue
			}
			settled[file+" "+name] = true
			if disputes[file+" "+name] == "" {
				t.Errorf("%s: %d attempts named %s; tshark has %s", file, found[name], name, l[column])
			}
		}
		if want := named[file]; want != "" && slices.Contains(names, want) && found[want] == 0 {
			t.Errorf("%s: no attempt is named %s, but %v", file, want, found)
		}
	}
	// The captures of our own are not in the list: they hold one protocol each,
	// and one of them a SYN that nobody answered.
	for file, want := range named {
		if !strings.HasPrefix(file, "lab/") || !slices.Contains(names, want) {
			continue
		}
		found := map[string]int{}
		attemptsOf(t, filepath.Join(captures, file), func(r *dissect.Attempt) { found[r.Protocol]++ })
		delete(found, "")
		if found[want] == 0 || len(found) > 1 {
			t.Errorf("%s: %v, want %s alone", file, found, want)
		}
	}
	if testing.Short() {
		return
	}
	for d := range ndpiDisputes {
		if !settled["ndpi "+d] {
			t.Errorf("the dispute %q with nDPI is over: take it off the table", d)
		}
	}
	for d := range disputes {
		if !settled[d] {
			t.Errorf("the dispute %q is over: take it off the table", d)
		}
	}
}
