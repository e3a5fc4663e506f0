package headers_test

import (
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect/headers"
)

var filters = []string{
	"ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6", "igmp", "sctp", "esp", "ah",
	"not ip", "tcp or udp", "ip and not tcp", "not (tcp or udp)", "! ip6 && ! arp",
	"port 53", "port domain", "tcp port 80", "udp port 53", "src port 53", "dst port 80", "tcp dst port 80 or 443",
	"portrange 1-1023", "udp portrange 1024-65535", "src portrange 5000-6000", "src and dst port 53", "src or dst port 123",
	"host 10.0.0.1", "src host 192.168.0.1", "dst host 192.168.1.1", "host 192.168.0.1 or 10.0.0.2", "src 10.1.1.1",
	"net 10.0.0.0/8", "net 192.168", "src net 192.168.0.0/16", "dst net 10.0.0.0 mask 255.0.0.0", "ip host 127.0.0.1", "arp host 10.0.0.1",
	"ip6 net fe80::/10", "host ff02::1", "dst net ff00::/8", "src net 2001::/16",
	"ip proto 6", "ip6 proto 58", "proto 17", "ip proto \\tcp", "ip proto 47 or ip proto 4", "ip6 proto 44",
	"greater 100", "less 64", "greater 60 and less 1000", "len > 200", "len - 14 != ip[2:2]",
	"tcp[tcpflags] & (tcp-syn|tcp-ack) != 0", "tcp[tcpflags] & tcp-syn != 0 and tcp[tcpflags] & tcp-ack == 0", "tcp[13] = 18",
	"(tcp[tcpflags] & tcp-rst) != 0", "udp[4:2] > 50", "udp[8:4] & 0xff000000 != 0", "icmp[icmptype] = icmp-echo", "icmp[icmptype] == icmp-unreach and icmp[icmpcode] = 3",
	"icmp6[icmp6type] = 135", "ip[6:2] & 0x3fff != 0", "ip[8] < 64", "ip[0] & 0xf > 5", "ip6[6] = 17", "ether[0] & 1 != 0", "ether[12:2] = 0x8100", "arp[6:2] = 1",
	"(((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)", "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
	"vlan", "vlan and ip", "vlan and vlan", "vlan 100", "not vlan", "vlan and tcp port 80", "tcp or (vlan and tcp)", "vlan and vlan and ip",
	"mpls", "mpls and ip", "mpls and mpls", "mpls 16", "mpls and tcp", "mpls and mpls and ip and icmp",
	"tcp[13] & 2 != 0 or udp or not ip", "not tcp[13] & 2 != 0",
	"ether broadcast", "multicast and not broadcast", "ip multicast", "ip6 multicast", "ether proto 0x88cc", "ether proto \\arp or ether proto 0x8100",
	"ether host 00:1b:21:9a:35:d0", "not ether src 00:00:00:00:00:00", "ether dst ff:ff:ff:ff:ff:ff or icmp", "vlan and ether proto \\ip",
	"not host 10.0.0.1 and not port 80",
}

// differential are captures of many kinds: plain, cut, tagged, labelled,
// fragmented, tunnelled, and of other link types than Ethernet.
var differential = []string{
	"overlay/skype-2015-b.pcap", "attempts/conncheck.pcap", "attempts/synscan.pcap", "attempts/icmp-destunreach-udp.pcap",
	"attempts/mpls-traceroute.pcap", "attempts/vlan-collisions.pcap", "attempts/icmp6-destunreach-ip6ext.pcap",
	"formats/vlan.pcap", "formats/twovlan.pcap", "formats/802.1ad_QinQ.pcap", "formats/mpls_one.cap", "formats/05_mpls_ipv4_tcp_two_labels.pcap",
	"formats/ip4_fragments.pcap", "formats/100_sll.pcap", "formats/01_sll_ipv4_tcp.pcap", "formats/05_sll2_ipv4_tcp.pcap", "formats/linux_dlt_sll2.pcap",
	"formats/teredo.pcap", "formats/arp.pcap", "formats/LINKTYPE_IPV6.pcap", "formats/frag-eth-vlan-ipv6-tcp.pcap", "formats/bug8.pcap",
}

func packetsOf(t *testing.T, src capture.Source, err error) []capture.Packet {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var all []capture.Packet
	for {
		b, err := src.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range b.Packets {
			p.Data = bytes.Clone(p.Data)
			all = append(all, p)
		}
		b.Release()
	}
}

// TestFilterAgainstTcpdump: the same packets pass, in number and content. The
// captures of a link type are one file to tcpdump, since it costs more to start
// than to read.
func TestFilterAgainstTcpdump(t *testing.T) {
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("needs tcpdump in the path (Debian: apt-get install tcpdump)")
	}
	dir := filepath.Join("..", "..", "..", "shared", "captures")
	if names, _ := filepath.Glob(filepath.Join(dir, "formats", "*")); len(names) == 0 {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	files := differential
	if testing.Short() {
		files = files[:4]
	}
	type from struct {
		file  string
		frame int64
	}
	packets, of := map[capture.LinkType][]capture.Packet{}, map[capture.LinkType][]from{}
	for _, file := range files {
		src, err := capture.Open([]string{filepath.Join(dir, file)}, capture.Options{})
		for _, p := range packetsOf(t, src, err) {
			packets[p.Link], of[p.Link] = append(packets[p.Link], p), append(of[p.Link], from{file, p.Frame})
		}
	}
	compared, passed, declined := 0, 0, 0
	for link, all := range packets {
		name := filepath.Join(t.TempDir(), "all.pcap")
		w, err := capture.Create(name, capture.WriterOptions{Format: "pcap"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			if err := w.WritePacket(&all[i], ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, text := range filters {
			e, err := capture.ParseFilter(text)
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			cmd := exec.Command(tcpdump, "-n", "-r", name, "-w", "-", text)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil && out.Len() == 0 {
				declined++ // tcpdump has no VLAN or MPLS, or no ether, on this link type
				continue
			}
			src, err := capture.Open([]string{"-"}, capture.Options{Stdin: &out})
			want := packetsOf(t, src, err)
			var got []int
			for i := range all {
				yes := headers.Match(e, &all[i])
				if yes {
					got = append(got, i)
				}
				if p := program(t, e, link); p.Run(&all[i]) != yes {
					t.Errorf("%v: %q: the compiled filter says %v", of[link][i], text, !yes)
				}
			}
			compared++
			passed += len(got)
			if len(got) != len(want) {
				t.Errorf("%v: %q: %d of %d packets, tcpdump %d", link, text, len(got), len(all), len(want))
			}
			for k, i := range got[:min(len(got), len(want))] {
				if !bytes.Equal(all[i].Data, want[k].Data) {
					t.Errorf("%v: %q: not what tcpdump passes", of[link][i], text)
					break
				}
			}
		}
	}
	t.Logf("%d filters on %d captures of %d link types: %d runs compared, %d packets passed, %d runs declined by tcpdump", len(filters), len(files), len(packets), compared, passed, declined)
	if compared < len(packets)*len(filters)*3/4 {
		t.Errorf("only %d runs could be compared", compared)
	}
}

// programs keeps what program compiles.
var programs = map[capture.Expr]map[capture.LinkType]*capture.FilterProgram{}

func program(t *testing.T, e capture.Expr, link capture.LinkType) *capture.FilterProgram {
	p := programs[e][link]
	if p == nil {
		var err error
		if p, err = capture.CompileFilter(e, link); err != nil {
			t.Fatal(err)
		}
		if programs[e] == nil {
			programs[e] = map[capture.LinkType]*capture.FilterProgram{}
		}
		programs[e][link] = p
	}
	return p
}

// TestFilterShort cuts a packet at every byte: a filter that needs more than
// there is does not pass, negated or not, and nothing fails.
func TestFilterShort(t *testing.T) {
	eth := append(make([]byte, 12), 0x08, 0x00)
	ip := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	tcp := append([]byte{0x1f, 0x90, 0, 80}, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0)
	full := append(append(eth, ip...), tcp...)
	for _, text := range []string{"tcp[13] & 2 != 0", "not tcp[13] & 2 = 0"} {
		e, err := capture.ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(full) + 1 {
			p := capture.Packet{Data: full[:n:n], OrigLen: len(full), Link: capture.LinkEthernet}
			if got, want := headers.Match(e, &p), n > 14+20+13; got != want || program(t, e, p.Link).Run(&p) != want {
				t.Errorf("%q on %d bytes: %v, want %v from both back ends", text, n, got, want)
			}
		}
	}
	for _, text := range filters {
		e, err := capture.ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		p := capture.Packet{Data: full, OrigLen: len(full), Link: capture.LinkEthernet}
		if n := testing.AllocsPerRun(10, func() { headers.Match(e, &p) }); n != 0 {
			t.Errorf("%q: %v allocations", text, n)
		}
	}
}

func FuzzMatch(f *testing.F) {
	for i, text := range filters {
		f.Add(text, []byte(strings.Repeat("\x08\x00\x45", 20)), uint16(i%3))
	}
	f.Fuzz(func(t *testing.T, text string, data []byte, link uint16) {
		e, err := capture.ParseFilter(text)
		if err != nil {
			return
		}
		p := capture.Packet{Data: data, OrigLen: len(data), Link: capture.LinkType(link)}
		got := headers.Match(e, &p)
		if c, err := capture.CompileFilter(e, p.Link); err == nil && c.Run(&p) != got {
			t.Errorf("%q on % x: %v, compiled %v", text, data, got, !got)
		}
	})
}
