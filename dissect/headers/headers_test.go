package headers_test

import (
	"encoding/csv"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
	"squall/samples"
)

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	macs = "020000000001 020000000002"
	ip4  = "45000028 00010000 4006 0000 c0000201 c0000202" // 192.0.2.1 > .2, TCP
	ip6  = "60000000 0014 06 40 20010db8000000000000000000000001 20010db8000000000000000000000002"
	seg  = "04d2 0050 00000064 00000000 5002 ffff 0000 0000" // 1234 > 80, SYN, seq 100
)

// udp wraps an innermost packet into IPv4 and UDP.
func udp(port, inner string) string {
	n := len(strings.Join(strings.Fields(inner), ""))/2 + 8
	return "4500" + hex4(n+20) + "0002 0000 4011 0000 cb007101 cb007102 1000" + port + hex4(n) + "0000" + inner
}

func ip(proto, inner string) string {
	n := len(strings.Join(strings.Fields(inner), "")) / 2
	return "4500" + hex4(n+20) + "0002 0000 40" + proto + "0000 cb007101 cb007102" + inner
}

func hex4(n int) string { return hex.EncodeToString([]byte{byte(n >> 8), byte(n)}) }

// stacks are link layers and tunnels around the same SYN.
var stacks = []struct {
	name   string
	link   capture.LinkType
	bytes  string
	tunnel dissect.Tunnel
	id     uint32
	vlan   uint16
}{
	{"ethernet", 1, macs + "0800" + ip4 + seg, 0, 0, 0},
	{"ethernet v6", 1, macs + "86dd" + ip6 + seg, 0, 0, 0},
	{"vlan", 1, macs + "8100 0064 0800" + ip4 + seg, 0, 0, 100},
	{"qinq", 1, macs + "88a8 0001 8100 0002 0800" + ip4 + seg, 0, 0, 2},
	{"snap", 1, macs + "0030 aaaa03 000000 0800" + ip4 + seg, 0, 0, 0},
	{"fabricpath", 1, "0200abd00000 0200abc00000 8903 4020" + macs + "8100 0007 0800" + ip4 + seg, 0, 0, 7},
	{"security group", 1, macs + "8909 01 01 0001 0002 0800" + ip4 + seg, 0, 0, 0},
	{"vn-tag", 1, macs + "8926 80010002 8100 0007 0800" + ip4 + seg, 0, 0, 7},
	{"802.1br", 1, macs + "893f 000110020000 0800" + ip4 + seg, 0, 0, 0},
	{"hsr", 1, macs + "892f 00320001 0800" + ip4 + seg, 0, 0, 0},
	{"sll", 113, "0000 0001 0006 020000000001 0000 0800" + ip4 + seg, 0, 0, 0},
	{"sll2", 276, "0800 0000 00000001 0001 00 06 0200000000010000" + ip4 + seg, 0, 0, 0},
	{"raw", 101, ip4 + seg, 0, 0, 0},
	{"raw v6", 101, ip6 + seg, 0, 0, 0},
	{"ipv4", 228, ip4 + seg, 0, 0, 0},
	{"ipv6", 229, ip6 + seg, 0, 0, 0},
	{"null little", 0, "02000000" + ip4 + seg, 0, 0, 0},
	{"null big", 0, "0000001e" + ip6 + seg, 0, 0, 0},
	{"loop", 108, "00000002" + ip4 + seg, 0, 0, 0},
	{"ppp", 9, "0021" + ip4 + seg, 0, 0, 0},
	{"ppp hdlc", 50, "ff03 0057" + ip6 + seg, 0, 0, 0},
	{"ppp short protocol", 50, "ff03 21" + ip4 + seg, 0, 0, 0},
	{"c-hdlc", 104, "0f00 0800" + ip4 + seg, 0, 0, 0},
	{"c-hdlc as ppp", 9, "0f00 0800" + ip4 + seg, 0, 0, 0},
	{"fddi", 10, "50" + macs + "aaaa03 000000 0800" + ip4 + seg, 0, 0, 0},
	{"arcnet", 129, "be50 c000 d4 00 016b" + ip4 + seg, 0, 0, 0},
	{"arcnet exception", 7, "be50 d4 ff ffff 00 016b" + ip4 + seg, 0, 0, 0},
	{"arcnet rfc 1051", 129, "be50 c300 f0" + ip4 + seg, 0, 0, 0},
	{"nflog", 239, "02 00 0028 0800 0100 00000316 0500 0a00 00000000 2c00 0900" + ip4 + seg, 0, 0, 0},
	{"nflog big", 239, "02 00 0028 0008 0001 00000316 002c 0009" + ip4 + seg, 0, 0, 0},
	{"ppi", 192, "0000 0800 01000000" + macs + "0800" + ip4 + seg, 0, 0, 0},
	{"pppoe link", 51, "1100 0007 002a 0021" + ip4 + seg, dissect.TunnelPPPoE, 7, 0},
	{"pppoe", 1, macs + "8864 1100 0007 002a 0021" + ip4 + seg, dissect.TunnelPPPoE, 7, 0},
	{"mpls", 1, macs + "8847 00010040 00020140" + ip4 + seg, dissect.TunnelMPLS, 32, 0},
	{"mpls pseudowire", 1, macs + "8847 00020140 00000000" + macs + "0800" + ip4 + seg, dissect.TunnelMPLS, 32, 0},
	{"802.1ah", 1, macs + "88a8 0001 88e7 0000002a" + macs + "8100 0007 0800" + ip4 + seg, dissect.TunnelPBB, 42, 7},
	{"gre", 101, ip("2f", "0000 0800"+ip4+seg), dissect.TunnelGRE, 0, 0},
	{"gre key", 101, ip("2f", "2000 0800 00000009"+ip4+seg), dissect.TunnelGRE, 9, 0},
	{"gre ethernet", 101, ip("2f", "0000 6558"+macs+"0800"+ip4+seg), dissect.TunnelGRE, 0, 0},
	{"pptp", 101, ip("2f", "3001 880b 002c0001 00000001 ff03 0021"+ip4+seg), dissect.TunnelGRE, 0x2c0001, 0},
	{"eoip", 101, ip("2f", "2001 6400 0036 1900"+macs+"0800"+ip4+seg), dissect.TunnelGRE, 25, 0},
	{"erspan 2", 101, ip("2f", "1000 88be 00000001 10640005 00000000"+macs+"0800"+ip4+seg), dissect.TunnelERSPAN, 5, 0},
	{"erspan 3", 101, ip("2f", "1000 22eb 00000001 20640005 00000000 00000000"+macs+"0800"+ip4+seg), dissect.TunnelERSPAN, 5, 0},
	{"ipip", 101, ip("04", ip4+seg), dissect.TunnelIPIP, 0, 0},
	{"6in4", 101, ip("29", ip6+seg), dissect.Tunnel6in4, 0, 0},
	{"ah", 101, ip("33", "0604 0000 00000003 00000001 000000000000000000000000"+seg), dissect.TunnelAH, 3, 0},
	{"vxlan", 101, udp("12b5", "08000000 00002a00"+macs+"0800"+ip4+seg), dissect.TunnelVXLAN, 42, 0},
	{"gre in udp", 101, udp("1292", "2000 0800 00000009"+ip4+seg), dissect.TunnelGRE, 9, 0},
	{"geneve", 101, udp("17c1", "0100 6558 00002a00 00000000"+macs+"0800"+ip4+seg), dissect.TunnelGENEVE, 42, 0},
	{"gtp-u", 101, udp("0868", "30ff 0028 00000007"+ip4+seg), dissect.TunnelGTPU, 7, 0},
	{"gtp-u extension", 101, udp("0868", "34ff 0030 00000007 00000085 01000000"+ip4+seg), dissect.TunnelGTPU, 7, 0},
	{"teredo", 101, udp("0dd8", "0000 1234 01020304"+ip6+seg), dissect.TunnelTeredo, 0, 0},
	{"v6 extensions", 229, "60000000 0024 00 40 20010db8000000000000000000000001 20010db8000000000000000000000002 3c00010400000000 0600010400000000" + seg, 0, 0, 0},
}

func TestStacks(t *testing.T) {
	var dec headers.Decoder
	for _, s := range stacks {
		b := unhex(t, s.bytes)
		p := capture.Packet{Data: b, OrigLen: len(b), Link: s.link, Time: 5, Frame: 9}
		var d dissect.Datagram
		dec.Decode(&p, &d)
		if d.Class != dissect.ClassTCP || d.SrcPort != 1234 || d.DstPort != 80 || d.Seq != 100 || d.Flags != dissect.SYN {
			t.Errorf("%s: class %d, ports %d > %d, seq %d, flags %x", s.name, d.Class, d.SrcPort, d.DstPort, d.Seq, d.Flags)
		}
		if d.Tunnel != s.tunnel || d.TunnelID != s.id || d.VLAN != s.vlan {
			t.Errorf("%s: tunnel %v %d, vlan %d", s.name, d.Tunnel, d.TunnelID, d.VLAN)
		}
		// Cut at every byte: never more than what was captured, and never a
		// TCP segment with other ports.
		for n := range b {
			p.Data = b[:n:n]
			dec.Decode(&p, &d)
			if d.Class == dissect.ClassMalformed {
				t.Errorf("%s cut at %d: malformed, it is cut", s.name, n)
			}
			if d.Class == dissect.ClassTCP && (d.SrcPort != 1234 || !d.Cut) {
				t.Errorf("%s cut at %d: %+v", s.name, n, d)
			}
		}
	}
}

// TestBroadcast: a subnet's broadcast address is told by the frame.
func TestBroadcast(t *testing.T) {
	packet := func(last string) string {
		return "4500001c 00010000 4011 0000 c0000201 c00002" + last + "0089 0089 0008 0000"
	}
	for _, c := range []struct {
		name  string
		link  capture.LinkType
		bytes string
		want  bool
	}{
		{"to all of a /24", 1, "ffffffffffff 020000000002 0800" + packet("ff"), true},
		{"to all of a /27", 1, "ffffffffffff 020000000002 8100 0007 0800" + packet("3f"), true},
		{"a generator that knows no neighbour", 1, "ffffffffffff 020000000002 0800" + packet("02"), false},
		{"a host whose number ends in ones", 1, macs + "0800" + packet("ff"), false},
		{"cooked", 113, "0001 0001 0006 020000000001 0000 0800" + packet("ff"), true},
		{"cooked 2", 276, "0800 0000 00000001 0001 01 06 0200000000010000" + packet("ff"), true},
		{"cooked, to this host", 113, "0000 0001 0006 020000000001 0000 0800" + packet("ff"), false},
		{"no link header", 101, packet("ff"), false},
	} {
		var dec headers.Decoder
		var d dissect.Datagram
		b := unhex(t, c.bytes)
		dec.Decode(&capture.Packet{Data: b, OrigLen: len(b), Link: c.link}, &d)
		if d.Class != dissect.ClassUDP || d.ToMany() != c.want {
			t.Errorf("%s: class %d, to many %v", c.name, d.Class, d.ToMany())
		}
	}
}

func TestNoAllocation(t *testing.T) {
	var dec headers.Decoder
	var d dissect.Datagram
	for _, s := range stacks {
		b := unhex(t, s.bytes)
		p := capture.Packet{Data: b, OrigLen: len(b), Link: s.link}
		if n := testing.AllocsPerRun(100, func() { dec.Decode(&p, &d) }); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
}

// TestQuoted: an ICMP error hashes like the conversation it is about, and
// carries ports and sequence number of the quoted SYN.
func TestQuoted(t *testing.T) {
	var dec headers.Decoder
	var syn, d dissect.Datagram
	b := unhex(t, ip4+seg)
	dec.Decode(&capture.Packet{Data: b, OrigLen: len(b), Link: 101}, &syn)
	b = unhex(t, ip("01", "0301 0000 00000000"+ip4+seg[:18]))
	dec.Decode(&capture.Packet{Data: b, OrigLen: len(b), Link: 101}, &d)
	q := d.Quoted
	if d.Class != dissect.ClassICMPError || d.ICMPType != 3 || d.ICMPCode != 1 || q.SrcPort != 1234 || q.DstPort != 80 || !q.HasSeq || q.Seq != 100 {
		t.Errorf("%+v", d)
	}
	if headers.Hash(&d) != headers.Hash(&syn) {
		t.Error("the error goes elsewhere than its conversation")
	}
	back := syn
	back.Src, back.Dst = syn.Dst, syn.Src
	if headers.Hash(&back) != headers.Hash(&syn) {
		t.Error("the answer goes elsewhere than the request")
	}
}

func TestFragments(t *testing.T) {
	payload := make([]byte, 40)
	for i := range payload {
		payload[i] = byte(i)
	}
	body := append(unhex(t, "04d2 0035 0030 0000"), payload...) // UDP, 48 bytes
	piece := func(from, to int, more bool) capture.Packet {
		b := unhex(t, "4500 0000 0007 0000 4011 0000 c0000201 c0000202")
		b[3] = byte(20 + to - from)
		b[7] = byte(from / 8)
		if more {
			b[6] = 0x20
		}
		b = append(b, body[from:to]...)
		return capture.Packet{Data: b, OrigLen: len(b), Link: 228}
	}
	classes := func(ps ...capture.Packet) (c []dissect.Class, last dissect.Datagram) {
		var dec headers.Decoder
		for i := range ps {
			dec.Decode(&ps[i], &last)
			c = append(c, last.Class)
		}
		return c, last
	}
	a, b, c := piece(0, 16, true), piece(16, 32, true), piece(32, 48, false)
	if got, d := classes(a, b, c); got[0] != dissect.ClassUDP || got[1] != dissect.ClassFragment || got[2] != dissect.ClassFragment {
		t.Errorf("in order: %v %v", got, d)
	}
	tiny := piece(0, 8, true)
	if got, _ := classes(tiny, piece(8, 48, false)); got[0] != dissect.ClassUDP {
		t.Errorf("a first fragment with the whole UDP header: %v", got)
	}
	if _, last := classes(a); !last.Cut || last.PayloadLen != 40 || len(last.Payload) != 8 {
		t.Errorf("a first fragment is cut, of what the UDP header says: %v, %d of %d bytes", last.Cut, len(last.Payload), last.PayloadLen)
	}
	overlap := piece(16, 32, true)
	overlap.Data[30] ^= 0xff
	if got, _ := classes(b, overlap, c, a); got[3] != dissect.ClassUDP {
		t.Errorf("overlap: %v", got)
	}
}

// TestTinyFragments: a TCP header spread over two fragments is put together, also
// where only its options are.
func TestTinyFragments(t *testing.T) {
	plain := unhex(t, seg)
	long := append(unhex(t, seg), unhex(t, "020405b4 0402080a 00bc614e 00000000 01030307")...)
	long[12] = 0xa0
	for _, c := range []struct {
		tcp  []byte
		cuts [][2]int
	}{{plain, [][2]int{{8, 20}, {0, 8}}}, {long, [][2]int{{0, 24}, {24, 40}}}, {long, [][2]int{{24, 40}, {0, 24}}}} {
		var dec headers.Decoder
		var d dissect.Datagram
		for i, cut := range c.cuts { // the wrong way round, too
			b := unhex(t, "4500 0000 0009 0000 4006 0000 c0000201 c0000202")
			b[3] = byte(20 + cut[1] - cut[0])
			b[7] = byte(cut[0] / 8)
			if cut[1] < len(c.tcp) {
				b[6] = 0x20
			}
			b = append(b, c.tcp[cut[0]:cut[1]]...)
			dec.Decode(&capture.Packet{Data: b, OrigLen: len(b), Link: 228}, &d)
			if i == 0 && d.Class != dissect.ClassFragment {
				t.Errorf("%v, one half: class %d", c.cuts, d.Class)
			}
		}
		if d.Class != dissect.ClassTCP || d.Seq != 100 || d.DstPort != 80 {
			t.Errorf("%v, both halves: %+v", c.cuts, d)
		}
	}
}

// TestAgainstTruth compares packet counts with tshark's, see COUNTING.md
// beside the captures.
func TestAgainstTruth(t *testing.T) {
	dir := "../../../shared/captures"
	h, err := os.Open(filepath.Join(dir, "truth-conv.tsv"))
	if err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	defer h.Close()
	r := csv.NewReader(h)
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, l := range lines[1:] {
		row := map[string]string{}
		for i, v := range l {
			row[lines[0][i]] = v
		}
		name := row["file"]
		if row["agree"] != "yes" || strings.HasPrefix(name, "hostile/") || exceptions[name] != "" {
			continue
		}
		got, err := count(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		compared++
		for column, n := range got {
			if want, _ := strconv.Atoi(row[column]); n != want {
				t.Errorf("%s: %s %d, want %d (%s)", name, column, n, want, row["protocols"])
			}
		}
	}
	t.Logf("%d captures compared", compared)
}

// exceptions are the captures where we count otherwise, with the reason.
var exceptions = map[string]string{
	"attempts/nb6-startup.pcap":                        "L2TP is not entered",
	"formats/wlanmon.pcap":                             "802.11",
	"formats/80211_ppi_multiplefields.pcap":            "802.11",
	"formats/tcpdump__nflog.pcap":                      "NFLOG",
	"formats/decode-nsh-type1__input.pcap":             "NSH",
	"formats/capwap_data.pcapng":                       "CAPWAP",
	"formats/frag-ppp-ip-tcp-syn.pcap":                 "the truth was counted without reassembly",
	"formats/6in6_both.pcap":                           "likewise",
	"formats/http_ip_fragmented.pcap":                  "likewise",
	"formats/http_ip_fragmented_out_of_order.pcap":     "likewise",
	"formats/bigtcp-ipv4-geneve-ipv4.pcap":             "tshark does not enter the tunnel, we do",
	"formats/bigtcp-ipv4-vxlan-ipv4.pcap":              "likewise",
	"formats/10_geneve_unsupported_protocol_type.pcap": "a tunnel without IP in it is plain UDP to us",
}

func count(path string) (map[string]int, error) {
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	n := map[string]int{"syn_noack": 0, "synack": 0, "rst": 0, "icmp_unreach": 0, "udp_convs": 0}
	convs := map[[2]dissect.Endpoint]bool{}
	var dec headers.Decoder
	var d dissect.Datagram
	for {
		b, err := src.Next()
		if err == io.EOF {
			n["udp_convs"] = len(convs)
			return n, nil
		}
		for i := range b.Packets {
			dec.Decode(&b.Packets[i], &d)
			switch d.Class {
			case dissect.ClassTCP:
				switch d.Flags & (dissect.SYN | dissect.ACK) {
				case dissect.SYN:
					n["syn_noack"]++
				case dissect.SYN | dissect.ACK:
					n["synack"]++
				}
				if d.Flags&dissect.RST != 0 {
					n["rst"]++
				}
			case dissect.ClassUDP:
				k := [2]dissect.Endpoint{d.Source(), d.Destination()}
				if k[1].Compare(k[0]) < 0 {
					k[0], k[1] = k[1], k[0]
				}
				convs[k] = true
			case dissect.ClassICMPError:
				v6 := d.Proto == dissect.ProtoICMPv6
				if !v6 && d.ICMPType == 3 || v6 && d.ICMPType == 1 {
					n["icmp_unreach"]++
				}
			}
		}
		b.Release()
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range stacks {
		f.Add(uint16(s.link), unhex(f, s.bytes))
	}
	var dec headers.Decoder
	f.Fuzz(func(t *testing.T, link uint16, b []byte) {
		var d dissect.Datagram
		for _, orig := range []int{len(b), len(b) + 10} {
			dec.Decode(&capture.Packet{Data: b[:len(b):len(b)], OrigLen: orig, Link: capture.LinkType(link)}, &d)
			if len(d.Payload) > d.PayloadLen {
				t.Errorf("%d bytes of a payload of %d", len(d.Payload), d.PayloadLen)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	var packets []capture.Packet
	samples.Dense(10000, 1, func(p *capture.Packet) { packets = append(packets, *p) })
	var dec headers.Decoder
	var d dissect.Datagram
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		dec.Decode(&packets[i%len(packets)], &d)
		i++
	}
}
