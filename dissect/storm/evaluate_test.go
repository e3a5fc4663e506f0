package storm_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/dissect/storm"
	"squall/samples"
)

// The evaluation is a document, not a test: `make evaluate` writes it.
func flags() (file string, seeds int) {
	if f := flag.Lookup("evaluate"); f != nil {
		file = f.Value.String()
	}
	if f := flag.Lookup("seeds"); f != nil {
		fmt.Sscan(f.Value.String(), &seeds)
	}
	return file, seeds
}

func TestMain(m *testing.M) {
	flag.String("evaluate", "", "write the evaluation of all scenarios to this file")
	flag.Int("seeds", 10, "seeds of each scenario in the evaluation")
	flag.Parse()
	os.Exit(m.Run())
}

// variant is a way in which a tap spoils a scenario.
type variant struct {
	name  string
	apply func(*samples.Scenario)
}

func variants() []variant {
	return []variant{
		{"5 % lost at the tap", func(s *samples.Scenario) { s.Tap.Loss = 0.05 }},
		{"40 % lost from the trigger on", func(s *samples.Scenario) { s.Tap.Loss, s.Tap.LossAt = 0.4, s.Trigger }},
		{"snaplen 96", func(s *samples.Scenario) { s.Tap.Snaplen = 96 }},
		{"clients' packets only", func(s *samples.Scenario) { s.Tap.Side = "client" }},
		{"hole of 20 s", func(s *samples.Scenario) { s.Tap.GapAt, s.Tap.GapFor = s.Trigger+30*time.Second, 20*time.Second }},
	}
}

// TestEvaluate writes the table of all scenarios and seeds.
func TestEvaluate(t *testing.T) {
	file, seeds := flags()
	if file == "" {
		t.Skip("run by make evaluate")
	}
	var b strings.Builder
	b.WriteString("# Evaluation\n\nWritten by `make evaluate`; every scenario of the simulator, judged from its packets and held to its truth.\n" +
		"Class: verdicts over the seeds that are right. Details: onset within 2 s of the first failure, end within 5 s of the last, A within 5 %, " +
		"versions, policy (family; parameters within 20 %; jitter; smells), order and generations of the nodes that fell.\n\n" +
		"| scenario | expected | class right | details right | what is wrong |\n|---|---|---|---|---|\n")
	classes, details, runs := 0, 0, 0
	for _, e := range expected {
		sc, _ := samples.Find(e.name)
		if !readable(sc) {
			fmt.Fprintf(&b, "| %s | %s | – | – | not judged: %s is not read |\n", e.name, words(e.any), sc.Protocol)
			continue
		}
		right, exact := 0, 0
		faults := map[string][]string{}
		for seed := 1; seed <= seeds; seed++ {
			r, truth := judged(t, sc, uint64(seed))
			if slices.Contains(e.any, r.Verdict.Class) {
				right++
			} else {
				faults["verdict "+r.Verdict.Class.String()] = append(faults["verdict "+r.Verdict.Class.String()], fmt.Sprint(seed))
			}
			wrong := check(&sc, r, truth)
			if len(wrong) == 0 {
				exact++
			}
			for _, w := range wrong {
				faults[w] = append(faults[w], fmt.Sprint(seed))
			}
		}
		classes, details, runs = classes+right, details+exact, runs+seeds
		fmt.Fprintf(&b, "| %s | %s | %d/%d | %d/%d | %s |\n", e.name, words(e.any), right, seeds, exact, seeds, said(faults))
		t.Logf("%s %d/%d %d/%d %s", e.name, right, seeds, exact, seeds, said(faults))
	}
	fmt.Fprintf(&b, "\nTogether: class right in %d of %d runs, every detail right in %d.\n\n## Robustness\n\n"+
		"Storms seen through a bad tap, %d seeds each: the same class, or `insufficient_evidence` with the reason.\n\n| scenario |", classes, runs, details, robustSeeds)
	all := variants()
	for _, v := range all {
		fmt.Fprintf(&b, " %s |", v.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)) + "\n")
	for _, e := range expected {
		sc, _ := samples.Find(e.name)
		if !readable(sc) || !slices.Contains(e.any, storm.RetryStorm) || strings.HasPrefix(e.name, "n") {
			continue
		}
		fmt.Fprintf(&b, "| %s |", e.name)
		for _, v := range all {
			got := map[string]int{}
			for seed := 1; seed <= robustSeeds; seed++ {
				spoiled := sc
				v.apply(&spoiled)
				r, _ := judged(t, spoiled, uint64(seed))
				got[fmt.Sprintf("%v (%v)", r.Verdict.Class, r.Verdict.Confidence)]++
			}
			var parts []string
			for k, n := range got {
				parts = append(parts, fmt.Sprintf("%d× %s", n, k))
			}
			slices.Sort(parts)
			fmt.Fprintf(&b, " %s |", strings.Join(parts, ", "))
		}
		b.WriteString("\n")
	}
	sensitivity(t, &b)
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

const robustSeeds = 3

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

// sensitivity sweeps each threshold and says which verdicts it turns.
func sensitivity(t *testing.T, b *strings.Builder) {
	b.WriteString("\n## Sensitivity\n\nEach threshold at half and at twice its default, one seed: the scenarios whose verdict class changes.\n\n" +
		"| threshold | default | halved | doubled |\n|---|---|---|---|\n")
	type held struct {
		name  string
		a     func(storm.Config) *storm.Report
		class storm.Class
	}
	var list []held
	for _, e := range expected {
		sc, _ := samples.Find(e.name)
		if !readable(sc) {
			continue
		}
		a := analysed(t, sc, 1)
		defer a.Close()
		h := held{name: e.name, a: func(c storm.Config) *storm.Report {
			r, err := a.Judge(c)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}}
		h.class = h.a(storm.Config{}).Verdict.Class
		list = append(list, h)
	}
	for _, th := range (storm.Thresholds{}).All() {
		turned := func(value float64) string {
			var c storm.Config
			c.Thresholds.Set(th.Name, value)
			var s []string
			for _, h := range list {
				if got := h.a(c).Verdict.Class; got != h.class {
					s = append(s, fmt.Sprintf("%s: %v", h.name, got))
				}
			}
			if s == nil {
				return "none"
			}
			return strings.Join(s, ", ")
		}
		fmt.Fprintf(b, "| %s | %g %s | %s | %s |\n", th.Name, th.Default, th.Unit, turned(th.Default/2), turned(th.Default*2))
	}
}
