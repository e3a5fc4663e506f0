package reports

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"

	"squall/replay"
)

// still draws the curves as pictures: the script draws them anew, with zoom and
// values; without it they remain.
func (d *compareData) still() (s compareStill) {
	draw := func(of func(*compareCurve) []int64) template.HTML {
		fold := (d.Bins + stillColumns - 1) / stillColumns
		var layers []layer
		for k := range d.Sides {
			values := make([]float64, (d.Bins+fold-1)/fold)
			for i, v := range of(&d.Sides[k]) {
				values[i/fold] += float64(v) / (float64(fold) * d.Step)
			}
			layers = append(layers, layer{class: fmt.Sprintf("l-side-%d", k), name: d.Sides[k].Name, values: values})
		}
		return picture(layers, 0, "0", brief(int64(float64(d.Bins)*d.Step*1e9)))
	}
	s.Attempts = draw(func(c *compareCurve) []int64 { return c.Attempts })
	s.Accepts = draw(func(c *compareCurve) []int64 { return c.Accepts })
	s.Intents = draw(func(c *compareCurve) []int64 { return c.Intents })
	return s
}

const (
	gapDrawings = 4  // retries that have a histogram of their own
	gapsToDraw  = 10 // of one side at least
)

// compareGaps draws, for the first retries, the gaps of all sides over each other,
// as shares of the gaps of their side: the original filled, the replays as lines.
func compareGaps(sides []*replay.Profile, names []compareSide) (out []compareGap) {
	for number := 2; number < 2+gapDrawings; number++ {
		most := 0
		for _, s := range sides {
			most = max(most, len(s.Gaps(number)))
		}
		if most < gapsToDraw {
			continue
		}
		g := compareGap{Name: fmt.Sprintf("Before attempt %d", number), Drawing: overlaidGaps(sides, number)}
		for i, s := range sides {
			list := s.Gaps(number)
			if i > 0 {
				g.Numbers += "; "
			}
			if len(list) == 0 {
				g.Numbers += names[i].Name + ": none"
				continue
			}
			g.Numbers += fmt.Sprintf("%s: %s, median %s", names[i].Name, many(int64(len(list)), "gap"), brief(list[len(list)/2]))
		}
		out = append(out, g)
	}
	return out
}

// overlaidGaps is one such histogram, over a logarithmic axis.
func overlaidGaps(sides []*replay.Profile, number int) template.HTML {
	const columns = 130
	shares := make([][columns]float64, len(sides))
	first, last, top := columns, 0, 0.0
	for k, s := range sides {
		list := s.Gaps(number)
		for _, gap := range list {
			c := min(max(int(octave(float64(gap))), 0), columns-1)
			shares[k][c] += 1 / float64(len(list))
		}
		for c, v := range shares[k] {
			if v >= 0.001 {
				first, last = min(first, c), max(last, c)
			}
			top = math.Max(top, v)
		}
	}
	first, last = max(0, first-perOctave), min(columns, last+1+perOctave)
	if last-first < 6*perOctave {
		more := (6*perOctave - (last - first)) / 2
		first, last = max(0, first-more), min(columns, last+more)
	}
	const height, head = 110, 6
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="gaps" width="100%%" height="%d" role="img" aria-label="%s">`, height+head+20,
		html.EscapeString(fmt.Sprintf("histogram of the gaps before attempt %d of each side", number)))
	fmt.Fprintf(&b, `<svg y="%d" width="100%%" height="%d" viewBox="%d 0 %d %d" preserveAspectRatio="none">`, head, height, first, last-first, height)
	for k := range sides {
		if k > 0 {
			fmt.Fprintf(&b, `<path class="line-%d" d="M%d %d`, k, first, height)
		}
		for c := first; c < last; c++ {
			v := shares[k][c]
			y := trim(height * (1 - v/top))
			switch {
			case k > 0:
				fmt.Fprintf(&b, "V%sh1", y)
			case v > 0:
				fmt.Fprintf(&b, `<rect class="area-0" x="%s" y="%s" width=".8" height="%s"/>`, trim(float64(c)+0.1), y, trim(height*v/top))
			}
		}
		if k > 0 {
			fmt.Fprintf(&b, `V%d"/>`, height)
		}
	}
	b.WriteString(`</svg>`)
	fmt.Fprintf(&b, `<line class="base" x1="0" x2="100%%" y1="%d" y2="%d"/>`, height+head, height+head)
	for ns := 1e5; ns < 1e15; ns *= 10 {
		if x := 100 * (octave(ns) - float64(first)) / float64(last-first); x >= 4 && x <= 96 {
			fmt.Fprintf(&b, `<text x="%s%%" y="%d" text-anchor="middle">%s</text>`, trim(x), height+head+15, brief(int64(ns)))
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // numbers and escaped texts only
}
