package flowlog_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/flowlog"
)

// read gives the attempts of a log, without a second pass.
func read(t testing.TB, f flowlog.Format, log string) ([]attempt.Record, flowlog.Stats) {
	t.Helper()
	var out []attempt.Record
	r := flowlog.NewReader(0, 0, func(a *attempt.Record) { out = append(out, *a) })
	s, err := r.Read(0, f, strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	r.Finish()
	slices.SortFunc(out, func(a, b attempt.Record) int { return cmp.Compare(a.Start, b.Start) })
	if s.Ledger.Total() != s.Records {
		t.Errorf("%d of %d lines in the ledger", s.Ledger.Total(), s.Records)
	}
	return out, s
}

const heading = "#separator \\x09\n#path\tconn\n#fields\tts\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_bytes\tresp_bytes\tconn_state\thistory\torig_pkts\tresp_pkts\n"

// far is a connection long after the others, so that silence is decided.
const far = "5000\t10.0.0.9\t1\t10.0.0.2\t80\ttcp\t1\t10\t10\tSF\tShADadFf\t5\t5\n"

// TestStates: what each state of Zeek is taken for, with its history and
// without.
func TestStates(t *testing.T) {
	for _, c := range []struct {
		state, history, duration, bytes, back string
		pkts, resp                            int
		outcome                               dissect.Outcome
		evidence                              dissect.Evidence
		answer                                dissect.Answer
		sends                                 int32
	}{
		{"S0", "S", "3", "0", "0", 3, 0, dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 3},
		{"S0", "-", "-", "-", "-", 1, 0, dissect.OutcomeTimeout, dissect.EvidenceSilence, dissect.AnswerNone, 1},
		{"REJ", "Sr", "0.1", "0", "0", 1, 1, dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, 1},
		{"REJ", "-", "0.1", "0", "0", 1, 1, dissect.OutcomeRefused, dissect.EvidenceRST, dissect.AnswerRST, 1},
		{"RSTOS0", "SR", "0.1", "0", "0", 2, 0, dissect.OutcomeTimeout, dissect.EvidenceRST, dissect.AnswerAbort, 1},
		{"SF", "ShADadFf", "2", "10", "20", 6, 5, dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerSynAck, 1},
		{"SF", "-", "2", "10", "20", 6, 5, dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerSynAck, 1},
		{"S1", "ShADad", "2", "10", "20", 6, 5, dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerSynAck, 1},
		{"S1", "ShA", "0.2", "0", "0", 2, 1, dissect.OutcomeAccepted, dissect.EvidenceHandshake, dissect.AnswerSynAck, 1},
		{"S1", "ShAD", "0.2", "9", "0", 2, 1, dissect.OutcomeStalled, dissect.EvidenceSilence, dissect.AnswerSynAck, 1},
		{"SF", "ShADFf", "15", "9", "0", 4, 3, dissect.OutcomeStalled, dissect.EvidenceFIN, dissect.AnswerSynAck, 1},
		{"SF", "ShADfF", "2", "9", "0", 4, 3, dissect.OutcomeDropped, dissect.EvidenceFIN, dissect.AnswerSynAck, 1},
		{"RSTR", "ShADr", "0.1", "9", "0", 3, 2, dissect.OutcomeDropped, dissect.EvidenceRST, dissect.AnswerSynAck, 1},
		{"RSTO", "ShADR", "8", "9", "0", 4, 2, dissect.OutcomeStalled, dissect.EvidenceRST, dissect.AnswerSynAck, 1},
		{"RSTO", "ShADadR", "8", "9", "9", 4, 2, dissect.OutcomeAccepted, dissect.EvidenceSynAck, dissect.AnswerSynAck, 1},
		{"SH", "SAF", "8", "9", "0", 4, 0, dissect.OutcomeUnknown, dissect.EvidenceEdge, dissect.AnswerSynAck, 1},
		{"SF", "-", "1", "9", "0", 4, 3, dissect.OutcomeUnknown, dissect.EvidenceEdge, dissect.AnswerSynAck, 1}, // who closed first is not said
	} {
		line := fmt.Sprintf("1000.5\t10.0.0.1\t4000\t10.0.0.2\t80\ttcp\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", c.duration, c.bytes, c.back, c.state, c.history, c.pkts, c.resp)
		rows, _ := read(t, flowlog.ZeekTSV, heading+line+far)
		var got *attempt.Record
		for i := range rows {
			if rows[i].Start == 1000_500000000 {
				got = &rows[i]
			}
		}
		if got == nil {
			t.Errorf("%s %s: no attempt", c.state, c.history)
			continue
		}
		if got.Outcome != c.outcome || got.Evidence != c.evidence || got.Answer != c.answer || got.Transmissions != c.sends {
			t.Errorf("%s %s: %v %v %v, %d transmissions; want %v %v %v, %d", c.state, c.history, got.Outcome, got.Evidence, got.Answer, got.Transmissions, c.outcome, c.evidence, c.answer, c.sends)
		}
	}
	// No SYN, no attempt (rule 15).
	rows, s := read(t, flowlog.ZeekTSV, heading+"1\t10.0.0.1\t4\t10.0.0.2\t80\ttcp\t1\t1\t1\tOTH\tDd\t1\t1\n2\t10.0.0.1\t4\t10.0.0.2\t80\ttcp\t1\t1\t1\tRSTRH\t^hr\t0\t2\n")
	if len(rows) != 0 || s.Ledger[dissect.BucketSession] != 2 {
		t.Errorf("mid-stream: %d attempts, ledger %v", len(rows), s.Ledger)
	}
}

// TestSiblings: Zeek writes an unanswered SYN down after five seconds and
// calls its next repeat another connection; here it is one attempt (rule 1).
func TestSiblings(t *testing.T) {
	var log strings.Builder
	log.WriteString(heading)
	for _, at := range []string{"1000\t3.0\t3", "1007\t-\t1", "1015.1\t-\t1", "1031.2\t-\t1"} {
		f := strings.Split(at, "\t")
		fmt.Fprintf(&log, "%s\t10.0.0.1\t4000\t10.0.0.2\t80\ttcp\t%s\t-\t-\tS0\tS\t%s\t0\n", f[0], f[1], f[2])
	}
	log.WriteString(far)
	rows, _ := read(t, flowlog.ZeekTSV, log.String())
	if len(rows) != 2 || rows[0].Transmissions != 6 || rows[0].Outcome != dissect.OutcomeTimeout || rows[0].Start != 1000e9 {
		t.Errorf("%d attempts: %+v", len(rows), rows)
	}
	// An answer that came after the question had been written down.
	rows, _ = read(t, flowlog.ZeekTSV, heading+"1000\t10.0.0.1\t4000\t10.0.0.2\t80\ttcp\t1.0\t0\t0\tS0\tS\t2\t0\n"+
		"1006\t10.0.0.1\t4000\t10.0.0.2\t80\ttcp\t1.0\t5\t5\tSF\t^hADadFf\t4\t4\n"+far)
	if len(rows) != 2 || rows[0].Outcome != dissect.OutcomeAccepted || rows[0].Start != 1000e9 || rows[0].Transmissions != 3 {
		t.Errorf("%d attempts: %+v", len(rows), rows)
	}
}

// TestEVE: flow events of Suricata.
func TestEVE(t *testing.T) {
	event := func(start, port, ts, tc, extra string) string {
		return fmt.Sprintf(`{"timestamp":"2010-12-22T16:10:00.000000+0000","event_type":"flow","src_ip":"10.0.0.1","src_port":%s,"dest_ip":"10.0.0.2","dest_port":80,"proto":"TCP","vlan":[7],"flow":{"start":"2010-12-22T%s+0000","end":"2010-12-22T16:00:02.000000+0000",%s,"state":"closed","reason":"timeout"},"tcp":{"tcp_flags_ts":"%s","tcp_flags_tc":"%s"}}`, port, start, extra, ts, tc) + "\n"
	}
	log := `{"timestamp":"2010-12-22T16:00:00.000000+0000","event_type":"stats","stats":{}}` + "\n" +
		event("16:00:00.000001", "1", "02", "00", `"pkts_toserver":3,"pkts_toclient":0,"bytes_toserver":222,"bytes_toclient":0`) +
		event("16:00:00.000002", "2", "02", "14", `"pkts_toserver":1,"pkts_toclient":1,"bytes_toserver":74,"bytes_toclient":54`) +
		event("16:00:00.000003", "3", "1b", "1b", `"pkts_toserver":5,"pkts_toclient":5,"bytes_toserver":500,"bytes_toclient":900`) +
		event("16:00:00.000004", "4", "1a", "16", `"pkts_toserver":3,"pkts_toclient":2,"bytes_toserver":260,"bytes_toclient":128`) +
		event("16:59:00.000004", "5", "1b", "1b", `"pkts_toserver":5,"pkts_toclient":5,"bytes_toserver":500,"bytes_toclient":900`)
	if f := flowlog.Recognise([]byte(log)); f != flowlog.EVE {
		t.Fatalf("recognised as %v", f)
	}
	rows, s := read(t, flowlog.EVE, log)
	want := map[uint16]dissect.Outcome{1: dissect.OutcomeTimeout, 2: dissect.OutcomeRefused, 3: dissect.OutcomeAccepted, 4: dissect.OutcomeDropped, 5: dissect.OutcomeAccepted}
	if len(rows) != len(want) || s.Ledger[dissect.BucketOther] != 1 {
		t.Fatalf("%d attempts, ledger %v", len(rows), s.Ledger)
	}
	for _, r := range rows {
		if r.Outcome != want[r.Source.Port] || r.VLAN != 7 {
			t.Errorf("port %d: %v, VLAN %d", r.Source.Port, r.Outcome, r.VLAN)
		}
	}
}

// TestBadLines: a bad line is counted and named, and the others are read.
func TestBadLines(t *testing.T) {
	rows, s := read(t, flowlog.ZeekTSV, heading+far+"x\ty\n"+strings.Replace(far, "5000", "5001", 1)+strings.Repeat("z", 3<<20)+"\n"+strings.Replace(far, "5000", "5002", 1)+"50")
	if len(rows) != 3 || s.Ledger[dissect.BucketMalformed] != 3 || s.BadLine != 5 || !strings.Contains(s.Bad, "fields") {
		t.Errorf("%d attempts, %+v", len(rows), s)
	}
}

// TestFlowRecords reads what nfdump and the clouds write.
func TestFlowRecords(t *testing.T) {
	for _, c := range []struct {
		f         flowlog.Format
		log       string
		flows     int
		rejected  int
		malformed int64
	}{
		{flowlog.NFDump, "ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt\n2010-12-22 16:00:00,2010-12-22 16:00:09,9.000,10.0.0.1,10.0.0.2,4000,80,TCP,......S.,0,0,3,180\n" +
			"2010-12-22 16:00:00,2010-12-22 16:00:09,9.000,10.0.0.1,10.0.0.2,0,8.0,ICMP,........,0,0,3,180\nSummary\nflows,bytes,packets,avg_bps,avg_pps,avg_bpp\n1,180,3,160,0,60\n", 1, 0, 0},
		{flowlog.NFDump, "firstSeen,duration,proto,srcAddr,srcPort,dstAddr,dstPort,packets,bytes,flows\n2010-12-22 16:00:00.123,9.000,TCP,10.0.0.1,4000,2001:db8::1,80,3,180,1\nbad\n", 1, 0, 1},
		{flowlog.AWS, "2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n" +
			"2 123456789010 eni-1235b8ca 172.31.9.69 172.31.9.12 49761 3389 6 20 4249 1418530010 1418530070 REJECT OK\n" +
			"2 123456789010 eni-1235b8ca - - - - - - - 1431280876 1431280934 - NODATA\n", 2, 1, 0},
		{flowlog.AWS, "interface-id srcaddr dstaddr srcport dstport protocol start end action\neni-1 172.31.16.139 172.31.16.21 20641 22 17 1418530010 1418530070 ACCEPT\n", 1, 0, 0},
		{flowlog.GCP, `{"insertId":"x","jsonPayload":{"bytes_sent":"1776","connection":{"dest_ip":"10.0.0.2","dest_port":80,"protocol":6,"src_ip":"10.0.0.1","src_port":4000},"end_time":"2019-06-20T06:43:21.1Z","packets_sent":"7","reporter":"DEST","start_time":"2019-06-20T06:43:20.5Z"}}` + "\n", 1, 0, 0},
		{flowlog.Azure, `{"records":[{"time":"2018-11-13T12:00:35.3899262Z","category":"NetworkSecurityGroupFlowEvent","properties":{"Version":2,"flows":[{"rule":"DefaultRule_DenyAllInBound","flows":[{"mac":"000D3AF87856","flowTuples":["1542110402,94.102.49.190,10.5.16.4,28746,443,U,I,D,B,,,,","1542110424,176.119.4.10,10.5.16.4,56509,59336,T,I,A,E,5,300,4,200"]}]}]}}]}`, 2, 1, 0},
		{flowlog.Azure, `{"records":[{"time":"2022-09-14T09:00:52.5625085Z","flowLogVersion":4,"flowRecords":{"flows":[{"aclID":"x","flowGroups":[{"rule":"r","flowTuples":["1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0","bad"]}]}]}}]}`, 1, 0, 1},
	} {
		if f := flowlog.Recognise([]byte(c.log)); f != c.f {
			t.Errorf("recognised as %q, want %q: %.60s", f, c.f, c.log)
		}
		flows, rejected := 0, 0
		s, err := flowlog.EachFlow(c.f, strings.NewReader(c.log), func(f *flowlog.Flow) {
			flows++
			if f.Rejected {
				rejected++
			}
			if f.Start <= 0 || f.End < f.Start || f.To.Port == 0 {
				t.Errorf("%v: %+v", c.f, f)
			}
		})
		if err != nil || flows != c.flows || rejected != c.rejected || s.Ledger[dissect.BucketMalformed] != c.malformed || s.Ledger.Total() != s.Records {
			t.Errorf("%v: %d flows, %d rejected, %+v, %v", c.f, flows, rejected, s, err)
		}
	}
}

// FuzzRead: no log panics, hangs, or loses a line.
func FuzzRead(f *testing.F) {
	f.Add([]byte(heading + far))
	f.Add([]byte(`{"ts":1.5,"id.orig_h":"::1","id.orig_p":1,"id.resp_h":"::2","id.resp_p":2,"proto":"udp","conn_state":"SF"}` + "\n"))
	f.Add([]byte(`{"timestamp":"2010-12-22T16:10:00.000000+0000","event_type":"flow","src_ip":"10.0.0.1","src_port":1,"dest_ip":"10.0.0.2","dest_port":80,"proto":"TCP","flow":{"start":"2010-12-22T16:10:00.000000+0000"}}`))
	f.Add([]byte("2 1 eni-1 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n"))
	f.Add([]byte(`{"records":[{"flowTuples":["1663146003599,10.0.0.6,192.0.2.180,23956,443,6,O,B,NX,0,0,0,0"]}]}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		format := flowlog.Recognise(log)
		var s flowlog.Stats
		var err error
		rows := int64(0)
		switch {
		case format.Attempts():
			r := flowlog.NewReader(0, 0, func(a *attempt.Record) {
				rows++
				if a.End < a.Start || a.Transmissions < 1 {
					t.Errorf("%+v", a)
				}
			})
			s, err = r.Read(0, format, bytes.NewReader(log))
			r.Finish()
		case format.Counted():
			s, err = flowlog.EachFlow(format, bytes.NewReader(log), func(*flowlog.Flow) { rows++ })
		default:
			return
		}
		if err != nil || s.Ledger.Total() != s.Records || rows > s.Records {
			t.Errorf("%d rows of %+v, %v", rows, s, err)
		}
	})
}
