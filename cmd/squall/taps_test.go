package main

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestLossByTap: one tap sees all, the other misses 40 % from the fourth minute on.
// What the first has must not hide what the second has not.
func TestLossByTap(t *testing.T) {
	dir := t.TempDir()
	east, west, kept := filepath.Join(dir, "east.pcap"), filepath.Join(dir, "west.pcap"), filepath.Join(dir, "kept")
	for _, args := range [][]string{
		{"sample", "skype-2010", "--clients", "60", "-w", east},
		{"sample", "skype-2010", "--clients", "60", "--tap-loss", "40%", "--tap-loss-at", "3m", "--tap-loss-rise", "1m", "-w", west},
		{"analyze", "-q", "east=" + east, "west=" + west, "-o", kept},
	} {
		if code, _, errs := squall(nil, args...); code != 0 {
			t.Fatal(errs)
		}
	}
	rows := table(t, "report", "loss", kept)
	sum := map[string][2]float64{}
	heavy := 0
	for _, r := range rows {
		seen, _ := strconv.ParseFloat(r["seen_bytes"], 64)
		unseen, _ := strconv.ParseFloat(r["unseen_bytes"], 64)
		if r["time"] >= "2010-12-22T16:04" {
			s := sum[r["observer_name"]]
			sum[r["observer_name"]] = [2]float64{s[0] + seen, s[1] + unseen}
		}
		if r["heavy"] == "true" {
			if heavy++; r["observer_name"] != "west" {
				t.Errorf("nothing is missing there: %v", r)
			}
		}
	}
	if s := sum["east"]; s[0] == 0 || s[1] != 0 {
		t.Errorf("east: %v bytes seen and unseen", s)
	}
	if s := sum["west"]; s[1]/(s[0]+s[1]) < 0.35 || s[1]/(s[0]+s[1]) > 0.45 {
		t.Errorf("west misses 40 %%: %v bytes seen and unseen", s)
	}
	if len(rows) < 400 || heavy < 20 {
		t.Errorf("%d seconds, %d under heavy loss", len(rows), heavy)
	}
	code, out, errs := squall(nil, "info", "-q", "east="+east, "west="+west)
	_, of, _ := strings.Cut(out, "tap west")
	if code != 0 || !strings.Contains(out, "0.0 % of") || !strings.Contains(of, "under heavy loss; worst") || !strings.Contains(of, "2010-12-22T16:0") {
		t.Errorf("exit %d: %s%s", code, errs, out)
	}
}
