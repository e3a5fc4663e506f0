package reports

import (
	"cmp"
	"fmt"
	"slices"
)

// noteView is a note of --events on the time axis of the page.
type noteView struct {
	Number     int
	At         string // s from the begin of the axis; empty: outside of it
	X          string // the same in per cent of the axis
	Label      bool   // the number has room over its mark
	Time, Text string
	Outside    string // when, where it is not on the axis
}

// told places what was noted. Where there are too many, those nearest to the
// onset are kept, or the first.
func (p *page) told(events []Event, a *axis, onset int64) {
	limit := max(p.budget.rows/4, 1)
	list := slices.Clone(events)
	if len(list) > limit {
		slices.SortStableFunc(list, func(x, y Event) int {
			away := func(e Event) int64 {
				switch {
				case onset != 0:
					return max(e.Time-onset, onset-e.Time)
				case a.bin(e.Time) < 0:
					return 1<<63 - 1
				}
				return e.Time - a.begin
			}
			return cmp.Compare(away(x), away(y))
		})
		p.ToldCut = fmt.Sprintf("%s more are in the table events.", thousands(int64(len(list)-limit)))
		list = list[:limit]
	}
	slices.SortStableFunc(list, func(x, y Event) int { return cmp.Or(cmp.Compare(x.Time, y.Time), cmp.Compare(x.What, y.What)) })
	const room = 2.5 // per cent of the axis, for a number
	labelled := -room
	for i, e := range list {
		v := noteView{Number: i + 1, Time: p.zone.in(e.Time).Format("2006-01-02 15:04:05"), Text: clip(e.What, maxCell)}
		switch x := a.x(e.Time); {
		case x < 0:
			v.Outside = "before the charts begin"
		case x > float64(a.n):
			v.Outside = "after the charts end"
		default:
			v.At = trim(float64(e.Time-a.begin) / 1e9)
			share := 100 * x / float64(a.n)
			v.X = trim(share) + "%"
			if v.Label = share >= labelled+room; v.Label {
				labelled = share
			}
			a.told = append(a.told, x)
		}
		p.Told = append(p.Told, v)
	}
}
