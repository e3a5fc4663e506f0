package replay

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
)

// Dialect is both ends of the attach of one protocol: what a client sends and
// makes of the answers, what a test node makes of the requests. A stateless
// value; what an attempt must remember is in its Identity.
//
// Requests are made anew from the protocol's rules, never copied from a
// capture: fresh transaction ids, cookies and connection ids, no recorded
// address, name or credential.
type Dialect interface {
	// Name is the network_protocol, or "tcp" and "udp" for plain bytes.
	Name() string
	Transport() dissect.Transport
	// Request appends the first flight of an attempt.
	Request(dst []byte, who *Identity) []byte
	// Read makes out what the head of got, bytes of the node, means.
	Read(who *Identity, got []byte) Reply
	// Serve makes out what the head of b, bytes of a client, asks.
	Serve(b []byte) Asked
	// Answer appends what a node says to it: KindAccept, KindRefuse or
	// KindThrottle. Nothing appended means that the protocol has no such word.
	Answer(dst []byte, to *Asked, say dissect.Kind, retryAfter time.Duration) []byte
	// Repeat is how long after the first transmission of a request the k-th
	// repeat is due, k from 1, as the client's own stack does it over UDP;
	// 0 = no more.
	Repeat(k int) time.Duration
	// Work says what an accepted attempt made the node do, for the report: a
	// first flight without keys skips the costly part.
	Work() string
}

// lively is a Dialect over TCP that has a word for being there, which a node
// answers. In the others a session is only listened to: what a node does not
// understand would end it.
type lively interface {
	// Life appends the k-th sign of life of a session.
	Life(dst []byte, who *Identity, k uint64) []byte
}

// Identity is who makes an attempt.
type Identity struct {
	Client  int64
	Version string
	Attempt uint64 // number of the attempt in the run; ids derive from it
	Seed    uint64
	Local   netip.AddrPort
	Remote  netip.AddrPort
	Login   Login
	Refresh bool   // inside a session
	leg     uint32 // of the attempt
	conn    uint64 // connection id that a tracker gave
}

// mix is splitmix64's finaliser: a hash of a few numbers, the same everywhere.
func mix(v ...uint64) (h uint64) {
	for _, x := range v {
		h += x + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// fresh is an id of this attempt and leg, lasting one of the client.
func (w *Identity) fresh(k uint64) uint64 { return mix(w.Seed, 1, w.Attempt, uint64(w.leg), k) }

// steady is an id of the attempt, the same in each leg.
func (w *Identity) steady(k uint64) uint64 { return mix(w.Seed, 6, w.Attempt, k) }

func (w *Identity) lasting(k uint64) uint64 { return mix(w.Seed, 2, uint64(w.Client), k) }

func (w *Identity) version() string {
	if w.Version == "" {
		return "squall"
	}
	return w.Version
}

// Reply is what bytes of a node mean to a client.
type Reply struct {
	N          int // bytes used; 0: more are needed (TCP), or not for this attempt (UDP)
	Kind       dissect.Kind
	RetryAfter time.Duration
	Next       []byte // to send now
}

// Asked is what a client wants of a node.
type Asked struct {
	N    int          // bytes used; 0: more are needed, or not this protocol
	Kind dissect.Kind // KindRequest, KindRefresh, KindData, KindClose
	// Step: a leg before the request proper (a tracker's connect); it is
	// answered at once and counts for nothing.
	Step   bool
	Life   bool   // a sign of life in a session; a yes is its answer
	Bad    bool   // it proves nothing, or the wrong thing: refused whatever the load
	Client uint64 // hash of the identity inside the request, 0 = none
	Peer   netip.AddrPort
	head   []byte // the request itself; aliases b
}

// Keep copies what aliases the buffer that was read into room, and returns
// that, grown where it had to be.
func (a *Asked) Keep(room []byte) []byte {
	room = append(room[:0], a.head...)
	a.head = room
	return room
}

// Dialects are all that squall speaks.
func Dialects() []Dialect {
	return []Dialect{plain{dissect.TCP}, plain{dissect.UDP}, gnutella{}, sip{}, n2n{3}, n2n{2}, n2n{1}, tracker{}, dht{}, stun{}, stun{allocate: true},
		nebula{}, bitcoin{}}
}

// FindDialect is the dialect of that name.
func FindDialect(name string) (Dialect, bool) {
	for _, d := range Dialects() {
		if d.Name() == name {
			return d, true
		}
	}
	return nil, false
}

// Lacks says which word of a configured node its protocol does not have, and what
// is said instead; "" = it has them all.
func Lacks(d Dialect, cfg *NodeConfig) string {
	says := func(word dissect.Kind) dissect.Kind {
		who := &Identity{Attempt: 1}
		asked := d.Serve(d.Request(nil, who))
		b := d.Answer(nil, &asked, word, 0)
		for len(b) > 0 {
			r := d.Read(who, b)
			if r.Kind != dissect.KindProgress || r.N == 0 {
				return r.Kind
			}
			b = b[r.N:]
		}
		return dissect.KindData
	}
	throttles := cfg.Rate > 0 || cfg.PerClient > 0 || cfg.Loss || cfg.Capacity > 0 && cfg.Overload == Throttle
	refuses := cfg.Capacity > 0 && cfg.Overload == Refuse
	switch {
	case throttles && says(dissect.KindThrottle) == dissect.KindRefuse:
		return d.Name() + ` has no word for "later": who is put off is refused`
	case throttles && says(dissect.KindThrottle) == dissect.KindData:
		return d.Name() + ` has no word for "later": who is put off hears nothing`
	case refuses && says(dissect.KindRefuse) == dissect.KindData:
		return d.Name() + ` has no word for "no": who is refused hears nothing`
	case cfg.Capacity > 0 && cfg.Overload == Reset && d.Transport() == dissect.UDP:
		return d.Name() + " has no connection to reset: who is too many hears nothing"
	}
	return ""
}

// keyed are the protocols that a client cannot speak without secrets of its own.
var keyed = []string{"derp", "discv4", "discv5", "gquic", "ikev2", "nebula", "openvpn", "quic", "radius", "rlpx", "syncthing", "tailscale", "tinc", "tls", "tor", "wireguard", "yggdrasil", "zerotier"}

// DialectFor is how attempts of a protocol are made again. An unknown protocol
// over TCP or UDP is asked for with plain bytes, a known one that squall does
// not speak is an error that says so.
func DialectFor(protocol string, proto uint8) (Dialect, error) {
	if d, ok := FindDialect(protocol); ok && protocol != "tcp" && protocol != "udp" {
		if (d.Transport() == dissect.TCP) != (proto == dissect.ProtoTCP) {
			return nil, fmt.Errorf("%s over %s: squall speaks it over %s only", protocol, transportName(proto), transportName(map[dissect.Transport]uint8{dissect.TCP: dissect.ProtoTCP, dissect.UDP: dissect.ProtoUDP}[d.Transport()]))
		}
		return d, nil
	}
	switch {
	case slices.Contains(keyed, protocol):
		return nil, fmt.Errorf("%s: a request is made with keys and numbers good for once, which no capture holds; recorded ones a node drops as replays", protocol)
	case protocol != "":
		return nil, fmt.Errorf("%s: squall recognises it but has not the rules by which its requests are made", protocol)
	case proto == dissect.ProtoUDP:
		return plain{dissect.UDP}, nil
	}
	return plain{dissect.TCP}, nil
}

// DialectOf is the dialect for an attempt: where one protocol has several, its
// own name of the request and its size tell.
func DialectOf(t *dissect.Attempt) (Dialect, error) {
	const headers = 28 // IPv4 and UDP
	switch {
	case t.Protocol == "n2n" && t.Op == "REGISTER":
		return n2n{1}, nil
	case t.Protocol == "n2n" && t.Proto == dissect.ProtoUDP && t.Transmissions > 0 && t.SourcePackets == int64(t.Transmissions) && t.SourceBytes <= (34+headers)*t.SourcePackets:
		return n2n{2}, nil
	case t.Protocol == "stun" && strings.HasPrefix(strings.ToLower(t.Op), "allocate"):
		return DialectFor("turn", t.Proto)
	}
	return DialectFor(t.Protocol, t.Proto)
}

func transportName(proto uint8) string {
	if proto == dissect.ProtoUDP {
		return "udp"
	}
	return "tcp"
}

// plain is no protocol at all: the client sends a line, any bytes of the node
// but BUSY and NO are a yes. It is what remains of an attempt whose protocol is
// not known, and the smallest thing to test with.
//
//	ATTACH <client> <attempt>\r\n   WELCOME <attempt>\r\n   BUSY <seconds> <attempt>\r\n   NO <attempt>\r\n
type plain struct{ transport dissect.Transport }

func (p plain) Name() string {
	if p.transport == dissect.UDP {
		return "udp"
	}
	return "tcp"
}

func (p plain) Transport() dissect.Transport { return p.transport }
func (p plain) Work() string {
	return "a line of text in, a line of text out; nothing of the recorded service"
}

func (p plain) Repeat(int) time.Duration { return 0 }
func (p plain) Life(dst []byte, _ *Identity, _ uint64) []byte {
	return append(dst, "ping\r\n"...)
}

func (p plain) Request(dst []byte, who *Identity) []byte {
	word := "ATTACH "
	if who.Refresh {
		word = "RENEW "
	}
	dst = appendHex(append(dst, word...), who.lasting(0))
	return append(appendHex(append(dst, ' '), who.fresh(0)), "\r\n"...)
}

// appendHex appends sixteen hexadecimal digits, isHex knows them again.
func appendHex(dst []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[v>>shift&15])
	}
	return dst
}

func isHex(b []byte, v uint64) bool {
	var room [16]byte
	return bytes.Equal(b, appendHex(room[:0], v))
}

// word cuts the first word of a line.
func word(line []byte) (first, rest []byte) {
	line = bytes.TrimLeft(line, " \t")
	if i := bytes.IndexAny(line, " \t"); i >= 0 {
		return line[:i], line[i:]
	}
	return line, nil
}

func (p plain) Read(who *Identity, got []byte) Reply {
	if len(got) == 0 {
		return Reply{}
	}
	end := bytes.IndexByte(got, '\n')
	line := got
	if end >= 0 {
		line = bytes.TrimRight(got[:end], "\r\n")
	}
	first, rest := word(line)
	second, rest := word(rest)
	third, rest := word(rest)
	fourth, _ := word(rest)
	ours, last := len(second) > 0 && len(fourth) == 0, second
	if len(third) > 0 {
		last = third
	}
	if p.transport == dissect.UDP && ours && !isHex(last, who.fresh(0)) {
		return Reply{} // the late answer to another attempt
	}
	switch string(first) {
	case "BUSY":
		s, _ := strconv.ParseUint(string(second), 10, 16)
		return Reply{N: len(got), Kind: dissect.KindThrottle, RetryAfter: time.Duration(s) * time.Second}
	case "NO":
		return Reply{N: len(got), Kind: dissect.KindRefuse}
	}
	return Reply{N: len(got), Kind: dissect.KindAccept}
}

func (p plain) Serve(b []byte) Asked {
	end := bytes.IndexByte(b, '\n')
	n := end + 1
	if end < 0 {
		if p.transport == dissect.TCP && len(b) < 4096 {
			return Asked{}
		}
		n, end = len(b), len(b)
	}
	a := Asked{N: n, Kind: dissect.KindRequest, head: b[:n]}
	first, rest := word(bytes.TrimRight(b[:end], "\r"))
	if len(first) == 0 {
		return Asked{N: n, Kind: dissect.KindData}
	}
	switch string(first) {
	case "RENEW":
		a.Kind = dissect.KindRefresh
	case "ping":
		a.Kind, a.Life = dissect.KindData, true
	}
	if second, _ := word(rest); len(second) > 0 {
		a.Client, _ = strconv.ParseUint(string(second), 16, 64)
	}
	return a
}

func (p plain) Answer(dst []byte, to *Asked, say dissect.Kind, retryAfter time.Duration) []byte {
	if to.Life {
		return append(dst, "pong\r\n"...)
	}
	_, rest := word(bytes.TrimRight(to.head, "\r\n"))
	_, rest = word(rest)
	txn, _ := word(rest)
	if len(txn) == 0 || len(txn) > 16 {
		txn = []byte("-")
	}
	switch say {
	case dissect.KindAccept:
		dst = append(dst, "WELCOME "...)
	case dissect.KindThrottle:
		dst = append(strconv.AppendInt(append(dst, "BUSY "...), int64(retryAfter/time.Second), 10), ' ')
	default:
		dst = append(dst, "NO "...)
	}
	return append(append(dst, txn...), "\r\n"...)
}
