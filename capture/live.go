package capture

import (
	"fmt"
	"time"
)

// LiveOptions of OpenLive; the zero value listens on nothing.
type LiveOptions struct {
	Interfaces  []string // names; "any" is all of them, with cooked headers
	Filter      Expr
	Snaplen     int           // bytes kept of each packet, 0 = 262144
	Promiscuous bool          // frames for other hosts, too
	Buffer      int           // bytes of room for the kernel, for each socket; 0 = 32 MiB
	Fanout      int           // sockets for each interface that share its flows; 0 = 1
	AdapterTime bool          // times of the network adapter, where it gives them
	Wake        time.Duration // packets come at most this long after they arrived; 0 = 50 ms
	// Say is told what happens to interfaces; may be nil.
	Say func(format string, args ...any)
}

// LiveInterface is an interface that can be captured on.
type LiveInterface struct {
	Name  string
	Index int
	Link  LinkType // as its packets will be written
	Kind  string   // "ethernet", "loopback", "tun or wireguard", …
	Up    bool
	Addrs []string
}

// UnsupportedError says what a system lacks for live capture.
type UnsupportedError struct{ System string }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("live capture needs the packet sockets of Linux, and this is %s; let tcpdump or dumpcap capture: tcpdump -i IF -U -w - | squall watch -", e.System)
}
