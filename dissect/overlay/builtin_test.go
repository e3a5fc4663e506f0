package overlay

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"squall/dissect"
)

// described is the n-th protocol of a name that a built-in file describes.
func described(t testing.TB, name string, n int) dissect.Protocol {
	t.Helper()
	for _, p := range builtin() {
		if p.Name() == name {
			if n == 0 {
				return p
			}
			n--
		}
	}
	t.Fatalf("no built-in file describes %s", name)
	return nil
}

// The bytes of the capture of 2006 and of edonkey.pcap, and made-up ones where
// no capture has them.
var (
	fasttrackHello = unhex("fa00b62b facb1238 3209d232")
	fasttrackSeed  = unhex("7d9550ba 5211a0c5 a2d04472 142e")
	fasttrackPing  = unhex("27 00000029 80 4b615a614100")
	fasttrackPong  = unhex("28 000000a9 000f59d94efa 4b615a614100")
	aresHello      = unhex("03 00 5a 060605")
	aresAgreed     = unhex("87 00 3c") + noise(135)
	edonkeyHello   = unhex("e377000000 01 10 1b42cd5b940ed779c20ab755fe256f97") + noise(124-23)
	edonkeyAnswer  = unhex("e37f000000 4c") + noise(126)
	edonkeyLogin   = unhex("e326000000 01 0123456789abcdef0123456789abcdef 00000000 3612 00000000") + noise(11)
	kadTarget      = noise(16)
	rlpxAuth       = unhex("01ed 04") + noise(492)
	rlpxAck        = unhex("01be 04") + noise(445)
	yggKey         = noise(32)
	yggMeta        = unhex("6d657461 0075 000000020000 000100020005 00020020") + yggKey + unhex("0003000100") + noise(64)
)

func TestBuiltinFiles(t *testing.T) {
	names, err := fs.Glob(signatures, "signatures/*.yaml")
	if err != nil || len(names) == 0 || len(builtin()) < len(names) {
		t.Fatalf("%d files, %d protocols, %v", len(names), len(builtin()), err)
	}
	for _, p := range builtin() {
		if s := p.(*signature); s.about == "" || len(s.messages) == 0 {
			t.Errorf("%s does not say what it is known by", p.Name())
		}
	}
}

func TestFastTrack(t *testing.T) {
	p := described(t, "fasttrack", 0)
	converse(t, p, dissect.ProtoTCP, 2133, []line{
		{data: fasttrackHello, kind: dissect.KindRequest, op: "session", role: dissect.RoleSupernode},
		{node: true, data: fasttrackSeed, kind: dissect.KindAccept, op: "seed"},
		{data: unhex("c404df849883"), kind: dissect.KindData},
	})
	strangers(t, p, dissect.ProtoTCP, 1214, fasttrackHello[:11], fasttrackHello+"x", "\x00"+fasttrackHello[1:], fasttrackSeed)
	udp := described(t, "fasttrack", 1)
	for _, pong := range []string{fasttrackPong, unhex("29000000a902010000375375a6403ecebdb08f0000")} {
		converse(t, udp, dissect.ProtoUDP, 2997, []line{
			{data: fasttrackPing, kind: dissect.KindRequest, op: "ping", role: dissect.RoleSupernode},
			{node: true, data: pong, kind: dissect.KindAccept, same: 1},
		})
	}
	strangers(t, udp, dissect.ProtoUDP, 1214, fasttrackPing[:7], fasttrackPing[:5]+"\x7f"+fasttrackPing[6:], fasttrackPong[:16], fasttrackPong+"x", noise(12))
	peer := described(t, "fasttrack", 2)
	get := "GET /.hash=b905bbf4a5ec7bba HTTP/1.1\r\nX-Kazaa-Username: anon\r\nUser-Agent: KazaaClient Nov  3 2002\r\n\r\n"
	converse(t, peer, dissect.ProtoTCP, 3531, []line{
		{data: get, kind: dissect.KindRequest, op: "GET", id: "anon", version: "KazaaClient Nov  3 2002", role: dissect.RolePeer},
		{node: true, data: "HTTP/1.0 503 Service Unavailable\r\nRetry-After: 284\r\n\r\n", kind: dissect.KindThrottle, retry: 284 * second},
	})
	converse(t, peer, dissect.ProtoTCP, 3531, []line{{data: get, kind: dissect.KindRequest},
		{node: true, data: "HTTP/1.1 206 Partial Content\r\n\r\n", kind: dissect.KindAccept, op: "2xx"}})
	converse(t, peer, dissect.ProtoTCP, 3531, []line{{data: get, kind: dissect.KindRequest},
		{node: true, data: "HTTP/1.1 404 Not Found\r\n\r\n", kind: dissect.KindRefuse}})
	strangers(t, peer, dissect.ProtoTCP, 80, "GET /hash HTTP/1.1\r\n\r\n", "GET /.well-known/acme HTTP/1.1\r\n\r\n")
}

func TestAres(t *testing.T) {
	p := described(t, "ares", 0)
	converse(t, p, dissect.ProtoTCP, 18050, []line{
		{data: aresHello, kind: dissect.KindRequest, op: "first login", role: dissect.RoleSupernode},
		{node: true, data: aresAgreed, kind: dissect.KindAccept, op: "agreed"},
	})
	for code, want := range map[string]dissect.Kind{"\x33": dissect.KindAccept, "\x38": dissect.KindAccept, "\x3a": dissect.KindRefuse, "\x3b": dissect.KindThrottle, "\x01": dissect.KindData} {
		converse(t, p, dissect.ProtoTCP, 18050, []line{{data: aresHello, kind: dissect.KindRequest}, {node: true, data: "\x00\x00" + code, kind: want}})
	}
	strangers(t, p, dissect.ProtoTCP, 18050, aresHello[:5], "\x03\x00\x00\x25\x25\xe0", "\x03\x00\x5a\x06\x06\x06", noise(6)) // the second is TPKT
}

func TestEDonkey(t *testing.T) {
	p := described(t, "edonkey", 0)
	converse(t, p, dissect.ProtoTCP, 7551, []line{
		{data: edonkeyHello, kind: dissect.KindRequest, op: "HELLO", id: unhex("1b42cd5b940ed779c20ab755fe256f97"), role: dissect.RolePeer},
		{node: true, data: edonkeyAnswer, kind: dissect.KindAccept, op: "HELLOANSWER"},
	})
	login := line{data: edonkeyLogin, kind: dissect.KindRequest, op: "LOGIN", id: unhex("0123456789abcdef0123456789abcdef"), role: dissect.RoleSupernode}
	full := "server is full"
	for answer, want := range map[string]dissect.Kind{
		unhex("e305000000 40 78563412"):                  dissect.KindAccept,
		unhex("e301000000 05"):                           dissect.KindRefuse,
		unhex("e311000000 38 0e00") + full:               dissect.KindThrottle,
		unhex("e30a000000 38 0700") + "welcome":          dissect.KindProgress,
		unhex("e309000000 34 0100000002000000"):          dissect.KindData,
		unhex("c505000000 40 78563412") + "\xe3\x01\x00": dissect.KindAccept,
	} {
		if strings.HasPrefix(answer, "\xc5") {
			answer = answer[:10]
		}
		converse(t, p, dissect.ProtoTCP, 4661, []line{login, {node: true, data: answer, kind: want}})
	}
	// Rows 2 and 3: the length does not fit; a message of MongoDB of the same length.
	strangers(t, p, dissect.ProtoTCP, 9, edonkeyHello[:7], edonkeyLogin+"x", unhex("e3000000 01000000 00000000 dd070000")+noise(0xe3-16), noise(60))
	udp := described(t, "edonkey", 1)
	converse(t, udp, dissect.ProtoUDP, 4665, []line{
		{data: unhex("e396 1234aa55"), kind: dissect.KindRequest, role: dissect.RoleSupernode},
		{node: true, data: unhex("e397 1234aa55 0100000002000000"), kind: dissect.KindAccept, same: 1},
	})
	strangers(t, udp, dissect.ProtoUDP, 9, unhex("e396 1234aa5500"), unhex("e395 1234aa55"))
	// Without the mark of eMule it is a guess.
	if v := udp.Probe(packet(dissect.ProtoUDP, 40000, 9, unhex("e396 12345678"))); v != dissect.Maybe {
		t.Errorf("the probe says %d", v)
	}
}

func TestKad(t *testing.T) {
	p := described(t, "kad", 0)
	hello := "\xe4\x11" + kadTarget + "\x36\x12\x09\x00"
	converse(t, p, dissect.ProtoUDP, 4672, nil)
	for _, c := range [][2]line{
		{{data: "\xe4\x01", kind: dissect.KindRequest, role: dissect.RoleBootstrap}, {node: true, data: "\xe5\x09" + noise(40), kind: dissect.KindAccept}},
		{{data: hello, kind: dissect.KindRequest, id: kadTarget, role: dissect.RolePeer}, {node: true, data: "\xe4\x19" + hello[2:], kind: dissect.KindAccept}},
		{{data: "\xe4\x21\x0b" + kadTarget + noise(16), kind: dissect.KindRequest, op: "REQ"}, {node: true, data: "\xe4\x29" + kadTarget + "\x00", kind: dissect.KindAccept, same: 1}},
		{{data: "\xe4\x60", kind: dissect.KindRequest}, {node: true, data: "\xe4\x61\x36\x12", kind: dissect.KindAccept}},
	} {
		if v := p.Probe(packet(dissect.ProtoUDP, 40000, 4672, c[0].data)); v != dissect.Maybe {
			t.Errorf("%x: the probe says %d", c[0].data[:2], v)
		}
		guess(t, p, dissect.ProtoUDP, 4672, c[:])
	}
	strangers(t, p, dissect.ProtoUDP, 9, "\xe4\x02", "\xe4\x01x", "\xe4\x21\xfb"+noise(32), "\xe4\x21\x0b"+noise(33), "\xe4\x11"+noise(10))
}

func TestRLPx(t *testing.T) {
	p := described(t, "rlpx", 0)
	converse(t, p, dissect.ProtoTCP, 30303, []line{
		{data: rlpxAuth, kind: dissect.KindRequest, op: "auth", role: dissect.RolePeer},
		{node: true, data: rlpxAck, kind: dissect.KindAccept, op: "ack"},
	})
	strangers(t, p, dissect.ProtoTCP, 30303, rlpxAuth[:400], rlpxAuth+"x", "\x01\xed\x03"+noise(492), "\x00\x40\x04"+noise(63), "\x16\x03\x01"+noise(400))
}

func TestDiscv5(t *testing.T) {
	p := described(t, "discv5", 0)
	guess(t, p, dissect.ProtoUDP, 30303, []line{
		{data: noise(120), kind: dissect.KindRequest, op: "question", role: dissect.RolePeer},
		{node: true, data: noise(63), kind: dissect.KindChallenge, op: "WHOAREYOU", same: 1},
		{data: noise(320), kind: dissect.KindProgress, op: "handshake"},
		{node: true, data: noise(90), kind: dissect.KindAccept, op: "response", same: 1},
	})
	random := noise(120)
	if v := p.Probe(packet(dissect.ProtoUDP, 40000, 9000, random)); v != dissect.Maybe {
		t.Errorf("the probe says %d", v)
	}
	strangers(t, p, dissect.ProtoUDP, 9001, random)
	strangers(t, p, dissect.ProtoUDP, 9000, random[:62], strings.Repeat("text, and more text. ", 5), random[:8]+strings.Repeat("\x00", 60)+random, strings.Repeat("\x80", 100), strings.Repeat(random[:8], 20))
	var f dissect.Flow
	f.FromClient = true
	m := dissect.Message{FromClient: true}
	if _, err := p.Dissect(packet(dissect.ProtoUDP, 40000, 9000, random), &f, &m); err != nil || !m.ByPort || !m.Encrypted {
		t.Errorf("a guess by port does not say so: %+v, %v", m, err)
	}
}

func TestYggdrasil(t *testing.T) {
	p := described(t, "yggdrasil", 0)
	answer := yggMeta[:22] + noise(33)[1:] + yggMeta[54:]
	converse(t, p, dissect.ProtoTCP, 12345, []line{
		{data: yggMeta, kind: dissect.KindRequest, op: "meta", id: yggKey, version: "0.5", role: dissect.RolePeer},
		{node: true, data: answer, kind: dissect.KindAccept},
	})
	newer := yggMeta[:17] + "\x06" + yggMeta[18:]
	converse(t, p, dissect.ProtoTCP, 12345, []line{{data: newer, kind: dissect.KindRequest, id: yggKey}})
	strangers(t, p, dissect.ProtoTCP, 12345, yggMeta[:15], "meta name=x: a line of text, long enough for all", "META"+yggMeta[4:])
}

// guess plays a conversation whose protocol is not sure of itself.
func guess(t *testing.T, p dissect.Protocol, transport uint8, port uint16, lines []line) {
	t.Helper()
	converse(t, sure{p}, transport, port, lines)
}

type sure struct{ dissect.Protocol }

func (sure) Probe(*dissect.Datagram) dissect.Verdict { return dissect.Yes }

// FuzzBuiltin matches arbitrary bytes with all built-in files at once.
func FuzzBuiltin(f *testing.F) {
	for _, s := range []string{fasttrackHello, fasttrackPing, aresHello + aresAgreed, edonkeyHello, edonkeyLogin, "\xe4\x21\x0b" + kadTarget, rlpxAuth, yggMeta,
		"GET /.hash=x HTTP/1.0\r\n\r\n", "HTTP/1.0 503 x\r\nRetry-After: 99999999999999999999\r\n\r\n"} {
		f.Add([]byte(s), uint16(4672), false)
		f.Add([]byte(s), uint16(30303), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, port uint16, node bool) {
		for _, p := range builtin() {
			for _, transport := range []uint8{dissect.ProtoTCP, dissect.ProtoUDP} {
				d := packet(transport, 40000, port, string(b))
				probe(t, p, d)
				flow := dissect.Flow{FromClient: !node}
				for len(d.Payload) > 0 && !flow.Done {
					m := dissect.Message{FromClient: !node}
					n, err := p.Dissect(d, &flow, &m)
					if n < 0 || n > len(d.Payload) || n == 0 && err == nil {
						t.Fatalf("%s used %d of %d, %v", p.Name(), n, len(d.Payload), err)
					}
					if err != nil {
						break
					}
					flow.Seen += int64(n)
					d.Payload = d.Payload[n:]
					d.PayloadLen -= n
				}
			}
		}
	})
}

// The attempts of the capture of 2006 at supernodes of two other overlays. Those
// that sent nothing ("?" in the table) are known by the dials around them, as
// whoever made the table knew them.
func TestBuiltin2006AgainstTruth(t *testing.T) {
	src, dir := real(t, "overlay/skype-2006-irc.cap")
	rows := analyse(t, src, All())
	list := truths(t, filepath.Join(dir, "skype-2006-irc.attempts.tsv"))
	against(t, rows, firstTime(t, "overlay/skype-2006-irc.cap"), list, map[string]string{
		"FASTTRACK-SN": "fasttrack/supernode", "ARES-SN": "ares/supernode", "FASTTRACK-SN?": "fasttrack/supernode", "ARES-SN?": "ares/supernode",
	}, map[string]string{
		"1367": "the table counts any byte of the node as a session; the client had closed before it came",
		"1630": "the table counts any byte of the node as a session; the client had closed before it came",
		"4786": "14 bytes, then a RST within 0.4 s: rule 6 calls that dropped",
		"3098": "an ICMP host unreachable: rule 5",
		"4655": "the capture ends before the waiting does: rule 19",
	})
}
