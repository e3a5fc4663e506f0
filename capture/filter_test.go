package capture_test

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"squall/capture"
)

func TestFilterShape(t *testing.T) {
	port := func(proto string, dir capture.FilterDir, n uint16) *capture.FilterTest {
		return &capture.FilterTest{Kind: capture.FilterPort, Proto: proto, Dir: dir, PortLow: n, PortHigh: n}
	}
	proto := func(name string) *capture.FilterTest {
		return &capture.FilterTest{Kind: capture.FilterProto, Proto: name}
	}
	behind := proto("ip")
	behind.Depth = capture.FilterDepth{VLANs: 1}
	for text, want := range map[string]capture.Expr{
		"":                      nil,
		"  ":                    nil,
		"tcp":                   proto("tcp"),
		"tcp or udp and icmp":   &capture.FilterAnd{L: &capture.FilterOr{L: proto("tcp"), R: proto("udp")}, R: proto("icmp")}, // alike, from the left
		"not tcp and udp":       &capture.FilterAnd{L: &capture.FilterNot{X: proto("tcp")}, R: proto("udp")},
		"tcp dst port 80 or 81": &capture.FilterOr{L: port("tcp", capture.FilterDst, 80), R: port("tcp", capture.FilterDst, 81)},
		"src or dst port 53":    port("", capture.FilterEither, 53),
		"src and dst port 53":   port("", capture.FilterBoth, 53),
		"port https":            port("", capture.FilterEither, 443),
		"portrange 9-7":         &capture.FilterTest{Kind: capture.FilterPort, PortLow: 7, PortHigh: 9},
		"vlan 7 and ip":         &capture.FilterAnd{L: &capture.FilterTest{Kind: capture.FilterVLAN, Number: 7}, R: behind},
		"src net 10.1":          &capture.FilterTest{Kind: capture.FilterHost, Dir: capture.FilterSrc, Net: netip.MustParsePrefix("10.1.0.0/16")},
		"fe80::1":               &capture.FilterTest{Kind: capture.FilterHost, Net: netip.MustParsePrefix("fe80::1/128")},
		"outbound":              &capture.FilterTest{Kind: capture.FilterOutbound},
		"ip multicast": &capture.FilterRelation{Op: ">=", R: &capture.FilterNumber{Value: 224},
			L: &capture.FilterNumber{Op: "[]", Proto: "ip", Size: 1, L: &capture.FilterNumber{Value: 16}}},
		"less 0x10": &capture.FilterRelation{Op: "<=", L: &capture.FilterNumber{Op: "len"}, R: &capture.FilterNumber{Value: 16}},
		"len-4 = 010": &capture.FilterRelation{Op: "=", R: &capture.FilterNumber{Value: 8},
			L: &capture.FilterNumber{Op: "-", L: &capture.FilterNumber{Op: "len"}, R: &capture.FilterNumber{Value: 4}}},
		"(udp[8:4]) != 1 + 2 * 3": &capture.FilterRelation{Op: "!=",
			L: &capture.FilterNumber{Op: "[]", Proto: "udp", Size: 4, L: &capture.FilterNumber{Value: 8}},
			R: &capture.FilterNumber{Op: "+", L: &capture.FilterNumber{Value: 1},
				R: &capture.FilterNumber{Op: "*", L: &capture.FilterNumber{Value: 2}, R: &capture.FilterNumber{Value: 3}}}},
	} {
		got, err := capture.ParseFilter(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestFilterRefused(t *testing.T) {
	for _, tc := range []struct {
		text   string
		column int
		reason string
	}{
		{"host", 5, "found the end"},
		{"host example.org", 6, "names are not looked up"},
		{"host 1.2.3.400", 6, "no address"},
		{"host 10.0.0.0/8", 14, "write net"},
		{"net 10/8", 5, "in full: 10.0.0.0/"},
		{"net 10.0.0.1/8", 5, "the network is 10.0.0.0/8"},
		{"net 10.0.0.0/33", 14, "up to 32"},
		{"net 10.0.0.0 mask 255.0.255.0", 19, "gaps"},
		{"tcp host 1.2.3.4", 1, "tcp and host"},
		{"ip port 80", 1, "ip and port"},
		{"ip6 host 1.2.3.4", 10, "no address of"},
		{"port 65536", 6, "up to 65535"},
		{"port nosuch", 6, "up to 65535"},
		{"portrange 1-", 13, "found the end"},
		{"tcp and", 8, "found the end"},
		{"(tcp", 5, `expected ")"`},
		{"tcp)", 4, "unexpected"},
		{"tcp udp", 5, "unexpected"},
		{"tcp[13]", 1, "comparison"},
		{"tcp[13:3] = 1", 8, "1, 2 or 4"},
		{"tcp[nosuch] = 1", 5, "tcpflags"},
		{"tcp[13] & (tcp-syn", 19, `expected ")"`},
		{"len / 0 = 1", 5, "division by zero"},
		{"vlan 4096", 6, "up to 4095"},
		{"mpls and vlan", 10, "behind MPLS"},
		{"ether host 00:00:00:00:01", 12, "no MAC address"},
		{"ether port 80", 7, "after \"ether\""},
		{"ether proto 46", 13, "0x600"},
		{"ip broadcast", 1, "netmask"},
		{"tcp and gateway 1.2.3.4", 9, "give the hosts"},
		{"tcp and multicast 1", 19, "unexpected"},
		{"pppoes", 1, "not supported"},
		{"ip protochain 6", 4, "unexpected"},
		{"tcp; udp", 4, "unexpected character"},
		{"tcp dst", 8, "an address"},
		{strings.Repeat("(", 500) + "tcp", 0, "deep"},
		{strings.Repeat("not ", 500) + "tcp", 0, "deep"},
		{strings.Repeat("tcp or ", 20000) + "tcp", 0, "longer than"},
	} {
		_, err := capture.ParseFilter(tc.text)
		var fe *capture.FilterError
		if !errors.As(err, &fe) {
			t.Errorf("%.40q: %v, want column %d: %s", tc.text, err, tc.column, tc.reason)
			continue
		}
		if tc.column > 0 && fe.Column != tc.column || !strings.Contains(fe.Reason, tc.reason) || strings.Contains(fe.Error(), "\n") {
			t.Errorf("%.40q: %v, want column %d: %s", tc.text, err, tc.column, tc.reason)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{"tcp port 80 or 443", "(tcp[13] & (2|16)) != 0", "net 10.0.0.0 mask 255.0.0.0", "vlan 1 and mpls 2 and fe80::1",
		"src or dst portrange 1-2", "not (len-4 < ip[2:2])", "ip proto \\tcp", "0x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := capture.ParseFilter(s)
		var fe *capture.FilterError
		if err != nil && (!errors.As(err, &fe) || fe.Column < 1 || fe.Column > len(s)+1 || fe.Reason == "") {
			t.Errorf("%q: %v", s, err)
		}
	})
}
