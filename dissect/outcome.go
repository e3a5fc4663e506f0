package dissect

// Outcome is how an attempt ended; design.md section 1 has the definitions.
type Outcome uint8

const (
	OutcomeUnknown     Outcome = iota // the capture cannot tell
	OutcomeAccepted                   // the application said yes
	OutcomeStalled                    // connected, the client gave up before a yes
	OutcomeDropped                    // connected or accepted, then ended by the node within 5 s without use
	OutcomeRefused                    // RST, port unreachable, an explicit no
	OutcomeUnreachable                // ICMP net, host, prohibited, TTL exceeded
	OutcomeThrottled                  // an explicit "busy", "later" or "elsewhere"
	OutcomeTimeout                    // nothing came back
	NumOutcomes
)

var outcomeNames = [NumOutcomes]string{"unknown", "accepted", "stalled", "dropped", "refused", "unreachable", "throttled", "timeout"}

func (o Outcome) String() string { return outcomeNames[o] }

// Failed reports a decided outcome other than accepted.
func (o Outcome) Failed() bool { return o > OutcomeAccepted }

// Event is the ECS event.outcome of the same: success, failure or unknown.
func (o Outcome) Event() string {
	switch {
	case o == OutcomeAccepted:
		return "success"
	case o.Failed():
		return "failure"
	}
	return "unknown"
}

// Evidence is what decided an outcome.
type Evidence uint8

const (
	EvidenceEdge      Evidence = iota // the capture began, ended or had a hole here
	EvidenceApp                       // the application's own words
	EvidenceHandshake                 // sequence numbers (or a UDP reply) alone, proven by age
	EvidenceSynAck                    // handshake and bytes from the node
	EvidenceRST
	EvidenceFIN
	EvidenceICMP
	EvidenceSilence
	NumEvidence
)

var evidenceNames = [NumEvidence]string{"edge", "app", "handshake", "synack", "rst", "fin", "icmp", "silence"}

func (e Evidence) String() string { return evidenceNames[e] }

// Answer is the first thing the transport said to an attempt, whatever became
// of it afterwards.
type Answer uint8

const (
	AnswerNone Answer = iota
	AnswerSynAck
	AnswerRST   // from the node
	AnswerICMP  // an unreachable that quotes the attempt
	AnswerAbort // RST by the initiator before anything came back
	AnswerReply // UDP: a datagram back
	NumAnswers
)

var answerNames = [NumAnswers]string{"none", "synack", "rst", "icmp", "abort", "reply"}

func (a Answer) String() string { return answerNames[a] }

// Relation is what an attempt is to its intent.
type Relation uint8

const (
	RelationFirst    Relation = iota
	RelationRetry             // the same node again
	RelationFailover          // another node
	RelationParallel          // an overlapping twin; outside A, n and volume
	RelationRefresh           // within a living session; an intent of its own kind
	RelationReattach          // first attempt of a client that lost its session
	RelationMonitor           // a health check; outside all of it
	NumRelations
)

var relationNames = [NumRelations]string{"first", "retry", "failover", "parallel", "refresh", "reattach", "monitor"}

func (r Relation) String() string { return relationNames[r] }

// Counted reports whether A, n and volume count the attempt.
func (r Relation) Counted() bool {
	return r != RelationParallel && r != RelationRefresh && r != RelationMonitor
}

// Retries reports whether the attempt is a retry in the sense of n.
func (r Relation) Retries() bool { return r == RelationRetry || r == RelationFailover }

// Role is what a node is to its clients.
type Role uint8

const (
	RoleUnknown Role = iota
	RoleSupernode
	RoleLogin
	RoleRelay
	RoleBootstrap
	RoleTracker
	RolePeer
	NumRoles
)

var roleNames = [NumRoles]string{"unknown", "supernode", "login", "relay", "bootstrap", "tracker", "peer"}

func (r Role) String() string { return roleNames[r] }

// ParseRole is the inverse of String; ok is false for any other word.
func ParseRole(s string) (r Role, ok bool) {
	for i, n := range roleNames {
		if n == s {
			return Role(i), true
		}
	}
	return RoleUnknown, false
}

// RoleSource is how a role became known, weakest first.
type RoleSource uint8

const (
	RoleSourceNone RoleSource = iota
	RoleSourcePort
	RoleSourceBehaviour
	RoleSourceContent
	RoleSourceUser
	NumRoleSources
)

var roleSourceNames = [NumRoleSources]string{"", "port", "behaviour", "content", "user"}

func (s RoleSource) String() string { return roleSourceNames[s] }
