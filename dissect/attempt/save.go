package attempt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// saveMark begins what Save writes. The digit is the version of the packed
// form; another one is not read.
const saveMark = "squall attempts 3\n"

// ErrSaved is behind every error of a saved store that cannot be read.
var ErrSaved = errors.New("not what squall saved")

// Save writes the records and their strings as they were before the second
// pass, so that they can be joined with those of other pieces.
func (x *Result) Save(w io.Writer) error { return x.store.Save(w, x.names) }

// Save is the same of a store that still collects; nothing may be added meanwhile.
func (s *Store) Save(w io.Writer, names *Names) error {
	out := bufio.NewWriterSize(w, 1<<16)
	out.WriteString(saveMark)
	names.mu.RLock()
	list := names.list
	names.mu.RUnlock()
	var n [binary.MaxVarintLen64]byte
	number := func(v int) { out.Write(n[:binary.PutUvarint(n[:], uint64(v))]) }
	number(len(list))
	for _, s := range list {
		number(len(s))
		out.WriteString(s)
	}
	run := func(data []byte) {
		if len(data) > 0 {
			number(len(data))
			out.Write(data)
		}
	}
	for p := range Partitions {
		if err := s.spool.each(p, run); err != nil {
			return err
		}
		for i := range s.shards {
			run(s.shards[i].open[p])
		}
	}
	number(0)
	return out.Flush()
}

// Load adds what Save wrote. Files are renumbered; file gets the number that a
// record has, and must know it.
func (s *Store) Load(r io.Reader, names *Names, file func(uint32) (uint32, bool)) error {
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
			for _, n := range []*Name{&r.ClientName, &r.Protocol, &r.Op, &r.Rung, &r.Version, &r.ServerName, &r.JA3} {
				name(n)
			}
			number, ok := file(r.File)
			if wrong = wrong || u.broken || !ok; wrong {
				return fmt.Errorf("%w: attempt %d makes no sense", ErrSaved, records)
			}
			r.File = number
			s.Add(0, &r)
		}
	}
}

// maxSavedChunk bounds what is read at once from a file that may be damaged.
const maxSavedChunk = 4 * chunkBytes
