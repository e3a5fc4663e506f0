package storm

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
)

// clock is the time of day in the zone of the texts.
func (q *Quality) clock(ns int64) string {
	t := time.Unix(0, ns).UTC()
	if q.Zone != nil {
		t = t.In(q.Zone)
	}
	return t.Format("15:04:05.000")
}

func span(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d >= time.Hour:
		return d.Round(time.Minute).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// many is a number of things, in the singular where it is one.
func many(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return Thousands(n) + " " + more
}

// Thousands is a number with a comma before every three digits.
func Thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for at := len(s) - 3; at > 0 && s[at-1] != '-'; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// sentence says a finding in plain words with its numbers.
func (f *Finding) sentence(c *cascade, q *Quality) string {
	var b strings.Builder
	until := "to the end of the capture"
	if f.End != 0 {
		until = "until " + q.clock(f.End)
	}
	when := fmt.Sprintf("from %s %s", q.clock(f.Onset), until)
	switch f.Class {
	case RetryStorm:
		in := "all got in at last"
		if f.NeverIn > 0 {
			in = Thousands(f.NeverIn) + " never got in"
		}
		fmt.Fprintf(&b, "Retry storm on %s %s: %s for %s (A = %.1f), %.0f %% of the decided ones failed, %s hit, %s",
			f.Service, when, many(f.Attempts, "attempt", "attempts"), many(f.Intents, "intent", "intents"), f.Amplification(), 100*f.failure(), many(f.Clients, "client", "clients"), in)
		if f.Cascade && c != nil {
			fmt.Fprintf(&b, "; a cascade: %s fell, %v first", many(int64(len(c.falls)), "node", "nodes"), c.falls[0].key.at)
		}
		if f.Excess > 1.5 {
			fmt.Fprintf(&b, "; load on the other nodes %.0f times beyond mere redistribution", f.Excess)
		}
	case PartialOutage:
		how := "but clients hardly repeated them"
		if f.brief {
			how = "and clients repeated them, but it was over before a storm could set in"
		} else if f.asked*2 > f.Retries {
			how = "and clients came back when the nodes had asked them to"
		} else if f.Clients < 3 && f.RetryShare() >= 0.5 {
			how = "and clients repeated them as in a storm, if others did the same"
		} else if f.RetryShare() >= 0.3 {
			how = "and clients repeated them, but not enough for a storm"
		}
		if f.Intents > 0 {
			how += fmt.Sprintf(" (A = %.2f)", f.Amplification())
		}
		fmt.Fprintf(&b, "Partial outage of %s %s: %.0f %% of the decided attempts failed, %s; %s hit", f.Service, when, 100*f.failure(), how, many(f.Clients, "client", "clients"))
	case PathLoss:
		fmt.Fprintf(&b, "Packets are lost on the way to %s %s: %.2f transmissions an attempt while the nodes answer in time", f.Service, when,
			ratio(f.Transmissions, f.Attempts))
	case SynFlood:
		fmt.Fprintf(&b, "SYN flood on %s %s: %.0f %% of %s come from sources that no real stack stands behind", f.Service, when,
			100*ratio(f.unreal, f.Attempts), many(f.Attempts, "attempt", "attempts"))
	case ApplicationFlood:
		fmt.Fprintf(&b, "Application flood on %s %s: %.1f times the usual intents, %.0f %% of the attempts by sources that had just been served and closed", f.Service,
			when, f.Surge, 100*ratio(f.insisted, f.Attempts))
	case FlashCrowd:
		fmt.Fprintf(&b, "Flash crowd on %s %s: %.1f times the usual intents, served (%.0f %% failed)", f.Service, when, f.Surge, 100*f.failure())
	case MassReconnect:
		fmt.Fprintf(&b, "Mass reconnect on %s %s: %s came back at once, %.1f times the usual intents, served", f.Service, when,
			many(f.reattached, "client that was attached", "clients that were attached"), f.Surge)
	case RefreshSurge:
		fmt.Fprintf(&b, "Refreshes of %s multiplied %s though nobody was lost", f.Service, when)
	case SingleOffender:
		fmt.Fprintf(&b, "One client, %s, tried %s %s times in vain %s while others were served", f.Offender, f.Service, Thousands(f.Attempts), when)
	case Scan:
		fmt.Fprintf(&b, "Scan by %s %s: %s at ever new destinations", cmp.Or(f.Offender, many(f.Clients, "source", "sources")), when, many(f.Attempts, "attempt", "attempts"))
	case InsufficientEvidence:
		fmt.Fprintf(&b, "The capture cannot tell: %s", strings.Join(f.Reasons, "; "))
	}
	if f.Retrigger {
		b.WriteString("; re-triggered after the service had come back")
	}
	if f.shut > 0 {
		fmt.Fprintf(&b, "; sessions from before lived on at %s that answered nobody new: a filter or a full connection table", many(int64(f.shut), "node", "nodes"))
	}
	if f.Metastable {
		b.WriteString("; it kept itself going although no more clients than usual wanted in")
	}
	if f.Class == RetryStorm || f.Class == PartialOutage {
		if f.Recovered {
			b.WriteString("; recovered")
		} else if f.End == 0 {
			b.WriteString("; not recovered in the capture")
		}
	}
	b.WriteByte('.')
	return b.String()
}

// failure ratio of a finding, with what clients of a one-sided capture took
// for failures.
func (f *Finding) failure() float64 {
	failed := f.Outcomes.Failed() + f.implied
	return ratio(failed, failed+f.Outcomes[dissect.OutcomeAccepted])
}
