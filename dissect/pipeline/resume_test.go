package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/samples"
)

// lines adds rows to a text, a line each.
func lines[T any](t *testing.T, text []string, rows iter.Seq2[*T, error]) []string {
	t.Helper()
	for r, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, fmt.Sprintf("%+v", *r))
	}
	return text
}

// told is all that an analysis says, a line each.
func told(t *testing.T, a *pipeline.Analysis) (out []string) {
	t.Helper()
	first, last := a.Span()
	out = append(out, fmt.Sprint(first, last))
	for _, c := range a.Captures() {
		c.Index = nil
		damage := ""
		if c.Damage != nil {
			damage = fmt.Sprintf("%+v", *c.Damage)
		}
		c.Damage = nil
		out = append(out, fmt.Sprintf("%+v %s", c, damage))
	}
	out = lines(t, out, a.Attempts())
	out = lines(t, out, a.Intents())
	for _, tap := range a.TapLosses() {
		out = append(out, fmt.Sprintf("%+v", tap))
	}
	return append(out, fmt.Sprintf("%+v", a.Quality()))
}

// spoil leaves of a file what is looked at when it is opened.
func spoil(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		clear(b[4096:])
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestResume: a run that is broken off after any of its batches and taken up again,
// twice, says what one run says, and reads no file again that it had read.
func TestResume(t *testing.T) {
	protocols := overlay.All()
	dir := t.TempDir()
	sc, _ := samples.Find("outage")
	var packets []capture.Packet
	if _, err := samples.Simulate(sc, 3, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
		t.Fatal(err)
	}
	var rotated []string
	for i := range 12 {
		path := filepath.Join(dir, fmt.Sprintf("%c_%05d_20101222160000.pcapng", "ab"[i&1], i/2))
		rotated = append(rotated, fmt.Sprintf("%s=%s", []string{"east", "west"}[i&1], path))
		var part []capture.Packet
		for k := i / 2 * len(packets) / 6; k < (i/2+1)*len(packets)/6; k++ {
			if k%2 == i&1 {
				part = append(part, packets[k])
			}
		}
		writeTap(t, path, part)
	}
	sets := [][]string{rotated}
	for _, d := range []string{"attempts", "formats", "hostile"} {
		if real := filepath.Join("../../../shared/captures", d); !testing.Short() {
			if _, err := os.Stat(real); err != nil {
				t.Log("only simulated captures: real ones are not part of the repository: put them at ../shared/captures, beside it")
				break
			}
			sets = append(sets, []string{real})
		}
	}
	for set, inputs := range sets {
		run := func(from []byte, stop int) (a *pipeline.Analysis, state []byte, batches int) {
			opt, cfg := capture.Options{Index: true, Skipped: func(string, error) {}}, pipeline.Config{Workers: 2, Protocols: protocols, RecordMemory: 1 << 14}
			if from != nil {
				kept, err := pipeline.Thaw(bytes.NewReader(from))
				if err != nil {
					t.Fatal(err)
				}
				cfg.From, opt.Resume = kept, func([]capture.FileStats) []capture.Mark { return kept.Marks }
			}
			src, err := capture.Open(inputs, opt)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			cfg.Keep = func(s *pipeline.State, broken bool) {
				if broken {
					return
				}
				if batches++; batches == stop {
					var b bytes.Buffer
					if err := s.Write(&b, s.Marks()); err != nil {
						t.Fatal(err)
					}
					state = b.Bytes()
					cancel()
				}
			}
			a, err = pipeline.Run(ctx, cfg, src)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			return a, state, batches
		}
		whole, _, batches := run(nil, 0)
		want := told(t, whole)
		whole.Close()
		t.Logf("%d batches, %d lines", batches, len(want))
		step := max(1, batches/5)
		if set > 0 || testing.Short() {
			step = batches
		}
		for stop := min(step, batches-2); stop < batches; stop += step {
			a, state, _ := run(nil, stop)
			a.Close()
			if set == 0 && stop+step >= batches { // what was read is not read again: it could not be
				kept, err := pipeline.Thaw(bytes.NewReader(state))
				if err != nil {
					t.Fatal(err)
				}
				done := 0
				for _, m := range kept.Marks {
					if m.Done != nil {
						done++
						spoil(t, m.Done.Path)
					}
				}
				if done < 2 {
					t.Errorf("%d of %d files were done", done, len(kept.Marks))
				}
			}
			a, next, _ := run(state, 1)
			a.Close()
			if next == nil {
				continue // nothing was left
			}
			a, _, more := run(next, 0)
			got := told(t, a)
			a.Close()
			if len(got) != len(want) {
				t.Errorf("broken off after %d batches: %d lines, want %d", stop, len(got), len(want))
				continue
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("broken off after %d of %d batches, %d more: line %d differs:\n%s\n%s", stop, batches, more, i, got[i], want[i])
				}
			}
		}
	}
}
