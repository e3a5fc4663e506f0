package capture

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Expr is a parsed capture filter: *FilterAnd, *FilterOr, *FilterNot,
// *FilterTest, *FilterRelation, or, alone, *FilterProgram. nil matches every
// packet.
type Expr interface{ expr() }

// FilterAnd matches when both sides do. The right one is not looked at when
// the left one fails.
type FilterAnd struct{ L, R Expr }

// FilterOr matches when one side does.
type FilterOr struct{ L, R Expr }

// FilterNot matches when X does not.
type FilterNot struct{ X Expr }

// FilterKind says what a FilterTest looks at.
type FilterKind uint8

const (
	FilterProto     FilterKind = iota + 1 // the packet is of Proto
	FilterIPProto                         // its IP protocol is Number
	FilterHost                            // its addresses, by Dir, are in Net
	FilterPort                            // its ports, by Dir, are in PortLow to PortHigh
	FilterVLAN                            // a VLAN tag comes next, of id Number unless Any
	FilterMPLS                            // an MPLS label comes next, Number unless Any
	FilterEtherType                       // the type of what comes next is Number
	FilterInbound                         // it came in, as far as the capturing side noted it
	FilterOutbound                        // it went out
)

// FilterDir says which of two addresses or ports is meant.
type FilterDir uint8

const (
	FilterEither FilterDir = iota
	FilterSrc
	FilterDst
	FilterBoth
)

// FilterDepth is how many headers earlier words of the expression have
// stepped over: as in pcap-filter(7), "vlan" and "mpls" move all that follows
// them behind their header.
type FilterDepth struct{ VLANs, Labels int }

// FilterTest is one primitive.
type FilterTest struct {
	Kind              FilterKind
	Proto             string // "", "ether" (the link is Ethernet), "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "ah", "esp", "pim"
	Dir               FilterDir
	Net               netip.Prefix
	PortLow, PortHigh uint16
	Number            uint32 // IP protocol, VLAN id or MPLS label
	Any               bool   // FilterVLAN, FilterMPLS: without a number
	Depth             FilterDepth
}

// FilterRelation compares two numbers: Op is =, !=, <, <=, > or >=.
type FilterRelation struct {
	Op   string
	L, R *FilterNumber
}

// FilterNumber is arithmetic modulo 2^32. Op is "" for Value, "len" for the
// length of the packet on the wire, "[]" for Size bytes of header Proto at
// offset L, otherwise one of + - * / % & | ^ << >> between L and R.
type FilterNumber struct {
	Op    string
	Value uint32
	Proto string // "ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp"
	Size  int    // 1, 2 or 4
	L, R  *FilterNumber
	Depth FilterDepth
}

func (*FilterAnd) expr()      {}
func (*FilterOr) expr()       {}
func (*FilterNot) expr()      {}
func (*FilterTest) expr()     {}
func (*FilterRelation) expr() {}

// FilterError says what in a filter is wrong or not supported.
type FilterError struct {
	Column int // 1-based, in bytes
	Reason string
}

func (e *FilterError) Error() string { return fmt.Sprintf("filter: column %d: %s", e.Column, e.Reason) }

const (
	// maxFilter bounds the text of a filter; real ones are far below.
	maxFilter = 64 << 10
	// maxFilterDepth bounds parentheses and negations inside each other.
	maxFilterDepth = 64
)

// ParseFilter parses the language of pcap-filter(7): host, net, port and
// portrange with src and dst, the protocols, vlan, mpls, greater, less, and
// relations over header bytes. "and" and "or" bind alike, from the left, as
// there; an empty text is nil. What tcpdump -ddd prints is taken as it is. The
// error is a *FilterError.
func ParseFilter(text string) (e Expr, err error) {
	p := &filterParser{text: text}
	// The parser leaves by panic with a *FilterError, and only with that.
	defer func() {
		if r := recover(); r != nil {
			fe, ok := r.(*FilterError)
			if !ok {
				panic(r)
			}
			e, err = nil, fe
		}
	}()
	if len(text) > maxFilter {
		p.fail(maxFilter, "the filter is longer than %d bytes", maxFilter)
	}
	if program, ok, err := parseProgram(text); ok {
		if err != nil {
			return nil, err
		}
		return program, nil
	}
	p.lex()
	if p.peek() == "" {
		return nil, nil
	}
	e = p.list()
	if w := p.peek(); w != "" {
		p.fail(p.at(), "unexpected %q after a complete expression", w)
	}
	return e, nil
}

type filterToken struct {
	text string
	at   int
}

type filterParser struct {
	text   string
	tokens []filterToken
	next   int
	nested int
	depth  FilterDepth
	last   *FilterTest // what a bare value after and, or stands for
	kind   string      // the word of last: host, net, port, portrange, proto
}

// fail leaves the parser; ParseFilter turns it into an error.
func (p *filterParser) fail(at int, format string, args ...any) {
	panic(&FilterError{Column: at + 1, Reason: fmt.Sprintf(format, args...)})
}

func isIn(c byte, set string) bool { return strings.IndexByte(set, c) >= 0 }

const (
	filterDigits  = "0123456789"
	filterLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	filterHex     = filterDigits + "abcdefABCDEF"
)

func (p *filterParser) lex() {
	s, brackets := p.text, 0
	for i := 0; i < len(s); {
		run := func(set string) int {
			n := i
			for n < len(s) && isIn(s[n], set) {
				n++
			}
			return n
		}
		c, end := s[i], i+1
		switch {
		case isIn(c, " \t\r\n"):
			i++
			continue
		case c == '\\':
			i++ // an escaped keyword is a name: they stand in different places here
			continue
		case brackets == 0 && isIn(c, filterHex+":") && strings.Count(s[i:run(filterHex+":.")], ":") > 1:
			end = run(filterHex + ":.")
		case isIn(c, filterDigits):
			end = run(filterDigits + ".")
			if c == '0' && i+1 < len(s) && isIn(s[i+1], "xX") {
				i += 2
				end = run(filterHex)
				i -= 2
			}
		case isIn(c, filterLetters):
			end = run(filterLetters + filterDigits + "-.")
			if w := s[i:end]; strings.Contains(w, "-") {
				if _, ok := filterNames[w]; !ok && brackets+strings.Count(w, ".") == 0 {
					end = i + strings.IndexByte(w, '-')
				}
			}
		default:
			for _, op := range []string{"&&", "||", "!=", "==", "<=", ">=", "<<", ">>"} {
				if strings.HasPrefix(s[i:], op) {
					end = i + 2
				}
			}
			if end == i+1 && !isIn(c, "()[]:&|!=<>+-*/%^") {
				p.fail(i, "unexpected character %q", c)
			}
			if c == '[' {
				brackets++
			} else if c == ']' {
				brackets--
			}
		}
		p.tokens = append(p.tokens, filterToken{s[i:end], i})
		i = end
	}
}

func (p *filterParser) peek() string {
	if p.next < len(p.tokens) {
		return p.tokens[p.next].text
	}
	return ""
}

func (p *filterParser) at() int {
	if p.next < len(p.tokens) {
		return p.tokens[p.next].at
	}
	return len(p.text)
}

func (p *filterParser) take() string {
	w := p.peek()
	p.next++
	return w
}

// accept takes the next token if it is one of words.
func (p *filterParser) accept(words ...string) bool {
	if w := p.peek(); w != "" && slices.Contains(words, w) {
		p.next++
		return true
	}
	return false
}

func (p *filterParser) want(word string) {
	if !p.accept(word) {
		p.fail(p.at(), "expected %q, found %s", word, p.found())
	}
}

func (p *filterParser) found() string {
	if w := p.peek(); w != "" {
		return strconv.Quote(w)
	}
	return "the end"
}

func (p *filterParser) enter() {
	if p.nested++; p.nested > maxFilterDepth {
		p.fail(p.at(), "nested more than %d deep", maxFilterDepth)
	}
}

func (p *filterParser) list() Expr {
	e := p.term()
	for {
		switch {
		case p.accept("and", "&&"):
			e = &FilterAnd{e, p.term()}
		case p.accept("or", "||"):
			e = &FilterOr{e, p.term()}
		default:
			return e
		}
	}
}

func (p *filterParser) term() Expr {
	p.enter()
	defer func() { p.nested-- }()
	if p.accept("not", "!") {
		return &FilterNot{p.term()}
	}
	if r := p.relation(); r != nil {
		return r
	}
	if p.accept("(") {
		e := p.list()
		p.want(")")
		return e
	}
	return p.primitive()
}

// relation tries to read a comparison and gives nil, with nothing taken, when
// there is none: an opening parenthesis may begin either.
func (p *filterParser) relation() Expr {
	if !p.number() {
		return nil
	}
	begin := p.next
	l := p.arith(0)
	switch op := p.peek(); op {
	case "=", "==", "!=", "<", "<=", ">", ">=":
		p.next++
		if op == "==" {
			op = "="
		}
		return &FilterRelation{op, l, p.arith(0)}
	}
	if p.text[p.tokens[begin].at] == '(' {
		p.fail(p.at(), "expected a comparison such as != 0, found %s", p.found())
	}
	p.next = begin
	if p.peek() == "len" || begin+1 < len(p.tokens) && p.tokens[begin+1].text == "[" {
		p.fail(p.tokens[begin].at, "%q needs a comparison, such as %s[0] != 0", p.peek(), p.peek())
	}
	return nil
}

// number says whether arithmetic begins here: behind any parentheses there is
// a header with an index, len, a minus, or a number that an operator follows.
func (p *filterParser) number() bool {
	i := p.next
	for i < len(p.tokens) && p.tokens[i].text == "(" {
		i++
	}
	if i == len(p.tokens) {
		return false
	}
	w, after := p.tokens[i].text, ""
	if i+1 < len(p.tokens) {
		after = p.tokens[i+1].text
	}
	if i > p.next {
		// ( tcp[0] = 1 ) is a list, (tcp[0] & 1) = 1 a relation: decided by what
		// stands before the parenthesis closes.
		open := 1
		for j := p.next + 1; j < len(p.tokens) && open > 0; j++ {
			switch t := p.tokens[j].text; t {
			case "(":
				open++
			case ")":
				open--
			case "=", "==", "!=", "<", "<=", ">", ">=", "and", "or", "&&", "||", "not", "!":
				return false
			}
		}
	}
	_, header := filterBases[w]
	return w == "len" || w == "-" || header && after == "[" ||
		isIn(w[0], filterDigits) && after != "" && isIn(after[0], "=!<>+-*%&|^") && after != "&&" && after != "||" && after != "!"
}

var filterLevels = [][]string{{"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}}

func (p *filterParser) arith(level int) *FilterNumber {
	if level == len(filterLevels) {
		return p.unary()
	}
	l := p.arith(level + 1)
	for slices.Contains(filterLevels[level], p.peek()) {
		at, op := p.at(), p.take()
		r := p.arith(level + 1)
		if (op == "/" || op == "%") && r.Op == "" && r.Value == 0 {
			p.fail(at, "division by zero")
		}
		l = &FilterNumber{Op: op, L: l, R: r}
	}
	return l
}

// filterBases are the headers that can be indexed.
var filterBases = map[string]bool{"ether": true, "ip": true, "ip6": true, "arp": true, "rarp": true,
	"tcp": true, "udp": true, "sctp": true, "icmp": true, "icmp6": true, "igmp": true}

// filterNames are the offsets, flags and types that pcap-filter(7) names.
var filterNames = map[string]uint32{
	"tcpflags": 13, "tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,
	"icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
	"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12,
	"icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-routersolicit": 133, "icmp6-routeradvert": 134,
	"icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
}

func (p *filterParser) unary() *FilterNumber {
	p.enter()
	defer func() { p.nested-- }()
	at, w := p.at(), p.take()
	switch {
	case w == "":
		p.fail(at, "expected a number, found the end")
	case w == "(":
		n := p.arith(0)
		p.want(")")
		return n
	case w == "-":
		return &FilterNumber{Op: "-", L: &FilterNumber{}, R: p.unary()}
	case w == "len":
		return &FilterNumber{Op: "len"}
	case isIn(w[0], filterDigits):
		return &FilterNumber{Value: p.value(at, w, math.MaxUint32)}
	case filterBases[w]:
		p.want("[")
		n := &FilterNumber{Op: "[]", Proto: w, Size: 1, Depth: p.depth, L: p.arith(0)}
		if p.accept(":") {
			at = p.at()
			n.Size = int(p.value(at, p.take(), 4))
			if n.Size != 1 && n.Size != 2 && n.Size != 4 {
				p.fail(at, "%d bytes cannot be taken at once: 1, 2 or 4", n.Size)
			}
		}
		p.want("]")
		return n
	}
	v, ok := filterNames[w]
	if !ok {
		p.fail(at, "%q is no number, header or name such as tcpflags", w)
	}
	return &FilterNumber{Value: v}
}

// value reads a decimal, octal or hexadecimal number.
func (p *filterParser) value(at int, w string, most uint64) uint32 {
	digits, base := w, 10
	switch {
	case strings.HasPrefix(w, "0x") || strings.HasPrefix(w, "0X"):
		digits, base = w[2:], 16
	case len(w) > 1 && w[0] == '0':
		digits, base = w[1:], 8
	}
	if w == "" {
		p.fail(at, "expected a number, found the end")
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil || n > most {
		p.fail(at, "%q is no number up to %d", w, most)
	}
	return uint32(n)
}

// ipProtocols are the names that stand for IP protocol numbers.
var ipProtocols = map[string]uint32{"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "icmp6": 58, "pim": 103, "sctp": 132}

// services are the port names taken; a filter means the same on every machine.
var services = map[string]uint16{"ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69,
	"http": 80, "pop3": 110, "ntp": 123, "imap": 143, "imap2": 143, "snmp": 161, "ldap": 389, "https": 443, "sip": 5060}

// refused are words of pcap-filter(7) that are understood and declined.
var refused = map[string]string{
	"gateway": "\"gateway\" needs name look-ups; give the hosts",
	"pppoes":  "\"pppoes\" is not supported", "pppoed": "\"pppoed\" is not supported", "geneve": "\"geneve\" is not supported",
	"wlan": "802.11 is not supported", "type": "802.11 is not supported", "subtype": "802.11 is not supported",
	"protochain": "\"protochain\" is not supported; use proto", "ifname": "\"ifname\" is not supported",
}

func (p *filterParser) primitive() Expr {
	at, w := p.at(), p.peek()
	switch w {
	case "":
		p.fail(at, "expected an expression, found the end")
	case "vlan", "mpls":
		p.next++
		t := &FilterTest{Kind: FilterVLAN, Any: true, Depth: p.depth}
		most := uint64(4095)
		if w == "mpls" {
			t.Kind, most = FilterMPLS, 1<<20-1
			p.depth.Labels++
		} else {
			p.depth.VLANs++
			if p.depth.Labels > 0 {
				p.fail(at, "a VLAN behind MPLS is not supported")
			}
		}
		if n := p.peek(); n != "" && isIn(n[0], filterDigits) {
			t.Any = false
			t.Number = p.value(p.at(), p.take(), most)
		}
		return t
	case "greater", "less":
		p.next++
		op := map[string]string{"greater": ">=", "less": "<="}[w]
		n := p.value(p.at(), p.take(), math.MaxUint32)
		return &FilterRelation{op, &FilterNumber{Op: "len"}, &FilterNumber{Value: n}}
	}
	if e := p.etherish(); e != nil {
		return e
	}
	t := &FilterTest{Depth: p.depth}
	qualified := false
	if _, ok := ipProtocols[w]; ok || w == "ip" || w == "ip6" || w == "arp" || w == "rarp" {
		t.Proto, qualified = p.take(), true
	}
	if d := p.peek(); d == "src" || d == "dst" {
		p.next++
		t.Dir, qualified = FilterSrc, true
		if d == "dst" {
			t.Dir = FilterDst
		}
		if j := p.peek(); (j == "or" || j == "and") && p.next+1 < len(p.tokens) {
			if o := p.tokens[p.next+1].text; o != d && (o == "src" || o == "dst") && p.directionOnly() {
				p.next += 2
				t.Dir = FilterEither
				if j == "and" {
					t.Dir = FilterBoth
				}
			}
		}
	}
	kindAt := p.at()
	kind := p.peek()
	switch kind {
	case "host", "net", "port", "portrange", "proto":
		p.next++
	default:
		if t.Proto != "" && t.Dir == FilterEither && !p.isValue() {
			t.Kind = FilterProto
			return t
		}
		switch {
		case qualified && p.isValue():
			kind = "host"
		case qualified:
			p.fail(kindAt, "expected host, net, port, portrange or an address, found %s", p.found())
		case p.isValue() && p.last != nil:
			kind = p.kind
			t.Proto, t.Dir = p.last.Proto, p.last.Dir
		case p.isValue():
			kind = "host"
		case refused[w] != "":
			p.fail(at, "%s", refused[w])
		default:
			p.fail(at, "unknown word %q; names are not looked up, give addresses", w)
		}
	}
	switch kind {
	case "host", "net":
		t.Kind = FilterHost
		if ipProtocols[t.Proto] != 0 {
			p.fail(at, "%q cannot qualify an address; write %s and %s …", t.Proto, t.Proto, kind)
		}
		vAt := p.at()
		t.Net = p.prefix(kind)
		if t.Proto != "" && t.Net.Addr().Is6() != (t.Proto == "ip6") {
			p.fail(vAt, "%s is no address of %q", t.Net.Addr(), t.Proto)
		}
	case "port", "portrange":
		t.Kind = FilterPort
		if t.Proto != "" && t.Proto != "tcp" && t.Proto != "udp" && t.Proto != "sctp" {
			p.fail(at, "%q cannot qualify a port; write %s and %s …", t.Proto, t.Proto, kind)
		}
		t.PortLow = p.port()
		t.PortHigh = t.PortLow
		if kind == "portrange" && p.accept("-") {
			t.PortHigh = p.port()
		}
		if t.PortHigh < t.PortLow {
			t.PortLow, t.PortHigh = t.PortHigh, t.PortLow
		}
	case "proto":
		t.Kind = FilterIPProto
		if t.Dir != FilterEither || t.Proto != "" && t.Proto != "ip" && t.Proto != "ip6" {
			p.fail(kindAt, "only ip and ip6 can qualify \"proto\"")
		}
		vAt, v := p.at(), p.take()
		if n, ok := ipProtocols[v]; ok {
			t.Number = n
		} else {
			t.Number = p.value(vAt, v, 255)
		}
	}
	p.last, p.kind = t, kind
	return t
}

// etherish reads what is about MAC addresses, types and the direction; nil,
// with nothing taken, when there is something else.
func (p *filterParser) etherish() Expr {
	at, w := p.at(), p.peek()
	bytes := func(op string, proto string, offset, size int, and, v uint32) Expr {
		l := &FilterNumber{Op: "[]", Proto: proto, Size: size, L: &FilterNumber{Value: uint32(offset)}, Depth: p.depth}
		if and != 0 {
			l = &FilterNumber{Op: "&", L: l, R: &FilterNumber{Value: and}}
		}
		return &FilterRelation{op, l, &FilterNumber{Value: v}}
	}
	ethernet := func(e Expr) Expr { return &FilterAnd{&FilterTest{Kind: FilterProto, Proto: "ether"}, e} }
	station := func(offset int, mac [6]byte) Expr {
		hi := uint32(mac[0])<<24 | uint32(mac[1])<<16 | uint32(mac[2])<<8 | uint32(mac[3])
		return &FilterAnd{bytes("=", "ether", offset, 4, 0, hi), bytes("=", "ether", offset+4, 2, 0, uint32(mac[4])<<8|uint32(mac[5]))}
	}
	everybody := func() Expr { return ethernet(station(0, [6]byte{255, 255, 255, 255, 255, 255})) }
	after := ""
	if p.next+1 < len(p.tokens) {
		after = p.tokens[p.next+1].text
	}
	switch {
	case w == "inbound", w == "outbound":
		p.next++
		kind := FilterInbound
		if w == "outbound" {
			kind = FilterOutbound
		}
		return &FilterTest{Kind: kind}
	case w == "broadcast":
		p.next++
		return everybody()
	case w == "multicast":
		p.next++
		return ethernet(bytes("!=", "ether", 0, 1, 1, 0))
	case w == "ip" && after == "multicast":
		p.next += 2
		return bytes(">=", "ip", 16, 1, 0, 224)
	case w == "ip6" && after == "multicast":
		p.next += 2
		return bytes("=", "ip6", 24, 1, 0, 255)
	case w == "ip" && after == "broadcast":
		p.fail(at, "\"ip broadcast\" needs the netmask of the interface; write dst host and the address")
	case w != "ether":
		return nil
	}
	p.next++
	wordAt, word := p.at(), p.take()
	switch word {
	case "broadcast":
		return everybody()
	case "multicast":
		return ethernet(bytes("!=", "ether", 0, 1, 1, 0))
	case "proto":
		vAt, v := p.at(), p.take()
		n, ok := map[string]uint32{"ip": etherIPv4, "ip6": etherIPv6, "arp": etherARP, "rarp": etherRARP}[v]
		if !ok {
			n = p.value(vAt, v, 0xffff)
		}
		if n < 1536 {
			p.fail(vAt, "%d is a length, no Ethernet type: those begin at 0x600", n)
		}
		return &FilterTest{Kind: FilterEtherType, Number: n, Depth: p.depth}
	case "host", "src", "dst":
		p.accept("host")
		vAt, v := p.at(), p.take()
		mac, ok := parseMAC(v)
		if !ok {
			p.fail(vAt, "%q is no MAC address such as 00:00:5e:00:53:01", v)
		}
		switch word {
		case "src":
			return ethernet(station(6, mac))
		case "dst":
			return ethernet(station(0, mac))
		}
		return ethernet(&FilterOr{station(6, mac), station(0, mac)})
	}
	p.fail(wordAt, "expected host, src, dst, proto, broadcast, multicast or [ after \"ether\"")
	return nil
}

func parseMAC(s string) (mac [6]byte, ok bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 6 {
		return mac, false
	}
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 16, 8)
		if err != nil {
			return mac, false
		}
		mac[i] = byte(v)
	}
	return mac, true
}

// directionOnly tells "src or dst port 5" from "src 1.2.3.4": what follows
// the two directions is a kind or a value, and nothing stood between them.
func (p *filterParser) directionOnly() bool { return p.next+2 < len(p.tokens) }

// isValue says whether an address or a number comes next.
func (p *filterParser) isValue() bool {
	w := p.peek()
	return w != "" && (isIn(w[0], filterDigits) || strings.Count(w, ":") > 1)
}

func (p *filterParser) port() uint16 {
	at, w := p.at(), p.take()
	if n, ok := services[w]; ok {
		return n
	}
	return uint16(p.value(at, w, math.MaxUint16))
}

func (p *filterParser) prefix(kind string) netip.Prefix {
	at, w := p.at(), p.take()
	if w == "" {
		p.fail(at, "expected an address, found the end")
	}
	full, bits := w, 128
	if !strings.Contains(w, ":") {
		n := strings.Count(w, ".") + 1
		if kind == "net" && n < 4 {
			full += strings.Repeat(".0", 4-n)
		}
		bits = 32
		if kind == "net" {
			bits = min(8*n, 32)
		}
	}
	a, err := netip.ParseAddr(full)
	if err != nil {
		p.fail(at, "%q is no address; names are not looked up", w)
	}
	switch {
	case p.peek() == "/" && kind == "host":
		p.fail(p.at(), "a host has no prefix length; write net %s/…", w)
	case p.accept("/"):
		if full != w {
			p.fail(at, "write the network in full: %s/…", full)
		}
		bits = int(p.value(p.at(), p.take(), uint64(a.BitLen())))
	case kind == "net" && p.accept("mask"):
		mAt := p.at()
		m, err := netip.ParseAddr(p.take())
		if err != nil || !m.Is4() || !a.Is4() {
			p.fail(mAt, "expected an IPv4 mask such as 255.255.0.0")
		}
		b := m.As4()
		v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		for bits = 0; bits < 32 && v>>(31-bits)&1 == 1; bits++ {
		}
		if v<<bits != 0 {
			p.fail(mAt, "a mask with gaps is not supported")
		}
	}
	n := netip.PrefixFrom(a, bits)
	if n.Masked() != n {
		p.fail(at, "%s has bits beyond its /%d; the network is %s", w, bits, n.Masked())
	}
	return n
}
