package reports

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// ecsVersion is the version of the Elastic Common Schema whose names are used.
const ecsVersion = "8.11.0"

// ecsGroups are the field sets that columns of attempts belong to by their
// first word; network_vlan_id is nested once more. All other columns go under
// "squall", which ECS leaves to us.
var ecsGroups = map[string]bool{"event": true, "source": true, "destination": true, "network": true}

// ecsOwn are columns that begin like a field set and are none of its fields.
var ecsOwn = map[string]bool{"destination_role": true}

// ecsSink writes attempts as ECS documents, one a line, for Elasticsearch's
// bulk loaders and whatever else reads ECS.
type ecsSink struct {
	w      *bufio.Writer
	t      *Table
	start  int
	groups []string
	fields map[string][]ecsField
	line   []byte
}

type ecsField struct {
	key    string // `"name":`
	column int
}

func openECS(w io.Writer, t *Table, _ Options) (Sink, error) {
	s := &ecsSink{w: bufio.NewWriterSize(w, sinkBuffer), t: t, start: t.Index("event_start"), fields: map[string][]ecsField{}}
	if s.start < 0 || t.Index("attempt_id") < 0 {
		return nil, fmt.Errorf("ECS documents are made of attempts, with their attempt_id and event_start (this is table %s)", t.Name)
	}
	for i, c := range t.Columns {
		group, name, _ := strings.Cut(c.Name, "_")
		switch {
		case c.Name == "attempt_id":
			group, name = "event", "id"
		case c.Name == "network_vlan_id":
			group, name = "network.vlan", "id"
		case !ecsGroups[group] || ecsOwn[c.Name]:
			group, name = "squall", c.Name
		}
		s.fields[group] = append(s.fields[group], ecsField{string(appendJSONString(nil, name)) + ":", i})
	}
	s.groups = []string{"event", "source", "destination", "network", "squall"}
	return s, nil
}

func (s *ecsSink) Write(row []Value) error {
	b := append(s.line[:0], `{"@timestamp":`...)
	b = appendJSON(b, Time, row[s.start])
	b = append(b, `,"ecs":{"version":"`+ecsVersion+`"}`...)
	for _, g := range s.groups {
		head := `,"` + g + `":{`
		if g == "event" {
			head += `"kind":"event","category":["network"],"type":["connection"]`
		}
		before := len(b)
		b = append(b, head...)
		empty := len(b)
		b = s.append(b, g, row, g == "event")
		if g == "network" {
			if vlan := s.append(nil, "network.vlan", row, false); len(vlan) > 0 {
				if len(b) > empty {
					b = append(b, ',')
				}
				b = append(append(append(b, `"vlan":{`...), vlan...), '}')
			}
		}
		if len(b) == empty && g != "event" {
			b = b[:before]
			continue
		}
		b = append(b, '}')
	}
	s.line = append(b, '}', '\n')
	_, err := s.w.Write(s.line)
	return err
}

// append writes the fields of a group that have a value: ECS has no nulls.
func (s *ecsSink) append(b []byte, group string, row []Value, more bool) []byte {
	for _, f := range s.fields[group] {
		if row[f.column].Null {
			continue
		}
		if more {
			b = append(b, ',')
		}
		more = true
		b = append(b, f.key...)
		b = appendJSON(b, s.t.Columns[f.column].Kind, row[f.column])
	}
	return b
}

func (s *ecsSink) Close() error { return s.w.Flush() }
