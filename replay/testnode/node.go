package testnode

import (
	"container/heap"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"squall/dissect"
	"squall/replay"
	"squall/replay/socket"
)

const (
	// maxConns bounds what a node holds; further connections are reset.
	maxConns = 1 << 16
	// readMost is the longest request head or datagram.
	readMost = 64 << 10
	// backlog is what the system allows at most; it cuts larger values.
	backlog = 4096
	// notice is how soon a recovery is noticed.
	notice = 100 * time.Millisecond
	// The tags of a node's listeners; those of connections are from 0 on.
	tagUDP, tagListener = -2, -3
	// turnBatches and turnAccepts bound what is taken in one turn, so that
	// services that are over do not wait.
	turnBatches, turnAccepts = 8, 64
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
	Connections int64 `json:"connections"` // TCP connections taken
	Requests    int64 `json:"requests"`    // that could be read
	Accepted    int64 `json:"accepted"`
	Refused     int64 `json:"refused"`
	Throttled   int64 `json:"throttled"`
	Dropped     int64 `json:"dropped"` // no answer: queue full, shed, or fallen
	Resets      int64 `json:"resets"`
	Strange     int64 `json:"strange"`  // bytes that are not the node's protocol
	Falls       int64 `json:"falls"`    // self-protections and crashes
	Sessions    int64 `json:"sessions"` // now (TCP)
	Waiting     int64 `json:"waiting"`  // now
}

// Node is a running stand-in: one thread that waits for its sockets and for
// the ends of services. Its methods are safe for concurrent use.
type Node struct {
	cfg   Config
	epoch time.Time
	addr  netip.AddrPort
	seed  maphash.Seed
	poll  *socket.Poller

	mu      sync.Mutex
	model   *replay.Node
	state   replay.State // that the sockets are in
	count   Counters
	jobs    []*job // by the low half of their reference
	spare   []int32
	running runHeap
	asked   map[uint64]bool // datagrams whose answer is under way: repeats of them are not new work
	conns   []*conn         // by tag
	empty   []int32
	open    int // connections
	ln      int // -1 = none
	udp     *socket.UDP
	plugged bool
	plugs   []net.Conn
	closed  bool
	asks    replay.Asked // being looked at
	answer  []byte
	piece   []byte

	wg sync.WaitGroup
}

// job is a request that the model holds. It is used again.
type job struct {
	ref   int64 // generation and index
	held  bool
	asked replay.Asked
	keep  []byte // what asked refers to
	local netip.Addr
	conn  *conn // nil: UDP
	key   uint64
}

type conn struct {
	fd      int // -1 = closed
	tag     int32
	peer    netip.AddrPort
	buf     []byte
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
	n := &Node{cfg: cfg, epoch: time.Now(), seed: maphash.MakeSeed(), model: replay.NewNode(cfg.Node, cfg.Seed), asked: map[uint64]bool{}, addr: cfg.Listen,
		ln: -1, piece: make([]byte, 4096)}
	var err error
	if n.poll, err = socket.NewPoller(); err != nil {
		return nil, err
	}
	if err := n.listen(); err != nil {
		n.poll.Close()
		return nil, err
	}
	n.wg.Go(n.loop)
	return n, nil
}

// listen makes the node's socket; n.mu is held.
func (n *Node) listen() error {
	if n.cfg.Dialect.Transport() == dissect.UDP {
		u, err := socket.ListenUDP(n.addr, "")
		if err != nil {
			return err
		}
		n.udp, n.addr = u, u.Local()
		return n.poll.Add(u.Descriptor(), tagUDP)
	}
	fd, addr, err := socket.ListenTCP(n.addr, backlog)
	if err != nil {
		return err
	}
	n.ln, n.addr = fd, addr
	return n.poll.Add(fd, tagListener)
}

// Addr is where the node listens.
func (n *Node) Addr() netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addr
}

// Dialect is what the node speaks.
func (n *Node) Dialect() replay.Dialect { return n.cfg.Dialect }

// Counters is a snapshot.
func (n *Node) Counters() Counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.count
	for _, x := range n.conns {
		if x != nil && x.session {
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
	n.poll.Wake()
	return n.follow()
}

// Stop closes everything and returns when no goroutine of the node is left.
func (n *Node) Stop() {
	n.mu.Lock()
	first := !n.closed
	if first {
		n.closed = true
		n.shut()
		n.poll.Wake()
	}
	n.mu.Unlock()
	n.wg.Wait()
	if first {
		n.poll.Close()
	}
}

// shut closes the sockets; n.mu is held.
func (n *Node) shut() {
	n.unplug()
	if n.ln >= 0 {
		socket.Close(n.ln)
		n.ln = -1
	}
	if n.udp != nil {
		n.udp.Close()
		n.udp = nil
	}
	n.drop()
	n.forget()
}

// drop resets every connection; n.mu is held.
func (n *Node) drop() {
	for _, c := range n.conns {
		if c != nil {
			n.end(c, true)
		}
	}
}

// forget gives up every request; n.mu is held.
func (n *Node) forget() {
	for _, j := range n.jobs {
		if j.held {
			n.release(j)
		}
	}
	clear(n.asked)
}

// end closes a connection; n.mu is held.
func (n *Node) end(c *conn, hard bool) {
	if c.fd < 0 {
		return
	}
	if hard {
		socket.Reset(c.fd)
	} else {
		socket.Close(c.fd)
	}
	n.conns[c.tag] = nil
	n.empty = append(n.empty, c.tag)
	c.fd = -1
	n.open--
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
		n.forget()
		if was == replay.Closed {
			if err := n.listen(); err != nil {
				return err
			}
		}
		if n.ln >= 0 {
			n.plug()
		}
	case replay.Up:
		n.unplug()
		if was == replay.Silent {
			n.drop() // a restarted node knows no session
		}
		if n.ln < 0 && n.udp == nil {
			if err := n.listen(); err != nil {
				return err
			}
		}
	}
	return nil
}

// plug makes a listening socket silent: its queue is made as short as can be
// and filled with connections of our own, and the system ignores the SYNs of
// everybody else. Without privileges there is no other way to be a dead
// machine. n.mu is held.
func (n *Node) plug() {
	n.poll.Remove(n.ln)
	n.plugged = true
	if socket.Relisten(n.ln, 0) != nil {
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
	if !n.plugged {
		return
	}
	n.plugged = false
	for _, c := range n.plugs {
		c.Close()
	}
	if n.plugs = nil; n.ln >= 0 {
		socket.Relisten(n.ln, backlog)
		n.poll.Add(n.ln, tagListener)
	}
}

// loop ends services when their time is over, and takes what comes. The times
// of services are exact on the model's clock, whatever the thread's slack, so
// that a node serves its stated capacity.
func (n *Node) loop() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			return
		}
		n.follow()
		now := n.now()
		for len(n.running) > 0 && n.running[0].end <= now {
			n.finish(heap.Pop(&n.running).(run))
		}
		n.flush()
		wait := notice
		if len(n.running) > 0 {
			wait = min(wait, time.Duration(n.running[0].end-n.now()))
		}
		n.mu.Unlock()
		events := n.poll.Wait(wait)
		if len(events) == 0 {
			continue
		}
		n.mu.Lock()
		for _, e := range events {
			switch {
			case e.Tag == tagUDP:
				n.readUDP(e.Fail)
			case e.Tag == tagListener:
				n.accept()
			case int(e.Tag) < len(n.conns) && n.conns[e.Tag] != nil:
				n.talk(n.conns[e.Tag])
			}
		}
		n.mu.Unlock()
	}
}

// flush sends the answers over UDP that wait; n.mu is held.
func (n *Node) flush() {
	if n.udp != nil && n.udp.Waiting() > 0 {
		n.udp.Flush(nil) // a client that is gone is gone
	}
}

// finish answers a request whose service is over, and begins the next; n.mu
// is held.
func (n *Node) finish(r run) {
	n.model.Done()
	if j := n.job(r.ref); j != nil && n.model.State(r.end) == replay.Up {
		n.say(j, dissect.KindAccept)
		n.release(j)
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
			n.model.Done()
			if j := n.job(j.Ref); j != nil {
				n.say(j, dissect.KindAccept)
				n.release(j)
			}
			continue
		}
		heap.Push(&n.running, run{start + takes, j.Ref})
	}
}

func (n *Node) shed(j replay.Job) {
	n.count.Dropped++
	if held := n.job(j.Ref); held != nil {
		n.release(held)
	}
}

// job is the request of a reference, nil when it was given up.
func (n *Node) job(ref int64) *job {
	j := n.jobs[int32(ref)]
	if !j.held || j.ref != ref {
		return nil
	}
	return j
}

// newJob makes room for a request; n.mu is held.
func (n *Node) newJob() *job {
	if k := len(n.spare); k > 0 {
		j := n.jobs[n.spare[k-1]]
		n.spare = n.spare[:k-1]
		j.ref += 1 << 32
		j.held = true
		return j
	}
	j := &job{ref: int64(len(n.jobs)), held: true}
	n.jobs = append(n.jobs, j)
	return j
}

func (n *Node) release(j *job) {
	delete(n.asked, j.key)
	j.held, j.conn, j.asked = false, nil, replay.Asked{}
	n.spare = append(n.spare, int32(j.ref))
}

// say sends an answer; n.mu is held.
func (n *Node) say(j *job, what dissect.Kind) {
	switch what {
	case dissect.KindAccept:
		n.count.Accepted++
	case dissect.KindThrottle:
		n.count.Throttled++
	default:
		n.count.Refused++
	}
	n.answer = n.cfg.Dialect.Answer(n.answer[:0], &j.asked, what, n.model.RetryAfter())
	c := j.conn
	if c == nil {
		n.reply(n.answer, j.local, j.asked.Peer)
		return
	}
	c.waiting = false
	if c.fd < 0 {
		return
	}
	if _, err := socket.Write(c.fd, n.answer); err != nil {
		return // gone, or it does not take a few hundred bytes
	}
	if what == dissect.KindAccept {
		c.session = true
		return
	}
	socket.CloseWrite(c.fd)
}

// reply answers a datagram from the address that it was sent to; n.mu is held.
func (n *Node) reply(b []byte, from netip.Addr, to netip.AddrPort) {
	if n.udp != nil && len(b) > 0 {
		n.udp.Send(b, from, to)
	}
}

// ask puts a request to the model. It reports whether the connection that it
// came on is to be reset; n.mu is held.
func (n *Node) ask(asked *replay.Asked, c *conn, local netip.Addr, key uint64) (reset bool) {
	n.count.Requests++
	now := n.now()
	j := n.newJob()
	j.asked, j.conn, j.local, j.key = *asked, c, local, key
	ref := j.ref
	if asked.Bad {
		n.say(j, dissect.KindRefuse)
		n.release(j)
		return false
	}
	client := int64(asked.Client)
	if client == 0 {
		client = int64(maphash.Comparable(n.seed, asked.Peer.Addr()))
	}
	switch n.model.Offer(now, replay.Job{Ref: ref, Client: client}) {
	case replay.Queued:
		n.serve(now)
		if j := n.job(ref); j != nil { // it waits: what was read is not there for long
			j.keep = j.asked.Keep(j.keep)
			if key != 0 {
				n.asked[key] = true
			}
		}
		return false
	case replay.Refused:
		n.say(j, dissect.KindRefuse)
	case replay.Throttled:
		n.say(j, dissect.KindThrottle)
	case replay.ResetBack:
		n.count.Resets++
		reset = true
	case replay.Fell, replay.Crashed:
		n.count.Falls++
		n.count.Dropped++
		n.release(j)
		n.follow()
		return false
	default:
		n.count.Dropped++
	}
	n.release(j)
	return reset
}

func (n *Node) readUDP(failed bool) {
	for range turnBatches {
		if n.udp == nil || !n.udp.Receive(n.datagram) {
			break
		}
	}
	if failed && n.udp != nil {
		n.udp.Errors(func(*socket.Datagram) {})
	}
	n.flush()
}

func (n *Node) datagram(d *socket.Datagram) {
	if n.udp == nil || n.state == replay.Silent { // it fell in the middle of a batch
		return
	}
	asked := &n.asks
	*asked = n.cfg.Dialect.Serve(d.Bytes)
	switch {
	case asked.N == 0:
		n.count.Strange++
		return
	case asked.Kind == dissect.KindData || asked.Kind == dissect.KindClose:
		return
	}
	asked.Peer = d.Peer
	if asked.Step {
		n.answer = n.cfg.Dialect.Answer(n.answer[:0], asked, dissect.KindAccept, 0)
		n.reply(n.answer, d.Local, d.Peer)
		return
	}
	key := maphash.Bytes(n.seed, d.Bytes) | 1
	if n.asked[key] {
		return
	}
	n.ask(asked, nil, d.Local, key)
}

// accept takes the connections that wait; n.mu is held.
func (n *Node) accept() {
	for range turnAccepts {
		if n.ln < 0 || n.state == replay.Silent {
			return
		}
		fd, peer, err := socket.Accept(n.ln)
		if err != nil {
			if !socket.Again(err) && err != syscall.ECONNABORTED {
				time.Sleep(time.Millisecond) // out of descriptors, most likely
			}
			return
		}
		if n.state == replay.Closed || n.open >= maxConns {
			socket.Reset(fd)
			continue
		}
		c := &conn{fd: fd, peer: peer}
		if k := len(n.empty); k > 0 {
			c.tag = n.empty[k-1]
			n.empty = n.empty[:k-1]
			n.conns[c.tag] = c
		} else {
			c.tag = int32(len(n.conns))
			n.conns = append(n.conns, c)
		}
		n.open++
		n.count.Connections++
		if n.poll.AddEdge(fd, c.tag) != nil {
			n.end(c, true)
		}
	}
}

// talk reads what a connection brings; n.mu is held.
func (n *Node) talk(c *conn) {
	for c.fd >= 0 {
		k, err := socket.Read(c.fd, n.piece)
		if socket.Again(err) {
			return
		}
		if err != nil || k == 0 {
			n.end(c, false)
			return
		}
		b := n.piece[:k]
		if len(c.buf) > 0 {
			c.buf = append(c.buf, b...)
			b = c.buf
		}
		for len(b) > 0 && c.fd >= 0 {
			asked := &n.asks
			if *asked = n.cfg.Dialect.Serve(b); asked.N == 0 {
				break
			}
			asked.Peer = c.peer
			used := asked.N
			if n.heard(c, asked) {
				n.end(c, true)
				return
			}
			b = b[used:]
		}
		switch {
		case len(b) > readMost:
			n.end(c, false)
		case len(b) == 0:
			c.buf = nil // a session that only shows life holds no buffer
		default:
			c.buf = append(c.buf[:0], b...)
		}
	}
}

// heard takes one message of a connection; true resets it. n.mu is held.
func (n *Node) heard(c *conn, asked *replay.Asked) (reset bool) {
	switch {
	case n.closed || n.state == replay.Silent:
		return false
	case asked.Kind == dissect.KindClose:
		n.count.Strange++
		return true
	case asked.Kind == dissect.KindData:
		if asked.Life && c.session {
			n.answer = n.cfg.Dialect.Answer(n.answer[:0], asked, dissect.KindAccept, 0)
			socket.Write(c.fd, n.answer)
		}
		return false
	case c.waiting:
		return false
	}
	c.waiting = true
	return n.ask(asked, c, netip.Addr{}, 0)
}
