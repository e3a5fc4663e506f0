package storm_test

import (
	"flag"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/storm"
)

const captures = "../../../shared/captures"

var sweep = flag.Bool("sweep", false, "judge every real capture, not just those with a known outage")

// real judges a capture of the real programs.
func real(t *testing.T, name string) *storm.Report {
	t.Helper()
	path := filepath.Join(captures, name)
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	r := judge(t, src)
	if r.Totals.Checks != 0 {
		t.Errorf("%s: nobody in it checks nodes, but %+v do", name, r.Monitors)
	}
	return r
}

// at is a time of the lab's log, which is in epoch seconds.
func at(seconds float64) int64 { return int64(math.Round(seconds*1e3)) * 1e6 }

// TestLab holds what is said of real nodes that were killed and started again
// to the log of the lab. A death can be found from the next message to the dead
// node on, a return from its next answer on.
func TestLab(t *testing.T) {
	for _, c := range []struct {
		file     string
		clients  int64
		deaths   map[string]int64 // node, time
		returns  map[string]int64
		within   time.Duration // the interval at which the clients send
		moves    [][2]string
		jump     float64 // of what a client sends without a node, at least
		storming bool
	}{
		{"lab/n2n3-supernode-loss-a.pcap", 24, map[string]int64{"10.77.0.1": at(1795392566.66), "10.77.0.2": at(1795392646.65)},
			map[string]int64{"10.77.0.1": at(1795392726.64)}, 5 * time.Second,
			[][2]string{{"10.77.0.1", "10.77.0.3"}, {"10.77.0.2", "10.77.0.3"}}, 3, true},
		{"lab/nebula-lighthouses-killed-a.pcap", 10, map[string]int64{"10.81.0.1": at(1795397108.93), "10.81.0.2": at(1795397138.93)},
			map[string]int64{"10.81.0.1": at(1795397203.92)}, 10 * time.Second, nil, 1.2, true},
		{"lab/sip-registrar-killed-a.pcap", 14, map[string]int64{"10.82.0.1": at(1795396979.70)}, map[string]int64{"10.82.0.1": at(1795397019.69)},
			2 * time.Second, nil, 2, true},
	} {
		t.Run(filepath.Base(c.file), func(t *testing.T) {
			r := real(t, c.file)
			if r.Totals.Clients != c.clients {
				t.Errorf("%d clients, there were %d", r.Totals.Clients, c.clients)
			}
			if storming := r.Verdict.Class == storm.RetryStorm; storming != c.storming || r.Verdict.Cascade {
				t.Errorf("%v, cascade %v: %s", r.Verdict.Class, r.Verdict.Cascade, r.Summary)
			}
			for _, n := range r.Nodes {
				ip := n.At.Addr.String()
				died, mortal := c.deaths[ip]
				fell := slices.DeleteFunc(slices.Clone(n.Periods), func(p storm.Period) bool { return p.Kind == storm.Overloaded })
				if !mortal && len(fell) > 0 || mortal && len(fell) != 1 {
					t.Errorf("%s: %+v", ip, n.Periods)
					continue
				}
				if !mortal {
					continue
				}
				if fell[0].Kind != storm.Down {
					t.Errorf("%s was killed, not %v", ip, fell[0].Kind)
				}
				if late := time.Duration(fell[0].Start - died); late < 0 || late > c.within {
					t.Errorf("%s: death found %v after it happened", ip, late)
				}
				if n.Generation != 0 {
					t.Errorf("%s was killed, not felled by load: generation %d", ip, n.Generation)
				}
				switch back, ok := c.returns[ip]; {
				case ok && fell[0].End == 0:
					t.Errorf("%s: no return found", ip)
				case ok:
					if late := time.Duration(fell[0].End - back); late < 0 || late > c.within {
						t.Errorf("%s: return found %v after it happened", ip, late)
					}
				}
			}
			for _, m := range c.moves {
				if !slices.ContainsFunc(r.Migrations, func(e storm.Migration) bool { return e.From.Addr.String() == m[0] && e.To.Addr.String() == m[1] }) {
					t.Errorf("no migration from %s to %s", m[0], m[1])
				}
			}
			for i := range r.Findings {
				f := &r.Findings[i]
				if f.RateLocked < c.jump*f.RateAttached || f.RateAttached == 0 {
					t.Errorf("a client sends %.3f/s with a node and %.3f/s without", f.RateAttached, f.RateLocked)
				}
				if f.Retries == 0 || r.Totals.Refreshes == 0 {
					t.Errorf("%d retries, %d refreshes", f.Retries, r.Totals.Refreshes)
				}
			}
		})
	}
}

// TestClientsThatNeverGetIn: a Skype client that is let through and starved, a
// FastTrack client whose supernodes are gone, a Gnutella servent with an old
// cache: each seen from the client alone, none a storm of the service, none a
// scan.
func TestClientsThatNeverGetIn(t *testing.T) {
	for _, c := range []struct{ file, service string }{
		{"overlay/skype-2015-b.pcap", "skype/supernode"},
		{"overlay/skype-2006-irc.cap", "fasttrack/supernode"},
		{"overlay/gnutella-ndpi.pcap", "gnutella/supernode"},
	} {
		t.Run(filepath.Base(c.file), func(t *testing.T) {
			r := real(t, c.file)
			v := &r.Verdict
			if v.Class != storm.PartialOutage || v.Service != c.service || v.Confidence > storm.Medium || v.End != 0 || v.FailureRatio() < 0.9 {
				t.Errorf("%v of %s, confidence %v: %s", v.Class, v.Service, v.Confidence, r.Summary)
			}
		})
	}
	r := real(t, "overlay/skype-2015-b.pcap")
	i := slices.IndexFunc(r.Policies, func(p storm.Policy) bool { return p.Service == "skype/supernode" && p.Group == "all" })
	p := &r.Policies[i]
	if p.Family != "fixed" || !slices.Contains(p.Smells, "no_backoff") || p.Ladder < 1600e6 || p.Ladder > 1615e6 {
		t.Errorf("constant rounds and a fallback to 443 after 1.6 s are read as %+v", p)
	}
	if v := &r.Verdict; v.NeverIn != 1 || v.Outcomes[dissect.OutcomeAccepted] != 0 {
		t.Errorf("%d never got in, %d attempts accepted", v.NeverIn, v.Outcomes[dissect.OutcomeAccepted])
	}
}

// stormy are the captures in which clients were seen to retry for real.
var stormy = []string{"lab/n2n3-supernode-loss-a.pcap", "lab/nebula-lighthouses-killed-a.pcap", "lab/sip-registrar-killed-a.pcap"}

// TestNoStormInHealthyCaptures judges every real capture. It reads some hundred
// megabytes and runs with -args -sweep, as `make evaluate` does.
func TestNoStormInHealthyCaptures(t *testing.T) {
	if !*sweep {
		t.Skip("needs minutes to read all real captures: run it with make evaluate, or go test ./dissect/storm -run Healthy -args -sweep")
	}
	judged := 0
	err := filepath.WalkDir(captures, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		src, err := capture.Open([]string{path}, capture.Options{})
		if err != nil {
			return nil // truth tables, pages, and what is broken on purpose
		}
		defer src.Close()
		name, _ := filepath.Rel(captures, path)
		r := judge(t, src)
		judged++
		for i := range r.Findings {
			f := &r.Findings[i]
			if f.Class == storm.RetryStorm && !slices.Contains(stormy, filepath.ToSlash(name)) {
				t.Errorf("%s: %s", name, f.Sentence)
			}
			if f.Class > storm.InsufficientEvidence {
				t.Logf("%s: %s", name, f.Sentence)
			}
		}
		if strings.HasPrefix(r.Summary, "Retry storm") != (r.Verdict.Class == storm.RetryStorm) {
			t.Errorf("%s: class %v, but: %s", name, r.Verdict.Class, r.Summary)
		}
		return nil
	})
	if os.IsNotExist(err) {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d captures judged", judged)
}
