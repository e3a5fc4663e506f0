package attempt

import (
	"encoding/binary"
	"slices"

	"squall/dissect"
)

const (
	// partRecords is about how many attempts are finished at a time, some 1.2 kB each.
	partRecords = 1 << 16
	// maxSplits bounds the parts of a partition; parts are larger beyond 268 million attempts.
	maxSplits = 64
	// splitMemory is how much of a divided partition each worker keeps in memory, and
	// movedMemory how much of the records that identities were lent to.
	splitMemory = 8 << 20
	movedMemory = 8 << 20
	// keptRecords is how many attempts a result may have for its partitions to be
	// kept, some 100 MB.
	keptRecords = 1 << 18
	// leastPacked is about the least that a packed record takes, bytes.
	leastPacked = 72
)

// splitsOf is how many parts of so many records each partition is finished in. It
// depends on how many attempts there are and on nothing else, so that the order of
// clients does not tell how they were read.
func splitsOf(attempts int64, records int) int {
	all := Partitions * int64(records)
	return int(min(max((attempts+all-1)/all, 1), maxSplits))
}

// person is a hash of what tells the client of a record apart, its partition in the
// lower bits; lent is the identity that its address lends it.
func (r *Record) person(lent uint64) uint64 {
	switch {
	case r.ClientKey != 0:
		return dissect.Mix64(r.ClientKey)
	case lent != 0:
		return dissect.Mix64(lent)
	}
	a := r.client()
	return dissect.Hash64(2, a[:])
}

// appendLent packs a record with the identity that it is lent.
func appendLent(b []byte, lent uint64, packed []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(b, lent), packed...)
}

// eachLent is the inverse. The record is used again.
func eachLent(data []byte, visit func(lent uint64, packed []byte, r *Record)) {
	var r Record
	for len(data) >= 8 {
		u := unpacker{b: data[8:]}
		u.record(&r)
		visit(binary.LittleEndian.Uint64(data), data[8:len(data)-len(u.b)], &r)
		data = u.b
	}
}

// own visits the records that were put into a partition, with the identity that the
// address lends to those that say none.
func (x *Result) own(n int, homes map[dissect.Addr]lent, visit func(lent uint64, packed []byte, r *Record)) error {
	var r Record
	return x.store.spool.each(n, func(data []byte) {
		for u := (unpacker{b: data}); len(u.b) > 0; {
			from, key := u.b, uint64(0)
			u.record(&r)
			if len(homes) > 0 && r.ClientKey == 0 {
				if l := homes[*r.client()]; !l.many {
					key = l.key
				}
			}
			visit(key, from[:len(from)-len(u.b)], &r)
		}
	})
}

// reunite copies records that say no identity to the partition of the one that
// their address lends them. There are none unless a protocol names its clients.
func (x *Result) reunite() error {
	var open [Partitions][]byte
	for n := range Partitions {
		homes, err := x.store.housed(n)
		if err != nil {
			return err
		}
		if len(homes) == 0 {
			continue
		}
		err = x.own(n, homes, func(lent uint64, packed []byte, _ *Record) {
			if to := partitionOfKey(lent); lent != 0 && to != n {
				if open[to] = appendLent(open[to], lent, packed); len(open[to]) > chunkBytes-packedMost {
					open[to] = x.moved.put(to, open[to])
				}
			}
		})
		if err != nil {
			return err
		}
	}
	for n, b := range open {
		x.moved.put(n, b)
	}
	return nil
}

// members visits the records of the clients of a partition.
func (x *Result) members(n int, visit func(lent uint64, packed []byte, r *Record)) error {
	homes, err := x.store.housed(n)
	if err != nil {
		return err
	}
	err = x.own(n, homes, func(lent uint64, packed []byte, r *Record) {
		if lent == 0 || partitionOfKey(lent) == n {
			visit(lent, packed, r)
		}
	})
	if err != nil {
		return err
	}
	return x.moved.each(n, func(data []byte) { eachLent(data, visit) })
}

// divide spreads a partition over the parts that it is finished in.
func (x *Result) divide(n int, p *part) error {
	if p.divided == n+1 {
		return nil
	}
	p.split.limit, p.split.ceiling = splitMemory, x.store.spool.ceiling
	p.split.empty()
	p.divided = n + 1
	open := make([][]byte, x.splits)
	err := x.members(n, func(lent uint64, packed []byte, r *Record) {
		to := r.person(lent) / Partitions % uint64(x.splits)
		if open[to] == nil {
			open[to] = make([]byte, 0, chunkBytes)
		}
		if open[to] = appendLent(open[to], lent, packed); len(open[to]) > chunkBytes-packedMost {
			open[to] = p.split.put(int(to), open[to])
		}
	})
	for to, b := range open {
		p.split.put(to, b)
	}
	return err
}

// part finishes the n-th of all parts. It is written into scratch, whose content is
// lost, unless it is kept.
func (x *Result) part(n int, scratch *part) (*part, error) {
	small := x.count <= keptRecords && x.splits == 1
	if small {
		x.mu.Lock()
		kept := x.kept[n]
		x.mu.Unlock()
		if kept != nil {
			return kept, nil
		}
		scratch = &part{}
	}
	p := scratch
	p.names = x.names
	if p.texts == nil {
		p.texts = map[string]string{}
	}
	if p.older == nil {
		p.older = map[dissect.Addr][]Record{}
	}
	clear(p.older)
	p.rows, p.clients, p.intents = p.rows[:0], p.clients[:0], p.intents[:0]
	add := func(lent uint64, _ []byte, r *Record) {
		if r.Flags&FlagOlder != 0 {
			p.older[r.Source.Addr] = append(p.older[r.Source.Addr], *r)
			return
		}
		p.rows = slices.Grow(p.rows, 1)[:len(p.rows)+1]
		p.rows[len(p.rows)-1] = related{rec: *r, lent: lent}
		if x.dropped {
			x.names.forget(&p.rows[len(p.rows)-1].rec)
		}
	}
	if x.splits == 1 {
		p.rows = slices.Grow(p.rows, (x.store.spool.bytes(n)+x.moved.bytes(n))/leastPacked)
		if err := x.members(n, add); err != nil {
			return nil, err
		}
	} else {
		if err := x.divide(n/x.splits, p); err != nil {
			return nil, err
		}
		sub := n % x.splits
		p.rows = slices.Grow(p.rows, p.split.bytes(sub)/leastPacked)
		if err := p.split.each(sub, func(data []byte) { eachLent(data, add) }); err != nil {
			return nil, err
		}
	}
	x.finish(p)
	if small {
		p.spare, p.keys, p.people, p.older = nil, nil, people{}, nil
		x.mu.Lock()
		x.kept[n] = p
		x.mu.Unlock()
	}
	return p, nil
}
