package reports

import (
	"fmt"
	"io"
)

// WriteViews writes SQL that makes every kept table a view of its name, for
// DuckDB started in the directory: duckdb -init squall.sql.
func WriteViews(w io.Writer) error {
	if _, err := fmt.Fprintln(w, "-- cd here, then: duckdb -init squall.sql"); err != nil {
		return err
	}
	for _, t := range Schemas() {
		if _, err := fmt.Fprintf(w, "CREATE OR REPLACE VIEW %s AS SELECT * FROM read_parquet('%s.parquet'); -- a row is %s\n", t.Name, t.Name, t.Row); err != nil {
			return err
		}
	}
	return nil
}
