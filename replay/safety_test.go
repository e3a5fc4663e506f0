package replay_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"squall/dissect"
	"squall/replay"
)

// TestWhatIsAnnouncedIsInert: what a client tells a node of itself, to be handed
// to others, is an address where nobody listens; and where a protocol has room
// every request says that it is a replay.
func TestWhatIsAnnouncedIsInert(t *testing.T) {
	at := netip.MustParseAddrPort("10.77.3.9:41414")
	node := netip.MustParseAddrPort("10.77.3.1:7001")
	// The client's own address, in the words that protocols have for it.
	own := at.Addr().As4()
	xor := [4]byte{own[0] ^ 0x21, own[1] ^ 0x12, own[2] ^ 0xa4, own[3] ^ 0x42}
	marks := map[string]string{"gnutella": "X-Squall-Replay", "sip": "X-Squall-Replay", "n2n": "squall-replay", "n2n-v2": "squall-replay", "n2n-v1": "squall-replay",
		"bt-tracker": "-SQ0001-", "bitcoin": "/squall"} // plain ones are of our own making
	for _, d := range replay.Dialects() {
		who := &replay.Identity{Client: 7, Attempt: 9, Seed: 1, Local: at, Remote: node}
		request := d.Request(nil, who)
		said := bytes.Clone(request)
		for range 3 { // later legs announce, too
			asked := d.Serve(request)
			if asked.N == 0 || asked.Kind != dissect.KindRequest {
				break
			}
			asked.Peer = at
			next := []byte(nil)
			for got := d.Answer(nil, &asked, dissect.KindAccept, 0); len(got) > 0; {
				r := d.Read(who, got)
				if r.N == 0 {
					t.Fatalf("%s does not read its own answer", d.Name())
				}
				got, next = got[r.N:], append(next, r.Next...)
			}
			if len(next) == 0 {
				break
			}
			request, said = next, append(said, next...)
		}
		if mark := marks[d.Name()]; !strings.Contains(string(said), mark) {
			t.Errorf("%s: nothing says %q:\n%q", d.Name(), mark, said)
		}
		// SIP has it in Via alone, which is where the answer goes (RFC 3261
		// section 18.2.2), never in Contact.
		if d.Name() == "sip" {
			via := bytes.Index(said, []byte("Via: "))
			end := via + bytes.IndexByte(said[via:], '\n')
			said = append(said[:via:via], said[end:]...)
		}
		for _, form := range [][]byte{own[:], xor[:], []byte(at.Addr().String())} {
			if i := bytes.Index(said, form); i >= 0 {
				t.Errorf("%s: announces the client's address at byte %d:\n%q", d.Name(), i, said)
			}
		}
		if d.Name() == "bt-tracker" { // connect and announce
			if announce := said[16:]; len(announce) != 98 || binary.BigEndian.Uint32(announce[84:]) != 0 || binary.BigEndian.Uint16(announce[96:]) != 9 {
				t.Errorf("bt-tracker: announces %x", announce)
			}
		}
	}
}

// TestCapsByDefault: a run that says nothing has the caps of the safety rules.
func TestCapsByDefault(t *testing.T) {
	for want, p := range map[string]replay.PacketPlan{"--max-rate 1000": {Peak: 1001}, "--max-bytes 1073741824": {Bytes: 1<<30 + 1}, "--max-duration 10m0s": {Duration: 10*time.Minute + 1}} {
		var no *replay.Refusal
		if err := p.Within(replay.Caps{}); !errors.As(err, &no) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if err := (&replay.PacketPlan{Peak: 1000, Bytes: 1 << 30, Duration: 10 * time.Minute}).Within(replay.Caps{}); err != nil {
		t.Error(err)
	}
	c := cluster(t, "udp", replay.NodeConfig{})
	r := &replay.Runner{Plan: planOf(t, "udp", "none", 1, 10*time.Minute+1, replay.Item{}), Targets: c.Addrs(), Guard: guard(t)}
	if err := r.Check(); err == nil || !strings.Contains(err.Error(), "the cap is 10m0s") {
		t.Errorf("a long run: %v", err)
	}
	r.Plan = planOf(t, "udp", "none(timeout 100ms)", 1, 900*time.Millisecond, make([]replay.Item, 1100)...)
	for i := range r.Plan.Items {
		r.Plan.Items[i].Client = int32(i)
	}
	r.Plan.Clients = len(r.Plan.Items)
	if _, s, err := collect(t, t.Context(), r); err != nil || s.PeakRate != 1000 || s.Unsent != 100 || s.Valid() {
		t.Errorf("a fast run: %v, %+v", err, s)
	}
}

// TestRunnerStopsItself: targets that answer next to nobody, and a sender that
// is hopelessly late, end a run that was not told to go on.
func TestRunnerStopsItself(t *testing.T) {
	if testing.Short() {
		t.Skip("needs eleven seconds, over which a run judges its targets: run it without -short")
	}
	for _, tc := range []struct {
		name, want string
		items      func() []replay.Item
		silent     bool
	}{
		{"collapse", "the targets collapsed", func() (list []replay.Item) {
			for i := range 260 {
				list = append(list, replay.Item{At: time.Duration(i) * 50 * time.Millisecond, Client: int32(i)})
			}
			return list
		}, true},
		// All are due at once, and no machine sends so many in 100 ms.
		{"late", "sends", func() (list []replay.Item) {
			for i := range 60_000 {
				list = append(list, replay.Item{Client: int32(i), Hold: time.Millisecond})
			}
			return list
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t, "udp", replay.NodeConfig{})
			if tc.silent {
				if err := c.Do(replay.Event{Node: -1, Do: replay.Down}); err != nil {
					t.Fatal(err)
				}
			}
			p := planOf(t, "udp", "none(timeout 200ms)", 1, 13*time.Second, tc.items()...)
			_, s, err := collect(t, t.Context(), &replay.Runner{Plan: p, Targets: c.Addrs(), Guard: guard(t), Caps: replay.Caps{MaxRate: 1e6}})
			if err != nil || !strings.Contains(s.Stopped, tc.want) {
				t.Errorf("%v, stopped by %q, want %q; lateness p99 %v, %v", err, s.Stopped, tc.want, s.LatenessP99, s.Outcomes)
			}
		})
	}
}
