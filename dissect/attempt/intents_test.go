package attempt_test

import (
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
	"squall/dissect/attempt"
)

// TestRelations holds rules 32, 35, 36, 37 and 38.
func TestRelations(t *testing.T) {
	const s = int64(1e9)
	type try struct {
		at, end int64
		node    byte
		ok      bool
		over    int64
		by      dissect.SessionEnd
	}
	// rounds of some failing tries, and the first of one more.
	rounds := func(tries, rounds int, gap, pause int64) (out []try) {
		at := int64(0)
		for i := range tries*rounds + 1 {
			if i > 0 {
				at += gap
			}
			if i > 0 && i%tries == 0 {
				at += pause - gap
			}
			out = append(out, try{at, at + s, 1, false, 0, 0})
		}
		return out
	}
	growing := func(gaps ...int64) []try {
		at := int64(0)
		out := []try{{at, at + s, 1, false, 0, 0}}
		for _, g := range gaps {
			at += g
			out = append(out, try{at, at + s, 1, false, 0, 0})
		}
		return out
	}
	for _, c := range []struct {
		name, want string
		tries      []try
	}{
		{"32", "first retry failover retry; 1", []try{{0, 2 * s, 1, false, 0, 0}, {5 * s, 7 * s, 1, false, 0, 0}, {10 * s, 12 * s, 2, false, 0, 0}, {15 * s, 16 * s, 2, true, 0, 0}}},
		{"33", "first refresh refresh; 3", []try{{0, s, 1, true, 0, 0}, {30 * s, 31 * s, 1, true, 0, 0}, {60 * s, 61 * s, 1, true, 0, 0}}},
		{"34", "first reattach retry failover; 2", []try{{0, s, 1, true, 0, 0}, {30 * s, 32 * s, 1, false, 0, 0}, {35 * s, 37 * s, 1, false, 0, 0}, {40 * s, 42 * s, 2, false, 0, 0}}},
		{"35", "first reattach; 2", []try{{0, s, 1, true, 9 * s, dissect.SessionByNode}, {20 * s, 21 * s, 1, true, 0, 0}}},
		{"36", "first first; 2", []try{{0, s, 1, true, 9 * s, dissect.SessionByClient}, {20 * s, 21 * s, 1, true, 0, 0}}},
		{"37", "first parallel; 1", []try{{0, s, 1, true, 0, 0}, {s / 5, s, 2, false, 0, 0}}},
		{"37, after the first has won", "first parallel first; 2", []try{{0, s / 50, 1, true, 9 * s, dissect.SessionByClient}, {s / 20, s / 10, 2, false, 0, 0}, {20 * s, 21 * s, 1, true, 0, 0}}},
		{"37, after the first was lost", "first reattach; 2", []try{{0, s / 50, 1, true, s / 25, dissect.SessionByNode}, {s / 20, s / 10, 2, false, 0, 0}}},
		{"38", "first first; 2", []try{{0, 2 * s, 1, false, 0, 0}, {200 * s, 202 * s, 1, false, 0, 0}}},
		{"38, a limit of two learned", strings.Repeat("first retry ", 5) + "first; 6", rounds(2, 5, 2*s, 20*s)},
		{"38, the one pause is no gap to learn from", "first" + strings.Repeat(" retry", 11) + " first; 2", rounds(12, 1, 2*s, 150*s)},
		{"38, a back-off that grows", "first retry retry retry retry; 1", growing(60*s, 90*s, 150*s, 270*s)},
		{"38, a back-off grows no more than threefold", "first retry retry first; 2", growing(60*s, 90*s, 300*s)},
		{"38, too few rounds", "first" + strings.Repeat(" retry", 6) + "; 1", rounds(2, 3, 2*s, 20*s)},
		{"38, pauses too short", "first" + strings.Repeat(" retry", 10) + "; 1", rounds(2, 5, s, 4*s)},
		{"38, pauses no longer than gaps may be", "first" + strings.Repeat(" retry", 10) + "; 1", rounds(2, 5, 6*s, 20*s)},
		{"38, rounds of two lengths", "first" + strings.Repeat(" retry", 13) + "; 1", append(rounds(2, 5, 2*s, 20*s),
			try{112 * s, 113 * s, 1, false, 0, 0}, try{114 * s, 115 * s, 1, false, 0, 0}, try{140 * s, 141 * s, 1, false, 0, 0})},
	} {
		for _, reverse := range []bool{false, true} {
			st := attempt.NewStore(attempt.StoreConfig{Shards: 1})
			for i := range c.tries {
				if reverse {
					i = len(c.tries) - 1 - i
				}
				v := c.tries[i]
				r := attempt.Record{Start: v.at, End: v.end, SessionEnd: v.over, SessionEnded: v.by, Proto: dissect.ProtoTCP, Outcome: dissect.OutcomeRefused,
					Source: dissect.Endpoint{Addr: dissect.Addr4([]byte{10, 0, 0, 1}), Port: 5000}, Destination: dissect.Endpoint{Addr: dissect.Addr4([]byte{10, 0, 1, v.node}), Port: 80}}
				if v.ok {
					r.Outcome, r.AnsweredAt = dissect.OutcomeAccepted, v.end
				}
				st.Add(0, &r)
			}
			x, err := st.Finalise(attempt.NewNames(0), dissect.Hints{}, 0, 1000*s)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for a := range x.Attempts(1) {
				got = append(got, a.Relation.String())
			}
			n := 0
			for range x.Intents(1) {
				n++
			}
			if g := fmt.Sprintf("%s; %d", strings.Join(got, " "), n); g != c.want {
				t.Errorf("rule %s: %s, want %s", c.name, g, c.want)
			}
		}
	}
}

// finish runs the second pass over records.
func finish(t *testing.T, cfg attempt.StoreConfig, end int64, recs []attempt.Record) *attempt.Result {
	t.Helper()
	cfg.Shards = 1
	st := attempt.NewStore(cfg)
	for i := range recs {
		st.Add(0, &recs[i])
	}
	x, err := st.Finalise(attempt.NewNames(0), dissect.Hints{}, 0, end)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func endpoint(host byte, port uint16) dissect.Endpoint {
	return dissect.Endpoint{Addr: dissect.Addr4([]byte{10, 0, 0, host}), Port: port}
}

// TestTemporaryFile: rows are the same whether the records fit into memory.
func TestTemporaryFile(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	var recs []attempt.Record
	for i := range 20000 {
		at := rng.Int64N(600e9)
		r := attempt.Record{Start: at, End: at + rng.Int64N(5e9), Digest: rng.Uint64(), Txn: uint64(i), Proto: dissect.ProtoTCP, HandshakeRTT: -1,
			Source: endpoint(byte(rng.IntN(200)), uint16(i)), Destination: endpoint(byte(200+rng.IntN(5)), 33033),
			Outcome: []dissect.Outcome{dissect.OutcomeRefused, dissect.OutcomeTimeout, dissect.OutcomeAccepted}[rng.IntN(3)]}
		recs = append(recs, r)
	}
	var want []dissect.Attempt
	var wantIntents []dissect.Intent
	for _, memory := range []int64{0, 1, 100 << 10} {
		x := finish(t, attempt.StoreConfig{Memory: memory}, 700e9, recs)
		var got []dissect.Attempt
		for a, err := range x.Attempts(3) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, *a)
		}
		var intents []dissect.Intent
		for in, err := range x.Intents(2) {
			if err != nil {
				t.Fatal(err)
			}
			intents = append(intents, *in)
		}
		if want == nil {
			want, wantIntents = got, intents
		}
		if len(got) != len(recs) || !slices.Equal(got, want) || !slices.Equal(intents, wantIntents) {
			t.Errorf("%d bytes of memory: %d rows of %d, %d intents; not the same", memory, len(got), len(recs), len(intents))
		}
		if !slices.IsSortedFunc(got, func(a, b dissect.Attempt) int { return cmp.Compare(a.Start, b.Start) }) {
			t.Errorf("%d bytes of memory: not in the order of time", memory)
		}
	}
}

// TestHostsBehindOneAddress: two timestamp clocks towards the same node split
// an address; a reboot does not; two sessions side by side make a suspect.
func TestHostsBehindOneAddress(t *testing.T) {
	const s = int64(1e9)
	dial := func(at int64, base int64, port uint16) attempt.Record {
		return attempt.Record{Start: at, End: at + s/10, Digest: uint64(at), Proto: dissect.ProtoTCP, Outcome: dissect.OutcomeRefused, TSBase: base,
			Source: endpoint(1, port), Destination: endpoint(9, 33033), LastSeen: at + s/10}
	}
	for _, c := range []struct {
		name            string
		split, suspects int
		recs            func() []attempt.Record
	}{
		{"two hosts at 1 kHz", 2, 2, func() (out []attempt.Record) {
			for i := range int64(10) {
				out = append(out, dial(i*20*s, -500*s, uint16(i)), dial(i*20*s+5*s, -90000*s, uint16(100+i)))
			}
			return out
		}},
		{"one host at 250 Hz", 1, 0, func() (out []attempt.Record) {
			for i := range int64(20) {
				at := i * 20 * s
				ticks := (at + 500*s) / (s / 250)
				out = append(out, dial(at, at-ticks*1e6, uint16(i)))
			}
			return out
		}},
		{"a reboot", 1, 0, func() (out []attempt.Record) {
			for i := range int64(10) {
				out = append(out, dial(i*20*s, -500*s, uint16(i)))
			}
			for i := range int64(10) {
				out = append(out, dial((20+i)*20*s, 350*s, uint16(50+i)))
			}
			return out
		}},
		{"no clocks, two sessions", 1, 1, func() []attempt.Record {
			a, b := dial(s, 0, 1), dial(30*s, 0, 2)
			for _, r := range []*attempt.Record{&a, &b} {
				r.Outcome, r.AnsweredAt, r.LastSeen = dissect.OutcomeAccepted, r.End, 300*s
			}
			return []attempt.Record{a, b}
		}},
	} {
		x := finish(t, attempt.StoreConfig{}, 1000*s, c.recs())
		clients, suspects := 0, 0
		err := x.Walk(func(c *dissect.Client, rows iter.Seq[*dissect.Attempt]) bool {
			clients++
			for a := range rows {
				if a.ClientID != c.ID {
					t.Errorf("%s: row of %q under %q", c.ID, a.ClientID, c.ID)
				}
			}
			if c.NATSuspect {
				suspects++
			}
			return true
		})
		if err != nil || clients != c.split || suspects != c.suspects {
			t.Errorf("%s: %d clients, %d suspects, want %d and %d (%v)", c.name, clients, suspects, c.split, c.suspects, err)
		}
	}
}

// TestOneSide is rule 17: where only clients were captured, silence proves
// nothing; where the node's side was captured too, it is a timeout.
func TestOneSide(t *testing.T) {
	const s = int64(1e9)
	silent := attempt.Record{Start: s, End: 11 * s, Proto: dissect.ProtoTCP, Outcome: dissect.OutcomeTimeout, Evidence: dissect.EvidenceSilence,
		Source: endpoint(1, 1), Destination: endpoint(9, 80), SourcePackets: 1}
	proven := silent
	proven.Source = endpoint(2, 2)
	proven.Outcome, proven.Evidence, proven.Answer, proven.Flags = dissect.OutcomeUnknown, dissect.EvidenceEdge, dissect.AnswerSynAck, attempt.FlagOneSided
	answered := silent
	answered.Source, answered.DestinationPackets, answered.Outcome = endpoint(3, 3), 3, dissect.OutcomeAccepted
	for _, c := range []struct {
		recs []attempt.Record
		want dissect.Outcome
	}{
		{[]attempt.Record{silent}, dissect.OutcomeTimeout},
		{[]attempt.Record{silent, proven}, dissect.OutcomeUnknown},
		{[]attempt.Record{silent, proven, answered}, dissect.OutcomeTimeout},
	} {
		for a := range finish(t, attempt.StoreConfig{}, 100*s, c.recs).Attempts(1) {
			if a.Source == silent.Source && a.Outcome != c.want {
				t.Errorf("%d records: %v, want %v", len(c.recs), a.Outcome, c.want)
			}
		}
	}
}

// TestLifetime: a session that nobody refreshed in time is over; the next
// attempt is a first one. One that was refreshed lives on.
func TestLifetime(t *testing.T) {
	const s = int64(1e9)
	register := func(at int64) attempt.Record {
		return attempt.Record{Start: at, End: at + s/10, AnsweredAt: at + s/10, Lifetime: 60 * s, Proto: dissect.ProtoUDP, Outcome: dissect.OutcomeAccepted,
			Digest: uint64(at), Source: endpoint(1, 5060), Destination: endpoint(9, 5060)}
	}
	var got []string
	for a := range finish(t, attempt.StoreConfig{}, 1000*s, []attempt.Record{register(0), register(50 * s), register(200 * s)}).Attempts(1) {
		got = append(got, a.Relation.String()+" "+a.SessionEnded.String())
	}
	if want := "first , refresh expired, first expired"; strings.Join(got, ", ") != want {
		t.Errorf("%q, want %q", strings.Join(got, ", "), want)
	}
}

// TestRhythmAtTheBegin is rule 39: an intent that is in its retries when the capture
// begins may be older than it, and is counted apart; one that begins later is not.
func TestRhythmAtTheBegin(t *testing.T) {
	const s = int64(1e9)
	var recs []attempt.Record
	for host, from := range []int64{2 * s, 200 * s} {
		for k := range int64(4) {
			at := from + k*5*s
			recs = append(recs, attempt.Record{Start: at, End: at + s, Proto: dissect.ProtoTCP, Outcome: dissect.OutcomeRefused,
				Source: endpoint(byte(host+1), 5000), Destination: endpoint(200, 80)})
		}
	}
	n := 0
	for in := range finish(t, attempt.StoreConfig{}, 1000*s, recs).Intents(1) {
		if n++; in.Censored != (in.Start < 100*s) || in.Attempts != 4 {
			t.Errorf("%+v", in)
		}
	}
	if n != 2 {
		t.Errorf("%d intents, want 2", n)
	}
}

// TestAnotherAddress is rule 40: who has the same identity in the protocol is the
// same client at another address.
func TestAnotherAddress(t *testing.T) {
	const s = int64(1e9)
	for _, same := range []bool{true, false} {
		names := attempt.NewNames(0)
		st := attempt.NewStore(attempt.StoreConfig{Shards: 1})
		for i := range int64(2) {
			name := names.Intern([]byte{'a'})
			if !same {
				name = names.Intern([]byte{'a' + byte(i)})
			}
			st.Add(0, &attempt.Record{Start: i * 5 * s, End: i*5*s + s, Proto: dissect.ProtoTCP, Outcome: dissect.OutcomeRefused, Protocol: names.Intern([]byte("sip")),
				ClientKey: uint64(name) + 7, ClientName: name, Source: endpoint(byte(i+1), 5000), Destination: endpoint(200, 80)})
		}
		x, err := st.Finalise(names, dissect.Hints{}, 0, 1000*s)
		if err != nil {
			t.Fatal(err)
		}
		clients := map[string]bool{}
		var relations []string
		for a := range x.Attempts(1) {
			clients[a.ClientID] = true
			relations = append(relations, a.Relation.String())
		}
		if want := map[bool]string{true: "first retry", false: "first first"}[same]; strings.Join(relations, " ") != want || (len(clients) == 1) != same {
			t.Errorf("one identity %v: %q, clients %v", same, relations, clients)
		}
		x.Close()
	}
}

// TestReserveDown: a node that only ever refuses is taken for what the others at its
// port are, so that who goes there from one of them still has one wish. Who tries many
// such nodes and speaks with nobody wants no service.
func TestReserveDown(t *testing.T) {
	const s = int64(1e9)
	names := attempt.NewNames(0)
	st := attempt.NewStore(attempt.StoreConfig{Shards: 1})
	try := func(host, node byte, at int64, outcome dissect.Outcome) {
		r := attempt.Record{Start: at, End: at + s/10, Proto: dissect.ProtoTCP, Outcome: outcome, Source: endpoint(host, 5000+uint16(at/s)), Destination: endpoint(node, 1883),
			SourcePackets: 1, DestinationPackets: 1, Transmissions: 1, Digest: uint64(at) + uint64(node)}
		switch outcome {
		case dissect.OutcomeAccepted:
			r.Protocol, r.Role, r.RoleSource, r.Evidence, r.Answer = names.Intern([]byte("mqtt")), dissect.RoleSupernode, dissect.RoleSourceContent, dissect.EvidenceApp, dissect.AnswerSynAck
			r.AnsweredAt, r.SessionEnd, r.SessionEnded = r.End, at+2*s, dissect.SessionByNode
			copy(r.History[:], "ShADd")
		case dissect.OutcomeRefused:
			r.Evidence, r.Answer = dissect.EvidenceRST, dissect.AnswerRST
			copy(r.History[:], "Sr")
		case dissect.OutcomeTimeout:
			r.Evidence, r.DestinationPackets = dissect.EvidenceSilence, 0
			copy(r.History[:], "S")
		}
		st.Add(0, &r)
	}
	try(1, 200, 0, dissect.OutcomeAccepted)
	for k := range int64(4) {
		try(1, 200+byte(k%2), (10+2*k)*s, dissect.OutcomeRefused)
	}
	for k := range int64(30) { // a scanner
		try(2, 100+byte(k), k*s, []dissect.Outcome{dissect.OutcomeTimeout, dissect.OutcomeRefused}[k%2])
	}
	x, err := st.Finalise(names, dissect.Hints{}, 0, 1000*s)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	got := map[byte][]string{}
	for a := range x.Attempts(1) {
		host := a.Source.Addr[15]
		got[host] = append(got[host], a.Service+" "+a.Relation.String())
	}
	want := []string{"mqtt/supernode first", "mqtt/supernode reattach", "mqtt/supernode failover", "mqtt/supernode failover", "mqtt/supernode failover"}
	if !slices.Equal(got[1], want) {
		t.Errorf("the client: %q", got[1])
	}
	if i := slices.IndexFunc(got[2], func(s string) bool { return !strings.HasPrefix(s, "tcp/1883 ") }); i >= 0 {
		t.Errorf("the scanner: %q", got[2])
	}
}

// TestVersionsOfPrograms: what a client's other program is does not name the attempts
// of one that says its own version; one that says none borrows it.
func TestVersionsOfPrograms(t *testing.T) {
	const s = int64(1e9)
	names := attempt.NewNames(0)
	st := attempt.NewStore(attempt.StoreConfig{Shards: 1})
	for i, c := range []struct{ protocol, version string }{{"sip", "Phone/1"}, {"gnutella", "Leaf/2"}, {"sip", ""}, {"sip", ""}, {"stun", ""}} {
		r := attempt.Record{Start: int64(i) * 10 * s, End: int64(i)*10*s + s, Proto: dissect.ProtoTCP, Outcome: dissect.OutcomeRefused, Source: endpoint(1, 5000+uint16(i)),
			Destination: endpoint(c.protocol[0], 80), Protocol: names.Intern([]byte(c.protocol)), Digest: uint64(i)}
		if c.version != "" {
			r.Version = names.Intern([]byte(c.version))
		}
		st.Add(0, &r)
	}
	x, err := st.Finalise(names, dissect.Hints{}, 0, 1000*s)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	var got []string
	for a := range x.Attempts(1) {
		got = append(got, a.ClientVersion)
	}
	if want := []string{"Phone/1", "Leaf/2", "Phone/1", "Phone/1", "Phone/1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
