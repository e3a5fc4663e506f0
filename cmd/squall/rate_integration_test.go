//go:build integration && linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"squall/capture"
)

// rates are tried one after the other, packets a second; 0 = as fast as it goes.
var rates = []int{100_000, 300_000, 0}

// sniffed is what a capturing program made of a run.
type sniffed struct {
	name     string
	captured int64
	dropped  int64 // by the kernel
	cpu      time.Duration
	digest   string
}

var (
	sentLine     = regexp.MustCompile(`sent +(\d+) packets, .*: (\d+) packets/s`)
	tcpdumpLines = regexp.MustCompile(`(?s)(\d+) packets captured.*?(\d+) packets? dropped by kernel`)
	dumpcapLine  = regexp.MustCompile(`received/dropped on interface '\w+': (\d+)/(\d+)`)
	squallLine   = regexp.MustCompile(`v1: (\d+) packets captured, \d+ passed the filter, (\d+) dropped by the kernel`)
)

// TestLiveRate sends the storm over a pair of virtual interfaces, at rising
// rates, once to each of tcpdump, dumpcap and squall. What squall captured and
// what it says was dropped is what was sent; where tcpdump has all, squall has
// all, in the same bytes. SQUALL_LIVE_SECONDS=20 sends for longer than 3 s.
//
// The sender has the first processor and who captures the second, where the kernel
// also receives (RPS): else a veth pair receives on the sender's. What does not fit
// between the two comes back to the sender, who sends it again; the interface counts it
// as dropped.
func TestLiveRate(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	seconds := 3
	if s := os.Getenv("SQUALL_LIVE_SECONDS"); s != "" {
		var err error
		if seconds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "ip", "link", "add", "v0", "address", "02:00:00:00:00:11", "type", "veth", "peer", "name", "v1", "address", "02:00:00:00:00:12")
	os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	must(t, "ip", "link", "set", "v0", "up")
	must(t, "ip", "link", "set", "v1", "up")
	if runtime.NumCPU() > 1 { // /sys shows the namespace that it was mounted in
		must(t, "unshare", "-m", "sh", "-c", "mount -t sysfs sysfs /sys && echo 2 > /sys/class/net/v1/queues/rx-0/rps_cpus")
	}
	dir, err := os.MkdirTemp(map[bool]string{true: "/dev/shm"}[exists("/dev/shm")], "squall-rate-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	storm := filepath.Join(dir, "storm.pcapng")
	if code, _, errs := squall(nil, "sample", "s2", "-w", storm); code != 0 {
		t.Fatal(errs)
	}
	dumpcap, _ := exec.LookPath("dumpcap")
	for _, rate := range rates {
		// A busy machine may delay one of the two for longer than a buffer holds.
		for try := 1; ; try++ {
			theirs, ours, wrong := compareAt(t, dir, storm, dumpcap, rate, seconds)
			if wrong != "" {
				t.Fatal(wrong)
			}
			if theirs.dropped > 0 || ours.dropped == 0 {
				break
			}
			if try == 3 {
				t.Errorf("at %d packets/s tcpdump dropped none, squall %d", rate, ours.dropped)
				break
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// compareAt measures at one rate; wrong says what cannot be.
func compareAt(t *testing.T, dir, storm, dumpcap string, rate, seconds int) (theirs, ours sniffed, wrong string) {
	t.Helper()
	pcap := filepath.Join(dir, "capture")
	tcpdump := func() sniffed {
		said, cpu := capturing(t, "tcpdump", "listening", "-i", "v1", "-p", "-s", "0", "-B", "32768", "-Z", "root", "-w", pcap)
		x := sniffed{name: "tcpdump", cpu: cpu}
		x.captured, x.dropped = numbers(t, tcpdumpLines, said)
		return x
	}
	mine := func() sniffed {
		said, cpu := capturing(t, os.Args[0], "listening", "capture", "-i", "v1", "-B", "32768", "-w", pcap)
		x := sniffed{name: "squall", cpu: cpu}
		m := squallLine.FindStringSubmatch(said)
		if m == nil {
			t.Fatal(said)
		}
		x.captured, x.dropped = atoi(m[1]), atoi(m[2])
		return x
	}
	other := func() sniffed {
		said, cpu := capturing(t, dumpcap, "File: ", "-q", "-p", "-B", "32", "-i", "v1", "-w", pcap)
		x := sniffed{name: "dumpcap", cpu: cpu}
		x.captured, x.dropped = numbers(t, dumpcapLine, said)
		return x
	}
	run := func(sniff func() sniffed) (sniffed, int64) {
		var s [2]int64
		sender = func() { s = send(t, storm, rate, seconds) }
		x := sniff()
		x.digest = digest(t, pcap)
		os.Remove(pcap)
		t.Logf("%7d packets/s: %-7s %d sent, %d captured, %d dropped, %.2f s of CPU", s[1], x.name, s[0], x.captured, x.dropped, x.cpu.Seconds())
		return x, s[0]
	}
	theirs, _ = run(tcpdump)
	if dumpcap != "" {
		run(other)
	}
	ours, sent := run(mine)
	switch {
	case ours.captured+ours.dropped != sent:
		wrong = fmt.Sprintf("sent %d, captured %d and dropped %d", sent, ours.captured, ours.dropped)
	case theirs.dropped == 0 && ours.dropped == 0 && theirs.captured == ours.captured && theirs.digest != ours.digest:
		wrong = "the packets are not those that tcpdump has"
	}
	return theirs, ours, wrong
}

// sender runs while a program captures.
var sender func()

// capturing starts a program that captures, sends, and stops it.
func capturing(t *testing.T, path, ready string, args ...string) (said string, cpu time.Duration) {
	t.Helper()
	cmd := onProcessor(1, path, args...)
	cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Skipf("needs %s in the path (Debian: apt-get install tcpdump wireshark-common): %v", path, err)
	}
	w.Close()
	var text bytes.Buffer
	b := make([]byte, 4096)
	for !strings.Contains(text.String(), ready) {
		n, err := r.Read(b)
		text.Write(b[:n])
		if err != nil {
			cmd.Wait()
			t.Skipf("needs %s to capture here (root with CAP_NET_RAW): %s", path, text.String())
		}
	}
	time.Sleep(300 * time.Millisecond)
	sender()
	time.Sleep(1500 * time.Millisecond)
	cmd.Process.Signal(syscall.SIGINT)
	text.ReadFrom(r)
	cmd.Wait()
	return text.String(), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// onProcessor is a command that keeps to one processor, where there are several.
func onProcessor(n int, path string, args ...string) *exec.Cmd {
	if taskset, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > n {
		return exec.Command(taskset, append([]string{"-c", strconv.Itoa(n), path}, args...)...)
	}
	return exec.Command(path, args...)
}

// send gives the packets that were sent, and how many a second.
func send(t *testing.T, storm string, rate, seconds int) [2]int64 {
	t.Helper()
	const each = 5946 // packets of the storm that the filter lets through
	pace := []string{"--pps", strconv.Itoa(rate)}
	if rate == 0 {
		pace, rate = []string{"--top-speed"}, 500_000
	}
	args := append([]string{"replay", "packets", storm, "-i", "v0", "--send", "--max-rate", "100000000", "--max-bytes", "1000000000000", "-Z", "root",
		"-L", "20000", "--loop", strconv.Itoa(rate * seconds / each), "-f", "net 10.1.0.0/24 and not host 10.1.0.0 and not host 10.1.0.255",
		"--map", "198.51.100.0/24=10.78.0.0/24", "--map", "10.1.0.0/24=10.77.0.0/24", "--allow", "10.77.0.0/24", "--allow", "10.78.0.0/24", "--dst-mac", "02:00:00:00:00:12"}, pace...)
	cmd := onProcessor(0, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1", "GOMAXPROCS=1") // one socket: packets keep their order
	out, _ := cmd.CombinedOutput()
	m := sentLine.FindSubmatch(out)
	if m == nil {
		t.Fatalf("%s", out)
	}
	return [2]int64{atoi(string(m[1])), atoi(string(m[2]))}
}

func atoi(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func numbers(t *testing.T, lines *regexp.Regexp, said string) (a, b int64) {
	t.Helper()
	m := lines.FindStringSubmatch(said)
	if m == nil {
		t.Fatal(said)
	}
	return atoi(m[1]), atoi(m[2])
}

// digest is of all packets, their bytes and lengths, in order.
func digest(t *testing.T, file string) string {
	t.Helper()
	src, err := capture.Open([]string{file}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	h := sha256.New()
	var lengths [8]byte
	for {
		b, err := src.Next()
		if err != nil {
			return fmt.Sprintf("%x", h.Sum(nil))
		}
		for i := range b.Packets {
			p := &b.Packets[i]
			binary.BigEndian.PutUint32(lengths[:4], uint32(p.OrigLen))
			binary.BigEndian.PutUint32(lengths[4:], uint32(len(p.Data)))
			h.Write(lengths[:])
			h.Write(p.Data)
		}
		b.Release()
	}
}
