package reports

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// WritePrometheus writes an analysis as a Prometheus text file (exposition
// format 0.0.4), for the textfile collector of node_exporter: what was counted,
// per service and node, and the findings. Everything is a gauge: a capture is
// not a counter that goes on.
func WritePrometheus(w io.Writer, r *Results) error {
	rep, err := r.Report()
	if err != nil {
		return err
	}
	p := prometheus{w: bufio.NewWriter(w)}
	first, last := r.Analysis.Span()
	p.family("squall_capture_start_timestamp_seconds", "Time of the first packet.")
	p.sample(float64(first) / 1e9)
	p.family("squall_capture_end_timestamp_seconds", "Time of the last packet.")
	p.sample(float64(last) / 1e9)
	p.family("squall_packets", "Packets read, by bucket of the ledger.")
	ledger := r.Analysis.Ledger()
	for b, n := range ledger {
		p.sample(float64(n), "bucket", dissect.Bucket(b).String())
	}
	p.family("squall_attempts", "Attempts that count towards amplification, by outcome.")
	for o, n := range rep.Totals.Outcomes {
		p.sample(float64(n), "outcome", dissect.Outcome(o).String())
	}
	p.family("squall_intents", "Wishes of clients to be attached.")
	p.sample(float64(rep.Totals.Intents))
	p.family("squall_retries", "Attempts that were a retry or a failover.")
	p.sample(float64(rep.Totals.Retries))
	p.family("squall_refreshes", "Attempts inside a session.")
	p.sample(float64(rep.Totals.Refreshes))
	p.family("squall_clients", "Clients.")
	p.sample(float64(rep.Totals.Clients))
	p.family("squall_amplification_ratio", "Attempts over intents.")
	p.sample(rep.Totals.Amplification())
	p.family("squall_retry_ratio", "Retries over attempts.")
	p.sample(rep.Totals.RetryShare())
	p.family("squall_intent_surge_ratio", "Highest intents per window over the calm median; 0 = no baseline.")
	p.sample(rep.Totals.IntentSurge)
	p.family("squall_late_answer_ratio", "Answers that came after the client had given up, over all answers.")
	p.sample(rep.Totals.LateRatio())
	node := func(n *storm.Node) []string { return []string{"node", n.At.String(), "service", n.Service} }
	p.family("squall_node_attempts", "Attempts at a node.")
	for i := range rep.Nodes {
		p.sample(float64(rep.Nodes[i].Attempts), node(&rep.Nodes[i])...)
	}
	p.family("squall_node_failure_ratio", "Failed over decided attempts at a node.")
	for i := range rep.Nodes {
		p.sample(rep.Nodes[i].FailureRatio(), node(&rep.Nodes[i])...)
	}
	p.family("squall_node_peak_attempts_per_second", "Attempts per second in the node's busiest 10 s.")
	for i := range rep.Nodes {
		p.sample(rep.Nodes[i].PeakRate, node(&rep.Nodes[i])...)
	}
	p.family("squall_verdict", "1 for the class of the verdict.")
	p.sample(1, "class", rep.Verdict.Class.String(), "service", rep.Verdict.Service, "cascade", strconv.FormatBool(rep.Verdict.Cascade))
	p.family("squall_finding_onset_timestamp_seconds", "Onset of a finding.")
	finding := func(i int) []string {
		f := &rep.Findings[i]
		return []string{"finding", strconv.Itoa(i + 1), "class", f.Class.String(), "service", f.Service}
	}
	for i := range rep.Findings {
		p.sample(float64(rep.Findings[i].Onset)/1e9, finding(i)...)
	}
	p.family("squall_finding_clients", "Clients that failed at least once inside a finding.")
	for i := range rep.Findings {
		p.sample(float64(rep.Findings[i].Clients), finding(i)...)
	}
	p.family("squall_finding_locked_out_seconds", "Client time from first failure to acceptance inside a finding.")
	for i := range rep.Findings {
		p.sample(float64(rep.Findings[i].LockedOut)/1e9, finding(i)...)
	}
	return p.w.Flush()
}

type prometheus struct {
	w    *bufio.Writer
	name string
}

func (p *prometheus) family(name, help string) {
	p.name = name
	fmt.Fprintf(p.w, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
}

var prometheusEscape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func (p *prometheus) sample(v float64, labels ...string) {
	p.w.WriteString(p.name)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		fmt.Fprintf(p.w, `%s%s="%s"`, sep, labels[i], prometheusEscape.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD")))
	}
	if len(labels) > 0 {
		p.w.WriteByte('}')
	}
	fmt.Fprintf(p.w, " %s\n", strconv.FormatFloat(v, 'g', -1, 64))
}
