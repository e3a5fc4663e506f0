package reports

import (
	"cmp"
	"fmt"
	"strings"

	"squall/dissect"
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
	Told        string // by whom, where it was not seen in packets: the file of --events
	Filter      string // Wireshark display filter; the frames it leaves are Number
}

// Events is the table of what happened, in order.
func Events() *Of[Event] {
	type e = Event
	return define("events", "something that happened", false,
		when("time", "when", func(v *e) int64 { return v.Time }),
		optNum("uncertainty_ns", "ns", "it may have been as much earlier", 0, func(v *e) int64 { return v.Uncertainty }),
		strEnv("observer_name", "the tap: the input that shows it, or the file of --events that tells it", func(env *Env, v *e) string {
			return cmp.Or(v.Told, env.observer(v.File), env.file(v.File, max(v.Frame, 1)))
		}),
		str("what", "in plain words", func(v *e) string { return v.What }),
		str("service", "where", func(v *e) string { return v.Service }),
		num("number", "", "how many", func(v *e) int64 { return v.Number }),
		str("unit", "of what", func(v *e) string { return v.Unit }),
		strEnv("capture_file", "the input that shows it, and the filter is for", func(env *Env, v *e) string {
			if v.Told != "" {
				return ""
			}
			return env.file(v.File, max(v.Frame, 1))
		}),
		optNum("frame", "", "that shows it, 1-based", 0, func(v *e) int64 { return v.Frame }),
		str("filter", "Wireshark display filter whose frames are the number; empty where no packets were captured", func(v *e) string { return v.Filter }),
	)
}

// pin is an event that no frame shows by itself: the first attempt from its time
// on that fits does, or else the last one before, whatever it is.
type pin struct {
	event  int
	at     int64
	fits   func(*dissect.Attempt) bool
	before bool // the last one before its time that fits is wanted
	sure   bool // and was found
	done   bool
}

func (p *pin) take(e *Event, a *dissect.Attempt) {
	late, fits := a.Start >= p.at, p.fits(a)
	switch {
	case p.done:
		return
	case late && (p.before || !fits):
		p.done = p.before
		return
	case p.sure && !fits:
		return
	}
	p.sure = p.before && (p.sure || fits)
	p.done = late
	e.File, e.Frame = a.File, a.FirstFrame
}

func eventsOf(a *pipeline.Analysis, r *storm.Report) ([]Event, error) {
	var list []Event
	for i, c := range a.Captures() {
		if c.Packets == 0 {
			continue
		}
		list = append(list, Event{Time: c.First, What: "capture begins: " + c.Path, Number: c.Packets, Unit: "frames", File: uint32(i), Frame: 1, Filter: fmt.Sprintf("frame.number <= %d", c.Packets)},
			Event{Time: max(c.Last, c.Ended), What: "capture ends: " + c.Path, Number: c.Packets, Unit: "frames", File: uint32(i), Frame: c.Packets, Filter: fmt.Sprintf("frame.number <= %d", c.Packets)})
	}
	services, nodes := map[string][]*pin{}, map[dissect.Endpoint][]*pin{}
	add := func(e Event) int {
		list = append(list, e)
		return len(list) - 1
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		name := strings.ReplaceAll(f.Class.String(), "_", " ")
		if f.Cascade {
			name += " with cascade"
		}
		add(Event{Time: f.Onset, What: name + " begins", Service: f.Service, File: f.FirstFile, Frame: f.FirstFrame})
		if f.End != 0 {
			what := fmt.Sprintf("%s ends after %d attempts", name, f.Attempts)
			if f.Recovered {
				what += ", clients are served again"
			}
			n := add(Event{Time: f.End, What: what, Service: f.Service})
			services[f.Service] = append(services[f.Service], &pin{event: n, at: f.End + 1, before: true, fits: func(a *dissect.Attempt) bool { return a.Outcome.Failed() }})
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
			if at := add(e); p.Frame == 0 {
				nodes[n.At] = append(nodes[n.At], &pin{event: at, at: p.Start, fits: func(a *dissect.Attempt) bool { return a.Outcome.Failed() }})
			}
			if p.End != 0 {
				at := add(Event{Time: p.End, What: fmt.Sprintf("%v is no longer %s; %d attempts at it in all", n.At, kind, n.Attempts), Service: n.Service, File: p.EndFile, Frame: p.EndFrame})
				if p.EndFrame > 0 {
					continue
				}
				nodes[n.At] = append(nodes[n.At], &pin{event: at, at: p.End, fits: func(a *dissect.Attempt) bool { return a.Outcome == dissect.OutcomeAccepted }})
			}
		}
	}
	for i := range r.Migrations {
		if m := &r.Migrations[i]; m.Causal {
			at := add(Event{Time: m.First, What: fmt.Sprintf("clients go from %v to %v and overload it: %d wishes", m.From, m.To, m.Intents), Service: m.Service})
			nodes[m.To] = append(nodes[m.To], &pin{event: at, at: m.First, fits: func(*dissect.Attempt) bool { return true }})
		}
	}
	if len(services)+len(nodes) > 0 {
		for t, err := range a.Attempts() {
			if err != nil {
				return nil, err
			}
			if t.FirstFrame == 0 {
				continue
			}
			for _, p := range services[t.Service] {
				p.take(&list[p.event], t)
			}
			for _, p := range nodes[t.Destination] {
				p.take(&list[p.event], t)
			}
		}
	}
	for i := range list {
		if e := &list[i]; e.Frame > 0 && e.Unit == "" {
			e.Number, e.Unit, e.Filter = 1, "frames", fmt.Sprintf("frame.number == %d", e.Frame)
		}
	}
	return list, nil
}
