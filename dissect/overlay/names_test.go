package overlay_test

import (
	"context"
	"encoding/csv"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
)

const captures = "../../../shared/captures"

// named are the captures that are named after a protocol: at least one attempt
// of each must bear the name.
var named = map[string]string{
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

// tshark is what tshark calls the protocols that it knows; a name in any of
// the words of MANIFEST.tsv is right. Those without a word it does not know.
var tshark = map[string][]string{
	"bitcoin":  {"bitcoin"},
	"openvpn":  {"openvpn"},
	"ikev2":    {"isakmp"},
	"mqtt":     {"mqtt"},
	"radius":   {"radius"},
	"dns":      {"dns"},
	"http":     {"http"},
	"tls":      {"tls"},
	"quic":     {"quic"},
	"diameter": {"diameter"},
	"gnutella": {"gnutella"},
}

// disputes are the names that tshark does not give, with the reason why they
// stand. The key is file and protocol.
var disputes = map[string]string{
	"attempts/dns_ipv4_tcp.pcap dns":                                "DNS over TCP 53; the words were taken without putting streams together",
	"formats/grpc_person_search_protobuf_with_image.pcapng.gz http": "the preface of HTTP/2 at a port that tshark does not connect with it",
	"formats/http_ip_fragmented.pcap http":                          "the words were taken without putting fragments together",
	"formats/http_ip_fragmented_out_of_order.pcap http":             "the words were taken without putting fragments together",
	"overlay/ethereum-a.pcap discv4":                                "tshark does not know discv4; the hash of every packet fits",
	"overlay/tailscale_linux.pcap tailscale":                        "tshark 4.0 does not know DISCO; it names the WireGuard beside it",
	"overlay/tinc-55655.pcap tinc":                                  "tshark does not know tinc; ID and METAKEY are in clear",
	"overlay/tor-bl.pcap tor":                                       "tshark says tls, which it is: made-up server names at port 9001",
	"overlay/skype-2006-irc.cap skype":                              "tshark 4.0 asks its Skype dissector only by hand; skype-truth.md has the flows",
	"overlay/skype-2006-udp5.pcap skype":                            "a cut of skype-2006-irc.cap",
	"overlay/skype-2015-b.pcap skype":                               "tshark says tls for the hello that Skype feigns; skype-truth.md has the flows",
	"overlay/openvpn-spicy.pcap openvpn":                            "a sound reset and its answer at port 1198, which tshark does not connect with OpenVPN",
}

// protocolsOf counts the attempts of a capture by the protocol they bear; ok is
// false for a file that holds no packets to read.
func protocolsOf(t *testing.T, path string) (found map[string]int, ok bool) {
	t.Helper()
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		return nil, false
	}
	defer src.Close()
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 1, Protocols: overlay.All()}, src)
	if a == nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer a.Close()
	found = map[string]int{}
	for r := range a.Attempts() {
		found[r.Protocol]++
	}
	return found, true
}

// TestNames runs all protocols over the real captures: files that bear the name
// of a protocol are named so, and nothing is named that tshark disputes, but
// for the table of disputes.
func TestNames(t *testing.T) {
	h, err := os.Open(filepath.Join(captures, "MANIFEST.tsv"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("needs the real captures in shared/captures beside the repository")
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
	column := slices.Index(lines[0], "protocols")
	files, settled := 0, map[string]bool{}
	for _, l := range lines[1:] {
		file := l[0]
		dir, _, _ := strings.Cut(file, "/")
		if dir != "overlay" && dir != "attempts" && dir != "formats" || testing.Short() && dir == "formats" && files%8 != 0 {
			files++
			continue
		}
		files++
		found, ok := protocolsOf(t, filepath.Join(captures, file))
		if !ok {
			continue
		}
		words := strings.FieldsFunc(l[column], func(r rune) bool { return r == ',' || r == ':' })
		for _, name := range slices.Sorted(maps.Keys(found)) {
			known := tshark[name]
			if name == "" || slices.ContainsFunc(known, func(w string) bool { return slices.Contains(words, w) }) {
				continue
			}
			settled[file+" "+name] = true
			if disputes[file+" "+name] == "" {
				t.Errorf("%s: %d attempts named %s; tshark has %s", file, found[name], name, l[column])
			}
		}
		if os.Getenv("SHOW") != "" {
			t.Log(file, found)
		}
		if want := named[file]; want != "" && found[want] == 0 {
			t.Errorf("%s: no attempt is named %s, but %v", file, want, found)
		}
	}
	if testing.Short() {
		return
	}
	for d := range disputes {
		if !settled[d] {
			t.Errorf("the dispute %q is over: take it off the table", d)
		}
	}
}
