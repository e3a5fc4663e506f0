package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/dissect"
	"squall/dissect/storm"
	"squall/replay"
	"squall/reports"
)

const (
	exitRefused = 4 // by the safety rules
	// resultsName and runName are what replay -o keeps.
	resultsName = "results.jsonl"
	runName     = "replay.json"
	// countsShown targets have a line of their own.
	countsShown = 10
)

// refused gives a *replay.Refusal its exit code.
func refused(err error) error {
	var no *replay.Refusal
	if errors.As(err, &no) {
		return exitError{exitRefused, err}
	}
	return exitError{exitUsage, err}
}

// manifest is what is kept of a run beside its rows: who, when, what, how much.
type manifest struct {
	Squall  string          `json:"squall_version"`
	User    int             `json:"user_id"`
	Host    string          `json:"host"`
	Plan    replay.Digest   `json:"plan"`
	Targets []string        `json:"targets"`
	Nodes   []string        `json:"recorded_nodes_of_targets"`
	Allow   []string        `json:"allow,omitempty"`
	Speed   float64         `json:"speed"`
	Caps    replay.Caps     `json:"caps"`
	DryRun  bool            `json:"dry_run,omitempty"` // nothing was sent
	Script  []string        `json:"script,omitempty"`
	Summary *replay.Summary `json:"summary"`
	Knee    *replay.Knee    `json:"knee,omitempty"`
}

// replaying is one run, as its flags want it.
type replaying struct {
	targets, maps, allow, overrides                                                               []string
	budget, trigger, control, dir, bind, format, asUser, credentials, pcap, window, contact, ramp string
	rampStep, keepalive, reattach                                                                 time.Duration
	testnodes, more                                                                               int
	kind                                                                                          nodeFlags
	speed                                                                                         float64
	caps                                                                                          replay.Caps
	seed                                                                                          uint64
	consent                                                                                       uint16
	send, fixes, untilCollapse, quiet, netem, realtime                                            bool

	steps    replay.RampOptions
	recorded *replay.Plan   // before the ramp made another of it
	stands   map[int]string // of --map: who plays a node, by its index
}

func replayCommand() *cobra.Command {
	x := &replaying{}
	cmd := &cobra.Command{
		Use:   "replay PLAN --target HOST:PORT... [--send]",
		Short: "ask for it again, of test nodes, with clients that react",
		Long: `replay asks targets for what a plan holds. Without --send it is a dry run: it says
what would be sent, to whom, and sends nothing. Each recorded node is played by
one of the targets, in their order or by --map; further targets are there to fail over to.
Every client has a source address of its own (127.0.0.0/8 for targets on
loopback; --bind CIDR elsewhere) and an identity of its own inside the protocol.

Loopback is free. Private addresses need --allow CIDR, at most /24 (IPv6 /64).
Public ones need the target's consent: run squall consent there, and name its
port with --consent. Addresses that occur in the capture, multicast and
broadcast are never sent to. Refusals exit with 4.

--testnodes N needs no targets: it plays them as well, as squall testnode would.
--fixes then runs the plan as recorded, with jittered back-off, with a retry
budget, with admission control and with more nodes, and shows what helped.
--ramp FROM:TO raises the intents per second and lowers them again: what the
targets sustain, where retries make them collapse, where they come back.

--trigger makes the outage happen: 'at 30s: node 2 down; at 60s: node 2 up' by
way of the --control of squall testnode, or to --testnodes. A run whose sender was late, or whose
caps cut it, calls itself invalid and says why.

--netem puts the way of the capture between the clients and the targets: each
client hears a node a round trip later than it spoke, drawn from those that
squall plan --round-trips measured. It needs no privilege and touches nobody
else's packets; on the wire itself answers are as quick as they are.`,
		Example: `  squall testnode --protocol gnutella --nodes 8 --capacity 3 --control 127.0.0.1:9000 &
  squall replay skype.plan --target 127.0.0.1:7001
  squall replay skype.plan --testnodes 8 --capacity 3 --protect-at 7 --speed 6 --trigger 'at 184s: node 1 down; at 184s: node 2 down' --fixes --send
  squall replay skype.plan --target 127.0.0.1:7001 --ramp 1:30 --send
  squall replay skype.plan --target 127.0.0.1:7001 --speed 10 --max-rate 20000 -o run --send`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return x.run(cmd, args[0]) },
	}
	x.kind.flags(cmd)
	f := cmd.Flags()
	f.IntVar(&x.testnodes, "testnodes", 0, "play the targets, too: so many test nodes of this process, with --capacity and so on")
	f.BoolVar(&x.fixes, "fixes", false, "run once as recorded and once with each remedy, one table; with --testnodes")
	f.IntVar(&x.more, "more-nodes", 2, "mega-supernodes that --fixes adds")
	f.StringVar(&x.ramp, "ramp", "", "FROM:TO intents a second, up and down again: capacity, tipping point, recovery")
	f.DurationVar(&x.rampStep, "ramp-step", 0, "how long each rate lasts, 0 = 10s")
	f.StringArrayVar(&x.targets, "target", nil, "HOST:PORT to send to, once for each node")
	f.StringArrayVar(&x.maps, "map", nil, "NODE=HOST:PORT: the target that plays a node of the plan; those without one are played by --target in turn")
	f.BoolVar(&x.send, "send", false, "really send; without it nothing leaves")
	f.StringArrayVar(&x.allow, "allow", nil, "private network that may be sent to, at most /24 (IPv6 /64)")
	f.Uint16Var(&x.consent, "consent", 0, "port on which the targets' squall consent listens")
	f.Float64Var(&x.speed, "speed", 1, "every time of the plan and its policies, divided by this")
	f.StringArrayVar(&x.overrides, "override", nil, "'policy: exponential(1s, x2, cap 60s, full)', or 'policy GROUP: cap 300s'")
	f.StringVar(&x.budget, "budget", "", "retries that each first attempt pays for, such as 10%")
	f.StringVar(&x.trigger, "trigger", "", "script, or @FILE: 'at 30s: node 2 down; at 60s: node 2 up'")
	f.StringVar(&x.control, "control", "", "HOST:PORT of the control of squall testnode, for --trigger")
	f.Float64Var(&x.caps.MaxRate, "max-rate", replay.DefaultMaxRate, "attempts per second; to --testnodes 100000 if not given")
	f.DurationVar(&x.caps.MaxDuration, "max-duration", replay.DefaultMaxDuration, "of the run")
	f.Int64Var(&x.caps.MaxBytes, "max-bytes", replay.DefaultMaxBytes, "that are sent")
	f.BoolVar(&x.untilCollapse, "until-collapse", false, "go on when the targets serve next to nobody (default on loopback)")
	f.DurationVar(&x.keepalive, "keepalive", 0, "how often a TCP session shows life, in the time of the recording, 0 = as recorded, else 20s")
	f.DurationVar(&x.reattach, "reattach", 0, "within which a lost session is wanted again, 0 = 2s")
	f.BoolVar(&x.netem, "netem", false, "clients hear their nodes as late as the recorded round trips had it (plan --round-trips)")
	f.BoolVar(&x.realtime, "realtime", false, "the sender runs before all others of this machine, so that it is less late (root, or ulimit -r 1)")
	f.StringVar(&x.credentials, "credentials", "", "file of logins for the clients in turn: lines user:password (SIP, TURN), or certificates of Nebula (.crt)")
	f.StringVar(&x.bind, "bind", "", "network of the clients' own addresses")
	f.Uint64Var(&x.seed, "seed", 1, "of everything that is drawn")
	f.StringVarP(&x.dir, "output", "o", "", "directory that keeps every attempt and the manifest, for squall compare")
	f.StringVar(&x.pcap, "pcap", "", "file for the packets of the run (pcapng; wants CAP_NET_RAW)")
	f.StringVarP(&x.format, "format", "T", "text", "text or json; of a dry run also markdown: a change ticket")
	f.StringVar(&x.window, "window", "", "of the change ticket: when it may run")
	f.StringVar(&x.contact, "contact", "", "of the change ticket: who stops it")
	f.StringVarP(&x.asUser, "relinquish-privileges", "Z", "", userHelp)
	f.BoolVarP(&x.quiet, "quiet", "q", false, "no progress")
	cmd.AddCommand(packetsCommand())
	return cmd
}

func (x *replaying) run(cmd *cobra.Command, path string) error {
	ctx, stop := context.WithCancelCause(cmd.Context())
	defer stop(nil)
	r, err := x.runner(ctx, cmd, path, stop)
	if err != nil {
		return err
	}
	if x.testnodes > 0 {
		h := rehearsal{x.testnodes, x.kind.cfg, x.seed}
		if x.fixes {
			return x.compareFixes(ctx, cmd, &h, r)
		}
		c, err := h.start(r.Plan, x.speed, variant{})
		if err != nil {
			return exitError{exitFailed, err}
		}
		defer c.Stop()
		for _, a := range c.Addrs() {
			x.targets = append(x.targets, a.String())
		}
		r.Do = c.Do
	}
	if err := x.aim(ctx, r); err != nil {
		return err
	}
	if !cmd.Flags().Changed("until-collapse") {
		x.untilCollapse = !slices.ContainsFunc(r.Targets, func(t netip.AddrPort) bool { return !t.Addr().IsLoopback() })
	}
	r.UntilCollapse = x.untilCollapse
	if len(r.Script) > 0 && r.Do == nil {
		if r.Do, err = remote(ctx, x.control); err != nil {
			return exitError{exitUsage, err}
		}
	}
	if err := r.Check(); err != nil {
		return refused(err)
	}
	if !x.send {
		return dryRun(cmd.OutOrStdout(), r, x.format, x.allow, x.window, x.contact)
	}
	if x.realtime {
		if r.Realtime, err = replay.NewRealtime(); err != nil {
			return exitError{exitUsage, err}
		}
		defer r.Realtime.Close()
	}
	if err := x.really(ctx, cmd, r); err != nil {
		return err
	}
	if cmd.Context().Err() != nil {
		return exitError{exitSignal, errors.New("interrupted; the results hold what was done until then")}
	}
	if cause := context.Cause(ctx); cause != nil {
		return refused(cause)
	}
	return nil
}

// runner reads the plan and the flags, all but who is sent to.
func (x *replaying) runner(ctx context.Context, cmd *cobra.Command, path string, stop context.CancelCauseFunc) (*replay.Runner, error) {
	plan, err := x.plan(cmd, path)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	script, err := readScript(x.trigger)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	nets, err := parsePrefixes("--allow", x.allow)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	guard, err := replay.NewGuard(nets, plan.Addresses())
	if err != nil {
		return nil, refused(err)
	}
	if x.stands, err = parseStands(plan, x.maps); err != nil {
		return nil, exitError{exitUsage, err}
	}
	if x.testnodes > 0 && !cmd.Flags().Changed("max-rate") {
		x.caps.MaxRate = rehearsalMaxRate // what it spares are others' nodes
	}
	r := &replay.Runner{Plan: plan, Guard: guard, Speed: x.speed, Caps: x.caps, Seed: x.seed, Script: script, Keepalive: x.keepalive, Reattach: x.reattach, RoundTrips: x.netem}
	if x.credentials != "" {
		if r.Logins, err = readCredentials(x.credentials); err != nil {
			return nil, exitError{exitUsage, err}
		}
	}
	if x.bind != "" {
		if r.Bind, err = netip.ParsePrefix(x.bind); err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("--bind: %w", err)}
		}
	}
	if x.consent != 0 {
		all := slices.AppendSeq(slices.Clone(x.targets), maps.Values(x.stands))
		slices.Sort(all)
		if err := askConsent(ctx, guard, slices.Compact(all), x.consent, &r.Caps, stop); err != nil {
			return nil, refused(err)
		}
	}
	return r, nil
}

// plan reads the plan, with what is to be otherwise in it.
func (x *replaying) plan(cmd *cobra.Command, path string) (*replay.Plan, error) {
	plan, err := readPlan(cmd, path)
	if err != nil {
		return nil, err
	}
	list, err := parseOverrides(x.overrides, x.budget)
	if err == nil {
		err = plan.Override(list)
	}
	if err == nil {
		err = x.fit()
	}
	if x.recorded = plan; err != nil || x.ramp == "" {
		return plan, err
	}
	if x.steps, err = replay.RampOf(x.ramp); err != nil {
		return nil, err
	}
	x.steps.Step = x.rampStep
	return plan.Ramp(x.steps)
}

// fit says which flags do not go together.
func (x *replaying) fit() error {
	switch {
	case !(x.speed > 0 && x.speed <= 1e6):
		return fmt.Errorf("--speed %v: want above 0, at most 1e6", x.speed)
	case !(x.caps.MaxRate > 0 && x.caps.MaxRate <= 1e9):
		return fmt.Errorf("--max-rate %v: want above 0, at most 1e9", x.caps.MaxRate)
	case x.caps.MaxDuration <= 0 || x.caps.MaxBytes <= 0:
		return fmt.Errorf("--max-duration %v, --max-bytes %d: want above 0", x.caps.MaxDuration, x.caps.MaxBytes)
	case x.keepalive < 0 || x.reattach < 0 || x.rampStep < 0:
		return errors.New("--keepalive, --reattach, --ramp-step: want times from 0 on")
	case x.ramp != "" && (x.speed != 1 || x.fixes):
		return errors.New("--ramp finds rates on this machine's clock, of one run: without --speed and --fixes")
	case x.fixes && x.testnodes == 0:
		return errors.New("--fixes compares runs against nodes of its own: --testnodes N, --capacity and how they fail")
	case x.fixes && x.send && x.realtime:
		return errors.New("--realtime would take the processor from the test nodes of this process: without --fixes")
	case x.testnodes > 0 && len(x.targets) > 0:
		return errors.New("--testnodes are the targets: without --target")
	case x.testnodes > 0 && len(x.maps) > 0:
		return errors.New("--testnodes play the nodes: without --map")
	case !x.fixes && !slices.Contains([]string{"text", "markdown", "json"}, x.format):
		return fmt.Errorf("format %q: want text, markdown (of a dry run: a change ticket) or json", x.format)
	case !x.fixes && x.send && x.format == "markdown":
		return errors.New("-T markdown is the change ticket of a dry run; of a run: text or json, and report.html of -o")
	case x.testnodes < 0 || x.testnodes > 1000 || x.more < 0 || x.more > 1000:
		return errors.New("--testnodes, --more-nodes: want 0 to 1000")
	case x.testnodes > 0:
		return x.kind.parse()
	}
	return nil
}

func (x *replaying) compareFixes(ctx context.Context, cmd *cobra.Command, h *rehearsal, r *replay.Runner) error {
	if !x.send {
		w := fold(cmd.OutOrStdout())
		io.WriteString(w, r.Plan.Summary())
		h.dryFixes(w, r.Plan, x.speed, x.more)
		return nil
	}
	if _, err := relinquish(x.asUser, ""); err != nil {
		return exitError{exitUsage, err}
	}
	return h.fixes(ctx, cmd, *r, x.more, x.format)
}

// aim resolves the targets, and says which of them plays which node.
func (x *replaying) aim(ctx context.Context, r *replay.Runner) error {
	for _, t := range x.targets {
		at, err := r.Guard.Resolve(ctx, t, net.DefaultResolver.LookupNetIP)
		if err != nil {
			return refused(err)
		}
		r.Targets = append(r.Targets, at)
	}
	if len(x.stands) == 0 {
		return nil
	}
	named := len(r.Targets)
	for i := range r.Plan.Nodes {
		t, mapped := x.stands[i]
		if !mapped {
			if named == 0 {
				return exitError{exitUsage, fmt.Errorf("node %s is covered by no --map, and there is no --target for the rest", r.Plan.Nodes[i].Address)}
			}
			r.Plays = append(r.Plays, i%named)
			continue
		}
		at, err := r.Guard.Resolve(ctx, t, net.DefaultResolver.LookupNetIP)
		if err != nil {
			return refused(err)
		}
		k := slices.Index(r.Targets, at)
		if k < 0 {
			k = len(r.Targets)
			r.Targets = append(r.Targets, at)
		}
		r.Plays = append(r.Plays, k)
	}
	return nil
}

// really sends, and keeps and shows what came of it.
func (x *replaying) really(ctx context.Context, cmd *cobra.Command, r *replay.Runner) (err error) {
	untap := func() error { return nil }
	if x.pcap != "" {
		if untap, err = tapRun(x.pcap, r.Targets, "replay of plan sha256 "+r.Plan.Hash()); err != nil {
			return exitError{exitUsage, err}
		}
	}
	if x.dir, err = relinquish(x.asUser, x.dir); err != nil {
		return exitError{exitUsage, errors.Join(err, untap())}
	}
	keepRow, done, err := keepRows(x.dir)
	if err != nil {
		return exitError{exitFailed, err}
	}
	var rows []replay.Result
	r.Emit = func(row *replay.Result) {
		if keepRow != nil {
			keepRow(row)
		}
		if x.ramp != "" {
			rows = append(rows, *row)
		}
	}
	if !x.quiet && isTerminal(cmd.ErrOrStderr()) {
		r.Progress = func(p replay.Progress) {
			fmt.Fprintf(cmd.ErrOrStderr(), "\r\x1b[K%v  due %d, sent %d, in flight %d, sessions %d, accepted %d/s, failures %d/s, lateness p99 %v",
				p.Elapsed.Round(time.Second), p.Due, p.Sent, p.InFlight, p.Sessions, p.Accepted, p.Failed, p.Lateness)
		}
		defer fmt.Fprint(cmd.ErrOrStderr(), "\r\x1b[K")
	}
	summary, err := r.Run(ctx)
	for _, e := range []error{done(), untap()} {
		if err == nil && e != nil {
			return exitError{exitFailed, e}
		}
	}
	if summary != nil {
		var knee *replay.Knee
		if x.ramp != "" {
			knee = replay.NewKnee(x.recorded, x.steps, rows)
		}
		if e := x.tell(cmd.OutOrStdout(), r, summary, knee); e != nil {
			return exitError{exitFailed, e}
		}
	}
	if err != nil {
		return refused(err)
	}
	return nil
}

// tell keeps and prints the summary of a run.
func (x *replaying) tell(w io.Writer, r *replay.Runner, s *replay.Summary, knee *replay.Knee) error {
	if x.dir != "" {
		if err := keepRun(x.dir, r, x.allow, s, knee); err != nil {
			return err
		}
	}
	if x.format == "json" {
		return encode(w, newManifest(r, x.allow, s, knee))
	}
	w = fold(w)
	io.WriteString(w, runText(s))
	if knee != nil {
		io.WriteString(w, knee.Text())
	}
	return nil
}

func readPlan(cmd *cobra.Command, path string) (*replay.Plan, error) {
	if path == "-" {
		return replay.ReadPlan(cmd.InOrStdin())
	}
	h, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	p, err := replay.ReadPlan(h)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func readCredentials(path string) ([]replay.Login, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	list, err := replay.ReadCredentials(h)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// readScript takes a script as it is, or from @FILE.
func readScript(text string) ([]replay.Event, error) {
	if path, ok := strings.CutPrefix(text, "@"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	return replay.ParseScript(text)
}

func parsePrefixes(flag string, list []string) (nets []netip.Prefix, err error) {
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, e := netip.ParseAddr(s); e == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s %q: want a network such as 192.168.7.0/24", flag, s)
		}
		nets = append(nets, p)
	}
	return nets, nil
}

// askConsent asks every target for its lease and keeps it alive; the end of
// one ends the run. The narrowest rate becomes the cap.
func askConsent(ctx context.Context, guard *replay.Guard, targets []string, port uint16, caps *replay.Caps, stop context.CancelCauseFunc) error {
	asked := map[netip.Addr]bool{}
	for _, t := range targets {
		list, err := replay.ParseTarget(ctx, t, net.DefaultResolver.LookupNetIP)
		if err != nil {
			return err
		}
		for _, a := range list {
			if a.Addr().IsLoopback() || asked[a.Addr()] {
				continue
			}
			if err := guard.Closed(a.Addr()); err != nil { // not even asked
				return err
			}
			asked[a.Addr()] = true
			at := netip.AddrPortFrom(a.Addr(), port)
			lease, err := replay.AskConsent(ctx, at)
			if err != nil {
				return err
			}
			guard.Trust(lease)
			caps.MaxRate = min(caps.MaxRate, lease.MaxRate)
			go lease.Keep(ctx, at, func(err error) { stop(err) })
		}
	}
	return nil
}

// parseStands reads NODE=HOST:PORT, a node being named as the plan does, with or
// without its port: who plays it, by its index.
func parseStands(plan *replay.Plan, maps []string) (map[int]string, error) {
	stands := map[int]string{}
	for _, m := range maps {
		node, target, ok := strings.Cut(m, "=")
		found := false
		for i := range plan.Nodes {
			address := plan.Nodes[i].Address
			host, _, _ := net.SplitHostPort(address)
			if ok && (node == address || node == host) {
				stands[i], found = target, true
			}
		}
		if !found {
			return nil, fmt.Errorf("--map %q: want NODE=HOST:PORT, of a node that the plan names", m)
		}
	}
	return stands, nil
}

// remote makes the events of a script happen at a test node's control.
func remote(ctx context.Context, control string) (func(replay.Event) error, error) {
	at, err := netip.ParseAddrPort(control)
	if err != nil || !at.Addr().IsLoopback() {
		return nil, fmt.Errorf("--trigger wants --control ADDRESS:PORT, the loopback address of squall testnode's control")
	}
	web := &http.Client{Timeout: 5 * time.Second}
	return func(e replay.Event) error {
		_, order, _ := strings.Cut(e.String(), ": ")
		req, err := http.NewRequestWithContext(ctx, "POST", "http://"+at.String()+"/do", strings.NewReader(order))
		if err != nil {
			return err
		}
		resp, err := web.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			why, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
			return fmt.Errorf("%s", strings.TrimSpace(string(why)))
		}
		return nil
	}, nil
}

// dryRun says what --send would do.
func dryRun(w io.Writer, r *replay.Runner, format string, allow []string, window, contact string) error {
	speed := r.Speed
	lasts := time.Duration(float64(r.Plan.Duration) / speed).Round(time.Second)
	peak := float64(r.Plan.Peak()) * speed
	switch format {
	case "text":
		w = fold(w)
		fmt.Fprint(w, r.Plan.Summary())
		for i, t := range r.Targets {
			fmt.Fprintf(w, "target %-4d %v\n", i+1, t)
		}
		fmt.Fprintf(w, "speed       %g: %v, at most %.0f first attempts a second, retries beside them up to %.0f/s\n", speed, lasts, peak, r.Caps.MaxRate)
		if recorded := float64(r.Plan.Coverage.Peak) * speed; recorded > r.Caps.MaxRate {
			fmt.Fprintf(w, "            the recorded storm had %.0f/s at this speed: one as large is cut, and the run calls itself invalid; --max-rate %.0f lets it be\n", recorded, 2*recorded)
		}
		if r.RoundTrips {
			fmt.Fprintln(w, "netem       clients hear the targets a round trip late")
		}
		for _, e := range r.Script {
			fmt.Fprintf(w, "trigger     %v\n", e)
		}
		fmt.Fprintln(w, "DRY RUN     nothing was sent; --send sends this plan")
	case "markdown":
		fmt.Fprintf(w, "# Load test: replay of %s\n\n| | |\n|---|---|\n%s", strings.Join(r.Plan.Sources, ", "), planRows(r.Plan))
		fmt.Fprintf(w, "| lasts | %v at speed %g |\n| first attempts | %d, at most %.0f/s, retries beside them |\n", lasts, speed, len(r.Plan.Items), peak)
		fmt.Fprintf(w, "| caps | %.0f attempts/s, %v, %d bytes |\n", r.Caps.MaxRate, r.Caps.MaxDuration, r.Caps.MaxBytes)
		var list []string
		for _, t := range r.Targets {
			list = append(list, "`"+t.String()+"`")
		}
		fmt.Fprintf(w, "| targets | %s |\n| allowed networks | %s |\n", strings.Join(list, " "), cmp.Or(strings.Join(allow, " "), "none beside loopback and who consents"))
		for _, e := range r.Script {
			fmt.Fprintf(w, "| trigger | %v |\n", e)
		}
		fmt.Fprintf(w, "| exercised | %s |\n| policies | %s |\n", strings.Join(r.Plan.Exercises(), "; "), r.Plan.Trust())
		fmt.Fprintf(w, "| path | %s |\n| window | %s |\n| abort contact | %s |\n", strings.Join(paths(r.Targets), "<br>"), cmp.Or(window, "_from, to_"), cmp.Or(contact, "_name, number_"))
		fmt.Fprint(w, "| abort | Ctrl-C stops sending within 100 ms; it stops by itself at a cap, when the targets collapse, and when a target withdraws its consent |\n| rollback | nothing is changed on this host; sessions end with the run, registrations by their own lifetime |\n")
	case "json":
		return encode(w, newManifest(r, allow, nil, nil))
	}
	return nil
}

// paths are the ways to the targets, as the system routes them; nothing is
// sent to find out.
func paths(targets []netip.AddrPort) (list []string) {
	seen := map[string]bool{}
	for _, t := range targets {
		way := fmt.Sprintf("no route to %v", t.Addr())
		if c, err := net.Dial("udp", t.String()); err == nil {
			from := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
			c.Close()
			way = fmt.Sprintf("from %v on %s to %v", from, interfaceOf(from), t.Addr())
		}
		if !seen[way] {
			seen[way] = true
			list = append(list, way)
		}
	}
	return list
}

// interfaceOf names the interface that has an address.
func interfaceOf(a netip.Addr) string {
	all, _ := net.Interfaces()
	for _, i := range all {
		addrs, _ := i.Addrs()
		for _, x := range addrs {
			if p, err := netip.ParsePrefix(x.String()); err == nil && (p.Addr().Unmap() == a || a.IsLoopback() && p.Contains(a)) {
				return i.Name
			}
		}
	}
	return "an unknown interface"
}

// keepRows writes rows as they come.
func keepRows(dir string) (func(*replay.Result), func() error, error) {
	if dir == "" {
		return nil, func() error { return nil }, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	h, err := os.OpenFile(filepath.Join(dir, resultsName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	buffered := bufio.NewWriterSize(h, 1<<16)
	enc := json.NewEncoder(buffered)
	var failed error
	return func(r *replay.Result) {
			if failed == nil {
				failed = replay.WriteResult(enc, r)
			}
		}, func() error {
			return errors.Join(failed, buffered.Flush(), h.Close())
		}, nil
}

// keepRun writes the manifest, and what analyze -o would have kept of a capture
// of the run.
func keepRun(dir string, r *replay.Runner, allow []string, s *replay.Summary, knee *replay.Knee) error {
	if err := keepManifest(dir, r, allow, s, knee); err != nil {
		return err
	}
	a, _, err := readRun(dir)
	if err != nil {
		return err
	}
	defer a.Close()
	from := custody{Command: "replay", Arguments: []string{dir}}
	return keep(reports.NewResults(a, storm.Config{}), dir, reports.Options{}, reports.HTMLOptions{Source: []string{dir}, Version: version()}, from)
}

func keepManifest(dir string, r *replay.Runner, allow []string, s *replay.Summary, knee *replay.Knee) error {
	b, err := json.MarshalIndent(newManifest(r, allow, s, knee), "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, runName), append(b, '\n'), 0o600)
}

// newManifest describes a run, or with no summary a dry one.
func newManifest(r *replay.Runner, allow []string, s *replay.Summary, knee *replay.Knee) *manifest {
	m := &manifest{Squall: version(), User: os.Getuid(), Plan: r.Plan.Digest(), Allow: allow, Speed: r.Speed, Caps: r.Caps, Summary: s, Knee: knee, DryRun: s == nil}
	m.Host, _ = os.Hostname()
	for _, t := range r.Targets {
		m.Targets = append(m.Targets, t.String())
	}
	for i := range r.Plan.Nodes {
		m.Nodes = append(m.Nodes, r.Plan.Nodes[i].Address+" "+r.Targets[r.Player(i)].String())
	}
	for _, e := range r.Script {
		m.Script = append(m.Script, e.String())
	}
	return m
}

// runText is a run in words.
func runText(s *replay.Summary) string {
	var b strings.Builder
	if s.Valid() {
		fmt.Fprintf(&b, "run         valid\n")
	} else {
		fmt.Fprintf(&b, "run         INVALID: %s\n", strings.Join(s.Invalid, "; "))
	}
	if s.Stopped != "" {
		fmt.Fprintf(&b, "stopped     %s\n", s.Stopped)
	}
	fmt.Fprintf(&b, "plan        sha256 %s, mode %s\n", s.PlanHash, s.Mode)
	fmt.Fprintf(&b, "took        %v, %.0f %% of this machine\n", s.Elapsed.Round(time.Millisecond), s.CPU*100)
	fmt.Fprintf(&b, "begun       %d of %d, %d skipped (their clients had a session, or were trying)\n", s.Begun, s.Planned, s.Skipped)
	fmt.Fprintf(&b, "attempts    %d, of them %d retries; at most %d in a second; %d sessions lost\n", s.Attempts, s.Retries, s.PeakRate, s.Lost)
	fmt.Fprintf(&b, "outcomes   ")
	for o, n := range s.Outcomes {
		if n > 0 {
			fmt.Fprintf(&b, " %v %d", dissect.Outcome(o), n)
		}
	}
	fmt.Fprintf(&b, "; late answers %d\n", s.Late)
	fmt.Fprintf(&b, "accepted in p50 %v, p95 %v, p99 %v, from when the attempt was due\n", s.AcceptP50, s.AcceptP95, s.AcceptP99)
	fmt.Fprintf(&b, "lateness    p50 %v, p99 %v, max %v", s.LatenessP50, s.LatenessP99, s.LatenessMax)
	if s.Realtime {
		b.WriteString(", at real-time priority")
	}
	b.WriteString("\n")
	fmt.Fprintf(&b, "exercised   %s\n", s.Work)
	if s.Losses != nil {
		fmt.Fprintf(&b, "lost        by this machine, the targets' own: %v\n", s.Losses)
	}
	for i, c := range s.Counts {
		if i == countsShown {
			fmt.Fprintf(&b, "            and %d more targets (-o keeps them)\n", len(s.Counts)-i)
			break
		}
		fmt.Fprintf(&b, "%-11s %v\n", []string{"target", ""}[min(i, 1)], c)
	}
	if s.Trust != "" {
		fmt.Fprintf(&b, "policies    %s\n", s.Trust)
	}
	return b.String()
}
