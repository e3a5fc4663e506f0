package samples

import (
	"fmt"
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
	done  func(outcome string, announced time.Duration)
	loser bool

	seq, nseq uint32 // next byte of each side (TCP)
	over      bool   // the client has given up, or knows
	shook     bool   // the node has seen the SYN
	up        bool   // the client has seen the SYN-ACK
	txn       string
	frame     []byte // last request (UDP)
}

func (a *dial) tcp() bool { return a.w.sc.Protocol == "tcp" || a.w.sc.Protocol == "gnutella" }

func (a *dial) truth() *TrueAttempt { return &a.w.truth.Attempts[a.i] }

// lost decides whether the path loses a packet.
func (a *dial) lost() bool { return a.w.sc.PathLoss > 0 && a.w.rng.Float64() < a.w.sc.PathLoss }

func (a *dial) ts() uint32 { return a.c.ts0 + uint32(a.w.now/1e6) }

func (a *dial) fromClient(flags byte, payload []byte) {
	a.w.packet(a.w.f.tcp(a.src, a.n.addr, flags, a.seq, a.nseq, a.ts(), payload), false)
	a.seq += uint32(len(payload))
	if flags&(syn|fin) != 0 {
		a.seq++
	}
}

func (a *dial) fromNode(flags byte, payload []byte) {
	if !a.tcp() {
		return
	}
	a.w.packet(a.w.f.tcp(a.n.addr, a.src, flags, a.nseq, a.seq, a.ts()^0x55555555|1, payload), true)
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
	timeout := int64(w.sc.Policy.Timeout)
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
	full := a.n.request(w, func(int64) { a.answer() })
	if !full {
		return
	}
	switch w.sc.Overload {
	case "refuse", "reset":
		w.after(1e6, func() {
			a.fromNode(rst|ack, nil)
			w.after(a.c.rtt/2, func() { a.end("dropped", 0) })
		})
	case "throttle":
		w.after(1e6, func() {
			a.fromNode(psh|ack, a.busy())
			a.fromNode(fin|ack, nil)
			w.after(a.c.rtt/2, func() {
				if !a.over {
					a.fromClient(fin|ack, nil)
				}
				a.end("throttled", w.sc.RetryAfter)
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
		if a.w.sc.Protocol == "gnutella" {
			a.fromClient(psh|ack, []byte("GNUTELLA/0.6 200 OK\r\n\r\n"))
		} else {
			a.fromClient(ack, nil)
		}
		a.end("accepted", 0)
	})
}

// bye ends a session from the client's side.
func (a *dial) bye() {
	if !a.tcp() {
		return
	}
	a.fromClient(fin|ack, nil)
	if a.n.state != "up" {
		return
	}
	a.w.after(100e3, func() { a.fromNode(fin|ack, nil) })
	a.w.after(a.c.rtt, func() { a.fromClient(ack, nil) })
}

func (a *dial) hello() []byte {
	if a.w.sc.Protocol == "gnutella" {
		return fmt.Appendf(nil, "GNUTELLA CONNECT/0.6\r\nUser-Agent: %s\r\nX-Ultrapeer: False\r\nListen-IP: %v\r\n\r\n", a.version(), a.src)
	}
	return fmt.Appendf(nil, "ATTACH %08x\r\n", a.c.n)
}

func (a *dial) version() string {
	if a.c.version == "" {
		return "Squall/1.0"
	}
	return a.c.version
}

func (a *dial) welcome() []byte {
	if a.w.sc.Protocol == "gnutella" {
		return []byte("GNUTELLA/0.6 200 OK\r\nUser-Agent: Squall/1.0\r\nX-Ultrapeer: True\r\n\r\n")
	}
	return []byte("WELCOME\r\n")
}

func (a *dial) busy() []byte {
	if a.w.sc.Protocol == "gnutella" {
		return []byte("GNUTELLA/0.6 503 Busy\r\nUser-Agent: Squall/1.0\r\nX-Ultrapeer: True\r\n\r\n")
	}
	return []byte("BUSY\r\n")
}

// startUDP sends a request and, for SIP, its repeats of timer E.
func (a *dial) startUDP() {
	w := a.w
	a.txn = fmt.Sprintf("%08x%08x", w.rng.Uint32(), w.rng.Uint32())
	a.leg(false)
	w.after(int64(w.sc.Policy.Timeout), func() { a.end("timeout", 0) })
}

// leg is one request with its repeats; the second leg carries credentials.
func (a *dial) leg(credentials bool) {
	w := a.w
	body := []byte("ATTACH " + a.txn + "\r\n")
	if w.sc.Protocol == "sip" {
		body = a.register(credentials)
	}
	answered := false
	served := false
	send := func() {
		if !credentials || !answered {
			a.truth().Sends++
		}
		a.frame = w.f.udp(a.src, a.n.addr, body)
		w.packet(a.frame, false)
		switch a.n.state {
		case "down":
			return
		case "closed":
			w.packet(w.f.unreachable(a.n.addr.Addr(), 3, a.frame), true)
			w.after(a.c.rtt, func() { a.end("refused", 0) })
			return
		}
		if served {
			return
		}
		served = true
		if w.sc.Challenge && !credentials {
			w.after(300e3, func() {
				w.packet(w.f.udp(a.n.addr, a.src, a.reply(401, "Unauthorized", credentials)), true)
				w.after(a.c.rtt, func() {
					if !a.over {
						answered = true
						a.leg(true)
					}
				})
			})
			return
		}
		full := a.n.request(w, func(int64) {
			w.packet(w.f.udp(a.n.addr, a.src, a.reply(200, "OK", credentials)), true)
			if a.over {
				a.truth().Late = true
				return
			}
			w.after(a.c.rtt/2, func() {
				if a.over {
					a.truth().Late = true
				}
				answered = true
				a.end("accepted", 0)
			})
		})
		if full && w.sc.Overload == "throttle" {
			w.after(300e3, func() {
				w.packet(w.f.udp(a.n.addr, a.src, a.reply(503, "Service Unavailable", credentials)), true)
				w.after(a.c.rtt/2, func() { answered = true; a.end("throttled", w.sc.RetryAfter) })
			})
		}
	}
	send()
	if w.sc.Protocol != "sip" {
		return
	}
	// Timer E: 0.5 s, doubled, at most 4 s (RFC 3261 section 17.1.2.2).
	at, gap := int64(0), int64(500e6)
	for at+gap < int64(w.sc.Policy.Timeout) {
		at += gap
		gap = min(2*gap, 4e9)
		w.after(at, func() {
			if !a.over && !answered {
				send()
			}
		})
	}
}

// expires is the lifetime of a registration, seconds.
func (a *dial) expires() int {
	if a.w.sc.Hold > 0 {
		return int(a.w.sc.Hold.Seconds())
	}
	return 3600
}

func (a *dial) register(credentials bool) []byte {
	cseq, auth := 1, ""
	if credentials {
		cseq, auth = 2, fmt.Sprintf("Authorization: Digest username=\"u%d\", realm=\"example.org\", nonce=\"n\", uri=\"sip:example.org\", response=\"%032x\"\r\n", a.c.n, a.c.n)
	}
	return fmt.Appendf(nil, "REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP %v;branch=z9hG4bK%s%d;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:u%d@example.org>;tag=%s\r\nTo: <sip:u%d@example.org>\r\nCall-ID: %s@example.org\r\nCSeq: %d REGISTER\r\n"+
		"Contact: <sip:u%d@%v>\r\nExpires: %d\r\nUser-Agent: %s\r\n%sContent-Length: 0\r\n\r\n",
		a.src, a.txn, cseq, a.c.n, a.txn[:8], a.c.n, a.txn, cseq, a.c.n, a.src, a.expires(), a.version(), auth)
}

func (a *dial) reply(code int, reason string, credentials bool) []byte {
	if a.w.sc.Protocol != "sip" {
		if code == 503 {
			return []byte("BUSY " + a.txn + "\r\n")
		}
		return []byte("WELCOME " + a.txn + "\r\n")
	}
	cseq, extra := 1, ""
	if credentials {
		cseq = 2
	}
	switch code {
	case 401:
		extra = "WWW-Authenticate: Digest realm=\"example.org\", nonce=\"n\"\r\n"
	case 503:
		extra = fmt.Sprintf("Retry-After: %d\r\n", int(a.w.sc.RetryAfter.Seconds()))
	case 200:
		extra = fmt.Sprintf("Contact: <sip:u%d@%v>;expires=%d\r\n", a.c.n, a.src, a.expires())
	}
	return fmt.Appendf(nil, "SIP/2.0 %d %s\r\nVia: SIP/2.0/UDP %v;branch=z9hG4bK%s%d;rport\r\nFrom: <sip:u%d@example.org>;tag=%s\r\n"+
		"To: <sip:u%d@example.org>;tag=r\r\nCall-ID: %s@example.org\r\nCSeq: %d REGISTER\r\n%sContent-Length: 0\r\n\r\n",
		code, reason, a.src, a.txn, cseq, a.c.n, a.txn[:8], a.c.n, a.txn, cseq, extra)
}
