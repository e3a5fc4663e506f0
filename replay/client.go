package replay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"squall/dissect"
)

// actor is one client. Its fields are guarded by mu; the goroutine that has
// set busy works for it alone.
type actor struct {
	id      int32
	addr    netip.Addr // its own, invalid: the system's choice
	mu      sync.Mutex
	busy    bool
	session *session
	last    int32 // target
	tries   int   // since the back-off was reset
	tokens  float64
	draws   uint64 // random numbers drawn
	dials   int    // conversations over the shared sockets
}

// session is what an accepted attempt leads to.
type session struct {
	c     net.Conn
	end   chan struct{} // closed: the client gives it up
	once  sync.Once
	quiet bool // given up without a word
}

func (s *session) giveUp(quietly bool) {
	s.once.Do(func() {
		s.quiet = quietly
		close(s.end)
	})
}

// draw is the client's next random number in [0,1): the same in every run of
// the seed, whatever the other clients do.
func (x *running) draw(a *actor) float64 {
	a.draws++
	return float64(mix(x.Seed, 5, uint64(a.id), a.draws)>>11) / (1 << 53)
}

// item begins what the plan has for a client.
func (x *running) item(it *Item, due time.Duration) {
	a := &x.clients[it.Client]
	node := x.first[it.Node]
	if x.Plan.Mode == AttemptMode.String() {
		x.wg.Add(1)
		go func() {
			defer x.wg.Done()
			t := x.newTry(a, node, it.Group, 1, dissect.RelationFirst, due)
			t.intent = t.number
			if s := t.run(); s != nil { // open loop: what a session becomes is of no interest
				s.c.Close()
				x.untrack(s.c, a.id)
				t.result.SessionEnd, t.result.SessionEnded = x.then(x.now()), dissect.SessionByClient
				x.emit(&t.result)
			}
		}()
		return
	}
	a.mu.Lock()
	if it.Restart && a.session != nil {
		a.session.giveUp(true)
		a.session = nil
	}
	if a.busy || a.session != nil {
		a.mu.Unlock()
		x.skipped.Add(1)
		return
	}
	a.busy = true
	a.mu.Unlock()
	relation := dissect.RelationFirst
	if it.Restart {
		relation = dissect.RelationReattach
	}
	x.wg.Add(1)
	go func() {
		defer x.wg.Done()
		x.intent(a, node, it.Group, it.Hold, relation, due)
	}()
}

// intent is one wish: attempts until one is accepted or the policy ends it.
// The client is busy meanwhile.
func (x *running) intent(a *actor, node, group int32, hold time.Duration, relation dissect.Relation, due time.Duration) {
	p := &x.Plan.Groups[group].Policy
	if !p.ResetOnConnect {
		a.tries = 0
	}
	a.tokens = min(a.tokens+p.Budget, budgetMost)
	since := due
	if p.Budget > 0 {
		since -= time.Duration(x.draw(a) * float64(x.real(budgetFloor)))
	}
	var free int64
	var prev time.Duration
	intent := x.number.Load()
	for k := int32(1); ; {
		t := x.newTry(a, node, group, k, relation, due)
		if k == 1 {
			intent = t.number
		}
		t.intent = intent
		a.tries++
		s := t.run()
		if s != nil {
			a.tries = 0
			x.hold(a, s, t, hold)
			return
		}
		if x.ctx.Err() != nil {
			break
		}
		if t.result.Outcome == dissect.OutcomeDropped && p.ResetOnConnect {
			a.tries = 0
		}
		// The next attempt, as soon as the policy and the budget allow one.
		from, announced := t.over, time.Duration(t.result.RetryAfter)
		again := false
		for !again {
			if !p.Retries(int(k)) {
				break
			}
			prev = p.Wait(max(a.tries, 1), prev, announced, x.draw(a))
			due = from + max(x.real(prev), time.Millisecond)
			if !x.wait(due) {
				break
			}
			k++
			from, announced, again = due, 0, true
			if p.Budget > 0 {
				switch earned := int64((due - since) / x.real(budgetFloor)); {
				case a.tokens >= 1:
					a.tokens--
				case free < earned:
					free = earned
				default: // skipped
					a.tries++
					again = false
				}
			}
		}
		if !again {
			break
		}
		next := x.peers[node][p.Order.Next(int(x.place[node]), len(x.peers[node]), x.draw(a))]
		relation = dissect.RelationRetry
		if next != node {
			relation = dissect.RelationFailover
		}
		node = next
		x.retries.Add(1)
	}
	a.mu.Lock()
	a.busy, a.last = false, node
	a.mu.Unlock()
}

// hold keeps a session until its time is over, the client gives it up, the
// node ends it, or the run is over. A session that the node ended is wished
// for again.
func (x *running) hold(a *actor, s *session, t *try, length time.Duration) {
	a.mu.Lock()
	a.busy, a.session, a.last = false, s, t.target
	a.mu.Unlock()
	x.sessions.Add(1)
	ended := x.sit(a, s, t, length)
	x.sessions.Add(-1)
	x.untrack(s.c, a.id)
	r := &t.result
	r.SessionEnded = ended
	if ended != dissect.SessionAlive {
		r.SessionEnd = x.then(x.now())
	}
	switch ended {
	case dissect.SessionLost:
		reset(s.c)
	default:
		s.c.Close()
	}
	x.emit(r)
	a.mu.Lock()
	mine := a.session == s
	if mine {
		a.session = nil
	}
	lost := ended == dissect.SessionByNode || ended == dissect.SessionLost
	again := mine && lost && !a.busy && x.ctx.Err() == nil && x.Plan.Mode != AttemptMode.String()
	if again {
		a.busy = true
	}
	a.mu.Unlock()
	if !again {
		return
	}
	x.lost.Add(1)
	spread := x.Reattach
	if spread == 0 {
		spread = reattachDefault
	}
	due := x.now() + time.Duration(x.draw(a)*float64(x.real(spread)))
	if !x.wait(due) {
		return
	}
	p := &x.Plan.Groups[t.group].Policy
	node := x.peers[t.target][p.Order.Next(int(x.place[t.target]), len(x.peers[t.target]), x.draw(a))]
	x.intent(a, node, t.group, length, dissect.RelationReattach, due)
}

// sit waits for the end of a session.
func (x *running) sit(a *actor, s *session, t *try, length time.Duration) dissect.SessionEnd {
	var over <-chan time.Time
	if length > 0 {
		timer := time.NewTimer(x.real(length))
		defer timer.Stop()
		over = timer.C
	}
	beat := x.Keepalive
	if beat == 0 {
		beat = keepaliveDefault
	}
	tcp := x.targets[t.target].dialect.Transport() == dissect.TCP
	if !tcp {
		beat = x.Plan.Groups[t.group].Refresh
	}
	var pulse <-chan time.Time
	if beat > 0 {
		ticker := time.NewTicker(max(x.real(beat), time.Millisecond))
		defer ticker.Stop()
		pulse = ticker.C
	}
	patience := x.real(x.Plan.Groups[t.group].Policy.Patience())
	heard := make(chan error, 1)
	alive := make(chan struct{}, 1)
	if tcp {
		s.c.SetReadDeadline(time.Time{})
		if x.ctx.Err() != nil {
			s.c.SetDeadline(time.Unix(1, 0))
		}
		x.wg.Add(1)
		go func() {
			defer x.wg.Done()
			buf := make([]byte, 512)
			for {
				if _, err := s.c.Read(buf); err != nil {
					heard <- err
					return
				}
				select {
				case alive <- struct{}{}:
				default:
				}
			}
		}()
	}
	var silence <-chan time.Time
	for {
		select {
		case <-x.ctx.Done():
			return dissect.SessionAlive
		case <-over:
			return dissect.SessionByClient
		case <-s.end:
			if s.quiet {
				return dissect.SessionExpired
			}
			return dissect.SessionByClient
		case err := <-heard:
			if errors.Is(err, os.ErrDeadlineExceeded) || x.ctx.Err() != nil {
				return dissect.SessionAlive
			}
			return dissect.SessionByNode
		case <-alive:
			silence = nil
		case <-silence:
			return dissect.SessionLost
		case <-pulse:
			if tcp {
				if _, err := s.c.Write([]byte("ping\r\n")); err != nil {
					return dissect.SessionByNode
				}
				x.bytes.Add(6)
				if silence == nil {
					silence = time.After(patience)
				}
				continue
			}
			if !x.refresh(a, s, t) {
				return dissect.SessionLost
			}
		}
	}
}

// refresh renews a session over its own socket; false: it is lost.
func (x *running) refresh(a *actor, s *session, old *try) bool {
	t := x.newTry(a, old.target, old.group, 1, dissect.RelationRefresh, x.now())
	t.intent = t.number
	t.who.Refresh = true
	t.conn = s.c
	ok := t.run() != nil
	if ok {
		x.emit(&t.result)
	}
	return ok || x.ctx.Err() != nil
}

// reset closes a connection with RST where it is one.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// try is one attempt.
type try struct {
	x      *running
	a      *actor
	target int32
	group  int32
	number uint64
	intent uint64
	who    Identity
	conn   net.Conn // of the session, for a refresh; otherwise made here
	due    time.Duration
	sent   time.Duration
	over   time.Duration // when the client knew
	result Result
}

func (x *running) newTry(a *actor, target, group, k int32, relation dissect.Relation, due time.Duration) *try {
	n := x.number.Add(1)
	t := &try{x: x, a: a, target: target, group: group, number: n, due: due}
	to, g := &x.targets[target], &x.Plan.Groups[group]
	version := g.Name
	if version == "all" {
		version = ""
	}
	t.who = Identity{Client: int64(a.id), Version: version, Attempt: n, Seed: x.Seed, Remote: to.at}
	if len(x.Logins) > 0 {
		t.who.Login = x.Logins[int(a.id)%len(x.Logins)]
	}
	protocol := to.node.Protocol
	if protocol == "tcp" || protocol == "udp" {
		protocol = ""
	}
	role, _ := dissect.ParseRole(to.node.Role)
	proto := uint8(dissect.ProtoTCP)
	if to.dialect.Transport() == dissect.UDP {
		proto = dissect.ProtoUDP
	}
	t.result = Result{Attempt: dissect.Attempt{ID: mix(x.Seed, 6, n), Destination: dissect.Endpoint{Addr: dissect.AddrFrom(to.at.Addr()), Port: to.at.Port()},
		Proto: proto, Protocol: protocol, Service: g.Service, Role: role, RoleSource: dissect.RoleSourceUser, ClientVersion: version,
		ClientID: clientName(a), ClientIDLevel: dissect.IDProtocol, Relation: relation, Number: k, HandshakeRTT: -1, RetryGap: -1}, Due: int64(due)}
	return t
}

func clientName(a *actor) string {
	var b [12]byte
	i := len(b)
	for n := a.id; ; n /= 10 {
		i--
		b[i] = byte('0' + n%10)
		if n < 10 {
			break
		}
	}
	return "replay:" + string(b[i:])
}

// run makes the attempt. The session it led to, or nil; then the result has
// been handed out, or will be once the late answer has been waited for.
func (t *try) run() *session {
	x := t.x
	if !x.may() {
		x.unsent.Add(1)
		t.over = x.now()
		t.result.Sent = int64(t.over)
		t.result.Error = "not sent: rate cap"
		t.finish(dissect.OutcomeUnknown, dissect.EvidenceEdge)
		x.emit(&t.result)
		return nil
	}
	to := &x.targets[t.target]
	if err := x.Guard.Check(to.at.Addr()); err != nil {
		x.stop(err)
		return nil
	}
	x.inFlight.Add(1)
	defer x.inFlight.Add(-1)
	t.sent = x.now()
	x.sent.Add(1)
	x.histMu.Lock()
	x.lateness.RecordValue(min(max(int64((t.sent-t.due)/time.Microsecond), 0), int64(time.Hour/time.Microsecond)))
	x.histMu.Unlock()
	t.result.Sent = int64(t.sent)
	t.result.Start = x.then(t.sent)
	t.result.Transmissions = 1
	deadline := t.sent + x.real(x.Plan.Groups[t.group].Policy.Patience())
	c := t.conn
	if c == nil {
		var err error
		if c, err = t.dial(to, x.epoch.Add(deadline)); err != nil {
			t.failed(err, false)
			x.emit(&t.result)
			return nil
		}
		x.track(c, t.a.id)
	}
	if shared, ok := c.(*muxConn); ok {
		t.who.Local = shared.local()
	} else {
		t.who.Local, _ = netip.ParseAddrPort(c.LocalAddr().String())
	}
	t.result.Source = dissect.Endpoint{Addr: dissect.AddrFrom(t.who.Local.Addr()), Port: t.who.Local.Port()}
	if to.dialect.Transport() == dissect.TCP {
		t.result.HandshakeRTT = int64(float64(x.now()-t.sent) * x.speed)
		t.result.Answer = dissect.AnswerSynAck
	}
	out, ev, err := t.exchange(c, to.dialect, deadline)
	if out == dissect.OutcomeAccepted {
		t.result.Answered = int64(t.over)
		t.finish(out, ev)
		x.histMu.Lock()
		x.accept.RecordValue(min(max(int64((t.over-t.due)/time.Microsecond), 0), int64(time.Hour/time.Microsecond)))
		x.histMu.Unlock()
		return &session{c: c, end: make(chan struct{})}
	}
	if err != nil {
		t.failed(err, true)
	} else {
		t.finish(out, ev)
	}
	gaveUp := t.result.Outcome == dissect.OutcomeTimeout || t.result.Outcome == dissect.OutcomeStalled
	if t.conn != nil || !gaveUp || x.ctx.Err() != nil {
		if t.conn == nil {
			x.untrack(c, t.a.id)
			c.Close()
		}
		x.emit(&t.result)
		return nil
	}
	// The client has turned away; squall still listens.
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
	x.wg.Add(1)
	go func() {
		defer x.wg.Done()
		t.linger(c, to.dialect)
		x.untrack(c, t.a.id)
		reset(c)
		x.emit(&t.result)
	}()
	return nil
}

func (t *try) dial(to *target, deadline time.Time) (net.Conn, error) {
	d := net.Dialer{Deadline: deadline, KeepAlive: -1, Control: socketOptions}
	if to.dialect.Transport() == dissect.UDP {
		if t.x.mux != nil {
			t.a.dials++
			return t.x.mux.dial(t.a.dials, t.a.addr, to.at), nil
		}
		if t.a.addr.IsValid() {
			d.LocalAddr = &net.UDPAddr{IP: t.a.addr.AsSlice()}
		}
		return d.DialContext(t.x.ctx, "udp", to.at.String())
	}
	if t.a.addr.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: t.a.addr.AsSlice()}
	}
	return d.DialContext(t.x.ctx, "tcp", to.at.String())
}

// scratch are the buffers of exchanges: on the stacks of many goroutines they
// would make each of them grow.
const scratchRoom = 4096

var scratch = sync.Pool{New: func() any { return new([scratchRoom]byte) }}

// exchange sends the request and reads until the node has said its word, or
// the client's patience is over.
func (t *try) exchange(c net.Conn, d Dialect, deadline time.Duration) (dissect.Outcome, dissect.Evidence, error) {
	x := t.x
	room := scratch.Get().(*[scratchRoom]byte)
	defer scratch.Put(room)
	request := d.Request(room[:0:scratchRoom/2], &t.who)
	begun := x.now()
	if err := t.send(c, request); err != nil {
		return 0, 0, err
	}
	buf := room[scratchRoom/2 : scratchRoom/2]
	udp := d.Transport() == dissect.UDP
	for k := 1; ; {
		until := deadline
		if udp {
			if r := d.Repeat(k); r > 0 {
				until = min(until, begun+x.real(r))
			}
		}
		c.SetReadDeadline(x.epoch.Add(until))
		if x.ctx.Err() != nil {
			c.SetReadDeadline(time.Unix(1, 0))
		}
		if udp {
			buf = buf[:0]
		} else if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.Read(buf[len(buf):cap(buf)])
		t.result.DestinationBytes += int64(n)
		if n > 0 {
			t.result.DestinationPackets++
		}
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) || x.ctx.Err() != nil {
				return 0, 0, err
			}
			if x.now() < deadline { // time for a repeat
				k++
				t.result.Transmissions++
				if err := t.send(c, request); err != nil {
					return 0, 0, err
				}
				continue
			}
			t.over = x.now()
			if udp {
				return dissect.OutcomeTimeout, dissect.EvidenceSilence, nil
			}
			return dissect.OutcomeStalled, dissect.EvidenceSilence, nil
		}
		buf = buf[:len(buf)+n]
		for len(buf) > 0 {
			r := d.Read(&t.who, buf)
			if r.N == 0 {
				if len(buf) > headMost {
					t.over = x.now()
					return dissect.OutcomeRefused, dissect.EvidenceApp, nil
				}
				break
			}
			t.over = x.now()
			if udp && t.result.Answer == dissect.AnswerNone {
				t.result.Answer = dissect.AnswerReply
			}
			if len(r.Next) > 0 {
				if err := t.send(c, r.Next); err != nil && r.Kind != dissect.KindAccept {
					return 0, 0, err
				}
				if r.Kind == dissect.KindChallenge { // the next leg is what is repeated now
					request, begun, k = r.Next, t.over, 1
				}
			}
			t.result.RetryAfter = int64(r.RetryAfter)
			switch r.Kind {
			case dissect.KindAccept:
				return dissect.OutcomeAccepted, dissect.EvidenceApp, nil
			case dissect.KindRefuse:
				return dissect.OutcomeRefused, dissect.EvidenceApp, nil
			case dissect.KindThrottle, dissect.KindRedirect:
				return dissect.OutcomeThrottled, dissect.EvidenceApp, nil
			}
			buf = buf[:copy(buf, buf[r.N:])]
		}
	}
}

func (t *try) send(c net.Conn, b []byte) error {
	n, err := c.Write(b)
	t.x.bytes.Add(int64(n))
	t.result.SourceBytes += int64(n)
	t.result.SourcePackets++
	return err
}

// linger waits for an answer that comes too late.
func (t *try) linger(c net.Conn, d Dialect) {
	x := t.x
	c.SetReadDeadline(x.epoch.Add(x.now() + x.real(lateFor)))
	if x.ctx.Err() != nil {
		return
	}
	buf := make([]byte, 2048)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if r := d.Read(&t.who, buf[:n]); r.N > 0 && r.Kind != dissect.KindProgress {
			t.result.Answered = int64(x.now())
			t.result.AnsweredAt = x.then(x.now())
			t.result.Late = true
			x.late.Add(1)
			return
		}
	}
}

// failed makes an outcome of what the socket said.
func (t *try) failed(err error, connected bool) {
	x := t.x
	t.over = x.now()
	t.result.Error = err.Error()
	var timeout net.Error
	switch {
	case x.ctx.Err() != nil || errors.Is(err, context.Canceled):
		t.finish(dissect.OutcomeUnknown, dissect.EvidenceEdge)
	case errors.Is(err, syscall.ECONNREFUSED):
		t.result.Answer = dissect.AnswerRST
		ev := dissect.EvidenceRST
		if x.targets[t.target].dialect.Transport() == dissect.UDP {
			t.result.Answer, ev = dissect.AnswerICMP, dissect.EvidenceICMP
		}
		t.finish(dissect.OutcomeRefused, ev)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		t.finish(dissect.OutcomeDropped, dissect.EvidenceRST)
	case errors.Is(err, io.EOF):
		t.finish(dissect.OutcomeDropped, dissect.EvidenceFIN)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES):
		t.result.Answer = dissect.AnswerICMP
		t.finish(dissect.OutcomeUnreachable, dissect.EvidenceICMP)
	case errors.As(err, &timeout) && timeout.Timeout():
		t.finish(dissect.OutcomeTimeout, dissect.EvidenceSilence)
	default:
		x.local.Add(1)
		t.finish(dissect.OutcomeUnknown, dissect.EvidenceEdge)
	}
	if connected && t.result.Outcome == dissect.OutcomeTimeout && t.result.Answer == dissect.AnswerSynAck {
		t.result.Outcome = dissect.OutcomeStalled
	}
}

// finish writes the outcome into the row.
func (t *try) finish(out dissect.Outcome, ev dissect.Evidence) {
	r := &t.result
	if r.Start == 0 {
		r.Start = t.x.then(t.over)
	}
	r.Outcome, r.Evidence, r.End = out, ev, t.x.then(max(t.over, t.sent))
	r.IntentID = mix(t.x.Seed, 7, t.intent)
	if r.Answered != 0 {
		r.AnsweredAt = t.x.then(time.Duration(r.Answered))
	}
	t.x.outcomes[out].Add(1)
}
