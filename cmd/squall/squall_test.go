package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"squall/capture"
	"squall/reports"
	"squall/samples"
)

// told is what a command line prints that has to end well.
func told(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := squall(nil, args...)
	if code != 0 {
		t.Fatalf("%v: exit %d %s", args, code, errs)
	}
	return out
}

// squall runs a command line in this process.
func squall(stdin []byte, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, bytes.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

func TestSampleThenInfo(t *testing.T) {
	dir := t.TempDir()
	truth := filepath.Join(dir, "truth.json")
	for _, name := range []string{"o.pcapng", "o.pcap", "o.pcapng.gz", "o.pcap.zst"} {
		path := filepath.Join(dir, name)
		if code, _, errs := squall(nil, "sample", "outage", "-w", path, "--truth", truth); code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		code, out, errs := squall(nil, "info", path)
		if code != 0 || !strings.Contains(out, "packets       6196") || strings.Contains(out, "DAMAGED") || errs != "" {
			t.Errorf("%s: exit %d\n%s%s", name, code, out, errs)
		}
		for _, line := range strings.Split(out, "\n") {
			if len(line) > 80 && !strings.Contains(line, dir) {
				t.Errorf("%d columns: %s", len(line), line)
			}
		}
	}
	var facts struct {
		Packets  int64
		Attempts []struct{ Outcome string }
	}
	b, err := os.ReadFile(truth)
	if err != nil || json.Unmarshal(b, &facts) != nil || facts.Packets != 6196 || len(facts.Attempts) == 0 {
		t.Errorf("truth: %v, %d packets, %d attempts", err, facts.Packets, len(facts.Attempts))
	}
}

// TestLedgerAddsUp: all buckets together are the packets read, with a filter
// and without.
func TestLedgerAddsUp(t *testing.T) {
	_, capture, _ := squall(nil, "sample", "outage", "-w", "-")
	for _, args := range [][]string{{"info", "-T", "json", "-"}, {"info", "-T", "json", "-f", "icmp or src net 10.0.0.0/8", "-"}} {
		code, out, errs := squall([]byte(capture), args...)
		if code != 0 {
			t.Fatalf("%v: exit %d: %s", args, code, errs)
		}
		var rows []map[string]any
		if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != 1 {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		sum := 0.0
		for name, v := range rows[0] {
			if strings.HasPrefix(name, "ledger_") {
				sum += v.(float64)
			}
		}
		if sum != rows[0]["packets"].(float64) {
			t.Errorf("%v: the ledger adds up to %v of %v packets", args, sum, rows[0]["packets"])
		}
		if filtered := rows[0]["ledger_filtered"].(float64); (filtered > 0) != (len(args) > 4) {
			t.Errorf("%v: %v filtered", args, filtered)
		}
	}
}

// stormSample is one with some twenty thousand attempts, a small one with -short.
func stormSample() string {
	if testing.Short() {
		return "outage"
	}
	return "s13"
}

// but are the flags that leave a column out: where a record lies in its file is
// up to the format.
func but(table, column string) (flags []string) {
	t, _, _ := (*reports.Results)(nil).Table(table)
	for _, c := range t.Columns {
		if c.Name != column {
			flags = append(flags, "-e", c.Name)
		}
	}
	return flags
}

// TestReportIsTheSame: the rows do not depend on the format of the capture or
// the number of workers.
func TestReportIsTheSame(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	want := map[string]string{}
	kept := filepath.Join(dir, "kept")
	for _, name := range []string{"o.pcapng", "o.pcap", "o.pcapng.gz", "o.pcap.zst"} {
		path := filepath.Join(dir, name)
		if code, _, errs := squall(nil, "sample", stormSample(), "-w", path); code != 0 {
			t.Fatal(errs)
		}
		for _, j := range []string{"1", "8"} {
			if j == "1" && name != "o.pcapng" {
				continue
			}
			if code, _, errs := squall(nil, "analyze", path, "-j", j, "-o", kept); code != 0 {
				t.Fatal(errs)
			}
			for _, table := range reports.Names()[1:] {
				code, out, errs := squall(nil, append([]string{"report", table, kept, "-T", "csv"}, but(table, "first_offset")...)...)
				out = strings.ReplaceAll(out, name, "o")
				if code != 0 || table == "attempts" && strings.Count(out, "\n") < 100 {
					t.Fatalf("%s: exit %d, %d lines: %s", name, code, strings.Count(out, "\n"), errs)
				}
				if want[table] == "" {
					want[table] = out
				}
				if out != want[table] {
					t.Errorf("%s %s -j %s: other rows", table, name, j)
				}
			}
		}
	}
}

// TestPiecesAreTheWhole: 24 files in any order give the tables of one, the
// columns that name files and frames aside.
func TestPiecesAreTheWhole(t *testing.T) {
	dir := t.TempDir()
	one := filepath.Join(dir, "one.pcap")
	squall(nil, "sample", stormSample(), "-w", one)
	src, err := capture.Open([]string{one}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var writers []*capture.Writer
	pieces := []string{"-j", "2"}
	for i := range 24 {
		path := filepath.Join(dir, fmt.Sprintf("piece-%02d.pcapng.gz", (i*7)%24))
		w, err := capture.Create(path, capture.WriterOptionsFor(path))
		if err != nil {
			t.Fatal(err)
		}
		writers, pieces = append(writers, w), append(pieces, path)
	}
	var first int64
	for {
		b, err := src.Next()
		if err != nil {
			break
		}
		for i := range b.Packets {
			p := &b.Packets[i]
			if first == 0 {
				first = p.Time
			}
			if err := writers[min((p.Time-first)/26e9, 23)].WritePacket(p, ""); err != nil {
				t.Fatal(err)
			}
		}
		b.Release()
	}
	src.Close()
	for _, w := range writers {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	whole, parts := filepath.Join(dir, "whole"), filepath.Join(dir, "parts")
	if code, _, errs := squall(nil, "analyze", one, "-o", whole); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := squall(nil, append([]string{"analyze", "-o", parts}, pieces...)...); code != 0 {
		t.Fatal(errs)
	}
	for _, table := range reports.Schemas() {
		if table.Name == "captures" {
			continue
		}
		var columns []string
		for _, c := range table.Columns {
			if c.Name != "capture_file" && !strings.HasSuffix(c.Name, "frame") && c.Name != "observer_name" && c.Name != "filter" && c.Name != "first_offset" &&
				(table.Name != "events" || c.Name != "number" && c.Name != "unit") { // what its own capture holds of it
				columns = append(columns, c.Name)
			}
		}
		args := []string{"report", table.Name, "-T", "csv", "-e", strings.Join(columns, ",")}
		if table.Name == "events" { // the beginnings and ends of the captures are theirs
			args = append(args, "--where", `not (what startsWith "capture ")`)
		}
		_, want, _ := squall(nil, append(args, whole)...)
		code, got, errs := squall(nil, append(args, parts)...)
		if code != 0 || got != want || strings.Count(got, "\n") < 1 {
			t.Errorf("%s: exit %d %s: %d lines of pieces, %d of the whole", table.Name, code, errs, strings.Count(got, "\n"), strings.Count(want, "\n"))
		}
	}
}

// TestHints: what the user says of a node stands in the rows.
func TestHints(t *testing.T) {
	hints := filepath.Join(t.TempDir(), "hints.yaml")
	write := func(text string) {
		if err := os.WriteFile(hints, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, capture, _ := squall(nil, "sample", "outage", "-w", "-")
	_, nodes, _ := squall([]byte(capture), "report", "nodes", "-", "-T", "csv", "-e", "destination_ip,destination_port,service", "--limit", "1")
	cells := strings.Split(strings.Split(nodes, "\n")[1], ",")
	write("nodes:\n  " + cells[0] + ":" + cells[1] + ":\n    role: login\n    service: the front door\n")
	code, out, errs := squall([]byte(capture), "report", "nodes", "-", "--hints", hints, "-T", "csv", "-e", "service,destination_role,role_source", "--where", "destination_ip == '"+cells[0]+"'")
	if code != 0 || !strings.Contains(out, "the front door,login,user") {
		t.Errorf("exit %d %s\n%s", code, errs, out)
	}
	write("nodes:\n  front: door\n")
	if code, _, errs := squall([]byte(capture), "analyze", "-", "--hints", hints); code != 2 || !strings.Contains(errs, "hints.yaml") {
		t.Errorf("wrong hints: exit %d %s", code, errs)
	}
}

// TestShardsAreTheWhole: what several runs kept of the same inputs joins to
// what one run finds, in any order; two captures of different times join too.
func TestShardsAreTheWhole(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	squall(nil, "sample", stormSample(), "-w", at("s.pcap"))
	for name, text := range map[string]string{"groups.csv": "prefix,site\n10.0.0.0/9,west\n", "events.csv": "time,text\n2010-12-22 17:05,deploy\n",
		"hints.yaml": "nodes:\n  198.51.100.1:33033: {service: first}\n"} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	under := []string{"--groups", at("groups.csv"), "--events", at("events.csv"), "--hints", at("hints.yaml"), "--tz", "+01:00",
		"--threshold", "in_a_row=12", "--max-nodes", "7", "--filter", "not port 53"}
	if code, _, errs := squall(nil, slices.Concat([]string{"analyze", at("s.pcap"), "-o", at("whole")}, under)...); code != 0 {
		t.Fatal(errs)
	}
	for i, index := range []string{"0", "1", "2"} {
		args := slices.Concat([]string{"analyze", at("s.pcap"), "--shard", index + "/3", "-o", at("shard" + index)}, under)
		if i == 2 {
			t.Setenv("JOB_COMPLETION_INDEX", index)
			args[3] = "/3"
		}
		if code, out, errs := squall(nil, args...); code != 0 || out != "" {
			t.Fatalf("%v: exit %d %s%s", args, code, out, errs)
		}
	}
	// At once, and by way of a piece of two of them.
	for _, args := range [][]string{
		{"shard2", "shard0", "shard1", "-o", "merged"},
		{"shard2", "shard0", "-o", "two", "--partial"},
		{"shard1", "two", "-o", "by-two"},
	} {
		for i := range args {
			if !strings.HasPrefix(args[i], "-") {
				args[i] = at(args[i])
			}
		}
		if code, out, errs := squall(nil, append([]string{"merge"}, args...)...); code != 0 || (out == "") != slices.Contains(args, "--partial") {
			t.Fatalf("%v: exit %d %s%s", args, code, out, errs)
		}
	}
	files, err := os.ReadDir(at("whole"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, dir := range []string{"merged", "by-two"} {
			want, _ := os.ReadFile(filepath.Join(at("whole"), f.Name()))
			got, err := os.ReadFile(filepath.Join(at(dir), f.Name()))
			if f.Name() != custodyName && (err != nil || !bytes.Equal(got, want)) {
				t.Errorf("%s/%s: %v; the shards give other bytes than the whole", dir, f.Name(), err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(at("two"), summaryName)); err == nil {
		t.Error("a piece seems to be a whole analysis")
	}
	for _, dir := range []string{"two", "by-two"} {
		if code, out, errs := squall(nil, "verify", at(dir)); code != 0 {
			t.Errorf("%s: exit %d %s%s", dir, code, out, errs)
		}
	}
	if _, a, _ := squall(nil, "explain", at("whole")); a == "" {
		t.Error("nothing is explained")
	} else if _, b, _ := squall(nil, "explain", at("by-two")); a != b {
		t.Errorf("explain says of what was merged\n%s\nand of the whole\n%s", b, a)
	}
	if code, _, errs := squall(nil, "merge", at("two"), at("shard1"), "-o", at("x"), "--fail-on", "retry_storm"); code != 99 {
		t.Errorf("--fail-on: exit %d %s", code, errs)
	}
	os.WriteFile(at("groups.csv"), []byte("prefix,site\n10.0.0.0/9,east\n"), 0o600)
	if code, _, errs := squall(nil, "merge", at("two"), at("shard1"), "-o", at("x")); code != 2 || !strings.Contains(errs, "groups.csv is not what the pieces were made with") {
		t.Errorf("other groups: exit %d %s", code, errs)
	}
	if code, _, errs := squall(nil, "merge", at("two"), at("shard1"), "-o", at("x"), "--groups", at("groups.csv"), "--threshold", "in_a_row=13"); code != 0 {
		t.Errorf("groups named anew: exit %d %s", code, errs)
	} else if c, err := readCustody(at("x")); err != nil || !slices.Equal(c.overridden(), []string{"in_a_row=12", "in_a_row=13"}) {
		t.Errorf("made under %q: %v", c.overridden(), err)
	}
	os.WriteFile(at("groups.csv"), []byte("prefix,site\n10.0.0.0/9,west\n"), 0o600)
	squall(nil, "analyze", at("s.pcap"), "--shard", "1/3", "-o", at("other"))
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"merge", at("shard0"), at("shard1"), "-o", at("x")}, "1 of 3 shards are missing: 2/3; --partial"},
		{[]string{"merge", at("shard0"), at("shard0"), at("shard1"), "-o", at("x")}, "twice"},
		{[]string{"merge", at("two"), at("shard0"), at("shard1"), "-o", at("x")}, "0/3 is there twice"},
		{[]string{"merge", at("two"), at("other"), "-o", at("x")}, "were made with other words"},
		{[]string{"merge", at("two"), at("shard1"), "-o", at("two")}, "another directory"},
		{[]string{"merge", at("two"), at("shard1"), "-o", at("x"), "--partial", "--fail-on", "scan"}, "--partial judges nothing"},
		{[]string{"merge", at("two"), at("shard1"), "-o", at("x"), "--fail-on", "storm"}, "no such class"},
		{[]string{"merge", dir, "-o", at("x")}, "analyze -o"},
		{[]string{"analyze", at("s.pcap"), "--shard", "3/3", "-o", at("x")}, "0 to N-1"},
		{[]string{"analyze", at("s.pcap"), "--shard", "0/3"}, "-o DIR"},
	} {
		if code, _, errs := squall(nil, tc.args...); code != 2 || !strings.Contains(errs, tc.want) {
			t.Errorf("%v: exit %d %s; want %q", tc.args, code, errs, tc.want)
		}
	}
	// The first and the second half of a capture, analysed apart.
	for _, half := range [][]string{{"--before", "60s", "-o", at("early")}, {"--after", "60s", "-o", at("late")}} {
		if code, _, errs := squall(nil, append([]string{"analyze", at("s.pcap")}, half...)...); code != 0 {
			t.Fatal(errs)
		}
	}
	if code, _, errs := squall(nil, "merge", at("late"), at("early"), "-o", at("halves")); code != 0 {
		t.Fatal(errs)
	}
	count := func(dir string) int {
		_, out, _ := squall(nil, "report", "attempts", dir, "-T", "csv", "-e", "attempt_id")
		return strings.Count(out, "\n")
	}
	if whole, halves := count(at("whole")), count(at("halves")); !testing.Short() && (halves < whole*9/10 || halves > whole*11/10) {
		t.Errorf("%d attempts of the halves, %d of the whole", halves, whole)
	}
}

// TestShardsOfTwo: what each of two analyses knows of NAT and tunnels is there when
// the shards of both are merged, as when each was joined before.
func TestShardsOfTwo(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) string { return told(t, args...) }
	all, want := []string{"merge", "-o", at("all")}, 0
	for _, seed := range []string{"1", "2"} {
		run("sample", "outage", "--taps", "--seed", seed, "-w", at("taps"+seed))
		args := []string{"analyze", "-q"}
		for _, tap := range samples.TapNames {
			args = append(args, tap+"="+filepath.Join(at("taps"+seed), tap+".pcapng"))
		}
		for _, i := range []string{"0", "1"} {
			run(append(args, "--shard", i+"/2", "-o", at(seed+i))...)
			all = append(all, at(seed+i))
		}
		run("merge", at(seed+"0"), at(seed+"1"), "-o", at("whole"+seed))
		want += strings.Count(run("report", "nat", at("whole"+seed), "-T", "jsonl"), "\n")
	}
	run(all...)
	if got := strings.Count(run("report", "nat", at("all"), "-T", "jsonl"), "\n"); got != want || want == 0 {
		t.Errorf("%d pairs of addresses, want %d", got, want)
	}
}

// TestMergedCountsOnce: what two analyses saw, of two taps or in packets and in a
// log, counts once when they are merged; the merged case is sought in, and its
// manifest says what it was made of.
func TestMergedCountsOnce(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) string { return told(t, args...) }
	pcap := sampled(t, "outage")
	run("extract", pcap, "-q", "--clients", "30%", "-w", at("part.pcap"))
	run("report", "attempts", pcap, "-q", "-T", "zeek", "-w", at("conn.log"))
	run("analyze", "a="+pcap, "-q", "-o", at("a"))
	run("analyze", "b="+at("part.pcap"), "--clock", "b=0s", "-q", "-o", at("b"))
	run("analyze", "zeek="+at("conn.log"), "-q", "-o", at("log"))
	totals := func(out string) map[string]any {
		var s struct {
			Totals map[string]any
			Notes  []string
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		delete(s.Totals, "intent_surge") // calm windows are those of the packets
		s.Totals["notes"] = strings.Join(s.Notes, "\n")
		return s.Totals
	}
	one := totals(run("analyze", pcap, "-q", "-T", "json"))
	for _, with := range []string{"b", "log"} {
		got := totals(run("merge", at(with), at("a"), "-o", at("with-"+with), "-T", "json"))
		notes := got["notes"].(string)
		if want := map[string]string{"b": "were in several of the analyses", "log": "were seen in packets"}[with]; !strings.Contains(notes, want) || strings.Contains(notes, "analysed apart") {
			t.Errorf("%s: no %q in %s", with, want, notes)
		}
		got["notes"] = one["notes"]
		if !reflect.DeepEqual(got, one) {
			t.Errorf("merged with %s: %v\nwant %v", with, got, one)
		}
	}
	id := table(t, "report", "attempts", at("with-b"), "--limit", "1")[0]["attempt_id"]
	code, _, errs := squall(nil, "extract", at("with-b"), "--attempt", id, "-w", at("x.pcapng"))
	var packets, attempts, read, size int
	if _, err := fmt.Sscanf(errs, "squall: %d packets of %d attempts; %d of %d bytes were read", &packets, &attempts, &read, &size); code != 0 || err != nil || packets == 0 || read > size/4 {
		t.Errorf("exit %d: %s", code, errs)
	}
	if out := run("verify", at("with-b")); !strings.Contains(out, "ok       piece "+at("b")) {
		t.Error(out)
	}
	b, err := os.ReadFile(filepath.Join(at("with-b"), custodyName))
	var c custody
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Command != "merge" || len(c.Pieces) != 2 || !slices.Contains(c.Pieces[0].Arguments, "--clock=b=0s") || !slices.Equal(c.Arguments, []string{at("b"), at("a")}) {
		t.Errorf("%v: %+v", err, c)
	}
	// A piece that another run has made anew is not what was merged.
	run("analyze", "b="+pcap, "-q", "-o", at("b"))
	if code, out, _ := squall(nil, "verify", at("with-b")); code != 1 || !strings.Contains(out, "CHANGED  piece "+at("b")) {
		t.Errorf("exit %d: %s", code, out)
	}
}

// slow leaves out what the race detector sees in other tests, too.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs minutes under the race detector: run it without -short")
	}
}

// TestKept: a directory that analyze -o made gives the same tables as the
// capture, and whole summaries.
func TestKept(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	file, kept := filepath.Join(dir, "s.pcap"), filepath.Join(dir, "kept")
	squall(nil, "sample", "outage", "-w", file)
	code, shown, errs := squall(nil, "analyze", file, "-T", "json", "-o", kept)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if summary, err := os.ReadFile(filepath.Join(kept, "summary.json")); err != nil || string(summary) != shown {
		t.Errorf("summary.json: %v; not what was shown", err)
	}
	for _, name := range reports.Names() {
		_, want, _ := squall(nil, "report", name, file, "-T", "jsonl")
		code, got, errs := squall(nil, "report", name, kept, "-T", "jsonl")
		if code != 0 || got != want {
			t.Errorf("%s: exit %d %s\nkept %.300s\nwant %.300s", name, code, errs, got, want)
		}
	}
}

// TestScreen: nothing wider than asked for, no colour in a pipe, and the parts
// in their order.
func TestScreen(t *testing.T) {
	_, capture, _ := squall(nil, "sample", "outage", "-w", "-")
	code, out, errs := squall([]byte(capture), "analyze", "-")
	if code != 0 || strings.Contains(out, "\x1b") {
		t.Fatalf("exit %d %s\n%s", code, errs, out)
	}
	at := 0
	for _, part := range []string{"Captures", "ledger:", "Totals", "Nodes under most load", "Clients that try most", "Attempts a second over time"} {
		i := strings.Index(out[at:], part)
		if i < 0 {
			t.Fatalf("%q is missing or out of order\n%s", part, out)
		}
		at += i
	}
	if n := strings.Count(out, "\n"); n > 50 {
		t.Errorf("%d lines are more than a screen", n)
	}
	for _, line := range strings.Split(out, "\n") {
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if _, out, _ = squall([]byte(capture), "analyze", "-", "--color", "always"); !strings.Contains(out, "\x1b[") {
		t.Error("--color always: no colour")
	}
}

// TestTimeWindow: --after and --before, as moments and from the first packet.
func TestTimeWindow(t *testing.T) {
	_, capture, _ := squall(nil, "sample", "outage", "-w", "-")
	count := func(args ...string) int {
		code, out, errs := squall([]byte(capture), append([]string{"report", "attempts", "-", "-T", "jsonl", "-e", "event_start"}, args...)...)
		if code != 0 {
			t.Fatalf("%v: exit %d: %s", args, code, errs)
		}
		return strings.Count(out, "\n")
	}
	all, early, late := count(), count("--before", "40s"), count("--after", "40s")
	if early == 0 || late == 0 || early >= all {
		t.Errorf("%d attempts, %d in the first 40 s, %d later", all, early, late)
	}
	if n := count("--before", "2010-12-22T16:00:40.042213151Z"); n != early {
		t.Errorf("the moment gives %d, the duration %d", n, early)
	}
}

// TestCutAndDamaged: a file that ends in its last record is noted, one that is
// broken before is exit 3.
func TestCutAndDamaged(t *testing.T) {
	_, capture, _ := squall(nil, "sample", "outage", "-w", "-", "-T", "pcap")
	whole := []byte(capture)
	code, out, _ := squall(whole[:len(whole)-7], "info", "-")
	if code != 0 || !strings.Contains(out, "last record") || !strings.Contains(out, "frame 6196") {
		t.Errorf("cut: exit %d\n%s", code, out)
	}
	if code, out, _ = squall(whole[:len(whole)-7], "analyze", "-"); code != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), "ends inside its last record (frame 6196)") {
		t.Errorf("cut: exit %d\n%s", code, out)
	}
	broken := bytes.Clone(whole)
	for i := 5000; i < 7000; i++ {
		broken[i] = 0xff
	}
	code, out, errs := squall(broken, "info", "-")
	if code != 3 || !strings.Contains(out, "DAMAGED") || !strings.Contains(errs, "offset") {
		t.Errorf("broken: exit %d\n%s%s", code, out, errs)
	}
}

// TestNewcomers: each mistake gives one helpful line and the right status.
func TestNewcomers(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(text, []byte("these are notes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"info", filepath.Join(dir, "none.pcap")}, "no such file"},
		{[]string{"info", dir}, "no capture in this directory"},
		{[]string{"info", text}, "expected pcap or pcapng"},
		{[]string{"info"}, "no capture was named"},
		{[]string{"analyze"}, "no capture was named"},
		{[]string{"analyze", "-T", "html5", "-"}, "html, json"},
		{[]string{"analyze", "--after", "teatime", "-"}, "RFC 3339"},
		{[]string{"analyze", "--fail-on", "storm", "-"}, "retry_storm"},
		{[]string{"info", "-T", "parket", "-"}, "parquet"},
		{[]string{"info", "-e", "packet", "-"}, "packets"},
		{[]string{"info", "-f", "tcp prt 80", "-"}, "column 5"},
		{[]string{"info", "--where", "packets >", "-"}, "packets"},
		{[]string{"report", "attempt", "-"}, "attempts"},
		{[]string{"report", "attempts", "-e", "sorce_ip", "-"}, "source_ip"},
		{[]string{"report", "attempts", "-e", "nope", "-"}, "it has attempt_id"},
		{[]string{"sample", "outrage", "-w", "-"}, "outrage"},
		{[]string{"sample", "outage"}, "-w"},
		{[]string{"analyse"}, "analyse"},
		{[]string{"analyze", "skype-2010"}, "squall sample skype-2010 -w -"},
		{[]string{"compare", "a"}, "compare ORIGINAL REPLAY"},
		{[]string{"merge"}, "merge DIR"},
		{[]string{"watch", "-i"}, "-i"},
		{[]string{"protocols", "sip"}, "want: squall protocols"},
	} {
		code, out, errs := squall(nil, tc.args...)
		if code != 2 || out != "" || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q; want %q", tc.args, code, out, errs, tc.want)
		}
	}
}
