package replay

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/pipeline"
)

// row is a Result as a line of JSON, by the names of the attempts table.
type row struct {
	ID           string `json:"attempt_id"`
	Intent       string `json:"intent_id"`
	Start        int64  `json:"event_start_ns"`
	End          int64  `json:"event_end_ns"`
	Source       string `json:"source"`
	Destination  string `json:"destination"`
	Transport    string `json:"network_transport"`
	Protocol     string `json:"network_protocol,omitempty"`
	Service      string `json:"service"`
	Role         string `json:"destination_role,omitempty"`
	Client       string `json:"client_id"`
	Version      string `json:"client_version,omitempty"`
	Relation     string `json:"relation"`
	Number       int32  `json:"attempt_number"`
	Outcome      string `json:"attempt_outcome"`
	Evidence     string `json:"outcome_evidence"`
	Answer       string `json:"transport_answer"`
	Late         bool   `json:"late,omitempty"`
	Sends        int32  `json:"transmissions"`
	RTT          int64  `json:"handshake_rtt_ns"`
	Gap          int64  `json:"retry_gap_ns"`
	RetryAfter   int64  `json:"retry_after_ns,omitempty"`
	AnsweredAt   int64  `json:"answered_at_ns,omitempty"`
	SessionEnd   int64  `json:"session_end_ns,omitempty"`
	SessionEnded uint8  `json:"session_ended,omitempty"`
	SourceP      int64  `json:"source_packets"`
	SourceB      int64  `json:"source_bytes"`
	DestP        int64  `json:"destination_packets"`
	DestB        int64  `json:"destination_bytes"`
	Due          int64  `json:"due_ns"`
	Sent         int64  `json:"sent_ns"`
	Answered     int64  `json:"answered_ns,omitempty"`
	Error        string `json:"error,omitempty"`
}

// WriteResult writes a result as a line of JSON.
func WriteResult(enc *json.Encoder, r *Result) error {
	a := &r.Attempt
	return enc.Encode(row{ID: fmt.Sprintf("%016x", a.ID), Intent: fmt.Sprintf("%016x", a.IntentID), Start: a.Start, End: a.End, Source: a.Source.String(),
		Destination: a.Destination.String(), Transport: transportName(a.Proto), Protocol: a.Protocol, Service: a.Service, Role: a.Role.String(), Client: a.ClientID,
		Version: a.ClientVersion, Relation: a.Relation.String(), Number: a.Number, Outcome: a.Outcome.String(), Evidence: a.Evidence.String(), Answer: a.Answer.String(),
		Late: a.Late, Sends: a.Transmissions, RTT: a.HandshakeRTT, Gap: a.RetryGap, RetryAfter: a.RetryAfter, AnsweredAt: a.AnsweredAt, SessionEnd: a.SessionEnd,
		SessionEnded: uint8(a.SessionEnded), SourceP: a.SourcePackets, SourceB: a.SourceBytes, DestP: a.DestinationPackets, DestB: a.DestinationBytes,
		Due: r.Due, Sent: r.Sent, Answered: r.Answered, Error: r.Error})
}

// lookup inverts the names of an enumeration of n values.
func lookup[T ~uint8](n T, name func(T) string) map[string]T {
	m := map[string]T{}
	for v := range n {
		m[name(v)] = v
	}
	return m
}

// ReadResults reads what WriteResult wrote, in any order. Errors name the line.
func ReadResults(r io.Reader) (list []Result, err error) {
	outcomes := lookup(dissect.NumOutcomes, dissect.Outcome.String)
	relations := lookup(dissect.NumRelations, dissect.Relation.String)
	evidences := lookup(dissect.NumEvidence, dissect.Evidence.String)
	answers := lookup(dissect.NumAnswers, dissect.Answer.String)
	dec := json.NewDecoder(bufio.NewReader(r))
	for line := 1; ; line++ {
		var w row
		if err := dec.Decode(&w); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("results: line %d: %w", line, err)
		}
		if len(list) >= itemsMost {
			return nil, fmt.Errorf("results: line %d: more than %d rows", line, itemsMost)
		}
		out := Result{Due: w.Due, Sent: w.Sent, Answered: w.Answered, Error: w.Error}
		a := &out.Attempt
		var bad error
		number := func(s string) uint64 {
			v, err := strconv.ParseUint(s, 16, 64)
			bad = cmp.Or(bad, err)
			return v
		}
		where := func(s string) (e dissect.Endpoint) {
			if s == "[::]:0" || s == "invalid IP:0" { // never got a socket
				return e
			}
			e, err := parseEndpoint(s)
			bad = cmp.Or(bad, err)
			return e
		}
		*a = dissect.Attempt{ID: number(w.ID), IntentID: number(w.Intent), Start: w.Start, End: w.End, Source: where(w.Source), Destination: where(w.Destination),
			Proto: dissect.ProtoTCP, Protocol: w.Protocol, Service: w.Service, RoleSource: dissect.RoleSourceUser, ClientID: w.Client, ClientIDLevel: dissect.IDProtocol,
			ClientVersion: w.Version, Relation: relations[w.Relation], Number: w.Number, Outcome: outcomes[w.Outcome], Evidence: evidences[w.Evidence],
			Answer: answers[w.Answer], Late: w.Late, Transmissions: w.Sends, HandshakeRTT: w.RTT, RetryGap: w.Gap, RetryAfter: w.RetryAfter, AnsweredAt: w.AnsweredAt,
			SessionEnd: w.SessionEnd, SessionEnded: min(dissect.SessionEnd(w.SessionEnded), dissect.NumSessionEnds-1), SourcePackets: w.SourceP, SourceBytes: w.SourceB,
			DestinationPackets: w.DestP, DestinationBytes: w.DestB}
		if w.Transport == "udp" {
			a.Proto = dissect.ProtoUDP
		}
		a.Role, _ = dissect.ParseRole(w.Role)
		if bad != nil {
			return nil, fmt.Errorf("results: line %d: %w", line, bad)
		}
		list = append(list, out)
	}
}

// Settle puts the rows of a run in the order of their starts and fills what
// only the whole run knows: the gaps between the attempts of an intent.
func Settle(list []Result) {
	slices.SortFunc(list, func(a, b Result) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.ID, b.ID)) })
	last := map[uint64]int64{}
	for i := range list {
		r := &list[i]
		if was, ok := last[r.IntentID]; ok && r.Relation.Retries() {
			r.RetryGap = r.Start - was
		}
		last[r.IntentID] = r.Start
	}
}

// Analysis makes one of the rows of a run, so that everything that is known of
// a capture can be known of a run. The rows are settled.
func Analysis(name string, list []Result) *pipeline.Analysis {
	c := pipeline.Capture{FileStats: capture.FileStats{Path: name, Format: "replay", Drops: -1}}
	attempts := make([]dissect.Attempt, len(list))
	for i := range list {
		a := &list[i].Attempt
		attempts[i] = *a
		n := a.SourcePackets + a.DestinationPackets
		c.Packets += n
		c.Ledger[dissect.BucketAttempt] += n
		c.Bytes += a.SourceBytes + a.DestinationBytes
		if i == 0 {
			c.First = a.Start
		}
		c.Last = max(c.Last, a.End)
	}
	return pipeline.Given([]pipeline.Capture{c}, attempts)
}

func parseEndpoint(s string) (e dissect.Endpoint, err error) {
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		return e, err
	}
	return dissect.Endpoint{Addr: dissect.AddrFrom(at.Addr()), Port: at.Port()}, nil
}
