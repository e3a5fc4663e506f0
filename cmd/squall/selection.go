package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/reports"
)

// selection is which attempts extract takes; what is given must all hold.
type selection struct {
	finding          int
	attempts, intent []string
	clients          []string
	nodes            []string
	where            string
	share            string
	from, to         string
	in               *source // in whose zone times are
}

func (s *selection) rows() bool {
	return s.finding != 0 || len(s.attempts)+len(s.intent)+len(s.clients)+len(s.nodes) > 0 || s.where != "" || s.share != ""
}

func (s *selection) empty() bool { return !s.rows() && s.from == "" && s.to == "" }

// pick asks the tables which attempts fit. begin and end bound their starts.
func (s *selection) pick(open tables) (k *pipeline.Picker, n int, begin, end int64, err error) {
	k = pipeline.NewPicker()
	end = 1<<63 - 1
	terms, onset, over, err := s.terms(open)
	if err != nil {
		return k, 0, 0, 0, err
	}
	if begin, err = s.edge("--from", s.from, onset, over, 0); err != nil {
		return k, 0, 0, 0, err
	}
	if end, err = s.edge("--to", s.to, onset, over, end); err != nil {
		return k, 0, 0, 0, err
	}
	if !s.rows() {
		return k, 0, begin, end, nil
	}
	share, err := parseShare(s.share)
	if err != nil {
		return k, 0, 0, 0, err
	}
	table, rows, err := open("attempts")
	if err != nil {
		return k, 0, 0, 0, exitError{exitFailed, err}
	}
	pairs, points, err := translations(open)
	if err != nil {
		return k, 0, 0, 0, exitError{exitFailed, err}
	}
	if points > 1 || len(pairs) > 0 {
		k.Points(pairs)
	}
	query := reports.Query{Where: strings.Join(terms, " && "), Columns: []string{"attempt_id", "source_ip", "source_port", "destination_ip", "destination_port",
		"network_transport", "event_start", "last_seen", "event_end", "capture_file", "first_frame", "attempt_outcome", "relation", "client_id", "attempt_number", "intent_id",
		"network_protocol"}}
	_, rows, err = query.Apply(table, rows)
	if err != nil {
		return k, 0, 0, 0, exitError{exitUsage, err}
	}
	for row, err := range rows {
		if err != nil {
			return k, n, 0, 0, exitError{exitFailed, err}
		}
		start := row[6].Int
		if start < begin || start >= end || !share.takes(row[13].Str) {
			continue
		}
		p := pipeline.Picked{Start: start, End: max(row[7].Int, row[8].Int), File: row[9].Str, Frame: row[10].Int, Proto: dissect.ProtoTCP}
		p.Source, p.Destination = endpoint(row[1].Str, row[2].Int), endpoint(row[3].Str, row[4].Int)
		if row[5].Str == "udp" {
			p.Proto = dissect.ProtoUDP
		}
		p.Protocol = row[16].Str
		p.Comment = fmt.Sprintf("squall attempt %s: %s, %s (number %d of intent %s)", row[0].Str, row[11].Str, row[12].Str, row[14].Int, row[15].Str)
		k.Add(p)
		n++
	}
	return k, n, begin, end, nil
}

// translations are the addresses that packets bore at both sides of NAT or of a
// balancer, and how many taps there were.
func translations(open tables) (pairs []pipeline.NAT, taps int, err error) {
	each := func(table string, columns []string, see func([]reports.Value)) {
		t, rows, e := open(table)
		if e == nil {
			_, rows, e = reports.Query{Columns: columns}.Apply(t, rows)
		}
		if err = cmp.Or(err, e); err != nil {
			return
		}
		for row, e := range rows {
			if e != nil {
				err = e
				return
			}
			see(row)
		}
	}
	each("nat", []string{"inner_ip", "outer_ip"}, func(row []reports.Value) {
		pairs = append(pairs, pipeline.NAT{Inner: endpoint(row[0].Str, 0).Addr, Outer: endpoint(row[1].Str, 0).Addr})
	})
	names := map[string]bool{}
	each("captures", []string{"observer_name"}, func(row []reports.Value) { names[row[0].Str] = true })
	return pairs, len(names), err
}

// terms are the conditions on the rows of attempts, and the edges of the
// finding, 0 where there is none.
func (s *selection) terms(open tables) (terms []string, onset, over int64, err error) {
	any := func(column string, values []string) {
		if len(values) > 0 {
			var or []string
			for _, v := range values {
				or = append(or, column+" == "+strconv.Quote(v))
			}
			terms = append(terms, "("+strings.Join(or, " || ")+")")
		}
	}
	any("attempt_id", s.attempts)
	any("intent_id", s.intent)
	if len(s.clients) > 0 {
		var or []string
		for _, c := range s.clients {
			or = append(or, "client_id == "+strconv.Quote(c)+" || source_ip == "+strconv.Quote(c))
		}
		terms = append(terms, "("+strings.Join(or, " || ")+")")
	}
	if err := s.nodeTerms(&terms, s.nodes); err != nil {
		return nil, 0, 0, err
	}
	if s.finding != 0 {
		f, err := findingRow(open, s.finding)
		if err != nil {
			return nil, 0, 0, err
		}
		onset, over = f.onset, f.end
		terms = append(terms, "service == "+strconv.Quote(f.service))
		if s.from == "" {
			terms = append(terms, fmt.Sprintf("event_start >= date(%q)", stamp(f.onset)))
		}
		if s.to == "" && f.end != 0 {
			terms = append(terms, fmt.Sprintf("event_start <= date(%q)", stamp(f.end)))
		}
	}
	if s.where != "" {
		terms = append(terms, "("+s.where+")")
	}
	if len(terms) == 0 {
		terms = append(terms, "true")
	}
	return terms, onset, over, nil
}

func (s *selection) nodeTerms(terms *[]string, nodes []string) error {
	var or []string
	for _, n := range nodes {
		if at, err := netip.ParseAddrPort(n); err == nil {
			or = append(or, fmt.Sprintf("destination_ip == %q && destination_port == %d", at.Addr().Unmap(), at.Port()))
		} else if a, err := netip.ParseAddr(n); err == nil {
			or = append(or, fmt.Sprintf("destination_ip == %q", a.Unmap()))
		} else {
			return exitError{exitUsage, fmt.Errorf("--node %q: want ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT", n)}
		}
	}
	if len(or) > 0 {
		*terms = append(*terms, "("+strings.Join(or, " || ")+")")
	}
	return nil
}

type findingEdges struct {
	service    string
	onset, end int64
}

func findingRow(open tables, number int) (f findingEdges, err error) {
	t, rows, err := open("findings")
	if err == nil {
		_, rows, err = reports.Query{Columns: []string{"service", "onset", "end"}}.Apply(t, rows)
	}
	if err != nil {
		return f, exitError{exitFailed, err}
	}
	n := 0
	for row, err := range rows {
		if err != nil {
			return f, exitError{exitFailed, err}
		}
		if n++; n == number {
			f = findingEdges{row[0].Str, row[1].Int, 0}
			if !row[2].Null {
				f.end = row[2].Int
			}
		}
	}
	if number < 1 || number > n {
		return f, exitError{exitUsage, fmt.Errorf("--finding %d: there are %d; squall report findings SOURCE lists them", number, n)}
	}
	return f, nil
}

// edge reads a moment that may count from the edges of a finding.
func (s *selection) edge(flag, text string, onset, over, open int64) (int64, error) {
	if text == "" {
		return open, nil
	}
	for name, at := range map[string]int64{"onset": onset, "end": over} {
		rest, ok := strings.CutPrefix(text, name)
		if !ok {
			continue
		}
		if at == 0 {
			return 0, exitError{exitUsage, fmt.Errorf("%s %q: want --finding N with a known %s", flag, text, name)}
		}
		if rest == "" {
			return at, nil
		}
		if d, err := time.ParseDuration(rest); err == nil {
			return at + int64(d), nil
		}
	}
	at, fromFirst, err := s.in.parseTime(flag, text)
	if err != nil || fromFirst != 0 {
		return 0, exitError{exitUsage, fmt.Errorf("%s %q: want RFC 3339, seconds of the epoch, or onset-60s, onset, end+60s with --finding", flag, text)}
	}
	return at, nil
}

// clientShare takes the clients whose hash is low: the same ones everywhere.
type clientShare float64

func parseShare(text string) (clientShare, error) {
	if text == "" {
		return 1, nil
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !strings.HasSuffix(text, "%") || v <= 0 || v > 100 {
		return 0, exitError{exitUsage, fmt.Errorf("--clients %q: want a share such as 10%%", text)}
	}
	return clientShare(v / 100), nil
}

func (s clientShare) takes(client string) bool {
	return s >= 1 || float64(dissect.Hash64(shareSeed, []byte(client))>>11)/(1<<53) < float64(s)
}

func endpoint(ip string, port int64) dissect.Endpoint {
	a, _ := netip.ParseAddr(ip)
	return dissect.Endpoint{Addr: dissect.AddrFrom(a), Port: uint16(port)}
}
