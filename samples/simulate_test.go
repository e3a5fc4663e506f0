package samples_test

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"os"
	"strconv"
	"testing"
	"time"

	"squall/capture"
	"squall/samples"
)

func digest(t *testing.T, sc samples.Scenario, seed uint64) (sum [32]byte, truth *samples.Truth) {
	t.Helper()
	h := hash.Hash(sha256.New())
	last := int64(0)
	truth, err := samples.Simulate(sc, seed, func(p *capture.Packet) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(p.Time))
		h.Write(b[:])
		h.Write(p.Data)
		if p.Time < last && sc.Tap.StepBy == 0 && !sc.Tap.Duplicate {
			t.Errorf("frame %d goes back in time", p.Frame)
		}
		last = p.Time
	})
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil)), truth
}

func TestScenariosAreReproducible(t *testing.T) {
	for _, name := range []string{"outage", "s9", "n4", "n16"} {
		sc, ok := samples.Find(name)
		if !ok {
			t.Fatalf("%s: no such scenario", name)
		}
		a, truth := digest(t, sc, 7)
		b, _ := digest(t, sc, 7)
		c, _ := digest(t, sc, 8)
		if a != b {
			t.Errorf("%s: the same seed gave other packets", name)
		}
		if a == c {
			t.Errorf("%s: another seed gave the same packets", name)
		}
		if truth.Packets == 0 || len(truth.Attempts) == 0 {
			t.Errorf("%s: %d packets, %d attempts", name, truth.Packets, len(truth.Attempts))
		}
	}
}

// TestServerModel holds the queue scenarios to the table of the small server
// model: attempts per intent and goodput 110 to 160 s after the trigger.
func TestServerModel(t *testing.T) {
	for _, tc := range []struct {
		name     string
		lowA     float64
		highA    float64
		goodput  float64
		lateMost bool
	}{
		{"s2", 2.6, 3.4, 0, true},
		{"s3", 0.99, 1.05, 30, false},
		{"s5", 0.99, 1.25, 50, false},
	} {
		sc, _ := samples.Find(tc.name)
		seeds := uint64(1)
		if n, err := strconv.ParseUint(os.Getenv("SQUALL_SEEDS"), 10, 8); err == nil {
			seeds = n
		}
		if testing.Short() && tc.name != "s3" {
			continue
		}
		for seed := range seeds {
			truth, err := samples.Simulate(sc, seed+1, func(*capture.Packet) {})
			if err != nil {
				t.Fatal(err)
			}
			from, to := sc.Trigger+110e9, sc.Trigger+160e9
			attempts, first, accepted := 0.0, 0.0, 0.0
			for _, a := range truth.Attempts {
				if a.Start < from || a.Start >= to {
					continue
				}
				attempts++
				if a.Number == 1 {
					first++
				}
				if a.Outcome == "accepted" {
					accepted++
				}
			}
			if A := attempts / first; A < tc.lowA || A > tc.highA {
				t.Errorf("%s seed %d: %.2f attempts per intent, want %.2f to %.2f", tc.name, seed+1, A, tc.lowA, tc.highA)
			}
			if g := accepted / 50; g < tc.goodput*0.85-1 || g > tc.goodput*1.15+1 {
				t.Errorf("%s seed %d: %.1f accepted a second, want about %.0f", tc.name, seed+1, g, tc.goodput)
			}
		}
	}
}

// TestAgain: up to a moment the outage is the same, then chance differs, and so
// may the scenario; who wishes when does not.
func TestAgain(t *testing.T) {
	sc, _ := samples.Find("s4")
	sc.Clients, sc.Duration, sc.Trigger = 4000, 40*time.Second, 15*time.Second
	sc.Script = []samples.Step{{At: 15 * time.Second, Do: "slow", Nodes: []int{0}, Factor: 0.3}}
	was, err := samples.Simulate(sc, 7, func(*capture.Packet) {})
	if err != nil {
		t.Fatal(err)
	}
	const from = 20 * time.Second
	list, err := samples.Again(sc, sc, from, 7, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	wishes := func(x *samples.Truth) (n int) {
		for i := range x.Attempts {
			if x.Attempts[i].Number == 1 {
				n++
			}
		}
		return n
	}
	for _, x := range list {
		differ := time.Duration(0) // never
		for i := range min(len(was.Attempts), len(x.Attempts)) {
			if a, b := was.Attempts[i], x.Attempts[i]; a.Start != b.Start || a.Client != b.Client {
				differ = min(a.Start, b.Start)
				break
			}
		}
		if differ < from {
			t.Errorf("differs from %v on, want after %v", differ, from)
		}
		if n, m := wishes(was), wishes(x); n != m {
			t.Errorf("%d wishes, again %d", n, m)
		}
	}
	if len(list[0].Attempts) == len(list[1].Attempts) {
		t.Error("two chances, one outcome")
	}
}
