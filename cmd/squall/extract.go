package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/reports"
)

func extractCommand() *cobra.Command {
	var in source
	var sel selection
	var out, keyFile string
	cmd := &cobra.Command{
		Use:   "extract SOURCE... -w FILE",
		Short: "the packets behind a number, as a capture with comments",
		Long: `extract writes the packets of the attempts that are asked for: their requests and
answers, the session that followed, and ICMP errors that quote them. SOURCE is
captures, or a directory that analyze -o kept, whose captures are then read
again from where they lay. Selections add up: what is given must all hold.

In pcapng the first packet of each attempt carries a comment with its id,
outcome and relation (in Wireshark: frame.comment contains "squall attempt"). Every
packet names its parent, as the number of a capture and of the frame in it; the
comment of the file has the names and SHA-256 of these captures, and squall verify
compares packet by packet. The file says until when
was listened, so that squall analyze finds the same outcomes in it.

--from and --to take RFC 3339, seconds of the epoch, or, with --finding, a time
from its edges: onset-60s, onset, end, end+60s. Without any other selection they
cut all packets of that time out. --clients 10% takes whole clients, the same
ones in every capture.

--anonymize KEYFILE maps every address, in all headers, in what ICMP errors quote
and in the payloads of known protocols, keeping common prefixes; overwrites names
and hardware addresses; blanks credentials, the payload of unknown protocols, later
fragments, and all of a TCP stream behind a hole or its first 4096 bytes (1 MiB where
several requests follow one another in it). A name goes wherever segments part it. The
same key gives the same names, so keep it or throw it away. Packets that cannot be followed to their end
are left out and counted. At the end the original addresses and names that can still
be read are counted; if there is one, the file is removed. What a
protocol encrypts stays as it is, and so does the timing. Protocols of --hints keep
their payload, without what their clients call themselves.

Of several taps (NAME=FILE) each gets a file of its own, OUT-NAME.pcapng, with the
clocks set right; with --anonymize they are called tap1, tap2 and so on.`,
		Example: `  squall extract outage.pcapng.gz --finding 1 --from onset-60s --to onset+60s -w onset.pcapng
  squall extract outage.pcap --where 'attempt_outcome == "refused"' -w refused.pcapng
  squall extract outage.pcap --node 198.51.100.2:5060 --clients 10% -w sample.pcapng.zst
  head -c 32 /dev/urandom > key; squall extract outage.pcap --where true --anonymize key -w share.pcapng.zst
  squall extract kept --attempt 1f9cc6c4a4414d06 -w - | tshark -r -`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return exitError{exitUsage, errors.New("extract writes a capture: -w FILE, - for standard output")}
			}
			if out == "-" && isTerminal(cmd.OutOrStdout()) {
				return exitError{exitUsage, errors.New("a capture is not for a terminal: -w FILE, or send it to a program")}
			}
			if sel.empty() {
				return exitError{exitUsage, errors.New("nothing is asked for: --finding, --attempt, --intent, --client, --clients, --node, --where, --from or --to")}
			}
			var anon *pipeline.Anonymizer
			if keyFile != "" {
				if !sel.rows() {
					return exitError{exitUsage, errors.New("--anonymize keeps only packets of attempts: say which; --where true takes all")}
				}
				if out == "-" {
					return exitError{exitUsage, errors.New("--anonymize wants -w FILE: what went to standard output could not be taken back if an address were left")}
				}
				var err error
				if anon, err = anonymizer(keyFile); err != nil {
					return err
				}
			}
			_, err := extract(cmd, &in, args, &sel, out, anon)
			return err
		},
	}
	in.flags(cmd)
	in.zoneFlag(cmd)
	f := cmd.Flags()
	f.StringVarP(&out, "write", "w", "", "capture to write; the name's ending chooses pcap or pcapng, and .gz, .zst, .lz4")
	f.StringVar(&keyFile, "anonymize", "", "file with a secret key: addresses, names and credentials are replaced")
	f.IntVar(&sel.finding, "finding", 0, "attempts on its service and nodes while it lasted; findings count from 1 as squall report findings lists them")
	f.StringArrayVar(&sel.attempts, "attempt", nil, "attempt_id")
	f.StringArrayVar(&sel.intent, "intent", nil, "intent_id")
	f.StringArrayVar(&sel.clients, "client", nil, "client_id, or source address")
	f.StringArrayVar(&sel.nodes, "node", nil, "ADDRESS or ADDRESS:PORT of a node")
	f.StringVar(&sel.where, "where", "", "expression over the columns of the attempts table")
	f.StringVar(&sel.share, "clients", "", "share of the clients, such as 10%, chosen by a hash of their client_id")
	f.StringVar(&sel.from, "from", "", "attempts that began at this time or later")
	f.StringVar(&sel.to, "to", "", "attempts that began before this time")
	return cmd
}

// anonymizer reads the key of --anonymize.
func anonymizer(keyFile string) (*pipeline.Anonymizer, error) {
	secret, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("--anonymize: %w", err)}
	}
	if len(secret) < 16 {
		return nil, exitError{exitUsage, fmt.Errorf("--anonymize: %s holds %d bytes, and a key has 16 or more: head -c 32 /dev/urandom > %s", keyFile, len(secret), keyFile)}
	}
	anon := pipeline.NewAnonymizer(secret)
	scrub := overlay.Scrubber{Addr: anon.Addr, Name: anon.Name, Known: anon.Known, Secret: anon.Secret}
	anon.Scrub, anon.Names = scrub.Scrub, overlay.NewNamesIn()
	return anon, nil
}

// picking says whether a packet of a file is wanted, and what its comment says.
type picking func(p *capture.Packet, file string) (comment string, ok bool)

// extract finds the attempts, then reads the captures again for their packets. Of
// several taps it writes a file each.
func extract(cmd *cobra.Command, in *source, args []string, sel *selection, out string, anon *pipeline.Anonymizer) (made []tapFile, err error) {
	cfg, err := in.config()
	if err != nil {
		return nil, err
	}
	if _, _, err := (reports.Query{Where: sel.where}).Apply(schema("attempts"), nil); err != nil {
		return nil, exitError{exitUsage, err}
	}
	open, inputs, last, done, err := in.tables(cmd, args)
	if err != nil {
		return nil, err
	}
	defer done()
	sel.in = in
	if anon != nil {
		if err := learn(open, anon); err != nil {
			return nil, exitError{exitFailed, err}
		}
	}
	picker, n, begin, end, err := sel.pick(open)
	if err != nil {
		return nil, err
	}
	if sel.rows() && n == 0 {
		return nil, exitError{exitFailed, errors.New("no attempt fits; squall report attempts SOURCE shows what there is")}
	}
	pick, overlaps := picking(picker.Want), picker.Overlaps
	if !sel.rows() { // a cut of time alone
		pick = func(p *capture.Packet, _ string) (string, bool) { return "", p.Time >= begin && p.Time < end }
		overlaps = func(first, last int64) bool { return first < end && last >= begin }
		last = min(last, end)
	}
	var opt capture.Options
	if opt.Parts, err = parts(args, overlaps); err != nil && !in.quiet {
		fmt.Fprintln(cmd.ErrOrStderr(), "squall:", err)
	}
	src, err := in.open(cmd, inputs, opt)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	made, of := byTap(src.Files(), out, anon != nil)
	for _, f := range made {
		if err := notRead(src, f.path); err != nil {
			return nil, err
		}
	}
	form := capture.WriterOptionsFor(out)
	form.Comment = fmt.Sprintf("squall extract: packets of %d attempts", n)
	keep := picking(func(p *capture.Packet, file string) (string, bool) {
		if cfg.Filter != nil {
			var d dissect.Datagram
			if !cfg.Filter(&d, p) {
				return "", false
			}
		}
		return pick(p, file)
	})
	omitted := 0
	switch {
	case anon != nil:
		if omitted, err = lookFirst(cmd, in, inputs, opt, anon, picker, keep); err != nil {
			return nil, exitError{exitFailed, err}
		}
		keep = renamed(keep, anon, picker)
	case form.Format != "pcap":
		lines, err := parents(src.Files(), args)
		if err != nil {
			return nil, exitError{exitFailed, err}
		}
		form.Comment += lines
		keep = pointing(keep)
	}
	var packets int64
	if err := emitAll(cmd, made, form, last, nil, func(to []*capture.Writer) (failed error) {
		packets, failed = copyPackets(cmd, src, func(p *capture.Packet) *capture.Writer { return to[of[p.File]] }, keep)
		return failed
	}); err != nil {
		return nil, err
	}
	if anon != nil && anon.Residual > 0 {
		for _, f := range made {
			os.Remove(f.path)
		}
		return nil, exitError{exitFailed, fmt.Errorf("%d original addresses and names are left in payloads: %s is not written", anon.Residual, out)}
	}
	if !in.quiet {
		w := cmd.ErrOrStderr()
		fmt.Fprintf(w, "squall: %d packets of %d attempts%s\n", packets, n, seeked(src.Files()))
		if anon != nil {
			fmt.Fprintf(w, "squall: 0 original addresses left, and no name of a server or client; %d packets that cannot be followed to their end were left out\n", omitted)
		}
		if anon != nil && anon.Cut > 0 {
			fmt.Fprintf(w, "squall: %d segments and what follows them were zeroed: more of one stream than can be held; extract parts with --from and --to\n", anon.Cut)
		}
		if len(made) > 1 {
			fmt.Fprintf(w, "squall: a file for each tap, clocks set right: squall analyze %s\n", strings.Join(inputsOf(made), " "))
		}
	}
	if err := interrupted(cmd); err != nil {
		return nil, err
	}
	return made, brokenOff(src.Files(), "what came before is in "+out)
}

// renamed rewrites what is picked under the key of anon.
func renamed(pick picking, anon *pipeline.Anonymizer, picker *pipeline.Picker) picking {
	return func(p *capture.Packet, file string) (string, bool) {
		comment, ok := pick(p, file)
		if !ok || !anon.Rewrite(p, picker.Protocol()) {
			return "", false
		}
		// Ids are hashes of addresses and could be guessed from them.
		words, _, _ := strings.Cut(comment, " (")
		if _, rest, ok := strings.Cut(words, ": "); ok {
			words = "squall attempt: " + rest
		}
		return words, true
	}
}

// pointing adds to each comment where the packet was.
func pointing(pick picking) picking {
	return func(p *capture.Packet, file string) (string, bool) {
		comment, ok := pick(p, file)
		if !ok {
			return "", false
		}
		if comment != "" {
			comment += "\n"
		}
		return comment + parentOf(p), true
	}
}

// seeked says how little was read, where an index said what to read.
func seeked(files []capture.FileStats) string {
	var read, size int64
	for _, f := range files {
		read, size = read+f.ReadOnDisk, size+f.SizeOnDisk
	}
	if read >= size {
		return ""
	}
	return fmt.Sprintf("; %d of %d bytes were read", read, size)
}

// learn tells the anonymizer what clients call themselves. Those of discv4 are keys, and
// what they sign is signed anew.
func learn(open tables, anon *pipeline.Anonymizer) error {
	table, rows, err := open("attempts")
	if err != nil {
		return err
	}
	if _, rows, err = (reports.Query{Where: `client_id_level == "protocol" && network_protocol != "discv4"`, Columns: []string{"network_protocol", "client_id"}}).Apply(table, rows); err != nil {
		return err
	}
	for row, err := range rows {
		if err != nil {
			return err
		}
		anon.Learn(row[0].Str, row[1].Str)
	}
	return nil
}

// tapFile is where the packets of a tap are written.
type tapFile struct {
	tap        string // that they are from
	name, path string // how the file is named as an input
}

// inputsOf are the files as arguments.
func inputsOf(made []tapFile) (out []string) {
	for _, f := range made {
		if f.name != "" {
			f.path = f.name + "=" + f.path
		}
		out = append(out, f.path)
	}
	return out
}

// byTap gives the files to write and which of them each input goes to: one for each
// tap, for packets that several saw are told by it; one for all on standard output.
// Names of taps may say where they stand: hide numbers them.
func byTap(files []capture.FileStats, out string, hide bool) (list []tapFile, of []int) {
	for _, f := range files {
		n := slices.IndexFunc(list, func(t tapFile) bool { return t.tap == f.Observer })
		if n < 0 {
			n = len(list)
			list = append(list, tapFile{tap: f.Observer, path: out})
		}
		of = append(of, n)
	}
	if len(list) < 2 || out == "-" {
		return list[:1], make([]int, len(of))
	}
	stem, ending := filepath.Base(out), ""
	if i := strings.IndexByte(stem, '.'); i > 0 {
		stem, ending = stem[:i], stem[i:]
	}
	for i := range list {
		f := &list[i]
		if f.name = f.tap; hide {
			f.name = fmt.Sprintf("tap%d", i+1)
		}
		if f.name != "" {
			f.path = filepath.Join(filepath.Dir(out), stem+"-"+strings.ReplaceAll(f.name, "/", "_")+ending)
		}
	}
	return list, of
}

// emitAll writes several captures at a time.
func emitAll(cmd *cobra.Command, outs []tapFile, form capture.WriterOptions, last int64, open []*capture.Writer, write func([]*capture.Writer) error) error {
	if len(open) == len(outs) {
		return write(open)
	}
	return emit(cmd, outs[len(open)].path, func(to io.Writer) error {
		w, err := capture.NewWriter(to, form)
		if err != nil {
			return err
		}
		err = emitAll(cmd, outs, form, last, append(open, w), write)
		w.Ended(last)
		if e := w.Close(); err == nil {
			err = e
		}
		return err
	})
}

// indexName is the file of a kept directory that says where packets lie.
const indexName = "index.squall"

// lookFirst shows the anonymizer all packets; omitted are those it cannot follow.
func lookFirst(cmd *cobra.Command, in *source, inputs []string, opt capture.Options, anon *pipeline.Anonymizer, picker *pipeline.Picker, keep picking) (omitted int, err error) {
	src, err := in.open(cmd, inputs, opt)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	w, err := capture.NewWriter(io.Discard, capture.WriterOptions{})
	if err != nil {
		return 0, err
	}
	_, err = copyPackets(cmd, src, func(*capture.Packet) *capture.Writer { return w }, func(p *capture.Packet, file string) (string, bool) {
		if _, ok := keep(p, file); ok && !anon.Look(p, picker.Protocol(), picker.Attempts()) {
			omitted++
		}
		return "", false
	})
	return omitted, err
}

func copyPackets(cmd *cobra.Command, src capture.Source, to func(*capture.Packet) *capture.Writer, keep picking) (n int64, err error) {
	var names []string
	for _, f := range src.Files() {
		names = append(names, f.Path)
	}
	err = capture.Each(cmd.Context(), src, func(b *capture.Batch) error {
		for i := range b.Packets {
			p := &b.Packets[i]
			if comment, ok := keep(p, names[p.File]); ok {
				n++
				if err := to(p).WritePacket(p, comment); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if errors.Is(err, context.Canceled) {
		err = nil // what came before is kept; interrupted says so
	}
	return n, err
}

// shareSeed keeps this choice apart from other uses of the hash.
const shareSeed = 0x636c69656e7473
