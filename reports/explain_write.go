package reports

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// needed is what a criterion asks for, with the sign of its direction.
func needed(c *storm.Criterion) string {
	if atMost(c) {
		return "≤ " + number(c.Threshold)
	}
	return "≥ " + number(c.Threshold)
}

func atMost(c *storm.Criterion) bool { return strings.HasSuffix(c.Note, "at most") }

// margin is how far the value is from what is needed.
func margin(c *storm.Criterion) string {
	v, t := c.Value, c.Threshold
	if c.Waived || v <= 0 || t <= 0 {
		return "-"
	}
	if v >= t {
		return short(v/t) + "x over"
	}
	return short(t/v) + "x under"
}

// metWord is how a criterion came out.
func metWord(c *storm.Criterion) string {
	switch {
	case c.Waived:
		return "waived"
	case c.Met:
		return "yes"
	}
	return "no"
}

// title is class, service and confidence of a finding.
func title(f *storm.Finding) string {
	name := strings.ToUpper(strings.ReplaceAll(f.Class.String(), "_", " "))
	if f.Cascade {
		name += " with cascade"
	}
	return name
}

// Write writes the explanation for reading, on a terminal or as a page.
func (e *Explanation) Write(w io.Writer, look Look) error {
	s := &screen{look: look}
	s.look.Width = max(s.look.Width, leastWidth)
	s.title(&e.Finding)
	s.say(2, e.Summary)
	if e.Against != "" {
		s.say(2, e.Against)
	}
	for _, r := range e.Finding.Reasons {
		s.say(2, "because "+r)
	}
	if len(e.Finding.Criteria) > 0 {
		s.head("Why")
		var rows [][]string
		for i := range e.Finding.Criteria {
			c := &e.Finding.Criteria[i]
			rows = append(rows, []string{c.Name, number(c.Value), needed(c), c.Unit, metWord(c), s.roomy(margin(c)), noteOf(c)})
		}
		s.grid([]string{"criterion", "value", "needed", "unit", "met", "margin", "note"}, rows, 1)
		s.say(2, e.sustained())
	}
	e.moment(s)
	for i := range e.Nodes {
		e.Nodes[i].screen(s)
	}
	s.head("What would change it")
	if len(e.Flips) > 0 {
		var rows [][]string
		for _, f := range e.Flips {
			rows = append(rows, []string{f.Name, number(f.Now), f.sign() + " " + digits(f.From), f.Unit, f.Then, s.roomy(f.Meaning)})
		}
		s.grid([]string{"threshold", "now", "from", "unit", "then it is", "meaning"}, rows, 1)
	}
	if t := e.steady(); t != "" {
		s.say(2, t)
	}
	if len(e.Hypotheses) > 0 {
		s.head("Explanations, by how much of what they ask for is there")
		for _, h := range e.Hypotheses {
			s.ranked(&h)
		}
	}
	e.opening(s)
	_, err := w.Write(s.out.Bytes())
	return err
}

// ranked writes a hypothesis with its evidence.
func (s *screen) ranked(h *storm.Hypothesis) {
	if s.look.Markdown {
		fmt.Fprintf(&s.out, "\n%d. **%s** (%.0f %%): %s\n", h.Rank, escapeMarkdown(h.Name), 100*h.Score, escapeMarkdown(printable(h.Sentence)))
	} else {
		s.hang(2, fmt.Sprintf("%d %s", h.Rank, bar(h.Score)), fmt.Sprintf("%s (%.0f %%). %s", h.Name, 100*h.Score, h.Sentence))
	}
	for _, t := range h.For {
		s.hang(10, s.paint(green, "+"), t)
	}
	for _, t := range h.Against {
		s.hang(10, s.paint(orange, "-"), t)
	}
	for _, t := range h.Unseen {
		s.hang(10, "?", "not seen: "+t)
	}
}

// bar is a score from 0 to 1 as five cells.
func bar(score float64) string {
	n := int(score*5 + 0.5)
	return strings.Repeat("█", n) + strings.Repeat("░", 5-n)
}

// roomy leaves a text out where the screen is narrow.
func (s *screen) roomy(text string) string {
	if s.look.Width < 100 && !s.look.Markdown {
		return ""
	}
	return text
}

// noteOf leaves out of a note what the sign in "needed" says.
func noteOf(c *storm.Criterion) string {
	return strings.TrimRight(strings.TrimSuffix(c.Note, "at most"), ", ")
}

// digits are those of a threshold that matter.
func digits(f float64) string {
	if math.Abs(f) >= 1000 {
		return thousands(int64(f))
	}
	return strconv.FormatFloat(f, 'g', 4, 64)
}

func (f *Flip) sign() string {
	if f.From > f.Now {
		return "≥"
	}
	return "≤"
}

// sustained says what one window alone does not.
func (e *Explanation) sustained() string {
	if e.Finding.Class != storm.RetryStorm {
		return "The numbers are those of its worst window."
	}
	row := 0.0
	for _, t := range e.thresholds.All() {
		if t.Name == "in_a_row" {
			row = t.Value
		}
	}
	return fmt.Sprintf("The numbers are those of its worst window; all of them must be met for %.0f s in a row.", row)
}

func (e *Explanation) steady() string {
	if len(e.Steady) == 0 {
		return ""
	}
	lead := "No value changes it for "
	if len(e.Flips) > 0 {
		lead = "No value of its range changes it for "
	}
	return lead + strings.Join(e.Steady, ", ") + " (ratios from 0 to 1, others up to a thousandfold both ways)."
}

func (e *Explanation) moment(s *screen) {
	if len(e.Moment) == 0 {
		return
	}
	s.head("The services at " + s.clock(e.Moment[0].Start) + ", for 10 s")
	var rows [][]string
	for i := range e.Moment {
		w := &e.Moment[i]
		rows = append(rows, []string{w.Service, thousands(w.Attempts), thousands(w.Intents), fixed(w.RetryShare()), fixed(w.FailureRatio()), fixed(w.LateRatio()),
			thousands(w.Clients), surgeOf(w.Surge), thousands(w.Attached)})
	}
	s.grid([]string{"service", "attempts", "intents", "retry share", "failed", "late", "clients", "surge", "attached"}, rows, 1)
}

func surgeOf(f float64) string {
	if f == 0 {
		return "-"
	}
	return short(f) + "x"
}

func (n *NodeStory) screen(s *screen) {
	s.head(fmt.Sprintf("%v, %s", n.At, n.Service))
	for _, t := range n.sentences(s.zone()) {
		s.say(2, t)
	}
	var rows [][]string
	add := func(list []storm.Migration, from bool) {
		for _, m := range list[:min(len(list), 5)] {
			way, other := "to", m.To
			if from {
				way, other = "from", m.From
			}
			causal := ""
			if m.Causal {
				causal = "yes"
			}
			rows = append(rows, []string{way, other.String(), thousands(m.Intents), s.clock(m.First), s.clock(m.Last), fixed(m.Share), causal})
		}
	}
	add(n.In, true)
	add(n.Out, false)
	if len(rows) > 0 {
		s.grid([]string{"intents moved", "node", "intents", "first", "last", "of its excess", "causal"}, rows, 2)
	}
}

// sentences tell a node's story.
func (n *NodeStory) sentences(z zone) (out []string) {
	out = append(out, fmt.Sprintf("%s attempts of %s clients from %s to %s: %.0f %% of the decided ones failed, %.0f %% of the answers were late; %s attempts/s at the peak.",
		thousands(n.Attempts), thousands(n.Clients), z.clock(n.First), z.clock(n.Last), 100*n.FailureRatio(), 100*n.LateRatio(), short(n.PeakRate)))
	for i, p := range n.Periods {
		if i == 6 {
			out = append(out, fmt.Sprintf("and %d more such periods: squall report node_periods", len(n.Periods)-i))
			break
		}
		end := "to the end of the capture"
		if p.End != 0 {
			end = "to " + z.clock(p.End) + " (" + lasted(p.End-p.Start) + ")"
		}
		t := fmt.Sprintf("%s from %s %s", strings.ReplaceAll(p.Kind.String(), "_", "-"), z.clock(p.Start), end)
		if p.Suspected != 0 && p.Suspected != p.Start {
			t += ", first sign at " + z.clock(p.Suspected)
		}
		out = append(out, t+".")
	}
	if n.Generation >= 0 {
		t := fmt.Sprintf("In the cascade it is of generation %d", n.Generation)
		if n.Excess > 0 {
			t += fmt.Sprintf("; its load was %s times what mere redistribution explains", short(n.Excess))
		}
		out = append(out, t+".")
	}
	out = append(out, fmt.Sprintf("The role cost it %s in and %s out.", bytesOf(n.BytesIn), bytesOf(n.BytesOut)))
	if n.AfterlifeAttempts > 0 {
		out = append(out, fmt.Sprintf("While it was down %s attempts, %s, kept coming.", thousands(n.AfterlifeAttempts), bytesOf(n.AfterlifeIn)))
	}
	return out
}

// opening lists the frames, and the commands that show them.
func (e *Explanation) opening(s *screen) {
	if len(e.Frames) > 0 {
		s.head("Frames to open first")
		one := !slices.ContainsFunc(e.Frames, func(f Frame) bool { return f.File != e.Frames[0].File })
		var rows [][]string
		for _, f := range e.Frames {
			file := f.File
			if one {
				file = ""
			}
			rows = append(rows, []string{s.zone().clockMS(f.Time), thousandless(f.Number), f.What, file})
		}
		s.grid([]string{"time", "frame", "what it shows", "file"}, rows, 1)
	}
	for _, f := range e.Filters {
		s.say(2, f.What+":")
		s.command(f.command())
	}
}

// command is the words of a shell line that shows a filter; the filter is the
// last of them.
func (f *Filter) command() []string {
	file := f.File
	if file == "" {
		file = "FILE"
	}
	return []string{"tshark", "-r", shellWord(file), "-Y", f.Filter}
}

// shellWord makes a file name one word of a shell.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("./_-+=:@,", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(printable(s), "'", `'\''`) + "'"
}

// JSON writes the explanation as one object.
func (e *Explanation) JSON(w io.Writer, r *Results) error {
	env := newEnv(r.Analysis.Captures())
	var o object
	o.put("schema", SummarySchema)
	o.raw("finding", rowOf(Findings(), env, &e.Finding, func(o *object, f *storm.Finding) {
		all := make([]Criterion, len(f.Criteria))
		for i, c := range f.Criteria {
			all[i] = Criterion{f, c}
		}
		o.raw("criteria", rowsOf(Criteria(), env, all, nil))
		o.put("summary", e.Summary)
	}))
	o.put("flips", append([]Flip{}, e.Flips...))
	o.put("steady", append([]string{}, e.Steady...))
	o.raw("hypotheses", hypotheses(e.Hypotheses))
	o.raw("timeline", rowsOf(Timeline(), env, e.Moment, nil))
	nodes := make([]storm.Node, len(e.Nodes))
	for i := range e.Nodes {
		nodes[i] = e.Nodes[i].Node
	}
	at := 0
	o.raw("nodes", rowsOf(Nodes(), env, nodes, func(o *object, n *storm.Node) {
		putPeriods(o, env, n)
		o.raw("migrations", rowsOf(Migrations(), env, slices.Concat(e.Nodes[at].In, e.Nodes[at].Out), nil))
		at++
	}))
	o.raw("frames", objects(e.Frames, func(o *object, f *Frame) {
		o.put("capture_file", f.File)
		o.put("frame", f.Number)
		o.put("time", stamp(f.Time))
		o.put("what", f.What)
		o.put("source_ip", ipOf(f.source))
		o.put("source_port", f.source.Port)
		o.put("destination_ip", ipOf(f.node))
		o.put("destination_port", f.node.Port)
	}))
	filters, err := json.Marshal(append([]Filter{}, e.Filters...))
	if err != nil {
		return err
	}
	o.raw("filters", filters)
	_, err = w.Write(append(o.end(), '\n'))
	return err
}

func ipOf(e dissect.Endpoint) any {
	if e == (dissect.Endpoint{}) {
		return nil
	}
	return e.Addr.String()
}
