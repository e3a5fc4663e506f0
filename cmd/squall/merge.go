package main

import (
	"cmp"
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
)

func mergeCommand() *cobra.Command {
	var x analysis
	var partial bool
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
given, but for manifest.json, which says how it was made. For captures of different
times that were analysed apart, an attempt that was still open at the end of its
capture stays unknown; reading all of them in one analyze, or in shards, decides it.

--partial keeps no results but another piece, for a further merge: of shards that are
not all there yet, or to join many pieces by groups, on several machines. The groups,
and their order, change no byte of what comes out in the end.

Judged is as the pieces were made: under their --threshold, --hints, --groups,
--events, --baseline, --tz, --max-nodes and --max-names, unless something else is
given here; where pieces differ in one of these, it has to be given.`,
		Example: `  squall analyze /captures --shard 0/2 -o piece-0
  squall analyze /captures --shard 1/2 -o piece-1
  squall merge piece-0 piece-1 -o whole
  squall merge piece-1 --partial -o so-far
  squall merge so-far piece-0 -o whole`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if x.dir == "" {
				return exitError{exitUsage, errors.New("where to? -o DIR")}
			}
			if err := x.parseLimit(); err != nil {
				return err
			}
			if partial && x.failOn != "" {
				return exitError{exitUsage, errors.New("--partial judges nothing that --fail-on could look at")}
			}
			pieces, done, err := openPieces(args)
			if err == nil {
				defer done()
				err = apartFrom(x.dir, args)
			}
			if err != nil {
				return exitError{exitUsage, err}
			}
			from := custody{Command: "merge"}
			var parts []custody
			for _, arg := range args {
				of, err := from.join(arg)
				if err != nil {
					return exitError{exitFailed, err}
				}
				parts = append(parts, of)
			}
			if x.page.Source, err = x.in.inherit(cmd, pieces.Made(), parts); err != nil {
				return exitError{exitUsage, err}
			}
			if pieces.Config, err = x.in.config(); err != nil {
				return err
			}
			from.Arguments = x.in.words(cmd, args)
			x.page.Version, x.page.Zone = cmd.Root().Version, x.in.zone
			if err := x.prepareViews(cmd); err != nil {
				return err
			}
			indices := x.indices(cmd, args)
			if partial {
				captures := pieces.Captures()
				index(captures, indices)
				if err := keepPiece(x.dir, captures, pieces.Save, x.in.judging, from); err != nil {
					return exitError{exitFailed, err}
				}
				return nil
			}
			a, err := pieces.Join()
			if errors.Is(err, pipeline.ErrMissing) {
				err = fmt.Errorf("%w; --partial joins those that are there", err)
			}
			if err != nil {
				return exitError{exitUsage, err}
			}
			defer a.Close()
			index(a.Captures(), indices)
			results, err := x.in.told(cmd, a)
			if err != nil {
				return err
			}
			if err := keep(results, x.dir, x.out.options, x.page, from); err != nil {
				return exitError{exitFailed, err}
			}
			return x.say(cmd, results)
		},
	}
	x.flags(cmd)
	x.in.besideFlags(cmd)
	x.in.zoneFlag(cmd)
	x.in.judgingFlags(cmd)
	cmd.Flags().BoolVar(&partial, "partial", false, "keep a piece for a further merge, and no results")
	return cmd
}

var errNoPiece = errors.New("not a directory that analyze -o made")

// openPieces opens what analyze -o or merge kept in directories.
func openPieces(dirs []string) (p *pipeline.Pieces, done func(), err error) {
	var open []*os.File
	done = func() {
		for _, h := range open {
			h.Close()
		}
	}
	var files []io.ReaderAt
	var names []string
	for _, dir := range dirs {
		h, err := os.Open(filepath.Join(dir, pipeline.SaveName))
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("%w: %w", err, errNoPiece)
		}
		open, files, names = append(open, h), append(files, h), append(names, h.Name())
	}
	if p, err = pipeline.ReadPieces(files, names); err != nil {
		done()
	}
	return p, done, err
}

// apartFrom refuses to write where a piece lies: it is read until the end.
func apartFrom(out string, pieces []string) error {
	there, err := os.Stat(out)
	if err != nil {
		return nil
	}
	for _, dir := range pieces {
		if in, err := os.Stat(dir); err == nil && os.SameFile(in, there) {
			return fmt.Errorf("%s is one of the pieces: another directory after -o", out)
		}
	}
	return nil
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

// indices are those of the captures of pieces, as far as they were kept.
func (x *analysis) indices(cmd *cobra.Command, dirs []string) map[string]*capture.Index {
	all := map[string]*capture.Index{}
	for _, dir := range dirs {
		of, err := readIndex(dir)
		if err != nil && !x.in.quiet {
			fmt.Fprintln(cmd.ErrOrStderr(), "squall:", err)
		}
		maps.Copy(all, of)
	}
	return all
}

func index(captures []pipeline.Capture, indices map[string]*capture.Index) {
	for i := range captures {
		captures[i].Index = indices[captures[i].Path]
	}
}

// inherit takes up, where nothing else is given, what pieces were made under and are
// to be judged by. It returns the words that would analyse all of their captures at
// once. parts are what the pieces' directories know of the files beside.
func (s *source) inherit(cmd *cobra.Command, made [][]string, parts []custody) (words []string, err error) {
	flag := func(words []string, name string) (list []string) {
		for _, w := range words {
			if v, ok := strings.CutPrefix(w, "--"+name+"="); ok {
				list = append(list, v)
			}
		}
		return list
	}
	for _, name := range wordFlags {
		list := flag(made[0], name)
		same := !slices.ContainsFunc(made, func(words []string) bool { return !slices.Equal(flag(words, name), list) })
		f := cmd.Flags().Lookup(name)
		switch {
		case f == nil: // of how packets were read
			if same {
				for _, v := range list {
					words = append(words, "--"+name+"="+v)
				}
			}
			continue
		case f.Changed && name == "threshold" && same: // those that are given change some of them
			s.thresholds = append(list, s.thresholds...)
			list = nil
		case f.Changed:
			list = nil
		case !same:
			return nil, fmt.Errorf("these were made under different --%s: name one here, or make them again under the same", name)
		}
		for _, v := range list {
			if err := besideIs(name, v, parts); err != nil {
				return nil, err
			}
			if err := cmd.Flags().Set(name, v); err != nil {
				return nil, fmt.Errorf("--%s %q of a piece: %w", name, v, err)
			}
		}
		for _, v := range given(cmd, name) {
			words = append(words, "--"+name+"="+v)
		}
	}
	for _, m := range made {
		for _, w := range m {
			if !strings.HasPrefix(w, "--") && !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
	}
	return words, nil
}

// besideIs looks whether a file beside the captures is what it was when the pieces
// were made.
func besideIs(flag, path string, parts []custody) error {
	for i := range parts {
		for _, b := range parts[i].beside() {
			if b.what != flag || b.Name != path {
				continue
			}
			now, err := seal(path, path)
			if err == nil && now == b.sealed {
				continue
			}
			return fmt.Errorf("--%s %s is not what the pieces were made with: %w; name one here", flag, path, cmp.Or(err, errors.New("its content is another")))
		}
	}
	return nil
}
