package main

import (
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/samples"
)

// lookAt gives what a viewer knows of a sample at a moment, after its begin.
func lookAt(t *testing.T, sample string, at time.Duration) (v *viewer, last *pipeline.Look) {
	t.Helper()
	var b bytes.Buffer
	if _, err := samples.Write(&b, sample, 1, capture.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
	src, err := capture.Open([]string{"-"}, capture.Options{Stdin: &b})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v = &viewer{out: new(bytes.Buffer), screen: true, exit: 1<<8 - 1}
	pipeline.Watch(ctx, pipeline.WatchConfig{Config: pipeline.Config{Protocols: overlay.All()}, Look: func(l *pipeline.Look) error {
		if last == nil || l.Time <= samples.Epoch+int64(at) {
			last = l
			return v.look(l)
		}
		cancel()
		return nil
	}}, src)
	return v, last
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// TestWatchScreen: the screen in the middle of a storm fits two terminals.
func TestWatchScreen(t *testing.T) {
	v, l := lookAt(t, "outage", 70*time.Second)
	for _, size := range [][2]int{{80, 24}, {200, 50}, {70, 12}} {
		width, rows := size[0], size[1]
		var out bytes.Buffer
		v.out = &out
		w := windowOf(l)
		if err := v.draw(l, &w, width, rows); err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(escapes.ReplaceAllString(out.String(), ""), "\r", "")
		for line := range strings.Lines(got) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns of %d: %s", n, width, line)
			}
		}
		if n := strings.Count(got, "\n"); n >= rows || !strings.HasPrefix(got, "squall watch ") {
			t.Errorf("%d of %d rows\n%s", n, rows, got)
		}
		if width == 70 {
			continue
		}
		golden := "testdata/watch-" + strconv.Itoa(width) + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || string(want) != got {
			t.Errorf("%s (%v) is not\n%s", golden, err, got)
		}
	}
}

// TestWatchMetrics: by the grammar, and by promtool where it is.
func TestWatchMetrics(t *testing.T) {
	v, _ := lookAt(t, "outage", 70*time.Second)
	answer := httptest.NewRecorder()
	v.ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	out := answer.Body.String()
	seen := checkMetrics(t, out)
	if len(seen) < 20 || !seen[`squall_finding{class="retry_storm",service="sip/login",sight="confirmed"}`] {
		t.Errorf("%d samples:\n%s", len(seen), out)
	}
	empty := httptest.NewRecorder()
	(&viewer{}).ServeHTTP(empty, httptest.NewRequest("GET", "/metrics", nil))
	checkMetrics(t, empty.Body.String())
}

// checkMetrics holds a page to the text format of Prometheus, and to promtool's
// rules where that is installed.
func checkMetrics(t *testing.T, out string) (seen map[string]bool) {
	t.Helper()
	sample := regexp.MustCompile(`^([a-z_]+)(\{[a-z_]+="([^"\\]|\\.)*"(,[a-z_]+="([^"\\]|\\.)*")*\})? [0-9.e+-]+$`)
	family, kind := "", ""
	seen = map[string]bool{}
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# HELP "); ok {
			family, _, _ = strings.Cut(name, " ")
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "+family+" "); ok {
			if kind = rest; kind != "gauge" && kind != "counter" || (kind == "counter") != strings.HasSuffix(family, "_total") {
				t.Errorf("line %q", line)
			}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil || m[1] != family || seen[m[1]+m[2]] {
			t.Errorf("line %q in family %s", line, family)
			continue
		}
		seen[m[1]+m[2]] = true
	}
	if tool, err := exec.LookPath("promtool"); err == nil {
		check := exec.Command(tool, "check", "metrics")
		check.Stdin = strings.NewReader(out)
		if said, err := check.CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s", err, said)
		}
	}
	return seen
}
