package capture

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/flate"
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
	Every  int64   `json:",omitempty"` // how near to each other joints within a member are at most

	step   int64
	member int64  // where the last one begins that is a joint
	kept   string // file that the windows of the joints lie in
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

// joint is a place in a file from which on it can be unpacked. Within a member of
// gzip it is the begin of a block.
type joint struct {
	plain, packed int64
	bits          uint   // last ones of the byte before that are of the block
	window        []byte // what lies before, itself packed
	at            int64  // where it lies, if it was kept
	size          int    // of it; 0 = none is needed
}

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
	r     *position // in the file without compression
	close func()    // of the decompressor
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
	if err := f.parts.reach(s.Offset, f.disk); err != nil {
		return err
	}
	r := io.LimitReader(f.parts.r, s.end-s.Offset)
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

// reach goes to an offset of the file: on from where it is, or from the last joint
// before it, whichever is nearer.
func (p *parts) reach(offset int64, disk *atomic.Int64) error {
	at := joint{plain: offset, packed: offset}
	if p.index.Packed != "" {
		at = joint{}
		for _, j := range p.index.Joints {
			if j.plain <= offset {
				at = j
			}
		}
	}
	if p.r == nil || p.r.n > offset || p.r.n < at.plain {
		p.close()
		p.close, p.r = func() {}, nil
		if at.bits > 0 {
			at.packed--
		}
		if _, err := p.h.Seek(at.packed, io.SeekStart); err != nil {
			return err
		}
		var r io.Reader = counter{p.h, disk}
		if p.index.Packed != "" {
			if err := p.index.load(&at); err != nil {
				return err
			}
			u, done, err := unpack(bufio.NewReaderSize(r, 16<<10), p.index.Packed, at, nil)
			if err != nil {
				return err
			}
			r, p.close = u, done
		}
		p.r = &position{r, at.plain}
	}
	if _, err := io.CopyN(io.Discard, p.r, offset-p.r.n); err != nil {
		return ErrChanged
	}
	return nil
}

// strayed says that what a stretch gave is not what its index says.
func (f *file) strayed(c *chunk) bool {
	s := &f.stretch
	return f.parts != nil && slices.ContainsFunc(c.packets, func(p Packet) bool {
		return p.Time < s.Min || p.Time > s.Max || p.Frame == s.Frame && p.Time != s.First
	})
}

// begin starts the index of a file that was just opened as g.
func (f *file) begin(g *file) {
	f.index = &Index{Size: f.stats.SizeOnDisk, Head: g.head, Packed: g.stats.Compression, Joints: []joint{{}}, step: indexStep}
	g.index, g.windows = f.index, f.windows // joints are told to it
	switch f.index.Packed {
	case "gzip":
		f.windows.of = append(f.windows.of, f.index)
		f.index.Every = f.windows.every
	case "", "zstd":
	default:
		f.index, g.index = nil, nil
	}
}

// join notes a place from which the file can be unpacked. Members and frames nearer to
// each other than a block would tell nothing more.
func (f *file) join(j joint, window []byte) {
	x := f.index
	switch {
	case x == nil:
	case window != nil:
		f.windows.add(x, j, window)
	case j.plain-x.member >= x.step:
		x.member = j.plain
		if x.Joints = append(x.Joints, j); len(x.Joints) >= 2*maxBlocks {
			odd := false
			x.Joints = slices.DeleteFunc(x.Joints, func(j joint) bool {
				odd = j.size == 0 && !odd
				return j.size == 0 && !odd
			})
		}
	}
}

const (
	// windowEvery is how far apart the joints within a member of gzip are at first, as
	// far as the members of our own files.
	windowEvery = 1 << 20
	// maxWindows bounds what all of them take, of all files that are read together:
	// when it is full, they are twice as far apart.
	maxWindows = 16 << 20
)

// windows are the joints within members of gzip, of all files that are read together.
// One is kept in each stretch of every bytes, the first: which ones these are does
// not depend on when it was doubled.
type windows struct {
	mu    sync.Mutex // finished indices are read meanwhile
	of    []*Index
	every int64
	size  int
	pack  *flate.Writer
}

func (w *windows) add(x *Index, j joint, window []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(x.Joints) - 1; i > 0 && x.Joints[i].plain/w.every == j.plain/w.every; i-- {
		if x.Joints[i].size > 0 {
			return
		}
	}
	var packed bytes.Buffer
	if w.pack == nil {
		w.pack, _ = flate.NewWriter(nil, flate.BestSpeed) // fails for other levels
	}
	w.pack.Reset(&packed)
	w.pack.Write(window) // to memory: it does not fail
	w.pack.Close()
	j.window, j.size = packed.Bytes(), packed.Len()
	x.Joints = append(x.Joints, j)
	w.size += j.size
	for w.size > maxWindows {
		w.double()
	}
}

// double makes new slices: old ones may be read.
func (w *windows) double() {
	w.every *= 2
	w.size = 0
	for _, x := range w.of {
		last := int64(-1)
		var kept []joint
		for _, j := range x.Joints {
			if j.size > 0 {
				if j.plain/w.every == last {
					continue
				}
				last = j.plain / w.every
				w.size += j.size
			}
			kept = append(kept, j)
		}
		x.Joints, x.Every = kept, w.every
	}
}

// take takes an index up again that was finished before.
func (w *windows) take(x Index) *Index {
	for _, j := range x.Joints {
		w.size += j.size
	}
	if x.Packed == "gzip" {
		w.of = append(w.of, &x)
		w.every = max(w.every, x.Every)
	}
	return &x
}

// finished is an index that nothing changes any more.
func (w *windows) finished(x *Index, end int64) *Index {
	w.mu.Lock()
	defer w.mu.Unlock()
	y := *x
	y.End = end
	return &y
}

// openWindow is what was packed by windows.
func openWindow(packed []byte) ([]byte, error) {
	z := new(inflater)
	z.start(bufio.NewReader(bytes.NewReader(packed)), nil, 0, 0)
	window, err := io.ReadAll(io.LimitReader(z, reach+1))
	if err != nil || len(window) > reach {
		return nil, errors.New("the index is damaged; squall verify says more")
	}
	return window, nil
}
