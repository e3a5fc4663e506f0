package pipeline_test

import (
	"bytes"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

// TestGiven: the rows of an analysis, given to another, are judged alike.
func TestGiven(t *testing.T) {
	var b bytes.Buffer
	if _, err := samples.Write(&b, "outage", 1, capture.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
	src, err := capture.Open([]string{"-"}, capture.Options{Stdin: &b})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	a, err := pipeline.Run(t.Context(), pipeline.Config{Protocols: overlay.All()}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var rows []dissect.Attempt
	for x, err := range a.Attempts() {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, *x)
	}
	given := pipeline.Given(a.Captures(), rows)
	judge := func(a *pipeline.Analysis) *storm.Report {
		r, err := a.Judge(storm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want, got := judge(a), judge(given)
	if got.Verdict.Class != want.Verdict.Class || got.Verdict.Onset != want.Verdict.Onset || got.Totals.Counts != want.Totals.Counts || got.Totals.Clients != want.Totals.Clients ||
		len(got.Nodes) != len(want.Nodes) || want.Totals.Attempts == 0 {
		t.Errorf("%+v\n%+v", got.Totals, want.Totals)
	}
	clients, intents := 0, 0
	for _, err := range given.Clients() {
		if err == nil {
			clients++
		}
	}
	for _, err := range given.Intents() {
		if err == nil {
			intents++
		}
	}
	if int64(clients) != want.Totals.Clients || int64(intents) != want.Totals.Intents+want.Totals.Refreshes {
		t.Errorf("%d clients and %d intents of %+v", clients, intents, want.Totals)
	}
	if given.FromPackets() || !a.FromPackets() || given.Save(&b) == nil {
		t.Error("given rows are saved as if they had been packets")
	}
}
