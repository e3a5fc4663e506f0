package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// diameter is Diameter over TCP 3868: RFC 6733 sections 3, 4.1, 5.3 to 5.5 and
// 7.1.
//
//	0 version 01 | 1 3 length | 4 flags: 80 request 40 proxiable 20 error 10 again | 5 3 command
//	8 4 application | 12 4 hop-by-hop id | 16 4 end-to-end id | 20 AVPs: code4 flags1 length3 [vendor4] data, padded to 4
//	257 Capabilities-Exchange 280 Device-Watchdog 282 Disconnect-Peer, others: the applications'
//
// A request is paired with its answer by the hop-by-hop id. The Result-Code
// decides: 2xxx yes; 3004 (TOO_BUSY) and 4002 (OUT_OF_SPACE) busy, 3006
// (REDIRECT_INDICATION) elsewhere, 1001 (MULTI_ROUND_AUTH) a challenge, others no.
// Watchdogs of the client are refreshes, Disconnect-Peer closes. The server is a
// login node; the identity is Origin-Host, the version Product-Name.
type diameter struct{}

const (
	diameterHeader = 20
	diameterMax    = 1 << 20

	diameterCapabilities = 257
	diameterWatchdog     = 280
	diameterDisconnect   = 282

	avpFirst        = 257 // Host-IP-Address, the lowest of section 4.5
	avpSession      = 263
	avpOrigin       = 264
	avpResult       = 268
	avpProduct      = 269
	avpExperimental = 297
	avpLast         = 299 // Inband-Security-Id
)

var errDiameter = errors.New("not a diameter message")

func (diameter) Name() string                  { return "diameter" }
func (diameter) Transports() dissect.Transport { return dissect.TCP }

func (diameter) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "\x01", Least: diameterHeader + 8}}
}

func (diameter) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < diameterHeader+8 || !diameterHead(b) {
		return dissect.No
	}
	command := binary.BigEndian.Uint32(b[4:]) & 0xffffff
	if (command < 257 || command > 400) && (command < 8388608 || command > 8388900) {
		return dissect.No
	}
	// An AVP of the base protocol comes first, most often session, origin or result:
	// their order is free but for the session's (section 3.2).
	if first := binary.BigEndian.Uint32(b[diameterHeader:]); first < avpFirst || first > avpLast {
		return dissect.No
	}
	size := binary.BigEndian.Uint32(b[diameterHeader+4:])
	if size>>24&0x1f != 0 || size&0xffffff < 8 || size&0xffffff > binary.BigEndian.Uint32(b)&0xffffff-diameterHeader {
		return dissect.No
	}
	return dissect.Yes
}

// diameterHead reports a sound fixed part.
func diameterHead(b []byte) bool {
	length := binary.BigEndian.Uint32(b) & 0xffffff
	return b[0] == 1 && length >= diameterHeader && length%4 == 0 && length <= diameterMax && b[4]&0x0f == 0 && b[4]&0xa0 != 0xa0
}

func (diameter) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	if len(b) < diameterHeader {
		return 0, dissect.ErrShort
	}
	if !diameterHead(b) {
		return 0, errDiameter
	}
	length := int(binary.BigEndian.Uint32(b) & 0xffffff)
	if len(b) < length && wait(d) {
		return 0, dissect.ErrShort
	}
	request := b[4]&0x80 != 0
	command := binary.BigEndian.Uint32(b[4:]) & 0xffffff
	result := uint32(0)
	c := dissect.NewCursor(b[diameterHeader:min(length, len(b))])
	for c.Len() >= 8 {
		code := c.U32()
		size := c.U32()
		n := int(size&0xffffff) - 8
		if size>>24&0x80 != 0 {
			c.Skip(4)
			n -= 4
		}
		v := c.Bytes(n)
		c.Skip(min((4-n&3)&3, c.Len()))
		switch {
		case c.Err() != nil:
		case code == avpOrigin && request:
			m.ClientID = v
		case code == avpProduct && request:
			m.Version = v
		case code == avpResult && len(v) == 4:
			result = binary.BigEndian.Uint32(v)
		case code == avpExperimental && result == 0 && len(v) >= 12:
			result = binary.BigEndian.Uint32(v[len(v)-4:])
		}
	}
	m.Role = dissect.RoleLogin
	m.FromClient = f.FromClient
	m.Txn = hash1(uint64(binary.BigEndian.Uint32(b[12:])))
	m.Op = diameterCommand(command)
	switch {
	case command == diameterDisconnect:
		if request {
			m.Kind = dissect.KindClose
		}
	case request && !f.FromClient, !request && f.FromClient:
		// The server asks the client: no attempt of either.
	case request && command == diameterWatchdog:
		m.Kind = dissect.KindRefresh
	case request:
		m.Kind = dissect.KindRequest
	default:
		m.Kind = diameterAnswer(result, b[4]&0x20 != 0)
	}
	return leaveBody(f, uint64(length), len(b)), nil
}

func diameterAnswer(result uint32, failed bool) dissect.Kind {
	switch {
	case result == 3004 || result == 4002:
		return dissect.KindThrottle
	case result == 3006:
		return dissect.KindRedirect
	case result == 1001:
		return dissect.KindChallenge
	case result/1000 == 2 || result == 0 && !failed:
		return dissect.KindAccept
	}
	return dissect.KindRefuse
}

// diameterCommand is the name of a command, "request" for an application's own.
func diameterCommand(c uint32) string {
	switch c {
	case diameterCapabilities:
		return "Capabilities-Exchange"
	case diameterWatchdog:
		return "Device-Watchdog"
	case diameterDisconnect:
		return "Disconnect-Peer"
	case 258:
		return "Re-Auth"
	case 265:
		return "AA"
	case 268:
		return "Diameter-EAP"
	case 271:
		return "Accounting"
	case 272:
		return "Credit-Control"
	case 274:
		return "Abort-Session"
	case 275:
		return "Session-Termination"
	case 316:
		return "Update-Location"
	case 318:
		return "Authentication-Information"
	}
	return "request"
}
