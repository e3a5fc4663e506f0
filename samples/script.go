package samples

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// does is what a step needs beside its time: nodes, a number, a stretch of time.
type does struct{ nodes, factor, within bool }

// steps are all that a script can do.
var steps = map[string]does{
	"down": {nodes: true}, "close": {nodes: true}, "up": {nodes: true}, "slow": {nodes: true, factor: true}, "full": {nodes: true},
	"shut": {nodes: true}, "open": {nodes: true},
	"restart": {within: true}, "crash": {}, "add": {factor: true}, "admit": {factor: true}, "budget": {factor: true},
	"refresh": {within: true}, "bots": {factor: true, within: true}, "rollout": {within: true},
}

// ParseScript reads steps in the language of replay's scripts, a line or a part
// between semicolons each, nodes counted from 1:
//
//	at 5m: node 1,2,3 down; at 6m: all up
//	at 5m: node 1 slow 0.3; at 5m10s: node 1 full
//	at 5m: restart within 20s; at 6m: add 2
func ParseScript(text string, nodes int) (script []Step, err error) {
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ';' }) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		s, err := parseStep(line, nodes)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		script = append(script, s)
	}
	return script, nil
}

func parseStep(line string, nodes int) (s Step, err error) {
	when, what, ok := strings.Cut(line, ":")
	when, at := strings.CutPrefix(when, "at ")
	if s.At, err = time.ParseDuration(strings.TrimSpace(when)); !ok || !at || err != nil {
		return s, fmt.Errorf("want at TIME: and what happens, as at 5m: node 1,2 down")
	}
	words := strings.Fields(what)
	next := func() (w string) {
		if len(words) > 0 {
			w, words = words[0], words[1:]
		}
		return w
	}
	if s.Do = next(); s.Do == "all" {
		for i := range nodes {
			s.Nodes = append(s.Nodes, i)
		}
		s.Do = next()
	} else if s.Do == "node" {
		for _, text := range strings.Split(next(), ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > nodes {
				return s, fmt.Errorf("node %q: want numbers from 1 to %d", text, nodes)
			}
			s.Nodes = append(s.Nodes, n-1)
		}
		s.Do = next()
	}
	want := steps[s.Do]
	if want.factor {
		text := next()
		if s.Factor, err = strconv.ParseFloat(text, 64); err != nil {
			return s, fmt.Errorf("%s wants a number, not %q", s.Do, text)
		}
	}
	if want.within {
		if next() != "within" {
			return s, fmt.Errorf("%s wants a time: within 20s", s.Do)
		}
		if s.Within, err = time.ParseDuration(next()); err != nil {
			return s, err
		}
	}
	if len(words) > 0 {
		return s, fmt.Errorf("%q is left over", words[0])
	}
	return s, s.check()
}

func (s *Step) check() error {
	want, ok := steps[s.Do]
	switch {
	case !ok:
		var names []string
		for name := range steps {
			names = append(names, name)
		}
		slices.Sort(names)
		return fmt.Errorf("%q: want %s", s.Do, strings.Join(names, ", "))
	case s.At < 0 || s.Within < 0:
		return fmt.Errorf("%s at %v within %v: want times from 0 on", s.Do, s.At, s.Within)
	case want.nodes != (len(s.Nodes) > 0):
		if want.nodes {
			return fmt.Errorf("%s wants nodes: node 1,2 %s, or all %s", s.Do, s.Do, s.Do)
		}
		return fmt.Errorf("%s is nothing that single nodes do", s.Do)
	case math.IsNaN(s.Factor) || s.Factor < 0 || s.Factor > 1e6:
		return fmt.Errorf("%s %g: want a number from 0 to 1e6", s.Do, s.Factor)
	case s.Do == "refresh" && s.Within < time.Second:
		return fmt.Errorf("refresh within %v: want a second or more", s.Within)
	}
	for _, n := range s.Nodes {
		if n < 0 {
			return fmt.Errorf("%s names node %d", s.Do, n)
		}
	}
	return nil
}

// ParseVersions reads shares of clients: NAME SHARE [crash SHARE], with commas
// between them, as 'Phone/2.1 60%, Phone/1.9 40% crash 0.4'.
func ParseVersions(text string, share func(string) (float64, error)) (list []Version, err error) {
	sum := 0.0
	for _, part := range strings.Split(text, ",") {
		f := strings.Fields(part)
		if len(f) != 2 && (len(f) != 4 || f[2] != "crash") {
			return nil, fmt.Errorf("%q: want NAME SHARE, or NAME SHARE crash SHARE", strings.TrimSpace(part))
		}
		v := Version{Name: f[0]}
		if v.Share, err = share(f[1]); err == nil && len(f) == 4 {
			v.Crash, err = share(f[3])
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", strings.TrimSpace(part), err)
		}
		sum += v.Share
		list = append(list, v)
	}
	if math.Abs(sum-1) > 0.001 {
		return nil, fmt.Errorf("the shares add up to %g, not to 1", sum)
	}
	return list, nil
}
