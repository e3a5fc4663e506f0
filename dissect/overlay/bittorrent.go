package overlay

import (
	"errors"

	"squall/dissect"
)

// bittorrent is the handshake of two peers over TCP (BEP 3, protocols.md G.4).
//
//	0 20 13 "BitTorrent protocol" | 20 8 reserved | 28 20 info hash | 48 20 peer id
//
// Both send it; the node's is the yes, closing is the no. The peer id names the
// client and its version, -XXnnnn- (BEP 20). What follows is not read.
type bittorrent struct{}

const (
	peerGreeting  = "\x13BitTorrent protocol"
	peerHandshake = 68
)

var errPeer = errors.New("not a bittorrent handshake")

func (bittorrent) Name() string                  { return "bittorrent" }
func (bittorrent) Transports() dissect.Transport { return dissect.TCP }

func (bittorrent) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "\x13", Least: 20}}
}

func (bittorrent) Probe(d *dissect.Datagram) dissect.Verdict {
	if b := d.Payload; len(b) >= 20 && b[0] == 0x13 && string(b[:20]) == peerGreeting {
		return dissect.Yes
	}
	return dissect.No
}

func (bittorrent) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) < peerHandshake && wait(d) {
		return 0, dissect.ErrShort
	}
	if len(b) < 20 || string(b[:20]) != peerGreeting {
		return 0, errPeer
	}
	n := min(len(b), peerHandshake)
	id := b[min(n, 48):n]
	m.Role, m.Op, m.Version = dissect.RolePeer, "handshake", peerVersion(id)
	if f.FromClient {
		m.Kind, m.ClientID = dissect.KindRequest, id
		return n, nil
	}
	f.Done = true
	m.Kind = dissect.KindAccept
	return n, nil
}
