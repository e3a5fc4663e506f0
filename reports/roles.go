package reports

import "squall/dissect/storm"

// Roles is the table of central roles, first in trouble first: the answer to
// "was it the login servers?".
func Roles() *Of[storm.RoleHealth] {
	type r = storm.RoleHealth
	fields := []field[r]{
		str("destination_role", "supernode, login, relay, bootstrap or tracker", func(v *r) string { return v.Role.String() }),
		str("class", "of its gravest finding", func(v *r) string { return v.Class.String() }),
		optWhen("onset", "of its first outage; empty: none", func(v *r) int64 { return v.Onset }),
		num("nodes", "", "seen", func(v *r) int64 { return v.Nodes }),
		num("nodes_down", "", "of them, down or protecting themselves for a while", func(v *r) int64 { return v.Down }),
		num("nodes_overloaded", "", "of them, answering too late or with no", func(v *r) int64 { return v.Overloaded }),
		num("clients_hit", "", "by its worst finding", func(v *r) int64 { return v.Clients }),
		list("services", "that they serve", func(v *r) []string { return v.Services }),
		str("sentence", "in plain words", func(v *r) string { return v.Sentence }),
	}
	return define("roles", "how the nodes of a central role fared", false, append(fields, counts(func(v *r) *storm.Counts { return &v.Counts })...)...).leads("destination_role class nodes nodes_down clients_hit sentence onset")
}
