package replay

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"squall/dissect"
)

// TestStunProof: the sample request with long-term credentials of RFC 5769
// section 2.4.
func TestStunProof(t *testing.T) {
	b, err := hex.DecodeString("000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c662f2f3439396b393534643" +
		"64f4c33346f4c394653547679363473410014000b6578616d706c652e6f7267000008" + "0014f67024656dd64a3e02b8e0712e85c9a28ca89666")
	if err != nil {
		t.Fatal(err)
	}
	proof, at := attribute(b, stunIntegrity)
	realm, _ := attribute(b, stunRealm)
	if got := stunProof(nil, b[:at], &Login{User: "マトリックス", Password: "TheMatrIX"}, realm); !bytes.Equal(got, proof) {
		t.Errorf("%x, the RFC has %x", got, proof)
	}
}

// TestWithLogins: a node with a password file challenges, lets in who proves
// himself, and refuses who has no login, another's password, or an answer that
// belongs to another attempt.
func TestWithLogins(t *testing.T) {
	logins, err := ReadCredentials(strings.NewReader("alice@example.org:open\nbob:sesame\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sip", "turn"} {
		d, _ := FindDialect(name)
		node, err := WithLogins(d, logins)
		if err != nil || node.Name() != name {
			t.Fatal(node, err)
		}
		// ask is one attempt; the legs are kept.
		ask := func(l Login, attempt uint64) (last dissect.Kind, legs [][]byte) {
			who := &Identity{Client: 1, Attempt: attempt, Local: netip.MustParseAddrPort("127.1.2.3:4567"), Login: l}
			request := d.Request(nil, who)
			for range 3 {
				legs = append(legs, request)
				asked := node.Serve(request)
				if asked.N != len(request) {
					t.Fatalf("%s: %q is served as %+v", name, request, asked)
				}
				asked.Peer = who.Local
				say := dissect.KindAccept
				if asked.Bad {
					say = dissect.KindRefuse
				}
				r := d.Read(who, node.Answer(nil, &asked, say, 0))
				if r.Kind != dissect.KindChallenge {
					return r.Kind, legs
				}
				request = r.Next
			}
			t.Fatalf("%s: challenged for ever", name)
			return 0, nil
		}
		var old [][]byte
		for i, l := range logins {
			kind, legs := ask(l, uint64(i))
			if kind != dissect.KindAccept || len(legs) != 2 {
				t.Errorf("%s, %s: %v after %d legs", name, l.User, kind, len(legs))
			}
			old = legs
		}
		for _, l := range []Login{{}, {User: "bob", Password: "open"}, {User: "carol", Password: "sesame"}} {
			if kind, _ := ask(l, 7); kind != dissect.KindRefuse {
				t.Errorf("%s: %+v is let in: %v", name, l, kind)
			}
		}
		if name == "sip" { // the nonce belongs to the call
			_, fresh := ask(logins[1], 8)
			mixed := bytes.Replace(old[1], header(old[1], "Call-ID"), header(fresh[1], "Call-ID"), 1)
			if a := node.Serve(mixed); !a.Bad {
				t.Error("sip: an answer to another challenge is let in")
			}
		}
		for n := range old[1] { // cut anywhere: no panic, and never let in
			if a := node.Serve(old[1][:n]); name == "turn" && a.N != 0 {
				t.Errorf("turn: serves %d of %d bytes", n, len(old[1]))
			}
		}
	}
	d, _ := FindDialect("n2n")
	if _, err := WithLogins(d, logins); err == nil {
		t.Error("n2n has logins")
	}
}

// TestTrackerKnowsItsIds: an announce without a connection id of the node is refused.
func TestTrackerKnowsItsIds(t *testing.T) {
	d := tracker{}
	who := &Identity{Attempt: 1}
	asked := d.Serve(d.Request(nil, who))
	next := d.Read(who, d.Answer(nil, &asked, dissect.KindAccept, 0)).Next
	if a := d.Serve(next); a.Bad || a.N != len(next) {
		t.Errorf("%+v", a)
	}
	next[3] ^= 1
	if a := d.Serve(next); !a.Bad {
		t.Error("a connection id that nobody gave is taken")
	}
}

// TestLacks: what a protocol cannot say is told before.
func TestLacks(t *testing.T) {
	for _, c := range []struct {
		dialect string
		cfg     NodeConfig
		want    string
	}{
		{"sip", NodeConfig{Rate: 1, Capacity: 1, Overload: Refuse}, ""},
		{"tcp", NodeConfig{Capacity: 1, Overload: Reset}, ""},
		{"udp", NodeConfig{Capacity: 1, Overload: Reset}, "no connection"},
		{"n2n", NodeConfig{Rate: 1}, "is refused"},
		{"n2n", NodeConfig{Capacity: 1, Overload: Refuse}, ""},
		{"bt-tracker", NodeConfig{Capacity: 1, Overload: Throttle}, "is refused"},
		{"nebula", NodeConfig{Capacity: 1, Overload: Refuse}, "hears nothing"},
		{"n2n-v1", NodeConfig{Loss: true}, "hears nothing"},
		{"bitcoin", NodeConfig{PerClient: 1}, "is refused"},
	} {
		d, _ := FindDialect(c.dialect)
		if got := Lacks(d, &c.cfg); got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s %+v: %q", c.dialect, c.cfg, got)
		}
	}
}
