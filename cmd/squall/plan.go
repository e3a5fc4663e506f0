package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/replay"
	"squall/reports"
)

// demand analyses captures, or takes up what analyze -o kept of them.
func (s *source) demand(cmd *cobra.Command, args []string) (*reports.Results, error) {
	pieces, done, err := openPieces(args)
	if errors.Is(err, errNoPiece) || len(args) == 0 {
		return s.analyse(cmd, args)
	}
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	defer done()
	if err := s.forCaptures(args[0]); err != nil {
		return nil, err
	}
	if len(args) == 1 && !s.calm {
		s.madeUnder(cmd, args[0])
	}
	if pieces.Config, err = s.config(); err != nil {
		return nil, err
	}
	a, err := pieces.Join()
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	return s.told(cmd, a)
}

// forCaptures refuses the flags that a kept analysis was made under.
func (s *source) forCaptures(dir string) error {
	for _, f := range []struct {
		name string
		set  bool
	}{{"filter", s.filter != ""}, {"after", s.after != ""}, {"before", s.before != ""}, {"clock", len(s.clocks) > 0}, {"keep-duplicates", s.keepDuplicates}} {
		if f.set {
			return exitError{exitUsage, fmt.Errorf("--%s is for captures, and %s was made of them before: squall analyze --%s makes another, squall report --where chooses among rows", f.name, dir, f.name)}
		}
	}
	return nil
}

// planFlags are what chooses the demand.
type planFlags struct {
	options   replay.PlanOptions
	mode      string
	overrides []string
	budget    string
	trips     bool
}

func (p *planFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.options.Service, "service", "", "only this service (squall report nodes lists them)")
	f.DurationVar(&p.options.From, "from", 0, "only what began this long after the capture did")
	f.DurationVar(&p.options.To, "to", 0, "and before this")
	f.Float64Var(&p.options.ScaleClients, "scale-clients", 1, "whole clients, times this")
	f.StringArrayVar(&p.overrides, "override", nil, "'policy: exponential(1s, x2, cap 60s, full)', or 'policy GROUP: cap 300s'")
	f.StringVar(&p.budget, "budget", "", "retries that each first attempt pays for, such as 10%")
	f.Uint64Var(&p.options.Seed, "seed", 1, "of everything that is drawn")
}

// parse reads the texts among the flags.
func (p *planFlags) parse() (err error) {
	if p.options.Mode, err = replay.ParseMode(p.mode); err == nil {
		p.options.Overrides, err = parseOverrides(p.overrides, p.budget)
	}
	if err != nil {
		return exitError{exitUsage, err}
	}
	return nil
}

func parseOverrides(texts []string, budget string) (list []replay.Override, err error) {
	if budget != "" {
		texts = append(texts[:len(texts):len(texts)], "policy: budget "+budget)
	}
	for _, text := range texts {
		o, err := replay.ParseOverride(text)
		if err != nil {
			return nil, fmt.Errorf("--override %q: %w", text, err)
		}
		list = append(list, o)
	}
	return list, nil
}

// plan makes the plan of the sources.
func (p *planFlags) plan(cmd *cobra.Command, in *source, args []string) (*replay.Plan, *reports.Results, error) {
	results, err := in.demand(cmd, args)
	if err != nil {
		return nil, nil, err
	}
	report, err := results.Report()
	if err == nil {
		for _, c := range results.Analysis.Captures() {
			p.options.Sources = append(p.options.Sources, filepath.Base(c.Path))
		}
		var plan *replay.Plan
		if plan, err = replay.NewPlan(results.Analysis, report, p.options); err == nil {
			if err = p.learn(in, plan, args); err == nil {
				return plan, results, nil
			}
		}
	}
	results.Analysis.Close()
	return nil, nil, exitError{exitFailed, err}
}

// learn reads the captures again for what clients sent first.
func (p *planFlags) learn(in *source, plan *replay.Plan, args []string) error {
	if !p.options.Payloads && !p.trips {
		return nil
	}
	inputs := append(append([]string{}, in.files...), args...)
	if slices.Contains(inputs, "-") {
		return errors.New("--payloads and --round-trips read the capture twice; give it a file")
	}
	src, err := capture.Open(inputs, capture.Options{})
	if err != nil {
		return fmt.Errorf("--payloads and --round-trips want the captures themselves: %w", err)
	}
	defer src.Close()
	return plan.Learn(src, p.trips)
}

func planCommand() *cobra.Command {
	var in source
	var p planFlags
	var out, format string
	cmd := &cobra.Command{
		Use:   "plan SOURCE... -w PLAN",
		Short: "what to replay: the demand of a capture and the policies of its clients",
		Long: `plan takes from captures (or from a directory that analyze -o kept) what clients
wanted: when, of which node, for how long, and how they retry. It sends nothing.
-w keeps it as JSON lines for squall replay; the summary goes to standard output,
with how much of the recorded demand the plan covers and what it leaves out, why.

--mode intent (default) plans the intents; the attempts arise from the policies
and from how the target behaves. --mode attempt plans every recorded attempt at
its time, whatever becomes of it: good for a load at a known rate, wrong for
"would it happen again", since it condemns healthy targets.

Requests are made anew from the protocol's rules, and nothing recorded is kept.
--payloads keeps, for protocols that squall does not speak and whose requests may
be said twice, up to eight first requests of each node as they were recorded.
Passwords, tokens and cookies in them are blanked, where the protocol is known;
with --keep-secrets they stay: keep such a plan as you keep the capture.

--round-trips keeps how long the clients' TCP handshakes took, for squall replay
--netem.`,
		Example: `  squall sample skype-2010 -w skype.pcapng
  squall plan skype.pcapng -w skype.plan
  squall plan skype.pcapng -w gentle.plan --override 'policy: exponential(1s, x2, cap 60s, full)'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.parse(); err != nil {
				return err
			}
			if format != "text" && format != "markdown" && format != "json" {
				return exitError{exitUsage, fmt.Errorf("format %q: the summary of a plan is text, markdown or json", format)}
			}
			if p.options.Mode == replay.PacketMode {
				return exitError{exitUsage, errors.New("packet mode replays the capture itself and has no plan: squall replay packets")}
			}
			plan, results, err := p.plan(cmd, &in, args)
			if err != nil {
				return err
			}
			defer results.Analysis.Close()
			summary := cmd.OutOrStdout()
			if out != "" {
				if out == "-" {
					summary = cmd.ErrOrStderr()
				}
				if err := emit(cmd, out, plan.Write); err != nil {
					return err
				}
			}
			switch format {
			case "json":
				err = encode(summary, plan.Digest())
			case "markdown":
				err = planTable(summary, plan)
			default:
				_, err = io.WriteString(fold(summary), plan.Summary())
			}
			if err != nil {
				return exitError{exitFailed, err}
			}
			if err := interrupted(cmd); err != nil {
				return err
			}
			return in.damaged(results)
		},
	}
	in.flags(cmd)
	p.flags(cmd)
	cmd.Flags().StringVar(&p.mode, "mode", "intent", "intent or attempt")
	cmd.Flags().BoolVar(&p.trips, "round-trips", false, "keep how long the clients' TCP handshakes took, for squall replay --netem")
	cmd.Flags().BoolVar(&p.options.Payloads, "payloads", false, "keep what clients sent first at nodes whose protocol squall does not speak, to be sent again as it is")
	cmd.Flags().BoolVar(&p.options.KeepSecrets, "keep-secrets", false, "of --payloads: passwords, tokens and cookies, too")
	cmd.Flags().StringVarP(&out, "write", "w", "", "file for the plan, - for standard output")
	cmd.Flags().StringVarP(&format, "format", "T", "text", "of the summary: text, markdown or json")
	return cmd
}

// planTable is the summary as Markdown.
func planTable(w io.Writer, p *replay.Plan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Plan of %s\n\n| | |\n|---|---|\n%s", strings.Join(p.Sources, ", "), planRows(p))
	for i := range p.Nodes {
		fmt.Fprintf(&b, "| node %d | %s %s %s |\n", i+1, p.Nodes[i].Address, p.Nodes[i].Protocol, p.Nodes[i].Role)
	}
	for i := range p.Groups {
		g := &p.Groups[i]
		fmt.Fprintf(&b, "| policy | %s on %s: %v (%s) |\n", g.Name, g.Service, g.Policy, g.Basis)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// planRows are the rows that the page of a plan and a change ticket have in common.
func planRows(p *replay.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| plan | sha256 `%s` |\n| mode | %s |\n| clients | %d |\n", p.Hash(), p.Mode, p.Clients)
	b.WriteString(p.Coverage.Rows())
	return b.String()
}
