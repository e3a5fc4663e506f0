package reports

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"squall/dissect"
	"squall/dissect/storm"
)

// WriteTablesPage writes the page that documents every table and column, in
// Markdown, from the definitions that the tables themselves are made of.
func WriteTablesPage(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Tables

Generated from the column definitions; ` + "`go test ./reports -update`" + ` writes it anew.

` + "`squall report TABLE SOURCE...`" + ` gives each of these as text, Markdown, CSV, TSV, JSON,
JSON lines, Arrow or Parquet; ` + "`squall analyze -o DIR`" + ` keeps all of them as Parquet.
Names follow the Elastic Common Schema with ` + "`_`" + ` for ` + "`.`" + `. Times are UTC with nanoseconds:
RFC 3339 in text, timestamps without a zone in Arrow and Parquet. Every column may
be absent (empty, null), which means: not known, or nothing to tell.
`)
	for _, t := range Schemas() {
		fmt.Fprintf(&b, "\n## %s\n\nA row is %s.\n\n| column | type | unit | meaning |\n|---|---|---|---|\n", t.Name, t.Row)
		for _, c := range t.Columns {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name, c.Kind, c.Unit, escapeMarkdown(c.Doc))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteSummarySchema writes the JSON Schema (draft 2020-12) of what
// WriteSummary writes.
func WriteSummarySchema(w io.Writer) error {
	type m = map[string]any
	count := m{"type": "integer"}
	number := m{"type": "number"}
	texts := m{"type": "array", "items": m{"type": "string"}}
	closed := func(properties m) m {
		return m{"type": "object", "properties": properties, "required": slices.Sorted(maps.Keys(properties)), "additionalProperties": false}
	}
	row := func(name string, more m) m {
		t, _, _ := (*Results)(nil).Table(name)
		properties := m{}
		for _, c := range t.Columns {
			properties[c.Name] = m{"description": c.Doc, "type": jsonType(c.Kind)}
			if c.Kind == List {
				properties[c.Name] = m{"description": c.Doc, "type": []string{"array", "null"}, "items": m{"type": "string"}}
			}
		}
		for k, v := range more {
			properties[k] = v
		}
		return closed(properties)
	}
	rows := func(name string, more m) m { return m{"type": "array", "items": row(name, more)} }
	nested := func(name string) m { return m(rows(name, nil)) }
	counts := func(names ...string) m {
		p := m{}
		for _, n := range names {
			p[n] = count
		}
		return p
	}
	ledger, outcomes := m{}, m{}
	for b := range dissect.NumBuckets {
		ledger[b.String()] = count
	}
	for o := range dissect.NumOutcomes {
		outcomes[o.String()] = count
	}
	totals := counts("attempts", "intents", "retries", "refreshes", "parallels", "transmissions", "clients", "nodes", "censored_intents", "nat_suspects", "monitors", "checks")
	for _, n := range []string{"amplification", "retry_share", "intent_surge", "late_ratio"} {
		totals[n] = number
	}
	totals["outcomes"] = closed(outcomes)
	totals["accepts_proven_by"] = closed(counts("app", "bytes", "age"))
	criteria := m{"criteria": nested("criteria")}
	verdict := row("findings", m{"criteria": nested("criteria"), "summary": m{"type": "string"}})
	var classes []string
	for c := range storm.NumClasses {
		classes = append(classes, c.String())
	}
	verdict["properties"].(m)["class"] = m{"enum": classes}
	schema := closed(m{
		"schema": m{"const": SummarySchema}, "captures": rows("captures", nil), "ledger": closed(ledger),
		"baseline": nullable(closed(m{"name": m{"type": "string"}, "counted": m{"enum": []string{"attempts", "flows"}}, "begin": m{"type": "string"}, "end": m{"type": "string"},
			"missing_services": texts, "services": m{"type": "array", "items": closed(m{"service": m{"type": "string"}, "baseline_service": m{"type": "string"},
				"begin": m{"type": "string"}, "end": m{"type": "string"}, "same_time_of_day": m{"type": "boolean"}, "attempt_rate": number, "baseline_attempt_rate": number,
				"volume": number, "failure_ratio": number, "baseline_failure_ratio": m{"type": []string{"number", "null"}}, "surge": number})}})),
		"verdict": verdict, "findings": rows("findings", criteria), "totals": closed(totals),
		"nodes": rows("nodes", m{"periods": nested("node_periods")}), "migrations": rows("migrations", nil),
		"roles": rows("roles", nil), "versions": rows("versions", nil), "policies": rows("policies", nil),
		"hypotheses": m{"type": "array", "items": closed(m{"name": m{"type": "string"}, "rank": count, "score": number,
			"sentence": m{"type": "string"}, "for": texts, "against": texts, "unseen": texts})},
		"monitors": m{"type": "array", "items": closed(m{"client_id": m{"type": "string"}, "services": texts, "nodes": count, "checks": count, "failed": count,
			"interval_ns": count, "first_time": m{"type": "string"}, "last_time": m{"type": "string"}})},
		"notes": texts,
	})
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "squall analyze -T json"
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	return enc.Encode(schema)
}

func nullable(schema map[string]any) map[string]any {
	schema["type"] = []string{"object", "null"}
	return schema
}

func jsonType(k Kind) []string {
	switch k {
	case Float:
		return []string{"number", "null"}
	case Bool:
		return []string{"boolean", "null"}
	case Int, Duration:
		return []string{"integer", "null"}
	}
	return []string{"string", "null"}
}
