package storm

import (
	"strings"
	"testing"
)

// TestOneOfEach: a sentence about one client says so in the singular.
func TestOneOfEach(t *testing.T) {
	f := Finding{Class: PartialOutage, Service: "sip/login", Clients: 1}
	if s := f.sentence(nil, &Quality{}); !strings.Contains(s, "; 1 client hit;") {
		t.Error(s)
	}
	f = Finding{Class: RetryStorm, Service: "sip/login", Clients: 2, Counts: Counts{Attempts: 30, Intents: 1}}
	if s := f.sentence(nil, &Quality{}); !strings.Contains(s, "30 attempts for 1 intent (") || !strings.Contains(s, "2 clients hit") {
		t.Error(s)
	}
	h := RoleHealth{Role: 1, Nodes: 1, Counts: Counts{Attempts: 1, Refreshes: 2}}
	if s := h.sentence(&h, false, &Quality{}); !strings.Contains(s, "1 supernode, 1 attempt and 2 refreshes") {
		t.Error(s)
	}
}
