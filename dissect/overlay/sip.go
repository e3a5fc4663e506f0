package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// sip is SIP registration over UDP and TCP: RFC 3261 section 10, protocols.md D.
//
//	REGISTER sip:example.org SIP/2.0          SIP/2.0 401 Unauthorized
//	Via: SIP/2.0/UDP host;branch=z9hG4bK..    Via: (the same)
//	To: <sip:user@example.org>                To: <sip:user@example.org>;tag=..
//	Call-ID: ..                               Call-ID: (the same)
//	CSeq: 7 REGISTER                          CSeq: 7 REGISTER
//	Contact: <sip:user@host>;expires=3600     Retry-After: 30
//
// The branch of the top Via with CSeq pairs an answer with its request
// (17.1.3), the Call-ID ties the leg that a 401 asks for to the one before it.
// The client is the address of record in To and the device: the +sip.instance of
// its Contact (RFC 5626), else the Contact's host, for several devices may
// register for one address. Empty lines and STUN Bindings that keep a flow open
// (RFC 5626 section 4.4) are refreshes of it. A 401 or 407 to a request that
// already carried credentials is a no, unless it only says stale. 503, 500,
// 486, 480 and 413 with Retry-After are busy (20.33). A REGISTER that asks for
// no time at all is the client's good-bye. Other methods are session traffic.
type sip struct{}

var errSIP = errors.New("not a sip message")

func (sip) Name() string                  { return "sip" }
func (sip) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }

// The methods of RFC 3261 and its extensions.
var sipMethods = [...]string{"REGISTER", "OPTIONS", "INVITE", "SUBSCRIBE", "NOTIFY", "PUBLISH", "MESSAGE", "ACK", "BYE", "CANCEL", "INFO", "REFER", "PRACK", "UPDATE"}

// sipMethod is the method of a request line, a constant; empty for anything else.
func sipMethod(b []byte) string {
	for _, m := range sipMethods {
		if b[0] == m[0] && len(b) > len(m)+5 && string(b[:len(m)]) == m && b[len(m)] == ' ' {
			uri := b[len(m)+1:]
			if (uri[0]|0x20) == 's' && bytes.HasPrefix(bytes.ToLower(uri[:min(len(uri), 5)]), []byte("sip")) || (uri[0]|0x20) == 't' && string(uri[:4]) == "tel:" {
				return m
			}
		}
	}
	return ""
}

func (sip) Gates(transport dissect.Transport) []dissect.Gate {
	gates := []dissect.Gate{{Starts: "ABCDEFGHIJKLMNOPQRSTU", Least: 12}}
	if transport == dissect.UDP {
		gates = append(gates, dissect.Gate{Most: sipTiny, LoPort: sipPort, HiPort: sipPort})
	}
	return gates
}

// sipKeepsOpen reports what phones and registrars send between messages to keep a
// binding of a NAT open: an empty line, zeros, "hello" and more of the kind.
func sipKeepsOpen(d *dissect.Datagram) bool {
	return d.Proto == dissect.ProtoUDP && d.PayloadLen <= sipTiny && (d.SrcPort == sipPort || d.DstPort == sipPort)
}

func (sip) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if sipKeepsOpen(d) {
		return dissect.Maybe
	}
	if len(b) < 12 || b[0] < 'A' || b[0] > 'U' {
		return dissect.No
	}
	if b[0] == 'S' && string(b[:8]) == "SIP/2.0 " {
		if !digit(b[8]) || !digit(b[9]) || !digit(b[10]) {
			return dissect.No
		}
	} else if sipMethod(b) == "" {
		return dissect.No
	}
	if sipHas(b, "\nvia", "\nv") && sipHas(b, "\ncseq", "") {
		return dissect.Yes
	}
	if d.Cut || d.Proto == dissect.ProtoTCP && httpHeadEnd(b) == 0 {
		return dissect.Maybe
	}
	return dissect.No
}

// sipHas looks for a header field by its long or compact name.
func sipHas(b []byte, long, compact string) bool {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return false
		}
		b = b[i:]
		colon := bytes.IndexByte(b[:min(len(b), 24)], ':')
		if colon > 0 {
			name := bytes.TrimRight(b[:colon], " \t")
			if is(name, long) || compact != "" && is(name, compact) {
				return true
			}
		}
		b = b[1:]
	}
}

// sipFields are the header fields that are read, as they stand in the message.
type sipFields struct {
	via, to, call, cseq, contact, expires, agent, retry, challenge []byte
	length                                                         []byte
	credentials                                                    bool
	// bound is the longest lifetime that a Contact names, seconds; unsaid that
	// one names none.
	bound            uint64
	hasBound, unsaid bool
}

func readSIPFields(b []byte) (h sipFields) {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			end = len(b)
		}
		for end+1 < len(b) && (b[end+1] == ' ' || b[end+1] == '\t') { // folded
			more := bytes.IndexByte(b[end+1:], '\n')
			if more < 0 {
				end = len(b)
				break
			}
			end += 1 + more
		}
		line := b[:end]
		b = b[min(end+1, len(b)):]
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			continue
		}
		name, value := bytes.TrimRight(line[:colon], " \t"), bytes.TrimSpace(line[colon+1:])
		set := func(to *[]byte) {
			if *to == nil { // the first of several counts: the top Via
				*to = value
			}
		}
		switch {
		case is(name, "via"), is(name, "v"):
			set(&h.via)
		case is(name, "to"), is(name, "t"):
			set(&h.to)
		case is(name, "call-id"), is(name, "i"):
			set(&h.call)
		case is(name, "cseq"):
			set(&h.cseq)
		case is(name, "contact"), is(name, "m"):
			set(&h.contact)
			h.bindings(value)
		case is(name, "expires"):
			set(&h.expires)
		case is(name, "user-agent"):
			set(&h.agent)
		case is(name, "retry-after"):
			set(&h.retry)
		case is(name, "www-authenticate"), is(name, "proxy-authenticate"):
			set(&h.challenge)
		case is(name, "authorization"), is(name, "proxy-authorization"):
			h.credentials = true
		case is(name, "content-length"), is(name, "l"):
			set(&h.length)
		}
	}
	return h
}

// sipParameter is the value of ;name=value in a header field, up to the next
// element of a list.
func sipParameter(b []byte, name string) []byte {
	for len(b) > 0 {
		i := bytes.IndexAny(b, ";,")
		if i < 0 || b[i] == ',' {
			return nil
		}
		b = b[i+1:]
		eq := bytes.IndexByte(b, '=')
		if eq < 0 {
			return nil
		}
		if is(bytes.TrimSpace(b[:eq]), name) {
			v := bytes.TrimLeft(b[eq+1:], " \t\"")
			if end := bytes.IndexAny(v, ";,> \t\r\n\""); end >= 0 {
				v = v[:end]
			}
			return v
		}
	}
	return nil
}

// addressOfRecord is user@host of a To or From field, without scheme and
// parameters.
func addressOfRecord(b []byte) []byte {
	if i := bytes.IndexByte(b, '<'); i >= 0 {
		b = b[i+1:]
		if j := bytes.IndexByte(b, '>'); j >= 0 {
			b = b[:j]
		}
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 && i <= 4 {
		b = b[i+1:]
	}
	if i := bytes.IndexAny(b, ";? \t"); i >= 0 {
		b = b[:i]
	}
	return b
}

// client is the address of record and, after a slash, the device: its instance,
// else the host that it wants to be reached at.
func (h *sipFields) client() []byte {
	who := addressOfRecord(h.to)
	uri := h.contact
	after := uri
	if i := bytes.IndexByte(uri, '<'); i >= 0 {
		uri = uri[i+1:]
		if j := bytes.IndexByte(uri, '>'); j >= 0 {
			uri, after = uri[:j], uri[j+1:]
		}
	}
	device := sipParameter(after, "+sip.instance")
	device = bytes.Trim(device, "<>")
	if len(device) == 0 {
		device = sipHost(uri)
	}
	if len(who) == 0 || len(device) == 0 {
		return who
	}
	return append(append(append(make([]byte, 0, len(who)+1+len(device)), who...), '/'), device...)
}

// sipHost is the host of a sip: or sips: address; nil if it has none.
func sipHost(uri []byte) []byte {
	i := bytes.IndexByte(uri, ':')
	if i < 0 {
		return nil
	}
	uri = uri[i+1:]
	if at := bytes.LastIndexByte(uri, '@'); at >= 0 {
		uri = uri[at+1:]
	}
	if len(uri) > 0 && uri[0] == '[' {
		if end := bytes.IndexByte(uri, ']'); end > 0 {
			return uri[:end+1]
		}
	}
	if end := bytes.IndexAny(uri, ":;? >"); end >= 0 {
		uri = uri[:end]
	}
	return uri
}

// bindings notes the lifetimes of a list of contacts. The one that was asked for
// is the longest: registrars list all devices, and a client that moved takes its
// old binding back in the same message.
func (h *sipFields) bindings(list []byte) {
	quoted, inside, from := false, false, 0
	for i := 0; i <= len(list); i++ {
		switch {
		case i < len(list) && list[i] == '"':
			quoted = !quoted
		case i < len(list) && quoted:
		case i < len(list) && list[i] == '<':
			inside = true
		case i < len(list) && list[i] == '>':
			inside, from = false, i+1 // parameters before it are those of the address
		case i == len(list) || list[i] == ',' && !inside:
			seconds, ok := number(sipParameter(list[from:i], "expires"))
			if ok {
				h.bound, h.hasBound = max(h.bound, seconds), true
			} else {
				h.unsaid = true
			}
			from = i + 1
		}
	}
}

// lifetime is how long a binding holds: the parameter of its Contact, else the
// Expires field (10.2.1.1).
func (h *sipFields) lifetime() (seconds uint64, ok bool) {
	seconds, ok = number(h.expires)
	switch {
	case !h.hasBound:
		return seconds, ok
	case !h.unsaid || !ok:
		return h.bound, !h.unsaid || h.bound > 0
	}
	return max(h.bound, seconds), true
}

// Bits of Flow.Step.
const (
	sipRegistered = 1 << iota // a registration was accepted on this flow
	sipPongs                  // the node answers pings
)

// Ports and sizes, second in nanoseconds, and the longest lifetime that is taken for one.
const (
	sipSecond   = int64(1e9)
	sipLongest  = 1 << 31 // seconds, RFC 3261 section 25.1 allows 2^32-1
	sipNewlines = "\r\n"
	sipPort     = 5060
	sipTiny     = 8
)

// sipKeepalive reads empty lines: over streams two from the client are a ping,
// one from the node is the pong (RFC 5626 section 3.5.1). A client that got none
// does not say that it knows of pongs. Flow.Port counts the pings.
func sipKeepalive(b []byte, udp bool, f *dissect.Flow, m *dissect.Message) {
	switch {
	case udp || f.Step&sipRegistered == 0:
	case f.FromClient && string(b) == "\r\n\r\n" && f.Step&sipPongs != 0:
		f.Port++
		m.Kind, m.Op, m.Role, m.Txn = dissect.KindRefresh, "ping", dissect.RoleLogin, hash1(1<<16|uint64(f.Port))
	case !f.FromClient && string(b) == "\r\n":
		f.Step |= sipPongs
		m.Kind, m.Op, m.Txn = dissect.KindAccept, "pong", hash1(1<<16|uint64(f.Port))
	}
}

// sipSTUN reads the Bindings that keep a flow over UDP open.
func sipSTUN(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	if f.Step&sipRegistered == 0 {
		return len(d.Payload), nil
	}
	n, err := stun{}.Dissect(d, f, m)
	m.Role, m.Lifetime, m.Protocol = dissect.RoleLogin, 0, sip{}.Name()
	if m.Kind == dissect.KindRequest {
		m.Kind = dissect.KindRefresh
	}
	return n, err
}

func (sip) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	udp := d.Proto == dissect.ProtoUDP
	if len(b) == 0 {
		return 0, dissect.ErrShort
	}
	if sipKeepsOpen(d) {
		return len(b), nil
	}
	if !udp {
		if n := takeBody(f, len(b)); n > 0 {
			return n, nil
		}
	}
	if udp && len(b) >= stunHeader && b[0] < 2 && b[1]&^0x10 == stunBinding && binary.BigEndian.Uint32(b[4:]) == stunCookie {
		return sipSTUN(d, f, m)
	}
	if blank := len(b) - len(bytes.TrimLeft(b, sipNewlines)); blank > 0 {
		if blank == len(b) || !udp {
			sipKeepalive(b[:blank], udp, f, m)
			return blank, nil
		}
		b = b[blank:]
	}
	if len(b) < 12 {
		if !udp && wait(d) {
			return 0, dissect.ErrShort
		}
		return 0, errSIP
	}
	answer := string(b[:8]) == "SIP/2.0 "
	method := ""
	if !answer {
		if method = sipMethod(b); method == "" {
			return 0, errSIP
		}
	}
	head := httpHeadEnd(b)
	if head == 0 {
		if !udp && wait(d) {
			return 0, dissect.ErrShort
		}
		head = len(b)
	}
	h := readSIPFields(b[:head])
	n := len(b)
	if !udp {
		size, _ := number(h.length)
		n = leaveBody(f, uint64(head)+size, len(b))
	}
	about := h.cseq
	if i := bytes.IndexAny(about, " \t"); i >= 0 {
		about = bytes.TrimLeft(about[i:], " \t")
	}
	if method != "REGISTER" && (!answer || len(h.cseq) > 0 && !is(about, "register")) {
		return n, nil
	}
	m.FromClient = !answer
	m.Role = dissect.RoleLogin
	if h.call != nil && h.cseq != nil { // else the snapshot length left too little, and the flow pairs
		m.Chain = hashKey(1, h.call)
		m.Txn = dissect.Hash64(m.Chain, h.cseq) | 1
		if branch := sipParameter(h.via, "branch"); branch != nil {
			m.Txn = dissect.Hash64(m.Txn, branch) | 1
		}
	}
	m.ClientID = h.client()
	if !answer {
		m.Op, m.Version = "REGISTER", h.agent
		m.Kind, m.Repeats = dissect.KindRequest, true // timer E
		if m.Proven = h.credentials; m.Proven {
			f.B = m.Txn
		}
		if seconds, ok := h.lifetime(); ok && seconds == 0 {
			m.Kind = dissect.KindClose
		}
		return n, nil
	}
	code, ok := number(b[8:11])
	if !ok {
		return 0, errSIP
	}
	switch {
	case code < 200:
		m.Kind = dissect.KindProgress
	case code < 300:
		m.Kind = dissect.KindAccept
		f.Step |= sipRegistered
		if seconds, ok := h.lifetime(); ok {
			m.Lifetime = int64(min(seconds, sipLongest)) * sipSecond
		}
	case code < 400:
		m.Kind = dissect.KindRedirect
	case code == 401, code == 407:
		m.Kind = dissect.KindChallenge
		m.Proven = !bytes.Contains(bytes.ToLower(h.challenge), []byte("stale=true"))
		if m.Proven && f.B == m.Txn && m.Txn != 0 {
			m.Kind = dissect.KindRefuse
		}
	case code == 423: // ask again, for longer
		m.Kind = dissect.KindChallenge
	default:
		m.Kind = dissect.KindRefuse
		if wait := retryAfter(h.retry, d.Time); wait > 0 {
			m.RetryAfter = wait
			switch code {
			case 413, 480, 486, 500, 503, 600, 603:
				m.Kind = dissect.KindThrottle
			}
		}
	}
	return n, nil
}
