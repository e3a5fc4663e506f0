package reports

import (
	"cmp"
	"fmt"
	"html"
	"html/template"
	"strings"
)

// stillColumns is how wide the pictures are that stand where no script runs.
const stillColumns = 200

// still are the lines over time as pictures: the script draws them anew, with zoom
// and values; without it they remain.
type still struct{ Outcomes, Intents, Late, Attached, Locked template.HTML }

// layer is a line of a picture, or the area under it.
type layer struct {
	class  string
	name   string // for the legend; empty: the class says it
	values []float64
	area   bool
}

func newStill(s *series, a *axis) *still {
	fold := (a.n + stillColumns - 1) / stillColumns
	columns := (a.n + fold - 1) / fold
	sum := func(values []int64) []float64 {
		out := make([]float64, columns)
		for i, v := range values {
			out[i/fold] += float64(v)
		}
		return out
	}
	rate := func(values []int64) []float64 {
		out := sum(values)
		for i := range out {
			out[i] /= float64(fold) * float64(a.step) / 1e9
		}
		return out
	}
	p := &still{}
	var stack []layer
	ground := make([]float64, columns)
	for k, o := range stacked {
		if highest(s.Outcomes[k]) == 0 {
			continue
		}
		for i, v := range rate(s.Outcomes[k]) {
			ground[i] += v
		}
		stack = append(stack, layer{class: "o-" + o.String(), values: append([]float64{}, ground...), area: true})
	}
	for i, j := 0, len(stack)-1; i < j; i, j = i+1, j-1 { // the highest first, the others over it
		stack[i], stack[j] = stack[j], stack[i]
	}
	p.Outcomes = a.picture(stack, 0)
	p.Intents = a.picture([]layer{{class: "l-attempts", values: rate(s.Attempts)}, {class: "l-intents", values: rate(s.Intents)}}, 0)
	if highest(s.Late) > 0 {
		late, answers := sum(s.Late), sum(s.Answers)
		for i := range late {
			if answers[i] > 0 {
				late[i] /= answers[i]
			}
		}
		p.Late = a.picture([]layer{{class: "l-late", values: late}}, 1)
	}
	if highest(s.Attached) > 0 {
		attached := sum(s.Attached)
		for i := range attached {
			attached[i] /= float64(fold)
		}
		p.Attached = a.picture([]layer{{class: "l-attached", values: attached}}, 0)
	}
	if s.Locked != nil {
		locked := make([]float64, columns)
		for i, v := range s.Locked {
			locked[i/fold] += v / float64(fold)
		}
		p.Locked = a.picture([]layer{{class: "l-locked", name: "locked out", values: locked}}, 0)
	}
	return p
}

// picture draws layers over the axis, from 0 to top, or to their highest.
func (a *axis) picture(layers []layer, top float64) template.HTML {
	at := func(ns int64) string { return a.zone.in(ns).Format("15:04:05") }
	var marks []float64
	for _, x := range a.told {
		marks = append(marks, x/float64(a.n))
	}
	return picture(layers, top, at(a.begin), at(a.begin+int64(a.n)*a.step), marks...)
}

// picture draws layers from 0 to top, or to their highest, between two times, and
// lines at the marks, parts of the width.
func picture(layers []layer, top float64, begin, end string, marks ...float64) template.HTML {
	const width, height = 800, 150
	if top == 0 {
		for _, l := range layers {
			for _, v := range l.values {
				top = max(top, v)
			}
		}
		top = niceTop(top)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="still" viewBox="0 0 %d %d" role="img">`, width, height+16)
	for _, l := range layers {
		step := float64(width) / float64(len(l.values))
		b.WriteString(`<path class="` + l.class + `" d="`)
		for i, v := range l.values {
			y := trim(height - height*v/top)
			switch {
			case i > 0:
				b.WriteString("V" + y)
			case l.area:
				fmt.Fprintf(&b, "M0 %dV%s", height, y)
			default:
				b.WriteString("M0 " + y)
			}
			b.WriteString("H" + trim(step*float64(i+1)))
		}
		if l.area {
			fmt.Fprintf(&b, "V%dZ", height)
		}
		b.WriteString(`"/>`)
	}
	if len(marks) > 0 {
		b.WriteString(`<path class="noted" d="`)
		for _, x := range marks {
			fmt.Fprintf(&b, "M%s 0V%d", trim(width*x), height)
		}
		b.WriteString(`"/>`)
	}
	for i, l := range layers { // what the colours mean
		fmt.Fprintf(&b, `<text class="%s" x="%d" y="%d" text-anchor="end">%s</text>`, l.class, width-2, 11+13*i, html.EscapeString(cmp.Or(l.name, l.class[2:])))
	}
	fmt.Fprintf(&b, `<path class="ground" d="M0 %dH%d"/><text x="2" y="11">%s</text><text x="0" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%s</text></svg>`,
		height, width, html.EscapeString(amount(top)), height+13, html.EscapeString(begin), width, height+13, html.EscapeString(end))
	return template.HTML(b.String()) // numbers and escaped texts only
}
