package capture_test

import (
	"os"
	"path/filepath"
	"testing"

	"squall/capture"
)

func TestParseClock(t *testing.T) {
	for text, want := range map[string]capture.Clock{
		"east=+137ms":       {Offset: 137e6, Source: "given"},
		"east=-2s,+12ppm":   {Offset: -2e9, Drift: 12, Source: "given"},
		"east=1h0m0.5s":     {Offset: 36005e8, Source: "given"},
		"east=0s,-0.25ppm":  {Drift: -0.25, Source: "given"},
		"east":              {},
		"east=137":          {},
		"east=+1s,12":       {},
		"east=+1s,NaNppm":   {},
		"=+1s":              {},
		"east=+1s,99999ppm": {},
	} {
		name, got, err := capture.ParseClock(text)
		if want.Source == "" {
			if err == nil {
				t.Errorf("%s: %+v, want an error", text, got)
			}
			continue
		}
		if err != nil || name != "east" || got != want {
			t.Errorf("%s: %s %+v, %v", text, name, got, err)
		}
		if _, again, err := capture.ParseClock("x=" + got.String()); err != nil || again.Offset != got.Offset || again.Drift != got.Drift {
			t.Errorf("%s prints as %s, and that is read as %+v, %v", text, got.String(), again, err)
		}
	}
	c := capture.Clock{Offset: 1e9, At: 100e9, Drift: 10, Source: "given"}
	if got := c.True(100e9); got != 99e9 {
		t.Errorf("at its beginning: %d", got)
	}
	if got := c.True(1100e9); got != 1099e9-10e6 {
		t.Errorf("1000 s later: %d", got)
	}
}

// TestSplitInput: what exists is a path, whatever its name looks like.
func TestSplitInput(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a=b.pcap")
	if err := os.WriteFile(odd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for in, want := range map[string][2]string{
		"east=/cap/east": {"east", "/cap/east"},
		"east=-":         {"east", "-"},
		"east=a=b.pcap":  {"east", "a=b.pcap"},
		"a=b.pcap":       {"", "a=b.pcap"},
		odd:              {"", odd},
		"./x=y":          {"", "./x=y"},
		"plain.pcap":     {"", "plain.pcap"},
		"=x":             {"", "=x"},
		"x=":             {"", "x="},
	} {
		if name, path := capture.SplitInput(in); name != want[0] || path != want[1] {
			t.Errorf("%q: %q, %q", in, name, path)
		}
	}
}

// TestClockShown: what a clock showed is the first time that it does not put before
// the true one.
func TestClockShown(t *testing.T) {
	for _, c := range []capture.Clock{{}, {Offset: -5}, {Offset: 137e6, At: 1293033600e9, Drift: 12}, {Offset: -3600e9, At: 1293033600e9, Drift: -499.7}} {
		for _, at := range []int64{1293033600e9, 1293033600e9 + 123456789, 1293640000e9 + 1} {
			if s := c.Shown(at); c.True(s) < at || c.True(s-1) >= at {
				t.Errorf("%+v: %d is shown as %d, which is %d", c, at, s, c.True(s))
			}
		}
	}
}
