package reports

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"

	"squall/dissect"
)

// communityID is the Community ID flow hash, version 1, seed 0 (Corelight's
// community-id-spec): the same text for both directions, and the same in Zeek,
// Suricata and Wireshark. It is for TCP and UDP.
func communityID(a, b dissect.Endpoint, proto uint8) string {
	if c := bytes.Compare(wireAddr(&a.Addr), wireAddr(&b.Addr)); c > 0 || c == 0 && a.Port > b.Port {
		a, b = b, a
	}
	var buf [2 + 16 + 16 + 2 + 4]byte
	in := append(buf[:2], wireAddr(&a.Addr)...) // the seed, 0
	in = append(in, wireAddr(&b.Addr)...)
	in = append(in, proto, 0)
	in = binary.BigEndian.AppendUint16(in, a.Port)
	in = binary.BigEndian.AppendUint16(in, b.Port)
	sum := sha1.Sum(in)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}

// wireAddr is the address as its IP version carries it.
func wireAddr(a *dissect.Addr) []byte {
	if a.Is4() {
		return a[12:]
	}
	return a[:]
}
