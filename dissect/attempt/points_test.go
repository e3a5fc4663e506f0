package attempt

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"squall/dissect"
)

func binaryProxy(src string, command byte) string {
	a, node := netip.MustParseAddr(src), netip.MustParseAddr("10.0.0.9")
	family := byte(0x11)
	if a.Is6() {
		family, node = 0x21, netip.MustParseAddr("2001:db8::9")
	}
	body := append(a.AsSlice(), node.AsSlice()...)
	body = append(body, 0x11, 0x22, 0x01, 0xbb, 0x03, 0, 4, 1, 2, 3, 4) // ports, a TLV
	b := append([]byte(proxyBinary), 0x20|command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(body)))) + string(body)
}

func TestProxyProtocol(t *testing.T) {
	for name, c := range map[string]struct{ head, client string }{
		"version 1":          {"PROXY TCP4 192.0.2.7 10.0.0.9 51514 443\r\n", "192.0.2.7"},
		"version 1, IPv6":    {"PROXY TCP6 2001:db8::7 2001:db8::9 51514 443\r\n", "2001:db8::7"},
		"version 1, unknown": {"PROXY UNKNOWN\r\n", ""},
		"version 2":          {binaryProxy("192.0.2.7", 1), "192.0.2.7"},
		"version 2, IPv6":    {binaryProxy("2001:db8::7", 1), "2001:db8::7"},
		"version 2, local":   {binaryProxy("192.0.2.7", 0), ""},
		"none":               {"", ""},
	} {
		all := c.head + "REG 7\n"
		for cut := range len(all) { // in two segments, cut anywhere
			packets := []*dissect.Datagram{pk(0, true, dissect.SYN, 1, 0, ""), pk(10, false, sa, 50, 2, ""), pk(20, true, dissect.ACK, 2, 51, "")}
			if cut > 0 {
				packets = append(packets, pk(30, true, dissect.ACK, 2, 51, all[:cut]))
			}
			packets = append(packets, pk(40, true, dissect.ACK, 2+uint32(cut), 51, all[cut:]), pk(50, false, dissect.ACK, 51, 2+uint32(len(all)), "OK 7\n"))
			rows, e := run(t, Config{Protocols: []dissect.Protocol{line{}}}, 60, packets...)
			if len(rows) != 1 {
				t.Fatalf("%s, cut at %d: %d rows", name, cut, len(rows))
			}
			r := rows[0]
			want := hostC.Addr
			if c.client != "" {
				want = dissect.AddrFrom(netip.MustParseAddr(c.client))
			}
			if *r.client() != want || r.Source != hostC || r.Outcome != dissect.OutcomeAccepted || e.names.String(r.Protocol) != "line" {
				t.Errorf("%s, cut at %d: client %v of %v, %v by %q", name, cut, r.client(), r.Source, r.Outcome, e.names.String(r.Protocol))
			}
			u := unpacker{b: appendRecord(nil, &r)}
			var back Record
			if u.record(&back); u.broken || back.Behind != r.Behind {
				t.Errorf("%s: packed and back: %v", name, back.Behind)
			}
		}
	}
	for _, bad := range []string{"PROXY \r\n", "PROXY " + string(make([]byte, 200)), string(proxyBinary) + "\x11\x11\x00\x00"} {
		if client, n, err := readProxy([]byte(bad)); client != (dissect.Addr{}) || n > len(bad) || err == dissect.ErrShort {
			t.Errorf("%q: %v, %d, %v", bad, client, n, err)
		}
	}
}

// TestCopies: what a packet changes on its way makes it no other packet, and a
// retransmission is none of its copies.
func TestCopies(t *testing.T) {
	at := func(d *dissect.Datagram, change func(*dissect.Datagram)) *dissect.Datagram {
		e := *d
		change(&e)
		return &e
	}
	syn := pk(0, true, dissect.SYN, 1, 0, "")
	syn.TTL, syn.IPID = 64, 100
	later := func(d *dissect.Datagram, by int64) { d.Time += by * 1e6 }
	again := at(syn, func(d *dissect.Datagram) { later(d, 1000); d.IPID = 101 })
	packets := []*dissect.Datagram{syn,
		at(syn, func(d *dissect.Datagram) { later(d, 1); d.TTL = 63 }),                    // behind a router
		at(syn, func(d *dissect.Datagram) { later(d, 2); d.Tunnel = dissect.TunnelIPIP }), // from a balancer to the node (DSR)
		at(syn, func(d *dissect.Datagram) { later(d, 3); d.VLAN = 7 }),                    // the same point again
		again, at(again, func(d *dissect.Datagram) { later(d, 2); d.Tunnel, d.TTL = dissect.TunnelIPIP, 63 }), // a true retransmission, and its copy
		at(pk(1100, false, sa, 50, 2, ""), func(d *dissect.Datagram) { d.TTL = 64 }), pk(1110, true, dissect.ACK, 2, 51, ""), // the answer goes straight to the client
		pk(1120, true, dissect.ACK, 2, 51, "ask"), pk(1130, false, dissect.ACK, 51, 5, "yes"),
	}
	rows, e := run(t, Config{}, 2000, packets...)
	l := e.Ledger(0)
	if len(rows) != 1 || rows[0].Transmissions != 2 || rows[0].Outcome != dissect.OutcomeAccepted {
		t.Errorf("%d rows, %+v", len(rows), rows)
	}
	if l[dissect.BucketCopy] != 3 || l[dissect.BucketDuplicate] != 1 {
		t.Errorf("%d copies and %d duplicates, want 3 and 1", l[dissect.BucketCopy], l[dissect.BucketDuplicate])
	}
	// At another tap 80 ms away; equal acknowledgements are copies there, and repeats here.
	ack := pk(0, true, dissect.ACK, 2, 51, "")
	ack.IPID = 0
	far := func(d *dissect.Datagram, by int64) *dissect.Datagram {
		return at(d, func(d *dissect.Datagram) { later(d, by); d.Point = 53 })
	}
	second := at(ack, func(d *dissect.Datagram) { later(d, 1) })
	for within, want := range map[int64]int64{0: 0, 200e6: 3} {
		_, e := run(t, Config{CopyWithin: within}, 300, syn, ack, second, far(syn, 80), far(ack, 80), far(second, 81))
		if l := e.Ledger(0); l[dissect.BucketCopy] != want {
			t.Errorf("copies within %d ms: %d, want %d", within/1e6, l[dissect.BucketCopy], want)
		}
	}
}

// TestLoss: bytes that were acknowledged and never seen are counted; late and
// reordered ones are not, nor the direction that a tap does not see at all.
func TestLoss(t *testing.T) {
	hand := []*dissect.Datagram{pk(0, true, dissect.SYN, 1, 0, ""), pk(10, false, sa, 50, 2, ""), pk(20, true, dissect.ACK, 2, 51, "")}
	with := func(more ...*dissect.Datagram) []*dissect.Datagram {
		return append(append([]*dissect.Datagram{}, hand...), more...)
	}
	up := func(at int64, seq uint32, text string) *dissect.Datagram {
		return pk(at, true, dissect.ACK, seq, 51, text)
	}
	ack := func(at int64, ack uint32) *dissect.Datagram { return pk(at, false, dissect.ACK, 51, ack, "") }
	for name, c := range map[string]struct {
		packets      []*dissect.Datagram
		seen, unseen int64
	}{
		"all seen":             {with(up(30, 2, "abcde"), ack(40, 7), up(50, 7, "fgh"), ack(60, 10)), 9, 0},
		"a segment is missing": {with(up(30, 2, "abcde"), up(50, 10, "ijk"), ack(60, 13)), 9, 3},
		"the last is missing":  {with(up(30, 2, "abcde"), ack(60, 10)), 6, 3},
		"reordered":            {with(up(30, 7, "fgh"), up(31, 2, "abcde"), ack(60, 10)), 9, 0},
		"after its ack":        {with(up(30, 2, "abcde"), ack(40, 10), up(41, 7, "fgh")), 9, 0},
		"sent again":           {with(up(30, 2, "abcde"), up(230, 2, "abcde"), ack(240, 7)), 6, 0},
		"SYN-ACK missing":      {[]*dissect.Datagram{hand[0], hand[2], up(30, 2, "abcde"), pk(40, false, dissect.ACK, 51, 7, "yes")}, 8, 1},
		"one-sided":            {[]*dissect.Datagram{hand[0], hand[2], pk(30, true, dissect.ACK, 2, 51, "a"), pk(40, true, dissect.ACK, 3, 900, "b")}, 2, 0},
	} {
		_, e := run(t, Config{}, 1000, c.packets...)
		list, shift := Losses([]*Engine{e})
		var sum Loss
		for _, l := range list {
			sum.Seen, sum.Unseen = sum.Seen+l.Seen, sum.Unseen+l.Unseen
		}
		if sum.Seen != c.seen || sum.Unseen != c.unseen || shift != 0 {
			t.Errorf("%s: %d seen and %d unseen, want %d and %d", name, sum.Seen, sum.Unseen, c.seen, c.unseen)
		}
	}
	// Two taps: one has all, the other misses a segment and the SYN-ACK; of a
	// packet that one has nothing is lost.
	both := with(up(30, 2, "abcde"), ack(40, 7), up(50, 7, "fgh"), ack(60, 10))
	for i, d := range both {
		if other := *d; i != 1 && i != 5 {
			other.File, other.TTL, other.Time = 1, d.TTL-1, d.Time+1e6
			both = append(both, &other)
		}
	}
	slices.SortStableFunc(both, func(a, b *dissect.Datagram) int { return cmp.Compare(a.Time, b.Time) })
	e := NewEngine(Config{CopyWithin: 200e6, Taps: []uint8{0, 1}}, NewNames(0), func(*Record) {})
	for _, d := range both {
		e.Datagram(d)
	}
	total := func(list []Loss, _ uint) (sum Loss) {
		for _, l := range list {
			sum.Seen, sum.Unseen = sum.Seen+l.Seen, sum.Unseen+l.Unseen
		}
		return sum
	}
	for name, c := range map[string]struct {
		got          Loss
		seen, unseen int64
	}{
		"together":   {total(Losses([]*Engine{e})), 9, 0},
		"the first":  {total(TapLosses([]*Engine{e}, 0)), 9, 0},
		"the second": {total(TapLosses([]*Engine{e}, 1)), 5, 4},
	} {
		if c.got.Seen != c.seen || c.got.Unseen != c.unseen {
			t.Errorf("two taps, %s: %d seen and %d unseen, want %d and %d", name, c.got.Seen, c.got.Unseen, c.seen, c.unseen)
		}
	}
	var m lossMeter
	for i := range int64(3 * maxLossSeconds) {
		l := m.at(i * second)
		l.Seen, l.Segments = l.Seen+1, l.Segments+1
	}
	m.turn()
	var sum int64
	for _, l := range m.list {
		sum += l.Seen
	}
	// Two engines, or shards, hear every other second each: their sum is in stretches
	// as long as if one had heard all.
	var halves [2]lossMeter
	for i := range int64(3 * maxLossSeconds / 2) {
		l := halves[i%2].at(i * second)
		l.Seen, l.Segments = l.Seen+1, l.Segments+1
	}
	all, shift := losses([]*lossMeter{&halves[0], &halves[1]})
	if halves[0].shift != 0 || shift != 1 || len(all) != 3*maxLossSeconds/4 {
		t.Errorf("joined: %d stretches of 1<<%d s, of those of 1<<%d", len(all), shift, halves[0].shift)
	}
	if sum != 3*maxLossSeconds || len(m.list) >= maxLossSeconds {
		t.Errorf("over the ceiling: %d of %d, in %d stretches", sum, 3*maxLossSeconds, len(m.list))
	}
}
