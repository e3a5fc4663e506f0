package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"squall/dissect"
)

// tracker is the tracker of BitTorrent, over UDP (BEP 15) and HTTP (BEP 3,
// 31); protocols.md G.1, G.2.
//
//	connect   0 8 0000041727101980 | 8 4 action 0 | 12 4 transaction
//	          0 4 action 0 | 4 4 transaction | 8 8 connection id
//	announce  0 8 connection id | 8 4 action 1 | 12 4 transaction | 16 20 info hash | 36 20 peer id | 56 24 counters |
//	          80 4 event | 84 4 ip | 88 4 key | 92 4 wanted | 96 2 port
//	          0 4 action 1 | 4 4 transaction | 8 4 interval | 12 4 leechers | 16 4 seeders | 20 peers
//	scrape    action 2
//	error     0 4 action 3 | 4 4 transaction | 8 text
//
// Connecting is a challenge: the attempt is accepted at the announce that
// follows it (rule 29). A client repeats after 15 * 2^n seconds. An announce
// within a session, event none or completed, is its refresh, event stopped
// closes it. Over HTTP a bencoded answer with "failure reason" refuses, with
// "retry in" (minutes) it is busy; so are 503 and 429. The version is the
// beginning of the peer id, -XXnnnn- (BEP 20), or the User-Agent.
type tracker struct{}

const (
	trackerMagic   = "\x00\x00\x04\x17\x27\x10\x19\x80"
	trackerTimeout = int64(15 * time.Second)
	// trackerLine is how much of a request line is searched.
	trackerLine = 1 << 10
)

var errTracker = errors.New("not a tracker message")

func (tracker) Name() string                  { return "bt-tracker" }
func (tracker) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }

func (tracker) Gates(transport dissect.Transport) []dissect.Gate {
	if transport == dissect.TCP {
		return []dissect.Gate{{Starts: "G", Least: 21}}
	}
	return []dissect.Gate{{Starts: trackerMagic[:1], Least: 16}, {Least: 98, At: 11, Mask: 0xff, Want: 1}} // connect, announce
}

func (tracker) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if d.Proto == dissect.ProtoUDP {
		switch {
		case len(b) < 16:
			return dissect.No
		case string(b[:8]) == trackerMagic && binary.BigEndian.Uint32(b[8:]) == 0,
			trackerAnnounce(b):
			return dissect.Yes
		}
		return dissect.No
	}
	if len(b) > 20 && string(b[:4]) == "GET " && trackerTarget(b) != nil {
		return dissect.Yes
	}
	return dissect.No
}

// trackerAnnounce: an announce with a connection id from before the capture.
func trackerAnnounce(b []byte) bool {
	return len(b) >= 98 && binary.BigEndian.Uint32(b[8:]) == 1 && binary.BigEndian.Uint32(b[80:]) <= 3 &&
		b[96]|b[97] != 0 && binary.BigEndian.Uint64(b[:8]) != 0
}

// trackerTarget is what follows the ? of an announce or scrape, nil if b is none.
func trackerTarget(b []byte) []byte {
	b = b[:min(len(b), trackerLine)]
	if end := bytes.IndexByte(b, '\n'); end > 0 {
		b = b[:end]
	}
	i := bytes.IndexByte(b, '?')
	if i < 0 || !bytes.Contains(b[i:], []byte("info_hash=")) {
		return nil
	}
	if !bytes.Contains(b[:i], []byte("announce")) && !bytes.Contains(b[:i], []byte("scrape")) {
		return nil
	}
	return b[i+1:]
}

func (tracker) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	m.Role = dissect.RoleTracker
	b := d.Payload
	if d.Proto == dissect.ProtoTCP {
		return trackerHTTP(d, f, m)
	}
	if len(b) < 8 {
		return 0, errTracker
	}
	if len(b) >= 16 && (f.FromClient || string(b[:8]) == trackerMagic) {
		trackerRequest(b, f, m)
		return len(b), nil
	}
	m.FromClient = false
	m.Txn = hashKey(0, b[4:8])
	switch binary.BigEndian.Uint32(b) {
	case 0:
		if len(b) < 16 {
			return 0, errTracker
		}
		m.Kind, m.Op = dissect.KindChallenge, "connect"
		f.Step = 1
	case 1:
		if len(b) < 20 {
			return 0, errTracker
		}
		m.Kind, m.Op = dissect.KindAccept, "announce"
		f.Flags |= 1
	case 2:
		m.Kind, m.Op = dissect.KindAccept, "scrape"
	case 3:
		m.Kind, m.Op = dissect.KindRefuse, "error"
	default:
		return 0, errTracker
	}
	return len(b), nil
}

// trackerRequest: Flow.Step is 1 when a connection id was given and not used
// yet, Flow.Flags 1 once an announce was accepted.
func trackerRequest(b []byte, f *dissect.Flow, m *dissect.Message) {
	m.FromClient, m.Kind, m.Timeout = true, dissect.KindRequest, trackerTimeout
	m.Txn = hashKey(0, b[12:16])
	action := binary.BigEndian.Uint32(b[8:])
	if action == 0 && string(b[:8]) == trackerMagic {
		m.Op, m.Chain, m.Begins = "connect", hash1(0), true
		return
	}
	if f.Step == 1 { // the second leg; later ones stand for themselves
		f.Step = 0
		m.Chain = hash1(0)
	}
	switch {
	case action == 1 && len(b) >= 98:
		m.Op, m.ClientID, m.Version = "announce", b[36:56], peerVersion(b[36:56])
		switch event := binary.BigEndian.Uint32(b[80:]); {
		case event == 3:
			m.Kind, m.Chain = dissect.KindClose, 0
		case event != 2 && f.Flags&1 != 0 && m.Chain == 0:
			m.Kind = dissect.KindRefresh
		}
	case action == 2:
		m.Op = "scrape"
	default:
		m.Kind, m.Txn, m.Chain = dissect.KindData, 0, 0
	}
}

// peerVersion is client and version in a peer id, nil if it is not of BEP 20.
func peerVersion(id []byte) []byte {
	if len(id) < 8 || id[0] != '-' || id[7] != '-' {
		return nil
	}
	for _, c := range id[1:7] {
		if c <= ' ' || c > '~' {
			return nil
		}
	}
	return id[:8]
}

// parameter is the value of a query parameter, nil if it is not there.
func parameter(query []byte, name string) []byte {
	for len(query) > 0 {
		var p []byte
		p, query, _ = bytes.Cut(query, []byte{'&'})
		if len(p) > len(name) && p[len(name)] == '=' && string(p[:len(name)]) == name {
			v := p[len(name)+1:]
			if i := bytes.IndexAny(v, " \r"); i >= 0 {
				v = v[:i]
			}
			return v
		}
	}
	return nil
}

// trackerHTTP: Flow.B counts requests in its low half, answers in the high one.
func trackerHTTP(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	end := httpHeadEnd(b)
	if end == 0 {
		if wait(d) {
			return 0, dissect.ErrShort
		}
		end = len(b)
	}
	line, rest := nextLine(b[:end])
	h := readHTTPFields(rest)
	if f.FromClient {
		query := trackerTarget(line)
		if query == nil || httpMethod(line) == "" {
			return 0, errTracker
		}
		f.B++
		m.Kind, m.Op, m.Txn = dissect.KindRequest, "announce", hash1(uint64(uint32(f.B)))
		id := parameter(query, "peer_id")
		m.ClientID, m.Version, m.ServerName = id, h.agent, httpHost(h.host)
		if v := peerVersion(id); len(h.agent) == 0 {
			m.Version = v
		}
		switch string(parameter(query, "event")) {
		case "stopped":
			m.Kind = dissect.KindClose
		case "", "completed":
			if f.B>>32 > 0 && f.Flags&1 != 0 {
				m.Kind = dissect.KindRefresh
			}
		}
		return end, nil
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' {
		if f.B>>32 > 0 {
			return len(b), nil // the rest of a body of unknown length
		}
		return 0, errTracker
	}
	total := uint64(len(b))
	if v, ok := number(h.length); ok {
		total = uint64(end) + v
	}
	body := b[end:min(total, uint64(len(b)))]
	if line[9] == '2' && (uint64(len(b)) < total || len(body) == 0 && len(h.length) == 0) && wait(d) {
		return 0, dissect.ErrShort
	}
	m.Txn = hash1(f.B>>32 + 1)
	f.B += 1 << 32
	trackerAnswer(d, line, body, &h, f, m)
	return leaveBody(f, total, len(b)), nil
}

func trackerAnswer(d *dissect.Datagram, line, body []byte, h *httpFields, f *dissect.Flow, m *dissect.Message) {
	code := string(line[9:12])
	m.RetryAfter = retryAfter(h.retry, d.Time)
	switch {
	case code == "503", code == "429":
		m.Kind, m.Op = dissect.KindThrottle, "busy"
		return
	case line[9] == '3':
		m.Kind, m.Op = dissect.KindRedirect, "elsewhere"
		return
	case line[9] != '2':
		m.Kind, m.Op = dissect.KindRefuse, "no"
		return
	}
	if i := bytes.IndexByte(body, 'd'); i > 0 && i < 16 && body[0] != 'd' {
		body = body[i:] // behind the length of a chunk
	}
	if i := bytes.Index(body, []byte("8:retry in")); i >= 0 {
		if v, ok := bencodedInt(body[i+len("8:retry in"):]); ok && v >= 0 {
			m.Kind, m.Op, m.RetryAfter = dissect.KindThrottle, "retry in", min(v, 1<<16)*int64(time.Minute)
			return
		}
	}
	switch {
	case bytes.Contains(body, []byte("14:failure reason")):
		m.Kind, m.Op = dissect.KindRefuse, "failure"
	case len(body) > 0 && (body[0] == 'd' || body[0] == 0x1f && len(body) > 1 && body[1] == 0x8b): // bencoded, or gzip
		m.Kind, m.Op = dissect.KindAccept, "announce"
		f.Flags |= 1
	default:
		m.Kind, m.Op = dissect.KindRefuse, "no"
	}
}
