package reports

import "time"

// zone prints times for reading; nil is UTC. What machines read is always UTC.
type zone struct{ *time.Location }

func (z zone) in(ns int64) time.Time {
	if z.Location == nil {
		return time.Unix(0, ns).UTC()
	}
	return time.Unix(0, ns).In(z.Location)
}

// name stands behind times that have no offset.
func (z zone) name() string {
	if z.Location == nil {
		return "UTC"
	}
	return z.String()
}

// clock is the time of day; - for none.
func (z zone) clock(ns int64) string {
	if ns == 0 {
		return "-"
	}
	return z.in(ns).Format("15:04:05")
}

// clockMS is the time of day with milliseconds.
func (z zone) clockMS(ns int64) string { return z.in(ns).Format("15:04:05.000") }

// moment is a time to the millisecond; empty for none.
func (z zone) moment(ns int64) string {
	if ns == 0 {
		return ""
	}
	return z.in(ns).Format("2006-01-02 15:04:05.000")
}

// zonedLayout is timeLayout with an offset.
const zonedLayout = "2006-01-02T15:04:05.000000000Z07:00"

// stamp is RFC 3339 with nanoseconds; empty for none.
func (z zone) stamp(ns int64) string {
	if ns == 0 {
		return ""
	}
	return z.in(ns).Format(zonedLayout)
}

// offsets are the seconds that the zone is ahead of UTC from each of the times on,
// in seconds of the epoch: what a page needs to print times of a span.
func (z zone) offsets(from, to int64) (out [][2]int64) {
	const step = 3600 * int64(1e9) // clocks change on a full hour of UTC, or on a quarter within one
	for t := from; ; t = min(t+step, to) {
		_, offset := z.in(t).Zone()
		if n := len(out); n == 0 || out[n-1][1] != int64(offset) {
			at := t
			if n > 0 {
				for low := t - step; at-low > 1e9; {
					if mid := low + (at-low)/2; z.offset(mid) == int64(offset) {
						at = mid
					} else {
						low = mid
					}
				}
			}
			out = append(out, [2]int64{at / 1e9, int64(offset)})
		}
		if t >= to {
			return out
		}
	}
}

func (z zone) offset(ns int64) int64 {
	_, o := z.in(ns).Zone()
	return int64(o)
}
