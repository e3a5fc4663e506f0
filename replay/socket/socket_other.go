//go:build !linux

package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

var errLinux = fmt.Errorf("sending wants Linux: %w", errors.ErrUnsupported)

type Poller struct{}

func NewPoller() (*Poller, error)          { return nil, errLinux }
func (*Poller) Close()                     {}
func (*Poller) Add(int, int32) error       { return errLinux }
func (*Poller) AddEdge(int, int32) error   { return errLinux }
func (*Poller) Remove(int)                 {}
func (*Poller) Wake()                      {}
func (*Poller) Wait(time.Duration) []Event { return nil }

func Dial(bool, netip.Addr, netip.AddrPort) (int, netip.AddrPort, error) {
	return -1, netip.AddrPort{}, errLinux
}
func Pending(int) error              { return errLinux }
func Again(error) bool               { return false }
func Write(int, []byte) (int, error) { return 0, errLinux }
func Read(int, []byte) (int, error)  { return 0, errLinux }
func Close(int)                      {}
func Reset(int)                      {}
func CloseWrite(int)                 {}
func Relisten(int, int) error        { return errLinux }
func ListenTCP(netip.AddrPort, int) (int, netip.AddrPort, error) {
	return -1, netip.AddrPort{}, errLinux
}
func Accept(int) (int, netip.AddrPort, error) {
	return -1, netip.AddrPort{}, errLinux
}

type UDP struct{}

func ListenUDP(netip.AddrPort, string) (*UDP, error) { return nil, errLinux }
func (*UDP) Descriptor() int                         { return -1 }
func (*UDP) Local() netip.AddrPort                   { return netip.AddrPort{} }
func (*UDP) Close()                                  {}
func (*UDP) Send([]byte, netip.Addr, netip.AddrPort) {}
func (*UDP) Waiting() int                            { return 0 }
func (*UDP) Flush(func(*Datagram))                   {}
func (*UDP) Receive(func(*Datagram)) bool            { return false }
func (*UDP) Errors(func(*Datagram))                  {}
