package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAnonymousCase: packets, tables, page and events of a case are made under one
// key; the numbers stand, and nothing of the original or of the key is left.
func TestAnonymousCase(t *testing.T) {
	file := sampled(t, "outage")
	dir := t.TempDir()
	key, kept := filepath.Join(dir, "key"), filepath.Join(dir, "case")
	secret := []byte("correct horse battery staple 17")
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	code, text, errs := squall(nil, "analyze", file, "--anonymize", key, "-o", kept)
	if code != 0 || !strings.Contains(errs, " 0 original addresses left") {
		t.Fatalf("exit %d: %s", code, errs)
	}
	numbers := func(path string) string {
		var m struct {
			Totals  map[string]any
			Verdict map[string]any
		}
		code, out, errs := squall(nil, "analyze", "-q", "-T", "json", path)
		if code != 0 {
			t.Fatal(errs)
		}
		if err := json.Unmarshal([]byte(out), &m); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(m.Totals, m.Verdict["class"], m.Verdict["onset"], m.Verdict["attempts"], m.Verdict["clients"])
	}
	if got, want := numbers(filepath.Join(kept, "packets.pcapng")), numbers(file); got != want {
		t.Errorf("anonymous: %s\noriginal:  %s", got, want)
	}
	// The same mapping as extract's.
	part := filepath.Join(dir, "part.pcapng")
	if code, _, errs := squall(nil, "extract", "-q", file, "--where", "true", "--anonymize", key, "-w", part); code != 0 {
		t.Fatal(errs)
	}
	a, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(kept, "packets.pcapng")); err != nil || !bytes.Equal(a, b) {
		t.Error("extract maps otherwise")
	}
	all := []byte(text)
	for _, args := range [][]string{{"events", kept}, {"sources", kept}, {"explain", kept}, {"report", "attempts", kept}, {"report", "clients", kept}} {
		code, out, errs := squall(nil, append(args, "-q")...)
		if code != 0 {
			t.Fatalf("%v: exit %d: %s", args, code, errs)
		}
		all = append(all, out...)
	}
	entries, err := os.ReadDir(kept)
	if err != nil || len(entries) < 15 {
		t.Fatal(err, len(entries))
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(kept, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for _, word := range []string{string(secret), key, file} {
		if bytes.Contains(all, []byte(word)) {
			t.Errorf("%q is in what was kept", word)
		}
	}
	// The addresses of the sample: nodes in 198.51.100.0/24, clients in 10.1.0.0/16.
	if m := regexp.MustCompile(`\b(198\.51\.100\.\d+|10\.1\.0\.\d+)\b`).Find(all); m != nil {
		t.Errorf("%s is in what was kept", m)
	}
	if code, out, _ := squall(nil, "verify", kept); code != 0 {
		t.Errorf("verify: exit %d\n%s", code, out)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"analyze", file, "--anonymize", key}, "-o DIR"},
		{[]string{"analyze", "-", "--anonymize", key, "-o", kept}, "three times"},
		{[]string{"analyze", "a=" + file, "--anonymize", key, "-o", kept}, "one tap"},
		{[]string{"analyze", file, "--anonymize", file + "x", "-o", kept}, "no such file"},
	} {
		if code, _, errs := squall(nil, c.args...); code != 2 || !strings.Contains(errs, c.says) {
			t.Errorf("%v: exit %d: %s", c.args, code, errs)
		}
	}
}
