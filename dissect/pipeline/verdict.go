package pipeline

import (
	"sync"

	"squall/dissect"
	"squall/dissect/storm"
)

const (
	// silence is how long no packet at all must come to be noted as a gap.
	silence = 5 * int64(1e9)
	maxGaps = 10000
)

// Judge counts and judges everything that the run found.
func (a *Analysis) Judge(cfg storm.Config) (*storm.Report, error) {
	s, err := a.State(cfg)
	if err != nil {
		return nil, err
	}
	return s.Report(a.Quality()), nil
}

// State counts everything that the run found; its Report, with what Quality
// says, is the judgement.
func (a *Analysis) State(cfg storm.Config) (*storm.State, error) {
	whole := storm.NewState(cfg)
	var mu sync.Mutex
	var parts []*storm.State
	err := a.Visit(func(int) dissect.Visitor {
		s := storm.NewState(cfg)
		mu.Lock()
		parts = append(parts, s)
		mu.Unlock()
		return s
	})
	if err != nil {
		return nil, err
	}
	for _, s := range parts {
		whole.Merge(s)
	}
	return whole, nil
}

// Quality sums up what the inputs say about themselves.
func (a *Analysis) Quality() storm.Quality {
	q := storm.Quality{Begin: a.first, End: a.last, Gaps: a.gaps}
	for i := range a.captures {
		c := &a.captures[i]
		q.Packets += c.Packets
		q.Dropped += max(c.Drops, 0)
		q.Duplicates += c.Ledger[dissect.BucketDuplicate]
		q.OutOfOrder += c.OutOfOrder
		q.ClockSteps += c.ClockSteps
		q.Truncated += c.Truncated
		q.Cut += c.Ledger[dissect.BucketCut]
		q.Damaged = q.Damaged || c.Damage != nil && !c.Damage.Tail
	}
	return q
}
