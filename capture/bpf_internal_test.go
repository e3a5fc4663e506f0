package capture

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

// liveFilters touch every header and the bytes around the tag.
var liveFilters = []string{
	"ip", "ip6", "arp", "tcp", "udp", "not ip", "port 53", "tcp dst port 80", "portrange 50-90", "host 10.0.0.1", "net 10.0.0.0/8", "ip6 net fe80::/10",
	"vlan", "vlan 5", "not vlan", "vlan and ip", "vlan and vlan", "vlan 5 and vlan 6 and udp", "vlan and tcp port 80", "tcp or (vlan and tcp)",
	"mpls", "vlan and mpls and ip", "greater 60", "len = 58", "len - 14 != ip[2:2]", "ip[0] & 0xf > 5", "tcp[tcpflags] & tcp-syn != 0",
	"udp[4:2] > 8", "tcp[(tcp[12] & 0xf0) >> 2] != 0", "vlan and udp[ip[8]:1] > 3", "len + ip[1] > 60",
}

var etherFilters = []string{
	"ether[0] & 1 != 0", "ether[12:2] = 0x8100", "ether[10:4] > 0x08008100", "ether[13] = 0", "ether[14:2] & 0xfff = 5", "ether[15:4] != 7",
	"ether[11:2] != 0", "ether[16:2] = 0x0800", "ether[20] > 10",
}

// ethernet makes a frame with so many tags, its bytes chosen to hit filters.
func ethernet(r *rand.Rand, tags int) []byte {
	pick := func(v ...uint16) uint16 { return v[r.IntN(len(v))] }
	b := make([]byte, 12)
	for i := range b {
		b[i] = byte(r.IntN(40))
	}
	for range tags {
		b = binary.BigEndian.AppendUint16(b, pick(etherVLAN, etherVLAN, etherQinQ))
		b = binary.BigEndian.AppendUint16(b, pick(5, 6, 0x2005))
	}
	switch r.IntN(6) {
	case 0:
		b = append(binary.BigEndian.AppendUint16(b, etherMPLS), 0, 1, byte(r.IntN(2)), 64)
		b = append(b, 0x45, 0)
	case 1:
		b = binary.BigEndian.AppendUint16(b, etherIPv6)
		b = append(b, 0x60, 0, 0, 0, 0, 20, byte(pick(6, 17, 44)), 64)
		b = append(b, 0xfe, 0x80)
		b = append(b, make([]byte, 30)...)
		b = append(b, 0, byte(pick(53, 80)), 0, 53, 0, 12)
	default:
		b = binary.BigEndian.AppendUint16(b, pick(etherIPv4, etherIPv4, etherIPv4, etherARP, 0x88cc))
		b = append(b, 0x45+byte(r.IntN(2)), byte(r.IntN(3)), 0, byte(40+r.IntN(8)), 0, 0, byte(r.IntN(2)), 0, byte(r.IntN(9)), byte(pick(6, 17)), 0, 0)
		b = append(b, 10, 0, 0, byte(r.IntN(3)), 10, 0, 0, 2, 0, byte(pick(53, 80)), 0, byte(pick(53, 80)), 0, 9, 0, 0, 0, 0, 0, 0, 0x50, byte(r.IntN(32)))
	}
	for range r.IntN(12) {
		b = append(b, byte(r.IntN(256)))
	}
	return b[: r.IntN(3)*len(b)/4+len(b)/2 : len(b)]
}

// TestLivePrograms: a filter passes a packet as a packet socket shows it, its
// outermost tag and its cooked header beside it, exactly when it passes it in a
// file. golang.org/x/net/bpf, which runs the same code, agrees.
func TestLivePrograms(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	passed := 0
	check := func(text string, link LinkType, file, view []byte, tagged bool, tci, tpid, proto uint16) {
		t.Helper()
		e, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := CompileFilter(e, link)
		if err != nil {
			t.Fatal(err)
		}
		live, err := compileLive(e, link)
		if err != nil {
			t.Fatal(err)
		}
		want := whole.Run(&Packet{Data: file, OrigLen: len(file)})
		got := live.run(view, uint32(len(view)), func(ad uint32) uint32 {
			switch {
			case ad == adProtocol:
				return uint32(proto)
			case ad == adTagPresent && tagged:
				return 1
			case ad == adTag:
				return uint32(tci)
			case ad == adTagType:
				return uint32(tpid)
			}
			return 0
		}) != 0
		if got != want {
			t.Errorf("%q, link type %d, tagged %v: live %v, in the file %v: % x", text, link, tagged, got, want, file)
		}
		if want {
			passed++
		}
		code, ok := bpf.Disassemble(whole.Code)
		if !ok {
			return // it has no names for MOD and XOR by X
		}
		vm, err := bpf.NewVM(code)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if n, err := vm.Run(file); err != nil || (n > 0) != want {
			t.Errorf("%q: golang.org/x/net/bpf: %d, %v; want %v", text, n, err, want)
		}
	}
	for range 400 {
		tags := r.IntN(3)
		frame := ethernet(r, tags)
		view, tci, tpid := frame, uint16(0), uint16(0)
		if tags > 0 && len(frame) >= 18 {
			tpid, tci = binary.BigEndian.Uint16(frame[12:]), binary.BigEndian.Uint16(frame[14:])
			view = slices.Concat(frame[:12], frame[16:])
		} else if tags > 0 {
			continue
		}
		for _, text := range slices.Concat(liveFilters, etherFilters) {
			check(text, LinkEthernet, frame, view, tags > 0, tci, tpid, 0)
		}
		if len(view) < 14 {
			continue
		}
		inner := binary.BigEndian.Uint16(view[12:])
		cooked := make([]byte, 20)
		file := slices.Concat(cooked, view[14:])
		binary.BigEndian.PutUint16(file, inner)
		if tags > 0 {
			tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tci), inner)
			file = slices.Concat(cooked, tag, view[14:])
			binary.BigEndian.PutUint16(file, tpid)
		}
		for _, text := range liveFilters {
			check(text, LinkLinuxSLL2, file, view[14:], tags > 0, tci, tpid, inner)
		}
		for _, text := range liveFilters {
			if tags == 0 {
				check(text, LinkRaw, view[14:], view[14:], false, 0, 0, 0)
			}
		}
	}
	if passed < 2000 {
		t.Errorf("only %d packets passed", passed)
	}
}

// TestFarJumps: a filter that is longer than a jump reaches still works, and
// one that no kernel would take is refused.
func TestFarJumps(t *testing.T) {
	frame := ethernet(rand.New(rand.NewPCG(4, 4)), 0)
	e, err := ParseFilter(strings.Repeat("port 1 or ", 40) + "ip or not ip")
	if err != nil {
		t.Fatal(err)
	}
	p, err := CompileFilter(e, LinkEthernet)
	if err != nil || len(p.Code) < 600 || !p.Run(&Packet{Data: frame, OrigLen: len(frame)}) {
		t.Errorf("%v, %d instructions", err, len(p.Code))
	}
	for i, c := range p.Code {
		if why := checkInstruction(c, len(p.Code)-i-1); why != "" {
			t.Errorf("instruction %d: %s", i, why)
		}
	}
	if e, err = ParseFilter("ether[len & 3] = 0"); err != nil {
		t.Fatal(err)
	}
	if _, err := compileLive(e, LinkEthernet); err == nil || !strings.Contains(err.Error(), "computed offset") {
		t.Errorf("%v", err)
	}
	if e, err = ParseFilter(strings.Repeat("port 1 or ", 400) + "ip"); err != nil {
		t.Fatal(err)
	}
	if _, err := CompileFilter(e, LinkEthernet); err == nil || !strings.Contains(err.Error(), "4096") {
		t.Errorf("%v", err)
	}
}

// TestTcpdumpPrograms: what tcpdump -ddd prints passes what the expression passes.
func TestTcpdumpPrograms(t *testing.T) {
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("needs tcpdump, to compile the same expressions (Debian: apt-get install tcpdump)")
	}
	r := rand.New(rand.NewPCG(7, 7))
	for _, text := range []string{"tcp port 80 or udp port 53", "vlan 5 and ip", "ip[0] & 0xf > 5", "net 10.0.0.0/8 and greater 50"} {
		out, err := exec.Command(tcpdump, "-ddd", "-y", "EN10MB", text).Output()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := ParseFilter(string(out))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		oneLine, err := ParseFilter(strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ","))
		if err != nil || len(oneLine.(*FilterProgram).Code) != len(theirs.(*FilterProgram).Code) {
			t.Errorf("%q with commas: %v", text, err)
		}
		e, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := CompileFilter(e, LinkEthernet)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			b := ethernet(r, r.IntN(2))
			p := Packet{Data: b, OrigLen: len(b)}
			if got, want := theirs.(*FilterProgram).Run(&p), ours.Run(&p); got != want {
				t.Errorf("%q: tcpdump's program %v, ours %v: % x", text, got, want, b)
			}
		}
	}
	for _, tc := range []struct {
		text   string
		column int
		reason string
	}{
		{"2\n6 0 0 1\n", 11, "1 instructions"},
		{"1\n6 0 0\n", 3, "four numbers"},
		{"1\n6 0 0 x\n", 3, "no number"},
		{"1\n99 0 0 0\n", 0, "unknown opcode"},
		{"2\n5 0 0 7\n6 0 0 0\n", 0, "beyond the end"},
		{"2\n21 0 9 7\n6 0 0 0\n", 0, "beyond the end"},
		{"1\n40 0 0 12\n", 0, "does not return"},
		{"2\n52 0 0 0\n6 0 0 0\n", 0, "division by zero"},
		{"2\n2 0 0 16\n6 0 0 0\n", 0, "scratch memory"},
		{"5000\n6 0 0 1\n", 0, "5000 instructions"},
	} {
		_, err := ParseFilter(tc.text)
		var fe *FilterError
		if !errors.As(err, &fe) || !strings.Contains(fe.Reason, tc.reason) || tc.column > 0 && fe.Column != tc.column {
			t.Errorf("%q: %v, want column %d: %s", tc.text, err, tc.column, tc.reason)
		}
	}
}
