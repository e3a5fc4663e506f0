package reports_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squall/reports"
)

// TestHive: every row lies under its day, all rows of a client in one shard of
// it, also where more partitions are written by turns than are held open.
func TestHive(t *testing.T) {
	table := &reports.Table{Name: "x", Columns: []reports.Column{{Name: "event_start", Kind: reports.Time}, {Name: "client_id", Kind: reports.String}}}
	const day = 86400e9
	rows := func(yield func([]reports.Value, error) bool) {
		for i := range int64(3000) {
			if !yield([]reports.Value{{Int: i/750%3*day + i, Null: i%100 == 99}, {Str: fmt.Sprint("c", i%50)}}, nil) {
				return
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "lake")
	n, err := reports.WriteHive(dir, table, rows, 60, reports.Options{})
	if err != nil || n != 3000 {
		t.Fatalf("%d rows: %v", n, err)
	}
	seen, parts, first := 0, 0, 0
	shardOf := map[string]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		var dt, shard string
		if _, err := fmt.Sscanf(strings.NewReplacer("/", " ", "=", " ").Replace(rel), "dt %s shard %s", &dt, &shard); err != nil || !strings.HasPrefix(filepath.Base(path), "part-") {
			t.Errorf("%s: %v", rel, err)
		}
		if parts++; filepath.Base(path) == "part-0000.parquet" {
			first++
		}
		h, err := os.Open(path)
		if err != nil {
			return err
		}
		defer h.Close()
		for row, err := range reports.ReadParquet(h, table) {
			if err != nil {
				return err
			}
			seen++
			want := "__HIVE_DEFAULT_PARTITION__"
			if !row[0].Null {
				want = fmt.Sprintf("1970-01-%02d", 1+row[0].Int/day)
			}
			if dt != want {
				t.Errorf("%s: a row of %s", rel, want)
			}
			if s := shardOf[row[1].Str]; s != "" && s != shard {
				t.Errorf("client %s in shards %s and %s", row[1].Str, s, shard)
			}
			shardOf[row[1].Str] = shard
		}
		return nil
	})
	if err != nil || seen != 3000 || parts == first {
		t.Errorf("%v: %d rows in %d parts of %d partitions", err, seen, parts, first)
	}
	if _, err := reports.WriteHive(dir, table, rows, 60, reports.Options{}); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("written over: %v", err)
	}
	if _, err := reports.WriteHive(dir, &reports.Table{Name: "x", Columns: table.Columns[1:]}, rows, 1, reports.Options{}); err == nil {
		t.Error("days were made of nothing")
	}
}
