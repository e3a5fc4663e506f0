package main

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"

	"squall/dissect/overlay"
)

func TestProtocols(t *testing.T) {
	code, out, errs := squall(nil, "protocols")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	all := overlay.All()
	if len(lines) != len(all)+1 {
		t.Fatalf("%d lines for %d protocols", len(lines), len(all))
	}
	for i, p := range all {
		if f := strings.Fields(lines[i+1]); f[0] != p.Name() || len(f) < 4 {
			t.Errorf("line %d is %q, want %s", i+1, lines[i+1], p.Name())
		}
	}
	const hints = "../../dissect/overlay/testdata/honeycomb.yaml"
	code, out, errs = squall(nil, "protocols", "--hints", hints, "--limit", "1", "-T", "json")
	var rows []map[string]any
	if code != 0 || json.Unmarshal([]byte(out), &rows) != nil || len(rows) != 1 || rows[0]["network_protocol"] != "honeycomb" || rows[0]["signature"] != true || rows[0]["confidence"] != "strong" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	code, out, _ = squall(nil, "protocols", "-T", "csv", "--where", `network_protocol == "ares"`)
	if table, err := csv.NewReader(strings.NewReader(out)).ReadAll(); code != 0 || err != nil || len(table) != 2 || table[1][0] != "ares" {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	if code, out, _ = squall(nil, "protocols", "-T", "markdown"); code != 0 || !strings.Contains(out, "| sip ") {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, args := range [][]string{{"protocols", "-T", "yaml"}, {"protocols", "x"}, {"protocols", "--hints", "none.yaml"}, {"protocols", "-e", "protocol"}} {
		if code, _, errs := squall(nil, args...); code != exitUsage || errs == "" {
			t.Errorf("%v: exit %d, %q", args, code, errs)
		}
	}
}
