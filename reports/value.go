package reports

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind is the type of a column.
type Kind uint8

const (
	String   Kind = iota // UTF-8 text
	Int                  // signed 64-bit number
	Float                // IEEE 754 double
	Bool                 // true or false
	Time                 // nanoseconds since the Unix epoch, UTC
	Duration             // nanoseconds
	List                 // texts; joined by commas wherever a format is flat
)

var kindNames = [...]string{"string", "int64", "float64", "bool", "timestamp[ns]", "int64", "list"}

func (k Kind) String() string { return kindNames[k] }

// Value is one cell. Which field counts follows from the kind of its column:
// Str for String and List, Float for Float, Int for all others (0 and 1 for
// Bool). The zero Value is an empty text, zero, false or the epoch; Null says
// that there is nothing to tell.
type Value struct {
	Null  bool
	Int   int64
	Float float64
	Str   string
}

// null is the absent value.
var null = Value{Null: true}

// timeLayout is RFC 3339 in UTC with the nine decimals of a nanosecond clock.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// appendText prints a value for text, CSV and Markdown; an absent one prints
// nothing.
func appendText(b []byte, k Kind, v Value) []byte {
	if v.Null {
		return b
	}
	switch k {
	case String, List:
		return append(b, v.Str...)
	case Float:
		return appendFloat(b, v.Float)
	case Bool:
		return strconv.AppendBool(b, v.Int != 0)
	case Time:
		return time.Unix(0, v.Int).UTC().AppendFormat(b, timeLayout)
	}
	return strconv.AppendInt(b, v.Int, 10)
}

// appendFloat prints the shortest text that reads back equal, without an
// exponent for the sizes that reports hold.
func appendFloat(b []byte, f float64) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e15) {
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}

// appendJSON prints a value as JSON; lists become arrays of strings, numbers
// that JSON cannot hold become null.
func appendJSON(b []byte, k Kind, v Value) []byte {
	if v.Null {
		return append(b, "null"...)
	}
	switch k {
	case String:
		return appendJSONString(b, v.Str)
	case List:
		b = append(b, '[')
		for i, s := range splitList(v.Str) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSONString(b, s)
		}
		return append(b, ']')
	case Float:
		if math.IsNaN(v.Float) || math.IsInf(v.Float, 0) {
			return append(b, "null"...)
		}
		return appendFloat(b, v.Float)
	case Time:
		b = append(b, '"')
		b = appendText(b, k, v)
		return append(b, '"')
	}
	return appendText(b, k, v)
}

// appendJSONString quotes a text. Most cells are plain ASCII and need no look
// from the standard encoder.
func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf || c == 0x7f {
			var w strings.Builder
			e := json.NewEncoder(&w)
			e.SetEscapeHTML(false)
			if e.Encode(s) != nil {
				return append(b, `""`...)
			}
			return append(b, strings.TrimSuffix(w.String(), "\n")...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// joinList makes the flat form of a list; commas inside its texts become
// semicolons, so that it splits again.
func joinList(items []string) string {
	clean := make([]string, len(items))
	for i, s := range items {
		clean[i] = strings.ReplaceAll(s, ",", ";")
	}
	return strings.Join(clean, ",")
}

func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// compare orders two values of one kind; absent ones come last.
func compare(k Kind, a, b Value) int {
	switch {
	case a.Null && b.Null:
		return 0
	case a.Null:
		return 1
	case b.Null:
		return -1
	}
	switch k {
	case String, List:
		return strings.Compare(a.Str, b.Str)
	case Float:
		switch {
		case a.Float < b.Float:
			return -1
		case a.Float > b.Float:
			return 1
		}
		return 0
	}
	switch {
	case a.Int < b.Int:
		return -1
	case a.Int > b.Int:
		return 1
	}
	return 0
}
