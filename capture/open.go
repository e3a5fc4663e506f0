package capture

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Options of Open; the zero value reads files only.
type Options struct {
	// Stdin is what the input "-" reads; nil makes "-" an error.
	Stdin io.Reader
	// Skipped is told of files in a directory that are no captures; may be nil.
	Skipped func(path string, why error)
	// Window is when packets are wanted; the zero value wants all. Files that lie
	// outside by their own times are not read, and one that has passed it is left:
	// FileStats.Unread. Packets outside may come all the same.
	Window Window
	// Index asks for FileStats.Index of every file.
	Index bool
	// Hold keeps every file open from the start, for who then gives up the right to
	// open files; one descriptor each.
	Hold bool
	// Parts are files, by path, of which only a part is read. Frames and offsets
	// are right, what FileStats counts is not.
	Parts map[string]Part
	// Resume is told what the inputs are, and says how far each was taken before;
	// nil = all of them anew.
	Resume func([]FileStats) []Mark
	// Clocks set right the times of a tap's packets before anything is done with
	// them; the key is its name.
	Clocks map[string]Clock
}

// Open opens captures: files by content, never by name; directories, walked;
// glob patterns; "-" for standard input. NAME=PATH calls the tap that all of it
// came from by a name. Several are merged by time. An input
// that was named and cannot be read is an error; inside a directory it is
// skipped and told to opt.Skipped. Files are opened when their time comes, so
// that thousands of rotated ones cost no more memory than two.
func Open(inputs []string, opt Options) (Source, error) {
	m := &merge{window: opt.Window, hold: opt.Hold}
	if opt.Index {
		m.windows = &windows{every: windowEvery}
	}
	for _, in := range inputs {
		observer, path := SplitInput(in)
		m.observer, m.clock = observer, opt.Clocks[observer]
		if err := m.add(path, opt); err != nil {
			m.Close()
			return nil, err
		}
	}
	if len(m.inputs) == 0 {
		return nil, errors.New("no input: give capture files, directories, or - for standard input")
	}
	m.narrow()
	if opt.Resume != nil {
		m.resume(opt.Resume(m.Files()))
	}
	return m.start(), nil
}

// resume leaves out what was taken before. Files that were taken in part are read
// from their begin, so that they give the same batches.
func (m *merge) resume(marks []Mark) {
	for i := range marks {
		in := m.inputs[i]
		if d := marks[i].Done; d != nil {
			in.f.stats, in.f.done = *d, true
			in.f.disk.Store(d.ReadOnDisk)
			if x := d.Index; x != nil && m.windows != nil {
				in.f.index, in.f.off = m.windows.take(*x), x.End
			}
			in.done = true
			continue
		}
		in.skip = marks[i].Frames
	}
}

func (m *merge) add(in string, opt Options) error {
	if in == "-" {
		if opt.Stdin == nil {
			return errors.New("-: standard input cannot be read here")
		}
		for _, other := range m.inputs {
			if other.f.stats.Path == "-" {
				return errors.New("-: standard input can be given once")
			}
		}
		f, err := openStream(opt.Stdin, "-")
		if err != nil {
			return err
		}
		f.stream = true
		m.append(f)
		return nil
	}
	if part, ok := opt.Parts[in]; ok {
		f := &file{stats: FileStats{Path: in, Drops: -1, Observer: m.observer, Clock: m.clock}, disk: new(atomic.Int64)}
		first, err := openPart(in, part, f)
		if err != nil {
			return err
		}
		f.number = uint32(len(m.inputs))
		m.inputs = append(m.inputs, &input{f: f, first: first})
		return nil
	}
	info, err := os.Stat(in)
	if err != nil {
		if names, _ := filepath.Glob(in); len(names) > 0 && strings.ContainsAny(in, "*?[") {
			for _, name := range names {
				if err := m.add(name, opt); err != nil {
					return err
				}
			}
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: no such file or directory", in)
		}
		return fmt.Errorf("%s: %w", in, errors.Unwrap(err))
	}
	if !info.IsDir() {
		f, err := openFile(in, new(atomic.Int64), lookAhead)
		if err != nil {
			return err
		}
		m.append(f)
		return nil
	}
	before := len(m.inputs)
	err = filepath.WalkDir(in, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := openFile(path, new(atomic.Int64), lookAhead)
		if err != nil {
			if opt.Skipped != nil {
				opt.Skipped(path, err)
			}
			return nil
		}
		m.append(f)
		return nil
	})
	if err == nil && len(m.inputs) == before {
		err = fmt.Errorf("%s: %w (pcap, pcapng, also gzip, zstd, lz4, bzip2)", in, ErrNone)
	}
	return err
}

// input is a file that may not be open at the moment.
type input struct {
	f     *file
	first int64  // time of its first packet, for the order of opening
	form  format // of an uncompressed file, as far as its first packet
	batch *Batch
	at    int   // next packet of batch
	skip  int64 // frames that were taken before
	done  bool  // all were
}

// append takes an opened file, looks at its first packet and closes it again
// when it can be reopened and need not be held.
func (m *merge) append(f *file) {
	f.number = uint32(len(m.inputs))
	f.stats.Observer, f.stats.Clock = m.observer, m.clock
	in := &input{f: f}
	m.inputs = append(m.inputs, in)
	pipe := f.stream
	f.stream = true // what the first read has is enough
	b, err := f.nextBatch()
	f.stream = pipe
	if err != nil { // nothing to come back for: thousands of empty files hold no descriptor
		if f.close != nil {
			f.close()
			f.close = nil
		}
		return
	}
	in.first = b.Packets[0].Time
	if pipe || m.hold {
		in.batch = b
		return
	}
	b.Release()
	if f.stats.Compression == "" {
		in.form = f.f
	}
	f.close()
	*f = file{number: f.number, stats: FileStats{Path: f.stats.Path, SizeOnDisk: f.stats.SizeOnDisk, Format: f.stats.Format, Drops: -1,
		Observer: f.stats.Observer, Clock: f.stats.Clock, Interfaces: f.stats.Interfaces, LinkTypes: f.stats.LinkTypes}, disk: f.disk, windows: m.windows}
}

// lookAhead is the first read of a file whose time has not come: a few packets.
const lookAhead = 4 << 10

// openFile opens a capture. What it reads is added to disk; ahead is how much it
// reads at a time until whole chunks are asked for.
func openFile(path string, disk *atomic.Int64, ahead int) (*file, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	f, err := readStream(h, path, disk, ahead)
	if err != nil {
		h.Close()
		return nil, err
	}
	if info, err := h.Stat(); err == nil && info.Mode().IsRegular() {
		f.stats.SizeOnDisk = info.Size()
	} else {
		f.stream = true // a named pipe cannot be opened twice
	}
	stream := f.close
	f.close = func() error { stream(); return h.Close() }
	return f, nil
}

// position counts what was read of one stream.
type position struct {
	r io.Reader
	n int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	return n, err
}

type counter struct {
	r io.Reader
	n *atomic.Int64
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// openStream recognises the compression and the format of a stream.
func openStream(r io.Reader, path string) (*file, error) {
	return readStream(r, path, new(atomic.Int64), 64<<10)
}

func readStream(r io.Reader, path string, disk *atomic.Int64, ahead int) (*file, error) {
	f := &file{stats: FileStats{Path: path, Drops: -1}, disk: disk, close: func() error { return nil }}
	at := &position{r: r}
	r = counter{at, f.disk}
	var head []byte
	var unread error
	for depth := 0; ; depth++ {
		br := bufio.NewReaderSize(r, ahead)
		head, unread = br.Peek(64)
		r = br
		name := packed(head)
		switch name {
		case "lz4":
			r = lz4.NewReader(br)
		case "bzip2":
			r = bzip2.NewReader(br)
		case "xz":
			return nil, fmt.Errorf("%s: xz is not read here: xz -dc %s | squall analyze -", path, path)
		}
		if name == "gzip" || name == "zstd" {
			note := func(j joint, window []byte) {
				j.packed = at.n - j.packed
				f.join(j, window)
			}
			if depth > 0 {
				note = nil
			}
			z, done, err := unpack(br, name, joint{}, note)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", path, name, err)
			}
			before := f.close
			f.close = func() error { done(); return before() }
			r = z
		}
		if name == "" {
			break
		}
		if depth == 2 {
			return nil, fmt.Errorf("%s: %w: compressed more than twice", path, ErrFormat)
		}
		if f.stats.Compression != "" {
			name = f.stats.Compression + "+" + name
		}
		f.stats.Compression = name
	}
	if z := f.stats.Compression; z != "" && len(head) < 24 && unread != nil && unread != io.EOF {
		if errors.Is(unread, zstd.ErrWindowSizeExceeded) {
			return nil, fmt.Errorf("%s: %w: its window is longer than 128 MB: zstd -dc --long=31 %s | squall analyze -", path, unread, path)
		}
		return nil, fmt.Errorf("%s: %w: nothing in it can be unpacked: %s: %w", path, ErrFormat, z, unread)
	}
	if len(head) < 4 {
		return nil, fmt.Errorf("%s: %w: %d bytes%s", path, ErrFormat, len(head), f.unpacked())
	}
	switch m := binary.BigEndian.Uint32(head); {
	case m == magicSection:
		f.stats.Format = "pcapng"
		f.f = &ngFile{s: &f.stats}
	case m == magicMicro, m == magicNano, m == magicModified, bytes.Equal(head[:4], []byte{0xd4, 0xc3, 0xb2, 0xa1}),
		bytes.Equal(head[:4], []byte{0x4d, 0x3c, 0xb2, 0xa1}), bytes.Equal(head[:4], []byte{0x34, 0xcd, 0xb2, 0xa1}):
		p, n, err := newPcap(head, &f.stats)
		if err != nil {
			return nil, fmt.Errorf("%s: %w%s", path, err, f.unpacked())
		}
		if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		f.f, f.off, f.head = p, int64(n), bytes.Clone(head[:n])
	default:
		return nil, fmt.Errorf("%s: %w: begins with %s%s, expected pcap or pcapng (also in gzip, zstd, lz4, bzip2)", path, ErrFormat, begins(head), f.unpacked())
	}
	f.r = r
	return f, nil
}

// unpacked says that what an error speaks of is inside a compression.
func (f *file) unpacked() string {
	if f.stats.Compression == "" {
		return ""
	}
	return ", unpacked from " + f.stats.Compression
}

// begins describes the first bytes of something that is not a capture.
func begins(head []byte) string {
	text := true
	for _, c := range head {
		text = text && (c >= ' ' && c < 0x7f || c == '\n' || c == '\r' || c == '\t')
	}
	if text {
		line, _, _ := strings.Cut(string(head), "\n")
		return fmt.Sprintf("the text %q", line[:min(len(line), 24)])
	}
	return fmt.Sprintf("the bytes % x", head[:4])
}

// merge is the Source over any number of files.
type merge struct {
	window  Window
	windows *windows // nil = no index is asked for
	hold    bool
	inputs  []*input
	wait    []*input // not begun, by time of the first packet, last one first
	open    []*input // begun
	ahead   chan *Batch
	stop    chan struct{}
	gone    chan struct{}

	observer string // of what is being added
	clock    Clock
}

func (m *merge) start() *merge {
	for _, in := range m.inputs {
		if in.f.stats.Unread == "" && !in.done {
			m.wait = append(m.wait, in)
			in.f.follows = func(t int64) int64 { return m.follows(in.f, t) }
		}
	}
	slices.SortStableFunc(m.wait, func(a, b *input) int {
		switch {
		case a.first > b.first:
			return -1
		case a.first < b.first:
			return 1
		}
		return int(b.f.number) - int(a.f.number)
	})
	m.ahead, m.stop, m.gone = make(chan *Batch, 2), make(chan struct{}), make(chan struct{})
	go m.run()
	return m
}

// run reads ahead of the consumer.
func (m *merge) run() {
	defer close(m.gone)
	defer close(m.ahead)
	for {
		b := m.merged()
		if b == nil {
			return
		}
		select {
		case m.ahead <- b:
		case <-m.stop:
			b.Release()
			return
		}
	}
}

// refill gives an input its next batch, opening its file if need be; false
// at the end of the file.
func (in *input) refill() bool {
	if in.batch != nil && in.at < len(in.batch.Packets) {
		return true
	}
	if in.batch != nil {
		in.batch.Release()
		in.batch = nil
	}
	f := in.f
	if f.r == nil && !f.done {
		g, err := openFile(f.stats.Path, f.disk, 64<<10)
		f.mu.Lock()
		if err != nil { // it was readable a moment ago
			f.done = true
			f.stats.Damage = &Damage{Frame: 1, Reason: err.Error()}
		} else {
			f.r, f.close, f.f, f.off = g.r, g.close, g.f, g.off
			if f.windows != nil {
				f.begin(g)
			}
			if ng, ok := f.f.(*ngFile); ok {
				ng.s = &f.stats
			}
			f.stats.Compression, f.stats.Format, f.stats.Snaplen = g.stats.Compression, g.stats.Format, g.stats.Snaplen
		}
		f.mu.Unlock()
	}
	for {
		b, err := f.nextBatch()
		if err != nil {
			if f.close != nil {
				f.close()
				f.close = nil
			}
			return false
		}
		if b.Packets[len(b.Packets)-1].Frame <= in.skip {
			b.Release()
			continue
		}
		in.batch, in.at = b, int(max(in.skip+1-b.Packets[0].Frame, 0))
		return true
	}
}

// mergeBatch is how many packets a batch of several files holds.
const mergeBatch = 4096

// merged returns the next batch in time order, nil at the end.
func (m *merge) merged() *Batch {
	if len(m.open) == 1 && m.open[0].batch == nil && !m.open[0].refill() {
		m.open = m.open[:0]
	}
	m.admit()
	if len(m.open) == 0 {
		return nil
	}
	if len(m.open) == 1 {
		in := m.open[0]
		b := in.batch
		if in.at == 0 && (len(m.wait) == 0 || m.wait[len(m.wait)-1].first >= b.Packets[len(b.Packets)-1].Time) {
			in.batch = nil // the next one is fetched when it is asked for: on a pipe it may be long in coming
			return b
		}
	}
	return m.mix()
}

// admit begins every file whose first packet is due.
func (m *merge) admit() {
	for len(m.wait) > 0 {
		next := m.wait[len(m.wait)-1]
		if len(m.open) > 0 {
			low := m.open[0].batch.Packets[m.open[0].at].Time
			for _, in := range m.open[1:] {
				low = min(low, in.batch.Packets[in.at].Time)
			}
			if next.first > low {
				return
			}
		}
		m.wait = m.wait[:len(m.wait)-1]
		if next.refill() {
			m.open = append(m.open, next)
		}
	}
}

// follows is when the next file of the same tap begins that begins after t; 0 = none does.
func (m *merge) follows(f *file, t int64) (next int64) {
	for _, in := range m.wait {
		if in.f.stats.Observer == f.stats.Observer && in.first > t && (next == 0 || in.first < next) {
			next = in.first
		}
	}
	return next
}

// mix takes packets of several files in the order of their times; those of
// one file keep their order, ties go by the order of the inputs.
func (m *merge) mix() *Batch {
	packets := make([]Packet, 0, mergeBatch)
	var used []*Batch
	for len(packets) < mergeBatch && len(m.open) > 0 {
		best := 0
		for i := 1; i < len(m.open); i++ {
			a, b := m.open[i], m.open[best]
			ta, tb := a.batch.Packets[a.at].Time, b.batch.Packets[b.at].Time
			if ta < tb || ta == tb && a.f.number < b.f.number {
				best = i
			}
		}
		in := m.open[best]
		p := in.batch.Packets[in.at]
		if len(m.wait) > 0 && m.wait[len(m.wait)-1].first < p.Time {
			m.admit()
			continue
		}
		packets = append(packets, p)
		if in.at++; in.at == len(in.batch.Packets) {
			used = append(used, in.batch)
			in.batch = nil
			if !in.refill() {
				m.open = slices.Delete(m.open, best, best+1)
			}
		}
	}
	for _, in := range m.open { // batches that go on stay alive for this one, too
		if in.at > 0 {
			in.batch.Retain(1)
			used = append(used, in.batch)
		}
	}
	return NewBatch(packets, func() {
		for _, b := range used {
			b.Release()
		}
	})
}

func (m *merge) Next() (*Batch, error) {
	b, ok := <-m.ahead
	if !ok {
		return nil, io.EOF
	}
	return b, nil
}

func (m *merge) Files() []FileStats {
	all := make([]FileStats, len(m.inputs))
	for i, in := range m.inputs {
		all[i] = in.f.snapshot()
	}
	return all
}

// Close ends reading and closes the files. It does not wait for standard
// input: a read that blocks there cannot be called back, its goroutine ends
// when the read does.
func (m *merge) Close() error {
	if m.stop == nil {
		m.closeFiles()
		return nil
	}
	select {
	case <-m.stop:
		return nil
	default:
		close(m.stop)
	}
	end := func() {
		for b := range m.ahead {
			b.Release()
		}
		<-m.gone
		m.closeFiles()
	}
	for _, in := range m.inputs {
		if in.f.stream {
			go end()
			return nil
		}
	}
	end()
	return nil
}

func (m *merge) closeFiles() {
	for _, in := range m.inputs {
		if in.f.close != nil {
			in.f.close()
			in.f.close = nil
		}
	}
}
