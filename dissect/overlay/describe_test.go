package overlay

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated page anew")

// TestPage: docs/protocols.md is what the protocols say of themselves.
func TestPage(t *testing.T) {
	const path = "../../docs/protocols.md"
	var want bytes.Buffer
	if err := WritePage(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not what the protocols say (%v); go test ./dissect/overlay -run Page -update writes it anew", path, err)
	}
}

// Every protocol says how it is known, and every description has a protocol.
func TestDescriptions(t *testing.T) {
	known := map[string]bool{}
	for _, d := range Describe(All()) {
		known[d.Name] = true
		for what, s := range map[string]string{"recognised": d.Recognised, "role": d.Role, "outcomes": d.Outcomes, "identity": d.Identity, "version": d.Version, "confidence": d.Confidence} {
			if s == "" || strings.Contains(s, "\n") {
				t.Errorf("%s: %s is %q", d.Name, what, s)
			}
		}
	}
	for name := range descriptions {
		if !known[name] {
			t.Errorf("%s is described and not there", name)
		}
	}
}

func TestDescribeSignature(t *testing.T) {
	_, protocols := loadFile(t, "honeycomb.yaml")
	got := Describe(protocols)[0]
	want := Description{Name: "honeycomb", Transports: protocols[0].Transports(), Signature: true, Confidence: ConfidenceStrong,
		Recognised: `4843 at 0, 0100/ffc0 at 2, length 8 or more`,
		Role:       "supernode", Identity: "a field of HELLO, HELLO2, BEAT", Version: "by HELLO, HELLO2, BEAT",
		Outcomes: "accepted (OK), challenge (COOKIE), refused (NO), throttled (LATER), redirected (TRY), refresh (BEAT), close (BYE)"}
	if got != want {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}
