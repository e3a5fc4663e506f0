package attempt_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/headers"
	"squall/samples"
)

// TestOracle holds the engine to the rows that an implementation of the rules
// with other means finds in simulated outages.
func TestOracle(t *testing.T) {
	if testing.Short() {
		t.Skip("starts no goroutine, so that the race detector has nothing to see: run it without -short")
	}
	const most = 60000
	rows := 0
	for i, sc := range samples.Scenarios() {
		if sc.Protocol != "tcp" && sc.Protocol != "udp" || sc.Pieces > 0 {
			continue // their messages need a protocol, which package overlay has
		}
		if sc.Flood > 0 {
			continue // the oracle accepts a SYN-ACK that nobody acknowledged
		}
		if sc.Tap.Loss > 0 || sc.Tap.Side != "" {
			continue // the oracle does not infer a SYN-ACK that the tap missed, rule 16 does
		}
		// The minutes of calm before are all alike.
		early := max(sc.Trigger-sc.Spread-30*time.Second, 0)
		sc.Trigger -= early
		sc.Duration = min(sc.Duration-early, sc.Trigger+time.Minute)
		sc.Script = slices.Clone(sc.Script)
		for i := range sc.Script {
			sc.Script[i].At = max(sc.Script[i].At-early, 0)
		}
		if sc.Clients > 2000 || sc.Intents > 20 {
			sc.Duration = min(sc.Duration, sc.Trigger+20*time.Second)
		}
		seed := uint64(i)
		var packets []capture.Packet
		total := 0
		_, err := samples.Simulate(sc, seed+1, func(p *capture.Packet) {
			if total++; total <= most {
				q := *p
				q.Data = append([]byte(nil), p.Data...)
				packets = append(packets, q)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(packets) == 0 {
			continue
		}
		// Where the packets end, handshakes are half done, and the oracle
		// does not look for the edge there.
		edge := packets[len(packets)-1].Time - 2e9
		want := map[string]int{}
		for _, r := range samples.Oracle(packets) {
			if r.Start > edge {
				continue
			}
			want[fmt.Sprint(r.Source, r.Target, r.Start, " ", r.Outcome, " ", r.Evidence, " ", r.Answer, " ", r.Transmissions)]++
			rows++
		}
		e := attempt.NewEngine(attempt.Config{}, attempt.NewNames(0), func(r *attempt.Record) {
			if r.Flags&attempt.FlagOlder != 0 {
				return
			}
			if r.Start > edge {
				return
			}
			want[fmt.Sprint(r.Source, r.Destination, r.Start, " ", r.Outcome, " ", r.Evidence, " ", r.Answer, " ", r.Transmissions)]--
		})
		var dec headers.Decoder
		var d dissect.Datagram
		end := int64(0)
		for i := range packets {
			dec.Decode(&packets[i], &d)
			e.Datagram(&d)
			end = max(end, d.Time)
		}
		e.Finish(end)
		bad := 0
		for row, n := range want {
			if n != 0 {
				if bad++; bad <= 4 {
					t.Errorf("%s seed %d: %+d %s", sc.Name, seed+1, -n, row)
				}
			}
		}
		if bad > 0 {
			t.Errorf("%s seed %d: %d differences in %d packets", sc.Name, seed+1, bad, len(packets))
		}
	}
	t.Logf("%d rows", rows)
}
