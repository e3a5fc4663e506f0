package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"squall/capture"
)

// tcpFrame is an Ethernet frame with a TCP segment.
func tcpFrame(from, to netip.AddrPort, seq, ack uint32, flags byte, data string) []byte {
	b := []byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00")
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(40+len(data)))
	b = binary.BigEndian.AppendUint16(b, uint16(seq))
	b = append(b, 0, 0, 64, 6, 0, 0)
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from.Port()), to.Port())
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, seq), ack)
	return append(append(b, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0), data...)
}

// TestVictimsAreNotExported: clients that ask all peers they know, one after the
// other, are no scanners; and in a flood nobody is an attacker who went on after his
// SYN, or whose SYN may have been repeated when nobody listened any more.
func TestVictimsAreNotExported(t *testing.T) {
	slow(t)
	rng := rand.New(rand.NewPCG(4, 2))
	at := func(a, b, c, d byte, port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{a, b, c, d}), uint16(port))
	}
	create := func(name string, packets []capture.Packet) string {
		t.Helper()
		slices.SortStableFunc(packets, func(a, b capture.Packet) int { return cmp.Compare(a.Time, b.Time) })
		path := filepath.Join(t.TempDir(), name)
		w, err := capture.Create(path, capture.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range packets {
			p := &packets[i]
			p.OrigLen, p.Link = max(p.OrigLen, len(p.Data)), capture.LinkEthernet
			if err := w.WritePacket(p, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Their node ends, and 40 peers that they knew are gone: of an unknown protocol and
	// of one that is known, with and without the sessions before.
	for _, hello := range [][2]string{{"hello", "yes"}, {"GNUTELLA CONNECT/0.6\r\n\r\n", "GNUTELLA/0.6 200 OK\r\n\r\n"}, {}} {
		var packets []capture.Packet
		put := func(when float64, from, to netip.AddrPort, seq, ack uint32, flags byte, data string) {
			packets = append(packets, capture.Packet{Time: 1293033600e9 + int64(when*1e9), Data: tcpFrame(from, to, seq, ack, flags, data)})
		}
		for c := range byte(60) {
			client, node := at(10, 1, 0, c+1, 20000), at(198, 51, 100, 1, 6346)
			if say, yes := hello[0], hello[1]; say != "" {
				when, i, j := rng.Float64()*20, rng.Uint32(), rng.Uint32()
				n, m := uint32(len(say)), uint32(len(yes))
				put(when, client, node, i, 0, 2, "")
				put(when+.02, node, client, j, i+1, 0x12, "")
				put(when+.021, client, node, i+1, j+1, 0x10, "")
				put(when+.03, client, node, i+1, j+1, 0x18, say)
				put(when+.05, node, client, j+1, i+1+n, 0x18, yes)
				put(when+.06, client, node, i+1+n, j+1+m, 0x10, "")
				put(60, node, client, j+1+m, i+1+n, 0x14, "")
			}
			when := 60 + rng.Float64()*3
			for k := range 40 {
				peer, i := at(203, 0, byte(rng.IntN(2)), byte(1+rng.IntN(250)), 6346), rng.Uint32()
				client = at(10, 1, 0, c+1, 30000+k)
				put(when, client, peer, i, 0, 2, "")
				put(when+1, client, peer, i, 0, 2, "")
				when += []float64{3, 0.3}[c%2] // the second half dials quickly
			}
		}
		file := create("peers.pcap", packets)
		for _, r := range table(t, "sources", file) {
			if r["role"] != "retrying_victim" {
				t.Fatalf("%q: %v", hello, r)
			}
		}
	}
	// A flood, and victims in it.
	packets, _ := packetsIn(t, sampled(t, "n2"))
	end := packets[len(packets)-1].Time
	packets = slices.DeleteFunc(packets, func(p capture.Packet) bool { return p.Time < end-90e9 })
	node := at(198, 51, 100, 1, 33033)
	for i := range byte(50) {
		client, seq := at(10, 7, 0, i, 4000), rng.Uint32()
		when := end - 20e9 + int64(i)*1e8
		if i < 20 { // connects, asks, is not answered
			packets = append(packets, capture.Packet{Time: when, Data: tcpFrame(client, node, seq, 0, 2, "")},
				capture.Packet{Time: when + 2e7, Data: tcpFrame(node, client, 7, seq+1, 0x12, "")},
				capture.Packet{Time: when + 3e7, Data: tcpFrame(client, node, seq+1, 8, 0x18, "hello")})
			continue
		}
		packets = append(packets, capture.Packet{Time: end - int64(i)*1e7, Data: tcpFrame(client, node, seq, 0, 2, "")})
	}
	file := create("flood.pcap", packets)
	_, out, errs := squall(nil, "sources", file, "-T", "nft")
	list := regexp.MustCompile(`\d+\.\d+\.\d+\.\d+`).FindAllString(out, -1)
	if len(list) < 1000 {
		t.Errorf("%d attackers; %s", len(list), errs)
	}
	for _, a := range list {
		if strings.HasPrefix(a, "10.7.0.") || strings.HasPrefix(a, "10.1.") {
			t.Errorf("a victim is exported: %s", a)
		}
	}
}

// TestLimit: what a limit would do is what the truth of the outage says, on all its
// attempts and those who never failed.
func TestLimit(t *testing.T) {
	slow(t)
	for _, args := range [][]string{{"outage"}, {"outage", "--seed", "5"}, {"s1", "--clients", "200"}, {"n6", "--duration", "90s"}} {
		file := filepath.Join(t.TempDir(), "a.pcap")
		truth := filepath.Join(filepath.Dir(file), "truth.json")
		if code, _, errs := squall(nil, append([]string{"sample", "-w", file, "--truth", truth}, args...)...); code != 0 {
			t.Fatal(errs)
		}
		type attempt struct {
			Source, Outcome, Relation string
			Start                     int64 `json:"start_ns"`
		}
		var said struct{ Attempts []attempt }
		if b, err := os.ReadFile(truth); err != nil || json.Unmarshal(b, &said) != nil {
			t.Fatal(err)
		}
		slices.SortFunc(said.Attempts, func(a, b attempt) int { return cmp.Compare(a.Start, b.Start) })
		var spells [][2]int64
		for _, f := range table(t, "report", "findings", file) {
			from, _ := time.Parse(time.RFC3339Nano, f["onset"])
			to, err := time.Parse(time.RFC3339Nano, f["end"])
			if err != nil {
				to = from.Add(time.Hour)
			}
			if f["class"] != "calm" && f["class"] != "insufficient_evidence" {
				spells = append(spells, [2]int64{from.UnixNano(), to.UnixNano()})
			}
		}
		const limit = 3
		type slot struct {
			source string
			at     int64
		}
		hits, met, failed := map[slot]int{}, map[string]bool{}, map[string]bool{}
		var storm, over, well, hurt float64
		for _, a := range said.Attempts {
			source, _, _ := strings.Cut(a.Source, ":")
			when := 1293033600e9 + a.Start
			k := slot{source, when / 10e9}
			hits[k]++
			met[source] = met[source] || hits[k] > limit
			if a.Relation == "refresh" || a.Relation == "parallel" {
				continue
			}
			failed[source] = failed[source] || a.Outcome != "accepted" && a.Outcome != "unknown"
			if slices.ContainsFunc(spells, func(s [2]int64) bool { return when >= s[0] && when <= s[1] }) {
				if storm++; hits[k] > limit {
					over++
				}
			}
		}
		for source := range met {
			if !failed[source] {
				if well++; met[source] {
					hurt++
				}
			}
		}
		_, _, errs := squall(nil, "sources", file, "--limit-each", fmt.Sprint(limit))
		var n int
		var removed, hurts float64
		if _, err := fmt.Sscanf(errs, "squall: %d attempts in 10 s for each source: removes %f %% of the attempts inside findings, hurts %f %%", &n, &removed, &hurts); err != nil {
			t.Fatalf("%s: %v", errs, err)
		}
		if want := 100 * over / max(storm, 1); math.Abs(removed-want) > 0.5 {
			t.Errorf("%v: removes %v %%, the truth says %v %%", args, removed, want)
		}
		if want := 100 * hurt / max(well, 1); math.Abs(hurts-want) > 0.5 {
			t.Errorf("%v: hurts %v %%, the truth says %v %%", args, hurts, want)
		}
	}
}
