package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"squall/dissect"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
)

const leastColumns = 70

// draw paints the whole screen, over the one before: as many nodes, clients and
// findings of before as there are rows for, 0 = as many as are shown at all.
func (v *viewer) draw(l *pipeline.Look, w *window, width, rows int) error {
	var b strings.Builder
	b.WriteString("\x1b[H")
	taken := 0
	paint := func(style, text string) string {
		if !v.colour || text == "" {
			return text
		}
		return "\x1b[" + style + "m" + text + "\x1b[0m"
	}
	line := func(style, format string, args ...any) {
		taken++
		r := []rune(printableLine(fmt.Sprintf(format, args...)))
		b.WriteString(paint(style, string(r[:min(len(r), width)])) + "\x1b[K\r\n")
	}
	prose := func(style, text string) {
		for i, part := range foldLine(printableLine(text), width-2) {
			line(style, "%s", map[bool]string{true: "  "}[i > 0]+part)
		}
	}
	const heading, calm, bad = "1", "38;5;36", "38;5;208"
	line(heading, "squall watch   %s   %d packets, %d dropped   horizon %v%s", time.Unix(0, l.Time).UTC().Format(time.DateTime), l.Packets, w.Dropped,
		time.Duration(l.Report.End-l.Report.Begin).Round(time.Second), map[bool]string{true: " (shortened for lack of room)"}[l.Shrunk])
	line("", "")
	open := 0
	for i := range l.Findings {
		if s := &l.Findings[i]; s.Sight <= pipeline.Confirmed {
			o := sightingOf(s)
			prose(bad, o.line())
			open++
		}
	}
	if open == 0 {
		line(calm, "calm")
	}
	line("", "")
	prose("", "last 10 s "+strings.Join(strings.Fields(w.line(l)), " "))
	b.WriteString(v.rates(l, width, paint) + "\x1b[K\r\n")
	line("", "")
	nodes, clients, recent := share(rows-taken-2, len(l.Report.Nodes), len(l.Report.Clients), len(v.recent)) // without the bars, and the row of the cursor
	if rows == 0 {
		nodes, clients, recent = min(8, len(l.Report.Nodes)), min(5, len(l.Report.Clients)), len(v.recent)
	}
	// Names have what the numbers leave; a service is shown where there is room.
	name := min(44, width-53)
	cut := func(text string) string { return string([]rune(text)[:min(len([]rune(text)), name)]) }
	if nodes > 0 || rows == 0 {
		line(heading, "%-*s %9s %8s %8s %8s  %s", name, "NODE", "ATTEMPTS", "FAILED", "CLIENTS", "PEAK/S", "SERVICE")
	}
	for i := range l.Report.Nodes[:nodes] {
		n := &l.Report.Nodes[i]
		line("", "%-*s %9d %8d %8d %8.1f  %s", name, cut(n.At.String()), n.Attempts, n.Outcomes.Failed(), n.Clients, n.PeakRate, n.Service)
	}
	if clients > 0 || rows == 0 {
		line("", "")
		line(heading, "%-*s %9s %8s %8s  %8s%s", name, "CLIENT", "ATTEMPTS", "FAILED", "RETRIES", "", "SERVICE")
	}
	for i := range l.Report.Clients[:clients] {
		c := &l.Report.Clients[i]
		line("", "%-*s %9d %8d %8d  %8s%s", name, cut(c.ID), c.Counts.Attempts, c.Outcomes.Failed(), c.Retries, "", c.Service)
	}
	if recent > 0 || rows == 0 {
		line("", "")
	}
	for _, s := range v.recent[len(v.recent)-recent:] {
		line("", "%s", s)
	}
	b.WriteString("\x1b[J")
	_, err := io.WriteString(v.out, b.String())
	return err
}

// share gives the rows that are left to the nodes, the clients and the findings
// of before, each with its heading: first some of each, then more of the nodes.
func share(rows, haveNodes, haveClients, haveRecent int) (nodes, clients, recent int) {
	more := func(n *int, most, heading int) {
		if *n > 0 {
			heading = 0
		}
		for ; *n < most && rows > heading; *n++ {
			rows -= 1 + heading
			heading = 0
		}
	}
	more(&nodes, min(haveNodes, 3), 1)
	more(&recent, min(haveRecent, 2), 1)
	more(&clients, min(haveClients, 2), 2)
	more(&nodes, min(haveNodes, 8), 1)
	more(&recent, min(haveRecent, 8), 1)
	more(&clients, min(haveClients, 5), 2)
	more(&nodes, min(haveNodes, 20), 1)
	more(&clients, min(haveClients, 10), 2)
	return nodes, clients, recent
}

// rates is a line of bars, the newest to the right: the attempts of each ten
// seconds, in the colour of what most of them came to.
func (v *viewer) rates(l *pipeline.Look, width int, paint func(style, text string) string) string {
	const bars = " ▁▂▃▄▅▆▇█"
	windows := map[int64]*storm.Counts{}
	for i := range l.Report.Timeline {
		t := &l.Report.Timeline[i]
		if t.Node != (dissect.Endpoint{}) {
			continue
		}
		if windows[t.Start] == nil {
			windows[t.Start] = &storm.Counts{}
		}
		windows[t.Start].Add(&t.Counts)
	}
	n := min(width-20, 90)
	top := int64(1)
	for k := range n {
		if c := windows[l.LastStart-int64(k)*storm.WindowLength]; c != nil {
			top = max(top, c.Attempts)
		}
	}
	text := ""
	for k := n - 1; k >= 0; k-- {
		c := windows[l.LastStart-int64(k)*storm.WindowLength]
		if c == nil || c.Attempts == 0 {
			text += " "
			continue
		}
		style := "38;5;36"
		if 2*c.Outcomes.Failed() > c.Attempts {
			style = "38;5;208"
		}
		text += paint(style, string([]rune(bars)[1+(c.Attempts*8-1)/top]))
	}
	return fmt.Sprintf("%s  %.1f/s", text, float64(top)/(float64(storm.WindowLength)/1e9))
}

// printableLine has no control characters: names come out of packets.
func printableLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// foldLine breaks a text at blanks.
func foldLine(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// ServeHTTP gives Prometheus the last look.
func (v *viewer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/metrics" {
		http.NotFound(w, r)
		return
	}
	v.mu.Lock()
	l, totals := v.last, v.totals
	v.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	family := func(name, kind, help string) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	one := func(name, kind, help string, value float64) {
		family(name, kind, help)
		fmt.Fprintf(w, "%s %.15g\n", name, value)
	}
	family("squall_findings_total", "counter", "Changes of findings since the start, by what they became.")
	for s, n := range totals {
		fmt.Fprintf(w, "squall_findings_total{sight=%q} %d\n", pipeline.Sight(s), n)
	}
	if l == nil {
		return
	}
	o := windowOf(l)
	one("squall_packets_total", "counter", "Packets that were analysed.", float64(l.Packets))
	one("squall_dropped_packets_total", "counter", "Packets that the tap says it lost.", float64(o.Dropped))
	one("squall_last_look_timestamp_seconds", "gauge", "Time of the packets that the numbers here are of.", float64(l.Time)/1e9)
	family("squall_attempts_per_second", "gauge", "Attempts of the last whole ten seconds, by outcome.")
	for i := range dissect.NumOutcomes {
		fmt.Fprintf(w, "squall_attempts_per_second{outcome=%q} %g\n", i, float64(l.Last.Outcomes[i])/(float64(storm.WindowLength)/1e9))
	}
	one("squall_amplification_ratio", "gauge", "Attempts for each intent, in the last whole ten seconds.", o.A)
	one("squall_retry_share_ratio", "gauge", "Retries among the attempts, in the last whole ten seconds.", o.RetryShare)
	one("squall_intent_surge_ratio", "gauge", "Intents against those of calm windows, in the last whole ten seconds; 0 without a baseline.", o.Surge)
	one("squall_late_ratio", "gauge", "Answers after the client had given up, in the last whole ten seconds.", o.Late)
	one("squall_attached_clients", "gauge", "Clients that are believed to hold a session.", float64(o.Attached))
	family("squall_finding", "gauge", "Findings that go on: 1 for each class and service.")
	seen := map[string]bool{}
	for i := range l.Findings {
		s := &l.Findings[i]
		labels := fmt.Sprintf("{class=%q,service=%q,sight=%q}", s.Finding.Class, s.Finding.Service, s.Sight)
		if s.Sight <= pipeline.Confirmed && !seen[labels] {
			seen[labels] = true
			fmt.Fprintf(w, "squall_finding%s 1\n", labels)
		}
	}
}
