package overlay

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"squall/dissect"
)

// With fewer bytes than leastOpaque chance decides whether they look random, and
// of more than maxOpaque too many must come twice.
const (
	leastOpaque = 16
	maxOpaque   = 64
)

// Bounds of a hints file.
const (
	maxHintsBytes   = 1 << 20
	maxHintsLine    = 4 << 10
	maxHintsNesting = 16 << 10 // opening brackets in all
	maxSignatures   = 64
	maxSigMessages  = 64
	maxSigPatterns  = 16
	maxPatternBytes = 256
	maxSigOffset    = 4096
)

// LoadHints reads a file of hints: one YAML document. name stands in errors,
// which say line, key, and what was expected there. The protocols follow the
// file's order; put them before those of All. The keys, all optional:
//
//	nodes:                     # by endpoint, what a node is
//	  192.0.2.1:6346: {role: supernode, service: east}
//	services:                  # from the service squall finds to the one wanted
//	  gnutella/supernode: attach
//	protocols:
//	  - name: made-up          # lower case letters, digits, - . _
//	    about: what it is known by, for squall protocols
//	    transport: udp         # udp, tcp or [udp, tcp]
//	    ports: [7000, 7010..7019]
//	    role: supernode        # of the node: supernode, login, relay, bootstrap, tracker, peer
//	    encrypted: false
//	    probe:                 # alternatives; without any the ports alone are a guess
//	      - match:             # all must hold
//	          - {at: 0, hex: "fa 00 b6 2b"}
//	          - {at: 4, hex: "40", mask: "c0"}
//	          - {at: 8, text: "HELLO", within: 16}   # begins at 8 to 24
//	        length: 12..64     # of the payload; also 12, 12.. and ..64
//	        size_at: {at: 1, bytes: 4, order: little, plus: 5} # the field, plus 5, is the length
//	        opaque: {at: 0, length: 32}      # these bytes look random, as encrypted ones do
//	    frame: {at: 1, bytes: 4, order: little, plus: 5}  # of a stream; or {until: "\r\n"}
//	    pair: {at: 4, length: 4}          # what answers copy from requests
//	    client: {at: 8, length: 6}        # who asks, beyond its address
//	    version: {after: "agent=", until: "\n"}
//	    messages:              # the first that fits
//	      - name: LOGIN
//	        kind: request      # request, refresh, progress, challenge, success, refusal, busy, redirect, close, lost, data
//	        from: client       # or node: who opened the flow, or did not
//	        first: true        # begins its direction of the stream
//	        match: [{at: 0, hex: "01"}]   # length, size_at and opaque as above
//	        timeout: 4s
//	      - name: LATER
//	        kind: busy
//	        match: [{at: 0, hex: "02"}]
//	        retry_after: {at: 8, bytes: 2, unit: s}  # or 30s, or {after: "wait=", unit: ms}
//
// A message may have pair, client, version and role of its own, chain (what
// ties its legs) and lifetime (of a success, written like retry_after). A version
// may be a text that stands for it. A field is at plus length, or up to until; at counts from behind after where that is
// given; until may be a list, of which the nearest counts. Without frame each segment
// of a stream is a message; a first message of one length ends there. A probe that
// fixes 24 bits is sure, one of 16 a guess, one of less needs a port.
func LoadHints(r io.Reader, name string) (hints dissect.Hints, protocols []dissect.Protocol, err error) {
	data, err := io.ReadAll(io.LimitReader(r, maxHintsBytes+1))
	if err != nil {
		return hints, nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := bounded(data); err != nil {
		return hints, nil, fmt.Errorf("%s: %w", name, err)
	}
	file, err := parseYAML(data)
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			return hints, nil, fmt.Errorf("%s:%d: %s", name, at.GetToken().Position.Line, at.GetMessage())
		}
		return hints, nil, fmt.Errorf("%s: not YAML: %w", name, err)
	}
	h := &hintsReader{name: name, hints: dissect.Hints{Nodes: map[dissect.Endpoint]dissect.NodeHint{}, Services: map[string]string{}}}
	docs := 0
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if docs++; docs > 1 {
			h.fail(doc.Body, "", "a second document; expected one")
		}
		h.document(doc.Body)
	}
	if h.err != nil {
		return dissect.Hints{}, nil, h.err
	}
	return h.hints, h.protocols, nil
}

// bounded refuses what would make a YAML parser work hard.
func bounded(data []byte) error {
	if len(data) > maxHintsBytes {
		return fmt.Errorf("over %d bytes; split the file", maxHintsBytes)
	}
	line, open, start := 1, 0, 0
	for i, c := range data {
		switch c {
		case '[', '{':
			if open++; open > maxHintsNesting {
				return fmt.Errorf("line %d: more than %d brackets; split the file", line, maxHintsNesting)
			}
		case '\n', '\r':
			line, start = line+1, i
		}
		if i-start > maxHintsLine {
			return fmt.Errorf("line %d: over %d bytes; break it", line, maxHintsLine)
		}
	}
	return nil
}

// parseYAML turns a panic of the parser into an error.
func parseYAML(data []byte) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser gave up: %v", p)
		}
	}()
	return parser.ParseBytes(data, 0)
}

// hintsReader walks the document. The first error stays, and nothing is read
// after it.
type hintsReader struct {
	name      string
	hints     dissect.Hints
	protocols []dissect.Protocol
	err       error
}

func (h *hintsReader) fail(n ast.Node, key, format string, args ...any) {
	if h.err != nil {
		return
	}
	line := 0
	if n != nil {
		if t := n.GetToken(); t != nil && t.Position != nil {
			line = t.Position.Line
		}
	}
	if key != "" {
		key += ": "
	}
	h.err = fmt.Errorf("%s:%d: %s%s", h.name, line, key, fmt.Sprintf(format, args...))
}

// text is the source of a scalar, or the value of a string.
func (h *hintsReader) text(n ast.Node, key, want string) string {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return v.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value
	}
	h.fail(n, key, "expected %s", want)
	return ""
}

// each visits the entries of a mapping; a key that the visitor does not know,
// or that comes twice, is an error that names those allowed.
func (h *hintsReader) each(n ast.Node, key, allowed string, visit func(key, path string, v ast.Node) bool) {
	var entries []*ast.MappingValueNode
	switch v := n.(type) {
	case *ast.MappingNode:
		entries = v.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{v}
	case *ast.NullNode:
		return
	default:
		h.fail(n, key, "expected a mapping of %s", allowed)
		return
	}
	seen := map[string]bool{}
	for _, e := range entries {
		if h.err != nil {
			return
		}
		k := h.text(e.Key, key, "a plain key")
		path := k
		if key != "" {
			path = key + "." + k
		}
		if seen[k] {
			h.fail(e.Key, path, "given twice")
		}
		seen[k] = true
		if e.Value == nil {
			h.fail(e.Key, path, "has no value")
			return
		}
		if h.err == nil && !visit(k, path, e.Value) {
			h.fail(e.Key, path, "unknown key; expected %s", allowed)
		}
	}
}

// list visits a sequence; a lone value is a sequence of one.
func (h *hintsReader) list(n ast.Node, key string, most int, visit func(path string, v ast.Node)) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		visit(key, n)
		return
	}
	if len(s.Values) > most {
		h.fail(n, key, "%d entries; expected at most %d", len(s.Values), most)
	}
	for i, v := range s.Values {
		if h.err != nil {
			return
		}
		path := key + "[" + strconv.Itoa(i) + "]"
		if v == nil {
			h.fail(n, path, "has no value")
			return
		}
		visit(path, v)
	}
}

func (h *hintsReader) integer(n ast.Node, key string, least, most int) int {
	v, err := strconv.Atoi(h.text(n, key, "a number"))
	if err != nil || v < least || v > most {
		h.fail(n, key, "%q; expected a number from %d to %d", n.GetToken().Value, least, most)
		return least
	}
	return v
}

func (h *hintsReader) boolean(n ast.Node, key string) bool {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		h.fail(n, key, "expected true or false")
		return false
	}
	return b.Value
}

// word is one of the words, which are separated by blanks.
func (h *hintsReader) word(n ast.Node, key, words string) string {
	s := h.text(n, key, "one of "+words)
	for _, w := range strings.Fields(words) {
		if s == w {
			return s
		}
	}
	h.fail(n, key, "%q; expected one of %s", s, words)
	return ""
}

func (h *hintsReader) duration(n ast.Node, key string) int64 {
	v, err := time.ParseDuration(h.text(n, key, "a duration such as 30s"))
	if err != nil || v < 0 || v > maxWait {
		h.fail(n, key, "expected a duration from 0s to 720h, such as 30s")
		return 0
	}
	return int64(v)
}

// span reads 5, 5..9, 5.. or ..9; hi 0 = open.
func (h *hintsReader) span(n ast.Node, key string, most int) (lo, hi int) {
	s := h.text(n, key, "a number or a range such as 12..64")
	from, to, ranged := strings.Cut(s, "..")
	bound := func(s string, open int) int {
		if ranged && s == "" {
			return open
		}
		v, err := strconv.Atoi(s)
		if err != nil || v < 0 || v > most {
			h.fail(n, key, "%q; expected a number or a range such as 12..64, up to %d", h.text(n, key, ""), most)
		}
		return v
	}
	lo = bound(from, 0)
	if !ranged {
		return lo, lo
	}
	if hi = bound(to, 0); hi > 0 && hi < lo {
		h.fail(n, key, "%q ends before it begins", s)
	}
	return lo, hi
}

const roleWords = "supernode login relay bootstrap tracker peer"

func (h *hintsReader) role(n ast.Node, key string) dissect.Role {
	r, _ := dissect.ParseRole(h.word(n, key, roleWords))
	return r
}

func (h *hintsReader) document(n ast.Node) {
	h.each(n, "", "nodes, services, protocols", func(k, path string, v ast.Node) bool {
		switch k {
		case "nodes":
			h.each(v, path, "endpoints", h.node)
		case "services":
			h.each(v, path, "services", func(k, path string, v ast.Node) bool {
				h.hints.Services[k] = h.text(v, path, "the name of a service")
				return true
			})
		case "protocols":
			if _, ok := v.(*ast.NullNode); ok {
				return true
			}
			h.list(v, path, maxSignatures, h.protocol)
		default:
			return false
		}
		return true
	})
}

// HideHints writes hints for packets whose addresses were mapped: nodes under their
// other addresses; services under numbers, unless they are called after a protocol
// and a role; protocols without the words about them.
func HideHints(data []byte, name string, addr func(dissect.Addr) dissect.Addr) ([]byte, error) {
	hints, own, err := LoadHints(bytes.NewReader(data), name)
	if err != nil {
		return nil, err
	}
	plain := map[string]bool{}
	for _, p := range append(own, All()...) {
		for r := dissect.RoleUnknown; r <= dissect.RolePeer; r++ {
			plain[p.Name()+"/"+r.String()] = true
		}
	}
	var wanted []string
	for _, s := range hints.Services {
		wanted = append(wanted, s)
	}
	for _, n := range hints.Nodes {
		wanted = append(wanted, n.Service)
	}
	slices.Sort(wanted)
	numbers := map[string]string{"": ""}
	for _, s := range slices.Compact(wanted) {
		switch {
		case plain[s]:
			numbers[s] = s
		case s != "":
			numbers[s] = fmt.Sprintf("service-%d", len(numbers))
		}
	}
	var b bytes.Buffer
	if len(hints.Nodes) > 0 {
		b.WriteString("nodes:\n")
	}
	nodes := map[string]string{}
	for at, n := range hints.Nodes {
		var words []string
		if n.Role != dissect.RoleUnknown {
			words = append(words, "role: "+n.Role.String())
		}
		if n.Service != "" {
			words = append(words, "service: "+strconv.Quote(numbers[n.Service]))
		}
		nodes[dissect.Endpoint{Addr: addr(at.Addr), Port: at.Port}.String()] = strings.Join(words, ", ")
	}
	for _, at := range slices.Sorted(maps.Keys(nodes)) {
		fmt.Fprintf(&b, "  %q: {%s}\n", at, nodes[at])
	}
	if len(hints.Services) > 0 {
		b.WriteString("services:\n")
	}
	for _, s := range slices.Sorted(maps.Keys(hints.Services)) {
		from := s
		if n, ok := numbers[s]; ok {
			from = n
		}
		fmt.Fprintf(&b, "  %q: %q\n", from, numbers[hints.Services[s]])
	}
	file, err := parseYAML(data)
	if err != nil {
		return nil, err
	}
	for _, doc := range file.Docs {
		for _, e := range entries(doc.Body) {
			if e.Key.GetToken().Value != "protocols" {
				continue
			}
			if list, ok := e.Value.(*ast.SequenceNode); ok {
				for _, p := range list.Values {
					if m, ok := p.(*ast.MappingNode); ok {
						m.Values = slices.DeleteFunc(m.Values, func(v *ast.MappingValueNode) bool { return v.Key.GetToken().Value == "about" })
					}
				}
			}
			b.WriteString(e.String() + "\n")
		}
	}
	again, same, err := LoadHints(bytes.NewReader(b.Bytes()), name)
	if err != nil || len(again.Nodes) != len(hints.Nodes) || len(same) != len(own) {
		return nil, fmt.Errorf("%s: cannot be written for other addresses: %w", name, cmp.Or(err, errors.New("it would say something else")))
	}
	return b.Bytes(), nil
}

// entries are those of a mapping.
func entries(n ast.Node) []*ast.MappingValueNode {
	switch v := n.(type) {
	case *ast.MappingNode:
		return v.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{v}
	}
	return nil
}

func (h *hintsReader) node(k, path string, v ast.Node) bool {
	at, err := netip.ParseAddrPort(k)
	if err != nil {
		h.fail(v, path, "expected an endpoint such as 192.0.2.1:6346 or \"[2001:db8::1]:6346\"")
		return true
	}
	var hint dissect.NodeHint
	h.each(v, path, "role, service", func(k, path string, v ast.Node) bool {
		switch k {
		case "role":
			hint.Role = h.role(v, path)
		case "service":
			hint.Service = h.text(v, path, "the name of a service")
		default:
			return false
		}
		return true
	})
	h.hints.Nodes[dissect.Endpoint{Addr: dissect.AddrFrom(at.Addr()), Port: at.Port()}] = hint
	return true
}

func (h *hintsReader) protocol(path string, n ast.Node) {
	s := &signature{}
	messages := false
	h.each(n, path, "name, about, transport, ports, role, encrypted, probe, frame, pair, client, version, messages", func(k, path string, v ast.Node) bool {
		switch k {
		case "name":
			s.name = h.text(v, path, "a name")
			if !protocolName(s.name) {
				h.fail(v, path, "%q; expected 1 to 32 of a-z, 0-9, - . _", s.name)
			}
		case "about":
			s.about = h.text(v, path, "what it is known by")
		case "transport":
			h.list(v, path, 2, func(path string, v ast.Node) {
				if h.word(v, path, "udp tcp") == "udp" {
					s.transport |= dissect.UDP
				} else {
					s.transport |= dissect.TCP
				}
			})
		case "ports":
			h.list(v, path, 256, func(path string, v ast.Node) {
				lo, hi := h.span(v, path, 1<<16-1)
				if lo == 0 || hi == 0 {
					h.fail(v, path, "expected a port or a range of ports, from 1 to 65535")
				}
				s.ports = append(s.ports, [2]uint16{uint16(lo), uint16(hi)})
			})
		case "role":
			s.role = h.role(v, path)
		case "encrypted":
			s.encrypted = h.boolean(v, path)
		case "probe":
			h.list(v, path, maxSigPatterns, func(path string, v ast.Node) {
				var c sigCondition
				h.each(v, path, conditionKeys, func(k, path string, v ast.Node) bool { return h.condition(&c, k, path, v) })
				s.probes = append(s.probes, c)
			})
		case "frame":
			s.frame = h.frame(v, path)
		case "pair":
			s.pair = h.field(v, path)
		case "client":
			s.client = h.field(v, path)
		case "version":
			s.version = h.words(v, path)
		case "messages":
			messages = true
			h.list(v, path, maxSigMessages, func(path string, v ast.Node) { s.messages = append(s.messages, h.message(v, path)) })
		default:
			return false
		}
		return true
	})
	switch {
	case h.err != nil:
		return
	case s.name == "":
		h.fail(n, path+".name", "missing; expected the name of the protocol")
	case s.transport == 0:
		h.fail(n, path+".transport", "missing; expected udp, tcp or both")
	case !messages:
		h.fail(n, path+".messages", "missing; expected at least a request")
	case len(s.probes) == 0 && len(s.ports) == 0:
		h.fail(n, path+".probe", "missing; expected patterns, or ports to guess by")
	case s.frame != nil && s.transport&dissect.TCP == 0:
		h.fail(n, path+".frame", "only streams have frames; expected none for udp")
	}
	for i := range s.probes {
		if s.probes[i].bits < weakBits && len(s.ports) == 0 {
			h.fail(n, fmt.Sprintf("%s.probe[%d]", path, i), "fixes %d bits; expected %d or more, or ports", s.probes[i].bits, weakBits)
		}
	}
	s.brief = true
	for i := range s.messages {
		t := &s.messages[i]
		switch t.kind {
		case dissect.KindRefresh, dissect.KindClose, dissect.KindLost:
			s.brief = false
		}
		// On a stream the side that connected is the client.
		if t.from == anySide && s.transport == dissect.TCP {
			switch t.kind {
			case dissect.KindRequest, dissect.KindRefresh:
				t.from = clientSide
			case dissect.KindData, dissect.KindClose, dissect.KindLost:
			default:
				t.from = nodeSide
			}
		}
	}
	if h.err == nil {
		h.protocols = append(h.protocols, s)
	}
}

func protocolName(s string) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && !digit(c) && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

const conditionKeys = "match, length, size_at, opaque, first"

func (h *hintsReader) condition(c *sigCondition, k, path string, v ast.Node) bool {
	switch k {
	case "match":
		h.list(v, path, maxSigPatterns, func(path string, v ast.Node) {
			p, bits := h.pattern(v, path)
			c.patterns = append(c.patterns, p)
			c.bits += bits
		})
	case "length":
		c.min, c.max = h.span(v, path, 1<<24)
	case "size_at":
		n := h.number(v, path, "at, bytes, order, plus")
		c.size = &n
		c.bits += min(8*n.bytes, weakBits) // it rarely fits by chance
	case "opaque":
		f := h.field(v, path)
		c.opaque = &f
		if h.err == nil && (f.length < leastOpaque || f.length > maxOpaque || f.after != nil || f.until != nil) {
			h.fail(v, path, "expected at, and a length of %d to %d", leastOpaque, maxOpaque)
		}
	case "first":
		c.first = h.boolean(v, path)
	default:
		return false
	}
	return true
}

// pattern gives how many bits it fixes, too; those of a search count half.
func (h *hintsReader) pattern(n ast.Node, key string) (p sigPattern, bits int) {
	h.each(n, key, "at, hex, text, mask, within", func(k, path string, v ast.Node) bool {
		switch k {
		case "at":
			p.at = h.integer(v, path, 0, maxSigOffset)
		case "within":
			p.within = h.integer(v, path, 0, maxSigOffset)
		case "hex":
			p.want = h.hex(v, path)
		case "text":
			p.want = []byte(h.text(v, path, "a text"))
		case "mask":
			p.mask = h.hex(v, path)
		default:
			return false
		}
		return true
	})
	switch {
	case h.err != nil:
	case len(p.want) == 0 || len(p.want) > maxPatternBytes:
		h.fail(n, key, "%d bytes; expected hex or text of 1 to %d", len(p.want), maxPatternBytes)
	case p.mask != nil && len(p.mask) != len(p.want):
		h.fail(n, key+".mask", "%d bytes for a pattern of %d; expected as many", len(p.mask), len(p.want))
	}
	for i := range p.want {
		m := byte(0xff)
		if h.err == nil && p.mask != nil {
			m = p.mask[i]
			if p.want[i]&^m != 0 {
				h.fail(n, key, "byte %d has bits that its mask %02x hides; expected none", i, m)
			}
		}
		for ; m != 0; m &= m - 1 {
			bits++
		}
	}
	if p.within > 0 {
		bits /= 2
	}
	return p, bits
}

func (h *hintsReader) hex(n ast.Node, key string) []byte {
	s := strings.Join(strings.Fields(h.text(n, key, "hex digits")), "")
	b, err := hex.DecodeString(s)
	if err != nil {
		h.fail(n, key, "%q; expected pairs of hex digits, in quotes", s)
	}
	return b
}

func (h *hintsReader) number(n ast.Node, key, allowed string) sigNumber {
	var f sigNumber
	h.each(n, key, allowed, func(k, path string, v ast.Node) bool { return h.numberKey(&f, k, path, v) })
	if h.err == nil && f.bytes == 0 {
		h.fail(n, key+".bytes", "missing; expected 1 to 8")
	}
	return f
}

func (h *hintsReader) numberKey(f *sigNumber, k, path string, v ast.Node) bool {
	switch k {
	case "at":
		f.at = h.integer(v, path, 0, maxSigOffset)
	case "bytes":
		f.bytes = h.integer(v, path, 1, 8)
	case "order":
		f.little = h.word(v, path, "big little") == "little"
	case "plus":
		f.plus = int64(h.integer(v, path, -1<<16, 1<<16))
	default:
		return false
	}
	return true
}

func (h *hintsReader) frame(n ast.Node, key string) *sigFrame {
	var f sigFrame
	var size sigNumber
	h.each(n, key, "at, bytes, order, plus, until", func(k, path string, v ast.Node) bool {
		if k == "until" {
			f.until = []byte(h.text(v, path, "the end of a message"))
			return true
		}
		return h.numberKey(&size, k, path, v)
	})
	if h.err == nil && (size.bytes == 0) == (len(f.until) == 0) {
		h.fail(n, key, "expected either a length (at, bytes) or until")
	}
	if size.bytes > 0 {
		f.size = &size
	}
	return &f
}

func (h *hintsReader) field(n ast.Node, key string) sigField {
	f := sigField{given: true}
	h.each(n, key, "at, length, after, until", func(k, path string, v ast.Node) bool { return h.fieldKey(&f, k, path, v) })
	return f
}

// words reads a field, or a text that stands for it.
func (h *hintsReader) words(n ast.Node, key string) sigField {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return h.field(n, key)
	}
	return sigField{given: true, fixed: []byte(h.text(n, key, "a field (at, length, after, until) or a text"))}
}

func (h *hintsReader) fieldKey(f *sigField, k, path string, v ast.Node) bool {
	switch k {
	case "at":
		f.at = h.integer(v, path, 0, maxSigOffset)
	case "length":
		f.length = h.integer(v, path, 1, maxPatternBytes)
	case "after":
		f.after = []byte(h.text(v, path, "a text"))
	case "until":
		h.list(v, path, maxSigPatterns, func(path string, v ast.Node) {
			end := []byte(h.text(v, path, "a text"))
			if len(end) == 0 {
				h.fail(v, path, "expected a text of at least a byte")
			}
			f.until = append(f.until, end)
		})
	default:
		return false
	}
	return true
}

// wait reads a duration, or where a message has one.
func (h *hintsReader) wait(n ast.Node, key string) sigWait {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		return sigWait{fixed: h.duration(n, key)}
	}
	w := sigWait{unit: int64(time.Second)}
	var binary sigNumber
	h.each(n, key, "at, bytes, order, plus, after, until, unit", func(k, path string, v ast.Node) bool {
		switch k {
		case "unit":
			units := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour}
			if u, ok := units[h.word(v, path, "ms s m h")]; ok {
				w.unit = int64(u)
			}
		case "after", "until":
			w.digits.given = true
			return h.fieldKey(&w.digits, k, path, v)
		default:
			return h.numberKey(&binary, k, path, v)
		}
		return true
	})
	switch {
	case binary.bytes > 0 && w.digits.given:
		h.fail(n, key, "expected either a binary number (bytes) or digits (after)")
	case binary.bytes > 0:
		w.number = &binary
	case w.digits.given:
		w.digits.at = binary.at
	default:
		h.fail(n, key, "expected a duration, a binary number (at, bytes, unit) or digits (after, unit)")
	}
	return w
}

// sigKind is a kind by the name that it has in files.
func sigKind(word string) dissect.Kind {
	switch word {
	case "success":
		return dissect.KindAccept
	case "refusal":
		return dissect.KindRefuse
	case "busy":
		return dissect.KindThrottle
	}
	for k := dissect.KindData; k <= dissect.KindLost; k++ {
		if k.String() == word {
			return k
		}
	}
	return dissect.KindData
}

func (h *hintsReader) message(n ast.Node, key string) sigMessage {
	var t sigMessage
	kind := false
	h.each(n, key, "name, kind, from, "+conditionKeys+", pair, chain, client, version, role, retry_after, lifetime, timeout", func(k, path string, v ast.Node) bool {
		switch k {
		case "name":
			t.op = h.text(v, path, "the name of the message")
		case "kind":
			kind = true
			t.kind = sigKind(h.word(v, path, "request refresh progress challenge success refusal busy redirect close lost data"))
		case "from":
			t.from = nodeSide
			if h.word(v, path, "client node") == "client" {
				t.from = clientSide
			}
		case "pair":
			t.pair = h.field(v, path)
		case "chain":
			t.chain = h.field(v, path)
		case "client":
			t.client = h.field(v, path)
		case "version":
			t.version = h.words(v, path)
		case "role":
			t.role = h.role(v, path)
		case "retry_after":
			t.retryAfter = h.wait(v, path)
		case "lifetime":
			t.lifetime = h.wait(v, path)
		case "timeout":
			t.timeout = h.duration(v, path)
		default:
			return h.condition(&t.when, k, path, v)
		}
		return true
	})
	if h.err == nil && !kind {
		h.fail(n, key+".kind", "missing; expected request, success, refusal, busy, ...")
	}
	if t.op == "" {
		t.op = t.kind.String()
	}
	return t
}
