// Package socket is what the clients of a replay and the test nodes share of
// the system: one thread that waits for many descriptors and for a moment, TCP
// that never blocks, and UDP many datagrams at a time. The runtime's own
// network poller costs a goroutine and two timers for each connection, which is
// more than an attempt costs. Linux; elsewhere everything that opens something
// says errors.ErrUnsupported.
package socket

import (
	"net/netip"
	"syscall"
	"time"
)

// Event is what happened to a descriptor of a Poller.
type Event struct {
	Tag  int32 // as it was given to Add
	In   bool  // there is something to read, or the other side is done
	Out  bool  // it can be written to; a connect is over
	Fail bool  // there is an error to be asked for
}

// Datagram is one that came, or the error about one that was sent.
type Datagram struct {
	Peer  netip.AddrPort // who sent it, or whom the failed one was for
	Local netip.Addr     // the address of this machine that it came to; IPv4 only, else invalid
	Bytes []byte         // valid during the call; nil with Err
	Err   syscall.Errno
}

// forever is longer than any run waits for.
const forever = 24 * time.Hour
