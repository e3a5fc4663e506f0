package attempt

import "squall/dissect"

// Stats counts what the rows do not show.
type Stats struct {
	Records     int64 // emitted
	Evicted     int64 // flows given up early because MaxFlows was reached,
	Settled     int64 // and of them those whose attempts had failed: they lost late answers alone
	Duplicates  int64 // frames seen twice within 5 ms, kept or not
	Copies      int64 // packets seen at another point before, kept or not
	InvalidRST  int64 // RSTs whose numbers fit no attempt (rule 4)
	ServerISN   int64 // SYN-ACKs with another server ISN than the first (rule 11)
	StrayICMP   int64 // ICMP errors that answer no open attempt
	LateAnswers int64 // answers that found their attempt given up (rule 30)
	Answers     int64 // all answers, late ones included
	Backscatter int64 // SYN-ACKs without a SYN (rule 15)
	MidStream   int64 // TCP segments of flows whose SYN was not captured
	GivenUp     int64 // stream directions that could not be read in order
	Live        int   // flows held now
}

// Ledger gives the buckets of the packets of one input that Datagram was given.
func (e *Engine) Ledger(file uint32) dissect.Ledger {
	if l := e.ledgers[file]; l != nil {
		return *l
	}
	return dissect.Ledger{}
}

// Stats gives the counters so far.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.Live = e.index.n
	return s
}

func (e *Engine) count(file uint32, b dissect.Bucket) {
	if e.ledger == nil || e.ledgerFile != file {
		l := e.ledgers[file]
		if l == nil {
			l = new(dissect.Ledger)
			e.ledgers[file] = l
		}
		e.ledger, e.ledgerFile = l, file
	}
	e.ledger[b]++
}
