package reports

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
)

// whereMaxNodes bounds the size of a row expression; expr refuses larger ones.
const whereMaxNodes = 10_000

// compileWhere makes a row predicate of an expression over column names.
// Absent numbers compare as false with everything, absent texts are "",
// durations are numbers of nanoseconds and duration("3s") writes one.
func compileWhere(t *Table, src string) (func([]Value) (bool, error), error) {
	env := make(map[string]any, len(t.Columns))
	for _, c := range t.Columns {
		env[c.Name] = whereValue(c.Kind, Value{})
	}
	prog, err := expr.Compile(src, expr.Env(env), expr.AsBool(), expr.MaxNodes(whereMaxNodes),
		expr.DisableBuiltin("now"), // same input, same rows
		expr.DisableBuiltin("duration"),
		expr.Function("duration", func(args ...any) (any, error) {
			d, err := time.ParseDuration(args[0].(string))
			return int64(d), err
		}, new(func(string) int64)))
	if err != nil {
		return nil, whereError(t, src, err)
	}
	used := usedColumns(t, prog)
	var machine vm.VM
	return func(row []Value) (bool, error) {
		for _, i := range used {
			env[t.Columns[i].Name] = whereValue(t.Columns[i].Kind, row[i])
		}
		out, err := machine.Run(prog, env)
		if err != nil {
			return false, fmt.Errorf("where %q: %s", src, firstLine(err))
		}
		return out.(bool), nil
	}, nil
}

// usedColumns keeps the cost of a filter to the columns that it names.
func usedColumns(t *Table, prog *vm.Program) []int {
	var used []int
	src := prog.Source().String()
	for i, c := range t.Columns {
		if strings.Contains(src, c.Name) {
			used = append(used, i)
		}
	}
	return used
}

func whereValue(k Kind, v Value) any {
	switch k {
	case String, List:
		return v.Str
	case Bool:
		return v.Int != 0
	case Time:
		if v.Null {
			return time.Time{}
		}
		return time.Unix(0, v.Int).UTC()
	case Float:
		if v.Null {
			return math.NaN()
		}
		return v.Float
	}
	if v.Null {
		return math.NaN() // false in every comparison
	}
	return v.Int
}

var (
	unknownName   = regexp.MustCompile(`unknown name (\w+)`)
	dottedName    = regexp.MustCompile(`\b[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+\b`)
	wiresharkWord = map[string][]string{
		"ip.addr": {"source_ip", "destination_ip"}, "ipv6.addr": {"source_ip", "destination_ip"},
		"ip.src": {"source_ip"}, "ipv6.src": {"source_ip"}, "ip.src_host": {"source_ip"},
		"ip.dst": {"destination_ip"}, "ipv6.dst": {"destination_ip"}, "ip.dst_host": {"destination_ip"},
		"tcp.port": {"source_port", "destination_port"}, "udp.port": {"source_port", "destination_port"},
		"tcp.srcport": {"source_port"}, "udp.srcport": {"source_port"},
		"tcp.dstport": {"destination_port"}, "udp.dstport": {"destination_port"},
		"frame.number": {"first_frame"}, "frame.time": {"event_start", "window_start", "first_seen"},
		"frame.time_epoch": {"event_start", "window_start", "first_seen"},
		"ip.proto":         {"network_transport"}, "vlan.id": {"network_vlan_id"},
		"tcp.analysis.initial_rtt": {"handshake_rtt_ns"},
	}
)

// wiresharkHint translates the name of a Wireshark display filter field.
func wiresharkHint(t *Table, name string) string {
	var have []string
	for _, c := range wiresharkWord[name] {
		if t.Index(c) >= 0 {
			have = append(have, c)
		}
	}
	if len(have) == 0 {
		return ""
	}
	return fmt.Sprintf("that is a Wireshark name; here it is %s", strings.Join(have, " or "))
}

var quoted = regexp.MustCompile(`"[^"]*"|'[^']*'`)

func whereError(t *Table, src string, err error) error {
	for _, w := range dottedName.FindAllString(quoted.ReplaceAllString(src, `""`), -1) {
		if hint := wiresharkHint(t, w); hint != "" {
			col, _, _ := strings.Cut(strings.TrimPrefix(hint, "that is a Wireshark name; here it is "), " ")
			return fmt.Errorf("where %q: %q: %s, as in %s", src, w, hint, whereExample(t, col))
		}
	}
	if m := unknownName.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("where %q: %w", src, t.unknownColumn(m[1]))
	}
	if strings.Contains(err.Error(), "mismatched types time.Time and") || strings.Contains(err.Error(), "and time.Time)") {
		for _, c := range t.Columns {
			if c.Kind == Time && regexp.MustCompile(`\b`+c.Name+`\b`).MatchString(src) {
				return fmt.Errorf("where %q: %s is a time, and a time is written date(\"2010-12-22T16:00:00Z\"): as in %s", src, c.Name, whereExample(t, c.Name))
			}
		}
	}
	return fmt.Errorf("where %q: %s; write it as in %s", src, firstLine(err), whereExample(t, ""))
}

// whereExample is an expression that works on the table.
func whereExample(t *Table, col string) string {
	i := t.Index(col)
	if i < 0 {
		for j, c := range t.Columns {
			if c.Kind == String && (i < 0 || c.Name == "attempt_outcome") {
				i = j
			}
		}
	}
	if i < 0 {
		i = 0
	}
	c := t.Columns[i]
	switch {
	case strings.HasSuffix(c.Name, "_ip"):
		return fmt.Sprintf("'%s == \"192.0.2.1\"'", c.Name)
	case c.Name == "attempt_outcome":
		return `'attempt_outcome == "timeout"'`
	case c.Kind == Time:
		return fmt.Sprintf("'%s >= date(\"2010-12-22T16:00:00Z\")'", c.Name)
	case c.Kind == String || c.Kind == List:
		return fmt.Sprintf("'%s == \"text\"'", c.Name)
	case c.Kind == Bool:
		return "'" + c.Name + "'"
	}
	return fmt.Sprintf("'%s > 1'", c.Name)
}

// firstLine drops the source picture that expr draws under its messages.
func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}
