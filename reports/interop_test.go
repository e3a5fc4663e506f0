//go:build integration

package reports_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/reports"
	"squall/samples"
)

// reader is what other people's readers say of the two files, in the same
// words as we do. DuckDB reads Parquet, Apache's own library reads Arrow.
const reader = `
const { readFileSync } = require('fs');
const { DuckDBInstance } = require('@duckdb/node-api');
const { tableFromIPC } = require('apache-arrow');
(async () => {
  const db = await (await DuckDBInstance.create(':memory:')).connect();
  const r = await db.runAndReadAll("select count(*), min(epoch_ns(event_start)), max(epoch_ns(event_end)), sum(transmissions), " +
    "count(distinct attempt_id), count(*) filter (where late), min(client_id), any_value(typeof(event_start)) from 'attempts.parquet'");
  const parquet = r.getRows()[0].map(String);
  const t = tableFromIPC(readFileSync('attempts.arrows'));
  const col = n => t.getChild(n);
  let min, max, sent = 0n, late = 0, ids = new Set(), client;
  const start = col('event_start').data.flatMap(d => Array.from(d.values)), end = col('event_end').data.flatMap(d => Array.from(d.values));
  for (let i = 0; i < t.numRows; i++) {
    if (min === undefined || start[i] < min) min = start[i];
    if (max === undefined || end[i] > max) max = end[i];
    sent += BigInt(col('transmissions').get(i));
    if (col('late').get(i)) late++;
    ids.add(col('attempt_id').get(i));
    const c = col('client_id').get(i);
    if (client === undefined || c < client) client = c;
  }
  const arrow = [t.numRows, min, max, sent, ids.size, late, client, String(col('event_start').type)].map(String);
  const l = await db.runAndReadAll("select count(*), count(distinct dt), min(cast(dt as varchar)), count(distinct shard) <= 4, count(distinct client_id || '/' || shard) = count(distinct client_id), " +
    "any_value(typeof(event_start)) from read_parquet('lake/**/*.parquet', hive_partitioning = true)");
  const lake = l.getRows()[0].map(String);
  console.log(JSON.stringify({ parquet, arrow, lake }));
})().catch(e => { console.error(e); process.exit(1); });
`

// TestOthersReadIt: DuckDB and Apache Arrow read what we wrote, nanoseconds
// included.
func TestOthersReadIt(t *testing.T) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("needs npm, to install DuckDB and apache-arrow (Debian: apt-get install npm)")
	}
	dir := t.TempDir()
	install := exec.Command(npm, "install", "--no-audit", "--no-fund", "--prefix", dir, "@duckdb/node-api@1.5.6-r.1", "apache-arrow@21.2.0")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("needs the npm registry, or a mirror that `npm config set registry` names: npm install: %v\n%s", err, out)
	}
	src, w := io.Pipe()
	go func() {
		_, err := samples.Write(w, "s13", 3, capture.WriterOptions{})
		w.CloseWithError(err)
	}()
	in, err := capture.Open([]string{"-"}, capture.Options{Stdin: src})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	a, err := pipeline.Run(context.Background(), pipeline.Config{}, in)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	results := reports.NewResults(a, storm.Config{})
	for _, name := range []string{"parquet", "arrow"} {
		f, err := reports.FindFormat(name)
		if err != nil {
			t.Fatal(err)
		}
		table, rows, err := results.Table("attempts")
		if err != nil {
			t.Fatal(err)
		}
		h, err := os.Create(filepath.Join(dir, "attempts"+f.Ext))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reports.Write(h, f, table, rows, reports.Options{}); err != nil {
			t.Fatal(err)
		}
		h.Close()
	}
	table, rows, err := results.Table("attempts")
	if err == nil {
		_, err = reports.WriteHive(filepath.Join(dir, "lake"), table, rows, 4, reports.Options{ParquetMicros: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	var n, first, last, sent, late int64
	client := ""
	for r := range a.Attempts() {
		if n == 0 || r.Start < first {
			first = r.Start
		}
		last = max(last, r.End)
		if n++; client == "" || r.ClientID < client {
			client = r.ClientID
		}
		sent += int64(r.Transmissions)
		if r.Late {
			late++
		}
	}
	want := fmt.Sprintf("[%d %d %d %d %d %d %s", n, first, last, sent, n, late, client)
	if err := os.WriteFile(filepath.Join(dir, "read.js"), []byte(reader), 0o600); err != nil {
		t.Fatal(err)
	}
	node := exec.Command("node", "read.js")
	node.Dir = dir
	out, err := node.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var said struct{ Parquet, Arrow, Lake []string }
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := fmt.Sprint(said.Parquet); got != want+" TIMESTAMP_NS]" {
		t.Errorf("DuckDB reads %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(said.Lake), fmt.Sprintf("[%d 1 2010-12-22 true true TIMESTAMP]", n); got != want {
		t.Errorf("DuckDB reads of the lake %s, want %s", got, want)
	}
	if got := fmt.Sprint(said.Arrow); got != want+" Timestamp<NANOSECOND>]" {
		t.Errorf("Arrow reads %s, want %s", got, want)
	}
}
