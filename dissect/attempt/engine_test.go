package attempt

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"squall/dissect"
)

var (
	hostC = dissect.Endpoint{Addr: dissect.Addr4([]byte{10, 0, 0, 1}), Port: 40000}
	hostS = dissect.Endpoint{Addr: dissect.Addr4([]byte{10, 0, 0, 9}), Port: 443}
)

// pk is a hand-built packet; at is in milliseconds.
func pk(at int64, toServer bool, flags uint8, seq, ack uint32, payload string) *dissect.Datagram {
	d := &dissect.Datagram{Time: at * 1e6, Frame: at + 1, Class: dissect.ClassTCP, Proto: dissect.ProtoTCP, Flags: flags,
		Src: hostC.Addr, SrcPort: hostC.Port, Dst: hostS.Addr, DstPort: hostS.Port, Seq: seq, Ack: ack,
		IPID: uint16(at), IPLen: 40 + len(payload), Payload: []byte(payload), PayloadLen: len(payload)}
	if !toServer {
		d.Src, d.SrcPort, d.Dst, d.DstPort = d.Dst, d.DstPort, d.Src, d.SrcPort
	}
	return d
}

func udp(at int64, toServer bool, payload string) *dissect.Datagram {
	d := pk(at, toServer, 0, 0, 0, payload)
	d.Class, d.Proto = dissect.ClassUDP, dissect.ProtoUDP
	return d
}

func icmpError(at int64, of *dissect.Datagram, kind, code uint8) *dissect.Datagram {
	return &dissect.Datagram{Time: at * 1e6, Frame: at + 1, Class: dissect.ClassICMPError, Proto: dissect.ProtoICMP, Src: of.Dst, Dst: of.Src,
		ICMPType: kind, ICMPCode: code, Quoted: dissect.Quoted{Src: of.Src, Dst: of.Dst, SrcPort: of.SrcPort, DstPort: of.DstPort,
			Proto: of.Proto, HasSeq: of.Proto == dissect.ProtoTCP, Seq: of.Seq}}
}

const (
	sa = dissect.SYN | dissect.ACK
	ra = dissect.RST | dissect.ACK
	fa = dissect.FIN | dissect.ACK
)

func run(t *testing.T, cfg Config, end int64, packets ...*dissect.Datagram) ([]Record, *Engine) {
	t.Helper()
	var got []Record
	e := NewEngine(cfg, NewNames(0), func(r *Record) {
		if r.Flags&FlagOlder == 0 {
			got = append(got, *r)
		}
	})
	for _, d := range packets {
		e.Datagram(d)
	}
	e.Finish(end * 1e6)
	l := e.Ledger(0)
	if l.Total() != int64(len(packets)) {
		t.Errorf("the ledger holds %d of %d packets", l.Total(), len(packets))
	}
	return got, e
}

// asks takes any Q for its question, and knows no answer that looks so.
type asks struct{}

func (asks) Name() string                  { return "asks" }
func (asks) Transports() dissect.Transport { return dissect.TCP }
func (asks) Probe(d *dissect.Datagram) dissect.Verdict {
	if bytes.HasPrefix(d.Payload, []byte("Q")) {
		return dissect.Maybe
	}
	return dissect.No
}

func (asks) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	if !f.FromClient {
		return 0, errors.New("no question")
	}
	m.Kind = dissect.KindRequest
	return len(d.Payload), nil
}

// TestAnswerLikeAQuestion: what only the node's words seem to say names nothing.
func TestAnswerLikeAQuestion(t *testing.T) {
	for _, c := range []struct {
		client, node string
		want         Name
		outcome      dissect.Outcome
	}{{"hello", "Quite", 0, dissect.OutcomeAccepted}, {"Quite", "hello", 1, dissect.OutcomeStalled}} {
		got, _ := run(t, Config{Protocols: []dissect.Protocol{asks{}}}, 40000,
			pk(0, true, dissect.SYN, 1, 0, ""), pk(1, false, sa, 50, 2, ""), pk(2, true, dissect.ACK, 2, 51, ""),
			pk(3, true, dissect.ACK, 2, 51, c.client), pk(4, false, dissect.ACK, 51, 7, c.node), pk(9000, true, fa, 7, 56, ""))
		if len(got) != 1 || got[0].Protocol != 0 != (c.want != 0) || got[0].Outcome != c.outcome {
			t.Errorf("%s, %s: %+v", c.client, c.node, got)
		}
	}
}

// line is a register protocol of text lines: REG id, OK id, NO id, BUSY id, AUTH id, BYE;
// NEW id begins anew whatever was asked.
type line struct{}

func (line) Name() string                  { return "line" }
func (line) Transports() dissect.Transport { return dissect.TCP | dissect.UDP }
func (line) Probe(d *dissect.Datagram) dissect.Verdict {
	if bytes.HasPrefix(d.Payload, []byte("REG ")) {
		return dissect.Yes
	}
	return dissect.No
}

func (line) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	n := bytes.IndexByte(d.Payload, '\n')
	if n < 0 {
		return 0, dissect.ErrShort
	}
	verb, rest, _ := bytes.Cut(d.Payload[:n], []byte(" "))
	id, _, _ := bytes.Cut(rest, []byte("."))
	m.Chain = dissect.Hash64(1, id)
	m.Txn = dissect.Hash64(0, rest)
	switch string(verb) {
	case "REG", "NEW":
		m.Kind, m.Op, m.ClientID, m.Begins = dissect.KindRequest, "REG", id, string(verb) == "NEW"
	case "OK":
		m.Kind = dissect.KindAccept
	case "NO":
		m.Kind = dissect.KindRefuse
	case "BUSY":
		m.Kind, m.RetryAfter = dissect.KindThrottle, 7e9
	case "AUTH":
		m.Kind = dissect.KindChallenge
	case "BYE":
		m.Kind = dissect.KindClose
	}
	return n + 1, nil
}

type row struct {
	o  dissect.Outcome
	ev dissect.Evidence
	a  dissect.Answer
	n  int32
}

func TestRules(t *testing.T) {
	type P = *dissect.Datagram
	S, A, R := uint8(dissect.SYN), uint8(dissect.ACK), uint8(dissect.RST)
	open := func(more ...P) []P {
		return append([]P{pk(0, true, S, 1, 0, ""), pk(100, false, sa, 50, 2, ""), pk(101, true, A, 2, 51, "")}, more...)
	}
	line := Config{Protocols: []dissect.Protocol{line{}}}
	for _, c := range []struct {
		name string
		cfg  Config
		end  int64 // ms
		in   []P
		want []row
	}{
		{"1 silence", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(1000, true, S, 1, 0, ""), pk(3000, true, S, 1, 0, "")},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 3}}},
		{"1 the wait is twice the last gap", Config{}, 90000, []P{pk(0, true, S, 1, 0, ""), pk(8000, true, S, 1, 0, ""), pk(24000, true, S, 1, 0, ""), pk(55500, false, ra, 0, 2, "")},
			[]row{{dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, 3}}},
		{"2 accepted", Config{}, 60000, open(pk(110, true, A, 2, 51, "hi"), pk(200, false, A, 51, 4, "x")),
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerSynAck, 1}}},
		{"3 a RST that the client does not heed", Config{}, 60000, append([]P{pk(0, true, S, 1, 0, ""), pk(5, false, ra, 0, 2, "")}, open(pk(110, true, A, 2, 51, "hi"), pk(200, false, A, 51, 4, "x"))[1:]...),
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerRST, 1}}},
		{"3 the node listens when the SYN is repeated", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(5, false, ra, 0, 2, ""), pk(500, true, S, 1, 0, ""), pk(505, false, sa, 50, 2, ""), pk(506, true, A, 2, 51, ""), pk(507, true, A, 2, 51, "hi"), pk(510, false, A, 51, 4, "x")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerRST, 2}}},
		{"3 refused, the last repeat is not", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(9, false, ra, 0, 2, ""), pk(500, true, S, 1, 0, ""), pk(12500, true, S, 1, 0, ""), pk(12509, false, ra, 0, 2, "")},
			[]row{{dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, 3}}},
		{"3 refused", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(9, false, ra, 0, 2, "")},
			[]row{{dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, 1}}},
		{"4 odd RST", Config{}, 60000, append([]P{pk(0, true, S, 1, 0, ""), pk(5, false, ra, 0, 99, "")}, open(pk(110, true, A, 2, 51, "hi"), pk(200, false, A, 51, 4, "x"))[1:]...),
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerSynAck, 1}}},
		{"5 port unreachable", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), icmpError(9, pk(0, true, S, 1, 0, ""), 3, 3)},
			[]row{{dissect.OutcomeRefused, dissect.EvidenceICMP, dissect.AnswerICMP, 1}}},
		{"5 prohibited", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), icmpError(9, pk(0, true, S, 1, 0, ""), 3, 13)},
			[]row{{dissect.OutcomeUnreachable, dissect.EvidenceICMP, dissect.AnswerICMP, 1}}},
		{"5 net", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), icmpError(9, pk(0, true, S, 1, 0, ""), 3, 0)},
			[]row{{dissect.OutcomeUnreachable, dissect.EvidenceICMP, dissect.AnswerICMP, 1}}},
		{"5 host", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), icmpError(9, pk(0, true, S, 1, 0, ""), 3, 1)},
			[]row{{dissect.OutcomeUnreachable, dissect.EvidenceICMP, dissect.AnswerICMP, 1}}},
		{"5 TTL", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), icmpError(9, pk(0, true, S, 1, 0, ""), 11, 0)},
			[]row{{dissect.OutcomeUnreachable, dissect.EvidenceICMP, dissect.AnswerICMP, 1}}},
		{"5 another ISN", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), icmpError(9, pk(0, true, S, 3, 0, ""), 3, 3)},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1}}},
		{"6 dropped", Config{}, 60000, open(pk(110, true, A, 2, 51, "hi"), pk(111, false, ra, 51, 4, "")),
			[]row{{dissect.OutcomeDropped, dissect.EvidenceRST, dissect.AnswerSynAck, 1}}},
		{"7 stalled", Config{}, 60000, open(pk(110, true, A, 2, 51, "hi"), pk(900, true, A, 2, 51, "hi"), pk(15000, true, fa, 4, 51, "")),
			[]row{{dissect.OutcomeStalled, dissect.EvidenceFIN, dissect.AnswerSynAck, 1}}},
		{"8 quiet", Config{}, 60000, open(), []row{{dissect.OutcomeAccepted, dissect.EvidenceHandshake, dissect.AnswerSynAck, 1}}},
		{"8 quiet, too early to tell", Config{}, 3000, open(), []row{{dissect.OutcomeUnknown, dissect.EvidenceEdge, dissect.AnswerSynAck, 1}}},
		{"8b wedged", Config{}, 60000, open(pk(110, true, A, 2, 51, "hi"), pk(150, false, A, 51, 4, "")),
			[]row{{dissect.OutcomeStalled, dissect.EvidenceSilence, dissect.AnswerSynAck, 1}}},
		{"9 no", line, 60000, open(pk(110, true, A, 2, 51, "REG a\n"), pk(200, false, A, 51, 8, "NO a\n")),
			[]row{{dissect.OutcomeRefused, dissect.EvidenceApp, dissect.AnswerSynAck, 1}}},
		{"9 busy", line, 60000, open(pk(110, true, A, 2, 51, "REG a\n"), pk(200, false, A, 51, 8, "BUSY a\n")),
			[]row{{dissect.OutcomeThrottled, dissect.EvidenceApp, dissect.AnswerSynAck, 1}}},
		{"10 ports reused", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(9, false, ra, 0, 2, ""), pk(500, true, S, 7, 0, ""), pk(509, false, ra, 0, 8, "")},
			[]row{{dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, 1}, {dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, 1}}},
		{"11 another server ISN", Config{}, 60000, open(pk(140, false, sa, 60, 2, "")),
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceHandshake, dissect.AnswerSynAck, 1}}},
		{"12 fast open", Config{}, 60000, []P{pk(0, true, S, 1, 0, "data"), pk(90, false, sa, 50, 6, ""), pk(95, false, A, 51, 6, "x")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerSynAck, 1}}},
		{"13 simultaneous", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(5, false, S, 9, 0, ""), pk(20, true, sa, 1, 10, ""), pk(21, false, sa, 9, 2, "")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceHandshake, dissect.AnswerSynAck, 1}}},
		{"14 reordered", Config{}, 60000, []P{pk(0, false, sa, 50, 2, ""), pk(1, true, S, 1, 0, ""), pk(2, true, A, 2, 51, "")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceHandshake, dissect.AnswerSynAck, 1}}},
		{"15 no SYN", Config{}, 60000, []P{pk(0, false, sa, 50, 2, ""), pk(100, true, A, 2, 51, "x"), pk(200, false, R, 51, 0, "")}, nil},
		{"16 only the client's side", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(100, true, A, 2, 51, ""), pk(110, true, A, 2, 51, "hi")},
			[]row{{dissect.OutcomeUnknown, dissect.EvidenceEdge, dissect.AnswerSynAck, 1}}},
		{"18 tap duplicate", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(0, true, S, 1, 0, "")},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1}}},
		{"18 kept", Config{KeepDuplicates: true}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(0, true, S, 1, 0, "")},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 2}}},
		{"19 edge", Config{}, 5000, []P{pk(5000, true, S, 1, 0, "")}, []row{{dissect.OutcomeUnknown, dissect.EvidenceEdge, dissect.AnswerNone, 1}}},
		{"abort", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(50, true, R, 2, 0, "")},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceRST, dissect.AnswerAbort, 1}}},
		{"21 one id", line, 60000, []P{udp(0, true, "REG a\n"), udp(500, true, "REG a\n"), udp(1500, true, "REG a\n"), udp(3500, true, "REG a\n")},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 4}}},
		{"22 an id each", line, 60000, []P{udp(0, true, "REG a\n"), udp(4000, true, "REG b\n")},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1}, {dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1}}},
		{"23 unknown UDP", Config{}, 200000, []P{udp(0, true, "x"), udp(100, false, "y"), udp(61000, true, "x"), udp(125000, true, "x")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceHandshake, dissect.AnswerReply, 1}, {dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1},
				{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1}}},
		{"24 UDP refused", Config{}, 60000, []P{udp(0, true, "x"), icmpError(9, udp(0, true, "x"), 3, 3)},
			[]row{{dissect.OutcomeRefused, dissect.EvidenceICMP, dissect.AnswerICMP, 1}}},
		{"26 challenge, then yes", line, 60000, []P{udp(0, true, "REG a.1\n"), udp(50, false, "AUTH a.1\n"), udp(100, true, "REG a.2\n"), udp(150, false, "OK a.2\n")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceApp, dissect.AnswerReply, 1}}},
		{"29 challenge, then anew", line, 90000, []P{udp(0, true, "REG a.1\n"), udp(50, false, "AUTH a.1\n"), udp(10000, true, "NEW a.2\n"), udp(10050, false, "AUTH a.2\n"),
			udp(10100, true, "REG a.3\n"), udp(10150, false, "OK a.3\n")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceApp, dissect.AnswerReply, 1}, {dissect.OutcomeStalled, dissect.EvidenceSilence, dissect.AnswerReply, 1}}},
		{"27 challenge, then no", line, 60000, []P{udp(0, true, "REG a.1\n"), udp(50, false, "AUTH a.1\n"), udp(100, true, "REG a.2\n"), udp(150, false, "NO a.2\n")},
			[]row{{dissect.OutcomeRefused, dissect.EvidenceApp, dissect.AnswerReply, 1}}},
		{"28 two on one connection", line, 60000, open(pk(110, true, A, 2, 51, "REG a\n"), pk(200, false, A, 51, 8, "OK a\n"), pk(5110, true, A, 8, 56, "REG b\n"), pk(5200, false, A, 56, 14, "NO b\n")),
			[]row{{dissect.OutcomeRefused, dissect.EvidenceApp, dissect.AnswerReply, 1}, {dissect.OutcomeAccepted, dissect.EvidenceApp, dissect.AnswerSynAck, 1}}},
		{"28 a message in two segments, out of order", line, 60000, open(pk(110, true, A, 5, 51, " a\n"), pk(115, true, A, 2, 51, "REG"), pk(200, false, A, 51, 8, "OK a\n")),
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceApp, dissect.AnswerSynAck, 1}}},
		{"29 legs of one chain", line, 60000, []P{udp(0, true, "REG t.connect\n"), udp(50, false, "AUTH t.connect\n"), udp(100, true, "REG t.announce\n"), udp(150, false, "OK t.announce\n")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceApp, dissect.AnswerReply, 1}}},
		{"28 a greeting before the request", line, 60000, open(pk(110, false, A, 51, 2, "hi\n"), pk(200, true, A, 2, 54, "REG a\n"), pk(300, false, A, 54, 8, "NO a\n")),
			[]row{{dissect.OutcomeRefused, dissect.EvidenceApp, dissect.AnswerSynAck, 1}}},
		{"28 a long pause before the request", line, 90000, open(pk(25000, true, A, 2, 51, "REG a\n"), pk(35000, false, A, 51, 8, "OK a\n")),
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceApp, dissect.AnswerSynAck, 1}}},
		{"accepted, then reset at once", line, 60000, open(pk(110, true, A, 2, 51, "REG a\n"), pk(200, false, A, 51, 8, "OK a\n"), pk(900, false, ra, 56, 8, "")),
			[]row{{dissect.OutcomeDropped, dissect.EvidenceRST, dissect.AnswerSynAck, 1}}},
		{"a SYN-ACK that nobody acknowledges", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(100, false, sa, 50, 2, "")},
			[]row{{dissect.OutcomeStalled, dissect.EvidenceSilence, dissect.AnswerSynAck, 1}}},
		{"the same id, answered, a minute later", line, 300000, []P{udp(0, true, "REG a\n"), udp(50, false, "OK a\n"), udp(70000, true, "REG a\n")},
			[]row{{dissect.OutcomeAccepted, dissect.EvidenceApp, dissect.AnswerReply, 1}, {dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1}}},
		{"17 only the client's side, no ACK: that it is one-sided only the whole capture shows", Config{}, 60000, []P{pk(0, true, S, 1, 0, ""), pk(1000, true, S, 5, 0, "")},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1}, {dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1}}},
		{"a known protocol waits for its yes", line, 60000, open(pk(110, true, A, 2, 51, "REG a\n"), pk(200, false, A, 51, 8, "hm\n")),
			[]row{{dissect.OutcomeStalled, dissect.EvidenceSilence, dissect.AnswerSynAck, 1}}},
		{"30 late", Config{}, 200000, []P{udp(0, true, "x"), udp(15000, false, "y")},
			[]row{{dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerReply, 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _ := run(t, c.cfg, c.end, c.in...)
			if len(got) != len(c.want) {
				t.Fatalf("%d rows, want %d", len(got), len(c.want))
			}
			for i, w := range c.want {
				g := row{got[i].Outcome, got[i].Evidence, got[i].Answer, got[i].Transmissions}
				if g != w {
					t.Errorf("row %d: %v %v %v %d, want %v %v %v %d", i, g.o, g.ev, g.a, g.n, w.o, w.ev, w.a, w.n)
				}
			}
		})
	}
}

func TestFacts(t *testing.T) {
	S, A := uint8(dissect.SYN), uint8(dissect.ACK)
	got, e := run(t, Config{}, 60000, pk(0, true, S, 1, 0, ""), pk(5, false, ra, 0, 99, ""), pk(100, false, sa, 50, 2, ""), pk(140, false, sa, 60, 2, ""),
		pk(150, true, A, 2, 51, "hi"), pk(200, false, A, 51, 4, "x"), pk(900, false, fa, 52, 4, ""))
	r := got[0]
	if h := string(bytes.TrimRight(r.History[:], "\x00")); h != "SrhDdaf" && h != "SrhDdf" {
		t.Errorf("history %q", h)
	}
	if r.HandshakeRTT != 100e6 || r.SessionEnded != dissect.SessionByNode || r.SessionEnd != 900e6 || r.SourcePackets != 2 || r.DestinationPackets != 5 {
		t.Errorf("%+v", r)
	}
	if s := e.Stats(); s.InvalidRST != 1 || s.ServerISN != 1 {
		t.Errorf("%+v", s)
	}
	got, _ = run(t, Config{}, 200000, udp(0, true, "x"), udp(15000, false, "y"))
	if got[0].Flags&FlagLate == 0 || got[0].AnsweredAt != 15000e6 || got[0].End != 10000e6 {
		t.Errorf("late answer: %+v", got[0])
	}
	d := udp(0, true, "x")
	d.Dst = dissect.Addr4([]byte{224, 0, 0, 251})
	got, e = run(t, Config{}, 60000, d)
	if l := e.Ledger(0); len(got) != 0 || l[dissect.BucketOther] != 1 {
		t.Errorf("rule 25: %d rows, %v", len(got), l)
	}
	// Rule 20: VLANs are one network, VXLANs are not.
	for _, c := range []struct {
		tunnel dissect.Tunnel
		want   int
	}{{dissect.TunnelNone, 1}, {dissect.TunnelGRE, 1}, {dissect.TunnelVXLAN, 2}, {dissect.TunnelGENEVE, 2}} {
		a, b := pk(0, true, S, 1, 0, ""), pk(50, true, S, 1, 0, "")
		a.Tunnel, b.Tunnel, a.TunnelID, b.TunnelID, a.VLAN, b.VLAN = c.tunnel, c.tunnel, 1, 2, 1, 2
		if got, _ := run(t, Config{}, 60000, a, b); len(got) != c.want {
			t.Errorf("rule 20, %v: %d rows, want %d", c.tunnel, len(got), c.want)
		}
	}
}

// TestSessionUnreachable: an ICMP error that answers a session's traffic ends the
// session, the newest one of the flow, once; one that comes back to the node does not.
func TestSessionUnreachable(t *testing.T) {
	cfg := Config{Protocols: []dissect.Protocol{line{}}}
	in := []*dissect.Datagram{udp(0, true, "REG a.1\n"), udp(10, false, "OK a.1\n"), icmpError(20, udp(20, false, "x"), 3, 3),
		udp(9000, true, "REG a.2\n"), udp(9010, false, "OK a.2\n"), udp(20000, true, "data\n"), icmpError(20001, udp(20000, true, ""), 3, 3),
		udp(30000, true, "data\n"), icmpError(30001, udp(30000, true, ""), 3, 3)}
	got, _ := run(t, cfg, 200000, in...)
	ends := map[int64]dissect.SessionEnd{}
	for i := range got {
		ends[got[i].SessionEnd/1e6] = got[i].SessionEnded
	}
	if len(got) != 2 || len(ends) != 2 || ends[0] != dissect.SessionAlive || ends[20001] != dissect.SessionUnreachable {
		t.Errorf("%d rows, sessions end %v", len(got), ends)
	}
}

// TestHeardAgain: what a node says after errors had answered in its place shows that it
// is back, whether the flow had a session or was refused; the frames are those of the
// error and of its first word.
func TestHeardAgain(t *testing.T) {
	cfg := Config{Protocols: []dissect.Protocol{line{}}}
	alive := []*dissect.Datagram{udp(0, true, "REG a.1\n"), udp(10, false, "OK a.1\n"), udp(20000, true, "data\n"), icmpError(20001, udp(20000, true, ""), 3, 3)}
	refused := []*dissect.Datagram{udp(20000, true, "REG a.1\n"), icmpError(20001, udp(20000, true, ""), 3, 3)}
	for _, in := range [][]*dissect.Datagram{alive, refused} {
		in = append(in, udp(30000, true, "ping\n"), icmpError(30001, udp(30000, true, ""), 3, 3),
			udp(40000, true, "ping\n"), udp(40005, false, "pong\n"), udp(50000, true, "ping\n"), udp(50005, false, "pong\n"))
		for _, back := range []bool{true, false} {
			again, frame := int64(40005e6), int64(40006)
			if !back {
				in, again, frame = in[:len(in)-4], 0, 0
			}
			got, _ := run(t, cfg, 200000, in...)
			if r := &got[0]; len(got) != 1 || r.HeardAgain != again || r.AgainFrame != frame || r.OverFrame != 20002 {
				t.Errorf("back %v: %d rows, heard again at %d in frame %d, over in frame %d", back, len(got), r.HeardAgain, r.AgainFrame, r.OverFrame)
			}
		}
	}
}

// TestLostBytes: what a client sends in a session after the last word of its node, whose
// reset is the word of another.
func TestLostBytes(t *testing.T) {
	const A, P = dissect.ACK, dissect.ACK | dissect.PSH
	in := []*dissect.Datagram{pk(0, true, dissect.SYN, 1, 0, ""), pk(10, false, sa, 1, 2, ""), pk(20, true, A, 2, 2, ""), pk(30, true, P, 2, 2, "REG a\n"),
		pk(40, false, P, 2, 8, "OK a\n"), pk(50, true, A, 8, 7, ""), pk(20000, true, P, 8, 7, "hello"), pk(20010, false, A, 7, 13, ""),
		pk(30000, true, P, 13, 7, "hello"), pk(30300, true, P, 13, 7, "hello"), pk(31000, true, fa, 18, 7, ""), pk(31100, false, dissect.RST, 7, 0, "")}
	for n, want := range map[int]int64{8: 0, 10: 2 * 45, len(in): 2*45 + 40} {
		got, _ := run(t, Config{}, 200000, in[:n]...)
		if len(got) != 1 || got[0].Outcome != dissect.OutcomeAccepted || got[0].LostBytes != want {
			t.Errorf("%d packets: %d rows, %v, %d bytes lost, not %d", n, len(got), got[0].Outcome, got[0].LostBytes, want)
		}
	}
}

// TestSoftError: a client that repeats its request in spite of an error and is
// answered was accepted; an answer to the first transmission alone comes too late.
func TestSoftError(t *testing.T) {
	cfg := Config{Protocols: []dissect.Protocol{line{}}}
	ask := udp(0, true, "REG a.1\n")
	for _, again := range []bool{false, true} {
		in := []*dissect.Datagram{ask, icmpError(5, ask, 3, 3)}
		want := dissect.OutcomeRefused
		if again {
			in = append(in, udp(500, true, "REG a.1\n"))
			want = dissect.OutcomeAccepted
		}
		got, _ := run(t, cfg, 100000, append(in, udp(510, false, "OK a.1\n"))...)
		if len(got) != 1 || got[0].Outcome != want || got[0].Answer != dissect.AnswerICMP {
			t.Errorf("repeated %v: %v, want %v", again, got[0].Outcome, want)
		}
	}
}

// TestLongConnection: what is asked a minute and more after the connection was
// opened is read, too.
func TestLongConnection(t *testing.T) {
	A := uint8(dissect.ACK)
	in := []*dissect.Datagram{pk(0, true, dissect.SYN, 1, 0, ""), pk(10, false, sa, 50, 2, ""), pk(11, true, A, 2, 51, ""),
		pk(20, true, A, 2, 51, "REG a.1\n"), pk(30, false, A, 51, 10, "OK a.1\n"),
		pk(50000, true, A, 10, 58, "REG a.2\n"), pk(50010, false, A, 58, 18, "OK a.2\n"),
		pk(130000, true, A, 18, 65, "REG a.3\n"), pk(130010, false, A, 65, 26, "NO a.3\n"), pk(290000, true, A, 26, 72, "REG a.4\n")}
	got, _ := run(t, Config{Protocols: []dissect.Protocol{line{}}}, 400000, in...)
	var outcomes []dissect.Outcome
	for i := range got {
		outcomes = append(outcomes, got[i].Outcome)
	}
	if want := []dissect.Outcome{dissect.OutcomeAccepted, dissect.OutcomeAccepted, dissect.OutcomeRefused, dissect.OutcomeStalled}; !slices.Equal(outcomes, want) {
		t.Errorf("%v, want %v", outcomes, want)
	}
}

func TestBounded(t *testing.T) {
	rows := 0
	e := NewEngine(Config{MaxFlows: 1000}, NewNames(0), func(*Record) { rows++ })
	for i := range 200000 {
		d := pk(int64(i/100), true, dissect.SYN, uint32(i), 0, "")
		d.Src[13], d.Src[14], d.Src[15] = byte(i>>16), byte(i>>8), byte(i)
		e.Datagram(d)
	}
	if s := e.Stats(); s.Live > 1000 || s.Evicted == 0 || e.flows.n > 1001 || e.txns.n > 1001 {
		t.Errorf("%+v, %d flows, %d exchanges", s, e.flows.n, e.txns.n)
	}
	e.Finish(1e12)
	if rows != 200000 {
		t.Errorf("%d rows of 200000 sources", rows)
	}
}

// TestSessionsOutliveAFlood: what gives way to new flows has failed already, where
// there is such a flow, however long sessions are silent.
func TestSessionsOutliveAFlood(t *testing.T) {
	const sessions, most = 30, 120
	served := 0
	e := NewEngine(Config{MaxFlows: most}, NewNames(0), func(r *Record) {
		if r.Outcome == dissect.OutcomeAccepted && r.SessionEnd != 0 {
			served++
		}
	})
	from := func(d *dissect.Datagram, client, i int) *dissect.Datagram {
		a := &d.Src
		if *a != pk(0, true, 0, 0, 0, "").Src {
			a = &d.Dst
		}
		a[13], a[14], a[15] = byte(client), byte(i>>8), byte(i)
		return d
	}
	for i := range sessions {
		at := int64(10 * i)
		for _, d := range []*dissect.Datagram{pk(at, true, dissect.SYN, 1, 0, ""), pk(at+1, false, sa, 50, 2, ""), pk(at+2, true, dissect.ACK, 2, 51, "hello"), pk(at+3, false, dissect.ACK, 51, 7, "hello")} {
			e.Datagram(from(d, 1, i))
		}
	}
	for i := range 2000 { // 25 of them wait at a time
		e.Datagram(from(pk(2000+int64(400*i), true, dissect.SYN, 1, 0, ""), 2, i))
	}
	for i := range sessions {
		e.Datagram(from(pk(803000+int64(i), true, dissect.FIN|dissect.ACK, 7, 56, ""), 1, i))
	}
	e.Finish(810e9)
	if s := e.Stats(); served != sessions || s.Evicted < 1000 || s.Settled != s.Evicted {
		t.Errorf("%d of %d sessions were seen to their end, %+v", served, sessions, s)
	}
}

// TestStreamsAreBounded: old connections lose their buffers to new ones.
func TestStreamsAreBounded(t *testing.T) {
	var in []*dissect.Datagram
	for i := range int64(20) {
		for n, d := range []*dissect.Datagram{pk(10*i, true, dissect.SYN, 1, 0, ""), pk(10*i+1, false, sa, 50, 2, ""), pk(10*i+2, true, dissect.ACK, 2, 51, "REG a")} {
			if n == 1 {
				d.DstPort += uint16(i)
			} else {
				d.SrcPort += uint16(i)
			}
			in = append(in, d)
		}
	}
	last := pk(300, true, dissect.ACK, 7, 51, "\n")
	last.SrcPort += 19
	rows, e := run(t, Config{Protocols: []dissect.Protocol{line{}}, MaxFlows: 20}, 60000, append(in, last)...)
	asked := 0
	for _, r := range rows {
		if r.Op != 0 {
			asked++
		}
	}
	if len(e.streams) != 10 || e.stats.GivenUp != 10 || len(rows) != 20 || asked != 1 {
		t.Errorf("%d streams, %d given up, %d rows, %d with a request", len(e.streams), e.stats.GivenUp, len(rows), asked)
	}
}

// TestClock: steps of the clock cost neither time nor packets.
func TestClock(t *testing.T) {
	const year = 365 * 86400 * 1000
	a, b := pk(year, true, dissect.SYN, 1, 0, ""), pk(0, false, ra, 0, 2, "")
	rows, _ := run(t, Config{}, 2*year, a, b, pk(2*year, false, ra, 0, 2, ""))
	if len(rows) != 1 || rows[0].Outcome != dissect.OutcomeRefused || rows[0].End < rows[0].Start {
		t.Errorf("%+v", rows)
	}
	// A file that an older one was appended to: each keeps its own time.
	older := func(at int64, d *dissect.Datagram) *dissect.Datagram {
		d.Time, d.SrcPort, d.DstPort = d.Time-at*1e6, d.SrcPort+1, d.DstPort+1
		return d
	}
	rows, _ = run(t, Config{}, year+20000, pk(year, true, dissect.SYN, 1, 0, ""), pk(year+10, false, ra, 0, 2, ""),
		older(year, pk(year, true, dissect.SYN, 7, 0, "")), older(year, pk(year+9000, false, ra, 0, 8, "")))
	if len(rows) != 2 || rows[0].Outcome != dissect.OutcomeRefused || rows[1].Outcome != dissect.OutcomeRefused {
		t.Errorf("two times in one file: %+v", rows)
	}
	// One that goes to and fro for ever is not followed for ever.
	var e *Engine
	var many []*dissect.Datagram
	for i := range int64(1 << 13) {
		many = append(many, pk(i%2*year+i, true, dissect.SYN, uint32(i+1), 0, ""))
	}
	if _, e = run(t, Config{}, 2*year, many...); e.backs > clockCredit {
		t.Errorf("%d visits", e.backs)
	}
}

func TestICMPKinds(t *testing.T) {
	for _, c := range []struct {
		proto, kind, code uint8
		want              dissect.Outcome
		hard              bool
	}{
		{dissect.ProtoICMP, 3, 0, dissect.OutcomeUnreachable, true}, {dissect.ProtoICMP, 3, 1, dissect.OutcomeUnreachable, true},
		{dissect.ProtoICMP, 3, 2, dissect.OutcomeRefused, true}, {dissect.ProtoICMP, 3, 3, dissect.OutcomeRefused, true},
		{dissect.ProtoICMP, 3, 4, 0, false}, {dissect.ProtoICMP, 11, 0, dissect.OutcomeUnreachable, true}, {dissect.ProtoICMP, 5, 0, 0, false},
		{dissect.ProtoICMPv6, 1, 4, dissect.OutcomeRefused, true}, {dissect.ProtoICMPv6, 1, 1, dissect.OutcomeUnreachable, true},
		{dissect.ProtoICMPv6, 2, 0, 0, false}, {dissect.ProtoICMPv6, 3, 0, dissect.OutcomeUnreachable, true},
	} {
		if got, hard := icmpOutcome(&dissect.Datagram{Proto: c.proto, ICMPType: c.kind, ICMPCode: c.code}); got != c.want || hard != c.hard {
			t.Errorf("%d/%d/%d: %v %v", c.proto, c.kind, c.code, got, hard)
		}
	}
}

// TestAllocations: a storm that the engine has grown for costs no memory.
func TestAllocations(t *testing.T) {
	e := NewEngine(Config{Protocols: []dissect.Protocol{line{}}, MaxFlows: 500}, NewNames(0), func(*Record) {})
	syn, ack, data, rst := pk(0, true, dissect.SYN, 1, 0, ""), pk(0, false, sa, 50, 2, ""), pk(0, true, dissect.ACK, 2, 51, "REG a\n"), pk(0, false, ra, 51, 8, "")
	i := 0
	step := func() {
		i++
		for n, d := range []*dissect.Datagram{syn, ack, data, rst} {
			d.Time = int64(i*4+n) * 1e6
			a := &d.Src
			if n&1 == 1 {
				a = &d.Dst
			}
			a[14], a[15] = byte(i>>8), byte(i)
			e.Datagram(d)
		}
	}
	for range 30000 {
		step()
	}
	if n := testing.AllocsPerRun(5000, step); n > 0 {
		t.Errorf("%.2f allocations for four packets", n)
	}
}

func randomRun(t *testing.T, data []byte) {
	rows := 0
	e := NewEngine(Config{Protocols: []dissect.Protocol{line{}}, MaxFlows: 8}, NewNames(0), func(r *Record) {
		if r.Flags&FlagOlder != 0 {
			return
		}
		rows++
		if r.Start > r.End {
			t.Fatalf("start %d after end %d", r.Start, r.End)
		}
		if r.Transmissions < 1 {
			t.Fatalf("%d transmissions", r.Transmissions)
		}
		if r.Outcome == dissect.OutcomeUnknown && r.Evidence != dissect.EvidenceEdge {
			t.Fatalf("unknown by %v", r.Evidence)
		}
		if r.Outcome == dissect.OutcomeRefused && r.Answer == dissect.AnswerNone {
			t.Fatalf("refused without an answer: %+v", *r)
		}
	})
	words := []string{"", "x", "REG a\n", "REG b.1\n", "OK a\n", "NO b.1\n", "AUTH b.1\n", "BYE\n", "REG", "BUSY a\n"}
	n, now := int64(0), int64(0)
	for len(data) >= 8 {
		b := data[:8]
		data = data[8:]
		now += int64(int8(b[0])) * int64(b[1]) * 1e6 * int64(1+b[7]&7)
		d := pk(0, b[2]&1 == 0, b[3]&31, uint32(b[4]&15), uint32(b[5]&15), words[int(b[6])%len(words)])
		d.Time, d.File, d.IPID = now, uint32(b[2]>>1&1), uint16(n)
		d.SrcPort += uint16(b[7] >> 6)
		switch b[2] >> 2 & 7 {
		case 0, 1:
			d.Class, d.Proto = dissect.ClassUDP, dissect.ProtoUDP
		case 2:
			d = icmpError(0, d, b[3]&15, b[4]&15)
			d.Time = now
		case 3:
			d.Class = dissect.Class(b[3] & 7)
		}
		e.Datagram(d)
		n++
	}
	e.Finish(now)
	a, b := e.Ledger(0), e.Ledger(1)
	if a.Total()+b.Total() != n {
		t.Fatalf("ledger %d of %d", a.Total()+b.Total(), n)
	}
	if s := e.Stats(); s.Live != 0 || s.Records != int64(rows) || len(e.txns.free) != int(e.txns.n) {
		t.Fatalf("left over: %+v, %d of %d exchanges free", s, len(e.txns.free), e.txns.n)
	}
}

func TestRandom(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 8*400)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		randomRun(t, data)
	}
}

func FuzzEngine(f *testing.F) {
	f.Add([]byte("squall: attempts of eight bytes each, some of them odd"))
	f.Fuzz(randomRun)
}

func BenchmarkEngine(b *testing.B) {
	b.ReportAllocs()
	e := NewEngine(Config{}, NewNames(0), func(*Record) {})
	syn, rst := pk(0, true, dissect.SYN, 1, 0, ""), pk(0, false, ra, 0, 2, "")
	for i := 0; b.Loop(); i++ { // one attempt of two packets, 20000 a second
		at := int64(i) * 50000
		syn.Time, rst.Time = at, at+1000
		for _, a := range []*dissect.Addr{&syn.Src, &rst.Dst} {
			a[13], a[14], a[15] = byte(i>>16), byte(i>>8), byte(i)
		}
		syn.Seq, rst.Ack = uint32(i), uint32(i)+1
		e.Datagram(syn)
		e.Datagram(rst)
	}
}

// doubts is answered with Y, and its client may say N to that.
type doubts struct{ asks }

func (doubts) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	switch d.Payload[0] {
	case 'Q':
		m.Kind = dissect.KindRequest
	case 'Y':
		m.Kind = dissect.KindAccept
	case 'N':
		m.Kind = dissect.KindRefuse
	}
	return len(d.Payload), nil
}

// Who will not have the yes that it was given, as of a certificate that it does not
// trust, has got nothing; later it is a session that ends.
func TestRenounced(t *testing.T) {
	for _, c := range []struct {
		at      int64
		outcome dissect.Outcome
	}{{130, dissect.OutcomeStalled}, {9000, dissect.OutcomeAccepted}} {
		got, _ := run(t, Config{Protocols: []dissect.Protocol{doubts{}}}, 40000,
			pk(0, true, dissect.SYN, 1, 0, ""), pk(20, false, sa, 50, 2, ""), pk(40, true, dissect.ACK, 2, 51, "Q"),
			pk(100, false, dissect.ACK, 51, 3, "Y"), pk(c.at, true, dissect.ACK, 3, 52, "N"), pk(c.at+1, true, fa, 4, 52, ""))
		if len(got) != 1 || got[0].Outcome != c.outcome || got[0].Evidence != dissect.EvidenceApp {
			t.Errorf("no after %d ms: %+v, want %v", c.at, got, c.outcome)
		}
	}
}

// TestOlderSessions: a connection whose SYN was not captured is noted, with who
// closed it; strays and answers to a SYN that was lost are not.
func TestOlderSessions(t *testing.T) {
	data := func(at int64) []*dissect.Datagram {
		return []*dissect.Datagram{pk(at, true, dissect.ACK, 100, 900, "hello"), pk(at+1, false, dissect.ACK, 900, 105, "there")}
	}
	for name, c := range map[string]struct {
		packets []*dissect.Datagram
		noted   bool
		ended   dissect.SessionEnd
	}{
		"alive":                 {data(0), true, dissect.SessionAlive},
		"closed by the node":    {append(data(0), pk(50, false, fa, 905, 105, "")), true, dissect.SessionByNode},
		"closed by the client":  {append(data(0), pk(50, true, fa, 105, 905, ""), pk(51, false, fa, 905, 106, "")), true, dissect.SessionByClient},
		"only its end captured": {[]*dissect.Datagram{pk(0, false, dissect.RST, 905, 0, "")}, true, dissect.SessionByNode},
		"one stray":             {data(0)[:1], false, 0},
		"a no to a lost SYN":    {[]*dissect.Datagram{pk(0, false, ra, 0, 101, "")}, false, 0},
		"its beginning is there": {append([]*dissect.Datagram{pk(0, true, dissect.SYN, 99, 0, ""), pk(1, false, sa, 899, 100, ""),
			pk(2, true, dissect.ACK, 100, 900, "")}, data(3)...), false, 0},
	} {
		var got []Record
		e := NewEngine(Config{}, NewNames(0), func(r *Record) {
			if r.Flags&FlagOlder != 0 && r.Source.Addr == data(0)[0].Src {
				got = append(got, *r)
			}
		})
		for _, d := range c.packets {
			e.Datagram(d)
		}
		e.Finish(1e9)
		if len(got) > 0 != c.noted || len(got) > 1 || c.noted && got[0].SessionEnded != c.ended {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
