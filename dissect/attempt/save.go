package attempt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// saveMark begins what Save writes. The digit is the version of the packed
// form; another one is not read.
const saveMark = "squall attempts 5\n"

// ErrSaved is behind every error of a saved store that cannot be read.
var ErrSaved = errors.New("not what squall saved")

// saver writes the saved form: the strings, then the records in runs.
type saver struct{ out *bufio.Writer }

// newSaver writes the strings of each kind, and how many of them are kept.
func newSaver(w io.Writer, of *Names, names *[numKinds][]string) saver {
	s := saver{bufio.NewWriterSize(w, 1<<16)}
	s.out.WriteString(saveMark)
	for k, list := range names {
		s.number(int(of.of[k].halve))
		s.number(len(list))
		for _, n := range list {
			s.number(len(n))
			s.out.WriteString(n)
		}
	}
	return s
}

func (s saver) number(v int) {
	var n [binary.MaxVarintLen64]byte
	s.out.Write(n[:binary.PutUvarint(n[:], uint64(v))])
}

func (s saver) run(data []byte) {
	if len(data) > 0 {
		s.number(len(data))
		s.out.Write(data)
	}
}

func (s saver) end() error {
	s.number(0)
	return s.out.Flush()
}

// Save writes the records and their strings as they were before the second
// pass, so that they can be joined with those of other pieces. The same records
// are the same bytes, in whatever order the workers came to them.
func (x *Result) Save(w io.Writer) error {
	var sorted [numKinds][]string
	var to [numKinds][]Name
	for k := range numKinds {
		list := x.names.all(k)
		order := make([]Name, 0, len(list))
		for i, text := range list {
			if i == 0 || text != "" { // is kept
				order = append(order, Name(i))
			}
		}
		slices.SortFunc(order, func(a, b Name) int { return strings.Compare(list[a], list[b]) }) // the empty one stays first
		to[k] = make([]Name, len(list))
		for i, n := range order {
			if to[k][n] = Name(i); i > 0 {
				to[k][n] |= Name(k) << kindShift
			}
			sorted[k] = append(sorted[k], list[n])
		}
	}
	out := newSaver(w, x.names, &sorted)
	var r Record
	for p := range Partitions {
		var data []byte // the records in the order of the run
		var ends []int
		if err := x.store.spool.each(p, func(packed []byte) {
			for u := (unpacker{b: packed}); len(u.b) > 0; {
				u.record(&r)
				for _, n := range r.names() {
					*n = to[n.kind()][*n&(1<<kindShift-1)]
				}
				data = appendRecord(data, &r)
				ends = append(ends, len(data))
			}
		}); err != nil {
			return err
		}
		each := make([][]byte, len(ends))
		from := 0
		for i, end := range ends {
			each[i], from = data[from:end], end
		}
		slices.SortFunc(each, bytes.Compare)
		run := make([]byte, 0, chunkBytes)
		for _, b := range each {
			if len(run)+len(b) > chunkBytes {
				out.run(run)
				run = run[:0]
			}
			run = append(run, b...)
		}
		out.run(run)
	}
	return out.end()
}

// Save writes a store that still collects, in the order in which it did; nothing
// may be added meanwhile.
func (s *Store) Save(w io.Writer, names *Names) error {
	var lists [numKinds][]string
	for k := range lists {
		lists[k] = names.all(kind(k))
	}
	out := newSaver(w, names, &lists)
	for p := range Partitions {
		if err := s.spool.each(p, out.run); err != nil {
			return err
		}
		for i := range s.shards {
			out.run(s.shards[i].open[p])
		}
	}
	return out.end()
}

// SaveSorted writes a store that is not finished as Result.Save writes one that is;
// nothing may be added afterwards.
func (s *Store) SaveSorted(w io.Writer, names *Names) error {
	s.gather()
	return (&Result{store: s, names: names}).Save(w)
}

// Close gives the temporary files of a store back that Finalise never got.
func (s *Store) Close() error { return errors.Join(s.spool.close(), s.homes.close()) }

// Load adds what Save wrote. Files are renumbered; file gets the number that a
// record has, and must know it. Records that wanted says no to are left out; nil
// takes all.
func (s *Store) Load(r io.Reader, names *Names, file func(uint32) (uint32, bool), wanted func(*Record) bool) error {
	var to [numKinds][]Name
	wrong := false
	name := func(n *Name) {
		list, i := to[n.kind()], *n&(1<<kindShift-1)
		if int(i) >= len(list) {
			wrong, *n = true, 0
			return
		}
		*n = list[i]
	}
	records := 0
	in := bufio.NewReaderSize(r, 1<<16)
	return readSaved(in, names.keep, func(k kind, text []byte) {
		to[k] = append(to[k], names.intern(k, text))
	}, func(data []byte) error {
		var r Record
		for u := (unpacker{b: data}); len(u.b) > 0; records++ {
			u.record(&r)
			for _, n := range r.names() {
				name(n)
			}
			number, ok := file(r.File)
			if wrong = wrong || u.broken || !ok; wrong {
				return fmt.Errorf("%w: attempt %d makes no sense", ErrSaved, records)
			}
			if r.File = number; wanted == nil || wanted(&r) {
				s.Add(0, &r)
			}
		}
		return nil
	})
}

// Skip reads what Save wrote to its end, and no further.
func Skip(in *bufio.Reader) error {
	return readSaved(in, func(kind, uint8) {}, func(kind, []byte) {}, func([]byte) error { return nil })
}

// readSaved reads what Save wrote: of how many strings of each kind those that are
// kept, the strings, the records in runs. What it hands out is used again.
func readSaved(in *bufio.Reader, keep func(kind, uint8), name func(kind, []byte), run func([]byte) error) error {
	buf := make([]byte, maxNameLen)
	mark := buf[:len(saveMark)]
	_, err := io.ReadFull(in, mark)
	if err != nil || string(mark) != saveMark {
		return fmt.Errorf("%w: begins with %q, expected %q", ErrSaved, mark, saveMark)
	}
	for k := range numKinds {
		halve, err := binary.ReadUvarint(in)
		count, err2 := binary.ReadUvarint(in)
		if err != nil || err2 != nil || halve > 63 || count > 1<<kindShift {
			return fmt.Errorf("%w: %d strings", ErrSaved, count)
		}
		keep(k, uint8(halve))
		for i := range count {
			n, err := binary.ReadUvarint(in)
			if err != nil || n > maxNameLen {
				return fmt.Errorf("%w: string %d of %d: length %d", ErrSaved, i, count, n)
			}
			if _, err := io.ReadFull(in, buf[:n]); err != nil {
				return fmt.Errorf("%w: ends in string %d of %d", ErrSaved, i, count)
			}
			name(k, buf[:n])
		}
	}
	for runs := 0; ; runs++ {
		n, err := binary.ReadUvarint(in)
		if err != nil || n > maxSavedChunk {
			return fmt.Errorf("%w: after %d runs of attempts: one of %d bytes", ErrSaved, runs, n)
		}
		if n == 0 {
			return nil
		}
		if int(n) > len(buf) {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return fmt.Errorf("%w: ends in run %d of its attempts", ErrSaved, runs)
		}
		if err := run(buf[:n]); err != nil {
			return err
		}
	}
}

// maxSavedChunk bounds what is read at once from a file that may be damaged.
const maxSavedChunk = 4 * chunkBytes
