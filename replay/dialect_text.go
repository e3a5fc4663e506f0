package replay

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
)

// headMost bounds a text head that is waited for.
const headMost = 16 << 10

// head is the length of a text head with its empty line, 0 = not there yet.
func head(b []byte) int {
	i := bytes.Index(b, []byte("\r\n\r\n"))
	if i < 0 {
		return 0
	}
	return i + 4
}

// header is the value of a header field, its name in any case; nil = there is
// none.
func header(b []byte, names ...string) []byte {
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		i := bytes.IndexByte(line, ':')
		if i < 0 {
			continue
		}
		name := bytes.TrimSpace(line[:i])
		for _, n := range names {
			if same(name, n) {
				return bytes.TrimSpace(line[i+1:])
			}
		}
	}
	return nil
}

// same compares letters of ASCII in any case.
func same(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c|0x20 != s[i]|0x20 {
			return false
		}
	}
	return true
}

// digits reads a number that a header begins with.
func digits(b []byte, bits int) uint64 {
	if i := bytes.IndexAny(b, " ;("); i >= 0 {
		b = b[:i]
	}
	v, _ := strconv.ParseUint(string(b), 10, bits)
	return v
}

func hash[T string | []byte](s T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// gnutella is the three-way handshake of Gnutella 0.6 (protocols.md section F.1).
type gnutella struct{}

func (gnutella) Name() string                 { return "gnutella" }
func (gnutella) Transport() dissect.Transport { return dissect.TCP }
func (gnutella) Work() string                 { return "the whole handshake; no queries are routed" }

func (gnutella) Repeat(int) time.Duration { return 0 }

// gnutellaHead is that of a descriptor after the handshake: GUID, kind, TTL,
// hops, length (little endian).
const gnutellaHead = 23

// Life is a ping that goes no further than the node.
func (gnutella) Life(dst []byte, who *Identity, k uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, who.fresh(16+2*k))
	dst = binary.BigEndian.AppendUint64(dst, who.fresh(17+2*k))
	return append(dst, 0, 1, 0, 0, 0, 0, 0)
}

func (gnutella) Request(dst []byte, who *Identity) []byte {
	return fmt.Appendf(dst, "GNUTELLA CONNECT/0.6\r\nUser-Agent: %s\r\nX-Ultrapeer: False\r\nListen-IP: 192.0.2.1:9\r\nGUID: %016X%016X\r\nX-Squall-Replay: 1\r\n\r\n",
		who.version(), who.lasting(1), who.lasting(2))
}

func (gnutella) Read(_ *Identity, got []byte) Reply {
	n := head(got)
	if n == 0 {
		if len(got) > headMost {
			return Reply{N: len(got), Kind: dissect.KindRefuse}
		}
		return Reply{}
	}
	first, _, _ := bytes.Cut(got[:n], []byte("\r\n"))
	code, ok := bytes.CutPrefix(first, []byte("GNUTELLA/0.6 "))
	switch {
	case ok && bytes.HasPrefix(code, []byte("200")):
		return Reply{N: n, Kind: dissect.KindAccept, Next: []byte("GNUTELLA/0.6 200 OK\r\n\r\n")}
	case ok && len(header(got[:n], "X-Try-Ultrapeers", "X-Try-Hubs")) > 0:
		// Where it points to is not gone to: those are addresses of strangers.
		return Reply{N: n, Kind: dissect.KindRedirect}
	case ok && bytes.HasPrefix(code, []byte("503")):
		return Reply{N: n, Kind: dissect.KindThrottle}
	}
	return Reply{N: n, Kind: dissect.KindRefuse}
}

func (gnutella) Serve(b []byte) Asked {
	if bytes.HasPrefix(b, []byte("GNUTELLA ")) || len(b) < 9 && bytes.HasPrefix([]byte("GNUTELLA "), b) || bytes.HasPrefix(b, []byte("GNUTELLA/")) {
		n := head(b)
		switch {
		case n == 0 && len(b) > headMost:
			return Asked{N: len(b), Kind: dissect.KindClose}
		case n == 0:
			return Asked{}
		case b[8] == '/':
			return Asked{N: n, Kind: dissect.KindData}
		}
		a := Asked{N: n, Kind: dissect.KindRequest, head: b[:n]}
		if g := header(b[:n], "GUID"); len(g) > 0 {
			a.Client = hash(g)
		}
		return a
	}
	if len(b) < gnutellaHead {
		return Asked{}
	}
	n := gnutellaHead + int(binary.LittleEndian.Uint32(b[19:]))
	switch {
	case n > headMost:
		return Asked{N: len(b), Kind: dissect.KindClose}
	case n > len(b):
		return Asked{}
	}
	return Asked{N: n, Kind: dissect.KindData, Life: b[16] == 0, head: b[:n]}
}

func (gnutella) Answer(dst []byte, to *Asked, say dissect.Kind, _ time.Duration) []byte {
	if to.Life { // a pong: no address, nothing shared
		return append(append(append(dst, to.head[:16]...), 1, 1, 0, 14, 0, 0, 0), make([]byte, 14)...)
	}
	status := "200 OK"
	switch say {
	case dissect.KindRefuse:
		status = "403 Not Welcome"
	case dissect.KindThrottle:
		status = "503 I am busy."
	}
	return fmt.Appendf(dst, "GNUTELLA/0.6 %s\r\nUser-Agent: squall-testnode\r\nX-Ultrapeer: True\r\n\r\n", status)
}

// sip is REGISTER over UDP (RFC 3261 section 10, protocols.md section D).
// Credentials are never replayed: a challenge is answered with those that were
// given for the run (digest, RFC 7616); without any, a registrar that insists
// is reported as refusing. What is registered is a contact that leads nowhere.
type sip struct{}

func (sip) Name() string                 { return "sip" }
func (sip) Transport() dissect.Transport { return dissect.UDP }
func (sip) Work() string {
	return "parsing and the location table; digests only as far as credentials were given, otherwise no capacity for authenticated registrations is shown"
}

// Repeat is timer E: 0.5 s, doubled, at most 4 s apart, 32 s in all.
func (sip) Repeat(k int) time.Duration {
	at, gap := time.Duration(0), 500*time.Millisecond
	for range k {
		at += gap
		gap = min(2*gap, 4*time.Second)
	}
	if at >= 32*time.Second {
		return 0
	}
	return at
}

func (s sip) Request(dst []byte, who *Identity) []byte { return s.register(dst, who, "") }

// register appends a REGISTER with a header line more; the legs of an attempt
// share their Call-ID and count up.
func (sip) register(dst []byte, who *Identity, line string) []byte {
	call := who.steady(1)
	if who.Refresh { // the same cycle goes on, RFC 3261 section 10.2
		call = who.lasting(1)
	}
	cseq := 1 + uint32(who.Attempt%(1<<29))*2 + who.leg
	var room [64]byte
	user, domain := room[:0], "replay.invalid"
	if who.Login.User == "" {
		user = appendHex(append(user, 'u'), who.lasting(0))
	} else {
		u, d := sipUser(who)
		user, domain = append(user, u...), d
	}
	dst = append(append(dst, "REGISTER sip:"...), domain...)
	dst = who.Local.AppendTo(append(dst, " SIP/2.0\r\nVia: SIP/2.0/UDP "...))
	dst = appendHex(append(dst, ";branch="+sipBranch...), who.fresh(0))
	dst = append(append(dst, ";rport\r\nMax-Forwards: 70\r\nFrom: <sip:"...), user...)
	dst = append(append(append(dst, '@'), domain...), ">;tag="...)
	dst = append(appendHex(dst, who.steady(2)), "\r\nTo: <sip:"...)
	dst = append(append(append(append(dst, user...), '@'), domain...), ">\r\nCall-ID: "...)
	dst = append(appendHex(dst, call), "@replay.invalid\r\nCSeq: "...)
	dst = append(strconv.AppendUint(dst, uint64(cseq), 10), " REGISTER\r\nContact: <sip:"...)
	dst = append(append(append(dst, user...), "@client.invalid>\r\n"...), line...)
	dst = append(append(dst, "Expires: 3600\r\nUser-Agent: "...), who.version()...)
	return append(dst, "\r\nX-Squall-Replay: 1\r\nContent-Length: 0\r\n\r\n"...)
}

// sipBranch begins every branch, RFC 3261 section 8.1.1.7.
const sipBranch = "z9hG4bK"

// sipUser is the address of record, in its two halves.
func sipUser(who *Identity) (user, domain string) {
	if who.Login.User == "" {
		return fmt.Sprintf("u%016x", who.lasting(0)), "replay.invalid"
	}
	user, domain, ok := strings.Cut(who.Login.User, "@")
	if !ok {
		domain = "replay.invalid"
	}
	return user, domain
}

// digestFields reads the fields of a digest header, nil if it is none.
func digestFields(value string) map[string]string {
	kind, rest, _ := strings.Cut(value, " ")
	if !strings.EqualFold(kind, "Digest") {
		return nil
	}
	p := map[string]string{}
	for rest != "" {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		if quoted, ok := strings.CutPrefix(value, `"`); ok {
			value, rest, _ = strings.Cut(quoted, `"`)
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			value, rest, _ = strings.Cut(value, ",")
		}
		p[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return p
}

// digestSum is the hash of an algorithm's name, nil = not known.
func digestSum(algorithm string) func(string) string {
	switch strings.ToUpper(algorithm) {
	case "", "MD5":
		return func(s string) string { return fmt.Sprintf("%x", md5.Sum([]byte(s))) }
	case "SHA-256":
		return func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	}
	return nil
}

// digest answers a challenge (RFC 7616 section 3.4); "" if it is none that can
// be answered.
func digest(challenge, uri string, who *Identity) string {
	p := digestFields(challenge)
	sum := digestSum(p["algorithm"])
	if p == nil || sum == nil {
		return ""
	}
	user, _ := sipUser(who)
	a1, a2 := sum(user+":"+p["realm"]+":"+who.Login.Password), sum("REGISTER:"+uri)
	out := fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s"`, user, p["realm"], p["nonce"], uri)
	if a := p["algorithm"]; a != "" {
		out += ", algorithm=" + a
	}
	if o := p["opaque"]; o != "" {
		out += `, opaque="` + o + `"`
	}
	wants := strings.FieldsFunc(p["qop"], func(r rune) bool { return r == ',' || r == ' ' })
	switch {
	case slices.Contains(wants, "auth"):
		nonce := fmt.Sprintf("%016x", who.fresh(3))
		return out + fmt.Sprintf(`, qop=auth, nc=00000001, cnonce="%s", response="%s"`, nonce, sum(a1+":"+p["nonce"]+":00000001:"+nonce+":auth:"+a2))
	case len(wants) > 0:
		return ""
	}
	return out + `, response="` + sum(a1+":"+p["nonce"]+":"+a2) + `"`
}

func (sip) Read(who *Identity, got []byte) Reply {
	code, ok := bytes.CutPrefix(got, []byte("SIP/2.0 "))
	if !ok || len(code) < 3 {
		return Reply{}
	}
	branch := header(got, "Via", "v")
	if i := bytes.Index(branch, []byte(sipBranch)); i < 0 || len(branch) < i+len(sipBranch)+16 || !isHex(branch[i+len(sipBranch):][:16], who.fresh(0)) {
		return Reply{}
	}
	n, err := strconv.Atoi(string(code[:3]))
	if err != nil {
		return Reply{}
	}
	r := Reply{N: len(got), RetryAfter: time.Duration(digits(header(got, "Retry-After"), 16)) * time.Second}
	if (n == 401 || n == 407) && who.leg == 0 && who.Login.User != "" {
		_, domain := sipUser(who)
		answer, name := digest(string(header(got, "WWW-Authenticate")), "sip:"+domain, who), "Authorization"
		if n == 407 {
			answer, name = digest(string(header(got, "Proxy-Authenticate")), "sip:"+domain, who), "Proxy-Authorization"
		}
		if answer != "" {
			who.leg++
			r.Kind, r.Next = dissect.KindChallenge, sip{}.register(nil, who, name+": "+answer+"\r\n")
			return r
		}
	}
	switch {
	case n < 200:
		r.Kind = dissect.KindProgress
	case n < 300:
		r.Kind = dissect.KindAccept
	case n < 400:
		r.Kind = dissect.KindRedirect
	case n == 503:
		r.Kind = dissect.KindThrottle
	default:
		r.Kind = dissect.KindRefuse
	}
	return r
}

func (sip) Serve(b []byte) Asked {
	if !bytes.HasPrefix(b, []byte("REGISTER ")) || len(header(b, "CSeq")) == 0 || len(header(b, "Via", "v")) == 0 {
		return Asked{}
	}
	return Asked{N: len(b), Kind: dissect.KindRequest, Client: hash(header(b, "To", "t")), head: b}
}

func (sip) Answer(dst []byte, to *Asked, say dissect.Kind, retryAfter time.Duration) []byte {
	dst = append(dst, "SIP/2.0 "...)
	switch say {
	case dissect.KindRefuse:
		dst = append(dst, "403 Forbidden\r\n"...)
	case dissect.KindThrottle:
		dst = append(dst, "503 Service Unavailable\r\n"...)
		if retryAfter > 0 {
			dst = append(strconv.AppendInt(append(dst, "Retry-After: "...), int64(retryAfter/time.Second), 10), "\r\n"...)
		}
	default:
		dst = append(dst, "200 OK\r\nExpires: 3600\r\n"...)
		if contact := header(to.head, "Contact", "m"); contact != nil { // clients look for theirs (RFC 3261 section 10.3)
			dst = append(append(append(dst, "Contact: "...), contact...), ";expires=3600\r\n"...)
		}
	}
	return sipEcho(dst, to.head)
}

// sipEcho ends an answer with what it repeats of its request.
func sipEcho(dst, request []byte) []byte {
	dst = append(append(dst, "Via: "...), header(request, "Via", "v")...)
	dst = append(append(dst, "\r\nFrom: "...), header(request, "From", "f")...)
	dst = append(append(dst, "\r\nTo: "...), header(request, "To", "t")...)
	dst = append(append(dst, ";tag=node\r\nCall-ID: "...), header(request, "Call-ID", "i")...)
	dst = append(append(dst, "\r\nCSeq: "...), header(request, "CSeq")...)
	return append(dst, "\r\nServer: squall-testnode\r\nContent-Length: 0\r\n\r\n"...)
}
