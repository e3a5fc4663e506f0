package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// words splits a line of the shell as far as examples use it: quotes, pipes, lists,
// and what is put in for $(…) and NAME=VALUE, each program by itself.
func words(line string) (programs [][]string) {
	var now []string
	word, open, quote := "", false, rune(0)
	end := func() {
		if open {
			now = append(now, word)
		}
		word, open = "", false
	}
	next := func() {
		end()
		if len(now) > 0 {
			programs = append(programs, now)
		}
		now = nil
	}
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word += string(c)
		case c == '\'' || c == '"':
			quote, open = c, true
		case c == '|' || c == ';' || c == '&':
			next()
		case c == ' ':
			end()
		case c == '#' && !open:
			next()
			return programs
		default:
			word, open = word+string(c), true
		}
	}
	next()
	return programs
}

// TestExamples: every example of every help text is a command that there is, with flags
// and arguments that it takes.
func TestExamples(t *testing.T) {
	seen := 0
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.HasSubCommands() {
			for _, s := range c.Commands() {
				visit(s)
			}
		}
		text := strings.ReplaceAll(c.Example, "\\\n", " ")
		if c.Runnable() && text == "" && !c.Hidden && c.Parent() != nil && c.Parent().Name() != "completion" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, line := range strings.Split(text, "\n") {
			for _, program := range words(line) {
				if program[0] != "squall" {
					continue
				}
				seen++
				root := newRoot()
				root.InitDefaultHelpCmd()
				found, rest, err := root.Find(program[1:])
				if err != nil || found == root && len(program) > 1 && !strings.HasPrefix(program[1], "-") {
					t.Errorf("%s: %q: no such command (%v)", c.CommandPath(), line, err)
					continue
				}
				if err := found.ParseFlags(rest); err != nil {
					t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
				} else if err := found.ValidateArgs(found.Flags().Args()); err != nil {
					t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
				}
			}
		}
	}
	visit(newRoot())
	if seen < 40 {
		t.Errorf("only %d examples", seen)
	}
}
