package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"squall/dissect/flowlog"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

// baselineFlag is for verbs that judge.
func (s *source) baselineFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.baselines, "baseline", nil, "PATH of a calm day to judge by, in place of the calm stretch of the captures themselves: captures, a directory that analyze -o kept, logs of connections, or flow records (nfdump -o csv, AWS, GCP, Azure), which tell volume alone. It is compared by the time of day where it covers it, else by its median")
}

// baseline reads what --baseline names; files are those that were read.
func (s *source) baseline(cmd *cobra.Command, judged *storm.State, files *[]string) (*storm.Baseline, error) {
	name := strings.Join(s.baselines, ", ")
	if s.hide != nil {
		name = "the calm day"
	}
	captures, logs, _, err := sortInputs(s.baselines, strings.NewReader(""))
	if err != nil {
		return nil, fmt.Errorf("--baseline: %w", err)
	}
	counted := 0
	for i := range logs {
		if logs[i].format.Counted() {
			counted++
		}
	}
	if counted > 0 {
		if counted < len(logs) || len(captures) > 0 {
			return nil, fmt.Errorf("--baseline: %s holds flow records, others of %s do not: they count different things, name one kind", logs[0].path, name)
		}
		b, err := s.flowBaseline(name, logs, judged, files)
		if err == nil {
			b.Zone = s.zone
		}
		return b, err
	}
	calm := source{filter: cmp.Or(s.filter, s.calmFilter), hints: cmp.Or(s.hints, s.calmHints), keepDuplicates: s.keepDuplicates || s.calmDuplicates, calm: true, maxFlows: s.maxFlows, maxNodes: s.maxNodes, maxNames: s.maxNames, maxTemp: s.maxTemp, workers: s.workers, quiet: s.quiet}
	for _, dir := range s.baselines {
		if _, ok := keptDir([]string{dir}); ok { // was filtered when it was made, or was not
			calm.filter, calm.keepDuplicates = "", false
		}
	}
	results, err := calm.demand(cmd, s.baselines)
	if err != nil {
		var e exitError
		if errors.As(err, &e) {
			err = e.err
		}
		return nil, fmt.Errorf("--baseline: %w", err)
	}
	defer results.Analysis.Close()
	state, err := results.Analysis.State(storm.Config{})
	if err != nil {
		return nil, err
	}
	for _, dir := range s.baselines {
		if kept, ok := keptDir([]string{dir}); ok {
			*files = append(*files, filepath.Join(kept, pipeline.SaveName))
		}
	}
	if len(*files) == 0 {
		for _, c := range results.Analysis.Captures() {
			if !c.Quoted && c.Unread == "" {
				*files = append(*files, c.Path)
			}
		}
	}
	b := state.Baseline(name, results.Analysis.Quality())
	b.Zone = s.zone
	if s.hide != nil {
		b.Under(s.hide.Addr)
	}
	return b, nil
}

// flowBaseline counts flow records at the nodes that are judged.
func (s *source) flowBaseline(name string, logs []written, judged *storm.State, files *[]string) (*storm.Baseline, error) {
	tally := judged.Tally(name)
	var cover flowlog.Coverage
	for i := range logs {
		w := &logs[i]
		*files = append(*files, w.path)
		if _, err := w.cover(func(f *flowlog.Flow) {
			cover.Add(f)
			if s.hide != nil {
				f.From.Addr, f.To.Addr = s.hide.Addr(f.From.Addr), s.hide.Addr(f.To.Addr)
			}
			tally.Flow(f.Start, f.End, f.From, f.To, f.Proto)
		}); err != nil {
			return nil, fmt.Errorf("--baseline: %w", err)
		}
	}
	if cover.Flows == 0 {
		return nil, fmt.Errorf("baseline %s: there are no flows in it", name)
	}
	var holes []storm.Span
	for _, h := range cover.Holes() {
		holes = append(holes, storm.Span{Start: h[0], End: h[1]})
	}
	return tally.Baseline(holes), nil
}

// cover reads the flow records of a file.
func (w *written) cover(use func(*flowlog.Flow)) (flowlog.Stats, error) {
	in, _, done, err := w.open()
	if err != nil {
		return flowlog.Stats{}, err
	}
	defer done()
	s, err := flowlog.EachFlow(w.format, in, use)
	if err != nil {
		err = fmt.Errorf("%s: %w", w.path, err)
	}
	return s, err
}
