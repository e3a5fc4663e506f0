package replay

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"squall/dissect"
	"squall/replay/socket"
)

// actor is one client. Its worker alone touches it.
type actor struct {
	id      int32
	addr    netip.Addr // its own, invalid: the system's choice
	name    string     // client_id, once it has made an attempt
	busy    bool       // there is an intent
	session *try
	live    *try // attempts that have a socket, the newest first
	tries   int  // since the back-off was reset
	tokens  float64
	draws   uint64        // random numbers drawn
	made    uint64        // attempts
	dials   int           // conversations over the shared sockets
	trip    time.Duration // its round trip, with RoundTrips

	// Of the intent, between its attempts.
	timer    timer // of the next attempt
	group    int32
	node     int32 // target of the last attempt
	k        int32 // attempts, skipped ones included
	relation dissect.Relation
	hold     time.Duration
	prev     time.Duration // last wait
	since    time.Duration // for the budget's floor
	free     int64         // free retries taken
	intent   uint64        // number of its first attempt, 0 = there was none yet
}

// draw is the client's next random number in [0,1): the same in every run of
// the seed, whatever the other clients do.
func (x *running) draw(a *actor) float64 {
	a.draws++
	return float64(mix(x.Seed, 5, uint64(a.id), a.draws)>>11) / (1 << 53)
}

// item begins what the plan has for a client.
func (w *worker) item(it *Item, due time.Duration) {
	a := &w.clients[it.Client]
	node := w.first[it.Node]
	if w.open {
		t := w.newTry(a, node, it.Group, 1, dissect.RelationFirst, due)
		t.intent = t.number
		t.start()
		return
	}
	if it.Restart && a.session != nil {
		s := a.session
		a.session = nil
		if s.renewal == nil { // else it is told when the refresh is over
			s.leave(dissect.SessionExpired)
		}
	}
	if a.busy || a.session != nil {
		w.tally.skipped.Add(1)
		return
	}
	relation := dissect.RelationFirst
	if it.Restart {
		relation = dissect.RelationReattach
	}
	w.wish(a, node, it.Group, it.Hold, relation, due)
}

// wish begins an intent: attempts until one is accepted or the policy ends it.
// The client is busy meanwhile.
func (w *worker) wish(a *actor, node, group int32, hold time.Duration, relation dissect.Relation, due time.Duration) {
	p := &w.Plan.Groups[group].Policy
	if !p.ResetOnConnect {
		a.tries = 0
	}
	a.busy = true
	a.tokens = min(a.tokens+p.Budget, budgetMost)
	a.since, a.free, a.prev = due, 0, 0
	if p.Budget > 0 {
		a.since -= time.Duration(w.draw(a) * float64(w.real(budgetFloor)))
	}
	a.node, a.group, a.hold, a.relation, a.k, a.intent = node, group, hold, relation, 1, 0
	w.attempt(a, due)
}

func (w *worker) attempt(a *actor, due time.Duration) {
	t := w.newTry(a, a.node, a.group, a.k, a.relation, due)
	if a.intent == 0 {
		a.intent = t.number
	}
	t.intent = a.intent
	a.tries++
	t.start()
}

// ending reports whether nothing new is to be sent.
func (w *worker) ending() bool { return w.over.Load() || w.closing.Load() }

// plan waits for the next attempt of a client, or ends its intent. from is the
// moment that the wait counts from.
func (w *worker) plan(a *actor, from, announced time.Duration) {
	p := &w.Plan.Groups[a.group].Policy
	if w.ending() || !p.Retries(int(a.k)) {
		a.busy = false
		return
	}
	a.prev = p.Wait(max(a.tries, 1), a.prev, announced, w.draw(a))
	w.set(&a.timer, from+max(w.real(a.prev), time.Millisecond))
}

// again is the next attempt of a client being due: a retry, as far as the
// budget allows one, or the first of an intent whose moment has come.
func (w *worker) again(a *actor) {
	due := a.timer.at
	if w.ending() || w.gone.at(a.id, time.Duration(float64(due)*w.speed)) {
		a.busy = false
		return
	}
	p := &w.Plan.Groups[a.group].Policy
	if a.k == 0 { // a lost session is wished for again
		w.wish(a, w.another(a, p, due), a.group, a.hold, dissect.RelationReattach, due)
		return
	}
	a.k++
	if p.Budget > 0 {
		switch earned := int64((due - a.since) / w.real(budgetFloor)); {
		case a.tokens >= 1:
			a.tokens--
		case a.free < earned:
			a.free = earned
		default: // skipped
			a.tries++
			w.plan(a, due, 0)
			return
		}
	}
	next := w.another(a, p, due)
	a.relation = dissect.RelationRetry
	if next != a.node {
		a.relation = dissect.RelationFailover
	}
	a.node = next
	w.tally.retries.Add(1)
	w.attempt(a, due)
}

// another is the node that a client asks next, of those that it knows by then.
func (w *worker) another(a *actor, p *Policy, due time.Duration) int32 {
	peers := w.peers[a.node]
	known := len(peers)
	for known > 1 && w.real(w.targets[peers[known-1]].joined) > due {
		known--
	}
	return peers[p.Order.Next(int(w.place[a.node]), known, w.draw(a))]
}

// phase of an attempt.
type phase uint8

const (
	connecting phase = iota
	asking           // the request is out
	lingering        // the client has turned away; squall still listens
	holding          // it was accepted and is a session now
)

// try is one attempt, and the session that it leads to. It is used again when
// it is over.
type try struct {
	w       *worker
	a       *actor
	next    *try // of the client's
	phase   phase
	target  int32
	group   int32
	sock    int32 // the shared socket, -1 = one of its own
	fd      int   // its own, -1 = none
	slot    int32
	number  uint64
	intent  uint64
	who     Identity
	due     time.Duration
	sent    time.Duration
	over    time.Duration // when the client knew
	begun   time.Duration // of the present leg
	until   time.Duration // the client's patience
	repeat  int
	request []byte // of the present leg
	in      []byte // of a stream, as far as nobody has made sense of it
	timer   timer
	result  Result

	// Of a session.
	ends    time.Duration // 0 = when it is lost
	pulse   time.Duration // next sign of life or refresh, 0 = none
	pulses  uint64        // signs of life so far
	silence time.Duration // lost when nothing comes until then, 0 = not waiting
	renewal *try          // refresh under way, over the same socket
	of      *try          // the session that this one refreshes
}

func (w *worker) newTry(a *actor, target, group, k int32, relation dissect.Relation, due time.Duration) *try {
	var t *try
	if n := len(w.idle); n > 0 {
		t = w.idle[n-1]
		w.idle = w.idle[:n-1]
		request, in := t.request[:0], t.in[:0]
		*t = try{request: request, in: in}
	} else {
		t = &try{}
	}
	a.made++
	t.w, t.a, t.target, t.group, t.due = w, a, target, group, due
	t.sock, t.fd, t.timer.t = -1, -1, t
	t.number = uint64(a.id+1)<<24 | a.made&(1<<24-1)
	to, g := &w.targets[target], &w.Plan.Groups[group]
	version := g.Name
	if version == "all" {
		version = ""
	}
	if a.name == "" {
		a.name = "replay:" + strconv.Itoa(int(a.id))
	}
	t.who = Identity{Client: int64(a.id), Version: version, Attempt: t.number, Seed: w.Seed, Remote: to.at}
	if len(w.Logins) > 0 {
		t.who.Login = w.Logins[int(a.id)%len(w.Logins)]
	}
	r := &t.result
	r.ID, r.Destination, r.Proto, r.Protocol = mix(w.Seed, 6, t.number), to.endpoint, to.proto, to.protocol
	r.Service, r.Role, r.RoleSource = g.Service, to.role, dissect.RoleSourceUser
	r.ClientVersion, r.ClientID, r.ClientIDLevel = version, a.name, dissect.IDProtocol
	r.Relation, r.Number, r.HandshakeRTT, r.RetryGap = relation, k, -1, -1
	r.Due = int64(due)
	return t
}

// start makes the attempt.
func (t *try) start() {
	w := t.w
	if !w.may() {
		w.tally.unsent.Add(1)
		t.over = w.running.now()
		t.result.Sent = int64(t.over)
		t.result.Error = "not sent: rate cap"
		t.finish(dissect.OutcomeUnknown, dissect.EvidenceEdge)
		if t.of != nil {
			t.renewed(false)
		} else {
			t.goOn()
		}
		return
	}
	to := &w.targets[t.target]
	if err := w.Guard.Check(to.at.Addr()); err != nil {
		w.stop(err)
		if t.of != nil {
			t.of.renewal = nil
		}
		t.free()
		return
	}
	w.tally.inFlight.Add(1)
	w.tally.sent.Add(1)
	t.sent = w.running.now()
	record(w.lateness, t.sent-t.due)
	t.result.Sent = int64(t.sent)
	t.result.Start = w.then(t.sent)
	t.result.Transmissions = 1
	t.until = t.sent + w.real(w.Plan.Groups[t.group].Policy.Patience())
	t.phase = connecting
	udp := to.dialect.Transport() == dissect.UDP
	switch {
	case t.of != nil: // a refresh goes over the session's socket
		t.sock, t.who.Local = t.of.sock, t.of.who.Local
	case udp && len(w.shared) > 0:
		t.a.dials++
		t.sock = int32((t.a.dials + int(t.a.id)/len(w.workers)%sharedAbreast) % len(w.shared))
		t.who.Local = netip.AddrPortFrom(t.a.addr, w.shared[t.sock].Local().Port())
	default:
		fd, local, err := socket.Dial(udp, t.a.addr, to.at)
		if err == nil {
			t.who.Local = local
			if err = w.own(fd, t); err != nil {
				socket.Close(fd)
			}
		}
		if err != nil {
			t.broken(err)
			return
		}
	}
	t.a.live, t.next = t, t.a.live
	t.result.Source = dissect.Endpoint{Addr: dissect.AddrFrom(t.who.Local.Addr()), Port: t.who.Local.Port()}
	t.begun = t.sent
	t.request = to.dialect.Request(t.request[:0], &t.who)
	w.set(&t.timer, t.until)
	if !udp {
		if !w.RoundTrips { // on one machine the connection is there by the time connect is back
			t.connect()
		}
		return
	}
	t.ask()
}

// connect finds out whether the connection is there, by sending the request.
func (t *try) connect() {
	switch n, err := t.write(t.request); {
	case err == syscall.EAGAIN || err == syscall.ENOTCONN:
		return // not yet
	case err != nil:
		t.broken(err)
	default:
		t.sentOut(n)
		t.phase = asking
		t.result.HandshakeRTT = int64(float64(t.w.running.now()-t.sent) * t.w.speed)
		t.result.Answer = dissect.AnswerSynAck
	}
}

// ask sends the request, for the first time or again, and sets the clock for
// the next repeat or for giving up. It reports whether the attempt is still
// there.
func (t *try) ask() bool {
	t.phase = asking
	if !t.send(t.request) {
		return false
	}
	until := t.until
	if to := &t.w.targets[t.target]; to.proto == dissect.ProtoUDP {
		if r := to.dialect.Repeat(t.repeat + 1); r > 0 {
			until = min(until, t.begun+t.w.real(r))
		}
	}
	t.w.set(&t.timer, until)
	return true
}

// carrier is who has the socket.
func (t *try) carrier() *try {
	if t.of != nil {
		return t.of
	}
	return t
}

func (t *try) write(b []byte) (int, error) {
	c := t.carrier()
	if c.sock >= 0 {
		u := t.w.shared[c.sock]
		u.Send(b, t.a.addr, t.w.targets[t.target].at)
		if u.Waiting() >= sharedBatch { // what waits longer was sent later than its row says
			u.Flush(t.w.unsent)
		}
		return len(b), nil
	}
	return socket.Write(c.fd, b)
}

func (t *try) sentOut(n int) {
	t.w.tally.bytes.Add(int64(n))
	t.result.SourceBytes += int64(n)
	t.result.SourcePackets++
}

// send reports whether the attempt is still there.
func (t *try) send(b []byte) bool {
	n, err := t.write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	t.sentOut(n)
	if err != nil {
		t.broken(err)
		return false
	}
	return true
}

// fire is the attempt's timer.
func (t *try) fire() {
	w := t.w
	switch t.phase {
	case connecting:
		t.broken(os.ErrDeadlineExceeded)
	case asking:
		if w.now < t.until { // time for a repeat
			t.repeat++
			t.result.Transmissions++
			t.ask()
			return
		}
		out := dissect.OutcomeStalled
		if w.targets[t.target].proto == dissect.ProtoUDP {
			out = dissect.OutcomeTimeout
		}
		t.decide(out, dissect.EvidenceSilence)
	case lingering:
		t.close(true)
		t.emit()
	case holding:
		t.tend()
	}
}

// ready is something happening to the attempt's own descriptor.
func (t *try) ready(e socket.Event) {
	if t.phase == connecting {
		if err := socket.Pending(t.fd); err != nil {
			t.broken(err)
			return
		}
		if !e.Out {
			return
		}
		if t.connect(); t.fd < 0 || t.phase == connecting {
			return
		}
	}
	if e.In || e.Fail {
		t.read()
	}
}

// read reads what came until nothing is left or the attempt is over.
func (t *try) read() {
	w := t.w
	udp := w.targets[t.target].proto == dissect.ProtoUDP
	fd, slot := t.fd, t.slot
	for w.slots[slot] == t && t.fd == fd {
		n, err := socket.Read(fd, w.room)
		if socket.Again(err) {
			return
		}
		to := t
		if t.renewal != nil {
			to = t.renewal
		}
		switch {
		case err != nil:
			to.broken(err)
		case n == 0 && !udp:
			to.broken(io.EOF)
		default:
			to.heard(w.room[:n])
		}
	}
}

// heard takes what the node sent: a datagram, or the next bytes of a stream.
func (t *try) heard(b []byte) {
	w := t.w
	to := &w.targets[t.target]
	udp := to.proto == dissect.ProtoUDP
	switch t.phase {
	case connecting:
		return
	case holding:
		t.silence = 0
		if !udp {
			t.watch()
		}
		return
	case lingering:
		if r := to.dialect.Read(&t.who, b); r.N > 0 && r.Kind != dissect.KindProgress {
			t.result.Answered = int64(w.now)
			t.result.AnsweredAt = w.then(w.now)
			t.result.Late = true
			w.tally.late.Add(1)
			t.close(true)
			t.emit()
		}
		return
	}
	t.result.DestinationBytes += int64(len(b))
	t.result.DestinationPackets++
	if !udp {
		t.in = append(t.in, b...)
		b = t.in
	}
	for len(b) > 0 {
		r := to.dialect.Read(&t.who, b)
		if r.N == 0 {
			if len(b) > headMost {
				t.decide(dissect.OutcomeRefused, dissect.EvidenceApp)
				return
			}
			break
		}
		if udp && t.result.Answer == dissect.AnswerNone {
			t.result.Answer = dissect.AnswerReply
		}
		t.result.RetryAfter = int64(r.RetryAfter)
		switch {
		case len(r.Next) == 0:
		case r.Kind == dissect.KindChallenge: // the next leg is what is repeated now
			t.request = append(t.request[:0], r.Next...)
			t.begun, t.repeat = w.now, 0
			if !t.ask() {
				return
			}
		case r.Kind == dissect.KindAccept:
			n, _ := t.write(r.Next) // a node that is gone already has said yes
			t.sentOut(n)
		case !t.send(r.Next):
			return
		}
		switch r.Kind {
		case dissect.KindAccept:
			t.decide(dissect.OutcomeAccepted, dissect.EvidenceApp)
			return
		case dissect.KindRefuse:
			t.decide(dissect.OutcomeRefused, dissect.EvidenceApp)
			return
		case dissect.KindThrottle, dissect.KindRedirect:
			t.decide(dissect.OutcomeThrottled, dissect.EvidenceApp)
			return
		}
		b = b[r.N:]
	}
	if !udp {
		t.in = append(t.in[:0], b...)
	}
}

// broken makes an outcome of what the socket said.
func (t *try) broken(err error) {
	w := t.w
	switch t.phase {
	case lingering:
		t.close(true)
		t.emit()
		return
	case holding:
		if w.targets[t.target].proto == dissect.ProtoTCP {
			t.leave(dissect.SessionByNode)
		}
		return
	}
	t.result.Error = err.Error()
	out, ev := dissect.OutcomeUnknown, dissect.EvidenceEdge
	switch {
	case w.over.Load():
	case errors.Is(err, syscall.ECONNREFUSED):
		t.result.Answer = dissect.AnswerRST
		out, ev = dissect.OutcomeRefused, dissect.EvidenceRST
		if w.targets[t.target].proto == dissect.ProtoUDP {
			t.result.Answer, ev = dissect.AnswerICMP, dissect.EvidenceICMP
		}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		out, ev = dissect.OutcomeDropped, dissect.EvidenceRST
		if t.phase == connecting { // of a connection that was there, else it is refused
			t.result.Answer = dissect.AnswerSynAck
		}
	case errors.Is(err, io.EOF):
		out, ev = dissect.OutcomeDropped, dissect.EvidenceFIN
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES):
		t.result.Answer = dissect.AnswerICMP
		out, ev = dissect.OutcomeUnreachable, dissect.EvidenceICMP
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		out, ev = dissect.OutcomeTimeout, dissect.EvidenceSilence
		if t.result.Answer == dissect.AnswerSynAck {
			out = dissect.OutcomeStalled
		}
	default:
		w.tally.local.Add(1)
	}
	t.decide(out, ev)
}

// decide ends the attempt for its client.
func (t *try) decide(out dissect.Outcome, ev dissect.Evidence) {
	w := t.w
	t.over = w.running.now()
	w.unset(&t.timer)
	w.tally.inFlight.Add(-1)
	if out == dissect.OutcomeAccepted {
		t.result.Answered = int64(t.over)
		record(w.accept, t.over-t.due)
	}
	t.finish(out, ev)
	if t.of != nil {
		t.renewed(out == dissect.OutcomeAccepted)
		return
	}
	if out == dissect.OutcomeAccepted {
		t.accepted()
		return
	}
	t.goOn()
}

// goOn is what a client does after an attempt that was not accepted; the
// attempt itself may still be listened to.
func (t *try) goOn() {
	w, a := t.w, t.a
	r := &t.result
	open := t.phase == asking && (r.Outcome == dissect.OutcomeTimeout || r.Outcome == dissect.OutcomeStalled)
	over, announced, out := t.over, time.Duration(r.RetryAfter), r.Outcome
	if open && !w.over.Load() {
		t.phase = lingering
		t.in = t.in[:0]
		if t.fd >= 0 && w.targets[t.target].proto == dissect.ProtoTCP {
			socket.CloseWrite(t.fd)
		}
		w.set(&t.timer, w.now+w.real(lateFor))
	} else {
		t.close(false)
		t.emit()
	}
	if w.open {
		return
	}
	if out == dissect.OutcomeDropped && w.Plan.Groups[a.group].Policy.ResetOnConnect {
		a.tries = 0
	}
	w.plan(a, over, announced)
}

// accepted makes a session of an attempt.
func (t *try) accepted() {
	w, a := t.w, t.a
	t.phase = holding
	if w.open { // open loop: what a session becomes is of no interest
		t.result.SessionEnd, t.result.SessionEnded = w.then(t.over), dissect.SessionByClient
		t.close(false)
		t.emit()
		return
	}
	a.tries, a.busy, a.session = 0, false, t
	w.tally.sessions.Add(1)
	if a.hold > 0 {
		t.ends = t.over + w.real(a.hold)
	}
	// The first sign of life comes at a phase of its own.
	if t.pulse = t.nextPulse(t.over); t.pulse > 0 && w.targets[t.target].proto == dissect.ProtoTCP {
		t.pulse -= time.Duration(w.draw(a) * float64(t.pulse-t.over))
	}
	t.watch()
}

// nextPulse is when a session shows life (TCP) or is refreshed (UDP), 0 = never.
func (t *try) nextPulse(from time.Duration) time.Duration {
	beat := t.w.Plan.Groups[t.group].Refresh
	if to := &t.w.targets[t.target]; to.proto == dissect.ProtoTCP {
		if _, ok := to.dialect.(lively); !ok {
			return 0
		}
		beat = t.w.Keepalive
		for _, known := range [...]time.Duration{t.w.Plan.Groups[t.group].Keepalive, keepaliveDefault} {
			if beat == 0 {
				beat = known
			}
		}
	}
	if beat <= 0 {
		return 0
	}
	return from + max(t.w.real(beat), time.Millisecond)
}

// watch sets the session's timer to whatever comes first.
func (t *try) watch() {
	at := time.Duration(0)
	for _, m := range [...]time.Duration{t.ends, t.pulse, t.silence} {
		if m > 0 && (at == 0 || m < at) {
			at = m
		}
	}
	if at == 0 {
		t.w.unset(&t.timer)
		return
	}
	t.w.set(&t.timer, at)
}

// tend is the session's timer.
func (t *try) tend() {
	w := t.w
	switch {
	case t.ends > 0 && t.ends <= w.now:
		t.leave(dissect.SessionByClient)
		return
	case t.silence > 0 && t.silence <= w.now:
		t.leave(dissect.SessionLost)
		return
	case t.pulse > 0 && t.pulse <= w.now && w.ending():
		t.pulse = 0
	case t.pulse > 0 && t.pulse <= w.now:
		t.pulse = t.nextPulse(t.pulse)
		if w.targets[t.target].proto == dissect.ProtoUDP {
			w.unset(&t.timer)
			r := w.newTry(t.a, t.target, t.group, 1, dissect.RelationRefresh, w.now)
			r.intent, r.of = r.number, t
			r.who.Refresh = true
			t.renewal = r
			r.start()
			return
		}
		t.pulses++
		n, err := t.write(w.targets[t.target].dialect.(lively).Life(w.room[:0], &t.who, t.pulses))
		if err != nil && !socket.Again(err) {
			t.leave(dissect.SessionByNode)
			return
		}
		w.tally.bytes.Add(int64(n))
		if t.silence == 0 {
			t.silence = w.now + w.real(w.Plan.Groups[t.group].Policy.Patience())
		}
	}
	t.watch()
}

// renewed ends a refresh.
func (t *try) renewed(ok bool) {
	s := t.of
	s.renewal = nil
	t.close(false)
	t.emit()
	switch {
	case !ok:
		s.leave(dissect.SessionLost)
	case s.a.session != s: // given up meanwhile
		s.leave(dissect.SessionExpired)
	default:
		s.watch()
	}
}

// leave ends a session. One that the node ended is wished for again.
func (t *try) leave(why dissect.SessionEnd) {
	w, a := t.w, t.a
	w.tally.sessions.Add(-1)
	w.unset(&t.timer)
	mine := a.session == t
	if mine {
		a.session = nil
	}
	t.result.SessionEnded = why
	if why != dissect.SessionAlive {
		t.result.SessionEnd = w.then(w.running.now())
	}
	target, group := t.target, t.group
	t.close(why == dissect.SessionLost)
	t.emit()
	if lost := why == dissect.SessionByNode || why == dissect.SessionLost; !lost || !mine || a.busy || w.ending() {
		return
	}
	w.tally.lost.Add(1)
	spread := w.Reattach
	if spread == 0 {
		spread = reattachDefault
	}
	a.busy, a.k, a.node, a.group = true, 0, target, group
	w.set(&a.timer, w.running.now()+time.Duration(w.draw(a)*float64(w.real(spread))))
}

// abandon ends whatever it is because the run is over.
func (t *try) abandon() {
	w := t.w
	switch t.phase {
	case connecting, asking:
		w.tally.inFlight.Add(-1)
		t.over = w.now
		t.result.Error = "the run was over"
		t.finish(dissect.OutcomeUnknown, dissect.EvidenceEdge)
		if t.of != nil {
			t.of.renewal = nil
		}
	case holding:
		w.tally.sessions.Add(-1)
	}
	t.close(t.phase == lingering)
	t.emit()
}

// close gives the socket back and takes the attempt from the client's list.
func (t *try) close(hard bool) {
	w := t.w
	w.unset(&t.timer)
	for p := &t.a.live; *p != nil; p = &(*p).next {
		if *p == t {
			*p = t.next
			break
		}
	}
	t.next, t.sock = nil, -1
	if t.fd < 0 {
		return
	}
	w.slots[t.slot] = nil
	w.empty = append(w.empty, t.slot)
	if hard && w.targets[t.target].proto == dissect.ProtoTCP {
		socket.Reset(t.fd)
	} else {
		socket.Close(t.fd)
	}
	t.fd = -1
}

// emit hands the result out; the attempt is over for everybody.
func (t *try) emit() {
	t.w.emit(&t.result)
	t.free()
}

func (t *try) free() { t.w.idle = append(t.w.idle, t) }

// finish writes the outcome into the row.
func (t *try) finish(out dissect.Outcome, ev dissect.Evidence) {
	r := &t.result
	if r.Start == 0 {
		r.Start = t.w.then(t.over)
	}
	r.Outcome, r.Evidence, r.End = out, ev, t.w.then(max(t.over, t.sent))
	r.IntentID = mix(t.w.Seed, 7, t.intent)
	if r.Answered != 0 {
		r.AnsweredAt = t.w.then(time.Duration(r.Answered))
	}
	t.w.tally.outcomes[out].Add(1)
}
