package attempt

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
)

func TestNames(t *testing.T) {
	n := NewNames(0)
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

// TestNamesOverCeiling: of too many names the same share is kept whatever their order,
// and through a save; words of squall stay, and names of other kinds.
func TestNamesOverCeiling(t *testing.T) {
	const most, all = 100, 1900
	var first []string
	for seed := range uint64(5) {
		n := NewNames(most)
		protocol, version := n.Intern([]byte("n2n")), n.Said([]byte("5.0.0.156"))
		var ids []Name
		for _, i := range rand.New(rand.NewPCG(seed, 1)).Perm(all) {
			for range 2 { // a second time where it is known, or known to be too many
				ids = append(ids, n.Client([]byte("edge "+strconv.Itoa(i))))
			}
		}
		var kept []string
		for _, id := range ids {
			if s := n.String(id); s != "" {
				kept = append(kept, s)
			}
		}
		slices.Sort(kept)
		kept = slices.Compact(kept)
		clients, versions := n.OneIn()
		if len(kept) > most || len(kept) < most/3 || clients != 32 || versions != 1 {
			t.Fatalf("seed %d: %d names are kept, one in %d", seed, len(kept), clients)
		}
		if first == nil {
			first = kept
		}
		if !slices.Equal(kept, first) {
			t.Errorf("seed %d: other names are kept", seed)
		}
		if n.String(protocol) != "n2n" || n.String(version) != "5.0.0.156" || n.Intern([]byte("n2n")) != protocol {
			t.Errorf("seed %d: %q, %q", seed, n.String(protocol), n.String(version))
		}
		// Another run, of other names, that takes these up.
		var b bytes.Buffer
		s := NewStore(StoreConfig{})
		if err := s.Save(&b, n); err != nil {
			t.Fatal(err)
		}
		other := NewNames(most)
		over := 0
		for i := range 20 {
			if other.Client([]byte("other " + strconv.Itoa(i))); hashOfName([]byte("other "+strconv.Itoa(i)))>>59 != 0 {
				over++
			}
		}
		if err := s.Load(&b, other, func(uint32) (uint32, bool) { return 0, true }, nil); err != nil {
			t.Fatal(err)
		}
		if one, _ := other.OneIn(); one != clients || other.of[who].kept != len(kept)+20-over {
			t.Errorf("seed %d: joined, %d names are kept, one in %d", seed, other.of[who].kept, one)
		}
	}
}
