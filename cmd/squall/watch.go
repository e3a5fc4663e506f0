package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

// watching is one watch, as its flags want it.
type watching struct {
	l                                            live
	in                                           source
	horizon, before, after                       time.Duration
	format, metrics, hook, trigger, file, exitOn string
	room                                         int // MiB
}

func watchCommand() *cobra.Command {
	x := &watching{}
	cmd := &cobra.Command{
		Use:   "watch -i INTERFACE | - | NAME=PIPE...",
		Short: "the analysis runs along: a screen, lines or JSON while it happens",
		Long: `watch analyses packets while they come: of interfaces (-i), of standard input, or
of several named pipes at once, each a tap of its own. Every two seconds, in the
time of the packets, it judges the last --horizon: a finding is told as
provisional after a few bad seconds, as confirmed once it meets the thresholds
of squall analyze, and when it is over. A provisional one may be withdrawn.
It ends with its input; a named pipe of mkfifo outlives its writers, so that one
that comes back goes on: Ctrl-C ends that.

Clocks of several taps are compared by the packets that two of them see, and a tap
that disagrees with the first is told, with a bound. Its times are changed only by
--clock: what was judged already cannot be put into another order.

On a terminal it draws a screen; elsewhere it prints a line for each ten seconds
and for each change of a finding, or, with -T jsonl, an object each.

--trigger CLASS keeps the packets of a finding of that class or a graver one in
the file of -w: from --before its onset until --after its end, out of the last
--trigger-buffer MiB. --on-finding CMD runs a command at each change, split at
blanks and never given to a shell: the finding is in SQUALL_CLASS,
SQUALL_SERVICE, SQUALL_SIGHT, SQUALL_ONSET, SQUALL_END and, as JSON, on its
standard input. --exit-on CLASS ends with status 99 when one is confirmed.
--metrics serves Prometheus on a loopback address; else nothing listens.

Root and capabilities are given up before the first packet is looked at, and the
process can no longer open a file, start a program or connect to anything.`,
		Example: `  ssh node 'tcpdump -i eth0 -U -s 512 -w - not port 22' | squall watch -
  squall watch -i eth0 --trigger retry_storm -w storm.pcapng
  mkfifo a b; squall watch fra=a ams=b -T jsonl
  squall watch -i any --metrics 127.0.0.1:9753 --on-finding '/usr/local/bin/page overlay'`,
		RunE: x.run,
	}
	x.l.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&x.in.hints, "hints", "", "YAML file that names nodes, fixes roles, groups services, adds protocols")
	f.StringArrayVar(&x.in.clocks, "clock", nil, "NAME=OFFSET: how far the clock of the tap NAME is ahead, as east=+137ms; its times are set right by that")
	x.in.thresholdFlag(cmd)
	f.BoolVar(&x.in.keepDuplicates, "keep-duplicates", false, "count frames that a tap saw twice as packets of their own")
	f.BoolVarP(&x.in.quiet, "quiet", "q", false, "no remarks on standard error")
	f.StringVarP(&x.format, "format", "T", "text", "text, or jsonl for an object a line")
	f.DurationVar(&x.horizon, "horizon", 15*time.Minute, "how much of the past is judged")
	f.StringVar(&x.metrics, "metrics", "", "loopback ADDRESS:PORT that serves Prometheus at /metrics")
	f.StringVar(&x.hook, "on-finding", "", "command to run when a finding appears, changes or ends")
	f.StringVar(&x.exitOn, "exit-on", "", "exit 99 when a finding of this class or a graver one is confirmed")
	f.StringVar(&x.trigger, "trigger", "", "keep the packets of findings of this class or a graver one in the file of -w")
	f.StringVarP(&x.file, "write", "w", "", "file for the packets of --trigger")
	f.DurationVar(&x.before, "before", time.Minute, "with --trigger: from this long before the onset")
	f.DurationVar(&x.after, "after", time.Minute, "with --trigger: until this long after the end")
	f.IntVar(&x.room, "trigger-buffer", 256, "MiB of packets that are held for --trigger")
	return cmd
}

func (x *watching) run(cmd *cobra.Command, args []string) error {
	v, err := x.viewer(cmd, args)
	if err != nil {
		return err
	}
	if x.in.filter = x.l.filter; len(x.l.interfaces) > 0 {
		x.in.filter = "" // the kernel filters
	}
	base, err := x.in.config()
	if err != nil {
		return err
	}
	cfg := pipeline.WatchConfig{Config: base, Horizon: int64(x.horizon), Look: v.look, Storm: x.in.judging}
	who, err := becomeWho(x.l.user)
	if err != nil {
		return err
	}
	// Everything is opened here; from confine on nothing can be.
	src, names, err := x.open(cmd, args, &cfg, v)
	if err != nil {
		return err
	}
	defer src.Close()
	if live, ok := src.(*capture.Live); ok {
		stop := context.AfterFunc(cmd.Context(), live.Stop)
		defer stop()
	}
	if x.trigger != "" || x.file != "" {
		if v.trigger, err = x.trap(names, &who, v.say); err != nil {
			return err
		}
		cfg.Packet = v.trigger.packet
	}
	var server net.Listener
	if x.metrics != "" {
		if server, err = listenLoopback(x.metrics); err != nil {
			return err
		}
		defer server.Close()
	}
	if err := who.giveUpRoot(); err != nil {
		return exitError{exitFailed, err}
	}
	if x.hook != "" {
		if v.hook, err = startHook(strings.Fields(x.hook)); err != nil {
			return exitError{exitUsage, err}
		}
		defer v.hook.close(v.say)
	}
	note, err := who.confine("")
	if err != nil {
		return err
	}
	if note != "" {
		v.say("%s", note)
	}
	if server != nil {
		go (&http.Server{Handler: v, ReadHeaderTimeout: 5 * time.Second}).Serve(server)
	}
	err = pipeline.Watch(cmd.Context(), cfg, src)
	if v.trigger != nil {
		if e := v.trigger.w.Close(); err == nil {
			err = e
		}
	}
	if live, ok := src.(*capture.Live); ok && !x.in.quiet {
		printStatistics(v.words, live, x.l.stamps == "adapter")
	}
	switch {
	case errors.Is(err, errExitOn):
		return exitError{exitThreshold, fmt.Errorf("%s: --exit-on %s was met", v.met, x.exitOn)}
	case err != nil && cmd.Context().Err() != nil:
		return nil // it was told to stop
	case err != nil:
		return exitError{exitFailed, err}
	}
	for _, f := range src.Files() {
		if d := f.Damage; d != nil && !d.Tail {
			return exitError{exitDamaged, fmt.Errorf("%s: offset %d, frame %d: %s", f.Path, d.Offset, d.Frame, d.Reason)}
		}
	}
	return nil
}

// viewer reads the flags that say how it is shown, and checks the rest.
func (x *watching) viewer(cmd *cobra.Command, args []string) (*viewer, error) {
	if len(x.l.interfaces) > 0 && len(args) > 0 || len(x.l.interfaces)+len(args) == 0 {
		return nil, exitError{exitUsage, errors.New("want -i INTERFACE, - for standard input, or named pipes: NAME=PIPE")}
	}
	v := &viewer{out: cmd.OutOrStdout(), words: cmd.ErrOrStderr(), quiet: x.in.quiet, exit: storm.NumClasses}
	switch x.format {
	case "text":
		v.screen = isTerminal(v.out) && os.Getenv("TERM") != "dumb"
		v.colour = v.screen && os.Getenv("NO_COLOR") == ""
	case "jsonl":
		v.lines = json.NewEncoder(v.out)
	default:
		return nil, exitError{exitUsage, fmt.Errorf("-T %q: want text or jsonl", x.format)}
	}
	if x.exitOn != "" {
		var err error
		if v.exit, err = classOf("--exit-on", x.exitOn); err != nil {
			return nil, err
		}
	}
	if x.horizon < time.Minute || x.horizon > 24*time.Hour || x.before < 0 || x.after < 0 || x.room < 2 {
		return nil, exitError{exitUsage, errors.New("--horizon: want 1m to 24h; --before and --after not below 0; --trigger-buffer at least 2")}
	}
	return v, nil
}

// open opens what is watched, and tells cfg what it has to know of it.
func (x *watching) open(cmd *cobra.Command, args []string, cfg *pipeline.WatchConfig, v *viewer) (capture.Source, []capture.WriterInterface, error) {
	opened := time.Now()
	elapsed := func() int64 { return int64(time.Since(opened)) }
	if len(x.l.interfaces) > 0 {
		nic, err := x.l.open(v.say)
		if err != nil {
			return nil, nil, err
		}
		cfg.Behind, cfg.Elapsed = true, elapsed
		return nic, x.l.describe(nic.Taps()), nil
	}
	clocks, err := tapClocks(x.in.clocks, args)
	if err != nil {
		return nil, nil, err
	}
	src, names, whole, err := openTaps(cmd, args, clocks)
	if err != nil {
		return nil, nil, exitError{exitUsage, err}
	}
	for _, n := range names {
		cfg.Taps = append(cfg.Taps, n.Name)
	}
	if !whole {
		cfg.Elapsed = elapsed
	}
	return src, names, nil
}

// trap keeps the packets of --trigger.
func (x *watching) trap(names []capture.WriterInterface, who *becoming, say func(string, ...any)) (*trap, error) {
	class, err := classOf("--trigger", x.trigger)
	if err != nil {
		return nil, err
	}
	if x.file == "" {
		return nil, exitError{exitUsage, errors.New("--trigger needs -w FILE for the packets")}
	}
	opt := capture.RingOptions{Writer: capture.WriterOptions{Application: "squall " + version(), Interfaces: names,
		Comment: fmt.Sprintf("squall watch --trigger %s: packets from %v before the onset of a finding to %v after its end", class, x.before, x.after)}}
	if who.drop && !who.root {
		opt.Owner = &[2]int{who.uid, who.gid}
	}
	w, err := capture.NewRing(x.file, opt)
	if err != nil {
		return nil, exitError{exitFailed, err}
	}
	return newTrap(class, x.before, x.after, x.horizon, x.room<<20, w, say), nil
}

func classOf(flag, text string) (storm.Class, error) {
	c, ok := storm.ParseClass(text)
	if !ok {
		return c, exitError{exitUsage, fmt.Errorf("%s %q: no such class; there are %s", flag, text, classes())}
	}
	return c, nil
}

// tapClocks reads --clock of taps that come as they happen.
func tapClocks(list, args []string) (map[string]capture.Clock, error) {
	of := map[string]capture.Clock{}
	for _, text := range list {
		name, c, err := capture.ParseClock(text)
		switch {
		case err != nil:
			return nil, exitError{exitUsage, fmt.Errorf("--clock %w", err)}
		case c.Drift != 0:
			return nil, exitError{exitUsage, fmt.Errorf("--clock %s: a drift counts from the first packet, which may be long ago: watch takes an offset", text)}
		case !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, name+"=") }):
			return nil, noTap(text, name)
		}
		of[name] = c
	}
	return of, nil
}

// openTaps opens standard input, pipes and files, each with its name; whole
// says that they are files alone, so that no clock is needed.
func openTaps(cmd *cobra.Command, args []string, clocks map[string]capture.Clock) (src capture.Source, names []capture.WriterInterface, whole bool, err error) {
	var taps []capture.Tap
	var files []string
	for _, a := range args {
		name, path, ok := strings.Cut(a, "=")
		if !ok {
			name, path = a, a
		}
		names = append(names, capture.WriterInterface{Name: name, Link: capture.LinkEthernet})
		if path == "-" {
			r := cmd.InOrStdin()
			if isTerminal(r) {
				return nil, nil, false, errors.New("-: standard input is a terminal; ssh node tcpdump -U -w - | squall watch -")
			}
			taps = append(taps, capture.Tap{Name: name, R: r, Clock: clocks[name]})
			continue
		}
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode().IsRegular() {
			files = append(files, a)
			continue
		}
		// A named pipe is opened for both ways, so that this does not wait for its
		// writer, nor end with the first one. That of <(command) has one writer.
		mode := os.O_RDWR
		if dir := filepath.Dir(path); dir == "/dev/fd" || dir == "/proc/self/fd" {
			mode = os.O_RDONLY
		}
		h, err := os.OpenFile(path, mode, 0)
		if err != nil {
			return nil, nil, false, err
		}
		taps = append(taps, capture.Tap{Name: name, R: h, Clock: clocks[name]})
	}
	if len(files) > 0 {
		if len(taps) > 0 {
			return nil, nil, false, errors.New("files and pipes cannot be watched together")
		}
		src, err = capture.Open(files, capture.Options{Hold: true, Clocks: clocks})
		return src, names, true, err
	}
	return capture.OpenTaps(taps), names, false, nil
}

func listenLoopback(at string) (net.Listener, error) {
	a, err := netip.ParseAddrPort(at)
	if err != nil || !a.Addr().IsLoopback() {
		return nil, exitError{exitUsage, fmt.Errorf("--metrics %q: want a loopback ADDRESS:PORT, such as 127.0.0.1:9753", at)}
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, exitError{exitFailed, err}
	}
	return l, nil
}

var errExitOn = errors.New("a finding")

// viewer shows what is known.
type viewer struct {
	out, words io.Writer
	quiet      bool
	screen     bool
	colour     bool
	lines      *json.Encoder
	exit       storm.Class
	met        string
	hook       *hook
	trigger    *trap
	printed    int64 // window of the last line
	recent     []string
	ahead      map[string]int64 // clocks that were warned of, ns

	mu     sync.Mutex // guards what the metrics read
	last   *pipeline.Look
	totals [pipeline.NumSights]int64
}

func (v *viewer) say(format string, args ...any) {
	if !v.quiet {
		fmt.Fprintf(v.words, "squall: "+format+"\n", args...)
	}
}

func utc(ns int64) string {
	if ns == 0 {
		return ""
	}
	return time.Unix(0, ns).UTC().Format(time.RFC3339Nano)
}

// sighting is a finding in JSON lines and for hooks.
type sighting struct {
	Type       string   `json:"type"`
	Time       string   `json:"time"`
	ID         int      `json:"id"`
	Sight      string   `json:"sight"`
	Class      string   `json:"class"`
	Cascade    bool     `json:"cascade"`
	Service    string   `json:"service"`
	Onset      string   `json:"onset"`
	End        string   `json:"end,omitempty"`
	Nodes      []string `json:"nodes"`
	Clients    int64    `json:"clients"`
	Attempts   int64    `json:"attempts"`
	Intents    int64    `json:"intents"`
	A          float64  `json:"amplification"`
	RetryShare float64  `json:"retry_share"`
	Surge      float64  `json:"intent_surge"`
	Failures   float64  `json:"failure_ratio"`
	Sentence   string   `json:"sentence"`
}

func sightingOf(s *pipeline.Sighting) sighting {
	f := &s.Finding
	o := sighting{Type: "finding", Time: utc(s.At), ID: s.ID, Sight: s.Sight.String(), Class: f.Class.String(), Cascade: f.Cascade, Service: f.Service,
		Onset: utc(f.Onset), End: utc(f.End), Nodes: []string{}, Clients: f.Clients, Attempts: f.Attempts, Intents: f.Intents, A: f.Amplification(),
		RetryShare: f.RetryShare(), Surge: f.Surge, Failures: f.FailureRatio(), Sentence: asOfNow(f.Sentence)}
	for _, n := range f.Nodes {
		o.Nodes = append(o.Nodes, n.String())
	}
	return o
}

var toTheEnd = regexp.MustCompile(`from (\S+) to the end of the capture`)

// asOfNow says of a capture that goes on what the sentence says of one that
// ended.
func asOfNow(sentence string) string {
	return strings.ReplaceAll(toTheEnd.ReplaceAllString(sentence, "since $1"), "not recovered in the capture", "not recovered yet")
}

// window is ten seconds in JSON lines.
type window struct {
	Type       string           `json:"type"`
	Time       string           `json:"time"`
	Rate       float64          `json:"attempts_per_second"`
	Outcomes   map[string]int64 `json:"outcomes"`
	Attempts   int64            `json:"attempts"`
	Intents    int64            `json:"intents"`
	Retries    int64            `json:"retries"`
	Refreshes  int64            `json:"refreshes"`
	A          float64          `json:"amplification"`
	RetryShare float64          `json:"retry_share"`
	Surge      float64          `json:"intent_surge"`
	Late       float64          `json:"late_ratio"`
	Attached   int64            `json:"attached"`
	Packets    int64            `json:"packets"`
	Dropped    int64            `json:"dropped"`
}

func windowOf(l *pipeline.Look) window {
	c := &l.Last
	w := window{Type: "window", Time: utc(l.LastStart), Rate: float64(c.Attempts) / (float64(storm.WindowLength) / 1e9), Outcomes: map[string]int64{},
		Attempts: c.Attempts, Intents: c.Intents, Retries: c.Retries, Refreshes: c.Refreshes, A: c.Amplification(), RetryShare: c.RetryShare(),
		Surge: l.Surge, Late: c.LateRatio(), Attached: l.Attached, Packets: l.Packets}
	for o, n := range c.Outcomes {
		if n > 0 {
			w.Outcomes[dissect.Outcome(o).String()] = n
		}
	}
	for _, f := range l.Files {
		w.Dropped += max(f.Drops, 0)
	}
	return w
}

// outcomes in the order of their numbers, "accepted 93, timeout 5".
func outcomes(c *storm.Counts) string {
	var list []string
	for o, n := range c.Outcomes {
		if n > 0 {
			list = append(list, fmt.Sprintf("%s %d", dissect.Outcome(o), n))
		}
	}
	return strings.Join(list, ", ")
}

func (w *window) line(l *pipeline.Look) string {
	surge, a := "-", "-"
	if w.Surge > 0 {
		surge = fmt.Sprintf("%.1f", w.Surge)
	}
	if w.Intents > 0 { // in ten seconds there may be retries alone
		a = fmt.Sprintf("%.2f", w.A)
	}
	return fmt.Sprintf("%8.1f/s  A %s  retries %.2f  surge %s  late %.2f  attached %d  %s", w.Rate, a, w.RetryShare, surge, w.Late, w.Attached, outcomes(&l.Last))
}

func (s *sighting) line() string {
	return fmt.Sprintf("%s #%d %s: %s", strings.ToUpper(s.Sight), s.ID, s.Class, s.Sentence)
}

func clockOf(ns int64) string { return time.Unix(0, ns).UTC().Format("15:04:05") }

// aheadBy is a clock in JSON lines.
type aheadBy struct {
	Type   string `json:"type"`
	Time   string `json:"time"`
	Tap    string `json:"observer_name"`
	Offset int64  `json:"clock_offset_ns"`
	Error  int64  `json:"clock_error_ns"`
}

// clocks warns of taps whose clocks disagree, once, and again when they have moved.
func (v *viewer) clocks(l *pipeline.Look) error {
	for _, a := range l.Ahead {
		before, told := v.ahead[a.Tap]
		if moved := a.Ns - before; told && max(moved, -moved) <= 2*a.Bound {
			continue
		}
		if v.ahead == nil {
			v.ahead = map[string]int64{}
		}
		v.ahead[a.Tap] = a.Ns
		if v.lines != nil {
			if err := v.lines.Encode(aheadBy{"clock", utc(l.Time), a.Tap, a.Ns, a.Bound}); err != nil {
				return err
			}
		}
		v.say("the clock of tap %s is %+.3f s ahead of the first tap's, to %.3f s: what both see is taken in a wrong order; --clock %s=%+.3fs sets its times right", a.Tap, float64(a.Ns)/1e9, float64(a.Bound)/1e9, a.Tap, float64(a.Ns)/1e9)
	}
	return nil
}

// look shows a look, and does what findings call for.
func (v *viewer) look(l *pipeline.Look) error {
	v.mu.Lock()
	v.last = l
	v.mu.Unlock()
	if v.trigger != nil {
		if err := v.trigger.look(l); err != nil {
			return err
		}
	}
	w := windowOf(l)
	fresh := l.LastStart > v.printed && l.Last.Attempts+l.Last.Refreshes > 0
	if fresh {
		v.printed = l.LastStart
		switch {
		case v.lines != nil:
			if err := v.lines.Encode(&w); err != nil {
				return err
			}
		case !v.screen:
			if _, err := fmt.Fprintf(v.out, "%s %s\n", clockOf(l.LastStart), w.line(l)); err != nil {
				return err
			}
		}
	}
	met := false
	for i := range l.Findings {
		s := &l.Findings[i]
		if !s.Changed {
			continue
		}
		v.mu.Lock()
		v.totals[s.Sight]++
		v.mu.Unlock()
		o := sightingOf(s)
		switch {
		case v.lines != nil:
			if err := v.lines.Encode(&o); err != nil {
				return err
			}
		case v.screen:
			v.recent = append(v.recent, fmt.Sprintf("%s %s #%d %s on %s, onset %s", clockOf(s.At), o.Sight, s.ID, o.Class, o.Service, clockOf(s.Finding.Onset)))
			v.recent = v.recent[max(len(v.recent)-8, 0):]
		default:
			if _, err := fmt.Fprintf(v.out, "%s %s\n", clockOf(s.At), o.line()); err != nil {
				return err
			}
		}
		if v.hook != nil {
			v.hook.run(&o)
		}
		if s.Sight == pipeline.Confirmed && s.Finding.Class >= v.exit {
			met, v.met = true, s.Finding.Class.String()
		}
	}
	if err := v.clocks(l); err != nil {
		return err
	}
	if l.SetTo != 0 {
		v.printed = 0
		v.say("the clock of the packets was set back from %s to %s: judged anew from there", clockOf(l.Time), clockOf(l.SetTo))
	}
	if v.screen {
		columns, rows := terminal(v.out)
		if err := v.draw(l, &w, max(columns, leastColumns), rows); err != nil {
			return err
		}
	}
	if met {
		return errExitOn
	}
	return nil
}

// trap keeps the packets around findings.
type trap struct {
	class         storm.Class
	before, after int64
	recent        *capture.Recent
	w             *capture.Ring
	say           func(string, ...any)
	on            bool
	comment       string
	until         int64 // 0 = the finding goes on
	written       int64
	err           error
}

// newTrap holds packets back as far as a finding may reach: a slow storm is
// confirmed long after its onset, at most a horizon.
func newTrap(class storm.Class, before, after, horizon time.Duration, bytes int, w *capture.Ring, say func(string, ...any)) *trap {
	return &trap{class: class, before: int64(before), after: int64(after), w: w, say: say, recent: capture.NewRecent(int64(before+horizon), bytes)}
}

func (t *trap) packet(p *capture.Packet) {
	if !t.on {
		t.recent.Add(p)
		return
	}
	if t.until != 0 && p.Time >= t.until {
		t.on = false
		t.say("--trigger: %d packets kept so far", t.written)
		t.recent.Add(p)
		return
	}
	t.write(p)
}

func (t *trap) write(p *capture.Packet) error {
	if t.err == nil {
		t.err = t.w.WritePacket(p, t.comment)
		t.comment = ""
		t.written++
	}
	return t.err
}

func (t *trap) look(l *pipeline.Look) error {
	going, end := false, int64(0)
	for i := range l.Findings {
		s := &l.Findings[i]
		if s.Finding.Class < t.class || s.Sight == pipeline.Withdrawn {
			continue
		}
		if s.Sight == pipeline.Ended {
			end = max(end, s.Finding.End)
			continue
		}
		if s.Sight != pipeline.Confirmed {
			continue
		}
		going = true
		if t.on {
			continue
		}
		from := s.Finding.Onset - t.before
		if begin := t.recent.Begin(); begin > from && t.recent.Lost > 0 {
			t.say("--trigger: the buffer reaches back to %s only; --trigger-buffer makes it larger", clockOf(begin))
		}
		t.on, t.comment = true, fmt.Sprintf("squall: %s of %s, onset %s", s.Finding.Class, s.Finding.Service, utc(s.Finding.Onset))
		if err := t.recent.Take(from, t.write); err != nil {
			return err
		}
	}
	switch {
	case t.on && l.SetTo != 0:
		t.until = l.SetTo + t.after
	case going:
		t.until = 0
	case t.on && end > 0:
		t.until = end + t.after
	case t.on && t.until == 0: // it became something lesser
		t.until = l.Time + t.after
	}
	if t.err == nil {
		t.err = t.w.Flush()
	}
	return t.err
}
