package replay_test

import (
	"fmt"
	"strings"
	"testing"

	"squall/dissect"
	"squall/replay"
)

// TestDigest: the answer to a challenge without qop is the one that was
// computed elsewhere (RFC 2617 section 3.2.2.1: MD5 of A1, nonce, A2); a second
// challenge is a no, and without a login the first is.
func TestDigest(t *testing.T) {
	d, _ := replay.FindDialect("sip")
	logins, err := replay.ReadCredentials(strings.NewReader("# test phones\nalice@example.org:open sesame\n"))
	if err != nil || len(logins) != 1 {
		t.Fatal(logins, err)
	}
	challenge := func(request []byte) []byte {
		via := string(request[strings.Index(string(request), "Via:"):])
		via, _, _ = strings.Cut(via, "\r\n")
		return fmt.Appendf(nil, "SIP/2.0 401 Unauthorized\r\n%s\r\nCSeq: 1 REGISTER\r\nWWW-Authenticate: Digest realm=\"example.org\", nonce=\"abc\"\r\n\r\n", via)
	}
	who := &replay.Identity{Client: 1, Attempt: 3, Local: local, Login: logins[0]}
	first := d.Request(nil, who)
	r := d.Read(who, challenge(first))
	if r.Kind != dissect.KindChallenge || !strings.Contains(string(r.Next), `response="5459f95ecc3a7c33cab3d821835755bf"`) || !strings.Contains(string(r.Next), `username="alice"`) ||
		!strings.HasPrefix(string(r.Next), "REGISTER sip:example.org ") || strings.Contains(string(r.Next), "sesame") {
		t.Errorf("%v\n%s", r.Kind, r.Next)
	}
	id := func(b []byte) string {
		_, rest, _ := strings.Cut(string(b), "Call-ID: ")
		call, _, _ := strings.Cut(rest, "\r\n")
		return call
	}
	if id(first) == "" || id(first) != id(r.Next) {
		t.Errorf("the legs have the calls %q and %q", id(first), id(r.Next))
	}
	if r = d.Read(who, challenge(r.Next)); r.Kind != dissect.KindRefuse {
		t.Errorf("challenged twice: %v", r.Kind)
	}
	who = &replay.Identity{Client: 1, Attempt: 3, Local: local}
	if r = d.Read(who, challenge(d.Request(nil, who))); r.Kind != dissect.KindRefuse {
		t.Errorf("challenged without a login: %v", r.Kind)
	}
}

func TestCredentialErrors(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "alice", ":x", "a b:c", "-----BEGIN NEBULA X25519 PRIVATE KEY-----\nAAAA\n-----END NEBULA X25519 PRIVATE KEY-----\n",
		"-----BEGIN NEBULA CERTIFICATE-----\nAAAA\n-----END NEBULA CERTIFICATE-----\n"} {
		if l, err := replay.ReadCredentials(strings.NewReader(text)); err == nil {
			t.Errorf("%q: %v", text, l)
		}
	}
}
