package samples

import (
	"net/netip"
	"time"
)

// dial is one attempt on the wire. Times in it are those of the tap, which
// stands next to the nodes; the client is half a round trip away.
type dial struct {
	w     *world
	c     *simClient
	n     *simNode
	i     int // in the truth
	src   netip.AddrPort
	dst   netip.AddrPort // of the node; Skype's ladder has several
	rung  int            // of that ladder
	done  func(outcome string, announced time.Duration)
	loser bool

	seq, nseq uint32 // next byte of each side (TCP)
	over      bool   // the client has given up, or knows
	shook     bool   // the node has seen the SYN
	up        bool   // the client has seen the SYN-ACK
	txn       string
	frame     []byte // last request (UDP)
	deaf      string // the outcome that the node made known to a client that does not listen
}

func (a *dial) tcp() bool {
	switch a.w.sc.Protocol {
	case "tcp", "gnutella":
		return true
	case "skype":
		return a.rung != rungUDP
	}
	return false
}

func (a *dial) truth() *TrueAttempt { return &a.w.truth.Attempts[a.i] }

// lost decides whether the path loses a packet.
func (a *dial) lost() bool { return a.w.sc.PathLoss > 0 && a.w.rng.Float64() < a.w.sc.PathLoss }

func (a *dial) ts() uint32 { return a.c.ts0 + uint32(a.w.now/1e6) }

func (a *dial) fromClient(flags byte, payload []byte) {
	a.w.packet(a.w.f.tcp(a.src, a.dst, flags, a.seq, a.nseq, a.ts(), payload), false)
	a.seq += uint32(len(payload))
	if flags&(syn|fin) != 0 {
		a.seq++
	}
}

func (a *dial) fromNode(flags byte, payload []byte) {
	if !a.tcp() {
		return
	}
	a.w.packet(a.w.f.tcp(a.dst, a.src, flags, a.nseq, a.seq, a.ts()^0x55555555|1, payload), true)
	a.nseq += uint32(len(payload))
	if flags&(syn|fin) != 0 {
		a.nseq++
	}
}

// end tells the client's logic once.
func (a *dial) end(outcome string, announced time.Duration) {
	if a.over {
		return
	}
	a.over = true
	a.done(outcome, announced)
}

func (a *dial) start() {
	a.truth().Start = time.Duration(a.w.now)
	if a.tcp() {
		a.startTCP()
	} else {
		a.startUDP()
	}
}

func (a *dial) startTCP() {
	w := a.w
	a.seq, a.nseq = w.rng.Uint32(), w.rng.Uint32()
	isn := a.seq
	timeout := int64(w.policy(a.c).Timeout)
	for k, at := 0, int64(0); at < timeout && k < 6; k, at = k+1, at+1e9<<k {
		w.after(at, func() {
			if a.over || a.up {
				return
			}
			if k > 0 && a.lost() { // the first one is counted as it is sent
				return
			}
			a.truth().Sends++
			a.seq = isn
			a.fromClient(syn, nil)
			a.synArrived()
		})
	}
	w.after(timeout, func() {
		if a.over {
			return
		}
		if a.shook {
			a.fromClient(fin|ack, nil)
			a.end("stalled", 0)
			return
		}
		a.end("timeout", 0)
	})
}

func (a *dial) synArrived() {
	w := a.w
	if a.n.shut {
		return
	}
	switch a.n.state {
	case "down":
		return
	case "closed":
		nseq := a.nseq
		a.nseq = 0
		a.fromNode(rst|ack, nil)
		a.nseq = nseq
		w.after(a.c.rtt, func() { a.end("refused", 0) })
		return
	}
	again := a.shook
	a.shook = true
	w.after(50e3, func() {
		if again {
			a.nseq--
		}
		a.fromNode(syn|ack, nil)
		if !a.lost() { // else the client repeats its SYN
			w.after(a.c.rtt, a.connected)
		}
	})
}

func (a *dial) connected() {
	w := a.w
	if a.over || a.up {
		return
	}
	a.up = true
	a.fromClient(ack, nil)
	if a.loser {
		w.after(30e6, func() {
			a.fromClient(fin|ack, nil)
			a.end("stalled", 0)
			w.after(100e3, func() { a.fromNode(fin|ack, nil) })
			w.after(a.c.rtt, func() { a.fromClient(ack, nil) })
		})
		return
	}
	a.fromClient(psh|ack, a.hello())
	if a.n.state != "up" {
		return
	}
	if w.sc.Protocol == "skype" { // two more messages before the one that counts
		w.after(1e6, func() {
			a.fromNode(psh|ack, a.skypeSecond())
			w.after(a.c.rtt, func() {
				if a.over {
					return
				}
				a.fromClient(psh|ack, a.random(25))
				a.ask()
			})
		})
		return
	}
	a.ask()
}

// ask puts the client's wish before the node.
func (a *dial) ask() {
	w := a.w
	if a.n.state != "up" {
		return
	}
	overload := w.sc.Overload
	if !a.n.admits(w) {
		overload = "throttle"
	} else if full := a.n.request(w, func(int64) { a.answer() }); !full {
		return
	}
	switch overload {
	case "refuse", "reset":
		w.after(1e6, func() {
			a.fromNode(rst|ack, nil)
			w.after(a.c.rtt/2, func() { a.end("dropped", 0) })
		})
	case "throttle":
		outcome := "throttled"
		if w.sc.Protocol == "skype" {
			outcome = "refused" // its no has no word for "later"
		}
		w.after(1e6, func() {
			a.fromNode(psh|ack, a.busy())
			a.fromNode(fin|ack, nil)
			w.after(a.c.rtt/2, func() {
				if !a.over {
					a.fromClient(fin|ack, nil)
				}
				a.end(outcome, w.sc.RetryAfter)
			})
		})
	}
}

// answer is the node's yes, late or not.
func (a *dial) answer() {
	a.fromNode(psh|ack, a.welcome())
	if a.over {
		a.truth().Late = true
		a.w.after(a.c.rtt, func() { a.fromClient(rst, nil) })
		return
	}
	a.w.after(a.c.rtt/2, func() {
		if a.over {
			a.truth().Late = true
			return
		}
		if thanks := a.thanks(); thanks != nil {
			a.fromClient(psh|ack, thanks)
		} else {
			a.fromClient(ack, nil)
		}
		a.end("accepted", 0)
	})
}

// bye ends a session from the client's side.
func (a *dial) bye() {
	if !a.tcp() {
		if a.w.sc.Protocol == "n2n" {
			a.w.packet(a.w.f.udp(a.src, a.dst, a.unregister()), false)
		}
		return
	}
	a.fromClient(fin|ack, nil)
	if a.n.state != "up" {
		return
	}
	a.w.after(100e3, func() { a.fromNode(fin|ack, nil) })
	a.w.after(a.c.rtt, func() { a.fromClient(ack, nil) })
}
