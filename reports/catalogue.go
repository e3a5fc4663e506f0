package reports

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

// Results are what the tables are read from: a finished run, and its judgement.
type Results struct {
	Analysis *pipeline.Analysis
	Groups   *Groups // of clients; nil = none were given
	Told     []Event // that were not seen in packets, see ReadEvents
	// Beside are the files behind the baseline, for who keeps the results.
	Beside []string
	cfg    storm.Config
	read   bool            // by people
	hits   map[found][]hit // once they were counted
	harmed *impactSum      // once it was counted
	judge  func() (*storm.Report, error)
}

// NewResults judges the run when a table first needs it.
func NewResults(a *pipeline.Analysis, cfg storm.Config) *Results {
	return &Results{Analysis: a, cfg: cfg, judge: sync.OnceValues(func() (*storm.Report, error) { return a.Judge(cfg) })}
}

// Thresholds are what the run is judged by.
func (r *Results) Thresholds() storm.Thresholds { return r.cfg.Thresholds }

// Report is the judgement; it is made once.
func (r *Results) Report() (*storm.Report, error) {
	report, err := r.judge()
	if err == nil && r.read {
		report = report.Text()
	}
	return report, err
}

// ForReading gives the same results with the times of texts in the zone that was
// asked for; what machines read has them in UTC.
func (r *Results) ForReading() *Results {
	s := *r
	s.read = true
	return &s
}

// findHits counts which groups the findings hit, once.
func (r *Results) findHits() (err error) {
	if r.hits == nil {
		r.hits, err = hitsOf(r)
	}
	return err
}

// Table finds a table by name and its rows in the results. Without results
// (nil) there are no rows, only the schema.
func (r *Results) Table(name string) (*Table, Rows, error) {
	for _, e := range catalogue() {
		if t := e.schema(); t.Name == name {
			if r == nil {
				return t, nil, nil
			}
			rows, err := e.rows(r)
			return t, rows, err
		}
	}
	if n := nearest(name, Names()); n != "" {
		return nil, nil, fmt.Errorf("table %q is not known; did you mean %q?", name, n)
	}
	return nil, nil, fmt.Errorf("table %q is not known; there are %s", name, strings.Join(Names(), ", "))
}

// Names lists the tables.
func Names() (out []string) {
	for _, e := range catalogue() {
		out = append(out, e.schema().Name)
	}
	return out
}

// Schemas lists the tables with their columns.
func Schemas() (out []*Table) {
	for _, e := range catalogue() {
		out = append(out, e.schema())
	}
	return out
}

// entry hides the row type of a table.
type entry interface {
	schema() *Table
	rows(*Results) (Rows, error)
}

type source[T any] struct {
	table *Of[T]
	items func(*Results) (iter.Seq2[*T, error], error)
}

func (s source[T]) schema() *Table { return &s.table.Table }

func (s source[T]) rows(r *Results) (Rows, error) {
	items, err := s.items(r)
	if err != nil {
		return nil, err
	}
	return s.table.Rows(r.Env(), items), nil
}

// Env is what the rows of these results refer to.
func (r *Results) Env() *Env {
	env := newEnv(r.Analysis.Captures())
	env.Groups, env.hits = r.Groups, r.hits
	return env
}

// judged is a table whose rows are a part of the judgement.
func judged[T any](table *Of[T], part func(*storm.Report) []T) entry {
	return source[T]{table, func(r *Results) (iter.Seq2[*T, error], error) {
		report, err := r.Report()
		if err != nil {
			return nil, err
		}
		return each(part(report)), nil
	}}
}

func catalogue() []entry {
	return []entry{
		source[pipeline.Capture]{Captures(), func(r *Results) (iter.Seq2[*pipeline.Capture, error], error) { return each(r.Analysis.Captures()), nil }},
		source[dissect.Attempt]{Attempts(), func(r *Results) (iter.Seq2[*dissect.Attempt, error], error) { return r.Analysis.Attempts(), nil }},
		source[dissect.Intent]{Intents(), func(r *Results) (iter.Seq2[*dissect.Intent, error], error) { return r.Analysis.Intents(), nil }},
		source[storm.Client]{Clients(), func(r *Results) (iter.Seq2[*storm.Client, error], error) { return r.Analysis.Clients(), nil }},
		judged(Nodes(), func(r *storm.Report) []storm.Node { return r.Nodes }),
		judged(Timeline(), func(r *storm.Report) []storm.Window { return r.Timeline }),
		source[storm.Finding]{Findings(), func(r *Results) (iter.Seq2[*storm.Finding, error], error) {
			report, err := r.Report()
			if err != nil {
				return nil, err
			}
			return each(report.Findings), r.findHits()
		}},
		judged(Criteria(), func(r *storm.Report) (out []Criterion) {
			for i := range r.Findings {
				for _, c := range r.Findings[i].Criteria {
					out = append(out, Criterion{&r.Findings[i], c})
				}
			}
			return out
		}),
		judged(NodePeriods(), func(r *storm.Report) (out []NodePeriod) {
			for i := range r.Nodes {
				for _, p := range r.Nodes[i].Periods {
					out = append(out, NodePeriod{&r.Nodes[i], p})
				}
			}
			return out
		}),
		judged(Migrations(), func(r *storm.Report) []storm.Migration { return r.Migrations }),
		judged(Versions(), func(r *storm.Report) []storm.Version { return r.Versions }),
		judged(Roles(), func(r *storm.Report) []storm.RoleHealth { return r.Roles }),
		source[Event]{Events(), func(r *Results) (iter.Seq2[*Event, error], error) {
			report, err := r.Report()
			if err != nil {
				return nil, err
			}
			list, err := eventsOf(r.Analysis, report)
			if r.read {
				shorten(list)
			}
			list = append(list, r.Told...)
			order := make([]*Event, len(list)) // there may be millions, and they are large to move
			for i := range list {
				order[i] = &list[i]
			}
			slices.SortStableFunc(order, func(a, b *Event) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.What, b.What)) })
			return func(yield func(*Event, error) bool) {
				for _, e := range order {
					if !yield(e, nil) {
						return
					}
				}
			}, err
		}},
		source[Source]{Sources(), func(r *Results) (iter.Seq2[*Source, error], error) {
			list, _, err := SourcesOf(r, 0)
			return each(list), err
		}},
		source[pipeline.NAT]{NAT(), func(r *Results) (iter.Seq2[*pipeline.NAT, error], error) { return each(r.Analysis.Seen().NAT), nil }},
		source[LossSecond]{Losses(), func(r *Results) (iter.Seq2[*LossSecond, error], error) { return each(lossSeconds(r.Analysis)), nil }},
		source[GroupWindow]{GroupTimeline(), func(r *Results) (iter.Seq2[*GroupWindow, error], error) {
			list, err := groupTimeline(r)
			return each(list), err
		}},
		source[GroupVersion]{GroupVersions(), func(r *Results) (iter.Seq2[*GroupVersion, error], error) {
			list, err := groupVersions(r)
			return each(list), err
		}},
		source[GroupPolicy]{GroupPolicies(), func(r *Results) (iter.Seq2[*GroupPolicy, error], error) {
			list, err := groupPolicies(r)
			return each(list), err
		}},
		source[Impact]{Impacts(), func(r *Results) (iter.Seq2[*Impact, error], error) {
			list, _, err := impactOf(r)
			return each(list), err
		}},
		judged(Policies(), func(r *storm.Report) []storm.Policy { return r.Policies }),
	}
}
