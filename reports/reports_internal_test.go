package reports

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"squall/dissect"
)

// attempts makes rows with every kind of value, absent ones too.
func attempts(n int, seed uint64) []dissect.Attempt {
	rng := rand.New(rand.NewPCG(seed, 2))
	all := make([]dissect.Attempt, n)
	for i := range all {
		a := &all[i]
		a.ID, a.IntentID = rng.Uint64(), rng.Uint64()
		a.Start = 1292947200123456789 + int64(i)*1e6
		a.End = a.Start + rng.Int64N(1e9)
		a.Source = dissect.Endpoint{Addr: dissect.Addr4([]byte{10, 0, byte(i >> 8), byte(i)}), Port: uint16(rng.Uint32())}
		a.Destination = dissect.Endpoint{Addr: dissect.Addr4([]byte{198, 51, 100, 1}), Port: 5060}
		a.Proto = dissect.ProtoUDP
		a.Protocol = []string{"", "sip", "a \"b\", c|d\te\nf"}[i%3]
		a.Outcome = dissect.Outcome(i % int(dissect.NumOutcomes))
		a.HandshakeRTT, a.RetryGap = rng.Int64N(1e6)-1, -1
		a.Late = i%2 == 0
	}
	return all
}

func collect(t *testing.T, rows Rows) (out [][]Value) {
	t.Helper()
	for r, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, append([]Value(nil), r...))
	}
	return out
}

func equal(t *testing.T, what string, got, want [][]Value) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range want {
		for j := range want[i] {
			if got[i][j] != want[i][j] {
				t.Fatalf("%s: row %d, column %d: %+v, want %+v", what, i, j, got[i][j], want[i][j])
			}
		}
	}
}

// TestReadBack: Arrow and Parquet give back what was written, nanoseconds and
// absent values included.
func TestReadBack(t *testing.T) {
	table := Attempts()
	for seed := range uint64(3) {
		items := attempts(5000, seed)
		want := collect(t, table.Rows(&Env{Files: []string{"a.pcap"}}, each(items)))
		for _, name := range []string{"arrow", "parquet"} {
			f, err := FindFormat(name)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			n, err := Write(&b, f, &table.Table, table.Rows(&Env{Files: []string{"a.pcap"}}, each(items)), Options{})
			if err != nil || n != int64(len(items)) {
				t.Fatalf("%s: %d rows, %v", name, n, err)
			}
			var rows Rows
			if name == "arrow" {
				mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
				rows = readArrow(&b, &table.Table, mem)
				equal(t, name, collect(t, rows), want)
				mem.AssertSize(t, 0)
				continue
			}
			equal(t, name, collect(t, ReadParquet(bytes.NewReader(b.Bytes()), &table.Table)), want)
		}
	}
}

func TestTextFormats(t *testing.T) {
	table := Attempts()
	items := attempts(30, 1)
	for _, f := range Formats() {
		if f.Binary {
			continue
		}
		var b bytes.Buffer
		if _, err := Write(&b, f, &table.Table, table.Rows(&Env{}, each(items)), Options{}); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		switch f.Name {
		case "csv":
			rows, err := csv.NewReader(&b).ReadAll()
			if err != nil || len(rows) != 31 || len(rows[0]) != len(table.Columns) || rows[3][table.Index("network_protocol")] != items[2].Protocol {
				t.Errorf("csv: %d rows, %v", len(rows), err)
			}
		case "tsv":
			if len(lines) != 31 || strings.Count(lines[3], "\t") != len(table.Columns)-1 {
				t.Errorf("tsv: %d lines", len(lines))
			}
		case "json":
			var rows []map[string]any
			if err := json.Unmarshal(b.Bytes(), &rows); err != nil || len(rows) != 30 || rows[0]["event_start"] != "2010-12-21T16:00:00.123456789Z" {
				t.Errorf("json: %d rows, %v, %v", len(rows), err, rows[0]["event_start"])
			}
		case "jsonl":
			if len(lines) != 30 || !json.Valid([]byte(lines[2])) {
				t.Errorf("jsonl: %d lines", len(lines))
			}
		case "text", "markdown":
			if !strings.Contains(b.String(), "attempt_outcome") || !strings.Contains(b.String(), "198.51.100.1") {
				t.Errorf("%s: %.200s", f.Name, b.String())
			}
		}
	}
}

func TestQuery(t *testing.T) {
	table := Attempts()
	items := attempts(100, 1)
	run := func(q Query) ([][]Value, error) {
		_, rows, err := q.Apply(&table.Table, table.Rows(&Env{}, each(items)))
		if err != nil {
			return nil, err
		}
		return collect(t, rows), nil
	}
	got, err := run(Query{Where: `attempt_outcome == "refused" && source_port > 1000`, Columns: []string{"source_port,attempt_outcome"}, Sort: []string{"-source_port"}, Limit: 5})
	if err != nil || len(got) != 5 || len(got[0]) != 2 || got[0][0].Int < got[1][0].Int || got[4][1].Str != "refused" {
		t.Errorf("%v %v", got, err)
	}
	for _, tc := range []struct {
		q    Query
		want string
	}{
		{Query{Columns: []string{"source_prot"}}, "source_port"},
		{Query{Where: "sorce_ip == 1"}, "source_ip"},
		{Query{Where: `ip.addr == "10.0.0.1"`}, "source_ip"},
		{Query{Sort: []string{"nothing_like_it_at_all"}}, "nothing_like"},
		{Query{Where: "source_port >"}, "source_port >"},
		{Query{Limit: -1}, "limit"},
	} {
		if _, err := run(tc.q); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v, want %q in it", tc.q, err, tc.want)
		}
	}
}

// TestCommunityID: the vectors of the specification's reference implementation.
func TestCommunityID(t *testing.T) {
	e := func(a, b, c, d byte, port uint16) dissect.Endpoint {
		return dissect.Endpoint{Addr: dissect.Addr4([]byte{a, b, c, d}), Port: port}
	}
	if got := communityID(e(128, 232, 110, 120, 34855), e(66, 35, 250, 204, 80), 6); got != "1:LQU9qZlK+B5F3KDmev6m5PMibrg=" {
		t.Error(got)
	}
	if got := communityID(e(66, 35, 250, 204, 80), e(128, 232, 110, 120, 34855), 6); got != "1:LQU9qZlK+B5F3KDmev6m5PMibrg=" {
		t.Error("the other way round: " + got)
	}
	if got := communityID(e(192, 168, 1, 52, 54585), e(8, 8, 8, 8, 53), 17); got != "1:d/FP5EW3wiY1vCndhwleRRKHowQ=" {
		t.Error(got)
	}
}

// TestColumns: every column is described, once, in ECS style.
func TestColumns(t *testing.T) {
	for _, table := range []*Table{&Attempts().Table, &Captures().Table} {
		seen := map[string]bool{}
		for _, c := range table.Columns {
			if c.Doc == "" || seen[c.Name] || strings.ToLower(c.Name) != c.Name {
				t.Errorf("%s: column %q", table.Name, c.Name)
			}
			seen[c.Name] = true
		}
	}
}

// TestParquetIsTheSame: one table gives the same bytes each time, also where
// hardly a text comes twice.
func TestParquetIsTheSame(t *testing.T) {
	texts := make([]string, 30000)
	for i := range texts {
		texts[i] = fmt.Sprintf("%060d", i)
	}
	table := define("texts", "a text", true, str("text", "itself", func(s *string) string { return *s }))
	f, err := FindFormat("parquet")
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	for i := range 8 {
		var b bytes.Buffer
		if _, err := Write(&b, f, &table.Table, table.List(texts), Options{}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = b.Bytes()
		} else if !bytes.Equal(b.Bytes(), first) {
			t.Fatalf("written the %dth time it is other bytes", i+1)
		}
	}
}

// TestRowsAhead: rows made ahead of the writer come whole and in order, up to an
// error, and no more of them are asked for once the writer has failed.
func TestRowsAhead(t *testing.T) {
	table := define("numbers", "a number", true, num("number", "", "itself", func(n *int) int64 { return int64(*n) }))
	made := 0
	count := func(upTo int) Rows {
		return table.Rows(&Env{}, func(yield func(*int, error) bool) {
			for made = 0; made < upTo; made++ {
				if n := made; !yield(&n, nil) {
					return
				}
			}
			yield(nil, errors.New("torn"))
		})
	}
	for _, n := range []int{0, 1, aheadRows - 1, aheadRows, aheadRows + 1, 3*aheadRows + 7} {
		var b bytes.Buffer
		wrote, err := Write(&b, Format{Name: "csv", Open: openCSV}, &table.Table, count(n), Options{})
		if err == nil || err.Error() != "torn" || wrote != int64(n) {
			t.Errorf("of %d rows %d were written: %v", n, wrote, err)
		}
		want := "number\n"
		for i := range n {
			want += strconv.Itoa(i) + "\n"
		}
		if b.String() != want {
			t.Errorf("%d rows: wrote %q", n, b.String())
		}
	}
	full := Format{Name: "full", Open: func(io.Writer, *Table, Options) (Sink, error) { return fullSink{}, nil }}
	if _, err := Write(nil, full, &table.Table, count(1e6), Options{}); err == nil || made > 4*aheadRows {
		t.Errorf("%v after %d rows", err, made)
	}
}

// fullSink has no room for a row.
type fullSink struct{}

func (fullSink) Write([]Value) error { return io.ErrShortWrite }
func (fullSink) Close() error        { return nil }

// TestDamagedTables: the library panics over some damaged bytes of Parquet; the rows end
// with an error then, wherever the damage is.
func TestDamagedTables(t *testing.T) {
	table := Attempts()
	items := attempts(50, 1)
	for _, name := range []string{"parquet"} {
		f, err := FindFormat(name)
		if err != nil {
			t.Fatal(err)
		}
		var whole bytes.Buffer
		if _, err := Write(&whole, f, &table.Table, table.Rows(&Env{Files: []string{"a.pcap"}}, each(items)), Options{}); err != nil {
			t.Fatal(err)
		}
		failed := 0
		for at := 0; at < whole.Len(); at += 61 {
			b := bytes.Clone(whole.Bytes())
			b[at] ^= 0x41
			rows := ReadParquet(bytes.NewReader(b), &table.Table)
			n := 0
			for _, err := range rows {
				if err != nil {
					failed++
					break
				}
				n++
			}
			if n > len(items) {
				t.Errorf("%s: byte %d: %d rows of %d", name, at, n, len(items))
			}
		}
		if failed == 0 {
			t.Errorf("%s: nothing fails", name)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("the consumer's own panic is gone")
		}
	}()
	for range guarded("x", func(yield func([]Value, error) bool) error { yield(nil, nil); return nil }) {
		panic("ours")
	}
}
