package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"squall/capture"
)

// live is what capture and watch ask for of interfaces.
type live struct {
	interfaces []string
	filter     string
	snaplen    int
	promisc    bool
	noPromisc  bool
	buffer     int // KiB
	fanout     int
	stamps     string
	user       string
}

func (l *live) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&l.interfaces, "interface", "i", nil, "interface to listen on, may be given several times; any: all of them")
	f.StringVarP(&l.filter, "filter", "f", "", "capture filter, as tcpdump's (pcap-filter), what tcpdump -ddd prints, or @FILE with either")
	f.IntVarP(&l.snaplen, "snapshot-length", "s", 262144, "bytes kept of each packet")
	f.BoolVar(&l.promisc, "promiscuous", false, "take frames for other hosts, too")
	f.BoolVarP(&l.noPromisc, "no-promiscuous-mode", "p", false, "accepted for the sake of habit: it is the default")
	f.IntVarP(&l.buffer, "buffer-size", "B", 32768, "KiB that the kernel may fill, for each interface and socket")
	f.IntVar(&l.fanout, "fanout", 1, "sockets for each interface, among which the kernel shares the flows")
	f.StringVar(&l.stamps, "time-stamp-type", "host", "host, or adapter for the clock of the network adapter where it has one")
	f.StringVarP(&l.user, "relinquish-privileges", "Z", "", userHelp)
}

// open begins to capture.
func (l *live) open(say func(string, ...any)) (*capture.Live, error) {
	opt := capture.LiveOptions{Interfaces: l.interfaces, Snaplen: l.snaplen, Promiscuous: l.promisc, Buffer: l.buffer << 10, Fanout: l.fanout, Say: say}
	var err error
	if opt.Filter, err = parseFilter(l.filter); err != nil {
		return nil, err
	}
	switch {
	case l.promisc && l.noPromisc:
		return nil, exitError{exitUsage, errors.New("--promiscuous and -p are opposites")}
	case l.snaplen < 1 || l.snaplen > 262144:
		return nil, exitError{exitUsage, fmt.Errorf("-s %d: want 1 to 262144 bytes", l.snaplen)}
	case l.buffer < 2048 || l.buffer > 16<<20:
		return nil, exitError{exitUsage, fmt.Errorf("-B %d: want 2048 (2 MiB) to 16777216 (16 GiB)", l.buffer)}
	case l.fanout < 1 || l.fanout > 64:
		return nil, exitError{exitUsage, fmt.Errorf("--fanout %d: want 1 to 64", l.fanout)}
	}
	switch l.stamps {
	case "host":
	case "adapter":
		opt.AdapterTime = true
	default:
		return nil, exitError{exitUsage, fmt.Errorf("--time-stamp-type %q: want host or adapter", l.stamps)}
	}
	src, err := capture.OpenLive(opt)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	return src, nil
}

// describe is what the file says of the interfaces.
func (l *live) describe(taps []capture.LiveInterface) (list []capture.WriterInterface) {
	for _, t := range taps {
		i := capture.WriterInterface{Name: t.Name, Description: t.Kind, Link: t.Link}
		if !strings.Contains(l.filter, "\n") && !strings.HasPrefix(l.filter, "@") {
			i.Filter = l.filter
		}
		list = append(list, i)
	}
	return list
}

func captureCommand() *cobra.Command {
	var l live
	var file, trigger string
	var ring []string
	var count int64
	var duration time.Duration
	var list, quiet, eager bool
	cmd := &cobra.Command{
		Use:   "capture -i INTERFACE -w FILE",
		Short: "packets of interfaces into a file, or into a ring of files",
		Long: `capture writes packets of one or more interfaces to a pcapng file (Linux; a name
that ends in .zst, .gz or .lz4 compresses it). Each interface is one of the
file's own, with its name, the direction of each packet, and at the end what was
received and dropped, which is printed as well. VLAN tags are in the packets.
Nothing else is listened to than what is addressed to this host, unless
--promiscuous.

-b makes a ring, in tshark's words; give it several times: filesize:KB,
duration:SECONDS, packets:N begin another file, interval:SECONDS does on whole
multiples by the clock, files:N keeps that many. Units may follow
(filesize:100MB, interval:1h). Files are named FILE_00001_20060102150405, UTC;
those of an earlier run with the same name belong to the ring. When the disk is
full the oldest give way, and that is said; without older ones capture stops.

What is written once a second is whole packets: a capture that was killed opens
cleanly up to there. The only privilege that is needed is CAP_NET_RAW. Once
everything is open it is given up, and root with it (-Z), and the process may
call no more of the system than it takes to write what is open; for a ring, to
make and remove files in its directory (seccomp, and Landlock where the kernel
has it). What is around a finding alone is kept by squall watch --trigger.`,
		Example: `  squall capture -i eth0 -f 'udp port 7654' -w node.pcapng
  squall capture -i any -s 512 -b interval:1h -b files:48 -w /var/captures/node.pcapng.zst
  squall capture -D`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				return listInterfaces(fold(cmd.OutOrStdout()))
			}
			if trigger != "" {
				return exitError{exitUsage, fmt.Errorf("capture looks into no packet: squall watch -i %s --trigger %s -w FILE keeps those around a finding", cmp.Or(strings.Join(l.interfaces, " -i "), "IF"), trigger)}
			}
			if len(l.interfaces) == 0 {
				return exitError{exitUsage, errors.New("-i INTERFACE is missing; squall capture -D lists them")}
			}
			if file == "" {
				return exitError{exitUsage, errors.New("-w FILE is missing, - for standard output")}
			}
			if file == "-" && len(ring) > 0 {
				return exitError{exitUsage, errors.New("-b makes files; standard output is none")}
			}
			if file == "-" && isTerminal(cmd.OutOrStdout()) {
				return exitError{exitUsage, errors.New("a capture is not written to a terminal; -w FILE, or | tcpdump -r -")}
			}
			var opt capture.RingOptions
			for _, b := range ring {
				if err := opt.ParseRing(b); err != nil {
					return exitError{exitUsage, fmt.Errorf("-b %w", err)}
				}
			}
			who, err := becomeWho(l.user)
			if err != nil {
				return err
			}
			say := func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), "squall: "+format+"\n", args...) }
			src, err := l.open(say)
			if err != nil {
				return err
			}
			defer src.Close()
			opt.Writer = capture.WriterOptions{Snaplen: uint32(l.snaplen), Application: "squall " + version(), Interfaces: l.describe(src.Taps())}
			if duration > 0 {
				stop := time.AfterFunc(duration, src.Stop)
				defer stop.Stop()
			}
			opt.Statistics, opt.Say = src.Statistics, say
			if who.drop && !who.root {
				opt.Owner = &[2]int{who.uid, who.gid}
			}
			w, err := openCapture(cmd.OutOrStdout(), file, opt, &who, say)
			if err != nil {
				return err
			}
			if !quiet {
				say("listening on %s", strings.Join(l.interfaces, ", "))
			}
			if err := copyLive(cmd, src, w, count, eager || file == "-"); err != nil {
				return err
			}
			if !quiet {
				printStatistics(cmd.ErrOrStderr(), src, l.stamps == "adapter")
			}
			return nil
		},
	}
	l.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&file, "write", "w", "", "file to write; its ending says format (.pcapng, .pcap) and compression (.zst, .gz, .lz4)")
	f.StringVar(&trigger, "trigger", "", "said to be a flag of watch")
	f.MarkHidden("trigger")
	f.StringArrayVarP(&ring, "ring-buffer", "b", nil, "WORD:VALUE of a ring of files: filesize, duration, interval, packets, files")
	f.Int64VarP(&count, "count", "c", 0, "stop after this many packets, 0 = go on")
	f.DurationVar(&duration, "duration", 0, "stop after this time, 0 = go on")
	f.BoolVarP(&list, "list-interfaces", "D", false, "list the interfaces and stop")
	f.BoolVarP(&quiet, "quiet", "q", false, "no counters at the end")
	f.BoolVarP(&eager, "packet-buffered", "U", false, "write packets as they come, not once a second")
	return cmd
}

// packetWriter is a file, a ring of files, or standard output.
type packetWriter interface {
	WritePacket(*capture.Packet, string) error
	Flush() error
	Close() error
}

// pipe is standard output, which has no end to write counters at but one.
type pipe struct {
	*capture.Writer
	statistics func() []capture.InterfaceStatistics
}

func (p pipe) Close() error {
	for _, s := range p.statistics() {
		if err := p.WriteStatistics(&s); err != nil {
			return err
		}
	}
	return p.Writer.Close()
}

// openCapture opens what is written to, and gives up all privileges on the way:
// one file before, since root may write where the user may not; a ring, whose
// files come and go, behind.
func openCapture(stdout io.Writer, file string, opt capture.RingOptions, who *becoming, say func(string, ...any)) (w packetWriter, err error) {
	many := opt.FileSize > 0 || opt.Duration > 0 || opt.Interval > 0 || opt.Packets > 0
	open := func() error {
		if file == "-" {
			out, err := capture.NewWriter(stdout, opt.Writer)
			w = pipe{out, opt.Statistics}
			return err
		}
		w, err = capture.NewRing(file, opt)
		return err
	}
	if !many {
		err = open()
	}
	if err != nil {
		return nil, exitError{exitFailed, err}
	}
	if many { // who is to write the files must be who finds out that he may not
		if err := who.giveUpRoot(); err != nil {
			return nil, exitError{exitFailed, err}
		}
		if err := open(); err != nil {
			if who.drop && !who.root {
				err = fmt.Errorf("%w (as %s: -Z USER chooses one who may write there)", err, who.name)
			}
			return nil, exitError{exitFailed, err}
		}
	}
	dir := "" // one file is open; a ring opens more
	if many {
		dir = filepath.Dir(file)
	}
	note, err := who.confine(dir)
	if err != nil {
		return nil, err
	}
	if note != "" {
		say("%s", note)
	}
	return w, nil
}

// flushEvery is how long packets wait before they are written to the file.
const flushEvery = time.Second

// copyLive writes what comes until it ends, count is reached, or a signal.
func copyLive(cmd *cobra.Command, src *capture.Live, w packetWriter, count int64, eager bool) error {
	ctx := cmd.Context()
	flushed := time.Now()
	var n int64
	err := func() error {
		for {
			if ctx.Err() != nil {
				src.Stop()
			}
			b, err := src.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			for i := range b.Packets {
				if count > 0 && n == count {
					break
				}
				if err := w.WritePacket(&b.Packets[i], ""); err != nil {
					b.Release()
					return err
				}
				n++
			}
			empty := len(b.Packets) == 0
			b.Release()
			if count > 0 && n >= count {
				return nil
			}
			if now := time.Now(); eager && !empty || now.Sub(flushed) >= flushEvery {
				flushed = now
				if err := w.Flush(); err != nil {
					return err
				}
			}
		}
	}()
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		s := total(src.Statistics())
		return exitError{exitFailed, fmt.Errorf("%w; stopped after %d packets, of which those after the last flush may not be in the file", err, s.Delivered)}
	}
	return nil
}

func total(list []capture.InterfaceStatistics) (sum capture.InterfaceStatistics) {
	for _, s := range list {
		sum.Accepted += s.Accepted
		sum.OSDropped += s.OSDropped
		sum.Delivered += s.Delivered
		sum.IfDropped += max(s.IfDropped, 0)
	}
	return sum
}

// printStatistics prints what tcpdump prints, interface by interface.
func printStatistics(w io.Writer, src *capture.Live, adapter bool) {
	taps := src.Taps()
	for i, s := range src.Statistics() {
		fmt.Fprintf(w, "%s: %d packets captured, %d passed the filter, %d dropped by the kernel", taps[i].Name, s.Delivered, s.Accepted, s.OSDropped)
		if s.IfDropped >= 0 {
			fmt.Fprintf(w, ", %d by the interface", s.IfDropped)
		}
		fmt.Fprintln(w)
	}
	for _, f := range src.Files() {
		if f.ClockSteps > 0 {
			fmt.Fprintf(w, "%s: the clock was set back %d times\n", f.Path, f.ClockSteps)
		}
	}
	if adapter {
		fmt.Fprintf(w, "%d packets have the time of the adapter\n", src.AdapterTimes())
	}
}

func listInterfaces(w io.Writer) error {
	all, err := capture.Interfaces()
	if err != nil {
		return exitError{exitFailed, err}
	}
	for i, l := range all {
		state := "down"
		if l.Up {
			state = "up"
		}
		line := fmt.Sprintf("%d. %-16s %-5s link type %-4d %s  %s", i+1, l.Name, state, l.Link, l.Kind, strings.Join(l.Addrs, " "))
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	return nil
}
