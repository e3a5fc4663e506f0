package reports

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/oschwald/maxminddb-golang/v2"
)

// maxmind is a database of networks in MaxMind's format. It lies in memory: a
// mapped file that is cut while it is read would end the process.
type maxmind struct {
	name  string
	db    *maxminddb.Reader
	known sync.Map // Group by offset of its record
	bad   *sync.Once
	fail  func(error)
}

// maxMaxMind bounds the file; the largest that is sold has some 500 MB.
const maxMaxMind = 2 << 30

// maxmindMark begins the metadata, in the last 128 KiB of the file (MaxMind DB
// format 2.0, "Database Metadata").
var maxmindMark = []byte("\xab\xcd\xefMaxMind.com")

// isMaxMind recognises the end of a file.
func isMaxMind(file []byte) bool {
	return bytes.Contains(file[max(0, len(file)-128<<10):], maxmindMark)
}

func openMaxMind(name string, file []byte) (*maxmind, error) {
	db, err := maxminddb.OpenBytes(file)
	if err != nil {
		return nil, fmt.Errorf("not a MaxMind database that can be read: %w", err)
	}
	return &maxmind{name: name, db: db, bad: &sync.Once{}}, nil
}

// of is what the database says of an address.
func (m *maxmind) of(ip netip.Addr) Group {
	r := m.db.Lookup(ip)
	if !r.Found() {
		m.broken(r.Err())
		return Group{}
	}
	if g, ok := m.known.Load(r.Offset()); ok {
		return g.(Group)
	}
	var record map[string]any
	if err := r.Decode(&record); err != nil {
		m.broken(err)
		return Group{}
	}
	g := groupOf(record)
	m.known.Store(r.Offset(), g)
	return g
}

func (m *maxmind) broken(err error) {
	if err != nil {
		m.bad.Do(func() { m.fail(fmt.Errorf("%s: %w", m.name, err)) })
	}
}

// groupOf reads the records of GeoIP2 and GeoLite2 (City, Country, ASN, ISP,
// Enterprise), of databases that say it flatly (country, asn), and a site of one's
// own.
func groupOf(r map[string]any) (g Group) {
	text := func(path ...string) string {
		var v any = r
		for _, p := range path {
			m, ok := v.(map[string]any)
			if !ok {
				return ""
			}
			v = m[p]
		}
		switch v := v.(type) {
		case string:
			return v
		case uint64:
			return strconv.FormatUint(v, 10)
		case int32:
			return strconv.Itoa(int(v))
		}
		return ""
	}
	first := func(paths ...string) string {
		for _, p := range paths {
			if s := text(strings.Split(p, ".")...); s != "" {
				return s
			}
		}
		return ""
	}
	g.Site = first("site", "city.names.en", "city")
	g.ASN = strings.TrimPrefix(strings.ToUpper(first("autonomous_system_number", "traits.autonomous_system_number", "asn", "as_number")), "AS")
	g.Country = first("country.iso_code", "registered_country.iso_code", "country_code", "country_iso_code", "country")
	return g
}

// readAll reads a file of groups, which lies in memory whole.
func readAll(in io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in, maxMaxMind+1))
	if err == nil && len(b) > maxMaxMind {
		err = fmt.Errorf("it has more than %d bytes", maxMaxMind)
	}
	return b, err
}
