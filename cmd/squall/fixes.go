package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/dissect/storm"
	"squall/replay"
	"squall/replay/testnode"
	"squall/reports"
)

// megaCapacity is what a mega-supernode serves, in ordinary nodes; it does not
// protect itself.
const megaCapacity = 30

// variant is a change that may help.
type variant struct {
	name     string
	override string
	admit    bool
	more     int
}

// variants are those that people argue about (storms.md section 2.1).
func variants(more int) []variant {
	return []variant{
		{name: "as recorded"},
		{name: "back-off with full jitter", override: "policy: exponential(1s, x2, cap 60s, full)"},
		{name: "retry budget 10%", override: "policy: budget 10%"},
		{name: "nodes admit what they serve", admit: true},
		{name: fmt.Sprintf("%d mega-supernodes more", more), more: more},
	}
}

// rehearsalMaxRate is the cap, attempts/s, of a run whose targets are its own.
const rehearsalMaxRate = 100_000

// rehearsal is a run against test nodes of this process.
type rehearsal struct {
	nodes int
	kind  replay.NodeConfig
	seed  uint64
}

// start makes the nodes, on a clock that runs as fast as the replay's.
func (h *rehearsal) start(p *replay.Plan, speed float64, v variant) (*testnode.Cluster, error) {
	any := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	cfg := h.kind
	if v.admit {
		cfg.Rate = cfg.Capacity
	}
	var list []testnode.Config
	for i := range h.nodes + v.more {
		if i == h.nodes {
			cfg = replay.NodeConfig{Capacity: megaCapacity * h.kind.Capacity}
		}
		plays := &p.Nodes[0] // one more than there were stands in for the first
		if i < len(p.Nodes) {
			plays = &p.Nodes[i]
		}
		d, ok := plays.Speaks()
		if !ok {
			return nil, fmt.Errorf("dialect %q is not known", plays.Dialect)
		}
		list = append(list, testnode.Config{Listen: any, Dialect: d, Node: cfg.Faster(speed), Seed: h.seed + uint64(i)})
	}
	return testnode.StartCluster(list)
}

// plays has the ordinary nodes play those of the plan: were one of the plan's that
// joined late played by a node that is added, clients would not know that one
// before.
func (h *rehearsal) plays(p *replay.Plan) (list []int) {
	for i := range p.Nodes {
		list = append(list, i%h.nodes)
	}
	return list
}

// fixes runs the plan once for each variant and shows what became of it.
func (h *rehearsal) fixes(ctx context.Context, cmd *cobra.Command, like replay.Runner, more int, format string) error {
	f, err := reports.FindFormat(format)
	if err != nil || f.Binary {
		return exitError{exitUsage, fmt.Errorf("format %q: the table of fixes is text, markdown, csv or json", format)}
	}
	var rows []reports.Fix
	for _, v := range variants(more) {
		p := like.Plan.Clone()
		if v.override != "" {
			o, err := replay.ParseOverride(v.override)
			if err == nil {
				err = p.Override([]replay.Override{o})
			}
			if err != nil {
				return exitError{exitUsage, err}
			}
		}
		c, err := h.start(p, like.Speed, v)
		if err != nil {
			return exitError{exitFailed, err}
		}
		r := like
		r.Plan, r.Targets, r.Plays, r.Do, r.UntilCollapse = p, c.Addrs(), h.plays(p), c.Do, true
		var list []replay.Result
		r.Emit = func(x *replay.Result) { list = append(list, *x) }
		begun := time.Now()
		s, err := r.Run(ctx)
		c.Stop()
		if err != nil {
			return refused(err)
		}
		replay.Settle(list)
		profile, err := replay.NewProfile(replay.Analysis(v.name, list), replay.Scope{Name: v.name, From: p.Begin, Config: storm.Config{}})
		if err != nil {
			return exitError{exitFailed, err}
		}
		rows = append(rows, reports.Fix{Name: v.name, Profile: profile, Summary: s})
		word := ""
		if !s.Valid() {
			word = "; INVALID: " + strings.Join(s.Invalid, "; ")
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "squall: %s: %v, %s%s\n", v.name, profile.Report.Verdict.Class, time.Since(begun).Round(time.Second), word)
		if ctx.Err() != nil {
			break
		}
	}
	table := reports.Fixes()
	if _, err := reports.Write(cmd.OutOrStdout(), f, &table.Table, reports.FixRows(rows), onTerminal(cmd, f.Name, "-")); err != nil {
		return exitError{exitFailed, err}
	}
	if format == "text" || format == "markdown" {
		fmt.Fprintf(fold(cmd.OutOrStdout()), "\nTest nodes: %d, each %g/s; a mega-supernode serves %d times that and does not protect itself.\nPolicies were inferred from the recording that they are judged by; a real node is the real test.\n",
			h.nodes, h.kind.Capacity, megaCapacity)
	}
	if ctx.Err() != nil {
		return exitError{exitSignal, fmt.Errorf("interrupted after %d of %d runs", len(rows), len(variants(more)))}
	}
	return nil
}

// dryFixes says what fixes would do.
func (h *rehearsal) dryFixes(w io.Writer, p *replay.Plan, speed float64, more int) {
	for _, v := range variants(more) {
		fmt.Fprintf(w, "run         %s\n", v.name)
	}
	lasts := time.Duration(float64(p.Duration) / speed).Round(time.Second)
	fmt.Fprintf(w, "DRY RUN     %d runs of %v each against %d test nodes of this process; --send runs them\n", len(variants(more)), lasts, h.nodes)
}
