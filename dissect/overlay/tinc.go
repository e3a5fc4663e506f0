package overlay

import (
	"bytes"
	"errors"

	"squall/dissect"
)

// tinc is the meta connection of tinc over TCP 655: gsliepen/tinc
// src/protocol.h, protocol_auth.c; protocols.md H.8.
//
//	lines: "0 name 17[.minor]" ID, "1 cipher digest maclength compression key" METAKEY, "6 ..." ERROR, "7" TERMREQ
//
// After METAKEY (tinc 1.0), or after ID (1.1), each side encrypts: CHALLENGE,
// CHAL_REPLY and ACK are seen as bytes alone. The node's ACK is the yes: it comes
// when the node has sent more than its CHALLENGE and CHAL_REPLY, whose lengths
// follow from its METAKEY (Encrypted). ERROR or TERMREQ in clear is a no; a node
// that does not like a key just closes. Both are peers; the identity is the
// client's name, the version the protocol's. Data over UDP has no mark.
type tinc struct{}

const (
	tincReply = 2 + 40 + 1 // CHAL_REPLY with a SHA-1
	// tincSPTPS is what a node of 1.1 sends before its ACK: key exchange and signature.
	tincSPTPS   = 2*3 + 65 + 64
	tincMaxName = 64
)

// Bits of Flow.Flags, the node's twice as high.
const (
	tincNamed = 1
	tincKeyed = 1 << 2 // encrypted from here on
	tincYes   = 1 << 4 // the yes was read
)

var errTinc = errors.New("not a line of tinc")

func (tinc) Name() string                  { return "tinc" }
func (tinc) Transports() dissect.Transport { return dissect.TCP }

// tincID reads an ID line without its end.
func tincID(line []byte) (name, version []byte) {
	if len(line) < 6 || line[0] != '0' || line[1] != ' ' {
		return nil, nil
	}
	i := bytes.IndexByte(line[2:], ' ')
	if i < 1 || i > tincMaxName {
		return nil, nil
	}
	name, version = line[2:2+i], line[3+i:]
	for _, c := range name {
		if !alnum(c) && c != '_' {
			return nil, nil
		}
	}
	if len(version) > 5 || !bytes.HasPrefix(version, []byte("17")) || len(version) > 2 && version[2] != '.' {
		return nil, nil
	}
	for i, c := range version {
		if !digit(c) && i != 2 {
			return nil, nil
		}
	}
	return name, version
}

func (tinc) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "0", Least: 7}}
}

func (tinc) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < 7 || b[0] != '0' || b[1] != ' ' {
		return dissect.No
	}
	end := bytes.IndexByte(b[:min(len(b), tincMaxName+12)], '\n')
	if end < 0 {
		return dissect.No
	}
	if name, _ := tincID(b[:end]); name == nil {
		return dissect.No
	}
	return dissect.Yes
}

// Flow.A counts what the node has sent encrypted, Flow.B is how much of it is
// no ACK yet.
func (tinc) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	side := uint8(1)
	if !f.FromClient {
		side = 2
	}
	m.Role = dissect.RolePeer
	if f.Flags&(tincKeyed*side) != 0 {
		m.Encrypted = true
		if !f.FromClient {
			if f.A += uint64(len(b)); f.A > f.B && f.Flags&tincYes == 0 {
				f.Flags |= tincYes
				f.Done = true
				m.Kind, m.Op = dissect.KindAccept, "ACK"
			}
		}
		return len(b), nil
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if wait(d) {
			return 0, dissect.ErrShort
		}
		return 0, errTinc
	}
	line := b[:end]
	switch {
	case f.Flags&(tincNamed*side) == 0:
		name, version := tincID(line)
		if name == nil {
			return 0, errTinc
		}
		f.Flags |= tincNamed * side
		if len(version) > 3 && version[3] != '0' && version[3] != '1' { // SPTPS since 17.2
			f.Flags |= tincKeyed * side
			f.B = tincSPTPS
		}
		m.Op, m.Kind = "ID", dissect.KindProgress
		if f.FromClient {
			m.Kind, m.ClientID, m.Version = dissect.KindRequest, name, version
		}
	case len(line) > 2 && line[0] == '1' && line[1] == ' ':
		f.Flags |= tincKeyed * side
		m.Op = "METAKEY"
		if !f.FromClient {
			m.Kind = dissect.KindProgress
			f.B = uint64(2+end-bytes.LastIndexByte(line, ' ')) + tincReply
		}
	case len(line) > 0 && (line[0] == '6' || line[0] == '7'):
		m.Op = "ERROR"
		if line[0] == '7' {
			m.Op = "TERMREQ"
		}
		m.Kind = dissect.KindClose
		if !f.FromClient && f.Flags&tincYes == 0 {
			m.Kind = dissect.KindRefuse
		}
	default:
		return 0, errTinc
	}
	return end + 1, nil
}
