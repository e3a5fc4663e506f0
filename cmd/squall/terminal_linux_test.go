package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"squall/reports"
)

// onScreen runs a command line on a terminal and gives what was on it, escape
// sequences aside, by line.
func onScreen(t *testing.T, columns int, stdin []byte, args ...string) (code int, lines []string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs pseudo-terminals, /dev/ptmx (mount -t devpts devpts /dev/pts):", err)
	}
	defer master.Close()
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs pseudo-terminals in /dev/pts (mount -t devpts devpts /dev/pts):", err)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	said := make(chan string)
	go func() {
		b, _ := io.ReadAll(master) // EIO at its end
		said <- string(b)
	}()
	if len(args) > 0 && (args[0] == "watch" || args[0] == "capture") { // which confines its process
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), tty, tty
		cmd.Run()
		code = cmd.ProcessState.ExitCode()
	} else {
		code = run(args, bytes.NewReader(stdin), tty, tty)
	}
	tty.Close()
	text := escapes.ReplaceAllString(<-said, "")
	return code, strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
}

// TestProgressEndsAtAll: of a file not more is read than there is.
func TestProgressEndsAtAll(t *testing.T) {
	_, all, _ := squall(nil, "sample", "outage", "-w", "-")
	path := filepath.Join(t.TempDir(), "cut.pcapng")
	if err := os.WriteFile(path, []byte(all[:200e3]), 0o600); err != nil {
		t.Fatal(err)
	}
	drawn := 0
	_, lines := onScreen(t, 80, nil, "analyze", path)
	for _, line := range lines {
		var share int
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), "%d %% of", &share); n == 1 && strings.Contains(line, "packets/s") {
			if drawn++; share > 100 {
				t.Error(line)
			}
		}
	}
	if drawn == 0 {
		t.Errorf("no progress in %q", lines)
	}
}

// TestNothingWiderThanTheTerminal: what any command says on a terminal, help and
// mistakes too, has lines that fit it, but for single words (a path, a command line
// to copy); and the same in a pipe is whole.
func TestNothingWiderThanTheTerminal(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	t.Chdir(dir)
	for _, args := range [][]string{
		{"sample", "outage", "-w", "o.pcapng"},
		{"analyze", "o.pcapng", "-q", "-o", "case"},
		{"plan", "o.pcapng", "-q", "-w", "o.plan"},
		{"extract", "o.pcapng", "-q", "--finding", "1", "-w", "x.pcapng"},
	} {
		if code, _, errs := squall(nil, args...); code != 0 {
			t.Fatal(args, errs)
		}
	}
	_, capture, _ := squall(nil, "sample", "outage", "-w", "-")
	os.WriteFile("notes.csv", []byte("time,text\n2010-12-22T16:01:00Z,"+strings.Repeat("somebody did something ", 8)+"\n"), 0o600)
	commands := [][]string{
		{}, {"nosuchverb"}, {"analyze", "--nosuchflag"},
		{"analyze", "o.pcapng"}, {"analyze", "o.pcapng", "-v", "--events", "notes.csv"}, {"analyze", "nofile"}, {"analyze", "o.pcapng", "-o", "again"},
		{"explain", "case"}, {"info", "o.pcapng"}, {"info", "case"},
		{"events", "case"}, {"events", "o.pcapng", "--events", "notes.csv"}, {"sources", "case", "--limit-each", "10"},
		{"sources", "case", "-e", "source_ip,role,attempts,retries,accepted,failed,transmissions,nodes"},
		{"report", "attempts", "case", "--where", "nosuch == 1"}, {"report", "attempts", "case", "-e", "filter"}, {"report", "attempts", "case", "--limit", "600"},
		{"extract", "case", "--finding", "1", "-w", "y.pcapng"}, {"extract", "case", "-w", "y.pcapng"},
		{"plan", "o.pcapng", "-w", "p.plan"}, {"replay", "o.plan", "--target", "127.0.0.1:7001"}, {"replay", "o.plan"},
		{"replay", "o.plan", "--testnodes", "2", "--fixes"}, {"replay", "packets", "o.pcapng"}, {"replay", "packets", "o.pcapng", "-w", "z.pcap", "--map", "0.0.0.0/0=127.0.0.1/32"},
		{"compare", "case", "case"}, {"compare", "case", "x.pcapng"}, {"whatif", "case", "--seeds", "1", "--color", "always"},
		{"merge", "case", "-o", "m"}, {"protocols"}, {"sample"}, {"sample", "nosuch", "-w", "y"}, {"verify", "case"}, {"verify", "x.pcapng", "o.pcapng"},
		{"capture", "-D"}, {"capture", "-i", "lo", "-f", "host", "-w", "z.pcap"}, {"consent", "--until", "100ms", "--max-rate", "5", "--listen", "127.0.0.1:0"}, {"testnode", "--duration", "50ms"}, {"watch", "-"},
	}
	for _, table := range append(reports.Names(), "nosuch") {
		commands = append(commands, []string{"report", table, "case", "--limit", "20"})
	}
	var help func(c *cobra.Command, path []string)
	help = func(c *cobra.Command, path []string) {
		commands = append(commands, append(path[:len(path):len(path)], "--help"))
		for _, s := range c.Commands() {
			help(s, append(path[:len(path):len(path)], s.Name()))
		}
	}
	help(newRoot(), nil)
	verbs := map[string]bool{}
	for _, args := range commands {
		if len(args) > 0 && args[len(args)-1] != "--help" {
			verbs[args[0]] = true
		}
		for _, columns := range []int{80, 200} {
			if columns == 200 && (testing.Short() || len(args) < 2 || args[0] != "report" && args[0] != "explain") {
				break
			}
			code, lines := onScreen(t, columns, []byte(capture), args...)
			if code == exitDamaged {
				t.Errorf("%q: exit %d", args, code)
			}
			for _, line := range lines {
				if strings.Contains(line, `\x1b`) {
					t.Errorf("%q: a colour that is shown as text: %s", args, line)
				}
				if n := utf8.RuneCountInString(line); n > columns && strings.Contains(strings.TrimSpace(line), " ") && !strings.HasPrefix(strings.TrimSpace(line), "'") {
					t.Errorf("%q: %d columns of %d: %s", args, n, columns, line)
				}
			}
			if len(lines) == 0 && args[0] != "merge" {
				t.Errorf("%q says nothing", args)
			}
		}
	}
	for _, c := range newRoot().Commands() {
		if name := c.Name(); !verbs[name] && !c.Hidden && name != "help" && name != "completion" && name != "man" {
			t.Errorf("squall %s was not run", name)
		}
	}
	_, out, _ := squall(nil, "report", "attempts", "case", "--limit", "3")
	if head, _, _ := strings.Cut(out, "\n"); len(strings.Fields(head)) < 50 {
		t.Errorf("in a pipe: %s", head)
	}
	if _, err := os.Stat(filepath.Join(dir, "again", "report.html")); err != nil {
		t.Error(err)
	}
}
