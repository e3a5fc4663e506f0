package attempt

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// spool keeps bytes by partition: in memory up to a limit, after that in a
// temporary file that no name leads to, so that nothing is left behind.
type spool struct {
	limit   int64
	ceiling int64 // of the file; 0 = none

	mu   sync.Mutex
	held int64 // in memory
	file *os.File
	size int64
	runs [][]chunk // by partition
	err  error
}

// chunk is a run of whole records.
type chunk struct {
	data []byte // nil = in the file
	at   int64
	n    int
}

// put adds a chunk, which belongs to the spool from then on. It returns what the
// next one may be written to: the same memory, empty, where the bytes went to the
// file, else nil. The chunks of one partition keep their order.
func (s *spool) put(partition int, data []byte) (spare []byte) {
	if len(data) == 0 {
		return data
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := chunk{n: len(data)}
	if s.held+int64(len(data)) <= s.limit {
		s.held += int64(len(data))
		c.data = data
	} else {
		c.at, spare = s.size, data[:0]
		if s.err == nil {
			s.err = s.write(data)
		}
	}
	for len(s.runs) <= partition {
		s.runs = append(s.runs, nil)
	}
	s.runs[partition] = append(s.runs[partition], c)
	return spare
}

func (s *spool) write(data []byte) error {
	if s.ceiling > 0 && s.size+int64(len(data)) > s.ceiling {
		return fmt.Errorf("temporary file for attempts: %d MB are not enough: raise the ceiling (--max-temp), or analyse a part (--after and --before, or --shard and squall merge)", s.ceiling>>20)
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "squall-*.attempts")
		if err != nil {
			return fmt.Errorf("temporary file for attempts: %w; TMPDIR names another place", err)
		}
		os.Remove(f.Name())
		s.file = f
	}
	if _, err := s.file.WriteAt(data, s.size); err != nil {
		return fmt.Errorf("temporary file for attempts, %d MB so far: %w; TMPDIR names another place", s.size>>20, err)
	}
	s.size += int64(len(data))
	return nil
}

// each visits the chunks of a partition in their order. The bytes are valid
// during the call.
func (s *spool) each(partition int, visit func([]byte)) error {
	s.mu.Lock()
	runs, err := s.of(partition), s.err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	var data, buf []byte
	for _, c := range runs {
		if data, buf, err = s.load(c, buf); err != nil {
			return err
		}
		visit(data)
	}
	return nil
}

// load gives the bytes of a chunk; buf is what a chunk in the file is read to,
// and is grown as needed.
func (s *spool) load(c chunk, buf []byte) (data, grown []byte, err error) {
	if c.data != nil {
		return c.data, buf, nil
	}
	if cap(buf) < c.n {
		buf = make([]byte, c.n)
	}
	if _, err := s.file.ReadAt(buf[:c.n], c.at); err != nil && err != io.EOF {
		return nil, buf, fmt.Errorf("temporary file for attempts: %w", err)
	}
	return buf[:c.n], buf, nil
}

// of gives the chunks of a partition.
func (s *spool) of(partition int) []chunk {
	if partition < len(s.runs) {
		return s.runs[partition]
	}
	return nil
}

// bytes of a partition.
func (s *spool) bytes(partition int) (n int) {
	for _, c := range s.of(partition) {
		n += c.n
	}
	return n
}

func (s *spool) close() error {
	s.runs = nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// empty forgets everything, for other bytes.
func (s *spool) empty() {
	s.runs, s.held, s.size = nil, 0, 0
}
