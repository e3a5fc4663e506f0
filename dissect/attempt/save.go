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
const saveMark = "squall attempts 3\n"

// ErrSaved is behind every error of a saved store that cannot be read.
var ErrSaved = errors.New("not what squall saved")

// saver writes the saved form: the strings, then the records in runs.
type saver struct{ out *bufio.Writer }

func newSaver(w io.Writer, names []string) saver {
	s := saver{bufio.NewWriterSize(w, 1<<16)}
	s.out.WriteString(saveMark)
	s.number(len(names))
	for _, n := range names {
		s.number(len(n))
		s.out.WriteString(n)
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
	list := x.names.all()
	order := make([]Name, len(list))
	for i := range order {
		order[i] = Name(i)
	}
	slices.SortFunc(order, func(a, b Name) int { return strings.Compare(list[a], list[b]) }) // the empty one stays first
	to := make([]Name, len(list))
	sorted := make([]string, len(list))
	for i, n := range order {
		to[n], sorted[i] = Name(i), list[n]
	}
	out := newSaver(w, sorted)
	var r Record
	for p := range Partitions {
		var data []byte // the records in the order of the run
		var ends []int
		if err := x.store.spool.each(p, func(packed []byte) {
			for u := (unpacker{b: packed}); len(u.b) > 0; {
				u.record(&r)
				for _, n := range r.names() {
					*n = to[*n]
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
	out := newSaver(w, names.all())
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

// Load adds what Save wrote. Files are renumbered; file gets the number that a
// record has, and must know it. Records that wanted says no to are left out; nil
// takes all.
func (s *Store) Load(r io.Reader, names *Names, file func(uint32) (uint32, bool), wanted func(*Record) bool) error {
	in := bufio.NewReaderSize(r, 1<<16)
	mark := make([]byte, len(saveMark))
	if _, err := io.ReadFull(in, mark); err != nil || string(mark) != saveMark {
		return fmt.Errorf("%w: begins with %q, expected %q", ErrSaved, mark, saveMark)
	}
	count, err := binary.ReadUvarint(in)
	if err != nil || count > maxNames {
		return fmt.Errorf("%w: %d strings", ErrSaved, count)
	}
	var to []Name
	buf := make([]byte, maxNameLen)
	for i := range count {
		n, err := binary.ReadUvarint(in)
		if err != nil || n > maxNameLen {
			return fmt.Errorf("%w: string %d of %d: length %d", ErrSaved, i, count, n)
		}
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return fmt.Errorf("%w: ends in string %d of %d", ErrSaved, i, count)
		}
		to = append(to, names.Intern(buf[:n]))
	}
	wrong := false
	name := func(n *Name) {
		if int(*n) >= len(to) {
			wrong, *n = true, 0
			return
		}
		*n = to[*n]
	}
	for records := 0; ; {
		n, err := binary.ReadUvarint(in)
		if err != nil || n > maxSavedChunk {
			return fmt.Errorf("%w: after %d attempts: a run of %d bytes", ErrSaved, records, n)
		}
		if n == 0 {
			return nil
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(in, data); err != nil {
			return fmt.Errorf("%w: ends after %d attempts", ErrSaved, records)
		}
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
	}
}

// maxSavedChunk bounds what is read at once from a file that may be damaged.
const maxSavedChunk = 4 * chunkBytes
