package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// gquic is Google's QUIC before the standard, Q024 to Q050, over UDP: the documents
// "QUIC Wire Layout Specification" and "QUIC Crypto" of Chromium (docs.google.com), and
// nDPI quic.c.
//
//	to Q043: 0 flags: 01 version 02 reset 0c CID 30 number | 1 8 CID | 9 4 version | number | 12 hash | frames
//	Q046:    0 c0 | 1 4 version | 5 50 | 6 8 CID | 14 4 number | 12 hash | frames; Q050: as QUIC, with a salt of its own
//	message: "CHLO" 2 tags, 2 zero, tags: name4 end4, little endian; the values: SNI, UAID, ...
//
// As quic it is a carrier that does not tell the role. The client's CHLO is the
// request, in clear up to Q046; REJ of the server is the challenge that most
// connections begin with (certificate and address token), and the CHLO after it the
// next leg. What the server sends to that is encrypted, and
// the yes; so is what it sends to the first, if it is more than an acknowledgement. A public reset or a list of versions before it refuses;
// a reset after it closes. All is tied by the connection id. The version is UAID, the
// client's software, else that of the protocol; the server name is SNI.
type gquic struct{}

const (
	gquicLeast = 26 // header, number and hash of a packet
	gquicHead  = 64 // a message begins within so many bytes after them
	gquicAck   = 100
)

// What a flow is waiting for, in Flow.Step.
const (
	gquicAsked = 1 + iota
	gquicRejected
	gquicAnswered
)

var errGQUIC = errors.New("not a gquic packet")

func (gquic) Name() string                  { return "gquic" }
func (gquic) Transports() dissect.Transport { return dissect.UDP }

func (gquic) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{
		{Starts: "\x09\x0d\x19\x1d\x29\x2d\x39\x3d", Least: gquicLeast, At: 9, Mask: 0xff, Want: 'Q'},
		{Starts: highBytes, Least: gquicLeast, At: 1, Mask: 0xff, Want: 'Q'},
	}
}

func (gquic) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < gquicLeast {
		return dissect.No
	}
	switch version := gquicVersion(b); {
	case version == nil:
		return dissect.No
	case b[0]&0x80 != 0 && (b[0]&0x40 == 0 || version[2] == '4' && b[5] != 0x50):
		return dissect.No
	case b[0]&0x80 != 0, gquicMessage(b, "CHLO") != nil:
		return dissect.Yes
	}
	return dissect.Maybe
}

// gquicVersion is the version of a packet that says it, else nil.
func gquicVersion(b []byte) []byte {
	at := 9
	long := b[0]&0x80 != 0
	if long {
		at = 1
	} else if b[0]&0xc9 != 0x09 {
		return nil // without version, or without a whole connection id
	}
	v := b[at : at+4]
	if v[0] != 'Q' || v[1] != '0' || !digit(v[3]) || v[2] < '2' || v[2] > '5' {
		return nil
	}
	if newer := v[2] == '5' || v[2] == '4' && v[3] >= '6'; newer != long {
		return nil
	}
	return v
}

// gquicMessage is the handshake message of a name in clear, behind the name; nil if
// there is none.
func gquicMessage(b []byte, name string) []byte {
	head := b[:min(len(b), gquicLeast+gquicHead)]
	if i := bytes.Index(head, []byte(name)); i >= 0 {
		return b[i+len(name):]
	}
	return nil
}

// gquicTag is the value of a tag of a message, nil if it is not there.
func gquicTag(b []byte, name string) []byte {
	if len(b) < 4 {
		return nil
	}
	n := int(binary.LittleEndian.Uint16(b))
	tags, from := b[4:], uint32(0)
	if len(tags) < 8*n {
		return nil
	}
	for values := tags[8*n:]; n > 0; n-- {
		end := binary.LittleEndian.Uint32(tags[4:])
		if end < from || uint64(end) > uint64(len(values)) {
			return nil
		}
		if string(tags[:4]) == name {
			return values[from:end]
		}
		tags, from = tags[8:], end
	}
	return nil
}

// Flow.B is the connection, Flow.Flags counts how often it was turned back.
func (gquic) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) < 9 {
		return len(b), errGQUIC
	}
	if len(b) >= gquicLeast && f.FromClient {
		version := gquicVersion(b)
		// Once the server has answered in a version, the client need not say it.
		if f.Step != gquicAnswered && (version != nil || f.Step != 0 && b[0]&0xc8 == 0x08) {
			gquicAsk(b, version, f, m)
		}
		return len(b), nil
	}
	if f.FromClient || f.Step == 0 {
		return len(b), nil
	}
	m.Txn, m.Chain = hash1(f.B+uint64(f.Flags)), f.B
	var said []byte
	sealed := false
	if f.Step == gquicAsked {
		said, sealed = gquicOpen(b, f.A, "server in")
	}
	switch reset := b[0]&0xc2 == 0x02; {
	case reset && f.Step == gquicAnswered:
		m.Kind, m.Op, f.Done = dissect.KindClose, "public reset", true
	case reset:
		m.Kind, m.Op = dissect.KindRefuse, "public reset"
	case f.Step != gquicAsked:
	case b[0]&0xc9 == 0x09 && len(b) > 9 && b[9] == 'Q', b[0]&0x80 != 0 && binary.BigEndian.Uint32(b[1:]) == 0:
		m.Kind, m.Op = dissect.KindRefuse, "Version Negotiation"
	case gquicMessage(b, "REJ\x00") != nil, bytes.HasPrefix(said, []byte("REJ\x00")):
		f.Step = gquicRejected
		f.Flags++
		m.Kind, m.Op = dissect.KindChallenge, "REJ"
	case d.PayloadLen < gquicAck && f.Flags == 0, sealed && said == nil:
		m.Kind, m.Op = dissect.KindProgress, "ack"
	default:
		f.Step = gquicAnswered
		m.Kind, m.Op, m.Encrypted = dissect.KindAccept, "answer", true
	}
	return len(b), nil
}

// gquicOpen gives what the Initial packets of Q050 say under the keys that the
// client's connection id gives; sealed reports that there was one. What has no
// handshake message, as an acknowledgement, gives nil.
func gquicOpen(b []byte, cid uint64, side string) (said []byte, sealed bool) {
	if len(b) < 5 || b[0]&0x80 == 0 || binary.BigEndian.Uint32(b[1:]) != quicQ050 {
		return nil, false
	}
	for p, ok := readQUIC(b); ok; p, ok = readQUIC(p.rest) {
		if p.kind != quicInitial {
			return said, false // it goes on: the server has said yes
		}
		frames, opened := openQUIC(&p, binary.BigEndian.AppendUint64(nil, cid), side)
		if sealed = opened; !opened {
			break
		}
		quicFrames(frames, func(_ uint64, data []byte) {
			if said == nil && (bytes.HasPrefix(data, []byte("CHLO")) || bytes.HasPrefix(data, []byte("REJ\x00")) || bytes.HasPrefix(data, []byte("SHLO"))) {
				said = data
			}
		})
		if len(p.rest) == 0 {
			break
		}
	}
	return said, sealed
}

// gquicAsk reads a packet of the client that says its version.
func gquicAsk(b, version []byte, f *dissect.Flow, m *dissect.Message) {
	chlo := gquicMessage(b, "CHLO")
	cid := b[1:9]
	if b[0]&0x80 != 0 {
		cid = b[6:14]
	}
	if said, _ := gquicOpen(b, binary.BigEndian.Uint64(cid), "client in"); bytes.HasPrefix(said, []byte("CHLO")) {
		chlo = said[len("CHLO"):]
	}
	if chlo == nil && (f.Step != 0 || version[2] != '5') {
		return
	}
	f.A = binary.BigEndian.Uint64(cid)
	f.Step, f.B = gquicAsked, hashKey(0, cid)
	m.Kind, m.Op, m.Version = dissect.KindRequest, "CHLO", version
	m.Txn, m.Chain = hash1(f.B+uint64(f.Flags)), f.B
	m.Encrypted = chlo == nil // in Q050: under keys that are not those of its connection id
	if agent := gquicTag(chlo, "UAID"); len(agent) > 0 {
		m.Version = agent
	}
	m.ServerName = gquicTag(chlo, "SNI\x00")
}
