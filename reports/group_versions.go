package reports

import (
	"cmp"
	"slices"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// GroupVersion is what the clients of a group that run one version did.
type GroupVersion struct {
	Service, Version string
	By, Group        string
	Family           string // of the version's retry policy, over all groups
	Clients          int64
	storm.Counts
	gaps durations
}

// GroupVersions is the table that splits versions and their retry policies by
// client group.
func GroupVersions() *Of[GroupVersion] {
	type g = GroupVersion
	fields := []field[g]{
		str("service", "the service", func(v *g) string { return v.Service }),
		str("client_version", "software as it names itself", func(v *g) string { return v.Version }),
		str("by", "site, asn or country", func(v *g) string { return v.By }),
		str("group", "of the clients, as --groups says; empty: not in the file", func(v *g) string { return v.Group }),
		str("policy_family", "how the version retries, all groups together; the table policies says more", func(v *g) string { return v.Family }),
		num("clients", "", "that tried", func(v *g) int64 { return v.Clients }),
		span("retry_gap_p50_ns", "from an attempt to the retry that follows it, median; at most 6 % too high", func(v *g) int64 { return v.gaps.quantile(0.5) }),
		span("retry_gap_p95_ns", "the same, 95th percentile", func(v *g) int64 { return v.gaps.quantile(0.95) }),
	}
	fields = append(fields, counts(func(v *g) *storm.Counts { return &v.Counts })...)
	return define("group_versions", "a client version in a group of clients, at a service", false, fields...).leads("client_version by group clients attempts amplification failure_ratio policy_family service")
}

type versionKey struct {
	service, version string
	kind             int
	group            string
}

// versioning counts what one worker sees.
type versioning struct {
	groups *Groups
	by     map[versionKey]*GroupVersion
	seen   map[versionKey]bool // in which the client in hand was counted
	whole  map[versionKey]*GroupVersion
}

func (g *versioning) Client(*dissect.Client) { clear(g.seen) }
func (g *versioning) Intent(*dissect.Intent) {}

func (g *versioning) Attempt(a *dissect.Attempt) {
	var c storm.Counts
	c.Count(a)
	group := g.groups.Of(a.Source.Addr)
	for kind := range kinds {
		k := versionKey{a.Service, a.ClientVersion, kind, group.is(kind)}
		v := g.by[k]
		if v == nil {
			v = &GroupVersion{gaps: durations{}}
			g.by[k] = v
		}
		v.Counts.Add(&c)
		if a.Relation.Retries() && a.RetryGap > 0 {
			v.gaps.add(a.RetryGap)
		}
		if a.Relation.Counted() && !g.seen[k] {
			g.seen[k] = true
			v.Clients++
		}
	}
}

func (g *versioning) Done() {
	for k, v := range g.by {
		w := g.whole[k]
		if w == nil {
			g.whole[k] = v
			continue
		}
		w.Counts.Add(&v.Counts)
		w.Clients += v.Clients
		for step, n := range v.gaps {
			w.gaps[step] += n
		}
	}
}

// groupVersions has no rows without --groups.
func groupVersions(r *Results) (out []GroupVersion, err error) {
	if r.Groups == nil {
		return nil, nil
	}
	report, err := r.Report()
	if err != nil {
		return nil, err
	}
	family := map[[2]string]string{}
	for _, p := range report.Policies {
		family[[2]string{p.Service, p.Group}] = p.Family
	}
	whole := map[versionKey]*GroupVersion{}
	if err = r.Analysis.Visit(func(int) dissect.Visitor {
		return &versioning{groups: r.Groups, by: map[versionKey]*GroupVersion{}, seen: map[versionKey]bool{}, whole: whole}
	}); err != nil {
		return nil, err
	}
	said := [len(kinds)]bool{}
	for k := range whole {
		said[k.kind] = said[k.kind] || k.group != ""
	}
	for k, v := range whole {
		if !said[k.kind] || v.Attempts == 0 {
			continue
		}
		v.Service, v.Version, v.By, v.Group = k.service, k.version, kinds[k.kind], k.group
		v.Family = cmp.Or(family[[2]string{k.service, k.version}], family[[2]string{k.service, "all"}])
		out = append(out, *v)
	}
	slices.SortFunc(out, func(a, b GroupVersion) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.By, b.By), strings.Compare(a.Version, b.Version), strings.Compare(a.Group, b.Group))
	})
	return out, nil
}
