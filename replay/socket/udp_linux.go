package socket

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batch  = 64
	room   = 2048 // bytes of a datagram that are received
	buffer = 4 << 20
	// pktinfoLen is the size of struct in_pktinfo.
	pktinfoLen = 12
	// patience is how long a full socket is waited for, ms; then its datagrams fail.
	patience = 100
	// alien is how many errors in a row may be of earlier datagrams: the same one
	// time after time is of this one.
	alien = 64
)

// UDP sends and receives many datagrams at a time (sendmmsg, recvmmsg). Over
// IPv4 each has a local address of its own (IP_PKTINFO): so thousands of
// clients share a socket, and a node answers from where it was asked. Errors of
// the network come back by the error queue with the address that they are for.
// For one goroutine at a time.
type UDP struct {
	fd    int
	v4    bool
	local netip.AddrPort
	bytes []byte // of what waits to be sent
	list  []outgoing
	out   frame
	in    frame
	bufs  []byte
	got   Datagram // handed out
}

type outgoing struct {
	from, to int // in bytes
	src      netip.Addr
	dst      netip.AddrPort
}

// frame is what sendmmsg and recvmmsg work on.
type frame struct {
	heads [batch]mmsghdr
	iovs  [batch]unix.Iovec
	names [batch]name
	ctrl  [batch][64]byte
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// ListenUDP opens one. On device nothing from elsewhere reaches it; "" = any.
func ListenUDP(at netip.AddrPort, device string) (*UDP, error) {
	fd, err := listen(unix.SOCK_DGRAM, at)
	if err != nil {
		return nil, err
	}
	u := &UDP{fd: fd, v4: family(at.Addr()) == unix.AF_INET, bufs: make([]byte, batch*room)}
	if u.v4 {
		err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1), unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	}
	if device != "" {
		err = errors.Join(err, unix.BindToDevice(fd, device))
	}
	if err != nil {
		Close(fd)
		return nil, err
	}
	// As much as the system allows; a privileged process may have more.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
	}
	u.local = localName(fd)
	return u, nil
}

// Descriptor is for a Poller.
func (u *UDP) Descriptor() int { return u.fd }

// Local is where it listens.
func (u *UDP) Local() netip.AddrPort { return u.local }

// Close closes it; what waits is not sent.
func (u *UDP) Close() { Close(u.fd) }

// Send keeps a copy of a datagram until Flush. src is the local address that
// it comes from, invalid = the system's choice.
func (u *UDP) Send(b []byte, src netip.Addr, dst netip.AddrPort) {
	at := len(u.bytes)
	u.bytes = append(u.bytes, b...)
	u.list = append(u.list, outgoing{at, at + len(b), src, dst})
}

// Waiting is how many datagrams wait for Flush.
func (u *UDP) Waiting() int { return len(u.list) }

// Flush sends what waits. fail is called for each datagram that could not leave.
func (u *UDP) Flush(fail func(*Datagram)) {
	f := &u.out
	failures := 0 // in a row
	for list := u.list; len(list) > 0; {
		n := min(len(list), batch)
		for i := range n {
			o := &list[i]
			m := &f.heads[i]
			m.hdr = unix.Msghdr{Name: &f.names[i][0], Namelen: uint32(f.names[i].put(o.dst)), Iov: &f.iovs[i]}
			f.iovs[i].Base = unsafe.SliceData(u.bytes[o.from:])
			f.iovs[i].SetLen(o.to - o.from)
			m.hdr.SetIovlen(1)
			if u.v4 && o.src.Is4() {
				ctrl := f.ctrl[i][:unix.CmsgSpace(pktinfoLen)]
				h := (*unix.Cmsghdr)(unsafe.Pointer(&ctrl[0]))
				h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
				h.SetLen(unix.CmsgLen(pktinfoLen))
				*(*unix.Inet4Pktinfo)(unsafe.Pointer(&ctrl[unix.CmsgLen(0)])) = unix.Inet4Pktinfo{Spec_dst: o.src.As4()}
				m.hdr.Control = &ctrl[0]
				m.hdr.SetControllen(len(ctrl))
			}
		}
		k, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&f.heads[0])), uintptr(n), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			list, failures = list[k:], 0
			continue
		case unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH: // of an earlier one; the error queue has it
			if failures++; failures < alien {
				continue
			}
		case unix.EAGAIN:
			if p := []unix.PollFd{{Fd: int32(u.fd), Events: unix.POLLOUT}}; ready(p) {
				continue
			}
		}
		if fail != nil {
			fail(&Datagram{Peer: list[0].dst, Local: list[0].src, Err: errno})
		}
		list, failures = list[1:], 0
	}
	u.bytes, u.list = u.bytes[:0], u.list[:0]
}

func ready(p []unix.PollFd) bool {
	n, err := unix.Poll(p, patience)
	return n > 0 || err == unix.EINTR
}

// Receive hands out what came, at most a batch at a time, and says whether
// there may be more.
func (u *UDP) Receive(each func(*Datagram)) (more bool) {
	f := &u.in
	for i := range f.heads {
		f.iovs[i].Base = &u.bufs[i*room]
		f.iovs[i].SetLen(room)
		m := &f.heads[i].hdr
		m.Name, m.Namelen, m.Iov, m.Control = &f.names[i][0], uint32(len(f.names[i])), &f.iovs[i], &f.ctrl[i][0]
		m.SetIovlen(1)
		m.SetControllen(len(f.ctrl[i]))
	}
	k, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&f.heads[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return errno != unix.EAGAIN // an error of an earlier datagram: the queue has it
	}
	d := &u.got
	for i := range int(k) {
		m := &f.heads[i]
		local, _, ok := readControl(f.ctrl[i][:min(int(m.hdr.Controllen), len(f.ctrl[i]))])
		*d = Datagram{Peer: f.names[i].get(), Bytes: u.bufs[i*room : i*room+int(m.len)]}
		if ok {
			d.Local = netip.AddrFrom4(local)
		}
		each(d)
	}
	return k == batch
}

// Errors empties the error queue.
func (u *UDP) Errors(each func(*Datagram)) {
	var ctrl [128]byte
	var buf [64]byte
	for {
		_, k, _, from, err := unix.Recvmsg(u.fd, buf[:], ctrl[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		local, errno, ok := readControl(ctrl[:k])
		to, isV4 := from.(*unix.SockaddrInet4) // of the datagram that the error is about
		if ok && errno != 0 && isV4 {
			each(&Datagram{Peer: netip.AddrPortFrom(netip.AddrFrom4(to.Addr), uint16(to.Port)), Local: netip.AddrFrom4(local), Err: errno})
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
