package pipeline

import (
	"maps"
	"slices"
	"strings"

	"squall/dissect"
	"squall/dissect/attempt"
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
	q := a.Quality()
	r := s.Report(q)
	a.observe(r, nil)
	if q.Zone = cfg.Zone; q.Zone != nil {
		r.Shown = s.Report(q)
		a.observe(r.Shown, q.Zone)
	}
	return r, nil
}

// State counts everything that the run found; its Report, with what Quality
// says, is the judgement.
func (a *Analysis) State(cfg storm.Config) (*storm.State, error) {
	if x, ok := a.result.(*attempt.Result); ok {
		cfg.Known, cfg.Left = x.Known()
	}
	var parts []*storm.State
	err := a.Visit(func(int) dissect.Visitor {
		parts = append(parts, storm.NewState(cfg))
		return parts[len(parts)-1]
	})
	if err != nil {
		return nil, err
	}
	whole := parts[0]
	for _, s := range parts[1:] {
		whole.Merge(s)
	}
	if cfg.Baseline == nil {
		return whole, nil
	}
	b, err := cfg.Baseline(whole)
	if err != nil {
		return nil, err
	}
	q := a.Quality()
	return whole, whole.Against(b, &q)
}

// Quality sums up what the inputs say about themselves.
func (a *Analysis) Quality() storm.Quality {
	q := storm.Quality{Begin: a.first, End: a.last, Gaps: a.gaps, Lossy: a.lossy(), Evicted: a.evicted, Settled: a.settled, ClientsOneIn: a.clientsOneIn, SaidOneIn: a.saidOneIn}
	logs := map[string]bool{}
	for i := range a.captures {
		c := &a.captures[i]
		if c.TransportOnly() {
			logs[c.Dataset()] = true
		}
		q.Packets += c.Packets
		q.Dropped += max(c.Drops, 0)
		q.Duplicates += c.Ledger[dissect.BucketDuplicate]
		q.OutOfOrder += c.OutOfOrder
		q.ClockSteps += c.ClockSteps
		q.StrayTimes += c.StrayTimes
		q.Truncated += c.Truncated
		q.Cut += c.Ledger[dissect.BucketCut]
		q.Damaged = q.Damaged || c.Damage != nil && !c.Damage.Tail
		if words := HoleOf(c); words != "" {
			q.Holes = append(q.Holes, words)
		}
	}
	if len(logs) > 0 {
		names := strings.Join(slices.Sorted(maps.Keys(logs)), ", ")
		q.Remarks = append(q.Remarks, "attempts from "+names+" are of the transport alone: what the application answered, late answers, times to attach "+
			"and versions are not in such logs, and a flow of datagrams counts as one attempt (column event_dataset)")
	}
	if r, ok := a.result.(*attempt.Result); ok && r.BegunOnly() {
		q.Remarks = append(q.Remarks, "of all TCP connections nothing but SYNs, FINs and RSTs was captured, as behind a filter of these flags: what came of those that were answered is unknown")
	}
	return q
}
