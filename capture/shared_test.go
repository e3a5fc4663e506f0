package capture_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shared is the folder of real captures beside the repository; tests that
// need it skip without it.
func shared(t *testing.T) string {
	t.Helper()
	dir := "../../shared/captures"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	return dir
}

// truth reads a table of the shared captures, by file.
func truth(t *testing.T, name string) map[string]map[string]string {
	t.Helper()
	h, err := os.Open(filepath.Join(shared(t), name))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	r := csv.NewReader(h)
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]map[string]string{}
	for _, l := range lines[1:] {
		row := map[string]string{}
		for i, v := range l {
			row[lines[0][i]] = strings.TrimSpace(v)
		}
		rows[l[0]] = row
	}
	return rows
}
