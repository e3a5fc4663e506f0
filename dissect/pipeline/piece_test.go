package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect/overlay"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

func pieces(t *testing.T, cfg pipeline.Config, saved ...[]byte) *pipeline.Pieces {
	t.Helper()
	var files []io.ReaderAt
	var names []string
	for i, b := range saved {
		files, names = append(files, bytes.NewReader(b)), append(names, fmt.Sprint("piece ", i+1))
	}
	p, err := pipeline.ReadPieces(files, names)
	if err != nil {
		t.Fatal(err)
	}
	p.Config = cfg
	return p
}

func join(t *testing.T, cfg pipeline.Config, saved ...[]byte) *pipeline.Analysis {
	t.Helper()
	a, err := pieces(t, cfg, saved...).Join()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestPiecesInAnyGrouping: three taps of one outage, whose captures overlap, each
// analysed apart and in shards. However the pieces are joined, two or more at a time
// and in any order, the same bytes come out, and of one run those of the run.
func TestPiecesInAnyGrouping(t *testing.T) {
	sc, _ := samples.Find("outage")
	sc.Clients = 150
	for seed := range uint64(3) {
		var packets []capture.Packet
		if _, err := samples.Simulate(sc, seed, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		// Each tap hears a part of the time, misses some, and its clock is off.
		begin, span := packets[0].Time, packets[len(packets)-1].Time-packets[0].Time
		var all [][]byte
		var single []byte // of the first tap
		var shards [][]byte
		for tap := range int64(3) {
			var own []capture.Packet
			for _, p := range packets {
				if at := p.Time - begin; at >= span*tap/4 && at <= span*(tap+2)/4 && rnd.IntN(100) < 90 {
					p.Time += tap * int64(600*time.Millisecond)
					p.Frame = int64(len(own) + 1)
					own = append(own, p)
				}
			}
			save := func(s pipeline.Shard) []byte {
				a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 1, Protocols: overlay.All(), Shard: s, Made: []string{fmt.Sprint(tap)}}, capture.Memory(own))
				if err != nil {
					t.Fatal(err)
				}
				defer a.Close()
				var b bytes.Buffer
				if err := a.Save(&b); err != nil {
					t.Fatal(err)
				}
				return b.Bytes()
			}
			for i := range 3 {
				all = append(all, save(pipeline.Shard{Index: i, Count: 3}))
			}
			if tap == 0 {
				single, shards = save(pipeline.Shard{}), all
			}
		}
		cfg := pipeline.Config{Workers: 2, Protocols: overlay.All()}
		text := func(a *pipeline.Analysis) string {
			defer a.Close()
			r, err := a.Judge(storm.Config{})
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			list := lines(t, []string{string(b), fmt.Sprintf("%+v", a.Captures())}, a.Attempts())
			return strings.Join(lines(t, lines(t, list, a.Intents()), a.Clients()), "\n")
		}
		grouped := func(list [][]byte) []byte {
			list = append([][]byte(nil), list...)
			for len(list) > 1 {
				rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
				n := 2 + rnd.IntN(min(3, len(list)-1))
				var b bytes.Buffer
				if err := pieces(t, cfg, list[:n]...).Save(&b); err != nil {
					t.Fatal(err)
				}
				list = append(list[n:], b.Bytes())
			}
			return list[0]
		}
		var flat bytes.Buffer
		if err := pieces(t, cfg, all...).Save(&flat); err != nil {
			t.Fatal(err)
		}
		want := text(join(t, cfg, all...))
		if !strings.Contains(want, "were in several of the analyses") {
			t.Fatal("the taps have nothing in common")
		}
		for range 4 {
			b := grouped(all)
			if !bytes.Equal(b, flat.Bytes()) {
				t.Errorf("seed %d: joined by groups, other bytes", seed)
			}
			a := join(t, cfg, b)
			var saved bytes.Buffer
			if err := a.Save(&saved); err != nil || !bytes.Equal(saved.Bytes(), b) {
				t.Errorf("seed %d: the analysis saves other bytes than it is of: %v", seed, err)
			}
			if text(a) != want {
				t.Errorf("seed %d: joined by groups, another result", seed)
			}
			if !bytes.Equal(grouped(shards), single) {
				t.Errorf("seed %d: shards joined by groups are not the run", seed)
			}
		}
		if text(join(t, cfg, shards...)) != text(join(t, cfg, single)) {
			t.Errorf("seed %d: the shards give another result than the run", seed)
		}
		_, err := pieces(t, cfg, shards[2], shards[0]).Join()
		if !errors.Is(err, pipeline.ErrMissing) || !strings.Contains(err.Error(), "1 of 3 shards are missing: 1/3") {
			t.Errorf("a shard is missing: %v", err)
		}
	}
}
