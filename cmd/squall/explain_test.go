package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"squall/dissect/storm"
	"squall/reports"
)

// made writes a sample and gives its path.
func made(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".pcap")
	if code, _, errs := squall(nil, append([]string{"sample", name, "-w", path}, args...)...); code != 0 {
		t.Fatal(errs)
	}
	return path
}

// analysed reads a capture as the verbs do.
func analysed(t *testing.T, path string) *reports.Results {
	t.Helper()
	cmd := newRoot()
	cmd.SetContext(context.Background())
	results, err := (&source{quiet: true, workers: 2}).analyse(cmd, []string{path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { results.Analysis.Close() })
	return results
}

// TestScreensFit: nothing is wider than the terminal, nothing is cut, analyze
// takes 50 lines at most where there are 100 columns, and no colour is drawn unless it was asked for.
func TestScreensFit(t *testing.T) {
	sources := []string{made(t, "outage")}
	if !testing.Short() {
		sources = append(sources, made(t, "skype-2010", "--clients", "200"), made(t, "s10", "--clients", "300"), made(t, "n2", "--trigger", "60s", "--duration", "75s"))
	}
	for _, path := range sources {
		r := analysed(t, path)
		e, err := reports.Explain(r, reports.Question{})
		if err != nil {
			t.Fatal(err)
		}
		for _, width := range []int{60, 80, 100, 200} {
			var screens [2]bytes.Buffer
			look := reports.Look{Width: width}
			if err := reports.Screen(&screens[0], r, look); err != nil {
				t.Fatal(err)
			}
			if err := e.Write(&screens[1], look); err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(screens[0].Bytes(), []byte("\n")); width >= 100 && n > 50 {
				t.Errorf("%s: %d lines are more than a screen of %d columns:\n%s", filepath.Base(path), n, width, screens[0].String())
			}
			for i := range screens {
				for line := range strings.SplitSeq(screens[i].String(), "\n") {
					if utf8.RuneCountInString(line) > width && !strings.Contains(line, filepath.Dir(path)) {
						t.Errorf("%s %d: %d columns of %d: %s", filepath.Base(path), i, utf8.RuneCountInString(line), width, line)
					}
					if strings.ContainsAny(line, "\x1b…") {
						t.Errorf("%s %d: colour, or a cut text: %q", filepath.Base(path), i, line)
					}
				}
			}
		}
	}
}

func TestExplain(t *testing.T) {
	path := made(t, "outage")
	t.Setenv("COLUMNS", "80")
	code, out, errs := squall(nil, "explain", path)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"RETRY STORM", "Why\n", "≥ 0.50", "What would change it\n", "retry_share", "Explanations", "Frames to open first\n", "tshark -r ", "-Y 'frame.number"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	_, page, _ := squall(nil, "explain", path, "-T", "markdown")
	for _, want := range []string{"# RETRY STORM on sip/login\n", "\n## Why\n", "| volume |", "```sh\ntshark -r "} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	var e struct {
		Finding struct {
			Class    string
			Criteria []map[string]any
		}
		Flips   []reports.Flip
		Frames  []struct{ Frame int64 }
		Filters []reports.Filter
	}
	_, object, _ := squall(nil, "explain", path, "-T", "json")
	if err := json.Unmarshal([]byte(object), &e); err != nil || e.Finding.Class != "retry_storm" || len(e.Finding.Criteria) != 5 ||
		len(e.Flips) == 0 || len(e.Frames) < 3 || len(e.Filters) != 3 {
		t.Fatalf("%v: %+v", err, e)
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("needs tshark to try the filters (Debian: apt-get install tshark)")
	}
	distinct := map[int64]bool{}
	for _, f := range e.Frames {
		distinct[f.Frame] = true
	}
	for i, f := range e.Filters {
		if f.File != path {
			t.Errorf("filter of %q", f.File)
		}
		out, err := exec.Command(tshark, "-n", "-r", path, "-Y", f.Filter, "-T", "fields", "-e", "frame.number").Output()
		lines := strings.Count(string(out), "\n")
		if err != nil || lines == 0 || i == 0 && lines != len(distinct) {
			t.Errorf("%s: %v, %d packets", f.Filter, err, lines)
		}
	}
}

// TestFlipsFlip: under the value that is given the finding is called what was
// said, and well before it is not.
func TestFlipsFlip(t *testing.T) {
	for _, name := range []string{"outage", "n17", "n4"} {
		if testing.Short() && name != "outage" {
			continue
		}
		path := made(t, name, "--clients", "300", "--seed", "3")
		results := analysed(t, path)
		e, err := reports.Explain(results, reports.Question{})
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Flips) == 0 {
			t.Errorf("%s: nothing flips %v", name, e.Finding.Class)
		}
		state, err := results.Analysis.State(storm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range e.Flips {
			called := func(v float64) string {
				var th storm.Thresholds
				th.Set(f.Name, v)
				r := state.Under(th, results.Analysis.Quality())
				for i := range r.Findings { // the gravest first
					if r.Findings[i].Service == e.Finding.Service && (r.Findings[i].End == 0 || r.Findings[i].End >= e.Finding.Onset) {
						return r.Findings[i].Class.String()
					}
				}
				return "calm"
			}
			if got := called(f.From); got != f.Then {
				t.Errorf("%s: %s at %g: %s, said was %s", name, f.Name, f.From, got, f.Then)
			}
			if got := called(f.Now + 0.9*(f.From-f.Now)); got != e.Finding.Class.String() {
				t.Errorf("%s: %s short of %g: %s already", name, f.Name, f.From, got)
			}
		}
	}
}

func TestExplainANode(t *testing.T) {
	path := made(t, "outage")
	code, out, errs := squall(nil, "explain", path, "--node", "198.51.100.2", "--at", "16:01:00")
	if code != 0 || !strings.Contains(out, "198.51.100.2:5060, sip/login\n") || !strings.Contains(out, "down from 16:00:40") || !strings.Contains(out, "The services at 16:01:00") {
		t.Errorf("exit %d: %s\n%s", code, errs, out)
	}
	if code, out, _ := squall(nil, "explain", path, "--at", "20s"); code != 0 || !strings.Contains(out, "No finding at 16:00:20") {
		t.Errorf("exit %d\n%s", code, out)
	}
	for _, args := range [][]string{{"--node", "198.51.100.77"}, {"--node", "sip"}, {"--at", "noon"}, {"--at", "23:00:00"}, {"-T", "csv"}, {"--color", "blue"}} {
		code, _, errs := squall(nil, append([]string{"explain", path}, args...)...)
		if code != exitUsage || !regexp.MustCompile(`^squall: .+\n$`).MatchString(errs) {
			t.Errorf("%v: exit %d: %q", args, code, errs)
		}
	}
}

// TestFailOn: a verdict of the class or a graver one is exit 99.
func TestFailOn(t *testing.T) {
	storm, calm := made(t, "outage"), made(t, "n5", "--clients", "40", "--duration", "4m")
	for _, c := range []struct {
		path, class string
		code        int
	}{
		{storm, "retry_storm", exitThreshold}, {storm, "partial_outage", exitThreshold}, {storm, "calm", exitThreshold},
		{calm, "retry_storm", exitDone}, {calm, "scan", exitDone}, {calm, "calm", exitThreshold}, {calm, "tempest", exitUsage},
	} {
		code, out, errs := squall(nil, "analyze", c.path, "--fail-on", c.class)
		if code != c.code {
			t.Errorf("%s --fail-on %s: exit %d, want %d: %s", filepath.Base(c.path), c.class, code, c.code, errs)
		}
		if c.code != exitUsage && !strings.Contains(strings.SplitN(out, "\n", 3)[1], "16:00") && !strings.Contains(out, "Calm: ") {
			t.Errorf("the verdict's sentence does not lead: %.200s", out)
		}
	}
}

// TestExplainOpensFrames: whatever was found, there is a frame to open, also where no
// outcome is known or none is bad.
func TestExplainOpensFrames(t *testing.T) {
	slow(t)
	for _, args := range [][]string{{"app-flood"}, {"n11"}, {"s9", "--clients", "200", "--trigger", "1m", "--duration", "3m", "--tap-side", "client"}} {
		code, out, errs := squall(nil, "explain", "-q", made(t, args[0], args[1:]...), "-T", "json")
		var e struct {
			Finding struct{ Class string }
			Frames  []struct{ What string }
			Filters []struct{ What string }
		}
		if err := json.Unmarshal([]byte(out), &e); code != 0 || err != nil {
			t.Fatalf("%v: exit %d %v %s", args, code, err, errs)
		}
		if e.Finding.Class == "calm" || len(e.Frames) == 0 || len(e.Filters) != 3 {
			t.Errorf("%v: %s with %d frames to open, %d filters", args, e.Finding.Class, len(e.Frames), len(e.Filters))
		}
	}
}
