package storm_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect/storm"
	"squall/samples"
)

// The evaluation is a document, not a test: `make evaluate` writes it.
var (
	evaluation = flag.String("evaluate", "", "write the evaluation of all scenarios to this file")
	seeds      = flag.Int("seeds", 10, "seeds of each scenario in the evaluation")
	firstSeed  = flag.Int("seed", 1, "the first of them")
	only       = flag.String("only", "", "scenarios to evaluate, by comma; all if empty")
	parts      = flag.String("parts", "scenarios,robustness,sensitivity", "parts of the evaluation")
)

// robustSeeds of the scenarios that are spoiled in every way.
const robustSeeds = 2

func chosen(name string) bool {
	return *only == "" || slices.Contains(strings.Split(*only, ","), name)
}

// TestEvaluate writes the page of all scenarios and seeds.
func TestEvaluate(t *testing.T) {
	if *evaluation == "" {
		t.Skip("needs half an hour, and writes docs/evaluation.md: run it with make evaluate")
	}
	var b strings.Builder
	for _, part := range []struct {
		name  string
		write func(*testing.T, *strings.Builder)
	}{{"scenarios", precision}, {"robustness", robustness}, {"sensitivity", sensitivity}} {
		if slices.Contains(strings.Split(*parts, ","), part.name) {
			part.write(t, &b)
		}
	}
	if err := os.WriteFile(*evaluation, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func precision(t *testing.T, b *strings.Builder) {
	fmt.Fprintf(b, "# Evaluation\n\nWritten by `make evaluate`: every scenario of the simulator, %d seeds each, judged from its packets and held to its truth.\n"+
		"Class: verdicts that are right. Details: runs in which everything is right: onset within 2 s of the first failure (a gradual one "+
		"within a tenth of its rise), end within 5 s of the last failure, A within 5 %%, associated versions, policy (family; parameters within "+
		"20 %%; limit; jitter from 200 gaps on; smells), order and generations of the nodes that fell.\n\n"+
		"| scenario | what happens | expected | class right | details right | largest error: onset, end, A | what is wrong |\n|---|---|---|---|---|---|---|\n", *seeds)
	classes, details, runs := 0, 0, 0
	for _, e := range expected {
		sc, _ := samples.Find(e.name)
		if !chosen(e.name) {
			continue
		}
		right, exact := 0, 0
		var worst errors
		faults := map[string][]string{}
		for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
			r, truth, same := evaluated(t, sc, uint64(seed))
			var wrong []string
			if !same {
				wrong = append(wrong, "another report than from one file")
			}
			if slices.Contains(e.any, r.Verdict.Class) {
				right++
			} else {
				wrong = append(wrong, "verdict "+r.Verdict.Class.String())
			}
			worst.take(measured(&sc, r, truth))
			wrong = append(wrong, check(&sc, r, truth)...)
			if len(wrong) == 0 {
				exact++
			}
			for _, w := range wrong {
				faults[w] = append(faults[w], fmt.Sprint(seed))
			}
		}
		classes, details, runs = classes+right, details+exact, runs+*seeds
		fmt.Fprintf(b, "| %s | %s | %s | %d/%d | %d/%d | %v | %s |\n", e.name, sc.About, words(e.any), right, *seeds, exact, *seeds, worst, said(faults))
		t.Logf("%s %d/%d %d/%d %v %s", e.name, right, *seeds, exact, *seeds, worst, said(faults))
	}
	fmt.Fprintf(b, "\nTogether: class right in %d of %d runs, every detail right in %d.\n", classes, runs, details)
}

// evaluated judges a scenario; one that is delivered in pieces from those, and
// same says that they gave the report that the whole gives.
func evaluated(t *testing.T, sc samples.Scenario, seed uint64) (r *storm.Report, truth *samples.Truth, same bool) {
	packets, truth := simulated(t, sc, seed)
	r = judge(t, capture.Memory(packets))
	if sc.Pieces < 2 {
		return r, truth, true
	}
	pieces := judge(t, files(t, packets, sc.Pieces, seed))
	return pieces, truth, reflect.DeepEqual(withoutFrames(r), withoutFrames(pieces))
}

// robustness: the storms seen through bad taps.
func robustness(t *testing.T, b *strings.Builder) {
	all := variants()
	fmt.Fprintf(b, "\n## Robustness\n\nEvery outage seen through a bad tap, %d seeds each: how often the class was right, and what was said "+
		"otherwise. `insufficient_evidence` with its reason is an honest answer, any other class is not.\n\n| scenario |", robustSeeds)
	for _, v := range all {
		fmt.Fprintf(b, " %s |", v.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)) + "\n")
	for _, e := range expected {
		sc, _ := samples.Find(e.name)
		if !chosen(e.name) || !strings.HasPrefix(e.name, "s") {
			continue
		}
		cells := make([]map[string]int, len(all))
		for seed := *firstSeed; seed < *firstSeed+robustSeeds; seed++ {
			packets, _ := simulated(t, sc, uint64(seed))
			whole := judge(t, capture.Memory(packets))
			for i, v := range all {
				r := judge(t, v.spoil(t, &sc, packets, uint64(seed)))
				word := "right"
				switch {
				case v.name == shuffled && !reflect.DeepEqual(withoutFrames(r), withoutFrames(whole)):
					word = "**another report**"
				case r.Verdict.Class == storm.InsufficientEvidence && !slices.Contains(e.any, r.Verdict.Class):
					word = "insufficient: " + strings.Join(r.Verdict.Reasons, "; ")
				case !slices.Contains(e.any, r.Verdict.Class):
					word = "**" + r.Verdict.Class.String() + "**"
				case v.name == shuffled:
					word = "the same report"
				case r.Verdict.Confidence < whole.Verdict.Confidence:
					word += ", confidence " + r.Verdict.Confidence.String()
				}
				if cells[i] == nil {
					cells[i] = map[string]int{}
				}
				cells[i][word]++
			}
		}
		fmt.Fprintf(b, "| %s |", e.name)
		for i := range cells {
			var s []string
			for w, n := range cells[i] {
				if n < robustSeeds {
					w = fmt.Sprintf("%d× %s", n, w)
				}
				s = append(s, w)
			}
			slices.Sort(s)
			fmt.Fprintf(b, " %s |", strings.Join(s, ", "))
			t.Logf("%s, %s: %s", e.name, all[i].name, strings.Join(s, ", "))
		}
		b.WriteString("\n")
	}
}

// withoutFrames is the report less what depends on how captures were cut into
// files.
func withoutFrames(r *storm.Report) storm.Report {
	c := *r
	bare := func(f storm.Finding) storm.Finding { f.FirstFile, f.FirstFrame = 0, 0; return f }
	c.Verdict = bare(c.Verdict)
	c.Findings = slices.Clone(c.Findings)
	for i := range c.Findings {
		c.Findings[i] = bare(c.Findings[i])
	}
	c.Nodes = slices.Clone(c.Nodes)
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.Periods = slices.Clone(n.Periods)
		for k := range n.Periods {
			p := &n.Periods[k]
			p.File, p.Frame, p.EndFile, p.EndFrame = 0, 0, 0, 0
		}
	}
	return c
}

func words(list []storm.Class) string {
	var s []string
	for _, c := range list {
		s = append(s, c.String())
	}
	return strings.Join(s, " or ")
}

// said lists faults with the seeds that show them.
func said(faults map[string][]string) string {
	var s []string
	for w, seeds := range faults {
		s = append(s, fmt.Sprintf("%s (seed %s)", w, strings.Join(seeds, ", ")))
	}
	slices.Sort(s)
	if len(s) > 6 {
		s = append(s[:6], fmt.Sprintf("and %d more", len(s)-6))
	}
	return strings.Join(s, "; ")
}

// sensitivity moves each threshold away from its default until a verdict turns.
func sensitivity(t *testing.T, b *strings.Builder) {
	down, up := []float64{0.8, 2.0 / 3, 0.5, 0.25}, []float64{1.25, 1.5, 2, 4}
	b.WriteString("\n## Sensitivity\n\nEach threshold alone at 0.8, 0.67, 0.5, 0.25 and at 1.25, 1.5, 2, 4 times its default, one seed: " +
		"the first factor at which the verdict of a scenario gets another class, and the class.\n\n" +
		"| threshold | default | lowered | raised |\n|---|---|---|---|\n")
	type held struct {
		name  string
		under func(storm.Thresholds) storm.Class
		class storm.Class
	}
	var list []held
	for _, e := range expected {
		sc, _ := samples.Find(e.name)
		if !chosen(e.name) {
			continue
		}
		packets, _ := simulated(t, sc, uint64(*firstSeed))
		a := read(t, capture.Memory(packets))
		s, err := a.State(storm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		q := a.Quality()
		a.Close()
		h := held{name: e.name, under: func(th storm.Thresholds) storm.Class { return s.Under(th, q).Verdict.Class }}
		h.class = h.under(storm.Thresholds{})
		list = append(list, h)
	}
	for _, th := range (storm.Thresholds{}).All() {
		turned := func(factors []float64) string {
			var s []string
			for _, h := range list {
				for _, f := range factors {
					var c storm.Thresholds
					c.Set(th.Name, th.Default*f)
					if got := h.under(c); got != h.class {
						s = append(s, fmt.Sprintf("%s at ×%.3g: %v", h.name, f, got))
						break
					}
				}
			}
			if s == nil {
				return "none"
			}
			return strings.Join(s, ", ")
		}
		fmt.Fprintf(b, "| %s | %g %s | %s | %s |\n", th.Name, th.Default, th.Unit, turned(down), turned(up))
	}
}
