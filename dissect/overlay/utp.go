package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// utp is the transport of BitTorrent over UDP (BEP 29, protocols.md G.4).
//
//	0 1 type<<4 | 1 | 1 1 extension | 2 2 connection | 4 4 time | 8 4 difference | 12 4 window | 16 2 sequence | 18 2 acknowledged
//	types: 0 DATA, 1 FIN, 2 STATE, 3 RESET, 4 SYN
//
// A SYN is answered by a STATE with its connection number; the one who sent it
// goes on with the number after that. RESET before an answer refuses, later it
// closes, as FIN does. Queries of the DHT on the same ports are read, too.
type utp struct{}

const (
	utpHeader = 20
	utpSYN    = 0x41
)

var errUTP = errors.New("not a utp packet")

func (utp) Name() string                  { return "bt-utp" }
func (utp) Transports() dissect.Transport { return dissect.UDP }

func (utp) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "\x01\x11\x21\x31\x41", Least: utpHeader}}
}

func (utp) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < utpHeader || b[0]&0x0f != 1 || b[0]>>4 > 4 || b[1] > 3 {
		return dissect.No
	}
	switch {
	case b[0] == utpSYN && binary.BigEndian.Uint32(b[4:]) == 1<<16:
		return dissect.No // a query of DNS whose id begins so: one question, no answer
	case b[0] == utpSYN && b[8]|b[9]|b[10]|b[11]|b[18]|b[19] == 0 && b[12]|b[13]|b[14] == 0:
		return dissect.Yes // a first packet knows no delay and has little window
	case b[0] == utpSYN && b[18]|b[19] == 0 && b[16] == 0 && b[17] == 1:
		return dissect.Yes
	case b[0] == utpSYN && b[8]|b[9]|b[10]|b[11] == 0 && utpExtensions(b) == len(b):
		return dissect.Yes
	case b[0] == 0x01 && b[1] == 0 && len(b) >= utpHeader+20 && string(b[utpHeader:utpHeader+20]) == peerGreeting:
		return dissect.Yes
	}
	return dissect.No
}

// utpExtensions is where the extensions end: each is the kind of the next, its
// length, its bytes. A SYN holds nothing behind them.
func utpExtensions(b []byte) int {
	at := utpHeader
	for next := b[1]; next != 0; {
		if at+2 > len(b) {
			return 0
		}
		next, at = b[at], at+2+int(b[at+1])
	}
	return at
}

func (utp) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	if b := d.Payload; len(b) > 0 && b[0] == 'd' {
		return dht{}.Dissect(d, f, m)
	}
	m.Protocol = utp{}.Name()
	return utpMessage(d.Payload, f, m)
}

// utpMessage: Flow.Port is the newest connection number that was asked for,
// Flow.Step 1 once it was answered.
func utpMessage(b []byte, f *dissect.Flow, m *dissect.Message) (int, error) {
	if len(b) < utpHeader || b[0]&0x0f != 1 || b[0]>>4 > 4 {
		return 0, errUTP
	}
	connection := uint16(b[2])<<8 | uint16(b[3])
	m.Role = dissect.RolePeer
	switch b[0] >> 4 {
	case 4:
		m.Kind, m.Op, m.FromClient = dissect.KindRequest, "SYN", true
		m.Txn = hash1(1<<16 | uint64(connection))
		if f.Port != connection {
			f.Step = 0
		}
		f.Port = connection
		f.Flags = 0
		if f.FromClient {
			f.Flags = 1 // the opener of the flow asked
		}
	case 2:
		asker := f.Flags == 1
		if f.Step == 0 && connection == f.Port && f.FromClient != asker {
			f.Step = 1
			m.Kind, m.Op, m.FromClient = dissect.KindAccept, "STATE", false
			m.Txn = hash1(1<<16 | uint64(connection))
		}
	case 3:
		if f.Step == 0 && (connection == f.Port || connection == f.Port+1) {
			m.Kind, m.Op, m.FromClient = dissect.KindRefuse, "RESET", false
			m.Txn = hash1(1<<16 | uint64(f.Port))
		} else {
			m.Kind, m.Op, m.FromClient = dissect.KindClose, "RESET", f.FromClient == (f.Flags == 1)
		}
	case 1:
		m.Kind, m.Op, m.FromClient = dissect.KindClose, "FIN", f.FromClient == (f.Flags == 1)
	}
	return len(b), nil
}
