package flowlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"squall/dissect"
)

// zeekTSV reads conn.log as Zeek's ASCII writer makes it: the heading says
// what separates, what is unset and where the fields stand.
type zeekTSV struct {
	sep, unset string
	at         map[string]int
	row        []string
}

// zeekRow are the fields of conn.log that are read, in either form
// (base/protocols/conn/main.zeek, Conn::Info).
type zeekRow struct {
	get func(name string) string // "" = unset
}

func (z *zeekTSV) parse(line []byte, c *conn) error {
	if len(line) == 0 {
		return errNone
	}
	if line[0] == '#' {
		return z.heading(string(line))
	}
	if z.at == nil {
		return errors.New("a row before #fields said what it holds")
	}
	z.row = z.row[:0]
	for cell := range strings.SplitSeq(string(line), z.sep) {
		z.row = append(z.row, cell)
	}
	if len(z.row) != len(z.at) {
		return fmt.Errorf("%d fields, #fields names %d", len(z.row), len(z.at))
	}
	return zeekRow{func(name string) string {
		i, ok := z.at[name]
		if !ok || i >= len(z.row) || z.row[i] == z.unset {
			return ""
		}
		return z.row[i]
	}}.fill(c)
}

func (z *zeekTSV) heading(line string) error {
	if z.sep == "" {
		z.sep, z.unset = "\t", "-"
	}
	if s, ok := strings.CutPrefix(line, "#separator "); ok {
		sep, err := strconv.Unquote(`"` + s + `"`)
		if err != nil || sep == "" {
			return fmt.Errorf("#separator %q: want a character, or \\x09 and the like", s)
		}
		z.sep, z.at = sep, nil
		return errNone
	}
	name, rest, _ := strings.Cut(line, z.sep)
	switch name {
	case "#unset_field":
		z.unset = rest
	case "#fields":
		z.at = map[string]int{}
		for i, f := range strings.Split(rest, z.sep) {
			z.at[f] = i
		}
		for _, need := range []string{"ts", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto"} {
			if _, ok := z.at[need]; !ok {
				return fmt.Errorf("#fields lacks %s, without which no attempt can be told", need)
			}
		}
		_, state := z.at["conn_state"]
		if _, history := z.at["history"]; !state && !history {
			return errors.New("#fields has neither conn_state nor history: the log does not say how connections went")
		}
	}
	return errNone
}

// zeekJSON reads a line of conn.log as Zeek's JSON writer makes it.
func zeekJSON(line []byte, c *conn) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return errNone
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("no JSON object: %w", err)
	}
	get := func(name string) string {
		raw := o[name]
		if len(raw) == 0 || string(raw) == "null" {
			return ""
		}
		var s string
		if raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
			return s
		}
		return string(raw)
	}
	if p := get("_path"); p != "" && p != "conn" {
		return errSkip // logs that stream together
	}
	return zeekRow{get}.fill(c)
}

func (z zeekRow) fill(c *conn) error {
	var err error
	if c.start, err = epoch(z.get("ts")); err != nil {
		return fmt.Errorf("ts: %w", err)
	}
	c.last = c.start
	if d := z.get("duration"); d != "" {
		n, err := decimal(d)
		if err != nil || n < 0 {
			return fmt.Errorf("duration %q: want seconds", d)
		}
		c.last += n
	}
	if c.proto = protoOf(z.get("proto")); c.proto == 0 {
		return errSkip
	}
	if c.from, err = endpoint(z.get("id.orig_h"), z.get("id.orig_p")); err != nil {
		return fmt.Errorf("id.orig: %w", err)
	}
	if c.to, err = endpoint(z.get("id.resp_h"), z.get("id.resp_p")); err != nil {
		return fmt.Errorf("id.resp: %w", err)
	}
	for _, f := range []struct {
		name string
		to   *int64
	}{{"orig_pkts", &c.packets[0]}, {"resp_pkts", &c.packets[1]}, {"orig_ip_bytes", &c.bytes[0]}, {"resp_ip_bytes", &c.bytes[1]},
		{"orig_bytes", &c.payload[0]}, {"resp_bytes", &c.payload[1]}} {
		if s := z.get(f.name); s != "" {
			if *f.to, err = strconv.ParseInt(s, 10, 64); err != nil || *f.to < 0 {
				return fmt.Errorf("%s %q: want a count", f.name, s)
			}
		}
	}
	if s := z.get("vlan"); s != "" {
		n, _ := strconv.ParseUint(s, 10, 16)
		c.vlan = uint16(n)
	}
	c.state, c.history = z.get("conn_state"), z.get("history")
	c.ordered = c.history != ""
	switch {
	case c.proto == dissect.ProtoUDP && c.packets == [2]int64{}:
		// Without packet counts the state says who was heard.
		switch c.state {
		case "SF":
			c.packets = [2]int64{1, 1}
		case "S0":
			c.packets = [2]int64{1, 0}
		case "SHR":
			c.packets = [2]int64{0, 1}
		}
	case c.state == "" && c.history == "" && c.proto == dissect.ProtoTCP:
		return errors.New("neither conn_state nor history: how the connection went is not said")
	}
	return nil
}

func protoOf(s string) uint8 {
	switch strings.ToLower(s) {
	case "tcp", "6":
		return dissect.ProtoTCP
	case "udp", "17":
		return dissect.ProtoUDP
	}
	return 0
}

func endpoint(host, port string) (e dissect.Endpoint, err error) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return e, fmt.Errorf("%q is no address", host)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return e, fmt.Errorf("port %q: want 0 to 65535", port)
	}
	return dissect.Endpoint{Addr: dissect.AddrFrom(ip), Port: uint16(n)}, nil
}

// epoch reads a time: seconds since the epoch with decimals, or ISO 8601.
func epoch(s string) (int64, error) {
	if n, err := decimal(s); err == nil && n > 0 {
		return n, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() > 1970 && t.Year() < 2200 {
			return t.UnixNano(), nil
		}
	}
	return 0, fmt.Errorf("%q is no time: want seconds of the epoch or RFC 3339", s)
}

// decimal reads seconds with up to nine decimals, exactly.
func decimal(s string) (int64, error) {
	if strings.ContainsAny(s, "eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f < -9e9 || f > 9e9 {
			return 0, strconv.ErrRange
		}
		return int64(f * 1e9), nil
	}
	whole, part, _ := strings.Cut(s, ".")
	neg := strings.HasPrefix(whole, "-")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > 9e9 || n < -9e9 {
		return 0, strconv.ErrRange
	}
	n *= 1e9
	if part != "" {
		f, err := strconv.ParseUint((part + "000000000")[:9], 10, 64)
		if err != nil {
			return 0, err
		}
		if neg {
			f = -f
		}
		n += int64(f)
	}
	return n, nil
}
