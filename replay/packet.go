package replay

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gaissmai/bart"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
)

// Move is an --map OLD=NEW: a network whose addresses become those of another,
// host part for host part.
type Move struct{ Old, New netip.Prefix }

func (m Move) String() string { return m.Old.String() + "=" + m.New.String() }

// ParseMove reads OLD=NEW, two networks (or addresses) of one family.
func ParseMove(text string) (m Move, err error) {
	was, is, ok := strings.Cut(text, "=")
	if !ok {
		return m, fmt.Errorf("--map %q: want OLD=NEW, such as 198.51.100.0/24=10.77.0.0/24", text)
	}
	for i, s := range []string{was, is} {
		p, e := netip.ParsePrefix(s)
		if a, e2 := netip.ParseAddr(s); e2 == nil {
			p, e = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if e != nil || p.Addr().Is4In6() {
			return m, fmt.Errorf("--map %q: %q is no network", text, s)
		}
		if p = p.Masked(); i == 0 {
			m.Old = p
		} else {
			m.New = p
		}
	}
	if m.Old.Addr().Is4() != m.New.Addr().Is4() {
		return m, fmt.Errorf("--map %q: IPv4 stays IPv4, IPv6 stays IPv6", text)
	}
	return m, nil
}

// of is the address that stands for a: the network of New, the rest of a.
func (m Move) of(a netip.Addr) netip.Addr {
	was, is := a.As16(), m.New.Addr().As16()
	bits := m.New.Bits()
	if a.Is4() {
		bits += 96
	}
	for i := range was {
		keep := byte(0xff)
		if n := bits - 8*i; n >= 8 {
			keep = 0
		} else if n > 0 {
			keep = 0xff >> n
		}
		is[i] |= was[i] & keep
	}
	out := netip.AddrFrom16(is)
	if a.Is4() {
		out = out.Unmap()
	}
	return out
}

// PacketOptions say how packets are rewritten.
type PacketOptions struct {
	Moves []Move
	Ports map[uint16]uint16
	VLANs map[uint16]uint16
	// SrcMAC and DstMAC of every frame; zero = 02:00:00:00:00:01 and :02.
	// Hardware addresses further inside become local ones, one for one.
	SrcMAC, DstMAC [6]byte
	// Guard says where packets may go; nil: they go to a file.
	Guard *Guard
	// Mark is the DSCP of every packet, by which a run is told from other
	// traffic (RFC 2474; 8 is the lowest class); 0 = as recorded. Only the
	// outermost header has it.
	Mark  int
	Limit int64 // packets that are taken, 0 = all
	Bytes int64 // that are held, 0 = DefaultMaxBytes
}

// Packets is a capture, rewritten and ready to go.
type Packets struct {
	Link    capture.LinkType
	At      []int64 // ns after the first
	Begin   int64   // of the first, ns since the epoch
	frames  [][]byte
	Bytes   int64
	Read    int64
	LeftOut map[string]int64 // by reason
	// Moved is how many addresses were exchanged for others; Residual how many
	// packets still name a recorded address in their payload, the first of them
	// at ResidualAt.
	Moved      int
	Residual   int64
	ResidualAt int64
	To         map[netip.Addr]int64 // packets by destination
}

// Reasons for which a packet is not replayed.
const (
	leftCut       = "cut by the snapshot length: what is missing cannot be sent"
	leftMulticast = "to multicast or broadcast: never sent to"
	leftARP       = "ARP: it would change who owns an address"
	leftRoutes    = "neighbour discovery or redirect: it would change who owns an address, or its route"
	leftLink      = "of another link type than the first packet"
)

const (
	typeARP  = 0x0806
	typeIP4  = 0x0800
	typeIP6  = 0x86dd
	arena    = 1 << 22
	ethernet = 14
	// addressesMost bounds what a rewriting remembers.
	addressesMost = 1 << 22
	// planMost is how many packets a plan goes through before it believes that
	// further loops are like the ones before.
	planMost = 20_000_000
)

// loader rewrites packet by packet.
type loader struct {
	opt   PacketOptions
	table bart.Table[Move]
	was   map[dissect.Addr]dissect.Addr // by what it was
	owner map[dissect.Addr]dissect.Addr // by what it is
	err   error
	macs  map[[6]byte]uint32
	p     *Packets
	r     headers.Rewriter
	left  bool // a recorded address stands in the payload
	room  []byte
}

// LoadPackets reads a capture to its end and rewrites it in memory. An address
// that no move covers, a move that makes one address of two, and with a guard a
// destination that may not be sent to, end it: nothing is sent before every
// packet was looked at. Packets that cannot be rewritten as a whole are left
// out and counted.
func LoadPackets(src capture.Source, recorded []netip.Addr, opt PacketOptions) (*Packets, error) {
	if opt.Bytes == 0 {
		opt.Bytes = DefaultMaxBytes
	}
	if opt.SrcMAC == ([6]byte{}) {
		opt.SrcMAC = [6]byte{2, 0, 0, 0, 0, 1}
	}
	if opt.DstMAC == ([6]byte{}) {
		opt.DstMAC = [6]byte{2, 0, 0, 0, 0, 2}
	}
	l := &loader{opt: opt, was: map[dissect.Addr]dissect.Addr{}, owner: map[dissect.Addr]dissect.Addr{}, macs: map[[6]byte]uint32{},
		p: &Packets{LeftOut: map[string]int64{}, To: map[netip.Addr]int64{}}}
	for _, m := range opt.Moves {
		l.table.Insert(m.Old, m)
	}
	known := newRecorded(recorded)
	l.r = headers.Rewriter{Map: l.endpoint, MAC: l.mac,
		VLAN: func(id uint16) uint16 {
			if to, ok := opt.VLANs[id]; ok {
				return to
			}
			return id
		},
		Payload: func(d *dissect.Datagram) { l.left = l.left || known.in(d.Payload) }}
	if err := capture.Each(context.Background(), src, func(b *capture.Batch) error {
		for i := range b.Packets {
			if opt.Limit > 0 && int64(len(l.p.frames)) >= opt.Limit {
				break
			}
			if err := l.take(&b.Packets[i]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	l.p.Moved = len(l.was)
	if len(l.p.frames) == 0 {
		for _, f := range src.Files() {
			if f.Damage != nil {
				return nil, fmt.Errorf("%s: offset %d, frame %d: %s; no packet can be replayed", f.Path, f.Damage.Offset, f.Damage.Frame, f.Damage.Reason)
			}
		}
		var why []string
		for _, r := range l.p.reasons() {
			why = append(why, fmt.Sprintf("%d %s", l.p.LeftOut[r], r))
		}
		return nil, errors.New(strings.TrimSuffix("no packet can be replayed: "+strings.Join(why, "; "), ": "))
	}
	return l.p, nil
}

func (l *loader) endpoint(e dissect.Endpoint) dissect.Endpoint {
	if to, ok := l.opt.Ports[e.Port]; ok && e.Port != 0 {
		e.Port = to
	}
	if is, ok := l.was[e.Addr]; ok {
		e.Addr = is
		return e
	}
	a := e.Addr.IP()
	m, ok := l.table.Lookup(a)
	switch {
	case l.err != nil:
	case !ok:
		l.err = refuse("%v is covered by no --map OLD=NEW; every address is rewritten, or nothing is", a)
	case len(l.was) >= addressesMost:
		l.err = fmt.Errorf("more than %d addresses", addressesMost)
	default:
		is := dissect.AddrFrom(m.of(a))
		if other, taken := l.owner[is]; taken {
			l.err = refuse("--map %v makes one address of %v and %v: %v", m, other, a, is)
			break
		}
		if l.opt.Guard != nil {
			if err := l.opt.Guard.Check(is.IP()); err != nil {
				var no *Refusal
				if errors.As(err, &no) {
					err = refuse("%v becomes %s", a, no.Reason)
				}
				l.err = err
				break
			}
		}
		l.was[e.Addr], l.owner[is] = is, e.Addr
		e.Addr = is
	}
	return e
}

// mac makes a local address of one inside a packet.
func (l *loader) mac(b []byte) {
	k := [6]byte(b)
	n, ok := l.macs[k]
	if !ok {
		n = uint32(len(l.macs)) + 0x10000
		l.macs[k] = n
	}
	b[0], b[1] = 2, 0
	binary.BigEndian.PutUint32(b[2:], n)
}

func (l *loader) take(p *capture.Packet) error {
	out := l.p
	out.Read++
	leave := func(why string) error {
		out.LeftOut[why]++
		return nil
	}
	if len(out.frames) == 0 {
		out.Link = p.Link
	}
	if p.Link != out.Link {
		return leave(leftLink)
	}
	if p.OrigLen > len(p.Data) {
		return leave(leftCut)
	}
	if len(l.room) < len(p.Data)+ethernet {
		l.room = make([]byte, max(arena, len(p.Data)+ethernet))
	}
	frame := l.room[ethernet : ethernet+len(p.Data) : ethernet+len(p.Data)]
	copy(frame, p.Data)
	kind, at := layer3(p.Link, frame)
	if l.opt.Guard != nil && kind == typeARP {
		return leave(leftARP)
	}
	if l.opt.Guard != nil && routes(kind, frame[at:]) {
		return leave(leftRoutes)
	}
	if p.Link == capture.LinkEthernet && frame[0]&1 == 1 || destination(kind, frame[at:]).IsMulticast() || limited(kind, frame[at:]) {
		return leave(leftMulticast)
	}
	l.left = false
	if err := l.r.Rewrite(p.Link, frame); err != nil {
		if errors.Is(err, headers.ErrOpaque) {
			return leave(err.Error())
		}
		return err
	}
	if l.err != nil {
		var no *Refusal
		if errors.As(l.err, &no) {
			return refuse("frame %d: %s", p.Frame, no.Reason)
		}
		return fmt.Errorf("frame %d: %w", p.Frame, l.err)
	}
	if l.opt.Guard != nil {
		if frame = l.framed(p.Link, kind, at, len(p.Data)); frame == nil {
			return leave(fmt.Sprintf("link type %d: not sent on Ethernet", p.Link))
		}
		// The last look is at the bytes themselves, whatever rewrote them.
		kind, at = layer3(capture.LinkEthernet, frame)
		mark(kind, frame[at:], l.opt.Mark)
		if err := l.opt.Guard.Check(destination(kind, frame[at:])); err != nil {
			return fmt.Errorf("frame %d: %w", p.Frame, err)
		}
	} else {
		if p.Link == capture.LinkEthernet {
			copy(frame, l.opt.DstMAC[:])
			copy(frame[6:], l.opt.SrcMAC[:])
		}
		mark(kind, frame[at:], l.opt.Mark)
	}
	if out.Bytes += int64(len(frame)); out.Bytes > l.opt.Bytes {
		return refuse("more than %d bytes; take part of the capture with --limit or a filter, or lift --max-bytes", l.opt.Bytes)
	}
	if l.left {
		if out.Residual++; out.Residual == 1 {
			out.ResidualAt = p.Frame
		}
	}
	if len(out.frames) == 0 {
		out.Begin = p.Time
	}
	out.To[destination(kind, frame[at:])]++
	at64 := p.Time - out.Begin
	if n := len(out.At); n > 0 { // a clock that went back sends at once
		at64 = max(at64, out.At[n-1])
	}
	out.At = append(out.At, at64)
	out.frames = append(out.frames, frame)
	l.room = l.room[len(p.Data)+ethernet:]
	return nil
}

// framed puts an Ethernet header before what layer3 found; the room for it lies
// before the packet.
func (l *loader) framed(link capture.LinkType, kind uint16, at, n int) []byte {
	var frame []byte
	switch {
	case link == capture.LinkEthernet:
		frame = l.room[ethernet : ethernet+n : ethernet+n]
	case kind == 0:
		return nil
	default:
		frame = l.room[at : ethernet+n : ethernet+n]
		binary.BigEndian.PutUint16(frame[12:], kind)
	}
	copy(frame, l.opt.DstMAC[:])
	copy(frame[6:], l.opt.SrcMAC[:])
	return frame
}

// mark sets the DSCP of a packet, its checksum with it (RFC 1624).
func mark(kind uint16, b []byte, dscp int) {
	switch {
	case dscp == 0:
	case kind == typeIP4 && len(b) >= 20:
		was := binary.BigEndian.Uint16(b)
		b[1] = byte(dscp)<<2 | b[1]&3
		sum := uint32(^binary.BigEndian.Uint16(b[10:])) + uint32(^was) + uint32(binary.BigEndian.Uint16(b))
		sum = sum&0xffff + sum>>16
		binary.BigEndian.PutUint16(b[10:], ^uint16(sum&0xffff+sum>>16))
	case kind == typeIP6 && len(b) >= 40:
		b[0] = b[0]&0xf0 | byte(dscp)>>2
		b[1] = byte(dscp)<<6 | b[1]&0x3f
	}
}

// layer3 is where the network header of a packet begins, and its Ethernet
// type; 0 where it cannot be told.
func layer3(link capture.LinkType, b []byte) (kind uint16, at int) {
	guess := func(at int) (uint16, int) {
		if len(b) <= at {
			return 0, 0
		}
		switch b[at] >> 4 {
		case 4:
			return typeIP4, at
		case 6:
			return typeIP6, at
		}
		return 0, 0
	}
	switch link {
	case capture.LinkEthernet:
		if len(b) < ethernet {
			return 0, 0
		}
		for at = 12; at+2 <= len(b); at += 4 {
			if kind = binary.BigEndian.Uint16(b[at:]); kind != 0x8100 && kind != 0x88a8 && kind != 0x9100 {
				return kind, at + 2
			}
		}
		return 0, 0
	case capture.LinkLinuxSLL:
		if len(b) < 16 {
			return 0, 0
		}
		return binary.BigEndian.Uint16(b[14:]), 16
	case capture.LinkLinuxSLL2:
		if len(b) < 20 {
			return 0, 0
		}
		return binary.BigEndian.Uint16(b), 20
	case capture.LinkNull, capture.LinkLoop:
		return guess(4)
	case capture.LinkRaw, capture.LinkIPv4, capture.LinkIPv6, 12, 14:
		return guess(0)
	}
	return 0, 0
}

// destination is where the outermost network header says it goes.
func destination(kind uint16, b []byte) netip.Addr {
	switch {
	case kind == typeIP4 && len(b) >= 20:
		return netip.AddrFrom4([4]byte(b[16:20]))
	case kind == typeIP6 && len(b) >= 40:
		return netip.AddrFrom16([16]byte(b[24:40]))
	}
	return netip.Addr{}
}

// routes says whether a packet tells its receiver whom to send to: redirects,
// and solicitations and advertisements of IPv6 (RFC 4861).
func routes(kind uint16, b []byte) bool {
	switch {
	case kind == typeIP4 && len(b) >= 20:
		n := int(b[0]&15) * 4
		return b[9] == dissect.ProtoICMP && len(b) > n && (b[n] == 5 || b[n] == 9 || b[n] == 10) && binary.BigEndian.Uint16(b[6:])&0x1fff == 0
	case kind == typeIP6 && len(b) >= 40:
		next, at := b[6], 40
		for range 8 {
			if next != 0 && next != 43 && next != 60 || at+2 > len(b) {
				break
			}
			next, at = b[at], at+8+int(b[at+1])*8
		}
		return next == dissect.ProtoICMPv6 && at < len(b) && b[at] >= 133 && b[at] <= 137
	}
	return false
}

func limited(kind uint16, b []byte) bool {
	return kind == typeIP4 && len(b) >= 20 && binary.BigEndian.Uint32(b[16:]) == 0xffffffff
}

// recordedSet finds addresses of the capture in payloads: as text, and as the
// bytes of an IPv4 or IPv6 address.
type recordedSet struct {
	four  map[uint32]bool
	six   map[[16]byte]bool
	first [256]bool // bytes that any of them begins with
	texts map[string]bool
}

func newRecorded(list []netip.Addr) *recordedSet {
	r := &recordedSet{four: map[uint32]bool{}, six: map[[16]byte]bool{}, texts: map[string]bool{}}
	for _, a := range list {
		r.texts[a.String()] = true
		if b := a.As16(); a.Is4() {
			r.four[binary.BigEndian.Uint32(b[12:])] = true
			r.first[b[12]] = true
		} else {
			r.six[b] = true
			r.first[b[0]] = true
		}
	}
	return r
}

func (r *recordedSet) in(b []byte) bool {
	text := 0 // length of the run of address characters that ends here
	for i := 0; i <= len(b); i++ {
		if i < len(b) && (b[i] >= '0' && b[i] <= '9' || b[i] == '.' || b[i] == ':' || b[i] >= 'a' && b[i] <= 'f') {
			text++
		} else {
			if text >= 3 && text <= 64 && r.text(b[i-text:i]) {
				return true
			}
			text = 0
		}
		if i == len(b) || !r.first[b[i]] {
			continue
		}
		if i+4 <= len(b) && r.four[binary.BigEndian.Uint32(b[i:])] || i+16 <= len(b) && r.six[[16]byte(b[i:i+16])] {
			return true
		}
	}
	return false
}

// text looks at a run of characters: an address, or one with a port behind it.
func (r *recordedSet) text(s []byte) bool {
	s = bytes.Trim(s, ".:")
	if r.texts[string(s)] {
		return true
	}
	i := bytes.LastIndexByte(s, ':')
	return i > 0 && r.texts[string(s[:i])]
}

// Count is how many packets a loop sends.
func (p *Packets) Count() int { return len(p.frames) }

// Hash names what would be sent: SHA-256 over the rewritten bytes and times.
func (p *Packets) Hash() string {
	h := sha256.New()
	var n [12]byte
	for i, f := range p.frames {
		binary.BigEndian.PutUint64(n[:], uint64(p.At[i]))
		binary.BigEndian.PutUint32(n[8:], uint32(len(f)))
		h.Write(n[:])
		h.Write(f)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Pace is how fast packets go: one of its fields, the zero value keeps the
// recorded times.
type Pace struct {
	Multiplier float64 // times as fast as recorded
	PPS        float64 // packets/s
	Mbps       float64 // 10^6 bits/s of frames, without preamble and checksum
	Top        bool    // as fast as it goes
	Loops      int     // 0 = 1
}

// Check refuses two rates at once, as tcpreplay does.
func (p *Pace) Check() error {
	n := 0
	for _, v := range []float64{p.Multiplier, p.PPS, p.Mbps} {
		if v != 0 {
			n++
		}
		if !(v >= 0 && v <= 1e9) {
			return fmt.Errorf("%v is no speed", v)
		}
	}
	if p.Top {
		n++
	}
	if n > 1 {
		return errors.New("--multiplier, --pps, --mbps and --top-speed: one of them")
	}
	if p.Loops < 0 || p.Loops > 1e9 {
		return errors.New("--loop: want 1 or more")
	}
	return nil
}

// clock gives the moment at which each packet of each loop is due, ns after the
// beginning; all from one epoch, so that no error adds up.
type clock struct {
	pace  Pace
	at    []int64
	cycle float64 // ns that a loop takes in the recording: its span and a mean gap
	n     int64
	bits  float64
}

func (p *Packets) clock(pace Pace) clock {
	c := clock{pace: pace, at: p.At}
	if n := len(p.At); n > 1 {
		c.cycle = float64(p.At[n-1]) * float64(n) / float64(n-1)
	}
	return c
}

// next is the moment of packet i of a loop, of so many bytes.
func (c *clock) next(loop, i, size int) (due int64) {
	switch {
	case c.pace.Top:
	case c.pace.PPS > 0:
		due = int64(float64(c.n) * 1e9 / c.pace.PPS)
	case c.pace.Mbps > 0:
		due = int64(c.bits * 1e3 / c.pace.Mbps)
	default:
		due = int64((float64(loop)*c.cycle + float64(c.at[i])) / max(c.pace.Multiplier, 1e-9))
		if c.pace.Multiplier == 0 {
			due = int64(float64(loop)*c.cycle) + c.at[i]
		}
	}
	c.n++
	c.bits += 8 * float64(size)
	return due
}

// PacketPlan is what a pace makes of packets.
type PacketPlan struct {
	Packets, Bytes int64
	Duration       time.Duration
	Peak           int64 // packets in its busiest second, 0 = top speed
}

// Plan goes through the times without sending.
func (p *Packets) Plan(pace Pace) (plan PacketPlan) {
	loops := max(pace.Loops, 1)
	plan.Packets, plan.Bytes = int64(loops)*int64(len(p.frames)), int64(loops)*p.Bytes
	if pace.Top {
		return plan
	}
	c := p.clock(pace)
	last, n, second := int64(0), int64(0), int64(-1)
	for loop := range loops {
		for i, f := range p.frames {
			last = c.next(loop, i, len(f))
			if s := last / 1e9; s != second {
				second, n = s, 0
			}
			n++
			plan.Peak = max(plan.Peak, n)
		}
		if loop > 0 && loop < loops-1 && c.n > planMost { // the others are like these
			c.n, c.bits = int64(loops-1)*int64(len(p.frames)), 8*float64(loops-1)*float64(p.Bytes)
			for i, f := range p.frames {
				last = c.next(loops-1, i, len(f))
			}
			break
		}
	}
	plan.Duration = time.Duration(last)
	return plan
}

// Within refuses a plan that the caps do not allow.
func (p *PacketPlan) Within(caps Caps) error {
	caps = caps.withDefaults()
	switch {
	case float64(p.Peak) > caps.MaxRate:
		return refuse("%d packets in a second; the cap is --max-rate %g", p.Peak, caps.MaxRate)
	case p.Bytes > caps.MaxBytes:
		return refuse("%d bytes; the cap is --max-bytes %d", p.Bytes, caps.MaxBytes)
	case p.Duration > caps.MaxDuration:
		return refuse("%v; the cap is --max-duration %v", p.Duration.Round(time.Second), caps.MaxDuration)
	}
	return nil
}

// WriteTo writes the packets as a capture, each at its moment.
func (p *Packets) WriteTo(ctx context.Context, w *capture.Writer, pace Pace) error {
	c := p.clock(pace)
	for loop := range max(pace.Loops, 1) {
		for i, f := range p.frames {
			x := capture.Packet{Time: p.Begin + c.next(loop, i, len(f)), Data: f, OrigLen: len(f), Link: p.Link}
			if err := w.WritePacket(&x, ""); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// PacketReport is what was sent.
type PacketReport struct {
	Packets   int64         `json:"packets"`
	Bytes     int64         `json:"bytes"`
	Elapsed   time.Duration `json:"elapsed_ns"`  // from the first packet's moment to the last one's sending
	Planned   time.Duration `json:"planned_ns"`  // 0 at top speed
	Lateness  [3]float64    `json:"lateness_us"` // p50, p99, max
	Retried   int64         `json:"queue_full"`  // calls that found the queue of the interface full
	Left      int64         `json:"unsent"`
	Why       string        `json:"stopped_by,omitempty"`
	histogram *hdrhistogram.Histogram
}

// Text is the report in words.
func (r *PacketReport) Text() string {
	var b strings.Builder
	rate := float64(r.Packets) / max(r.Elapsed.Seconds(), 1e-9)
	fmt.Fprintf(&b, "sent        %d packets, %d bytes in %v: %.0f packets/s, %.1f Mbit/s\n", r.Packets, r.Bytes, r.Elapsed.Round(time.Microsecond),
		rate, float64(r.Bytes)*8/1e6/max(r.Elapsed.Seconds(), 1e-9))
	if r.Planned > 0 {
		fmt.Fprintf(&b, "timing      planned %v, off by %+.3f %%; lateness p50 %.0f us, p99 %.0f us, most %.0f us\n", r.Planned.Round(time.Microsecond),
			100*(r.Elapsed.Seconds()/r.Planned.Seconds()-1), r.Lateness[0], r.Lateness[1], r.Lateness[2])
		if why := r.Invalid(); why != "" {
			fmt.Fprintf(&b, "INVALID     %s\n", why)
		}
	}
	if r.Retried > 0 {
		fmt.Fprintf(&b, "queue full  %d times, waited and sent again\n", r.Retried)
	}
	if r.Left > 0 {
		fmt.Fprintf(&b, "not sent    %d packets: %s\n", r.Left, r.Why)
	}
	return b.String()
}

// Invalid says why the run may not be believed (storms.md section 4.4), "" =
// it may.
func (r *PacketReport) Invalid() string {
	switch {
	case r.Planned == 0:
		return ""
	case r.Lateness[1] > 5000:
		return fmt.Sprintf("lateness p99 %.1f ms; more than 5 ms", r.Lateness[1]/1e3)
	case r.Left == 0 && r.Planned >= time.Second && abs(r.Elapsed-r.Planned) > r.Planned/1000:
		return fmt.Sprintf("took %v instead of %v; more than 0.1 %% off", r.Elapsed, r.Planned)
	}
	return ""
}

func abs(d time.Duration) time.Duration { return max(d, -d) }

func (r *PacketReport) finish() {
	for i, q := range []float64{50, 99, 100} {
		r.Lateness[i] = float64(r.histogram.ValueAtQuantile(q))
	}
}

// Summary is the packets and their plan in words.
func (p *Packets) Summary(pace Pace) string {
	var b strings.Builder
	plan := p.Plan(pace)
	fmt.Fprintf(&b, "mode        packet\npackets     %d of %d read, %d bytes, addresses rewritten %d\n", plan.Packets, p.Read, plan.Bytes, p.Moved)
	if pace.Top {
		fmt.Fprintf(&b, "speed       top\n")
	} else {
		fmt.Fprintf(&b, "duration    %v, at most %d packets in a second\n", plan.Duration.Round(time.Microsecond), plan.Peak)
	}
	to := slices.SortedFunc(maps.Keys(p.To), func(x, y netip.Addr) int { return cmp.Or(cmp.Compare(p.To[y], p.To[x]), x.Compare(y)) })
	for i, a := range to {
		if i == 8 {
			fmt.Fprintf(&b, "            and %d more\n", len(to)-i)
			break
		}
		fmt.Fprintf(&b, "to          %v  %d\n", a, p.To[a])
	}
	fmt.Fprintf(&b, "residual    %d packets name a recorded address in their payload", p.Residual)
	if p.Residual > 0 {
		fmt.Fprintf(&b, ", the first is frame %d", p.ResidualAt)
	}
	b.WriteString("\n")
	for _, why := range p.reasons() {
		fmt.Fprintf(&b, "left out    %d  %s\n", p.LeftOut[why], why)
	}
	fmt.Fprintf(&b, "plan        sha256 %s\n", p.Hash())
	return b.String()
}

// reasons are those for which packets are left out, the most frequent first.
func (p *Packets) reasons() []string {
	return slices.SortedFunc(maps.Keys(p.LeftOut), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.LeftOut[b], p.LeftOut[a]), cmp.Compare(a, b))
	})
}

// AddressesOf is every address in the headers of a capture, quoted and
// tunnelled ones included; multicast and broadcast aside. Packets that cannot
// be followed to their end give what was found until there.
func AddressesOf(src capture.Source) ([]netip.Addr, error) {
	seen := map[dissect.Addr]bool{}
	var failed error
	r := headers.Rewriter{Map: func(e dissect.Endpoint) dissect.Endpoint {
		if !seen[e.Addr] {
			if len(seen) >= addressesMost {
				failed = fmt.Errorf("more than %d addresses", addressesMost)
			} else {
				seen[e.Addr] = true
			}
		}
		return e
	}}
	var scratch []byte
	if err := capture.Each(context.Background(), src, func(b *capture.Batch) error {
		for i := range b.Packets {
			p := &b.Packets[i]
			scratch = append(scratch[:0], p.Data...)
			r.Rewrite(p.Link, scratch) // what it says of opaque packets is said when they are loaded
		}
		return failed
	}); err != nil {
		return nil, err
	}
	list := make([]netip.Addr, 0, len(seen))
	for a := range seen {
		list = append(list, a.IP())
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list, nil
}

// Filtered keeps the packets that a filter takes.
func Filtered(src capture.Source, expr capture.Expr) capture.Source { return &filtered{src, expr} }

type filtered struct {
	capture.Source
	expr capture.Expr
}

func (f *filtered) Next() (*capture.Batch, error) {
	b, err := f.Source.Next()
	if err == nil {
		b.Packets = slices.DeleteFunc(b.Packets, func(p capture.Packet) bool { return !headers.Match(f.expr, &p) })
	}
	return b, err
}
