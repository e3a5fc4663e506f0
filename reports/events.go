package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

// Event is something that happened, for a time line to paste.
type Event struct {
	Time        int64
	Uncertainty int64 // ns before Time within which it may have been; 0 = to the packet
	What        string
	Service     string
	Number      int64
	Unit        string // of Number
	File        uint32
	Frame       int64  // 0 = no single frame shows it
	Filter      string // Wireshark display filter; the frames it leaves are Number
}

// Events is the table of what happened, in order.
func Events() *Of[Event] {
	type e = Event
	return define("events", "something that happened", false,
		when("time", "when", func(v *e) int64 { return v.Time }),
		optNum("uncertainty_ns", "ns", "it may have been as much earlier", 0, func(v *e) int64 { return v.Uncertainty }),
		strEnv("observer_name", "the tap: the input that shows it", func(env *Env, v *e) string { return env.file(v.File, max(v.Frame, 1)) }),
		str("what", "in plain words", func(v *e) string { return v.What }),
		str("service", "where", func(v *e) string { return v.Service }),
		num("number", "", "how many", func(v *e) int64 { return v.Number }),
		str("unit", "of what", func(v *e) string { return v.Unit }),
		optNum("frame", "", "that shows it, 1-based", 0, func(v *e) int64 { return v.Frame }),
		str("filter", "Wireshark display filter whose frames are the number; empty where it counts attempts", func(v *e) string { return v.Filter }),
	)
}

func eventsOf(a *pipeline.Analysis, r *storm.Report) (list []Event) {
	for i, c := range a.Captures() {
		if c.Packets == 0 {
			continue
		}
		list = append(list, Event{Time: c.First, What: "capture begins: " + c.Path, Number: c.Packets, Unit: "frames", File: uint32(i), Frame: 1, Filter: "frame.number >= 1"},
			Event{Time: max(c.Last, c.Ended), What: "capture ends: " + c.Path, Number: c.Packets, Unit: "frames", File: uint32(i), Frame: c.Packets, Filter: fmt.Sprintf("frame.number <= %d", c.Packets)})
	}
	one := func(e Event) {
		if e.Frame > 0 && e.Unit == "" {
			e.Number, e.Unit, e.Filter = 1, "frames", fmt.Sprintf("frame.number == %d", e.Frame)
		}
		list = append(list, e)
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		name := strings.ReplaceAll(f.Class.String(), "_", " ")
		if f.Cascade {
			name += " with cascade"
		}
		one(Event{Time: f.Onset, What: name + " begins", Service: f.Service, File: f.FirstFile, Frame: f.FirstFrame})
		if f.End != 0 {
			what := name + " ends"
			if f.Recovered {
				what += ", clients are served again"
			}
			list = append(list, Event{Time: f.End, What: what, Service: f.Service, Number: f.Attempts, Unit: "attempts", File: f.FirstFile})
		}
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		for _, p := range n.Periods {
			kind := strings.ReplaceAll(p.Kind.String(), "_", " ")
			e := Event{Time: p.Start, What: n.At.String() + " is " + kind, Service: n.Service, File: p.File, Frame: p.Frame}
			if p.LastAlive > 0 && p.LastAlive < p.Start {
				e.Uncertainty = p.Start - p.LastAlive
			}
			one(e)
			if p.End != 0 {
				list = append(list, Event{Time: p.End, What: n.At.String() + " is no longer " + kind, Service: n.Service, Number: n.Attempts, Unit: "attempts at it in all", File: p.File})
			}
		}
	}
	for i := range r.Migrations {
		if m := &r.Migrations[i]; m.Causal {
			list = append(list, Event{Time: m.First, What: fmt.Sprintf("clients go from %v to %v and overload it", m.From, m.To), Service: m.Service, Number: m.Intents, Unit: "intents"})
		}
	}
	slices.SortStableFunc(list, func(a, b Event) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.What, b.What)) })
	return list
}
