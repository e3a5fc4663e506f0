package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"squall/dissect"
)

// coap is CoAP over UDP, and LwM2M in it: RFC 7252 sections 3, 4.2 and 5.9, RFC 8516
// (4.29), RFC 9175 (Echo), RFC 9176 (resource directories); OMA LwM2M TS Transport, section 6.4.
//
//	0 1 version 40 | type 30: 00 CON 10 NON 20 ACK 30 RST | token length 0f | 1 1 code: class e0, detail 1f
//	2 2 message id | 4 token | options: delta4 length4, 13 and 14 go on in 1 and 2 bytes | ff payload
//	POST /rd?ep=NAME&lt=SECONDS registers, POST /rd/ID updates, DELETE /rd/ID leaves; POST /bs?ep=NAME asks where to
//
// A registration asks to be attached, its update is the refresh, and the server the
// supernode, that of /bs the bootstrap; other requests are wishes of their own, at a
// node of no known role. Once a client has registered, the node's requests to it (it
// reads the client's resources) are traffic of the session. 2.xx is yes, 4.29 and 5.03
// are busy, with Max-Age as the wait; 4.01 with Echo asks to prove the address; other
// codes and RST refuse. An empty ACK says that the answer comes later: it is then
// paired by its token. A client sends a CON up to five times with one message id, the
// first repeat after two to three seconds, and waits up to 48 s after the last. The
// identity is ep, the version that of LwM2M. CoAP over TCP (RFC 8323) and in DTLS
// (5684) is not read.
type coap struct{}

const (
	coapPort   = 5683
	coapHeader = 4
	coapWait   = 48 * time.Second // MAX_TRANSMIT_WAIT of the last transmission, RFC 7252 section 4.8.2
	coapLife   = 86400            // seconds, LwM2M TS section 6.4.3, where lt is left out

	coapNON = 0x10
	coapACK = 0x20
	coapRST = 0x30

	coapPOST       = 0x02
	coapDELETE     = 0x04
	coapAuthorize  = 0x81 // 4.01
	coapTooMany    = 0x9d // 4.29
	coapOverloaded = 0xa3 // 5.03

	optionPath   = 11
	optionMaxAge = 14
	optionQuery  = 15
	optionBlock1 = 27
	optionEcho   = 252
)

var (
	errCoAP     = errors.New("not a coap message")
	coapMethods = [...]string{1: "GET", 2: "POST", 3: "PUT", 4: "DELETE", 5: "FETCH", 6: "PATCH", 7: "iPATCH"}
	coapFirst   = fitting(0x40, 0xc0)
	coapAsking  = fitting(0x40, 0xe0) // CON and NON
)

func (coap) Name() string                  { return "coap" }
func (coap) Transports() dissect.Transport { return dissect.UDP }

func (coap) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{
		{Starts: coapFirst, Least: coapHeader, LoPort: coapPort, HiPort: coapPort},
		{Starts: coapAsking, Least: coapHeader + len("\xb2rd\x44ep=x"), At: 1, Mask: 0xff, Want: coapPOST},
	}
}

// coapOptions reads the options behind a token in their order, until each says that it
// has seen enough. ok: they are sound, up to the end or to a payload.
func coapOptions(b []byte, each func(number int, value []byte)) (ok bool) {
	number := 0
	for len(b) > 0 {
		if b[0] == 0xff {
			return len(b) > 1
		}
		delta, size := int(b[0]>>4), int(b[0]&15)
		b = b[1:]
		for _, n := range [...]*int{&delta, &size} {
			switch {
			case *n == 13 && len(b) >= 1:
				*n, b = 13+int(b[0]), b[1:]
			case *n == 14 && len(b) >= 2:
				*n, b = 269+int(binary.BigEndian.Uint16(b)), b[2:]
			case *n >= 13:
				return false
			}
		}
		if size > len(b) {
			return false
		}
		number += delta
		each(number, b[:size])
		b = b[size:]
	}
	return true
}

func (coap) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < coapHeader || b[0]>>6 != 1 {
		return dissect.No
	}
	token := int(b[0] & 15)
	if token > 8 || len(b) < coapHeader+token {
		return dissect.No
	}
	kind, class := b[0]&0x30, b[1]>>5
	paths, sound, directory, named := 0, true, false, false
	whole := coapOptions(b[coapHeader+token:], func(number int, v []byte) {
		switch number {
		case optionPath:
			directory = directory || paths == 0 && (string(v) == "rd" || string(v) == "bs")
			paths++
			sound = sound && printable(v)
		case optionQuery:
			named = named || len(v) > 3 && string(v[:3]) == "ep="
			sound = sound && printable(v)
		}
	})
	switch {
	case !whole || !sound:
		return dissect.No
	case b[1] == coapPOST && directory && named && kind <= coapNON:
		return dissect.Yes
	case d.SrcPort != coapPort && d.DstPort != coapPort:
		return dissect.No
	case class == 0 && b[1] != 0: // a request
		if int(b[1]) >= len(coapMethods) || kind > coapNON {
			return dissect.No
		}
	case b[1] == 0: // empty: an acknowledgement, a reset or a ping
		if len(b) != coapHeader || kind == coapNON {
			return dissect.No
		}
	case class != 2 && class != 4 && class != 5 || kind == coapRST:
		return dissect.No
	}
	return dissect.Maybe
}

// Marks in Flow.Flags: the one who opened the flow has registered; its newest request
// is of a registration.
const (
	coapRegistered = 1 << iota
	coapAttaching

	coapHalf = uint64(1<<32 - 1)
)

// The newest request of each side: Flow.A has a hash of its token, the upper half that
// of the opener's, and Flow.B its message id, likewise. Flow.Port is the lifetime of
// the registration, in minutes.
func (coap) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) < coapHeader || b[0]>>6 != 1 || b[0]&15 > 8 || len(b) < coapHeader+int(b[0]&15) {
		return len(b), errCoAP
	}
	kind, code, id := b[0]&0x30, b[1], binary.BigEndian.Uint16(b[2:])
	token := b[coapHeader : coapHeader+int(b[0]&15)]
	said := coapSaid{}
	if !coapOptions(b[coapHeader+len(token):], said.option) && !d.Cut {
		return len(b), errCoAP
	}
	asks := code>>5 == 0 && code != 0
	side := asks == f.FromClient // the opener asks, or is answered
	if asks {
		coapAsk(&said, code, kind, side, id, token, f, m)
		return len(b), nil
	}
	shift := coapShift(side)
	if uint32(f.A>>shift) == 0 {
		return len(b), nil // to a request that is none: of a registered client's node, or not captured
	}
	m.FromClient = false
	m.Txn = coapTxn(side, id)
	switch later := kind <= coapNON && code != 0; {
	case code == 0 && kind == coapACK:
		m.Kind, m.Op = dissect.KindProgress, "ACK"
		return len(b), nil
	case code == 0 && kind == coapRST:
		m.Kind, m.Op = dissect.KindRefuse, "RST"
		return len(b), nil
	case code == 0, later && uint32(f.A>>shift) != coapToken(token):
		return len(b), nil // a ping; a notification
	case later:
		m.Txn = coapTxn(side, uint16(f.B>>shift))
	}
	coapAnswer(&said, code, side, f, m)
	return len(b), nil
}

// coapSaid is what the options of a message say.
type coapSaid struct {
	paths       int
	first       []byte // of the path
	ep, version []byte
	life        uint64
	age         uint64
	block       bool // a later block of a request
	echo        bool
}

func (s *coapSaid) option(kind int, v []byte) {
	switch kind {
	case optionPath:
		if s.paths == 0 {
			s.first = v
		}
		s.paths++
	case optionQuery:
		switch {
		case bytes.HasPrefix(v, []byte("ep=")):
			s.ep = v[len("ep="):]
		case bytes.HasPrefix(v, []byte("lt=")):
			s.life, _ = number(v[len("lt="):])
		case bytes.HasPrefix(v, []byte("lwm2m=")):
			s.version = v
		}
	case optionMaxAge:
		for _, c := range v[:min(len(v), 4)] {
			s.age = s.age<<8 | uint64(c)
		}
	case optionBlock1:
		s.block = len(v) > 1 || len(v) == 1 && v[0]>>4 != 0
	case optionEcho:
		s.echo = true
	}
}

func coapShift(opener bool) uint {
	if opener {
		return 32
	}
	return 0
}

func coapToken(token []byte) uint32 { return uint32(hashKey(uint64(len(token)), token)) }

func coapTxn(opener bool, id uint16) uint64 { return hash1(uint64(id) | uint64(coapShift(opener))<<16) }

// coapAsk reads a request.
func coapAsk(s *coapSaid, code, kind byte, opener bool, id uint16, token []byte, f *dissect.Flow, m *dissect.Message) {
	m.FromClient = true
	if int(code) >= len(coapMethods) || s.block || !opener && f.Flags&coapRegistered != 0 {
		m.FromClient = f.FromClient
		return
	}
	shift := coapShift(opener)
	f.A = f.A&^(coapHalf<<shift) | uint64(coapToken(token))<<shift
	f.B = f.B&^(coapHalf<<shift) | uint64(id)<<shift
	m.Kind, m.Op, m.Txn = dissect.KindRequest, coapMethods[code], coapTxn(opener, id)
	m.ClientID, m.Version = s.ep, s.version
	if kind != coapNON {
		m.Repeats, m.Timeout = true, int64(coapWait)
	}
	if opener {
		f.Flags &^= coapAttaching
	}
	switch {
	case string(s.first) == "bs" && code == coapPOST && s.paths == 1:
		m.Op, m.Role = "bootstrap", dissect.RoleBootstrap
	case string(s.first) != "rd":
	case s.paths == 1 && code == coapPOST:
		m.Op, m.Role = "register", dissect.RoleSupernode
		if s.life == 0 {
			s.life = coapLife
		}
		coapHold(s, opener, f)
	case s.paths > 1 && code == coapPOST:
		m.Kind, m.Op, m.Role = dissect.KindRefresh, "update", dissect.RoleSupernode
		coapHold(s, opener, f)
	case s.paths > 1 && code == coapDELETE:
		m.Kind, m.Op, m.Role = dissect.KindClose, "deregister", dissect.RoleSupernode
	}
}

// coapHold notes what a registration asks for; an update may leave the lifetime as it was.
func coapHold(s *coapSaid, opener bool, f *dissect.Flow) {
	if !opener {
		return
	}
	f.Flags |= coapRegistered | coapAttaching
	if s.life > 0 {
		f.Port = uint16(min((s.life+59)/60, 1<<16-1))
	}
}

// coapAnswer reads a response.
func coapAnswer(s *coapSaid, code byte, opener bool, f *dissect.Flow, m *dissect.Message) {
	switch {
	case code == coapTooMany || code == coapOverloaded:
		m.Kind, m.Op = dissect.KindThrottle, "busy"
		m.RetryAfter = int64(s.age) * int64(time.Second)
	case code == coapAuthorize && s.echo:
		m.Kind, m.Op = dissect.KindChallenge, "4.01"
	case code>>5 == 2:
		m.Kind, m.Op = dissect.KindAccept, "2.xx"
		if opener && f.Flags&coapAttaching != 0 {
			m.Lifetime = int64(f.Port) * int64(time.Minute)
		}
	case code>>5 == 4:
		m.Kind, m.Op = dissect.KindRefuse, "4.xx"
	case code>>5 == 5:
		m.Kind, m.Op = dissect.KindRefuse, "5.xx"
	}
}
