package reports

import (
	"slices"
	"testing"
	"time"
)

// TestOffsets: a page of a span in which clocks change has both offsets.
func TestOffsets(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("needs the time zone database (Debian: apt-get install tzdata)")
	}
	change := time.Date(2010, 10, 31, 1, 0, 0, 0, time.UTC).Unix()
	for _, ahead := range []int64{1, 1800, 3599, 7000} {
		from, to := (change-ahead)*1e9, (change+5000)*1e9
		if got, want := (zone{berlin}).offsets(from, to), [][2]int64{{change - ahead, 7200}, {change, 3600}}; !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", ahead, got, want)
		}
	}
	if got := (zone{}).offsets(change*1e9, (change+100000)*1e9); len(got) != 1 || got[0][1] != 0 {
		t.Errorf("%v", got)
	}
}
