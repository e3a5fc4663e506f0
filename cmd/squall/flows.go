package main

import (
	"fmt"
	"io"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/flowlog"
	"squall/dissect/pipeline"
)

// flowLog is a file of flow records, for info.
type flowLog struct {
	pipeline.Capture
	cover flowlog.Coverage
	left  int64 // times that the exporter left records out
}

func readFlowLog(w *written) (f flowLog, err error) {
	f.Capture = pipeline.Capture{FileStats: capture.FileStats{Path: w.path, Format: w.format.String(), Drops: -1}}
	s, err := w.cover(f.cover.Add)
	account(&f.Capture, &s)
	f.left = s.LeftOut
	return f, err
}

// topServices is how many ports info names.
const topServices = 5

// describe prints it for reading, narrower than 80 columns.
func (f *flowLog) describe(w io.Writer, s *source) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	c := &f.cover
	fmt.Fprintln(w, f.Path)
	line("format", "%s: flow records", f.Format)
	line("flows", "%d, %d packets, %d bytes", c.Flows, c.Packets, c.Bytes)
	if c.Rejected > 0 {
		line("rejected", "%d of them, by a firewall", c.Rejected)
	}
	if c.Flows > 0 {
		line("span", "%s to %s", s.stamp(c.First), s.stamp(c.Last))
	}
	for i, top := range c.Top(topServices) {
		name := ""
		if i == 0 {
			name = "services"
		}
		nodes := fmt.Sprint(top.Nodes)
		if top.Nodes == flowlog.MaxNodes {
			nodes += " or more"
		}
		line(name, "%s port %d: %d flows, %d packets, %d bytes, %s nodes", protoName(top.Proto), top.Port, top.Flows, top.Packets, top.Bytes, nodes)
	}
	holes := c.Holes()
	line("holes", "%d of more than a minute without any flow", len(holes))
	for i, h := range holes {
		if i == topServices {
			line("", "and %d more", len(holes)-i)
			break
		}
		line("", "%s to %s", s.stamp(h[0]), s.stamp(h[1]))
	}
	if f.left > 0 {
		line("left out", "the exporter says %d times that it left records out", f.left)
	}
	if d := f.Damage; d != nil {
		line("DAMAGED", "%s", d.Reason)
	}
	line("attempts", "not to be counted: flow records do not say how a connection")
	line("", "went. As a calm day: squall analyze CAPTURE --baseline FILE")
}

func protoName(proto uint8) string {
	if proto == dissect.ProtoTCP {
		return "tcp"
	}
	return "udp"
}
