package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/replay"
	"squall/replay/testnode"
)

// nodeFlags are what a stand-in node can do and how it fails.
type nodeFlags struct {
	cfg                           replay.NodeConfig
	overload, discipline, service string
}

func (n *nodeFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Float64Var(&n.cfg.Capacity, "capacity", 0, "requests per second that each node serves, 0 = without limit")
	f.IntVar(&n.cfg.Concurrency, "concurrency", 1, "requests served side by side")
	f.IntVar(&n.cfg.Queue, "queue", 0, "requests that wait, 0 = 2000")
	f.StringVar(&n.discipline, "discipline", "fifo", "of the queue: fifo, lifo (adaptive), codel")
	f.StringVar(&n.service, "service-time", "exponential", "distribution of service times: exponential, fixed, lognormal")
	f.StringVar(&n.overload, "overload", "drop", "with a full queue: drop, refuse, throttle, reset (accept, then reset)")
	f.DurationVar(&n.cfg.RetryAfter, "retry-after", 0, "announced with a throttle")
	f.Float64Var(&n.cfg.ProtectAt, "protect-at", 0, "requests per second above which a node ends its sessions and refuses for --recovery")
	f.Float64Var(&n.cfg.CrashAt, "crash-at", 0, "the same, silently")
	f.DurationVar(&n.cfg.Recovery, "recovery", 0, "after a self-protection or crash, 0 = 40s")
	f.DurationVar(&n.cfg.WarmUp, "warm-up", 0, "time in which capacity comes back after a recovery")
	f.Float64Var(&n.cfg.Rate, "admit", 0, "admission: requests per second in all (token bucket)")
	f.Float64Var(&n.cfg.Burst, "admit-burst", 0, "admission: size of the bucket, 0 = one second")
	f.Float64Var(&n.cfg.PerClient, "admit-client", 0, "admission: requests per second of one client")
	f.BoolVar(&n.cfg.Loss, "admit-loss", false, "admission: turn away a share that follows the delay (RFC 7339)")
}

// parse reads the texts among the flags.
func (n *nodeFlags) parse() (err error) {
	if n.cfg.Overload, err = replay.ParseOverload(n.overload); err == nil {
		if n.cfg.Discipline, err = replay.ParseDiscipline(n.discipline); err == nil {
			n.cfg.Service, err = replay.ParseService(n.service)
		}
	}
	if err == nil {
		err = n.cfg.Check()
	}
	return err
}

func testnodeCommand() *cobra.Command {
	var listen, protocol, control, trigger, credentials string
	var nodes int
	var kind nodeFlags
	var seed uint64
	var duration time.Duration
	var speed float64
	cmd := &cobra.Command{
		Use:   "testnode --protocol NAME",
		Short: "stand-in supernodes with a stated capacity, on real sockets",
		Long: `testnode accepts the attach of a protocol as a supernode would, serves as many a
second as it is told to, and fails as it is told to. Several nodes listen on
consecutive ports. Protocols: ` + dialectNames() + `.

--control serves, on loopback, Prometheus metrics (GET /metrics), the nodes as
JSON (GET /nodes), and takes orders (POST /do: 'node 2 down', 'all capacity 0.3').`,
		Example: `  squall testnode --protocol sip --listen 127.0.0.1:5060 --capacity 100
  squall testnode --protocol gnutella --nodes 8 --capacity 3 --protect-at 7 --recovery 50s --control 127.0.0.1:9000
  curl -d 'node 2 down' http://127.0.0.1:9000/do`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, ok := replay.FindDialect(protocol)
			if !ok {
				return exitError{exitUsage, fmt.Errorf("--protocol %q: there are %s", protocol, dialectNames())}
			}
			if credentials != "" {
				logins, err := readCredentials(credentials)
				if err == nil {
					d, err = replay.WithLogins(d, logins)
				}
				if err != nil {
					return exitError{exitUsage, err}
				}
			}
			at, err := netip.ParseAddrPort(listen)
			if err != nil {
				return exitError{exitUsage, fmt.Errorf("--listen %q: want ADDRESS:PORT", listen)}
			}
			if nodes < 1 || nodes > 1000 || at.Port() != 0 && int(at.Port())+nodes > 65536 {
				return exitError{exitUsage, fmt.Errorf("--nodes %d: want 1 to 1000, and their ports below 65536", nodes)}
			}
			err = kind.parse()
			script, serr := readScript(trigger)
			if err == nil {
				err = serr
			}
			for _, e := range script {
				if err == nil && e.Node >= nodes {
					err = fmt.Errorf("--trigger: %v: the last one is node %d", e, nodes)
				}
			}
			if err != nil {
				return exitError{exitUsage, err}
			}
			if !(speed > 0 && speed <= 1e6) || duration < 0 {
				return exitError{exitUsage, fmt.Errorf("--speed %v, --duration %v: want above 0", speed, duration)}
			}
			for i := range script {
				script[i].At = time.Duration(float64(script[i].At) / speed)
			}
			node := kind.cfg.Faster(speed)
			if lacks := replay.Lacks(d, &node); lacks != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "squall: %s\n", lacks)
			}
			var list []testnode.Config
			for i := range nodes {
				one := at
				if at.Port() != 0 {
					one = netip.AddrPortFrom(at.Addr(), at.Port()+uint16(i))
				}
				list = append(list, testnode.Config{Listen: one, Dialect: d, Node: node, Seed: seed + uint64(i)})
			}
			c, err := testnode.StartCluster(list)
			if err != nil {
				return exitError{exitFailed, err}
			}
			defer c.Stop()
			for i, a := range c.Addrs() {
				fmt.Fprintf(fold(cmd.OutOrStdout()), "node %d %s %v\n", i+1, protocol, a)
			}
			if control != "" {
				at, err := netip.ParseAddrPort(control)
				if err == nil {
					at, err = c.Control(at)
				}
				if err != nil {
					return exitError{exitUsage, fmt.Errorf("--control %q: %w", control, err)}
				}
				fmt.Fprintf(fold(cmd.OutOrStdout()), "control http://%v\n", at)
			}
			c.Play(script)
			over := make(<-chan time.Time)
			if duration > 0 {
				t := time.NewTimer(duration)
				defer t.Stop()
				over = t.C
			}
			select {
			case <-cmd.Context().Done():
			case <-over:
			}
			for i, n := range c.Nodes() {
				k := n.Counters()
				fmt.Fprintf(fold(cmd.OutOrStdout()), "node %d: %d requests, %d accepted, %d refused, %d throttled, %d dropped, %d falls, %d strange\n",
					i+1, k.Requests, k.Accepted, k.Refused, k.Throttled, k.Dropped, k.Falls, k.Strange)
			}
			return nil
		},
	}
	kind.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:7001", "address of the first node; port 0: any")
	f.StringVar(&protocol, "protocol", "tcp", dialectNames())
	f.StringVar(&credentials, "credentials", "", "file of lines user:password: sip and turn challenge every request (digest, long-term credentials)")
	f.IntVar(&nodes, "nodes", 1, "how many, on consecutive ports")
	f.StringVar(&control, "control", "", "loopback ADDRESS:PORT of the control")
	f.StringVar(&trigger, "trigger", "", "script, or @FILE, that begins with the nodes: 'at 30s: node 2 down'")
	f.Uint64Var(&seed, "seed", 1, "of the service times")
	f.Float64Var(&speed, "speed", 1, "the same nodes on a clock this much faster, for squall replay --speed")
	f.DurationVar(&duration, "duration", 0, "stop after this, 0 = until interrupted")
	return cmd
}

func dialectNames() string {
	var names []string
	for _, d := range replay.Dialects() {
		names = append(names, d.Name())
	}
	return strings.Join(names, ", ")
}
