package replay

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
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
