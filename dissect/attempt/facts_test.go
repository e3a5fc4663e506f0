package attempt_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"squall/dissect"
	"squall/dissect/attempt"
)

// TestManyNodes: of more nodes than are told apart those stay that were tried most,
// with all that is known of them; which ones, and how many there are, is the same for
// any order and any number of shards.
func TestManyNodes(t *testing.T) {
	const most, once, busy, tries = 40, 3000, 10, 30
	names := attempt.NewNames(0)
	protocol := names.Intern([]byte("gnutella"))
	node := func(i int) dissect.Endpoint {
		return dissect.Endpoint{Addr: dissect.Addr4([]byte{192, byte(i >> 16), byte(i >> 8), byte(i)}), Port: 6346}
	}
	var list []attempt.Record
	add := func(at dissect.Endpoint, outcome dissect.Outcome) {
		i := len(list)
		r := attempt.Record{Start: int64(i) * 1e6, End: int64(i)*1e6 + 1, Proto: dissect.ProtoTCP, Transmissions: 1, HandshakeRTT: -1, Digest: uint64(i), Outcome: outcome,
			Source: dissect.Endpoint{Addr: dissect.Addr4([]byte{10, 0, byte(i >> 8), byte(i)}), Port: 1}, Destination: at}
		if outcome == dissect.OutcomeAccepted {
			r.DestinationPackets, r.Answer, r.Protocol, r.Role, r.RoleSource = 1, dissect.AnswerSynAck, protocol, dissect.RoleSupernode, dissect.RoleSourceContent
		}
		list = append(list, r)
	}
	for i := range once {
		add(node(i), dissect.OutcomeTimeout)
	}
	for i := range busy * tries { // the last try says what the node is
		outcome := dissect.OutcomeTimeout
		if i/busy == tries-1 {
			outcome = dissect.OutcomeAccepted
		}
		add(node(once+i%busy), outcome)
	}
	var first map[dissect.Endpoint]int64
	for seed := range uint64(6) {
		rand.New(rand.NewPCG(seed, 2)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		shards := int(seed%3) + 1
		s := attempt.NewStore(attempt.StoreConfig{Shards: shards, Nodes: most, Memory: 64 << 10})
		var wg sync.WaitGroup
		for n := range shards {
			wg.Go(func() {
				for i := n; i < len(list); i += shards {
					s.Add(n, &list[i])
				}
			})
		}
		wg.Wait()
		x, err := s.Finalise(names, dissect.Hints{}, 0, 1e12)
		if err != nil {
			t.Fatal(err)
		}
		attempts, others := x.Known()
		known := map[dissect.Endpoint]int64{}
		for i := range once + busy {
			n, ok := attempts(node(i), dissect.ProtoTCP)
			if ok {
				known[node(i)] = n
			}
			if i >= once && (!ok || n != tries) {
				t.Fatalf("seed %d: a busy node has %d attempts, known %v", seed, n, ok)
			}
		}
		if len(known) > most || len(known) < most/2 || int64(len(known))+others != once+busy {
			t.Fatalf("seed %d: %d nodes are known and %d are not, of %d", seed, len(known), others, once+busy)
		}
		if first == nil {
			first = known
		}
		for at := range known {
			if _, ok := first[at]; !ok || len(known) != len(first) {
				t.Fatalf("seed %d: other nodes are known", seed)
			}
		}
		rows := 0
		for a, err := range x.Attempts(2) {
			if err != nil {
				t.Fatal(err)
			}
			rows++
			want := "tcp/6346"
			if first[a.Destination] > 0 { // a silent one is what its neighbours are
				want = "gnutella/supernode"
			}
			if a.Service != want {
				t.Fatalf("seed %d: %v is of %q, want %q", seed, a.Destination, a.Service, want)
			}
		}
		if rows != len(list) {
			t.Errorf("seed %d: %d rows of %d", seed, rows, len(list))
		}
		x.Close()
	}
}
