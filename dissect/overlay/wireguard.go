package overlay

import (
	"errors"

	"squall/dissect"
)

// wireguard is WireGuard over UDP: the paper's section 5.4 and
// WireGuard/wireguard-go device; protocols.md H.3.
//
//	0 01 00 00 00 | 4 4 sender | 8 32 ephemeral | 40 48 static | 88 28 time | 116 16 mac1 | 132 16 mac2   initiation, 148 bytes
//	0 02 00 00 00 | 4 4 sender | 8 4 receiver | 12 32 ephemeral | 44 16 | 60 16 mac1 | 76 16 mac2         response, 92
//	0 03 00 00 00 | 4 4 receiver | 8 24 nonce | 32 32 cookie                                              cookie reply, 64
//	0 04 00 00 00 | 4 4 receiver | 8 8 counter | 16 ...                                                   data
//
// A client that gets no answer sends a new initiation, with an index of its
// own, every 5 s and a third: each is an attempt. The response is the yes and
// holds for 180 s; a handshake in a session is a refresh. A node under load
// answers with a cookie reply: throttled, and the client asks again with mac2
// filled in (op "initiation with cookie"). There is no refusal: who is not
// known gets silence. All that names the client is encrypted, its version is
// not on the wire, and both ends look the same; at port 51820 the port says
// that it is the server. DISCO of Tailscale on the same ports is read, too.
type wireguard struct{}

const (
	wireguardPort       = 51820
	wireguardInitiation = 148
	wireguardResponse   = 92
	wireguardCookie     = 64
	wireguardData       = 32    // a keepalive; others are longer by multiples of 16
	wireguardRetry      = 5e9   // ns, REKEY_TIMEOUT
	wireguardReject     = 18e10 // ns, REJECT_AFTER_TIME
)

var errWireGuard = errors.New("not a wireguard message")

func (wireguard) Name() string                  { return "wireguard" }
func (wireguard) Transports() dissect.Transport { return dissect.UDP }

// wireguardKind is the type of a message, 0 if it is none; n is the length on the wire.
func wireguardKind(b []byte, n int) byte {
	if len(b) < 16 || b[0] == 0 || b[0] > 4 || b[1]|b[2]|b[3] != 0 {
		return 0
	}
	switch kind := b[0]; {
	case kind == 1 && n == wireguardInitiation, kind == 2 && n == wireguardResponse, kind == 3 && n == wireguardCookie,
		kind == 4 && n >= wireguardData && n%16 == 0 && b[15]|b[14]|b[13] == 0:
		return kind
	}
	return 0
}

func (wireguard) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "\x01\x02\x03\x04", Least: 16, At: 2, Mask: 0xff}}
}

func (wireguard) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < 16 || b[0] == 0 || b[0] > 4 {
		return dissect.No
	}
	switch wireguardKind(b, d.PayloadLen) {
	case 0:
		return dissect.No
	case 1:
		return dissect.Yes
	}
	return dissect.Maybe
}

func (wireguard) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) > 0 && b[0] == discoMagic[0] {
		return tailscale{}.Dissect(d, f, m)
	}
	return wireguardMessage(d, m)
}

func wireguardMessage(d *dissect.Datagram, m *dissect.Message) (int, error) {
	b := d.Payload
	index := func(at int) uint64 { return hashKey(5, b[at:at+4]) }
	m.Encrypted, m.Protocol = true, wireguard{}.Name()
	switch wireguardKind(b, d.PayloadLen) {
	case 0:
		return len(b), errWireGuard
	case 1:
		m.Kind, m.Op, m.FromClient, m.Timeout = dissect.KindRequest, "initiation", true, wireguardRetry
		m.Txn = index(4)
		if len(b) == wireguardInitiation && [16]byte(b[132:]) != [16]byte{} {
			m.Op = "initiation with cookie"
		}
		if d.DstPort == wireguardPort && d.SrcPort != wireguardPort {
			m.Role, m.ByPort = dissect.RoleSupernode, true
		}
	case 2:
		m.Kind, m.Op, m.FromClient, m.Lifetime = dissect.KindAccept, "response", false, wireguardReject
		m.Txn = index(8)
	case 3:
		m.Kind, m.Op, m.FromClient = dissect.KindThrottle, "cookie reply", false
		m.Txn = index(4)
	}
	return len(b), nil
}
