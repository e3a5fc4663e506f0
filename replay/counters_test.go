package replay_test

import (
	"os"
	"testing"
	"time"

	"squall/replay"
)

// TestTrustAndLosses: a run says what proves its policies, and what the machine
// of its targets threw away.
func TestTrustAndLosses(t *testing.T) {
	c := cluster(t, "udp", replay.NodeConfig{})
	p := planOf(t, "udp", "none(timeout 200ms)", 1, 300*time.Millisecond, replay.Item{})
	for i, basis := range []string{"inferred", "assumed", ""} {
		p.Groups[0].Basis = basis
		_, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t)})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"1 of 1 taken from the recording itself: likeness to that recording does not prove them", "1 assumed, since nobody was seen to retry", "1 given"}[i]
		if s.Trust != want {
			t.Errorf("%q: %q", basis, s.Trust)
		}
		if _, err := os.Stat("/proc/net/netstat"); err == nil && (s.Losses == nil || s.Losses.UDPBuffer < 0) {
			t.Errorf("losses: %v", s.Losses)
		}
	}
}
