// Package pipeline runs the stages: packets, datagrams, records, rows.
package pipeline

import (
	"iter"
	"strings"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/storm"
	"squall/dissect/taps"
)

// Config of a run.
type Config struct {
	Workers        int // 0 = GOMAXPROCS
	Protocols      []dissect.Protocol
	KeepDuplicates bool
	// Shard leaves all flows but its own to other runs; their packets are in
	// no bucket of the ledger.
	Shard Shard
	// CountOnly leaves out the rows: captures and the ledger are all there is.
	CountOnly bool
	// Filter says whether a packet is analysed; nil = all.
	Filter func(*dissect.Datagram, *capture.Packet) bool
	// Window is what is analysed, as if the capture began and ended with it;
	// packets outside are "filtered".
	Window   capture.Window
	Hints    dissect.Hints
	MaxFlows int            // followed at the same time, 0 = DefaultFlows
	MaxNodes int            // with a row each, those with most attempts; 0 = attempt.MaxNodes
	MaxNames int            // of clients, and of versions and the like; 0 = attempt.MaxNames
	Progress func(Progress) // called once for each batch; nil = none
	// Clocks are what a survey of several taps found; nil = there was none.
	Clocks *taps.Clocks
	// Records adds attempts that others have written down, whose inputs are
	// numbered from first; nil = none. It says what the inputs were, and the time
	// they span.
	Records func(names *attempt.Names, first uint32, add func(*attempt.Record)) (inputs []Capture, from, to int64, err error)
	// Logger says who wrote down what Records adds just now, where there are
	// several; what two of them saw counts once. nil = there is one.
	Logger func() string
	// Keep is called after each batch, and once more where the run is broken off:
	// the state may then be written, to go on from it in another run. nil = never.
	// It wants files that can be read again, and no Records.
	Keep func(s *State, broken bool)
	// From is such a state; nil = a run from the begin. The source must have been
	// opened with its marks.
	From *Kept
	// Made are words that Save keeps, to be told again by Pieces.
	Made         []string
	RecordMemory int64 // bytes of attempts kept in memory before the rest goes to a temporary file; 0 = 40 MiB
	Part         int   // attempts that the second pass has in hand at a time for each worker; 0 = 65536
	RecordTemp   int64 // ceiling of that file, bytes; 0 = none
}

// DefaultFlows is how many flows are followed at the same time, some 600 bytes
// each. One more, and one of a few gives way, which is counted: the idlest of those
// whose attempts have failed, else the idlest, of which what was open is unknown. A
// SYN that nobody answers is decided after ten seconds, so that a flood of 50,000
// clients a second is.
const DefaultFlows = shards * flowsByShard

func (c *Config) flowsByShard() int {
	if c.MaxFlows <= 0 {
		return flowsByShard
	}
	return max(c.MaxFlows/shards, 1)
}

// Progress of a run.
type Progress struct {
	Packets int64
	Time    int64 // of the last packet, ns
}

// Capture is one input with what became of its packets.
type Capture struct {
	capture.FileStats
	Ledger dissect.Ledger
	// Quoted is an input that was not read: rows of a table that was say that
	// they come from it.
	Quoted bool
}

// Dataset is what the rows of an input were read from: "packets", or a log or
// table, as zeek.conn.
func (c *Capture) Dataset() string {
	switch {
	case c.Quoted:
		return c.Format
	case c.Format == "" || c.Format == "pcap" || c.Format == "pcapng" || len(c.LinkTypes) > 0:
		return "packets"
	}
	return strings.ReplaceAll(c.Format, " ", ".")
}

// TransportOnly reports an input that tells of connections alone: nothing of
// the application, of repeats after the handshake, of when answers came.
func (c *Capture) TransportOnly() bool {
	d := c.Dataset()
	return strings.HasPrefix(d, "zeek.") || strings.HasPrefix(d, "suricata.")
}

// Analysis holds the results of a run.
type Analysis struct {
	captures                []Capture
	first, last             int64
	gaps                    []storm.Span
	shard                   Shard
	workers                 int
	evicted                 int64 // flows given up early
	settled                 int64 // and of them those of which every attempt had failed
	clientsOneIn, saidOneIn int64 // see attempt.Names.OneIn; 0 = not known
	seen                    Seen
	made                    []string // words, see Config.Made
	pieces                  *Pieces  // of several runs that it was joined of; nil = one run
	result                  rows
}

// Close gives memory and temporary file back.
func (a *Analysis) Close() error { return a.result.Close() }

// Captures describes the inputs.
func (a *Analysis) Captures() []Capture { return a.captures }

// Ledger is the sum over all inputs.
func (a *Analysis) Ledger() (l dissect.Ledger) {
	for i := range a.captures {
		l.Add(&a.captures[i].Ledger)
	}
	return l
}

// Span is the earliest and latest packet time, ns.
func (a *Analysis) Span() (first, last int64) { return a.first, a.last }

// Attempts gives the attempts by start, then id.
func (a *Analysis) Attempts() iter.Seq2[*dissect.Attempt, error] { return a.result.Attempts(a.workers) }

// Intents gives the intents by start, then id.
func (a *Analysis) Intents() iter.Seq2[*dissect.Intent, error] { return a.result.Intents(a.workers) }

// Clients gives the clients, with what each did. Their order is fixed by
// content: by partition, then id.
func (a *Analysis) Clients() iter.Seq2[*storm.Client, error] {
	return func(yield func(*storm.Client, error) bool) {
		err := a.result.Walk(func(c *dissect.Client, attempts iter.Seq[*dissect.Attempt]) bool {
			row := storm.Summarise(c, attempts)
			return yield(&row, nil)
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// Visit hands everything to one visitor per worker, in parallel. They are made one
// after the other; which clients one sees, and in which order, is left to chance.
func (a *Analysis) Visit(newVisitor func(worker int) dissect.Visitor) error {
	return a.result.Visit(a.workers, newVisitor)
}
