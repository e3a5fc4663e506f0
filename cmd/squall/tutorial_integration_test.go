//go:build integration && linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLiveTutorial runs the tutorial to its end as it is printed, on the loopback of
// a namespace: the test nodes in the background, then the replay against them, then the
// comparison. Takes two minutes. TestDocs runs its other commands.
func TestLiveTutorial(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	page, err := os.ReadFile("../../docs/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	_, live, ok := strings.Cut(string(page), "```\nsquall testnode ")
	live, _, ends := strings.Cut("squall testnode "+live, "```")
	if !ok || !ends {
		t.Fatal("the tutorial starts no test nodes")
	}
	live = strings.ReplaceAll(live, "\\\n", "")
	lines := strings.Split(strings.TrimSpace(live), "\n")
	if len(lines) != 3 {
		t.Fatalf("the tutorial runs %q; want the nodes, the replay, the comparison", lines)
	}
	dir, err := os.MkdirTemp("/tmp", "squall-tutorial-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777)
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "squall"), []byte("#!/bin/sh\nSQUALL_AS_COMMAND=1 exec '"+os.Args[0]+"' \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	command := func(line string) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "NO_COLOR=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out := &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		return cmd, out
	}
	for _, block := range consoleBlock.FindAllStringSubmatch(string(page), -1) {
		for _, line := range strings.Split(block[1], "\n") {
			if line, ok := strings.CutPrefix(line, "$ "); ok {
				if cmd, out := command(line); cmd.Run() != nil {
					t.Fatalf("%s:\n%s", line, out)
				}
			}
		}
	}
	nodes, said := command(lines[0])
	if err := nodes.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		syscall.Kill(-nodes.Process.Pid, syscall.SIGTERM)
		nodes.Wait()
		if t.Failed() {
			t.Logf("the nodes:\n%s", said)
		}
	}()
	time.Sleep(2 * time.Second) // a reader takes longer to the other terminal
	replay, out := command(lines[1])
	if err := replay.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", lines[1], err, out)
	}
	t.Logf("%s", out)
	code, again, errs := squall(nil, "analyze", "-q", filepath.Join(dir, "again"))
	if code != 0 || !strings.Contains(again, "gnutella/supernode") {
		t.Errorf("exit %d: %s%s", code, again, errs)
	}
	compare, out := command(lines[2])
	if err := compare.Run(); err != nil {
		if compare.ProcessState.ExitCode() != exitThreshold {
			t.Fatalf("%s: %v\n%s", lines[2], err, out)
		}
	}
	t.Logf("%s", out)
	// Whether two lost nodes make a storm of it depends on the machine; that they hurt from
	// the trigger on does not.
	if !regexp.MustCompile(`again: .* gnutella/supernode from 16:0[23]:`).MatchString(out.String()) {
		t.Errorf("nothing befell the nodes at the trigger; the comparison says\n%s", out)
	}
}
