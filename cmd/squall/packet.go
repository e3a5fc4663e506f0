package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/replay"
)

// packetManifest is what is kept of a run of packet mode: who, when, what, how
// much.
type packetManifest struct {
	Squall    string               `json:"squall_version"`
	User      int                  `json:"user_id"`
	Host      string               `json:"host"`
	Begin     time.Time            `json:"begin"`
	Captures  []string             `json:"captures"`
	SHA256    string               `json:"packets_sha256"`
	Interface string               `json:"interface"`
	Maps      []string             `json:"maps"`
	Allow     []string             `json:"allow,omitempty"`
	Mark      int                  `json:"dscp,omitempty"`
	Pace      replay.Pace          `json:"pace"`
	Caps      replay.Caps          `json:"caps"`
	Residual  int64                `json:"residual"`
	LeftOut   map[string]int64     `json:"left_out,omitempty"`
	Report    *replay.PacketReport `json:"report"`
}

// packets is one run of packet mode, as its flags want it.
type packets struct {
	maps, allow, ports, vlans                                    []string
	iface, out, srcMAC, dstMAC, filter, format, asUser, manifest string
	pace                                                         replay.Pace
	caps                                                         replay.Caps
	limit                                                        int64
	dscp                                                         int
	send, residual                                               bool
}

// packetsCommand is packet mode: a form of replay that takes captures instead
// of a plan.
func packetsCommand() *cobra.Command {
	x := &packets{}
	cmd := &cobra.Command{
		Use:   "packets FILE... --map OLD=NEW (-w FILE | -i IF [--send])",
		Short: "packet mode: the bytes themselves, rewritten, on an interface or to a file",
		Long: `replay packets takes captures as they are and rewrites every address: at every
layer, inside tunnels and in what ICMP errors quote, with ports, hardware
addresses, VLAN ids and all checksums. An address that no --map covers ends it;
so does a map that makes one address of two. Packets that cannot be rewritten as
a whole, cut ones, and those to multicast or broadcast are left out and counted.
Payloads are not changed: packets that name a recorded address in theirs are
counted as residual, and are sent with --keep-residual only.

-w writes the result with its times. -i says what would be sent; --send sends.
Loopback is free, private addresses need --allow CIDR (at most /24, IPv6 /64),
for sources too; addresses of the capture, public, multicast and broadcast ones
are never sent to. Refusals exit with 4. It takes CAP_NET_RAW; root becomes an
ordinary user (-Z) once the captures are read, before anything is sent.

Nobody reacts to what comes back: this is for parsers, counters and IDS. Whether
it would happen again is a question for squall plan and squall replay.`,
		Example: `  squall sample s2 -w s2.pcapng
  squall replay packets s2.pcapng -w moved.pcapng --map 10.1.0.0/16=10.77.0.0/16 --map 198.51.100.0/24=10.78.0.0/24
  squall replay packets s2.pcapng -i veth0 --map 198.51.100.0/24=10.78.0.0/24 --map 10.1.0.0/24=10.77.0.0/24 --allow 10.77.0.0/24 --allow 10.78.0.0/24 --dst-mac 02:00:00:00:00:02 -f 'net 10.1.0.0/24' -x 10`,
		RunE: func(cmd *cobra.Command, args []string) error { return x.run(cmd, args) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&x.maps, "map", nil, "OLD=NEW: addresses of a network become those of another, host part kept")
	f.StringArrayVar(&x.ports, "port", nil, "OLD=NEW: a port becomes another")
	f.StringArrayVar(&x.vlans, "vlan", nil, "OLD=NEW: a VLAN id becomes another")
	f.StringVar(&x.srcMAC, "src-mac", "", "of every frame; default that of the interface")
	f.StringVar(&x.dstMAC, "dst-mac", "", "of every frame; needed to send, except on loopback")
	f.StringVarP(&x.filter, "filter", "f", "", "capture filter: only these packets")
	f.StringVarP(&x.iface, "interface", "i", "", "interface to send on, by name")
	f.StringVarP(&x.out, "write", "w", "", "capture to write instead; its ending chooses format and compression")
	f.BoolVar(&x.send, "send", false, "really send; without it nothing leaves")
	f.StringArrayVar(&x.allow, "allow", nil, "private network that may be sent to, at most /24 (IPv6 /64)")
	f.IntVar(&x.dscp, "dscp", 0, "mark of every packet, by which the run is told from other traffic, such as 8 (CS1, the lowest class); 0 = as recorded")
	f.StringVar(&x.manifest, "manifest", "", "file for the run's manifest (JSON): who, when, what was sent where, by which leave, how much")
	f.BoolVar(&x.residual, "keep-residual", false, "send packets whose payload names a recorded address")
	f.Float64VarP(&x.pace.Multiplier, "multiplier", "x", 0, "times as fast as recorded")
	f.Float64VarP(&x.pace.PPS, "pps", "p", 0, "packets per second")
	f.Float64VarP(&x.pace.Mbps, "mbps", "M", 0, "million bits per second of frames")
	f.BoolVar(&x.pace.Top, "top-speed", false, "as fast as it goes")
	f.IntVarP(&x.pace.Loops, "loop", "l", 1, "how often")
	f.Int64VarP(&x.limit, "limit", "L", 0, "packets of the capture that are taken, 0 = all")
	f.Float64Var(&x.caps.MaxRate, "max-rate", replay.DefaultMaxRate, "packets per second")
	f.DurationVar(&x.caps.MaxDuration, "max-duration", replay.DefaultMaxDuration, "of the run")
	f.Int64Var(&x.caps.MaxBytes, "max-bytes", replay.DefaultMaxBytes, "that are sent")
	f.StringVarP(&x.format, "format", "T", "text", "text or json")
	f.StringVarP(&x.asUser, "relinquish-privileges", "Z", "", "user to become when started as root; by default who called sudo, else nobody; root keeps root")
	return cmd
}

func (x *packets) run(cmd *cobra.Command, args []string) error {
	opt, err := x.options(args)
	if err != nil {
		return exitError{exitUsage, err}
	}
	nets, err := parsePrefixes("--allow", x.allow)
	if err != nil {
		return exitError{exitUsage, err}
	}
	expr, err := parseFilter(x.filter)
	if err != nil {
		return err
	}
	recorded, err := addressesOf(args)
	if err != nil {
		return exitError{exitUsage, err}
	}
	var wire *replay.Wire
	if x.iface != "" {
		if wire, err = x.wire(&opt, nets, recorded); err != nil {
			return err
		}
	}
	if wire != nil {
		defer wire.Close()
	}
	src, err := openPackets(args, expr)
	if err != nil {
		return exitError{exitUsage, err}
	}
	defer src.Close()
	p, err := replay.LoadPackets(src, recorded, opt)
	if err != nil {
		return refused(err)
	}
	// A capture is opened again when its time comes, so root is kept until
	// all are read.
	if wire != nil {
		if _, err := relinquish(x.asUser, ""); err != nil {
			return exitError{exitUsage, err}
		}
	}
	talk := cmd.OutOrStdout()
	if x.out == "-" {
		talk = cmd.ErrOrStderr()
	}
	if x.format == "text" {
		io.WriteString(fold(talk), p.Summary(x.pace))
	}
	if x.out != "" {
		err = x.write(cmd, p, talk)
	} else {
		err = x.replay(cmd, p, wire, talk, args)
	}
	if err != nil {
		return err
	}
	return brokenOff(src.Files(), "what came before was taken")
}

// options reads the flags.
func (x *packets) options(args []string) (opt replay.PacketOptions, err error) {
	opt.Limit, opt.Bytes, opt.Mark = x.limit, x.caps.MaxBytes, x.dscp
	if err := x.pace.Check(); err != nil {
		return opt, err
	}
	switch {
	case opt.Mark < 0 || opt.Mark > 63:
		return opt, errors.New("--dscp: want 1 to 63, 0 = as recorded")
	case x.pace.Loops < 1:
		return opt, errors.New("--loop: want 1 or more; nothing goes on for ever")
	case (x.iface == "") == (x.out == ""):
		return opt, errors.New("where to? either -w FILE or -i INTERFACE")
	case x.send && x.iface == "":
		return opt, errors.New("--send wants -i INTERFACE, by name")
	case x.format != "text" && x.format != "json":
		return opt, fmt.Errorf("format %q: want text or json", x.format)
	case len(args) == 0:
		return opt, errors.New("no capture was named")
	}
	for _, text := range x.maps {
		m, err := replay.ParseMove(text)
		if err != nil {
			return opt, err
		}
		opt.Moves = append(opt.Moves, m)
	}
	if opt.Ports, err = parsePairs("--port", x.ports, 65535); err != nil {
		return opt, err
	}
	if opt.VLANs, err = parsePairs("--vlan", x.vlans, 4094); err != nil {
		return opt, err
	}
	if opt.SrcMAC, err = parseMAC("--src-mac", x.srcMAC); err != nil {
		return opt, err
	}
	opt.DstMAC, err = parseMAC("--dst-mac", x.dstMAC)
	return opt, err
}

// wire opens the interface, if it is to be sent on, and sets who may be sent to.
func (x *packets) wire(opt *replay.PacketOptions, nets []netip.Prefix, recorded []netip.Addr) (*replay.Wire, error) {
	var err error
	if opt.Guard, err = replay.NewGuard(nets, recorded); err != nil {
		return nil, refused(err)
	}
	if !x.send {
		return nil, nil
	}
	w, err := replay.OpenWire(x.iface)
	if err != nil {
		return nil, exitError{exitFailed, err}
	}
	if router, is := replay.Gateway(opt.DstMAC); is {
		err = refused(&replay.Refusal{Reason: fmt.Sprintf("--dst-mac %s is the router %s: packets for a test network do not leave it", x.dstMAC, router)})
	}
	if x.dstMAC == "" && !w.Loopback {
		err = exitError{exitUsage, fmt.Errorf("-i %s: whose hardware address? --dst-mac", x.iface)}
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	if x.srcMAC == "" {
		opt.SrcMAC = w.MAC
	}
	return w, nil
}

// write writes what would be sent to a capture.
func (x *packets) write(cmd *cobra.Command, p *replay.Packets, talk io.Writer) error {
	opt := capture.WriterOptionsFor(x.out)
	opt.Link = p.Link
	err := emit(cmd, x.out, func(h io.Writer) error {
		w, err := capture.NewWriter(h, opt)
		if err != nil {
			return err
		}
		err = p.WriteTo(cmd.Context(), w, x.pace)
		if e := w.Close(); err == nil {
			err = e
		}
		return err
	})
	if err != nil || x.format != "json" {
		return err
	}
	return encode(talk, struct {
		replay.PacketPlan
		Residual int64            `json:"residual"`
		LeftOut  map[string]int64 `json:"left_out"`
	}{p.Plan(x.pace), p.Residual, p.LeftOut})
}

// replay sends, where that is wanted and allowed.
func (x *packets) replay(cmd *cobra.Command, p *replay.Packets, wire *replay.Wire, talk io.Writer, args []string) error {
	plan := p.Plan(x.pace)
	if err := plan.Within(x.caps); err != nil {
		return refused(err)
	}
	if x.pace.Top && !cmd.Flags().Changed("max-rate") {
		return refused(&replay.Refusal{Reason: "--top-speed knows no rate: lift the cap with --max-rate"})
	}
	if p.Residual > 0 && !x.residual {
		return refused(&replay.Refusal{Reason: fmt.Sprintf("%d packets name a recorded address in their payload, the first is frame %d; --keep-residual sends them all the same", p.Residual, p.ResidualAt)})
	}
	if !x.send {
		fmt.Fprintf(talk, "dry run: nothing was sent; --send sends this on %s\n", x.iface)
		return nil
	}
	m := packetManifest{Squall: version(), User: os.Getuid(), Begin: time.Now().UTC(), Captures: args, SHA256: p.Hash(), Interface: x.iface, Maps: x.maps, Allow: x.allow,
		Mark: x.dscp, Pace: x.pace, Caps: x.caps, Residual: p.Residual, LeftOut: p.LeftOut}
	m.Host, _ = os.Hostname()
	report, err := wire.Send(cmd.Context(), p, x.pace, x.caps)
	if m.Report = report; x.manifest != "" {
		if e := emit(cmd, x.manifest, func(w io.Writer) error { return encode(w, &m) }); e != nil {
			return e
		}
	}
	if report != nil {
		if x.format == "json" {
			encode(talk, report)
		} else {
			io.WriteString(talk, report.Text())
		}
	}
	switch {
	case cmd.Context().Err() != nil:
		return exitError{exitSignal, errors.New("interrupted")}
	case err != nil && errors.Is(err, context.Canceled):
		return exitError{exitSignal, err}
	case err != nil:
		return exitError{exitFailed, err}
	}
	return nil
}

// parseMAC reads the hardware address of one host; empty = zeros.
func parseMAC(flag, text string) (mac [6]byte, err error) {
	if text == "" {
		return mac, nil
	}
	a, err := net.ParseMAC(text)
	if err != nil || len(a) != 6 || a[0]&1 == 1 {
		return mac, fmt.Errorf("%s %q: want a unicast hardware address such as 02:00:00:00:00:02", flag, text)
	}
	return [6]byte(a), nil
}

func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// parsePairs reads OLD=NEW numbers.
func parsePairs(flag string, list []string, most uint64) (map[uint16]uint16, error) {
	m := map[uint16]uint16{}
	for _, s := range list {
		was, is, _ := strings.Cut(s, "=")
		a, err1 := strconv.ParseUint(was, 10, 16)
		b, err2 := strconv.ParseUint(is, 10, 16)
		if err1 != nil || err2 != nil || a == 0 || b == 0 || a > most || b > most {
			return nil, fmt.Errorf("%s %q: want OLD=NEW, from 1 to %d", flag, s, most)
		}
		m[uint16(a)] = uint16(b)
	}
	return m, nil
}

// openPackets opens captures with a filter over them.
func openPackets(args []string, expr capture.Expr) (capture.Source, error) {
	for _, a := range args {
		if a == "-" {
			return nil, errors.New("-: packet mode reads a capture twice; give it a file")
		}
	}
	src, err := capture.Open(args, capture.Options{})
	if err != nil || expr == nil {
		return src, err
	}
	return replay.Filtered(src, expr), nil
}

// addressesOf is every address of the captures, looked at before anything is
// rewritten: none of them is sent to, and none may stand in a payload.
func addressesOf(args []string) ([]netip.Addr, error) {
	src, err := openPackets(args, nil)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return replay.AddressesOf(src)
}
