//go:build linux

package capture

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestStampOfAdapter: a block as the kernel writes it, with packets that have the time of
// the adapter, that of the kernel, and neither bit. The one stamp that TPACKET_V3 gives is
// taken, the status says whose it is, and only the adapter's are counted as its own.
// A step between the two clocks is counted.
func TestStampOfAdapter(t *testing.T) {
	const head = (unix.SizeofTpacket3Hdr + 15) &^ 15
	const room, frame = 48, 256
	s := &liveSocket{tap: &liveTap{LiveInterface: LiveInterface{Name: "eth0", Link: LinkEthernet}, stats: FileStats{Snaplen: liveSnaplen}}, ring: make([]byte, 4*frame+room)}
	stamps := []struct {
		sec, nsec, status uint32
	}{
		{1_000_000_100, 999_999_999, unix.TP_STATUS_TS_RAW_HARDWARE},
		{1_000_000_200, 5, unix.TP_STATUS_TS_SOFTWARE},
		{1_000_000_201, 7, 0},
		{1_000_000_101, 11, unix.TP_STATUS_TS_RAW_HARDWARE | unix.TP_STATUS_VLAN_VALID},
	}
	for i, stamp := range stamps {
		at := room + i*frame
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&s.ring[at]))
		h.Sec, h.Nsec, h.Status = stamp.sec, stamp.nsec, stamp.status
		h.Mac, h.Snaplen, h.Len, h.Next_offset = uint16(head+32), 60, 60, frame
	}
	packets := s.block(0, &unix.TpacketHdrV1{Num_pkts: uint32(len(stamps)), Offset_to_first_pkt: room}, nil)
	if len(packets) != len(stamps) {
		t.Fatalf("%d packets of %d", len(packets), len(stamps))
	}
	for i, p := range packets {
		if want := int64(stamps[i].sec)*1e9 + int64(stamps[i].nsec); p.Time != want {
			t.Errorf("packet %d: %d ns, want %d", i+1, p.Time, want)
		}
	}
	if got := (&Live{taps: []*liveTap{s.tap}}).AdapterTimes(); got != 2 {
		t.Errorf("%d times of the adapter, want 2", got)
	}
	if s.tap.stats.ClockSteps != 1 || s.tap.stats.OutOfOrder != 1 {
		t.Errorf("%d steps back, %d out of order; want 1, 1", s.tap.stats.ClockSteps, s.tap.stats.OutOfOrder)
	}
}

// TestMergeWithoutWaiting: packets of several sockets wait for those of the others, but
// not for a clock: what came before it was set back, or has the time of an adapter that is
// ahead, is given at once.
func TestMergeWithoutWaiting(t *testing.T) {
	now := time.Now().UnixNano()
	for _, c := range []struct {
		what  string
		times [2][]int64
		want  int
	}{
		{"of a moment ago", [2][]int64{{now - 5e9}, {now - 4e9}}, 2},
		{"of this moment", [2][]int64{{now - 5e9, now}, {now}}, 1},
		{"from before the clock was set back by an hour", [2][]int64{{now + 3600e9, now - 5e9}, {now + 3600e9}}, 3},
		{"of an adapter that is ahead by 37 s", [2][]int64{{now + 37e9}, {now + 36e9}}, 2},
	} {
		l := &Live{opt: LiveOptions{Wake: liveWake}, held: make([][]*Batch, 2), at: make([]int, 2), gone: make([]bool, 2), socks: []*liveSocket{{blocks: 32}, {blocks: 32}}}
		for i, times := range c.times {
			var packets []Packet
			for _, at := range times {
				packets = append(packets, Packet{Time: at})
			}
			l.held[i] = []*Batch{NewBatch(packets, func() {})}
		}
		got := 0
		if b := l.merge(); b != nil {
			got = len(b.Packets)
			b.Release()
		}
		if got != c.want {
			t.Errorf("%s: %d packets are given, want %d", c.what, got, c.want)
		}
	}
}

// TestLentBlocks: a consumer that is behind holds all blocks of the ring. The next one is the
// first again, which the kernel has not got back: its packets are not given twice.
func TestLentBlocks(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[1])
	defer unix.Close(pipe[0])
	s := &liveSocket{tap: &liveTap{LiveInterface: LiveInterface{Name: "eth0", Link: LinkEthernet}, stats: FileStats{Snaplen: liveSnaplen}},
		fd: pipe[0], index: 1, ring: make([]byte, 2*liveBlock), blocks: 2, lent: make([]atomic.Bool, 2)}
	status := func(block int) *uint32 {
		desc := (*unix.TpacketBlockDesc)(s.at(block * liveBlock))
		return &(*unix.TpacketHdrV1)(unsafe.Pointer(&desc.Hdr[0])).Block_status
	}
	second := uint32(0)
	fill := func(block int) { // as the kernel does, with one packet
		second++
		desc := (*unix.TpacketBlockDesc)(s.at(block * liveBlock))
		head := (*unix.TpacketHdrV1)(unsafe.Pointer(&desc.Hdr[0]))
		head.Num_pkts, head.Offset_to_first_pkt = 1, 48
		h := (*unix.Tpacket3Hdr)(s.at(block*liveBlock + 48))
		h.Sec, h.Mac, h.Snaplen, h.Len = second, (unix.SizeofTpacket3Hdr+15)&^15+32, 60, 60
		atomic.StoreUint32(status(block), unix.TP_STATUS_USER)
	}
	fill(0)
	fill(1)
	l := &Live{opt: LiveOptions{Wake: liveWake}, stop: make(chan struct{})}
	out := make(chan *Batch, 8)
	l.wg.Add(1)
	go l.run(0, s, out)
	take := func(want uint32) *Batch {
		b := <-out
		if got := uint32(b.Packets[0].Time / 1e9); got != want {
			t.Fatalf("packet %d is given, want %d", got, want)
		}
		return b
	}
	first, then := take(1), take(2)
	select {
	case b := <-out:
		t.Fatalf("all blocks are lent, and packet %d is given again", b.Packets[0].Time/1e9)
	case <-time.After(50 * time.Millisecond):
	}
	then.Release() // not in their order
	first.Release()
	if atomic.LoadUint32(status(0)) != unix.TP_STATUS_KERNEL || atomic.LoadUint32(status(1)) != unix.TP_STATUS_KERNEL {
		t.Fatal("blocks that were released are not the kernel's")
	}
	fill(0)
	take(3).Release()
	close(l.stop)
	l.wg.Wait()
	if b, ok := <-out; ok {
		t.Errorf("packet %d is given in the end", b.Packets[0].Time/1e9)
	}
}
