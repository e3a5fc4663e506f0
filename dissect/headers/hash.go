package headers

import (
	"encoding/binary"

	"squall/dissect"
)

// Hash is an order-free hash of the two addresses of a datagram, of those it
// quotes for an ICMP error: a conversation and its errors hash alike.
func Hash(d *dissect.Datagram) uint64 {
	if d.Class == dissect.ClassICMPError && d.Quoted.Proto != 0 {
		return fold(&d.Quoted.Src) + fold(&d.Quoted.Dst)
	}
	return fold(&d.Src) + fold(&d.Dst)
}

func fold(a *dissect.Addr) uint64 {
	return dissect.Mix64(binary.LittleEndian.Uint64(a[:8]) ^ binary.LittleEndian.Uint64(a[8:])*0x9e3779b97f4a7c15)
}
