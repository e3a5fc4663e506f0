package replay

import (
	"bytes"
	"fmt"
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

// header is the value of a header field, its name in any case.
func header(b []byte, names ...string) string {
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		for _, n := range names {
			if ok && strings.EqualFold(string(bytes.TrimSpace(name)), n) {
				return string(bytes.TrimSpace(value))
			}
		}
	}
	return ""
}

func hash(s string) uint64 {
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

func (gnutella) Request(dst []byte, who *Identity) []byte {
	return fmt.Appendf(dst, "GNUTELLA CONNECT/0.6\r\nUser-Agent: %s\r\nX-Ultrapeer: False\r\nListen-IP: %v\r\nGUID: %016X%016X\r\nX-Squall-Replay: 1\r\n\r\n",
		who.version(), who.Local, who.lasting(1), who.lasting(2))
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
	case ok && header(got[:n], "X-Try-Ultrapeers", "X-Try-Hubs") != "":
		// Where it points to is not gone to: those are addresses of strangers.
		return Reply{N: n, Kind: dissect.KindRedirect}
	case ok && bytes.HasPrefix(code, []byte("503")) && bytes.Contains(bytes.ToLower(code), []byte("busy")):
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
		if g := header(b[:n], "GUID"); g != "" {
			a.Client = hash(g)
		}
		return a
	}
	return Asked{N: len(b), Kind: dissect.KindData}
}

func (gnutella) Answer(dst []byte, _ *Asked, say dissect.Kind, _ time.Duration) []byte {
	status := "200 OK"
	switch say {
	case dissect.KindRefuse:
		status = "503 No Leaf Slots"
	case dissect.KindThrottle:
		status = "503 I am busy."
	}
	return fmt.Appendf(dst, "GNUTELLA/0.6 %s\r\nUser-Agent: squall-testnode\r\nX-Ultrapeer: True\r\n\r\n", status)
}

// sip is REGISTER over UDP (RFC 3261 section 10, protocols.md section D).
// Credentials are never replayed: a challenge is answered with none, and a
// registrar that insists is reported as refusing.
type sip struct{}

func (sip) Name() string                 { return "sip" }
func (sip) Transport() dissect.Transport { return dissect.UDP }
func (sip) Work() string {
	return "parsing and the location table; no digest is verified, so no capacity for authenticated registrations is shown"
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

func (sip) Request(dst []byte, who *Identity) []byte {
	call, tag := who.fresh(1), uint32(who.fresh(2))
	if who.Refresh { // the same cycle goes on, RFC 3261 section 10.2
		call = who.lasting(1)
	}
	cseq := 1 + uint32(who.Attempt%(1<<30)) + who.leg
	return fmt.Appendf(dst, "REGISTER sip:replay.invalid SIP/2.0\r\nVia: SIP/2.0/UDP %v;branch=z9hG4bK%016x;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:u%016x@replay.invalid>;tag=%08x\r\nTo: <sip:u%016x@replay.invalid>\r\nCall-ID: %016x@replay.invalid\r\nCSeq: %d REGISTER\r\n"+
		"Contact: <sip:u%016x@%v>\r\nExpires: 3600\r\nUser-Agent: %s\r\nX-Squall-Replay: 1\r\nContent-Length: 0\r\n\r\n",
		who.Local, who.fresh(0), who.lasting(0), tag, who.lasting(0), call, cseq, who.lasting(0), who.Local, who.version())
}

func (sip) Read(who *Identity, got []byte) Reply {
	code, ok := bytes.CutPrefix(got, []byte("SIP/2.0 "))
	if !ok || len(code) < 3 || !strings.Contains(header(got, "Via", "v"), fmt.Sprintf("z9hG4bK%016x", who.fresh(0))) {
		return Reply{}
	}
	n, err := strconv.Atoi(string(code[:3]))
	if err != nil {
		return Reply{}
	}
	r := Reply{N: len(got)}
	if s, _, _ := strings.Cut(header(got, "Retry-After"), " "); s != "" {
		v, _ := strconv.ParseUint(s, 10, 16)
		r.RetryAfter = time.Duration(v) * time.Second
	}
	switch {
	case n < 200:
		r.Kind = dissect.KindProgress
	case n < 300:
		r.Kind = dissect.KindAccept
		v, _ := strconv.ParseUint(header(got, "Expires"), 10, 31)
		r.Lifetime = time.Duration(v) * time.Second
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
	if !bytes.HasPrefix(b, []byte("REGISTER ")) || header(b, "CSeq") == "" || header(b, "Via", "v") == "" {
		return Asked{}
	}
	return Asked{N: len(b), Kind: dissect.KindRequest, Client: hash(header(b, "To", "t")), head: b}
}

func (sip) Answer(dst []byte, to *Asked, say dissect.Kind, retryAfter time.Duration) []byte {
	status, extra := "200 OK", "Expires: 3600\r\n"
	switch say {
	case dissect.KindRefuse:
		status, extra = "403 Forbidden", ""
	case dissect.KindThrottle:
		status, extra = "503 Service Unavailable", ""
		if retryAfter > 0 {
			extra = fmt.Sprintf("Retry-After: %d\r\n", int(retryAfter/time.Second))
		}
	}
	return fmt.Appendf(dst, "SIP/2.0 %s\r\nVia: %s\r\nFrom: %s\r\nTo: %s;tag=node\r\nCall-ID: %s\r\nCSeq: %s\r\n%sServer: squall-testnode\r\nContent-Length: 0\r\n\r\n",
		status, header(to.head, "Via", "v"), header(to.head, "From", "f"), header(to.head, "To", "t"), header(to.head, "Call-ID", "i"), header(to.head, "CSeq"), extra)
}
