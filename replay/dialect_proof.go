package replay

import (
	"crypto/hmac"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"squall/dissect"
)

// WithLogins is a dialect whose node lets in only who proves a login: a
// registrar or TURN server with a password file. The challenge is a leg of its
// own, answered at once; a wrong answer is refused whatever the load.
func WithLogins(d Dialect, logins []Login) (Dialect, error) {
	byUser := map[string]*Login{}
	for i := range logins {
		byUser[logins[i].User] = &logins[i]
	}
	switch d := d.(type) {
	case sip:
		return sipProven{d, byUser}, nil
	case stun:
		if d.allocate {
			return turnProven{d, byUser}, nil
		}
	}
	return nil, fmt.Errorf("%s: a node asks for logins in sip and turn only", d.Name())
}

// nonce is one that a node knows again without having kept it: it belongs to
// the attempt.
func nonce(of []byte) []byte { return appendHex(nil, mix(7, hash(of))) }

const proofRealm = "squall-testnode"

type sipProven struct {
	sip
	logins map[string]*Login
}

func (s sipProven) Serve(b []byte) Asked {
	a := s.sip.Serve(b)
	if a.N == 0 {
		return a
	}
	value := header(b, "Authorization")
	if value == nil {
		a.Step = true
		return a
	}
	p := digestFields(string(value))
	user := p["username"]
	l := s.logins[user]
	if _, domain, ok := strings.Cut(p["uri"], ":"); l == nil && ok {
		l = s.logins[user+"@"+domain]
	}
	sum := digestSum(p["algorithm"])
	a.Bad = l == nil || sum == nil || p["realm"] != proofRealm || p["nonce"] != string(nonce(header(b, "Call-ID", "i"))) ||
		p["response"] != sum(sum(user+":"+proofRealm+":"+l.Password)+":"+p["nonce"]+":"+p["nc"]+":"+p["cnonce"]+":"+p["qop"]+":"+sum("REGISTER:"+p["uri"]))
	return a
}

func (s sipProven) Answer(dst []byte, to *Asked, say dissect.Kind, retryAfter time.Duration) []byte {
	if !to.Step {
		return s.sip.Answer(dst, to, say, retryAfter)
	}
	dst = fmt.Appendf(dst, "SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"%s\", nonce=\"%s\", qop=\"auth\"\r\n",
		proofRealm, nonce(header(to.head, "Call-ID", "i")))
	return sipEcho(dst, to.head)
}

type turnProven struct {
	stun
	logins map[string]*Login
}

func (s turnProven) Serve(b []byte) Asked {
	a := s.stun.Serve(b)
	if a.N == 0 {
		return a
	}
	proof, at := attribute(b, stunIntegrity)
	if proof == nil {
		a.Step = true
		return a
	}
	name, _ := attribute(b, stunUsername)
	realm, _ := attribute(b, stunRealm)
	given, _ := attribute(b, stunNonce)
	l := s.logins[string(name)]
	text := append([]byte(nil), b[:at]...) // its length ends with the proof, whatever follows
	binary.BigEndian.PutUint16(text[2:], uint16(at+4+len(proof)-20))
	a.Bad = l == nil || string(realm) != proofRealm || string(given) != string(nonce([]byte(proofRealm))) ||
		!hmac.Equal(proof, stunProof(nil, text, l, realm))
	return a
}

func (s turnProven) Answer(dst []byte, to *Asked, say dissect.Kind, retryAfter time.Duration) []byte {
	at := len(dst)
	if !to.Step {
		dst = s.stun.Answer(dst, to, say, retryAfter)
		name, _ := attribute(to.head, stunUsername)
		if l := s.logins[string(name)]; l != nil { // clients want the node's proof, too
			dst = appendProof(dst, at, l, []byte(proofRealm))
		}
		return dst
	}
	dst = append(append(dst, 1, 0x10|to.head[1], 0, 0), to.head[4:20]...)
	dst = append(dst, 0, stunError, 0, 4, 0, 0, 4, 1)
	dst = appendAttribute(dst, stunRealm, []byte(proofRealm))
	dst = appendAttribute(dst, stunNonce, nonce([]byte(proofRealm)))
	binary.BigEndian.PutUint16(dst[at+2:], uint16(len(dst)-at-20))
	return dst
}
