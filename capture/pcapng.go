package capture

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// pcapng block types: draft-ietf-opsawg-pcapng section 4.
const (
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockStats     = 5
	blockEnhanced  = 6
	// maxInterfaces bounds the interfaces of one section.
	maxInterfaces = 1 << 16
)

type ngInterface struct {
	Link    LinkType
	Snaplen uint32
	Resol   byte
	Offset  int64 // seconds
}

// ngFile reads pcapng.
type ngFile struct {
	s      *FileStats
	big    bool
	ifaces []ngInterface
	drops  []int64                           // latest counter of each interface of the section
	before int64                             // drops of finished sections
	seen   bool                              // a section header was read
	now    int64                             // time of the latest packet that had one
	remark func(packet bool, comment string) // is told the comments of packets and of sections; may be nil
}

func (f *ngFile) u16(b []byte) uint16 {
	if f.big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (f *ngFile) u32(b []byte) uint32 {
	if f.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (f *ngFile) u64(b []byte) uint64 {
	if f.big {
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}

// when turns a count of units into nanoseconds, exactly but for digits beyond
// the nanosecond. Clocks that show a time after 2262 are broken; their seconds
// are taken modulo 2^32, as in the classic format, which keeps the differences.
func (i *ngInterface) when(units uint64) int64 {
	var sec, frac uint64 // frac in nanoseconds
	if n := i.Resol & 0x7f; i.Resol&0x80 != 0 {
		if n < 64 {
			sec = units >> n
			units &= 1<<n - 1
		}
		// units / 2^n seconds
		hi, lo := bits.Mul64(units, 1e9)
		switch {
		case n >= 128:
		case n >= 64:
			frac = hi >> (n - 64)
		default:
			frac = lo >> n
			if n > 0 {
				frac |= hi << (64 - n)
			}
		}
	} else if n <= 9 {
		p := pow10(n)
		sec, frac = units/p, units%p*pow10(9-n)
	} else {
		frac = units
		for range min(n-9, 20) {
			frac /= 10
		}
		sec, frac = frac/1e9, frac%1e9
	}
	s := int64(sec) + i.Offset
	if sec > math.MaxInt64 || s > lastSecond || s < -lastSecond {
		s = int64(uint32(s))
	}
	return s*1e9 + int64(frac)
}

// lastSecond is the last whole second of an int64 of nanoseconds.
const lastSecond = math.MaxInt64/1_000_000_000 - 1

func pow10(n byte) uint64 {
	v := uint64(1)
	for range n {
		v *= 10
	}
	return v
}

func (f *ngFile) next(b []byte, p *Packet) (int, int64, error) {
	if len(b) < 12 {
		return 0, 0, errNeed
	}
	kind := f.u32(b)
	if binary.BigEndian.Uint32(b) == magicSection { // a palindrome: the same in both orders
		switch {
		case binary.BigEndian.Uint32(b[8:]) == 0x1a2b3c4d:
			f.big = true
		case binary.LittleEndian.Uint32(b[8:]) == 0x1a2b3c4d:
			f.big = false
		default:
			return 0, 0, fmt.Errorf("section header without byte-order magic")
		}
		kind = magicSection
	} else if !f.seen {
		return 0, 0, fmt.Errorf("%w: pcapng without section header", ErrFormat)
	}
	total := int64(f.u32(b[4:]))
	if total < 12 || total%4 != 0 && kind != blockPacket && kind != blockEnhanced && kind != blockSimple {
		return 0, 0, fmt.Errorf("block of type %#x claims %d bytes", kind, total)
	}
	switch kind {
	case magicSection, blockInterface, blockPacket, blockSimple, blockStats, blockEnhanced:
	default:
		return 0, (total + 3) &^ 3, nil
	}
	padded := (total + 3) &^ 3
	if padded > maxRecord {
		return 0, 0, fmt.Errorf("block of type %#x claims %d bytes, more than any has (%d)", kind, total, maxRecord)
	}
	if int64(len(b)) < padded {
		return 0, 0, errNeed
	}
	if tail := int64(f.u32(b[total-4:])); tail != total && int64(f.u32(b[padded-4:])) != total {
		return 0, 0, fmt.Errorf("block of type %#x has %d bytes at its head and %d at its tail", kind, total, tail)
	}
	body := b[8 : total-4]
	var err error
	switch kind {
	case magicSection:
		err = f.section(body)
	case blockInterface:
		err = f.addInterface(body)
	case blockStats:
		f.statistics(body)
	case blockEnhanced, blockPacket:
		if len(body) < 20 {
			return 0, 0, fmt.Errorf("packet block of %d bytes", total)
		}
		id := f.u32(body)
		if kind == blockPacket {
			id = uint32(f.u16(body))
			if d := f.u16(body[2:]); d != 0xffff && d > 0 && int(id) < len(f.drops) {
				f.drops[id] += int64(d)
				f.total()
			}
		}
		if int(id) >= len(f.ifaces) {
			return 0, 0, fmt.Errorf("packet of interface %d, the section has described %d", id, len(f.ifaces))
		}
		i := &f.ifaces[id]
		p.Time = i.when(uint64(f.u32(body[4:]))<<32 | uint64(f.u32(body[8:])))
		f.now = p.Time
		capLen := int64(f.u32(body[12:]))
		if capLen > int64(len(body)-20) {
			return 0, 0, fmt.Errorf("packet block of %d bytes claims %d captured ones", total, capLen)
		}
		p.Data = body[20 : 20+capLen : 20+capLen]
		p.OrigLen = int(max(int64(f.u32(body[16:])), capLen))
		p.Link, p.Iface = i.Link, uint16(id)
		if opts := body[min(int64(len(body)), 20+(capLen+3)&^3):]; kind == blockEnhanced && len(opts) >= 8 {
			f.options(opts, func(code uint16, v []byte) {
				if code == 2 && len(v) == 4 {
					p.Flags = f.u32(v)
				}
				if code == 1 && f.remark != nil {
					f.remark(true, string(v))
				}
			})
		}
	case blockSimple:
		if len(f.ifaces) == 0 || len(body) < 4 {
			return 0, 0, fmt.Errorf("simple packet block without interface")
		}
		i := &f.ifaces[0]
		orig := int64(f.u32(body))
		capLen := min(orig, int64(len(body)-4))
		if i.Snaplen > 0 {
			capLen = min(capLen, int64(i.Snaplen))
		}
		p.Data = body[4 : 4+capLen : 4+capLen]
		p.OrigLen, p.Link = int(max(orig, capLen)), i.Link
		p.Time = f.now // it has none of its own; 1970 would be a clock step and break merging
	}
	return int(padded), 0, err
}

func (f *ngFile) section(body []byte) error {
	if len(body) < 16 {
		return fmt.Errorf("section header of %d bytes", len(body)+12)
	}
	if major := f.u16(body[4:]); major != 1 {
		return fmt.Errorf("%w: pcapng version %d.%d, 1.0 is read", ErrFormat, major, f.u16(body[6:]))
	}
	f.seen = true
	for _, d := range f.drops {
		f.before += d
	}
	f.ifaces, f.drops = f.ifaces[:0], f.drops[:0]
	f.options(body[16:], func(code uint16, v []byte) {
		if code == 1 && f.remark != nil {
			f.remark(false, string(v))
		}
		if code == 1 && f.s.Comment == "" {
			f.s.Comment = string(v[:min(len(v), 4096)])
		}
	})
	return nil
}

func (f *ngFile) addInterface(body []byte) error {
	if len(body) < 8 {
		return fmt.Errorf("interface block of %d bytes", len(body)+12)
	}
	if len(f.ifaces) == maxInterfaces {
		return fmt.Errorf("more than %d interfaces in a section", maxInterfaces)
	}
	i := ngInterface{Link: LinkType(f.u16(body)), Snaplen: f.u32(body[4:]), Resol: 6}
	f.options(body[8:], func(code uint16, v []byte) {
		switch {
		case code == 9 && len(v) == 1:
			i.Resol = v[0]
		case code == 14 && len(v) == 8:
			i.Offset = int64(f.u64(v))
		}
	})
	f.s.Snaplen = max(f.s.Snaplen, int64(i.Snaplen))
	f.ifaces = append(f.ifaces, i)
	f.s.Interfaces = max(f.s.Interfaces, len(f.ifaces))
	f.drops = append(f.drops, 0)
	return nil
}

// statistics takes the drop counters; they are totals since the start of the
// capture, so the last one stands.
func (f *ngFile) statistics(body []byte) {
	if len(body) < 12 {
		return
	}
	id := f.u32(body)
	f.options(body[12:], func(code uint16, v []byte) {
		if code == 3 && len(v) == 8 && int64(id) < int64(len(f.ifaces)) { // isb_endtime, in the words of a packet's time
			f.s.Ended = max(f.s.Ended, f.ifaces[id].when(uint64(f.u32(v))<<32|uint64(f.u32(v[4:]))))
		}
		if (code == 5 || code == 7) && len(v) == 8 && int64(id) < int64(len(f.drops)) {
			if n := f.u64(v); n < math.MaxInt64 {
				f.drops[id] = max(f.drops[id], int64(n))
				f.total()
			}
		}
	})
	if f.s.Drops < 0 {
		f.total()
	}
}

func (f *ngFile) total() {
	f.s.Drops = f.before
	for _, d := range f.drops {
		f.s.Drops += d
	}
}

// options walks a list of options; a broken list just ends.
func (f *ngFile) options(b []byte, each func(code uint16, v []byte)) {
	for len(b) >= 4 {
		code, n := f.u16(b), int(f.u16(b[2:]))
		if code == 0 || n > len(b)-4 {
			return
		}
		each(code, b[4:4+n])
		b = b[min(4+(n+3)&^3, len(b)):]
	}
}
