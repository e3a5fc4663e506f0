package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"squall/dissect"
	"squall/reports"
)

func eventsCommand() *cobra.Command {
	var in source
	var out output
	cmd := &cobra.Command{
		Use:   "events CASE",
		Short: "a time line to paste: what happened when, how sure, and the frame that shows it",
		Long: `events takes captures, or a directory that analyze -o kept, and lists what
happened in order: findings and nodes that began and ended, clients that moved and
overloaded the next node, captures that began and ended. Each line has the frame that
shows it, and a display filter: the frames that it leaves of that capture in
Wireshark or tshark are the number of the line. Where attempts are counted (in the
first ten seconds of a finding, until it or a node is well again, after one at another
node) the number is that of their part in that capture, and the filter knows them by
their SYNs that are no repeats, or names the first frame of each. Text and Markdown
shorten filters that name many frames; -T csv and -T json have all. A filter names
4096 frames at most: of more attempts than these it has the first, the number is theirs,
and all of them are in the words.`,
		Example: `  squall events outage.pcap
  squall events outage --events deploys.csv
  squall events outage -T markdown --where 'number > 0'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := out.check(schema("events"))
			if err != nil {
				return err
			}
			results, err := in.demand(cmd, args)
			if err != nil {
				return err
			}
			defer results.Analysis.Close()
			results = out.reading(&in, f, results)
			t, rows, err := results.Table("events")
			if err != nil {
				return exitError{exitFailed, err}
			}
			if err := out.write(cmd, f, t, rows); err != nil {
				return err
			}
			return in.damaged(results)
		},
	}
	in.flags(cmd)
	in.zoneFlag(cmd)
	in.judgingFlags(cmd)
	out.flags(cmd)
	return cmd
}

func sourcesCommand() *cobra.Command {
	var in source
	var out output
	var limit int64
	cmd := &cobra.Command{
		Use:   "sources CASE",
		Short: "who sent what, by role: attacker, scanner, victim that retries, NAT of many",
		Long: `sources takes captures, or a directory that analyze -o kept, and says of each
address what it is. A victim is never called an attacker: that takes a finding of
sources without a real stack, and an address of which all that is known is one SYN,
whose repeat would have been seen. Nor a scanner: that takes twenty new nodes within
ten seconds, no service at any of them, and that few do so, since clients whose nodes
are gone ask all peers that they knew.

-T nft writes a set for nftables, -T stix a bundle of STIX 2.1: of attackers and
scanners alone. The addresses of a SYN flood may be forged. --limit-each N says what a
limit of N attempts in ten seconds for each source would do: how much of the storm it
removes, how many well-behaved sources it hurts; refreshes and the twins of dials
count, as they would at the node.`,
		Example: `  squall sources outage.pcap --limit 20
  squall sources outage.pcap --limit-each 10 --where 'role == "nat"'
  squall sources flood.pcap -T nft -w flood.nft`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			export := map[string]func(io.Writer, []reports.Source) error{"nft": writeNFT, "stix": writeSTIX}[out.format]
			var f reports.Format
			var err error
			if export == nil {
				if f, err = out.check(schema("sources")); err != nil {
					return err
				}
			}
			if limit < 0 {
				return exitError{exitUsage, errors.New("--limit-each: want a positive number")}
			}
			results, err := in.demand(cmd, args)
			if err != nil {
				return err
			}
			defer results.Analysis.Close()
			results = out.reading(&in, f, results)
			list, tried, err := reports.SourcesOf(results, limit)
			if err != nil {
				return exitError{exitFailed, err}
			}
			if export != nil {
				return emit(cmd, out.file, func(w io.Writer) error { return export(w, list) })
			}
			t := reports.Sources()
			if err := out.write(cmd, f, &t.Table, t.ListIn(results.Env(), list)); err != nil {
				return err
			}
			if limit > 0 && !in.quiet {
				fmt.Fprintf(cmd.ErrOrStderr(), "squall: %d attempts in 10 s for each source: removes %.1f %% of the attempts inside findings, hurts %.1f %% of the sources that never failed\n",
					limit, 100*tried.Removed, 100*tried.Hurt)
			}
			return in.damaged(results)
		},
	}
	in.flags(cmd)
	in.zoneFlag(cmd)
	out.flags(cmd)
	cmd.Flags().Int64Var(&limit, "limit-each", 0, "try a limit of so many attempts in 10 s for each source")
	return cmd
}

// hostile are the sources that may be acted against.
func hostile(list []reports.Source) (out []reports.Source) {
	for _, s := range list {
		if (s.Role == "attacker" || s.Role == "scanner") && s.Addr != (dissect.Addr{}) {
			out = append(out, s)
		}
	}
	return out
}

// writeNFT writes sets for nft -f.
func writeNFT(w io.Writer, list []reports.Source) error {
	b := bufio.NewWriter(w)
	b.WriteString("# attackers and scanners only; victims that retry are not in it; addresses of a SYN flood may be forged\ntable inet squall {\n")
	for _, family := range []struct {
		name, kind string
		is4        bool
	}{{"hostile4", "ipv4_addr", true}, {"hostile6", "ipv6_addr", false}} {
		fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", family.name, family.kind)
		sep := "\t\telements = { "
		for _, s := range hostile(list) {
			if s.Addr.Is4() == family.is4 {
				fmt.Fprintf(b, "%s%v", sep, s.Addr)
				sep = ", "
			}
		}
		if sep == ", " {
			b.WriteString(" }\n")
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.Flush()
}

// writeSTIX writes a bundle of indicators: OASIS STIX 2.1 sections 4.7 and 8.
// Ids are hashes of the address and times, so that the bytes are always the same;
// their form is that of version 4, the one that section 2.9 asks for. A list must
// not be empty.
func writeSTIX(w io.Writer, list []reports.Source) error {
	type indicator struct {
		Type           string   `json:"type"`
		SpecVersion    string   `json:"spec_version"`
		ID             string   `json:"id"`
		Created        string   `json:"created"`
		Modified       string   `json:"modified"`
		Name           string   `json:"name"`
		IndicatorTypes []string `json:"indicator_types"`
		Pattern        string   `json:"pattern"`
		PatternType    string   `json:"pattern_type"`
		ValidFrom      string   `json:"valid_from"`
	}
	uuid := func(kind, text string) string {
		h := sha256.Sum256([]byte("squall " + kind + " " + text))
		h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80 // RFC 9562 section 5.4
		return fmt.Sprintf("%s--%x-%x-%x-%x-%x", kind, h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
	}
	var objects []indicator
	all := ""
	for _, s := range hostile(list) {
		kind := "ipv6-addr"
		if netip.Addr(s.Addr.IP()).Is4() {
			kind = "ipv4-addr"
		}
		last := time.Unix(0, s.Last).UTC().Format("2006-01-02T15:04:05.000Z")
		text := s.Addr.String() + last
		all += text
		objects = append(objects, indicator{"indicator", "2.1", uuid("indicator", text), last, last, s.Role + " " + s.Addr.String(), []string{"malicious-activity"},
			fmt.Sprintf("[%s:value = '%v']", kind, s.Addr), "stix", time.Unix(0, s.First).UTC().Format("2006-01-02T15:04:05.000Z")})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(struct {
		Type    string      `json:"type"`
		ID      string      `json:"id"`
		Objects []indicator `json:"objects,omitempty"`
	}{"bundle", uuid("bundle", all), objects})
}
