package samples

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"squall/capture"
)

// TapNames are the capture points of SimulateTaps, in its order.
var TapNames = [...]string{"east", "west", "branch"}

const (
	tapEast = iota
	tapWest
	tapBranch
	numTaps
)

// TapCase is how an outage is seen by three taps. East has the nodes of one
// place as they are; west, a VXLAN mirror of the nodes of another, reorders and
// loses; branch stands before the NAT of an office with a tenth of the clients,
// whose packets east or west sees behind it.
type TapCase struct {
	Offset [numTaps]time.Duration // how far each clock is ahead at the beginning
	Drift  [numTaps]float64       // and how much it runs fast, in millionths
	// Loss of the mirror at the peak of the outage; it rises to that and falls again.
	Loss               float64
	LossFrom, LossPeak time.Duration
	LossTo             time.Duration
	Reorder            float64       // share of the mirror's packets that come late
	Late               time.Duration // by up to this
	Latency            time.Duration // least from the branch to the nodes, one way
	Jitter             time.Duration // mean of what comes to that
}

// DefaultTapCase is the case that squall sample --taps writes.
func DefaultTapCase(sc *Scenario) TapCase {
	return TapCase{Offset: [numTaps]time.Duration{0, -2500 * time.Millisecond, 137 * time.Millisecond}, Drift: [numTaps]float64{0, -20, 12},
		Loss: 0.4, LossFrom: sc.Trigger, LossPeak: sc.Trigger + sc.Duration/20, LossTo: sc.Trigger + sc.Duration/10,
		Reorder: 0.05, Late: 3 * time.Millisecond, Latency: 6 * time.Millisecond, Jitter: time.Millisecond}
}

// loss is what the mirror loses at a time: up and down again, as a triangle.
func (c *TapCase) loss(at time.Duration) float64 {
	switch {
	case at <= c.LossFrom || at >= c.LossTo:
		return 0
	case at < c.LossPeak:
		return c.Loss * float64(at-c.LossFrom) / float64(c.LossPeak-c.LossFrom)
	}
	return c.Loss * float64(c.LossTo-at) / float64(c.LossTo-c.LossPeak)
}

// Stamp is what the clock of a tap shows at a time.
func (c *TapCase) Stamp(tap int, at int64) int64 {
	return at + int64(c.Offset[tap]) + int64(math.Round(float64(at-Epoch)*c.Drift[tap]*1e-6))
}

const vni = 4711

var natAddr = netip.MustParseAddr("203.0.113.77")

// Branch says whether a client sits behind the NAT of the office.
func Branch(client netip.Addr) bool {
	b := client.As4()
	return (int(b[1])*7+int(b[2])*31+int(b[3]))%10 == 0
}

// SimulateTaps simulates an outage and gives each tap its packets by its clock,
// in the order in which it wrote them.
func SimulateTaps(sc Scenario, c TapCase, seed uint64) (packets [numTaps][]capture.Packet, truth *Truth, err error) {
	rng := rand.New(rand.NewPCG(seed, 0x7a95))
	ports := map[netip.AddrPort]uint16{} // of the NAT
	nodes := map[netip.Addr]bool{}
	put := func(tap int, at int64, data []byte) {
		packets[tap] = append(packets[tap], capture.Packet{Time: c.Stamp(tap, at), Data: data, OrigLen: len(data), Link: capture.LinkEthernet})
	}
	next := uint16(30000)
	truth, err = Simulate(sc, seed, func(p *capture.Packet) {
		data := slices.Clone(p.Data)
		ip := data[14:]
		if binary.BigEndian.Uint16(data[12:]) != 0x0800 || ip[9] != 6 && ip[9] != 17 && ip[9] != 1 {
			put(tapEast, p.Time, data)
			return
		}
		src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		client, node, toNode := src, dst, true
		if !clientSide(src) {
			client, node, toNode = dst, src, false
		}
		at := p.Time
		if clientSide(client) && Branch(client) {
			inner := slices.Clone(data)
			away := int64(c.Latency) + int64(rng.ExpFloat64()*float64(c.Jitter))
			if toNode {
				put(tapBranch, at-away, inner)
			} else {
				inner[14+8]--
				sums(inner)
				put(tapBranch, at+away, inner)
			}
			if translate(data, toNode, func(port uint16) uint16 {
				from := netip.AddrPortFrom(client, port)
				if ports[from] == 0 {
					ports[from] = next
					if next++; next == 0 {
						next = 1024
					}
				}
				return ports[from]
			}) && toNode {
				data[14+8]--
			}
			sums(data)
		}
		if nodes[node] = true; node.As4()[3]%4 != 3 {
			put(tapEast, at, data)
			return
		}
		if rng.Float64() < c.loss(time.Duration(at-Epoch)) {
			return
		}
		if rng.Float64() < c.Reorder {
			at += int64(rng.Float64() * float64(c.Late))
		}
		put(tapWest, at, mirrored(data))
	})
	for tap := range packets {
		slices.SortStableFunc(packets[tap], func(a, b capture.Packet) int { return cmp.Compare(a.Time, b.Time) })
		for i := range packets[tap] {
			packets[tap][i].Frame = int64(i + 1)
		}
	}
	return packets, truth, err
}

// clientSide tells the clients' addresses from those of nodes and of strangers.
func clientSide(a netip.Addr) bool { return a.As4()[0] == 10 }

// translate gives the client of a frame the address of the NAT, also where an
// ICMP error quotes it.
func translate(frame []byte, toNode bool, port func(uint16) uint16) bool {
	ip := frame[14:]
	l4 := ip[20:]
	put := func(ip, l4 []byte, source bool) {
		addr, at := ip[16:20], l4[2:4]
		if source {
			addr, at = ip[12:16], l4[0:2]
		}
		a := natAddr.As4()
		copy(addr, a[:])
		binary.BigEndian.PutUint16(at, port(binary.BigEndian.Uint16(at)))
	}
	if ip[9] != 1 {
		put(ip, l4, toNode)
		return true
	}
	if toNode || len(l4) < 8+24 || l4[0] != 3 {
		return false
	}
	a := natAddr.As4()
	copy(ip[16:20], a[:])
	put(l4[8:], l4[28:], true)
	return true
}

// sums makes the checksums of a frame right again.
func sums(frame []byte) {
	ip := frame[14:]
	n := int(binary.BigEndian.Uint16(ip[2:]))
	l4 := ip[20:n]
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], fold(sum16(ip[:20], 0)))
	src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	at, start := 16, pseudo(src, dst, ip[9], len(l4))
	switch ip[9] {
	case 17:
		at = 6
	case 1:
		at, start = 2, 0
	}
	binary.BigEndian.PutUint16(l4[at:], 0)
	c := fold(sum16(l4, start))
	if c == 0 && ip[9] == 17 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(l4[at:], c)
}

// mirrored wraps a frame as a mirror sends it: RFC 7348.
func mirrored(frame []byte) []byte {
	from, to := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	head := []byte{8, 0, 0, 0, vni >> 16, vni >> 8 & 0xff, vni & 0xff, 0}
	return newFrames().udp(netip.AddrPortFrom(from, 49152), netip.AddrPortFrom(to, 4789), append(head, frame...))
}
