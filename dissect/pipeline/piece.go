package pipeline

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"squall/capture"
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
	Unnamed     int64
	Seen        Seen
}

const pieceVersion = 2

// Save writes what Join needs of an analysis: its inputs, and its attempts as
// they were before anything was related.
func (a *Analysis) Save(w io.Writer) error {
	head, err := json.Marshal(piece{pieceVersion, a.shard, a.first, a.last, a.gaps, a.captures, a.evicted, a.unnamed, a.seen})
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
// given. An attempt that was still open where a capture of its own ended stays
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
	for _, p := range all {
		a.evicted += p.Evicted
		a.unnamed += p.Unnamed
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
		if packets && p.First-a.last > silence {
			a.gaps = append(a.gaps, storm.Span{Start: a.last, End: p.First})
		}
		for _, g := range p.Gaps {
			if !slices.Contains(a.gaps, g) {
				a.gaps = append(a.gaps, g)
			}
		}
		if !packets {
			a.first = p.First
		}
		packets = true
		a.last = max(a.last, p.Last)
	}
	slices.SortFunc(a.gaps, func(x, y storm.Span) int { return cmp.Compare(x.Start, y.Start) })
	for n, list := range shardsOf {
		if c := list[0].Count; c > 1 && len(list) != c {
			return nil, fmt.Errorf("%s: %d of %d shards are there", a.captures[n].Path, len(list), c)
		}
	}
	names := attempt.NewNames()
	store := attempt.NewStore(attempt.StoreConfig{Memory: cfg.RecordMemory, Temp: cfg.RecordTemp})
	store.Deaf(a.holes())
	store.SetBack(a.setBack())
	for _, p := range all {
		err := store.Load(p.in, names, func(n uint32) (uint32, bool) {
			if int(n) >= len(p.from) {
				return 0, false
			}
			return p.from[n], true
		})
		if err != nil {
			return nil, fmt.Errorf("piece %d: %w", p.nth+1, err)
		}
	}
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
