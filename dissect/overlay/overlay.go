// Package overlay reads overlay protocols, one file each. A protocol is known
// by the content of its first bytes; ports are hints and said to be such.
package overlay

import (
	"embed"
	"io/fs"
	"slices"
	"sync"

	"squall/dissect"
)

// All is every protocol that is built in, in the order in which they are asked:
// the first that is sure wins, so those with the strongest marks come first.
func All() []dissect.Protocol {
	strong := []dissect.Protocol{
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
		coap{},
		diameter{},
		discv4{},
		libp2p{},
		wireguard{},
		tailscale{},
		derp{},
		nebula{},
		n2n{},
		stun{},
		zerotier{},
		tinc{},
		tor{},
		syncthing{},
	}
	weak := []dissect.Protocol{
		skype{}, // mostly guesses, so they come after what is known

		// The carriers and what is on every network come last: overlays speak inside them.
		dns{},
		http{},
		quic{},
		gquic{},
		tls{},
	}
	return slices.Concat(strong, builtin(), weak)
}

//go:embed signatures/*.yaml
var signatures embed.FS

// builtin are the protocols that a signature file describes well enough, by the
// names of their files.
var builtin = sync.OnceValue(func() (all []dissect.Protocol) {
	names, err := fs.Glob(signatures, "signatures/*.yaml")
	for _, name := range names {
		h, oerr := signatures.Open(name)
		if err = oerr; err != nil {
			break
		}
		var list []dissect.Protocol
		_, list, err = LoadHints(h, name)
		if h.Close(); err != nil {
			break
		}
		all = append(all, list...)
	}
	if err != nil {
		panic(err) // they are part of the program: a test reads them all
	}
	return all
})

// highBytes are those with the top bit set.
var highBytes = fitting(0x80, 0x80)
