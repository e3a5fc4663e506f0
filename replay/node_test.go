package replay_test

import (
	"math"
	"testing"
	"time"

	"squall/replay"
)

// drive offers a node requests at a steady rate and serves them on its clock.
type drive struct {
	n                                *replay.Node
	done                             []int64 // end of each job in service
	served, shed, throttled, dropped int
	waits                            []time.Duration
}

func (d *drive) run(from, to time.Duration, rate float64, client func(i int) int64) {
	gap := int64(1e9 / rate)
	i := 0
	for at := int64(from); at < int64(to); at += gap {
		d.until(at)
		switch d.n.Offer(at, replay.Job{Ref: int64(i), Client: client(i)}) {
		case replay.Throttled:
			d.throttled++
		case replay.Dropped:
			d.dropped++
		}
		i++
		d.next(at)
	}
}

func (d *drive) until(at int64) {
	for {
		first := -1
		for i, end := range d.done {
			if end <= at && (first < 0 || end < d.done[first]) {
				first = i
			}
		}
		if first < 0 {
			return
		}
		end := d.done[first]
		d.done = append(d.done[:first], d.done[first+1:]...)
		d.n.Done()
		d.served++
		d.next(end)
	}
}

func (d *drive) next(at int64) {
	for {
		j, takes, ok := d.n.Next(at, func(replay.Job) { d.shed++ })
		if !ok {
			return
		}
		d.waits = append(d.waits, time.Duration(at-j.Arrived))
		d.done = append(d.done, at+takes)
	}
}

func one(int) int64 { return 1 }

// TestNodeServesItsCapacity: whatever the distribution and concurrency.
func TestNodeServesItsCapacity(t *testing.T) {
	for _, cfg := range []replay.NodeConfig{
		{Capacity: 100}, {Capacity: 100, Service: replay.FixedService}, {Capacity: 100, Service: replay.LognormalService}, {Capacity: 100, Concurrency: 8},
	} {
		for seed := range uint64(3) {
			d := drive{n: replay.NewNode(cfg, seed)}
			d.run(0, 60*time.Second, 300, one)
			if got := float64(d.served) / 60; math.Abs(got-100) > 8 {
				t.Errorf("%+v, seed %d: %.1f/s served, want 100", cfg, seed, got)
			}
		}
	}
}

// TestDisciplines: under twice its load a FIFO node serves only what waited
// long, adaptive LIFO and controlled delay serve fresh requests.
func TestDisciplines(t *testing.T) {
	fresh := func(c replay.NodeConfig) float64 {
		d := drive{n: replay.NewNode(c, 1)}
		d.run(0, 60*time.Second, 200, one)
		n := 0
		for _, w := range d.waits[len(d.waits)/2:] {
			if w < time.Second {
				n++
			}
		}
		return float64(n) / float64(len(d.waits)/2)
	}
	if f := fresh(replay.NodeConfig{Capacity: 100}); f > 0.01 {
		t.Errorf("fifo: %.2f of the served requests are fresh", f)
	}
	for _, disc := range []replay.Discipline{replay.AdaptiveLIFO, replay.CoDel} {
		if f := fresh(replay.NodeConfig{Capacity: 100, Discipline: disc}); f < 0.95 {
			t.Errorf("%v: %.2f of the served requests are fresh", disc, f)
		}
	}
}

func TestAdmission(t *testing.T) {
	bucket := drive{n: replay.NewNode(replay.NodeConfig{Rate: 50, Burst: 10}, 1)}
	bucket.run(0, 10*time.Second, 200, one)
	if got := 2000 - bucket.throttled; got < 500 || got > 520 {
		t.Errorf("bucket of 50/s: %d admitted in 10 s", got)
	}
	for _, pace := range []float64{1, 10} { // the bucket is of the stated size, smaller than a second's worth, too
		n := replay.NewNode(replay.NodeConfig{Rate: 50, Burst: 10}.Faster(pace), 1)
		at := 0
		for n.Offer(0, replay.Job{}) == replay.Queued {
			at++
		}
		if at != 10 {
			t.Errorf("%v times as fast: %d at once from a bucket of 10", pace, at)
		}
	}
	each := drive{n: replay.NewNode(replay.NodeConfig{PerClient: 1}, 1)}
	each.run(0, 10*time.Second, 100, func(i int) int64 { return int64(i % 20) }) // 5/s each
	if got := 1000 - each.throttled; got < 190 || got > 225 {
		t.Errorf("20 clients at 1/s: %d admitted in 10 s", got)
	}
}

// TestLossBased: two seconds after the load has come the share that is too much
// is turned away, whatever the size of the node and the pace of its clock, and
// nobody waits for long; two seconds after it has gone nobody is turned away.
func TestLossBased(t *testing.T) {
	for _, tc := range []struct {
		cfg  replay.NodeConfig
		load float64 // times the capacity
		pace float64
	}{
		{replay.NodeConfig{Capacity: 100}, 2.5, 1}, {replay.NodeConfig{Capacity: 1000, Concurrency: 8}, 2, 1}, {replay.NodeConfig{Capacity: 100, Service: replay.LognormalService}, 10, 1},
		{replay.NodeConfig{Capacity: 100, Service: replay.FixedService}, 1.5, 1}, {replay.NodeConfig{Capacity: 20}, 2.5, 20},
	} {
		for seed := range uint64(5) {
			tc.cfg.Loss = true
			d := drive{n: replay.NewNode(tc.cfg.Faster(tc.pace), seed)}
			at := time.Duration(0)
			rate := func(over time.Duration, load float64) (turned float64, waits []time.Duration) {
				over = time.Duration(float64(over) / tc.pace)
				before, from := d.throttled, len(d.waits)
				d.run(at, at+over, load*tc.cfg.Capacity*tc.pace, one)
				at += over
				return float64(d.throttled-before) / (load * tc.cfg.Capacity * tc.pace * over.Seconds()), d.waits[from:]
			}
			rate(20*time.Second, 0.5)
			if _, waits := rate(2*time.Second, tc.load); len(waits) == 0 {
				t.Errorf("%+v: nobody is served", tc)
			}
			turned, waits := rate(10*time.Second, tc.load)
			if want := 1 - 1/tc.load; math.Abs(turned-want) > 0.12 {
				t.Errorf("%+v, seed %d: %.2f turned away, want about %.2f", tc, seed, turned, want)
			}
			worst := time.Duration(0)
			for _, w := range waits {
				worst = max(worst, time.Duration(float64(w)*tc.pace))
			}
			if worst > 2500*time.Millisecond {
				t.Errorf("%+v, seed %d: a request waited %v", tc, seed, worst)
			}
			rate(2*time.Second, 0.5)
			if turned, _ := rate(10*time.Second, 0.5); turned > 0.02 {
				t.Errorf("%+v, seed %d: %.2f turned away at half the load", tc, seed, turned)
			}
		}
	}
}

func TestNodeFallsAndRecovers(t *testing.T) {
	for _, tc := range []struct {
		cfg  replay.NodeConfig
		fell replay.Offer
		then replay.Offer
	}{
		{replay.NodeConfig{ProtectAt: 5, Recovery: 10 * time.Second}, replay.Fell, replay.Refused},
		{replay.NodeConfig{CrashAt: 5, Recovery: 10 * time.Second}, replay.Crashed, replay.Dropped},
	} {
		n := replay.NewNode(tc.cfg, 1)
		var last replay.Offer
		for i := range int64(6) {
			last = n.Offer(i*1e6, replay.Job{})
		}
		if last != tc.fell {
			t.Errorf("%+v: the sixth request in a second gives %v", tc.cfg, last)
		}
		if o := n.Offer(5e9, replay.Job{}); o != tc.then {
			t.Errorf("%+v: 5 s later %v", tc.cfg, o)
		}
		if o := n.Offer(11e9, replay.Job{}); o != replay.Queued || n.State(11e9) != replay.Up {
			t.Errorf("%+v: 11 s later %v", tc.cfg, o)
		}
	}
	// A full queue.
	for o, want := range map[replay.Overload]replay.Offer{replay.Drop: replay.Dropped, replay.Refuse: replay.Refused, replay.Throttle: replay.Throttled, replay.Reset: replay.ResetBack} {
		n := replay.NewNode(replay.NodeConfig{Capacity: 1, Queue: 1, Overload: o}, 1)
		n.Offer(0, replay.Job{})
		if got := n.Offer(1, replay.Job{}); got != want {
			t.Errorf("overload %v: %v, want %v", o, got, want)
		}
	}
}

// TestWarmUp: capacity comes back little by little.
func TestWarmUp(t *testing.T) {
	d := drive{n: replay.NewNode(replay.NodeConfig{Capacity: 100, WarmUp: 20 * time.Second}, 1)}
	d.n.Set(replay.Closed, 0)
	d.n.Set(replay.Up, 0)
	d.run(0, 2*time.Second, 400, one)
	cold := d.served
	d.run(2*time.Second, 30*time.Second, 400, one)
	before := d.served
	d.run(30*time.Second, 32*time.Second, 400, one)
	if warm := d.served - before; cold > 60 || warm < 160 {
		t.Errorf("%d served in the first two seconds, %d in two when warm", cold, warm)
	}
}

// TestLimitAtAnySpeed: as many requests in a window as a node allows do not
// make it fall, one more does, whether or not the speed divides the window.
func TestLimitAtAnySpeed(t *testing.T) {
	for pace := 1.0; pace <= 60; pace++ {
		for _, cfg := range []replay.NodeConfig{{ProtectAt: 7}, {CrashAt: 7}, {ProtectAt: 2.5, Window: 4 * time.Second}} {
			allowed := int64(7)
			if cfg.Window > 0 {
				allowed = 10
			}
			n := replay.NewNode(cfg.Faster(pace), 1)
			for i := range allowed {
				if got := n.Offer(i, replay.Job{Ref: i}); got != replay.Queued {
					t.Errorf("%v times as fast, %+v: request %d of %d: %v", pace, cfg, i+1, allowed, got)
				}
			}
			if got := n.Offer(allowed, replay.Job{Ref: allowed}); got != replay.Fell && got != replay.Crashed {
				t.Errorf("%v times as fast, %+v: one more: %v", pace, cfg, got)
			}
		}
	}
}

// TestFaster: a node ten times as fast does in a second what it did in ten.
func TestFaster(t *testing.T) {
	cfg := replay.NodeConfig{Capacity: 20, ProtectAt: 45, Recovery: 20 * time.Second, WarmUp: 10 * time.Second}
	slow := drive{n: replay.NewNode(cfg, 1)}
	slow.run(0, 60*time.Second, 40, one)
	fast := drive{n: replay.NewNode(cfg.Faster(10), 1)}
	fast.run(0, 6*time.Second, 400, one)
	if r := float64(fast.served) / float64(slow.served); r < 0.95 || r > 1.05 {
		t.Errorf("%d and %d served", slow.served, fast.served)
	}
	for i := range int64(60) { // 50 per second on its own clock
		at := int64(100e9) + i*20e6
		a, b := slow.n.Offer(at, replay.Job{}), fast.n.Offer(at/10, replay.Job{})
		if (a == replay.Fell) != (b == replay.Fell) {
			t.Errorf("request %d: %v and %v", i, a, b)
		}
	}
	if slow.n.State(102e9) != replay.Closed || fast.n.State(10.2e9) != replay.Closed || slow.n.State(125e9) != replay.Up || fast.n.State(12.5e9) != replay.Up {
		t.Error("they do not fall and rise together")
	}
}

// TestAdmissionProtects: what admission turns away is no load that makes a node fall.
func TestAdmissionProtects(t *testing.T) {
	for _, rate := range []float64{0, 3} {
		n := replay.NewNode(replay.NodeConfig{Capacity: 3, ProtectAt: 7, Rate: rate, Burst: 3}, 1)
		fell := false
		for at := int64(0); at < 10e9; at += 10e6 {
			fell = fell || n.Offer(at, replay.Job{Ref: at}) == replay.Fell
		}
		if fell != (rate == 0) {
			t.Errorf("100 requests/s, admitted %v/s, falls above 7: fell %v", rate, fell)
		}
	}
}
