package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/samples"
)

// TestAnonymousCase: packets, tables, page and events of a case are made under one
// key; the numbers stand, and nothing of the original or of the key is left.
func TestAnonymousCase(t *testing.T) {
	slow(t)
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
	search(t, kept, text, []string{string(secret), key, file})
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"analyze", file, "--anonymize", key}, "-o DIR"},
		{[]string{"analyze", "-", "--anonymize", key, "-o", kept}, "three times"},
		{[]string{"analyze", file, "--anonymize", key, "-o", kept, "--shard", "0/2"}, "take shards of that"},
		{[]string{"analyze", file, "--anonymize", key, "-o", kept, "--baseline", file, "--hints", key}, "--baseline or --hints"},
		{[]string{"analyze", file, "--anonymize", file + "x", "-o", kept}, "no such file"},
	} {
		if code, _, errs := squall(nil, c.args...); code != 2 || !strings.Contains(errs, c.says) {
			t.Errorf("%v: exit %d: %s", c.args, code, errs)
		}
	}
}

// TestAnonymousTaps: several taps under one key, with clocks that were found or given:
// the numbers stand, taps have numbers, and nothing kept or printed tells an address.
func TestAnonymousTaps(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	key, taps := filepath.Join(dir, "key"), filepath.Join(dir, "taps")
	if err := os.WriteFile(key, []byte("correct horse battery staple 17"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := squall(nil, "sample", "outage", "--taps", "-w", taps); code != 0 {
		t.Fatal(errs)
	}
	names := []string{"siteparis", "sitelyon", "sitelille"}
	var inputs []string
	for i, n := range []string{"east", "west", "branch"} {
		inputs = append(inputs, names[i]+"="+filepath.Join(taps, n+".pcapng"))
	}
	rows := func(args ...string) []string {
		code, out, errs := squall(nil, append([]string{"report", "attempts", "-q", "-T", "csv", "-e", "event_start,network_protocol,attempt_outcome,outcome_evidence,relation,transmissions"}, args...)...)
		if code != 0 {
			t.Fatalf("%v: exit %d: %s", args, code, errs)
		}
		lines := strings.Split(out, "\n")
		slices.Sort(lines)
		return lines
	}
	clocks := [][]string{{"--clock", "siteparis=0s", "--clock", "sitelyon=-2.5s,-20ppm", "--clock", "sitelille=+137ms,+12ppm"}, nil}
	for _, clock := range clocks {
		kept := filepath.Join(dir, fmt.Sprint("case", len(clock)))
		code, text, errs := squall(nil, append(append([]string{"analyze", "--anonymize", key, "-o", kept}, clock...), inputs...)...)
		if code != 0 || !strings.Contains(errs, " 0 original addresses left") {
			t.Fatalf("%v: exit %d: %s", clock, code, errs)
		}
		want := rows(append(clock, inputs...)...)
		if got := rows(kept); len(want) < 1000 || !slices.Equal(got, want) {
			t.Errorf("%v: %d rows, want %d, or others", clock, len(got), len(want))
		}
		search(t, kept, text, []string{"siteparis", "sitelyon", "sitelille", taps, key})
	}
	// extract: a file for each tap, with the same attempts.
	part := filepath.Join(dir, "part.pcapng")
	code, _, errs := squall(nil, append([]string{"extract", "--where", "true", "-w", part}, inputs...)...)
	if code != 0 || !strings.Contains(errs, "siteparis="+filepath.Join(dir, "part-siteparis.pcapng")) {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var again []string
	for _, n := range names {
		again = append(again, n+"="+filepath.Join(dir, "part-"+n+".pcapng"))
	}
	outcomes := func(list []string) (out []string) { // the clocks were compared anew: times differ by microseconds
		for _, l := range list {
			_, rest, _ := strings.Cut(l, ",")
			out = append(out, rest)
		}
		slices.Sort(out)
		return out
	}
	if got, want := outcomes(rows(again...)), outcomes(rows(inputs...)); !slices.Equal(got, want) {
		t.Errorf("%d attempts in the extract, want %d, or they end otherwise", len(got), len(want))
	}
}

// search goes through a case, what was printed of it and what other verbs print, for
// words that must not be there, and for the addresses of the sample.
func search(t *testing.T, kept, printed string, words []string) {
	t.Helper()
	all := []byte(printed)
	for _, args := range [][]string{{"events"}, {"sources"}, {"explain"}, {"report", "attempts"}, {"report", "clients"}, {"report", "captures"}, {"analyze", "-T", "html"}, {"analyze", "-T", "markdown"}} {
		code, out, errs := squall(nil, append(args, "-q", kept)...)
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
	for _, word := range words {
		if bytes.Contains(all, []byte(word)) {
			t.Errorf("%q is in what was kept or printed", word)
		}
	}
	// Nodes are in 198.51.100.0/24, clients in 10.0.0.0/8.
	if m := regexp.MustCompile(`\b(198\.51\.100\.\d+|10\.[0-3]\.\d+\.\d+)\b`).Find(all); m != nil {
		t.Errorf("%s is in what was kept or printed", m)
	}
	if code, out, _ := squall(nil, "verify", kept); code != 0 {
		t.Errorf("verify: exit %d\n%s", code, out)
	}
}

// TestAnonymousHints: a protocol of one's own keeps its attempts and loses the names of
// its clients; nodes that the hints name are found under their other addresses; what
// was noted loses its addresses.
func TestAnonymousHints(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	key, file, hints, notes, kept := filepath.Join(dir, "key"), filepath.Join(dir, "o.pcap"), filepath.Join(dir, "mine.yaml"), filepath.Join(dir, "notes.csv"), filepath.Join(dir, "case")
	if err := os.WriteFile(key, []byte("correct horse battery staple 17"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := squall(nil, "sample", "s2", "--clients", "60", "-w", file); code != 0 {
		t.Fatal(errs)
	}
	page, err := os.ReadFile("../../docs/hints.md")
	if err != nil {
		t.Fatal(err)
	}
	// The first worked example is the protocol of this sample.
	_, mine, _ := strings.Cut(string(page), "### First example")
	_, mine, _ = strings.Cut(mine, "```yaml\n")
	mine, _, _ = strings.Cut(mine, "```")
	mine = strings.Replace(mine, "    transport: tcp", "    about: the login of Example Inc.\n    transport: tcp", 1)
	nodes := mapsOf(t, "report", "nodes", file, "-q")
	node := nodes[0]["destination_ip"] + ":" + nodes[0]["destination_port"]
	mine += "nodes:\n  " + node + ": {role: login, service: lutetia}\nservices:\n  attach/supernode: lutetia\n"
	if err := os.WriteFile(hints, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := mapsOf(t, "report", "captures", file, "-q")[0]["first_time"]
	if err := os.WriteFile(notes, []byte("time,text,node\n"+begin+",restarted by hand,"+node+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := func(args ...string) (lines []string, ids map[string]bool) {
		code, out, errs := squall(nil, append([]string{"report", "attempts", "-q", "-T", "csv", "-e", "event_start,network_protocol,destination_role,role_source,attempt_outcome,outcome_evidence,relation,client_id_level,client_id"}, args...)...)
		if code != 0 {
			t.Fatalf("%v: exit %d: %s", args, code, errs)
		}
		ids = map[string]bool{}
		for _, l := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
			i := strings.LastIndexByte(l, ',')
			lines, ids[l[i+1:]] = append(lines, l[:i]), true
		}
		slices.Sort(lines)
		return lines, ids
	}
	want, ids := rows(file, "--hints", hints)
	if len(want) < 200 || len(ids) < 30 || !strings.Contains(strings.Join(want, "\n"), ",attach,login,user,") || !strings.Contains(want[len(want)-1], "protocol") {
		t.Fatalf("%d rows, %d clients, %v: the test proves nothing", len(want), len(ids), want[len(want)-1])
	}
	code, text, errs := squall(nil, "analyze", file, "--hints", hints, "--events", notes, "--anonymize", key, "-o", kept)
	if code != 0 || !strings.Contains(errs, " 0 original addresses left") {
		t.Fatalf("exit %d: %s", code, errs)
	}
	got, others := rows(kept)
	if !slices.Equal(got, want) || len(others) != len(ids) {
		t.Errorf("%d rows of %d clients, want %d of %d, or others", len(got), len(others), len(want), len(ids))
	}
	words := []string{key, file, hints, notes, "Example Inc", "lutetia"}
	for id := range ids {
		if !others[id] {
			words = append(words, "ATTACH "+strings.TrimPrefix(id, "attach:"))
		}
	}
	if len(words) < 20 {
		t.Errorf("%d clients of %d have other names", len(words)-6, len(ids))
	}
	search(t, kept, text, words)
	again, _ := rows(filepath.Join(kept, "packets.pcapng"), "--hints", filepath.Join(kept, "hints.yaml"))
	if !slices.Equal(again, want) {
		t.Error("the kept packets with the kept hints give other attempts")
	}
	// Names half in one segment and half in the next, also where they change places.
	halves, part := filepath.Join(dir, "halves.pcap"), filepath.Join(dir, "part.pcap")
	resegment(t, file, halves, 9, true)
	if got, _ := rows(halves, "--hints", hints); !slices.Equal(got, want) {
		t.Fatal("halves give other attempts: the test proves nothing")
	}
	if code, _, errs := squall(nil, "extract", halves, "--hints", hints, "--where", "true", "--anonymize", key, "-w", part); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if got, mapped := rows(part, "--hints", filepath.Join(kept, "hints.yaml")); !slices.Equal(got, want) || !maps.Equal(mapped, others) {
		t.Errorf("%d attempts of %d clients in halves, want %d of %d, or others", len(got), len(mapped), len(want), len(others))
	}
	if code, out, _ := squall(nil, "events", kept, "-q", "--events", notes); code != 0 || !strings.Contains(out, "restarted by hand") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// TestAnonymousGroups: sites, autonomous systems and countries get other names, and the
// harm to each stays; a calm day and thresholds judge as they did.
func TestAnonymousGroups(t *testing.T) {
	slow(t)
	file, calm, dir := days(t)
	key, sites, kept := filepath.Join(dir, "key"), filepath.Join(dir, "sites.csv"), filepath.Join(dir, "case")
	for path, text := range map[string]string{key: "correct horse battery staple 17", sites: "prefix,site,asn,country\n10.1.0.0/27,Lutetia,64500,FR\n10.1.0.0/24,Lugdunum,64501,FR\n10.0.0.0/8,Elsewhere,,CH\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	given := []string{"--baseline", calm, "--threshold", "retry_share=0.6"}
	code, text, errs := squall(nil, append([]string{"analyze", file, "--groups", sites, "--anonymize", key, "-o", kept}, given...)...)
	if code != 0 || !strings.Contains(errs, " 0 original addresses left") {
		t.Fatalf("exit %d: %s", code, errs)
	}
	csv := func(args ...string) string {
		code, out, errs := squall(nil, append(args, "-q", "-T", "csv")...)
		if code != 0 {
			t.Fatal(errs)
		}
		return out
	}
	// The same counts, whatever the groups are called.
	harm := func(source ...string) string {
		lines := strings.Split(csv(append([]string{"report", "impact", "--where", `by != ""`, "-e", "by,service,clients,clients_hit"}, source...)...), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	want := harm(file, "--groups", sites)
	if got := harm(kept); got != want || strings.Count(want, "site") < 2 {
		t.Errorf("anonymous:\n%s\noriginal:\n%s", got, want)
	}
	criteria := func(args ...string) string {
		return csv(append([]string{"report", "criteria", "-e", "criterion,value,threshold,met"}, args...)...)
	}
	want = criteria(append([]string{file}, given...)...)
	if got := csv("report", "criteria", kept, "-e", "criterion,value,threshold,met"); got != want || want == criteria(file) {
		t.Errorf("anonymous:\n%s\noriginal:\n%s", got, want)
	}
	search(t, kept, text, []string{"Lutetia", "Lugdunum", "Elsewhere", "64500", calm, sites, key})
	if got := criteria(filepath.Join(kept, "packets.pcapng"), "--baseline", calm); got == want {
		t.Error("a calm day of other addresses fits: the test proves nothing")
	}
}

// resegment writes the segments of a capture of Ethernet and IPv4 in pieces of some
// bytes, with swap every second pair of them in the wrong order.
func resegment(t *testing.T, from, to string, size int, swap bool) {
	t.Helper()
	src, err := capture.Open([]string{from}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	h, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	w, err := capture.NewWriter(h, capture.WriterOptions{Format: "pcap"})
	if err != nil {
		t.Fatal(err)
	}
	if err := capture.Each(t.Context(), src, func(b *capture.Batch) error {
		for i := range b.Packets {
			p := &b.Packets[i]
			list := pieces(p.Data, size)
			if n := len(list); swap && n > 2 {
				for k := 0; k+3 < n; k += 4 {
					list[k], list[k+1] = list[k+1], list[k]
				}
			}
			for _, data := range list {
				q := *p
				q.Data, q.OrigLen = data, len(data)
				if err := w.WritePacket(&q, ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// pieces cuts a segment. FIN and RST are of the last one.
func pieces(b []byte, size int) (list [][]byte) {
	const at = 14 + 20 // of TCP
	if len(b) < at+20 || b[14] != 0x45 || b[23] != 6 {
		return [][]byte{b}
	}
	body, end := at+int(b[at+12]>>4)*4, 14+int(binary.BigEndian.Uint16(b[16:]))
	if end > len(b) || end-body <= size {
		return [][]byte{b}
	}
	for from := body; from < end; from += size {
		to := min(from+size, end)
		one := append(bytes.Clone(b[:body]), b[from:to]...)
		binary.BigEndian.PutUint16(one[16:], uint16(len(one)-14))
		binary.BigEndian.PutUint16(one[18:], binary.BigEndian.Uint16(one[18:])+uint16(from-body)) // another IP id
		binary.BigEndian.PutUint32(one[at+4:], binary.BigEndian.Uint32(one[at+4:])+uint32(from-body))
		if to < end {
			one[at+13] &^= 5
		}
		list = append(list, one)
	}
	return list
}

// streamsOf puts the payloads of a capture of Ethernet and IPv4 in order: the streams of
// TCP by their ends, and the datagrams of UDP one after the other.
func streamsOf(t *testing.T, path string) map[string][]byte {
	t.Helper()
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	begin, out := map[string]uint32{}, map[string][]byte{}
	if err := capture.Each(t.Context(), src, func(b *capture.Batch) error {
		for i := range b.Packets {
			d := b.Packets[i].Data
			if len(d) < 42 || d[14] != 0x45 || d[23] != 6 && d[23] != 17 {
				continue
			}
			end, key := 14+int(binary.BigEndian.Uint16(d[16:])), string(d[23:24])+string(d[26:38])
			if d[23] == 17 {
				out[key] = append(out[key], d[42:end]...)
				continue
			}
			seq := binary.BigEndian.Uint32(d[38:])
			if d[47]&2 != 0 {
				begin[key] = seq + 1
				continue
			}
			body := d[34+int(d[46]>>4)*4 : end]
			for at := int(seq - begin[key]); len(out[key]) < at+len(body); {
				out[key] = append(out[key], 0)
			}
			copy(out[key][int(seq-begin[key]):], body)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAnonymousSegments: wherever the segments of a known protocol end, its streams
// become the same others, attempts end as they did, and no name, identity or address of
// the original is in them.
func TestAnonymousSegments(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	key, file, cut, part := filepath.Join(dir, "key"), filepath.Join(dir, "o.pcap"), filepath.Join(dir, "cut.pcap"), filepath.Join(dir, "part.pcapng")
	if err := os.WriteFile(key, []byte("correct horse battery staple 17"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What the conversations say that tells who they are.
	names := regexp.MustCompile(`[A-Za-z0-9.-]*example[A-Za-z0-9.-]*|alice|bob@|carol|sensor-7|think|s3cret|hunter2|192\.0\.2\.\d+|198\.51\.100\.\d+|203\.0\.113\.\d+|\xc0\x00\x02[\x01-\x20]|\xc6\x33\x64[\x01-\x20]`)
	told := map[string]bool{}
	seen := map[string]bool{}
	for _, c := range samples.Conversations() {
		if seen[c.Protocol] {
			continue
		}
		seen[c.Protocol] = true
		if code, _, errs := squall(nil, "sample", samples.Protocol+c.Protocol, "-w", file); code != 0 {
			t.Fatal(errs)
		}
		ids := map[string]bool{}
		for _, row := range mapsOf(t, "report", "attempts", file, "-q") {
			if row["client_id_level"] != "protocol" || c.Protocol == "discv4" {
				continue
			}
			id := strings.TrimPrefix(row["client_id"], row["network_protocol"]+":")
			if raw, err := hex.DecodeString(id); err == nil && len(raw) > 4 {
				id = string(raw)
			}
			if len(id) == 20 && id[0] == '-' { // BitTorrent: the version stays
				id = id[8:]
			}
			if strings.Trim(id, id[:1]) != "" {
				ids[id] = true
			}
		}
		var whole map[string][]byte
		attempts := "" // of the whole
		rows := func(path string) string {
			code, out, errs := squall(nil, "report", "attempts", path, "-q", "-T", "csv", "-e", "event_start,network_protocol,client_id_level,client_version,attempt_outcome,outcome_evidence,relation,retry_gap_ns,late")
			if code != 0 {
				t.Fatal(errs)
			}
			return out
		}
		for _, how := range []struct {
			size int
			swap bool
		}{{1 << 16, false}, {9, true}} {
			if how.size < 1<<16 && c.UDP && !overTCP(c.Protocol) {
				break
			}
			resegment(t, file, cut, how.size, how.swap)
			code, _, errs := squall(nil, "extract", cut, "--where", "true", "--anonymize", key, "-w", part)
			if code != 0 || !strings.Contains(errs, " 0 original addresses left") {
				t.Fatalf("%s in pieces of %d: exit %d: %s", c.Protocol, how.size, code, errs)
			}
			want := rows(cut)
			if got := rows(part); got != want {
				t.Errorf("%s in pieces of %d, swapped %v:\n%s\nwant\n%s", c.Protocol, how.size, how.swap, got, want)
			}
			is := streamsOf(t, part)
			if whole == nil {
				whole, attempts = is, want
				for _, b := range streamsOf(t, cut) {
					for _, m := range names.FindAll(b, -1) {
						told[string(m)] = true
					}
				}
			}
			for k, b := range is {
				// In small pieces some protocols are not recognised, or as others.
				if !bytes.Equal(b, whole[k]) && want == attempts {
					t.Errorf("%s in pieces of %d: another stream:\n%q, want\n%q", c.Protocol, how.size, b, whole[k])
				}
				for _, m := range names.FindAll(b, -1) {
					if told[string(m)] {
						t.Errorf("%s in pieces of %d keeps %q", c.Protocol, how.size, m)
					}
				}
				for id := range ids {
					if bytes.Contains(b, []byte(id)) {
						t.Errorf("%s in pieces of %d keeps the identity %q", c.Protocol, how.size, id)
					}
				}
			}
		}
	}
	if len(told) < 8 || len(seen) < 30 {
		t.Errorf("%d names in %d protocols: the test proves little", len(told), len(seen))
	}
}

func overTCP(protocol string) bool {
	return slices.ContainsFunc(samples.Conversations(), func(c samples.Conversation) bool { return c.Protocol == protocol && !c.UDP })
}
