//go:build !linux

package replay

import (
	"errors"
	"net"
	"net/netip"
)

// mux is for Linux; elsewhere every attempt has a socket of its own.
type mux struct{ socks []struct{} }

type muxConn struct{ net.Conn }

func newMux(int, bool) (*mux, error) { return nil, errors.ErrUnsupported }

func (m *mux) close() {}

func (m *mux) dial(int, netip.Addr, netip.AddrPort) *muxConn { return nil }

func (c *muxConn) local() netip.AddrPort { return netip.AddrPort{} }
