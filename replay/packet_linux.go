package replay

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"squall/capture"
)

const (
	// sendBatch packets go with one system call at most; at top speed that is
	// some 50 us, so a stop is heard soon.
	sendBatch = 128
	// sendBuffer is the socket's; the system may give less.
	sendBuffer = 8 << 20
	// longestNap bounds how late a stop is heard.
	longestNap = 20 * time.Millisecond
)

// Wire is an interface that packets are sent on.
type Wire struct {
	Name     string
	MAC      [6]byte
	Loopback bool
	fds      []int // one for each processor: only at top speed more than the first is used
}

// OpenWire opens an interface for sending. That takes CAP_NET_RAW; nothing is
// received. Close it.
func OpenWire(name string) (*Wire, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("-i %s: %w", name, err)
	}
	if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 {
		return nil, fmt.Errorf("-i %s: the interface is down or has no carrier", name)
	}
	w := &Wire{Name: name, Loopback: i.Flags&net.FlagLoopback != 0}
	if len(i.HardwareAddr) == 6 {
		w.MAC = [6]byte(i.HardwareAddr)
	} else if !w.Loopback {
		return nil, fmt.Errorf("-i %s: not an Ethernet interface", name)
	}
	for range runtime.GOMAXPROCS(0) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			w.fds = append(w.fds, fd)
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index})
		}
		if err != nil {
			w.Close()
			if errors.Is(err, unix.EPERM) {
				return nil, fmt.Errorf("-i %s: raw sockets take root or CAP_NET_RAW (setcap cap_net_raw+ep)", name)
			}
			return nil, fmt.Errorf("-i %s: %w", name, err)
		}
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1) // kernels before 3.14 queue
	}
	return w, nil
}

// Close gives the sockets back.
func (w *Wire) Close() (err error) {
	for _, fd := range w.fds {
		err = errors.Join(err, unix.Close(fd))
	}
	w.fds = nil
	return err
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// messages makes what sendmmsg takes of frames.
func messages(frames [][]byte) []mmsghdr {
	vectors := make([]unix.Iovec, len(frames))
	list := make([]mmsghdr, len(frames))
	for i, f := range frames {
		vectors[i].Base = &f[0]
		vectors[i].SetLen(len(f))
		list[i].hdr.Iov = &vectors[i]
		list[i].hdr.SetIovlen(1)
	}
	return list
}

// burst sends at top speed, on every processor. Packets between the same two
// addresses keep their order, others may overtake each other.
func (w *Wire) burst(ctx context.Context, p *Packets, loops int, caps Caps) (*PacketReport, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts := make([][][]byte, len(w.fds))
	for _, f := range p.frames {
		k := pair(f) % uint64(len(parts))
		parts[k] = append(parts[k], f)
	}
	reports := make([]PacketReport, len(parts))
	begin := time.Now()
	var wg sync.WaitGroup
	for k, frames := range parts {
		if len(frames) == 0 {
			continue
		}
		size := int64(0)
		for _, f := range frames {
			size += int64(len(f))
		}
		mean := size / int64(len(frames))
		share := Caps{MaxRate: caps.MaxRate, MaxDuration: caps.MaxDuration, MaxBytes: caps.MaxBytes/int64(len(parts)) + 1}
		if size*int64(loops) < share.MaxBytes {
			share.MaxBytes = caps.MaxBytes
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := &reports[k]
			list := messages(frames)
			for range loops {
				for i := 0; i < len(list); i += sendBatch {
					if why := stopped(ctx, time.Since(begin), r.Packets*mean, share); why != nil {
						r.Why = why.Error()
						cancel(why)
						return
					}
					part := list[i:min(i+sendBatch, len(list))]
					if err := w.batch(w.fds[k], part, r); err != nil {
						r.Why = err.Error()
						cancel(err)
						return
					}
					r.Packets += int64(len(part))
				}
				r.Bytes += size
			}
		}()
	}
	wg.Wait()
	r := &PacketReport{Elapsed: time.Since(begin)}
	for k := range reports {
		x := &reports[k]
		r.Packets, r.Bytes, r.Retried = r.Packets+x.Packets, r.Bytes+x.Bytes, r.Retried+x.Retried
		r.Why = cmp.Or(r.Why, x.Why)
	}
	if r.Left = int64(loops)*int64(len(p.frames)) - r.Packets; r.Left > 0 {
		return r, context.Cause(ctx)
	}
	return r, nil
}

// pair is a number that both directions between two addresses share.
func pair(frame []byte) (h uint64) {
	kind, at := layer3(capture.LinkEthernet, frame)
	switch b := frame[at:]; {
	case kind == typeIP4 && len(b) >= 20:
		h = uint64(binary.BigEndian.Uint32(b[12:])) + uint64(binary.BigEndian.Uint32(b[16:]))
	case kind == typeIP6 && len(b) >= 40:
		h = binary.BigEndian.Uint64(b[16:]) + binary.BigEndian.Uint64(b[32:]) + binary.BigEndian.Uint64(b[8:]) + binary.BigEndian.Uint64(b[24:])
	}
	return mix(h) >> 8
}

// Send sends the packets at their moments until they, ctx or the caps end.
func (w *Wire) Send(ctx context.Context, p *Packets, pace Pace, caps Caps) (*PacketReport, error) {
	caps = caps.withDefaults()
	if pace.Top {
		return w.burst(ctx, p, max(pace.Loops, 1), caps)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // a nap of 50 us is not to take 100
	plan := p.Plan(pace)
	r := &PacketReport{Planned: plan.Duration, histogram: hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3)}
	list := messages(p.frames)
	c := p.clock(pace)
	begin := time.Now()
	total := plan.Packets
	for loop := range max(pace.Loops, 1) {
		due := c.next(loop, 0, len(p.frames[0]))
		for i := 0; i < len(p.frames); {
			now := int64(time.Since(begin))
			for due > now {
				if ctx.Err() != nil {
					break
				}
				nap(min(time.Duration(due-now), longestNap))
				now = int64(time.Since(begin))
			}
			if why := stopped(ctx, time.Duration(now), r.Bytes, caps); why != nil {
				r.Left, r.Why = total-r.Packets, why.Error()
				r.Elapsed = time.Duration(now)
				r.finish()
				return r, why
			}
			// Everything that is due by now goes at once.
			k := i
			for k < len(p.frames) && k-i < sendBatch && due <= now {
				r.histogram.RecordValue(max((now-due)/1000, 1))
				r.Bytes += int64(len(p.frames[k]))
				if k++; k < len(p.frames) {
					due = c.next(loop, k, len(p.frames[k]))
				}
			}
			if err := w.batch(w.fds[0], list[i:k], r); err != nil {
				r.Left, r.Why = total-r.Packets, err.Error()
				r.finish()
				return r, err
			}
			r.Packets += int64(k - i)
			i = k
		}
	}
	r.Elapsed = time.Since(begin)
	r.finish()
	return r, nil
}

// stopped says why nothing more may be sent.
func stopped(ctx context.Context, spent time.Duration, sent int64, caps Caps) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case spent > caps.MaxDuration:
		return fmt.Errorf("the cap --max-duration %v ended it", caps.MaxDuration)
	case sent >= caps.MaxBytes:
		return fmt.Errorf("the cap --max-bytes %d ended it", caps.MaxBytes)
	}
	return nil
}

func (w *Wire) batch(fd int, m []mmsghdr, r *PacketReport) error {
	for len(m) > 0 {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), 0, 0, 0)
		switch errno {
		case 0:
			m = m[n:]
		case unix.EINTR:
		case unix.ENOBUFS, unix.EAGAIN:
			r.Retried++
			nap(20 * time.Microsecond)
		case unix.EMSGSIZE:
			return fmt.Errorf("-i %s: a packet is longer than the interface takes (MTU)", w.Name)
		default:
			return fmt.Errorf("-i %s: %w", w.Name, errno)
		}
	}
	return nil
}

// Gateway is the hardware address of a router that the system knows, if mac is
// one: what is sent there leaves the test network.
func Gateway(mac [6]byte) (router string, is bool) {
	routes, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return "", false
	}
	neighbours, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		return "", false
	}
	gateways := map[string]bool{}
	for line := range strings.Lines(string(routes)) {
		var name, dst, via string
		if n, _ := fmt.Sscan(line, &name, &dst, &via); n == 3 && len(via) == 8 && via != "00000000" {
			var b [4]byte
			if _, err := fmt.Sscanf(via, "%02x%02x%02x%02x", &b[3], &b[2], &b[1], &b[0]); err == nil {
				gateways[net.IP(b[:]).String()] = true
			}
		}
	}
	for line := range strings.Lines(string(neighbours)) {
		if f := strings.Fields(line); len(f) >= 4 && gateways[f[0]] {
			if m, err := net.ParseMAC(f[3]); err == nil && len(m) == 6 && [6]byte(m) == mac {
				return f[0], true
			}
		}
	}
	return "", false
}
