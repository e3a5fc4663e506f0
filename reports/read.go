package reports

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
)

// TableFormat recognises a file that Write made of a table, by its first
// bytes; ok is false for anything else. A Parquet or Arrow file says what it
// holds only when it is read.
func TableFormat(head []byte, t *Table) (name string, ok bool) {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	named := func(sep string) bool {
		cells := strings.Split(strings.TrimRight(string(line), "\r"), sep)
		n := 0
		for _, c := range cells {
			if t.Index(c) >= 0 {
				n++
			}
		}
		return n >= 5 && n == len(cells)
	}
	switch {
	case bytes.HasPrefix(head, []byte("PAR1")):
		return "parquet", true
	case arrowBegins(head):
		return "arrow", true
	case named(","):
		return "csv", true
	case named("\t"):
		return "tsv", true
	case bytes.HasPrefix(line, []byte(`{"`+t.Columns[0].Name+`":`)):
		return "jsonl", true
	}
	return "", false
}

// maxSchema is more than the schema of any table takes in an Arrow stream, bytes.
const maxSchema = 1 << 20

// arrowBegins reports the first bytes of an IPC stream: the mark of a message, and
// how long its metadata is, which is padded to 8 bytes.
func arrowBegins(head []byte) bool {
	if len(head) < 8 || binary.LittleEndian.Uint32(head) != 0xffffffff {
		return false
	}
	n := binary.LittleEndian.Uint32(head[4:])
	return n > 0 && n <= maxSchema && n%8 == 0
}

// ReadCSV reads what Write made of table t as CSV or TSV. Columns are found by
// name, those that the file lacks are absent; an empty cell is absent.
func ReadCSV(r io.Reader, t *Table, tabs bool) Rows {
	return func(yield func([]Value, error) bool) {
		next := csvRows(r)
		if tabs {
			next = tsvRows(r)
		}
		names, _, err := next()
		if err != nil {
			yield(nil, fmt.Errorf("no heading: %w", err))
			return
		}
		at := make([]int, len(names))
		for i, n := range names {
			at[i] = t.Index(n)
		}
		row := make([]Value, len(t.Columns))
		for {
			cells, line, err := next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil && len(cells) != len(at) {
				err = fmt.Errorf("line %d: %d cells, the heading has %d", line, len(cells), len(at))
			}
			for i := range row {
				row[i] = null
			}
			for i, c := range cells {
				if err != nil {
					break
				}
				if at[i] >= 0 {
					if row[at[i]], err = parseCell(t.Columns[at[i]].Kind, c); err != nil {
						err = fmt.Errorf("line %d, column %s: %w", line, names[i], err)
					}
				}
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

// nextRow gives the cells of the next row and its line; io.EOF at the end.
type nextRow func() (cells []string, line int, err error)

func csvRows(r io.Reader) nextRow {
	c := csv.NewReader(r)
	c.ReuseRecord, c.FieldsPerRecord = true, -1
	return func() ([]string, int, error) {
		cells, err := c.Read()
		if err != nil {
			return nil, 0, err
		}
		line, _ := c.FieldPos(0)
		return cells, line, nil
	}
}

// maxRow bounds a line of a table that is read.
const maxRow = 1 << 20

func tsvRows(r io.Reader) nextRow {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRow)
	line := 0
	plain := strings.NewReplacer(`\t`, "\t", `\n`, "\n", `\r`, "\r", `\\`, `\`)
	return func() ([]string, int, error) {
		if !lines.Scan() {
			return nil, line, errOr(lines.Err(), io.EOF)
		}
		line++
		cells := strings.Split(strings.TrimSuffix(lines.Text(), "\r"), "\t")
		for i, c := range cells {
			if strings.IndexByte(c, '\\') >= 0 {
				cells[i] = plain.Replace(c)
			}
		}
		return cells, line, nil
	}
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// ReadJSONL reads what Write made of table t as JSON lines.
func ReadJSONL(r io.Reader, t *Table) Rows {
	return func(yield func([]Value, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxRow)
		row := make([]Value, len(t.Columns))
		for n := 1; lines.Scan(); n++ {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue
			}
			var o map[string]json.RawMessage
			err := json.Unmarshal(lines.Bytes(), &o)
			for i, c := range t.Columns {
				row[i] = null
				raw := o[c.Name]
				if err != nil || len(raw) == 0 || string(raw) == "null" {
					continue
				}
				text := string(raw)
				if raw[0] == '"' {
					err = json.Unmarshal(raw, &text)
				}
				if err == nil && c.Kind == List {
					var all []string
					err = json.Unmarshal(raw, &all)
					text = joinList(all)
				}
				if err == nil {
					row[i], err = parseCell(c.Kind, text)
				}
				if err != nil {
					err = fmt.Errorf("column %s: %w", c.Name, err)
				}
			}
			if err != nil {
				err = fmt.Errorf("line %d: %w", n, err)
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// parseCell is the inverse of appendText.
func parseCell(k Kind, s string) (v Value, err error) {
	if s == "" {
		return null, nil
	}
	switch k {
	case String, List:
		v.Str = s
	case Float:
		v.Float, err = strconv.ParseFloat(s, 64)
	case Bool:
		var b bool
		if b, err = strconv.ParseBool(s); b {
			v.Int = 1
		}
	case Time:
		var t time.Time
		t, err = time.Parse(time.RFC3339Nano, s)
		v.Int = t.UnixNano()
	default:
		v.Int, err = strconv.ParseInt(s, 10, 64)
	}
	if err != nil {
		return null, fmt.Errorf("%q: want %s", s, k)
	}
	return v, nil
}

// AttemptRow is a row of an attempts table that is read back.
type AttemptRow struct {
	dissect.Attempt
	CaptureFile string // that the row names
	Observer    string // the tap, where it has a name
	Dataset     string // event_dataset; empty in tables that have none
}

// mustHave are the columns without which a row is no attempt.
var mustHave = []string{"attempt_id", "event_start", "event_end", "source_ip", "source_port", "destination_ip", "destination_port",
	"network_transport", "client_id", "client_id_level", "relation", "attempt_outcome"}

// EachAttempt reads the rows of an attempts table back; the row is used again.
// Columns that are not there keep what says nothing.
func EachAttempt(rows Rows, use func(*AttemptRow) error) (n int64, err error) {
	t := Attempts()
	var a AttemptRow
	at := map[string]int{}
	for i, c := range t.Columns {
		at[c.Name] = i
	}
	for row, err := range rows {
		if err != nil {
			return n, err
		}
		for _, name := range mustHave {
			if row[at[name]].Null {
				return n, fmt.Errorf("row %d has no %s: want a table of attempts as squall report attempts writes it, with all columns", n+1, name)
			}
		}
		if err := a.fill(func(name string) Value { return row[at[name]] }); err != nil {
			return n, fmt.Errorf("row %d: %w", n+1, err)
		}
		n++
		if err := use(&a); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (r *AttemptRow) fill(get func(string) Value) (err error) {
	*r = AttemptRow{CaptureFile: get("capture_file").Str, Observer: get("observer_name").Str, Dataset: get("event_dataset").Str}
	a := &r.Attempt
	number := func(name string, none int64) int64 {
		if v := get(name); !v.Null {
			return v.Int
		}
		return none
	}
	say := func(name, text string) {
		if err == nil {
			err = fmt.Errorf("%s %q is not known", name, text)
		}
	}
	if a.ID, err = strconv.ParseUint(get("attempt_id").Str, 16, 64); err != nil {
		return fmt.Errorf("attempt_id %q: want 16 hexadecimal digits", get("attempt_id").Str)
	}
	for _, e := range []struct {
		side string
		to   *dissect.Endpoint
	}{{"source", &a.Source}, {"destination", &a.Destination}} {
		ip, bad := netip.ParseAddr(get(e.side + "_ip").Str)
		port := number(e.side+"_port", 0)
		if bad != nil || port < 0 || port > 65535 {
			return fmt.Errorf("%s: no address and port: %q, %d", e.side, get(e.side+"_ip").Str, port)
		}
		*e.to = dissect.Endpoint{Addr: dissect.AddrFrom(ip), Port: uint16(port)}
	}
	switch s := get("network_transport").Str; s {
	case "tcp":
		a.Proto = dissect.ProtoTCP
	case "udp":
		a.Proto = dissect.ProtoUDP
	default:
		say("network_transport", s)
	}
	a.Protocol, a.Op, a.Rung, a.Service = get("network_protocol").Str, get("request").Str, get("rung").Str, get("service").Str
	a.ClientID, a.ClientVersion, a.History = get("client_id").Str, get("client_version").Str, get("tcp_history").Str
	a.ServerName, a.JA3 = get("destination_domain").Str, get("tls_client_ja3").Str
	a.Role = word("destination_role", get, dissect.NumRoles, say)
	a.RoleSource = word("role_source", get, dissect.NumRoleSources, say)
	a.ClientIDLevel = word("client_id_level", get, dissect.IDProtocol+1, say)
	a.Relation = word("relation", get, dissect.NumRelations, say)
	a.Outcome = word("attempt_outcome", get, dissect.NumOutcomes, say)
	a.Evidence = word("outcome_evidence", get, dissect.NumEvidence, say)
	a.Answer = word("transport_answer", get, dissect.NumAnswers, say)
	a.SessionEnded = word("session_ended_by", get, dissect.NumSessionEnds, say)
	a.Tunnel = word("tunnel", get, dissect.NumTunnels, say)
	a.Start, a.End = number("event_start", 0), number("event_end", 0)
	a.LastSeen, a.LastHeard, a.HeardAgain = number("last_seen", a.End), number("last_heard", 0), number("heard_again", 0)
	a.SessionEnd, a.AnsweredAt, a.GaveUp = number("session_end", 0), number("answered_at", 0), number("gave_up", 0)
	a.HandshakeRTT, a.RetryGap, a.RetryAfter = number("handshake_rtt_ns", -1), number("retry_gap_ns", -1), number("retry_after_ns", 0)
	a.Transmissions = int32(min(max(number("transmissions", 1), 1), math.MaxInt32))
	a.SourcePackets, a.SourceBytes = number("source_packets", 0), number("source_bytes", 0)
	a.DestinationPackets, a.DestinationBytes = number("destination_packets", 0), number("destination_bytes", 0)
	a.FirstFrame, a.LastFrame = number("first_frame", 0), number("last_frame", 0)
	a.LostBytes = number("lost_bytes", 0)
	a.OverFrame, a.AgainFrame = number("over_frame", 0), number("again_frame", 0)
	a.FirstOffset = number("first_offset", 0)
	a.VLAN = uint16(number("network_vlan_id", 0))
	a.Late, a.OneSided = get("late").Int != 0, get("one_sided").Int != 0
	return err
}

// word reads the name of a value back.
func word[T interface {
	~uint8
	String() string
}](name string, get func(string) Value, many T, say func(name, text string)) T {
	s := get(name).Str
	for v := T(0); v < many; v++ {
		if v.String() == s {
			return v
		}
	}
	if s != "" {
		say(name, s)
	}
	return 0
}
