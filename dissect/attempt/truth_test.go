package attempt_test

import (
	"encoding/csv"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/attempt"
	"squall/dissect/headers"
)

// counted are the columns of truth-conv.tsv that the records must give.
var counted = []string{"att_total", "syn_repeats", "att_synack", "att_rst", "att_icmp", "att_abort", "att_silent"}

// exceptions are the files where the rules and the counting of the truth
// differ, with the reason.
var exceptions = map[string]string{
	"attempts/syn-ipopts.pcap":                                    "a source route: tshark takes the last hop as the destination, which makes three tuples of one",
	"attempts/payload-syn.pcap":                                   "data in the SYN: the SYN-ACK acknowledges it too, and rule 12 takes that as an answer",
	"attempts/rst-inject-rae.pcap":                                "the RST acknowledges the ISN itself: rule 4 ignores it, the SYN-ACK answers",
	"attempts/handshake-reorder.pcap":                             "the SYN-ACK stands before its SYN: rule 14 joins them",
	"attempts/no-syn-ack.pcap":                                    "the SYN-ACK was not captured: rule 16 takes the client's ACK as proof",
	"attempts/whatsapp.pcap":                                      "the node's side was not captured: rule 16 takes the client's ACK as proof",
	"formats/frag-ppp-ip-tcp-syn.pcap":                            "a SYN in fragments, which the counting leaves apart",
	"formats/http_ip_fragmented.pcap":                             "a SYN in fragments, which the counting leaves apart",
	"formats/http_ip_fragmented_out_of_order.pcap":                "a SYN in fragments, which the counting leaves apart",
	"formats/capwap_data.pcapng":                                  "inside CAPWAP and 802.11, which are not read",
	"attempts/unidirectional_tcp_stream_with_missing_packet.pcap": "the node's side was not captured: rule 16 takes the client's ACK as proof",
}

// TestTruth compares the TCP attempts of the real captures with what tshark
// and a counter of its own found in them (COUNTING.md).
func TestTruth(t *testing.T) {
	dir := "../../../shared/captures"
	h, err := os.Open(filepath.Join(dir, "truth-conv.tsv"))
	if err != nil {
		t.Skip("needs the real captures, which are not part of the repository: put them at ../shared/captures, beside it")
	}
	defer h.Close()
	r := csv.NewReader(h)
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	col := map[string]int{}
	for i, name := range lines[0] {
		col[name] = i
	}
	files, equal := 0, 0
	for _, l := range lines[1:] {
		if strings.HasPrefix(l[0], "hostile/") || strings.Contains(l[0], ".erf") {
			continue // neither count is an authority; no format of captures
		}
		path := filepath.Join(dir, l[0])
		if _, err := os.Stat(path); err != nil || testing.Short() && files > 40 {
			continue
		}
		files++
		got := count(t, path)
		same := true
		var diff strings.Builder
		for i, name := range counted {
			want, err := strconv.Atoi(strings.TrimSpace(l[col[name]]))
			if err != nil {
				continue
			}
			if got[i] != want {
				same = false
				diff.WriteString(" " + name + " " + strconv.Itoa(got[i]) + "≠" + strconv.Itoa(want))
			}
		}
		switch why := exceptions[l[0]]; {
		case same && why != "":
			t.Errorf("%s: equal, though listed as an exception: %s", l[0], why)
		case same:
			equal++
		case why == "":
			t.Errorf("%s:%s", l[0], diff.String())
		}
	}
	t.Logf("%d of %d files equal, %d exceptions", equal, files, len(exceptions))
}

func count(t *testing.T, path string) (n [7]int) {
	src, err := capture.Open([]string{path}, capture.Options{})
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return n
	}
	defer src.Close()
	e := attempt.NewEngine(attempt.Config{KeepDuplicates: true}, attempt.NewNames(0), func(r *attempt.Record) {
		if r.Flags&attempt.FlagOlder != 0 {
			return
		}
		if r.Proto != dissect.ProtoTCP {
			return
		}
		n[0]++
		n[1] += int(r.Transmissions) - 1
		switch r.Answer {
		case dissect.AnswerSynAck:
			n[2]++
		case dissect.AnswerRST:
			n[3]++
		case dissect.AnswerICMP:
			n[4]++
		case dissect.AnswerAbort:
			n[5]++
		default:
			n[6]++
		}
	})
	var dec headers.Decoder
	var d dissect.Datagram
	var end, packets int64
	for {
		b, err := src.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			break
		}
		for i := range b.Packets {
			dec.Decode(&b.Packets[i], &d)
			e.Datagram(&d)
			end = max(end, d.Time)
			packets++
		}
		b.Release()
	}
	e.Finish(end)
	if l := e.Ledger(0); l.Total() != packets {
		t.Errorf("%s: the ledger holds %d of %d packets", path, l.Total(), packets)
	}
	return n
}
