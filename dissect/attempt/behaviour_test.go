package attempt_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
	"squall/dissect/attempt"
)

// graph is an attempt graph put together by hand.
type graph struct {
	names *attempt.Names
	list  []attempt.Record
}

func hostAt(n int) dissect.Addr { return dissect.Addr4([]byte{10, 0, byte(n >> 8), byte(n)}) }

// try adds an attempt of client n at a node, from and to in seconds; held is how
// long the session lasted, 0 = it failed.
func (g *graph) try(client int, node dissect.Endpoint, from, held int64) *attempt.Record {
	r := attempt.Record{Start: from * 1e9, End: from*1e9 + 1e7, LastSeen: from*1e9 + 1e7, Proto: dissect.ProtoTCP, Outcome: dissect.OutcomeTimeout, Evidence: dissect.EvidenceSilence,
		Transmissions: 2, Digest: uint64(len(g.list)), SourcePackets: 1, HandshakeRTT: -1,
		Source: dissect.Endpoint{Addr: hostAt(client), Port: uint16(20000 + len(g.list)%40000)}, Destination: node}
	if held > 0 {
		r.Outcome, r.Evidence, r.Answer, r.Transmissions = dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerSynAck, 1
		r.AnsweredAt, r.LastSeen, r.DestinationPackets = r.End, r.End+held*1e9, 5
		copy(r.History[:], "ShADad")
	} else {
		copy(r.History[:], "S")
	}
	g.list = append(g.list, r)
	return &g.list[len(g.list)-1]
}

// rows finishes the graph, over some shards and in some order.
func (g *graph) rows(t *testing.T, shards int, seed uint64) (out []dissect.Attempt) {
	t.Helper()
	s := attempt.NewStore(attempt.StoreConfig{Shards: shards})
	for i, at := range rand.New(rand.NewPCG(seed, seed)).Perm(len(g.list)) {
		s.Add(i%shards, &g.list[at])
	}
	x, err := s.Finalise(g.names, dissect.Hints{}, 0, 10000*1e9)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for a, err := range x.Attempts(2) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, *a)
	}
	return out
}

func nodeAt(n int, port uint16) dissect.Endpoint {
	return dissect.Endpoint{Addr: hostAt(n), Port: port}
}

// TestRolesByBehaviour: an unknown overlay with a place where all begin, two
// supernodes of which one falls, peers that ask each other, and beside it a SYN
// flood, a scan, and a web server.
func TestRolesByBehaviour(t *testing.T) {
	g := &graph{names: attempt.NewNames(0)}
	entry, fell, heir, flooded, quiet := nodeAt(1000, 33033), nodeAt(1001, 40001), nodeAt(1002, 40002), nodeAt(1003, 5000), nodeAt(1004, 5001)
	web := nodeAt(1005, 8080)
	http := g.names.Intern([]byte("http"))
	for c := range 25 {
		at := int64(10 + c)
		g.try(c, entry, at, 1)
		g.try(c, fell, at+2, 300)
		for i := range int64(3) {
			g.try(c, fell, 400+at+5*i, 0)
		}
		g.try(c, heir, 500+at, 600)
		g.try(c, web, at, 100).Protocol = http
	}
	for c := range 2 {
		g.try(c, quiet, 50, 300)
	}
	for c := range 2000 {
		g.try(5000+c, flooded, 100, 0).Transmissions = 1
	}
	for n := range 100 {
		g.try(4999, nodeAt(2000+n, 445), int64(200+n), 0)
	}
	for p := range 6 {
		for q := range 6 {
			if p != q {
				g.try(3000+p, nodeAt(3000+q, 6000), int64(600+10*p+q), 200)
			}
		}
	}
	want := map[dissect.Endpoint]string{
		entry: "bootstrap behaviour 0.60", fell: "supernode behaviour 0.80", heir: "supernode behaviour 1.00",
		quiet: "unknown  0.00", flooded: "unknown  0.00", web: "unknown  0.00", nodeAt(2000, 445): "unknown  0.00",
		nodeAt(3000, 6000): "peer behaviour 0.60",
	}
	var first string
	for i, shards := range []int{1, 3, 7} {
		var all strings.Builder
		seen := map[dissect.Endpoint]bool{}
		for _, a := range g.rows(t, shards, uint64(i)) {
			got := fmt.Sprintf("%s %s %.2f", a.Role, a.RoleSource, a.RoleProof)
			if w, ok := want[a.Destination]; ok && got != w {
				t.Fatalf("%v is %s, want %s", a.Destination, got, w)
			}
			seen[a.Destination] = true
			fmt.Fprintln(&all, a.ID, a.Destination, a.Service, got)
		}
		for at := range want {
			if !seen[at] {
				t.Errorf("no row of %v", at)
			}
		}
		if first == "" {
			first = all.String()
		} else if all.String() != first {
			t.Errorf("%d shards: other rows", shards)
		}
	}
}

// TestBurstsAndLadders: dials that nobody answered belong to what was dialled
// around them, rungs of one host to one chain; a scan does not.
func TestBurstsAndLadders(t *testing.T) {
	g := &graph{names: attempt.NewNames(0)}
	overlay := g.names.Intern([]byte("overlay"))
	known := func(client, node int, port uint16, at int64) {
		r := g.try(client, nodeAt(node, port), at, 0)
		r.Protocol, r.Role, r.RoleSource, r.Outcome = overlay, dissect.RoleSupernode, dissect.RoleSourceContent, dissect.OutcomeRefused
		copy(r.History[:], "ShADr")
	}
	// Client 1 dials five nodes on ports of their own; two are silent. One more is
	// a minute later, one goes to a well-known port.
	for i := range 3 {
		known(1, 100+i, uint16(2000+i), int64(10+i))
	}
	g.try(1, nodeAt(110, 3010), 11, 0)
	g.try(1, nodeAt(111, 3011), 14, 0)
	g.try(1, nodeAt(112, 3012), 90, 0)
	g.try(1, nodeAt(113, 25), 12, 0)
	// Client 2 tries one host: UDP, TCP at the same port, 443, 80.
	udp := g.try(2, nodeAt(200, 7000), 10, 0)
	udp.Proto = dissect.ProtoUDP
	g.try(2, nodeAt(200, 7000), 13, 0)
	g.try(2, nodeAt(200, 443), 16, 0)
	r := g.try(2, nodeAt(200, 80), 19, 30)
	r.Protocol = g.names.Intern([]byte("tls"))
	// Client 3 looks for open ports.
	for i := range 12 {
		g.try(3, nodeAt(300, uint16(1000+i)), int64(10+2*i), 0)
	}
	var got []string
	for _, a := range g.rows(t, 2, 1) {
		s := fmt.Sprintf("%v %s", a.Destination, a.Service)
		if a.Rung != "" {
			s += " " + a.Rung
		}
		if a.RoleSource == dissect.RoleSourceBehaviour {
			s += fmt.Sprintf(" %s %.2f", a.Role, a.RoleProof)
		}
		if a.Source.Addr != hostAt(3) {
			got = append(got, s+" "+a.Relation.String())
		} else if a.Rung != "" || a.Number != 1 {
			t.Errorf("a scan is no ladder: %s", s)
		}
	}
	slices.Sort(got)
	want := []string{
		"10.0.0.100:2000 overlay/supernode first",
		"10.0.0.101:2001 overlay/supernode failover",
		"10.0.0.102:2002 overlay/supernode failover",
		"10.0.0.110:3010 overlay/supernode supernode 0.60 parallel",
		"10.0.0.111:3011 overlay/supernode supernode 0.60 failover",
		"10.0.0.112:3012 tcp/3012 first",
		"10.0.0.113:25 tcp/25 first",
		"10.0.0.200:443 udp/7000 tcp-443 failover",
		"10.0.0.200:7000 udp/7000 tcp retry",
		"10.0.0.200:7000 udp/7000 udp first",
		"10.0.0.200:80 udp/7000 tcp-80 failover",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
