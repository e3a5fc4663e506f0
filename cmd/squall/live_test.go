package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

// live runs a command line in a process of its own: these give up what this
// process needs.
func runLive(t *testing.T, stdin []byte, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestWatchSeveral: pipes of the shell's <(command), which end with it, and files
// that are open before the right to open any is given up.
func TestWatchSeveral(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("needs /proc/self/fd, as Linux with /proc mounted has it")
	}
	file := sampled(t, "outage")
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"a=/dev/fd/3", "b=/dev/fd/4"}, {"a=" + file, "b=" + file}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it hung
		defer cancel()
		cmd := exec.CommandContext(ctx, self, append([]string{"watch", "-T", "jsonl"}, args...)...)
		cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
		for range 2 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, r)
			go func() {
				w.Write(kept) // fails where the files are read instead
				w.Close()
			}()
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"sight":"ended"`) {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
}

// TestWatchCommand: JSON lines, the hook, and the packets of the trigger.
func TestWatchCommand(t *testing.T) {
	var b bytes.Buffer
	truth, err := samples.Write(&b, "outage", 1, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(t.TempDir(), "kept.pcapng")
	code, out, errs := runLive(t, b.Bytes(), "watch", "-", "-T", "jsonl", "--trigger", "partial_outage", "-w", kept, "--before", "20s", "--after", "5s", "--on-finding", "cat")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var windows, findings []map[string]any
	for line := range strings.Lines(out) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if o["type"] == "window" {
			windows = append(windows, o)
		} else {
			findings = append(findings, o)
		}
	}
	if len(windows) < 8 || len(findings) < 3 || findings[0]["sight"] != "provisional" || findings[len(findings)-1]["sight"] != "ended" {
		t.Errorf("%d windows, findings %v", len(windows), findings)
	}
	if n := strings.Count(errs, `"type":"finding"`); n != len(findings) {
		t.Errorf("the hook ran %d times for %d findings: %s", n, len(findings), errs)
	}
	outage := truth.Outages(30*time.Second, 0)[0]
	from, to := samples.Epoch+int64(outage.First-20*time.Second), samples.Epoch+int64(outage.Last+5*time.Second)
	count := func(data []byte, name string, from, to int64) (n int, first, last int64) {
		src, err := capture.Open([]string{name}, capture.Options{Stdin: bytes.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		for {
			batch, err := src.Next()
			if err != nil {
				return n, first, last
			}
			for _, p := range batch.Packets {
				if p.Time >= from && p.Time < to {
					if n++; n == 1 {
						first = p.Time
					}
					last = p.Time
				}
			}
			batch.Release()
		}
	}
	// The node's clock differs from the client's by a delay: a second of slack.
	want, _, _ := count(b.Bytes(), "-", from+1e9, to-1e9)
	got, _, _ := count(nil, kept, from+1e9, to-1e9)
	all, first, last := count(nil, kept, 0, 1<<62)
	if got != want || want == 0 || first < from-1e9 || last > to+15e9 {
		t.Errorf("%d of %d packets kept in the time that was asked for, %d in all, from %v to %v", got, want, all,
			time.Duration(first-samples.Epoch), time.Duration(last-samples.Epoch))
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	code, out, errs = runLive(t, b.Bytes(), "watch", "-", "--exit-on", "partial_outage")
	if code != exitThreshold || !strings.Contains(out, "CONFIRMED #1") || !strings.Contains(errs, "--exit-on") {
		t.Errorf("--exit-on: exit %d, %s, %s", code, out, errs)
	}
}

// TestTrapReachesBack: a storm that was confirmed eight minutes after its onset
// is kept from a minute before it, and until the time after its end; without
// room for that, it is said.
func TestTrapReachesBack(t *testing.T) {
	for _, bytes := range []int{16 << 20, 2 << 20} {
		dir := t.TempDir()
		w, err := capture.NewRing(filepath.Join(dir, "kept.pcapng"), capture.RingOptions{})
		if err != nil {
			t.Fatal(err)
		}
		said := ""
		trap := newTrap(storm.RetryStorm, time.Minute, 5*time.Second, 10*time.Minute, bytes, w, func(format string, args ...any) { said += fmt.Sprintf(format, args...) })
		const from, onset, confirmed, end = int64(1000e9), int64(1500e9), int64(1980e9), int64(2100e9)
		for at := from; at < end+60e9; at += 1e9 / 8 {
			trap.packet(&capture.Packet{Time: at, Data: make([]byte, 700), OrigLen: 700, Link: capture.LinkEthernet})
			s := pipeline.Sighting{Sight: pipeline.Confirmed, Finding: storm.Finding{Class: storm.RetryStorm, Onset: onset}}
			if at < onset+15e9 || at%1e9 != 0 {
				continue
			}
			switch {
			case at < confirmed:
				s.Sight = pipeline.Provisional
			case at >= end:
				s.Sight, s.Finding.End = pipeline.Ended, end
			}
			if err := trap.look(&pipeline.Look{Time: at, Findings: []pipeline.Sighting{s}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		packets, _ := packetsIn(t, filepath.Join(dir, "kept.pcapng"))
		first, last := packets[0].Time, packets[len(packets)-1].Time
		if whole := first == onset-60e9; whole == strings.Contains(said, "reaches back to") || !whole && bytes > 8<<20 || last != end+5e9-1e9/8 {
			t.Errorf("%d MiB: kept from %v before the onset to %v after the end; %s", bytes>>20, time.Duration(onset-first), time.Duration(last-end), said)
		}
	}
}

func TestLiveRefused(t *testing.T) {
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"-i INTERFACE", []string{"watch"}},
		{"-i INTERFACE", []string{"watch", "-i", "lo", "-"}},
		{"no such class", []string{"watch", "-", "--exit-on", "hurricane"}},
		{"needs -w", []string{"watch", "-", "--trigger", "retry_storm"}},
		{"loopback", []string{"watch", "-", "--metrics", "0.0.0.0:9753"}},
		{"loopback", []string{"watch", "-", "--metrics", "9753"}},
		{"--on-finding", []string{"watch", "-", "--on-finding", "/no/such/command"}},
		{"text or jsonl", []string{"watch", "-", "-T", "xml"}},
		{"column 5", []string{"watch", "-", "-f", "tcp nonsense"}},
		{"-w FILE", []string{"capture", "-i", "lo"}},
		{"-i INTERFACE", []string{"capture", "-w", "x.pcapng"}},
		{"there are filesize", []string{"capture", "-i", "lo", "-w", "x.pcapng", "-b", "size:5"}},
		{"opposites", []string{"capture", "-i", "lo", "-w", "x.pcapng", "-p", "--promiscuous"}},
		{"host or adapter", []string{"capture", "-i", "lo", "-w", "x.pcapng", "--time-stamp-type", "sundial"}},
		{"squall watch -i lo --trigger", []string{"capture", "-i", "lo", "-w", "x.pcapng", "--trigger", "retry_storm"}},
		{"column 1", []string{"capture", "-i", "lo", "-w", "x.pcapng", "-f", "gateway x"}},
	} {
		code, _, errs := runLive(t, nil, tc.args...)
		if code != exitUsage && code != exitFailed || !strings.Contains(errs, tc.want) {
			t.Errorf("%v: exit %d, %s, want %q", tc.args, code, errs, tc.want)
		}
	}
}

// TestConfined: behind confine there is no root, no capability and no way out:
// what a broken parser could be made to do fails. It runs in a process of its
// own, which is the same test once more.
func TestConfined(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("needs Linux on amd64 or arm64, where the sandbox is")
	}
	if os.Getenv("SQUALL_ESCAPE") == "" {
		defer func() { // what the process inside may not remove
			left, _ := filepath.Glob("/tmp/squall-confined-*")
			for _, dir := range left {
				os.Remove(dir)
			}
		}()
		for _, files := range []string{"no", "yes"} {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestConfined$", "-test.v")
			cmd.Env = append(os.Environ(), "SQUALL_ESCAPE="+files)
			if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
				t.Errorf("files %s: %v\n%s", files, err, out)
			}
		}
		return
	}
	files := os.Getenv("SQUALL_ESCAPE") == "yes"
	who, err := becomeWho("")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := ""
	var ring *capture.Ring
	if files {
		if dir, err = os.MkdirTemp("/tmp", "squall-confined-"); err != nil { // one that nobody may reach
			t.Fatal(err)
		}
		os.Chmod(dir, 0o777)
		if ring, err = capture.NewRing(filepath.Join(dir, "ring.pcapng"), capture.RingOptions{Packets: 1, Files: 2}); err != nil {
			t.Fatal(err)
		}
	}
	note, err := who.confine(dir)
	if err != nil {
		t.Fatal(err)
	}
	lands := !strings.Contains(note, "Landlock") // an older kernel, or a build with cgo
	if note != "" && lands {
		t.Skipf("needs a kernel with CONFIG_SECCOMP_FILTER, as those of all distributions: %s", note)
	}
	status := map[string]string{}
	for s := bufio.NewScanner(before); s.Scan(); {
		k, v, _ := strings.Cut(s.Text(), ":")
		status[k] = strings.TrimSpace(v)
	}
	if strings.HasPrefix(status["Uid"], "0\t") || status["CapEff"] != "0000000000000000" || status["CapPrm"] != "0000000000000000" ||
		status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" {
		t.Errorf("%v", status)
	}
	tries := map[string]func() error{
		"run a program":    func() error { return exec.Command("/bin/true").Run() },
		"connect":          func() error { _, err := net.DialTimeout("tcp", "127.0.0.1:1", time.Second); return notRefused(err) },
		"listen":           func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err },
		"signal a parent":  func() error { p, _ := os.FindProcess(os.Getppid()); return p.Signal(os.Kill) },
		"make a link":      func() error { return os.Symlink("/etc/passwd", "/tmp/squall-escape") },
		"read a file":      func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"read itself":      func() error { _, err := os.ReadFile("/proc/self/environ"); return err },
		"list a directory": func() error { _, err := os.ReadDir("/"); return err },
		"write a file":     func() error { return os.WriteFile("/tmp/squall-escape", nil, 0o600) },
		"remove a file":    func() error { return os.Remove("/tmp/squall-escape") },
	}
	for what, try := range tries {
		if files && !lands && (strings.Contains(what, "file") || strings.Contains(what, "read") || strings.Contains(what, "list")) {
			continue
		}
		if try() == nil {
			t.Errorf("a confined process could %s", what)
		}
	}
	if files {
		for i := range int64(5) {
			if err := ring.WritePacket(&capture.Packet{Time: i * 1e9, Data: make([]byte, 60), OrigLen: 60, Link: capture.LinkEthernet}, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := ring.Close(); err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadDir(dir)
		if err != nil || len(list) != 2 {
			t.Errorf("%v, %v", list, err)
		}
		for _, e := range list {
			os.Remove(filepath.Join(dir, e.Name()))
		}
		defer func() {
			if os.Remove(dir) == nil {
				t.Error("a confined process could remove its directory")
			}
		}()
	}
	// What it needs still works: memory, threads, pipes, waiting.
	done := make(chan int)
	for i := range 20 {
		go func() {
			b := make([]byte, 1<<20)
			time.Sleep(time.Millisecond)
			done <- len(b) + i
		}()
	}
	for range 20 {
		<-done
	}
	fmt.Fprintln(in, "through")
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "through\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// notRefused hides the answer of the network: to get one is to be out.
func notRefused(err error) error {
	if err != nil && strings.Contains(err.Error(), "refused") {
		return nil
	}
	return err
}
