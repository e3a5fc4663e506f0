package attempt

import (
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"squall/dissect"
)

// Visit runs one visitor per worker, in parallel; they are made one after the
// other. Which clients one sees, and in which order, is left to chance; each client
// is seen once. A visitor with a method Done is told when there are no more.
func (x *Result) Visit(workers int, newVisitor func(worker int) dissect.Visitor) error {
	visitors := make([]dissect.Visitor, max(workers, 1))
	for w := range visitors {
		visitors[w] = newVisitor(w)
	}
	err := x.parts(workers, func(w, _ int, p *part) {
		v := visitors[w]
		var a dissect.Attempt
		for i := range p.clients {
			c := &p.clients[i]
			known := c.Client
			v.Client(&known)
			for j := c.from; j < c.to; j++ {
				w := p.row(j)
				x.fillOf(p, w, &a)
				v.Attempt(&a)
				if w.last {
					in := p.intents[w.intent]
					v.Intent(&in)
				}
			}
		}
	})
	for _, v := range visitors {
		if d, ok := v.(interface{ Done() }); ok {
			d.Done()
		}
	}
	return err
}

func (x *Result) fillOf(p *part, w *related, a *dissect.Attempt) {
	in := &p.intents[w.intent]
	c := &p.clients[w.client]
	x.fill(w, c.ID, c.Level, in.ID, in.Censored, a)
}

// parts finishes all parts, several at a time, in no particular order.
func (x *Result) parts(workers int, visit func(worker, number int, p *part)) error {
	var next atomic.Int32
	errs := make([]error, max(workers, 1))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			scratch := &part{}
			defer scratch.split.close()
			for errs[w] == nil {
				partition := int(next.Add(1) - 1)
				if partition >= Partitions {
					return
				}
				for sub := 0; sub < x.splits && errs[w] == nil; sub++ {
					n := partition*x.splits + sub
					p, err := x.part(n, scratch)
					if errs[w] = err; err == nil {
						visit(w, n, p)
					}
				}
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// Walk visits the clients, part by part, with the attempts of each.
func (x *Result) Walk(visit func(c *dissect.Client, attempts iter.Seq[*dissect.Attempt]) bool) error {
	var a dissect.Attempt
	scratch := &part{}
	defer scratch.split.close()
	for n := range Partitions * x.splits {
		p, err := x.part(n, scratch)
		if err != nil {
			return err
		}
		for i := range p.clients {
			c := p.clients[i]
			rows := func(yield func(*dissect.Attempt) bool) {
				for j := c.from; j < c.to; j++ {
					x.fillOf(p, p.row(j), &a)
					if !yield(&a) {
						return
					}
				}
			}
			if !visit(&c.Client, rows) {
				return nil
			}
		}
	}
	return nil
}

// Attempts gives the rows by start, then id. The struct is reused.
func (x *Result) Attempts(workers int) iter.Seq2[*dissect.Attempt, error] {
	return func(yield func(*dissect.Attempt, error) bool) {
		var clients recall
		texts := newTexts()
		s := sorter[finished]{limit: x.store.spool.limit, chunk: x.mergeChunk(),
			pack:   func(b []byte, w *finished) []byte { return packRow(b, w, texts) },
			unpack: func(u *unpacker, w *finished) { unpackRow(u, w, texts, &clients) },
			less: func(a, b *finished) bool {
				return a.rec.Start < b.rec.Start || a.rec.Start == b.rec.Start && a.id < b.id
			}}
		defer s.spool.close()
		err := x.parts(workers, func(_, number int, p *part) {
			order := make([]int32, len(p.rows))
			for i := range order {
				order[i] = int32(i)
			}
			slices.SortFunc(order, func(a, b int32) int {
				return cmp.Or(cmp.Compare(p.rows[a].rec.Start, p.rows[b].rec.Start), cmp.Compare(p.rows[a].id, p.rows[b].id), cmp.Compare(a, b))
			})
			s.add(number, func(yield func(*finished) bool) {
				for _, i := range order {
					w := &p.rows[i]
					in, c := &p.intents[w.intent], &p.clients[w.client]
					yield(&finished{related: *w, intent: in.ID, censored: in.Censored, who: c.ID, level: c.Level})
				}
			})
		})
		var a dissect.Attempt
		if err == nil {
			err = s.merge(func(w *finished) bool {
				x.fill(&w.related, w.who, w.level, w.intent, w.censored, &a)
				return yield(&a, nil)
			})
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// Intents gives the intents by start, then id. The struct is reused.
func (x *Result) Intents(workers int) iter.Seq2[*dissect.Intent, error] {
	return func(yield func(*dissect.Intent, error) bool) {
		var clients recall
		texts := newTexts()
		s := sorter[dissect.Intent]{limit: x.store.spool.limit, chunk: x.mergeChunk(),
			pack:   func(b []byte, in *dissect.Intent) []byte { return packIntent(b, in, texts) },
			unpack: func(u *unpacker, in *dissect.Intent) { unpackIntent(u, in, texts, &clients) },
			less:   func(a, b *dissect.Intent) bool { return a.Start < b.Start || a.Start == b.Start && a.ID < b.ID }}
		defer s.spool.close()
		err := x.parts(workers, func(_, number int, p *part) {
			all := slices.Clone(p.intents)
			slices.SortFunc(all, func(a, b dissect.Intent) int {
				return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.ID, b.ID))
			})
			s.add(number, func(yield func(*dissect.Intent) bool) {
				for i := range all {
					yield(&all[i])
				}
			})
		})
		if err == nil {
			err = s.merge(func(in *dissect.Intent) bool { return yield(in, nil) })
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// finished is a row on its way through the sorter.
type finished struct {
	related
	intent   uint64
	censored bool
	who      string // its client
	level    dissect.IDLevel
}

func packRow(b []byte, w *finished, t *texts) []byte {
	b = appendRecord(b, &w.rec)
	b = binary.LittleEndian.AppendUint64(b, w.id)
	b = binary.LittleEndian.AppendUint64(b, w.intent)
	b = binary.AppendUvarint(b, t.index(w.service))
	b = binary.AppendVarint(b, w.gap)
	b = appendString(b, w.who)
	b = binary.AppendUvarint(b, uint64(w.number))
	flags := byte(w.relation)
	if w.censored {
		flags |= 0x80
	}
	return append(b, flags, w.proof, byte(w.level))
}

func unpackRow(u *unpacker, w *finished, t *texts, clients *recall) {
	u.record(&w.rec)
	w.id, w.intent = u.fixed(), u.fixed()
	w.service = t.list[u.number()]
	w.gap = u.signed()
	w.who = clients.of(u.take(int(u.number())))
	w.number = int32(u.number())
	flags := u.byte()
	w.relation, w.censored = dissect.Relation(flags&0x7f), flags&0x80 != 0
	w.proof = u.byte()
	w.level = dissect.IDLevel(u.byte())
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// recall gives one string for the same bytes, as far as it remembers.
type recall struct{ known map[string]string }

const recalled = 1 << 16

func (r *recall) of(b []byte) string {
	if text, ok := r.known[string(b)]; ok {
		return text
	}
	if r.known == nil || len(r.known) >= recalled {
		r.known = make(map[string]string)
	}
	text := string(b)
	r.known[text] = text
	return text
}

func packIntent(b []byte, in *dissect.Intent, t *texts) []byte {
	b = binary.LittleEndian.AppendUint64(b, in.ID)
	for _, n := range [...]int64{in.Start, in.End, in.Wait, int64(in.Attempts), int64(in.Retries), int64(in.Nodes)} {
		b = binary.AppendVarint(b, n)
	}
	b = appendString(b, in.ClientID)
	for _, s := range [...]string{in.Service, in.Protocol} {
		b = binary.AppendUvarint(b, t.index(s))
	}
	for _, e := range [...]dissect.Endpoint{in.FirstNode, in.LastNode} {
		b = appendAddr(b, &e.Addr, false)
		b = binary.LittleEndian.AppendUint16(b, e.Port)
	}
	b = appendAddr(b, &in.Source, false)
	censored := byte(0)
	if in.Censored {
		censored = 1
	}
	return append(b, byte(in.Outcome), byte(in.Relation), byte(in.ClosedBy), censored)
}

func unpackIntent(u *unpacker, in *dissect.Intent, t *texts, clients *recall) {
	in.ID = u.fixed()
	in.Start, in.End, in.Wait = u.signed(), u.signed(), u.signed()
	in.Attempts, in.Retries, in.Nodes = int32(u.signed()), int32(u.signed()), int32(u.signed())
	in.ClientID = clients.of(u.take(int(u.number())))
	in.Service, in.Protocol = t.list[u.number()], t.list[u.number()]
	in.FirstNode.Addr, in.FirstNode.Port = u.addr(false), u.port()
	in.LastNode.Addr, in.LastNode.Port = u.addr(false), u.port()
	in.Source = u.addr(false)
	in.Outcome, in.Relation, in.ClosedBy = dissect.Outcome(u.byte()), dissect.Relation(u.byte()), dissect.ClosedBy(u.byte())
	in.Censored = u.byte() == 1
}

// texts numbers strings.
type texts struct {
	mu   sync.Mutex
	at   map[string]uint64
	list []string
}

func newTexts() *texts { return &texts{at: map[string]uint64{}} }

func (t *texts) index(s string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.at[s]
	if !ok {
		n = uint64(len(t.list))
		t.at[s] = n
		t.list = append(t.list, s)
	}
	return n
}

// sorter merges parts that are sorted in themselves.
type sorter[T any] struct {
	limit  int64
	chunk  int // bytes of each part that are in hand while merging
	pack   func([]byte, *T) []byte
	unpack func(*unpacker, *T)
	less   func(a, b *T) bool
	spool  spool
	heads  []*head[T]
}

// mergeChunk is how much of each part is in hand while merging: of all together 4 to
// 32 MB.
func (x *Result) mergeChunk() int { return max(64<<10/x.splits, 8<<10) }

// add takes the items of a part, in order. Parts may be added at the same time.
func (s *sorter[T]) add(number int, items iter.Seq[*T]) {
	var b []byte
	for v := range items {
		if b == nil {
			b = make([]byte, 0, s.chunk+512)
		}
		if b = s.pack(b, v); len(b) >= s.chunk {
			s.put(number, b)
			b = nil
		}
	}
	s.put(number, b)
}

func (s *sorter[T]) put(number int, b []byte) {
	s.spool.mu.Lock()
	s.spool.limit = s.limit
	s.spool.mu.Unlock()
	s.spool.put(number, b)
}

type head[T any] struct {
	chunks []chunk
	u      unpacker
	buf    []byte
	item   T
}

// merge visits all items in order until visit returns false.
func (s *sorter[T]) merge(visit func(item *T) bool) error {
	for _, chunks := range s.spool.runs {
		h := &head[T]{chunks: chunks}
		ok, err := s.next(h)
		if err != nil {
			return err
		}
		if ok {
			s.heads = append(s.heads, h)
		}
	}
	heap.Init(s)
	for len(s.heads) > 0 {
		h := s.heads[0]
		if !visit(&h.item) {
			return nil
		}
		ok, err := s.next(h)
		if err != nil {
			return err
		}
		if ok {
			heap.Fix(s, 0)
		} else {
			heap.Pop(s)
		}
	}
	return nil
}

func (s *sorter[T]) next(h *head[T]) (ok bool, err error) {
	for len(h.u.b) == 0 {
		if len(h.chunks) == 0 {
			return false, nil
		}
		if h.u.b, h.buf, err = s.spool.load(h.chunks[0], h.buf); err != nil {
			return false, err
		}
		h.chunks = h.chunks[1:]
	}
	s.unpack(&h.u, &h.item)
	return true, nil
}

// The methods of heap.Interface.
func (s *sorter[T]) Len() int           { return len(s.heads) }
func (s *sorter[T]) Less(i, j int) bool { return s.less(&s.heads[i].item, &s.heads[j].item) }
func (s *sorter[T]) Swap(i, j int)      { s.heads[i], s.heads[j] = s.heads[j], s.heads[i] }
func (s *sorter[T]) Push(v any)         { s.heads = append(s.heads, v.(*head[T])) }
func (s *sorter[T]) Pop() any {
	last := s.heads[len(s.heads)-1]
	s.heads = s.heads[:len(s.heads)-1]
	return last
}

func (x *Result) fill(w *related, client string, level dissect.IDLevel, intent uint64, censored bool, a *dissect.Attempt) {
	r := &w.rec
	h := r.History[:]
	if n := bytes.IndexByte(h, 0); n >= 0 {
		h = h[:n]
	}
	*a = dissect.Attempt{
		ID: w.id, IntentID: intent, Start: r.Start, End: r.End,
		Source: r.Source, Destination: r.Destination, Proto: r.Proto,
		Protocol: x.names.String(r.Protocol), Op: x.names.String(r.Op), Rung: x.names.String(r.Rung),
		Service: w.service, Role: r.Role, RoleSource: r.RoleSource, RoleProof: float64(w.proof) / 100,
		ClientID: client, ClientIDLevel: level, ClientVersion: x.names.String(r.Version),
		ServerName: x.names.String(r.ServerName), JA3: x.names.String(r.JA3),
		Relation: w.relation, Number: w.number, Outcome: r.Outcome, Evidence: r.Evidence, Answer: r.Answer,
		Late: r.Flags&FlagLate != 0, OneSided: r.Flags&FlagOneSided != 0, Censored: censored,
		Transmissions: r.Transmissions, HandshakeRTT: r.HandshakeRTT, RetryGap: w.gap, RetryAfter: r.RetryAfter,
		AnsweredAt: r.AnsweredAt, GaveUp: r.GaveUp, LastSeen: r.LastSeen, LastHeard: r.LastHeard, HeardAgain: r.HeardAgain, SessionEnd: r.SessionEnd, SessionEnded: r.SessionEnded,
		SourcePackets: r.SourcePackets, SourceBytes: r.SourceBytes, LostBytes: r.LostBytes,
		DestinationPackets: r.DestinationPackets, DestinationBytes: r.DestinationBytes,
		History: letters(h), VLAN: r.VLAN, Tunnel: r.Tunnel, TunnelID: r.TunnelID,
		File: r.File, FirstFrame: r.FirstFrame, LastFrame: r.LastFrame, OverFrame: r.OverFrame, AgainFrame: r.AgainFrame, FirstOffset: r.FirstOffset,
	}
}

// letters shares the histories that most attempts have.
func letters(h []byte) string {
	switch string(h) {
	case "":
		return ""
	case "S":
		return "S"
	case "Sr":
		return "Sr"
	case "ShADadFf":
		return "ShADadFf"
	}
	return string(h)
}
