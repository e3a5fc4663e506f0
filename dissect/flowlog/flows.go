package flowlog

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
)

// Flow is a record of one direction of a flow, or of a part of it: who, how
// much, when. It does not say how a connection went, so that it is no attempt.
type Flow struct {
	Start, End     int64
	From, To       dissect.Endpoint
	Proto          uint8
	Packets, Bytes int64
	Rejected       bool // by a firewall of the cloud
}

// EachFlow reads flow records. Records of other transports, and lines that hold
// none, are counted as other; times without a zone are UTC.
func EachFlow(f Format, in io.Reader, use func(*Flow)) (Stats, error) {
	s := Stats{}
	take := func(fl *Flow, err error, line, offset int64) {
		switch {
		case errors.Is(err, errNone):
			return
		case errors.Is(err, errLeftOut):
			s.LeftOut++
			fallthrough
		case errors.Is(err, errSkip):
			s.Records++
			s.Ledger[dissect.BucketOther]++
			return
		case err != nil:
			s.Records++
			s.Ledger[dissect.BucketMalformed]++
			if s.Bad == "" {
				s.Bad, s.BadLine, s.BadOffset = err.Error(), line, offset
			}
			return
		}
		s.Records++
		s.Ledger[dissect.BucketSession]++
		if s.First == 0 || fl.Start < s.First {
			s.First = fl.Start
		}
		s.Last = max(s.Last, fl.End)
		use(fl)
	}
	switch f {
	case Azure:
		return s, azure(in, take)
	case NFDump, AWS, GCP:
	default:
		return s, fmt.Errorf("%v holds no flow records", f)
	}
	t := table{sep: ",", need: nfdumpColumns}
	if f == AWS {
		t = table{sep: " ", need: awsColumns}
	}
	number := int64(0)
	n, err := lines(in, func(line []byte, offset int64, _ bool) {
		number++
		var fl Flow
		err := errors.New("a line of more than a megabyte")
		if line != nil && f == GCP {
			err = gcp(line, &fl)
		} else if line != nil {
			err = t.parse(string(line), &fl)
		}
		take(&fl, err, number, offset)
	})
	s.Bytes = n
	return s, err
}

// table reads flow records by the names of their columns.
type table struct {
	sep  string
	need map[string][]string // what is read: the names that it goes by
	at   map[string]int
	over bool
}

// nfdumpColumns are those of nfdump -o csv, of 1.6 and of 1.7.
var nfdumpColumns = map[string][]string{
	"start": {"ts", "firstSeen"}, "end": {"te", "lastSeen"}, "duration": {"td", "duration"}, "from": {"sa", "srcAddr"}, "to": {"da", "dstAddr"},
	"fromPort": {"sp", "srcPort"}, "toPort": {"dp", "dstPort"}, "proto": {"pr", "proto"}, "packets": {"ipkt", "packets", "inPackets"}, "bytes": {"ibyt", "bytes", "inBytes"},
}

// awsColumns are those of a VPC flow log.
var awsColumns = map[string][]string{
	"start": {"start"}, "end": {"end"}, "from": {"srcaddr"}, "to": {"dstaddr"}, "fromPort": {"srcport"}, "toPort": {"dstport"}, "proto": {"protocol"},
	"packets": {"packets"}, "bytes": {"bytes"}, "action": {"action"}, "status": {"log-status"},
}

// awsDefault is the order of version 2, which CloudWatch gives without a heading.
const awsDefault = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"

func isNFDump(line string) bool {
	c := strings.Split(strings.TrimSpace(line), ",")
	return slices.Contains(c, "ts") && slices.Contains(c, "sa") && slices.Contains(c, "da") ||
		slices.Contains(c, "firstSeen") && slices.Contains(c, "srcAddr") && slices.Contains(c, "dstAddr")
}

func isAWS(line string) bool {
	c := strings.Fields(line)
	return slices.Contains(c, "srcaddr") && slices.Contains(c, "dstaddr") ||
		len(c) == 14 && c[0] == "2" && slices.Contains([]string{"ACCEPT", "REJECT", "-"}, c[12]) && slices.Contains([]string{"OK", "NODATA", "SKIPDATA"}, c[13])
}

func (t *table) heading(line string) error {
	at := map[string]int{}
	cells := t.split(line)
	for what, names := range t.need {
		for _, n := range names {
			if i := slices.Index(cells, n); i >= 0 {
				at[what] = i
				break
			}
		}
	}
	for _, must := range []string{"start", "from", "to", "fromPort", "toPort", "proto"} {
		if _, ok := at[must]; !ok {
			return fmt.Errorf("the heading lacks %s", strings.Join(t.need[must], " or "))
		}
	}
	t.at = at
	return errNone
}

func (t *table) split(line string) []string {
	if t.sep == " " {
		return strings.Fields(line)
	}
	cells, err := csv.NewReader(strings.NewReader(line)).Read()
	if err != nil {
		return nil
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

func (t *table) parse(line string, f *Flow) error {
	if strings.TrimSpace(line) == "" || t.over {
		return errNone
	}
	if t.at == nil {
		if t.sep == " " && !strings.Contains(line, "srcaddr") {
			if err := t.heading(awsDefault); !errors.Is(err, errNone) {
				return err
			}
		} else {
			return t.heading(line)
		}
	}
	if strings.HasPrefix(line, "Summary") { // nfdump's last words
		t.over = true
		return errNone
	}
	cells := t.split(line)
	get := func(what string) string {
		if i, ok := t.at[what]; ok && i < len(cells) && cells[i] != "-" {
			return cells[i]
		}
		return ""
	}
	switch get("status") {
	case "", "OK":
	case "SKIPDATA":
		return errLeftOut
	default:
		return errSkip // NODATA: nothing was seen
	}
	var err error
	if f.Start, err = moment(get("start")); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	f.End = f.Start
	if s := get("end"); s != "" {
		if f.End, err = moment(s); err != nil {
			return fmt.Errorf("end: %w", err)
		}
	} else if s := get("duration"); s != "" {
		d, err := decimal(s)
		if err != nil {
			return fmt.Errorf("duration %q: want seconds", s)
		}
		f.End += max(d, 0)
	}
	f.Rejected = get("action") == "REJECT"
	return f.fill(get("from"), get("fromPort"), get("to"), get("toPort"), get("proto"), get("packets"), get("bytes"))
}

func (f *Flow) fill(from, fromPort, to, toPort, proto, packets, bytes string) (err error) {
	f.End = max(f.End, f.Start)
	if f.Proto = protoOf(proto); f.Proto == 0 {
		return errSkip
	}
	if f.From, err = endpoint(from, fromPort); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if f.To, err = endpoint(to, toPort); err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	for _, c := range []struct {
		text string
		to   *int64
	}{{packets, &f.Packets}, {bytes, &f.Bytes}} {
		if c.text != "" {
			n, err := strconv.ParseFloat(c.text, 64)
			if err != nil || n < 0 || n > 1e15 {
				return fmt.Errorf("%q is no count", c.text)
			}
			*c.to = int64(n)
		}
	}
	return nil
}

// moment reads the times that flow records have.
func moment(s string) (int64, error) {
	for _, layout := range []string{"2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixNano(), nil
		}
	}
	return epoch(s)
}

// gcp reads a line of a VPC flow log of Google Cloud (RecordFormat). Of the two
// ends that report a flow between two machines the source is left out.
func gcp(line []byte, f *Flow) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return errNone
	}
	var e struct {
		Payload struct {
			Connection struct {
				SrcIP    string      `json:"src_ip"`
				SrcPort  json.Number `json:"src_port"`
				DestIP   string      `json:"dest_ip"`
				DestPort json.Number `json:"dest_port"`
				Protocol json.Number `json:"protocol"`
			} `json:"connection"`
			Start    string      `json:"start_time"`
			End      string      `json:"end_time"`
			Packets  json.Number `json:"packets_sent"`
			Bytes    json.Number `json:"bytes_sent"`
			Reporter string      `json:"reporter"`
			DestVM   any         `json:"dest_instance"`
		} `json:"jsonPayload"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("no record: %w", err)
	}
	p := &e.Payload
	if p.Reporter == "SRC" && p.DestVM != nil || p.Connection.SrcIP == "" {
		return errSkip
	}
	var err error
	if f.Start, err = epoch(p.Start); err != nil {
		return fmt.Errorf("start_time: %w", err)
	}
	f.End = f.Start
	if p.End != "" {
		if f.End, err = epoch(p.End); err != nil {
			return fmt.Errorf("end_time: %w", err)
		}
	}
	c := &p.Connection
	return f.fill(c.SrcIP, c.SrcPort.String(), c.DestIP, c.DestPort.String(), c.Protocol.String(), p.Packets.String(), p.Bytes.String())
}

// azure reads the tuples of an NSG flow log (version 1, 2) or a virtual network
// flow log (version 4), wherever they lie in the object.
func azure(in io.Reader, take func(*Flow, error, int64, int64)) error {
	d := json.NewDecoder(in)
	depth, number := 0, int64(0)
	inside, key := 0, ""
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			number++
			take(nil, fmt.Errorf("no JSON: %w", err), number, d.InputOffset())
			return nil
		}
		switch v := tok.(type) {
		case json.Delim:
			if v == '[' || v == '{' {
				depth++
				if v == '[' && key == "flowTuples" {
					inside = depth
				}
				key = ""
				continue
			}
			if depth == inside {
				inside = 0
			}
			depth--
			key = ""
		case string:
			if inside == 0 {
				key = v
				continue
			}
			number++
			var f Flow
			take(&f, f.tuple(v), number, d.InputOffset())
		default:
			key = ""
		}
	}
}

// tuple reads time, addresses, ports, protocol, direction, then either the
// decision and the state (NSG) or the state and the encryption (virtual network).
func (f *Flow) tuple(s string) error {
	c := strings.Split(s, ",")
	if len(c) < 8 {
		return fmt.Errorf("tuple %q: %d fields, want 8 or more", s, len(c))
	}
	n, err := strconv.ParseInt(c[0], 10, 64)
	if err != nil || n <= 0 {
		return fmt.Errorf("tuple %q: %q is no time", s, c[0])
	}
	if f.Start = n * 1e9; n > 9e9 {
		f.Start = n * 1e6 // milliseconds
	}
	f.Rejected = c[7] == "D"
	proto := map[string]string{"T": "tcp", "U": "udp"}[c[5]]
	if proto == "" {
		proto = c[5]
	}
	packets, bytes := "", ""
	if len(c) >= 11 {
		packets, bytes = c[9], c[10]
	}
	return f.fill(c[1], c[3], c[2], c[4], proto, packets, bytes)
}
