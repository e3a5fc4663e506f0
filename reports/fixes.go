package reports

import (
	"time"

	"squall/dissect/storm"
	"squall/replay"
)

// Fix is a run of a plan with one thing changed.
type Fix struct {
	Name    string // what was changed
	Profile *replay.Profile
	Summary *replay.Summary
}

// Fixes is the table of what would have helped: a run of the same plan a row.
func Fixes() *Of[Fix] {
	type f = Fix
	return define("fixes", "a run of the plan with one thing changed", false,
		str("variant", "what was changed", func(v *f) string { return v.Name }),
		str("verdict", "of the run", func(v *f) string {
			x := &v.Profile.Report.Verdict
			if x.Cascade {
				return x.Class.String() + " with cascade"
			}
			return x.Class.String()
		}),
		flag("recovered", "nothing was wrong any more at the end", func(v *f) bool {
			x := &v.Profile.Report.Verdict
			return x.Class == storm.Calm || x.Recovered
		}),
		num("attempts", "", "first ones and retries", func(v *f) int64 { return v.Profile.Counts.Attempts }),
		ratio("amplification", "", "attempts by intents", func(v *f) float64 { return rounded(v.Profile.Counts.Amplification()) }),
		ratio("peak_rate", "1/s", "attempts in the busiest 10 s", func(v *f) float64 { return v.Profile.Peak }),
		num("accepted", "", "attempts that were accepted", func(v *f) int64 { return v.Profile.Counts.Outcomes[1] }),
		num("clients_hit", "", "clients with a failed attempt", func(v *f) int64 { return int64(v.Profile.Failed) }),
		num("locked_out_s", "s", "summed over clients, from a failure to the next acceptance or the end", func(v *f) int64 {
			return int64(v.Profile.LockedOut / time.Second)
		}),
		flag("valid", "the sender kept up", func(v *f) bool { return v.Summary.Valid() }),
	)
}

// FixRows are the rows of the table.
func FixRows(list []Fix) Rows { return Fixes().Rows(&Env{}, each(list)) }
