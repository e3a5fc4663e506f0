package overlay

import (
	"bytes"
	"errors"

	"squall/dissect"
)

// nats is the client protocol of NATS over TCP 4222: docs.nats.io, "Client
// Protocol".
//
//	node: INFO {"server_id":...} | client: CONNECT {"name":...} PING | node: PONG
//	others: +OK, -ERR 'text', PUB and MSG with the length of a payload as last word; lines end in CRLF
//
// The server is the supernode. CONNECT is the request and the PONG that follows
// it the yes; -ERR before it refuses, 'maximum connections exceeded' means
// later, -ERR after it closes. Later PINGs of the client are refreshes. A server
// that asks for TLS is read as tls from there on. The identity is the name, else
// the user, of CONNECT, the version that of the client library.
type nats struct{}

const (
	natsInfo = `INFO {"server_id"`
)

// natsTLS marks in Flow.Step a connection that went on in TLS.
const natsTLS = 1

var errNATS = errors.New("not a line of nats")

func (nats) Name() string                  { return "nats" }
func (nats) Transports() dissect.Transport { return dissect.TCP }

func (nats) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: natsInfo[:1], Least: len(natsInfo)}}
}

func (nats) Probe(d *dissect.Datagram) dissect.Verdict {
	if b := d.Payload; len(b) >= len(natsInfo) && b[0] == 'I' && string(b[:len(natsInfo)]) == natsInfo {
		return dissect.Yes
	}
	return dissect.No
}

// Flow.B counts the PINGs of the client in its low half, their PONGs in the
// high one; CONNECT is the first.
func (nats) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	m.Role = dissect.RoleSupernode
	if f.Step == natsTLS || b[0] == tlsHandshake {
		f.Step = natsTLS
		return tls{}.Dissect(d, f, m)
	}
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if wait(d) {
			return 0, dissect.ErrShort
		}
		return 0, errNATS
	}
	line := bytes.TrimSuffix(b[:end], []byte{'\r'})
	word, rest, _ := bytes.Cut(line, []byte{' '})
	total := uint64(end + 1)
	switch string(word) {
	case "CONNECT":
		if f.FromClient {
			m.Kind, m.Op, m.Txn = dissect.KindRequest, "CONNECT", hash1(1)
			m.Version = jsonText(rest, `"version":"`)
			if m.ClientID = jsonText(rest, `"name":"`); len(m.ClientID) == 0 {
				m.ClientID = jsonText(rest, `"user":"`)
			}
		}
	case "PING":
		if f.FromClient {
			f.B++
			if m.Txn = hash1(uint64(uint32(f.B))); uint32(f.B) > 1 {
				m.Kind, m.Op = dissect.KindRefresh, "PING"
			}
		}
	case "PONG":
		if !f.FromClient {
			f.B += 1 << 32
			m.Kind, m.Op, m.Txn = dissect.KindAccept, "PONG", hash1(f.B>>32)
		}
	case "-ERR":
		if !f.FromClient {
			natsError(f, m, rest)
		}
	case "PUB", "HPUB", "MSG", "HMSG":
		n, ok := number(line[bytes.LastIndexByte(line, ' ')+1:])
		if !ok {
			return 0, errNATS
		}
		total += n + 2
	case "INFO", "+OK", "SUB", "UNSUB":
	default:
		return 0, errNATS
	}
	return leaveBody(f, total, len(b)), nil
}

func natsError(f *dissect.Flow, m *dissect.Message, text []byte) {
	m.Op, m.Txn = "-ERR", hash1(1)
	switch {
	case f.B>>32 > 0:
		m.Kind = dissect.KindClose
	case bytes.Contains(text, []byte("maximum connections exceeded")):
		m.Kind = dissect.KindThrottle
	default:
		m.Kind = dissect.KindRefuse
	}
}

// jsonText is the string behind a key as it stands in JSON, nil if the key is
// not there. Escapes are left as they are.
func jsonText(b []byte, key string) []byte {
	i := bytes.Index(b, []byte(key))
	if i < 0 {
		return nil
	}
	b = b[i+len(key):]
	end := bytes.IndexByte(b, '"')
	if end < 0 {
		return nil
	}
	return b[:end]
}
