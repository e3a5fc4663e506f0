package attempt

import (
	"cmp"
	"slices"

	"squall/dissect"
)

// Health checks: a balancer or a monitor that asks a node at a fixed interval, in
// good times and bad. They are no demand. A retrier stops when it succeeds; a
// monitor goes on, at the same pace. docs/decisions has why the rule is as it is.
const (
	// checksToKnow is how many passed checks must be followed by the next.
	checksToKnow = 8
	// checkSlack is how far from the interval a gap may lie, a share of it.
	checkSlack = 0.15
	// checkShare of the gaps after passed checks must be the interval, and of all
	// gaps, half the interval at least: who hurries after failures retries.
	checkShare = 0.9
	// checkCover is the share of the capture that they must run through.
	checkCover = 0.8
	// leastInterval: who asks more often loads a node, whatever it is called.
	leastInterval = second / 2
	// A check is over soon and says little.
	checkWithin   = 10 * second
	connectWithin = second / 2 // without a word: connect and close
	checkBytes    = 8 << 10    // IP bytes of each side
	// Few: at most this share of the clients of a service, or two of five.
	monitorShare = 0.1
	fewMonitors  = 2
	fewOthers    = 3
)

// passes reports an exchange as a passed check is: answered, over at once by the
// client's doing or with the answer, and nobody said who it is.
func (r *Record) passes() bool {
	if r.ClientKey != 0 || r.Flags&(FlagRefresh|FlagOneSided) != 0 || r.SourceBytes > checkBytes || r.DestinationBytes > checkBytes {
		return false
	}
	switch r.Outcome {
	case dissect.OutcomeAccepted:
		over := r.LastSeen
		if r.Proto == dissect.ProtoTCP {
			if over = r.SessionEnd; over == 0 || r.SessionEnded != dissect.SessionByClient && r.SessionEnded != dissect.SessionByNode {
				return false
			}
		}
		return over-r.Start <= checkWithin && r.Lifetime <= checkWithin
	case dissect.OutcomeStalled: // connected was all that it wanted
		return r.Proto == dissect.ProtoTCP && r.Answer == dissect.AnswerSynAck && r.GaveUp != 0 && r.GaveUp-r.Start <= connectWithin && !r.spoke()
	}
	return false
}

// spoke reports that the client sent data.
func (r *Record) spoke() bool { return slices.Contains(r.History[:], 'D') }

// askedBy is one address at one node.
type askedBy struct {
	client dissect.Addr
	node   nodeKey
}

// beat is an attempt in the rhythm of a series.
type beat struct {
	at     int64
	port   uint16
	passed bool
	held   bool // accepted for more than a check
}

// monitored is a series that keeps time as a monitor's does.
type monitored struct {
	askedBy
	service  string
	interval int64
}

// watchdogs finds the monitors: the pairs of address and node whose attempts are
// health checks. Where no node saw a passed check nothing is read again.
func (x *Result) watchdogs() error {
	possible := false
	for _, n := range x.nodes {
		possible = possible || n.checks >= checksToKnow
	}
	if !possible {
		return nil
	}
	var found []monitored
	for p := range Partitions {
		more, err := x.rhythms(p)
		if err != nil {
			return err
		}
		found = append(found, more...)
	}
	pace := map[dissect.Addr][]int64{}
	for service, list := range byService(found) {
		if x.few(service, list) {
			for _, m := range list {
				pace[m.client] = append(pace[m.client], m.interval)
			}
		}
	}
	// Who is one at a service is one at every node that it asks at the same pace.
	for _, m := range found {
		if slices.ContainsFunc(pace[m.client], func(p int64) bool { return alike(m.interval, p) }) {
			if x.monitors == nil {
				x.monitors = map[askedBy]bool{}
			}
			x.monitors[m.askedBy] = true
		}
	}
	return nil
}

// rhythms are the series of a partition that are as steady as a monitor's.
func (x *Result) rhythms(partition int) (found []monitored, err error) {
	passed := map[askedBy]int32{}
	key := func(r *Record) askedBy { return askedBy{*r.client(), nodeKey{r.Destination, r.Proto}} }
	if err := x.store.records(partition, func(r *Record) {
		if r.passes() { // nobody said who it is
			passed[key(r)]++
		}
	}); err != nil {
		return nil, err
	}
	asking := map[dissect.Addr]bool{}
	for k, n := range passed {
		if n >= checksToKnow {
			asking[k.client] = true
		}
	}
	if len(asking) == 0 {
		return nil, nil
	}
	series := map[askedBy][]beat{}
	if err := x.store.records(partition, func(r *Record) {
		if r.ClientKey == 0 && asking[*r.client()] {
			series[key(r)] = append(series[key(r)], beat{r.Start, r.Source.Port, r.passes(), r.Outcome == dissect.OutcomeAccepted && !r.passes()})
		}
	}); err != nil {
		return nil, err
	}
	pace := map[dissect.Addr][]int64{} // of its steady series
	listened := x.end - x.begin
	for _, d := range x.deaf {
		listened -= d.End - d.Start
	}
	for k, list := range series {
		slices.SortFunc(list, func(a, b beat) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.port, b.port)) })
		if every := steady(list, listened); every > 0 {
			found = append(found, monitored{k, x.node(k.node).service, every})
			pace[k.client] = append(pace[k.client], every)
		}
	}
	// A node that was down all the time, or is new, is checked at the pace of the
	// others.
	for k, list := range series {
		if pace[k.client] == nil {
			continue
		}
		every := follows(list)
		if every > 0 && slices.ContainsFunc(pace[k.client], func(p int64) bool { return alike(every, p) }) &&
			!slices.ContainsFunc(found, func(m monitored) bool { return m.askedBy == k }) {
			found = append(found, monitored{k, x.node(k.node).service, every})
		}
	}
	return found, nil
}

// steady is the interval of a series that goes on at one pace after it passed, 0
// where it does not.
func steady(list []beat, listened int64) int64 {
	var gaps []int64 // after passed checks
	for i := 1; i < len(list); i++ {
		if list[i-1].passed {
			gaps = append(gaps, list[i].at-list[i-1].at)
		}
	}
	if len(gaps) < checksToKnow {
		return 0
	}
	return paced(list, gaps, listened)
}

// follows is the same for a series that need not pass, nor run through all.
func follows(list []beat) int64 {
	var gaps []int64
	for i := 1; i < len(list); i++ {
		gaps = append(gaps, list[i].at-list[i-1].at)
	}
	if len(gaps) < checksToKnow {
		return 0
	}
	return paced(list, gaps, 0)
}

// paced is the median of the gaps, if nearly all are like it, the series is no
// quicker elsewhere, holds no sessions, runs through what was listened to, and has a
// new port for each check.
func paced(list []beat, gaps []int64, listened int64) int64 {
	slices.Sort(gaps)
	every := gaps[len(gaps)/2]
	regular := 0
	for _, g := range gaps {
		if alike(g, every) {
			regular++
		}
	}
	hurried, samePort, held, covered := 0, 0, 0, int64(0)
	for i := 1; i < len(list); i++ {
		gap := list[i].at - list[i-1].at
		if gap < every/2 {
			hurried++
		}
		if list[i].port == list[i-1].port {
			samePort++
		}
		if list[i].held {
			held++
		}
		covered += min(gap, 2*every)
	}
	all := len(list) - 1
	if every < leastInterval || float64(regular) < checkShare*float64(len(gaps)) || float64(max(hurried, held)) > (1-checkShare)*float64(all) ||
		2*samePort > all || float64(covered) < checkCover*float64(listened) {
		return 0
	}
	return every
}

func alike(gap, every int64) bool {
	off := gap - every
	return float64(max(off, -off)) <= checkSlack*float64(every)
}

func byService(list []monitored) map[string][]monitored {
	by := map[string][]monitored{}
	for _, m := range list {
		by[m.service] = append(by[m.service], m)
	}
	return by
}

// few: what all clients of a service do is its use, however steady it is.
func (x *Result) few(service string, list []monitored) bool {
	hosts := map[dissect.Addr]bool{}
	for _, m := range list {
		hosts[m.client] = true
	}
	var all sketch
	for _, n := range x.nodes {
		if n.service == service {
			all.join(&n.clients)
		}
	}
	for addr := range hosts { // those that only connect are not in it
		all.add(dissect.Hash64(2, addr[:]))
	}
	monitors, clients := len(hosts), all.count()
	return clients-monitors >= fewOthers && (monitors <= fewMonitors || float64(monitors) <= monitorShare*float64(clients))
}

// isCheck reports a row of a monitor.
func (x *Result) isCheck(r *Record) bool {
	return x.monitors != nil && r.ClientKey == 0 && x.monitors[askedBy{*r.client(), nodeKey{r.Destination, r.Proto}}]
}
