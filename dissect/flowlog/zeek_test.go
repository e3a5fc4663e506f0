package flowlog_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/flowlog"
	"squall/dissect/headers"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/samples"
)

// This is a writer of conn.log that knows nothing of the reader: it follows
// connections as Zeek does (analyzer/protocol/tcp/TCP.cc, the timers of
// init-bare.zeek, determine_state of base/protocols/conn/main.zeek), as far as
// a test needs it.

type endState int

const (
	inactive endState = iota
	synSent
	synAckSent
	partial
	established
	closed
	resetState
)

type zeekConn struct {
	orig, resp  dissect.Endpoint
	proto       uint8
	start, last int64
	state       [2]endState // of orig, of resp
	packets     [2]int64
	ipBytes     [2]int64
	payload     [2]int64
	history     string
	seq         int // in the order of their beginning
}

func (c *zeekConn) letter(l byte, orig bool) {
	if orig {
		l -= 'a' - 'A'
	}
	if !strings.Contains(c.history, string(l)) {
		c.history += string(l)
	}
}

// expires is when Zeek's timers remove the connection.
func (c *zeekConn) expires() int64 {
	const second = int64(1e9)
	switch {
	case c.proto == dissect.ProtoUDP:
		return c.last + 60*second // udp_inactivity_timeout
	case c.state[0] == synSent && c.state[1] == inactive:
		return c.start + 5*second // tcp_attempt_delay
	case c.state[0] == resetState || c.state[1] == resetState:
		return c.last + second/10 // tcp_reset_delay
	case c.state[0] == closed && c.state[1] == closed:
		return c.last + 5*second // tcp_close_delay
	}
	return c.last + 300*second // tcp_inactivity_timeout
}

func (c *zeekConn) connState() string {
	o, r := c.state[0], c.state[1]
	if c.proto == dissect.ProtoUDP {
		switch {
		case c.packets[0] > 0 && c.packets[1] > 0:
			return "SF"
		case c.packets[0] > 0:
			return "S0"
		}
		return "SHR"
	}
	oIdle, rIdle := o == inactive || o == partial, r == inactive || r == partial
	switch {
	case r == resetState && (o == synSent || o == synAckSent || o == resetState && c.payload == [2]int64{}):
		return "REJ"
	case r == resetState && oIdle:
		return "RSTRH"
	case r == resetState:
		return "RSTR"
	case o == resetState && rIdle:
		return "RSTOS0"
	case o == resetState:
		return "RSTO"
	case r == closed && o == closed:
		return "SF"
	case o == closed && rIdle:
		return "SH"
	case o == closed:
		return "S2"
	case r == closed && oIdle:
		return "SHR"
	case r == closed:
		return "S3"
	case o == synSent && r == inactive:
		return "S0"
	case o == established && r == established:
		return "S1"
	}
	return "OTH"
}

// zeek follows all connections of a capture.
type zeek struct {
	conns  map[[2]dissect.Endpoint]*zeekConn
	swept  int64
	seq    int
	json   bool
	out    bytes.Buffer
	number int
}

func newZeek(asJSON bool) *zeek {
	z := &zeek{conns: map[[2]dissect.Endpoint]*zeekConn{}, json: asJSON}
	if !asJSON {
		z.out.WriteString("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#open\t2026-11-27-00-00-00\n" +
			"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state\tlocal_orig\tlocal_resp\tmissed_bytes\thistory\torig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\ttunnel_parents\n" +
			"#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\tstring\tbool\tbool\tcount\tstring\tcount\tcount\tcount\tcount\tset[string]\n")
	}
	return z
}

func (z *zeek) write(c *zeekConn) {
	z.number++
	dur := func(ns int64) string { return fmt.Sprintf("%d.%06d", ns/1e9, ns%1e9/1000) }
	proto := "tcp"
	if c.proto == dissect.ProtoUDP {
		proto = "udp"
	}
	if z.json {
		o := map[string]any{"ts": json.Number(dur(c.start)), "uid": fmt.Sprintf("C%d", z.number), "id.orig_h": c.orig.Addr.String(), "id.orig_p": c.orig.Port,
			"id.resp_h": c.resp.Addr.String(), "id.resp_p": c.resp.Port, "proto": proto, "conn_state": c.connState(), "history": c.history,
			"orig_pkts": c.packets[0], "orig_ip_bytes": c.ipBytes[0], "resp_pkts": c.packets[1], "resp_ip_bytes": c.ipBytes[1]}
		if c.last > c.start {
			o["duration"], o["orig_bytes"], o["resp_bytes"] = json.Number(dur(c.last-c.start)), c.payload[0], c.payload[1]
		}
		b, _ := json.Marshal(o)
		z.out.Write(append(b, '\n'))
		return
	}
	d, ob, rb := "-", "-", "-"
	if c.last > c.start {
		d, ob, rb = dur(c.last-c.start), fmt.Sprint(c.payload[0]), fmt.Sprint(c.payload[1])
	}
	fmt.Fprintf(&z.out, "%s\tC%d\t%v\t%d\t%v\t%d\t%s\t-\t%s\t%s\t%s\t%s\t-\t-\t0\t%s\t%d\t%d\t%d\t%d\t-\n", dur(c.start), z.number, c.orig.Addr, c.orig.Port, c.resp.Addr, c.resp.Port,
		proto, d, ob, rb, c.connState(), c.history, c.packets[0], c.ipBytes[0], c.packets[1], c.ipBytes[1])
}

func (z *zeek) sweep(now int64) {
	var gone []*zeekConn
	for k, c := range z.conns {
		if c.expires() <= now {
			gone = append(gone, c)
			delete(z.conns, k)
		}
	}
	slices.SortFunc(gone, func(a, b *zeekConn) int {
		return cmp.Or(cmp.Compare(a.expires(), b.expires()), cmp.Compare(a.seq, b.seq))
	})
	for _, c := range gone {
		z.write(c)
	}
}

func (z *zeek) packet(d *dissect.Datagram) {
	if d.Class != dissect.ClassTCP && d.Class != dissect.ClassUDP {
		return
	}
	if d.Time-z.swept >= 1e9 {
		z.sweep(d.Time)
		z.swept = d.Time
	}
	from, to := d.Source(), d.Destination()
	k := [2]dissect.Endpoint{from, to}
	if from.Compare(to) > 0 {
		k = [2]dissect.Endpoint{to, from}
	}
	syn, ack, fin, rst := d.Flags&dissect.SYN != 0, d.Flags&dissect.ACK != 0, d.Flags&dissect.FIN != 0, d.Flags&dissect.RST != 0
	tcp := d.Proto == dissect.ProtoTCP
	c := z.conns[k]
	if c != nil && (c.proto != d.Proto || c.expires() <= d.Time || tcp && syn && !ack && !rst && (c.state[0] >= closed || c.state[1] >= closed)) {
		z.write(c)
		delete(z.conns, k)
		c = nil
	}
	if c == nil {
		z.seq++
		c = &zeekConn{orig: from, resp: to, proto: d.Proto, start: d.Time, last: d.Time, seq: z.seq}
		if tcp && syn && ack {
			c.orig, c.resp, c.history = to, from, "^"
		}
		z.conns[k] = c
	}
	o := from == c.orig
	me, peer := 0, 1
	if !o {
		me, peer = 1, 0
	}
	c.last = max(c.last, d.Time)
	c.packets[me]++
	c.ipBytes[me] += int64(d.IPLen)
	c.payload[me] += int64(d.PayloadLen)
	if !tcp {
		c.letter('d', o)
		return
	}
	switch {
	case syn && ack:
		c.letter('h', o)
	case syn:
		c.letter('s', o)
	case ack && d.PayloadLen == 0 && !fin && !rst:
		c.letter('a', o)
	}
	if d.PayloadLen > 0 {
		c.letter('d', o)
	}
	if fin {
		c.letter('f', o)
	}
	if rst {
		c.letter('r', o)
	}
	switch {
	case rst:
		c.state[me] = resetState
	case syn && ack:
		if c.state[me] < established {
			c.state[me] = established
		}
		if c.state[peer] == synSent {
			c.state[peer] = established
		}
	case syn:
		if c.state[me] == inactive {
			c.state[me] = synSent
		}
	case fin && c.state[me] != resetState:
		if c.state[me] == inactive {
			c.state[me] = partial
		}
		c.state[me] = closed
	case c.state[me] == inactive:
		c.state[me] = partial
	}
}

func (z *zeek) finish() []byte {
	z.sweep(1<<62 - 1)
	if !z.json {
		z.out.WriteString("#close\t2026-11-27-01-00-00\n")
	}
	return z.out.Bytes()
}

func simulated(t testing.TB, name string, seed uint64) []capture.Packet {
	t.Helper()
	sc, ok := samples.Find(name)
	if !ok {
		t.Fatal(name)
	}
	var packets []capture.Packet
	if _, err := samples.Simulate(sc, seed, func(p *capture.Packet) { packets = append(packets, *p) }); err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(packets, func(a, b capture.Packet) int { return cmp.Compare(a.Time, b.Time) })
	return packets
}

// zeekLog writes the packets down as Zeek would.
func zeekLog(packets []capture.Packet, asJSON bool) []byte {
	z := newZeek(asJSON)
	var dec headers.Decoder
	var d dissect.Datagram
	for i := range packets {
		dec.Decode(&packets[i], &d)
		z.packet(&d)
	}
	return z.finish()
}

// fromPackets analyses packets at the level of the transport.
func fromPackets(t testing.TB, packets []capture.Packet) *pipeline.Analysis {
	t.Helper()
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 2}, capture.Memory(packets))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

type noPackets struct{}

func (noPackets) Next() (*capture.Batch, error) { return nil, io.EOF }
func (noPackets) Files() []capture.FileStats    { return nil }
func (noPackets) Close() error                  { return nil }

// fromLog analyses a log.
func fromLog(t testing.TB, f flowlog.Format, log []byte) (*pipeline.Analysis, flowlog.Stats) {
	t.Helper()
	if got := flowlog.Recognise(log[:min(len(log), flowlog.HeadBytes)]); got != f {
		t.Fatalf("recognised as %q, want %q", got, f)
	}
	var stats flowlog.Stats
	a, err := pipeline.Run(context.Background(), pipeline.Config{Workers: 2, Records: func(_ *attempt.Names, first uint32, add func(*attempt.Record)) ([]pipeline.Capture, int64, int64, error) {
		r := flowlog.NewReader(0, 0, add)
		var err error
		stats, err = r.Read(first, f, bytes.NewReader(log))
		from, to := r.Finish()
		return []pipeline.Capture{{FileStats: capture.FileStats{Path: "log", Format: f.String(), Drops: -1, Packets: stats.Records}, Ledger: stats.Ledger}}, from, to, err
	}}, noPackets{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if stats.Ledger.Total() != stats.Records {
		t.Errorf("%d of %d lines in the ledger", stats.Ledger.Total(), stats.Records)
	}
	return a, stats
}

type key struct {
	from, to dissect.Endpoint
	proto    uint8
	us       int64
}

func keyOf(a *dissect.Attempt) key { return key{a.Source, a.Destination, a.Proto, a.Start / 1000} }

// difference names why a log cannot say what the packets say; empty where it
// could have.
func difference(p, l *dissect.Attempt, end int64) string {
	nearEnd := func(a *dissect.Attempt) bool { return max(a.End, a.LastSeen)+60e9 > end }
	switch {
	case p.Answer == dissect.AnswerICMP:
		return "icmp" // Zeek does not join an ICMP error to what it answers
	case p.Late:
		return "late" // when the answer came is not logged
	case p.Outcome == dissect.OutcomeUnknown && nearEnd(p) || l.Outcome == dissect.OutcomeUnknown && nearEnd(l):
		return "edge" // the log's end is its last connection
	case l.Answer == dissect.AnswerRST && (p.Answer == dissect.AnswerSynAck || p.Evidence == dissect.EvidenceSynAck):
		return "reset" // Zeek forgets a connection at its first RST, whatever its numbers
	case p.OneSided || l.OneSided:
		return "one-sided"
	case p.Outcome == dissect.OutcomeStalled && l.Outcome == dissect.OutcomeDropped, p.Outcome == dissect.OutcomeDropped && l.Outcome == dissect.OutcomeStalled:
		return "close" // five seconds run to the last packet, not to the first FIN
	case l.Outcome == dissect.OutcomeAccepted && l.Evidence == dissect.EvidenceHandshake && p.Outcome.Failed():
		return "age" // that there were five quiet seconds is not logged, only the whole time
	case p.Outcome == dissect.OutcomeAccepted && p.Evidence == dissect.EvidenceHandshake && l.Outcome.Failed():
		return "age"
	}
	return ""
}

// compare analyses packets and the log made of them, and counts what differs.
func compare(t *testing.T, name string, packets []capture.Packet, asJSON bool) (same, all int, why map[string]int) {
	t.Helper()
	f := flowlog.ZeekTSV
	if asJSON {
		f = flowlog.ZeekJSON
	}
	a := fromPackets(t, packets)
	log := zeekLog(packets, asJSON)
	if len(log) == 0 { // JSON has no heading
		return 0, 0, nil
	}
	l, _ := fromLog(t, f, log)
	_, end := a.Span()
	logged := map[key]dissect.Attempt{}
	tuples := map[key]bool{} // without a time
	for r := range l.Attempts() {
		logged[keyOf(r)] = *r
		k := keyOf(r)
		k.us = 0
		tuples[k] = true
	}
	why = map[string]int{}
	for p := range a.Attempts() {
		all++
		k := keyOf(p)
		r, ok := logged[k]
		if !ok {
			k.us = 0
			if tuples[k] {
				why["ports used again"]++ // a new ISN before Zeek forgot the old one
			} else {
				why["not logged"]++
				t.Logf("%s: not logged: %v %v %v", name, p.Source, p.Destination, p.Outcome)
			}
			continue
		}
		if r.Outcome == p.Outcome {
			same++
			continue
		}
		d := difference(p, &r, end)
		if d == "" {
			d = "unexplained"
			t.Errorf("%s: %v > %v: packets %v/%v/%v history %q, log %v/%v/%v history %q", name, p.Source, p.Destination, p.Outcome, p.Evidence, p.Answer, p.History, r.Outcome, r.Evidence, r.Answer, r.History)
		}
		why[d]++
	}
	return same, all, why
}

// TestZeekAgainstPackets: the same transport outcomes from conn.log as from
// the packets it was made of, and every difference has a name.
func TestZeekAgainstPackets(t *testing.T) {
	names := []string{"outage", "n17", "s2", "n2n"}
	if testing.Short() {
		names = names[:2]
	}
	for i, name := range names {
		packets := simulated(t, name, uint64(i)+1)
		same, all, why := compare(t, name, packets, i%2 == 1)
		t.Logf("%s: %d of %d attempts alike; %v", name, same, all, why)
		if all == 0 || float64(same+why["late"]+why["icmp"]) < 0.98*float64(all) {
			t.Errorf("%s: %d of %d alike", name, same, all)
		}
	}
}

// TestZeekOfRealCaptures does the same with the real captures.
func TestZeekOfRealCaptures(t *testing.T) {
	dir := "../../../shared/captures"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	var same, all int
	why := map[string]int{}
	files, _ := filepath.Glob(filepath.Join(dir, "attempts", "*"))
	more, _ := filepath.Glob(filepath.Join(dir, "overlay", "*"))
	files = append(files, more...)
	if testing.Short() {
		files = files[:len(files)/4]
	}
	for i, path := range files {
		if info, err := os.Stat(path); err != nil || info.Size() > 2<<20 {
			continue
		}
		packets := load(t, path)
		if len(packets) == 0 {
			continue
		}
		s, n, w := compare(t, filepath.Base(path), packets, i%2 == 1)
		same, all = same+s, all+n
		for k, v := range w {
			why[k] += v
		}
	}
	t.Logf("%d of %d attempts alike; %v", same, all, why)
	if all == 0 || float64(same) < 0.9*float64(all) {
		t.Errorf("%d of %d alike", same, all)
	}
}

// load reads a capture whole.
func load(t *testing.T, path string) (out []capture.Packet) {
	t.Helper()
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		return nil
	}
	defer src.Close()
	for {
		b, err := src.Next()
		if err != nil {
			return out
		}
		for _, p := range b.Packets {
			p.Data = bytes.Clone(p.Data)
			p.File = 0
			out = append(out, p)
		}
		b.Release()
	}
}

// TestVerdictFromLogs: a log gives the class that its packets give.
func TestVerdictFromLogs(t *testing.T) {
	for i, name := range []string{"n4", "s2"} {
		if testing.Short() && i > 0 {
			break
		}
		packets := simulated(t, name, 7)
		a := fromPackets(t, packets)
		l, _ := fromLog(t, flowlog.ZeekTSV, zeekLog(packets, false))
		want, err1 := a.Judge(storm.Config{})
		got, err2 := l.Judge(storm.Config{})
		if err := cmp.Or(err1, err2); err != nil {
			t.Fatal(err)
		}
		if got.Verdict.Class != want.Verdict.Class {
			t.Errorf("%s: %v from the log, %v from packets", name, got.Verdict.Class, want.Verdict.Class)
		}
		if got.Notes == nil || !strings.Contains(strings.Join(got.Notes, "\n"), "of the transport alone") {
			t.Errorf("%s: nothing says that the rows are of the transport alone: %q", name, got.Notes)
		}
	}
}
