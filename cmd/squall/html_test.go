package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnalyzeWritesAPage: -T html and -o give the same page, with the commands
// that make it again.
func TestAnalyzeWritesAPage(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	squall(nil, "sample", "outage", "-w", at("o.pcap"))
	if code, _, errs := squall(nil, "analyze", at("o.pcap"), "-f", "tcp", "-o", at("kept"), "-T", "html", "-w", at("o.html")); code != 0 {
		t.Fatal(errs)
	}
	page, err := os.ReadFile(at("o.html"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(at("kept"), "report.html"))
	if err != nil || string(kept) != string(page) {
		t.Errorf("report.html is another page (%v)", err)
	}
	if !strings.HasPrefix(string(page), "<!DOCTYPE html>") || !strings.Contains(string(page), "squall report nodes --filter=tcp "+at("o.pcap")+" -T csv") {
		t.Errorf("%.200s", page)
	}
}
