package reports

import (
	"fmt"
	"html"
	"html/template"
	"io"
	"math"
	"strings"

	"squall/dissect/storm"
	"squall/replay"
)

// maxReplays are drawn of a comparison; the measures are of all.
const maxReplays = 6

// comparePage is what the template of a comparison shows.
type comparePage struct {
	Policy        string
	Style, Script template.HTML
	Title         string
	Version       string

	Alike    bool
	Failed   []string // the judged measures that do not pass
	Sides    []compareSide
	Cut      string
	Measures []compareMeasure
	Seeds    bool // there are several runs
	Notes    []string
	Line     string // of a shell, gives the page again
	Data     *compareData
	Still    compareStill
	Gaps     []compareGap
}

// compareStill are the lines over time as pictures, where no script runs.
type compareStill struct{ Attempts, Accepts, Intents template.HTML }

// compareGap is a histogram of the gaps before one retry, of all sides.
type compareGap struct {
	Name    string
	Drawing template.HTML
	Numbers string
}

// compareSide is one capture or run.
type compareSide struct {
	Index                   int
	Name, Class, Summary    string
	Amplification, Share    string
	Peak, Hit               string
	Attempts, Intents, Span string
	Mix                     template.HTML
	MixText                 string
}

type compareMeasure struct {
	Name, Original, Replay, Distance, Limit, Result, Seeds, Note string
	Bar                                                          template.HTML
}

// compareData is what the script draws from: every curve in columns of Step,
// from the begin of its own side on.
type compareData struct {
	Begin float64        `json:"begin"`
	Step  float64        `json:"step"` // s
	Bins  int            `json:"bins"`
	Sides []compareCurve `json:"sides"`
}

type compareCurve struct {
	Name     string  `json:"name"`
	Attempts []int64 `json:"attempts"`
	Intents  []int64 `json:"intents"`
	Accepts  []int64 `json:"accepts"`
}

// WriteComparisonHTML writes a comparison as one HTML file, in the way of
// WriteHTML: original and replays over each other, measure by measure.
// opt.Source are the words after squall compare.
func WriteComparisonHTML(w io.Writer, c *replay.Comparison, opt HTMLOptions) error {
	p := &comparePage{Title: "squall: compared with " + clip(c.Original.Name, maxCell), Version: opt.Version, Alike: c.Pass(), Seeds: len(c.Replays) > 1, Notes: clipAll(c.Notes, maxNotes)}
	sides := append([]*replay.Profile{c.Original}, c.Replays...)
	if len(sides) > maxReplays+1 {
		p.Cut = fmt.Sprintf("Drawn are the first %d of %d runs; the measures are of all.", maxReplays, len(c.Replays))
		sides = sides[:maxReplays+1]
	}
	bins := 0
	for i, s := range sides {
		p.Sides = append(p.Sides, newCompareSide(i, s))
		bins = max(bins, len(s.Curve))
	}
	// Whole columns together until there is room.
	fold := (bins*len(sides) + fullBudget.bins - 1) / max(fullBudget.bins, 1)
	fold = max(fold, 1)
	if bins > 0 {
		p.Data = &compareData{Step: 10 * float64(fold), Bins: (bins + fold - 1) / fold}
		for i, s := range sides {
			sum := func(values []int64) []int64 {
				out := make([]int64, p.Data.Bins)
				for k, v := range values {
					out[k/fold] += v
				}
				return out
			}
			p.Data.Sides = append(p.Data.Sides, compareCurve{p.Sides[i].Name, sum(s.Curve), sum(s.Intents), sum(s.Accepts)})
		}
	}
	if p.Data != nil {
		p.Still = p.Data.still()
	}
	p.Gaps = compareGaps(sides, p.Sides)
	for i := range c.Measures {
		m := &c.Measures[i]
		row := compareMeasure{Name: words(m.Name), Original: clip(words(m.Original), maxCell), Replay: clip(words(m.Replay), maxCell), Note: clip(m.Note, maxCell), Result: "–"}
		if m.Unit != "" {
			row.Name += ", " + m.Unit
		}
		row.Distance = distance(m.Distance)
		if m.Seeds >= 0 {
			if row.Seeds = distance(m.Seeds); m.Alike {
				row.Seeds += ", chance"
			}
		}
		if m.Judged {
			row.Limit, row.Result = distance(m.Limit), "yes"
			if !m.Pass {
				row.Result = "no"
				p.Failed = append(p.Failed, words(m.Name))
			}
			row.Bar = distanceBar(m)
		}
		p.Measures = append(p.Measures, row)
	}
	var quoted []string
	for _, s := range opt.Source {
		quoted = append(quoted, quote(s))
	}
	if p.Line = "squall compare " + strings.Join(quoted, " ") + " -T html -w compare.html"; len(quoted) == 0 || len(p.Line) > maxCommand {
		p.Line = ""
	}
	var err error
	if p.Style, p.Script, p.Policy, err = dress(); err != nil {
		return err
	}
	out, err := render("compare.html", p)
	if err != nil {
		return err
	}
	_, err = w.Write(out.Bytes())
	return err
}

func newCompareSide(i int, s *replay.Profile) compareSide {
	v := &s.Report.Verdict
	side := compareSide{Index: i, Name: clip(s.Name, 60), Class: words(v.Class.String()), Summary: clip(s.Report.Summary, maxSentence),
		Amplification: "–", Share: "–", Peak: number(s.Peak), Attempts: thousands(s.Counts.Attempts), Intents: thousands(s.Counts.Intents),
		Hit: fmt.Sprintf("%s of %s", thousands(int64(s.Failed)), thousands(int64(s.Clients))), Span: brief(int64(s.Span))}
	if v.Cascade {
		side.Class += " with cascade"
	}
	if s.Counts.Intents > 0 {
		side.Amplification = short(s.Counts.Amplification())
	}
	if s.Counts.Attempts > 0 {
		side.Share = fmt.Sprintf("%.0f %%", 100*s.Counts.RetryShare())
	}
	side.Mix, side.MixText = outcomeMix(&s.Counts.Outcomes, s.Counts.Attempts)
	return side
}

// outcomeMix draws the shares of the outcomes as one bar.
func outcomeMix(outcomes *storm.Outcomes, total int64) (template.HTML, string) {
	if total == 0 {
		return "", "no attempt"
	}
	var b strings.Builder
	var text []string
	b.WriteString(`<svg class="mix" width="100%" height="16" role="img" aria-label="shares of the outcomes">`)
	x := 0.0
	for _, o := range stacked {
		if n := outcomes[o]; n > 0 {
			share := 100 * float64(n) / float64(total)
			fmt.Fprintf(&b, `<rect class="o-%s" x="%s%%" width="%s%%" height="16"><title>%s %.1f %%</title></rect>`, o, trim(x), trim(share), html.EscapeString(o.String()), share)
			x += share
			if share >= 0.5 {
				text = append(text, fmt.Sprintf("%s %.0f %%", o, share))
			}
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()), strings.Join(text, ", ")
}

func distance(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case math.IsInf(v, 0):
		return "∞"
	}
	return fixed(v)
}

// distanceBar draws a distance on a scale where the limit stands in the
// middle.
func distanceBar(m *replay.Measure) template.HTML {
	share := 0.0
	switch {
	case m.Distance == 0:
	case m.Limit == 0 || math.IsInf(m.Distance, 1):
		share = 100
	default:
		share = math.Min(100, 50*m.Distance/m.Limit)
	}
	class := "part"
	if !m.Pass {
		class = "part over"
	}
	seeds := ""
	if m.Seeds >= 0 && m.Limit > 0 && !math.IsInf(m.Limit, 0) {
		seeds = fmt.Sprintf(`<line class="seeds" x1="%s%%" x2="%s%%" y1="0" y2="14"/>`, trim(math.Min(100, 50*m.Seeds/m.Limit)), trim(math.Min(100, 50*m.Seeds/m.Limit)))
	}
	return template.HTML(fmt.Sprintf(`<svg class="score" width="120" height="14" aria-hidden="true"><rect class="whole" y="4" width="100%%" height="6"/><rect class="%s" y="4" width="%s%%" height="6"/><line class="limit" x1="50%%" x2="50%%" y1="0" y2="14"/>%s</svg>`,
		class, trim(share), seeds))
}
