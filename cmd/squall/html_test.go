package main

import (
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAnalyzeWritesAPage: -T html and -o give the same page, and every command
// of squall that stands in it runs as it is printed.
func TestAnalyzeWritesAPage(t *testing.T) {
	t.Chdir(t.TempDir())
	squall(nil, "sample", "outage", "-w", "o.pcap")
	if code, _, errs := squall(nil, "analyze", "o.pcap", "-f", "tcp", "-o", "kept", "-T", "html", "-w", "o.html"); code != 0 {
		t.Fatal(errs)
	}
	page, err := os.ReadFile("o.html")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join("kept", "report.html"))
	if err != nil || string(kept) != string(page) {
		t.Errorf("report.html is another page (%v)", err)
	}
	ran := map[string]bool{}
	for _, m := range regexp.MustCompile(`<code>squall ([^<]*)</code>`).FindAllStringSubmatch(string(page), -1) {
		words := strings.Fields(html.UnescapeString(m[1]))
		if testing.Short() && words[0] == "report" && words[1] != "nodes" {
			continue
		}
		ran[m[1]] = true
		if code, out, errs := squall(nil, words...); code != 0 || out == "" && !strings.Contains(m[1], " -w ") {
			t.Errorf("squall %s: exit %d %s", m[1], code, errs)
		}
	}
	if len(ran) < 5 {
		t.Errorf("only %v", ran)
	}
	if again, _ := os.ReadFile("report.html"); string(again) != string(page) {
		t.Error("the page's own command gives another page")
	}
}
