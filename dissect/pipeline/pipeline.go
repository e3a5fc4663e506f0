// Package pipeline runs the stages: packets, datagrams, records, rows.
package pipeline

import (
	"context"
	"errors"
	"io"
	"iter"
	"runtime"
	"strings"
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
	flowsByShard = 1 << 16 // DefaultFlows / shards
	queued       = 4       // batches before each worker
)

// Config of a run.
type Config struct {
	Workers        int // 0 = GOMAXPROCS
	Protocols      []dissect.Protocol
	KeepDuplicates bool
	// Shard leaves all flows but its own to other runs; their packets are in
	// no bucket of the ledger.
	Shard Shard
	// CountOnly leaves out the rows: captures and the ledger are all there is.
	CountOnly bool
	// Filter says whether a packet is analysed; nil = all.
	Filter func(*dissect.Datagram, *capture.Packet) bool
	// Window is what is analysed, as if the capture began and ended with it;
	// packets outside are "filtered".
	Window   capture.Window
	Hints    dissect.Hints
	MaxFlows int            // followed at the same time, 0 = DefaultFlows
	Progress func(Progress) // called once for each batch; nil = none
	// Clocks are what a survey of several taps found; nil = there was none.
	Clocks *taps.Clocks
	// Records adds attempts that others have written down, whose inputs are
	// numbered from first; nil = none. It says what the inputs were, and the time
	// they span.
	Records func(names *attempt.Names, first uint32, add func(*attempt.Record)) (inputs []Capture, from, to int64, err error)
	// Logger says who wrote down what Records adds just now, where there are
	// several; what two of them saw counts once. nil = there is one.
	Logger func() string
	// Keep is called after each batch, and once more where the run is broken off:
	// the state may then be written, to go on from it in another run. nil = never.
	// It wants files that can be read again, and no Records.
	Keep func(s *State, broken bool)
	// From is such a state; nil = a run from the begin. The source must have been
	// opened with its marks.
	From         *Kept
	RecordMemory int64 // bytes of attempts kept in memory before the rest goes to a temporary file; 0 = 40 MiB
	RecordTemp   int64 // ceiling of that file, bytes; 0 = none
}

// DefaultFlows is how many flows are followed at the same time, some 700 bytes
// each. One more, and the idlest of a few gives way: what was open of it is
// unknown, and counted.
const DefaultFlows = shards * flowsByShard

func (c *Config) flowsByShard() int {
	if c.MaxFlows <= 0 {
		return flowsByShard
	}
	return max(c.MaxFlows/shards, 1)
}

// Progress of a run.
type Progress struct {
	Packets int64
	Time    int64 // of the last packet, ns
}

// Capture is one input with what became of its packets.
type Capture struct {
	capture.FileStats
	Ledger dissect.Ledger
	// Quoted is an input that was not read: rows of a table that was say that
	// they come from it.
	Quoted bool
}

// Dataset is what the rows of an input were read from: "packets", or a log or
// table, as zeek.conn.
func (c *Capture) Dataset() string {
	switch {
	case c.Quoted:
		return c.Format
	case c.Format == "" || c.Format == "pcap" || c.Format == "pcapng" || len(c.LinkTypes) > 0:
		return "packets"
	}
	return strings.ReplaceAll(c.Format, " ", ".")
}

// TransportOnly reports an input that tells of connections alone: nothing of
// the application, of repeats after the handshake, of when answers came.
func (c *Capture) TransportOnly() bool {
	d := c.Dataset()
	return strings.HasPrefix(d, "zeek.") || strings.HasPrefix(d, "suricata.")
}

// Analysis holds the results of a run.
type Analysis struct {
	captures    []Capture
	first, last int64
	gaps        []storm.Span
	shard       Shard
	workers     int
	evicted     int64 // flows given up early
	unnamed     int64 // strings that were one too many
	seen        Seen
	result      rows
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

// Run reads src to its end and analyses it. When ctx is cancelled or src fails
// the analysis of what was read is returned together with the error.
func Run(ctx context.Context, cfg Config, src capture.Source) (*Analysis, error) {
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	n := min(cfg.Workers, shards)
	names := attempt.NewNames()
	store := attempt.NewStore(attempt.StoreConfig{Shards: shards, Memory: cfg.RecordMemory, Temp: cfg.RecordTemp})
	add := store.Add
	if cfg.CountOnly {
		add = func(int, *attempt.Record) {}
	}
	var seenBy *witnesses
	if cfg.Records != nil {
		seenBy = &witnesses{of: cfg.Logger, shard: make([][]witnessed, shards), logged: map[uint64][]loggedBy{}, both: map[uint32]int64{}}
		to := add
		add = func(shard int, r *attempt.Record) {
			if r.Flags&attempt.FlagOlder == 0 {
				seenBy.packet(shard, r)
			}
			to(shard, r)
		}
	}
	points := newPoints(src.Files(), cfg.Clocks)
	joiner := taps.NewJoiner(points.many)
	engines := make([]*attempt.Engine, shards)
	for i := range engines {
		engines[i] = attempt.NewEngine(attempt.Config{Protocols: cfg.Protocols, KeepDuplicates: cfg.KeepDuplicates, MaxFlows: cfg.flowsByShard(), CopyWithin: points.within, Taps: points.taps()},
			names, func(r *attempt.Record) { add(i, r) })
	}
	queues := make([]chan *work, n)
	var pool works
	var wg sync.WaitGroup
	for w := range queues {
		queues[w] = make(chan *work, queued)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for b := range queues[w] {
				if b.rest != nil {
					b.rest.Done()
					continue
				}
				for i, s := range b.shard {
					if s < shards && int(s)%n == w {
						engines[s].Datagram(&b.data[i])
					}
				}
				pool.done(b)
			}
		}()
	}
	a := &Analysis{workers: n, shard: cfg.Shard}
	span := heard{a: a}
	filtered := map[uint32]int64{}
	var dec headers.Decoder
	var packets int64
	var failed error
	state := State{src: src, queues: queues, store: store, names: names, taken: make([]int64, len(src.Files()))}
	state.values = []any{names, joiner, points, &dec, &span, &filtered, &packets, &state.taken}
	for _, e := range engines {
		state.values = append(state.values, e)
	}
	if cfg.From != nil {
		failed = cfg.From.into(&state)
	}
	for failed == nil {
		if failed = ctx.Err(); failed != nil {
			break
		}
		b, err := src.Next()
		if err != nil {
			failed = err
			break
		}
		w := pool.take(b, n)
		for i := range b.Packets {
			p, d := &b.Packets[i], &w.data[i]
			if packets++; packets == 1 {
				span.begin(&cfg, src.Files(), p.Time)
			}
			out := span.see(p.Time)
			dec.Decode(p, d)
			own(p, d)
			if points.many || d.Tunnel != dissect.TunnelNone {
				points.note(p, d)
			}
			joiner.Datagram(d)
			hash := headers.Hash(d)
			w.shard[i] = uint8(hash % shards)
			if !cfg.Shard.takes(hash) {
				w.shard[i] = shards
				continue
			}
			if out || cfg.Filter != nil && !cfg.Filter(d, p) {
				w.shard[i] = shards
				filtered[p.File]++
			}
		}
		for _, q := range queues {
			q <- w
		}
		if cfg.Keep != nil {
			for i := range b.Packets {
				state.taken[b.Packets[i].File] = b.Packets[i].Frame
			}
		}
		b.Release()
		if cfg.Progress != nil {
			cfg.Progress(Progress{packets, a.last})
		}
		if cfg.Keep != nil {
			cfg.Keep(&state, false)
		}
	}
	if cfg.Keep != nil && ctx.Err() != nil {
		cfg.Keep(&state, true)
	}
	for _, q := range queues {
		close(q)
	}
	wg.Wait()
	if errors.Is(failed, io.EOF) {
		failed = nil
	}
	files := src.Files()
	if packets == 0 {
		span.begin(&cfg, files, 0)
	}
	span.end(files)
	for _, e := range engines {
		e.Finish(a.last)
		a.evicted += e.Stats().Evicted
	}
	a.unnamed = names.Refused()
	a.seen.NAT, a.seen.MoreNAT = joiner.NAT()
	for i := range a.seen.NAT {
		n := &a.seen.NAT[i]
		n.InnerTap, n.OuterTap = files[n.InnerFile].Observer, files[n.OuterFile].Observer
	}
	a.seen.Loss, a.seen.Coarse = attempt.Losses(engines)
	if len(points.names) > 1 {
		for i, name := range points.names {
			t := TapLoss{Observer: name}
			t.Loss, t.Coarse = attempt.TapLosses(engines, i)
			a.seen.Taps = append(a.seen.Taps, t)
		}
	}
	a.seen.Tunnels = points.networks()
	if cfg.Clocks != nil {
		a.seen.Pairs = cfg.Clocks.Pairs
	}
	for i, f := range files {
		c := Capture{FileStats: f}
		for _, e := range engines {
			l := e.Ledger(uint32(i))
			c.Ledger.Add(&l)
		}
		c.Ledger[dissect.BucketFiltered] += filtered[uint32(i)]
		a.captures = append(a.captures, c)
	}
	store.Deaf(a.holes())
	store.SetBack(a.setBack())
	var err error
	if cfg.Records != nil {
		seenBy.settle()
		number := uint32(len(a.captures))
		if err = a.records(&cfg, names, func(r *attempt.Record) {
			if seenBy.fresh(r) && !cfg.CountOnly {
				store.Add(0, r)
			}
		}, packets > 0); err != nil {
			return nil, err
		}
		seenBy.account(a.captures[number:], number)
	}
	if a.result, err = store.Finalise(names, cfg.Hints, a.first, a.last); err != nil {
		return nil, err
	}
	return a, failed
}

// records adds what was written down by others.
func (a *Analysis) records(cfg *Config, names *attempt.Names, add func(*attempt.Record), packets bool) error {
	inputs, from, to, err := cfg.Records(names, uint32(len(a.captures)), add)
	if err != nil {
		return err
	}
	a.captures = append(a.captures, inputs...)
	if from == 0 && to == 0 {
		return nil
	}
	if packets {
		from, to = min(from, a.first), max(to, a.last)
	}
	a.first, a.last = from, to
	return nil
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

// Close gives memory and temporary file back.
func (a *Analysis) Close() error { return a.result.Close() }

// Captures describes the inputs.
func (a *Analysis) Captures() []Capture { return a.captures }

// Ledger is the sum over all inputs.
func (a *Analysis) Ledger() (l dissect.Ledger) {
	for i := range a.captures {
		l.Add(&a.captures[i].Ledger)
	}
	return l
}

// Span is the earliest and latest packet time, ns.
func (a *Analysis) Span() (first, last int64) { return a.first, a.last }

// Attempts gives the attempts by start, then id.
func (a *Analysis) Attempts() iter.Seq2[*dissect.Attempt, error] { return a.result.Attempts(a.workers) }

// Intents gives the intents by start, then id.
func (a *Analysis) Intents() iter.Seq2[*dissect.Intent, error] { return a.result.Intents(a.workers) }

// Clients gives the clients, with what each did. Their order is fixed by
// content: by partition, then id.
func (a *Analysis) Clients() iter.Seq2[*storm.Client, error] {
	return func(yield func(*storm.Client, error) bool) {
		err := a.result.Walk(func(c *dissect.Client, attempts iter.Seq[*dissect.Attempt]) bool {
			row := storm.Summarise(c, attempts)
			return yield(&row, nil)
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// Visit hands everything to one visitor per worker, in parallel. They are made one
// after the other; which clients one sees, and in which order, is left to chance.
func (a *Analysis) Visit(newVisitor func(worker int) dissect.Visitor) error {
	return a.result.Visit(a.workers, newVisitor)
}
