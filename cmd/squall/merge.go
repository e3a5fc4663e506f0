package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/reports"
)

func mergeCommand() *cobra.Command {
	var cfg pipeline.Config
	var dir, format, colour, hints string
	var maxTemp int64
	var thresholds []string
	cmd := &cobra.Command{
		Use:   "merge DIR... -o DIR",
		Short: "analyses of pieces into one",
		Long: `merge joins what analyze -o kept of pieces: the shards of one analysis that was
spread over several machines, captures of different times, or of different taps.
The order in which they are named does not matter. Intents, sessions and client
identities are found anew over all of them, and judged once; what several of them
saw, at different taps or in packets and in a log, counts once. Clocks of taps, and
addresses at both sides of NAT, are compared within one analysis or its shards only.

Shards (analyze --shard 0/8 … 7/8) give byte for byte what one run would have
given. For captures of different times that were analysed apart, an attempt that
was still open at the end of its capture stays unknown; reading all of them in one
analyze, or in shards, decides it.`,
		Example: `  squall analyze /captures --shard 0/2 -o piece-0
  squall analyze /captures --shard 1/2 -o piece-1
  squall merge piece-0 piece-1 -o whole`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				return exitError{exitUsage, errors.New("where to? -o DIR")}
			}
			page := reports.HTMLOptions{Version: cmd.Root().Version}
			write, err := view(cmd, format, colour, page)
			if err != nil {
				return err
			}
			if cfg.Hints, _, err = readHints(hints); err != nil {
				return err
			}
			var pieces []io.Reader
			from := custody{Command: "merge", Arguments: slices.Clone(args)}
			if hints != "" {
				from.Arguments = append([]string{"--hints=" + hints}, from.Arguments...)
			}
			under := map[string]bool{}
			for _, arg := range args {
				h, err := os.Open(filepath.Join(arg, pipeline.SaveName))
				if err != nil {
					return exitError{exitUsage, fmt.Errorf("%w: not a directory that analyze -o made", err)}
				}
				defer h.Close()
				pieces = append(pieces, h)
				of, err := from.join(arg)
				if err != nil {
					return exitError{exitFailed, err}
				}
				under[strings.Join(of.overridden(), " ")] = true
				thresholds = of.overridden()
			}
			if len(under) > 1 {
				return exitError{exitUsage, errors.New("these were made under different thresholds (arguments in their manifest.json): make them again under the same ones")}
			}
			judging, err := thresholdsOf(thresholds)
			if err != nil {
				return err
			}
			for _, t := range thresholds {
				from.Arguments = append([]string{"--threshold=" + t}, from.Arguments...)
			}
			cfg.RecordTemp = maxTemp << 20
			a, err := pipeline.Join(cfg, pieces)
			if err != nil {
				return exitError{exitUsage, err}
			}
			defer a.Close()
			indices := map[string]*capture.Index{}
			for _, arg := range args {
				of, err := readIndex(arg)
				if err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), "squall:", err)
				}
				maps.Copy(indices, of)
			}
			for i, c := range a.Captures() {
				a.Captures()[i].Index = indices[c.Path]
			}
			results := reports.NewResults(a, storm.Config{Thresholds: judging})
			if err := keep(results, dir, reports.Options{}, page, from); err != nil {
				return exitError{exitFailed, err}
			}
			if err := emit(cmd, "-", func(w io.Writer) error { return write(w, results) }); err != nil {
				return err
			}
			return damaged(a.Captures())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&dir, "output", "o", "", "directory to write")
	f.StringVarP(&format, "format", "T", "text", "text, markdown, html or json")
	f.StringVar(&colour, "color", "auto", "auto, always or never")
	f.StringVar(&hints, "hints", "", "YAML file that names nodes, fixes roles, groups services")
	ceilingFlags(f, &cfg.MaxNodes, &cfg.MaxNames)
	f.Int64Var(&maxTemp, "max-temp", defaultTemp, "MB on disk for attempts that are too many for memory, in TMPDIR; 0 = no ceiling")
	f.IntVarP(&cfg.Workers, "jobs", "j", 0, "workers; the results are the same for any number")
	return cmd
}

// join takes up a piece into the custody of what is made of it: its attempts, the
// arguments that it was made with, and what it knew of captures that may not lie
// where they lay.
func (c *custody) join(dir string) (of custody, err error) {
	if of, err = readCustody(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return of, err
	}
	path := filepath.Join(dir, pipeline.SaveName)
	s, err := seal(path, path)
	c.Pieces = append(c.Pieces, sealedPiece{s, of.Arguments})
	c.Inputs = append(c.Inputs, of.Inputs...)
	return of, err
}
