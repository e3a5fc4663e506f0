package reports

import (
	"cmp"
	"slices"
	"strings"

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
	fresh, most  int64 // nodes that it had not, in the window, and in any
	served       bool  // it said something to a node, and was accepted
	stack        bool  // it went on after its SYN
	unheard      bool  // what it did next may have been missed
}

const (
	maxSourceNodes   = 64
	maxSourceClients = 8
	// maxSources bounds the memory. Beyond it, sources of one attempt that
	// nothing answered are counted together under the zero address.
	maxSources   = 1 << 20
	sourceWindow = int64(10e9)
	// nextSYN is within what time a real stack repeats its first SYN: RFC 6298
	// section 2.1, and RFC 1122 section 4.2.3.1 of older ones.
	nextSYN = int64(3e9)
	// fewScanners, or fewShare of the sources, may be scanners. What more of them do
	// is what clients do: they ask all peers that they once knew.
	fewScanners, fewShare = 3, 0.1
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
// stands behind most attempts, and only if all that is known of it is one SYN, whose
// repeat would have been seen. It is a scanner only if it asked many nodes within
// seconds, was served by none, and few do so. A victim is neither.
func SourcesOf(r *Results, limit int64) (list []Source, tried Limit, err error) {
	report, err := r.Report()
	if err != nil {
		return nil, tried, err
	}
	quality := r.Analysis.Quality()
	deaf := append(slices.Concat(quality.Gaps, quality.Lossy), storm.Span{Start: quality.End, End: quality.End})
	by := map[dissect.Addr]*Source{}
	for a, err := range r.Analysis.Attempts() {
		if err != nil {
			return nil, tried, err
		}
		s := by[a.Source.Addr]
		if s == nil {
			if len(by) >= maxSources {
				fold(by)
			}
			s = &Source{Addr: a.Source.Addr, First: a.Start}
			by[s.Addr] = s
		}
		over := s.meets(a, limit)
		if a.Relation == dissect.RelationRefresh || a.Relation == dissect.RelationParallel {
			continue
		}
		s.add(a, report, over)
		s.unheard = s.unheard || slices.ContainsFunc(deaf, func(d storm.Span) bool { return a.Start+nextSYN >= d.Start && a.Start <= d.End })
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
		if s.Failed == 0 && s.Checks == 0 {
			if well++; s.Over > 0 {
				hurt++
			}
		}
	}
	scanners := 0
	for _, s := range by {
		if s.scans(&th) {
			scanners++
		}
	}
	few := scanners <= max(fewScanners, int(fewShare*float64(len(by))))
	for _, s := range by {
		if s.Attempts+s.Checks == 0 {
			continue // refreshes alone
		}
		if storms > 0 {
			s.Share = float64(s.Storm) / float64(storms)
		}
		s.name(&th, few)
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

// meets reports an attempt that a limit stops. It knows of no relations: a refresh
// and the twin of a dial count as they would at the node.
func (s *Source) meets(a *dissect.Attempt, limit int64) bool {
	if w := a.Start / sourceWindow; w != s.window {
		s.window, s.hits, s.fresh = w, 0, 0
	}
	s.hits++
	if limit == 0 || s.hits <= limit {
		return false
	}
	s.Over++
	return true
}

func (s *Source) add(a *dissect.Attempt, report *storm.Report, over bool) {
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
	s.served = s.served || a.Outcome == dissect.OutcomeAccepted && (a.Proto != dissect.ProtoTCP || strings.Contains(a.History, "D"))
	s.stack = s.stack || a.SourcePackets > int64(a.Transmissions)
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
	if over && inside {
		s.OverStorm++
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
		s.fresh++
		s.most = max(s.most, s.fresh)
	}
}

// scans reports what scanners do and clients do not, if few do it.
func (s *Source) scans(th *storm.Thresholds) bool {
	return !s.served && float64(s.most) >= th.ScanNodes && float64(s.Failed) >= th.ScanFailure*float64(s.Attempts) && s.again*2 < s.Attempts
}

// name says what a source is.
func (s *Source) name(th *storm.Thresholds, few bool) {
	switch {
	case s.Attempts == 0:
		s.Role = "monitor"
	case s.flooded && s.Accepted == 0 && (s.Addr == dissect.Addr{} || s.Transmissions == 1 && !s.stack && !s.unheard):
		s.Role = "attacker"
	case few && s.scans(th):
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
