package main

import (
	"encoding/csv"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
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
	recount(t, rows, 10)
	claims(t, rows, 4)
}

// claims: a line that says a number in words is recounted by it.
func claims(t *testing.T, rows []map[string]string, least int) {
	t.Helper()
	n := 0
	for _, r := range rows {
		_, words, ok := strings.Cut(r["what"], "; ")
		if !ok {
			continue
		}
		if n++; !strings.HasPrefix(words, r["number"]+" attempts") || r["unit"] != "attempts in the capture" {
			t.Errorf("%s is not what is counted: %v", words, r["number"])
		}
	}
	if n < least {
		t.Errorf("%d lines claim a number", n)
	}
}

// TestEventsOverUDP: n2n, whose attempts have no SYN, and three taps that see
// packets twice, by clocks that were set right.
func TestEventsOverUDP(t *testing.T) {
	if testing.Short() {
		t.Skip("needs tshark for each line, which takes long under the race detector: run it without -short")
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"sample", "s1", "--clients", "60", "--nodes", "3", "--protocol", "n2n", "-w", filepath.Join(dir, "n2n.pcap")},
		{"sample", "s1", "--clients", "60", "--nodes", "4", "--taps", "-w", dir},
	} {
		if code, _, errs := squall(nil, args...); code != 0 {
			t.Fatal(errs)
		}
	}
	rows := table(t, "events", filepath.Join(dir, "n2n.pcap"))
	claims(t, rows, 1)
	recount(t, rows, 5)
	// More attempts than a filter names: the first of them.
	many := filepath.Join(dir, "many.pcap")
	if code, _, errs := squall(nil, "sample", "s1", "--clients", "300", "--nodes", "3", "--protocol", "n2n", "-w", many); code != 0 {
		t.Fatal(errs)
	}
	rows = table(t, "events", many, "--where", `unit == "first attempts in the capture"`)
	for i := range rows {
		if rows[i]["time"] = ""; rows[i]["number"] != "4096" { // the frame is that of the end
			t.Errorf("%.300v", rows[i])
		}
	}
	recount(t, rows[:min(1, len(rows))], 1) // tshark compares every frame with each of 4096
	rows = table(t, "events", "east="+filepath.Join(dir, "east.pcapng"), "west="+filepath.Join(dir, "west.pcapng"), "branch="+filepath.Join(dir, "branch.pcapng"))
	for i := range rows { // tshark shows the time of the tap's own clock
		rows[i]["time"] = ""
	}
	recount(t, rows, 10)
}

// recount runs the filter of every line in tshark.
func recount(t *testing.T, rows []map[string]string, least int) {
	t.Helper()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("needs tshark to count the frames again (Debian: apt-get install tshark)")
	}
	if len(rows) < least {
		t.Errorf("%d lines", len(rows))
	}
	of := map[string][]map[string]string{}
	for _, r := range rows {
		if r["filter"] == "" || r["frame"] == "" {
			t.Errorf("nothing recounts %v", r)
			continue
		}
		of[r["capture_file"]] = append(of[r["capture_file"]], r)
	}
	for file, all := range of { // all filters of a file in one run: frames and bytes of each
		stat := "io,stat,0"
		var lines []map[string]string
		sets := 0
		for _, r := range all {
			if !strings.Contains(r["filter"], ",") {
				stat += "," + r["filter"]
				lines = append(lines, r)
				continue
			}
			if sets++; sets > 2 && testing.Short() {
				continue // each is a run of its own: a comma would end it there
			}
			last := strings.TrimSuffix(r["filter"][strings.LastIndexByte(r["filter"], ' ')+1:], "}") // of the frames it names
			out, err := exec.Command(tshark, "-n", "-r", file, "-c", last, "-Y", r["filter"], "-T", "fields", "-e", "frame.number").Output()
			if n := strconv.Itoa(strings.Count(string(out), "\n")); err != nil || n != r["number"] {
				t.Errorf("%s: %s frames, %v: %.300v", r["what"], n, err, r)
			}
		}
		out, err := exec.Command(tshark, "-n", "-q", "-r", file, "-z", stat).Output()
		_, counts, ok := strings.Cut(string(out), "<>")
		cells := strings.Split(counts, "|")
		if err != nil || !ok || len(cells) < 1+2*len(lines) {
			t.Fatalf("%v: %s", err, out)
		}
		for i, r := range lines {
			if n := strings.TrimSpace(cells[1+2*i]); n != r["number"] {
				t.Errorf("%s: %s frames: %v", r["what"], n, r)
			}
		}
		at := map[string]time.Time{} // of each frame
		out, err = exec.Command(tshark, "-n", "-r", file, "-T", "fields", "-e", "frame.number", "-e", "frame.time_epoch").Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			frame, epoch, _ := strings.Cut(strings.TrimSpace(line), "\t")
			seconds, nanos, _ := strings.Cut(epoch, ".")
			sec, _ := strconv.ParseInt(seconds, 10, 64)
			ns, _ := strconv.ParseInt(nanos, 10, 64)
			at[frame] = time.Unix(sec, ns)
		}
		for _, r := range all { // overloads are told to the second
			if r["time"] == "" {
				continue
			}
			when, err := time.Parse(time.RFC3339Nano, r["time"])
			if off := at[r["frame"]].Sub(when); err != nil || off.Abs() > 2*time.Second {
				t.Errorf("frame %s is %v from what it shows: %v", r["frame"], off, r)
			}
		}
	}
}

// TestEventsRecounted: a storm that moved from node to node, in rotated files, read
// from a kept case: every line has a filter, and tshark counts what it says.
func TestEventsRecounted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s1.pcap")
	if code, _, errs := squall(nil, "sample", "s1", "--clients", "60", "--nodes", "4", "-w", file); code != 0 {
		t.Fatal(errs)
	}
	kept := filepath.Join(t.TempDir(), "kept")
	if code, _, errs := squall(nil, append([]string{"analyze", "-q", "-o", kept}, rotated(t, file, 5, ".pcapng.gz")...)...); code != 0 {
		t.Fatal(errs)
	}
	rows := table(t, "events", kept)
	recount(t, rows, 15)
	// The attempts of a spell are counted, not only shown: by their SYNs.
	counted := 0
	for _, r := range rows {
		if n, _ := strconv.Atoi(r["number"]); r["unit"] == "attempts in the capture" && n > 20 && strings.Contains(r["filter"], "tcp.flags.syn") {
			counted++
		}
	}
	if counted == 0 {
		t.Error("no line counts attempts")
	}
	if !testing.Short() {
		recount(t, table(t, "events", file), 5)
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
		if code, out, errs := squall(nil, "sources", outage, "-q", "-T", format); code != 0 || strings.Contains(out, "10.1.") || strings.Contains(out, "[]") {
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
		Objects []struct{ Type, Pattern, ID, Created, Modified string }
	}
	if err := json.Unmarshal([]byte(out), &bundle); code != 0 || err != nil || bundle.Type != "bundle" || len(bundle.Objects) != 3 || !strings.HasPrefix(bundle.Objects[0].Pattern, "[ipv4-addr:value = '") {
		t.Errorf("exit %d, %v: %s%s", code, err, errs, out)
	}
	// Patterns as in the JSON schemas of OASIS: common/identifier, common/timestamp.
	id := regexp.MustCompile(`^(bundle|indicator)--[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	when := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	for _, o := range bundle.Objects {
		if !id.MatchString(o.ID) || !when.MatchString(o.Created) || o.Modified < o.Created {
			t.Errorf("%+v", o)
		}
	}
	flood := sampled(t, "n2")
	if n := roles(flood); n["attacker"] < 1000 || n["retrying_victim"] > n["client"] {
		t.Errorf("n2: %v", n)
	}
}

// TestOffenderEvents: of one client its own attempts are counted, and what explain
// shows is its own, too.
func TestOffenderEvents(t *testing.T) {
	file := filepath.Join(t.TempDir(), "n4.pcap")
	if code, _, errs := squall(nil, "sample", "n4", "-w", file, "--duration", "2m"); code != 0 {
		t.Fatal(errs)
	}
	rows := table(t, "events", file)
	if w := rows[1]["what"]; w != "single offender begins; 10 attempts of 10.250.0.1 in its first 10 s" {
		t.Error(w)
	}
	recount(t, rows, 3)
	_, out, _ := squall(nil, "explain", file)
	if !strings.Contains(out, "all that the client said and heard meanwhile") || strings.Contains(out, "the last that was accepted before") {
		t.Error(out)
	}
}
