//go:build integration && linux

package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLiveStorm replays the attempts of an outage against test nodes that go
// down, on the loopback of a namespace, while watch looks on: by the clock it is
// told as provisional within 10 s of the first attempt that failed, as confirmed
// within 30 s, as over within 30 s of the last; and the packets of the minute
// before are kept, and not those before that minute. Takes three minutes.
func TestLiveStorm(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir, err := os.MkdirTemp("/tmp", "squall-storm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777)
	outage, plan, run, kept := filepath.Join(dir, "outage.pcapng"), filepath.Join(dir, "outage.plan"), filepath.Join(dir, "run"), filepath.Join(dir, "kept.pcapng")
	for _, args := range [][]string{{"sample", "outage", "--trigger", "70s", "--duration", "150s", "-w", outage}, {"plan", outage, "--mode", "attempt", "-q", "-w", plan}} {
		if code, _, errs := squall(nil, args...); code != 0 {
			t.Fatal(args, errs)
		}
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
		cmd.Stderr = os.Stderr
		return cmd
	}
	watch := command("watch", "-i", "lo", "-T", "jsonl", "--trigger", "partial_outage", "--before", "1m", "--after", "2s", "-w", kept)
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	type told struct {
		sighting
		when time.Time
	}
	over := make(chan []told)
	go func() {
		var all []told
		for s := bufio.NewScanner(out); s.Scan(); {
			o := told{when: time.Now()}
			if json.Unmarshal(s.Bytes(), &o.sighting) == nil && o.Type == "finding" {
				all = append(all, o)
			}
		}
		over <- all
	}()
	time.Sleep(time.Second)
	if err := command("replay", plan, "--testnodes", "3", "--trigger", "at 70s: all down; at 120s: all up", "-Z", "root", "--send", "-q", "-o", run).Run(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(25 * time.Second) // for the end
	watch.Process.Signal(syscall.SIGINT)
	changes := <-over
	watch.Wait()

	// What the senders saw is the truth. Their times are those of the plan, which
	// began with the first packet.
	code, text, errs := squall(nil, "report", "attempts", run, "-T", "csv", "-e", "event_start", "-e", "event_outcome")
	if code != 0 {
		t.Fatal(errs)
	}
	packets, stats := packetsIn(t, kept)
	if len(packets) == 0 || stats.Damage != nil {
		t.Fatalf("%d packets kept, %+v", len(packets), stats.Damage)
	}
	from, to := time.Unix(0, packets[0].Time), time.Unix(0, packets[len(packets)-1].Time)
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var first, onset, last time.Time
	for _, r := range rows[1:] {
		at, err := time.Parse(time.RFC3339Nano, r[0])
		if err != nil {
			t.Fatal(err)
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if r[1] != "failure" {
			continue
		}
		if onset.IsZero() || at.Before(onset) {
			onset = at
		}
		if at.After(last) {
			last = at
		}
	}
	// The replay began 70 s before the onset: more than the minute that is kept.
	if onset.Sub(first) < 65*time.Second || last.Sub(onset) < 30*time.Second {
		t.Fatalf("attempts from %v, failures from %v to %v", first, onset, last)
	}
	_, m, err := readRun(run)
	if err != nil {
		t.Fatal(err)
	}
	// A row has the time of the recording; the clock's is as far from the begin.
	clock := func(at time.Time) time.Time { return m.Summary.Begin.Add(at.Sub(time.Unix(0, m.Plan.Begin))) }
	onset, last = clock(onset), clock(last)
	if d := onset.Sub(from); d < 58*time.Second || d > 62*time.Second { // there is not a packet at every moment
		t.Errorf("kept from %v, %v before the onset", from, d)
	}
	heard := map[string]time.Time{}
	for _, c := range changes {
		t.Logf("%v after the onset: %s %s", c.when.Sub(onset).Round(time.Millisecond), c.Sight, c.Sentence)
		if _, ok := heard[c.Sight]; !ok {
			heard[c.Sight] = c.when
		}
	}
	for _, want := range []struct {
		sight string
		after time.Time
		limit time.Duration
	}{{"provisional", onset, 10 * time.Second}, {"confirmed", onset, 30 * time.Second}, {"ended", last, 30 * time.Second}} {
		if d := heard[want.sight].Sub(want.after); d < 0 || d > want.limit {
			t.Errorf("%s: told %v after, want within %v", want.sight, d, want.limit)
		}
	}
	if to.Before(last) {
		t.Errorf("kept until %v, failures until %v", to, last)
	}
}
