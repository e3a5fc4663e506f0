package socket

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scope is the number of an interface, as the zone of a link-local address
// names it.
func scope(zone string) uint32 {
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

// Dial begins a connection (UDP: gives the socket its peer) from an address of
// this machine, invalid = the system's choice, and does not wait for it. The
// port is left to connect, so that many clients of one address do not run out
// of them; no broadcast, whatever the prefix of the network is. local is where
// the connection comes from.
func Dial(udp bool, from netip.Addr, to netip.AddrPort) (fd int, local netip.AddrPort, err error) {
	kind := unix.SOCK_STREAM
	if udp {
		kind = unix.SOCK_DGRAM
	}
	r, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family(to.Addr())), uintptr(kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC), 0)
	if errno != 0 {
		return -1, local, os.NewSyscallError("socket", errno)
	}
	fd = int(r)
	var n name
	if from.IsValid() {
		option(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // kernels before 4.2 do without
		size := n.put(netip.AddrPortFrom(from, 0))
		if _, _, errno := unix.RawSyscall(unix.SYS_BIND, r, uintptr(unsafe.Pointer(&n)), size); errno != 0 {
			Close(fd)
			return -1, local, os.NewSyscallError("bind", errno)
		}
	}
	size := n.put(to)
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, r, uintptr(unsafe.Pointer(&n)), size); errno != 0 && errno != unix.EINPROGRESS {
		Close(fd)
		return -1, local, os.NewSyscallError("connect", errno)
	}
	return fd, localName(fd), nil
}

func localName(fd int) netip.AddrPort {
	var n name
	size := uint32(len(n))
	if _, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}
	}
	return n.get()
}

func option(fd, level, what int, value int32) {
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(what), uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
}

// Pending is the error that a socket keeps, nil = none.
func Pending(fd int) error {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if v != 0 {
		return os.NewSyscallError("connect", syscall.Errno(v))
	}
	return nil
}

// Again says that an error means "not now".
func Again(err error) bool { return err == unix.EAGAIN }

// Write writes without waiting. The error is a bare syscall.Errno.
func Write(fd int, b []byte) (int, error) {
	return transfer(unix.SYS_SENDTO, fd, b, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

// Read reads what is there; 0 without an error is the end of a stream. The
// error is a bare syscall.Errno.
func Read(fd int, b []byte) (int, error) {
	return transfer(unix.SYS_RECVFROM, fd, b, unix.MSG_DONTWAIT)
}

func transfer(call uintptr, fd int, b []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// Close closes; a stream says good-bye.
func Close(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// Reset closes a stream with RST.
func Reset(fd int) {
	l := unix.Linger{Onoff: 1}
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&l)), unsafe.Sizeof(l), 0)
	Close(fd)
}

// CloseWrite tells the other side of a stream that nothing more comes.
func CloseWrite(fd int) { unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0) }

// ListenTCP listens; port 0 is any free one.
func ListenTCP(at netip.AddrPort, backlog int) (fd int, local netip.AddrPort, err error) {
	fd, err = listen(unix.SOCK_STREAM, at)
	if err != nil {
		return -1, local, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		Close(fd)
		return -1, local, os.NewSyscallError("listen", err)
	}
	return fd, localName(fd), nil
}

// Relisten changes the length of a listener's queue.
func Relisten(fd, backlog int) error { return os.NewSyscallError("listen", unix.Listen(fd, backlog)) }

func listen(kind int, at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family(at.Addr()), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if kind == unix.SOCK_STREAM {
		option(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if at.Addr() == netip.IPv6Unspecified() {
		option(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	var n name
	size := n.put(at)
	if _, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&n)), size); errno != 0 {
		Close(fd)
		return -1, os.NewSyscallError("bind", errno)
	}
	return fd, nil
}

// Accept takes a connection that waits. The error is a bare syscall.Errno.
func Accept(fd int) (conn int, peer netip.AddrPort, err error) {
	var n name
	size := uint32(len(n))
	r, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, peer, errno
	}
	return int(r), n.get(), nil
}
