package pipeline

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/headers"
	"squall/dissect/storm"
	"squall/dissect/taps"
)

const (
	// shards is fixed: which engine sees a packet never depends on -j.
	shards       = 16
	flowsByShard = 1 << 15 // DefaultFlows / shards
	queued       = 4       // batches before each worker
)

// run is a source on its way through the stages: one goroutine reads and decodes,
// a worker for each queue takes the packets of its engines.
type run struct {
	cfg     *Config
	src     capture.Source
	names   *attempt.Names
	store   *attempt.Store
	engines []*attempt.Engine
	seenBy  *witnesses // nil = nobody wrote anything down
	queues  []chan *work
	pool    works
	workers sync.WaitGroup

	// Of the goroutine that reads.
	dec      headers.Decoder
	points   *points
	joiner   *taps.Joiner
	span     heard
	filtered map[uint32]int64 // packets, by input
	packets  int64
	state    State
}

// Run reads src to its end and analyses it. When ctx is cancelled or src fails
// the analysis of what was read is returned together with the error.
func Run(ctx context.Context, cfg Config, src capture.Source) (*Analysis, error) {
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	r := newRun(&cfg, src)
	failed := r.read(ctx)
	if cfg.Keep != nil && ctx.Err() != nil {
		cfg.Keep(&r.state, true)
	}
	for _, q := range r.queues {
		close(q)
	}
	r.workers.Wait()
	a := r.span.a
	if err := r.conclude(a); err != nil {
		return nil, err
	}
	return a, failed
}

func newRun(cfg *Config, src capture.Source) *run {
	n := min(cfg.Workers, shards)
	r := &run{cfg: cfg, src: src, names: attempt.NewNames(cfg.MaxNames), filtered: map[uint32]int64{},
		store: attempt.NewStore(attempt.StoreConfig{Shards: shards, Memory: cfg.RecordMemory, Temp: cfg.RecordTemp, Part: cfg.Part, Nodes: cfg.MaxNodes})}
	r.span.a = &Analysis{workers: n, shard: cfg.Shard, made: cfg.Made}
	if cfg.Records != nil {
		r.seenBy = &witnesses{of: cfg.Logger, shard: make([][]witnessed, shards), latest: map[uint64]int{}, logged: map[uint64][]loggedBy{}, both: map[uint32]int64{}}
	}
	r.points = newPoints(src.Files(), cfg.Clocks)
	r.joiner = taps.NewJoiner(r.points.many)
	if r.seenBy != nil {
		r.joiner.Renamed = r.seenBy.rename
	}
	r.state = State{src: src, store: r.store, names: r.names, taken: make([]int64, len(src.Files()))}
	r.state.values = []any{r.names, r.joiner, r.points, &r.dec, &r.span, &r.filtered, &r.packets, &r.state.taken}
	r.engines = attempt.NewEngines(shards, attempt.Config{Protocols: cfg.Protocols, KeepDuplicates: cfg.KeepDuplicates, MaxFlows: cfg.flowsByShard(), CopyWithin: r.points.within, Taps: r.points.taps()},
		r.names, r.add)
	for _, e := range r.engines {
		r.state.values = append(r.state.values, e)
	}
	for w := range n {
		q := make(chan *work, queued)
		r.queues = append(r.queues, q)
		r.workers.Go(func() { r.work(w, n, q) })
	}
	r.state.queues = r.queues
	return r
}

// add takes an attempt that an engine is done with.
func (r *run) add(shard int, rec *attempt.Record) {
	if r.seenBy != nil && rec.Flags&attempt.FlagOlder == 0 {
		r.seenBy.packet(shard, rec)
	}
	if !r.cfg.CountOnly {
		r.store.Add(shard, rec)
	}
}

// work gives the packets of a queue to every n-th engine.
func (r *run) work(number, n int, queue <-chan *work) {
	for b := range queue {
		if b.rest != nil {
			b.rest.Done()
			continue
		}
		for i, s := range b.shard {
			if s < shards && int(s)%n == number {
				r.engines[s].Datagram(&b.data[i])
			}
		}
		r.pool.done(b)
	}
}

// read hands the source to the workers, batch by batch. nil = to its end.
func (r *run) read(ctx context.Context) error {
	if r.cfg.From != nil {
		if err := r.cfg.From.into(&r.state); err != nil {
			return err
		}
	}
	return capture.Each(ctx, r.src, r.batch)
}

func (r *run) batch(b *capture.Batch) error {
	w := r.pool.take(b, len(r.queues))
	for i := range b.Packets {
		w.shard[i] = r.packet(&b.Packets[i], &w.data[i])
	}
	for _, q := range r.queues {
		q <- w
	}
	if r.cfg.Keep != nil {
		for i := range b.Packets {
			r.state.taken[b.Packets[i].File] = b.Packets[i].Frame
		}
	}
	if r.cfg.Progress != nil {
		r.cfg.Progress(Progress{r.packets, r.span.a.last})
	}
	if r.cfg.Keep != nil {
		r.cfg.Keep(&r.state, false)
	}
	return nil
}

// packet decodes p into d and says which engine is to see it; shards = none.
func (r *run) packet(p *capture.Packet, d *dissect.Datagram) uint8 {
	if r.packets++; r.packets == 1 {
		r.span.begin(r.cfg, r.src.Files(), p.Time)
	}
	out := r.span.see(p.Time)
	r.dec.Decode(p, d)
	own(p, d)
	if r.points.many || d.Tunnel != dissect.TunnelNone {
		r.points.note(p, d)
	}
	r.joiner.Datagram(d)
	hash := headers.Hash(d)
	if !r.cfg.Shard.takes(hash) {
		return shards
	}
	if out || r.cfg.Filter != nil && !r.cfg.Filter(d, p) {
		r.filtered[p.File]++
		return shards
	}
	return uint8(hash % shards)
}

// conclude fills a from what is there when all packets are through.
func (r *run) conclude(a *Analysis) error {
	files := r.src.Files()
	if r.packets == 0 {
		r.span.begin(r.cfg, files, 0)
	}
	r.span.end(files)
	for _, e := range r.engines {
		e.Finish(a.last)
		a.evicted += e.Stats().Evicted
		a.settled += e.Stats().Settled
	}
	a.seen = r.seen(files)
	for i, f := range files {
		c := Capture{FileStats: f}
		for _, e := range r.engines {
			l := e.Ledger(uint32(i))
			c.Ledger.Add(&l)
		}
		c.Ledger[dissect.BucketFiltered] += r.filtered[uint32(i)]
		a.captures = append(a.captures, c)
	}
	r.store.Deaf(a.holes())
	r.store.SetBack(a.setBack())
	if r.cfg.Records != nil {
		if err := r.records(a); err != nil {
			return err
		}
	}
	r.engines, r.state.values = nil, nil
	runtime.GC() // their memory is for the second pass, which would else be given more beside it
	a.clientsOneIn, a.saidOneIn = r.names.OneIn()
	var err error
	a.result, err = r.store.Finalise(r.names, r.cfg.Hints, a.first, a.last)
	return err
}

// seen is what the packets tell of the taps that saw them.
func (r *run) seen(files []capture.FileStats) (s Seen) {
	s.NAT, s.MoreNAT = r.joiner.NAT()
	for i := range s.NAT {
		n := &s.NAT[i]
		n.InnerTap, n.OuterTap = files[n.InnerFile].Observer, files[n.OuterFile].Observer
	}
	s.Loss, s.Coarse = attempt.Losses(r.engines)
	if len(r.points.names) > 1 {
		for i, name := range r.points.names {
			t := TapLoss{Observer: name}
			t.Loss, t.Coarse = attempt.TapLosses(r.engines, i)
			s.Taps = append(s.Taps, t)
		}
	}
	s.Tunnels = r.points.networks()
	if r.cfg.Clocks != nil {
		s.Pairs = r.cfg.Clocks.Pairs
	}
	return s
}

// records adds what was written down by others.
func (r *run) records(a *Analysis) error {
	r.seenBy.settle()
	number := uint32(len(a.captures))
	inputs, from, to, err := r.cfg.Records(r.names, number, func(rec *attempt.Record) {
		if r.seenBy.fresh(rec) && !r.cfg.CountOnly {
			r.store.Add(0, rec)
		}
	})
	if err != nil {
		return err
	}
	a.captures = append(a.captures, inputs...)
	r.seenBy.account(a.captures[number:], number)
	if from == 0 && to == 0 {
		return nil
	}
	if r.packets > 0 {
		from, to = min(from, a.first), max(to, a.last)
	}
	a.first, a.last = from, to
	return nil
}

type work struct {
	batch *capture.Batch
	data  []dissect.Datagram
	shard []uint8 // shards = not for an engine
	users atomic.Int32
	rest  *sync.WaitGroup // nothing to do but to say that all before is done
}

// works are used again: a batch's datagrams take a megabyte. There are never more
// than the queues hold, so that none is left to the collector, as a sync.Pool
// would.
type works struct {
	mu   sync.Mutex
	free []*work
}

func (p *works) take(b *capture.Batch, users int) *work {
	w := &work{}
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		w, p.free = p.free[n-1], p.free[:n-1]
	}
	p.mu.Unlock()
	n := len(b.Packets)
	if cap(w.data) < n {
		w.data, w.shard = make([]dissect.Datagram, n), make([]uint8, n)
	}
	w.batch, w.data, w.shard = b, w.data[:n], w.shard[:n]
	w.users.Store(int32(users))
	b.Retain(users)
	return w
}

func (p *works) done(w *work) {
	w.batch.Release()
	if w.users.Add(-1) == 0 {
		p.mu.Lock()
		p.free = append(p.free, w)
		p.mu.Unlock()
	}
}

// heard is the time that was listened to: that of the packets, within the window.
type heard struct {
	a      *Analysis
	window capture.Window
	any    bool
}

// begin makes the window absolute. Files that were not read tell by their own
// times that there were packets before and after it.
func (h *heard) begin(cfg *Config, files []capture.FileStats, first int64) {
	for i := range files {
		if f := &files[i]; f.First != 0 && (first == 0 || f.First < first) {
			first = f.First
		}
	}
	h.window = cfg.Window.From(first)
	if first != 0 {
		h.see(first)
	}
}

// see takes the time of a packet; true: it lies outside of the window.
func (h *heard) see(t int64) (out bool) {
	w := &h.window
	if w.After != 0 && t < w.After {
		t, out = w.After, true
	}
	if w.Before != 0 && t >= w.Before {
		t, out = w.Before, true
	}
	a := h.a
	if !h.any {
		h.any, a.first, a.last = true, t, t
		return out
	}
	if t < a.first {
		a.first = t
	}
	if t > a.last {
		if t-a.last > silence && len(a.gaps) < maxGaps {
			a.gaps = append(a.gaps, storm.Span{Start: a.last, End: t})
		}
		a.last = t
	}
	return out
}

// end goes on to where the files say that was listened: who did so to the end of
// a silence heard it.
func (h *heard) end(files []capture.FileStats) {
	if !h.any {
		return
	}
	for i := range files {
		if files[i].Unread != "" && files[i].First != 0 {
			h.see(files[i].First)
		}
		last := max(files[i].Ended, files[i].Last)
		if w := h.window.Before; w != 0 {
			last = min(last, w)
		}
		h.a.last = max(h.a.last, last)
	}
}

// own copies a payload that does not alias its packet: reassembled bytes live
// in the decoder only until its next packet.
func own(p *capture.Packet, d *dissect.Datagram) {
	have, all := cap(d.Payload), cap(p.Data)
	if len(d.Payload) == 0 || have <= all && &p.Data[:all][all-have] == &d.Payload[0] {
		return
	}
	d.Payload = append([]byte(nil), d.Payload...)
}
