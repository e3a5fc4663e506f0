package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// bitcoin is the peer-to-peer protocol of Bitcoin and its test networks over
// TCP: protocols.md H.1, the Bitcoin developer reference "P2P network".
//
//	0 4 magic | 4 12 command, NUL padded | 16 4 length LE | 20 4 checksum | 24 payload
//	version: version4 services8 time8 receiver26 sender26 nonce8 agent (varstr) height4 [relay1]
//
// Until February 2012 version and verack had no checksum: their payload begins
// at 20. A node attaches when both sides have sent version and verack; the
// answer is yes at the node's verack. reject (BIP 61, gone since 2020) before
// it is a no; today's nodes close without a word, which is a drop. The encrypted
// transport of BIP 324 has no mark. The nonce of version is drawn for each
// connection, so a client is known by its address alone.
type bitcoin struct{}

const (
	bitcoinHeader    = 24
	bitcoinOldHeader = 20
	// bitcoinMaxLength is MAX_PROTOCOL_MESSAGE_LENGTH of Bitcoin Core with room to spare.
	bitcoinMaxLength = 32 << 20
	// bitcoinMaxVersion is above every protocol version: a number below it where
	// the checksum stands is the version of a message without checksum.
	bitcoinMaxVersion = 1 << 20
)

var errBitcoin = errors.New("not a bitcoin message")

func (bitcoin) Name() string                  { return "bitcoin" }
func (bitcoin) Transports() dissect.Transport { return dissect.TCP }

// bitcoinMagic reports whether b starts with the magic of a network: main,
// testnet3, testnet4, signet, regtest.
func bitcoinMagic(b []byte) bool {
	switch binary.BigEndian.Uint32(b) {
	case 0xf9beb4d9, 0x0b110907, 0x1c163f28, 0x0a03cf40, 0xfabfb5da:
		return true
	}
	return false
}

func (bitcoin) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "\xf9\x0b\x1c\x0a\xfa", Least: bitcoinOldHeader}}
}

func (bitcoin) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < bitcoinOldHeader || !bitcoinMagic(b) || b[4] < 'a' || b[4] > 'z' {
		return dissect.No
	}
	end := false
	for _, c := range b[5:16] {
		if end && c != 0 || !end && c != 0 && (c < '0' || c > 'z') {
			return dissect.No
		}
		end = end || c == 0
	}
	if binary.LittleEndian.Uint32(b[16:]) > bitcoinMaxLength {
		return dissect.No
	}
	return dissect.Yes
}

// bitcoinOld marks in Flow.Flags the sides that send no checksum.
const bitcoinOld = 1

func (p bitcoin) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	if len(b) < bitcoinOldHeader {
		return 0, dissect.ErrShort
	}
	if p.Probe(d) != dissect.Yes {
		return 0, errBitcoin
	}
	side := uint8(bitcoinOld)
	if !f.FromClient {
		side <<= 1
	}
	command := string(b[4:16])
	header := bitcoinHeader
	switch {
	case command == "version\x00\x00\x00\x00\x00":
		if len(b) < bitcoinHeader {
			return 0, dissect.ErrShort
		}
		if binary.LittleEndian.Uint32(b[20:]) < bitcoinMaxVersion {
			header = bitcoinOldHeader
			f.Flags |= side
		}
	case command == "verack\x00\x00\x00\x00\x00\x00" && f.Flags&side != 0:
		header = bitcoinOldHeader
	}
	total := uint64(header) + uint64(binary.LittleEndian.Uint32(b[16:]))
	have := min(uint64(len(b)), total)
	if have < min(total, uint64(header)+200) && wait(d) {
		return 0, dissect.ErrShort // enough of it to read what is read here
	}
	payload := b[min(uint64(header), have):have]
	m.Role = dissect.RolePeer
	switch command {
	case "version\x00\x00\x00\x00\x00":
		m.Op = "version"
		m.Kind = dissect.KindProgress
		if f.FromClient {
			m.Kind = dissect.KindRequest
		}
		c := dissect.NewCursor(payload)
		c.Skip(80)
		if n := c.U8(); n < 0xfd {
			m.Version = c.Bytes(int(n))
		}
	case "verack\x00\x00\x00\x00\x00\x00":
		m.Op = "verack"
		if !f.FromClient {
			m.Kind = dissect.KindAccept
		}
	case "reject\x00\x00\x00\x00\x00\x00":
		m.Op = "reject"
		if !f.FromClient && len(payload) > 8 && string(payload[1:8]) == "version" {
			m.Kind = dissect.KindRefuse
		}
	case "ping\x00\x00\x00\x00\x00\x00\x00\x00":
		if f.FromClient && len(payload) >= 8 {
			m.Kind, m.Op, m.Txn = dissect.KindRefresh, "ping", hashKey(0, payload[:8])
		}
	case "pong\x00\x00\x00\x00\x00\x00\x00\x00":
		if !f.FromClient && len(payload) >= 8 {
			m.Kind, m.Op, m.Txn = dissect.KindAccept, "pong", hashKey(0, payload[:8])
		}
	}
	return leaveBody(f, total, len(b)), nil
}
