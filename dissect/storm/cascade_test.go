package storm_test

import (
	"fmt"
	"testing"

	"squall/dissect"
)

// udp makes a row a request over UDP.
func udp(a *dissect.Attempt) {
	a.Proto, a.Transmissions, a.SourcePackets, a.DestinationPackets, a.History = dissect.ProtoUDP, 1, 1, 1, ""
	a.Service, a.Protocol, a.Answer = "n2n/supernode", "n2n", dissect.AnswerReply
}

// TestPopulation: who asks anew has lost its session, and who lets it expire has none
// either, though over UDP nobody says so.
func TestPopulation(t *testing.T) {
	for seed := range uint64(3) {
		f := newFeed(50 + seed)
		for i := range 300 {
			name, id := fmt.Sprint("edge", i), uint64(0)
			left := i%3 == 0 // for good, without a word
			for at := 20 * f.rng.Float64(); at < 600; at += 20 {
				a := f.add(name, at, func(a *dissect.Attempt) {
					udp(a)
					a.Source.Port = uint16(i)
					a.Relation = dissect.RelationRefresh
				})
				switch down := at > 300 && at < 400; {
				case down && id == 0:
					a.Relation, id = dissect.RelationReattach, a.IntentID
				case id != 0:
					a.Relation, a.IntentID = dissect.RelationRetry, id
				}
				if at > 300 && at < 400 {
					silent(a)
					a.Transmissions, a.SourcePackets = 1, 1
				} else {
					id = 0
				}
				if left && at > 480 {
					a.SessionEnd, a.SessionEnded = a.End+30*second, dissect.SessionExpired
					break
				}
			}
		}
		r := f.judge(600, nil)
		if v := r.Verdict; v.Attached != 300 || v.AttachedLow != 0 || v.AttachedBack90 < 90*second || v.AttachedBack90 > 100*second {
			t.Errorf("seed %d: %d attached, then %d, back after %d s: %s", seed, v.Attached, v.AttachedLow, v.AttachedBack90/second, r.Summary)
		}
		last := r.Timeline[len(r.Timeline)-1]
		for _, w := range r.Timeline {
			if w.Node == (dissect.Endpoint{}) && w.Start >= 540*second {
				last = w
			}
		}
		if last.Attached != 200 {
			t.Errorf("seed %d: %d attached at %d s, 100 of 300 have left", seed, last.Attached, last.Start/second)
		}
	}
}
