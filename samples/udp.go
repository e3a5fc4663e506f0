package samples

import "fmt"

// startUDP sends a request and, for SIP, its repeats of timer E.
func (a *dial) startUDP() {
	w := a.w
	a.txn = fmt.Sprintf("%08x%08x", w.rng.Uint32(), w.rng.Uint32())
	a.leg(false)
	w.after(int64(w.policy(a.c).Timeout), func() {
		if a.deaf != "" {
			a.end(a.deaf, 0)
			return
		}
		a.end("timeout", 0)
	})
}

// refused is a no that a client of n2n only writes into its log: it asks again
// when it would have asked anyway.
func (a *dial) refused() {
	if a.w.sc.Protocol == "n2n" {
		a.deaf = "refused"
		return
	}
	a.w.after(a.c.rtt, func() { a.end("refused", 0) })
}

// leg is one request with its repeats; the second leg carries credentials.
func (a *dial) leg(credentials bool) {
	w := a.w
	body := a.question(credentials)
	answered := false
	served := false
	var again func() // repeats the node's yes, where the path may have lost it
	say := func(code int) { w.packet(w.f.udp(a.dst, a.src, a.reply(code, credentials)), true) }
	send := func() {
		if a.truth().Sends > 0 && a.lost() { // the first one is counted as it is sent
			return
		}
		if !credentials || !answered {
			a.truth().Sends++
		}
		a.frame = w.f.udp(a.src, a.dst, body)
		w.packet(a.frame, false)
		if a.n.shut && a.truth().Relation != "refresh" {
			return
		}
		switch a.n.state {
		case "down":
			return
		case "closed":
			w.packet(w.f.unreachable(a.n.addr.Addr(), 3, a.frame), true)
			a.refused()
			return
		}
		if served {
			if again != nil && w.sc.PathLoss > 0 {
				again()
			}
			return
		}
		served = true
		if w.sc.Challenge && !credentials && w.sc.Protocol == "sip" {
			w.after(300e3, func() {
				say(401)
				w.after(a.c.rtt, func() {
					if !a.over {
						answered = true
						a.leg(true)
					}
				})
			})
			return
		}
		var yes func(int64)
		yes = func(now int64) {
			say(200)
			again = func() { yes(now) }
			if a.over {
				a.truth().Late = true
				return
			}
			if a.lost() {
				return
			}
			w.after(a.c.rtt/2, func() {
				if a.over {
					a.truth().Late = true
				}
				answered = true
				a.end("accepted", 0)
			})
		}
		if w.sc.Protocol == "skype" { // a probe costs a supernode nothing
			w.after(500e3, func() {
				if len(a.n.queue) < w.sc.Queue {
					yes(w.now)
					return
				}
				say(503)
				a.refused()
			})
			return
		}
		if full := a.n.request(w, yes); !full {
			return
		}
		switch w.sc.Overload {
		case "throttle":
			w.after(300e3, func() {
				say(503)
				w.after(a.c.rtt/2, func() { answered = true; a.end("throttled", w.sc.RetryAfter) })
			})
		case "refuse":
			if w.sc.Protocol == "n2n" {
				w.after(300e3, func() {
					say(503)
					a.refused()
				})
			}
		}
	}
	send()
	if w.sc.Protocol != "sip" {
		return
	}
	// Timer E: 0.5 s, doubled, at most 4 s (RFC 3261 section 17.1.2.2).
	at, gap := int64(0), int64(500e6)
	for at+gap < int64(w.policy(a.c).Timeout) {
		at += gap
		gap = min(2*gap, 4e9)
		w.after(at, func() {
			if !a.over && !answered {
				send()
			}
		})
	}
}

// question is the client's datagram.
func (a *dial) question(credentials bool) []byte {
	switch a.w.sc.Protocol {
	case "sip":
		return a.register(credentials)
	case "n2n":
		return a.registerSuper()
	case "skype":
		return a.probe()
	}
	return []byte("ATTACH " + a.txn + "\r\n")
}

// reply is the node's, by the code that SIP would give it.
func (a *dial) reply(code int, credentials bool) []byte {
	switch a.w.sc.Protocol {
	case "sip":
		return a.sipReply(code, credentials)
	case "n2n":
		return a.superReply(code)
	case "skype":
		return a.probeReply(code)
	}
	if code == 503 {
		return []byte("BUSY " + a.txn + "\r\n")
	}
	return []byte("WELCOME " + a.txn + "\r\n")
}
