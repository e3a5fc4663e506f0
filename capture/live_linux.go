package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// liveBlock is one block of a TPACKET_V3 ring; a packet lies in one, so it is
	// larger than any snapshot length.
	liveBlock   = 1 << 20
	liveBuffer  = 32 << 20
	liveSnaplen = 262144
	liveWake    = 50 * time.Millisecond
	// liveReserve is room before each packet: for a VLAN tag, or a cooked header.
	liveReserve = 32
	// idleTurn is how often a waiting socket looks whether it is to end.
	idleTurn = 100 * time.Millisecond
	// maxFanout bounds the sockets of an interface.
	maxFanout = 64

	sll2Header = 20
)

// Live captures packets on interfaces, as a Source that ends when it is closed
// or when every interface is gone. Data of its packets lie in memory that the
// kernel shares: a batch that is not released keeps the kernel from using its
// block. Next returns an empty batch from time to time when nothing comes.
type Live struct {
	opt   LiveOptions
	taps  []*liveTap
	socks []*liveSocket
	stop  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
	held  [][]*Batch // by socket, when there are several
	at    []int
	gone  []bool
	from  []chan *Batch
	timer *time.Timer
}

// liveTap is an interface, an input of the Source.
type liveTap struct {
	LiveInterface
	file     uint32
	began    int64
	counters *os.File // /proc/net/dev
	lost0    int64
	mu       sync.Mutex
	stats    FileStats
	last     int64
	adapter  int64 // packets with a time of the adapter
	seen     int64 // packets of the kernel, drops among them
	dropped  int64
	skipped  int64 // second sightings on the loopback interface
}

// liveSocket is one packet socket with its ring.
type liveSocket struct {
	tap    *liveTap
	fd     int
	nth    int
	index  int // of the interface, which may come back as another
	ring   []byte
	blocks int
	next   int
	lent   []atomic.Bool // blocks whose batch is not released yet
	filter []unix.SockFilter
}

// kinds are the link types of interfaces: linux/if_arp.h. What is not here is
// captured cooked.
var kinds = map[uint16]struct {
	link LinkType
	name string
}{
	unix.ARPHRD_ETHER:    {LinkEthernet, "ethernet"},
	unix.ARPHRD_LOOPBACK: {LinkEthernet, "loopback"},
	unix.ARPHRD_NONE:     {LinkRaw, "tun or wireguard"},
	unix.ARPHRD_RAWIP:    {LinkRaw, "raw ip"},
	unix.ARPHRD_TUNNEL:   {LinkRaw, "ipip tunnel"},
	unix.ARPHRD_TUNNEL6:  {LinkRaw, "ip6 tunnel"},
	unix.ARPHRD_SIT:      {LinkRaw, "sit tunnel"},
}

// Interfaces lists the interfaces of this network namespace, and "any".
func Interfaces() ([]LiveInterface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var list []LiveInterface
	for _, i := range all {
		l, err := describe(fd, i.Name)
		if err != nil {
			continue // it went while we looked
		}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			l.Addrs = append(l.Addrs, a.String())
		}
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b LiveInterface) int { return a.Index - b.Index })
	return append(list, anyInterface), nil
}

var anyInterface = LiveInterface{Name: "any", Link: LinkLinuxSLL2, Kind: "all interfaces, cooked", Up: true}

func describe(fd int, name string) (l LiveInterface, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return l, fmt.Errorf("%q is no name of an interface", name)
	}
	l.Name = name
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return l, fmt.Errorf("%s: no such interface; squall capture -D lists them", name)
	}
	l.Index = int(ifr.Uint32())
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	l.Up = ifr.Uint16()&unix.IFF_UP != 0
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, ifr); err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	hardware := ifr.Uint16()
	l.Link, l.Kind = LinkLinuxSLL2, "hardware type "+strconv.Itoa(int(hardware))+", cooked"
	if k, ok := kinds[hardware]; ok {
		l.Link, l.Kind = k.link, k.name
	}
	if b, err := os.ReadFile("/sys/class/net/" + name + "/uevent"); err == nil {
		kind, same := "", false
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if key == "DEVTYPE" {
				kind = value
			}
			same = same || key == "IFINDEX" && value == strconv.Itoa(l.Index) // /sys may be that of another namespace
		}
		if same && kind != "" {
			l.Kind = kind
		}
	}
	return l, nil
}

// OpenLive begins to capture. It needs CAP_NET_RAW, nothing else, and only for
// this call.
func OpenLive(opt LiveOptions) (*Live, error) {
	if len(opt.Interfaces) == 0 {
		return nil, errors.New("no interface was named; squall capture -D lists them")
	}
	if opt.Snaplen <= 0 || opt.Snaplen > liveSnaplen {
		opt.Snaplen = liveSnaplen
	}
	if opt.Buffer <= 0 {
		opt.Buffer = liveBuffer
	}
	if opt.Wake <= 0 {
		opt.Wake = liveWake
	}
	opt.Fanout = min(max(opt.Fanout, 1), maxFanout)
	l := &Live{opt: opt, stop: make(chan struct{})}
	for i, name := range opt.Interfaces {
		if slices.Contains(opt.Interfaces[:i], name) {
			l.release()
			return nil, fmt.Errorf("%s: named twice", name)
		}
		if err := l.open(name); err != nil {
			l.release()
			return nil, err
		}
	}
	l.timer = time.NewTimer(idleTurn)
	for i, s := range l.socks {
		c := make(chan *Batch, s.blocks)
		l.from = append(l.from, c)
		l.held = append(l.held, nil)
		l.at = append(l.at, 0)
		l.gone = append(l.gone, false)
		l.wg.Add(1)
		go l.run(i, s, c)
	}
	return l, nil
}

func (l *Live) say(format string, args ...any) {
	if l.opt.Say != nil {
		l.opt.Say(format, args...)
	}
}

// open adds an interface with its sockets. Nothing is received before the
// filter is in place: a socket of protocol 0 is deaf until it is bound.
func (l *Live) open(name string) error {
	t := &liveTap{LiveInterface: anyInterface, lost0: -1, file: uint32(len(l.taps)), began: time.Now().UnixNano()}
	l.taps = append(l.taps, t)
	group := 0
	for n := range l.opt.Fanout {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			if errors.Is(err, unix.EPERM) {
				return fmt.Errorf("%s: capturing needs the capability CAP_NET_RAW: run as root, or once: setcap cap_net_raw+ep $(command -v squall)", name)
			}
			return fmt.Errorf("%s: packet socket: %w", name, err)
		}
		if n == 0 && name != "any" {
			if t.LiveInterface, err = describe(fd, name); err != nil {
				unix.Close(fd)
				return err
			}
			t.counters, _ = os.Open("/proc/self/net/dev") // without it less is known
			t.lost0 = t.lost()
		}
		if t.Link == LinkLinuxSLL2 { // cooked: the kernel keeps the link header
			unix.Close(fd)
			if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return fmt.Errorf("%s: packet socket: %w", name, err)
			}
		}
		s := &liveSocket{tap: t, fd: fd, nth: n, index: t.Index, blocks: max(l.opt.Buffer/liveBlock, 2)}
		s.lent = make([]atomic.Bool, s.blocks)
		l.socks = append(l.socks, s)
		if err := s.prepare(&l.opt); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := s.bind(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if l.opt.Fanout > 1 {
			mode := unix.PACKET_FANOUT_HASH | unix.PACKET_FANOUT_FLAG_ROLLOVER
			if n == 0 {
				mode |= unix.PACKET_FANOUT_FLAG_UNIQUEID
			}
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group|mode<<16); err != nil {
				return fmt.Errorf("%s: fanout: %w", name, err)
			}
			if n == 0 {
				v, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
				if err != nil {
					return fmt.Errorf("%s: fanout: %w", name, err)
				}
				group = v & 0xffff
			}
		}
	}
	t.stats = FileStats{Path: name, Format: "live", LinkTypes: []LinkType{t.Link}, Snaplen: int64(l.opt.Snaplen)}
	if !t.Up {
		l.say("%s is down; its packets are captured once it is up", name)
	}
	return nil
}

// lost is what the interface dropped since it exists, -1 = not known. The file
// is that of this network namespace, whatever /sys shows.
func (t *liveTap) lost() int64 {
	if t.counters == nil {
		return -1
	}
	b := make([]byte, 64<<10)
	n, _ := t.counters.ReadAt(b, 0)
	for line := range strings.Lines(string(b[:n])) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); strings.TrimSpace(name) == t.Name && len(f) > 3 {
			if v, err := strconv.ParseInt(f[3], 10, 64); err == nil { // receive: bytes, packets, errors, dropped
				return v
			}
		}
	}
	return -1
}

func (s *liveSocket) prepare(opt *LiveOptions) error {
	program, err := compileLive(opt.Filter, s.tap.Link)
	if err != nil {
		return err
	}
	_, foreign := opt.Filter.(*FilterProgram)
	for _, c := range program.Code {
		if c.Op == opReturn && c.K == passAll && !foreign {
			c.K = uint32(opt.Snaplen)
		}
		s.filter = append(s.filter, unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K})
	}
	prog := unix.SockFprog{Len: uint16(len(s.filter)), Filter: &s.filter[0]}
	if err := unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("the kernel does not take the filter, of %d instructions: %w", len(s.filter), err)
	}
	set := func(what string, opt, v int) {
		if err == nil {
			if err = unix.SetsockoptInt(s.fd, unix.SOL_PACKET, opt, v); err != nil {
				err = fmt.Errorf("%s: %w", what, err)
			}
		}
	}
	set("TPACKET_V3", unix.PACKET_VERSION, unix.TPACKET_V3)
	set("room for tags", unix.PACKET_RESERVE, liveReserve)
	if opt.AdapterTime {
		set("time of the adapter", unix.PACKET_TIMESTAMP, unix.SOF_TIMESTAMPING_RAW_HARDWARE)
		if s.nth == 0 && s.tap.Index > 0 {
			s.askAdapter(opt)
		}
	}
	if err != nil {
		return err
	}
	const frame = 1 << 11 // what TPACKET_V3 makes of it is a unit of account
	req := unix.TpacketReq3{Block_size: liveBlock, Block_nr: uint32(s.blocks), Frame_size: frame, Frame_nr: uint32(s.blocks * (liveBlock / frame)),
		Retire_blk_tov: uint32(max(opt.Wake.Milliseconds(), 1))}
	if err := unix.SetsockoptTpacketReq3(s.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("a ring of %d MiB: %w", s.blocks*liveBlock>>20, err)
	}
	if s.ring, err = unix.Mmap(s.fd, 0, s.blocks*liveBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("a ring of %d MiB: %w", s.blocks*liveBlock>>20, err)
	}
	if opt.Promiscuous && s.tap.Index > 0 {
		m := unix.PacketMreq{Ifindex: int32(s.tap.Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(s.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return fmt.Errorf("promiscuous mode: %w", err)
		}
	}
	return nil
}

// askAdapter turns on the timing of all packets, which takes CAP_NET_ADMIN;
// where PTP runs it is on already.
func (s *liveSocket) askAdapter(opt *LiveOptions) {
	say := func(format string, args ...any) {
		if opt.Say != nil {
			opt.Say(format, args...)
		}
	}
	info, err := unix.IoctlGetEthtoolTsInfo(s.fd, s.tap.Name)
	if err != nil || info.So_timestamping&unix.SOF_TIMESTAMPING_RAW_HARDWARE == 0 {
		say("%s: the adapter gives no times; those of the kernel are used", s.tap.Name)
		return
	}
	cfg := unix.HwTstampConfig{Rx_filter: unix.HWTSTAMP_FILTER_ALL}
	if err := unix.IoctlSetHwTstamp(s.fd, s.tap.Name, &cfg); err != nil {
		say("%s: the adapter's timing was not turned on (%v); packets that have its time anyway keep it", s.tap.Name, err)
	}
}

func (s *liveSocket) bind() error {
	proto := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: s.index})
}

// at is a pointer into the ring.
func (s *liveSocket) at(off int) unsafe.Pointer { return unsafe.Pointer(&s.ring[off]) }

// head is that of a block.
func (s *liveSocket) head(block int) *unix.TpacketHdrV1 {
	desc := (*unix.TpacketBlockDesc)(s.at(block * liveBlock))
	return (*unix.TpacketHdrV1)(unsafe.Pointer(&desc.Hdr[0]))
}

// ready reports that the kernel has handed over the next block. Once all are lent, the
// next one is the first again: it still says that it is the user's, and its packets
// were taken.
func (s *liveSocket) ready() bool {
	return !s.lent[s.next].Load() && atomic.LoadUint32(&s.head(s.next).Block_status)&unix.TP_STATUS_USER != 0
}

// run takes block after block as the kernel hands them over.
func (l *Live) run(n int, s *liveSocket, out chan<- *Batch) {
	defer l.wg.Done()
	defer close(out)
	pool := sync.Pool{New: func() any { p := make([]Packet, 0, 4096); return &p }}
	down := false
	var until time.Time // of the last look for packets, once it is to end
	for {
		select {
		case <-l.stop:
			if until.IsZero() {
				s.deafen()
				until = time.Now().Add(l.opt.Wake + idleTurn)
			}
		default:
		}
		if !s.ready() {
			if !until.IsZero() && time.Now().After(until) || !l.wait(s, &down) {
				return
			}
			continue
		}
		head, lent := s.head(s.next), &s.lent[s.next]
		packets := pool.Get().(*[]Packet)
		*packets = s.block(s.next*liveBlock, head, (*packets)[:0])
		s.next = (s.next + 1) % s.blocks
		lent.Store(true)
		b := NewBatch(*packets, func() {
			atomic.StoreUint32(&head.Block_status, unix.TP_STATUS_KERNEL)
			lent.Store(false)
			pool.Put(packets)
		})
		out <- b // there is room for all blocks
	}
}

// deafen lets no further packet in; the ones that are counted come still.
func (s *liveSocket) deafen() {
	none := unix.SockFilter{Code: opReturn}
	unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none})
}

// wait sleeps until there is something. An interface that goes down comes up
// again, perhaps as another one of the same name; false when it stays away.
func (l *Live) wait(s *liveSocket, down *bool) bool {
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN | unix.POLLERR}}
	if _, err := unix.Poll(fds, int(idleTurn.Milliseconds())); err != nil && err != unix.EINTR {
		l.say("%s: %v", s.tap.Name, err)
		return false
	}
	if fds[0].Revents&unix.POLLIN != 0 {
		// The kernel says so as long as the block before is not back, too, which
		// would make this a busy loop while a consumer works.
		if !s.ready() {
			time.Sleep(time.Millisecond)
		}
	}
	if fds[0].Revents&unix.POLLERR != 0 {
		if v, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && v == int(unix.ENETDOWN) && !*down {
			*down = true
			if s.nth == 0 {
				l.say("%s went down", s.tap.Name)
			}
		}
	}
	if !*down || s.index == 0 {
		return true
	}
	now, err := describe(s.fd, s.tap.Name)
	switch {
	case err != nil || !now.Up:
	case now.Index == s.index:
		*down = false
		if s.nth == 0 {
			l.say("%s is up again", s.tap.Name)
		}
	case now.Link != s.tap.Link:
		l.say("%s is back as another kind of interface (%s)", s.tap.Name, now.Kind)
		return false
	default:
		s.index = now.Index
		if err := s.bind(); err != nil {
			l.say("%s is back and cannot be listened to: %v", s.tap.Name, err)
			return false
		}
		*down = false
		if s.nth == 0 {
			l.say("%s is back, as interface %d", s.tap.Name, now.Index)
		}
	}
	return true
}

// block makes packets of what the kernel wrote into a block.
func (s *liveSocket) block(off int, head *unix.TpacketHdrV1, packets []Packet) []Packet {
	t := s.tap
	t.mu.Lock()
	defer t.mu.Unlock()
	at := off + int(head.Offset_to_first_pkt)
	for range head.Num_pkts {
		h := (*unix.Tpacket3Hdr)(s.at(at))
		from := (*unix.RawSockaddrLinklayer)(s.at(at + (unix.SizeofTpacket3Hdr+15)&^15))
		mac, n := at+int(h.Mac), int(h.Snaplen)
		at += int(h.Next_offset)
		if from.Pkttype == unix.PACKET_OUTGOING && from.Hatype == unix.ARPHRD_LOOPBACK {
			t.skipped++ // it comes in a moment later
			continue
		}
		tpid := uint16(0)
		if h.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			if tpid = etherVLAN; h.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
				tpid = h.Hv1.Vlan_tpid
			}
		}
		grown := 0
		switch {
		case t.Link == LinkLinuxSLL2:
			grown = s.cook(mac, from, tpid, uint16(h.Hv1.Vlan_tci))
		case tpid != 0 && t.Link == LinkEthernet && n >= 12:
			b := s.ring[mac-4:]
			copy(b, b[4:16])
			binary.BigEndian.PutUint16(b[12:], tpid)
			binary.BigEndian.PutUint16(b[14:], uint16(h.Hv1.Vlan_tci))
			grown = 4
		}
		b := s.ring[mac-grown : mac+n : mac+n]
		if len(b) > int(t.stats.Snaplen) {
			b = b[:t.stats.Snaplen:t.stats.Snaplen]
		}
		if h.Status&unix.TP_STATUS_TS_RAW_HARDWARE != 0 {
			t.adapter++
		}
		p := Packet{Time: int64(h.Sec)*1e9 + int64(h.Nsec), Data: b, OrigLen: int(h.Len) + grown, Link: t.Link, File: t.file,
			Frame: t.stats.Packets + 1, Flags: flagsOf[from.Pkttype&7]}
		if p.Time-t.last > strayFar && h.Status&unix.TP_STATUS_TS_RAW_HARDWARE == 0 {
			t.stats.straighten(&p, time.Now().UnixNano())
		}
		t.stats.count(&p, t.last)
		t.last = p.Time
		packets = append(packets, p)
	}
	return packets
}

// flagsOf says what kinds of packets of linux/if_packet.h are in pcapng.
var flagsOf = [8]uint32{
	unix.PACKET_HOST:      FlagInbound | FlagUnicast,
	unix.PACKET_BROADCAST: FlagInbound | FlagBroadcast,
	unix.PACKET_MULTICAST: FlagInbound | FlagMulticast,
	unix.PACKET_OTHERHOST: FlagInbound | FlagPromiscuous,
	unix.PACKET_OUTGOING:  FlagOutbound,
}

// cook writes the header of LINKTYPE_LINUX_SLL2 before a packet, and a tag
// between the two, as it would lie there.
func (s *liveSocket) cook(at int, from *unix.RawSockaddrLinklayer, tpid, tci uint16) (n int) {
	n = sll2Header
	proto := s.proto(from)
	if tpid != 0 {
		n += 4
		binary.BigEndian.PutUint16(s.ring[at-4:], tci)
		binary.BigEndian.PutUint16(s.ring[at-2:], proto)
		proto = tpid
	}
	var addr [8]byte // the sockaddr lies where the header may come to lie
	copy(addr[:], from.Addr[:min(int(from.Halen), 8)])
	index, hatype, kind, halen := from.Ifindex, from.Hatype, from.Pkttype, from.Halen
	b := s.ring[at-n : at-n+sll2Header]
	binary.BigEndian.PutUint16(b, proto)
	b[2], b[3] = 0, 0
	binary.BigEndian.PutUint32(b[4:], uint32(index))
	binary.BigEndian.PutUint16(b[8:], hatype)
	b[10], b[11] = kind, halen
	copy(b[12:], addr[:])
	return n
}

func (s *liveSocket) proto(from *unix.RawSockaddrLinklayer) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], from.Protocol)
	return binary.BigEndian.Uint16(b[:])
}

// Next returns the next packets. Those of several sockets are put in order of
// time, for which they are held back until no earlier one can come.
func (l *Live) Next() (*Batch, error) {
	if len(l.from) == 1 {
		l.timer.Reset(idleTurn)
		select {
		case b, ok := <-l.from[0]:
			if !ok {
				return nil, io.EOF
			}
			return b, nil
		case <-l.timer.C:
			return NewBatch(nil, nil), nil
		}
	}
	for turn := 0; ; turn++ {
		open := false
		for i, c := range l.from {
			for more := !l.gone[i]; more; {
				select {
				case b, ok := <-c:
					switch {
					case !ok:
						l.gone[i], more = true, false
					case len(b.Packets) == 0:
						b.Release()
					default:
						l.held[i] = append(l.held[i], b)
					}
				default:
					more = false
				}
			}
			open = open || !l.gone[i] || len(l.held[i]) > 0
		}
		if !open {
			return nil, io.EOF
		}
		if b := l.merge(); b != nil {
			return b, nil
		}
		if turn > 10 {
			return NewBatch(nil, nil), nil
		}
		select {
		case <-l.stop:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// merge gives what is old enough, and more when the kernel runs out of room.
func (l *Live) merge() *Batch {
	now := time.Now()
	until := now.Add(-2*l.opt.Wake - 20*time.Millisecond).UnixNano()
	// What is of a later time than there is will not be overtaken by waiting: the clock
	// was set back, or the adapter's is ahead (of PTP it is 37 s, TAI for UTC).
	ahead := now.Add(time.Second).UnixNano()
	over := true
	for i, list := range l.held {
		over = over && l.gone[i]
		if len(list) > l.socks[i].blocks/2 {
			b := list[len(list)/2]
			until = max(until, b.Packets[len(b.Packets)-1].Time)
		}
	}
	if over {
		until = 1<<63 - 1
	}
	packets := make([]Packet, 0, mergeBatch)
	var used []*Batch
	for len(packets) < mergeBatch {
		best := -1
		var first int64
		for i, list := range l.held {
			if len(list) == 0 {
				continue
			}
			if t := list[0].Packets[l.at[i]].Time; best < 0 || t < first {
				best, first = i, t
			}
		}
		if best < 0 || first > until && first < ahead {
			break
		}
		b := l.held[best][0]
		packets = append(packets, b.Packets[l.at[best]])
		if l.at[best]++; l.at[best] == len(b.Packets) {
			used = append(used, b)
			l.held[best], l.at[best] = l.held[best][1:], 0
		}
	}
	if len(packets) == 0 {
		return nil
	}
	for i, list := range l.held {
		if l.at[i] > 0 {
			list[0].Retain(1)
			used = append(used, list[0])
		}
	}
	return NewBatch(packets, func() {
		for _, b := range used {
			b.Release()
		}
	})
}

// Taps describes the interfaces, by Packet.File.
func (l *Live) Taps() []LiveInterface {
	var all []LiveInterface
	for _, t := range l.taps {
		all = append(all, t.LiveInterface)
	}
	return all
}

// AdapterTimes is how many packets have the time of an adapter.
func (l *Live) AdapterTimes() (n int64) {
	for _, t := range l.taps {
		t.mu.Lock()
		n += t.adapter
		t.mu.Unlock()
	}
	return n
}

// Files describes the interfaces as inputs.
func (l *Live) Files() []FileStats {
	statistics := l.Statistics()
	var all []FileStats
	for i, t := range l.taps {
		t.mu.Lock()
		s := t.stats
		t.mu.Unlock()
		s.LinkTypes = slices.Clone(s.LinkTypes)
		s.Drops, s.Ended = statistics[i].OSDropped+max(statistics[i].IfDropped, 0), statistics[i].End
		all = append(all, s)
	}
	return all
}

// Statistics gives the counters of each interface. A packet on the loopback
// interface counts once.
func (l *Live) Statistics() []InterfaceStatistics {
	for _, s := range l.socks {
		s.tap.mu.Lock()
		if s.fd >= 0 { // reading sets the kernel's counters back
			if v, err := unix.GetsockoptTpacketStatsV3(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
				s.tap.seen += int64(v.Packets)
				s.tap.dropped += int64(v.Drops)
			}
		}
		s.tap.mu.Unlock()
	}
	var all []InterfaceStatistics
	for _, t := range l.taps {
		t.mu.Lock()
		s := InterfaceStatistics{File: t.file, Start: t.began, End: time.Now().UnixNano(), Received: -1, IfDropped: -1,
			Accepted: t.seen - t.skipped, OSDropped: t.dropped, Delivered: t.stats.Packets}
		if t.lost0 >= 0 {
			if n := t.lost(); n >= t.lost0 {
				s.IfDropped = n - t.lost0
			}
		}
		if l.opt.Filter == nil {
			s.Received = s.Accepted
		}
		t.mu.Unlock()
		all = append(all, s)
	}
	return all
}

// Stop ends the receiving; Next still gives what was received, then io.EOF.
func (l *Live) Stop() { l.once.Do(func() { close(l.stop) }) }

// Close ends the capture. All batches must be released before.
func (l *Live) Close() error {
	l.Stop()
	l.wg.Wait()
	for i, c := range l.from {
		for b := range c {
			b.Release()
		}
		for _, b := range l.held[i] {
			b.Release()
		}
		l.held[i] = nil
	}
	l.release()
	return nil
}

func (l *Live) release() {
	for _, s := range l.socks {
		s.tap.mu.Lock()
		if s.fd >= 0 {
			if s.ring != nil {
				unix.Munmap(s.ring)
			}
			unix.Close(s.fd)
			s.fd = -1
		}
		s.tap.mu.Unlock()
	}
	for _, t := range l.taps {
		t.mu.Lock()
		if t.counters != nil {
			t.counters.Close()
		}
		t.counters, t.lost0 = nil, -1
		t.mu.Unlock()
	}
}
