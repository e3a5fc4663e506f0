package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"sync"
)

const (
	// reach is how far back a DEFLATE stream may refer: RFC 1951 section 3.2.5.
	reach = 32 << 10
	// inflateBuf is what an inflater keeps: the reach, and what it unpacks at a time.
	inflateBuf = reach + 96<<10
	// inflateRoom is what one round of its fast loop may write, and spoil behind that.
	inflateRoom = 3 + 258 + 8
	// inflateInput is what one round of its fast loop may look at.
	inflateInput = 16

	litBits, distBits = 11, 8 // of a code that the first look into a table tells
)

var (
	errDeflate = errors.New("damaged DEFLATE data")
	// errDry says that there is output, which need not wait for more input.
	errDry = errors.New("no more input yet")
)

// An entry of a table says what the next bits are: the value in the upper half, the
// length of the code from bit 8, from bit 0 that with its extra bits.
const (
	entryLiteral = 1 << 12
	entryOther   = 1 << 13 // neither a literal nor a length nor a distance
	entryEnd     = 1 << 14 // other: the end of the block
	entryLong    = 1 << 15 // other: the code is longer; its entry lies in the second table
)

// inflater unpacks a DEFLATE stream. It is our own, for it tells where blocks begin,
// and can begin there itself when it has the 32 KiB before. It takes no byte of br
// from behind the stream, and waits for none while there is output to give.
type inflater struct {
	br    *bufio.Reader
	block func() // told of each begin of a block; nil = nobody asks

	bits   uint64 // that were taken of br and not used, the next one lowest
	nb     uint   // how many: fewer than eight at the begin of a block
	kind   blockKind
	final  bool
	stored int // bytes left of a stored block
	codes  *codes
	own    codes

	buf        [inflateBuf]byte
	given, end int // what of buf was given, and what there is
	err        error
}

type blockKind uint8

const (
	betweenBlocks blockKind = iota
	storedBlock
	codedBlock
)

// codes are the tables of a block. litMore and distMore are the second ones: at
// least two codes of a complete set share what comes before.
type codes struct {
	lit      [1 << litBits]uint32
	dist     [1 << distBits]uint32
	litMore  [143 << (15 - litBits)]uint32
	distMore [15 << (15 - distBits)]uint32
}

// start begins a stream at the next byte of br. Where it is entered, window is what
// comes before, and the first n bits are the upper ones of the byte before.
func (z *inflater) start(br *bufio.Reader, window []byte, before byte, n uint) {
	z.br, z.bits, z.nb, z.kind, z.final, z.err = br, uint64(before)>>(8-n), n, betweenBlocks, false, nil
	z.end = copy(z.buf[:], window)
	z.given = z.end
}

// window is what the stream may refer to from here on; it is good until the next Read.
func (z *inflater) window() []byte { return z.buf[max(z.end-reach, 0):z.end] }

func (z *inflater) Read(p []byte) (int, error) {
	for z.given == z.end {
		if z.err != nil {
			return 0, z.err
		}
		if z.full() {
			z.end = copy(z.buf[:], z.window())
			z.given = z.end
		}
		if z.err = z.unpack(); z.err == errDry {
			z.err = nil
		}
	}
	n := copy(p, z.buf[z.given:z.end])
	z.given += n
	return n, nil
}

func (z *inflater) full() bool { return z.end > inflateBuf-inflateRoom }

// unpack goes on until there is no room or no input.
func (z *inflater) unpack() (err error) {
	for err == nil && !z.full() {
		switch z.kind {
		case betweenBlocks:
			if z.final {
				return io.EOF
			}
			if z.given < z.end && z.br.Buffered() < 512 { // its head may not have come
				return errDry
			}
			err = z.begin()
		case storedBlock:
			err = z.copyStored()
		case codedBlock:
			if z.nb < 8 {
				err = z.fast()
			}
			if err == nil && z.kind == codedBlock && !z.full() {
				err = z.symbol()
			}
		}
	}
	return err
}

// more takes another byte of the input.
func (z *inflater) more() error {
	c, err := z.br.ReadByte()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	z.bits |= uint64(c) << z.nb
	z.nb += 8
	return err
}

// take takes n bits.
func (z *inflater) take(n uint) (v int, err error) {
	for z.nb < n {
		if err := z.more(); err != nil {
			return 0, err
		}
	}
	v = int(z.bits & (1<<n - 1))
	z.skip(n)
	return v, nil
}

func (z *inflater) skip(n uint) {
	z.bits >>= n
	z.nb -= n
}

// begin reads the head of a block: RFC 1951 section 3.2.3.
func (z *inflater) begin() error {
	if z.block != nil {
		z.block()
	}
	head, err := z.take(3)
	if err != nil {
		return err
	}
	z.final = head&1 != 0
	switch head >> 1 {
	case 0:
		z.skip(z.nb & 7)
		n, err := z.take(32)
		if err != nil {
			return err
		}
		if z.stored = n & 0xffff; z.stored != ^n>>16&0xffff {
			return errDeflate
		}
		z.kind = storedBlock
	case 1:
		z.codes, z.kind = fixedCodes(), codedBlock
	case 2:
		z.codes, z.kind = &z.own, codedBlock
		return z.readCodes()
	default:
		return errDeflate
	}
	return nil
}

func (z *inflater) copyStored() error {
	if z.stored == 0 {
		z.kind = betweenBlocks
		return nil
	}
	if z.given < z.end && z.br.Buffered() == 0 {
		return errDry
	}
	n, err := z.br.Read(z.buf[z.end:min(z.end+z.stored, inflateBuf)])
	z.end += n
	z.stored -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// lengthOrder is how the lengths of the codes of lengths follow each other.
var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readCodes reads the codes of a block: RFC 1951 section 3.2.7.
func (z *inflater) readCodes() error {
	head, err := z.take(14)
	if err != nil {
		return err
	}
	nlit, ndist, nlen := head&31+257, head>>5&31+1, head>>10+4
	if nlit > 286 || ndist > 30 {
		return errDeflate
	}
	var lens [286 + 30]uint8
	for _, i := range lengthOrder[:nlen] {
		n, err := z.take(3)
		if err != nil {
			return err
		}
		lens[i] = uint8(n)
	}
	var table [1 << 7]uint32
	if !build(table[:], nil, 7, lens[:19], lengthEntries[:]) {
		return errDeflate
	}
	clear(lens[:19])
	for i := 0; i < nlit+ndist; {
		e := table[z.bits&127]
		for uint(e>>8&15) > z.nb {
			if err := z.more(); err != nil {
				return err
			}
			e = table[z.bits&127]
		}
		if e&entryOther != 0 {
			return errDeflate
		}
		z.skip(uint(e >> 8 & 15))
		n, repeat, what := e>>16, 1, uint8(e>>16)
		if n > 15 {
			extra, least := [3]uint{2, 3, 7}[n-16], [3]int{3, 3, 11}[n-16]
			if repeat, err = z.take(extra); err != nil {
				return err
			}
			repeat, what = repeat+least, 0
			if n == 16 {
				if i == 0 {
					return errDeflate
				}
				what = lens[i-1]
			}
			if i+repeat > nlit+ndist {
				return errDeflate
			}
		}
		for range repeat {
			lens[i] = what
			i++
		}
	}
	c := z.codes
	if !build(c.lit[:], c.litMore[:], litBits, lens[:nlit], litEntries[:]) || !build(c.dist[:], c.distMore[:], distBits, lens[nlit:nlit+ndist], distEntries[:]) {
		return errDeflate
	}
	return nil
}

// build makes the tables of a set of codes, and says whether it is one: complete, or
// a single code of one bit, or none at all.
func build(table, more []uint32, root uint, lens []uint8, entries []uint32) bool {
	var count, next [16]int
	longest := 0
	for _, n := range lens {
		count[n]++
		longest = max(longest, int(n))
	}
	code := 0
	for n := 1; n <= longest; n++ {
		code <<= 1
		next[n] = code
		code += count[n]
	}
	if longest > 1 && code != 1<<longest || code > 2 && longest == 1 {
		return false
	}
	missing := uint32(entryOther | 1<<8 | 1)
	for i := range table {
		table[i] = missing
	}
	deep, used := uint(max(longest-int(root), 0)), 0
	for symbol, n := range lens {
		if n == 0 {
			continue
		}
		at := int(bits.Reverse16(uint16(next[n])) >> (16 - n))
		next[n]++
		e, n := entries[symbol]+uint32(n)<<8+uint32(n), uint(n)
		if n <= root {
			for ; at < 1<<root; at += 1 << n {
				table[at] = e
			}
			continue
		}
		first := &table[at&(1<<root-1)]
		if *first == missing {
			*first = uint32(used)<<16 | entryOther | entryLong | uint32(deep)
			used += 1 << deep
		}
		second := more[*first>>16:][:1<<deep]
		for at >>= root; at < 1<<deep; at += 1 << (n - root) {
			second[at] = e
		}
	}
	return true
}

// What codes mean, without their lengths: RFC 1951 section 3.2.5. Two literals and
// two distances of the fixed codes mean nothing.
var lengthEntries, litEntries, distEntries = func() (lengths [19]uint32, lits [288]uint32, dists [32]uint32) {
	for i := range lengths {
		lengths[i] = uint32(i) << 16
	}
	for i := range lits {
		switch {
		case i < 256:
			lits[i] = uint32(i)<<16 | entryLiteral
		case i == 256:
			lits[i] = entryOther | entryEnd
		case i == 285:
			lits[i] = 258 << 16
		case i > 285:
			lits[i] = entryOther
		}
	}
	value := uint32(3)
	for i := range uint32(28) {
		extra := max(i/4, 1) - 1
		lits[257+i] = value<<16 | extra
		value += 1 << extra
	}
	value = 1
	for i := range uint32(32) {
		extra := max(i/2, 1) - 1
		dists[i] = value<<16 | extra
		if value += 1 << extra; i >= 30 {
			dists[i] = entryOther
		}
	}
	return
}()

// fixedCodes are those of RFC 1951 section 3.2.6.
var fixedCodes = sync.OnceValue(func() *codes {
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	c := new(codes)
	build(c.lit[:], c.litMore[:], litBits, lens[:], litEntries[:])
	for i := range lens[:32] {
		lens[i] = 5
	}
	build(c.dist[:], c.distMore[:], distBits, lens[:32], distEntries[:])
	return c
})

// entry is what b begins with, where it begins with a code that is known by n bits;
// what is known by more may be another.
func entry(table, more []uint32, root uint, b uint64) uint32 {
	e := table[b&(1<<root-1)]
	if e&entryLong != 0 {
		e = more[e>>16+uint32(b>>root)&(1<<(e&63)-1)]
	}
	return e
}

// value is that of a length or distance that b begins with.
func value(e uint32, b uint64) int {
	return int(e>>16) + int(b&(1<<(e&63)-1)>>(e>>8&15))
}

// symbol takes a literal, a match or the end of the block, and no bit more. It makes
// do with the input there is while there is output to give.
func (z *inflater) symbol() error {
	c := z.codes
	for {
		b, nb := z.bits, uint32(z.nb)
		if e := entry(c.lit[:], c.litMore[:], litBits, b); e>>8&15 <= nb {
			switch {
			case e&entryLiteral != 0:
				z.buf[z.end] = byte(e >> 16)
				z.end++
				z.skip(uint(e & 63))
				return nil
			case e&entryEnd != 0:
				z.kind = betweenBlocks
				z.skip(uint(e & 63))
				return nil
			case e&entryOther != 0:
				return errDeflate
			}
			if used := e & 63; used <= nb {
				length := value(e, b)
				if e := entry(c.dist[:], c.distMore[:], distBits, b>>used); e>>8&15 <= nb-used {
					if e&entryOther != 0 {
						return errDeflate
					}
					if e&63 <= nb-used {
						distance := value(e, b>>used)
						if distance > z.end {
							return errDeflate
						}
						for range length {
							z.buf[z.end] = z.buf[z.end-distance]
							z.end++
						}
						z.skip(uint(used + e&63))
						return nil
					}
				}
			}
		}
		if z.given < z.end && z.br.Buffered() == 0 {
			return errDry
		}
		if err := z.more(); err != nil {
			return err
		}
	}
}

// fast does what symbol does, as long as there is plenty of input and room. It begins
// and ends with fewer than eight bits taken.
func (z *inflater) fast() (err error) {
	in, _ := z.br.Peek(z.br.Buffered())
	buf, c := &z.buf, z.codes
	pos, end, b, nb := 0, z.end, z.bits, uint64(z.nb)
	for pos <= len(in)-inflateInput && end <= inflateBuf-inflateRoom {
		// 56 bits at least; those above nb are the ones of in[pos].
		b |= binary.LittleEndian.Uint64(in[pos:]) << (nb & 63)
		pos += int((63 - nb) >> 3)
		nb |= 56
		e := c.lit[b&(1<<litBits-1)]
		if e&entryLiteral != 0 {
			buf[end] = byte(e >> 16)
			end++
			b >>= e & 63
			nb -= uint64(e & 63)
			if e = c.lit[b&(1<<litBits-1)]; e&entryLiteral != 0 {
				buf[end] = byte(e >> 16)
				end++
				b >>= e & 63
				nb -= uint64(e & 63)
				e = c.lit[b&(1<<litBits-1)]
			}
		}
		if e&(entryLiteral|entryOther) != 0 {
			if e&entryLong != 0 {
				e = c.litMore[e>>16+uint32(b>>litBits)&(1<<(e&63)-1)]
			}
			if e&entryLiteral != 0 {
				buf[end] = byte(e >> 16)
				end++
				b >>= e & 63
				nb -= uint64(e & 63)
				continue
			}
			if e&entryOther != 0 {
				if e&entryEnd == 0 {
					err = errDeflate
					break
				}
				b >>= e & 63
				nb -= uint64(e & 63)
				z.kind = betweenBlocks
				break
			}
		}
		length := value(e, b)
		b >>= e & 63
		nb -= uint64(e & 63)
		if nb < 15+13 {
			b |= binary.LittleEndian.Uint64(in[pos:]) << (nb & 63)
			pos += int((63 - nb) >> 3)
			nb |= 56
		}
		e = c.dist[b&(1<<distBits-1)]
		if e&entryOther != 0 {
			if e&entryLong != 0 {
				e = c.distMore[e>>16+uint32(b>>distBits)&(1<<(e&63)-1)]
			}
			if e&entryOther != 0 {
				err = errDeflate
				break
			}
		}
		distance := value(e, b)
		b >>= e & 63
		nb -= uint64(e & 63)
		from, to := end-distance, end+length
		switch {
		case from < 0:
			err = errDeflate
		case distance >= 8:
			for ; end < to; end, from = end+8, from+8 {
				binary.LittleEndian.PutUint64(buf[end:], binary.LittleEndian.Uint64(buf[from:]))
			}
		case distance == 1:
			for v := uint64(buf[from]) * 0x0101010101010101; end < to; end += 8 {
				binary.LittleEndian.PutUint64(buf[end:], v)
			}
		default:
			for ; end < to; end, from = end+1, from+1 {
				buf[end] = buf[from]
			}
		}
		if err != nil {
			break
		}
		end = to
	}
	// Whole bytes are given back.
	back := nb >> 3
	nb &= 7
	z.br.Discard(pos - int(back))
	z.bits, z.nb, z.end = b&(1<<nb-1), uint(nb), end
	return err
}
