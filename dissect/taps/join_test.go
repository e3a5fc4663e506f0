package taps_test

import (
	"testing"

	"squall/dissect"
	"squall/dissect/taps"
)

func end(last byte, port uint16) dissect.Endpoint {
	return dissect.Endpoint{Addr: dissect.Addr4([]byte{10, 0, 0, last}), Port: port}
}

func segment(at int64, src, dst dissect.Endpoint, flags uint8, seq, ack uint32, ttl uint8) dissect.Datagram {
	return dissect.Datagram{Time: at, Class: dissect.ClassTCP, Proto: dissect.ProtoTCP, Flags: flags, TTL: ttl, Src: src.Addr, SrcPort: src.Port,
		Dst: dst.Addr, DstPort: dst.Port, Seq: seq, Ack: ack, IPID: uint16(seq), Window: 1000, IPLen: 40}
}

const ms = int64(1e6)

func TestNAT(t *testing.T) {
	inner, outer, node := end(1, 4444), end(200, 61000), end(9, 80)
	j := taps.NewJoiner(false)
	show := func(d dissect.Datagram) (src, dst dissect.Endpoint) {
		j.Datagram(&d)
		return d.Source(), d.Destination()
	}
	show(segment(0, inner, node, dissect.SYN, 7, 0, 64))
	if src, dst := show(segment(ms, outer, node, dissect.SYN, 7, 0, 63)); src != inner || dst != node {
		t.Fatalf("the SYN behind the NAT is %v > %v", src, dst)
	}
	if src, dst := show(segment(20*ms, node, outer, dissect.SYN|dissect.ACK, 100, 8, 60)); src != node || dst != inner {
		t.Errorf("its answer is %v > %v", src, dst)
	}
	icmp := dissect.Datagram{Time: 30 * ms, Class: dissect.ClassICMPError, Proto: dissect.ProtoICMP, Src: node.Addr, Dst: outer.Addr,
		Quoted: dissect.Quoted{Src: outer.Addr, SrcPort: outer.Port, Dst: node.Addr, DstPort: node.Port, Proto: dissect.ProtoTCP, HasSeq: true, Seq: 7}}
	j.Datagram(&icmp)
	if icmp.Dst != inner.Addr || icmp.Quoted.Src != inner.Addr || icmp.Quoted.SrcPort != inner.Port || icmp.Quoted.Seq != 7 {
		t.Errorf("an error about it: %+v", icmp)
	}
	// The port of the NAT serves another client now.
	other := end(2, 5555)
	show(segment(5000*ms, other, node, dissect.SYN, 99, 0, 64))
	if src, _ := show(segment(5001*ms, outer, node, dissect.SYN, 99, 0, 63)); src != other {
		t.Errorf("a port used again belongs to %v", src)
	}
	list, _ := j.NAT()
	if len(list) != 2 || list[0].Outer != outer.Addr || list[0].Inner != inner.Addr || list[1].Inner != other.Addr || list[0].Kind != "source" || list[0].Proofs != 1 {
		t.Errorf("pairs: %+v", list)
	}
}

func TestBalancer(t *testing.T) {
	client, vip, real := end(1, 4444), end(200, 80), end(9, 8080)
	j := taps.NewJoiner(false)
	a, b := segment(0, client, vip, dissect.SYN, 7, 0, 60), segment(ms, client, real, dissect.SYN, 7, 0, 59)
	j.Datagram(&a)
	j.Datagram(&b)
	if b.Destination() != vip {
		t.Errorf("behind the balancer the client talks to %v", b.Destination())
	}
	if list, _ := j.NAT(); len(list) != 1 || list[0].Kind != "destination" || list[0].Outer != vip.Addr || list[0].Inner != real.Addr {
		t.Errorf("pairs: %+v", list)
	}
}

// TestNoNAT: what looks alike and is not.
func TestNoNAT(t *testing.T) {
	node := end(9, 80)
	for name, second := range map[string]dissect.Datagram{
		"same TTL, same point": segment(ms, end(2, 4444), node, dissect.SYN, 7, 0, 64),
		"two seconds later":    segment(2000*ms, end(2, 4444), node, dissect.SYN, 7, 0, 63),
		"another ISN":          segment(ms, end(2, 4444), node, dissect.SYN, 8, 0, 63),
		"a whole path between": segment(ms, end(2, 4444), node, dissect.SYN, 7, 0, 20),
	} {
		j := taps.NewJoiner(false)
		first := segment(0, end(1, 4444), node, dissect.SYN, 7, 0, 64)
		j.Datagram(&first)
		want := second.Source()
		if j.Datagram(&second); second.Source() != want {
			t.Errorf("%s: taken for the other side of a NAT", name)
		}
	}
	// A tool whose SYNs are all alike from many addresses: at most the first few are taken for pairs.
	j := taps.NewJoiner(false)
	moved := 0
	for i := range byte(100) {
		d := segment(int64(i)*ms, end(i, 4444), node, dissect.SYN, 7, 0, 64-i%10)
		src := d.Source()
		if j.Datagram(&d); d.Source() != src {
			moved++
		}
	}
	if moved > 3 {
		t.Errorf("%d of 100 equal SYNs were joined", moved)
	}
}

// TestNetworks: the id of a network belongs to the key until an ISN proves one
// flow, by its copy or by its answer.
func TestNetworks(t *testing.T) {
	in := func(d dissect.Datagram, id uint32) *dissect.Datagram {
		d.Tunnel, d.TunnelID = dissect.TunnelVXLAN, id
		return &d
	}
	client, node := end(1, 4444), end(9, 80)
	j := taps.NewJoiner(false)
	for _, d := range []*dissect.Datagram{in(segment(0, client, node, dissect.SYN, 7, 0, 64), 100), in(segment(ms, node, client, dissect.SYN|dissect.ACK, 50, 8, 64), 200),
		in(segment(2*ms, node, client, dissect.ACK, 51, 8, 64), 200)} {
		if j.Datagram(d); d.TunnelID != 100 {
			t.Errorf("a flow in two networks: packet at %d has %d", d.Time, d.TunnelID)
		}
	}
	for _, d := range []*dissect.Datagram{in(segment(0, client, node, dissect.SYN, 70, 0, 64), 300), in(segment(ms, client, node, dissect.SYN, 71, 0, 64), 400)} {
		want := d.TunnelID
		if j.Datagram(d); d.TunnelID != want {
			t.Errorf("two flows with the same addresses in two networks were joined")
		}
	}
}

func TestDatagramsBehindNAT(t *testing.T) {
	j := taps.NewJoiner(true)
	joined := 0
	for i := range 5 {
		inner, outer, node := end(1, uint16(4000+i)), end(200, uint16(61000+i)), end(9, 7654)
		at := int64(i) * 1000 * ms
		a := dissect.Datagram{Time: at, Class: dissect.ClassUDP, Proto: dissect.ProtoUDP, TTL: 64, IPID: uint16(100 + i), Src: inner.Addr, SrcPort: inner.Port,
			Dst: node.Addr, DstPort: node.Port, Payload: []byte("sixteen bytes ab"), PayloadLen: 16}
		b := a
		b.Time, b.TTL, b.Src, b.SrcPort = at+ms, 63, outer.Addr, outer.Port
		j.Datagram(&a)
		if j.Datagram(&b); b.Source() == inner {
			joined++
		}
		// The same payload from another host to the same node is another datagram.
		c := a
		c.Time, c.IPID, c.Src = at+2*ms, uint16(900+i), end(3, 1).Addr
		if j.Datagram(&c); c.Src != end(3, 1).Addr {
			t.Error("two hosts that say the same were joined")
		}
	}
	if joined != 4 { // the first is a guess, the second proves it
		t.Errorf("%d of 5 exchanges were joined", joined)
	}
}

// TestJoinerAllocatesNothing while it finds nothing.
func TestJoinerAllocatesNothing(t *testing.T) {
	j := taps.NewJoiner(false)
	n := uint32(0)
	if got := testing.AllocsPerRun(1000, func() {
		n++
		d := segment(int64(n)*ms, end(1, uint16(n)), end(9, 80), dissect.SYN, n, 0, 64)
		j.Datagram(&d)
		d = segment(int64(n)*ms, end(9, 80), end(1, uint16(n)), dissect.SYN|dissect.ACK, 5, n+1, 64)
		j.Datagram(&d)
	}); got != 0 {
		t.Errorf("%.1f allocations", got)
	}
}
