package attempt

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"

	"squall/dissect"
)

// Result gives the finished rows. A partition of clients is finished when it is
// asked for, so that only a few are in memory at a time; small results are
// kept. It may be read by several goroutines at once.
type Result struct {
	names      *Names
	hints      dissect.Hints
	begin, end int64
	store      *Store
	facts      *shard
	nodes      map[nodeKey]decided
	sided      bool // only the clients' side was captured
	moved      [Partitions][]byte

	mu   sync.Mutex
	kept [Partitions]*part
}

// keptRecords is how many attempts a result may have for its partitions to be
// kept, some 100 MB.
const keptRecords = 1 << 18

// decided is what a node is, by its strongest votes.
type decided struct {
	protocol Name
	role     dissect.Role
	source   dissect.RoleSource
	oneSided bool
}

// part is a finished partition.
type part struct {
	names   *Names
	rows    []related // by client, then start
	clients []client  // by id
	intents []dissect.Intent
}

type related struct {
	rec      Record
	id       uint64
	service  string
	gap      int64
	client   int32
	intent   int32
	number   int32
	relation dissect.Relation
	twin     bool
	last     bool // of its intent
}

type client struct {
	dissect.Client
	from, to int // rows
}

// Finalise closes the store; begin and end are the first and last packet times
// of the whole capture. An error is one of the temporary file.
func (s *Store) Finalise(names *Names, hints dissect.Hints, begin, end int64) (*Result, error) {
	x := &Result{names: names, hints: hints, begin: begin, end: end, store: s, facts: s.gather(names), nodes: map[nodeKey]decided{}}
	answered, sided := false, false
	for k, n := range x.facts.nodes {
		d := decided{oneSided: n.oneSided && !n.answered}
		if len(n.votes) > 0 {
			best := slices.MaxFunc(n.votes, func(a, b vote) int {
				return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.n, b.n),
					strings.Compare(names.String(a.protocol), names.String(b.protocol)), cmp.Compare(a.role, b.role))
			})
			d.protocol, d.role, d.source = best.protocol, best.role, best.source
		}
		x.nodes[k] = d
		if k.proto == dissect.ProtoTCP {
			answered = answered || n.answered
			sided = sided || n.oneSided
		}
	}
	x.sided = sided && !answered
	if err := x.reunite(); err != nil {
		return nil, err
	}
	return x, nil
}

// Close gives memory and temporary file back.
func (x *Result) Close() error { return x.store.spool.close() }

// Len is the number of rows.
func (x *Result) Len() int64 { return x.facts.count }

// reunite copies records that say no identity to the partition of the one that
// their address lends them. There are none unless a protocol names its clients.
func (x *Result) reunite() error {
	if len(x.facts.homes) == 0 {
		return nil
	}
	var r Record
	for p := range Partitions {
		err := x.store.spool.each(p, func(data []byte) {
			for u := (unpacker{b: data}); len(u.b) > 0; {
				from := u.b
				u.record(&r)
				if key := x.borrowed(&r); key != 0 {
					if to := partitionOfKey(key); to != p {
						x.moved[to] = append(x.moved[to], from[:len(from)-len(u.b)]...)
					}
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// borrowed is the key that a record without one is given by its address.
func (x *Result) borrowed(r *Record) uint64 {
	if r.ClientKey != 0 {
		return 0
	}
	if l, ok := x.facts.homes[r.Source.Addr]; ok && !l.many {
		return l.key
	}
	return 0
}

// part finishes a partition.
func (x *Result) part(p int) (*part, error) {
	small := x.facts.count <= keptRecords
	if small {
		x.mu.Lock()
		kept := x.kept[p]
		x.mu.Unlock()
		if kept != nil {
			return kept, nil
		}
	}
	recs := make([]Record, 0, (x.store.spool.bytes(p)+len(x.moved[p]))/64)
	load := func(data []byte) {
		for u := (unpacker{b: data}); len(u.b) > 0; {
			recs = append(recs, Record{})
			u.record(&recs[len(recs)-1])
		}
	}
	if err := x.store.spool.each(p, load); err != nil {
		return nil, err
	}
	own := recs[:0]
	for i := range recs {
		if key := x.borrowed(&recs[i]); key == 0 || partitionOfKey(key) == p {
			own = append(own, recs[i])
		}
	}
	recs = own
	load(x.moved[p])
	out := x.finish(recs)
	if small {
		x.mu.Lock()
		x.kept[p] = out
		x.mu.Unlock()
	}
	return out, nil
}

func (x *Result) finish(recs []Record) *part {
	out := &part{names: x.names, rows: make([]related, len(recs))}
	services := map[string]string{}
	who := x.identify(recs)
	type key struct {
		start  int64
		client int32
		at     int32
	}
	order := make([]key, len(recs))
	for i := range recs {
		order[i] = key{recs[i].Start, who.of[i], int32(i)}
	}
	slices.SortFunc(order, func(a, b key) int {
		if a.client != b.client {
			return cmp.Compare(a.client, b.client)
		}
		if a.start != b.start {
			return cmp.Compare(a.start, b.start)
		}
		return compare(&recs[a.at], &recs[b.at])
	})
	for i, o := range order {
		r := &out.rows[i]
		r.rec = recs[o.at]
		x.describe(r, services)
		r.id = contentID(&r.rec)
		if i == 0 || o.client != order[i-1].client {
			c := who.clients[o.client]
			out.clients = append(out.clients, client{Client: c, from: i})
		}
		out.clients[len(out.clients)-1].to = i + 1
		r.client = int32(len(out.clients) - 1)
	}
	for i := range out.clients {
		out.relate(x, &out.clients[i])
	}
	return out
}

// compare orders records by content alone.
func compare(a, b *Record) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Digest, b.Digest),
		a.Source.Compare(b.Source), a.Destination.Compare(b.Destination),
		cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Txn, b.Txn),
		cmp.Compare(a.End, b.End), cmp.Compare(a.TunnelID, b.TunnelID), cmp.Compare(a.VLAN, b.VLAN))
}

func contentID(r *Record) uint64 {
	var buf [80]byte
	b := append(buf[:0], r.Source.Addr[:]...)
	b = append(b, r.Destination.Addr[:]...)
	b = binary.BigEndian.AppendUint16(b, r.Source.Port)
	b = binary.BigEndian.AppendUint16(b, r.Destination.Port)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Start))
	b = binary.BigEndian.AppendUint64(b, r.Txn)
	b = binary.BigEndian.AppendUint64(b, r.Digest)
	b = binary.BigEndian.AppendUint32(b, r.TunnelID)
	return dissect.Hash64(uint64(r.Proto), b)
}

// describe fills in what the node's other records know better, and names the
// service.
func (x *Result) describe(w *related, services map[string]string) {
	r := &w.rec
	d := x.nodes[nodeKey{r.Destination, r.Proto}]
	if d.protocol != 0 {
		if r.Protocol == 0 {
			r.Protocol = d.protocol
		}
		if r.Protocol == d.protocol && d.source > r.RoleSource {
			r.Role, r.RoleSource = d.role, d.source
		}
	}
	// Rule 17: silence of a node whose side was not captured proves nothing.
	if r.Proto == dissect.ProtoTCP && r.Outcome == dissect.OutcomeTimeout && r.DestinationPackets == 0 && (d.oneSided || x.sided) {
		r.Outcome, r.Evidence = dissect.OutcomeUnknown, dissect.EvidenceEdge
		r.Flags |= FlagOneSided
	}
	h := x.hints.Nodes[r.Destination]
	if h.Role != dissect.RoleUnknown {
		r.Role, r.RoleSource = h.Role, dissect.RoleSourceUser
	}
	s := h.Service
	if s == "" {
		switch {
		case r.Protocol != 0:
			s = x.names.String(r.Protocol) + "/" + r.Role.String()
		case r.Proto == dissect.ProtoUDP:
			s = "udp/" + strconv.Itoa(int(r.Destination.Port))
		default:
			s = "tcp/" + strconv.Itoa(int(r.Destination.Port))
		}
		if to, ok := x.hints.Services[s]; ok {
			s = to
		}
	}
	if known, ok := services[s]; ok {
		s = known
	} else {
		services[s] = s
	}
	w.service = s
}
