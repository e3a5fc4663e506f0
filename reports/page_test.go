package reports_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"squall/capture"
	"squall/dissect/pipeline"
	"squall/dissect/storm"
	"squall/reports"
	"squall/samples"
)

var update = flag.Bool("update", false, "write the generated pages anew")

// TestPages: what is generated stands in the repository as it is.
func TestPages(t *testing.T) {
	for path, write := range map[string]func(io.Writer) error{
		"../docs/tables.md":           reports.WriteTablesPage,
		"../docs/summary.schema.json": reports.WriteSummarySchema,
	} {
		var want bytes.Buffer
		if err := write(&want); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s is not what the definitions say (%v); go test ./reports -update writes it anew", path, err)
		}
	}
}

// TestSummaryKeepsItsSchema holds the JSON of a storm and of an empty capture
// to the schema.
func TestSummaryKeepsItsSchema(t *testing.T) {
	var buf bytes.Buffer
	if err := reports.WriteSummarySchema(&buf); err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(buf.Bytes(), &schema); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "outage", "skype-2010"} {
		src, w := io.Pipe()
		go func() {
			var err error
			if name == "" {
				var none *capture.Writer
				if none, err = capture.NewWriter(w, capture.WriterOptions{}); err == nil {
					err = none.Close()
				}
			} else {
				_, err = samples.Write(w, name, 1, capture.WriterOptions{})
			}
			w.CloseWithError(err)
		}()
		in, err := capture.Open([]string{"-"}, capture.Options{Stdin: src})
		if err != nil {
			t.Fatal(err)
		}
		a, err := pipeline.Run(context.Background(), pipeline.Config{}, in)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := reports.WriteSummary(&out, reports.NewResults(a, storm.Config{})); err != nil {
			t.Fatal(err)
		}
		var summary any
		if err := json.Unmarshal(out.Bytes(), &summary); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		for _, wrong := range check(schema, summary, "") {
			t.Errorf("%q: %s", name, wrong)
		}
		a.Close()
		in.Close()
	}
	if len(check(schema, map[string]any{"schema": 2.0, "extra": 1.0}, "")) < 3 {
		t.Error("the check finds nothing wrong with a wrong object")
	}
}

// check holds a value to the parts of JSON Schema that the schema uses.
func check(schema map[string]any, v any, at string) (wrong []string) {
	if want, ok := schema["const"]; ok && v != want {
		wrong = append(wrong, fmt.Sprintf("%s: %v, want %v", at, v, want))
	}
	if want, ok := schema["enum"].([]any); ok && !slices.Contains(want, v) {
		wrong = append(wrong, fmt.Sprintf("%s: %v is none of %v", at, v, want))
	}
	if types, ok := schema["type"].([]any); ok && !slices.ContainsFunc(types, func(k any) bool { return isType(k.(string), v) }) {
		wrong = append(wrong, fmt.Sprintf("%s: %v is none of %v", at, v, types))
	}
	if one, ok := schema["type"].(string); ok && !isType(one, v) {
		wrong = append(wrong, fmt.Sprintf("%s: %v is no %s", at, v, one))
	}
	if list, ok := v.([]any); ok {
		items, _ := schema["items"].(map[string]any)
		for i, e := range list {
			wrong = append(wrong, check(items, e, fmt.Sprintf("%s[%d]", at, i))...)
		}
	}
	if o, ok := v.(map[string]any); ok {
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := o[name.(string)]; !ok {
				wrong = append(wrong, fmt.Sprintf("%s: %s is missing", at, name))
			}
		}
		for name, e := range o {
			p, ok := properties[name].(map[string]any)
			if !ok {
				wrong = append(wrong, fmt.Sprintf("%s: %s is not in the schema", at, name))
				continue
			}
			wrong = append(wrong, check(p, e, at+"."+name)...)
		}
	}
	return wrong
}

func isType(name string, v any) bool {
	switch x := v.(type) {
	case nil:
		return name == "null"
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case float64:
		return name == "number" || name == "integer" && x == float64(int64(x))
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}
