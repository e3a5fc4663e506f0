package overlay

import (
	"errors"

	"squall/dissect"
)

// libp2p is the start of a libp2p connection over TCP: multistream-select
// 1.0.0 (libp2p/specs connections, multiformats/multistream-select),
// protocols.md H.4.
//
//	each line: varint length with its end, text, LF
//	both: "/multistream/1.0.0"; dialer: "/noise" or "/tls/1.0.0"; listener: the same, or "na"
//
// A proposal is the request, its echo the yes, "na" the no; the next proposal
// is an attempt of its own. After the echo all is encrypted, identity and version
// (identify) too. Every node is a peer. libp2p over QUIC is the carrier quic.
type libp2p struct{}

const (
	multistream    = "\x13/multistream/1.0.0\n"
	multistreamMax = 1 << 10
)

var errMultistream = errors.New("not a multistream line")

func (libp2p) Name() string                  { return "libp2p" }
func (libp2p) Transports() dissect.Transport { return dissect.TCP }

func (libp2p) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: multistream[:1], Least: len(multistream)}}
}

func (libp2p) Probe(d *dissect.Datagram) dissect.Verdict {
	if b := d.Payload; len(b) >= len(multistream) && string(b[:len(multistream)]) == multistream {
		return dissect.Yes
	}
	return dissect.No
}

// Flow.A is the hash of the newest proposal, Flow.B counts them; Flow.Step is 1
// while one is open.
func (libp2p) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	size, head := int(b[0]), 1
	if size >= 0x80 && len(b) > 1 {
		size, head = size&0x7f|int(b[1])<<7, 2
	}
	if size == 0 || size > multistreamMax {
		if f.FromClient && f.Step == 1 {
			return len(b), nil // the dialer did not wait for the echo
		}
		return 0, errMultistream
	}
	if len(b) < head+size {
		if f.FromClient && f.Step == 1 && !wait(d) {
			return len(b), nil
		}
		return 0, dissect.ErrShort
	}
	line := b[head : head+size]
	n := head + size
	if line[size-1] != '\n' {
		if f.FromClient && f.Step == 1 {
			return len(b), nil
		}
		return 0, errMultistream
	}
	m.Role = dissect.RolePeer
	switch {
	case string(line) == multistream[1:]:
	case f.FromClient:
		f.A = hashKey(0, line)
		f.B++
		f.Step = 1
		m.Kind, m.Op, m.Txn = dissect.KindRequest, multistreamName(line), hash1(f.B)
	case f.Step == 0:
	case string(line) == "na\n":
		f.Step = 0
		m.Kind, m.Op, m.Txn = dissect.KindRefuse, "na", hash1(f.B)
	case hashKey(0, line) == f.A:
		f.Done = true
		m.Kind, m.Op, m.Txn = dissect.KindAccept, multistreamName(line), hash1(f.B)
	}
	return n, nil
}

func multistreamName(line []byte) string {
	switch string(line) {
	case "/noise\n":
		return "/noise"
	case "/tls/1.0.0\n":
		return "/tls"
	case "/plaintext/2.0.0\n":
		return "/plaintext"
	case "/secio/1.0.0\n":
		return "/secio"
	}
	return "proposal"
}
