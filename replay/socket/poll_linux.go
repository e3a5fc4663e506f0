package socket

import (
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollMost is how many events one wait brings.
const pollMost = 256

// Poller waits for descriptors. Wait is for one goroutine, the rest for all.
type Poller struct {
	ep, wake int
	coarse   bool // the kernel has no epoll_pwait2 (before 5.11)
	raw      [pollMost]unix.EpollEvent
	events   [pollMost]Event
}

// wakeTag is that of the descriptor which only wakes.
const wakeTag = -1

// NewPoller makes one; Close it.
func NewPoller() (*Poller, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &Poller{ep: ep, wake: wake}
	if err := p.Add(wake, wakeTag); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close gives its own descriptors back; those that were added are not its own.
func (p *Poller) Close() {
	unix.Close(p.ep)
	unix.Close(p.wake)
}

// Add reports what comes to a descriptor, for as long as there is something.
// Closing a descriptor removes it.
func (p *Poller) Add(fd int, tag int32) error {
	return p.add(fd, unix.EPOLLIN, tag)
}

// AddEdge reports each change of a connection once: what came must be read
// until nothing is left.
func (p *Poller) AddEdge(fd int, tag int32) error {
	return p.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, tag)
}

func (p *Poller) add(fd int, what uint32, tag int32) error {
	e := unix.EpollEvent{Events: what, Fd: tag}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.ep), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// Remove forgets a descriptor that stays open.
func (p *Poller) Remove(fd int) {
	unix.EpollCtl(p.ep, unix.EPOLL_CTL_DEL, fd, nil)
}

// Wake ends a wait, or the next one.
func (p *Poller) Wake() {
	one := [8]byte{}
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(p.wake, one[:]) // full: it is awake anyway
}

// Wait waits for something to happen, at most so long; zero or less only
// looks. The events are valid until the next wait.
func (p *Poller) Wait(most time.Duration) []Event {
	var n uintptr
	var errno syscall.Errno
	switch {
	case most <= 0:
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep), uintptr(unsafe.Pointer(&p.raw[0])), pollMost, 0, 0, 0)
	case !p.coarse:
		t := unix.NsecToTimespec(int64(min(most, forever)))
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.ep), uintptr(unsafe.Pointer(&p.raw[0])), pollMost, uintptr(unsafe.Pointer(&t)), 0, 0)
		if errno == unix.ENOSYS {
			p.coarse = true
			return p.Wait(most)
		}
	case most < time.Millisecond: // finer than it can wait: sleep, then look
		t := unix.NsecToTimespec(int64(most))
		unix.Nanosleep(&t, nil)
		return p.Wait(0)
	default:
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep), uintptr(unsafe.Pointer(&p.raw[0])), pollMost, uintptr(min(most, forever)/time.Millisecond), 0, 0)
	}
	if errno != 0 {
		return nil // interrupted
	}
	list := p.events[:0]
	for i := range int(n) {
		e := &p.raw[i]
		if e.Fd == wakeTag {
			var b [8]byte
			unix.Read(p.wake, b[:])
			continue
		}
		list = append(list, Event{Tag: e.Fd, In: e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP) != 0, Out: e.Events&unix.EPOLLOUT != 0,
			Fail: e.Events&unix.EPOLLERR != 0})
	}
	return list
}

// name is a struct sockaddr, as long as IPv6 needs it.
type name [unix.SizeofSockaddrInet6]byte

// put writes an address and gives its length.
func (n *name) put(at netip.AddrPort) uintptr {
	a := at.Addr()
	clear(n[:])
	binary.BigEndian.PutUint16(n[2:], at.Port())
	if a.Is4() || a.Is4In6() {
		binary.NativeEndian.PutUint16(n[:], unix.AF_INET)
		ip := a.As4()
		copy(n[4:], ip[:])
		return unix.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(n[:], unix.AF_INET6)
	ip := a.As16()
	copy(n[8:], ip[:])
	if z := a.Zone(); z != "" {
		binary.NativeEndian.PutUint32(n[24:], scope(z))
	}
	return unix.SizeofSockaddrInet6
}

// get reads an address; IPv4-mapped ones are IPv4.
func (n *name) get() netip.AddrPort {
	port := binary.BigEndian.Uint16(n[2:])
	if binary.NativeEndian.Uint16(n[:]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(n[4:8])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(n[8:24])).Unmap(), port)
}

func family(a netip.Addr) int {
	if a.Is4() || a.Is4In6() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
