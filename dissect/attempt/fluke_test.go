package attempt_test

import (
	"testing"

	"squall/dissect"
	"squall/dissect/attempt"
)

// TestFluke: among many clients that a node serves in words that no protocol
// knows, the few that seem to speak one do not name it.
func TestFluke(t *testing.T) {
	for _, c := range []struct {
		strangers int
		want      string
	}{{99, "gossip/unknown"}, {100, "tcp/5999"}} {
		st := attempt.NewStore(attempt.StoreConfig{Shards: 1})
		names := attempt.NewNames(0)
		for i := range c.strangers + 2 {
			r := attempt.Record{Start: int64(i) * 1e9, End: int64(i)*1e9 + 1e8, AnsweredAt: int64(i)*1e9 + 1e8, Proto: dissect.ProtoTCP, Outcome: dissect.OutcomeAccepted,
				Source: endpoint(byte(i), 5000), Destination: endpoint(200, 5999), DestinationPackets: 2}
			if i < 2 {
				r.Protocol = names.Intern([]byte("gossip"))
			}
			st.Add(0, &r)
		}
		x, err := st.Finalise(names, dissect.Hints{}, 0, 1000e9)
		if err != nil {
			t.Fatal(err)
		}
		last := ""
		for a := range x.Attempts(1) {
			last = a.Service
		}
		if last != c.want {
			t.Errorf("2 of %d name the service %q, want %q", c.strangers+2, last, c.want)
		}
	}
}
