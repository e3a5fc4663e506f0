//go:build bench && linux

package replay_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// TestPacketBudget measures packet mode at top speed against tcpreplay on the
// same frames, in turn, in one namespace: the median of five ratios is to be
// 1.2 at least (design.md section 7).
func TestPacketBudget(t *testing.T) {
	tcpreplay, err := exec.LookPath("tcpreplay")
	if err != nil {
		t.Skip("needs tcpreplay (Debian: apt-get install tcpreplay)")
	}
	squall, in, inside := wire(t)
	maps := []string{"--map", "198.51.100.0/24=10.78.0.0/24", "--map", "10.1.0.0/24=10.77.0.0/24", "--dst-mac", "02:00:00:00:00:12", "--src-mac", "02:00:00:00:00:11",
		"-f", "net 10.1.0.0/24 and not host 10.1.0.0 and not host 10.1.0.255"}
	file := filepath.Join(t.TempDir(), "moved.pcap")
	if out, err := exec.Command(squall, append([]string{"replay", "packets", in, "-w", file}, maps...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const loops = "100"
	rate := func(pattern, tool string, args ...string) float64 {
		out, err := inside(tool, args...).CombinedOutput()
		m := regexp.MustCompile(pattern).FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%s: %v\n%s", tool, err, out)
		}
		v, _ := strconv.ParseFloat(string(m[1]), 64)
		return v
	}
	var ratios []float64
	for range 5 {
		theirs := rate(`([0-9.]+) pps`, tcpreplay, "--topspeed", "-K", "--loop", loops, "-i", "sqv0", file)
		ours := rate(`: ([0-9.]+) packets/s`, squall, append([]string{"replay", "packets", in, "-i", "sqv0", "--send", "--top-speed", "--max-rate", "100000000", "--loop", loops,
			"--allow", "10.77.0.0/24", "--allow", "10.78.0.0/24"}, maps...)...)
		fmt.Printf("tcpreplay %.0f packets/s, squall %.0f packets/s, ratio %.2f\n", theirs, ours, ours/theirs)
		ratios = append(ratios, ours/theirs)
	}
	slices.Sort(ratios)
	fmt.Printf("packet replay on a veth pair: %.2f x tcpreplay --topspeed -K (budget 1.2)\n", ratios[2])
	if ratios[2] < 1.2 {
		t.Errorf("ratio %.2f, budget 1.2", ratios[2])
	}
}
