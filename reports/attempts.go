package reports

import (
	"math"

	"squall/dissect"
)

// Attempts is the table of tries: one client, one node, from the first
// transmission to the outcome. Names follow ECS with "." as "_".
func Attempts() *Of[dissect.Attempt] {
	type a = dissect.Attempt
	fields := []field[a]{
		str("attempt_id", "hash of its content, the same in every run", func(v *a) string { return id(v.ID) }),
		str("intent_id", "of the intent it belongs to", func(v *a) string { return id(v.IntentID) }),
		when("event_start", "first transmission", func(v *a) int64 { return v.Start }),
		when("event_end", "when the outcome was known", func(v *a) int64 { return v.End }),
		num("event_duration", "ns", "event_end less event_start", func(v *a) int64 { return v.End - v.Start }),
		str("source_ip", "address of the client", func(v *a) string { return v.Source.Addr.String() }),
		num("source_port", "", "port of the client", func(v *a) int64 { return int64(v.Source.Port) }),
		str("destination_ip", "address of the node", func(v *a) string { return v.Destination.Addr.String() }),
		num("destination_port", "", "port of the node", func(v *a) int64 { return int64(v.Destination.Port) }),
		str("network_transport", "tcp or udp", func(v *a) string { return transport(v.Proto) }),
		str("network_type", "ipv4 or ipv6", func(v *a) string {
			if v.Source.Addr.Is4() {
				return "ipv4"
			}
			return "ipv6"
		}),
		str("network_protocol", "overlay protocol, empty when unknown", func(v *a) string { return v.Protocol }),
		str("network_community_id", "Community ID version 1, seed 0", func(v *a) string { return communityID(v.Source, v.Destination, v.Proto) }),
		optNum("network_vlan_id", "", "innermost VLAN", 0, func(v *a) int64 { return int64(v.VLAN) }),
		str("tunnel", "innermost encapsulation", func(v *a) string { return v.Tunnel.String() }),
		str("service", "what may serve the same intent", func(v *a) string { return v.Service }),
		str("destination_role", "supernode, login, relay, bootstrap, tracker, peer, unknown", func(v *a) string { return v.Role.String() }),
		str("role_source", "content, behaviour, port or user", func(v *a) string { return v.RoleSource.String() }),
		ratio("role_confidence", "", "share of the signs of a role by behaviour that were seen", func(v *a) float64 { return proof(v.RoleSource, v.RoleProof) }),
		str("client_id", "identity of the client", func(v *a) string { return v.ClientID }),
		str("client_id_level", "protocol, fingerprint or ip", func(v *a) string { return v.ClientIDLevel.String() }),
		str("client_version", "software as it names itself", func(v *a) string { return v.ClientVersion }),
		str("destination_domain", "name by which the client asked for the node: SNI, or Host of HTTP", func(v *a) string { return v.ServerName }),
		str("tls_client_ja3", "fingerprint of the client's TLS library (JA4 is client_version where nothing else is)", func(v *a) string { return v.JA3 }),
		str("relation", "first, retry, failover, parallel, refresh, reattach, monitor", func(v *a) string { return v.Relation.String() }),
		num("attempt_number", "", "1 for the first of its intent", func(v *a) int64 { return int64(v.Number) }),
		str("attempt_outcome", "accepted, stalled, dropped, refused, unreachable, throttled, timeout, unknown", func(v *a) string { return v.Outcome.String() }),
		str("outcome_evidence", "what decided it", func(v *a) string { return v.Evidence.String() }),
		str("transport_answer", "synack, rst, icmp, abort, reply or none", func(v *a) string { return v.Answer.String() }),
		str("event_outcome", "success, failure or unknown", func(v *a) string { return v.Event() }),
		flag("one_sided", "only one direction was captured", func(v *a) bool { return v.OneSided }),
		flag("late", "answered after the client had given up", func(v *a) bool { return v.Late }),
		num("transmissions", "", "packets of the request phase", func(v *a) int64 { return int64(v.Transmissions) }),
		span("handshake_rtt_ns", "last request to first answer", func(v *a) int64 { return v.HandshakeRTT }),
		span("retry_gap_ns", "from the start of the attempt before", func(v *a) int64 { return v.RetryGap }),
		num("source_packets", "", "packets of the client", func(v *a) int64 { return v.SourcePackets }),
		num("source_bytes", "bytes", "their IP bytes", func(v *a) int64 { return v.SourceBytes }),
		num("destination_packets", "", "packets of the node", func(v *a) int64 { return v.DestinationPackets }),
		num("destination_bytes", "bytes", "their IP bytes", func(v *a) int64 { return v.DestinationBytes }),
		optNum("lost_bytes", "bytes", "of source_bytes in a session, those after the node's last word; TCP only", 0, func(v *a) int64 { return v.LostBytes }),
		str("tcp_history", "Zeek's letters", func(v *a) string { return v.History }),
		when("last_seen", "last packet of the attempt, its late answers and the session it opened", func(v *a) int64 { return max(v.LastSeen, v.AnsweredAt) }),
		optWhen("last_heard", "last packet of the node, resets apart, in a session accepted 5 s before or longer", func(v *a) int64 { return v.LastHeard }),
		optWhen("heard_again", "first packet of the node after an ICMP error had answered the addresses and ports (UDP)", func(v *a) int64 { return v.HeardAgain }),
		optWhen("session_end", "when the session it opened was over", func(v *a) int64 { return v.SessionEnd }),
		str("session_ended_by", "client, node, lost, expired or unreachable", func(v *a) string { return v.SessionEnded.String() }),
		str("request", "the protocol's own name of the request", func(v *a) string { return v.Op }),
		str("rung", "step of a ladder of transports", func(v *a) string { return v.Rung }),
		optNum("retry_after_ns", "ns", "wait that the node announced", 0, func(v *a) int64 { return v.RetryAfter }),
		strEnv("observer_name", "tap that saw the first frame, where it was given a name", func(e *Env, v *a) string { return e.observer(v.File) }),
		optWhen("answered_at", "when the (possibly late) answer came", func(v *a) int64 { return v.AnsweredAt }),
		optWhen("gave_up", "when the client is known to have given up", func(v *a) int64 { return v.GaveUp }),
		strEnv("event_dataset", "packets, or the log that it was read from: of the transport alone", func(e *Env, v *a) string {
			if int(v.File) < len(e.Datasets) {
				return e.Datasets[v.File]
			}
			return ""
		}),
		strEnv("capture_file", "input that held the first frame", func(e *Env, v *a) string {
			if int(v.File) < len(e.Files) {
				return e.Files[v.File]
			}
			return ""
		}),
		num("first_frame", "", "1-based, as in Wireshark", func(v *a) int64 { return v.FirstFrame }),
		num("last_frame", "", "1-based", func(v *a) int64 { return v.LastFrame }),
		optNum("over_frame", "", "the one that decided it, or ended the session it opened", 0, func(v *a) int64 { return v.OverFrame }),
		optNum("again_frame", "", "that of heard_again", 0, func(v *a) int64 { return v.AgainFrame }),
		num("first_offset", "bytes", "of the first frame's record in its file, uncompressed", func(v *a) int64 { return v.FirstOffset }),
	}
	return define("attempts", "one try by one client at one node", true, append(fields, grouped(func(v *a) dissect.Addr { return v.Source.Addr })...)...).leads("event_start source_ip destination_ip attempt_outcome relation attempt_number destination_port service network_protocol client_version outcome_evidence late transmissions")
}

func transport(proto uint8) string {
	if proto == dissect.ProtoUDP {
		return "udp"
	}
	return "tcp"
}

// proof is absent where a role does not rest on behaviour.
func proof(s dissect.RoleSource, p float64) float64 {
	if s != dissect.RoleSourceBehaviour {
		return math.NaN()
	}
	return p
}
