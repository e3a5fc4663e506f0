package overlay

import (
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// dns is the Domain Name System over UDP and TCP 53 (a length2 before each
// message): RFC 1035 section 4, RFC 6891 (EDNS). It is here because overlays
// find their first nodes by it: SRV records, seeds, host names.
//
//	0 2 id | 2 QR1 opcode4 AA1 TC1 RD1 | 3 RA1 Z3 rcode4 | 4 2 questions | 6 2 answers
//	8 2 authorities | 10 2 additionals | 12 name, type2, class2 ...
//
// NOERROR and NXDOMAIN are answers, SERVFAIL, REFUSED and the other codes are
// refusals. Question and answer are paired by id, name and type. NBNS, LLMNR and
// multicast DNS have the same format and are not claimed. Elsewhere than on port
// 53 a message must be sound to its end. A node that is asked for services (SRV,
// NAPTR) or for seeds serves as bootstrap; otherwise the role is not told.
type dns struct{}

const (
	dnsHeader  = 12
	dnsPort    = 53
	dnsMaxName = 255
)

var errDNS = errors.New("not a dns message")

func (dns) Name() string                  { return "dns" }
func (dns) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }

func (dns) Gates(transport dissect.Transport) []dissect.Gate {
	if transport == dissect.TCP {
		return []dissect.Gate{{Least: 2 + dnsHeader + 5, At: 2 + 5, Mask: 0xff, Want: 1}}
	}
	return []dissect.Gate{{Least: dnsHeader + 5, At: 5, Mask: 0xff, Want: 1}} // one question
}

func (dns) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < dnsHeader+5 {
		return dissect.No
	}
	home := d.SrcPort == dnsPort || d.DstPort == dnsPort
	if d.Proto == dissect.ProtoTCP {
		size := int(b[0])<<8 | int(b[1])
		if size < dnsHeader+5 || !home && size != d.PayloadLen-2 {
			return dissect.No
		}
		b = b[2:min(len(b), 2+size)]
	}
	if len(b) < dnsHeader+5 || b[4] != 0 || b[5] != 1 || dnsForeign(d.SrcPort) || dnsForeign(d.DstPort) {
		return dissect.No // one question, as all ask
	}
	answers, authorities, additionals := binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
	response := b[2]&0x80 != 0
	switch {
	case b[2]&0x78 != 0 && b[2]&0x78 != 0x20 && b[2]&0x78 != 0x28: // query, notify, update
		return dissect.No
	case b[3]&0x40 != 0, answers > 512 || authorities > 512 || additionals > 512:
		return dissect.No
	case !response && (answers != 0 && b[2]&0x78 == 0 || b[3]&0x0f != 0 || b[2]&0x04 != 0 && b[2]&0x78 == 0):
		return dissect.No
	}
	end := dnsQuestion(b)
	if end == 0 {
		return dissect.No
	}
	if home {
		return dissect.Yes
	}
	// Not at home: the sections must fill the message exactly.
	for range int(answers) + int(authorities) + int(additionals) {
		if end = dnsRecord(b, end); end == 0 {
			return dissect.No
		}
	}
	if end == len(b) && !d.Cut {
		return dissect.Maybe
	}
	return dissect.No
}

// dnsForeign reports the ports of NBNS, multicast DNS and LLMNR.
func dnsForeign(port uint16) bool { return port == 137 || port == 5353 || port == 5355 }

// dnsName skips a name; 0 if it is none.
func dnsName(b []byte, at int) int {
	for start := at; at < len(b) && at-start <= dnsMaxName; {
		n := int(b[at])
		switch {
		case n == 0:
			return at + 1
		case n >= 0xc0:
			if at+2 > len(b) || at == start && start == dnsHeader {
				return 0
			}
			return at + 2
		case n > 63:
			return 0
		}
		at += 1 + n
	}
	return 0
}

// dnsQuestion skips the first question; 0 if it is not sound.
func dnsQuestion(b []byte) int {
	at := dnsName(b, dnsHeader)
	if at == 0 || at+4 > len(b) {
		return 0
	}
	kind, class := binary.BigEndian.Uint16(b[at:]), binary.BigEndian.Uint16(b[at+2:])
	if kind == 0 || class&0x7fff == 0 || class&0x7fff > 4 && class != 254 && class != 255 {
		return 0
	}
	if kind == 32 || kind == 33 && b[dnsHeader] == 32 && at == dnsHeader+34 {
		return 0 // NBNS: a first label of 32, type NB or NBSTAT
	}
	return at + 4
}

// dnsRecord skips a resource record; 0 if it is not all there.
func dnsRecord(b []byte, at int) int {
	if at = dnsName(b, at); at == 0 || at+10 > len(b) {
		return 0
	}
	at += 10 + int(binary.BigEndian.Uint16(b[at+8:]))
	if at > len(b) {
		return 0
	}
	return at
}

func (dns) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	n := len(b)
	if d.Proto == dissect.ProtoTCP {
		if n := takeBody(f, len(b)); n > 0 {
			return n, nil
		}
		if len(b) < 2 {
			return 0, dissect.ErrShort
		}
		size := int(binary.BigEndian.Uint16(b))
		if size < dnsHeader {
			return 0, errDNS
		}
		if len(b) < 2+size && wait(d) {
			return 0, dissect.ErrShort
		}
		n = leaveBody(f, uint64(2+size), len(b))
		b = b[2:n]
	}
	if len(b) < dnsHeader {
		return n, errDNS
	}
	m.FromClient = b[2]&0x80 == 0
	m.Txn = hash1(uint64(binary.BigEndian.Uint16(b)))
	m.Chain = m.Txn // an error may come back without its question
	m.Op = "query"
	if at := dnsName(b, dnsHeader); at > 0 && at+4 <= len(b) && b[5] > 0 {
		kind := binary.BigEndian.Uint16(b[at:])
		m.Op = dnsType(kind)
		// Case is drawn at random by some resolvers and comes back the same.
		m.Txn = hashKey(m.Txn^uint64(kind)<<32, b[dnsHeader:at])
		if kind == 33 || kind == 35 || dnsSeed(b[dnsHeader:at]) {
			m.Role = dissect.RoleBootstrap
		}
	}
	if m.FromClient {
		m.Kind = dissect.KindRequest
		return n, nil
	}
	switch b[3] & 0x0f {
	case 0, 3:
		m.Kind, m.Lifetime = dissect.KindAccept, noSession
	default:
		m.Kind = dissect.KindRefuse
	}
	return n, nil
}

// dnsSeed reports a name by which overlays find their first nodes: the seeds of
// coins, libp2p's dnsaddr, the routers of the DHT of BitTorrent.
func dnsSeed(name []byte) bool {
	n := int(name[0])
	if n == 0 || n >= len(name) {
		return false
	}
	first, rest := name[1:1+n], name[1+n:]
	for _, p := range [...]string{"dnsseed", "seed", "bootstrap", "_dnsaddr"} {
		if len(first) >= len(p) && is(first[:len(p)], p) {
			return true
		}
	}
	return is(first, "router") && (is(rest, "\x0abittorrent\x03com\x00") || is(rest, "\x08utorrent\x03com\x00")) ||
		is(first, "dht") && is(rest, "\x0etransmissionbt\x03com\x00")
}

// dnsType is the name of a question's type, "query" for one that bootstrap does not use.
func dnsType(t uint16) string {
	switch t {
	case 1:
		return "A"
	case 2:
		return "NS"
	case 5:
		return "CNAME"
	case 6:
		return "SOA"
	case 12:
		return "PTR"
	case 15:
		return "MX"
	case 16:
		return "TXT"
	case 28:
		return "AAAA"
	case 33:
		return "SRV"
	case 35:
		return "NAPTR"
	case 65:
		return "HTTPS"
	case 255:
		return "ANY"
	}
	return "query"
}
