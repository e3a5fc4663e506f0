package attempt

import (
	"bytes"
	"strconv"
	"sync"
	"testing"
)

func TestNames(t *testing.T) {
	n := NewNames()
	if n.Intern(nil) != 0 || n.String(0) != "" || n.String(99) != "" {
		t.Error("0 is not the empty string")
	}
	var wg sync.WaitGroup
	got := [4][500]Name{}
	for g := range got {
		wg.Go(func() {
			for i := range got[g] {
				got[g][i] = n.Intern([]byte(strconv.Itoa(i)))
			}
		})
	}
	wg.Wait()
	for i := range got[0] {
		for g := range got {
			if got[g][i] != got[0][i] || n.String(got[g][i]) != strconv.Itoa(i) {
				t.Fatalf("%d: %d is %q", i, got[g][i], n.String(got[g][i]))
			}
		}
	}
	if s := n.String(n.Intern(bytes.Repeat([]byte("x"), 1000))); len(s) != maxNameLen {
		t.Errorf("a long name has %d bytes", len(s))
	}
}
