package overlay

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"

	"squall/dissect"
)

// ClientHello is what a client says of itself before anything is encrypted:
// RFC 8446 section 4.1.2, RFC 6066 section 3 (SNI), RFC 7301 (ALPN). The slices
// alias the message it was read from.
type ClientHello struct {
	Version       uint16 // legacy_version
	ServerName    []byte // host name of SNI, nil if absent
	ALPN          []byte // first protocol offered, nil if absent
	Ciphers       []byte // 2 bytes each, as sent
	Extensions    []byte // the whole block: type2 length2 value
	Groups        []byte // supported_groups, 2 bytes each
	PointFormats  []byte // 1 byte each
	Versions      []byte // supported_versions, 2 bytes each
	Signatures    []byte // signature_algorithms, 2 bytes each
	HasServerName bool
}

// ReadClientHello reads the body of a ClientHello, behind the type and length
// of the handshake message. A hello that ends early gives ErrShort and what
// could be read.
func ReadClientHello(b []byte) (h ClientHello, err error) {
	c := dissect.NewCursor(b)
	h.Version = c.U16()
	c.Skip(32)
	c.Skip(int(c.U8())) // session id
	h.Ciphers = c.Bytes(int(c.U16()))
	c.Skip(int(c.U8())) // compression methods
	if c.Err() != nil {
		return h, c.Err()
	}
	if c.Len() == 0 {
		return h, nil // no extensions
	}
	n := int(c.U16())
	if n > c.Len() {
		err = dissect.ErrShort
		n = c.Len()
	}
	h.Extensions = c.Bytes(n)
	for e := dissect.NewCursor(h.Extensions); e.Len() > 0; {
		kind := e.U16()
		v := dissect.NewCursor(e.Bytes(int(e.U16())))
		if e.Err() != nil {
			return h, dissect.ErrShort
		}
		switch kind {
		case 0: // server_name: list length2, type1, length2, name
			v.Skip(3)
			h.ServerName, h.HasServerName = v.Bytes(int(v.U16())), true
		case 10:
			h.Groups = v.Bytes(int(v.U16()))
		case 11:
			h.PointFormats = v.Bytes(int(v.U8()))
		case 13:
			h.Signatures = v.Bytes(int(v.U16()))
		case 16: // ALPN: list length2, length1, name
			v.Skip(2)
			h.ALPN = v.Bytes(int(v.U8()))
		case 43:
			h.Versions = v.Bytes(int(v.U8()))
		}
	}
	return h, err
}

// grease reports the reserved values of RFC 8701.
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// pairs calls f for each 16-bit number of b that is no GREASE.
func pairs(b []byte, f func(v uint16)) {
	for ; len(b) >= 2; b = b[2:] {
		if v := binary.BigEndian.Uint16(b); !grease(v) {
			f(v)
		}
	}
}

// extensions calls f for the type of each extension that is no GREASE.
func (h *ClientHello) extensions(f func(v uint16)) {
	for b := h.Extensions; len(b) >= 4; {
		if v := binary.BigEndian.Uint16(b); !grease(v) {
			f(v)
		}
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b) {
			return
		}
		b = b[n:]
	}
}

// describe tells who asks, and for what name.
func (h *ClientHello) describe(m *dissect.Message, transport byte) {
	m.Version, m.JA3, m.ServerName = []byte(h.JA4(transport)), []byte(h.JA3()), h.ServerName
}

// JA3 is the MD5, in hex, of version, ciphers, extensions, groups and point
// formats in sent order: protocols.md I.3, salesforce/ja3.
func (h *ClientHello) JA3() string {
	s := strconv.AppendUint(make([]byte, 0, 512), uint64(h.Version), 10)
	first := true
	number := func(v uint16) {
		if !first {
			s = append(s, '-')
		}
		first = false
		s = strconv.AppendUint(s, uint64(v), 10)
	}
	field := func() {
		s = append(s, ',')
		first = true
	}
	field()
	pairs(h.Ciphers, number)
	field()
	h.extensions(number)
	field()
	pairs(h.Groups, number)
	field()
	for _, p := range h.PointFormats {
		number(uint16(p))
	}
	sum := md5.Sum(s)
	return hex.EncodeToString(sum[:])
}

// JA4 is the client fingerprint of FoxIO (the part under the BSD licence):
// protocols.md I.3. The transport is 't' for TCP, 'q' for QUIC, 'd' for DTLS.
func (h *ClientHello) JA4(transport byte) string {
	var ciphers, kinds []uint16
	pairs(h.Ciphers, func(v uint16) { ciphers = append(ciphers, v) })
	count := 0
	h.extensions(func(v uint16) {
		count++
		if v != 0 && v != 16 {
			kinds = append(kinds, v)
		}
	})
	version := uint16(0)
	pairs(h.Versions, func(v uint16) { version = max(version, v) })
	if len(h.Versions) == 0 {
		version = h.Version
	}
	s := make([]byte, 0, 36)
	s = append(s, transport)
	s = append(s, ja4Version(version)...)
	if h.HasServerName {
		s = append(s, 'd')
	} else {
		s = append(s, 'i')
	}
	s = twoDigits(s, len(ciphers))
	s = twoDigits(s, count)
	s = append(s, ja4ALPN(h.ALPN)...)
	slices.Sort(ciphers)
	slices.Sort(kinds)
	s = append(s, '_')
	s = ja4Hash(s, hexList(nil, ciphers))
	s = append(s, '_')
	list := hexList(nil, kinds)
	if len(kinds) > 0 && len(h.Signatures) >= 2 {
		var algorithms []uint16
		pairs(h.Signatures, func(v uint16) { algorithms = append(algorithms, v) })
		list = hexList(append(list, '_'), algorithms)
	}
	return string(ja4Hash(s, list))
}

func ja4Version(v uint16) string {
	switch v {
	case 0x0304:
		return "13"
	case 0x0303:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	case 0x0300:
		return "s3"
	case 0x0002:
		return "s2"
	case 0xfeff:
		return "d1"
	case 0xfefd:
		return "d2"
	case 0xfefc:
		return "d3"
	}
	return "00"
}

// ja4ALPN is the first and last character of a protocol name, of its hex form
// if one of them is not alphanumeric.
func ja4ALPN(p []byte) string {
	if len(p) == 0 {
		return "00"
	}
	const digits = "0123456789abcdef"
	a, z := p[0], p[len(p)-1]
	if !alnum(a) || !alnum(z) {
		return string([]byte{digits[a>>4], digits[z&15]})
	}
	return string([]byte{a, z})
}

func alnum(c byte) bool { return digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func twoDigits(s []byte, n int) []byte {
	n = min(n, 99)
	return append(s, byte('0'+n/10), byte('0'+n%10))
}

func hexList(s []byte, list []uint16) []byte {
	for i, v := range list {
		if i > 0 {
			s = append(s, ',')
		}
		s = hex.AppendEncode(s, []byte{byte(v >> 8), byte(v)})
	}
	return s
}

// ja4Hash appends the first 12 hex digits of the SHA-256, zeros for nothing.
func ja4Hash(s, list []byte) []byte {
	if len(list) == 0 {
		return append(s, "000000000000"...)
	}
	sum := sha256.Sum256(list)
	return hex.AppendEncode(s, sum[:6])
}
