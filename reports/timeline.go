package reports

import (
	"squall/dissect"
	"squall/dissect/storm"
)

// Timeline is the table of services and nodes in windows of 10 s. Windows in
// which nothing happened have no row.
func Timeline() *Of[storm.Window] {
	type w = storm.Window
	fields := []field[w]{
		when("window_start", "the window's begin; it is 10 s long", func(v *w) int64 { return v.Start }),
		str("service", "the service", func(v *w) string { return v.Service }),
		str("destination_ip", "the node; empty: the whole service", func(v *w) string {
			if v.Node == (dissect.Endpoint{}) {
				return ""
			}
			return v.Node.Addr.String()
		}),
		optNum("destination_port", "", "its port", 0, func(v *w) int64 { return int64(v.Node.Port) }),
	}
	fields = append(fields, counts(func(v *w) *storm.Counts { return &v.Counts })...)
	return define("timeline", "a service, or one node of it, in a window of 10 s", false, append(fields,
		num("clients", "", "different clients that tried", func(v *w) int64 { return v.Clients }),
		ratio("surge", "x", "intents over the calm median of the service, or over those of --baseline", func(v *w) float64 { return v.Surge }),
		optRatio("baseline_attempts", "", "attempts of the service in such a window of the calm day, of --baseline", func(v *w) float64 { return v.Baseline }),
		num("attached", "", "clients believed to hold a session at the window's end", func(v *w) int64 { return v.Attached }),
	)...).leads("window_start attempts intents amplification failure_ratio destination_ip service late_ratio clients surge")
}
