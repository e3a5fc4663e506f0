package main

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func sampled(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".pcap")
	if code, _, errs := squall(nil, "sample", name, "-w", file); code != 0 {
		t.Fatal(errs)
	}
	return file
}

// zeekTypes is conn.log as Zeek documents it (base/protocols/conn/main.zeek),
// and the fields of ours behind it.
var zeekTypes = map[string]string{"ts": "time", "uid": "string", "id.orig_h": "addr", "id.orig_p": "port", "id.resp_h": "addr", "id.resp_p": "port", "proto": "enum",
	"service": "string", "duration": "interval", "orig_bytes": "count", "resp_bytes": "count", "conn_state": "string", "local_orig": "bool", "local_resp": "bool",
	"missed_bytes": "count", "history": "string", "orig_pkts": "count", "orig_ip_bytes": "count", "resp_pkts": "count", "resp_ip_bytes": "count",
	"tunnel_parents": "set[string]", "community_id": "string", "vlan": "int",
	"attempt_outcome": "string", "relation": "string", "intent_id": "string", "client_id": "string"}

// TestZeek: each line has each field, of its type, and the state agrees with
// the outcome as far as Zeek has words for it.
func TestZeek(t *testing.T) {
	file := sampled(t, "outage")
	code, out, errs := squall(nil, "report", "attempts", file, "-T", "zeek", "-q")
	if code != 0 {
		t.Fatal(errs)
	}
	var fields, types []string
	lines, states := 0, map[string]int{}
	for line := range strings.Lines(out) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		switch {
		case cells[0] == "#fields":
			fields = cells[1:]
		case cells[0] == "#types":
			types = cells[1:]
		case strings.HasPrefix(line, "#"):
		default:
			lines++
			if len(cells) != len(fields) {
				t.Fatalf("%d cells of %d fields: %s", len(cells), len(fields), line)
			}
			for i, c := range cells {
				var err error
				switch v := types[i]; {
				case c == "-":
				case v == "count" || v == "port" || v == "int":
					_, err = strconv.ParseUint(c, 10, 64)
				case v == "time" || v == "interval":
					_, err = strconv.ParseFloat(c, 64)
				case v == "addr":
					_, err = netip.ParseAddr(c)
				}
				if err != nil || zeekTypes[fields[i]] != types[i] {
					t.Fatalf("%s %s: %q: %v", fields[i], types[i], c, err)
				}
			}
			states[cells[slices.Index(fields, "conn_state")]+" "+cells[slices.Index(fields, "attempt_outcome")]]++
		}
	}
	if lines < 1000 || len(fields) != len(zeekTypes) {
		t.Errorf("%d lines of %d fields", lines, len(fields))
	}
	for s := range states {
		if !slices.Contains([]string{"SF accepted", "S0 refused", "S0 timeout", "SF refused", "S0 unknown"}, s) {
			t.Errorf("state and outcome %s", s)
		}
	}
	if code, _, errs := squall(nil, "report", "nodes", file, "-T", "zeek"); code != 1 || !strings.Contains(errs, "conn.log is made of whole attempts") {
		t.Errorf("nodes as conn.log: exit %d, %s", code, errs)
	}
}

// ecsFields are the fields of ECS 8.11 that a document may have, with the JSON
// type of each.
var ecsFields = map[string]string{"@timestamp": "string", "ecs.version": "string", "event.kind": "string", "event.category": "array", "event.type": "array",
	"event.id": "string", "event.dataset": "string", "event.start": "string", "event.end": "string", "event.duration": "number", "event.outcome": "string",
	"source.ip": "string", "source.port": "number", "source.packets": "number", "source.bytes": "number",
	"destination.ip": "string", "destination.port": "number", "destination.packets": "number", "destination.bytes": "number",
	"network.transport": "string", "network.type": "string", "network.protocol": "string", "network.community_id": "string", "network.vlan.id": "number"}

// TestECS: nothing outside "squall" that ECS does not have.
func TestECS(t *testing.T) {
	code, out, errs := squall(nil, "report", "attempts", sampled(t, "outage"), "-T", "ecs", "-q", "--limit", "500")
	if code != 0 {
		t.Fatal(errs)
	}
	n := 0
	for line := range strings.Lines(out) {
		n++
		var doc map[string]any
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if _, ok := doc["squall"]; !ok {
			t.Fatalf("no squall: %s", line)
		}
		delete(doc, "squall")
		var walk func(path string, v any)
		walk = func(path string, v any) {
			kind := ""
			switch v := v.(type) {
			case map[string]any:
				for k, w := range v {
					walk(strings.TrimPrefix(path+"."+k, "."), w)
				}
				return
			case string:
				kind = "string"
			case float64:
				kind = "number"
			case []any:
				kind = "array"
			}
			if ecsFields[path] != kind {
				t.Fatalf("%s is %q, ECS has %q: %s", path, kind, ecsFields[path], line)
			}
		}
		walk("", doc)
	}
	if n != 500 {
		t.Errorf("%d documents", n)
	}
}

// TestPrometheus: by promtool where it is, and by the grammar anyway.
func TestPrometheus(t *testing.T) {
	code, out, errs := squall(nil, "analyze", sampled(t, "outage"), "-T", "prometheus", "-q")
	if code != 0 {
		t.Fatal(errs)
	}
	seen := checkMetrics(t, out)
	if !seen["squall_amplification_ratio"] || len(seen) < 40 {
		t.Errorf("%d samples", len(seen))
	}
}

// TestKeptTakesNoCaptureFlags: what a kept analysis cannot do is said, not left out.
func TestKeptTakesNoCaptureFlags(t *testing.T) {
	kept := filepath.Join(t.TempDir(), "kept")
	if code, _, errs := squall(nil, "analyze", sampled(t, "outage"), "-q", "-o", kept); code != 0 {
		t.Fatal(errs)
	}
	for _, args := range [][]string{{"report", "attempts", kept, "-f", "udp"}, {"explain", kept, "--after", "10s"}, {"report", "timeline", kept, "--hints", "", "--keep-duplicates"}} {
		if code, out, errs := squall(nil, args...); code != exitUsage || !strings.Contains(errs, "is for captures") {
			t.Errorf("%v: exit %d: %s%s", args, code, out, errs)
		}
	}
}
