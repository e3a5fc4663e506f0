package main

import (
	"github.com/spf13/cobra"

	"squall/dissect/overlay"
	"squall/reports"
)

func protocolsCommand() *cobra.Command {
	var out output
	var hints string
	cmd := &cobra.Command{
		Use:   "protocols",
		Short: "the overlay protocols that are recognised: how, and how surely",
		Long: `protocols lists what squall recognises, in the order in which protocols are asked
about a new flow: by which content, how surely, what its nodes are, which answers it
tells apart, and what it knows clients and their versions by. With --hints the
protocols of your file come first; it is the check that the file was understood.

Confidence: certain is a mark of 8 bytes or more, or a hash that fits; strong is
several fields that fit at once; fair is a shape that others could have; guess is a
port and a shape that much else has. Text shows the first columns only, -e others.`,
		Example: `  squall protocols
  squall protocols -T markdown
  squall protocols --hints mine.yaml --where 'network_protocol == "mine"' -T json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, own, err := readHints(hints)
			if err != nil {
				return err
			}
			t, rows := reports.Protocols(append(own, overlay.All()...))
			f, err := out.check(t)
			if err != nil {
				return err
			}
			if f.Name == "text" && len(out.query.Columns) == 0 {
				out.query.Columns = []string{"network_protocol,network_transport,confidence,recognised"}
			}
			return out.write(cmd, f, t, rows)
		},
	}
	out.flags(cmd)
	cmd.Flags().StringVar(&hints, "hints", "", "YAML file that adds protocols")
	return cmd
}
