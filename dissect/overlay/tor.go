package overlay

import (
	"bytes"

	"squall/dissect"
)

// tor is Tor as far as it can be seen: the directory protocol over HTTP
// (dir-spec, "GET /tor/..."), and the TLS to a relay (tor-spec 2), which a
// client opens with a made-up server name; protocols.md H.5.
//
//	SNI www.<4 to 20 letters a-z and digits 2-7>.com or .net, no ALPN
//
// A directory is a bootstrap node; "503 Directory busy" means later. A relay
// that a client connects to is its supernode (guard). Made-up names have digits
// between letters; where they have not, port 9001 must confirm, and a relay at
// 443 whose name looks like a word is left to tls. What is read is what http and
// tls read; VERSIONS, CERTS and NETINFO are inside the TLS.
type tor struct{}

const torPort = 9001

// The kinds of connection, in Flow.Step.
const (
	torDirectory = 1 + iota
	torRelay
)

func (tor) Name() string                  { return "tor" }
func (tor) Transports() dissect.Transport { return dissect.TCP }

func (tor) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "GP\x16", Least: 16}}
}

func (tor) Probe(d *dissect.Datagram) dissect.Verdict {
	if torKind(d) != 0 {
		return dissect.Yes
	}
	return dissect.No
}

// torKind is what the first bytes of a client open, 0 = nothing of Tor.
func torKind(d *dissect.Datagram) uint8 {
	b := d.Payload
	switch {
	case len(b) < 16:
		return 0
	case b[0] == 'G' && string(b[:9]) == "GET /tor/" && torPath(b[9:]), b[0] == 'P' && string(b[:10]) == "POST /tor/":
		return torDirectory
	case b[0] == tlsHandshake && b[5] == 1:
		if h, _ := ReadClientHello(b[9:]); len(h.ALPN) == 0 && torName(h.ServerName, d.DstPort == torPort || d.SrcPort == torPort) {
			return torRelay
		}
	}
	return 0
}

// torPath reports a path of the directory protocol.
func torPath(b []byte) bool {
	for _, p := range [...]string{"status", "server", "micro", "extra", "keys", "rendez", "robots", "hs"} {
		if bytes.HasPrefix(b, []byte(p)) {
			return true
		}
	}
	return false
}

// torName reports a made-up server name. Two digits apart from each other mark
// it where the port does not.
func torName(name []byte, home bool) bool {
	if len(name) < 4+4+4 || len(name) > 4+20+4 || string(name[:4]) != "www." {
		return false
	}
	if end := string(name[len(name)-4:]); end != ".com" && end != ".net" {
		return false
	}
	groups, before := 0, false
	for _, c := range name[4 : len(name)-4] {
		figure := c >= '2' && c <= '7'
		if !figure && (c < 'a' || c > 'z') {
			return false
		}
		if figure && !before {
			groups++
		}
		before = figure
	}
	return home || groups >= 2
}

func (tor) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (n int, err error) {
	if f.Step == 0 {
		f.Step = torKind(d)
	}
	if f.Step == torDirectory {
		n, err = http{}.Dissect(d, f, m)
		m.Role = dissect.RoleBootstrap
		return n, err
	}
	n, err = tls{}.Dissect(d, f, m)
	m.Role = dissect.RoleSupernode
	return n, err
}
