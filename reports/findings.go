package reports

import (
	"squall/dissect"
	"squall/dissect/storm"
)

// Findings is the table of verdicts: stretches of time on a service with a
// class.
func Findings() *Of[storm.Finding] {
	type f = storm.Finding
	fields := []field[f]{
		str("class", "what it is called", func(v *f) string { return v.Class.String() }),
		flag("cascade", "nodes fell one after the other", func(v *f) bool { return v.Cascade }),
		str("service", "where it happened", func(v *f) string { return v.Service }),
		str("destination_role", "of its nodes", func(v *f) string { return v.Role.String() }),
		list("nodes", "nodes concerned", func(v *f) []string { return endpoints(v.Nodes) }),
		when("onset", "first failing attempt", func(v *f) int64 { return v.Onset }),
		str("onset_shape", "step or gradual", func(v *f) string { return v.Shape }),
		span("rise_ns", "in which the attempts rose from 10 to 90 % of the way to their peak", func(v *f) int64 { return v.Rise }),
		optNum("doubling_ns", "ns", "in which they doubled, of a gradual onset", 0, func(v *f) int64 { return v.Doubling }),
		ratio("growth_fit", "", "R² of the exponential growth behind it", func(v *f) float64 { return v.GrowthFit }),
		optWhen("end", "empty: until the capture's end", func(v *f) int64 { return v.End }),
		flag("recovered", "clients were served again afterwards", func(v *f) bool { return v.Recovered }),
		flag("retrigger", "began while an earlier one was being repaired", func(v *f) bool { return v.Retrigger }),
		flag("metastable", "failures went on while intents were back to normal", func(v *f) bool { return v.Metastable }),
		str("confidence", "low, medium or high", func(v *f) string { return v.Confidence.String() }),
		str("sentence", "in plain words", func(v *f) string { return v.Sentence }),
		list("reasons", "what limits it", func(v *f) []string { return v.Reasons }),
	}
	fields = append(fields, counts(func(v *f) *storm.Counts { return &v.Counts })...)
	return define("findings", "a stretch of time on a service with a class", false, append(fields,
		ratio("peak_rate", "1/s", "attempts a second in the busiest 10 s", func(v *f) float64 { return v.PeakRate }),
		ratio("surge", "x", "intents over the calm median", func(v *f) float64 { return v.Surge }),
		str("baseline", "what its calm levels are from, of --baseline; empty: the capture's own calm stretch", func(v *f) string { return v.Baseline }),
		ratio("excess", "x", "worst survivor, beyond redistribution", func(v *f) float64 { return v.Excess }),
		ratio("knee", "1/s", "best rate of accepts that was sustained", func(v *f) float64 { return v.Knee }),
		ratio("knee_load", "1/s", "attempts a second beyond which goodput grew no more; 0: it kept up", func(v *f) float64 { return v.KneeLoad }),
		ratio("sag", "", "goodput under the heaviest load over the best: 0 collapsed, 1 held", func(v *f) float64 { return v.Sag }),
		num("attached", "", "clients that held a session before the onset", func(v *f) int64 { return v.Attached }),
		num("attached_low", "", "the fewest inside", func(v *f) int64 { return v.AttachedLow }),
		optNum("attached_back50_ns", "ns", "from the fewest to half of those before; empty: not in the capture", 0, func(v *f) int64 { return v.AttachedBack50 }),
		optNum("attached_back90_ns", "ns", "from the fewest to nine tenths of those before", 0, func(v *f) int64 { return v.AttachedBack90 }),
		ratio("rate_attached", "1/s", "what a client with a session sends, before: attempts and refreshes", func(v *f) float64 { return v.RateAttached }),
		ratio("rate_locked", "1/s", "what a client without one sends inside: failing attempts", func(v *f) float64 { return v.RateLocked }),
		num("restarts", "", "nodes that came back inside", func(v *f) int64 { return v.Restarts }),
		num("restarts_failed", "", "of them, down again within two minutes", func(v *f) int64 { return v.RestartsFailed }),
		num("clients", "", "clients that failed at least once", func(v *f) int64 { return v.Clients }),
		num("never_in", "", "of them, never accepted until the capture's end", func(v *f) int64 { return v.NeverIn }),
		listEnv("groups_hit", "of --groups: clients that failed of those that tried meanwhile, kind by kind, those with most first", func(e *Env, v *f) []string { return hitWords(e.hits[foundOf(v)]) }),
		num("locked_out_ns", "ns", "client time from first failure to acceptance", func(v *f) int64 { return v.LockedOut }),
		num("attach_p50_ns", "ns", "time to attach, of intents begun inside, to 10 s; median, within 1 %", func(v *f) int64 { return v.AttachP50 }),
		num("attach_p95_ns", "ns", "time to attach, 95th percentile", func(v *f) int64 { return v.AttachP95 }),
		num("attach_p99_ns", "ns", "time to attach, 99th percentile", func(v *f) int64 { return v.AttachP99 }),
		str("first_attempt_id", "attempt at the onset", func(v *f) string { return id(v.FirstAttempt) }),
		strEnv("capture_file", "input that holds its first frame", func(e *Env, v *f) string { return e.file(v.FirstFile, v.FirstFrame) }),
		optNum("first_frame", "", "its first frame", 0, func(v *f) int64 { return v.FirstFrame }),
	)...).leads("class onset sentence cascade service end confidence attempts clients")
}

func endpoints(all []dissect.Endpoint) (out []string) {
	for _, e := range all {
		out = append(out, e.String())
	}
	return out
}

// Criterion is a criterion of a finding.
type Criterion struct {
	Finding *storm.Finding
	storm.Criterion
}

// Criteria is the table of the tests behind the findings.
func Criteria() *Of[Criterion] {
	type c = Criterion
	return define("criteria", "a criterion of a finding", false,
		str("class", "of the finding", func(v *c) string { return v.Finding.Class.String() }),
		str("service", "of the finding", func(v *c) string { return v.Finding.Service }),
		when("onset", "of the finding", func(v *c) int64 { return v.Finding.Onset }),
		str("criterion", "what is tested", func(v *c) string { return v.Name }),
		ratio("value", "", "what was found", func(v *c) float64 { return v.Value }),
		ratio("threshold", "", "what is asked for", func(v *c) float64 { return v.Threshold }),
		str("unit", "of both", func(v *c) string { return v.Unit }),
		flag("met", "the criterion holds", func(v *c) bool { return v.Met }),
		flag("waived", "it could not be asked for", func(v *c) bool { return v.Waived }),
		str("note", "why, or what the number means", func(v *c) string { return v.Note }),
	).leads("class criterion value threshold unit met waived note onset service")
}
