package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mmdb writes a database in the MaxMind DB format, version 2.0: a search tree of
// 24-bit records, the data, the metadata. Longer prefixes override shorter ones.
func mmdb(t *testing.T, records map[string]map[string]any) []byte {
	t.Helper()
	type nodes = [2]int // child, or -1-offset of data; 0 = nothing
	tree := []nodes{{}}
	var data []byte
	prefixes := []netip.Prefix{}
	for text := range records {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	sort.Slice(prefixes, func(i, j int) bool {
		if a, b := prefixes[i].Bits(), prefixes[j].Bits(); a != b {
			return a < b
		}
		return prefixes[i].String() < prefixes[j].String()
	})
	for _, p := range prefixes {
		leaf := -1 - len(data)
		data = append(data, value(t, records[p.String()])...)
		addr, bits := p.Addr().As16(), p.Bits()
		if p.Addr().Is4() { // ::/96
			four := p.Addr().As4()
			addr, bits = [16]byte{}, bits+96
			copy(addr[12:], four[:])
		}
		at := 0
		for i := range bits {
			b := int(addr[i/8] >> (7 - i%8) & 1)
			if i == bits-1 {
				tree[at][b] = leaf
				break
			}
			if next := tree[at][b]; next <= 0 {
				tree = append(tree, nodes{next, next})
				tree[at][b] = len(tree) - 1
			}
			at = tree[at][b]
		}
	}
	var out []byte
	for _, n := range tree {
		for _, v := range n {
			switch {
			case v == 0:
				v = len(tree)
			case v < 0:
				v = -1 - v + len(tree) + 16
			}
			out = append(out, byte(v>>16), byte(v>>8), byte(v))
		}
	}
	out = append(append(out, make([]byte, 16)...), data...)
	out = append(out, "\xab\xcd\xefMaxMind.com"...)
	return append(out, value(t, map[string]any{"node_count": uint32(len(tree)), "record_size": uint16(24), "ip_version": uint16(6), "database_type": "squall test",
		"languages": []string{"en"}, "binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0), "build_epoch": uint64(1), "description": map[string]any{"en": "test"}})...)
}

func value(t *testing.T, v any) []byte {
	head := func(kind, size int) []byte {
		if size > 28 {
			t.Fatalf("%v is too long for this writer", v)
		}
		if kind > 7 {
			return []byte{byte(size), byte(kind - 7)}
		}
		return []byte{byte(kind<<5 | size)}
	}
	switch v := v.(type) {
	case string:
		return append(head(2, len(v)), v...)
	case uint16:
		return binary.BigEndian.AppendUint16(head(5, 2), v)
	case uint32:
		return binary.BigEndian.AppendUint32(head(6, 4), v)
	case uint64:
		return binary.BigEndian.AppendUint64(head(9, 8), v)
	case []string:
		b := head(11, len(v))
		for _, s := range v {
			b = append(b, value(t, s)...)
		}
		return b
	case map[string]any:
		b := head(7, len(v))
		keys := []string{}
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			b = append(append(b, value(t, k)...), value(t, v[k])...)
		}
		return b
	}
	t.Fatalf("%T", v)
	return nil
}

// TestMaxMind: databases as they are sold, one of one's own, and a CSV beside them.
func TestMaxMind(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	attempts := write("attempts.csv", []byte("event_start,source_ip,source_port,destination_ip,destination_port,network_transport,attempt_outcome\n"))
	pcap := sampled(t, "outage")
	first := table(t, "report", "attempts", pcap, "--limit", "1")[0]["source_ip"] // 10.1.x.y
	city := write("city.mmdb", mmdb(t, map[string]map[string]any{
		"10.0.0.0/8":     {"country": map[string]any{"iso_code": "DE"}, "city": map[string]any{"names": map[string]any{"en": "Berlin"}}},
		first + "/32":    {"country": map[string]any{"iso_code": "FR"}},
		"2001:db8::/32":  {"registered_country": map[string]any{"iso_code": "SE"}},
		"192.168.0.0/16": {"country": "US"}}))
	asn := write("asn.mmdb", mmdb(t, map[string]map[string]any{"10.0.0.0/8": {"asn": "as64500"}}))
	own := write("own.csv", []byte("prefix,site\n"+first+"/32,desk\n"))
	rows := table(t, "report", "attempts", pcap, "--groups", own, "--groups", city, "--groups", asn)
	seen := map[string]int{}
	for _, r := range rows {
		got := r["source_geo_name"] + " " + r["source_as_number"] + " " + r["source_geo_country_iso_code"]
		want := "Berlin 64500 DE"
		if r["source_ip"] == first {
			want = "desk 64500 FR"
		}
		if seen[got]++; got != want {
			t.Fatalf("%s: %q, want %q", r["source_ip"], got, want)
		}
	}
	if len(seen) != 2 {
		t.Errorf("%v", seen)
	}
	// One that lies: cut behind its tree, and one that is none.
	b, err := os.ReadFile(asn)
	if err != nil {
		t.Fatal(err)
	}
	mark := strings.Index(string(b), "\xab\xcd\xef")
	for i := mark - 40; i < mark; i++ {
		b[i] = 0xff
	}
	bad := write("bad.mmdb", b)
	if code, _, errs := squall(nil, "report", "attempts", pcap, "-q", "-T", "csv", "--groups", bad); code != exitDamaged || !strings.Contains(errs, bad) {
		t.Errorf("exit %d: %s", code, errs)
	}
	for _, broken := range []string{write("cut.mmdb", b[mark:]), attempts} {
		if code, _, errs := squall(nil, "report", "attempts", pcap, "--groups", broken); code != exitUsage || !strings.Contains(errs, broken) {
			t.Errorf("exit %d: %s", code, errs)
		}
	}
}

// TestGroupsEverywhere: of a capture and of a kept case the tables have the group,
// and what findings and time lines say of groups is what the attempts say.
func TestGroupsEverywhere(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	pcap := sampled(t, "outage")
	first := table(t, "report", "attempts", pcap, "--limit", "1")[0]["source_ip"]
	net := first[:strings.LastIndex(first, ".")]
	groups, events, kept := filepath.Join(dir, "groups.csv"), filepath.Join(dir, "events.csv"), filepath.Join(dir, "kept")
	for path, text := range map[string]string{groups: "prefix,site\n" + net + ".0/27,north\n" + net + ".0/24,south\n", events: "time,text\n2010-12-22T16:00:30Z,deploy\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, errs := squall(nil, "analyze", pcap, "-q", "-o", kept, "--groups", groups, "--events", events); code != 0 {
		t.Fatal(errs)
	}
	bare := filepath.Join(dir, "bare")
	if code, _, errs := squall(nil, "analyze", pcap, "-q", "-o", bare); code != 0 {
		t.Fatal(errs)
	}
	for _, name := range []string{"attempts", "intents", "clients", "sources", "findings", "group_timeline", "group_versions", "group_policies", "impact"} {
		a, b, c := table(t, "report", name, pcap, "--groups", groups), table(t, "report", name, kept), table(t, "report", name, bare, "--groups", groups)
		if fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a) != fmt.Sprint(c) || len(a) == 0 {
			t.Errorf("%s: %d, %d and %d rows, or others", name, len(a), len(b), len(c))
		}
		if _, ok := a[0]["source_geo_name"]; ok {
			sites := map[string]int{}
			for _, r := range a {
				sites[r["source_geo_name"]]++
			}
			if len(sites) != 2 || sites["north"] == 0 || sites["south"] == 0 {
				t.Errorf("%s: %v", name, sites)
			}
		}
	}
	if len(table(t, "report", "group_timeline", bare)) != 0 || table(t, "report", "findings", bare)[0]["groups_hit"] != "" {
		t.Error("groups without --groups")
	}
	if rows := table(t, "sources", kept, "--groups", groups); rows[0]["source_geo_name"] == "" {
		t.Errorf("%v", rows[0])
	}
	// A kept case is told again with what it was made with.
	if _, out, errs := squall(nil, "events", kept); !strings.Contains(out, "deploy") || strings.Contains(errs, "left out") {
		t.Errorf("%s%s", out, errs)
	}
	f := table(t, "report", "findings", kept)[0]
	hit, tried := map[string]map[string]bool{}, map[string]map[string]bool{}
	counts := map[string]int{}
	for _, a := range table(t, "report", "attempts", kept) {
		if a["relation"] == "refresh" || a["relation"] == "parallel" {
			continue
		}
		site := a["source_geo_name"]
		at, err := time.Parse(time.RFC3339Nano, a["event_start"])
		if err != nil {
			t.Fatal(err)
		}
		counts[at.Truncate(10*time.Second).Format("15:04:05")+site]++
		if a["event_start"] < f["onset"] || f["end"] != "" && a["event_start"] > f["end"] {
			continue
		}
		if hit[site] == nil {
			hit[site], tried[site] = map[string]bool{}, map[string]bool{}
		}
		tried[site][a["client_id"]] = true
		if a["event_outcome"] == "failure" {
			hit[site][a["client_id"]] = true
		}
	}
	for site := range hit {
		if want := fmt.Sprintf("site %s: %d of %d clients", site, len(hit[site]), len(tried[site])); !strings.Contains(f["groups_hit"], want) {
			t.Errorf("no %q in %q", want, f["groups_hit"])
		}
	}
	if _, out, _ := squall(nil, "analyze", pcap, "-q", "--groups", groups); !strings.Contains(out, "failed, site north: ") {
		t.Error(out)
	}
	for _, w := range table(t, "report", "group_timeline", kept) {
		at, err := time.Parse(time.RFC3339Nano, w["window_start"])
		if err != nil {
			t.Fatal(err)
		}
		k := at.Format("15:04:05") + w["group"]
		if n, _ := strconv.Atoi(w["attempts"]); n != counts[k] {
			t.Errorf("%s: %d attempts, want %d", k, n, counts[k])
		}
		delete(counts, k)
	}
	if len(counts) > 0 {
		t.Errorf("not in the time line: %v", counts)
	}
	split, whole := map[string]int{}, map[string]int{}
	for _, a := range table(t, "report", "attempts", kept) {
		switch a["relation"] {
		case "first", "retry", "failover", "reattach":
			whole[a["client_version"]+" at "+a["source_geo_name"]]++
		}
	}
	for _, v := range table(t, "report", "group_versions", kept, "--where", `by == "site"`) {
		n, _ := strconv.Atoi(v["attempts"])
		split[v["client_version"]+" at "+v["group"]] += n
		if retries, _ := strconv.Atoi(v["retries"]); (retries > 0) != (v["retry_gap_p50_ns"] != "") || v["policy_family"] == "" {
			t.Errorf("%v", v)
		}
	}
	if fmt.Sprint(split) != fmt.Sprint(whole) || len(whole) < 2 {
		t.Errorf("attempts by version and site: %v, want %v", split, whole)
	}
	if code, out, _ := squall(nil, "verify", kept); code != 0 || !strings.Contains(out, "ok       groups "+groups) || !strings.Contains(out, "ok       events "+events) {
		t.Error(out)
	}
	for _, file := range []string{groups, events} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-2]++
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, _ := squall(nil, "verify", kept); code != 1 || !strings.Contains(out, file) || !strings.Contains(out, "CHANGED") {
			t.Errorf("exit %d: %s", code, out)
		}
		if _, _, errs := squall(nil, "events", kept); !strings.Contains(errs, file+" is not what it was") {
			t.Error(errs)
		}
		b[len(b)-2]--
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPolicyOfGroup: one service, two sites whose clients wait otherwise.
func TestPolicyOfGroup(t *testing.T) {
	dir := t.TempDir()
	attempts, groups := filepath.Join(dir, "conn.log"), filepath.Join(dir, "groups.csv")
	rows := "#separator \\x09\n#path\tconn\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_bytes\tresp_bytes\tconn_state\thistory\n"
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for site, wait := range map[string]func(k int) time.Duration{
		"10.1": func(int) time.Duration { return 2 * time.Second },
		"10.2": func(k int) time.Duration { return time.Second << k },
	} {
		for c := range 60 {
			at := begin.Add(time.Duration(c) * 37 * time.Millisecond)
			for k := range 6 {
				rows += fmt.Sprintf("%.6f\tC%d\t%s.0.%d\t%d\t192.0.2.1\t7654\ttcp\t0.001\t0\t0\tREJ\tSr\n", float64(at.UnixMicro())/1e6, len(rows), site, c+1, 2000+k)
				at = at.Add(wait(k))
			}
		}
	}
	for path, text := range map[string]string{attempts: rows, groups: "prefix,site,country\n10.1.0.0/16,east,DE\n10.2.0.0/16,west,DE\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for _, p := range table(t, "report", "group_policies", attempts, "--groups", groups) {
		got[p["by"]+" "+p["group"]] = strings.Join([]string{p["clients"], p["family"], p["base_ns"], p["factor"]}, " ")
	}
	near := func(k, family string, base, factor float64) {
		f := strings.Fields(got[k])
		if len(f) < 3 || f[0] != "60" || f[1] != family {
			t.Errorf("%s: %q", k, got[k])
			return
		}
		if b, _ := strconv.ParseFloat(f[2], 64); b < 0.95*base || b > 1.05*base {
			t.Errorf("%s: waits %v ns first, want %v", k, b, base)
		}
		if factor == 0 {
			return
		}
		if v, _ := strconv.ParseFloat(f[3], 64); v < 0.95*factor || v > 1.05*factor {
			t.Errorf("%s: factor %v, want %v", k, v, factor)
		}
	}
	near("site east", "fixed", 2e9, 0)
	near("site west", "exponential", 1e9, 2)
	if len(got) != 3 || !strings.HasPrefix(got["country DE"], "120 ") { // no ASN is known
		t.Errorf("%v", got)
	}
	if rows := table(t, "report", "group_policies", attempts); len(rows) != 0 {
		t.Errorf("without groups: %v", rows)
	}
}
