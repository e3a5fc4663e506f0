package overlay

import (
	"encoding/binary"
	"errors"
	"time"

	"squall/dissect"
)

// radius is RADIUS over UDP 1812 and 1813: RFC 2865 sections 3 and 5, RFC 2866,
// RFC 5997 (Status-Server); RFC 5176 (CoA) on 3799.
//
//	0 code | 1 identifier | 2 2 length | 4 16 authenticator | 20 attributes: type1 length1 value
//	codes: 1 Access-Request 2 Accept 3 Reject 4 Accounting-Request 5 Accounting-Response
//	11 Access-Challenge 12 Status-Server 40 to 45 Disconnect and CoA, each Request ACK NAK 52 Protocol-Error
//
// The server is a login node. Accept, Reject and Challenge mean what they say;
// there is no "busy", an overloaded server is silent. Answers are paired by the
// identifier, which has only 256 values: it is counted on as RTP does with its
// sequence numbers. The legs of a challenge are tied by user and station. The
// identity is the station that calls (Calling-Station-Id), else the user: the
// address is that of its access point. Status-Server and interim accounting are
// refreshes. What a server orders an access point to do (Disconnect, CoA) attaches nobody.
type radius struct{}

const (
	radiusHeader = 20
	radiusMax    = 4096

	radiusUser     = 1
	radiusNASPort  = 5
	radiusTimeout  = 27
	radiusStation  = 31
	radiusStatus   = 40 // Acct-Status-Type
	radiusInterim  = 3
	radiusPortName = 87
)

var errRADIUS = errors.New("not a radius packet")

func (radius) Name() string                  { return "radius" }
func (radius) Transports() dissect.Transport { return dissect.UDP }

func (radius) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "\x01\x02\x03\x04\x05\x0b\x0c\x28\x29\x2a\x2b\x2c\x2d", Least: radiusHeader, Most: radiusMax}}
}

func (radius) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < radiusHeader || len(b) > radiusMax || int(binary.BigEndian.Uint16(b[2:])) != d.PayloadLen || len(b) != d.PayloadLen {
		return dissect.No
	}
	switch b[0] {
	case 1, 4, 12, 40, 43:
		if len(b) == radiusHeader {
			return dissect.No
		}
	case 2, 3, 5, 11, 41, 42, 44, 45:
	default:
		return dissect.No
	}
	said := false
	for at := b[radiusHeader:]; len(at) > 0; {
		if len(at) < 2 || at[0] == 0 || at[1] < 2 || int(at[1]) > len(at) {
			return dissect.No
		}
		said = said || at[1] > 2 // some send attributes without a value
		at = at[at[1]:]
	}
	if !said {
		if len(b) > radiusHeader || !radiusPort(d.SrcPort) {
			return dissect.No // an answer without attributes has little content
		}
		return dissect.Maybe
	}
	return dissect.Yes
}

// radiusPort reports the ports of servers, old ones too, and of CoA.
func radiusPort(port uint16) bool {
	return port == 1812 || port == 1813 || port == 1645 || port == 1646 || port == 3799
}

// Flow.A is the newest identifier, counted on without end.
func (p radius) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	n := len(b)
	if len(b) < radiusHeader {
		return n, errRADIUS
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < radiusHeader || length > len(b) && !d.Cut {
		return n, errRADIUS
	}
	if b[0] >= 40 && b[0] <= 45 {
		m.FromClient = f.FromClient
		return n, nil
	}
	if f.A == 0 {
		f.A = 1<<32 | uint64(b[1])
	}
	id := f.A + uint64(int8(b[1]-uint8(f.A)))
	f.A = max(f.A, id)
	m.Txn = hash1(id)
	m.Role = dissect.RoleLogin
	var user, station, port []byte
	var lifetime, status uint32
	for at := b[radiusHeader:min(length, len(b))]; len(at) >= 2 && at[1] >= 2 && int(at[1]) <= len(at); at = at[at[1]:] {
		v := at[2:at[1]]
		switch at[0] {
		case radiusUser:
			user = v
		case radiusStation:
			station = v
		case radiusNASPort, radiusPortName:
			port = v
		case radiusTimeout:
			if len(v) == 4 {
				lifetime = binary.BigEndian.Uint32(v)
			}
		case radiusStatus:
			if len(v) == 4 {
				status = binary.BigEndian.Uint32(v)
			}
		}
	}
	m.FromClient = true
	m.ClientID = station
	if len(station) == 0 {
		m.ClientID = user
	}
	switch b[0] {
	case 1:
		m.Kind, m.Op = dissect.KindRequest, "Access-Request"
		m.Chain = hashKey(dissect.Hash64(dissect.Hash64(1, user), station), port)
	case 4:
		m.Kind, m.Op = dissect.KindRequest, "Accounting-Request"
		if status == radiusInterim {
			m.Kind = dissect.KindRefresh
		}
	case 12:
		m.Kind, m.Op = dissect.KindRefresh, "Status-Server"
	default:
		m.FromClient, m.ClientID = false, nil
	}
	switch b[0] {
	case 2:
		m.Kind, m.Op = dissect.KindAccept, "Access-Accept"
		m.Lifetime = int64(lifetime) * int64(time.Second)
	case 3:
		m.Kind, m.Op = dissect.KindRefuse, "Access-Reject"
	case 5:
		m.Kind, m.Op = dissect.KindAccept, "Accounting-Response"
	case 11:
		m.Kind, m.Op = dissect.KindChallenge, "Access-Challenge"
	case 52:
		m.Kind, m.Op = dissect.KindRefuse, "Protocol-Error"
	}
	return n, nil
}
