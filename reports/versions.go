package reports

import "squall/dissect/storm"

// Versions is the table of client versions: which fell first, and which carries
// the retries. It says associated, never caused.
func Versions() *Of[storm.Version] {
	type v = storm.Version
	return define("versions", "a client version on a service", false,
		str("client_version", "software as it names itself", func(r *v) string { return r.Version }),
		str("service", "the service", func(r *v) string { return r.Service }),
		num("clients", "", "its clients", func(r *v) int64 { return r.Clients }),
		num("attempts", "", "their attempts", func(r *v) int64 { return r.Attempts }),
		num("failures", "", "failed ones", func(r *v) int64 { return r.Failures }),
		num("retries", "", "retries and failovers", func(r *v) int64 { return r.Retries }),
		ratio("client_share", "", "of the clients of the service", func(r *v) float64 { return r.ClientShare }),
		ratio("retry_share", "", "of the retries of the service", func(r *v) float64 { return r.RetryShare }),
		ratio("amplification", "", "A", func(r *v) float64 { return r.Amplification }),
		ratio("amplification_low", "", "A, lower 95 % bound", func(r *v) float64 { return r.AmplificationLow }),
		ratio("amplification_high", "", "A, upper 95 % bound", func(r *v) float64 { return r.Amplification95 }),
		ratio("early_odds_ratio", "", "of falling before the overload", func(r *v) float64 { return r.EarlyOdds }),
		ratio("early_odds_low", "", "lower 95 % bound", func(r *v) float64 { return r.EarlyLow }),
		ratio("early_odds_high", "", "upper 95 % bound", func(r *v) float64 { return r.EarlyHigh }),
		ratio("early_p", "", "one-sided Fisher, corrected for the number of versions and of ways to fall", func(r *v) float64 { return r.EarlyP }),
		ratio("early_odds_stratified", "", "the same among clients of the same nodes (Mantel-Haenszel)", func(r *v) float64 { return r.EarlyStratified }),
		ratio("late_odds_ratio", "", "of failing afterwards", func(r *v) float64 { return r.LateOdds }),
		ratio("late_odds_low", "", "lower 95 % bound", func(r *v) float64 { return r.LateLow }),
		ratio("late_odds_high", "", "upper 95 % bound", func(r *v) float64 { return r.LateHigh }),
		ratio("rollout_odds_ratio", "", "of being the version of an intent right before the onset, against the beginning", func(r *v) float64 { return r.RolloutOdds }),
		ratio("rollout_odds_low", "", "lower 95 % bound", func(r *v) float64 { return r.RolloutLow }),
		ratio("rollout_odds_high", "", "upper 95 % bound", func(r *v) float64 { return r.RolloutHigh }),
		flag("associated", "more than chance", func(r *v) bool { return r.Associated }),
		str("associated_with", "crash: its members fell first; retries: its policy carries the storm; both with a comma between", func(r *v) string { return r.AssociatedWith }),
	).leads("client_version clients attempts amplification early_odds_ratio associated_with client_share retry_share service late_odds_ratio")
}
