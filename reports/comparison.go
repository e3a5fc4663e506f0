package reports

import (
	"math"

	"squall/replay"
)

// Comparison is the table of a comparison: a measure a row.
func Comparison() *Of[replay.Measure] {
	type m = replay.Measure
	return define("comparison", "a measure of likeness", false,
		str("measure", "what is compared", func(v *m) string { return v.Name }),
		str("original", "of the original", func(v *m) string { return v.Original }),
		str("replay", "of the replay; of several runs the median one", func(v *m) string { return v.Replay }),
		ratio("distance", "", "between them; 0 is the same", func(v *m) float64 { return rounded(v.Distance) }),
		ratio("limit", "", "the most that passes", func(v *m) float64 {
			if !v.Judged {
				return math.NaN()
			}
			return v.Limit
		}),
		str("result", "pass, FAIL, or nothing where the measure only informs", func(v *m) string {
			switch {
			case !v.Judged:
				return ""
			case v.Pass:
				return "pass"
			}
			return "FAIL"
		}),
		ratio("seed_distance", "", "mean distance of the runs from each other", func(v *m) float64 {
			if v.Seeds < 0 {
				return math.NaN()
			}
			return rounded(v.Seeds)
		}),
		flag("indistinguishable", "distance below twice the seed distance", func(v *m) bool { return v.Alike }),
		str("unit", "of both values", func(v *m) string { return v.Unit }),
		str("note", "how it is measured", func(v *m) string { return v.Note }),
	)
}

// rounded keeps four decimals: more would be noise.
func rounded(f float64) float64 { return math.Round(f*1e4) / 1e4 }

// ComparisonRows are the rows of a comparison.
func ComparisonRows(c *replay.Comparison) Rows {
	return Comparison().Rows(&Env{}, each(c.Measures))
}
