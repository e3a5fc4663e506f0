package headers_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect/headers"
)

var randomFilters = flag.Int("filters", 0, "compare with tcpdump over all captures: the filters of TestFilterAgainstTcpdump, and so many random ones")

// mostOfFile bounds the packets that TestFilterEverywhere takes of a capture.
const mostOfFile = 1000

// opaque are link types that squall does not decode and libpcap does: FDDI, 802.11 with
// and without Radiotap and PPI, Linux ATM/ARCNET, Juniper, Solaris IPNET.
var opaque = map[capture.LinkType]bool{10: true, 105: true, 127: true, 129: true, 178: true, 192: true, 226: true}

// TestFilterEverywhere: of all captures, by link type, the same number of packets
// passes, whatever filter the grammar makes.
func TestFilterEverywhere(t *testing.T) {
	if *randomFilters == 0 {
		t.Skip("needs minutes: run it with go test ./dissect/headers -run TestFilterEverywhere -args -filters 200")
	}
	dir := filepath.Join("..", "..", "..", "shared", "captures")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("needs tcpdump in the path (Debian: apt-get install tcpdump)")
	}
	byLink, files := map[capture.LinkType][]capture.Packet{}, 0
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		src, err := capture.Open([]string{path}, capture.Options{})
		if err != nil {
			return nil // no capture, or none that can be read
		}
		defer src.Close()
		files++
		for n := 0; n < mostOfFile; {
			b, err := src.Next()
			if err != nil {
				break
			}
			for _, p := range b.Packets {
				p.Data = bytes.Clone(p.Data)
				if n++; n <= mostOfFile && len(p.Data) <= 1<<16 && p.OrigLen <= 1<<16 {
					byLink[p.Link] = append(byLink[p.Link], p)
				}
			}
			b.Release()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var hosts []netip.Addr
	for _, p := range byLink[capture.LinkEthernet] {
		if len(p.Data) > 34 && p.Data[12] == 8 && p.Data[13] == 0 {
			a, _ := netip.AddrFromSlice(p.Data[26:30])
			hosts = append(hosts, a)
		}
	}
	rng := rand.New(rand.NewPCG(7, 11))
	texts := slices.Clone(filters)
	for range *randomFilters {
		texts = append(texts, randomFilter(rng, hosts, 3))
	}
	compared, passed, declined, unsupported, packets := 0, 0, 0, 0, 0
	for link, all := range byLink {
		if opaque[link] {
			t.Logf("link type %d: %d packets: squall does not look into it", link, len(all))
			continue
		}
		name := filepath.Join(t.TempDir(), "all.pcap")
		var file bytes.Buffer
		w, err := capture.NewWriter(&file, capture.WriterOptions{Format: "pcap"})
		if err != nil {
			t.Fatal(err)
		}
		kept := all[:0:0]
		for i := range all {
			all[i].Time = 1e18
			if w.WritePacket(&all[i], "") == nil {
				kept = append(kept, all[i])
			}
		}
		if err := w.Close(); err != nil || len(kept) == 0 {
			t.Logf("link type %d: %d packets are not compared: %v", link, len(all), err)
			continue
		}
		if err := os.WriteFile(name, file.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		packets += len(kept)
		for _, text := range texts {
			want := passes(t, tcpdump, "-O", name, text)
			refused := want < 0
			e, err := capture.ParseFilter(text)
			switch {
			case refused:
				declined++
				if link == capture.LinkEthernet {
					t.Logf("tcpdump does not take %q", text)
				}
				continue
			case err != nil:
				if link == capture.LinkEthernet {
					t.Logf("%q: %v; tcpdump takes it", text, err)
				}
				unsupported++
				continue
			}
			got, kernel := 0, 0
			p := program(t, e, link)
			for i := range kept {
				if headers.Match(e, &kept[i]) {
					got++
				}
				if p.Run(&kept[i]) {
					kernel++
				}
			}
			compared++
			passed += got
			if got != want {
				// What libpcap's optimizer leaves out cannot lie behind the end of a cut packet.
				want = passes(t, tcpdump, "-n", name, text)
			}
			if got != want || kernel != want {
				t.Errorf("link type %d: %q: %d packets over the headers, %d compiled, tcpdump %d of %d", link, text, got, kernel, want, len(kept))
			}
		}
	}
	t.Logf("%d files, %d packets of %d link types, %d filters: %d runs compared, %d packets passed, %d runs declined by tcpdump, %d by squall", files, packets, len(byLink), len(texts), compared, passed, declined, unsupported)
}

// passes is how many packets of a file tcpdump passes, -1 if it refuses the filter.
func passes(t *testing.T, tcpdump, option, file, filter string) int {
	var out bytes.Buffer
	cmd := exec.Command(tcpdump, option, "-r", file, "-w", "-", filter)
	cmd.Stdout = &out
	if cmd.Run() != nil && out.Len() == 0 {
		return -1
	}
	src, err := capture.Open([]string{"-"}, capture.Options{Stdin: &out})
	return len(packetsOf(t, src, err))
}

// randomFilter is a filter of at most so many levels.
func randomFilter(r *rand.Rand, hosts []netip.Addr, depth int) string {
	of := func(list ...string) string { return list[r.IntN(len(list))] }
	if depth > 0 && r.IntN(3) > 0 {
		a, b := randomFilter(r, hosts, depth-1), randomFilter(r, hosts, depth-1)
		switch r.IntN(5) {
		case 0:
			return "not (" + a + ")"
		case 1:
			return "(" + a + ") and not (" + b + ")"
		case 2:
			return "(" + a + ") or (" + b + ")"
		}
		return "(" + a + ") and (" + b + ")"
	}
	direction := of("", "src ", "dst ", "src or dst ", "src and dst ")
	host := hosts[r.IntN(len(hosts))]
	switch r.IntN(11) {
	case 0:
		return of("ip", "ip6", "arp", "rarp", "tcp", "udp", "icmp", "icmp6", "igmp", "sctp", "esp", "ah", "pim", "vrrp")
	case 1:
		return of("", "ip ", "arp ") + direction + "host " + host.String()
	case 2:
		bits := 1 + r.IntN(32)
		p, _ := host.Prefix(bits)
		return of("", "ip ") + direction + "net " + p.String()
	case 3:
		return of("", "tcp ", "udp ", "sctp ") + direction + "port " + fmt.Sprint([]int{22, 53, 80, 443, 123, 5060, 6881, r.IntN(1 << 16)}[r.IntN(8)])
	case 4:
		low := r.IntN(1 << 16)
		return of("", "tcp ", "udp ") + direction + fmt.Sprintf("portrange %d-%d", low, low+r.IntN(1<<16-low))
	case 5:
		return of("greater ", "less ", "len > ", "len <= ", "len % 4 = ", "len & 15 != ") + fmt.Sprint(r.IntN(1500))
	case 6:
		return fmt.Sprintf("%s[%d:%d] & %#x %s %d", of("ip", "ip6", "tcp", "udp", "icmp", "ether", "arp"), r.IntN(20), 1<<r.IntN(3), r.Uint32()>>r.IntN(24), of("=", "!=", "<", ">", "<=", ">="), r.IntN(256))
	case 7:
		return fmt.Sprintf("%s[%d] %s %s[%d] %s %d", of("ip", "tcp", "udp"), r.IntN(20), of("+", "-", "*", "|", "^", "<<"), of("ip", "tcp"), r.IntN(12), of("=", ">", "<"), r.IntN(1000))
	case 8:
		return of("tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[tcpflags] = tcp-ack|tcp-push", "icmp[icmptype] = icmp-echoreply", "ip proto 2", "ip6 proto 17", "proto 6", "ether proto 0x86dd", "ip[6:2] & 0x1fff = 0")
	case 9:
		return of("ether broadcast", "ether multicast", "ip multicast", "ip6 multicast", "ip broadcast")
	}
	return of("vlan", "mpls", "vlan and ip", "mpls and ip", "vlan "+fmt.Sprint(cmp.Or(r.IntN(200), 1)), "pppoes", "pppoes and ip", strings.TrimSpace(direction+"host fe80::1"), "ip6 net 2001::/16", "ether src 00:1b:21:9a:35:d0")
}
