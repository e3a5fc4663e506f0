package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// syncthing is Syncthing over TCP: devices at a relay (22067), and at each other
// (22000). docs.syncthing.net, "Relay Protocol v1"; lib/relay/protocol/packets.go and
// cmd/strelaysrv/listener.go of syncthing/syncthing.
//
//	relay, in clear or in TLS: 0 4 9e79bc40 | 4 4 type | 8 4 length | 12 ...
//	types: 0 Ping 1 Pong 2 JoinRelayRequest 3 JoinSessionRequest 4 Response (code4, text)
//	5 ConnectRequest 6 SessionInvitation 7 RelayFull; codes: 0 success 1 not found 2 already connected 3 wrong token
//	ALPN: "bep-relay" at a relay, "bep/1.0" between devices
//
// A device joins a relay inside TLS, and asks it there for another device, who is
// invited to a session. Each message is a record of its own and nothing follows the
// handshakes but them, so the length of the first record with data that the node
// sends after one of the client tells the answer: success 28 bytes, RelayFull 12, the other
// codes 32 and 40, an invitation 96 or more; 16, 17 or 24 are added by the cipher
// (Encrypted). RelayFull is busy. An answer of another length, under a token or a
// cipher that pads, counts as yes. JoinSessionRequest is in clear and has its
// Response; what the session carries is not read. Between devices all is as in tls.
// Identities are in encrypted certificates; the version is the JA4 of the client.
//
// Local discovery (UDP 21027) is broadcast and multicast, which attaches nobody, and
// global discovery is HTTPS.
type syncthing struct{}

const (
	relayMagic      = "\x9e\x79\xbc\x40"
	relayHeader     = 12
	relayMaxMessage = 1024 // lib/relay/protocol/protocol.go
)

// The kinds of connection, in Flow.Step.
const (
	syncthingSession = 1 + iota
	syncthingRelay
	syncthingDevice
)

var errSyncthing = errors.New("not a message of a syncthing relay")

func (syncthing) Name() string                  { return "syncthing" }
func (syncthing) Transports() dissect.Transport { return dissect.TCP }

func (syncthing) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: relayMagic[:1] + "\x16", Least: relayHeader + 4}}
}

func (syncthing) Probe(d *dissect.Datagram) dissect.Verdict {
	if syncthingKind(d.Payload) != 0 {
		return dissect.Yes
	}
	return dissect.No
}

// syncthingKind is what the first bytes of a client open, 0 = nothing of Syncthing.
func syncthingKind(b []byte) uint8 {
	switch {
	case len(b) < relayHeader+4:
	case string(b[:4]) == relayMagic && binary.BigEndian.Uint32(b[4:]) == 3 && binary.BigEndian.Uint32(b[8:]) <= 4+32:
		return syncthingSession
	case b[0] == tlsHandshake && b[5] == 1:
		switch h, _ := ReadClientHello(b[9:]); string(h.ALPN) {
		case "bep-relay":
			return syncthingRelay
		case "bep/1.0":
			return syncthingDevice
		}
	}
	return 0
}

func (syncthing) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (n int, err error) {
	if f.Step == 0 {
		f.Step = syncthingKind(d.Payload)
	}
	switch f.Step {
	case syncthingSession:
		m.Role = dissect.RoleRelay
		return syncthingMessage(d, f, m)
	case syncthingRelay:
		n, err = syncthingAnswer(d, f, m)
		m.Role = dissect.RoleRelay
		return n, err
	}
	n, err = tls{}.Dissect(d, f, m)
	m.Role = dissect.RolePeer
	return n, err
}

// syncthingMessage reads a message in clear, up to the Response.
func syncthingMessage(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) < relayHeader+4 && wait(d) {
		return 0, dissect.ErrShort
	}
	if len(b) < relayHeader || string(b[:4]) != relayMagic || binary.BigEndian.Uint32(b[8:]) > relayMaxMessage {
		return 0, errSyncthing
	}
	n := min(len(b), relayHeader+int(binary.BigEndian.Uint32(b[8:])))
	switch kind := binary.BigEndian.Uint32(b[4:]); {
	case kind == 3 && f.FromClient:
		m.Kind, m.Op = dissect.KindRequest, "JoinSessionRequest"
	case kind == 4 && !f.FromClient && len(b) >= relayHeader+4:
		m.Kind, m.Op = dissect.KindAccept, "success"
		if code := binary.BigEndian.Uint32(b[relayHeader:]); code != 0 {
			m.Kind, m.Op = dissect.KindRefuse, syncthingCode(code)
		}
		f.Done = true
	}
	return n, nil
}

func syncthingCode(code uint32) string {
	switch code {
	case 1:
		return "not found"
	case 2:
		return "already connected"
	case 3:
		return "wrong token"
	}
	return "no"
}

// syncthingAnswer reads the TLS to a relay, up to the answer inside.
func syncthingAnswer(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	within := uint32(f.A>>bodyShift(f)) > 0
	answered := !f.FromClient && !within && f.Flags&tlsClientData != 0
	n, err := tls{}.Dissect(d, f, m)
	f.Done = false
	switch {
	case n == 0 || err != nil:
	case m.Kind == dissect.KindAccept: // the ServerHello
		m.Kind = dissect.KindProgress
	case answered && d.Payload[0] == tlsData:
		f.Done, m.Encrypted = true, true
		switch binary.BigEndian.Uint16(d.Payload[3:]) {
		case 12 + 16, 12 + 17, 12 + 24:
			m.Kind, m.Op = dissect.KindThrottle, "RelayFull"
		case 32 + 16, 32 + 17, 32 + 24, 40 + 17, 40 + 24:
			m.Kind, m.Op = dissect.KindRefuse, "no"
		default:
			m.Kind, m.Op = dissect.KindAccept, "joined"
		}
	}
	return n, err
}
