package pipeline_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/dissect/taps"
	"squall/samples"
)

var tapSeeds = flag.Int("taps", 1, "seeds of TestThreeTaps, full size when more than one")

func writeTap(t *testing.T, path string, packets []capture.Packet) {
	t.Helper()
	h, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	w, err := capture.NewWriter(h, capture.WriterOptions{Format: "pcapng", Link: capture.LinkEthernet})
	for i := 0; i < len(packets) && err == nil; i++ {
		err = w.WritePacket(&packets[i], "")
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

type judged struct {
	*storm.Report
	seen   *pipeline.Seen
	missed []pipeline.TapLoss
	ledger dissect.Ledger
}

func judge(t *testing.T, inputs []string, clocks *taps.Clocks) judged {
	t.Helper()
	opt := capture.Options{}
	if clocks != nil {
		opt.Clocks = clocks.Of
	}
	src, err := capture.Open(inputs, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	a, err := pipeline.Run(t.Context(), pipeline.Config{Protocols: overlay.All(), Clocks: clocks}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r, err := a.Judge(storm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l := a.Ledger()
	var read int64
	for _, c := range a.Captures() {
		read += c.Packets
	}
	if l.Total() != read {
		t.Errorf("the ledger holds %d packets, %d were read", l.Total(), read)
	}
	return judged{r, a.Seen(), a.TapLosses(), l}
}

// far lists by how much what a case says of an outage differs from what one
// perfect tap says, as shares.
func far(got, want judged) (out string, worst float64) {
	for _, x := range []struct {
		name      string
		got, want float64
	}{
		{"attempts", float64(got.Totals.Attempts), float64(want.Totals.Attempts)},
		{"intents", float64(got.Totals.Intents), float64(want.Totals.Intents)},
		{"amplification", got.Totals.Amplification(), want.Totals.Amplification()},
		{"late ratio", got.Totals.LateRatio(), want.Totals.LateRatio()},
	} {
		d := math.Abs(x.got - x.want)
		if x.name != "late ratio" { // that one is a share itself
			d /= x.want
		}
		out += fmt.Sprintf("%s %.4g for %.4g (%.2f %%), ", x.name, x.got, x.want, 100*d)
		worst = max(worst, d)
	}
	return out + fmt.Sprintf("verdict %s for %s", got.Verdict.Class, want.Verdict.Class), worst
}

// TestThreeTaps is an outage seen by three taps whose clocks disagree and
// drift, one of them before a NAT, one a mirror that reorders and loses four
// packets of ten at the peak: it must come out as a single perfect tap shows it.
func TestThreeTaps(t *testing.T) {
	sc, _ := samples.Find("s1")
	sc.Policy.Timeout = time.Second // so that a queue answers too late
	if *tapSeeds == 1 {
		sc.Clients, sc.Mu, sc.Queue, sc.ProtectAt = 240, 0.36, 12, 2
		sc.Duration, sc.Trigger, sc.Spread = 5*time.Minute, 150*time.Second, 2*time.Minute
		for i := range sc.Script {
			sc.Script[i].At -= 150 * time.Second
		}
	}
	for seed := range uint64(*tapSeeds) {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { threeTaps(t, sc, seed+1) })
	}
}

func threeTaps(t *testing.T, sc samples.Scenario, seed uint64) {
	dir := t.TempDir()
	var perfect []capture.Packet
	if _, err := samples.Simulate(sc, seed, func(p *capture.Packet) { perfect = append(perfect, *p) }); err != nil {
		t.Fatal(err)
	}
	one := filepath.Join(dir, "perfect.pcapng")
	writeTap(t, one, perfect)
	c := samples.DefaultTapCase(&sc)
	packets, _, err := samples.SimulateTaps(sc, c, seed)
	if err != nil {
		t.Fatal(err)
	}
	var inputs []string
	var list []taps.Tap
	for i, name := range samples.TapNames {
		path := filepath.Join(dir, name+".pcapng")
		writeTap(t, path, packets[i])
		inputs = append(inputs, name+"="+path)
		list = append(list, taps.Tap{Name: name, Inputs: []string{path}})
	}
	clocks, err := taps.Survey(t.Context(), list, capture.Window{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range clocks.Words(list) {
		t.Log(w)
	}
	end := samples.Epoch + int64(sc.Duration)
	for i, name := range samples.TapNames {
		k := clocks.Of[name]
		if k.Bound < 0 || k.Bound > int64(20*time.Millisecond) {
			t.Errorf("%s: a bound of %v", name, time.Duration(k.Bound))
		}
		for _, at := range []int64{samples.Epoch, samples.Epoch + int64(sc.Duration)/2, end} {
			if off := k.True(c.Stamp(i, at)) - at; max(off, -off) > k.Bound+1 {
				t.Errorf("%s: %v off at %v, and the bound is %v", name, time.Duration(off), time.Duration(at-samples.Epoch), time.Duration(k.Bound))
			}
		}
	}
	want := judge(t, []string{one}, nil)
	got := judge(t, inputs, clocks)
	words, worst := far(got, want)
	t.Logf("corrected: %s; %v; %d NAT pairs", words, got.ledger, len(got.seen.NAT))
	if worst > 0.02 || got.Verdict.Class != want.Verdict.Class || got.Verdict.Cascade != want.Verdict.Cascade {
		t.Errorf("not as the perfect tap: %s", words)
	}
	if d := got.Verdict.Onset - want.Verdict.Onset; max(d, -d) > int64(time.Second) {
		t.Errorf("onset %v off", time.Duration(d))
	}
	for _, n := range got.seen.NAT {
		if n.Outer.String() != "203.0.113.77" || !samples.Branch(n.Inner.IP()) || n.InnerTap != "branch" {
			t.Errorf("no pair of this NAT: %+v", n)
		}
	}
	for _, l := range got.missed { // only the mirror loses; of nodes that refuse every SYN it leaves no trace
		sum := l.Sum()
		t.Logf("%s missed %.2f %% of %d bytes", l.Observer, 100*sum.Share(), sum.Seen+sum.Unseen)
		if sum.Segments == 0 || l.Observer != samples.TapNames[1] && sum.Share() > 0.002 {
			t.Errorf("%s: %+v", l.Observer, sum)
		}
	}
	if len(got.missed) != len(samples.TapNames) || len(want.missed) != 1 {
		t.Errorf("the loss of %d taps, and of %d", len(got.missed), len(want.missed))
	}
	// Without correction: the same packets, clocks as they are.
	words, worst = far(judge(t, inputs, nil), want)
	t.Logf("uncorrected: %s", words)
	if worst <= 0.02 {
		t.Errorf("clocks seconds apart made no difference: %s", words)
	}
}
