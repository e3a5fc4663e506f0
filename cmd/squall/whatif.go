package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/replay"
	"squall/reports"
)

// changeFlags are the changes of squall whatif.
type changeFlags struct {
	budget, policy, nodes, throttle, upgrade string
	overrides                                []string
	restart, each                            bool
}

func whatifCommand() *cobra.Command {
	var in source
	var opt replay.CaseOptions
	var c changeFlags
	var since, format, colour, out string
	cmd := &cobra.Command{
		Use:   "whatif CASE",
		Short: "the recorded storm with other clients or more nodes: would it have happened, when is everybody back",
		Long: `whatif takes captures, or a directory that analyze -o kept, and plays the recorded
intents again in virtual time: clients with their inferred retry policies, nodes
with the capacity and limits that the capture shows. It sends nothing.

First it hindcasts: fitted on the first half of the storm, does the model tell
the second half? Where it does not, whatif says why, answers nothing and exits
with 1. Without flags it tries a standard set of changes; flags make one change
of all that they name:

  --budget 10%          retries that each first attempt pays for
  --policy POLICY       other clients, such as 'exponential(1s, x2, cap 60s, full)'
  --override TEXT       'policy GROUP: cap 300s', for one group or one term
  --upgrade 50%         only this share of the clients gets the budget or policy
  --nodes +2, +2x30     more nodes, ordinary ones or of thirty times the size
  --throttle 40/s       a limiter before each node; --throttle best looks for the rate
  --restart             every node that is down comes up when the changes begin
  --each                these changes one by one, a row for each of them

--since begin lets changes hold all along (what would have spared us this?);
--since now lets them begin where the capture ends (how do we get out?), which is
the default for a capture that ends in the storm.

Exit status: 0 done, 1 no storm or the hindcast failed, 2 unreadable input.`,
		Example: `  squall sample skype-2010 -w skype.pcapng
  squall whatif skype.pcapng
  squall whatif skype.pcapng --nodes +2x30 --budget 10%
  squall whatif skype.pcapng --each --budget 10% --nodes +2 --policy 'exponential(1s, x2, cap 60s, full)' --throttle 40/s --upgrade 50%
  squall whatif running.pcapng --since now --throttle best -T markdown`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "markdown" && format != "json" {
				return exitError{exitUsage, fmt.Errorf("format %q: whatif writes text, markdown or json", format)}
			}
			if since != "" && since != "begin" && since != "now" {
				return exitError{exitUsage, fmt.Errorf("--since %q: want begin or now", since)}
			}
			if opt.Seeds < 1 || opt.Seeds > 1000 || opt.Horizon < 0 || opt.Horizon > 24*time.Hour {
				return exitError{exitUsage, errors.New("want 1 to 1000 seeds and a horizon of at most 24h")}
			}
			list, err := c.list()
			if err != nil {
				return exitError{exitUsage, err}
			}
			standard := len(list) == 0
			look, err := lookOf(cmd, colour)
			if err != nil {
				return err
			}
			results, err := in.demand(cmd, args)
			if err != nil {
				return err
			}
			defer results.Analysis.Close()
			report, err := results.Report()
			if err != nil {
				return exitError{exitFailed, err}
			}
			for _, x := range results.Analysis.Captures() {
				opt.Sources = append(opt.Sources, filepath.Base(x.Path))
			}
			opt.Now = since == "now" || since == "" && !report.Verdict.Recovered && report.Verdict.End == 0
			tty := !in.quiet && isTerminal(cmd.ErrOrStderr())
			if tty {
				opt.Progress = func(done, all int) { fmt.Fprintf(cmd.ErrOrStderr(), "\r\x1b[K%d of %d runs", done, all) }
			}
			story, err := replay.NewCase(results.Analysis, report, opt)
			if err != nil {
				return exitError{exitFailed, err}
			}
			if standard {
				if list, err = standardSet(opt.Now, story.Down()); err != nil {
					return exitError{exitFailed, err}
				}
			}
			f, err := story.Forecast(cmd.Context(), list)
			if tty {
				fmt.Fprint(cmd.ErrOrStderr(), "\r\x1b[K")
			}
			if err != nil {
				if e := interrupted(cmd); e != nil {
					return e
				}
				return exitError{exitFailed, err}
			}
			if err := emit(cmd, out, func(w io.Writer) error { return reports.WriteForecast(w, f, format, look) }); err != nil {
				return err
			}
			if !f.Hindcast.Passed {
				return exitError{exitFailed, errors.New("the hindcast failed, so there is no forecast: " + strings.Join(f.Hindcast.Reasons, "; "))}
			}
			return in.damaged(results)
		},
	}
	in.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&opt.Service, "service", "", "another service than that of the verdict")
	f.StringVar(&c.budget, "budget", "", "retries that each first attempt pays for, such as 10%")
	f.StringVar(&c.policy, "policy", "", "of the clients, such as 'exponential(1s, x2, cap 60s, full)'")
	f.StringArrayVar(&c.overrides, "override", nil, "'policy GROUP: cap 300s'")
	f.StringVar(&c.upgrade, "upgrade", "", "share of the clients that gets the new policy, such as 50%")
	f.StringVar(&c.nodes, "nodes", "", "+N more nodes, or +NxSIZE")
	f.StringVar(&c.throttle, "throttle", "", "attempts per second let through to each node, such as 40/s, or best")
	f.BoolVar(&c.each, "each", false, "a row for each change that is named, instead of one of them all")
	f.BoolVar(&c.restart, "restart", false, "bring up every node that is down when the changes begin")
	f.StringVar(&since, "since", "", "begin or now: from when on changes hold")
	f.DurationVar(&opt.Horizon, "horizon", 0, "how long after the capture to look with --since now; 0 = twice the storm so far, 10m to 2h")
	f.IntVar(&opt.Seeds, "seeds", 20, "runs of each row")
	f.Uint64Var(&opt.Seed, "seed", 1, "of everything that is drawn")
	f.StringVarP(&format, "format", "T", "text", "text, markdown or json")
	f.StringVarP(&out, "write", "w", "-", "file to write, - for standard output")
	f.StringVar(&colour, "color", "auto", "auto, always or never")
	return cmd
}

// list is the change that the flags name, or each of them, after the storm as
// it was; empty where they name none.
func (c *changeFlags) list() ([]replay.WhatIf, error) {
	if !c.each {
		return c.together()
	}
	list := []replay.WhatIf{{Name: "as recorded"}}
	alone := []changeFlags{{budget: c.budget}, {policy: c.policy}}
	for _, o := range c.overrides {
		alone = append(alone, changeFlags{overrides: []string{o}})
	}
	for _, one := range append(alone, changeFlags{upgrade: c.upgrade}, changeFlags{nodes: c.nodes}, changeFlags{throttle: c.throttle}, changeFlags{restart: c.restart}) {
		rows, err := one.together()
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			list = append(list, rows[1:]...)
		}
	}
	if len(list) == 1 {
		return nil, errors.New("--each makes rows of the changes that are named: name some")
	}
	return list, nil
}

// together is one change of all that the flags name.
func (c *changeFlags) together() ([]replay.WhatIf, error) {
	if c.budget+c.policy+c.nodes+c.throttle+c.upgrade == "" && len(c.overrides) == 0 && !c.restart {
		return nil, nil
	}
	w := replay.WhatIf{Size: 1, Restart: c.restart}
	var name []string
	texts := c.overrides
	if c.policy != "" {
		texts = append(texts[:len(texts):len(texts)], "policy: "+c.policy)
		name = append(name, c.policy)
	}
	name = append(name, c.overrides...)
	if c.upgrade != "" && len(texts) == 0 && c.budget == "" {
		texts = []string{replay.Gentle}
		name = append(name, "full jitter, cap 60s")
	}
	var err error
	if w.Overrides, err = parseOverrides(texts, c.budget); err != nil {
		return nil, err
	}
	if c.budget != "" {
		name = append(name, "budget "+c.budget)
	}
	if c.upgrade != "" {
		digits := strings.TrimSuffix(c.upgrade, "%")
		v, err := strconv.ParseFloat(digits, 64)
		if digits != c.upgrade {
			v /= 100
		}
		if err != nil || !(v > 0 && v <= 1) {
			return nil, fmt.Errorf("--upgrade %q: want a share of the clients such as 50%%", c.upgrade)
		}
		w.Upgrade = v
		name = []string{fmt.Sprintf("%s upgraded: %s", c.upgrade, strings.Join(name, ", "))}
	}
	if c.nodes != "" {
		n, size, sized := strings.Cut(strings.TrimPrefix(c.nodes, "+"), "x")
		if w.Nodes, err = strconv.Atoi(n); err != nil || w.Nodes < 1 || w.Nodes > 1000 {
			return nil, fmt.Errorf("--nodes %q: want +N or +NxSIZE, such as +2 or +2x30", c.nodes)
		}
		if sized {
			if w.Size, err = strconv.ParseFloat(size, 64); err != nil || !(w.Size > 0 && w.Size <= 1e6) {
				return nil, fmt.Errorf("--nodes %q: want +NxSIZE, such as +2x30: two of thirty times the size", c.nodes)
			}
		}
		name = append(name, fmt.Sprintf("+%s nodes", strings.TrimPrefix(c.nodes, "+")))
	}
	if c.throttle != "" {
		if c.throttle == "best" {
			w.Throttle = -1
		} else if w.Throttle, err = strconv.ParseFloat(strings.TrimSuffix(c.throttle, "/s"), 64); err != nil || !(w.Throttle > 0 && w.Throttle <= 1e6) {
			return nil, fmt.Errorf("--throttle %q: want attempts per second such as 40/s, or best", c.throttle)
		}
		name = append(name, strings.TrimSuffix("throttled at "+c.throttle, " at best"))
	}
	if c.restart {
		name = append(name, "restarted")
	}
	w.Name = strings.Join(name, ", ")
	return []replay.WhatIf{{Name: "as recorded"}, w}, nil
}

// standardSet is what is tried where nobody names a change.
func standardSet(now bool, down int) ([]replay.WhatIf, error) {
	budget, err := parseOverrides(nil, "10%")
	if err != nil {
		return nil, err
	}
	gentle, err := parseOverrides([]string{replay.Gentle}, "")
	if err != nil {
		return nil, err
	}
	list := []replay.WhatIf{{Name: "as recorded"},
		{Name: "10 % retry budget", Overrides: budget},
		{Name: "full jitter, cap 60s", Overrides: gentle},
		{Name: "50 % upgraded", Overrides: gentle, Upgrade: 0.5},
		{Name: "+2 nodes", Nodes: 2},
		{Name: "throttled", Throttle: -1},
	}
	if now && down > 0 {
		list = append(list, replay.WhatIf{Name: "nodes restarted", Restart: true}, replay.WhatIf{Name: "restarted, throttled", Restart: true, Throttle: -1})
	}
	return list, nil
}
