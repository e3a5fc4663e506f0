package storm

import (
	"time"

	"squall/dissect"
)

// Class is what a finding is called, in order of gravity; design.md section 1
// has the definitions.
type Class uint8

const (
	Calm Class = iota
	InsufficientEvidence
	Scan
	SingleOffender
	FlashCrowd
	RefreshSurge
	MassReconnect
	PathLoss
	PartialOutage
	ApplicationFlood
	SynFlood
	RetryStorm
	NumClasses
)

var classNames = [NumClasses]string{"calm", "insufficient_evidence", "scan", "single_offender", "flash_crowd", "refresh_surge",
	"mass_reconnect", "path_loss", "partial_outage", "application_flood", "syn_flood", "retry_storm"}

func (c Class) String() string { return classNames[c] }

// ParseClass is the inverse of String; ok is false for any other word.
func ParseClass(s string) (c Class, ok bool) {
	for i, n := range classNames {
		if n == s {
			return Class(i), true
		}
	}
	return Calm, false
}

// Confidence in a finding.
type Confidence uint8

const (
	Low Confidence = iota
	Medium
	High
)

var confidenceNames = [...]string{"low", "medium", "high"}

func (c Confidence) String() string { return confidenceNames[c] }

// Outcomes counts attempts by outcome.
type Outcomes [dissect.NumOutcomes]int64

// Failed is the sum of the decided outcomes but accepted.
func (o *Outcomes) Failed() (n int64) {
	for i, v := range o {
		if dissect.Outcome(i).Failed() {
			n += v
		}
	}
	return n
}

// Decided is the sum of all outcomes but unknown.
func (o *Outcomes) Decided() int64 { return o.Failed() + o[dissect.OutcomeAccepted] }

// Counts are sums over attempts. Attempts, Retries and Outcomes count rows
// whose relation is first, retry, failover or reattach; the others stand apart.
type Counts struct {
	Attempts      int64
	Retries       int64 // relation retry or failover
	Intents       int64 // Attempts - Retries: those that open an intent
	Refreshes     int64
	Parallels     int64
	Checks        int64 // of monitors
	Outcomes      Outcomes
	Transmissions int64
	Late          int64 // late answers
	Answers       int64 // all answers, late ones included
}

// Amplification is A = attempts / intents; 0 without intents.
func (c *Counts) Amplification() float64 { return ratio(c.Attempts, c.Intents) }

// RetryShare is n = retries / attempts; 0 without attempts.
func (c *Counts) RetryShare() float64 { return ratio(c.Retries, c.Attempts) }

// LateRatio is late answers / all answers; 0 without answers.
func (c *Counts) LateRatio() float64 { return ratio(c.Late, c.Answers) }

// FailureRatio is failures / decided attempts; 0 when nothing was decided.
func (c *Counts) FailureRatio() float64 { return ratio(c.Outcomes.Failed(), c.Outcomes.Decided()) }

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// Report is everything that is known after the last merge. Slices are sorted
// as their comments say; times are ns since the epoch, 0 = not known.
type Report struct {
	Begin, End int64 // of the capture
	Totals     Totals
	Verdict    Finding   // the finding that harmed most clients, gravity breaking ties; class calm when there is none
	Summary    string    // the verdict in one plain sentence
	Findings   []Finding // by harm, gravity, onset: the first one is the verdict
	Nodes      []Node    // by attempts, then endpoint
	Migrations []Migration
	Versions   []Version
	Policies   []Policy
	Clients    []Client     // the busiest, by attempts, then id
	Monitors   []Monitor    // who checks nodes, by checks, then id; the first 20
	Hypotheses []Hypothesis // by rank
	Roles      []RoleHealth // by onset of the first trouble; those without any last
	Timeline   []Window     // by service, node, time
	Baseline   *Against     // how it compares with a calm day; nil = none was given
	Shown      *Report      // the same for reading: its texts have times of another zone; nil = UTC will do
	Notes      []string     // what limits the analysis: gaps, ceilings, loss
}

// Text is the report for reading.
func (r *Report) Text() *Report {
	if r.Shown != nil {
		return r.Shown
	}
	return r
}

// Totals of a capture.
type Totals struct {
	Counts
	Clients, Nodes int64
	Censored       int64   // intents that may have begun earlier or were open at the end
	AppAccepts     int64   // accepts proven by the application,
	ByteAccepts    int64   // by bytes of the node,
	AgeAccepts     int64   // by age: nobody said a word
	IntentSurge    float64 // highest intents per window over the calm median; 0 = no baseline
	NATSuspects    int64
	Monitors       int64 // clients all of whose attempts are health checks; not among Clients
}

// Window is a row of the timeline: one service, or one node of it, in 10 s.
type Window struct {
	Start   int64 // a multiple of WindowLength
	Service string
	Node    dissect.Endpoint // zero: the whole service
	Counts
	Clients  int64   // different ones with a counted attempt
	Surge    float64 // intents over the calm median of the service, or over the baseline's; 0 = neither
	Attached int64   // clients believed to hold a session at the window's end
	Baseline float64 // attempts in such a window of the calm day that was given; 0 = none was
}

// Node is a row of the nodes table.
type Node struct {
	At         dissect.Endpoint
	Proto      uint8
	Service    string
	Protocol   string
	Role       dissect.Role
	RoleSource dissect.RoleSource
	RoleProof  float64 // confidence of a role inferred from behaviour, 0..1
	First,
	Last int64
	Counts
	Clients                        int64
	PeakRate                       float64 // counted attempts per second in its busiest 10 s
	BytesIn                        int64   // IP bytes that its clients sent it
	BytesOut                       int64
	Periods                        []Period // by start
	Generation                     int32    // in the cascade, -1 = not part of one
	Order                          int32    // in which the nodes fell, from 1; 0 = it did not
	Excess                         float64  // load over calm load, times the share of capacity left; 0 = not known
	AfterlifeAttempts, AfterlifeIn int64    // attempts, and IP bytes of all, that kept coming after it went down
	Restarts, RestartsFailed       int64    // times it came back, and went down again within RelapseWithin
}

// Client is a row of the clients table: what one client did.
type Client struct {
	dissect.Client
	Service string // the one it tried most
	Counts
	NeverIn bool // no attempt of it was accepted
}

// Monitor is an address that checks the health of nodes; its attempts are outside
// of all that is judged.
type Monitor struct {
	ID             string
	Services       []string // by name
	Nodes          int64    // that it checks
	Checks, Failed int64    // Failed: no node answered them
	Every          int64    // ns from one check of a node to the next, mean
	First, Last    int64
}

// PeriodKind is what was wrong with a node for a while.
type PeriodKind uint8

const (
	Down PeriodKind = iota
	SelfProtecting
	Overloaded
)

var periodNames = [...]string{"down", "self_protecting", "overloaded"}

func (k PeriodKind) String() string { return periodNames[k] }

// Period of a node.
type Period struct {
	Kind       PeriodKind
	Start, End int64 // End 0: until the capture's end
	Suspected  int64 // first sign, before it was confirmed
	LastAlive  int64 // last sign of life before; 0 = none seen
	File       uint32
	Frame      int64 // that shows the start; 0 = no single one does
	EndFile    uint32
	EndFrame   int64 // that shows the end; 0 = no single one does
	silent     bool  // nothing but silence shows it,
	died       int64 // and when it probably began: soon after the last of many signs of life, or between it and Start
}

// Criterion is one test of a finding.
type Criterion struct {
	Name             string // volume, amplification, failure, breadth, answerable, …
	Value, Threshold float64
	Unit             string // "x", "ratio", "clients", …
	Met, Waived      bool
	Note             string // why waived, or what the number means
}

// Finding is a stretch of time on one service with a class.
type Finding struct {
	Class      Class
	Cascade    bool
	Service    string
	Role       dissect.Role
	Nodes      []dissect.Endpoint // concerned, by endpoint
	Onset, End int64              // End 0: until the capture's end
	Shape      string             // step, gradual or ""
	Rise       int64              // ns in which the attempts rose from 10 to 90 % of the way to their peak
	Doubling   int64              // ns in which they doubled, of a gradual onset; 0 = they did not grow by doubling
	GrowthFit  float64            // R² of the exponential growth behind Doubling
	Recovered  bool
	Retrigger  bool // began while an earlier storm of the service was being repaired
	Metastable bool // failures went on for the threshold's time and more while intents were back to normal
	Confidence Confidence
	Criteria   []Criterion
	Reasons    []string // for insufficient_evidence and lowered confidence
	Sentence   string
	Counts             // inside the finding
	PeakRate   float64 // counted attempts per second in the busiest 10 s
	Surge      float64
	Baseline   string  // what its calm levels are from, in words; empty: the capture's own calm stretch
	Excess     float64 // beyond redistribution, worst survivor
	Knee       float64 // accepted per second that the service sustained at best; 0 = not known
	KneeLoad   float64 // attempts per second beyond which goodput grew no more; 0 = it always kept up
	Sag        float64 // goodput under the heaviest load, over Knee: 1 = held, 0 = collapsed; 0 where KneeLoad is
	Goodput    []LoadPoint
	// Population of the service: clients believed to hold a session.
	Attached, AttachedLow          int64 // before the onset, and the fewest inside
	AttachedBack50, AttachedBack90 int64 // ns from the fewest to 50 and 90 % of those before; 0 = not in the capture
	Restarts, RestartsFailed       int64 // nodes that came back inside, and went down again soon
	// What one client sends: attempts and refreshes a second of a client that holds
	// a session, before, and failing attempts a second of one that is locked out; 0
	// = not known. The jump between them is what a loss does to the rate.
	RateAttached, RateLocked float64
	// Harm.
	Clients       int64  // that failed at least once inside
	Offender      string // id of the client of a single_offender, and of a scan by one
	NeverIn       int64  // of them, never accepted until the capture's end
	LockedOut     int64  // client-ns from first failure to acceptance or the end
	AttachP50     int64  // ns from the first attempt of an intent to its acceptance
	AttachP95     int64
	AttachP99     int64
	FirstFile     uint32
	FirstFrame    int64 // of the attempt at the onset
	FirstAttempt  uint64
	WarnedClasses []Class // other classes whose criteria were met as well

	brief      bool // a storm but for its length
	rareBefore bool // failures were, before the onset
	shut       int  // nodes that took nobody new though they served those they had

	implied, asked, unreal, oneSided, reattached, returned, newcomers, insisted, saidNo, shook, missed int64

	answered, answerSends int64 // attempts that the transport answered, and their transmissions

	wait float64 // ms, for an answer to what was sent once
}

// LoadPoint is what was accepted under a load: the median of the seconds in
// which, over ten of them, that many attempts were made.
type LoadPoint struct {
	Load, Goodput float64 // per second
	Seconds       int64
}

// RoleHealth says how the nodes of one central role fared: the answer to "was
// it the login servers?".
type RoleHealth struct {
	Role             dissect.Role
	Services         []string
	Nodes            int64
	Down, Overloaded int64 // nodes that were for a while
	Class            Class // of its gravest finding, calm without one
	Onset            int64 // of its first finding that is an outage; 0 = none
	Clients          int64 // hit, by its worst finding
	Counts
	Sentence string
}

// Migration is an edge: intents whose failed attempt at From was followed by
// one at To.
type Migration struct {
	From, To    dissect.Endpoint
	Service     string
	Intents     int64
	First, Last int64
	Share       float64 // of To's excess in the 60 s before its fall
	Causal      bool
}

// Version is a row of the versions table: one client version on one service.
type Version struct {
	Version, Service                  string
	Clients, Attempts, Failures       int64
	Retries                           int64
	ClientShare, RetryShare           float64 // of the service's clients, of its retries
	Amplification                     float64
	EarlyOdds, EarlyLow, EarlyHigh    float64 // odds ratio of falling first, 95 % CI; 0 = too few
	EarlyP                            float64 // one-sided Fisher, Benjamini-Hochberg corrected; 1 = not tested
	EarlyStratified                   float64 // the same among clients of the same nodes (Mantel-Haenszel); 0 = too few
	LateOdds, LateLow, LateHigh       float64
	RolloutOdds                       float64 // of the version among the wishes of the last third before the onset against the first; 0 = too few
	RolloutLow, RolloutHigh           float64
	spreads                           bool // and that is no chance
	Associated                        bool
	AssociatedWith                    string // crash, retries, "crash,retries" or ""
	CrashedEarly, EventsEarly         int64
	AmplificationLow, Amplification95 float64 // 95 % CI
}

// Policy is a row of the policies table: how a group of clients retries.
type Policy struct {
	Group, Service string // version, or "all"
	Clients        int64
	Family         string // immediate, fixed, linear, quadratic, exponential, server_directed, undetermined
	Base           int64  // ns
	Holds          bool   // Base and Cap hold the wait for an answer, too: nothing shows how long either is
	Step           int64  // ns, of linear and quadratic back-off
	Factor         float64
	Cap            int64   // ns, 0 = none seen
	Jitter         string  // none, ten_percent, equal, fifty_percent, full, decorrelated, undetermined
	Timeout        int64   // of the client, ns, 0 = not known
	Limit          int32   // attempts of an intent, 0 = none seen
	Order          string  // sticky, round_robin, random, undetermined
	Sends          float64 // transmissions of an attempt that nothing answered, median; 0 = none seen
	SendSpan       int64   // ns from the first to the last of them, median
	Ladder         int64   // ns from one rung of a transport ladder to the next at a node, median; 0 = none seen
	Gaps           int64   // seen
	Synchrony      float64 // Rayleigh R
	Herd           bool
	Smells         []string // backoff_reset, jitter_before_cap, no_backoff
	Waits          []Waits  // what the family was inferred from
}

// Waits are the gaps after the k-th failed attempt of the intents of a group.
type Waits struct {
	Step        int32 // k, from 1; 0 = the waits that servers announced
	FromFailure bool  // the gaps begin at the known failure, else at the attempt's start
	Fitted      int64 // ns, the median gap that the family gives; 0 = none
	Gaps        []Bin // by From, the empty ones left out
}

// Bin of a histogram of durations: N of at least From and less than To, ns.
type Bin struct{ From, To, N int64 }

// Hypothesis is one of the explanations that people argue about.
type Hypothesis struct {
	Name         string // bug_in_version, rollout, node_loss, login_overload, overload, attack, network, mass_restart, demand
	Rank         int32
	Score        float64 // 0..1, how much of the evidence asked for is there; what the capture cannot show counts half
	For, Against []string
	Unseen       []string // evidence that the capture cannot show, and why
	Sentence     string
}

// Quality is what the capture itself cannot show, gathered before judging.
type Quality struct {
	Begin, End int64
	Gaps       []Span // silences of the tap
	ClockSteps int64  // packets whose time went back by more than the reorder window
	StrayTimes int64  // packets whose time was far from all others and was set right
	Packets    int64
	Dropped    int64 // by the tap, as its counters say; 0 = none or not said
	Duplicates int64
	OutOfOrder int64
	Cut        int64 // packets the snapshot length made unreadable
	Truncated  int64 // packets it cut at all
	Evicted    int64 // flows that were given up early because too many lived at once,
	Settled    int64 // and of them those of which every attempt had failed
	// Of how many names of clients one is kept, and of how many versions, server names
	// and fingerprints; up to 1: all are.
	ClientsOneIn, SaidOneIn int64
	Damaged                 bool
	Lossy                   []Span         // in which the tap missed so much that it tells nothing of the calm
	Holes                   []string       // what is missing between the files, in words
	Remarks                 []string       // what else limits the inputs, in plain words
	Zone                    *time.Location // of times in texts; nil = UTC
}

// Span of time, ns.
type Span struct{ Start, End int64 }
