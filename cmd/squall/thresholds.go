package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"squall/dissect/storm"
)

// judgingFlags are for verbs that judge: by which calm day, and from where on.
func (s *source) judgingFlags(cmd *cobra.Command) {
	s.baselineFlag(cmd)
	s.thresholdFlag(cmd)
}

func (s *source) thresholdFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.thresholds, "threshold", nil, "NAME=NUMBER: one of the numbers that a verdict turns on, as failure=0.6 or in_a_row=20; squall explain names those that matter for a finding, docs/evaluation.md lists all, with their defaults and how far each is from turning a verdict. A directory that analyze -o kept is judged by those that it was made under")
}

// thresholdsOf reads what --threshold says.
func thresholdsOf(list []string) (t storm.Thresholds, err error) {
	for _, text := range list {
		name, number, _ := strings.Cut(text, "=")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !(v > 0) || math.IsInf(v, 0) {
			return t, exitError{exitUsage, fmt.Errorf("--threshold %q: want NAME=NUMBER, the number above 0", text)}
		}
		if !t.Set(name, v) {
			return t, exitError{exitUsage, fmt.Errorf("--threshold %q: unknown; there are %s", text, strings.Join(thresholdNames(), ", "))}
		}
	}
	return t, nil
}

func thresholdNames() (names []string) {
	for _, t := range (storm.Thresholds{}).All() {
		names = append(names, t.Name)
	}
	return names
}

// madeUnder takes up what a kept analysis was made under, where nothing else is
// given now: its thresholds, and the files of --events, --groups and --baseline, if
// they lie where they lay and are what they were.
func (s *source) madeUnder(cmd *cobra.Command, dir string) {
	c, err := readCustody(dir)
	if err != nil {
		return
	}
	s.thresholds = append(c.overridden(), s.thresholds...)
	for _, a := range c.Arguments {
		if most, ok := strings.CutPrefix(a, "--max-nodes="); ok && !cmd.Flags().Changed("max-nodes") {
			s.maxNodes, _ = strconv.Atoi(most) // 0 = as many as ever
		}
	}
	same := func(what string, f *sealed) bool {
		now, err := seal(f.Name, f.Name)
		if err == nil && now == *f {
			return true
		}
		if !s.quiet {
			fmt.Fprintf(cmd.ErrOrStderr(), "squall: %s %s is not what it was when %s was made, and is left out\n", what, f.Name, dir)
		}
		return false
	}
	if s.events == "" && c.Events != nil && same("--events", c.Events) {
		s.events = c.Events.Name
		for _, a := range c.Arguments {
			if zone, ok := strings.CutPrefix(a, "--tz="); ok && s.tz == "" {
				s.tz = zone // its times may be in it
			}
		}
	}
	for i := 0; i < len(c.Groups) && !cmd.Flags().Changed("groups"); i++ {
		if same("--groups", &c.Groups[i]) {
			s.groups = append(s.groups, c.Groups[i].Name)
		}
	}
	if len(s.baselines) > 0 || len(c.Baseline) == 0 {
		return
	}
	for i := range c.Baseline {
		if !same("--baseline", &c.Baseline[i]) {
			return
		}
	}
	if c.Hints != nil && !same("--hints of the calm day,", c.Hints) {
		return
	}
	s.calmFiles = c.Baseline
	for _, a := range c.Arguments { // it was read as the captures were
		switch flag, value, _ := strings.Cut(a, "="); flag {
		case "--baseline":
			s.baselines = append(s.baselines, value)
		case "--filter":
			s.calmFilter = value
		case "--hints":
			s.calmHints = value
		case "--keep-duplicates":
			s.calmDuplicates = true
		}
	}
}

// overridden are the thresholds among the arguments.
func (c *custody) overridden() (list []string) {
	for _, a := range c.Arguments {
		if t, ok := strings.CutPrefix(a, "--threshold="); ok {
			list = append(list, t)
		}
	}
	return list
}
