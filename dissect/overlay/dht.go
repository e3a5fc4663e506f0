package overlay

import (
	"errors"

	"squall/dissect"
)

// dht is the distributed hash table of BitTorrent: KRPC, bencoded dictionaries
// over UDP (BEP 5, 32, 42, 51; protocols.md G.3).
//
//	d1:ad2:id20:<id>6:target20:<id>e1:q9:find_node1:t2:aa1:v4:UT011:y1:qe
//	d1:rd2:id20:<id>5:nodes26:...e1:t2:aa1:v4:UT011:y1:re
//	d1:eli201e5:Errore1:t2:aa1:y1:ee
//
// y is the kind, q the method, t pairs an answer with its query, v is the
// client and its version, id the node's name of itself. Nothing is repeated: a
// query has one answer. All nodes are peers; those that everybody starts at are
// known by their ids. uTP on the same ports is read, too, and said to be that.
type dht struct{}

var errDHT = errors.New("not a message of the bittorrent dht")

const (
	// The ids of router.bittorrent.com, router.utorrent.com and
	// dht.transmissionbt.com, as they answer (from memory).
	dhtRouterA = "\x32\xf5\x4e\x69\x73\x51\xff\x4a\xec\x29\xcd\xba\xab\xf2\xfb\xe3\x46\x7c\xc2\x67"
	dhtRouterB = "\xeb\xff\x36\x69\x73\x51\xff\x4a\xec\x29\xcd\xba\xab\xf2\xfb\xe3\x46\x7c\xc2\x67"
	// maxBencode bounds the nesting of values.
	maxBencode = 16
)

func (dht) Name() string                  { return "bt-dht" }
func (dht) Transports() dissect.Transport { return dissect.UDP }

func (dht) Gates(dissect.Transport) []dissect.Gate {
	return []dissect.Gate{{Starts: "d", Least: 20}}
}

func (dht) Probe(d *dissect.Datagram) dissect.Verdict {
	b := d.Payload
	if len(b) < 20 || b[0] != 'd' {
		return dissect.No
	}
	switch string(b[1:5]) {
	case "1:ad", "1:rd":
		if string(b[5:12]) == "2:id20:" {
			return dissect.Yes
		}
	case "1:el":
		if b[5] == 'i' {
			return dissect.Yes
		}
	case "2:ip":
		if k, ok := readKRPC(b); ok && k.kind != 0 {
			return dissect.Yes
		}
	}
	return dissect.No
}

// krpc are the fields of a message that are read.
type krpc struct {
	kind                   byte // q, r or e; 0 = none was there
	method, txn, id, agent []byte
}

// bencoded cuts the value that b begins with. text is the content of a string,
// nil of other values; ok is false if it is no value, or not all there.
func bencoded(b []byte) (text, rest []byte, ok bool) {
	depth := 0
	for {
		if len(b) == 0 {
			return nil, nil, false
		}
		switch c := b[0]; {
		case digit(c):
			n, i := 0, 0
			for ; i < len(b) && digit(b[i]) && n < 1<<20; i++ {
				n = n*10 + int(b[i]-'0')
			}
			if i == len(b) || b[i] != ':' || n > len(b)-i-1 {
				return nil, nil, false
			}
			text, b = b[i+1:i+1+n], b[i+1+n:]
		case c == 'i':
			i := 1
			for i < len(b) && b[i] != 'e' && i < 24 {
				i++
			}
			if i == len(b) || b[i] != 'e' {
				return nil, nil, false
			}
			text, b = nil, b[i+1:]
		case c == 'd', c == 'l':
			if depth++; depth > maxBencode {
				return nil, nil, false
			}
			b = b[1:]
			continue
		case c == 'e' && depth > 0:
			depth--
			text, b = nil, b[1:]
		default:
			return nil, nil, false
		}
		if depth == 0 {
			return text, b, true
		}
	}
}

// bencodedInt reads i<digits>e.
func bencodedInt(b []byte) (v int64, ok bool) {
	if len(b) < 3 || b[0] != 'i' {
		return 0, false
	}
	for i := 1; i < len(b) && i < 20; i++ {
		if b[i] == 'e' {
			return v, i > 1
		}
		if !digit(b[i]) {
			break
		}
		v = v*10 + int64(b[i]-'0')
	}
	return 0, false
}

// readKRPC walks the outer dictionary and that of the arguments. A message
// that is cut gives what was read.
func readKRPC(b []byte) (k krpc, ok bool) {
	if len(b) < 2 || b[0] != 'd' {
		return k, false
	}
	b = b[1:]
	for len(b) > 0 && b[0] != 'e' {
		key, rest, good := bencoded(b)
		if !good || key == nil || len(rest) == 0 {
			return k, false
		}
		if len(key) == 1 && (key[0] == 'a' || key[0] == 'r') && rest[0] == 'd' {
			k.id = krpcID(rest)
		}
		value, rest, good := bencoded(rest)
		if !good {
			return k, false
		}
		if len(key) == 1 {
			switch key[0] {
			case 'y':
				if len(value) == 1 {
					k.kind = value[0]
				}
			case 'q':
				k.method = value
			case 't':
				k.txn = value
			case 'v':
				k.agent = value
			}
		}
		b = rest
	}
	return k, len(b) > 0
}

// krpcID is the id in the arguments, d..2:id20:<id>..e; it comes before most keys.
func krpcID(b []byte) []byte {
	b = b[1:]
	for range 8 {
		key, rest, ok := bencoded(b)
		if !ok || key == nil {
			return nil
		}
		value, rest, ok := bencoded(rest)
		if !ok {
			return nil
		}
		if string(key) == "id" && len(value) == 20 {
			return value
		}
		b = rest
	}
	return nil
}

func (dht) Dissect(d *dissect.Datagram, f *dissect.Flow, m *dissect.Message) (int, error) {
	b := d.Payload
	if len(b) == 0 || b[0] != 'd' {
		m.Protocol = utp{}.Name()
		return utpMessage(b, f, m)
	}
	m.Protocol = dht{}.Name()
	k, ok := readKRPC(b)
	if !ok && k.kind == 0 && d.Cut && len(b) > 4 { // y comes last, the first key tells as much
		switch b[3] {
		case 'a':
			k.kind = 'q'
		case 'r', 'e':
			k.kind = b[3]
		}
	}
	if k.kind == 0 || len(k.txn) == 0 && !d.Cut {
		return 0, errDHT
	}
	m.Txn, m.Role = dhtTxn(f, &k), dissect.RolePeer
	switch k.kind {
	case 'q':
		m.Kind, m.Op, m.FromClient = dissect.KindRequest, dhtMethod(k.method), true
		m.ClientID, m.Version = k.id, dhtVersion(k.agent)
	case 'r':
		m.Kind, m.Op, m.FromClient = dissect.KindAccept, "response", false
		if string(k.id) == dhtRouterA || string(k.id) == dhtRouterB {
			m.Role = dissect.RoleBootstrap
		}
	case 'e':
		m.Kind, m.Op, m.FromClient = dissect.KindRefuse, "error", false
	default:
		return 0, errDHT
	}
	return len(b), nil
}

// dhtTxn is the key of a query and its answer. Some nodes use one t for all
// their queries, so that a query is new if the last one with its t was
// answered. Flow.A is the t of the last query, Flow.B counts how often it was
// used anew, Flow.Step is 1 once that was answered.
func dhtTxn(f *dissect.Flow, k *krpc) uint64 {
	asker := uint64(1) // each end has its own
	if f.FromClient == (k.kind == 'q') {
		asker = 2
	}
	t := hashKey(asker, k.txn)
	switch {
	case k.kind != 'q':
		if t == f.A {
			f.Step = 1
		}
	case t != f.A:
		f.A, f.Step = t, 0
	case f.Step == 1:
		f.B++
		f.Step = 0
	}
	return dissect.Mix64(t+f.B) | 1
}

func dhtMethod(b []byte) string {
	for _, m := range [...]string{"ping", "find_node", "get_peers", "announce_peer", "get", "put", "sample_infohashes", "vote"} {
		if string(b) == m {
			return m
		}
	}
	return "query"
}

// dhtVersion: two letters of the client and two bytes of its version.
func dhtVersion(b []byte) []byte {
	if len(b) > 16 {
		return nil
	}
	return b
}
