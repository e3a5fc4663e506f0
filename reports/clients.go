package reports

import (
	"squall/dissect"
	"squall/dissect/storm"
)

// Clients is the table of clients and what each did.
func Clients() *Of[storm.Client] {
	type c = storm.Client
	fields := []field[c]{
		str("client_id", "identity: of the protocol, or the address", func(v *c) string { return v.ID }),
		str("client_id_level", "protocol, fingerprint or ip", func(v *c) string { return v.Level.String() }),
		str("source_ip", "address it was last seen at", func(v *c) string { return v.Addr.String() }),
		str("client_version", "software as it names itself", func(v *c) string { return v.Version }),
		str("service", "the one it tried most", func(v *c) string { return v.Service }),
		when("first_time", "its first attempt", func(v *c) int64 { return v.First }),
		when("last_time", "its last attempt", func(v *c) int64 { return v.Last }),
	}
	fields = append(fields, grouped(func(v *c) dissect.Addr { return v.Addr })...)
	fields = append(fields, counts(func(v *c) *storm.Counts { return &v.Counts })...)
	return define("clients", "a client", true, append(fields,
		flag("never_in", "no attempt of it was accepted", func(v *c) bool { return v.NeverIn }),
		flag("monitor", "all that it sent are health checks, which nothing else counts", func(v *c) bool { return v.Monitor }),
		num("checks", "", "its health checks", func(v *c) int64 { return v.Checks }),
		flag("nat_suspect", "several hosts seem to stand behind it", func(v *c) bool { return v.NATSuspect }),
		span("wait_ns", "silence that closes its intents", func(v *c) int64 { return v.Wait }),
	)...).leads("client_id attempts intents amplification failure_ratio client_version never_in service late_ratio first_time last_time")
}

// counts are the columns of a sum over attempts. A, n and the outcomes are of
// rows whose relation is first, retry, failover or reattach.
func counts[T any](of func(*T) *storm.Counts) []field[T] {
	fields := []field[T]{
		num("attempts", "", "attempts, refreshes and parallel twins left out", func(v *T) int64 { return of(v).Attempts }),
		num("intents", "", "of them, those that began an intent", func(v *T) int64 { return of(v).Intents }),
		num("retries", "", "of them, retries and failovers", func(v *T) int64 { return of(v).Retries }),
		ratio("amplification", "", "A: attempts by intents", func(v *T) float64 { return of(v).Amplification() }),
		ratio("retry_share", "", "n: retries by attempts", func(v *T) float64 { return of(v).RetryShare() }),
		ratio("failure_ratio", "", "failed by decided attempts", func(v *T) float64 { return of(v).FailureRatio() }),
		ratio("late_ratio", "", "late answers by all answers", func(v *T) float64 { return of(v).LateRatio() }),
		num("refreshes", "", "attempts inside a living session", func(v *T) int64 { return of(v).Refreshes }),
		num("parallels", "", "overlapping twins", func(v *T) int64 { return of(v).Parallels }),
		num("transmissions", "", "packets of the request phase", func(v *T) int64 { return of(v).Transmissions }),
	}
	for o := range dissect.NumOutcomes {
		fields = append(fields, num("outcome_"+o.String(), "", "attempts that ended "+o.String(), func(v *T) int64 { return of(v).Outcomes[o] }))
	}
	return fields
}
