package storm

// Thresholds are the numbers that a verdict turns on; the zero value of a field
// means its default. All lists them with their defaults and meanings.
type Thresholds struct {
	Volume          float64
	VolumeFloor     float64
	RetryShare      float64
	Failure         float64
	FailureOverCalm float64
	Breadth         float64
	BreadthFloor    float64
	Unanswerable    float64
	InARow          float64
	Brief           float64
	PartialFailure  float64
	PartialOverCalm float64
	Surge           float64
	SurgeFailure    float64
	ReconnectShare  float64
	PathRepeats     float64
	PathLate        float64
	FloodFactor     float64
	FloodFloor      float64
	InsistShare     float64
	ScanNodes       float64
	ScanFailure     float64
	OffenderFailure float64
	OffenderShare   float64
	OffenderRetries float64
	CausalShare     float64
	CausalLoad      float64
	DownAfter       float64
	VersionMembers  float64
	VersionEvents   float64
	VersionP        float64
	HerdR           float64
	HerdNR2         float64
	GapsFamily      float64
	GapsJitter      float64
	Metastable      float64
}

// Threshold is a row of the table of thresholds.
type Threshold struct {
	Name    string
	Value   float64
	Default float64
	Unit    string
	Meaning string
}

type threshold struct {
	name    string
	value   *float64
	def     float64
	unit    string
	meaning string
}

// table is the one place where the defaults stand. Their sources are
// design.md section 5 and storms.md sections 3.1 to 3.5.
func (t *Thresholds) table() []threshold {
	return []threshold{
		{"volume", &t.Volume, 1.5, "x", "storm: attempts in the window over the calm ones"},
		{"volume_floor", &t.VolumeFloor, 20, "attempts", "storm: attempts in the window at least"},
		{"retry_share", &t.RetryShare, 0.5, "ratio", "storm: lower 95 % bound of retries over attempts"},
		{"failure", &t.Failure, 0.5, "ratio", "storm: failures over decided attempts"},
		{"failure_over_calm", &t.FailureOverCalm, 0.25, "ratio", "storm: the same above the service's own calm ratio"},
		{"breadth", &t.Breadth, 0.05, "ratio", "storm: clients that retry over active clients"},
		{"breadth_floor", &t.BreadthFloor, 20, "clients", "storm: clients that retry at least, or half of the active ones"},
		{"unanswerable", &t.Unanswerable, 0.5, "ratio", "storm: attempts from sources without sign of a real stack at most"},
		{"in_a_row", &t.InARow, 10, "s", "seconds in a row that must meet the criteria"},
		{"brief", &t.Brief, 45, "s", "storm: what ends sooner, by itself, at nodes that were there all the time, is a partial outage"},
		{"partial_failure", &t.PartialFailure, 0.2, "ratio", "partial outage: failures over decided attempts"},
		{"partial_over_calm", &t.PartialOverCalm, 0.15, "ratio", "partial outage: the same above the calm ratio"},
		{"surge", &t.Surge, 3, "x", "flash crowd, reconnect, refresh surge: intents in the window over the calm ones"},
		{"surge_failure", &t.SurgeFailure, 0.25, "ratio", "flash crowd, reconnect: failures over decided attempts at most"},
		{"reconnect_share", &t.ReconnectShare, 0.5, "ratio", "reconnect: intents of clients that had a session"},
		{"path_repeats", &t.PathRepeats, 1.1, "per attempt", "path loss: transmissions of an answered attempt"},
		{"path_late", &t.PathLate, 0.05, "ratio", "path loss: late answers over answers at most"},
		{"flood_factor", &t.FloodFactor, 3, "x", "SYN flood: attempts in the window over the calm ones"},
		{"flood_floor", &t.FloodFloor, 100, "attempts", "SYN flood: attempts without sign of a real stack in the window at least"},
		{"insist_share", &t.InsistShare, 0.5, "ratio", "application flood: attempts of sources that had just been served and closed"},
		{"scan_nodes", &t.ScanNodes, 20, "nodes", "scan: destinations of one source at least"},
		{"scan_failure", &t.ScanFailure, 0.6, "ratio", "scan: of its attempts that led to nothing"},
		{"offender_failure", &t.OffenderFailure, 0.9, "ratio", "single offender: of its attempts that failed"},
		{"offender_share", &t.OffenderShare, 0.5, "ratio", "single offender: its share of the service's failures"},
		{"offender_retries", &t.OffenderRetries, 20, "retries", "single offender: at least"},
		{"causal_share", &t.CausalShare, 0.3, "ratio", "cascade: share of a node's excess that came from an earlier fallen one"},
		{"causal_load", &t.CausalLoad, 2, "x", "cascade: load of the node over its calm load before its fall"},
		{"down_after", &t.DownAfter, 3, "s", "node: how long it must give no sign of life"},
		{"version_members", &t.VersionMembers, 20, "clients", "version: members at least"},
		{"version_events", &t.VersionEvents, 5, "clients", "version: members that fell early at least"},
		{"version_p", &t.VersionP, 0.01, "p", "version: corrected probability at most"},
		{"herd_r", &t.HerdR, 0.3, "R", "herd: Rayleigh R at least"},
		{"herd_nr2", &t.HerdNR2, 7, "n R²", "herd: n R² at least (p < 0.001)"},
		{"gaps_family", &t.GapsFamily, 30, "gaps", "policy: gaps needed to name the family"},
		{"gaps_jitter", &t.GapsJitter, 200, "gaps", "policy: gaps needed to name the jitter"},
		{"metastable", &t.Metastable, 240, "s", "how long failures must go on while intents are normal"},
	}
}

// WithDefaults fills the fields that are zero.
func (t Thresholds) WithDefaults() Thresholds {
	for _, r := range t.table() {
		if *r.value == 0 {
			*r.value = r.def
		}
	}
	return t
}

// All lists the thresholds as they apply.
func (t Thresholds) All() []Threshold {
	t = t.WithDefaults()
	rows := t.table()
	out := make([]Threshold, 0, len(rows))
	for _, r := range rows {
		out = append(out, Threshold{r.name, *r.value, r.def, r.unit, r.meaning})
	}
	return out
}

// Set overrides one by its name; ok is false for an unknown name.
func (t *Thresholds) Set(name string, value float64) (ok bool) {
	for _, r := range t.table() {
		if r.name == name {
			*r.value = value
			return true
		}
	}
	return false
}
