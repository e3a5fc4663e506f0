package storm

import (
	"cmp"
	"slices"
	"strings"

	"squall/dissect"
)

const (
	second = int64(1e9)
	// Ceilings of what is kept by item. Over one of them a falling hash
	// threshold decides what stays: the same items in whatever order the parts
	// were read.
	maxSpells   = 1 << 20 // lock-outs of clients
	maxPulses   = 1 << 16 // nodes with a life of their own
	maxEdges    = 1 << 14 // pairs of nodes
	maxMoves    = 1 << 19 // entries of their time lines
	maxGroups   = 128     // client versions of a service
	offenders   = 16      // busiest failing clients of a service
	maxScanned  = 64      // destinations that are told apart for one client
	maxScans    = 64      // scanning clients that are named
	firstNodes  = 3       // where a session of attachedFor shows a client; a scanner meets such a node later, by chance
	attachedFor = 10 * second
	attachStep  = 10 * second
)

// scenes are the evidence for findings, by service: everything that Report
// needs beyond totals and time lines. Like State it is a monoid, fed client by
// client.
type scenes struct {
	whole                 *State // while it reports
	cfg                   *Config
	by                    map[string]*scene
	shift                 uint8              // a bin is 1 s << shift
	rungs                 [len(ladder)]int64 // in bins
	sheets                int
	keep                  hashes // of pulses, spells, edges
	scans                 []scanner
	nats                  int64
	pulses, spells, edges int // kept
	moves                 int // entries of all edges
	moveShift             uint8

	client  dissect.Client
	number  int64 // running, of the client
	hash    uint64
	threads map[string]*thread
	hand    *thread // the one of the last attempt
	fan     fan
	recent  *recent // nil until the first attempt
	touched uint64  // of no meaning
}

// hashes are the thresholds above which items are not kept, of clients by their hash
// and of nodes by their rank.
type hashes struct{ pulses, spells, edges uint64 }

// scene is one service.
type scene struct {
	line    cells
	fails   marks
	accepts marks
	pulses  map[nodeKey]*pulse
	edges   map[edge]*flow
	groups  map[string]*group
	spells  []lockout
	attach  map[attachKey]int32
	top     []offender
	clients int64
	shared  int64 // attempts of addresses that seem to hold several clients,
	tried   int64 // and of all
	scanned int64 // failures of clients that scan, by the default thresholds
	role    dissect.Role

	keepGroups uint64
}

// pulse is the life of a node.
type pulse struct {
	line    cells
	good    marks // signs of life
	bad     marks // signs of death
	clients int64
	rank    uint64
	hand    int64 // number of the client that was counted last,
	lastBad int64 // and when it saw the last bad sign of a spell
}

type edge struct{ from, to nodeKey }

// flow is what moved along an edge; by is the moves by bin. The moves of an
// edge from a node to itself are retries.
type flow struct {
	n           int64
	first, last int64
	by          moves
	rank        uint64
}

// lockout is a client that failed, from then until it was accepted; to 0 =
// never.
type lockout struct {
	client   uint64
	from, to int64
}

type attachKey struct {
	at     int64 // attachStep since the epoch
	bucket uint16
}

// offender is what one client did at a service.
type offender struct {
	id          string
	counts      Counts
	failed      int64 // with those that only its next try shows
	first, last int64
	frame       int64
	file        uint32
	row         uint64
}

// scanner is a client that tried many nodes in vain.
type scanner struct {
	id               string
	nodes, attempts  int64
	failed           int64
	sends            int64
	outcomes         Outcomes
	first, last      int64
	frame            int64
	file             uint32
	row              uint64
	service          string
	servicesOfManyIn bool // it tried several services
}

// fan counts the destinations of the client in hand.
type fan struct {
	scanner
	seen     int   // destinations that are told apart
	known    int64 // attempts of a known protocol
	repeated int64
	attached bool // to one of the first: a client that looks for another
}

// stay is the time in which a client counts as active, for each rung: from a bin to
// as many after the last that it did something in as the rung is long.
type stay struct {
	from [len(ladder)]int64
	last int64
	is   bool // it has begun
}

// step of a transport ladder.
type step struct {
	at   int64
	rung string
}

// thread is the client in hand at one service.
type thread struct {
	service       string
	s             *scene
	version       string // that it says now, of
	g             *group
	offender      offender
	prev          dissect.Attempt // last counted row
	prevAt        uint64          // its place
	has           bool
	active, again stay
	began         int64            // first attempt of the intent
	lock          int64            // start of the lock-out, 0 = none
	streak        int              // failures since the start or the last drop
	before        dissect.Endpoint // node of the attempt before prev, in its intent
	inside        bool             // the first row of the intent asked in a session that stood;
	asked         int32            // rows of the intent that did so and were no try to attach
	session       spell
	source, node  dissect.Endpoint // of the session
	proto         uint8
	sessionSeen   int64
	sessionEnded  dissect.SessionEnd
	open          bool  // a session was begun
	unreal        bool  // its last attempt was without sign of a real stack
	troubled      bool  // it has failed,
	gone          bool  // or was back from a session that it had not ended, or hardly
	stratum       uint8 // of the node that first took it
	rungs         map[dissect.Addr]step
}

func newScenes(cfg *Config) *scenes {
	d := &scenes{cfg: cfg, by: map[string]*scene{}, keep: hashes{^uint64(0), ^uint64(0), ^uint64(0)}, threads: map[string]*thread{}}
	d.measure()
	return d
}

// measure takes how many bins the rungs are long.
func (d *scenes) measure() {
	for i, seconds := range ladder {
		d.rungs[i] = d.length(seconds)
	}
}

func (d *scenes) bin(t int64) int64 {
	s := t / second
	if t < 0 && t%second != 0 {
		s--
	}
	return s >> d.shift
}

// length is that many seconds in bins, at least one.
func (d *scenes) length(seconds int64) int64 { return max(seconds>>d.shift, 1) }

func (d *scenes) scene(name string) *scene {
	s := d.by[name]
	if s == nil {
		s = &scene{line: cells{fields: numFields}, pulses: map[nodeKey]*pulse{}, edges: map[edge]*flow{}, groups: map[string]*group{}, attach: map[attachKey]int32{},
			keepGroups: ^uint64(0)}
		d.by[name] = s
	}
	return s
}

func (d *scenes) begin(c *dissect.Client) {
	d.end()
	d.number++
	d.client, d.hash = *c, dissect.Hash64(2, []byte(c.ID))
	d.fan.scanner = scanner{id: c.ID}
}

// real reports a sign that a real stack stands behind the attempt: it repeated
// itself, went on after the handshake, or its client was seen again.
func (d *scenes) real(a *dissect.Attempt) bool {
	return a.Transmissions > 1 || a.SourcePackets > int64(a.Transmissions) || d.client.Attempts > 1 ||
		a.Proto != dissect.ProtoTCP && a.Protocol != "" || a.Outcome == dissect.OutcomeRefused && a.Protocol != ""
}

// thread gives the one of a service, nil where the client has none yet.
func (d *scenes) thread(service string) *thread {
	if d.hand == nil || d.hand.service != service {
		d.hand = d.threads[service]
	}
	return d.hand
}

// place is where the node of an attempt is known.
func (d *scenes) place(a *dissect.Attempt) *place {
	if d.recent == nil {
		d.recent = new(recent)
	}
	return d.recent.place(a)
}

// attempt takes the next row of the client, and where its node has its place.
func (d *scenes) attempt(a *dissect.Attempt, at *place) {
	t := d.thread(a.Service)
	if t == nil {
		t = &thread{service: a.Service, s: d.scene(a.Service)}
		d.hand = t
		t.offender = offender{id: d.client.ID, first: a.Start}
		d.threads[a.Service] = t
		t.s.clients++
		if a.Role != dissect.RoleUnknown {
			t.s.role = max(t.s.role, a.Role)
		}
		d.count(t, a.Start, fNew, 1)
	}
	updated := t.g != nil && t.version != a.ClientVersion
	if t.g == nil || updated { // an update is a change of sides
		t.version, t.g = a.ClientVersion, t.s.group(a.ClientVersion)
		t.g.clients++
	}
	d.touch(t, a, at)
	d.fanOut(a, at)
	d.life(t, a, at)
	if a.Rung != "" {
		t.climb(a)
	}
	back := t.open && a.Source != t.source
	d.sessions(t, a, at, updated)
	switch a.Relation {
	case dissect.RelationParallel:
		return
	case dissect.RelationRefresh:
		n := t.s.line.row(d.bin(a.Start))
		if back {
			n.add(fReturns, 1)
			d.stay(t, &t.active, fActive0, n.bin)
		} else {
			n.add(fRefresh, 1)
		}
		n.answered(a)
		d.sheets += n.made
		d.unlock(t, a)
		t.remember(a, at)
		return
	}
	d.counted(t, a)
	d.retry(t, a, at)
	d.unlock(t, a)
	t.remember(a, at)
}

func (d *scenes) count(t *thread, at int64, f field, v int32) {
	d.sheets += t.s.line.add(d.bin(at), f, v)
}

func (d *scenes) counted(t *thread, a *dissect.Attempt) {
	b := d.bin(a.Start)
	n := t.s.line.row(b)
	n.add(fAttempts, 1)
	n.add(fSends, a.Transmissions)
	t.offender.counts.count(a)
	t.offender.last = a.Start
	t.s.tried++
	t.s.shared += count(d.client.NATSuspect)
	d.stay(t, &t.active, fActive0, b)
	if a.Relation.Retries() {
		n.add(fRetries, 1)
		if t.has && obeys(&t.prev, a) {
			n.add(fAsked, 1)
		}
		d.stay(t, &t.again, fRetrier0, b)
		// Who tries again had failed, where what came of it was not seen; a node that
		// answered may have served a short session, though.
		if t.has && t.prev.Outcome == dissect.OutcomeUnknown && (t.prev.OneSided || t.prev.Answer != dissect.AnswerSynAck) {
			d.count(t, t.prev.Start, fImplied, 1)
			d.failure(t, &t.prev)
		}
	} else {
		n.add(fIntents, 1)
		t.began = a.Start
		t.g.arrive(a.Start)
		if a.Relation == dissect.RelationReattach {
			n.add(fReattach, 1)
		}
	}
	if a.OneSided {
		n.add(fOneSided, 1)
	}
	// Rows that no packets are behind, as those of a replay, have no history, and those
	// of a request in a connection no SYN.
	if a.Proto == dissect.ProtoTCP && strings.IndexByte(a.History, 'S') >= 0 && a.DestinationPackets > 0 && a.SourcePackets > int64(a.Transmissions) && a.Outcome == dissect.OutcomeAccepted {
		n.add(fShook, 1)
		if strings.IndexByte(a.History, 'h') < 0 {
			n.add(fMissed, 1)
		}
	}
	if t.insists(a) {
		n.add(fInsist, 1)
	}
	isReal := d.real(a)
	t.unreal = !isReal
	if !isReal {
		n.add(fUnreal, 1)
	}
	n.add(fOutcome0+field(a.Outcome), 1)
	if a.Outcome == dissect.OutcomeThrottled && a.RetryAfter == 0 || a.Outcome == dissect.OutcomeRefused && a.Evidence == dissect.EvidenceApp {
		n.add(fSaidNo, 1)
	}
	switch {
	case a.Outcome == dissect.OutcomeAccepted:
		at := a.End
		if a.AnsweredAt != 0 {
			at = a.AnsweredAt
		}
		t.s.accepts.set(b, a, a.Start)
		t.s.attach[attachKey{t.began / attachStep, bucketOf(at - t.began)}]++
	case a.Outcome.Failed() && isReal:
		d.failure(t, a)
	}
	if a.Late {
		n.add(fLate, 1)
	}
	if a.Replied() {
		n.add(fAnswers, 1)
	}
	n.answered(a)
	d.sheets += n.made
	d.fit()
}

// answered takes how the way to the node and back was; refreshes travel it too.
func (n *row) answered(a *dissect.Attempt) {
	if a.AnsweredAt != 0 && a.Transmissions == 1 && !a.Late {
		n.add(fQuick, 1)
		n.add(fQuickWait, int32(min((a.AnsweredAt-a.Start)/1e6, 60e3)))
	}
	if a.Answer == dissect.AnswerSynAck || a.Answer == dissect.AnswerReply {
		sends := a.Transmissions
		if a.Proto == dissect.ProtoUDP && a.LastSeen-a.Start < int64(sends-1)*hasty {
			sends = 1 // the client's timer is shorter than its way: nothing was lost
		}
		n.add(fAnswered, 1)
		n.add(fAnswerSends, sends)
	}
}

// hasty is a wait before the first repeat that a long way outlasts.
const hasty = 2 * second / 5

// climb notes how long the client waits at a node before it tries the next rung
// of its ladder there.
func (t *thread) climb(a *dissect.Attempt) {
	at := a.Destination.Addr
	if old, ok := t.rungs[at]; ok && old.rung != a.Rung && a.Start-old.at < 60*second {
		t.g.ladder.add(a.Start - old.at)
	}
	if t.rungs == nil {
		t.rungs = map[dissect.Addr]step{}
	}
	if len(t.rungs) < maxScanned {
		t.rungs[at] = step{a.Start, a.Rung}
	}
}

// insistWithin is how soon after its own acceptance, and the end of what that
// began, a client that wants in again is not one that lost anything.
const insistWithin = 5 * second

// insists reports that the client was served, closed itself, and is back at once.
func (t *thread) insists(a *dissect.Attempt) bool {
	return t.has && t.prev.Outcome == dissect.OutcomeAccepted && t.prev.SessionEnded == dissect.SessionByClient &&
		a.Start-t.prev.End < 2*insistWithin && a.Start-t.prev.SessionEnd < insistWithin
}

// failure notes a failed attempt of a client that is really there.
func (d *scenes) failure(t *thread, a *dissect.Attempt) {
	at := a.Start
	if a.Outcome == dissect.OutcomeDropped {
		at = max(a.End, at) // until then nothing was wrong
	}
	t.s.fails.set(d.bin(at), a, at)
	if t.offender.failed == 0 {
		t.offender.frame, t.offender.file, t.offender.row = a.FirstFrame, a.File, a.ID
	}
	t.offender.failed++
	if t.lock == 0 {
		t.lock = a.Start
		d.count(t, a.Start, fLocked, 1)
		d.count(t, a.Start, fHit, 1)
	}
	if !t.troubled {
		t.troubled = true
		t.g.trouble(a.Start)
	}
}

// unlock ends a lock-out at an acceptance.
func (d *scenes) unlock(t *thread, a *dissect.Attempt) {
	if t.lock != 0 && a.Outcome == dissect.OutcomeAccepted {
		d.count(t, a.End, fLocked, -1)
		d.spell(t.s, lockout{d.hash, t.lock, a.End})
		t.lock = 0
	}
}

func (d *scenes) spell(s *scene, l lockout) {
	if l.client <= d.keep.spells {
		s.spells = append(s.spells, l)
		d.spells++
	}
}

// stay lengthens the time in which a client counts as active.
func (d *scenes) stay(t *thread, s *stay, f field, b int64) {
	if !s.is || b-s.last > d.rungs[0] {
		for i, length := range d.rungs {
			if !s.is || b-s.last > length {
				d.left(t, s, f, i)
				s.from[i] = b
			}
		}
	}
	s.last, s.is = b, true
}

func (d *scenes) left(t *thread, s *stay, f field, i int) {
	if s.is {
		d.sheets += t.s.line.add(s.from[i], f+field(i), 1)
		d.sheets += t.s.line.add(s.last+d.rungs[i], f+field(i), -1)
	}
}

// leastStay is how long a session lasts whose end means something.
const leastStay = 5 * second

// sessions follows the client's session and notices one that nobody closed.
func (d *scenes) sessions(t *thread, a *dissect.Attempt, at *place, updated bool) {
	if t.open && a.Source != t.source && !t.troubled && !t.gone && a.Relation != dissect.RelationParallel && a.Start-t.session.from > leastStay {
		switch {
		case t.sessionEnded == dissect.SessionAlive:
			// It is back though its session was never closed: it had vanished.
			t.g.vanish(t.sessionSeen, t.stratum, false)
			t.gone = true
		case t.sessionEnded == dissect.SessionByClient && !updated:
			// The kernel closes the sessions of a program that crashes. Who comes and goes
			// as a habit is told from a crash by having done so before.
			t.g.vanish(t.session.to, t.stratum, true)
			t.gone = true
		}
	}
	if t.open && a.Outcome == dissect.OutcomeAccepted && a.Destination == t.node && a.Source != t.source &&
		t.session.to != 0 && t.session.to > a.End && a.SessionEnd > t.session.to {
		t.g.overlaps++
	}
	if a.Outcome == dissect.OutcomeAccepted && a.Relation != dissect.RelationParallel {
		if !t.open {
			t.stratum = at.stratum()
			t.g.attached[t.stratum]++
		}
		t.open, t.session = true, spell{a.End, a.SessionEnd}
		t.source, t.node, t.proto = a.Source, a.Destination, a.Proto
		t.sessionSeen, t.sessionEnded = max(a.LastSeen, a.End), a.SessionEnded
	}
}

// remember keeps the row that the next one is compared with.
func (t *thread) remember(a *dissect.Attempt, at *place) {
	t.prev, t.prevAt, t.has = *a, at.number, true
}

// end digests what the last rows of a client leave open.
func (d *scenes) end() {
	for _, name := range sortedKeys(d.threads) {
		t := d.threads[name]
		for i := range ladder {
			d.left(t, &t.active, fActive0, i)
			d.left(t, &t.again, fRetrier0, i)
		}
		if t.lock != 0 {
			d.spell(t.s, lockout{d.hash, t.lock, 0})
		}
		t.g.failers += count(t.offender.failed > 0)
		if t.open && !t.troubled && !t.gone && t.sessionEnded == dissect.SessionByClient && t.session.to-t.session.from > leastStay {
			t.g.vanish(t.session.to, t.stratum, true) // and it did not come back
		}
		t.s.rank(t.offender)
		if d.fan.wanders() && d.fan.scans(&defaults) {
			t.s.scanned += t.offender.failed
		}
	}
	d.scanned()
	clear(d.threads)
	d.hand = nil
	d.fan = fan{}
	d.client = dissect.Client{}
	d.fit()
}

func count(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// rank keeps the clients that failed most.
func (s *scene) rank(o offender) {
	if o.failed == 0 {
		return
	}
	order := func(a, b offender) int { return cmp.Or(cmp.Compare(b.failed, a.failed), cmp.Compare(a.id, b.id)) }
	at, _ := slices.BinarySearchFunc(s.top, o, order)
	if at < offenders {
		s.top = slices.Insert(s.top, at, o)
		s.top = s.top[:min(len(s.top), offenders)]
	}
}

// fanOut counts the destinations of the client.
func (d *scenes) fanOut(a *dissect.Attempt, at *place) {
	f := &d.fan
	if f.attempts == 0 {
		f.first, f.frame, f.file, f.row, f.service = a.Start, a.FirstFrame, a.File, a.ID, a.Service
	}
	f.last = a.Start
	f.attempts++
	f.sends += int64(a.Transmissions)
	f.outcomes[a.Outcome]++
	f.servicesOfManyIn = f.servicesOfManyIn || a.Service != f.service
	if a.Protocol != "" {
		f.known++
	}
	f.attached = f.attached || f.nodes < firstNodes && a.Outcome == dissect.OutcomeAccepted && a.DestinationBytes > 0 && a.SessionEnd-a.Start >= attachedFor
	if a.Outcome.Failed() || a.Outcome == dissect.OutcomeAccepted && a.SourceBytes < 100 && a.DestinationBytes < 100 {
		f.failed++
	}
	if at.client == d.number || d.recent.saw(a.Destination, d.number, f.seen == maxScanned) {
		at.client = d.number
		f.repeated++
		return
	}
	f.nodes++
	if f.seen < maxScanned {
		f.seen++
		at.client = d.number
	}
}

// wanders: more nodes than attempts at any one, no protocol spoken, and at home nowhere.
func (f *fan) wanders() bool {
	return f.nodes >= 8 && !f.attached && f.known*5 <= f.attempts && f.repeated*4 <= f.attempts
}

// scanned keeps the client as a candidate for a scan.
func (d *scenes) scanned() {
	if d.fan.wanders() {
		d.addScan(d.fan.scanner)
	}
}

var defaults = Thresholds{}.WithDefaults()

func (d *scenes) addScan(s scanner) {
	order := func(a, b scanner) int { return cmp.Or(cmp.Compare(b.nodes, a.nodes), cmp.Compare(a.id, b.id)) }
	at, _ := slices.BinarySearchFunc(d.scans, s, order)
	if at < maxScans {
		d.scans = slices.Insert(d.scans, at, s)
		d.scans = d.scans[:min(len(d.scans), maxScans)]
	}
}

// fit keeps everything under its ceiling.
func (d *scenes) fit() {
	for d.sheets > maxSheets {
		d.halve()
	}
	for d.moves > maxMoves {
		d.halveMoves()
	}
	if d.pulses > maxPulses || d.spells > maxSpells || d.edges > maxEdges {
		d.prune()
	}
}

// halve makes all bins twice as long.
func (d *scenes) halve() {
	d.shift++
	d.measure()
	for _, s := range d.by {
		d.sheets -= s.line.halve()
		s.fails.halve()
		s.accepts.halve()
		for _, p := range s.pulses {
			d.sheets -= p.line.halve()
			p.good.halve()
			p.bad.halve()
		}
	}
	for _, t := range d.threads {
		for _, s := range []*stay{&t.active, &t.again} {
			for i := range s.from {
				s.from[i] >>= 1
			}
			s.last >>= 1
		}
	}
}

// halveMoves makes the steps of all edges twice as long.
func (d *scenes) halveMoves() {
	d.moveShift++
	d.moves = 0
	for _, s := range d.by {
		for _, f := range s.edges {
			f.by = f.by.halved()
			d.moves += f.by.n
		}
	}
}

// moves along an edge, by moveStep.
type moves struct {
	tally
	n int // steps with a move
}

func (m *moves) add(at, v int64) (made bool) {
	if made = m.tally.add(at, v); made {
		m.n++
	}
	return made
}

func (m *moves) merge(o *moves) { o.each(func(at, v int64) { m.add(at, v) }) }

func (m *moves) halved() (out moves) {
	m.each(func(at, v int64) { out.add(at>>1, v) })
	return out
}

// merge adds o, which saw other clients and must not be used afterwards.
func (d *scenes) merge(o *scenes) {
	d.end()
	o.end()
	for d.shift < o.shift {
		d.halve()
	}
	for o.shift < d.shift {
		o.halve()
	}
	for d.moveShift < o.moveShift {
		d.halveMoves()
	}
	for o.moveShift < d.moveShift {
		o.halveMoves()
	}
	d.keep = hashes{min(d.keep.pulses, o.keep.pulses), min(d.keep.spells, o.keep.spells), min(d.keep.edges, o.keep.edges)}
	d.nats += o.nats
	d.number += o.number // the numbers of the clients of both sides must not meet
	for _, s := range o.scans {
		d.addScan(s)
	}
	for name, s := range o.by {
		mine := d.by[name]
		if mine == nil {
			d.by[name] = s
			d.sheets += s.line.sheets.len()
			for _, p := range s.pulses {
				d.sheets += p.line.sheets.len()
			}
			continue
		}
		d.sheets += mine.merge(s)
	}
	d.prune()
	d.fit()
}

func (s *scene) merge(o *scene) (made int) {
	made = s.line.merge(&o.line)
	s.fails.merge(o.fails)
	s.accepts.merge(o.accepts)
	s.clients += o.clients
	s.shared, s.tried, s.scanned = s.shared+o.shared, s.tried+o.tried, s.scanned+o.scanned
	s.role = max(s.role, o.role)
	s.spells = append(s.spells, o.spells...)
	for k, n := range o.attach {
		s.attach[k] += n
	}
	for _, t := range o.top {
		s.rank(t)
	}
	for k, p := range o.pulses {
		mine := s.pulses[k]
		if mine == nil {
			s.pulses[k] = p
			made += p.line.sheets.len()
			continue
		}
		made += mine.line.merge(&p.line)
		mine.good.merge(p.good)
		mine.bad.merge(p.bad)
		mine.clients += p.clients
	}
	for k, f := range o.edges {
		mine := s.edges[k]
		if mine == nil {
			s.edges[k] = f
			continue
		}
		mine.n += f.n
		mine.first, mine.last = min(mine.first, f.first), max(mine.last, f.last)
		mine.by.merge(&f.by)
	}
	s.keepGroups = min(s.keepGroups, o.keepGroups)
	for v, g := range o.groups {
		if mine := s.groups[v]; mine != nil {
			mine.merge(g)
		} else {
			s.groups[v] = g
		}
	}
	s.foldGroups()
	return made
}

// prune drops what lies over the thresholds, and lowers those while it is
// still too much.
func (d *scenes) prune() {
	for {
		pulses, spells, edges, moves := 0, 0, 0, 0
		for _, s := range d.by {
			for k, p := range s.pulses {
				if p.rank > d.keep.pulses {
					d.sheets -= p.line.sheets.len()
					delete(s.pulses, k)
				}
			}
			for k, f := range s.edges {
				if f.rank > d.keep.edges {
					delete(s.edges, k)
					continue
				}
				moves += f.by.n
			}
			s.spells = slices.DeleteFunc(s.spells, func(l lockout) bool { return l.client > d.keep.spells })
			pulses, spells, edges = pulses+len(s.pulses), spells+len(s.spells), edges+len(s.edges)
		}
		d.pulses, d.spells, d.edges, d.moves = pulses, spells, edges, moves
		if pulses <= maxPulses && spells <= maxSpells && edges <= maxEdges {
			return
		}
		if pulses > maxPulses {
			d.keep.pulses >>= 1
		}
		if spells > maxSpells {
			d.keep.spells >>= 1
		}
		if edges > maxEdges {
			d.keep.edges >>= 1
		}
	}
}
