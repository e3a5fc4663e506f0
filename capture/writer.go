package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// WriterOptions say what a Writer writes. The zero value is uncompressed
// pcapng with nanosecond times.
type WriterOptions struct {
	Format      string   // "pcapng" (default) or "pcap" (nanoseconds)
	Compression string   // "", "gzip", "zstd", "lz4"
	Link        LinkType // pcap only: the one link type of the file; the zero value means that of the first packet
	Snaplen     uint32   // declared, 0 = 262144
	Comment     string   // pcapng: of the section
	Application string   // pcapng: what wrote it; shb_userappl
	// Interfaces describes the inputs by Packet.File; pcapng then keeps the
	// packets of each apart. nil: an interface for each link type.
	Interfaces []WriterInterface
}

// WriterInterface is what pcapng says of an interface.
type WriterInterface struct {
	Name, Description string // if_name, if_description
	Filter            string // if_filter
	Link              LinkType
}

// InterfaceStatistics are the counters of an interface since its capture began;
// -1 = not known.
type InterfaceStatistics struct {
	File       uint32 // which interface, as Packet.File
	Start, End int64  // ns since the epoch; when it began, and the time of the counters
	Received   int64  // packets that the filter was asked about
	IfDropped  int64  // packets that the interface lost before
	Accepted   int64  // packets that passed the filter
	OSDropped  int64  // of these, packets for which the kernel had no room
	Delivered  int64  // packets that came here
}

const (
	maxOption = 65000 // bytes
	// writeChunk is how much goes to the file at once.
	writeChunk = 256 << 10
	// frameChunk is the same before compression: each chunk is a frame of its
	// own, so that a file whose writer was killed ends between two.
	frameChunk = 1 << 20
)

// compressor is what the three compressions have in common.
type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
}

// Writer writes packets to a capture file. pcapng gets an interface for each
// link type that turns up, or for each input; pcap holds one link type and
// refuses another. What goes to the file at once are whole packets, compressed
// by themselves, so that a file whose writer was killed is whole up to there.
type Writer struct {
	out    io.Writer
	file   *os.File // out, where it was opened here
	opt    WriterOptions
	begun  bool
	ifaces []ifaceKey
	raw    []byte // whole blocks that are not written yet
	from   int    // of the block in hand
	z      compressor
	packed bytes.Buffer
	size   int64 // of the file
	ended  int64
}

type ifaceKey struct {
	file  uint32
	iface uint16
	link  LinkType
}

// WriterOptionsFor is what the name of a file asks for: .pcap and .cap mean
// pcap, anything else pcapng; .gz, .zst and .lz4 behind it compress.
func WriterOptionsFor(path string) (opt WriterOptions) {
	name := path
	for ending, c := range map[string]string{".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"} {
		if rest, ok := strings.CutSuffix(name, ending); ok {
			opt.Compression, name = c, rest
			break
		}
	}
	if opt.Format == "" && (strings.HasSuffix(name, ".pcap") || strings.HasSuffix(name, ".cap")) {
		opt.Format = "pcap"
	}
	return opt
}

// Create creates a file and chooses format and compression by the name:
// .pcap, .cap or .pcapng, with .gz, .zst or .lz4 behind. The file is readable
// by its owner only: captures hold other people's traffic.
func Create(path string, opt WriterOptions) (*Writer, error) {
	chosen := WriterOptionsFor(path)
	if opt.Compression == "" {
		opt.Compression = chosen.Compression
	}
	if opt.Format == "" {
		opt.Format = chosen.Format
	}
	h, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w, err := NewWriter(h, opt)
	if err != nil {
		h.Close()
		return nil, err
	}
	w.file = h
	return w, nil
}

// NewWriter writes to out, which it does not close.
func NewWriter(out io.Writer, opt WriterOptions) (*Writer, error) {
	w := &Writer{out: out, opt: opt}
	switch opt.Compression {
	case "":
	case "gzip":
		w.z = gzip.NewWriter(&w.packed)
	case "zstd":
		z, err := zstd.NewWriter(&w.packed, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(frameChunk))
		if err != nil {
			return nil, err
		}
		w.z = z
	case "lz4":
		w.z = lz4.NewWriter(&w.packed)
	default:
		return nil, fmt.Errorf("compression %q: want gzip, zstd or lz4", opt.Compression)
	}
	switch opt.Format {
	case "", "pcapng":
		w.opt.Format = "pcapng"
	case "pcap":
	default:
		return nil, fmt.Errorf("format %q: want pcap or pcapng", opt.Format)
	}
	if opt.Snaplen == 0 {
		w.opt.Snaplen = 262144
	}
	return w, nil
}

func le16(b []byte, v uint16) []byte { return binary.LittleEndian.AppendUint16(b, v) }
func le32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }

// Size is how many bytes the file has, with those that Flush would write before
// compression.
func (w *Writer) Size() int64 { return w.size + int64(len(w.raw)) }

// room writes out what is waiting when it is enough.
func (w *Writer) room() error {
	if n := len(w.raw); w.z == nil && n < writeChunk || n < frameChunk && w.z != nil {
		return nil
	}
	return w.Flush()
}

// Flush writes out everything, as a compressed frame of its own. After an error
// what could not be written is kept, and the file holds none of it: with the
// disk full no longer, Flush may be called again.
func (w *Writer) Flush() error {
	if len(w.raw) == 0 {
		return nil
	}
	b := w.raw
	if w.z != nil {
		w.packed.Reset()
		w.z.Reset(&w.packed)
		if _, err := w.z.Write(w.raw); err != nil {
			return err
		}
		if err := w.z.Close(); err != nil {
			return err
		}
		b = w.packed.Bytes()
	}
	n, err := w.out.Write(b)
	if err != nil {
		if n > 0 && w.file != nil {
			if _, serr := w.file.Seek(w.size, io.SeekStart); serr == nil {
				w.file.Truncate(w.size)
			}
		}
		return err
	}
	w.size += int64(n)
	w.raw = w.raw[:0]
	return nil
}

// block begins a pcapng block, end completes it.
func (w *Writer) block(kind uint32) {
	w.from = len(w.raw)
	w.raw = le32(le32(w.raw, kind), 0)
}

func (w *Writer) end() {
	n := uint32(len(w.raw) - w.from + 4)
	w.raw = le32(w.raw, n)
	binary.LittleEndian.PutUint32(w.raw[w.from+4:], n)
}

func (w *Writer) option(code uint16, v string) {
	v = v[:min(len(v), maxOption)]
	w.raw = append(le16(le16(w.raw, code), uint16(len(v))), v...)
	w.pad()
}

func (w *Writer) pad() {
	for len(w.raw)%4 != w.from%4 {
		w.raw = append(w.raw, 0)
	}
}

func (w *Writer) begin(link LinkType) {
	w.begun = true
	if w.opt.Format == "pcap" {
		if w.opt.Link == 0 {
			w.opt.Link = link
		}
		w.raw = le16(le16(le32(w.raw, magicNano), 2), 4)
		w.raw = le32(le32(le32(le32(w.raw, 0), 0), w.opt.Snaplen), uint32(w.opt.Link))
		return
	}
	w.block(magicSection)
	w.raw = le32(w.raw, 0x1a2b3c4d)
	w.raw = append(le16(le16(w.raw, 1), 0), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	for c := w.opt.Comment; c != ""; { // one option holds no more than 64 KiB
		n := len(c)
		if n > maxOption {
			n = max(strings.LastIndexByte(c[:maxOption], '\n'), 0)
			if n == 0 {
				n = maxOption
			}
		}
		w.option(1, c[:n])
		c = strings.TrimPrefix(c[n:], "\n")
	}
	if a := w.opt.Application; a != "" {
		w.option(4, a)
	}
	if w.opt.Comment+w.opt.Application != "" {
		w.raw = le32(w.raw, 0)
	}
	w.end()
	for i, known := range w.opt.Interfaces {
		w.iface(ifaceKey{uint32(i), 0, known.Link})
	}
}

// iface is the number of an interface, which is described when it is new.
func (w *Writer) iface(k ifaceKey) uint32 {
	if w.opt.Interfaces == nil {
		k.file, k.iface = 0, 0
	}
	for i, known := range w.ifaces {
		if known == k {
			return uint32(i)
		}
	}
	w.ifaces = append(w.ifaces, k)
	w.block(blockInterface)
	w.raw = le32(le16(le16(w.raw, uint16(k.link)), 0), w.opt.Snaplen)
	if int(k.file) < len(w.opt.Interfaces) {
		i := &w.opt.Interfaces[k.file]
		if i.Name != "" {
			w.option(2, i.Name)
		}
		if i.Description != "" {
			w.option(3, i.Description)
		}
		w.option(9, "\x09") // if_tsresol: nanoseconds
		if i.Filter != "" {
			w.option(11, "\x00"+i.Filter)
		}
	} else {
		w.option(9, "\x09")
	}
	w.raw = le32(w.raw, 0)
	w.end()
	return uint32(len(w.ifaces) - 1)
}

// WritePacket writes one packet; the comment goes into pcapng and is left out
// of pcap. p.Data may be reused afterwards. After an error of the file the
// packet is kept for the next Flush.
func (w *Writer) WritePacket(p *Packet, comment string) error {
	if !w.begun {
		w.begin(p.Link)
	}
	if w.opt.Format == "pcap" {
		if p.Link != w.opt.Link {
			return fmt.Errorf("frame %d: link type %d in a pcap file of link type %d; pcapng holds both", p.Frame, p.Link, w.opt.Link)
		}
		sec := p.Time / 1e9
		if p.Time < 0 || sec > 0xffffffff {
			return fmt.Errorf("frame %d: its time does not fit into pcap; pcapng holds it", p.Frame)
		}
		w.raw = le32(le32(w.raw, uint32(sec)), uint32(p.Time%1e9))
		w.raw = append(le32(le32(w.raw, uint32(len(p.Data))), uint32(p.OrigLen)), p.Data...)
		return w.room()
	}
	id := w.iface(ifaceKey{p.File, p.Iface, p.Link})
	if comment != "" {
		w.commented(p, id, comment)
		return w.room()
	}
	// The common case, in one piece: this is what a live capture spends its time on.
	padded := (len(p.Data) + 3) &^ 3
	n := 28 + padded + 4
	if p.Flags != 0 {
		n += 12
	}
	at := len(w.raw)
	w.raw = slices.Grow(w.raw, n)[:at+n]
	b := w.raw[at:]
	put := binary.LittleEndian.PutUint32
	put(b[24:], uint32(p.OrigLen))
	put(b[20:], uint32(len(p.Data)))
	put(b[16:], uint32(p.Time))
	put(b[12:], uint32(uint64(p.Time)>>32))
	put(b[8:], id)
	put(b[4:], uint32(n))
	put(b, blockEnhanced)
	b = b[28:]
	clear(b[copy(b, p.Data):padded])
	b = b[padded:]
	if p.Flags != 0 {
		put(b[8:], 0)
		put(b[4:], p.Flags)
		put(b, 2|4<<16)
		b = b[12:]
	}
	put(b, uint32(n))
	return w.room()
}

// commented writes a packet with a comment.
func (w *Writer) commented(p *Packet, id uint32, comment string) {
	w.block(blockEnhanced)
	w.raw = le32(w.raw, id)
	w.raw = le32(le32(w.raw, uint32(uint64(p.Time)>>32)), uint32(p.Time))
	w.raw = append(le32(le32(w.raw, uint32(len(p.Data))), uint32(p.OrigLen)), p.Data...)
	w.pad()
	if p.Flags != 0 {
		w.raw = le32(le16(le16(w.raw, 2), 4), p.Flags)
	}
	w.option(1, comment)
	w.raw = le32(w.raw, 0)
	w.end()
}

// WriteStatistics writes the counters of an interface; pcap has no place for
// them.
func (w *Writer) WriteStatistics(s *InterfaceStatistics) error {
	if w.opt.Format == "pcap" {
		return nil
	}
	if !w.begun {
		w.begin(LinkEthernet)
	}
	for i, k := range w.ifaces {
		if k.file == s.File { // once for an input, whatever link types it had
			w.statistics(i, s)
			break
		}
	}
	return w.room()
}

func (w *Writer) statistics(id int, s *InterfaceStatistics) {
	w.block(blockStats)
	w.raw = le32(w.raw, uint32(id))
	w.raw = le32(le32(w.raw, uint32(uint64(s.End)>>32)), uint32(s.End))
	for _, o := range [...]struct {
		code uint16
		v    int64
	}{{2, s.Start}, {3, s.End}, {4, s.Received}, {5, s.IfDropped}, {6, s.Accepted}, {7, s.OSDropped}, {8, s.Delivered}} {
		if o.v < 0 {
			continue
		}
		w.raw = le16(le16(w.raw, o.code), 8)
		if o.code <= 3 { // a time: its upper half first
			w.raw = le32(le32(w.raw, uint32(uint64(o.v)>>32)), uint32(o.v))
		} else {
			w.raw = binary.LittleEndian.AppendUint64(w.raw, uint64(o.v))
		}
	}
	w.raw = le32(w.raw, 0)
	w.end()
}

// Ended says until when the capturing side listened, ns. Close writes it into
// pcapng, where it tells a silence at the end from a capture that stopped; pcap
// cannot hold it. WriteStatistics says it as well.
func (w *Writer) Ended(at int64) { w.ended = at }

// Close flushes and closes what the Writer opened. A file without packets
// still gets its header.
func (w *Writer) Close() error {
	if !w.begun {
		w.begin(LinkEthernet)
	}
	if w.ended != 0 && w.opt.Format != "pcap" {
		for id := range w.ifaces {
			w.statistics(id, &InterfaceStatistics{Start: -1, End: w.ended, Received: -1, IfDropped: -1, Accepted: -1, OSDropped: -1, Delivered: -1})
		}
	}
	err := w.Flush()
	if w.file != nil {
		if cerr := w.file.Close(); err == nil {
			err = cerr
		}
	}
	return err
}
