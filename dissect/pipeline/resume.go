package pipeline

import (
	"bufio"
	"io"
	"sync"

	"squall/capture"
	"squall/dissect/attempt"
	"squall/dissect/frozen"
)

// State is what a run has in hand between two batches: open flows, handshakes and
// messages that are not whole, fragments, attempts that are over.
type State struct {
	src    capture.Source
	queues []chan *work
	store  *attempt.Store
	names  *attempt.Names
	taken  []int64 // frames of each input
	values []any
}

// Marks say how far each input was taken.
func (s *State) Marks() []capture.Mark {
	files := s.src.Files()
	marks := make([]capture.Mark, len(files))
	for i := range files {
		if marks[i].Frames = s.taken[i]; files[i].Finished && files[i].Packets == s.taken[i] {
			marks[i].Done = &files[i]
		}
	}
	return marks
}

// Write writes all of it; Thaw reads it.
func (s *State) Write(w io.Writer, marks []capture.Mark) error {
	var idle sync.WaitGroup
	idle.Add(len(s.queues))
	for _, q := range s.queues {
		q <- &work{rest: &idle}
	}
	idle.Wait()
	if err := frozen.Write(w, &marks); err != nil {
		return err
	}
	if err := frozen.Write(w, s.values...); err != nil {
		return err
	}
	return s.store.Save(w, s.names)
}

// Kept is a state that was written.
type Kept struct {
	Marks []capture.Mark
	rest  *bufio.Reader
}

// Thaw begins to read what State.Write wrote; the rest is read by Run.
func Thaw(r io.Reader) (*Kept, error) {
	k := &Kept{rest: bufio.NewReaderSize(r, 1<<16)}
	return k, frozen.Read(k.rest, &k.Marks)
}

// into takes the state up. Attempts go by way of their packed form, for many of them
// may lie in a temporary file.
func (k *Kept) into(s *State) error {
	if err := frozen.Read(k.rest, s.values...); err != nil {
		return err
	}
	return s.store.Load(k.rest, s.names, func(file uint32) (uint32, bool) { return file, int(file) < len(s.taken) }, nil)
}
