package samples

import (
	"net/netip"
	"time"
)

// monitor is a balancer or a monitor that connects to every node at a fixed
// interval, whatever happens: the k-th every 2 + 3 k seconds. Every first one closes
// at once, every second one resets, and every third one says a word before it closes.
type monitor struct {
	w    *world
	k    int
	port uint16
}

func (m *monitor) every() int64 { return int64(2*second + time.Duration(m.k)*3*second) }

// round checks all nodes, a moment apart.
func (m *monitor) round() {
	w := m.w
	for i := range w.nodes {
		w.after(int64(i)*3e6+int64(w.rng.Float64()*5e6), func() { m.check(i) })
	}
	w.after(m.every(), m.round)
}

func (m *monitor) check(i int) {
	w := m.w
	n := w.nodes[i]
	if m.port++; m.port < 20000 {
		m.port = 20000
	}
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 249, 0, byte(1 + m.k)}), m.port)
	at := len(w.truth.Attempts)
	w.truth.Attempts = append(w.truth.Attempts, TrueAttempt{Client: -1 - m.k, Node: i, Source: src.String(), Target: n.addr.String(),
		Start: time.Duration(w.now), Outcome: "unknown", Relation: "monitor", Number: 1, Sends: 1})
	t := func() *TrueAttempt { return &w.truth.Attempts[at] }
	isn, nisn := w.rng.Uint32(), w.rng.Uint32()
	const rtt = 1e6
	w.packet(w.f.tcp(src, n.addr, syn, isn, 0, 0, nil), false)
	switch n.state {
	case "closed":
		w.packet(w.f.tcp(n.addr, src, rst|ack, 0, isn+1, 0, nil), true)
		t().Outcome = "refused"
		return
	case "down":
		t().Outcome = "timeout"
		w.after(1e9, func() {
			t().Sends = 2
			w.packet(w.f.tcp(src, n.addr, syn, isn, 0, 0, nil), false)
		})
		return
	}
	w.packet(w.f.tcp(n.addr, src, syn|ack, nisn, isn+1, 0, nil), true)
	t().Outcome = "stalled" // it hears no yes, and wants none
	w.after(rtt, func() {
		if m.k%3 == 1 {
			w.packet(w.f.tcp(src, n.addr, rst|ack, isn+1, nisn+1, 0, nil), false)
			return
		}
		w.packet(w.f.tcp(src, n.addr, ack, isn+1, nisn+1, 0, nil), false)
		seq, nseq := isn+1, nisn+1
		bye := func() {
			w.packet(w.f.tcp(src, n.addr, fin|ack, seq, nseq, 0, nil), false)
			w.after(100e3, func() { w.packet(w.f.tcp(n.addr, src, fin|ack, nseq, seq+1, 0, nil), true) })
			w.after(rtt, func() { w.packet(w.f.tcp(src, n.addr, ack, seq+1, nseq+1, 0, nil), false) })
		}
		if m.k%3 != 2 || n.state != "up" {
			bye()
			return
		}
		t().Outcome = "accepted"
		w.packet(w.f.tcp(src, n.addr, psh|ack, seq, nseq, 0, []byte("ruok")), false)
		seq += 4
		w.after(100e3, func() {
			w.packet(w.f.tcp(n.addr, src, psh|ack, nseq, seq, 0, []byte("imok")), true)
			nseq += 4
			w.after(rtt, bye)
		})
	})
}
