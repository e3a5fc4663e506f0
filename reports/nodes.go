package reports

import (
	"time"

	"squall/dissect/storm"
)

// Nodes is the table of server-side endpoints.
func Nodes() *Of[storm.Node] {
	type n = storm.Node
	fields := []field[n]{
		str("destination_ip", "address of the node", func(v *n) string { return v.At.Addr.String() }),
		num("destination_port", "", "its port", func(v *n) int64 { return int64(v.At.Port) }),
		str("network_transport", "tcp or udp", func(v *n) string { return transport(v.Proto) }),
		str("network_protocol", "overlay protocol, empty when unknown", func(v *n) string { return v.Protocol }),
		str("service", "what it serves", func(v *n) string { return v.Service }),
		str("destination_role", "supernode, login, relay, bootstrap, tracker, peer, unknown", func(v *n) string { return v.Role.String() }),
		str("role_source", "content, behaviour, port or user", func(v *n) string { return v.RoleSource.String() }),
		ratio("role_confidence", "", "share of the signs of a role by behaviour that were seen", func(v *n) float64 { return proof(v.RoleSource, v.RoleProof) }),
		when("first_time", "first attempt at it", func(v *n) int64 { return v.First }),
		when("last_time", "last attempt at it", func(v *n) int64 { return v.Last }),
		num("clients", "", "different clients", func(v *n) int64 { return v.Clients }),
		ratio("peak_rate", "1/s", "attempts a second in its busiest 10 s", func(v *n) float64 { return v.PeakRate }),
	}
	fields = append(fields, counts(func(v *n) *storm.Counts { return &v.Counts })...)
	return define("nodes", "a server-side endpoint", false, append(fields,
		num("checks", "", "health checks of monitors", func(v *n) int64 { return v.Checks }),
		num("source_bytes", "bytes", "IP bytes its clients sent it", func(v *n) int64 { return v.BytesIn }),
		num("destination_bytes", "bytes", "IP bytes it sent them", func(v *n) int64 { return v.BytesOut }),
		list("down_periods", "start/end/kind of each period; no end: until the capture's", func(v *n) (out []string) {
			for _, p := range v.Periods {
				out = append(out, stamp(p.Start)+"/"+stamp(p.End)+"/"+p.Kind.String())
			}
			return out
		}),
		optNum("generation", "", "in the cascade, 0 fell first", -1, func(v *n) int64 { return int64(v.Generation) }),
		optNum("fall_order", "", "place among the nodes that fell, from 1", 0, func(v *n) int64 { return int64(v.Order) }),
		num("restarts", "", "times it came back", func(v *n) int64 { return v.Restarts }),
		num("restarts_failed", "", "of them, down again within two minutes", func(v *n) int64 { return v.RestartsFailed }),
		ratio("excess", "x", "load beyond what redistribution explains", func(v *n) float64 { return v.Excess }),
		num("afterlife_attempts", "", "attempts that kept coming after it went down", func(v *n) int64 { return v.AfterlifeAttempts }),
		num("afterlife_bytes", "bytes", "IP bytes that kept coming after it went down: of attempts and refreshes, and in sessions over TCP what the node answered no more", func(v *n) int64 { return v.AfterlifeIn }),
	)...).leads("destination_ip destination_port clients attempts failure_ratio generation peak_rate service destination_role late_ratio")
}

// NodePeriod is a period of a node.
type NodePeriod struct {
	Node *storm.Node
	storm.Period
}

// NodePeriods is the table of what was wrong with nodes, and when.
func NodePeriods() *Of[NodePeriod] {
	type p = NodePeriod
	return define("node_periods", "a period in which a node was down, protecting itself or overloaded", false,
		str("destination_ip", "address of the node", func(v *p) string { return v.Node.At.Addr.String() }),
		num("destination_port", "", "its port", func(v *p) int64 { return int64(v.Node.At.Port) }),
		str("service", "what it serves", func(v *p) string { return v.Node.Service }),
		str("kind", "down, self_protecting or overloaded", func(v *p) string { return v.Kind.String() }),
		when("start", "first sign that was confirmed later", func(v *p) int64 { return v.Start }),
		optWhen("end", "empty: until the capture's end", func(v *p) int64 { return v.End }),
		optWhen("suspected", "first sign at all", func(v *p) int64 { return v.Suspected }),
		optWhen("last_alive", "last sign of life before", func(v *p) int64 { return v.LastAlive }),
		optNum("generation", "", "of its node in the cascade", -1, func(v *p) int64 { return int64(v.Node.Generation) }),
		strEnv("capture_file", "input that holds the frame", func(e *Env, v *p) string { return e.file(v.File, v.Frame) }),
		optNum("frame", "", "that shows the start", 0, func(v *p) int64 { return v.Frame }),
	).leads("destination_ip destination_port kind start end generation service")
}

// stamp prints a time in UTC; empty for 0.
func stamp(ns int64) string {
	if ns == 0 {
		return ""
	}
	return time.Unix(0, ns).UTC().Format(timeLayout)
}

// file names the input of a frame; no frame, no file.
func (e *Env) file(i uint32, frame int64) string {
	if frame == 0 || int(i) >= len(e.Files) {
		return ""
	}
	return e.Files[i]
}
