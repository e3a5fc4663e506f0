package attempt_test

import (
	"fmt"
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
	for _, c := range []struct {
		name, want string
		tries      []try
	}{
		{"32", "first retry failover retry; 1", []try{{0, 2 * s, 1, false, 0, 0}, {5 * s, 7 * s, 1, false, 0, 0}, {10 * s, 12 * s, 2, false, 0, 0}, {15 * s, 16 * s, 2, true, 0, 0}}},
		{"35", "first reattach; 2", []try{{0, s, 1, true, 9 * s, dissect.SessionByNode}, {20 * s, 21 * s, 1, true, 0, 0}}},
		{"36", "first first; 2", []try{{0, s, 1, true, 9 * s, dissect.SessionByClient}, {20 * s, 21 * s, 1, true, 0, 0}}},
		{"37", "first parallel; 1", []try{{0, s, 1, true, 0, 0}, {s / 5, s, 2, false, 0, 0}}},
		{"38", "first first; 2", []try{{0, 2 * s, 1, false, 0, 0}, {200 * s, 202 * s, 1, false, 0, 0}}},
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
			x, err := st.Finalise(attempt.NewNames(), dissect.Hints{}, 0, 1000*s)
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
