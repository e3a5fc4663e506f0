package pipeline

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/storm"
)

// Shard is one of several runs that share the flows of the same inputs among
// them: run Index of Count, counted from 0. The zero value takes all.
type Shard struct{ Index, Count int }

// takes says whether a packet with this hash belongs to the shard.
func (s Shard) takes(hash uint64) bool {
	return s.Count <= 1 || hash/shards%uint64(s.Count) == uint64(s.Index)
}

// piece is the head of a saved analysis, one line of JSON.
type piece struct {
	Squall      int // version of the format
	Shard       Shard
	First, Last int64
	Gaps        []storm.Span
	Captures    []Capture
	Evicted     int64
	Settled     int64
	Seen        Seen
}

const pieceVersion = 3

// written is 1 for a piece that holds what others had written down.
func (p *piece) written() int {
	if slices.ContainsFunc(p.Captures, func(c Capture) bool { return c.Dataset() != "packets" }) {
		return 1
	}
	return 0
}

// heard is the time of the piece without its silences.
func (p *piece) heard() (out []storm.Span) {
	from := p.First
	for _, g := range p.Gaps {
		out = append(out, storm.Span{Start: from, End: g.Start})
		from = g.End
	}
	return append(out, storm.Span{Start: from, End: p.Last})
}

// silences are between what was heard.
func silences(heard []storm.Span) (out []storm.Span) {
	slices.SortFunc(heard, func(x, y storm.Span) int { return cmp.Compare(x.Start, y.Start) })
	for i, h := range heard {
		if i > 0 && h.Start-heard[i-1].End > silence {
			out = append(out, storm.Span{Start: heard[i-1].End, End: h.Start})
		}
		if i > 0 {
			heard[i].End = max(h.End, heard[i-1].End)
		}
	}
	return out
}

// apart are the taps of captures, where the clocks of several were neither compared
// nor given.
func apart(captures []Capture) (names []string) {
	uncompared := 0
	for i := range captures {
		c := &captures[i]
		if name := cmp.Or(c.Observer, "captures without a name"); c.Dataset() == "packets" && !slices.Contains(names, name) {
			names = append(names, name)
			if c.Clock.Source == "" {
				uncompared++
			}
		}
	}
	if uncompared < 2 {
		return nil
	}
	return names
}

// shares says that two pieces are shards of one analysis, which have no flow in
// common.
func (p *piece) shares(o *piece) bool {
	return p.Shard.Count > 1 && p.Shard.Count == o.Shard.Count && slices.EqualFunc(p.Captures, o.Captures, func(x, y Capture) bool { return keyOf(&x.FileStats) == keyOf(&y.FileStats) })
}

// Save writes what Join needs of an analysis: its inputs, and its attempts as
// they were before anything was related.
func (a *Analysis) Save(w io.Writer) error {
	head, err := json.Marshal(piece{pieceVersion, a.shard, a.first, a.last, a.gaps, a.captures, a.evicted, a.settled, a.seen})
	if err != nil {
		return err
	}
	if _, err := w.Write(append(head, '\n')); err != nil {
		return err
	}
	return a.result.Save(w)
}

// Join makes one analysis of saved pieces, in whatever order they are given:
// shards of the same inputs, captures of different times, or of different taps.
// Intents, sessions and identities are joined over the pieces' edges, since
// they are found anew. Shards give the bytes that one run over all would have
// given. An attempt that several pieces saw, of different taps or in packets and in
// a log, counts once, as packets have it and the earlier piece; only Run sees
// through NAT. An attempt that was still open where a capture of its own ended stays
// unknown, as if the others did not exist.
func Join(cfg Config, pieces []io.Reader) (*Analysis, error) {
	type opened struct {
		piece
		in   *bufio.Reader
		nth  int
		from []uint32 // number of each of its captures in the whole
	}
	var all []*opened
	for i, r := range pieces {
		p := &opened{in: bufio.NewReaderSize(r, 1<<16), nth: i}
		line, err := p.in.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &p.piece)
		}
		if err != nil || p.Squall != pieceVersion {
			return nil, fmt.Errorf("piece %d: %w: no head of version %d", i+1, attempt.ErrSaved, pieceVersion)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *opened) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last), slices.CompareFunc(a.Captures, b.Captures,
			func(x, y Capture) int { return cmp.Compare(x.Path, y.Path) }), cmp.Compare(a.Shard.Index, b.Shard.Index))
	})
	a := &Analysis{workers: max(cfg.Workers, 1)}
	seen := map[captureKey]uint32{}
	shardsOf := map[uint32][]Shard{}
	packets := false
	var heard []storm.Span
	for _, p := range all {
		a.evicted += p.Evicted
		a.settled += p.Settled
		a.seen.join(&p.Seen, p.Captures, p.Shard.Count > 1)
		for _, c := range p.Captures {
			k := keyOf(&c.FileStats)
			n, ok := seen[k]
			if ok && p.Shard.Count > 1 {
				if slices.Contains(shardsOf[n], p.Shard) || shardsOf[n][0].Count != p.Shard.Count {
					return nil, fmt.Errorf("%s: shard %d/%d is there twice, or beside shards of another count", c.Path, p.Shard.Index, p.Shard.Count)
				}
				a.captures[n].Ledger.Add(&c.Ledger)
			} else {
				n = uint32(len(a.captures))
				seen[k] = n
				a.captures = append(a.captures, c)
			}
			shardsOf[n] = append(shardsOf[n], p.Shard)
			p.from = append(p.from, n)
		}
		if p.First == 0 && p.Last == 0 {
			continue
		}
		heard = append(heard, p.heard()...)
		if !packets {
			a.first = p.First
		}
		packets = true
		a.last = max(a.last, p.Last)
	}
	a.seen.Apart = append(a.seen.Apart, apart(a.captures)...)
	slices.Sort(a.seen.Apart)
	a.seen.Apart = slices.Compact(a.seen.Apart)
	a.gaps = silences(heard)
	for n, list := range shardsOf {
		if c := list[0].Count; c > 1 && len(list) != c {
			return nil, fmt.Errorf("%s: %d of %d shards are there", a.captures[n].Path, len(list), c)
		}
	}
	names := attempt.NewNames(cfg.MaxNames)
	store := attempt.NewStore(attempt.StoreConfig{Memory: cfg.RecordMemory, Temp: cfg.RecordTemp, Part: cfg.Part, Nodes: cfg.MaxNodes})
	store.Deaf(a.holes())
	store.SetBack(a.setBack())
	// What several pieces saw counts once. Logs come last: packets tell more.
	slices.SortStableFunc(all, func(a, b *opened) int { return cmp.Compare(a.written(), b.written()) })
	var known seenBefore
	log := map[uint32]uint64{}
	for i := range a.captures {
		if c := &a.captures[i]; c.Dataset() != "packets" {
			kind, _, _ := strings.Cut(c.Dataset(), ".")
			log[uint32(i)] = dissect.Hash64(dissect.Hash64(1, []byte(c.Observer)), []byte(kind)) | 1 // never 0: packets
		}
	}
	logged := map[uint32]int64{}
	for _, p := range all {
		var others []storm.Span
		for _, o := range all {
			if o != p && !o.shares(&p.piece) && o.Last != 0 {
				others = append(others, storm.Span{Start: o.First - witnessWithin, End: o.Last + witnessWithin})
			}
		}
		err := store.Load(p.in, names, func(n uint32) (uint32, bool) {
			if int(n) >= len(p.from) {
				return 0, false
			}
			return p.from[n], true
		}, func(r *attempt.Record) bool {
			if !slices.ContainsFunc(others, func(s storm.Span) bool { return r.Start >= s.Start && r.Start <= s.End }) {
				return true
			}
			if known.fresh(r, log[r.File]) {
				return true
			}
			if log[r.File] != 0 {
				logged[r.File]++
			} else {
				a.seen.Again++
			}
			return false
		})
		known.settle()
		if err != nil {
			return nil, fmt.Errorf("piece %d: %w", p.nth+1, err)
		}
	}
	(&witnesses{both: logged}).account(a.captures, 0)
	a.clientsOneIn, a.saidOneIn = names.OneIn()
	var err error
	a.result, err = store.Finalise(names, cfg.Hints, a.first, a.last)
	return a, err
}

// captureKey tells whether two shards read the same input.
type captureKey struct {
	path                        string
	packets, bytes, first, last int64
}

func keyOf(f *capture.FileStats) captureKey {
	return captureKey{f.Path, f.Packets, f.Bytes, f.First, f.Last}
}

// SaveName is what a saved analysis is called in its directory.
const SaveName = "attempts.squall"

// Whole says that the analysis is not a shard of a greater one.
func (a *Analysis) Whole() bool { return a.shard.Count <= 1 }
