package attempt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"

	"squall/dissect"
)

// Partitions is the fixed number of parts that clients are spread over.
const Partitions = 64

// Result holds the finished rows. It is read-only and may be read at once by
// several goroutines.
type Result struct {
	names   *Names
	rows    []related
	clients []client // by id
	intents []dissect.Intent
	byTime  []int32 // rows by start, then id
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

// Finalise relates all records; begin and end are the first and last packet
// times of the whole capture. The store is empty afterwards.
func (s *Store) Finalise(names *Names, hints dissect.Hints, begin, end int64) (*Result, error) {
	recs, err := s.take()
	if err != nil {
		return nil, err
	}
	x := &Result{names: names}
	services := x.roles(recs, hints)
	ids := x.identify(recs)
	order := make([]int32, len(recs))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(strings.Compare(ids[a], ids[b]), compare(&recs[a], &recs[b]))
	})
	x.rows = make([]related, len(recs))
	for i, o := range order {
		r := &x.rows[i]
		r.rec, r.service, r.id = recs[o], services[o], contentID(&recs[o])
		if i == 0 || ids[o] != ids[order[i-1]] {
			x.clients = append(x.clients, client{Client: dissect.Client{ID: ids[o]}, from: i})
		}
		x.clients[len(x.clients)-1].to = i + 1
		r.client = int32(len(x.clients) - 1)
	}
	for i := range x.clients {
		x.relate(&x.clients[i], begin, end)
	}
	x.byTime = order
	for i := range x.byTime {
		x.byTime[i] = int32(i)
	}
	slices.SortFunc(x.byTime, func(a, b int32) int {
		p, q := &x.rows[a], &x.rows[b]
		return cmp.Or(cmp.Compare(p.rec.Start, q.rec.Start), cmp.Compare(p.id, q.id), cmp.Compare(a, b))
	})
	return x, nil
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

type nodeKey struct {
	at    dissect.Endpoint
	proto uint8
}

type vote struct {
	protocol Name
	role     dissect.Role
	source   dissect.RoleSource
	n        int
}

// roles settles protocol and role of each node by its strongest votes, fills
// them in where a record knows less, and names the services.
func (x *Result) roles(recs []Record, hints dissect.Hints) []string {
	nodes := map[nodeKey][]vote{}
	for i := range recs {
		r := &recs[i]
		if r.Protocol == 0 {
			continue
		}
		k := nodeKey{r.Destination, r.Proto}
		v := vote{r.Protocol, r.Role, r.RoleSource, 1}
		list := nodes[k]
		at := slices.IndexFunc(list, func(o vote) bool {
			return o.protocol == v.protocol && o.role == v.role && o.source == v.source
		})
		if at >= 0 {
			list[at].n++
		} else {
			nodes[k] = append(list, v)
		}
	}
	best := map[nodeKey]vote{}
	for k, list := range nodes {
		best[k] = slices.MaxFunc(list, func(a, b vote) int {
			return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.n, b.n),
				strings.Compare(x.names.String(a.protocol), x.names.String(b.protocol)), cmp.Compare(a.role, b.role))
		})
	}
	known := map[string]string{}
	out := make([]string, len(recs))
	for i := range recs {
		r := &recs[i]
		if v, ok := best[nodeKey{r.Destination, r.Proto}]; ok {
			if r.Protocol == 0 {
				r.Protocol = v.protocol
			}
			if r.Protocol == v.protocol && v.source > r.RoleSource {
				r.Role, r.RoleSource = v.role, v.source
			}
		}
		h := hints.Nodes[r.Destination]
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
			if to, ok := hints.Services[s]; ok {
				s = to
			}
		}
		if _, ok := known[s]; !ok {
			known[s] = s
		}
		out[i] = known[s]
	}
	return out
}

// identify names the client of each record: the identity inside the protocol,
// which an address with exactly one lends to its other records, else the
// address (rule 40).
func (x *Result) identify(recs []Record) []string {
	type lent struct {
		key  uint64
		many bool
	}
	by := map[dissect.Addr]lent{}
	names := map[uint64]string{}
	for i := range recs {
		r := &recs[i]
		if r.ClientKey == 0 {
			continue
		}
		id := x.names.String(r.ClientName)
		if id == "" {
			id = strconv.FormatUint(r.ClientKey, 16)
		}
		id = x.names.String(r.Protocol) + ":" + id
		if old, ok := names[r.ClientKey]; !ok || id < old {
			names[r.ClientKey] = id
		}
		l, ok := by[r.Source.Addr]
		by[r.Source.Addr] = lent{key: r.ClientKey, many: ok && (l.many || l.key != r.ClientKey)}
	}
	addrs := map[dissect.Addr]string{}
	out := make([]string, len(recs))
	for i := range recs {
		r := &recs[i]
		key := r.ClientKey
		if l, ok := by[r.Source.Addr]; key == 0 && ok && !l.many {
			key = l.key
		}
		if key != 0 {
			r.ClientKey = key
			out[i] = names[key]
			continue
		}
		a, ok := addrs[r.Source.Addr]
		if !ok {
			a = r.Source.Addr.String()
			addrs[r.Source.Addr] = a
		}
		out[i] = a
	}
	return out
}

// Visit runs one visitor per partition, partitions in parallel; within one,
// clients come in the order of their ids.
func (x *Result) Visit(workers int, newVisitor func(partition int) dissect.Visitor) {
	var wg sync.WaitGroup
	next := make(chan int, Partitions)
	parts := make([][]int, Partitions)
	for i := range x.clients {
		p := dissect.Hash64(0, []byte(x.clients[i].ID)) % Partitions
		parts[p] = append(parts[p], i)
	}
	for p := range Partitions {
		next <- p
	}
	close(next)
	for range max(workers, 1) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var a dissect.Attempt
			for p := range next {
				v := newVisitor(p)
				for _, i := range parts[p] {
					c := x.clients[i]
					v.Client(&c.Client)
					for j := c.from; j < c.to; j++ {
						x.fill(&x.rows[j], &a)
						v.Attempt(&a)
						if x.rows[j].last {
							in := x.intents[x.rows[j].intent]
							v.Intent(&in)
						}
					}
				}
			}
		}()
	}
	wg.Wait()
}

// Attempts gives the rows by start, then id. The struct is reused.
func (x *Result) Attempts() iter.Seq2[*dissect.Attempt, error] {
	return func(yield func(*dissect.Attempt, error) bool) {
		var a dissect.Attempt
		for _, i := range x.byTime {
			x.fill(&x.rows[i], &a)
			if !yield(&a, nil) {
				return
			}
		}
	}
}

// Intents gives the intents by start, then id. The struct is reused.
func (x *Result) Intents() iter.Seq2[*dissect.Intent, error] {
	return func(yield func(*dissect.Intent, error) bool) {
		order := make([]int32, len(x.intents))
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortFunc(order, func(a, b int32) int {
			p, q := &x.intents[a], &x.intents[b]
			return cmp.Or(cmp.Compare(p.Start, q.Start), cmp.Compare(p.ID, q.ID), cmp.Compare(a, b))
		})
		for _, i := range order {
			in := x.intents[i]
			if !yield(&in, nil) {
				return
			}
		}
	}
}

// Walk visits the clients by id, one after the other.
func (x *Result) Walk(visit func(c *dissect.Client, attempts iter.Seq[*dissect.Attempt]) bool) {
	var a dissect.Attempt
	for i := range x.clients {
		c := x.clients[i]
		rows := func(yield func(*dissect.Attempt) bool) {
			for j := c.from; j < c.to; j++ {
				x.fill(&x.rows[j], &a)
				if !yield(&a) {
					return
				}
			}
		}
		if !visit(&c.Client, rows) {
			return
		}
	}
}

func (x *Result) fill(w *related, a *dissect.Attempt) {
	r, c := &w.rec, &x.clients[w.client]
	h := r.History[:]
	if n := bytes.IndexByte(h, 0); n >= 0 {
		h = h[:n]
	}
	in := &x.intents[w.intent]
	*a = dissect.Attempt{
		ID: w.id, IntentID: in.ID, Start: r.Start, End: r.End,
		Source: r.Source, Destination: r.Destination, Proto: r.Proto,
		Protocol: x.names.String(r.Protocol), Op: x.names.String(r.Op), Rung: x.names.String(r.Rung),
		Service: w.service, Role: r.Role, RoleSource: r.RoleSource,
		ClientID: c.ID, ClientIDLevel: c.Level, ClientVersion: c.Version,
		Relation: w.relation, Number: w.number, Outcome: r.Outcome, Evidence: r.Evidence, Answer: r.Answer,
		Late: r.Flags&FlagLate != 0, OneSided: r.Flags&FlagOneSided != 0, Censored: in.Censored,
		Transmissions: r.Transmissions, HandshakeRTT: r.HandshakeRTT, RetryGap: w.gap, RetryAfter: r.RetryAfter,
		AnsweredAt: r.AnsweredAt, SessionEnd: r.SessionEnd, SessionEnded: r.SessionEnded,
		SourcePackets: r.SourcePackets, SourceBytes: r.SourceBytes,
		DestinationPackets: r.DestinationPackets, DestinationBytes: r.DestinationBytes,
		History: string(h), VLAN: r.VLAN, Tunnel: r.Tunnel, TunnelID: r.TunnelID,
		File: r.File, FirstFrame: r.FirstFrame, LastFrame: r.LastFrame, FirstOffset: r.FirstOffset,
	}
}
