package attempt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"squall/dissect"
)

const (
	// Partitions is the fixed number of parts that clients are spread over.
	Partitions = 64
	// defaultMemory bounds the packed records that are kept in memory; half a
	// million attempts. More of them are as fast in a file that the kernel caches.
	defaultMemory = 40 << 20
	chunkBytes    = 8 << 10 // of each shard and partition
	packedMost    = 256     // bytes of nearly every record
	// homesHeld is how many addresses with an identity a shard keeps at hand, and
	// homesMemory how many bytes of those before are kept in memory by all.
	homesHeld   = 1 << 12
	homesMemory = 8 << 20
)

// StoreConfig of a store.
type StoreConfig struct {
	Shards int
	Memory int64 // bytes of packed records before the rest goes to a temporary file; 0 = 40 MiB
	Temp   int64 // ceiling of that file, bytes; 0 = none
	Part   int   // attempts that are finished at a time, about; 0 = 65536
	Nodes  int   // that are told apart by more than their records, 0 = MaxNodes
}

// Store collects the records of all shards until Finalise, and what has to be
// known of all of them before the first can be finished: what nodes are, and
// which addresses belong to which identity.
type Store struct {
	spool  spool
	homes  spool // addresses with their identities, by partition of the address
	shards []shard
	facts  facts
	part   int // attempts that are finished at a time
	deaf   []Interval

	setBack bool // a capturing clock
}

// Deaf tells, before Finalise, when nobody listened although the capture went on
// afterwards: silence then decides nothing. The intervals are disjoint and in order.
func (s *Store) Deaf(spans []Interval) { s.deaf = spans }

// SetBack tells, before Finalise, that a capturing clock was set back. Each host
// then seems to have two clocks, of which the one runs beside the other, so that
// none are told apart by them.
func (s *Store) SetBack(yes bool) { s.setBack = yes }

type shard struct {
	open  [Partitions][]byte
	count int64
	sides sides
	hand  hand
	homes map[dissect.Addr]lent
}

// sides say whose packets were captured, of all nodes together.
type sides struct {
	answered, spoke bool  // a packet of a node was, of any and of one over TCP
	oneSided        bool  // a TCP handshake was proven by its client alone
	went            bool  // a TCP connection went on: a segment of it is no SYN, FIN or RST
	shook           int64 // TCP connections that were answered with a SYN-ACK, up to muteRows
}

func (s *sides) note(r *Record) {
	heard := r.DestinationPackets > 0
	s.answered = s.answered || heard
	if r.Proto != dissect.ProtoTCP {
		return
	}
	s.spoke = s.spoke || heard
	s.oneSided = s.oneSided || r.proven()
	if !s.went {
		s.went = bytes.ContainsAny(r.History[:], "aAdD")
		if r.shook() && s.shook < muteRows {
			s.shook++
		}
	}
}

func (s *sides) join(o *sides) {
	s.answered, s.spoke = s.answered || o.answered, s.spoke || o.spoke
	s.oneSided, s.went = s.oneSided || o.oneSided, s.went || o.went
	s.shook += o.shook
}

// proven reports a handshake that its client alone proves.
func (r *Record) proven() bool { return r.Flags&FlagOneSided != 0 && r.Answer != dissect.AnswerNone }

type nodeKey struct {
	at    dissect.Endpoint
	proto uint8
}

// nodeFacts are what the records say about one node.
type nodeFacts struct {
	votes    []vote
	strange  int64 // records accepted in words that no protocol knows
	answered bool  // a packet of it was captured
	spoke    bool  // and it was no refusal by its kernel, or by a router before it
	oneSided bool  // a handshake was proven by its client alone
	ladder   bool  // a step of a ladder of transports was accepted here

	clients           sketch // that depend on it
	held              int32  // sessions with it that were kept
	checks            int32  // exchanges that may be a monitor's
	firstYes, lastYes int64
	lastNo            int64
	records           int64

	decided // by all of that
}

// twin is the same endpoint over the other transport.
func (k nodeKey) twin() nodeKey {
	k.proto ^= dissect.ProtoTCP ^ dissect.ProtoUDP
	return k
}

type vote struct {
	protocol Name
	role     dissect.Role
	source   dissect.RoleSource
	n        int64
}

// identity is a client as its protocol names it.
type identity struct{ protocol, name Name }

// lent is the identity that an address gives to records which say none: its
// only one.
type lent struct {
	key  uint64
	many bool
}

// NewStore makes an empty store.
func NewStore(cfg StoreConfig) *Store {
	if cfg.Memory <= 0 {
		cfg.Memory = defaultMemory
	}
	s := &Store{shards: make([]shard, max(cfg.Shards, 1)), part: cmp.Or(cfg.Part, partRecords)}
	s.facts.most = cmp.Or(cfg.Nodes, MaxNodes)
	s.facts.clear()
	s.spool.limit, s.spool.ceiling = cfg.Memory, cfg.Temp
	s.homes.limit, s.homes.ceiling = homesMemory, cfg.Temp
	for i := range s.shards {
		s.shards[i].homes = map[dissect.Addr]lent{}
	}
	return s
}

func partitionOfKey(key uint64) int       { return int(dissect.Mix64(key) % Partitions) }
func partitionOfAddr(a *dissect.Addr) int { return int(dissect.Hash64(2, a[:]) % Partitions) }
func (r *Record) partition() int {
	if r.ClientKey != 0 {
		return partitionOfKey(r.ClientKey)
	}
	return partitionOfAddr(r.client())
}

// Add packs a record. Different shards may add at the same time, one shard
// only from one goroutine.
func (s *Store) Add(number int, r *Record) {
	h := &s.shards[number]
	if r.Flags&FlagOlder == 0 {
		h.count++
		h.sides.note(r)
		s.facts.note(r, &h.hand)
		if r.Flags&FlagGiven == 0 && r.ClientKey != 0 {
			if lend(h.homes, *r.client(), lent{key: r.ClientKey}); len(h.homes) > homesHeld {
				s.house(h)
			}
		}
	}
	p := r.partition()
	b := h.open[p]
	if b == nil {
		b = make([]byte, 0, chunkBytes)
	}
	if b = appendRecord(b, r); len(b) > chunkBytes-packedMost {
		b = s.spool.put(p, b)
	}
	h.open[p] = b
}

func (n *nodeFacts) note(r *Record) {
	n.records++
	n.answered = n.answered || r.DestinationPackets > 0
	n.spoke = n.spoke || r.DestinationPackets > 0 && r.Answer != dissect.AnswerRST && r.Answer != dissect.AnswerICMP
	n.oneSided = n.oneSided || r.proven()
	n.ladder = n.ladder || r.Rung != 0 && r.Outcome == dissect.OutcomeAccepted
	n.depends(r)
	if r.Protocol != 0 {
		n.add(vote{r.Protocol, r.Role, r.RoleSource, 1})
	} else if r.Outcome == dissect.OutcomeAccepted {
		n.strange++
	}
}

func (n *nodeFacts) add(v vote) {
	i := slices.IndexFunc(n.votes, func(o vote) bool { return o.protocol == v.protocol && o.role == v.role && o.source == v.source })
	if i < 0 {
		n.votes = append(n.votes, v)
		return
	}
	n.votes[i].n += v.n
}

func lend(homes map[dissect.Addr]lent, a dissect.Addr, l lent) {
	old, ok := homes[a]
	switch {
	case !ok:
		homes[a] = l
	case l.many || old.key != l.key:
		if l = (lent{min(old.key, l.key), true}); l != old {
			homes[a] = l
		}
	}
}

// lentBytes of an address with its identity.
const lentBytes = 16 + 8 + 1

// house puts away the homes that a shard has at hand.
func (s *Store) house(h *shard) {
	var open [Partitions][]byte
	for a, l := range h.homes {
		p := partitionOfAddr(&a)
		b := binary.LittleEndian.AppendUint64(append(open[p], a[:]...), l.key)
		many := byte(0)
		if l.many {
			many = 1
		}
		open[p] = append(b, many)
	}
	for p, b := range open {
		s.homes.put(p, b)
	}
	clear(h.homes)
}

// housed are the homes of a partition of addresses.
func (s *Store) housed(partition int) (map[dissect.Addr]lent, error) {
	homes := map[dissect.Addr]lent{}
	err := s.homes.each(partition, func(b []byte) {
		for ; len(b) >= lentBytes; b = b[lentBytes:] {
			lend(homes, dissect.Addr(b[:16]), lent{binary.LittleEndian.Uint64(b[16:]), b[24] != 0})
		}
	})
	return homes, err
}

// records visits the attempts of a partition, without the sessions that are older
// than the capture. The record is used again.
func (s *Store) records(partition int, visit func(*Record)) error {
	var r Record
	return s.spool.each(partition, func(data []byte) {
		for u := (unpacker{b: data}); len(u.b) > 0; {
			if u.record(&r); r.Flags&FlagOlder == 0 {
				visit(&r)
			}
		}
	})
}

// gather joins what the shards know into the first one and closes the packing.
func (s *Store) gather() *shard {
	whole := &s.shards[0]
	for i := range s.shards {
		h := &s.shards[i]
		for p, b := range h.open {
			s.spool.put(p, b)
			h.open[p] = nil
		}
		s.house(h)
		h.homes = nil
		if i == 0 {
			continue
		}
		whole.sides.join(&h.sides)
		whole.count += h.count
		*h = shard{}
	}
	s.shards = s.shards[:1]
	return whole
}
