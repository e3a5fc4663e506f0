package overlay

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"squall/dissect"
)

// Description is one way of recognising a protocol in words, for `squall
// protocols` and docs/protocols.md.
type Description struct {
	Name       string
	Transports dissect.Transport
	// Recognised is the content that it is known by.
	Recognised string
	// Role is what its nodes are, and how that is known.
	Role string
	// Outcomes are the answers that are told apart beyond those of the
	// transport (timeout, RST, ICMP, FIN), which every protocol has.
	Outcomes string
	// Identity is what a client is known by beyond its address.
	Identity string
	// Version is where the client's software shows.
	Version string
	// Confidence in the name: ConfidenceCertain and so on.
	Confidence string
	// Signature: a signature file describes it, not code.
	Signature bool
}

// How sure the name of a protocol is.
const (
	// ConfidenceCertain: a mark of 8 bytes or more, or a hash that must fit.
	ConfidenceCertain = "certain"
	// ConfidenceStrong: several fields, lengths or words must fit at once.
	ConfidenceStrong = "strong"
	// ConfidenceFair: a shape that others could have, narrowed by port or context.
	ConfidenceFair = "fair"
	// ConfidenceGuess: a port, and a shape that much else has.
	ConfidenceGuess = "guess"
)

// Describe describes protocols, in their order: those of All, or of LoadHints. A
// coded protocol without a description has only name and transports.
func Describe(protocols []dissect.Protocol) []Description {
	var all []Description
	for _, p := range protocols {
		d := descriptions[p.Name()]
		if s, ok := p.(*signature); ok {
			d = s.describe()
		}
		d.Name, d.Transports = p.Name(), p.Transports()
		all = append(all, d)
	}
	return all
}

// WritePage writes docs/protocols.md.
func WritePage(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `# Protocols

Generated from the protocols themselves; `+"`go test ./dissect/overlay -run Page -update`"+` writes
it anew. `+"`squall protocols`"+` prints the same, with those of a `+"`--hints`"+` file first.

Every attempt has an outcome from its transport: timeout, RST, ICMP, FIN, a byte of the
node. A protocol adds what its messages say. Content decides; where a port does, the row
says so (`+"`role_source`"+` = `+"`port`"+`), and the name is a guess. They are asked in this order.

| confidence | what the name rests on |
|---|---|
| %s | a mark of 8 bytes or more, or a hash that must fit |
| %s | several fields, lengths or words that must fit at once |
| %s | a shape that others could have, narrowed by port or context |
| %s | a port, and a shape that much else has |

| protocol | over | confidence | recognised by |
|---|---|---|---|
`, ConfidenceCertain, ConfidenceStrong, ConfidenceFair, ConfidenceGuess)
	all := Describe(All())
	for _, d := range all {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", d.Name, transports(d.Transports), d.Confidence, pipes(d.Recognised))
	}
	b.WriteString("\n| protocol | role of the node | outcomes | client known by | its version |\n|---|---|---|---|---|\n")
	for _, d := range all {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", d.Name, pipes(d.Role), pipes(d.Outcomes), pipes(d.Identity), pipes(d.Version))
	}
	b.WriteString("\nA signature file describes:")
	for i, d := range all {
		if d.Signature && (i == 0 || all[i-1].Name != d.Name) {
			b.WriteString(" " + d.Name)
		}
	}
	b.WriteString(". They stand in `dissect/overlay/signatures`; [hints.md](hints.md) has the\nformat for your own. Those in code: [adding-a-protocol.md](adding-a-protocol.md).\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func pipes(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func transports(t dissect.Transport) string {
	switch t {
	case dissect.TCP:
		return "tcp"
	case dissect.UDP:
		return "udp"
	}
	return "tcp, udp"
}

// describe words a signature by what it matches.
func (s *signature) describe() Description {
	d := Description{Signature: true, Identity: "none", Version: "not read", Confidence: ConfidenceCertain}
	var ways []string
	least := 64
	for i := range s.probes {
		ways = append(ways, s.probes[i].words())
		least = min(least, s.probes[i].bits)
	}
	if len(s.probes) == 0 {
		least = 0
	}
	switch {
	case least < weakBits:
		d.Confidence = ConfidenceGuess
	case least < strongBits:
		d.Confidence = ConfidenceFair
	case least < 64:
		d.Confidence = ConfidenceStrong
	}
	d.Recognised = strings.Join(ways, "; or ")
	if s.about != "" {
		d.Recognised = strings.TrimSuffix(s.about+": "+d.Recognised, ": ")
	}
	if len(s.ports) > 0 && least < strongBits {
		var ports []string
		for _, p := range s.ports {
			ports = append(ports, span(int(p[0]), int(p[1])))
		}
		d.Recognised = strings.TrimPrefix(d.Recognised+"; at port "+strings.Join(ports, ", "), "; ")
	}
	d.Role = "not told"
	if s.role != dissect.RoleUnknown {
		d.Role = s.role.String()
	}
	var known, versions []string
	kinds := map[dissect.Kind][]string{}
	for i := range s.messages {
		m := &s.messages[i]
		asks := m.kind == dissect.KindRequest || m.kind == dissect.KindRefresh
		if m.role != dissect.RoleUnknown && m.role != s.role {
			d.Role += ", " + m.role.String() + " of " + m.op
		}
		if f := m.client.either(&s.client); asks && f.given {
			known = addWord(known, m.op)
		}
		if f := m.version.either(&s.version); asks && f.given {
			versions = addWord(versions, m.op)
		}
		kinds[m.kind] = addWord(kinds[m.kind], m.op)
	}
	if known != nil {
		d.Identity = "a field of " + strings.Join(known, ", ")
	}
	if versions != nil {
		d.Version = "by " + strings.Join(versions, ", ")
	}
	var outcomes []string
	for _, k := range [...]struct {
		kind dissect.Kind
		word string
	}{{dissect.KindAccept, "accepted"}, {dissect.KindChallenge, "challenge"}, {dissect.KindRefuse, "refused"}, {dissect.KindThrottle, "throttled"},
		{dissect.KindRedirect, "redirected"}, {dissect.KindRefresh, "refresh"}, {dissect.KindClose, "close"}, {dissect.KindLost, "lost"}} {
		if ops := kinds[k.kind]; ops != nil {
			outcomes = append(outcomes, k.word+" ("+strings.Join(ops, ", ")+")")
		}
	}
	d.Outcomes = strings.Join(outcomes, ", ")
	return d
}

func addWord(list []string, s string) []string {
	for _, old := range list {
		if old == s {
			return list
		}
	}
	return append(list, s)
}

func span(lo, hi int) string {
	switch {
	case lo == hi:
		return strconv.Itoa(lo)
	case hi == 0 || hi == 1<<16-1:
		return strconv.Itoa(lo) + " or more"
	}
	return strconv.Itoa(lo) + " to " + strconv.Itoa(hi)
}

// words of a condition: "ares" at 0, length 6.
func (c *sigCondition) words() string {
	var all []string
	for _, p := range c.patterns {
		text := fmt.Sprintf("%x", p.want)
		if textual(p.want) && len(p.want) > 2 {
			text = strconv.Quote(string(p.want))
		}
		if p.mask != nil {
			text += fmt.Sprintf("/%x", p.mask)
		}
		text += " at " + strconv.Itoa(p.at)
		if p.within > 0 {
			text += " to " + strconv.Itoa(p.at+p.within)
		}
		all = append(all, text)
	}
	if c.size != nil {
		all = append(all, fmt.Sprintf("its length in the %d bytes at %d", c.size.bytes, c.size.at))
	}
	if c.opaque != nil {
		all = append(all, fmt.Sprintf("%d bytes at %d look random", c.opaque.length, c.opaque.at))
	}
	if c.min > 0 || c.max > 0 {
		all = append(all, "length "+span(c.min, c.max))
	}
	return strings.Join(all, ", ")
}

// descriptions are the words of each protocol, by its name.
var descriptions = map[string]Description{
	"bitcoin": {
		Recognised: "magic of a network and a NUL-padded command",
		Role:       "peer",
		Outcomes:   "accepted (verack), refused (reject); ping is a refresh",
		Identity:   "none: the nonce is drawn for each connection",
		Version:    "user agent of version",
		Confidence: ConfidenceCertain,
	},
	"bittorrent": {
		Recognised: `"BitTorrent protocol" with its length`,
		Role:       "peer",
		Outcomes:   "accepted (the handshake of the other side); there is no refusal, the connection ends",
		Identity:   "none: the peer id is drawn for each start",
		Version:    "beginning of the peer id",
		Confidence: ConfidenceCertain,
	},
	"bt-dht": {
		Recognised: "bencoded query, response or error with id and transaction",
		Role:       "peer; bootstrap by the known ids of routers",
		Outcomes:   "accepted (r), refused (e)",
		Identity:   "node id",
		Version:    "v",
		Confidence: ConfidenceStrong,
	},
	"bt-tracker": {
		Recognised: "protocol id of a connect over UDP; announce or scrape with info_hash over HTTP",
		Role:       "tracker",
		Outcomes:   "accepted (announce), challenge (connection id), refused (error, failure reason), throttled (retry in, 429, 503); stopped is a close",
		Identity:   "peer id",
		Version:    "beginning of the peer id, User-Agent",
		Confidence: ConfidenceCertain,
	},
	"bt-utp": {
		Recognised: "SYN or STATE whose fields are as in a first packet",
		Role:       "peer",
		Outcomes:   "accepted (STATE), refused (RESET)",
		Identity:   "none",
		Version:    "not on the wire",
		Confidence: ConfidenceFair,
	},
	"derp": {
		Recognised: "GET /derp with Upgrade: DERP, or TLS to derp*.tailscale.com",
		Role:       "relay",
		Outcomes:   "accepted (ServerInfo), refused and throttled (HTTP 429, 503), close (Restarting); in TLS as tls",
		Identity:   "client key of ClientInfo, in clear only",
		Version:    "User-Agent, or JA4",
		Confidence: ConfidenceCertain,
	},
	"coap": {
		Recognised: "header and options that are sound to the end, POST to /rd or /bs with a name; others by port 5683",
		Role:       "supernode (LwM2M server, resource directory), bootstrap (/bs), else unknown",
		Outcomes:   "accepted, refused (4.xx, 5.xx, RST), throttled (4.29, 5.03, with Max-Age), challenge (4.01 with Echo); an update is a refresh, DELETE a close",
		Identity:   "endpoint name (ep)",
		Version:    "that of LwM2M",
		Confidence: ConfidenceStrong,
	},
	"diameter": {
		Recognised: "version, flags, a known command and a first AVP that opens a message",
		Role:       "login",
		Outcomes:   "accepted (2xxx), throttled (3004, 4002), redirected (3006), challenge (1001), refused (others); Device-Watchdog is a refresh",
		Identity:   "Origin-Host",
		Version:    "Product-Name",
		Confidence: ConfidenceStrong,
	},
	"discv4": {
		Recognised: "type and RLP shape; the keccak hash of every packet must fit",
		Role:       "peer",
		Outcomes:   "accepted (pong, neighbors, enrresponse); there is no refusal",
		Identity:   "node id, recovered from the signature of the first ping",
		Version:    "not on the wire",
		Confidence: ConfidenceCertain,
	},
	"dns": {
		Recognised: "header and question at port 53; elsewhere the whole message must be sound",
		Role:       "bootstrap for services (SRV, NAPTR) and seeds, else not told",
		Outcomes:   "accepted (NOERROR, NXDOMAIN), refused (SERVFAIL, REFUSED, other codes)",
		Identity:   "none",
		Version:    "not on the wire",
		Confidence: ConfidenceStrong,
	},
	"gnutella": {
		Recognised: "GNUTELLA CONNECT/0.x line; GND or the binary header over UDP",
		Role:       "supernode (ultrapeer, by its headers), peer",
		Outcomes:   "accepted (200 of both), refused (4xx), throttled (503), redirected (X-Try lists), closed (BYE, where it is not deflated)",
		Identity:   "GUID header",
		Version:    "User-Agent",
		Confidence: ConfidenceCertain,
	},
	"gquic": {
		Recognised: "flags, version Q020 to Q050, and CHLO in clear; without it (a later packet, Q050) the version in its place",
		Role:       "not told: a carrier",
		Outcomes:   "accepted (an encrypted packet after CHLO), challenge (REJ), refused (public reset, list of versions); public reset is a close",
		Identity:   "none",
		Version:    "UAID of CHLO, else the version of the protocol",
		Confidence: ConfidenceStrong,
	},
	"http": {
		Recognised: "request line that ends in HTTP/1.x, status line, HTTP/2 preface",
		Role:       "bootstrap for lists of nodes (GWebCache, server.met, nodes.dat), else not told",
		Outcomes:   "accepted (2xx, 3xx), challenge (401, 407), throttled (429, 503 with Retry-After), refused (4xx, 5xx)",
		Identity:   "none",
		Version:    "User-Agent",
		Confidence: ConfidenceCertain,
	},
	"ikev2": {
		Recognised: "version 2.0, exchange, flags and a length that fits, with or without the marker of port 4500",
		Role:       "supernode (gateway)",
		Outcomes:   "accepted (SA; IKE_AUTH by size), throttled (COOKIE), redirected (REDIRECT), challenge (INVALID_KE_PAYLOAD), refused (error notifies; IKE_AUTH by size), lost (INVALID_IKE_SPI)",
		Identity:   "none: encrypted",
		Version:    "not read",
		Confidence: ConfidenceStrong,
	},
	"libp2p": {
		Recognised: "/multistream/1.0.0 line",
		Role:       "peer",
		Outcomes:   "accepted (echo of the proposal), refused (na)",
		Identity:   "none: encrypted",
		Version:    "encrypted (identify)",
		Confidence: ConfidenceCertain,
	},
	"mqtt": {
		Recognised: "CONNECT with the protocol's name and level",
		Role:       "supernode (broker)",
		Outcomes:   "accepted, refused, throttled (3; 88, 89, 97, 9f), redirected (9c, 9d), challenge (AUTH); PINGREQ is a refresh, DISCONNECT a close",
		Identity:   "client id",
		Version:    "of the protocol",
		Confidence: ConfidenceCertain,
	},
	"n2n": {
		Recognised: "version, flags, packet type and a NUL-padded community; encrypted headers by port 7654 and size",
		Role:       "supernode; peer between supernodes",
		Outcomes:   "accepted (REGISTER_SUPER_ACK), refused (REGISTER_SUPER_NAK), close (UNREGISTER_SUPER); registrations in a session are refreshes",
		Identity:   "MAC address; none with encrypted headers",
		Version:    "not on the wire",
		Confidence: ConfidenceStrong,
	},
	"nats": {
		Recognised: "INFO line of the server with its id",
		Role:       "supernode (server)",
		Outcomes:   "accepted (PONG after CONNECT), refused (-ERR), throttled (maximum connections exceeded), close (-ERR later); PING is a refresh",
		Identity:   "name, else user, of CONNECT; none in TLS",
		Version:    "client library of CONNECT; JA4 in TLS",
		Confidence: ConfidenceCertain,
	},
	"nebula": {
		Recognised: "version, type, zero reserved bytes, and in a handshake index, counter and certificate",
		Role:       "supernode (lighthouse), peer, by the first use of the tunnel; relay, by the header around a handshake; until then by port",
		Outcomes:   "accepted (second message of the handshake), lost (RecvError), close (CloseTunnel); there is no refusal; Test is a refresh",
		Identity:   "name in the certificate",
		Version:    "not on the wire",
		Confidence: ConfidenceStrong,
	},
	"openvpn": {
		Recognised: "reset packet whose length, packet ids, times and acknowledgements fit one of the key modes",
		Role:       "supernode (server)",
		Outcomes:   "accepted (first data packet); a login that fails is stalled, being inside TLS; SOFT_RESET is a refresh",
		Identity:   "none: encrypted",
		Version:    "encrypted",
		Confidence: ConfidenceStrong,
	},
	"quic": {
		Recognised: "long header of version 1, 2, a draft from 22 on, or mvfst",
		Role:       "not told: a carrier",
		Outcomes:   "accepted (Handshake, 1-RTT), challenge (Retry), refused (Version Negotiation, CONNECTION_CLOSE in an Initial)",
		Identity:   "none",
		Version:    "JA4 of the ClientHello, also of one in several datagrams",
		Confidence: ConfidenceCertain,
	},
	"radius": {
		Recognised: "code, length and attributes that fill the packet exactly",
		Role:       "login",
		Outcomes:   "accepted, refused (Reject), challenge; Status-Server and interim accounting are refreshes",
		Identity:   "Calling-Station-Id, else User-Name",
		Version:    "not on the wire",
		Confidence: ConfidenceStrong,
	},
	"sip": {
		Recognised: "method and sip: address, or SIP/2.0 and a status, with Via and CSeq",
		Role:       "login: the registrar; by content",
		Outcomes:   "accepted, refused, throttled (Retry-After), redirected; 401, 407 and 423 are legs of their attempt; expires=0 is a close; pings and Bindings that keep a flow open are refreshes",
		Identity:   "address of record in To, and +sip.instance or host of Contact",
		Version:    "User-Agent",
		Confidence: ConfidenceCertain,
	},
	"skype": {
		Recognised: "the feigned TLS hellos, the login's empty records, the HTTP version check; UDP and host:port by sizes, order and fan-out",
		Role:       "supernode, login, bootstrap",
		Outcomes:   "accepted and refused by the size of the answer",
		Identity:   "none: the UDP port that tells clients apart is not on its connections",
		Version:    "HTTP version check",
		Confidence: ConfidenceFair,
	},
	"stun": {
		Recognised: "magic cookie and length; classic STUN by attributes of known lengths that fill the message; in TLS (turns:) it is tls",
		Role:       "relay (TURN), bootstrap (STUN), peer (Binding with USERNAME: ICE)",
		Outcomes:   "accepted, challenge (401, 438), refused (error codes), throttled (486, 508), redirected (300), lost (437 in a session); Refresh is a refresh, with lifetime 0 a close",
		Identity:   "none: USERNAME is shared, or drawn for each call",
		Version:    "SOFTWARE",
		Confidence: ConfidenceCertain,
	},
	"tailscale": {
		Recognised: "magic of DISCO",
		Role:       "peer",
		Outcomes:   "accepted (pong, by length); later pings are refreshes",
		Identity:   "sender's key",
		Version:    "not on the wire",
		Confidence: ConfidenceStrong,
	},
	"tinc": {
		Recognised: "ID line with protocol 17",
		Role:       "peer",
		Outcomes:   "accepted (ACK, by length), refused (TERMREQ in clear)",
		Identity:   "name of the node",
		Version:    "of the protocol",
		Confidence: ConfidenceStrong,
	},
	"syncthing": {
		Recognised: `JoinSessionRequest with the magic of relays; TLS with ALPN "bep-relay" or "bep/1.0"`,
		Role:       "relay, peer",
		Outcomes:   "accepted, refused and throttled (RelayFull), at a relay inside TLS by the length of the answer; between devices as tls, with close (alert)",
		Identity:   "none: encrypted",
		Version:    "JA4 of the ClientHello; none in a session",
		Confidence: ConfidenceCertain,
	},
	"tls": {
		Recognised: "ClientHello or ServerHello record, SSLv2-style hello",
		Role:       "not told: a carrier",
		Outcomes:   "accepted (ServerHello), challenge (HelloRetryRequest), refused (alert before it), close (alert after it)",
		Identity:   "none",
		Version:    "JA4 of the ClientHello",
		Confidence: ConfidenceCertain,
	},
	"tor": {
		Recognised: "GET /tor/...; TLS without ALPN to a made-up server name, at port 9001 or with digits among the letters",
		Role:       "bootstrap (directory), supernode (relay)",
		Outcomes:   "as http (503 Directory busy is throttled) and tls",
		Identity:   "none",
		Version:    "JA4",
		Confidence: ConfidenceFair,
	},
	"wireguard": {
		Recognised: "type, zero bytes and the exact length of handshake messages",
		Role:       "supernode (server) by port 51820; else not told: both ends look the same",
		Outcomes:   "accepted (response), throttled (cookie reply); there is no refusal; handshakes in a session are refreshes",
		Identity:   "none: encrypted",
		Version:    "not on the wire",
		Confidence: ConfidenceStrong,
	},
	"zerotier": {
		Recognised: "HELLO whose identity has the address of its sender",
		Role:       "not told: roots and leaves look the same",
		Outcomes:   "accepted (any packet back: OK and ERROR are encrypted alike); later HELLOs are refreshes",
		Identity:   "40-bit address",
		Version:    "major.minor.revision of HELLO",
		Confidence: ConfidenceStrong,
	},
}
