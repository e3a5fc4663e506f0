package attempt

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"squall/dissect"
)

// MaxNodes is of how many nodes it is kept what all their records say together, some
// 250 bytes each, and how many have a row in the end. Of more, those are that were
// tried most; of the others each record says what it says, and no more: their
// protocol is not known where it is silent, nor their role by behaviour.
const MaxNodes = 1 << 16

const (
	factStripes = 64
	// censusSize is how many counters the records of nodes are counted with where there
	// are too many nodes for one each, 16 MB together.
	censusSize = 1 << 22
	// censusMemory is how much of the list of nodes is kept in memory to count them.
	censusMemory = 8 << 20
)

// facts are what records say about their nodes. All shards share them: many clients
// in each come to the same few.
type facts struct {
	most int
	n    atomic.Int64
	many atomic.Bool // there are more nodes, and nothing is known until recount
	of   [factStripes]stripe

	all int64 // nodes, once they are counted
}

type stripe struct {
	mu    sync.Mutex
	nodes map[nodeKey]*nodeFacts
}

// hand is the node of a shard's last record.
type hand struct {
	at    nodeKey
	in    *stripe // nil = none
	facts *nodeFacts
}

func (k *nodeKey) hash() uint64 {
	return dissect.Hash64(uint64(k.proto)<<16|uint64(k.at.Port), k.at.Addr[:])
}

func (f *facts) clear() {
	for i := range f.of {
		s := &f.of[i]
		s.mu.Lock()
		s.nodes = map[nodeKey]*nodeFacts{}
		s.mu.Unlock()
	}
}

// note takes a record. Shards may do so at the same time.
func (f *facts) note(r *Record, h *hand) {
	if f.many.Load() {
		return
	}
	k := nodeKey{r.Destination, r.Proto}
	if h.in == nil || h.at != k {
		h.at, h.in, h.facts = k, &f.of[k.hash()%factStripes], nil
	}
	h.in.mu.Lock()
	fits := true
	if h.facts == nil {
		if h.facts = h.in.nodes[k]; h.facts == nil {
			fits = f.n.Add(1) <= int64(f.most)
			h.facts = &nodeFacts{}
			h.in.nodes[k] = h.facts
		}
	}
	h.facts.note(r)
	h.in.mu.Unlock()
	if !fits && !f.many.Swap(true) {
		f.clear()
	}
}

// whole are the facts by node.
func (s *Store) whole() (map[nodeKey]*nodeFacts, error) {
	f := &s.facts
	if f.many.Load() {
		return s.recount()
	}
	f.all = f.n.Load()
	nodes := make(map[nodeKey]*nodeFacts, f.all)
	for i := range f.of {
		for k, n := range f.of[i].nodes {
			nodes[k] = n
		}
		f.of[i].nodes = nil
	}
	return nodes, nil
}

// attempts visits all records but those of older sessions, which are used again.
func (s *Store) attempts(visit func(*Record)) error {
	for p := range Partitions {
		if err := s.records(p, visit); err != nil {
			return err
		}
	}
	return nil
}

// recount finds the facts of the nodes with most records, where there are too many
// nodes for the facts of all. A first look counts records, for each node with all
// those that share its counter, and lists the nodes; a second one takes the facts of
// those with the highest counts. Which ones these are depends on nothing but the
// records.
func (s *Store) recount() (map[nodeKey]*nodeFacts, error) {
	f := &s.facts
	f.clear()
	counts := make([]uint32, censusSize)
	list := spool{limit: censusMemory, ceiling: s.spool.ceiling}
	defer list.close()
	var open [Partitions][]byte
	var last uint64
	err := s.attempts(func(r *Record) {
		k := nodeKey{r.Destination, r.Proto}
		h := k.hash()
		if c := &counts[h%censusSize]; *c < 1<<32-1 {
			*c++
		}
		if h == last {
			return
		}
		last = h
		p := h % Partitions
		if open[p] = binary.LittleEndian.AppendUint64(open[p], h); len(open[p]) >= chunkBytes {
			open[p] = list.put(int(p), open[p])
		}
	})
	if err != nil {
		return nil, err
	}
	for p, b := range open {
		list.put(p, b)
	}
	if f.all, err = distinct(&list); err != nil {
		return nil, err
	}
	w := newWorth(counts, f.most)
	nodes := map[nodeKey]*nodeFacts{}
	err = s.attempts(func(r *Record) {
		k := nodeKey{r.Destination, r.Proto}
		h := k.hash()
		if !w.enough(counts[h%censusSize], h) {
			return
		}
		n := nodes[k]
		if n == nil {
			n = &nodeFacts{}
			nodes[k] = n
			for len(nodes) > f.most {
				w.raise()
				for k := range nodes {
					if h := k.hash(); !w.enough(counts[h%censusSize], h) {
						delete(nodes, k)
					}
				}
			}
		}
		n.note(r)
	})
	return nodes, err
}

// worth is what a node must have for its facts to be kept: a count over one, or that
// one and a hash that is low enough.
type worth struct {
	count uint32
	hash  uint64
}

// newWorth lets pass somewhat more than so many counters.
func newWorth(counts []uint32, most int) worth {
	const top = 1 << 16
	by := make([]int, top+1) // counters by count
	for _, c := range counts {
		by[min(c, top)]++
	}
	n, c := 0, uint32(top)
	for ; c > 1 && n+by[c] <= most; c-- {
		n += by[c]
	}
	return worth{c, ^uint64(0)}
}

func (w *worth) enough(count uint32, hash uint64) bool {
	return count > w.count || count == w.count && hash <= w.hash
}

func (w *worth) raise() {
	if w.hash >>= 1; w.hash == 0 {
		w.count, w.hash = w.count+1, ^uint64(0)
	}
}

// distinct counts different numbers.
func distinct(list *spool) (n int64, err error) {
	known := map[uint64]struct{}{}
	for p := range Partitions {
		clear(known)
		if err := list.each(p, func(b []byte) {
			for ; len(b) >= 8; b = b[8:] {
				known[binary.LittleEndian.Uint64(b)] = struct{}{}
			}
		}); err != nil {
			return 0, err
		}
		n += int64(len(known))
	}
	return n, nil
}
