package replay_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
	"squall/replay"
	"squall/samples"
)

// recording is some seconds of a scenario as a pcapng file; 0 = all of it.
func recording(t testing.TB, name string, d time.Duration, change func(*samples.Scenario)) []byte {
	t.Helper()
	sc, ok := samples.Find(name)
	if !ok {
		t.Fatal(name)
	}
	if d > 0 {
		sc.Duration = d
	}
	if change != nil {
		change(&sc)
	}
	var b bytes.Buffer
	w, err := capture.NewWriter(&b, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := samples.Simulate(sc, 1, func(p *capture.Packet) { w.WritePacket(p, "") }); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t testing.TB, b []byte) capture.Source {
	t.Helper()
	src, err := capture.Open([]string{"-"}, capture.Options{Stdin: bytes.NewReader(b)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

func moves(t testing.TB, texts ...string) (list []replay.Move) {
	t.Helper()
	for _, s := range texts {
		m, err := replay.ParseMove(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func packets(t testing.TB, b []byte, opt replay.PacketOptions) (*replay.Packets, []netip.Addr, error) {
	t.Helper()
	recorded, err := replay.AddressesOf(open(t, b))
	if err != nil {
		t.Fatal(err)
	}
	p, err := replay.LoadPackets(open(t, b), recorded, opt)
	return p, recorded, err
}

// decoded calls do for every packet of a capture.
func decoded(t testing.TB, b []byte, do func(*capture.Packet, *dissect.Datagram)) (n int) {
	t.Helper()
	src := open(t, b)
	var dec headers.Decoder
	for {
		batch, err := src.Next()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range batch.Packets {
			var d dissect.Datagram
			dec.Decode(&batch.Packets[i], &d)
			do(&batch.Packets[i], &d)
			n++
		}
		batch.Release()
	}
}

// TestPacketsToFile: every address of every packet, quoted ones included, lies
// where the maps say, ports and the hardware addresses too, every header has the
// mark and its checksum, and the times are those of the pace.
func TestPacketsToFile(t *testing.T) {
	in := recording(t, "s9", 20*time.Second, func(s *samples.Scenario) {
		s.Protocol, s.Clients, s.Spread, s.Trigger = "udp", 60, 5*time.Second, 8*time.Second
		s.Script = []samples.Step{{At: 8 * time.Second, Do: "close", Nodes: []int{0, 1}}} // ICMP errors quote requests
		s.Scan, s.Policy.Base = 20, time.Second
		s.Intents, s.Hold = 10, 2*time.Second
	})
	p, recorded, err := packets(t, in, replay.PacketOptions{Ports: map[uint16]uint16{33033: 7001}, Mark: 8,
		Moves: moves(t, "10.1.0.0/24=10.77.0.0/24", "198.51.100.0/24=10.78.0.0/24", "203.0.113.0/24=10.79.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	if p.Residual != 0 || len(p.LeftOut) != 0 || p.Moved != len(recorded) {
		t.Errorf("residual %d, left out %v, moved %d of %d addresses", p.Residual, p.LeftOut, p.Moved, len(recorded))
	}
	var out bytes.Buffer
	w, err := capture.NewWriter(&out, capture.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteTo(t.Context(), w, replay.Pace{PPS: 20000, Loops: 3}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	moved := netip.MustParsePrefix("10.76.0.0/14")
	found, err := replay.AddressesOf(open(t, out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found {
		if !moved.Contains(a) {
			t.Errorf("address %v is still there", a)
		}
	}
	quoted, first, i := 0, int64(0), 0
	n := decoded(t, out.Bytes(), func(x *capture.Packet, d *dissect.Datagram) {
		if first == 0 {
			first = x.Time
		}
		if at := x.Time - first; at != int64(i)*50_000 {
			t.Fatalf("packet %d at %d ns", i, at)
		}
		i++
		if d.SrcPort == 33033 || d.DstPort == 33033 {
			t.Errorf("frame %d: port %d to %d", x.Frame, d.SrcPort, d.DstPort)
		}
		if d.Class == dissect.ClassICMPError {
			quoted++
		}
		sum := uint32(0)
		for k := 14; k < 34; k += 2 {
			sum += uint32(binary.BigEndian.Uint16(x.Data[k:]))
		}
		if x.Data[15]>>2 != 8 || sum&0xffff+sum>>16 != 0xffff {
			t.Errorf("frame %d: DSCP %d, header sums to %x", x.Frame, x.Data[15]>>2, sum)
		}
		if !bytes.Equal(x.Data[:12], []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}) {
			t.Errorf("frame %d: hardware addresses % x", x.Frame, x.Data[:12])
		}
	})
	if n != 3*p.Count() || quoted == 0 {
		t.Errorf("%d packets, want 3 times %d; %d quote another", n, p.Count(), quoted)
	}
}

// TestPacketTimes: 100,001 packets at 20,000 a second take five seconds, and
// recorded times, doubled, neither drift over loops nor go back.
func TestPacketTimes(t *testing.T) {
	in := recording(t, "s2", 4*time.Second, nil)
	p, _, err := packets(t, in, replay.PacketOptions{Limit: 1000, Moves: moves(t, "0.0.0.0/0=127.0.0.0/8")})
	if err != nil {
		t.Fatal(err)
	}
	p.At, p.Bytes = p.At[:p.Count()], 1000*100
	for _, tc := range []struct {
		pace replay.Pace
		want time.Duration
		peak int64
	}{
		{replay.Pace{PPS: 20000, Loops: 100}, 99_999 * 50 * time.Microsecond, 20000},
		{replay.Pace{PPS: 3, Loops: 1}, 333 * time.Second, 3},
		{replay.Pace{}, time.Duration(p.At[999]), 0},
		{replay.Pace{Multiplier: 2}, time.Duration(p.At[999] / 2), 0},
		{replay.Pace{Multiplier: 0.5, Loops: 7}, time.Duration(2 * (6*float64(p.At[999])*1000/999 + float64(p.At[999]))), 0},
	} {
		plan := p.Plan(tc.pace)
		if diff := plan.Duration - tc.want; diff < -2 || diff > 2 || plan.Packets != 1000*int64(max(tc.pace.Loops, 1)) || tc.peak > 0 && plan.Peak != tc.peak {
			t.Errorf("%+v: %+v, want %v and %d a second", tc.pace, plan, tc.want, tc.peak)
		}
	}
	if d := p.Plan(replay.Pace{Mbps: 1}).Duration; d <= 0 {
		t.Errorf("at 1 Mbit/s: %v", d)
	}
	for _, bad := range []replay.Pace{{PPS: 1, Mbps: 1}, {Multiplier: 2, Top: true}, {PPS: -1}, {Loops: -1}, {Mbps: 1, Multiplier: 1}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	plan := p.Plan(replay.Pace{PPS: 20000, Loops: 100})
	for i, c := range []replay.Caps{{MaxRate: 19999}, {MaxRate: 1e6, MaxDuration: time.Second}, {MaxRate: 1e6, MaxBytes: 1000}} {
		var no *replay.Refusal
		if err := plan.Within(c); !errors.As(err, &no) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := plan.Within(replay.Caps{MaxRate: 20000}); err != nil {
		t.Error(err)
	}
}

// TestPacketRefusals: each way of sending to where it must not go.
func TestPacketRefusals(t *testing.T) {
	in := recording(t, "s2", 2*time.Second, nil)
	recorded, err := replay.AddressesOf(open(t, in))
	if err != nil {
		t.Fatal(err)
	}
	nets := []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("10.78.0.0/24")}
	for _, tc := range []struct{ maps, want string }{
		{"198.51.100.0/24=10.77.0.0/24", "covered by no --map"},
		{"0.0.0.0/0=8.8.8.0/24", "is public"},
		{"0.0.0.0/0=224.0.0.0/8", "multicast"},
		{"0.0.0.0/0=10.99.0.0/24", "is private: allow its network"},
		{"10.1.0.0=10.78.0.9 10.1.0.0/24=10.77.0.0/24 198.51.100.0/24=198.51.100.0/24", "occurs in the capture"},
		{"10.1.0.0=10.78.0.9 10.1.0.0/24=10.77.0.0/24 198.51.100.0/24=10.77.0.0/24", "makes one address of"},
		{"10.1.0.0=10.78.0.9 10.1.0.0/24=10.77.0.0/24 198.51.100.1=10.77.0.255", "network or broadcast"},
	} {
		guard, err := replay.NewGuard(nets, recorded)
		if err != nil {
			t.Fatal(err)
		}
		_, err = replay.LoadPackets(open(t, in), recorded, replay.PacketOptions{Guard: guard, Moves: moves(t, strings.Fields(tc.maps)...)})
		var no *replay.Refusal
		if !errors.As(err, &no) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "frame ") {
			t.Errorf("%s: %v, want %q", tc.maps, err, tc.want)
		}
	}
	for _, bad := range []string{"10.0.0.0/8", "10.0.0.0/8=::/64", "x=10.0.0.0/8", "10.0.0.0/33=10.0.0.0/8", "::ffff:10.0.0.0/104=10.0.0.0/8"} {
		if _, err := replay.ParseMove(bad); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	// What cannot be sent whole, or to anybody, is left out and counted.
	var b bytes.Buffer
	w, _ := capture.NewWriter(&b, capture.WriterOptions{})
	frame := func(kind string) []byte {
		eth, _ := bytesOf("020000000001020000000002")
		tail := map[string]string{
			"udp":       "0800" + "4500001e00010000401100000a0100010a010002" + "04d204d2000a0000" + "6869",
			"broadcast": "0800" + "4500001e00010000401100000a010001ffffffff" + "04d204d2000a0000" + "6869",
			"multicast": "0800" + "4500001e00010000401100000a010001e0000001" + "04d204d2000a0000" + "6869",
			"arp":       "0806" + "0001080006040002" + "0200000000010a010001" + "0200000000020a010002",
			"esp":       "0800" + "4500001c00010000403200000a0100010a010002" + "0000000100000001",
			"payload":   "0800" + "4500002500010000401100000a0100010a010002" + "04d204d200110000" + "31302e312e302e313a",
		}[kind]
		more, err := bytesOf(tail)
		if err != nil {
			t.Fatal(kind, err)
		}
		return append(eth, more...)
	}
	for i, kind := range []string{"udp", "broadcast", "multicast", "arp", "esp", "payload", "udp"} {
		f := frame(kind)
		x := capture.Packet{Time: int64(i) * 1e6, Data: f, OrigLen: len(f), Link: capture.LinkEthernet}
		if i == 6 {
			x.OrigLen = 1000
		}
		if err := w.WritePacket(&x, ""); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	guard, err := replay.NewGuard(nets, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := packets(t, b.Bytes(), replay.PacketOptions{Guard: guard, Moves: moves(t, "10.1.0.0/24=10.77.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	left := int64(0)
	for _, n := range p.LeftOut {
		left += n
	}
	if p.Count() != 2 || p.Read != 7 || left != 5 || len(p.LeftOut) != 4 || p.Residual != 1 || p.ResidualAt != 6 {
		t.Errorf("%d of %d packets, left out %v, residual %d at %d", p.Count(), p.Read, p.LeftOut, p.Residual, p.ResidualAt)
	}
	if s := p.Summary(replay.Pace{}); !strings.Contains(s, "residual    1 packets") {
		t.Error(s)
	}
}

// TestPacketResidual: Gnutella clients say their address, and that is counted.
func TestPacketResidual(t *testing.T) {
	in := recording(t, "skype-2010", 20*time.Second, nil)
	p, _, err := packets(t, in, replay.PacketOptions{Moves: moves(t, "0.0.0.0/0=127.0.0.0/8")})
	if err != nil {
		t.Fatal(err)
	}
	hello := int64(decodedIf(t, in, func(d *dissect.Datagram) bool { return bytes.Contains(d.Payload, []byte("Listen-IP: 10.")) }))
	if p.Residual != hello || hello == 0 {
		t.Errorf("residual %d, %d packets say an address", p.Residual, hello)
	}
}

func decodedIf(t testing.TB, b []byte, is func(*dissect.Datagram) bool) (n int) {
	decoded(t, b, func(_ *capture.Packet, d *dissect.Datagram) {
		if is(d) {
			n++
		}
	})
	return n
}

func bytesOf(hex string) (b []byte, err error) {
	_, err = fmt.Sscanf(hex, "%x", &b)
	return b, err
}

// icmp6 is a frame with an ICMPv6 message and its checksum.
func icmp6(from, to netip.Addr, hops byte, body []byte) []byte {
	f := append([]byte{0x33, 0x34, 0, 0, 0, 9, 0, 0x1b, 0x21, 0xaa, 0xbb, 1, 0x86, 0xdd}, 0x60, 0, 0, 0, 0, byte(len(body)), 58, hops)
	a, b := from.As16(), to.As16()
	f = append(append(append(f, a[:]...), b[:]...), body...)
	f[0] = 0
	binary.BigEndian.PutUint16(f[56:], sum6(f))
	return f
}

// sum6 is the checksum of an ICMPv6 frame, its own field taken for zero.
func sum6(f []byte) uint16 {
	s := uint32(len(f)-54) + 58
	for i := 22; i < len(f); i += 2 {
		if i != 56 {
			s += uint32(f[i])<<8 + uint32(append(f[:len(f):len(f)], 0)[i+1])
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// TestPacketsOfRouters: what IPv6 routers and neighbours say of each other, in
// all their options, is rewritten with its checksums, one for one; on a wire it
// is not said at all.
func TestPacketsOfRouters(t *testing.T) {
	router, host, server := netip.MustParseAddr("fe80::21b:21ff:feaa:bb01"), netip.MustParseAddr("2001:db8:1::10"), netip.MustParseAddr("2001:db8:1::53")
	mac := []byte{0, 0x1b, 0x21, 0xaa, 0xbb, 1}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	raw := func(a netip.Addr) []byte { b := a.As16(); return b[:] }
	prefix := raw(netip.MustParseAddr("2001:db8:1::"))
	lla := func(kind byte) []byte { return append([]byte{kind, 1}, mac...) }
	quoted := join([]byte{0x60, 0, 0, 0, 0, 8, 17, 64}, raw(host), raw(server), []byte{4, 0, 0, 53, 0, 8, 0, 0})
	messages := map[string][]byte{
		"solicitation":        icmp6(host, router, 255, join([]byte{135, 0, 0, 0, 0, 0, 0, 0}, raw(router), lla(1), []byte{14, 1, 1, 2, 3, 4, 5, 6})),
		"advertisement":       icmp6(router, host, 255, join([]byte{136, 0, 0, 0, 0xe0, 0, 0, 0}, raw(router), lla(2))),
		"router solicitation": icmp6(host, router, 255, join([]byte{133, 0, 0, 0, 0, 0, 0, 0}, lla(1))),
		"router advertisement": icmp6(router, host, 255, join([]byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, lla(1), []byte{5, 1, 0, 0, 0, 0, 5, 0xdc},
			[]byte{3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0}, prefix, []byte{24, 3, 64, 0, 0, 0, 7, 8}, prefix, []byte{24, 1, 0, 0, 0, 0, 7, 8},
			[]byte{25, 5, 0, 0, 0, 0, 7, 8}, raw(server), raw(host))),
		"redirect": icmp6(router, host, 255, join([]byte{137, 0, 0, 0, 0, 0, 0, 0}, raw(router), raw(server), lla(2), []byte{4, byte(1 + len(quoted)/8), 0, 0, 0, 0, 0, 0}, quoted)),
	}
	maps := moves(t, "2001:db8:1::/64=fd77::/64", "fe80::/64=fd78::/64")
	seen := map[string]string{} // a router's hardware address is the same in all that it says
	for name, frame := range messages {
		if binary.BigEndian.Uint16(frame[56:]) != sum6(frame) {
			t.Fatal(name, "was made with a wrong checksum")
		}
		var in bytes.Buffer
		w, _ := capture.NewWriter(&in, capture.WriterOptions{})
		w.WritePacket(&capture.Packet{Time: 1, Data: frame, OrigLen: len(frame), Link: capture.LinkEthernet}, "")
		w.Close()
		p, recorded, err := packets(t, in.Bytes(), replay.PacketOptions{Moves: maps})
		if err != nil || p.Count() != 1 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var out bytes.Buffer
		w, _ = capture.NewWriter(&out, capture.WriterOptions{})
		if err := p.WriteTo(t.Context(), w, replay.Pace{}); err != nil {
			t.Fatal(err)
		}
		w.Close()
		decoded(t, out.Bytes(), func(x *capture.Packet, _ *dissect.Datagram) {
			f := x.Data
			if binary.BigEndian.Uint16(f[56:]) != sum6(f) || len(f) != len(frame) {
				t.Errorf("%s: checksum %x, want %x", name, f[56:58], sum6(f))
			}
			for _, a := range recorded {
				if bytes.Contains(f, raw(a)) {
					t.Errorf("%s still names %v: %x", name, a, f)
				}
			}
			if i := bytes.Index(f, mac); i >= 0 {
				t.Errorf("%s still names %x at byte %d", name, mac, i)
			}
			if i := bytes.Index(frame[54:], mac); i >= 0 {
				seen[string(f[54+i:60+i])] = name
			}
		})
		guard, err := replay.NewGuard([]netip.Prefix{netip.MustParsePrefix("fd77::/64"), netip.MustParsePrefix("fd78::/64")}, recorded)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := packets(t, in.Bytes(), replay.PacketOptions{Moves: maps, Guard: guard}); err == nil || !strings.Contains(err.Error(), "its route") {
			t.Errorf("%s: on a wire: %v", name, err)
		}
	}
	if len(seen) != 1 {
		t.Errorf("one hardware address became %d", len(seen))
	}
}
