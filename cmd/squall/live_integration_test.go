//go:build integration && linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"squall/capture"
	"squall/dissect/headers"
	"squall/samples"
)

// must runs a program of the system.
func must(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Skipf("needs iproute2 and mount, and a kernel and rights (root with CAP_NET_ADMIN and CAP_SYS_ADMIN) for %s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

// begin starts a live verb and waits until it listens.
func begin(t *testing.T, args ...string) (stop func(os.Signal) string, pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SQUALL_AS_COMMAND=1")
	var errs bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr, cmd.Stdout = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	listens, over := make(chan bool, 1), make(chan bool)
	go func() {
		defer close(over)
		b := make([]byte, 4096)
		for {
			n, err := r.Read(b)
			errs.Write(b[:n])
			if strings.Contains(errs.String(), "listening") {
				select {
				case listens <- true:
				default:
				}
			}
			if err != nil {
				return
			}
		}
	}()
	if args[0] == "capture" {
		select {
		case <-listens:
		case <-over:
			cmd.Wait()
			t.Fatalf("%v: %s", args, errs.String())
		}
	} else {
		time.Sleep(2 * time.Second)
	}
	return func(s os.Signal) string {
		cmd.Process.Signal(s)
		<-over
		cmd.Wait()
		return errs.String()
	}, cmd.Process.Pid
}

// injector sends frames on an interface, as they are.
type injector struct {
	fd int
	to unix.SockaddrLinklayer
}

func inject(t *testing.T, name string) *injector {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &injector{fd, unix.SockaddrLinklayer{Ifindex: i.Index}}
}

func (i *injector) send(t *testing.T, frame []byte) {
	t.Helper()
	for {
		err := unix.Sendto(i.fd, frame, 0, &i.to)
		if err == unix.ENOBUFS {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
}

var capturedLine = regexp.MustCompile(`(\w+): (\d+) packets captured, (\d+) passed the filter, (\d+) dropped by the kernel`)

// confined: a live verb is not root, has no capability left, and a sandbox.
func confined(t *testing.T, pid int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !bytes.Contains(status, []byte(want)) {
			t.Errorf("not %q in %s", want, status)
		}
	}
	if bytes.Contains(status, []byte("Uid:\t0")) {
		t.Error("it is root")
	}
}

func TestLiveInNamespace(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	must(t, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	must(t, "ip", "link", "set", "v0", "up")
	must(t, "ip", "link", "set", "v1", "up")
	var frames [][]byte
	if _, err := samples.Simulate(func() samples.Scenario { s, _ := samples.Find("outage"); return s }(), 1, func(p *capture.Packet) {
		frames = append(frames, bytes.Clone(p.Data))
	}); err != nil {
		t.Fatal(err)
	}
	in := inject(t, "v0")
	dir, err := os.MkdirTemp("/tmp", "squall-live-") // one that nobody may write to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777)

	t.Run("count", func(t *testing.T) {
		file, theirs := filepath.Join(dir, "count.pcapng"), filepath.Join(dir, "tcpdump.pcap")
		tcpdump := exec.Command("tcpdump", "-i", "v1", "-p", "-s", "0", "-U", "-Z", "root", "-w", theirs)
		if err := tcpdump.Start(); err != nil {
			t.Skipf("needs tcpdump to compare with (Debian: apt-get install tcpdump): %v", err)
		}
		stop, _ := begin(t, "capture", "-i", "v1", "-w", file)
		for range 3 {
			for _, f := range frames {
				in.send(t, f)
			}
		}
		time.Sleep(time.Second)
		said := stop(unix.SIGINT)
		tcpdump.Process.Signal(unix.SIGINT)
		tcpdump.Wait()
		var captured, passed, dropped int
		m := capturedLine.FindStringSubmatch(said)
		if m == nil {
			t.Fatal(said)
		}
		fmt.Sscan(m[2], &captured)
		fmt.Sscan(m[3], &passed)
		fmt.Sscan(m[4], &dropped)
		if passed != 3*len(frames) || captured+dropped != passed {
			t.Errorf("sent %d: %s", 3*len(frames), said)
		}
		got, stats := packetsIn(t, file)
		want, _ := packetsIn(t, theirs)
		if len(got) != captured || stats.Damage != nil || stats.Drops < int64(dropped) {
			t.Errorf("%d packets in the file, %d captured, %+v", len(got), captured, stats)
		}
		if dropped > 0 || len(want) != len(got) {
			t.Skipf("needs a machine idle enough that nothing is dropped: squall dropped %d, tcpdump has %d of %d: run it again", dropped, len(want), len(got))
		}
		for i := range got {
			if !bytes.Equal(got[i].Data, want[i].Data) || got[i].OrigLen != want[i].OrigLen {
				t.Fatalf("packet %d is not what tcpdump has", i+1)
			}
		}
	})

	t.Run("filter and tags", func(t *testing.T) {
		tagged := func(f []byte, id byte) []byte {
			return append(append(append([]byte{}, f[:12]...), 0x81, 0, 0, id), f[12:]...)
		}
		var sent []capture.Packet
		for i, f := range frames[:600] {
			if i%3 > 0 {
				f = tagged(f, byte(4+i%3))
			}
			sent = append(sent, capture.Packet{Data: f, OrigLen: len(f), Link: capture.LinkEthernet})
		}
		for _, text := range []string{"udp", "vlan", "vlan 5 and udp port 5060", "not vlan", "vlan and ip[8] > 10", "ether[12:2] = 0x8100 and len > 300", "inbound and vlan 6"} {
			for _, name := range []string{"v1", "any"} {
				if name == "any" && strings.Contains(text, "ether[") {
					continue
				}
				file := filepath.Join(dir, "filter.pcapng")
				stop, _ := begin(t, "capture", "-i", name, "-f", text, "-w", file)
				for i := range sent {
					in.send(t, sent[i].Data)
				}
				time.Sleep(200 * time.Millisecond)
				stop(unix.SIGINT)
				expr, err := capture.ParseFilter(strings.TrimPrefix(text, "inbound and "))
				if err != nil {
					t.Fatal(err)
				}
				want := 0
				for i := range sent {
					if headers.Match(expr, &sent[i]) {
						want++
					}
				}
				got, _ := packetsIn(t, file)
				n := 0
				for i := range got {
					if !headers.Match(expr, &got[i]) {
						t.Fatalf("%s: %q: a packet in the file does not pass: % x", name, text, got[i].Data)
					}
					if got[i].Flags&capture.FlagDirection == capture.FlagInbound {
						n++ // on any, v0 sends them as well
					}
				}
				if n != want || want == 0 {
					t.Errorf("%s: %q: %d packets, want %d", name, text, n, want)
				}
			}
		}
	})

	t.Run("kill", func(t *testing.T) {
		for _, name := range []string{"kill.pcapng", "kill.pcapng.zst"} {
			file := filepath.Join(dir, name)
			stop, _ := begin(t, "capture", "-i", "v1", "-w", file)
			for _, f := range frames {
				in.send(t, f)
			}
			time.Sleep(1500 * time.Millisecond) // past a flush
			stop(unix.SIGKILL)
			got, stats := packetsIn(t, file)
			if stats.Damage != nil || len(got) == 0 {
				t.Errorf("%s: %d packets, %+v", name, len(got), stats.Damage)
			}
			if tshark, err := exec.LookPath("tshark"); err == nil && name == "kill.pcapng" {
				if out, err := exec.Command(tshark, "-r", file, "-Y", "frame.number == 1").CombinedOutput(); err != nil || bytes.Contains(out, []byte("cut short")) {
					t.Errorf("%v: %s", err, out)
				}
			}
		}
	})

	t.Run("full disk", func(t *testing.T) {
		small := filepath.Join(dir, "small")
		os.Mkdir(small, 0o777)
		must(t, "mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "none", small)
		defer exec.Command("umount", small).Run()
		stop, _ := begin(t, "capture", "-i", "v1", "-w", filepath.Join(small, "ring.pcapng"), "-b", "filesize:300")
		for range 3 {
			for _, f := range frames {
				in.send(t, f)
			}
			time.Sleep(1100 * time.Millisecond)
		}
		said := stop(unix.SIGINT)
		if !strings.Contains(said, "the disk is full: removed") {
			t.Errorf("not said: %s", said)
		}
		names, _ := filepath.Glob(filepath.Join(small, "*"))
		for _, name := range names {
			if _, stats := packetsIn(t, name); stats.Damage != nil {
				t.Errorf("%s: %+v", name, stats.Damage)
			}
			os.Remove(name)
		}
		// Without older files it stops.
		stop, _ = begin(t, "capture", "-i", "v1", "-w", filepath.Join(small, "one.pcapng"))
		for range 3 {
			for _, f := range frames {
				in.send(t, f)
			}
			time.Sleep(1100 * time.Millisecond)
		}
		said = stop(unix.SIGINT)
		if !strings.Contains(said, "the disk is full") || !strings.Contains(said, "stopped after") {
			t.Errorf("not said: %s", said)
		}
		if _, stats := packetsIn(t, filepath.Join(small, "one.pcapng")); stats.Damage != nil || stats.Packets == 0 {
			t.Errorf("%+v", stats)
		}
	})

	t.Run("ring under load", func(t *testing.T) {
		ring := filepath.Join(dir, "ring")
		os.Mkdir(ring, 0o700)
		os.Chmod(ring, 0o777) // whatever the umask is
		stop, pid := begin(t, "capture", "-i", "v1", "-w", filepath.Join(ring, "r.pcapng"), "-b", "packets:700", "-b", "files:1000")
		confined(t, pid)
		for range 5 {
			for _, f := range frames {
				in.send(t, f)
			}
		}
		time.Sleep(time.Second)
		said := stop(unix.SIGINT)
		m := capturedLine.FindStringSubmatch(said)
		if m == nil {
			t.Fatal(said)
		}
		var captured, dropped int
		fmt.Sscan(m[2], &captured)
		fmt.Sscan(m[4], &dropped)
		names, _ := filepath.Glob(filepath.Join(ring, "*"))
		slices.Sort(names)
		tshark, _ := exec.LookPath("tshark")
		n, last := 0, int64(0)
		for i, name := range names {
			got, stats := packetsIn(t, name)
			if stats.Damage != nil || len(got) != 700 && i < len(names)-1 || got[0].Time < last {
				t.Errorf("%s: %d packets, %+v", name, len(got), stats.Damage)
			}
			n += len(got)
			last = got[len(got)-1].Time
			if tshark != "" && i%20 == 0 {
				if out, err := exec.Command(tshark, "-r", name, "-Y", "frame.number == 1").CombinedOutput(); err != nil || bytes.Contains(out, []byte("cut short")) {
					t.Errorf("%v: %s", err, out)
				}
			}
		}
		if n != captured || n+dropped != 5*len(frames) || len(names) < 40 {
			t.Errorf("%d packets in %d files, sent %d: %s", n, len(names), 5*len(frames), said)
		}
	})

	t.Run("wireguard", func(t *testing.T) {
		if out, err := exec.Command("ip", "link", "add", "wg0", "type", "wireguard").CombinedOutput(); err == nil {
			defer exec.Command("ip", "link", "del", "wg0").Run()
		} else { // the same device, of the program
			daemon := exec.Command("wireguard-go", "--foreground", "wg0")
			if daemon.Start() != nil {
				t.Skipf("needs a kernel with WireGuard (modprobe wireguard on the host) or wireguard-go (Debian: apt-get install wireguard-go): %s", out)
			}
			defer daemon.Wait()
			defer daemon.Process.Signal(unix.SIGTERM)
			for range 100 {
				if _, err := net.InterfaceByName("wg0"); err == nil {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
		must(t, "ip", "address", "add", "10.99.0.1/24", "dev", "wg0")
		must(t, "ip", "link", "set", "wg0", "up")
		if code, out, errs := squall(nil, "capture", "-D"); code != 0 || !regexp.MustCompile(`wg0 .*link type 101 .*wireguard`).MatchString(out) {
			t.Errorf("%s%s", out, errs)
		}
		// What goes into the tunnel is seen before it is encrypted.
		file := filepath.Join(dir, "wg.pcapng")
		stop, _ := begin(t, "capture", "-i", "wg0", "-f", "udp port 7654", "-w", file)
		c, err := net.Dial("udp", "10.99.0.2:7654")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 5 {
			c.Write([]byte("into the tunnel")) // no peer has a key: that is an error, later
		}
		time.Sleep(200 * time.Millisecond)
		stop(unix.SIGINT)
		got, stats := packetsIn(t, file)
		if len(got) != 5 || stats.LinkTypes[0] != capture.LinkRaw || !bytes.HasSuffix(got[0].Data, []byte("into the tunnel")) || got[0].Data[0] != 0x45 {
			t.Errorf("%d packets, link types %v", len(got), stats.LinkTypes)
		}
	})

	t.Run("down and up", func(t *testing.T) {
		file := filepath.Join(dir, "down.pcapng")
		stop, _ := begin(t, "capture", "-i", "v1", "-w", file)
		in.send(t, frames[0])
		time.Sleep(300 * time.Millisecond)
		must(t, "ip", "link", "set", "v1", "down")
		time.Sleep(500 * time.Millisecond)
		must(t, "ip", "link", "set", "v1", "up")
		time.Sleep(500 * time.Millisecond)
		in.send(t, frames[1])
		time.Sleep(300 * time.Millisecond)
		said := stop(unix.SIGINT)
		if got, _ := packetsIn(t, file); len(got) != 2 || !strings.Contains(said, "v1 went down") || !strings.Contains(said, "v1 is up again") {
			t.Errorf("%d packets; %s", len(got), said)
		}
	})

	t.Run("tun", func(t *testing.T) {
		must(t, "ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
		defer exec.Command("ip", "link", "del", "tun0").Run()
		tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			t.Skipf("needs /dev/net/tun (modprobe tun; in a container --device /dev/net/tun): %v", err)
		}
		defer tun.Close()
		ifr, _ := unix.NewIfreq("tun0")
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, ifr); err != nil {
			t.Skipf("needs leave to make tun devices (root with CAP_NET_ADMIN): %v", err)
		}
		must(t, "ip", "link", "set", "tun0", "up")
		file := filepath.Join(dir, "tun.pcapng")
		stop, _ := begin(t, "capture", "-i", "tun0", "-f", "udp", "-w", file)
		sent := 0
		for _, f := range frames[:50] {
			if _, err := unix.Write(int(tun.Fd()), f[14:]); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		time.Sleep(200 * time.Millisecond)
		stop(unix.SIGINT)
		got, stats := packetsIn(t, file)
		if len(got) != sent || stats.LinkTypes[0] != capture.LinkRaw || !bytes.Equal(got[0].Data, frames[0][14:]) {
			t.Errorf("%d of %d packets, link types %v", len(got), sent, stats.LinkTypes)
		}
	})

	t.Run("watch", func(t *testing.T) {
		stop, pid := begin(t, "watch", "-i", "v1", "-T", "jsonl")
		confined(t, pid)
		// A node that refuses everybody, live.
		onset := time.Now()
		for i := range 400 {
			syn := bytes.Clone(frames[0][:14])
			syn = append(syn, 0x45, 0, 0, 40, 0, byte(i), 0, 0, 64, 6, 0, 0, 10, 3, 0, byte(i%40), 10, 4, 0, 1)
			syn = append(syn, byte(8+i>>8), byte(i), 0x12, 0x34, 0, 0, byte(i>>8), byte(i), 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0)
			in.send(t, syn)
			rst := append(bytes.Clone(syn[:26]), syn[30:34]...)
			rst = append(append(append(rst, syn[26:30]...), syn[36:38]...), syn[34:36]...)
			rst = append(rst, 0, 0, 0, 0, 0, 0, syn[40], syn[41]+1, 0x50, 0x14, 0, 0, 0, 0, 0, 0)
			in.send(t, rst)
			time.Sleep(50 * time.Millisecond)
		}
		out := stop(unix.SIGINT)
		t.Logf("20 s of refusals from %s:\n%s", onset.UTC().Format(time.RFC3339Nano), out)
		if !strings.Contains(out, `"sight":"provisional"`) || !strings.Contains(out, `"sight":"confirmed"`) {
			t.Errorf("no finding was told")
		}
	})
}
