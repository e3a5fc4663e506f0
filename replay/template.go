package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"squall/capture"
	"squall/dissect"
	"squall/dissect/headers"
	"squall/dissect/overlay"
)

// Template is what a client sent first, as it was recorded: all of its bytes
// before the node's first. Empty: the node speaks first.
type Template struct {
	First []byte `json:"first"`
	// Blanked: there were credentials.
	Blanked bool `json:"blanked,omitempty"`
}

func (n *PlanNode) blanked() (count int) {
	for i := range n.Templates {
		if n.Templates[i].Blanked {
			count++
		}
	}
	return count
}

// blank overwrites passwords, tokens and cookies in a recorded request; names
// and addresses stay, for they say what was asked for.
func (t *Template) blank(n *PlanNode, proto uint8) {
	s := overlay.Scrubber{Addr: func(a dissect.Addr) dissect.Addr { return a }, Name: func([]byte) {}, Known: func(dissect.Addr) bool { return false }}
	was := slices.Clone(t.First)
	s.Scrub(n.Protocol, &dissect.Datagram{Proto: proto, Payload: t.First, PayloadLen: len(t.First)})
	t.Blanked = !slices.Equal(was, t.First)
}

// recordable are the protocols whose recorded requests may be sent again though
// squall does not make them anew: nothing in them is good for one time only.
// All others need keys, times or fresh numbers, and a node drops a recorded
// request of theirs as a replay.
var recordable = []string{"", "bittorrent", "diameter", "dns", "http", "libp2p", "mqtt", "nats", "skype"}

const (
	templatesMost = 8    // of a node
	templateBytes = 2048 // of one
	// templateTries attempts of each node are looked at for its templates.
	templateTries = 64
	templateWait  = int64(10 * time.Second)
)

// Reasons for which a node's attempts are left out.
const leftNoTemplate = "no whole first request was captured (cut, one side, or it names an address of the capture)"

// wanted is an attempt whose first bytes are looked for.
type wanted struct {
	node        int32
	proto       uint8
	start       int64
	next        uint32 // TCP: sequence number of the next byte
	begun, done bool
	bad         bool
	first       []byte
}

type flowKey struct {
	from, to dissect.Endpoint
	proto    uint8
}

// Learn reads the captures of the plan once more: for the first requests of the
// nodes that are asked with recorded bytes (PlanOptions.Payloads), and for the
// clients' round-trip times where those are wanted. Attempts at nodes of which
// there are no requests leave the plan.
func (p *Plan) Learn(src capture.Source, roundTrips bool) error {
	payloads := len(p.wanted) > 0
	if !payloads && !roundTrips {
		return nil
	}
	var trips *handshakes
	if roundTrips {
		trips = p.handshakes()
	}
	p.hash = ""
	var dec headers.Decoder
	var d dissect.Datagram
	if err := capture.Each(context.Background(), src, func(b *capture.Batch) error {
		for i := range b.Packets {
			dec.Decode(&b.Packets[i], &d)
			if d.Class != dissect.ClassTCP && d.Class != dissect.ClassUDP {
				continue
			}
			if trips != nil && d.Class == dissect.ClassTCP {
				trips.packet(&d)
			}
			if w := p.wanted[flowKey{d.Source(), d.Destination(), d.Proto}]; w != nil {
				w.request(&d)
			} else if w := p.wanted[flowKey{d.Destination(), d.Source(), d.Proto}]; w != nil && d.PayloadLen > 0 && w.begun {
				w.done = true
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("plan: payloads: %w", err)
	}
	if trips != nil {
		if p.RoundTrips = trips.quantiles(); p.RoundTrips == nil {
			return errors.New("plan: no whole TCP handshake with a node of the plan was captured, so no round-trip time is known")
		}
	}
	if !payloads {
		return nil
	}
	names := newRecorded(p.Recorded)
	list := make([]*wanted, 0, len(p.wanted))
	for k, w := range p.wanted {
		w.proto = k.proto
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b *wanted) int { return int(max(min(a.start-b.start, 1), -1)) })
	for _, w := range list {
		n := &p.Nodes[w.node]
		if !w.done || w.bad || len(w.first) == 0 && n.Dialect == "udp" || len(n.Templates) >= templatesMost || names.in(w.first) {
			continue
		}
		t := Template{First: w.first}
		if !p.secrets {
			t.blank(n, w.proto)
		}
		if !slices.ContainsFunc(n.Templates, func(o Template) bool { return slices.Equal(o.First, t.First) }) {
			n.Templates = append(n.Templates, t)
		}
	}
	p.wanted = nil
	kept := p.Items[:0]
	of := p.account.of[:0]
	for i, it := range p.Items {
		if n := &p.Nodes[it.Node]; n.Recorded && len(n.Templates) == 0 {
			p.account.drop(p.account.of[i], leftNoTemplate)
			continue
		}
		kept, of = append(kept, it), append(of, p.account.of[i])
	}
	p.Items, p.account.of = kept, of
	p.Coverage.Planned = int64(len(kept))
	p.account.fill(&p.Coverage)
	if len(kept) == 0 {
		return errors.New("plan: the capture holds no demand that can be asked again" + p.leftOut())
	}
	return p.Check()
}

// request takes a packet of the client.
func (w *wanted) request(d *dissect.Datagram) {
	if w.done || w.bad || d.Time < w.start || d.Time > w.start+templateWait {
		return
	}
	syn := d.Proto == dissect.ProtoTCP && d.Flags&dissect.SYN != 0
	switch {
	case syn:
		w.begun, w.next, w.first = true, d.Seq+1, w.first[:0]
		return
	case d.Proto == dissect.ProtoTCP && (!w.begun || d.PayloadLen == 0):
		return
	case d.Proto == dissect.ProtoTCP && d.Seq != w.next:
		w.bad = w.bad || int32(d.Seq-w.next) > 0 // a hole; else it came again
		return
	case d.Proto == dissect.ProtoUDP && w.begun:
		return // a repeat, or what follows
	}
	if w.bad = d.Cut || len(d.Payload) != d.PayloadLen || len(w.first)+len(d.Payload) > templateBytes; w.bad {
		return
	}
	w.begun = true
	w.next = d.Seq + uint32(len(d.Payload))
	w.first = append(w.first, d.Payload...)
}

// Speaks is how the node is asked; false: not by this squall.
func (n *PlanNode) Speaks() (Dialect, bool) {
	d, ok := FindDialect(n.Dialect)
	if ok && n.Recorded {
		r := recorded{transport: d.Transport(), templates: n.Templates, protocol: n.Protocol}
		for _, p := range overlay.All() {
			if p.Name() == n.Protocol {
				r.reads = p
			}
		}
		return r, true
	}
	return d, ok
}

// recorded is a protocol that squall does not make requests of: those that were
// recorded are sent again as they are. What the node says is judged by the code
// that reads captures; where the protocol is not known any byte is a yes, as it
// is in a capture.
type recorded struct {
	transport dissect.Transport
	templates []Template
	protocol  string
	reads     dissect.Protocol // nil = not known
}

func (r recorded) Name() string                 { return "recorded " + r.protocol }
func (r recorded) Transport() dissect.Transport { return r.transport }
func (r recorded) Repeat(int) time.Duration     { return 0 }
func (r recorded) Work() string {
	if r.reads == nil {
		return "the recorded first request, byte for byte; that any bytes came back is all that is known of the answer, so no capacity is claimed"
	}
	return "the recorded first request, byte for byte; a node that wants fresh ids or logins will say no"
}

func (r recorded) Request(dst []byte, who *Identity) []byte {
	if len(r.templates) == 0 {
		return dst
	}
	return append(dst, r.templates[uint64(who.Client)%uint64(len(r.templates))].First...)
}

func (r recorded) Read(who *Identity, got []byte) Reply {
	if r.reads == nil {
		return Reply{N: len(got), Kind: dissect.KindAccept}
	}
	d := dissect.Datagram{Proto: dissect.ProtoTCP, Payload: got, PayloadLen: len(got), SrcPort: who.Remote.Port(), DstPort: who.Local.Port()}
	if r.transport == dissect.UDP {
		d.Proto = dissect.ProtoUDP
	}
	f := dissect.Flow{Established: true, SegLen: len(got)}
	var m dissect.Message
	n, err := r.reads.Dissect(&d, &f, &m)
	switch {
	case errors.Is(err, dissect.ErrShort):
		return Reply{}
	case err != nil || n == 0 && r.transport == dissect.TCP:
		return Reply{N: len(got), Kind: dissect.KindAccept} // it answers, in words that are not known
	}
	if r.transport == dissect.UDP {
		n = len(got)
	}
	switch m.Kind {
	case dissect.KindAccept, dissect.KindRefuse, dissect.KindThrottle, dissect.KindRedirect:
		return Reply{N: n, Kind: m.Kind, RetryAfter: time.Duration(m.RetryAfter)}
	case dissect.KindChallenge, dissect.KindClose, dissect.KindLost: // what would answer it was not recorded
		return Reply{N: n, Kind: dissect.KindRefuse}
	}
	return Reply{N: n, Kind: dissect.KindProgress}
}

// Serve: whatever comes is a request.
func (r recorded) Serve(b []byte) Asked {
	return Asked{N: len(b), Kind: dissect.KindRequest, head: b}
}

// Answer has no words of its own: a byte for yes, nothing for anything else.
func (r recorded) Answer(dst []byte, _ *Asked, say dissect.Kind, _ time.Duration) []byte {
	if say != dissect.KindAccept {
		return dst
	}
	return append(dst, '.')
}
