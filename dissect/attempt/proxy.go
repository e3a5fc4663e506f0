package attempt

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"squall/dissect"
)

// A balancer may write in front of a connection for whom it speaks: the PROXY
// protocol, version 1 as a line of text, version 2 in binary
// (haproxy.org/download/2.8/doc/proxy-protocol.txt, sections 2.1 and 2.2).
//
//	PROXY TCP4 192.0.2.7 198.51.100.1 51514 443\r\n
//
//	12 bytes 0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a
//	 1 byte  version 2 << 4 | command (0 local: the balancer itself, 1 proxy)
//	 1 byte  family (1 IPv4, 2 IPv6, 3 unix) << 4 | transport
//	 2 bytes length of what follows: source, destination, ports, TLVs
var (
	proxyText   = []byte("PROXY ")
	proxyBinary = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// maxProxyLine is the longest line of version 1, with its end.
const maxProxyLine = 107

// readProxy reads the header at the beginning of a connection. n is its length, 0
// where there is none; client is the zero Addr where it names nobody.
func readProxy(b []byte) (client dissect.Addr, n int, err error) {
	switch {
	case bytes.HasPrefix(b, proxyText):
		end := bytes.Index(b[:min(len(b), maxProxyLine)], []byte("\r\n"))
		if end < 0 {
			if len(b) < maxProxyLine {
				return client, 0, dissect.ErrShort
			}
			return client, 0, nil
		}
		f := bytes.Fields(b[len(proxyText):end])
		if len(f) == 0 {
			return client, 0, nil
		}
		if len(f) == 5 && (string(f[0]) == "TCP4" || string(f[0]) == "TCP6") {
			if ip, err := netip.ParseAddr(string(f[1])); err == nil {
				client = dissect.AddrFrom(ip)
			}
		}
		return client, end + 2, nil
	case bytes.HasPrefix(b, proxyBinary):
		if len(b) < 16 {
			return client, 0, dissect.ErrShort
		}
		if b[12]>>4 != 2 {
			return client, 0, nil
		}
		n = 16 + int(binary.BigEndian.Uint16(b[14:]))
		if len(b) < n {
			return client, 0, dissect.ErrShort
		}
		switch a := b[16:n]; {
		case b[12]&15 != 1: // a health check of its own
		case b[13]>>4 == 1 && len(a) >= 12:
			client = dissect.Addr4(a)
		case b[13]>>4 == 2 && len(a) >= 36:
			client = dissect.Addr(a[:16])
		}
		return client, n, nil
	case len(b) > 0 && (bytes.HasPrefix(proxyText, b) || bytes.HasPrefix(proxyBinary, b)):
		return client, 0, dissect.ErrShort
	}
	return client, 0, nil
}

// client is the address of who tries: of whom a balancer speaks for, else of the
// connection itself.
func (r *Record) client() *dissect.Addr {
	if r.Behind != (dissect.Addr{}) {
		return &r.Behind
	}
	return &r.Source.Addr
}
