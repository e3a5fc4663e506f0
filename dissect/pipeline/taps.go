package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/storm"
	"squall/dissect/taps"
)

const (
	// copyWithin is how long after its first sighting a packet may come by
	// another tap, where no survey has said; between interfaces of one host it is
	// less. Retransmissions, which at a tap without IP ids and timestamps look
	// alike, come after 200 ms and more.
	copyWithin     = int64(200e6)
	copyWithinHost = int64(20e6)
	mostCopyWithin = int64(900e6)
	// maxTunnels is how many network ids of a tap are listed.
	maxTunnels = 64
)

// Seen is how a flow was found at several points, or from behind a NAT.
type Seen struct {
	NAT     []taps.NAT
	MoreNAT int64 // proofs of pairs beyond the ceiling
	Pairs   []taps.Pair
	// Loss is what receivers acknowledged and the capture has, or has not, in
	// stretches of 1<<Coarse s.
	Loss   []attempt.Loss
	Coarse uint
	// Taps is the same for each of several taps, as if the others did not
	// exist; nil = there is one tap, and Loss is its own.
	Taps []TapLoss `json:",omitempty"`

	// Again are attempts that several pieces of a merge saw, and that count once.
	Again int64 `json:",omitempty"`
	// Apart are taps that were analysed apart from others, so that clocks and
	// addresses were not compared.
	Apart []string `json:",omitempty"`

	Tunnels []Network
}

// Loss is what was missed in a stretch of time.
type Loss = attempt.Loss

// TapLoss is the loss of one tap, in stretches of 1<<Coarse s.
type TapLoss struct {
	Observer string
	Loss     []attempt.Loss
	Coarse   uint
}

// Sum is the loss of the tap over all its time.
func (t *TapLoss) Sum() (sum attempt.Loss) {
	for i := range t.Loss {
		sum.Seen += t.Loss[i].Seen
		sum.Unseen += t.Loss[i].Unseen
		sum.Segments += t.Loss[i].Segments
	}
	return sum
}

// NAT is a pair of addresses that one packet bore.
type NAT = taps.NAT

// Network is a network id of a tunnel that a tap saw.
type Network struct {
	Observer string
	Tunnel   dissect.Tunnel
	ID       uint32
	Packets  int64
}

// points tells capture points apart while packets are read.
type points struct {
	tap    []uint8 // of each input
	names  []string
	within int64
	many   bool
	nets   []map[uint64]*Network // by tap
	last   *Network
	lastOf uint64
	lastAt uint8
}

func newPoints(files []capture.FileStats, found *taps.Clocks) *points {
	p := &points{tap: make([]uint8, len(files))}
	for i := range files {
		n := slices.Index(p.names, files[i].Observer)
		if n < 0 {
			n = len(p.names)
			p.names = append(p.names, files[i].Observer)
			p.nets = append(p.nets, map[uint64]*Network{})
		}
		p.tap[i] = uint8(n)
		if files[i].Interfaces > 1 || slices.Contains(files[i].LinkTypes, capture.LinkLinuxSLL) || slices.Contains(files[i].LinkTypes, capture.LinkLinuxSLL2) {
			p.many, p.within = true, copyWithinHost
		}
	}
	if len(p.names) > 1 {
		p.many, p.within = true, copyWithin
		if found != nil && found.Apart > 0 {
			p.within = min(max(2*found.Apart, copyWithinHost), mostCopyWithin)
		}
	}
	return p
}

// taps is the tap of each input; nil = there is one.
func (p *points) taps() []uint8 {
	if len(p.names) < 2 {
		return nil
	}
	return p.tap
}

// note says at which point a packet was seen.
func (p *points) note(k *capture.Packet, d *dissect.Datagram) {
	tap := uint8(0)
	if int(k.File) < len(p.tap) {
		tap = p.tap[k.File]
	}
	if p.many {
		d.Point = d.Point*17 + tap*53 + uint8(k.Iface)*7
	}
	if d.Tunnel == dissect.TunnelNone || len(p.nets) == 0 {
		return
	}
	key := uint64(d.Tunnel)<<32 | uint64(d.TunnelID)
	if p.last == nil || p.lastOf != key || p.lastAt != tap {
		n := p.nets[tap][key]
		if n == nil {
			if len(p.nets[tap]) >= maxTunnels {
				return
			}
			n = &Network{p.names[tap], d.Tunnel, d.TunnelID, 0}
			p.nets[tap][key] = n
		}
		p.last, p.lastOf, p.lastAt = n, key, tap
	}
	p.last.Packets++
}

// networks lists what note found.
func (p *points) networks() (out []Network) {
	for _, of := range p.nets {
		for _, n := range of {
			out = append(out, *n)
		}
	}
	slices.SortFunc(out, func(a, b Network) int {
		return cmp.Or(cmp.Compare(a.Observer, b.Observer), cmp.Compare(a.Tunnel, b.Tunnel), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Seen tells what the run knows of several points.
func (a *Analysis) Seen() *Seen { return &a.seen }

// join adds what another run saw.
func (s *Seen) join(o *Seen, captures []Capture) {
	s.addTaps(o.taps(captures))
	s.addLoss(o.Loss, o.Coarse)
	s.Again += o.Again
	s.Apart = append(s.Apart, o.Apart...)
	s.NAT, s.MoreNAT = append(s.NAT, o.NAT...), s.MoreNAT+o.MoreNAT
	s.Pairs, s.Tunnels = append(s.Pairs, o.Pairs...), append(s.Tunnels, o.Tunnels...)
}

// share adds what another shard of the same run saw. It has seen all else, too.
func (s *Seen) share(o *Seen) {
	s.Taps = slices.Clone(s.Taps)
	s.addTaps(o.Taps)
	s.addLoss(o.Loss, o.Coarse)
}

func (s *Seen) addLoss(list []attempt.Loss, coarse uint) {
	s.Loss, s.Coarse = attempt.JoinLosses(slices.Concat(s.Loss, list), max(s.Coarse, coarse))
}

func (s *Seen) addTaps(list []TapLoss) {
	for _, t := range list {
		n := slices.IndexFunc(s.Taps, func(u TapLoss) bool { return u.Observer == t.Observer })
		if n < 0 {
			s.Taps = append(s.Taps, t)
			continue
		}
		u := &s.Taps[n]
		u.Loss, u.Coarse = attempt.JoinLosses(slices.Concat(u.Loss, t.Loss), max(u.Coarse, t.Coarse))
	}
}

// taps gives the loss by tap, also where there is one.
func (s *Seen) taps(captures []Capture) []TapLoss {
	if s.Taps != nil || len(s.Loss) == 0 {
		return s.Taps
	}
	name := ""
	for i := range captures {
		name = cmp.Or(name, captures[i].Observer)
	}
	return []TapLoss{{name, s.Loss, s.Coarse}}
}

// TapLosses gives what each tap missed of what receivers acknowledged, by time.
func (a *Analysis) TapLosses() []TapLoss { return a.seen.taps(a.captures) }

// observe says in a report what its taps and their clocks mean for it.
func (a *Analysis) observe(r *storm.Report, zone *time.Location) {
	note := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	var worst int64
	unknown := false
	said := map[string]bool{}
	for i := range a.captures {
		c := &a.captures[i]
		if c.Clock.Source == "" || said[c.Observer] {
			continue
		}
		said[c.Observer] = true
		note("%s", taps.Words(c.Observer, &c.Clock))
		if c.Clock.Bound < 0 {
			unknown = true
		}
		worst = max(worst, c.Clock.Bound)
	}
	for i := range a.seen.Pairs {
		note("%s", a.seen.Pairs[i].Words())
	}
	var copies int64
	for i := range a.captures {
		if c := &a.captures[i]; c.Dataset() == "packets" {
			copies += c.Ledger[dissect.BucketCopy]
		} else if words := c.BothWords(); words != "" {
			note("%s", words)
		}
	}
	if copies > 0 {
		note("%d packets were seen at a second point too, and count where they were seen first, under the addresses nearest to the client", copies)
	}
	if n := a.seen.Again; n > 0 {
		note("%d attempts were in several of the analyses that were merged, and count once, as the earlier one has them", n)
	}
	if len(a.seen.Apart) > 0 {
		note("%s were analysed apart: their clocks were not compared, nor were addresses that NAT changed; one analyze of all taps, or shards of that, does both", strings.Join(a.seen.Apart, ", "))
	}
	if n := len(a.seen.NAT); n > 0 {
		note("%d pairs of addresses before and behind NAT or a balancer (squall report nat)", n)
	}
	var loss attempt.Loss
	for _, l := range a.seen.Loss {
		loss.Seen += l.Seen
		loss.Unseen += l.Unseen
	}
	if lossy := a.lossy(); len(lossy) > 0 || loss.Share() >= 0.01 {
		var long int64
		for i, s := range lossy {
			if long += s.End - s.Start; i < 5 {
				note("from %s to %s the capture lacks 20 %% and more of what was acknowledged: the calm is not learned from it", at(s.Start, zone), at(s.End, zone))
			}
		}
		heavy := ""
		if long > 0 {
			heavy = fmt.Sprintf(", and was for %s under heavy loss", time.Duration(long))
		}
		note("the capture lacks about %.1f %% of the bytes that TCP acknowledged%s; SYNs and datagrams that it lost cannot be seen, so attempts are rather more than were counted",
			100*loss.Share(), heavy)
	}
	if len(said) < 2 {
		return
	}
	if unknown {
		doubt(r, "the clocks of the taps could not be compared from both sides: the order of what happened at different taps is not proven")
	}
	// The falls of two nodes that are closer than the clocks agree have no order.
	type fall struct {
		node dissect.Endpoint
		at   int64
		tap  string
	}
	var falls []fall
	for i := range r.Nodes {
		if n := &r.Nodes[i]; len(n.Periods) > 0 {
			tap := ""
			if f := n.Periods[0].File; int(f) < len(a.captures) {
				tap = a.captures[f].Observer
			}
			falls = append(falls, fall{n.At, n.Periods[0].Start, tap})
		}
	}
	slices.SortStableFunc(falls, func(a, b fall) int { return cmp.Compare(a.at, b.at) })
	close := 0
	for i := 1; i < len(falls); i++ {
		if apart := falls[i].at - falls[i-1].at; apart <= worst && falls[i].tap != falls[i-1].tap {
			if close++; close <= 5 {
				note("%s and %s went down %s apart, and the clocks of the taps agree to %s: which was first is not proven",
					falls[i-1].node, falls[i].node, time.Duration(apart), time.Duration(worst))
			}
			if i == 1 {
				doubt(r, "the first two nodes went down closer together than the clocks of the taps agree")
			}
		}
	}
	if close > 5 {
		note("and %d more pairs of nodes so close", close-5)
	}
}

// doubt lowers the confidence of what rests on an order in time: a cascade.
func doubt(r *storm.Report, why string) {
	lower := func(f *storm.Finding) {
		if f.Cascade && f.Confidence > storm.Medium {
			f.Confidence = storm.Medium
			f.Reasons = append(f.Reasons, why)
		}
	}
	for i := range r.Findings {
		lower(&r.Findings[i])
	}
	lower(&r.Verdict)
}

func at(ns int64, zone *time.Location) string {
	t := time.Unix(0, ns).UTC()
	if zone != nil {
		t = t.In(zone)
	}
	return t.Format("15:04:05")
}

// lossy are the stretches of time under heavy loss.
func (a *Analysis) lossy() (out []storm.Span) {
	for i := range a.seen.Loss {
		l := &a.seen.Loss[i]
		if !l.Heavy() {
			continue
		}
		s := storm.Span{Start: l.At * second, End: (l.At + 1<<a.seen.Coarse) * second}
		if n := len(out); n > 0 && out[n-1].End >= s.Start {
			out[n-1].End = s.End
			continue
		}
		out = append(out, s)
	}
	return out
}
