//go:build bench

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runs of each command; the medians count.
const runs = 5

type command struct {
	name, budget string
	argv         []string
}

// once are the commands that run once.
func once(name string) bool {
	return strings.Contains(name, "parquet") || strings.HasPrefix(name, "argus")
}

type measure struct {
	wall time.Duration
	rss  int64 // bytes
}

// TestBudgets runs squall and its peer in turns on the captures of the budgets
// and prints the ratios. It asserts nothing: the numbers are for reading.
func TestBudgets(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "squall")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	peer, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("needs tcpdump, the peer that the budgets name (Debian: apt-get install tcpdump)")
	}
	var table strings.Builder
	table.WriteString("| capture | command | wall, median of 5 | least to most | peak RSS | ratio to tcpdump | budget |\n|---|---|---|---|---|---|---|\n")
	for _, c := range []struct{ name, wall, rss string }{
		{"bench-bulk", "1.0 (1.25 at first)", "150 MB"},
		{"bench-dense", "3 (5 at first)", "300 MB (450 at first)"},
	} {
		file := filepath.Join(dir, c.name+".pcap")
		if code, _, errs := squall(nil, "sample", c.name, "-w", file); code != 0 {
			t.Fatal(errs)
		}
		commands := []command{
			{"tcpdump -r F -w /dev/null", "", []string{peer, "-r", file, "-w", "/dev/null"}},
			{"squall analyze F", c.wall + ", " + c.rss, []string{binary, "analyze", file}},
			{"squall info F", "", []string{binary, "info", file}},
			{"squall report attempts F -T parquet", "", []string{binary, "report", "attempts", file, "-T", "parquet"}},
		}
		if argus, err := exec.LookPath("argus"); err == nil { // flows only: it tells no attempts
			commands = append(commands, command{"argus -r F -w /dev/null", "", []string{argus, "-r", file, "-w", "/dev/null"}})
		} else {
			t.Log("without argus, which would be measured too (Debian: apt-get install argus-server)")
		}
		all := make([][]measure, len(commands))
		for n := range runs {
			for i, command := range commands {
				if n > 0 && once(command.name) {
					continue // up to a minute each
				}
				all[i] = append(all[i], timed(t, command.argv))
			}
		}
		base := median(all[0])
		for i, command := range commands {
			m := median(all[i])
			slices.SortFunc(all[i], func(a, b measure) int { return int(a.wall - b.wall) })
			fmt.Fprintf(&table, "| %s | `%s` | %.2f s | %.2f to %.2f s | %d MB | %.2f | %s |\n", c.name, command.name, m.wall.Seconds(),
				all[i][0].wall.Seconds(), all[i][len(all[i])-1].wall.Seconds(), m.rss/1e6, m.wall.Seconds()/base.wall.Seconds(), command.budget)
		}
		os.Remove(file)
	}
	fmt.Print(table.String())
	if *update {
		page := `# Benchmarks

` + "`make bench`" + ` prints this table and, with ` + "`UPDATE=-update`" + `, writes this page. The captures are
` + "`squall sample bench-bulk`" + ` (3 million packets of 600 bytes on average, a storm of 20,000
attempts in its second half) and ` + "`squall sample bench-dense`" + ` (7 million packets, 3.4
million attempts). Each command runs 5 times (the export to Parquet and argus once), in turns with the others, with the
file in the page cache; the wall time is that of the process, the peak RSS what the
kernel says of it. The budgets are ratios to tcpdump in the same run.

Measured on ` + fmt.Sprintf("%s/%s, %d processors, %s.", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()) + "\n\n" + table.String()
		if old, err := os.ReadFile("../../docs/benchmarks.md"); err == nil { // sections below are of other runs
			if i := bytes.Index(old, []byte("\n## ")); i > 0 {
				page += string(old[i:])
			}
		}
		if err := os.WriteFile("../../docs/benchmarks.md", []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func timed(t *testing.T, argv []string) measure {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, errs.String())
	}
	m := measure{wall: time.Since(begin)}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		m.rss = u.Maxrss * 1024
	}
	return m
}

func median(all []measure) measure {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b measure) int { return int(a.wall - b.wall) })
	m := sorted[len(sorted)/2]
	slices.SortFunc(sorted, func(a, b measure) int { return int(a.rss - b.rss) })
	m.rss = sorted[len(sorted)/2].rss
	return m
}
