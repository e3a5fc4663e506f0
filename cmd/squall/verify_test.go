package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestVerify catches one changed byte in an input, an output, a threshold, the
// arguments, and knows a capture under another name.
func TestVerify(t *testing.T) {
	file := sampled(t, "outage")
	dir := filepath.Join(t.TempDir(), "case")
	if code, _, errs := squall(nil, "analyze", "-q", file, "-o", dir); code != 0 {
		t.Fatal(errs)
	}
	if code, out, errs := squall(nil, "verify", dir); code != 0 || strings.Contains(out, "CHANGED") || strings.Count(out, "\n") < 15 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	flip := func(path string, find, put string) (undo func()) {
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		now := bytes.Clone(was)
		if find == "" {
			now[len(now)/2] ^= 1
		} else if now = bytes.Replace(was, []byte(find), []byte(put), 1); bytes.Equal(now, was) {
			t.Fatalf("%s has no %s", path, find)
		}
		if err := os.WriteFile(path, now, 0o600); err != nil {
			t.Fatal(err)
		}
		return func() { os.WriteFile(path, was, 0o600) }
	}
	manifest := filepath.Join(dir, "manifest.json")
	for _, c := range []struct{ path, find, put, says string }{
		{file, "", "", "CHANGED  input"},
		{filepath.Join(dir, "attempts.parquet"), "", "", "CHANGED  output attempts.parquet"},
		{filepath.Join(dir, "summary.json"), "", "", "CHANGED  output summary.json"},
		{filepath.Join(dir, "report.html"), "", "", "CHANGED  output report.html"},
		{manifest, `"Value": 0.5`, `"Value": 0.4`, "CHANGED  manifest"},
		{manifest, `"arguments": [`, `"arguments": ["--keep-duplicates=true",`, "CHANGED  manifest"},
	} {
		undo := flip(c.path, c.find, c.put)
		code, out, _ := squall(nil, "verify", dir)
		undo()
		if code != 1 || !strings.Contains(out, c.says) {
			t.Errorf("%s %s: exit %d:\n%s", filepath.Base(c.path), c.find, code, out)
		}
	}
	for _, verb := range []string{"analyze", "info"} {
		if code, _, errs := squall(nil, verb, dir); code != exitUsage || !strings.Contains(errs, "squall explain "+dir) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s of what was kept: exit %d: %s", verb, code, errs)
		}
	}
	beside := filepath.Join(dir, "beside.txt")
	if err := os.WriteFile(beside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := squall(nil, "verify", dir); code != 0 || strings.Count(out, "unknown") != 1 || !strings.Contains(out, "unknown  beside.txt") {
		t.Errorf("a file more: exit %d\n%s", code, out)
	}
	moved := filepath.Join(t.TempDir(), "elsewhere.pcap")
	if err := os.Rename(file, moved); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := squall(nil, "verify", dir, moved); code != 0 {
		t.Errorf("moved: exit %d\n%s", code, out)
	}
	if code, _, errs := squall(nil, "verify", dir); code != 1 || errs == "" {
		t.Errorf("gone: exit %d %s", code, errs)
	}
	if code, _, errs := squall(nil, "verify", t.TempDir()); code != 2 || !strings.Contains(errs, "analyze -o writes it") {
		t.Errorf("no manifest: exit %d %s", code, errs)
	}
}

// TestVerifyExtract: every packet of an extract is held against the frame that it
// names, and one changed byte of either is told.
func TestVerifyExtract(t *testing.T) {
	file := sampled(t, "outage")
	dir := filepath.Join(t.TempDir(), "case")
	if code, _, errs := squall(nil, "analyze", "-q", file, "-o", dir); code != 0 {
		t.Fatal(errs)
	}
	for _, source := range []string{file, dir} {
		part := filepath.Join(t.TempDir(), "part.pcapng")
		if code, _, errs := squall(nil, "extract", source, "--finding", "1", "-w", part); code != 0 {
			t.Fatal(errs)
		}
		if code, out, errs := squall(nil, "verify", part); code != 0 || !strings.Contains(out, " 0 differ") {
			t.Fatalf("exit %d: %s%s", code, out, errs)
		}
		was, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(was, []byte("REGISTER sip"))
		if at < 0 {
			t.Fatal("no REGISTER in the extract")
		}
		now := bytes.Clone(was)
		now[at] ^= 1
		if err := os.WriteFile(part, now, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, _ := squall(nil, "verify", part); code != 1 || !strings.Contains(out, " 1 differ") {
			t.Errorf("a byte of the extract: exit %d: %s", code, out)
		}
		if err := os.WriteFile(part, was, 0o600); err != nil {
			t.Fatal(err)
		}
		moved := file + ".moved"
		if err := os.Rename(file, moved); err != nil {
			t.Fatal(err)
		}
		if code, out, _ := squall(nil, "verify", part); code != 1 || !strings.Contains(out, "CHANGED  parent") {
			t.Errorf("without its parent: exit %d: %s", code, out)
		}
		if code, out, errs := squall(nil, "verify", part, moved); code != 0 {
			t.Errorf("its parent elsewhere: exit %d: %s%s", code, out, errs)
		}
		if err := os.Rename(moved, file); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, errs := squall(nil, "verify", file); code != 2 || !strings.Contains(errs, "pcapng") {
		t.Errorf("a pcap file: exit %d %s", code, errs)
	}
}
