package samples_test

import (
	"slices"
	"testing"
	"time"

	"squall/capture"
	"squall/samples"
)

// TestOracleAgainstTruth: what the rules make of the packets must be close to
// what the clients really did. They differ where a tap cannot know.
func TestOracleAgainstTruth(t *testing.T) {
	for _, name := range []string{"outage", "s2", "s9", "s12", "n5", "n16", "n17"} {
		sc, _ := samples.Find(name)
		if sc.Intents > 0 { // enough of it, in little time
			sc.Duration = sc.Trigger + time.Minute
		}
		for seed := range uint64(3) {
			var packets []capture.Packet
			truth, err := samples.Simulate(sc, seed+1, func(p *capture.Packet) { packets = append(packets, *p) })
			if err != nil {
				t.Fatal(err)
			}
			rows := samples.Oracle(packets)
			if len(rows) != len(truth.Attempts) {
				t.Errorf("%s seed %d: %d rows, %d attempts", name, seed+1, len(rows), len(truth.Attempts))
				continue
			}
			slices.SortStableFunc(truth.Attempts, func(a, b samples.TrueAttempt) int { return int(a.Start - b.Start) })
			outcome, relation, example := 0, 0, ""
			for i, r := range rows {
				a := truth.Attempts[i]
				if r.Outcome != a.Outcome {
					outcome++
					example = a.Source + " " + a.Start.String() + " " + r.Outcome + " instead of " + a.Outcome
				}
				if r.Relation != a.Relation {
					relation++
				}
			}
			if bad := float64(outcome) / float64(len(rows)); bad > 0.03 {
				t.Errorf("%s seed %d: %.1f %% of %d outcomes differ: %s", name, seed+1, 100*bad, len(rows), example)
			}
			if bad := float64(relation) / float64(len(rows)); bad > 0.10 {
				t.Errorf("%s seed %d: %.1f %% of relations differ", name, seed+1, 100*bad)
			}
		}
	}
}
