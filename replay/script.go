package replay

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Action is what a script does to a node.
type Action uint8

// Actions.
const (
	Down  Action = iota // silent: nothing is answered, sessions are found dead by keepalives
	Close               // every session is ended, everybody is refused
	Raise               // up again
	Scale               // capacity times Value
	Delay               // Value seconds on top of every answer
	numActions
)

var actionNames = [numActions]string{"down", "close", "up", "capacity", "delay"}

func (a Action) String() string { return actionNames[a] }

// Event is a line of a trigger script.
type Event struct {
	At    time.Duration // from the beginning of the run
	Node  int           // index, from 0; -1 = every node
	Do    Action
	Value float64
}

func (e Event) String() string {
	node := "node " + strconv.Itoa(e.Node+1)
	if e.Node < 0 {
		node = "all"
	}
	s := fmt.Sprintf("at %s: %s %v", short(e.At), node, e.Do)
	if e.Do == Scale || e.Do == Delay {
		s += " " + strconv.FormatFloat(e.Value, 'g', -1, 64)
	}
	return s
}

// ParseScript reads a trigger script, a line or a part between semicolons for
// each event, nodes counted from 1:
//
//	at 30s: node 2 down
//	at 40s: node 2 up
//	at 30s: all capacity 0.3; at 40s: all capacity 1
//	at 50s: node 1 delay 8
//
// The events come back in time order. Errors name the event, from 1.
func ParseScript(text string) (events []Event, err error) {
	n := 0
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ';' }) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		n++
		e, err := parseEvent(line)
		if err != nil {
			return nil, fmt.Errorf("script: event %d, %q: %w", n, line, err)
		}
		events = append(events, e)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return int(min(max(a.At-b.At, -1), 1)) })
	return events, nil
}

func parseEvent(line string) (e Event, err error) {
	when, what, ok := strings.Cut(line, ":")
	when, at := strings.CutPrefix(when, "at ")
	if !ok || !at {
		return e, fmt.Errorf("want at TIME: node N down, close, up, capacity FACTOR or delay SECONDS")
	}
	if e.At, err = time.ParseDuration(strings.TrimSpace(when)); err != nil || e.At < 0 || e.At > waitMost {
		return e, fmt.Errorf("%q: want a time such as 30s, at most 24h", when)
	}
	words := strings.Fields(what)
	switch {
	case len(words) > 1 && words[0] == "all":
		e.Node, words = -1, words[1:]
	case len(words) > 2 && words[0] == "node":
		if e.Node, err = strconv.Atoi(words[1]); err != nil || e.Node < 1 || e.Node > 1<<16 {
			return e, fmt.Errorf("%q: want the number of a node, from 1", words[1])
		}
		e.Node, words = e.Node-1, words[2:]
	default:
		return e, fmt.Errorf("want node N or all, then what happens to it")
	}
	i := slices.Index(actionNames[:], words[0])
	if i < 0 {
		return e, fmt.Errorf("%q: want %s", words[0], strings.Join(actionNames[:], ", "))
	}
	e.Do = Action(i)
	if e.Do != Scale && e.Do != Delay {
		if len(words) > 1 {
			return e, fmt.Errorf("%q is left over", words[1])
		}
		return e, nil
	}
	if len(words) != 2 {
		return e, fmt.Errorf("%s wants one number", words[0])
	}
	if e.Value, err = strconv.ParseFloat(words[1], 64); err != nil || !(e.Value >= 0 && e.Value <= 1e6) {
		return e, fmt.Errorf("%q: want a number from 0 to 1e6", words[1])
	}
	return e, nil
}
