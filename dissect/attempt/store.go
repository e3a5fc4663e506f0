package attempt

import (
	"fmt"
	"sync/atomic"
)

// defaultMaxRecords bounds the memory of a store to some 3 GB.
const defaultMaxRecords = 1 << 23

// StoreConfig of a store.
type StoreConfig struct {
	Shards     int
	MaxRecords int // 0 = 8 Mi; Finalise fails when more were added
}

// Store collects the records of all shards until Finalise.
type Store struct {
	cfg    StoreConfig
	shards [][]Record
	n      atomic.Int64
}

// NewStore makes an empty store.
func NewStore(cfg StoreConfig) *Store {
	cfg.Shards = max(cfg.Shards, 1)
	if cfg.MaxRecords <= 0 {
		cfg.MaxRecords = defaultMaxRecords
	}
	return &Store{cfg: cfg, shards: make([][]Record, cfg.Shards)}
}

// Add copies a record. Different shards may add at the same time, one shard
// only from one goroutine. Records over the ceiling are counted, not kept.
func (s *Store) Add(shard int, r *Record) {
	if s.n.Add(1) <= int64(s.cfg.MaxRecords) {
		s.shards[shard] = append(s.shards[shard], *r)
	}
}

func (s *Store) take() ([]Record, error) {
	n := s.n.Load()
	if n > int64(s.cfg.MaxRecords) {
		return nil, fmt.Errorf("%d attempts, more than the ceiling of %d: analyse the capture in parts", n, s.cfg.MaxRecords)
	}
	all := make([]Record, 0, n)
	for i, l := range s.shards {
		all = append(all, l...)
		s.shards[i] = nil
	}
	s.n.Store(0)
	return all, nil
}
