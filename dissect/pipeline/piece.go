package pipeline

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
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
	Count       int // of shards; 0 = the whole
	Shards      []int
	First, Last int64
	Gaps        []storm.Span
	Captures    []Capture
	Evicted     int64
	Settled     int64
	Seen        Seen
	Made        []string // words that the analysis was made with
}

const pieceVersion = 4

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

// with adds what another shard of the same analysis, or several of them, have found.
// All of them have read the same packets; each has the flows of its own.
func (p *piece) with(o *piece) error {
	for _, n := range o.Shards {
		if slices.Contains(p.Shards, n) {
			return fmt.Errorf("%s: shard %d/%d is there twice", p.about(), n, p.Count)
		}
	}
	if !slices.Equal(p.Made, o.Made) {
		return fmt.Errorf("%s: shards of %d were made with other words: %q, and %q", p.about(), p.Count, p.Made, o.Made)
	}
	p.Shards = slices.Sorted(slices.Values(append(o.Shards, p.Shards...)))
	p.Captures = slices.Clone(p.Captures)
	for i := range p.Captures {
		p.Captures[i].Ledger.Add(&o.Captures[i].Ledger)
	}
	p.Evicted += o.Evicted
	p.Settled += o.Settled
	p.Seen.share(&o.Seen)
	return nil
}

// about names a piece by its first capture.
func (p *piece) about() string {
	if len(p.Captures) == 0 {
		return "an analysis of nothing"
	}
	return p.Captures[0].Path
}

// sharesInputs says that two pieces are of the same packets.
func (p *piece) sharesInputs(o *piece) bool {
	return slices.EqualFunc(p.Captures, o.Captures, func(x, y Capture) bool { return keyOf(&x.FileStats) == keyOf(&y.FileStats) })
}

// Save writes what Join needs of an analysis: its inputs, its attempts as they were
// before anything was related, and the words that it was made with.
func (a *Analysis) Save(w io.Writer) error {
	if a.pieces != nil {
		return a.pieces.Save(w)
	}
	p := piece{Squall: pieceVersion, First: a.first, Last: a.last, Gaps: a.gaps, Captures: a.captures,
		Evicted: a.evicted, Settled: a.settled, Seen: a.seen, Made: a.made}
	if a.shard.Count > 1 {
		p.Count, p.Shards = a.shard.Count, []int{a.shard.Index}
	}
	if err := p.write(w); err != nil {
		return err
	}
	return a.result.Save(w)
}

func (p *piece) write(w io.Writer) error {
	head, err := json.Marshal(p)
	if err == nil {
		_, err = w.Write(append(head, '\n'))
	}
	return err
}

// Pieces are what several runs have saved: shards of the same inputs, captures of
// different times, or of different taps. Those of one run belong together, whether
// they lie in files of their own or were joined before, so that pieces may be joined
// in any order and grouping.
type Pieces struct {
	// Config is how they are joined: workers, hints, and ceilings.
	Config Config
	of     []*joined // in an order that follows from what they hold
}

// joined are the saved pieces of one run, with what they know together.
type joined struct {
	piece
	saved []*saved
}

// saved is a piece where it lies.
type saved struct {
	piece
	in       io.ReaderAt
	name     string
	at, size int64 // of head and attempts
	head     int   // bytes of it
}

func (s *saved) section() *io.SectionReader { return io.NewSectionReader(s.in, s.at, s.size) }

// ReadPieces reads what Save wrote into files; names are what errors call them.
func ReadPieces(files []io.ReaderAt, names []string) (*Pieces, error) {
	var all []*saved
	for i, f := range files {
		for at := int64(0); ; {
			s := &saved{in: f, name: names[i], at: at}
			err := s.read()
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", names[i], err)
			}
			all = append(all, s)
			at += s.size
		}
	}
	// Not by the number of a file, so that its place in the list has no say.
	slices.SortStableFunc(all, func(a, b *saved) int {
		return cmp.Or(a.compare(&b.piece), slices.Compare(a.Shards, b.Shards), a.content(b))
	})
	p := &Pieces{}
	for _, s := range all {
		n := slices.IndexFunc(p.of, func(o *joined) bool {
			return s.Count > 0 && s.Count == o.saved[0].Count && o.sharesInputs(&s.piece)
		})
		if n < 0 {
			p.of = append(p.of, &joined{s.piece, []*saved{s}})
			continue
		}
		o := p.of[n]
		if err := o.with(&s.piece); err != nil {
			return nil, err
		}
		o.saved = append(o.saved, s)
	}
	for _, o := range p.of {
		if o.Count > 0 && len(o.Shards) == o.Count {
			o.Count, o.Shards = 0, nil
		}
	}
	return p, nil
}

// read reads the head and skips the attempts. io.EOF: there is no further piece.
func (s *saved) read() error {
	count := &counter{in: io.NewSectionReader(s.in, s.at, 1<<62-s.at)}
	in := bufio.NewReaderSize(count, 1<<16)
	line, err := in.ReadBytes('\n')
	if err == io.EOF && len(line) == 0 && s.at > 0 {
		return err
	}
	if err == nil {
		err = json.Unmarshal(line, &s.piece)
	}
	if err != nil || s.Squall != pieceVersion {
		return fmt.Errorf("%w: no head of version %d; squall analyze makes it anew", attempt.ErrSaved, pieceVersion)
	}
	if s.Count < 0 || s.Count == 0 != (len(s.Shards) == 0) || slices.ContainsFunc(s.Shards, func(n int) bool { return n < 0 || n >= s.Count }) {
		return fmt.Errorf("%w: shards %v of %d", attempt.ErrSaved, s.Shards, s.Count)
	}
	s.head = len(line)
	if err := attempt.Skip(in); err != nil {
		return err
	}
	s.size = count.n - int64(in.Buffered())
	return nil
}

type counter struct {
	in io.Reader
	n  int64
}

func (c *counter) Read(b []byte) (n int, err error) {
	n, err = c.in.Read(b)
	c.n += int64(n)
	return n, err
}

// compare orders pieces by what they are of.
func (p *piece) compare(o *piece) int {
	return cmp.Or(cmp.Compare(p.First, o.First), cmp.Compare(p.Last, o.Last), slices.CompareFunc(p.Captures, o.Captures,
		func(x, y Capture) int { return cmp.Compare(x.Path, y.Path) }))
}

// content orders pieces that are alike in all else by their bytes.
func (s *saved) content(o *saved) int {
	a, b := s.section(), o.section()
	x, y := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(a, x)
		m, _ := io.ReadFull(b, y)
		if c := bytes.Compare(x[:n], y[:m]); c != 0 || err != nil {
			return c
		}
	}
}

// Made are the words that each run was made with.
func (p *Pieces) Made() (made [][]string) {
	for _, o := range p.of {
		made = append(made, o.Made)
	}
	return made
}

// Captures are the inputs of all runs.
func (p *Pieces) Captures() (all []Capture) {
	for _, o := range p.of {
		all = append(all, o.Captures...)
	}
	return all
}

// Save writes the pieces as one: what of a run is there in one file, byte for byte as
// if it had been there from the start, and what different runs found side by side, for
// what counts once among them depends on all.
func (p *Pieces) Save(w io.Writer) error {
	for _, o := range p.of {
		if len(o.saved) == 1 {
			if _, err := io.Copy(w, o.saved[0].section()); err != nil {
				return err
			}
			continue
		}
		if err := o.write(w); err != nil {
			return err
		}
		names, store := p.store()
		err := o.load(store, names, func(n uint32) (uint32, bool) { return n, int(n) < len(o.Captures) }, nil)
		if err == nil {
			err = store.SaveSorted(w, names)
		}
		if err = errors.Join(err, store.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pieces) store() (*attempt.Names, *attempt.Store) {
	cfg := &p.Config
	return attempt.NewNames(cfg.MaxNames),
		attempt.NewStore(attempt.StoreConfig{Memory: cfg.RecordMemory, Temp: cfg.RecordTemp, Part: cfg.Part, Nodes: cfg.MaxNodes})
}

// load reads the attempts of a run.
func (o *joined) load(store *attempt.Store, names *attempt.Names, file func(uint32) (uint32, bool), wanted func(*attempt.Record) bool) error {
	for _, s := range o.saved {
		at := s.section()
		at.Seek(int64(s.head), io.SeekStart)
		if err := store.Load(at, names, file, wanted); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// ErrMissing says that shards of a run are not there.
var ErrMissing = errors.New("shards are missing")

// Join makes one analysis of the pieces. Intents, sessions and identities are joined
// over their edges, since they are found anew. Shards give the bytes that one run over
// all would have given. An attempt that several runs saw, of different taps or in
// packets and in a log, counts once, as packets have it and the earlier run; only Run
// sees through NAT. An attempt that was still open where a capture of its own ended
// stays unknown, as if the others did not exist. The files that the pieces were read
// from must stay open as long as the analysis is to be saved.
func (p *Pieces) Join() (*Analysis, error) {
	a := &Analysis{workers: max(p.Config.Workers, 1)}
	var heard []storm.Span
	from := make([]uint32, len(p.of)) // number of the first capture of each run
	packets := false
	for i, o := range p.of {
		if o.Count > 0 {
			return nil, fmt.Errorf("%s: %d of %d %w: %s", o.about(), o.Count-len(o.Shards), o.Count, ErrMissing, o.missing())
		}
		a.evicted += o.Evicted
		a.settled += o.Settled
		a.seen.join(&o.Seen, o.Captures)
		from[i] = uint32(len(a.captures))
		a.captures = append(a.captures, o.Captures...)
		if o.First == 0 && o.Last == 0 {
			continue
		}
		heard = append(heard, o.heard()...)
		if !packets {
			a.first = o.First
		}
		packets = true
		a.last = max(a.last, o.Last)
	}
	if len(p.of) == 1 {
		a.seen, a.made = p.of[0].Seen, p.of[0].Made
	} else {
		a.pieces = p
		a.seen.Apart = append(a.seen.Apart, apart(a.captures)...)
		slices.Sort(a.seen.Apart)
		a.seen.Apart = slices.Compact(a.seen.Apart)
	}
	a.gaps = silences(heard)
	names, store := p.store()
	store.Deaf(a.holes())
	store.SetBack(a.setBack())
	// What several runs saw counts once. Logs come last: packets tell more.
	order := make([]int, len(p.of))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(p.of[i].written(), p.of[j].written()) })
	var known seenBefore
	log := map[uint32]uint64{}
	for i := range a.captures {
		if c := &a.captures[i]; c.Dataset() != "packets" {
			kind, _, _ := strings.Cut(c.Dataset(), ".")
			log[uint32(i)] = dissect.Hash64(dissect.Hash64(1, []byte(c.Observer)), []byte(kind)) | 1 // never 0: packets
		}
	}
	logged := map[uint32]int64{}
	for _, i := range order {
		o := p.of[i]
		var others []storm.Span
		for _, x := range p.of {
			if x != o && x.Last != 0 {
				others = append(others, storm.Span{Start: x.First - witnessWithin, End: x.Last + witnessWithin})
			}
		}
		err := o.load(store, names, func(n uint32) (uint32, bool) { return from[i] + n, int(n) < len(o.Captures) }, func(r *attempt.Record) bool {
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
			return nil, errors.Join(err, store.Close())
		}
	}
	(&witnesses{both: logged}).account(a.captures, 0)
	a.clientsOneIn, a.saidOneIn = names.OneIn()
	var err error
	a.result, err = store.Finalise(names, p.Config.Hints, a.first, a.last)
	return a, err
}

// missing names the shards that are not there.
func (p *piece) missing() string {
	var list []string
	for n := range p.Count {
		if slices.Contains(p.Shards, n) {
			continue
		}
		if len(list) == maxNamed {
			list = append(list, "…")
			break
		}
		list = append(list, fmt.Sprintf("%d/%d", n, p.Count))
	}
	return strings.Join(list, ", ")
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
