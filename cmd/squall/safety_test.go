//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"squall/capture"
	"squall/replay"
)

// TestMain lets this binary be the command, for what changes a whole process.
func TestMain(m *testing.M) {
	if os.Getenv("SQUALL_AS_COMMAND") != "" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// inNamespace runs the test once more, in a network namespace of its own with
// nothing but loopback. It reports whether this is that run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("SQUALL_NAMESPACE") != "" {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(s)
		up, _ := unix.NewIfreq("lo")
		up.SetUint16(unix.IFF_UP)
		if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, up); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs a network namespace of its own: run the tests as root")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.short="+fmt.Sprint(testing.Short()))
	cmd.Env = append(os.Environ(), "SQUALL_NAMESPACE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	var out bytes.Buffer
	cmd.Stdout = &out
	if testing.Verbose() { // what it measures is of interest, too
		cmd.Stdout = io.MultiWriter(&out, os.Stdout)
	}
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	if err != nil && strings.Contains(err.Error(), "operation not permitted") {
		t.Skip("needs leave to make a network namespace: run the tests with CAP_SYS_ADMIN (in a container --cap-add SYS_ADMIN)")
	}
	if err != nil || !bytes.Contains(out.Bytes(), []byte("PASS")) {
		t.Errorf("%v\n%s", err, out.Bytes())
	}
	return false
}

// wire counts every packet of the namespace.
type wire int

func listenWire(t *testing.T) wire {
	t.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, all)
	if err != nil {
		t.Skipf("needs a packet socket: run the tests with CAP_NET_RAW: %v", err)
	}
	t.Cleanup(func() { unix.Close(s) })
	unix.SetNonblock(s, true)
	return wire(s)
}

func (w wire) packets() (n int) {
	b := make([]byte, 2048)
	for {
		if _, _, err := unix.Recvfrom(int(w), b, 0); err != nil {
			return n
		}
		n++
	}
}

// TestDryRunSendsNothing: a packet socket sees nothing of a dry run, nor of a
// refused run, and everything of one that sends.
func TestDryRunSendsNothing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	_, plan := outagePlan(t)
	_, flags := nodes(t, "sip", 3, replay.NodeConfig{})
	w := listenWire(t)
	w.packets()
	hash := regexp.MustCompile(`sha256 [0-9a-f]{64}`)
	told := ""
	for _, format := range []string{"markdown", "text"} {
		code, out, errs := squall(nil, append([]string{"replay", plan, "-T", format, "--speed", "60"}, flags...)...)
		if code != 0 || errs != "" || !strings.Contains(out, "127.0.0.1:") || !strings.Contains(out, "sha256") && format == "text" {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
		told = hash.FindString(out)
	}
	squall(nil, append([]string{"replay", plan, "--send", "--target", "10.1.2.3:5060"}, flags...)...)
	squall(nil, "replay", plan, "--send", "--target", "nowhere.example:5060")
	if n := w.packets(); n != 0 {
		t.Errorf("%d packets of runs that send nothing", n)
	}
	code, out, errs := squall(nil, append([]string{"replay", plan, "--speed", "120", "--max-rate", "20000", "--send", "-Z", "root"}, flags...)...)
	if n := w.packets(); code != 0 || n < 120 {
		t.Errorf("exit %d, %d packets of a run that sends\n%s%s", code, n, out, errs)
	}
	if sent := hash.FindString(out); sent == "" || sent != told {
		t.Errorf("the dry run told of plan %q, what was sent is %q", told, sent)
	}
	// The packets of a run, as --pcap keeps them, are what the run says.
	pcap := filepath.Join(t.TempDir(), "run.pcapng")
	code, out, errs = squall(nil, append([]string{"replay", plan, "--speed", "120", "--max-rate", "20000", "--send", "-Z", "root", "--pcap", pcap}, flags...)...)
	if code != 0 {
		t.Errorf("--pcap: exit %d\n%s%s", code, out, errs)
	}
	code, rows, errs := squall(nil, "report", "attempts", pcap, "-T", "jsonl")
	if n := strings.Count(rows, `"network_protocol":"sip"`); code != 0 || n < 110 || !strings.Contains(rows, `"attempt_outcome":"accepted"`) {
		t.Errorf("of the packets: exit %d, %d attempts\n%s", code, n, errs)
	}
}

// fakeNames answers name lookups of this process from a table.
func fakeNames(t *testing.T, table map[string][]string) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	real := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = real; server.Close() })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Authoritative, m.Additionals = true, true, nil
			list, ok := table[strings.TrimSuffix(q.Name.String(), ".")]
			if !ok {
				m.RCode = dnsmessage.RCodeNameError
			}
			for _, s := range list {
				a := netip.MustParseAddr(s)
				h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type, TTL: 1}
				switch {
				case a.Is4() && q.Type == dnsmessage.TypeA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
				case a.Is6() && q.Type == dnsmessage.TypeAAAA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
				}
			}
			if b, err := m.Pack(); err == nil {
				server.WriteTo(b, from)
			}
		}
	}()
}

// TestRefusals: case by case, exit 4 and one line that names the reason.
func TestRefusals(t *testing.T) {
	_, plan := outagePlan(t)
	b, err := os.ReadFile(plan)
	if err != nil {
		t.Fatal(err)
	}
	// A capture that names public addresses, and a private one.
	named := filepath.Join(t.TempDir(), "named.plan")
	if err := os.WriteFile(named, bytes.Replace(b, []byte(`"recorded_addresses":[`), []byte(`"recorded_addresses":["8.8.4.4","192.168.77.5",`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	fakeNames(t, map[string][]string{"outside.example": {"127.0.0.1", "8.8.8.8"}, "inside.example": {"127.0.0.1"}, "mapped.example": {"::ffff:8.8.8.8"},
		"rebound.example": {"192.168.77.9"}})
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"no --target", nil},
		{"public", []string{"--target", "8.8.8.8:5060"}},
		{"public", []string{"--target", "8.8.8.8:5060", "--allow", "127.0.0.0/8"}},
		{"public", []string{"--target", "[::ffff:8.8.8.8]:5060"}},
		{"public", []string{"--target", "[64:ff9b::808:808]:5060"}},
		{"public", []string{"--target", "[2a00:1450::1]:5060"}},
		{"private", []string{"--target", "192.168.77.9:5060"}},
		{"private", []string{"--target", "[::ffff:10.0.0.1]:5060"}},
		{"private", []string{"--target", "[64:ff9b:1::a00:1]:5060"}},
		{"private", []string{"--target", "[fd00::1]:5060"}},
		{"private", []string{"--target", "[fe80::1%eth0]:5060"}},
		{"private", []string{"--target", "192.168.78.9:5060", "--allow", "192.168.77.0/24"}},
		{"network or broadcast address", []string{"--target", "192.168.77.255:5060", "--allow", "192.168.77.0/24"}},
		{"network or broadcast address", []string{"--target", "192.168.77.0:5060", "--allow", "192.168.77.0/24"}},
		{"never sent to", []string{"--target", "255.255.255.255:5060"}},
		{"never sent to", []string{"--target", "224.0.0.251:5060"}},
		{"never sent to", []string{"--target", "[ff02::1]:5060"}},
		{"never sent to", []string{"--target", "[::ffff:224.0.0.1]:5060"}},
		{"never sent to", []string{"--target", "0.0.0.0:5060"}},
		{"never sent to", []string{"--target", "[::]:5060"}},
		{"occurs in the capture", []string{"--target", "192.168.77.5:5060", "--allow", "192.168.77.0/24"}},
		{"occurs in the capture", []string{"--target", "[::ffff:192.168.77.5]:5060", "--allow", "192.168.77.0/24"}},
		{"occurs in the capture", []string{"--target", "8.8.4.4:5060"}},
		{"occurs in the capture", []string{"--target", "8.8.4.4:5060", "--consent", "1"}},
		{"wider than /24", []string{"--target", "10.0.0.1:5060", "--allow", "10.0.0.0/8"}},
		{"wider than /64", []string{"--target", "[fd00::1]:5060", "--allow", "fd00::/48"}},
		{"public addresses are sent to", []string{"--target", "8.8.8.8:5060", "--allow", "8.8.8.0/24"}},
		{"never sent to", []string{"--target", "224.0.0.1:5060", "--allow", "224.0.0.0/24"}},
		{"public", []string{"--target", "outside.example:5060"}},
		{"public", []string{"--target", "mapped.example:5060"}},
		{"private", []string{"--target", "rebound.example:5060"}},
		{"private", []string{"--target", "inside.example:5060", "--target", "rebound.example:5060"}},
		{"gives no consent", []string{"--target", "192.168.77.9:5060", "--consent", "9", "--max-duration", "1h"}},
		{"the cap is", []string{"--target", "127.0.0.1:5060", "--max-duration", "5s"}},
	} {
		if strings.HasPrefix(tc.want, "gives") && testing.Short() {
			continue // waits three seconds for an answer
		}
		code, out, errs := squall(nil, append([]string{"replay", named, "--send", "-Z", "root"}, tc.args...)...)
		if code != exitRefused || out != "" || !strings.HasPrefix(errs, "squall: refused: ") || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, tc.want) {
			t.Errorf("%v: exit %d, want %q\n%s%s", tc.args, code, tc.want, out, errs)
		}
	}
	// The nodes stay closed in a plan that somebody emptied the list of.
	bare := filepath.Join(t.TempDir(), "bare.plan")
	node, rest, _ := strings.Cut(string(b[bytes.Index(b, []byte(`"address":"`))+len(`"address":"`):]), `"`)
	if err := os.WriteFile(bare, []byte(strings.Replace(string(b), `"recorded_addresses":[`, `"was":[`, 1)), 0o600); err != nil || rest == "" {
		t.Fatal(err)
	}
	host, _, _ := net.SplitHostPort(node)
	if code, out, errs := squall(nil, "replay", bare, "--send", "-Z", "root", "--target", node, "--allow", host+"/32"); code != exitRefused || out != "" || !strings.Contains(errs, "occurs in the capture") {
		t.Errorf("node %s of a plan without a list: exit %d\n%s%s", node, code, out, errs)
	}
	if code, out, errs := squall(nil, "replay", named, "--target", "inside.example:5060"); code != 0 || !strings.Contains(out, "127.0.0.1:5060") {
		t.Errorf("a name on loopback: exit %d\n%s%s", code, out, errs)
	}
	if code, out, _ := squall(nil, "replay", named, "--target", "192.168.77.9:5060", "--allow", "192.168.77.0/24"); code != 0 || !strings.Contains(out, "192.168.77.9:5060") {
		t.Errorf("an allowed network: exit %d\n%s", code, out)
	}
	for _, args := range [][]string{{"--target", "127.0.0.1"}, {"--target", "127.0.0.1:0"}, {"--target", "127.0.0.1:5060", "--allow", "here"},
		{"--target", "127.0.0.1:5060", "--trigger", "at 3s: node 1 down"}, {"--target", "127.0.0.1:5060", "--trigger", "soon"}, {"--target", "127.0.0.1:5060", "--bind", "x"},
		{"--target", "127.0.0.1:5060", "--override", "policy: never"}, {"--target", "127.0.0.1:5060", "-T", "html"}, {"--target", "gone.example:5060"},
		{"--target", "127.0.0.1:5060", "--bind", "203.0.113.0/24"}, {"--target", "127.0.0.1:5060", "--speed", "0"}, {"--target", "127.0.0.1:5060", "--speed", "nan"},
		{"--target", "127.0.0.1:5060", "--max-rate", "-1"}, {"--target", "127.0.0.1:5060", "--max-rate", "inf"}, {"--target", "127.0.0.1:5060", "--max-bytes", "0"},
		{"--target", "127.0.0.1:5060", "--max-duration", "-1s"}, {"--target", "127.0.0.1:5060", "--keepalive", "-1s"}, {"--testnodes", "3", "--speed", "-1"}} {
		if code, out, errs := squall(nil, append([]string{"replay", named}, args...)...); code != exitUsage || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
}

// TestSocketLimit: more clients over TCP than the machine has sockets for are
// refused with the number.
func TestSocketLimit(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	capture, plan := filepath.Join(dir, "s10.pcap"), filepath.Join(dir, "s10.plan")
	squall(nil, "sample", "s10", "-w", capture)
	if code, _, errs := squall(nil, "plan", capture, "-w", plan); code != 0 {
		t.Fatal(errs)
	}
	cmd := exec.Command("sh", "-c", `ulimit -n 512; exec "$0" replay "$1" --target 127.0.0.1:5060 --send -Z root`, os.Args[0], plan)
	cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitRefused || !strings.Contains(string(out), "2000 clients") || !strings.Contains(string(out), "448") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestConsentEnds: on an address that is not loopback, the target's consent
// opens it, narrows the rate, and its end stops the sending.
func TestConsentEnds(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if testing.Short() {
		t.Skip("needs five seconds: run the tests without -short")
	}
	if out, err := exec.Command("ip", "address", "add", "10.77.0.1/24", "dev", "lo").CombinedOutput(); err != nil {
		t.Skipf("needs ip of iproute2 (Debian: apt-get install iproute2) and CAP_NET_ADMIN: %v: %s", err, out)
	}
	_, plan := outagePlan(t)
	consent := exec.Command(os.Args[0], "consent", "--listen", "10.77.0.1:7655", "--until", "2500ms", "--max-rate", "77")
	consent.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
	said, _ := consent.StdoutPipe()
	if err := consent.Start(); err != nil {
		t.Fatal(err)
	}
	defer consent.Wait()
	io.ReadAtLeast(said, make([]byte, 20), 20)
	listen, err := net.ListenPacket("udp", "10.77.0.1:5060")
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	args := []string{"replay", plan, "--target", "10.77.0.1:5060", "--speed", "10", "--consent", "7655", "--until-collapse", "-Z", "root"}
	if code, out, errs := squall(nil, args...); code != 0 || !strings.Contains(out, "up to 77/s") {
		t.Errorf("dry run: exit %d\n%s%s", code, out, errs)
	}
	code, out, errs := squall(nil, append(args, "--send")...)
	if code != exitRefused || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "consent") || !strings.Contains(out, "stopped     refused") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	w := listenWire(t)
	time.Sleep(300 * time.Millisecond)
	if n := w.packets(); n != 0 {
		t.Errorf("%d packets after the consent had ended", n)
	}
	if code, _, errs := squall(nil, append(args, "--send")...); code != exitRefused || !strings.Contains(errs, "gives no consent") {
		t.Errorf("after its end: exit %d: %s", code, errs)
	}
}

// TestRootBecomesNobody: a run started as root ends as somebody else, its
// results are that user's, and a directory with other files is left alone.
func TestRootBecomesNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give it up: run the tests as root")
	}
	_, plan := outagePlan(t)
	_, flags := nodes(t, "sip", 3, replay.NodeConfig{})
	dir := filepath.Join(t.TempDir(), "run")
	replayAs := func(dir string) (int, string) {
		cmd := exec.Command(os.Args[0], append([]string{"replay", plan, "--speed", "200", "--max-rate", "20000", "--send", "-o", dir}, flags...)...)
		cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1", "SUDO_USER=")
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	for range 2 { // the second over the results of the first
		if code, out := replayAs(dir); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
	}
	var st syscall.Stat_t
	for _, name := range []string{".", resultsName, runName, summaryName} {
		if err := syscall.Stat(filepath.Join(dir, name), &st); err != nil || st.Uid == 0 {
			t.Errorf("%s: user %d, %v", name, st.Uid, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, runName))
	if err != nil || bytes.Contains(b, []byte(`"user_id": 0`)) {
		t.Errorf("who ran it: %v\n%s", err, b)
	}
	full := t.TempDir()
	os.WriteFile(filepath.Join(full, "letter"), nil, 0o600)
	if code, out := replayAs(full); code != exitUsage || !strings.Contains(out, "holds other files") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// TestPacketsOfRootsFiles: packet mode gives root up when it has read its
// captures, not before: all packets of many files that only root may read go
// out, and a file that broke off is told with exit 3.
func TestPacketsOfRootsFiles(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	whole, _ := outagePlan(t)
	src, err := capture.Open([]string{whole}, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var all []capture.Packet
	for b, err := src.Next(); err == nil; b, err = src.Next() {
		all = append(all, b.Packets...) // one small file, never given back
	}
	const files = 6 // more than are read ahead
	var names []string
	for i := range files {
		name := filepath.Join(dir, fmt.Sprintf("%d.pcap", i))
		h, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		w, err := capture.NewWriter(h, capture.WriterOptionsFor(name))
		if err != nil {
			t.Fatal(err)
		}
		for k := len(all) * i / files; k < len(all)*(i+1)/files; k++ {
			if err := w.WritePacket(&all[k], ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		h.Close()
		names = append(names, name)
	}
	send := func() (int, string) {
		cmd := exec.Command(os.Args[0], append([]string{"replay", "packets", "-i", "lo", "--map", "0.0.0.0/0=127.0.0.0/8", "--keep-residual", "--top-speed", "--max-rate", "1e9", "--send"}, names...)...)
		cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1", "SUDO_USER=")
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if code, out := send(); code != 0 || !strings.Contains(out, fmt.Sprintf("sent        %d packets", len(all))) {
		t.Errorf("exit %d, want %d packets\n%s", code, len(all), out)
	}
	b, err := os.ReadFile(names[1])
	if err != nil {
		t.Fatal(err)
	}
	b[24+8] = 0xff // the length of its first record
	b[24+9], b[24+10], b[24+11] = 0xff, 0xff, 0xff
	if err := os.WriteFile(names[1], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := send(); code != exitDamaged || !strings.Contains(out, "1.pcap: offset 24, frame 1: ") || strings.Contains(out, fmt.Sprintf("sent        %d packets", len(all))) {
		t.Errorf("a broken file: exit %d\n%s", code, out)
	}
}

// TestInterrupt: Ctrl-C ends a run with 130, its results kept, and nothing is
// sent afterwards.
func TestInterrupt(t *testing.T) {
	_, plan := outagePlan(t)
	c, flags := nodes(t, "sip", 3, replay.NodeConfig{})
	dir := filepath.Join(t.TempDir(), "run")
	cmd := exec.Command(os.Args[0], append([]string{"replay", plan, "--speed", "10", "--send", "-o", dir}, flags...)...)
	cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asked := func() (n int64) {
		for _, n2 := range c.Nodes() {
			n += n2.Counters().Requests
		}
		return n
	}
	for range 1000 {
		if asked() > 10 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	n := asked()
	if code := cmd.ProcessState.ExitCode(); code != exitSignal || !strings.Contains(out.String(), "stopped     interrupted") {
		t.Errorf("exit %d\n%s", code, out.String())
	}
	if code, rows, errs := squall(nil, "report", "attempts", dir, "-T", "jsonl"); code != 0 || !strings.Contains(rows, "accepted") {
		t.Errorf("exit %d: %s", code, errs)
	}
	time.Sleep(100 * time.Millisecond)
	if asked() != n {
		t.Errorf("%d requests after the end", asked()-n)
	}
}

// TestPacketModeRefusals: packet mode sends nothing without --send, nothing where
// a rule refuses, and says why in one line with exit 4.
func TestPacketModeRefusals(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	pcap, _ := outagePlan(t)
	w := listenWire(t)
	w.packets()
	every := []string{"--map", "0.0.0.0/0=127.0.0.0/8"}
	for _, tc := range []struct {
		want string
		code int
		args []string
	}{
		{"", 0, append([]string{"--keep-residual"}, every...)}, // a dry run
		{"covered by no --map", exitRefused, []string{"--send", "--map", "198.51.100.0/24=127.0.0.0/24"}},
		{"is public", exitRefused, []string{"--send", "--map", "0.0.0.0/0=8.8.8.0/24"}},
		{"is private: allow its network", exitRefused, []string{"--send", "--map", "0.0.0.0/0=10.9.0.0/16"}},
		{"wider than /24", exitRefused, []string{"--send", "--map", "0.0.0.0/0=10.9.0.0/16", "--allow", "10.9.0.0/16"}},
		{"multicast", exitRefused, []string{"--send", "--map", "0.0.0.0/0=224.0.0.0/8"}},
		{"occurs in the capture", exitRefused, []string{"--send", "--map", "10.1.0.0/24=127.0.1.0/24", "--map", "198.51.100.0/24=198.51.100.0/24", "--allow", "198.51.100.0/24"}},
		{"makes one address of", exitRefused, []string{"--send", "--map", "10.1.0.0/24=127.0.1.0/24", "--map", "198.51.100.0/24=127.0.1.0/24"}},
		{"name a recorded address in their payload", exitRefused, append([]string{"--send"}, every...)},
		{"the cap is --max-rate", exitRefused, append([]string{"--send", "--keep-residual", "--pps", "5000"}, every...)},
		{"the cap is --max-duration", exitRefused, append([]string{"--send", "--keep-residual", "--pps", "1"}, every...)},
		{"--max-bytes", exitRefused, append([]string{"--send", "--keep-residual", "--max-bytes", "1000"}, every...)},
		{"lift the cap with --max-rate", exitRefused, append([]string{"--send", "--keep-residual", "--top-speed"}, every...)},
		{"nothing goes on for ever", exitUsage, append([]string{"--send", "--loop", "0"}, every...)},
		{"--send wants -i", exitUsage, append([]string{"--send", "-w", filepath.Join(t.TempDir(), "x.pcap")}, every...)},
	} {
		args := []string{"replay", "packets", pcap}
		if !strings.HasPrefix(tc.want, "--send wants") {
			args = append(args, "-i", "lo", "-Z", "root")
		}
		code, out, errs := squall(nil, append(args, tc.args...)...)
		if code != tc.code || !strings.Contains(errs, tc.want) || tc.want != "" && strings.Count(errs, "\n") != 1 || code == exitRefused && !strings.HasPrefix(errs, "squall: refused: ") {
			t.Errorf("%v: exit %d, want %d and %q\n%s%s", tc.args, code, tc.code, tc.want, out, errs)
		}
		if n := w.packets(); n != 0 {
			t.Errorf("%v: %d packets on the wire", tc.args, n)
		}
	}
}
