package dissect

// Attempt is one try by one client at one node: a row of the attempts table.
// The strings are shared (interned); the struct itself is reused by whoever
// hands it out and must be copied to be kept.
type Attempt struct {
	ID       uint64 // content hash, printed as 16 hex digits
	IntentID uint64

	Start int64 // first transmission, ns
	End   int64 // when the outcome was known: the answer, or the moment the waiting ended

	Source, Destination Endpoint // Source is the client side
	Proto               uint8    // ProtoTCP or ProtoUDP
	Protocol            string   // network_protocol, "" = unknown
	Op                  string   // the request's own name, "" = unknown
	Rung                string   // step of a transport ladder, "" = none
	Service             string   // what may serve the same intent: protocol + role, or transport + port
	Role                Role
	RoleSource          RoleSource
	RoleProof           float64 // confidence of a role inferred from behaviour, 0..1

	ClientID      string // of the client, see Client.ID
	ClientIDLevel IDLevel
	ClientVersion string
	ServerName    string // by which the client asked for the node: SNI, Host of HTTP
	JA3           string // of its ClientHello, 32 hex digits

	Relation Relation
	Number   int32 // 1-based position in its intent
	Outcome  Outcome
	Evidence Evidence
	Answer   Answer
	Late     bool // the answer came after the client had given up on this attempt
	OneSided bool // only one direction was captured
	Censored bool // its intent may have begun before the capture

	Transmissions int32
	HandshakeRTT  int64 // ns, -1 = not seen
	RetryGap      int64 // start to start from the previous attempt of the intent, ns, -1 = none
	RetryAfter    int64 // wait announced by the node, ns, 0 = none
	AnsweredAt    int64 // when the (possibly late) answer came, 0 = none
	GaveUp        int64 // when the client is known to have given up, 0 = not known
	LastSeen      int64 // last packet of the attempt and of the session it opened
	LastHeard     int64 // last one of the node, resets apart, in a session that it had accepted seconds before; 0 = none
	HeardAgain    int64 // first one of the node after an ICMP error had answered the 5-tuple (UDP), in this attempt or after it; 0 = none

	// SessionEnd is when the session that an accepted attempt opened was over:
	// closed, lost or expired; 0 = not accepted, or still alive at the end.
	SessionEnd   int64
	SessionEnded SessionEnd

	SourcePackets, SourceBytes           int64 // IP bytes, from the client
	DestinationPackets, DestinationBytes int64
	LostBytes                            int64 // of SourceBytes in a session, those after the node's last word; TCP only

	History  string // Zeek's history letters (TCP)
	VLAN     uint16
	Tunnel   Tunnel
	TunnelID uint32

	File                  uint32 // index of the capture of the first frame
	FirstFrame, LastFrame int64  // 1-based
	OverFrame, AgainFrame int64  // of what decided it, or ended its session, and of HeardAgain; 0 = not a packet, or not kept
	FirstOffset           int64  // byte offset of the first frame in its uncompressed file
}

// Event is the ECS event.outcome: success, failure or unknown. A SYN of which
// only the client's side was captured, and that no acknowledgement followed,
// failed, though nobody can tell how (rule 17).
func (a *Attempt) Event() string {
	if a.OneSided && a.Outcome == OutcomeUnknown && a.Answer == AnswerNone {
		return OutcomeTimeout.Event()
	}
	return a.Outcome.Event()
}

// Replied reports that the node said something, in time or late. A handshake that
// nothing of the node followed was its kernel's.
func (a *Attempt) Replied() bool {
	return a.AnsweredAt != 0 && (a.Late || a.Answer != AnswerSynAck || a.Outcome != OutcomeStalled && a.Outcome != OutcomeUnknown)
}

// SessionEnd is why a session was over.
type SessionEnd uint8

const (
	SessionAlive       SessionEnd = iota // or never begun
	SessionByClient                      // the client closed it
	SessionByNode                        // the node closed it
	SessionLost                          // a refresh failed, or one side forgot it
	SessionExpired                       // its lifetime passed without refresh
	SessionUnreachable                   // an ICMP error answered its traffic
	NumSessionEnds
)

var sessionEndNames = [NumSessionEnds]string{"", "client", "node", "lost", "expired", "unreachable"}

func (s SessionEnd) String() string { return sessionEndNames[s] }

// IDLevel is how well a client is told from others.
type IDLevel uint8

const (
	IDAddress     IDLevel = iota // the IP address
	IDFingerprint                // a TCP timestamp line behind an address
	IDProtocol                   // an identity inside the protocol
)

var idLevelNames = [...]string{"ip", "fingerprint", "protocol"}

func (l IDLevel) String() string { return idLevelNames[l] }

// Intent is one wish of one client to be attached to one service: a row of the
// intents table.
type Intent struct {
	ID                  uint64
	Start, End          int64
	ClientID            string
	Service             string
	Protocol            string
	Attempts            int32 // counted ones; parallel twins excluded
	Retries             int32
	Nodes               int32 // different nodes tried
	Outcome             Outcome
	Relation            Relation // of its first attempt: first, reattach, refresh or monitor
	ClosedBy            ClosedBy
	Censored            bool  // began before the capture, or was open at its end
	Wait                int64 // W that was used, ns
	FirstNode, LastNode Endpoint
	Source              Addr // of its first attempt
}

// ClosedBy is what ended an intent.
type ClosedBy uint8

const (
	ClosedAccepted ClosedBy = iota
	ClosedQuiet             // silence longer than W, or the learned attempt limit
	ClosedEdge              // the capture ended first
)

var closedByNames = [...]string{"accepted", "quiet", "edge"}

func (c ClosedBy) String() string { return closedByNames[c] }

// Client is one client as far as it could be told apart.
type Client struct {
	ID          string // protocol:identity, or the address, or address#n for a timestamp line
	Level       IDLevel
	Addr        Addr // last address it was seen at
	Version     string
	First, Last int64 // ns, of its attempts
	Attempts    int32 // all rows
	NATSuspect  bool
	Unnamed     bool  // ID holds a hash of its name, which was one too many
	Monitor     bool  // all that it sent are health checks
	Wait        int64 // learned W, ns
}

// Visitor receives everything known of the clients, one client after the
// other: Client, then its attempts in start order, each intent once it is
// closed. The pointers are valid during the call. The order of clients is
// fixed by content, never by the number of workers.
type Visitor interface {
	Client(*Client)
	Attempt(*Attempt)
	Intent(*Intent)
}

// Bucket is a compartment of the packet ledger, in order of precedence.
type Bucket uint8

const (
	BucketFiltered  Bucket = iota
	BucketDuplicate        // seen twice at one point
	BucketCopy             // seen at another point before
	BucketUndecodable
	BucketMalformed
	BucketFragment
	BucketCut
	BucketAttempt
	BucketSession
	BucketOther
	NumBuckets
)

var bucketNames = [NumBuckets]string{"filtered", "duplicate", "copy", "undecodable", "malformed", "fragment", "cut", "attempt", "session", "other"}

func (b Bucket) String() string { return bucketNames[b] }

// Ledger counts every packet read, each in exactly one bucket.
type Ledger [NumBuckets]int64

// Total is the sum of all buckets: the packets read.
func (l *Ledger) Total() (n int64) {
	for _, v := range l {
		n += v
	}
	return n
}

// Add adds another ledger.
func (l *Ledger) Add(m *Ledger) {
	for i, v := range m {
		l[i] += v
	}
}
