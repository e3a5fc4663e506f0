package capture

import "sync/atomic"

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
