package reports

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
	"squall/dissect/storm"
)

// MaxHTML is what WriteHTML stays below, bytes, whatever the capture: the time
// lines are drawn coarser, the tables cut, and the page says where.
const MaxHTML = 2 << 20

// budget is what the parts of the page may take of MaxHTML. A bin of the charts
// costs some 100 bytes at worst: eight outcomes and five more numbers.
type budget struct {
	bins       int // of all charts together
	services   int // with charts of their own
	rows       int // of a table; a quarter as many notes
	tableBytes int
	lanes      int // nodes
	spells     int // periods of a lane
	flows      int
	cards      int // policies, versions of a service, hypotheses
}

var fullBudget = budget{bins: 6000, services: 5, rows: 400, tableBytes: 100_000, lanes: 40, spells: 20, flows: 24, cards: 12}

func (b budget) halved() budget {
	return budget{max(b.bins/2, 100), max(b.services/2, 1), b.rows / 2, b.tableBytes / 2, b.lanes / 2, b.spells / 2, b.flows / 2, b.cards / 2}
}

const (
	maxNotes    = 60
	maxEvidence = 12 // for or against a hypothesis
	maxCell     = 300
	maxSentence = 1500
	maxCommand  = 1500
)

//go:embed assets
var assets embed.FS

// HTMLOptions are what the page cannot know from the results.
type HTMLOptions struct {
	// Source are the words after the table's name in the commands that the page
	// gives: flags and captures, or the directory of a kept analysis. Without
	// it the paths of the captures are used.
	Source []string
	// Version of the program, empty where it should not be named.
	Version string
	Zone    *time.Location // of times; nil = UTC
}

// page is what the template shows.
type page struct {
	zone   zone
	budget budget
	axis   axis

	Policy        string // the content security policy
	Style, Script template.HTML
	Title, Inputs string
	Version       string

	Zone                              string // of all times
	Class, Service, Confidence, Grave string
	When                              string
	Sentence                          string
	Against                           string // a calm day
	Tiles                             []tile
	Facts                             []fact
	Criteria                          []criterion
	Findings                          []string

	Column     string // what a column of the charts is
	Services   []serviceView
	Cut        []string // what was left out of the charts
	Lanes      []laneGroup
	LaneText   string
	Flow       *flow
	Policies   []policyCard
	PolicyText string
	OddsText   string
	Odds       []oddsChart
	Data       *chartData
	Still      *still
	Told       []noteView // of --events
	ToldCut    string

	Hypotheses []hypothesis
	Tables     []htmlTable
	Quality    []fact
	Ledger     []fact
	Blind      []string
	Notes      []string
	Commands   []command
	Method     []term
}

type tile struct{ Name, Value, About string }

type fact struct{ Name, Value string }

type criterion struct{ Name, Value, Threshold, Unit, Met, Note string }

type hypothesis struct {
	Name, Score, Sentence string
	Bar                   template.HTML
	For, Against, Unseen  []string
}

type command struct{ About, Line string }

// WriteHTML writes the analysis as one HTML file that asks nobody for anything:
// styles, script and data are inside, and its content security policy forbids
// the rest. The same results give the same bytes. Sentence, numbers, lanes,
// flows and tables can be read without the script; the lines over time, zoom,
// sorting and filters need it.
func WriteHTML(w io.Writer, r *Results, opt HTMLOptions) error {
	r = r.ForReading()
	report, err := r.Report()
	if err != nil {
		return err
	}
	rows, err := newFirstRows(r, report, fullBudget.rows/2)
	if err != nil {
		return err
	}
	for b := fullBudget; ; b = b.halved() {
		p, err := newPage(r, report, rows, opt, b)
		if err != nil {
			return err
		}
		out, err := render("report.html", p)
		if err != nil {
			return err
		}
		if out.Len() <= MaxHTML || b.rows == 0 {
			_, err = w.Write(out.Bytes())
			return err
		}
	}
}

func newPage(r *Results, report *storm.Report, rows *firstRows, opt HTMLOptions, b budget) (*page, error) {
	p := &page{budget: b, zone: zone{opt.Zone}, Zone: zone{opt.Zone}.name(), Version: opt.Version, Method: method()}
	p.Title = "squall: " + words(report.Verdict.Class.String())
	if report.Verdict.Service != "" {
		p.Title += " on " + clip(report.Verdict.Service, maxCell)
	}
	all := r.Analysis.Captures()
	p.Inputs = fmt.Sprintf("%s captures", thousands(int64(len(all))))
	if len(all) == 1 {
		if p.Inputs = clip(all[0].Path, maxCell); p.Inputs == "-" {
			p.Inputs = "a capture from standard input"
		}
	}
	p.verdict(report)
	_, locked, err := impactOf(r)
	if err != nil {
		return nil, err
	}
	p.charts(report, r.Analysis.Quality().Gaps, locked, r.Told)
	p.lanes(report)
	p.Flow = newFlow(report, b.flows, p.zone)
	p.policies(report)
	p.odds(report)
	for _, h := range report.Hypotheses[:min(len(report.Hypotheses), b.cards)] {
		p.Hypotheses = append(p.Hypotheses, hypothesis{words(h.Name), fmt.Sprintf("%d %%", int(h.Score*100+0.5)), clip(h.Sentence, maxCell),
			scoreBar(h.Score), clipAll(h.For, maxEvidence), clipAll(h.Against, maxEvidence), clipAll(h.Unseen, maxEvidence)})
	}
	source := shellSource(r, opt)
	if err := p.tables(r, report, rows, source); err != nil {
		return nil, err
	}
	p.blind(r, report)
	p.commands(r, report, source)
	p.Style, p.Script, p.Policy, err = dress()
	return p, err
}

// render fills a template of the assets.
func render(name string, data any) (*bytes.Buffer, error) {
	t, err := template.New(name).ParseFS(assets, "assets/"+name)
	if err != nil {
		return nil, err
	}
	out := &bytes.Buffer{}
	return out, t.Execute(out, data)
}

// dress gives the embedded style and script, and the policy that admits just
// these two by their digests.
func dress() (style, script template.HTML, policy string, err error) {
	licence, err := assets.ReadFile("assets/uplot/LICENSE")
	if err != nil {
		return "", "", "", err
	}
	element := func(tag string, names ...string) (template.HTML, string, error) {
		all := fmt.Appendf(nil, "/*! uPlot, https://github.com/leeoniya/uPlot\n%s*/\n", licence)
		for _, name := range names {
			b, err := assets.ReadFile("assets/" + name)
			if err != nil {
				return "", "", err
			}
			all = append(all, b...)
		}
		sum := sha256.Sum256(all)
		return template.HTML("<" + tag + ">" + string(all) + "</" + tag + ">"), "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", nil
	}
	style, styleSum, err := element("style", "uplot/uPlot.min.css", "report.css")
	if err != nil {
		return "", "", "", err
	}
	script, scriptSum, err := element("script", "uplot/uPlot.iife.min.js", "report.js")
	if err != nil {
		return "", "", "", err
	}
	policy = "default-src 'none'; img-src data:; style-src " + styleSum + "; script-src " + scriptSum + "; base-uri 'none'; form-action 'none'"
	return style, script, policy, nil
}

// verdict fills the head of the page: the sentence and the three numbers.
func (p *page) verdict(report *storm.Report) {
	v := &report.Verdict
	p.Class = words(v.Class.String())
	if v.Cascade {
		p.Class += " with cascade"
	}
	p.Service, p.Confidence = clip(v.Service, maxCell), v.Confidence.String()
	switch {
	case v.Class >= storm.PathLoss:
		p.Grave = "grave"
	case v.Class > storm.Calm:
		p.Grave = "odd"
	default:
		p.Grave = "calm"
	}
	p.Sentence = clip(report.Summary, maxSentence)
	p.Against = clip(againstWords(report), maxSentence)
	c, where := &report.Totals.Counts, "in the whole capture"
	surge := report.Totals.IntentSurge
	if v.Class != storm.Calm && v.Attempts > 0 {
		c, where, surge = &v.Counts, "inside the finding", v.Surge
	}
	if v.Class != storm.Calm {
		p.When = p.zone.span2(v.Onset, v.End)
	} else {
		p.When = p.zone.span2(report.Begin, report.End)
	}
	shown := func(f float64, known bool, unit string) string {
		if !known {
			return "–"
		}
		return short(f) + unit
	}
	share := "–"
	if c.Attempts > 0 {
		share = fmt.Sprintf("%.0f %%", 100*c.RetryShare())
	}
	surgeAbout := "most intents in 10 s, against calm times, " + where
	if surge == 0 {
		surgeAbout = "no calm time to compare with"
	}
	p.Tiles = []tile{
		{"A, amplification", shown(c.Amplification(), c.Intents > 0, ""), fmt.Sprintf("%s attempts for %s intents, %s", thousands(c.Attempts), thousands(c.Intents), where)},
		{"retry share", share, fmt.Sprintf("%s retries and failovers, %s", thousands(c.Retries), where)},
		{"surge", shown(surge, surge > 0, "×"), surgeAbout},
	}
	t := &report.Totals
	add := func(name, value string) { p.Facts = append(p.Facts, fact{name, value}) }
	add("attempts", thousands(t.Attempts))
	add("intents", thousands(t.Intents))
	add("clients", thousands(t.Clients))
	add("nodes", thousands(t.Nodes))
	if t.Outcomes.Decided() > 0 {
		add("failed", fmt.Sprintf("%.1f %%", 100*t.FailureRatio()))
	}
	if t.Answers > 0 {
		add("answers that were late", fmt.Sprintf("%.1f %%", 100*t.LateRatio()))
	}
	if v.Class != storm.Calm {
		add("clients that failed", thousands(v.Clients))
		add("of them never in", thousands(v.NeverIn))
		if v.Clients > 0 && v.LockedOut > 0 {
			add("locked out, mean", brief(v.LockedOut/v.Clients))
		}
		if v.AttachP50 > 0 {
			add("time to attach, median", brief(v.AttachP50))
			add("time to attach, p99", brief(v.AttachP99))
		}
		if v.PeakRate > 0 {
			add("peak, attempts/s", short(v.PeakRate))
		}
	}
	for _, k := range v.Criteria {
		met := "no"
		switch {
		case k.Waived:
			met = "waived"
		case k.Met:
			met = "yes"
		}
		p.Criteria = append(p.Criteria, criterion{clip(words(k.Name), maxCell), number(k.Value), number(k.Threshold), k.Unit, met, clip(k.Note, maxCell)})
	}
	if len(report.Findings) < 2 {
		return // it is the verdict
	}
	for i := range report.Findings {
		if i == listed {
			p.Findings = append(p.Findings, fmt.Sprintf("and %s more, in the table of findings", thousands(int64(len(report.Findings)-i))))
			break
		}
		f := &report.Findings[i]
		p.Findings = append(p.Findings, clip(fmt.Sprintf("%s: %s, %s. %s", p.zone.span2(f.Onset, f.End), words(f.Class.String()), f.Service, f.Sentence), maxSentence))
	}
}

// blind says how good the capture is and what could not be seen in it.
func (p *page) blind(r *Results, report *storm.Report) {
	q := r.Analysis.Quality()
	add := func(name, value string) { p.Quality = append(p.Quality, fact{name, value}) }
	var octets int64
	for _, c := range r.Analysis.Captures() {
		octets += c.Bytes
	}
	add("packets", thousands(q.Packets))
	add("on the wire", bytesOf(octets))
	if q.End != 0 || q.Begin != 0 {
		add("from", p.zone.moment(q.Begin))
		add("to", p.zone.moment(q.End))
		add("lasts", brief(q.End-q.Begin))
	}
	add("lost by the tap, as it says", thousands(q.Dropped))
	add("duplicates", thousands(q.Duplicates))
	add("out of order", thousands(q.OutOfOrder))
	add("clock steps", thousands(q.ClockSteps))
	add("cut too short", thousands(q.Cut))
	add("silences over 5 s", thousands(int64(len(q.Gaps))))
	ledger := r.Analysis.Ledger()
	for b := range dissect.NumBuckets {
		p.Ledger = append(p.Ledger, fact{b.String(), thousands(ledger[b])})
	}
	p.Ledger = append(p.Ledger, fact{"all packets read", thousands(ledger.Total())})

	say := func(n int64, text string) {
		if n > 0 {
			p.Blind = append(p.Blind, fmt.Sprintf(text, thousands(n)))
		}
	}
	t := &report.Totals
	say(t.Outcomes[dissect.OutcomeUnknown], "Attempts with an outcome that the capture cannot tell (one side only, the edge of the capture, a cut packet): %s.")
	say(t.Censored, "Intents that may have begun before the capture, or were open at its end, whose attempts are a lower bound: %s.")
	say(t.NATSuspects, "Addresses that seem to stand for several hosts, whose relations and A are not to be trusted: %s.")
	if m := monitorsInWords(report); m != "" {
		p.Blind = append(p.Blind, "Health checks are no demand: "+m+".")
	}
	say(t.AgeAccepts, "%s accepts are proven by age alone, not by the application's words.")
	say(q.Dropped, "%s packets were lost by the tap itself.")
	say(q.Cut, "%s packets were cut too short to be read.")
	say(q.StrayTimes, "%s packets had a time far from those around them and were given that of the next.")
	say(q.ClockSteps, "%s packets step back in time; orders and gaps around them are uncertain.")
	if q.Damaged {
		p.Blind = append(p.Blind, "An input was damaged: what follows the damage is missing.")
	}
	if n := len(q.Gaps); n > 0 {
		var longest storm.Span
		for _, g := range q.Gaps {
			if g.End-g.Start > longest.End-longest.Start {
				longest = g
			}
		}
		p.Blind = append(p.Blind, fmt.Sprintf("No packet at all came during %s stretches of more than 5 s, the longest of %s from %s; the charts show them grey.", thousands(int64(n)), brief(longest.End-longest.Start), p.zone.moment(longest.Start)))
	}
	for _, reason := range clipAll(report.Verdict.Reasons, maxEvidence) {
		p.Blind = append(p.Blind, "What lowers the confidence: "+reason+".")
	}
	if len(p.Blind) == 0 {
		p.Blind = []string{"Nothing that the analysis knows of. What a tap never saw, no analysis can count."}
	}
	notes := report.Notes
	if len(notes) > maxNotes {
		notes = append(notes[:maxNotes:maxNotes], fmt.Sprintf("and %s more", thousands(int64(len(notes)-maxNotes))))
	}
	p.Notes = clipAll(notes, maxNotes+1)
}

// shellSource are the words of a shell that name the inputs again.
func shellSource(r *Results, opt HTMLOptions) string {
	source := opt.Source
	if len(source) == 0 {
		for _, c := range r.Analysis.Captures() {
			source = append(source, c.Path)
		}
	}
	var quoted []string
	for _, w := range source {
		quoted = append(quoted, quote(w))
	}
	if s := strings.Join(quoted, " "); len(s) <= maxCommand {
		return s
	}
	return "CAPTURES..."
}

// commands are the lines that give the page again and that open the packets
// behind it.
func (p *page) commands(r *Results, report *storm.Report, source string) {
	add := func(about, line string) { p.Commands = append(p.Commands, command{about, line}) }
	add("this page", "squall analyze "+source+" -T html -w report.html")
	add("the whole result as JSON", "squall analyze "+source+" -T json")
	add("how good the capture is", "squall info "+source)
	captures := r.Analysis.Captures()
	frame := func(about string, file uint32, number int64) {
		if number > 0 && int(file) < len(captures) {
			add(about, fmt.Sprintf("tshark -r %s -Y 'frame.number == %d' -V", quote(captures[file].Path), number))
		}
	}
	v := &report.Verdict
	add("why this verdict", "squall explain "+source)
	for i := range report.Findings {
		if f := &report.Findings[i]; v.FirstFrame > 0 && f.Class == v.Class && f.Service == v.Service && f.Onset == v.Onset {
			add("the packets of the finding", fmt.Sprintf("squall extract %s --finding %d -w finding.pcapng", source, i+1))
			add("the packets of the attempt at the onset", fmt.Sprintf("squall extract %s --attempt %s -w attempt.pcapng", source, id(v.FirstAttempt)))
			break
		}
	}
	frame("the frame at the onset", v.FirstFile, v.FirstFrame)
	shown := 0
	for i := range report.Nodes {
		n := &report.Nodes[i]
		if len(n.Periods) == 0 || shown == 6 || n.Periods[0].Frame == 0 {
			continue
		}
		shown++
		q := &n.Periods[0]
		frame(fmt.Sprintf("%s is %s from %s", n.At, words(q.Kind.String()), p.zone.clock(q.Start)), q.File, q.Frame)
	}
}

// quote makes a text one word of a POSIX shell; what is not printable is shown
// as an escape.
func quote(s string) string {
	s = printable(s)
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@%+,", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// words makes a name of the tables a phrase.
func words(s string) string { return strings.ReplaceAll(s, "_", " ") }

// clip makes a text from packets fit to be shown: printable, valid and not
// longer than limit characters.
func clip(s string, limit int) string {
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	s = printable(strings.ToValidUTF8(s, "\uFFFD"))
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit-1]) + "…"
	}
	return s
}

// clipAll clips texts and says how many were left out.
func clipAll(all []string, limit int) (out []string) {
	for i, s := range all {
		if i == limit {
			return append(out, fmt.Sprintf("and %s more", thousands(int64(len(all)-i))))
		}
		out = append(out, clip(s, maxCell))
	}
	return out
}

// brief prints a duration with three digits that matter.
func brief(ns int64) string {
	f := func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
	switch d := time.Duration(ns); {
	case ns < 0:
		return "-" + brief(-ns)
	case d < 999500*time.Nanosecond:
		return f(float64(ns)/1e3) + " µs"
	case d < 999500*time.Microsecond:
		return f(float64(ns)/1e6) + " ms"
	case d < 100*time.Second:
		return f(float64(ns)/1e9) + " s"
	case d < 2*time.Hour:
		m, s := (d+time.Second/2)/time.Minute, (d+time.Second/2)%time.Minute/time.Second
		if s == 0 {
			return fmt.Sprintf("%d min", m)
		}
		return fmt.Sprintf("%d min %d s", m, s)
	case d < 48*time.Hour:
		return f(d.Hours()) + " h"
	}
	return thousands(int64(time.Duration(ns).Hours()/24+0.5)) + " d"
}

// span2 prints from when to when.
func (z zone) span2(from, to int64) string {
	switch {
	case from == 0:
		return ""
	case to == 0:
		return z.moment(from) + " until the end of the capture"
	}
	end := z.moment(to)
	if end[:10] == z.moment(from)[:10] {
		end = end[11:]
	}
	return z.moment(from) + " to " + end + " " + z.name() + " (" + brief(to-from) + ")"
}
