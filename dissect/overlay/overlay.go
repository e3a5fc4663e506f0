// Package overlay reads overlay protocols, one file each. A protocol is known
// by the content of its first bytes; ports are hints and said to be such.
package overlay

import "squall/dissect"

// All is every protocol that is built in, in the order in which they are asked:
// the first that is sure wins, so those with the strongest marks come first.
func All() []dissect.Protocol {
	return []dissect.Protocol{
		sip{},
		gnutella{},
		bittorrent{},
		tracker{},
		dht{},
		utp{},
		bitcoin{},
		mqtt{},
		nats{},
		ikev2{},
		openvpn{},
		radius{},
		diameter{},
		discv4{},
		libp2p{},
		tailscale{},
		derp{},
		n2n{},
		zerotier{},
		tinc{},
		tor{},
		skype{}, // mostly guesses, so they come after what is known

		// The carriers and what is on every network come last: overlays speak inside them.
		dns{},
		http{},
		quic{},
		tls{},
	}
}
