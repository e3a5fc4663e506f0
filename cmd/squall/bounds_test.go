//go:build bench

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestBounds prints the peak memory of analyze for captures that grow in one
// way: clients, identities, nodes, time. Each is read from a pipe at a quarter
// of its length and at the whole, which must not cost much more. SQUALL_BOUNDS=10
// takes a tenth of both, most of it below the ceilings, and holds them to nothing.
func TestBounds(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "squall")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	part := int64(1)
	if n, err := strconv.ParseInt(os.Getenv("SQUALL_BOUNDS"), 10, 64); err == nil && n > 0 {
		part = n
	}
	peak := map[string]int64{}
	var table strings.Builder
	table.WriteString("| capture | packets | peak RSS of the quarter | of the whole | bytes a further packet |\n|---|--:|--:|--:|--:|\n")
	for _, c := range []struct {
		name    string
		packets int64
	}{{"bench-crowd", 10_000_000}, {"bench-names", 10_000_000}, {"bench-sprawl", 2_000_000}, {"bench-dense", 1_000_000}, {"bench-year", 1_000_000}} {
		n := c.packets / part
		quarter, whole := piped(t, binary, c.name, n/4), piped(t, binary, c.name, n)
		peak[c.name] = whole
		fmt.Fprintf(&table, "| `%s` | %d | %d MB | %d MB | %.0f |\n", c.name, n, quarter/1e6, whole/1e6, float64(whole-quarter)/float64(n-n/4))
		if part == 1 && n >= 2_000_000 && float64(whole) > 1.15*float64(quarter) {
			t.Errorf("%s grows with its length: %d MB at a quarter, %d MB", c.name, quarter/1e6, whole/1e6)
		}
	}
	fmt.Print(table.String())
	if year, dense := peak["bench-year"], peak["bench-dense"]; year > 2*dense && year > 300e6 {
		t.Errorf("a year of silence costs memory: %d MB, without it %d MB", year/1e6, dense/1e6)
	}
}

// piped is the peak memory of analyze on a sample that never touches a disk.
func piped(t *testing.T, binary, name string, packets int64) int64 {
	t.Helper()
	from := exec.Command(binary, "sample", name, "--packets", strconv.FormatInt(packets, 10), "-T", "pcap", "-w", "-")
	to := exec.Command(binary, "analyze", "-q", "-")
	pipe, err := from.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	to.Stdin = pipe
	if err := from.Start(); err != nil {
		t.Fatal(err)
	}
	if out, err := to.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	if err := from.Wait(); err != nil {
		t.Fatal(err)
	}
	u, ok := to.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Skip("needs a system that tells the peak RSS of a child: run it on Linux")
	}
	return u.Maxrss * 1024
}
