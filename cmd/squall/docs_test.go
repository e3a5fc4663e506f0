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

// TestManyMachines: the Slurm script and the Kubernetes job of the page run as they
// stand, with the index that the cluster would give, and their pieces are the whole.
func TestManyMachines(t *testing.T) {
	slow(t)
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a POSIX shell, sh, in the path (Windows: that of Git or MSYS2)")
	}
	page, err := os.ReadFile("../../docs/machines.md")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, sub := range []string{"bin", "captures", "pieces"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	if err := os.WriteFile(at("bin/squall"), []byte("#!/bin/sh\nSQUALL_AS_COMMAND=1 exec '"+self+"' \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	block := func(language string) string {
		m := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(page)
		if m == nil {
			t.Fatalf("no %s in the page", language)
		}
		return string(m[1])
	}
	job := block("yaml")
	command := regexp.MustCompile(`command: \["sh", "-c", "(.*)"\]`).FindStringSubmatch(job)
	if command == nil || !strings.Contains(job, "completions: 4") || !strings.Contains(block("sh"), "--array=0-3") {
		t.Fatal("the page has other commands than the test knows")
	}
	here := strings.NewReplacer("/captures/", at("captures")+"/", "/pieces/", at("pieces")+"/").Replace(command[1])
	squall(nil, "sample", "outage", "-w", at("captures/outage.pcap"))
	squall(nil, "sample", "outage", "-w", at("outage.pcap"))
	for _, tc := range []struct{ variable, script, pieces, capture string }{
		{"SLURM_ARRAY_TASK_ID", block("sh"), "slurm-", "outage.pcap"},
		{"JOB_COMPLETION_INDEX", here, "pieces/", at("captures/outage.pcap")},
	} {
		args := []string{"merge", "-o", at("joined")}
		for _, index := range []string{"0", "1", "2", "3"} {
			run := exec.Command(sh, "-c", tc.script)
			run.Dir = dir
			run.Env = append(os.Environ(), "PATH="+at("bin")+string(os.PathListSeparator)+os.Getenv("PATH"), tc.variable+"="+index)
			if out, err := run.CombinedOutput(); err != nil {
				t.Fatalf("%s=%s: %v\n%s", tc.variable, index, err, out)
			}
			args = append(args, at(tc.pieces+index))
		}
		if code, _, errs := squall(nil, args...); code != 0 {
			t.Fatal(errs)
		}
		whole := exec.Command(sh, "-c", "squall analyze '"+tc.capture+"' -q -o whole")
		whole.Dir = dir
		whole.Env = append(os.Environ(), "PATH="+at("bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
		if out, err := whole.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, name := range []string{"summary.json", "attempts.parquet", "report.html"} {
			want, _ := os.ReadFile(at("whole/" + name))
			if got, err := os.ReadFile(at("joined/" + name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %s is not that of the whole: %v", tc.variable, name, err)
			}
		}
	}
}
