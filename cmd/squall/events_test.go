package main

import (
	"encoding/csv"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func table(t *testing.T, args ...string) []map[string]string {
	t.Helper()
	code, out, errs := squall(nil, append(args, "-T", "csv", "-q")...)
	if code != 0 {
		t.Fatalf("%v: exit %d: %s", args, code, errs)
	}
	all, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	for _, r := range all[1:] {
		row := map[string]string{}
		for i, c := range r {
			row[all[0][i]] = c
		}
		rows = append(rows, row)
	}
	return rows
}

// TestEvents: in order, with the fall and the return of every node, and every
// filter leaves as many frames as the line says.
func TestEvents(t *testing.T) {
	file := sampled(t, "outage")
	rows := table(t, "events", file)
	words, last := "", ""
	for _, r := range rows {
		if r["time"] < last {
			t.Errorf("%s after %s", r["time"], last)
		}
		last = r["time"]
		words += r["what"] + "\n"
	}
	for _, want := range []string{"capture begins", "retry storm", "198.51.100.1:5060 is down", "198.51.100.3:5060 is no longer down", "capture ends"} {
		if !strings.Contains(words, want) {
			t.Errorf("nothing says %q in\n%s", want, words)
		}
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("needs tshark to count the frames again (Debian: apt-get install tshark)")
	}
	counted := 0
	for _, r := range rows {
		if r["filter"] == "" {
			continue
		}
		out, err := exec.Command(tshark, "-n", "-r", file, "-Y", r["filter"], "-T", "fields", "-e", "frame.number").Output()
		if n := strings.Count(string(out), "\n"); err != nil || strconv.Itoa(n) != r["number"] {
			t.Errorf("%s: %d frames, %v: %v", r["what"], n, err, r)
		}
		counted++
	}
	if counted < 5 {
		t.Errorf("%d filters", counted)
	}
}

// TestSources: victims of an outage are victims, sources of a flood attackers,
// and exports hold no victim.
func TestSources(t *testing.T) {
	roles := func(file string) map[string]int {
		n := map[string]int{}
		for _, r := range table(t, "sources", file) {
			n[r["role"]]++
		}
		return n
	}
	outage := sampled(t, "outage")
	if n := roles(outage); n["retrying_victim"] != 60 || len(n) != 1 {
		t.Errorf("outage: %v", n)
	}
	for _, format := range []string{"nft", "stix"} {
		if code, out, errs := squall(nil, "sources", outage, "-q", "-T", format); code != 0 || strings.Contains(out, "10.1.") {
			t.Errorf("exit %d: %s%s", code, errs, out)
		}
	}
	kept := filepath.Join(t.TempDir(), "kept")
	if code, _, errs := squall(nil, "analyze", "-q", outage, "-o", kept); code != 0 {
		t.Fatal(errs)
	}
	if n := roles(kept); n["retrying_victim"] != 60 {
		t.Errorf("kept: %v", n)
	}
	if testing.Short() {
		return
	}
	scan := sampled(t, "n3")
	if n := roles(scan); n["scanner"] != 3 || n["attacker"] != 0 {
		t.Errorf("n3: %v", n)
	}
	code, out, errs := squall(nil, "sources", scan, "-q", "-T", "stix")
	var bundle struct {
		Type    string
		Objects []struct{ Type, Pattern, ID string }
	}
	if err := json.Unmarshal([]byte(out), &bundle); code != 0 || err != nil || bundle.Type != "bundle" || len(bundle.Objects) != 3 || !strings.HasPrefix(bundle.Objects[0].Pattern, "[ipv4-addr:value = '") {
		t.Errorf("exit %d, %v: %s%s", code, err, errs, out)
	}
	flood := sampled(t, "n2")
	if n := roles(flood); n["attacker"] < 1000 || n["retrying_victim"] > n["client"] {
		t.Errorf("n2: %v", n)
	}
}
