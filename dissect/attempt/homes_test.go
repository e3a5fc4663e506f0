package attempt_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"squall/dissect"
	"squall/dissect/attempt"
)

// TestManyHomes lends identities to more addresses than a shard keeps at hand: each
// still has its own, in whatever order and by however many shards they were read.
func TestManyHomes(t *testing.T) {
	const clients = 20_000
	names := attempt.NewNames(0)
	protocol := names.Intern([]byte("n2n"))
	var list []attempt.Record
	for i := range clients {
		at := dissect.Addr4([]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		name := binary.BigEndian.AppendUint32([]byte("edge "), uint32(i))
		r := attempt.Record{Start: int64(i) * 1e6, End: int64(i)*1e6 + 1, Proto: dissect.ProtoUDP, Transmissions: 1, HandshakeRTT: -1, Digest: uint64(i),
			Source: dissect.Endpoint{Addr: at, Port: 1}, Destination: dissect.Endpoint{Addr: dissect.Addr4([]byte{192, 0, 2, 1}), Port: 7654}, Protocol: protocol}
		said := r
		said.ClientKey, said.ClientName = dissect.Hash64(5, name), names.Client(name)
		said.Start += 50e9
		list = append(list, r, said) // the first without a name
	}
	for _, shards := range []int{1, 3} {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		s := attempt.NewStore(attempt.StoreConfig{Shards: shards})
		for i := range list {
			s.Add(i%shards, &list[i])
		}
		x, err := s.Finalise(names, dissect.Hints{}, 0, 1e12)
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string]int{}
		for a, err := range x.Attempts(1) {
			if err != nil {
				t.Fatal(err)
			}
			if a.ClientIDLevel != dissect.IDProtocol {
				t.Fatalf("%d shards: client %q by address", shards, a.ClientID)
			}
			rows[a.ClientID]++
		}
		if len(rows) != clients {
			t.Errorf("%d shards: %d clients, want %d", shards, len(rows), clients)
		}
		for id, n := range rows {
			if n != 2 {
				t.Fatalf("%d shards: %d rows of %q", shards, n, id)
			}
		}
		x.Close()
	}
}
