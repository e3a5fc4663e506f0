package overlay

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/samples"
)

var updateSamples = flag.Bool("samples", false, "write the samples of the protocols anew")

const sampleHead = `# Conversations, a few of every protocol; go test ./dissect/overlay -run Samples -samples
# writes them anew from the scenes of its tests. Nobody's traffic: the messages are built
# there, some from the examples of their specifications.
#
#   = protocol transport port | what happens | attempts in it, each: protocol request outcome evidence
#   milliseconds direction bytes; > to the node, < from it, F and R after it are FIN and RST
`

// sampled are the scenes as text; those that the snapshot length cuts are for the tests alone.
func sampled() string {
	list := slices.DeleteFunc(scenes(), func(c scenery) bool {
		return slices.ContainsFunc(c.packets, func(w wire) bool { return w.cut > 0 })
	})
	order := map[string]int{}
	for i, p := range All() {
		order[p.Name()] = i
	}
	name := func(c *scenery) string { n, _, _ := strings.Cut(c.rows[0], " "); return n }
	slices.SortStableFunc(list, func(a, b scenery) int { return order[name(&a)] - order[name(&b)] })
	var b strings.Builder
	b.WriteString(sampleHead)
	for _, c := range list {
		transport := "tcp"
		if c.udp {
			transport = "udp"
		}
		fmt.Fprintf(&b, "\n= %s %s %d | %s | %s\n", name(&c), transport, c.port, c.name, strings.Join(c.rows, " | "))
		for _, w := range c.packets {
			to, end := ">", ""
			if w.node {
				to = "<"
			}
			if w.flag&dissect.FIN != 0 {
				end = "F"
			} else if w.flag&dissect.RST != 0 {
				end = "R"
			}
			fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprintf("%d %s%s %s", w.at, to, end, hex.EncodeToString([]byte(w.data)))))
		}
	}
	return b.String()
}

// TestSamples: squall carries a sample of every protocol, and what an analysis
// makes of it is what the scenes say.
func TestSamples(t *testing.T) {
	path := filepath.Join("..", "..", "samples", "conversations.txt")
	if *updateSamples {
		if err := os.WriteFile(path, []byte(sampled()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have, err := os.ReadFile(path); err != nil || string(have) != sampled() {
		t.Fatalf("the samples are not those of the scenes; go test ./dissect/overlay -run Samples -samples (%v)", err)
	}
	want := map[string][]string{}
	for _, c := range samples.Conversations() {
		for _, r := range c.Rows {
			r, _, _ = strings.Cut(r, " until ")
			r, _, _ = strings.Cut(r, " after ")
			want[c.Protocol] = append(want[c.Protocol], r)
		}
	}
	for _, p := range All() {
		name := p.Name()
		if want[name] == nil {
			t.Errorf("%s: no sample", name)
			continue
		}
		var b bytes.Buffer
		if err := samples.WriteConversations(&b, name, capture.WriterOptions{}); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "sample.pcapng")
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		src, err := capture.Open([]string{file}, capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range analyse(t, src, All()) {
			s := fmt.Sprintf("%s %s %s %s", r.Protocol, r.Op, r.Outcome, r.Evidence)
			if r.Transmissions > 1 {
				s += fmt.Sprintf(" x%d", r.Transmissions)
			}
			got = append(got, s)
		}
		src.Close()
		if !slices.Equal(got, want[name]) {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want[name], "\n"))
		}
		want[name] = got // a name may stand for several signatures
	}
}
