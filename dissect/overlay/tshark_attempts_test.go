package overlay

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"squall/dissect"
)

// transacted is a protocol over UDP whose attempts are its transactions: requests
// of one id between two endpoints, however often sent (rules 21, 22 and 26). The
// golden, testdata/tshark/attempts.tsv, holds how many tshark sees in a capture,
// and of how many it sees an answer.
type transacted struct {
	name   string
	filter string
	fields []string
	files  []string
	read   func(f []string) told
}

// told is what a message is. An answer that wants to know who asks (leg) is no
// end: the next request of the chain, which says so (proves), goes on.
type told struct {
	id, chain         string
	asks, leg, proves bool
	aside             bool // no part of a transaction
}

var transactions = []transacted{
	{
		name: "dns", filter: "dns && udp && !mdns && !llmnr && !nbns", fields: []string{"dns.id", "dns.flags.response"},
		files: []string{"overlay/bt-dns.pcap", "overlay/sip-rtp.pcap", "overlay/skype-2006-irc.cap", "overlay/skype-2015-b.pcap", "attempts/dns_query_nonexistent.pcapng",
			"attempts/dns_udp_mixed_rcode.pcap", "attempts/ecs.pcap", "attempts/http_espn_fail.pcapng", "attempts/long-connection.pcap", "attempts/nb6-startup.pcap",
			"attempts/stranded_branchdns.pcapng", "attempts/test1.pcap", "attempts/test__test.pcap", "formats/dns.pcap", "formats/pellets.pcap"},
		read: func(f []string) told {
			return told{id: f[0], asks: nth(f[1], 0) == "0"}
		},
	},
	{
		name: "stun", filter: "udp && (stun.type in {0x0001, 0x0003, 0x0004, 0x0101, 0x0103, 0x0104, 0x0111, 0x0113, 0x0114} || classicstun)", fields: []string{"stun.type", "classicstun.type", "stun.id", "classicstun.id", "stun.att.error.class", "stun.att.error", "stun.att.username", "stun.att.lifetime"},
		files: []string{"overlay/stun.pcap", "overlay/stun_classic.pcap", "overlay/stun-ice-testcall.pcap", "overlay/webrtc-stun.pcap", "overlay/stun_signal.pcapng", "overlay/whatsapp_login_call.pcap"},
		read: func(f []string) told {
			kind := f[0] + f[1]
			if kind == "" || kind == "0x0004" && f[7] == "0" {
				return told{aside: true} // a good-bye
			}
			return told{id: f[2] + f[3], chain: kind[len(kind)-1:], asks: !strings.HasPrefix(kind, "0x01"), leg: f[4] == "4" && (f[5] == "1" || f[5] == "38"), proves: f[6] != ""}
		},
	},
	{
		name: "sip", filter: "udp && sip.CSeq.method == REGISTER", fields: []string{"sip.Method", "sip.Status-Code", "sip.Via.branch", "sip.Call-ID", "sip.auth"},
		files: []string{"lab/sip-registrar-killed-a.pcap", "overlay/sip.pcap", "overlay/sip-cesnet.pcap", "overlay/sip-rtp.pcap", "overlay/digium.pcap", "overlay/wireshark.pcap", "attempts/nb6-startup.pcap"},
		read: func(f []string) told {
			return told{id: nth(f[2], 0), chain: f[3], asks: f[0] != "", leg: f[1] == "401" || f[1] == "407", proves: f[4] != ""}
		},
	},
	{
		name: "bt-dht", filter: "bt-dht", fields: []string{"bt-dht.bencoded.string"}, files: []string{"overlay/bittorrent-dht__input.pcap", "overlay/bittorrent_utp.pcap", "overlay/lru_ipv6_caches.pcapng"},
		read: func(f []string) told {
			x := comparisons[2].facts(f)[0]
			return told{id: x.id, asks: x.word == "q"}
		},
	},
}

// ask gives what tshark sees in a file.
func (c *transacted) ask(t *testing.T, file string) (asked, answered int) {
	t.Helper()
	program, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("needs tshark (Debian: apt-get install tshark)")
	}
	args := []string{"-n", "-r", filepath.Join("..", "..", "..", "shared", "captures", file), "-Y", "(" + c.filter + ") && !icmp && !icmpv6", "-T", "fields", "-E", "separator=/t"}
	for _, f := range append([]string{"ip.src", "ipv6.src", "udp.srcport", "ip.dst", "ipv6.dst", "udp.dstport"}, c.fields...) {
		args = append(args, "-e", f)
	}
	b, err := exec.Command(program, args...).Output()
	if err != nil {
		t.Fatalf("tshark %v: %v", args, err)
	}
	last := func(a, b string) string { // of a tunnel's two addresses the inner one
		list := many(a + b)
		if len(list) == 0 {
			return ""
		}
		return list[len(list)-1]
	}
	type asking struct{ answered, proved bool }
	open := map[string]*asking{} // by flow and id
	legs := map[string]*asking{} // attempts whose next leg is due
	for _, l := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		f := strings.Split(l, "\t")
		if len(f) != len(c.fields)+6 {
			continue
		}
		from, to := last(f[0], f[1])+" "+last(f[2], ""), last(f[3], f[4])+" "+last(f[5], "")
		if a, err := netip.ParseAddr(last(f[3], f[4])); err != nil || a.IsMulticast() {
			continue // rule 25
		}
		m := c.read(f[6:])
		if m.aside {
			continue
		}
		if !m.asks {
			from, to = to, from
		}
		key, chain := from+" "+to+" "+m.id, from+" "+to+" "+m.chain
		switch q := open[key]; {
		case m.asks && m.proves && legs[chain] != nil:
			open[key] = legs[chain]
			open[key].proved = true
			delete(legs, chain)
		// Peers ask with one id again and again; elsewhere it is a repeat.
		case m.asks && (q == nil || q.answered && c.name == "bt-dht"):
			asked++
			open[key] = &asking{proved: m.proves}
		case !m.asks && q != nil:
			if !q.answered {
				q.answered = true
				answered++
			}
			if m.leg && !q.proved {
				legs[chain] = q
			}
		}
	}
	return asked, answered
}

// TestTsharkAttempts: over UDP there are as many attempts as tshark sees
// transactions, and as many of them are answered.
func TestTsharkAttempts(t *testing.T) {
	path := filepath.Join("testdata", "tshark", "attempts.tsv")
	if *askTshark {
		var out strings.Builder
		out.WriteString("# transactions over UDP by tshark: protocol, file, asked, answered\n")
		for i := range transactions {
			for _, file := range transactions[i].files {
				asked, answered := transactions[i].ask(t, file)
				fmt.Fprintf(&out, "%s\t%s\t%d\t%d\n", transactions[i].name, file, asked, answered)
			}
		}
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./dissect/overlay -run Tshark -tshark writes it", err)
	}
	total := 0
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		var name, file string
		var asked, answered int
		if n, _ := fmt.Sscanf(l, "%s\t%s\t%d\t%d", &name, &file, &asked, &answered); n != 4 {
			continue
		}
		src, _ := real(t, file)
		gotAsked, gotAnswered := 0, 0
		for _, r := range analyse(t, src, All()) {
			if r.Protocol != name || r.Proto != dissect.ProtoUDP || name == "sip" && r.Op != "REGISTER" {
				continue
			}
			gotAsked++
			if r.Answer == dissect.AnswerReply || r.Late || r.Evidence == dissect.EvidenceApp {
				gotAnswered++
			}
		}
		if gotAsked != asked || gotAnswered != answered {
			t.Errorf("%s %s: %d attempts, %d answered; tshark %d, %d", name, file, gotAsked, gotAnswered, asked, answered)
		}
		total += asked
	}
	t.Logf("%d transactions", total)
}
