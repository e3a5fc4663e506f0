package reports

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/replay"
	"squall/samples"
)

// analysed runs a sample; without a name, an empty capture.
func analysed(t *testing.T, name string) *Results {
	t.Helper()
	src, w := io.Pipe()
	go func() {
		var err error
		if name == "" {
			var none *capture.Writer
			if none, err = capture.NewWriter(w, capture.WriterOptions{}); err == nil {
				err = none.Close()
			}
		} else {
			_, err = samples.Write(w, name, 1, capture.WriterOptions{})
		}
		w.CloseWithError(err)
	}()
	in, err := capture.Open([]string{"-"}, capture.Options{Stdin: src})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	a, err := pipeline.Run(context.Background(), pipeline.Config{Protocols: overlay.All()}, in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return NewResults(a, storm.Config{})
}

func written(t *testing.T, r *Results) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteHTML(&out, r, HTMLOptions{Source: []string{"a capture.pcap"}}); err != nil {
		t.Fatal(err)
	}
	if out.Len() > MaxHTML {
		t.Errorf("the page has %d bytes", out.Len())
	}
	return out.Bytes()
}

// element is what the tests ask of a parsed page.
type element struct {
	tag, text string
	attr      map[string]string
}

// pageParts walks the page and holds every end tag to its start tag.
func pageParts(t *testing.T, page []byte) (all []element) {
	t.Helper()
	void := []string{"meta", "input", "br", "img", "link"}
	implied := []string{"td", "th", "tr", "li", "dt", "dd", "thead", "tbody"}
	var open []int
	z := html.NewTokenizer(bytes.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() != io.EOF {
				t.Fatal(z.Err())
			}
			for _, i := range open {
				t.Errorf("<%s> is never closed", all[i].tag)
			}
			return all
		case html.TextToken:
			if len(open) > 0 {
				all[open[len(open)-1]].text += string(z.Text())
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			raw := string(z.Raw())
			k := z.Token()
			e := element{tag: k.Data, attr: map[string]string{}}
			for _, a := range k.Attr {
				if _, twice := e.attr[a.Key]; twice {
					t.Errorf("%s: %s stands twice", raw, a.Key)
				}
				e.attr[a.Key] = a.Val
			}
			all = append(all, e)
			if !slices.Contains(void, k.Data) && !strings.HasSuffix(raw, "/>") {
				open = append(open, len(all)-1)
			}
		case html.EndTagToken:
			k := z.Token()
			for len(open) > 0 && all[open[len(open)-1]].tag != k.Data && slices.Contains(implied, all[open[len(open)-1]].tag) {
				open = open[:len(open)-1]
			}
			if len(open) == 0 || all[open[len(open)-1]].tag != k.Data {
				t.Fatalf("</%s> closes nothing", k.Data)
			}
			open = open[:len(open)-1]
		}
	}
}

// harmless holds a page to what its reader is promised: nothing is fetched,
// only the two parts that its policy names are run.
func harmless(t *testing.T, page []byte) []element {
	t.Helper()
	parts := pageParts(t, page)
	policy, ids := "", map[string]bool{}
	var run []string
	for _, e := range parts {
		if e.tag == "meta" && e.attr["http-equiv"] == "Content-Security-Policy" {
			policy = e.attr["content"]
		}
		if id := e.attr["id"]; id != "" {
			if ids[id] {
				t.Errorf("two elements are #%s", id)
			}
			ids[id] = true
		}
	}
	for _, e := range parts {
		if slices.Contains([]string{"img", "link", "iframe", "object", "embed", "base", "form", "image", "use"}, e.tag) {
			t.Errorf("<%s> in the page", e.tag)
		}
		for k, v := range e.attr {
			switch {
			case strings.HasPrefix(k, "on"), k == "style", k == "src", k == "srcset":
				t.Errorf("<%s %s=%q>", e.tag, k, v)
			case k == "href" && (!strings.HasPrefix(v, "#") || !ids[v[1:]]):
				t.Errorf("<%s href=%q> leads nowhere", e.tag, v)
			}
		}
		if e.tag == "style" || e.tag == "script" && e.attr["type"] == "" {
			sum := sha256.Sum256([]byte(e.text))
			if !strings.Contains(policy, e.tag+"-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
				t.Errorf("the policy %q does not admit the %s", policy, e.tag)
			}
			run = append(run, e.tag)
			if m := regexp.MustCompile(`@import|url\(|fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|\beval\(`).FindString(e.text); m != "" {
				t.Errorf("the %s holds %s", e.tag, m)
			}
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("policy %q", policy)
	}
	if !slices.Equal(run, []string{"style", "script"}) {
		t.Errorf("the page runs %v", run)
	}
	for _, m := range regexp.MustCompile(`https?://[^\s"'<)]*`).FindAllString(string(page), -1) {
		if m != "https://github.com/leeoniya/uPlot" {
			t.Errorf("%s in the page", m)
		}
	}
	return parts
}

func TestHTMLReport(t *testing.T) {
	names := []string{"", "outage", "skype-2010"}
	if testing.Short() {
		names = names[:2]
	}
	for _, name := range names {
		r := analysed(t, name)
		page := written(t, r)
		if name != "skype-2010" && !bytes.Equal(page, written(t, analysed(t, name))) {
			t.Errorf("%q: a second run gives another page", name)
		}
		parts := harmless(t, page)
		report, err := r.Report()
		if n := bytes.Count(page, []byte(`<svg class="still"`)); len(report.Timeline) > 0 && n < 3 || len(report.Timeline) == 0 && n > 0 {
			t.Errorf("%q: %d pictures of time lines for readers without a script", name, n)
		}
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{"verdict": true, "time": len(report.Timeline) > 0, "nodes": len(report.Nodes) > 0, "moves": len(report.Migrations) > 0,
			"policies": len(report.Policies) > 0, "versions": len(report.Versions) > 0, "why": len(report.Hypotheses) > 0,
			"tables": true, "quality": true, "commands": true, "method": true}
		for _, table := range Names() {
			want["table-"+table] = true
		}
		have, tables, text := map[string]bool{}, 0, ""
		for _, e := range parts {
			have[e.attr["id"]] = true
			if e.tag == "tbody" {
				tables++
			}
			if e.tag == "code" || e.tag == "h1" {
				text += e.text + "\n"
			}
			if e.attr["id"] == "data" {
				chartsAddUp(t, report, e.text)
			}
		}
		for id, yes := range want {
			if have[id] != yes {
				t.Errorf("%q: #%s: %v, want %v", name, id, have[id], yes)
			}
		}
		if !strings.Contains(text, report.Summary) {
			t.Errorf("%q: the page does not say %q", name, report.Summary)
		}
		for _, table := range Names() {
			if line := "squall report " + table + " 'a capture.pcap' -T csv\n"; !strings.Contains(text, line) {
				t.Errorf("%q: no line %q", name, line)
			}
		}
	}
}

// chartsAddUp: what the charts draw is what was counted.
func chartsAddUp(t *testing.T, report *storm.Report, text string) {
	t.Helper()
	var d chartData
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	s := d.Services[len(d.Services)-1] // the sum, or the only one
	sum := func(values []int64) (n int64) {
		for _, v := range values {
			n += v
		}
		return n
	}
	var outcomes int64
	for k, o := range s.Outcomes {
		if n := sum(o); n != report.Totals.Outcomes[stacked[k]] {
			t.Errorf("%s: drawn %d, counted %d", d.Outcomes[k], n, report.Totals.Outcomes[stacked[k]])
		}
		outcomes += sum(o)
	}
	if outcomes != report.Totals.Attempts || sum(s.Attempts) != outcomes || sum(s.Intents) != report.Totals.Intents || len(s.Attempts) != d.Bins {
		t.Errorf("drawn %d outcomes, %d attempts, %d intents; counted %d attempts, %d intents", outcomes, sum(s.Attempts), sum(s.Intents), report.Totals.Attempts, report.Totals.Intents)
	}
}

// TestHTMLNotes: what people noted stands on the time axis, in a list that the
// keyboard reaches, and in the pictures that need no script; what lies outside is
// listed alone. No text becomes markup, and too many are said.
func TestHTMLNotes(t *testing.T) {
	r := analysed(t, "outage")
	report, err := r.Report()
	if err != nil {
		t.Fatal(err)
	}
	onset := report.Verdict.Onset
	r.Told = []Event{{Time: onset + 3e9, What: "pager <b>rings</b>"}, {Time: onset - 4e9, What: "deploy of 2.1"}, {Time: report.Begin - 3600e9, What: "the day before"}}
	page := written(t, r)
	plain := written(t, analysed(t, "outage"))
	buttons, marks, lanes, outside := []string{}, []string{}, 0, 0
	var d chartData
	for _, e := range harmless(t, page) {
		switch {
		case e.tag == "button" && e.attr["data-at"] != "":
			buttons = append(buttons, e.attr["data-at"])
		case e.tag == "g" && e.attr["data-at"] != "":
			marks = append(marks, e.attr["data-at"])
		case e.tag == "path" && e.attr["class"] == "noted":
			if lanes++; strings.Count(e.attr["d"], "M") != 2 {
				t.Errorf("lines %q, want two", e.attr["d"])
			}
		case e.tag == "small" && strings.Contains(e.text, "before the charts begin"):
			outside++
		case e.attr["id"] == "data":
			if err := json.Unmarshal([]byte(e.text), &d); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := func(ns int64) string { return trim(float64(ns)/1e9 - d.Begin) }
	if want := []string{at(onset - 4e9), at(onset + 3e9)}; !slices.Equal(buttons, want) || !slices.Equal(marks, want) || outside != 1 {
		t.Errorf("buttons at %v, marks at %v, want %v; %d outside", buttons, marks, want, outside)
	}
	if want := bytes.Count(page, []byte(`class="still"`)) + bytes.Count(page, []byte(`class="lane"`)); lanes != want {
		t.Errorf("%d pictures and lanes have the lines, want %d", lanes, want)
	}
	if !bytes.Contains(page, []byte("pager &lt;b&gt;rings")) || bytes.Contains(plain, []byte(`id="marks"`)) || bytes.Contains(plain, []byte(`"noted"`)) {
		t.Error("notes are missing, or stand where there are none")
	}
	// Too many: the nearest to the onset stay.
	r.Told = nil
	for i := range 5000 {
		r.Told = append(r.Told, Event{Time: onset + int64(i)*1e6, What: fmt.Sprint("note ", i)})
	}
	page = written(t, r)
	if n := bytes.Count(page, []byte("<button type=\"button\" data-at=")); n != fullBudget.rows/4 || !bytes.Contains(page, []byte(thousands(5000-int64(n))+" more are in the table events")) || !bytes.Contains(page, []byte("<span>note 0</span>")) {
		t.Errorf("%d of 5000 notes", n)
	}
}

// TestHTMLLockedOut: the area of the line is the client time of the table impact,
// whatever the columns.
func TestHTMLLockedOut(t *testing.T) {
	r := analysed(t, "outage")
	report, err := r.Report()
	if err != nil {
		t.Fatal(err)
	}
	rows, locked, err := impactOf(r)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, i := range rows {
		for _, limit := range []int{7, 40, 6000} {
			a := newAxis(report.Begin, report.End, limit)
			lost, most := 0.0, 0.0
			for _, v := range locked[i.Service].mean(&a) {
				lost, most = lost+v*float64(a.step), max(most, v)
			}
			if checked++; math.Abs(lost-float64(i.Locked)) > 1e6 || most > float64(i.Hit) {
				t.Errorf("%s in %d columns: %.3f client-s, %.1f at most; the table says %.3f of %d", i.Service, a.n, lost/1e9, most, float64(i.Locked)/1e9, i.Hit)
			}
		}
	}
	if checked == 0 || rows[0].Locked == 0 {
		t.Error("nobody was locked out")
	}
	// Two clients by hand: 5 s to 25 s, 12 s to 15 s.
	l, a := lockouts{}, newAxis(0, 29e9, 10)
	l.add(5e9, 25e9)
	l.add(12e9, 15e9)
	if got := l.mean(&a); !slices.Equal(got, []float64{0.5, 1.3, 0.5}) {
		t.Errorf("%v", got)
	}
}

// TestHTMLOfHostileNames: what stands in packets cannot become markup.
func TestHTMLOfHostileNames(t *testing.T) {
	r := analysed(t, "outage")
	report, err := r.Report()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"</script><script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "' onclick='x", "<!--", "]]>", "{{.Policy}}",
		"\x00\xff\u202e\u2028'\"`${x}", strings.Repeat("<b>", 10_000)} {
		h := *report
		h.Summary = name
		h.Verdict.Service, h.Verdict.Sentence, h.Verdict.Reasons = name, name, []string{name}
		h.Findings = []storm.Finding{h.Verdict, h.Verdict}
		h.Nodes = slices.Clone(report.Nodes)
		h.Timeline = slices.Clone(report.Timeline)
		for i := range h.Nodes {
			h.Nodes[i].Service, h.Nodes[i].Protocol = name, name
		}
		for i := range h.Timeline {
			h.Timeline[i].Service = name
		}
		h.Versions = []storm.Version{{Version: name, Service: name, EarlyOdds: 2, EarlyLow: 1, EarlyHigh: 4, AssociatedWith: "crash"}}
		h.Policies = []storm.Policy{{Group: name, Service: name, Family: name, Jitter: name, Order: name, Smells: []string{name}, Waits: []storm.Waits{{Step: 1, Fitted: 1e9, Gaps: []storm.Bin{{From: 9e8, To: 11e8, N: 3}}}}}}
		h.Hypotheses = []storm.Hypothesis{{Name: name, Sentence: name, For: []string{name}, Against: []string{name}}}
		h.Clients = []storm.Client{{Client: dissect.Client{ID: name, Version: name}, Service: name}}
		h.Notes = []string{name}
		var out bytes.Buffer
		if err := WriteHTML(&out, &Results{Analysis: r.Analysis, judge: func() (*storm.Report, error) { return &h, nil }}, HTMLOptions{Source: []string{name}, Version: name}); err != nil {
			t.Fatal(err)
		}
		scripts := 0
		for _, e := range harmless(t, out.Bytes()) {
			if e.tag == "script" {
				scripts++
			}
		}
		if scripts != 2 {
			t.Errorf("%.40q: %d scripts", name, scripts)
		}
	}
}

// TestHTMLStaysSmall: a year of a huge network is one small file still.
func TestHTMLStaysSmall(t *testing.T) {
	// A million windows long, something happens in every 64th.
	windows, nodes := 1_000_000, 10_000
	if testing.Short() {
		windows, nodes = 100_000, 2_000
	}
	at := func(i int) dissect.Endpoint {
		return dissect.Endpoint{Addr: dissect.Addr{0x20, 1, 0xd, 0xb8, 0xff, 0xfe, 0xff, byte(i >> 16), 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, byte(i >> 8), byte(i)}, Port: 65535}
	}
	const begin = int64(1.3e18)
	long := func(i int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("<&'\">", 100)) }
	h := &storm.Report{Begin: begin, End: begin + int64(windows)*storm.WindowLength, Summary: long(0)}
	counts := storm.Counts{Attempts: 123_456_789, Intents: 98_765_432, Retries: 24_691_357, Late: 12_345_678, Answers: 99_999_999}
	for o := range counts.Outcomes {
		counts.Outcomes[o] = 15_432_098 + int64(o)
	}
	h.Verdict = storm.Finding{Class: storm.RetryStorm, Service: long(1), Onset: begin + 1e12, Counts: counts, Sentence: long(2)}
	for i := range 2000 {
		f := h.Verdict
		f.Onset, f.End = begin+int64(i)*1e12, begin+int64(i)*1e12+5e11
		f.Criteria = []storm.Criterion{{Name: "volume", Note: long(i)}, {Name: "failure", Note: long(i)}}
		for k := range 100 {
			f.Nodes = append(f.Nodes, at(k))
		}
		h.Findings = append(h.Findings, f)
	}
	for s := range 8 {
		for i := range windows / 64 {
			w := storm.Window{Start: begin + int64(i)*64*storm.WindowLength, Service: long(s), Counts: counts, Attached: int64(1_000_000 + i%977)}
			w.Attempts += int64(i % 1009) // no two columns alike
			w.Outcomes[i%8] += int64(i % 997)
			h.Timeline = append(h.Timeline, w)
		}
	}
	for i := range nodes {
		n := storm.Node{At: at(i), Service: long(1), Counts: counts, Generation: int32(i % 7), First: begin, Last: h.End}
		periods := 10
		if i%10 == 0 {
			periods = 100
		}
		for k := range periods {
			p := begin + int64(k)*1e12 + int64(i)
			n.Periods = append(n.Periods, storm.Period{Kind: storm.PeriodKind(k % 3), Start: p, End: p + 9e11, Frame: 1})
		}
		h.Nodes = append(h.Nodes, n)
		h.Migrations = append(h.Migrations, storm.Migration{From: at(i), To: at(i * 7 % nodes), Intents: int64(i + 1), Causal: i%3 == 0})
		h.Clients = append(h.Clients, storm.Client{Client: dissect.Client{ID: long(i), Version: long(i)}, Service: long(1), Counts: counts})
	}
	for i := range 3000 {
		h.Versions = append(h.Versions, storm.Version{Version: long(i), Service: long(i / 100), EarlyOdds: 2, EarlyLow: 0.001, EarlyHigh: 5000, LateOdds: 1, LateLow: 1, LateHigh: 1})
		q := storm.Policy{Group: long(i), Service: long(1), Family: "exponential", Base: 1e9, Factor: 2, Jitter: "full"}
		for k := range 16 {
			w := storm.Waits{Step: int32(k + 1), Fitted: int64(1e9) << k}
			for b := range 400 {
				w.Gaps = append(w.Gaps, storm.Bin{From: int64(1e6 * (b + 1)), To: int64(1e6 * (b + 2)), N: int64(b)})
			}
			q.Waits = append(q.Waits, w)
		}
		if i < 40 {
			h.Policies = append(h.Policies, q)
		}
		h.Notes = append(h.Notes, long(i))
		h.Hypotheses = append(h.Hypotheses, storm.Hypothesis{Name: long(i), For: []string{long(1), long(2)}, Against: []string{long(3)}})
	}
	r := analysed(t, "outage")
	page := written(t, &Results{Analysis: r.Analysis, judge: func() (*storm.Report, error) { return h, nil }})
	harmless(t, page)
	t.Logf("%d nodes, %d windows: %d bytes", nodes, windows, len(page))
}

// TestHTMLComparison: sides over each other, and their names no markup.
func TestHTMLComparison(t *testing.T) {
	r := analysed(t, "outage")
	hostile := "</script><img src=x onerror=alert(1)>'\""
	var sides []*replay.Profile
	for i := range 9 {
		p, err := replay.NewProfile(r.Analysis, replay.Scope{Name: fmt.Sprint(i, hostile)})
		if err != nil {
			t.Fatal(err)
		}
		sides = append(sides, p)
	}
	for _, runs := range []int{1, 8} {
		c := replay.Compare(sides[0], sides[1:runs+1], nil)
		c.Notes = append(c.Notes, hostile)
		c.Measures[2].Pass, c.Measures[2].Distance = false, math.Inf(1)
		var pages [2]bytes.Buffer
		for i := range pages {
			if err := WriteComparisonHTML(&pages[i], c, HTMLOptions{Source: []string{hostile, "run"}}); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(pages[0].Bytes(), pages[1].Bytes()) {
			t.Error("two pages of one comparison")
		}
		rows, text, stills, gaps, lines := 0, "", 0, 0, 0
		for _, e := range harmless(t, pages[0].Bytes()) {
			if e.tag == "tr" {
				rows++
			}
			switch class := e.attr["class"]; {
			case class == "still":
				stills++
			case class == "gaps":
				gaps++
			case strings.HasPrefix(class, "line-"):
				lines++
			}
			if e.tag == "h1" {
				text = e.text
			}
			if e.attr["id"] == "data" {
				var d compareData
				if err := json.Unmarshal([]byte(e.text), &d); err != nil {
					t.Fatal(err)
				}
				var drawn int64
				for _, n := range d.Sides[0].Attempts {
					drawn += n
				}
				if drawn != sides[0].Counts.Attempts || len(d.Sides) != min(runs, maxReplays)+1 {
					t.Errorf("%d sides, %d attempts of %d", len(d.Sides), drawn, sides[0].Counts.Attempts)
				}
			}
		}
		if want := len(c.Measures) + min(runs, maxReplays) + 1 + 2; rows != want {
			t.Errorf("%d rows, want %d", rows, want)
		}
		if want := min(runs, maxReplays); stills != 3 || gaps == 0 || lines != gaps*want {
			t.Errorf("%d curves stand still, %d histograms of gaps with %d lines of %d replays", stills, gaps, lines, want)
		}
		if text != "Beyond their limits: amplification." {
			t.Errorf("%q", text)
		}
	}
}

// TestHTMLKeepsUPlot: the embedded library is what its digests say.
func TestHTMLKeepsUPlot(t *testing.T) {
	sums, err := assets.ReadFile("assets/uplot/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(sums)), "\n")
	if len(lines) != 2 {
		t.Errorf("%d digests", len(lines))
	}
	for _, line := range lines {
		want, name, _ := strings.Cut(line, "  ")
		b, err := assets.ReadFile("assets/uplot/" + name)
		if got := fmt.Sprintf("%x", sha256.Sum256(b)); err != nil || got != want {
			t.Errorf("%s: %s, want %s (%v)", name, got, want, err)
		}
	}
}

// TestGapPlotFollowsTheFamily: the line over a histogram stands where the
// fitted waits are.
func TestGapPlotFollowsTheFamily(t *testing.T) {
	q := &storm.Policy{Family: "exponential", Jitter: "none", Waits: []storm.Waits{
		{Step: 1, FromFailure: true, Fitted: 1e9, Gaps: []storm.Bin{{From: 99e7, To: 101e7, N: 100}}},
		{Step: 2, FromFailure: true, Fitted: 8e9, Gaps: []storm.Bin{{From: 79e8, To: 81e8, N: 50}}}}}
	plot, about := gapPlot(q)
	path := regexp.MustCompile(`class="model" d="([^"]*)"`).FindStringSubmatch(string(plot))
	if path == nil || strings.Count(path[1], "M") != 2 {
		t.Errorf("the line %q has not two parts", path)
	}
	if !strings.Contains(about, "failure to the next attempt") || !strings.Contains(string(plot), ">2</text>") {
		t.Errorf("%s\n%s", about, plot)
	}
	q.Family = "undetermined"
	if plot, _ := gapPlot(q); strings.Contains(string(plot), "model") {
		t.Error("a line without a family")
	}
}

// TestFirstRows: they are those that all rows in order begin with.
func TestFirstRows(t *testing.T) {
	r := analysed(t, "outage")
	report, err := r.Report()
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 7, 200, 1_000_000} {
		got, err := newFirstRows(r, report, limit)
		if err != nil {
			t.Fatal(err)
		}
		var attempts []dissect.Attempt
		var intents []dissect.Intent
		var all int64
		for a, err := range r.Analysis.Attempts() {
			if err != nil {
				t.Fatal(err)
			}
			if all++; a.Start >= report.Verdict.Onset && len(attempts) < limit {
				attempts = append(attempts, *a)
			}
		}
		for i, err := range r.Analysis.Intents() {
			if err != nil {
				t.Fatal(err)
			}
			if i.Start >= report.Verdict.Onset && len(intents) < limit {
				intents = append(intents, *i)
			}
		}
		if !reflect.DeepEqual(got.attempts, attempts) || !reflect.DeepEqual(got.intents, intents) || got.allAttempts != all {
			t.Errorf("limit %d: %d attempts and %d intents of %d, want %d and %d of %d, or others", limit, len(got.attempts), len(got.intents), got.allAttempts, len(attempts), len(intents), all)
		}
	}
}

func TestBrief(t *testing.T) {
	for ns, want := range map[int64]string{0: "0 µs", 1500: "1.5 µs", 999_580_000: "1 s", 826_280_000: "826 ms", 1_040_000_000: "1.04 s", 99_990e6: "100 s",
		100e9: "1 min 40 s", 120e9: "2 min", 7199.8e9: "120 min", 7200e9: "2 h", 86400e9 * 3: "3 d", -2e9: "-2 s"} {
		if got := brief(ns); got != want {
			t.Errorf("%d ns: %q, want %q", ns, got, want)
		}
	}
}
