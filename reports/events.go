package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
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
	).leads("time what number unit frame capture_file -filter")
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

// count is how many attempts at some nodes began in a time, by capture: the number
// of an event, where a display filter can leave as many frames.
type count struct {
	event    int
	words    string // after the number
	from, to int64  // to is not in it
	service  string
	nodes    []dissect.Endpoint
	came     *dissect.Endpoint // only attempts that follow one there; nil = all
	client   string            // only its attempts; empty: everybody's
	all      int64
	by       map[uint32]*counted
}

// counted is one capture's part.
type counted struct {
	n      int64
	frames []int64        // their first ones, as many as a filter may name
	syns   bool           // SYNs that are no repeats are as many
	from   []dissect.Addr // of the client, where one is asked for
}

const (
	maxCountedNodes = 64
	// maxCountedFrames is how many frames a filter names: tshark takes more, a
	// command line does not.
	maxCountedFrames = 4096
	// maxKeptFrames bounds those of all events, maxMoving the intents under way.
	maxKeptFrames = 1 << 18
	maxMoving     = 1 << 17
	// briefFrames is how many of them a text shows.
	briefFrames = 8
	// firstWhile is how long after its begin the attempts of a finding are counted.
	firstWhile = 10e9
)

// counting are counts in the order of their begin; those before next are over.
type counting struct {
	list []*count
	next int
}

// recount counts attempts for all events.
type recount struct {
	files []pipeline.Capture
	kept  int // frames
}

// take counts an attempt; they come in the order of their starts.
func (k *recount) take(c *counting, a *dissect.Attempt) {
	for c.next < len(c.list) && c.list[c.next].to <= a.Start {
		c.next++
	}
	for _, n := range c.list[c.next:] {
		if n.from > a.Start {
			return
		}
		k.count(n, a)
	}
}

func (k *recount) count(c *count, a *dissect.Attempt) {
	if a.Start < c.from || a.Start >= c.to || a.Service != c.service || c.client != "" && a.ClientID != c.client {
		return
	}
	c.all++
	at := c.by[a.File]
	if at == nil {
		at = &counted{syns: c.came == nil && int(a.File) < len(k.files) && bySYN(&k.files[a.File])}
		c.by[a.File] = at
	}
	at.n++
	if c.client != "" && len(at.from) <= maxCountedNodes && !slices.Contains(at.from, a.Source.Addr) {
		at.from = append(at.from, a.Source.Addr)
	}
	at.syns = at.syns && a.Proto == dissect.ProtoTCP && strings.HasPrefix(a.History, "S")
	if a.FirstFrame > 0 && len(at.frames) <= maxCountedFrames && k.kept < maxKeptFrames {
		at.frames = append(at.frames, a.FirstFrame)
		k.kept++
	}
}

// moving are intents on their way from node to node.
type moving struct {
	last map[uint64]dissect.Endpoint // by intent: the node of its last attempt
	to   map[dissect.Endpoint][]*count
}

func (m *moving) take(k *recount, a *dissect.Attempt) {
	from, ok := m.last[a.IntentID]
	if ok && from != a.Destination {
		for _, c := range m.to[a.Destination] {
			if *c.came == from {
				k.count(c, a)
			}
		}
	}
	if a.Outcome == dissect.OutcomeAccepted {
		delete(m.last, a.IntentID)
	} else if ok || len(m.last) < maxMoving {
		m.last[a.IntentID] = a.Destination
	}
}

func (c *counting) sort() {
	slices.SortStableFunc(c.list, func(a, b *count) int { return cmp.Compare(a.from, b.from) })
}

func put[K comparable](m map[K]*counting, k K, c *count) {
	if m[k] == nil {
		m[k] = &counting{}
	}
	m[k].list = append(m[k].list, c)
}

// bySYN says whether SYNs of a capture that are no repeats are its attempts: all
// packets were analysed, none was seen twice, and they stand in order.
func bySYN(c *pipeline.Capture) bool {
	l := &c.Ledger
	return l[dissect.BucketFiltered]+l[dissect.BucketDuplicate]+l[dissect.BucketCopy]+l[dissect.BucketCut]+l[dissect.BucketMalformed]+
		l[dissect.BucketFragment]+l[dissect.BucketUndecodable] == 0 && c.ClockSteps+c.OutOfOrder == 0
}

// filter is the display filter whose frames are the attempts of a capture, or as
// many of them as it can name, the first: with a number and of what. Empty where
// nothing tells them.
func (c *count) filter(capture *pipeline.Capture, at *counted) (n int64, unit, filter string) {
	if at.syns && len(c.nodes) <= maxCountedNodes && len(at.from) <= maxCountedNodes {
		var terms, from []string
		for _, a := range at.from {
			ip := "ipv6"
			if a.Is4() {
				ip = "ip"
			}
			from = append(from, fmt.Sprintf("%s.src == %v", ip, a))
		}
		source := ""
		if len(from) > 0 {
			source = "(" + strings.Join(from, " || ") + ") && "
		}
		for _, n := range c.nodes {
			ip := "ipv6"
			if n.Addr.Is4() {
				ip = "ip"
			}
			terms = append(terms, fmt.Sprintf("%s.dst == %v && tcp.dstport == %d", ip, n.Addr, n.Port))
		}
		return at.n, "attempts in the capture", fmt.Sprintf("%s(%s) && tcp.flags.syn == 1 && tcp.flags.ack == 0 && !tcp.analysis.retransmission && !tcp.analysis.out_of_order && frame.time_epoch >= %s && frame.time_epoch < %s",
			source, strings.Join(terms, " || "), epoch(capture.Clock.Shown(c.from)), epoch(capture.Clock.Shown(c.to)))
	}
	first := at.frames[:min(len(at.frames), maxCountedFrames)]
	if len(first) == 0 {
		return 0, "", ""
	}
	unit = "attempts in the capture"
	if int64(len(first)) < at.n {
		unit = "first attempts in the capture"
	}
	first = slices.Clone(first)
	slices.Sort(first)
	if m := slices.Compact(first); len(m) < len(first) { // one packet may hold several
		first, unit = m, "frames with them"
	}
	b := []byte("frame.number in {")
	for i, f := range first {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(b, f, 10)
	}
	return int64(len(first)), unit, string(append(b, '}'))
}

// shorten shortens filters that name many frames, for reading.
func shorten(list []Event) {
	for i := range list {
		e := &list[i]
		if !strings.HasPrefix(e.Filter, "frame.number in {") || e.Number <= briefFrames {
			continue
		}
		at := 0
		for range briefFrames {
			at += strings.IndexByte(e.Filter[at:], ',') + 1
		}
		e.Filter = fmt.Sprintf("%s and %d more: -T csv has them}", e.Filter[:at], e.Number-briefFrames)
	}
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
	var counts []*count
	type member struct {
		service string
		at      dissect.Endpoint
	}
	members, known := map[string][]dissect.Endpoint{}, map[member]bool{}
	ofService, ofNode, moved := map[string]*counting{}, map[dissect.Endpoint]*counting{}, map[string]*moving{}
	for i := range r.Nodes {
		members[r.Nodes[i].Service] = append(members[r.Nodes[i].Service], r.Nodes[i].At)
		known[member{r.Nodes[i].Service, r.Nodes[i].At}] = true
	}
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
		begins := add(Event{Time: f.Onset, What: name + " begins", Service: f.Service, File: f.FirstFile, Frame: f.FirstFrame})
		client, whose := "", ""
		if f.Class == storm.SingleOffender {
			client, whose = f.Offender, " of "+f.Offender
		}
		until := f.Onset + firstWhile
		if f.End != 0 {
			until = min(until, f.End+1)
		}
		c := &count{event: begins, words: "attempts" + whose + " in its first 10 s", from: f.Onset, to: until, service: f.Service, nodes: members[f.Service], client: client, by: map[uint32]*counted{}}
		counts = append(counts, c)
		put(ofService, f.Service, c)
		if f.End != 0 {
			what := name + " ends"
			if f.Recovered {
				what += ", clients are served again"
			}
			n := add(Event{Time: f.End, What: what, Service: f.Service})
			c := &count{event: n, words: "attempts" + whose + " meanwhile", from: f.Onset, to: f.End + 1, service: f.Service, nodes: members[f.Service], client: client, by: map[uint32]*counted{}}
			counts = append(counts, c)
			put(ofService, f.Service, c)
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
				at := add(Event{Time: p.End, What: fmt.Sprintf("%v is no longer %s", n.At, kind), Service: n.Service, File: p.EndFile, Frame: p.EndFrame})
				c := &count{event: at, words: "attempts meanwhile", from: p.Start, to: p.End, service: n.Service, nodes: []dissect.Endpoint{n.At}, by: map[uint32]*counted{}}
				counts = append(counts, c)
				put(ofNode, n.At, c)
				if p.EndFrame > 0 {
					continue
				}
				nodes[n.At] = append(nodes[n.At], &pin{event: at, at: p.End, fits: func(a *dissect.Attempt) bool { return a.Outcome == dissect.OutcomeAccepted }})
			}
		}
	}
	for i := range r.Migrations {
		if m := &r.Migrations[i]; m.Causal {
			at := add(Event{Time: m.First, What: fmt.Sprintf("clients go from %v to %v and overload it", m.From, m.To), Service: m.Service})
			c := &count{event: at, words: "attempts that follow one there", from: m.First, to: m.Last + 1, service: m.Service, nodes: []dissect.Endpoint{m.To}, came: &m.From, by: map[uint32]*counted{}}
			counts = append(counts, c)
			if moved[m.Service] == nil {
				moved[m.Service] = &moving{map[uint64]dissect.Endpoint{}, map[dissect.Endpoint][]*count{}}
			}
			moved[m.Service].to[m.To] = append(moved[m.Service].to[m.To], c)
			nodes[m.To] = append(nodes[m.To], &pin{event: at, at: m.First, fits: func(*dissect.Attempt) bool { return true }})
		}
	}
	for _, c := range ofService {
		c.sort()
	}
	for _, c := range ofNode {
		c.sort()
	}
	files := a.Captures()
	k := recount{files: files}
	if len(services)+len(nodes)+len(counts) > 0 {
		for t, err := range a.Attempts() {
			if err != nil {
				return nil, err
			}
			if c := ofService[t.Service]; c != nil && known[member{t.Service, t.Destination}] {
				k.take(c, t)
			}
			if m := moved[t.Service]; m != nil {
				m.take(&k, t)
			}
			if c := ofNode[t.Destination]; c != nil {
				k.take(c, t)
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
	for _, c := range counts {
		e := &list[c.event]
		if c.all == 0 {
			continue
		}
		e.What += fmt.Sprintf("; %d %s", c.all, c.words)
		if at := c.by[e.File]; at != nil && e.Frame > 0 && int(e.File) < len(files) {
			if n, unit, f := c.filter(&files[e.File], at); f != "" {
				e.Number, e.Unit, e.Filter = n, unit, f
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
