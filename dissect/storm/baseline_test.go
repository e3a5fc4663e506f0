package storm_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"squall/dissect"
	"squall/dissect/storm"
)

const day = 86400.0

// against judges rows by a calm day.
func (f *feed) against(t *testing.T, b *storm.Baseline, from, until float64) *storm.Report {
	t.Helper()
	s := f.state(nil)
	q := storm.Quality{Begin: int64(from * 1e9), End: int64(until * 1e9), Packets: int64(10 * f.id)}
	if err := s.Against(b, &q); err != nil {
		t.Fatal(err)
	}
	return s.Report(q)
}

func (f *feed) baseline(from, until float64) *storm.Baseline {
	return f.state(nil).Baseline("calm", storm.Quality{Begin: int64(from * 1e9), End: int64(until * 1e9), Packets: int64(10 * f.id)})
}

// midStorm is a capture that begins inside a storm.
func midStorm(from float64) *feed {
	f := newFeed(5)
	for i := range 60 {
		f.storm(fmt.Sprintf("c%d", i), from, from+240, 2, nil)
	}
	return f
}

// TestBaselineByTimeOfDay: a calm day of which one hour has 1 and the next 6
// attempts a second. The judged capture begins inside a storm in the busy hour.
func TestBaselineByTimeOfDay(t *testing.T) {
	c := newFeed(4)
	c.calm("quiet", 3600, 57600, 61200, nil)
	c.calm("busy", 21600, 61200, 64800, nil)
	from := day + 62000
	r := midStorm(from).against(t, c.baseline(57600, 64800), from, from+240)
	a := r.Baseline.Of("gnutella/supernode")
	if a == nil || !a.Aligned || math.Abs(a.CalmRate-6) > 0.3 || math.Abs(a.Rate-30) > 2 || a.Failure < 0.99 || a.CalmFailure > 0.01 {
		t.Fatalf("%+v", a)
	}
	v := &r.Verdict
	if v.Class != storm.RetryStorm || v.Confidence != storm.High || v.Criteria[0].Threshold < 80 || v.Criteria[0].Note != "against calm, the same time of day" || v.Baseline != v.Criteria[0].Note {
		t.Errorf("%v, %v: %+v %q", v.Class, v.Confidence, v.Criteria[0], v.Baseline)
	}
	for _, w := range r.Timeline {
		if w.Node == (dissect.Endpoint{}) && math.Abs(w.Baseline-60) > 5 {
			t.Errorf("%+v", w)
		}
	}
	// It ends nine seconds into the last five minutes, the calm day seven: nobody
	// begins and ends a capture to the second.
	from = day + 64800 - 231
	r = midStorm(from).against(t, c.baseline(57600, 64807), from, from+240)
	if a = r.Baseline.Of("gnutella/supernode"); !a.Aligned || math.Abs(a.CalmRate-6) > 0.3 {
		t.Errorf("%+v", a)
	}
	// An hour that it does not cover: the median of all of it.
	from = day + 70000
	r = midStorm(from).against(t, c.baseline(57600, 64800), from, from+240)
	a = r.Baseline.Of("gnutella/supernode")
	if a.Aligned || a.CalmRate < 0.9 || a.CalmRate > 6.5 || !strings.Contains(r.Verdict.Criteria[0].Note, "its median") {
		t.Errorf("%+v %+v", a, r.Verdict.Criteria[0])
	}
	// Without: no calm stretch to compare with.
	if r := midStorm(100).judge(340, nil); r.Verdict.Confidence > storm.Medium || r.Baseline != nil || r.Verdict.Baseline != "" {
		t.Errorf("%v", r.Verdict.Confidence)
	}
}

// TestBaselineZone: the day of a zone, over a change of its clocks.
func TestBaselineZone(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("needs the time zone database (Debian: apt-get install tzdata)")
	}
	calm := float64(time.Date(2010, 10, 30, 8, 0, 0, 0, zone).Unix())  // summer time
	judged := float64(time.Date(2010, 11, 1, 9, 5, 0, 0, zone).Unix()) // winter time
	c := newFeed(4)
	c.calm("quiet", 3600, calm, calm+3600, nil)
	c.calm("busy", 21600, calm+3600, calm+7200, nil)
	b := c.baseline(calm, calm+7200)
	b.Zone = zone
	a := midStorm(judged).against(t, b, judged, judged+240).Baseline.Of("gnutella/supernode")
	if !a.Aligned || math.Abs(a.CalmRate-6) > 0.3 {
		t.Errorf("%+v", a)
	}
}

// TestBaselineSaysWhatIsNormal: a service of which most attempts always fail is
// calm, and a crowd that was there from the first packet on is a crowd.
func TestBaselineSaysWhatIsNormal(t *testing.T) {
	failing := func(from float64) *feed {
		f := newFeed(6)
		f.calm("lucky", 240, from, from+240, nil)
		for i := range 360 {
			f.add(fmt.Sprintf("u%d", i), from+float64(i)*2/3, silent)
		}
		return f
	}
	if r := failing(0).judge(240, nil); r.Verdict.Class != storm.PartialOutage {
		t.Fatalf("without: %v", r.Verdict.Class)
	}
	c := newFeed(7)
	c.calm("lucky", 240, 0, 240, nil)
	for i := range 360 {
		c.add(fmt.Sprintf("u%d", i), float64(i)*2/3, silent)
	}
	b := c.baseline(0, 240)
	if r := failing(day).against(t, b, day, day+240); r.Verdict.Class != storm.Calm || !strings.Contains(strings.Join(r.Notes, " "), "for what is usual") {
		t.Errorf("%v, %q", r.Verdict.Class, r.Notes)
	}
	c = newFeed(7)
	c.calm("lucky", 2000, 0, 2000, nil)
	for i := range 120 {
		c.storm(fmt.Sprintf("u%d", i), 400, 520, 2, nil)
	}
	b = c.baseline(0, 2000)
	r := midStorm(day).against(t, b, day, day+240)
	if a := r.Baseline.Services[0]; len(b.Notes) != 1 || !strings.Contains(b.Notes[0], "not calm") || math.Abs(a.CalmRate-1) > 0.2 || a.CalmFailure > 0.02 {
		t.Errorf("a day with an outage in it: %q %+v", b.Notes, a)
	}
	crowd := newFeed(8)
	crowd.calm("user", 1200, day, day+240, nil)
	if r := crowd.judge(day+240, nil); r.Verdict.Class != storm.Calm {
		t.Errorf("without: %v", r.Verdict.Class)
	}
	c = newFeed(9)
	c.calm("user", 120, 0, 240, nil)
	r = crowd.against(t, c.baseline(0, 240), day, day+240)
	if r.Verdict.Class != storm.FlashCrowd || r.Verdict.Surge < 8 || r.Verdict.Surge > 20 || !strings.Contains(r.Verdict.Criteria[0].Note, "against calm") {
		t.Errorf("%v %v", r.Verdict.Class, r.Verdict.Criteria)
	}
}

// TestBaselineRefused: what is none, and why.
func TestBaselineRefused(t *testing.T) {
	judged := midStorm(day)
	q := storm.Quality{Begin: int64(day * 1e9), End: int64((day + 240) * 1e9), Packets: 1000}
	refused := func(b *storm.Baseline, want string) {
		t.Helper()
		if err := judged.state(nil).Against(b, &q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused(newFeed(1).baseline(0, 1000), "no attempts in it")
	refused(midStorm(day).baseline(day, day+240), "of the time that is judged")
	short := newFeed(1)
	short.calm("u", 100, 0, 10, nil)
	refused(short.baseline(0, 10), "too little")
	other := newFeed(1)
	other.calm("u", 100, 0, 100, func(a *dissect.Attempt) { a.Service, a.Destination = "sip/login", node(9) })
	refused(other.baseline(0, 100), "none of the services")
	// Of a capture that reaches into the storm only the rest counts, and a service
	// of another name is known by its nodes.
	late := newFeed(1)
	late.calm("u", 1000, day-1000, day+100, func(a *dissect.Attempt) { a.Service = "gnutella/peer" })
	b := late.baseline(day-1000, day+100)
	r := judged.against(t, b, day, day+240)
	a := r.Baseline.Of("gnutella/supernode")
	if a == nil || a.CalmService != "gnutella/peer" || math.Abs(a.CalmRate-0.9) > 0.2 || !strings.Contains(strings.Join(r.Notes, " "), "reaches into") {
		t.Errorf("%+v %q", a, r.Notes)
	}
}

// TestTally: records of one flow that timers cut count once, those of the way back
// not at all, and nodes of other addresses are known by their port.
func TestTally(t *testing.T) {
	judged := midStorm(day)
	tally := func(to dissect.Endpoint) (*storm.Baseline, *storm.State) {
		s := judged.state(nil)
		b := s.Tally("flows")
		for i := range 600 {
			from := node(1)
			from.Addr[12], from.Port = 10, uint16(20000+i)
			at := int64(i) * second
			for cut := range 3 {
				at := at + int64(cut)*60*second
				b.Flow(at, at+60*second, from, to, dissect.ProtoTCP)
				b.Flow(at, at+60*second, to, from, dissect.ProtoTCP)
			}
		}
		return b.Baseline(nil), s
	}
	for _, n := range []byte{1, 77} {
		b, s := tally(node(n))
		q := storm.Quality{Begin: int64(day * 1e9), End: int64((day + 240) * 1e9), Packets: 1000}
		if err := s.Against(b, &q); err != nil {
			t.Fatal(err)
		}
		r := s.Report(q)
		a := r.Baseline.Of("gnutella/supernode")
		if !r.Baseline.Flows || math.Abs(a.CalmRate-1) > 0.1 || a.CalmFailure != -1 {
			t.Errorf("%+v", a)
		}
		if got := strings.Contains(strings.Join(r.Notes, " "), "the same port"); got != (n == 77) {
			t.Errorf("node %d: %q", n, r.Notes)
		}
		if r.Verdict.Class != storm.RetryStorm || !strings.Contains(r.Verdict.Criteria[0].Note, "flow records") || r.Verdict.Criteria[2].Note != "" {
			t.Errorf("%v %+v", r.Verdict.Class, r.Verdict.Criteria)
		}
	}
	b := judged.state(nil).Tally("flows")
	b.Flow(second, 2*second, node(3), dissect.Endpoint{Port: 9}, dissect.ProtoUDP)
	if err := judged.state(nil).Against(b.Baseline(nil), &storm.Quality{Begin: int64(day * 1e9), End: int64((day + 1) * 1e9)}); err == nil || !strings.Contains(err.Error(), "no flow to a node") {
		t.Error(err)
	}
}
