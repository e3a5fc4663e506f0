package replay

import (
	"container/heap"
	"slices"
	"time"

	"squall/dissect"
	"squall/replay/socket"
)

const (
	// tripSteps quantiles are kept of the round-trip times, tripSamples are
	// looked at, and tripOpen handshakes are followed at a time.
	tripSteps   = 64
	tripSamples = 1 << 16
	tripOpen    = 1 << 16
)

// handshakes measures the round trips between clients and nodes from the SYN to
// the client's acknowledgement of its answer: the way there and back from
// wherever the capture was taken, between the two.
type handshakes struct {
	nodes   map[string]bool
	open    map[flowKey]handshake
	samples []time.Duration
}

type handshake struct {
	syn      int64 // the last one
	ack      uint32
	answered bool
}

func (p *Plan) handshakes() *handshakes {
	h := &handshakes{nodes: map[string]bool{}, open: map[flowKey]handshake{}}
	for i := range p.Nodes {
		h.nodes[p.Nodes[i].Address] = true
	}
	return h
}

func (h *handshakes) packet(d *dissect.Datagram) {
	const both = dissect.SYN | dissect.ACK
	k := flowKey{d.Source(), d.Destination(), d.Proto}
	switch d.Flags & both {
	case dissect.SYN:
		if len(h.samples) < tripSamples && h.nodes[k.to.String()] {
			if len(h.open) >= tripOpen { // those of nodes that never answered
				clear(h.open)
			}
			h.open[k] = handshake{syn: d.Time}
		}
	case both:
		back := flowKey{k.to, k.from, d.Proto}
		if x, ok := h.open[back]; ok {
			x.answered, x.ack = true, d.Seq+1
			h.open[back] = x
		}
	case dissect.ACK:
		if x, ok := h.open[k]; ok && x.answered && d.Ack == x.ack {
			h.samples = append(h.samples, time.Duration(max(d.Time-x.syn, 0)))
			delete(h.open, k)
		}
	}
}

// quantiles are nil where nothing was measured.
func (h *handshakes) quantiles() []time.Duration {
	if len(h.samples) == 0 {
		return nil
	}
	slices.Sort(h.samples)
	list := make([]time.Duration, min(tripSteps, len(h.samples)))
	for i := range list {
		list[i] = quantile(h.samples, float64(i)/float64(max(len(list)-1, 1)))
	}
	return list
}

// parcel is what has come from a node and is not heard before its client's
// round trip is over: a datagram, or something that happened to a connection.
type parcel struct {
	at   time.Duration
	seq  uint64 // those of one moment keep their order
	sock int32
	d    socket.Datagram
	t    *try // nil: the datagram
	n    uint64
	e    socket.Event
}

// parcels is a heap by time.
type parcels []parcel

func (h parcels) Len() int { return len(h) }
func (h parcels) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h parcels) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *parcels) Push(x any)   { *h = append(*h, x.(parcel)) }
func (h *parcels) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	(*h)[last] = parcel{}
	*h = (*h)[:last]
	return p
}

// tripOf is the round trip of a client in this run, drawn from those of the
// recording: the same in every run of the seed.
func (x *running) tripOf(id int32) time.Duration {
	return x.real(quantile(x.Plan.RoundTrips, float64(mix(x.Seed, 7, uint64(id))>>11)/(1<<53)))
}

// keep holds a parcel back.
func (w *worker) keep(p parcel, trip time.Duration) {
	w.parcel++
	p.at, p.seq = w.now+trip, w.parcel
	heap.Push(&w.parcels, p)
}

// comes is a datagram for one of the clients.
func (w *worker) comes(sock int32, d *socket.Datagram) {
	if w.RoundTrips {
		if id, ok := indexOf(w.bind, d.Local); ok && id < len(w.clients) {
			p := parcel{sock: sock, d: *d}
			p.d.Bytes = slices.Clone(d.Bytes)
			w.keep(p, w.clients[id].trip)
		}
		return
	}
	w.datagram(sock, d)
}

// happens is something to the descriptor of one attempt.
func (w *worker) happens(t *try, e socket.Event) {
	if w.RoundTrips {
		w.keep(parcel{t: t, n: t.number, e: e}, t.a.trip)
		return
	}
	t.ready(e)
}

// deliver hands out the parcels that are due.
func (w *worker) deliver() {
	for len(w.parcels) > 0 && w.parcels[0].at <= w.now {
		switch p := heap.Pop(&w.parcels).(parcel); {
		case p.t == nil:
			w.datagram(p.sock, &p.d)
		case w.slots[p.e.Tag] == p.t && p.t.number == p.n:
			p.t.ready(p.e)
		}
	}
}
