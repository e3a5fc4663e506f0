package replay

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mux lets many clients, each with an address of its own, share a few UDP
// sockets: the source address of a datagram goes with it to the system
// (IP_PKTINFO), and the one that an answer came to comes back the same way. A
// socket for every attempt costs more than the attempt; here they are sent and
// received many at a time (sendmmsg, recvmmsg). IPv4.
//
// Errors of the network come back by the socket's error queue, with the
// address of the client they are for.
type mux struct {
	socks []*muxSocket
	wg    sync.WaitGroup
}

const (
	muxBatch  = 64
	muxRoom   = 2048 // bytes of a datagram that are received
	muxBuffer = 4 << 20
	// pktinfoLen is the size of struct in_pktinfo.
	pktinfoLen = 12
)

type muxSocket struct {
	c    *net.UDPConn
	raw  syscall.RawConn
	port uint16

	sendMu  sync.Mutex
	sending bool
	queue   muxQueue
	spare   muxQueue
	heads   [muxBatch]mmsghdr
	iovs    [muxBatch]unix.Iovec
	names   [muxBatch]unix.RawSockaddrInet4
	ctrl    [muxBatch][32]byte

	connMu sync.RWMutex
	conns  map[[4]byte]*muxConn
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// muxQueue are datagrams that wait to be sent.
type muxQueue struct {
	bytes []byte
	list  []muxOut
}

type muxOut struct {
	from, to int // in bytes
	src, dst [4]byte
	port     uint16
}

// newMux opens the sockets. On loopback nothing from elsewhere reaches them.
func newMux(count int, loopback bool) (*mux, error) {
	m := &mux{}
	for range count {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			if e := c.Control(func(fd uintptr) {
				err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1), unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1),
					unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0))
				if loopback {
					err = errors.Join(err, unix.BindToDevice(int(fd), "lo"))
				}
			}); e != nil {
				return e
			}
			return err
		}}
		pc, err := lc.ListenPacket(context.Background(), "udp4", "0.0.0.0:0")
		if err != nil {
			m.close()
			return nil, err
		}
		c := pc.(*net.UDPConn)
		c.SetReadBuffer(muxBuffer) // as much as the system allows
		c.SetWriteBuffer(muxBuffer)
		raw, err := c.SyscallConn()
		if err != nil {
			c.Close()
			m.close()
			return nil, err
		}
		s := &muxSocket{c: c, raw: raw, port: c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), conns: map[[4]byte]*muxConn{}}
		m.socks = append(m.socks, s)
		m.wg.Add(1)
		go func() {
			defer m.wg.Done()
			s.receive()
		}()
	}
	return m, nil
}

// close ends the sockets and their readers.
func (m *mux) close() {
	for _, s := range m.socks {
		s.c.Close()
	}
	m.wg.Wait()
}

// dial gives a client a conversation with a node over the n-th socket. An
// older one of the same client over the same socket hears nothing more.
func (m *mux) dial(n int, from netip.Addr, to netip.AddrPort) *muxConn {
	s := m.socks[n%len(m.socks)]
	c := &muxConn{s: s, src: from.As4(), dst: to.Addr().As4(), port: to.Port(), ready: make(chan struct{}, 1)}
	s.connMu.Lock()
	s.conns[c.src] = c
	s.connMu.Unlock()
	return c
}

func (s *muxSocket) find(client [4]byte) *muxConn {
	s.connMu.RLock()
	c := s.conns[client]
	s.connMu.RUnlock()
	return c
}

// send queues a datagram. Whoever finds nobody sending sends what has gathered
// until nothing is left.
func (s *muxSocket) send(c *muxConn, b []byte) {
	s.sendMu.Lock()
	q := &s.queue
	at := len(q.bytes)
	q.bytes = append(q.bytes, b...)
	q.list = append(q.list, muxOut{at, at + len(b), c.src, c.dst, c.port})
	if s.sending {
		s.sendMu.Unlock()
		return
	}
	s.sending = true
	for len(s.queue.list) > 0 {
		s.queue, s.spare = s.spare, s.queue
		s.queue.bytes, s.queue.list = s.queue.bytes[:0], s.queue.list[:0]
		s.sendMu.Unlock()
		s.flush(&s.spare)
		s.sendMu.Lock()
	}
	s.sending = false
	s.sendMu.Unlock()
}

// flush sends a queue; only one goroutine at a time does.
func (s *muxSocket) flush(q *muxQueue) {
	for list := q.list; len(list) > 0; {
		n := min(len(list), muxBatch)
		for i := range n {
			o := &list[i]
			s.names[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: o.dst}
			binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.names[i].Port))[:], o.port)
			ctrl := s.ctrl[i][:unix.CmsgSpace(pktinfoLen)]
			h := (*unix.Cmsghdr)(unsafe.Pointer(&ctrl[0]))
			h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
			h.SetLen(unix.CmsgLen(pktinfoLen))
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&ctrl[unix.CmsgLen(0)]))
			*info = unix.Inet4Pktinfo{Spec_dst: o.src}
			s.iovs[i].Base = &q.bytes[o.from]
			s.iovs[i].SetLen(o.to - o.from)
			m := &s.heads[i]
			m.hdr = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.names[i])), Namelen: unix.SizeofSockaddrInet4, Iov: &s.iovs[i], Control: &ctrl[0]}
			m.hdr.SetIovlen(1)
			m.hdr.SetControllen(len(ctrl))
		}
		sent := 0
		err := s.raw.Write(func(fd uintptr) bool {
			k, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.heads[0])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				sent = int(k)
			case unix.EAGAIN:
				return false
			case unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH: // of an earlier one; the error queue has it
			default:
				s.fail(&list[0], errno)
				sent = 1
			}
			return true
		})
		if err != nil { // closed: the run is over
			return
		}
		list = list[sent:]
	}
}

// fail tells a client that its datagram could not leave.
func (s *muxSocket) fail(o *muxOut, err error) {
	if c := s.find(o.src); c != nil {
		c.arrive(nil, os.NewSyscallError("sendmmsg", err))
	}
}

// receive hands every answer to its client.
func (s *muxSocket) receive() {
	var (
		heads [muxBatch]mmsghdr
		iovs  [muxBatch]unix.Iovec
		names [muxBatch]unix.RawSockaddrInet4
		ctrl  [muxBatch][64]byte
		bufs  = make([]byte, muxBatch*muxRoom)
	)
	for {
		for i := range heads {
			iovs[i].Base = &bufs[i*muxRoom]
			iovs[i].SetLen(muxRoom)
			heads[i].hdr = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&names[i])), Namelen: unix.SizeofSockaddrInet4, Iov: &iovs[i], Control: &ctrl[i][0]}
			heads[i].hdr.SetIovlen(1)
			heads[i].hdr.SetControllen(len(ctrl[i]))
		}
		got := 0
		err := s.raw.Read(func(fd uintptr) bool {
			k, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&heads[0])), muxBatch, unix.MSG_DONTWAIT, 0, 0)
			switch {
			case errno == 0:
				got = int(k)
				return true
			case errno == unix.EAGAIN:
				return s.errors(int(fd)) > 0
			case errno == unix.EINTR:
				return true
			}
			s.errors(int(fd))
			return true
		})
		if err != nil {
			return
		}
		for i := range got {
			m := &heads[i]
			client, _, ok := readControl(ctrl[i][:min(int(m.hdr.Controllen), len(ctrl[i]))])
			if !ok {
				continue
			}
			if c := s.find(client); c != nil && c.dst == names[i].Addr && c.port == binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&names[i].Port))[:]) {
				c.arrive(bufs[i*muxRoom:i*muxRoom+int(m.len)], nil)
			}
		}
	}
}

// errors empties the error queue and says how many there were.
func (s *muxSocket) errors(fd int) (n int) {
	var ctrl [128]byte
	var buf [64]byte
	for {
		_, k, _, from, err := unix.Recvmsg(fd, buf[:], ctrl[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return n
		}
		n++
		client, errno, ok := readControl(ctrl[:k])
		to, isV4 := from.(*unix.SockaddrInet4) // of the datagram that the error is about
		if !ok || errno == 0 || !isV4 {
			continue
		}
		if c := s.find(client); c != nil && c.dst == to.Addr && int(c.port) == to.Port {
			c.arrive(nil, os.NewSyscallError("recvmsg", errno))
		}
	}
}

// readControl finds the local address, and the error if there is one.
func readControl(b []byte) (local [4]byte, errno syscall.Errno, ok bool) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := int(h.Len)
		if size < unix.CmsgLen(0) || size > len(b) {
			return local, errno, ok
		}
		data := b[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= pktinfoLen:
			copy(local[:], data[8:12]) // ipi_addr: where the packet was going
			ok = true
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_RECVERR && len(data) >= 4:
			errno = syscall.Errno(binary.NativeEndian.Uint32(data))
		}
		b = b[min(unix.CmsgSpace(size-unix.CmsgLen(0)), len(b)):]
	}
	return local, errno, ok
}

// muxConn is a client's conversation with a node: a net.Conn.
type muxConn struct {
	s        *muxSocket
	src, dst [4]byte
	port     uint16

	mu       sync.Mutex
	in       []byte // datagrams, each after its length
	err      error
	deadline time.Time
	closed   bool
	ready    chan struct{}
	timer    *time.Timer
}

// muxWaiting bounds what a client leaves unread.
const muxWaiting = 1 << 16

func (c *muxConn) poke() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func (c *muxConn) arrive(b []byte, err error) {
	c.mu.Lock()
	switch {
	case err != nil:
		c.err = err
	case len(c.in) < muxWaiting:
		c.in = binary.NativeEndian.AppendUint16(c.in, uint16(len(b)))
		c.in = append(c.in, b...)
	}
	c.mu.Unlock()
	c.poke()
}

// Read gives one datagram.
func (c *muxConn) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		var until time.Time
		switch {
		case len(c.in) > 0:
			n := int(binary.NativeEndian.Uint16(c.in))
			k := copy(b, c.in[2:2+n])
			c.in = c.in[:copy(c.in, c.in[2+n:])]
			c.mu.Unlock()
			return k, nil
		case c.err != nil:
			err := c.err
			c.err = nil
			c.mu.Unlock()
			return 0, &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
		case c.closed:
			c.mu.Unlock()
			return 0, net.ErrClosed
		default:
			until = c.deadline
		}
		c.mu.Unlock()
		if until.IsZero() {
			<-c.ready
			continue
		}
		left := time.Until(until)
		if left <= 0 {
			return 0, &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.ErrDeadlineExceeded}
		}
		if c.timer == nil {
			c.timer = time.NewTimer(left)
		} else {
			c.timer.Reset(left)
		}
		select {
		case <-c.ready:
			c.timer.Stop()
		case <-c.timer.C:
		}
	}
}

func (c *muxConn) Write(b []byte) (int, error) {
	c.s.send(c, b)
	return len(b), nil
}

func (c *muxConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.poke()
	c.s.connMu.Lock()
	if c.s.conns[c.src] == c {
		delete(c.s.conns, c.src)
	}
	c.s.connMu.Unlock()
	return nil
}

func (c *muxConn) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(c.src), c.s.port))
}

func (c *muxConn) RemoteAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(c.dst), c.port))
}

// local is LocalAddr without the cost of making one.
func (c *muxConn) local() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(c.src), c.s.port)
}

func (c *muxConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *muxConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	c.poke()
	return nil
}

func (c *muxConn) SetWriteDeadline(time.Time) error { return nil }
