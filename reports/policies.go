package reports

import "squall/dissect/storm"

// Policies is the table of how groups of clients retry.
func Policies() *Of[storm.Policy] {
	type p = storm.Policy
	fields := append([]field[p]{
		str("policy_group", "client version, or all", func(v *p) string { return v.Group }),
		str("service", "the service", func(v *p) string { return v.Service }),
	}, waits(func(v *p) *p { return v })...)
	return define("policies", "how a group of clients retries", false, append(fields,
		str("node_order", "sticky, round_robin, random or undetermined", func(v *p) string { return v.Order }),
		ratio("synchrony", "", "Rayleigh R of the attempts' phase", func(v *p) float64 { return v.Synchrony }),
		flag("herd", "attempts come in step", func(v *p) bool { return v.Herd }),
	)...).leads("policy_group clients family base_ns base_holds_timeout factor cap_ns jitter attempt_limit gaps service timeout_ns smells")
}

// waits are the columns of a retry policy.
func waits[T any](of func(*T) *storm.Policy) []field[T] {
	return []field[T]{
		num("clients", "", "of the group", func(v *T) int64 { return of(v).Clients }),
		str("family", "immediate, fixed, linear, quadratic, exponential, server_directed, undetermined", func(v *T) string { return of(v).Family }),
		num("base_ns", "ns", "first wait", func(v *T) int64 { return of(v).Base }),
		flag("base_holds_timeout", "base_ns and cap_ns are the wait for an answer and the back-off together: nothing shows how long either is", func(v *T) bool { return of(v).Holds }),
		optNum("step_ns", "ns", "what each further try adds, of linear and quadratic back-off", 0, func(v *T) int64 { return of(v).Step }),
		ratio("factor", "", "growth of the wait", func(v *T) float64 { return of(v).Factor }),
		optNum("cap_ns", "ns", "longest wait", 0, func(v *T) int64 { return of(v).Cap }),
		str("jitter", "none, ten_percent, equal, fifty_percent, full, decorrelated, undetermined", func(v *T) string { return of(v).Jitter }),
		optNum("timeout_ns", "ns", "how long the client waits for an answer", 0, func(v *T) int64 { return of(v).Timeout }),
		optNum("attempt_limit", "", "attempts until it gives up", 0, func(v *T) int64 { return int64(of(v).Limit) }),
		ratio("transmissions", "", "packets of an attempt that nothing answered, median", func(v *T) float64 { return of(v).Sends }),
		optNum("transmission_span_ns", "ns", "from the first to the last of them, median", 0, func(v *T) int64 { return of(v).SendSpan }),
		optNum("ladder_ns", "ns", "from one rung of a transport ladder to the next at a node, median", 0, func(v *T) int64 { return of(v).Ladder }),
		num("gaps", "", "waits seen", func(v *T) int64 { return of(v).Gaps }),
		list("smells", "backoff_reset, jitter_before_cap, no_backoff", func(v *T) []string { return of(v).Smells }),
	}
}
