package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/replay"
	"squall/samples"
)

func sampleCommand() *cobra.Command {
	var out, truth, format string
	var seed uint64
	var packets int64
	var threeTaps bool
	var change scenarioFlags
	cmd := &cobra.Command{
		Use:   "sample [NAME]",
		Short: "simulated outages as captures, with their ground truth",
		Long: `sample without a name lists the simulated outages and healthy hours that squall
carries. With a name it writes one as a capture: real TCP, UDP and ICMP packets
of clients and nodes, from a seed, the same bytes each time. --truth keeps what
every client really did: attempts with outcome, relation and intent, what became
of the nodes, the policy, the parameters, and the verdict that is right. Intents
count from 1; refreshes and health checks belong to none, and have 0.

Every parameter can be changed, what happens included (--script). The protocol may be tcp, udp, gnutella, sip, n2n
or skype (its ladder: UDP, host:port, 443, 80). --policy takes what plan and
replay take: a whole policy, or only the terms that change.

The --tap flags spoil what the capture point sees: it may lose packets, at a
constant rate or a rising one, double them, cut them, see one side only, be
silent for a while, or set its clock. --split writes the capture in N files.

--taps writes what three taps saw of it, into the directory -w: east, west, a VXLAN
mirror that reorders and loses up to 40 % at the peak, and branch, which stands
before the NAT of a tenth of the clients; their clocks disagree and drift.

proto:NAME is not an outage but what a protocol looks like: a few conversations in
it, accepted, refused, busy, silent as far as it has them; --truth names the attempts.`,
		Example: `  squall sample
  squall sample proto:sip -w - | tshark -r -
  squall sample outage -w outage.pcapng.gz --truth truth.json
  squall sample s2 --seed 7 -w - | tcpdump -nr -
  squall sample s1 --protocol n2n --clients 500 --policy 'exponential(1s, x2, cap 30s, full)' -w s1.pcap
  squall sample skype-2010 --tap-loss 40% --tap-loss-at 3m --tap-loss-rise 1m -w lossy.pcap
  squall sample n19 -w pieces
  squall sample outage --taps -w case`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				list := fold(cmd.OutOrStdout())
				for _, s := range samples.List() {
					fmt.Fprintf(list, "%-13s %s\n", s.Name, s.About)
				}
				fmt.Fprintf(list, "%-13s a few conversations in a protocol, good and bad; NAME as in `squall protocols`\n", samples.Protocol+"NAME")
				return nil
			}
			if out == "" {
				return exitError{exitUsage, fmt.Errorf("sample %s: where to? -w FILE, or -w - for standard output", args[0])}
			}
			defer context.AfterFunc(cmd.Context(), func() {
				fmt.Fprintf(cmd.ErrOrStderr(), "squall: interrupted; %s is not whole\n", out)
				os.Exit(exitSignal)
			})()
			if format != "" && format != "pcap" && format != "pcapng" {
				return exitError{exitUsage, fmt.Errorf("format %q: want pcap or pcapng", format)}
			}
			if name, ok := strings.CutPrefix(args[0], samples.Protocol); ok {
				if change != (scenarioFlags{}) || seed != 1 || packets != 0 {
					return exitError{exitUsage, fmt.Errorf("sample %s takes -w, -T and --truth; the others change an outage, and this is none", args[0])}
				}
				return writeConversations(cmd, name, truth, format, out)
			}
			if !slices.ContainsFunc(samples.List(), func(s samples.Sample) bool { return s.Name == args[0] }) {
				return exitError{exitUsage, fmt.Errorf("sample %q is not known; `squall sample` lists them", args[0])}
			}
			sc, simulated := samples.Find(args[0])
			if !simulated && truth != "" {
				return exitError{exitUsage, fmt.Errorf("sample %s is for measuring and has no truth to write", args[0])}
			}
			if simulated {
				if err := change.apply(cmd, &sc); err != nil {
					return exitError{exitUsage, err}
				}
				if packets != 0 {
					return exitError{exitUsage, fmt.Errorf("--packets is for what measures, bench-dense and the like; %s has a --duration", args[0])}
				}
				if threeTaps && sc.Pieces > 1 {
					return exitError{exitUsage, errors.New("--taps makes three files, and --split of one several: not both")}
				}
			} else if change != (scenarioFlags{}) {
				return exitError{exitUsage, fmt.Errorf("sample %s takes -w, -T, --seed and --packets; the others change an outage, and this is for measuring", args[0])}
			}
			opt := capture.WriterOptionsFor(out)
			if format != "" {
				opt.Format = format
			}
			if threeTaps {
				if !simulated || out == "-" {
					return exitError{exitUsage, errors.New("--taps makes three files of a simulated outage: -w DIR")}
				}
				facts, err := writeTaps(sc, seed, out, format)
				if err != nil {
					return exitError{exitFailed, err}
				}
				return writeTruth(cmd, truth, facts)
			}
			facts, err := writeSample(cmd, args[0], sc, simulated, packets, seed, out, opt)
			if err != nil {
				return err
			}
			return writeTruth(cmd, truth, facts)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "write", "w", "", "capture to write; its ending chooses format and compression; a directory with --split")
	f.StringVar(&truth, "truth", "", "file for the ground truth, as JSON")
	f.StringVarP(&format, "format", "T", "", "pcapng or pcap, whatever the ending")
	f.Uint64Var(&seed, "seed", 1, "another seed, another outage of the same kind")
	f.Int64Var(&packets, "packets", 0, "length of a sample for measuring; the others have a --duration")
	f.BoolVar(&threeTaps, "taps", false, "write what three taps saw, into the directory -w")
	f.BoolP("quiet", "q", false, "accepted for the sake of habit: there are no remarks")
	change.flags(cmd)
	return cmd
}

func writeTruth(cmd *cobra.Command, path string, facts *samples.Truth) error {
	if path == "" {
		return nil
	}
	return emit(cmd, path, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", " ")
		return enc.Encode(facts)
	})
}

func writeTaps(sc samples.Scenario, seed uint64, dir, format string) (*samples.Truth, error) {
	packets, facts, err := samples.SimulateTaps(sc, samples.DefaultTapCase(&sc), seed)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	if format == "" {
		format = "pcapng"
	}
	for i, name := range samples.TapNames {
		h, err := os.Create(filepath.Join(dir, name+"."+format))
		if err != nil {
			return nil, err
		}
		if err := finish(h, h.Close, func(to io.Writer) error {
			w, err := capture.NewWriter(to, capture.WriterOptions{Format: format, Link: capture.LinkEthernet})
			for k := 0; k < len(packets[i]) && err == nil; k++ {
				err = w.WritePacket(&packets[i][k], "")
			}
			if err == nil {
				err = w.Close()
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	return facts, nil
}

// writeConversations writes what a protocol looks like, and with truth the rows of it.
func writeConversations(cmd *cobra.Command, name, truth, format, out string) error {
	var spoken []samples.Conversation
	for _, c := range samples.Conversations() {
		if c.Protocol == name {
			spoken = append(spoken, c)
		}
	}
	if len(spoken) == 0 {
		return exitError{exitUsage, fmt.Errorf("sample %s%s: no such protocol; `squall protocols` lists them", samples.Protocol, name)}
	}
	opt := capture.WriterOptionsFor(out)
	if format != "" {
		opt.Format = format
	}
	if err := emit(cmd, out, func(w io.Writer) error { return samples.WriteConversations(w, name, opt) }); err != nil || truth == "" {
		return err
	}
	return emit(cmd, truth, func(w io.Writer) error {
		type conversation struct {
			About    string   `json:"about"`
			Attempts []string `json:"attempts"`
		}
		var all []conversation
		for _, c := range spoken {
			all = append(all, conversation{c.About, c.Rows})
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", " ")
		return enc.Encode(all)
	})
}

func writeSample(cmd *cobra.Command, name string, sc samples.Scenario, simulated bool, packets int64, seed uint64, out string, opt capture.WriterOptions) (facts *samples.Truth, err error) {
	if simulated && sc.Pieces > 1 {
		if out == "-" {
			return nil, exitError{exitUsage, fmt.Errorf("sample %s makes %d files: -w DIR", name, sc.Pieces)}
		}
		if err := os.MkdirAll(out, 0o755); err != nil {
			return nil, exitError{exitFailed, err}
		}
		ending := ".pcapng"
		if opt.Format == "pcap" {
			ending = ".pcap"
		}
		facts, err = samples.WritePieces(sc, seed, opt, func(i int) (io.WriteCloser, error) {
			return os.Create(filepath.Join(out, fmt.Sprintf("%s-%04d%s", name, i, ending)))
		})
		if err != nil {
			return nil, exitError{exitFailed, err}
		}
		return facts, nil
	}
	err = emit(cmd, out, func(w io.Writer) (err error) {
		if simulated {
			facts, err = samples.WriteScenario(w, sc, seed, opt)
		} else {
			err = samples.WriteStream(w, name, packets, seed, opt)
		}
		return err
	})
	return facts, err
}

// scenarioFlags change a scenario. Flags that were not given leave it alone.
type scenarioFlags struct {
	protocol, policy, overload, side   string
	clients, nodes, queue, snap, split int
	duration, trigger, hold, rtt       time.Duration
	rate, capacity, background         float64
	pathLoss, loss                     string
	lossAt, lossRise                   time.Duration
	duplicate, nat, challenge, broken  bool
	gap, step, firewalled              string
	versions, script                   string
	spread, recovery, retryAfter       time.Duration
	refresh, keepalive                 time.Duration
	protect, admit, flood, scan        float64
	growth, burst                      float64
	dials, monitors                    int
}

func (s *scenarioFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.protocol, "protocol", "", "tcp, udp, gnutella, sip, n2n or skype")
	f.IntVar(&s.clients, "clients", 0, "number of clients")
	f.IntVar(&s.nodes, "nodes", 0, "number of nodes at the beginning")
	f.DurationVar(&s.duration, "duration", 0, "length of the capture")
	f.DurationVar(&s.trigger, "trigger", 0, "when the trouble begins; all that the scenario plans moves along")
	f.Float64Var(&s.rate, "rate", 0, "intents to attach, a second over all idle clients; 0: everybody once")
	f.DurationVar(&s.hold, "hold", 0, "mean length of a session; 0: until the end")
	f.Float64Var(&s.capacity, "capacity", 0, "what one node serves a second; 0: without limit")
	f.IntVar(&s.queue, "queue", 0, "intents that wait at a node before it is overloaded")
	f.StringVar(&s.overload, "overload", "", "what a full node does: drop, refuse, throttle or reset")
	f.StringVar(&s.policy, "policy", "", "how clients retry, as 'exponential(1s, x2, cap 60s, full, limit 10)', or only what changes: 'cap 300s'")
	f.DurationVar(&s.rtt, "rtt", 0, "mean round trip between clients and tap")
	f.StringVar(&s.pathLoss, "path-loss", "", "share of packets lost between clients and tap: 0.2 or 20%")
	f.BoolVar(&s.nat, "nat", false, "all clients behind one address")
	f.Float64Var(&s.background, "background", 0, "packets a second of other traffic, none of it an attempt")
	f.StringVar(&s.loss, "tap-loss", "", "share of packets that the tap misses: 0.05 or 5%")
	f.DurationVar(&s.lossAt, "tap-loss-at", 0, "from when on")
	f.DurationVar(&s.lossRise, "tap-loss-rise", 0, "how long the loss takes to rise to --tap-loss")
	f.BoolVar(&s.duplicate, "tap-duplicate", false, "every packet is captured twice")
	f.IntVar(&s.snap, "tap-snaplen", 0, "bytes kept of each packet")
	f.StringVar(&s.side, "tap-side", "", "client or server: only the packets that this side sent")
	f.StringVar(&s.gap, "tap-gap", "", "AT+FOR, as 4m+90s: nothing is captured")
	f.StringVar(&s.step, "tap-step", "", "AT+BY or AT-BY, as 5m+1h: the clock is set")
	f.DurationVar(&s.spread, "spread", 0, "in which time everybody comes, where --rate is 0")
	f.DurationVar(&s.retryAfter, "retry-after", 0, "what a node that throttles tells clients to wait")
	f.Float64Var(&s.protect, "protect", 0, "requests a second beyond which a node ends all sessions and refuses for --recovery; 0: never")
	f.DurationVar(&s.recovery, "recovery", 0, "how long a node protects itself")
	f.Float64Var(&s.admit, "admit", 0, "requests a second that a limiter before each node lets through; 0: no limiter")
	f.IntVar(&s.dials, "dials", 0, "dials at once for each wish, over tcp")
	f.Float64Var(&s.flood, "flood", 0, "spoofed SYNs a second from --trigger on")
	f.Float64Var(&s.scan, "scan", 0, "probes a second of three scanners from --trigger on")
	f.DurationVar(&s.refresh, "refresh", 0, "how often a client that is in registers again; sip, n2n")
	f.BoolVar(&s.challenge, "challenge", false, "every REGISTER is challenged with 401 first; sip")
	f.BoolVar(&s.broken, "broken", false, "one more client asks a closed port once a second")
	f.Float64Var(&s.growth, "growth", 0, "--rate grows to this multiple by the end")
	f.Float64Var(&s.burst, "burst", 0, "--rate is this multiple from --trigger on")
	f.DurationVar(&s.keepalive, "keepalive", 0, "how often a TCP session shows life")
	f.StringVar(&s.firewalled, "firewalled", "", "share of clients that only get out to port 443 or 80; skype")
	f.IntVar(&s.monitors, "monitors", 0, "hosts that check every node at a fixed interval; tcp, gnutella")
	f.StringVar(&s.versions, "versions", "", "of the clients, as 'Phone/2.1 60%, Phone/1.9 40% crash 0.4': name, share, and what share of it the step crash takes; shown by gnutella and sip")
	f.StringVar(&s.script, "script", "", "what happens, as 'at 5m: node 1,2 down; at 5m: crash; at 8m: all up': of nodes down, close, up, slow FACTOR, full, shut, open; else crash, restart within TIME, add N, admit RATE, budget SHARE, refresh within TIME, bots N within TIME, rollout within TIME")
	f.IntVar(&s.split, "split", 0, "write N files of equal time, their names shuffled, into the directory -w")
}

// apply changes the scenario. What is right of it is kept only where the tap
// and the scale of files change, not the outage.
func (s *scenarioFlags) apply(cmd *cobra.Command, sc *samples.Scenario) (err error) {
	given := cmd.Flags().Changed
	set := func(name string, change func()) {
		if given(name) {
			change()
			sc.Expect = nil
		}
	}
	set("protocol", func() { sc.Protocol = s.protocol })
	set("clients", func() { sc.Clients = s.clients })
	set("nodes", func() { sc.Nodes = s.nodes })
	set("trigger", func() {
		by := s.trigger - sc.Trigger
		for i := range sc.Script {
			sc.Script[i].At += by
		}
		sc.Trigger, sc.Duration = s.trigger, sc.Duration+by
	})
	set("duration", func() {
		if sc.Duration = s.duration; sc.Trigger >= sc.Duration && len(sc.Script) > 0 {
			err = fmt.Errorf("--duration %v ends before the trouble begins, at %v; --trigger moves it", s.duration, sc.Trigger)
		}
	})
	set("rate", func() { sc.Intents = s.rate })
	set("hold", func() { sc.Hold = s.hold })
	set("capacity", func() { sc.Mu = s.capacity })
	set("queue", func() { sc.Queue = s.queue })
	set("overload", func() {
		if sc.Overload = s.overload; !slices.Contains([]string{"drop", "refuse", "throttle", "reset"}, s.overload) {
			err = fmt.Errorf("--overload %q: want drop, refuse, throttle or reset", s.overload)
		}
	})
	set("policy", func() {
		if e := changePolicy(&sc.Policy, s.policy); e != nil {
			err = fmt.Errorf("--policy: %w", e)
		}
	})
	set("rtt", func() { sc.RTT = s.rtt })
	set("spread", func() { sc.Spread = s.spread })
	set("retry-after", func() { sc.RetryAfter = s.retryAfter })
	set("protect", func() { sc.ProtectAt = s.protect })
	set("recovery", func() { sc.Recovery = s.recovery })
	set("admit", func() { sc.Admit = s.admit })
	set("dials", func() { sc.Dials = s.dials })
	set("flood", func() { sc.Flood = s.flood })
	set("scan", func() { sc.Scan = s.scan })
	set("refresh", func() { sc.Refresh = s.refresh })
	set("challenge", func() { sc.Challenge = s.challenge })
	set("broken", func() { sc.Broken = s.broken })
	set("growth", func() { sc.Growth = s.growth })
	set("burst", func() { sc.Burst = s.burst })
	set("keepalive", func() { sc.Keepalive = s.keepalive })
	set("monitors", func() { sc.Monitors = s.monitors })
	set("versions", func() {
		var e error
		if sc.Versions, e = samples.ParseVersions(s.versions, parseRatio); e != nil {
			err = fmt.Errorf("--versions: %w", e)
		}
	})
	set("script", func() {
		var e error
		if sc.Script, e = samples.ParseScript(s.script, sc.Nodes); e != nil {
			err = fmt.Errorf("--script: %w", e)
		}
	})
	set("nat", func() { sc.NAT = s.nat })
	share := func(flag, text string, to *float64) {
		var e error
		if *to, e = parseRatio(text); e != nil {
			err = fmt.Errorf("--%s %q: %w", flag, text, e)
		}
	}
	set("path-loss", func() { share("path-loss", s.pathLoss, &sc.PathLoss) })
	set("firewalled", func() { share("firewalled", s.firewalled, &sc.Firewalled) })
	if given("background") {
		sc.Background = s.background
	}
	t := &sc.Tap
	if given("tap-loss") {
		share("tap-loss", s.loss, &t.Loss)
		t.LossAt, t.LossRise = s.lossAt, s.lossRise
	} else if given("tap-loss-at") || given("tap-loss-rise") {
		return errors.New("--tap-loss says how much is lost")
	}
	t.Duplicate = t.Duplicate || s.duplicate
	if given("tap-snaplen") {
		t.Snaplen = s.snap
	}
	if given("tap-side") {
		if t.Side = s.side; s.side != "client" && s.side != "server" {
			return fmt.Errorf("--tap-side %q: want client or server", s.side)
		}
		if t.Side == "server" { // what nobody asked, as it seems, tells of no outage
			sc.Expect = nil
		}
	}
	if given("tap-gap") {
		if t.GapAt, t.GapFor, err = parseSpan(s.gap); err != nil || t.GapFor <= 0 {
			return fmt.Errorf("--tap-gap %q: want AT+FOR, as 4m+90s", s.gap)
		}
	}
	if given("tap-step") {
		if t.StepAt, t.StepBy, err = parseSpan(s.step); err != nil {
			return fmt.Errorf("--tap-step %q: want AT+BY or AT-BY, as 5m+1h", s.step)
		}
	}
	if given("split") {
		if sc.Pieces = s.split; s.split < 1 {
			return fmt.Errorf("--split %d: want 1 or more", s.split)
		}
	}
	if err == nil {
		err = sc.Check()
	}
	return err
}

// parseSpan reads two durations with + or - between them.
func parseSpan(text string) (at, by time.Duration, err error) {
	i := strings.LastIndexAny(text, "+-")
	if i <= 0 {
		return 0, 0, errors.New("one sign is missing")
	}
	if at, err = time.ParseDuration(text[:i]); err == nil {
		by, err = time.ParseDuration(text[i:])
	}
	return at, by, err
}

// parseRatio reads 0.2 or 20%.
func parseRatio(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	var f float64
	if _, err := fmt.Sscanf(number+"\n", "%g\n", &f); err != nil || math.IsNaN(f) {
		return 0, errors.New("want a share, as 0.2 or 20%")
	}
	if percent {
		f /= 100
	}
	if f < 0 || f > 1 {
		return 0, errors.New("want a share from 0 to 1, or 0% to 100%")
	}
	return f, nil
}

// jitters are the names that samples gives to those of replay.
var jitters = map[replay.Jitter]string{replay.TenPercent: "10%", replay.Equal: "equal", replay.FiftyPercent: "50%",
	replay.Full: "full", replay.Decorrelated: "decorrelated"}

// changePolicy applies a policy, or terms of one, in replay's language.
func changePolicy(p *samples.Policy, text string) error {
	o, err := replay.ParseOverride("policy: " + text)
	if err != nil {
		return err
	}
	now := replay.Policy{Base: p.Base, Step: p.Step, Factor: p.Factor, Cap: p.Cap, JitterBeforeCap: p.JitterBeforeCap,
		ResetOnConnect: p.ResetOnConnect, Limit: p.Limit, Timeout: p.Timeout, Budget: p.Budget}
	family := p.Family
	if family == "server" {
		family = replay.ServerDirected.String()
	}
	for f := replay.None; f <= replay.Empirical; f++ {
		if f.String() == family {
			now.Family = f
		}
	}
	for j, name := range jitters {
		if name == p.Jitter {
			now.Jitter = j
		}
	}
	for o := replay.Sticky; o <= replay.Random; o++ {
		if o.String() == p.Order {
			now.Order = o
		}
	}
	o.Apply(&now)
	if now.Family == replay.Empirical {
		return errors.New("an empirical policy is drawn from a recording, which a simulation has not")
	}
	if err := now.Check(); err != nil {
		return err
	}
	family = now.Family.String()
	if now.Family == replay.ServerDirected {
		family = "server"
	}
	*p = samples.Policy{Family: family, Base: now.Base, Step: now.Step, Factor: now.Factor, Cap: now.Cap, Jitter: jitters[now.Jitter],
		Limit: now.Limit, Timeout: now.Timeout, Order: now.Order.String(), PerNode: p.PerNode, Budget: now.Budget,
		JitterBeforeCap: now.JitterBeforeCap, ResetOnConnect: now.ResetOnConnect}
	return nil
}
