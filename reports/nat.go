package reports

import "squall/dissect/pipeline"

// NAT is the table of addresses that packets bore at either side of a
// translation.
func NAT() *Of[pipeline.NAT] {
	type n = pipeline.NAT
	return define("nat", "a pair of addresses that the same packets bore at two points", false,
		str("nat_kind", "source: clients behind the outer address; destination: nodes behind it, as of a balancer", func(v *n) string { return v.Kind }),
		str("inner_ip", "address behind the translation", func(v *n) string { return v.Inner.String() }),
		str("outer_ip", "address that the others see", func(v *n) string { return v.Outer.String() }),
		num("flows", "", "connections and exchanges of which both sides were seen", func(v *n) int64 { return v.Flows }),
		num("proofs", "", "packets seen with either address: equal ISN, timestamps, IP id and payload", func(v *n) int64 { return v.Proofs }),
		when("first_time", "first proof", func(v *n) int64 { return v.First }),
		when("last_time", "last proof", func(v *n) int64 { return v.Last }),
		str("inner_observer_name", "tap on the inner side, where it was given a name", func(v *n) string { return v.InnerTap }),
		str("outer_observer_name", "tap on the outer side", func(v *n) string { return v.OuterTap }),
	)
}
