package samples

import (
	"net/netip"
	"slices"
)

// checks tells the rows of monitors: eight passed checks of a node that the next
// one follows at the interval, nine of ten within 15 % of it; not more than one gap
// of ten shorter than half of it, nor one row of ten a session that was held;
// through 80 % of the time; few of the clients. A node without so many passed ones,
// or that came later, is checked if its series has the interval of another of the
// same host.
func checks(rows []Row, listened int64) map[int]bool {
	type pair struct {
		client netip.Addr
		node   netip.AddrPort
	}
	series := map[pair][]int{}
	clients := map[string]map[netip.Addr]bool{}
	for i := range rows {
		r := &rows[i]
		if clients[r.service] == nil {
			clients[r.service] = map[netip.Addr]bool{}
		}
		if r.Outcome == "accepted" || r.Transmissions > 1 {
			clients[r.service][r.Source.Addr()] = true
		}
		if r.Client == "" {
			k := pair{r.Source.Addr(), r.Target}
			series[k] = append(series[k], i)
		}
	}
	alike := func(gap, every int64) bool { return gap*100 >= every*85 && gap*100 <= every*115 }
	passed := func(r *Row) bool {
		if r.Outcome == "accepted" {
			return r.sessionEnd != 0 && r.sessionEnd-r.Start <= 10e9
		}
		return r.Outcome == "stalled" && r.Answer == "synack" && r.end-r.Start <= 5e8
	}
	pace := func(list []int, all bool) int64 {
		slices.SortFunc(list, func(a, b int) int { return int(rows[a].Start - rows[b].Start) })
		var gaps []int64
		for n := 1; n < len(list); n++ {
			if all || passed(&rows[list[n-1]]) {
				gaps = append(gaps, rows[list[n]].Start-rows[list[n-1]].Start)
			}
		}
		if len(gaps) < 8 {
			return 0
		}
		slices.Sort(gaps)
		every := gaps[len(gaps)/2]
		like, hurried, held, covered := 0.0, 0.0, 0.0, int64(0)
		for _, g := range gaps {
			if alike(g, every) {
				like++
			}
		}
		for n := 1; n < len(list); n++ {
			g := rows[list[n]].Start - rows[list[n-1]].Start
			covered += min(g, 2*every)
			if r := &rows[list[n]]; r.Outcome == "accepted" && !passed(r) {
				held++
			}
			if g < every/2 {
				hurried++
			}
		}
		if every < 5e8 || like < 0.9*float64(len(gaps)) || max(hurried, held) > 0.1*float64(len(list)-1) || !all && float64(covered) < 0.8*float64(listened) {
			return 0
		}
		return every
	}
	found := map[pair]int64{}
	for k, list := range series {
		if every := pace(list, false); every > 0 {
			found[k] = every
		}
	}
	if len(found) == 0 {
		return nil
	}
	follows := map[pair]int64{} // the pace of all of a series
	for k, list := range series {
		follows[k] = pace(list, true)
	}
	joined := map[pair]bool{}
	for k := range series {
		for other, every := range found {
			joined[k] = joined[k] || found[k] > 0 || other.client == k.client && alike(follows[k], every)
		}
	}
	hosts := map[string]map[netip.Addr]bool{}
	for k, yes := range joined {
		if s := rows[series[k][0]].service; yes {
			if hosts[s] == nil {
				hosts[s] = map[netip.Addr]bool{}
			}
			hosts[s][k.client] = true
			clients[s][k.client] = true
		}
	}
	sure := map[pair]bool{}
	for k, yes := range joined {
		s := rows[series[k][0]].service
		if n := len(hosts[s]); yes && len(clients[s])-n >= 3 && (n <= 2 || n*10 <= len(clients[s])) {
			sure[k] = true
		}
	}
	out := map[int]bool{}
	for k, yes := range joined {
		for other := range sure {
			if yes && other.client == k.client && alike(follows[k], follows[other]) {
				for _, i := range series[k] {
					out[i] = true
				}
				break
			}
		}
	}
	return out
}
