package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// nebula is Nebula between nodes, lighthouses and relays over UDP 4242:
// slackhq/nebula header/header.go, nebula.proto and cert; protocols.md C.
//
//	0 version 1 << 4 | type | 1 subtype | 2 2 zero | 4 4 index of the receiver | 8 8 counter | 16 ...
//	types: 0 Handshake 1 Message (subtype 1 relayed) 2 RecvError 3 LightHouse 4 Test (0 asks, 1 answers) 5 CloseTunnel 6 Control
//	Handshake, counter 1: 16 ephemeral key, static key (32 each, P256 65) | 0a details: 0a certificate, 10 initiator's index ...
//
// The first message of a handshake is in clear. Its index is that of the
// receiver in the answer, and the same in all repeats of a burst: ten datagrams
// in some 7 s are one attempt. There is no refusal: a certificate that is not
// liked is met with silence. RecvError means that the sender knows no such
// tunnel. A Test in a session is a refresh.
//
// Nodes shake hands with lighthouses and with each other alike. The first thing
// that the initiator sends through the tunnel tells: LightHouse to a lighthouse
// (supernode), anything else to a peer. Until that is seen once for a node, the
// port speaks. What passes a relay has its own header in clear after the
// relay's: a handshake in it is an attempt by way of the relay, rung relay.
//
// The identity is the name in the certificate (version 1, protobuf; version 2,
// ASN.1). The software's version is not on the wire.
type nebula struct{}

const (
	nebulaPort   = 4242
	nebulaHeader = 16
	nebulaTag    = 16 // of the cipher, at the end of what is encrypted
	// nebulaWait is how long a burst may pause, ns: 100 ms longer from try to
	// try, 20 tries at most.
	nebulaWait = 3e9
)

// The types of messages.
const (
	nebulaHandshake = iota
	nebulaMessage
	nebulaRecvError
	nebulaLightHouse
	nebulaTest
	nebulaClose
	nebulaControl
)

// Bits of Flow.Flags.
const (
	nebulaKnown    = 1 << iota // who is the client
	nebulaOpener               // it is the opener of the flow
	nebulaDirect               // the node is a lighthouse
	nebulaNoIndex              // the newest handshake was cut before its index
	nebulaAnswered             // it was answered
)

var errNebula = errors.New("not a nebula packet")

func (nebula) Name() string                  { return "nebula" }
func (nebula) Transports() dissect.Transport { return dissect.UDP }

// nebulaKind checks a header; n is the length on the wire.
func nebulaKind(b []byte, n int) (kind uint8, ok bool) {
	if len(b) < nebulaHeader || b[0]>>4 != 1 || b[2]|b[3] != 0 {
		return 0, false
	}
	kind = b[0] & 15
	index, counter := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
	switch {
	case kind > nebulaControl, b[1] > 1, b[1] == 1 && kind != nebulaMessage && kind != nebulaTest:
		return 0, false
	case kind == nebulaHandshake:
		ok = counter == 1 && index == 0 && n > nebulaHeader+64 || counter == 2 && index != 0 && n >= nebulaHeader+32+nebulaTag
	case kind == nebulaRecvError:
		ok = n == nebulaHeader && index != 0
	default: // a counter of five bytes lasts for years
		ok = n >= nebulaHeader+nebulaTag && index != 0 && counter > 2 && counter>>40 == 0
	}
	return kind, ok
}

// nebulaDetails is the payload of a first message, in clear; nil if there is none.
func nebulaDetails(b []byte) []byte {
	for _, key := range [...]int{32, 65} {
		if at := nebulaHeader + 2*key; len(b) > at+2 && b[at] == 0x0a && (key == 32 || b[16] == 4 && b[16+65] == 4) {
			return b[at:]
		}
	}
	return nil
}

func (nebula) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Least: nebulaHeader, At: 0, Mask: 0xf0, Want: 0x10}, {Starts: "\x01", Most: 1, LoPort: nebulaPort, HiPort: nebulaPort}}
}

func (nebula) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) == 1 && b[0] == 1 && (d.SrcPort == nebulaPort || d.DstPort == nebulaPort) {
		return dissect.Maybe // keeps a NAT open
	}
	if len(b) < nebulaHeader || b[0]>>4 != 1 {
		return dissect.No
	}
	kind, ok := nebulaKind(b, d.PayloadLen)
	switch {
	case !ok:
		return dissect.No
	case kind == nebulaHandshake && b[15] == 1 && nebulaDetails(b) != nil:
		return dissect.Yes
	case kind == nebulaHandshake && b[15] == 1 && !d.Cut:
		return dissect.No
	}
	return dissect.Maybe
}

// protoField reads a field of a protobuf message: a varint or bytes.
func protoField(b []byte) (number int, value uint64, body, rest []byte, ok bool) {
	key, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, 0, nil, nil, false
	}
	b = b[n:]
	value, n = binary.Uvarint(b)
	if n <= 0 {
		return 0, 0, nil, nil, false
	}
	b = b[n:]
	switch key & 7 {
	case 0:
		return int(key >> 3), value, nil, b, true
	case 2:
		body = b[:min(value, uint64(len(b)))] // of a cut packet what is there
		return int(key >> 3), value, body, b[len(body):], true
	}
	return 0, 0, nil, nil, false
}

// nebulaName is the name in a certificate as handshakes carry it.
func nebulaName(b []byte) []byte {
	if len(b) > 0 && b[0] == 0x30 { // SEQUENCE { [0] details { [0] name ...
		for _, tag := range [...]byte{0x30, 0xa0, 0x80} {
			if len(b) < 2 || b[0] != tag {
				return nil
			}
			n, head := int(b[1]), 2
			if n > 127 {
				head += n & 127
				if head > 4 || len(b) < head {
					return nil
				}
				n = 0
				for _, c := range b[2:head] {
					n = n<<8 | int(c)
				}
			}
			b = b[head:]
			b = b[:min(n, len(b))]
		}
		return b
	}
	number, _, details, _, ok := protoField(b)
	if !ok || number != 1 {
		return nil
	}
	if number, _, name, _, ok := protoField(details); ok && number == 1 {
		return name
	}
	return nil
}

// nebulaFirst reads a first message. The key of the attempt is the initiator's
// index; where the snapshot length left none, the ephemeral key.
func nebulaFirst(b []byte) (txn uint64, name []byte, indexed bool) {
	txn = hashKey(3, b[nebulaHeader:min(len(b), nebulaHeader+32)])
	number, _, details, _, ok := protoField(nebulaDetails(b))
	if !ok || number != 1 {
		return txn, nil, false
	}
	for len(details) > 0 {
		number, value, body, rest, ok := protoField(details)
		if !ok {
			break
		}
		switch number {
		case 1:
			name = nebulaName(body)
		case 2:
			return hash1(value), name, true
		}
		details = rest
	}
	return txn, name, false
}

// Flow.A is the key of the newest handshake, Flow.B that of the newest test.
func (nebula) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) == 1 {
		return 1, nil
	}
	kind, ok := nebulaKind(b, d.PayloadLen)
	if !ok {
		return 0, errNebula
	}
	if d.SrcPort == nebulaPort != (d.DstPort == nebulaPort) {
		m.Role, m.ByPort = dissect.RoleSupernode, true
	}
	client := f.Flags&nebulaKnown != 0 && f.FromClient == (f.Flags&nebulaOpener != 0)
	if f.Flags&nebulaKnown != 0 {
		m.FromClient = client
	}
	switch kind {
	case nebulaHandshake:
		indexed := nebulaShake(b, m)
		switch {
		case m.Kind == dissect.KindRequest:
			f.Flags &^= nebulaAnswered | nebulaOpener | nebulaNoIndex
			f.Flags |= nebulaKnown
			if f.FromClient {
				f.Flags |= nebulaOpener
			}
			if !indexed {
				f.Flags |= nebulaNoIndex
			}
			f.A = m.Txn
		case f.Flags&nebulaNoIndex != 0:
			m.Txn = f.A
			fallthrough
		case m.Txn == f.A:
			f.Flags |= nebulaAnswered
		}
		return len(b), nil
	case nebulaMessage:
		if inner := b[nebulaHeader:]; b[1] == 1 && len(inner) > nebulaHeader {
			if kind, ok := nebulaKind(inner, d.PayloadLen-nebulaHeader-nebulaTag); ok && kind == nebulaHandshake {
				nebulaShake(inner, m)
				m.Role, m.ByPort, m.Rung = dissect.RoleRelay, false, "relay"
				return len(b), nil
			}
		}
	case nebulaRecvError:
		m.Kind, m.Op = dissect.KindLost, "RecvError"
		return len(b), nil
	case nebulaClose:
		m.Kind, m.Op = dissect.KindClose, "CloseTunnel"
		return len(b), nil
	case nebulaLightHouse:
		if f.Flags&nebulaKnown == 0 { // lighthouses are asked and told, they do not begin
			f.Flags |= nebulaKnown | nebulaDirect
			if f.FromClient {
				f.Flags |= nebulaOpener
			}
		}
	}
	if f.Flags&nebulaDirect != 0 {
		m.Role, m.ByPort = dissect.RoleSupernode, false
	}
	switch {
	case client && f.Flags&nebulaAnswered != 0:
		// The first use of the tunnel tells what its node is.
		m.Kind, m.Op, m.Txn = dissect.KindAccept, "tunnel", f.A
		m.Role, m.ByPort = dissect.RolePeer, false
		f.Flags &^= nebulaDirect | nebulaAnswered
		if kind == nebulaLightHouse {
			m.Role = dissect.RoleSupernode
			f.Flags |= nebulaDirect
		}
	case client && kind == nebulaTest && b[1] == 0:
		f.B = hashKey(4, b[4:16])
		m.Kind, m.Op, m.Txn = dissect.KindRefresh, "Test", f.B
	case !client && kind == nebulaTest && b[1] == 1 && f.B != 0:
		m.Kind, m.Op, m.Txn, m.FromClient = dissect.KindAccept, "Test reply", f.B, false
	}
	return len(b), nil
}

// nebulaShake reads a handshake, in its own packet or by way of a relay.
func nebulaShake(b []byte, m *dissect.Message) (indexed bool) {
	if b[15] == 1 {
		m.Kind, m.Op, m.FromClient, m.Timeout = dissect.KindRequest, "Handshake", true, nebulaWait
		m.Txn, m.ClientID, indexed = nebulaFirst(b)
		return indexed
	}
	m.Kind, m.Op, m.FromClient = dissect.KindAccept, "Handshake answer", false
	m.Txn = hash1(uint64(binary.BigEndian.Uint32(b[4:])))
	return true
}
