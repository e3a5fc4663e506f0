package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// tailscale is DISCO, by which Tailscale nodes find a path to each other, over
// UDP: tailscale disco/disco.go; protocols.md H.6.
//
//	0 6 "TS" f0 9f 92 ac | 6 32 sender's key | 38 24 nonce | 62 box: 16 + message
//	message: type1 version1 ...; 01 ping (id 12, [key 32], [padding]) 02 pong (id 12, address 18)
//
// The box is encrypted, so ping and pong are told by their length: a pong has
// 110 bytes, a ping 92 or 124, anything else says nothing (a padded ping, which
// searches the path's MTU, passes so). A pong answers the newest ping of the
// other side. Pings after a pong are refreshes. Both are peers; the sender's key
// is the identity. WireGuard on the same ports is read, too, and said to be that.
type tailscale struct{}

const (
	discoMagic   = "TS\xf0\x9f\x92\xac"
	discoHeader  = 62
	discoPing    = discoHeader + 16 + 14 // until 2021: without the node's key
	discoPingKey = discoHeader + 16 + 46
	discoPong    = discoHeader + 16 + 32
	// discoWait is pingTimeoutDuration of magicsock, ns.
	discoWait = 5e9
)

var errDisco = errors.New("not a disco message")

func (tailscale) Name() string                  { return "tailscale" }
func (tailscale) Transports() dissect.Transport { return dissect.UDP }

func (tailscale) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: discoMagic[:1], Least: discoHeader}}
}

func (tailscale) Probe(d *dissect.Datagram) dissect.Verdict {
	if b := d.Payload; len(b) >= discoHeader && string(b[:6]) == discoMagic {
		return dissect.Yes
	}
	return dissect.No
}

// Flow.A and Flow.B count the pings of the opener and of the other side;
// Flow.Flags has a bit for each that was answered.
func (p tailscale) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) > 0 && b[0] <= 4 {
		return wireguardMessage(d, m)
	}
	if p.Probe(d) != dissect.Yes {
		return len(b), errDisco
	}
	m.Role, m.Encrypted, m.Protocol = dissect.RolePeer, true, p.Name()
	switch d.PayloadLen {
	case discoPing, discoPingKey:
		m.Kind, m.Op, m.FromClient = dissect.KindRequest, "ping", true
		m.ClientID, m.Timeout = b[6:38], discoWait
		count, side := &f.A, uint8(1)
		if !f.FromClient {
			count, side = &f.B, 2
		}
		*count++
		m.Txn = hash1(*count<<1 | uint64(side>>1))
		if f.Flags&side != 0 {
			m.Kind = dissect.KindRefresh
		}
	case discoPong:
		count, side := f.B, uint8(2)
		if !f.FromClient {
			count, side = f.A, 1
		}
		if count > 0 {
			m.Kind, m.Op, m.FromClient = dissect.KindAccept, "pong", false
			m.Txn = hash1(count<<1 | uint64(side>>1))
			f.Flags |= side
		}
	}
	return len(b), nil
}

// derp is DERP, Tailscale's relay over TCP: tailscale derp/derp.go and
// derphttp; protocols.md H.6. In clear it is seen only in tests and behind a
// proxy that ends the TLS; otherwise the server name of the TLS tells it, and
// what is read is what tls reads.
//
//	client: GET /derp, Upgrade: DERP; node: HTTP 101, or frames at once
//	frame: 0 type | 1 4 length | body
//	node: 01 ServerKey ("DERP" f0 9f 94 91, key 32) 03 ServerInfo 06 KeepAlive 15 Restarting
//	client: 02 ClientInfo (key 32, ...)
//
// The node is a relay. ServerInfo is the yes; an HTTP status over 400 refuses,
// 429 and 503 mean later. Restarting closes: it tells each client how long to
// wait. The identity is the client's key.
type derp struct{}

const (
	derpMagic    = "DERP\xf0\x9f\x94\x91"
	derpMaxFrame = 1 << 20
)

// The stages of a connection, in Flow.Step: TLS, or HTTP before frames.
const (
	derpTLS = 1 + iota
	derpHTTP
)

// Bits of Flow.Flags: the side has come to its frames.
const (
	derpClientFrames = 1 << iota
	derpNodeFrames
)

var errDERP = errors.New("not a derp frame")

func (derp) Name() string                  { return "derp" }
func (derp) Transports() dissect.Transport { return dissect.TCP }

func (derp) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "G\x16", Least: 16}}
}

func (derp) Probe(d *dissect.Datagram) dissect.Verdict {
	if derpKind(d.Payload) != 0 {
		return dissect.Yes
	}
	return dissect.No
}

func derpKind(b []byte) uint8 {
	switch {
	case len(b) < 16:
		return 0
	case b[0] == 'G' && string(b[:9]) == "GET /derp":
		for rest := b[:min(len(b), maxHead)]; len(rest) > 0; {
			var line []byte
			line, rest = nextLine(rest)
			if len(line) >= 13 && is(line[:8], "upgrade:") && is(bytes.TrimSpace(line[8:]), "derp") {
				return derpHTTP
			}
		}
	case b[0] == tlsHandshake && b[5] == 1:
		h, _ := ReadClientHello(b[9:])
		if bytes.HasPrefix(h.ServerName, []byte("derp")) && bytes.HasSuffix(h.ServerName, []byte(".tailscale.com")) {
			return derpTLS
		}
	}
	return 0
}

func (derp) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (n int, err error) {
	b := d.Payload
	if f.Step == 0 {
		f.Step = derpKind(b)
	}
	m.Role = dissect.RoleRelay
	if f.Step == derpTLS {
		return tls{}.Dissect(d, f, m)
	}
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	side := uint8(derpClientFrames)
	if !f.FromClient {
		side = derpNodeFrames
	}
	if f.Flags&side == 0 && (b[0] == 'G' || b[0] == 'H') {
		return derpHead(d, f, m, side)
	}
	f.Flags |= side
	if len(b) < 5 {
		return 0, dissect.ErrShort
	}
	size := binary.BigEndian.Uint32(b[1:])
	if size > derpMaxFrame {
		return 0, errDERP
	}
	body := b[5:min(len(b), 5+int(size))]
	m.Txn, m.Chain = hash1(1), hash1(0)
	switch {
	case b[0] == 1 && !f.FromClient:
		if len(body) < len(derpMagic) && wait(d) && int(size) >= len(derpMagic) {
			return 0, dissect.ErrShort
		}
		if !bytes.HasPrefix(body, []byte(derpMagic)) {
			return 0, errDERP
		}
		m.Kind, m.Op = dissect.KindProgress, "ServerKey"
	case b[0] == 2 && f.FromClient:
		if len(body) < 32 && int(size) >= 32 && wait(d) {
			return 0, dissect.ErrShort
		}
		m.Kind, m.Op, m.ClientID, m.Txn = dissect.KindRequest, "ClientInfo", body[:min(32, len(body))], hash1(2)
	case b[0] == 3 && !f.FromClient:
		m.Kind, m.Op = dissect.KindAccept, "ServerInfo"
	case b[0] == 0x15 && !f.FromClient:
		m.Kind, m.Op = dissect.KindClose, "Restarting"
	}
	return leaveBody(f, 5+uint64(size), len(b)), nil
}

// derpHead is the HTTP that a connection begins with.
func derpHead(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message, side uint8) (int, error) {
	b := d.Payload
	end := httpHeadEnd(b)
	if end == 0 {
		if wait(d) {
			return 0, dissect.ErrShort
		}
		end = len(b)
	}
	f.Flags |= side
	m.Txn, m.Chain = hash1(1), hash1(0)
	line, rest := nextLine(b[:end])
	if f.FromClient {
		h := readHTTPFields(rest)
		m.Kind, m.Op, m.Version, m.ServerName = dissect.KindRequest, "GET /derp", h.agent, httpHost(h.host)
		return end, nil
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." {
		return 0, errDERP
	}
	m.Op = "response"
	switch code := string(line[9:12]); {
	case code == "101":
		m.Kind = dissect.KindProgress
	case code == "429" || code == "503":
		h := readHTTPFields(rest)
		m.Kind, m.RetryAfter = dissect.KindThrottle, retryAfter(h.retry, d.Time)
		f.Done = true
	default:
		m.Kind = dissect.KindRefuse
		f.Done = true
	}
	return end, nil
}
