package attempt

import "squall/dissect"

// Record is one attempt as the first pass leaves it: transport facts and what
// the protocol said, but nothing that needs the whole capture (service, role,
// relation, identity across addresses, W, ids). It holds no pointers; strings
// are indices into Names. Records are the currency between the two passes,
// between pieces of a capture, and in the temporary file.
type Record struct {
	// What changes with each packet lies together.
	SourcePackets, SourceBytes           int64
	DestinationPackets, DestinationBytes int64
	LastSeen                             int64 // last packet of the flow or exchange
	LastFrame                            int64
	File                                 uint32
	Transmissions                        int32
	Proto                                uint8
	Outcome                              dissect.Outcome
	Evidence                             dissect.Evidence
	Answer                               dissect.Answer
	Flags                                RecordFlags
	SessionEnded                         dissect.SessionEnd
	VLAN                                 uint16

	Start, End   int64
	AnsweredAt   int64
	SessionEnd   int64
	HandshakeRTT int64 // ns, -1 = not seen
	RetryAfter   int64 // ns
	Lifetime     int64 // ns, of the acceptance, 0 = unknown
	GaveUp       int64 // when the client is known to have given up; 0 = not known
	LastHeard    int64 // last packet of the node, resets apart; 0 = none, or none that matters
	LostBytes    int64 // IP bytes of the client in a session after the node's last word; TCP only
	HeardAgain   int64 // first packet of the node after an ICMP error had answered its flow (UDP); 0 = none

	Source, Destination dissect.Endpoint
	Behind              dissect.Addr // the client that a balancer named before it spoke for it (PROXY protocol); zero = none
	Txn                 uint64       // ISN or transaction: tells rows of one 5-tuple apart
	Digest              uint64       // content digest of the first transmission, the last tie-breaker of order

	FirstFrame, FirstOffset int64
	OverFrame, AgainFrame   int64 // of what decided it, or ended its session, and of HeardAgain; 0 = not a packet

	ClientKey  uint64 // hash of protocol + identity, 0 = none was said
	ClientName Name   // printable identity
	Protocol   Name
	Op         Name
	Rung       Name
	Version    Name
	ServerName Name
	JA3        Name
	TSBase     int64 // start of the client's TCP timestamp line (ns at which its clock read 0), 0 = no timestamps
	TunnelID   uint32
	History    [16]byte // Zeek letters, zero padded
	Tunnel     dissect.Tunnel
	Role       dissect.Role
	RoleSource dissect.RoleSource
}

// names are all of its indices into Names.
func (r *Record) names() [7]*Name {
	return [...]*Name{&r.ClientName, &r.Protocol, &r.Op, &r.Rung, &r.Version, &r.ServerName, &r.JA3}
}

// RecordFlags are the yes-or-no facts of a record.
type RecordFlags uint8

const (
	// FlagOneSided: only one direction was captured.
	FlagOneSided RecordFlags = 1 << iota
	// FlagRefresh: the protocol itself says that it is a refresh.
	FlagRefresh
	// FlagEdge: the attempt touches the beginning or end of its capture.
	FlagEdge
	// FlagLate: the first pass already knows that the answer was late.
	FlagLate
	// FlagGiven: the record was a row already. Digest is its id, and ClientName
	// the whole id of its client, where ClientKey says that there is one.
	FlagGiven
	// FlagServed: the client acknowledged bytes of a node whose side was not
	// captured. The outcome stays unknown, but the client has no reason to retry.
	FlagServed
	// FlagRepeats: the protocol would have repeated the request, had it not been
	// answered.
	FlagRepeats
	// FlagOlder: no attempt, but a session whose beginning was not captured.
	FlagOlder
)

// Name is an index into Names; 0 is the empty string.
type Name uint32
