package reports

import (
	"encoding/json"
	"io"

	"squall/dissect"
	"squall/dissect/storm"
)

// SummarySchema is the version of the object that WriteSummary writes. It is
// raised when a field changes its meaning or goes away.
const SummarySchema = 1

// object is a JSON object whose fields keep their order.
type object struct{ b []byte }

func (o *object) raw(name string, value []byte) {
	if len(o.b) == 0 {
		o.b = append(o.b, '{')
	} else {
		o.b = append(o.b, ',')
	}
	o.b = appendJSONString(o.b, name)
	o.b = append(o.b, ':')
	o.b = append(o.b, value...)
}

func (o *object) put(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only numbers and texts are put
		b = []byte("null")
	}
	o.raw(name, b)
}

func (o *object) end() []byte {
	if len(o.b) == 0 {
		return []byte("{}")
	}
	return append(o.b, '}')
}

// rowsOf gives the rows of a table as objects; more adds to each what the flat
// table cannot hold.
func rowsOf[T any](table *Of[T], env *Env, items []T, more func(*object, *T)) []byte {
	return objects(items, func(o *object, item *T) { putRow(o, table, env, item, more) })
}

func rowOf[T any](table *Of[T], env *Env, item *T, more func(*object, *T)) []byte {
	var o object
	putRow(&o, table, env, item, more)
	return o.end()
}

func putRow[T any](o *object, table *Of[T], env *Env, item *T, more func(*object, *T)) {
	for c, get := range table.get {
		o.raw(table.Columns[c].Name, appendJSON(nil, table.Columns[c].Kind, get(env, item)))
	}
	if more != nil {
		more(o, item)
	}
}

// putPeriods adds what was wrong with a node for a while.
func putPeriods(o *object, env *Env, n *storm.Node) {
	all := make([]NodePeriod, len(n.Periods))
	for i, p := range n.Periods {
		all[i] = NodePeriod{n, p}
	}
	o.raw("periods", rowsOf(NodePeriods(), env, all, nil))
}

// objects is a list, each filled from an item.
func objects[T any](items []T, fill func(*object, *T)) []byte {
	out := []byte{'['}
	for i := range items {
		if i > 0 {
			out = append(out, ',')
		}
		var o object
		fill(&o, &items[i])
		out = append(out, o.end()...)
	}
	return append(out, ']')
}

// WriteSummary writes the whole judgement as one JSON object; its fields are
// fixed by the schema that stands beside the documentation.
func WriteSummary(w io.Writer, r *Results) error {
	report, err := r.Report()
	if err != nil {
		return err
	}
	if err := r.findHits(); err != nil {
		return err
	}
	env := r.Env()
	criteria := func(o *object, f *storm.Finding) {
		all := make([]Criterion, len(f.Criteria))
		for i, c := range f.Criteria {
			all[i] = Criterion{f, c}
		}
		o.raw("criteria", rowsOf(Criteria(), env, all, nil))
	}
	periods := func(o *object, n *storm.Node) { putPeriods(o, env, n) }
	var ledger object
	sum := r.Analysis.Ledger()
	for b := range dissect.NumBuckets {
		ledger.put(b.String(), sum[b])
	}
	var o object
	o.put("schema", SummarySchema)
	o.raw("captures", rowsOf(Captures(), env, r.Analysis.Captures(), nil))
	o.raw("ledger", ledger.end())
	o.raw("verdict", rowOf(Findings(), env, &report.Verdict, func(o *object, f *storm.Finding) {
		criteria(o, f)
		o.put("summary", report.Summary)
	}))
	o.raw("findings", rowsOf(Findings(), env, report.Findings, criteria))
	o.raw("totals", totals(&report.Totals))
	o.raw("baseline", baseline(report.Baseline))
	o.raw("nodes", rowsOf(Nodes(), env, report.Nodes, periods))
	o.raw("migrations", rowsOf(Migrations(), env, report.Migrations, nil))
	o.raw("versions", rowsOf(Versions(), env, report.Versions, nil))
	o.raw("policies", rowsOf(Policies(), env, report.Policies, nil))
	o.raw("roles", rowsOf(Roles(), env, report.Roles, nil))
	o.raw("hypotheses", hypotheses(report.Hypotheses))
	o.raw("monitors", monitors(report.Monitors))
	o.put("notes", append([]string{}, report.Notes...))
	_, err = w.Write(append(o.end(), '\n'))
	return err
}

func totals(t *storm.Totals) []byte {
	var o, outcomes object
	for i, n := range t.Outcomes {
		outcomes.put(dissect.Outcome(i).String(), n)
	}
	o.put("attempts", t.Attempts)
	o.put("intents", t.Intents)
	o.put("retries", t.Retries)
	o.put("refreshes", t.Refreshes)
	o.put("parallels", t.Parallels)
	o.put("transmissions", t.Transmissions)
	o.put("clients", t.Clients)
	o.put("nodes", t.Nodes)
	o.put("amplification", t.Amplification())
	o.put("retry_share", t.RetryShare())
	o.put("intent_surge", t.IntentSurge)
	o.put("late_ratio", t.LateRatio())
	o.put("censored_intents", t.Censored)
	o.put("nat_suspects", t.NATSuspects)
	o.put("monitors", t.Monitors)
	o.put("checks", t.Checks)
	o.raw("outcomes", outcomes.end())
	var proof object
	proof.put("app", t.AppAccepts)
	proof.put("bytes", t.ByteAccepts)
	proof.put("age", t.AgeAccepts)
	o.raw("accepts_proven_by", proof.end())
	return o.end()
}

// baseline is null where none was given.
func baseline(a *storm.Against) []byte {
	if a == nil {
		return []byte("null")
	}
	services := objects(a.Services, func(o *object, s *storm.AgainstService) {
		o.put("service", s.Service)
		o.put("baseline_service", s.CalmService)
		o.put("begin", stamp(s.From))
		o.put("end", stamp(s.To))
		o.put("same_time_of_day", s.Aligned)
		o.put("attempt_rate", s.Rate)
		o.put("baseline_attempt_rate", s.CalmRate)
		o.put("volume", s.Volume())
		o.put("failure_ratio", s.Failure)
		var failure *float64
		if s.CalmFailure >= 0 {
			failure = &s.CalmFailure
		}
		o.put("baseline_failure_ratio", failure)
		o.put("surge", s.Surge)
	})
	var o object
	o.put("name", a.Name)
	kind := "attempts"
	if a.Flows {
		kind = "flows"
	}
	o.put("counted", kind)
	o.put("begin", stamp(a.Begin))
	o.put("end", stamp(a.End))
	o.raw("services", services)
	o.put("missing_services", append([]string{}, a.Missing...))
	return o.end()
}

func monitors(all []storm.Monitor) []byte {
	return objects(all, func(o *object, m *storm.Monitor) {
		o.put("client_id", m.ID)
		o.put("services", m.Services)
		o.put("nodes", m.Nodes)
		o.put("checks", m.Checks)
		o.put("failed", m.Failed)
		o.put("interval_ns", m.Every)
		o.put("first_time", stamp(m.First))
		o.put("last_time", stamp(m.Last))
	})
}

func hypotheses(all []storm.Hypothesis) []byte {
	return objects(all, func(o *object, h *storm.Hypothesis) {
		o.put("name", h.Name)
		o.put("rank", h.Rank)
		o.put("score", h.Score)
		o.put("sentence", h.Sentence)
		o.put("for", append([]string{}, h.For...))
		o.put("against", append([]string{}, h.Against...))
		o.put("unseen", append([]string{}, h.Unseen...))
	})
}
