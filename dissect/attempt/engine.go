package attempt

import "squall/dissect"

// The waits of attempt-rules.md and of design.md section 1, in nanoseconds.
const (
	second      = int64(1e9)
	synWait     = 10 * second  // rule 1: at least, after the last SYN
	answerWait  = 10 * second  // rule 30: requests without a better rule
	quietAccept = 5 * second   // rule 8
	dropWithin  = 5 * second   // rule 6
	stallAfter  = 30 * second  // rule 8b
	lateWithin  = 60 * second  // rule 30
	udpQuiet    = 60 * second  // rule 23
	reorderHold = 1 * second   // rule 14
	sessionIdle = 900 * second // a silent connection is forgotten, not ended
	// refusedLinger is how long a refused attempt collects what still comes:
	// Windows repeats a SYN half a second after its RST, up to three times. It
	// is short because a storm of refusals is mostly such attempts.
	refusedLinger = 3 * second
	exchangeIdle  = 300 * second // UDP flows of a known protocol
)

const (
	// defaultMaxFlows bounds the memory of an engine to some 200 MB.
	defaultMaxFlows = 1 << 18
	// maxTxns is how many exchanges of one flow are told apart at a time.
	maxTxns = 32
	// evictSample is how many flows are looked at to find one that may go.
	evictSample = 64
	orphanSlots = 1 << 10
	wheelSlots  = 1 << 9
	wheelShift  = 30 // a slot is 2^30 ns, about a second
	// clockBack is how far time may go back before the clock counts as set anew,
	// and clockCredit bounds the flows and slots that following it may visit.
	clockBack   = 2 * second
	clockCredit = 1 << 20
	none        = int32(-1)
	unknown     = int16(-1)
	never       = int64(1<<63 - 1)
)

// Config of an engine.
type Config struct {
	// Protocols are asked in this order; the first Yes wins, else the first Maybe.
	Protocols []dissect.Protocol
	// KeepDuplicates treats frames that a tap saw twice as packets of their own.
	KeepDuplicates bool
	// CopyWithin is how long after its first sighting a packet may be seen at
	// another capture point; 0 = there is one point. See duplicates.
	CopyWithin int64
	// Taps gives the tap of each input, where there are several, so that the loss
	// of each is measured; nil = there is one.
	Taps []uint8
	// MaxFlows bounds the flows held at a time; 0 = 262144. Over it idle flows
	// are emitted early, undecided ones as unknown.
	MaxFlows int
}

type state uint8

const (
	stateOpen state = iota // waiting for an answer
	stateConn              // TCP: connected, the yes is not there
	stateDone              // decided; late answers and bytes are still counted
)

// txn is one attempt under way.
type txn struct {
	rec          Record
	chain        uint64
	deadline     int64 // of stateOpen
	connected    int64 // when the SYN-ACK came
	doneAt       int64
	gap          int64 // between the last two SYNs
	lastSend     int64
	timeout      int64
	isn, peerISN uint32
	synLen       uint32
	next         int32 // older exchange of the flow
	seen         uint16
	letters      uint8
	state        state
	clientData   bool
	proven       bool // the client acknowledged the SYN-ACK
	clientA      bool // the client is side A of the flow's key
	silent       bool // decided by a wait, so that answers are late
	used         bool // bytes followed the decision
	asked        bool // the node wants another leg before it decides
	vouched      bool // the newest leg carries credentials
	unheard      bool // an ICMP error was the last that answered it
}

type flow struct {
	key          flowKey
	hash         uint32
	due, last    int64
	shown        uint64 // first bytes that the protocols saw, by their upper six bits
	head         int32  // newest exchange
	stream       int32
	wnext, wprev int32
	slot         int32 // of the wheel, none = not in it
	proto        int16 // index of Config.Protocols, or unknown
	probes       uint8
	holds        bool // the protocol holds a part of a message
	txns         uint8
	used         bool
	openerA      bool
	over         bool // FIN or RST
	heard        [2]heard
	mem          dissect.Flow // scratch of the protocols
}

type flowKey struct {
	a, b  dissect.Endpoint
	net   uint64 // of overlay networks with address spaces of their own
	proto uint8
}

// makeKey orders the endpoints. VXLAN and GENEVE networks may use the same
// addresses for different hosts (rule 20); VLANs and other tunnels do not
// split a flow.
func makeKey(src, dst dissect.Endpoint, proto uint8, d *dissect.Datagram) flowKey {
	k := flowKey{a: src, b: dst, proto: proto}
	if dst.Compare(src) < 0 {
		k.a, k.b = dst, src
	}
	if d.Tunnel == dissect.TunnelVXLAN || d.Tunnel == dissect.TunnelGENEVE {
		k.net = uint64(d.Tunnel)<<32 | uint64(d.TunnelID)
	}
	return k
}

// Engine is the first pass for one shard: datagrams in, records out. It is for
// one goroutine. It holds open attempts and live flows, bounded by MaxFlows.
type Engine struct {
	cfg    Config `frozen:"-"`
	names  *Names
	emit   func(*Record)
	cache  [numKinds]map[string]Name
	protos []Name
	tcp    *asker `frozen:"-"`
	udp    *asker `frozen:"-"`

	index      flowIndex
	flows      slab[flow]
	txns       slab[txn]
	streams    []*stream
	freeStr    []int32
	streamHand int
	held       map[int32][]byte // parts of messages, by flow
	heldBytes  int
	hand       int32
	hash       uint32

	wheel   [wheelSlots]int32
	tick    int64
	now     int64
	started bool
	backs   int // visits that clocks set back may have caused

	dups       duplicates
	loss       lossMeter
	taps       *tapMeters // nil = one
	orphans    [orphanSlots]orphan
	older      map[flowKey]*older
	msg        dissect.Message   `frozen:"-"`
	view       dissect.Datagram  `frozen:"-"`
	packet     *dissect.Datagram `frozen:"-"` // that is being taken, nil = time goes on
	ledgers    map[uint32]*dissect.Ledger
	ledger     *dissect.Ledger
	ledgerFile uint32
	stats      Stats
}

// NewEngine makes an engine; emit gets each record when its flow is over, the
// pointer is valid during the call.
func NewEngine(cfg Config, names *Names, emit func(*Record)) *Engine {
	return NewEngines(1, cfg, names, func(_ int, r *Record) { emit(r) })[0]
}

// NewEngines makes n engines, each for flows of its own; emit gets the number of
// the engine too.
func NewEngines(n int, cfg Config, names *Names, emit func(engine int, r *Record)) []*Engine {
	tcp, udp := newAsker(cfg.Protocols, dissect.TCP), newAsker(cfg.Protocols, dissect.UDP)
	engines := make([]*Engine, n)
	for i := range engines {
		engines[i] = newEngine(cfg, names, tcp, udp, func(r *Record) { emit(i, r) })
	}
	return engines
}

func newEngine(cfg Config, names *Names, tcp, udp *asker, emit func(*Record)) *Engine {
	if cfg.MaxFlows <= 0 {
		cfg.MaxFlows = defaultMaxFlows
	}
	e := &Engine{cfg: cfg, names: names, emit: emit, tcp: tcp, udp: udp,
		dups: newDuplicates(cfg.CopyWithin), taps: newTapMeters(cfg.Taps), index: newFlowIndex(), older: map[flowKey]*older{}, ledgers: map[uint32]*dissect.Ledger{}}
	for i := range e.wheel {
		e.wheel[i] = none
	}
	for _, p := range cfg.Protocols {
		e.protos = append(e.protos, names.Intern([]byte(p.Name())))
	}
	return e
}

// Datagram takes the next packet and counts it in one bucket of its file's
// ledger. Packets come in time order; a clock that steps back is tolerated.
func (e *Engine) Datagram(d *dissect.Datagram) {
	e.advance(d.Time)
	e.packet = d
	e.count(d.File, e.datagram(d))
	e.packet = nil
}

func (e *Engine) datagram(d *dissect.Datagram) dissect.Bucket {
	switch d.Class {
	case dissect.ClassTCP, dissect.ClassUDP, dissect.ClassICMPError:
	case dissect.ClassFragment:
		return dissect.BucketFragment
	case dissect.ClassUndecodable:
		return dissect.BucketUndecodable
	case dissect.ClassMalformed:
		return dissect.BucketMalformed
	case dissect.ClassCut:
		return dissect.BucketCut
	default:
		return dissect.BucketOther
	}
	sight := e.dups.seen(d)
	if e.taps != nil && d.Class == dissect.ClassTCP && sight != again {
		e.taps.segment(d)
	}
	switch sight {
	case again:
		e.stats.Duplicates++
		if !e.cfg.KeepDuplicates {
			return dissect.BucketDuplicate
		}
	case elsewhere:
		e.stats.Copies++
		if !e.cfg.KeepDuplicates {
			return dissect.BucketCopy
		}
	}
	switch d.Class {
	case dissect.ClassTCP:
		return e.tcpSegment(d)
	case dissect.ClassUDP:
		return e.udpDatagram(d)
	}
	return e.icmp(d)
}

// Finish decides and emits all that is open. end is the time of the last
// packet of the whole capture: what had not waited long enough by then is
// unknown, for the capture cannot tell.
func (e *Engine) Finish(end int64) {
	e.advance(end)
	for i := range e.flows.n {
		if e.flows.at(i).used {
			e.release(i, max(end, e.now))
		}
	}
	e.olderRecords(e.emit)
}

// advance moves the clock and serves the flows whose time has come. A long
// silence costs one turn of the wheel.
func (e *Engine) advance(t int64) {
	if !e.started {
		e.started, e.now, e.tick = true, t, t>>wheelShift
		return
	}
	if t <= e.now {
		if t < e.now-clockBack {
			e.setBack(t)
		}
		return
	}
	e.now = t
	to := t >> wheelShift
	if to == e.tick {
		return
	}
	from := max(e.tick, to-wheelSlots)
	e.tick = to
	for ; from < to; from++ {
		slot := from & (wheelSlots - 1)
		fi := e.wheel[slot]
		e.wheel[slot] = none
		for fi != none {
			next := e.flows.at(fi).wnext
			e.flows.at(fi).slot = none
			e.serve(fi)
			fi = next
		}
	}
}

// setBack follows a clock that was set back, or a file that others were appended
// to: with the later time kept, all that comes would be overdue at once. The
// flows stay where they are in the wheel, which looks at each once a turn.
func (e *Engine) setBack(t int64) {
	turn := wheelSlots + e.index.n
	if e.backs+turn > clockCredit {
		return // it goes to and fro
	}
	e.backs += turn
	e.now, e.tick = t, t>>wheelShift
}

// serve expires what is due in a flow, and the flow itself. The flow is not in
// the wheel when it is called.
func (e *Engine) serve(fi int32) {
	f := e.flows.at(fi)
	if f.due > e.now {
		e.schedule(fi)
		return
	}
	prev := none
	for ti := f.head; ti != none; {
		t := e.txns.at(ti)
		next := t.next
		e.expire(f, t, e.now)
		// The newest stays to count the session; older ones leave when no
		// late answer can come any more.
		if prev != none && t.state == stateDone && t.doneAt+lateWithin <= e.now {
			e.txns.at(prev).next = next
			e.send(ti)
			f.txns--
		} else {
			prev = ti
		}
		ti = next
	}
	if e.idle(f) <= e.now {
		e.release(fi, e.now)
		return
	}
	e.schedule(fi)
}

// waitsUntil is when an undecided exchange is decided by silence.
func (e *Engine) waitsUntil(f *flow, t *txn) int64 {
	if t.state == stateOpen {
		return t.deadline
	}
	if f.proto == unknown && t.proven && !t.clientData {
		return max(f.last, t.connected) + quietAccept
	}
	return max(t.connected, t.lastSend) + stallAfter
}

// expire decides what silence decides by the time now.
func (e *Engine) expire(f *flow, t *txn, now int64) {
	if t.state == stateDone {
		return
	}
	at := e.waitsUntil(f, t)
	if at > now {
		return
	}
	switch {
	case t.state == stateOpen && t.rec.Answer == dissect.AnswerReply: // to a leg of it, or that it is being seen to
		e.decide(t, dissect.OutcomeStalled, dissect.EvidenceSilence, at)
	case t.state == stateOpen:
		e.decide(t, dissect.OutcomeTimeout, dissect.EvidenceSilence, at)
	case t.rec.Flags&FlagOneSided != 0:
		e.decide(t, dissect.OutcomeUnknown, dissect.EvidenceEdge, at)
	case f.proto == unknown && t.proven && !t.clientData:
		e.decide(t, dissect.OutcomeAccepted, dissect.EvidenceHandshake, at)
		return
	default:
		e.decide(t, dissect.OutcomeStalled, dissect.EvidenceSilence, at)
	}
	t.silent = true
}

// idle is when a flow with nothing undecided is forgotten.
func (e *Engine) idle(f *flow) int64 {
	at := f.last
	live := false
	for ti := f.head; ti != none; ti = e.txns.at(ti).next {
		t := e.txns.at(ti)
		if t.state != stateDone {
			return never
		}
		at = max(at, t.doneAt)
		live = live || t.rec.Outcome == dissect.OutcomeAccepted || t.rec.Evidence == dissect.EvidenceApp // a no may leave it open
	}
	switch {
	case f.key.proto == dissect.ProtoUDP && f.proto == unknown:
		return f.last + udpQuiet + 1
	case f.key.proto == dissect.ProtoUDP:
		return at + exchangeIdle
	case live && !f.over:
		return at + sessionIdle
	}
	for ti := f.head; ti != none; ti = e.txns.at(ti).next {
		t := e.txns.at(ti)
		if t.rec.Outcome != dissect.OutcomeRefused || t.rec.Evidence != dissect.EvidenceRST || t.lastSend >= f.last {
			return at + lateWithin + 1 // also where a repeat got no RST: it is followed by others
		}
	}
	return at + refusedLinger
}

// schedule puts a flow into the wheel for the next thing that silence decides.
// A call that comes too early costs little, so a later time leaves it in place.
func (e *Engine) schedule(fi int32) {
	f := e.flows.at(fi)
	due := e.idle(f)
	for ti := f.head; ti != none; ti = e.txns.at(ti).next {
		t := e.txns.at(ti)
		if t.state != stateDone {
			due = min(due, e.waitsUntil(f, t))
		} else if ti != f.head {
			due = min(due, t.doneAt+lateWithin)
		}
	}
	if f.slot != none && due >= f.due {
		return
	}
	e.unlink(fi)
	f.due = due
	tick := min(max(due>>wheelShift, e.tick), e.tick+wheelSlots-1)
	f.slot = int32(tick & (wheelSlots - 1))
	f.wprev, f.wnext = none, e.wheel[f.slot]
	if f.wnext != none {
		e.flows.at(f.wnext).wprev = fi
	}
	e.wheel[f.slot] = fi
}

func (e *Engine) unlink(fi int32) {
	f := e.flows.at(fi)
	if f.slot == none {
		return
	}
	if f.wprev != none {
		e.flows.at(f.wprev).wnext = f.wnext
	} else {
		e.wheel[f.slot] = f.wnext
	}
	if f.wnext != none {
		e.flows.at(f.wnext).wprev = f.wprev
	}
	f.slot = none
}

// lookup finds a flow and brings it up to the engine's time. It leaves the
// hash of the key for newFlow.
func (e *Engine) lookup(k *flowKey) int32 {
	e.hash = e.index.hash(k)
	fi := e.index.find(k, e.hash, &e.flows)
	if fi == none {
		return none
	}
	if f := e.flows.at(fi); f.due <= e.now {
		e.unlink(fi)
		e.serve(fi)
		if !f.used {
			return none
		}
	}
	return fi
}

// newFlow follows a lookup of the same key.
func (e *Engine) newFlow(k *flowKey, d *dissect.Datagram) int32 {
	if e.index.n >= e.cfg.MaxFlows {
		e.evict()
	}
	fi := e.flows.take()
	*e.flows.at(fi) = flow{key: *k, hash: e.hash, last: d.Time, due: never, head: none, stream: none, slot: none, wnext: none, wprev: none,
		proto: unknown, used: true, openerA: k.a == d.Source()}
	e.index.add(e.hash, fi)
	return fi
}

// evict gives up a flow: the next of which nothing but a late answer can come, and
// where none is near the idlest of those that were looked at.
func (e *Engine) evict() {
	best, over := none, false
	for n := 0; !over && (n < evictSample || best == none); n++ {
		e.hand = (e.hand + 1) % e.flows.n
		if f := e.flows.at(e.hand); f.used {
			if over = e.settled(f); over || best == none || f.last < e.flows.at(best).last {
				best = e.hand
			}
		}
	}
	e.stats.Evicted++
	if over {
		e.stats.Settled++
	}
	e.release(best, e.now)
}

// settled reports a flow of which every attempt has failed, by what is known by now.
func (e *Engine) settled(f *flow) bool {
	for ti := f.head; ti != none; ti = e.txns.at(ti).next {
		t := e.txns.at(ti)
		if e.expire(f, t, e.now); t.state != stateDone || !t.rec.Outcome.Failed() || t.rec.Evidence == dissect.EvidenceApp {
			return false
		}
	}
	return f.head != none
}

// release emits all exchanges of a flow and forgets it.
func (e *Engine) release(fi int32, now int64) {
	f := e.flows.at(fi)
	for ti := f.head; ti != none; {
		t := e.txns.at(ti)
		next := t.next
		e.expire(f, t, now)
		e.leaveOpen(t, now)
		e.send(ti)
		ti = next
	}
	if f.holds {
		e.hold(fi, nil)
	}
	e.unlink(fi)
	e.dropStream(f)
	e.index.remove(f.hash, fi)
	f.used, f.head, f.txns = false, none, 0
	e.flows.put(fi)
}

// leaveOpen ends an exchange that nothing has decided.
func (e *Engine) leaveOpen(t *txn, now int64) {
	if t.state != stateDone {
		t.rec.Flags |= FlagEdge
		e.decide(t, dissect.OutcomeUnknown, dissect.EvidenceEdge, max(now, t.rec.LastSeen))
	}
}

func (e *Engine) send(ti int32) {
	e.stats.Records++
	r := &e.txns.at(ti).rec
	if r.Outcome != dissect.OutcomeAccepted || r.LastHeard-max(r.End, r.AnsweredAt) < dropWithin {
		r.LastHeard = 0 // the answer itself, which is on record
	}
	if r.Outcome != dissect.OutcomeAccepted {
		r.LostBytes = 0 // as all that it sent
	}
	e.emit(r)
	e.txns.put(ti)
}

// newTxn opens an exchange whose first transmission is d.
func (e *Engine) newTxn(fi int32, d *dissect.Datagram, clientA bool, id uint64) int32 {
	f := e.flows.at(fi)
	if f.txns >= maxTxns {
		e.dropOldest(f)
	}
	ti := e.txns.take()
	t := e.txns.at(ti)
	*t = txn{next: f.head, clientA: clientA, lastSend: d.Time, timeout: answerWait, deadline: d.Time + answerWait}
	f.head = ti
	f.txns++
	r := &t.rec
	r.Start, r.End, r.LastSeen = d.Time, d.Time, d.Time
	r.Source, r.Destination = f.key.a, f.key.b
	if !clientA {
		r.Source, r.Destination = f.key.b, f.key.a
	}
	r.HandshakeRTT, r.Txn = -1, id
	r.Digest = dissect.FoldBytes(dissect.Fold(uint64(d.Proto), uint64(d.Seq)), d.Payload[:min(len(d.Payload), dissect.PayloadEnd)])
	r.FirstFrame, r.LastFrame, r.FirstOffset, r.File = d.Frame, d.Frame, d.Offset, d.File
	r.Proto, r.VLAN, r.Tunnel, r.TunnelID = f.key.proto, d.VLAN, d.Tunnel, d.TunnelID
	r.Transmissions = 1
	if d.HasTS {
		r.TSBase = d.Time - int64(d.TSVal)*1e6 // 1 kHz, what nearly all stacks use
	}
	if f.proto != unknown {
		r.Protocol = e.protos[f.proto]
	}
	if t.next != none { // a later request on a connection that a balancer opened
		if before := &e.txns.at(t.next).rec; before.Behind != (dissect.Addr{}) {
			r.Behind, r.TSBase = before.Behind, 0
		}
	}
	return ti
}

func (e *Engine) dropOldest(f *flow) {
	prev, ti := none, f.head
	for e.txns.at(ti).next != none {
		prev, ti = ti, e.txns.at(ti).next
	}
	t := e.txns.at(ti)
	e.expire(f, t, e.now)
	e.leaveOpen(t, e.now)
	e.send(ti)
	f.txns--
	if prev == none {
		f.head = none
	} else {
		e.txns.at(prev).next = none
	}
}

// note adds a packet to the newest exchange of its flow.
func (e *Engine) note(f *flow, d *dissect.Datagram, fromA bool) {
	f.last = max(f.last, d.Time)
	if f.head == none {
		return
	}
	t := e.txns.at(f.head)
	r := &t.rec
	if fromA == t.clientA {
		r.SourcePackets++
		r.SourceBytes += int64(d.IPLen)
		if d.Proto == dissect.ProtoTCP {
			r.LostBytes += int64(d.IPLen)
		}
	} else {
		r.DestinationPackets++
		r.DestinationBytes += int64(d.IPLen)
		if d.Flags&dissect.RST == 0 {
			r.LastHeard = d.Time
			r.LostBytes = 0
		}
		if t.unheard {
			t.unheard = false
			if r.HeardAgain == 0 && d.File == r.File {
				r.HeardAgain, r.AgainFrame = d.Time, d.Frame
			}
		}
	}
	t.used = t.used || t.state == stateDone && d.PayloadLen > 0 && d.Time > t.doneAt
	r.LastSeen = max(r.LastSeen, d.Time)
	if d.File == r.File {
		r.LastFrame = d.Frame
	}
}

func (e *Engine) decide(t *txn, o dissect.Outcome, ev dissect.Evidence, at int64) {
	t.state = stateDone
	t.rec.Outcome, t.rec.Evidence = o, ev
	t.rec.End = max(at, t.rec.Start)
	t.doneAt = t.rec.End
	e.over(t, at)
}

// over notes the packet of that time that decided an attempt, or ended its session.
func (e *Engine) over(t *txn, at int64) {
	t.rec.OverFrame = 0
	if d := e.packet; d != nil && d.Time == at && d.File == t.rec.File {
		t.rec.OverFrame = d.Frame
	}
}

// sessionOver ends the session of an attempt.
func (e *Engine) sessionOver(t *txn, at int64, by dissect.SessionEnd) {
	t.rec.SessionEnd, t.rec.SessionEnded = at, by
	e.over(t, at)
}

func (e *Engine) late(t *txn) {
	t.rec.Flags |= FlagLate
	e.stats.LateAnswers++
}

// intern goes through the engine's own cache.
func (e *Engine) intern(k kind, b []byte) Name {
	if len(b) > maxNameLen {
		b = b[:maxNameLen]
	}
	if len(b) == 0 {
		return 0
	}
	c := e.cache[k]
	if n, ok := c[string(b)]; ok {
		return n
	}
	n := e.names.intern(k, b)
	if c == nil || len(c) >= cachedNames {
		c = map[string]Name{}
		e.cache[k] = c
	}
	c[string(b)] = n
	return n
}

// cachedNames is how many names of a kind an engine has at hand.
const cachedNames = 1 << 12

func (e *Engine) internString(s string) Name {
	if n, ok := e.cache[word][s]; ok {
		return n
	}
	return e.intern(word, []byte(s))
}

// each visits everything that is under way.
func (e *Engine) each(visit func(*flow, *txn)) {
	for i := range e.flows.n {
		if f := e.flows.at(i); f.used {
			for ti := f.head; ti != none; ti = e.txns.at(ti).next {
				visit(f, e.txns.at(ti))
			}
		}
	}
}

// peek gives what is under way as if it ended now, and leaves it as it is. What
// has had no answer for patience counts as timed out.
func (e *Engine) peek(now, patience int64, visit func(*Record)) {
	e.each(func(f *flow, t *txn) {
		seen := *t
		e.expire(f, &seen, now)
		if seen.state == stateOpen && now-seen.rec.Start >= patience {
			e.decide(&seen, dissect.OutcomeTimeout, dissect.EvidenceSilence, seen.rec.Start+patience)
		}
		e.leaveOpen(&seen, now)
		visit(&seen.rec)
	})
	e.olderRecords(visit)
}

// renamed goes over to other names; those of records are changed already.
func (e *Engine) renamed(names *Names) {
	e.names = names
	e.cache = [numKinds]map[string]Name{}
	for i, p := range e.cfg.Protocols {
		e.protos[i] = names.Intern([]byte(p.Name()))
	}
}
