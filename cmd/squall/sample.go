package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/samples"
)

func sampleCommand() *cobra.Command {
	var out, truth, format string
	var seed uint64
	cmd := &cobra.Command{
		Use:   "sample [NAME]",
		Short: "simulated outages as captures, with their ground truth",
		Long: `sample without a name lists the simulated outages and healthy hours that squall
carries. With a name it writes one as a capture: real TCP, UDP and ICMP packets
of clients and nodes, from a seed, the same bytes each time. --truth keeps what
every client really did.`,
		Example: `  squall sample
  squall sample outage -w outage.pcapng.gz --truth truth.json
  squall sample s2 --seed 7 -w - | tcpdump -nr -`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, s := range samples.List() {
					fmt.Fprintf(cmd.OutOrStdout(), "%-11s %s\n", s.Name, s.About)
				}
				return nil
			}
			if out == "" {
				return exitError{exitUsage, fmt.Errorf("sample %s: where to? -w FILE, or -w - for standard output", args[0])}
			}
			if !slices.ContainsFunc(samples.List(), func(s samples.Sample) bool { return s.Name == args[0] }) {
				return exitError{exitUsage, fmt.Errorf("sample %q is not known; `squall sample` lists them", args[0])}
			}
			w, done, err := create(cmd, out)
			if err != nil {
				return err
			}
			opt := capture.WriterOptionsFor(out)
			if format != "" {
				opt.Format = format
			}
			facts, err := samples.Write(w, args[0], seed, opt)
			if cerr := done(); err == nil {
				err = cerr
			}
			if err != nil {
				return exitError{exitFailed, err}
			}
			if truth == "" {
				return nil
			}
			if facts == nil {
				return exitError{exitUsage, fmt.Errorf("sample %s is for measuring and has no truth to write", args[0])}
			}
			w, done, err = create(cmd, truth)
			if err != nil {
				return err
			}
			enc := json.NewEncoder(w)
			enc.SetIndent("", " ")
			err = enc.Encode(facts)
			if cerr := done(); err == nil {
				err = cerr
			}
			if err != nil {
				return exitError{exitFailed, err}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "write", "w", "", "capture to write; its ending chooses format and compression")
	cmd.Flags().StringVar(&truth, "truth", "", "file for the ground truth, as JSON")
	cmd.Flags().StringVarP(&format, "format", "T", "", "pcapng or pcap, whatever the ending")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "another seed, another outage of the same kind")
	return cmd
}
