package replay

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"squall/replay/socket"
)

// worker runs its share of the clients on one thread: their sockets, their
// timers, their decisions. Nothing of it is shared while it runs but the
// counters, so that nothing waits for anything but time and the network.
type worker struct {
	*running
	id     int32
	poll   *socket.Poller
	shared []*socket.UDP // all clients share these; none: a socket for each attempt
	slots  []*try        // by the tag of a descriptor of its own; shared ones come first
	empty  []int32       // free slots
	timers []*timer      // a heap by time
	// With RoundTrips: what waits to be heard, and how much there was.
	parcels parcels
	parcel  uint64
	idle    []*try        // for reuse
	next    int           // item of the plan
	now     time.Duration // of this turn
	tally   counters
	tens    []int64 // items begun by real ten seconds
	// µs
	lateness, accept *hdrhistogram.Histogram
	room             []byte
	failed           []socket.Datagram
	out              []Result // of attempts that are over, for Emit
}

const (
	// turnItems bounds what is begun in one turn, so that answers do not wait.
	turnItems = 128
	// grain is the shortest sleep: what is due within it leaves together. A fifth
	// of the lateness that 20,000 attempts a second may have.
	grain = 200 * time.Microsecond
	// turnBatches bounds what is read of one socket in one turn.
	turnBatches = 8
	// emitBatch results are handed on at a time, emitWaiting such batches may
	// wait before the clients do.
	emitBatch, emitWaiting = 256, 64
	// readRoom is for one read of a connection.
	readRoom = 4096
)

// Realtime are threads that run before all others of this machine. They are
// made while the process still may, and stay so when root is given up. While
// there are any, the Go runtime has processors for the other threads beside
// theirs and collects garbage less often: else a sender that may run waits for
// a thread of its own process that may not.
type Realtime struct {
	work             chan func()
	threads          int
	processors, heap int // of the runtime, before
}

// realtimeHeap is the runtime's garbage collection percentage meanwhile.
const realtimeHeap = 800

// NewRealtime makes as many as a run wants; Close ends them. The error says
// what is missing.
func NewRealtime() (*Realtime, error) {
	r := &Realtime{work: make(chan func()), threads: workerCount(), processors: runtime.GOMAXPROCS(0), heap: debug.SetGCPercent(realtimeHeap)}
	runtime.GOMAXPROCS(2 * (r.processors + r.threads))
	said := make(chan error)
	for range r.threads {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			err := realtime()
			if said <- err; err != nil {
				return
			}
			for f := range r.work {
				f()
			}
			ordinary()
		}()
	}
	var failed error
	for range r.threads {
		failed = errors.Join(failed, <-said)
	}
	if failed != nil {
		r.Close()
		return nil, fmt.Errorf("real-time priority: %w; it takes root (CAP_SYS_NICE), or ulimit -r 1", failed)
	}
	return r, nil
}

// Close lets the threads end.
func (r *Realtime) Close() {
	close(r.work)
	runtime.GOMAXPROCS(r.processors)
	debug.SetGCPercent(r.heap)
}

// workerCount is how many threads a run has: the targets may be on this machine.
func workerCount() int { return min(max(runtime.GOMAXPROCS(0)/2, 1), workersMost) }

// newWorker makes a worker and opens its sockets.
func (x *running) newWorker(id int32, shared int) (w *worker, err error) {
	w = &worker{running: x, id: id, tens: make([]int64, x.tenCount), room: make([]byte, readRoom),
		lateness: hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3), accept: hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3)}
	if w.poll, err = socket.NewPoller(); err != nil {
		return nil, err
	}
	device := ""
	if x.bind.IsValid() && x.bind.Addr().IsLoopback() {
		device = "lo" // nothing from elsewhere reaches the clients
	}
	for range shared {
		u, err := socket.ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), 0), device)
		if err == nil {
			if err = w.poll.Add(u.Descriptor(), int32(len(w.shared))); err != nil {
				u.Close()
			}
		}
		if err != nil {
			w.close()
			return nil, err
		}
		w.shared = append(w.shared, u)
	}
	w.slots = make([]*try, len(w.shared))
	return w, nil
}

func (w *worker) close() {
	for _, u := range w.shared {
		u.Close()
	}
	w.poll.Close()
}

// loop is the worker's life: what is due, what came, and again.
func (w *worker) loop() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	finer()
	var told time.Duration
	for !w.over.Load() {
		w.now = w.running.now()
		more := w.begin()
		w.expire()
		w.deliver()
		for _, u := range w.shared {
			if u.Waiting() > 0 {
				u.Flush(w.unsent)
			}
		}
		w.tell()
		if w.now-told > time.Second {
			told = w.now
			w.hand()
			w.tally.late99.Store(w.lateness.ValueAtQuantile(99))
		}
		left := time.Duration(0)
		if !more {
			left = time.Second
			if i := w.next; i < len(w.Plan.Items) {
				left = min(left, w.real(w.Plan.Items[i].At)-w.running.now())
			}
			if len(w.timers) > 0 {
				left = min(left, w.timers[0].at-w.running.now())
			}
			if len(w.parcels) > 0 {
				left = min(left, w.parcels[0].at-w.running.now())
			}
			if left > 0 {
				left = max(left, grain)
			}
		}
		for _, e := range w.poll.Wait(left) {
			w.now = w.running.now()
			if int(e.Tag) < len(w.shared) {
				u := w.shared[e.Tag]
				for range turnBatches {
					if !u.Receive(func(d *socket.Datagram) { w.comes(e.Tag, d) }) {
						break
					}
				}
				if e.Fail {
					u.Errors(func(d *socket.Datagram) { w.comes(e.Tag, d) })
				}
			} else if t := w.slots[e.Tag]; t != nil {
				w.happens(t, e)
			}
		}
	}
	w.now = w.running.now()
	w.finish()
}

// begin begins the items that are due, and says whether there are more of them.
func (w *worker) begin() (more bool) {
	items := w.Plan.Items
	for n := 0; w.next < len(items); w.next++ {
		it := &items[w.next]
		if int(it.Client)%len(w.workers) != int(w.id) {
			continue
		}
		due := w.real(it.At)
		if due > w.now {
			return false
		}
		if n++; n > turnItems {
			return true
		}
		if k := int(due / (10 * time.Second)); k < len(w.tens) {
			w.tens[k]++
		}
		w.tally.begun.Add(1)
		w.item(it, due)
	}
	return false
}

// finish ends everything that is under way when the run is over.
func (w *worker) finish() {
	for _, u := range w.shared { // at once: the rows take longer, and nothing is sent after them
		u.Flush(nil)
	}
	for i := int(w.id); i < len(w.clients); i += len(w.workers) {
		for t := w.clients[i].live; t != nil; {
			after := t.next
			t.abandon()
			t = after
		}
	}
	w.hand()
}

// emit keeps a result until a batch of them is handed on: whoever writes them
// down is slower than the clients.
func (w *worker) emit(r *Result) {
	if w.Emit == nil {
		return
	}
	if w.out = append(w.out, *r); len(w.out) >= emitBatch {
		w.hand()
	}
}

func (w *worker) hand() {
	if len(w.out) == 0 {
		return
	}
	w.results <- w.out
	select {
	case w.out = <-w.empties:
		w.out = w.out[:0]
	default:
		w.out = make([]Result, 0, emitBatch)
	}
}

// write calls Emit for the results of all workers.
func (x *running) write() {
	for list := range x.results {
		for i := range list {
			x.Emit(&list[i])
		}
		select {
		case x.empties <- list:
		default:
		}
	}
}

// datagram finds the attempt that it is for: the client by its address, the
// attempt by the socket. The newest hears it: what an older one of the same
// client over the same socket still waits for is lost, as behind a NAT.
func (w *worker) datagram(sock int32, d *socket.Datagram) {
	id, ok := indexOf(w.bind, d.Local)
	if !ok || id >= len(w.clients) {
		return
	}
	for t := w.clients[id].live; t != nil; t = t.next {
		if t.sock == sock && w.targets[t.target].at == d.Peer {
			if d.Err != 0 {
				t.broken(d.Err)
			} else {
				t.heard(d.Bytes)
			}
			return
		}
	}
}

// unsent remembers a datagram that could not leave: its attempt may be in the
// middle of sending.
func (w *worker) unsent(d *socket.Datagram) { w.failed = append(w.failed, *d) }

// unleft is why a datagram could not leave this machine, which says nothing of
// its target.
type unleft struct{ errno error }

func (e unleft) Error() string { return "not sent: " + e.errno.Error() }

// tell tells the clients whose datagrams could not leave.
func (w *worker) tell() {
	for i := range w.failed {
		d := &w.failed[i]
		id, ok := indexOf(w.bind, d.Local)
		if !ok || id >= len(w.clients) {
			continue
		}
		for t := w.clients[id].live; t != nil; t = t.next {
			if t.sock >= 0 && w.targets[t.target].at == d.Peer {
				t.broken(unleft{d.Err})
				break
			}
		}
	}
	w.failed = w.failed[:0]
}

// timer is a moment of an attempt or of a client, one of the two.
type timer struct {
	at  time.Duration
	pos int32 // in the heap + 1, 0 = not set
	t   *try
	a   *actor
}

// set sets a timer, anew if it was.
func (w *worker) set(m *timer, at time.Duration) {
	m.at = at
	if m.pos == 0 {
		w.timers = append(w.timers, m)
		m.pos = int32(len(w.timers))
	}
	w.sift(int(m.pos) - 1)
}

func (w *worker) unset(m *timer) {
	if m.pos == 0 {
		return
	}
	i, last := int(m.pos)-1, len(w.timers)-1
	m.pos = 0
	moved := w.timers[last]
	w.timers[last] = nil
	w.timers = w.timers[:last]
	if i < last {
		w.timers[i] = moved
		moved.pos = int32(i + 1)
		w.sift(i)
	}
}

// sift moves a timer to where it belongs.
func (w *worker) sift(i int) {
	h := w.timers
	m := h[i]
	for i > 0 {
		up := (i - 1) / 2
		if h[up].at <= m.at {
			break
		}
		h[i] = h[up]
		h[i].pos = int32(i + 1)
		i = up
	}
	for {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h[c+1].at < h[c].at {
			c++
		}
		if m.at <= h[c].at {
			break
		}
		h[i] = h[c]
		h[i].pos = int32(i + 1)
		i = c
	}
	h[i] = m
	m.pos = int32(i + 1)
}

// expire lets happen what is due.
func (w *worker) expire() {
	for len(w.timers) > 0 && w.timers[0].at <= w.now && !w.over.Load() {
		m := w.timers[0]
		w.unset(m)
		if m.t != nil {
			m.t.fire()
		} else {
			w.again(m.a)
		}
	}
}

// own gives a descriptor of one attempt a tag.
func (w *worker) own(fd int, t *try) error {
	var tag int32
	if n := len(w.empty); n > 0 {
		tag = w.empty[n-1]
		w.empty = w.empty[:n-1]
	} else {
		tag = int32(len(w.slots))
		w.slots = append(w.slots, nil)
	}
	if err := w.poll.AddEdge(fd, tag); err != nil {
		w.empty = append(w.empty, tag)
		return err
	}
	w.slots[tag] = t
	t.fd, t.slot = fd, tag
	return nil
}

// record counts into a histogram of µs.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	h.RecordValue(min(max(int64(d/time.Microsecond), 0), int64(time.Hour/time.Microsecond)))
}

// indexOf is the client of an address that addressOf gave.
func indexOf(p netip.Prefix, a netip.Addr) (int, bool) {
	if !a.Is4() || !p.Contains(a) {
		return 0, false
	}
	b, base := a.As4(), p.Masked().Addr().As4()
	n := 0
	for k := range b {
		n = n<<8 | int(b[k]^base[k])
	}
	if p.Addr().IsLoopback() && p.Bits() == 8 {
		n -= 1 << 16
	}
	return n - 1, n > 0
}
