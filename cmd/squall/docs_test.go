package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated pages anew")

var consoleBlock = regexp.MustCompile("(?s)```console\n(.*?)```")

// TestDocs: every console block of the documents runs as it stands, one page in
// one directory, and gives what the page shows; -update writes what it gives.
func TestDocs(t *testing.T) {
	slow(t)
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a POSIX shell, sh, in the path (Windows: that of Git or MSYS2)")
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../../README.md")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	script := "#!/bin/sh\nSQUALL_AS_COMMAND=1 exec '" + self + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "squall"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for _, page := range pages {
		name := filepath.Base(page)
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for _, block := range consoleBlock.FindAllSubmatch(b, -1) {
			command, want, shown := "", "", false
			check := func() {
				if command == "" {
					return
				}
				ran[name]++
				run := exec.Command(sh, "-c", strings.ReplaceAll(command, "go run ./cmd/squall", "squall"))
				run.Dir = dir
				run.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "NO_COLOR=1")
				var out, errs bytes.Buffer
				run.Stdout, run.Stderr = &out, &errs
				if err := run.Run(); err != nil {
					t.Errorf("%s: %s: %v\n%s", name, command, err, errs.String())
				} else if shown && *update {
					if old := "$ " + command + "\n" + want; bytes.Contains(b, []byte(old)) {
						b = bytes.Replace(b, []byte(old), []byte("$ "+command+"\n"+strings.TrimRight(out.String(), "\n")+"\n"), 1)
					}
				} else if shown && strings.TrimRight(out.String(), "\n") != strings.TrimRight(want, "\n") {
					t.Errorf("%s shows\n%sbut %s gives\n%s", name, want, command, out.String())
				}
			}
			for _, line := range strings.Split(strings.TrimRight(string(block[1]), "\n"), "\n") {
				if next, ok := strings.CutPrefix(line, "$ "); ok {
					check()
					command, want, shown = next, "", false
				} else if strings.HasSuffix(command, "\\") && !shown {
					command = strings.TrimSuffix(command, "\\") + line
				} else {
					want, shown = want+line+"\n", true
				}
			}
			check()
		}
		if *update {
			if err := os.WriteFile(page, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ran["README.md"] < 2 || ran["cookbook.md"] < 8 {
		t.Errorf("commands that ran: %v", ran)
	}
}

// TestReference: docs/commands.md is what the commands say.
func TestReferencePage(t *testing.T) {
	var b bytes.Buffer
	if err := writeReference(&b); err != nil {
		t.Fatal(err)
	}
	const path = "../../docs/commands.md"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what the commands say (%v); make golden writes it anew", path, err)
	}
}

func TestManual(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if code, _, errs := squall(nil, "man", dir); code != 0 {
		t.Fatal(errs)
	}
	for _, name := range []string{"squall.1", "squall-analyze.1", "squall-extract.1"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(b, []byte(".SH SYNOPSIS")) {
			t.Errorf("%s: %v", name, err)
		}
		if mandoc, err := exec.LookPath("mandoc"); err == nil {
			if out, err := exec.Command(mandoc, "-T", "lint", "-W", "error", filepath.Join(dir, name)).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
}
