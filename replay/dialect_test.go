package replay_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"squall/dissect"
	"squall/replay"
)

var local = netip.MustParseAddrPort("127.4.5.6:40001")

// answerOf asks a node's end of the dialect until it has the last word.
func answerOf(t *testing.T, d replay.Dialect, who *replay.Identity, say dissect.Kind) (replay.Reply, []byte) {
	t.Helper()
	request := d.Request(nil, who)
	for range 4 {
		asked := d.Serve(request)
		if asked.N != len(request) || asked.Kind != dissect.KindRequest {
			t.Fatalf("%s: the node makes %+v of %q", d.Name(), asked, request)
		}
		asked.Peer = local
		word := say
		if asked.Step {
			word = dissect.KindAccept
		}
		answer := d.Answer(nil, &asked, word, 30*time.Second)
		r := d.Read(who, answer)
		for used := r.N; r.Kind == dissect.KindProgress && used < len(answer); { // several messages at once
			r = d.Read(who, answer[used:])
			used += r.N
			if used == len(answer) {
				r.N = used
			}
		}
		if r.Kind != dissect.KindChallenge {
			return r, answer
		}
		request = r.Next
	}
	t.Fatalf("%s: no end of the legs", d.Name())
	return replay.Reply{}, nil
}

// TestDialects: both ends understand each other, in each word they have.
func TestDialects(t *testing.T) {
	noThrottle := map[string]bool{"n2n": true, "n2n-v2": true, "bt-tracker": true, "bt-dht": true, "bitcoin": true}
	noRefuse := map[string]bool{"n2n-v1": true, "nebula": true} // they say nothing
	for _, d := range replay.Dialects() {
		for _, say := range []dissect.Kind{dissect.KindAccept, dissect.KindRefuse, dissect.KindThrottle} {
			if noRefuse[d.Name()] && say != dissect.KindAccept {
				asked := d.Serve(d.Request(nil, &replay.Identity{Local: local}))
				if b := d.Answer(nil, &asked, say, 0); len(b) != 0 {
					t.Errorf("%s: a word for no: %q", d.Name(), b)
				}
				continue
			}
			who := &replay.Identity{Client: 7, Attempt: 9, Seed: 1, Local: local, Version: "Phone/1"}
			r, answer := answerOf(t, d, who, say)
			want := say
			if say == dissect.KindThrottle && noThrottle[d.Name()] {
				want = dissect.KindRefuse
			}
			if r.Kind != want || r.N != len(answer) {
				t.Errorf("%s: %v is read as %+v", d.Name(), want, r)
			}
			if want == dissect.KindThrottle && (d.Name() == "sip" || d.Name() == "tcp" || d.Name() == "udp") && r.RetryAfter != 30*time.Second {
				t.Errorf("%s: retry after %v", d.Name(), r.RetryAfter)
			}
			// A late answer to another attempt of the same client is not ours.
			other := &replay.Identity{Client: 7, Attempt: 10, Seed: 1, Local: local}
			if d.Transport() == dissect.UDP && d.Name() != "n2n-v1" && d.Read(other, answer).N != 0 {
				t.Errorf("%s: takes the answer to another attempt", d.Name())
			}
		}
		if d.Work() == "" {
			t.Errorf("%s: says nothing about its work", d.Name())
		}
	}
}

// TestRequestsAreFresh: no two attempts share a request, two clients no
// identity, and the same attempt of the same seed is the same bytes.
func TestRequestsAreFresh(t *testing.T) {
	for _, d := range replay.Dialects() {
		ask := func(client int64, attempt, seed uint64) ([]byte, uint64) {
			b := d.Request(nil, &replay.Identity{Client: client, Attempt: attempt, Seed: seed, Local: local})
			return b, d.Serve(b).Client
		}
		a, ida := ask(1, 1, 1)
		again, _ := ask(1, 1, 1)
		if !bytes.Equal(a, again) {
			t.Errorf("%s: the same attempt differs", d.Name())
		}
		if b, idb := ask(1, 2, 1); d.Transport() == dissect.UDP && bytes.Equal(a, b) || ida != idb {
			t.Errorf("%s: a second attempt has the same ids, or another client", d.Name())
		}
		if b, idb := ask(2, 1, 1); ida == idb && ida != 0 || d.Name() != "bt-tracker" && d.Name() != "stun" && d.Name() != "turn" && d.Name() != "bitcoin" && bytes.Equal(a, b) {
			t.Errorf("%s: two clients are one", d.Name())
		}
	}
}

// TestDialectsCut: every message cut at every byte is either not understood
// yet, or a plain answer; nobody panics.
func TestDialectsCut(t *testing.T) {
	for _, d := range replay.Dialects() {
		who := &replay.Identity{Client: 1, Attempt: 1, Local: local}
		request := d.Request(nil, who)
		asked := d.Serve(request)
		asked.Peer = local
		answer := d.Answer(nil, &asked, dissect.KindAccept, 0)
		for n := range request {
			if a := d.Serve(request[:n:n]); d.Transport() == dissect.TCP && a.N != 0 {
				t.Errorf("%s: serves %d of %d bytes", d.Name(), n, len(request))
			}
		}
		for n := range answer {
			cut := *who
			if r := d.Read(&cut, answer[:n:n]); r.N > n {
				t.Errorf("%s: uses %d of %d bytes", d.Name(), r.N, n)
			}
		}
	}
}

func TestDialectFor(t *testing.T) {
	for _, tc := range []struct {
		name  string
		proto uint8
		want  string
	}{{"", dissect.ProtoTCP, "tcp"}, {"", dissect.ProtoUDP, "udp"}, {"sip", dissect.ProtoUDP, "sip"}, {"sip", dissect.ProtoTCP, ""}, {"tls", dissect.ProtoTCP, ""}, {"gnutella", dissect.ProtoTCP, "gnutella"}} {
		d, err := replay.DialectFor(tc.name, tc.proto)
		if tc.want == "" != (err != nil) || err == nil && d.Name() != tc.want {
			t.Errorf("%q over %d: %v, %v", tc.name, tc.proto, d, err)
		}
	}
}

func FuzzDialects(f *testing.F) {
	for i, d := range replay.Dialects() {
		b := d.Request(nil, &replay.Identity{Client: 1, Local: local})
		a := d.Serve(b)
		a.Peer = local
		f.Add(i, b)
		f.Add(i, d.Answer(nil, &a, dissect.KindAccept, 0))
		f.Add(i, d.Answer(nil, &a, dissect.KindThrottle, 0))
	}
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		all := replay.Dialects()
		d := all[uint(i)%uint(len(all))]
		if a := d.Serve(b); a.N > len(b) || a.N < 0 {
			t.Errorf("%s: uses %d of %d", d.Name(), a.N, len(b))
		} else if a.N > 0 && a.Kind == dissect.KindRequest {
			a.Peer = local
			a.Keep(nil)
			d.Answer(nil, &a, dissect.KindAccept, time.Second)
			d.Answer(nil, &a, dissect.KindRefuse, 0)
		}
		if r := d.Read(&replay.Identity{Local: local}, b); r.N > len(b) || r.N < 0 {
			t.Errorf("%s: reads %d of %d", d.Name(), r.N, len(b))
		}
	})
}
