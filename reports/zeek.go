package reports

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// zeekField is a column of conn.log. from names the column of attempts that it
// is read from; an unset one is "-".
type zeekField struct {
	name, kind, from string
}

// zeekFields are the fields of Zeek's conn.log in its order (base/protocols/conn
// and policy/protocols/conn/community-id-logging), then what Zeek has no word
// for. duration, conn_state and the last ones are made below.
var zeekFields = []zeekField{
	{"ts", "time", "event_start"}, {"uid", "string", "attempt_id"},
	{"id.orig_h", "addr", "source_ip"}, {"id.orig_p", "port", "source_port"},
	{"id.resp_h", "addr", "destination_ip"}, {"id.resp_p", "port", "destination_port"},
	{"proto", "enum", "network_transport"}, {"service", "string", "network_protocol"},
	{"duration", "interval", "last_seen"}, {"orig_bytes", "count", ""}, {"resp_bytes", "count", ""},
	{"conn_state", "string", "transport_answer"}, {"local_orig", "bool", ""}, {"local_resp", "bool", ""}, {"missed_bytes", "count", ""},
	{"history", "string", "tcp_history"},
	{"orig_pkts", "count", "source_packets"}, {"orig_ip_bytes", "count", "source_bytes"},
	{"resp_pkts", "count", "destination_packets"}, {"resp_ip_bytes", "count", "destination_bytes"},
	{"tunnel_parents", "set[string]", ""}, {"community_id", "string", "network_community_id"},
	{"vlan", "int", "network_vlan_id"},
	{"attempt_outcome", "string", "attempt_outcome"}, {"relation", "string", "relation"}, {"intent_id", "string", "intent_id"}, {"client_id", "string", "client_id"},
}

// zeekSink writes attempts as Zeek writes conn.log, for zeek-cut and what reads
// Zeek's logs. An attempt is not quite a connection: requests over one
// connection are lines of their own, with the connection's packets on the last.
type zeekSink struct {
	w      *bufio.Writer
	t      *Table
	column []int // by field, -1 = unset
	line   []byte
}

func openZeek(w io.Writer, t *Table, _ Options) (Sink, error) {
	s := &zeekSink{w: bufio.NewWriterSize(w, sinkBuffer), t: t}
	for _, f := range zeekFields {
		i := -1
		if f.from != "" {
			if i = t.Index(f.from); i < 0 {
				return nil, fmt.Errorf("conn.log is made of whole attempts: squall report attempts without -e (table %s has no %s)", t.Name, f.from)
			}
		}
		s.column = append(s.column, i)
	}
	s.w.WriteString("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#fields")
	for _, f := range zeekFields {
		s.w.WriteString("\t" + f.name)
	}
	s.w.WriteString("\n#types")
	for _, f := range zeekFields {
		s.w.WriteString("\t" + f.kind)
	}
	return s, s.w.WriteByte('\n')
}

func (s *zeekSink) Write(row []Value) error {
	b := s.line[:0]
	for i, f := range zeekFields {
		if i > 0 {
			b = append(b, '\t')
		}
		if s.column[i] < 0 {
			b = append(b, '-')
			continue
		}
		v := row[s.column[i]]
		switch f.name {
		case "ts":
			b = appendSeconds(b, v.Int)
		case "duration":
			b = appendSeconds(b, max(0, v.Int-row[s.column[0]].Int))
		case "conn_state":
			b = append(b, connState(row[s.column[6]].Str, v.Str, row[s.t.Index("tcp_history")].Str)...)
		default:
			before := len(b)
			b = appendText(b, s.t.Columns[s.column[i]].Kind, v)
			if len(b) == before {
				b = append(b, '-')
			} else if s.t.Columns[s.column[i]].Kind == String {
				b = zeekEscape(b, before)
			}
		}
	}
	s.line = append(b, '\n')
	_, err := s.w.Write(s.line)
	return err
}

func (s *zeekSink) Close() error { return s.w.Flush() }

// appendSeconds prints ns as seconds with six decimals, as Zeek does.
func appendSeconds(b []byte, ns int64) []byte {
	us := ns / 1000
	if us < 0 {
		b, us = append(b, '-'), -us
	}
	b = strconv.AppendInt(b, us/1e6, 10)
	return fmt.Appendf(append(b, '.'), "%06d", us%1e6)
}

// zeekEscape escapes what would end a field, as Zeek does.
func zeekEscape(b []byte, from int) []byte {
	if !strings.ContainsAny(string(b[from:]), "\t\n\r\\") {
		return b
	}
	cell := string(b[from:])
	b = b[:from]
	for _, c := range []byte(cell) {
		if c == '\t' || c == '\n' || c == '\r' || c == '\\' {
			b = fmt.Appendf(b, "\\x%02x", c)
		} else {
			b = append(b, c)
		}
	}
	return b
}

// connState is Zeek's word for how a connection went (base/protocols/conn/main.zeek).
func connState(proto, answer, history string) string {
	has := func(letter string) bool { return strings.Contains(history, letter) }
	switch {
	case proto == "udp" && answer == "reply":
		return "SF"
	case proto == "udp" || answer == "icmp":
		return "S0" // Zeek does not join ICMP errors to what they answer
	case answer == "rst":
		return "REJ"
	case answer == "abort" || answer == "none" && has("R"):
		return "RSTOS0"
	case answer == "none" && has("F"):
		return "SH"
	case answer != "synack":
		return "S0"
	case has("R"):
		return "RSTO"
	case has("r"):
		return "RSTR"
	case has("F") && has("f"):
		return "SF"
	case has("F"):
		return "S2"
	case has("f"):
		return "S3"
	}
	return "S1"
}
