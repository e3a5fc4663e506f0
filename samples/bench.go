package samples

import (
	"math/rand/v2"
	"net/netip"

	"squall/capture"
)

// The two captures that the budgets of the design are measured on. Both are
// streams: the packet and its bytes are valid during the call of emit.

// clients and nodes of the bench captures.
const (
	benchClients = 20000
	benchNodes   = 10
)

func benchClient(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)})
}

func benchNode(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)}), 33033)
}

type bench struct {
	f     *frames
	rng   *rand.Rand
	emit  func(*capture.Packet)
	now   int64
	frame int64
}

func newBench(seed uint64, emit func(*capture.Packet)) *bench {
	return &bench{f: newFrames(), rng: rand.New(rand.NewPCG(seed, 0xbe9c4)), emit: emit, now: Epoch}
}

func (b *bench) send(data []byte) {
	b.frame++
	p := capture.Packet{Time: b.now, Data: data, OrigLen: len(data), Link: capture.LinkEthernet, Frame: b.frame}
	b.emit(&p)
}

// Dense is the storm: about 2.06 packets for each of n/2.06 attempts, twenty
// thousand clients at ten nodes that refuse, stay silent or, rarely, accept.
func Dense(packets int64, seed uint64, emit func(*capture.Packet)) {
	b := newBench(seed, emit)
	ports := make([]uint16, benchClients)
	for b.frame < packets {
		c := b.rng.IntN(benchClients)
		ports[c]++
		src, dst := netip.AddrPortFrom(benchClient(c), 1024+ports[c]%60000), benchNode(b.rng.IntN(benchNodes))
		isn, ts := b.rng.Uint32(), uint32(c)*7919+uint32((b.now-Epoch)/1e6)
		b.now += int64(b.rng.ExpFloat64() * 170e3)
		b.send(b.f.tcp(src, dst, syn, isn, 0, ts, nil))
		switch x := b.rng.IntN(100); {
		case x < 78:
			b.now += 20e3
			b.send(b.f.tcp(dst, src, rst|ack, 0, isn+1, 0, nil))
		case x < 92: // silence
		default:
			node := b.rng.Uint32()
			b.now += 20e3
			b.send(b.f.tcp(dst, src, syn|ack, node, isn+1, ts, nil))
			b.send(b.f.tcp(src, dst, ack, isn+1, node+1, ts, nil))
			b.send(b.f.tcp(src, dst, psh|ack, isn+1, node+1, ts, []byte("ATTACH\r\n")))
			if x < 97 {
				b.send(b.f.tcp(dst, src, psh|ack, node+1, isn+9, ts, []byte("WELCOME\r\n")))
			}
		}
	}
}

// Bulk is an ordinary busy link, 600 bytes a packet on average, with a storm
// of some twenty thousand attempts in its second half.
func Bulk(packets int64, seed uint64, emit func(*capture.Packet)) {
	b := newBench(seed, emit)
	type flow struct {
		src, dst netip.AddrPort
		seq, ack uint32
	}
	flows := make([]flow, 2000)
	for i := range flows {
		f := &flows[i]
		f.src, f.dst = netip.AddrPortFrom(benchClient(i), uint16(30000+i)), benchNode(i%benchNodes)
		f.seq, f.ack = b.rng.Uint32(), b.rng.Uint32()
		b.now += 1e6
		b.send(b.f.tcp(f.src, f.dst, syn, f.seq, 0, 1, nil))
		f.seq++
		b.send(b.f.tcp(f.dst, f.src, syn|ack, f.ack, f.seq, 1, nil))
		f.ack++
		b.send(b.f.tcp(f.src, f.dst, ack, f.seq, f.ack, 1, nil))
	}
	data := make([]byte, 1400)
	for b.frame < packets {
		f := &flows[b.rng.IntN(len(flows))]
		b.now += int64(b.rng.ExpFloat64() * 100e3)
		switch x := b.rng.IntN(100); {
		case x < 38:
			b.send(b.f.tcp(f.dst, f.src, psh|ack, f.ack, f.seq, 1, data))
			f.ack += uint32(len(data))
		case x < 48:
			b.send(b.f.tcp(f.src, f.dst, psh|ack, f.seq, f.ack, 1, data[:120]))
			f.seq += 120
		default:
			b.send(b.f.tcp(f.src, f.dst, ack, f.seq, f.ack, 1, nil))
		}
		if b.frame > packets/2 && b.rng.IntN(75) == 0 {
			src, isn := netip.AddrPortFrom(benchClient(2000+b.rng.IntN(5000)), uint16(1024+b.rng.IntN(60000))), b.rng.Uint32()
			dst := benchNode(0)
			b.send(b.f.tcp(src, dst, syn, isn, 0, 1, nil))
			b.send(b.f.tcp(dst, src, rst|ack, 0, isn+1, 0, nil))
		}
	}
}

// Crowd is clients of one packet each: a SYN, and no other packet of that
// address ever.
func Crowd(packets int64, seed uint64, emit func(*capture.Packet)) {
	b := newBench(seed, emit)
	for b.frame < packets {
		n := uint32(b.frame) * 2654435761 // a permutation: no address comes twice
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), 40000)
		b.now += int64(b.rng.ExpFloat64() * 60e3)
		b.send(b.f.tcp(src, benchNode(b.rng.IntN(benchNodes)), syn, b.rng.Uint32(), 0, n|1, nil))
		clear(b.f.ids) // no address is used again
	}
}

// Names is the same with identities of a protocol: registrations of n2n edges,
// each with an address of its own and a MAC never seen before.
func Names(packets int64, seed uint64, emit func(*capture.Packet)) {
	b := newBench(seed, emit)
	super := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), 7654)
	for b.frame < packets {
		n := uint32(b.frame) * 2654435761
		m := append(n2nHeader(n2nRegister), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		m = append(m, 2, 'n', byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		m = append(m, make([]byte, 21)...)
		m = append(n2nToken(m, int(n)), 0, 0, 0, 0)
		b.now += int64(b.rng.ExpFloat64() * 60e3)
		b.send(b.f.udp(netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), 40000), super, m))
		clear(b.f.ids)
	}
}

// Sprawl is a few thousand clients that go from node to node, each node asked
// for the first time: a SYN and its refusal.
func Sprawl(packets int64, seed uint64, emit func(*capture.Packet)) {
	b := newBench(seed, emit)
	for b.frame < packets {
		n := uint32(b.frame/2) * 2654435761
		src := netip.AddrPortFrom(benchClient(b.rng.IntN(5000)), uint16(1024+b.rng.IntN(60000)))
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, byte(n >> 24), byte(n >> 16), byte(n >> 8)}), 30000+uint16(n&0xff))
		isn := b.rng.Uint32()
		b.now += int64(b.rng.ExpFloat64() * 100e3)
		b.send(b.f.tcp(src, dst, syn, isn, 0, 1, nil))
		b.send(b.f.tcp(dst, src, rst|ack, 0, isn+1, 0, nil))
		clear(b.f.ids)
	}
}

// Year is the dense storm twice, with a year of silence between.
func Year(packets int64, seed uint64, emit func(*capture.Packet)) {
	const year = 365 * 24 * 3600e9
	Dense(packets/2, seed, emit)
	Dense(packets-packets/2, seed+1, func(p *capture.Packet) {
		p.Time += year
		p.Frame += packets / 2
		emit(p)
	})
}
