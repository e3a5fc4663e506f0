package dissect_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed is which of our packages a package may import.
var allowed = map[string][]string{
	"capture":          {},
	"dissect":          {"capture"},
	"dissect/headers":  {"dissect", "capture"},
	"dissect/overlay":  {"dissect"},
	"dissect/attempt":  {"dissect"},
	"dissect/flowlog":  {"dissect", "dissect/attempt"},
	"dissect/storm":    {"dissect"},
	"dissect/taps":     {"capture", "dissect", "dissect/headers"},
	"dissect/frozen":   {},
	"dissect/pipeline": {"capture", "dissect", "dissect/frozen", "dissect/headers", "dissect/overlay", "dissect/attempt", "dissect/storm", "dissect/taps"},
	"replay":           {"replay/socket", "capture", "dissect", "dissect/headers", "dissect/overlay", "dissect/attempt", "dissect/storm", "dissect/pipeline"},
	"replay/socket":    {},
	"replay/testnode":  {"replay", "replay/socket", "dissect", "dissect/overlay"},
	"reports":          {"capture", "dissect", "dissect/overlay", "dissect/storm", "dissect/pipeline", "replay"},
	"samples":          {"capture", "dissect"},
	"cmd/squall": {"capture", "dissect", "dissect/headers", "dissect/overlay", "dissect/attempt", "dissect/flowlog", "dissect/storm", "dissect/taps", "dissect/pipeline",
		"replay", "replay/testnode", "reports", "samples"},
}

// homes is where a library may be imported at all.
var homes = map[string]string{
	"github.com/spf13/cobra":               "cmd/squall",
	"github.com/olekukonko/tablewriter":    "reports",
	"github.com/apache/arrow/go/v15":       "reports",
	"github.com/expr-lang/expr":            "reports",
	"github.com/klauspost/compress":        "capture",
	"github.com/pierrec/lz4/v4":            "capture",
	"golang.org/x/net/bpf":                 "capture",
	"github.com/oschwald/maxminddb-golang": "reports",
	"github.com/gaissmai/bart":             "replay",
	"github.com/HdrHistogram":              "replay",
	"github.com/goccy/go-yaml":             "dissect/overlay",
}

// forbidden pulls in a cloud, or hides what is wrong with a capture.
var forbidden = []string{
	"github.com/apache/arrow/go/v15/parquet/pqarrow",
	"github.com/apache/arrow/go/v15/arrow/compute",
	"github.com/apache/arrow/go/v15/arrow/flight",
	"github.com/google/gopacket/pcap",
	"github.com/google/gopacket/afpacket",
	"github.com/google/gopacket/reassembly",
	"github.com/google/gopacket/ip4defrag",
}

// TestImports reads the sources: who imports whom goes one way, and every
// package says what it is for.
func TestImports(t *testing.T) {
	root := ".."
	documented := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "build" || d.Name() == "testdata" || len(d.Name()) > 2 && d.Name()[0] == '.') {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, _ := filepath.Rel(root, path)
		pkg := filepath.ToSlash(filepath.Dir(rel))
		ours, known := allowed[pkg]
		if !known {
			t.Errorf("%s: package %s has no line in the table of allowed imports", rel, pkg)
			return nil
		}
		test := strings.HasSuffix(path, "_test.go")
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		if !test {
			documented[pkg] = documented[pkg] || file.Doc != nil
		}
		for _, i := range file.Imports {
			name := strings.Trim(i.Path.Value, `"`)
			if slices.Contains(forbidden, name) {
				t.Errorf("%s imports %s", rel, name)
			}
			if test {
				continue
			}
			if own, ok := strings.CutPrefix(name, "squall/"); ok && !slices.Contains(ours, own) {
				t.Errorf("%s imports %s, package %s may not", rel, own, pkg)
			}
			for lib, home := range homes {
				if (name == lib || strings.HasPrefix(name, lib+"/")) && pkg != home {
					t.Errorf("%s imports %s, whose home is %s", rel, name, home)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %s: no package comment", pkg)
		}
	}
}
