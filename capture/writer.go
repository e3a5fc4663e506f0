package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
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
}

// Writer writes packets to a capture file. pcapng gets an interface for each
// link type that turns up; pcap holds one link type and refuses another.
type Writer struct {
	w     *bufio.Writer
	close []io.Closer // inner first
	opt   WriterOptions
	begun bool
	links []LinkType
	buf   []byte
	ended int64
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
	w.close = append(w.close, h)
	return w, nil
}

// NewWriter writes to out, which it does not close.
func NewWriter(out io.Writer, opt WriterOptions) (*Writer, error) {
	w := &Writer{opt: opt}
	switch opt.Compression {
	case "":
	case "gzip":
		z := gzip.NewWriter(out)
		out, w.close = z, append(w.close, z)
	case "zstd":
		z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		out, w.close = z, append(w.close, z)
	case "lz4":
		z := lz4.NewWriter(out)
		out, w.close = z, append(w.close, z)
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
	w.w = bufio.NewWriterSize(out, 256<<10)
	return w, nil
}

func le16(b []byte, v uint16) []byte { return binary.LittleEndian.AppendUint16(b, v) }
func le32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }

// block completes and writes the pcapng block in w.buf, whose length words
// are still empty.
func (w *Writer) block() error {
	n := uint32(len(w.buf) + 4)
	w.buf = le32(w.buf, n)
	binary.LittleEndian.PutUint32(w.buf[4:], n)
	_, err := w.w.Write(w.buf)
	return err
}

func (w *Writer) option(code uint16, v string) {
	w.buf = append(le16(le16(w.buf, code), uint16(len(v))), v...)
	w.pad()
}

func (w *Writer) pad() {
	for len(w.buf)%4 != 0 {
		w.buf = append(w.buf, 0)
	}
}

func (w *Writer) begin(link LinkType) error {
	w.begun = true
	if w.opt.Format == "pcap" {
		if w.opt.Link == 0 {
			w.opt.Link = link
		}
		w.buf = le16(le16(le32(w.buf[:0], magicNano), 2), 4)
		w.buf = le32(le32(le32(le32(w.buf, 0), 0), w.opt.Snaplen), uint32(w.opt.Link))
		_, err := w.w.Write(w.buf)
		return err
	}
	w.buf = le32(le32(le32(w.buf[:0], magicSection), 0), 0x1a2b3c4d)
	w.buf = append(le16(le16(w.buf, 1), 0), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	if c := w.opt.Comment; c != "" {
		w.option(1, c[:min(len(c), 65000)])
		w.buf = le32(w.buf, 0)
	}
	return w.block()
}

// WritePacket writes one packet; the comment goes into pcapng and is left out
// of pcap. p.Data may be reused afterwards.
func (w *Writer) WritePacket(p *Packet, comment string) error {
	if !w.begun {
		if err := w.begin(p.Link); err != nil {
			return err
		}
	}
	if w.opt.Format == "pcap" {
		if p.Link != w.opt.Link {
			return fmt.Errorf("frame %d: link type %d in a pcap file of link type %d; pcapng holds both", p.Frame, p.Link, w.opt.Link)
		}
		sec := p.Time / 1e9
		if p.Time < 0 || sec > 0xffffffff {
			return fmt.Errorf("frame %d: its time does not fit into pcap; pcapng holds it", p.Frame)
		}
		w.buf = le32(le32(w.buf[:0], uint32(sec)), uint32(p.Time%1e9))
		w.buf = le32(le32(w.buf, uint32(len(p.Data))), uint32(p.OrigLen))
		if _, err := w.w.Write(w.buf); err != nil {
			return err
		}
		_, err := w.w.Write(p.Data)
		return err
	}
	id := -1
	for i, l := range w.links {
		if l == p.Link {
			id = i
		}
	}
	if id < 0 {
		id = len(w.links)
		w.links = append(w.links, p.Link)
		w.buf = le32(le16(le16(le32(le32(w.buf[:0], blockInterface), 0), uint16(p.Link)), 0), w.opt.Snaplen)
		w.option(9, "\x09") // if_tsresol: nanoseconds
		w.buf = le32(w.buf, 0)
		if err := w.block(); err != nil {
			return err
		}
	}
	w.buf = le32(le32(le32(w.buf[:0], blockEnhanced), 0), uint32(id))
	w.buf = le32(le32(w.buf, uint32(uint64(p.Time)>>32)), uint32(p.Time))
	w.buf = append(le32(le32(w.buf, uint32(len(p.Data))), uint32(p.OrigLen)), p.Data...)
	w.pad()
	if comment != "" {
		w.option(1, comment[:min(len(comment), 65000)])
		w.buf = le32(w.buf, 0)
	}
	return w.block()
}

// Ended says until when the capturing side listened, ns. Close writes it into
// pcapng, where it tells a silence at the end from a capture that stopped; pcap
// cannot hold it.
func (w *Writer) Ended(at int64) { w.ended = at }

// statistics writes an interface statistics block for each interface.
func (w *Writer) statistics() error {
	for id := range w.links {
		w.buf = le32(le32(le32(w.buf[:0], blockStats), 0), uint32(id))
		w.buf = le32(le32(w.buf, uint32(uint64(w.ended)>>32)), uint32(w.ended))
		w.buf = le32(le32(le16(le16(w.buf, 3), 8), uint32(uint64(w.ended)>>32)), uint32(w.ended)) // isb_endtime
		w.buf = le32(w.buf, 0)
		if err := w.block(); err != nil {
			return err
		}
	}
	return nil
}

// Close flushes and closes what the Writer opened. A file without packets
// still gets its header.
func (w *Writer) Close() error {
	var err error
	if !w.begun {
		err = w.begin(LinkEthernet)
	}
	if err == nil && w.ended != 0 {
		err = w.statistics()
	}
	if ferr := w.w.Flush(); err == nil {
		err = ferr
	}
	for _, c := range w.close {
		if cerr := c.Close(); err == nil {
			err = cerr
		}
	}
	return err
}
