package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// gnutella is Gnutella 0.4 and 0.6, Gnutella 2 on the same handshake, and what
// both send over UDP (protocols.md F.1).
//
//	C: GNUTELLA CONNECT/0.6 CRLF User-Agent: .. X-Ultrapeer: False .. CRLF CRLF
//	N: GNUTELLA/0.6 200 OK | 503 reason | 204 reason   (X-Try-Ultrapeers: ip:port,..)
//	C: GNUTELLA/0.6 200 OK CRLF .. CRLF CRLF           -> attached
//
// 0.4 says "GNUTELLA CONNECT/0.4 LF LF" and "GNUTELLA OK LF LF". The node that
// is asked is an ultrapeer or a hub, the supernode of this network; one of 0.4
// is a peer. 503 is busy, with X-Try lists it is "elsewhere"; other codes
// refuse. The node's 200 is the yes; a client that then says no in its third
// message closes the session. Of the session the BYE is read where it is not
// deflated: who says it waits for the other to close the connection.
//
// In a session, and over UDP by Gnutella and its DHT: 0 16 GUID | 16 1 type | 17 1 ttl | 18 1 hops |
// 19 4 length LE; the length fits the datagram, a pong has the ping's GUID.
// Gnutella 2: 0 3 "GND" | 3 1 flags | 4 2 sequence | 6 1 part | 7 1 parts (0 =
// acknowledgement) | 8 packet with its name.
type gnutella struct{}

const (
	gnutellaHeader  = 23 // of a binary message
	gnutellaLongest = 1 << 17
)

// How far a connection is, in Flow.Step, and which sides deflate, in Flow.Flags.
const (
	gnutellaAgreed  = 1 + iota // the node said yes
	gnutellaSession            // binary messages follow
)

var errGnutella = errors.New("not a gnutella message")

func (gnutella) Name() string                  { return "gnutella" }
func (gnutella) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }

func (gnutella) Gates(transport dissect.Transport) []dissect.Gate {
	if transport == dissect.TCP {
		return []dissect.Gate{{Starts: "G", Least: 11}}
	}
	return []dissect.Gate{{Starts: "G", Least: 8}, {Least: gnutellaHeader, At: 22, Mask: 0xff}} // the high byte of a length
}

func (gnutella) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if d.Proto == dissect.ProtoUDP {
		if len(b) >= 8 && b[0] == 'G' && b[1] == 'N' && b[2] == 'D' && b[6] <= max(b[7], 1) {
			return dissect.Yes
		}
		if gnutellaType(b) != "" && b[17] <= 16 && b[18] <= 16 {
			return dissect.Yes
		}
		return dissect.No
	}
	if len(b) < 11 || b[0] != 'G' || string(b[:8]) != "GNUTELLA" {
		return dissect.No
	}
	switch {
	case len(b) >= 20 && string(b[8:19]) == " CONNECT/0.", string(b[8:11]) == "/0.", string(b[8:11]) == " OK":
		return dissect.Yes
	}
	return dissect.No
}

// gnutellaType names a binary message over UDP whose length is that of its datagram.
func gnutellaType(b []byte) string {
	if len(b) < gnutellaHeader || uint64(binary.LittleEndian.Uint32(b[19:]))+gnutellaHeader != uint64(len(b)) {
		return ""
	}
	switch b[16] {
	case 0x00:
		return "PING"
	case 0x01:
		return "PONG"
	case 0x31, 0x32:
		return "VENDOR"
	case 0x40:
		return "PUSH"
	case 0x44:
		return "DHT"
	case 0x80:
		return "QUERY"
	case 0x81:
		return "HIT"
	}
	return ""
}

func (gnutella) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	if d.Proto == dissect.ProtoUDP {
		return len(d.Payload), gnutellaDatagram(d.Payload, m)
	}
	b := d.Payload
	if f.Step == gnutellaSession {
		return gnutellaMessage(d, f, m)
	}
	if len(b) < 11 {
		return 0, dissect.ErrShort
	}
	if string(b[:8]) != "GNUTELLA" {
		return 0, errGnutella
	}
	n := httpHeadEnd(b)
	if n == 0 {
		if wait(d) {
			return 0, dissect.ErrShort
		}
		n = len(b)
	}
	line, rest := nextLine(b[:n])
	h := readGnutella(rest)
	if f.FromClient && len(line) >= 20 && string(line[8:17]) == " CONNECT/" {
		m.Kind, m.Op = dissect.KindRequest, "CONNECT"
		m.Role, m.ClientID, m.Version = dissect.RoleSupernode, h.guid, h.agent
		if string(line[17:20]) == "0.4" {
			m.Role = dissect.RolePeer
		}
		return n, nil
	}
	code := uint64(200)
	if string(line[8:11]) != " OK" {
		var ok bool
		if code, ok = number(gnutellaCode(line)); !ok {
			return 0, errGnutella
		}
	}
	m.Version = h.agent
	if h.deflated {
		f.Flags |= gnutellaSide(f)
	}
	switch {
	case f.FromClient && f.Step == 0:
		return 0, errGnutella // an answer before any question
	case f.FromClient:
		f.Step = gnutellaSession
		f.Done = h.other || f.Flags == 3
		m.Op = "thanks"
		if code != 200 {
			f.Done = true
			m.Kind, m.Op = dissect.KindClose, "no"
		}
	case code == 200:
		f.Step = gnutellaAgreed
		if line[8] == ' ' { // 0.4 has no third message
			f.Step = gnutellaSession
		}
		m.Kind, m.Op = dissect.KindAccept, "200"
	case h.try:
		f.Done = true
		m.Kind, m.Op = dissect.KindRedirect, "elsewhere"
	case code == 503:
		f.Done = true
		m.Kind, m.Op = dissect.KindThrottle, "503"
	default:
		f.Done = true
		m.Kind, m.Op = dissect.KindRefuse, "no"
	}
	return n, nil
}

// gnutellaCode is the three digits of "GNUTELLA/0.6 503 reason".
func gnutellaCode(line []byte) []byte {
	_, rest, _ := bytes.Cut(line, []byte{' '})
	return rest[:min(3, len(rest))]
}

type gnutellaFields struct {
	agent, guid []byte
	try         bool // lists other nodes
	deflated    bool // what follows from this side is
	other       bool // what follows is Gnutella 2
}

// gnutellaSide is the sender's bit in Flow.Flags.
func gnutellaSide(f *dissect.Flow) uint8 {
	if f.FromClient {
		return 1
	}
	return 2
}

// gnutellaMessage reads one message of a session.
func gnutellaMessage(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if f.Flags&gnutellaSide(f) != 0 {
		return 0, errGnutella
	}
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	if len(b) < gnutellaHeader {
		return 0, dissect.ErrShort
	}
	size := binary.LittleEndian.Uint32(b[19:])
	switch kind := b[16]; {
	case size > gnutellaLongest:
		return 0, errGnutella
	case kind == 0x02:
		m.Kind, m.Op, f.Done = dissect.KindClose, "BYE", true
	case kind != 0 && kind != 1 && kind&^0x03 != 0x30 && kind != 0x40 && kind&^0x01 != 0x80:
		return 0, errGnutella
	}
	return leaveBody(f, gnutellaHeader+uint64(size), len(b)), nil
}

func readGnutella(b []byte) (h gnutellaFields) {
	for len(b) > 0 {
		var line []byte
		line, b = nextLine(b)
		i := bytes.IndexByte(line, ':')
		if i <= 0 {
			continue
		}
		name, value := line[:i], bytes.TrimSpace(line[i+1:])
		switch {
		case is(name, "user-agent"):
			h.agent = value
		case is(name, "guid"):
			h.guid = value
		case is(name, "content-encoding"):
			h.deflated = is(value, "deflate")
		case is(name, "content-type"):
			h.other = is(value, "application/x-gnutella2")
		case is(name, "x-try"), is(name, "x-try-ultrapeers"), is(name, "x-try-hubs"):
			h.try = h.try || len(value) > 0
		}
	}
	return h
}

func gnutellaDatagram(b []byte, m *dissect.Message) error {
	if len(b) >= 8 && string(b[:3]) == "GND" {
		gnutella2(b, m)
		return nil
	}
	m.Op = gnutellaType(b)
	if m.Op == "" {
		return errGnutella
	}
	m.Txn, m.Role = hashKey(0, b[:16]), dissect.RolePeer
	answer := b[16] == 0x01
	switch m.Op {
	case "DHT":
		if len(b) == gnutellaHeader {
			return errGnutella
		}
		answer = b[gnutellaHeader]%2 == 0 // even operations are answers
	case "PING", "PONG":
	default:
		return nil
	}
	m.Kind = dissect.KindRequest
	m.FromClient = true
	if answer {
		m.Kind, m.FromClient = dissect.KindAccept, false
	}
	return nil
}

// gnutella2 reads the name of the first packet: its first byte holds the bytes
// of the length in bits 6 and 7 and those of the name, less one, in bits 3 to 5.
// Sequence numbers are each side's own, so a question pairs with its kind of answer.
func gnutella2(b []byte, m *dissect.Message) {
	if len(b) < 9 || b[7] == 0 || b[6] > 1 || b[3]&1 != 0 {
		return // an acknowledgement, a later part, or compressed
	}
	at := 9 + int(b[8]>>6)
	end := at + int(b[8]>>3&7) + 1
	if end > len(b) {
		return
	}
	question := true
	switch string(b[at:end]) {
	case "PI":
		m.Op, m.Txn, m.Role = "PI", hash1('P'), dissect.RolePeer
	case "PO":
		m.Op, m.Txn, m.Role, question = "PO", hash1('P'), dissect.RolePeer, false
	case "QKR":
		m.Op, m.Txn, m.Role = "QKR", hash1('K'), dissect.RoleSupernode
	case "QKA":
		m.Op, m.Txn, m.Role, question = "QKA", hash1('K'), dissect.RoleSupernode, false
	default:
		return
	}
	m.Kind, m.FromClient = dissect.KindRequest, true
	if !question {
		m.Kind, m.FromClient = dissect.KindAccept, false
	}
}
