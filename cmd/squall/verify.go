package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

// custodyName is the file of a kept directory that says what everything was.
const custodyName = "manifest.json"

// custody is what an analysis was made of and what it made, so that a stranger
// can check that nothing was changed since.
type custody struct {
	Manifest   int               `json:"squall_manifest"` // version of this form
	Version    string            `json:"squall_version"`
	Command    string            `json:"command,omitempty"` // empty = analyze
	Arguments  []string          `json:"arguments"`
	Thresholds []storm.Threshold `json:"thresholds"`
	Inputs     []sealed          `json:"inputs"`
	Hints      *sealed           `json:"hints,omitempty"`
	Groups     []sealed          `json:"groups,omitempty"`
	Events     *sealed           `json:"events,omitempty"`
	Baseline   []sealed          `json:"baseline,omitempty"` // what the calm day was read from
	Pieces     []sealedPiece     `json:"pieces,omitempty"`   // what merge joined
	Outputs    []sealed          `json:"outputs"`
	calm       []string          // its files
	// Seal is the SHA-256 of all that stands above, as it is written with an empty seal.
	Seal string `json:"seal"`
}

// sealed is a file by name, size and SHA-256. Standard input is gone and has no
// hash.
type sealed struct {
	Name   string `json:"name"`
	Tap    string `json:"observer_name,omitempty"`
	Clock  string `json:"clock,omitempty"` // how far it was ahead, as --clock takes it
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
}

// sealedPiece is an analysis that was joined with others.
type sealedPiece struct {
	sealed             // its attempts
	Arguments []string `json:"arguments,omitempty"` // that it was made with
}

func seal(path, name string) (s sealed, err error) {
	h, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer h.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, h)
	return sealed{Name: name, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}

func (c *custody) seal() (string, error) {
	open := *c
	open.Seal = ""
	b, err := json.Marshal(&open)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// keepCustody writes the manifest of a kept directory, last of all: outputs are
// what lies there by then.
func keepCustody(dir string, captures []pipeline.Capture, under storm.Thresholds, c custody) error {
	c.Manifest, c.Version, c.Thresholds = 1, version(), under.All()
	known := c.Inputs // of pieces: what they were made of
	c.Inputs = nil
	for _, f := range captures {
		if f.Quoted {
			continue
		}
		s := sealed{Name: f.Path, Tap: f.Observer, Clock: clockWords(&f.Clock)}
		if n := slices.IndexFunc(known, func(k sealed) bool { return k.Name == s.Name && k.Tap == s.Tap && k.SHA256 != "" }); n >= 0 {
			s.Size, s.SHA256 = known[n].Size, known[n].SHA256
		} else if info, err := os.Stat(f.Path); f.Path != "-" && err == nil && info.Mode().IsRegular() {
			now, err := seal(f.Path, f.Path)
			if err != nil {
				return err
			}
			s.Size, s.SHA256 = now.Size, now.SHA256
		}
		c.Inputs = append(c.Inputs, s)
	}
	for _, a := range c.Arguments {
		flag, path, _ := strings.Cut(a, "=")
		if flag != "--hints" && flag != "--groups" && flag != "--events" {
			continue
		}
		s, err := seal(path, path)
		if err != nil {
			return err
		}
		switch flag {
		case "--hints":
			c.Hints = &s
		case "--groups":
			c.Groups = append(c.Groups, s)
		case "--events":
			c.Events = &s
		}
	}
	for _, path := range c.calm {
		s := sealed{Name: path}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			if s, err = seal(path, path); err != nil {
				return err
			}
		}
		c.Baseline = append(c.Baseline, s)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == custodyName || e.Name() == resumeName || !e.Type().IsRegular() {
			continue
		}
		s, err := seal(filepath.Join(dir, e.Name()), e.Name())
		if err != nil {
			return err
		}
		c.Outputs = append(c.Outputs, s)
	}
	if c.Seal, err = c.seal(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(&c, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, custodyName), append(b, '\n'), 0o600)
}

// readCustody reads the manifest of a kept directory.
func readCustody(dir string) (c custody, err error) {
	path := filepath.Join(dir, custodyName)
	b, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err = json.Unmarshal(b, &c); err == nil && c.Manifest != 1 {
		err = fmt.Errorf("it says %d", c.Manifest)
	}
	if err != nil {
		return c, fmt.Errorf("%s: not a manifest of version 1: %w", path, err)
	}
	return c, nil
}

func verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify CASE|EXTRACT [FILE...]",
		Short: "custody: are the inputs and outputs of an analysis what they were",
		Long: `verify reads the manifest.json that analyze -o left in a directory and hashes
everything again: the outputs in it, and the captures, from where they lay or from
the files that are named. A capture is known by its content, never by its name.

Of a pcapng file that extract wrote, verify finds the captures that it was taken
from, by name or among the files that are named, and compares the bytes of every packet with the
frame that it names as its parent.

Hints, groups, events and what a --baseline was read from are hashed as well. The
manifest also holds the arguments and the thresholds, under a seal of its own. A seal tells a change, not who made it: keep the seal, or the manifest,
where others cannot change it.

Exit status: 0 all is as it was, 1 something is not, 2 no manifest.`,
		Example: `  squall analyze outage.pcap -o outage
  squall verify outage
  squall verify outage /evidence/outage.pcap
  squall extract outage --finding 1 -w onset.pcapng && squall verify onset.pcapng`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err == nil && info.Mode().IsRegular() {
				return verifyExtract(fold(cmd.OutOrStdout()), args[0], args[1:])
			}
			c, err := readCustody(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w; squall analyze -o writes it", err)
			}
			if err != nil {
				return exitError{exitUsage, err}
			}
			bad := c.check(fold(cmd.OutOrStdout()), args[0], args[1:])
			if bad > 0 {
				return exitError{exitFailed, fmt.Errorf("%d of %d are not what they were", bad, 2+len(c.Inputs)+len(c.beside())+len(c.Outputs))}
			}
			return nil
		},
	}
}

// besideInput is a file that was given beside the captures.
type besideInput struct {
	what string
	sealed
}

func (c *custody) beside() (out []besideInput) {
	for _, b := range []struct {
		what string
		is   *sealed
	}{{"hints", c.Hints}, {"events", c.Events}} {
		if b.is != nil {
			out = append(out, besideInput{b.what, *b.is})
		}
	}
	for _, s := range c.Groups {
		out = append(out, besideInput{"groups", s})
	}
	for _, s := range c.Baseline {
		out = append(out, besideInput{"baseline", s})
	}
	for _, p := range c.Pieces {
		out = append(out, besideInput{"piece", p.sealed})
	}
	return out
}

// check prints a line for each thing that was sealed and counts those that
// differ.
func (c *custody) check(w io.Writer, dir string, files []string) (bad int) {
	say := func(ok bool, format string, args ...any) {
		word := "ok     "
		if !ok {
			word = "CHANGED"
			bad++
		}
		fmt.Fprintf(w, "%s  %s\n", word, fmt.Sprintf(format, args...))
	}
	want, err := c.seal()
	say(err == nil && want == c.Seal, "manifest, sealed %s", c.Seal)
	under, err := thresholdsOf(c.overridden())
	same := slices.EqualFunc(c.Thresholds, under.All(), func(a, b storm.Threshold) bool {
		return a.Name == b.Name && a.Value == b.Value && a.Default == b.Default
	})
	but := ""
	if len(c.overridden()) > 0 {
		but = ", but for those that the arguments set"
	}
	say(err == nil && same, "thresholds of this squall%s", but)
	given := map[string]string{}
	for _, f := range files {
		if s, err := seal(f, f); err == nil {
			given[s.SHA256] = f
		} else {
			say(false, "input %s: %v", f, err)
		}
	}
	for _, s := range c.Inputs {
		switch at, named := given[s.SHA256]; {
		case s.SHA256 == "":
			fmt.Fprintf(w, "unknown  input %s: it was no file, and nothing of it is known\n", s.Name)
		case named:
			say(true, "input %s, as %s", s.Name, at)
		case len(files) > 0:
			say(false, "input %s: none of the files that were named has its content", s.Name)
		default:
			got, err := seal(s.Name, s.Name)
			if err != nil {
				say(false, "input %v", err)
				continue
			}
			say(got.Size == s.Size && got.SHA256 == s.SHA256, "input %s", s.Name)
		}
	}
	for _, b := range c.beside() {
		at, named := given[b.SHA256]
		switch {
		case b.SHA256 == "":
			fmt.Fprintf(w, "unknown  %s %s: it was no file, and nothing of it is known\n", b.what, b.Name)
		case named:
			say(true, "%s %s, as %s", b.what, b.Name, at)
		default:
			got, err := seal(b.Name, b.Name)
			say(err == nil && got == b.sealed, "%s %s", b.what, b.Name)
		}
	}
	for _, s := range c.Outputs {
		got, err := seal(filepath.Join(dir, s.Name), s.Name)
		if err != nil {
			say(false, "output %v", err)
			continue
		}
		say(got == s, "output %s", s.Name)
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != custodyName && !slices.ContainsFunc(c.Outputs, func(s sealed) bool { return s.Name == e.Name() }) {
			fmt.Fprintf(w, "unknown  %s: it lies beside the outputs, and is none of them\n", e.Name())
		}
	}
	return bad
}
