package reports

import (
	"squall/dissect"
	"squall/dissect/storm"
)

// GroupPolicy is how the clients of a group retry.
type GroupPolicy struct {
	By string
	storm.Policy
}

// GroupPolicies is the table of retry policies by client group; without groups it
// has no rows.
func GroupPolicies() *Of[GroupPolicy] {
	type p = GroupPolicy
	return define("group_policies", "how the clients of a group retry, whatever version they run", false, append([]field[p]{
		str("by", "site, asn or country", func(v *p) string { return v.By }),
		str("group", "of the clients, as --groups says; empty: not in the file; other: the rest, where a service has more than 128", func(v *p) string { return v.Group }),
		str("service", "the service", func(v *p) string { return v.Service }),
	}, waits(func(v *p) *storm.Policy { return &v.Policy })...)...).
		leads("by group clients family base_ns base_holds_timeout factor cap_ns jitter attempt_limit gaps service timeout_ns smells")
}

// policing infers the policies of what one worker sees.
type policing struct {
	*storm.Grouped
	whole *storm.Grouped
}

func (p *policing) Done() { p.whole.Merge(p.Grouped) }

func groupPolicies(r *Results) (out []GroupPolicy, err error) {
	if r.Groups == nil {
		return nil, nil
	}
	for kind := range kinds { // one after the other: memory is that of one
		of := func(a *dissect.Attempt) string { g := r.Groups.Of(a.Source.Addr); return g.is(kind) }
		whole := storm.NewGrouped(of)
		if err := r.Analysis.Visit(func(int) dissect.Visitor { return &policing{storm.NewGrouped(of), whole} }); err != nil {
			return nil, err
		}
		before, said := len(out), false
		whole.Policies(r.Thresholds(), func(p storm.Policy, rest bool) {
			said = said || p.Group != ""
			out = append(out, GroupPolicy{kinds[kind], p})
		})
		if !said {
			out = out[:before]
		}
	}
	return out, nil
}
