package storm_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"squall/capture"
	"squall/samples"
)

const shuffled = "24 files, shuffled"

// variant is a way in which a tap spoils the packets of a scenario.
type variant struct {
	name  string
	spoil func(t testing.TB, sc *samples.Scenario, all []capture.Packet, seed uint64) capture.Source
}

// kept is the source of the packets that satisfy keep.
func kept(all []capture.Packet, keep func(*capture.Packet) bool) capture.Source {
	var left []capture.Packet
	for i := range all {
		if keep(&all[i]) {
			left = append(left, all[i])
		}
	}
	return capture.Memory(left)
}

func variants() []variant {
	side := func(ofNodes bool) func(testing.TB, *samples.Scenario, []capture.Packet, uint64) capture.Source {
		return func(_ testing.TB, _ *samples.Scenario, all []capture.Packet, _ uint64) capture.Source {
			return kept(all, func(p *capture.Packet) bool { return fromNode(p) == ofNodes })
		}
	}
	return []variant{
		{"5 % lost at the tap", func(_ testing.TB, _ *samples.Scenario, all []capture.Packet, seed uint64) capture.Source {
			rng := rand.New(rand.NewPCG(seed, 5))
			return kept(all, func(*capture.Packet) bool { return rng.Float64() >= 0.05 })
		}},
		{"loss rising to 40 % at the peak", func(_ testing.TB, sc *samples.Scenario, all []capture.Packet, seed uint64) capture.Source {
			rng := rand.New(rand.NewPCG(seed, 40))
			rate := map[int64]float64{}
			calm, peak, seconds := 0.0, 0.0, sc.Trigger.Seconds()
			for i := range all {
				rate[all[i].Time/1e9]++
			}
			for s, n := range rate {
				if peak = max(peak, n); s < (samples.Epoch+int64(sc.Trigger))/1e9 {
					calm += n / seconds
				}
			}
			return kept(all, func(p *capture.Packet) bool {
				return rng.Float64() >= 0.4*max(rate[p.Time/1e9]-calm, 0)/(peak-calm)
			})
		}},
		{"snaplen 96", func(_ testing.TB, _ *samples.Scenario, all []capture.Packet, _ uint64) capture.Source {
			cut := slices.Clone(all)
			for i := range cut {
				cut[i].Data = cut[i].Data[:min(len(cut[i].Data), 96)]
			}
			return capture.Memory(cut)
		}},
		{"clients' packets only", side(false)},
		{"nodes' packets only", side(true)},
		{"hole of 20 s", func(_ testing.TB, sc *samples.Scenario, all []capture.Packet, _ uint64) capture.Source {
			from := samples.Epoch + int64(sc.Trigger+30*time.Second)
			return kept(all, func(p *capture.Packet) bool { return p.Time < from || p.Time >= from+20e9 })
		}},
		{"clock set back 30 s", func(_ testing.TB, sc *samples.Scenario, all []capture.Packet, _ uint64) capture.Source {
			back := slices.Clone(all)
			for i := range back {
				if back[i].Time > samples.Epoch+int64(sc.Trigger+time.Minute) {
					back[i].Time -= 30e9
				}
			}
			return capture.Memory(back)
		}},
		{shuffled, func(t testing.TB, _ *samples.Scenario, all []capture.Packet, seed uint64) capture.Source {
			return files(t, all, 24, seed)
		}},
	}
}

// fromNode: the simulator's nodes live in 198.51.100.0/24.
func fromNode(p *capture.Packet) bool {
	return len(p.Data) >= 34 && [3]byte(p.Data[26:29]) == [3]byte{198, 51, 100}
}

// files writes the packets to that many captures and opens them out of order.
func files(t testing.TB, all []capture.Packet, n int, seed uint64) capture.Source {
	t.Helper()
	dir := t.TempDir()
	var names []string
	for i := range n {
		names = append(names, filepath.Join(dir, fmt.Sprintf("%02d.pcap", i)))
		w, err := capture.Create(names[i], capture.WriterOptions{Format: "pcap"})
		if err != nil {
			t.Fatal(err)
		}
		for k := len(all) * i / n; k < len(all)*(i+1)/n; k++ {
			if err := w.WritePacket(&all[k], ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 24))
	rng.Shuffle(n, func(i, j int) { names[i], names[j] = names[j], names[i] })
	src, err := capture.Open(names, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// TestEndUnderTapLoss: the tap misses more and more from the onset on and does
// not get better; the storm still ends where the nodes come back, not where the
// capture does.
func TestEndUnderTapLoss(t *testing.T) {
	for _, loss := range []float64{0.1, 0.4} {
		sc, _ := samples.Find("s9")
		sc.Nodes, sc.Clients, sc.Intents, sc.Hold, sc.Duration, sc.Trigger = 3, 2000, 8, 60*time.Second, 6*time.Minute, 2*time.Minute
		sc.Policy = samples.Policy{Family: "fixed", Base: 2 * time.Second, Jitter: "50%", Timeout: 3 * time.Second, Order: "random"}
		sc.Script = []samples.Step{{At: sc.Trigger, Do: "close", Nodes: []int{0, 1, 2}}, {At: 220 * time.Second, Do: "up", Nodes: []int{0, 1, 2}}}
		sc.Tap = samples.Tap{Loss: loss, LossAt: sc.Trigger}
		r, _ := judged(t, sc, 1)
		f := &r.Verdict
		if end := time.Duration(f.End - samples.Epoch); f.Class.String() != "retry_storm" || f.End == 0 || near(end, 220*time.Second) > 5*time.Second {
			t.Errorf("%g lost: %v, end %v, the nodes were back at 220 s: %s", loss, f.Class, end, f.Sentence)
		}
	}
}
