package replay

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
)

// Losses are what the kernel of this machine threw away, for all its programs:
// of targets on loopback it is what they themselves could not take.
type Losses struct {
	ListenOverflows int64 `json:"listen_overflows"` // connections that found a full accept queue
	ListenDrops     int64 `json:"listen_drops"`     // SYNs dropped at listening sockets, overflows included
	UDPBuffer       int64 `json:"udp_receive_buffer_errors"`
}

// readLosses reads /proc; ok is false where it is not there.
func readLosses() (l Losses, ok bool) {
	tcp, ok1 := procTable("/proc/net/netstat", "TcpExt:")
	udp, ok2 := procTable("/proc/net/snmp", "Udp:")
	return Losses{tcp["ListenOverflows"], tcp["ListenDrops"], udp["RcvbufErrors"]}, ok1 && ok2
}

// procTable reads the pair of lines, names and numbers, that begin alike.
func procTable(path, head string) (map[string]int64, bool) {
	h, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer h.Close()
	var names []string
	for in := bufio.NewScanner(h); in.Scan(); {
		words := strings.Fields(in.Text())
		switch {
		case len(words) == 0 || words[0] != head:
		case names == nil:
			names = words
		case len(words) == len(names):
			t := map[string]int64{}
			for i, n := range names {
				t[n], _ = strconv.ParseInt(words[i], 10, 64)
			}
			return t, true
		}
	}
	return nil, false
}

func (l Losses) since(before Losses) Losses {
	return Losses{l.ListenOverflows - before.ListenOverflows, l.ListenDrops - before.ListenDrops, l.UDPBuffer - before.UDPBuffer}
}

func (l Losses) String() string {
	return fmt.Sprintf("%d accept queues found full, %d SYNs dropped at listening sockets, %d datagrams at full receive buffers", l.ListenOverflows, l.ListenDrops, l.UDPBuffer)
}

// TargetCount is what this machine's kernel says of a target on loopback: the
// processes that have its socket, and what the socket threw away. Processes of
// other users can be looked at by root only.
type TargetCount struct {
	Target   string        `json:"target"`
	Programs []string      `json:"programs,omitempty"` // name and process id; empty = not to be seen
	CPU      time.Duration `json:"cpu_ns"`             // of all of them during the run
	Drops    int64         `json:"socket_drops"`       // datagrams at a full receive buffer; -1 = TCP, which counts none
}

func (c TargetCount) String() string {
	s := c.Target
	if len(c.Programs) > 0 {
		s += fmt.Sprintf(" (%s): %v of CPU", strings.Join(c.Programs, ", "), c.CPU.Round(10*time.Millisecond))
	} else {
		s += ": its process is not ours to look at"
	}
	if c.Drops >= 0 {
		s += fmt.Sprintf(", %d datagrams dropped at its socket", c.Drops)
	}
	return s
}

// clockTick is the unit of times in /proc: 100 a second on every architecture
// that Go runs on.
const clockTick = 10 * time.Millisecond

// countTargets reads what can be read now; since makes the difference.
func countTargets(list []target) (out []TargetCount) {
	inodes := make([]map[string]bool, len(list))
	for i := range list {
		t := &list[i]
		c := TargetCount{Target: t.at.String(), Drops: -1}
		inodes[i] = map[string]bool{}
		if t.at.Addr().IsLoopback() {
			c.Drops = sockets(t, inodes[i])
		}
		out = append(out, c)
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil { // of another user
			continue
		}
		process := filepath.Dir(dir)
		mine := map[int]bool{}
		for _, f := range files {
			link, err := os.Readlink(filepath.Join(dir, f.Name()))
			inode, isSocket := strings.CutPrefix(link, "socket:[")
			if err != nil || !isSocket {
				continue
			}
			for i := range inodes {
				if inodes[i][strings.TrimSuffix(inode, "]")] {
					mine[i] = true
				}
			}
		}
		if len(mine) == 0 {
			continue
		}
		name, used := processTime(process)
		for i := range mine {
			out[i].Programs = append(out[i].Programs, name+" "+filepath.Base(process))
			out[i].CPU += used
		}
	}
	for i := range out {
		slices.Sort(out[i].Programs)
	}
	return out
}

// sockets finds the inodes of a target's listening sockets, and what they
// dropped; -1 for TCP.
func sockets(t *target, inodes map[string]bool) (drops int64) {
	paths, listening := []string{"/proc/net/tcp", "/proc/net/tcp6"}, "0A"
	if t.proto == dissect.ProtoUDP {
		paths, listening = []string{"/proc/net/udp", "/proc/net/udp6"}, "07"
	} else {
		drops = -1
	}
	for _, path := range paths {
		h, err := os.Open(path)
		if err != nil {
			continue
		}
		for in := bufio.NewScanner(h); in.Scan(); {
			f := strings.Fields(in.Text())
			if len(f) < 10 || f[3] != listening {
				continue
			}
			at, ok := procAddress(f[1])
			if !ok || at.Port() != t.at.Port() || at.Addr() != t.at.Addr() && !at.Addr().IsUnspecified() {
				continue
			}
			inodes[f[9]] = true
			if drops >= 0 && len(f) >= 13 {
				n, _ := strconv.ParseInt(f[12], 10, 64)
				drops += n
			}
		}
		h.Close()
	}
	return drops
}

// procAddress reads an address as /proc/net writes it: words of the machine's
// byte order in hexadecimal.
func procAddress(s string) (netip.AddrPort, bool) {
	host, service, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(service, 16, 16)
	if err != nil || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, false
	}
	var b []byte
	for i := 0; i < len(host); i += 8 {
		w, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(w))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), true
}

// processTime is the name of a process and the processor time that it used.
func processTime(dir string) (name string, used time.Duration) {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	text := string(b)
	open, shut := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if err != nil || open < 0 || shut < open {
		return "", 0
	}
	if f := strings.Fields(text[shut+1:]); len(f) > 12 {
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		used = time.Duration(user+system) * clockTick
	}
	return text[open+1 : shut], used
}

// since is what was counted after before; a process that was not there before
// counts from its start.
func since(after, before []TargetCount) []TargetCount {
	for i := range after {
		if slices.Equal(after[i].Programs, before[i].Programs) {
			after[i].CPU -= before[i].CPU
		}
		if after[i].Drops >= 0 {
			after[i].Drops = max(after[i].Drops-max(before[i].Drops, 0), 0)
		}
	}
	return after
}

// Trust says by how much the policies of a plan are proven: those that were
// inferred from the recording that a run is compared with are not.
func (p *Plan) Trust() string {
	n := map[string]int{}
	for i := range p.Groups {
		n[p.Groups[i].Basis]++
	}
	var s []string
	if n["inferred"]+n["recorded"] > 0 {
		s = append(s, fmt.Sprintf("%d of %d taken from the recording itself: likeness to that recording does not prove them", n["inferred"]+n["recorded"], len(p.Groups)))
	}
	if n["assumed"] > 0 {
		s = append(s, fmt.Sprintf("%d assumed, since nobody was seen to retry", n["assumed"]))
	}
	if n[""] > 0 {
		s = append(s, fmt.Sprintf("%d given", n[""]))
	}
	return strings.Join(s, "; ")
}
