// Package reports turns what an analysis found into tables and files.
//
// A table is defined once: a list of columns, each with its name, kind, unit,
// meaning and the function that reads it from a row. The Parquet and Arrow
// schemas, the text headings, the row filter's names and docs/tables.md all
// follow from that definition, so they cannot disagree.
//
// Rows stream: a table is an iterator, a format is a sink that takes one row
// at a time, and no format holds more than a bounded number of rows. Only a
// sort without a limit keeps them all.
package reports
