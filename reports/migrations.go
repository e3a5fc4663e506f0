package reports

import "squall/dissect/storm"

// Migrations is the table of moves: intents that failed at one node and went
// to another.
func Migrations() *Of[storm.Migration] {
	type m = storm.Migration
	return define("migrations", "intents that failed at one node and went to another", false,
		str("service", "of both nodes", func(v *m) string { return v.Service }),
		str("from_ip", "the node that failed", func(v *m) string { return v.From.Addr.String() }),
		num("from_port", "", "its port", func(v *m) int64 { return int64(v.From.Port) }),
		str("to_ip", "the node tried next", func(v *m) string { return v.To.Addr.String() }),
		num("to_port", "", "its port", func(v *m) int64 { return int64(v.To.Port) }),
		num("intents", "", "moves", func(v *m) int64 { return v.Intents }),
		when("first_time", "the first", func(v *m) int64 { return v.First }),
		when("last_time", "the last", func(v *m) int64 { return v.Last }),
		ratio("share", "", "of the excess at the second node in the minute before it fell", func(v *m) float64 { return v.Share }),
		flag("causal", "fell first, sent at least 30 % of an excess that doubled the load", func(v *m) bool { return v.Causal }),
	).leads("from_ip from_port to_ip to_port intents share causal first_time last_time service")
}
