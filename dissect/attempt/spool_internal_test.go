package attempt

import (
	"bytes"
	"strings"
	"testing"
)

// TestSpoolCeiling: up to the ceiling everything comes back, beyond it the error
// says which flag raises it.
func TestSpoolCeiling(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, c := range []struct {
		ceiling int64
		fails   bool
	}{{0, false}, {900, false}, {899, true}} {
		s := spool{limit: 100, ceiling: c.ceiling}
		for range 10 {
			s.put(3, bytes.Repeat([]byte{7}, 100))
		}
		n := 0
		err := s.each(3, func(b []byte) { n += bytes.Count(b, []byte{7}) })
		if c.fails != (err != nil) || err != nil && !strings.Contains(err.Error(), "--max-temp") || err == nil && n != 1000 {
			t.Errorf("ceiling %d: %d bytes, %v", c.ceiling, n, err)
		}
		if s.size > c.ceiling && c.ceiling > 0 {
			t.Errorf("ceiling %d: a file of %d bytes", c.ceiling, s.size)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}
