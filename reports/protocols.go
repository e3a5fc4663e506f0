package reports

import (
	"squall/dissect"
	"squall/dissect/overlay"
)

// Protocols is the table of what can be recognised; it needs no capture.
func Protocols(protocols []dissect.Protocol) (*Table, Rows) {
	type d = overlay.Description
	t := define("protocols", "a way of recognising a protocol, in the order in which they are asked", false,
		str("network_protocol", "its name in every table", func(v *d) string { return v.Name }),
		list("network_transport", "tcp, udp or both", func(v *d) (out []string) {
			if v.Transports&dissect.TCP != 0 {
				out = append(out, "tcp")
			}
			if v.Transports&dissect.UDP != 0 {
				out = append(out, "udp")
			}
			return out
		}),
		str("confidence", "certain, strong, fair or guess", func(v *d) string { return v.Confidence }),
		str("recognised", "the content that it is known by", func(v *d) string { return v.Recognised }),
		str("destination_role", "what the node is, and how that is known", func(v *d) string { return v.Role }),
		str("outcomes", "answers that are told apart, beyond those of the transport", func(v *d) string { return v.Outcomes }),
		str("client_id", "what a client is known by beyond its address", func(v *d) string { return v.Identity }),
		str("client_version", "where the client's software shows", func(v *d) string { return v.Version }),
		flag("signature", "a signature file describes it, not code", func(v *d) bool { return v.Signature }),
	).leads("network_protocol network_transport confidence recognised")
	return &t.Table, t.Rows(nil, each(overlay.Describe(protocols)))
}
