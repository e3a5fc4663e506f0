package reports

import "squall/dissect"

// Intents is the table of wishes: the chain of attempts of one client until it
// is attached to a service, or gives up.
func Intents() *Of[dissect.Intent] {
	type i = dissect.Intent
	return define("intents", "one wish of one client to be attached to one service", true, append([]field[i]{
		str("intent_id", "hash of its content, the same in every run", func(v *i) string { return id(v.ID) }),
		when("event_start", "start of its first attempt", func(v *i) int64 { return v.Start }),
		when("event_end", "end of its last attempt", func(v *i) int64 { return v.End }),
		num("event_duration", "ns", "event_end less event_start", func(v *i) int64 { return v.End - v.Start }),
		str("client_id", "identity of the client", func(v *i) string { return v.ClientID }),
		str("service", "what it wanted to be attached to", func(v *i) string { return v.Service }),
		str("network_protocol", "overlay protocol, empty when unknown", func(v *i) string { return v.Protocol }),
		str("relation", "of its first attempt: first, reattach, refresh, monitor", func(v *i) string { return v.Relation.String() }),
		num("attempts", "", "its attempts, parallel twins left out", func(v *i) int64 { return int64(v.Attempts) }),
		num("retries", "", "attempts after the first", func(v *i) int64 { return int64(v.Retries) }),
		num("nodes", "", "different nodes that were tried", func(v *i) int64 { return int64(v.Nodes) }),
		str("attempt_outcome", "of its last attempt", func(v *i) string { return v.Outcome.String() }),
		str("event_outcome", "success, failure or unknown", func(v *i) string { return v.Outcome.Event() }),
		flag("reattach", "the client had lost its session", func(v *i) bool { return v.Relation == dissect.RelationReattach }),
		str("closed_by", "accepted, quiet (silence, or the attempt limit) or edge (of the capture)", func(v *i) string { return v.ClosedBy.String() }),
		flag("censored", "may have begun before the capture, or was open at its end", func(v *i) bool { return v.Censored }),
		span("wait_ns", "silence that would have closed it", func(v *i) int64 { return v.Wait }),
		str("first_destination_ip", "node of the first attempt", func(v *i) string { return v.FirstNode.Addr.String() }),
		num("first_destination_port", "", "its port", func(v *i) int64 { return int64(v.FirstNode.Port) }),
		str("last_destination_ip", "node of the last attempt", func(v *i) string { return v.LastNode.Addr.String() }),
		num("last_destination_port", "", "its port", func(v *i) int64 { return int64(v.LastNode.Port) }),
		str("source_ip", "address of the client at its first attempt", func(v *i) string { return v.Source.String() }),
	}, grouped(func(v *i) dissect.Addr { return v.Source })...)...).leads("event_start client_id attempts nodes attempt_outcome closed_by service relation event_duration")
}
