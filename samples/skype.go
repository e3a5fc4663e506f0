package samples

import (
	"encoding/binary"
	"net/netip"
)

// Skype as far as a tap can see it (protocols.md A): a ladder of transports at
// one supernode, of which a client climbs the next rung when one fails, and
// goes to the next node after the last.
const (
	rungUDP = iota // probe to host:port; 18 bytes back are yes, 51 no
	rungTCP        // host:port
	rung443        // behind a constant that looks like SSL
	rung80         // known by nibbles that repeat
	rungs
)

// Lengths of the fourth message over TCP.
const (
	skypeYes = 587
	skypeNo  = 339
)

const (
	skypeAsks443 = "\x80\x46\x01\x03\x01\x00\x2d\x00\x00\x00\x10\x00\x00\x05\x00\x00\x04\x00\x00\x0a\x00\x00\x09\x00\x00\x64\x00\x00\x62\x00\x00\x08" +
		"\x00\x00\x03\x00\x00\x06\x01\x00\x80\x07\x00\xc0\x03\x00\x80\x06\x00\x40\x02\x00\x80\x04\x00\x80"
	skypeAnswers443 = "\x16\x03\x01\x00\x4a\x02\x00\x00\x46\x03\x01\x40\x1b\xe4\x86\x02\xad\xe0\x29\xe1\x77\x74\xe5\x44\xb9\xc9\x9c\xb4\x31\x31\x5e\x02" +
		"\xdd\x77\x9d\x15\x4a\x96\x09\xba\x5d\xa8\x70\x20\x1c\xa0\xe4\xf6\x4c\x63\x51\xae\x2f\x8e\x4e\xe1\xe6\x76\x6a\x0a\x88\xd5\xd8\xc5" +
		"\x5c\xae\x98\xc5\xe4\x81\xf2\x2a\x69\xbf\x90\x58\x00\x05\x00"
)

// rungAt is the end of the node that a rung leads to.
func (n *simNode) rungAt(rung int) netip.AddrPort {
	switch rung {
	case rung443:
		return netip.AddrPortFrom(n.addr.Addr(), 443)
	case rung80:
		return netip.AddrPortFrom(n.addr.Addr(), 80)
	}
	return n.addr
}

func (a *dial) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(a.w.rng.Uint32())
	}
	return b
}

// probe is 18 bytes: id, type 2, and what is encrypted. Ids go up by two.
func (a *dial) probe() []byte {
	a.c.probes += 2
	b := binary.BigEndian.AppendUint16(nil, 0x4100|a.c.probes&0x3eff)
	return append(append(b, 2, 0xe0), a.random(14)...)
}

func (a *dial) probeReply(code int) []byte {
	b := binary.BigEndian.AppendUint16(nil, 0x4100|uint16(a.w.rng.Uint32())&0x3eff)
	n := 14
	if code != 200 {
		n = 47
	}
	return append(append(b, 2, 0xf0), a.random(n)...)
}

func (a *dial) skypeHello() []byte {
	switch a.rung {
	case rung443:
		return append([]byte(skypeAsks443), a.random(16)...)
	case rung80:
		b := a.random(40)
		for i := 5; i <= 13; i++ {
			b[i] = byte(i*3)<<4 | b[i]&15
			b[i+10] = b[i]&0xf0 | b[i+10]&15
		}
		return b
	}
	b := a.random(14)
	b[0] |= 0x80 // a seed; never the beginning of a text
	return b
}

// skypeSecond is the node's first answer.
func (a *dial) skypeSecond() []byte {
	if a.rung == rung443 {
		return append([]byte(skypeAnswers443), a.random(20)...)
	}
	return a.random(73)
}
