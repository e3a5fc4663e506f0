package flowlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"squall/dissect"
)

// eve is an event of Suricata's eve.json, as far as flows go
// (docs.suricata.io, Eve JSON Format, event type flow).
type eve struct {
	Type     string `json:"event_type"`
	SrcIP    string `json:"src_ip"`
	SrcPort  uint16 `json:"src_port"`
	DestIP   string `json:"dest_ip"`
	DestPort uint16 `json:"dest_port"`
	Proto    string `json:"proto"`
	VLAN     vlans  `json:"vlan"`
	Flow     *struct {
		PacketsTo   int64  `json:"pkts_toserver"`
		PacketsFrom int64  `json:"pkts_toclient"`
		BytesTo     int64  `json:"bytes_toserver"`
		BytesFrom   int64  `json:"bytes_toclient"`
		Start       string `json:"start"`
		End         string `json:"end"`
	} `json:"flow"`
	TCP struct {
		FlagsTo   string `json:"tcp_flags_ts"` // hexadecimal
		FlagsFrom string `json:"tcp_flags_tc"`
	} `json:"tcp"`
}

// vlans is a number or an array of numbers, by version.
type vlans []uint16

func (v *vlans) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] != '[' {
		b = append(append([]byte{'['}, b...), ']')
	}
	return json.Unmarshal(b, (*[]uint16)(v))
}

// mostHeader is more than a packet without payload has: Ethernet with two VLAN
// tags, IPv6, TCP with all options. Suricata counts whole frames.
const mostHeader = 14 + 8 + 40 + 60

func eveFlow(line []byte, c *conn) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return errNone
	}
	var e eve
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("no event: %w", err)
	}
	if e.Type != "flow" || e.Flow == nil {
		return errSkip
	}
	var err error
	if c.start, err = epoch(e.Flow.Start); err != nil {
		return fmt.Errorf("flow.start: %w", err)
	}
	c.last = c.start
	if e.Flow.End != "" {
		if c.last, err = epoch(e.Flow.End); err != nil {
			return fmt.Errorf("flow.end: %w", err)
		}
		c.last = max(c.last, c.start)
	}
	if c.proto = protoOf(e.Proto); c.proto == 0 {
		return errSkip
	}
	if c.from, err = endpoint(e.SrcIP, strconv.Itoa(int(e.SrcPort))); err != nil {
		return fmt.Errorf("src: %w", err)
	}
	if c.to, err = endpoint(e.DestIP, strconv.Itoa(int(e.DestPort))); err != nil {
		return fmt.Errorf("dest: %w", err)
	}
	f := e.Flow
	if f.PacketsTo < 0 || f.PacketsFrom < 0 || f.BytesTo < 0 || f.BytesFrom < 0 {
		return fmt.Errorf("flow: negative counts")
	}
	c.packets, c.bytes = [2]int64{f.PacketsTo, f.PacketsFrom}, [2]int64{f.BytesTo, f.BytesFrom}
	if len(e.VLAN) > 0 {
		c.vlan = e.VLAN[len(e.VLAN)-1]
	}
	if c.proto == dissect.ProtoUDP {
		return nil
	}
	to, err1 := strconv.ParseUint(e.TCP.FlagsTo, 16, 8)
	from, err2 := strconv.ParseUint(e.TCP.FlagsFrom, 16, 8)
	if e.TCP.FlagsTo != "" && err1 != nil || e.TCP.FlagsFrom != "" && err2 != nil {
		return fmt.Errorf("tcp flags %q and %q: want hexadecimal", e.TCP.FlagsTo, e.TCP.FlagsFrom)
	}
	c.history = flagLetters(to, from, f.BytesTo > f.PacketsTo*mostHeader, f.BytesFrom > f.PacketsFrom*mostHeader)
	return nil
}

// flagLetters writes the flags that each side ever set as Zeek's letters, in
// no order of time. PSH is as good as a sign of payload.
func flagLetters(to, from uint64, wide, wideBack bool) string {
	const fin, syn, rst, psh, ack = 1, 2, 4, 8, 16
	var b []byte
	add := func(yes bool, letter byte) {
		if yes {
			b = append(b, letter)
		}
	}
	add(to&syn != 0, 'S')
	add(from&(syn|ack) == syn|ack, 'h')
	add(to&ack != 0 && (from&syn != 0 || to&rst == 0), 'A') // a RST that aborts may carry an ACK, too
	add(to&psh != 0 || wide, 'D')
	add(from&ack != 0 && from&syn != 0, 'a')
	add(from&psh != 0 || wideBack, 'd')
	add(to&fin != 0, 'F')
	add(from&fin != 0, 'f')
	add(to&rst != 0, 'R')
	add(from&rst != 0, 'r')
	return string(b)
}
