package reports

import "squall/dissect/pipeline"

// LossSecond is what a tap missed in a stretch of time.
type LossSecond struct {
	Observer string
	Span     int64 // ns
	pipeline.Loss
}

// Losses is the table of what each tap missed of what receivers acknowledged.
func Losses() *Of[LossSecond] {
	type l = LossSecond
	return define("loss", "a tap in a second in which TCP was seen there", false,
		str("observer_name", "the tap, where it was given a name", func(v *l) string { return v.Observer }),
		when("time", "begin of the second", func(v *l) int64 { return v.At * 1e9 }),
		num("duration_ns", "ns", "a second; more in a capture of many hours", func(v *l) int64 { return v.Span }),
		num("seen_bytes", "bytes", "of connections that began while it listened, each once; SYN-ACK and FIN are a byte", func(v *l) int64 { return v.Seen }),
		num("unseen_bytes", "bytes", "that a receiver acknowledged and the tap has not; below 0 where what was missing before came late", func(v *l) int64 { return v.Unseen }),
		ratio("loss_ratio", "", "unseen / (seen + unseen)", func(v *l) float64 { return v.Share() }),
		num("segments", "", "that brought or skipped something new", func(v *l) int64 { return v.Segments }),
		flag("heavy", "20 % and more is missing, with 95 % confidence, of at least 20 segments", func(v *l) bool { return v.Heavy() }),
	).leads("time observer_name loss_ratio unseen_bytes seen_bytes heavy")
}

func lossSeconds(a *pipeline.Analysis) (out []LossSecond) {
	for _, t := range a.TapLosses() {
		for _, l := range t.Loss {
			out = append(out, LossSecond{t.Observer, 1e9 << t.Coarse, l})
		}
	}
	return out
}
