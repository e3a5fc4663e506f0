package dissect

import "strings"

// Verdict is a probe's opinion of a datagram.
type Verdict uint8

const (
	No    Verdict = iota
	Maybe         // plausible; wins only where nobody says Yes
	Yes           // content that nothing else plausibly has
)

// Transport is a set of transports.
type Transport uint8

const (
	TCP Transport = 1 << iota
	UDP
)

// Protocol recognises and reads one overlay protocol. Implementations are
// stateless values, safe for concurrent use; whatever must be remembered
// between packets of a flow lives in Flow.
type Protocol interface {
	// Name is a column value (network_protocol) and stays stable.
	Name() string
	Transports() Transport
	// Probe looks at the first bytes of a flow direction. It does not
	// allocate, does not panic, and costs a few nanoseconds on a stranger.
	// Content decides; a port is a hint that turns No into Maybe at most.
	Probe(d *Datagram) Verdict
	// Dissect reads one message. For UDP d.Payload is the whole datagram and n
	// is ignored. For TCP d.Payload holds the bytes of this direction that
	// were not consumed yet, in order, and n says how many this message used;
	// ErrShort asks for more. Any other error, or n = 0, gives up on the
	// direction. *m is zeroed by the caller; its byte slices alias d.Payload.
	Dissect(d *Datagram, f *Flow, m *Message) (n int, err error)
}

// Gate is a condition that the first bytes of a flow must meet for a probe to say
// anything but No. It is looked at before the probe is called, for every protocol
// and every datagram of an unknown flow, so it holds what takes a nanosecond.
type Gate struct {
	// Starts has the first bytes that there may be; empty = any.
	Starts string
	// Least and Most bound the captured payload, bytes; Most 0 = any.
	Least, Most int
	// At is the offset of a byte whose bits under Mask are those of Want; Mask 0 = any.
	At         int
	Mask, Want byte
	// LoPort to HiPort, both included, has a port of either side; HiPort 0 = any.
	LoPort, HiPort uint16
}

// Gated is a Protocol whose probe is asked where one of its gates is open, and
// nowhere else. One that is not gated is always asked.
type Gated interface {
	Gates(Transport) []Gate
}

// Open reports whether a datagram meets the condition.
func (g *Gate) Open(d *Datagram) bool {
	b := d.Payload
	switch {
	case len(b) < g.Least, g.Most > 0 && len(b) > g.Most:
		return false
	case g.Starts != "" && (len(b) == 0 || strings.IndexByte(g.Starts, b[0]) < 0):
		return false
	case g.Mask != 0 && (g.At >= len(b) || b[g.At]&g.Mask != g.Want):
		return false
	case g.HiPort != 0:
		return d.SrcPort >= g.LoPort && d.SrcPort <= g.HiPort || d.DstPort >= g.LoPort && d.DstPort <= g.HiPort
	}
	return true
}

// Flow is the scratch memory of one flow that a protocol may use. The engine
// zeroes it when the flow begins, and sets the first group before each call.
type Flow struct {
	// FromClient: the sender of d opened the flow (sent the SYN, or the first
	// datagram on the 5-tuple). A message may correct it, see Message.FromClient.
	FromClient bool
	// SegLen is the payload length of the segment that was just received, for
	// protocols that are known by their sizes. UDP: the datagram's length.
	SegLen int
	// Seen counts the payload bytes of this direction before d.Payload.
	Seen int64
	// Established: the handshake was proven (always true for UDP).
	Established bool

	// The protocol's own.
	Step  uint8
	Flags uint8
	Port  uint16
	A, B  uint64
	// Done: nothing more is to be read from this flow; the engine stops
	// buffering it.
	Done bool
}

// Kind is what a message means to an attempt.
type Kind uint8

const (
	// KindData is session traffic, or a message that says nothing about attempts.
	KindData Kind = iota
	// KindRequest opens an attempt; with the Txn of an open one it is a
	// repeated transmission, with its Chain the next leg.
	KindRequest
	// KindRefresh is a request inside a session: keepalive with an answer,
	// re-registration. Unanswered it means the session is lost.
	KindRefresh
	// KindProgress is a provisional answer: the node lives, nothing is decided.
	KindProgress
	// KindChallenge is "prove who you are, then again": 401, cookie, connection id.
	KindChallenge
	// KindAccept is yes.
	KindAccept
	// KindRefuse is no.
	KindRefuse
	// KindThrottle is busy, or "later"; RetryAfter if it was said.
	KindThrottle
	// KindRedirect is "elsewhere"; its attempt counts as throttled.
	KindRedirect
	// KindClose ends the session on purpose; FromClient says who did.
	KindClose
	// KindLost says that the session is unknown to the sender (Nebula RecvError).
	KindLost
)

var kindNames = [...]string{"data", "request", "refresh", "progress", "challenge", "accept", "refuse", "throttle", "redirect", "close", "lost"}

func (k Kind) String() string { return kindNames[k] }

// Message is what a protocol read from one datagram or stream position.
type Message struct {
	Kind Kind
	// Op is the protocol's own name of it ("REGISTER", "503"); a constant string.
	Op string
	// Protocol names the protocol of this request where several share a flow; a
	// constant string, empty = Name of the one that reads it.
	Protocol string
	// FromClient: the sender is the client side of this exchange. The engine
	// presets it with Flow.FromClient; a message that knows better sets it,
	// and so corrects which end is the node.
	FromClient bool
	// Txn pairs an answer with its request and a repeat with the first
	// transmission; 0 stands for the flow itself. Hash of what the protocol
	// pairs by; addresses need not be mixed in.
	Txn uint64
	// Chain ties legs with different Txn into one attempt (SIP Call-ID, a
	// tracker's connect and announce); 0 = none.
	Chain uint64
	// Begins: it never is a later leg of its Chain (a tracker's connect).
	Begins bool
	// Role of the node, RoleUnknown if the message does not tell.
	Role Role
	// ByPort: the protocol or role rests on a port number, not on content.
	ByPort bool
	// ClientID identifies the client beyond its address (key, MAC, user,
	// peer id); empty if unknown. Aliases d.Payload.
	ClientID []byte
	// Version is the client's software and version as it names itself; may be
	// a constant. Aliases d.Payload otherwise.
	Version []byte
	// ServerName is the name by which a client asked for the node: SNI, or the
	// Host of HTTP; empty where the request has none. Aliases d.Payload.
	ServerName []byte
	// JA3 is the fingerprint of the client's TLS library, 32 hex digits; empty
	// where the request is no ClientHello.
	JA3 []byte
	// Rung names one step of a ladder of transports ("udp", "tcp", "tcp-443");
	// a constant string, empty where the protocol has no ladder.
	Rung string
	// RetryAfter is the wait that a throttle or refusal announced, ns; 0 = none.
	RetryAfter int64
	// Lifetime is how long an acceptance holds without refresh, ns; 0 = unknown.
	Lifetime int64
	// Timeout is how long the client waits for an answer to this request
	// before it is failed, ns; 0 = the engine's rule (10 s).
	Timeout int64
	// Repeats: over UDP the client sends the same request again, within a second
	// or so, until it is answered.
	Repeats bool
	// Held is what a protocol keeps of a message that comes in several datagrams.
	// The engine presets it with what the flow held before, and takes what is
	// there afterwards, some KiB at most; it may refuse, and a caller may ignore it.
	Held []byte
	// Proven, of a request: it carries credentials. Of a challenge: it is a no, if
	// the very request that it answers did.
	Proven bool
	// Encrypted: the content is opaque, the protocol is known by shape.
	Encrypted bool
}
