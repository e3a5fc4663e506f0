package capture

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// indexStep is how many bytes of a file a block of its index covers at first.
	indexStep = 64 << 10
	// maxBlocks bounds the index of a file: when it is full, each two blocks
	// become one.
	maxBlocks = 1 << 15
	// maxKnown bounds what an index says of pcapng interfaces.
	maxKnown = 1 << 16
)

// Index says where the packets of a time lie in a file, so that a part of it can
// be read without what lies before: Options.Index makes it on the way, and
// Options.Parts uses it. Offsets are those of the file without compression.
type Index struct {
	Size     int64     // of the file on disk
	End      int64     // offset behind the last record that was read
	Head     []byte    `json:",omitempty"` // of a pcap file
	Blocks   []Block   // in the order of the file, without gaps
	Sections []section `json:",omitempty"` // of a pcapng file
	// Packed is the compression, and Joints are where it begins anew: members of
	// gzip, frames of zstd. Without any but the first, what lies before has to be
	// unpacked, too.
	Packed string  `json:",omitempty"`
	Joints []joint `json:",omitempty"`

	step int64
}

// Block is a run of packets in a file.
type Block struct {
	Offset   int64 // of its first record
	Frame    int64 // number of that
	First    int64 // its time, ns
	Min, Max int64 // earliest and latest time of its packets, ns
}

// section is what a reader of pcapng knows from an offset on.
type section struct {
	Offset int64
	Big    bool
	Ifaces []ngInterface
}

// joint is a place in a file from which on it can be unpacked.
type joint struct{ Plain, Packed int64 }

// MarshalJSON writes a block as an array: there are many.
func (b Block) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d,%d,%d,%d]", b.Offset, b.Frame, b.First, b.Min-b.First, b.Max-b.First), nil
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (b *Block) UnmarshalJSON(text []byte) error {
	var v [5]int64
	err := json.Unmarshal(text, &v)
	*b = Block{v[0], v[1], v[2], v[2] + v[3], v[2] + v[4]}
	return err
}

// add takes a packet of f.
func (x *Index) add(f *file, p *Packet) {
	n := len(x.Blocks)
	if n > 0 && p.Offset < x.Blocks[n-1].Offset+x.step {
		b := &x.Blocks[n-1]
		b.Min, b.Max = min(b.Min, p.Time), max(b.Max, p.Time)
		return
	}
	if n == maxBlocks {
		for i := 0; i < n; i += 2 {
			b := x.Blocks[i]
			b.Min, b.Max = min(b.Min, x.Blocks[i+1].Min), max(b.Max, x.Blocks[i+1].Max)
			x.Blocks[i/2] = b
		}
		x.Blocks = x.Blocks[:n/2]
		x.step *= 2
	}
	x.Blocks = append(x.Blocks, Block{p.Offset, p.Frame, p.Time, p.Time, p.Time})
	ng, ok := f.f.(*ngFile)
	if !ok {
		return
	}
	if k := len(x.Sections); k > 0 {
		s := &x.Sections[k-1]
		if s.Big == ng.big && slices.Equal(s.Ifaces, ng.ifaces) {
			return
		}
	}
	known := len(ng.ifaces)
	for _, s := range x.Sections {
		known += len(s.Ifaces)
	}
	if known > maxKnown { // thousands of interfaces that come and go: nothing to seek in
		f.index = nil
		return
	}
	x.Sections = append(x.Sections, section{p.Offset, ng.big, slices.Clone(ng.ifaces)})
}

// Part is what is to be read of a file that has an index.
type Part struct {
	Index *Index
	Want  func(*Block) bool
}

// ErrChanged says that a file is not the one its index was made of.
var ErrChanged = errors.New("it is not what it was when it was analysed; squall verify says more")

// stretch is a range of a file that is read.
type stretch struct {
	Block
	end int64
}

// parts are the stretches of a file that are still to be read.
type parts struct {
	index *Index
	h     *os.File
	close func() // of the decompressor
	rest  []stretch
}

// openPart prepares reading what is wanted of a file; nothing is read yet.
func openPart(path string, p Part, f *file) (first int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	if info.Size() != p.Index.Size {
		return 0, fmt.Errorf("%s: %d bytes: %w", path, info.Size(), ErrChanged)
	}
	f.stats.SizeOnDisk = info.Size()
	f.parts = &parts{index: p.Index, close: func() {}}
	f.done = true
	f.close = func() error {
		f.parts.close()
		if f.parts.h != nil {
			return f.parts.h.Close()
		}
		return nil
	}
	blocks := p.Index.Blocks
	for i := range blocks {
		b := &blocks[i]
		if !p.Want(b) {
			continue
		}
		end := p.Index.End
		if i+1 < len(blocks) {
			end = blocks[i+1].Offset
		}
		if n := len(f.parts.rest); n > 0 && f.parts.rest[n-1].end == b.Offset {
			s := &f.parts.rest[n-1]
			s.end, s.Min, s.Max = end, min(s.Min, b.Min), max(s.Max, b.Max)
		} else {
			f.parts.rest = append(f.parts.rest, stretch{*b, end})
		}
	}
	if len(f.parts.rest) > 0 {
		first = f.parts.rest[0].First
	}
	return first, nil
}

// turn goes on to the next stretch; false at the end of the last. It is called
// between two batches.
func (f *file) turn() bool {
	if f.parts == nil || f.stats.Damage != nil || len(f.parts.rest) == 0 {
		return false
	}
	s := f.parts.rest[0]
	f.parts.rest = f.parts.rest[1:]
	if err := f.seek(&s); err != nil {
		f.mu.Lock()
		f.stats.Damage = &Damage{Offset: s.Offset, Frame: s.Frame, Reason: err.Error()}
		f.mu.Unlock()
		return false
	}
	return true
}

func (f *file) seek(s *stretch) error {
	x := f.parts.index
	if f.parts.h == nil {
		h, err := os.Open(f.stats.Path)
		if err != nil {
			return err
		}
		f.parts.h = h
	}
	at := joint{s.Offset, s.Offset}
	if x.Packed != "" {
		at = joint{}
		for _, j := range x.Joints {
			if j.Plain <= s.Offset {
				at = j
			}
		}
	}
	if _, err := f.parts.h.Seek(at.Packed, io.SeekStart); err != nil {
		return err
	}
	f.parts.close()
	f.parts.close = func() {}
	var r io.Reader = counter{f.parts.h, f.disk}
	if x.Packed != "" {
		u, done, err := unpack(bufio.NewReaderSize(r, 16<<10), x.Packed, nil)
		if err != nil {
			return err
		}
		f.parts.close = done
		if _, err := io.CopyN(io.Discard, u, s.Offset-at.Plain); err != nil {
			return ErrChanged
		}
		r = u
	}
	r = io.LimitReader(r, s.end-s.Offset)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(x.Head) > 0 {
		p, _, err := newPcap(x.Head, &f.stats)
		if err != nil {
			return err
		}
		f.f = p
	} else {
		ng := &ngFile{s: &f.stats, seen: true, now: s.First}
		for _, k := range x.Sections {
			if k.Offset <= s.Offset {
				ng.big, ng.ifaces = k.Big, slices.Clone(k.Ifaces)
			}
		}
		ng.drops = make([]int64, len(ng.ifaces))
		f.f = ng
	}
	f.r, f.off, f.stats.Packets = r, s.Offset, s.Frame-1
	f.eof, f.fault, f.done, f.keep = false, nil, false, f.keep[:0]
	f.stretch = *s
	return nil
}

// strayed says that what a stretch gave is not what its index says.
func (f *file) strayed(c *chunk) bool {
	s := &f.stretch
	return f.parts != nil && slices.ContainsFunc(c.packets, func(p Packet) bool {
		return p.Time < s.Min || p.Time > s.Max || p.Frame == s.Frame && p.Time != s.First
	})
}

// unpack decompresses gzip and zstd one member or frame after the other, and
// tells each at which offsets of both sides it begins; note may be nil.
func unpack(br *bufio.Reader, kind string, note func(plain, read int64)) (io.Reader, func(), error) {
	u := &unpacker{br: br, note: note}
	switch kind {
	case "gzip":
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, nil, err
		}
		z.Multistream(false)
		u.z = z
		u.again = func() error {
			if err := z.Reset(br); err != nil {
				return err
			}
			z.Multistream(false)
			return nil
		}
		return u, func() {}, nil
	case "zstd":
		frame := &zstdFrame{br: br}
		z, err := zstd.NewReader(frame, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return nil, nil, err
		}
		u.z = z
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
	again func() error
	note  func(plain, read int64)
	plain int64
}

func (u *unpacker) Read(p []byte) (int, error) {
	for {
		n, err := u.z.Read(p)
		u.plain += int64(n)
		if err != io.EOF {
			return n, err
		}
		if _, err := u.br.Peek(1); err != nil {
			return n, err
		}
		if u.note != nil {
			u.note(u.plain, int64(u.br.Buffered()))
		}
		if err := u.again(); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// zstdFrame gives the bytes of one frame and then io.EOF, so that it is known
// where the next begins: RFC 8878 section 3.1.
type zstdFrame struct {
	br     *bufio.Reader
	left   int64 // bytes that can be handed on without a look
	state  int   // 0 = at the begin, 1 = at a block, 2 = at the checksum, 3 = at the end
	closed bool  // there is a checksum
}

func (z *zstdFrame) Read(p []byte) (int, error) {
	for z.left == 0 {
		if z.state == 3 {
			return 0, io.EOF
		}
		if err := z.step(); err != nil {
			return 0, err
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

// begin starts the index of a file that was just opened as g.
func (f *file) begin(g *file) {
	f.index = &Index{Size: f.stats.SizeOnDisk, Head: g.head, Packed: g.stats.Compression, Joints: []joint{{}}, step: indexStep}
	g.index = f.index // joints are told to it
	switch f.index.Packed {
	case "", "gzip", "zstd":
	default:
		f.index, g.index = nil, nil
	}
}

// join notes where a member or frame begins; joints nearer to each other than a
// block would tell nothing more.
func (f *file) join(j joint) {
	if f.index == nil {
		return
	}
	x := f.index
	if last := x.Joints[len(x.Joints)-1]; j.Plain-last.Plain >= x.step {
		if x.Joints = append(x.Joints, j); len(x.Joints) >= 2*maxBlocks {
			n := 0
			for i := 0; i < len(x.Joints); i += 2 {
				x.Joints[n] = x.Joints[i]
				n++
			}
			x.Joints = x.Joints[:n]
		}
	}
}
