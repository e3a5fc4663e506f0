package capture

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
)

type batchRefs struct {
	n    atomic.Int32
	free func()
}

// NewBatch makes a batch that calls free when its last user releases it; free
// may be nil.
func NewBatch(packets []Packet, free func()) *Batch {
	b := &Batch{Packets: packets}
	b.refs.n.Store(1)
	b.refs.free = free
	return b
}

// Retain adds n users; each must call Release.
func (b *Batch) Retain(n int) { b.refs.n.Add(int32(n)) }

// Release gives the batch back. Its packets and their bytes are invalid after
// the last release.
func (b *Batch) Release() {
	if b.refs.n.Add(-1) == 0 && b.refs.free != nil {
		b.refs.free()
	}
}

// Each reads src to its end and hands every batch to take, which may retain it; the
// reader's hold of it ends when take returns. It ends early with an error of take,
// of src, or of ctx.
func Each(ctx context.Context, src Source, take func(*Batch) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := src.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = take(b)
		b.Release()
		if err != nil {
			return err
		}
	}
}
