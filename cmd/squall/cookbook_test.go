//go:build integration

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestCookbookSQL: DuckDB runs squall.sql and every statement of the cookbook.
func TestCookbookSQL(t *testing.T) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("needs npm, to install DuckDB (Debian: apt-get install npm)")
	}
	page, err := os.ReadFile("../../docs/cookbook.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	install := exec.Command(npm, "install", "--no-audit", "--no-fund", "--prefix", dir, "@duckdb/node-api@1.5.6-r.1")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("needs the npm registry, or a mirror that `npm config set registry` names: npm install: %v\n%s", err, out)
	}
	kept := filepath.Join(dir, "outage")
	if code, _, errs := squall(nil, "analyze", "-q", sampled(t, "outage"), "-o", kept); code != 0 {
		t.Fatal(errs)
	}
	var statements []string
	for _, m := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(page, -1) {
		statements = append(statements, string(m[1]))
	}
	if len(statements) < 5 {
		t.Fatalf("%d statements", len(statements))
	}
	list, _ := json.Marshal(statements)
	script := `const fs = require('fs'), { DuckDBInstance } = require(process.argv[1] + '/node_modules/@duckdb/node-api');
(async () => {
  const db = await (await DuckDBInstance.create(':memory:')).connect();
  await db.run(fs.readFileSync('squall.sql', 'utf8'));
  for (const s of ` + string(list) + `) {
    const r = await db.runAndReadAll(s);
    console.log(s.split('\n')[0], '->', r.currentRowCount, 'rows', JSON.stringify(r.getRowsJson().slice(0, 3)));
  }
})().catch(e => { console.error(e); process.exit(1); });`
	run := exec.Command("node", "-e", script, "--", dir)
	run.Dir = kept
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
