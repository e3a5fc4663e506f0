package reports

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"squall/dissect"
)

// Group is what is known of the network that a client is in; a field is empty
// where the file does not say it.
type Group struct{ Site, ASN, Country string }

// Groups finds the group of an address: the longest prefix of each file that holds
// it. What one file leaves open the next may say.
type Groups struct {
	files []groupFile
	err   atomic.Pointer[error]
}

// groupFile is one file: a list of prefixes, or a MaxMind database.
type groupFile interface{ of(ip netip.Addr) Group }

// prefixes are those of a CSV.
type prefixes struct {
	by   map[netip.Prefix]Group
	bits [2][]int // lengths that occur, IPv4 and IPv6, longest first
}

// Err is what could not be read of a file while it was asked; nil = nothing.
func (g *Groups) Err() error {
	if g == nil || g.err.Load() == nil {
		return nil
	}
	return *g.err.Load()
}

// ReadGroups reads a file and adds it: CSV with a heading, or a MaxMind database.
func (g *Groups) ReadGroups(in io.Reader, name string) error {
	b, err := readAll(in)
	if err != nil {
		return err
	}
	if !isMaxMind(b) {
		p, err := readPrefixes(bytes.NewReader(b))
		if err != nil {
			return err
		}
		g.files = append(g.files, p)
		return nil
	}
	m, err := openMaxMind(name, b)
	if err != nil {
		return err
	}
	m.fail = func(err error) { g.err.CompareAndSwap(nil, &err) }
	g.files = append(g.files, m)
	return nil
}

// maxGroups bounds the prefixes of a file.
const maxGroups = 1 << 21

// columns of a groups file: what they are, and the names that they go by.
var groupColumns = map[string][]string{
	"prefix":  {"prefix", "cidr", "network", "subnet"},
	"site":    {"site", "group", "location", "office", "name"},
	"asn":     {"asn", "as", "as_number", "autonomous_system_number"},
	"country": {"country", "country_iso_code", "country_code"},
}

// readPrefixes reads CSV with a heading: a column of prefixes (or addresses), and
// any of site, asn and country. MaxMind's CSV of networks is read as it is where
// it names an ASN.
func readPrefixes(in io.Reader) (*prefixes, error) {
	r := csv.NewReader(in)
	r.Comment, r.TrimLeadingSpace, r.ReuseRecord = '#', true, true
	heading, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("no heading: want prefix and any of site, asn, country: %w", err)
	}
	at := map[string]int{}
	for i, h := range heading {
		h = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff")))
		for what, names := range groupColumns {
			if _, taken := at[what]; !taken && slices.Contains(names, h) {
				at[what] = i
			}
		}
	}
	if _, ok := at["prefix"]; !ok || len(at) < 2 {
		return nil, fmt.Errorf("heading %q: want prefix (or cidr, network) and any of site (or group), asn, country", strings.Join(heading, ","))
	}
	g := &prefixes{by: map[netip.Prefix]Group{}}
	lengths := [2]map[int]bool{{}, {}}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := r.FieldPos(0)
		get := func(what string) string {
			if i, ok := at[what]; ok {
				return strings.Clone(strings.TrimSpace(row[i]))
			}
			return ""
		}
		text := get("prefix")
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, bad := netip.ParseAddr(text)
			if bad != nil {
				return nil, fmt.Errorf("line %d: %q is no prefix, as 192.0.2.0/24 or 2001:db8::/48", line, text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		p = p.Masked()
		if _, ok := g.by[p]; ok {
			return nil, fmt.Errorf("line %d: %v is there twice", line, p)
		}
		if len(g.by) >= maxGroups {
			return nil, fmt.Errorf("line %d: more than %d prefixes", line, maxGroups)
		}
		g.by[p] = Group{get("site"), strings.TrimPrefix(strings.ToUpper(get("asn")), "AS"), get("country")}
		lengths[family(p.Addr())][p.Bits()] = true
	}
	for f := range lengths {
		for b := range lengths[f] {
			g.bits[f] = append(g.bits[f], b)
		}
		slices.SortFunc(g.bits[f], func(a, b int) int { return b - a })
	}
	return g, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Of is the group of an address; fields are empty where no file says them. It may
// be called from several goroutines.
func (g *Groups) Of(a dissect.Addr) (all Group) {
	if g == nil {
		return all
	}
	ip := a.IP()
	for _, f := range g.files {
		one := f.of(ip)
		all = Group{cmp.Or(all.Site, one.Site), cmp.Or(all.ASN, one.ASN), cmp.Or(all.Country, one.Country)}
	}
	return all
}

func (g *prefixes) of(ip netip.Addr) Group {
	for _, b := range g.bits[family(ip)] {
		if p, err := ip.Prefix(b); err == nil {
			if found, ok := g.by[p]; ok {
				return found
			}
		}
	}
	return Group{}
}

// grouped are the columns of a client's group, in ECS names.
func grouped[T any](of func(*T) dissect.Addr) []field[T] {
	return []field[T]{
		strEnv("source_geo_name", "site of the client, as --groups says", func(e *Env, v *T) string { return e.Groups.Of(of(v)).Site }),
		strEnv("source_as_number", "its autonomous system, as --groups says", func(e *Env, v *T) string { return e.Groups.Of(of(v)).ASN }),
		strEnv("source_geo_country_iso_code", "its country, as --groups says", func(e *Env, v *T) string { return e.Groups.Of(of(v)).Country }),
	}
}
