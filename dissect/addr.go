package dissect

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// Addr is an IP address without pointers, so that millions of flow keys cost
// the garbage collector nothing. IPv4 is held as IPv4-mapped IPv6
// (::ffff:a.b.c.d, RFC 4291 section 2.5.5.2).
type Addr [16]byte

// Addr4 makes an Addr of a 4-byte IPv4 address.
func Addr4(b []byte) (a Addr) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b[:4])
	return a
}

// AddrFrom converts a netip address; zones are dropped, the zero Addr stands
// for the invalid address.
func AddrFrom(ip netip.Addr) Addr {
	if !ip.IsValid() {
		return Addr{}
	}
	return Addr(ip.As16())
}

// Is4 reports whether the address is IPv4.
func (a Addr) Is4() bool {
	return binary.BigEndian.Uint64(a[:8]) == 0 && binary.BigEndian.Uint32(a[8:12]) == 0xffff
}

// IP converts to the standard library's address.
func (a Addr) IP() netip.Addr { return netip.AddrFrom16(a).Unmap() }

func (a Addr) String() string { return a.IP().String() }

// Multicast reports a multicast destination, or the IPv4 limited broadcast.
// For a subnet's own broadcast address see Datagram.ToMany.
func (a Addr) Multicast() bool {
	if a.Is4() {
		return a[12]&0xf0 == 0xe0 || binary.BigEndian.Uint32(a[12:]) == 0xffffffff
	}
	return a[0] == 0xff
}

// Endpoint is an address with a TCP or UDP port.
type Endpoint struct {
	Addr Addr
	Port uint16
}

func (e Endpoint) String() string {
	if e.Addr.Is4() {
		return e.Addr.String() + ":" + strconv.Itoa(int(e.Port))
	}
	return "[" + e.Addr.String() + "]:" + strconv.Itoa(int(e.Port))
}

// Compare orders by address, then port, as bytes on the wire.
func (e Endpoint) Compare(f Endpoint) int {
	for i := range e.Addr {
		if e.Addr[i] != f.Addr[i] {
			return int(e.Addr[i]) - int(f.Addr[i])
		}
	}
	return int(e.Port) - int(f.Port)
}
