package reports

import (
	"cmp"
	"slices"

	"squall/dissect"
	"squall/dissect/storm"
)

// Source is an address that sent attempts, and what it is.
type Source struct {
	Addr                                dissect.Addr
	Role                                string
	Attempts, Retries, Accepted, Failed int64
	Transmissions                       int64
	Checks                              int64
	Nodes                               int64 // different ones, up to maxSourceNodes
	Clients                             int64 // different identities, up to maxSourceClients
	First, Last                         int64
	Storm                               int64 // attempts inside a finding of its service
	Share                               float64
	Over                                int64 // attempts beyond the proposed limit
	OverStorm                           int64

	nat, flooded bool
	nodes        []dissect.Endpoint
	clients      []string
	window, hits int64
	again        int64 // attempts at a node that it had tried before
}

const (
	maxSourceNodes   = 64
	maxSourceClients = 8
	// maxSources bounds the memory. Beyond it, sources of one attempt that
	// nothing answered are counted together under the zero address.
	maxSources   = 1 << 20
	sourceWindow = int64(10e9)
)

// Sources is the table of who sent what.
func Sources() *Of[Source] {
	type s = Source
	return define("sources", "an address that sent attempts", true, append([]field[s]{
		str("source_ip", "the address; empty: the many that sent one unanswered packet each, beyond what is kept apart", func(v *s) string {
			if v.Addr == (dissect.Addr{}) {
				return ""
			}
			return v.Addr.String()
		}),
		str("role", "attacker, scanner, nat, retrying_victim, monitor or client", func(v *s) string { return v.Role }),
		num("attempts", "", "refreshes, parallel twins and health checks left out", func(v *s) int64 { return v.Attempts }),
		num("retries", "", "of them", func(v *s) int64 { return v.Retries }),
		num("accepted", "", "of them", func(v *s) int64 { return v.Accepted }),
		num("failed", "", "of them", func(v *s) int64 { return v.Failed }),
		num("transmissions", "", "packets of the request phase", func(v *s) int64 { return v.Transmissions }),
		num("nodes", "", "different ones it tried, 64 at most", func(v *s) int64 { return v.Nodes }),
		num("clients", "", "identities behind it, 8 at most", func(v *s) int64 { return v.Clients }),
		num("checks", "", "health checks, of a monitor", func(v *s) int64 { return v.Checks }),
		when("first_time", "first attempt", func(v *s) int64 { return v.First }),
		when("last_time", "last attempt", func(v *s) int64 { return v.Last }),
		num("storm_attempts", "", "attempts while a finding lasted on their service", func(v *s) int64 { return v.Storm }),
		ratio("storm_share", "", "of all such attempts", func(v *s) float64 { return v.Share }),
	}, grouped(func(v *s) dissect.Addr { return v.Addr })...)...).leads("source_ip role attempts failed storm_attempts storm_share accepted nodes clients")
}

// Limit is what a limit of attempts for each source in ten seconds would do.
type Limit struct {
	Attempts int64   // for each source in 10 s
	Removed  float64 // share of the attempts inside findings that it stops
	Hurt     float64 // share of the sources that never failed, and still meet it
}

// SourcesOf tells what the sources are, by attempts; limit > 0 also tries a
// limit. A source is an attacker only where a finding says that no real stack
// stands behind most attempts, and only if it never repeated, was never answered
// and never came back: a victim that retries is never one.
func SourcesOf(r *Results, limit int64) (list []Source, tried Limit, err error) {
	report, err := r.Report()
	if err != nil {
		return nil, tried, err
	}
	by := map[dissect.Addr]*Source{}
	for a, err := range r.Analysis.Attempts() {
		if err != nil {
			return nil, tried, err
		}
		if a.Relation == dissect.RelationRefresh || a.Relation == dissect.RelationParallel {
			continue
		}
		s := by[a.Source.Addr]
		if s == nil {
			if len(by) >= maxSources {
				fold(by)
			}
			s = &Source{Addr: a.Source.Addr, First: a.Start}
			by[s.Addr] = s
		}
		s.add(a, report, limit)
	}
	for c, err := range r.Analysis.Clients() {
		if err != nil {
			return nil, tried, err
		}
		if s := by[c.Addr]; s != nil && c.NATSuspect {
			s.nat = true
		}
	}
	var storms, over, well, hurt int64
	th := r.cfg.Thresholds.WithDefaults()
	for _, s := range by {
		storms, over = storms+s.Storm, over+s.OverStorm
		if s.Failed == 0 && s.Attempts > 0 {
			if well++; s.Over > 0 {
				hurt++
			}
		}
	}
	for _, s := range by {
		if storms > 0 {
			s.Share = float64(s.Storm) / float64(storms)
		}
		s.name(&th)
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.Attempts, a.Attempts), dissect.Endpoint{Addr: a.Addr}.Compare(dissect.Endpoint{Addr: b.Addr}))
	})
	tried.Attempts = limit
	if storms > 0 {
		tried.Removed = float64(over) / float64(storms)
	}
	if well > 0 {
		tried.Hurt = float64(hurt) / float64(well)
	}
	return list, tried, nil
}

func (s *Source) add(a *dissect.Attempt, report *storm.Report, limit int64) {
	if a.Relation == dissect.RelationMonitor {
		s.Checks++
		s.Last = max(s.Last, a.Start)
		s.node(a)
		return
	}
	s.Attempts++
	s.Last = max(s.Last, a.Start)
	s.Transmissions += int64(a.Transmissions)
	if a.Relation == dissect.RelationRetry || a.Relation == dissect.RelationFailover {
		s.Retries++
	}
	switch {
	case a.Outcome == dissect.OutcomeAccepted:
		s.Accepted++
	case a.Outcome.Failed():
		s.Failed++
	}
	s.node(a)
	if len(s.clients) < maxSourceClients && !slices.Contains(s.clients, a.ClientID) {
		s.clients = append(s.clients, a.ClientID)
		s.Clients++
	}
	inside := false
	for i := range report.Findings {
		f := &report.Findings[i]
		if f.Service == a.Service && a.Start >= f.Onset && (f.End == 0 || a.Start <= f.End) && f.Class > storm.InsufficientEvidence {
			inside = true
			s.flooded = s.flooded || f.Class == storm.SynFlood
		}
	}
	if inside {
		s.Storm++
	}
	if w := a.Start / sourceWindow; w != s.window {
		s.window, s.hits = w, 0
	}
	if s.hits++; limit > 0 && s.hits > limit {
		s.Over++
		if inside {
			s.OverStorm++
		}
	}
}

// node counts what the source tried.
func (s *Source) node(a *dissect.Attempt) {
	switch again := slices.Contains(s.nodes, a.Destination); {
	case again:
		s.again++
	case len(s.nodes) < maxSourceNodes:
		s.nodes = append(s.nodes, a.Destination)
		s.Nodes++
	}
}

// name says what a source is.
func (s *Source) name(th *storm.Thresholds) {
	switch {
	case s.Attempts == 0:
		s.Role = "monitor"
	case s.flooded && s.Accepted == 0 && s.Retries == 0 && s.Transmissions == s.Attempts:
		s.Role = "attacker"
	case float64(s.Nodes) >= th.ScanNodes && float64(s.Failed) >= th.ScanFailure*float64(s.Attempts) && s.again*2 < s.Attempts:
		s.Role = "scanner"
	case s.nat || s.Clients > 2:
		s.Role = "nat"
	case s.Failed > 0:
		s.Role = "retrying_victim"
	default:
		s.Role = "client"
	}
}

// fold counts the sources of one unanswered attempt together, to make room.
func fold(by map[dissect.Addr]*Source) {
	rest := by[dissect.Addr{}]
	if rest == nil {
		rest = &Source{}
	}
	for addr, s := range by {
		if s != rest && s.Attempts == 1 && s.Accepted == 0 && s.Transmissions == 1 {
			if rest.First == 0 || s.First < rest.First {
				rest.First = s.First
			}
			rest.Attempts, rest.Failed, rest.Transmissions, rest.Storm = rest.Attempts+1, rest.Failed+s.Failed, rest.Transmissions+1, rest.Storm+s.Storm
			rest.Last, rest.flooded = max(rest.Last, s.Last), rest.flooded || s.flooded
			delete(by, addr)
		}
	}
	by[dissect.Addr{}] = rest
}
