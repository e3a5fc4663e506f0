package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
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

// notRun are examples that a test of commands cannot run, and why.
var notRun = map[string]string{
	"squall capture -i eth0":             "captures until it is stopped, with CAP_NET_RAW; TestLiveInNamespace",
	"squall capture -i any":              "captures until it is stopped, with CAP_NET_RAW; TestLiveInNamespace",
	"squall watch -i":                    "watches until it is stopped, with CAP_NET_RAW; TestLiveStorm",
	"squall watch fra=a":                 "goes on when the writers of its named pipes end; TestWatchSeveral",
	"squall replay packets s2.pcapng -i": "sends on an interface; TestPacketsOnWire",
	"squall consent --until 15:00":       "listens until 15:00; TestConsent of replay",
	"squall testnode":                    "runs until it is stopped; TestLiveTutorial",
	"curl -d":                            "asks a test node that runs; TestLiveTutorial",
	"squall replay outage.plan":          "sends to another machine",
	"--fixes --send":                     "takes minutes; TestFixesAndRamp",
	"--ramp 1:30 --send":                 "takes minutes; TestFixesAndRamp",
	"--speed 10 --max-rate 20000 -o r":   "takes minutes; TestLiveTutorial",
}

// TestExamplesRun: every example but those runs, on captures of the names that it has.
// The larger outages are a small one here, and other machines this one.
func TestExamplesRun(t *testing.T) {
	slow(t)
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a POSIX shell, sh, in the path (Windows: that of Git or MSYS2)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\nSQUALL_AS_COMMAND=1 exec '" + self + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "squall"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	shell := func(line string) (string, error) {
		cmd := exec.Command(sh, "-ec", line)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "NO_COLOR=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := shell(`squall sample outage -w outage.pcap
		for f in flood skype running; do cp outage.pcap $f.pcap; done
		mv skype.pcap skype.pcapng; mv running.pcap running.pcapng
		gzip -c outage.pcap > outage.pcapng.gz
		mkdir -p captures cap/east cap/west evidence var/captures
		cp outage.pcap captures; cp outage.pcap cap/east; cp outage.pcap cap/west; cp outage.pcap evidence
		squall sample proto:n2n -w all.pcap
		squall sample s2 --clients 50 -w s2.pcapng
		squall analyze -q outage.pcap -o outage
		for d in kept run run-1 run-2 run-3 before after; do cp -r outage $d; done
		printf 'time,text\n2010-12-22T16:00:30Z,deploy 7\n' > deploys.csv
		printf 'nodes:\n  192.0.2.1:6346: {role: supernode}\n' > mine.yaml`); err != nil {
		t.Fatal(err, out)
	}
	here := strings.NewReplacer(
		" /captures", " captures", "=/cap/", "=cap/", " /evidence/", " evidence/", " /usr/local/share/man", " man",
		"skype-2010", "outage", "sample s1", "sample outage", "sample s2", "sample outage", "sample n19", "sample n19 --clients 50",
		"ssh node 'tcpdump -i eth0 -U -s 512 -w - not port 22'", "cat outage.pcap",
		"tcpdump -w - -c 1000", "cat outage.pcap",
	)
	ran, why := 0, map[string]bool{}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, s := range c.Commands() {
			visit(s)
		}
	line:
		for _, line := range strings.Split(strings.ReplaceAll(c.Example, "\\\n", " "), "\n") {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			for part := range notRun {
				if strings.Contains(line, part) {
					why[part] = true
					continue line
				}
			}
			for _, tool := range []string{"tshark", "tcpdump"} {
				if _, err := exec.LookPath(tool); err != nil && strings.Contains(here.Replace(line), tool+" ") {
					t.Logf("%s: needs %s, of Debian", line, tool)
					continue line
				}
			}
			ran++
			want := 0
			if strings.Contains(line, "--fail-on") {
				want = exitThreshold
			}
			out, err := shell(here.Replace(line))
			var exit *exec.ExitError
			if code := 0; errors.As(err, &exit) || err == nil {
				if exit != nil {
					code = exit.ExitCode()
				}
				if code != want {
					t.Errorf("%s: %s\nexit %d\n%s", c.CommandPath(), line, code, out)
				}
				continue
			}
			t.Errorf("%s: %v", line, err)
		}
	}
	visit(newRoot())
	if ran < 45 || len(why) != len(notRun) {
		t.Errorf("%d examples ran; of those that do not, %v are there", ran, why)
	}
}
