package pipeline

import (
	"cmp"
	"fmt"
	"slices"

	"squall/dissect"
	"squall/dissect/attempt"
)

// witnessWithin is how far the clocks of a logger and of a capture may be apart
// for a connection in both to be known as one, ns. A port is not used again for
// the same node so soon.
const witnessWithin = int64(1e9)

// witnessed is a connection that somebody saw.
type witnessed struct {
	key         uint64
	first, last int64 // packet, ns
}

// witnesses find what several have seen: packets and logs, or logs of several
// loggers. What came first counts; packets come before logs.
type witnesses struct {
	of      func() string  // whose log is read; nil = there is one
	shard   [][]witnessed  // of packets, while they are read
	renamed []witnessed    // flows by addresses that NAT had given them
	latest  map[uint64]int // of renamed, by connection
	packets []witnessed
	logged  map[uint64][]loggedBy
	both    map[uint32]int64 // records of each log that another had
}

type loggedBy struct {
	witnessed
	who string
}

// saw makes the entry of a record. Who began is left out: a capture that began
// in the middle may have it the other way round.
func saw(r *attempt.Record) witnessed {
	return witnessed{connection(r.Proto, r.Source, r.Destination), r.Start, max(r.LastSeen, r.Start)}
}

func connection(proto uint8, a, b dissect.Endpoint) uint64 {
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	h := dissect.FoldBytes(uint64(proto)<<32|uint64(a.Port)<<16|uint64(b.Port), a.Addr[:])
	return dissect.FoldBytes(h, b.Addr[:])
}

func (w *witnessed) meets(o *witnessed) bool {
	return w.first-witnessWithin <= o.last && o.first <= w.last+witnessWithin
}

// packet takes a record of a shard.
func (w *witnesses) packet(shard int, r *attempt.Record) {
	w.shard[shard] = append(w.shard[shard], saw(r))
}

// renamedPause is the longest within a flow through NAT, ns: after it the same
// addresses make another entry.
const renamedPause = int64(60e9)

// rename takes a flow under addresses that NAT gave it.
func (w *witnesses) rename(proto uint8, a, b dissect.Endpoint, at int64) {
	key := connection(proto, a, b)
	if n, ok := w.latest[key]; ok && at >= w.renamed[n].first && at <= w.renamed[n].last+renamedPause {
		w.renamed[n].last = max(w.renamed[n].last, at)
		return
	}
	w.latest[key] = len(w.renamed)
	w.renamed = append(w.renamed, witnessed{key, at, at})
}

// settle is called when all packets were read.
func (w *witnesses) settle() {
	w.packets, w.shard, w.renamed, w.latest = slices.Concat(append(w.shard, w.renamed)...), nil, nil, nil
	slices.SortFunc(w.packets, func(a, b witnessed) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.first, b.first)) })
}

// fresh takes a record of a log; false: another saw it, too.
func (w *witnesses) fresh(r *attempt.Record) bool {
	x := saw(r)
	n, _ := slices.BinarySearchFunc(w.packets, x.key, func(p witnessed, key uint64) int { return cmp.Compare(p.key, key) })
	for ; n < len(w.packets) && w.packets[n].key == x.key; n++ {
		if x.meets(&w.packets[n]) {
			w.both[r.File]++
			return false
		}
	}
	if w.of == nil {
		return true
	}
	who := w.of()
	for _, l := range w.logged[x.key] {
		if l.who != who && x.meets(&l.witnessed) {
			w.both[r.File]++
			return false
		}
	}
	w.logged[x.key] = append(w.logged[x.key], loggedBy{x, who})
	return true
}

// account moves what another had to the copies of its log.
func (w *witnesses) account(inputs []Capture, first uint32) {
	for i := range inputs {
		l := &inputs[i].Ledger
		n := min(w.both[first+uint32(i)], l[dissect.BucketAttempt])
		l[dissect.BucketAttempt] -= n
		l[dissect.BucketCopy] += n
	}
}

// seenBefore finds, while pieces are joined, what an earlier one saw.
type seenBefore struct {
	list, now []sighting // by key; of the piece in hand
}

type sighting struct {
	witnessed
	number uint64 // of its SYN or transaction; of a log, who wrote it
	log    bool
}

// fresh takes a record of the piece in hand; false: an earlier piece has it. log
// is who wrote it down, 0 = packets. Of packets it is the number of the SYN, or the
// transaction, that tells; a repeat comes a second later, and is none.
func (s *seenBefore) fresh(r *attempt.Record, log uint64) bool {
	x := sighting{saw(r), r.Txn, log != 0}
	if x.log {
		x.number = log
	}
	n, _ := slices.BinarySearchFunc(s.list, x.key, func(o sighting, key uint64) int { return cmp.Compare(o.key, key) })
	for ; n < len(s.list) && s.list[n].key == x.key; n++ {
		o := &s.list[n]
		switch {
		case x.log != o.log && x.meets(&o.witnessed), x.log && o.log && x.number != o.number && x.meets(&o.witnessed):
			return false
		case !x.log && !o.log && x.number == o.number && max(x.first-o.first, o.first-x.first) < witnessWithin:
			return false
		}
	}
	s.now = append(s.now, x)
	return true
}

// settle is called at the end of each piece.
func (s *seenBefore) settle() {
	s.list, s.now = append(s.list, s.now...), s.now[:0]
	slices.SortFunc(s.list, func(a, b sighting) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.first, b.first), cmp.Compare(a.number, b.number))
	})
}

// BothWords says how many connections of a log others saw, too; empty for
// captures, and where there are none.
func (c *Capture) BothWords() string {
	n, rest := c.Ledger[dissect.BucketCopy], c.Ledger[dissect.BucketAttempt]
	if n == 0 || c.Dataset() == "packets" {
		return ""
	}
	name := c.Path
	if c.Observer != "" {
		name = c.Observer + ": " + c.Path
	}
	return fmt.Sprintf("%s: %d of %d connections were seen in packets or by another logger, too (%.1f %%), and count there", name, n, n+rest, 100*float64(n)/float64(n+rest))
}
