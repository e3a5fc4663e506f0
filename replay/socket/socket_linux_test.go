package socket

import (
	"net/netip"
	"testing"
	"time"
)

// TestPoller: a wait ends when somebody wakes it, and when its time is over.
func TestPoller(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	done := make(chan int)
	go func() { done <- len(p.Wait(time.Minute)) }()
	p.Wake()
	if n := <-done; n != 0 {
		t.Errorf("a wake-up is %d events", n)
	}
	if n := len(p.Wait(time.Millisecond)); n != 0 {
		t.Errorf("%d events of nothing", n)
	}
	p.coarse = true // as a kernel before 5.11
	if n := len(p.Wait(100*time.Microsecond)) + len(p.Wait(2*time.Millisecond)); n != 0 {
		t.Errorf("%d events of nothing", n)
	}
}

// TestUDP: many datagrams of many addresses over one socket; each is answered
// to where it came from, by the address that it came to; what nobody takes
// comes back as an error with its address.
func TestUDP(t *testing.T) {
	open := func(at string) *UDP {
		u, err := ListenUDP(netip.MustParseAddrPort(at), "")
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	clients, node := open("0.0.0.0:0"), open("0.0.0.0:0")
	defer clients.Close()
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), node.Local().Port())
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Add(clients.Descriptor(), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(node.Descriptor(), 1); err != nil {
		t.Fatal(err)
	}
	const n = 200 // more than go with one call
	for i := range n {
		clients.Send([]byte{byte(i)}, netip.AddrFrom4([4]byte{127, 1, 0, byte(i)}), at)
	}
	clients.Flush(func(d *Datagram) { t.Errorf("not sent: %v", d) })
	answered := 0
	for end := time.Now().Add(10 * time.Second); answered < n && time.Now().Before(end); {
		for _, e := range p.Wait(100 * time.Millisecond) {
			switch e.Tag {
			case 1:
				for node.Receive(func(d *Datagram) {
					if d.Local != at.Addr() || d.Peer.Addr().As4()[3] != d.Bytes[0] || d.Peer.Port() != clients.Local().Port() {
						t.Errorf("%v", d)
					}
					node.Send(d.Bytes, d.Local, d.Peer)
				}) {
				}
				node.Flush(nil)
			case 0:
				for clients.Receive(func(d *Datagram) {
					answered++
					if d.Peer != at || d.Local.As4()[3] != d.Bytes[0] {
						t.Errorf("%v", d)
					}
				}) {
				}
			}
		}
	}
	if answered != n {
		t.Errorf("%d of %d answers", answered, n)
	}
	node.Close()
	clients.Send([]byte("?"), netip.AddrFrom4([4]byte{127, 1, 0, 77}), at)
	clients.Flush(nil)
	refused := 0
	for end := time.Now().Add(10 * time.Second); refused == 0 && time.Now().Before(end); {
		p.Wait(10 * time.Millisecond)
		clients.Errors(func(d *Datagram) {
			if d.Err != 0 && d.Peer == at && d.Local.As4()[3] == 77 {
				refused++
			}
		})
	}
	if refused != 1 {
		t.Errorf("%d errors of one datagram", refused)
	}
}

// TestNoRoute: a datagram that this machine has no way for fails, and those
// behind it leave.
func TestNoRoute(t *testing.T) {
	u, err := ListenUDP(netip.MustParseAddrPort("0.0.0.0:0"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), u.Local().Port())
	stranger := netip.MustParseAddr("203.0.113.77") // of no interface
	u.Send([]byte("a"), stranger, at)
	u.Send([]byte("b"), netip.MustParseAddr("127.0.0.8"), at)
	failed := make(chan netip.Addr, 3)
	go func() {
		u.Flush(func(d *Datagram) { failed <- d.Local })
		close(failed)
	}()
	for list := []netip.Addr(nil); ; {
		select {
		case a, more := <-failed:
			if more {
				list = append(list, a)
				continue
			}
			if len(list) != 1 || list[0] != stranger {
				t.Errorf("these could not leave: %v", list)
			}
			got := ""
			for u.Receive(func(d *Datagram) { got += string(d.Bytes) }) {
			}
			if got != "b" {
				t.Errorf("%q came", got)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a datagram without a way is tried for ever")
		}
		return
	}
}
