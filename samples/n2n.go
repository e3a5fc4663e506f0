package samples

import (
	"encoding/binary"
	"fmt"
)

// n2n version 3 (protocols.md B.2, B.3):
//
//	0 version 3 | 1 ttl 2 | 2 flags and packet type | 4 community, 20 bytes | 24 body
//
//	REGISTER_SUPER      cookie4 mac6 address4 bits1 description16 scheme2 length2 token16 key time4
//	REGISTER_SUPER_ACK  cookie4 mac6 of the supernode address4 bits1 lifetime2 socket8 scheme2 length2 n1 key time4
//	REGISTER_SUPER_NAK  cookie4 mac6 scheme2 length2
//	UNREGISTER_SUPER    scheme2 length2 token16 mac6
const (
	n2nRegister   = 5
	n2nUnregister = 6
	n2nAck        = 7
	n2nNak        = 8
	n2nFromSuper  = 0x20
	n2nSocket     = 0x40
)

func n2nHeader(flags uint16) []byte {
	b := binary.BigEndian.AppendUint16([]byte{3, 2}, flags)
	return append(b, "overlay\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
}

// mac is the edge's, by which its supernode knows it.
func (a *dial) mac() []byte {
	return []byte{2, 'n', '2', byte(a.c.n >> 16), byte(a.c.n >> 8), byte(a.c.n)}
}

func n2nToken(b []byte, n int) []byte {
	b = append(b, 0, 1, 0, 16)
	return fmt.Appendf(b, "token-%010d", n)
}

// registerSuper has a new cookie each time: the first half of the transaction.
func (a *dial) registerSuper() []byte {
	b := append(n2nHeader(n2nRegister), a.cookie()...)
	b = append(b, a.mac()...)
	b = append(b, 10, 99, byte(a.c.n>>8), byte(a.c.n), 16)
	var about [16]byte
	copy(about[:15], fmt.Sprintf("edge-%d", a.c.n))
	b = append(b, about[:]...)
	b = n2nToken(b, a.c.n)
	return append(b, 0, 0, 0, 0)
}

func (a *dial) cookie() []byte {
	var n uint32
	fmt.Sscanf(a.txn[:8], "%x", &n)
	return binary.BigEndian.AppendUint32(nil, n)
}

func (a *dial) superReply(code int) []byte {
	if code != 200 {
		b := append(n2nHeader(n2nNak|n2nFromSuper|n2nSocket), a.cookie()...)
		return append(append(b, a.mac()...), 0, 0, 0, 0)
	}
	b := append(n2nHeader(n2nAck|n2nFromSuper|n2nSocket), a.cookie()...)
	host := a.dst.Addr().As4()
	b = append(b, 2, 's', 'n', 0, 0, host[3])
	b = append(b, 0, 0, 0, 0, 0, 0, 15) // no address given; lifetime 15 s, which edges of v3 ignore
	b = binary.BigEndian.AppendUint16(append(b, 0, 0), a.src.Port())
	src := a.src.Addr().As4()
	b = append(b, src[:]...)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

// unregister is the edge's good-bye.
func (a *dial) unregister() []byte {
	return append(n2nToken(n2nHeader(n2nUnregister), a.c.n), a.mac()...)
}
