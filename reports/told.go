package reports

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxTold bounds the events of a file.
const maxTold = 1 << 16

// ReadEvents reads what people noted beside the packets: deploys, pages,
// reboots. It is CSV with a heading: time, text, and perhaps node. Times are
// RFC 3339, seconds of the epoch, or without a zone in the one given.
func ReadEvents(in io.Reader, name string, zone *time.Location) ([]Event, error) {
	r := csv.NewReader(in)
	r.Comment, r.TrimLeadingSpace, r.FieldsPerRecord = '#', true, -1
	heading, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("no heading: want time, text and perhaps node: %w", err)
	}
	column := func(names ...string) int {
		return slices.IndexFunc(heading, func(h string) bool {
			return slices.Contains(names, strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff"))))
		})
	}
	at, text, node := column("time", "timestamp", "@timestamp"), column("text", "what", "event", "message"), column("node", "host", "destination_ip")
	if at < 0 || text < 0 {
		return nil, fmt.Errorf("heading %q: want time, text and perhaps node", strings.Join(heading, ","))
	}
	var out []Event
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := r.FieldPos(0)
		if len(row) <= max(at, text) {
			return nil, fmt.Errorf("line %d: %d cells, time and text are %d and %d of the heading", line, len(row), at+1, text+1)
		}
		t, err := noted(strings.TrimSpace(row[at]), zone)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if len(out) >= maxTold {
			return nil, fmt.Errorf("line %d: more than %d events", line, maxTold)
		}
		e := Event{Time: t, What: strings.TrimSpace(row[text]), Told: name}
		if node >= 0 && node < len(row) && strings.TrimSpace(row[node]) != "" {
			e.What += " (" + strings.TrimSpace(row[node]) + ")"
		}
		if e.What == "" {
			return nil, fmt.Errorf("line %d: no text", line)
		}
		out = append(out, e)
	}
}

func noted(s string, zone *time.Location) (int64, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil && f > 1e6 && f < 9e9 {
		return int64(f * 1e9), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UnixNano(), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t.UnixNano(), nil
		}
	}
	return 0, fmt.Errorf("%q is no time: want RFC 3339, seconds of the epoch, or 2006-01-02 15:04:05", s)
}
