//go:build (integration || bench) && linux

package replay_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/replay"
)

// TestPacketsOnWire: 100,001 packets at 20,000 a second over a pair of virtual
// interfaces in a namespace of the test's own: what arrives has its addresses
// in the allowed range and right checksums by tshark; without --send nothing
// arrives. What the time was is reported; a busy machine may be late.
func TestPacketsOnWire(t *testing.T) {
	squall, in, inside := wire(t)
	dir := t.TempDir()
	maps := []string{"--map", "198.51.100.0/24=10.78.0.0/24", "--map", "10.1.0.0/24=10.77.0.0/24", "--allow", "10.77.0.0/24", "--allow", "10.78.0.0/24",
		"-f", "net 10.1.0.0/24 and not host 10.1.0.0 and not host 10.1.0.255", "--dst-mac", "02:00:00:00:00:12"}
	// Nothing leaves without --send, nor where a rule refuses.
	for _, more := range [][]string{nil, {"--send", "--map", "198.51.100.1=8.8.8.8"}, {"--send", "--pps", "5000"}, {"--send", "--loop", "0"}, {"--send", "--top-speed"}} {
		got := listen(t, inside, dir, func() {
			cmd := inside(squall, append(append([]string{"replay", "packets", in, "-i", "sqv0"}, maps...), more...)...)
			out, err := cmd.CombinedOutput()
			code := cmd.ProcessState.ExitCode()
			if want := map[bool]int{true: 0, false: 4}[more == nil]; code != want && !(len(more) > 1 && more[1] == "--loop" && code == 2) {
				t.Errorf("%v: exit %d, %v\n%s", more, code, err, out)
			}
		})
		if n := decoded(t, got, func(*capture.Packet, *dissect.Datagram) {}); n != 0 {
			t.Errorf("%v: %d packets on the wire", more, n)
		}
	}
	// The hardware address of a router, as this machine knows it.
	for _, line := range []string{"address add 10.98.0.2/24 dev sqv0", "neigh add 10.98.0.1 lladdr 02:00:00:00:00:99 dev sqv0", "route add default via 10.98.0.1 dev sqv0"} {
		if out, err := inside("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", line, err, out)
		}
	}
	cmd := inside(squall, append([]string{"replay", "packets", in, "-i", "sqv0", "--send"}, append(slices.Clone(maps[:len(maps)-1]), "02:00:00:00:00:99")...)...)
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 4 || !strings.Contains(string(out), "is the router 10.98.0.1") {
		t.Errorf("to a router: exit %d\n%s", cmd.ProcessState.ExitCode(), out)
	}
	const want = 100_001
	var report string
	got := listen(t, inside, dir, func() {
		// 100,001 packets: so many of the capture, again and again.
		cmd := inside(squall, append([]string{"replay", "packets", in, "-i", "sqv0", "--send", "--pps", "20000", "--max-rate", "20000", "--limit", "11", "--loop", strconv.Itoa(want / 11)}, maps...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		report = string(out)
	})
	allowed := []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("10.78.0.0/24")}
	found, err := replay.AddressesOf(open(t, got))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found {
		if !allowed[0].Contains(a) && !allowed[1].Contains(a) {
			t.Errorf("address %v on the wire", a)
		}
	}
	var first, last int64
	n := decoded(t, got, func(p *capture.Packet, _ *dissect.Datagram) {
		if first == 0 {
			first = p.Time
		}
		last = p.Time
	})
	if n != want || !strings.Contains(report, "residual    0 packets") {
		t.Errorf("%d packets arrived, want %d\n%s", n, want, report)
	}
	took := time.Duration(last - first)
	t.Logf("%d packets in %v on the wire, planned 5 s: %+.3f %%\n%s", n, took, 100*(took.Seconds()/5-1), report)
	file := filepath.Join(dir, "again.pcap")
	if err := os.WriteFile(file, got, 0o644); err != nil {
		t.Fatal(err)
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("needs tshark to look at checksums (Debian: apt-get install tshark)")
	}
	bad, err := exec.Command(tshark, "-r", file, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
		"-Y", "ip.checksum.status==0 or tcp.checksum.status==0 or udp.checksum.status==0").Output()
	if err != nil || len(bad) > 0 {
		t.Errorf("tshark: %v, bad checksums:\n%.2000s", err, bad)
	}
}

// wire makes a namespace with a pair of interfaces, sqv0 and sqv1, builds
// squall, and records a scenario.
func wire(t testing.TB) (squall, in string, inside func(string, ...string) *exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs a network namespace: run the tests as root")
	}
	for _, tool := range []string{"ip", "tcpdump"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool + " (Debian: apt-get install iproute2 tcpdump)")
		}
	}
	name := fmt.Sprintf("squall-%d", os.Getpid())
	do := func(args ...string) {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("needs network namespaces and veth (root with CAP_NET_ADMIN, kernel module veth): ip %v: %v %s", args, err, out)
		}
	}
	do("netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	for _, line := range []string{"link add sqv0 address 02:00:00:00:00:11 type veth peer name sqv1 address 02:00:00:00:00:12", "link set sqv0 up", "link set sqv1 up"} {
		do(append([]string{"-n", name}, strings.Fields(line)...)...)
	}
	dir, err := os.MkdirTemp("", "squall-wire-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	squall = filepath.Join(dir, "squall")
	if out, err := exec.Command("go", "build", "-o", squall, "squall/cmd/squall").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	in = filepath.Join(dir, "in.pcapng")
	if err := os.WriteFile(in, recording(t, "s2", 8*time.Minute, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	return squall, in, func(tool string, args ...string) *exec.Cmd {
		return exec.Command("ip", append([]string{"netns", "exec", name, tool}, args...)...)
	}
}

// listen captures what arrives at sqv1, from IPv4 hosts, while do runs.
func listen(t *testing.T, inside func(string, ...string) *exec.Cmd, dir string, do func()) []byte {
	t.Helper()
	file := filepath.Join(dir, "wire.pcap")
	os.Remove(file)
	cmd := inside("tcpdump", "-i", "sqv1", "-U", "-B", "65536", "-w", file, "-Z", "root", "ip")
	var talk bytes.Buffer
	cmd.Stderr = &talk
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := os.Stat(file); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	do()
	// Until nothing more is written: the kernel hands over what it has once a second.
	size, same := int64(-1), 0
	for range 100 {
		time.Sleep(200 * time.Millisecond)
		if s, err := os.Stat(file); err == nil && s.Size() == size {
			same++
		} else if err == nil {
			size, same = s.Size(), 0
		}
		if same == 8 {
			break
		}
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: %s", err, talk.String())
	}
	return b
}
