package main

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mapsOf gives the rows of a table as maps.
func mapsOf(t *testing.T, args ...string) (out []map[string]string) {
	t.Helper()
	text, err := runLine(t, append(args, "-T", "csv")...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = l[i]
		}
		out = append(out, row)
	}
	return out
}

// TestImpact counts the harm anew from the attempts, by another way, and by
// the groups of a file.
func TestImpact(t *testing.T) {
	dir := t.TempDir()
	pcap := filepath.Join(dir, "outage.pcap")
	if _, err := runLine(t, "sample", "outage", "-w", pcap); err != nil {
		t.Fatal(err)
	}
	attempts := mapsOf(t, "report", "attempts", pcap)
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	var end time.Time
	for _, c := range mapsOf(t, "report", "captures", pcap) {
		end = at(c["last_time"])
	}
	// Half of the clients are in one site, a quarter within it in another.
	first := attempts[0]["source_ip"]
	parts := strings.Split(first, ".")
	net := strings.Join(parts[:3], ".")
	groups := filepath.Join(dir, "groups.csv")
	if err := os.WriteFile(groups, []byte("# sites\ncidr, site, asn\n"+net+".0/27,north,AS64500\n"+net+".0/24,south,64501\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	siteOf := func(ip string) string {
		last, _ := strconv.Atoi(strings.TrimPrefix(ip, net+"."))
		switch {
		case !strings.HasPrefix(ip, net+"."):
			return ""
		case last < 32:
			return "north"
		}
		return "south"
	}
	type sum struct {
		clients, hit, never int
		locked              time.Duration
	}
	want := map[string]*sum{"": {}}
	lock, seen, site := map[string]time.Time{}, map[string]bool{}, map[string]string{}
	hit := map[string]bool{}
	of := func(c string) []*sum {
		k := "site " + site[c]
		if want[k] == nil {
			want[k] = &sum{}
		}
		return []*sum{want[""], want[k]}
	}
	for _, a := range attempts {
		c := a["client_id"]
		site[c] = siteOf(a["source_ip"])
		if !seen[c] {
			seen[c] = true
			for _, s := range of(c) {
				s.clients++
			}
		}
		from, locked := lock[c]
		switch {
		case a["relation"] == "parallel":
		case a["event_outcome"] == "success" && locked:
			for _, s := range of(c) {
				s.locked += at(a["event_end"]).Sub(from)
			}
			delete(lock, c)
		case a["event_outcome"] == "failure" && a["relation"] != "refresh":
			if !hit[c] {
				hit[c] = true
				for _, s := range of(c) {
					s.hit++
				}
			}
			if !locked {
				lock[c] = at(a["event_start"])
			}
		}
	}
	for c, from := range lock {
		for _, s := range of(c) {
			s.never++
			s.locked += end.Sub(from)
		}
	}
	rows := mapsOf(t, "report", "impact", pcap, "--groups", groups)
	found := 0
	for _, r := range rows {
		k := ""
		switch r["by"] {
		case "site":
			k = "site " + r["group"]
		case "country":
			t.Errorf("countries, though the file names none: %v", r)
		case "asn":
			continue
		}
		w := want[k]
		if w == nil {
			t.Errorf("unexpected row %v", r)
			continue
		}
		found++
		if r["clients"] != strconv.Itoa(w.clients) || r["clients_hit"] != strconv.Itoa(w.hit) || r["never_in"] != strconv.Itoa(w.never) || r["locked_out_ns"] != strconv.FormatInt(int64(w.locked), 10) {
			t.Errorf("%q: got %s clients, %s hit, %s never in, %s ns; want %+v (%d ns)", k, r["clients"], r["clients_hit"], r["never_in"], r["locked_out_ns"], *w, int64(w.locked))
		}
		p50, _ := strconv.ParseInt(r["attach_p50_ns"], 10, 64)
		p95, _ := strconv.ParseInt(r["attach_p95_ns"], 10, 64)
		p99, _ := strconv.ParseInt(r["attach_p99_ns"], 10, 64)
		if p50 <= 0 || p95 < p50 || p99 < p95 {
			t.Errorf("%q: times to attach %d, %d, %d", k, p50, p95, p99)
		}
	}
	if found != len(want) || len(want) < 3 {
		t.Errorf("%d of %d groups: %v", found, len(want), rows)
	}
	for _, a := range mapsOf(t, "report", "attempts", pcap, "--groups", groups, "--limit", "200") {
		if a["source_geo_name"] != siteOf(a["source_ip"]) {
			t.Errorf("%s is in %q, want %q", a["source_ip"], a["source_geo_name"], siteOf(a["source_ip"]))
		}
	}
	if err := os.WriteFile(groups, []byte("cidr,site\n10.0.0.0/40,x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runLine(t, "report", "impact", pcap, "--groups", groups); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a bad prefix: %v", err)
	}
}

// TestNotedEvents: what people noted stands on the same time line.
func TestNotedEvents(t *testing.T) {
	dir := t.TempDir()
	pcap, notes := filepath.Join(dir, "outage.pcap"), filepath.Join(dir, "deploys.csv")
	if _, err := runLine(t, "sample", "outage", "-w", pcap); err != nil {
		t.Fatal(err)
	}
	first := mapsOf(t, "report", "captures", pcap)[0]["first_time"]
	begin, err := time.Parse(time.RFC3339Nano, first)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(notes, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("time,text,node\n" + begin.Add(time.Minute).Format(time.RFC3339) + ",deploy 4.2,login-1\n" +
		begin.Add(90*time.Second).Format("2006-01-02 15:04:05") + ",page,\n" + strconv.FormatInt(begin.Add(2*time.Minute).Unix(), 10) + ",reboot,login-1\n")
	got := ""
	before := ""
	for _, e := range mapsOf(t, "events", pcap, "--events", notes) {
		if e["time"] < before {
			t.Errorf("%s after %s", e["time"], before)
		}
		before = e["time"]
		if e["observer_name"] == notes {
			got += e["what"] + ";"
			if e["filter"] != "" || e["capture_file"] != "" || e["frame"] != "" {
				t.Errorf("a note has a frame: %v", e)
			}
		}
	}
	if got != "deploy 4.2 (login-1);page;reboot (login-1);" {
		t.Errorf("%q", got)
	}
	for text, want := range map[string]string{"when,text\n1,2\n": "heading", "time,text\nnoon,x\n": "line 2"} {
		write(text)
		if _, err := runLine(t, "events", pcap, "--events", notes); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
