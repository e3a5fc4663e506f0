package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// skype is Skype from 2003 to 2015 (protocols.md A): a closed protocol, known by
// sizes, a few constants and ports. A client climbs a ladder of transports at
// one supernode, which the rung names: udp, tcp (host:port), tcp-443, tcp-80.
//
// UDP: 0 2 id, the asker's plus 2 for each request | 2 1 type in the low nibble:
//
//	2 encrypted, question or answer; 3..6 IV, 7..10 CRC, the rest RC4
//	3 the question again after a NACK, 5 bytes longer; 3 = 01
//	5 confirmed, 11 bytes; 7 NACK, 11 bytes: 3..6 the asker's public address
//	d data, f fragment; 3..4 the id that it answers
//
// An answer of type 2 has an id of its own, so it pairs by addresses and time.
// 18 bytes are yes, which the client follows with a connection to the same port in
// the same intent, 51 and 53 are no; anything else is use made of the node.
// (26 bytes are a no if nothing follows, but far more often such use.)
//
// TCP to host:port is RC4 from the first byte; the fourth message tells. 2006:
// 14, x, 22..29 bytes, then 339 is no and more than 57 yes. 2015: x, y, 8
// bytes, then 8 is yes. Who comes to a third answer is attached, too. On 443 a
// constant SSLv2 hello of 56 bytes and 16 random ones stands before that, and a
// ServerHello whose random never changes. On 80 only high nibbles repeat.
// Login servers (33033, 12350, 443): 16 03 01 00 00 as a segment, answered by
// 17 03 01 00 00; the next answer is the yes. The version check is a GET to
// ui.skype.com that names the client's version.
//
// Ports speak where content cannot: 33033 and 40001 to 40050 are supernodes,
// 12350 and 13392 login servers. Those rows say that they rest on the port.
type skype struct{}

var errSkype = errors.New("not a skype message")

func (skype) Name() string                  { return "skype" }
func (skype) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }

const (
	// skypeHello is the fixed beginning of the first message on port 443.
	skypeHello = "\x80\x46\x01\x03\x01\x00\x2d\x00\x00\x00\x10\x00\x00\x05\x00\x00\x04\x00\x00\x0a\x00\x00\x09\x00\x00\x64\x00\x00\x62\x00\x00\x08" +
		"\x00\x00\x03\x00\x00\x06\x01\x00\x80\x07\x00\xc0\x03\x00\x80\x06\x00\x40\x02\x00\x80\x04\x00\x80"
	// skypeServerHello is the beginning of its answer.
	skypeServerHello = "\x16\x03\x01\x00\x4a\x02\x00\x00\x46\x03\x01\x40\x1b\xe4\x86\x02\xad\xe0\x29\xe1\x77\x74\xe5\x44\xb9\xc9\x9c\xb4\x31\x31\x5e\x02" +
		"\xdd\x77\x9d\x15\x4a\x96\x09\xba\x5d\xa8\x70\x20\x1c\xa0\xe4\xf6\x4c\x63\x51\xae\x2f\x8e\x4e\xe1\xe6\x76\x6a\x0a\x88\xd5\xd8\xc5" +
		"\x5c\xae\x98\xc5\xe4\x81\xf2\x2a\x69\xbf\x90\x58\x00\x05\x00"
	skypeLogin  = "\x16\x03\x01\x00\x00"
	skypeLogged = "\x17\x03\x01\x00\x00"

	skypeRepose = 60e9 // ns; after it a question to a node is a new one
)

// What a flow is, in Flow.Step.
const (
	skypeNew     = iota
	skypeHTTP    // version check
	skypeLS      // login server
	skypeSN      // supernode over TCP
	skypeAsked   // UDP, waiting for an answer
	skypeTalking // UDP, answered with something else than no
)

// skypePort tells what a port of a node stands for.
func skypePort(port uint16) dissect.Role {
	switch {
	case port == 33033, port >= 40001 && port <= 40050:
		return dissect.RoleSupernode
	case port == 12350, port == 13392:
		return dissect.RoleLogin
	}
	return dissect.RoleUnknown
}

// skypeBootstrap has the supernodes built into the clients of 2004 to 2006.
func skypeBootstrap(a *dissect.Addr) bool {
	if !a.Is4() {
		return false
	}
	switch binary.BigEndian.Uint32(a[12:]) {
	case 66<<24 | 235<<16 | 180<<8 | 9, 66<<24 | 235<<16 | 181<<8 | 9,
		80<<24 | 161<<16 | 91<<8 | 25, 80<<24 | 160<<16 | 91<<8 | 12,
		64<<24 | 246<<16 | 49<<8 | 60, 64<<24 | 246<<16 | 49<<8 | 61, 64<<24 | 246<<16 | 48<<8 | 23:
		return true
	}
	return false
}

// skypeHint reports a port of a node on a segment that a client may have sent.
// 40001 to 40050 are also ports that Linux gives to clients: then who sends
// must not look like a server.
func skypeHint(d *dissect.Datagram) bool {
	if d.DstPort >= 40001 && d.DstPort <= 40050 {
		return d.SrcPort >= 1<<15
	}
	return d.SrcPort > 1024 && skypePort(d.DstPort) != dissect.RoleUnknown
}

func (skype) Gates(transport dissect.Transport) []dissect.Gate {
	if transport == dissect.UDP {
		return []dissect.Gate{{Least: 18, At: 2, Mask: 0xff, Want: 2}, {Least: 11, Most: 11, At: 2, Mask: 0x8f, Want: 7}}
	}
	return []dissect.Gate{{Starts: "\x80\x16G", Least: 5}, {Least: 14, LoPort: 33033, HiPort: 33033}, {Least: 14, LoPort: 40001, HiPort: 40050},
		{Least: 14, LoPort: 12350, HiPort: 12350}, {Least: 14, LoPort: 13392, HiPort: 13392}, {Least: 24, LoPort: 80, HiPort: 80}}
}

func (skype) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if d.Proto == dissect.ProtoUDP {
		return skypeProbeDatagram(d)
	}
	if len(b) < 5 {
		return dissect.No
	}
	switch b[0] {
	case 0x80:
		if len(b) >= len(skypeHello) && string(b[:len(skypeHello)]) == skypeHello {
			return dissect.Yes
		}
	case 0x16:
		// A record of no bytes is no TLS; another follows it at most.
		if string(b[:5]) == skypeLogin && (len(b) == 5 || b[5] == 0x16) {
			return dissect.Yes
		}
	case 'G':
		if skypeVersion(b) != nil {
			return dissect.Yes
		}
	}
	if skypeHint(d) && len(b) >= 14 && len(b) <= 200 && !(b[0] == 0x16 && b[1] == 3) && !textual(b[:14]) {
		return dissect.Maybe
	}
	if d.DstPort == 80 && len(b) >= 24 && len(b) <= 200 && skypeOn80(b) {
		return dissect.Maybe
	}
	return dissect.No
}

// textual reports printable ASCII, with line ends, throughout.
func textual(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\r' && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// skypeOn80: the high nibbles of bytes 5 to 13 come again at 15 to 23; where
// they are all alike that says nothing.
func skypeOn80(b []byte) bool {
	var seen uint16
	for i := 5; i <= 13; i++ {
		if b[i]>>4 != b[i+10]>>4 {
			return false
		}
		seen |= 1 << (b[i] >> 4)
	}
	different := 0
	for ; seen != 0; seen &= seen - 1 {
		different++
	}
	return different >= 4 && !textual(b[:24])
}

// skypeVersion is the version in the request line of a version check, nil if b
// is none:
//
//	GET http://ui.skype.com/ui/2/1.2.0.18/en/getlatestversion?ver=1.2.0.18&uhash=..
//	GET /ui/0/97/en/installed HTTP/1.1 CRLF .. Host: ui.skype.com
func skypeVersion(b []byte) []byte {
	if len(b) < 24 || string(b[:4]) != "GET " {
		return nil
	}
	b = b[:min(len(b), 600)]
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		end = len(b)
	}
	target := b[4:end]
	at := bytes.Index(target, []byte("/ui/"))
	if at < 0 || at > len("http://ui.skype.com") || !bytes.Contains(b, []byte("ui.skype.com")) {
		return nil
	}
	target = target[at+4:]
	var version []byte
	if i := bytes.Index(target, []byte("version?ver=")); i >= 0 {
		version = target[i+len("version?ver="):]
	} else if bytes.Contains(target, []byte("/installed")) || bytes.Contains(target, []byte("version")) {
		_, version, _ = bytes.Cut(target, []byte{'/'})
	}
	for i, c := range version {
		if !digit(c) && c != '.' {
			version = version[:i]
			break
		}
	}
	if len(version) == 0 {
		return nil
	}
	return version
}

// skypeProbeDatagram never says Yes: one datagram proves nothing.
func skypeProbeDatagram(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if d.SrcPort <= 1024 || len(b) < 11 || d.DstPort <= 1024 && d.DstPort != 443 || b[2]&0x80 != 0 {
		return dissect.No
	}
	switch b[2] & 15 {
	case 2:
		if b[2] != 2 || b[0] == 0x80 || b[0] == 0 || b[0] == 1 || b[0] == 0x30 && b[1]&0x80 == 0 {
			return dissect.No // RTP, CAPWAP, RADIUS, SNMP
		}
		if len(b) == 18 && !textual(b[3:]) || len(b) >= 18 && len(b) <= 137 && skypePort(d.DstPort) != dissect.RoleUnknown {
			return dissect.Maybe
		}
	case 7:
		// A NACK goes back to who asked and carries a public address.
		if len(b) == 11 && d.DstPort > 1024 && b[3] != 0 && b[3] < 224 && !textual(b[:11]) {
			return dissect.Maybe
		}
	}
	return dissect.No
}

func (skype) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if d.Proto == dissect.ProtoUDP {
		return len(b), skypeDatagram(d, f, m)
	}
	if len(b) == 0 {
		return 0, dissect.ErrShort
	}
	port := d.SrcPort
	if f.FromClient {
		port = d.DstPort
	}
	if f.Step == skypeNew {
		if !f.FromClient {
			return 0, errSkype
		}
		f.Step = skypeSN
		if version := skypeVersion(b); version != nil {
			f.Step = skypeHTTP
			m.Kind, m.Op, m.Rung, m.Version = dissect.KindRequest, "version check", "http", version
			return len(b), nil
		}
		if len(b) >= 5 && string(b[:5]) == skypeLogin {
			f.Step = skypeLS
		}
		m.Kind, m.Encrypted = dissect.KindRequest, true
		skypeRung(f, port, m, string(b[:min(len(b), len(skypeHello))]) == skypeHello)
	}
	switch f.Step {
	case skypeHTTP:
		if f.FromClient {
			return len(b), nil
		}
		if len(b) < 12 {
			return 0, dissect.ErrShort
		}
		return len(b), skypeHTTPAnswer(b, f, m)
	case skypeLS:
		skypeLoginServer(b, f, m)
	default:
		skypeSupernode(b, f, m)
	}
	return len(b), nil
}

// skypeRung names the step of the ladder, and the role of the node.
func skypeRung(f *dissect.Flow, port uint16, m *dissect.Message, constant bool) {
	m.Op, m.Role = "attach", dissect.RoleSupernode
	switch {
	case f.Step == skypeLS:
		m.Op, m.Role = "login", dissect.RoleLogin
	case constant:
	default:
		m.ByPort = true
		if role := skypePort(port); role != dissect.RoleUnknown {
			m.Role = role
		}
	}
	switch port {
	case 443:
		m.Rung = "tcp-443"
	case 80:
		m.Rung = "tcp-80"
	default:
		m.Rung = "tcp"
	}
}

func skypeHTTPAnswer(b []byte, f *dissect.Flow, m *dissect.Message) error {
	if string(b[:7]) != "HTTP/1." || b[8] != ' ' {
		return errSkype
	}
	f.Done = true
	switch {
	case string(b[9:12]) == "503", string(b[9:12]) == "429":
		m.Kind, m.Op = dissect.KindThrottle, "503"
	case b[9] == '2', b[9] == '3':
		m.Kind, m.Op = dissect.KindAccept, "200"
	default:
		m.Kind, m.Op = dissect.KindRefuse, "no"
	}
	return nil
}

// skypeLoginServer: Flow.Flags counts 1 for the greeting of the server, 2 once
// the client has sent its credentials.
func skypeLoginServer(b []byte, f *dissect.Flow, m *dissect.Message) {
	switch {
	case f.FromClient:
		if f.Flags&1 != 0 && string(b) != skypeLogin {
			f.Flags |= 2
		}
	case f.Flags&1 == 0:
		if len(b) >= 5 && string(b[:5]) == skypeLogged {
			f.Flags |= 1
			m.Kind, m.Op = dissect.KindProgress, "greeting"
		}
	case f.Flags&2 != 0 && len(b) >= 4 && string(b[:4]) == skypeLogged[:4] && string(b) != skypeLogged:
		f.Done = true
		m.Kind, m.Op = dissect.KindAccept, "login"
	}
}

// skypeSupernode follows the turns of a connection to a supernode. A turn is
// what one side sends until the other does. Flow.A counts those of the node,
// Flow.Flags holds who has it (1 = the node), Flow.Port the length with which
// the client began the turn after the node's first.
func skypeSupernode(b []byte, f *dissect.Flow, m *dissect.Message) {
	const node = 1
	if f.FromClient {
		if f.Flags&node != 0 && f.A == 1 {
			f.Port = uint16(min(len(b), 1<<16-1))
		}
		f.Flags &^= node
		return
	}
	if f.Flags&node != 0 {
		return
	}
	f.Flags |= node
	f.A++
	switch {
	case f.A == 1:
		m.Kind, m.Op = dissect.KindProgress, "answer"
		if len(b) >= len(skypeServerHello) && string(b[:len(skypeServerHello)]) == skypeServerHello {
			m.Role = dissect.RoleSupernode // nobody else sends this
		}
		return
	case f.A >= 3, f.Port == 8 && len(b) == 8, f.Port != 8 && len(b) > 57 && len(b) != 339:
		m.Kind, m.Op = dissect.KindAccept, "attached"
	case f.Port != 8 && len(b) == 339:
		m.Kind, m.Op = dissect.KindRefuse, "refused"
	default:
		return
	}
	f.Done = true
}

// skypeDatagram: Flow.A is the time of the last question or answer.
func skypeDatagram(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) error {
	b := d.Payload
	if len(b) < 3 {
		return errSkype
	}
	id := hashKey(2, b[:2])
	kind := b[2] & 15
	rested := f.A == 0 || d.Time-int64(f.A) > skypeRepose
	if f.FromClient {
		switch {
		case kind != 2 && kind != 3, kind == 2 && f.Step == skypeTalking && !rested:
			return nil
		}
		f.Step, f.A = skypeAsked, uint64(d.Time)
		m.Kind, m.Op, m.Rung, m.Encrypted = dissect.KindRequest, "probe", "udp", true
		m.Txn, m.Chain = id, id
		if kind == 3 { // the second leg, after a NACK
			m.Op, m.Txn = "resend", hashKey(3, b[:2])
		}
		m.Role = dissect.RoleSupernode
		switch {
		case d.DstPort == 33033 && skypeBootstrap(&d.Dst):
			m.Role = dissect.RoleBootstrap
		case skypePort(d.DstPort) != dissect.RoleUnknown:
			m.Role, m.ByPort = skypePort(d.DstPort), true
		}
		return nil
	}
	if f.Step == skypeTalking || f.Step == skypeAsked && rested {
		return nil
	}
	answered := f.Step == skypeAsked
	switch {
	case kind == 7 && len(b) == 11:
		m.Kind, m.Op, m.Txn, m.Chain = dissect.KindChallenge, "nack", id, id
		return nil
	case kind == 5 && len(b) == 11:
		m.Kind, m.Op, m.Txn, m.Chain = dissect.KindAccept, "confirm", id, id
	case kind == 2 && answered && (len(b) == 51 || len(b) == 53):
		m.Kind, m.Op, m.Role = dissect.KindRefuse, "refused", dissect.RoleSupernode
		f.Step, f.A = skypeNew, uint64(d.Time)
		return nil
	case kind == 2 && answered:
		m.Kind, m.Op = dissect.KindAccept, "answer"
		if len(b) == 18 {
			m.Op = "yes"
		}
	case kind == 15 && len(b) >= 5:
		m.Kind, m.Op, m.Txn = dissect.KindAccept, "fragment", hashKey(2, b[3:5])
		m.Chain = m.Txn
	default:
		return nil
	}
	f.Step, f.A = skypeTalking, uint64(d.Time)
	return nil
}
