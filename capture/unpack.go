package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// unpack decompresses gzip and zstd one member or frame after the other, from a joint
// on, and tells what other joints there are: packed is how many bytes of br were not
// taken yet, window what lies before, where it is needed. note may be nil.
func unpack(br *bufio.Reader, kind string, from joint, note func(j joint, window []byte)) (io.Reader, func(), error) {
	u := &unpacker{br: br, note: note, plain: from.plain}
	switch kind {
	case "gzip":
		z := &gunzip{br: br}
		if note != nil {
			z.block = func() {
				if n := z.size + int64(z.end-z.given); n >= windowEvery {
					note(joint{plain: u.begin + n, packed: int64(br.Buffered()), bits: z.nb}, z.window())
				}
			}
		}
		u.z, u.again = z, z.next
		if from.size > 0 {
			return u, func() {}, z.enter(&from)
		}
		return u, func() {}, z.next()
	case "zstd":
		frame := &zstdFrame{br: br}
		z, err := zstd.NewReader(frame, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return nil, nil, err
		}
		u.z, u.frame = z, frame
		u.again = func() error {
			*frame = zstdFrame{br: br}
			return z.Reset(frame)
		}
		return u, z.Close, nil
	}
	return nil, nil, fmt.Errorf("%s cannot be sought in", kind)
}

type unpacker struct {
	br    *bufio.Reader
	z     io.Reader
	frame *zstdFrame // of zstd
	again func() error
	note  func(j joint, window []byte)
	plain int64
	begin int64 // of the member or frame
}

func (u *unpacker) Read(p []byte) (int, error) {
	for {
		n, err := u.z.Read(p)
		u.plain += int64(n)
		if err != io.EOF {
			return n, err
		}
		if u.frame != nil && u.frame.err != nil { // the decoder takes what is cut at its very begin for the end
			return n, u.frame.err
		}
		if _, err := u.br.Peek(1); err != nil {
			return n, err
		}
		u.begin = u.plain
		if u.note != nil {
			u.note(joint{plain: u.plain, packed: int64(u.br.Buffered())}, nil)
		}
		if err := u.again(); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// gunzip gives the bytes of one member of gzip and then io.EOF: RFC 1952.
type gunzip struct {
	inflater
	br   *bufio.Reader
	head *gzip.Reader // reads the heads of members, no more
	crc  uint32
	size int64
	late bool // entered behind its begin: the checksum tells nothing
}

// next begins the next member.
func (g *gunzip) next() (err error) {
	if g.head == nil {
		g.head, err = gzip.NewReader(g.br)
	} else {
		err = g.head.Reset(g.br)
	}
	g.start(g.br, nil, 0, 0)
	g.crc, g.size, g.late = 0, 0, false
	return err
}

// enter begins within a member.
func (g *gunzip) enter(j *joint) (err error) {
	window, err := openWindow(j.window)
	if err != nil {
		return err
	}
	var before byte
	if j.bits > 0 {
		if before, err = g.br.ReadByte(); err != nil {
			return err
		}
	}
	g.start(g.br, window, before, j.bits)
	g.late = true
	return nil
}

func (g *gunzip) Read(p []byte) (int, error) {
	n, err := g.inflater.Read(p)
	g.size += int64(n)
	if !g.late {
		g.crc = crc32.Update(g.crc, crc32.IEEETable, p[:n])
	}
	if err != io.EOF {
		return n, err
	}
	var tail [8]byte
	if _, err := io.ReadFull(g.br, tail[:]); err != nil {
		return n, io.ErrUnexpectedEOF
	}
	if !g.late && (binary.LittleEndian.Uint32(tail[:]) != g.crc || binary.LittleEndian.Uint32(tail[4:]) != uint32(g.size)) {
		return n, gzip.ErrChecksum
	}
	return n, io.EOF
}

// zstdFrame gives the bytes of one frame and then io.EOF, so that it is known
// where the next begins: RFC 8878 section 3.1.
type zstdFrame struct {
	br     *bufio.Reader
	left   int64 // bytes that can be handed on without a look
	state  int   // 0 = at the begin, 1 = at a block, 2 = at the checksum, 3 = at the end
	closed bool  // there is a checksum
	err    error // why the bytes ended before the frame
}

func (z *zstdFrame) Read(p []byte) (int, error) {
	for z.left == 0 {
		if z.state == 3 {
			return 0, io.EOF
		}
		if z.err = z.step(); z.err != nil {
			return 0, z.err
		}
	}
	n, err := z.br.Read(p[:min(int64(len(p)), z.left)])
	z.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (z *zstdFrame) step() error {
	peek := func(n int) ([]byte, error) {
		b, err := z.br.Peek(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return b, err
	}
	switch z.state {
	case 0:
		b, err := peek(5)
		if err != nil {
			return err
		}
		switch magic := binary.LittleEndian.Uint32(b); {
		case magic&^15 == 0x184d2a50: // skippable
			if b, err = peek(8); err != nil {
				return err
			}
			z.left, z.state = 8+int64(binary.LittleEndian.Uint32(b[4:])), 3
		case magic != 0xfd2fb528: // the decoder says what is wrong
			z.left, z.state = 1<<62, 3
		default:
			d := b[4] // frame header descriptor
			single := d&0x20 != 0
			n := int64(5) + [4]int64{0, 1, 2, 4}[d&3] + [4]int64{0, 2, 4, 8}[d>>6]
			if single && d>>6 == 0 {
				n++
			}
			if !single {
				n++
			}
			z.left, z.state, z.closed = n, 1, d&4 != 0
		}
	case 1:
		b, err := peek(3)
		if err != nil {
			return err
		}
		head := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16
		z.left = 3 + head>>3
		if head>>1&3 == 1 { // one byte, repeated
			z.left = 4
		}
		if head&1 != 0 {
			z.state = 3
			if z.closed {
				z.state = 2
			}
		}
	case 2:
		z.left, z.state = 4, 3
	}
	return nil
}
