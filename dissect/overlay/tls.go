package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// tls is TLS 1.0 to 1.3 over TCP, and SSLv2-style hellos: RFC 8446 sections
// 4.1, 5.1, 6 and appendix B, RFC 5246; protocols.md I.3.
//
//	record: 0 type (14 ccs 15 alert 16 handshake 17 data 18 heartbeat) | 1 2 version 03xx | 3 2 length | body
//	handshake: 0 type (01 ClientHello 02 ServerHello) | 1 3 length | 4 2 version | 6 32 random ...
//	SSLv2-style: 0 2 length|8000 | 2 01 | 3 2 version | ciphers2 session2 challenge2 ...
//
// It is a carrier: who is the supernode, and what the overlay inside says, is
// not seen. ClientHello is the request and ServerHello the yes of the transport;
// HelloRetryRequest is a challenge, an alert of the server before its
// ServerHello a refusal (Op names it), an alert later a close. A client that
// answers the ServerHello with an alert (it does not trust the certificate)
// refuses: the session that its yes stood for never was. The version is the JA4
// fingerprint of the client, the name that it asks for is that of SNI.
type tls struct{}

const (
	tlsHeader    = 5
	tlsMaxRecord = 1<<14 + 2048 // RFC 5246 section 6.2.3
	// tlsSealedAlert is an alert of TLS 1.3 encrypted: two bytes, their type and the
	// tag, RFC 8446 section 5.2. A Finished, which it may stand in for, has over fifty.
	tlsSealedAlert = 2 + 1 + 16

	tlsCCS       = 20
	tlsAlert     = 21
	tlsHandshake = 22
	tlsData      = 23
	tlsHeartbeat = 24
)

// Bits of Flow.Flags.
const (
	tlsAsked      = 1 << iota // a ClientHello was read
	tlsAnswered               // a ServerHello was read
	tlsClientData             // application data of the client has passed
	tlsNodeData
)

var errTLS = errors.New("not a tls record")

// tlsRetry is the random of a HelloRetryRequest, RFC 8446 section 4.1.3.
const tlsRetry = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91" +
	"\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"

func (tls) Name() string                  { return "tls" }
func (tls) Transports() dissect.Transport { return dissect.TCP }

func (tls) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{
		{Starts: "\x15\x16", Least: 7},
		{Starts: highBytes, Least: 11, At: 2, Mask: 0xff, Want: 1}, // the hello of SSLv2
	}
}

func (tls) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < 11 {
		if len(b) == 7 && b[0] == tlsAlert && b[1] == 3 && b[2] <= 4 && b[3] == 0 && b[4] == 2 && b[5] >= 1 && b[5] <= 2 {
			return dissect.Maybe // nothing but an alert
		}
		return dissect.No
	}
	if b[0] == tlsHandshake && b[1] == 3 && b[2] <= 4 {
		n := int(binary.BigEndian.Uint16(b[3:]))
		// Hellos are under 64 KiB, so the high byte of the length is 0.
		if n < 38 || n > tlsMaxRecord || b[5] != 1 && b[5] != 2 || b[6] != 0 || b[9] != 3 || b[10] > 4 {
			return dissect.No
		}
		return dissect.Yes
	}
	if sslv2Hello(b) {
		return dissect.Yes
	}
	return dissect.No
}

// sslv2Hello reports a hello of SSL 2 that offers SSL 3 or TLS: RFC 5246 appendix E.2.
func sslv2Hello(b []byte) bool {
	if b[0]&0x80 == 0 || b[2] != 1 || b[3] != 3 || b[4] > 3 {
		return false
	}
	size := int(b[0]&0x7f)<<8 | int(b[1])
	ciphers, session, challenge := int(binary.BigEndian.Uint16(b[5:])), int(binary.BigEndian.Uint16(b[7:])), int(binary.BigEndian.Uint16(b[9:]))
	return ciphers > 0 && ciphers%3 == 0 && session <= 32 && challenge >= 16 && challenge <= 32 && size == 9+ciphers+session+challenge
}

func (tls) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	if len(b) < tlsHeader {
		return 0, dissect.ErrShort
	}
	if f.FromClient && f.Flags&tlsAsked == 0 && b[0]&0x80 != 0 {
		if len(b) < 11 {
			return 0, dissect.ErrShort
		}
		if !sslv2Hello(b) {
			return 0, errTLS
		}
		f.Flags |= tlsAsked
		m.Kind, m.Op = dissect.KindRequest, "ClientHello"
		return leaveBody(f, 2+uint64(b[0]&0x7f)<<8+uint64(b[1]), len(b)), nil
	}
	size := int(binary.BigEndian.Uint16(b[3:]))
	if b[0] < tlsCCS || b[0] > tlsHeartbeat || b[1] != 3 || size > tlsMaxRecord {
		return 0, errTLS
	}
	total := tlsHeader + size
	switch b[0] {
	case tlsHandshake:
		if len(b) < min(total, tlsHeader+4+2+32) && wait(d) {
			return 0, dissect.ErrShort
		}
		body := b[tlsHeader:min(len(b), total)]
		switch {
		case len(body) == 0:
		case f.FromClient && body[0] == 1 && f.Flags&tlsAsked == 0:
			if len(b) < total && wait(d) {
				return 0, dissect.ErrShort
			}
			f.Flags |= tlsAsked
			m.Kind, m.Op = dissect.KindRequest, "ClientHello"
			if len(body) > 4 {
				h, err := ReadClientHello(body[4:])
				if err == nil {
					h.describe(m, 't')
				}
			}
		case !f.FromClient && body[0] == 2 && f.Flags&tlsAnswered == 0:
			if len(body) >= 38 && string(body[6:38]) == tlsRetry {
				m.Kind, m.Op = dissect.KindChallenge, "HelloRetryRequest"
				break
			}
			f.Flags |= tlsAnswered
			m.Kind, m.Op = dissect.KindAccept, "ServerHello"
		}
	case tlsAlert:
		if len(b) < min(total, tlsHeader+2) && wait(d) {
			return 0, dissect.ErrShort
		}
		tlsAlerted(b, f, m)
	case tlsData:
		if f.FromClient {
			if f.Flags&(tlsAnswered|tlsClientData) == tlsAnswered && size == tlsSealedAlert {
				m.Kind, m.Op = dissect.KindRefuse, "alert"
			}
			f.Flags |= tlsClientData
		} else {
			f.Flags |= tlsNodeData
		}
		// Both have said something inside: nothing more can be learned.
		f.Done = f.Flags&(tlsAnswered|tlsClientData|tlsNodeData) == tlsAnswered|tlsClientData|tlsNodeData
	}
	return leaveBody(f, uint64(total), len(b)), nil
}

// tlsAlerted is an alert: in clear it has two bytes.
func tlsAlerted(b []byte, f *dissect.Flow, m *dissect.Message) {
	m.Op = "alert"
	clear := binary.BigEndian.Uint16(b[3:]) == 2 && len(b) >= tlsHeader+2
	if clear {
		m.Op = tlsAlertName(b[6])
		if b[5] == 1 && b[6] != 0 && f.Flags&tlsAnswered == 0 {
			return // a warning (unrecognized_name) before the hello
		}
	}
	const closeNotify, userCanceled = 0, 90
	switch {
	case f.FromClient && f.Flags&(tlsAnswered|tlsClientData) == tlsAnswered && clear && b[6] != closeNotify && b[6] != userCanceled:
		m.Kind = dissect.KindRefuse
	case f.FromClient || f.Flags&tlsAnswered != 0:
		m.Kind = dissect.KindClose
	default:
		m.Kind = dissect.KindRefuse
	}
}

// tlsAlertName is the name of an alert: RFC 8446 section 6.
func tlsAlertName(code byte) string {
	switch code {
	case 0:
		return "close_notify"
	case 40:
		return "handshake_failure"
	case 42:
		return "bad_certificate"
	case 45:
		return "certificate_expired"
	case 48:
		return "unknown_ca"
	case 49:
		return "access_denied"
	case 70:
		return "protocol_version"
	case 71:
		return "insufficient_security"
	case 80:
		return "internal_error"
	case 112:
		return "unrecognized_name"
	case 116:
		return "certificate_required"
	case 120:
		return "no_application_protocol"
	}
	return "alert"
}
