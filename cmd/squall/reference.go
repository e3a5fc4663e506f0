package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes what package maintainers and readers of manuals want.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "manual pages of all verbs, written into a directory",
		Example: "  squall man /usr/local/share/man/man1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return exitError{exitFailed, err}
			}
			root := newRoot()
			root.DisableAutoGenTag = true
			// A date of their own would make the pages differ from day to day.
			epoch := time.Unix(0, 0).UTC()
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "squall", Manual: "squall", Date: &epoch}, args[0]); err != nil {
				return exitError{exitFailed, err}
			}
			return nil
		},
	}
}

// writeReference writes the one page of all verbs and flags.
func writeReference(w io.Writer) error {
	root := newRoot()
	var b bytes.Buffer
	b.WriteString("# Commands\n\nGenerated from the commands (`make golden`); `squall VERB --help` says the same, `squall man DIR` writes manual pages.\n\n")
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "completion" || c.Name() == "help" {
			continue
		}
		fmt.Fprintf(&b, "## squall %s\n\n%s\n\n```\n%s\n```\n\n", c.Name(), strings.ToUpper(c.Short[:1])+c.Short[1:]+".", c.UseLine())
		if c.Long != "" {
			fmt.Fprintf(&b, "```\n%s\n```\n\n", strings.TrimSpace(c.Long))
		}
		if c.Example != "" {
			fmt.Fprintf(&b, "Examples:\n\n```\n%s\n```\n\n", c.Example)
		}
		if flags := c.LocalFlags().FlagUsages(); strings.TrimSpace(flags) != "" {
			fmt.Fprintf(&b, "Flags:\n\n```\n%s```\n\n", flags)
		}
	}
	if b.Len() == 0 {
		return errors.New("no commands")
	}
	_, err := w.Write(bytes.TrimRight(b.Bytes(), "\n"))
	if err == nil {
		_, err = w.Write([]byte("\n"))
	}
	return err
}
