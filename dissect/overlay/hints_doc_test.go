package overlay

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// docs/hints.md: every block of YAML is read, and the two worked examples are
// the files that TestAttach and TestHoneycomb try.
func TestHintsDocument(t *testing.T) {
	page, err := os.ReadFile("../../docs/hints.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, part := range strings.Split(string(page), "\n```yaml\n")[1:] {
		block, _, ended := strings.Cut(part, "```\n")
		if !ended {
			t.Fatal("a block without an end")
		}
		if _, _, err := LoadHints(strings.NewReader(block), "docs/hints.md"); err != nil {
			t.Errorf("%v in\n%s", err, block)
		}
		blocks = append(blocks, block)
	}
	for _, name := range []string{"attach.yaml", "honeycomb.yaml"} {
		want, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, b := range blocks {
			found = found || b == string(want)
		}
		if !found {
			t.Errorf("docs/hints.md does not show %s as it is", name)
		}
	}
	// Every key of the format is in the page's tables.
	for _, key := range strings.FieldsFunc("name about transport ports role encrypted probe frame pair client version messages kind from chain retry_after lifetime timeout "+conditionKeys, func(r rune) bool { return r == ' ' || r == ',' }) {
		if !bytes.Contains(page, []byte("`"+key+"`")) {
			t.Errorf("docs/hints.md does not explain %s", key)
		}
	}
}
