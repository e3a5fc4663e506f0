package overlay

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
	"squall/dissect/attempt"
)

// wire is one packet of a scene: at milliseconds, to the node or from it.
type wire struct {
	at   int64
	node bool // sent by the node
	data string
	flag uint8 // FIN or RST
	cut  int   // bytes that the capture kept, 0 = all
}

// scene plays packets through the engine with every protocol that is built in,
// and gives its rows as "op outcome evidence" in the order of their starts, with
// who ended the session of an accepted one. A TCP
// scene is preceded by its handshake at 0.
func scene(t *testing.T, transport uint8, port uint16, packets []wire) []string {
	t.Helper()
	names := attempt.NewNames(0)
	var rows []attempt.Record
	e := attempt.NewEngine(attempt.Config{Protocols: All()}, names, func(r *attempt.Record) {
		if r.Flags&attempt.FlagOlder == 0 {
			rows = append(rows, *r)
		}
	})
	seq := [2]uint32{1000, 5000}
	last := int64(0)
	send := func(at int64, node bool, flags uint8, data string, cut int) {
		d := packet(transport, 40000, port, data)
		d.Time, d.Frame, d.IPLen = at*1e6, at+1, 40+len(data)
		d.Class, d.Flags = dissect.ClassUDP, flags
		d.Src, d.Dst = dissect.Addr4([]byte{10, 0, 0, 1}), dissect.Addr4([]byte{10, 0, 0, 9})
		from, to := 0, 1
		if node {
			d.Src, d.Dst, d.SrcPort, d.DstPort = d.Dst, d.Src, d.DstPort, d.SrcPort
			from, to = 1, 0
		}
		if transport == dissect.ProtoTCP {
			d.Class, d.Seq, d.Ack = dissect.ClassTCP, seq[from], seq[to]
			seq[from] += uint32(len(data))
			if flags&(dissect.SYN|dissect.FIN) != 0 {
				seq[from]++
			}
		}
		if cut > 0 {
			d.Cut, d.Payload = true, d.Payload[:cut]
		}
		d.IPID = uint16(at)
		e.Datagram(d)
		last = at
	}
	if transport == dissect.ProtoTCP {
		send(0, false, dissect.SYN, "", 0)
		send(1, true, dissect.SYN|dissect.ACK, "", 0)
		send(2, false, dissect.ACK, "", 0)
	}
	for _, w := range packets {
		flags := w.flag
		if transport == dissect.ProtoTCP {
			flags |= dissect.ACK
		}
		send(w.at, w.node, flags, w.data, w.cut)
	}
	e.Finish((last + 120_000) * 1e6)
	slices.SortStableFunc(rows, func(a, b attempt.Record) int { return int(a.Start/1e6 - b.Start/1e6) })
	var out []string
	for _, r := range rows {
		s := fmt.Sprintf("%s %s %s %s", names.String(r.Protocol), names.String(r.Op), r.Outcome, r.Evidence)
		if r.Transmissions > 1 {
			s += fmt.Sprintf(" x%d", r.Transmissions)
		}
		if r.RetryAfter > 0 {
			s += fmt.Sprintf(" after %d s", r.RetryAfter/second)
		}
		switch r.SessionEnded {
		case dissect.SessionByClient, dissect.SessionByNode, dissect.SessionLost:
			s += " until " + r.SessionEnded.String()
		}
		out = append(out, s)
	}
	return out
}

const sipLogin = "Authorization: Digest username=\"ann\"\r\n"

// timerE are the transmissions of a REGISTER that nobody answers (RFC 3261, 17.1.2.2).
func timerE(message string) (list []wire) {
	for _, at := range []int64{0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500} {
		list = append(list, wire{at: at, data: message})
	}
	return list
}

// hidden are datagrams of a session that was there before, and then packets.
func hidden(n int, data string, packets ...wire) (list []wire) {
	for i := range int64(n) {
		list = append(list, wire{at: i * 20, data: data}, wire{at: i*20 + 5, node: true, data: data})
	}
	for _, p := range packets {
		p.at += int64(n) * 20
		list = append(list, p)
	}
	return list
}

// TestLateRows: what begins behind data of a session is seen, and the row of the
// data stays what it was.
func TestLateRows(t *testing.T) {
	register := []wire{{at: 10, data: sipRegister(1, "")}, {at: 20, node: true, data: sipAnswer(1, "200 OK", "")}}
	binding := []wire{{at: 10, data: stunPacket(0x0001, 7)}, {at: 20, node: true, data: stunPacket(0x0101, 7)}}
	for _, c := range []scenery{
		{"hello", true, 5070, hidden(40, "hello", register...), []string{"  accepted handshake", "sip REGISTER accepted app"}},
		{"an empty line at its port", true, 5060, hidden(40, "\r\n\r\n", register...), []string{"sip REGISTER accepted app"}},
		{"media", true, 40002, hidden(40, "\x80\x00"+noise(158), binding...), []string{"  accepted handshake", "stun Binding accepted app"}},
		{"channel data", true, 3478, hidden(40, "\x40\x00\x00\x9c"+noise(156), binding...), []string{"  accepted handshake", "stun Binding accepted app"}},
	} {
		if got := scene(t, dissect.ProtoUDP, c.port, c.packets); !slices.Equal(got, c.rows) {
			t.Errorf("%s: %q, want %q", c.name, got, c.rows)
		}
	}
}

// sipOther is a message of another call.
func sipOther(message string) string {
	return strings.ReplaceAll(message, "77@10.0.0.1", "78@10.0.0.1")
}

// scenery is a scene with its rows.
type scenery struct {
	name    string
	udp     bool
	port    uint16
	packets []wire
	rows    []string
}

// scenes are the conversations of TestRows, and of the samples that squall carries.
func scenes() []scenery {
	server := append(append(be16(0x0303), make([]byte, 32)...), 0, 0x13, 0x01, 0)
	hello, answer := record(tlsHandshake, handshake(1, chrome().body())), record(tlsHandshake, handshake(2, server))
	sa := ike(34, 0x08, 33, 0, "\x00\x00\x00\x0c12345678")
	cookie := ike(34, 0x08, 41, 0, "\x21\x00\x00\x0c\x00\x00\x40\x06abcd\x00\x00\x00\x0c12345678")
	user := "\x01\x05bob\x1f\x13aa-bb-cc-dd-ee-ff"
	query := dnsMessage(7, 0x0100, 33, "_sip._udp.example.org", "")
	cer := diameterMessage(0x80, 257, 7, avp(avpOrigin, "mme1.example.org"))
	frames := cryptoFrame(0, string(handshake(1, chrome().body()))) + strings.Repeat("\x00", 1000)
	initial := sealInitial(quicV1, "original", "original", "client", "", "client in", frames)
	retried := sealInitial(quicV1, "retried1", "retried1", "client", "token", "client in", frames)
	disconnected := "\xe0\x00"
	endpoint, expires := "\xc9\x84\x7f\x00\x00\x01\x82\x76\x5f\x80", "\x84\x5e\x16\x20\x5e"
	discPing := discPacket(1, 1, "\x04"+endpoint+endpoint+expires)
	login2006 := "\x16\x03\x01\x00\xcd\x41\x03\x00\x09\x80\x40\x04\x08\xc0\x01" + noise(400)
	return []scenery{
		{"bitcoin accepted", false, 8333, []wire{{at: 10, data: bitcoinVersion}, {at: 20, node: true, data: bitcoinVersion + bitcoinVerack}, {at: 30, data: bitcoinVerack}},
			[]string{"bitcoin version accepted app"}},
		{"bitcoin full", false, 8333, []wire{{at: 10, data: bitcoinVersion}, {at: 20, node: true, flag: dissect.FIN}},
			[]string{"bitcoin version dropped fin"}},
		{"mqtt busy", false, 1883, []wire{{at: 10, data: mqttConnect311}, {at: 20, node: true, data: "\x20\x02\x00\x03"}},
			[]string{"mqtt CONNECT throttled app"}},
		{"mqtt silent", false, 1883, []wire{{at: 10, data: mqttConnect311}},
			[]string{"mqtt CONNECT stalled silence"}},
		{"mqtt pings", false, 1883, []wire{{at: 10, data: mqttConnect311}, {at: 20, node: true, data: "\x20\x02\x00\x00"}, {at: 30000, data: "\xc0\x00"},
			{at: 30010, node: true, data: "\xd0\x00"}, {at: 40000, data: "\xc0\x00"}, {at: 41000, data: disconnected}},
			[]string{"mqtt CONNECT accepted app until client", "mqtt PINGREQ accepted app until client", "mqtt PINGREQ stalled silence"}},
		{"nats full", false, 4222, []wire{{at: 10, node: true, data: natsGreeting}, {at: 20, data: natsHello + "PING\r\n"},
			{at: 30, node: true, data: "-ERR 'maximum connections exceeded'\r\n"}, {at: 31, node: true, flag: dissect.FIN}},
			[]string{"nats CONNECT throttled app"}},
		{"ike under load", true, 500, []wire{{at: 10, data: sa}, {at: 20, node: true, data: ike(34, 0x20, 41, 0, ikeNotifies(ikeCookie, "abcd"))},
			{at: 30, data: cookie}, {at: 500, data: cookie}, {at: 530, node: true, data: ike(34, 0x20, 33, 0, "\x00\x00\x00\x0c12345678")}},
			[]string{"ikev2 IKE_SA_INIT throttled app", "ikev2 IKE_SA_INIT cookie accepted app x2"}},
		{"ike login refused", true, 4500, []wire{{at: 10, data: ike(35, 0x08, 46, 1, strings.Repeat("x", 200))}, {at: 20, node: true, data: ike(35, 0x20, 46, 1, strings.Repeat("x", 52))}},
			[]string{"ikev2 IKE_AUTH refused app"}},
		{"openvpn silent", true, 1194, []wire{{at: 10, data: openvpnReset}, {at: 2010, data: openvpnReset}, {at: 6010, data: openvpnReset}, {at: 14010, data: openvpnReset}},
			[]string{"openvpn HARD_RESET timeout silence x4"}},
		{"openvpn over tcp, until the server goes", false, 1194, []wire{{at: 10, data: "\x00\x0e" + openvpnReset}, {at: 20, node: true, data: "\x00\x1a" + openvpnAnswer},
			{at: 500, node: true, data: "\x00\x0c" + unhex("4800000a0000000135363738")}, {at: 60000, node: true, flag: dissect.FIN}},
			[]string{"openvpn HARD_RESET accepted app until node"}},
		{"lwm2m registers, repeats an update in vain", true, 5683, []wire{{at: 10, data: coapRegister}, {at: 2510, data: coapRegister}, {at: 2540, node: true, data: coapCreated},
			{at: 30000, data: coapUpdate}, {at: 32400, data: coapUpdate}, {at: 37200, data: coapUpdate}, {at: 46800, data: coapUpdate}, {at: 66000, data: coapUpdate}, {at: 150000, data: coapGet}},
			[]string{"coap register accepted app x2", "coap update timeout silence x5", "coap GET timeout silence"}},
		{"lwm2m server overloaded", true, 5683, []wire{{at: 10, data: coapRegister}, {at: 40, node: true, data: coapMessage(coapACK, coapOverloaded, 0x7d34, "reg1", optionMaxAge, "\x3c")}},
			[]string{"coap register throttled app after 60 s"}},
		{"radius with a challenge", true, 1812, []wire{{at: 10, data: radiusPacket(1, 7, user)}, {at: 20, node: true, data: radiusPacket(11, 7, "\x18\x06abcd")},
			{at: 30, data: radiusPacket(1, 8, user+"\x18\x06abcd")}, {at: 40, node: true, data: radiusPacket(2, 8, user)}},
			[]string{"radius Access-Request accepted app"}},
		{"radius refused, another accepted", true, 1812, []wire{{at: 10, data: radiusPacket(1, 7, user)}, {at: 11, data: radiusPacket(1, 8, "\x01\x05eve")},
			{at: 20, node: true, data: radiusPacket(2, 8, user)}, {at: 21, node: true, data: radiusPacket(3, 7, user)}},
			[]string{"radius Access-Request refused app", "radius Access-Request accepted app"}},
		{"dns failed", true, 53, []wire{{at: 10, data: query}, {at: 5010, data: query}, {at: 5020, node: true, data: dnsMessage(7, 0x8182, 33, "_sip._udp.example.org", "")}},
			[]string{"dns SRV refused app x2"}},
		{"dns over tcp", false, 53, []wire{{at: 10, data: "\x00\x27" + query}, {at: 20, node: true, data: "\x00\x27" + dnsMessage(7, 0x8180, 33, "_sip._udp.example.org", "")}, {at: 21, flag: dissect.FIN}},
			[]string{"dns SRV accepted app until client"}},
		{"http login", false, 80, []wire{{at: 10, data: "GET /a HTTP/1.1\r\n\r\n"}, {at: 20, node: true, data: "HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n"},
			{at: 30, data: "GET /a HTTP/1.1\r\nAuthorization: x\r\n\r\n"}, {at: 40, node: true, data: "HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\nok"}},
			[]string{"http GET accepted app"}},
		{"http twice, then busy", false, 80, []wire{{at: 10, data: "GET /a HTTP/1.1\r\n\r\n"}, {at: 20, node: true, data: "HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\nok"},
			{at: 30, data: "GET /a HTTP/1.1\r\n\r\n"}, {at: 40, node: true, data: "HTTP/1.1 503 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"}},
			[]string{"http GET accepted app", "http GET throttled app after 7 s"}},
		{"tls refused", false, 443, []wire{{at: 10, data: hello}, {at: 20, node: true, data: record(tlsAlert, []byte{2, 40})}},
			[]string{"tls ClientHello refused app"}},
		{"tls given up", false, 443, []wire{{at: 10, data: hello}, {at: 9000, flag: dissect.FIN}},
			[]string{"tls ClientHello stalled fin"}},
		{"tls in a capture of 96 bytes", false, 443, []wire{{at: 10, data: hello, cut: 42}, {at: 20, node: true, data: answer, cut: 42}},
			[]string{"tls ClientHello accepted app"}},
		{"quic with a retry", true, 443, []wire{{at: 10, data: initial}, {at: 1010, data: initial}, {at: 1020, node: true, data: quicLong(3, quicV1, "client", "retried1", "token"+strings.Repeat("t", 16))},
			{at: 1030, data: retried}, {at: 1040, node: true, data: quicLong(2, quicV1, "client", "server01", "\x40\x40"+strings.Repeat("h", 64))}},
			[]string{"quic Initial accepted app x2"}},
		{"diameter busy", false, 3868, []wire{{at: 10, data: cer}, {at: 20, node: true, data: diameterMessage(0x20, 257, 7, diameterResult(3004))}},
			[]string{"diameter Capabilities-Exchange throttled app"}},
		{"libp2p, second proposal", false, 4001, []wire{{at: 10, data: multistream + "\x0b/tls/1.0.0\n"}, {at: 20, node: true, data: multistream + "\x03na\n"},
			{at: 30, data: "\x07/noise\n"}, {at: 40, node: true, data: "\x07/noise\n"}},
			[]string{"libp2p /tls refused app", "libp2p /noise accepted app"}},
		{"derp", false, 80, []wire{{at: 10, data: "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n"}, {at: 20, node: true, data: "\x01\x00\x00\x00\x28" + derpMagic + strings.Repeat("s", 32)},
			{at: 30, data: "\x02\x00\x00\x00\x40" + strings.Repeat("c", 64)}, {at: 40, node: true, data: "\x03\x00\x00\x00\x04info"}},
			[]string{"derp GET /derp accepted app"}},
		{"tor directory busy", false, 9030, []wire{{at: 10, data: "GET /tor/server/all.z HTTP/1.0\r\n\r\n"}, {at: 20, node: true, data: "HTTP/1.0 503 Directory busy\r\n\r\n"}},
			[]string{"tor GET throttled app"}},
		{"tailscale", true, 41641, []wire{{at: 10, data: disco("k", discoPing)}, {at: 6000, data: disco("k", discoPing)}, {at: 6020, node: true, data: disco("n", discoPong)}},
			[]string{"tailscale ping timeout silence", "tailscale ping accepted app"}},
		{"nebula: a burst unanswered, then a tunnel that is forgotten", true, 4242, []wire{{at: 10, data: nebulaAsk}, {at: 310, data: nebulaAsk}, {at: 810, data: nebulaAsk},
			{at: 10010, data: nebulaFirstOf("node7", 10, 1)}, {at: 10020, node: true, data: nebulaPacket(0, 0, 10, 2, noise(200))}, {at: 10030, data: nebulaUpdate},
			{at: 20030, data: nebulaPacket(4, 0, 77, 5, noise(16))}, {at: 20040, node: true, data: nebulaPacket(4, 1, 10, 3, noise(16))},
			{at: 30030, data: nebulaPacket(4, 0, 77, 6, noise(16))}, {at: 30040, node: true, data: nebulaPacket(2, 0, 10, 0, "")}},
			[]string{"nebula Handshake timeout silence x3", "nebula Handshake accepted app until lost", "nebula Test accepted app until lost", "nebula Test refused app"}},
		{"gnutella: in, until the ultrapeer goes", false, 6346, []wire{{at: 10, data: gnutellaConnect}, {at: 20, node: true, data: gnutellaYes}, {at: 30, data: gnutellaThanks},
			{at: 60000, node: true, flag: dissect.FIN}}, []string{"gnutella CONNECT accepted app until node"}},
		{"gnutella: a BYE, and the ultrapeer closes", false, 6346, []wire{{at: 10, data: gnutellaConnect}, {at: 20, node: true, data: gnutellaYes}, {at: 30, data: gnutellaThanks},
			{at: 60000, data: gnutellaBinary(2, "\xc8\x00shutting down\x00")}, {at: 60010, node: true, flag: dissect.FIN}}, []string{"gnutella CONNECT accepted app until client"}},
		{"gnutella: no thanks", false, 6346, []wire{{at: 10, data: gnutellaConnect}, {at: 20, node: true, data: gnutellaYes}, {at: 30, data: "GNUTELLA/0.6 503 Not needed\r\n\r\n"}},
			[]string{"gnutella CONNECT accepted app until client"}},
		{"gnutella: try others", false, 6346, []wire{{at: 10, data: gnutellaConnect}, {at: 20, node: true, data: "GNUTELLA/0.6 503 Full\r\nX-Try-Ultrapeers: 10.0.0.2:6346\r\n\r\n"}, {at: 21, node: true, flag: dissect.FIN}},
			[]string{"gnutella CONNECT throttled app"}},
		{"gnutella, pinged", true, 6346, []wire{{at: 10, data: gnutellaPing}, {at: 20, node: true, data: gnutellaPong}, {at: 90000, data: "\x5e" + gnutellaPing[1:]}},
			[]string{"gnutella PING accepted app", "gnutella PING timeout silence"}},
		{"bittorrent", false, 6881, []wire{{at: 10, data: peerHello}, {at: 20, node: true, data: peerHello}, {at: 9000, node: true, flag: dissect.RST}},
			[]string{"bittorrent handshake accepted app until node"}},
		{"bittorrent, unwanted", false, 6881, []wire{{at: 10, data: peerHello}, {at: 20, node: true, flag: dissect.FIN}}, []string{"bittorrent handshake dropped fin"}},
		{"tracker in two steps, then an error, then no more", true, 6969, []wire{{at: 10, data: trackerConnect}, {at: 15010, data: trackerConnect}, {at: 15020, node: true, data: trackerConnected},
			{at: 15030, data: announce("TXN2", 2)}, {at: 15040, node: true, data: "\x00\x00\x00\x01TXN2\x00\x00\x07\x08\x00\x00\x00\x00\x00\x00\x00\x01"},
			{at: 60000, data: announce("TXN3", 0)}, {at: 60010, node: true, data: "\x00\x00\x00\x03TXN3Connection ID mismatch"}, {at: 61000, data: announce("TXN4", 3)}},
			[]string{"bt-tracker connect accepted app x2 until client", "bt-tracker announce refused app"}},
		{"tracker over http, later", false, 80, []wire{{at: 10, data: trackerGet}, {at: 20, node: true, data: "HTTP/1.0 200 OK\r\n\r\nd14:failure reason4:busy8:retry ini5ee"}, {at: 21, node: true, flag: dissect.FIN}},
			[]string{"bt-tracker announce throttled app after 300 s"}},
		{"dht", true, 6881, []wire{{at: 10, data: dhtPing}, {at: 20, node: true, data: dhtPong}, {at: 30, data: strings.Replace(dhtPing, "2:aa", "2:ab", 1)}, {at: 40, node: true, data: strings.Replace(dhtError, "2:aa", "2:ab", 1)}},
			[]string{"bt-dht ping accepted app", "bt-dht ping refused app"}},
		{"utp refused", true, 6881, []wire{{at: 10, data: utpSyn}, {at: 1010, data: utpSyn}, {at: 1020, node: true, data: "\x31" + utpSyn[1:]}}, []string{"bt-utp SYN refused app x2"}},
		{"utp closed", true, 6881, []wire{{at: 10, data: utpSyn}, {at: 20, node: true, data: utpState}, {at: 9000, node: true, data: "\x11" + utpSyn[1:]}}, []string{"bt-utp SYN accepted app until node"}},
		{"bitcoin of 2011", false, 8333, []wire{{at: 10, data: bitcoinVersion2011}, {at: 20, node: true, data: bitcoinVersion2011 + bitcoinVerack2011}, {at: 30, data: bitcoinVerack2011}, {at: 90000, flag: dissect.FIN}},
			[]string{"bitcoin version accepted app until client"}},
		{"bitcoin too old", false, 8333, []wire{{at: 10, data: bitcoinVersion}, {at: 20, node: true, data: "\xf9\xbe\xb4\xd9reject\x00\x00\x00\x00\x00\x00\x12\x00\x00\x00abcd\x07version\x11\x08obsolete"}},
			[]string{"bitcoin version refused app"}},
		{"tls, closed by the node", false, 443, []wire{{at: 10, data: hello}, {at: 20, node: true, data: answer}, {at: 30000, node: true, data: record(tlsAlert, []byte{1, 0})}},
			[]string{"tls ClientHello accepted app until node"}},
		{"quic, another version", true, 443, []wire{{at: 10, data: initial}, {at: 20, node: true, data: "\x80\x00\x00\x00\x00\x06client\x08original\x6b\x33\x43\xcf\x1a\x2a\x3a\x4a"}},
			[]string{"quic Initial refused app"}},
		{"gquic: turned back once", true, 443, []wire{{at: 10, data: gquicFirst}, {at: 20, node: true, data: gquicReject}, {at: 30, data: gquicSecond}, {at: 40, node: true, data: gquicYes}},
			[]string{"gquic CHLO accepted app"}},
		{"gquic, reset", true, 443, []wire{{at: 10, data: gquicFirst}, {at: 510, data: gquicFirst}, {at: 520, node: true, data: "\x0econnecti" + gquicHello("PRST", "RNON", "12345678")}},
			[]string{"gquic CHLO refused app x2"}},
		{"http, wish by wish", false, 80, []wire{{at: 10, data: "GET /nodes.dat HTTP/1.1\r\n\r\n"}, {at: 20, node: true, data: "HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\nok"},
			{at: 30, data: "GET /b HTTP/1.1\r\n\r\n"}, {at: 40, node: true, data: "HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"}, {at: 41, node: true, flag: dissect.FIN}},
			[]string{"http GET accepted app until node", "http GET refused app"}},
		{"sip, in and out", true, 5060, []wire{{at: 10, data: sipRegister(1, "")}, {at: 20, node: true, data: sipAnswer(1, "200 OK", "Expires: 60\r\n")},
			{at: 30000, data: sipRegister(2, "Contact: *\r\nExpires: 0\r\n")}, {at: 30010, node: true, data: sipAnswer(2, "200 OK", "")}},
			[]string{"sip REGISTER accepted app until client"}},
		{"sip with a login", true, 5060, []wire{{at: 10, data: sipRegister(1, "")}, {at: 20, node: true, data: sipAnswer(1, "401 Unauthorized", "")},
			{at: 30, data: sipRegister(2, sipLogin)}, {at: 40, node: true, data: sipAnswer(2, "200 OK", "Expires: 60\r\n")}},
			[]string{"sip REGISTER accepted app"}},
		{"sip, wrong password, then forbidden", true, 5060, []wire{{at: 10, data: sipRegister(1, "")}, {at: 20, node: true, data: sipAnswer(1, "407 Proxy Authentication Required", "")},
			{at: 30, data: sipRegister(2, sipLogin)}, {at: 40, node: true, data: sipAnswer(2, "407 Proxy Authentication Required", "")},
			{at: 5000, data: sipRegister(3, sipLogin)}, {at: 5010, node: true, data: sipAnswer(3, "403 Forbidden", "")}},
			[]string{"sip REGISTER refused app", "sip REGISTER refused app"}},
		{"sip, two users of one socket", true, 5060, []wire{{at: 10, data: sipRegister(1, "")}, {at: 12, data: sipOther(sipRegister(11, ""))},
			{at: 20, node: true, data: sipAnswer(1, "401 Unauthorized", "")}, {at: 22, node: true, data: sipOther(sipAnswer(11, "401 Unauthorized", ""))},
			{at: 30, data: sipRegister(2, sipLogin)}, {at: 32, data: sipOther(sipRegister(12, sipLogin))},
			{at: 40, node: true, data: sipAnswer(2, "401 Unauthorized", "")}, {at: 42, node: true, data: sipOther(sipAnswer(12, "401 Unauthorized", ""))},
			{at: 5000, data: sipRegister(3, sipLogin)}, {at: 5010, node: true, data: sipAnswer(3, "200 OK", "")}},
			[]string{"sip REGISTER refused app", "sip REGISTER refused app", "sip REGISTER accepted app"}},
		{"sip, the challenge late and twice", true, 5060, []wire{{at: 10, data: sipRegister(1, "")}, {at: 20, node: true, data: sipAnswer(1, "401 Unauthorized", "")},
			{at: 30, data: sipRegister(2, sipLogin)}, {at: 32, node: true, data: sipAnswer(1, "401 Unauthorized", "")}, {at: 40, node: true, data: sipAnswer(2, "200 OK", "")}},
			[]string{"sip REGISTER accepted app"}},
		{"sip, too brief, then longer", true, 5060, []wire{{at: 10, data: sipRegister(1, "Expires: 30\r\n")}, {at: 20, node: true, data: sipAnswer(1, "423 Interval Too Brief", "Min-Expires: 300\r\n")},
			{at: 30, data: sipRegister(2, "Expires: 300\r\n")}, {at: 40, node: true, data: sipAnswer(2, "200 OK", "Expires: 300\r\n")}},
			[]string{"sip REGISTER accepted app"}},
		{"sip, busy and elsewhere", true, 5060, []wire{{at: 10, data: sipRegister(1, "")}, {at: 20, node: true, data: sipAnswer(1, "503 Service Unavailable", "Retry-After: 30\r\n")},
			{at: 30020, data: sipRegister(2, "")}, {at: 30030, node: true, data: sipAnswer(2, "302 Moved Temporarily", "Contact: <sip:b.example.org>\r\n")}},
			[]string{"sip REGISTER throttled app after 30 s", "sip REGISTER throttled app"}},
		{"sip, silent: timer E", true, 5060, timerE(sipRegister(1, "")), []string{"sip REGISTER timeout silence x11"}},
		{"sip over one connection", false, 5060, []wire{{at: 10, data: sipRegister(1, "")}, {at: 20, node: true, data: sipAnswer(1, "200 OK", "Expires: 60\r\n") + "\r\n"},
			{at: 30000, data: sipRegister(2, "")}, {at: 30010, node: true, data: sipAnswer(2, "480 Temporarily Unavailable", "")},
			{at: 40000, data: "\r\n\r\n"}, {at: 40010, node: true, data: "\r\n"}, {at: 160000, data: "\r\n\r\n"}},
			[]string{"sip REGISTER accepted app", "sip REGISTER refused app", "sip ping accepted app", "sip ping stalled silence"}},
		{"turn with a login, then the relay forgets", true, 3478, []wire{{at: 10, data: turnAsk}, {at: 510, data: turnAsk}, {at: 520, node: true, data: stunPacket(0x0113, 'a', stunFailure(401))},
			{at: 530, data: turnAgain}, {at: 540, node: true, data: turnYes}, {at: 500000, data: turnRefresh}, {at: 500010, node: true, data: stunPacket(0x0114, 'c', stunFailure(437))}},
			[]string{"stun Allocate accepted app x2", "stun Refresh refused app"}},
		{"turn over tcp, full", false, 3478, []wire{{at: 10, data: turnAsk}, {at: 20, node: true, data: stunPacket(0x0113, 'a', stunFailure(401))},
			{at: 30, data: turnAgain}, {at: 40, node: true, data: stunPacket(0x0113, 'b', stunFailure(486))}},
			[]string{"stun Allocate throttled app"}},
		{"turn, wrong password", true, 3478, []wire{{at: 10, data: turnAsk}, {at: 20, node: true, data: stunPacket(0x0113, 'a', stunFailure(401))},
			{at: 30, data: turnAgain}, {at: 40, node: true, data: stunPacket(0x0113, 'b', stunFailure(401))}},
			[]string{"stun Allocate refused app"}},
		{"stun, silent", true, 3478, []wire{{at: 10, data: stunPacket(1, 'e')}, {at: 510, data: stunPacket(1, 'e')}, {at: 1510, data: stunPacket(1, 'e')}, {at: 30000, data: stunPacket(1, 'f')}},
			[]string{"stun Binding timeout silence x3", "stun Binding timeout silence"}},
		{"nebula: a lighthouse that stops", true, 4242, []wire{{at: 10, data: nebulaAsk}, {at: 20, node: true, data: nebulaYes}, {at: 30, data: nebulaUpdate},
			{at: 20030, data: nebulaPacket(4, 0, 77, 5, noise(16))}, {at: 20040, node: true, data: nebulaPacket(4, 1, 9, 3, noise(16))}, {at: 21000, node: true, data: nebulaPacket(5, 0, 9, 4, noise(16))}},
			[]string{"nebula Handshake accepted app until node", "nebula Test accepted app until node"}},
		{"wireguard under load", true, 51820, []wire{{at: 10, data: wgAsk}, {at: 20, node: true, data: wgCookie}, {at: 5200, data: wgAgain}, {at: 5210, node: true, data: strings.Replace(wgYes, "\xd8\x37\xd0\x30", "\xc5\x41\xfd\xbf", 1)}, {at: 10400, data: wgAsk[:4] + "2" + wgAsk[5:]}},
			[]string{"wireguard initiation throttled app", "wireguard initiation with cookie accepted app", "wireguard initiation timeout silence"}},
		{"n2n registers, is refused, goes on", true, 7654, []wire{{at: 10, data: n2nAsk3}, {at: 11, node: true, data: n2nYes3}, {at: 20000, data: n2nCookie("2")},
			{at: 24000, data: n2nCookie("3")}, {at: 24010, node: true, data: strings.Replace(n2nNo3, "\x0d\x47\x2a\xc0", "3333", 1)}, {at: 28000, data: n2nCookie("4")}},
			[]string{"n2n REGISTER_SUPER accepted app", "n2n REGISTER_SUPER timeout silence", "n2n REGISTER_SUPER refused app", "n2n REGISTER_SUPER timeout silence"}},
		{"n2n over tcp, and a good-bye", false, 7654, []wire{{at: 10, data: "\x00\x4f" + n2nAsk3}, {at: 11, node: true, data: "\x00\x3a" + n2nYes3}, {at: 50000, data: "\x00\x32" + n2nBye3}},
			[]string{"n2n REGISTER_SUPER accepted app until client"}},
		{"n2n version 1", true, 7654, []wire{{at: 10, data: n2nAsk1}, {at: 11, node: true, data: n2nYes1}, {at: 60010, data: n2nAsk1}},
			[]string{"n2n REGISTER accepted app", "n2n REGISTER timeout silence"}},
		{"n2n with encrypted headers", true, 7654, []wire{{at: 10, data: noise(79)}, {at: 4000, data: noise(79)}, {at: 4001, node: true, data: noise(58)}},
			[]string{"n2n encrypted registration timeout silence", "n2n encrypted registration accepted app"}},
		{"n2n 2.8 with encrypted headers", true, 7654, []wire{{at: 10, data: noise(34)}, {at: 15, node: true, data: noise(41)}, {at: 20010, data: noise(34)}, {at: 24010, data: noise(34)}, {at: 24020, node: true, data: noise(49)}},
			[]string{"n2n encrypted registration accepted app", "n2n encrypted registration timeout silence", "n2n encrypted registration accepted app"}},
		{"zerotier", true, 9993, []wire{{at: 10, data: zerotierPacket("packet_1", "root!", "clnt!", 1)}, {at: 20, node: true, data: "packet_9clnt!root!\x08" + strings.Repeat("e", 60)}},
			[]string{"zerotier HELLO accepted app"}},
		{"tinc unwanted", false, 655, []wire{{at: 10, data: "0 think 17\n"}, {at: 20, node: true, data: "0 iniz 17\n"}, {at: 30, node: true, flag: dissect.FIN}},
			[]string{"tinc ID dropped fin"}},
		{"tor, a guard", false, 9001, []wire{{at: 10, data: torHello("www.4gk67zpn3brh7qxg.com", "")}, {at: 20, node: true, data: answer}}, []string{"tor ClientHello accepted app"}},
		{"syncthing: a relay is joined, then restarted", false, 22067, append(relayed(33, 45), wire{at: 60000, node: true, data: sealed(29)}, wire{at: 60010, data: sealed(29)}, wire{at: 90000, node: true, flag: dissect.RST}),
			[]string{"syncthing ClientHello accepted app until node"}},
		{"syncthing: a relay is full", false, 22067, append(relayed(33, 29), wire{at: 31, node: true, flag: dissect.FIN}), []string{"syncthing ClientHello throttled app"}},
		{"syncthing: a device that the relay does not know", false, 22067, append(relayed(65, 49), wire{at: 31, node: true, flag: dissect.FIN}), []string{"syncthing ClientHello refused app"}},
		{"syncthing: a relay that says nothing", false, 22067, append(relayed(33, 0), wire{at: 20000, flag: dissect.FIN}), []string{"syncthing ClientHello stalled fin"}},
		{"syncthing: a session", false, 22067, []wire{{at: 10, data: joinSession}, {at: 20, node: true, data: relayResponse(0, "success")}}, []string{"syncthing JoinSessionRequest accepted app"}},
		{"syncthing: a session that is over", false, 22067, []wire{{at: 10, data: joinSession}, {at: 20, node: true, data: relayResponse(1, "not found")}}, []string{"syncthing JoinSessionRequest refused app"}},
		{"discv4", true, 30303, []wire{{at: 10, data: discPing}, {at: 20, node: true, data: discPacket(2, 2, endpoint+"\xa0"+discPing[:32]+expires)}},
			[]string{"discv4 ping accepted app"}},
		{"discv5", true, 9000, []wire{{at: 10, data: noise(120)}, {at: 20, node: true, data: noise(63)}, {at: 30, data: noise(320)}, {at: 40, node: true, data: noise(90)}},
			[]string{"discv5 question accepted app"}},
		{"rlpx", false, 30303, []wire{{at: 10, data: rlpxAuth}, {at: 20, node: true, data: rlpxAck}}, []string{"rlpx auth accepted app"}},
		{"rlpx, too many peers", false, 30303, []wire{{at: 10, data: rlpxAuth}, {at: 20, node: true, flag: dissect.FIN}}, []string{"rlpx auth dropped fin"}},
		{"yggdrasil", false, 12345, []wire{{at: 10, data: yggMeta}, {at: 20, node: true, data: yggMeta[:22] + noise(33)[1:] + yggMeta[54:]}}, []string{"yggdrasil meta accepted app"}},
		{"edonkey: a server that is full", false, 4661, []wire{{at: 10, data: edonkeyLogin}, {at: 20, node: true, data: unhex("e311000000 38 0e00") + "server is full"}},
			[]string{"edonkey LOGIN throttled app"}},
		{"edonkey: a peer", false, 4662, []wire{{at: 10, data: edonkeyHello}, {at: 20, node: true, data: edonkeyAnswer}}, []string{"edonkey HELLO accepted app"}},
		{"edonkey: how full is the server", true, 4665, []wire{{at: 10, data: unhex("e396 1234aa55")}, {at: 20, node: true, data: unhex("e397 1234aa55 0100000002000000")}, {at: 30, data: unhex("e396 1334aa55")}},
			[]string{"edonkey GLOBSERVSTATREQ accepted app", "edonkey GLOBSERVSTATREQ timeout silence"}},
		{"kad", true, 4672, []wire{{at: 10, data: "\xe4\x01"}, {at: 20, node: true, data: "\xe5\x09" + noise(40)}}, []string{"kad BOOTSTRAP accepted app"}},
		{"fasttrack", false, 1214, []wire{{at: 10, data: fasttrackHello}, {at: 20, node: true, data: fasttrackSeed}}, []string{"fasttrack session accepted app"}},
		{"fasttrack, pinged", true, 1214, []wire{{at: 10, data: fasttrackPing}, {at: 20, node: true, data: fasttrackPong}, {at: 30000, data: fasttrackPing}},
			[]string{"fasttrack ping accepted app", "fasttrack ping timeout silence"}},
		{"ares", false, 18050, []wire{{at: 10, data: aresHello}, {at: 20, node: true, data: aresAgreed}}, []string{"ares first login accepted app"}},
		{"ares, full", false, 18050, []wire{{at: 10, data: aresHello}, {at: 20, node: true, data: "\x00\x00\x3b"}}, []string{"ares first login throttled app"}},
		{"skype on 443", false, 443, []wire{{at: 10, data: skypeHello + noise(16)}, {at: 20, node: true, data: skypeServerHello + noise(20)}, {at: 30, data: noise(8)}, {at: 40, node: true, data: noise(8)}},
			[]string{"skype attach accepted app"}},
		{"skype of 2006, refused", false, 33033, []wire{{at: 10, data: noise(14)}, {at: 20, node: true, data: noise(73)}, {at: 30, data: noise(27)}, {at: 40, node: true, data: noise(339)}},
			[]string{"skype attach refused app"}},
		{"skype of 2015, starved", false, 40008, []wire{{at: 10, data: noise(50)}, {at: 20, node: true, data: noise(103)}, {at: 30, data: noise(8)}, {at: 16000, flag: dissect.FIN}},
			[]string{"skype attach stalled fin"}},
		{"skype login", false, 33033, []wire{{at: 10, data: skypeLogin}, {at: 20, node: true, data: skypeLogged}, {at: 30, data: login2006}, {at: 40, node: true, data: "\x17\x03\x01\x00" + noise(228)}},
			[]string{"skype login accepted app"}},
		{"skype login, dropped", false, 12350, []wire{{at: 10, data: skypeLogin}, {at: 400, node: true, flag: dissect.RST}}, []string{"skype login dropped rst"}},
		{"skype probe", true, 33033, []wire{{at: 10, data: unhex(skypeAsk)}, {at: 20, node: true, data: unhex(skypeNack)}, {at: 30, data: unhex(skypeU3)}, {at: 40, node: true, data: "\x94\x91\x02" + noise(48)}},
			[]string{"skype probe refused app"}},
	}
}

// TestRows: what the messages of a protocol make of an attempt.
func TestRows(t *testing.T) {
	for _, c := range scenes() {
		transport := uint8(dissect.ProtoTCP)
		if c.udp {
			transport = dissect.ProtoUDP
		}
		if got := scene(t, transport, c.port, c.packets); !slices.Equal(got, c.rows) {
			t.Errorf("%s: %q, want %q", c.name, got, c.rows)
		}
	}
}
