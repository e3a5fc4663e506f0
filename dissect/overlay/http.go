package overlay

import (
	"bytes"
	"errors"
	"time"

	"squall/dissect"
)

// http is HTTP/1 over TCP, and the preface of HTTP/2: RFC 9110, RFC 9112
// sections 3, 4, 6 and 7, RFC 9113 section 3.4. It is here because overlays
// find their first nodes, check their version and learn to wait by it.
//
//	METHOD target HTTP/1.x CRLF | name: value CRLF ... | CRLF | body
//	HTTP/1.x code reason CRLF | ...
//
// Each request is an attempt, a body passes unread. 2xx and 3xx are yes (a 3xx
// is what the node serves here), 401 and 407 are challenges and refusals to a
// request that had credentials, 429 and 503 are busy with their Retry-After,
// the other 4xx and 5xx refuse. The version is User-Agent. On a connection of
// HTTP/2 only the start is read: the server's first frame is the yes. Who is
// asked for a list of nodes (GWebCache, server.met, nodes.dat) is a bootstrap
// node; otherwise the role is not told.
type http struct{}

const (
	// httpPatience is how much of a request line may come without its end before it is believed.
	httpPatience = 256
	httpForever  = 1 << 33 // a body that ends with the connection
)

// Bits of Flow.Flags, the node's twice as high.
const (
	httpChunked  = 1
	httpTrailer  = 1 << 2
	httpHead     = 1 << 4 // the newest request is a HEAD
	httpLoggedIn = 1 << 5 // the newest request had credentials
	httpTunnel   = 1 << 6 // the newest request is a CONNECT
	httpTwo      = 1 << 7 // HTTP/2
)

var errHTTP = errors.New("not an http message")

func (http) Name() string                  { return "http" }
func (http) Transports() dissect.Transport { return dissect.TCP }

// httpMethod is the method that b begins with, followed by a space; "" if it is none.
func httpMethod(b []byte) string {
	if len(b) < 4 || b[0] < 'A' || b[0] > 'U' || b[1] < 'A' || b[1] > 'U' || b[2] < 'A' || b[2] > 'V' {
		return ""
	}
	for _, m := range [...]string{"GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE",
		"PROPFIND", "REPORT", "SEARCH", "SUBSCRIBE", "NOTIFY", "MKCOL", "LOCK", "UNLOCK", "MOVE", "COPY"} {
		if len(b) > len(m) && b[len(m)] == ' ' && string(b[:len(m)]) == m {
			return m
		}
	}
	return ""
}

const httpPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func (http) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "ABCDEFGHIJKLMNOPQRSTU", Least: 8}}
}

func (http) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < 8 {
		return dissect.No
	}
	if b[0] == 'H' && string(b[:7]) == "HTTP/1." {
		if len(b) >= 12 && b[8] == ' ' && b[9] >= '1' && b[9] <= '5' && digit(b[10]) && digit(b[11]) {
			return dissect.Yes
		}
		return dissect.No
	}
	if httpMethod(b) == "" {
		if len(b) >= len(httpPreface) && string(b[:len(httpPreface)]) == httpPreface {
			return dissect.Yes
		}
		return dissect.No
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) > httpPatience || d.Cut {
			return dissect.Maybe
		}
		return dissect.No
	}
	line := bytes.TrimSuffix(b[:end], []byte{'\r'})
	if len(line) > 9 && string(line[len(line)-9:len(line)-1]) == " HTTP/1." {
		return dissect.Yes
	}
	return dissect.No
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// httpFields are the header fields that are read, as they stand in the message.
type httpFields struct {
	agent, host, length, encoding, retry, authorization, upgrade []byte
}

// httpHeadEnd is the length of the head with its empty line, 0 if it is not there.
func httpHeadEnd(b []byte) int {
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return i + 4
	}
	if i := bytes.Index(b, []byte("\n\n")); i >= 0 {
		return i + 2
	}
	return 0
}

// nextLine cuts the first line off b; the line is without its end.
func nextLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return b, nil
	}
	return bytes.TrimSuffix(b[:i], []byte{'\r'}), b[i+1:]
}

func readHTTPFields(b []byte) (h httpFields) {
	for len(b) > 0 {
		var line []byte
		line, b = nextLine(b)
		i := bytes.IndexByte(line, ':')
		if i <= 0 {
			continue
		}
		name, value := line[:i], bytes.TrimSpace(line[i+1:])
		switch {
		case is(name, "user-agent"):
			h.agent = value
		case is(name, "host"):
			h.host = value
		case is(name, "content-length"):
			h.length = value
		case is(name, "transfer-encoding"):
			h.encoding = value
		case is(name, "retry-after"):
			h.retry = value
		case is(name, "authorization"), is(name, "proxy-authorization"):
			h.authorization = value
		case is(name, "upgrade"):
			h.upgrade = value
		}
	}
	return h
}

// is compares without regard to case; word is in lower case.
func is(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// number reads decimal digits; ok is false for anything else, or more than 18.
func number(b []byte) (v uint64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if !digit(c) {
			return 0, false
		}
		v = v*10 + uint64(c-'0')
	}
	return v, true
}

// retryAfter is a Retry-After value in ns after now: seconds, or a date.
func retryAfter(b []byte, now int64) int64 {
	const maxWait = 365 * 24 * 3600 // a year: longer ones are nonsense
	if i := bytes.IndexAny(b, " ;("); i > 0 && digit(b[0]) {
		b = b[:i] // SIP's comment and parameters
	}
	if v, ok := number(b); ok {
		return int64(min(v, maxWait)) * int64(time.Second)
	}
	if t, err := time.Parse(time.RFC1123, string(b)); err == nil {
		return min(max(t.UnixNano()-now, 0), maxWait*int64(time.Second))
	}
	return 0
}

// Flow.B counts requests in its low half, final responses in the high one.
func (http) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	side := uint8(1)
	if !f.FromClient {
		side = 2
	}
	switch {
	case f.Flags&httpTwo != 0:
		return httpFrame(b, f, m)
	case f.Flags&(httpTrailer*side) != 0:
		line, rest := nextLine(b)
		if rest == nil && len(line) == len(b) {
			if wait(d) {
				return 0, dissect.ErrShort
			}
			return len(b), nil // a line that is too long to be kept
		}
		if len(line) == 0 {
			f.Flags &^= httpTrailer * side
		}
		return len(b) - len(rest), nil
	case f.Flags&(httpChunked*side) != 0:
		return httpChunk(d, f, side)
	}
	if d.Payload[0] == 'P' && len(b) >= 3 && string(b[:3]) == "PRI" {
		if len(b) < len(httpPreface) {
			return 0, dissect.ErrShort
		}
		f.Flags |= httpTwo
		m.Kind, m.Op = dissect.KindRequest, "h2"
		return len(httpPreface), nil
	}
	end := httpHeadEnd(b)
	if end == 0 {
		if wait(d) {
			return 0, dissect.ErrShort
		}
		end = bytes.LastIndexByte(b, '\n') + 1
		if end == 0 {
			end = len(b)
		}
		f.Flags |= httpTrailer * side // what is left of the head passes as one
	}
	line, rest := nextLine(b[:end])
	h := readHTTPFields(rest)
	body := uint64(0)
	if v, ok := number(h.length); ok {
		body = v
	}
	chunked := len(h.encoding) >= 7 && is(h.encoding[len(h.encoding)-7:], "chunked")
	if len(line) >= 12 && string(line[:7]) == "HTTP/1." {
		if f.FromClient {
			return 0, errHTTP
		}
		code := int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
		if code < 100 || code > 599 {
			return 0, errHTTP
		}
		httpResponse(d, f, m, code, &h)
		switch {
		case code < 200 || code == 204 || code == 304 || f.Flags&httpHead != 0:
			body, chunked = 0, false
		case len(h.length) == 0 && !chunked:
			body = httpForever
		}
	} else {
		method := httpMethod(line)
		if method == "" || !f.FromClient {
			return 0, errHTTP
		}
		f.B++
		m.Kind, m.Op, m.Txn = dissect.KindRequest, method, hash1(uint64(uint32(f.B)))
		m.Version, m.ServerName = h.agent, httpHost(h.host)
		target := line[len(method)+1:]
		if i := bytes.IndexByte(target, ' '); i > 0 {
			target = target[:i]
		}
		m.Chain = hashKey(uint64(len(method)), target)
		if httpBootstrap(target) {
			m.Role = dissect.RoleBootstrap
		}
		f.Flags &^= httpHead | httpLoggedIn | httpTunnel
		switch {
		case method == "HEAD":
			f.Flags |= httpHead
		case method == "CONNECT":
			f.Flags |= httpTunnel
		}
		if len(h.authorization) > 0 {
			f.Flags |= httpLoggedIn
		}
	}
	if chunked {
		f.Flags |= httpChunked * side
		return end, nil
	}
	return leaveBody(f, uint64(end)+body, len(b)), nil
}

// httpHost is the name in a Host field, without its port (RFC 9110 section 7.2).
func httpHost(v []byte) []byte {
	if end := bytes.LastIndexByte(v, ':'); end > bytes.LastIndexByte(v, ']') {
		v = v[:end]
	}
	return v
}

// httpBootstrap reports a target that is a list of nodes: the cache of Gnutella,
// the server lists of eDonkey and of Kad.
func httpBootstrap(target []byte) bool {
	path, query, _ := bytes.Cut(target, []byte{'?'})
	return bytes.HasSuffix(path, []byte("/server.met")) || bytes.HasSuffix(path, []byte("/nodes.dat")) ||
		bytes.Contains(query, []byte("hostfile=1")) || bytes.Contains(query, []byte("net=gnutella"))
}

func httpResponse(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message, code int, h *httpFields) {
	m.Op = "response"
	m.Txn = hash1(f.B>>32 + 1)
	if code < 200 && code != 101 {
		m.Kind = dissect.KindProgress
		return
	}
	f.B += 1 << 32
	switch {
	case code == 101:
		m.Kind = dissect.KindAccept
		f.Done = true // another protocol from here on
	case code < 400:
		m.Kind, m.Lifetime = dissect.KindAccept, noSession
		f.Done = f.Flags&httpTunnel != 0
	case (code == 401 || code == 407) && f.Flags&httpLoggedIn == 0:
		m.Kind = dissect.KindChallenge
	case code == 429 || code == 503:
		m.Kind = dissect.KindThrottle
		m.RetryAfter = retryAfter(h.retry, d.Time)
	default:
		m.Kind = dissect.KindRefuse
		m.RetryAfter = retryAfter(h.retry, d.Time)
	}
}

// httpChunk reads the line before a chunk.
func httpChunk(d *dissect.Datagram, f *dissect.Flow, side uint8) (int, error) {
	b := d.Payload
	line, rest := nextLine(b)
	if rest == nil && len(line) == len(b) {
		if len(b) > 1<<10 {
			return 0, errHTTP
		}
		return 0, dissect.ErrShort
	}
	size, digits := uint64(0), 0
	for _, c := range line {
		switch {
		case digit(c):
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			c = 0xff
		}
		if c == 0xff || digits == 8 {
			break
		}
		size = size<<4 | uint64(c)
		digits++
	}
	if digits == 0 {
		return 0, errHTTP
	}
	used := len(b) - len(rest)
	if size == 0 {
		f.Flags = f.Flags&^(httpChunked*side) | httpTrailer*side
		return used, nil
	}
	return leaveBody(f, uint64(used)+size+2, len(b)), nil
}

// httpFrame is the server's first frame of HTTP/2: RFC 9113 section 4.1.
func httpFrame(b []byte, f *dissect.Flow, m *dissect.Message) (int, error) {
	if f.FromClient {
		return len(b), nil
	}
	if len(b) < 9 {
		return 0, dissect.ErrShort
	}
	f.Done = true
	m.Kind, m.Op = dissect.KindAccept, "SETTINGS"
	if b[3] == 7 { // GOAWAY instead
		m.Kind, m.Op = dissect.KindRefuse, "GOAWAY"
	}
	return len(b), nil
}
