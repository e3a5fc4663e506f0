package dissect

import (
	"encoding/binary"
	"errors"
)

// ErrShort means that the bytes end before the message does: a cut packet, or
// a stream that has to go on.
var ErrShort = errors.New("message ends early")

// Cursor reads fields from untrusted bytes. It cannot overrun: once a field is
// not all there, every later read gives zeros and Err says ErrShort. So a
// parser reads a whole header and checks once.
type Cursor struct {
	rest  []byte
	short bool
}

// NewCursor starts at the first byte of b; the cursor never writes to it.
func NewCursor(b []byte) Cursor { return Cursor{rest: b} }

// Bytes takes the next n bytes; nil if there are fewer. The slice is capped,
// so that an append cannot reach the next field.
func (c *Cursor) Bytes(n int) []byte {
	if n < 0 || n > len(c.rest) {
		c.rest, c.short = nil, true
		return nil
	}
	v := c.rest[:n:n]
	c.rest = c.rest[n:]
	return v
}

// Skip drops n bytes.
func (c *Cursor) Skip(n int) { c.Bytes(n) }

// U8 takes one byte.
func (c *Cursor) U8() uint8 {
	if b := c.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 takes a big-endian 16-bit number.
func (c *Cursor) U16() uint16 {
	if b := c.Bytes(2); b != nil {
		return uint16(b[0])<<8 | uint16(b[1])
	}
	return 0
}

// U32 takes a big-endian 32-bit number.
func (c *Cursor) U32() uint32 {
	if b := c.Bytes(4); b != nil {
		return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	}
	return 0
}

// Rest is what has not been read.
func (c *Cursor) Rest() []byte { return c.rest }

// Len is len(Rest()).
func (c *Cursor) Len() int { return len(c.rest) }

// Err is ErrShort once a read went past the end.
func (c *Cursor) Err() error {
	if c.short {
		return ErrShort
	}
	return nil
}

// Hash64 is the content hash behind transaction keys, identities and row ids:
// stable across runs, machines and versions of squall, since ids stand in
// reports. It is FNV-1a with a final mix (SplitMix64), so that all bits of
// short keys spread. Start with seed 0, chain by passing the last value.
func Hash64(seed uint64, b []byte) uint64 {
	h := seed ^ 0xcbf29ce484222325
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return Mix64(h)
}

// Fold takes v into the hash h: two instructions and a multiplication, for the hot
// path. It keeps most of what tells values apart, and does not spread it evenly.
func Fold(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// FoldBytes takes b into the hash h, eight bytes at a time.
func FoldBytes(h uint64, b []byte) uint64 {
	for len(b) >= 8 {
		h = Fold(h, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	for _, c := range b {
		h = Fold(h, uint64(c))
	}
	return h
}

// Mix64 is the finaliser of SplitMix64: a bijection that spreads every bit.
func Mix64(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}
