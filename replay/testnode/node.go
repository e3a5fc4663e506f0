package testnode

import (
	"container/heap"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
	"time"

	"squall/dissect"
	"squall/replay"
)

const (
	// maxConns bounds what a node holds; further connections are reset.
	maxConns = 1 << 16
	// readMost is the longest request head or datagram.
	readMost = 64 << 10
	// writeWait: a client that does not take a few hundred bytes in this time
	// is gone.
	writeWait = 100 * time.Millisecond
	// udpBuffer absorbs the burst of a herd.
	udpBuffer = 4 << 20
)

// Config of a node.
type Config struct {
	Listen  netip.AddrPort // port 0: any free one
	Dialect replay.Dialect
	Node    replay.NodeConfig
	Seed    uint64
}

// Counters are what a node itself counted since its start.
type Counters struct {
	Connections int64 // TCP connections taken
	Requests    int64 // that could be read
	Accepted    int64
	Refused     int64
	Throttled   int64
	Dropped     int64 // no answer: queue full, shed, or fallen
	Resets      int64
	Strange     int64 // bytes that are not the node's protocol
	Falls       int64 // self-protections and crashes
	Sessions    int64 // now (TCP)
	Waiting     int64 // now
}

// Node is a running stand-in. Its methods are safe for concurrent use.
type Node struct {
	cfg   Config
	epoch time.Time
	addr  netip.AddrPort
	seed  maphash.Seed

	mu      sync.Mutex
	model   *replay.Node
	state   replay.State // that the sockets are in
	count   Counters
	jobs    map[int64]*job
	ref     int64
	running runHeap
	asked   map[uint64]bool // datagrams whose answer is under way: repeats of them are not new work
	conns   map[*conn]bool
	ln      *net.TCPListener
	udp     *net.UDPConn
	plugs   []net.Conn
	closed  bool

	wake chan struct{}
	stop chan struct{}
	wg   sync.WaitGroup
}

// job is a request that the model holds.
type job struct {
	asked replay.Asked
	conn  *conn // nil: UDP
	key   uint64
}

type conn struct {
	c       *net.TCPConn
	session bool
	waiting bool
}

type run struct {
	end int64
	ref int64
}

type runHeap []run

func (h runHeap) Len() int { return len(h) }
func (h runHeap) Less(i, j int) bool {
	return h[i].end < h[j].end || h[i].end == h[j].end && h[i].ref < h[j].ref
}
func (h runHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)   { *h = append(*h, x.(run)) }
func (h *runHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	*h = old[:len(old)-1]
	return r
}

// Start opens the sockets of a node and serves until Stop.
func Start(cfg Config) (*Node, error) {
	if cfg.Dialect == nil {
		return nil, errors.New("test node: want a dialect")
	}
	if err := cfg.Node.Check(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, epoch: time.Now(), seed: maphash.MakeSeed(), model: replay.NewNode(cfg.Node, cfg.Seed), jobs: map[int64]*job{},
		asked: map[uint64]bool{}, conns: map[*conn]bool{}, wake: make(chan struct{}, 1), stop: make(chan struct{}), addr: cfg.Listen}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.open(); err != nil {
		return nil, err
	}
	n.wg.Add(1)
	go n.dispatch()
	return n, nil
}

// open makes the node's socket and starts its reader; n.mu is held.
func (n *Node) open() error {
	if n.cfg.Dialect.Transport() == dissect.UDP {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(n.addr))
		if err != nil {
			return err
		}
		c.SetReadBuffer(udpBuffer)  // as much as the system allows
		c.SetWriteBuffer(udpBuffer) // likewise
		n.udp, n.addr = c, c.LocalAddr().(*net.UDPAddr).AddrPort()
		n.wg.Add(1)
		go n.readUDP(c)
		return nil
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(n.addr))
	if err != nil {
		return err
	}
	n.ln, n.addr = l, l.Addr().(*net.TCPAddr).AddrPort()
	n.wg.Add(1)
	go n.accept(l)
	return nil
}

// Addr is where the node listens.
func (n *Node) Addr() netip.AddrPort { return n.addr }

// Dialect is what the node speaks.
func (n *Node) Dialect() replay.Dialect { return n.cfg.Dialect }

// Counters is a snapshot.
func (n *Node) Counters() Counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.count
	for x := range n.conns {
		if x.session {
			c.Sessions++
		}
	}
	c.Waiting = int64(n.model.Waiting())
	return c
}

// State is what the node is in now.
func (n *Node) State() replay.State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.model.State(n.now())
}

// Do makes an event of a script happen now; its Node is not looked at.
func (n *Node) Do(e replay.Event) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return net.ErrClosed
	}
	switch e.Do {
	case replay.Down:
		n.model.Set(replay.Silent, n.now())
	case replay.Close:
		n.model.Set(replay.Closed, n.now())
	case replay.Raise:
		n.model.Set(replay.Up, n.now())
	case replay.Scale:
		n.model.Scale(e.Value)
	case replay.Delay:
		n.model.Delay(time.Duration(e.Value * float64(time.Second)))
	default:
		return fmt.Errorf("test node: %v is not known", e)
	}
	return n.follow()
}

// Stop closes everything and returns when no goroutine of the node is left.
func (n *Node) Stop() {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.stop)
		n.shut()
	}
	n.mu.Unlock()
	n.wg.Wait()
}

// shut closes the sockets; n.mu is held.
func (n *Node) shut() {
	n.unplug()
	if n.ln != nil {
		n.ln.Close()
		n.ln = nil
	}
	if n.udp != nil {
		n.udp.Close()
		n.udp = nil
	}
	for c := range n.conns {
		c.reset()
	}
	clear(n.conns)
	clear(n.jobs)
	clear(n.asked)
}

func (n *Node) now() int64 { return int64(time.Since(n.epoch)) }

// follow brings the sockets into the state of the model; n.mu is held.
func (n *Node) follow() error {
	was, is := n.state, n.model.State(n.now())
	if was == is || n.closed {
		return nil
	}
	n.state = is
	switch is {
	case replay.Closed: // the system refuses for us: RST, port unreachable
		n.shut()
	case replay.Silent:
		clear(n.jobs)
		clear(n.asked)
		if was == replay.Closed {
			if err := n.open(); err != nil {
				return err
			}
		}
		if n.ln != nil {
			n.plug()
		}
	case replay.Up:
		n.unplug()
		for c := range n.conns { // a restarted node knows no session
			if was == replay.Silent {
				c.reset()
				delete(n.conns, c)
			}
		}
		if n.ln == nil && n.udp == nil {
			if err := n.open(); err != nil {
				return err
			}
		}
	}
	n.poke()
	return nil
}

func (n *Node) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// dispatch ends services when their time is over. Their times are exact on
// the model's clock, whatever the timer's slack, so that a node serves its
// stated capacity.
func (n *Node) dispatch() {
	defer n.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		n.mu.Lock()
		n.follow()
		now := n.now()
		for len(n.running) > 0 && n.running[0].end <= now {
			r := heap.Pop(&n.running).(run)
			n.finish(r)
		}
		wait := 100 * time.Millisecond // recoveries are noticed within this
		if len(n.running) > 0 {
			wait = min(wait, time.Duration(n.running[0].end-now))
		}
		n.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-n.stop:
			return
		case <-n.wake:
		case <-timer.C:
		}
	}
}

// finish answers a request whose service is over, and begins the next; n.mu
// is held.
func (n *Node) finish(r run) {
	n.model.Done()
	if j := n.jobs[r.ref]; j != nil && n.model.State(r.end) == replay.Up {
		delete(n.jobs, r.ref)
		n.say(j, dissect.KindAccept)
	}
	n.serve(r.end)
}

// serve gives the free servers work; n.mu is held.
func (n *Node) serve(at int64) {
	for {
		j, takes, ok := n.model.Next(at, n.shed)
		if !ok {
			return
		}
		start := max(at, j.Arrived)
		if takes == 0 {
			n.finishNow(j.Ref)
			continue
		}
		heap.Push(&n.running, run{start + takes, j.Ref})
		if n.running[0].ref == j.Ref {
			n.poke()
		}
	}
}

func (n *Node) finishNow(ref int64) {
	n.model.Done()
	if j := n.jobs[ref]; j != nil {
		delete(n.jobs, ref)
		n.say(j, dissect.KindAccept)
	}
}

func (n *Node) shed(j replay.Job) {
	n.count.Dropped++
	if held := n.jobs[j.Ref]; held != nil {
		delete(n.asked, held.key)
		delete(n.jobs, j.Ref)
	}
}

// say sends an answer; n.mu is held.
func (n *Node) say(j *job, what dissect.Kind) {
	delete(n.asked, j.key)
	switch what {
	case dissect.KindAccept:
		n.count.Accepted++
	case dissect.KindThrottle:
		n.count.Throttled++
	default:
		n.count.Refused++
	}
	var buf [512]byte
	b := n.cfg.Dialect.Answer(buf[:0], &j.asked, what, n.model.RetryAfter())
	if j.conn == nil {
		if n.udp != nil {
			n.udp.WriteToUDPAddrPort(b, j.asked.Peer) // a client that is gone is gone
		}
		return
	}
	c := j.conn
	c.waiting = false
	c.c.SetWriteDeadline(time.Now().Add(writeWait))
	if _, err := c.c.Write(b); err != nil {
		return
	}
	if what == dissect.KindAccept {
		c.session = true
		return
	}
	c.c.CloseWrite()
}

// ask puts a request to the model. It reports whether the connection that it
// came on is to be reset; n.mu is held.
func (n *Node) ask(j *job) (reset bool) {
	n.count.Requests++
	now := n.now()
	n.ref++
	client := int64(j.asked.Client)
	if client == 0 {
		client = int64(maphash.Comparable(n.seed, j.asked.Peer.Addr()))
	}
	switch offer := n.model.Offer(now, replay.Job{Ref: n.ref, Client: client}); offer {
	case replay.Queued:
		j.asked.Keep()
		n.jobs[n.ref] = j
		if j.key != 0 {
			n.asked[j.key] = true
		}
		n.serve(now)
	case replay.Refused:
		n.say(j, dissect.KindRefuse)
	case replay.Throttled:
		n.say(j, dissect.KindThrottle)
	case replay.ResetBack:
		n.count.Resets++
		return true
	case replay.Fell, replay.Crashed:
		n.count.Falls++
		n.count.Dropped++
		n.follow()
	default:
		n.count.Dropped++
	}
	return false
}

func (n *Node) readUDP(c *net.UDPConn) {
	defer n.wg.Done()
	buf := make([]byte, readMost)
	for {
		k, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		n.datagram(buf[:k], from)
	}
}

func (n *Node) datagram(b []byte, from netip.AddrPort) {
	asked := n.cfg.Dialect.Serve(b)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.state == replay.Silent || n.closed:
		return
	case asked.N == 0:
		n.count.Strange++
		return
	case asked.Kind == dissect.KindData || asked.Kind == dissect.KindClose:
		return
	}
	asked.Peer = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if asked.Step {
		var buf [512]byte
		n.udp.WriteToUDPAddrPort(n.cfg.Dialect.Answer(buf[:0], &asked, dissect.KindAccept, 0), from)
		return
	}
	var h maphash.Hash
	h.SetSeed(n.seed)
	h.Write(b)
	j := &job{asked: asked, key: h.Sum64() | 1}
	if n.asked[j.key] {
		return
	}
	n.ask(j)
}

func (n *Node) accept(l *net.TCPListener) {
	defer n.wg.Done()
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Kicked out while the node is silent, or out of descriptors.
			select {
			case <-n.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		x := &conn{c: c}
		n.mu.Lock()
		if n.closed || n.state == replay.Closed || len(n.conns) >= maxConns {
			n.mu.Unlock()
			x.reset()
			continue
		}
		n.count.Connections++
		n.conns[x] = true
		n.wg.Add(1)
		n.mu.Unlock()
		go n.talk(x)
	}
}

// talk reads one connection to its end.
func (n *Node) talk(x *conn) {
	defer n.wg.Done()
	defer func() {
		n.mu.Lock()
		delete(n.conns, x)
		n.mu.Unlock()
		x.c.Close()
	}()
	peer, _ := netip.ParseAddrPort(x.c.RemoteAddr().String())
	var buf []byte
	piece := make([]byte, 2048)
	for {
		k, err := x.c.Read(piece)
		if err != nil {
			return
		}
		if buf = append(buf, piece[:k]...); len(buf) > readMost {
			return
		}
		for len(buf) > 0 {
			asked := n.cfg.Dialect.Serve(buf)
			if asked.N == 0 {
				break
			}
			asked.Peer = peer
			if n.heard(x, asked) {
				x.reset()
				return
			}
			buf = buf[asked.N:]
		}
		if len(buf) == 0 {
			buf = nil // a session that only shows life holds no buffer
		}
	}
}

// heard takes one message of a connection; true resets it.
func (n *Node) heard(x *conn, asked replay.Asked) (reset bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed || n.state == replay.Silent:
		return false
	case asked.Kind == dissect.KindClose:
		n.count.Strange++
		return true
	case asked.Kind == dissect.KindData:
		if x.session {
			x.c.SetWriteDeadline(time.Now().Add(writeWait))
			x.c.Write([]byte("pong\r\n"))
		}
		return false
	case x.waiting:
		return false
	}
	x.waiting = true
	return n.ask(&job{asked: asked, conn: x})
}

// reset closes with RST.
func (x *conn) reset() {
	x.c.SetLinger(0)
	x.c.Close()
}
