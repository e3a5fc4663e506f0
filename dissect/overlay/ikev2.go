package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// ikev2 is the key exchange of IPsec, UDP 500 and 4500: RFC 7296 sections 2.6,
// 3.1 and 3.10, RFC 5685 (REDIRECT), RFC 9242 (IKE_INTERMEDIATE).
//
//	(4500 only: 4 zero bytes before, RFC 3948)
//	0 8 initiator SPI | 8 8 responder SPI | 16 next payload | 17 version 20
//	18 exchange: 22 IKE_SA_INIT 23 IKE_AUTH 24 CREATE_CHILD_SA 25 INFORMATIONAL 2b IKE_INTERMEDIATE
//	19 flags: 08 initiator 20 response | 20 4 message id | 24 4 length
//	28 payloads: next1 flags1 length2 ...; notify: protocol1 spi size1 type2
//
// IKE_SA_INIT is in clear: a security association in the answer, at any place, is yes, an
// error notify no, COOKIE "I am under load, prove your address" and thus busy,
// REDIRECT elsewhere, INVALID_KE_PAYLOAD asks for another group. The request
// with the cookie is an attempt of its own, as n2n's and WireGuard's are.
// IKE_AUTH is encrypted and often goes on at port 4500, so it is an attempt of
// its own too; an answer that has no room for identity, AUTH and traffic
// selectors (under 128 bytes) is taken as no, one with room as yes, though EAP
// may refuse later. Requests are paired by initiator SPI and message id. INFORMATIONAL and CREATE_CHILD_SA
// of the initiator are refreshes (dead peer detection, rekeying). The gateway is
// the supernode; a client shows no identity but its address.
type ikev2 struct{}

const (
	ikeHeader = 28
	// ikeMaxLength bounds the length field: longer ones are fragmented (RFC 7383).
	ikeMaxLength = 1 << 16
	// ikeAuthShort is below every IKE_AUTH answer that carries an association:
	// header 28, SK payload 4, IV 8, IDr 12, AUTH 24, SA 40, TSi 24, TSr 24, ICV 12.
	ikeAuthShort = 128

	ikeNotify         = 41
	ikeSA             = 33
	ikeFragment       = 53
	ikeRedirect       = 16407
	ikeCookie         = 16390
	ikeInvalidKE      = 17
	ikeInvalidSPI     = 4
	ikeFirstStatus    = 16384
	ikeAgreed         = -1
	ikeResponse       = 0x20
	ikeInitiator      = 0x08
	ikeExchangeInit   = 34
	ikeExchangeAuth   = 35
	ikeExchangeChild  = 36
	ikeExchangeInform = 37
	ikeExchangeMore   = 43 // IKE_INTERMEDIATE
)

var errIKE = errors.New("not an ikev2 message")

func (ikev2) Name() string                  { return "ikev2" }
func (ikev2) Transports() dissect.Transport { return dissect.UDP }

// ikeMessage is the message behind the marker of port 4500; nil if it is none.
func ikeMessage(b []byte) []byte {
	if len(b) >= 4+ikeHeader && binary.BigEndian.Uint32(b) == 0 {
		b = b[4:]
	}
	if len(b) < ikeHeader || b[17] != 0x20 || b[18] < ikeExchangeInit || b[18] > 44 || b[19]&^0x38 != 0 {
		return nil
	}
	if n := binary.BigEndian.Uint32(b[24:]); n < ikeHeader || n > ikeMaxLength || binary.BigEndian.Uint64(b) == 0 {
		return nil
	}
	return b
}

func (ikev2) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{
		{Least: ikeHeader, At: 17, Mask: 0xff, Want: 0x20},
		{Starts: "\x00", Least: 4 + ikeHeader, At: 4 + 17, Mask: 0xff, Want: 0x20}, // behind the marker
	}
}

func (ikev2) Probe(d *dissect.Datagram) dissect.Verdict {
	b := ikeMessage(d.Payload)
	if b == nil || int(binary.BigEndian.Uint32(b[24:])) != d.PayloadLen-(len(d.Payload)-len(b)) {
		return dissect.No
	}
	next := b[16]
	if b[18] == ikeExchangeInit {
		if binary.BigEndian.Uint32(b[20:]) > 1 || next < ikeSA || next > 54 {
			return dissect.No
		}
	} else if next == 0 || binary.BigEndian.Uint64(b[8:]) == 0 && next != ikeNotify { // a stateless error
		return dissect.No // gateways put other things than SK first
	}
	return dissect.Yes
}

// Flow.Port is the message id of the newest IKE_INTERMEDIATE: IKE_AUTH comes after it.
func (ikev2) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := ikeMessage(d.Payload)
	if b == nil {
		return len(d.Payload), errIKE // ESP in UDP, keepalives
	}
	response := b[19]&ikeResponse != 0
	m.Role = dissect.RoleSupernode
	m.FromClient = b[19]&ikeInitiator != 0
	id := binary.BigEndian.Uint32(b[20:])
	key := hashKey(uint64(b[18])<<32|uint64(id), b[:8])
	switch b[18] {
	case ikeExchangeInit:
		ikeInit(b, f, m, response, key)
	case ikeExchangeAuth:
		m.Op, m.Txn, m.Encrypted = "IKE_AUTH", key, true
		switch {
		case id != 1+uint32(f.Port) || b[16] == ikeFragment && len(b) > ikeHeader+6 && binary.BigEndian.Uint16(b[ikeHeader+4:]) > 1:
			// A step of EAP, or not the first fragment (RFC 7383): decided already.
		case !response:
			m.Kind = dissect.KindRequest
		case len(b) < ikeAuthShort:
			m.Kind = dissect.KindRefuse
		default:
			m.Kind = dissect.KindAccept
		}
	case ikeExchangeMore:
		f.Port = uint16(id)
	case ikeExchangeChild, ikeExchangeInform:
		m.Op, m.Txn, m.Encrypted = "INFORMATIONAL", key, true
		if b[18] == ikeExchangeChild {
			m.Op = "CREATE_CHILD_SA"
		}
		switch {
		case b[16] == ikeNotify:
			if ikeNotified(b) == ikeInvalidSPI {
				m.Kind, m.Op = dissect.KindLost, "INVALID_IKE_SPI"
			}
		case m.FromClient && !response:
			m.Kind = dissect.KindRefresh
		case !m.FromClient && response:
			m.Kind = dissect.KindAccept
		}
	}
	return len(d.Payload), nil
}

// ikeInit reads both sides of IKE_SA_INIT. Flow.A is the key of the newest
// request, Flow.B that of its initiator: requests with and without cookie have
// the same SPI and message id, and an answer is to the newest.
func ikeInit(b []byte, f *dissect.Flow, m *dissect.Message, response bool, key uint64) {
	m.Op, m.Txn = "IKE_SA_INIT", key
	m.FromClient = !response
	if !response {
		m.Kind = dissect.KindRequest
		if b[16] == ikeNotify && ikeNotified(b) == ikeCookie {
			m.Op, m.Txn = "IKE_SA_INIT cookie", hash1(key)
		}
		f.A, f.B, f.Port = m.Txn, key, 0
		return
	}
	if f.B == key {
		m.Txn = f.A
	}
	switch t := ikeNotified(b); {
	case t == ikeAgreed:
		m.Kind = dissect.KindAccept
	case t == ikeCookie:
		m.Kind, m.Op = dissect.KindThrottle, "COOKIE"
	case t == ikeRedirect:
		m.Kind, m.Op = dissect.KindRedirect, "REDIRECT"
	case t == ikeInvalidKE:
		m.Kind, m.Op = dissect.KindChallenge, "INVALID_KE_PAYLOAD"
	case t > 0 && t < ikeFirstStatus:
		m.Kind, m.Op = dissect.KindRefuse, "error"
	default:
		m.Kind = dissect.KindProgress
	}
}

// ikeNotified is the type of the first notify that decides something: an error,
// COOKIE or REDIRECT; ikeAgreed if an association comes before it, 0 if there is neither.
func ikeNotified(b []byte) int {
	next := b[16]
	c := dissect.NewCursor(b[ikeHeader:])
	for next != 0 && c.Len() >= 4 {
		kind := next
		next = c.U8()
		c.Skip(1)
		body := dissect.NewCursor(c.Bytes(int(c.U16()) - 4))
		if kind == ikeSA {
			return ikeAgreed
		}
		if kind != ikeNotify {
			continue
		}
		body.Skip(2)
		if t := int(body.U16()); t != 0 && t < ikeFirstStatus || t == ikeCookie || t == ikeRedirect {
			return t
		}
	}
	return 0
}
