package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

// dnsMessage makes a message with one question of class IN.
func dnsMessage(id, flags, kind uint16, name, rest string) string {
	b := []byte{byte(id >> 8), byte(id), byte(flags >> 8), byte(flags), 0, 1, 0, 0, 0, 0, 0, 0}
	for _, l := range strings.Split(name, ".") {
		b = append(append(b, byte(len(l))), l...)
	}
	return string(append(b, 0, byte(kind>>8), byte(kind), 0, 1)) + rest
}

func TestDNS(t *testing.T) {
	udp := []line{
		{data: dnsMessage(7, 0x0100, 33, "_sip._udp.example.org", ""), kind: dissect.KindRequest, op: "SRV", role: dissect.RoleBootstrap},
		{data: dnsMessage(7, 0x0100, 33, "_sip._udp.example.org", ""), kind: dissect.KindRequest, same: 1},
		{data: dnsMessage(8, 0x0100, 1, "seed.example.org", ""), kind: dissect.KindRequest, op: "A"},
		{node: true, data: dnsMessage(8, 0x8183, 1, "seed.example.org", ""), kind: dissect.KindAccept, same: 3, life: 1},
		{node: true, data: dnsMessage(7, 0x8182, 33, "_sip._udp.example.org", ""), kind: dissect.KindRefuse, same: 1},
		{data: dnsMessage(9, 0x0100, 28, "seed.example.org", ""), kind: dissect.KindRequest, op: "AAAA"},
		{node: true, data: dnsMessage(9, 0x8185, 28, "seed.example.org", ""), kind: dissect.KindRefuse, same: 6},
		{node: true, data: dnsMessage(9, 0x8180, 28, "seed.example.org", ""), kind: dissect.KindAccept, same: 6, life: 1},
	}
	converse(t, dns{}, dissect.ProtoUDP, 53, udp)
	var tcp []line
	for _, l := range udp {
		l.data = "\x00" + string(rune(len(l.data))) + l.data
		tcp = append(tcp, l)
	}
	converse(t, dns{}, dissect.ProtoTCP, 53, tcp)
	for name, role := range map[string]dissect.Role{"dnsseed.bluematt.me": dissect.RoleBootstrap, "Router.BitTorrent.com": dissect.RoleBootstrap,
		"dht.transmissionbt.com": dissect.RoleBootstrap, "router.example.com": dissect.RoleUnknown, "www.seed.org": dissect.RoleUnknown} {
		var f dissect.Flow
		var m dissect.Message
		if _, err := (dns{}).Dissect(packet(dissect.ProtoUDP, 1, 53, dnsMessage(7, 0x0100, 1, name, "")), &f, &m); err != nil || m.Role != role {
			t.Errorf("%s: %s, %v", name, m.Role, err)
		}
	}
	// At another port the message must be sound to its end, and is never sure.
	query := dnsMessage(7, 0x0100, 1, "seed.example.org", "")
	if v := (dns{}).Probe(packet(dissect.ProtoUDP, 40000, 5300, query)); v != dissect.Maybe {
		t.Errorf("another port: %d", v)
	}
	strangers(t, dns{}, dissect.ProtoUDP, 5300, query+"x", query[:len(query)-1], strings.Repeat("\x00", 40))
	strangers(t, dns{}, dissect.ProtoUDP, 137, query)
	strangers(t, dns{}, dissect.ProtoUDP, 53, dnsMessage(7, 0x0110, 32, strings.Repeat("C", 32), ""), dnsMessage(7, 0x7900, 1, "a", ""), dnsMessage(7, 0x0103, 1, "a", ""))
}

func FuzzDNS(f *testing.F) {
	fuzzProtocol(f, dns{}, 53, dnsMessage(7, 0x0100, 33, "_sip._udp.example.org", ""), dnsMessage(7, 0x8182, 33, "a", "\xc0\x0c\x00\x01\x00\x01"))
}
