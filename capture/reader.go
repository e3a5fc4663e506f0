package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	// chunkSize is one read; a batch is the packets of one chunk.
	chunkSize = 1 << 20
	// maxRecord bounds one record or block that has to be held whole. The
	// largest snapshot length of libpcap is 256 KiB; the rest is tolerance.
	maxRecord = chunkSize / 2
	// gapAfter is the silence that counts as a gap of the capture.
	gapAfter = 30e9
	// stepBack is the jump back in time that counts as a clock step.
	stepBack = 1e9
	// A lone packet whose time is strayFar or more from both of its neighbours, which
	// are strayNear or less apart, has a wrong time; that of a clock set anew or of
	// captures that were joined stays where it is.
	strayFar  = 24 * 3600e9
	strayNear = 3600e9
)

// ErrFormat says that an input is no capture that squall reads.
var ErrFormat = errors.New("not a capture")

// ErrNone says that a directory holds no capture.
var ErrNone = errors.New("no capture in this directory")

// errEnd is an orderly end inside a parser.
var errNeed = errors.New("more bytes needed")

// chunk is a buffer together with the packets that alias it.
type chunk struct {
	buf     []byte
	packets []Packet
}

var chunks = sync.Pool{New: func() any {
	return &chunk{buf: make([]byte, chunkSize), packets: make([]Packet, 0, 8192)}
}}

// format parses one kind of file. next reads the record at the start of b,
// which lies at offset off of the file, and returns how many bytes it took; a
// record without a packet leaves p.Data nil. errNeed asks for more bytes;
// skip > 0 asks to drop that many bytes that need not be looked at.
type format interface {
	next(b []byte, p *Packet) (n int, skip int64, err error)
}

// file reads one capture file or stream.
type file struct {
	r      io.Reader
	close  func() error
	f      format
	number uint32 // of the input
	stream bool   // a pipe: what has come is given at once, not when a chunk is full

	head    []byte   // of a pcap file
	windows *windows // where an index is asked for
	index   *Index   // that is being made
	parts   *parts   // what is read, where it is not the whole
	stretch stretch

	before int64 // packets from here on are not wanted; 0 = all are

	mu    sync.Mutex // guards stats
	stats FileStats
	disk  *atomic.Int64 // bytes read from the device

	off     int64 // of what is read next, in the uncompressed file
	eof     bool
	fault   error // why r stopped
	done    bool
	last    int64
	keep    []byte              // bytes carried from one chunk to the next
	held    Packet              // of a time that its successor has to confirm
	doubt   bool                // there is one
	follows func(t int64) int64 // when the file began that was written after t; nil, 0 = none is known
}

func (f *file) snapshot() FileStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Finished = f.done
	if f.disk != nil {
		s.ReadOnDisk = f.disk.Load()
	}
	if f.index != nil && f.done {
		s.Index = f.windows.finished(f.index, f.off)
	}
	if s.Clock.Source != "" && s.Ended != 0 {
		s.Ended = s.Clock.True(s.Ended)
	}
	return s
}

// nextBatch returns the packets of the next chunk, io.EOF at the end. It never
// returns another error: what is wrong with the file is in its stats.
func (f *file) nextBatch() (*Batch, error) {
	for !f.done || f.turn() {
		if f.before != 0 && f.last >= f.before+stepBack {
			f.leave()
			break
		}
		c := chunks.Get().(*chunk)
		c.packets = c.packets[:0]
		n := copy(c.buf, f.keep)
		least := len(c.buf) - n
		if f.stream {
			least = 1
		}
		for end := n + least; n < end && !f.eof; {
			m, err := f.r.Read(c.buf[n:])
			n += m
			if err != nil {
				f.eof = true
				if err != io.EOF {
					f.fault = err
				}
			}
		}
		b := c.buf[:n]
		f.parse(c, b)
		if f.strayed(c) {
			f.mu.Lock()
			f.done, f.stats.Damage = true, &Damage{Offset: f.stretch.Offset, Frame: f.stretch.Frame, Reason: ErrChanged.Error()}
			f.mu.Unlock()
			chunks.Put(c)
			break
		}
		if len(c.packets) > 0 {
			return NewBatch(c.packets, func() { chunks.Put(c) }), nil
		}
		chunks.Put(c)
	}
	return nil, io.EOF
}

// parse takes the records of b into c and keeps the remaining bytes.
func (f *file) parse(c *chunk, b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.stats
	var p Packet
	for {
		if len(b) == 0 && f.eof {
			f.finish(c, b, nil)
			return
		}
		p = Packet{File: f.number, Frame: s.Packets + 1, Offset: f.off}
		n, skip, err := f.f.next(b, &p)
		if err == errNeed {
			if f.eof {
				f.finish(c, b, nil)
				return
			}
			f.keep = append(f.keep[:0], b...)
			if f.doubt {
				f.held.Data = bytes.Clone(f.held.Data)
			}
			return
		}
		if err != nil {
			f.finish(c, b, err)
			return
		}
		if skip > 0 {
			f.off += skip
			if skip <= int64(len(b)) {
				b = b[skip:]
				continue
			}
			skip -= int64(len(b))
			b = nil
			if m, err := io.CopyN(io.Discard, f.r, skip); err != nil {
				f.off -= skip - m
				f.eof = true
				f.settleLast(c)
				s.Damage = &Damage{Offset: f.off, Frame: s.Packets + 1, Reason: "the file ends inside a block", Tail: true}
				f.done = true
				return
			}
			continue
		}
		f.off += int64(n)
		b = b[n:]
		if p.Data == nil {
			continue
		}
		if s.Clock.Source != "" {
			p.Time = s.Clock.True(p.Time)
		}
		if f.doubt {
			f.settle(c, p.Time)
			p.Frame = s.Packets + 1
		}
		if f.far(p.Time) {
			f.held, f.doubt = p, true
			continue
		}
		f.take(c, &p)
	}
}

// take adds a packet to those of the chunk.
func (f *file) take(c *chunk, p *Packet) {
	f.stats.count(p, f.last)
	f.last = p.Time
	if f.index != nil {
		f.index.add(f, p)
	}
	c.packets = append(c.packets, *p)
}

// far reports a time that is believed when the next packet bears it out.
func (f *file) far(t int64) bool {
	if f.parts != nil {
		return t < f.stretch.Min || t > f.stretch.Max
	}
	d := t - f.last
	return d > strayFar || d < -strayFar
}

// settle takes the packet in doubt; next is the time of its successor, which it gets
// if its own is a stray: that is the same in a file that begins with it.
func (f *file) settle(c *chunk, next int64) {
	p := &f.held
	stray := strays(f.last, p.Time, next, f.stats.Packets > 0)
	if f.parts != nil { // whoever made the index has looked at it
		stray = !f.far(next)
	}
	if stray {
		p.Time = next
		f.stats.StrayTimes++
	}
	f.take(c, p)
	f.held, f.doubt = Packet{}, false
}

// strays reports that t is far from the times before and after it, which agree. What
// begins a file has none before it, and may be long before what follows.
func strays(before, t, after int64, any bool) bool {
	if !any {
		return t-after > strayFar
	}
	d := after - before
	return d <= strayNear && d >= -strayNear && (t-before > strayFar && t-after > strayFar || before-t > strayFar && after-t > strayFar)
}

// straighten gives a packet that has just been received, far in the future by its
// time, that of now.
func (s *FileStats) straighten(p *Packet, now int64) {
	if p.Time-now > strayFar {
		p.Time = now
		s.StrayTimes++
	}
}

// settleLast is settle at the end of the file, or of the part that is read.
func (f *file) settleLast(c *chunk) {
	if !f.doubt {
		return
	}
	next := f.held.Time
	switch {
	case f.parts != nil:
		next = f.stretch.Max
	case f.follows != nil:
		if t := f.follows(f.last - strayNear); t != 0 {
			next = t
		}
	}
	f.settle(c, next)
}

// count takes a packet whose predecessor had the time last.
func (s *FileStats) count(p *Packet, last int64) {
	if s.Packets > 0 {
		switch d := p.Time - last; {
		case d < 0:
			s.OutOfOrder++
			if d < -stepBack {
				s.ClockSteps++
			}
		case d > gapAfter:
			s.Gaps++
		}
	}
	if s.Packets == 0 || p.Time < s.First {
		s.First = p.Time
	}
	if s.Packets == 0 || p.Time > s.Last {
		s.Last = p.Time
	}
	s.Packets++
	s.Bytes += int64(p.OrigLen)
	if len(p.Data) < p.OrigLen {
		s.Truncated++
	}
	known := false
	for _, l := range s.LinkTypes {
		known = known || l == p.Link
	}
	if !known && len(s.LinkTypes) < 64 {
		s.LinkTypes = append(s.LinkTypes, p.Link)
	}
}

// finish ends the file; rest is what could not be read, err why.
func (f *file) finish(c *chunk, rest []byte, err error) {
	f.settleLast(c)
	f.done = true
	s := &f.stats
	switch {
	case err != nil:
		s.Damage = &Damage{Offset: f.off, Frame: s.Packets + 1, Reason: err.Error()}
	case errors.Is(f.fault, io.ErrUnexpectedEOF):
		s.Damage = &Damage{Offset: f.off, Frame: s.Packets + 1, Tail: true,
			Reason: fmt.Sprintf("the %s stream is cut, %d bytes into a record", s.Compression, len(rest))}
	case f.fault != nil:
		s.Damage = &Damage{Offset: f.off + int64(len(rest)), Frame: s.Packets + 1, Reason: f.fault.Error()}
	case len(rest) > 0:
		s.Damage = &Damage{Offset: f.off, Frame: s.Packets + 1, Tail: true,
			Reason: fmt.Sprintf("the file ends %d bytes into a record", len(rest))}
		if p, ok := f.f.(*pcapFile); ok && len(rest) >= p.head {
			if capLen, orig := int64(p.u32(rest[8:])), int64(p.u32(rest[12:])); capLen > orig && capLen > p.snaplen && !p.swapped {
				s.Damage.Tail = false
				s.Damage.Reason = fmt.Sprintf("record claims %d captured bytes of %d, and the file has %d more", capLen, orig, len(rest)-p.head)
			}
		}
	}
}

// pcapFile reads the classic format: tcpdump.org, pcap-savefile(5).
type pcapFile struct {
	big     bool
	nano    bool
	head    int  // bytes of a record header
	swapped bool // files of version 2.2 and older may hold the lengths the other way round
	link    LinkType
	snaplen int64
}

func (f *pcapFile) u32(b []byte) uint32 {
	if f.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (f *pcapFile) next(b []byte, p *Packet) (int, int64, error) {
	if len(b) < f.head {
		return 0, 0, errNeed
	}
	sec, frac := f.u32(b), f.u32(b[4:])
	capLen, orig := int64(f.u32(b[8:])), int64(f.u32(b[12:]))
	if capLen|orig == 0 {
		if magicBegins(b) {
			return f.joined(b)
		}
		if sec|frac == 0 { // what a disk that lost its power had not written yet
			return 0, 0, errors.New("zeros where a record should begin")
		}
	}
	if f.swapped && capLen > orig {
		capLen, orig = orig, capLen
	}
	if capLen > maxRecord {
		return 0, 0, fmt.Errorf("record claims %d captured bytes, more than any capture has (%d)", capLen, maxRecord)
	}
	if f.nano {
		if frac >= 1e9 {
			frac, sec = frac%1e9, sec+frac/1e9
		}
		p.Time = int64(sec)*1e9 + int64(frac)
	} else {
		p.Time = int64(sec)*1e9 + int64(frac)*1e3
	}
	n := f.head + int(capLen)
	if len(b) < n {
		return 0, 0, errNeed
	}
	p.Data = b[f.head:n:n]
	p.OrigLen = int(max(orig, capLen))
	p.Link = f.link
	return n, 0, nil
}

// magicBegins reports the first bytes of a pcap file.
func magicBegins(b []byte) bool {
	m := binary.BigEndian.Uint32(b)
	if m != magicMicro && m != magicNano {
		m = bits.ReverseBytes32(m)
	}
	return m == magicMicro || m == magicNano
}

// joined is the header of another pcap file, where the header of a record would be:
// its zone and accuracy are the lengths, both 0. Files joined with cat are read on
// while their headers say the same.
func (f *pcapFile) joined(b []byte) (int, int64, error) {
	if len(b) < 24 {
		return 0, 0, errNeed
	}
	g, n, err := newPcap(b, new(FileStats))
	if err != nil || g.big != f.big || g.nano != f.nano || g.head != f.head || g.link != f.link || g.swapped != f.swapped {
		return 0, 0, errors.New("a capture of another format was appended here; name the files one by one instead of joining them")
	}
	return n, 0, nil
}

// magic numbers of the classic format, as read big-endian.
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicModified = 0xa1b2cd34 // Kuznetzov's patch: 24-byte record headers
	magicSection  = 0x0a0d0d0a // pcapng
)

// aix are the link types of version 2.2 as tcpdump of AIX writes them: numbers of
// SNMP (ifType). Its times are nanoseconds under the magic of microseconds.
var aix = map[LinkType]LinkType{6: LinkEthernet, 9: 6, 15: 10, 24: LinkNull}

// newPcap reads the 24-byte file header.
func newPcap(b []byte, s *FileStats) (*pcapFile, int, error) {
	if len(b) < 24 {
		return nil, 0, fmt.Errorf("%w: %d bytes, a pcap header has 24", ErrFormat, len(b))
	}
	f := &pcapFile{head: 16}
	m := binary.BigEndian.Uint32(b)
	if m != magicMicro && m != magicNano && m != magicModified {
		m = binary.LittleEndian.Uint32(b)
	} else {
		f.big = true
	}
	switch m {
	case magicNano:
		f.nano = true
	case magicModified:
		f.head = 24
	}
	f.link = LinkType(f.u32(b[20:]) & 0xffff) // the upper half carries the FCS length
	f.snaplen = int64(f.u32(b[16:]))
	var major, minor uint16
	if f.big {
		major, minor = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	} else {
		major, minor = binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:])
	}
	if major != 2 && major != 543 { // 543: an old SuSE tcpdump
		return nil, 0, fmt.Errorf("%w: pcap version %d.%d, 2.4 is read", ErrFormat, major, minor)
	}
	f.swapped = major == 2 && minor <= 3 || major == 543
	if link, ok := aix[f.link]; ok && major == 2 && minor == 2 {
		f.link, f.nano, f.swapped = link, true, false
	}
	s.Format, s.Snaplen = "pcap", f.snaplen
	return f, 24, nil
}
