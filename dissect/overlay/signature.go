package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"

	"squall/dissect"
)

// signature is a protocol that a YAML document describes; see LoadHints.
type signature struct {
	name      string
	about     string // what it is known by, in words
	transport dissect.Transport
	ports     [][2]uint16 // ranges, both ends included
	role      dissect.Role
	encrypted bool
	probes    []sigCondition
	messages  []sigMessage
	frame     *sigFrame
	pair      sigField // the fallback of the messages' own fields
	client    sigField
	version   sigField
	brief     bool // no message matters after an answer
}

// sigCondition is a set of demands that must all hold.
type sigCondition struct {
	patterns []sigPattern
	min, max int // length; max 0 = any
	size     *sigNumber
	first    bool
	opaque   *sigField // bytes that must look random
	bits     int       // fixed by the patterns
}

// sigPattern is bytes at an offset, or anywhere within some bytes after it.
type sigPattern struct {
	at, within int
	want, mask []byte // mask nil = all bits
}

// sigNumber is an unsigned field.
type sigNumber struct {
	at, bytes int
	little    bool
	plus      int64 // added to the value
}

// sigField is some bytes of a message.
type sigField struct {
	fixed  []byte // the file says it itself
	at     int
	length int      // 0 = up to until, or the end
	after  []byte   // at counts from behind the first of these
	until  [][]byte // the nearest of them
	given  bool
}

// sigFrame delimits messages in a stream.
type sigFrame struct {
	size  *sigNumber // value + plus = the whole message
	until []byte
}

// sigMessage is one kind of message; the first that fits names it.
type sigMessage struct {
	op                   string
	kind                 dissect.Kind
	from                 sigSide
	when                 sigCondition
	pair, chain          sigField
	client, version      sigField
	role                 dissect.Role
	retryAfter, lifetime sigWait
	timeout              int64
}

// sigWait is a wait: fixed, or a number in the message, in binary or in digits.
type sigWait struct {
	fixed  int64
	number *sigNumber
	digits sigField
	unit   int64
}

type sigSide uint8

const (
	anySide sigSide = iota
	clientSide
	nodeSide
)

const (
	// strongBits of fixed content are taken for sure, weakBits for a guess;
	// fewer need a port.
	strongBits = 24
	weakBits   = 16
	// searchBytes is how far fields are searched for.
	searchBytes = 2048
	// maxWait is the longest wait that a message may announce, ns.
	maxWait = 30 * 24 * 3600e9
)

var errSignature = errors.New("no message of the signature")

func (s *signature) Name() string                  { return s.name }
func (s *signature) Transports() dissect.Transport { return s.transport }

func (s *signature) onPort(d *dissect.Datagram) bool {
	for _, p := range s.ports {
		if d.DstPort >= p[0] && d.DstPort <= p[1] || d.SrcPort >= p[0] && d.SrcPort <= p[1] {
			return true
		}
	}
	return false
}

// Gates follow from the probes: a pattern at the beginning gives the first byte,
// another one a byte to look at. What fixes little is asked at its ports alone.
func (s *signature) Gates(dissect.Transport) (gates []dissect.Gate) {
	probes := s.probes
	if len(probes) == 0 {
		probes = []sigCondition{{}}
	}
	for i := range probes {
		c := &probes[i]
		g := dissect.Gate{Most: c.max}
		for _, p := range c.patterns {
			g.Least = max(g.Least, p.at+len(p.want))
			mask := byte(0xff)
			if p.mask != nil {
				mask = p.mask[0]
			}
			switch {
			case p.within > 0 || mask == 0:
			case p.at == 0 && g.Starts == "":
				g.Starts = fitting(p.want[0], mask)
			case g.Mask == 0:
				g.At, g.Mask, g.Want = p.at, mask, p.want[0]
			}
		}
		if c.opaque != nil {
			g.Least = max(g.Least, c.opaque.at+c.opaque.length)
		}
		if c.bits >= weakBits || len(s.ports) > maxPortGates {
			gates = append(gates, g)
			continue
		}
		for _, p := range s.ports {
			g.LoPort, g.HiPort = p[0], p[1]
			gates = append(gates, g)
		}
	}
	return gates
}

// maxPortGates: with more ranges of ports than this the probe compares them.
const maxPortGates = 16

// fitting are the bytes whose bits under the mask are those of want.
func fitting(want, mask byte) string {
	var all []byte
	for b := range 256 {
		if byte(b)&mask == want {
			all = append(all, byte(b))
		}
	}
	return string(all)
}

func (s *signature) Probe(d *dissect.Datagram) dissect.Verdict {
	best := dissect.No
	if len(s.probes) == 0 && s.onPort(d) {
		best = dissect.Maybe
	}
	for i := range s.probes {
		c := &s.probes[i]
		if !c.holds(d.Payload, d.PayloadLen, true) {
			continue
		}
		switch {
		case c.bits >= strongBits:
			return dissect.Yes
		case c.bits >= weakBits, s.onPort(d):
			best = dissect.Maybe
		}
	}
	return best
}

// byPort reports that nothing but the port speaks for the protocol.
func (s *signature) byPort(b []byte, wire int) bool {
	for i := range s.probes {
		if c := &s.probes[i]; c.bits >= weakBits && c.holds(b, wire, true) {
			return false
		}
	}
	return true
}

// holds judges b, of which wire bytes were on the wire.
func (c *sigCondition) holds(b []byte, wire int, first bool) bool {
	if wire < c.min || c.max > 0 && wire > c.max || c.first && !first {
		return false
	}
	for i := range c.patterns {
		if !c.patterns[i].in(b) {
			return false
		}
	}
	if c.size != nil {
		if v, ok := c.size.read(b); !ok || v != int64(wire) {
			return false
		}
	}
	return c.opaque == nil || opaque(b, c.opaque.at, c.opaque.length)
}

// opaque reports that n bytes look encrypted: three in four differ from all
// others. Of random ones nine in ten do, of text or of a header hardly half.
func opaque(b []byte, at, n int) bool {
	if at+n > len(b) {
		return false
	}
	var seen [4]uint64
	different := 0
	for _, c := range b[at : at+n] {
		if bit := uint64(1) << (c & 63); seen[c>>6]&bit == 0 {
			seen[c>>6] |= bit
			different++
		}
	}
	return 4*different >= 3*n
}

func (p *sigPattern) in(b []byte) bool {
	for at := p.at; at <= p.at+p.within; at++ {
		if at+len(p.want) > len(b) {
			return false
		}
		if p.equal(b[at:]) {
			return true
		}
	}
	return false
}

func (p *sigPattern) equal(b []byte) bool {
	for i, w := range p.want {
		c := b[i]
		if p.mask != nil {
			c &= p.mask[i]
		}
		if c != w {
			return false
		}
	}
	return true
}

// read gives the value plus n.plus; ok is false if it is not all there.
func (n *sigNumber) read(b []byte) (v int64, ok bool) {
	if n.at+n.bytes > len(b) {
		return 0, false
	}
	var buf [8]byte
	raw := b[n.at : n.at+n.bytes]
	if n.little {
		copy(buf[:], raw)
		v = int64(binary.LittleEndian.Uint64(buf[:]))
	} else {
		copy(buf[8-n.bytes:], raw)
		v = int64(binary.BigEndian.Uint64(buf[:]))
	}
	if v < 0 || v > 1<<40 {
		v = 1 << 40
	}
	return v + n.plus, true
}

// of gives the bytes of the field, nil if they are not there.
func (f *sigField) of(b []byte) []byte {
	if !f.given || f.fixed != nil {
		return f.fixed
	}
	b = b[:min(len(b), searchBytes)]
	if f.after != nil {
		i := bytes.Index(b, f.after)
		if i < 0 {
			return nil
		}
		b = b[i+len(f.after):]
	}
	if f.at > len(b) {
		return nil
	}
	b = b[f.at:]
	if f.length > 0 {
		if f.length > len(b) {
			return nil
		}
		b = b[:f.length]
	}
	for _, end := range f.until {
		if i := bytes.Index(b, end); i >= 0 {
			b = b[:i]
		}
	}
	return b
}

// either is f, or if that is not given the other.
func (f *sigField) either(other *sigField) *sigField {
	if f.given {
		return f
	}
	return other
}

func (w *sigWait) of(b []byte) int64 {
	if w.number != nil {
		if v, ok := w.number.read(b); ok && v >= 0 {
			return min(v, maxWait/w.unit) * w.unit
		}
		return 0
	}
	if w.digits.given {
		v, ok := leadingNumber(w.digits.of(b))
		if !ok {
			return 0
		}
		return min(v, maxWait/w.unit) * w.unit
	}
	return w.fixed
}

// leadingNumber reads the decimal digits that b begins with, after blanks.
func leadingNumber(b []byte) (v int64, ok bool) {
	b = bytes.TrimLeft(b, " \t")
	for _, c := range b {
		if !digit(c) || v > 1<<40 {
			break
		}
		v, ok = v*10+int64(c-'0'), true
	}
	return v, ok
}

// greeting is the length of a first message that says its length itself, where b may
// be one or its beginning: what comes before frames is no frame. 0 = none.
func (s *signature) greeting(b []byte, f *dissect.Flow) int {
	for i := range s.messages {
		t := &s.messages[i]
		c := &t.when
		if c.first && c.min > 0 && c.min == c.max && !t.wrongSide(f) && c.begins(b) {
			return c.min
		}
	}
	return 0
}

// wrongSide: the other side alone says it.
func (t *sigMessage) wrongSide(f *dissect.Flow) bool {
	return t.from == clientSide && !f.FromClient || t.from == nodeSide && f.FromClient
}

// begins reports that nothing in b speaks against the patterns.
func (c *sigCondition) begins(b []byte) bool {
	for i := range c.patterns {
		if p := &c.patterns[i]; p.at+p.within+len(p.want) <= len(b) && !p.in(b) {
			return false
		}
	}
	return true
}

// cut gives the length of the next message of a stream.
func (s *signature) cut(d *dissect.Datagram, f *dissect.Flow) (total uint64, err error) {
	b := d.Payload
	if f.Seen == 0 {
		if n := s.greeting(b, f); n > len(b) && wait(d) {
			return 0, dissect.ErrShort
		} else if n > 0 {
			return uint64(n), nil
		}
	}
	switch {
	case s.frame == nil:
		return uint64(len(b)), nil
	case s.frame.size != nil:
		v, ok := s.frame.size.read(b)
		if !ok {
			if wait(d) {
				return 0, dissect.ErrShort
			}
			return uint64(len(b)), nil
		}
		if v <= 0 {
			return 0, errSignature
		}
		total = uint64(v)
	default:
		i := bytes.Index(b, s.frame.until)
		if i >= 0 {
			return uint64(i + len(s.frame.until)), nil
		}
		total = uint64(len(b)) + 1
	}
	if total > uint64(len(b)) && wait(d) {
		return 0, dissect.ErrShort
	}
	return total, nil
}

func (s *signature) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b, wire := d.Payload, d.PayloadLen
	if d.Proto == dissect.ProtoUDP {
		s.read(b, wire, true, f, m, false)
		return len(b), nil
	}
	if len(b) == 0 {
		return 0, dissect.ErrShort
	}
	if n := takeBody(f, len(b)); n > 0 {
		return n, nil
	}
	total, err := s.cut(d, f)
	if err != nil {
		return 0, err
	}
	n := int(min(total, uint64(len(b))))
	if s.frame != nil {
		wire = int(min(total, 1<<31-1))
	}
	s.read(b[:n], wire, f.Seen == 0, f, m, true)
	if s.frame != nil && s.frame.until != nil {
		return n, nil
	}
	return leaveBody(f, total, len(b)), nil
}

// read names a message. Flow.Step is 1 once a probe held, so that a later
// message does not make the protocol rest on its port; Flow.Flags is the role
// of the node in the newest request.
func (s *signature) read(b []byte, wire int, first bool, f *dissect.Flow, m *dissect.Message, stream bool) {
	if f.Step == 0 && !s.byPort(b, wire) {
		f.Step = 1
	}
	for i := range s.messages {
		t := &s.messages[i]
		if t.wrongSide(f) || !t.when.holds(b, wire, first) {
			continue
		}
		s.tell(t, b, f, m, stream)
		return
	}
}

func (s *signature) tell(t *sigMessage, b []byte, f *dissect.Flow, m *dissect.Message, stream bool) {
	m.Kind, m.Op, m.Role, m.Encrypted = t.kind, t.op, s.role, s.encrypted
	switch {
	case t.role != dissect.RoleUnknown:
		m.Role = t.role
	case t.kind >= dissect.KindProgress && f.Flags != 0:
		m.Role = dissect.Role(f.Flags) // an answer knows of the node what its request did
	}
	m.ByPort = f.Step == 0
	if v := t.pair.either(&s.pair).of(b); v != nil {
		m.Txn = hashKey(0, v)
	}
	if v := t.chain.of(b); v != nil {
		m.Chain = hashKey(1, v)
	}
	switch t.kind {
	case dissect.KindRequest, dissect.KindRefresh:
		m.FromClient = true
		f.Flags = uint8(m.Role)
		m.ClientID, m.Version = t.client.either(&s.client).of(b), t.version.either(&s.version).of(b)
		m.Timeout = t.timeout
	case dissect.KindData, dissect.KindClose, dissect.KindLost:
	default:
		if m.FromClient = t.from == clientSide; m.FromClient { // a client's own word may be progress
			m.ClientID, m.Version = t.client.of(b), t.version.of(b)
		}
		m.RetryAfter, m.Lifetime = t.retryAfter.of(b), t.lifetime.of(b)
		f.Done = s.brief && stream && t.kind != dissect.KindProgress && t.kind != dissect.KindChallenge
	}
}
