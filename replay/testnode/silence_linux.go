package testnode

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is what the system allows at most; it cuts larger values.
const backlog = 4096

// plug makes a listening socket silent: its queue is made as short as can be
// and filled with connections of our own, and the system ignores the SYNs of
// everybody else. Without privileges there is no other way to be a dead
// machine. n.mu is held.
func (n *Node) plug() {
	n.ln.SetDeadline(time.Unix(1, 0)) // whoever waits in accept leaves
	if n.relisten(0) != nil {
		return
	}
	for range 8 {
		c, err := net.DialTimeout("tcp", n.addr.String(), 50*time.Millisecond)
		if err != nil {
			return // full
		}
		n.plugs = append(n.plugs, c)
	}
}

// unplug undoes plug; n.mu is held.
func (n *Node) unplug() {
	for _, c := range n.plugs {
		c.Close()
	}
	if n.plugs = nil; n.ln != nil {
		n.relisten(backlog)
		n.ln.SetDeadline(time.Time{})
	}
}

func (n *Node) relisten(length int) error {
	raw, err := n.ln.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), length) })
	if failed != nil {
		return failed
	}
	return err
}
